//! Copy stacks: many coroutines take turns on one stack; a turn ends by moving the live bytes away.
//!
//! ```text
//!                stack_buffer                       sp                 stack_bp
//!   stack        │ guard below │ ......... dead ....│■■■ live bytes ■■■│
//!                                                   └──► save_buffer of the coroutine that leaves
//! ```
//!
//! `occupy_co` of the stack says whose bytes lie there. They stay until another coroutine needs the
//! stack, so a coroutine that runs alone is never copied. Invariant: a suspended, started coroutine is
//! either its stack's occupant or has its live bytes in `save_buffer`.
//!
//! A stack is one thread's at a time: from the first coroutine that starts on it (`claim`) until the last one that
//! did has ended and left it, or was released (`leave_stack`). Other threads' are refused meanwhile.

use core::cell::Cell;
use core::ffi::c_int;
use core::mem::offset_of;
use core::ptr::{NonNull, null, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::arch;
use crate::routine::coroutine::{Co, Coroutine, DEFAULT_STACK, LARGEST_STACK};
use crate::routine::env::Env;
use crate::routine::stack::{self, StackMem};
use crate::routine::watched::area_of;
use crate::sys::errno::Errno;
use crate::sys::heap::{self, Zeroed};
use crate::sys::log::error;
use crate::sys::pages;
use crate::sys::tools::{self, Area};
use crate::util::{pool, size_class};

/// A group of copy stacks, as C sees it (stShareStack_t).
#[repr(C)]
pub(crate) struct ShareStack {
    pub(crate) alloc_idx: AtomicU32,
    pub(crate) stack_size: Cell<c_int>,
    pub(crate) count: Cell<c_int>,
    pub(crate) stack_array: Cell<*mut *const StackMem>,
}

/// A copy stack: what C sees of it, and whose it is.
#[repr(C)]
struct CopyStack {
    stack: StackMem,
    /// The environment of those that use it; null: anybody may begin.
    owner: AtomicPtr<Env>,
    /// How many started on it, and have neither left it since nor been released.
    users: AtomicU32,
}

// SAFETY: null pointers and zeros.
unsafe impl Zeroed for CopyStack {}
const _: () = assert!(offset_of!(CopyStack, stack) == 0);

// SAFETY: zeros and a null pointer; filled before use.
unsafe impl Zeroed for ShareStack {}
// SAFETY: a null pointer.
unsafe impl Zeroed for *const StackMem {}

/// `count` stacks of `size` bytes (rounded up to pages). They stay for the life of the process.
pub(crate) fn new_group(count: c_int, size: c_int) -> Result<NonNull<ShareStack>, Errno> {
    let no_memory = Errno(libc::ENOMEM);
    let (Ok(stacks), Ok(bytes)) = (usize::try_from(count), usize::try_from(size)) else {
        return Err(Errno(libc::EINVAL));
    };
    if stacks == 0 || bytes == 0 {
        return Err(Errno(libc::EINVAL));
    }
    let bytes = bytes.checked_next_multiple_of(pages::size()).filter(|&b| c_int::try_from(b).is_ok());
    let bytes = bytes.ok_or(no_memory)?;
    let group = heap::alloc::<ShareStack>().ok_or(no_memory)?;
    let Some((array, records)) = alloc_records(stacks) else {
        // SAFETY: just made.
        unsafe { heap::free(group) };
        return Err(no_memory);
    };
    // SAFETY: `alloc_records` made `stacks` zeroed records.
    let all = unsafe { core::slice::from_raw_parts(records.as_ptr(), stacks) };
    let mut mapped = 0;
    for (i, record) in all.iter().enumerate() {
        let Some(more) = stack::alone(bytes, &record.stack) else {
            pages::give_back_mapped(mapped);
            for made in &all[..i] {
                // SAFETY: made in this loop, used by nobody.
                unsafe { stack::free_alone(&made.stack) };
            }
            // SAFETY: from `alloc_records`; `all` is used no more.
            unsafe { heap::free(records) };
            // SAFETY: from `alloc_records`; no group has it yet.
            unsafe { heap::free(array) };
            // SAFETY: made above, seen by nobody.
            unsafe { heap::free(group) };
            return Err(no_memory);
        };
        mapped += more;
        // SAFETY: `stacks` pointers.
        unsafe { array.as_ptr().wrapping_add(i).write((&raw const *record).cast()) };
    }
    // SAFETY: just made.
    let made = unsafe { group.as_ref() };
    made.stack_size.set(bytes as c_int);
    made.count.set(count);
    made.stack_array.set(array.as_ptr());
    keep(group, array, stacks);
    pages::say_if_unguarded();
    Ok(group)
}

/// The group made last. Programs have no call to free one, and need not keep the pointer: this way no tool takes them for
/// lost.
static LAST: AtomicPtr<ShareStack> = AtomicPtr::new(null_mut());

/// Makes `group` the last; behind the stacks in its array it has the one before.
fn keep(group: NonNull<ShareStack>, array: NonNull<*const StackMem>, stacks: usize) {
    // (Behind the stacks first: a child of fork goes along them.)
    let last = array.as_ptr().wrapping_add(stacks);
    let _ = LAST.fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
        // SAFETY: `alloc_records` made room for one more.
        unsafe { last.write(before.cast_const().cast()) };
        Some(group.as_ptr())
    });
}

