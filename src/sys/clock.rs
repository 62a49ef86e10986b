//! CLOCK_MONOTONIC. No hook and no change of the wall clock moves it.

/// A point in time, nanoseconds since an unspecified start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Nanos(pub(crate) u64);

/// Milliseconds, as the API counts time-outs.
pub(crate) const NANOS_PER_MS: u64 = 1_000_000;

impl Nanos {
    /// Now (about 23 ns: the vDSO).
    #[inline]
    pub(crate) fn now() -> Self {
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
}
