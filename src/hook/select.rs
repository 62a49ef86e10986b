//! select and pselect.
//!
//! The program's sets are both question and answer, and the kernel may be asked several times: so it is
//! asked with copies, and the program's sets are written once, when the answer is there.

use core::ffi::c_int;
use core::ptr::null_mut;

use libc::{fd_set, sigset_t, timespec, timeval};

use super::choice::{Hook, active_for};
use super::until::{self, First, Until, wait_and_look};
use super::{real, same_signature};
use crate::event::Wanted;
use crate::routine::Env;
use crate::sys::errno::Errno;
use crate::sys::heap::{self, Zeroed};
use crate::sys::{pages, process, signals};

same_signature!(select: fn(c_int, *mut fd_set, *mut fd_set, *mut fd_set, *mut timeval) -> c_int);
same_signature!(pselect: fn(c_int, *mut fd_set, *mut fd_set, *mut fd_set, *const timespec, *const sigset_t) -> c_int);

/// One bit a number: what the kernel and the C library take a set for.
type Word = u64;

// SAFETY: a number.
unsafe impl Zeroed for Word {}

const BITS: usize = Word::BITS as usize;
/// Words of a `fd_set`, which is what a program's sets have at least.
const WORDS: usize = size_of::<fd_set>() / size_of::<Word>();

/// What each kind of set asks poll for, and takes for an answer, as the kernel's select.
const READ: u16 = (libc::POLLIN | libc::POLLRDNORM | libc::POLLRDBAND) as u16;
const WRITE: u16 = (libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND) as u16;
const EXCEPT: u16 = libc::POLLPRI as u16;

/// What ends the wait of a number that waits for `events`.
fn answers(events: u16) -> u16 {
    let mut answers = events;
    if events & READ != 0 {
        answers |= (libc::POLLHUP | libc::POLLERR) as u16;
    }
    if events & WRITE != 0 {
        answers |= libc::POLLERR as u16;
    }
    answers
}

/// Which answers are put into the program's sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Put {
    Nothing,
    /// Numbers, but not that there are none: the sets will be asked about again.
    Numbers,
    Anything,
}

/// The program's sets: for reading, for writing, for exceptional conditions; each null or `words` long.
#[derive(Clone, Copy)]
struct Sets {
    count: c_int,
    words: usize,
    sets: [*mut Word; 3],
}

impl Sets {
    /// `None`: there is nothing to wait for, since the plain call refuses it, or it cannot be known how long the
    /// sets are.
    fn new(count: c_int, sets: [*mut fd_set; 3]) -> Option<Sets> {
        let mut numbers = usize::try_from(count).ok()?;
        if numbers > WORDS * BITS {
            // The kernel looks at no more numbers than it has room for: that many may be all there are.
            numbers = numbers.min(process::room_for_descriptors()?.max(WORDS * BITS));
        }
        let words = numbers.div_ceil(BITS);
        let readable =
            |set: &*mut fd_set| set.is_null() || pages::are_readable(set.cast(), words * size_of::<Word>());
        sets.iter().all(readable).then(|| Sets {
            count: numbers as c_int,
            words,
            sets: sets.map(|set| set.cast()),
        })
    }

    /// A word of each set, without the bits from `count` on.
    fn at(&self, word: usize) -> [Word; 3] {
        let numbers = self.count as usize - word * BITS;
        let valid = if numbers >= BITS { !0 } else { (1 << numbers) - 1 };
        self.sets.map(|set| {
            // SAFETY: null, or the caller's set, in which there are `words`.
            if set.is_null() { 0 } else { valid & unsafe { set.wrapping_add(word).read_unaligned() } }
        })
    }

    /// How many numbers are in one of the sets at least.
    fn members(&self) -> usize {
        (0..self.words)
            .map(|word| self.at(word).into_iter().fold(0, |all, set| all | set).count_ones() as usize)
            .sum()
    }

    /// Visits every number with the events to wait for.
    fn each(&self, visit: &mut dyn FnMut(c_int, u16)) {
        for word in 0..self.words {
            let [read, write, except] = self.at(word);
            let mut all = read | write | except;
            while all != 0 {
                let bit = all.trailing_zeros();
                all &= all - 1;
                let events = [(read, READ), (write, WRITE), (except, EXCEPT)]
                    .into_iter()
                    .filter(|(set, _)| set & 1 << bit != 0)
                    .fold(0, |events, (_, more)| events | more);
                visit((word * BITS) as c_int + bit as c_int, events);
            }
        }
    }

    /// The kernel's answer now, without waiting, put into the program's sets if `put` says so.
    ///
    /// # Safety
    /// The sets and the mask are as the caller of pselect vouches.
    #[inline(never)]
    unsafe fn look(&self, mask: *const sigset_t, put: Put) -> c_int {
        if self.words <= WORDS {
            let mut copies = [0; 3 * WORDS];
            // SAFETY: room for three sets; as the caller vouches.
            return unsafe { self.look_by(copies.as_mut_ptr(), mask, put) };
        }
        // (Not held across a switch.)
        let Some(copies) = heap::alloc_array::<Word>(3 * self.words) else {
            Errno(libc::ENOMEM).set();
            return -1;
        };
        // SAFETY: room for three sets; as the caller vouches.
        let found = unsafe { self.look_by(copies.as_ptr(), mask, put) };
        // SAFETY: just made.
        unsafe { heap::free(copies) };
        found
    }

