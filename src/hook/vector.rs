//! Bytes in several parts: readv and writev.
//!
//! The program's array is read only after the kernel has read it: a bad pointer is then the kernel's EFAULT.

use core::ffi::{c_int, c_void};
use core::mem::zeroed;
use core::ptr::null_mut;

use libc::{iovec, msghdr, ssize_t};

use super::choice::{Hook, active_for};
use super::fd_table::{self, Record};
use super::io::try_then_wait;
use super::send::send_all;
use super::{file, real, same_signature};
use crate::routine::Env;

same_signature!(readv: fn(c_int, *const iovec, c_int) -> ssize_t);
same_signature!(writev: fn(c_int, *const iovec, c_int) -> ssize_t);

/// As many parts as the kernel takes.
const IOV_MAX: c_int = 1024;
/// As many as are sent at once after the first time: no array is allocated.
const WINDOW: usize = 16;

/// Some parts of a vector.
pub(super) struct Parts {
    parts: [iovec; WINDOW],
    count: usize,
}

impl Parts {
    pub(super) fn as_ptr(&self) -> *const iovec {
        self.parts.as_ptr()
    }

    pub(super) fn len(&self) -> c_int {
        self.count as c_int
    }
}

/// The parts behind the first `skip` bytes: as many as fit, and no more than `most` bytes.
///
/// # Safety
/// `count` parts at `parts` may be read.
pub(super) unsafe fn rest_of(parts: *const iovec, count: usize, mut skip: usize, mut most: usize) -> Parts {
    let none = iovec { iov_base: null_mut(), iov_len: 0 };
    let mut rest = Parts { parts: [none; WINDOW], count: 0 };
    for i in 0..count {
        // SAFETY: below `count`.
        let part = unsafe { parts.wrapping_add(i).read() };
        if part.iov_len <= skip {
            skip -= part.iov_len;
            continue;
        }
        if most == 0 || rest.count == WINDOW {
            break;
        }
        let len = (part.iov_len - skip).min(most);
        let base = part.iov_base.cast::<u8>().wrapping_add(skip).cast::<c_void>();
        rest.parts[rest.count] = iovec { iov_base: base, iov_len: len };
        rest.count += 1;
        most -= len;
        skip = 0;
    }
    rest
}

/// Bytes of all parts.
///
/// # Safety
/// `count` parts at `parts` may be read.
pub(super) unsafe fn total_of(parts: *const iovec, count: usize) -> usize {
    // SAFETY: below `count`.
    (0..count).fold(0, |sum: usize, i| sum.saturating_add(unsafe { (*parts.wrapping_add(i)).iov_len }))
}

/// A message of these parts alone.
pub(super) fn only(parts: *const iovec, count: usize) -> msghdr {
    // SAFETY: null pointers and numbers.
    let mut message: msghdr = unsafe { zeroed() };
    message.msg_iov = parts.cast_mut();
    message.msg_iovlen = count as _;
    message
}

/// What is known of `fd`, if a call with this many parts shall wait. Too many, or none, is the kernel's affair.
fn waits(fd: c_int, count: c_int) -> Option<&'static Record> {
    fd_table::waits(fd).filter(|_| (1..=IOV_MAX).contains(&count))
}

/// `ssize_t readv(int fd, const struct iovec *iov, int iovcnt);`
///
/// # Safety
/// As readv(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    match active_for(Hook::Readv) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { readv_hooked(fd, parts, count, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().readv)(fd, parts, count) },
    }
}

/// # Safety
/// As readv(2).
#[inline(never)]
unsafe fn readv_hooked(fd: c_int, parts: *const iovec, count: c_int, env: &Env) -> ssize_t {
    let Some(record) = waits(fd, count) else {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().readv)(fd, parts, count) };
    };
    try_then_wait(env, record, fd, libc::POLLIN as u16, record.read_ms(), || {
        // SAFETY: the caller's arguments.
        unsafe { file::readv_now(fd, parts, count) }
    })
}

/// `ssize_t writev(int fd, const struct iovec *iov, int iovcnt);`
///
/// # Safety
/// As writev(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    match active_for(Hook::Writev) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { writev_hooked(fd, parts, count, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().writev)(fd, parts, count) },
    }
}

/// # Safety
/// As writev(2).
#[inline(never)]
unsafe fn writev_hooked(fd: c_int, parts: *const iovec, count: c_int, env: &Env) -> ssize_t {
    let Some(record) = waits(fd, count) else {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().writev)(fd, parts, count) };
    };
    // SAFETY: asked for after a success: the kernel has read the parts.
    let len = || unsafe { total_of(parts, count as usize) };
    send_all(env, record, fd, len, |sent, _| {
        // SAFETY: the caller's arguments, of which some bytes may be sent.
        unsafe { writev_behind(fd, parts, count, sent) }
    })
}

/// One try of what is behind the first `sent` bytes. Never inlined: nothing of it stays on a stack that waits.
///
/// # Safety
/// As writev(2); if something is sent, the parts may be read.
#[inline(never)]
unsafe fn writev_behind(fd: c_int, parts: *const iovec, count: c_int, sent: usize) -> ssize_t {
    if sent == 0 {
        // SAFETY: the caller's arguments.
        return unsafe { file::writev_now(fd, parts, count) };
    }
    // SAFETY: as the caller vouches.
    let rest = unsafe { rest_of(parts, count as usize, sent, usize::MAX) };
    // SAFETY: the rest of the caller's bytes.
    unsafe { file::writev_now(fd, rest.as_ptr(), rest.len()) }
}
