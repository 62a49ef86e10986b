//! Blocking calls of the C library, run on a few helper threads while the coroutine waits on its loop.
//!
//! ```text
//!   coroutine ── run_job ──► QUEUE ──► helper runs it ──► the loop's `done` ── kick ──► coroutine
//! ```
//!
//! Helpers are made when there is work, have all signals blocked, and end after some idle seconds.
//! A coroutine that is released while its job runs leaves the job behind: the helper frees it. All of it
//! under one lock. A child of fork has no helpers: jobs under way are queued again.

use core::cell::Cell;
use core::ffi::c_void;
use core::mem::{MaybeUninit, offset_of};
use core::ptr::{null, null_mut};

use crate::event::loops::kick_loop;
use crate::event::reactor::Reactor;
use crate::event::wait::{self, begin};
use crate::routine::coroutine::{Outcome, WaitKind};
use crate::routine::{Co, Coroutine, Env};
use crate::sys::errno::Errno;
use crate::sys::lock::{Lock, Signal, with_signals_blocked};
use crate::util::list::{Link, List};

/// One call to make. The first member of a C heap object that holds arguments and results; `free`d by
/// whoever is last.
#[repr(C)]
pub(crate) struct Job {
    /// In QUEUE, or in a loop's list of finished jobs.
    link: Link,
    /// In its loop's list of all its jobs.
    in_loop: Link,
    /// Does the work, on a helper thread.
    work: unsafe fn(*mut Job),
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
    pub(crate) const fn new(work: unsafe fn(*mut Job)) -> Self {
        Job {
            link: Link::new(),
            in_loop: Link::new(),
            work,
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

/// Helper threads at most.
const HELPERS: usize = 4;
/// How long a helper without work stays, in seconds.
const IDLE_SECONDS: libc::time_t = 5;
/// A helper's stack: name service modules are not small.
const HELPER_STACK: usize = 512 * 1024;

struct Helpers {
    queue: List,
    threads: Cell<usize>,
    idle: Cell<usize>,
}

// SAFETY: everything is touched with LOCK held.
unsafe impl Sync for Helpers {}

static LOCK: Lock = Lock::new();
static WORK_CAME: Signal = Signal::new();
static HELP: Helpers = Helpers { queue: List::new(), threads: Cell::new(0), idle: Cell::new(0) };

/// Held across fork.
pub(crate) fn fork_lock() -> &'static Lock {
    &LOCK
}

/// Runs a job on a helper thread and waits for it, in a coroutine. `Err`: it was not run to its end (no
/// helper to be had, or somebody resumed the coroutine by hand), and the job is not the caller's any more.
///
/// # Safety
/// `job` is the first member of a C heap object filled for `work`, in no list. After `Ok` it is the
/// caller's again.
pub(crate) unsafe fn run_job(env: &Env, reactor: &Reactor, job: *mut Job) -> Result<(), Errno> {
    let co = Co::of(env.running());
    // SAFETY: as the caller vouches.
    let this = unsafe { &*job };
    this.co.set(co.as_ptr());
    this.loop_id.set(reactor.id());
    this.finished.set(&reactor.jobs);
    let helper = LOCK.with(|| {
        // SAFETY: a new job is in no list, and whoever frees it unlinks it first. LOCK is held.
        unsafe { reactor.jobs.all.push_back(&this.in_loop) };
        // SAFETY: the same of its other link: a helper takes it out, or `unlink` does.
        unsafe { HELP.queue.push_back(&this.link) };
        have_helper()
    });
    if let Err(error) = helper {
        LOCK.with(|| this.unlink());
        // SAFETY: in no list, and nobody else has seen it.
        unsafe { libc::free(job.cast()) };
        return Err(error);
    }
    env.guarded(|| {
        co.wait.more.set(job.cast());
        begin(reactor, co, WaitKind::Job, None);
    });
    wait::suspend(env, co);
    co.wait.more.set(null_mut());
    if co.wait.outcome() == Outcome::Woken { Ok(()) } else { Err(Errno(libc::EINTR)) }
}

impl Job {
    /// LOCK is held.
    fn unlink(&self) {
        self.link.unlink();
        self.in_loop.unlink();
    }
}

/// Sees to it that somebody takes the queue's work. LOCK is held.
fn have_helper() -> Result<(), Errno> {
    if HELP.idle.get() > 0 {
        WORK_CAME.raise_one();
        return Ok(());
    }
    if HELP.threads.get() < HELPERS {
        match start_helper() {
            Ok(()) => HELP.threads.set(HELP.threads.get() + 1),
            // The others will get to it.
            Err(error) if HELP.threads.get() == 0 => return Err(error),
            Err(_) => {}
        }
    }
    Ok(())
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
    unsafe { libc::pthread_attr_setstacksize(attr, HELPER_STACK) };
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
    loop {
        let Some(link) = HELP.queue.pop_front() else {
            HELP.idle.set(HELP.idle.get() + 1);
            let in_time = WORK_CAME.wait(&LOCK, IDLE_SECONDS);
            HELP.idle.set(HELP.idle.get() - 1);
            if !in_time && HELP.queue.is_empty() {
                break;
            }
            continue;
        };
        let job: *mut Job = link.cast_mut().cast();
        // SAFETY: `link` is a job's first member; a queued job is alive.
        let this = unsafe { &*job };
        this.state.set(State::Running);
        LOCK.unlock();
        // SAFETY: `work` belongs to this job.
        unsafe { (this.work)(job) };
        LOCK.lock();
        if this.state.get() == State::Abandoned {
            // SAFETY: nobody waits for it, and it is in no list.
            unsafe { libc::free(job.cast()) };
            continue;
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
    HELP.threads.set(HELP.threads.get() - 1);
    LOCK.unlock();
    null_mut()
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
    unsafe { libc::free(job.cast()) };
}

/// The loop ends: its coroutines will not be woken.
pub(crate) fn abandon_all(reactor: &Reactor, mut each: impl FnMut(Co)) {
    let of_link =
        |link: *const Link| link.cast::<u8>().wrapping_sub(offset_of!(Job, in_loop)).cast_mut().cast::<Job>();
    while let Some(link) = LOCK.with(|| reactor.jobs.all.first()) {
        let job = of_link(link);
        // SAFETY: a job in the loop's list is alive.
        let co = unsafe { (*job).co.get() };
        // SAFETY: the job's coroutine waits for it: one that goes abandons the job first.
        if let Some(co) = unsafe { Co::from_c(co) } {
            co.wait.more.set(null_mut());
            each(co);
        }
        LOCK.with(|| drop_job(job));
    }
}

/// In a child of fork: jobs that a helper had are queued again.
pub(crate) fn after_fork(reactor: &Reactor) {
    let mut at = reactor.jobs.all.first();
    while let Some(link) = at {
        at = reactor.jobs.all.after(link);
        let job = link.cast::<u8>().wrapping_sub(offset_of!(Job, in_loop)).cast::<Job>();
        // SAFETY: a job in the loop's list is alive.
        let this = unsafe { &*job };
        if this.state.get() == State::Running {
            this.state.set(State::Queued);
            // SAFETY: a running job is in no queue. The child has one thread: nobody else is here.
            unsafe { HELP.queue.push_back(&this.link) };
        }
    }
}

/// In a child of fork: nobody waits for this loop's jobs.
pub(crate) fn forget_after_fork(reactor: &Reactor) {
    let mut at = reactor.jobs.all.first();
    while let Some(link) = at {
        at = reactor.jobs.all.after(link);
        let job = link.cast::<u8>().wrapping_sub(offset_of!(Job, in_loop)).cast::<Job>();
        // SAFETY: a job in the loop's list is alive.
        unsafe { (*job).link.unlink() };
    }
}

/// In a child of fork: the helpers stayed behind.
pub(crate) fn no_threads_after_fork() {
    HELP.threads.set(0);
    HELP.idle.set(0);
    WORK_CAME.renew();
}

/// Starts a helper if there is work and nobody to do it (after a fork).
pub(crate) fn restart() {
    LOCK.with(|| {
        if !HELP.queue.is_empty() {
            // If there is none to be had the next job's coroutine will hear of it.
            let _ = have_helper();
        }
    });
}
