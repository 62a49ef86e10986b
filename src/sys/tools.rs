//! Tools that watch a program's memory and threads: AddressSanitizer, ThreadSanitizer, LeakSanitizer, valgrind. They follow a
//! thread along its stack, and take a change of stacks for an error unless they are told.
//!
//! Nothing of them is linked. The sanitizers' functions are weak references, found out once when the library is
//! loaded; valgrind is asked by an instruction sequence that does nothing elsewhere. A program without them pays
//! nothing: in one that a sanitizer watches no switch goes the short way (`Env::exceptions_or_detour`), and
//! `routine::watched` tells the sanitizer what the slow way does.

use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use core::mem::{size_of, transmute};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::arch::{self, weak_function};

const ADDRESSES: u8 = 1;
const THREADS: u8 = 2;
const LEAKS: u8 = 4;
const VALGRIND: u8 = 8;
const MEMCHECK: u8 = 16;

/// Which of them are here.
static FOUND: AtomicU8 = AtomicU8::new(0);

fn found(tools: u8) -> bool {
    FOUND.load(Ordering::Relaxed) & tools != 0
}

/// Called once, when the library is loaded.
pub(crate) fn find() {
    let present = |function: *const c_void, tool| if function.is_null() { 0 } else { tool };
    let answers = |request, tool| if arch::valgrind_request(request, [0; 5]) == 0 { 0 } else { tool };
    let tools = present(weak_function!("__sanitizer_start_switch_fiber"), ADDRESSES)
        | present(weak_function!("__tsan_switch_to_fiber"), THREADS)
        | present(weak_function!("__lsan_register_root_region"), LEAKS)
        | answers(valgrind::RUNNING_ON_VALGRIND, VALGRIND)
        | answers(valgrind::MAKE_MEM_UNDEFINED, MEMCHECK);
    // ThreadSanitizer's library may bring the first function too.
    let tools = if tools & THREADS != 0 { tools & !ADDRESSES } else { tools };
    FOUND.store(tools, Ordering::Relaxed);
}

/// Whether there is anybody to tell of stacks.
pub(crate) fn any() -> bool {
    found(ADDRESSES | THREADS | LEAKS | VALGRIND)
}

/// Whether a sanitizer has to hear of switches.
#[inline]
pub(crate) fn watched() -> bool {
    found(ADDRESSES | THREADS)
}

/// Whether a signal's handler runs only when the program next calls the C library, as ThreadSanitizer has it: a system
/// call of our own would sleep meanwhile.
#[inline]
pub(crate) fn signals_come_late() -> bool {
    found(THREADS)
}

/// Such a call, for nothing else.
#[cold]
pub(crate) fn run_late_handlers() {
    // SAFETY: changes nothing and writes nothing.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, core::ptr::null(), null_mut()) };
}

/// Whether valgrind runs the program, whichever of its tools.
pub(crate) fn on_valgrind() -> bool {
    found(VALGRIND)
}

/// Whether somebody keeps notes of which bytes may be used.
#[inline(always)]
pub(crate) fn bytes_are_watched() -> bool {
    found(ADDRESSES | MEMCHECK)
}

/// A stack's bytes.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    pub(crate) bottom: *mut u8,
    pub(crate) size: usize,
}

/// Calls the sanitizer function `$name`, if it is there; `$type` is its type in the sanitizers' headers.
macro_rules! call {
    ($name:literal as $type:ty, $($arg:expr),*) => {{
        let function = weak_function!($name);
        if function.is_null() {
            None
        } else {
            // SAFETY: the sanitizers' interface headers declare the function so.
            let function: $type = unsafe { transmute(function) };
            // SAFETY: the arguments are as those headers ask; see the caller.
            Some(unsafe { function($($arg),*) })
        }
    }};
}

/// This thread is about to leave its stack for `to`. `keep`: where AddressSanitizer leaves what it has of the present
/// stack, for [`arrived`]; `None` if nobody comes back to it.
#[cold]
#[inline(never)]
pub(crate) fn leaving(keep: Option<&mut *mut c_void>, to: Area, fiber: *mut c_void) {
    if found(ADDRESSES) {
        let keep = keep.map_or(null_mut(), |keep| &raw mut *keep);
        call!(
            "__sanitizer_start_switch_fiber" as unsafe extern "C" fn(*mut *mut c_void, *const c_void, usize),
            keep,
            to.bottom.cast(),
            to.size
        );
    }
    if found(THREADS) && !fiber.is_null() {
        call!("__tsan_switch_to_fiber" as unsafe extern "C" fn(*mut c_void, c_uint), fiber, 0);
    }
}

