//! A thread's free private stacks: last in, first out, their pages are warm. Filled and emptied in batches.

use core::cell::Cell;
use core::ptr::{NonNull, null};

use crate::routine::stack::{StackMem, class_of, locked, put_back, take_from};
use crate::sys::pages;

/// Stack sizes a thread keeps free stacks of.
const SIZES: usize = 4;
/// Free stacks of a size a thread keeps.
const KEEP: u32 = 64;

#[repr(C)]
struct CacheLine {
    size: Cell<usize>,
    free: Cell<*const StackMem>,
    count: Cell<u32>,
}

/// One thread's free stacks. All-zero bytes are an empty cache.
#[repr(C)]
pub(crate) struct Cache([CacheLine; SIZES]);

impl Cache {
    /// A stack of `size` bytes (whole pages), `None` without memory.
    #[inline]
    pub(crate) fn take(&self, size: usize) -> Option<NonNull<StackMem>> {
        for line in &self.0 {
            if line.size.get() == size
                && let Some(stack) = NonNull::new(line.free.get().cast_mut())
            {
                line.pop();
                return Some(stack);
            }
        }
        self.refill(size)
    }

    /// # Safety
    /// `stack` came from `take` or [`take_central`], and nobody runs on it any more.
    #[inline]
    pub(crate) unsafe fn put(&self, stack: NonNull<StackMem>) {
        // SAFETY: a record lives as long as its slab, which has this stack out.
        let stack = unsafe { stack.as_ref() };
        let size = stack.stack_size.get() as usize;
        let mut line = &self.0[0];
        if line.size.get() != size {
            line = self.line_for(size);
        }
        line.push(stack);
        if line.count.get() > KEEP {
            line.give_back(KEEP / 2);
        }
    }

    /// The line of a size, or an empty one, or one that is emptied for it.
    fn line_for(&self, size: usize) -> &CacheLine {
        let mine = self.0.iter().find(|line| line.size.get() == size);
        let line = mine.or_else(|| self.0.iter().find(|line| line.count.get() == 0)).unwrap_or_else(|| {
            let last = &self.0[SIZES - 1];
            last.give_back(0);
            last
        });
        line.size.set(size);
        line
    }

    #[cold]
    fn refill(&self, size: usize) -> Option<NonNull<StackMem>> {
        let line = self.line_for(size);
        locked(|| {
            // SAFETY: the lock is held.
            let class = unsafe { class_of(size) }?;
            // As many at once as the slab has opened already, up to a batch.
            for _ in 0..KEEP / 4 {
                // SAFETY: the lock is held.
                let Some(stack) = (unsafe { take_from(class, line.count.get() == 0) }) else { break };
                // SAFETY: just taken.
                line.push(unsafe { stack.as_ref() });
            }
            NonNull::new(line.free.get().cast_mut())
        })?;
        pages::say_if_unguarded();
        let stack = NonNull::new(line.free.get().cast_mut())?;
        line.pop();
        Some(stack)
    }

    /// How many there are, and their bytes.
    pub(super) fn stacks(&self) -> (u64, u64) {
        self.0.iter().fold((0, 0), |(count, bytes), line| {
            let more = u64::from(line.count.get());
            (count + more, bytes + more * line.size.get() as u64)
        })
    }

    /// Gives back all but a few; the memory goes back to the kernel with the next [`trim`].
    pub(crate) fn shrink(&self, keep: u32) {
        for line in &self.0 {
            if line.count.get() > keep {
                line.give_back(keep);
            }
        }
    }
}

impl CacheLine {
    #[inline(always)]
    fn push(&self, stack: &StackMem) {
        stack.occupy_co.set(self.free.get().cast());
        self.free.set(stack);
        self.count.set(self.count.get() + 1);
    }

    /// Takes the first one out; the line has one.
    #[inline(always)]
    fn pop(&self) {
        // SAFETY: records in the cache are alive, and their `occupy_co` is the next one.
        let stack = unsafe { &*self.free.get() };
        self.free.set(stack.occupy_co.replace(null()).cast());
        self.count.set(self.count.get() - 1);
    }

    fn give_back(&self, keep: u32) {
        locked(|| {
            while self.count.get() > keep {
                let stack = self.free.get();
                self.pop();
                // SAFETY: the lock is held; the stack was free in our cache.
                unsafe { put_back(stack) };
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routine::stack::trim;
    use crate::sys::pages;

    #[test]
    fn stacks_are_apart_writable_and_come_back() {
        // SAFETY: all-zero bytes are an empty cache.
        let cache: Cache = unsafe { core::mem::zeroed() };
        for size in [pages::size(), 64 * 1024, 128 * 1024] {
            let mut stacks: Vec<_> = (0..700).map(|_| cache.take(size).unwrap()).collect();
            // SAFETY: live records.
            stacks.sort_by_key(|s| unsafe { s.as_ref() }.stack_buffer.get().addr());
            for pair in stacks.windows(2) {
                // SAFETY: live records.
                let [a, b] = [pair[0], pair[1]].map(|s| unsafe { &*s.as_ptr() });
                assert!(a.stack_bp.get().addr() + pages::guard_size() <= b.stack_buffer.get().addr());
                for end in [a.stack_buffer.get(), a.stack_bp.get().wrapping_sub(1)] {
                    // SAFETY: the lowest and the highest byte of a stack of ours.
                    unsafe { end.write(1) };
                }
            }
            for stack in stacks {
                // SAFETY: taken above.
                unsafe { cache.put(stack) };
            }
        }
        cache.shrink(0);
        trim(1);
    }
}
