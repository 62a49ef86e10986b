//! Host names: gethostbyname, gethostbyname_r, __res_state.
//!
//! glibc's resolver calls nothing that could be hooked, so the real function runs on a helper thread
//! (`event::run_job`) while the coroutine waits on its loop. Everything the helper touches lies in one
//! heap object: the job, a copy of the name, the result and its buffer.
//!
//! ```text
//!   │ HostJob │ name, 0 │ ..alignment.. │ buffer that hostent's pointers point into │
//! ```
//!
//! An address in digits never leaves the thread.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::{offset_of, size_of};
use core::ptr::null_mut;

use libc::{hostent, size_t};

use super::{active, real};
use crate::event::{self, Job};
use crate::routine::{Co, Env, env as environment, extra};
use crate::sys::errno::Errno;

/// netdb.h
const NETDB_INTERNAL: c_int = -1;
const TRY_AGAIN: c_int = 2;
pub(super) const NO_RECOVERY: c_int = 3;

/// sizeof(struct __res_state) in glibc on 64-bit Linux.
const RES_STATE: usize = 568;
/// What a first try of gethostbyname has room for.
const FIRST_ROOM: usize = 1024;
const LARGEST_ROOM: usize = 1 << 20;

unsafe extern "C" {
    safe fn __h_errno_location() -> *mut c_int;
}

pub(super) fn set_h_errno(value: c_int) {
    // SAFETY: the C library returned this thread's h_errno, which lives as long as the thread.
    unsafe { __h_errno_location().write(value) };
}

/// One gethostbyname_r to make.
#[repr(C)]
struct HostJob {
    job: Job,
    host: hostent,
    result: *mut hostent,
    status: c_int,
    h_errno: c_int,
    name: *const c_char,
    buffer: *mut c_char,
    room: size_t,
}

const _: () = assert!(offset_of!(HostJob, job) == 0);

const NO_HOST: hostent = hostent {
    h_name: null_mut(),
    h_aliases: null_mut(),
    h_addrtype: 0,
    h_length: 0,
    h_addr_list: null_mut(),
};

impl HostJob {
    /// A job for `name` with `room` bytes of buffer, aligned as `like` is; null without memory.
    fn new(name: &CStr, room: size_t, like: *const c_char) -> *mut HostJob {
        let text = name.to_bytes_with_nul();
        let buffer_at = (size_of::<HostJob>() + text.len()).next_multiple_of(16) + (like.addr() & 15);
        let Some(total) = buffer_at.checked_add(room) else { return null_mut() };
        // SAFETY: any size.
        let object = unsafe { libc::calloc(1, total) }.cast::<HostJob>();
        if object.is_null() {
            return object;
        }
        let start = object.cast::<c_char>();
        let copy = start.wrapping_add(size_of::<HostJob>());
        // SAFETY: `buffer_at` leaves room for the text behind the job; the memory is new.
        unsafe { copy.copy_from_nonoverlapping(text.as_ptr().cast(), text.len()) };
        let buffer = start.wrapping_add(buffer_at);
        let job = Job::new(HostJob::work);
        let filled = HostJob {
            job,
            host: NO_HOST,
            result: null_mut(),
            status: 0,
            h_errno: 0,
            name: copy,
            buffer,
            room,
        };
        // SAFETY: `object` begins with room for a job, aligned by calloc.
        unsafe { object.write(filled) };
        object
    }

    /// On a helper thread, or in place.
    ///
    /// # Safety
    /// `job` is a HostJob's first member.
    unsafe fn work(job: *mut Job) {
        // SAFETY: as the caller vouches; nobody else touches it meanwhile.
        let this = unsafe { &mut *job.cast::<HostJob>() };
        // SAFETY: the job's own name, result and buffer.
        this.status = unsafe {
            (real::get().gethostbyname_r)(
                this.name,
                &mut this.host,
                this.buffer,
                this.room,
                &mut this.result,
                &mut this.h_errno,
            )
        };
    }

