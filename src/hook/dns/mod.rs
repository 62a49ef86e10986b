//! Host names: getaddrinfo, getnameinfo, the gethostby family, __res_state.
//!
//! glibc's resolver calls nothing that could be hooked, so the real function runs on a helper thread
//! (`event::run_job`) while the coroutine waits on its loop. Everything the helper touches lies in one
//! heap object, arguments copied, since the coroutine's own stack may be switched out meanwhile. The
//! coroutine itself hands the results to the program when it is back.
//!
//! ```text
//!   │ Object: job, errno, lookup │ ..alignment.. │ room: strings asked for, the answer's buffer │
//! ```
//!
//! What needs no name server, such as an address in digits, never leaves the thread.
//!
//! | file | owns |
//! |---|---|
//! | hosts | gethostbyname and its family |
//! | addrinfo, nameinfo | getaddrinfo, getnameinfo |

mod addrinfo;
mod hosts;
mod nameinfo;

pub(super) use hosts::{NO_RECOVERY, put_answer, set_h_errno};
pub(crate) use hosts::{host_by_name, host_by_name_r};

use core::ffi::{CStr, c_char, c_void};
use core::mem::{offset_of, size_of};
use core::ptr::NonNull;

use super::{active, real};
use crate::event::{self, Job, Ran};
use crate::routine::{Co, Env, extra};
use crate::sys::errno::Errno;

/// sizeof(struct __res_state) in glibc on 64-bit Linux.
const RES_STATE: usize = 568;

/// A question to the C library, with room for the answer.
trait Lookup {
    /// Makes the real call, on a helper thread or in place.
    ///
    /// # Safety
    /// What it points to is the lookup's own.
    unsafe fn ask(&mut self);

    /// Frees what the call made outside the object, if nobody took it.
    fn discard(&mut self) {}
}

/// A lookup on its way. `room` bytes, aligned to 16, lie behind it.
#[repr(C)]
struct Object<L> {
    job: Job,
    /// The coroutine's errno, as the call finds it and leaves it.
    errno: Errno,
    lookup: L,
}

const _: () = assert!(offset_of!(Object<u8>, job) == 0);

/// Where a lookup is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the calling thread: it cannot take long.
    Here,
    Helper,
}

/// A finished lookup; `free` it. (No destructor: it lives where coroutines switch.)
struct Answer<L>(NonNull<Object<L>>);

impl<L: Lookup> Answer<L> {
    fn lookup(&mut self) -> &mut L {
        // SAFETY: finished, so it is the caller's alone, until `free`.
        unsafe { &mut (*self.0.as_ptr()).lookup }
    }

    /// errno as the call left it.
    fn errno(&self) -> Errno {
        // SAFETY: alive until `free`.
        unsafe { self.0.as_ref() }.errno
    }

    /// The object, to be given to `free(3)` later.
    fn into_raw(self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    fn free(self) {
        // SAFETY: an object of this kind, finished, used no more.
        unsafe { free::<L>(self.0.as_ptr().cast()) };
    }
}

/// Asks what `fill` makes (given the room) and waits for the answer; others run meanwhile. `Err`: no memory
/// (ENOMEM), or somebody resumed the coroutine by hand (EINTR).
fn ask<L: Lookup>(
    env: &Env,
    place: Place,
    room: usize,
    fill: impl FnOnce(*mut c_char) -> L,
) -> Result<Answer<L>, Errno> {
    let object = make(room, fill)?;
    if place == Place::Helper
        && let Ok(reactor) = env.reactor()
    {
        // SAFETY: a new object, which begins with its job.
        match unsafe { event::run_job(env, reactor, object.as_ptr().cast()) } {
            Ran::Done => return Ok(Answer(object)),
            Ran::Left => return Err(Errno(libc::EINTR)),
            // The answer late is better than none.
            Ran::NoHelper => {}
        }
    }
    // SAFETY: an object of this kind, ours alone.
    unsafe { work::<L>(object.as_ptr().cast()) };
    Ok(Answer(object))
}

fn make<L: Lookup>(room: usize, fill: impl FnOnce(*mut c_char) -> L) -> Result<NonNull<Object<L>>, Errno> {
    let room_at = size_of::<Object<L>>().next_multiple_of(16);
    let total = room_at.checked_add(room).ok_or(Errno(libc::ENOMEM))?;
    // SAFETY: any size.
    let start = unsafe { libc::calloc(1, total) }.cast::<c_char>();
    let object = NonNull::new(start.cast::<Object<L>>()).ok_or(Errno(libc::ENOMEM))?;
    let job = Job::new(work::<L>, free::<L>);
    let filled = Object { job, errno: Errno::last(), lookup: fill(start.wrapping_add(room_at)) };
    // SAFETY: new memory, aligned by calloc, that begins with room for an object.
    unsafe { object.write(filled) };
    Ok(object)
}

/// # Safety
/// `job` is the first member of an `Object<L>` that nobody else touches meanwhile.
unsafe fn work<L: Lookup>(job: *mut Job) {
    // SAFETY: as the caller vouches.
    let object = unsafe { &mut *job.cast::<Object<L>>() };
    object.errno.set();
    // SAFETY: a lookup points to its room and to itself alone.
    unsafe { object.lookup.ask() };
    object.errno = Errno::last();
}

/// # Safety
/// `job` is the first member of an `Object<L>` that is used no more.
unsafe fn free<L: Lookup>(job: *mut Job) {
    // SAFETY: as the caller vouches.
    unsafe { &mut *job.cast::<Object<L>>() }.lookup.discard();
    // SAFETY: from calloc, as the caller vouches.
    unsafe { libc::free(job.cast()) };
}

/// Copies a string with its 0 to `at`.
///
/// # Safety
/// There is room for it, in memory that `text` is no part of.
unsafe fn put_text(at: *mut c_char, text: &CStr) {
    let bytes = text.to_bytes_with_nul();
    // SAFETY: as the caller vouches.
    unsafe { at.copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len()) };
}

/// `res_state __res_state(void);` With hooks on each coroutine has its own resolver state. (It does not
/// reach the helper threads: see docs/COMPAT.md.)
///
/// # Safety
/// As __res_state.
#[cfg_attr(not(target_env = "musl"), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn __res_state() -> *mut c_void {
    if let Some(env) = active()
        && let Some(state) = extra::resolver(Co::of(env.running()), RES_STATE)
    {
        return state;
    }
    // SAFETY: no arguments.
    unsafe { (real::get().res_state)() }
}
