//! A coroutine ran off its stack: says so before the process dies of it.
//!
//! ```text
//!      │   guard    │ ◄── stack pointer ....... stack .......│
//!      ▲ a touch here faults: SIGSEGV, and this looks at it
//! ```
//!
//! Runs in a signal handler, on a stack of its own (`sys::fault`).

use core::fmt;

use crate::routine::coroutine::Coroutine;
use crate::routine::env;
use crate::sys::log::warn;
use crate::sys::maps::Place;
use crate::sys::pages;

/// How far below the stack pointer code may still write: the red zone, and what a call pushes.
const REACH: usize = 256;

/// Takes SIGSEGV for the process, once it has coroutines.
pub(super) fn watch() {
    crate::sys::fault::install(report);
}

/// What is wrong with an access, as far as the running coroutine's stack tells.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The stack pointer is at its lower end, or below it.
    RanOff,
    /// The stack has room, but something below it was touched.
    Below,
    /// Something right above it was touched.
    Above,
    /// It has nothing to do with the stack.
    Other,
}

fn look(bottom: usize, top: usize, address: usize, sp: usize) -> Fault {
    let in_guard = (bottom - pages::guard_size()..bottom).contains(&address);
    // A frame larger than the guard may begin far below it.
    let frame_below = sp < bottom
        && sp >= bottom.saturating_sub(top - bottom)
        && (sp - REACH.min(sp)..bottom).contains(&address);
    if in_guard && sp <= bottom + REACH || frame_below {
        return Fault::RanOff;
    }
    if in_guard {
        return Fault::Below;
    }
    if (top..top + pages::guard_size()).contains(&address) {
        return Fault::Above;
    }
    Fault::Other
}

/// Prints a sentence, if it was a coroutine's stack.
fn report(address: usize, sp: usize, pc: usize) {
    let Some(env) = env::current() else { return };
    let co = env.running();
    if co.is_main() {
        return;
    }
    let stack = co.stack();
    let (bottom, top) = (stack.stack_buffer.get().addr(), stack.stack_bp.get().addr());
    let who = Who(co);
    let at = Place::of(pc);
    match look(bottom, top, address, sp) {
        Fault::RanOff => warn(format_args!(
            "colib: {who} ran off its stack at 0x{address:x}, in the function at {at}: it needs more ({}), or \
             less on it (large locals, alloca, recursion)",
            if co.on_copy_stack() { "co_alloc_sharestack's size" } else { "stCoRoutineAttr_t.stack_size" },
        )),
        Fault::Below => warn(format_args!(
            "colib: {who} touched 0x{address:x}, {} bytes below its stack, of which {} bytes are free: a bad pointer, or \
             an index below an array, at {at}",
            bottom - address,
            sp.saturating_sub(bottom),
        )),
        Fault::Above => warn(format_args!(
            "colib: {who} touched 0x{address:x}, {} bytes above its stack: a bad pointer, or an index above an array, \
             at {at}",
            address - top,
        )),
        Fault::Other => {}
    }
}

/// Names a coroutine: its address, its routine, its stack.
struct Who<'a>(&'a Coroutine);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routine = Place::of(self.0.pfn.get().map_or(0, |pfn| pfn as usize));
        let kind = if self.0.on_copy_stack() { "copy" } else { "private" };
        let size = self.0.stack().size();
        write!(f, "coroutine {:p} (routine {routine}, {kind} stack of {size} bytes)", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTTOM: usize = 0x7000_0000;
    const TOP: usize = BOTTOM + 128 * 1024;

    #[test]
    fn a_fault_is_told_by_its_address_and_the_stack_pointer() {
        let look = |address, sp| look(BOTTOM, TOP, address, sp);
        let guard = pages::guard_size();
        // A push or a call at the end, a probe, a frame that begins below the guard.
        assert!(look(BOTTOM - 8, BOTTOM) == Fault::RanOff);
        assert!(look(BOTTOM - guard, BOTTOM - guard) == Fault::RanOff);
        assert!(look(BOTTOM - 100, BOTTOM - 100_000) == Fault::RanOff);
        assert!(look(BOTTOM - 3 * guard, BOTTOM - 3 * guard) == Fault::RanOff);
        assert!(look(BOTTOM - 1, BOTTOM + 50_000) == Fault::Below);
        assert!(look(TOP, TOP - 500) == Fault::Above);
        assert!(look(0, TOP - 500) == Fault::Other);
        assert!(look(BOTTOM - 3 * guard, TOP - 500) == Fault::Other);
    }
}
