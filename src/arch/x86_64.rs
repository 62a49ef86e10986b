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

/// The address of a C function that may or may not be in the process: null if it is not.
macro_rules! weak_function {
    ($name:literal) => {{
        let address: *const ::core::ffi::c_void;
        // SAFETY: loads one pointer from the global offset table; a weak symbol has its entry there.
        unsafe {
            ::core::arch::asm!(
                concat!(".weak ", $name),
                concat!("mov {0}, qword ptr [rip + ", $name, "@GOTPCREL]"),
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
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    (registers[libc::REG_RSP as usize] as usize, registers[libc::REG_RIP as usize] as usize)
}

/// Asks valgrind, by an instruction sequence that does nothing elsewhere: 0 is the answer there.
pub(crate) fn valgrind_request(request: usize, args: [usize; 5]) -> usize {
    let block = [request, args[0], args[1], args[2], args[3], args[4]];
    let mut answer = 0_usize;
    // SAFETY: the rotations add up to two full turns, the exchange is of a register with itself; valgrind reads
    // `block`, which is there, and does to memory only what it means for valgrind's own notes.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") &raw const block,
            inout("rdx") answer,
            inout("rdi") 0_usize => _,
            options(nostack)
        );
    }
    answer
}

/// Where the two operands of a probe are.
#[cfg(not(no_probes))]
macro_rules! probe_places {
    () => {
        "8@%{0} 8@%{1}"
    };
}
#[cfg(not(no_probes))]
pub(crate) use probe_places;

/// A whole function that is another by a second name.
macro_rules! other_name {
    ($target:path) => {
        ::core::arch::naked_asm!("jmp {}", sym $target)
    };
}

/// A whole function whose first instruction finds the distance of the thread's slot from the thread's pointer: for debuggers.
macro_rules! slot_offset_body {
    () => {
        ::core::arch::naked_asm!("mov rax, qword ptr [rip + colib_thread_slot@GOTTPOFF]", "ret")
    };
}

/// Refers to a static object and does nothing: a linker that drops what is unused keeps it.
macro_rules! keep {
    ($object:path) => {
        ::core::arch::asm!(".reloc ., R_X86_64_NONE, {}", sym $object, options(nomem, nostack, preserves_flags))
    };
}
pub(crate) use {keep, other_name, slot_offset_body};

/// Saves what the ABI asks a callee to preserve: the picture above, from its caller's address down.
macro_rules! push_registers {
    () => {
        concat!(
            "push rbp\n",
            ".cfi_adjust_cfa_offset 8\n",
            ".cfi_rel_offset rbp, 0\n",
            "push rbx\n",
            ".cfi_adjust_cfa_offset 8\n",
            ".cfi_rel_offset rbx, 0\n",
            "push r12\n",
            ".cfi_adjust_cfa_offset 8\n",
            ".cfi_rel_offset r12, 0\n",
            "push r13\n",
            ".cfi_adjust_cfa_offset 8\n",
            ".cfi_rel_offset r13, 0\n",
            "push r14\n",
            ".cfi_adjust_cfa_offset 8\n",
            ".cfi_rel_offset r14, 0\n",
            "push r15\n",
            ".cfi_adjust_cfa_offset 8\n",
            ".cfi_rel_offset r15, 0",
        )
    };
}

/// Goes on with the suspended context at the stack pointer, whatever was described before.
macro_rules! pop_and_go {
    () => {
        concat!(
            $crate::arch::picture!(),
            "pop r15\n",
            ".cfi_adjust_cfa_offset -8\n",
            ".cfi_restore r15\n",
            "pop r14\n",
            ".cfi_adjust_cfa_offset -8\n",
            ".cfi_restore r14\n",
            "pop r13\n",
            ".cfi_adjust_cfa_offset -8\n",
            ".cfi_restore r13\n",
            "pop r12\n",
            ".cfi_adjust_cfa_offset -8\n",
            ".cfi_restore r12\n",
            "pop rbx\n",
            ".cfi_adjust_cfa_offset -8\n",
            ".cfi_restore rbx\n",
            "pop rbp\n",
            ".cfi_adjust_cfa_offset -8\n",
            ".cfi_restore rbp\n",
            "pop rcx\n",
            ".cfi_adjust_cfa_offset -8\n",
            ".cfi_register rip, rcx\n",
            "jmp rcx",
        )
    };
}

/// Describes the stack pointer as a suspended context's.
macro_rules! picture {
    () => {
        concat!(
            ".cfi_def_cfa rsp, 56\n",
            ".cfi_rel_offset r15, 0\n",
            ".cfi_rel_offset r14, 8\n",
            ".cfi_rel_offset r13, 16\n",
            ".cfi_rel_offset r12, 24\n",
            ".cfi_rel_offset rbx, 32\n",
            ".cfi_rel_offset rbp, 40\n",
            ".cfi_rel_offset rip, 48\n",
        )
    };
}

/// Calls the coroutine at a register, whose stack was just left, suspended: from here on another thread may release it.
macro_rules! suspend {
    ($co:literal) => {
        concat!("mov qword ptr [", $co, " + {resumer}], 0")
    };
}

/// On top of an empty stack: a walk ends here, and reads nothing above, where a guard may be.
macro_rules! nothing_above {
    () => {
        ".cfi_undefined rip\n.cfi_def_cfa rsp, 16"
    };
}

/// co_resume, whole: the checks, who runs, and the switch. A macro, so that each of its exported names is
/// the function itself: a switch is then one call and one jump.
///
/// `rdi` is the coroutine. The usual cases, suspended and new, on a private stack, go from here; for all
/// others, and for misuse, nothing has changed and `run::resume_slowly` begins anew. `run` says what the
/// checks mean.
macro_rules! resume_body {
    () => {
        ::core::arch::naked_asm!(
            ".cfi_startproc",
            "test rdi, rdi",
            "jz {slow}",
            // rax: the thread's environment, or null, which no coroutine belongs to.
            "mov rax, qword ptr [rip + colib_thread_slot@GOTTPOFF]",
            "mov rax, qword ptr fs:[rax]",
            "cmp qword ptr [rdi + {env}], rax",
            "jne {slow}",
            "cmp qword ptr [rdi + {resumer}], 0",
            "jne {slow}",
            "mov rcx, qword ptr [rax + {exceptions}]",
            "mov edx, dword ptr [rcx + {uncaught}]",
            "or rdx, qword ptr [rcx + {caught}]",
            "jnz {slow}",
            // rcx: the resumer.
            "mov rcx, qword ptr [rax + {current}]",
            "movabs rdx, {for_resume}",
            "and rdx, qword ptr [rdi + {word}]",
            "cmp rdx, {suspended}",
            "ja {slow}",
            "jb 2f",
            "mov qword ptr [rdi + {resumer}], rcx",
            "mov qword ptr [rax + {current}], rdi",
            ".cfi_remember_state",
            $crate::arch::push_registers!(),
            "mov qword ptr [rcx + {sp}], rsp",
            // (rdi: who enters, rcx: who leaves, also below.)
            "990: inc qword ptr [rax + {resumes}]",
            $crate::arch::probe_note!("resume", "8@%rdi 8@%rcx"),
            "mov rsp, qword ptr [rdi + {sp}]",
            $crate::arch::pop_and_go!(),
            // New: on its stack there is nothing to restore.
            "2:",
            ".cfi_restore_state",
            // (What the assembler itself reckons from is not restored.)
            ".cfi_def_cfa_offset 8",
            "cmp byte ptr [rdi + {wait_state}], 0",
            "jne {slow}",
            "mov qword ptr [rdi + {resumer}], rcx",
            "mov qword ptr [rax + {current}], rdi",
            "990: inc qword ptr [rax + {resumes}]",
            $crate::arch::probe_note!("resume", "8@%rdi 8@%rcx"),
            "mov byte ptr [rdi + {word}], 1",
            // StackMem::start
            "mov rdx, qword ptr [rdi + {stack_mem}]",
            "mov eax, dword ptr [rdx + {tag}]",
            "and eax, {colours} - 1",
            "shl eax, 6",
            "mov rdx, qword ptr [rdx + {stack_bp}]",
            "sub rdx, rax",
            $crate::arch::push_registers!(),
            "mov qword ptr [rcx + {sp}], rsp",
            "mov rsp, rdx",
            $crate::arch::nothing_above!(),
            // Says that it has run, too.
            "mov qword ptr [rdi + {sp}], rsp",
            "mov rbx, rdi",
            "xor ebp, ebp",
            "jmp {first_frame} + {start}",
            ".cfi_endproc",
            slow = sym $crate::routine::run::resume_slowly,
            first_frame = sym $crate::arch::first_frame,
            start = const $crate::arch::START,
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
            "mov rax, qword ptr [rip + colib_thread_slot@GOTTPOFF]",
            "mov rax, qword ptr fs:[rax]",
            "test rax, rax",
            "jz {slow}",
            // rdi: who leaves. rcx: who gets control back.
            "mov rdi, qword ptr [rax + {current}]",
            "mov rcx, qword ptr [rdi + {resumer}]",
            "test rcx, rcx",
            "jz {slow}",
            "cmp byte ptr [rdi + {pending}], 0",
            "jne {slow}",
            "cmp word ptr [rcx + {share_and_pending}], 0",
            "jne {slow}",
            "mov rdx, qword ptr [rax + {exceptions}]",
            "mov esi, dword ptr [rdx + {uncaught}]",
            "or rsi, qword ptr [rdx + {caught}]",
            "jnz {slow}",
            "990: mov qword ptr [rax + {current}], rcx",
            $crate::arch::probe_note!("yield", "8@%rdi 8@%rcx"),
            $crate::arch::push_registers!(),
            "mov qword ptr [rdi + {sp}], rsp",
            "mov rsp, qword ptr [rcx + {sp}]",
            $crate::arch::suspend!("rdi"),
            $crate::arch::pop_and_go!(),
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

pub(crate) use {nothing_above, picture, pop_and_go, push_registers, resume_body, suspend, yield_body};

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
        "mov qword ptr [rdi + {sp}], rsp",
        "mov rsp, rsi",
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
        "mov qword ptr [rdi + {sp}], rsp",
        "mov rsp, rsi",
        suspend!("rdi"),
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
        "push rdx",
        ".cfi_adjust_cfa_offset 8",
        push_registers!(),
        "mov qword ptr [rdi + {sp}], rsp",
        "mov rsp, rsi",
        picture!(),
        suspend!("rdi"),
        pop_and_go!(),
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
        "mov qword ptr [rdi + {sp}], rsp",
        "mov rsp, rsi",
        nothing_above!(),
        "mov rdi, rcx",
        "call rdx",
        "mov rsp, rax",
        pop_and_go!(),
        ".cfi_endproc",
        sp = const at::SP,
    )
}

/// Where a context goes on in [`first_frame`] and its like: behind a nop, since a walk looks up the address before a return
/// address, and finds this function's description only there.
pub(crate) const START: usize = 1;

/// Where every routine starts and ends. `rbx` holds the coroutine, `rsp` is 16-byte aligned, `rbp`
/// is zero, and the caller's address is described as undefined: backtraces end here, and an
/// exception that gets this far finds no handler (std::terminate).
#[unsafe(naked)]
pub(crate) unsafe extern "C-unwind" fn first_frame() {
    naked_asm!(
        ".cfi_startproc",
        nothing_above!(),
        "nop",
        "mov rax, qword ptr [rbx + {pfn}]",
        "test rax, rax",
        "jz 2f",
        "mov rdi, qword ptr [rbx + {arg}]",
        "call rax",
        // The usual end, as a yield: rax the environment, rcx who gets control back.
        "2:",
        "mov rax, qword ptr [rbx + {env}]",
        "mov rcx, qword ptr [rbx + {resumer}]",
        "test rcx, rcx",
        "jz 3f",
        // (Bytes that were not just written: the processor cannot forward a part of a wider load.)
        "cmp word ptr [rbx + {share_and_pending}], 0",
        "jne 3f",
        "cmp word ptr [rcx + {share_and_pending}], 0",
        "jne 3f",
        "mov rdx, qword ptr [rax + {exceptions}]",
        "mov esi, dword ptr [rdx + {uncaught}]",
        "or rsi, qword ptr [rdx + {caught}]",
        "jnz 3f",
        "mov byte ptr [rbx + {ended}], 1",
        "mov qword ptr [rbx + {sp}], {at_end}",
        "mov qword ptr [rax + {current}], rcx",
        "990: inc qword ptr [rax + {ends}]",
        crate::arch::probe_note!("end", "8@%rbx 8@%rcx"),
        "mov rsp, qword ptr [rcx + {sp}]",
        "4:",
        picture!(),
        suspend!("rbx"),
        "5:",
        pop_and_go!(),
        // Any other end.
        "3:",
        nothing_above!(),
        "mov rdi, rbx",
        "call {finish}",
        // rax: the context to go on with. rdx: top of the service stack if that context can only
        // be entered from there.
        "test rdx, rdx",
        "jnz 6f",
        "mov rsp, rax",
        picture!(),
        "jmp 4b",
        "6:",
        nothing_above!(),
        "mov rsp, rdx",
        "mov rdi, rbx",
        "call {finish_on_service}",
        "mov rsp, rax",
        picture!(),
        // (The block may be gone.)
        "jmp 5b",
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

/// [`first_frame`] for a thread whose switches are watched: `rbx` and `rsp` as there.
#[unsafe(naked)]
unsafe extern "C-unwind" fn first_frame_watched() {
    naked_asm!(
        ".cfi_startproc",
        nothing_above!(),
        "nop",
        "call {arrived}",
        "jmp {first_frame} + {start}",
        ".cfi_endproc",
        arrived = sym watched::arrived_at_start,
        first_frame = sym first_frame,
        start = const START,
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
    // rbp is 0: a walker by frame pointers ends here.
    let frame = [0, 0, 0, 0, co.addr(), 0, start as *const () as usize + START];
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
    use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};
    // Most coroutines wait with a few hundred live bytes: a call of memcpy costs as much as those.
    if len > 1024 {
        if tools::watched() {
            // SAFETY: as the caller vouches.
            return unsafe { copy_unseen(from, to, len) };
        }
        // SAFETY: as the caller vouches.
        return unsafe { from.copy_to_nonoverlapping(to, len) };
    }
    // The registers were pushed a moment ago, eight bytes each: the processor forwards what a push has stored
    // to a load of as many, while a wider load would have to wait for the cache.
    let words = if len >= SAVED_WORDS.next_multiple_of(2) * 8 { SAVED_WORDS.next_multiple_of(2) } else { 0 };
    let (from_words, to_words) = (from.cast::<u64>(), to.cast::<u64>());
    for i in 0..words {
        // SAFETY: inside the range the caller vouches for; the stack is 16-byte aligned, buffers are 8-byte aligned.
        let word = unsafe { from_words.wrapping_add(i).read() };
        // SAFETY: as above.
        unsafe { to_words.wrapping_add(i).write(word) };
        // Keeps the compiler from loading two at once, or calling memcpy after all.
        compiler_fence(Ordering::SeqCst);
    }
    let (from, to) = (from.cast::<__m128i>(), to.cast::<__m128i>());
    for i in words / 2..len / 16 {
        // SAFETY: inside the range the caller vouches for; unaligned loads are allowed.
        let bytes = unsafe { _mm_loadu_si128(from.wrapping_add(i)) };
        // SAFETY: as above.
        unsafe { _mm_storeu_si128(to.wrapping_add(i), bytes) };
        compiler_fence(Ordering::SeqCst);
    }
}

/// Copies past the sanitizers' memcpy, which takes gaps between a stack's variables for errors.
///
/// # Safety
/// As [`copy_live`].
#[cold]
unsafe fn copy_unseen(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: `len` bytes, as the caller vouches; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
}

/// Asks the cache for the line at `at`, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch(at: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; never faults.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// Asks the cache for `count` lines from `at` on, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch_lines(at: *const u8, count: usize) {
    for line in 0..count {
        prefetch(at.wrapping_add(line * CACHE_LINE));
    }
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

    /// The least bytes of a stack that `make` takes.
    pub(crate) const LEAST: usize = 64;

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
