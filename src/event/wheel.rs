//! Timers: a hierarchical timing wheel of 1 ms ticks, O(1) to set and to cancel.
//!
//! ```text
//!   level 0: 4096 slots of 1 tick     level 1: 64 slots of 4096 ticks    ... level 4: 2^36 ticks in all
//! ```
//!
//! A timer lies in the lowest level whose slots can tell its tick from now; when the wheel reaches the
//! start of a higher slot, its timers move down. Moving costs a cache miss a timer, so level 0 is wide:
//! the usual time-outs, up to four seconds, never move. Bitmaps say which slots may have timers, so the
//! next due tick is found without walking.
//!
//! ```text
//!   slot: three rings, filled and emptied in turn     ring 0: t0 ─ t3 ─ t6    ring 1: t1 ─ t4    ring 2: t2 ─ t5
//! ```
//!
//! Where a timer lies is only known from the one before it, which is not in the cache either. With three
//! rings, walked from both ends, six of them are on their way at once. Timers of one tick fire in the order
//! they were set, but for gaps that cancelled ones leave; one that was set from far away fires after those.
//!
//! A new timer waits in `fresh` until the wheel is next asked: then all new ones are put in their slots together. To
//! put one in takes its slot and the slot's last timer, neither in the cache; together they are on their
//! way at once. Those that are cancelled before never get there.

use core::array::from_fn;
use core::cell::Cell;
use core::mem::size_of;
use core::ptr::null;

use crate::arch;
use crate::sys::heap::Zeroed;
use crate::util::count::Count;
use crate::util::list::{Link, List};

const BITS0: u32 = 12;
const SLOTS0: usize = 1 << BITS0;
const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 4;

const _: () = assert!(SLOTS0 / 64 == 64, "the summary is one word");

/// One timer, inside the object it belongs to.
#[repr(C)]
pub(crate) struct Timer {
    pub(crate) link: Link,
    expires: Cell<u64>,
}

/// The most timers that are asked for ahead along each way: what the second-level cache has room for.
const WARM: usize = 256;

/// How many cache lines behind a timer are touched when it fires.
const NEAR: usize = 3;

/// New timers that are put in their slots together.
const TOGETHER: usize = 16;

/// Stands for "not set" in `expires`.
pub(crate) const NEVER: u64 = u64::MAX;

/// Where a timer has its tick.
pub(crate) const EXPIRES: usize = core::mem::offset_of!(Timer, expires);

impl Timer {
    /// The tick it was last set for, if it was.
    pub(crate) fn expires(&self) -> Option<u64> {
        Some(self.expires.get()).filter(|&tick| tick != NEVER)
    }

    /// Not to be set this time.
    pub(crate) fn unset(&self) {
        self.expires.set(NEVER);
    }
}

const RINGS: usize = 3;

/// The timers of one slot.
#[repr(C, align(64))]
struct Slot {
    rings: [List; RINGS],
    /// The ring whose turn it is to get a timer, and to give one.
    fill: Cell<u32>,
    empty: Cell<u32>,
}

const _: () = assert!(size_of::<Slot>() == 64, "one cache line");