    /// Copies the result, its pointers into `buf`.
    ///
    /// # Safety
    /// The job is finished and has found one; `host` may be written; `buf` has room for the job's buffer.
    unsafe fn copy_to(&self, host: *mut hostent, buf: *mut c_char) {
        // SAFETY: both have `room` bytes, as the caller vouches; the job's are its own.
        unsafe { buf.copy_from_nonoverlapping(self.buffer, self.room) };
        let mut answer = self.host;
        // SAFETY: the call filled `host` with pointers into `buffer`, and `buf` is its copy.
        unsafe { relocate(&mut answer, self.buffer, buf) };
        // SAFETY: as the caller vouches.
        unsafe { host.write(answer) };
    }
}

/// Whether the answer needs no name server: digits and dots, or an IPv6 address.
fn is_literal(name: &CStr) -> bool {
    unsafe extern "C" {
        fn inet_pton(family: c_int, text: *const c_char, address: *mut c_void) -> c_int;
    }
    let bytes = name.to_bytes();
    if bytes.contains(&b':') {
        let mut address = [0_u8; 16];
        // SAFETY: a string, and room for an IPv6 address.
        return unsafe { inet_pton(libc::AF_INET6, name.as_ptr(), address.as_mut_ptr().cast()) } == 1;
    }
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_digit() || *b == b'.')
}

/// Looks `name` up; others run meanwhile. Null without memory or helper, with errno and h_errno set.
fn look_up(env: &Env, name: &CStr, room: size_t, like: *const c_char) -> *mut HostJob {
    let job = HostJob::new(name, room, like);
    if job.is_null() {
        Errno(libc::ENOMEM).set();
        set_h_errno(NETDB_INTERNAL);
        return job;
    }
    if is_literal(name) || env.running().is_main() {
        // SAFETY: a job of ours.
        unsafe { HostJob::work(job.cast()) };
        return job;
    }
    // SAFETY: a fresh job, from the C heap.
    let ran = env.reactor().and_then(|reactor| unsafe { event::run_job(env, reactor, job.cast()) });
    if let Err(error) = ran {
        error.set();
        set_h_errno(TRY_AGAIN);
        return null_mut();
    }
    job
}

/// gethostbyname in a coroutine: the result stays until its next call.
///
/// # Safety
/// `name` is NULL or a string.
pub(crate) unsafe fn host_by_name(name: *const c_char) -> *mut hostent {
    if name.is_null() {
        return null_mut();
    }
    let Some(env) = environment::current() else {
        // SAFETY: the caller's argument.
        return unsafe { (real::get().gethostbyname)(name) };
    };
    // SAFETY: as the caller vouches.
    let name = unsafe { CStr::from_ptr(name) };
    let mut room = FIRST_ROOM;
    loop {
        let job = look_up(env, name, room, core::ptr::null());
        // SAFETY: null or a finished job of ours.
        let Some(done) = (unsafe { job.as_ref() }) else { return null_mut() };
        let (status, h_errno, result) = (done.status, done.h_errno, done.result);
        if status == libc::ERANGE && h_errno == NETDB_INTERNAL && room < LARGEST_ROOM {
            // SAFETY: ours again, used no more.
            unsafe { libc::free(job.cast()) };
            room *= 4;
            continue;
        }
        if status != 0 || result.is_null() || !extra::keep_host(Co::of(env.running()), job.cast()) {
            set_h_errno(h_errno);
            // SAFETY: ours again, used no more.
            unsafe { libc::free(job.cast()) };
            return null_mut();
        }
        return result;
    }
}

