//! The thread's environment: who runs, its caches, its loop. Made at the first co_create; found by
//! the thread's slot.
//!
//! It ends with the thread, after the destructors of C++ thread_local objects. Coroutines may outlive
//! it (another thread may release them), so the object itself stays until the last of them is gone:
//!
//! ```text
//!   alive: made and freed are those the owner counts, gone = those other threads freed (or adopted) meanwhile
//!   ended: gone counts down from what was left; whoever brings it to zero frees the object
//! ```
//!
//! Only the owner touches the cells. Other threads take the lock of [`others`] first and then look at `alive`,
//! `gone` and the list of coroutines to release.

pub(super) mod others;

use core::cell::Cell;
use core::ffi::c_void;
use core::mem::size_of;
use core::ptr::{NonNull, null, null_mut, without_provenance_mut};
use core::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::event::{self, LoopStats, Reactor};
use crate::routine::cond::Cond;
use crate::routine::copy;
use crate::routine::coroutine::{AT_END, Co, Coroutine, DEFAULT_STACK, RELEASE_SOON, RELEASED};
use crate::routine::debug;
use crate::routine::overflow;
use crate::routine::parked::Parked;
use crate::routine::stack::{self, StackMem};
use crate::routine::stack_cache;
use crate::routine::stats::Counts;
use crate::routine::watched;
use crate::sys::errno::Errno;
use crate::sys::exceptions::{self, ExceptionState};
use crate::sys::fault::{SignalStack, on_signal_stack};
use crate::sys::heap::{self, Zeroed};
use crate::sys::lock::with_signals_blocked;
use crate::sys::log::debug;
use crate::sys::pages;
use crate::sys::thread;
use crate::sys::tools;
use crate::util::list::{Link, List};
use crate::util::pool;

use others::ENVS;
pub(crate) use others::{
    Foreign, adopt, after_fork_in_child, count_foreign_new, count_gone, fork_lock, locked, release_foreign,
    with_alive,
};
pub(super) use others::{each, if_one, past};

/// What C knows as stCoRoutineEnv_t, opaque.
#[repr(C)]
pub(crate) struct Env {
    pub(super) current: Cell<*const Coroutine>,
    /// What the short ways of a switch look at, never null: `exceptions`, or one that sends them the slow way.
    exceptions_or_detour: Cell<*const ExceptionState>,
    /// How often a coroutine got control from its resumer. Written by this thread alone, by a plain increment.
    resumes: AtomicU64,
    /// How many coroutines have come to their end and were neither released nor reset since, more or less:
    /// programs write cEnd and cStart, and other threads release.
    ends: Cell<usize>,
    /// What it was when the stacks of those were last given back, or less.
    ends_served: Cell<usize>,
    pub(crate) parked: Parked,
    /// The loop that co_get_epoll_ct returns; made on first use.
    pub(super) reactor: AtomicPtr<Reactor>,
    /// Depth of sections that a signal handler must not interrupt with a wake-up of its own.
    busy: Cell<u32>,
    /// Conditions signalled from a handler or another thread, to be served by the owner.
    pub(crate) deferred: AtomicPtr<Cond>,
    /// Conditions with waiters of this thread.
    pub(crate) conds: List,
    pub(super) counts: Counts,
    gone: AtomicIsize,
    /// What loops have done that are gone. Under ENVS.
    past_loops: Cell<LoopStats>,
    /// The kernel's number of the thread.
    thread: Cell<i32>,
    alive: AtomicBool,
    /// In ENVS.alive, or in ENVS.ended.
    pub(super) in_envs: Link,
    /// Coroutines that another thread released while they ran or waited; under ENVS.
    to_release: Cell<*mut others::Handed>,
    any_to_release: AtomicU32,
    /// The thread's C++ exception state, or `no_exceptions`: never null.
    exceptions: Cell<*const ExceptionState>,
    service: Cell<*const StackMem>,
    /// Ended, as others see it, but its thread is not yet done with it.
    ending: Cell<bool>,
    /// How many coroutines are RELEASE_SOON.
    soon: Cell<usize>,
    /// The coroutine on whose stack the thread ended; null if on its own.
    ended_on: Cell<*const Coroutine>,
    /// The thread's own stack, as the sanitizers know it.
    pub(super) main_watched: watched::Main,
    signal_stack: SignalStack,
    /// Whom a resume by way of the service stack could not bring in.
    pub(crate) refused: Cell<*const Coroutine>,
    /// The stack the main coroutine says it has.
    main_stack: StackMem,
    no_exceptions: ExceptionState,
    pub(super) main: Coroutine,
    pub(crate) stacks: stack_cache::Cache,
    pub(crate) objects: pool::Cache,
}