fn alloc_records(count: usize) -> Option<(NonNull<*const StackMem>, NonNull<CopyStack>)> {
    let array = heap::alloc_array::<*const StackMem>(count.checked_add(1)?)?;
    match heap::alloc_array::<CopyStack>(count) {
        Some(records) => Some((array, records)),
        None => {
            // SAFETY: just made.
            unsafe { heap::free(array) };
            None
        }
    }
}

/// The next stack of a group, in turns.
pub(crate) fn next_of(group: &ShareStack) -> Option<NonNull<StackMem>> {
    let count = u32::try_from(group.count.get()).ok().filter(|&count| count > 0)?;
    let turn = group.alloc_idx.fetch_add(1, Ordering::Relaxed);
    let slot = group.stack_array.get().wrapping_add((turn % count) as usize);
    // SAFETY: the array has `count` entries.
    NonNull::new(unsafe { *slot }.cast_mut())
}

/// What co_create gives for a wished size.
pub(crate) fn stack_size_for(wish: c_int) -> usize {
    let size = if wish <= 0 { DEFAULT_STACK } else { wish.min(LARGEST_STACK) };
    (size as usize).next_multiple_of(pages::size())
}

/// Whether both run on the same copy stack.
#[inline]
pub(crate) fn occupies_same_stack(a: &Coroutine, b: Co) -> bool {
    b.on_copy_stack() && a.on_copy_stack() && a.stack_mem.get() == b.stack_mem.get()
}

/// The record of `co`'s stack, a copy stack.
fn whole(co: Co) -> &'static CopyStack {
    // SAFETY: `next_of` gave the stack to this coroutine, from a group's records, which are never freed.
    unsafe { &*co.stack_mem.get().cast::<CopyStack>() }
}

/// Makes `co`, which is about to start, a user of its stack. False if that is another thread's.
#[inline(never)]
pub(crate) fn claim(env: &Env, co: Co) -> bool {
    if co.uses_copy_stack.get() != 0 {
        return true;
    }
    let me = (&raw const *env).cast_mut();
    let stack = whole(co);
    // (As long as it is this thread's nobody else takes it: its users leave by this thread.)
    match stack.owner.compare_exchange(null_mut(), me, Ordering::Acquire, Ordering::Relaxed) {
        Err(owner) if owner != me => return false,
        Err(_) => {}
        Ok(_) if tools::any() => tools::received((&raw const stack.owner).cast()),
        Ok(_) => {}
    }
    stack.users.fetch_add(1, Ordering::Relaxed);
    co.uses_copy_stack.set(1);
    true
}

