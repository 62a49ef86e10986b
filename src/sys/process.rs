//! Which process this is: a child of vfork runs in its parent's memory.

use core::ffi::{CStr, c_int};
use core::sync::atomic::{AtomicI32, Ordering};

/// The process that this memory belongs to; 0 before the library is loaded.
static OWNER: AtomicI32 = AtomicI32::new(0);

fn id() -> c_int {
    // SAFETY: no arguments.
    unsafe { libc::getpid() }
}

/// This memory is the calling process's: at load, and in a child of fork.
pub(crate) fn claim() {
    OWNER.store(id(), Ordering::Relaxed);
}

/// Whether the calling process is the one that this memory belongs to. One system call.
pub(crate) fn is_mine() -> bool {
    let owner = OWNER.load(Ordering::Relaxed);
    owner == 0 || owner == id()
}

/// How many descriptors the process may have; `None` if the kernel does not say.
pub(crate) fn most_descriptors() -> Option<libc::rlim_t> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes the limits.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    known.then_some(limit.rlim_cur)
}

/// How many descriptors the calling thread has room for now; it grows as they are opened. The kernel says so
/// in a file alone.
pub(crate) fn room_for_descriptors() -> Option<usize> {
    let mut text = [0u8; 1024];
    let mut lines = read(c"/proc/thread-self/status", &mut text)?.split(|&byte| byte == b'\n');
    number(lines.find_map(|line| line.strip_prefix(b"FDSize:"))?)
}

/// How many mappings a process may have; `None` if the kernel does not say.
pub(crate) fn most_mappings() -> Option<usize> {
    number(read(c"/proc/sys/vm/max_map_count", &mut [0u8; 32])?)
}

/// The beginning of a file, as much as there is room for.
fn read<'a>(path: &CStr, room: &'a mut [u8]) -> Option<&'a [u8]> {
    // SAFETY: a string; past every hook, as below.
    let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), libc::O_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    // SAFETY: room for the text.
    let len = unsafe { libc::syscall(libc::SYS_read, fd, room.as_mut_ptr(), room.len()) };
    // SAFETY: just opened.
    unsafe { libc::syscall(libc::SYS_close, fd) };
    room.get(..usize::try_from(len).ok()?)
}

fn number(text: &[u8]) -> Option<usize> {
    core::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

/// Whether the process has rights that whoever started it has not (setuid, file capabilities): the kernel says so.
pub(crate) fn has_more_rights() -> bool {
    // SAFETY: asks for a number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}
