//! Which process this is: a child of vfork runs in its parent's memory.

use core::ffi::c_int;
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
