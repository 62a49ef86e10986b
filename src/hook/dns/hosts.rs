//! gethostbyname, gethostbyname2, gethostbyaddr, and the same with _r.
//!
//! Each is the real _r function of a helper thread. A result in static storage becomes one that the
//! coroutine keeps until its next such call, whichever of the three.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::{null, null_mut};

use libc::{hostent, size_t, socklen_t};

use super::{Answer, Lookup, Place, ask, put_text};
use crate::hook::choice::{Hook, active_for};
use crate::hook::{active, real};
use crate::routine::{Co, Env, env as environment, extra};
use crate::sys::errno::Errno;

/// netdb.h
const NETDB_INTERNAL: c_int = -1;
const TRY_AGAIN: c_int = 2;
pub(in crate::hook) const NO_RECOVERY: c_int = 3;

/// What a first try of gethostbyname has room for.
const FIRST_ROOM: usize = 1024;
const LARGEST_ROOM: usize = 1 << 20;

unsafe extern "C" {
    safe fn __h_errno_location() -> *mut c_int;
}

pub(in crate::hook) fn set_h_errno(value: c_int) {
    // SAFETY: the C library returned this thread's h_errno, which lives as long as the thread.
    unsafe { __h_errno_location().write(value) };
}

/// What is asked.
#[derive(Clone, Copy)]
enum Question<'a> {
    Name(&'a CStr),
    NameIn(&'a CStr, c_int),
    /// The bytes that matter of an address, and its length and family as the caller said.
    Address([u8; 16], socklen_t, c_int),
}

impl Question<'_> {
    /// The question about the address at `at`.
    ///
    /// # Safety
    /// As gethostbyaddr(3).
    unsafe fn about(at: *const c_void, len: socklen_t, family: c_int) -> Self {
        let mut bytes = [0; 16];
        // SAFETY: `len` bytes, as the caller vouches, and no more than there is room for.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(at.cast(), bytes.len().min(len as usize)) };
        Question::Address(bytes, len, family)
    }

    fn name(&self) -> Option<&CStr> {
        match self {
            Question::Name(name) | Question::NameIn(name, _) => Some(name),
            Question::Address(..) => None,
        }
    }

    /// Where it is asked: what the family takes for an address, good or bad, needs no name server.
    fn place(&self) -> Place {
        match self.name() {
            Some(name) if is_address(name.to_bytes()) => Place::Here,
            _ => Place::Helper,
        }
    }

    /// With its name at `name`, for a helper.
    fn moved_to(&self, name: *const c_char) -> Asked {
        match *self {
            Question::Name(_) => Asked::Name(name),
            Question::NameIn(_, family) => Asked::NameIn(name, family),
            Question::Address(bytes, len, family) => Asked::Address(bytes, len, family),
        }
    }
}

/// A name that the C library takes for an address: digits and dots, or an IPv6 address's characters, with
/// no dot at the end.
fn is_address(name: &[u8]) -> bool {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return false };
    if *last == b'.' {
        return false;
    }
    let may_be_ipv6 = *first == b':' || (first.is_ascii_hexdigit() && name.contains(&b':'));
    let only = |may_be: fn(&u8) -> bool| name.iter().all(|byte| may_be(byte) || *byte == b'.');
    (first.is_ascii_digit() && only(u8::is_ascii_digit))
        || (may_be_ipv6 && only(|byte| byte.is_ascii_hexdigit() || *byte == b':'))
}

/// [`Question`], with its name in the object's room.
enum Asked {
    Name(*const c_char),
    NameIn(*const c_char, c_int),
    Address([u8; 16], socklen_t, c_int),
}

/// One _r call.
struct Host {
    asked: Asked,
    host: hostent,
    result: *mut hostent,
    status: c_int,
    h_errno: c_int,
    buffer: *mut c_char,
    len: size_t,
}

const NO_HOST: hostent = hostent {
    h_name: null_mut(),
    h_aliases: null_mut(),
    h_addrtype: 0,
    h_length: 0,
    h_addr_list: null_mut(),
};

impl Lookup for Host {
    unsafe fn ask(&mut self) {
        let Host { host, result, h_errno, buffer: buf, len, .. } = self;
        let real = real::get();
        self.status = match &self.asked {
            Asked::Name(name) => {
                // SAFETY: the object's own name, result and buffer.
                unsafe { (real.gethostbyname_r)(*name, host, *buf, *len, result, h_errno) }
            }
            Asked::NameIn(name, family) => {
                // SAFETY: as above.
                unsafe { (real.gethostbyname2_r)(*name, *family, host, *buf, *len, result, h_errno) }
            }
            Asked::Address(bytes, size, family) => {
                let address = bytes.as_ptr().cast();
                // SAFETY: as above. The C library reads no more of an address than its family has.
                unsafe { (real.gethostbyaddr_r)(address, *size, *family, host, *buf, *len, result, h_errno) }
            }
        };
    }
}

