//! What the hooks know of a descriptor.
//!
//! A record belongs to the open file, like O_NONBLOCK itself: descriptors that dup the same file share
//! it. It hangs at the number's slot (`event::slot`). Records come from a list that never shrinks, so a
//! thread that still looks at one while another closes the number reads old values, not freed memory.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::size_of;
use core::ptr::{NonNull, null_mut, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::{choice, real};
use crate::event;
use crate::sys::epoll;
use crate::sys::errno::Errno;
use crate::sys::heap::{self, Zeroed};
use crate::sys::lock::Lock;
use crate::sys::process;

/// The program itself made it non-blocking: its calls return EAGAIN.
pub(super) const NONBLOCK_BY_PROGRAM: u32 = 1;
/// It is non-blocking underneath.
pub(super) const NONBLOCK_BELOW: u32 = 2;
/// The last read filled its buffer: there may be more.
const FILLED: u32 = 4;
/// SO_SNDTIMEO was set: connect keeps to it too.
pub(super) const WRITE_TIMEOUT_SET: u32 = 8;
/// Not a socket: a pipe, an eventfd, a terminal.
pub(super) const NOT_A_SOCKET: u32 = 16;
/// libco's own hooks would not know it: it never becomes non-blocking underneath on our account.
pub(super) const ADDED: u32 = 32;
/// It takes no RWF_NOWAIT for reads (for writes): asked by poll first.
pub(super) const READ_BY_POLL: u32 = 64;
pub(super) const WRITE_BY_POLL: u32 = 128;
/// SO_RCVTIMEO was set: sockets accepted from a listener inherit it, or SO_SNDTIMEO.
pub(super) const READ_TIMEOUT_SET: u32 = 256;
/// The time-out is co_set_timeout's: the kernel does not know it.
const READ_MS_BY_CALL: u32 = 512;
const WRITE_MS_BY_CALL: u32 = 1024;

/// Reads in a row that may go without a pass through the loop.
const STREAK: u16 = 64;

/// What the hooks know.
#[repr(C)]
pub(super) struct Record {
    /// Milliseconds to read in the lower half, to write in the upper, each -1 (for ever) or more. Of a free record
    /// the address of the next, which [`FREE_MARK`] tells from times: a thread that still looks sees a time that means
    /// nothing, and [`Record::change_times`] leaves it alone.
    times: AtomicU64,
    users: AtomicU32,
    flags: AtomicU16,
    streak: AtomicU16,
}

const _: () = assert!(size_of::<Record>() == 16);

// SAFETY: numbers.
unsafe impl Zeroed for Record {}

struct FreeList {
    lock: Lock,
    first: UnsafeCell<*mut Record>,
}

// SAFETY: `first` and the links are touched with the lock held.
unsafe impl Sync for FreeList {}

static FREE: FreeList = FreeList { lock: Lock::new(), first: UnsafeCell::new(null_mut()) };

/// In `times` of a free record, in the place of the time to write: a negative one that is not -1.
const FREE_MARK: u64 = 1 << 63;

const BATCH: usize = 128;

/// As the original: one second.
static DEFAULT_READ_MS: AtomicI32 = AtomicI32::new(1000);
static DEFAULT_WRITE_MS: AtomicI32 = AtomicI32::new(1000);

/// Held across fork.
pub(crate) fn fork_lock() -> &'static Lock {
    &FREE.lock
}

/// Both times in one word.
fn times((read_ms, write_ms): (c_int, c_int)) -> u64 {
    u64::from(write_ms.cast_unsigned()) << 32 | u64::from(read_ms.cast_unsigned())
}

/// The batch made last. The first record of each is none: it has the address of the batch before. (That of the next free
/// record carries a mark, which hides it from tools that look for lost memory.)
static LAST: AtomicPtr<Record> = AtomicPtr::new(null_mut());

/// Makes `batch` the last. The lock of the free list is held.
fn keep(batch: NonNull<Record>) {
    let before = LAST.swap(batch.as_ptr(), Ordering::Relaxed);
    // SAFETY: just made, and never freed.
    unsafe { batch.as_ref() }.times.store(before.expose_provenance() as u64, Ordering::Relaxed);
}

