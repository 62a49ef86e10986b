//! co_inspect.h: looking in. Names of C linkage alone: libco has none of them.

use core::ffi::{c_char, c_int};

use super::fail;
use crate::sys::log::{self, Level};

/// The library cannot do what it was asked to: no memory, no descriptor.
pub const CO_LOG_ERROR: c_int = 0;
/// The program has misused the library; the message ends with the caller's address.
pub const CO_LOG_WARN: c_int = 1;
/// The library helps itself, at a price.
pub const CO_LOG_INFO: c_int = 2;
/// What comes and goes.
pub const CO_LOG_DEBUG: c_int = 3;
/// No level: nothing is shown.
pub const CO_LOG_OFF: c_int = -1;

const _: () = {
    assert!(CO_LOG_ERROR == Level::Error as c_int && CO_LOG_WARN == Level::Warn as c_int);
    assert!(CO_LOG_OFF == log::OFF as c_int);
    assert!(CO_LOG_INFO == Level::Info as c_int && CO_LOG_DEBUG == Level::Debug as c_int);
};

/// Gets a message of the library and its level: one line without a line end.
pub type pfn_co_log_sink_t = Option<unsafe extern "C-unwind" fn(c_int, *const c_char)>;

/// As co_set_log_handler, for a function that gets the level too: the one that was set last, by either, gets
/// the messages of all threads. NULL: nowhere, or to standard error if LIBCO_LOG was set when the program
/// started. sink runs on the stack of whoever causes the message, which may be a coroutine's. What co_log_err
/// says comes as CO_LOG_ERROR.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_set_log_sink(sink: pfn_co_log_sink_t) {
    log::set_sink(sink);
}

/// Shows messages of this level and those above it, in all threads, from now on. level: CO_LOG_WARN if this is
/// never called and LIBCO_LOG (docs/DEBUGGING.md) says nothing else.
///
/// Returns 0, or -1 with errno EINVAL for what is no level; then nothing has changed.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_set_log_level(level: c_int) -> c_int {
    match log::set_level(level) {
        Ok(()) => 0,
        Err(error) => fail(error),
    }
}
