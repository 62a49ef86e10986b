//! Resume, yield and end: who runs next.
//!
//! The way that matters is short: a resume of a suspended coroutine on a private stack looks at the
//! block once and jumps. Everything else (new, copy stacks, misuse, exceptions in flight) goes through
//! the slow functions below. Nothing with a destructor lives across a switch.

use core::ptr::{null, null_mut};

use crate::arch;
use crate::event;
use crate::routine::copy;
use crate::routine::coroutine::{Co, Coroutine, RELEASE_SOON, RELEASED, RESET_AT_END, WaitState, word};
use crate::routine::env::{self, Env};
use crate::sys::log::{fatal, log};
use crate::sys::thread;

/// Runs `co` until its next yield or its end. A call that makes no sense is logged and does nothing.
///
/// # Safety
/// `co` is null or a live control block.
#[inline(always)]
pub(crate) unsafe fn resume(co: *const Coroutine) {
    // SAFETY: as the caller vouches.
    if let Some(next) = unsafe { Co::from_c(co) } {
        let mine = thread::slot().cast::<Env>();
        let what = next.word() & word::FOR_RESUME;
        if core::ptr::eq(next.env.get(), mine) && what <= word::SUSPENDED && !next.is_running() {
            // SAFETY: equal to a live coroutine's environment, so not null: this thread's own.
            let env = unsafe { &*mine };
            if env.exceptions().both_empty(&next.exceptions) {
                if what == word::NEW {
                    if next.wait.state() != WaitState::None {
                        // SAFETY: as the caller vouches.
                        return unsafe { resume_slowly(co) };
                    }
                    build_first_frame(next);
                }
                let from = env.running();
                next.resumer.set(Some(Co::of(from)));
                env.set_running(&next);
                // SAFETY: suspended, on a private stack; `from` stays alive while it is a resumer.
                return unsafe { arch::switch(from.sp.as_ptr(), next.sp.get()) };
            }
        }
    }
    // SAFETY: as the caller vouches.
    unsafe { resume_slowly(co) };
}

/// Puts a coroutine on a private stack, which waits for nothing and does not run, at its routine's start.
#[inline(always)]
fn build_first_frame(co: Co) {
    let top = co.stack().start();
    // SAFETY: near the end of its own stack, which nobody runs on.
    co.sp.set(unsafe { arch::first_frame_at(top, co.as_ptr()) });
    co.c_start.set(1);
}

/// # Safety
/// As [`resume`].
#[inline(never)]
unsafe extern "C-unwind" fn resume_slowly(co: *const Coroutine) {
    // SAFETY: as the caller vouches.
    let Some(co) = (unsafe { Co::from_c(co) }) else {
        return log!("co_resume: the coroutine is NULL");
    };
    try_resume(co);
}

/// As [`resume`]; false if `co` was not entered.
pub(crate) fn try_resume(co: Co) -> bool {
    if co.is_main() || co.is_running() {
        log!("co_resume: coroutine {:p} is running already", co.as_ptr());
        return false;
    }
    if co.pending() & RELEASED != 0 {
        // Another thread has released it; this one will free it.
        return false;
    }
    let Some(env) = adopt(co) else { return false };
    let fresh = co.c_start.get() == 0;
    if fresh {
        make_new(env, co);
    } else if co.c_end.get() != 0 {
        log!("co_resume: coroutine {:p} has ended", co.as_ptr());
        return false;
    }
    let from = env.running();
    if co.on_copy_stack() {
        if copy::occupies_same_stack(from, co) {
            // We stand on the bytes that have to move.
            let Some(top) = env.service_top() else {
                log!("co_resume: no memory to move coroutine {:p} to its stack", co.as_ptr());
                return false;
            };
            // SAFETY: `top` ends a stack nobody runs on; the work returns `from` or `co`'s context.
            unsafe { arch::switch_on_service(from.sp.as_ptr(), top, resume_on_service, co.as_ptr()) };
            return !core::ptr::eq(env.refused.replace(null()), co.as_ptr());
        }
        if !copy::bring_in(env, co) {
            return false;
        }
    }
    if fresh {
        co.c_start.set(1);
    }
    env.exceptions().exchange(&from.exceptions, &co.exceptions);
    co.resumer.set(Some(Co::of(from)));
    env.set_running(&co);
    // SAFETY: suspended, or new with its first frame built, and its bytes are in place.
    unsafe { arch::switch(from.sp.as_ptr(), co.sp.get()) };
    true
}

