//! riscv64, the psABI's LP64D.
//!
//! A suspended context is one stack pointer. It points at
//!
//! ```text
//!   sp + 0    s1   s2
//!   sp + 16   s3   s4
//!   sp + 32   s5   s6
//!   sp + 48   s7   s8
//!   sp + 64   s9   s10
//!   sp + 80   s11  fs0
//!   sp + 96   fs1  fs2
//!   sp + 112  fs3  fs4
//!   sp + 128  fs5  fs6
//!   sp + 144  fs7  fs8
//!   sp + 160  fs9  fs10
//!   sp + 176  fs11 (nothing)
//!   sp + 192  s0   address to go on at
//!   sp + 208  the frame of whoever called the switch       (16-byte aligned)
//! ```
//!
//! Everything else is caller-saved by the ABI. fcsr belongs to the thread and is not moved, as MXCSR on x86-64. A
//! switch leaves by a jump through t2, as that of x86-64 does by `jmp`: a jump through ra or t0 is a return to the
//! processor, which would look for it where the stack we came from has been called from.

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

/// Bytes of a guard that compilers' probes of large frames (-fstack-clash-protection) take for granted.
pub(crate) const LEAST_GUARD: usize = 4096;

/// Bytes below a suspended context's stack pointer that its code may still use: none, a switch is
/// always reached by a call.
const SAVED_WORDS: usize = 26;

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
            "la.tls.ie {0}, colib_thread_slot",
            "add {0}, {0}, tp",
            "ld {0}, 0({0})",
            out(reg) value,
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
            "la.tls.ie {0}, colib_thread_slot",
            "add {0}, {0}, tp",
            "sd {1}, 0({0})",
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
                concat!("lga {0}, ", $name),
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
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.__gregs };
    (registers[libc::REG_SP] as usize, registers[libc::REG_PC] as usize)
}

