//! Signal masks, as the kernel has them: one bit a signal, in 64 bits.

use core::ffi::c_int;
use core::mem::size_of;
use core::ptr::null_mut;

use crate::sys::errno::Errno;

/// The signals that the calling thread blocks.
pub(crate) fn blocked() -> u64 {
    let mut mask = 0u64;
    let nothing = null_mut::<u64>();
    // SAFETY: changes nothing, writes the mask.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, nothing, &raw mut mask, size_of::<u64>())
    };
    mask
}

/// Runs the handlers of signals that are pending and not in `mask`. True if one ran.
pub(crate) fn take_pending(mask: &u64) -> bool {
    let mut at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let nothing = null_mut::<libc::pollfd>();
    // SAFETY: no descriptors; the kernel reads time and mask.
    let result = unsafe {
        libc::syscall(libc::SYS_ppoll, nothing, 0, &raw mut at_once, &raw const *mask, size_of::<u64>())
    };
    result as c_int == -1 && Errno::last() == Errno(libc::EINTR)
}

/// The signals in a C library's set.
///
/// # Safety
/// `set` is null or a set.
pub(crate) unsafe fn of_set(set: *const libc::sigset_t) -> Option<u64> {
    // SAFETY: null, or a set, whose first 64 bits are the signals there are.
    (!set.is_null()).then(|| unsafe { set.cast::<u64>().read_unaligned() })
}
