//! What is counted: of a thread, and of all. Nothing here is on anybody's way: the counts lie where things happen
//! (`Env`, the loop), each written by its own thread alone, and are put together when somebody asks.
//!
//! | count | of a thread |
//! |---|---|
//! | created | made by its co_create: `made` less those it adopted, and those that others made for it |
//! | live | `made` less `freed`, less those that others freed or adopted |
//! | stacks | taken for its coroutines, and not given back, less what lies with parked ones |
//!
//! A thread that ends leaves its counts to `Past`, and what it still has (coroutines that nobody has released) is asked
//! of its environment as before.

use core::cell::Cell;
use core::sync::atomic::{AtomicIsize, Ordering};

use crate::event::{self, LoopStats};
use crate::routine::env::{self, Env};
use crate::routine::stack;
use crate::util::count::Count;

/// All that can be asked.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stats {
    pub(crate) threads: u64,
    pub(crate) created: u64,
    pub(crate) live: u64,
    pub(crate) stacks: u64,
    pub(crate) stack_bytes: u64,
    pub(crate) pooled: u64,
    pub(crate) pooled_bytes: u64,
    pub(crate) switches: u64,
    pub(crate) copied_bytes: u64,
    pub(crate) loops: LoopStats,
}

impl Stats {
    fn add(&mut self, more: &Stats) {
        self.threads += more.threads;
        self.created += more.created;
        self.live += more.live;
        self.stacks += more.stacks;
        self.stack_bytes += more.stack_bytes;
        self.pooled += more.pooled;
        self.pooled_bytes += more.pooled_bytes;
        self.switches += more.switches;
        self.copied_bytes += more.copied_bytes;
        self.loops.add(&more.loops);
    }
}

/// What a thread counts of its coroutines. All-zero bytes: nothing yet.
#[repr(C)]
pub(crate) struct Counts {
    /// Coroutines that became this thread's, by co_create or by adoption, and those it released.
    pub(super) made: Count,
    pub(super) freed: Count,
    /// Of those made: adopted; and made for it by other threads, which are not in `made`.
    pub(super) adopted: Count,
    pub(super) made_elsewhere: Count,
    pub(super) held: Held,
    pub(super) copied_bytes: Count,
    /// Switches by co_swap.
    pub(super) swaps: Count,
}

impl Counts {
    /// How many coroutines it has, as far as the thread itself knows.
    pub(super) fn kept(&self) -> u64 {
        self.made.get().wrapping_sub(self.freed.get())
    }

    fn created(&self) -> u64 {
        self.made.get().wrapping_sub(self.adopted.get()).wrapping_add(self.made_elsewhere.get())
    }
}

/// Private stacks that a thread has taken and not given back.
#[repr(C)]
pub(crate) struct Held {
    stacks: Count,
    bytes: Count,
    /// Of these, what other threads took away (negative: brought). Under the lock of environments.
    stacks_elsewhere: AtomicIsize,
    bytes_elsewhere: AtomicIsize,
}

impl Held {
    /// A stack of `bytes`; 0: none.
    #[inline(always)]
    pub(super) fn take(&self, bytes: usize) {
        self.stacks.add(u64::from(bytes != 0));
        self.bytes.add(bytes as u64);
    }

    #[inline(always)]
    pub(super) fn drop(&self, bytes: usize) {
        self.stacks.sub(u64::from(bytes != 0));
        self.bytes.sub(bytes as u64);
    }

    /// As `drop`, by another thread.
    pub(super) fn drop_elsewhere(&self, bytes: usize) {
        self.stacks_elsewhere.fetch_add(isize::from(bytes != 0), Ordering::Relaxed);
        self.bytes_elsewhere.fetch_add(bytes as isize, Ordering::Relaxed);
    }

    /// As `take`, by another thread.
    pub(super) fn take_elsewhere(&self, bytes: usize) {
        self.stacks_elsewhere.fetch_sub(isize::from(bytes != 0), Ordering::Relaxed);
        self.bytes_elsewhere.fetch_sub(bytes as isize, Ordering::Relaxed);
    }

    fn stacks(&self) -> u64 {
        self.stacks.get().wrapping_add_signed(-self.stacks_elsewhere.load(Ordering::Relaxed) as i64)
    }

    fn bytes(&self) -> u64 {
        self.bytes.get().wrapping_add_signed(-self.bytes_elsewhere.load(Ordering::Relaxed) as i64)
    }
}

/// What threads have done that have ended. Under the lock of environments.
pub(super) struct Past(Cell<Stats>);

impl Past {
    pub(super) const fn new() -> Self {
        let loops =
            LoopStats { waits: 0, wakes: 0, timeouts: 0, epoll_waits: 0, epoll_ctls: 0, timers: 0, jobs: 0 };
        Past(Cell::new(Stats {
            threads: 0,
            created: 0,
            live: 0,
            stacks: 0,
            stack_bytes: 0,
            pooled: 0,
            pooled_bytes: 0,
            switches: 0,
            copied_bytes: 0,
            loops,
        }))
    }

    /// The environment's thread has ended.
    pub(super) fn keep(&self, env: &Env) {
        let mut past = self.0.get();
        past.add(&done(env));
        self.0.set(past);
    }
}

/// What a thread has done.
fn done(env: &Env) -> Stats {
    Stats {
        created: env.counts.created(),
        switches: env.switches(),
        copied_bytes: env.counts.copied_bytes.get(),
        loops: env.past_loops(),
        ..Stats::default()
    }
}

/// What it has.
fn has(env: &Env) -> Stats {
    let (parked, parked_bytes) = env.parked.stacks();
    Stats {
        live: env.live(),
        stacks: env.counts.held.stacks().saturating_sub(parked),
        stack_bytes: env.counts.held.bytes().saturating_sub(parked_bytes),
        ..Stats::default()
    }
}

/// Of the calling thread; all zero if it has never used coroutines.
pub(crate) fn of_this_thread() -> Stats {
    let Some(env) = env::current() else { return Stats::default() };
    let mut stats = Stats { threads: 1, ..Stats::default() };
    env::locked(|| {
        stats.add(&done(env));
        stats.add(&has(env));
        stats.loops.add(&event::loop_stats(Some(env)));
    });
    for (stacks, bytes) in [env.parked.stacks(), env.stacks.stacks()] {
        stats.pooled += stacks;
        stats.pooled_bytes += bytes;
    }
    stats
}

/// Of all threads, those that have ended too.
pub(crate) fn of_all() -> Stats {
    let mut stats = Stats::default();
    let mut services = 0;
    env::locked(|| {
        stats.add(&env::past().0.get());
        env::each(|env, alive| {
            services += u64::from(env.has_service());
            if alive {
                stats.threads += 1;
                stats.add(&done(env));
            }
            stats.add(&has(env));
        });
        stats.loops.add(&event::loop_stats(None));
    });
    // (Others go on meanwhile: what is in use and what was made need not be of the same moment.)
    let (made, made_bytes) = stack::made();
    stats.pooled = made.saturating_sub(stats.stacks + services);
    stats.pooled_bytes =
        made_bytes.saturating_sub(stats.stack_bytes + services * env::service_bytes() as u64);
    stats
}
