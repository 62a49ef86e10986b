//! co_inspect.h: looking in. Names of C linkage alone: libco has none of them.

use core::ffi::{c_char, c_int};
use core::mem::{offset_of, size_of};

use super::fail;
use crate::routine::stats::{self, Stats};
use crate::sys::errno::Errno;
use crate::sys::log::{self, Level};

/// Of the calling thread.
pub const CO_STATS_THREAD: c_int = 0;
/// Of all threads, those that have ended too.
pub const CO_STATS_ALL: c_int = 1;

/// What co_stats fills. Counts of what has happened only grow; those that say "now" are of the moment.
///
/// size: the caller sets it to sizeof(co_stats_t); co_stats sets it to how much of the struct it has filled, so that
/// programs go on with older and newer libraries.
///
/// threads: that use coroutines, now. coroutines_created: by co_create. coroutines_live: created and not released,
/// now; those that have ended count until they are released.
///
/// stacks_in_use, stack_bytes_in_use: private stacks that coroutines have, now, and their sizes (memory is taken
/// only as far as they are touched). stacks_pooled, stack_bytes_pooled: those that wait for the next co_create, now;
/// CO_STATS_THREAD: that the thread keeps.
///
/// switches: into a coroutine and back, two for each co_resume or resume by the loop: a coroutine that has not
/// yielded yet counts as back. copied_bytes: to and from copy stacks.
///
/// waits: that coroutines began (for time, descriptors, conditions, names). wakes: that the loop ended. timeouts: of
/// these, by the time. timers: that are set, now. epoll_waits: calls of epoll_pwait2(2) and its like by the loop.
/// epoll_ctls: calls of epoll_ctl(2). names_in_flight: host names being looked up, or waiting for a helper thread,
/// now.
#[repr(C)]
pub struct co_stats_t {
    pub size: usize,
    pub threads: u64,
    pub coroutines_created: u64,
    pub coroutines_live: u64,
    pub stacks_in_use: u64,
    pub stack_bytes_in_use: u64,
    pub stacks_pooled: u64,
    pub stack_bytes_pooled: u64,
    pub switches: u64,
    pub copied_bytes: u64,
    pub waits: u64,
    pub wakes: u64,
    pub timeouts: u64,
    pub timers: u64,
    pub epoll_waits: u64,
    pub epoll_ctls: u64,
    pub names_in_flight: u64,
}

/// What the first version of a struct held: less is a mistake.
const FIRST_STATS: usize = offset_of!(co_stats_t, names_in_flight) + 8;

impl co_stats_t {
    fn of(stats: &Stats) -> Self {
        co_stats_t {
            size: size_of::<Self>(),
            threads: stats.threads,
            coroutines_created: stats.created,
            coroutines_live: stats.live,
            stacks_in_use: stats.stacks,
            stack_bytes_in_use: stats.stack_bytes,
            stacks_pooled: stats.pooled,
            stack_bytes_pooled: stats.pooled_bytes,
            switches: stats.switches,
            copied_bytes: stats.copied_bytes,
            waits: stats.loops.waits,
            wakes: stats.loops.wakes,
            timeouts: stats.loops.timeouts,
            timers: stats.loops.timers,
            epoll_waits: stats.loops.epoll_waits,
            epoll_ctls: stats.loops.epoll_ctls,
            names_in_flight: stats.loops.jobs,
        }
    }
}

/// Fills as much of a struct that begins with its size as the caller has, and says how much in its size.
///
/// # Safety
/// `to` points at a size_t, and at as many bytes as that says.
unsafe fn fill<T>(to: *mut T, from: &mut T, least: usize) -> Result<(), Errno> {
    if to.is_null() {
        return Err(Errno(libc::EINVAL));
    }
    // SAFETY: as the caller vouches.
    let room = unsafe { to.cast::<usize>().read() };
    if room < least {
        return Err(Errno(libc::EINVAL));
    }
    let filled = room.min(size_of::<T>());
    let from: *mut T = from;
    // SAFETY: our own struct, which begins with its size.
    unsafe { from.cast::<usize>().write(filled) };
    // SAFETY: no more than either has.
    unsafe { core::ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast::<u8>(), filled) };
    Ok(())
}

/// Fills *out with what the library counts. whose: CO_STATS_THREAD or CO_STATS_ALL. May be called from any thread
/// while others run, which it does not hold up: their counts are as they are just now, not all of the same moment. A
/// child of fork goes on with its parent's counts.
///
/// Returns 0, or -1 with errno EINVAL: out is NULL, out->size is not set, whose is neither.
///
/// # Safety
/// out is NULL or points at out->size bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_stats(out: *mut co_stats_t, whose: c_int) -> c_int {
    let stats = match whose {
        CO_STATS_THREAD => stats::of_this_thread(),
        CO_STATS_ALL => stats::of_all(),
        _ => return fail(Errno(libc::EINVAL)),
    };
    // SAFETY: as the caller vouches.
    match unsafe { fill(out, &mut co_stats_t::of(&stats), FIRST_STATS) } {
        Ok(()) => 0,
        Err(error) => fail(error),
    }
}

/// The library cannot do what it was asked to: no memory, no descriptor.
pub const CO_LOG_ERROR: c_int = 0;
/// The program has misused the library; the message ends with the caller's address.
pub const CO_LOG_WARN: c_int = 1;
/// The library helps itself, at a price.
pub const CO_LOG_INFO: c_int = 2;
/// What comes and goes.
pub const CO_LOG_DEBUG: c_int = 3;
/// No level: nothing is shown.
pub const CO_LOG_OFF: c_int = -1;

const _: () = {
    assert!(CO_LOG_ERROR == Level::Error as c_int && CO_LOG_WARN == Level::Warn as c_int);
    assert!(CO_LOG_OFF == log::OFF as c_int);
    assert!(CO_LOG_INFO == Level::Info as c_int && CO_LOG_DEBUG == Level::Debug as c_int);
};

/// Gets a message of the library and its level: one line without a line end.
pub type pfn_co_log_sink_t = Option<unsafe extern "C-unwind" fn(c_int, *const c_char)>;

/// As co_set_log_handler, for a function that gets the level too: the one that was set last, by either, gets
/// the messages of all threads. NULL: nowhere, or to standard error if LIBCO_LOG was set when the program
/// started. sink runs on the stack of whoever causes the message, which may be a coroutine's. What co_log_err
/// says comes as CO_LOG_ERROR.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_set_log_sink(sink: pfn_co_log_sink_t) {
    log::set_sink(sink);
}

/// Shows messages of this level and those above it, in all threads, from now on. level: CO_LOG_WARN if this is
/// never called and LIBCO_LOG (docs/DEBUGGING.md) says nothing else.
///
/// Returns 0, or -1 with errno EINVAL for what is no level; then nothing has changed.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn co_set_log_level(level: c_int) -> c_int {
    match log::set_level(level) {
        Ok(()) => 0,
        Err(error) => fail(error),
    }
}
