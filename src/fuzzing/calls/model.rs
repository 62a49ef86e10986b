//! What must happen: who runs, who waits for what, and what each sees when it runs again.

use std::collections::VecDeque;

/// The thread's main coroutine, among the numbers of the others.
pub(super) const MAIN: usize = usize::MAX;
pub(super) const SLOTS: usize = 8;
pub(super) const CONDS: usize = 3;
pub(super) const PIPES: usize = 2;
pub(super) const KEYS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    New,
    Suspended,
    Running,
    Ended,
    /// Released; its number is not used again.
    Gone,
}

/// What a coroutine sees when it gets to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    Start,
    BackFromYield,
    /// What co_cond_wait returned.
    BackFromWait(i32),
    /// What co_poll returned.
    BackFromPoll(i32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum On {
    Cond(usize),
    /// The condition was freed meanwhile.
    FreedCond,
    Pipe(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    NotYet,
    Woken,
    TimedOut,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    on: On,
    deadline: Option<u64>,
    end: End,
}

impl Wait {
    fn seen(&self) -> Seen {
        match (self.on, self.end) {
            (On::Pipe(_), end) => Seen::BackFromPoll(i32::from(end == End::Woken)),
            (_, End::Woken) => Seen::BackFromWait(0),
            (On::Cond(_), End::TimedOut) => Seen::BackFromWait(libc::ETIMEDOUT),
            // Freed, or resumed by hand.
            _ => Seen::BackFromWait(libc::ECANCELED),
        }
    }
}

struct Routine {
    state: State,
    wait: Option<Wait>,
    resumer: usize,
    /// Released while it ran: it goes when it yields or ends.
    doomed: bool,
    /// Reset while it ran: it starts anew after its end.
    reset: bool,
    in_loop: bool,
    seen: Seen,
    specifics: [usize; KEYS],
}

/// Woken: those of one group in any order.
struct Woken {
    group: u64,
    who: usize,
}

pub(super) struct Model {
    pub(super) current: usize,
    pub(super) clock: u64,
    pub(super) readable: [bool; PIPES],
    pub(super) slots: [Option<usize>; SLOTS],
    routines: Vec<Routine>,
    main_in_loop: bool,
    queues: [VecDeque<usize>; CONDS],
    ready: VecDeque<Woken>,
    batch: VecDeque<Woken>,
    groups: u64,
}

impl Model {
    pub(super) fn new(clock: u64) -> Self {
        Model {
            current: MAIN,
            clock,
            readable: [false; PIPES],
            slots: [None; SLOTS],
            routines: Vec::new(),
            main_in_loop: false,
            queues: Default::default(),
            ready: VecDeque::new(),
            batch: VecDeque::new(),
            groups: 0,
        }
    }

    pub(super) fn create(&mut self, slot: usize) -> usize {
        self.routines.push(Routine {
            state: State::New,
            wait: None,
            resumer: MAIN,
            doomed: false,
            reset: false,
            in_loop: false,
            seen: Seen::Start,
            specifics: [0; KEYS],
        });
        let who = self.routines.len() - 1;
        self.slots[slot] = Some(who);
        who
    }

    /// `who` is about to run, resumed by the one that runs now.
    fn enter(&mut self, who: usize) {
        let resumer = self.current;
        let routine = &mut self.routines[who];
        routine.seen = match (routine.state, routine.wait) {
            (State::New, _) => {
                (routine.reset, routine.in_loop) = (false, false);
                Seen::Start
            }
            (_, None) => Seen::BackFromYield,
            (_, Some(wait)) => wait.seen(),
        };
        (routine.state, routine.resumer) = (State::Running, resumer);
        self.end_wait(who);
        self.current = who;
    }

    /// co_resume by the one that runs now.
    pub(super) fn resume(&mut self, who: usize) {
        if matches!(self.routines[who].state, State::New | State::Suspended) {
            self.enter(who);
        }
    }

    /// Takes it out of all queues.
    fn end_wait(&mut self, who: usize) {
        self.routines[who].wait = None;
        self.queues.iter_mut().for_each(|queue| queue.retain(|&waiter| waiter != who));
        self.ready.retain(|woken| woken.who != who);
        self.batch.retain(|woken| woken.who != who);
    }

    fn set_gone(&mut self, who: usize) {
        self.end_wait(who);
        self.routines[who].state = State::Gone;
    }

    /// The running coroutine yields.
    pub(super) fn suspend(&mut self) {
        let who = self.current;
        self.current = self.routines[who].resumer;
        self.routines[who].state = State::Suspended;
        if self.routines[who].doomed {
            self.set_gone(who);
        }
    }

    /// The running coroutine yields until `on` comes up or it is `deadline`.
    pub(super) fn wait(&mut self, on: On, deadline: Option<u64>) {
        let who = self.current;
        self.routines[who].wait = Some(Wait { on, deadline, end: End::NotYet });
        if let On::Cond(cond) = on {
            self.queues[cond].push_back(who);
        }
        self.suspend();
    }

    /// The running coroutine's routine returns.
    pub(super) fn end(&mut self) {
        let who = self.current;
        let routine = &mut self.routines[who];
        self.current = routine.resumer;
        routine.state = if core::mem::take(&mut routine.reset) { State::New } else { State::Ended };
        if routine.doomed {
            self.set_gone(who);
        }
    }

    pub(super) fn release(&mut self, slot: usize) {
        let Some(who) = self.slots[slot].take() else { return };
        match self.routines[who].state {
            State::Running => self.routines[who].doomed = true,
            _ => self.set_gone(who),
        }
    }

    pub(super) fn reset(&mut self, who: usize) {
        match self.routines[who].state {
            State::New | State::Gone => {}
            State::Running => self.routines[who].reset = true,
            State::Suspended | State::Ended => {
                self.end_wait(who);
                self.routines[who].state = State::New;
            }
        }
    }

    pub(super) fn signal(&mut self, cond: usize, all: bool) {
        while let Some(who) = self.queues[cond].pop_front() {
            self.wake(who, End::Woken);
            if !all {
                return;
            }
            self.groups += 1;
        }
    }

    pub(super) fn free_cond(&mut self, cond: usize) {
        for who in self.queues[cond].drain(..) {
            let wait = self.routines[who].wait.as_mut().expect("it waits");
            wait.on = On::FreedCond;
        }
    }

    fn wake(&mut self, who: usize, end: End) {
        let wait = self.routines[who].wait.as_mut().expect("it waits");
        assert_eq!(wait.end, End::NotYet);
        wait.end = end;
        if end == End::TimedOut
            && let On::Cond(cond) = wait.on
        {
            self.queues[cond].retain(|&waiter| waiter != who);
        }
        self.ready.push_back(Woken { group: self.groups, who });
    }

    fn waiters(&self, which: impl Fn(&Wait) -> bool) -> Vec<usize> {
        let waits = |who: &usize| {
            self.routines[*who].wait.is_some_and(|wait| wait.end == End::NotYet && which(&wait))
        };
        (0..self.routines.len()).filter(waits).collect()
    }

    /// Whether somebody waits until this tick.
    pub(super) fn is_deadline(&self, tick: u64) -> bool {
        self.routines.iter().any(|routine| routine.wait.is_some_and(|wait| wait.deadline == Some(tick)))
    }

    /// The loop looks at descriptors, then at the time, then begins to resume who is ready.
    pub(super) fn begin_round(&mut self) {
        *self.in_loop() = true;
        self.groups += 1;
        let readable = self.readable;
        for who in self.waiters(|wait| matches!(wait.on, On::Pipe(pipe) if readable[pipe])) {
            self.wake(who, End::Woken);
        }
        let clock = self.clock;
        let mut due = self.waiters(|wait| wait.deadline.is_some_and(|tick| tick <= clock));
        due.sort_by_key(|&who| self.routines[who].wait.and_then(|wait| wait.deadline));
        for who in due {
            self.groups += 1;
            self.wake(who, End::TimedOut);
        }
        self.groups += 1;
        self.batch.append(&mut self.ready);
    }

    /// The loop calls its callback, or returns.
    pub(super) fn end_round(&mut self, runner: usize) {
        assert_eq!(self.current, runner, "the loop runs on another coroutine");
        assert!(self.batch.is_empty(), "somebody woken was not resumed");
        *self.in_loop() = false;
    }

    fn in_loop(&mut self) -> &mut bool {
        match self.current {
            MAIN => &mut self.main_in_loop,
            who => &mut self.routines[who].in_loop,
        }
    }

    /// `who` runs: whether it is its turn, and it sees what it must.
    pub(super) fn got_to_run(&mut self, who: usize, seen: Seen) {
        if self.current != who {
            assert!(*self.in_loop(), "{who} runs in place of {}", self.current);
            let first = self.batch.front().expect("the loop resumes somebody who was not woken").group;
            let turn = self.batch.iter().any(|woken| woken.group == first && woken.who == who);
            assert!(turn, "{who} was resumed before its turn");
            self.enter(who);
        }
        assert_eq!(self.routines[who].state, State::Running);
        assert_eq!(seen, self.routines[who].seen, "coroutine {who}");
    }

    pub(super) fn specific(&mut self, key: usize) -> &mut usize {
        let who = self.current;
        &mut self.routines[who].specifics[key]
    }

    /// cStart and cEnd.
    pub(super) fn marks(&self, who: usize) -> (i8, i8) {
        match self.routines[who].state {
            State::New => (0, 0),
            State::Ended => (1, 1),
            _ => (1, 0),
        }
    }
}
