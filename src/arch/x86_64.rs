//! x86-64, System V ABI.
//!
//! A suspended context is one stack pointer. It points at
//!
//! ```text
//!   sp + 0   r15
//!   sp + 8   r14
//!   sp + 16  r13
//!   sp + 24  r12
//!   sp + 32  rbx
//!   sp + 40  rbp
//!   sp + 48  address to go on at
//!   sp + 56  the frame of whoever called the switch        (16-byte aligned)
//! ```
//!
//! Everything else is caller-saved by the ABI. MXCSR and the x87 control word belong to the thread
//! and are not moved (docs/COMPAT.md). A switch leaves by `pop` + `jmp`, never by `ret`: the
//! processor's return predictor still points into the stack we came from, and a mispredicted `ret`
//! costs more than the rest of the switch.

use core::arch::{asm, global_asm, naked_asm};
use core::ffi::c_void;

use crate::routine::{Coroutine, finish, finish_on_service};

/// Bytes between two stack positions that keep the ABI's alignment.
pub(crate) const STACK_ALIGN: usize = 16;

/// Bytes below a suspended context's stack pointer that its code may still use: none, a switch is
/// always reached by a call.
const SAVED_WORDS: usize = 7;

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
    // libstdc++ or libc++abi supplies this; a C program has neither and sees a null address.
    ".weak __cxa_get_globals",
);

/// The calling thread's slot value (null at first).
#[inline(always)]
pub(crate) fn thread_slot() -> *const c_void {
    let value: *const c_void;
    // SAFETY: reads eight bytes of this thread's TLS block, which exists as long as the thread.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + colib_thread_slot@GOTTPOFF]",
            "mov {0}, qword ptr fs:[{0}]",
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
            "mov {0}, qword ptr [rip + colib_thread_slot@GOTTPOFF]",
            "mov qword ptr fs:[{0}], {1}",
            out(reg) _,
            in(reg) value,
            options(nostack, preserves_flags)
        );
    }
}

/// The address of `__cxa_get_globals`, null where no C++ runtime is linked.
pub(crate) fn cxa_get_globals_address() -> *const c_void {
    let value: *const c_void;
    // SAFETY: loads one pointer from the global offset table; a weak symbol has its entry there.
    unsafe {
        asm!(
            "mov {0}, qword ptr [rip + __cxa_get_globals@GOTPCREL]",
            out(reg) value,
            options(nostack, pure, readonly, preserves_flags)
        );
    }
    value
}

/// Suspends the running context into `*save` and goes on with the one at `sp`.
///
/// Must be the last thing its caller does, or be called as an ordinary function: in both cases it
/// "returns" when somebody switches back.
///
/// # Safety
/// `sp` is a context that this function, [`switch_on_service`] or [`first_frame_at`] made, that is
/// suspended, whose bytes are in place, and that nobody else will enter. `save` outlives the
/// suspension.
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn switch(save: *mut *mut u8, sp: *mut u8) {
    naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset rbp, 0",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset rbx, 0",
        "push r12",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset r12, 0",
        "push r13",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset r13, 0",
        "push r14",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset r14, 0",
        "push r15",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset r15, 0",
        "mov qword ptr [rdi], rsp",
        // From here the same description holds for the other stack: it has the same picture.
        "mov rsp, rsi",
        "pop r15",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore r15",
        "pop r14",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore r14",
        "pop r13",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore r13",
        "pop r12",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore r12",
        "pop rbx",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore rbx",
        "pop rbp",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore rbp",
        "pop rcx",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_register rip, rcx",
        "jmp rcx",
        ".cfi_endproc",
    )
}

/// As [`switch`], but who is resumed goes on at the start of `then`, as if the caller of this function's
/// caller had called that instead: nothing of ours stays on the stack meanwhile. In tail position the
/// frames are gone; called in the ordinary way it returns what `then` returns, which is the same.
///
/// # Safety
/// As [`switch`].
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn switch_into(
    save: *mut *mut u8,
    sp: *mut u8,
    then: unsafe extern "C-unwind" fn() -> isize,
) -> isize {
    naked_asm!(
        ".cfi_startproc",
        "push rdx",
        ".cfi_adjust_cfa_offset 8",
        "push rbp",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset rbp, 0",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset rbx, 0",
        "push r12",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset r12, 0",
        "push r13",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset r13, 0",
        "push r14",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset r14, 0",
        "push r15",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset r15, 0",
        "mov qword ptr [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "pop rcx",
        "jmp rcx",
        ".cfi_endproc",
    )
}

/// Suspends the running context into `*save`, runs `work(arg)` on the service stack whose top is
/// `service`, and goes on with the context whose stack pointer `work` returns.
///
/// For work that may not happen on the stack it is about: copying that stack, freeing it.
///
/// # Safety
/// As [`switch`] for the returned context; `service` is the 16-byte aligned top of a stack nobody
/// runs on; `work` does not unwind.
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn switch_on_service(
    save: *mut *mut u8,
    service: *mut u8,
    work: unsafe extern "C-unwind" fn(*const Coroutine) -> *mut u8,
    arg: *const Coroutine,
) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov qword ptr [rdi], rsp",
        "mov rsp, rsi",
        "mov rdi, rcx",
        "call rdx",
        "mov rsp, rax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "pop rcx",
        "jmp rcx",
    )
}

