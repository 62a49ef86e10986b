//! Sockets come, connect and go: socket, connect, shutdown, close, setsockopt, getsockopt, and co_accept.

use core::ffi::{c_int, c_void};
use core::mem::size_of;

use libc::{sockaddr, socklen_t};

use super::fd_table::{self, NONBLOCK_BELOW, NONBLOCK_BY_PROGRAM, WRITE_TIMEOUT_SET};
use super::{Waited, active, deadline, real, same_signature, wait_for};
use crate::event;
use crate::routine::Env;
use crate::sys::errno::Errno;

same_signature!(socket: fn(c_int, c_int, c_int) -> c_int);
same_signature!(connect: fn(c_int, *const sockaddr, socklen_t) -> c_int);
same_signature!(close: fn(c_int) -> c_int);
same_signature!(shutdown: fn(c_int, c_int) -> c_int);
same_signature!(getsockopt: fn(c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int);
same_signature!(setsockopt: fn(c_int, c_int, c_int, *const c_void, socklen_t) -> c_int);

/// `int socket(int domain, int type, int protocol);` With hooks on the socket is recorded and made
/// non-blocking underneath.
///
/// # Safety
/// As socket(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    if active().is_none() {
        // SAFETY: the caller's arguments.
        let fd = unsafe { (real::get().socket)(domain, kind, protocol) };
        fd_table::not_ours(fd);
        return fd;
    }
    // SAFETY: the caller's arguments.
    let fd = unsafe { (real::get().socket)(domain, kind | libc::SOCK_NONBLOCK, protocol) };
    if fd < 0 {
        return fd;
    }
    let by_program = if kind & libc::SOCK_NONBLOCK != 0 { NONBLOCK_BY_PROGRAM } else { 0 };
    if let Err(error) = fd_table::record(fd, NONBLOCK_BELOW | by_program) {
        // SAFETY: just made, seen by nobody.
        unsafe { (real::get().close)(fd) };
        error.set();
        return -1;
    }
    fd
}

/// co_accept: accept(2), and the new socket is recorded. Its mode stays as accept made it.
///
/// # Safety
/// As accept(2).
pub(crate) unsafe fn accept_recorded(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller's arguments.
    let new = unsafe { (real::get().accept)(fd, addr, len) };
    if new < 0 {
        return new;
    }
    if let Err(error) = fd_table::record(new, 0) {
        // SAFETY: just made, seen by nobody.
        unsafe { (real::get().close)(new) };
        error.set();
        return -1;
    }
    new
}

/// How long a connect takes at most without SO_SNDTIMEO: as the original, 75 s.
const CONNECT_MS: c_int = 75_000;

/// `int connect(int sockfd, const struct sockaddr *addr, socklen_t addrlen);` Waits for the connection:
/// 75 s, or SO_SNDTIMEO if that is set; then ETIMEDOUT. A connect that waited and succeeded leaves errno 0.
///
/// # Safety
/// As connect(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    match active() {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { connect_hooked(fd, addr, len, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().connect)(fd, addr, len) },
    }
}

/// # Safety
/// As connect(2).
#[inline(never)]
unsafe fn connect_hooked(fd: c_int, addr: *const sockaddr, len: socklen_t, env: &Env) -> c_int {
    // SAFETY: the caller's arguments.
    let result = unsafe { (real::get().connect)(fd, addr, len) };
    let Some(record) = fd_table::waits(fd) else { return result };
    if result == 0 || Errno::last() != Errno(libc::EINPROGRESS) {
        return result;
    }
    let ms = if record.has(WRITE_TIMEOUT_SET) { record.write_ms() } else { CONNECT_MS };
    let error = match wait_for(env, fd, libc::POLLOUT as u16, deadline(ms)) {
        Ok(Waited::Ready | Waited::HungUp) => match pending_error(fd) {
            Ok(0) => {
                Errno(0).set();
                return 0;
            }
            Ok(error) => Errno(error),
            Err(error) => error,
        },
        Ok(Waited::Over) => Errno(libc::ETIMEDOUT),
        Err(error) => error,
    };
    error.set();
    -1
}

/// SO_ERROR.
fn pending_error(fd: c_int) -> Result<c_int, Errno> {
    let mut error: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    let value = (&raw mut error).cast::<c_void>();
    // SAFETY: `error` and `len` are written.
    let status = unsafe { (real::get().getsockopt)(fd, libc::SOL_SOCKET, libc::SO_ERROR, value, &mut len) };
    if status == 0 { Ok(error) } else { Err(Errno::last()) }
}