impl Slot {
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.rings.iter().all(List::is_empty)
    }

    /// # Safety
    /// As [`List::push_back`].
    #[inline(always)]
    unsafe fn push_back(&self, link: *const Link) {
        if self.is_empty() {
            self.fill.set(0);
            self.empty.set(0);
        }
        let turn = self.fill.get() as usize;
        self.fill.set(if turn + 1 < RINGS { turn as u32 + 1 } else { 0 });
        // SAFETY: as the caller vouches.
        unsafe { self.rings[turn].push_back(link) };
    }

    /// Asks for the memory of the one that the next comes behind.
    #[inline(always)]
    fn warm_last(&self) {
        let turn = if self.is_empty() { 0 } else { self.fill.get() as usize };
        if let Some(last) = self.rings[turn].last() {
            arch::prefetch(last.cast());
        }
    }

    /// The first one.
    #[inline]
    fn pop_front(&self) -> Option<*const Link> {
        for _ in 0..RINGS {
            let turn = self.empty.get() as usize;
            self.empty.set(if turn + 1 < RINGS { turn as u32 + 1 } else { 0 });
            if let Some(link) = self.rings[turn].pop_front() {
                return Some(link);
            }
        }
        None
    }

    /// Asks for the memory of the timers, [`WARM`] at most from each end of each ring.
    fn warm(&self) {
        let mut ahead = from_fn::<_, RINGS, _>(|ring| self.rings[ring].first());
        let mut behind = from_fn::<_, RINGS, _>(|ring| self.rings[ring].last());
        for _ in 0..WARM {
            let mut open = false;
            for ring in 0..RINGS {
                if let (Some(first), Some(last)) = (ahead[ring], behind[ring]) {
                    for line in 1..=NEAR {
                        arch::prefetch(first.cast::<u8>().wrapping_add(line * 64));
                        arch::prefetch(last.cast::<u8>().wrapping_add(line * 64));
                    }
                    ahead[ring] = if first == last { None } else { self.rings[ring].after(first) };
                    behind[ring] =
                        if ahead[ring] == Some(last) { None } else { self.rings[ring].before(last) };
                    open = true;
                }
            }
            if !open {
                return;
            }
        }
    }

    fn append_to(&self, all: &List) {
        for ring in &self.rings {
            all.append(ring);
        }
    }
}

/// All-zero bytes are an empty wheel that has not started.
#[repr(C)]
pub(crate) struct Wheel {
    /// Every timer due at or before this tick has fired.
    now: Cell<u64>,
    count: Count,
    /// Set, and in no slot yet.
    fresh: List,
    bitmap0: [Cell<u64>; SLOTS0 / 64],
    /// Which words of `bitmap0` are not zero.
    summary0: Cell<u64>,
    bitmap: [Cell<u64>; LEVELS],
    slots0: [Slot; SLOTS0],
    slots: [[Slot; SLOTS]; LEVELS],
}

// SAFETY: empty lists and zeros.
unsafe impl Zeroed for Wheel {}

/// How far a level's slot number is from the lowest bit of a tick.
fn shift(level: usize) -> u32 {
    BITS0 + BITS * level as u32
}

impl Wheel {
    /// Sets `timer` to fire at tick `expires`.
    ///
    /// # Safety
    /// It is not set, and stays where it is until it fires or is unlinked.
    pub(crate) unsafe fn set(&self, timer: &Timer, expires: u64, now: u64) {
        if self.count.get() == 0 {
            // Nothing to fire in between: catch up at once.
            self.now.set(self.now.get().max(now));
        }
        self.count.bump();
        timer.expires.set(expires.max(self.now.get() + 1));
        // SAFETY: as the caller vouches.
        unsafe { self.fresh.push_back(&timer.link) };
    }

    /// Takes a set timer out. (A fired one is out already: do not call it for those.)
    pub(crate) fn cancel(&self, timer: &Timer) {
        timer.link.unlink();
        self.count.sub(1);
    }

    /// How many timers are set, for any thread.
    pub(super) fn timers(&self) -> u64 {
        self.count.get()
    }

    /// Puts the new timers in their slots.
    #[inline]
    fn settle(&self) {
        while !self.fresh.is_empty() {
            self.settle_some();
        }
    }

    #[inline(never)]
    fn settle_some(&self) {
        let mut taken = [(null::<Timer>(), null::<Slot>()); TOGETHER];
        let mut count = 0;
        while count < TOGETHER
            && let Some(link) = self.fresh.pop_front()
        {
            // SAFETY: a timer's first member is its link, and a set timer is alive.
            let timer = unsafe { &*link.cast::<Timer>() };
            let slot = self.slot_for(timer);
            arch::prefetch((&raw const *slot).cast());
            taken[count] = (timer, slot);
            count += 1;
        }
        for (_, slot) in &taken[..count] {
            // SAFETY: one of the wheel's slots, from `slot_for`.
            unsafe { (**slot).warm_last() };
        }
        for (timer, slot) in &taken[..count] {
            // SAFETY: a set timer, taken out of `fresh` above.
            let link = unsafe { &(**timer).link };
            // SAFETY: one of the wheel's slots, from `slot_for`.
            let slot = unsafe { &**slot };
            // SAFETY: in no ring; it stays where it is until it fires or is cancelled.
            unsafe { slot.push_back(link) };
        }
    }