/// Where every routine starts and ends. `rbx` holds the coroutine, `rsp` is 16-byte aligned, `rbp`
/// is zero, and the caller's address is described as undefined: backtraces end here, and an
/// exception that gets this far finds no handler (std::terminate).
#[unsafe(naked)]
unsafe extern "C-unwind" fn first_frame() {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_undefined rip",
        ".cfi_def_cfa rsp, 16",
        "mov rax, qword ptr [rbx + {pfn}]",
        "test rax, rax",
        "jz 2f",
        "mov rdi, qword ptr [rbx + {arg}]",
        "call rax",
        "2:",
        "mov rdi, rbx",
        "call {finish}",
        // rax: the context to go on with. rdx: top of the service stack if that context can only
        // be entered from there.
        "test rdx, rdx",
        "jz 3f",
        "mov rsp, rdx",
        "mov rdi, rbx",
        "call {finish_on_service}",
        "3:",
        "mov rsp, rax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "pop rcx",
        "jmp rcx",
        ".cfi_endproc",
        pfn = const core::mem::offset_of!(Coroutine, pfn),
        arg = const core::mem::offset_of!(Coroutine, arg),
        finish = sym finish,
        finish_on_service = sym finish_on_service,
    )
}

/// Builds, at the top of a stack, the context that starts `co`'s routine, and returns its stack pointer.
///
/// # Safety
/// `top` is the 16-byte aligned end of a writable stack of at least a page that nobody runs on;
/// `co` outlives the run.
#[inline(always)]
pub(crate) unsafe fn first_frame_at(top: *mut u8, co: *const Coroutine) -> *mut u8 {
    let sp = top.wrapping_sub(2 * 8 + SAVED_WORDS * 8).cast::<usize>();
    let frame: [usize; SAVED_WORDS + 2] = [
        0,
        0,
        0,
        0,
        co.addr(),
        0,
        first_frame as *const () as usize,
        // What a walker by frame pointers finds above the first frame.
        0,
        0,
    ];
    // SAFETY: the nine words end at `top`, inside the stack the caller vouches for.
    unsafe { sp.cast::<[usize; SAVED_WORDS + 2]>().write(frame) };
    sp.cast()
}

/// Copies the live bytes of a stack: `len` is a multiple of 16, both ends are 16-byte aligned or the
/// processor makes up for it.
///
/// # Safety
/// `len` readable bytes at `from`, writable ones at `to`, no overlap.
#[inline(always)]
pub(crate) unsafe fn copy_live(from: *const u8, to: *mut u8, len: usize) {
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};
    // Most coroutines wait with a few hundred live bytes: a call of memcpy costs as much as those.
    if len > 1024 {
        // SAFETY: as the caller vouches.
        return unsafe { core::ptr::copy_nonoverlapping(from, to, len) };
    }
    let (from, to) = (from.cast::<__m128i>(), to.cast::<__m128i>());
    for i in 0..len / 16 {
        // SAFETY: inside the range the caller vouches for; unaligned loads are allowed.
        let bytes = unsafe { _mm_loadu_si128(from.wrapping_add(i)) };
        // SAFETY: as above; the fence keeps the compiler from calling memcpy after all.
        unsafe { _mm_storeu_si128(to.wrapping_add(i), bytes) };
        core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    }
}

/// Asks the cache for the line at `at`, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// The original's own context layout (coctx_t) for programs that use coctx_* themselves.
/// Register numbers in `regs`, as the original's.
pub(crate) mod coctx {
    use core::arch::naked_asm;
    use core::ffi::c_void;

    const RDI: usize = 7;
    const RSI: usize = 8;
    const RETURN: usize = 9;
    const RSP: usize = 13;

    /// Words in `coctx_t::regs`.
    pub(crate) const REGS: usize = 14;

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
        let top = top.wrapping_sub(8).map_addr(|a| a & !15).cast::<*mut c_void>();
        // SAFETY: eight bytes below the end of the caller's stack.
        unsafe { top.write(entry) };
        regs[RSP] = top.cast();
        regs[RETURN] = entry;
        regs[RDI] = s;
        regs[RSI] = s1;
    }

    /// Saves the caller into `regs` at `from` and goes on with `to`; exported as `coctx_swap`.
    ///
    /// Only what the ABI asks a callee to preserve is saved, in the slots the original gives it:
    /// r15 0, r14 8, r13 16, r12 24, rbp 48, return address 72, rbx 96, rsp 104 (as at entry, where
    /// the return address lies). Of a context from `make` the two arguments are loaded as well.
    ///
    /// # Safety
    /// Both point at a `coctx_t`; `to` was made by `coctx_make` or saved by this function.
    #[unsafe(naked)]
    pub(crate) unsafe extern "C-unwind" fn swap(from: *mut c_void, to: *mut c_void) {
        naked_asm!(
            "mov rax, qword ptr [rsp]",
            "mov qword ptr [rdi + 72], rax",
            "mov qword ptr [rdi + 104], rsp",
            "mov qword ptr [rdi + 96], rbx",
            "mov qword ptr [rdi + 48], rbp",
            "mov qword ptr [rdi + 24], r12",
            "mov qword ptr [rdi + 16], r13",
            "mov qword ptr [rdi + 8], r14",
            "mov qword ptr [rdi], r15",
            "mov r15, qword ptr [rsi]",
            "mov r14, qword ptr [rsi + 8]",
            "mov r13, qword ptr [rsi + 16]",
            "mov r12, qword ptr [rsi + 24]",
            "mov rbp, qword ptr [rsi + 48]",
            "mov rbx, qword ptr [rsi + 96]",
            "mov rsp, qword ptr [rsi + 104]",
            "mov rdi, qword ptr [rsi + 56]",
            "mov rax, qword ptr [rsi + 72]",
            "mov rsi, qword ptr [rsi + 64]",
            // The word at the stack pointer is the return address again: drop it, go there.
            "add rsp, 8",
            "jmp rax",
        )
    }
}
