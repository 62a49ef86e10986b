//! Calls that wait for the time alone: sleep, usleep, nanosleep, clock_nanosleep, thrd_sleep.
//!
//! They last at least as long as asked, to the next millisecond of the loop's clock. A signal handler that runs
//! while the loop sleeps ends them all, as it ends a call that blocks the thread; so does who resumes the
//! coroutine by hand.

use core::ffi::{c_int, c_uint};

use libc::{clockid_t, timespec, useconds_t};

use super::choice::{Hook, active_for};
use super::until::{self, Until};
use super::{real, same_signature};
use crate::event;
use crate::routine::Env;
use crate::routine::coroutine::Outcome;
use crate::sys::clock::{self, Nanos};
use crate::sys::errno::Errno;

same_signature!(sleep: fn(c_uint) -> c_uint);
same_signature!(usleep: fn(useconds_t) -> c_int);
same_signature!(nanosleep: fn(*const timespec, *mut timespec) -> c_int);
same_signature!(clock_nanosleep: fn(clockid_t, c_int, *const timespec, *mut timespec) -> c_int);

/// Sleeps for `time`, which is valid. `Err`: what is left of it. `None`: this coroutine cannot sleep without
/// stopping the thread. errno stays as it was.
fn sleep_for(env: &Env, time: timespec) -> Option<Result<(), timespec>> {
    if until::cannot_yield(env) {
        return None;
    }
    let errno = Errno::last();
    let until = Until::after(Some(time));
    let reactor = env.reactor().ok()?;
    let slept = loop {
        let outcome = event::sleep(env, reactor, until.tick(), None);
        if until.is_over() {
            break Ok(());
        }
        if outcome != Outcome::TimedOut {
            break Err(until.left());
        }
    };
    errno.set();
    Some(slept)
}

/// `unsigned int sleep(unsigned int seconds);`
///
/// # Safety
/// As sleep(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sleep(seconds: c_uint) -> c_uint {
    match active_for(Hook::Sleep) {
        Some(env) => sleep_hooked(seconds, env),
        // SAFETY: no pointers.
        None => unsafe { (real::get().sleep)(seconds) },
    }
}

#[inline(never)]
fn sleep_hooked(seconds: c_uint, env: &Env) -> c_uint {
    let time = timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    match (seconds != 0).then(|| sleep_for(env, time)).flatten() {
        // SAFETY: no pointers.
        None => unsafe { (real::get().sleep)(seconds) },
        Some(Ok(())) => 0,
        Some(Err(left)) => {
            Errno(libc::EINTR).set();
            left.tv_sec as c_uint
        }
    }
}

/// `int usleep(useconds_t usec);`
///
/// # Safety
/// As usleep(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn usleep(micros: useconds_t) -> c_int {
    match active_for(Hook::Usleep) {
        Some(env) => usleep_hooked(micros, env),
        // SAFETY: no pointers.
        None => unsafe { (real::get().usleep)(micros) },
    }
}

#[inline(never)]
fn usleep_hooked(micros: useconds_t, env: &Env) -> c_int {
    let time =
        timespec { tv_sec: (micros / 1_000_000).into(), tv_nsec: i64::from(micros % 1_000_000) * 1000 };
    match (micros != 0).then(|| sleep_for(env, time)).flatten() {
        // SAFETY: no pointers.
        None => unsafe { (real::get().usleep)(micros) },
        Some(Ok(())) => 0,
        Some(Err(_)) => {
            Errno(libc::EINTR).set();
            -1
        }
    }
}

/// `int nanosleep(const struct timespec *rqtp, struct timespec *rmtp);`
///
/// # Safety
/// As nanosleep(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn nanosleep(wish: *const timespec, rest: *mut timespec) -> c_int {
    match active_for(Hook::Nanosleep) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { nanosleep_hooked(wish, rest, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().nanosleep)(wish, rest) },
    }
}

/// # Safety
/// As nanosleep(2).
#[inline(never)]
unsafe fn nanosleep_hooked(wish: *const timespec, rest: *mut timespec, env: &Env) -> c_int {
    // SAFETY: the caller's arguments.
    match unsafe { sleep_relative(wish, rest, env) } {
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().nanosleep)(wish, rest) },
        Some(0) => 0,
        Some(error) => {
            Errno(error).set();
            -1
        }
    }
}

