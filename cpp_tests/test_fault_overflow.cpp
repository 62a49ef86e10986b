// A coroutine that runs off its stack is named on standard error, dies as it would have died, and writes to nobody
// else's memory; SIGSEGV is otherwise the program's. Compiled with -fstack-clash-protection (CMakeLists.txt).
#include "support.h"

#ifndef COLIB_PEER // the original has no guards, and says nothing

#include <alloca.h>
#include <algorithm>
#include <csetjmp>
#include <random>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/user.h>

namespace {

using support::attr;
using support::Co;

const int kPage = getpagesize();
#ifdef __aarch64__
const int kGuard = std::max(kPage, 64 * 1024);
#else
const int kGuard = kPage;
#endif

// Whether -fstack-clash-protection does anything: gcc has no probes for riscv64 before version 15.
#if defined(__riscv) && __GNUC__ < 15
constexpr bool kProbed = false;
#else
constexpr bool kProbed = true;
#endif

// How a child ended, and what it wrote to standard error.
struct Death {
    int signal = 0;
    int status = 0;
    std::string text;

    int lines() const { return static_cast<int>(std::count(text.begin(), text.end(), '\n')); }
    bool says(const std::string &part) const { return text.find(part) != std::string::npos; }
};

// Lets go of the handlers of whatever the tests run under, and of core files.
void begin_child(int error_end)
{
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    dup2(error_end, STDERR_FILENO);
    alarm(60);
}

Death wait_for(pid_t pid, int read_end)
{
    Death death;
    char bytes[4096];
    for (ssize_t n; (n = read(read_end, bytes, sizeof bytes)) > 0;) {
        death.text.append(bytes, static_cast<size_t>(n));
    }
    close(read_end);
    // (An emulator has its own word to say about a program that dies.)
    const size_t emulator = death.text.find("qemu: uncaught target signal");
    if (emulator != std::string::npos) {
        death.text.resize(emulator);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    death.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    death.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return death;
}

Death dies(const std::function<void()> &body)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        std::abort();
    }
    const pid_t pid = fork();
    if (pid == 0) {
        begin_child(ends[1]);
        body();
        _exit(99);
    }
    close(ends[1]);
    return wait_for(pid, ends[0]);
}

// As `dies`, in this program started anew for one (disabled) test: nothing of this process is left.
Death dies_anew(const char *test, const char *setting = nullptr)
{
    const std::string filter = std::string("--gtest_filter=") + test;
    return dies([&] {
        if (setting != nullptr) {
            putenv(const_cast<char *>(setting));
        }
        execl("/proc/self/exe", "test", "--gtest_also_run_disabled_tests", filter.c_str(), nullptr);
    });
}

// Never reached.
volatile int deepest = 1 << 30;

// Frames of `size` bytes and more, until the stack ends.
__attribute__((noinline)) int recurse(int size, int depth)
{
    volatile char *bytes = static_cast<volatile char *>(alloca(static_cast<size_t>(size)));
    bytes[0] = static_cast<char>(depth);
    const int result = depth < deepest ? recurse(size, depth + 1) : 0;
    return result + bytes[0];
}

// The same with frames whose size the compiler knows: on aarch64 its probes leave out those below 64 KiB.
template <int size>
__attribute__((noinline)) int recurse_by(int depth)
{
    volatile char bytes[size];
    bytes[0] = static_cast<char>(depth);
    const int result = depth < deepest ? recurse_by<size>(depth + 1) : 0;
    return result + bytes[0];
}

constexpr int (*kRecurseBy[])(int) = {recurse_by<1000>,  recurse_by<5000>,  recurse_by<12000>, recurse_by<20000>,
                                      recurse_by<33000>, recurse_by<48000>, recurse_by<63000>, recurse_by<64000>,
                                      recurse_by<66000>, recurse_by<100000>};

__attribute__((noinline)) int frame_of_160_kb()
{
    volatile char bytes[160 * 1024];
    bytes[0] = 1;
    return bytes[0];
}

// Runs off a stack of this size, in a child.
Death overflows(const stCoRoutineAttr_t &at, const std::function<void()> &how)
{
    return dies([&] {
        Co co(how, &at);
        // The message has to have this address.
        dprintf(STDERR_FILENO, "%p\n", static_cast<void *>(co.get()));
        co.resume();
    });
}

