//! What happens once per process: when the library is loaded, and around fork.
//!
//! The only module above `capi` and `hook`: it knows them all, none knows it.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::mem::MaybeUninit;

use crate::sys::caller;
use crate::sys::lock::{self, Lock, block_signals, restore_signals};
use crate::sys::log;
use crate::sys::tools::mutex_calls;
use crate::util::pool;
use crate::{capi, event, hook, routine, sys};

/// Everything that is held across fork, in the order in which locks are taken.
fn fork_locks() -> [&'static Lock; 6] {
    let [loops, jobs] = event::fork_locks();
    let [environments, stacks] = routine::fork_locks();
    [environments, loops, jobs, hook::fork_lock(), stacks, pool::fork_lock()]
}

/// What the forking thread blocked before. A handler that wanted one of the locks would wait for ever.
struct Mask(UnsafeCell<MaybeUninit<libc::sigset_t>>);

// SAFETY: touched by the thread that holds the locks.
unsafe impl Sync for Mask {}

static MASK: Mask = Mask(UnsafeCell::new(MaybeUninit::uninit()));

unsafe extern "C" fn before_fork() {
    let calls = mutex_calls();
    caller::before_fork();
    let mut mask = MaybeUninit::uninit();
    // SAFETY: our own set.
    unsafe { block_signals(mask.as_mut_ptr()) };
    for lock in fork_locks() {
        lock.lock_for_fork(&calls);
    }
    // SAFETY: the locks are held.
    unsafe { MASK.0.get().write(mask) };
}

/// Undoes [`before_fork`], with `work` done before signals come again.
fn after_fork(in_child: bool, work: impl FnOnce()) {
    let calls = mutex_calls();
    // SAFETY: the locks are held.
    let mask = unsafe { MASK.0.get().read() };
    lock::after_fork(in_child, &calls, || {
        for lock in fork_locks().into_iter().rev() {
            lock.unlock_after_fork(&calls);
        }
    });
    work();
    // SAFETY: `before_fork` had it written.
    unsafe { restore_signals(mask.as_ptr()) };
}

unsafe extern "C" fn after_fork_in_parent() {
    after_fork(false, || {});
}

unsafe extern "C" fn after_fork_in_child() {
    after_fork(true, || {
        sys::process::claim();
        caller::after_fork_in_child();
        routine::after_fork_in_child();
    });
}

/// Where the program comes in.
static DOORS: caller::Knowledge = caller::Knowledge {
    doors: [
        capi::cxx::FUNCTIONS,
        capi::co_routine::DOORS,
        routine::run::DOORS,
        event::DOORS,
        hook::choice::DOORS,
    ],
    stack_left: routine::inspect::stack_left,
};

/// What the environment says; nothing in a program that has more rights than whoever started it.
fn setting(name: &CStr) -> Option<&'static CStr> {
    if sys::process::has_more_rights() {
        return None;
    }
    // SAFETY: a string; the C library's own getenv, or its like.
    let value = unsafe { (hook::real::get().getenv)(name.as_ptr()) };
    // SAFETY: not null: a string of the environment, read at once.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}

/// Runs when the library is loaded, before main.
extern "C" fn load() {
    hook::real::find();
    sys::process::claim();
    caller::know(&DOORS);
    sys::tools::find();
    log::configure(setting(c"LIBCO_LOG"));
    if let Some(words) = setting(c"LIBCO_HOOKS") {
        hook::choice::configure(words.to_bytes());
    }
    if setting(c"LIBCO_FAULTS").is_some_and(|wish| wish.to_bytes() == b"0") {
        sys::fault::leave_alone();
    }
    capi::connect_log_shim();
    let (before, parent, child) = (before_fork, after_fork_in_parent, after_fork_in_child);
    // SAFETY: plain functions of this library, which the C library forgets if it unloads it.
    unsafe { libc::pthread_atfork(Some(before), Some(parent), Some(child)) };
}

#[used]
#[unsafe(link_section = ".init_array")]
static LOAD: extern "C" fn() = load;
