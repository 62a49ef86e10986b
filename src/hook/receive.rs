//! Bytes in: read, recv, recvfrom.
//!
//! A read waits first, then reads: echo and request/response servers make the same system calls as
//! hand-written epoll. Only if the last read filled its buffer the next one is tried at once, at most 64
//! times in a row.
//!
//! recv reads a socket for less than read does: so read, too, receives (and reads if the number belongs to
//! something else by now).
//!
//! A read that waits keeps nothing on the stack: what it wants lies in the control block, and the
//! coroutine goes on in [`goes_on`], which returns to the program in `read`'s place. On a copy stack that
//! is a third of the bytes to keep.

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;

use libc::{size_t, sockaddr, socklen_t, ssize_t};

use super::fd_table::{self, NONBLOCK_BY_PROGRAM, NOT_A_SOCKET, Record};
use super::io::{
    DONT_WAIT, NEVER_WAITS, failed, other_names, recorded, wait_then_try, without_waiting, would_block,
};
use super::whole::receive_all;
use super::{active, deadline, file, real, same_signature};
use crate::event;
use crate::routine::coroutine::Outcome;
use crate::routine::{Env, env as environment, yield_into};
use crate::sys::errno::Errno;

same_signature!(read: fn(c_int, *mut c_void, size_t) -> ssize_t);
same_signature!(recv: fn(c_int, *mut c_void, size_t, c_int) -> ssize_t);
same_signature!(recvfrom: fn(c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t);

/// Receives up to `len` bytes by `attempt` (which gets flags to add), waiting as a blocking call would.
#[inline]
fn receive(
    env: &Env,
    record: &Record,
    fd: c_int,
    len: size_t,
    attempt: impl Fn(c_int) -> ssize_t,
) -> ssize_t {
    if record.try_first() {
        let got = attempt(DONT_WAIT);
        if got >= 0 || !would_block() {
            record.note_read(got == len as ssize_t);
            return got;
        }
    }
    receive_until(env, record, fd, len, deadline(record.read_ms()), attempt)
}

/// The waiting part of [`receive`].
fn receive_until(
    env: &Env,
    record: &Record,
    fd: c_int,
    len: size_t,
    until: Option<u64>,
    attempt: impl Fn(c_int) -> ssize_t,
) -> ssize_t {
    let got = wait_then_try(env, Some(record), fd, libc::POLLIN as u16, until, || attempt(DONT_WAIT));
    record.note_read(got > 0 && got == len as ssize_t);
    got
}

/// In `wait.count`: a recv, not a read. (No flag of recv has this bit.)
const BY_RECV: u32 = 1 << 31;
/// In `wait.count`, of a read: the file is no socket.
const OF_FILE: u32 = 1 << 30;

fn read_of(record: &Record) -> u32 {
    if record.has(NOT_A_SOCKET) { OF_FILE } else { 0 }
}

/// What the kernel reads at most in one call, whatever length it is given.
const LONGEST: size_t = 0x7fff_f000;

/// Begins to wait for bytes that [`goes_on`] will receive; false: it cannot be done this way. A function of
/// its own: its caller must have nothing on its stack when it yields.
#[inline(never)]
fn receives_without_frame(
    env: &Env,
    record: &Record,
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    how: u32,
) -> bool {
    let co = env.running();
    if env.waits_plainly() || len == 0 {
        return false;
    }
    let Ok(reactor) = env.reactor() else { return false };
    let until = deadline(record.read_ms());
    if event::begin_one(env, reactor, fd, libc::POLLIN as u16, until).is_err() {
        return false;
    }
    co.wait.more.set(buf);
    co.io_len.set(len.min(LONGEST) as u32);
    co.wait.count.set(how);
    true
}

/// Where a read without frame goes on: it was resumed.
///
/// # Safety
/// `receives_without_frame` has begun the running coroutine's wait.
unsafe extern "C-unwind" fn goes_on() -> ssize_t {
    let Some(env) = environment::current() else { return -1 };
    let happened = event::end_one(env);
    let co = env.running();
    let (fd, buf, len, how) = (
        co.wait.node.fd(),
        co.wait.more.replace(null_mut()),
        co.io_len.get() as size_t,
        co.wait.count.replace(0),
    );
    if happened & libc::POLLNVAL as u16 != 0 {
        // Closed meanwhile: the number may be another file's by now.
        return failed(Errno(libc::EBADF));
    }
    // SAFETY: the buffer and length the program gave, kept since `receives_without_frame`.
    let got = unsafe { try_receive(how | DONT_WAIT as u32, fd, buf, len) };
    if let Some(record) = fd_table::get(fd) {
        record.passed();
        record.note_read(got > 0 && got == len as ssize_t);
    }
    let woken = happened != 0 || co.wait.outcome() == Outcome::Woken;
    if got < 0 && woken && would_block() {
        // Somebody else took it, or the number is another file's now: wait on, for what is left of the time.
        // SAFETY: as above.
        return unsafe { wait_on(env, how, fd, buf, len) };
    }
    got
}

/// One try of what `how` says.
///
/// # Safety
/// As read(2).
#[inline(always)]
unsafe fn try_receive(how: u32, fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    if how & (BY_RECV | OF_FILE) == OF_FILE {
        // SAFETY: as the caller vouches.
        return unsafe { file::read_now(fd, buf, len) };
    }
    // SAFETY: as the caller vouches.
    unsafe { receive_by(how, fd, buf, len, (how & !BY_RECV) as c_int) }
}

/// One try of a recv, or of a read that must not block.
///
/// # Safety
/// As read(2).
unsafe fn receive_by(how: u32, fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    // SAFETY: the program's arguments; recv reads a socket as read does.
    let got = unsafe { (real::get().recv)(fd, buf, len, flags) };
    if got < 0 && how & BY_RECV == 0 && Errno::last() == Errno(libc::ENOTSOCK) {
        // The number changed hands past us: plain from the next call on.
        fd_table::not_ours(fd);
        // SAFETY: the program's arguments.
        return unsafe { file::read_now(fd, buf, len) };
    }
    got
}

/// # Safety
/// As read(2).
#[cold]
unsafe fn wait_on(env: &Env, how: u32, fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t {
    let until = env.running().wait.timer.expires();
    // SAFETY: the program's arguments.
    let attempt = || unsafe { try_receive(how | DONT_WAIT as u32, fd, buf, len) };
    wait_then_try(env, fd_table::get(fd), fd, libc::POLLIN as u16, until, attempt)
}

/// `ssize_t read(int fd, void *buf, size_t count);`
///
/// # Safety
/// As read(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn read(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t {
    match active() {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { read_hooked(fd, buf, count, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().read)(fd, buf, count) },
    }
}

/// # Safety
/// As read(2).
#[inline(never)]
unsafe fn read_hooked(fd: c_int, buf: *mut c_void, count: size_t, env: &Env) -> ssize_t {
    let Some(record) = fd_table::get(fd).filter(|_| count != 0) else {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().read)(fd, buf, count) };
    };
    if record.has(NONBLOCK_BY_PROGRAM) {
        // SAFETY: the caller's arguments.
        return unsafe { try_receive(read_of(record), fd, buf, count) };
    }
    if !record.is_filled() && receives_without_frame(env, record, fd, buf, count, read_of(record)) {
        return yield_into(goes_on);
    }
    // SAFETY: the caller's arguments.
    unsafe { read_with_frame(env, record, fd, buf, count) }
}

