//! co_poll of several coroutines at once on the same descriptors, against poll(2) of the same array at the same time:
//! duplicates, negative and closed numbers, files, ends that hang up, every bit that can be asked for.

use core::ffi::{c_int, c_void};
use core::ptr::{null, null_mut};
use std::cell::{Cell, RefCell};

use super::bytes::Bytes;
use crate::capi::co_routine::*;
use crate::capi::{stCoCond_t, stCoRoutine_t};
use crate::hook::{self, real};
use libc::pollfd;

const COROUTINES: usize = 3;
const NUMBERS: usize = 6;
/// One that is closed, in the place of one of these.
const CLOSED: usize = NUMBERS + 1;
const CLOSED_FD: c_int = 900;
const MOST: usize = 9;
/// The rounds after which everybody who can be woken was.
const ROUNDS: u8 = 4;

/// A coroutine that polls what it is given.
struct Poller {
    co: *mut stCoRoutine_t,
    asked: Vec<pollfd>,
    /// The result and the array, once it is back.
    answer: Option<(c_int, Vec<pollfd>)>,
}

struct Game {
    pollers: [RefCell<Poller>; COROUTINES],
    /// An end that is polled and the one that things are done to, -1 if it is closed.
    ends: [Cell<[c_int; 2]>; NUMBERS],
    known: [Cell<bool>; NUMBERS],
    tick: *mut stCoCond_t,
    rounds: Cell<u8>,
}

std::thread_local! {
    static GAME: Cell<*const Game> = const { Cell::new(null()) };
}

fn game() -> &'static Game {
    // SAFETY: `run` set it, and outlives the coroutines.
    unsafe { GAME.get().as_ref() }.expect("the game has begun")
}

unsafe extern "C-unwind" fn poller(arg: *mut c_void) -> *mut c_void {
    let own = &game().pollers[arg.addr()];
    loop {
        // On this stack, as a program has it.
        let mut array = [pollfd { fd: -1, events: 0, revents: 0 }; MOST];
        let count = own.borrow().asked.len();
        array[..count].copy_from_slice(&own.borrow().asked);
        // SAFETY: `count` pollfds.
        let result = unsafe { co_poll(null_mut(), array.as_mut_ptr(), count as libc::nfds_t, -1) };
        own.borrow_mut().answer = Some((result, array[..count].to_vec()));
        co_yield_ct();
    }
}

/// Keeps the loop from sleeping.
unsafe extern "C-unwind" fn ticker(_: *mut c_void) -> *mut c_void {
    loop {
        // SAFETY: the game's condition.
        unsafe { co_cond_wait(game().tick, 0) };
    }
}

unsafe extern "C-unwind" fn after_round(_: *mut c_void) -> c_int {
    let game = game();
    game.rounds.set(game.rounds.get() + 1);
    if game.rounds.get() == ROUNDS {
        return -1;
    }
    // SAFETY: the game's condition.
    unsafe { co_cond_signal(game.tick) };
    0
}

/// What poll(2) says now.
fn plain(asked: &[pollfd]) -> (c_int, Vec<pollfd>) {
    let mut array = asked.to_vec();
    // SAFETY: as many pollfds.
    let result = unsafe { (real::get().poll)(array.as_mut_ptr(), array.len() as libc::nfds_t, 0) };
    (result, array)
}

fn revents((result, array): &(c_int, Vec<pollfd>)) -> (c_int, Vec<(c_int, i16)>) {
    (*result, array.iter().map(|one| (one.fd, one.revents)).collect())
}

/// A descriptor of some kind, and the other end.
fn make(kind: usize) -> [c_int; 2] {
    let mut ends = [-1; 2];
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let made = match kind {
        // SAFETY: room for two numbers.
        0 | 1 => unsafe { libc::pipe2(ends.as_mut_ptr(), flags) },
        2 | 3 => {
            let socket = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            // SAFETY: room for two numbers.
            unsafe { libc::socketpair(libc::AF_UNIX, socket, 0, ends.as_mut_ptr()) }
        }
        4 => {
            // SAFETY: plain arguments.
            ends[0] = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            ends[0]
        }
        // A file: always ready.
        _ => {
            // SAFETY: a string.
            ends[0] = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
            ends[0]
        }
    };
    assert!(made >= 0, "no descriptor");
    if kind == 1 {
        ends.swap(0, 1);
    }
    ends
}

