//! co_epoll.h: thin covers of epoll, as the original's on Linux.

use core::ffi::c_int;
use core::ptr::{NonNull, null_mut};

use libc::epoll_event;

use super::fail;
use crate::sys::errno::Errno;
use crate::sys::heap::{self, Zeroed};

/// Never used on Linux.
pub enum kevent {}

/// Room for events. size: how many.
#[repr(C)]
pub struct co_epoll_res {
    pub size: c_int,
    pub events: *mut epoll_event,
    pub eventlist: *mut kevent,
}

const _: () = assert!(size_of::<co_epoll_res>() == 24);

// SAFETY: zero and null pointers.
unsafe impl Zeroed for co_epoll_res {}
// SAFETY: plain numbers.
unsafe impl Zeroed for epoll_event {}

/// epoll_wait(2) into events->events. timeout: milliseconds, -1 for ever.
///
/// # Safety
/// events has room for maxevents.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_epoll_wait(
    epfd: c_int,
    events: *mut co_epoll_res,
    maxevents: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: as the caller vouches.
    let Some(room) = (unsafe { events.as_ref() }) else { return fail(Errno(libc::EFAULT)) };
    // SAFETY: as the caller vouches.
    unsafe { libc::epoll_wait(epfd, room.events, maxevents, timeout) }
}

/// epoll_ctl(2).
///
/// # Safety
/// As epoll_ctl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_epoll_ctl(
    epfd: c_int,
    op: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    // SAFETY: as the caller vouches.
    unsafe { libc::epoll_ctl(epfd, op, fd, event) }
}

/// epoll_create(2).
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_epoll_create(size: c_int) -> c_int {
    // SAFETY: no pointers.
    unsafe { libc::epoll_create(size) }
}

/// Room for n events. NULL if there is no memory or n is negative.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_epoll_res_alloc(n: c_int) -> *mut co_epoll_res {
    let Ok(count) = usize::try_from(n) else { return null_mut() };
    let Some(events) = heap::alloc_array::<epoll_event>(count) else { return null_mut() };
    let Some(room) = heap::alloc::<co_epoll_res>() else {
        // SAFETY: just made.
        unsafe { heap::free(events) };
        return null_mut();
    };
    let made = co_epoll_res { size: n, events: events.as_ptr(), eventlist: null_mut() };
    // SAFETY: just made.
    unsafe { room.write(made) };
    room.as_ptr()
}

/// Frees what co_epoll_res_alloc returned; NULL does nothing.
///
/// # Safety
/// room is NULL, or from co_epoll_res_alloc and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_epoll_res_free(room: *mut co_epoll_res) {
    let Some(room) = NonNull::new(room) else { return };
    // SAFETY: as the caller vouches.
    if let Some(events) = NonNull::new(unsafe { room.as_ref() }.events) {
        // SAFETY: from co_epoll_res_alloc.
        unsafe { heap::free(events) };
    }
    // SAFETY: as above.
    unsafe { heap::free(room) };
}
