//! co_routine_inner.h: what lies behind co_routine.h, for the programs that look there.

use core::ffi::{c_char, c_int, c_uint, c_void};
use core::mem::{offset_of, size_of};
use core::ptr::{NonNull, null_mut};

use libc::{hostent, nfds_t, pollfd};

use super::co_routine::{pfn_co_routine_t, poll_in, stCoRoutineAttr_t};
use super::coctx::coctx_t;
use super::{coroutine, environment, share_stack, stCoEpoll_t, stCoRoutine_t as Coroutine, stCoRoutineEnv_t};
use crate::arch;
use crate::event;
use crate::hook::dns;
use crate::routine::coroutine::DEFAULT_STACK;
use crate::routine::{self, env, run};
use crate::sys::log::{error, misuse};

/// One value of a coroutine (co_getspecific).
#[repr(C)]
pub struct stCoSpec_t {
    pub value: *mut c_void,
}

/// A stack. occupy_co: copy stacks: whose bytes lie on it. stack_size: bytes. stack_bp: its end, where
/// the routine starts. stack_buffer: its lowest byte.
#[repr(C)]
pub struct stStackMem_t {
    pub occupy_co: *mut stCoRoutine_t,
    pub stack_size: c_int,
    pub stack_bp: *mut c_char,
    pub stack_buffer: *mut c_char,
}

/// Copy stacks (co_alloc_sharestack). alloc_idx: whose turn is next, modulo count.
#[repr(C)]
pub struct stShareStack_t {
    pub alloc_idx: c_uint,
    pub stack_size: c_int,
    pub count: c_int,
    pub stack_array: *mut *mut stStackMem_t,
}

/// A coroutine. Programs may read and write these members, as with libco; from save_buffer on only
/// aSpec[0] is at libco's place, and ctx.regs means nothing. Made by co_create alone: the true object is
/// longer.
///
/// pfn, arg: read when the coroutine starts. cStart: 0: new, 1: started; writing 0 acts as co_reset.
/// cEnd: 1: ended. cIsMain: the thread's main coroutine. cEnableSysHook: 1: hooks on; may be written.
/// cIsShareStack: runs on a copy stack. aSpec[0]: the value of key 0, the program's own to read and write,
/// on the main coroutine too.
#[repr(C)]
pub struct stCoRoutine_t {
    pub env: *mut stCoRoutineEnv_t,
    pub pfn: pfn_co_routine_t,
    pub arg: *mut c_void,
    pub ctx: coctx_t,
    pub cStart: c_char,
    pub cEnd: c_char,
    pub cIsMain: c_char,
    pub cEnableSysHook: c_char,
    pub cIsShareStack: c_char,
    pub pvEnv: *mut c_void,
    pub stack_mem: *mut stStackMem_t,
    pub stack_sp: *mut c_char,
    pub save_size: c_uint,
    pub save_buffer: *mut c_char,
    pub aSpec: [stCoSpec_t; 1],
}

/// A plain function.
#[expect(dead_code, reason = "for the header: the original declares it")]
pub type pfnCoRoutineFunc_t = Option<unsafe extern "C-unwind" fn()>;

// What C sees and what the core has are the same memory.
const _: () = {
    assert!(offset_of!(stCoRoutine_t, ctx) == 24);
    assert!(offset_of!(stCoRoutine_t, cStart) == offset_of!(Coroutine, c_start));
    assert!(offset_of!(stCoRoutine_t, cEnd) == offset_of!(Coroutine, c_end));
    assert!(offset_of!(stCoRoutine_t, cIsMain) == offset_of!(Coroutine, c_is_main));
    assert!(offset_of!(stCoRoutine_t, cEnableSysHook) == offset_of!(Coroutine, c_enable_sys_hook));
    assert!(offset_of!(stCoRoutine_t, cIsShareStack) == offset_of!(Coroutine, c_is_share_stack));
    assert!(offset_of!(stCoRoutine_t, pvEnv) == offset_of!(Coroutine, extra));
    assert!(offset_of!(stCoRoutine_t, stack_mem) == offset_of!(Coroutine, stack_mem));
    assert!(offset_of!(stCoRoutine_t, stack_sp) == offset_of!(Coroutine, stack_sp));
    assert!(offset_of!(stCoRoutine_t, save_size) == offset_of!(Coroutine, save_size));
    assert!(offset_of!(stCoRoutine_t, save_buffer) == offset_of!(Coroutine, save_buffer));
    assert!(offset_of!(stCoRoutine_t, aSpec) == offset_of!(Coroutine, spec0));
    assert!(size_of::<stCoRoutine_t>() <= size_of::<Coroutine>());
    assert!(size_of::<stStackMem_t>() == 32 && offset_of!(stStackMem_t, stack_bp) == 16);
    assert!(size_of::<stShareStack_t>() == 24 && offset_of!(stShareStack_t, stack_array) == 16);
    assert!(offset_of!(stCoRoutine_t, ctx) + offset_of!(coctx_t, ss_size) == offset_of!(Coroutine, ss_size));
};

/// Makes the calling thread's environment; twice is as once (the original loses the first).
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_init_curr_thread_env() {
    if env::current_or_new().is_err() {
        error!("co_init_curr_thread_env: no memory");
    }
}

/// The calling thread's environment, NULL if it has none. As libco.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_get_curr_thread_env() -> *mut stCoRoutineEnv_t {
    env::current().map_or(null_mut(), |env| (&raw const *env).cast_mut())
}

