//! aarch64, AAPCS64.
//!
//! A suspended context is one stack pointer. It points at
//!
//! ```text
//!   sp + 0    x19  x20
//!   sp + 16   x21  x22
//!   sp + 32   x23  x24
//!   sp + 48   x25  x26
//!   sp + 64   x27  x28
//!   sp + 80   d8   d9
//!   sp + 96   d10  d11
//!   sp + 112  d12  d13
//!   sp + 128  d14  d15
//!   sp + 144  x29  address to go on at
//!   sp + 160  the frame of whoever called the switch       (16-byte aligned)
//! ```
//!
//! Everything else is caller-saved by the ABI. FPCR belongs to the thread and is not moved, as MXCSR on
//! x86-64. A switch leaves by `ret`, which where branch targets are checked (BTI) needs no landing pad; a `br` to
//! an address behind a call would. The functions that may be called through a pointer begin with one.

use core::arch::{asm, global_asm, naked_asm};
use core::ffi::c_void;
use core::sync::atomic::{Ordering, compiler_fence};

use crate::routine::coroutine::{AT_END, at};
use crate::routine::{Coroutine, env, run, watched};
use crate::sys::{exceptions, tools};

/// Bytes between two stack positions that keep the ABI's alignment.
pub(crate) const STACK_ALIGN: usize = 16;

/// Bytes that come into the cache together.
pub(crate) const CACHE_LINE: usize = 64;

/// Bytes of a guard that compilers' probes of large frames (-fstack-clash-protection) take for granted: gcc's touch nothing of
/// frames below that.
pub(crate) const LEAST_GUARD: usize = 64 * 1024;

/// Bytes below a suspended context's stack pointer that its code may still use: none, a switch is
/// always reached by a call.
const SAVED_WORDS: usize = 20;

// The thread's environment, one pointer in initial-exec TLS: one load in an executable, two in a
// shared library, where a `thread_local!` would be a function call.
global_asm!(
    ".pushsection .tbss,\"awT\",@nobits",
    ".balign 8",
    ".globl colib_thread_slot",
    ".hidden colib_thread_slot",
    ".type colib_thread_slot,@object",
    ".size colib_thread_slot,8",
    "colib_thread_slot:",
    ".zero 8",
    ".popsection",
);

/// The calling thread's slot value (null at first).
#[inline(always)]
pub(crate) fn thread_slot() -> *const c_void {
    let value: *const c_void;
    // SAFETY: reads eight bytes of this thread's TLS block, which exists as long as the thread.
    unsafe {
        asm!(
            "adrp {0}, :gottprel:colib_thread_slot",
            "ldr {0}, [{0}, :gottprel_lo12:colib_thread_slot]",
            "mrs {1}, tpidr_el0",
            "ldr {0}, [{1}, {0}]",
            out(reg) value,
            out(reg) _,
            options(nostack, pure, readonly, preserves_flags)
        );
    }
    value
}

/// Sets the calling thread's slot.
pub(crate) fn set_thread_slot(value: *const c_void) {
    // SAFETY: writes eight bytes of this thread's TLS block that nothing else uses.
    unsafe {
        asm!(
            "adrp {0}, :gottprel:colib_thread_slot",
            "ldr {0}, [{0}, :gottprel_lo12:colib_thread_slot]",
            "mrs {1}, tpidr_el0",
            "str {2}, [{1}, {0}]",
            out(reg) _,
            out(reg) _,
            in(reg) value,
            options(nostack, preserves_flags)
        );
    }
}

/// The address of a C function that may or may not be in the process: null if it is not.
macro_rules! weak_function {
    ($name:literal) => {{
        let address: *const ::core::ffi::c_void;
        // SAFETY: loads one pointer from the global offset table; a weak symbol has its entry there.
        unsafe {
            ::core::arch::asm!(
                concat!(".weak ", $name),
                concat!("adrp {0}, :got:", $name),
                concat!("ldr {0}, [{0}, :got_lo12:", $name, "]"),
                out(reg) address,
                options(nostack, pure, readonly, preserves_flags)
            );
        }
        address
    }};
}
pub(crate) use weak_function;

