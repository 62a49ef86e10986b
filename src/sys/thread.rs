//! The thread's slot, and the end of the thread.

use core::ffi::c_void;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::sys::errno::Errno;

pub(crate) use crate::arch::{set_thread_slot as set_slot, thread_slot as slot};

/// The kernel's number of the calling thread.
pub(crate) fn number() -> i32 {
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// One more than the pthread key, 0 while there is none.
static KEY: AtomicU32 = AtomicU32::new(0);

/// Sees to it that `at_end(value)` is called when the calling thread ends, after the destructors of
/// C++ thread_local objects.
pub(crate) fn call_at_end(
    at_end: unsafe extern "C" fn(*mut c_void),
    value: *const c_void,
) -> Result<(), Errno> {
    let mut key = KEY.load(Ordering::Acquire);
    if key == 0 {
        let mut fresh: libc::pthread_key_t = 0;
        // SAFETY: `fresh` is written; `at_end` is there for the rest of the process's life: the shared
        // library is marked never to be unloaded (build.rs).
        let status = unsafe { libc::pthread_key_create(&mut fresh, Some(at_end)) };
        if status != 0 {
            return Err(Errno(status));
        }
        match KEY.compare_exchange(0, fresh + 1, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => key = fresh + 1,
            Err(first) => {
                // SAFETY: another thread was quicker; nobody has seen this key.
                unsafe { libc::pthread_key_delete(fresh) };
                key = first;
            }
        }
    }
    // SAFETY: the key exists and is never deleted.
    let status = unsafe { libc::pthread_setspecific(key - 1, value) };
    if status == 0 { Ok(()) } else { Err(Errno(status)) }
}
