// What a switch preserves: registers, vector and floating-point values; what it does not move.
#include "support.h"

#include <cfenv>

using namespace support;

TEST(CoResume, StackIsAlignedForVectorInstructions)
{
    bool aligned = false;
    stCoRoutine_t *co = nullptr;
    // The frame address of a routine entered by a call is 16-aligned (both ABIs).
    co_create(
        &co, nullptr,
        [](void *p) -> void * {
            const auto frame = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
            *static_cast<bool *>(p) = frame % 16 == 0;
            return nullptr;
        },
        &aligned);
    co_resume(co);
    EXPECT_TRUE(aligned);
    co_release(co);
}

TEST(CoResume, FloatingPointValuesSurviveASwitch)
{
    double sum = 0;
    Co co([&] {
        double a = 0.5, b = 0.25, c = 0.125;
        for (int i = 0; i < 100; ++i) {
            a += 1;
            co_yield_ct();
            b += a;
            c *= 1.0 + 1e-3;
        }
        sum = a + b + c;
    });
    double outside = 1;
    for (int i = 0; i <= 100; ++i) {
        outside *= 1.01;
        co.resume();
    }
    double a = 0.5, b = 0.25, c = 0.125;
    for (int i = 0; i < 100; ++i) {
        a += 1;
        b += a;
        c *= 1.0 + 1e-3;
    }
    EXPECT_TRUE(co.ended());
    EXPECT_DOUBLE_EQ(sum, a + b + c);
    EXPECT_NEAR(outside, 2.7318619677157, 1e-9);
}

#if defined(__x86_64__)
// Fills the registers that a call preserves from `seed`, calls fn(arg), and returns how many of
// them came back changed.
extern "C" int colib_test_registers_changed(void (*fn)(void *), void *arg, long seed);
asm(R"(
    .text
    .type colib_test_registers_changed, @function
colib_test_registers_changed:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    subq $24, %rsp
    movq %rdx, 8(%rsp)
    leaq 1(%rdx), %rbx
    leaq 2(%rdx), %rbp
    leaq 3(%rdx), %r12
    leaq 4(%rdx), %r13
    leaq 5(%rdx), %r14
    leaq 6(%rdx), %r15
    movq %rdi, %rax
    movq %rsi, %rdi
    call *%rax
    xorl %eax, %eax
    movq 8(%rsp), %rdx
    incq %rdx
    cmpq %rdx, %rbx
    setne %cl
    addb %cl, %al
    incq %rdx
    cmpq %rdx, %rbp
    setne %cl
    addb %cl, %al
    incq %rdx
    cmpq %rdx, %r12
    setne %cl
    addb %cl, %al
    incq %rdx
    cmpq %rdx, %r13
    setne %cl
    addb %cl, %al
    incq %rdx
    cmpq %rdx, %r14
    setne %cl
    addb %cl, %al
    incq %rdx
    cmpq %rdx, %r15
    setne %cl
    addb %cl, %al
    addq $24, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret
    .size colib_test_registers_changed, . - colib_test_registers_changed
)");
#elif defined(__riscv)
// The same, of twelve registers for integers and twelve for floating point; n counts them.
extern "C" int colib_test_registers_changed(void (*fn)(void *), void *arg, long seed);
asm(R"(
    .text
    .type colib_test_registers_changed, @function
colib_test_registers_changed:
    addi sp, sp, -208
    sd ra, 0(sp)
    sd a2, 200(sp)
    .set n, 1
    .irp r, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11
    sd \r, 8*n(sp)
    addi \r, a2, n
    .set n, n + 1
    .endr
    .irp r, fs0, fs1, fs2, fs3, fs4, fs5, fs6, fs7, fs8, fs9, fs10, fs11
    fsd \r, 8*n(sp)
    addi t0, a2, n
    fmv.d.x \r, t0
    .set n, n + 1
    .endr
    mv t1, a0
    mv a0, a1
    jalr t1
    li a0, 0
    ld a2, 200(sp)
    .set n, 1
    .irp r, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11
    addi t0, a2, n
    sub t0, t0, \r
    snez t0, t0
    add a0, a0, t0
    ld \r, 8*n(sp)
    .set n, n + 1
    .endr
    .irp r, fs0, fs1, fs2, fs3, fs4, fs5, fs6, fs7, fs8, fs9, fs10, fs11
    addi t0, a2, n
    fmv.x.d t1, \r
    sub t0, t0, t1
    snez t0, t0
    add a0, a0, t0
    fld \r, 8*n(sp)
    .set n, n + 1
    .endr
    ld ra, 0(sp)
    addi sp, sp, 208
    ret
    .size colib_test_registers_changed, . - colib_test_registers_changed
)");
#elif defined(__aarch64__)
// The same, of eleven registers for integers and eight for floating point.
extern "C" int colib_test_registers_changed(void (*fn)(void *), void *arg, long seed);
asm(R"(
    .text
    .type colib_test_registers_changed, %function
colib_test_registers_changed:
    hint 34
    sub sp, sp, 176
    str x30, [sp]
    str x2, [sp, 168]
    .set n, 1
    .irp r, x19, x20, x21, x22, x23, x24, x25, x26, x27, x28, x29
    str \r, [sp, 8*n]
    add \r, x2, n
    .set n, n + 1
    .endr
    .irp r, d8, d9, d10, d11, d12, d13, d14, d15
    str \r, [sp, 8*n]
    add x9, x2, n
    fmov \r, x9
    .set n, n + 1
    .endr
    mov x9, x0
    mov x0, x1
    blr x9
    mov x0, 0
    ldr x2, [sp, 168]
    .set n, 1
    .irp r, x19, x20, x21, x22, x23, x24, x25, x26, x27, x28, x29
    add x9, x2, n
    cmp x9, \r
    cinc x0, x0, ne
    ldr \r, [sp, 8*n]
    .set n, n + 1
    .endr
    .irp r, d8, d9, d10, d11, d12, d13, d14, d15
    add x9, x2, n
    fmov x10, \r
    cmp x9, x10
    cinc x0, x0, ne
    ldr \r, [sp, 8*n]
    .set n, n + 1
    .endr
    ldr x30, [sp]
    add sp, sp, 176
    ret
    .size colib_test_registers_changed, . - colib_test_registers_changed
)");
#endif