/// Where a signal handler's thread was interrupted: its stack pointer and its instruction.
///
/// # Safety
/// `context` is the third argument of a handler with SA_SIGINFO.
pub(crate) unsafe fn interrupted_at(context: *const c_void) -> (usize, usize) {
    // SAFETY: as the caller vouches.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    (registers.sp as usize, registers.pc as usize)
}

/// Asks valgrind, by an instruction sequence that does nothing elsewhere: 0 is the answer there.
pub(crate) fn valgrind_request(request: usize, args: [usize; 5]) -> usize {
    let block = [request, args[0], args[1], args[2], args[3], args[4]];
    let mut answer = 0_usize;
    // SAFETY: the rotations add up to two full turns, the OR is of a register with itself; valgrind reads
    // `block`, which is there, and does to memory only what it means for valgrind's own notes.
    unsafe {
        asm!(
            "ror x12, x12, 3",
            "ror x12, x12, 13",
            "ror x12, x12, 51",
            "ror x12, x12, 61",
            "orr x10, x10, x10",
            in("x4") &raw const block,
            inout("x3") answer,
            inout("x12") 0_usize => _,
            options(nostack)
        );
    }
    answer
}

/// Where the two operands of a probe are.
#[cfg(not(no_probes))]
macro_rules! probe_places {
    () => {
        "8@{0} 8@{1}"
    };
}
#[cfg(not(no_probes))]
pub(crate) use probe_places;

/// A whole function that is another by a second name.
macro_rules! other_name {
    ($target:path) => {
        ::core::arch::naked_asm!("hint 34", "b {}", sym $target) // bti c
    };
}

/// A whole function whose first instructions find the distance of the thread's slot from the thread's pointer: for debuggers.
macro_rules! slot_offset_body {
    () => {
        ::core::arch::naked_asm!(
            "adrp x0, :gottprel:colib_thread_slot",
            "ldr x0, [x0, :gottprel_lo12:colib_thread_slot]",
            "ret"
        )
    };
}

/// Refers to a static object and does nothing: a linker that drops what is unused keeps it.
macro_rules! keep {
    ($object:path) => {
        ::core::arch::asm!(".reloc ., R_AARCH64_NONE, {}", sym $object, options(nomem, nostack, preserves_flags))
    };
}
pub(crate) use {keep, other_name, slot_offset_body};

/// Signs the address to return to with where the stack stands, before it goes to memory; nothing in a library whose
/// compiled functions do not do that either. (Processors that cannot sign take both for a nop.)
#[cfg(signed_returns)]
macro_rules! sign_return {
    () => {
        "paciasp\n.cfi_negate_ra_state\n"
    };
}
/// [`sign_return`] where the address that a walk finds is signed already.
#[cfg(signed_returns)]
macro_rules! resign {
    () => {
        "paciasp"
    };
}
#[cfg(not(signed_returns))]
macro_rules! resign {
    () => {
        ""
    };
}
/// The address to return to is a signed one from here on, as far as a walk is concerned.
#[cfg(signed_returns)]
macro_rules! signed_state {
    () => {
        ".cfi_negate_ra_state"
    };
}
#[cfg(not(signed_returns))]
macro_rules! signed_state {
    () => {
        ""
    };
}
/// The other half, with the stack where it stood: an address that is not the signed one becomes one that faults.
#[cfg(signed_returns)]
macro_rules! check_return {
    () => {
        "autiasp\n.cfi_negate_ra_state\n"
    };
}
#[cfg(not(signed_returns))]
macro_rules! sign_return {
    () => {
        ""
    };
}
#[cfg(not(signed_returns))]
macro_rules! check_return {
    () => {
        ""
    };
}
pub(crate) use {check_return, sign_return};

/// An address to go on at, as a context keeps it that ends at `top`.
#[cfg(signed_returns)]
fn signed(address: usize, top: *mut u8) -> usize {
    let signed;
    // SAFETY: changes a register, or is a nop.
    unsafe {
        asm!(
            "hint 8", // pacia1716
            inout("x17") address => signed,
            in("x16") top,
            options(nomem, nostack, preserves_flags)
        );
    }
    signed
}
#[cfg(not(signed_returns))]
fn signed(address: usize, _top: *mut u8) -> usize {
    address
}

