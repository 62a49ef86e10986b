//! A mutex without a guard: it has to be held across fork, so lock and unlock are separate calls.
//!
//! Who forks holds all locks, and then waits for those of the C library: malloc's for one. The thread that has that may be in a
//! signal handler that wants one of ours (close is allowed there), and neither would ever go on. So who finds a lock held
//! for a fork for long goes in without it: one such thread at a time. Should the fork come just then, its child finds
//! what the lock guards half done: it mends its lists (`List::mend`); all else is whole after each step.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::sys::tools::{self, MutexCalls};

/// A process-private mutex. The sections it guards are short and call nothing of the program's.
pub(crate) struct Lock {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// A thread that forks has it.
    for_fork: AtomicBool,
}

// SAFETY: a pthread mutex is made to be shared between threads.
unsafe impl Sync for Lock {}

impl Lock {
    pub(crate) const fn new() -> Self {
        Lock { mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER), for_fork: AtomicBool::new(false) }
    }

    pub(crate) fn lock(&self) {
        // SAFETY: initialised statically, never moved (all Locks are statics).
        unsafe { libc::pthread_mutex_lock(self.mutex.get()) };
    }

    pub(crate) fn unlock(&self) {
        // SAFETY: as in `lock`; called by the thread that locked it.
        unsafe { libc::pthread_mutex_unlock(self.mutex.get()) };
    }

    /// As [`lock`](Self::lock), before a fork.
    pub(crate) fn lock_for_fork(&self, calls: &MutexCalls) {
        // SAFETY: as in `lock`.
        unsafe { (calls.lock)(self.mutex.get()) };
        self.for_fork.store(true, Ordering::Release);
    }

    /// As [`unlock`](Self::unlock), after a fork, in [`after_fork`].
    pub(crate) fn unlock_after_fork(&self, calls: &MutexCalls) {
        self.for_fork.store(false, Ordering::Release);
        // SAFETY: as in `lock`; the child's one thread is that which locked it.
        unsafe { (calls.unlock)(self.mutex.get()) };
    }

    /// As [`lock`](Self::lock). True: without the lock, which is held for a fork; `leave` follows then.
    fn lock_or_intrude(&self) -> bool {
        // SAFETY: as in `lock`.
        if unsafe { libc::pthread_mutex_trylock(self.mutex.get()) } == 0 {
            return false;
        }
        loop {
            if !(intruders::have_come() && self.is_for_fork()) && self.lock_soon() {
                return false;
            }
            if self.is_for_fork() {
                intruders::enter();
                if self.is_for_fork() {
                    return true;
                }
                intruders::leave();
            }
        }
    }

    fn is_for_fork(&self) -> bool {
        self.for_fork.load(Ordering::Acquire)
    }

    /// As [`lock`](Self::lock), but not for long; false if it was not to be had.
    fn lock_soon(&self) -> bool {
        let until = time_after(PATIENCE);
        // SAFETY: as in `lock`; the time is ours.
        unsafe { libc::pthread_mutex_timedlock(self.mutex.get(), &until) == 0 }
    }

    /// Runs `section` with the lock held. `section` neither panics nor switches, and takes no lock of the C library's but in
    /// a lock that no handler wants: malloc's holder may be a handler that waits here.
    ///
    /// Signals are blocked meanwhile, whether handlers want this lock (for close, co_cond_signal) or not: one that came would
    /// wait for a lock whose holder may wait for this one.
    #[inline]
    pub(crate) fn with<R>(&self, section: impl FnOnce() -> R) -> R {
        with_signals_blocked(|| {
            let intrudes = self.lock_or_intrude();
            let result = section();
            if intrudes {
                intruders::leave()
            } else {
                self.unlock()
            }
            result
        })
    }
}

/// Who goes into locks that are held for a fork: one thread at a time, into one lock inside another perhaps.
mod intruders {
    use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

    use super::Lock;
    use crate::sys::thread;

    pub(super) static LOCK: Lock = Lock::new();
    /// The thread that is inside; 0: none.
    static WHO: AtomicI32 = AtomicI32::new(0);
    /// In how many locks it is.
    static DEPTH: AtomicU32 = AtomicU32::new(0);
    /// Somebody had to, for the fork that is under way: others need not wait as long to find that out. (Handlers that take long
    /// could otherwise follow each other without end, and who they interrupt never get out of malloc.)
    static HAVE_COME: AtomicBool = AtomicBool::new(false);

