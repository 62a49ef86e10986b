// co_release by another thread at any moment of a coroutine's yield, wait or end: between any two instructions. A coroutine counts
// as suspended only once its stack is left, or the next owner of its stack and its block finds them written to.
#include "support.h"

#ifndef COLIB_PEER // the original frees what another thread runs

#include <atomic>
#include <memory>
#include <new>

#include <dlfcn.h>
#include <link.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>

namespace {

using namespace support;

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

// What the child that is stepped shares with its parent. The child's thread stops (SIGSTOP) where its steps begin; at one of them,
// if it is reached before the steps end, the parent has the other thread do what it is there for.
struct Steps {
    std::atomic<pid_t> thread{0};
    std::atomic<bool> on{false};
    long chosen = -1;
    std::atomic<bool> reached{false};
    Semaphore begin_now, is_done;
    bool was_done = false;

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
            perror("ptrace");
            _exit(100);
        }
    }
};

Steps *steps = nullptr;

// Where the C library's code lies: between its instructions nothing of ours changes.
struct Range {
    uintptr_t from = 0, to = 0;
};

Range range_of_libc()
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

uintptr_t instruction_of([[maybe_unused]] pid_t pid)
{
#ifdef __x86_64__
    return static_cast<uintptr_t>(ptrace(PTRACE_PEEKUSER, pid, offsetof(user, regs.rip), nullptr));
#else
    return 0; // any is looked at
#endif
}

