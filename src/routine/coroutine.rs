//! The control block: one object of 208 bytes per coroutine, all that a switch or a wait needs.
//!
//! ```text
//!     0  env  pfn  arg                      as the original's stCoRoutine_t
//!    24  ┌ coctx_t.regs of the original, which our switch does not use:
//!        │ sp, resumer, exceptions, wait (timer, node, loop, outcome)
//!   136  └ ss_size  ss_sp                   as the original's
//!   152  cStart cEnd cIsMain cEnableSysHook cIsShareStack   pending laid_down uses_copy_stack
//!   160  pvEnv: here the extras, the other specifics and whatever few coroutines need
//!   168  stack_mem  stack_sp  save_size     as the original's
//!   188  io_len: with wait.more and wait.count, a read that waits without a frame
//!   192  save_buffer                        as the original's
//!   200  aSpec[0]
//! ```
//!
//! cStart and cEnd are the truth for "new" and "ended": programs write them. "Running" is a non-null
//! `resumer` (a suspended coroutine has none). Programs read and write the visible part at any time,
//! so every member is a `Cell`. Invariant of [`Co`]: it is made only for live blocks.

use core::cell::Cell;
use core::ffi::{c_int, c_void};
use core::mem::{offset_of, size_of};
use core::ops::Deref;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use crate::arch;
use crate::event::{Node, Reactor, Timer};
use crate::routine::env::Env;
use crate::routine::extra::Extra;
use crate::routine::stack::StackMem;
use crate::sys::exceptions::ExceptionState;
use crate::util::pool::TRACKED_SIZE;

/// A routine as C sees it.
pub(crate) type Routine = unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// What a coroutine waits for, seen from the coroutine. See `event` for who writes what.
#[repr(C)]
pub(crate) struct Wait {
    /// In the wheel while waiting with a time-out, in a ready list once woken.
    pub(crate) timer: Timer,
    /// The one descriptor, or the place in a condition's queue.
    pub(crate) node: Node,
    /// The loop that serves this wait.
    pub(crate) reactor: Cell<*const Reactor>,
    /// More nodes (poll of several descriptors), the condition, the helper's job, or the buffer of a read
    /// that keeps no frame while it waits.
    pub(crate) more: Cell<*mut c_void>,
    /// How many nodes `more` has; the flags of a read without frame.
    pub(crate) count: Cell<u32>,
    state: AtomicU8,
    kind: Cell<WaitKind>,
    outcome: Cell<Outcome>,
    /// A mutex was handed over to this coroutine, which has not run since.
    pub(crate) granted: Cell<bool>,
}

/// Where a wait stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum WaitState {
    /// Not waiting.
    None = 0,
    /// Suspended until an event or a time-out.
    Waiting = 1,
    /// Woken: in its loop's ready list.
    Ready = 2,
}

/// What a wait is for: says what `node` and `more` hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum WaitKind {
    /// Nothing but time, or a pass through the loop.
    Time = 0,
    /// One descriptor, in `node`.
    Descriptor = 1,
    /// `count` descriptors, in the nodes at `more`.
    Descriptors = 2,
    /// A condition, at `more`; queued by `node`.
    Condition = 3,
    /// A helper thread's job, at `more`.
    Job = 4,
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Outcome {
    /// The time was over.
    TimedOut = 0,
    /// What was waited for came.
    Woken = 1,
    /// The condition was freed.
    Cancelled = 2,
    /// Somebody resumed the coroutine by hand.
    ByHand = 3,
    /// A signal handler ran while the loop slept.
    Interrupted = 4,
}

impl Wait {
    #[inline(always)]
    pub(crate) fn state(&self) -> WaitState {
        // Another thread that releases this coroutine looks here too: atomic, at no cost.
        match self.state.load(Ordering::Relaxed) {
            1 => WaitState::Waiting,
            2 => WaitState::Ready,
            _ => WaitState::None,
        }
    }

    #[inline(always)]
    pub(crate) fn set_state(&self, state: WaitState) {
        // (Who reads that a wait is over, from another thread, then sees the run that ended it.)
        self.state.store(state as u8, Ordering::Release);
    }

    pub(crate) fn kind(&self) -> WaitKind {
        self.kind.get()
    }

    pub(crate) fn set_kind(&self, kind: WaitKind) {
        self.kind.set(kind);
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome.get()
    }

    pub(crate) fn set_outcome(&self, outcome: Outcome) {
        self.outcome.set(outcome);
    }
}

