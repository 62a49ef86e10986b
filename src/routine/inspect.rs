//! What a coroutine does just now, and a walk through all of them.
//!
//! A coroutine of the calling thread stands still meanwhile. One of another thread may run, end and be released while
//! somebody looks: its block is copied word by word, under the locks that keep its environment and the pool as they
//! are, and nothing that it points to is followed. So each word is of some moment, but not all of the same one.
//!
//! ```text
//!   walk:  a few blocks under the locks ─► the program's function for each, with no lock held ─► the next few ...
//! ```
//!
//! The program's function may do what it likes, release coroutines too: each of the thread's own is looked at again
//! before it is handed out.

use core::ffi::{c_int, c_void};
use core::mem::{offset_of, size_of};
use core::ptr::{NonNull, null};

use crate::event;
use crate::routine::coroutine::{AT_END, Co, Coroutine, RELEASED, Routine, Wait, WaitKind, at};
use crate::routine::env::{self, Env};
use crate::sys::clock::Nanos;
use crate::sys::errno::Errno;
use crate::sys::pages;
use crate::sys::tools;
use crate::util::pool;

/// Where a coroutine stands. (C's CO_STATE_NEW and so on.)
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum State {
    New = 0,
    Running = 1,
    Resuming = 2,
    Suspended = 3,
    Waiting = 4,
    Ready = 5,
    Ended = 6,
}

/// What a waiting one waits for. (C's CO_WAITS_NOT and so on.)
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum WaitsFor {
    Nothing = 0,
    Time = 1,
    Descriptor = 2,
    Descriptors = 3,
    Condition = 4,
    Name = 5,
}

/// What is known of a coroutine.
#[derive(Clone, Copy)]
pub(crate) struct Info {
    pub(crate) co: *const Coroutine,
    pub(crate) state: State,
    pub(crate) waits_for: WaitsFor,
    /// The one, or the first of many; -1: none, or not known.
    pub(crate) descriptor: c_int,
    pub(crate) events: u16,
    pub(crate) descriptors: u32,
    pub(crate) condition: *const c_void,
    pub(crate) waited_ms: u64,
    /// Until its time-out; `None`: there is none.
    pub(crate) left_ms: Option<u64>,
    pub(crate) routine: Option<Routine>,
    pub(crate) arg: *mut c_void,
    /// The kernel's number of its thread; 0: that has ended.
    pub(crate) thread: i32,
    pub(crate) is_main: bool,
    pub(crate) hooks_on: bool,
    pub(crate) on_copy_stack: bool,
    pub(crate) stack_size: usize,
    pub(crate) stack_used: usize,
    /// 0: not asked for, or not known.
    pub(crate) stack_most: usize,
}

const WORDS: usize = size_of::<Coroutine>() / 8;

/// A control block's bytes, as they were.
struct Seen([u64; WORDS]);

const TIMER: usize = offset_of!(Coroutine, wait) + offset_of!(Wait, timer);
const NODE: usize = offset_of!(Coroutine, wait) + offset_of!(Wait, node);

impl Seen {
    /// # Safety
    /// `co` is a control block, or was one: memory of the pool, or of a live environment.
    unsafe fn copy(co: *const Coroutine) -> Self {
        let mut words = [0; WORDS];
        for (i, word) in words.iter_mut().enumerate() {
            // SAFETY: inside the block. Its thread may be writing it: whole words, as they are at some time.
            *word = unsafe { co.cast::<u64>().wrapping_add(i).read_volatile() };
        }
        Seen(words)
    }

    /// The member at `offset`.
    fn at<T: Plain>(&self, offset: usize) -> T {
        debug_assert!(offset + size_of::<T>() <= size_of::<Coroutine>());
        let from = self.0.as_ptr().cast::<u8>().wrapping_add(offset).cast::<T>();
        // SAFETY: inside the copy; any bytes are a `T`.
        unsafe { from.read_unaligned() }
    }

    /// Kept for the next co_create, or for its own thread to free.
    fn is_released(&self) -> bool {
        self.at::<u8>(at::LAID_DOWN) != 0 || self.at::<u8>(at::PENDING) & RELEASED != 0
    }

    fn state(&self, co: *const Coroutine, env: &Env) -> State {
        if core::ptr::eq(env.running_seen(), co) && env.thread() != 0 {
            return State::Running;
        }
        if self.at::<u8>(offset_of!(Coroutine, c_end)) != 0 {
            return State::Ended;
        }
        let is_main = self.at::<u8>(offset_of!(Coroutine, c_is_main)) != 0;
        if is_main || self.at::<usize>(at::RESUMER) != 0 {
            return State::Resuming;
        }
        if self.at::<u8>(offset_of!(Coroutine, c_start)) == 0 {
            return State::New;
        }
        match self.at::<u8>(at::WAIT_STATE) {
            1 => State::Waiting,
            2 => State::Ready,
            _ => State::Suspended,
        }
    }

