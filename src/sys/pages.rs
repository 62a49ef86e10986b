//! Pages: reserving, guarding and giving back memory.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use crate::arch;
use crate::sys::errno::Errno;
use crate::sys::log::error;
use crate::sys::{process, tools};

/// Bytes in a page, a power of two: 4 to 64 KiB on aarch64, as its kernel was built. Stacks and guards are whole pages.
#[inline(always)]
pub(crate) fn size() -> usize {
    if cfg!(target_arch = "x86_64") {
        return 4096;
    }
    // Asked at the first use and not when the library is loaded: constructors of the program's may come before ours.
    match SIZE.load(Ordering::Relaxed) {
        0 => ask_for_size(),
        size => size,
    }
}

/// Bytes of the guard below a stack: whole pages.
#[inline]
pub(crate) fn guard_size() -> usize {
    size().max(arch::LEAST_GUARD)
}

/// 0: nobody has asked yet.
static SIZE: AtomicUsize = AtomicUsize::new(0);

#[cold]
fn ask_for_size() -> usize {
    // SAFETY: asks for a number that the kernel gives every process.
    let size = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
    SIZE.store(size, Ordering::Relaxed);
    size
}

/// Linux 6.13: a guard that splits no mapping.
const MADV_GUARD_INSTALL: c_int = 102;

const UNKNOWN: u8 = 0;
const BY_MADVISE: u8 = 1;
const BY_MPROTECT: u8 = 2;

/// How guards are made here, found out once.
static GUARDS: AtomicU8 = AtomicU8::new(UNKNOWN);

