//! The C surface. An exported function checks, converts, makes one call into the core, converts back.
//!
//! One file per header; cbindgen writes include/ from five of them (tests/headers.rs). `cxx` gives each
//! function its C++-mangled twin, so that objects compiled against the original's headers link.

#![expect(non_camel_case_types, reason = "C's names")]
#![expect(non_snake_case, reason = "C's names")]
#![expect(unreachable_pub, reason = "exported under their symbol names, not by path")]

pub(crate) mod co_comm;
pub(crate) mod co_epoll;
pub(crate) mod co_inspect;
pub(crate) mod co_routine;
mod co_routine_hooks;
pub(crate) mod co_routine_inner;
pub(crate) mod coctx;
pub(crate) mod cxx;
mod log_shim;

pub(crate) use log_shim::connect as connect_log_shim;

use core::ffi::c_int;

use crate::routine::copy::ShareStack;
use crate::routine::{Co, Coroutine, Env};
use crate::sys::errno::Errno;

pub(crate) use crate::event::Reactor as stCoEpoll_t;
pub(crate) use crate::routine::Coroutine as stCoRoutine_t;
pub(crate) use crate::routine::Env as stCoRoutineEnv_t;
pub(crate) use crate::routine::cond::Cond as stCoCond_t;
pub(crate) use crate::routine::copy::ShareStack as stShareStack_t;

/// A coroutine the caller gave us.
///
/// # Safety
/// Null, or from co_create and not released.
#[inline(always)]
unsafe fn coroutine(co: *mut Coroutine) -> Option<Co> {
    // SAFETY: as the caller vouches.
    unsafe { Co::from_c(co) }
}

/// An environment the caller gave us.
///
/// # Safety
/// Null, or from co_get_curr_thread_env of a thread that has not ended.
unsafe fn environment<'a>(env: *mut Env) -> Option<&'a Env> {
    // SAFETY: as the caller vouches.
    unsafe { env.as_ref() }
}

/// A group of copy stacks the caller gave us.
///
/// # Safety
/// Null, or from co_alloc_sharestack.
unsafe fn share_stack<'a>(group: *mut ShareStack) -> Option<&'a ShareStack> {
    // SAFETY: as the caller vouches.
    unsafe { group.as_ref() }
}

/// The C way to report an error: errno and -1.
fn fail(error: Errno) -> c_int {
    error.set();
    -1
}