impl Record {
    fn new(flags: u32) -> Option<*mut Record> {
        let mut fresh = None;
        let record = loop {
            match FREE.lock.with(|| Record::take(fresh)) {
                Some(record) => break record,
                // Outside the lock, which a signal handler may want: see `Lock::with`.
                None => fresh = Some(heap::alloc_array::<Record>(BATCH)?),
            }
        };
        // SAFETY: records are never freed.
        let this = unsafe { &*record };
        this.users.store(1, Ordering::Relaxed);
        this.flags.store(flags as u16, Ordering::Relaxed);
        let defaults = (DEFAULT_READ_MS.load(Ordering::Relaxed), DEFAULT_WRITE_MS.load(Ordering::Relaxed));
        this.times.store(times(defaults), Ordering::Relaxed);
        this.streak.store(0, Ordering::Relaxed);
        Some(record)
    }

    /// One of the free records, after these fresh ones, but for the first, have joined them. The lock is held.
    fn take(fresh: Option<NonNull<Record>>) -> Option<*mut Record> {
        // SAFETY: the lock is held.
        let first = unsafe { &mut *FREE.first.get() };
        if let Some(fresh) = fresh {
            keep(fresh);
            for i in 1..BATCH {
                let record = fresh.as_ptr().wrapping_add(i);
                // SAFETY: BATCH records; never freed.
                unsafe { (*record).set_next(*first) };
                *first = record;
            }
        }
        let record = NonNull::new(*first)?.as_ptr();
        // SAFETY: a free record.
        *first = unsafe { (*record).next() };
        Some(record)
    }

    /// The next free record. The lock is held.
    fn next(&self) -> *mut Record {
        with_exposed_provenance_mut((self.times.load(Ordering::Relaxed) & !FREE_MARK) as usize)
    }

