//! The loop: sleeps until something happens, collects what happened, resumes who waited for it.
//!
//! One round: sleep in epoll → events move waiters to the ready list → timers that are due do the same
//! → the ready list of this round is resumed, first come first served → the program's callback. A
//! coroutine that becomes ready during the round is resumed in the next one, after a look at the
//! descriptors: coroutines that wake each other for ever starve nobody.
//!
//! Nothing is held while the program's code runs, and nothing needs undoing when an exception leaves
//! through the callback: the round's state is in lists that the next round picks up.
//!
//! Other threads reach a loop only through the list in `loops` and its job list.

use core::cell::{Cell, UnsafeCell};
use core::ffi::{c_int, c_void};
use core::mem::{offset_of, size_of};
use core::ptr::{NonNull, null};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering, compiler_fence};

use crate::event::ahead;
use crate::event::counts::LoopCounts;
use crate::event::descriptor::OURS;
use crate::event::interrupt::Interruptible;
use crate::event::loops;
use crate::event::offload;
use crate::event::registrations::Registrations;
use crate::event::wait;
use crate::event::wheel::Wheel;
use crate::routine::coroutine::{Outcome, RELEASED, WaitState};
use crate::routine::{Co, Env, cond, env, run as routine_run};
use crate::sys::caller::Function;
use crate::sys::clock::{NANOS_PER_MS, Nanos};
use crate::sys::epoll;
use crate::sys::errno::Errno;
use crate::sys::log::{error, info};
use crate::sys::pages;
use crate::sys::tools::{self, Area};
use crate::util::list::{Link, List};

/// Called after every round; -1 ends the loop.
pub(crate) type Callback = unsafe extern "C-unwind" fn(*mut c_void) -> c_int;

/// Events taken from the kernel at a time.
const EVENTS: usize = 512;
/// How many events ahead memory is asked for: the registration, then, with that there, who waits.
const FAR: usize = 12;
const NEAR: usize = 6;
/// How long a wait may trust an earlier registration, in ticks.
const AUDIT_TICKS: u64 = 1000;
/// A sleep of this many ticks or more is long: memory is given back first.
const LONG_SLEEP: u64 = 1000;
/// Without an epoll descriptor (none to be had) nobody can wake the loop: it looks around so often.
const BLIND_SLEEP: u64 = 10;
/// What the kick's eventfd carries instead of a number.
pub(super) const KICK: u64 = u64::MAX;

/// What C knows as stCoEpoll_t, opaque. All-zero bytes but for `id` and `env`.
#[repr(C)]
pub(crate) struct Reactor {
    /// In the list of all loops.
    link: Link,
    env: Cell<*const Env>,
    id: Cell<u32>,
    /// One more than the epoll descriptor; 0: none yet.
    pub(super) epfd: AtomicI32,
    /// One more than the eventfd that other threads wake the loop by; 0: none yet.
    pub(super) kick_fd: AtomicI32,
    pub(super) kicked: AtomicBool,
    closed_elsewhere: AtomicBool,
    /// Whose waiters another thread wants woken: see `rouse`.
    pub(super) roused: AtomicI32,
    sleeping: Cell<bool>,
    pub(super) rebuild: AtomicBool,
    /// The last round took as many events as there is room for: there may have been more.
    full: Cell<bool>,
    /// When to verify waits that trust; 0: no such wait.
    audit_at: Cell<u64>,
    /// When to see whether memory can be given back although the loop is busy.
    trim_at: Cell<u64>,
    /// The last tick the loop has seen.
    tick: Cell<u64>,
    /// It runs: `tick` is the present one, near enough. (After an exception that left the loop it still says so.)
    turns: Cell<bool>,
    timeout: UnsafeCell<libc::timespec>,
    /// Woken, to be resumed in the next round.
    pub(crate) ready: List,
    /// Being resumed in this round.
    batch: List,
    /// Waits that a signal handler ends.
    pub(super) interruptible: Interruptible,
    pub(super) counts: LoopCounts,
    pub(crate) jobs: offload::JobList,
    pub(crate) registrations: Registrations,
    pub(crate) wheel: Wheel,
    events: UnsafeCell<[libc::epoll_event; EVENTS]>,
}

/// Where a loop has the last tick that it has seen.
pub(crate) const TICK: usize = offset_of!(Reactor, tick);

static NEXT_ID: AtomicU32 = AtomicU32::new(1);

const _: () = assert!(offset_of!(Reactor, link) == 0);

/// What resumes coroutines here, on the way from co_eventloop: see `sys::caller`.
pub(crate) static DOORS: &[Function] = &[
    Function(Reactor::run_ready as *const ()),
    Function(run as *const ()),
    Function(run_until as *const ()),
];

