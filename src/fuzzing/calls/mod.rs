//! A program of API calls: create, resume, yield, release, reset, conditions, pipes, time-outs, specifics and nested
//! loops, on private and on copy stacks. Whoever runs takes the next bytes for what it does next; the model says who
//! that must be. The clock stands still unless the program moves it, so that every run of an input is the same one.

mod model;

use core::ffi::{c_int, c_void};
use core::hint::black_box;
use core::ptr::{null, null_mut, without_provenance_mut};
use std::cell::{Cell, RefCell};
use std::sync::OnceLock;

use super::bytes::Bytes;
use crate::capi::co_routine::*;
use crate::capi::{stCoCond_t, stCoRoutine_t, stShareStack_t};
use crate::routine::Co;
use crate::sys::clock::stopped;
use model::{CONDS, KEYS, MAIN, Model, On, PIPES, SLOTS, Seen};

/// How deep a coroutine goes into calls of its own.
const DEEPEST: usize = 6;
const LOOPS: usize = 3;
const NOON: u64 = 43_200_000;

struct Game {
    bytes: RefCell<Bytes<'static>>,
    model: RefCell<Model>,
    coroutines: RefCell<[*mut stCoRoutine_t; SLOTS]>,
    conds: RefCell<[*mut stCoCond_t; CONDS]>,
    pipes: [[c_int; 2]; PIPES],
    loops: Cell<usize>,
    /// Signalled for each round, so that no loop sleeps.
    tick: *mut stCoCond_t,
}

std::thread_local! {
    static GAME: Cell<*const Game> = const { Cell::new(null()) };
}

fn game() -> &'static Game {
    // SAFETY: `run` set it, and outlives the coroutines.
    unsafe { GAME.get().as_ref() }.expect("the game has begun")
}

/// What comes after a step.
#[derive(PartialEq, Eq)]
enum Then {
    Next,
    /// Out of this call.
    Up,
    /// The routine returns.
    End,
}

/// One call of a coroutine's, with bytes on the stack that nobody else may touch.
#[inline(never)]
fn level(me: usize, depth: usize) -> Then {
    let mark = (me.wrapping_mul(31).wrapping_add(depth * 7 + 1)) as u8;
    let mut pattern = [0; 300];
    pattern.fill(mark);
    black_box(&mut pattern);
    loop {
        let then = game().step(me, depth);
        assert!(black_box(&pattern).iter().all(|&byte| byte == mark), "{me}: its stack was written to");
        match then {
            Then::Next => {}
            Then::Up => return Then::Next,
            Then::End => return Then::End,
        }
    }
}

unsafe extern "C-unwind" fn routine(arg: *mut c_void) -> *mut c_void {
    let me = arg.addr() - 1;
    game().got_to_run(me, Seen::Start);
    level(me, 0);
    game().model.borrow_mut().end();
    null_mut()
}

/// Keeps the loop from sleeping.
unsafe extern "C-unwind" fn ticker(_: *mut c_void) -> *mut c_void {
    loop {
        // SAFETY: the game's condition.
        unsafe { co_cond_wait(game().tick, 0) };
    }
}

/// The loop's callback: `arg` counts the rounds that are left, on the heap.
unsafe extern "C-unwind" fn after_round(arg: *mut c_void) -> c_int {
    // SAFETY: a `Round` of `run_loop`, which stays until the process ends or its loop does.
    let round = unsafe { &*arg.cast::<Round>() };
    let game = game();
    game.model.borrow_mut().end_round(round.runner);
    game.check();
    for _ in 0..game.below(3) {
        game.step(round.runner, DEEPEST);
    }
    if round.left.replace(round.left.get().saturating_sub(1)) == 0 || game.bytes.borrow().is_empty() {
        return -1;
    }
    game.begin_round();
    0
}

struct Round {
    runner: usize,
    left: Cell<usize>,
}