/// Asks valgrind, by an instruction sequence that does nothing elsewhere: 0 is the answer there.
pub(crate) fn valgrind_request(request: usize, args: [usize; 5]) -> usize {
    let block = [request, args[0], args[1], args[2], args[3], args[4]];
    let mut answer = 0_usize;
    // SAFETY: the shifts write to the register that is always zero, the OR is of a register with itself; valgrind reads
    // `block`, which is there, and does to memory only what it means for valgrind's own notes.
    unsafe {
        asm!(
            ".option push",
            ".option norvc",
            "srli zero, zero, 3",
            "srli zero, zero, 13",
            "srli zero, zero, 51",
            "srli zero, zero, 61",
            "or a0, a0, a0",
            ".option pop",
            in("a4") &raw const block,
            inout("a3") answer,
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
        ::core::arch::naked_asm!("tail {}", sym $target)
    };
}

/// A whole function whose first instructions find the distance of the thread's slot from the thread's pointer: for debuggers.
macro_rules! slot_offset_body {
    () => {
        ::core::arch::naked_asm!("la.tls.ie a0, colib_thread_slot", "ret")
    };
}

/// Refers to a static object and does nothing: a linker that drops what is unused keeps it.
macro_rules! keep {
    ($object:path) => {
        ::core::arch::asm!(".reloc ., R_RISCV_NONE, {}", sym $object, options(nomem, nostack, preserves_flags))
    };
}
pub(crate) use {keep, other_name, slot_offset_body};

/// Where a context at the stack pointer has each register.
macro_rules! saved_rows {
    () => {
        concat!(
            ".cfi_rel_offset s1, 0\n",
            ".cfi_rel_offset s2, 8\n",
            ".cfi_rel_offset s3, 16\n",
            ".cfi_rel_offset s4, 24\n",
            ".cfi_rel_offset s5, 32\n",
            ".cfi_rel_offset s6, 40\n",
            ".cfi_rel_offset s7, 48\n",
            ".cfi_rel_offset s8, 56\n",
            ".cfi_rel_offset s9, 64\n",
            ".cfi_rel_offset s10, 72\n",
            ".cfi_rel_offset s11, 80\n",
            ".cfi_rel_offset fs0, 88\n",
            ".cfi_rel_offset fs1, 96\n",
            ".cfi_rel_offset fs2, 104\n",
            ".cfi_rel_offset fs3, 112\n",
            ".cfi_rel_offset fs4, 120\n",
            ".cfi_rel_offset fs5, 128\n",
            ".cfi_rel_offset fs6, 136\n",
            ".cfi_rel_offset fs7, 144\n",
            ".cfi_rel_offset fs8, 152\n",
            ".cfi_rel_offset fs9, 160\n",
            ".cfi_rel_offset fs10, 168\n",
            ".cfi_rel_offset fs11, 176\n",
            ".cfi_rel_offset s0, 192\n",
            ".cfi_rel_offset ra, 200\n",
        )
    };
}

/// Saves what the ABI asks a callee to preserve: the picture above, from its caller's address down.
macro_rules! push_registers {
    () => {
        concat!(
            "addi sp, sp, -208\n",
            ".cfi_adjust_cfa_offset 208\n",
            "sd s1, 0(sp)\n",
            "sd s2, 8(sp)\n",
            "sd s3, 16(sp)\n",
            "sd s4, 24(sp)\n",
            "sd s5, 32(sp)\n",
            "sd s6, 40(sp)\n",
            "sd s7, 48(sp)\n",
            "sd s8, 56(sp)\n",
            "sd s9, 64(sp)\n",
            "sd s10, 72(sp)\n",
            "sd s11, 80(sp)\n",
            "fsd fs0, 88(sp)\n",
            "fsd fs1, 96(sp)\n",
            "fsd fs2, 104(sp)\n",
            "fsd fs3, 112(sp)\n",
            "fsd fs4, 120(sp)\n",
            "fsd fs5, 128(sp)\n",
            "fsd fs6, 136(sp)\n",
            "fsd fs7, 144(sp)\n",
            "fsd fs8, 152(sp)\n",
            "fsd fs9, 160(sp)\n",
            "fsd fs10, 168(sp)\n",
            "fsd fs11, 176(sp)\n",
            "sd s0, 192(sp)\n",
            "sd ra, 200(sp)\n",
            $crate::arch::saved_rows!(),
        )
    };
}

/// Goes on with the suspended context at the stack pointer, whatever was described before.
macro_rules! pop_and_go {
    () => {
        concat!(
            $crate::arch::picture!(),
            "ld s1, 0(sp)\n",
            "ld s2, 8(sp)\n",
            "ld s3, 16(sp)\n",
            "ld s4, 24(sp)\n",
            "ld s5, 32(sp)\n",
            "ld s6, 40(sp)\n",
            "ld s7, 48(sp)\n",
            "ld s8, 56(sp)\n",
            "ld s9, 64(sp)\n",
            "ld s10, 72(sp)\n",
            "ld s11, 80(sp)\n",
            "fld fs0, 88(sp)\n",
            "fld fs1, 96(sp)\n",
            "fld fs2, 104(sp)\n",
            "fld fs3, 112(sp)\n",
            "fld fs4, 120(sp)\n",
            "fld fs5, 128(sp)\n",
            "fld fs6, 136(sp)\n",
            "fld fs7, 144(sp)\n",
            "fld fs8, 152(sp)\n",
            "fld fs9, 160(sp)\n",
            "fld fs10, 168(sp)\n",
            "fld fs11, 176(sp)\n",
            "ld s0, 192(sp)\n",
            "ld t2, 200(sp)\n",
            "addi sp, sp, 208\n",
            ".cfi_adjust_cfa_offset -208\n",
            ".cfi_restore s1\n",
            ".cfi_restore s2\n",
            ".cfi_restore s3\n",
            ".cfi_restore s4\n",
            ".cfi_restore s5\n",
            ".cfi_restore s6\n",
            ".cfi_restore s7\n",
            ".cfi_restore s8\n",
            ".cfi_restore s9\n",
            ".cfi_restore s10\n",
            ".cfi_restore s11\n",
            ".cfi_restore fs0\n",
            ".cfi_restore fs1\n",
            ".cfi_restore fs2\n",
            ".cfi_restore fs3\n",
            ".cfi_restore fs4\n",
            ".cfi_restore fs5\n",
            ".cfi_restore fs6\n",
            ".cfi_restore fs7\n",
            ".cfi_restore fs8\n",
            ".cfi_restore fs9\n",
            ".cfi_restore fs10\n",
            ".cfi_restore fs11\n",
            ".cfi_restore s0\n",
            ".cfi_register ra, t2\n",
            "jr t2",
        )
    };
}

/// The thread's environment into t0, or null.
macro_rules! load_env {
    () => {
        concat!("la.tls.ie t0, colib_thread_slot\n", "add t0, t0, tp\n", "ld t0, 0(t0)")
    };
}

/// Describes the stack pointer as a suspended context's.
macro_rules! picture {
    () => {
        concat!(".cfi_def_cfa sp, 208\n", $crate::arch::saved_rows!())
    };
}

/// Calls the coroutine at a register, whose stack was just left, suspended: after all that was written there, since from here on
/// another thread may release it.
macro_rules! suspend {
    ($co:literal) => {
        concat!("fence rw, w\nsd zero, {resumer}(", $co, ")")
    };
}

/// On top of an empty stack: a walk ends here, and reads nothing above, where a guard may be.
macro_rules! nothing_above {
    () => {
        ".cfi_undefined ra\n.cfi_def_cfa sp, 16"
    };
}

/// co_resume, whole: the checks, who runs, and the switch. A macro, so that each of its exported names is
/// the function itself: a switch is then one call and one jump.
///
/// `a0` is the coroutine. The usual cases, suspended and new, on a private stack, go from here; for all
/// others, and for misuse, nothing has changed and `run::resume_slowly` begins anew. `run` says what the
/// checks mean.
macro_rules! resume_body {
    () => {
        ::core::arch::naked_asm!(
            ".cfi_startproc",
            "beqz a0, 9f",
            // t0: the thread's environment, or null, which no coroutine belongs to.
            $crate::arch::load_env!(),
            "ld t1, {env}(a0)",
            "bne t1, t0, 9f",
            "ld t1, {resumer}(a0)",
            "bnez t1, 9f",
            "ld t1, {exceptions}(t0)",
            "lwu t2, {uncaught}(t1)",
            "ld t1, {caught}(t1)",
            "or t1, t1, t2",
            "bnez t1, 9f",
            // a1: the resumer.
            "ld a1, {current}(t0)",
            "ld t1, {word}(a0)",
            "li t2, {for_resume}",
            "and t1, t1, t2",
            "li t2, {suspended}",
            "bgtu t1, t2, 9f",
            "bltu t1, t2, 2f",
            "sd a1, {resumer}(a0)",
            "sd a0, {current}(t0)",
            ".cfi_remember_state",
            $crate::arch::push_registers!(),
            "sd sp, {sp}(a1)",
            // (a0: who enters, a1: who leaves, also below.)
            "990: ld t1, {resumes}(t0)",
            $crate::arch::probe_note!("resume", "8@a0 8@a1"),
            "addi t1, t1, 1",
            "sd t1, {resumes}(t0)",
            "ld sp, {sp}(a0)",
            $crate::arch::pop_and_go!(),
            // New: on its stack there is nothing to restore.
            "2:",
            ".cfi_restore_state",
            ".cfi_remember_state",
            "lbu t1, {wait_state}(a0)",
            "bnez t1, 9f",
            "sd a1, {resumer}(a0)",
            "sd a0, {current}(t0)",
            "990: ld t1, {resumes}(t0)",
            $crate::arch::probe_note!("resume", "8@a0 8@a1"),
            "addi t1, t1, 1",
            "sd t1, {resumes}(t0)",
            "li t1, 1",
            "sb t1, {word}(a0)",
            // StackMem::start
            "ld t1, {stack_mem}(a0)",
            "lwu t2, {tag}(t1)",
            "andi t2, t2, {colours} - 1",
            "slli t2, t2, 6",
            "ld t1, {stack_bp}(t1)",
            "sub t1, t1, t2",
            $crate::arch::push_registers!(),
            "sd sp, {sp}(a1)",
            "mv sp, t1",
            $crate::arch::nothing_above!(),
            // Says that it has run, too.
            "sd sp, {sp}(a0)",
            "mv s1, a0",
            "li s0, 0",
            "tail {first_frame}",
            // (A conditional branch does not reach far enough.)
            "9:",
            ".cfi_restore_state",
            "tail {slow}",
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
            $crate::arch::load_env!(),
            "beqz t0, 9f",
            // a0: who leaves. a1: who gets control back.
            "ld a0, {current}(t0)",
            "ld a1, {resumer}(a0)",
            "beqz a1, 9f",
            "lbu t1, {pending}(a0)",
            "bnez t1, 9f",
            "lhu t1, {share_and_pending}(a1)",
            "bnez t1, 9f",
            "ld t1, {exceptions}(t0)",
            "lwu t2, {uncaught}(t1)",
            "ld t1, {caught}(t1)",
            "or t1, t1, t2",
            "bnez t1, 9f",
            "990: sd a1, {current}(t0)",
            $crate::arch::probe_note!("yield", "8@a0 8@a1"),
            ".cfi_remember_state",
            $crate::arch::push_registers!(),
            "sd sp, {sp}(a0)",
            "ld sp, {sp}(a1)",
            $crate::arch::suspend!("a0"),
            $crate::arch::pop_and_go!(),
            "9:",
            ".cfi_restore_state",
            "tail {slow}",
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
    load_env, nothing_above, picture, pop_and_go, push_registers, resume_body, saved_rows, suspend,
    yield_body,
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
        push_registers!(),
        "sd sp, {sp}(a0)",
        "mv sp, a1",
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
        push_registers!(),
        "sd sp, {sp}(a0)",
        "mv sp, a1",
        suspend!("a0"),
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
        // Where `then` returns to lies above the picture, which goes on at 2.
        "addi sp, sp, -16",
        ".cfi_adjust_cfa_offset 16",
        "sd a2, 0(sp)",
        "sd ra, 8(sp)",
        ".cfi_rel_offset ra, 8",
        "lla ra, 2f",
        push_registers!(),
        picture!(),
        "sd sp, {sp}(a0)",
        "mv sp, a1",
        suspend!("a0"),
        pop_and_go!(),
        ".cfi_def_cfa sp, 16",
        ".cfi_rel_offset ra, 8",
        // (A walk looks up the address before.)
        "nop",
        "2:",
        "ld t1, 0(sp)",
        "ld ra, 8(sp)",
        "addi sp, sp, 16",
        ".cfi_def_cfa sp, 0",
        ".cfi_restore ra",
        "jr t1",
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
        push_registers!(),
        "sd sp, {sp}(a0)",
        "mv sp, a1",
        nothing_above!(),
        "mv a0, a3",
        "jalr a2",
        "mv sp, a0",
        pop_and_go!(),
        ".cfi_endproc",
        sp = const at::SP,
    )
}

/// Where a context goes on in [`first_frame`] and its like: behind a nop, since a walk looks up the address before a return
/// address, and finds this function's description only there.
const START: usize = 2;

/// Where every routine starts and ends. `s1` holds the coroutine, `sp` is 16-byte aligned, `s0`
/// is zero, and the caller's address is described as undefined: backtraces end here, and an
/// exception that gets this far finds no handler (std::terminate).
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn first_frame() {
    naked_asm!(
        ".cfi_startproc",
        nothing_above!(),
        "c.nop",
        "ld t1, {pfn}(s1)",
        "beqz t1, 2f",
        "ld a0, {arg}(s1)",
        "jalr t1",
        // The usual end, as a yield: t0 the environment, a1 who gets control back.
        "2:",
        "ld t0, {env}(s1)",
        "ld a1, {resumer}(s1)",
        "beqz a1, 3f",
        "lhu t1, {share_and_pending}(s1)",
        "bnez t1, 3f",
        "lhu t1, {share_and_pending}(a1)",
        "bnez t1, 3f",
        "ld t1, {exceptions}(t0)",
        "lwu t2, {uncaught}(t1)",
        "ld t1, {caught}(t1)",
        "or t1, t1, t2",
        "bnez t1, 3f",
        "li t1, 1",
        "sb t1, {ended}(s1)",
        "li t1, {at_end}",
        "sd t1, {sp}(s1)",
        "sd a1, {current}(t0)",
        "990: ld t1, {ends}(t0)",
        crate::arch::probe_note!("end", "8@s1 8@a1"),
        "addi t1, t1, 1",
        "sd t1, {ends}(t0)",
        "ld a0, {sp}(a1)",
        "4:",
        "mv sp, a0",
        picture!(),
        suspend!("s1"),
        "j 5f",
        // Any other end.
        "3:",
        nothing_above!(),
        "mv a0, s1",
        "call {finish}",
        // a0: the context to go on with. a1: top of the service stack if that context can only
        // be entered from there.
        "beqz a1, 4b",
        "mv sp, a1",
        "mv a0, s1",
        "call {finish_on_service}",
        "mv sp, a0",
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

/// [`first_frame`] for a thread whose switches are watched: `s1` and `sp` as there.
#[unsafe(naked)]
unsafe extern "C-unwind" fn first_frame_watched() {
    naked_asm!(
        ".cfi_startproc",
        nothing_above!(),
        "c.nop",
        "call {arrived}",
        "tail {first_frame}",
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
    // s1, and where to go on. s0 is 0: a walker by frame pointers ends here.
    frame[0] = co.addr();
    frame[SAVED_WORDS - 1] = start as *const () as usize + START;
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
    // Most coroutines wait with a few hundred live bytes: a call of memcpy costs as much as those.
    if len > 1024 {
        if tools::watched() {
            // SAFETY: as the caller vouches.
            return unsafe { copy_unseen(from, to, len) };
        }
        // SAFETY: as the caller vouches.
        return unsafe { from.copy_to_nonoverlapping(to, len) };
    }
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    for i in 0..len / 8 {
        // SAFETY: inside the range the caller vouches for; the stack is 16-byte aligned, buffers are 8-byte aligned.
        let word = unsafe { from.wrapping_add(i).read() };
        // SAFETY: as above.
        unsafe { to.wrapping_add(i).write(word) };
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
            "ld {0}, 0({from})",
            "ld {1}, 8({from})",
            "sd {0}, 0({to})",
            "sd {1}, 8({to})",
            "addi {from}, {from}, 16",
            "addi {to}, {to}, 16",
            "addi {len}, {len}, -16",
            "bnez {len}, 2b",
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
    // SAFETY: prefetch.r 0({0}) of Zicbop, by the instruction that it is without it: one that writes to the register which
    // is always zero. Never faults.
    unsafe { asm!("ori zero, {0}, 1", in(reg) at, options(nostack, readonly, preserves_flags)) };
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

    use super::{SAVED_WORDS, START};

    const A0: usize = 7;
    const A1: usize = 8;
    const RETURN: usize = 9;
    const SP: usize = 13;

    /// The least bytes of a stack that `make` takes.
    pub(crate) const LEAST: usize = SAVED_WORDS * 8 + 64;

    /// Words in `coctx_t::regs`.
    pub(crate) const REGS: usize = 14;

    /// Where a made context starts: `s1` is its function, whose arguments are in place. Walks and exceptions end here.
    #[unsafe(naked)]
    unsafe extern "C-unwind" fn begin() {
        naked_asm!(
            ".cfi_startproc",
            nothing_above!(),
            "c.nop",
            "jalr s1",
            // It must not return.
            "ebreak",
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
        let top = top.map_addr(|a| a & !15).wrapping_sub(SAVED_WORDS * 8).cast::<[usize; SAVED_WORDS]>();
        let mut frame = [0; SAVED_WORDS];
        frame[0] = entry.addr();
        frame[SAVED_WORDS - 1] = begin as *const () as usize + START;
        // SAFETY: ends where the caller's stack does.
        unsafe { top.write(frame) };
        regs[SP] = top.cast();
        regs[RETURN] = entry;
        regs[A0] = s;
        regs[A1] = s1;
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
            push_registers!(),
            "sd sp, 104(a0)",
            "sd ra, 72(a0)",
            "ld sp, 104(a1)",
            "ld a0, 56(a1)",
            "ld a1, 64(a1)",
            pop_and_go!(),
            ".cfi_endproc",
        )
    }
}
