//! Coroutines: their blocks, their stacks, who runs, and what belongs to one.
//!
//! | file | owns |
//! |---|---|
//! | coroutine | the control block |
//! | env | the thread's environment, its life and end; env/others: all of them |
//! | run | resume, yield, end |
//! | stack, stack_cache | private stacks, and those a thread keeps |
//! | parked | coroutines kept whole for the next co_create |
//! | copy | copy stacks |
//! | debug | what a debugger is told of all this |
//! | overflow | the sentence about a coroutine that ran off its stack |
//! | cond, mutex | conditions, and the mutex made of one |
//! | inspect | what a coroutine does, and a walk through all |
//! | stats | what is counted, of a thread and of all |
//! | watched | what sanitizers and valgrind are told of switches and stacks |
//! | extra, environ | specifics, environment variables of a coroutine |
//!
//! Called by `capi` and `hook`. Wakes come from `event`, which resumes through [`run`].

pub(crate) mod cond;
pub(crate) mod copy;
pub(crate) mod coroutine;
mod debug;
pub(crate) mod env;
pub(crate) mod environ;
pub(crate) mod extra;
pub(crate) mod inspect;
pub(crate) mod mutex;
mod overflow;
mod parked;
pub(crate) mod run;
pub(crate) mod stack;
pub(crate) mod stack_cache;
pub(crate) mod stats;
pub(crate) mod watched;

use core::ffi::{c_int, c_void};
use core::mem::size_of;
use core::ptr::{NonNull, null_mut};

pub(crate) use coroutine::{Co, Coroutine, Routine};
pub(crate) use env::Env;
pub(crate) use run::yield_into;

use crate::arch::probe;
use crate::event;
use crate::sys::errno::Errno;
use crate::sys::lock::Lock;
use crate::sys::log::{error, misuse};
use crate::util::pool;
use copy::ShareStack;
use coroutine::{RELEASE_SOON, RELEASED, RESET_AT_END, WaitState};
use stack::StackMem;

/// A new coroutine for `env`. `share`: one of that group's stacks in turn instead of a private one.
#[inline]
pub(crate) fn create(
    env: &Env,
    stack_size: c_int,
    share: Option<&ShareStack>,
    pfn: Option<Routine>,
    arg: *mut c_void,
) -> Result<Co, Errno> {
    if share.is_none() && env.is_mine() {
        let size = copy::stack_size_for(stack_size);
        if let Some(co) = env.parked.take(size) {
            env.counts.made.bump();
            co.renew(pfn, arg);
            probe!("create", co.as_ptr().addr(), pfn.map_or(0, |pfn| pfn as usize));
            return Ok(co);
        }
        if let Some(co) = create_private(env, size, pfn, arg) {
            return Ok(co);
        }
    }
    create_elsewhere(env, stack_size, share, pfn, arg)
}

/// [`create`] on a private stack that no coroutine has.
#[inline(never)]
fn create_private(env: &Env, size: usize, pfn: Option<Routine>, arg: *mut c_void) -> Option<Co> {
    if let Some(stack) = env.stacks.take(size) {
        if let Some(block) = env.objects.alloc_tracked() {
            env.counts.made.bump();
            env.counts.held.take(size);
            return Some(fill(block.cast(), env, stack, false, pfn, arg));
        }
        free_stack(Some(env), stack);
    }
    // Free stacks of other sizes may be in the way.
    env.give_back_all_memory();
    None
}

/// [`create`] on a copy stack, for another thread's environment, or when memory is short.
#[inline(never)]
fn create_elsewhere(
    env: &Env,
    stack_size: c_int,
    share: Option<&ShareStack>,
    pfn: Option<Routine>,
    arg: *mut c_void,
) -> Result<Co, Errno> {
    let no_memory = Errno(libc::ENOMEM);
    let mine = env.is_mine();
    if mine && env.has_releases() {
        env.serve_releases();
    }
    let stack = match share {
        Some(group) => copy::next_of(group),
        None => stack::take_central(copy::stack_size_for(stack_size)),
    };
    let stack = stack.ok_or(no_memory)?;
    let block = if mine { env.objects.alloc_tracked() } else { pool::alloc_tracked_central() };
    let Some(block) = block else {
        if share.is_none() {
            free_stack(None, stack);
        }
        return Err(no_memory);
    };
    // SAFETY: a live record.
    let size = if share.is_none() { unsafe { stack.as_ref() }.size() } else { 0 };
    if mine {
        env.counts.made.bump();
        env.counts.held.take(size);
    } else {
        env::count_foreign_new(env, size);
    }
    Ok(fill(block.cast(), env, stack, share.is_some(), pfn, arg))
}

/// Makes a fresh object a new coroutine.
#[inline(always)]
fn fill(
    block: NonNull<Coroutine>,
    env: &Env,
    stack: NonNull<StackMem>,
    on_copy_stack: bool,
    pfn: Option<Routine>,
    arg: *mut c_void,
) -> Co {
    let bytes = block.cast::<u8>();
    let rest = bytes.as_ptr().wrapping_add(size_of::<*const Env>());
    // SAFETY: a fresh object of this size; all-zero bytes are a valid block.
    unsafe { rest.write_bytes(0, size_of::<Coroutine>() - size_of::<*const Env>()) };
    // From here on others may find it, and see whose it is.
    // SAFETY: the fresh object's first word.
    unsafe { pool::publish(bytes, (&raw const *env).cast_mut().cast()) };
    // SAFETY: initialised now, alive until it is freed.
    let co = Co::of(unsafe { block.as_ref() });
    co.pfn.set(pfn);
    co.arg.set(arg);
    // SAFETY: a live record.
    let record = unsafe { stack.as_ref() };
    co.stack_mem.set(record);
    co.ss_sp.set(record.stack_buffer.get());
    co.ss_size.set(record.stack_size.get() as usize);
    if on_copy_stack {
        co.c_is_share_stack.set(1);
    }
    probe!("create", co.as_ptr().addr(), pfn.map_or(0, |pfn| pfn as usize));
    co
}