    /// Makes it a free record. The lock is held.
    fn set_next(&self, next: *mut Record) {
        self.times.store(next.expose_provenance() as u64 | FREE_MARK, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn has(&self, flag: u32) -> bool {
        u32::from(self.flags.load(Ordering::Relaxed)) & flag != 0
    }

    pub(super) fn put(&self, flag: u32, on: bool) {
        if on {
            self.flags.fetch_or(flag as u16, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!flag as u16, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn read_ms(&self) -> c_int {
        self.times.load(Ordering::Relaxed) as c_int
    }

    #[inline]
    pub(super) fn write_ms(&self) -> c_int {
        (self.times.load(Ordering::Relaxed) >> 32) as c_int
    }

    /// Sets times made of those there are. If another thread closed the number meanwhile, and the record is free,
    /// nothing: what it holds then is another's.
    fn change_times(&self, change: impl Fn(c_int, c_int) -> (c_int, c_int)) {
        let _ = self.times.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
            let (read_ms, write_ms) = (old as c_int, (old >> 32) as c_int);
            (write_ms >= -1).then(|| times(change(read_ms, write_ms)))
        });
    }

    /// SO_RCVTIMEO (or SO_SNDTIMEO) was set: zero means for ever.
    pub(super) fn set_timeout(&self, write: bool, value: &libc::timeval) {
        let ms = value.tv_sec.saturating_mul(1000).saturating_add((value.tv_usec + 999) / 1000);
        // Negative: the kernel does not wait at all.
        let ms = if value.tv_sec < 0 {
            0
        } else if ms == 0 {
            if choice::as_libco() { 0 } else { -1 }
        } else {
            c_int::try_from(ms).unwrap_or(c_int::MAX)
        };
        if write {
            self.change_times(|read_ms, _| (read_ms, ms));
            self.put(WRITE_TIMEOUT_SET, true);
            self.put(WRITE_MS_BY_CALL, false);
        } else {
            self.change_times(|_, write_ms| (ms, write_ms));
            self.put(READ_TIMEOUT_SET, true);
            self.put(READ_MS_BY_CALL, false);
        }
    }

    /// SO_RCVTIMEO (or SO_SNDTIMEO) as co_set_timeout set it; `None`: the kernel knows better.
    pub(super) fn timeout_by_call(&self, write: bool) -> Option<libc::timeval> {
        let (flag, ms) = match write {
            true => (WRITE_MS_BY_CALL, self.write_ms()),
            false => (READ_MS_BY_CALL, self.read_ms()),
        };
        // For ever is zero there.
        let ms = self.has(flag).then_some(ms.max(0))?;
        Some(libc::timeval { tv_sec: (ms / 1000).into(), tv_usec: (ms % 1000 * 1000).into() })
    }

    /// Whether a read may be tried before waiting: the last one filled its buffer, and not too often yet.
    #[inline]
    pub(super) fn try_first(&self) -> bool {
        self.has(FILLED) && self.one_more()
    }

    /// Whether the last read filled its buffer.
    #[inline]
    pub(super) fn is_filled(&self) -> bool {
        self.has(FILLED)
    }

    /// Counts a call that did not pass through the loop; false if it is time to.
    #[inline]
    pub(super) fn one_more(&self) -> bool {
        let streak = self.streak.load(Ordering::Relaxed);
        self.streak.store(streak + 1, Ordering::Relaxed);
        streak < STREAK
    }

    /// The coroutine passed through the loop.
    #[inline]
    pub(super) fn passed(&self) {
        self.streak.store(0, Ordering::Relaxed);
    }

    /// How a read ended.
    #[inline]
    pub(super) fn note_read(&self, filled: bool) {
        if filled != self.has(FILLED) {
            self.put(FILLED, filled);
        }
    }
}

/// What is known of a number.
#[inline(always)]
pub(super) fn get(fd: c_int) -> Option<&'static Record> {
    // SAFETY: null or a record of ours; those are never freed.
    unsafe { event::recorded(fd).cast::<Record>().as_ref() }
}

/// As [`get`], if calls on it shall wait: not if the program made it non-blocking.
#[inline(always)]
pub(super) fn waits(fd: c_int) -> Option<&'static Record> {
    get(fd).filter(|record| !record.has(NONBLOCK_BY_PROGRAM))
}

/// The number was given out: from now on it is one of ours. `ENOMEM` if that cannot be noted.
pub(super) fn record(fd: c_int, flags: u32) -> Result<(), Errno> {
    let no_memory = Errno(libc::ENOMEM);
    let slot = event::slot_or_new(fd).ok_or(no_memory)?;
    let record = Record::new(flags).ok_or(no_memory)?;
    drop_user(event::renew(slot));
    slot.record.store(record.cast(), Ordering::Release);
    Ok(())
}

/// As [`record`], for what libco does not know: it waits for ever unless told otherwise, as it did when it
/// blocked.
pub(super) fn record_added(fd: c_int, flags: u32) -> Result<(), Errno> {
    record(fd, flags | ADDED)?;
    if let Some(record) = get(fd) {
        record.change_times(|_, _| (-1, -1));
    }
    Ok(())
}

/// `EPERM` for a file that epoll does not take: a regular one, a directory, a device such as /dev/null.
fn can_be_waited_for(fd: c_int) -> Result<(), Errno> {
    let epfd = epoll::create()?;
    let taken = epoll::ctl(epfd, libc::EPOLL_CTL_ADD, fd, 0, 0);
    epoll::close(epfd);
    taken
}

/// co_hook_fd.
pub(crate) fn hand_over(fd: c_int) -> Result<(), Errno> {
    if get(fd).is_some() {
        return Ok(());
    }
    // SAFETY: asks for flags.
    let mode = unsafe { (real::get().fcntl)(fd, libc::F_GETFL, 0) };
    if mode < 0 {
        return Err(Errno::last());
    }
    // SAFETY: all-zero bytes are a stat.
    let mut file: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: writes the stat.
    if unsafe { libc::fstat(fd, &mut file) } < 0 {
        return Err(Errno::last());
    }
    can_be_waited_for(fd)?;
    let kind = if file.st_mode & libc::S_IFMT == libc::S_IFSOCK { 0 } else { NOT_A_SOCKET };
    let nonblocking = if mode & libc::O_NONBLOCK != 0 { NONBLOCK_BY_PROGRAM | NONBLOCK_BELOW } else { 0 };
    let no_memory = Errno(libc::ENOMEM);
    let slot = event::slot_or_new(fd).ok_or(no_memory)?;
    let record = Record::new(kind | nonblocking | ADDED).ok_or(no_memory)?;
    // SAFETY: records are never freed.
    unsafe { &*record }.change_times(|_, _| (-1, -1));
    // The number is the same file's as before: who waits for it already goes on.
    let place = &slot.record;
    if place.compare_exchange(null_mut(), record.cast(), Ordering::AcqRel, Ordering::Relaxed).is_err() {
        // Another thread was quicker.
        drop_user(record.cast());
    }
    Ok(())
}

/// The number was given out past the hooks: nothing of its past counts.
#[inline(always)]
pub(super) fn not_ours(fd: c_int) {
    if let Some(slot) = event::slot(fd)
        && !slot.record.load(Ordering::Relaxed).is_null()
    {
        drop_stale(slot);
    }
}

/// A number has a record of a file that is gone.
#[cold]
#[inline(never)]
fn drop_stale(slot: &event::Slot) {
    // (A child of vfork works in its parent's memory: the parent's number is as it was.)
    if process::is_mine() {
        drop_user(event::renew(slot));
    }
}

/// `copy` is a dup of `fd`: it shares what is known of the file.
pub(super) fn share(fd: c_int, copy: c_int) {
    not_ours(copy);
    if let Some(record) = get(fd)
        && process::is_mine()
        && let Some(slot) = event::slot_or_new(copy)
    {
        // (Closed by another thread meanwhile: nobody's record comes to life again.)
        let one_more = |users| (users > 0).then(|| users + 1);
        let known = record.users.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more).is_ok();
        drop_user(event::renew(slot));
        if known {
            slot.record.store((&raw const *record).cast_mut().cast(), Ordering::Release);
        }
    }
}

