//! All environments: how one thread reaches another's, and what a thread's end and fork do to them.
//!
//! Whoever looks at an environment that is not its own holds the lock. It is the first of all that are taken: with it held
//! those of the loops, the stacks and the pool may be.

use core::mem::offset_of;
use core::ptr::{NonNull, null, null_mut};
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use super::{Env, current};
use crate::event;
use crate::routine::copy;
use crate::routine::coroutine::{Co, Coroutine, RELEASE_SOON, RELEASED, WaitState};
use crate::routine::stats::Past;
use crate::sys::heap::{self, Zeroed};
use crate::sys::lock::Lock;
use crate::sys::log::error;
use crate::sys::{thread, tools};
use crate::util::list::{Link, List};
use crate::util::pool;

/// Taken by a thread that deals with another thread's environment, and by an ending thread.
pub(in crate::routine) static ENVS: Envs =
    Envs { lock: Lock::new(), alive: List::new(), ended: List::new(), past: Past::new() };

pub(in crate::routine) struct Envs {
    pub(super) lock: Lock,
    /// All whose thread has not ended.
    pub(in crate::routine) alive: List,
    /// The others, which still have coroutines.
    ended: List,
    past: Past,
}

// SAFETY: everything is touched with the lock held.
unsafe impl Sync for Envs {}

/// Held across fork.
pub(crate) fn fork_lock() -> &'static Lock {
    &ENVS.lock
}

/// Runs `section` while no environment comes, goes, or changes hands.
pub(crate) fn locked<R>(section: impl FnOnce() -> R) -> R {
    ENVS.lock.with(section)
}

/// Visits all environments, with whether their thread is alive. They are locked.
pub(in crate::routine) fn each(mut visit: impl FnMut(&Env, bool)) {
    for (list, alive) in [(&ENVS.alive, true), (&ENVS.ended, false)] {
        list.each(|link| visit(of_link(link), alive));
    }
}

/// The environment at `place`, if there is one. Environments are locked.
pub(in crate::routine) fn if_one<'a>(place: *const Env) -> Option<&'a Env> {
    let is_it = |list: &List| {
        let mut at = list.first();
        while let Some(link) = at {
            if core::ptr::eq(of_link(link), place) {
                return true;
            }
            at = list.after(link);
        }
        false
    };
    // SAFETY: environments leave the lists before they go.
    (is_it(&ENVS.alive) || is_it(&ENVS.ended)).then(|| unsafe { &*place })
}

/// What ended threads have done. Environments are locked.
pub(in crate::routine) fn past() -> &'static Past {
    &ENVS.past
}

/// The environment of a member of one of the lists, which are locked.
fn of_link<'a>(link: *const Link) -> &'a Env {
    let env = link.cast::<u8>().wrapping_sub(offset_of!(Env, in_envs)).cast::<Env>();
    // SAFETY: environments leave the lists before they go.
    unsafe { &*env }
}

/// What a thread may do with a coroutine that belongs to another environment.
pub(crate) enum Foreign {
    /// Its thread is there: it has been asked to release the coroutine.
    HandedOver,
    /// Its thread has ended, or the coroutine waits for nothing: the caller frees it.
    Free,
    /// It was released before.
    Gone,
    /// No memory to do it; that was said.
    Kept,
    /// Its thread ended on its stack, and may still be there: it stays, which was said.
    Left,
}

/// A coroutine that another thread released while it ran or waited. Not linked by its own block: all of that is in use, or may be by
/// the time that its thread looks.
pub(super) struct Handed {
    next: *mut Handed,
    co: *const Coroutine,
}

// SAFETY: null pointers.
unsafe impl Zeroed for Handed {}

impl Env {
    /// Asks this thread to release `co`: when that yields, or when the thread next looks. (A note in the block
    /// alone could come just after the yield has looked for one.) Environments are locked.
    fn hand_over(&self, co: Co, handed: NonNull<Handed>) {
        self.list(handed, co.as_ptr());
        self.any_to_release.store(1, Ordering::Relaxed);
        event::kick(self);
    }