/// The control block. C sees it as stCoRoutine_t (see `capi::co_routine_inner`).
#[repr(C)]
pub(crate) struct Coroutine {
    pub(crate) env: Cell<*const Env>,
    pub(crate) pfn: Cell<Option<Routine>>,
    pub(crate) arg: Cell<*mut c_void>,
    /// Where the suspended context lies; meaningless while running.
    pub(crate) sp: Cell<*mut u8>,
    /// Who gets control back at the next yield; `None` while suspended.
    pub(crate) resumer: Cell<Option<Co>>,
    pub(crate) exceptions: ExceptionState,
    pub(crate) wait: Wait,
    pub(crate) ss_size: Cell<usize>,
    pub(crate) ss_sp: Cell<*mut u8>,
    pub(crate) c_start: Cell<i8>,
    pub(crate) c_end: Cell<i8>,
    pub(crate) c_is_main: Cell<i8>,
    pub(crate) c_enable_sys_hook: Cell<i8>,
    pub(crate) c_is_share_stack: Cell<i8>,
    pending: AtomicU8,
    /// Not 0: released, and kept for the next co_create (`parked`), or about to be freed.
    pub(crate) laid_down: Cell<u8>,
    /// Not 0: counts among the users of its copy stack.
    pub(crate) uses_copy_stack: Cell<u8>,
    /// What few coroutines need, null in most.
    pub(crate) extra: Cell<*mut Extra>,
    pub(crate) stack_mem: Cell<*const StackMem>,
    pub(crate) stack_sp: Cell<*mut u8>,
    pub(crate) save_size: Cell<u32>,
    /// Bytes that a read without frame wants.
    pub(crate) io_len: Cell<u32>,
    pub(crate) save_buffer: Cell<*mut u8>,
    pub(crate) spec0: Cell<*mut c_void>,
}

const _: () = {
    assert!(size_of::<Coroutine>() == TRACKED_SIZE && offset_of!(Coroutine, env) == 0);
    assert!(size_of::<Wait>() == 80);
    assert!(offset_of!(Coroutine, sp) == 24);
    assert!(offset_of!(Coroutine, ss_size) == 24 + 112);
    assert!(offset_of!(Coroutine, c_start) == 152);
    assert!(offset_of!(Coroutine, c_enable_sys_hook) == 155);
    assert!(offset_of!(Coroutine, pending) == 157);
    assert!(offset_of!(Coroutine, laid_down) == 158);
    assert!(offset_of!(Coroutine, extra) == 160);
    assert!(offset_of!(Coroutine, save_buffer) == 192);
    assert!(offset_of!(Coroutine, spec0) == 200);
};

/// Where the processor-specific code finds what it looks at.
pub(crate) mod at {
    use super::{Coroutine, Wait};
    use crate::sys::exceptions;
    use core::mem::offset_of;

    pub(crate) const ENV: usize = offset_of!(Coroutine, env);
    pub(crate) const PFN: usize = offset_of!(Coroutine, pfn);
    pub(crate) const ARG: usize = offset_of!(Coroutine, arg);
    pub(crate) const SP: usize = offset_of!(Coroutine, sp);
    pub(crate) const RESUMER: usize = offset_of!(Coroutine, resumer);
    pub(crate) const WAIT_STATE: usize = offset_of!(Coroutine, wait) + offset_of!(Wait, state);
    pub(crate) const STACK_MEM: usize = offset_of!(Coroutine, stack_mem);
    /// The eight bytes of [`word`](super::word), the first of which is cStart.
    pub(crate) const WORD: usize = offset_of!(Coroutine, c_start);
    pub(crate) const ENDED: usize = offset_of!(Coroutine, c_end);
    /// Two bytes: neither is set in a coroutine that a switch alone can enter.
    pub(crate) const SHARE_AND_PENDING: usize = offset_of!(Coroutine, c_is_share_stack);
    pub(crate) const PENDING: usize = offset_of!(Coroutine, pending);

    pub(crate) const WAIT_KIND: usize = offset_of!(Coroutine, wait) + offset_of!(Wait, kind);
    pub(crate) const WAIT_COUNT: usize = offset_of!(Coroutine, wait) + offset_of!(Wait, count);
    pub(crate) const WAIT_MORE: usize = offset_of!(Coroutine, wait) + offset_of!(Wait, more);
    pub(crate) const BEGAN: usize = offset_of!(Coroutine, exceptions) + exceptions::at::BEGAN;
    pub(crate) const LAID_DOWN: usize = offset_of!(Coroutine, laid_down);

