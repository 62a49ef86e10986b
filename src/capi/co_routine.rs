//! co_routine.h: coroutines, the loop, conditions, copy stacks, hooks.

use core::ffi::{c_char, c_int, c_void};
use core::ptr::{NonNull, null_mut};

use libc::{nfds_t, pollfd, pthread_key_t};

use super::{coroutine, fail, share_stack, stCoCond_t, stCoEpoll_t, stCoRoutine_t, stShareStack_t};
use crate::arch;
use crate::event;
use crate::hook::real;
use crate::routine::cond::{self, Whom};
use crate::routine::coroutine::{DEFAULT_STACK, Outcome};
use crate::routine::{self, copy, env, extra};
use crate::sys::caller::Function;
use crate::sys::errno::Errno;
use crate::sys::log;

/// What a coroutine does: gets the argument of co_create; its result is ignored.
pub type pfn_co_routine_t = Option<unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void>;

/// Called by co_eventloop after every round with the argument given there; -1 ends the loop.
pub type pfn_co_eventloop_t = Option<unsafe extern "C-unwind" fn(*mut c_void) -> c_int>;

/// Gets a message of the library: one line without a line end.
pub type pfn_co_log_t = Option<unsafe extern "C-unwind" fn(*const c_char)>;

/// How to make a coroutine. In C++ the constructor fills in the defaults; in C set both members
/// (0 and NULL are the defaults).
///
/// stack_size: bytes of its private stack; 0 or less: 128 KiB; at most 8 MiB; rounded up to pages.
/// share_stack: not NULL: the coroutine runs on one of these copy stacks instead, taken in turns.
#[repr(C, packed)]
pub struct stCoRoutineAttr_t {
    pub stack_size: c_int,
    pub share_stack: *mut stShareStack_t,
}

const _: () = {
    assert!(size_of::<stCoRoutineAttr_t>() == 12);
    assert!(core::mem::offset_of!(stCoRoutineAttr_t, share_stack) == 4);
};

/// Makes a coroutine that will run routine(arg). It does not run before co_resume.
///
/// co: gets the new coroutine. attr: NULL for a private stack of 128 KiB. routine: NULL is allowed: such
/// a coroutine ends at once. The first call in a thread also makes the thread's environment.
///
/// Returns 0. Unlike libco, which crashes there: -EINVAL if co is NULL, -ENOMEM (and *co = NULL) if
/// there is no memory.
///
/// # Safety
/// attr is NULL or points at attributes; arg is whatever routine takes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_create(
    co: *mut *mut stCoRoutine_t,
    attr: *const stCoRoutineAttr_t,
    routine: pfn_co_routine_t,
    arg: *mut c_void,
) -> c_int {
    if co.is_null() {
        log::misuse!("co_create: no place for the coroutine: co is NULL");
        return -libc::EINVAL;
    }
    // SAFETY: NULL, or the caller's attributes; packed, so read unaligned.
    let attr = (!attr.is_null()).then(|| unsafe { attr.read_unaligned() });
    let (size, group) = attr.map_or((DEFAULT_STACK, null_mut()), |a| (a.stack_size, a.share_stack));
    let made = env::current_or_new().and_then(|env| {
        // SAFETY: NULL, or from co_alloc_sharestack.
        routine::create(env, size, unsafe { share_stack(group) }, routine, arg)
    });
    let (result, status) = match made {
        Ok(made) => (made.as_ptr().cast_mut(), 0),
        Err(Errno(error)) => {
            log::error!("co_create: no memory for a coroutine or its stack");
            (null_mut(), -error)
        }
    };
    // SAFETY: not NULL.
    unsafe { co.write(result) };
    status
}

/// Runs co until it yields or ends, then returns. Works from anywhere: the main program, another
/// coroutine, a callback. As libco.
///
/// Unlike libco, which crashes there: a coroutine that has ended, runs already, or belongs to another
/// thread is left alone, and so is NULL; a message is logged. A coroutine that never ran belongs to the
/// thread that resumes it first. A coroutine that waits may be resumed by hand: its co_poll returns 0, its
/// hooked read or write behaves as after a time-out, its condition wait returns.
///
/// # Safety
/// co is NULL, or from co_create and not released.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_resume(co: *mut stCoRoutine_t) {
    arch::resume_body!()
}

/// Yields the running coroutine back to whoever resumed it; co is not looked at (in libco it names the
/// thread, which is always the caller's). In C++20 co_yield is a keyword: there the name is co_yield_co.
///
/// # Safety
/// co is NULL, or from co_create and not released.
#[cfg(not(cxx_coroutines))]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_yield(co: *mut stCoRoutine_t) {
    let _ = co;
    arch::yield_now();
}