/// Where a context at the stack pointer has each register.
macro_rules! saved_rows {
    () => {
        concat!(
            ".cfi_rel_offset x19, 0\n",
            ".cfi_rel_offset x20, 8\n",
            ".cfi_rel_offset x21, 16\n",
            ".cfi_rel_offset x22, 24\n",
            ".cfi_rel_offset x23, 32\n",
            ".cfi_rel_offset x24, 40\n",
            ".cfi_rel_offset x25, 48\n",
            ".cfi_rel_offset x26, 56\n",
            ".cfi_rel_offset x27, 64\n",
            ".cfi_rel_offset x28, 72\n",
            ".cfi_rel_offset d8, 80\n",
            ".cfi_rel_offset d9, 88\n",
            ".cfi_rel_offset d10, 96\n",
            ".cfi_rel_offset d11, 104\n",
            ".cfi_rel_offset d12, 112\n",
            ".cfi_rel_offset d13, 120\n",
            ".cfi_rel_offset d14, 128\n",
            ".cfi_rel_offset d15, 136\n",
            ".cfi_rel_offset x29, 144\n",
            ".cfi_rel_offset x30, 152\n",
        )
    };
}

/// Saves what the ABI asks a callee to preserve: the picture above, from its caller's address down.
macro_rules! store_registers {
    () => {
        concat!(
            "stp x19, x20, [sp, -160]!\n",
            ".cfi_adjust_cfa_offset 160\n",
            "stp x21, x22, [sp, 16]\n",
            "stp x23, x24, [sp, 32]\n",
            "stp x25, x26, [sp, 48]\n",
            "stp x27, x28, [sp, 64]\n",
            "stp d8, d9, [sp, 80]\n",
            "stp d10, d11, [sp, 96]\n",
            "stp d12, d13, [sp, 112]\n",
            "stp d14, d15, [sp, 128]\n",
            "stp x29, x30, [sp, 144]\n",
            $crate::arch::saved_rows!(),
        )
    };
}

/// [`store_registers`], with the address to return to signed.
macro_rules! push_registers {
    () => {
        concat!($crate::arch::sign_return!(), $crate::arch::store_registers!())
    };
}

/// Goes on with the suspended context at the stack pointer, whatever was described before.
macro_rules! pop_and_go {
    () => {
        concat!(
            $crate::arch::picture!(),
            "ldp x21, x22, [sp, 16]\n",
            "ldp x23, x24, [sp, 32]\n",
            "ldp x25, x26, [sp, 48]\n",
            "ldp x27, x28, [sp, 64]\n",
            "ldp d8, d9, [sp, 80]\n",
            "ldp d10, d11, [sp, 96]\n",
            "ldp d12, d13, [sp, 112]\n",
            "ldp d14, d15, [sp, 128]\n",
            "ldp x29, x30, [sp, 144]\n",
            "ldp x19, x20, [sp], 160\n",
            ".cfi_adjust_cfa_offset -160\n",
            ".cfi_restore x19\n",
            ".cfi_restore x20\n",
            ".cfi_restore x21\n",
            ".cfi_restore x22\n",
            ".cfi_restore x23\n",
            ".cfi_restore x24\n",
            ".cfi_restore x25\n",
            ".cfi_restore x26\n",
            ".cfi_restore x27\n",
            ".cfi_restore x28\n",
            ".cfi_restore d8\n",
            ".cfi_restore d9\n",
            ".cfi_restore d10\n",
            ".cfi_restore d11\n",
            ".cfi_restore d12\n",
            ".cfi_restore d13\n",
            ".cfi_restore d14\n",
            ".cfi_restore d15\n",
            ".cfi_restore x29\n",
            ".cfi_restore x30\n",
            $crate::arch::check_return!(),
            "ret",
        )
    };
}

/// The thread's environment into x9, or null.
macro_rules! load_env {
    () => {
        concat!(
            "adrp x9, :gottprel:colib_thread_slot\n",
            "ldr x9, [x9, :gottprel_lo12:colib_thread_slot]\n",
            "mrs x10, tpidr_el0\n",
            "ldr x9, [x10, x9]",
        )
    };
}

/// Describes the stack pointer as a suspended context's.
macro_rules! picture {
    () => {
        concat!(".cfi_def_cfa sp, 160\n", $crate::arch::saved_rows!())
    };
}

