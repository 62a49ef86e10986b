//! What a loop counts, for `routine::stats`.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::event::loops;
use crate::event::offload;
use crate::event::reactor::Reactor;
use crate::routine::Env;
use crate::sys::epoll;
use crate::sys::errno::Errno;
use crate::util::count::Count;

/// One loop's. All-zero bytes: nothing yet.
#[repr(C)]
pub(crate) struct LoopCounts {
    pub(super) waits: Count,
    pub(super) wakes: Count,
    pub(super) timeouts: Count,
    pub(super) epoll_waits: Count,
    epoll_ctls: Count,
    /// By calls that other threads make, too.
    epoll_ctls_anywhere: AtomicU64,
}

/// The sum of some loops' counts. `timers` and `jobs` are how many there are just now.
#[derive(Clone, Copy, Default)]
pub(crate) struct LoopStats {
    pub(crate) waits: u64,
    pub(crate) wakes: u64,
    pub(crate) timeouts: u64,
    pub(crate) epoll_waits: u64,
    pub(crate) epoll_ctls: u64,
    pub(crate) timers: u64,
    pub(crate) jobs: u64,
}

impl LoopStats {
    pub(crate) fn add(&mut self, more: &LoopStats) {
        self.waits += more.waits;
        self.wakes += more.wakes;
        self.timeouts += more.timeouts;
        self.epoll_waits += more.epoll_waits;
        self.epoll_ctls += more.epoll_ctls;
        self.timers += more.timers;
        self.jobs += more.jobs;
    }

    /// What the loops have done, without what they have just now.
    fn done(self) -> LoopStats {
        LoopStats { timers: 0, jobs: 0, ..self }
    }
}

impl Reactor {
    /// epoll_ctl on this loop's set, by its own thread.
    pub(super) fn ctl(&self, epfd: i32, op: i32, fd: i32, events: u32, data: u64) -> Result<(), Errno> {
        self.counts.epoll_ctls.bump();
        epoll::ctl(epfd, op, fd, events, data)
    }

    /// As [`ctl`](Self::ctl), by any thread.
    pub(super) fn ctl_anywhere(
        &self,
        epfd: i32,
        op: i32,
        fd: i32,
        events: u32,
        data: u64,
    ) -> Result<(), Errno> {
        self.counts.epoll_ctls_anywhere.fetch_add(1, Ordering::Relaxed);
        epoll::ctl(epfd, op, fd, events, data)
    }

    fn stats(&self) -> LoopStats {
        let counts = &self.counts;
        LoopStats {
            waits: counts.waits.get(),
            wakes: counts.wakes.get(),
            timeouts: counts.timeouts.get(),
            epoll_waits: counts.epoll_waits.get(),
            epoll_ctls: counts.epoll_ctls.get() + counts.epoll_ctls_anywhere.load(Ordering::Relaxed),
            timers: self.wheel.timers(),
            jobs: offload::count(&self.jobs),
        }
    }

    /// What it has done, when it goes.
    pub(crate) fn past(&self) -> LoopStats {
        self.stats().done()
    }
}

/// Of the loops that serve `env`, or of all.
pub(crate) fn loop_stats(env: Option<&Env>) -> LoopStats {
    let mut sum = LoopStats::default();
    loops::each_loop(|reactor| {
        if env.is_none_or(|env| reactor.serves(env)) {
            sum.add(&reactor.stats());
        }
    });
    sum
}