// The parent's part: returns how the child ended, as in_child.
int step_child(const std::function<int()> &body)
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
        const uintptr_t at = count >= 0 ? instruction_of(pid) : 0;
        if (count >= 0 && !(libc.from <= at && at < libc.to) && count++ == steps->chosen) {
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

const int kStackSize = 16 * 1024;

// Coroutines that get what was released: their stacks are full of a pattern, which they look at again when resumed.
class Crowd {
public:
    Crowd()
    {
        const stCoRoutineAttr_t at = attr(kStackSize);
        for (std::unique_ptr<Co> &co : all_) {
            co = std::make_unique<Co>([this] { fill_and_look(); }, &at);
            co->resume();
        }
    }
    // How many have found all as they left it.
    int whole()
    {
        for (std::unique_ptr<Co> &co : all_) {
            co->resume();
        }
        return whole_;
    }

    // More than a thread keeps for itself when they are released: what else was released must be among them.
    static const int kCount = 48;

private:
    void fill_and_look()
    {
        volatile unsigned char bytes[kStackSize / 2];
        for (volatile unsigned char &byte : bytes) {
            byte = 0xa5;
        }
        co_yield_ct();
        bool all = true;
        for (volatile unsigned char &byte : bytes) {
            all = all && byte == 0xa5;
        }
        whole_ += all;
    }

    std::unique_ptr<Co> all_[kCount];
    int whole_ = 0;
};

int read_end = -1;
stCoRoutine_t *victim = nullptr;
bool went_on = false;

void wait_for_byte()
{
    steps->begin();
    poll_one(read_end, -1);
}

void just_yield()
{
    steps->begin();
    co_yield_ct();
}

void read_as_long_as_a_byte_comes()
{
    co_enable_hook_sys();
    char bytes[8];
    steps->begin();
    while (read(read_end, bytes, sizeof bytes) == 1) {
    }
}

void yield_in_a_handler()
{
    try {
        throw 1;
    } catch (int) {
        just_yield();
    }
}

stCoRoutine_t *resumer_of_victim = nullptr;

void swap_to_the_resumer()
{
    steps->begin();
    co_swap(victim, resumer_of_victim);
    // (Refused if it was released before.)
    co_yield_ct();
}

void end() { steps->begin(); }

// How the victim leaves its stack, and for whom.
struct Going {
    const char *what;
    void (*go)();
    bool on_copy_stack, resumer_on_copy_stack, resumer_in_a_handler;
    // Another way through the release.
    bool for_the_release;
};

const Going kGoings[] = {
    {"a yield", just_yield, false, false, false, true},
    {"a yield in a handler", yield_in_a_handler, false, false, false, true},
    {"a yield to one on a copy stack", just_yield, false, true, false, false},
    {"a yield to one in a handler", just_yield, false, false, true, false},
    {"a yield from a copy stack", just_yield, true, false, false, false},
    {"a yield to one on the same copy stack", just_yield, true, true, false, false},
    {"co_swap", swap_to_the_resumer, false, false, false, false},
    {"a wait", wait_for_byte, false, false, false, true},
    {"a wait in a coroutine whose resumer is in a handler", wait_for_byte, false, false, true, false},
    {"a hooked read", read_as_long_as_a_byte_comes, false, false, false, true},
    {"an end", end, false, false, false, false},
    {"an end to one on a copy stack", end, false, true, false, true},
    {"an end to one in a handler", end, false, false, true, false},
    {"an end on a copy stack", end, true, false, false, false},
    {"an end to one on the same copy stack", end, true, true, false, false},
};

// A victim that is about to go, and who resumes it.
class Stage {
public:
    Stage(const Going &going, stShareStack_t *copy_stack) : going_(going)
    {
        const stCoRoutineAttr_t at[] = {attr(kStackSize), attr(0, copy_stack)};
        read_end = pipe_.rd;
        went_on = false;
        if (co_hook_fd(read_end) != 0 || co_create(&victim, &at[going.on_copy_stack], &Stage::run, this) != 0) {
            abort();
        }
        resumer_ = std::make_unique<Co>([this] { resume(); }, &at[going.resumer_on_copy_stack]);
        resumer_of_victim = resumer_->get();
    }

    // Runs the victim: `before`, on its stack, and what it does then. Steps end where its resumer goes on.
    void play(const std::function<void()> &before)
    {
        before_ = &before;
        resumer_->resume();
    }

    // What would wake it, if it still waited.
    void wake()
    {
        pipe_.put();
        loop_rounds(3);
    }

private:
    void resume()
    {
        if (!going_.resumer_in_a_handler) {
            return resume_victim();
        }
        try {
            throw 1;
        } catch (int) {
            resume_victim();
        }
    }
    static void resume_victim()
    {
        co_resume(victim);
        steps->end();
    }
    static void *run(void *p)
    {
        const Stage &stage = *static_cast<Stage *>(p);
        (*stage.before_)();
        stage.going_.go();
        went_on = stage.going_.go != end;
        return nullptr;
    }

    Going going_;
    Pipe pipe_;
    const std::function<void()> *before_ = nullptr;
    std::unique_ptr<Co> resumer_;
};

// What went wrong at a step, as bits of a child's result.
enum { kWentOn = 1, kChanged = 2, kFewSteps = 4 };

int say(const Going &going, int wrong)
{
    if (wrong != 0) {
        printf("%s, step %ld: %s%s\n", going.what, steps->chosen, (wrong & kWentOn) != 0 ? "it ran after its release " : "",
               (wrong & kChanged) != 0 ? "a stack was written to that another coroutine has" : "");
    }
    return wrong;
}

// For each step of `going` in turn: the release happens there.
int release_at_each_step(const Going &going)
{
    steps->be_stepped();
    stShareStack_t *const copy_stack = co_alloc_sharestack(1, 64 * 1024);
    Semaphore look, looked;
    bool over = false;
    int whole = 0;
    std::thread other([&] {
        for (steps->begin_now.wait(); !over; steps->begin_now.wait()) {
            co_release(victim);
            Crowd crowd;
            steps->is_done.post();
            look.wait();
            whole = crowd.whole();
            looked.post();
        }
    });
    int wrong = 0;
    long count = 0;
    // (The first time makes what later ones find made.)
    for (long step = -1; step == count - 1 && wrong == 0; ++step) {
        Stage stage(going, copy_stack);
        steps->chosen = step;
        steps->reached = false;
        stage.play([] {});
        if (step >= 0 && !steps->reached) {
            co_release(victim);
            break;
        }
        ++count;
        if (step < 0) {
            co_release(victim);
            continue;
        }
        if (!steps->was_done) {
            steps->is_done.wait();
        }
        stage.wake();
        look.post();
        looked.wait();
        wrong = say(going, (went_on ? kWentOn : 0) | (whole != Crowd::kCount ? kChanged : 0));
    }
    over = true;
    steps->begin_now.post();
    other.join();
    printf("%s: %ld steps\n", going.what, count - 1);
    return wrong | (count < 20 ? kFewSteps : 0);
}

// For each step of co_release in turn, in another thread: `going` happens there.
int go_at_each_step_of_a_release(const Going &going)
{
    stShareStack_t *const copy_stack = co_alloc_sharestack(1, 64 * 1024);
    Semaphore runs, released, look, looked;
    bool over = false;
    int whole = 0;
    std::thread other([&] {
        steps->be_stepped();
        for (runs.wait(); !over; runs.wait()) {
            steps->begin();
            co_release(victim);
            steps->end();
            if (!steps->reached) {
                steps->begin_now.post();
            }
            Crowd crowd;
            released.post();
            look.wait();
            whole = crowd.whole();
            looked.post();
        }
    });
    int wrong = 0;
    long count = 0;
    for (bool reached = true; reached && wrong == 0; ++count) {
        Stage stage(going, copy_stack);
        steps->chosen = count - 1;
        steps->reached = steps->was_done = false;
        stage.play([&] {
            runs.post();
            steps->begin_now.wait();
        });
        steps->is_done.post();
        released.wait();
        reached = steps->chosen < 0 || steps->reached;
        if (!steps->was_done) {
            steps->is_done.wait();
        }
        stage.wake();
        look.post();
        looked.wait();
        wrong = say(going, (went_on ? kWentOn : 0) | (whole != Crowd::kCount ? kChanged : 0));
    }
    over = true;
    runs.post();
    other.join();
    printf("%s: %ld steps of co_release\n", going.what, count - 2);
    return wrong | (count < 20 ? kFewSteps : 0);
}

} // namespace

TEST(SteppedRelease, ByAnotherThreadBetweenAnyTwoInstructionsOfAYieldAWaitAndAnEnd)
{
    for (const Going &going : kGoings) {
        EXPECT_EQ(step_child([&] { return release_at_each_step(going); }), 0) << going.what;
    }
}

TEST(SteppedRelease, AYieldAWaitAndAnEndBetweenAnyTwoInstructionsOfTheRelease)
{
    for (const Going &going : kGoings) {
        if (!going.for_the_release) {
            continue;
        }
        EXPECT_EQ(step_child([&] { return go_at_each_step_of_a_release(going); }), 0) << going.what;
    }
}

#endif // COLIB_PEER
