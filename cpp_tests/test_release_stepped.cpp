// co_release by another thread at any moment of a coroutine's yield, wait, wake or end: between any two instructions. A coroutine
// counts as suspended only once its stack is left, or the next owner of its stack and its block finds them written to.
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

#ifdef __x86_64__

uintptr_t word_of(pid_t pid, const void *at) { return static_cast<uintptr_t>(ptrace(PTRACE_PEEKDATA, pid, at, nullptr)); }

uintptr_t register_of(pid_t pid, size_t offset)
{
    return static_cast<uintptr_t>(ptrace(PTRACE_PEEKUSER, pid, offset, nullptr));
}

bool is_at_code_of(pid_t pid, const Range &range)
{
    const uintptr_t at = register_of(pid, offsetof(user, regs.rip));
    return range.from <= at && at < range.to;
}

// The victim's first words of registers are its stack pointer and who gets control back from it: nobody, of one that is suspended.
bool stands_on_a_suspended_stack(pid_t pid)
{
    const stCoRoutine_t *const victim = steps->victim;
    const uintptr_t sp = register_of(pid, offsetof(user, regs.rsp));
    const uintptr_t bottom = word_of(pid, &victim->ctx.ss_sp);
    return bottom < sp && sp <= bottom + word_of(pid, &victim->ctx.ss_size) && word_of(pid, &victim->ctx.regs[1]) == 0;
}

#else // any instruction is looked at, and no stack pointer

bool is_at_code_of(pid_t, const Range &) { return false; }
bool stands_on_a_suspended_stack(pid_t) { return false; }

#endif

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
bool lost_its_specific = false;

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

// All of its block is its own while it runs.
void wait_with_a_specific()
{
    static int first, second;
    co_setspecific(0, &first);
    poll_one(read_end, -1);
    lost_its_specific = co_getspecific(0) != &first;
    co_setspecific(0, &second);
    steps->end();
    co_yield_ct();
}

// How the victim leaves its stack, and for whom.
struct Going {
    const char *what;
    void (*go)();
    bool on_copy_stack, resumer_on_copy_stack, resumer_in_a_handler;
    // Another way through the release.
    bool for_the_release;
    // Its steps are those from the one that is woken just before it to its own.
    bool and_is_woken = false;
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
    {"a wake", wait_with_a_specific, false, false, false, false, true},
    {"a wake on a copy stack", wait_with_a_specific, true, true, false, false, true},
};

// A victim that is about to go, and who resumes it.
class Stage {
public:
    Stage(const Going &going, stShareStack_t *copy_stack) : going_(going)
    {
        const stCoRoutineAttr_t at[] = {attr(kStackSize), attr(0, copy_stack)};
        read_end = pipe_.rd;
        went_on = lost_its_specific = false;
        if (co_hook_fd(read_end) != 0 || co_create(&victim, &at[going.on_copy_stack], &Stage::run, this) != 0) {
            abort();
        }
        resumer_ = std::make_unique<Co>([this] { resume(); }, &at[going.resumer_on_copy_stack]);
        resumer_of_victim = resumer_->get();
        // (A resumer may stand on the same copy stack.)
        steps->victim = going.on_copy_stack ? nullptr : victim;
        steps->stood_on_a_suspended_stack = 0;
    }

    // Runs the victim: `before`, on its stack, and what it does then. Steps end where its resumer goes on.
    void play(const std::function<void()> &before)
    {
        before_ = &before;
        if (going_.and_is_woken) {
            herald_.resume();
        }
        resumer_->resume();
        if (going_.and_is_woken) {
            wake();
        }
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
    Co herald_{[] {
        poll_one(read_end, -1);
        steps->begin();
    }};
};

// What went wrong at a step, as bits of a child's result.
enum { kWentOn = 1, kChanged = 2, kFewSteps = 4, kLost = 8, kTooEarly = 16, kNotLeft = 32 };

int say(const Going &going, int wrong)
{
    const std::pair<int, const char *> words[] = {
        {kWentOn, "it ran after its release"},
        {kChanged, "a stack was written to that another coroutine has"},
        {kLost, "a part of its block changed while it ran"},
        {kTooEarly, "it counted as suspended while its thread stood on its stack"},
        {kNotLeft, "it counts as running for ever"},
    };
    for (const auto &[bit, word] : words) {
        if ((wrong & bit) != 0) {
            printf("%s, step %ld: %s\n", going.what, steps->chosen, word);
        }
    }
    return wrong;
}

// The other thread's coroutines, which have what was released, look at it when this thread's has gone.
class Look {
public:
    void of(Crowd &crowd)
    {
        begin_.wait();
        whole_ = crowd.whole();
        end_.post();
    }
    int verdict(const Going &going)
    {
        begin_.post();
        end_.wait();
        return say(going, (went_on ? kWentOn : 0) | (whole_ != Crowd::kCount ? kChanged : 0) | (lost_its_specific ? kLost : 0) |
                              (steps->stood_on_a_suspended_stack != 0 ? kTooEarly : 0));
    }

private:
    Semaphore begin_, end_;
    int whole_ = 0;
};

// For each step of `going` in turn: the release happens there.
int release_at_each_step(const Going &going)
{
    steps->be_stepped();
    stShareStack_t *const copy_stack = co_alloc_sharestack(1, 64 * 1024);
    Look look;
    bool over = false;
    std::thread other([&] {
        for (steps->begin_now.wait(); !over; steps->begin_now.wait()) {
            co_release(victim);
            Crowd crowd;
            steps->is_done.post();
            look.of(crowd);
        }
    });
    int wrong = 0;
    long count = -1;
    // (The first time makes what later ones find made.)
    for (bool reached = true; reached && wrong == 0; count += reached) {
        Stage stage(going, copy_stack);
        steps->chosen = count;
        steps->reached = false;
        stage.play([] {});
        reached = count < 0 || steps->reached;
        if (!steps->reached) {
            wrong = say(going, victim->ctx.regs[1] != nullptr ? kNotLeft : 0);
            co_release(victim);
            continue;
        }
        if (!steps->was_done) {
            steps->is_done.wait();
        }
        stage.wake();
        wrong = look.verdict(going);
    }
    over = true;
    steps->begin_now.post();
    other.join();
    printf("%s: %ld steps\n", going.what, count);
    return wrong | (count < 20 ? kFewSteps : 0);
}

// For each step of co_release in turn, in another thread: `going` happens there.
int go_at_each_step_of_a_release(const Going &going)
{
    stShareStack_t *const copy_stack = co_alloc_sharestack(1, 64 * 1024);
    Semaphore runs, released;
    Look look;
    bool over = false;
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
            look.of(crowd);
        }
    });
    int wrong = 0;
    long count = -1;
    for (bool reached = true; reached && wrong == 0; count += reached) {
        Stage stage(going, copy_stack);
        steps->chosen = count;
        steps->reached = steps->was_done = false;
        stage.play([&] {
            runs.post();
            steps->begin_now.wait();
        });
        steps->is_done.post();
        released.wait();
        reached = count < 0 || steps->reached;
        if (!steps->was_done) {
            steps->is_done.wait();
        }
        stage.wake();
        wrong = look.verdict(going);
    }
    over = true;
    runs.post();
    other.join();
    printf("%s: %ld steps of co_release\n", going.what, count);
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
