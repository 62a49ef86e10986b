//! A mutex without a guard: it has to be held across fork, so lock and unlock are separate calls.

use core::cell::UnsafeCell;

/// A process-private mutex. The sections it guards are short and call nothing of the program's.
pub(crate) struct Lock(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a pthread mutex is made to be shared between threads.
unsafe impl Sync for Lock {}

impl Lock {
    pub(crate) const fn new() -> Self {
        Lock(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER))
    }

    pub(crate) fn lock(&self) {
        // SAFETY: initialised statically, never moved (all Locks are statics).
        unsafe { libc::pthread_mutex_lock(self.0.get()) };
    }

    pub(crate) fn unlock(&self) {
        // SAFETY: as in `lock`; called by the thread that locked it.
        unsafe { libc::pthread_mutex_unlock(self.0.get()) };
    }

    /// Runs `section` with the lock held. `section` neither panics nor switches.
    #[inline]
    pub(crate) fn with<R>(&self, section: impl FnOnce() -> R) -> R {
        self.lock();
        let result = section();
        self.unlock();
        result
    }
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
        unsafe { libc::pthread_cond_timedwait(self.0.get(), lock.0.get(), &until) == 0 }
    }

    /// Forgets waiters that no longer exist (in a child of fork).
    pub(crate) fn renew(&self) {
        // SAFETY: the child has one thread, which does not wait here.
        unsafe { self.0.get().write(libc::PTHREAD_COND_INITIALIZER) };
    }
}
