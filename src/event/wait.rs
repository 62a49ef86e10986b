//! How a coroutine waits.
//!
//! ```text
//!   begin ─► Waiting ──wake──► Ready ──the loop resumes it──► finish ─► None
//!                │                └──resumed by hand──────────┘
//!                └──resumed by hand, released, reset──► cancel
//! ```
//!
//! The state lies in the control block. A waiting coroutine has its nodes in rings (descriptors or a
//! condition) and, with a time-out, its timer in the wheel; a ready one has the timer's link in its
//! loop's ready list. Whoever takes it out of one state undoes what the state put in place.

use core::ffi::c_int;
use core::mem::size_of;
use core::ptr::{NonNull, null_mut};

use crate::arch::{self, probe};
use crate::event::offload;
use crate::event::reactor::Reactor;
use crate::event::registration::{Node, Refused};
use crate::routine::coroutine::{Outcome, WaitKind, WaitState};
use crate::routine::{Co, Env};
use crate::routine::{cond, mutex};
use crate::sys::clock::Nanos;
use crate::sys::errno::Errno;
use crate::sys::poll as sys_poll;
use crate::sys::process;
use crate::util::pool;

/// The tick at which a wait of `ms` milliseconds that begins now is over.
#[inline]
pub(crate) fn deadline_after(ms: u64) -> u64 {
    Nanos::now().tick_after(ms)
}

/// Makes `co` a waiting coroutine of `reactor`. In a guarded section.
#[inline]
pub(crate) fn begin(reactor: &Reactor, co: Co, kind: WaitKind, deadline: Option<u64>) {
    probe!("wait", co.as_ptr().addr(), kind as usize);
    let wait = &co.wait;
    wait.reactor.set(reactor);
    wait.set_kind(kind);
    wait.set_outcome(Outcome::ByHand);
    wait.set_state(WaitState::Waiting);
    wait.timer.unset();
    reactor.counts.waits.bump();
    co.exceptions.set_began(reactor.present());
    if let Some(tick) = deadline {
        // SAFETY: not set: the last wait has finished; it leaves the wheel before the block goes.
        unsafe { reactor.wheel.set(&wait.timer, tick, reactor.tick()) };
    }
}

/// Moves a waiting coroutine to its loop's ready list; nothing if it waits no longer. In a guarded
/// section of its thread.
#[inline]
pub(crate) fn wake(co: Co, outcome: Outcome) {
    let wait = &co.wait;
    if wait.state() != WaitState::Waiting {
        return;
    }
    // SAFETY: a loop outlives its waits.
    let reactor = unsafe { &*wait.reactor.get() };
    if wait.timer.link.is_linked() {
        reactor.wheel.cancel(&wait.timer);
    }
    make_ready(reactor, co, outcome);
}

/// As [`wake`], for a timer that the wheel has let go.
pub(crate) fn time_out(reactor: &Reactor, co: Co) {
    if co.wait.kind() == WaitKind::Condition {
        cond::leave(co);
    }
    reactor.counts.timeouts.bump();
    let freed = co.wait.outcome() == Outcome::Cancelled;
    make_ready(reactor, co, if freed { Outcome::Cancelled } else { Outcome::TimedOut });
}

fn make_ready(reactor: &Reactor, co: Co, outcome: Outcome) {
    probe!("wake", co.as_ptr().addr(), outcome as usize);
    reactor.counts.wakes.bump();
    co.wait.set_state(WaitState::Ready);
    co.wait.set_outcome(outcome);
    // Its stack is in a page of its own: the table walks of many who wake together overlap here.
    arch::prefetch(co.picture());
    // SAFETY: the link is in no ring; `finish` or `cancel` takes it out before the block goes.
    unsafe { reactor.ready.push_back(&co.wait.timer.link) };
    reactor.shorten_sleep();
}

/// Yields until woken, timed out, or resumed by hand.
pub(crate) fn suspend(env: &Env, co: Co) {
    arch::yield_now();
    finish(env, co);
}