    /// The slot where a timer belongs, marked as one that has timers.
    fn slot_for(&self, timer: &Timer) -> &Slot {
        // (The wheel may have moved on since it was set.)
        let expires = timer.expires.get().max(self.now.get() + 1);
        let ahead = expires - self.now.get();
        if ahead < SLOTS0 as u64 {
            let slot = (expires as usize) % SLOTS0;
            self.bitmap0[slot / 64].update(|bits| bits | 1 << (slot % 64));
            self.summary0.update(|words| words | 1 << (slot / 64));
            return &self.slots0[slot];
        }
        let mut level = 0;
        while level + 1 < LEVELS && ahead >= 1 << (shift(level) + BITS) {
            level += 1;
        }
        // Beyond the last level (50 days): as far as it goes; it is placed anew from there.
        let furthest = self.now.get() + (1 << (shift(LEVELS - 1) + BITS)) - 1;
        let slot = (expires.min(furthest) >> shift(level)) as usize % SLOTS;
        self.bitmap[level].update(|bits| bits | 1 << slot);
        &self.slots[level][slot]
    }

    /// The next tick at which something has to be done, `None` with no timer set.
    pub(crate) fn next(&self) -> Option<u64> {
        if self.count.get() == 0 {
            return None;
        }
        self.settle();
        let mut next = self.next_in_level0();
        for level in 0..LEVELS {
            if let Some(tick) = self.next_in(level) {
                next = Some(next.map_or(tick, |n| n.min(tick)));
            }
        }
        next
    }

    fn next_in_level0(&self) -> Option<u64> {
        let now = self.now.get();
        let first = (now + 1) as usize % SLOTS0;
        loop {
            let slot = self.first_marked0(first)?;
            if !self.slots0[slot].is_empty() {
                return Some(now + 1 + ((slot + SLOTS0 - first) % SLOTS0) as u64);
            }
            // Its timers were cancelled: the mark is corrected when somebody looks.
            self.unmark0(slot);
        }
    }

    /// The first marked slot of level 0 from `first` on, going round.
    fn first_marked0(&self, first: usize) -> Option<usize> {
        let (word, bit) = (first / 64, first % 64);
        let here = self.bitmap0[word].get() >> bit;
        if here != 0 {
            return Some(first + here.trailing_zeros() as usize);
        }
        // The words behind it in turn; what is left of the first one comes last.
        let others = self.summary0.get().rotate_right(word as u32 + 1);
        if others == 0 {
            return None;
        }
        let word = (word + 1 + others.trailing_zeros() as usize) % (SLOTS0 / 64);
        Some(word * 64 + self.bitmap0[word].get().trailing_zeros() as usize)
    }

    fn unmark0(&self, slot: usize) {
        let word = &self.bitmap0[slot / 64];
        word.update(|bits| bits & !(1 << (slot % 64)));
        if word.get() == 0 {
            self.summary0.update(|words| words & !(1 << (slot / 64)));
        }
    }

    /// The start of the level's next slot with timers.
    fn next_in(&self, level: usize) -> Option<u64> {
        let base = self.now.get() >> shift(level);
        let first = (base + 1) as usize % SLOTS;
        loop {
            let bits = self.bitmap[level].get().rotate_right(first as u32);
            if bits == 0 {
                return None;
            }
            let ahead = u64::from(bits.trailing_zeros());
            let slot = (first + ahead as usize) % SLOTS;
            if !self.slots[level][slot].is_empty() {
                return Some((base + 1 + ahead) << shift(level));
            }
            self.bitmap[level].update(|bits| bits & !(1 << slot));
        }
    }