/// Closes a number by `call`: it leaves every loop first, then what is known of it is forgotten.
#[inline]
pub(super) fn close_by<R>(fd: c_int, call: impl FnOnce() -> R) -> R {
    let generation = event::leave_loops(fd);
    let result = call();
    closed(fd, generation);
    result
}

/// The second half of a close, after `event::leave_loops`; errno stays as it is.
#[inline]
pub(super) fn closed(fd: c_int, generation: Option<u32>) {
    if let Some(generation) = generation {
        drop_record(fd, generation);
    }
    event::closed(fd);
}

/// The number is about to be closed, one of many: forgets it at once.
pub(super) fn closing(fd: c_int) {
    if let Some(generation) = event::leave_loops(fd) {
        drop_record(fd, generation);
    }
}

/// What is known of a number goes, unless it was given out anew since it had this generation. No record is freed or
/// used again meanwhile: the same one, made another thread's for the same number, would be taken from it.
fn drop_record(fd: c_int, generation: u32) {
    if get(fd).is_none() {
        return;
    }
    FREE.lock.with(|| {
        let record = event::take_record(fd, generation).cast::<Record>();
        // SAFETY: null or a record, never freed.
        if let Some(this) = unsafe { record.as_ref() }
            && this.users.fetch_sub(1, Ordering::AcqRel) == 1
        {
            put_back(this);
        }
    });
}

/// Makes it a free record. The lock is held.
fn put_back(record: &Record) {
    // SAFETY: the lock is held.
    let first = unsafe { &mut *FREE.first.get() };
    record.set_next(*first);
    *first = (&raw const *record).cast_mut();
}

fn drop_user(record: *mut c_void) {
    // SAFETY: null or a record, never freed.
    let Some(this) = (unsafe { record.cast::<Record>().as_ref() }) else { return };
    if this.users.fetch_sub(1, Ordering::AcqRel) == 1 {
        FREE.lock.with(|| put_back(this));
    }
}

/// co_set_timeout.
pub(crate) fn set_timeouts(fd: c_int, read_ms: c_int, write_ms: c_int) -> Result<(), Errno> {
    let (read, write) = (read_ms.max(-1), write_ms.max(-1));
    if fd == -1 {
        DEFAULT_READ_MS.store(read, Ordering::Relaxed);
        DEFAULT_WRITE_MS.store(write, Ordering::Relaxed);
        return Ok(());
    }
    let record = get(fd).ok_or(Errno(libc::EBADF))?;
    record.change_times(|_, _| (read, write));
    record.put(WRITE_TIMEOUT_SET | READ_MS_BY_CALL | WRITE_MS_BY_CALL, true);
    Ok(())
}
