//! poll(2) without waiting, past our own hook.

use core::ffi::{c_int, c_long};

use crate::sys::errno::{Errno, check};

/// What poll(2) reports now. It does not wait, so a signal that comes just then (which the kernel reports even so, if
/// nothing is ready) ends nothing.
///
/// # Safety
/// `fds` points at `count` pollfds.
pub(crate) unsafe fn now(fds: *mut libc::pollfd, count: usize) -> Result<c_int, Errno> {
    loop {
        let mut at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: as the caller vouches; no signal mask.
        let ready = unsafe {
            libc::syscall(
                libc::SYS_ppoll,
                fds,
                count,
                &raw mut at_once,
                core::ptr::null::<libc::sigset_t>(),
                0 as c_long,
            )
        };
        match check(ready as c_int) {
            Err(Errno(libc::EINTR)) => {}
            result => return result,
        }
    }
}