/// As [`resume`], for the loop: `co` was woken. False if it was not entered.
#[inline]
pub(crate) fn resume_woken(co: Co) -> bool {
    if co.word() & word::FOR_RESUME == word::SUSPENDED {
        // SAFETY: a woken coroutine is alive. It is suspended on a private stack of its own, belongs to
        // this loop's thread, and is not running: nothing in `resume` refuses it.
        unsafe { resume(co.as_ptr()) };
        return true;
    }
    try_resume(co)
}

/// The environment `co` runs in: this thread's. A coroutine that never ran may change hands.
fn adopt(co: Co) -> Option<&'static Env> {
    let env = match env::current_or_new() {
        Ok(env) => env,
        Err(_) => {
            log!("co_resume: no memory for this thread's environment");
            return None;
        }
    };
    if core::ptr::eq(co.env.get(), env) {
        return Some(env);
    }
    let never_ran = co.c_start.get() == 0 && co.sp.get().is_null();
    if !never_ran {
        log!("co_resume: coroutine {:p} belongs to another thread", co.as_ptr());
        return None;
    }
    let old = co.env.replace(env);
    env.count_one_more();
    env::count_gone(old);
    Some(env)
}

/// Puts `co` at the start of its routine: first run, co_reset, or cStart = 0 by hand.
fn make_new(env: &Env, co: Co) {
    if co.wait.state() != WaitState::None {
        event::cancel(env, co);
    }
    co.clear_pending(RESET_AT_END);
    co.exceptions.clear();
    co.c_end.set(0);
    if co.on_copy_stack() {
        copy::forget(env, co);
    } else {
        build_first_frame(co);
    }
}

/// The second half of a resume whose resumer stands on the same copy stack.
unsafe extern "C-unwind" fn resume_on_service(co: *const Coroutine) -> *mut u8 {
    // SAFETY: `try_resume` passed a live coroutine.
    let co = unsafe { &*co };
    // SAFETY: it belongs to this thread.
    let env = unsafe { &*co.env.get() };
    let from = env.running();
    env.refused.set(null());
    if !copy::bring_in(env, Co::of(co)) {
        env.refused.set(co);
        return from.sp.get();
    }
    co.c_start.set(1);
    env.exceptions().exchange(&from.exceptions, &co.exceptions);
    co.resumer.set(Some(Co::of(from)));
    env.set_running(co);
    co.sp.get()
}

/// The usual yield up to the switch: makes the resumer the running coroutine, and says where to save the
/// one that leaves and what to go on with. `None`, and nothing has changed, if a switch alone will not do.
#[inline(always)]
fn step_back() -> Option<(*mut *mut u8, *mut u8)> {
    let env = env::current()?;
    let from = env.running();
    let to = from.resumer.get()?;
    if (to.word() & word::SHARE_STACK) | (from.word() & word::PENDING) != 0
        || !env.exceptions().both_empty(&to.exceptions)
    {
        return None;
    }
    from.resumer.set(None);
    env.set_running(&to);
    Some((from.sp.as_ptr(), to.sp.get()))
}

/// Back to the resumer.
#[inline(always)]
pub(crate) fn yield_now() {
    if let Some((save, sp)) = step_back() {
        // SAFETY: the resumer is suspended in its resume, and its stack is its own.
        return unsafe { arch::switch(save, sp) };
    }
    yield_slowly();
}

/// Yields, and goes on with `then` in place of the calling function: call it last, and return what it
/// returns. A coroutine that waits this way keeps no frame of ours on its stack.
#[inline(always)]
pub(crate) fn yield_into(then: unsafe extern "C-unwind" fn() -> isize) -> isize {
    if let Some((save, sp)) = step_back() {
        // SAFETY: as in `yield_now`.
        return unsafe { arch::switch_into(save, sp, then) };
    }
    yield_slowly();
    // SAFETY: what the caller wants to go on with.
    unsafe { then() }
}

