//! poll, under its three names.

use core::ffi::c_int;
use core::mem::size_of;

use libc::{nfds_t, pollfd, size_t};

use super::{active, real, same_signature};
use crate::event;
use crate::routine::Env;
use crate::sys::errno::Errno;

same_signature!(poll: fn(*mut pollfd, nfds_t, c_int) -> c_int);

/// `int poll(struct pollfd *fds, nfds_t nfds, int timeout);` With a time-out other than 0 others run
/// meanwhile.
///
/// # Safety
/// As poll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    match active() {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { poll_hooked(fds, count, timeout, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().poll)(fds, count, timeout) },
    }
}

/// # Safety
/// As poll(2).
#[inline(never)]
unsafe fn poll_hooked(fds: *mut pollfd, count: nfds_t, timeout: c_int, env: &Env) -> c_int {
    if timeout == 0 || env.running().is_main() {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().poll)(fds, count, timeout) };
    }
    if fds.is_null() && count != 0 {
        Errno(libc::EFAULT).set();
        return -1;
    }
    let ready = env.reactor().and_then(|reactor| {
        // SAFETY: the caller's arguments.
        unsafe { event::poll(env, reactor, fds, count as usize, timeout) }
    });
    ready.unwrap_or_else(|error| {
        error.set();
        -1
    })
}

/// `poll` under another of libc's names.
///
/// # Safety
/// As poll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { poll(fds, count, timeout) }
}

/// `poll`, fortified: `room` bytes at `fds`.
///
/// # Safety
/// As poll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __poll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
    room: size_t,
) -> c_int {
    if room / size_of::<pollfd>() < count as usize {
        // SAFETY: ends the program.
        return unsafe { (real::get().poll_chk)(fds, count, timeout, room) };
    }
    // SAFETY: the caller's arguments.
    unsafe { poll(fds, count, timeout) }
}