void expect_named(const Death &death, const std::string &stack, const std::string &advice)
{
    EXPECT_EQ(SIGSEGV, death.signal) << death.status;
    EXPECT_EQ(2, death.lines()) << death.text;
    const std::string address = death.text.substr(0, death.text.find('\n'));
    EXPECT_TRUE(death.says("colib: coroutine " + address + " (routine 0x")) << death.text;
    EXPECT_TRUE(death.says(" = test_fault_overflow_")) << death.text;
    EXPECT_TRUE(death.says(stack + ") ran off its stack at 0x")) << death.text;
    EXPECT_TRUE(death.says(advice)) << death.text;
}

} // namespace

TEST(StackOverflow, of_a_private_stack_is_named)
{
    for (int size : {16 * 1024, 128 * 1024, 8 * 1024 * 1024}) {
        const Death death = overflows(attr(size), [] { recurse(100, 0); });
        expect_named(death, "private stack of " + std::to_string(size) + " bytes", "(stCoRoutineAttr_t.stack_size)");
    }
}

TEST(StackOverflow, of_a_copy_stack_is_named)
{
    for (int size : {16 * 1024, 256 * 1024}) {
        const stCoRoutineAttr_t at = attr(0, co_alloc_sharestack(2, size));
        const Death death = overflows(at, [] { recurse(100, 0); });
        expect_named(death, "copy stack of " + std::to_string(size) + " bytes", "(co_alloc_sharestack's size)");
    }
}

TEST(StackOverflow, by_one_large_frame_is_named)
{
    if (!kProbed) {
        GTEST_SKIP() << "this compiler has no probes";
    }
    const Death frame = overflows(attr(64 * 1024), [] { frame_of_160_kb(); });
    expect_named(frame, "private stack of 65536 bytes", "large locals");
    const Death array = overflows(attr(64 * 1024), [] { recurse(1024 * 1024, 0); });
    expect_named(array, "private stack of 65536 bytes", "alloca");
}

TEST(StackOverflow, by_frames_of_any_fixed_size_is_named)
{
    if (!kProbed) {
        GTEST_SKIP() << "this compiler has no probes";
    }
    for (auto *recurse_by : kRecurseBy) {
        for (const bool copy : {false, true}) {
            const stCoRoutineAttr_t at = attr(64 * 1024, copy ? co_alloc_sharestack(2, 64 * 1024) : nullptr);
            const Death death = overflows(at, [recurse_by] { recurse_by(0); });
            expect_named(death, copy ? "copy stack of 65536 bytes" : "private stack of 65536 bytes", "large locals");
        }
    }
}

TEST(StackOverflow, on_a_thread_is_named)
{
    const Death death = dies([] {
        support::on_thread([] {
            const stCoRoutineAttr_t at = attr(32 * 1024);
            Co co([] { recurse(10, 0); }, &at);
            co.resume();
        });
    });
    EXPECT_EQ(SIGSEGV, death.signal);
    EXPECT_EQ(1, death.lines()) << death.text;
    EXPECT_TRUE(death.says("private stack of 32768 bytes) ran off its stack")) << death.text;
}

TEST(StackOverflow, of_a_nested_coroutine_names_the_inner_one)
{
    const Death death = dies([] {
        const stCoRoutineAttr_t small = attr(16 * 1024);
        Co inner([] { recurse(10, 0); }, &small);
        Co outer([&] { inner.resume(); });
        dprintf(STDERR_FILENO, "%p\n", static_cast<void *>(inner.get()));
        outer.resume();
    });
    expect_named(death, "private stack of 16384 bytes", "stack_size");
}

#ifdef __x86_64__ // (other processors have other registers)

// The instruction that faulted runs again with the default action: a core dump has its registers and its address.
TEST(StackOverflow, leaves_the_registers_and_the_siginfo_to_the_core_dump)
{
    int ends[2];
    ASSERT_EQ(0, pipe2(ends, O_CLOEXEC));
    const pid_t pid = fork();
    if (pid == 0) {
        begin_child(ends[1]);
        ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        raise(SIGSTOP);
        Co co([] { recurse(100, 0); });
        co.resume();
        _exit(99);
    }
    close(ends[1]);
    struct Stop {
        user_regs_struct registers;
        siginfo_t info;
    };
    std::vector<Stop> stops;
    int status = 0;
    for (;;) {
        ASSERT_EQ(pid, waitpid(pid, &status, 0));
        if (!WIFSTOPPED(status)) {
            break;
        }
        const int signal = WSTOPSIG(status);
        if (signal == SIGSEGV) {
            Stop stop{};
            ptrace(PTRACE_GETREGS, pid, nullptr, &stop.registers);
            ptrace(PTRACE_GETSIGINFO, pid, nullptr, &stop.info);
            stops.push_back(stop);
        }
        ptrace(PTRACE_CONT, pid, nullptr, signal == SIGSTOP ? 0 : signal);
    }
    close(ends[0]);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    ASSERT_EQ(2u, stops.size());
    EXPECT_EQ(0, memcmp(&stops[0].registers, &stops[1].registers, sizeof stops[0].registers));
    EXPECT_EQ(stops[0].info.si_addr, stops[1].info.si_addr);
    EXPECT_EQ(stops[0].info.si_code, stops[1].info.si_code);
}