    const _: () = assert!(PENDING == SHARE_AND_PENDING + 1 && SHARE_AND_PENDING.is_multiple_of(2));
}

/// Free the block as soon as the coroutine yields or ends.
pub(crate) const RELEASE_SOON: u8 = 1;
/// Make it new again when it ends.
pub(crate) const RESET_AT_END: u8 = 2;
/// Another thread has released it: it never runs again, its own thread will free it.
pub(crate) const RELEASED: u8 = 4;
/// Suspended with C++ exceptions in flight: `exceptions` is not zero.
pub(crate) const IN_FLIGHT: u8 = 8;

/// `sp` of a coroutine whose routine has come to its end. (One that the program calls ended by cEnd = 1 may
/// go on when it says otherwise.)
pub(crate) const AT_END: usize = 1;

/// The eight bytes from cStart on as one little-endian word.
pub(crate) mod word {
    const HOOK: u64 = 0xff << 24;
    /// Everything that a resume has to look at.
    pub(crate) const FOR_RESUME: u64 = !HOOK;
    /// Private stack, started, not ended, nothing pending: the switch alone will do.
    pub(crate) const SUSPENDED: u64 = 1;
    /// As it is after the routine's end, and `laid_down`.
    pub(crate) const LAID_DOWN: u64 = 1 << 48 | 1 << 8 | 1;
}

impl Coroutine {
    /// Sets the word of cStart and what follows: in one store, which gets forwarded to the next load of it.
    #[inline(always)]
    fn set_word(&self, word: u64) {
        let at = (&raw const *self).cast_mut().cast::<u8>().wrapping_add(offset_of!(Coroutine, c_start));
        // SAFETY: eight bytes of cells and an atomic of this block, 8-byte aligned (asserted above: 152); one
        // that nobody but this thread has.
        unsafe { at.cast::<u64>().write(word.to_le()) };
    }

    pub(crate) fn pending(&self) -> u8 {
        self.pending.load(Ordering::Relaxed)
    }

    pub(crate) fn add_pending(&self, bit: u8) {
        self.pending.fetch_or(bit, Ordering::Relaxed);
    }

    pub(crate) fn clear_pending(&self, bit: u8) {
        self.pending.fetch_and(!bit, Ordering::Relaxed);
    }

    /// Whether its routine came to its end, and its stack has nothing on it that anybody needs.
    pub(crate) fn has_come_to_its_end(&self) -> bool {
        self.sp.get().addr() == AT_END && self.c_end.get() != 0
    }

    /// What it has in flight goes with its frames.
    pub(crate) fn forget_exceptions(&self) {
        self.exceptions.clear();
        self.clear_pending(IN_FLIGHT);
    }

    /// Whether a switch is all it takes to enter it, once it is suspended.
    #[inline(always)]
    pub(crate) fn is_simple(&self) -> bool {
        !self.on_copy_stack() && self.pending() == 0
    }

    pub(crate) fn is_main(&self) -> bool {
        self.c_is_main.get() != 0
    }

    pub(crate) fn on_copy_stack(&self) -> bool {
        self.c_is_share_stack.get() != 0
    }

    /// The lowest of its bytes that a resume will touch first, while it is suspended.
    #[inline(always)]
    pub(crate) fn picture(&self) -> *const u8 {
        if self.on_copy_stack() { self.save_buffer.get() } else { self.sp.get() }
    }

    /// Of the running coroutine: whether the calling function's frame is on its stack.
    #[inline]
    pub(crate) fn stands_on_its_stack(&self) -> bool {
        let here = 0_u8;
        (&raw const here).addr().wrapping_sub(self.ss_sp.get().addr()) < self.ss_size.get()
    }

    /// Bytes of its stack, if it has one of its own.
    pub(crate) fn private_bytes(&self) -> usize {
        if self.on_copy_stack() { 0 } else { self.stack().size() }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.resumer.get().is_some()
    }

    /// Its stack was left, and nobody has it as running any more: from here on another thread may release it. (Where the
    /// switch alone does it: `arch::suspend!`.)
    pub(crate) fn suspend(&self) {
        self.resumer_word().store(null_mut(), Ordering::Release);
    }

    /// As [`is_running`](Self::is_running), seen from any thread: its own may be writing the word, by the plain store of a
    /// switch. Here it is read as what several threads use, once and whole. False: what its last run did is over.
    pub(crate) fn seen_running(&self) -> bool {
        !self.resumer_word().load(Ordering::Acquire).is_null()
    }

