//! sendfile: from a file to a socket or a pipe, until all is sent.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

use libc::{off_t, size_t, ssize_t};

use super::choice::{Hook, active_for};
use super::fd_table::{self, NONBLOCK_BELOW, NOT_A_SOCKET};
use super::send::send_all;
use super::{real, same_signature};
use crate::routine::Env;
use crate::sys::errno::Errno;

same_signature!(sendfile: fn(c_int, c_int, *mut off_t, size_t) -> ssize_t);
same_signature!(sendfile64: fn(c_int, c_int, *mut off_t, size_t) -> ssize_t);

/// `ssize_t sendfile(int out_fd, int in_fd, off_t *offset, size_t count);`
///
/// # Safety
/// As sendfile(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sendfile(
    out: c_int,
    from: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    match active_for(Hook::Sendfile) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { sendfile_hooked(out, from, offset, count, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().sendfile)(out, from, offset, count) },
    }
}

/// `sendfile` of programs built with large files.
///
/// # Safety
/// As sendfile(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sendfile64(
    out: c_int,
    from: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    // SAFETY: the caller's arguments; an offset has 64 bits in both.
    unsafe { sendfile(out, from, offset, count) }
}

/// # Safety
/// As sendfile(2).
#[inline(never)]
unsafe fn sendfile_hooked(out: c_int, from: c_int, offset: *mut off_t, count: size_t, env: &Env) -> ssize_t {
    let call = real::get().sendfile;
    // The kernel refuses a negative count.
    let some = 1..=isize::MAX as size_t;
    let Some(record) = fd_table::waits(out).filter(|_| some.contains(&count)) else {
        // SAFETY: the caller's arguments.
        return unsafe { call(out, from, offset, count) };
    };
    if !record.has(NONBLOCK_BELOW | NOT_A_SOCKET) {
        // The kernel says what is wrong with the arguments, and reads and writes the offset.
        // SAFETY: the caller's arguments, for nothing.
        let fine = unsafe { call(out, from, offset, 0) };
        if fine < 0 {
            return fine;
        }
    }
    send_all(
        env,
        record,
        out,
        || count,
        |sent, _| {
            let rest = count - sent;
            let way = match (record.has(NONBLOCK_BELOW), record.has(NOT_A_SOCKET)) {
                (true, _) => call,
                (false, true) => to_pipe,
                (false, false) => to_socket,
            };
            // SAFETY: the caller's arguments; offset or position have moved by what is sent.
            unsafe { way(out, from, offset, rest) }
        },
    )
}

/// One try of a sendfile to a pipe that is blocking underneath.
///
/// # Safety
/// As sendfile(2).
unsafe extern "C-unwind" fn to_pipe(out: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: the caller's arguments.
    let put = unsafe { libc::splice(from, offset, out, null_mut(), count, libc::SPLICE_F_NONBLOCK) };
    if put < 0 && Errno::last() == Errno(libc::EINVAL) && !is_pipe(out) {
        // The kernel says what it thinks of that.
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().sendfile)(out, from, offset, count) };
    }
    put
}

/// Leaves errno as it is.
fn is_pipe(fd: c_int) -> bool {
    let errno = Errno::last();
    // SAFETY: all-zero bytes are a stat.
    let mut file: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: writes the stat.
    let known = unsafe { libc::fstat(fd, &mut file) } == 0;
    errno.set();
    known && file.st_mode & libc::S_IFMT == libc::S_IFIFO
}

/// What goes to a socket at once: a coroutine's stack may be small.
const CHUNK: usize = 4096;

/// One try of a sendfile to a socket that is blocking underneath: there is no sendfile that does not wait, so
/// the bytes are read and sent. Never inlined: the buffer is not on a stack that waits.
///
/// # Safety
/// The kernel has read and written `offset`, if there is one.
#[inline(never)]
unsafe extern "C-unwind" fn to_socket(out: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    let mut buf = [0_u8; CHUNK];
    let bytes = buf.as_mut_ptr().cast::<c_void>();
    let start = match offset.is_null() {
        // SAFETY: no pointers.
        true => unsafe { libc::lseek(from, 0, libc::SEEK_CUR) },
        // SAFETY: as the caller vouches.
        false => unsafe { offset.read_unaligned() },
    };
    // SAFETY: `buf` is written.
    let got = unsafe { libc::pread(from, bytes, count.min(CHUNK), start) };
    if got <= 0 {
        return got;
    }
    // SAFETY: what was read.
    let put = unsafe { (real::get().send)(out, bytes, got as size_t, libc::MSG_DONTWAIT) };
    if put > 0 {
        let end = start + put as off_t;
        match offset.is_null() {
            // SAFETY: no pointers.
            true => _ = unsafe { libc::lseek(from, end, libc::SEEK_SET) },
            // SAFETY: as the caller vouches.
            false => unsafe { offset.write_unaligned(end) },
        }
    }
    put
}
