//! A loop's own descriptors: its epoll set, and the eventfd that other threads wake it by.
//!
//! A program may close numbers it does not know, and get them again for files of its own. So no number is
//! closed, raised or drained here without proof that it is still ours: the eventfd is in the epoll set, and
//! adding it again says so (EEXIST). The descriptor table marks both numbers, so that a close through the
//! hook is noticed at once.
//!
//! Both are high numbers. A program that closes a number once too often, or still reads it after another of its
//! threads closed it, has low ones in its hands, which the kernel gives out next: were they the loop's, the program would
//! take its wake-ups, or close it.

use core::ffi::c_int;
use core::sync::atomic::Ordering;

use crate::event::descriptor;
use crate::event::loops;
use crate::event::reactor::{KICK, Reactor};
use crate::sys::epoll;
use crate::sys::errno::Errno;
use crate::sys::process;

/// From here on the loops' numbers are looked for: half of what the process may have, if that is less.
const HIGH: libc::rlim_t = 768;

/// Below this they stay. The kernel's table of descriptors reaches to the highest, fork copies it, and select(2) goes by
/// its size: programs call it with the most descriptors there can be, and sets of 1024.
const END: c_int = 1024;

/// How often a number is made anew that was closed before it could be moved.
const TRIES: usize = 8;

/// What `make` makes, at a high number if one is free.
fn high(make: fn() -> Result<c_int, Errno>) -> Result<c_int, Errno> {
    let from = process::most_descriptors().map_or(HIGH, |most| (most / 2).min(HIGH));
    for _ in 0..TRIES {
        let fd = make()?;
        match epoll::duplicate(fd, from as c_int) {
            Ok(moved) if moved >= END => {
                epoll::close(moved);
                return Ok(fd);
            }
            Ok(moved) => {
                epoll::close(fd);
                return Ok(moved);
            }
            // Closed already, by a thread that took it for its own.
            Err(Errno(libc::EBADF)) => {}
            Err(_) => return Ok(fd),
        }
    }
    make()
}

impl Reactor {
    /// A new, empty epoll set in place of the old one, and the eventfd that wakes it.
    pub(crate) fn renew_epoll_fd(&self) -> Result<c_int, Errno> {
        loops::locked(|| {
            // First: they may be the last descriptors to be had.
            self.close_descriptors();
            let epfd = high(epoll::create)?;
            let kick = high(epoll::eventfd).and_then(|kick| {
                let added = self.ctl_anywhere(epfd, libc::EPOLL_CTL_ADD, kick, libc::EPOLLIN as u32, KICK);
                added.map(|()| kick).inspect_err(|_| epoll::close(kick))
            });
            let kick = kick.inspect_err(|_| epoll::close(epfd))?;
            descriptor::make_ours(epfd);
            descriptor::make_ours(kick);
            self.kick_fd.store(kick + 1, Ordering::Release);
            self.epfd.store(epfd + 1, Ordering::Release);
            Ok(epfd)
        })
    }

    /// Whether both numbers are still what the loop made: a program may have closed them, and have been
    /// given them again for files of its own. The eventfd being in the epoll set proves both.
    pub(super) fn has_descriptors(&self) -> bool {
        let (epfd, kick) = (self.epoll_fd_if_any(), self.kick_fd.load(Ordering::Acquire) - 1);
        if epfd < 0 || kick < 0 {
            return false;
        }
        let added = self.ctl_anywhere(epfd, libc::EPOLL_CTL_ADD, kick, 0, KICK);
        if added == Ok(()) {
            let _ = self.ctl_anywhere(epfd, libc::EPOLL_CTL_DEL, kick, 0, 0);
        }
        added == Err(Errno(libc::EEXIST))
    }

    /// Closes the loop's descriptors, if they are its own still.
    pub(super) fn close_descriptors(&self) {
        let ours = self.has_descriptors();
        for cell in [&self.epfd, &self.kick_fd] {
            let fd = cell.swap(0, Ordering::AcqRel) - 1;
            if fd >= 0 {
                descriptor::not_ours(fd);
                if ours {
                    epoll::close(fd);
                }
            }
        }
    }

    /// An epoll_ctl failed in a way that a good epoll descriptor does not: if the number is not ours any
    /// more a new one is made. True if so.
    pub(super) fn replaces_lost_epoll_fd(&self) -> bool {
        !self.has_descriptors() && {
            self.lose_epoll_fd();
            self.epoll_fd().is_ok()
        }
    }

    /// If the number is one of the loop's own, the loop looks for others. The list of loops is locked.
    pub(super) fn lose_if_ours(&self, fd: c_int) {
        if self.epoll_fd_if_any() == fd || self.kick_fd.load(Ordering::Relaxed) - 1 == fd {
            // While they are there, the loop can still be woken by them.
            self.rebuild.store(true, Ordering::Release);
            self.kick_locked();
            self.lose_epoll_fd();
        }
    }

    /// The epoll descriptor is gone, or about to be closed by the program: its number is not ours any more.
    pub(super) fn lose_epoll_fd(&self) {
        for cell in [&self.epfd, &self.kick_fd] {
            let fd = cell.swap(0, Ordering::AcqRel) - 1;
            if fd >= 0 {
                descriptor::not_ours(fd);
            }
        }
        self.rebuild.store(true, Ordering::Release);
    }

    /// There is something to look at before the loop next sleeps.
    pub(super) fn note_kicked(&self) {
        self.kicked.store(true, Ordering::Release);
    }

    /// Wakes the loop from another thread. The list of loops is locked.
    pub(super) fn kick_locked(&self) {
        self.note_kicked();
        // Without descriptors of its own it sleeps shortly, and looks.
        if self.has_descriptors() {
            epoll::eventfd_raise(self.kick_fd.load(Ordering::Relaxed) - 1);
        }
    }
}