    /// Moves on to tick `to` and hands every timer that is due to `fire`, in order of ticks. A fired
    /// timer is out of the wheel.
    pub(crate) fn advance(&self, to: u64, mut fire: impl FnMut(*const Timer)) {
        while let Some(tick) = self.next() {
            if tick > to {
                break;
            }
            self.now.set(tick);
            for level in (0..LEVELS).rev() {
                if tick & ((1 << shift(level)) - 1) == 0 {
                    self.move_down(level, (tick >> shift(level)) as usize % SLOTS);
                }
            }
            let slot = tick as usize % SLOTS0;
            self.unmark0(slot);
            self.slots0[slot].warm();
            while let Some(link) = self.slots0[slot].pop_front() {
                self.count.sub(1);
                // A timer's first member is its link.
                fire(link.cast());
            }
        }
        self.now.set(self.now.get().max(to));
    }

    fn move_down(&self, level: usize, slot: usize) {
        self.bitmap[level].update(|bits| bits & !(1 << slot));
        let due = self.now.get() as usize % SLOTS0;
        let timers = &self.slots[level][slot];
        while let Some(link) = timers.pop_front() {
            // SAFETY: a timer's first member is its link, and a set timer is alive.
            let timer = unsafe { &*link.cast::<Timer>() };
            if timer.expires.get() <= self.now.get() {
                // Due now: it belongs to the slot that fires next.
                // SAFETY: just taken out; alive as before.
                unsafe { self.slots0[due].push_back(&timer.link) };
            } else {
                // SAFETY: as above.
                unsafe { self.slot_for(timer).push_back(&timer.link) };
            }
        }
    }

    /// Takes all timers out.
    pub(crate) fn clear(&self, mut each: impl FnMut(*const Timer)) {
        let all = List::new();
        all.append(&self.fresh);
        for slot in &self.slots0 {
            slot.append_to(&all);
        }
        for slot in self.slots.iter().flatten() {
            slot.append_to(&all);
        }
        self.count.set(0);
        while let Some(link) = all.pop_front() {
            each(link.cast());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn wheel() -> Box<Wheel> {
        // SAFETY: all-zero bytes are an empty wheel.
        unsafe { Box::new(core::mem::zeroed()) }
    }

    fn timers(count: usize) -> Vec<Timer> {
        (0..count).map(|_| Timer { link: Link::new(), expires: Cell::new(0) }).collect()
    }

    /// Every timer fires at its own tick, however the wheel is moved, against a sorted map.
    #[test]
    fn timers_fire_at_their_tick_for_any_pattern_of_steps() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for round in 0..20 {
            let wheel = wheel();
            let pool = timers(500);
            let mut model: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            let mut now = random() % 5_000_000_000;
            for (i, timer) in pool.iter().enumerate() {
                let far = [300, 20_000, 2_000_000, 5_000_000_000][random() as usize % 4];
                let expires = now + 1 + random() % far;
                // SAFETY: the pool outlives the wheel's use.
                unsafe { wheel.set(timer, expires, now) };
                model.entry(expires).or_default().push(i);
                if random() % 5 == 0 {
                    wheel.cancel(timer);
                    model.get_mut(&expires).unwrap().pop();
                }
                if random() % 3 == 0 {
                    now += random() % 400;
                    let mut fired = Vec::new();
                    wheel.advance(now, |t| fired.push(t));
                    let due: Vec<_> = model.range(..=now).flat_map(|(_, v)| v.clone()).collect();
                    model = model.split_off(&(now + 1));
                    let mut fired: Vec<_> = fired
                        .into_iter()
                        .map(|t| pool.iter().position(|p| core::ptr::eq(p, t)).unwrap())
                        .collect();
                    fired.sort_unstable();
                    let mut due = due;
                    due.sort_unstable();
                    assert_eq!(fired, due, "round {round}");
                }
            }
            let mut last = 0;
            let end = now + 6_000_000_000;
            while let Some(next) = wheel.next() {
                assert!(next <= end);
                wheel.advance(next, |t| {
                    // SAFETY: one of the pool.
                    let expires = unsafe { (*t).expires.get() };
                    assert_eq!(expires, next);
                    assert!(expires >= last);
                    last = expires;
                    let same = model.get_mut(&expires).unwrap();
                    assert!(!same.is_empty());
                    same.pop();
                });
            }
            assert!(model.values().all(Vec::is_empty));
        }
    }
}
