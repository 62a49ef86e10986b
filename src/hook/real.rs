//! The real functions behind the hooks.
//!
//! They are found once, when the library is loaded, by dlsym(RTLD_NEXT): the next definition after ours,
//! be it libc's or another interposer's. Until then, and where dlsym finds nothing (a fully static
//! program), the raw system call serves: no hook ever calls dlsym, so an allocator that calls getenv
//! while dlsym allocates meets no lock of ours.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use core::ptr::{null, null_mut};

use libc::{
    FILE, addrinfo, epoll_event, fd_set, hostent, iovec, mmsghdr, msghdr, nfds_t, off_t, pollfd, sigset_t,
    size_t, sockaddr, socklen_t, ssize_t, timespec, timeval,
};

use crate::sys::errno::Errno;
use crate::sys::log;

macro_rules! real_functions {
    ($($(#[$doc:meta])* $name:ident: fn($($arg:ident: $type:ty),*) -> $result:ty = $symbol:literal, else $fallback:expr;)*) => {
        /// One pointer for each function, always callable.
        pub(crate) struct Real {
            $($(#[$doc])* pub(crate) $name: unsafe extern "C-unwind" fn($($type),*) -> $result,)*
        }

        /// What serves where the real function is not known.
        mod fallback {
            use super::*;
            $(
                #[allow(unused_variables, reason = "some fallbacks need not every argument")]
                pub(super) unsafe extern "C-unwind" fn $name($($arg: $type),*) -> $result {
                    // SAFETY: the caller's arguments, as the caller of the function vouches.
                    #[allow(unused_unsafe, reason = "some fallbacks do nothing unsafe")]
                    unsafe { $fallback }
                }
            )*
        }

        static REAL: Table = Table(UnsafeCell::new(Real { $($name: fallback::$name,)* }));

        fn find_all(real: &mut Real) {
            $(
                let found = next($symbol);
                if !found.is_null() {
                    // SAFETY: the symbol of this name has this signature.
                    real.$name = unsafe { core::mem::transmute::<*mut c_void, unsafe extern "C-unwind" fn($($type),*) -> $result>(found) };
                }
            )*
        }
    };
}

struct Table(UnsafeCell<Real>);

// SAFETY: written once, by the loader's thread before anything else of the library runs; a hook that an
// earlier library's constructor calls sees the fallbacks.
unsafe impl Sync for Table {}

/// The real functions.
#[inline(always)]
pub(crate) fn get() -> &'static Real {
    // SAFETY: see `Table`.
    unsafe { &*REAL.0.get() }
}

/// A system call with errno, as the C library's functions.
macro_rules! raw {
    ($number:ident, $($arg:expr),*) => { libc::syscall(libc::$number, $($arg as c_long),*) as _ };
}

/// The first where the C library is musl, the second elsewhere.
#[cfg(target_env = "musl")]
macro_rules! by_musl {
    ($name:ident($($arg:expr),*), else $other:expr) => { musl::$name($($arg),*) };
}
#[cfg(not(target_env = "musl"))]
macro_rules! by_musl {
    ($name:ident($($arg:expr),*), else $other:expr) => {
        $other
    };
}

#[cfg(target_env = "musl")]
mod musl;

real_functions! {
    socket: fn(domain: c_int, kind: c_int, protocol: c_int) -> c_int
        = c"socket", else raw!(SYS_socket, domain, kind, protocol);
    connect: fn(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int
        = c"connect", else raw!(SYS_connect, fd, address, len);
    accept: fn(fd: c_int, address: *mut sockaddr, len: *mut socklen_t) -> c_int
        = c"accept", else raw!(SYS_accept, fd, address, len);
    accept4: fn(fd: c_int, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int
        = c"accept4", else raw!(SYS_accept4, fd, address, len, flags);
    dup: fn(fd: c_int) -> c_int = c"dup", else raw!(SYS_dup, fd);
    dup2: fn(fd: c_int, copy: c_int) -> c_int = c"dup2", else dup_onto(fd, copy);
    dup3: fn(fd: c_int, copy: c_int, flags: c_int) -> c_int = c"dup3", else raw!(SYS_dup3, fd, copy, flags);
    close_range: fn(first: c_uint, last: c_uint, flags: c_int) -> c_int
        = c"close_range", else raw!(SYS_close_range, first, last, flags);
    closefrom: fn(first: c_int) -> () = c"closefrom", else close_all_from(first);
    pipe: fn(pair: *mut c_int) -> c_int = c"pipe", else raw!(SYS_pipe2, pair, 0);
    pipe2: fn(pair: *mut c_int, flags: c_int) -> c_int = c"pipe2", else raw!(SYS_pipe2, pair, flags);
    socketpair: fn(domain: c_int, kind: c_int, protocol: c_int, pair: *mut c_int) -> c_int
        = c"socketpair", else raw!(SYS_socketpair, domain, kind, protocol, pair);
    close: fn(fd: c_int) -> c_int = c"close", else raw!(SYS_close, fd);
    read: fn(fd: c_int, buf: *mut c_void, count: size_t) -> ssize_t
        = c"read", else raw!(SYS_read, fd, buf, count);
    write: fn(fd: c_int, buf: *const c_void, count: size_t) -> ssize_t
        = c"write", else raw!(SYS_write, fd, buf, count);
    recv: fn(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t
        = c"recv", else raw!(SYS_recvfrom, fd, buf, len, flags, 0, 0);
    send: fn(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t
        = c"send", else raw!(SYS_sendto, fd, buf, len, flags, 0, 0);
    recvfrom: fn(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, from: *mut sockaddr, from_len: *mut socklen_t) -> ssize_t
        = c"recvfrom", else raw!(SYS_recvfrom, fd, buf, len, flags, from, from_len);
    sendto: fn(fd: c_int, buf: *const c_void, len: size_t, flags: c_int, to: *const sockaddr, to_len: socklen_t) -> ssize_t
        = c"sendto", else raw!(SYS_sendto, fd, buf, len, flags, to, to_len);
    fclose: fn(stream: *mut FILE) -> c_int = c"fclose", else by_musl!(fclose(stream), else _IO_fclose(stream));
    poll: fn(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int
        = c"poll", else no_poll(fds, count, timeout);
    shutdown: fn(fd: c_int, how: c_int) -> c_int = c"shutdown", else raw!(SYS_shutdown, fd, how);
    setsockopt: fn(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int
        = c"setsockopt", else raw!(SYS_setsockopt, fd, level, name, value, len);
    getsockopt: fn(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int
        = c"getsockopt", else raw!(SYS_getsockopt, fd, level, name, value, len);
    /// Variadic in C; one argument of pointer size covers every command.
    fcntl: fn(fd: c_int, command: c_int, arg: usize) -> c_int
        = c"fcntl", else raw!(SYS_fcntl, fd, command, arg);
    fcntl64: fn(fd: c_int, command: c_int, arg: usize) -> c_int
        = c"fcntl64", else raw!(SYS_fcntl, fd, command, arg);
    getenv: fn(name: *const c_char) -> *mut c_char = c"getenv", else environ_value(name);
    setenv: fn(name: *const c_char, value: *const c_char, overwrite: c_int) -> c_int
        = c"setenv", else put_environ(name, value, overwrite);
    unsetenv: fn(name: *const c_char) -> c_int = c"unsetenv", else by_musl!(unsetenv(name), else libc::putenv(libc::strdup(name)));
    gethostbyname: fn(name: *const c_char) -> *mut hostent = c"gethostbyname", else by_musl!(gethostbyname(name), else no_host(name));
    gethostbyname_r: fn(name: *const c_char, host: *mut hostent, buf: *mut c_char, len: size_t, result: *mut *mut hostent, error: *mut c_int) -> c_int
        = c"gethostbyname_r", else by_musl!(gethostbyname_r(name, host, buf, len, result, error), else no_host_r(name, host, buf, len, result, error));
    res_state: fn() -> *mut c_void = c"__res_state", else null_mut();
    readv: fn(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t = c"readv", else raw!(SYS_readv, fd, parts, count);
    writev: fn(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t = c"writev", else raw!(SYS_writev, fd, parts, count);
    recvmsg: fn(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t
        = c"recvmsg", else by_musl!(recvmsg(fd, message, flags), else raw!(SYS_recvmsg, fd, message, flags));
    recvmmsg: fn(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int
        = c"recvmmsg", else by_musl!(recvmmsg(fd, messages, count, flags, timeout), else raw!(SYS_recvmmsg, fd, messages, count, flags, timeout));
    sendmsg: fn(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t
        = c"sendmsg", else by_musl!(sendmsg(fd, message, flags), else raw!(SYS_sendmsg, fd, message, flags));
    sendmmsg: fn(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int
        = c"sendmmsg", else by_musl!(sendmmsg(fd, messages, count, flags), else raw!(SYS_sendmmsg, fd, messages, count, flags));
    sendfile: fn(out: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t
        = c"sendfile", else raw!(SYS_sendfile, out, from, offset, count);
    eventfd: fn(value: c_uint, flags: c_int) -> c_int = c"eventfd", else raw!(SYS_eventfd2, value, flags);
    timerfd_create: fn(clock: c_int, flags: c_int) -> c_int = c"timerfd_create", else raw!(SYS_timerfd_create, clock, flags);
    /// Variadic in C; one argument of pointer size covers every request.
    ioctl: fn(fd: c_int, request: libc::Ioctl, arg: usize) -> c_int = c"ioctl", else raw!(SYS_ioctl, fd, request, arg);

    select: fn(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int
        = c"select", else no_select(count, read, write, except, timeout);
    pselect: fn(count: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *const timespec, mask: *const sigset_t) -> c_int
        = c"pselect", else no_pselect(count, read, write, except, timeout, mask);
    ppoll: fn(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int
        = c"ppoll", else no_ppoll(fds, count, timeout, mask);
    epoll_wait: fn(epfd: c_int, events: *mut epoll_event, count: c_int, timeout: c_int) -> c_int
        = c"epoll_wait", else raw!(SYS_epoll_pwait, epfd, events, count, timeout, 0, KERNEL_MASK);
    epoll_pwait: fn(epfd: c_int, events: *mut epoll_event, count: c_int, timeout: c_int, mask: *const sigset_t) -> c_int
        = c"epoll_pwait", else raw!(SYS_epoll_pwait, epfd, events, count, timeout, mask, KERNEL_MASK);
    epoll_pwait2: fn(epfd: c_int, events: *mut epoll_event, count: c_int, timeout: *const timespec, mask: *const sigset_t) -> c_int
        = c"epoll_pwait2", else raw!(SYS_epoll_pwait2, epfd, events, count, timeout, mask, KERNEL_MASK);
    ppoll_chk: fn(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, room: size_t) -> c_int
        = c"__ppoll_chk", else overflow(fds.addr() ^ count as usize ^ timeout.addr() ^ mask.addr() ^ room) as c_int;

    sleep: fn(seconds: c_uint) -> c_uint = c"sleep", else no_sleep(seconds);
    usleep: fn(micros: c_uint) -> c_int = c"usleep", else no_usleep(micros);
    nanosleep: fn(wish: *const timespec, rest: *mut timespec) -> c_int = c"nanosleep", else raw!(SYS_nanosleep, wish, rest);
    clock_nanosleep: fn(clock: c_int, flags: c_int, wish: *const timespec, rest: *mut timespec) -> c_int
        = c"clock_nanosleep", else no_clock_nanosleep(clock, flags, wish, rest);

    thrd_sleep: fn(wish: *const timespec, rest: *mut timespec) -> c_int = c"thrd_sleep", else no_thrd_sleep(wish, rest);

    getaddrinfo: fn(node: *const c_char, service: *const c_char, hints: *const addrinfo, result: *mut *mut addrinfo) -> c_int
        = c"getaddrinfo", else by_musl!(getaddrinfo(node, service, hints, result), else libc::EAI_FAIL);
    freeaddrinfo: fn(list: *mut addrinfo) -> () = c"freeaddrinfo", else by_musl!(freeaddrinfo(list), else ());
    getnameinfo: fn(address: *const sockaddr, len: socklen_t, host: *mut c_char, host_len: socklen_t, service: *mut c_char, service_len: socklen_t, flags: c_int) -> c_int
        = c"getnameinfo", else by_musl!(getnameinfo(address, len, host, host_len, service, service_len, flags), else libc::EAI_FAIL);
    gethostbyname2: fn(name: *const c_char, family: c_int) -> *mut hostent = c"gethostbyname2", else by_musl!(gethostbyname2(name, family), else no_host(name));
    gethostbyname2_r: fn(name: *const c_char, family: c_int, host: *mut hostent, buf: *mut c_char, len: size_t, result: *mut *mut hostent, error: *mut c_int) -> c_int
        = c"gethostbyname2_r", else by_musl!(gethostbyname2_r(name, family, host, buf, len, result, error), else no_host_r(name, host, buf, len, result, error));
    gethostbyaddr: fn(address: *const c_void, len: socklen_t, family: c_int) -> *mut hostent
        = c"gethostbyaddr", else by_musl!(gethostbyaddr(address, len, family), else no_host(address.cast()));
    gethostbyaddr_r: fn(address: *const c_void, address_len: socklen_t, family: c_int, host: *mut hostent, buf: *mut c_char, len: size_t, result: *mut *mut hostent, error: *mut c_int) -> c_int
        = c"gethostbyaddr_r", else by_musl!(gethostbyaddr_r(address, address_len, family, host, buf, len, result, error), else no_host_r(address.cast(), host, buf, len, result, error));
    secure_getenv: fn(name: *const c_char) -> *mut c_char = c"secure_getenv", else secure_environ_value(name);

    /// The fortified names; each ends the program if the buffer is too small, and is called for that alone.
    read_chk: fn(fd: c_int, buf: *mut c_void, count: size_t, room: size_t) -> ssize_t
        = c"__read_chk", else overflow(fd as usize ^ buf.addr() ^ count ^ room);
    recv_chk: fn(fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int) -> ssize_t
        = c"__recv_chk", else overflow(fd as usize ^ buf.addr() ^ len ^ room ^ flags as usize);
    recvfrom_chk: fn(fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int, from: *mut sockaddr, from_len: *mut socklen_t) -> ssize_t
        = c"__recvfrom_chk", else overflow(fd as usize ^ buf.addr() ^ len ^ room ^ flags as usize ^ from.addr() ^ from_len.addr());
    poll_chk: fn(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int
        = c"__poll_chk", else overflow(fds.addr() ^ count as usize ^ timeout as usize ^ room) as c_int;
}

#[cfg(not(target_env = "musl"))]
unsafe extern "C-unwind" {
    /// glibc's fclose under its other name.
    fn _IO_fclose(stream: *mut FILE) -> c_int;
}

/// dup2 without the C library: dup3, but for a number onto itself.
///
/// # Safety
/// As dup2(2).
unsafe fn dup_onto(fd: c_int, copy: c_int) -> c_int {
    if fd == copy {
        // SAFETY: asks whether the number is open.
        let flags: c_int = unsafe { raw!(SYS_fcntl, fd, libc::F_GETFD) };
        return if flags < 0 { -1 } else { fd };
    }
    // SAFETY: the caller's arguments.
    unsafe { raw!(SYS_dup3, fd, copy, 0) }
}

/// closefrom without the C library.
///
/// # Safety
/// As closefrom(3).
unsafe fn close_all_from(first: c_int) {
    // SAFETY: the caller's argument.
    let _: c_int = unsafe { raw!(SYS_close_range, first.max(0), c_uint::MAX, 0) };
}

/// poll without the C library: not every machine has the system call.
///
/// # Safety
/// As poll(2).
unsafe fn no_poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    let time = timespec { tv_sec: (timeout / 1000).into(), tv_nsec: i64::from(timeout % 1000) * 1_000_000 };
    let time = if timeout < 0 { null() } else { &raw const time };
    // SAFETY: the caller's arguments, and a time of ours.
    unsafe { no_ppoll(fds, count, time, null()) }
}

/// select without the C library, likewise.
///
/// # Safety
/// As select(2).
unsafe fn no_select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: null, or a time of the caller's.
    let Some(timeout) = (unsafe { timeout.as_mut() }) else {
        // SAFETY: the caller's arguments.
        return unsafe { no_pselect(count, read, write, except, null(), null()) };
    };
    let mut left = super::until::of_timeval(timeout);
    // SAFETY: the caller's arguments; the kernel writes what is left of our time.
    let found: c_int = unsafe { raw!(SYS_pselect6, count, read, write, except, &raw mut left, 0) };
    *timeout = timeval { tv_sec: left.tv_sec, tv_usec: left.tv_nsec / 1000 };
    found
}

/// ppoll without the C library, which leaves the time-out as it is.
///
/// # Safety
/// As ppoll(2).
unsafe fn no_ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: null, or a time of the caller's.
    let mut time = unsafe { timeout.as_ref() }.copied();
    let time = time.as_mut().map_or(null_mut(), |t| &raw mut *t);
    // SAFETY: the caller's arguments, and a time of ours.
    unsafe { raw!(SYS_ppoll, fds, count, time, mask, KERNEL_MASK) }
}

/// pselect without the C library, which leaves the time-out as it is.
///
/// # Safety
/// As pselect(2).
unsafe fn no_pselect(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: null, or a time of the caller's.
    let mut time = unsafe { timeout.as_ref() }.copied();
    let time = time.as_mut().map_or(null_mut(), |t| &raw mut *t);
    let with_size = [mask.addr(), KERNEL_MASK];
    // SAFETY: the caller's arguments, and a time of ours.
    unsafe { raw!(SYS_pselect6, count, read, write, except, time, &raw const with_size) }
}

/// Bytes of a signal mask as the kernel has it.
const KERNEL_MASK: usize = 8;

/// Sleeps, and returns what is left.
fn sleep_for(mut time: timespec) -> Result<(), timespec> {
    let rest = &raw mut time;
    // SAFETY: reads and writes the time.
    match unsafe { libc::syscall(libc::SYS_nanosleep, rest, rest) } {
        0 => Ok(()),
        _ => Err(time),
    }
}

fn no_sleep(seconds: c_uint) -> c_uint {
    match sleep_for(timespec { tv_sec: seconds.into(), tv_nsec: 0 }) {
        Ok(()) => 0,
        Err(rest) => rest.tv_sec as c_uint + c_uint::from(rest.tv_nsec > 0),
    }
}

fn no_usleep(micros: c_uint) -> c_int {
    let time = timespec { tv_sec: (micros / 1_000_000).into(), tv_nsec: (micros % 1_000_000 * 1000).into() };
    if sleep_for(time).is_ok() { 0 } else { -1 }
}

/// # Safety
/// As clock_nanosleep(2).
unsafe fn no_clock_nanosleep(
    clock: c_int,
    flags: c_int,
    wish: *const timespec,
    rest: *mut timespec,
) -> c_int {
    // SAFETY: the caller's arguments.
    let result: c_int = unsafe { raw!(SYS_clock_nanosleep, clock, flags, wish, rest) };
    if result == 0 { 0 } else { Errno::last().0 }
}

/// # Safety
/// As thrd_sleep(3).
unsafe fn no_thrd_sleep(wish: *const timespec, rest: *mut timespec) -> c_int {
    // SAFETY: the caller's arguments.
    match unsafe { no_clock_nanosleep(libc::CLOCK_REALTIME, 0, wish, rest) } {
        0 => 0,
        libc::EINTR => -1,
        _ => -2,
    }
}

/// As [`environ_value`]; nothing in a program that has more rights than who started it.
///
/// # Safety
/// `name` is a string.
unsafe fn secure_environ_value(name: *const c_char) -> *mut c_char {
    if crate::sys::process::has_more_rights() {
        return null_mut();
    }
    // SAFETY: as the caller vouches.
    unsafe { environ_value(name) }
}

/// getenv without the C library: reads `environ`.
///
/// # Safety
/// `name` is a string.
unsafe fn environ_value(name: *const c_char) -> *mut c_char {
    unsafe extern "C" {
        static environ: *const *mut c_char;
    }
    // SAFETY: the C library's variable.
    let mut entry = unsafe { environ };
    if entry.is_null() || name.is_null() {
        return null_mut();
    }
    // SAFETY: as the caller vouches.
    let wanted = unsafe { CStr::from_ptr(name) }.to_bytes();
    loop {
        // SAFETY: a null-terminated array.
        let text = unsafe { *entry };
        if text.is_null() {
            return null_mut();
        }
        // SAFETY: entries are strings.
        let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
        if bytes.len() > wanted.len() && bytes.starts_with(wanted) && bytes[wanted.len()] == b'=' {
            return text.wrapping_add(wanted.len() + 1);
        }
        entry = entry.wrapping_add(1);
    }
}

/// setenv where the real one is not known.
///
/// # Safety
/// `name` and `value` are strings.
unsafe fn put_environ(name: *const c_char, value: *const c_char, overwrite: c_int) -> c_int {
    // SAFETY: as the caller vouches.
    if overwrite == 0 && !unsafe { environ_value(name) }.is_null() {
        return 0;
    }
    // SAFETY: a string, as the caller vouches.
    let n = unsafe { CStr::from_ptr(name) }.to_bytes();
    // SAFETY: the caller vouches for this one too.
    let v = unsafe { CStr::from_ptr(value) }.to_bytes_with_nul();
    // SAFETY: any size; putenv keeps the string, as setenv would.
    let text = unsafe { libc::malloc(n.len() + 1 + v.len()) }.cast::<u8>();
    if text.is_null() {
        Errno(libc::ENOMEM).set();
        return -1;
    }
    let sign = text.wrapping_add(n.len());
    // SAFETY: `text` is new, with room for the name, the sign and the value.
    unsafe { text.copy_from_nonoverlapping(n.as_ptr(), n.len()) };
    // SAFETY: the byte behind the name.
    unsafe { sign.write(b'=') };
    // SAFETY: the rest of `text` is as long as the value with its 0.
    unsafe { sign.wrapping_add(1).copy_from_nonoverlapping(v.as_ptr(), v.len()) };
    // SAFETY: a string for good.
    unsafe { libc::putenv(text.cast()) }
}

fn no_host(_: *const c_char) -> *mut hostent {
    super::dns::set_h_errno(super::dns::NO_RECOVERY);
    null_mut()
}

/// # Safety
/// `result` and `error` may be written.
unsafe fn no_host_r(
    _: *const c_char,
    _: *mut hostent,
    _: *mut c_char,
    _: size_t,
    result: *mut *mut hostent,
    error: *mut c_int,
) -> c_int {
    // SAFETY: both may be written, as the caller vouches.
    unsafe { super::dns::put_answer(result, null_mut(), error, super::dns::NO_RECOVERY) };
    libc::ENOSYS
}

/// A fortified call whose buffer is too small, without a C library function to say so.
fn overflow(_: usize) -> ssize_t {
    log::fatal(format_args!("*** buffer overflow detected ***: terminated"))
}

/// The next definition of a symbol after ours. Never inlined into a tail call: dlsym looks at its return
/// address to find out who asks.
#[inline(never)]
fn next(symbol: &CStr) -> *mut c_void {
    // SAFETY: a string.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, symbol.as_ptr()) };
    core::hint::black_box(found)
}

/// Finds the real functions. Called once, when the library is loaded.
pub(crate) fn find() {
    // SAFETY: see `Table`: nothing of ours runs yet.
    find_all(unsafe { &mut *REAL.0.get() });
}

#[cfg(test)]
mod tests;
