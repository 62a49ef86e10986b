//! Several messages at once: recvmmsg and sendmmsg.
//!
//! The program's array is read only as far as the kernel has read it.

use core::ffi::{c_int, c_uint};

use libc::{mmsghdr, size_t, ssize_t, timespec};

use super::choice::{Hook, active_for};
use super::fd_table::{self, Record};
use super::io::{
    DONT_WAIT, NEVER_WAITS, recorded, try_then_wait, wait_then_try, without_waiting, would_block,
};
use super::message::{len_of, send_behind};
use super::send::send_on;
use super::{Waited, deadline, real, same_signature, wait_for};
use crate::event;
use crate::routine::Env;

/// (musl has it unsigned.)
#[cfg(target_env = "musl")]
type Flags = c_uint;
#[cfg(not(target_env = "musl"))]
type Flags = c_int;
same_signature!(recvmmsg: fn(c_int, *mut mmsghdr, c_uint, Flags, *mut timespec) -> c_int);
same_signature!(sendmmsg: fn(c_int, *mut mmsghdr, c_uint, Flags) -> c_int);

/// As many messages as the kernel takes in one call.
const MOST: c_uint = 1024;

/// `int recvmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags, struct timespec *timeout);`
/// Waits for each message, or with MSG_WAITFORONE for the first alone. As with libc's the time-out does not end
/// the wait for the first message; it ends the wait for the others, which libc's does only when one comes.
///
/// # Safety
/// As recvmmsg(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    match active_for(Hook::Recvmmsg) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { recvmmsg_hooked(fd, messages, count, flags, timeout, env) as c_int },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().recvmmsg)(fd, messages, count, flags, timeout) },
    }
}

/// # Safety
/// As recvmmsg(2).
#[inline(never)]
unsafe fn recvmmsg_hooked(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
    env: &Env,
) -> ssize_t {
    let call = real::get().recvmmsg;
    let record = recorded!(fd, else call(fd, messages, count, flags, timeout) as ssize_t);
    if flags & NEVER_WAITS != 0 {
        // SAFETY: the caller's arguments.
        let got = unsafe { call(fd, messages, count, flags, timeout) };
        return without_waiting(env, record, got as ssize_t);
    }
    let count = count.min(MOST);
    // The time-out goes along: the kernel says what is wrong with it, and never waits for it here.
    let first = || {
        // SAFETY: the caller's arguments.
        unsafe { call(fd, messages, count, flags | libc::MSG_DONTWAIT, timeout) as ssize_t }
    };
    let got = try_then_wait(env, record, fd, libc::POLLIN as u16, record.read_ms(), first);
    if got <= 0 || flags & libc::MSG_WAITFORONE != 0 {
        return got;
    }
    // SAFETY: null, or read and written by the kernel: what is left of it.
    let until = unsafe { timeout.as_ref() }.map(|left| event::deadline_after(millis(left)));
    // SAFETY: as above, and the kernel has read the first messages.
    unsafe { receive_others(env, record, fd, messages, got as c_uint, count, flags, until) as ssize_t }
}

/// Whole milliseconds, rounded up.
fn millis(time: &timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0).div_ceil(1_000_000);
    seconds.saturating_mul(1000).saturating_add(rest)
}

/// Receives message after message until there are `count`, an error, or `until`; at least `got` is returned.
///
/// # Safety
/// As recvmmsg(2).
#[expect(clippy::too_many_arguments, reason = "a system call's, and where it stands")]
#[inline(never)]
unsafe fn receive_others(
    env: &Env,
    record: &Record,
    fd: c_int,
    messages: *mut mmsghdr,
    mut got: c_uint,
    count: c_uint,
    flags: c_int,
    until: Option<u64>,
) -> c_uint {
    let earlier = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
    while got < count {
        // SAFETY: received, so written by the kernel.
        if unsafe { (*messages.wrapping_add(got as usize - 1)).msg_hdr.msg_flags } & libc::MSG_OOB != 0 {
            break;
        }
        let until = earlier(until, deadline(record.read_ms()));
        let Ok(waited) = wait_for(env, fd, libc::POLLIN as u16, until) else { break };
        record.passed();
        let (next, flags) = (messages.wrapping_add(got as usize), flags | libc::MSG_DONTWAIT);
        // SAFETY: the rest of the caller's messages; no time-out.
        let more = unsafe { (real::get().recvmmsg)(fd, next, count - got, flags, core::ptr::null_mut()) };
        if more > 0 {
            got += more as c_uint;
        } else if more == 0 || !would_block() || waited == Waited::Over {
            break;
        }
    }
    got
}

/// `int sendmmsg(int sockfd, struct mmsghdr *msgvec, unsigned int vlen, int flags);` As sendmsg, one message
/// after the other.
///
/// # Safety
/// As sendmmsg(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    match active_for(Hook::Sendmmsg) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { sendmmsg_hooked(fd, messages, count, flags, env) as c_int },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().sendmmsg)(fd, messages, count, flags) },
    }
}

/// # Safety
/// As sendmmsg(2).
#[inline(never)]
unsafe fn sendmmsg_hooked(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    env: &Env,
) -> ssize_t {
    let call = real::get().sendmmsg;
    let record = recorded!(fd, else call(fd, messages, count, flags) as ssize_t);
    if flags & libc::MSG_DONTWAIT != 0 {
        // SAFETY: the caller's arguments.
        let put = unsafe { call(fd, messages, count, flags) };
        return without_waiting(env, record, put as ssize_t);
    }
    let count = count.min(MOST);
    let mut done = 0;
    loop {
        let attempt = || {
            let (next, flags) = (messages.wrapping_add(done as usize), flags | DONT_WAIT);
            // SAFETY: the rest of the caller's messages.
            unsafe { call(fd, next, count - done, flags) as ssize_t }
        };
        let mut put = attempt();
        if put < 0 && would_block() {
            let until = deadline(record.write_ms());
            put = wait_then_try(env, Some(record), fd, libc::POLLOUT as u16, until, attempt);
        }
        if put <= 0 {
            return if done > 0 { done as ssize_t } else { put };
        }
        done += put as c_uint;
        // SAFETY: sent at least in part, so the kernel has read it.
        if !unsafe { send_whole(env, record, fd, messages.wrapping_add(done as usize - 1), flags) }
            || done >= count
        {
            return done as ssize_t;
        }
    }
}

/// The last message that went may have gone in part: sends the rest. False if that was not to be done.
///
/// # Safety
/// The kernel has sent the beginning of the message.
unsafe fn send_whole(env: &Env, record: &Record, fd: c_int, message: *mut mmsghdr, flags: c_int) -> bool {
    // SAFETY: a place in the caller's array.
    let header = unsafe { &raw const (*message).msg_hdr };
    // SAFETY: as the caller vouches.
    let sent = unsafe { (*message).msg_len } as size_t;
    // SAFETY: as the caller vouches.
    let len = unsafe { len_of(header) };
    if sent == 0 || sent >= len {
        return true;
    }
    let sent = send_on(
        env,
        record,
        fd,
        sent,
        || len,
        |sent, more| {
            // SAFETY: as the caller vouches.
            unsafe { send_behind(fd, header, sent, flags | more) }
        },
    );
    // SAFETY: the kernel has written it before.
    unsafe { (*message).msg_len = sent as c_uint };
    sent as size_t == len
}