/// Calls the coroutine at a register, whose stack was just left, suspended: after all that was written there, since from here on
/// another thread may release it. Uses x10.
macro_rules! suspend {
    ($co:literal) => {
        concat!("add x10, ", $co, ", {resumer}\nstlr xzr, [x10]")
    };
}

/// On top of an empty stack: a walk ends here, and reads nothing above, where a guard may be.
macro_rules! nothing_above {
    () => {
        ".cfi_undefined x30\n.cfi_def_cfa sp, 16"
    };
}

/// co_resume, whole: the checks, who runs, and the switch. A macro, so that each of its exported names is
/// the function itself: a switch is then one call and one jump.
///
/// `x0` is the coroutine. The usual cases, suspended and new, on a private stack, go from here; for all
/// others, and for misuse, nothing has changed and `run::resume_slowly` begins anew. `run` says what the
/// checks mean.
macro_rules! resume_body {
    () => {
        ::core::arch::naked_asm!(
            ".cfi_startproc",
            "hint 34", // bti c
            "cbz x0, 9f",
            // x9: the thread's environment, or null, which no coroutine belongs to.
            $crate::arch::load_env!(),
            "ldr x10, [x0, {env}]",
            "cmp x10, x9",
            "b.ne 9f",
            "ldr x10, [x0, {resumer}]",
            "cbnz x10, 9f",
            "ldr x11, [x9, {exceptions}]",
            "ldr w12, [x11, {uncaught}]",
            "ldr x11, [x11, {caught}]",
            "orr x12, x12, x11",
            "cbnz x12, 9f",
            // x1: the resumer.
            "ldr x1, [x9, {current}]",
            "ldr x11, [x0, {word}]",
            "ldr x12, ={for_resume}",
            "and x11, x11, x12",
            "cmp x11, {suspended}",
            "b.hi 9f",
            "b.lo 2f",
            "str x1, [x0, {resumer}]",
            "str x0, [x9, {current}]",
            ".cfi_remember_state",
            $crate::arch::push_registers!(),
            "mov x10, sp",
            "str x10, [x1, {sp}]",
            // (x0: who enters, x1: who leaves, also below.)
            "990: ldr x10, [x9, {resumes}]",
            $crate::arch::probe_note!("resume", "8@x0 8@x1"),
            "add x10, x10, 1",
            "str x10, [x9, {resumes}]",
            "ldr x10, [x0, {sp}]",
            "mov sp, x10",
            $crate::arch::pop_and_go!(),
            // New: on its stack there is nothing to restore.
            "2:",
            ".cfi_restore_state",
            ".cfi_remember_state",
            "ldrb w10, [x0, {wait_state}]",
            "cbnz w10, 9f",
            "str x1, [x0, {resumer}]",
            "str x0, [x9, {current}]",
            "990: ldr x10, [x9, {resumes}]",
            $crate::arch::probe_note!("resume", "8@x0 8@x1"),
            "add x10, x10, 1",
            "str x10, [x9, {resumes}]",
            "mov w10, 1",
            "strb w10, [x0, {word}]",
            // StackMem::start
            "ldr x10, [x0, {stack_mem}]",
            "ldr w11, [x10, {tag}]",
            "and w11, w11, {colours} - 1",
            "ldr x10, [x10, {stack_bp}]",
            "sub x10, x10, x11, lsl 6",
            $crate::arch::push_registers!(),
            "mov x11, sp",
            "str x11, [x1, {sp}]",
            "mov sp, x10",
            $crate::arch::nothing_above!(),
            // Says that it has run, too.
            "str x10, [x0, {sp}]",
            "mov x19, x0",
            "mov x29, xzr",
            "b {first_frame}",
            // (A conditional branch does not reach far enough.)
            "9:",
            ".cfi_restore_state",
            "b {slow}",
            ".cfi_endproc",
            slow = sym $crate::routine::run::resume_slowly,
            first_frame = sym $crate::arch::first_frame,
            env = const $crate::routine::coroutine::at::ENV,
            resumer = const $crate::routine::coroutine::at::RESUMER,
            sp = const $crate::routine::coroutine::at::SP,
            word = const $crate::routine::coroutine::at::WORD,
            wait_state = const $crate::routine::coroutine::at::WAIT_STATE,
            stack_mem = const $crate::routine::coroutine::at::STACK_MEM,
            tag = const $crate::routine::stack::at::TAG,
            stack_bp = const $crate::routine::stack::at::STACK_BP,
            colours = const $crate::routine::stack::COLOURS,
            for_resume = const $crate::routine::coroutine::word::FOR_RESUME,
            suspended = const $crate::routine::coroutine::word::SUSPENDED,
            current = const $crate::routine::env::at::CURRENT,
            resumes = const $crate::routine::env::at::RESUMES,
            exceptions = const $crate::routine::env::at::EXCEPTIONS,
            caught = const $crate::sys::exceptions::at::CAUGHT,
            uncaught = const $crate::sys::exceptions::at::UNCAUGHT,
        )
    };
}

