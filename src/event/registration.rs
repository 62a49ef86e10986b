//! Which descriptors are in a loop's epoll, and who waits for them.
//!
//! ```text
//!   Registrations[number] ──► Registration: armed events, generation, ring of nodes
//!                                                               node ─ node ─ node
//!                                           each in a control block (or in a poll's array)
//! ```
//!
//! A recorded descriptor stays in the epoll set between waits: waiting again for the same event costs
//! no system call. An event that nobody waits for takes it out. Others (made past the hooks, so their
//! close may pass us by) are added and deleted around each wait.
//!
//! A number can change hands without our knowing (raw system call, dup2 in a library): so a wait that
//! trusted an old registration is verified when it fires often, and by an audit when it lasts long
//! (see `reactor`); an entry that nobody can delete any more makes the loop build a new epoll set.

use core::cell::Cell;
use core::ffi::c_int;
use core::mem::{offset_of, size_of};
use core::ptr::null;
use core::sync::atomic::{Ordering, fence};

use crate::event::descriptor::{self, OURS, SEVERAL, Slot};
use crate::event::reactor::Reactor;
use crate::routine::{Co, Coroutine};
use crate::sys::errno::Errno;
use crate::sys::heap::Zeroed;
use crate::util::list::{Link, Ring};

/// One waiter at one descriptor (or in a condition's queue).
#[repr(C)]
pub(crate) struct Node {
    link: Link,
    co: Cell<*const Coroutine>,
    fd: Cell<c_int>,
    /// As in pollfd, which has epoll's values.
    pub(crate) events: Cell<u16>,
    pub(crate) revents: Cell<u16>,
}

const _: () = assert!(size_of::<Node>() == 32 && offset_of!(Node, link) == 0);

/// Where a node has what it waits for.
pub(crate) mod node_at {
    use super::Node;
    use core::mem::offset_of;

    pub(crate) const CO: usize = offset_of!(Node, co);
    pub(crate) const FD: usize = offset_of!(Node, fd);
    pub(crate) const EVENTS: usize = offset_of!(Node, events);
}

impl Node {
    /// Makes it a node of `co` for `events` of `fd`.
    pub(crate) fn prepare(&self, co: Co, fd: c_int, events: u16) {
        self.co.set(co.as_ptr());
        self.fd.set(fd);
        self.events.set(events);
        self.revents.set(0);
    }

    /// Makes it a node of `co` at no descriptor, for a wait that a signal ends: it holds the signal mask.
    pub(crate) fn prepare_with_mask(&self, co: Co, mask: u64) {
        self.prepare(co, mask as c_int, (mask >> 32) as u16);
        self.revents.set((mask >> 48) as u16);
    }

    pub(crate) fn mask(&self) -> u64 {
        u64::from(self.revents.get()) << 48
            | u64::from(self.events.get()) << 32
            | u64::from(self.fd.get().cast_unsigned())
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn fd(&self) -> c_int {
        self.fd.get()
    }

    /// Who waits here. The node is in a ring.
    pub(crate) fn waiter(&self) -> Option<Co> {
        // SAFETY: nodes leave their ring before their coroutine goes.
        unsafe { Co::from_c(self.co.get()) }
    }
}

/// Reported whether or not they were asked for.
const ALWAYS: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
/// What poll(2) reports of a file that cannot be waited for, if asked.
const FILE_EVENTS: u16 = (libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM) as u16;
/// What poll(2) can ask epoll for.
const ASKABLE: u16 = 0x27ff;
/// In `armed`: the descriptor is in the epoll set (possibly for no event but errors).
const IN_SET: u16 = 1 << 15;
/// A wait that trusts an earlier registration began; an audit has seen it since.
const TRUST_NEW: u8 = 1;
const TRUST_OLD: u8 = 2;
/// After so many events in a row the next wait makes sure of its registration.
const VERIFY_AFTER: u8 = 255;

#[repr(C)]
pub(crate) struct Registration {
    waiters: Ring,
    generation: Cell<u32>,
    armed: Cell<u16>,
    fired: Cell<u8>,
    /// Somebody waits on the word of an earlier registration: how long it has lasted.
    trust: Cell<u8>,
}

const _: () = assert!(size_of::<Registration>() == 16 && ASKABLE & IN_SET == 0);

// SAFETY: no waiters, not in the set.
unsafe impl Zeroed for Registration {}

/// Why a descriptor could not be waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// No such descriptor.
    Closed,
    /// Not pollable, such as a file: always ready.
    AlwaysReady,
    /// Anything else.
    Error(Errno),
}