fn group(index: usize) -> *mut stShareStack_t {
    /// Of one stack each: which one a coroutine gets does not depend on what was before.
    static GROUPS: OnceLock<[usize; 2]> = OnceLock::new();
    let groups =
        GROUPS.get_or_init(|| [65536, 131_072].map(|size| co_alloc_sharestack(1, size).expose_provenance()));
    core::ptr::with_exposed_provenance_mut(groups[index])
}

impl Game {
    fn below(&self, limit: usize) -> usize {
        self.bytes.borrow_mut().below(limit)
    }

    fn number(&self, count: usize) -> u64 {
        self.bytes.borrow_mut().number(count)
    }

    fn got_to_run(&self, me: usize, seen: Seen) {
        self.model.borrow_mut().got_to_run(me, seen);
        self.check();
    }

    /// What can be seen from outside agrees with the model.
    fn check(&self) {
        let model = self.model.borrow();
        let coroutines = self.coroutines.borrow();
        for (slot, who) in model.slots.iter().enumerate() {
            let Some(who) = *who else { continue };
            // SAFETY: created and not released: the model has it in a slot.
            let co = unsafe { Co::from_c(coroutines[slot]) }.expect("it was created");
            assert_eq!((co.c_start.get(), co.c_end.get()), model.marks(who), "cStart, cEnd of {who}");
            if who == model.current {
                assert_eq!(co_self(), coroutines[slot]);
            }
        }
    }

    fn create(&self, slot: usize) {
        let mut model = self.model.borrow_mut();
        if model.slots[slot].is_some() {
            return;
        }
        let who = model.create(slot);
        let kind = self.below(8);
        let share_stack = if kind < 4 { group(kind & 1) } else { null_mut() };
        let attr = stCoRoutineAttr_t { stack_size: (kind as c_int) << 15, share_stack };
        let attr = if kind == 7 { null() } else { &raw const attr };
        let arg = without_provenance_mut(who + 1);
        let mut co = null_mut();
        // SAFETY: attributes of our own; the routine takes a number.
        let status = unsafe { co_create(&mut co, attr, Some(routine), arg) };
        assert_eq!(status, 0);
        self.coroutines.borrow_mut()[slot] = co;
    }

    fn resume(&self, me: usize, slot: usize) {
        let Some(who) = self.model.borrow().slots[slot] else { return };
        let co = self.coroutines.borrow()[slot];
        self.model.borrow_mut().resume(who);
        // SAFETY: created and not released.
        unsafe { co_resume(co) };
        self.back_in(me);
    }

    /// A call that may have run others is back.
    fn back_in(&self, me: usize) {
        assert_eq!(self.model.borrow().current, me, "back in {me} and not in who must run");
        self.check();
    }

    fn yield_now(&self, me: usize) {
        if me == MAIN {
            co_yield_ct();
            return self.back_in(me);
        }
        self.model.borrow_mut().suspend();
        co_yield_ct();
        self.got_to_run(me, Seen::BackFromYield);
    }

    fn release(&self, slot: usize) {
        let known = self.model.borrow().slots[slot].is_some();
        if known {
            self.model.borrow_mut().release(slot);
            let co = self.coroutines.borrow()[slot];
            // SAFETY: created and not released before.
            unsafe { co_release(co) };
        }
    }

    fn reset(&self, slot: usize) {
        let Some(who) = self.model.borrow().slots[slot] else { return };
        self.model.borrow_mut().reset(who);
        let co = self.coroutines.borrow()[slot];
        // SAFETY: created and not released.
        unsafe { co_reset(co) };
    }

    /// A time-out in milliseconds, 0 for none, and its tick: no two end at the same one.
    fn a_time(&self) -> (c_int, Option<u64>) {
        let model = self.model.borrow();
        let mut bytes = self.bytes.borrow_mut();
        let mut ms = match bytes.below(4) {
            0 => return (0, None),
            1 => 1 + u64::from(bytes.byte() % 4),
            2 => 1 + u64::from(bytes.byte()),
            _ => 1 + bytes.number(2),
        };
        while model.is_deadline(model.clock + ms) {
            ms += 1;
        }
        (ms as c_int, Some(model.clock + ms))
    }