/// co_release. As libco.
///
/// # Safety
/// As co_release.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_free(co: *mut Coroutine) {
    // SAFETY: as the caller vouches.
    if let Some(co) = unsafe { coroutine(co) } {
        routine::release(co);
    }
}

/// Yields the coroutine that runs in env, which is the caller's. As libco.
///
/// # Safety
/// env is NULL or an environment.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_yield_env(env: *mut stCoRoutineEnv_t) {
    // SAFETY: as the caller vouches.
    if unsafe { environment(env) }.is_some_and(|env| !env.is_mine()) {
        return misuse!("co_yield_env: the environment {:p} is another thread's", env);
    }
    arch::yield_now();
}

/// A loop of the program's own for the calling thread's coroutines: co_poll on it is served by
/// co_eventloop of it alone. Returns NULL if there is no memory.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn AllocEpoll() -> *mut stCoEpoll_t {
    let reactor = env::current_or_new().and_then(event::new_reactor);
    reactor.map_or(null_mut(), NonNull::as_ptr)
}

/// Frees a loop; NULL does nothing. Coroutines that wait in it stay suspended; the thread's own loop is
/// made anew when it is used again.
///
/// # Safety
/// ctx is NULL or a loop that nobody uses after this.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn FreeEpoll(ctx: *mut stCoEpoll_t) {
    if let Some(reactor) = NonNull::new(ctx) {
        // SAFETY: as the caller vouches.
        unsafe { event::free_reactor(reactor) };
    }
}

/// The running coroutine, as co_self. As libco.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn GetCurrThreadCo() -> *mut Coroutine {
    routine::running().cast_mut()
}

/// Makes ev the loop that co_get_epoll_ct returns in env's thread, and that conditions and hooks use
/// there. The one before is not freed. As libco.
///
/// # Safety
/// env is NULL or the calling thread's environment, ev NULL or a live loop of that thread.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn SetEpoll(env: *mut stCoRoutineEnv_t, ev: *mut stCoEpoll_t) {
    // SAFETY: as the caller vouches.
    if let Some(env) = unsafe { environment(env) } {
        env.set_reactor(ev);
    }
}

/// The running coroutine of an environment.
///
/// # Safety
/// env is NULL or an environment.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn GetCurrCo(env: *mut stCoRoutineEnv_t) -> *mut Coroutine {
    // SAFETY: as the caller vouches.
    unsafe { environment(env) }.map_or(null_mut(), |env| (&raw const *env.running()).cast_mut())
}

/// co_create for a given environment; NULL if there is none, or no memory.
///
/// # Safety
/// env is NULL or an environment; attr NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_create_env(
    env: *mut stCoRoutineEnv_t,
    attr: *const stCoRoutineAttr_t,
    pfn: pfn_co_routine_t,
    arg: *mut c_void,
) -> *mut Coroutine {
    // SAFETY: as the caller vouches.
    let Some(env) = (unsafe { environment(env) }) else { return null_mut() };
    // SAFETY: NULL, or the caller's attributes; packed, so read unaligned.
    let attr = (!attr.is_null()).then(|| unsafe { attr.read_unaligned() });
    let (size, group) = attr.map_or((DEFAULT_STACK, null_mut()), |a| (a.stack_size, a.share_stack));
    // SAFETY: NULL, or from co_alloc_sharestack.
    let made = routine::create(env, size, unsafe { share_stack(group) }, pfn, arg);
    made.map_or(null_mut(), |co| co.as_ptr().cast_mut())
}

/// co_poll with the function that serves where nobody can wait (the plain poll if NULL).
///
/// # Safety
/// As co_poll.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_poll_inner(
    ctx: *mut stCoEpoll_t,
    fds: *mut pollfd,
    nfds: nfds_t,
    timeout: c_int,
    pollfunc: Option<unsafe extern "C-unwind" fn(*mut pollfd, nfds_t, c_int) -> c_int>,
) -> c_int {
    let plain = pollfunc.unwrap_or(crate::hook::real::get().poll);
    // SAFETY: as the caller vouches.
    unsafe { poll_in(ctx, fds, nfds, timeout, plain) }
}

/// Leaves curr, which runs, for pending_co, which is suspended: the switch below resume and yield.
///
/// # Safety
/// Both are NULL or coroutines of the calling thread.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_swap(curr: *mut Coroutine, pending_co: *mut Coroutine) {
    // SAFETY: NULL or a live coroutine, as the caller vouches.
    let from = unsafe { coroutine(curr) };
    // SAFETY: the caller vouches for this one too.
    let to = unsafe { coroutine(pending_co) };
    match (from, to) {
        (Some(from), Some(to)) => run::swap(from, to),
        _ => misuse!("co_swap: a coroutine is NULL"),
    }
}

/// gethostbyname for a coroutine: the others run meanwhile; the result is the coroutine's own, good until
/// its next call.
///
/// # Safety
/// name is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_gethostbyname(name: *const c_char) -> *mut hostent {
    // SAFETY: as the caller vouches.
    unsafe { dns::host_by_name(name) }
}

/// gethostbyname_r for a coroutine: the others run meanwhile.
///
/// # Safety
/// As gethostbyname_r.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_gethostbyname_r(
    name: *const c_char,
    result_buf: *mut hostent,
    buf: *mut c_char,
    buflen: usize,
    result: *mut *mut hostent,
    h_errnop: *mut c_int,
) -> c_int {
    // SAFETY: as the caller vouches.
    unsafe { dns::host_by_name_r(name, result_buf, buf, buflen, result, h_errnop) }
}
