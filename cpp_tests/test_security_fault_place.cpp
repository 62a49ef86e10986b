// The sentence about a coroutine that ran off its stack names the file that the code is in: whatever code that is, and
// whatever lies before it in memory.
#include "support.h"

#include <sys/mman.h>
#include <ucontext.h>

using namespace support;

namespace {

constexpr size_t PAGE_SIZE = 4096;

// In a child: maps the second page of a file that has code, right above a page that nobody may touch, and runs the code in a
// coroutine until its stack is at its end.
void run_code_behind_a_guard(bool map_first_page_elsewhere)
{
#ifdef __riscv
    // addi sp, sp, -16; sd ra, 0(sp); j to the first
    const unsigned char push_for_ever[] = {0x13, 0x01, 0x01, 0xff, 0x23, 0x30, 0x11, 0x00, 0x6f, 0xf0, 0x9f, 0xff};
#elif defined __aarch64__
    // stp x29, x30, [sp, #-16]!; b to the first
    const unsigned char push_for_ever[] = {0xfd, 0x7b, 0xbf, 0xa9, 0xff, 0xff, 0xff, 0x17};
#else
    // push %rax; jmp to the push
    const unsigned char push_for_ever[] = {0x50, 0xeb, 0xfd};
#endif
    char name[] = "/tmp/colib-code-XXXXXX";
    const int fd = mkstemp(name);
    if (fd < 0 || ftruncate(fd, 2 * PAGE_SIZE) != 0 ||
        pwrite(fd, push_for_ever, sizeof push_for_ever, PAGE_SIZE) != sizeof push_for_ever) {
        _exit(2);
    }
    unlink(name);
    auto *room = static_cast<char *>(mmap(nullptr, 4 * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (room == MAP_FAILED) {
        _exit(2);
    }
    if (map_first_page_elsewhere &&
        mmap(room, PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_FIXED, fd, 0) == MAP_FAILED) {
        _exit(2);
    }
    void *code = mmap(room + 2 * PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, PAGE_SIZE);
    if (code == MAP_FAILED) {
        _exit(3); // a system that maps no code from there
    }
    struct sigaction action = {};
    action.sa_flags = SA_ONSTACK;
    action.sa_handler = [](int) { _exit(77); };
    sigaction(SIGSEGV, &action, nullptr);
    co_set_log_handler([](const char *text) {
        (void)!write(STDERR_FILENO, text, strlen(text));
    });
    void *(*routine)(void *);
    memcpy(&routine, &code, sizeof routine);
    stCoRoutine_t *co = nullptr;
    co_create(&co, nullptr, routine, nullptr);
    co_resume(co);
    _exit(4);
}

MENDED(SecurityFaultPlace, CodeThatLiesAboveAGuardPageIsNamedAndTheProgramsHandlerRuns)
{
    EXPECT_EXIT(run_code_behind_a_guard(false), testing::ExitedWithCode(77), "ran off its stack.*colib-code-");
}

MENDED(SecurityFaultPlace, CodeOfAFileWhoseFirstPageMayNotBeReadIsNamedToo)
{
    EXPECT_EXIT(run_code_behind_a_guard(true), testing::ExitedWithCode(77), "ran off its stack.*colib-code-");
}

} // namespace
