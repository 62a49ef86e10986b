//! CLOCK_MONOTONIC, which no hook and no change of the wall clock moves; and how far off a time of another clock
//! is.

/// A point in time, nanoseconds since an unspecified start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Nanos(pub(crate) u64);

/// Milliseconds, as the API counts time-outs.
pub(crate) const NANOS_PER_MS: u64 = 1_000_000;

impl Nanos {
    /// Now (about 23 ns: the vDSO).
    #[inline]
    pub(crate) fn now() -> Self {
        #[cfg(any(test, fuzzing))]
        if let Some(now) = stopped::at() {
            return now;
        }
        let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes the timespec; CLOCK_MONOTONIC always exists.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
        Nanos(ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64)
    }

    /// The last whole millisecond: a deadline in ticks is due when this reaches it.
    #[inline]
    pub(crate) fn tick(self) -> u64 {
        self.0 / NANOS_PER_MS
    }

    /// The first tick that is at least `ms` milliseconds away: never early, at most 1 ms late.
    #[inline]
    pub(crate) fn tick_after(self, ms: u64) -> u64 {
        (self.0 + ms * NANOS_PER_MS).div_ceil(NANOS_PER_MS)
    }

    /// As [`tick_after`](Self::tick_after), in nanoseconds.
    pub(crate) fn after(self, nanos: u64) -> u64 {
        self.0.saturating_add(nanos).div_ceil(NANOS_PER_MS)
    }
}

/// Nanoseconds until the clock says `time`, as far as they go; `None` if it has said so.
pub(crate) fn until(clock: libc::clockid_t, time: &libc::timespec) -> Option<u64> {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec. (A clock that is not there says 0: the plain call knows what that means.)
    unsafe { libc::clock_gettime(clock, &mut now) };
    let sec = time.tv_sec.checked_sub(now.tv_sec)?;
    let nanos = i128::from(sec) * 1_000_000_000 + i128::from(time.tv_nsec - now.tv_nsec);
    if nanos <= 0 { None } else { Some(u64::try_from(nanos).unwrap_or(u64::MAX)) }
}

/// A clock that stands still for the calling thread and goes on when a test says so.
#[cfg(any(test, fuzzing))]
pub(crate) mod stopped {
    use super::{NANOS_PER_MS, Nanos};
    use std::cell::Cell;

    std::thread_local! {
        static AT: Cell<Option<Nanos>> = const { Cell::new(None) };
    }

    pub(super) fn at() -> Option<Nanos> {
        AT.get()
    }

    /// From now on it says `tick`.
    pub(crate) fn set(tick: u64) {
        AT.set(Some(Nanos(tick * NANOS_PER_MS)));
    }
}
