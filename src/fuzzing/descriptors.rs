//! What the hooks know of descriptors, against a map from numbers to files: dups share, a number closed or given out
//! anew forgets, and no two files ever have one record.

use core::ffi::c_int;
use core::ptr::{from_ref, null};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::fd_table::{self, Record};
use crate::event;
use crate::fuzzing::bytes::Bytes;
use crate::sys::errno::Errno;

/// None of them is open: the table takes the caller's word. At the edges of its chunks, and one beyond its end.
const NUMBERS: [c_int; 9] = [700, 701, 4095, 4096, 8191, 1_000_000, 67_108_863, 67_108_864, -3];
/// From here on the table has no room.
const BEYOND: c_int = 67_108_864;

/// What is known of an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Known {
    program: bool,
    below: bool,
    not_a_socket: bool,
    added: bool,
    write_set: bool,
    read_ms: c_int,
    write_ms: c_int,
    /// The time-outs that co_set_timeout set.
    read_by_call: Option<c_int>,
    write_by_call: Option<c_int>,
    filled: bool,
    /// Calls in a row that did not pass through the loop.
    streak: u16,
}

type File = Rc<Cell<Known>>;

#[derive(Default)]
struct Game {
    files: BTreeMap<c_int, File>,
    defaults: (c_int, c_int),
    generations: BTreeMap<c_int, u32>,
}

fn a_time(bytes: &mut Bytes) -> c_int {
    match bytes.below(4) {
        0 => -1 - c_int::from(bytes.byte()),
        1 => c_int::MAX - c_int::from(bytes.byte()),
        _ => bytes.number(2) as c_int,
    }
}

fn change(file: &File, change: impl FnOnce(&mut Known)) {
    let mut known = file.get();
    change(&mut known);
    file.set(known);
}

impl Game {
    /// The number is given out by a hook.
    fn record(&mut self, fd: c_int, bytes: &mut Bytes) {
        let kinds = bytes.byte();
        let known = Known {
            program: kinds & 1 != 0,
            below: kinds & 2 != 0,
            not_a_socket: kinds & 4 != 0,
            added: kinds & 8 != 0,
            read_ms: if kinds & 8 != 0 { -1 } else { self.defaults.0 },
            write_ms: if kinds & 8 != 0 { -1 } else { self.defaults.1 },
            ..Known::default()
        };
        let mut flags = 0;
        for (on, flag) in [
            (known.program, fd_table::NONBLOCK_BY_PROGRAM),
            (known.below, fd_table::NONBLOCK_BELOW),
            (known.not_a_socket, fd_table::NOT_A_SOCKET),
        ] {
            flags |= if on { flag } else { 0 };
        }
        let done = if known.added { fd_table::record_added(fd, flags) } else { fd_table::record(fd, flags) };
        if (0..BEYOND).contains(&fd) {
            assert_eq!(done, Ok(()));
            self.files.insert(fd, Rc::new(Cell::new(known)));
        } else {
            assert_eq!(done, Err(Errno(libc::ENOMEM)));
        }
    }

    fn share(&mut self, fd: c_int, copy: c_int) {
        fd_table::share(fd, copy);
        // (dup2 of a number onto itself is no dup: the hooks do not share then.)
        match self.files.get(&fd).cloned() {
            Some(file) if (0..BEYOND).contains(&copy) => self.files.insert(copy, file),
            _ => self.files.remove(&copy),
        };
    }

    fn forget(&mut self, fd: c_int, how: usize) {
        match how {
            0 => fd_table::close_by(fd, || {
                // Not closed yet: a call that begins now must not block.
                assert_eq!(fd_table::get(fd).is_some(), self.files.contains_key(&fd));
            }),
            1 => fd_table::closing(fd),
            2 => fd_table::not_ours(fd),
            _ => {
                // Another thread gets the number between the two halves of a close: its record stays.
                let generation = event::leave_loops(fd);
                let done = fd_table::record(fd, 0);
                fd_table::closed(fd, generation);
                assert_eq!(done.is_ok(), (0..BEYOND).contains(&fd));
                if done.is_ok() {
                    let (read_ms, write_ms) = self.defaults;
                    let known = Known { read_ms, write_ms, ..Known::default() };
                    self.files.insert(fd, Rc::new(Cell::new(known)));
                }
                return;
            }
        }
        self.files.remove(&fd);
    }

    fn set_timeouts(&mut self, fd: c_int, bytes: &mut Bytes) {
        let (read, write) = (a_time(bytes), a_time(bytes));
        let done = fd_table::set_timeouts(fd, read, write);
        let (read, write) = (read.max(-1), write.max(-1));
        match self.files.get(&fd) {
            _ if fd == -1 => {
                assert_eq!(done, Ok(()));
                self.defaults = (read, write);
            }
            None => assert_eq!(done, Err(Errno(libc::EBADF))),
            Some(file) => {
                assert_eq!(done, Ok(()));
                change(file, |known| {
                    (known.read_ms, known.write_ms, known.write_set) = (read, write, true);
                    (known.read_by_call, known.write_by_call) = (Some(read), Some(write));
                });
            }
        }
    }

