//! Resume, yield and end: who runs next.
//!
//! The way that matters is short and lies in `arch`: a resume of a suspended or a new coroutine on a
//! private stack looks at the block once and jumps, and so do a yield and an end. What they check:
//!
//! | check | otherwise |
//! |---|---|
//! | the coroutine's environment is the thread's | another thread's, or no environment |
//! | it has no resumer | it runs already |
//! | nothing is in flight in the C++ runtime | exceptions go with their coroutine |
//! | its word, but for cEnableSysHook, is "new" or "started" | ended, main, on a copy stack, or something is pending |
//!
//! Everything else (copy stacks, misuse, exceptions in flight, releases of running coroutines) goes through the
//! slow functions below, which begin anew. Nothing with a destructor lives across a switch.

use core::ptr::{null, null_mut, without_provenance_mut};

use crate::arch::{self, probe};
use crate::event;
use crate::routine::cond::{self, Cond};
use crate::routine::copy;
use crate::routine::coroutine::{
    AT_END, Co, Coroutine, IN_FLIGHT, RELEASE_SOON, RELEASED, RESET_AT_END, WaitState,
};
use crate::routine::env::{self, Env};
use crate::routine::mutex::Mutex;
use crate::routine::watched::{self, Switch};
use crate::sys::caller::Function;
use crate::sys::log::{error, fatal, misuse};
use crate::sys::tools;

/// What says that a program has misused this, and who stands between that and the program: see `sys::caller`.
pub(crate) static DOORS: &[Function] = &[
    Function(resume_slowly as *const ()),
    Function(step_into as *const ()),
    Function(yield_slowly as *const ()),
    Function(step_back as *const ()),
    Function(refuse as *const ()),
    Function(swap as *const ()),
    Function(super::release_slowly as *const ()),
    Function(super::reset as *const ()),
    Function(cond::refuse as *const ()),
    Function(Cond::wait as *const ()),
    Function(cond::free as *const ()),
    Function(Mutex::lock_on_main as *const ()),
];

/// Puts a coroutine on a private stack, which waits for nothing and does not run, at its routine's start.
#[inline(always)]
fn build_first_frame(co: Co) {
    let top = co.stack().start();
    // SAFETY: near the end of its own stack, which nobody runs on.
    co.sp.set(unsafe { arch::first_frame_at(top, co.as_ptr()) });
    co.c_start.set(1);
}

