//! co_inspect.h: looking in. Names of C linkage alone: libco has none of them.

use core::ffi::{c_char, c_int, c_void};
use core::mem::{offset_of, size_of};
use core::ptr::NonNull;

use super::co_routine::pfn_co_routine_t;
use super::{fail, stCoRoutine_t};
use crate::routine::inspect::{self, Info, State, WaitsFor};
use crate::routine::stats::{self, Stats};
use crate::sys::errno::Errno;
use crate::sys::log::{self, Level};

/// Of the calling thread.
pub const CO_THIS_THREAD: c_int = 0;
/// Of all threads, those that have ended too.
pub const CO_ALL_THREADS: c_int = 1;

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
/// CO_THIS_THREAD: that the thread keeps.
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

/// Fills *out with what the library counts. whose: CO_THIS_THREAD or CO_ALL_THREADS. May be called from any thread
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
        CO_THIS_THREAD => stats::of_this_thread(),
        CO_ALL_THREADS => stats::of_all(),
        _ => return fail(Errno(libc::EINVAL)),
    };
    // SAFETY: as the caller vouches.
    match unsafe { fill(out, &mut co_stats_t::of(&stats), FIRST_STATS) } {
        Ok(()) => 0,
        Err(error) => fail(error),
    }
}

/// It has not run yet, or was reset.
pub const CO_STATE_NEW: c_int = 0;
/// Its thread runs it.
pub const CO_STATE_RUNNING: c_int = 1;
/// It has resumed another, and goes on when that yields.
pub const CO_STATE_RESUMING: c_int = 2;
/// It has yielded, and goes on when somebody resumes it.
pub const CO_STATE_SUSPENDED: c_int = 3;
/// It waits in a loop, for what waits_for says.
pub const CO_STATE_WAITING: c_int = 4;
/// What it waited for came, or its time is over: the loop will resume it.
pub const CO_STATE_READY: c_int = 5;
/// Its routine has come to its end.
pub const CO_STATE_ENDED: c_int = 6;

/// It does not wait.
pub const CO_WAITS_NOT: c_int = 0;
/// For the time alone, or for the loop to go round once.
pub const CO_WAITS_TIME: c_int = 1;
/// For one descriptor.
pub const CO_WAITS_DESCRIPTOR: c_int = 2;
/// For one of many descriptors.
pub const CO_WAITS_DESCRIPTORS: c_int = 3;
/// For a condition, or a clsCoMutex.
pub const CO_WAITS_CONDITION: c_int = 4;
/// For a host name to be looked up.
pub const CO_WAITS_NAME: c_int = 5;

const _: () = {
    assert!(CO_STATE_NEW == State::New as c_int && CO_STATE_RUNNING == State::Running as c_int);
    assert!(CO_STATE_RESUMING == State::Resuming as c_int && CO_STATE_SUSPENDED == State::Suspended as c_int);
    assert!(CO_STATE_WAITING == State::Waiting as c_int && CO_STATE_READY == State::Ready as c_int);
    assert!(CO_STATE_ENDED == State::Ended as c_int);
    assert!(CO_WAITS_NOT == WaitsFor::Nothing as c_int && CO_WAITS_TIME == WaitsFor::Time as c_int);
    assert!(CO_WAITS_DESCRIPTOR == WaitsFor::Descriptor as c_int);
    assert!(CO_WAITS_DESCRIPTORS == WaitsFor::Descriptors as c_int);
    assert!(CO_WAITS_CONDITION == WaitsFor::Condition as c_int && CO_WAITS_NAME == WaitsFor::Name as c_int);
};

