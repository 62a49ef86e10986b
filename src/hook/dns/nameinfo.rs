//! getnameinfo.

use core::ffi::{CStr, c_char, c_int};
use core::mem::size_of;
use core::ptr::null_mut;

use libc::{sockaddr, socklen_t};

use super::{Answer, Lookup, Place, ask};
use crate::hook::choice::{Hook, active_for};
use crate::hook::{real, same_signature};
use crate::routine::Env;
use crate::sys::errno::Errno;

same_signature!(getnameinfo: fn(*const sockaddr, socklen_t, *mut c_char, socklen_t, *mut c_char, socklen_t, c_int) -> c_int);

/// The longest name that a helper has room for: the C library knows none that is longer.
const LONGEST: socklen_t = 64 * 1024;

/// Room for any address that somebody is asked about.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Address([u8; size_of::<libc::sockaddr_in6>()]);

/// A buffer to be written: null or `len` bytes.
#[derive(Clone, Copy)]
struct Buffer {
    at: *mut c_char,
    len: socklen_t,
}

impl Buffer {
    /// Whether the caller wants anything in it.
    fn is_wanted(&self) -> bool {
        !self.at.is_null() && self.len > 0
    }

    /// As much of it as an answer can fill, at `room`.
    fn stand_in(&self, room: *mut c_char) -> Buffer {
        Buffer { at: if self.at.is_null() { null_mut() } else { room }, len: self.len.min(LONGEST) }
    }

    /// Copies a string from its stand-in.
    ///
    /// # Safety
    /// Both are as long as they say, and the stand-in has a string unless it is not wanted.
    unsafe fn take(&self, stand_in: Buffer) {
        if !self.is_wanted() {
            return;
        }
        // SAFETY: a string, as the caller vouches.
        let text = unsafe { CStr::from_ptr(stand_in.at) }.to_bytes_with_nul();
        // SAFETY: it fitted into the stand-in, which is no longer than this.
        unsafe { self.at.copy_from_nonoverlapping(text.as_ptr().cast(), text.len()) };
    }
}

struct Names {
    address: Address,
    len: socklen_t,
    host: Buffer,
    service: Buffer,
    flags: c_int,
    status: c_int,
}

impl Lookup for Names {
    unsafe fn ask(&mut self) {
        let address = (&raw const self.address).cast::<sockaddr>();
        let (host, service) = (self.host, self.service);
        // SAFETY: an address and buffers of the object's own.
        self.status = unsafe {
            (real::get().getnameinfo)(
                address,
                self.len,
                host.at,
                host.len,
                service.at,
                service.len,
                self.flags,
            )
        };
    }
}

/// `int getnameinfo(const struct sockaddr *addr, socklen_t addrlen, char *host, socklen_t hostlen, char *serv, socklen_t servlen, int flags);`
///
/// # Safety
/// As getnameinfo(3).
#[cfg_attr(not(target_env = "musl"), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn getnameinfo(
    address: *const sockaddr,
    len: socklen_t,
    host: *mut c_char,
    host_len: socklen_t,
    service: *mut c_char,
    service_len: socklen_t,
    flags: c_int,
) -> c_int {
    match active_for(Hook::Getnameinfo) {
        Some(env) => {
            let (host, service) =
                (Buffer { at: host, len: host_len }, Buffer { at: service, len: service_len });
            // SAFETY: the caller's arguments.
            unsafe { getnameinfo_hooked(env, address, len, host, service, flags) }
        }
        // SAFETY: the caller's arguments.
        None => unsafe {
            (real::get().getnameinfo)(address, len, host, host_len, service, service_len, flags)
        },
    }
}

/// # Safety
/// As getnameinfo(3).
#[inline(never)]
unsafe fn getnameinfo_hooked(
    env: &Env,
    address: *const sockaddr,
    len: socklen_t,
    host: Buffer,
    service: Buffer,
    flags: c_int,
) -> c_int {
    let asks_host = host.is_wanted() && flags & libc::NI_NUMERICHOST == 0;
    let asks_service = service.is_wanted() && flags & libc::NI_NUMERICSERV == 0;
    // SAFETY: the caller's address.
    let known = unsafe { copy_of(address, len) };
    let Some((address, len)) = known.filter(|_| (asks_host || asks_service) && !env.running().is_main())
    else {
        // SAFETY: the caller's arguments.
        return unsafe {
            (real::get().getnameinfo)(address, len, host.at, host.len, service.at, service.len, flags)
        };
    };
    let host_room = host.len.min(LONGEST) as usize;
    let room = host_room + service.len.min(LONGEST) as usize;
    let answer = ask(env, Place::Helper, room, |room| Names {
        address,
        len,
        host: host.stand_in(room),
        service: service.stand_in(room.wrapping_add(host_room)),
        flags,
        status: 0,
    });
    match answer {
        // SAFETY: the caller's buffers.
        Ok(answer) => unsafe { hand_over(answer, host, service) },
        Err(Errno(libc::ENOMEM)) => libc::EAI_MEMORY,
        Err(error) => {
            error.set();
            libc::EAI_SYSTEM
        }
    }
}

/// The bytes that matter of an address, `None` if getnameinfo asks nobody about such a one.
///
/// # Safety
/// `address` is NULL or has `len` bytes.
unsafe fn copy_of(address: *const sockaddr, len: socklen_t) -> Option<(Address, socklen_t)> {
    let len = len as usize;
    if address.is_null() || len < size_of::<libc::sa_family_t>() {
        return None;
    }
    // SAFETY: an address begins with its family, and `len` reaches over it.
    let size = match c_int::from(unsafe { (*address).sa_family }) {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    if len < size {
        return None;
    }
    let mut copy = Address([0; _]);
    // SAFETY: the caller's address has at least `size` bytes, and the copy has room for either kind.
    unsafe { copy.0.as_mut_ptr().copy_from_nonoverlapping(address.cast(), size) };
    Some((copy, size as socklen_t))
}

/// # Safety
/// The buffers are those that the answer's stand in for.
unsafe fn hand_over(mut answer: Answer<Names>, host: Buffer, service: Buffer) -> c_int {
    let errno = answer.errno();
    let names = answer.lookup();
    let status = names.status;
    if status == 0 {
        // SAFETY: the call succeeded: a string, if one was asked for.
        unsafe { host.take(names.host) };
        // SAFETY: the same of the service.
        unsafe { service.take(names.service) };
    }
    answer.free();
    errno.set();
    status
}
