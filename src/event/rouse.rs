//! A spurious wake for who waits at a number.
//!
//! Two things end a blocked call and may not be reported by epoll: shutdown(2) for writing, of a full AF_UNIX
//! socket, and a close that another thread's wait slipped in front of. So whoever waits there is woken with no
//! event to show: a hooked call tries again, a poll looks again.

use core::ffi::c_int;
use core::sync::atomic::{Ordering, fence};

use crate::event::descriptor::{self, OURS, SEVERAL};
use crate::event::loops;
use crate::event::reactor::Reactor;
use crate::event::registration::{Registration, wake_waiter};
use crate::sys::errno::Errno;
use crate::sys::process;

/// In `Reactor::roused`: more than one number. (Else one more than the number; 0: none.)
const MORE_THAN_ONE: c_int = -1;

impl Registration {
    pub(super) fn rouse(&self) {
        self.each_node(wake_waiter);
    }
}

impl Reactor {
    fn rouse(&self, fd: c_int) {
        if let Some(entry) = self.registrations.get(fd) {
            entry.rouse();
        }
    }

    /// Another thread leaves it to this loop.
    fn note_roused(&self, fd: c_int) {
        let exchanged = self.roused.compare_exchange(0, fd + 1, Ordering::AcqRel, Ordering::Relaxed);
        if exchanged.is_err_and(|noted| noted != fd + 1) {
            self.roused.store(MORE_THAN_ONE, Ordering::Release);
        }
    }

    /// Does what other threads left to do.
    pub(super) fn rouse_noted(&self) {
        match self.roused.swap(0, Ordering::AcqRel) {
            0 => {}
            MORE_THAN_ONE => self.registrations.each(|_, entry| entry.rouse()),
            number => self.rouse(number - 1),
        }
    }
}

/// Which loops have `fd`, if any do.
#[inline]
fn loops_of(fd: c_int) -> Option<u32> {
    let loops = descriptor::slot(fd)?.loops.load(Ordering::Acquire);
    (loops != 0 && loops != OURS).then_some(loops)
}

/// Wakes who waits at `fd`, in every loop. False if no loop has it.
#[inline]
pub(crate) fn rouse(fd: c_int) -> bool {
    let loops = loops_of(fd);
    if let Some(loops) = loops {
        rouse_in(fd, loops);
    }
    loops.is_some()
}

/// As [`rouse`], where no loop has `fd` yet: a coroutine of another thread that has just tried may be about to wait there,
/// and its loop looks before it sleeps.
#[cold]
pub(crate) fn rouse_soon(fd: c_int) {
    let errno = Errno::last();
    loops::each_loop(|reactor| {
        reactor.note_roused(fd);
        reactor.note_kicked();
    });
    errno.set();
    // One that slept already has noted before that it has the number.
    fence(Ordering::SeqCst);
    rouse(fd);
}

/// The number was closed, and had left all loops before: a wait that began in between is for nothing.
#[inline]
pub(crate) fn closed(fd: c_int) {
    // (A loop notes that it has a number before it puts it into its epoll set.)
    fence(Ordering::SeqCst);
    if let Some(loops) = loops_of(fd) {
        closed_in(fd, loops);
    }
}

#[cold]
fn closed_in(fd: c_int, loops: u32) {
    // (A child of vfork closes its own copy of the number.)
    if process::is_mine() {
        rouse_in(fd, loops);
    }
}

#[cold]
fn rouse_in(fd: c_int, loops: u32) {
    let errno = Errno::last();
    rouse_where(fd, loops);
    errno.set();
}

fn rouse_where(fd: c_int, loops: u32) {
    let mine = loops::of_caller();
    if let Some(env) = mine
        && let Some(reactor) = env.reactor_if_any()
        && reactor.id() == loops
    {
        return env.guarded(|| reactor.rouse(fd));
    }
    loops::each_loop(|reactor| {
        if let Some(env) = mine
            && reactor.serves(env)
        {
            env.guarded(|| reactor.rouse(fd));
        } else if loops == SEVERAL || loops == reactor.id() {
            reactor.note_roused(fd);
            reactor.kick_locked();
        }
    });
}