/// Who is left, and the context to go on with: the last thing that whoever gets it does is
/// the switch, with no frame of its own left. (A frame that is left without a return costs a misprediction.)
type Step = (&'static Coroutine, *mut u8);

/// Does a step by `switch`, [`arch::switch`] or [`arch::switch_back`]: in tail position.
///
/// # Safety
/// As there; who enters is the environment's running one.
#[inline(always)]
unsafe fn go(switch: Switch, from: &Coroutine, sp: *mut u8) {
    if tools::watched() {
        // SAFETY: as the caller vouches.
        return unsafe { watched::switch(switch, from, sp) };
    }
    // SAFETY: as the caller vouches.
    unsafe { switch(from, sp) }
}

/// Leaves `from` by the service stack, probably for `to`.
///
/// # Safety
/// As [`arch::switch_on_service`].
unsafe fn go_by_service(
    from: &Coroutine,
    top: *mut u8,
    work: unsafe extern "C-unwind" fn(*const Coroutine) -> *mut u8,
    arg: *const Coroutine,
    to: Co,
) {
    watched::gives_up(from);
    if from.pending() & (RELEASE_SOON | RELEASED) != 0 && core::ptr::eq(arg, from) {
        watched::leave_for_good(to);
        // SAFETY: as the caller vouches.
        return unsafe { arch::switch_on_service(from, top, work, arg) };
    }
    let kept = watched::leave(to);
    // SAFETY: as the caller vouches.
    unsafe { arch::switch_on_service(from, top, work, arg) };
    watched::arrive(kept);
}

/// A resume that is not a usual one.
///
/// # Safety
/// `co` is null or a live control block.
#[inline(never)]
pub(crate) unsafe extern "C-unwind" fn resume_slowly(co: *const Coroutine) {
    // SAFETY: as the caller vouches.
    if let Some((from, sp)) = step_into(unsafe { Co::from_c(co) }) {
        // SAFETY: `step_into` found it suspended, or new with its first frame built, and its bytes in place.
        unsafe { go(arch::switch, from, sp) }
    }
}

/// Makes `co` the running coroutine. `None`: that makes no sense, or the switch is done already.
#[inline(never)]
fn step_into(co: Option<Co>) -> Option<Step> {
    let Some(co) = co else { return refuse("co_resume: the coroutine is NULL", None) };
    if co.is_main() || co.is_running() {
        return refuse("co_resume: running already: coroutine", Some(co));
    }
    if co.pending() & RELEASED != 0 {
        // Another thread has released it; this one will free it.
        return None;
    }
    let env = adopt(co)?;
    let fresh = co.c_start.get() == 0;
    if fresh {
        if tools::watched() && !watched::begin(co) {
            error!("co_resume: no memory for what ThreadSanitizer notes of coroutine {:p}", co.as_ptr());
            return None;
        }
        if co.on_copy_stack() && !copy::claim(env, co) {
            return refuse("co_resume: another thread uses the copy stack of coroutine", Some(co));
        }
        make_new(env, co);
    } else if co.c_end.get() != 0 {
        return refuse("co_resume: it has ended: coroutine", Some(co));
    }
    let from = env.running();
    if co.on_copy_stack() {
        if copy::occupies_same_stack(from, co) {
            // We stand on the bytes that have to move.
            let Some(top) = env.service_top() else {
                stays_out(env, &co);
                error!("co_resume: no memory to move coroutine {:p} to its stack", co.as_ptr());
                return None;
            };
            // SAFETY: `top` ends a stack nobody runs on; the work returns `from` or `co`'s context.
            unsafe { go_by_service(from, top, resume_on_service, co.as_ptr(), co) };
            return None;
        }
        if !copy::bring_in(env, co, fresh) {
            stays_out(env, &co);
            return None;
        }
    }
    if fresh {
        co.c_start.set(1);
    }
    move_exceptions(env, from, &co);
    co.resumer.set(Some(Co::of(from)));
    env.set_running(&co);
    env.count_resume();
    probe!("resume", co.as_ptr().addr(), (&raw const *from).addr());
    Some((from, co.sp.get()))
}

/// `co` could not be brought in.
#[cold]
fn stays_out(env: &Env, co: &Coroutine) {
    env.refused.set(co);
    if co.c_start.get() == 0 {
        co.suspend();
        copy::leave_stack(Co::of(co));
    }
}

/// Says why a resume does nothing. (Apart: what formats a message keeps a frame. And a function in `DOORS`
/// is not inlined where it is called: it is none of the usual ones.)
#[cold]
#[inline(never)]
fn refuse(why: &str, co: Option<Co>) -> Option<Step> {
    match co {
        Some(co) => misuse!("{why} {:p}", co.as_ptr()),
        None => misuse!("{why}"),
    }
    None
}

/// As [`arch::resume`], for the loop: `co` was woken. False if there was no memory to bring it in.
#[inline]
pub(crate) fn resume_woken(env: &Env, co: Co) -> bool {
    env.refused.set(null());
    // SAFETY: a woken coroutine is alive.
    unsafe { arch::resume(co.as_ptr()) };
    // (It may be gone by now, but then it was not refused.)
    !core::ptr::eq(env.refused.get(), co.as_ptr())
}

/// The environment `co` runs in: this thread's. A coroutine that never ran may change hands.
fn adopt(co: Co) -> Option<&'static Env> {
    let env = match env::current_or_new() {
        Ok(env) => env,
        Err(_) => {
            error!("co_resume: no memory for this thread's environment");
            return None;
        }
    };
    if core::ptr::eq(co.env.get(), env) {
        return Some(env);
    }
    let never_ran = co.c_start.get() == 0 && co.sp.get().is_null();
    if !never_ran {
        refuse("co_resume: it belongs to another thread: coroutine", Some(co));
        return None;
    }
    if !env::adopt(env, co) {
        refuse("co_resume: it was released: coroutine", Some(co));
        return None;
    }
    Some(env)
}

/// Puts `co` at the start of its routine: first run, co_reset, or cStart = 0 by hand.
fn make_new(env: &Env, co: Co) {
    if co.wait.state() != WaitState::None {
        // First: another thread that releases it finds the wait, or that it runs.
        co.resumer.set(Some(Co::of(env.running())));
        event::cancel(env, co);
    }
    co.clear_pending(RESET_AT_END);
    co.forget_exceptions();
    co.c_end.set(0);
    if co.on_copy_stack() {
        copy::drop_buffer(env, co);
    } else {
        build_first_frame(co);
    }
}