/// co_yield under a name that is no keyword in C++20.
///
/// # Safety
/// co is NULL, or from co_create and not released.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_yield_co(co: *mut stCoRoutine_t) {
    let _ = co;
    arch::yield_now();
}

/// Yields the running coroutine back to whoever resumed it; returns when it is resumed again. As libco.
/// Outside any coroutine (where libco crashes) it does nothing and logs a message.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_yield_ct() {
    arch::yield_body!()
}

/// Frees a coroutine that has ended, never ran, or is suspended (what its frames hold is abandoned, no
/// destructor runs). Works at thread exit, from any thread, and after co's thread has ended. As libco.
///
/// Unlike libco, which crashes there: NULL does nothing; a running coroutine, also the caller itself,
/// is freed when it yields or ends, or its thread does; one that waits in co_poll or on a condition is taken off first.
/// Another thread's may stay if there is no memory: nothing has happened then but a message. One that was released already is refused,
/// with a message, as long as no other has its place.
///
/// # Safety
/// co is NULL, or from co_create and not released.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_release(co: *mut stCoRoutine_t) {
    // SAFETY: as the caller vouches.
    if let Some(co) = unsafe { coroutine(co) } {
        routine::release(co);
    }
}

/// Makes co ready to run the same routine with the same argument again, also if it is suspended
/// half-way. It keeps its hook flag, specifics and environment variables. Called on the running
/// coroutine it takes effect when that ends. Never started, main, or NULL: nothing. As libco; unlike
/// libco a wait in co_poll or on a condition is ended first.
///
/// # Safety
/// co is NULL, or from co_create and not released.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_reset(co: *mut stCoRoutine_t) {
    // SAFETY: as the caller vouches.
    if let Some(co) = unsafe { coroutine(co) } {
        routine::reset(co);
    }
}

/// The running coroutine: the thread's main coroutine outside any other, NULL if the thread has never
/// used the library. As libco.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_self() -> *mut stCoRoutine_t {
    routine::running().cast_mut()
}

/// poll(2) that lets other coroutines run meanwhile, hooks on or off.
///
/// ctx: the loop that wakes the caller (co_get_epoll_ct; NULL is the same). timeout_ms: in milliseconds,
/// negative for ever; never early. With a time-out other than 0 the caller passes through the loop once
/// even if something is ready. With 0, on the main coroutine, and in a thread that never used the
/// library it is the plain poll.
///
/// Returns as poll(2) does: the number of ready descriptors, 0 after the time-out, -1 with errno. Unlike
/// libco revents is right in every case: closed descriptors (POLLNVAL at once), files, duplicates.
///
/// # Safety
/// fds has nfds members; ctx is NULL or a live loop.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_poll(
    ctx: *mut stCoEpoll_t,
    fds: *mut pollfd,
    nfds: nfds_t,
    timeout_ms: c_int,
) -> c_int {
    // SAFETY: as the caller vouches.
    unsafe { poll_in(ctx, fds, nfds, timeout_ms, real::get().poll) }
}

/// See `sys::caller`.
pub(crate) static DOORS: &[Function] = &[Function(poll_in as *const ())];

/// What co_poll and co_poll_inner share: `plain` serves where nobody can wait.
///
/// # Safety
/// As co_poll; `plain` is as poll(2).
pub(super) unsafe fn poll_in(
    ctx: *mut stCoEpoll_t,
    fds: *mut pollfd,
    nfds: nfds_t,
    timeout_ms: c_int,
    plain: unsafe extern "C-unwind" fn(*mut pollfd, nfds_t, c_int) -> c_int,
) -> c_int {
    let waiter = env::current().filter(|env| timeout_ms != 0 && !env.running().is_main());
    let Some(env) = waiter else {
        // SAFETY: as the caller vouches.
        return unsafe { plain(fds, nfds, timeout_ms) };
    };
    // SAFETY: NULL or a live loop.
    let reactor = match unsafe { ctx.as_ref() } {
        Some(reactor) => Ok(reactor),
        None => env.reactor(),
    };
    let reactor = match reactor {
        Ok(reactor) if reactor.serves(env) => reactor,
        Ok(_) => {
            log::misuse!("co_poll: the loop {:p} belongs to another thread", ctx);
            return fail(Errno(libc::EINVAL));
        }
        Err(error) => return fail(error),
    };
    if fds.is_null() && nfds != 0 {
        return fail(Errno(libc::EFAULT));
    }
    // SAFETY: as the caller vouches.
    match unsafe { event::poll(env, reactor, fds, nfds as usize, timeout_ms) } {
        Ok(ready) => ready,
        Err(error) => fail(error),
    }
}