/// What an event carries: number and generation.
fn data(fd: c_int, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(fd as u32)
}

impl Registration {
    /// Whether it is in the epoll set, or somebody waits here.
    pub(super) fn is_used(&self) -> bool {
        self.armed.get() != 0 || !self.waiters.is_empty()
    }

    /// One of those that wait here, null without any.
    pub(super) fn first_link(&self) -> *const Link {
        self.waiters.first().unwrap_or(null())
    }

    fn wanted(&self) -> u16 {
        let mut wanted = 0;
        self.each_node(|node| wanted |= node.events.get());
        wanted & ASKABLE
    }

    pub(super) fn each_node(&self, mut visit: impl FnMut(&Node)) {
        let mut at = self.waiters.first();
        while let Some(link) = at {
            at = self.waiters.after(link);
            // SAFETY: a node's first member is its link; nodes in the ring are alive.
            visit(unsafe { &*link.cast::<Node>() });
        }
    }

    /// Wakes everybody here: the descriptor is closed.
    fn wake_closed(&self) {
        self.each_node(|node| {
            node.revents.set(node.revents.get() | libc::POLLNVAL as u16);
            wake_waiter(node);
        });
    }
}

pub(super) fn wake_waiter(node: &Node) {
    if let Some(co) = node.waiter() {
        crate::event::wake(co, crate::routine::coroutine::Outcome::Woken);
    }
}

impl Reactor {
    /// Puts a prepared node at its descriptor. A file that is asked for nothing that files report is waited for as well.
    #[inline]
    pub(crate) fn register(&self, node: &Node) -> Result<(), Refused> {
        let fd = node.fd();
        let no_memory = Refused::Error(Errno(libc::ENOMEM));
        let slot = descriptor::slot_or_new(fd).ok_or(no_memory)?;
        let entry = self.registrations.get_or_new(fd).ok_or(no_memory)?;
        let generation = slot.generation.load(Ordering::Acquire);
        if entry.generation.get() != generation {
            // Whoever still waits here waits for a file that is gone.
            entry.wake_closed();
            entry.generation.set(generation);
            entry.armed.set(0);
        }
        let wanted = entry.wanted() | node.events.get() & ASKABLE;
        let stays = !slot.record.load(Ordering::Acquire).is_null();
        let armed = entry.armed.get();
        if stays && armed != 0 && wanted & !armed == 0 && entry.fired.get() < VERIFY_AFTER {
            entry.trust.set(TRUST_NEW);
            self.note_trust();
        } else {
            entry.fired.set(0);
            match self.arm(fd, slot, entry, wanted) {
                // Only the number's close can end this wait.
                Err(Refused::AlwaysReady) if node.events.get() & FILE_EVENTS == 0 => {}
                result => result?,
            }
        }
        // SAFETY: the node stays where it is until `unregister`.
        unsafe { entry.waiters.push_back(&node.link) };
        Ok(())
    }