/// # Safety
/// As read(2).
#[inline(never)]
unsafe fn read_with_frame(env: &Env, record: &Record, fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t {
    let how = read_of(record);
    receive(env, record, fd, count, |flags| {
        // SAFETY: the caller's arguments.
        unsafe { try_receive(how | flags as u32, fd, buf, count) }
    })
}

/// `ssize_t recv(int sockfd, void *buf, size_t len, int flags);`
///
/// # Safety
/// As recv(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t {
    match active() {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { recv_hooked(fd, buf, len, flags, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().recv)(fd, buf, len, flags) },
    }
}

/// # Safety
/// As recv(2).
#[inline(never)]
unsafe fn recv_hooked(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, env: &Env) -> ssize_t {
    let record = recorded!(fd, else (real::get().recv)(fd, buf, len, flags));
    if flags & (NEVER_WAITS | libc::MSG_WAITALL) == 0
        && !record.is_filled()
        && receives_without_frame(env, record, fd, buf, len, flags as u32 | BY_RECV)
    {
        return yield_into(goes_on);
    }
    // SAFETY: the caller's arguments.
    unsafe { recv_with_frame(env, record, fd, buf, len, flags) }
}

/// # Safety
/// As recv(2).
#[inline(never)]
unsafe fn recv_with_frame(
    env: &Env,
    record: &Record,
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the caller's arguments.
    let attempt = |more: c_int| unsafe { (real::get().recv)(fd, buf, len, flags | more) };
    if flags & NEVER_WAITS != 0 {
        return without_waiting(env, record, attempt(0));
    }
    if flags & libc::MSG_WAITALL != 0 {
        return receive_all(
            env,
            record,
            fd,
            || len,
            flags,
            |got, more| {
                let rest = buf.cast::<u8>().wrapping_add(got).cast::<c_void>();
                // SAFETY: the rest of the caller's buffer.
                unsafe { (real::get().recv)(fd, rest, len - got, flags | more) }
            },
        );
    }
    receive(env, record, fd, len, attempt)
}

