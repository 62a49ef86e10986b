//! An intrusive doubly linked ring. No allocation, O(1) everywhere.
//!
//! ```text
//!   List ──next──► Link ──next──► Link ──next──► List      (and back by prev)
//! ```
//!
//! All-zero bytes are an empty `List` and an unlinked `Link`. A `Link` lies inside the object it
//! links; the caller gets from one to the other by a known offset. Invariant: every linked `Link`
//! stays where it is and alive until it is unlinked. One thread uses a ring.

use core::cell::Cell;
use core::ptr::null;

/// A member of at most one ring.
#[repr(C)]
pub(crate) struct Link {
    prev: Cell<*const Link>,
    next: Cell<*const Link>,
}

/// Where a debugger finds what it follows.
pub(crate) mod at {
    use super::Link;
    use core::mem::offset_of;

    pub(crate) const NEXT: usize = offset_of!(Link, next);
}

/// The head of a ring.
#[repr(transparent)]
pub(crate) struct List(Link);

impl Link {
    pub(crate) const fn new() -> Self {
        Link { prev: Cell::new(null()), next: Cell::new(null()) }
    }

    #[inline(always)]
    pub(crate) fn is_linked(&self) -> bool {
        !self.next.get().is_null()
    }

    /// Takes it out of its ring; nothing if it is in none.
    #[inline(always)]
    pub(crate) fn unlink(&self) {
        let next = self.next.get();
        if next.is_null() {
            return;
        }
        let prev = self.prev.get();
        // SAFETY: both neighbours of a linked Link are alive (the ring's invariant).
        unsafe { (*prev).next.set(next) };
        // SAFETY: as above.
        unsafe { (*next).prev.set(prev) };
        self.next.set(null());
        self.prev.set(null());
    }
}

impl List {
    pub(crate) const fn new() -> Self {
        List(Link::new())
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        let next = self.0.next.get();
        next.is_null() || core::ptr::eq(next, &self.0)
    }

    /// # Safety
    /// `link` is in no ring and stays where it is until it is unlinked; so does this list while it
    /// has members.
    #[inline(always)]
    pub(crate) unsafe fn push_back(&self, link: *const Link) {
        let head: *const Link = &self.0;
        if self.0.next.get().is_null() {
            self.0.next.set(head);
            self.0.prev.set(head);
        }
        let last = self.0.prev.get();
        // SAFETY: the caller's link is alive.
        let new = unsafe { &*link };
        new.prev.set(last);
        new.next.set(head);
        // SAFETY: the last member (or the head itself) is alive.
        unsafe { (*last).next.set(link) };
        self.0.prev.set(link);
    }

    /// As [`push_back`](Self::push_back), at the other end.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn push_front(&self, link: *const Link) {
        let old = List::new();
        old.append(self);
        // SAFETY: as the caller vouches.
        unsafe { self.push_back(link) };
        self.append(&old);
    }

    /// The first member, left in place.
    #[inline(always)]
    pub(crate) fn first(&self) -> Option<*const Link> {
        if self.is_empty() { None } else { Some(self.0.next.get()) }
    }

    /// The member after `link`, which is in this ring.
    #[inline(always)]
    pub(crate) fn after(&self, link: *const Link) -> Option<*const Link> {
        // SAFETY: a member is alive.
        let next = unsafe { (*link).next.get() };
        if core::ptr::eq(next, &self.0) { None } else { Some(next) }
    }

    /// The last member, left in place.
    #[inline(always)]
    pub(crate) fn last(&self) -> Option<*const Link> {
        if self.is_empty() { None } else { Some(self.0.prev.get()) }
    }

    /// The member before `link`, which is in this ring.
    #[inline(always)]
    pub(crate) fn before(&self, link: *const Link) -> Option<*const Link> {
        // SAFETY: a member is alive.
        let prev = unsafe { (*link).prev.get() };
        if core::ptr::eq(prev, &self.0) { None } else { Some(prev) }
    }

    /// In a child of fork: another thread may have been about to put a member in or take one out. Each step of that leaves
    /// the way forward whole.
    pub(crate) fn mend(&self) {
        let head: *const Link = &self.0;
        let mut last = head;
        let mut at = self.0.next.get();
        while !at.is_null() && !core::ptr::eq(at, head) {
            // SAFETY: a member is alive.
            let link = unsafe { &*at };
            link.prev.set(last);
            last = at;
            at = link.next.get();
        }
        self.0.prev.set(last);
    }

    /// Visits every member. The visitor may take out the one it is given.
    pub(crate) fn each(&self, mut visit: impl FnMut(*const Link)) {
        let mut at = self.first();
        while let Some(link) = at {
            at = self.after(link);
            visit(link);
        }
    }

    /// Takes the first member out.
    #[inline(always)]
    pub(crate) fn pop_front(&self) -> Option<*const Link> {
        let first = self.first()?;
        // SAFETY: a member is alive.
        unsafe { (*first).unlink() };
        Some(first)
    }

    /// Moves all of `other`'s members to this list's end, in one step.
    pub(crate) fn append(&self, other: &List) {
        if other.is_empty() {
            return;
        }
        let head: *const Link = &self.0;
        if self.0.next.get().is_null() {
            self.0.next.set(head);
            self.0.prev.set(head);
        }
        let (first, last) = (other.0.next.get(), other.0.prev.get());
        let end = self.0.prev.get();
        // SAFETY: the end of this ring (or its head) is alive.
        unsafe { (*end).next.set(first) };
        // SAFETY: members of a ring are alive.
        unsafe { (*first).prev.set(end) };
        // SAFETY: as above.
        unsafe { (*last).next.set(head) };
        self.0.prev.set(last);
        other.0.next.set(&other.0);
        other.0.prev.set(&other.0);
    }
}

