//! One message: recvmsg and sendmsg.
//!
//! The program's msghdr is read only after the kernel has read it: a bad pointer is then the kernel's EFAULT.

use core::ffi::c_int;

use libc::{iovec, msghdr, size_t, ssize_t};

use super::choice::{Hook, active_for};
use super::fd_table;
use super::io::{DONT_WAIT, NEVER_WAITS, recorded, try_then_wait, without_waiting};
use super::send::send_all;
use super::vector::{Parts, only, rest_of, total_of};
use super::whole::receive_all;
use super::{real, same_signature};
use crate::routine::Env;

same_signature!(recvmsg: fn(c_int, *mut msghdr, c_int) -> ssize_t);
same_signature!(sendmsg: fn(c_int, *const msghdr, c_int) -> ssize_t);

/// Where a message's bytes are.
///
/// # Safety
/// The kernel has read the message.
unsafe fn parts_of(message: *const msghdr) -> (*const iovec, usize) {
    // SAFETY: as the caller vouches; the program may have put it at any address.
    let message = unsafe { message.read_unaligned() };
    (message.msg_iov, message.msg_iovlen as _)
}

/// Bytes that a message has or takes.
///
/// # Safety
/// The kernel has read the message.
pub(super) unsafe fn len_of(message: *const msghdr) -> size_t {
    // SAFETY: as the caller vouches.
    let (parts, count) = unsafe { parts_of(message) };
    // SAFETY: the kernel has read them too.
    unsafe { total_of(parts, count) }
}

/// As [`rest_of`], of a message.
///
/// # Safety
/// The kernel has read the message.
unsafe fn rest_of_message(message: *const msghdr, skip: size_t) -> Parts {
    // SAFETY: as the caller vouches.
    let (parts, count) = unsafe { parts_of(message) };
    // SAFETY: the kernel has read them too.
    unsafe { rest_of(parts, count, skip, usize::MAX) }
}

/// `ssize_t recvmsg(int sockfd, struct msghdr *msg, int flags);` Tries first; MSG_WAITALL as the manual says,
/// but for a message with room for control data, which returns what came first.
///
/// # Safety
/// As recvmsg(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    match active_for(Hook::Recvmsg) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { recvmsg_hooked(fd, message, flags, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().recvmsg)(fd, message, flags) },
    }
}

/// # Safety
/// As recvmsg(2).
#[inline(never)]
unsafe fn recvmsg_hooked(fd: c_int, message: *mut msghdr, flags: c_int, env: &Env) -> ssize_t {
    let record = recorded!(fd, else (real::get().recvmsg)(fd, message, flags));
    // SAFETY: the caller's arguments.
    let attempt = |more: c_int| unsafe { (real::get().recvmsg)(fd, message, flags | more) };
    if flags & NEVER_WAITS != 0 {
        return without_waiting(env, record, attempt(0));
    }
    if flags & libc::MSG_WAITALL == 0 {
        let attempt = || attempt(DONT_WAIT);
        return try_then_wait(env, record, fd, libc::POLLIN as u16, record.read_ms(), attempt);
    }
    let len = || {
        // SAFETY: there are some bytes: the kernel has read the message.
        match unsafe { (*message).msg_control.is_null() } {
            // SAFETY: as above.
            true => unsafe { len_of(message) },
            false => 0,
        }
    };
    receive_all(env, record, fd, len, flags, |got, more| match got {
        0 => attempt(more),
        // SAFETY: there are some bytes: the kernel has read the message.
        _ => unsafe { receive_behind(fd, message, got, flags | more) },
    })
}

/// One try of what comes behind the first `got` bytes of a message.
///
/// # Safety
/// As recvmsg(2), and the kernel has read the message.
#[inline(never)]
unsafe fn receive_behind(fd: c_int, message: *const msghdr, got: size_t, flags: c_int) -> ssize_t {
    // SAFETY: as the caller vouches.
    let rest = unsafe { rest_of_message(message, got) };
    let mut message = only(rest.as_ptr(), rest.len() as usize);
    // SAFETY: the rest of the caller's room.
    unsafe { (real::get().recvmsg)(fd, &mut message, flags) }
}

/// `ssize_t sendmsg(int sockfd, const struct msghdr *msg, int flags);` Goes on until all is sent, as send.
///
/// # Safety
/// As sendmsg(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    match active_for(Hook::Sendmsg) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { sendmsg_hooked(fd, message, flags, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().sendmsg)(fd, message, flags) },
    }
}

/// # Safety
/// As sendmsg(2).
#[inline(never)]
unsafe fn sendmsg_hooked(fd: c_int, message: *const msghdr, flags: c_int, env: &Env) -> ssize_t {
    let record = recorded!(fd, else (real::get().sendmsg)(fd, message, flags));
    if flags & libc::MSG_DONTWAIT != 0 {
        // SAFETY: the caller's arguments.
        return without_waiting(env, record, unsafe { (real::get().sendmsg)(fd, message, flags) });
    }
    // SAFETY: asked for after a success: the kernel has read the message.
    let len = || unsafe { len_of(message) };
    send_all(env, record, fd, len, |sent, more| {
        // SAFETY: the caller's arguments; if some bytes are sent the kernel has read the message.
        unsafe { send_behind(fd, message, sent, flags | more) }
    })
}

/// One try of what is behind the first `sent` bytes of a message; its control data went with those.
///
/// # Safety
/// As sendmsg(2); if something is sent, the kernel has read the message.
#[inline(never)]
pub(super) unsafe fn send_behind(fd: c_int, message: *const msghdr, sent: size_t, flags: c_int) -> ssize_t {
    if sent == 0 {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().sendmsg)(fd, message, flags) };
    }
    // SAFETY: as the caller vouches.
    let rest = unsafe { rest_of_message(message, sent) };
    let message = only(rest.as_ptr(), rest.len() as usize);
    // SAFETY: the rest of the caller's bytes.
    unsafe { (real::get().sendmsg)(fd, &message, flags) }
}