    /// Its environment, seen from any thread: of a block that may be free or another's by now.
    pub(crate) fn env_seen(&self) -> *const Env {
        // SAFETY: an aligned word of the block, whose memory can be read for ever.
        unsafe { AtomicPtr::from_ptr(self.env.as_ptr().cast::<*mut Env>()) }.load(Ordering::Acquire)
    }

    fn resumer_word(&self) -> &AtomicPtr<Coroutine> {
        // SAFETY: an aligned word of a live block, null or a pointer (`Option<Co>` has the size of one). Its thread writes
        // it in assembler, or by a store of the whole word.
        unsafe { AtomicPtr::from_ptr(self.resumer.as_ptr().cast::<*mut Coroutine>()) }
    }

    /// Not running, waiting for nothing, on a private stack, with nothing else to free: most that are
    /// released.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        !self.is_running()
            && self.wait.state() == WaitState::None
            && self.wait.kind() != WaitKind::Descriptors
            && !self.is_main()
            && !self.on_copy_stack()
            && self.pending() == 0
            && self.laid_down.get() == 0
            && self.extra.get().is_null()
    }

    /// As if it had just been made, byte for byte: for one that was plain.
    #[inline(always)]
    pub(crate) fn renew(&self, pfn: Option<Routine>, arg: *mut c_void) {
        self.pfn.set(pfn);
        self.arg.set(arg);
        self.clear::<{ offset_of!(Coroutine, sp) }, { offset_of!(Coroutine, ss_size) }>();
        let stack = self.stack();
        self.ss_size.set(stack.size());
        self.ss_sp.set(stack.stack_buffer.get());
        self.set_word(0);
        self.clear::<{ offset_of!(Coroutine, stack_sp) }, { size_of::<Coroutine>() }>();
    }

    /// Zeros from one offset to another: to a suspended context, a wait, numbers and pointers that is as nothing yet.
    #[inline(always)]
    fn clear<const FROM: usize, const TO: usize>(&self) {
        let at = (&raw const *self).cast_mut().cast::<u8>().wrapping_add(FROM);
        // SAFETY: cells and atomics of a block that nobody but this thread has.
        unsafe { at.write_bytes(0, TO - FROM) };
    }

    /// Released, and kept for the next: a program that still resumes it is refused.
    #[inline(always)]
    pub(super) fn lay_down(&self) {
        self.set_word(word::LAID_DOWN);
    }

    pub(crate) fn stack(&self) -> &StackMem {
        // SAFETY: set at creation to memory that outlives the block, never changed by us; the
        // contract gives programs this pointer to read.
        unsafe { &*self.stack_mem.get() }
    }
}

/// A live coroutine. Copies are free; whoever keeps one across a call of the program's code looks
/// out that the coroutine was not released meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Co(NonNull<Coroutine>);

impl Co {
    /// `None` for null.
    ///
    /// # Safety
    /// `co` is null or a live control block.
    #[inline(always)]
    pub(crate) unsafe fn from_c(co: *const Coroutine) -> Option<Co> {
        NonNull::new(co.cast_mut()).map(Co)
    }

    pub(crate) fn of(co: &Coroutine) -> Co {
        Co(NonNull::from(co))
    }

    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *const Coroutine {
        self.0.as_ptr()
    }

    /// Asks for the block's memory.
    #[inline(always)]
    pub(crate) fn prefetch(self) {
        arch::prefetch_lines(self.0.as_ptr().cast(), size_of::<Coroutine>().div_ceil(arch::CACHE_LINE));
    }

    /// Its place in the pool.
    pub(crate) fn block(self) -> NonNull<u8> {
        self.0.cast()
    }

    /// The coroutine whose `wait.timer` this is.
    ///
    /// # Safety
    /// `timer` lies in a live control block.
    #[inline(always)]
    pub(crate) unsafe fn from_timer(timer: *const Timer) -> Co {
        let offset = offset_of!(Coroutine, wait) + offset_of!(Wait, timer);
        let co = timer.cast::<u8>().wrapping_sub(offset).cast_mut().cast();
        // SAFETY: inside a live block, so not null.
        Co(unsafe { NonNull::new_unchecked(co) })
    }
}

impl Deref for Co {
    type Target = Coroutine;

    #[inline(always)]
    fn deref(&self) -> &Coroutine {
        // SAFETY: the type's invariant.
        unsafe { self.0.as_ref() }
    }
}

/// Bytes of a stack as the API counts them.
pub(crate) const DEFAULT_STACK: c_int = 128 * 1024;
/// The most that co_create gives.
pub(crate) const LARGEST_STACK: c_int = 8 * 1024 * 1024;