/// The coroutine runs again: its wait is over, whoever resumed it.
#[inline]
fn finish(env: &Env, co: Co) {
    let wait = &co.wait;
    match wait.state() {
        // Resumed by hand; else the loop has taken it out.
        WaitState::Ready if wait.timer.link.is_linked() => env.guarded(|| wait.timer.link.unlink()),
        WaitState::Ready => {}
        WaitState::Waiting => env.guarded(|| take_out(co)),
        WaitState::None => {}
    }
    wait.set_state(WaitState::None);
}

/// Takes a waiting coroutine's timer out of the wheel, and its node out of a condition's queue.
fn take_out(co: Co) {
    if co.wait.timer.link.is_linked() {
        // SAFETY: a loop outlives its waits.
        let reactor = unsafe { &*co.wait.reactor.get() };
        reactor.wheel.cancel(&co.wait.timer);
    }
    match co.wait.kind() {
        WaitKind::Condition => cond::leave(co),
        WaitKind::Job => offload::abandon(co),
        WaitKind::Time | WaitKind::Descriptor | WaitKind::Descriptors => {}
    }
}

/// Ends a wait whose coroutine will not come back to it: it is released or starts anew.
pub(crate) fn cancel(env: &Env, co: Co) {
    env.guarded(|| {
        let wait = &co.wait;
        match wait.state() {
            WaitState::Waiting => take_out(co),
            WaitState::Ready => {
                wait.timer.link.unlink();
                if wait.kind() == WaitKind::Job {
                    offload::abandon(co);
                }
            }
            WaitState::None => {}
        }
        // SAFETY: null or a loop that outlives its waits.
        if let Some(reactor) = unsafe { wait.reactor.get().as_ref() } {
            match wait.kind() {
                WaitKind::Descriptor => reactor.unregister(&wait.node),
                WaitKind::Descriptors => drop_nodes(env, reactor, co),
                _ => {}
            }
            if matches!(wait.kind(), WaitKind::Time | WaitKind::Descriptors) {
                // Among those that a signal interrupts, if anywhere.
                wait.node.link().unlink();
            }
        }
        if wait.granted.get() {
            mutex::pass_on(co);
        }
        // Last: from here on another thread may release it.
        wait.set_state(WaitState::None);
    });
}

/// Lets the loop run once before going on: others get their turn.
pub(crate) fn through_the_loop(env: &Env, reactor: &Reactor) {
    let co = Co::of(env.running());
    env.guarded(|| {
        begin(reactor, co, WaitKind::Time, None);
        wake(co, Outcome::Woken);
    });
    suspend(env, co);
}

/// Begins a wait of the running coroutine for one descriptor; [`end_one`] ends it.
#[inline]
pub(crate) fn begin_one(
    env: &Env,
    reactor: &Reactor,
    fd: c_int,
    events: u16,
    deadline: Option<u64>,
) -> Result<(), Refused> {
    let co = Co::of(env.running());
    let node = &co.wait.node;
    node.prepare(co, fd, events);
    env.guarded(|| {
        reactor.register(node)?;
        begin(reactor, co, WaitKind::Descriptor, deadline);
        Ok(())
    })
}

/// The running coroutine is back from what [`begin_one`] began: what happened, 0 after the time-out.
#[inline]
pub(crate) fn end_one(env: &Env) -> u16 {
    let co = Co::of(env.running());
    finish(env, co);
    let node = &co.wait.node;
    if node.link().is_linked() {
        // SAFETY: linked, so its loop is there.
        let reactor = unsafe { &*co.wait.reactor.get() };
        env.guarded(|| reactor.unregister(node));
    }
    node.revents.get()
}

/// Waits for one descriptor. `Ok(0)`: the time was over (or somebody resumed the coroutine by hand).
#[inline]
pub(crate) fn poll_one(
    env: &Env,
    reactor: &Reactor,
    fd: c_int,
    events: u16,
    deadline: Option<u64>,
) -> Result<u16, Refused> {
    begin_one(env, reactor, fd, events, deadline)?;
    arch::yield_now();
    Ok(end_one(env))
}

