//! What receiving and sending share.

use core::ffi::c_int;

use libc::ssize_t;

use super::fd_table::Record;
use super::{Waited, deadline, wait_for};
use crate::event;
use crate::routine::Env;
use crate::sys::errno::Errno;

pub(super) fn would_block() -> bool {
    Errno::last() == Errno(libc::EAGAIN)
}

/// The flag of every try on a socket. One that is non-blocking underneath needs it no more, but the number may
/// have become another's past us.
pub(super) const DONT_WAIT: c_int = libc::MSG_DONTWAIT;

/// Flags with which the kernel does not wait for what a receiving call wants.
pub(super) const NEVER_WAITS: c_int = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;

/// A result of -1 with this error.
pub(super) fn failed(error: Errno) -> ssize_t {
    error.set();
    -1
}

/// As a blocking call: tries (which says at once what is wrong with the arguments), then waits for
/// `events` and tries again, for `ms` milliseconds in all. After 64 tries in a row that did not have to wait
/// others run first.
pub(super) fn try_then_wait(
    env: &Env,
    record: &Record,
    fd: c_int,
    events: u16,
    ms: c_int,
    attempt: impl Fn() -> ssize_t,
) -> ssize_t {
    if !record.one_more() {
        let_others_run(env, record);
    }
    let got = attempt();
    if got >= 0 || !would_block() {
        return got;
    }
    wait_then_try(env, Some(record), fd, events, deadline(ms), attempt)
}

/// Waits for `events` and tries, until `until` is over.
#[inline]
pub(super) fn wait_then_try(
    env: &Env,
    record: Option<&Record>,
    fd: c_int,
    events: u16,
    until: Option<u64>,
    attempt: impl Fn() -> ssize_t,
) -> ssize_t {
    loop {
        let waited = match wait_for(env, fd, events, until) {
            Ok(waited) => waited,
            Err(error) => return failed(error),
        };
        if let Some(record) = record {
            record.passed();
        }
        let got = attempt();
        if got >= 0 || !would_block() || waited == Waited::Over {
            return got;
        }
        // Somebody else took it: wait on.
    }
}

fn let_others_run(env: &Env, record: &Record) {
    if !env.waits_plainly()
        && let Ok(reactor) = env.reactor()
    {
        event::through_the_loop(env, reactor);
    }
    record.passed();
}

/// A call that shall not wait still lets others run after 64 vain tries in a row.
pub(super) fn without_waiting(env: &Env, record: &Record, result: ssize_t) -> ssize_t {
    if result < 0 && would_block() && !record.one_more() {
        let errno = Errno::last();
        let_others_run(env, record);
        errno.set();
    }
    result
}

/// The way of a socket's call with hooks on: `else` the plain call, for a descriptor that is not ours, that
/// the program made non-blocking, or that is no socket (which the kernel says). A function of its own: with hooks off its caller is a jump and no frame.
macro_rules! recorded {
    ($fd:expr, else $plain:expr) => {
        match fd_table::waits($fd).filter(|record| !record.has(fd_table::NOT_A_SOCKET)) {
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