fn close(fd: c_int) {
    if fd >= 0 {
        // SAFETY: ours.
        assert_eq!(unsafe { libc::close(fd) }, 0);
    }
}

impl Game {
    fn waits_for(&self, fd: c_int) -> bool {
        self.pollers.iter().any(|own| {
            let own = own.borrow();
            own.answer.is_none() && own.asked.iter().any(|one| one.fd == fd)
        })
    }

    fn ask(&self, index: usize, bytes: &mut Bytes) {
        let own = &self.pollers[index];
        if own.borrow().answer.is_none() {
            return;
        }
        let count = bytes.below(MOST + 1);
        let asked: Vec<_> = (0..count)
            .map(|_| {
                let number = bytes.below(NUMBERS + 2);
                let fd = match number {
                    NUMBERS => -1,
                    CLOSED => CLOSED_FD,
                    open => self.ends[open].get()[0],
                };
                let events = match bytes.below(4) {
                    0 => libc::POLLIN,
                    1 => libc::POLLOUT,
                    2 => i16::from(bytes.byte()),
                    _ => bytes.number(2) as i16,
                };
                // What is not written to would be seen.
                pollfd { fd, events, revents: 0x5a5a }
            })
            .collect();
        (own.borrow_mut().asked, own.borrow_mut().answer) = (asked, None);
        let co = own.borrow().co;
        // SAFETY: created and not released; it waits for this.
        unsafe { co_resume(co) };
        assert!(own.borrow().answer.is_none(), "it passes through the loop first");
    }

    /// Whoever waits is resumed by hand: as after the time-out.
    fn resume(&self, index: usize) {
        let own = &self.pollers[index];
        if own.borrow().answer.is_some() {
            return;
        }
        self.settle();
        if own.borrow().answer.is_some() {
            return;
        }
        let co = own.borrow().co;
        // SAFETY: created and not released.
        unsafe { co_resume(co) };
        let own = own.borrow();
        let (result, array) = own.answer.as_ref().expect("it is back");
        assert_eq!(*result, 0);
        assert!(array.iter().all(|one| one.revents == 0));
    }

    fn act(&self, index: usize, bytes: &mut Bytes) {
        let place = &self.ends[index];
        let [fd, other] = place.get();
        let mut room = [1_u8; 8];
        let at = room.as_mut_ptr().cast::<c_void>();
        // Whether it does anything is the descriptor's affair: poll(2) says what came of it.
        match bytes.below(10) {
            // SAFETY: eight bytes.
            0 => let_be(unsafe { libc::write(other, at, 8) }),
            // SAFETY: eight bytes.
            1 => let_be(unsafe { libc::read(fd, at, 8) }),
            // SAFETY: eight bytes.
            2 => let_be(unsafe { libc::write(fd, at, 8) }),
            3 => self.fill(if bytes.coin() { fd } else { other }),
            4 => drain(other),
            5 => {
                close(other);
                place.set([fd, -1]);
            }
            6 => {
                // SAFETY: plain arguments.
                let _ = unsafe { libc::shutdown(other, i32::from(bytes.byte() % 3)) };
            }
            7 => {
                close(fd);
                close(other);
                self.known[index].set(false);
                if self.waits_for(fd) {
                    // Before the number is another file's.
                    self.settle();
                }
                place.set(make(bytes.below(6)));
            }
            8 => {
                // It stays in the loop's set from now on.
                let known = hook::hand_over(fd).is_ok();
                self.known[index].set(known);
            }
            // Closed past the library.
            _ if !self.known[index].get() && !self.waits_for(fd) => {
                // SAFETY: ours.
                assert_eq!(unsafe { libc::syscall(libc::SYS_close, fd) }, 0);
                close(other);
                place.set(make(bytes.below(6)));
            }
            _ => {}
        }
    }

