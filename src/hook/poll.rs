//! poll, under its three names, and ppoll.

use core::ffi::c_int;
use core::mem::size_of;

use libc::{nfds_t, pollfd, sigset_t, size_t, timespec};

use super::choice::{Hook, active_for};
use super::until::{self, First, Until, wait_and_look};
use super::{active, real, same_signature};
use crate::event::{self, Wanted};
use crate::routine::Env;
use crate::sys::errno::Errno;
use crate::sys::signals;

same_signature!(poll: fn(*mut pollfd, nfds_t, c_int) -> c_int);
same_signature!(ppoll: fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t) -> c_int);

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
    if timeout == 0 || env.waits_plainly() {
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

/// `int ppoll(struct pollfd *fds, nfds_t nfds, const struct timespec *tmo_p, const sigset_t *sigmask);` Unlike
/// poll it ends with `EINTR` when a signal handler has run while the loop slept; `sigmask` counts while it sleeps
/// (see `event::interrupt`).
///
/// # Safety
/// As ppoll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    match active_for(Hook::Ppoll) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { ppoll_hooked(fds, count, timeout, mask, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().ppoll)(fds, count, timeout, mask) },
    }
}

/// # Safety
/// As ppoll(2).
#[inline(never)]
unsafe fn ppoll_hooked(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    env: &Env,
) -> c_int {
    // SAFETY: null, or the caller's.
    let time = unsafe { timeout.as_ref() }.copied();
    if until::cannot_yield(env) || time.is_some_and(|time| until::returns_at_once(&time)) {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().ppoll)(fds, count, timeout, mask) };
    }
    let until = Until::after(time);
    let look = |_: bool| {
        // SAFETY: the caller's arguments, and a time of ours.
        unsafe { (real::get().ppoll)(fds, count, &until::AT_ONCE, mask) }
    };
    let first = First::of(look(false));
    if let First::Return(result) = first {
        return result;
    }
    let wanted = Wanted {
        count: count as usize,
        fill: |each: &mut dyn FnMut(c_int, u16)| {
            for i in 0..count as usize {
                // SAFETY: `count` of the caller's: the kernel has just read them.
                let one = unsafe { fds.wrapping_add(i).read() };
                each(one.fd, one.events as u16);
            }
        },
        counts: |events| events | (libc::POLLERR | libc::POLLHUP) as u16,
        until: until.tick(),
        // SAFETY: null, or the caller's: the kernel has just read it.
        mask: unsafe { signals::of_set(mask) },
    };
    wait_and_look(env, until, first, wanted, look)
}

/// `ppoll`, fortified: `room` bytes at `fds`.
///
/// # Safety
/// As ppoll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    if room / size_of::<pollfd>() < count as usize {
        // SAFETY: ends the program.
        return unsafe { (real::get().ppoll_chk)(fds, count, timeout, mask, room) };
    }
    // SAFETY: the caller's arguments.
    unsafe { ppoll(fds, count, timeout, mask) }
}
