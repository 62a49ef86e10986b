//! The hooks: functions of the C library under their own names, cooperative in a coroutine that called
//! co_enable_hook_sys, and the plain call everywhere else.
//!
//! A hook asks one question first: is there a running coroutine with hooks on? If not it jumps to the
//! real function, which `real` found when the library was loaded. Where a hooked read goes:
//!
//! ```text
//!   read (receive.rs) ─► fd_table: ours, and blocking to the program?  no ─► real read
//!        └─ yes ─► event::poll_one: node at the descriptor, timer in the wheel, yield
//!                     the loop: epoll says readable ─► ready list ─► resume ─► real read
//! ```
//!
//! | file | owns |
//! |---|---|
//! | real | the real functions; the load-time set-up |
//! | fd_table | what the hooks know of a descriptor |
//! | choice | which hooks are on; their names |
//! | socket, receive, send, poll, fcntl, env, dns | one libc name, one function |
//! | select, epoll, time | those that wait for several descriptors, or for the time alone |
//! | until | what they share |
//! | accept, vector, message, messages, sendfile | the same, if asked for |
//! | make | pairs, eventfds, timers: made known, if asked for |
//! | numbers, ioctl | dup and its like: not cooperative, only noticed |
//! | io | what receive and send share |
//! | whole | MSG_WAITALL |
//! | file | one try of a read or write of what is no socket |

#![expect(unreachable_pub, reason = "exported under their symbol names, not by path")]

mod accept;
pub(crate) mod choice;
#[cfg_attr(target_env = "musl", expect(dead_code, reason = "musl's own are not hooked: real/musl.rs"))]
pub(crate) mod dns;
mod env;
#[cfg_attr(target_env = "musl", expect(dead_code, reason = "musl's own are not hooked: real/musl.rs"))]
mod epoll;
mod fcntl;
mod fd_table;
mod file;
mod io;
mod ioctl;
#[cfg_attr(target_env = "musl", expect(dead_code, reason = "musl's own are not hooked: real/musl.rs"))]
mod make;
mod message;
mod messages;
#[cfg_attr(target_env = "musl", expect(dead_code, reason = "musl's own are not hooked: real/musl.rs"))]
mod numbers;
mod poll;
#[cfg_attr(target_env = "musl", expect(dead_code, reason = "musl's own are not hooked: real/musl.rs"))]
pub(crate) mod real;
mod receive;
mod select;
mod send;
mod sendfile;
mod socket;
mod time;
mod until;
mod vector;
mod whole;

#[cfg(any(test, fuzzing))]
#[path = "../fuzzing/descriptors.rs"]
pub(crate) mod fuzz_descriptors;

pub(crate) use fd_table::{fork_lock, hand_over, set_timeouts};
pub(crate) use socket::accept_recorded;

use core::ffi::c_int;

use crate::event;
use crate::routine::coroutine::Outcome;
use crate::routine::{Env, env as environment};
use crate::sys::clock::Nanos;
use crate::sys::errno::Errno;

/// The calling thread's environment, if its running coroutine has hooks on. (In a signal handler that interrupted
/// a section of ours every call is the plain one: it may not wait there.)
#[inline(always)]
fn active() -> Option<&'static Env> {
    environment::current().filter(|env| env.running().c_enable_sys_hook.get() != 0 && !env.is_busy())
}

/// Asserts at compile time that a hook has the signature of the libc crate's function. (Of the types:
/// the hook's own ABI lets exceptions and cancellation through.)
macro_rules! same_signature {
    ($name:ident: fn($($arg:ty),*) -> $result:ty) => {
        const _: unsafe extern "C" fn($($arg),*) -> $result = libc::$name;
    };
}
use same_signature;

/// How a wait for a descriptor ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// Something happened there, or it cannot be waited for: try again.
    Ready,
    /// The same, of a connection that is over both ways.
    HungUp,
    /// The time is over, or the coroutine was resumed by hand: one last try.
    Over,
}

/// When a wait of `ms` milliseconds (negative: for ever) that begins now is over.
fn deadline(ms: c_int) -> Option<u64> {
    u64::try_from(ms).ok().map(event::deadline_after)
}

/// Waits for `events` of `fd`: in a coroutine on the loop, else (`Env::waits_plainly`) by the plain poll.
#[inline]
fn wait_for(env: &Env, fd: c_int, events: u16, deadline: Option<u64>) -> Result<Waited, Errno> {
    if event::is_ours(fd) {
        // Closed meanwhile, and a loop got the number.
        return Err(Errno(libc::EBADF));
    }
    if env.waits_plainly() {
        return Ok(wait_plainly(fd, events, deadline));
    }
    match event::poll_one(env, env.reactor()?, fd, events, deadline) {
        Ok(0) if env.running().wait.outcome() != Outcome::Woken => Ok(Waited::Over),
        Ok(events) if events & (libc::POLLNVAL | libc::POLLHUP) as u16 != 0 => closed_or_hung_up(events),
        Err(event::Refused::Error(error)) => Err(error),
        Err(event::Refused::AlwaysReady) => {
            // A file of the kind that is never recorded: the number changed hands past us.
            fd_table::not_ours(fd);
            Ok(Waited::Ready)
        }
        // Closed: the call itself says what is wrong.
        Ok(_) | Err(event::Refused::Closed) => Ok(Waited::Ready),
    }
}

#[cold]
fn closed_or_hung_up(events: u16) -> Result<Waited, Errno> {
    // Closed meanwhile: the number may be another file's by now.
    if events & libc::POLLNVAL as u16 != 0 { Err(Errno(libc::EBADF)) } else { Ok(Waited::HungUp) }
}

fn wait_plainly(fd: c_int, events: u16, deadline: Option<u64>) -> Waited {
    let mut one = libc::pollfd { fd, events: events as i16, revents: 0 };
    loop {
        let left = match deadline {
            None => -1,
            Some(tick) => {
                let now = Nanos::now();
                c_int::try_from(tick.saturating_sub(now.tick())).unwrap_or(c_int::MAX)
            }
        };
        // SAFETY: one pollfd.
        match unsafe { (real::get().poll)(&mut one, 1, left) } {
            0 => return Waited::Over,
            -1 if Errno::last() == Errno(libc::EINTR) => {}
            1 if one.revents & libc::POLLHUP != 0 => return Waited::HungUp,
            _ => return Waited::Ready,
        }
    }
}