/// Where the processor-specific code finds what it looks at.
pub(crate) mod at {
    use super::Env;
    use core::mem::offset_of;

    pub(crate) const CURRENT: usize = offset_of!(Env, current);
    pub(crate) const EXCEPTIONS: usize = offset_of!(Env, exceptions_or_detour);
    pub(crate) const RESUMES: usize = offset_of!(Env, resumes);
    pub(crate) const ENDS: usize = offset_of!(Env, ends);
}

// SAFETY: null pointers, zeros, empty lists and caches; `create` fills the rest.
unsafe impl Zeroed for Env {}

/// Bytes of the stack that work on a stack itself runs on: whole pages.
pub(super) fn service_bytes() -> usize {
    pages::size().max(16 * 1024)
}

/// The calling thread's environment, if it has one. Valid until the thread ends; used within a call.
#[inline(always)]
pub(crate) fn current() -> Option<&'static Env> {
    // SAFETY: the slot holds null or this thread's live environment.
    unsafe { thread::slot().cast::<Env>().as_ref() }
}

/// The calling thread's environment, made if there is none.
pub(crate) fn current_or_new() -> Result<&'static Env, Errno> {
    match current() {
        Some(env) => Ok(env),
        None => create(),
    }
}

#[cold]
fn create() -> Result<&'static Env, Errno> {
    let object = heap::alloc::<Env>().ok_or(Errno(libc::ENOMEM))?;
    if thread::call_at_end(thread_ends, object.as_ptr().cast()).is_err() {
        // SAFETY: just made, seen by nobody.
        unsafe { heap::free(object) };
        return Err(Errno(libc::ENOMEM));
    }
    // SAFETY: lives until the thread has ended and its last coroutine is gone.
    let env: &'static Env = unsafe { object.as_ref() };
    env.alive.store(true, Ordering::Relaxed);
    env.thread.set(thread::number());
    env.current.set(&env.main);
    env.main.env.set(env);
    env.main.c_is_main.set(1);
    env.main.stack_mem.set(&env.main_stack);
    env.main_stack.stack_size.set(DEFAULT_STACK);
    let state = exceptions::of_this_thread();
    env.exceptions.set(if state.is_null() { &env.no_exceptions } else { state });
    env.exceptions_or_detour.set(env.exceptions.get());
    if tools::watched() {
        env.exceptions_or_detour.set(exceptions::DETOUR.state());
        env.main_watched.begin();
    }
    // SAFETY: in no list yet; taken out when the thread ends.
    ENVS.lock.with(|| unsafe { ENVS.alive.push_back(&env.in_envs) });
    debug::keep_layout();
    env.signal_stack.provide();
    overflow::watch();
    thread::set_slot((&raw const *env).cast());
    debug!("a thread begins to use coroutines: environment {:p}", env);
    Ok(env)
}

impl Env {
    /// Whether a call that would wait has to do so by the plain call: on the main coroutine, and in a signal handler on a
    /// stack for such.
    #[inline]
    pub(crate) fn waits_plainly(&self) -> bool {
        let co = self.running();
        // (Elsewhere than on its stack it may also be in a context of the program's own, which may wait.)
        co.is_main() || !co.stands_on_its_stack() && on_signal_stack()
    }

