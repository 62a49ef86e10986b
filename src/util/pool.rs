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
//!
//! One kind of object, the *tracked* one (control blocks), has chunks of its own, which [`each_tracked`] walks: the first
//! word of a free one is null or the address of another, of one in use it is what its owner stores there
//! by [`publish`].

mod tracked;

use core::cell::{Cell, UnsafeCell};
use core::mem::size_of;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::sys::lock::Lock;
use crate::sys::pages;
use crate::sys::tools::{self, Area};
use crate::util::list::{Link, List};
use crate::util::size_class::{self, LARGEST, class_of, rounded, size_of_class};

pub(crate) use tracked::{Tracked, each_tracked, with_tracked};

/// The class of the tracked objects; all others go by their size.
const TRACKED: usize = size_class::COUNT;
const CLASSES: usize = TRACKED + 1;

/// Bytes of a tracked object.
pub(crate) const TRACKED_SIZE: usize = 208;

const CHUNK: usize = 64 * 1024;
/// Memory comes from the kernel in regions, of huge pages once there are so many that a page more or less
/// does not count: then the objects of a million coroutines are a thousand pages, not a quarter of a million.
const REGION: usize = 16 * CHUNK;
const HUGE_REGION: usize = 4 * HUGE_PAGE;
const HUGE_PAGE: usize = 2 * 1024 * 1024;
const HUGE_FROM: usize = 16;
/// At most this much of a class stays in a thread's cache.
const CACHE_BYTES: usize = 64 * 1024;

const SIZES: [u16; CLASSES] = {
    let mut sizes = [0; CLASSES];
    let mut class = 0;
    while class < TRACKED {
        sizes[class] = size_of_class(class) as u16;
        class += 1;
    }
    sizes[TRACKED] = TRACKED_SIZE as u16;
    sizes
};

/// A free object's first word.
struct Free {
    next: AtomicPtr<Free>,
}

impl Free {
    fn next(&self) -> *mut Free {
        self.next.load(Ordering::Relaxed)
    }
}

/// Makes a free object of `object`, in front of `next`.
///
/// # Safety
/// At least eight bytes that nobody uses, 8-byte aligned.
#[inline(always)]
unsafe fn make_free(object: NonNull<u8>, next: *mut Free) -> *mut Free {
    // SAFETY: as the caller vouches; another thread's `each_tracked` may look, so it is one atomic store.
    unsafe { publish(object, next.cast()) };
    object.as_ptr().cast()
}

/// Stores an object's first word for [`each_tracked`] to see.
///
/// # Safety
/// The caller's object, 8-byte aligned.
#[inline(always)]
pub(crate) unsafe fn publish(object: NonNull<u8>, word: *mut u8) {
    // SAFETY: as the caller vouches.
    unsafe { AtomicPtr::from_ptr(object.as_ptr().cast()) }.store(word, Ordering::Release);
}

/// How many objects of a class a thread keeps at most.
#[inline]
fn cache_limit(class: usize) -> u32 {
    (CACHE_BYTES / usize::from(SIZES[class])).clamp(8, 256) as u32
}

