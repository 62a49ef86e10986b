//! The tracked objects: a look at one, a walk through all.

use core::mem::offset_of;
use core::ptr::{NonNull, null};
use core::sync::atomic::{AtomicPtr, Ordering};

use super::{CENTRAL, CHUNK, CentralState, Chunk, HEADER, TRACKED, TRACKED_SIZE};
use crate::util::list::Link;

/// Visits all tracked objects, in use or free, with the word that was published of each (a free one's says
/// nothing). The pool is locked meanwhile: `visit` neither takes nor gives objects.
pub(crate) fn each_tracked(mut visit: impl FnMut(NonNull<u8>, *mut u8)) {
    let mut all = Tracked::begin();
    all.visit(|object, word| {
        visit(object, word);
        true
    });
}

/// A walk through the tracked objects in parts, between which the pool is free and may change. What is there all the
/// time is visited once; what comes and goes may be or not.
pub(crate) struct Tracked {
    /// The chunk it has got to, as long as that has this serial number.
    chunk: *const Chunk,
    serial: u64,
    offset: usize,
    /// Chunks from this one on came later: the walk ends before them.
    end: u64,
}

impl Tracked {
    pub(crate) fn begin() -> Self {
        // SAFETY: the lock makes this thread the only user.
        let end = CENTRAL.lock.with(|| unsafe { (*CENTRAL.state.get()).serials });
        Tracked { chunk: null(), serial: 0, offset: HEADER, end }
    }

    /// The next part of [`each_tracked`]: ends when `visit` says false. False if that was the last one.
    pub(crate) fn visit(&mut self, mut visit: impl FnMut(NonNull<u8>, *mut u8) -> bool) -> bool {
        CENTRAL.lock.with(|| {
            // SAFETY: the lock makes this thread the only user.
            let state = unsafe { &*CENTRAL.state.get() };
            let mut at = self.resume(state);
            while let Some(chunk) = at.filter(|chunk| chunk.serial.get() < self.end) {
                self.chunk = chunk;
                self.serial = chunk.serial.get();
                let start = (&raw const *chunk).cast::<u8>().cast_mut();
                while self.offset < chunk.fresh.get() as usize {
                    let object = NonNull::new(start.wrapping_add(self.offset));
                    self.offset += TRACKED_SIZE;
                    if let Some(object) = object
                        && !visit(object, word_of(object))
                    {
                        return true;
                    }
                }
                at = state.tracked.after(&chunk.in_tracked).map(Chunk::of_tracked);
                self.offset = HEADER;
            }
            false
        })
    }

    /// The chunk where the walk goes on. The pool is locked.
    fn resume<'a>(&mut self, state: &'a CentralState) -> Option<&'a Chunk> {
        // SAFETY: null, or a chunk: its header is there for ever.
        let at = unsafe { self.chunk.as_ref() };
        if let Some(chunk) = at.filter(|chunk| chunk.is_tracked() && chunk.serial.get() == self.serial) {
            return Some(chunk);
        }
        let mut at = state.tracked.first().map(Chunk::of_tracked);
        if !self.chunk.is_null() {
            // It has gone, with all objects: on with those that came after it.
            self.offset = HEADER;
            while let Some(chunk) = at.filter(|chunk| chunk.serial.get() <= self.serial) {
                at = state.tracked.after(&chunk.in_tracked).map(Chunk::of_tracked);
            }
        }
        at
    }
}

/// Looks at what may be a tracked object: `None` if it is none. The pool is locked while `look` sees the word that was
/// published of it.
///
/// # Safety
/// `object` was a tracked object at some time.
pub(crate) unsafe fn with_tracked<R>(object: NonNull<u8>, look: impl FnOnce(*mut u8) -> R) -> Option<R> {
    let start = object.as_ptr().map_addr(|a| a & !(CHUNK - 1));
    let offset = object.as_ptr().addr() - start.addr();
    CENTRAL.lock.with(|| {
        // SAFETY: objects lie in chunks, which are aligned to their size, and whose headers are there for ever.
        let chunk = unsafe { &*start.cast::<Chunk>() };
        let is_one = chunk.is_tracked()
            && (HEADER..chunk.fresh.get() as usize).contains(&offset)
            && (offset - HEADER).is_multiple_of(TRACKED_SIZE);
        is_one.then(|| look(word_of(object)))
    })
}

/// The word that was published of a tracked object. The pool is locked.
fn word_of(object: NonNull<u8>) -> *mut u8 {
    // SAFETY: the first word of an object, which is only written by `publish` while this can see it.
    unsafe { AtomicPtr::<u8>::from_ptr(object.as_ptr().cast()) }.load(Ordering::Acquire)
}

impl Chunk {
    /// Whether it holds tracked objects, now.
    fn is_tracked(&self) -> bool {
        self.class.get() as usize == TRACKED && self.in_tracked.is_linked()
    }

    /// The chunk of a member of the list of such.
    fn of_tracked<'a>(link: *const Link) -> &'a Chunk {
        let chunk = link.cast::<u8>().wrapping_sub(offset_of!(Chunk, in_tracked)).cast::<Chunk>();
        // SAFETY: a chunk's link: chunks are never unmapped.
        unsafe { &*chunk }
    }
}