/// co_yield_ct, whole, as [`resume_body`]. What is unusual, or no coroutine, goes to `run::yield_slowly`.
macro_rules! yield_body {
    () => {
        ::core::arch::naked_asm!(
            ".cfi_startproc",
            "hint 34", // bti c
            $crate::arch::load_env!(),
            "cbz x9, 9f",
            // x0: who leaves. x1: who gets control back.
            "ldr x0, [x9, {current}]",
            "ldr x1, [x0, {resumer}]",
            "cbz x1, 9f",
            "ldrb w10, [x0, {pending}]",
            "cbnz w10, 9f",
            "ldrh w10, [x1, {share_and_pending}]",
            "cbnz w10, 9f",
            "ldr x11, [x9, {exceptions}]",
            "ldr w12, [x11, {uncaught}]",
            "ldr x11, [x11, {caught}]",
            "orr x12, x12, x11",
            "cbnz x12, 9f",
            "990: str x1, [x9, {current}]",
            $crate::arch::probe_note!("yield", "8@x0 8@x1"),
            ".cfi_remember_state",
            $crate::arch::push_registers!(),
            "mov x10, sp",
            "str x10, [x0, {sp}]",
            "ldr x10, [x1, {sp}]",
            "mov sp, x10",
            $crate::arch::suspend!("x0"),
            $crate::arch::pop_and_go!(),
            "9:",
            ".cfi_restore_state",
            "b {slow}",
            ".cfi_endproc",
            slow = sym $crate::routine::run::yield_slowly,
            resumer = const $crate::routine::coroutine::at::RESUMER,
            sp = const $crate::routine::coroutine::at::SP,
            pending = const $crate::routine::coroutine::at::PENDING,
            share_and_pending = const $crate::routine::coroutine::at::SHARE_AND_PENDING,
            current = const $crate::routine::env::at::CURRENT,
            exceptions = const $crate::routine::env::at::EXCEPTIONS,
            caught = const $crate::sys::exceptions::at::CAUGHT,
            uncaught = const $crate::sys::exceptions::at::UNCAUGHT,
        )
    };
}

pub(crate) use {
    load_env, nothing_above, picture, pop_and_go, push_registers, resume_body, saved_rows, store_registers,
    suspend, yield_body,
};

/// Runs `co` until its next yield or its end. A call that makes no sense is logged and does nothing.
///
/// # Safety
/// `co` is null or a live control block.
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn resume(co: *const Coroutine) {
    resume_body!()
}

/// Back to the resumer; on the main coroutine or without an environment a message and nothing else.
#[unsafe(naked)]
pub(crate) extern "C-unwind" fn yield_now() {
    yield_body!()
}

/// Suspends the running coroutine, `from`, and goes on with the context at `sp`: a resume. `from` counts as running
/// meanwhile, since it has resumed.
///
/// Must be the last thing its caller does, or be called as an ordinary function: in both cases it
/// "returns" when somebody switches back.
///
/// # Safety
/// `sp` is a context that this function, its like below or [`first_frame_at`] made, that is suspended, whose bytes are in
/// place, and that nobody else will enter. `from` outlives the suspension.
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn switch(from: *const Coroutine, sp: *mut u8) {
    naked_asm!(
        ".cfi_startproc",
        "hint 34", // bti c
        push_registers!(),
        "mov x10, sp",
        "str x10, [x0, {sp}]",
        "mov sp, x1",
        pop_and_go!(),
        ".cfi_endproc",
        sp = const at::SP,
    )
}

