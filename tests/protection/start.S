// Where a program starts, in place of the C library's own start files: those of a distribution that does not build its C
// library for checked branches have no landing pads, and a program linked to them cannot have its pages guarded.
    .section .note.gnu.property, "a"
    .balign 8
    .4byte 4, 16, 5
    .asciz "GNU"
    .4byte 0xc0000000, 4, 3, 0 // branch targets, return addresses

    .text
    .globl _start
    .type _start, @function
_start:
    hint 38 // bti jc
    mov x29, xzr
    mov x30, xzr
    mov x5, x0
    ldr x1, [sp]
    add x2, sp, 8
    mov x6, sp
    adrp x0, :got:main
    ldr x0, [x0, :got_lo12:main]
    mov x3, xzr
    mov x4, xzr
    bl __libc_start_main
    brk 1
    .size _start, . - _start

    .section .note.GNU-stack, "", @progbits
