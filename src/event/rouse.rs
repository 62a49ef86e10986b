//! A spurious wake for who waits to write.
//!
//! shutdown(2) ends a blocked write, but of a full AF_UNIX socket epoll does not report it. So whoever waits
//! for POLLOUT is woken with no event to show: a hooked call tries again, a poll looks again.

use core::ffi::c_int;
use core::sync::atomic::Ordering;

use crate::event::descriptor::{self, OURS, SEVERAL};
use crate::event::loops;
use crate::event::reactor::Reactor;
use crate::event::registration::{Registration, wake_waiter};
use crate::routine::env;

impl Registration {
    fn rouse_writers(&self) {
        self.each_node(|node| {
            if node.events() & libc::POLLOUT as u16 != 0 {
                wake_waiter(node);
            }
        });
    }
}

impl Reactor {
    fn rouse_writers(&self, fd: c_int) {
        if let Some(entry) = self.registrations.get(fd) {
            entry.rouse_writers();
        }
    }

    /// Another thread wants a number's writers woken: all that wait here look.
    pub(super) fn rouse_all_writers(&self) {
        self.registrations.each(|_, entry| entry.rouse_writers());
    }
}

/// Wakes who waits to write to `fd`, in every loop.
pub(crate) fn rouse_writers(fd: c_int) {
    let loops = descriptor::slot(fd).map_or(0, |slot| slot.loops.load(Ordering::Acquire));
    if loops != 0 && loops != OURS {
        rouse_in(fd, loops);
    }
}

#[cold]
fn rouse_in(fd: c_int, loops: u32) {
    let mine = env::current();
    if let Some(env) = mine
        && let Some(reactor) = env.reactor_if_any()
        && reactor.id() == loops
    {
        return env.guarded(|| reactor.rouse_writers(fd));
    }
    loops::each_loop(|reactor| {
        if let Some(env) = mine
            && reactor.serves(env)
        {
            env.guarded(|| reactor.rouse_writers(fd));
        } else if loops == SEVERAL || loops == reactor.id() {
            reactor.note_roused_elsewhere();
            reactor.kick_locked();
        }
    });
}
