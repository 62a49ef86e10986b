//! A number that one thread counts and any may read.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::sys::heap::Zeroed;

/// Written by one thread at a time (the owner, or whoever holds the lock that goes with it) by a plain load and store,
/// which is one instruction; read at any time. It wraps: of two counts that are subtracted the difference is right.
#[derive(Default)]
#[repr(transparent)]
pub(crate) struct Count(AtomicU64);

// SAFETY: zero.
unsafe impl Zeroed for Count {}

impl Count {
    #[inline(always)]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(crate) fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    #[inline(always)]
    pub(crate) fn sub(&self, less: u64) {
        self.set(self.get().wrapping_sub(less));
    }

    #[inline(always)]
    pub(crate) fn bump(&self) {
        self.add(1);
    }
}
