//! What clsCoMutex keeps behind its first member: a mutex between coroutines of one thread.
//!
//! Fair: who waits longest gets it, handed over by the one that unlocks. A waiter that is released or reset
//! before it ran hands it on. The main coroutine cannot wait in a queue: it runs its loop, and is handed
//! the mutex when those that came before it have had it.

use core::cell::Cell;
use core::mem::offset_of;
use core::ptr::{NonNull, null_mut};

use crate::event;
use crate::routine::cond::{self, Cond};
use crate::routine::coroutine::{Co, Outcome};
use crate::routine::env;
use crate::sys::heap::{self, Zeroed};
use crate::sys::log::{error, misuse};

/// All-zero bytes are an unlocked mutex.
#[repr(C)]
pub(crate) struct Mutex {
    cond: Cond,
    /// Somebody has it, or it was handed to a waiter that has not run yet.
    locked: Cell<bool>,
    /// The main coroutine waits.
    main_waits: Cell<bool>,
    /// It was handed to the main coroutine.
    main_has_it: Cell<bool>,
    /// How many go before the main coroutine.
    before_main: Cell<u32>,
}

// SAFETY: unlocked, no waiters.
unsafe impl Zeroed for Mutex {}

const _: () = assert!(offset_of!(Mutex, cond) == 0);

/// A new, unlocked mutex.
pub(crate) fn new() -> Option<NonNull<Mutex>> {
    heap::alloc()
}

impl Mutex {
    /// Waits until the mutex is this coroutine's.
    pub(crate) fn lock(&self) {
        if !self.locked.replace(true) {
            return;
        }
        if env::current().is_none_or(|env| env.running().is_main()) {
            return self.lock_on_main();
        }
        loop {
            match self.cond.wait(0) {
                // Handed over: still locked, and now ours.
                Ok(Outcome::Woken) => {
                    if let Some(env) = env::current() {
                        env.running().wait.granted.set(false);
                        env.running().wait.more.set(null_mut());
                    }
                    return;
                }
                Ok(Outcome::Cancelled) => return,
                Ok(Outcome::TimedOut | Outcome::ByHand | Outcome::Interrupted) => {
                    if !self.locked.replace(true) {
                        return;
                    }
                }
                Err(_) => return error!("clsCoMutex: cannot wait for mutex {:p}", self),
            }
        }
    }

    pub(super) fn lock_on_main(&self) {
        misuse!("clsCoMutex: the main coroutine runs its loop until mutex {:p} is free", self);
        self.main_waits.set(true);
        self.before_main.set(self.waiters());
        event::run_until(&mut || self.main_has_it.get());
        self.main_has_it.set(false);
    }

    /// Hands the mutex to who is next, or frees it.
    pub(crate) fn unlock(&self) {
        if self.main_waits.get() && self.before_main.get() == 0 {
            self.main_waits.set(false);
            return self.main_has_it.set(true);
        }
        let next = match env::current() {
            Some(env) => env.guarded(|| self.cond.take_first()),
            None => None,
        };
        self.before_main.set(self.before_main.get().saturating_sub(1));
        match (next, env::current()) {
            (Some(next), Some(env)) => env.guarded(|| {
                event::wake(next, Outcome::Woken);
                next.wait.granted.set(true);
                next.wait.more.set((&raw const *self).cast_mut().cast());
            }),
            _ if self.main_waits.replace(false) => self.main_has_it.set(true),
            _ => self.locked.set(false),
        }
    }

    fn waiters(&self) -> u32 {
        let mut count = 0;
        let mut at = self.cond.waiters.first();
        while let Some(link) = at {
            count += 1;
            at = self.cond.waiters.after(link);
        }
        count
    }

    /// Waiters and the holder: what the original counts.
    pub(crate) fn users(&self) -> i32 {
        i32::from(self.locked.get()) + self.waiters() as i32
    }
}

/// A coroutine that was handed a mutex is released or reset before it ran: the next one gets it.
pub(crate) fn pass_on(co: Co) {
    co.wait.granted.set(false);
    let mutex = co.wait.more.replace(null_mut()).cast::<Mutex>();
    // SAFETY: `unlock` put the mutex there, which lives as long as its users.
    if let Some(mutex) = unsafe { mutex.as_ref() } {
        mutex.unlock();
    }
}

/// Frees a mutex.
///
/// # Safety
/// It came from [`new`], and nobody uses it after this.
pub(crate) unsafe fn free(mutex: NonNull<Mutex>) {
    // SAFETY: a mutex begins with its condition and is one allocation.
    let _ = unsafe { cond::free(mutex.cast()) };
}
