//! The timing wheel against a sorted map: every timer fires once, at its own tick, never early, in order of ticks;
//! also those that are set or cancelled while others fire, and across jumps of the clock.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::bytes::Bytes;
use crate::event::{Timer, Wheel};

const TIMERS: usize = 24;
/// Ticks below this are told apart by level 0.
const NEAR: u64 = 4096;

struct Model {
    /// Which timers are due at a tick, in the order they were set.
    due: BTreeMap<u64, Vec<usize>>,
    at: [Option<u64>; TIMERS],
    /// What the wheel has fired up to.
    now: u64,
    /// Nothing was cancelled or far away so far: then timers of one tick fire in the order they were set.
    in_order: bool,
}

impl Model {
    fn count(&self) -> usize {
        self.at.iter().flatten().count()
    }

    fn remove(&mut self, timer: usize) -> u64 {
        let tick = self.at[timer].take().expect("the timer is set");
        let same = self.due.get_mut(&tick).expect("its tick has timers");
        same.retain(|&other| other != timer);
        if same.is_empty() {
            self.due.remove(&tick);
        }
        tick
    }
}

struct Game<'a> {
    wheel: &'a Wheel,
    timers: &'a [Timer],
    model: RefCell<Model>,
    bytes: RefCell<Bytes<'a>>,
}

/// A distance in ticks: at the edges of the wheel's levels as often as anywhere.
fn distance(bytes: &mut Bytes) -> u64 {
    match bytes.below(8) {
        0 => bytes.number(1) % 4,
        1 => bytes.number(1),
        2 => bytes.number(2),
        3 => NEAR - 2 + bytes.number(1) % 5,
        4 => (1 << (12 + 6 * (1 + bytes.below(4)))) - 2 + bytes.number(1) % 5,
        5 => bytes.number(3),
        6 => bytes.number(5),
        _ => bytes.number(6),
    }
}

impl Game<'_> {
    fn set(&self, index: usize, clock: u64) {
        let mut model = self.model.borrow_mut();
        if model.at[index].is_some() {
            return;
        }
        let wanted = clock + distance(&mut self.bytes.borrow_mut());
        if model.count() == 0 {
            model.now = model.now.max(clock);
        }
        // SAFETY: not set, and the timers outlive the wheel.
        unsafe { self.wheel.set(&self.timers[index], wanted, clock) };
        let tick = wanted.max(model.now + 1);
        assert_eq!(self.timers[index].expires(), Some(tick));
        model.in_order &= tick - model.now < NEAR;
        model.at[index] = Some(tick);
        model.due.entry(tick).or_default().push(index);
    }

    fn cancel(&self, index: usize) {
        let mut model = self.model.borrow_mut();
        if model.at[index].is_some() {
            self.wheel.cancel(&self.timers[index]);
            model.remove(index);
            model.in_order = false;
        }
    }

    fn index_of(&self, timer: *const Timer) -> usize {
        self.timers.iter().position(|own| core::ptr::eq(own, timer)).expect("a timer of ours")
    }

    /// A timer of the wheel's fires on the way to `to`.
    fn fired(&self, timer: *const Timer, to: u64) {
        let index = self.index_of(timer);
        {
            let mut model = self.model.borrow_mut();
            let (&first, same) = model.due.first_key_value().expect("a timer that is not set fires");
            let oldest = same[0];
            let tick = model.at[index].expect("a timer that is not set fires");
            assert_eq!(tick, first, "timers fire in order of ticks");
            assert!(tick <= to, "timer {index} fires early: set for {tick}, now {to}");
            assert!(!model.in_order || index == oldest, "timers of one tick fire as they were set");
            model.now = tick;
            model.remove(index);
        }
        self.inside(index, to);
    }

    /// What a callback may do: set its own timer anew, another one, or cancel one.
    fn inside(&self, index: usize, to: u64) {
        let action = self.bytes.borrow_mut().below(8);
        let other = if (5..8).contains(&action) { self.bytes.borrow_mut().below(TIMERS) } else { index };
        match action {
            4..=6 => self.set(other, to),
            7 => self.cancel(other),
            _ => {}
        }
    }

    fn check_next(&self) {
        let model = self.model.borrow();
        let next = self.wheel.next();
        match model.due.keys().next() {
            None => assert_eq!(next, None),
            Some(&first) => {
                let next = next.expect("timers are set");
                assert!(next > model.now && next <= first, "asked to be woken at {next}, due at {first}");
            }
        }
    }

    fn advance(&self, to: u64) {
        self.wheel.advance(to, |timer| self.fired(timer, to));
        let mut model = self.model.borrow_mut();
        let late = model.due.range(..=to).next();
        assert!(late.is_none(), "due and not fired: {late:?}, now {to}");
        model.now = model.now.max(to);
    }

    fn clear(&self) {
        let mut taken = BTreeSet::new();
        self.wheel.clear(|timer| assert!(taken.insert(self.index_of(timer)), "taken out twice"));
        let mut model = self.model.borrow_mut();
        let set: BTreeSet<_> = (0..TIMERS).filter(|&index| model.at[index].is_some()).collect();
        assert_eq!(taken, set);
        model.at = [None; TIMERS];
        model.due.clear();
    }
}

pub(super) fn play(data: &[u8]) {
    // SAFETY: all-zero bytes are an empty wheel.
    let wheel: Box<Wheel> = Box::new(unsafe { core::mem::zeroed() });
    // SAFETY: all-zero bytes are a timer in no ring.
    let timers: [Timer; TIMERS] = unsafe { core::mem::zeroed() };
    let mut bytes = Bytes::new(data);
    let mut clock = distance(&mut bytes);
    let model = Model { due: BTreeMap::new(), at: [None; TIMERS], now: 0, in_order: true };
    let game =
        Game { wheel: &wheel, timers: &timers, model: RefCell::new(model), bytes: RefCell::new(bytes) };
    while !game.bytes.borrow().is_empty() {
        let (action, index) = {
            let mut bytes = game.bytes.borrow_mut();
            (bytes.below(16), bytes.below(TIMERS))
        };
        match action {
            0..=5 => game.set(index, clock),
            6 | 7 => game.cancel(index),
            8 => game.check_next(),
            9 => {
                // The clock goes on and the loop has not looked yet.
                clock += distance(&mut game.bytes.borrow_mut());
            }
            10 => {
                if let Some(next) = game.wheel.next() {
                    clock = clock.max(next);
                    game.advance(clock);
                }
            }
            11 if index == 0 => game.clear(),
            _ => {
                clock += distance(&mut game.bytes.borrow_mut());
                game.advance(clock);
            }
        }
    }
    // Whatever is left fires at its tick.
    while let Some(next) = game.wheel.next() {
        game.check_next();
        clock = clock.max(next);
        game.advance(clock);
        if game.model.borrow().count() > 0 {
            assert!(game.model.borrow().now < 1 << 56, "the wheel never comes to an end");
        }
    }
    assert_eq!(game.model.borrow().count(), 0);
}