    /// Puts `handed`, in no list, among those that this thread will release. Environments are locked.
    fn list(&self, handed: NonNull<Handed>, co: *const Coroutine) {
        let entry = Handed { next: self.to_release.get(), co };
        // SAFETY: the caller's alone.
        unsafe { handed.write(entry) };
        self.to_release.set(handed.as_ptr());
    }
}

/// Releases a list of coroutines of the calling thread, whose environment is or was `env`, that were handed over.
pub(super) fn release_handed(env: &Env, mut next: *mut Handed) {
    while let Some(handed) = NonNull::new(next) {
        // SAFETY: from `hand_over`, and taken out of the environment's list.
        let entry = unsafe { handed.read() };
        next = entry.next;
        // SAFETY: what was handed over is alive until it is released here.
        let Some(co) = (unsafe { Co::from_c(entry.co) }) else { continue };
        if co.is_running() && env.alive.load(Ordering::Relaxed) {
            // Its yield or end, or the thread's, serves the list again.
            ENVS.lock.with(|| env.list(handed, entry.co));
            continue;
        }
        // SAFETY: read above, used no more.
        unsafe { heap::free(handed) };
        if core::ptr::eq(env.ended_on.get(), entry.co) {
            stays(co);
        } else {
            release_marked(co);
        }
    }
}

/// How many coroutines are marked RELEASED or RELEASE_SOON to be released later, or more.
static MARKED: AtomicUsize = AtomicUsize::new(0);

/// A coroutine is about to be marked.
pub(super) fn count_marked() {
    MARKED.fetch_add(1, Ordering::Acquire);
}

/// Takes the marks away.
fn unmark(co: Co) {
    for mark in [RELEASED, RELEASE_SOON] {
        if co.pending() & mark != 0 {
            co.clear_pending(mark);
            MARKED.fetch_sub(1, Ordering::Release);
        }
    }
}

/// A coroutine on whose stack its thread has ended is not released; it was asked for, and that is said.
pub(super) fn stays(co: Co) {
    if co.pending() & (RELEASED | RELEASE_SOON) != 0 {
        co.laid_down.set(1);
        unmark(co);
        say_left(co);
    }
}

/// Releases a coroutine that was marked, and that nobody runs any more: by this thread, or because its own has ended.
pub(super) fn release_marked(co: Co) {
    co.suspend();
    // In this order. If another thread forks now, its child either finds the mark, or the stack is not lost there.
    if co.on_copy_stack() {
        copy::leave_stack(co);
    }
    unmark(co);
    crate::routine::release(co);
}

/// Releases all that are marked by one of `marks` and of which `is_meant` is true, whose environments they say they have; nobody
/// runs them any more.
pub(super) fn release_all_marked(marks: u8, is_meant: impl Fn(*const Env, Co) -> bool) {
    const MANY: usize = 64;
    while MARKED.load(Ordering::Relaxed) != 0 {
        let mut found = [None; MANY];
        let mut count = 0;
        pool::each_tracked(|object, _| {
            // SAFETY: a block's memory can be read for ever.
            let co = Co::of(unsafe { object.cast::<Coroutine>().as_ref() });
            // (The mark first: a block that it is not on may have become another's meanwhile.)
            if count < MANY && co.pending() & marks != 0 && is_meant(co.env_seen(), co) {
                found[count] = Some(co);
                count += 1;
            }
        });
        for co in found.into_iter().flatten() {
            release_marked(co);
        }
        if count < MANY {
            return;
        }
    }
}

