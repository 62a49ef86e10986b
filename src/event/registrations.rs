//! A loop's registrations, found by number.

use core::cell::Cell;
use core::ffi::c_int;
use core::ptr::NonNull;

use crate::event::registration::Registration;
use crate::sys::heap::{self, Zeroed};

// SAFETY: a null pointer.
unsafe impl Zeroed for *mut Registration {}

const CHUNK: usize = 128;

/// A loop's registrations by number, in chunks that never move.
#[repr(C)]
pub(crate) struct Registrations {
    chunks: Cell<*mut *mut Registration>,
    count: Cell<usize>,
}

impl Registrations {
    #[inline(always)]
    pub(crate) fn get(&self, fd: c_int) -> Option<&Registration> {
        let number = fd as u32 as usize;
        if number / CHUNK >= self.count.get() {
            return None;
        }
        // SAFETY: `count` entries.
        let chunk = unsafe { *self.chunks.get().wrapping_add(number / CHUNK) };
        if chunk.is_null() {
            return None;
        }
        // SAFETY: CHUNK registrations.
        Some(unsafe { &*chunk.wrapping_add(number % CHUNK) })
    }

    pub(super) fn get_or_new(&self, fd: c_int) -> Option<&Registration> {
        let index = fd as u32 as usize / CHUNK;
        if index >= self.count.get() {
            let count = (index + 1).next_power_of_two().max(8);
            let grown = heap::alloc_array::<*mut Registration>(count)?;
            if let Some(old) = NonNull::new(self.chunks.get()) {
                // SAFETY: the old array has `self.count` entries, the new one more; it is another object.
                unsafe { core::ptr::copy_nonoverlapping(old.as_ptr(), grown.as_ptr(), self.count.get()) };
                // SAFETY: from `alloc_array`, in an earlier call; from here on `grown` stands for it.
                unsafe { heap::free(old) };
            }
            self.chunks.set(grown.as_ptr());
            self.count.set(count);
        }
        let entry = self.chunks.get().wrapping_add(index);
        // SAFETY: `index` is below `count` now.
        if unsafe { *entry }.is_null() {
            let chunk = heap::alloc_array::<Registration>(CHUNK)?;
            // SAFETY: as above.
            unsafe { *entry = chunk.as_ptr() };
        }
        self.get(fd)
    }

    /// Visits every registration that is armed or has waiters.
    pub(crate) fn each(&self, mut visit: impl FnMut(c_int, &Registration)) {
        for index in 0..self.count.get() {
            // SAFETY: `count` entries.
            if unsafe { *self.chunks.get().wrapping_add(index) }.is_null() {
                continue;
            }
            for place in 0..CHUNK {
                let fd = (index * CHUNK + place) as c_int;
                if let Some(entry) = self.get(fd)
                    && entry.is_used()
                {
                    visit(fd, entry);
                }
            }
        }
    }

    /// Frees the table. Nobody waits any more.
    pub(crate) fn drop_all(&self) {
        let Some(chunks) = NonNull::new(self.chunks.replace(core::ptr::null_mut())) else { return };
        for index in 0..self.count.replace(0) {
            // SAFETY: `count` entries, each null or a chunk of ours.
            if let Some(chunk) = NonNull::new(unsafe { *chunks.as_ptr().wrapping_add(index) }) {
                // SAFETY: as above, used no more.
                unsafe { heap::free(chunk) };
            }
        }
        // SAFETY: made by `get_or_new`, used no more.
        unsafe { heap::free(chunks) };
    }
}
