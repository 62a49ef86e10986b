//! The process-wide table of descriptors: what belongs to a number, whichever thread looks.
//!
//! ```text
//!   TABLE[number >> 12] ──► 4096 slots (made on first use, never freed)
//!   slot: record      what the hooks know (null: not one of theirs)
//!         generation  goes up when the number is closed or given out anew
//!         loops       who has it in an epoll: nobody, one loop, several
//! ```
//!
//! Reading takes no lock. A registration or event that carries another generation is stale.

use core::ffi::{c_int, c_uint, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::event::loops;
use crate::sys::heap::{self, Zeroed};
use crate::sys::process;

const CHUNK: usize = 4096;
/// Numbers past this are served as plain descriptors; the kernel's own limit is far below by default.
const CHUNKS: usize = 16 * 1024;

/// What belongs to one number.
#[repr(C)]
pub(crate) struct Slot {
    pub(crate) record: AtomicPtr<c_void>,
    pub(crate) generation: AtomicU32,
    /// 0: in no loop's epoll. A loop's id: in that one. [`SEVERAL`]: ask all.
    pub(crate) loops: AtomicU32,
}

/// In more than one loop.
pub(crate) const SEVERAL: u32 = u32::MAX;
/// Not the program's at all: a loop's own descriptor.
pub(crate) const OURS: u32 = u32::MAX - 1;

// SAFETY: no record, generation 0, no loop.
unsafe impl Zeroed for Slot {}

static TABLE: [AtomicPtr<Slot>; CHUNKS] = [const { AtomicPtr::new(null_mut()) }; CHUNKS];

/// The slot of a number, if it was ever used.
#[inline(always)]
pub(crate) fn slot(fd: c_int) -> Option<&'static Slot> {
    let number = fd as u32 as usize;
    let chunk = TABLE.get(number / CHUNK)?.load(Ordering::Acquire);
    if chunk.is_null() {
        return None;
    }
    // SAFETY: a chunk has CHUNK slots and is never freed.
    Some(unsafe { &*chunk.wrapping_add(number % CHUNK) })
}

/// The slot of a number, made on first use; `None` without memory or for absurd numbers.
pub(crate) fn slot_or_new(fd: c_int) -> Option<&'static Slot> {
    if let Some(slot) = slot(fd) {
        return Some(slot);
    }
    let entry = TABLE.get(fd as u32 as usize / CHUNK)?;
    let fresh = heap::alloc_array::<Slot>(CHUNK)?;
    if entry.compare_exchange(null_mut(), fresh.as_ptr(), Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: another thread was quicker; nobody has seen this one.
        unsafe { heap::free(fresh) };
    }
    slot(fd)
}

/// What the hooks know of a number: null if it is not one of theirs.
#[inline(always)]
pub(crate) fn recorded(fd: c_int) -> *mut c_void {
    slot(fd).map_or(null_mut(), |slot| slot.record.load(Ordering::Acquire))
}

/// The number is about to be closed: takes it out of every loop's epoll and wakes who waits for it. Returns its
/// new generation if it has a record, which stays until it is closed: a call that begins meanwhile must still not
/// block. (One that it gets later is not this file's: co_hook_fd of another thread, to which the kernel has given
/// the number, leaves the generation as it is.)
pub(crate) fn leave_loops(fd: c_int) -> Option<u32> {
    let slot = slot(fd)?;
    let has_record = !slot.record.load(Ordering::Acquire).is_null();
    if slot.loops.load(Ordering::Acquire) == 0 && !has_record {
        return None;
    }
    if !process::is_mine() {
        // A child of vfork, which works in its parent's memory, closes its own copy of the number.
        return None;
    }
    // In this order: a wait that begins in between with the new generation notes its loop anew, and is found after the close;
    // one with the old generation is found by that.
    let loops = slot.loops.swap(0, Ordering::AcqRel);
    let old = slot.generation.fetch_add(1, Ordering::AcqRel);
    match loops {
        0 => {}
        OURS => loops::closing_ours(fd),
        loops => loops::closing(fd, old, loops),
    }
    has_record.then(|| old.wrapping_add(1))
}

/// The number was closed: takes its record, unless it was given out anew since it had this generation.
pub(crate) fn take_record(fd: c_int, generation: u32) -> *mut c_void {
    let Some(slot) = slot(fd) else { return null_mut() };
    let record = slot.record.load(Ordering::Acquire);
    let taken = slot.generation.load(Ordering::Acquire) == generation
        && slot.record.compare_exchange(record, null_mut(), Ordering::AcqRel, Ordering::Relaxed).is_ok();
    if taken { record } else { null_mut() }
}

/// Whether the number has a record, or is in a loop.
pub(crate) fn is_used(fd: c_int) -> bool {
    slot(fd).is_some_and(|slot| {
        slot.loops.load(Ordering::Acquire) != 0 || !slot.record.load(Ordering::Acquire).is_null()
    })
}

/// Visits the numbers from `first` to `last` that have a record, or are in a loop.
pub(crate) fn each_used(first: c_uint, last: c_uint, mut visit: impl FnMut(c_int)) {
    for (index, chunk) in TABLE.iter().enumerate() {
        let (from, to) = (index * CHUNK, index * CHUNK + CHUNK - 1);
        if chunk.load(Ordering::Acquire).is_null() || to < first as usize || from > last as usize {
            continue;
        }
        for number in from.max(first as usize)..=to.min(last as usize) {
            if is_used(number as c_int) {
                visit(number as c_int);
            }
        }
    }
}

/// Whether the number is a descriptor.
pub(crate) fn is_open(fd: c_int) -> bool {
    // SAFETY: asks for flags; past our own hook.
    unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_GETFD) >= 0 }
}

/// The number is a loop's own descriptor from now on.
pub(crate) fn make_ours(fd: c_int) {
    if let Some(slot) = slot_or_new(fd) {
        slot.loops.store(OURS, Ordering::Release);
    }
}

/// Whether the number is a loop's own descriptor.
pub(crate) fn is_ours(fd: c_int) -> bool {
    slot(fd).is_some_and(|slot| slot.loops.load(Ordering::Acquire) == OURS)
}

/// The number was a loop's own descriptor.
pub(crate) fn not_ours(fd: c_int) {
    if let Some(slot) = slot(fd) {
        let _ = slot.loops.compare_exchange(OURS, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// The number was given out anew (or past us): nothing of its past counts. Returns the old record.
pub(crate) fn renew(slot: &Slot) -> *mut c_void {
    slot.generation.fetch_add(1, Ordering::AcqRel);
    slot.loops.store(0, Ordering::Release);
    slot.record.swap(null_mut(), Ordering::AcqRel)
}