    fn wait(&self, me: usize, cond: usize) {
        let (ms, deadline) = self.a_time();
        let at = self.conds.borrow()[cond];
        if me != MAIN {
            self.model.borrow_mut().wait(On::Cond(cond), deadline);
        }
        // SAFETY: allocated and not freed.
        let result = unsafe { co_cond_wait(at, ms) };
        if me == MAIN {
            assert_eq!(result, libc::EPERM);
            return self.back_in(me);
        }
        self.got_to_run(me, Seen::BackFromWait(result));
    }

    fn signal(&self, cond: usize, all: bool) {
        self.model.borrow_mut().signal(cond, all);
        let at = self.conds.borrow()[cond];
        // SAFETY: allocated and not freed.
        let signal = if all { co_cond_broadcast } else { co_cond_signal };
        // SAFETY: as above.
        let result = unsafe { signal(at) };
        assert_eq!(result, 0);
    }

    fn free_cond(&self, cond: usize) {
        self.model.borrow_mut().free_cond(cond);
        let fresh = co_cond_alloc();
        let old = core::mem::replace(&mut self.conds.borrow_mut()[cond], fresh);
        // SAFETY: allocated, not freed, used no more.
        assert_eq!(unsafe { co_cond_free(old) }, 0);
    }

    fn poll(&self, me: usize, pipe: usize) {
        let (ms, deadline) = self.a_time();
        let mut one = libc::pollfd { fd: self.pipes[pipe][0], events: libc::POLLIN, revents: -1 };
        let at_once = me == MAIN || self.below(8) == 0;
        let timeout = if at_once {
            0
        } else if ms == 0 {
            -1
        } else {
            ms
        };
        if !at_once {
            self.model.borrow_mut().wait(On::Pipe(pipe), deadline);
        }
        // SAFETY: one pollfd.
        let result = unsafe { co_poll(null_mut(), &mut one, 1, timeout) };
        if at_once {
            assert_eq!(result, c_int::from(self.model.borrow().readable[pipe]));
            self.back_in(me);
        } else {
            self.got_to_run(me, Seen::BackFromPoll(result));
        }
        assert_eq!(one.revents, if result == 1 { libc::POLLIN } else { 0 });
    }

    /// An empty pipe gets a byte, a full one loses it.
    fn fill_or_drain(&self, pipe: usize) {
        let mut model = self.model.borrow_mut();
        let [end, start] = self.pipes[pipe];
        let mut byte = 0_u8;
        let moved = if model.readable[pipe] {
            // SAFETY: one byte.
            unsafe { libc::read(end, (&raw mut byte).cast(), 1) }
        } else {
            // SAFETY: one byte.
            unsafe { libc::write(start, (&raw const byte).cast(), 1) }
        };
        assert_eq!(moved, 1);
        model.readable[pipe] = !model.readable[pipe];
    }

    fn move_clock(&self) {
        let by = match self.below(4) {
            0 => 1,
            1 => self.number(1),
            2 => self.number(2),
            _ => self.number(4),
        };
        let mut model = self.model.borrow_mut();
        model.clock += by;
        stopped::set(model.clock);
    }

    fn begin_round(&self) {
        self.model.borrow_mut().begin_round();
        // SAFETY: the game's condition.
        unsafe { co_cond_signal(self.tick) };
    }

    fn run_loop(&self, me: usize) {
        if self.loops.get() == LOOPS {
            return;
        }
        self.loops.set(self.loops.get() + 1);
        let left = Cell::new(self.below(4));
        // On the heap, and left there if its runner never comes back.
        let round = Box::into_raw(Box::new(Round { runner: me, left }));
        self.begin_round();
        // SAFETY: the callback takes a round.
        unsafe { co_eventloop(null_mut(), Some(after_round), round.cast()) };
        // SAFETY: from above; the loop is over.
        drop(unsafe { Box::from_raw(round) });
        self.loops.set(self.loops.get() - 1);
        self.back_in(me);
    }

