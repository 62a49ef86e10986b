//! Blocking calls of the C library, run on a few helper threads while the coroutine waits on its loop.
//!
//! ```text
//!   coroutine ── run_job ──► QUEUE ──► helper runs it ──► the loop's `done` ── kick ──► coroutine
//! ```
//!
//! Helpers are made when there is work, have all signals blocked, and end after some idle seconds.
//! A coroutine that is released while its job runs leaves the job behind: the helper frees it, with what
//! the call made. All of it under one lock. A child of fork has no helpers: jobs under way are queued again.

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::mem::{MaybeUninit, offset_of};
use core::ptr::{null, null_mut};

use crate::event::loops::kick_loop;
use crate::event::reactor::Reactor;
use crate::event::wait::{self, begin};
use crate::routine::coroutine::{Outcome, WaitKind};
use crate::routine::{Co, Coroutine, Env};
use crate::sys::errno::Errno;
use crate::sys::lock::{Lock, Signal, with_signals_blocked};
use crate::sys::tools;
use crate::util::list::{Link, List};

/// One call to make. The first member of an object that holds arguments and results; freed by whoever is
/// last.
#[repr(C)]
pub(crate) struct Job {
    /// In QUEUE, or in a loop's list of finished jobs.
    link: Link,
    /// In its loop's list of all its jobs.
    in_loop: Link,
    /// Does the work, on a helper thread.
    work: unsafe fn(*mut Job),
    /// Frees the whole object and what `work` made. LOCK may be held.
    free: unsafe fn(*mut Job),
    co: Cell<*const Coroutine>,
    loop_id: Cell<u32>,
    finished: Cell<*const JobList>,
    state: Cell<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    Running,
    Finished,
    /// Nobody waits for it any more.
    Abandoned,
}

impl Job {
    pub(crate) const fn new(work: unsafe fn(*mut Job), free: unsafe fn(*mut Job)) -> Self {
        Job {
            link: Link::new(),
            in_loop: Link::new(),
            work,
            free,
            co: Cell::new(null()),
            loop_id: Cell::new(0),
            finished: Cell::new(null()),
            state: Cell::new(State::Queued),
        }
    }
}

/// A loop's jobs. All-zero bytes are none.
#[repr(C)]
pub(crate) struct JobList {
    all: List,
    done: List,
}

/// Helper threads at most, unless `set_helpers` was called: enough that a few names whose servers are
/// silent do not hold up the others, and each costs little.
const HELPERS: usize = 16;
/// What `set_helpers` takes.
const MOST_HELPERS: usize = 1024;
/// How long a helper without work stays, in nanoseconds.
const IDLE_TIME: u64 = 5_000_000_000;
/// A helper's stack: name service modules are not small. (The C library's own use some 20 KiB.)
const HELPER_STACK: usize = 512 * 1024;

struct Helpers {
    queue: List,
    /// Jobs in `queue`.
    queued: Cell<usize>,
    most: Cell<usize>,
    threads: Cell<usize>,
    /// Of these, how many wait for work.
    idle: Cell<usize>,
    /// And how many have been made and have not come for their first job yet.
    fresh: Cell<usize>,
    /// How much more than HELPER_STACK a helper gets. The C library gives a new thread the stack of one that
    /// fork left behind, if it is large enough, and with it that one's resolver, whose sockets are the
    /// parent's: so a child asks for a little more.
    more_stack: Cell<usize>,
}

// SAFETY: everything is touched with LOCK held.
unsafe impl Sync for Helpers {}

static LOCK: Lock = Lock::new();
static WORK_CAME: Signal = Signal::new();
static HELP: Helpers = Helpers {
    queue: List::new(),
    queued: Cell::new(0),
    most: Cell::new(HELPERS),
    threads: Cell::new(0),
    idle: Cell::new(0),
    fresh: Cell::new(0),
    more_stack: Cell::new(0),
};

impl Helpers {
    /// Puts a job that is in no queue at the end. LOCK is held.
    fn put(&self, job: &Job) {
        job.state.set(State::Queued);
        // SAFETY: a job whose state is not Queued is in no queue; a helper takes it out, or whoever frees it
        // does first.
        unsafe { self.queue.push_back(&job.link) };
        self.queued.set(self.queued.get() + 1);
    }

    /// Takes the oldest job. LOCK is held.
    fn take(&self) -> Option<*mut Job> {
        let job: *mut Job = self.queue.pop_front()?.cast_mut().cast();
        self.queued.set(self.queued.get() - 1);
        Some(job)
    }
}

/// Held across fork.
pub(crate) fn fork_lock() -> &'static Lock {
    &LOCK
}

/// co_set_helper_threads. `EINVAL` out of bounds.
pub(crate) fn set_helpers(most: c_int) -> Result<(), Errno> {
    let most = usize::try_from(most).map_err(|_| Errno(libc::EINVAL))?;
    if most == 0 || most > MOST_HELPERS {
        return Err(Errno(libc::EINVAL));
    }
    LOCK.with(|| {
        HELP.most.set(most);
        // Those beyond it end when their work is done, or when they have been idle for long enough.
        have_helpers();
    });
    Ok(())
}