/// Makes `co`, a user of its stack, the occupant, its bytes in place; `fresh`: at its routine's start. False (and nothing
/// has changed) if the present occupant cannot be saved: no memory, or it is elsewhere. That was said.
///
/// The caller runs on another stack.
#[inline]
pub(crate) fn bring_in(env: &Env, co: Co, fresh: bool) -> bool {
    let stack = co.stack();
    let occupant = stack.occupant();
    if !core::ptr::eq(occupant, co.as_ptr()) {
        // SAFETY: one of this thread's; an occupant is taken off its stack before it is freed.
        if let Some(occupant) = unsafe { Co::from_c(occupant) }
            && !move_out(env, occupant)
        {
            return false;
        }
        stack.set_occupant(co.as_ptr());
    } else if !fresh {
        return true;
    }
    if tools::bytes_are_watched() {
        tools::blank(area_of(stack));
    }
    if fresh {
        let top = stack.stack_bp.get();
        // SAFETY: the end of a stack that nobody runs on: its occupant was moved out.
        co.sp.set(unsafe { arch::first_frame_at(top, co.as_ptr()) });
    } else {
        let start = live_start(co);
        let size = co.save_size.get() as usize;
        env.counts.copied_bytes.add(size as u64);
        // SAFETY: `size` bytes were saved from `start`, and the stack is free for them.
        unsafe { arch::copy_live(co.save_buffer.get(), start, size) };
    }
    true
}

/// Asks for what [`bring_in`] will move: the coroutine's bytes, and the place of those of its stack's occupant.
#[inline(always)]
pub(crate) fn prefetch_bytes(co: Co) {
    arch::prefetch_lines(co.save_buffer.get(), lines(co));
    // SAFETY: an occupant is taken off its stack before it is freed; and a block's memory can be read for ever.
    if let Some(occupant) = unsafe { Co::from_c(co.stack().occupant()) } {
        arch::prefetch_lines(occupant.save_buffer.get(), lines(occupant));
    }
}

/// Asks for the block of the coroutine that [`bring_in`] will move out.
#[inline(always)]
pub(crate) fn prefetch_occupant(co: Co) {
    // SAFETY: as above.
    if let Some(occupant) = unsafe { Co::from_c(co.stack().occupant()) } {
        occupant.prefetch();
    }
}

/// Cache lines of its saved bytes, as many as are worth asking for.
fn lines(co: Co) -> usize {
    (co.save_size.get() as usize).div_ceil(arch::CACHE_LINE).min(8)
}

/// The lowest live byte, rounded down so that whole vectors move.
fn live_start(co: Co) -> *mut u8 {
    co.sp.get().map_addr(|a| a & !(arch::STACK_ALIGN - 1))
}

/// Moves a suspended occupant's live bytes into its buffer.
#[inline]
fn move_out(env: &Env, occupant: Co) -> bool {
    if (occupant.c_start.get() == 0 || occupant.has_come_to_its_end()) && !occupant.is_running() {
        // Reset by hand, or at its end: its bytes are worth nothing.
        return true;
    }
    let start = live_start(occupant);
    let size = occupant.stack().stack_bp.get().addr().wrapping_sub(start.addr());
    if size > occupant.stack().size() {
        error!("co_resume: coroutine {:p} yielded on another stack than its copy stack", occupant.as_ptr());
        return false;
    }
    let old = occupant.save_size.get() as usize;
    if old != size
        && (occupant.save_buffer.get().is_null() || size_class::rounded(old) != size_class::rounded(size))
    {
        let Some(buffer) = env.objects.alloc(size) else {
            error!(
                "no memory to save {size} bytes of coroutine {:p}, which leaves its copy stack",
                occupant.as_ptr()
            );
            return false;
        };
        drop_buffer(env, occupant);
        let left = size_class::rounded(size) - size;
        // (What another coroutine had there is nobody's to read.)
        // SAFETY: the buffer is as long as its class.
        unsafe { buffer.as_ptr().wrapping_add(size).write_bytes(0, left) };
        // (In this order: a fork may come between.)
        occupant.save_size.set(size as u32);
        occupant.save_buffer.set(buffer.as_ptr());
    }
    occupant.save_size.set(size as u32);
    occupant.stack_sp.set(start);
    if tools::bytes_are_watched() {
        // (The few bytes by which it was rounded down.)
        tools::blank(Area { bottom: start, size: occupant.sp.get().addr() - start.addr() });
    }
    env.counts.copied_bytes.add(size as u64);
    // SAFETY: `size` live bytes up to the stack's end; the buffer has room for as many.
    unsafe { arch::copy_live(start, occupant.save_buffer.get(), size) };
    true
}

