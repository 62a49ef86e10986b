//! Small objects in size classes: control blocks, saved stacks, wait nodes.
//!
//! ```text
//!   Cache (one per thread, no lock)          CENTRAL (one per process, a lock)
//!   class 0: o─o─o                           class 0: chunk ─ chunk        each 64 KiB, aligned:
//!   class 1: o─o              ◄── batches ──►class 1: chunk                ┌header┬obj┬obj┬ ... ┐
//!   ...                                      empty chunks                  └──────┴───┴───┴─────┘
//! ```
//!
//! An object may be freed by another thread than the one that took it: it belongs to its chunk, not
//! to a thread. A chunk whose objects are all free gives its pages back to the kernel. Objects over
//! [`LARGEST`] come from the C heap. Callers: `routine` (blocks, saved stacks), `event` (nodes).

use core::cell::{Cell, UnsafeCell};
use core::mem::size_of;
use core::ptr::{NonNull, null, null_mut};

use crate::sys::lock::Lock;
use crate::sys::pages;
use crate::util::list::{Link, List};

/// The largest size that has a class.
pub(crate) const LARGEST: usize = 8192;

const FINE: usize = 256;
const MIDDLE: usize = 1024;
const FINE_CLASSES: usize = FINE / 8;
const MIDDLE_CLASSES: usize = (MIDDLE - FINE) / 16;
/// Three doublings (1 to 8 KiB) of eight steps each.
const COARSE_CLASSES: usize = 24;
const CLASSES: usize = FINE_CLASSES + MIDDLE_CLASSES + COARSE_CLASSES;

const CHUNK: usize = 64 * 1024;
const REGION: usize = 16 * CHUNK;
/// At most this much of a class stays in a thread's cache.
const CACHE_BYTES: usize = 64 * 1024;

/// The class that holds objects of `size` bytes, 1 to [`LARGEST`].
#[inline(always)]
const fn class_of(size: usize) -> usize {
    if size <= FINE {
        size.saturating_sub(1) / 8
    } else if size <= MIDDLE {
        FINE_CLASSES + (size - FINE - 1) / 16
    } else {
        let doubling = (size - 1).ilog2() as usize - 10;
        let step = 128 << doubling;
        FINE_CLASSES + MIDDLE_CLASSES + doubling * 8 + (size - 1 - (MIDDLE << doubling)) / step
    }
}

/// The size of a class's objects.
const fn size_of_class(class: usize) -> usize {
    if class < FINE_CLASSES {
        (class + 1) * 8
    } else if class < FINE_CLASSES + MIDDLE_CLASSES {
        FINE + (class - FINE_CLASSES + 1) * 16
    } else {
        let coarse = class - FINE_CLASSES - MIDDLE_CLASSES;
        (MIDDLE << (coarse / 8)) + (coarse % 8 + 1) * (128 << (coarse / 8))
    }
}

/// What `size` bytes really get: buffers of one rounded size are interchangeable.
#[inline(always)]
pub(crate) const fn rounded(size: usize) -> usize {
    if size <= LARGEST {
        size_of_class(class_of(size))
    } else {
        let step = size.next_power_of_two() / 16;
        size.next_multiple_of(step)
    }
}

const SIZES: [u16; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        sizes[class] = size_of_class(class) as u16;
        class += 1;
    }
    sizes
};

/// A free object's first word.
struct Free {
    next: Cell<*const Free>,
}

/// How many objects of a class a thread keeps at most.
#[inline]
fn cache_limit(class: usize) -> u32 {
    (CACHE_BYTES / usize::from(SIZES[class])).clamp(8, 256) as u32
}

#[repr(C)]
struct CacheLine {
    free: Cell<*const Free>,
    count: Cell<u32>,
}

/// One thread's free objects. All-zero bytes are an empty cache.
#[repr(C)]
pub(crate) struct Cache([CacheLine; CLASSES]);

impl Cache {
    /// Uninitialised memory of `size` bytes (rounded up), 8-byte aligned; `None` without memory.
    #[inline]
    pub(crate) fn alloc(&self, size: usize) -> Option<NonNull<u8>> {
        if size > LARGEST {
            return alloc_large(size);
        }
        let line = &self.0[class_of(size)];
        let first = line.free.get();
        if first.is_null() {
            return self.refill(class_of(size));
        }
        // SAFETY: objects in the cache are free, and their first word is a `Free`.
        line.free.set(unsafe { (*first).next.get() });
        line.count.set(line.count.get() - 1);
        NonNull::new(first.cast_mut().cast())
    }