/// `ssize_t recvfrom(int sockfd, void *buf, size_t len, int flags, struct sockaddr *src_addr, socklen_t *addrlen);`
///
/// # Safety
/// As recvfrom(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn recvfrom(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    match active() {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { recvfrom_hooked(fd, buf, len, flags, from, from_len, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().recvfrom)(fd, buf, len, flags, from, from_len) },
    }
}

/// # Safety
/// As recvfrom(2).
#[inline(never)]
unsafe fn recvfrom_hooked(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
    env: &Env,
) -> ssize_t {
    let record = recorded!(fd, else (real::get().recvfrom)(fd, buf, len, flags, from, from_len));
    // SAFETY: the caller's arguments.
    let attempt = |more: c_int| unsafe { (real::get().recvfrom)(fd, buf, len, flags | more, from, from_len) };
    if flags & NEVER_WAITS != 0 {
        return without_waiting(env, record, attempt(0));
    }
    if flags & libc::MSG_WAITALL != 0 {
        return receive_all(
            env,
            record,
            fd,
            || len,
            flags,
            |got, more| {
                if got == 0 {
                    return attempt(more);
                }
                let rest = buf.cast::<u8>().wrapping_add(got).cast::<c_void>();
                // SAFETY: the rest of the caller's buffer; the sender is known already.
                unsafe { (real::get().recv)(fd, rest, len - got, flags | more) }
            },
        );
    }
    receive(env, record, fd, len, attempt)
}

/// `read`, fortified: `room` bytes at `buf`.
///
/// # Safety
/// As read(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __read_chk(
    fd: c_int,
    buf: *mut c_void,
    count: size_t,
    room: size_t,
) -> ssize_t {
    if count > room {
        // SAFETY: ends the program.
        return unsafe { (real::get().read_chk)(fd, buf, count, room) };
    }
    // SAFETY: the caller's arguments.
    unsafe { read(fd, buf, count) }
}

/// `recv`, fortified.
///
/// # Safety
/// As recv(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __recv_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    if len > room {
        // SAFETY: ends the program.
        return unsafe { (real::get().recv_chk)(fd, buf, len, room, flags) };
    }
    // SAFETY: the caller's arguments.
    unsafe { recv(fd, buf, len, flags) }
}

/// `recvfrom`, fortified.
///
/// # Safety
/// As recvfrom(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __recvfrom_chk(
    fd: c_int,
    buf: *mut c_void,
    len: size_t,
    room: size_t,
    flags: c_int,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> ssize_t {
    if len > room {
        // SAFETY: ends the program.
        return unsafe { (real::get().recvfrom_chk)(fd, buf, len, room, flags, from, from_len) };
    }
    // SAFETY: the caller's arguments.
    unsafe { recvfrom(fd, buf, len, flags, from, from_len) }
}

other_names! {
    __read = read(fd: c_int, buf: *mut c_void, count: size_t);
}
