//! Switches under a sanitizer: what it is told when a thread changes its stack (`sys::tools` has the words).
//!
//! ```text
//!   leaver:  leave ── the switch ──► who enters:  arrive          (or arrived_at_start, on a new stack)
//!            ... suspended ...
//!            arrive ◄── the switch ── leave  (or leave_for_good, at a routine's end)
//! ```
//!
//! Called from the slow ways of `run`, which are the only ones in a watched thread. What a leaver's sanitizer state is lies
//! in its own frame meanwhile. Everything here does nothing in a program that nobody watches.

use core::cell::Cell;
use core::ffi::c_void;
use core::ptr::null_mut;

use crate::routine::coroutine::{Co, Coroutine};
use crate::routine::env::{self, Env};
use crate::routine::extra;
use crate::routine::stack::StackMem;
use crate::sys::tools::{self, Area};

/// The thread's own stack and fiber. All-zero bytes: not known yet.
#[repr(C)]
pub(super) struct Main {
    bottom: Cell<*mut u8>,
    size: Cell<usize>,
    fiber: Cell<*mut c_void>,
    /// From here to the top, what the thread's own frames hold is told to be in use.
    held_from: Cell<*mut u8>,
}

impl Main {
    /// The environment is made: on the thread's own stack.
    pub(super) fn begin(&self) {
        self.fiber.set(tools::this_fiber());
    }

    /// A coroutine runs, and the thread's own frames end at `sp`. LeakSanitizer looks for pointers on the stack that
    /// runs, and on coroutines' (`tools::stack_made`), but not here. Between two loops' rounds `sp` is the same.
    fn hold_from(&self, sp: *mut u8) {
        let top = self.bottom.get().wrapping_add(self.size.get());
        let area = |from: *mut u8| Area { bottom: from, size: top.addr() - from.addr() };
        let before = self.held_from.replace(sp);
        if before == sp {
            return;
        }
        if !before.is_null() {
            tools::holds_no_pointers(area(before));
        }
        if !sp.is_null() {
            tools::holds_pointers(area(sp));
        }
    }
}

/// The bytes of a coroutine's stack.
pub(super) fn area_of(stack: &StackMem) -> Area {
    Area { bottom: stack.stack_buffer.get(), size: stack.size() }
}

fn area(env: &Env, co: Co) -> Area {
    if co.is_main() {
        return Area { bottom: env.main_watched.bottom.get(), size: env.main_watched.size.get() };
    }
    area_of(co.stack())
}

fn fiber(env: &Env, co: Co) -> *mut c_void {
    if co.is_main() {
        return env.main_watched.fiber.get();
    }
    extra::if_any(co).map_or(null_mut(), |extra| extra.fiber.get())
}

/// `co` is about to run from its start. False without memory.
#[cold]
#[inline(never)]
pub(super) fn begin(co: Co) -> bool {
    if !co.on_copy_stack() {
        tools::blank(area_of(co.stack()));
    }
    let fiber = tools::new_fiber();
    if fiber.is_null() {
        return true;
    }
    let Some(extra) = extra::of(co) else {
        tools::end_fiber(fiber);
        return false;
    };
    tools::end_fiber(extra.fiber.replace(fiber));
    true
}

/// `from` is about to be left: whoever releases it then has seen what it did. (On a stack with hardly any room left, where a
/// tool's function does not fit, it goes unsaid.)
pub(super) fn gives_up(from: &Coroutine) {
    const ROOM: usize = 8 * 1024;
    let here = 0_u8;
    let left = (&raw const here).addr().wrapping_sub(from.ss_sp.get().addr());
    if tools::any() && left >= ROOM {
        tools::handed_over((&raw const *from).cast());
    }
}

/// The running context goes, for `to`. What it returns is for [`arrive`].
pub(super) fn leave(to: Co) -> *mut c_void {
    let mut kept = null_mut();
    if tools::watched()
        && let Some(env) = env::current()
    {
        tools::leaving(Some(&mut kept), area(env, to), fiber(env, to));
    }
    kept
}

/// After a [`leave`] that leads nowhere, since `to` cannot run: the thread goes back to `from`, which left.
pub(super) fn turn_back(from: Co) {
    if tools::watched() {
        tools::arrived(null_mut());
        leave(from);
    }
}

/// The running coroutine goes, for `to`, and will not come back: its routine has come to its end, or it is released.
pub(super) fn leave_for_good(to: Co) {
    if tools::watched()
        && let Some(env) = env::current()
    {
        tools::leaving(None, area(env, to), fiber(env, to));
    }
}

/// Back on the stack that was left with `kept`.
pub(super) fn arrive(kept: *mut c_void) {
    if tools::watched() {
        tools::arrived(kept);
        hold_main();
    }
}

/// After an arrival, wherever: the thread's own stack holds what it held when it was left last.
fn hold_main() {
    if let Some(env) = env::current()
        && !env.main_watched.bottom.get().is_null()
    {
        env.main_watched.hold_from(env.main.sp.get());
    }
}

/// On a new stack, before the routine.
pub(crate) extern "C-unwind" fn arrived_at_start() {
    let from = tools::arrived(null_mut());
    // The first coroutine of a thread is resumed from the thread's own stack.
    if let Some(env) = env::current()
        && env.main_watched.bottom.get().is_null()
    {
        env.main_watched.bottom.set(from.bottom);
        env.main_watched.size.set(from.size);
    }
    hold_main();
}

/// The thread ends, on its own stack. In a coroutine that called pthread_exit, or was cancelled, it came there by a jump
/// of the C library's.
pub(super) fn thread_ends(env: &Env) {
    if tools::watched() {
        if !env.running().is_main() {
            leave_for_good(Co::of(&env.main));
            tools::arrived(null_mut());
        }
        tools::frames_are_gone();
        env.main_watched.hold_from(null_mut());
    }
}

/// [`arch::switch`](crate::arch::switch) and its like.
pub(super) type Switch = unsafe extern "C-unwind" fn(*const Coroutine, *mut u8);

/// Does `switch`, to the environment's running coroutine.
///
/// # Safety
/// As there.
#[cold]
#[inline(never)]
pub(super) unsafe fn switch(switch: Switch, from: &Coroutine, sp: *mut u8) {
    gives_up(from);
    let kept = env::current().map_or(null_mut(), |env| leave(Co::of(env.running())));
    // SAFETY: as the caller vouches.
    unsafe { switch(from, sp) };
    arrive(kept);
}