/// This thread has come to a stack: to one that it left with `kept`, or to a new one (null). Returns the stack it came from.
#[cold]
#[inline(never)]
pub(crate) fn arrived(kept: *mut c_void) -> Area {
    let mut from: *mut u8 = null_mut();
    let mut size = 0;
    if found(ADDRESSES) {
        call!(
            "__sanitizer_finish_switch_fiber"
                as unsafe extern "C" fn(*mut c_void, *mut *const c_void, *mut usize),
            kept,
            (&raw mut from).cast(),
            &raw mut size
        );
    }
    Area { bottom: from, size }
}

/// What ThreadSanitizer knows of a coroutine; null without it.
#[cold]
#[inline(never)]
pub(crate) fn new_fiber() -> *mut c_void {
    if !found(THREADS) {
        return null_mut();
    }
    call!("__tsan_create_fiber" as unsafe extern "C" fn(c_uint) -> *mut c_void, 0).unwrap_or(null_mut())
}

/// What ThreadSanitizer knows of the calling thread's present stack; null without it.
#[cold]
#[inline(never)]
pub(crate) fn this_fiber() -> *mut c_void {
    if !found(THREADS) {
        return null_mut();
    }
    call!("__tsan_get_current_fiber" as unsafe extern "C" fn() -> *mut c_void,).unwrap_or(null_mut())
}

/// The fiber's coroutine will not run on.
#[cold]
#[inline(never)]
pub(crate) fn end_fiber(fiber: *mut c_void) {
    if !fiber.is_null() {
        call!("__tsan_destroy_fiber" as unsafe extern "C" fn(*mut c_void), fiber);
    }
}

/// What this thread has written so far is there for whoever calls [`received`] with the same address later. (Of our
/// own atomics ThreadSanitizer sees nothing, and helgrind takes them for plain accesses.)
#[cold]
#[inline(never)]
pub(crate) fn handed_over(at: *const c_void) {
    if found(THREADS) {
        call!("__tsan_release" as unsafe extern "C" fn(*const c_void), at);
    }
    if on_valgrind() {
        arch::valgrind_request(valgrind::HANDED_OVER, [at.addr(), 0, 0, 0, 0]);
    }
}

/// See [`handed_over`].
#[cold]
#[inline(never)]
pub(crate) fn received(at: *const c_void) {
    if found(THREADS) {
        call!("__tsan_acquire" as unsafe extern "C" fn(*const c_void), at);
    }
    if on_valgrind() {
        arch::valgrind_request(valgrind::RECEIVED, [at.addr(), 0, 0, 0, 0]);
    }
}

/// What threads did with these bytes is over, without a step that helgrind could see: they do not exist here.
#[cold]
#[inline(never)]
pub(crate) fn begins_anew<T>(object: *const T) {
    if on_valgrind() {
        arch::valgrind_request(valgrind::CLEAN_MEMORY, [object.addr(), size_of::<T>(), 0, 0, 0]);
    }
}

/// Runs `work`, of which ThreadSanitizer takes no notice: calls into the C library that order what its threads share by
/// means that nobody sees.
pub(crate) fn unnoticed(work: impl FnOnce()) {
    if !found(THREADS) {
        return work();
    }
    type Annotation = unsafe extern "C" fn(*const c_char, c_int);
    let file = c"colib".as_ptr();
    call!("AnnotateIgnoreReadsBegin" as Annotation, file, 0);
    call!("AnnotateIgnoreWritesBegin" as Annotation, file, 0);
    work();
    call!("AnnotateIgnoreWritesEnd" as Annotation, file, 0);
    call!("AnnotateIgnoreReadsEnd" as Annotation, file, 0);
}