    /// # Safety
    /// As `look`; `copies` has room for three sets.
    unsafe fn look_by(&self, copies: *mut Word, mask: *const sigset_t, put: Put) -> c_int {
        let copy_of = |i: usize| {
            let copy = copies.wrapping_add(i * self.words);
            (self.sets[i], if self.sets[i].is_null() { null_mut() } else { copy })
        };
        for (set, copy) in [0, 1, 2].map(copy_of) {
            if !set.is_null() {
                // SAFETY: both have so many words; the program's may lie anywhere.
                unsafe { copy.cast::<u8>().copy_from(set.cast(), self.words * size_of::<Word>()) };
            }
        }
        let [read, write, except] = [0, 1, 2].map(|i| copy_of(i).1.cast::<fd_set>());
        // SAFETY: copies of the program's sets, a time of ours, the program's mask.
        let found = unsafe { (real::get().pselect)(self.count, read, write, except, &until::AT_ONCE, mask) };
        if (found > 0 && put != Put::Nothing) || (found == 0 && put == Put::Anything) {
            for (set, copy) in [0, 1, 2].map(copy_of) {
                if !set.is_null() {
                    // SAFETY: as above, the other way.
                    unsafe { set.cast::<u8>().copy_from(copy.cast(), self.words * size_of::<Word>()) };
                }
            }
        }
        found
    }
}

/// Waits as pselect(2). `until` is not over.
///
/// # Safety
/// As pselect(2).
unsafe fn wait_for_sets(env: &Env, sets: Sets, until: Until, mask: *const sigset_t) -> c_int {
    let look = |last: bool| {
        // SAFETY: as the caller vouches.
        unsafe { sets.look(mask, if last { Put::Anything } else { Put::Numbers }) }
    };
    // SAFETY: as the caller vouches.
    let first = First::of(unsafe { sets.look(mask, Put::Nothing) });
    if let First::Return(result) = first {
        return result;
    }
    let wanted = Wanted {
        count: sets.members(),
        fill: |each: &mut dyn FnMut(c_int, u16)| sets.each(each),
        counts: answers,
        until: until.tick(),
        // SAFETY: null, or the caller's: the kernel has just read it.
        mask: unsafe { signals::of_set(mask) },
    };
    wait_and_look(env, until, first, wanted, look)
}

/// `int select(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, struct timeval *timeout);` What is
/// left of the time is put into `timeout`, as Linux does. `EINTR` when a signal handler has run while the loop
/// slept.
///
/// # Safety
/// As select(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    match active_for(Hook::Select) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { select_hooked(count, read, write, except, timeout, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().select)(count, read, write, except, timeout) },
    }
}

/// # Safety
/// As select(2).
#[inline(never)]
unsafe fn select_hooked(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
    env: &Env,
) -> c_int {
    // SAFETY: null, or the caller's.
    let time = unsafe { timeout.as_ref() }.map(until::of_timeval);
    let sets = match time {
        _ if until::cannot_yield(env) => None,
        Some(time) if until::returns_at_once(&time) => None,
        _ => Sets::new(count, [read, write, except]),
    };
    let Some(sets) = sets else {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().select)(count, read, write, except, timeout) };
    };
    let until = Until::after(time);
    // SAFETY: the caller's sets.
    let found = unsafe { wait_for_sets(env, sets, until, null_mut()) };
    // SAFETY: null, or the caller's.
    if let Some(timeout) = unsafe { timeout.as_mut() } {
        let left = until.left();
        *timeout = timeval { tv_sec: left.tv_sec, tv_usec: left.tv_nsec / 1000 };
    }
    found
}

/// `int pselect(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds, const struct timespec *timeout,
/// const sigset_t *sigmask);` `sigmask` counts while the loop sleeps (see `event::interrupt`).
///
/// # Safety
/// As pselect(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn pselect(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    match active_for(Hook::Pselect) {
        // SAFETY: the caller's arguments.
        Some(env) => unsafe { pselect_hooked(count, read, write, except, timeout, mask, env) },
        // SAFETY: the caller's arguments.
        None => unsafe { (real::get().pselect)(count, read, write, except, timeout, mask) },
    }
}

/// # Safety
/// As pselect(2).
#[inline(never)]
unsafe fn pselect_hooked(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
    env: &Env,
) -> c_int {
    // SAFETY: null, or the caller's.
    let time = unsafe { timeout.as_ref() }.copied();
    let sets = match time {
        _ if until::cannot_yield(env) => None,
        Some(time) if until::returns_at_once(&time) => None,
        _ => Sets::new(count, [read, write, except]),
    };
    let Some(sets) = sets else {
        // SAFETY: the caller's arguments.
        return unsafe { (real::get().pselect)(count, read, write, except, timeout, mask) };
    };
    // SAFETY: the caller's arguments.
    unsafe { wait_for_sets(env, sets, Until::after(time), mask) }
}

/// `select` under another of libc's names.
///
/// # Safety
/// As select(2).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn __select(
    count: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { select(count, read, write, except, timeout) }
}