    /// Brings the epoll set in line with `wanted`.
    fn arm(&self, fd: c_int, slot: &Slot, entry: &Registration, wanted: u16) -> Result<(), Refused> {
        let data = data(fd, entry.generation.get());
        let mut tries = 0;
        loop {
            let epfd = self.epoll_fd().map_err(Refused::Error)?;
            let (op, was_armed) = match entry.armed.get() {
                0 => (libc::EPOLL_CTL_ADD, false),
                _ => (libc::EPOLL_CTL_MOD, true),
            };
            tries += 1;
            // First: a close meanwhile looks for it afterwards.
            if slot.loops.load(Ordering::Acquire) == OURS {
                return Err(Refused::Closed);
            }
            self.note_loop(slot);
            match self.ctl(epfd, op, fd, wanted.into(), data) {
                Ok(()) => {
                    entry.armed.set(wanted | IN_SET);
                    return Ok(());
                }
                Err(Errno(libc::EPERM)) => return Err(Refused::AlwaysReady),
                // Our epoll descriptor was closed past us.
                Err(_) if tries < 4 && self.replaces_lost_epoll_fd() => entry.armed.set(0),
                // The number was closed past us, or belongs to another file now.
                Err(Errno(libc::ENOENT | libc::EBADF)) if was_armed => {
                    entry.armed.set(0);
                    self.want_rebuild();
                }
                Err(Errno(libc::EBADF)) => return Err(Refused::Closed),
                // In the set already, from before; gone again if another thread closes it just now.
                Err(Errno(libc::EEXIST)) if tries < 8 => entry.armed.set(IN_SET),
                Err(error) => return Err(Refused::Error(error)),
            }
        }
    }

