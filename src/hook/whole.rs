//! MSG_WAITALL: a receiving call on a stream that goes on until all it asked for is there.

use core::ffi::{c_int, c_void};
use core::mem::size_of;
use core::ptr::null_mut;

use libc::{size_t, socklen_t, ssize_t};

use super::fd_table::Record;
use super::io::{DONT_WAIT, try_then_wait, would_block};
use super::{Waited, deadline, real, wait_for};
use crate::event;
use crate::routine::Env;
use crate::sys::clock::Nanos;
use crate::sys::poll;

/// Receives by `attempt` (which gets how much is there, and flags to add) until there are `len` bytes (asked for
/// once there are some), the stream ends, or the read time-out is over.
pub(super) fn receive_all(
    env: &Env,
    record: &Record,
    fd: c_int,
    len: impl Fn() -> size_t,
    flags: c_int,
    attempt: impl Fn(size_t, c_int) -> ssize_t,
) -> ssize_t {
    let until = deadline(record.read_ms());
    let first = || attempt(0, DONT_WAIT);
    let got = try_then_wait(env, record, fd, libc::POLLIN as u16, record.read_ms(), first);
    if got <= 0 || got as size_t >= len() || !is_stream(fd) {
        return got;
    }
    if flags & libc::MSG_PEEK != 0 {
        return peek_on(env, fd, got, len(), until, first);
    }
    let mut got = got as size_t;
    while got < len() {
        let waited = wait_for(env, fd, libc::POLLIN as u16, until);
        // An error belongs to the next call: this one has bytes to return.
        if waited.is_err() || reports(fd, libc::POLLERR) {
            break;
        }
        let more = attempt(got, DONT_WAIT);
        if more > 0 {
            got += more as size_t;
        } else if more == 0 || !would_block() || waited == Ok(Waited::Over) {
            break;
        }
    }
    record.passed();
    got as ssize_t
}

/// Looks every millisecond whether there is as much as asked for: what is there already is reported again and
/// again, so there is no event to wait for.
fn peek_on(
    env: &Env,
    fd: c_int,
    mut got: ssize_t,
    len: size_t,
    until: Option<u64>,
    look: impl Fn() -> ssize_t,
) -> ssize_t {
    while (got as size_t) < len
        && !reports(fd, libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP)
        && until.is_none_or(|tick| Nanos::now().tick() < tick)
    {
        if nap(env).is_err() {
            break;
        }
        let now = look();
        if now <= 0 {
            break;
        }
        got = now;
    }
    got
}

/// Lets the others run for a millisecond.
fn nap(env: &Env) -> Result<(), crate::sys::errno::Errno> {
    if env.waits_plainly() {
        // SAFETY: no descriptors.
        unsafe { (real::get().poll)(null_mut(), 0, 1) };
        return Ok(());
    }
    // SAFETY: no descriptors.
    unsafe { event::poll(env, env.reactor()?, null_mut(), 0, 1) }.map(|_| ())
}

/// Whether poll reports one of these now.
fn reports(fd: c_int, events: i16) -> bool {
    let mut one = libc::pollfd { fd, events: events & libc::POLLRDHUP, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { poll::now(&mut one, 1) }.is_err() || one.revents & (events | libc::POLLNVAL) != 0
}

fn is_stream(fd: c_int) -> bool {
    let mut kind: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    let value = (&raw mut kind).cast::<c_void>();
    // SAFETY: `kind` and `len` are written.
    let status = unsafe { (real::get().getsockopt)(fd, libc::SOL_SOCKET, libc::SO_TYPE, value, &mut len) };
    status == 0 && kind == libc::SOCK_STREAM
}
