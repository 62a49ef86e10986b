//! The Rust side of log_shim.c, which formats co_log_err's arguments.

use core::ffi::{c_char, c_int};

use crate::sys::log::{self, Level};

/// `struct colib_log_sink`.
#[repr(C)]
struct Sink {
    wanted: Option<extern "C" fn() -> c_int>,
    line: Option<unsafe extern "C" fn(*const c_char, usize)>,
}

unsafe extern "C" {
    /// co_log_err's body, a C variadic function.
    pub(super) fn colib_log_format();
    static mut colib_log_sink: Sink;
}

extern "C" fn wanted() -> c_int {
    c_int::from(log::wanted(Level::Error))
}

/// # Safety
/// `length` bytes at `text`.
unsafe extern "C" fn line(text: *const c_char, length: usize) {
    // SAFETY: as the caller vouches.
    log::emit(unsafe { core::slice::from_raw_parts(text.cast(), length) });
}

/// Called once, when the library is loaded.
pub(crate) fn connect() {
    // SAFETY: before any other code of the library runs.
    unsafe { colib_log_sink = Sink { wanted: Some(wanted), line: Some(line) } };
}
