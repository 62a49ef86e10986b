//! Memory faults: a handler for SIGSEGV that has a stack of its own in every thread, and hands on what is not ours.
//!
//! ```text
//!   SIGSEGV ──► on_fault (on the thread's signal stack) ──► REPORT: a sentence, if it knows the place
//!                   └──► who had the signal before: a handler of the program's, or the default (core dump)
//! ```
//!
//! A program's own handler works as before. One that is installed later takes our place; one that was there first is
//! called by ours. By default the faulting instruction runs again, so that the core dump has its registers and its
//! siginfo. Everything that runs in the handler is safe in one: no locks, no allocation.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::{MaybeUninit, transmute};
use core::ptr::{NonNull, null, null_mut};
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::arch;
use crate::sys::errno::Errno;
use crate::sys::pages;

/// Looks at a fault: the address that was touched, the stack pointer, the instruction.
pub(crate) type Report = fn(address: usize, sp: usize, pc: usize);

const OFF: u8 = 1;
const INSTALLED: u8 = 2;

/// Whether the program wants it not, and whether it is done.
static STATE: AtomicU8 = AtomicU8::new(0);

struct Before(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written once, by the thread that installs the handler, before it does.
unsafe impl Sync for Before {}

/// What SIGSEGV did before us.
static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::zeroed()));
/// It was to happen once (SA_RESETHAND), and has.
static SPENT: AtomicBool = AtomicBool::new(false);
static REPORT: UnsafeReport = UnsafeReport(UnsafeCell::new(None));

struct UnsafeReport(UnsafeCell<Option<Report>>);

// SAFETY: as BEFORE.
unsafe impl Sync for UnsafeReport {}

/// LIBCO_FAULTS=0: SIGSEGV is not touched.
pub(crate) fn leave_alone() {
    STATE.fetch_or(OFF, Ordering::Relaxed);
}

/// Takes SIGSEGV, once in the process.
pub(crate) fn install(report: Report) {
    if STATE.fetch_or(INSTALLED, Ordering::AcqRel) != 0 {
        return;
    }
    let before = BEFORE.0.get().cast::<libc::sigaction>();
    // SAFETY: reads the present action; the first to come is alone here.
    if unsafe { libc::sigaction(libc::SIGSEGV, null(), before) } != 0 {
        return;
    }
    // SAFETY: as above.
    unsafe { REPORT.0.get().write(Some(report)) };
    // SAFETY: filled by the call above. Its mask and flags are the program's wish for the same handler's run.
    let mut ours = unsafe { before.read() };
    ours.sa_sigaction = on_fault as *const () as usize;
    ours.sa_flags =
        ours.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART) | libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: a handler of the type that SA_SIGINFO says.
    unsafe { libc::sigaction(libc::SIGSEGV, &ours, null_mut()) };
}

/// A thread's stack for signals. All-zero bytes are none.
#[repr(C)]
pub(crate) struct SignalStack {
    base: core::cell::Cell<*mut u8>,
    size: core::cell::Cell<usize>,
    /// Goes back by `pages::give_back_mapped`.
    mapped: core::cell::Cell<usize>,
}

/// What a handler of ours, or of the program's behind it, may need beside the registers that the kernel saves. One that
/// names functions or writes a report may need much, and had the thread's own stack before; memory is taken as it is touched.
const HANDLER_BYTES: usize = 256 * 1024;

impl SignalStack {
    /// Gives the calling thread a stack for signals, if it has none. Without memory it goes without.
    pub(crate) fn provide(&self) {
        if STATE.load(Ordering::Relaxed) & OFF != 0 {
            return;
        }
        let mut present = MaybeUninit::<libc::stack_t>::uninit();
        // SAFETY: writes the present one.
        if unsafe { libc::sigaltstack(null(), present.as_mut_ptr()) } != 0 {
            return;
        }
        // SAFETY: written by the call above.
        if unsafe { present.assume_init_ref() }.ss_flags & libc::SS_DISABLE == 0 {
            return;
        }
        // SAFETY: asks for a number.
        let least = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
        let size = (HANDLER_BYTES + least).next_multiple_of(pages::size());
        let guard = pages::guard_size();
        let Ok(base) = pages::reserve(guard + size) else { return };
        // SAFETY: the first pages of a fresh mapping. (Without a guard it serves as well.)
        let mapped = unsafe { pages::guard(base, guard, 1) }.unwrap_or(0);
        let stack =
            libc::stack_t { ss_sp: base.wrapping_add(guard).cast::<c_void>(), ss_flags: 0, ss_size: size };
        // SAFETY: memory of ours until `withdraw`.
        if unsafe { libc::sigaltstack(&stack, null_mut()) } != 0 {
            // SAFETY: ours, used by nobody.
            unsafe { pages::release(base, guard + size) };
            pages::give_back_mapped(mapped);
            return;
        }
        self.mapped.set(mapped);
        self.base.set(base);
        self.size.set(guard + size);
    }

