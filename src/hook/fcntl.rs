//! fcntl and its large-file name. Variadic in C: the third argument comes in the same register whatever
//! its type, so one of pointer size covers every command.

use core::ffi::c_int;

use super::fd_table::{self, ADDED, NONBLOCK_BELOW, NONBLOCK_BY_PROGRAM};
use super::{active, real};

/// The signature of the libc crate's function.
const _: unsafe extern "C" fn(c_int, c_int, ...) -> c_int = libc::fcntl;

type RealFcntl = unsafe extern "C-unwind" fn(c_int, c_int, usize) -> c_int;

/// # Safety
/// As fcntl(2).
#[inline]
unsafe fn control(real: RealFcntl, fd: c_int, command: c_int, arg: usize) -> c_int {
    match command {
        libc::F_GETFL => {
            // SAFETY: the caller's arguments.
            let flags = unsafe { real(fd, command, arg) };
            match fd_table::get(fd) {
                // What the program did not set it does not see.
                Some(record) if flags >= 0 && !record.has(NONBLOCK_BY_PROGRAM | ADDED) => {
                    flags & !libc::O_NONBLOCK
                }
                _ => flags,
            }
        }
        libc::F_SETFL => {
            let Some(record) = fd_table::get(fd) else {
                // SAFETY: the caller's arguments.
                return unsafe { real(fd, command, arg) };
            };
            let wanted = arg as c_int;
            let ours = if active().is_some() && !record.has(ADDED) { libc::O_NONBLOCK } else { 0 };
            let below = wanted | ours;
            // SAFETY: the caller's descriptor, and flags.
            let result = unsafe { real(fd, command, below as usize) };
            if result == 0 {
                record.put(NONBLOCK_BY_PROGRAM, wanted & libc::O_NONBLOCK != 0);
                record.put(NONBLOCK_BELOW, below & libc::O_NONBLOCK != 0);
            }
            result
        }
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
            // SAFETY: the caller's arguments.
            let copy = unsafe { real(fd, command, arg) };
            if copy >= 0 {
                fd_table::share(fd, copy);
            }
            copy
        }
        // SAFETY: the caller's arguments.
        _ => unsafe { real(fd, command, arg) },
    }
}

/// `int fcntl(int fd, int cmd, ...);` Hides our O_NONBLOCK, notes the program's; every command reaches the
/// kernel.
///
/// # Safety
/// As fcntl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fcntl(fd: c_int, command: c_int, arg: usize) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { control(real::get().fcntl, fd, command, arg) }
}

/// `fcntl` of programs built with large files.
///
/// # Safety
/// As fcntl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fcntl64(fd: c_int, command: c_int, arg: usize) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { control(real::get().fcntl64, fd, command, arg) }
}

/// `fcntl` under another of libc's names.
///
/// # Safety
/// As fcntl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __fcntl(fd: c_int, command: c_int, arg: usize) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { control(real::get().fcntl, fd, command, arg) }
}
