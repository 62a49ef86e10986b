//! Waits that a signal ends: for the time, or for any of many descriptors.
//!
//! poll (in `wait`) takes the loop's word for what happened, and no signal ends it, as in the original. The
//! calls that come through here ask the kernel once more when they are woken, by a call of their own that does not
//! wait: what they report is the kernel's own answer, in its own form.

use core::ffi::c_int;

use crate::event::reactor::Reactor;
use crate::event::registration::{Node, Refused};
use crate::event::wait::{begin, drop_nodes, make_nodes, node_of, suspend};
use crate::routine::coroutine::{Outcome, WaitKind};
use crate::routine::{Co, Env};
use crate::sys::clock::Nanos;
use crate::sys::errno::Errno;

/// Descriptors that cannot be watched (an epoll set that contains this loop's, one that is hung up when
/// that is not asked for) are looked at again after so many ticks.
const LOOK_AGAIN: u64 = 10;

/// What is waited for.
pub(crate) struct Wanted<Fill> {
    /// How many descriptors.
    pub(crate) count: usize,
    /// Names each: number (negative: none) and events. Called once, before the first wait.
    pub(crate) fill: Fill,
    /// Which reports count for one with these events. (epoll always reports errors and hang-ups.)
    pub(crate) counts: fn(u16) -> u16,
    /// The tick at which the time is over.
    pub(crate) until: Option<u64>,
    /// The program's signal mask.
    pub(crate) mask: Option<u64>,
}

/// Waits for the time, or a signal handler: see `interrupt`. With `until` none, for that alone.
pub(crate) fn sleep(env: &Env, reactor: &Reactor, until: Option<u64>, mask: Option<u64>) -> Outcome {
    let co = Co::of(env.running());
    wait_once(env, reactor, co, WaitKind::Time, until, mask)
}

/// One wait of the running coroutine that a signal may end.
fn wait_once(
    env: &Env,
    reactor: &Reactor,
    co: Co,
    kind: WaitKind,
    until: Option<u64>,
    mask: Option<u64>,
) -> Outcome {
    env.guarded(|| {
        begin(reactor, co, kind, until);
        reactor.interruptible.add(co, mask);
    });
    suspend(env, co);
    env.guarded(|| co.wait.node.link().unlink());
    co.wait.outcome()
}

/// Waits until `look` has an answer. It is called after each wake-up with how the wait ended, which may be too
/// early, and for one of the descriptors or the time; if the loop is gone or the coroutine was resumed by hand
/// it must have one. It does not wait.
pub(crate) fn wait_for_any(
    env: &Env,
    reactor: &Reactor,
    wanted: Wanted<impl FnOnce(&mut dyn FnMut(c_int, u16))>,
    mut look: impl FnMut(Outcome) -> Option<c_int>,
) -> Result<c_int, Errno> {
    let co = Co::of(env.running());
    let kind = match wanted.count {
        0 => WaitKind::Time,
        count => {
            make_nodes(env, co, count)?;
            WaitKind::Descriptors
        }
    };
    let mut place = 0;
    (wanted.fill)(&mut |fd, events| {
        if place < wanted.count {
            node_of(co, place).prepare(co, fd, events);
            place += 1;
        }
    });
    let mut unwatched = false;
    loop {
        unwatched |= env.guarded(|| watch(reactor, co));
        let mut until = wanted.until;
        if unwatched {
            let soon = Nanos::now().tick() + LOOK_AGAIN;
            until = Some(until.map_or(soon, |tick| tick.min(soon)));
        }
        let outcome = wait_once(env, reactor, co, kind, until, wanted.mask);
        if let Some(answer) = look(outcome) {
            env.guarded(|| drop_nodes(env, reactor, co));
            return Ok(answer);
        }
        unwatched |= env.guarded(|| quieten(reactor, co, wanted.counts));
    }
}

fn each_node(co: Co, mut visit: impl FnMut(&Node)) {
    for place in 0..co.wait.count.get() as usize {
        visit(node_of(co, place));
    }
}

/// Puts the nodes at their descriptors. True if one has to be looked at instead.
fn watch(reactor: &Reactor, co: Co) -> bool {
    let mut unwatched = false;
    each_node(co, |node| {
        if node.fd() >= 0
            && !node.link().is_linked()
            && let Err(refused) = reactor.register(node)
        {
            node.prepare(co, -1, 0);
            // (Files and closed numbers have just been looked at: they have nothing to report.)
            unwatched |= matches!(refused, Refused::Error(_));
        }
    });
    unwatched
}

/// `look` has seen nothing: takes out what would report again at once. True if there is such.
fn quieten(reactor: &Reactor, co: Co, counts: fn(u16) -> u16) -> bool {
    let mut unwatched = false;
    each_node(co, |node| {
        let happened = node.revents.replace(0);
        if happened & libc::POLLNVAL as u16 != 0 {
            // Closed, and given out again.
            reactor.unregister(node);
        } else if happened != 0 && happened & counts(node.events.get()) == 0 {
            reactor.unregister(node);
            node.prepare(co, -1, 0);
            unwatched = true;
        }
    });
    unwatched
}