#endif

namespace {

// A coroutine whose stack is full of a pattern, from its frame down to near the stack's end.
struct Neighbour {
    stCoRoutine_t *co = nullptr;
    unsigned char pattern = 0;
    volatile unsigned char *bytes = nullptr;
    size_t size = 0;

    bool is_whole() const
    {
        for (size_t i = 0; i < size; ++i) {
            if (bytes[i] != static_cast<unsigned char>(pattern + i)) {
                return false;
            }
        }
        return true;
    }
};

std::vector<Neighbour> neighbours;
constexpr int kWhole = 70;
constexpr int kDamaged = 71;

void *fill_stack(void *arg)
{
    Neighbour &me = *static_cast<Neighbour *>(arg);
    const stStackMem_t *stack = me.co->stack_mem;
    char *here = static_cast<char *>(__builtin_frame_address(0));
    me.size = static_cast<size_t>(here - stack->stack_buffer) - 3 * 1024;
    me.bytes = static_cast<volatile unsigned char *>(alloca(me.size));
    for (size_t i = 0; i < me.size; ++i) {
        me.bytes[i] = static_cast<unsigned char>(me.pattern + i);
    }
    co_yield_ct();
    return nullptr;
}

// The program's own handler: it was there first, and is called by the library's.
void look_at_neighbours(int, siginfo_t *, void *)
{
    for (const Neighbour &neighbour : neighbours) {
        if (!neighbour.is_whole()) {
            _exit(kDamaged);
        }
    }
    _exit(kWhole);
}

void overflow_among_neighbours(unsigned seed)
{
    std::mt19937 random(seed);
    const auto below = [&](int limit) { return static_cast<int>(random() % static_cast<unsigned>(limit)); };
    struct sigaction action {};
    action.sa_sigaction = look_at_neighbours;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    const auto run = [&] {
        const int size = kPage * (4 + below(13));
        const bool copy = below(3) == 0;
        const stCoRoutineAttr_t at = attr(size, copy ? co_alloc_sharestack(5, size) : nullptr);
        const int frame = 1 + below(below(2) == 0 ? 200 : kProbed ? 40000 : 3000);
        neighbours.resize(5);
        const size_t victim = static_cast<size_t>(below(5));
        stCoRoutine_t *falls = nullptr;
        for (size_t i = 0; i < neighbours.size(); ++i) {
            Neighbour &neighbour = neighbours[i];
            neighbour.pattern = static_cast<unsigned char>(random());
            if (i == victim) {
                static int bytes;
                static int (*fixed)(int);
                bytes = frame;
                fixed = kProbed && below(3) == 0 ? kRecurseBy[below(std::size(kRecurseBy))] : nullptr;
                co_create(
                    &falls, &at,
                    [](void *) -> void * {
                        fixed != nullptr ? fixed(0) : recurse(bytes, 0);
                        return nullptr;
                    },
                    nullptr);
            } else {
                co_create(&neighbour.co, &at, fill_stack, &neighbour);
            }
        }
        for (Neighbour &neighbour : neighbours) {
            if (neighbour.co != nullptr) {
                co_resume(neighbour.co);
            }
        }
        co_resume(falls);
    };
    if (below(4) == 0) {
        support::on_thread(run);
    } else {
        run();
    }
}

} // namespace

TEST(StackOverflow, at_random_a_thousand_times_writes_into_no_neighbour)
{
    const char *wish = getenv("COLIB_TEST_SEED");
    const unsigned first = wish != nullptr ? static_cast<unsigned>(atol(wish)) : std::random_device{}();
    int named = 0;
    for (unsigned i = 0; i < 1000; ++i) {
        SCOPED_TRACE("COLIB_TEST_SEED=" + std::to_string(first + i));
        const Death death = dies([&] { overflow_among_neighbours(first + i); });
        ASSERT_EQ(kWhole, death.status) << "signal " << death.signal << ", " << death.text;
        ASSERT_EQ(1, death.lines()) << death.text;
        ASSERT_TRUE(death.says(") ran off its stack at 0x")) << death.text;
        ++named;
    }
    EXPECT_EQ(1000, named);
}