/// Runs the loop: resumes the coroutines whose descriptors, conditions or time-outs come up.
///
/// ctx: the loop (co_get_epoll_ct; NULL is the same). pfn: called with arg after every round and about
/// once a millisecond when nothing happens; the loop ends when it returns -1; an exception from it
/// leaves co_eventloop. NULL: runs for ever. May be called again, and from a coroutine or a callback.
/// As libco; unlike libco a loop without callback sleeps until something happens, without a tick.
///
/// # Safety
/// ctx is NULL or a live loop; pfn may be called with arg.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_eventloop(
    ctx: *mut stCoEpoll_t,
    pfn: pfn_co_eventloop_t,
    arg: *mut c_void,
) {
    let Ok(env) = env::current_or_new() else {
        return log::error!("co_eventloop: no memory for this thread's environment");
    };
    // SAFETY: NULL or a live loop.
    let reactor = match unsafe { ctx.as_ref() } {
        Some(reactor) => Ok(reactor),
        None => env.reactor(),
    };
    match reactor {
        // SAFETY: as the caller vouches.
        Ok(reactor) if reactor.serves(env) => unsafe { event::run(env, reactor, pfn, arg) },
        Ok(_) => log::misuse!("co_eventloop: the loop {:p} belongs to another thread", ctx),
        Err(_) => log::error!("co_eventloop: no memory for a loop"),
    }
}

/// Sets the running coroutine's value for a key below 1024. On the main coroutine, and in a thread that
/// never used the library, it is pthread_setspecific. Values are never freed by the library. As libco.
///
/// Returns 0; EINVAL for a key of 1024 or more (where libco writes out of bounds); ENOMEM.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_setspecific(key: pthread_key_t, value: *const c_void) -> c_int {
    match env::current().map(|env| env.running()).filter(|co| !co.is_main()) {
        Some(co) => match extra::set_specific(routine::Co::of(co), key as usize, value.cast_mut()) {
            Ok(()) => 0,
            Err(Errno(error)) => {
                match error {
                    libc::ENOMEM => log::error!("co_setspecific: no memory for key {key}"),
                    _ => log::misuse!("co_setspecific: key {key} is not below 1024"),
                }
                error
            }
        },
        // SAFETY: any key is allowed: an unknown one gives EINVAL.
        None => unsafe { libc::pthread_setspecific(key, value) },
    }
}

/// The running coroutine's value for a key; NULL if unset, or if the key is 1024 or more. On the main
/// coroutine, and in a thread that never used the library, it is pthread_getspecific. As libco.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_getspecific(key: pthread_key_t) -> *mut c_void {
    match env::current().map(|env| env.running()).filter(|co| !co.is_main()) {
        Some(co) => extra::get_specific(routine::Co::of(co), key as usize),
        // SAFETY: any key is allowed: an unknown one gives NULL.
        None => unsafe { libc::pthread_getspecific(key) },
    }
}

/// The calling thread's loop, made on first use. NULL (unlike libco) if there is no memory.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_get_epoll_ct() -> *mut stCoEpoll_t {
    let reactor = env::current_or_new().and_then(|env| env.reactor());
    match reactor {
        Ok(reactor) => (&raw const *reactor).cast_mut(),
        Err(error) => {
            error.set();
            null_mut()
        }
    }
}

/// Switches the hooks on for the running coroutine: blocking calls on sockets that it makes from now on
/// let other coroutines run. Does nothing in a thread that never used the library. As libco.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_enable_hook_sys() {
    if let Some(env) = env::current() {
        env.running().c_enable_sys_hook.set(1);
    }
}

/// Switches the hooks off for the running coroutine. As libco.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_disable_hook_sys() {
    if let Some(env) = env::current() {
        env.running().c_enable_sys_hook.set(0);
    }
}

/// Whether the hooks are on for the running coroutine. As libco.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_is_enable_sys_hook() -> bool {
    env::current().is_some_and(|env| env.running().c_enable_sys_hook.get() != 0)
}

/// A new condition: coroutines of one thread wait on it for each other. NULL if there is no memory.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_cond_alloc() -> *mut stCoCond_t {
    cond::new().map_or(null_mut(), NonNull::as_ptr)
}

