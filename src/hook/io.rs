//! What receiving and sending share.

use core::ffi::c_int;

use libc::ssize_t;

use super::fd_table::{NONBLOCK_BELOW, Record};
use crate::event;
use crate::routine::Env;
use crate::sys::errno::Errno;

pub(super) fn would_block() -> bool {
    Errno::last() == Errno(libc::EAGAIN)
}

/// The flag that keeps a call from blocking on a file that is blocking underneath.
#[inline(always)]
pub(super) fn dont_wait(record: &Record) -> c_int {
    if record.has(NONBLOCK_BELOW) { 0 } else { libc::MSG_DONTWAIT }
}

/// A call that shall not wait still lets others run after 64 vain tries in a row.
pub(super) fn without_waiting(env: &Env, record: &Record, result: ssize_t) -> ssize_t {
    if result < 0 && would_block() && !record.one_more() && !env.running().is_main() {
        let errno = Errno::last();
        if let Ok(reactor) = env.reactor() {
            event::through_the_loop(env, reactor);
        }
        record.passed();
        errno.set();
    }
    result
}

/// The way of a call with hooks on: `else` the plain call, for a descriptor that is not ours, or that the
/// program made non-blocking. A function of its own: with hooks off its caller is a jump and no frame.
macro_rules! recorded {
    ($fd:expr, else $plain:expr) => {
        match fd_table::waits($fd) {
            Some(record) => record,
            // SAFETY: the caller's arguments.
            None => return unsafe { $plain },
        }
    };
}
pub(super) use recorded;

/// Other names of the same functions: what headers and compilers put in their place.
macro_rules! other_names {
    ($($name:ident = $call:ident($($arg:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("`", stringify!($call), "` under another of libc's names.")]
        ///
        /// # Safety
        /// As that.
        #[unsafe(no_mangle)]
        pub unsafe extern "C-unwind" fn $name($($arg: $type),*) -> ssize_t {
            // SAFETY: the caller's arguments.
            unsafe { $call($($arg),*) }
        }
    )*};
}
pub(super) use other_names;