namespace {

sigjmp_buf back;
volatile sig_atomic_t handled;
void *volatile fault_address;

void jump_back(int, siginfo_t *info, void *)
{
    handled = handled + 1;
    fault_address = info->si_addr;
    siglongjmp(back, 1);
}

void install(void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction action {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | flags;
    sigaction(SIGSEGV, &action, nullptr);
}

void touch(uintptr_t address)
{
    *reinterpret_cast<volatile char *>(address) = 1;
}

// A fault in a coroutine, caught by the program's handler, which goes back into the coroutine.
bool recovers_in_a_coroutine()
{
    bool went_on = false;
    Co co([&] {
        if (sigsetjmp(back, 1) == 0) {
            touch(16);
        }
        co_yield_ct();
        went_on = true;
    });
    co.resume();
    co.resume();
    return went_on && co.ended() && fault_address == reinterpret_cast<void *>(16);
}

} // namespace

TEST(ProgramsOwnHandler, that_was_there_first_gets_other_faults_as_before)
{
    for (int flags : {0, SA_ONSTACK, SA_NODEFER}) {
        const Death death = dies([&] {
            install(jump_back, flags);
            _exit(recovers_in_a_coroutine() && recovers_in_a_coroutine() && handled == 2 ? 0 : 1);
        });
        EXPECT_EQ(0, death.status) << death.signal;
        EXPECT_EQ("", death.text);
    }
}

TEST(ProgramsOwnHandler, that_comes_later_takes_the_place_of_ours)
{
    for (int flags : {0, SA_ONSTACK}) {
        const Death death = dies([&] {
            Co early([] {});
            early.resume();
            install(jump_back, flags);
            _exit(recovers_in_a_coroutine() && handled == 1 ? 0 : 1);
        });
        EXPECT_EQ(0, death.status) << death.signal;
        EXPECT_EQ("", death.text);
    }
}

TEST(ProgramsOwnHandler, that_comes_later_and_hands_on_lets_ours_speak)
{
    static struct sigaction before;
    const Death death = dies([] {
        Co early([] {});
        struct sigaction action {};
        action.sa_sigaction = [](int number, siginfo_t *info, void *context) {
            dprintf(STDERR_FILENO, "mine first\n");
            before.sa_sigaction(number, info, context);
        };
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, &before);
        Co co([] { recurse(100, 0); });
        co.resume();
    });
    EXPECT_EQ(SIGSEGV, death.signal);
    EXPECT_EQ(2, death.lines()) << death.text;
    EXPECT_TRUE(death.says("mine first\ncolib: coroutine ")) << death.text;
}

TEST(ProgramsOwnHandler, of_the_old_kind_and_for_once_is_called_so)
{
    const Death death = dies([] {
        struct sigaction action {};
        action.sa_handler = [](int) { dprintf(STDERR_FILENO, "once\n"); };
        action.sa_flags = static_cast<int>(SA_RESETHAND);
        sigaction(SIGSEGV, &action, nullptr);
        Co co([] { touch(16); });
        co.resume();
    });
    EXPECT_EQ(SIGSEGV, death.signal) << "the instruction faults again, now by default";
    EXPECT_EQ("once\n", death.text);
}

TEST(ProgramsOwnHandler, recovers_from_an_overflow_and_the_next_is_named_too)
{
    const Death death = dies([] {
        install(jump_back, SA_ONSTACK);
        for (int i = 0; i < 3; ++i) {
            Co co([] {
                if (sigsetjmp(back, 1) == 0) {
                    recurse(1000, 0);
                }
            });
            co.resume();
            if (!co.ended()) {
                _exit(1);
            }
        }
        _exit(0);
    });
    EXPECT_EQ(0, death.status) << death.signal;
    EXPECT_EQ(3, death.lines()) << death.text;
}

TEST(OtherFaults, in_a_coroutine_end_the_program_without_a_word_about_stacks)
{
    for (uintptr_t address : {uintptr_t{0}, uintptr_t{1} << 47}) {
        const Death death = dies([&] {
            Co co([&] { touch(address); });
            co.resume();
        });
        EXPECT_EQ(SIGSEGV, death.signal);
        EXPECT_EQ("", death.text);
    }
}

TEST(OtherFaults, on_the_main_coroutine_end_the_program_without_a_word)
{
    const Death death = dies([] {
        Co co([] {});
        touch(16);
    });
    EXPECT_EQ(SIGSEGV, death.signal);
    EXPECT_EQ("", death.text);
}