/// As [`switch`], and `from`, which has no resumer from then on, is a suspended coroutine once its stack is left: a
/// yield. Another thread may release it at that moment.
///
/// # Safety
/// As [`switch`], but for `from`, which nobody here touches after it.
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn switch_back(from: *const Coroutine, sp: *mut u8) {
    naked_asm!(
        ".cfi_startproc",
        "hint 34", // bti c
        push_registers!(),
        "mov x10, sp",
        "str x10, [x0, {sp}]",
        "mov sp, x1",
        suspend!("x0"),
        pop_and_go!(),
        ".cfi_endproc",
        sp = const at::SP,
        resumer = const at::RESUMER,
    )
}

/// As [`switch_back`], but who is resumed goes on at the start of `then`, as if the caller of this function's
/// caller had called that instead: nothing of ours stays on the stack meanwhile. In tail position the
/// frames are gone; called in the ordinary way it returns what `then` returns, which is the same.
///
/// # Safety
/// As [`switch_back`].
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn switch_back_into(
    from: *const Coroutine,
    sp: *mut u8,
    then: unsafe extern "C-unwind" fn() -> isize,
) -> isize {
    naked_asm!(
        ".cfi_startproc",
        "hint 34", // bti c
        // Where `then` returns to lies above the picture, which goes on at 2.
        sign_return!(),
        "stp x2, x30, [sp, -16]!",
        ".cfi_adjust_cfa_offset 16",
        ".cfi_rel_offset x30, 8",
        "adr x30, 2f",
        resign!(),
        store_registers!(),
        picture!(),
        "mov x10, sp",
        "str x10, [x0, {sp}]",
        "mov sp, x1",
        suspend!("x0"),
        pop_and_go!(),
        ".cfi_def_cfa sp, 16",
        ".cfi_rel_offset x30, 8",
        signed_state!(),
        // (A walk looks up the address before.)
        "nop",
        "2:",
        "ldp x16, x30, [sp], 16",
        ".cfi_def_cfa sp, 0",
        ".cfi_restore x30",
        check_return!(),
        "br x16",
        ".cfi_endproc",
        sp = const at::SP,
        resumer = const at::RESUMER,
    )
}

/// Suspends the running coroutine, `from`, runs `work(arg)` on the service stack whose top is `service`, and goes on with
/// the context whose stack pointer `work` returns.
///
/// For work that may not happen on the stack it is about: copying that stack, freeing it. `work` says what `from` is then.
///
/// # Safety
/// As [`switch`] for the returned context; `service` is the 16-byte aligned top of a stack nobody
/// runs on; `work` does not unwind.
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn switch_on_service(
    from: *const Coroutine,
    service: *mut u8,
    work: unsafe extern "C-unwind" fn(*const Coroutine) -> *mut u8,
    arg: *const Coroutine,
) {
    naked_asm!(
        ".cfi_startproc",
        "hint 34", // bti c
        push_registers!(),
        "mov x10, sp",
        "str x10, [x0, {sp}]",
        "mov sp, x1",
        nothing_above!(),
        "mov x0, x3",
        "blr x2",
        "mov sp, x0",
        pop_and_go!(),
        ".cfi_endproc",
        sp = const at::SP,
    )
}

/// Where a context goes on in [`first_frame`] and its like: behind the landing pad, since a walk looks up the address before a return
/// address, and finds this function's description only there.
const START: usize = 4;