/// poll(2) for a coroutine: cooperative, same results. `timeout` in ms, not 0; negative waits for ever.
///
/// # Safety
/// `fds` points at `count` pollfds.
pub(crate) unsafe fn poll(
    env: &Env,
    reactor: &Reactor,
    fds: *mut libc::pollfd,
    count: usize,
    timeout: c_int,
) -> Result<c_int, Errno> {
    let deadline = (timeout > 0).then(|| deadline_after(timeout as u64));
    loop {
        // SAFETY: as the caller vouches.
        match unsafe { wait_for_all(env, reactor, fds, count, deadline) }? {
            Ended::With(ready) => return Ok(ready),
            Ended::ReadyNow => {
                // Closed numbers, files, spurious wakes: the plain call knows what to report, at once.
                through_the_loop(env, reactor);
                // SAFETY: as the caller vouches.
                let ready = unsafe { sys_poll::now(fds, count) }?;
                if ready != 0 || deadline.is_some_and(|tick| Nanos::now().tick() >= tick) {
                    return Ok(ready);
                }
            }
        }
    }
}

enum Ended {
    With(c_int),
    ReadyNow,
}

/// # Safety
/// As [`poll`].
unsafe fn wait_for_all(
    env: &Env,
    reactor: &Reactor,
    fds: *mut libc::pollfd,
    count: usize,
    deadline: Option<u64>,
) -> Result<Ended, Errno> {
    if count == 1 {
        // SAFETY: one pollfd; copied, since no reference may live across the switch.
        let one = unsafe { *fds };
        if one.fd >= 0 {
            match poll_one(env, reactor, one.fd, one.events as u16, deadline) {
                Ok(0) if env.running().wait.outcome() == Outcome::Woken => return Ok(Ended::ReadyNow),
                Ok(revents) => {
                    // SAFETY: as above.
                    unsafe { (*fds).revents = revents as i16 };
                    return Ok(Ended::With(c_int::from(revents != 0)));
                }
                Err(Refused::Closed | Refused::AlwaysReady) => return Ok(Ended::ReadyNow),
                Err(Refused::Error(error)) => return Err(error),
            }
        }
    } else if count > 1 {
        // SAFETY: as the caller vouches.
        return unsafe { wait_for_many(env, reactor, fds, count, deadline) };
    }
    wait_for_time(env, reactor, deadline);
    if count == 1 {
        // SAFETY: one pollfd.
        unsafe { (*fds).revents = 0 };
    }
    Ok(Ended::With(0))
}

/// Waits for the time alone.
fn wait_for_time(env: &Env, reactor: &Reactor, deadline: Option<u64>) {
    let co = Co::of(env.running());
    env.guarded(|| begin(reactor, co, WaitKind::Time, deadline));
    suspend(env, co);
}

/// More descriptors than a poll usually has: checked against the limit, as the kernel does.
const MANY: usize = 1024;

fn within_limit(count: usize) -> bool {
    process::most_descriptors().is_none_or(|most| count as libc::rlim_t <= most)
}

