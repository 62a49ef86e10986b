//! Numbers that come and go by other calls than socket and close: dup, dup2, dup3, close_range, closefrom,
//! fclose. They do what libc's do; the hooks notice, so that a dup shares what is known of its file, and a number
//! that is given out anew starts afresh.

use core::ffi::{c_int, c_uint};

use libc::FILE;

use super::{fd_table, real, same_signature};
use crate::event;
use crate::sys::errno::Errno;

same_signature!(dup: fn(c_int) -> c_int);
same_signature!(dup2: fn(c_int, c_int) -> c_int);
same_signature!(dup3: fn(c_int, c_int, c_int) -> c_int);
same_signature!(fclose: fn(*mut FILE) -> c_int);

/// `int dup(int oldfd);`
///
/// # Safety
/// As dup(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dup(fd: c_int) -> c_int {
    // SAFETY: the caller's argument.
    let copy = unsafe { (real::get().dup)(fd) };
    if copy >= 0 {
        fd_table::share(fd, copy);
    }
    copy
}

/// `int dup2(int oldfd, int newfd);` The old file of `newfd` leaves every loop first, as by close.
///
/// # Safety
/// As dup2(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dup2(fd: c_int, copy: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    onto(fd, copy, || unsafe { (real::get().dup2)(fd, copy) })
}

/// `int dup3(int oldfd, int newfd, int flags);`
///
/// # Safety
/// As dup3(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn dup3(fd: c_int, copy: c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    onto(fd, copy, || unsafe { (real::get().dup3)(fd, copy, flags) })
}

/// Puts a dup of `fd` at the number `copy`.
fn onto(fd: c_int, copy: c_int, call: impl FnOnce() -> c_int) -> c_int {
    if fd != copy && event::is_used(copy) && event::is_open(fd) {
        event::leave_loops(copy);
    }
    let result = call();
    if result >= 0 && fd != copy {
        event::closed(copy);
        fd_table::share(fd, copy);
    }
    result
}

/// `int close_range(unsigned int first, unsigned int last, int flags);`
///
/// # Safety
/// As close_range(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    let closes = flags & libc::CLOSE_RANGE_CLOEXEC as c_int == 0;
    if closes {
        event::each_used(first, last, fd_table::closing);
    }
    // SAFETY: the caller's arguments.
    let result = unsafe { (real::get().close_range)(first, last, flags) };
    if closes {
        event::each_used(first, last, event::closed);
    }
    result
}

/// `void closefrom(int lowfd);`
///
/// # Safety
/// As closefrom(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn closefrom(first: c_int) {
    let numbers = first.max(0) as c_uint;
    event::each_used(numbers, c_uint::MAX, fd_table::closing);
    // SAFETY: the caller's argument.
    unsafe { (real::get().closefrom)(first) };
    event::each_used(numbers, c_uint::MAX, event::closed);
}

/// `int fclose(FILE *stream);` The stream's number leaves every loop first, as by close.
///
/// # Safety
/// As fclose(3).
#[cfg_attr(not(target_env = "musl"), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn fclose(stream: *mut FILE) -> c_int {
    let errno = Errno::last();
    // SAFETY: the caller's argument; asks for no lock, and says -1 of a stream without a number.
    let fd = unsafe { libc::fileno(stream) };
    errno.set();
    // SAFETY: the caller's argument.
    let call = || unsafe { (real::get().fclose)(stream) };
    if fd >= 0 { fd_table::close_by(fd, call) } else { call() }
}
