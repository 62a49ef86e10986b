//! Files that are not sockets (pipes, eventfds, timers, terminals), and vectors: one try of a read or a write.
//!
//! They stay blocking underneath, for whoever else has them. A try asks with RWF_NOWAIT; what does not take
//! that (a pipe before Linux 6.5, a terminal, a write to an eventfd) is asked by poll first, and gets no more
//! than a page of a pipe's at a time, so that the call does not block. So is a number without a record, which has
//! changed hands since the call began.

use core::ffi::{c_int, c_long, c_void};

use libc::{iovec, size_t, ssize_t};

use super::fd_table::{self, NONBLOCK_BELOW, NOT_A_SOCKET, READ_BY_POLL, WRITE_BY_POLL};
use super::io::failed;
use super::{real, vector};
use crate::sys::errno::Errno;
use crate::sys::poll;

/// What a pipe that poll calls writable takes at once.
const PIPE_ROOM: usize = libc::PIPE_BUF;

/// Whether a call that waits for `events` would end at once.
pub(super) fn ready_now(fd: c_int, events: u16) -> bool {
    let mut one = libc::pollfd { fd, events: events as i16, revents: 0 };
    // SAFETY: one pollfd.
    let ready = unsafe { poll::now(&mut one, 1) };
    ready != Ok(0)
}

fn not_ready() -> ssize_t {
    failed(Errno(libc::EAGAIN))
}

/// preadv2 or pwritev2 where the file stands, refusing to wait.
///
/// # Safety
/// As readv(2) or writev(2).
unsafe fn without_waiting(call: c_long, fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let here: c_long = -1;
    let [fd, count, flags] = [fd, count, libc::RWF_NOWAIT].map(c_long::from);
    // SAFETY: the caller's arguments; the offset comes in two halves, of which the upper one is empty.
    unsafe { libc::syscall(call, fd, parts, count, here, 0 as c_long, flags) as ssize_t }
}

/// The last error says that the file (or the kernel) does not know RWF_NOWAIT. The kernel has read the parts
/// by then.
fn no_such_way() -> bool {
    matches!(Errno::last(), Errno(libc::EOPNOTSUPP | libc::ENOSYS))
}

/// # Safety
/// As read(2).
pub(super) unsafe fn read_now(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    let part = iovec { iov_base: buf, iov_len: len };
    // SAFETY: one part, as the caller vouches.
    unsafe { readv_now(fd, &part, 1) }
}

/// Serves sockets, too: a vector that is empty takes nothing, unlike recvmsg's.
///
/// # Safety
/// As readv(2).
pub(super) unsafe fn readv_now(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let record = fd_table::get(fd);
    let has = |flag| record.is_some_and(|record| record.has(flag));
    let socket = record.is_some() && !has(NOT_A_SOCKET);
    if !has(NONBLOCK_BELOW) {
        if socket || record.is_some() && !has(READ_BY_POLL) {
            // SAFETY: as the caller vouches.
            let got = unsafe { without_waiting(libc::SYS_preadv2, fd, parts, count) };
            if got >= 0 || !no_such_way() {
                return got;
            }
        }
        if socket {
            let mut message = vector::only(parts, count as usize);
            // SAFETY: the caller's parts.
            return unsafe { (real::get().recvmsg)(fd, &mut message, libc::MSG_DONTWAIT) };
        }
        if let Some(record) = record {
            record.put(READ_BY_POLL, true);
        }
        if !ready_now(fd, libc::POLLIN as u16) {
            return not_ready();
        }
    }
    // SAFETY: as the caller vouches.
    unsafe { (real::get().readv)(fd, parts, count) }
}

/// # Safety
/// As write(2).
pub(super) unsafe fn write_now(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t {
    let record = fd_table::get(fd);
    let has = |flag| record.is_some_and(|record| record.has(flag));
    if has(NONBLOCK_BELOW) {
        // SAFETY: as the caller vouches.
        return unsafe { (real::get().write)(fd, buf, len) };
    }
    if let Some(record) = record
        && !record.has(WRITE_BY_POLL)
    {
        let part = iovec { iov_base: buf.cast_mut(), iov_len: len };
        // SAFETY: one part, as the caller vouches.
        let put = unsafe { without_waiting(libc::SYS_pwritev2, fd, &part, 1) };
        if put >= 0 || !no_such_way() {
            return put;
        }
        record.put(WRITE_BY_POLL, true);
    }
    if !ready_now(fd, libc::POLLOUT as u16) {
        return not_ready();
    }
    // SAFETY: as the caller vouches, or less.
    unsafe { (real::get().write)(fd, buf, len.min(PIPE_ROOM)) }
}

/// Serves sockets, too: a vector that is empty sends nothing, unlike sendmsg's.
///
/// # Safety
/// As writev(2).
pub(super) unsafe fn writev_now(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let record = fd_table::get(fd);
    let has = |flag| record.is_some_and(|record| record.has(flag));
    if has(NONBLOCK_BELOW) {
        // SAFETY: as the caller vouches.
        return unsafe { (real::get().writev)(fd, parts, count) };
    }
    // SAFETY: as the caller vouches.
    let put = unsafe { without_waiting(libc::SYS_pwritev2, fd, parts, count) };
    if put >= 0 || !no_such_way() {
        return put;
    }
    if record.is_some() && !has(NOT_A_SOCKET) {
        let message = vector::only(parts, count as usize);
        // SAFETY: the caller's parts.
        return unsafe { (real::get().sendmsg)(fd, &message, libc::MSG_DONTWAIT) };
    }
    if !ready_now(fd, libc::POLLOUT as u16) {
        return not_ready();
    }
    // SAFETY: the kernel has read the parts.
    let some = unsafe { vector::rest_of(parts, count as usize, 0, PIPE_ROOM) };
    // SAFETY: the first of the caller's bytes.
    unsafe { (real::get().writev)(fd, some.as_ptr(), some.len()) }
}
