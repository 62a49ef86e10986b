//! colib: stackful coroutines for C and C++ servers, with the API and ABI of Tencent's libco.
//!
//! The public surface is C: see include/co_routine.h. docs/ARCHITECTURE.md draws the picture that the
//! modules below fill in; dependencies point downwards only.

mod process;

mod capi;
mod hook;

mod event;
mod routine;

mod arch;
mod sys;
mod util;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;

/// The table of hooks, for the documentation's test.
#[doc(hidden)]
pub use hook::choice::{ENTRIES as HOOKS, Entry as HookEntry, Set as HookSet};
