// Steps a thread of a child through its instructions by ptrace, and has another thread do something between two of them.
#ifndef COLIB_CPP_TESTS_STEPPED_H
#define COLIB_CPP_TESTS_STEPPED_H

#include "support.h"

#include <atomic>
#include <functional>
#include <new>

#include <dlfcn.h>
#include <link.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>

namespace stepped {

// Between threads, and between a child and the parent that steps it.
class Semaphore {
public:
    Semaphore() { sem_init(&semaphore_, 1, 0); }
    Semaphore(const Semaphore &) = delete;
    Semaphore &operator=(const Semaphore &) = delete;
    ~Semaphore() { sem_destroy(&semaphore_); }

    void post() { sem_post(&semaphore_); }
    void wait()
    {
        while (sem_wait(&semaphore_) != 0) {
        }
    }
    // Not for long: who posts may want what the stepped thread holds. False: not yet.
    bool wait_ms(long ms)
    {
        timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += ms * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        while (sem_timedwait(&semaphore_, &until) != 0) {
            if (errno == ETIMEDOUT) {
                return false;
            }
        }
        return true;
    }

private:
    sem_t semaphore_;
};

// What a child ends with if it may not be stepped.
const int kNotPermitted = 100;

// What the child that is stepped shares with its parent. The child's thread stops (SIGSTOP) where its steps begin; at one of them,
// if it is reached before the steps end, the parent has the other thread do what it is there for.
struct Steps {
    std::atomic<pid_t> thread{0};
    std::atomic<bool> on{false};
    long chosen = -1;
    std::atomic<bool> reached{false};
    Semaphore begin_now, is_done;
    bool was_done = false;
    // Who is about to go, if its stack is its own; at how many steps the thread stood there while another might have released it.
    stCoRoutine_t *victim = nullptr;
    int stood_on_a_suspended_stack = 0;

    // Does nothing in another thread than the stepped one.
    void begin()
    {
        if (gettid() == thread && chosen >= 0) {
            on = true;
            raise(SIGSTOP);
        }
    }
    void end() { on = false; }
    void be_stepped()
    {
        thread = gettid();
        if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
            _exit(kNotPermitted);
        }
    }
};

inline Steps *steps = nullptr;

// Where the C library's code lies: between its instructions nothing of ours changes.
struct Range {
    uintptr_t from = 0, to = 0;
};

inline Range range_of_libc()
{
    Range range;
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *p) {
            const uintptr_t inside = reinterpret_cast<uintptr_t>(dlsym(RTLD_NEXT, "pthread_sigmask"));
            for (int i = 0; i < info->dlpi_phnum; ++i) {
                const ElfW(Phdr) &part = info->dlpi_phdr[i];
                const uintptr_t from = info->dlpi_addr + part.p_vaddr;
                if (part.p_type == PT_LOAD && from <= inside && inside < from + part.p_memsz) {
                    *static_cast<Range *>(p) = {from, from + part.p_memsz};
                    return 1;
                }
            }
            return 0;
        },
        &range);
    return range;
}

#ifdef __x86_64__

inline uintptr_t word_of(pid_t pid, const void *at) { return static_cast<uintptr_t>(ptrace(PTRACE_PEEKDATA, pid, at, nullptr)); }

inline uintptr_t register_of(pid_t pid, size_t offset)
{
    return static_cast<uintptr_t>(ptrace(PTRACE_PEEKUSER, pid, offset, nullptr));
}

inline bool is_at_code_of(pid_t pid, const Range &range)
{
    const uintptr_t at = register_of(pid, offsetof(user, regs.rip));
    return range.from <= at && at < range.to;
}

// The victim's first words of registers are its stack pointer and who gets control back from it: nobody, of one that is suspended.
inline bool stands_on_a_suspended_stack(pid_t pid)
{
    const stCoRoutine_t *const victim = steps->victim;
    const uintptr_t sp = register_of(pid, offsetof(user, regs.rsp));
    const uintptr_t bottom = word_of(pid, &victim->ctx.ss_sp);
    return bottom < sp && sp <= bottom + word_of(pid, &victim->ctx.ss_size) && word_of(pid, &victim->ctx.regs[1]) == 0;
}

#else // any instruction is looked at, and no stack pointer

inline bool is_at_code_of(pid_t, const Range &) { return false; }
inline bool stands_on_a_suspended_stack(pid_t) { return false; }

#endif

// The parent's part: returns how the child ended, as in_child.
inline int step_child(const std::function<int()> &body)
{
    void *const page = mmap(nullptr, sizeof(Steps), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    steps = new (page) Steps;
    // All on one processor: only one of them has something to do at a time, and none waits for another to be awake.
    cpu_set_t before, one;
    sched_getaffinity(0, sizeof before, &before);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(100);
        const int result = body();
        fflush(nullptr);
        _exit(result);
    }
    const Range libc = range_of_libc();
    long count = -1;
    int status = 0;
    for (;;) {
        const pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0) {
            break;
        }
        if (!WIFSTOPPED(status)) {
            if (pid == child) {
                break;
            }
            continue;
        }
        const int signal = WSTOPSIG(status);
        if (signal == SIGSTOP) {
            count = 0;
        }
        if (count >= 0 && (!steps->on || steps->reached)) {
            count = -1;
        }
        if (count >= 0 && steps->victim != nullptr) {
            steps->stood_on_a_suspended_stack += stands_on_a_suspended_stack(pid);
        }
        if (count >= 0 && !is_at_code_of(pid, libc) && count++ == steps->chosen) {
            steps->reached = true;
            steps->begin_now.post();
            steps->was_done = steps->is_done.wait_ms(10);
        }
        const bool ours = signal == SIGSTOP || signal == SIGTRAP;
        ptrace(count >= 0 && !steps->reached ? PTRACE_SINGLESTEP : PTRACE_CONT, pid, nullptr,
               reinterpret_cast<void *>(static_cast<intptr_t>(ours ? 0 : signal)));
    }
    sched_setaffinity(0, sizeof before, &before);
    munmap(page, sizeof(Steps));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Does `body` with each of `kinds`, which say what they are, in a child that may be stepped.
template <typename Kinds, typename Body>
void step_each(const Kinds &kinds, const Body &body)
{
    for (const auto &kind : kinds) {
        const int result = step_child([&] { return body(kind); });
        if (result == kNotPermitted) {
            GTEST_SKIP() << "ptrace is not permitted";
        }
        EXPECT_EQ(result, 0) << kind.what;
    }
}

} // namespace stepped

#endif
