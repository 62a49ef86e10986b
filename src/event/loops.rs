//! All loops of the process: how other threads reach one, and what fork and a thread's end do to them.
//!
//! Another thread touches a loop only with the lock of this list held, and only its atomics: it takes a
//! number out of its epoll set, leaves a note, and wakes it by its eventfd. Loops leave the list, under
//! the lock, before they go.

use core::ffi::c_int;
use core::ptr::{NonNull, null};

use crate::event::descriptor::SEVERAL;
use crate::event::offload;
use crate::event::reactor::{Reactor, free_reactor};
use crate::routine::{Env, env};
use crate::sys::lock::Lock;
use crate::util::list::List;

struct Loops {
    lock: Lock,
    list: List,
}

// SAFETY: `list` is touched with the lock held.
unsafe impl Sync for Loops {}

static LOOPS: Loops = Loops { lock: Lock::new(), list: List::new() };

/// Held across fork.
pub(crate) fn fork_locks() -> [&'static Lock; 2] {
    [&LOOPS.lock, offload::fork_lock()]
}

/// Runs `section` while no other thread looks at any loop.
pub(super) fn locked<R>(section: impl FnOnce() -> R) -> R {
    LOOPS.lock.with(section)
}

/// A new loop.
pub(super) fn add(reactor: &Reactor) {
    // SAFETY: a new loop is in no list; `remove` takes it out before it goes. The lock is held.
    LOOPS.lock.with(|| unsafe { LOOPS.list.push_back(reactor.link()) });
}

/// The loop is about to go.
pub(super) fn remove(reactor: &Reactor) {
    LOOPS.lock.with(|| reactor.link().unlink());
}

/// Visits all loops with the lock held.
pub(super) fn each_loop(mut visit: impl FnMut(&Reactor)) {
    LOOPS.lock.with(|| {
        let mut at = LOOPS.list.first();
        while let Some(link) = at {
            at = LOOPS.list.after(link);
            // SAFETY: `link` is a loop's first member (asserted there), and the loop is alive.
            visit(unsafe { &*link.cast::<Reactor>() });
        }
    });
}

/// The thread ends, and with it its loops (the program's own ones too: nobody can run them).
pub(crate) fn end_of_thread(env: &Env) {
    loop {
        let mut mine: *const Reactor = null();
        each_loop(|reactor| {
            if reactor.serves(env) {
                mine = reactor;
            }
        });
        let Some(reactor) = NonNull::new(mine.cast_mut()) else { break };
        // SAFETY: its thread ends: nobody else uses it.
        unsafe { free_reactor(reactor) };
    }
}

/// A child of fork shares the epoll instances with its parent: it leaves them alone and makes its own. `mine`
/// is the forking thread's environment; all other threads, and so their loops, do not exist here.
pub(crate) fn after_fork(mine: Option<&Env>) {
    LOOPS.list.mend();
    offload::no_threads_after_fork();
    each_loop(|reactor| {
        reactor.close_descriptors();
        if mine.is_some_and(|env| reactor.serves(env)) {
            reactor.want_rebuild();
            offload::after_fork(reactor);
        } else {
            reactor.link().unlink();
            reactor.leave_past();
            offload::forget_after_fork(reactor);
        }
    });
}

/// Wakes the loops of `env` from another thread.
pub(crate) fn kick(env: &Env) {
    each_loop(|reactor| {
        if reactor.serves(env) {
            reactor.kick_locked();
        }
    });
}

/// Wakes one loop, if it is still there.
pub(crate) fn kick_loop(id: u32) {
    each_loop(|reactor| {
        if reactor.id() == id {
            reactor.kick_locked();
        }
    });
}

/// A program closes numbers it does not know, a daemon for instance: whose loop it was makes itself others.
#[cold]
pub(super) fn closing_ours(fd: c_int) {
    each_loop(|reactor| reactor.lose_if_ours(fd));
}

/// The calling thread's environment, if its loop's lists may be changed now. In a signal handler that interrupted
/// such a change they may not: what is to be done is left to the loop, as if another thread had asked for it.
pub(super) fn of_caller() -> Option<&'static Env> {
    env::current().filter(|env| !env.is_busy())
}

/// The number `fd` is about to be closed: takes it out of the epoll sets of `loops` and wakes its waiters.
#[cold]
pub(crate) fn closing(fd: c_int, old_generation: u32, loops: u32) {
    let mine = of_caller();
    if let Some(env) = mine
        && let Some(reactor) = env.reactor_if_any()
        && reactor.id() == loops
    {
        return env.guarded(|| reactor.close_here(fd, old_generation));
    }
    each_loop(|reactor| {
        if let Some(env) = mine
            && reactor.serves(env)
        {
            env.guarded(|| reactor.close_here(fd, old_generation));
        } else if loops == SEVERAL || loops == reactor.id() {
            let epfd = reactor.epoll_fd_if_any();
            if epfd >= 0 {
                // It may not be in this one: then there is nothing to take out.
                let _ = reactor.ctl_anywhere(epfd, libc::EPOLL_CTL_DEL, fd, 0, 0);
            }
            reactor.note_closed_elsewhere();
            reactor.kick_locked();
        }
    });
}