/// # Safety
/// As [`poll`].
unsafe fn wait_for_many(
    env: &Env,
    reactor: &Reactor,
    fds: *mut libc::pollfd,
    count: usize,
    deadline: Option<u64>,
) -> Result<Ended, Errno> {
    let co = Co::of(env.running());
    if count > MANY && !within_limit(count) {
        return Err(Errno(libc::EINVAL));
    }
    make_nodes(env, co, count)?;
    let registered = env.guarded(|| {
        for i in 0..count {
            // SAFETY: `count` pollfds.
            let fd = unsafe { &*fds.wrapping_add(i) };
            if fd.fd < 0 {
                continue;
            }
            let node = node_of(co, i);
            node.prepare(co, fd.fd, fd.events as u16);
            reactor.register(node)?;
        }
        begin(reactor, co, WaitKind::Descriptors, deadline);
        Ok(())
    });
    if let Err(refused) = registered {
        env.guarded(|| drop_nodes(env, reactor, co));
        return match refused {
            Refused::Closed | Refused::AlwaysReady => Ok(Ended::ReadyNow),
            Refused::Error(error) => Err(error),
        };
    }
    suspend(env, co);
    let mut ready = 0;
    for i in 0..count {
        let revents = node_of(co, i).revents.get() as i16;
        ready += c_int::from(revents != 0);
        // SAFETY: `count` pollfds; written by the coroutine itself, on its own stack.
        unsafe { (*fds.wrapping_add(i)).revents = revents };
    }
    let saw_part = ready > 0 && reactor.saw_part();
    env.guarded(|| drop_nodes(env, reactor, co));
    if ready == 0 && co.wait.outcome() == Outcome::Woken {
        return Ok(Ended::ReadyNow);
    }
    if saw_part {
        // SAFETY: as the caller vouches. If somebody took what was ready meanwhile, the loop's word stands.
        ready = unsafe { sys_poll::now(fds, count) }.ok().filter(|&now| now > 0).unwrap_or(ready);
    }
    Ok(Ended::With(ready))
}

/// `count` nodes for the wait that begins now; [`drop_nodes`] frees them. Never on the coroutine's stack: a copy
/// stack's bytes are elsewhere while it waits.
pub(super) fn make_nodes(env: &Env, co: Co, count: usize) -> Result<(), Errno> {
    let size = count.checked_mul(size_of::<Node>()).filter(|&size| size <= u32::MAX as usize);
    let size = size.ok_or(Errno(libc::EINVAL))?;
    let nodes = env.objects.alloc(size).ok_or(Errno(libc::ENOMEM))?;
    // SAFETY: fresh, `size` bytes; all-zero bytes are nodes in no ring.
    unsafe { nodes.write_bytes(0, size) };
    co.wait.more.set(nodes.as_ptr().cast());
    co.wait.count.set(count as u32);
    Ok(())
}

/// The `i`-th of the nodes that `make_nodes` allocated.
pub(super) fn node_of<'a>(co: Co, i: usize) -> &'a Node {
    let nodes: *const Node = co.wait.more.get().cast_const().cast();
    // SAFETY: `count` nodes, alive until `drop_nodes`.
    unsafe { &*nodes.wrapping_add(i) }
}

/// The first of the descriptors that a coroutine of this thread waits for, and the events, if it waits for many.
pub(crate) fn first_descriptor(co: Co) -> Option<(c_int, u16)> {
    if co.wait.more.get().is_null() {
        return None;
    }
    let count = co.wait.count.get() as usize;
    let node = (0..count).map(|i| node_of(co, i)).find(|node| node.link().is_linked())?;
    Some((node.fd(), node.events.get()))
}

/// The nodes that a wait left behind whose loop is gone: nobody resumed the coroutine since.
pub(crate) fn drop_left_nodes(co: Co) {
    if co.wait.kind() != WaitKind::Descriptors {
        return;
    }
    let count = co.wait.count.replace(0) as usize;
    if count > 0
        && let Some(nodes) = NonNull::new(co.wait.more.replace(null_mut()).cast())
    {
        // SAFETY: allocated with this size by `make_nodes`; in no ring, their loop took them out.
        unsafe { pool::free_central(nodes, count * size_of::<Node>()) };
    }
}

pub(super) fn drop_nodes(env: &Env, reactor: &Reactor, co: Co) {
    let count = co.wait.count.replace(0) as usize;
    for i in 0..count {
        let node = node_of(co, i);
        if node.link().is_linked() {
            reactor.unregister(node);
        }
    }
    if let Some(nodes) = NonNull::new(co.wait.more.replace(null_mut()).cast()) {
        // SAFETY: allocated with this size, in no ring any more.
        unsafe { env.objects.free(nodes, count * size_of::<Node>()) };
    }
}
