//! A mutex without a guard: it has to be held across fork, so lock and unlock are separate calls.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::null_mut;

use crate::sys::tools::MutexCalls;

/// A process-private mutex. The sections it guards are short and call nothing of the program's.
pub(crate) struct Lock {
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    /// A signal handler may want it too: `with` keeps handlers away from the thread that has it.
    from_handlers: bool,
}

// SAFETY: a pthread mutex is made to be shared between threads.
unsafe impl Sync for Lock {}

impl Lock {
    pub(crate) const fn new() -> Self {
        Lock { mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER), from_handlers: false }
    }

    /// A lock that calls take which a signal handler may make: close, co_cond_signal.
    pub(crate) const fn for_handlers_too() -> Self {
        Lock { mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER), from_handlers: true }
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
    }

    /// As [`unlock`](Self::unlock), after a fork.
    pub(crate) fn unlock_after_fork(&self, calls: &MutexCalls) {
        // SAFETY: as in `unlock`; the child's one thread is that which locked it.
        unsafe { (calls.unlock)(self.mutex.get()) };
    }

    /// Runs `section` with the lock held. `section` neither panics nor switches.
    #[inline]
    pub(crate) fn with<R>(&self, section: impl FnOnce() -> R) -> R {
        let locked = || {
            self.lock();
            let result = section();
            self.unlock();
            result
        };
        if self.from_handlers { with_signals_blocked(locked) } else { locked() }
    }
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

    /// Waits at most `seconds`, with `lock` released meanwhile; false if the time was over.
    pub(crate) fn wait(&self, lock: &Lock, seconds: libc::time_t) -> bool {
        let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes the timespec. (Statically made conditions count by this clock; a jump of it
        // makes a helper end early or late, no more.)
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut until) };
        until.tv_sec += seconds;
        // SAFETY: the caller holds the lock.
        unsafe { libc::pthread_cond_timedwait(self.0.get(), lock.mutex.get(), &until) == 0 }
    }

    /// Forgets waiters that no longer exist (in a child of fork).
    pub(crate) fn renew(&self) {
        // SAFETY: the child has one thread, which does not wait here.
        unsafe { self.0.get().write(libc::PTHREAD_COND_INITIALIZER) };
    }
}