    fn use_specifics(&self, me: usize) {
        if me == MAIN {
            return;
        }
        let key = self.below(KEYS + 1);
        // In the block, at its edge, and elsewhere; and one too many.
        let name = [0, 1, 1023, 1024][key];
        let value = self.below(256);
        let before = co_getspecific(name).addr();
        let status = co_setspecific(name, without_provenance_mut(value));
        if key == KEYS {
            return assert_eq!((before, status), (0, libc::EINVAL));
        }
        assert_eq!(status, 0);
        assert_eq!(before, core::mem::replace(self.model.borrow_mut().specific(key), value));
    }

    fn step(&self, me: usize, depth: usize) -> Then {
        if self.bytes.borrow().is_empty() {
            return Then::End;
        }
        let (action, slot) = {
            let mut bytes = self.bytes.borrow_mut();
            (bytes.below(32), bytes.below(SLOTS))
        };
        let (cond, pipe) = (slot % CONDS, slot % PIPES);
        match action {
            0..=2 => self.create(slot),
            3..=7 => self.resume(me, slot),
            8..=10 => self.yield_now(me),
            11 | 12 => self.release(slot),
            13 => self.reset(slot),
            14..=16 => self.wait(me, cond),
            17 => self.signal(cond, false),
            18 => self.signal(cond, true),
            19 => self.free_cond(cond),
            20 | 21 => self.poll(me, pipe),
            22 => self.fill_or_drain(pipe),
            23 => self.move_clock(),
            24..=26 => self.run_loop(me),
            27 => self.use_specifics(me),
            28 | 29 if depth < DEEPEST => return level(me, depth + 1),
            30 => return Then::Up,
            31 if me != MAIN => return Then::End,
            _ => {}
        }
        Then::Next
    }
}

fn a_pipe() -> [c_int; 2] {
    let mut ends = [-1; 2];
    // SAFETY: room for two numbers.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) }, 0);
    ends
}

/// The whole game, in a thread of its own: with a new environment and loop.
fn run(data: &'static [u8]) {
    stopped::set(NOON);
    let game = Game {
        bytes: RefCell::new(Bytes::new(data)),
        model: RefCell::new(Model::new(NOON)),
        coroutines: RefCell::new([null_mut(); SLOTS]),
        conds: RefCell::new(core::array::from_fn(|_| co_cond_alloc())),
        pipes: core::array::from_fn(|_| a_pipe()),
        loops: Cell::new(0),
        tick: co_cond_alloc(),
    };
    GAME.set(&raw const game);
    let mut tick = null_mut();
    // SAFETY: a routine that takes nothing.
    assert_eq!(unsafe { co_create(&mut tick, null(), Some(ticker), null_mut()) }, 0);
    // SAFETY: just created.
    unsafe { co_resume(tick) };
    while !game.bytes.borrow().is_empty() {
        game.step(MAIN, 0);
        game.back_in(MAIN);
    }
    for slot in 0..SLOTS {
        game.release(slot);
    }
    // SAFETY: created and not released.
    unsafe { co_release(tick) };
    for cond in game.conds.borrow().iter().chain([&game.tick]) {
        // SAFETY: allocated, not freed, used no more.
        assert_eq!(unsafe { co_cond_free(*cond) }, 0);
    }
    for fd in game.pipes.iter().flatten() {
        // SAFETY: ours.
        assert_eq!(unsafe { libc::close(*fd) }, 0);
    }
    GAME.set(null());
}

pub(super) fn play(data: &[u8]) {
    // SAFETY: the thread that uses it is joined before this returns.
    let data: &'static [u8] = unsafe { core::slice::from_raw_parts(data.as_ptr(), data.len()) };
    std::thread::spawn(move || run(data)).join().expect("the program plays as its model says");
}