    /// Gives back an object of `size` bytes.
    ///
    /// # Safety
    /// It came from some thread's `alloc(size)` or from [`alloc_central`], and nobody uses it.
    #[inline]
    pub(crate) unsafe fn free(&self, object: NonNull<u8>, size: usize) {
        if size > LARGEST {
            // SAFETY: as the caller vouches; large objects are from the C heap.
            return unsafe { libc::free(object.as_ptr().cast()) };
        }
        let class = class_of(size);
        let line = &self.0[class];
        let free = object.cast::<Free>();
        // SAFETY: the object is free and at least eight bytes.
        unsafe { free.write(Free { next: Cell::new(line.free.get()) }) };
        line.free.set(free.as_ptr());
        line.count.set(line.count.get() + 1);
        if line.count.get() > cache_limit(class) {
            self.give_back(class, cache_limit(class) / 2);
        }
    }

    #[cold]
    fn refill(&self, class: usize) -> Option<NonNull<u8>> {
        let line = &self.0[class];
        CENTRAL.lock.with(|| {
            for _ in 0..cache_limit(class) / 2 {
                // SAFETY: the lock is held.
                let Some(object) = (unsafe { CENTRAL.take(class) }) else { break };
                let free = object.cast::<Free>();
                // SAFETY: the object was free until now.
                unsafe { free.write(Free { next: Cell::new(line.free.get()) }) };
                line.free.set(free.as_ptr());
                line.count.set(line.count.get() + 1);
            }
        });
        if line.free.get().is_null() { None } else { self.alloc(usize::from(SIZES[class])) }
    }

    #[cold]
    fn give_back(&self, class: usize, keep: u32) {
        let line = &self.0[class];
        CENTRAL.lock.with(|| {
            while line.count.get() > keep {
                let first = line.free.get();
                // SAFETY: objects in the cache are free.
                line.free.set(unsafe { (*first).next.get() });
                line.count.set(line.count.get() - 1);
                // SAFETY: the lock is held; the object was free in our cache.
                unsafe { CENTRAL.put(first.cast_mut().cast()) };
            }
        });
    }

    /// Gives everything back.
    pub(crate) fn flush(&self) {
        for class in 0..CLASSES {
            if self.0[class].count.get() > 0 {
                self.give_back(class, 0);
            }
        }
    }
}

/// As [`Cache::alloc`], for a thread without a cache.
pub(crate) fn alloc_central(size: usize) -> Option<NonNull<u8>> {
    if size > LARGEST {
        return alloc_large(size);
    }
    // SAFETY: the lock is held.
    CENTRAL.lock.with(|| unsafe { CENTRAL.take(class_of(size)) })
}

/// As [`Cache::free`], for a thread without a cache.
///
/// # Safety
/// As there.
pub(crate) unsafe fn free_central(object: NonNull<u8>, size: usize) {
    if size > LARGEST {
        // SAFETY: as the caller vouches.
        return unsafe { libc::free(object.as_ptr().cast()) };
    }
    // SAFETY: the lock is held; the object is free from now on.
    CENTRAL.lock.with(|| unsafe { CENTRAL.put(object.as_ptr()) });
}

fn alloc_large(size: usize) -> Option<NonNull<u8>> {
    // SAFETY: any size is allowed.
    NonNull::new(unsafe { libc::malloc(rounded(size)) }.cast())
}

/// The header of a chunk, in its first bytes.
#[repr(C)]
struct Chunk {
    /// In the class's list while it has room, in the list of empty chunks while nobody uses it.
    link: Link,
    free: Cell<*const Free>,
    class: Cell<u32>,
    used: Cell<u32>,
    /// Where objects that were never used begin.
    fresh: Cell<u32>,
}

const HEADER: usize = 64;
const _: () = assert!(size_of::<Chunk>() <= HEADER);

struct Central {
    lock: Lock,
    state: UnsafeCell<CentralState>,
}

struct CentralState {
    with_room: [List; CLASSES],
    empty: List,
    region: *mut u8,
    region_left: usize,
}

// SAFETY: `state` is touched with the lock held.
unsafe impl Sync for Central {}

static CENTRAL: Central = Central {
    lock: Lock::new(),
    state: UnsafeCell::new(CentralState {
        with_room: [const { List::new() }; CLASSES],
        empty: List::new(),
        region: null_mut(),
        region_left: 0,
    }),
};

/// Held across fork, so that the child finds the pool whole.
pub(crate) fn fork_lock() -> &'static Lock {
    &CENTRAL.lock
}

