//! The end of co_routine.h: what concerns the hooks, and messages.

use core::ffi::{CStr, c_char, c_int};

use libc::{sockaddr, socklen_t};

use super::co_routine::pfn_co_log_t;
use super::fail;
use crate::event;
use crate::hook;
use crate::routine::environ;
use crate::sys::errno::Errno;
use crate::sys::log;

/// Names the environment variables that each coroutine with hooks on has for itself: unset at first,
/// set and read by setenv, unsetenv, getenv. cnt: how many names. The first call in the process wins.
/// As libco.
///
/// # Safety
/// name has cnt members, each NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_set_env_list(name: *mut *const c_char, cnt: usize) {
    // SAFETY: as the caller vouches.
    if unsafe { environ::set_names(name.cast_const(), cnt) }.is_err() {
        log::error!("co_set_env_list: no memory for the names");
    }
}

/// accept(2) that makes the new socket known to the hooks: reads and writes on it in a coroutine with
/// hooks on are cooperative. Hooks may be on or off; the socket is not made non-blocking. It waits as
/// accept does: on a blocking listener it stops the whole thread. A listener made with hooks on, or
/// non-blocking, gives EAGAIN: wait for it in poll or co_poll first. As libco, where no header declares it.
///
/// Returns the new descriptor, or -1 with errno as accept(2).
///
/// # Safety
/// As accept(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_accept(fd: c_int, addr: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: as the caller vouches.
    unsafe { hook::accept_recorded(fd, addr, len) }
}

/// Sets the time-outs of a descriptor that the hooks know (a socket made with hooks on, or from co_accept,
/// or a dup of one by fcntl), as SO_RCVTIMEO and SO_SNDTIMEO would but without the kernel hearing of it; or
/// with fd = -1 those that descriptors made later in any thread start with (1000 ms, as libco). Not in libco.
///
/// read_ms, write_ms: milliseconds; 0: calls do not wait; negative: for ever. connect, too, keeps to
/// write_ms if it is set for its socket. Returns 0, or -1 with errno EBADF if the hooks
/// do not know fd.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_set_timeout(fd: c_int, read_ms: c_int, write_ms: c_int) -> c_int {
    match hook::set_timeouts(fd, read_ms, write_ms) {
        Ok(()) => 0,
        Err(error) => fail(error),
    }
}

/// Chooses which of the added hooks are on, in all threads, from now on; the environment variable
/// LIBCO_HOOKS takes the same words when the program starts. words: separated by commas: default (what is
/// on without a word: libco's hooks and the names calls), all, libco (libco's hooks alone, and a read
/// time-out of 0 ends at once, as there), or the name of a hook, with a - in front to leave it out:
/// "all,-sleep,-accept". docs/HOOKS.md lists them. Hooks beyond libco's are off unless asked for: code that
/// holds a mutex across one of those calls deadlocks if another coroutine runs meanwhile. Not in libco.
///
/// Returns 0, or -1 with errno EINVAL (words is NULL, or has a word that is none of these); then nothing has
/// changed.
///
/// # Safety
/// words is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_set_hooks(words: *const c_char) -> c_int {
    if words.is_null() {
        return fail(Errno(libc::EINVAL));
    }
    // SAFETY: a string, as the caller vouches.
    match hook::choice::set(unsafe { CStr::from_ptr(words) }.to_bytes()) {
        Ok(()) => 0,
        Err(error) => fail(error),
    }
}

/// Sets how many threads of the process at most look names up for coroutines with hooks on; each calls the C
/// library's own function. They are made when they are needed, have all signals blocked, and end when they
/// have been idle for five seconds. Lookups beyond that number wait their turn. Not in libco.
///
/// count: 1 to 1024; 16 if this is never called. Returns 0, or -1 with errno EINVAL; then nothing has changed.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_set_helper_threads(count: c_int) -> c_int {
    match event::set_helpers(count) {
        Ok(()) => 0,
        Err(error) => fail(error),
    }
}

/// Makes a descriptor known to the hooks that they do not know: made before hooks were on, by another
/// library, inherited. Its mode is left as it is; reads and writes on it in a coroutine with hooks on are
/// cooperative from now on, with time-outs for ever (co_set_timeout sets others). Not in libco.
///
/// Returns 0 (also if the hooks know it already), or -1 with errno EBADF, EPERM (a file that cannot be waited
/// for), ENOMEM, or EMFILE or ENFILE (finding that out takes a descriptor).
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_hook_fd(fd: c_int) -> c_int {
    match hook::hand_over(fd) {
        Ok(()) => 0,
        Err(error) => fail(error),
    }
}

/// Sends the library's messages (misuse, lack of memory) of all threads to handler; NULL: nowhere, or to standard error
/// if LIBCO_LOG=1 is in the environment when the program starts. Not in libco, which prints nothing.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_set_log_handler(handler: pfn_co_log_t) {
    log::set_handler(handler);
}
