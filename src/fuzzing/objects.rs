//! Small objects from two threads' caches: none overlaps another, what is written stays, and the size that is asked for
//! is there.

use core::ptr::NonNull;

use super::bytes::Bytes;
use crate::util::pool::{self, Cache, TRACKED_SIZE};
use crate::util::size_class::{LARGEST, rounded};

const OBJECTS: usize = 64;

struct Object {
    at: NonNull<u8>,
    size: usize,
    tracked: bool,
    mark: u8,
}

fn a_size(bytes: &mut Bytes) -> usize {
    match bytes.below(4) {
        0 => 1 + bytes.below(256),
        1 => 1 + bytes.number(2) as usize % 1100,
        2 => LARGEST - 2 + bytes.below(5),
        _ => 1 + bytes.number(2) as usize % (3 * LARGEST),
    }
}

impl Object {
    fn new(cache: &Cache, bytes: &mut Bytes) -> Object {
        let tracked = bytes.below(4) == 0;
        let size = if tracked { TRACKED_SIZE } else { a_size(bytes) };
        assert!(rounded(size) >= size);
        let at = if tracked { cache.alloc_tracked() } else { cache.alloc(size) };
        let at = at.expect("there is memory");
        assert!(at.addr().get().is_multiple_of(8));
        let object = Object { at, size, tracked, mark: bytes.byte() };
        if tracked {
            // SAFETY: ours; a word that says it is in use.
            unsafe { pool::publish(at, at.as_ptr()) };
        }
        let own = at.as_ptr().wrapping_add(object.first());
        // SAFETY: `size` bytes of our own; what `publish` wrote stays.
        unsafe { own.write_bytes(object.mark, size - object.first()) };
        object
    }

    /// Where the bytes begin that are the owner's alone.
    fn first(&self) -> usize {
        if self.tracked { 8 } else { 0 }
    }

    fn check(&self) {
        // SAFETY: `size` bytes of our own, all written.
        let content = unsafe { core::slice::from_raw_parts(self.at.as_ptr(), self.size) };
        assert!(content[self.first()..].iter().all(|&byte| byte == self.mark), "somebody wrote here");
    }

    fn free(self, cache: &Cache) {
        self.check();
        if self.tracked {
            // SAFETY: from alloc_tracked, used no more.
            unsafe { cache.free_tracked(self.at) };
        } else {
            // SAFETY: from alloc of this size, used no more.
            unsafe { cache.free(self.at, self.size) };
        }
    }
}

pub(super) fn play(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    // SAFETY: all-zero bytes are empty caches.
    let caches: [Cache; 2] = unsafe { core::mem::zeroed() };
    let mut objects: [Option<Object>; OBJECTS] = [const { None }; OBJECTS];
    while !bytes.is_empty() {
        let action = bytes.byte();
        let cache = &caches[usize::from(action & 1)];
        // A few at a time: batches go to and fro then.
        let (from, count) = (bytes.below(OBJECTS), 1 + usize::from(action >> 4));
        if action & 14 == 14 {
            cache.flush();
            continue;
        }
        for i in 0..count {
            let place = &mut objects[(from + i) % OBJECTS];
            *place = match place.take() {
                None => Some(Object::new(cache, &mut bytes)),
                Some(object) => {
                    object.free(cache);
                    None
                }
            };
        }
        objects.iter().flatten().for_each(Object::check);
    }
    for object in objects.into_iter().flatten() {
        object.free(&caches[0]);
    }
    caches.iter().for_each(Cache::flush);
}
