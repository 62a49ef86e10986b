//! Bytes out: write, send, sendto. A write is tried first, and goes on until everything is written.

use core::ffi::{c_int, c_void};

use libc::{size_t, sockaddr, socklen_t, ssize_t};

use super::fd_table::{self, NONBLOCK_BY_PROGRAM, NOT_A_SOCKET, Record};
use super::io::{DONT_WAIT, failed, other_names, recorded, without_waiting, would_block};
use super::{Waited, active, deadline, file, real, same_signature, wait_for};
use crate::routine::Env;
use crate::sys::errno::Errno;

same_signature!(write: fn(c_int, *const c_void, size_t) -> ssize_t);
same_signature!(send: fn(c_int, *const c_void, size_t, c_int) -> ssize_t);
same_signature!(sendto: fn(c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t);

/// Sends `len` bytes (asked for once something is sent) by `attempt` (which gets how many are sent, and flags
/// to add), waiting as often as it takes; each wait lasts the write time-out.
#[inline]
pub(super) fn send_all(
    env: &Env,
    record: &Record,
    fd: c_int,
    len: impl Fn() -> size_t,
    attempt: impl Fn(size_t, c_int) -> ssize_t,
) -> ssize_t {
    send_on(env, record, fd, 0, len, attempt)
}

/// As [`send_all`], `sent` of them being sent already.
#[inline]
pub(super) fn send_on(
    env: &Env,
    record: &Record,
    fd: c_int,
    mut sent: size_t,
    len: impl Fn() -> size_t,
    attempt: impl Fn(size_t, c_int) -> ssize_t,
) -> ssize_t {
    let mut last_try = false;
    loop {
        let put = attempt(sent, DONT_WAIT);
        if put >= 0 {
            sent += put as size_t;
            if put == 0 || sent >= len() {
                return sent as ssize_t;
            }
            last_try = false;
        } else if !would_block() || last_try {
            return if sent > 0 { sent as ssize_t } else { -1 };
        }
        match wait_for(env, fd, libc::POLLOUT as u16, deadline(record.write_ms())) {
            // A try would take the error that the program's next call is to have, and raise SIGPIPE too early.
            Ok(Waited::HungUp) if sent > 0 => return sent as ssize_t,
            Ok(Waited::Ready | Waited::HungUp) => {}
            Ok(Waited::Over) => last_try = true,
            Err(_) if sent > 0 => return sent as ssize_t,
            Err(error) => return failed(error),
        }
    }
}

/// `ssize_t write(int fd, const void *buf, size_t count);`
///
/// # Safety
/// As write(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn write(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t {
    match active() {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { write_hooked(fd, buf, count, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().write)(fd, buf, count) },
    }
}

/// # Safety
/// As write(2).
#[inline(never)]
unsafe fn write_hooked(fd: c_int, buf: *const c_void, count: size_t, env: &Env) -> ssize_t {
    let Some(record) = fd_table::get(fd).filter(|_| count != 0) else {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().write)(fd, buf, count) };
    };
    if record.has(NONBLOCK_BY_PROGRAM) {
        // SAFETY: the caller's arguments.
        return unsafe { try_write(record, fd, buf, count, 0) };
    }
    send_all(
        env,
        record,
        fd,
        || count,
        |sent, flags| {
            let rest = buf.cast::<u8>().wrapping_add(sent).cast::<c_void>();
            // SAFETY: the rest of the caller's bytes.
            unsafe { try_write(record, fd, rest, count - sent, flags) }
        },
    )
}

/// One try of a write.
///
/// # Safety
/// As write(2).
#[inline(always)]
unsafe fn try_write(record: &Record, fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    if record.has(NOT_A_SOCKET) {
        // SAFETY: the program's arguments.
        return unsafe { file::write_now(fd, buf, len) };
    }
    // SAFETY: the program's arguments.
    unsafe { send_by_write(fd, buf, len, flags) }
}

/// One try of a write to a socket: send does the same for less.
///
/// # Safety
/// As write(2).
#[inline(always)]
unsafe fn send_by_write(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the program's arguments; send writes to a socket as write does.
    let put = unsafe { (real::get().send)(fd, buf, len, flags) };
    if put < 0 && Errno::last() == Errno(libc::ENOTSOCK) {
        // The number changed hands past us: plain from the next call on.
        fd_table::not_ours(fd);
        // SAFETY: the program's arguments.
        return unsafe { file::write_now(fd, buf, len) };
    }
    put
}

/// `ssize_t send(int sockfd, const void *buf, size_t len, int flags);`
///
/// # Safety
/// As send(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t {
    match active() {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { send_hooked(fd, buf, len, flags, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().send)(fd, buf, len, flags) },
    }
}

/// # Safety
/// As send(2).
#[inline(never)]
unsafe fn send_hooked(fd: c_int, buf: *const c_void, len: size_t, flags: c_int, env: &Env) -> ssize_t {
    let record = recorded!(fd, else (real::get().send)(fd, buf, len, flags));
    let attempt = |sent: size_t, more: c_int| {
        let rest = buf.cast::<u8>().wrapping_add(sent).cast::<c_void>();
        // SAFETY: the rest of the caller's bytes.
        unsafe { (real::get().send)(fd, rest, len - sent, flags | more) }
    };
    if flags & libc::MSG_DONTWAIT != 0 {
        return without_waiting(env, record, attempt(0, 0));
    }
    send_all(env, record, fd, || len, attempt)
}

/// `ssize_t sendto(int sockfd, const void *buf, size_t len, int flags, const struct sockaddr *dest_addr, socklen_t addrlen);`
/// As the original: one try, one wait, one retry.
///
/// # Safety
/// As sendto(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sendto(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
) -> ssize_t {
    match active() {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { sendto_hooked(fd, buf, len, flags, to, to_len, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().sendto)(fd, buf, len, flags, to, to_len) },
    }
}

/// # Safety
/// As sendto(2).
#[inline(never)]
unsafe fn sendto_hooked(
    fd: c_int,
    buf: *const c_void,
    len: size_t,
    flags: c_int,
    to: *const sockaddr,
    to_len: socklen_t,
    env: &Env,
) -> ssize_t {
    let record = recorded!(fd, else (real::get().sendto)(fd, buf, len, flags, to, to_len));
    // SAFETY: the caller's arguments.
    let attempt = |more: c_int| unsafe { (real::get().sendto)(fd, buf, len, flags | more, to, to_len) };
    if flags & libc::MSG_DONTWAIT != 0 {
        return without_waiting(env, record, attempt(0));
    }
    let put = attempt(DONT_WAIT);
    if put >= 0 || !would_block() {
        return put;
    }
    match wait_for(env, fd, libc::POLLOUT as u16, deadline(record.write_ms())) {
        Ok(_) => attempt(DONT_WAIT),
        Err(error) => failed(error),
    }
}

other_names! {
    __write = write(fd: c_int, buf: *const c_void, count: size_t);
    __send = send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int);
}
