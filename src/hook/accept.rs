//! Connections come: accept and accept4, if asked for.

use core::ffi::{c_int, c_void};
use core::mem::size_of;

use libc::{sockaddr, socklen_t, ssize_t};

use super::choice::{Hook, active_for};
use super::fd_table::{
    self, NONBLOCK_BELOW, NONBLOCK_BY_PROGRAM, NOT_A_SOCKET, READ_TIMEOUT_SET, Record, WRITE_TIMEOUT_SET,
};
use super::io::{failed, try_then_wait, without_waiting};
use super::{file, real, same_signature};
use crate::routine::Env;
use crate::sys::errno::Errno;

same_signature!(accept: fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int);
same_signature!(accept4: fn(c_int, *mut sockaddr, *mut socklen_t, c_int) -> c_int);

/// Notes that a number was given out past the hooks.
fn noticed(fd: c_int) -> c_int {
    fd_table::not_ours(fd);
    fd
}

/// `int accept(int sockfd, struct sockaddr *addr, socklen_t *addrlen);` On a listener that the hooks know it
/// waits the listener's read time-out, and the new socket is known to them; on any other it is plain.
///
/// # Safety
/// As accept(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's arguments.
    let call = || unsafe { (real::get().accept)(fd, addr, len) };
    match active_for(Hook::Accept) {
        Some(env) => accept_hooked(env, fd, 0, call),
        None => noticed(call()),
    }
}

/// `int accept4(int sockfd, struct sockaddr *addr, socklen_t *addrlen, int flags);` As accept.
///
/// # Safety
/// As accept4(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn accept4(
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's arguments.
    let call = || unsafe { (real::get().accept4)(fd, addr, len, flags) };
    match active_for(Hook::Accept4) {
        Some(env) => accept_hooked(env, fd, flags, call),
        None => noticed(call()),
    }
}

#[inline(never)]
fn accept_hooked(env: &Env, fd: c_int, flags: c_int, call: impl Fn() -> c_int) -> c_int {
    let Some(listener) = fd_table::get(fd) else { return noticed(call()) };
    let attempt = || call() as ssize_t;
    let new = if listener.has(NONBLOCK_BY_PROGRAM) {
        without_waiting(env, listener, attempt())
    } else if listener.has(NONBLOCK_BELOW) {
        try_then_wait(env, listener, fd, libc::POLLIN as u16, listener.read_ms(), attempt)
    } else if listener.has(NOT_A_SOCKET) || !is_listening(fd) {
        // The kernel says so at once.
        attempt()
    } else {
        // Blocking underneath: asked by poll first.
        try_then_wait(env, listener, fd, libc::POLLIN as u16, listener.read_ms(), || {
            match file::ready_now(fd, libc::POLLIN as u16) {
                true => attempt(),
                false => failed(Errno(libc::EAGAIN)),
            }
        })
    };
    let new = new as c_int;
    if new < 0 { new } else { make_known(new, flags, listener) }
}

/// Records a new socket. It stays as accept made it; a TCP socket's time-outs are its listener's.
fn make_known(new: c_int, flags: c_int, listener: &Record) -> c_int {
    let nonblocking = flags & libc::SOCK_NONBLOCK != 0;
    let mode = if nonblocking { NONBLOCK_BELOW | NONBLOCK_BY_PROGRAM } else { 0 };
    if let Err(error) = fd_table::record_added(new, mode) {
        // SAFETY: just made, seen by nobody.
        unsafe { (real::get().close)(new) };
        return failed(error) as c_int;
    }
    if listener.has(READ_TIMEOUT_SET | WRITE_TIMEOUT_SET)
        && let Some(record) = fd_table::get(new)
    {
        for (name, write) in [(libc::SO_RCVTIMEO, false), (libc::SO_SNDTIMEO, true)] {
            let mut timeout = libc::timeval { tv_sec: 0, tv_usec: 0 };
            option(new, name, &mut timeout);
            if timeout.tv_sec != 0 || timeout.tv_usec != 0 {
                record.set_timeout(write, &timeout);
            }
        }
    }
    new
}

fn is_listening(fd: c_int) -> bool {
    let mut listening: c_int = 0;
    option(fd, libc::SO_ACCEPTCONN, &mut listening);
    listening != 0
}

/// One of the socket's own options; `value` stays as it is if there is none.
fn option<T>(fd: c_int, name: c_int, value: &mut T) {
    let mut len = size_of::<T>() as socklen_t;
    let value = (&raw mut *value).cast::<c_void>();
    // SAFETY: `value` and `len` are written.
    unsafe { (real::get().getsockopt)(fd, libc::SOL_SOCKET, name, value, &mut len) };
}