/// Frees a condition. Returns 0. Unlike libco it is safe with waiters: they are never signalled any
/// more, but their time-outs still fire. -1 with errno EBUSY, and nothing is freed, if coroutines of
/// another thread wait on it. NULL does nothing.
///
/// # Safety
/// cond is NULL, or from co_cond_alloc and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_cond_free(cond: *mut stCoCond_t) -> c_int {
    let Some(cond) = NonNull::new(cond) else { return 0 };
    // SAFETY: as the caller vouches.
    match unsafe { cond::free(cond) } {
        Ok(()) => 0,
        Err(error) => fail(error),
    }
}

/// Wakes the coroutine that has waited longest; it runs when the loop gets to it, not inside this call.
/// Returns 0, also if nobody waits. As libco. Unlike libco it may be called from a signal handler and
/// from another thread: the waiter wakes in its own loop.
///
/// # Safety
/// cond is NULL, or from co_cond_alloc and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_cond_signal(cond: *mut stCoCond_t) -> c_int {
    // SAFETY: as the caller vouches.
    if let Some(cond) = unsafe { cond.as_ref() } {
        cond.signal(Whom::First);
    }
    0
}

/// As co_cond_signal, for all who wait, in the order they came.
///
/// # Safety
/// cond is NULL, or from co_cond_alloc and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_cond_broadcast(cond: *mut stCoCond_t) -> c_int {
    // SAFETY: as the caller vouches.
    if let Some(cond) = unsafe { cond.as_ref() } {
        cond.signal(Whom::All);
    }
    0
}

/// Waits until the condition is signalled or timeout_ms milliseconds are over; 0 or less: for ever.
///
/// Returns 0 in both cases, as libco (co_cond_wait tells them apart). Unlike libco, which crashes there:
/// -1 with errno EPERM outside a coroutine, or if coroutines of another thread wait on it; EINVAL for NULL.
///
/// # Safety
/// cond is NULL, or from co_cond_alloc and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_cond_timedwait(cond: *mut stCoCond_t, timeout_ms: c_int) -> c_int {
    // SAFETY: as the caller vouches.
    match unsafe { cond.as_ref() }.ok_or(Errno(libc::EINVAL)).and_then(|c| c.wait(timeout_ms)) {
        Ok(_) => 0,
        Err(error) => fail(error),
    }
}

/// As co_cond_timedwait, but tells how the wait ended. Not in libco.
///
/// Returns 0: signalled; ETIMEDOUT: the time is over; ECANCELED: the condition was freed meanwhile (told
/// when the time is over), or the coroutine was resumed by hand; EPERM: this caller cannot wait here; EINVAL: cond is NULL; ENOMEM.
///
/// # Safety
/// cond is NULL, or from co_cond_alloc and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_cond_wait(cond: *mut stCoCond_t, timeout_ms: c_int) -> c_int {
    // SAFETY: as the caller vouches.
    match unsafe { cond.as_ref() }.ok_or(Errno(libc::EINVAL)).and_then(|c| c.wait(timeout_ms)) {
        Ok(Outcome::Woken) => 0,
        Ok(Outcome::TimedOut) => libc::ETIMEDOUT,
        Ok(Outcome::Cancelled | Outcome::ByHand | Outcome::Interrupted) => libc::ECANCELED,
        Err(Errno(error)) => error,
    }
}

/// Makes iCount copy stacks of iStackSize bytes each (rounded up to pages). Coroutines created with them
/// take turns; who is switched out keeps a copy of its live bytes only. The usual caution: a pointer
/// into such a stack is good only while its coroutine runs. They stay until the process ends. As libco.
///
/// A stack is one thread's at a time: while coroutines that started on it there have neither come to their end nor been released,
/// co_resume in another thread refuses those that would start on it, and logs a message.
///
/// NULL (where libco crashes) if an argument is 0 or less, if a stack had 2 GiB when rounded up, or if there is no memory.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_alloc_sharestack(iCount: c_int, iStackSize: c_int) -> *mut stShareStack_t {
    match copy::new_group(iCount, iStackSize) {
        Ok(group) => group.as_ptr(),
        Err(error) => {
            match error {
                Errno(libc::EINVAL) => {
                    log::misuse!("co_alloc_sharestack: {iCount} stacks of {iStackSize} bytes")
                }
                _ => log::error!("co_alloc_sharestack: no memory for {iCount} stacks of {iStackSize} bytes"),
            }
            error.set();
            null_mut()
        }
    }
}
