//! Conditions: coroutines of one thread wait for each other.
//!
//! A condition belongs to the thread whose coroutines wait on it; while nobody waits, to none. Signals
//! from that thread act at once (the waiter moves to the loop's ready list). Signals from a signal
//! handler that interrupted a guarded section, and from other threads, are counted and served by the
//! owner: when the section ends, or when its loop wakes.

use core::cell::Cell;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use crate::event;
use crate::routine::coroutine::{Co, Coroutine, Outcome, Wait, WaitKind, WaitState};
use crate::routine::env::{self, Env};
use crate::sys::errno::Errno;
use crate::sys::heap::{self, Zeroed};
use crate::sys::log::log;
use crate::util::list::{Link, List};

/// What C knows as stCoCond_t, opaque.
#[repr(C)]
pub(crate) struct Cond {
    /// In its owner's list of conditions with waiters.
    in_env: Link,
    waiters: List,
    owner: AtomicPtr<Env>,
    /// Signals to serve later; the top bit stands for a broadcast.
    deferred: AtomicU32,
    next_deferred: AtomicPtr<Cond>,
    is_deferred: AtomicBool,
}

// SAFETY: no waiters, no owner.
unsafe impl Zeroed for Cond {}

const BROADCAST: u32 = 1 << 31;

/// How many waiters a signal wakes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The one that waits longest.
    First,
    /// All.
    All,
}

pub(crate) fn new() -> Option<NonNull<Cond>> {
    heap::alloc()
}

impl Cond {
    /// The coroutine whose wait's node is queued by `link`.
    fn waiter(link: *const Link) -> Co {
        let offset = offset_of!(Coroutine, wait) + offset_of!(Wait, node);
        let co = link.cast::<u8>().wrapping_sub(offset).cast::<Coroutine>();
        // SAFETY: only nodes of waiting coroutines are queued, and a node's first member is its link.
        match unsafe { Co::from_c(co) } {
            Some(co) => co,
            None => unreachable!("a link is never at the start of memory"),
        }
    }

    /// Waits until signalled, or until `ms` milliseconds are over (0 or less: for ever).
    pub(crate) fn wait(&self, ms: i32) -> Result<Outcome, Errno> {
        let Some(env) = env::current() else {
            log!("co_cond_wait, co_cond_timedwait: this thread has no coroutines");
            return Err(Errno(libc::EPERM));
        };
        let co = Co::of(env.running());
        if co.is_main() {
            log!("co_cond_wait, co_cond_timedwait: the main coroutine cannot wait");
            return Err(Errno(libc::EPERM));
        }
        let reactor = env.reactor()?;
        let owner = self.owner.load(Ordering::Acquire);
        if !owner.is_null() && !core::ptr::eq(owner, env) {
            log!(
                "co_cond_wait, co_cond_timedwait: coroutines of another thread wait on condition {:p}",
                self
            );
            return Err(Errno(libc::EPERM));
        }
        env.guarded(|| {
            if self.waiters.is_empty() {
                self.owner.store((&raw const *env).cast_mut(), Ordering::Release);
                // SAFETY: unlinked when the last waiter leaves, or the condition is freed.
                unsafe { env.conds.push_back(&self.in_env) };
            }
            // SAFETY: the node lies in the control block; it is unlinked before either goes.
            unsafe { self.waiters.push_back(co.wait.node.link()) };
            co.wait.more.set((&raw const *self).cast_mut().cast());
            let deadline = (ms > 0).then(|| event::deadline_after(ms as u64));
            event::begin(reactor, co, WaitKind::Condition, deadline);
        });
        event::suspend(env, co);
        Ok(co.wait.outcome())
    }

    /// A waiter has left the queue: the last one frees the condition from its thread.
    fn left(&self) {
        if self.waiters.is_empty() {
            self.in_env.unlink();
            self.owner.store(null_mut(), Ordering::Release);
        }
    }

    /// Wakes waiters, from any thread and from signal handlers.
    pub(crate) fn signal(&self, whom: Whom) {
        let owner = self.owner.load(Ordering::Acquire);
        if owner.is_null() {
            return;
        }
        match env::current() {
            Some(env) if core::ptr::eq(env, owner) => {
                if env.is_busy() {
                    self.defer(env, whom);
                } else {
                    if env.has_releases() {
                        // Whom another thread has released gets no signal any more.
                        env.serve_releases();
                    }
                    env.guarded(|| self.wake(whom));
                }
            }
            _ => env::with_alive(owner, |env| {
                self.defer(env, whom);
                event::kick(env);
            }),
        }
    }