    pub(super) fn have_come() -> bool {
        HAVE_COME.load(Ordering::Relaxed)
    }

    /// The fork is over.
    pub(super) fn none_any_more() {
        HAVE_COME.store(false, Ordering::Relaxed);
    }

    pub(super) fn enter() {
        if WHO.load(Ordering::Relaxed) != thread::number() {
            LOCK.lock();
            WHO.store(thread::number(), Ordering::Relaxed);
        }
        DEPTH.store(DEPTH.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        HAVE_COME.store(true, Ordering::Relaxed);
    }

    pub(super) fn leave() {
        let depth = DEPTH.load(Ordering::Relaxed) - 1;
        DEPTH.store(depth, Ordering::Relaxed);
        if depth == 0 {
            WHO.store(0, Ordering::Relaxed);
            LOCK.unlock();
        }
    }

    /// In a child of fork, in which no such thread is.
    pub(super) fn forget() {
        WHO.store(0, Ordering::Relaxed);
        DEPTH.store(0, Ordering::Relaxed);
        // SAFETY: the child has one thread, which does not have it.
        unsafe { LOCK.mutex.get().write(libc::PTHREAD_MUTEX_INITIALIZER) };
        none_any_more();
    }
}

/// How long a wait for a lock lasts before it looks up: longer than a fork should take.
const PATIENCE: u64 = 10_000_000;

/// The time in so many nanoseconds, by the clock that timed locks and statically made conditions go by. (A jump of it ends a
/// wait early or late, no more.)
fn time_after(nanos: u64) -> libc::timespec {
    const SECOND: u64 = 1_000_000_000;
    let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut until) };
    let sum = until.tv_nsec as u64 + nanos;
    until.tv_sec += (sum / SECOND) as i64;
    until.tv_nsec = (sum % SECOND) as libc::c_long;
    until
}

/// Runs `unlock`, which takes back what [`Lock::lock_for_fork`] did, while nobody is in without a lock.
pub(crate) fn after_fork(in_child: bool, calls: &MutexCalls, unlock: impl FnOnce()) {
    if in_child {
        intruders::forget();
        return unlock();
    }
    let lock = intruders::LOCK.mutex.get();
    // SAFETY: as in `Lock::lock`.
    unsafe { (calls.lock)(lock) };
    unlock();
    intruders::none_any_more();
    // SAFETY: locked above.
    unsafe { (calls.unlock)(lock) };
}

/// Blocks all signals in this thread; what it blocked before is written to `old`.
///
/// # Safety
/// `old` may be written.
pub(crate) unsafe fn block_signals(old: *mut libc::sigset_t) {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: initialises our own set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: `all` was filled above; the caller vouches for `old`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old) };
}

/// Takes back what [`block_signals`] did.
///
/// # Safety
/// `old` is what that call wrote.
pub(crate) unsafe fn restore_signals(old: *const libc::sigset_t) {
    // SAFETY: as the caller vouches.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old, null_mut()) };
}

/// Runs `section` with all signals blocked in this thread (two system calls).
pub(crate) fn with_signals_blocked<R>(section: impl FnOnce() -> R) -> R {
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: our own set.
    unsafe { block_signals(old.as_mut_ptr()) };
    let result = section();
    // SAFETY: written above.
    unsafe { restore_signals(old.as_ptr()) };
    result
}

/// A condition variable that goes with a [`Lock`].
pub(crate) struct Signal(UnsafeCell<libc::pthread_cond_t>);

// SAFETY: a pthread condition is made to be shared between threads.
unsafe impl Sync for Signal {}

impl Signal {
    pub(crate) const fn new() -> Self {
        Signal(UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER))
    }

    pub(crate) fn raise_one(&self) {
        // SAFETY: initialised statically, never moved.
        unsafe { libc::pthread_cond_signal(self.0.get()) };
    }

    /// Waits at most so many nanoseconds, with `lock` released meanwhile; false if the time was over.
    pub(crate) fn wait(&self, lock: &Lock, nanos: u64) -> bool {
        let until = time_after(nanos);
        // SAFETY: the caller holds the lock.
        unsafe { libc::pthread_cond_timedwait(self.0.get(), lock.mutex.get(), &until) == 0 }
    }

    /// Forgets waiters that no longer exist (in a child of fork).
    pub(crate) fn renew(&self) {
        tools::begins_anew(self.0.get());
        // SAFETY: the child has one thread, which does not wait here.
        unsafe { self.0.get().write(libc::PTHREAD_COND_INITIALIZER) };
    }
}
