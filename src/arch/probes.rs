//! Static probes: the same on every processor, but for how its assembler names a register (`probe_places!`).

use core::arch::global_asm;

/// The note that makes a static probe (USDT) of the instruction at the label 990 before it: perf, bpftrace and gdb find
/// `colib:$name`. `$args` says where its arguments are, each as SIZE@PLACE in the assembler's own way (on x86-64 in AT&T syntax). It takes no room in
/// memory, and the instruction is one that is there anyway, or a nop.
#[cfg(no_probes)]
macro_rules! probe_note {
    ($name:literal, $args:expr) => {
        ""
    };
}
#[cfg(not(no_probes))]
macro_rules! probe_note {
    ($name:literal, $args:expr) => {
        concat!(
            ".pushsection .note.stapsdt,\"\",@note\n",
            ".balign 4\n",
            ".4byte 992f-991f, 994f-993f, 3\n",
            "991: .asciz \"stapsdt\"\n",
            "992: .balign 4\n",
            "993: .8byte 990b, _.stapsdt.base, 0\n",
            ".asciz \"colib\"\n",
            ".asciz \"",
            $name,
            "\"\n",
            ".asciz \"",
            $args,
            "\"\n",
            "994: .balign 4\n",
            ".popsection",
        )
    };
}

// What those notes measure addresses against: a prelinked library may have moved. (Kept when unused sections are not.)
global_asm!(
    ".pushsection .stapsdt.base,\"aGR\",@progbits,.stapsdt.base,comdat",
    ".weak _.stapsdt.base",
    ".hidden _.stapsdt.base",
    "_.stapsdt.base: .space 1",
    ".size _.stapsdt.base, 1",
    ".popsection",
);

#[cfg(no_probes)]
macro_rules! probe {
    ($name:literal, $first:expr, $second:expr) => {{
        let _: (usize, usize) = ($first, $second);
    }};
}
/// A static probe with two arguments of eight bytes: a nop, unless somebody listens.
#[cfg(not(no_probes))]
macro_rules! probe {
    ($name:literal, $first:expr, $second:expr) => {{
        let (first, second): (usize, usize) = ($first, $second);
        // SAFETY: a nop.
        unsafe {
            ::core::arch::asm!(
                "990: nop",
                $crate::arch::probe_note!($name, $crate::arch::probe_places!()),
                in(reg) first,
                in(reg) second,
                options(nomem, nostack, preserves_flags)
            );
        }
    }};
}
pub(crate) use {probe, probe_note};