    /// Leaves a signal for the owner. Lock-free: a signal handler may be here.
    fn defer(&self, env: &Env, whom: Whom) {
        match whom {
            Whom::First => self.deferred.fetch_add(1, Ordering::AcqRel),
            Whom::All => self.deferred.fetch_or(BROADCAST, Ordering::AcqRel),
        };
        if self.is_deferred.swap(true, Ordering::AcqRel) {
            return;
        }
        let me = (&raw const *self).cast_mut();
        let mut first = env.deferred.load(Ordering::Acquire);
        loop {
            self.next_deferred.store(first, Ordering::Relaxed);
            match env.deferred.compare_exchange_weak(first, me, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    fn wake(&self, whom: Whom) {
        while let Some(link) = self.waiters.pop_front() {
            let co = Cond::waiter(link);
            co.wait.more.set(null_mut());
            event::wake(co, Outcome::Woken);
            if whom == Whom::First {
                break;
            }
        }
        self.left();
    }

    /// Detaches all waiters: never signalled any more, but their time-outs still fire.
    fn detach(&self, end: Detached) {
        while let Some(link) = self.waiters.pop_front() {
            let co = Cond::waiter(link);
            co.wait.more.set(null_mut());
            match end {
                Detached::StillWaiting => co.wait.set_kind(WaitKind::Time),
                Detached::NoLoop => co.wait.set_state(WaitState::None),
            }
            co.wait.set_outcome(Outcome::Cancelled);
        }
        self.left();
    }
}

#[derive(Clone, Copy)]
enum Detached {
    StillWaiting,
    NoLoop,
}

/// Frees a condition.
///
/// # Safety
/// `cond` came from [`new`] and nobody uses it after this.
pub(crate) unsafe fn free(cond: NonNull<Cond>) -> Result<(), Errno> {
    // SAFETY: as the caller vouches.
    let this = unsafe { cond.as_ref() };
    let owner = this.owner.load(Ordering::Acquire);
    if !owner.is_null() && env::current().is_none_or(|env| !core::ptr::eq(env, owner)) {
        log!("co_cond_free: coroutines of another thread wait on condition {:p}", this);
        return Err(Errno(libc::EBUSY));
    }
    if let Some(env) = env::current() {
        serve_deferred(env);
        env.guarded(|| {
            if !this.waiters.is_empty() {
                log!("co_cond_free: coroutines still wait on condition {:p}", this);
            }
            this.detach(Detached::StillWaiting);
        });
    }
    // SAFETY: no waiter and no deferred signal refers to it.
    unsafe { heap::free(cond) };
    Ok(())
}

/// Serves the signals that handlers and other threads left for this thread.
#[cold]
pub(crate) fn serve_deferred(env: &Env) {
    let mut next = env.deferred.swap(null_mut(), Ordering::AcqRel);
    while !next.is_null() {
        // SAFETY: a condition is taken out of this list before it is freed.
        let cond = unsafe { &*next };
        next = cond.next_deferred.load(Ordering::Relaxed);
        cond.is_deferred.store(false, Ordering::Release);
        let signals = cond.deferred.swap(0, Ordering::AcqRel);
        env.guarded(|| {
            if signals & BROADCAST != 0 {
                cond.wake(Whom::All);
            }
            for _ in 0..signals & !BROADCAST {
                cond.wake(Whom::First);
            }
        });
    }
}

/// A waiter is taken off its condition: it is released, reset, timed out or resumed by hand.
pub(crate) fn leave(co: Co) {
    let cond = co.wait.more.replace(null_mut()).cast::<Cond>();
    co.wait.node.link().unlink();
    // SAFETY: null, or the condition it waits on: conditions detach their waiters before they go.
    if let Some(cond) = unsafe { cond.as_ref() } {
        cond.left();
    }
}

/// The thread ends: nobody waits any more.
pub(crate) fn detach_all(env: &Env) {
    serve_deferred(env);
    while let Some(link) = env.conds.first() {
        // SAFETY: `in_env` is a condition's first member.
        let cond = unsafe { &*link.cast::<Cond>() };
        cond.detach(Detached::NoLoop);
    }
}

const _: () = assert!(offset_of!(Cond, in_env) == 0);

/// A mutex between coroutines of one thread: what clsCoMutex keeps behind its first member.
///
/// Fair: who waits longest gets it, handed over by the one that unlocks. A waiter that is released
/// hands it on.
#[repr(C)]
pub(crate) struct Mutex {
    cond: Cond,
    /// Locked: somebody has it, or it was handed to a waiter that has not run yet.
    locked: Cell<bool>,
}

// SAFETY: unlocked, no waiters.
unsafe impl Zeroed for Mutex {}

const _: () = assert!(offset_of!(Mutex, cond) == 0);

/// A new, unlocked mutex.
pub(crate) fn new_mutex() -> Option<NonNull<Mutex>> {
    heap::alloc()
}

impl Mutex {
    /// Waits until the mutex is free. The main coroutine runs its loop meanwhile.
    pub(crate) fn lock(&self) {
        if !self.locked.get() {
            self.locked.set(true);
            return;
        }
        let on_main = env::current().is_none_or(|env| env.running().is_main());
        if on_main {
            log!("clsCoMutex: the main coroutine runs its loop until mutex {:p} is free", self);
            event::run_until(&mut || !self.locked.get());
            self.locked.set(true);
            return;
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
                Ok(Outcome::TimedOut | Outcome::ByHand) => {
                    if !self.locked.replace(true) {
                        return;
                    }
                }
                Err(_) => {
                    log!("clsCoMutex: cannot wait for mutex {:p}", self);
                    return;
                }
            }
        }
    }

    /// Hands the mutex to the first waiter, or frees it.
    pub(crate) fn unlock(&self) {
        if let Some(env) = env::current()
            && env.has_releases()
        {
            env.serve_releases();
        }
        match self.cond.waiters.first() {
            None => self.locked.set(false),
            Some(link) => {
                let next = Cond::waiter(link);
                let mine = env::current().is_some_and(|env| core::ptr::eq(next.env.get(), env));
                if !mine {
                    return log!("clsCoMutex: coroutines of another thread wait for mutex {:p}", self);
                }
                self.cond.signal(Whom::First);
                next.wait.granted.set(true);
                next.wait.more.set((&raw const *self).cast_mut().cast::<c_void>());
            }
        }
    }

    /// Waiters and the holder: what the original counts.
    pub(crate) fn users(&self) -> i32 {
        let mut users = i32::from(self.locked.get());
        let mut at = self.cond.waiters.first();
        while let Some(link) = at {
            users += 1;
            at = self.cond.waiters.after(link);
        }
        users
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
/// As [`free`].
pub(crate) unsafe fn free_mutex(mutex: NonNull<Mutex>) {
    // SAFETY: a mutex begins with its condition and is one allocation.
    let _ = unsafe { free(mutex.cast()) };
}