    /// The running coroutine (the main one outside any).
    #[inline(always)]
    pub(crate) fn running(&self) -> &Coroutine {
        // SAFETY: never null after `create`; the running coroutine is alive.
        unsafe { &*self.current.get() }
    }

    /// As [`running`](Self::running), seen from any thread.
    pub(super) fn running_seen(&self) -> *const Coroutine {
        // SAFETY: a word of a live environment, which its own thread may be writing: as it is at some time.
        unsafe { self.current.as_ptr().read_volatile() }
    }

    /// The thread's main coroutine.
    pub(super) fn main(&self) -> &Coroutine {
        &self.main
    }

    #[inline(always)]
    pub(crate) fn set_running(&self, co: &Coroutine) {
        self.current.set(co);
    }

    #[inline(always)]
    pub(crate) fn exceptions(&self) -> &ExceptionState {
        // SAFETY: the thread's own state or ours: both live as long as the thread.
        unsafe { &*self.exceptions.get() }
    }

    /// Whether a switch may go the short way, as far as the thread is concerned.
    #[inline(always)]
    pub(crate) fn is_simple(&self) -> bool {
        // SAFETY: as above, or a static.
        unsafe { (*self.exceptions_or_detour.get()).is_empty() }
    }

    /// The loop that serves this thread, made on first use.
    pub(crate) fn reactor(&self) -> Result<&Reactor, Errno> {
        // (Another thread may have made it: SetEpoll.)
        let mut reactor = self.reactor.load(Ordering::Acquire);
        if reactor.is_null() {
            reactor = event::new_reactor(self)?.as_ptr();
            self.reactor.store(reactor, Ordering::Release);
        }
        // SAFETY: not null; a loop lives until its thread ends or FreeEpoll.
        Ok(unsafe { &*reactor })
    }

    /// The loop, if it was ever used.
    pub(crate) fn reactor_if_any(&self) -> Option<&Reactor> {
        // SAFETY: null or a live loop.
        unsafe { self.reactor.load(Ordering::Acquire).as_ref() }
    }

    /// SetEpoll: another loop for this thread (or with null the one made on first use).
    pub(crate) fn set_reactor(&self, reactor: *mut Reactor) {
        self.reactor.store(reactor, Ordering::Release);
    }

