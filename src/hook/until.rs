//! How long a call may wait, to the nanosecond, and the way of the calls that report on descriptors.

use core::ffi::c_int;

use libc::{timespec, timeval};

use crate::event::{self, Wanted};
use crate::routine::Env;
use crate::routine::coroutine::Outcome;
use crate::sys::clock::{NANOS_PER_MS, Nanos};
use crate::sys::errno::Errno;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The end of a wait that begins now.
#[derive(Clone, Copy)]
pub(super) struct Until {
    start: Nanos,
    /// `None`: for ever.
    wish: Option<timespec>,
}

/// Whether the kernel takes it as a time.
fn is_valid(time: &timespec) -> bool {
    time.tv_sec >= 0 && (0..NANOS_PER_SECOND as i64).contains(&time.tv_nsec)
}

/// A time-out in milliseconds; negative: none.
pub(super) fn of_ms(ms: c_int) -> Option<timespec> {
    (ms >= 0).then(|| timespec { tv_sec: (ms / 1000).into(), tv_nsec: i64::from(ms % 1000) * 1_000_000 })
}

/// Whether a call has to be the plain one: where nobody can wait, or in a signal handler that interrupts the
/// library.
pub(super) fn cannot_yield(env: &Env) -> bool {
    env.waits_plainly() || env.is_busy()
}

/// select's time, whose microseconds may be more than a second; not valid if that is not.
pub(super) fn of_timeval(time: &timeval) -> timespec {
    let nanos = if time.tv_usec < 0 { -1 } else { time.tv_usec % 1_000_000 * 1000 };
    timespec { tv_sec: time.tv_sec.saturating_add(time.tv_usec / 1_000_000), tv_nsec: nanos }
}

/// A look that does not wait.
pub(super) const AT_ONCE: timespec = timespec { tv_sec: 0, tv_nsec: 0 };

/// A time-out with which the plain call does not wait either: zero, or one that it refuses.
pub(super) fn returns_at_once(time: &timespec) -> bool {
    !is_valid(time) || (time.tv_sec == 0 && time.tv_nsec == 0)
}

impl Until {
    /// `wish` is valid.
    pub(super) fn after(wish: Option<timespec>) -> Self {
        Until { start: Nanos::now(), wish }
    }

    /// In nanoseconds, as far as they go (five centuries).
    fn end(&self) -> Option<u64> {
        let wish = self.wish?;
        let length =
            (wish.tv_sec as u64).saturating_mul(NANOS_PER_SECOND).saturating_add(wish.tv_nsec as u64);
        Some(self.start.0.saturating_add(length))
    }

    /// The first tick that is not too early.
    pub(super) fn tick(&self) -> Option<u64> {
        self.end().map(|end| end.div_ceil(NANOS_PER_MS))
    }

    pub(super) fn is_over(&self) -> bool {
        self.end().is_some_and(|end| Nanos::now().0 >= end)
    }

    /// What is left of it, 0 if it is over.
    pub(super) fn left(&self) -> timespec {
        let wish = self.wish.unwrap_or(timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let passed = Nanos::now().0 - self.start.0;
        let mut sec = wish.tv_sec - (passed / NANOS_PER_SECOND) as i64;
        let mut nsec = wish.tv_nsec - (passed % NANOS_PER_SECOND) as i64;
        if nsec < 0 {
            sec -= 1;
            nsec += NANOS_PER_SECOND as i64;
        }
        if sec < 0 { timespec { tv_sec: 0, tv_nsec: 0 } } else { timespec { tv_sec: sec, tv_nsec: nsec } }
    }
}

/// What a first look at the descriptors found.
pub(super) enum First {
    /// An error, or results that the kernel will not give twice.
    Return(c_int),
    /// Something to report, still there when it is asked for again.
    Ready,
    Nothing,
}

impl First {
    /// Of a call's result.
    pub(super) fn of(result: c_int) -> First {
        match result {
            0 => First::Nothing,
            1.. => First::Ready,
            _ => First::Return(result),
        }
    }
}

/// Waits as a blocking call would, with the others running meanwhile. `look` asks the kernel, without waiting,
/// and puts the results where the program wants them; with `true` also if there are none.
pub(super) fn wait_and_look(
    env: &Env,
    until: Until,
    first: First,
    wanted: Wanted<impl FnOnce(&mut dyn FnMut(c_int, u16))>,
    mut look: impl FnMut(bool) -> c_int,
) -> c_int {
    let errno = Errno::last();
    let answer = match first {
        First::Return(result) => return result,
        First::Ready => match env.reactor() {
            Ok(reactor) => {
                event::through_the_loop(env, reactor);
                let over = until.is_over();
                Ok((look(over), over))
            }
            Err(error) => Err(error),
        },
        First::Nothing => Ok((0, false)),
    };
    let answer = answer.and_then(|(found, over)| {
        if found != 0 || over {
            return Ok(found);
        }
        event::wait_for_any(env, env.reactor()?, wanted, |outcome| {
            let over = until.is_over();
            let found = look(over);
            if found == 0 && !over && matches!(outcome, Outcome::TimedOut | Outcome::Woken) {
                return None;
            }
            if found == 0 && !over {
                Errno(libc::EINTR).set();
                return Some(-1);
            }
            Some(found)
        })
    });
    match answer {
        Ok(-1) => -1,
        Ok(found) => {
            errno.set();
            found
        }
        Err(error) => {
            error.set();
            -1
        }
    }
}