/// What co_info fills, and co_walk gives.
///
/// size: as in co_stats_t. co: the coroutine. state: CO_STATE_*. waits_for: CO_WAITS_*, of a waiting or ready one.
///
/// descriptor, events: which it waits for, and for what (as pollfd.events); of many the first, if it is the calling
/// thread's; else -1 and 0. descriptors: how many it named. condition: from co_cond_alloc; NULL for a ready one.
///
/// waited_ms: milliseconds since the wait began, less than a round of the loop more or less; begins anew after 49
/// days. left_ms: until its time-out comes; 0: now; -1: it has none.
///
/// routine, arg: as given to co_create. thread: gettid(2) of its thread; 0: that has ended. is_main: the thread's main
/// coroutine. hooks_on: co_enable_hook_sys. on_copy_stack: it runs on a copy stack.
///
/// stack_size: bytes of its stack; of a main coroutine 0, and so are the next two. stack_used: bytes in use now; of
/// one that runs in another thread 0. stack_most: bytes that were in use at most since the stack's pages came from the
/// kernel or went back to it, whichever coroutine had the stack: a private stack is reused with what earlier coroutines
/// left on it, a copy stack serves all of its group. Exact to a page at worst (a frame that was not written counts
/// where something below it was). co_walk gives 0, and so does co_info of another thread's coroutine.
#[repr(C)]
pub struct co_info_t {
    pub size: usize,
    pub co: *mut stCoRoutine_t,
    pub state: c_int,
    pub waits_for: c_int,
    pub descriptor: c_int,
    pub events: c_int,
    pub descriptors: u64,
    pub condition: *const c_void,
    pub waited_ms: u64,
    pub left_ms: i64,
    pub routine: pfn_co_routine_t,
    pub arg: *mut c_void,
    pub thread: c_int,
    pub is_main: c_int,
    pub hooks_on: c_int,
    pub on_copy_stack: c_int,
    pub stack_size: u64,
    pub stack_used: u64,
    pub stack_most: u64,
}

/// As FIRST_STATS.
const FIRST_INFO: usize = offset_of!(co_info_t, stack_most) + 8;

impl co_info_t {
    fn of(info: &Info) -> Self {
        co_info_t {
            size: size_of::<Self>(),
            co: info.co.cast_mut(),
            state: info.state as c_int,
            waits_for: info.waits_for as c_int,
            descriptor: info.descriptor,
            events: info.events.into(),
            descriptors: info.descriptors.into(),
            condition: info.condition,
            waited_ms: info.waited_ms,
            left_ms: info.left_ms.map_or(-1, |ms| ms as i64),
            routine: info.routine,
            arg: info.arg,
            thread: info.thread,
            is_main: info.is_main.into(),
            hooks_on: info.hooks_on.into(),
            on_copy_stack: info.on_copy_stack.into(),
            stack_size: info.stack_size as u64,
            stack_used: info.stack_used as u64,
            stack_most: info.stack_most as u64,
        }
    }
}

/// Fills *out with what co does just now. Of a coroutine of the calling thread everything is exact. One of another
/// thread goes on meanwhile: each member was right at some moment, but not all at the same one.
///
/// Returns 0, or -1 with errno EINVAL: co or out is NULL, or out->size is not set; ESRCH: co was released (only told
/// of a coroutine that co_walk has named).
///
/// # Safety
/// co is NULL, or from co_create or co_walk, or a main coroutine; out is NULL or points at out->size bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_info(co: *mut stCoRoutine_t, out: *mut co_info_t) -> c_int {
    let Some(co) = NonNull::new(co) else { return fail(Errno(libc::EINVAL)) };
    // SAFETY: as the caller vouches.
    let info = unsafe { inspect::info(co) };
    // SAFETY: as the caller vouches.
    match info.and_then(|info| unsafe { fill(out, &mut co_info_t::of(&info), FIRST_INFO) }) {
        Ok(()) => 0,
        Err(error) => fail(error),
    }
}

/// Gets a coroutine, what it does, and the argument of co_walk. Anything but 0 ends the walk.
pub type pfn_co_walk_t =
    Option<unsafe extern "C-unwind" fn(*mut stCoRoutine_t, *const co_info_t, *mut c_void) -> c_int>;

/// Calls each for every coroutine that was created and not released, main coroutines aside, in no order. whose:
/// CO_THIS_THREAD or CO_ALL_THREADS. What is there from beginning to end is named once; what comes or goes meanwhile
/// may be left out, and what is created on the way need not be named.
///
/// each may do anything, no lock is held: of the calling thread's coroutines it may resume, reset and release any, the
/// one it was called for and others, create new ones, wait, and leave by an exception. info is good until each
/// returns. A coroutine of another thread is named as it was a moment ago: that thread goes on, and may have released
/// it by now. Only co_info is safe with it, unless the program knows more.
///
/// Returns 0, or what each returned to end the walk; -1 with errno EINVAL if each is NULL or whose is neither.
///
/// # Safety
/// each may be called with arg.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn co_walk(whose: c_int, each: pfn_co_walk_t, arg: *mut c_void) -> c_int {
    let Some(each) = each.filter(|_| whose == CO_THIS_THREAD || whose == CO_ALL_THREADS) else {
        return fail(Errno(libc::EINVAL));
    };
    inspect::walk(whose == CO_ALL_THREADS, &mut |info| {
        let info = co_info_t::of(info);
        // SAFETY: as the caller vouches.
        unsafe { each(info.co, &info, arg) }
    })
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
