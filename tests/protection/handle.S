// What a program or a shared library has from the compiler's start files beside its start, when it is linked without
// them. The first object of a link: the linker makes the mark of the whole like that of the first.
    .section .note.gnu.property, "a"
    .balign 8
    .4byte 4, 16, 5
    .asciz "GNU"
    .4byte 0xc0000000, 4, 3, 0 // branch targets, return addresses

    .data
    .balign 8
    .hidden __dso_handle
    .globl __dso_handle
__dso_handle:
    .8byte __dso_handle
    .section .note.GNU-stack, "", @progbits
