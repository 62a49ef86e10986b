//! epoll and eventfd.
//!
//! Made and closed by the system calls themselves: ThreadSanitizer, which watches the C library's, would see only a part of
//! a number's lives, and take those of two threads for a race.

use core::ffi::{c_int, c_long};
use core::mem::size_of;
use core::ptr::null;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::sys::errno::{Errno, check};
use crate::sys::tools;

/// Set once the kernel said it has no epoll_pwait2 (before 5.11), or under a tool.
static NO_PWAIT2: AtomicBool = AtomicBool::new(false);

/// A new epoll instance, close-on-exec.
pub(crate) fn create() -> Result<c_int, Errno> {
    if tools::on_valgrind() || tools::signals_come_late() {
        // valgrind does not know the call either, and says so at length; the other way leaves room for `shorten`.
        NO_PWAIT2.store(true, Ordering::Relaxed);
    }
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_epoll_create1, c_long::from(libc::EPOLL_CLOEXEC)) } as c_int)
}

/// `op` is EPOLL_CTL_ADD, MOD or DEL.
pub(crate) fn ctl(epfd: c_int, op: c_int, fd: c_int, events: u32, data: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the event outlives the call.
    check(unsafe { libc::epoll_ctl(epfd, op, fd, &mut event) }).map(|_| ())
}

/// Waits until an event comes or `*timeout` is over; `epfd` -1 waits for the time alone. Any other error than
/// `EINTR` means that `epfd` is no epoll descriptor any more.
///
/// The time-out is read from memory when the kernel is entered, so a signal handler that ran just
/// before can still shorten it: no wake-up is lost in the gap. `mask`: the signals blocked meanwhile,
/// null: the thread's own. `EINTR` if a signal handler ran; if not `strictly`, also if the process was stopped and
/// goes on, which epoll reports and poll does not (for one more system call).
///
/// # Safety
/// `events` has room for `capacity` events, `timeout` may be read and written during the call,
/// `mask` is null or may be read.
pub(crate) unsafe fn wait(
    epfd: c_int,
    events: *mut libc::epoll_event,
    capacity: c_int,
    timeout: *mut libc::timespec,
    mask: *const u64,
    strictly: bool,
) -> Result<usize, Errno> {
    if epfd >= 0 && !strictly && !NO_PWAIT2.load(Ordering::Relaxed) {
        // SAFETY: as the caller vouches.
        let count = cancellable(|| unsafe { pwait2(epfd, events, capacity, timeout, mask) });
        if count >= 0 {
            return Ok(count as usize);
        }
        match Errno::last() {
            Errno(libc::ENOSYS) => {}
            error => return Err(error),
        }
        NO_PWAIT2.store(true, Ordering::Relaxed);
    }
    if tools::signals_come_late() {
        // SAFETY: as the caller vouches.
        unsafe { shorten(timeout) };
    }
    let mut poll = libc::pollfd { fd: epfd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd (a negative descriptor is skipped); the kernel reads the time-out.
    let ready = cancellable(|| unsafe { ppoll(&mut poll, timeout, mask) });
    check(ready as c_int)?;
    if ready == 0 || epfd < 0 {
        return Ok(0);
    }
    let no_mask = null::<u64>();
    // SAFETY: as the caller vouches. Past our own hook.
    let count = unsafe {
        syscall(
            libc::SYS_epoll_pwait,
            c_long::from(epfd),
            events,
            c_long::from(capacity),
            0 as c_long,
            no_mask,
            size_of::<u64>(),
        )
    };
    check(count as c_int).map(|count| count as usize)
}

/// Sleeps of at most 20 ms: one that a signal would have ended ends soon, and the next has its handler run first.
///
/// # Safety
/// `timeout` may be read and written.
#[cold]
unsafe fn shorten(timeout: *mut libc::timespec) {
    const MOST: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    // SAFETY: as the caller vouches.
    let asked = unsafe { timeout.read_volatile() };
    if asked.tv_sec > 0 || asked.tv_nsec > MOST.tv_nsec {
        // SAFETY: as above.
        unsafe { timeout.write_volatile(MOST) };
    }
    tools::run_late_handlers();
}

unsafe extern "C-unwind" {
    /// The C library's, but unwinding may pass: a cancelled thread's does.
    fn syscall(number: c_long, ...) -> c_long;
    fn pthread_setcanceltype(new: c_int, old: *mut c_int) -> c_int;
}

/// pthread.h
const PTHREAD_CANCEL_ASYNCHRONOUS: c_int = 1;

/// Runs a system call that waits as a cancellation point, as the C library's own are: pthread_cancel ends a
/// thread that sleeps in the loop. Nothing is held here that would be lost.
fn cancellable(call: impl FnOnce() -> c_long) -> c_long {
    let mut old = 0;
    // SAFETY: writes `old`.
    unsafe { pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &mut old) };
    let result = call();
    let errno = Errno::last();
    // SAFETY: back to what it was.
    unsafe { pthread_setcanceltype(old, &mut old) };
    errno.set();
    result
}

/// # Safety
/// As [`wait`].
unsafe fn pwait2(
    epfd: c_int,
    events: *mut libc::epoll_event,
    capacity: c_int,
    timeout: *mut libc::timespec,
    mask: *const u64,
) -> c_long {
    // SAFETY: the arguments are the system call's.
    unsafe {
        syscall(
            libc::SYS_epoll_pwait2,
            c_long::from(epfd),
            events,
            c_long::from(capacity),
            timeout,
            mask,
            size_of::<u64>(),
        )
    }
}

/// The system call itself: the C library's wrapper would copy the time-out first and so open the gap again.
///
/// # Safety
/// Both pointers are valid; the kernel writes the remaining time back.
unsafe fn ppoll(poll: *mut libc::pollfd, timeout: *mut libc::timespec, mask: *const u64) -> c_long {
    // SAFETY: as the caller vouches.
    unsafe { syscall(libc::SYS_ppoll, poll, 1 as c_long, timeout, mask, size_of::<u64>()) }
}

/// A non-blocking eventfd.
pub(crate) fn eventfd() -> Result<c_int, Errno> {
    // SAFETY: no pointers.
    let made = unsafe {
        libc::syscall(libc::SYS_eventfd2, 0 as c_long, c_long::from(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))
    };
    check(made as c_int)
}

/// Makes an eventfd readable.
pub(crate) fn eventfd_raise(fd: c_int) {
    let one: u64 = 1;
    // SAFETY: writes eight bytes of a local. A full counter is readable already.
    unsafe { libc::syscall(libc::SYS_write, c_long::from(fd), &raw const one, 8 as c_long) };
}

/// Makes an eventfd unreadable again.
pub(crate) fn eventfd_drain(fd: c_int) {
    let mut count: u64 = 0;
    // SAFETY: reads eight bytes into a local.
    unsafe { libc::syscall(libc::SYS_read, c_long::from(fd), &raw mut count, 8 as c_long) };
}

/// `fd` once more, close-on-exec, at the lowest free number from `from` on. Past our own hook.
pub(crate) fn duplicate(fd: c_int, from: c_int) -> Result<c_int, Errno> {
    // SAFETY: no pointers.
    let copy = unsafe {
        libc::syscall(
            libc::SYS_fcntl,
            c_long::from(fd),
            c_long::from(libc::F_DUPFD_CLOEXEC),
            c_long::from(from),
        )
    };
    check(copy as c_int)
}

/// Closes a descriptor of the library's own.
pub(crate) fn close(fd: c_int) {
    // SAFETY: no pointers; the number is ours.
    unsafe { libc::syscall(libc::SYS_close, c_long::from(fd)) };
}