    /// Until there is no room.
    fn fill(&self, fd: c_int) {
        let zeros = [0_u8; 65536];
        // (An eventfd that is full is no pipe: it takes no more than 8 bytes.)
        for _ in 0..64 {
            // SAFETY: so many bytes.
            if unsafe { libc::write(fd, zeros.as_ptr().cast(), zeros.len()) } <= 0 {
                break;
            }
        }
    }

    /// Runs the loop: who is back has what poll(2) says, and who is not waits for nothing that has happened.
    fn settle(&self) {
        let waiting: Vec<_> = self.pollers.iter().filter(|own| own.borrow().answer.is_none()).collect();
        self.rounds.set(0);
        // SAFETY: the game's condition.
        unsafe { co_cond_signal(self.tick) };
        // SAFETY: the callback takes nothing.
        unsafe { co_eventloop(null_mut(), Some(after_round), null_mut()) };
        for own in waiting {
            let own = own.borrow();
            let now = plain(&own.asked);
            match &own.answer {
                Some(answer) => assert_eq!(revents(answer), revents(&now), "asked: {:?}", own.asked),
                None => assert_eq!(now.0, 0, "still waiting: {:?}", revents(&now)),
            }
        }
    }
}

/// What a call returned matters to nobody.
fn let_be(_: isize) {}

fn drain(fd: c_int) {
    let mut room = [0_u8; 65536];
    for _ in 0..64 {
        // SAFETY: so many bytes.
        if unsafe { libc::read(fd, room.as_mut_ptr().cast(), room.len()) } <= 0 {
            break;
        }
    }
}

fn create(
    routine: unsafe extern "C-unwind" fn(*mut c_void) -> *mut c_void,
    index: usize,
) -> *mut stCoRoutine_t {
    let mut co = null_mut();
    let arg = core::ptr::without_provenance_mut(index);
    // SAFETY: a routine that takes a number.
    assert_eq!(unsafe { co_create(&mut co, null(), Some(routine), arg) }, 0);
    co
}

fn run(mut bytes: Bytes) {
    let pollers = core::array::from_fn(|index| {
        let co = create(poller, index);
        RefCell::new(Poller { co, asked: Vec::new(), answer: Some((0, Vec::new())) })
    });
    let ends = core::array::from_fn(|_| Cell::new(make(bytes.below(6))));
    let known = [const { Cell::new(false) }; NUMBERS];
    let game = Game { pollers, ends, known, tick: co_cond_alloc(), rounds: Cell::new(0) };
    GAME.set(&raw const game);
    let tick = create(ticker, 0);
    // SAFETY: just created.
    unsafe { co_resume(tick) };
    while !bytes.is_empty() {
        let (action, index) = (bytes.below(8), usize::from(bytes.byte()));
        match action {
            0..=2 => game.ask(index % COROUTINES, &mut bytes),
            3 if index % 4 == 0 => game.resume(index % COROUTINES),
            _ => game.act(index % NUMBERS, &mut bytes),
        }
        if action != 7 {
            game.settle();
        }
    }
    for own in &game.pollers {
        // SAFETY: created and not released.
        unsafe { co_release(own.borrow().co) };
    }
    // SAFETY: as above.
    unsafe { co_release(tick) };
    // SAFETY: allocated, not freed, used no more.
    assert_eq!(unsafe { co_cond_free(game.tick) }, 0);
    game.ends.iter().for_each(|ends| ends.get().into_iter().for_each(close));
    GAME.set(null());
}

/// In a thread of its own: with a new environment and loop.
pub(super) fn play(data: &[u8]) {
    // Writing to what nobody reads any more is a part of the game.
    // SAFETY: no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    std::thread::scope(|scope| scope.spawn(|| run(Bytes::new(data))).join())
        .expect("the program plays as its model says");
}
