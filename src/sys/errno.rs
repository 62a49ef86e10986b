//! errno: the calling thread's error number.

use core::ffi::c_int;

/// An error number as the kernel gives it (positive).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Errno(pub(crate) c_int);

impl Errno {
    /// The calling thread's errno now.
    #[inline]
    pub(crate) fn last() -> Self {
        // SAFETY: this thread's errno, which lives as long as the thread.
        Errno(unsafe { *location() })
    }

    /// Makes this the calling thread's errno.
    #[inline]
    pub(crate) fn set(self) {
        // SAFETY: as in `last`.
        unsafe { *location() = self.0 };
    }
}

/// Where the calling thread's errno is.
#[inline]
fn location() -> *mut c_int {
    // SAFETY: no arguments and no conditions.
    unsafe { libc::__errno_location() }
}

/// -1 with errno becomes `Err`.
#[inline]
pub(crate) fn check(result: c_int) -> Result<c_int, Errno> {
    if result == -1 { Err(Errno::last()) } else { Ok(result) }
}
