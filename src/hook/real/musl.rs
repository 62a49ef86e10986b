//! What serves in a fully static program where the C library is musl.
//!
//! Its msghdr is not the kernel's: lengths have 32 bits, and what fills them up to the kernel's 64 is left as it is by
//! programs. musl's own functions clear it, and so do these, which serve in their place. Its fclose and its resolver have no
//! second name that they could be called by: there ours are not exported, and these are the C library's own. (But for the
//! functions that return a host in static storage: in coroutines that would be overwritten. They are made of those with _r.)

use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use core::mem::{offset_of, size_of};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use libc::{FILE, addrinfo, hostent, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};

use crate::hook::message::len_of;
use crate::sys::errno::Errno;

unsafe extern "C" {
    safe fn __h_errno_location() -> *mut c_int;
}

unsafe extern "C-unwind" {
    pub(super) fn fclose(stream: *mut FILE) -> c_int;
    pub(super) fn getaddrinfo(
        node: *const c_char,
        service: *const c_char,
        hints: *const addrinfo,
        result: *mut *mut addrinfo,
    ) -> c_int;
    pub(super) fn freeaddrinfo(list: *mut addrinfo);
    pub(super) fn getnameinfo(
        address: *const sockaddr,
        len: socklen_t,
        host: *mut c_char,
        host_len: socklen_t,
        service: *mut c_char,
        service_len: socklen_t,
        flags: c_int,
    ) -> c_int;
    pub(super) fn gethostbyname_r(
        name: *const c_char,
        host: *mut hostent,
        buf: *mut c_char,
        len: size_t,
        result: *mut *mut hostent,
        error: *mut c_int,
    ) -> c_int;
    pub(super) fn gethostbyname2_r(
        name: *const c_char,
        family: c_int,
        host: *mut hostent,
        buf: *mut c_char,
        len: size_t,
        result: *mut *mut hostent,
        error: *mut c_int,
    ) -> c_int;
    pub(super) fn gethostbyaddr_r(
        address: *const c_void,
        address_len: socklen_t,
        family: c_int,
        host: *mut hostent,
        buf: *mut c_char,
        len: size_t,
        result: *mut *mut hostent,
        error: *mut c_int,
    ) -> c_int;
}

/// The last host that was returned outside of coroutines.
static HOST: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// What a first try has room for, beside the hostent.
const FIRST_ROOM: usize = 1024;
const LARGEST_ROOM: usize = 1 << 20;

/// A host in static storage, by one of the functions with _r: `find(host, buf, len, result)`.
fn host_by(find: impl Fn(*mut hostent, *mut c_char, size_t, *mut *mut hostent) -> c_int) -> *mut hostent {
    let mut room = FIRST_ROOM;
    loop {
        // SAFETY: any size.
        let block = unsafe { libc::malloc(size_of::<hostent>() + room) };
        if block.is_null() {
            return null_mut();
        }
        let host = block.cast::<hostent>();
        let mut result = null_mut();
        let status = find(host, host.wrapping_add(1).cast(), room, &mut result);
        let mut unwanted = block;
        if !result.is_null() {
            unwanted = HOST.swap(block, Ordering::AcqRel);
        }
        // SAFETY: a block of this function's, which the next call of the same kind may free.
        unsafe { libc::free(unwanted) };
        if status != libc::ERANGE || room >= LARGEST_ROOM {
            return result;
        }
        room *= 4;
    }
}

/// # Safety
/// As gethostbyname(3).
pub(super) unsafe fn gethostbyname(name: *const c_char) -> *mut hostent {
    // SAFETY: the caller's argument.
    unsafe { gethostbyname2(name, libc::AF_INET) }
}

/// # Safety
/// As gethostbyname2(3).
pub(super) unsafe fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent {
    // SAFETY: the caller's arguments, and room of ours.
    host_by(|host, buf, len, result| unsafe {
        gethostbyname2_r(name, family, host, buf, len, result, __h_errno_location())
    })
}

/// # Safety
/// As gethostbyaddr(3).
pub(super) unsafe fn gethostbyaddr(address: *const c_void, size: socklen_t, family: c_int) -> *mut hostent {
    // SAFETY: as above.
    host_by(|host, buf, len, result| unsafe {
        gethostbyaddr_r(address, size, family, host, buf, len, result, __h_errno_location())
    })
}

/// Bytes of control data that a message may have, as in the C library's own sendmsg.
const MOST_CONTROL: usize = 1024;

/// Bytes in front of each piece of control data: its length, level and type.
const CONTROL_HEADER: usize = 16;

/// Makes the 32-bit number at `at` one of 64 bits.
///
/// # Safety
/// Eight bytes at `at` may be read and written.
unsafe fn widen(at: *mut u8) {
    // SAFETY: as the caller vouches.
    let number = unsafe { at.cast::<u32>().read_unaligned() };
    // SAFETY: as the caller vouches.
    unsafe { at.cast::<u64>().write_unaligned(number.into()) };
}

/// Makes a message the kernel's.
///
/// # Safety
/// The message may be read and written.
unsafe fn widen_message(message: *mut msghdr) {
    let start = message.cast::<u8>();
    // SAFETY: the number, and the padding behind it.
    unsafe { widen(start.wrapping_add(offset_of!(msghdr, msg_iovlen))) };
    // SAFETY: likewise.
    unsafe { widen(start.wrapping_add(offset_of!(msghdr, msg_controllen))) };
}