/// How a job went.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    /// To its end: it is the caller's again.
    Done,
    /// Not at all, no thread is to be had: it is the caller's again.
    NoHelper,
    /// Somebody resumed the coroutine by hand, or its loop is gone: the job is not the caller's any more.
    Left,
}

/// Runs a job on a helper thread and waits for it, in a coroutine.
///
/// # Safety
/// `job` is the first member of an object filled for `work` and `free`, new, and nobody else's.
pub(crate) unsafe fn run_job(env: &Env, reactor: &Reactor, job: *mut Job) -> Ran {
    let co = Co::of(env.running());
    // SAFETY: as the caller vouches.
    let this = unsafe { &*job };
    this.co.set(co.as_ptr());
    this.loop_id.set(reactor.id());
    this.finished.set(&reactor.jobs);
    let helped = LOCK.with(|| {
        HELP.put(this);
        have_helpers();
        if HELP.threads.get() == 0 {
            this.unlink();
            return false;
        }
        // SAFETY: a new job is in no list, and whoever frees it unlinks it first. LOCK is held.
        unsafe { reactor.jobs.all.push_back(&this.in_loop) };
        true
    });
    if !helped {
        return Ran::NoHelper;
    }
    env.guarded(|| {
        co.wait.more.set(job.cast());
        begin(reactor, co, WaitKind::Job, None);
    });
    wait::suspend(env, co);
    co.wait.more.set(null_mut());
    if co.wait.outcome() == Outcome::Woken { Ran::Done } else { Ran::Left }
}

impl Job {
    /// LOCK is held.
    fn unlink(&self) {
        if self.state.get() == State::Queued {
            HELP.queued.set(HELP.queued.get() - 1);
        }
        self.link.unlink();
        self.in_loop.unlink();
    }
}

/// Sees to it that somebody takes the queue's work: wakes an idle helper, and makes as many as there are
/// jobs that no idle one will take. LOCK is held.
fn have_helpers() {
    if HELP.queued.get() == 0 {
        return;
    }
    if HELP.idle.get() > 0 {
        WORK_CAME.raise_one();
    }
    while HELP.queued.get() > HELP.idle.get() + HELP.fresh.get() && HELP.threads.get() < HELP.most.get() {
        if start_helper().is_err() {
            // Those that there are will get to it.
            return;
        }
        HELP.threads.set(HELP.threads.get() + 1);
        HELP.fresh.set(HELP.fresh.get() + 1);
    }
}

fn start_helper() -> Result<(), Errno> {
    let mut attr = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let attr = attr.as_mut_ptr();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: initialises our own object.
    unsafe { libc::pthread_attr_init(attr) };
    // SAFETY: initialised by the call above.
    unsafe { libc::pthread_attr_setdetachstate(attr, libc::PTHREAD_CREATE_DETACHED) };
    // SAFETY: initialised; a size the C library refuses would leave its own.
    unsafe { libc::pthread_attr_setstacksize(attr, HELPER_STACK + HELP.more_stack.get()) };
    // The new thread inherits the full mask: the program's handlers never run there.
    let status = with_signals_blocked(|| {
        // SAFETY: `attr` is initialised and `thread` ours to write; `help` needs no argument.
        unsafe { libc::pthread_create(thread.as_mut_ptr(), attr, help, null_mut()) }
    });
    // SAFETY: initialised above, used no more.
    unsafe { libc::pthread_attr_destroy(attr) };
    if status == 0 { Ok(()) } else { Err(Errno(status)) }
}

/// A helper thread's life.
extern "C" fn help(_: *mut c_void) -> *mut c_void {
    LOCK.lock();
    HELP.fresh.set(HELP.fresh.get() - 1);
    while HELP.threads.get() <= HELP.most.get() {
        if let Some(job) = HELP.take() {
            // SAFETY: a queued job is alive.
            unsafe { serve(job) };
            continue;
        }
        HELP.idle.set(HELP.idle.get() + 1);
        let in_time = WORK_CAME.wait(&LOCK, IDLE_TIME);
        HELP.idle.set(HELP.idle.get() - 1);
        if !in_time && HELP.queue.is_empty() {
            break;
        }
    }
    HELP.threads.set(HELP.threads.get() - 1);
    // One too many goes without having taken what it may have been woken for.
    have_helpers();
    LOCK.unlock();
    null_mut()
}