/// gethostbyname_r in a coroutine.
///
/// # Safety
/// As gethostbyname_r(3).
pub(crate) unsafe fn host_by_name_r(
    name: *const c_char,
    host: *mut hostent,
    buf: *mut c_char,
    len: size_t,
    result: *mut *mut hostent,
    h_errnop: *mut c_int,
) -> c_int {
    let env = environment::current().filter(|env| !name.is_null() && !env.running().is_main());
    let Some(env) = env else {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().gethostbyname_r)(name, host, buf, len, result, h_errnop) };
    };
    // SAFETY: as the caller vouches.
    let job = look_up(env, unsafe { CStr::from_ptr(name) }, len, buf);
    // SAFETY: null or a finished job of ours.
    let Some(done) = (unsafe { job.as_ref() }) else {
        // SAFETY: the caller's pointers, to be written in any case.
        unsafe { put_answer(result, null_mut(), h_errnop, TRY_AGAIN) };
        return Errno::last().0;
    };
    let status = done.status;
    let found = if status == 0 && !done.result.is_null() {
        // SAFETY: a successful job; `host` is the caller's to be written, and `buf` has `len` bytes, as
        // many as the job was made with.
        unsafe { done.copy_to(host, buf) };
        host
    } else {
        null_mut()
    };
    // SAFETY: the caller's pointers, to be written in any case.
    unsafe { put_answer(result, found, h_errnop, done.h_errno) };
    // SAFETY: ours again, used no more.
    unsafe { libc::free(job.cast()) };
    status
}

/// What gethostbyname_r leaves in its last two arguments.
///
/// # Safety
/// `result` and `h_errnop` may be written.
pub(super) unsafe fn put_answer(
    result: *mut *mut hostent,
    found: *mut hostent,
    h_errnop: *mut c_int,
    h_errno: c_int,
) {
    // SAFETY: the caller vouches for `h_errnop`.
    unsafe { h_errnop.write(h_errno) };
    // SAFETY: the caller vouches for `result`.
    unsafe { result.write(found) };
}

/// Makes a copied result's pointers point into the copy at `to` of the buffer at `from`.
///
/// # Safety
/// `host` is a result whose pointers point into `from`; `to` holds a copy of it.
unsafe fn relocate(host: &mut hostent, from: *mut c_char, to: *mut c_char) {
    let moved = |pointer: *mut c_char| to.wrapping_add(pointer.addr() - from.addr());
    let moved_list = |list: *mut *mut c_char| -> *mut *mut c_char {
        if list.is_null() {
            return list;
        }
        let list: *mut *mut c_char = moved(list.cast()).cast();
        let mut at = list;
        loop {
            // SAFETY: an entry of a null-terminated array in the copy, aligned as in the original: none
            // so far was its end.
            let entry = unsafe { &mut *at };
            if entry.is_null() {
                return list;
            }
            *entry = moved(*entry);
            at = at.wrapping_add(1);
        }
    };
    if !host.h_name.is_null() {
        host.h_name = moved(host.h_name);
    }
    host.h_aliases = moved_list(host.h_aliases);
    host.h_addr_list = moved_list(host.h_addr_list);
}

/// `struct hostent *gethostbyname(const char *name);`
///
/// # Safety
/// As gethostbyname(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn gethostbyname(name: *const c_char) -> *mut hostent {
    if active().is_none() {
        // SAFETY: the caller's argument.
        return unsafe { (real::get().gethostbyname)(name) };
    }
    // SAFETY: the caller's argument.
    unsafe { host_by_name(name) }
}

/// `int gethostbyname_r(const char *name, struct hostent *ret, char *buf, size_t buflen, struct hostent **result, int *h_errnop);`
///
/// # Safety
/// As gethostbyname_r(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn gethostbyname_r(
    name: *const c_char,
    host: *mut hostent,
    buf: *mut c_char,
    len: size_t,
    result: *mut *mut hostent,
    h_errnop: *mut c_int,
) -> c_int {
    if active().is_none() {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().gethostbyname_r)(name, host, buf, len, result, h_errnop) };
    }
    // SAFETY: the caller's arguments.
    unsafe { host_by_name_r(name, host, buf, len, result, h_errnop) }
}

/// `res_state __res_state(void);` With hooks on each coroutine has its own resolver state. (It does not
/// reach the helper threads: see docs/COMPAT.md.)
///
/// # Safety
/// As __res_state.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __res_state() -> *mut core::ffi::c_void {
    if let Some(env) = active()
        && let Some(state) = extra::resolver(Co::of(env.running()), RES_STATE)
    {
        return state;
    }
    // SAFETY: no arguments.
    unsafe { (real::get().res_state)() }
}