/// Decides who frees `co`, which belongs to another thread, alive or ended.
///
/// What its thread may be looking at is left to that thread: a wait, a place on a copy stack, a run.
pub(crate) fn release_foreign(co: Co) -> Foreign {
    let mut handed = None;
    let foreign = loop {
        if let Some(foreign) = ENVS.lock.with(|| decide(co, &mut handed)) {
            break foreign;
        }
        // Before anything is done, for there may be none. And outside the lock, which a signal handler may want: see
        // `Lock::with`.
        handed = heap::alloc::<Handed>();
        if handed.is_none() {
            error!(
                "co_release: no memory to hand coroutine {:p} to its thread: it is not released",
                co.as_ptr()
            );
            return Foreign::Kept;
        }
    };
    if let Some(unused) = handed {
        // SAFETY: made above, and not handed over.
        unsafe { heap::free(unused) };
    }
    if let Foreign::Left = foreign {
        say_left(co);
    }
    foreign
}

/// Says that a released coroutine stays for ever.
fn say_left(co: Co) {
    error!("co_release: coroutine {:p} is not freed: its thread ended on its stack", co.as_ptr());
}

/// See [`release_foreign`]; `None`, and nothing has happened, without a `Handed` for `HandedOver`. Environments are locked.
fn decide(co: Co, handed: &mut Option<NonNull<Handed>>) -> Option<Foreign> {
    // (The memory of a block can be read for ever. A free one has another's address there.)
    let Some(env) = if_one(co.env.get()) else { return Some(Foreign::Gone) };
    if co.laid_down.get() != 0 || co.pending() & (RELEASE_SOON | RELEASED) != 0 {
        return Some(Foreign::Gone);
    }
    if !env.alive.load(Ordering::Relaxed) {
        if env.ended_on.get() == co.as_ptr() {
            return Some(Foreign::Left);
        }
        co.laid_down.set(1);
        return Some(Foreign::Free);
    }
    (*handed)?;
    // (Before the mark: who finds that zero finds none.)
    count_marked();
    // From its next yield on it neither wakes nor takes a signal any more, and its thread leaves its stack alone.
    co.add_pending(RELEASED);
    fence(Ordering::SeqCst);
    // In this order. A wait that was over before the first look ended in a run that the second sees; one that began after it was
    // there before the coroutine was suspended, and the third look sees it. It cannot have begun, ended and run between them: its
    // resume begins with a look for the note above, and a round of the loop, with a system call, lies before that.
    let waits = || co.wait.state() != WaitState::None;
    let waited = waits();
    fence(Ordering::Acquire);
    if !(co.seen_running() || waited || waits() || co.on_copy_stack()) {
        // It is about to go, and counts as released from here on. (A child of fork looks for the mark.)
        co.laid_down.set(1);
        unmark(co);
        if tools::any() {
            tools::received(co.as_ptr().cast());
        }
        return Some(Foreign::Free);
    }
    env.hand_over(co, handed.take()?);
    Some(Foreign::HandedOver)
}

/// Runs `work` on another thread's environment if its thread has not ended. `env` may be gone.
pub(crate) fn with_alive(env: *const Env, work: impl FnOnce(&Env)) {
    ENVS.lock.with(|| {
        let mut at = ENVS.alive.first();
        while let Some(link) = at {
            let alive = of_link(link);
            if core::ptr::eq(alive, env) {
                return work(alive);
            }
            at = ENVS.alive.after(link);
        }
    });
}

/// A coroutine of `env` was freed, or adopted, by a thread that is not its owner, and with it so many bytes of
/// private stack.
pub(crate) fn count_gone(env: *const Env, bytes: usize) {
    one_less(env, bytes, false);
}