/// A ring without a head, known by its first member: half the size of a [`List`], but who takes a member out
/// must have the ring at hand ([`Link::unlink`] alone will not do).
#[repr(transparent)]
pub(crate) struct Ring(Cell<*const Link>);

impl Ring {
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.get().is_null()
    }

    /// # Safety
    /// `link` is in no ring, and stays where it is until it is taken out.
    #[inline(always)]
    pub(crate) unsafe fn push_back(&self, link: *const Link) {
        // SAFETY: the caller's link is alive.
        let new = unsafe { &*link };
        // SAFETY: null or a member, which is alive.
        let Some(first) = (unsafe { self.0.get().as_ref() }) else {
            new.prev.set(link);
            new.next.set(link);
            return self.0.set(link);
        };
        let last = first.prev.replace(link);
        new.prev.set(last);
        new.next.set(first);
        // SAFETY: a member is alive.
        unsafe { (*last).next.set(link) };
    }

    /// Takes a member out.
    #[inline(always)]
    pub(crate) fn remove(&self, link: &Link) {
        if core::ptr::eq(self.0.get(), link) {
            let next = link.next.get();
            self.0.set(if core::ptr::eq(next, link) { null() } else { next });
        }
        link.unlink();
    }

    #[inline(always)]
    pub(crate) fn first(&self) -> Option<*const Link> {
        Some(self.0.get()).filter(|first| !first.is_null())
    }

    /// The member after `link`, which is in this ring.
    #[inline(always)]
    pub(crate) fn after(&self, link: *const Link) -> Option<*const Link> {
        // SAFETY: a member is alive.
        let next = unsafe { (*link).next.get() };
        if core::ptr::eq(next, self.0.get()) { None } else { Some(next) }
    }

    /// Takes the first member out.
    pub(crate) fn pop_front(&self) -> Option<*const Link> {
        let first = self.first()?;
        // SAFETY: a member is alive.
        self.remove(unsafe { &*first });
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(list: &List, links: &[Link]) -> Vec<usize> {
        let mut found = Vec::new();
        let mut at = list.first();
        while let Some(link) = at {
            found.push(links.iter().position(|l| core::ptr::eq(l, link)).unwrap());
            at = list.after(link);
        }
        found
    }

    #[test]
    fn members_keep_their_order_and_leave_from_anywhere() {
        let list = List::new();
        let links = [const { Link::new() }; 4];
        for link in &links {
            // SAFETY: the links outlive the list's use.
            unsafe { list.push_back(link) };
        }
        assert_eq!(order(&list, &links), [0, 1, 2, 3]);
        links[2].unlink();
        links[0].unlink();
        links[0].unlink();
        assert_eq!(order(&list, &links), [1, 3]);
        assert!(!links[2].is_linked() && links[3].is_linked());
        assert!(core::ptr::eq(list.pop_front().unwrap(), &links[1]));
        assert!(core::ptr::eq(list.pop_front().unwrap(), &links[3]));
        assert!(list.is_empty() && list.pop_front().is_none());
    }

    #[test]
    fn append_moves_everything_to_the_end() {
        let (a, b) = (List::new(), List::new());
        let links = [const { Link::new() }; 3];
        for (list, link) in [&a, &b, &b].into_iter().zip(&links) {
            // SAFETY: the links outlive the lists' use.
            unsafe { list.push_back(link) };
        }
        a.append(&b);
        a.append(&b);
        assert!(b.is_empty());
        assert_eq!(order(&a, &links), [0, 1, 2]);
    }

    #[test]
    fn what_a_fork_interrupted_is_mended() {
        let list = List::new();
        let links = [const { Link::new() }; 4];
        for link in &links[..3] {
            // SAFETY: the links outlive the list's use.
            unsafe { list.push_back(link) };
        }
        // Half-way out: its neighbour behind does not know yet. Half-way in: the head does not.
        links[0].next.set(&links[2]);
        links[3].prev.set(&links[2]);
        links[3].next.set(&list.0);
        links[2].next.set(&links[3]);
        list.mend();
        assert_eq!(order(&list, &links), [0, 2, 3]);
        links[3].unlink();
        links[2].unlink();
        assert!(core::ptr::eq(list.0.prev.get(), &links[0]));
        links[0].unlink();
        assert!(list.is_empty());
        List::new().mend();
    }

    #[test]
    fn a_ring_keeps_its_order_whoever_is_taken_out() {
        let ring = Ring(Cell::new(null()));
        let links = [const { Link::new() }; 4];
        for out in 0..4 {
            for link in &links {
                // SAFETY: the links outlive the ring's use, and are taken out below.
                unsafe { ring.push_back(link) };
            }
            ring.remove(&links[out]);
            assert!(!links[out].is_linked());
            for (i, link) in links.iter().enumerate().filter(|&(i, _)| i != out) {
                assert!(
                    ring.pop_front().is_some_and(|first| core::ptr::eq(first, link)),
                    "{i} without {out}"
                );
            }
            assert!(ring.is_empty() && ring.pop_front().is_none());
        }
    }
}