    /// Takes it back at the thread's end, unless the program has put another in its place.
    pub(crate) fn withdraw(&self) {
        let Some(base) = NonNull::new(self.base.replace(null_mut())) else { return };
        let mut present = MaybeUninit::<libc::stack_t>::uninit();
        // SAFETY: writes the present one.
        if unsafe { libc::sigaltstack(null(), present.as_mut_ptr()) } != 0 {
            return;
        }
        // SAFETY: written by the call above.
        let present = unsafe { present.assume_init() };
        if present.ss_flags & libc::SS_ONSTACK != 0 {
            return;
        }
        if core::ptr::eq(present.ss_sp.cast(), base.as_ptr().wrapping_add(pages::guard_size())) {
            let none = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
            // SAFETY: the thread is not on it.
            unsafe { libc::sigaltstack(&none, null_mut()) };
        }
        // SAFETY: ours, and no longer the thread's.
        unsafe { pages::release(base.as_ptr(), self.size.get()) };
        pages::give_back_mapped(self.mapped.get());
    }
}

/// Whether the thread is in a handler on its signal stack, ours or the program's. Who leaves it there for another stack, to
/// come back later, finds its frames overwritten by the next signal.
#[cold]
pub(crate) fn on_signal_stack() -> bool {
    let mut present = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: writes the present one.
    if unsafe { libc::sigaltstack(null(), present.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: written by the call above.
    unsafe { present.assume_init_ref() }.ss_flags & libc::SS_ONSTACK != 0
}

/// # Safety
/// Called by the kernel, or by a handler of the program's that hands on to what was there before it.
unsafe extern "C-unwind" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = Errno::last();
    // SAFETY: a signal's siginfo, which is there while the handler runs.
    let what = unsafe { &*info };
    let from_kernel = what.si_code > 0;
    if from_kernel {
        // SAFETY: a fault's siginfo has an address.
        let address = unsafe { what.si_addr() }.addr();
        // SAFETY: a handler's third argument.
        let (sp, pc) = unsafe { arch::interrupted_at(context) };
        // SAFETY: written before this handler was installed.
        if let Some(report) = unsafe { *REPORT.0.get() } {
            report(address, sp, pc);
        }
    }
    errno.set();
    // SAFETY: the same arguments.
    unsafe { hand_on(signal, info, context, from_kernel) };
}

/// # Safety
/// As [`on_fault`].
unsafe fn hand_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void, from_kernel: bool) {
    // SAFETY: written before `on_fault` was installed, and never again.
    let before = unsafe { &*BEFORE.0.get() };
    // SAFETY: as above; and all-zero bytes are an action too.
    let before = unsafe { before.assume_init_ref() };
    match before.sa_sigaction {
        libc::SIG_IGN if !from_kernel => return,
        libc::SIG_IGN | libc::SIG_DFL => {}
        handler if before.sa_flags & libc::SA_RESETHAND == 0 || !SPENT.swap(true, Ordering::Relaxed) => {
            if before.sa_flags & libc::SA_SIGINFO != 0 {
                type Action = unsafe extern "C-unwind" fn(c_int, *mut libc::siginfo_t, *mut c_void);
                // SAFETY: SA_SIGINFO says that it is of this type.
                let handler: Action = unsafe { transmute(handler) };
                // SAFETY: the kernel's arguments.
                return unsafe { handler(signal, info, context) };
            }
            // SAFETY: without SA_SIGINFO it is of this type.
            let handler: unsafe extern "C-unwind" fn(c_int) = unsafe { transmute(handler) };
            // SAFETY: the kernel's argument.
            return unsafe { handler(signal) };
        }
        _ => {}
    }
    // SAFETY: all-zero bytes are the default action.
    let default: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: the default action.
    unsafe { libc::sigaction(signal, &default, null_mut()) };
    if !from_kernel {
        // Sent by somebody: again, as it was sent. It comes when the handler returns.
        // SAFETY: a number.
        let process = unsafe { libc::getpid() };
        // SAFETY: a number.
        let thread = unsafe { libc::gettid() };
        // SAFETY: the thread itself, and the siginfo that came.
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info) };
    }
}