    fn waits_for(&self) -> WaitsFor {
        const TIME: u8 = WaitKind::Time as u8;
        const DESCRIPTOR: u8 = WaitKind::Descriptor as u8;
        const DESCRIPTORS: u8 = WaitKind::Descriptors as u8;
        const CONDITION: u8 = WaitKind::Condition as u8;
        const JOB: u8 = WaitKind::Job as u8;
        match self.at::<u8>(at::WAIT_KIND) {
            TIME => WaitsFor::Time,
            DESCRIPTOR => WaitsFor::Descriptor,
            DESCRIPTORS => WaitsFor::Descriptors,
            CONDITION => WaitsFor::Condition,
            JOB => WaitsFor::Name,
            _ => WaitsFor::Nothing,
        }
    }

    /// Bytes of its stack that are in use while it does not run.
    fn live_bytes(&self) -> usize {
        let (bottom, size) = self.stack();
        let sp = self.at::<usize>(at::SP);
        if sp == AT_END || sp.wrapping_sub(bottom) >= size { 0 } else { bottom + size - sp }
    }

    /// Where its stack lies, and its size.
    fn stack(&self) -> (usize, usize) {
        (self.at(offset_of!(Coroutine, ss_sp)), self.at(offset_of!(Coroutine, ss_size)))
    }

    /// What it says of `co`, a coroutine of `env`, at tick `now`.
    fn info(&self, co: *const Coroutine, env: &Env, now: u64) -> Info {
        let state = self.state(co, env);
        let mut info = Info {
            co,
            state,
            waits_for: WaitsFor::Nothing,
            descriptor: -1,
            events: 0,
            descriptors: 0,
            condition: null(),
            waited_ms: 0,
            left_ms: None,
            routine: self.at(at::PFN),
            arg: self.at(at::ARG),
            thread: env.thread(),
            is_main: self.at::<u8>(offset_of!(Coroutine, c_is_main)) != 0,
            hooks_on: self.at::<u8>(offset_of!(Coroutine, c_enable_sys_hook)) != 0,
            on_copy_stack: self.at::<u8>(offset_of!(Coroutine, c_is_share_stack)) != 0,
            stack_size: self.stack().1,
            stack_used: 0,
            stack_most: 0,
        };
        if matches!(state, State::Resuming | State::Suspended | State::Waiting | State::Ready) {
            info.stack_used = self.live_bytes();
        }
        if matches!(state, State::Waiting | State::Ready) {
            self.tell_wait(&mut info, now);
        }
        info
    }

    fn tell_wait(&self, info: &mut Info, now: u64) {
        info.waits_for = self.waits_for();
        match info.waits_for {
            WaitsFor::Descriptor => {
                info.descriptor = self.at(NODE + event::node_at::FD);
                info.events = self.at(NODE + event::node_at::EVENTS);
                info.descriptors = 1;
            }
            WaitsFor::Descriptors => info.descriptors = self.at(at::WAIT_COUNT),
            WaitsFor::Condition => info.condition = self.at::<*mut c_void>(at::WAIT_MORE).cast_const(),
            WaitsFor::Nothing | WaitsFor::Time | WaitsFor::Name => {}
        }
        info.waited_ms = u64::from((now as u32).wrapping_sub(self.at::<u32>(at::BEGAN)));
        let expires = self.at::<u64>(TIMER + event::EXPIRES);
        if info.state == State::Waiting && expires != event::NEVER {
            info.left_ms = Some(expires.saturating_sub(now));
        }
    }
}

/// Types of which any bytes are one.
trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for c_int {}
impl Plain for usize {}
impl Plain for *mut c_void {}
impl Plain for Option<Routine> {}

/// What is known of a coroutine of the calling thread, whose environment is `env`.
fn of_mine(env: &Env, co: Co, now: u64) -> Info {
    // SAFETY: alive.
    let mut info = unsafe { Seen::copy(co.as_ptr()) }.info(co.as_ptr(), env, now);
    if info.waits_for == WaitsFor::Descriptors
        && let Some((descriptor, events)) = event::first_descriptor(co)
    {
        info.descriptor = descriptor;
        info.events = events;
    }
    if info.state == State::Running {
        // Somewhere in a frame of ours: the program's are above it.
        let here = (&raw const info).addr();
        let top = co.ss_sp.get().addr() + co.ss_size.get();
        info.stack_used = top.checked_sub(here).filter(|&used| used <= co.ss_size.get()).unwrap_or(0);
    }
    info
}

/// Bytes that are left of the stack that the calling function runs on, if it is a coroutine's.
pub(crate) fn stack_left() -> usize {
    let here = 0_u8;
    let co = env::current().map(|env| env.running()).filter(|co| !co.is_main());
    co.map_or(usize::MAX, |co| (&raw const here).addr().saturating_sub(co.ss_sp.get().addr()))
}

/// The most of its stack that was in use since the stack's pages were last given back, whoever had it.
fn most_used(co: Co) -> usize {
    let (bottom, size) = (co.ss_sp.get(), co.ss_size.get());
    if size == 0 {
        return 0;
    }
    let Some(page) = pages::lowest_present(bottom, size) else { return 0 };
    let top = bottom.addr() + size;
    if tools::on_valgrind() {
        // It has a word to say about reads of what nobody wrote.
        return top - page.addr();
    }
    let words = page.cast::<u64>();
    for i in 0..pages::size() / 8 {
        // SAFETY: a page of the stack that has memory.
        if unsafe { words.wrapping_add(i).read_volatile() } != 0 {
            return top - page.addr() - i * 8;
        }
    }
    // It was touched, and nothing but zeros was written.
    top - page.addr()
}