/// Where every routine starts and ends. `x19` holds the coroutine, `sp` is 16-byte aligned, `x29`
/// is zero, and the caller's address is described as undefined: backtraces end here, and an
/// exception that gets this far finds no handler (std::terminate).
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn first_frame() {
    naked_asm!(
        ".cfi_startproc",
        nothing_above!(),
        "hint 34", // bti c
        "ldr x8, [x19, {pfn}]",
        "cbz x8, 2f",
        "ldr x0, [x19, {arg}]",
        "blr x8",
        // The usual end, as a yield: x9 the environment, x1 who gets control back.
        "2:",
        "ldr x9, [x19, {env}]",
        "ldr x1, [x19, {resumer}]",
        "cbz x1, 3f",
        "ldrh w10, [x19, {share_and_pending}]",
        "cbnz w10, 3f",
        "ldrh w10, [x1, {share_and_pending}]",
        "cbnz w10, 3f",
        "ldr x11, [x9, {exceptions}]",
        "ldr w12, [x11, {uncaught}]",
        "ldr x11, [x11, {caught}]",
        "orr x12, x12, x11",
        "cbnz x12, 3f",
        "mov w10, 1",
        "strb w10, [x19, {ended}]",
        "mov x10, {at_end}",
        "str x10, [x19, {sp}]",
        "str x1, [x9, {current}]",
        "990: ldr x10, [x9, {ends}]",
        crate::arch::probe_note!("end", "8@x19 8@x1"),
        "add x10, x10, 1",
        "str x10, [x9, {ends}]",
        "ldr x0, [x1, {sp}]",
        "4:",
        "mov sp, x0",
        picture!(),
        signed_state!(),
        suspend!("x19"),
        "b 5f",
        // Any other end.
        "3:",
        nothing_above!(),
        "mov x0, x19",
        "bl {finish}",
        // x0: the context to go on with. x1: top of the service stack if that context can only
        // be entered from there.
        "cbz x1, 4b",
        "mov sp, x1",
        "mov x0, x19",
        "bl {finish_on_service}",
        "mov sp, x0",
        // (The block may be gone.)
        "5:",
        pop_and_go!(),
        ".cfi_endproc",
        pfn = const at::PFN,
        arg = const at::ARG,
        env = const at::ENV,
        resumer = const at::RESUMER,
        share_and_pending = const at::SHARE_AND_PENDING,
        sp = const at::SP,
        ended = const at::ENDED,
        at_end = const AT_END,
        current = const env::at::CURRENT,
        exceptions = const env::at::EXCEPTIONS,
        ends = const env::at::ENDS,
        caught = const exceptions::at::CAUGHT,
        uncaught = const exceptions::at::UNCAUGHT,
        finish = sym run::finish,
        finish_on_service = sym run::finish_on_service,
    )
}

/// [`first_frame`] for a thread whose switches are watched: `x19` and `sp` as there.
#[unsafe(naked)]
unsafe extern "C-unwind" fn first_frame_watched() {
    naked_asm!(
        ".cfi_startproc",
        nothing_above!(),
        "hint 34", // bti c
        "bl {arrived}",
        "b {first_frame}",
        ".cfi_endproc",
        arrived = sym watched::arrived_at_start,
        first_frame = sym first_frame,
    )
}

/// Builds, at the top of a stack, the context that starts `co`'s routine, and returns its stack pointer.
///
/// # Safety
/// `top` is the 16-byte aligned end of a writable stack of at least a page that nobody runs on;
/// `co` outlives the run.
#[inline(always)]
pub(crate) unsafe fn first_frame_at(top: *mut u8, co: *const Coroutine) -> *mut u8 {
    let sp = top.wrapping_sub(SAVED_WORDS * 8).cast::<[usize; SAVED_WORDS]>();
    let start = if tools::watched() { first_frame_watched } else { first_frame };
    let mut frame = [0; SAVED_WORDS];
    // x19, and where to go on. x29 is 0: a walker by frame pointers ends here.
    frame[0] = co.addr();
    frame[SAVED_WORDS - 1] = signed(start as *const () as usize + START, top);
    // SAFETY: the words end at `top`, inside the stack the caller vouches for.
    unsafe { sp.write(frame) };
    sp.cast()
}

/// Copies the live bytes of a stack, `len` of them: a multiple of 16.
///
/// # Safety
/// `len` readable bytes at `from`, writable ones at `to`, no overlap.
#[inline(always)]
pub(crate) unsafe fn copy_live(from: *const u8, to: *mut u8, len: usize) {
    use core::arch::aarch64::{vld1q_u8, vst1q_u8};
    // Most coroutines wait with a few hundred live bytes: a call of memcpy costs as much as those.
    if len > 1024 {
        if tools::watched() {
            // SAFETY: as the caller vouches.
            return unsafe { copy_unseen(from, to, len) };
        }
        // SAFETY: as the caller vouches.
        return unsafe { from.copy_to_nonoverlapping(to, len) };
    }
    for at in (0..len).step_by(16) {
        // SAFETY: inside the range the caller vouches for; unaligned loads are allowed.
        let bytes = unsafe { vld1q_u8(from.wrapping_add(at)) };
        // SAFETY: as above.
        unsafe { vst1q_u8(to.wrapping_add(at), bytes) };
        // Keeps the compiler from calling memcpy after all.
        compiler_fence(Ordering::SeqCst);
    }
}