    /// Tells the descriptor table that this loop has the number in its set.
    fn note_loop(&self, slot: &Slot) {
        let me = self.id();
        let known = slot.loops.load(Ordering::Acquire);
        if known != me
            && (known != 0
                || slot.loops.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire).is_err())
        {
            slot.loops.store(SEVERAL, Ordering::Release);
        }
        // (The other half of `rouse::closed`'s: of the note here and the kernel's look at the number, which follows, and of
        // the close there and its look for the note, one side sees the other's. Neither a release nor the way into the
        // kernel keeps a store before a later load.)
        if known != me {
            fence(Ordering::SeqCst);
        }
    }

    /// Takes a node away from its descriptor.
    #[inline]
    pub(crate) fn unregister(&self, node: &Node) {
        if !node.link.is_linked() {
            return;
        }
        let fd = node.fd();
        let Some(entry) = self.registrations.get(fd) else { return };
        entry.waiters.remove(&node.link);
        if !entry.waiters.is_empty() {
            return;
        }
        entry.trust.set(0);
        let stays = !descriptor::recorded(fd).is_null();
        if !stays && entry.armed.get() != 0 {
            self.disarm(fd, entry);
        }
    }

    /// Takes the descriptor out of the epoll set.
    fn disarm(&self, fd: c_int, entry: &Registration) {
        entry.armed.set(0);
        entry.fired.set(0);
        if self.ctl(self.epoll_fd_if_any(), libc::EPOLL_CTL_DEL, fd, 0, 0).is_err() {
            // Closed past us. If a dup keeps the file open its events go on, and only a new set
            // gets rid of them.
            self.want_rebuild();
        }
    }

    /// One event from the epoll set: wakes who waits for it.
    #[inline]
    pub(crate) fn dispatch(&self, event: &libc::epoll_event) {
        let (events, number) = (event.events, event.u64);
        let fd = number as u32 as c_int;
        let generation = (number >> 32) as u32;
        let Some(entry) = self.registrations.get(fd) else { return self.want_rebuild() };
        if entry.generation.get() != generation || entry.armed.get() == 0 {
            // An entry of a file that had this number before: a dup keeps it alive.
            return self.want_rebuild();
        }
        entry.fired.set(entry.fired.get().saturating_add(1));
        let mut served = 0;
        let mut at = entry.waiters.first();
        while let Some(link) = at {
            at = entry.waiters.after(link);
            // SAFETY: a node's first member is its link; nodes in the ring are alive.
            let node = unsafe { &*link.cast::<Node>() };
            let mask = u32::from(node.events.get()) | ALWAYS;
            served |= mask;
            if events & mask != 0 {
                node.revents.set(node.revents.get() | (events & mask) as u16);
                wake_waiter(node);
            }
        }
        if events & !served != 0 {
            self.quieten(fd, entry);
        }
    }

    /// An event came that nobody waits for: level-triggered, it would come for ever.
    #[cold]
    fn quieten(&self, fd: c_int, entry: &Registration) {
        if entry.waiters.is_empty() {
            return self.disarm(fd, entry);
        }
        let wanted = entry.wanted();
        let data = data(fd, entry.generation.get());
        match self.ctl(self.epoll_fd_if_any(), libc::EPOLL_CTL_MOD, fd, wanted.into(), data) {
            Ok(()) => entry.armed.set(wanted | IN_SET),
            Err(_) => self.want_rebuild(),
        }
    }

    /// The number, whose generation was `old` until now, is being closed by this thread.
    pub(crate) fn close_here(&self, fd: c_int, old: u32) {
        let Some(entry) = self.registrations.get(fd) else { return };
        if entry.generation.get() != old {
            return;
        }
        if entry.armed.get() != 0 {
            self.disarm(fd, entry);
        }
        entry.wake_closed();
    }

    /// Another thread closed a number this loop has: finds out which.
    pub(crate) fn look_for_closed(&self) {
        self.registrations.each(|fd, entry| {
            let now = descriptor::slot(fd).map_or(0, |slot| slot.generation.load(Ordering::Acquire));
            if entry.generation.get() != now {
                entry.armed.set(0);
                entry.wake_closed();
            }
        });
    }

    /// Makes sure of the waits that have trusted an earlier registration since the last audit. True if
    /// others have begun to, so that another audit is due.
    #[cold]
    pub(crate) fn audit(&self) -> bool {
        let epfd = self.epoll_fd_if_any();
        let mut again = false;
        self.registrations.each(|fd, entry| {
            if entry.waiters.is_empty() || entry.trust.get() == 0 {
                return;
            }
            if entry.trust.get() == TRUST_NEW {
                entry.trust.set(TRUST_OLD);
                again = true;
                return;
            }
            entry.trust.set(0);
            let armed = entry.armed.get() & !IN_SET;
            let data = data(fd, entry.generation.get());
            if self.ctl(epfd, libc::EPOLL_CTL_MOD, fd, armed.into(), data).is_err() {
                self.want_rebuild();
            }
        });
        again
    }

    /// A new epoll set with what is waited for now. Entries that nobody could delete are gone with the
    /// old one.
    #[cold]
    pub(crate) fn rebuild(&self) -> Result<(), Errno> {
        let epfd = self.renew_epoll_fd()?;
        self.registrations.each(|fd, entry| {
            entry.armed.set(0);
            if entry.waiters.is_empty() {
                return;
            }
            let wanted = entry.wanted();
            match self.ctl(epfd, libc::EPOLL_CTL_ADD, fd, wanted.into(), data(fd, entry.generation.get())) {
                Ok(()) => entry.armed.set(wanted | IN_SET),
                Err(Errno(libc::EBADF)) => entry.wake_closed(),
                Err(Errno(libc::EPERM)) => entry.rouse(),
                // No memory for it now: the next round tries again.
                Err(_) => self.want_rebuild(),
            }
        });
        Ok(())
    }

    /// Nobody will be woken by a descriptor any more.
    pub(crate) fn forget_waiters(&self, mut each: impl FnMut(Co)) {
        self.registrations.each(|_, entry| {
            while let Some(link) = entry.waiters.pop_front() {
                // SAFETY: a node's first member is its link; nodes in the ring are alive.
                if let Some(co) = unsafe { &*link.cast::<Node>() }.waiter() {
                    each(co);
                }
            }
        });
    }
}
