// Private stacks on a kernel that has no guards but by mprotect (before Linux 6.13), where each takes two mappings of those that a
// process may have (vm.max_map_count): more coroutines than that go without a guard, which is said once, and the program
// keeps half of its mappings. In children, whose kernel refuses the other kind.
#include "support.h"

#ifndef COLIB_PEER // the original has no guards

#include <csetjmp>
#include <fstream>
#include <memory>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

namespace {

using namespace support;

const int kNoFilter = 99;

// madvise(MADV_GUARD_INSTALL) and process_madvise are refused, as by an older kernel.
bool refuse_light_guards()
{
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_madvise, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 102, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program = {sizeof code / sizeof code[0], code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

long most_mappings()
{
    long most = 0;
    std::ifstream("/proc/sys/vm/max_map_count") >> most;
    return most;
}

long mappings()
{
    std::ifstream maps("/proc/self/maps");
    long count = 0;
    for (std::string line; std::getline(maps, line);) {
        ++count;
    }
    return count;
}

int said = 0;

sigjmp_buf after_fault;

// Whether the word below the stack, where its guard is, faults.
bool has_guard(const stCoRoutine_t *co)
{
    struct sigaction now = {}, before;
    now.sa_handler = [](int) { siglongjmp(after_fault, 1); };
    sigaction(SIGSEGV, &now, &before);
    volatile char *const below = static_cast<char *>(co->ctx.ss_sp) - 8;
    bool faults = true;
    if (sigsetjmp(after_fault, 1) == 0) {
        *below = 0;
        faults = false;
    }
    sigaction(SIGSEGV, &before, nullptr);
    return faults;
}

int more_than_the_mappings_allow()
{
    if (!refuse_light_guards()) {
        return kNoFilter;
    }
    const long most = most_mappings();
    const int many = static_cast<int>(most * 2 / 3);
    co_set_log_handler([](const char *message) { said += std::strstr(message, "have no guard") != nullptr; });
    std::vector<stCoRoutine_t *> all;
    static int ran;
    for (int round = 0; round < 2; ++round) {
        ran = 0;
        for (int i = 0; i < many; ++i) {
            stCoRoutine_t *co = nullptr;
            if (co_create(&co, nullptr, [](void *) -> void * { co_yield_ct(); return ++ran, nullptr; }, nullptr) != 0) {
                printf("co_create failed at %d\n", i);
                return 1;
            }
            co_resume(co);
            all.push_back(co);
        }
        if (!has_guard(all[0]) || !has_guard(all[static_cast<size_t>(most / 4) - 600])) {
            return 2;
        }
        if (has_guard(all.back()) || said != 1) {
            return 3;
        }
        if (mappings() > most * 6 / 10) {
            printf("%ld mappings of %ld\n", mappings(), most);
            return 4;
        }
        // Threads and large blocks are to be had.
        on_thread([] { Co([] {}).resume(); });
        for (stCoRoutine_t *co : all) {
            co_resume(co);
            co_release(co);
        }
        all.clear();
        if (ran != many) {
            return 5;
        }
        // When a thread ends the slabs go in which no stack is used, and their guards.
        on_thread([] { Co([] {}).resume(); });
        if (mappings() > 6000) {
            printf("%ld mappings left\n", mappings());
            return 6;
        }
    }
    return 0;
}

} // namespace

TEST(StackMappings, MoreStacksThanAnOldKernelHasGuardsForGoWithoutAndItIsSaid)
{
    if (most_mappings() > 200000) {
        GTEST_SKIP() << "vm.max_map_count is too large to use up";
    }
    const int result = in_child(more_than_the_mappings_allow, 100);
    if (result == kNoFilter) {
        GTEST_SKIP() << "seccomp is not permitted";
    }
    EXPECT_EQ(result, 0);
}

#endif // COLIB_PEER