    /// A loop is freed: this thread no longer has it.
    pub(crate) fn lose_reactor(&self, reactor: &Reactor) {
        let gone = (&raw const *reactor).cast_mut();
        let _ = self.reactor.compare_exchange(gone, null_mut(), Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Before a long sleep: memory that nobody needs goes back to the kernel.
    #[cold]
    pub(crate) fn give_back_idle_memory(&self) {
        self.free_parked();
        self.stacks.shrink(8);
        self.objects.flush();
        let more_ended = (self.ends.get().wrapping_sub(self.ends_served.get())).cast_signed();
        if more_ended < 0 {
            self.ends_served.set(self.ends.get());
        }
        if more_ended < 16 {
            return stack::trim(16);
        }
        self.ends_served.set(self.ends.get());
        self.give_back_ended_stacks();
    }

    /// Coroutines that came to their end and were not released keep their block and their stack, but not what
    /// lies on it.
    fn give_back_ended_stacks(&self) {
        // With the lock held no other thread adopts or frees what is this thread's (`release_foreign`).
        ENVS.lock.with(|| {
            stack::trim_with(|also| {
                pool::each_tracked(|object, env| {
                    if !core::ptr::eq(env.cast(), self) {
                        return;
                    }
                    // SAFETY: a block in use whose environment is this thread's: alive, and nobody else's.
                    let co = unsafe { object.cast::<Coroutine>().as_ref() };
                    let is_kept = co.pending() & RELEASED == 0 && co.laid_down.get() == 0;
                    if co.has_come_to_its_end() && !co.on_copy_stack() && is_kept {
                        also(co.stack());
                    }
                });
            });
        });
    }

    /// Now and then while the loop is busy: as before a long sleep, if no stack was needed since the last time.
    #[cold]
    pub(crate) fn give_back_unused_memory(&self) {
        if stack::unused_since_last_asked() || self.ends.get() > self.ends_served.get() {
            self.give_back_idle_memory();
        }
    }

    /// There is no memory: everything that could be spared goes back.
    #[cold]
    pub(crate) fn give_back_all_memory(&self) {
        self.free_parked();
        self.stacks.shrink(0);
        self.objects.flush();
        stack::trim(1);
    }

    fn free_parked(&self) {
        self.parked.drain(|co| super::free_private(self, co));
    }

    /// Runs `section` so that a signal handler's co_cond_signal waits for its end. `section` does not
    /// switch. Work that handlers deferred is done afterwards.
    #[inline(always)]
    pub(crate) fn guarded<R>(&self, section: impl FnOnce() -> R) -> R {
        self.busy.set(self.busy.get() + 1);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        let result = section();
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        self.busy.set(self.busy.get() - 1);
        if !self.deferred.load(Ordering::Relaxed).is_null() && self.busy.get() == 0 {
            crate::routine::cond::serve_deferred(self);
        }
        result
    }

    /// Whether a guarded section is interrupted: then the caller is a signal handler.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.get() != 0
    }

    pub(crate) fn is_mine(&self) -> bool {
        core::ptr::eq(thread::slot().cast(), self)
    }

    /// The top of the service stack, made on first use.
    pub(crate) fn service_top(&self) -> Option<*mut u8> {
        if self.service.get().is_null() {
            self.service.set(self.stacks.take(service_bytes())?.as_ptr());
        }
        // SAFETY: taken above, given back when the thread ends.
        Some(unsafe { (*self.service.get()).stack_bp.get() })
    }

    /// `co` is RELEASE_SOON from now on.
    pub(super) fn release_soon(&self, co: &Coroutine) {
        self.soon.set(self.soon.get() + 1);
        others::count_marked();
        co.add_pending(RELEASE_SOON);
    }

    /// The time has come.
    pub(super) fn release_now(&self, co: Co) {
        self.soon.set(self.soon.get() - 1);
        others::release_marked(co);
    }

    /// Whether there is a service stack, seen from any thread.
    pub(super) fn has_service(&self) -> bool {
        // SAFETY: a word of a live environment, which its own thread may be writing: as it is at some time.
        !unsafe { self.service.as_ptr().read_volatile() }.is_null()
    }

    /// Looks for releases again when it next can.
    pub(crate) fn look_for_releases(&self) {
        self.any_to_release.store(1, Ordering::Relaxed);
    }

    /// A coroutine gets control, by another way than the short one of `arch`.
    pub(crate) fn count_resume(&self) {
        self.resumes.store(self.resumes.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// A routine came to its end.
    pub(crate) fn count_end(&self) {
        self.ends.set(self.ends.get().wrapping_add(1));
    }

    /// How many coroutines the thread has, or has left.
    pub(super) fn live(&self) -> u64 {
        let gone = self.gone.load(Ordering::Relaxed) as i64 - i64::from(self.ending.get());
        if self.alive.load(Ordering::Relaxed) {
            self.counts.kept().wrapping_add_signed(-gone)
        } else {
            gone as u64
        }
    }

    /// There and back, for each resume.
    pub(super) fn switches(&self) -> u64 {
        2 * self.resumes.load(Ordering::Relaxed) + self.counts.swaps.get()
    }

    /// A loop goes: what it has done. Environments are locked.
    pub(crate) fn keep_past(&self, done: &LoopStats) {
        let mut past = self.past_loops.get();
        past.add(done);
        self.past_loops.set(past);
    }

    /// What loops have done that are gone. Environments are locked.
    pub(super) fn past_loops(&self) -> LoopStats {
        self.past_loops.get()
    }

    /// The kernel's number of the thread; 0 if it has ended.
    pub(super) fn thread(&self) -> i32 {
        if self.alive.load(Ordering::Relaxed) { self.thread.get() } else { 0 }
    }

    /// `co` is released.
    #[inline(always)]
    pub(crate) fn count_one_less(&self, co: Co) {
        self.counts.freed.bump();
        self.uncount_end(co);
    }

    /// `co` is reset, or released.
    #[inline(always)]
    pub(crate) fn uncount_end(&self, co: Co) {
        self.ends.set(self.ends.get().wrapping_sub(usize::from(co.c_end.get() != 0)));
    }

    /// Whether another thread has asked for releases.
    #[inline]
    pub(crate) fn has_releases(&self) -> bool {
        self.any_to_release.load(Ordering::Relaxed) != 0
    }

    /// Releases what other threads have asked for.
    #[cold]
    pub(crate) fn serve_releases(&self) {
        let handed = ENVS.lock.with(|| {
            self.any_to_release.store(0, Ordering::Relaxed);
            self.to_release.replace(null_mut())
        });
        others::release_handed(self, handed);
    }
}

/// The pthread key's destructor. A signal handler finds the environment whole, or none.
unsafe extern "C" fn thread_ends(env: *mut c_void) {
    // SAFETY: the value that `create` gave this key.
    let env = unsafe { &*env.cast::<Env>() };
    watched::thread_ends(env);
    with_signals_blocked(|| end(env));
}

/// What the ending thread ran does not go on: it has ended, as far as that goes, and is freed if it was released meanwhile.
fn end_running(env: &Env) {
    let mut at = Co::of(env.running());
    // musl's pthread_exit does not go back to the thread's own stack.
    let mut stays = at.stands_on_its_stack();
    env.set_running(&env.main);
    while let Some(resumer) = at.resumer.get() {
        if stays {
            stays = false;
            env.ended_on.set(at.as_ptr());
            others::stays(at);
        } else {
            at.c_end.set(1);
            at.sp.set(without_provenance_mut(AT_END));
            env.count_end();
            // Before another thread may free the block, as one that has a stack of its own.
            let (pending, on_copy_stack) = (at.pending(), at.on_copy_stack());
            at.suspend();
            if pending & RELEASE_SOON != 0 {
                env.release_now(at);
            } else if on_copy_stack {
                copy::forget(env, at);
            }
        }
        at = resumer;
    }
    if env.soon.get() != 0 {
        // What left the chain by co_swap.
        others::release_all_marked(RELEASE_SOON, |of, co| {
            core::ptr::eq(of, env) && !core::ptr::eq(env.ended_on.get(), co.as_ptr())
        });
    }
}

fn end(env: &Env) {
    end_running(env);
    env.serve_releases();
    // Waits end here: nobody will serve them. Their coroutines can still be released by any thread.
    event::end_of_thread(env);
    if let Some(service) = NonNull::new(env.service.replace(null()).cast_mut()) {
        // SAFETY: from this cache; nobody runs on it.
        unsafe { env.stacks.put(service) };
    }
    env.free_parked();
    env.stacks.shrink(0);
    env.objects.flush();
    crate::routine::extra::drop_of(Co::of(&env.main));
    env.signal_stack.withdraw();
    thread::set_slot(null_mut());
    let left = ENVS.lock.with(|| env.end(true));
    // What came in between: signals on conditions on which nobody waits here any more, and releases. No wait is left, so
    // any thread may free now.
    crate::routine::cond::serve_deferred(env);
    env.serve_releases();
    let at = &raw const *env;
    others::let_go(env);
    // (Last: the program may listen, and fork.)
    debug!("a thread that used coroutines ends: environment {:p}, {left} coroutines left", at);
    stack::trim(1);
}

const _: () = assert!(size_of::<Env>() < 8192);