#[inline(never)]
extern "C-unwind" fn yield_slowly() {
    let Some(env) = env::current() else {
        return log!("co_yield: this thread has no coroutines");
    };
    let from = env.running();
    let Some(to) = from.resumer.get() else {
        return log!("co_yield: the main coroutine has nobody to yield to");
    };
    let released = from.pending() & RELEASE_SOON != 0;
    let move_here = copy::occupies_same_stack(from, to);
    env.exceptions().exchange(&from.exceptions, &to.exceptions);
    from.resumer.set(None);
    env.set_running(&to);
    if released || move_here {
        let Some(top) = env.service_top() else {
            fatal(format_args!("colib: no memory for the stack to leave coroutine {:p} by", from));
        };
        // SAFETY: as in `try_resume`; the work returns the resumer's context.
        return unsafe { arch::switch_on_service(from.sp.as_ptr(), top, leave_on_service, from) };
    }
    bring_back(env, to);
    // SAFETY: the resumer is suspended and its bytes are in place.
    unsafe { arch::switch(from.sp.as_ptr(), to.sp.get()) }
}

/// Puts a resumer's bytes back on its copy stack. It was moved out for one it resumed itself, so
/// there is no way on without it.
fn bring_back(env: &Env, to: Co) {
    if to.on_copy_stack() && !copy::bring_in(env, to) {
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
    if from.pending() & RELEASE_SOON != 0 {
        from.clear_pending(RELEASE_SOON);
        super::release(Co::of(from));
    }
    bring_back(env, to);
    to.sp.get()
}

/// Where a coroutine that ended goes on: the resumer's context, and the top of the service stack if
/// it has to be entered from there.
#[repr(C)]
pub(crate) struct Exit {
    sp: *mut u8,
    service: *mut u8,
}

/// The routine returned. Called by the first frame, on the coroutine's stack.
///
/// # Safety
/// `co` is the running coroutine.
pub(crate) unsafe extern "C-unwind" fn finish(co: *const Coroutine) -> Exit {
    // SAFETY: as the caller vouches.
    let co = unsafe { &*co };
    // SAFETY: a running coroutine belongs to this thread.
    let env = unsafe { &*co.env.get() };
    // (Bytes, not the word: the processor cannot forward a byte just written to a load of eight.)
    if let Some(to) = co.resumer.get()
        && !co.on_copy_stack()
        && co.pending() == 0
        && !to.on_copy_stack()
        && env.exceptions().both_empty(&to.exceptions)
    {
        co.resumer.set(None);
        co.c_end.set(1);
        env.set_running(&to);
        return Exit { sp: to.sp.get(), service: null_mut() };
    }
    finish_slowly(env, co)
}

#[inline(never)]
fn finish_slowly(env: &Env, co: &Coroutine) -> Exit {
    let Some(to) = co.resumer.take() else {
        fatal(format_args!("colib: coroutine {:p} ended, but nobody resumed it", co));
    };
    co.c_end.set(1);
    let pending = co.pending();
    if pending & RESET_AT_END != 0 {
        co.clear_pending(RESET_AT_END);
        co.c_start.set(0);
        co.c_end.set(0);
    }
    let move_here = copy::occupies_same_stack(co, to);
    if co.on_copy_stack() {
        copy::forget(env, Co::of(co));
    }
    env.exceptions().exchange(&co.exceptions, &to.exceptions);
    co.exceptions.clear();
    env.set_running(&to);
    if pending & RELEASE_SOON != 0 || move_here {
        let Some(service) = env.service_top() else {
            fatal(format_args!("colib: no memory for the stack to end coroutine {:p} on", co));
        };
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
        return log!("co_swap: this thread has no coroutines");
    };
    if !core::ptr::eq(env.running(), from.as_ptr()) || !core::ptr::eq(to.env.get(), env) || from == to {
        return log!("co_swap: {:p} is not running, or {:p} cannot run here", from.as_ptr(), to.as_ptr());
    }
    if to.c_end.get() != 0 || (from.pending() | to.pending()) != 0 {
        return log!("co_swap: {:p} has ended or was released, or {:p} was", to.as_ptr(), from.as_ptr());
    }
    if to.is_main() || to.c_start.get() != 0 {
        if copy::occupies_same_stack(&from, to) {
            return log!("co_swap: {:p} and {:p} share a stack", from.as_ptr(), to.as_ptr());
        }
        if to.on_copy_stack() && !copy::bring_in(env, to) {
            return;
        }
        if to.resumer.get().is_none() && !to.is_main() {
            to.resumer.set(Some(from));
        } else {
            from.resumer.set(None);
        }
        env.exceptions().exchange(&from.exceptions, &to.exceptions);
        env.set_running(&to);
        // SAFETY: suspended, its bytes in place.
        unsafe { arch::switch(from.sp.as_ptr(), to.sp.get()) };
    } else {
        try_resume(to);
    }
}