/// `int close(int fd);` Whatever the hooks' state: the number leaves every loop first, and who waits for
/// it wakes.
///
/// # Safety
/// As close(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
    // SAFETY: the caller's argument.
    fd_table::close_by(fd, || unsafe { (real::get().close)(fd) })
}

/// `int shutdown(int sockfd, int how);` Who waits there wakes, in every thread: epoll does not report
/// it of every socket.
///
/// # Safety
/// As shutdown(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn shutdown(fd: c_int, how: c_int) -> c_int {
    // SAFETY: the caller's arguments.
    let result = unsafe { (real::get().shutdown)(fd, how) };
    if result == 0 && how != libc::SHUT_RD && !event::rouse(fd) && fd_table::get(fd).is_some() && is_local(fd)
    {
        event::rouse_soon(fd);
    }
    result
}

/// Whether it is an AF_UNIX socket: epoll does not report a shutdown of one that is full.
#[cold]
fn is_local(fd: c_int) -> bool {
    let errno = Errno::last();
    let mut domain: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    // SAFETY: room for a number. Past our own hook.
    let told = unsafe {
        (real::get().getsockopt)(fd, libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut domain).cast(), &mut len)
    };
    errno.set();
    told == 0 && domain == libc::AF_UNIX
}

/// `int setsockopt(int sockfd, int level, int optname, const void *optval, socklen_t optlen);` Time-outs
/// that the kernel accepts are the hooks' as well.
///
/// # Safety
/// As setsockopt(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    match active() {
        // SAFETY: the caller's arguments.
        Some(_) => unsafe { setsockopt_hooked(fd, level, name, value, len) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().setsockopt)(fd, level, name, value, len) },
    }
}

/// # Safety
/// As setsockopt(2).
#[inline(never)]
unsafe fn setsockopt_hooked(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    // SAFETY: the caller's arguments.
    let result = unsafe { (real::get().setsockopt)(fd, level, name, value, len) };
    if result == 0
        && level == libc::SOL_SOCKET
        && (name == libc::SO_RCVTIMEO || name == libc::SO_SNDTIMEO)
        && let Some(record) = fd_table::get(fd)
    {
        // SAFETY: the kernel accepted it: at least a timeval, at any alignment.
        let timeout = unsafe { value.cast::<libc::timeval>().read_unaligned() };
        record.set_timeout(name == libc::SO_SNDTIMEO, &timeout);
    }
    result
}

/// `int getsockopt(int sockfd, int level, int optname, void *optval, socklen_t *optlen);` Time-outs that
/// co_set_timeout set are reported as if by setsockopt.
///
/// # Safety
/// As getsockopt(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    match active() {
        // SAFETY: the caller's arguments.
        Some(_) => unsafe { getsockopt_hooked(fd, level, name, value, len) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().getsockopt)(fd, level, name, value, len) },
    }
}

/// # Safety
/// As getsockopt(2).
#[inline(never)]
unsafe fn getsockopt_hooked(
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    // SAFETY: the caller's arguments.
    let result = unsafe { (real::get().getsockopt)(fd, level, name, value, len) };
    if result == 0
        && level == libc::SOL_SOCKET
        && (name == libc::SO_RCVTIMEO || name == libc::SO_SNDTIMEO)
        && let Some(timeout) = fd_table::get(fd).and_then(|r| r.timeout_by_call(name == libc::SO_SNDTIMEO))
    {
        // SAFETY: the kernel has written it.
        let written = unsafe { len.read_unaligned() } as usize;
        let bytes = (&raw const timeout).cast::<u8>();
        // SAFETY: the kernel has written as many bytes there.
        unsafe { value.cast::<u8>().copy_from(bytes, written.min(size_of::<libc::timeval>())) };
    }
    result
}

/// `close` under another of libc's names.
///
/// # Safety
/// As close(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __close(fd: c_int) -> c_int {
    // SAFETY: the caller's argument.
    unsafe { close(fd) }
}

/// `connect` under another of libc's names.
///
/// # Safety
/// As connect(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __connect(fd: c_int, addr: *const sockaddr, len: socklen_t) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { connect(fd, addr, len) }
}