impl Host {
    /// Copies the result, its pointers into `buf`.
    ///
    /// # Safety
    /// The call has found one; `host` may be written; `buf` has room for `len` bytes.
    unsafe fn copy_to(&self, host: *mut hostent, buf: *mut c_char) {
        // SAFETY: both have `len` bytes, as the caller vouches; the job's are its own.
        unsafe { buf.copy_from_nonoverlapping(self.buffer, self.len) };
        let mut answer = self.host;
        // SAFETY: the call filled `host` with pointers into `buffer`, and `buf` is its copy.
        unsafe { relocate(&mut answer, self.buffer, buf) };
        // SAFETY: as the caller vouches.
        unsafe { host.write(answer) };
    }
}

/// Asks, with a buffer of `len` bytes, aligned as `like` is: so it is as soon too small as the caller's.
fn find(
    env: &Env,
    question: &Question,
    len: size_t,
    like: *const c_char,
    h_errno: c_int,
) -> Result<Answer<Host>, Errno> {
    let name = question.name();
    let text = name.map_or(0, |name| name.count_bytes() + 1);
    let buffer_at = text.next_multiple_of(16) + (like.addr() & 15);
    let total = buffer_at.checked_add(len).ok_or(Errno(libc::ENOMEM))?;
    ask(env, question.place(), total, |room| {
        if let Some(name) = name {
            // SAFETY: the room begins with `text` bytes for it.
            unsafe { put_text(room, name) };
        }
        let buffer = room.wrapping_add(buffer_at);
        let asked = question.moved_to(room);
        Host { asked, host: NO_HOST, result: null_mut(), status: 0, h_errno, buffer, len }
    })
}

/// What h_errno says if there was no answer at all.
fn h_errno_of(error: Errno) -> c_int {
    if error == Errno(libc::EINTR) { TRY_AGAIN } else { NETDB_INTERNAL }
}

/// A result that stays until the coroutine's next.
fn find_and_keep(env: &Env, question: &Question) -> *mut hostent {
    let mut room = FIRST_ROOM;
    loop {
        let mut answer = match find(env, question, room, null(), 0) {
            Ok(answer) => answer,
            Err(error) => {
                error.set();
                set_h_errno(h_errno_of(error));
                return null_mut();
            }
        };
        let errno = answer.errno();
        let Host { status, h_errno, result, .. } = *answer.lookup();
        if status == libc::ERANGE && h_errno == NETDB_INTERNAL && room < LARGEST_ROOM {
            answer.free();
            room *= 4;
            continue;
        }
        if h_errno != 0 {
            set_h_errno(h_errno);
        }
        if status != 0 || result.is_null() {
            answer.free();
            errno.set();
            return null_mut();
        }
        return keep(env, answer, result);
    }
}

fn keep(env: &Env, answer: Answer<Host>, result: *mut hostent) -> *mut hostent {
    let object = answer.into_raw();
    if extra::keep_host(Co::of(env.running()), object) {
        return result;
    }
    // SAFETY: an object of ours, which owns nothing else.
    unsafe { libc::free(object) };
    Errno(libc::ENOMEM).set();
    set_h_errno(NETDB_INTERNAL);
    null_mut()
}

/// Where the _r functions put their answer.
#[derive(Clone, Copy)]
struct Out {
    host: *mut hostent,
    buf: *mut c_char,
    len: size_t,
    result: *mut *mut hostent,
    h_errnop: *mut c_int,
}

/// # Safety
/// `out` is as gethostbyname_r(3) wants it.
unsafe fn find_into(env: &Env, question: &Question, out: Out) -> c_int {
    // SAFETY: an integer of the caller's, which the call may leave as it is.
    let before = unsafe { out.h_errnop.read() };
    let mut answer = match find(env, question, out.len, out.buf, before) {
        Ok(answer) => answer,
        Err(error) => {
            // SAFETY: the caller's pointers, to be written in any case.
            unsafe { put_answer(out.result, null_mut(), out.h_errnop, h_errno_of(error)) };
            error.set();
            return error.0;
        }
    };
    let errno = answer.errno();
    let asked = answer.lookup();
    let (status, h_errno) = (asked.status, asked.h_errno);
    let found = if status == 0 && !asked.result.is_null() {
        // SAFETY: `host` is the caller's to be written, and `buf` has `len` bytes, as many as were asked for.
        unsafe { asked.copy_to(out.host, out.buf) };
        out.host
    } else {
        null_mut()
    };
    answer.free();
    // SAFETY: the caller's pointers, to be written in any case.
    unsafe { put_answer(out.result, found, out.h_errnop, h_errno) };
    errno.set();
    status
}