/// A loop for the coroutines of `env`.
pub(crate) fn new_reactor(env: &Env) -> Result<NonNull<Reactor>, Errno> {
    let object = pages::reserve(size_of::<Reactor>())?.cast::<Reactor>();
    let object = NonNull::new(object).ok_or(Errno(libc::ENOMEM))?;
    // SAFETY: just made; all-zero bytes are a loop without number and environment.
    let reactor = unsafe { object.as_ref() };
    tools::holds_pointers(area_of(object));
    reactor.env.set(env);
    reactor.tick.set(Nanos::now().tick());
    let mut id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    if id == 0 || id >= OURS {
        id = OURS - 1;
    }
    reactor.id.set(id);
    loops::add(reactor);
    Ok(object)
}

fn area_of(object: NonNull<Reactor>) -> Area {
    Area { bottom: object.as_ptr().cast(), size: size_of::<Reactor>() }
}

/// Ends a loop: nobody is woken by it any more; coroutines that wait in it stay suspended.
///
/// # Safety
/// Nobody uses it after this.
pub(crate) unsafe fn free_reactor(object: NonNull<Reactor>) {
    // SAFETY: as the caller vouches.
    let reactor = unsafe { object.as_ref() };
    // SAFETY: an environment outlives its loops.
    let env = unsafe { reactor.env.get().as_ref() };
    if let Some(env) = env {
        cond::serve_deferred(env);
    }
    env::locked(|| {
        loops::remove(reactor);
        reactor.leave_past();
        // Under the same lock: a thread that releases one of these coroutines finds its wait whole, or gone.
        reactor.detach_waits();
    });
    offload::drop_all(reactor);
    if let Some(env) = env {
        env.lose_reactor(reactor);
    }
    reactor.registrations.drop_all();
    reactor.close_descriptors();
    tools::holds_no_pointers(area_of(object));
    // SAFETY: `new_reactor` reserved it; as the caller vouches.
    unsafe { pages::release(object.as_ptr().cast(), size_of::<Reactor>()) };
}

impl Reactor {
    #[inline(always)]
    pub(crate) fn id(&self) -> u32 {
        self.id.get()
    }

    /// The last tick the loop has seen.
    #[inline(always)]
    pub(crate) fn tick(&self) -> u64 {
        self.tick.get()
    }

    /// The present tick: the beginning of the round, or, while the loop does not run, what the clock says.
    #[inline(always)]
    pub(super) fn present(&self) -> u64 {
        if !self.turns.get() {
            self.tick.set(Nanos::now().tick());
        }
        self.tick.get()
    }

    /// Whether more may have happened than the last round has seen.
    pub(crate) fn saw_part(&self) -> bool {
        self.full.get()
    }

    /// The loop goes: its environment keeps the count of what it has done. Environments are locked.
    pub(super) fn leave_past(&self) {
        // SAFETY: an environment outlives its loops.
        if let Some(env) = unsafe { self.env.get().as_ref() } {
            env.keep_past(&self.past());
        }
    }

    /// Whether the calling thread's coroutines may wait here.
    pub(crate) fn serves(&self, env: &Env) -> bool {
        core::ptr::eq(self.env.get(), env)
    }

    /// The epoll descriptor, -1 if there is none.
    pub(crate) fn epoll_fd_if_any(&self) -> c_int {
        self.epfd.load(Ordering::Relaxed) - 1
    }

