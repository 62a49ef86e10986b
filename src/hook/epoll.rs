//! epoll_wait, epoll_pwait, epoll_pwait2: an epoll descriptor can be waited for like any other.

use core::ffi::c_int;

use libc::{epoll_event, sigset_t, timespec};

use super::choice::{Hook, active_for};
use super::until::{self, First, Until, wait_and_look};
use super::{real, same_signature};
use crate::event::Wanted;
use crate::routine::Env;
use crate::sys::signals;

same_signature!(epoll_wait: fn(c_int, *mut epoll_event, c_int, c_int) -> c_int);
same_signature!(epoll_pwait: fn(c_int, *mut epoll_event, c_int, c_int, *const sigset_t) -> c_int);

/// Waits until the epoll descriptor has something, then takes it as epoll_wait with a time-out of 0 does.
/// `time`: not zero, valid; `None` for ever.
///
/// # Safety
/// As epoll_pwait(2).
unsafe fn wait_for_events(
    env: &Env,
    epfd: c_int,
    events: *mut epoll_event,
    count: c_int,
    time: Option<timespec>,
    mask: *const sigset_t,
) -> c_int {
    let until = Until::after(time);
    let look = |_: bool| {
        // SAFETY: the caller's arguments.
        unsafe { (real::get().epoll_wait)(epfd, events, count, 0) }
    };
    // Events are given once: so only ask whether there are any. (This takes pending signals, too, that `mask`
    // lets through: epoll_pwait does not with a time-out of 0.)
    let mut one = libc::pollfd { fd: epfd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, and the caller's mask.
    let first = match First::of(unsafe { (real::get().ppoll)(&mut one, 1, &until::AT_ONCE, mask) }) {
        // What is wrong with the arguments is said at once.
        First::Nothing => match look(false) {
            0 => First::Nothing,
            result => First::Return(result),
        },
        other => other,
    };
    if let First::Return(result) = first {
        return result;
    }
    let wanted = Wanted {
        count: 1,
        fill: |each: &mut dyn FnMut(c_int, u16)| each(epfd, libc::POLLIN as u16),
        counts: |events| events | (libc::POLLERR | libc::POLLHUP) as u16,
        until: until.tick(),
        // SAFETY: null, or the caller's: the kernel has just read it.
        mask: unsafe { signals::of_set(mask) },
    };
    wait_and_look(env, until, first, wanted, look)
}

/// `int epoll_wait(int epfd, struct epoll_event *events, int maxevents, int timeout);`
///
/// # Safety
/// As epoll_wait(2).
#[cfg_attr(not(target_env = "musl"), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn epoll_wait(
    epfd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
) -> c_int {
    match active_for(Hook::EpollWait) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { epoll_wait_hooked(epfd, events, count, timeout, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().epoll_wait)(epfd, events, count, timeout) },
    }
}

/// # Safety
/// As epoll_wait(2).
#[inline(never)]
unsafe fn epoll_wait_hooked(
    epfd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
    env: &Env,
) -> c_int {
    if timeout == 0 || until::cannot_yield(env) {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().epoll_wait)(epfd, events, count, timeout) };
    }
    // SAFETY: the caller's arguments.
    unsafe { wait_for_events(env, epfd, events, count, until::of_ms(timeout), core::ptr::null()) }
}

/// `int epoll_pwait(int epfd, struct epoll_event *events, int maxevents, int timeout, const sigset_t *sigmask);`
/// `sigmask` counts while the loop sleeps (see `event::interrupt`).
///
/// # Safety
/// As epoll_pwait(2).
#[cfg_attr(not(target_env = "musl"), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn epoll_pwait(
    epfd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    match active_for(Hook::EpollPwait) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { epoll_pwait_hooked(epfd, events, count, timeout, mask, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().epoll_pwait)(epfd, events, count, timeout, mask) },
    }
}

/// # Safety
/// As epoll_pwait(2).
#[inline(never)]
unsafe fn epoll_pwait_hooked(
    epfd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: c_int,
    mask: *const sigset_t,
    env: &Env,
) -> c_int {
    if timeout == 0 || until::cannot_yield(env) {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().epoll_pwait)(epfd, events, count, timeout, mask) };
    }
    // SAFETY: the caller's arguments.
    unsafe { wait_for_events(env, epfd, events, count, until::of_ms(timeout), mask) }
}

/// `int epoll_pwait2(int epfd, struct epoll_event *events, int maxevents, const struct timespec *timeout, const
/// sigset_t *sigmask);`
///
/// # Safety
/// As epoll_pwait2(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn epoll_pwait2(
    epfd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    match active_for(Hook::EpollPwait2) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { epoll_pwait2_hooked(epfd, events, count, timeout, mask, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().epoll_pwait2)(epfd, events, count, timeout, mask) },
    }
}

/// # Safety
/// As epoll_pwait2(2).
#[inline(never)]
unsafe fn epoll_pwait2_hooked(
    epfd: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
    env: &Env,
) -> c_int {
    // SAFETY: null, or the caller's.
    let time = unsafe { timeout.as_ref() }.copied();
    if until::cannot_yield(env) || time.is_some_and(|time| until::returns_at_once(&time)) {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().epoll_pwait2)(epfd, events, count, timeout, mask) };
    }
    // SAFETY: the caller's arguments.
    unsafe { wait_for_events(env, epfd, events, count, time, mask) }
}
