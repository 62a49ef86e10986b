//! The loop: descriptors, timers, and the waits of coroutines.
//!
//! | file | owns |
//! |---|---|
//! | wait | what a coroutine does to wait: begin, suspend, cancel, wake; poll |
//! | any | waits that a signal ends: for time, for any of many descriptors |
//! | interrupt | who is in such a wait |
//! | registration | which descriptors are in the loop's epoll, for whom |
//! | registrations | where those are found by number |
//! | descriptor | the process-wide table: a number's generation, record, and loops |
//! | wheel | timers |
//! | reactor | the loop itself |
//! | ahead | memory that it will touch soon |
//! | own_fds | a loop's own descriptors |
//! | rouse | spurious wakes, for shutdown and close |
//! | loops | all loops: how other threads reach one; fork |
//! | offload | jobs on helper threads |
//! | counts | what a loop counts |
//!
//! A wait: `wait::poll` puts a node at its descriptor (registration) and a timer in the wheel, then
//! yields. The loop (`reactor`) finds the node by the descriptor's number, moves the coroutine to the
//! ready list and, when all events of the round are collected, resumes it. Nothing is allocated.

mod ahead;
mod any;
mod counts;
mod descriptor;
mod interrupt;
mod loops;
mod offload;
mod own_fds;
mod reactor;
mod registration;
mod registrations;
mod rouse;
mod wait;
mod wheel;

pub(crate) use any::{Wanted, sleep, wait_for_any};
pub(crate) use counts::{LoopStats, loop_stats};
pub(crate) use descriptor::{
    Slot, each_used, is_open, is_ours, is_used, leave_loops, recorded, renew, slot, slot_or_new, take_record,
};
pub(crate) use loops::{after_fork, end_of_thread, fork_locks, kick};
pub(crate) use offload::{Job, Ran, run_job, set_helpers};
pub(crate) use reactor::{DOORS, Reactor, TICK, free_reactor, new_reactor, run, run_until};
pub(crate) use registration::{Node, Refused, node_at};
pub(crate) use rouse::{closed, rouse, rouse_soon};
pub(crate) use wait::{
    begin, begin_one, cancel, deadline_after, drop_left_nodes, end_one, first_descriptor, poll, poll_one,
    suspend, through_the_loop, wake,
};
#[cfg(any(test, fuzzing))]
pub(crate) use wheel::Wheel;
pub(crate) use wheel::{EXPIRES, NEVER, Timer};