/// What gethostbyname_r leaves in its last two arguments.
///
/// # Safety
/// `result` and `h_errnop` may be written.
pub(in crate::hook) unsafe fn put_answer(
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

/// The environment, in a coroutine other than the main one.
fn in_coroutine() -> Option<&'static Env> {
    environment::current().filter(|env| !env.running().is_main())
}

/// gethostbyname in a coroutine, with hooks on or off: the result stays until its next call.
///
/// # Safety
/// `name` is NULL or a string.
pub(crate) unsafe fn host_by_name(name: *const c_char) -> *mut hostent {
    if name.is_null() {
        Errno(libc::EINVAL).set();
        set_h_errno(NETDB_INTERNAL);
        return null_mut();
    }
    match in_coroutine() {
        // SAFETY: a string, as the caller vouches.
        Some(env) => find_and_keep(env, &Question::Name(unsafe { CStr::from_ptr(name) })),
        // SAFETY: the caller's argument.
        None => unsafe { (real::get().gethostbyname)(name) },
    }
}

/// gethostbyname_r in a coroutine, with hooks on or off.
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
    let Some(env) = in_coroutine().filter(|_| !name.is_null()) else {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().gethostbyname_r)(name, host, buf, len, result, h_errnop) };
    };
    // SAFETY: a string, as the caller vouches.
    let question = Question::Name(unsafe { CStr::from_ptr(name) });
    // SAFETY: the caller's arguments.
    unsafe { find_into(env, &question, Out { host, buf, len, result, h_errnop }) }
}

/// Whether the hooked way is to be gone: in a coroutine, with something to ask for at `at`.
fn serves<T>(env: Option<&'static Env>, at: *const T) -> Option<&'static Env> {
    env.filter(|env| !at.is_null() && !env.running().is_main())
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
#[cfg_attr(not(target_env = "musl"), unsafe(no_mangle))]
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

/// `struct hostent *gethostbyname2(const char *name, int af);`
///
/// # Safety
/// As gethostbyname2(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    let Some(env) = serves(active_for(Hook::Gethostbyname2), name) else {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().gethostbyname2)(name, family) };
    };
    // SAFETY: a string, as the caller vouches.
    find_and_keep(env, &Question::NameIn(unsafe { CStr::from_ptr(name) }, family))
}

/// `int gethostbyname2_r(const char *name, int af, struct hostent *ret, char *buf, size_t buflen, struct hostent **result, int *h_errnop);`
///
/// # Safety
/// As gethostbyname2_r(3).
#[cfg_attr(not(target_env = "musl"), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn gethostbyname2_r(
    name: *const c_char,
    family: c_int,
    host: *mut hostent,
    buf: *mut c_char,
    len: size_t,
    result: *mut *mut hostent,
    h_errnop: *mut c_int,
) -> c_int {
    let Some(env) = serves(active_for(Hook::Gethostbyname2R), name) else {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().gethostbyname2_r)(name, family, host, buf, len, result, h_errnop) };
    };
    // SAFETY: a string, as the caller vouches.
    let question = Question::NameIn(unsafe { CStr::from_ptr(name) }, family);
    // SAFETY: the caller's arguments.
    unsafe { find_into(env, &question, Out { host, buf, len, result, h_errnop }) }
}

/// `struct hostent *gethostbyaddr(const void *addr, socklen_t len, int type);`
///
/// # Safety
/// As gethostbyaddr(3).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn gethostbyaddr(
    address: *const c_void,
    len: socklen_t,
    family: c_int,
) -> *mut hostent {
    let Some(env) = serves(active_for(Hook::Gethostbyaddr), address) else {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().gethostbyaddr)(address, len, family) };
    };
    // SAFETY: the caller's arguments.
    find_and_keep(env, &unsafe { Question::about(address, len, family) })
}

/// `int gethostbyaddr_r(const void *addr, socklen_t len, int type, struct hostent *ret, char *buf, size_t buflen, struct hostent **result, int *h_errnop);`
///
/// # Safety
/// As gethostbyaddr_r(3).
#[cfg_attr(not(target_env = "musl"), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn gethostbyaddr_r(
    address: *const c_void,
    address_len: socklen_t,
    family: c_int,
    host: *mut hostent,
    buf: *mut c_char,
    len: size_t,
    result: *mut *mut hostent,
    h_errnop: *mut c_int,
) -> c_int {
    let Some(env) = serves(active_for(Hook::GethostbyaddrR), address) else {
        let plain = real::get().gethostbyaddr_r;
        // SAFETY: the caller's arguments.
        return unsafe { plain(address, address_len, family, host, buf, len, result, h_errnop) };
    };
    // SAFETY: the caller's arguments.
    let question = unsafe { Question::about(address, address_len, family) };
    // SAFETY: the caller's arguments.
    unsafe { find_into(env, &question, Out { host, buf, len, result, h_errnop }) }
}
