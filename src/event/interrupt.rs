//! Who is in a wait that a signal handler ends: the time calls, select, ppoll, epoll_wait.
//!
//! The kernel ends such a call when a handler has run in the thread. Here the thread sleeps in the loop for all
//! of them: when the loop's sleep ends by `EINTR`, each of them is interrupted. What a handler does that runs
//! while some coroutine runs is not noticed, as if it had run before the call.
//!
//! A wait may bring a signal mask (pselect, ppoll, epoll_pwait). It cannot be the thread's mask while other
//! coroutines run, but it can be while the loop sleeps: a signal is let through then if the thread or one of
//! the waits lets it. So a program that blocks a signal everywhere but in its pselect gets it there.
//!
//! All-zero bytes are an empty set.

use core::cell::Cell;
use core::ptr::null;

use crate::event::registration::Node;
use crate::event::wait;
use crate::routine::coroutine::Outcome;
use crate::routine::{Co, Env};
use crate::sys::signals;
use crate::util::list::{Link, List};

/// The waits of one loop that a signal ends, linked by the `node` of the control block.
pub(super) struct Interruptible {
    plain: List,
    /// With a mask, which the node holds.
    masked: List,
    /// What the kernel reads while the loop sleeps.
    mask: Cell<u64>,
    /// Somebody has been here since the last sleep that found nobody.
    in_use: Cell<bool>,
}

/// Signals that no mask keeps away: SIGKILL, SIGSTOP, and the two that the C library keeps for itself.
const NEVER_BLOCKED: u64 = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1) | 3 << 31;

/// The coroutine of a member.
fn waiter(link: *const Link) -> Option<Co> {
    // SAFETY: members are nodes of live control blocks, whose first member is the link.
    unsafe { &*link.cast::<Node>() }.waiter()
}

impl Interruptible {
    /// `co` begins to wait, with the program's signal mask if it gave one. In a guarded section.
    pub(super) fn add(&self, co: Co, mask: Option<u64>) {
        let list = match mask {
            None => &self.plain,
            // Nothing may interrupt it.
            Some(mask) if mask | NEVER_BLOCKED == !0 => return,
            Some(_) => &self.masked,
        };
        self.in_use.set(true);
        co.wait.node.prepare_with_mask(co, mask.unwrap_or(0));
        // SAFETY: in no ring: the last wait has ended, and took it out.
        unsafe { list.push_back(co.wait.node.link()) };
    }

    /// The loop is about to sleep: what the thread shall block meanwhile, null if that is what it blocks anyway,
    /// and whether anybody wants to know of handlers.
    #[inline(always)]
    pub(super) fn before_sleep(&self, env: &Env) -> (*const u64, bool) {
        if self.in_use.get() { self.prepare(env) } else { (null(), false) }
    }

    #[inline(never)]
    fn prepare(&self, env: &Env) -> (*const u64, bool) {
        if self.masked.is_empty() {
            self.in_use.set(!self.plain.is_empty());
            return (null(), self.in_use.get());
        }
        let mut mask = signals::blocked();
        env.guarded(|| {
            self.masked.each(|link| {
                // SAFETY: members are nodes of live control blocks, whose first member is the link.
                mask &= unsafe { &*link.cast::<Node>() }.mask();
            });
        });
        self.mask.set(mask);
        // A sleep takes no signals while descriptors have something to report: they would never be taken.
        if signals::take_pending(&mask) {
            env.guarded(|| self.wake_all());
        }
        (self.mask.as_ptr(), true)
    }

    /// A handler ran: the waits are over. In a guarded section.
    pub(super) fn wake_all(&self) {
        for list in [&self.plain, &self.masked] {
            list.each(|link| {
                if let Some(co) = waiter(link) {
                    wait::wake(co, Outcome::Interrupted);
                }
            });
        }
    }

    /// The loop goes: takes everybody out.
    pub(super) fn forget(&self, mut each: impl FnMut(Co)) {
        for list in [&self.plain, &self.masked] {
            while let Some(link) = list.pop_front() {
                if let Some(co) = waiter(link) {
                    each(co);
                }
            }
        }
    }
}