/// `ending`: its own thread, which needs it no more.
fn one_less(env: *const Env, bytes: usize, ending: bool) {
    let last = ENVS.lock.with(|| {
        // SAFETY: an environment lives as long as its coroutines and its thread, and this one still counts.
        let env = unsafe { &*env };
        if ending {
            env.ending.set(false);
        }
        env.counts.held.drop_elsewhere(bytes);
        if env.alive.load(Ordering::Relaxed) {
            env.gone.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let last = env.gone.fetch_sub(1, Ordering::Relaxed) == 1;
        if last {
            env.in_envs.unlink();
        }
        last
    });
    if last && let Some(env) = NonNull::new(env.cast_mut()) {
        // SAFETY: its thread has ended and it has no coroutine left.
        unsafe { heap::free(env) };
    }
}

/// `co`, which never ran, belongs to the calling thread's environment from now on. False if it was released.
pub(crate) fn adopt(env: &Env, co: Co) -> bool {
    let old = ENVS.lock.with(|| {
        let old = co.env.get();
        if_one(old)?;
        if co.laid_down.get() != 0 {
            return None;
        }
        // SAFETY: the block's first word.
        unsafe { pool::publish(co.block(), (&raw const *env).cast_mut().cast()) };
        Some(old)
    });
    let Some(old) = old else { return false };
    let bytes = co.private_bytes();
    env.counts.made.bump();
    env.counts.adopted.bump();
    env.counts.held.take(bytes);
    count_gone(old, bytes);
    true
}

/// A coroutine was made for `env` by another thread, with so many bytes of private stack.
pub(crate) fn count_foreign_new(env: &Env, bytes: usize) {
    ENVS.lock.with(|| {
        env.gone.fetch_sub(1, Ordering::Relaxed);
        env.counts.made_elsewhere.bump();
        env.counts.held.take_elsewhere(bytes);
    });
}

impl Env {
    /// The thread has ended: how many coroutines it leaves. `ending`: it still needs this object, until [`let_go`]. Environments
    /// are locked.
    pub(super) fn end(&self, ending: bool) -> isize {
        ENVS.past.keep(self);
        let left = self.live() as isize;
        self.alive.store(false, Ordering::Relaxed);
        self.ending.set(ending);
        self.gone.store(left + isize::from(ending), Ordering::Relaxed);
        self.in_envs.unlink();
        if left != 0 || ending {
            // SAFETY: in no list; it leaves this one when its last coroutine goes, and it with it.
            unsafe { ENVS.ended.push_back(&self.in_envs) };
        }
        left
    }
}

/// A child of fork has only the forking thread: the other environments have ended.
pub(crate) fn after_fork_in_child() {
    let mine = current();
    ENVS.alive.mend();
    ENVS.ended.mend();
    event::after_fork(mine);
    if let Some(env) = mine {
        env.thread.set(thread::number());
    }
    // The threads of the others do not exist here: their coroutines can be released.
    ENVS.alive.each(|link| {
        let env = of_link(link);
        if !mine.is_some_and(|mine| core::ptr::eq(mine, env)) {
            env.end(false);
        }
    });
    // What they were asked to release, and had not come to. Those that they ran nobody runs here.
    let mut ended = true;
    while ended {
        ended = false;
        let mut ending = None;
        ENVS.ended.each(|link| {
            let env = of_link(link);
            if env.ending.get() {
                ending = Some(env);
            }
            forget_handed(env.to_release.replace(null_mut()));
            env.ended_on.set(null());
        });
        if let Some(env) = ending {
            let_go(env);
            ended = true;
        }
    }
    copy::after_fork(mine, |env| if_one(env).is_some());
    release_all_marked(RELEASED | RELEASE_SOON, |env, _| {
        if_one(env).is_some_and(|env| !env.alive.load(Ordering::Relaxed))
    });
}

/// The thread that ends needs its environment no more.
pub(super) fn let_go(env: &Env) {
    one_less(env, 0, true);
}

/// Frees a list whose coroutines are released in another way.
fn forget_handed(mut next: *mut Handed) {
    while let Some(handed) = NonNull::new(next) {
        // SAFETY: from `hand_over`, and taken out of the environment's list.
        next = unsafe { handed.read() }.next;
        // SAFETY: read above, used no more.
        unsafe { heap::free(handed) };
    }
}