fn free_stack(env: Option<&Env>, stack: NonNull<StackMem>) {
    match env {
        // SAFETY: the stack's coroutine is gone, or never was.
        Some(env) => unsafe { env.stacks.put(stack) },
        // SAFETY: as above.
        None => unsafe { stack::put_central(stack) },
    }
}

/// Frees a coroutine, or marks it to be freed when it yields or ends if it runs. Any thread may call it.
#[inline]
pub(crate) fn release(co: Co) {
    if let Some(env) = env::current()
        && core::ptr::eq(co.env.get(), env)
        && co.is_plain()
    {
        return release_plain(env, co);
    }
    release_slowly(co);
}

#[inline(always)]
fn release_plain(env: &Env, co: Co) {
    env.count_one_less(co);
    if !env.parked.put(co) {
        free_private(env, co);
    }
}

/// Frees a plain coroutine's block and stack.
#[inline(never)]
pub(super) fn free_private(env: &Env, co: Co) {
    if let Some(stack) = NonNull::new(co.stack_mem.get().cast_mut()) {
        env.counts.held.drop(co.private_bytes());
        free_stack(Some(env), stack);
    }
    if let Some(block) = NonNull::new(co.as_ptr().cast_mut()) {
        // SAFETY: nobody refers to the block any more.
        unsafe { env.objects.free_tracked(block.cast()) };
    }
}

#[inline(never)]
fn release_slowly(co: Co) {
    if co.is_main() {
        return misuse!("co_release: the main coroutine is not released");
    }
    let mine = env::current();
    if mine.is_some_and(|env| core::ptr::eq(co.env.get(), env)) {
        if co.laid_down.get() != 0 || co.pending() & (RELEASE_SOON | RELEASED) != 0 {
            return misuse!("co_release: released already: coroutine {:p}", co.as_ptr());
        }
        if let Some(env) = mine
            && co.is_running()
        {
            return release_soon(env, co);
        }
    } else {
        match env::release_foreign(co) {
            env::Foreign::Free => {}
            env::Foreign::Gone => {
                return misuse!("co_release: released already: coroutine {:p}", co.as_ptr());
            }
            env::Foreign::HandedOver | env::Foreign::Kept | env::Foreign::Left => return,
        }
    }
    if co.wait.state() != WaitState::None
        && let Some(env) = mine
        && core::ptr::eq(co.env.get(), env)
    {
        event::cancel(env, co);
    }
    dispose(mine, co);
}

fn release_soon(env: &Env, co: Co) {
    if env.service_top().is_none() {
        error!("co_release: no memory to free the running coroutine {:p} later", co.as_ptr());
        return;
    }
    env.release_soon(&co);
}

/// Frees everything a coroutine has. It is suspended or ended and waits for nothing.
fn dispose(mine: Option<&Env>, co: Co) {
    let owner = co.env.get();
    let bytes = co.private_bytes();
    event::drop_left_nodes(co);
    if co.on_copy_stack() {
        match mine {
            Some(env) => copy::forget(env, co),
            None => copy::forget_central(co),
        }
    } else if let Some(stack) = NonNull::new(co.stack_mem.get().cast_mut()) {
        free_stack(mine, stack);
    }
    if !co.extra.get().is_null() {
        extra::drop_of(co);
    }
    let mine_too = mine.filter(|env| core::ptr::eq(owner, *env));
    if let Some(env) = mine_too {
        env.count_one_less(co);
        env.counts.held.drop(bytes);
    }
    if let Some(block) = NonNull::new(co.as_ptr().cast_mut()) {
        match mine {
            // SAFETY: nobody refers to the block any more.
            Some(env) => unsafe { env.objects.free_tracked(block.cast()) },
            // SAFETY: as above.
            None => unsafe { pool::free_tracked_central(block.cast()) },
        }
    }
    if mine_too.is_none() {
        env::count_gone(owner, bytes);
    }
}

/// Makes a coroutine ready to run its routine from the start.
pub(crate) fn reset(co: Co) {
    if co.is_main() || co.c_start.get() == 0 {
        return;
    }
    if co.is_running() {
        return co.add_pending(RESET_AT_END);
    }
    match env::current() {
        Some(env) if core::ptr::eq(co.env.get(), env) => {
            if co.wait.state() != WaitState::None {
                event::cancel(env, co);
            }
            if co.on_copy_stack() {
                copy::forget(env, co);
            }
            co.forget_exceptions();
        }
        _ => return misuse!("co_reset: coroutine {:p} belongs to another thread", co.as_ptr()),
    }
    if let Some(env) = env::current() {
        env.uncount_end(co);
    }
    co.c_start.set(0);
    co.c_end.set(0);
}

/// The coroutine a C caller means by "this one": null before the thread has an environment.
pub(crate) fn running() -> *const Coroutine {
    env::current().map_or(null_mut::<Coroutine>().cast_const(), |env| &raw const *env.running())
}

/// Held across fork: environments, stacks.
pub(crate) fn fork_locks() -> [&'static Lock; 2] {
    [env::fork_lock(), stack::fork_lock()]
}

pub(crate) use env::after_fork_in_child;