/// `len` bytes of zeroed memory that cost nothing until touched, without huge pages.
pub(crate) fn reserve(len: usize) -> Result<*mut u8, Errno> {
    // SAFETY: a new private mapping, at a place the kernel chooses.
    let at = unsafe {
        libc::mmap(
            null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // A huge page under a slab of stacks would take 31 times the memory. Kernels without huge pages
    // refuse this, and need it not.
    // SAFETY: our own mapping.
    unsafe { libc::madvise(at, len, libc::MADV_NOHUGEPAGE) };
    Ok(at.cast())
}

/// As [`reserve`], aligned to `len`, a power of two.
pub(crate) fn reserve_aligned(len: usize) -> Result<*mut u8, Errno> {
    let wide = reserve(len * 2)?;
    let start = wide.map_addr(|a| a.next_multiple_of(len));
    let before = start.addr() - wide.addr();
    if before > 0 {
        // SAFETY: the part of our mapping below the aligned start.
        unsafe { release(wide, before) };
    }
    if before < len {
        // SAFETY: the part above the aligned end.
        unsafe { release(start.wrapping_add(len), len - before) };
    }
    Ok(start)
}

/// Lets the kernel use huge pages for these: for memory that is used whole, where a page of its own for every
/// few objects would cost a walk of the page tables for each. A kernel that has none stays as it is.
///
/// # Safety
/// The range is ours.
pub(crate) unsafe fn use_huge_pages(at: *mut u8, len: usize) {
    // SAFETY: as the caller vouches.
    unsafe { libc::madvise(at.cast(), len, libc::MADV_HUGEPAGE) };
}

/// Unmaps.
///
/// # Safety
/// The range is ours and nobody uses it any more.
pub(crate) unsafe fn release(at: *mut u8, len: usize) {
    // SAFETY: as the caller vouches.
    unsafe { libc::munmap(at.cast(), len) };
}

/// Gives the pages' memory back to the kernel; they read as zero when touched again. Guards stay.
///
/// # Safety
/// Nobody needs the contents.
pub(crate) unsafe fn discard(at: *mut u8, len: usize) {
    // SAFETY: as the caller vouches.
    unsafe { libc::madvise(at.cast(), len, libc::MADV_DONTNEED) };
}

/// Guards by mprotect, each of which makes two mappings more.
static MAPPED: AtomicUsize = AtomicUsize::new(0);
/// As many as there may be; 0: nobody has asked yet.
static MOST_MAPPED: AtomicUsize = AtomicUsize::new(0);

/// The kernel gives a process so many mappings if nobody says otherwise.
const MAPPINGS: usize = 65530;

const ENOUGH: u8 = 0;
const RAN_OUT: u8 = 1;
const SAID: u8 = 2;
static MAPPINGS_LEFT: AtomicU8 = AtomicU8::new(ENOUGH);

/// Whether there are `count` mapped guards more, of a quarter of the mappings: the program needs some as well, for its heap,
/// its threads and its files, and starves without.
fn take_mapped(count: usize) -> bool {
    let mut most = MOST_MAPPED.load(Ordering::Relaxed);
    if most == 0 {
        most = (process::most_mappings().unwrap_or(MAPPINGS) / 4).max(1);
        MOST_MAPPED.store(most, Ordering::Relaxed);
    }
    if MAPPED.fetch_add(count, Ordering::Relaxed) + count <= most {
        return true;
    }
    give_back_mapped(count);
    let _ = MAPPINGS_LEFT.compare_exchange(ENOUGH, RAN_OUT, Ordering::Relaxed, Ordering::Relaxed);
    false
}

/// `count` mapped guards are gone.
pub(crate) fn give_back_mapped(count: usize) {
    MAPPED.fetch_sub(count, Ordering::Relaxed);
}

/// Says, once, that stacks have no guards any more. Not where a lock is held: the program may listen.
pub(crate) fn say_if_unguarded() {
    if MAPPINGS_LEFT.load(Ordering::Relaxed) == RAN_OUT
        && MAPPINGS_LEFT.compare_exchange(RAN_OUT, SAID, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    {
        error!(
            "co_create: more stacks than {} have no guard: on this kernel each takes two mappings (Linux 6.13 does without), \
             and vm.max_map_count allows for no more; an overflow of one goes unnoticed",
            MOST_MAPPED.load(Ordering::Relaxed)
        );
    }
}

/// Makes `count` guards, whose pages fault when touched: the first at `at`, the others `stride` bytes apart. Returns how
/// many of them are to be given back by [`give_back_mapped`] when they go: all or none. Where guards take mappings and there are
/// too many, there are none from then on, which [`say_if_unguarded`] says.
///
/// # Safety
/// The pages are ours and nobody uses them.
pub(crate) unsafe fn guard(at: *mut u8, stride: usize, count: usize) -> Result<usize, Errno> {
    if GUARDS.load(Ordering::Relaxed) == UNKNOWN {
        let errno = Errno::last();
        // SAFETY: the first page is one of those to guard.
        let way = if unsafe { madvise_guards(at) } { BY_MADVISE } else { BY_MPROTECT };
        GUARDS.store(way, Ordering::Relaxed);
        errno.set();
    }
    if GUARDS.load(Ordering::Relaxed) == BY_MADVISE {
        // SAFETY: the pages are ours.
        if unsafe { guard_by_madvise(at, stride, count) }.is_ok() {
            return Ok(0);
        }
        // Locked memory refuses this kind of guard (EINVAL): protect instead.
    }
    if !take_mapped(count) {
        return Ok(0);
    }
    for i in 0..count {
        let guard: *mut c_void = at.wrapping_add(i * stride).cast();
        // SAFETY: the pages are ours.
        if unsafe { libc::mprotect(guard, guard_size(), libc::PROT_NONE) } != 0 {
            let errno = Errno::last();
            give_back_mapped(count);
            return Err(errno);
        }
    }
    Ok(count)
}

/// Whether guards by madvise really guard: an emulator may answer 0 and do nothing.
///
/// # Safety
/// The page is ours, unused, and to be a guard.
unsafe fn madvise_guards(page: *mut u8) -> bool {
    // SAFETY: our page.
    if unsafe { libc::madvise(page.cast(), size(), MADV_GUARD_INSTALL) } != 0 {
        return false;
    }
    let mut pipe: [c_int; 2] = [-1; 2];
    // SAFETY: two descriptors are written.
    if unsafe { libc::syscall(libc::SYS_pipe2, pipe.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        // No descriptor to test with: trust no guard that was not seen to fault.
        return false;
    }
    // SAFETY: the kernel reads one byte at `page`, or reports EFAULT.
    let written = unsafe { libc::syscall(libc::SYS_write, pipe[1], page, 1_usize) };
    let faulted = written == -1 && Errno::last() == Errno(libc::EFAULT);
    crate::sys::epoll::close(pipe[0]);
    crate::sys::epoll::close(pipe[1]);
    faulted
}

/// The lowest page of `len` bytes from `at` on (whole pages) that has memory: that was touched, and not given back since.
pub(crate) fn lowest_present(at: *mut u8, len: usize) -> Option<*mut u8> {
    const MANY: usize = 128;
    let errno = Errno::last();
    let mut present = [0_u8; MANY];
    let mut found = None;
    let size = size();
    for start in (0..len).step_by(MANY * size) {
        let part = (len - start).min(MANY * size);
        let from = at.wrapping_add(start);
        // SAFETY: writes a byte for each page of the part; pages that are not there give ENOMEM.
        if unsafe { libc::mincore(from.cast(), part, present.as_mut_ptr().cast()) } != 0 {
            break;
        }
        if let Some(page) = present[..part / size].iter().position(|page| page & 1 != 0) {
            found = Some(from.wrapping_add(page * size));
            break;
        }
    }
    errno.set();
    found
}

/// Whether `len` bytes (a multiple of eight) at `at` can be read. What is not ours may be asked about; the answer
/// holds while nobody changes the mapping.
pub(crate) fn are_readable(at: *const u8, len: usize) -> bool {
    /// Not something to do with a mask: the kernel reads it, and then refuses.
    const NOTHING: c_int = -1;
    let word = size_of::<u64>();
    let is_readable = |at: *const u8| {
        // SAFETY: the kernel reads one word at `at`, or reports EFAULT.
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, NOTHING, at, null_mut::<u64>(), word) };
        Errno::last() != Errno(libc::EFAULT)
    };
    let errno = Errno::last();
    let mut starts = (0..len).step_by(size()).chain(len.checked_sub(word));
    let all = starts.all(|offset| is_readable(at.wrapping_add(offset)));
    errno.set();
    all
}

/// Ranges per process_madvise call; the kernel takes 1024.
const BATCH: usize = 64;

/// # Safety
/// As [`guard`].
unsafe fn guard_by_madvise(at: *mut u8, stride: usize, count: usize) -> Result<(), Errno> {
    let mut done = 0;
    while count - done >= 8 {
        let batch = (count - done).min(BATCH);
        // SAFETY: as the caller vouches.
        if !unsafe { guard_batch(at.wrapping_add(done * stride), stride, batch) } {
            break;
        }
        done += batch;
    }
    for i in done..count {
        let guard = at.wrapping_add(i * stride);
        // SAFETY: the pages are ours.
        if unsafe { libc::madvise(guard.cast(), guard_size(), MADV_GUARD_INSTALL) } != 0 {
            return Err(Errno::last());
        }
    }
    Ok(())
}

/// One process_madvise for all guards of a batch; false where the kernel cannot.
///
/// # Safety
/// As [`guard`].
unsafe fn guard_batch(at: *mut u8, stride: usize, count: usize) -> bool {
    /// Linux 6.15: a pidfd for the calling process that needs no descriptor.
    const PIDFD_SELF_THREAD_GROUP: c_int = -10001;
    if tools::on_valgrind() {
        // It does not know the call, and says so at length.
        return false;
    }
    let mut guards = [libc::iovec { iov_base: null_mut(), iov_len: 0 }; BATCH];
    for (i, guard) in guards[..count].iter_mut().enumerate() {
        *guard = libc::iovec { iov_base: at.wrapping_add(i * stride).cast(), iov_len: guard_size() };
    }
    // SAFETY: `count` ranges, each some pages of ours.
    let advised = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            PIDFD_SELF_THREAD_GROUP,
            guards.as_ptr(),
            count,
            MADV_GUARD_INSTALL,
            0,
        )
    };
    usize::try_from(advised) == Ok(count * guard_size())
}