/// The second half of a resume whose resumer stands on the same copy stack.
unsafe extern "C-unwind" fn resume_on_service(co: *const Coroutine) -> *mut u8 {
    // SAFETY: `step_into` passed a live coroutine.
    let co = unsafe { &*co };
    // SAFETY: it belongs to this thread.
    let env = unsafe { &*co.env.get() };
    let from = env.running();
    env.refused.set(null());
    if !copy::bring_in(env, Co::of(co), co.c_start.get() == 0) {
        stays_out(env, co);
        watched::turn_back(Co::of(from));
        return from.sp.get();
    }
    co.c_start.set(1);
    move_exceptions(env, from, co);
    co.resumer.set(Some(Co::of(from)));
    env.set_running(co);
    env.count_resume();
    probe!("resume", (&raw const *co).addr(), (&raw const *from).addr());
    co.sp.get()
}

/// The C++ runtime's state goes with the coroutine. (A running one's own copy is empty.)
#[inline]
fn move_exceptions(env: &Env, leaving: &Coroutine, entering: &Coroutine) {
    if env.exceptions().is_empty() && entering.pending() & IN_FLIGHT == 0 {
        return;
    }
    env.exceptions().exchange(&leaving.exceptions, &entering.exceptions);
    entering.clear_pending(IN_FLIGHT);
    if !leaving.exceptions.is_empty() {
        leaving.add_pending(IN_FLIGHT);
    }
}

/// Yields, and goes on with `then` in place of the calling function: call it last, and return what it
/// returns. A coroutine that waits this way keeps no frame of ours on its stack.
#[inline(always)]
pub(crate) fn yield_into(then: unsafe extern "C-unwind" fn() -> isize) -> isize {
    if let Some(env) = env::current()
        && let from = env.running()
        && let Some(to) = from.resumer.get()
        && from.pending() == 0
        && to.is_simple()
        && env.is_simple()
    {
        env.set_running(&to);
        probe!("yield", (&raw const *from).addr(), to.as_ptr().addr());
        // SAFETY: the resumer is suspended in its resume, and its stack is its own.
        return unsafe { arch::switch_back_into(from, to.sp.get(), then) };
    }
    yield_slowly();
    // SAFETY: what the caller wants to go on with.
    unsafe { then() }
}

/// A yield that is not a usual one.
#[inline(never)]
pub(crate) extern "C-unwind" fn yield_slowly() {
    if let Some((from, sp)) = step_back() {
        // SAFETY: the resumer is suspended and its bytes are in place.
        unsafe { go(arch::switch_back, from, sp) }
    }
}

/// Makes the resumer the running coroutine. `None`: there is none, or the switch is done already.
#[inline(never)]
fn step_back() -> Option<Step> {
    let Some(env) = env::current() else { return refuse("co_yield: this thread has no coroutines", None) };
    let from = env.running();
    let Some(to) = from.resumer.get() else {
        return refuse("co_yield: the main coroutine has nobody to yield to", None);
    };
    let by_service = from.pending() & (RELEASE_SOON | RELEASED) != 0 || copy::occupies_same_stack(from, to);
    move_exceptions(env, from, &to);
    env.set_running(&to);
    probe!("yield", (&raw const *from).addr(), to.as_ptr().addr());
    if by_service && let Some(top) = service_top(env, from, to) {
        // SAFETY: as in `step_into`; the work returns the resumer's context.
        unsafe { go_by_service(from, top, leave_on_service, from, to) };
        return None;
    }
    bring_back(env, to);
    Some((from, to.sp.get()))
}

/// The top of the stack to leave `from` by. `None` without memory, where the thread can do later what it would do there: it
/// releases what other threads have asked for, and a copy stack is given up when who ended on it is released.
fn service_top(env: &Env, from: &Coroutine, to: Co) -> Option<*mut u8> {
    let top = env.service_top();
    // (Both have made it already: `release_soon`, and the resume.)
    if top.is_none() && (from.pending() & RELEASE_SOON != 0 || copy::occupies_same_stack(from, to)) {
        fatal(format_args!("colib: no memory for the stack to leave coroutine {:p} by", from));
    }
    if top.is_none() {
        env.look_for_releases();
    }
    top
}

/// Puts a resumer's bytes back on its copy stack. It was moved out for one it resumed itself, so
/// there is no way on without it.
fn bring_back(env: &Env, to: Co) {
    if to.on_copy_stack() && !copy::bring_in(env, to, false) {
        fatal(format_args!("colib: no memory to bring coroutine {:p} back to its copy stack", to.as_ptr()));
    }
}