impl Central {
    /// # Safety
    /// The lock is held.
    unsafe fn take(&self, class: usize) -> Option<NonNull<u8>> {
        // SAFETY: the lock makes this thread the only user.
        let state = unsafe { &mut *self.state.get() };
        let chunk: *const Chunk = match state.with_room[class].first() {
            Some(link) => link.cast(),
            None => state.chunk(class)?,
        };
        // SAFETY: a chunk in the class's list is alive, `link` is its first member.
        let chunk = unsafe { &*chunk };
        chunk.used.set(chunk.used.get() + 1);
        let size = usize::from(SIZES[class]);
        let object = if chunk.free.get().is_null() {
            let at = chunk.fresh.get();
            chunk.fresh.set(at + size as u32);
            (&raw const *chunk).cast::<u8>().wrapping_add(at as usize)
        } else {
            let first = chunk.free.get();
            // SAFETY: it is in the chunk's list of free objects.
            chunk.free.set(unsafe { (*first).next.get() });
            first.cast()
        };
        if chunk.free.get().is_null() && chunk.fresh.get() as usize + size > CHUNK {
            chunk.link.unlink();
        }
        NonNull::new(object.cast_mut())
    }

    /// # Safety
    /// The lock is held; `object` is free and came from `take`.
    unsafe fn put(&self, object: *mut u8) {
        // SAFETY: the lock makes this thread the only user.
        let state = unsafe { &mut *self.state.get() };
        let start = object.map_addr(|a| a & !(CHUNK - 1)).cast::<Chunk>();
        // SAFETY: every object lies in a chunk, and chunks are aligned to their size.
        let chunk = unsafe { &*start };
        let free = object.cast::<Free>();
        // SAFETY: the object is free.
        unsafe { free.write(Free { next: Cell::new(chunk.free.get()) }) };
        chunk.free.set(free);
        chunk.used.set(chunk.used.get() - 1);
        if chunk.used.get() == 0 {
            chunk.link.unlink();
            // SAFETY: no object of this chunk is in use; the page with the header stays.
            unsafe { pages::discard(start.cast::<u8>().wrapping_add(pages::PAGE), CHUNK - pages::PAGE) };
            // SAFETY: the chunk stays where it is for ever.
            unsafe { state.empty.push_back(&chunk.link) };
        } else if !chunk.link.is_linked() {
            // SAFETY: as above.
            unsafe { state.with_room[chunk.class.get() as usize].push_back(&chunk.link) };
        }
    }
}

impl CentralState {
    /// A chunk for a class that has none with room.
    fn chunk(&mut self, class: usize) -> Option<*const Chunk> {
        let at: *mut Chunk = match self.empty.pop_front() {
            Some(link) => link.cast_mut().cast(),
            None => self.new_chunk()?,
        };
        // SAFETY: the chunk is unused memory of ours, at least a header long.
        unsafe {
            at.write(Chunk {
                link: Link::new(),
                free: Cell::new(null()),
                class: Cell::new(class as u32),
                used: Cell::new(0),
                fresh: Cell::new(HEADER as u32),
            });
        }
        // SAFETY: in the chunk just written.
        let link = unsafe { &raw const (*at).link };
        // SAFETY: a new link, in no list; the chunk stays where it is for ever.
        unsafe { self.with_room[class].push_back(link) };
        Some(at)
    }

    fn new_chunk(&mut self) -> Option<*mut Chunk> {
        if self.region_left == 0 {
            let (region, len) = match pages::reserve_aligned(REGION) {
                Ok(region) => (region, REGION),
                Err(_) => (pages::reserve_aligned(CHUNK).ok()?, CHUNK),
            };
            self.region = region;
            self.region_left = len;
        }
        let chunk = self.region;
        self.region = chunk.wrapping_add(CHUNK);
        self.region_left -= CHUNK;
        Some(chunk.cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_fits_its_class_and_no_smaller_one() {
        for size in 1..=LARGEST {
            let class = class_of(size);
            assert!(size_of_class(class) >= size, "{size}");
            assert!(class == 0 || size_of_class(class - 1) < size, "{size}");
        }
        assert_eq!(class_of(LARGEST), CLASSES - 1);
        assert_eq!(rounded(216), 216);
        assert!(rounded(LARGEST + 1) > LARGEST);
    }

    #[test]
    fn objects_do_not_overlap_and_come_back() {
        // SAFETY: all-zero bytes are an empty cache.
        let cache: Cache = unsafe { core::mem::zeroed() };
        for size in [8, 216, 336, 1000, 5000, 8192] {
            let mut objects: Vec<_> = (0..1000).map(|_| cache.alloc(size).unwrap()).collect();
            objects.sort();
            for pair in objects.windows(2) {
                assert!(pair[0].addr().get() + size <= pair[1].addr().get());
            }
            for object in &objects {
                // SAFETY: our object, `size` bytes long.
                unsafe { object.as_ptr().write_bytes(0xa5, size) };
            }
            for object in objects {
                // SAFETY: taken above, not used any more.
                unsafe { cache.free(object, size) };
            }
        }
        cache.flush();
        assert!(cache.0.iter().all(|line| line.count.get() == 0));
    }
}
