//! getaddrinfo. The list it makes is the C library's own, whichever thread it was made on: the program's
//! freeaddrinfo frees it.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::{null, null_mut};

use libc::addrinfo;

use super::{Lookup, Place, ask, put_text};
use crate::hook::choice::{Hook, active_for};
use crate::hook::{real, same_signature};
use crate::routine::Env;
use crate::sys::errno::Errno;

same_signature!(getaddrinfo: fn(*const c_char, *const c_char, *const addrinfo, *mut *mut addrinfo) -> c_int);

unsafe extern "C" {
    fn inet_pton(family: c_int, text: *const c_char, address: *mut c_void) -> c_int;
    fn inet_aton(text: *const c_char, address: *mut u32) -> c_int;
}

struct Addresses {
    node: *const c_char,
    service: *const c_char,
    /// Without them, what no hints mean.
    hints: Option<addrinfo>,
    list: *mut addrinfo,
    status: c_int,
}

impl Lookup for Addresses {
    unsafe fn ask(&mut self) {
        let hints = self.hints.as_ref().map_or(null(), |hints| &raw const *hints);
        // SAFETY: strings in the object's room, hints and result in the object.
        self.status = unsafe { (real::get().getaddrinfo)(self.node, self.service, hints, &mut self.list) };
    }

    fn discard(&mut self) {
        if !self.list.is_null() {
            // SAFETY: getaddrinfo made the list, and nobody took it.
            unsafe { (real::get().freeaddrinfo)(self.list) };
        }
    }
}

/// Whether getaddrinfo takes the name for an address, good or bad.
fn is_address(node: &CStr) -> bool {
    let bytes = node.to_bytes();
    if bytes.contains(&b':') {
        return is_ipv6(bytes.split(|byte| *byte == b'%').next().unwrap_or(bytes));
    }
    let mut address = 0;
    // SAFETY: a string, and room for an address. (It would allow text after a space; getaddrinfo does not.)
    !bytes.iter().any(u8::is_ascii_whitespace) && unsafe { inet_aton(node.as_ptr(), &mut address) } != 0
}

/// Whether it is an IPv6 address, without the interface that may follow.
fn is_ipv6(text: &[u8]) -> bool {
    let mut copy = [0_u8; 48];
    if text.len() >= copy.len() {
        return false;
    }
    copy[..text.len()].copy_from_slice(text);
    let mut address = [0_u8; 16];
    // SAFETY: a string, since the last byte is 0, and room for an IPv6 address.
    unsafe { inet_pton(libc::AF_INET6, copy.as_ptr().cast(), address.as_mut_ptr().cast()) == 1 }
}

/// `int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res);`
///
/// # Safety
/// As getaddrinfo(3).
#[cfg_attr(not(target_env = "musl"), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    // A fully static program gets freeaddrinfo from the C library's archive, in one object with a getaddrinfo
    // that is not weak: so ours must be, and that one serves there. (The assembler warns that it changes.)
    // SAFETY: no instruction.
    unsafe { core::arch::asm!(".weak getaddrinfo", options(nomem, nostack, preserves_flags)) };
    match active_for(Hook::Getaddrinfo) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { getaddrinfo_hooked(env, node, service, hints, result) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().getaddrinfo)(node, service, hints, result) },
    }
}

/// # Safety
/// As getaddrinfo(3).
#[inline(never)]
unsafe fn getaddrinfo_hooked(
    env: &Env,
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    // SAFETY: null or the caller's hints.
    let copied = unsafe { hints.as_ref() }.copied();
    let numeric = copied.is_some_and(|hints| hints.ai_flags & libc::AI_NUMERICHOST != 0);
    if env.running().is_main() || node.is_null() || numeric {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().getaddrinfo)(node, service, hints, result) };
    }
    // SAFETY: a string of the caller's.
    let name = unsafe { CStr::from_ptr(node) };
    // "*" is getaddrinfo's other word for no name.
    if name == c"*" || is_address(name) {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().getaddrinfo)(node, service, hints, result) };
    }
    // SAFETY: null or a string of the caller's.
    let port = (!service.is_null()).then(|| unsafe { CStr::from_ptr(service) });
    // SAFETY: `result` may be written, as the caller vouches.
    unsafe { look_up(env, name, port, copied, result) }
}

/// # Safety
/// `result` may be written.
unsafe fn look_up(
    env: &Env,
    name: &CStr,
    port: Option<&CStr>,
    hints: Option<addrinfo>,
    result: *mut *mut addrinfo,
) -> c_int {
    let name_size = name.count_bytes() + 1;
    let port_size = port.map_or(0, |text| text.count_bytes() + 1);
    let answer = ask(env, Place::Helper, name_size + port_size, |room| {
        // SAFETY: the room has `name_size` bytes first.
        unsafe { put_text(room, name) };
        let behind = room.wrapping_add(name_size);
        let service = port.map_or(null(), |text| {
            // SAFETY: and `port_size` bytes then.
            unsafe { put_text(behind, text) };
            behind.cast_const()
        });
        Addresses { node: room, service, hints, list: null_mut(), status: 0 }
    });
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(Errno(libc::ENOMEM)) => return libc::EAI_MEMORY,
        Err(error) => {
            error.set();
            return libc::EAI_SYSTEM;
        }
    };
    let status = answer.lookup().status;
    if status == 0 {
        let list = core::mem::replace(&mut answer.lookup().list, null_mut());
        // SAFETY: as the caller vouches.
        unsafe { result.write(list) };
    }
    let errno = answer.errno();
    answer.free();
    errno.set();
    status
}