#[repr(C)]
struct CacheLine {
    free: Cell<*mut Free>,
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
        self.take(class_of(size))
    }

    /// As [`alloc`](Self::alloc), a tracked object.
    #[inline]
    pub(crate) fn alloc_tracked(&self) -> Option<NonNull<u8>> {
        self.take(TRACKED)
    }

    #[inline(always)]
    fn take(&self, class: usize) -> Option<NonNull<u8>> {
        let line = &self.0[class];
        let Some(first) = NonNull::new(line.free.get()) else { return self.refill(class) };
        // SAFETY: objects in the cache are free, and their first word is a `Free`.
        line.free.set(unsafe { first.as_ref() }.next());
        line.count.set(line.count.get() - 1);
        Some(first.cast())
    }

    /// Gives back an object of `size` bytes.
    ///
    /// # Safety
    /// It came from some thread's `alloc(size)`, and nobody uses it.
    #[inline]
    pub(crate) unsafe fn free(&self, object: NonNull<u8>, size: usize) {
        if size > LARGEST {
            // SAFETY: as the caller vouches; large objects are from the C heap.
            return unsafe { libc::free(object.as_ptr().cast()) };
        }
        // SAFETY: as the caller vouches.
        unsafe { self.put(object, class_of(size)) };
    }

    /// Gives back a tracked object.
    ///
    /// # Safety
    /// It came from some thread's `alloc_tracked` or from [`alloc_tracked_central`], and nobody uses it.
    #[inline]
    pub(crate) unsafe fn free_tracked(&self, object: NonNull<u8>) {
        // SAFETY: as the caller vouches.
        unsafe { self.put(object, TRACKED) };
    }

    /// # Safety
    /// The object is of this class, and nobody uses it.
    #[inline(always)]
    unsafe fn put(&self, object: NonNull<u8>, class: usize) {
        let line = &self.0[class];
        // SAFETY: the object is free from now on.
        line.free.set(unsafe { make_free(object, line.free.get()) });
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
                // SAFETY: the object was free until now.
                line.free.set(unsafe { make_free(object, line.free.get()) });
                line.count.set(line.count.get() + 1);
            }
        });
        if line.free.get().is_null() { None } else { self.take(class) }
    }

    #[cold]
    fn give_back(&self, class: usize, keep: u32) {
        let line = &self.0[class];
        CENTRAL.lock.with(|| {
            while line.count.get() > keep {
                let Some(first) = NonNull::new(line.free.get()) else { break };
                // SAFETY: objects in the cache are free.
                line.free.set(unsafe { first.as_ref() }.next());
                line.count.set(line.count.get() - 1);
                // SAFETY: the lock is held; the object was free in our cache.
                unsafe { CENTRAL.put(first.cast()) };
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
    CENTRAL.lock.with(|| unsafe { CENTRAL.put(object) });
}

/// As [`Cache::alloc_tracked`], for a thread without a cache.
pub(crate) fn alloc_tracked_central() -> Option<NonNull<u8>> {
    // SAFETY: the lock is held.
    CENTRAL.lock.with(|| unsafe { CENTRAL.take(TRACKED) })
}

/// As [`Cache::free_tracked`], for a thread without a cache.
///
/// # Safety
/// As there.
pub(crate) unsafe fn free_tracked_central(object: NonNull<u8>) {
    // SAFETY: the lock is held; the object is free from now on.
    CENTRAL.lock.with(|| unsafe { CENTRAL.put(object) });
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
    /// In the list of chunks of tracked objects.
    in_tracked: Link,
    free: Cell<*mut Free>,
    class: Cell<u32>,
    used: Cell<u32>,
    /// Where objects that were never used begin.
    fresh: Cell<u32>,
    /// Goes up from each chunk of tracked objects to the next in their list.
    serial: Cell<u64>,
}

const HEADER: usize = 64;
const _: () = assert!(size_of::<Chunk>() <= HEADER);

struct Central {
    lock: Lock,
    state: UnsafeCell<CentralState>,
}

struct CentralState {
    with_room: [List; CLASSES],
    tracked: List,
    empty: List,
    region: *mut u8,
    region_left: usize,
    regions: usize,
    /// The next chunk's serial number.
    serials: u64,
}

// SAFETY: `state` is touched with the lock held.
unsafe impl Sync for Central {}

static CENTRAL: Central = Central {
    lock: Lock::new(),
    state: UnsafeCell::new(CentralState {
        with_room: [const { List::new() }; CLASSES],
        tracked: List::new(),
        empty: List::new(),
        region: null_mut(),
        region_left: 0,
        regions: 0,
        serials: 0,
    }),
};

/// Held across fork, so that the child finds the pool whole.
pub(crate) fn fork_lock() -> &'static Lock {
    &CENTRAL.lock
}

/// Where a debugger finds the tracked objects, as [`each_tracked`] walks them.
pub(crate) mod at {
    use super::{CENTRAL, CentralState, Chunk};
    use core::mem::offset_of;

    pub(crate) const LINK: usize = offset_of!(Chunk, in_tracked);
    pub(crate) const FRESH: usize = offset_of!(Chunk, fresh);
    pub(crate) const FIRST: usize = super::HEADER;
    pub(crate) const CHUNK: usize = super::CHUNK;

    /// The list of their chunks.
    pub(crate) const fn tracked() -> *const u8 {
        CENTRAL.state.get().cast_const().cast::<u8>().wrapping_add(offset_of!(CentralState, tracked))
    }
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
        let object = match NonNull::new(chunk.free.get()) {
            Some(first) => {
                // SAFETY: it is in the chunk's list of free objects.
                chunk.free.set(unsafe { first.as_ref() }.next());
                first.cast()
            }
            None => {
                let at = chunk.fresh.get();
                let object =
                    NonNull::new((&raw const *chunk).cast_mut().cast::<u8>().wrapping_add(at as usize))?;
                // (What lay there before must not look like an object in use.)
                // SAFETY: inside the chunk, unused so far.
                unsafe { make_free(object, null_mut()) };
                chunk.fresh.set(at + size as u32);
                object
            }
        };
        if chunk.free.get().is_null() && chunk.fresh.get() as usize + size > CHUNK {
            chunk.link.unlink();
        }
        Some(object)
    }

    /// # Safety
    /// The lock is held; `object` is free and came from `take`.
    unsafe fn put(&self, object: NonNull<u8>) {
        // SAFETY: the lock makes this thread the only user.
        let state = unsafe { &mut *self.state.get() };
        let start = object.as_ptr().map_addr(|a| a & !(CHUNK - 1)).cast::<Chunk>();
        // SAFETY: every object lies in a chunk, and chunks are aligned to their size.
        let chunk = unsafe { &*start };
        // SAFETY: the object is free.
        chunk.free.set(unsafe { make_free(object, chunk.free.get()) });
        chunk.used.set(chunk.used.get() - 1);
        if chunk.used.get() == 0 {
            chunk.link.unlink();
            chunk.in_tracked.unlink();
            // (Where a page is as large as a chunk, that is none.)
            let kept = pages::size().min(CHUNK);
            // SAFETY: no object of this chunk is in use; the page with the header stays.
            unsafe { pages::discard(start.cast::<u8>().wrapping_add(kept), CHUNK - kept) };
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
                in_tracked: Link::new(),
                free: Cell::new(null_mut()),
                class: Cell::new(class as u32),
                used: Cell::new(0),
                fresh: Cell::new(HEADER as u32),
                serial: Cell::new(self.serials),
            });
        }
        // SAFETY: in the chunk just written.
        let link = unsafe { &raw const (*at).link };
        // SAFETY: a new link, in no list; the chunk stays where it is for ever.
        unsafe { self.with_room[class].push_back(link) };
        if class == TRACKED {
            self.serials += 1;
            // SAFETY: in the chunk just written.
            let link = unsafe { &raw const (*at).in_tracked };
            // SAFETY: as above.
            unsafe { self.tracked.push_back(link) };
        }
        Some(at)
    }

    /// Memory for chunks, and how much.
    fn new_region(&self) -> Option<(*mut u8, usize)> {
        if self.regions >= HUGE_FROM
            && let Ok(region) = pages::reserve_aligned(HUGE_REGION)
        {
            // SAFETY: just reserved.
            unsafe { pages::use_huge_pages(region, HUGE_REGION) };
            return Some((region, HUGE_REGION));
        }
        match pages::reserve_aligned(REGION) {
            Ok(region) => Some((region, REGION)),
            Err(_) => Some((pages::reserve_aligned(CHUNK).ok()?, CHUNK)),
        }
    }

    fn new_chunk(&mut self) -> Option<*mut Chunk> {
        if self.region_left == 0 {
            let (region, len) = self.new_region()?;
            self.regions += 1;
            self.region = region;
            self.region_left = len;
            tools::holds_pointers(Area { bottom: region, size: len });
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
