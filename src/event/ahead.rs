//! Memory that the loop will touch soon, asked for while it does something else: with many connections each wake would
//! otherwise wait for memory several times over.

use core::ffi::c_int;
use core::mem::{offset_of, size_of};

use crate::arch;
use crate::event::descriptor;
use crate::event::reactor::Reactor;
use crate::routine::coroutine::{Wait, WaitKind};
use crate::routine::{Co, Coroutine, copy};
use crate::util::list::{Link, List};

const NODE_IN_BLOCK: usize = offset_of!(Coroutine, wait) + offset_of!(Wait, node);
/// What a wait leaves on a stack, with the beginning of a buffer above it, in cache lines.
const STACK_LINES: usize = 8;

/// The event is dispatched in a while: asks for its registration.
#[inline(always)]
pub(super) fn registration(reactor: &Reactor, event: &libc::epoll_event) {
    if let Some(entry) = reactor.registrations.get(event.u64 as u32 as c_int) {
        arch::prefetch((&raw const *entry).cast());
    }
}

/// The event is dispatched soon: asks for who waits for it.
#[inline(always)]
pub(super) fn waiter(reactor: &Reactor, event: &libc::epoll_event) {
    if let Some(entry) = reactor.registrations.get(event.u64 as u32 as c_int) {
        // A node in a control block, most likely: all of that.
        let block = entry.first_link().cast::<u8>().wrapping_sub(NODE_IN_BLOCK);
        for line in 0..size_of::<Coroutine>().div_ceil(arch::CACHE_LINE) {
            arch::prefetch(block.wrapping_add(line * arch::CACHE_LINE));
        }
    }
}

/// While one of the batch is about to run: of the third after it the control block, then, with the block there, of the
/// second what belongs to its descriptor and the top of its stack, then of the first the rest of the stack that a wait
/// leaves behind.
#[inline(always)]
pub(super) fn batch(reactor: &Reactor, batch: &List) {
    let block = |link: *const Link| {
        // SAFETY: ready lists link timers of live control blocks.
        unsafe { Co::from_timer(link.cast()) }
    };
    let Some(first) = batch.first() else { return };
    let co = block(first);
    match co.on_copy_stack() {
        true => copy::prefetch_bytes(co),
        false => arch::prefetch_lines(co.picture(), STACK_LINES),
    }
    if co.wait.kind() == WaitKind::Descriptor {
        // The hooks will look at what they know of it.
        arch::prefetch(descriptor::recorded(co.wait.node.fd()).cast_const().cast());
    }
    let Some(second) = batch.after(first) else { return };
    let co = block(second);
    arch::prefetch(co.picture());
    if co.on_copy_stack() {
        copy::prefetch_occupant(co);
    }
    if co.wait.kind() == WaitKind::Descriptor {
        entry(reactor, co.wait.node.fd());
    }
    let Some(third) = batch.after(second) else { return };
    block(third).prefetch();
}

/// A waiter at `fd` runs soon: it will register again.
#[inline(always)]
fn entry(reactor: &Reactor, fd: c_int) {
    if let Some(entry) = reactor.registrations.get(fd) {
        arch::prefetch((&raw const *entry).cast());
    }
    if let Some(slot) = descriptor::slot(fd) {
        arch::prefetch((&raw const *slot).cast());
    }
}