/// The C library's own function of this name, past the sanitizers' one; null if it is not to be had.
fn original(name: &CStr) -> *mut c_void {
    // SAFETY: a name; nothing is loaded.
    let library = unsafe { libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if library.is_null() {
        return null_mut();
    }
    // SAFETY: a handle, and a name.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}

/// How the locks that are held across fork are taken: ThreadSanitizer sees them go in the parent, but not come back in the
/// child, and must not see either.
pub(crate) struct MutexCalls {
    pub(crate) lock: MutexCall,
    pub(crate) unlock: MutexCall,
}

/// pthread_mutex_lock, or pthread_mutex_unlock.
pub(crate) type MutexCall = unsafe extern "C" fn(*mut libc::pthread_mutex_t) -> c_int;

pub(crate) fn mutex_calls() -> MutexCalls {
    let seen = MutexCalls { lock: libc::pthread_mutex_lock, unlock: libc::pthread_mutex_unlock };
    if !found(THREADS) {
        return seen;
    }
    let (lock, unlock) = (original(c"pthread_mutex_lock"), original(c"pthread_mutex_unlock"));
    if lock.is_null() || unlock.is_null() {
        return seen;
    }
    // SAFETY: the C library's functions of these types.
    let [lock, unlock] = unsafe { transmute::<[*mut c_void; 2], [MutexCall; 2]>([lock, unlock]) };
    MutexCalls { lock, unlock }
}

/// Nothing on the stack is anybody's: all of it may be written.
#[cold]
#[inline(never)]
pub(crate) fn blank(stack: Area) {
    if found(ADDRESSES) {
        call!(
            "__asan_unpoison_memory_region" as unsafe extern "C" fn(*const c_void, usize),
            stack.bottom.cast(),
            stack.size
        );
    }
    if found(MEMCHECK) {
        arch::valgrind_request(valgrind::MAKE_MEM_UNDEFINED, [stack.bottom.addr(), stack.size, 0, 0, 0]);
    }
}

/// The frames that AddressSanitizer knows on this stack are gone without a return or an exception: by pthread_exit.
#[cold]
#[inline(never)]
pub(crate) fn frames_are_gone() {
    if found(ADDRESSES) {
        call!("__asan_handle_no_return" as unsafe extern "C" fn(),);
    }
}

/// Memory that may hold the only pointer to an object: not lost, then.
#[cold]
#[inline(never)]
pub(crate) fn holds_pointers(area: Area) {
    if found(LEAKS) {
        call!(
            "__lsan_register_root_region" as unsafe extern "C" fn(*const c_void, usize),
            area.bottom.cast(),
            area.size
        );
    }
}

/// A stack that coroutines will run on. Returns valgrind's number for it.
#[cold]
#[inline(never)]
pub(crate) fn stack_made(stack: Area) -> c_uint {
    holds_pointers(stack);
    if !on_valgrind() {
        return 0;
    }
    let end = stack.bottom.addr() + stack.size;
    arch::valgrind_request(valgrind::STACK_REGISTER, [stack.bottom.addr(), end, 0, 0, 0]) as c_uint
}

/// It goes.
#[cold]
#[inline(never)]
pub(crate) fn holds_no_pointers(area: Area) {
    if found(LEAKS) {
        call!(
            "__lsan_unregister_root_region" as unsafe extern "C" fn(*const c_void, usize),
            area.bottom.cast(),
            area.size
        );
    }
}

/// The stack goes.
#[cold]
#[inline(never)]
pub(crate) fn stack_gone(stack: Area, number: c_uint) {
    blank(stack);
    holds_no_pointers(stack);
    if on_valgrind() {
        arch::valgrind_request(valgrind::STACK_DEREGISTER, [number as usize, 0, 0, 0, 0]);
    }
}

/// The requests of valgrind.h, memcheck.h and helgrind.h.
mod valgrind {
    pub(super) const RUNNING_ON_VALGRIND: usize = 0x1001;
    pub(super) const STACK_REGISTER: usize = 0x1501;
    pub(super) const STACK_DEREGISTER: usize = 0x1502;
    /// The first of memcheck's own: 'M' 'C' in the upper half.
    pub(super) const MAKE_MEM_UNDEFINED: usize = 0x4d43_0001;
    /// The first of helgrind's, 'H' 'G'. Other tools pass these over.
    pub(super) const CLEAN_MEMORY: usize = 0x4847_0000;
    /// Those behind ANNOTATE_HAPPENS_BEFORE and _AFTER.
    pub(super) const HANDED_OVER: usize = 0x4847_0121;
    pub(super) const RECEIVED: usize = 0x4847_0122;
}