#if defined(__x86_64__) || defined(__riscv) || defined(__aarch64__)
TEST(CoResume, PreservesTheRegistersThatACallPreserves)
{
    int changed_inside = -1;
    Co co([&] {
        changed_inside = colib_test_registers_changed([](void *) { co_yield_ct(); }, nullptr, 1000);
    });
    const auto resume = [](void *p) { static_cast<Co *>(p)->resume(); };
    EXPECT_EQ(colib_test_registers_changed(resume, &co, 2000), 0);
    EXPECT_EQ(colib_test_registers_changed(resume, &co, 3000), 0);
    EXPECT_EQ(changed_inside, 0);
}
#endif

#if defined(__x86_64__)
namespace {

unsigned mxcsr() { return __builtin_ia32_stmxcsr(); }

unsigned short x87_control()
{
    unsigned short word;
    asm volatile("fnstcw %0" : "=m"(word));
    return word;
}

void set_control(unsigned m, unsigned short x)
{
    __builtin_ia32_ldmxcsr(m);
    asm volatile("fldcw %0" : : "m"(x));
}

} // namespace

TEST(FloatingPoint, ANewCoroutineInheritsTheControlWordsOfItsFirstResume)
{
    const unsigned m = mxcsr();
    const unsigned short x = x87_control();
    unsigned seen_m = 0;
    unsigned short seen_x = 0;
    Co co([&] {
        seen_m = mxcsr();
        seen_x = x87_control();
    });
    const unsigned odd_m = (m & ~0x603fu) | 0x4000u;               // round upwards
    const unsigned short odd_x = static_cast<unsigned short>(x & ~0x300u); // single precision
    set_control(odd_m, odd_x);
    co.resume();
    set_control(m, x);
    EXPECT_EQ(seen_m & ~0x3fu, odd_m & ~0x3fu);
    EXPECT_EQ(seen_x, odd_x);
}

TEST(FloatingPoint, ASwitchDoesNotMoveTheControlWords)
{
    const unsigned m = mxcsr();
    const unsigned short x = x87_control();
    unsigned seen_m = 0;
    unsigned short seen_x = 0;
    Co co([&] {
        set_control((m & ~0x6000u) | 0x2000u, static_cast<unsigned short>((x & ~0xc00) | 0x400));
        co_yield_ct();
        seen_m = mxcsr();
        seen_x = x87_control();
    });
    co.resume();
    const unsigned after_m = mxcsr();
    const unsigned short after_x = x87_control();
    set_control((m & ~0x6000u) | 0x6000u, static_cast<unsigned short>(x | 0xc00));
    co.resume();
    set_control(m, x);
    EXPECT_EQ(after_m & 0x6000u, 0x2000u);
    EXPECT_EQ(after_x & 0xc00, 0x400);
    EXPECT_EQ(seen_m & 0x6000u, 0x6000u);
    EXPECT_EQ(seen_x & 0xc00, 0xc00);
}
#endif

TEST(FloatingPoint, TheRoundingModeBelongsToTheThread)
{
    const int before = fegetround();
    int at_start = -1;
    Co co([&] {
        at_start = fegetround();
        fesetround(FE_DOWNWARD);
        co_yield_ct();
    });
    fesetround(FE_TOWARDZERO);
    co.resume();
    const int after = fegetround();
    fesetround(before);
    EXPECT_EQ(at_start, FE_TOWARDZERO);
    EXPECT_EQ(after, FE_DOWNWARD);
}