/// What is known of `co`, with the mark of its stack if it is the calling thread's. `ESRCH` if it was released.
///
/// # Safety
/// `co` is a live coroutine, or one that a [`walk`] has named.
pub(crate) unsafe fn info(co: NonNull<Coroutine>) -> Result<Info, Errno> {
    let now = Nanos::now().tick();
    if let Some(env) = env::current() {
        // SAFETY: as the caller vouches: the pool's memory, or an environment's.
        let seen = unsafe { Seen::copy(co.as_ptr()) };
        if core::ptr::eq(seen.at::<*mut c_void>(at::ENV).cast(), env) && !seen.is_released() {
            // SAFETY: a block of this thread, in use.
            let co = Co::of(unsafe { co.as_ref() });
            let mut info = of_mine(env, co, now);
            info.stack_most = most_used(co);
            return Ok(info);
        }
    }
    let mut found = None;
    env::locked(|| {
        env::each(|env, _| {
            if core::ptr::eq(env.main(), co.as_ptr()) {
                // SAFETY: in a live environment, which stays while environments are locked.
                found = Some(unsafe { Seen::copy(co.as_ptr()) }.info(co.as_ptr(), env, now));
            }
        });
        if found.is_none() {
            // SAFETY: no main coroutine, so as the caller vouches.
            let seen = unsafe { pool::with_tracked(co.cast(), |word| seen_of(co, word)) }.flatten();
            found = seen.map(|(env, seen)| seen.info(co.as_ptr(), env, now));
        }
    });
    found.ok_or(Errno(libc::ESRCH))
}

/// A block in use, and its environment, by the word that was published of it. Environments and the pool are locked.
fn seen_of<'a>(co: NonNull<Coroutine>, word: *mut u8) -> Option<(&'a Env, Seen)> {
    let env = env::if_one(word.cast())?;
    // SAFETY: memory of the pool, which stays as it is while that is locked.
    let seen = unsafe { Seen::copy(co.as_ptr()) };
    (!seen.is_released()).then_some((env, seen))
}

/// So many coroutines are looked at together.
const FEW: usize = 8;

#[derive(Clone, Copy)]
enum Found {
    Nothing,
    /// A block that was the calling thread's.
    Mine(NonNull<Coroutine>),
    /// Of another thread, as it was.
    Others(Info),
}

/// Calls `each` for every coroutine of this thread, or of all, until it returns something else than 0: that is returned.
pub(crate) fn walk(all_threads: bool, each: &mut dyn FnMut(&Info) -> c_int) -> c_int {
    let mine = env::current();
    let mut tracked = pool::Tracked::begin();
    loop {
        let mut few = [Found::Nothing; FEW];
        let more = if all_threads {
            env::locked(|| find_few(&mut tracked, mine, true, &mut few))
        } else {
            find_few(&mut tracked, mine, false, &mut few)
        };
        for found in few {
            let info = match found {
                Found::Nothing => break,
                Found::Mine(co) => still_mine(mine, co),
                Found::Others(info) => Some(info),
            };
            if let Some(info) = info {
                let result = each(&info);
                if result != 0 {
                    return result;
                }
            }
        }
        if !more {
            return 0;
        }
    }
}

/// The next few; false if there are no more. With `all`, environments are locked.
fn find_few(tracked: &mut pool::Tracked, mine: Option<&Env>, all: bool, few: &mut [Found; FEW]) -> bool {
    let now = Nanos::now().tick();
    let mut count = 0;
    tracked.visit(|object, word| {
        let co = object.cast::<Coroutine>();
        if mine.is_some_and(|env| core::ptr::eq(word.cast(), env)) {
            few[count] = Found::Mine(co);
            count += 1;
        } else if all
            && !word.is_null()
            && let Some((env, seen)) = seen_of(co, word)
        {
            few[count] = Found::Others(seen.info(co.as_ptr(), env, now));
            count += 1;
        }
        count < FEW
    })
}

/// What is known of a coroutine that was this thread's a moment ago, if it still is.
fn still_mine(mine: Option<&Env>, co: NonNull<Coroutine>) -> Option<Info> {
    let env = mine?;
    // SAFETY: it was a tracked object a moment ago.
    let is_mine = unsafe { pool::with_tracked(co.cast(), |word| core::ptr::eq(word.cast(), env)) };
    if is_mine != Some(true) {
        return None;
    }
    // SAFETY: a block of this thread: nobody else frees it but under the lock of environments, when it is not in use.
    let seen = unsafe { Seen::copy(co.as_ptr()) };
    if seen.is_released() {
        return None;
    }
    // SAFETY: as above, and in use.
    Some(of_mine(env, Co::of(unsafe { co.as_ref() }), Nanos::now().tick()))
}