    /// SO_RCVTIMEO or SO_SNDTIMEO.
    fn set_option(&self, fd: c_int, bytes: &mut Bytes) {
        let (write, seconds, micros) =
            (bytes.coin(), bytes.number(5) as i64 - 256, bytes.number(3) as i64 % 1_000_000);
        let Some(file) = self.files.get(&fd) else { return };
        let record = fd_table::get(fd).expect("it is recorded");
        record.set_timeout(write, &libc::timeval { tv_sec: seconds, tv_usec: micros });
        let whole = i128::from(seconds) * 1000 + i128::from((micros + 999) / 1000);
        let ms = match whole {
            _ if seconds < 0 => 0,
            0 => -1,
            ms => c_int::try_from(ms).unwrap_or(c_int::MAX),
        };
        change(file, |known| match write {
            true => (known.write_ms, known.write_set, known.write_by_call) = (ms, true, None),
            false => (known.read_ms, known.read_by_call) = (ms, None),
        });
    }

    /// What a read does with a record.
    fn read(&self, fd: c_int, action: usize) {
        let Some(file) = self.files.get(&fd) else { return };
        let record = fd_table::get(fd).expect("it is recorded");
        change(file, |known| match action {
            0 | 1 => {
                known.filled = action == 1;
                record.note_read(known.filled);
            }
            2 => {
                known.streak = 0;
                record.passed();
            }
            _ => {
                let wanted = known.filled && known.streak < 64;
                assert_eq!(record.try_first(), wanted);
                known.streak += u16::from(known.filled);
                if !wanted && known.filled {
                    // It passes through the loop now.
                    known.streak = 0;
                    record.passed();
                }
            }
        });
    }

    fn check(&mut self) {
        let mut records: BTreeMap<*const Record, *const Cell<Known>> = BTreeMap::new();
        for fd in NUMBERS {
            let record = fd_table::get(fd);
            let file = self.files.get(&fd);
            assert_eq!(record.is_some(), file.is_some(), "number {fd}");
            assert_eq!(event::is_used(fd), file.is_some());
            let (Some(record), Some(file)) = (record, file) else { continue };
            let same_file = *records.entry(from_ref(record)).or_insert(Rc::as_ptr(file));
            assert_eq!(same_file, Rc::as_ptr(file), "two files have one record");
            check_one(record, &file.get());
            assert_eq!(fd_table::waits(fd).is_some(), !file.get().program);
        }
        let files: BTreeSet<_> = self.files.values().map(Rc::as_ptr).collect();
        assert_eq!(records.len(), files.len(), "one file has two records");
        self.check_generations();
    }

    /// A walk over all numbers in use finds those, each once.
    fn check_walk(&self) {
        let mut visited = BTreeSet::new();
        event::each_used(0, u32::MAX, |fd| assert!(visited.insert(fd)));
        visited.retain(|fd| NUMBERS.contains(fd));
        assert!(visited.iter().eq(self.files.keys()));
    }

    /// They only go up.
    fn check_generations(&mut self) {
        for fd in NUMBERS {
            if let Some(slot) = event::slot(fd) {
                let now = slot.generation.load(core::sync::atomic::Ordering::Relaxed);
                let before = self.generations.insert(fd, now).unwrap_or(now);
                assert!(now.wrapping_sub(before) < 16);
            }
        }
    }
}

fn check_one(record: &Record, known: &Known) {
    for (flag, wanted) in [
        (fd_table::NONBLOCK_BY_PROGRAM, known.program),
        (fd_table::NONBLOCK_BELOW, known.below),
        (fd_table::NOT_A_SOCKET, known.not_a_socket),
        (fd_table::ADDED, known.added),
        (fd_table::WRITE_TIMEOUT_SET, known.write_set),
    ] {
        assert_eq!(record.has(flag), wanted, "flag {flag} of {known:?}");
    }
    assert_eq!((record.read_ms(), record.write_ms()), (known.read_ms, known.write_ms));
    assert_eq!(record.is_filled(), known.filled);
    for (write, by_call) in [(false, known.read_by_call), (true, known.write_by_call)] {
        let told = record.timeout_by_call(write).map(|time| time.tv_sec * 1000 + time.tv_usec / 1000);
        // For ever is zero there.
        assert_eq!(told, by_call.map(|ms| i64::from(ms.max(0))));
    }
}

pub(crate) fn play(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut game = Game { defaults: (1000, 1000), ..Game::default() };
    while !bytes.is_empty() {
        let (action, fd) = (bytes.below(16), NUMBERS[bytes.below(NUMBERS.len())]);
        match action {
            0..=3 => game.record(fd, &mut bytes),
            4..=6 => {
                let copy = NUMBERS[bytes.below(NUMBERS.len())];
                if copy != fd {
                    game.share(fd, copy);
                }
            }
            7..=10 => game.forget(fd, action - 7),
            11 => game.set_timeouts(if bytes.coin() { fd } else { -1 }, &mut bytes),
            12 => game.set_option(fd, &mut bytes),
            _ => game.read(fd, bytes.below(4)),
        }
        game.check();
    }
    game.check_walk();
    // As it was, for the next program.
    fd_table::set_timeouts(-1, 1000, 1000).expect("the defaults can always be set");
    for fd in NUMBERS {
        fd_table::closing(fd);
        assert_eq!(event::recorded(fd).cast_const(), null());
    }
}
