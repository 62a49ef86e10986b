//! The C heap, for objects that come and go seldom. It can fail and says so: nothing here aborts.

use core::mem::{align_of, size_of};
use core::ptr::NonNull;

/// Types whose all-zero bytes are a valid value.
///
/// # Safety
/// Implement it only where that is so.
pub(crate) unsafe trait Zeroed {}

/// Zeroed memory for one `T`, `None` if there is none.
pub(crate) fn alloc<T: Zeroed>() -> Option<NonNull<T>> {
    alloc_array(1)
}

/// Zeroed memory for `count` of `T` in a row, `None` if there is none.
pub(crate) fn alloc_array<T: Zeroed>(count: usize) -> Option<NonNull<T>> {
    const { assert!(align_of::<T>() <= 16, "malloc aligns to 16 bytes") };
    // SAFETY: calloc checks the product for overflow.
    NonNull::new(unsafe { libc::calloc(count.max(1), size_of::<T>()) }.cast())
}

/// Gives back what `alloc` or `alloc_array` returned.
///
/// # Safety
/// `object` came from there, and nobody uses it any more.
pub(crate) unsafe fn free<T>(object: NonNull<T>) {
    // SAFETY: from calloc, as the caller vouches.
    unsafe { libc::free(object.as_ptr().cast()) };
}