/// Its bytes are worth nothing, but it keeps its place on the stack.
pub(crate) fn drop_buffer(env: &Env, co: Co) {
    if let Some(buffer) = NonNull::new(co.save_buffer.replace(null_mut())) {
        // SAFETY: allocated for `save_size` bytes, used no more.
        unsafe { env.objects.free(buffer, co.save_size.get() as usize) };
    }
    co.save_size.set(0);
}

/// The coroutine's bytes are worth nothing any more, and it leaves the stack: it ended, or is reset. The caller runs on another stack, which may be
/// another thread's from now on.
pub(crate) fn forget(env: &Env, co: Co) {
    leave_stack(co);
    drop_buffer(env, co);
}

/// As [`forget`], for a thread without an environment.
pub(crate) fn forget_central(co: Co) {
    leave_stack(co);
    if let Some(buffer) = NonNull::new(co.save_buffer.replace(null_mut())) {
        // SAFETY: allocated for `save_size` bytes, used no more.
        unsafe { pool::free_central(buffer, co.save_size.get() as usize) };
    }
}

/// In a child of fork: what other threads had on copy stacks is as it was at some instruction of theirs. Each stack that is
/// not `mine` is that of those who use it, if any do: of a block whose environment `is_one`.
pub(crate) fn after_fork(mine: Option<&Env>, is_one: impl Fn(*const Env) -> bool) {
    let mine = mine.map_or(null_mut(), |env| (&raw const *env).cast_mut());
    let mut any = false;
    each_stack(|stack| {
        let owner = stack.owner.load(Ordering::Relaxed);
        if owner != mine && !owner.is_null() {
            any = true;
            stack.owner.store(null_mut(), Ordering::Relaxed);
            stack.users.store(0, Ordering::Relaxed);
            // None of them runs again.
            stack.stack.set_occupant(null());
        }
    });
    if !any {
        return;
    }
    pool::each_tracked(|object, env| {
        // SAFETY: a block's memory can be read for ever.
        let co = Co::of(unsafe { object.cast::<Coroutine>().as_ref() });
        let env: *mut Env = env.cast();
        if co.on_copy_stack() && co.uses_copy_stack.get() != 0 && env != mine && is_one(env) {
            let stack = whole(co);
            stack.owner.store(env, Ordering::Relaxed);
            stack.users.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Visits the stacks of all groups.
fn each_stack(mut visit: impl FnMut(&CopyStack)) {
    let mut at = LAST.load(Ordering::Acquire).cast_const();
    // SAFETY: groups are never freed.
    while let Some(group) = unsafe { at.as_ref() } {
        let (stacks, count) = (group.stack_array.get(), group.count.get() as usize);
        for i in 0..count {
            // SAFETY: `count` stacks.
            let stack = unsafe { *stacks.wrapping_add(i) }.cast::<CopyStack>();
            // SAFETY: each has its whole record.
            visit(unsafe { &*stack });
        }
        // SAFETY: behind them is the group before: see `keep`.
        at = unsafe { *stacks.wrapping_add(count) }.cast();
    }
}

/// (By any thread, and several at a time, where the thread of those that use the stack has ended.)
pub(crate) fn leave_stack(co: Co) {
    if co.uses_copy_stack.replace(0) == 0 {
        return;
    }
    let stack = whole(co);
    if core::ptr::eq(stack.stack.occupant(), co.as_ptr()) {
        stack.stack.set_occupant(null());
    }
    if tools::any() {
        tools::handed_over((&raw const stack.owner).cast());
    }
    if stack.users.fetch_sub(1, Ordering::AcqRel) == 1 {
        stack.owner.store(null_mut(), Ordering::Release);
    }
}