TEST(OtherFaults, beside_a_stack_with_room_are_told_apart)
{
    const auto beside = [](ptrdiff_t from_bottom, ptrdiff_t from_top) {
        return dies([=] {
            std::vector<stCoRoutine_t *> all(12);
            for (stCoRoutine_t *&co : all) {
                co_create(&co, nullptr, nullptr, nullptr);
            }
            // One with another's stack above it, a guard between.
            const auto has_one_above = [&](stCoRoutine_t *co) {
                return std::any_of(all.begin(), all.end(), [&](stCoRoutine_t *other) {
                    return other->stack_mem->stack_buffer == co->stack_mem->stack_bp + kGuard;
                });
            };
            stCoRoutine_t *co = *std::find_if(all.begin(), all.end(), has_one_above);
            const stStackMem_t *stack = co->stack_mem;
            static char *at;
            at = from_top != 0 ? stack->stack_bp + from_top - 1 : stack->stack_buffer + from_bottom;
            co->pfn = [](void *) -> void * { touch(reinterpret_cast<uintptr_t>(at)); return nullptr; };
            co_resume(co);
        });
    };
    const Death below = beside(-8, 0);
    EXPECT_EQ(SIGSEGV, below.signal);
    EXPECT_TRUE(below.says(", 8 bytes below its stack, of which ")) << below.text;
    EXPECT_TRUE(below.says("a bad pointer, or an index below an array")) << below.text;
    const Death above = beside(0, 9);
    EXPECT_EQ(SIGSEGV, above.signal);
    EXPECT_TRUE(above.says(", 8 bytes above its stack: a bad pointer, or an index above an array")) << above.text;
}

TEST(SentSigsegv, ends_the_program_as_before_or_is_ignored_as_before)
{
    const Death killed = dies([] {
        Co co([] { kill(getpid(), SIGSEGV); });
        co.resume();
    });
    EXPECT_EQ(SIGSEGV, killed.signal);
    EXPECT_EQ("", killed.text);
    const Death ignored = dies([] {
        signal(SIGSEGV, SIG_IGN);
        Co co([] { kill(getpid(), SIGSEGV); });
        co.resume();
        _exit(co.ended() ? 0 : 1);
    });
    EXPECT_EQ(0, ignored.status);
    EXPECT_EQ("", ignored.text);
}

TEST(SignalStack, of_the_programs_own_stays)
{
    support::on_thread([] {
        static char own[64 * 1024];
        const stack_t mine = {own, 0, sizeof own};
        ASSERT_EQ(0, sigaltstack(&mine, nullptr));
        Co co([] {});
        co.resume();
        stack_t now;
        ASSERT_EQ(0, sigaltstack(nullptr, &now));
        EXPECT_EQ(own, now.ss_sp);
    });
}

TEST(SignalStack, of_ours_goes_with_the_thread)
{
    stack_t before;
    support::on_thread([&] {
        Co co([] {});
        ASSERT_EQ(0, sigaltstack(nullptr, &before));
        EXPECT_EQ(0, before.ss_flags);
    });
    unsigned char resident;
    EXPECT_EQ(-1, mincore(before.ss_sp, 1, &resident));
    EXPECT_EQ(ENOMEM, errno) << "the mapping is gone";
}

TEST(DISABLED_Anew, without_coroutines)
{
    struct sigaction now;
    sigaction(SIGSEGV, nullptr, &now);
    stack_t stack;
    sigaltstack(nullptr, &stack);
    _exit(now.sa_handler == SIG_DFL && (stack.ss_flags & SS_DISABLE) != 0 ? 42 : 1);
}

TEST(DISABLED_Anew, overflow)
{
    Co co([] { recurse(100, 0); });
    co.resume();
}

TEST(AProgramWithoutCoroutines, keeps_its_signals)
{
    EXPECT_EQ(42, dies_anew("DISABLED_Anew.without_coroutines").status);
}

TEST(LibcoFaults, of_zero_leaves_the_signal_alone)
{
    const Death named = dies_anew("DISABLED_Anew.overflow");
    EXPECT_EQ(SIGSEGV, named.signal);
    EXPECT_TRUE(named.says("ran off its stack")) << named.text;
    const Death silent = dies_anew("DISABLED_Anew.overflow", "LIBCO_FAULTS=0");
    EXPECT_EQ(SIGSEGV, silent.signal);
    EXPECT_EQ("", silent.text);
}

#endif
