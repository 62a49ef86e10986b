//! Numbers that come and go by other calls than socket and close: dup, dup2, dup3, close_range, closefrom,
//! and the calls that make descriptors the hooks do not know. They do what libc's do; the hooks notice, so
//! that a dup shares what is known of its file, and a number that is given out anew starts afresh.

use core::ffi::{c_int, c_uint};

use libc::{sockaddr, socklen_t};

use super::{fd_table, real, same_signature};
use crate::event;

same_signature!(dup: fn(c_int) -> c_int);
same_signature!(dup2: fn(c_int, c_int) -> c_int);
same_signature!(dup3: fn(c_int, c_int, c_int) -> c_int);
same_signature!(accept: fn(c_int, *mut sockaddr, *mut socklen_t) -> c_int);
same_signature!(accept4: fn(c_int, *mut sockaddr, *mut socklen_t, c_int) -> c_int);
same_signature!(pipe: fn(*mut c_int) -> c_int);
same_signature!(pipe2: fn(*mut c_int, c_int) -> c_int);
same_signature!(socketpair: fn(c_int, c_int, c_int, *mut c_int) -> c_int);

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
    if fd != copy && event::is_open(fd) {
        fd_table::closing(copy);
    }
    let result = call();
    if result >= 0 && fd != copy {
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
    if flags & libc::CLOSE_RANGE_CLOEXEC as c_int == 0 {
        event::each_used(first, last, fd_table::closing);
    }
    // SAFETY: the caller's arguments.
    unsafe { (real::get().close_range)(first, last, flags) }
}

/// `void closefrom(int lowfd);`
///
/// # Safety
/// As closefrom(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn closefrom(first: c_int) {
    event::each_used(first.max(0) as c_uint, c_uint::MAX, fd_table::closing);
    // SAFETY: the caller's argument.
    unsafe { (real::get().closefrom)(first) }
}

/// Notes that a number was given out past the hooks.
fn noticed(fd: c_int) -> c_int {
    fd_table::not_ours(fd);
    fd
}

/// `int accept(int sockfd, struct sockaddr *addr, socklen_t *addrlen);`
///
/// # Safety
/// As accept(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's arguments.
    noticed(unsafe { (real::get().accept)(fd, addr, len) })
}

/// `int accept4(int sockfd, struct sockaddr *addr, socklen_t *addrlen, int flags);`
///
/// # Safety
/// As accept4(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn accept4(
    fd: c_int,
    addr: *mut sockaddr,
    len: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's arguments.
    noticed(unsafe { (real::get().accept4)(fd, addr, len, flags) })
}

/// Notes that a pair of numbers was given out past the hooks, if it was.
///
/// # Safety
/// `pair` has two numbers if `result` is 0.
unsafe fn noticed_pair(result: c_int, pair: *mut c_int) -> c_int {
    if result == 0 {
        // SAFETY: as the caller vouches.
        noticed(unsafe { pair.read() });
        // SAFETY: as the caller vouches.
        noticed(unsafe { pair.wrapping_add(1).read() });
    }
    result
}

/// `int pipe(int pipefd[2]);`
///
/// # Safety
/// As pipe(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pipe(pair: *mut c_int) -> c_int {
    // SAFETY: the caller's argument.
    let result = unsafe { (real::get().pipe)(pair) };
    // SAFETY: the call filled it if it succeeded.
    unsafe { noticed_pair(result, pair) }
}

/// `int pipe2(int pipefd[2], int flags);`
///
/// # Safety
/// As pipe2(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pipe2(pair: *mut c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    let result = unsafe { (real::get().pipe2)(pair, flags) };
    // SAFETY: the call filled it if it succeeded.
    unsafe { noticed_pair(result, pair) }
}

/// `int socketpair(int domain, int type, int protocol, int sv[2]);`
///
/// # Safety
/// As socketpair(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn socketpair(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    pair: *mut c_int,
) -> c_int {
    // SAFETY: the caller's arguments.
    let result = unsafe { (real::get().socketpair)(domain, kind, protocol, pair) };
    // SAFETY: the call filled it if it succeeded.
    unsafe { noticed_pair(result, pair) }
}