/// # Safety
/// As recvmsg(2).
pub(super) unsafe fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    if !message.is_null() {
        // SAFETY: the caller's message.
        unsafe { widen_message(message) };
    }
    // SAFETY: the caller's arguments.
    unsafe { raw!(SYS_recvmsg, fd, message, flags) }
}

/// A copy of control data.
#[repr(C, align(8))]
struct Control([u8; MOST_CONTROL]);

impl Control {
    /// The data of `message`, as the kernel wants it. `None` if it is too much.
    ///
    /// # Safety
    /// The message's control data may be read.
    unsafe fn of(message: &msghdr) -> Option<Control> {
        let len = message.msg_controllen as usize;
        if len > MOST_CONTROL {
            return None;
        }
        let mut copy = Control([0; MOST_CONTROL]);
        // SAFETY: `len` bytes, as the caller vouches, and no more than there is room for.
        unsafe { copy.0.as_mut_ptr().copy_from_nonoverlapping(message.msg_control.cast(), len) };
        let mut at = 0;
        while at + CONTROL_HEADER <= len {
            let start = copy.0[at..].as_mut_ptr();
            // SAFETY: a header begins here.
            unsafe { widen(start) };
            // SAFETY: as above.
            let piece = unsafe { start.cast::<u64>().read() } as usize;
            if piece < CONTROL_HEADER || piece > len - at {
                break;
            }
            at += piece.next_multiple_of(8);
        }
        Some(copy)
    }
}

/// # Safety
/// As sendmsg(2).
pub(super) unsafe fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    if message.is_null() {
        // SAFETY: the kernel's to refuse.
        return unsafe { raw!(SYS_sendmsg, fd, message, flags) };
    }
    // SAFETY: the caller's message.
    let mut copy = unsafe { message.read_unaligned() };
    // SAFETY: our own copy.
    unsafe { widen_message(&mut copy) };
    let mut control = None;
    if !copy.msg_control.is_null() && copy.msg_controllen != 0 {
        // SAFETY: the caller's control data.
        control = unsafe { Control::of(&copy) };
        let Some(control) = control.as_mut() else {
            Errno(libc::ENOMEM).set();
            return -1;
        };
        copy.msg_control = (&raw mut control.0).cast();
    }
    // SAFETY: the caller's arguments, and copies that outlive the call.
    let sent = unsafe { raw!(SYS_sendmsg, fd, &raw const copy, flags) };
    drop(control);
    sent
}

/// Of several messages, the `i`th.
fn header(messages: *mut mmsghdr, i: c_uint) -> *mut msghdr {
    const _: () = assert!(offset_of!(mmsghdr, msg_hdr) == 0);
    messages.wrapping_add(i as usize).cast()
}

/// As the kernel's: it stops behind a message that was sent in part.
///
/// # Safety
/// As sendmmsg(2).
pub(super) unsafe fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int {
    let mut done = 0;
    while done < count {
        let message = header(messages, done);
        // SAFETY: one of the caller's messages.
        let sent = unsafe { sendmsg(fd, message, flags) };
        if sent < 0 {
            return if done == 0 { -1 } else { done as c_int };
        }
        let len = message.cast::<u8>().wrapping_add(offset_of!(mmsghdr, msg_len)).cast::<c_uint>();
        // SAFETY: as above, with its length behind it.
        unsafe { len.write_unaligned(sent as c_uint) };
        done += 1;
        // SAFETY: as above, and the kernel has read it.
        if (sent as usize) < unsafe { len_of(message) } {
            break;
        }
    }
    done as c_int
}

/// # Safety
/// As recvmmsg(2).
pub(super) unsafe fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    for i in 0..count {
        // SAFETY: one of the caller's messages.
        unsafe { widen_message(header(messages, i)) };
    }
    // SAFETY: the caller's arguments.
    unsafe { raw!(SYS_recvmmsg, fd, messages, count, flags, timeout) }
}

/// unsetenv, by taking entries out of `environ`. (musl's putenv, which could do it, calls unsetenv.)
///
/// # Safety
/// `name` is null or a string.
pub(super) unsafe fn unsetenv(name: *const c_char) -> c_int {
    unsafe extern "C" {
        static environ: *mut *mut c_char;
    }
    // SAFETY: as the caller vouches.
    let wanted = if name.is_null() { b"" } else { unsafe { CStr::from_ptr(name) }.to_bytes() };
    if wanted.is_empty() || wanted.contains(&b'=') {
        Errno(libc::EINVAL).set();
        return -1;
    }
    // SAFETY: the C library's variable.
    let mut from = unsafe { environ };
    let mut to = from;
    if from.is_null() {
        return 0;
    }
    loop {
        // SAFETY: a null-terminated array, of which no entry so far was the last.
        let text = unsafe { from.read() };
        // SAFETY: `to` is `from`, or an entry before it.
        unsafe { to.write(text) };
        if text.is_null() {
            return 0;
        }
        // SAFETY: entries are strings.
        let entry = unsafe { CStr::from_ptr(text) }.to_bytes();
        if !(entry.starts_with(wanted) && entry.get(wanted.len()) == Some(&b'=')) {
            to = to.wrapping_add(1);
        }
        from = from.wrapping_add(1);
    }
}
