//! What makes descriptors other than sockets' own socket(): pairs, eventfds, timers. If asked for they are known
//! to the hooks; else their numbers start afresh. They stay blocking, or not, as they were made.

use core::ffi::{c_int, c_uint};

use super::choice::{Hook, active_for};
use super::fd_table::{self, NONBLOCK_BELOW, NONBLOCK_BY_PROGRAM, NOT_A_SOCKET};
use super::io::failed;
use super::{real, same_signature};

same_signature!(pipe: fn(*mut c_int) -> c_int);
same_signature!(pipe2: fn(*mut c_int, c_int) -> c_int);
same_signature!(socketpair: fn(c_int, c_int, c_int, *mut c_int) -> c_int);
same_signature!(eventfd: fn(c_uint, c_int) -> c_int);
same_signature!(timerfd_create: fn(c_int, c_int) -> c_int);

// One value under several names.
const _: () = assert!(
    libc::SOCK_NONBLOCK == libc::O_NONBLOCK
        && libc::EFD_NONBLOCK == libc::O_NONBLOCK
        && libc::TFD_NONBLOCK == libc::O_NONBLOCK
);

/// Takes note of `N` numbers that `made` has, if it succeeded.
#[inline(always)]
fn take_note<const N: usize>(
    hook: Hook,
    result: c_int,
    made: impl FnOnce() -> [c_int; N],
    kind: u32,
    flags: c_int,
) -> c_int {
    if result < 0 {
        return result;
    }
    let made = made();
    if active_for(hook).is_some() {
        return make_known(result, made, kind, flags);
    }
    made.into_iter().for_each(fd_table::not_ours);
    result
}

#[inline(never)]
fn make_known<const N: usize>(result: c_int, made: [c_int; N], kind: u32, flags: c_int) -> c_int {
    let nonblocking = flags & libc::O_NONBLOCK != 0;
    let mode = if nonblocking { NONBLOCK_BELOW | NONBLOCK_BY_PROGRAM } else { 0 };
    let noted = made.iter().try_for_each(|&fd| fd_table::record_added(fd, kind | mode));
    let Err(error) = noted else { return result };
    for fd in made {
        fd_table::closing(fd);
        // SAFETY: just made, seen by nobody.
        unsafe { (real::get().close)(fd) };
    }
    failed(error) as c_int
}

/// # Safety
/// `pair` has two numbers.
unsafe fn both(pair: *const c_int) -> [c_int; 2] {
    // SAFETY: as the caller vouches.
    unsafe { pair.cast::<[c_int; 2]>().read() }
}

/// `int pipe(int pipefd[2]);`
///
/// # Safety
/// As pipe(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pipe(pair: *mut c_int) -> c_int {
    // SAFETY: the caller's argument.
    let result = unsafe { (real::get().pipe)(pair) };
    // SAFETY: called if the kernel has filled it.
    take_note(Hook::Pipe, result, || unsafe { both(pair) }, NOT_A_SOCKET, 0)
}

/// `int pipe2(int pipefd[2], int flags);`
///
/// # Safety
/// As pipe2(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pipe2(pair: *mut c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    let result = unsafe { (real::get().pipe2)(pair, flags) };
    // SAFETY: called if the kernel has filled it.
    take_note(Hook::Pipe2, result, || unsafe { both(pair) }, NOT_A_SOCKET, flags)
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
    // SAFETY: called if the kernel has filled it.
    take_note(Hook::Socketpair, result, || unsafe { both(pair) }, 0, kind)
}

/// `int eventfd(unsigned int initval, int flags);`
///
/// # Safety
/// As eventfd(2).
#[cfg_attr(not(target_env = "musl"), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn eventfd(value: c_uint, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    let fd = unsafe { (real::get().eventfd)(value, flags) };
    take_note(Hook::Eventfd, fd, || [fd], NOT_A_SOCKET, flags)
}

/// `int timerfd_create(int clockid, int flags);`
///
/// # Safety
/// As timerfd_create(2).
#[cfg_attr(not(target_env = "musl"), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn timerfd_create(clock: c_int, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    let fd = unsafe { (real::get().timerfd_create)(clock, flags) };
    take_note(Hook::TimerfdCreate, fd, || [fd], NOT_A_SOCKET, flags)
}
