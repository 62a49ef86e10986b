//! ioctl, for FIONBIO alone. Variadic in C: the third argument comes in the same register whatever its type, so
//! one of pointer size covers every request.

use core::ffi::{c_int, c_uint};
use core::ptr::with_exposed_provenance;

use libc::Ioctl;

use super::fd_table::{self, ADDED, NONBLOCK_BELOW, NONBLOCK_BY_PROGRAM, Record};
use super::{active, real};

/// The signature of the libc crate's function.
const _: unsafe extern "C" fn(c_int, Ioctl, ...) -> c_int = libc::ioctl;

/// `int ioctl(int fd, unsigned long request, ...);` FIONBIO is noted as F_SETFL is; every other request is
/// libc's.
///
/// # Safety
/// As ioctl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn ioctl(fd: c_int, request: Ioctl, arg: usize) -> c_int {
    // (The kernel takes 32 bits of it.)
    if request as c_uint == libc::FIONBIO as c_uint
        && let Some(record) = fd_table::get(fd)
    {
        // SAFETY: the caller's arguments.
        return unsafe { set_nonblocking(record, fd, request, arg) };
    }
    // SAFETY: the caller's arguments.
    unsafe { (real::get().ioctl)(fd, request, arg) }
}

/// # Safety
/// As ioctl(2) with FIONBIO.
#[inline(never)]
unsafe fn set_nonblocking(record: &Record, fd: c_int, request: Ioctl, arg: usize) -> c_int {
    let below = record.has(NONBLOCK_BELOW);
    // While it may be blocking, calls of other threads say themselves that they do not wait.
    record.put(NONBLOCK_BELOW, false);
    // SAFETY: the caller's arguments.
    let result = unsafe { (real::get().ioctl)(fd, request, arg) };
    if result != 0 {
        record.put(NONBLOCK_BELOW, below);
        return result;
    }
    // SAFETY: the kernel has read an int there.
    let wanted = unsafe { with_exposed_provenance::<c_int>(arg).read_unaligned() } != 0;
    record.put(NONBLOCK_BY_PROGRAM, wanted);
    let ours = !wanted && active().is_some() && !record.has(ADDED);
    let on: c_int = 1;
    // SAFETY: an int.
    let kept = ours && unsafe { (real::get().ioctl)(fd, request, (&raw const on).expose_provenance()) } == 0;
    record.put(NONBLOCK_BELOW, wanted || kept);
    result
}