/// Second half of a yield or an end that cannot happen on the stack it leaves.
///
/// # Safety
/// `from` is a live coroutine of this thread that nobody runs on any more.
unsafe extern "C-unwind" fn leave_on_service(from: *const Coroutine) -> *mut u8 {
    // SAFETY: as the caller vouches.
    let from = unsafe { &*from };
    // SAFETY: a running coroutine belongs to this thread.
    let env = unsafe { &*from.env.get() };
    let to = Co::of(env.running());
    // Before another thread may free the block. (Not that of one on a copy stack.)
    let pending = from.pending();
    let on_copy_stack = from.on_copy_stack();
    let ended = from.sp.get().addr() == AT_END;
    if on_copy_stack && pending & (RELEASE_SOON | RELEASED) != 0 {
        // Its bytes are not worth moving.
        from.sp.set(without_provenance_mut(AT_END));
        if from.c_end.replace(1) == 0 {
            env.count_end();
        }
    }
    from.suspend();
    // First: a stack that both are on stays this thread's.
    bring_back(env, to);
    if pending & RELEASE_SOON != 0 {
        env.release_now(Co::of(from));
    } else if pending & RELEASED != 0 {
        env.serve_releases();
    } else if on_copy_stack && ended {
        copy::forget(env, Co::of(from));
    }
    to.sp.get()
}

/// Where a coroutine that ended goes on: the resumer's context, and the top of the service stack if
/// it has to be entered from there.
#[repr(C)]
pub(crate) struct Exit {
    sp: *mut u8,
    service: *mut u8,
}

/// The routine returned, and a switch alone will not do. Called by the first frame, on the coroutine's stack.
///
/// # Safety
/// `co` is the running coroutine.
pub(crate) unsafe extern "C-unwind" fn finish(co: *const Coroutine) -> Exit {
    // SAFETY: as the caller vouches.
    let co = unsafe { &*co };
    // SAFETY: a running coroutine belongs to this thread.
    let env = unsafe { &*co.env.get() };
    env.count_end();
    let Some(to) = co.resumer.get() else {
        fatal(format_args!("colib: coroutine {:p} ended, but nobody resumed it", co));
    };
    co.c_end.set(1);
    co.sp.set(without_provenance_mut(AT_END));
    let pending = co.pending();
    if pending & RESET_AT_END != 0 {
        co.clear_pending(RESET_AT_END);
        env.uncount_end(Co::of(co));
        co.c_start.set(0);
        co.c_end.set(0);
    }
    // (Off a copy stack before another thread may have it.)
    let by_service = pending & (RELEASE_SOON | RELEASED) != 0 || co.on_copy_stack();
    move_exceptions(env, co, &to);
    co.forget_exceptions();
    env.set_running(&to);
    probe!("end", (&raw const *co).addr(), to.as_ptr().addr());
    watched::gives_up(co);
    watched::leave_for_good(to);
    if by_service && let Some(service) = service_top(env, co, to) {
        return Exit { sp: null_mut(), service };
    }
    bring_back(env, to);
    Exit { sp: to.sp.get(), service: null_mut() }
}

/// Second half of an end that cannot happen on the coroutine's own stack.
///
/// # Safety
/// As [`leave_on_service`].
pub(crate) unsafe extern "C-unwind" fn finish_on_service(co: *const Coroutine) -> *mut u8 {
    // SAFETY: as the caller vouches.
    unsafe { leave_on_service(co) }
}

/// co_swap: from `from` to `to` without a word about who resumed whom, as the original's function.
pub(crate) fn swap(from: Co, to: Co) {
    let Some(env) = env::current() else {
        return misuse!("co_swap: this thread has no coroutines");
    };
    if !core::ptr::eq(env.running(), from.as_ptr()) || !core::ptr::eq(to.env.get(), env) || from == to {
        return misuse!("co_swap: {:p} is not running, or {:p} cannot run here", from.as_ptr(), to.as_ptr());
    }
    if to.c_end.get() != 0 || (from.pending() | to.pending()) & !IN_FLIGHT != 0 {
        return misuse!("co_swap: {:p} has ended or was released, or {:p} was", to.as_ptr(), from.as_ptr());
    }
    if to.is_main() || to.c_start.get() != 0 {
        if copy::occupies_same_stack(&from, to) {
            return misuse!("co_swap: {:p} and {:p} share a stack", from.as_ptr(), to.as_ptr());
        }
        if to.on_copy_stack() && !copy::bring_in(env, to, false) {
            return;
        }
        let goes_back = to.is_running() || to.is_main();
        if !goes_back {
            to.resumer.set(Some(from));
        }
        move_exceptions(env, &from, &to);
        env.set_running(&to);
        env.counts.swaps.bump();
        // SAFETY: suspended, its bytes in place.
        unsafe { go(if goes_back { arch::switch_back } else { arch::switch }, &from, to.sp.get()) };
    } else {
        // SAFETY: as the caller vouches, alive.
        unsafe { arch::resume(to.as_ptr()) };
    }
}
