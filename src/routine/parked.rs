//! Coroutines that were released, kept whole: block and stack together, for the next co_create of that
//! stack size. A server that makes a coroutine for each request gets the last one back, in the cache.
//!
//! ```text
//!   first ─► block ─► block ─► null        each with its private stack
//! ```
//!
//! They are linked by `stack_sp`, which one on a private stack does not use: who looks from another thread
//! (`inspect`) may see parts of a block from before it was laid down, or from after, and nothing that it tells of.
//!
//! Only plain ones (`Coroutine::is_plain`) of the thread itself; a few, of one size at a time. The rest of
//! what a thread keeps lies in `stack_cache` and `util::pool`.

use core::cell::Cell;
use core::ptr::null;

use crate::routine::coroutine::{Co, Coroutine};
use crate::util::count::Count;

/// As many as are kept.
const KEEP: u64 = 32;

/// One thread's. All-zero bytes are none.
#[repr(C)]
pub(crate) struct Parked {
    first: Cell<*const Coroutine>,
    /// Bytes of their stacks.
    size: Cell<u64>,
    count: Count,
}

impl Parked {
    /// The one that came last, if it has a stack of `size` bytes.
    #[inline(always)]
    pub(super) fn take(&self, size: usize) -> Option<Co> {
        if self.size.get() != size as u64 {
            return None;
        }
        self.pop()
    }

    #[inline(always)]
    fn pop(&self) -> Option<Co> {
        // SAFETY: null, or a block that was given to `put` and is nobody's since.
        let co = unsafe { Co::from_c(self.first.get()) }?;
        self.first.set(co.stack_sp.get().cast_const().cast());
        self.count.sub(1);
        Some(co)
    }

    /// Keeps a plain coroutine of this thread that nobody refers to any more; false if there are enough, or
    /// they are of another size.
    #[inline(always)]
    pub(super) fn put(&self, co: Co) -> bool {
        let size = co.stack().size() as u64;
        let count = self.count.get();
        if count == 0 {
            self.size.set(size);
        } else if count == KEEP || self.size.get() != size {
            return false;
        }
        co.lay_down();
        co.stack_sp.set(self.first.get().cast_mut().cast());
        self.first.set(co.as_ptr());
        self.count.set(count + 1);
        true
    }

    /// How many there are, and the bytes of their stacks, for any thread.
    pub(super) fn stacks(&self) -> (u64, u64) {
        let count = self.count.get();
        // SAFETY: our own word, which the thread itself may be writing: as it is at some time.
        (count, count * unsafe { self.size.as_ptr().read_volatile() })
    }

    /// Takes them all out.
    pub(super) fn drain(&self, mut each: impl FnMut(Co)) {
        while let Some(co) = self.pop() {
            each(co);
        }
        self.first.set(null());
    }
}