/// Copies past the sanitizers' memcpy, which takes gaps between a stack's variables for errors.
///
/// # Safety
/// As [`copy_live`].
#[cold]
unsafe fn copy_unseen(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: `len` bytes, more than none and a multiple of 16, as the caller vouches.
    unsafe {
        asm!(
            "2:",
            "ldp {0}, {1}, [{from}], 16",
            "stp {0}, {1}, [{to}], 16",
            "subs {len}, {len}, 16",
            "b.ne 2b",
            out(reg) _,
            out(reg) _,
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            len = inout(reg) len => _,
            options(nostack)
        );
    }
}

/// Asks the cache for the line at `at`, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    // SAFETY: a hint; never faults.
    unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) at, options(nostack, readonly, preserves_flags)) };
}

/// Asks the cache for `count` lines from `at` on, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch_lines(at: *const u8, count: usize) {
    for line in 0..count {
        prefetch(at.wrapping_add(line * CACHE_LINE));
    }
}

/// The context (coctx_t) of programs that use coctx_* themselves. The original knows no such processor: the size of `regs`
/// is that of x86-64, so that the headers are the same, and so are the places of what is there. The registers that
/// a call preserves are too many for it: they wait on the context's own stack, as the picture above.
pub(crate) mod coctx {
    use core::arch::naked_asm;
    use core::ffi::c_void;

    use super::{SAVED_WORDS, START, signed};

    const X0: usize = 7;
    const X1: usize = 8;
    const RETURN: usize = 9;
    const SP: usize = 13;

    /// The least bytes of a stack that `make` takes.
    pub(crate) const LEAST: usize = SAVED_WORDS * 8 + 64;

    /// Words in `coctx_t::regs`.
    pub(crate) const REGS: usize = 14;

    /// Where a made context starts: `x19` is its function, whose arguments are in place. Walks and exceptions end here.
    #[unsafe(naked)]
    unsafe extern "C-unwind" fn begin() {
        naked_asm!(
            ".cfi_startproc",
            nothing_above!(),
            "hint 34", // bti c
            "blr x19",
            // It must not return.
            "brk 1",
            ".cfi_endproc",
        )
    }

    /// Fills `regs` so that a swap to it calls `entry(s, s1)` on the stack that ends at `top`.
    ///
    /// # Safety
    /// `top` ends a writable stack.
    pub(crate) unsafe fn make(
        regs: &mut [*mut c_void; REGS],
        top: *mut u8,
        entry: *mut c_void,
        s: *mut c_void,
        s1: *mut c_void,
    ) {
        *regs = [core::ptr::null_mut(); REGS];
        let top = top.map_addr(|a| a & !15);
        let sp = top.wrapping_sub(SAVED_WORDS * 8).cast::<[usize; SAVED_WORDS]>();
        let mut frame = [0; SAVED_WORDS];
        frame[0] = entry.addr();
        frame[SAVED_WORDS - 1] = signed(begin as *const () as usize + START, top);
        // SAFETY: ends where the caller's stack does.
        unsafe { sp.write(frame) };
        regs[SP] = sp.cast();
        regs[RETURN] = entry;
        regs[X0] = s;
        regs[X1] = s1;
    }

    /// Saves the caller into `regs` at `from` and goes on with `to`; exported as `coctx_swap`.
    ///
    /// Only what the ABI asks a callee to preserve is saved, on the caller's stack; `regs` gets the stack pointer at
    /// 104, and for debuggers the return address at 72. The two arguments are loaded from 56 and 64, where `make` put
    /// them.
    ///
    /// # Safety
    /// Both point at a `coctx_t`; `to` was made by `coctx_make` or saved by this function.
    #[unsafe(naked)]
    pub(crate) unsafe extern "C-unwind" fn swap(from: *mut c_void, to: *mut c_void) {
        naked_asm!(
            ".cfi_startproc",
            "hint 34", // bti c
            "str x30, [x0, 72]",
            push_registers!(),
            "mov x10, sp",
            "str x10, [x0, 104]",
            "ldr x10, [x1, 104]",
            "mov sp, x10",
            "ldr x0, [x1, 56]",
            "ldr x1, [x1, 64]",
            pop_and_go!(),
            ".cfi_endproc",
        )
    }
}
