//! Conditions: coroutines of one thread wait for each other.
//!
//! A condition belongs to the thread whose coroutines wait on it; while nobody waits, to none. Signals
//! from that thread act at once (the waiter moves to the loop's ready list). Signals from a signal
//! handler that interrupted a guarded section, and from other threads, are counted and served by the
//! owner: when the section ends, or when its loop wakes.

use core::mem::offset_of;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};

use crate::event::{self, Reactor};
use crate::routine::coroutine::{Co, Coroutine, Outcome, RELEASED, Wait, WaitKind, WaitState};
use crate::routine::env::{self, Env};
use crate::sys::errno::Errno;
use crate::sys::heap::{self, Zeroed};
use crate::sys::log::misuse;
use crate::sys::tools;
use crate::util::list::{Link, List};

/// What C knows as stCoCond_t, opaque.
#[repr(C)]
pub(crate) struct Cond {
    /// In its owner's list of conditions with waiters.
    in_env: Link,
    pub(super) waiters: List,
    owner: AtomicPtr<Env>,
    /// Signals to serve later; the top bit stands for a broadcast.
    deferred: AtomicU32,
    next_deferred: AtomicPtr<Cond>,
    is_deferred: AtomicBool,
    /// Freed while a signal of another thread's was under way: the thread that serves it frees the object.
    freed: AtomicBool,
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

/// Says why a wait is none.
#[cold]
#[inline(never)]
pub(super) fn refuse(why: &str, cond: &Cond) -> Result<Outcome, Errno> {
    misuse!("co_cond_wait, co_cond_timedwait: {why} on condition {:p}", cond);
    Err(Errno(libc::EPERM))
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
            return refuse("this thread has no coroutines", self);
        };
        let co = Co::of(env.running());
        if co.is_main() {
            return refuse("the main coroutine cannot wait", self);
        }
        let reactor = env.reactor()?;
        let owner = self.owner.load(Ordering::Acquire);
        if !owner.is_null() && !core::ptr::eq(owner, env) {
            return refuse("coroutines of another thread wait", self);
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
        tools::handed_over((&raw const *self).cast());
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
        while let Some(co) = self.take_first() {
            event::wake(co, Outcome::Woken);
            if whom == Whom::First {
                break;
            }
        }
    }

    /// Takes who waits longest out of the queue. Whom another thread has released is passed over: its
    /// signal belongs to the next.
    pub(super) fn take_first(&self) -> Option<Co> {
        let mut first = None;
        while let Some(link) = self.waiters.pop_front() {
            let co = Cond::waiter(link);
            co.wait.more.set(null_mut());
            if co.pending() & RELEASED == 0 {
                first = Some(co);
                break;
            }
        }
        self.left();
        first
    }

    /// Detaches all waiters: never signalled any more, but their time-outs still fire.
    fn detach(&self) {
        while let Some(link) = self.waiters.pop_front() {
            let co = Cond::waiter(link);
            co.wait.more.set(null_mut());
            co.wait.set_kind(WaitKind::Time);
            co.wait.set_outcome(Outcome::Cancelled);
        }
        self.left();
    }
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
        misuse!("co_cond_free: coroutines of another thread wait on condition {:p}", this);
        return Err(Errno(libc::EBUSY));
    }
    if let Some(env) = env::current() {
        serve_deferred(env);
        env.guarded(|| {
            if !this.waiters.is_empty() {
                misuse!("co_cond_free: coroutines still wait on condition {:p}", this);
            }
            this.detach();
        });
    }
    this.freed.store(true, Ordering::Release);
    if !this.is_deferred.swap(true, Ordering::AcqRel) {
        // SAFETY: no waiter refers to it, and no deferred signal can any more.
        unsafe { heap::free(cond) };
    }
    Ok(())
}

/// Serves the signals that handlers and other threads left for this thread.
#[cold]
pub(crate) fn serve_deferred(env: &Env) {
    let mut next = env.deferred.swap(null_mut(), Ordering::AcqRel);
    while !next.is_null() {
        // SAFETY: a condition in this list is not freed before it is out of it: see `free`.
        let cond = unsafe { &*next };
        next = cond.next_deferred.load(Ordering::Relaxed);
        if cond.freed.load(Ordering::Acquire) {
            // SAFETY: nobody else has it: it is out of this list, and no signal can put it in one.
            unsafe { heap::free(NonNull::from(cond)) };
            continue;
        }
        tools::received((&raw const *cond).cast());
        // (An exchange, not a store: who finds it still true has added its signal before, and the next line sees that.)
        cond.is_deferred.swap(false, Ordering::AcqRel);
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

/// A loop ends: who waits on a condition in it stays suspended, in no queue. Environments are locked.
pub(crate) fn leave_loop(env: &Env, reactor: &Reactor) {
    let mut at = env.conds.first();
    while let Some(link) = at {
        at = env.conds.after(link);
        // SAFETY: `in_env` is a condition's first member.
        let cond = unsafe { &*link.cast::<Cond>() };
        let mut waiter = cond.waiters.first();
        while let Some(link) = waiter {
            waiter = cond.waiters.after(link);
            let co = Cond::waiter(link);
            if core::ptr::eq(co.wait.reactor.get(), reactor) {
                // (Its timer, if it has one, is still in the loop's wheel, which is emptied next.)
                co.wait.node.link().unlink();
                co.wait.more.set(null_mut());
                co.wait.set_kind(WaitKind::Time);
                co.wait.set_outcome(Outcome::Cancelled);
                co.wait.set_state(WaitState::None);
            }
        }
        cond.left();
    }
}

const _: () = assert!(offset_of!(Cond, in_env) == 0);