/// Runs a job that was taken from the queue. LOCK is held, but not meanwhile.
///
/// # Safety
/// The job is alive and in no queue.
unsafe fn serve(job: *mut Job) {
    // SAFETY: alive, as the caller vouches: whoever drops a running job leaves it to us.
    let this = unsafe { &*job };
    this.state.set(State::Running);
    LOCK.unlock();
    // SAFETY: `work` belongs to this job.
    tools::unnoticed(|| unsafe { (this.work)(job) });
    LOCK.lock();
    if this.state.get() == State::Abandoned {
        // SAFETY: nobody waits for it, and it is in no list.
        unsafe { (this.free)(job) };
        return;
    }
    this.state.set(State::Finished);
    // SAFETY: a loop abandons its jobs before it goes, and this one is not abandoned.
    let finished = unsafe { &*this.finished.get() };
    // SAFETY: the job left the queue when it was taken from there, and leaves this list before it is
    // freed. LOCK is held.
    unsafe { finished.done.push_back(&this.link) };
    let id = this.loop_id.get();
    LOCK.unlock();
    kick_loop(id);
    LOCK.lock();
}

/// Wakes the coroutines whose jobs are finished. In a guarded section of the loop's thread.
pub(crate) fn collect(reactor: &Reactor) {
    loop {
        let co = LOCK.with(|| {
            let link = reactor.jobs.done.pop_front()?;
            // SAFETY: `link` is a job's first member; a finished job is alive until its coroutine, of this
            // thread, runs again or drops it.
            let job = unsafe { &*link.cast::<Job>() };
            job.in_loop.unlink();
            Some(job.co.get())
        });
        let Some(co) = co else { return };
        // SAFETY: the job's coroutine waits: one that goes abandons the job first.
        if let Some(co) = unsafe { Co::from_c(co) } {
            wait::wake(co, Outcome::Woken);
        }
    }
}

/// How many jobs a loop's coroutines wait for.
pub(super) fn count(jobs: &JobList) -> u64 {
    let mut count = 0;
    LOCK.with(|| jobs.all.each(|_| count += 1));
    count
}

/// The coroutine will not come back for its job.
pub(crate) fn abandon(co: Co) {
    let job = co.wait.more.replace(null_mut()).cast::<Job>();
    if !job.is_null() {
        LOCK.with(|| drop_job(job));
    }
}

/// LOCK is held.
fn drop_job(job: *mut Job) {
    // SAFETY: a job is alive until its helper or its coroutine frees it.
    let this = unsafe { &*job };
    this.unlink();
    if this.state.get() == State::Running {
        return this.state.set(State::Abandoned);
    }
    // SAFETY: queued or finished, and now in no list: nobody else knows it.
    unsafe { (this.free)(job) };
}

/// The loop ends: its coroutines will not be woken. `drop_all` follows.
pub(crate) fn forget_waiters(reactor: &Reactor, mut each: impl FnMut(Co)) {
    LOCK.with(|| {
        reactor.jobs.all.each(|link| {
            // SAFETY: a job in the loop's list is alive.
            let co = unsafe { (*of_loop(link)).co.replace(null()) };
            // SAFETY: the job's coroutine waits for it: one that goes abandons the job first.
            if let Some(co) = unsafe { Co::from_c(co) } {
                co.wait.more.set(null_mut());
                each(co);
            }
        });
    });
}

/// Frees the jobs of a loop that ends, for which nobody waits any more.
pub(crate) fn drop_all(reactor: &Reactor) {
    while LOCK.with(|| {
        let Some(link) = reactor.jobs.all.first() else { return false };
        drop_job(of_loop(link));
        true
    }) {}
}

/// The job that is in a loop's list by `link`.
fn of_loop(link: *const Link) -> *mut Job {
    link.cast::<u8>().wrapping_sub(offset_of!(Job, in_loop)).cast_mut().cast()
}

/// In a child of fork: jobs that a helper had are queued again.
pub(crate) fn after_fork(reactor: &Reactor) {
    let mut at = reactor.jobs.all.first();
    while let Some(link) = at {
        at = reactor.jobs.all.after(link);
        let job = of_loop(link);
        // SAFETY: a job in the loop's list is alive.
        let this = unsafe { &*job };
        if this.state.get() == State::Running {
            // The child has one thread: nobody else is here.
            HELP.put(this);
        }
    }
}

/// In a child of fork: nobody waits for this loop's jobs.
pub(crate) fn forget_after_fork(reactor: &Reactor) {
    let mut at = reactor.jobs.all.first();
    while let Some(link) = at {
        at = reactor.jobs.all.after(link);
        let job = of_loop(link);
        // SAFETY: a job in the loop's list is alive.
        let this = unsafe { &*job };
        if this.state.get() == State::Queued {
            HELP.queued.set(HELP.queued.get() - 1);
        }
        this.link.unlink();
    }
}

/// In a child of fork: the helpers stayed behind.
pub(crate) fn no_threads_after_fork() {
    if HELP.threads.get() > 0 {
        HELP.more_stack.set(HELP.more_stack.get() + 4096);
    }
    HELP.threads.set(0);
    HELP.idle.set(0);
    HELP.fresh.set(0);
    WORK_CAME.renew();
}

/// Starts helpers if there is work and nobody to do it (after a fork).
pub(crate) fn restart() {
    LOCK.with(have_helpers);
}