    /// The epoll descriptor, made on first use.
    pub(crate) fn epoll_fd(&self) -> Result<c_int, Errno> {
        match self.epoll_fd_if_any() {
            -1 => self.renew_epoll_fd(),
            epfd => Ok(epfd),
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Another thread closed a number that this loop has. The list of loops is locked.
    pub(super) fn note_closed_elsewhere(&self) {
        self.closed_elsewhere.store(true, Ordering::Release);
    }

    /// The epoll set has entries nobody can delete: the next round makes a new one.
    pub(crate) fn want_rebuild(&self) {
        self.rebuild.store(true, Ordering::Release);
    }

    /// A wait trusts an earlier registration: it is verified if it lasts.
    #[inline(always)]
    pub(crate) fn note_trust(&self) {
        if self.audit_at.get() == 0 {
            self.audit_at.set(self.tick.get() + AUDIT_TICKS);
        }
    }

    /// Somebody became ready: if the loop is about to sleep (then a signal handler is here), it must not.
    #[inline(always)]
    pub(crate) fn shorten_sleep(&self) {
        if self.sleeping.get() {
            self.set_timeout(0);
        }
    }

    #[inline(always)]
    fn set_timeout(&self, nanos: u64) {
        let value = libc::timespec {
            tv_sec: (nanos / 1_000_000_000) as i64,
            tv_nsec: (nanos % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: this thread's alone; volatile, since a signal handler writes it as well.
        unsafe { self.timeout.get().write_volatile(value) };
    }

    /// What other threads and earlier rounds left to do.
    #[cold]
    fn housekeep(&self, env: &Env) {
        if self.kicked.swap(false, Ordering::AcqRel) {
            env.guarded(|| offload::collect(self));
            if self.closed_elsewhere.swap(false, Ordering::AcqRel) {
                env.guarded(|| self.look_for_closed());
            }
            env.guarded(|| self.rouse_noted());
            if env.has_releases() {
                env.serve_releases();
            }
        }
        if self.rebuild.load(Ordering::Relaxed) {
            self.rebuild.store(false, Ordering::Release);
            match env.guarded(|| self.rebuild()) {
                Ok(()) => {
                    info!(
                        "a new epoll set: this is a child of fork, or descriptors were closed or given out anew past the hooks"
                    )
                }
                Err(_) => {
                    error!("no descriptor for a new epoll set, trying again");
                    self.rebuild.store(true, Ordering::Release);
                }
            }
            offload::restart();
        }
    }

    /// Sleeps until something happens or `cap` ticks are over, then moves everybody concerned to the
    /// ready list.
    fn collect(&self, env: &Env, cap: Option<u64>) {
        if self.kicked.load(Ordering::Relaxed) || self.rebuild.load(Ordering::Relaxed) {
            self.housekeep(env);
        }
        let blind = self.epoll_fd().is_err();
        let now = Nanos::now();
        self.tick.set(now.tick());
        self.turns.set(true);
        let mut until = env.guarded(|| self.wheel.next());
        let limits =
            [cap, blind.then_some(BLIND_SLEEP), self.rebuild.load(Ordering::Relaxed).then_some(BLIND_SLEEP)];
        for ticks in limits.into_iter().flatten() {
            until = Some(until.map_or(now.tick() + ticks, |t| t.min(now.tick() + ticks)));
        }
        if self.audit_at.get() != 0 {
            until = Some(until.map_or(self.audit_at.get(), |t| t.min(self.audit_at.get())));
        }
        let idle = self.ready.is_empty() && self.batch.is_empty();
        if idle && until.is_none_or(|tick| tick > now.tick() + LONG_SLEEP) {
            env.give_back_idle_memory();
        } else if now.tick() >= self.trim_at.get() {
            self.trim_at.set(now.tick() + LONG_SLEEP);
            env.give_back_unused_memory();
        }
        let count = self.sleep(env, now, until);
        self.full.set(count == EVENTS);
        env.guarded(|| self.take_events(count));
        let tick = Nanos::now().tick();
        self.tick.set(tick);
        if self.audit_at.get() != 0 && tick >= self.audit_at.get() {
            let again = env.guarded(|| self.audit());
            self.audit_at.set(if again { tick + AUDIT_TICKS } else { 0 });
        }
        env.guarded(|| {
            self.wheel.advance(tick, |timer| {
                // SAFETY: only waits set timers: the timer lies in a live control block.
                wait::time_out(self, unsafe { Co::from_timer(timer) });
            });
        });
    }

    fn sleep(&self, env: &Env, now: Nanos, until: Option<u64>) -> usize {
        /// For ever, as far as the kernel takes it: half a century.
        const FOR_EVER: u64 = 1 << 60;
        let nanos = until.map_or(FOR_EVER, |tick| (tick * NANOS_PER_MS).saturating_sub(now.0));
        let (mask, strictly) = self.interruptible.before_sleep(env);
        self.set_timeout(nanos);
        // From here on a signal handler that wakes somebody shortens the time-out itself.
        self.sleeping.set(true);
        compiler_fence(Ordering::SeqCst);
        if !self.ready.is_empty()
            || !self.batch.is_empty()
            || self.kicked.load(Ordering::Relaxed)
            || !env.deferred.load(Ordering::Relaxed).is_null()
        {
            self.set_timeout(0);
        }
        compiler_fence(Ordering::SeqCst);
        let events = self.events.get().cast();
        let epfd = self.epoll_fd_if_any();
        self.counts.epoll_waits.bump();
        // SAFETY: room for EVENTS events; time-out and mask are ours.
        let count = unsafe { epoll::wait(epfd, events, EVENTS as c_int, self.timeout.get(), mask, strictly) };
        compiler_fence(Ordering::SeqCst);
        self.sleeping.set(false);
        let count = count.unwrap_or_else(|error| {
            if error == Errno(libc::EINTR) {
                env.guarded(|| self.interruptible.wake_all());
                return 0;
            }
            // Somebody closed it past us, a daemon that closes every number perhaps.
            self.lose_epoll_fd();
            0
        });
        if !env.deferred.load(Ordering::Relaxed).is_null() {
            cond::serve_deferred(env);
        }
        count
    }

    fn take_events(&self, count: usize) {
        let events: *const libc::epoll_event = self.events.get().cast();
        for i in 0..count {
            // SAFETY: the kernel wrote `count` events; nobody else touches the array meanwhile.
            let event = unsafe { events.wrapping_add(i).read_unaligned() };
            if event.u64 == KICK {
                if self.has_descriptors() {
                    epoll::eventfd_drain(self.kick_fd.load(Ordering::Relaxed) - 1);
                } else {
                    self.want_rebuild();
                }
                continue;
            }
            if i + FAR < count {
                // SAFETY: as above.
                let ahead = unsafe { events.wrapping_add(i + FAR).read_unaligned() };
                ahead::registration(self, &ahead);
            }
            if i + NEAR < count {
                // SAFETY: as above.
                let ahead = unsafe { events.wrapping_add(i + NEAR).read_unaligned() };
                ahead::waiter(self, &ahead);
            }
            self.dispatch(&event);
        }
    }

    /// Resumes everybody who was ready when this began.
    fn run_ready(&self, env: &Env) {
        env.guarded(|| self.batch.append(&self.ready));
        loop {
            if env.has_releases() {
                // Another thread released somebody, perhaps one of these.
                env.serve_releases();
            }
            let Some(link) = env.guarded(|| self.batch.pop_front()) else { return };
            ahead::batch(self, &self.batch);
            // SAFETY: ready lists link timers of live control blocks.
            let co = unsafe { Co::from_timer(link.cast()) };
            if co.pending() & RELEASED != 0 {
                // Another thread has released it; it is freed soon.
                continue;
            }
            if co.c_end.get() != 0 {
                // Ended by hand (cEnd = 1): it waits no more.
                wait::cancel(env, co);
                continue;
            }
            if !routine_run::resume_woken(env, co) {
                // No memory to bring it in: it stays ready, and others may give some back. (One that was to start anew waits no
                // more.)
                if co.wait.state() == WaitState::Ready {
                    // SAFETY: just taken out of the batch.
                    env.guarded(|| unsafe { self.ready.push_back(&co.wait.timer.link) });
                }
                return;
            }
        }
    }

    /// No wait refers to this loop any more; the coroutines stay suspended. Environments are locked: a coroutine whose
    /// wait has ended may still be in the wheel, and must not be freed.
    fn detach_waits(&self) {
        let end = |co: Co| {
            co.wait.set_outcome(Outcome::Cancelled);
            co.wait.reactor.set(null());
            co.wait.set_state(WaitState::None);
        };
        // SAFETY: an environment outlives its loops.
        if let Some(env) = unsafe { self.env.get().as_ref() } {
            cond::leave_loop(env, self);
        }
        self.forget_waiters(end);
        // SAFETY: the wheel and the ready lists link timers of live control blocks.
        let of_timer = |timer| unsafe { Co::from_timer(timer) };
        self.wheel.clear(|timer| {
            let co = of_timer(timer);
            co.wait.node.link().unlink();
            end(co);
        });
        for list in [&self.ready, &self.batch] {
            while let Some(link) = list.pop_front() {
                end(of_timer(link.cast()));
            }
        }
        self.interruptible.forget(end);
        offload::forget_waiters(self, end);
    }
}

/// co_eventloop: rounds until the callback returns -1, or for ever. An exception of the callback passes
/// through; the loop may be run again.
///
/// # Safety
/// The callback may be called with `arg`.
pub(crate) unsafe fn run(env: &Env, reactor: &Reactor, callback: Option<Callback>, arg: *mut c_void) {
    loop {
        reactor.collect(env, callback.map(|_| 1));
        reactor.run_ready(env);
        if let Some(callback) = callback {
            // (It may leave by an exception. The next round sets it again.)
            reactor.turns.set(false);
            // SAFETY: as the caller vouches.
            if unsafe { callback(arg) } == -1 {
                return;
            }
        }
    }
}

/// Runs the thread's loop until `done`.
pub(crate) fn run_until(done: &mut dyn FnMut() -> bool) {
    let Ok(env) = env::current_or_new() else { return };
    while !done() {
        let Ok(reactor) = env.reactor() else { return };
        reactor.collect(env, None);
        reactor.run_ready(env);
        reactor.turns.set(false);
    }
}