/// Sleeps for `*wish`: 0, or `EINTR` and `*rest`. `None`: the plain call shall do it.
///
/// # Safety
/// Both are null or a time.
unsafe fn sleep_relative(wish: *const timespec, rest: *mut timespec, env: &Env) -> Option<c_int> {
    // SAFETY: as the caller vouches.
    let time = *unsafe { wish.as_ref() }.filter(|time| !until::returns_at_once(time))?;
    let Err(left) = sleep_for(env, time)? else { return Some(0) };
    // SAFETY: as the caller vouches.
    if let Some(rest) = unsafe { rest.as_mut() } {
        *rest = left;
    }
    Some(libc::EINTR)
}

/// `int clock_nanosleep(clockid_t clockid, int flags, const struct timespec *t, struct timespec *remain);` By a
/// clock that can be set, or that goes on while the machine is suspended, a jump is noticed within a second.
///
/// # Safety
/// As clock_nanosleep(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    wish: *const timespec,
    rest: *mut timespec,
) -> c_int {
    match active_for(Hook::ClockNanosleep) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { clock_nanosleep_hooked(clock, flags, wish, rest, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().clock_nanosleep)(clock, flags, wish, rest) },
    }
}

/// # Safety
/// As clock_nanosleep(2).
#[inline(never)]
unsafe fn clock_nanosleep_hooked(
    clock: clockid_t,
    flags: c_int,
    wish: *const timespec,
    rest: *mut timespec,
    env: &Env,
) -> c_int {
    let slept = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME | libc::CLOCK_TAI => {
            if flags & libc::TIMER_ABSTIME != 0 {
                // SAFETY: the caller's argument.
                sleep_until(clock, unsafe { wish.as_ref() }, env)
            } else {
                // SAFETY: the caller's arguments.
                unsafe { sleep_relative(wish, rest, env) }
            }
        }
        _ => None,
    };
    // SAFETY: the caller's arguments.
    slept.unwrap_or_else(|| unsafe { (real::get().clock_nanosleep)(clock, flags, wish, rest) })
}

/// A clock that may jump is looked at so often, in ticks.
const LOOK_AGAIN: u64 = 1000;

/// Sleeps until the clock says `time`: 0, or `EINTR`. `None`: the plain call shall do it.
fn sleep_until(clock: clockid_t, time: Option<&timespec>, env: &Env) -> Option<c_int> {
    let time = *time.filter(|time| !until::returns_at_once(time))?;
    let mut left = clock::until(clock, &time)?;
    if until::cannot_yield(env) {
        return None;
    }
    let errno = Errno::last();
    let reactor = env.reactor().ok()?;
    loop {
        let now = Nanos::now();
        let mut tick = now.after(left);
        if clock != libc::CLOCK_MONOTONIC {
            tick = tick.min(now.tick() + LOOK_AGAIN);
        }
        let outcome = event::sleep(env, reactor, Some(tick), None);
        let Some(more) = clock::until(clock, &time) else {
            errno.set();
            return Some(0);
        };
        if outcome != Outcome::TimedOut {
            errno.set();
            return Some(libc::EINTR);
        }
        left = more;
    }
}

/// `int thrd_sleep(const struct timespec *duration, struct timespec *remaining);` -1 if it was interrupted, another
/// negative number for any other error.
///
/// # Safety
/// As thrd_sleep(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn thrd_sleep(wish: *const timespec, rest: *mut timespec) -> c_int {
    match active_for(Hook::ThrdSleep) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { thrd_sleep_hooked(wish, rest, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().thrd_sleep)(wish, rest) },
    }
}

/// # Safety
/// As thrd_sleep(3).
#[inline(never)]
unsafe fn thrd_sleep_hooked(wish: *const timespec, rest: *mut timespec, env: &Env) -> c_int {
    // SAFETY: the caller's arguments.
    match unsafe { sleep_relative(wish, rest, env) } {
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().thrd_sleep)(wish, rest) },
        Some(0) => 0,
        Some(_) => -1,
    }
}

/// `nanosleep` under another of libc's names.
///
/// # Safety
/// As nanosleep(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __nanosleep(wish: *const timespec, rest: *mut timespec) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { nanosleep(wish, rest) }
}

/// `clock_nanosleep` under another of libc's names.
///
/// # Safety
/// As clock_nanosleep(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    wish: *const timespec,
    rest: *mut timespec,
) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { clock_nanosleep(clock, flags, wish, rest) }
}
