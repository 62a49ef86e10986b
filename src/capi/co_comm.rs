//! co_comm.h's clsCoMutex: its constructors, destructors and members, which C++ calls by mangled names
//! (see `cxx`). The class is two words: our mutex, and a count that programs cannot see.

use core::ffi::c_int;
use core::ptr::{NonNull, null_mut};

use crate::routine::mutex::{self, Mutex};
use crate::sys::log::error;

/// The object behind `this`.
#[repr(C)]
pub(crate) struct clsCoMutex {
    mutex: *mut Mutex,
    users: c_int,
}

const _: () = assert!(size_of::<clsCoMutex>() == 16);

/// # Safety
/// `this` is memory for a clsCoMutex.
pub(super) unsafe extern "C-unwind" fn construct(this: *mut clsCoMutex) {
    let made = mutex::new().map_or(null_mut(), NonNull::as_ptr);
    // SAFETY: as the caller vouches.
    unsafe { this.write(clsCoMutex { mutex: made, users: 0 }) };
}

/// # Safety
/// `this` was constructed.
pub(super) unsafe extern "C-unwind" fn destroy(this: *mut clsCoMutex) {
    // SAFETY: as the caller vouches.
    if let Some(old) = NonNull::new(unsafe { (*this).mutex }) {
        // SAFETY: from `construct`; a constructor is undone once.
        unsafe { mutex::free(old) };
    }
}

/// # Safety
/// `this` was constructed.
pub(super) unsafe extern "C-unwind" fn lock(this: *mut clsCoMutex) {
    // SAFETY: as the caller vouches.
    let mutex = unsafe { (*this).mutex };
    // SAFETY: null or from `construct`.
    match unsafe { mutex.as_ref() } {
        Some(mutex) => mutex.lock(),
        None => return error!("clsCoMutex: {:p} was made without memory and locks nothing", this),
    }
    // SAFETY: as the caller vouches; the mutex may be freed while waiting, the object may not.
    unsafe { note_users(this) };
}

/// # Safety
/// `this` was constructed.
pub(super) unsafe extern "C-unwind" fn unlock(this: *mut clsCoMutex) {
    // SAFETY: as the caller vouches.
    let mutex = unsafe { (*this).mutex };
    // SAFETY: null or from `construct`.
    if let Some(mutex) = unsafe { mutex.as_ref() } {
        mutex.unlock();
    }
    // SAFETY: as the caller vouches.
    unsafe { note_users(this) };
}

/// # Safety
/// `this` was constructed.
unsafe fn note_users(this: *mut clsCoMutex) {
    // SAFETY: as the caller vouches.
    let mutex = unsafe { (*this).mutex };
    // SAFETY: null or from `construct`.
    let users = unsafe { mutex.as_ref() }.map_or(0, Mutex::users);
    // SAFETY: as the caller vouches.
    unsafe { (*this).users = users };
}
