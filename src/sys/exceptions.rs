//! The C++ runtime's per-thread exception state, which has to go with the coroutine.
//!
//! `__cxa_get_globals` (Itanium C++ ABI) returns the address of the thread's stack of caught
//! exceptions and its count of uncaught ones. The address is the same for the thread's whole life, so
//! it is asked for once.

use core::cell::Cell;
use core::ptr::null_mut;

use crate::arch::weak_function;
use crate::sys::heap::Zeroed;

/// `__cxa_eh_globals`: what a coroutine has in flight.
#[repr(C)]
pub(crate) struct ExceptionState {
    caught: Cell<*mut core::ffi::c_void>,
    uncaught: Cell<u32>,
    /// Padding in the runtime's own. In a control block, where every byte counts: when the last wait began.
    began: Cell<u32>,
}

const _: () = assert!(size_of::<ExceptionState>() == 16);

/// Where the processor-specific code finds what it looks at.
pub(crate) mod at {
    use super::ExceptionState;
    use core::mem::offset_of;

    pub(crate) const CAUGHT: usize = offset_of!(ExceptionState, caught);
    pub(crate) const UNCAUGHT: usize = offset_of!(ExceptionState, uncaught);
    pub(crate) const BEGAN: usize = offset_of!(ExceptionState, began);
}

/// What the short ways of `arch` look at in a thread whose switches are watched: never empty, so that they leave all to the
/// slow ones. Never written.
pub(crate) struct Detour(ExceptionState);

// SAFETY: only read.
unsafe impl Sync for Detour {}

pub(crate) static DETOUR: Detour =
    Detour(ExceptionState { caught: Cell::new(null_mut()), uncaught: Cell::new(1), began: Cell::new(0) });

impl Detour {
    pub(crate) fn state(&self) -> &ExceptionState {
        &self.0
    }
}

// SAFETY: nothing caught, nothing uncaught.
unsafe impl Zeroed for ExceptionState {}

impl ExceptionState {
    /// Whether nothing is in flight.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.caught.get().is_null() && self.uncaught.get() == 0
    }

    /// Moves the thread's state into `leaving` and `entering`'s into the thread.
    ///
    /// A running coroutine's own copy is zero: that is what lets the switch test before it moves.
    pub(crate) fn exchange(&self, leaving: &ExceptionState, entering: &ExceptionState) {
        leaving.caught.set(self.caught.get());
        leaving.uncaught.set(self.uncaught.get());
        self.caught.set(entering.caught.replace(null_mut()));
        self.uncaught.set(entering.uncaught.replace(0));
    }

    /// Notes the tick at which a wait begins, as far as it fits.
    #[inline(always)]
    pub(crate) fn set_began(&self, tick: u64) {
        self.began.set(tick as u32);
    }

    /// Forgets what is in flight (the frames that threw are abandoned).
    pub(crate) fn clear(&self) {
        self.caught.set(null_mut());
        self.uncaught.set(0);
    }
}

/// The calling thread's state; null where no C++ runtime is linked.
pub(crate) fn of_this_thread() -> *const ExceptionState {
    // libstdc++ or libc++abi has it; a C program has neither.
    let get = weak_function!("__cxa_get_globals");
    if get.is_null() {
        return core::ptr::null();
    }
    // SAFETY: the C++ ABI fixes this signature.
    let get: unsafe extern "C" fn() -> *const ExceptionState = unsafe { core::mem::transmute(get) };
    // SAFETY: may be called from any thread; allocates the state at most.
    unsafe { get() }
}
