// No memory: every allocation of the library fails in turn, once or from then on. A call says so by the error it
// promises, nothing leaks, and all goes on when there is memory again.
//
// This program has malloc and its kin and mmap of its own, in front of the C library's: the library's calls come here, linked
// either way, and fail when they are told to.
#include "support.h"

#ifndef COLIB_PEER // the original does not look at what malloc returns

#include <atomic>
#include <sys/mman.h>
#include <sys/syscall.h>


extern "C" {
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);
void __libc_free(void *p);
}

namespace {

// What this thread's allocations do.
struct Plan {
    bool armed = false;
    bool for_good = false; // and all after it
    long fails = 0;        // which one, from 1 on
    long seen = 0;
    long failed = 0;
};
thread_local Plan plan;

std::atomic<long> live_blocks{0};
std::atomic<long> live_bytes_mapped{0};

bool fails_now()
{
    if (!plan.armed) {
        return false;
    }
    ++plan.seen;
    if (plan.seen == plan.fails || (plan.for_good && plan.seen > plan.fails && plan.fails > 0)) {
        ++plan.failed;
        errno = ENOMEM;
        return true;
    }
    return false;
}

void *counted(void *block)
{
    live_blocks += block != nullptr;
    return block;
}

} // namespace

extern "C" {

void *malloc(size_t n) { return fails_now() ? nullptr : counted(__libc_malloc(n)); }
void *calloc(size_t n, size_t size) { return fails_now() ? nullptr : counted(__libc_calloc(n, size)); }
void *realloc(void *p, size_t n)
{
    if (fails_now()) {
        return nullptr;
    }
    return p == nullptr ? counted(__libc_realloc(p, n)) : __libc_realloc(p, n);
}
void *memalign(size_t alignment, size_t n) { return counted(__libc_memalign(alignment, n)); }
void *aligned_alloc(size_t alignment, size_t n) { return counted(__libc_memalign(alignment, n)); }
int posix_memalign(void **p, size_t alignment, size_t n)
{
    *p = counted(__libc_memalign(alignment, n));
    return *p == nullptr ? ENOMEM : 0;
}
void free(void *p)
{
    live_blocks -= p != nullptr;
    __libc_free(p);
}

void *mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset) noexcept
{
    if (fails_now()) {
        return MAP_FAILED;
    }
    void *mapped = reinterpret_cast<void *>(syscall(SYS_mmap, at, n, protection, flags, fd, offset));
    if (mapped != MAP_FAILED) {
        live_bytes_mapped += static_cast<long>(n);
    }
    return mapped;
}

int munmap(void *at, size_t n) noexcept
{
    const int result = static_cast<int>(syscall(SYS_munmap, at, n));
    if (result == 0) {
        live_bytes_mapped -= static_cast<long>(n);
    }
    return result;
}

} // extern "C"

namespace {

using support::attr;

struct Disarm {
    ~Disarm() { plan.armed = false; }
};

// Runs `work` while allocations of this thread go by the plan.
template <typename Work>
void injected(Work work)
{
    plan.armed = true;
    Disarm disarm;
    work();
}

// One thing that a program does, on a fresh thread: `try_it` while allocations fail, then `again` with memory, which must
// succeed. Results are looked at outside.
struct Scenario {
    const char *name;
    std::function<void()> try_and_again;
};

struct Level {
    long blocks;
    long mapped;
    int descriptors;

    static Level now() { return {live_blocks, live_bytes_mapped, support::open_descriptors()}; }
};

void run(const Scenario &scenario, long fails, bool for_good, long *seen, long *failed)
{
    support::on_thread([&] {
        plan = Plan{};
        plan.fails = fails;
        plan.for_good = for_good;
        scenario.try_and_again();
        *seen = plan.seen;
        *failed = plan.failed;
        plan = Plan{};
    });
}

// n = 1 .. all. Returns how many allocations there are.
long fail_each_in_turn(const Scenario &scenario)
{
    long all = 0;
    long failed = 0;
    for (int warm_up = 0; warm_up < 3; ++warm_up) {
        SCOPED_TRACE(scenario.name);
        run(scenario, 0, false, &all, &failed);
    }
    EXPECT_EQ(0, failed);
    const Level before = Level::now();
    for (bool for_good : {false, true}) {
        for (long n = 1; n <= all + 2; ++n) {
            SCOPED_TRACE(std::string(scenario.name) + (for_good ? ", none from " : ", not ") + std::to_string(n) + " on");
            long seen = 0;
            run(scenario, n, for_good, &seen, &failed);
            EXPECT_EQ(n <= seen, failed > 0) << seen;
            if (n > seen) {
                break; // (a call that failed made fewer)
            }
        }
    }
    // With memory again nothing of it is left.
    long seen = 0;
    run(scenario, 0, false, &seen, &failed);
    const Level after = Level::now();
    EXPECT_EQ(before.blocks, after.blocks) << scenario.name << ": blocks of the heap";
    EXPECT_EQ(before.mapped, after.mapped) << scenario.name << ": mapped bytes";
    EXPECT_EQ(before.descriptors, after.descriptors) << scenario.name << ": descriptors";
    return all;
}

void *count_up(void *arg)
{
    ++*static_cast<int *>(arg);
    return nullptr;
}

} // namespace

TEST(NoMemory, in_co_create_is_enomem_and_a_null_coroutine)
{
    for (int size : {16 * 1024, 128 * 1024, 1024 * 1024}) {
        const stCoRoutineAttr_t at = attr(size);
        const Scenario scenario = {"co_create", [&at] {
            stCoRoutine_t *many[40];
            int results[40];
            injected([&] {
                for (int i = 0; i < 40; ++i) {
                    many[i] = reinterpret_cast<stCoRoutine_t *>(1);
                    results[i] = co_create(&many[i], &at, count_up, nullptr);
                }
            });
            for (int i = 0; i < 40; ++i) {
                int ran = 0;
                if (results[i] != 0) {
                    ASSERT_EQ(-ENOMEM, results[i]);
                    ASSERT_EQ(nullptr, many[i]);
                    ASSERT_EQ(0, co_create(&many[i], &at, count_up, &ran)) << "there is memory again";
                }
                many[i]->arg = &ran;
                co_resume(many[i]);
                ASSERT_EQ(1, ran);
            }
            for (stCoRoutine_t *co : many) {
                co_release(co);
            }
        }};
        EXPECT_GT(fail_each_in_turn(scenario), 2);
    }
}

TEST(NoMemory, in_co_alloc_sharestack_is_a_null_group_and_enomem)
{
    long calls = 0;
    for (long n = 1;; ++n) {
        SCOPED_TRACE(n);
        const Level before = Level::now();
        stShareStack_t *group = nullptr;
        int error = 0;
        plan = Plan{};
        plan.fails = n;
        injected([&] {
            errno = 0;
            group = co_alloc_sharestack(5, 64 * 1024);
            error = errno;
        });
        calls = plan.seen;
        if (plan.failed == 0) {
            ASSERT_NE(nullptr, group);
            break;
        }
        EXPECT_EQ(nullptr, group);
        EXPECT_EQ(ENOMEM, error);
        const Level after = Level::now();
        EXPECT_EQ(before.blocks, after.blocks);
        EXPECT_EQ(before.mapped, after.mapped);
    }
    EXPECT_GE(calls, 8) << "the group, its array, its records, five stacks";
    plan = Plan{};
}

namespace {

// A coroutine with so many live bytes, whose pattern it looks at each time it runs.
struct Deep {
    int bytes;
    int rounds = 0;
    bool whole = true;
};

void *deep(void *arg)
{
    Deep &me = *static_cast<Deep *>(arg);
    volatile unsigned char *mine = static_cast<volatile unsigned char *>(__builtin_alloca(static_cast<size_t>(me.bytes)));
    for (;;) {
        for (int i = 0; i < me.bytes; ++i) {
            mine[i] = static_cast<unsigned char>(i + me.rounds);
        }
        co_yield_ct();
        for (int i = 0; i < me.bytes; ++i) {
            me.whole = me.whole && mine[i] == static_cast<unsigned char>(i + me.rounds);
        }
        ++me.rounds;
    }
}

} // namespace

TEST(NoMemory, for_a_copy_stacks_bytes_leaves_both_coroutines_as_they_are)
{
    for (int bytes : {100, 3000, 30000}) {
        stShareStack_t *group = co_alloc_sharestack(1, 64 * 1024);
        const stCoRoutineAttr_t at = attr(0, group);
        const Scenario scenario = {"copy", [&at, bytes] {
            Deep first{bytes};
            Deep second{bytes + 50};
            stCoRoutine_t *a = nullptr;
            stCoRoutine_t *b = nullptr;
            ASSERT_EQ(0, co_create(&a, &at, deep, &first));
            ASSERT_EQ(0, co_create(&b, &at, deep, &second));
            co_resume(a);
            injected([&] {
                for (int i = 0; i < 4; ++i) {
                    co_resume(b);
                    co_resume(a);
                }
            });
            // Whoever could not come in did not run.
            EXPECT_LE(first.rounds, 4);
            EXPECT_LE(second.rounds, 3);
            const int before = first.rounds + second.rounds;
            for (int i = 0; i < 4; ++i) {
                co_resume(b);
                co_resume(a);
            }
            EXPECT_GE(first.rounds + second.rounds, before + 7);
            EXPECT_TRUE(first.whole && second.whole);
            co_release(a);
            co_release(b);
        }};
        const long allocations = fail_each_in_turn(scenario);
        if (bytes > 8192) { // (smaller ones lie in chunks that may be there already)
            EXPECT_GE(allocations, 2);
        }
    }
}

namespace {

stCoRoutine_t *inner;

// Resumes, from one copy stack, another coroutine of the same stack: its way back needs memory. None from allocation `n` on.
// Returns how it ended, and what it wrote.
int goes_back_without_memory(long n, std::string *text)
{
    int ends[2];
    if (pipe(ends) != 0) {
        std::abort();
    }
    const int result = support::in_child([&] {
        dup2(ends[1], STDERR_FILENO);
        const rlimit none{0, 0};
        setrlimit(RLIMIT_CORE, &none);
        const stCoRoutineAttr_t at = attr(0, co_alloc_sharestack(1, 64 * 1024));
        static Deep bytes{20000};
        co_create(&inner, &at, deep, &bytes);
        plan = Plan{};
        plan.fails = n;
        plan.for_good = true;
        stCoRoutine_t *outer = nullptr;
        co_create(
            &outer, &at,
            [](void *) -> void * {
                volatile char *mine = static_cast<volatile char *>(__builtin_alloca(20000));
                mine[0] = 1;
                injected([] { co_resume(inner); });
                return nullptr;
            },
            nullptr);
        co_resume(outer);
        return plan.failed > 0 ? 1 : 0;
    });
    close(ends[1]);
    char bytes[1000];
    for (ssize_t got; (got = read(ends[0], bytes, sizeof bytes)) > 0;) {
        text->append(bytes, static_cast<size_t>(got));
    }
    close(ends[0]);
    return result;
}

} // namespace

TEST(NoMemory, to_go_back_to_a_copy_stack_ends_the_program_with_a_sentence)
{
    int named = 0;
    for (long n = 1;; ++n) {
        SCOPED_TRACE(n);
        std::string text;
        const int result = goes_back_without_memory(n, &text);
        if (result == 0) {
            break; // all of it had memory
        }
        if (result == 128 + SIGABRT) {
            EXPECT_NE(std::string::npos, text.find("colib: no memory to bring coroutine 0x")) << text;
            ++named;
        } else {
            EXPECT_EQ(1, result) << "refused to begin";
            EXPECT_EQ("", text);
        }
        ASSERT_LT(n, 100);
    }
    EXPECT_GE(named, 1);
}

TEST(NoMemory, in_the_first_wait_is_its_error)
{
    const Scenario scenario = {"co_poll", [] {
        int ends[2];
        ASSERT_EQ(0, pipe(ends));
        struct Waits {
            int fd;
            int result = -2;
            int error = 0;
        } waits{ends[0]};
        stCoRoutine_t *co = nullptr;
        const auto body = [](void *arg) -> void * {
            Waits &me = *static_cast<Waits *>(arg);
            pollfd one = {me.fd, POLLIN, 0};
            errno = 0;
            me.result = co_poll(co_get_epoll_ct(), &one, 1, 50);
            me.error = errno;
            return nullptr;
        };
        injected([&] {
            if (co_create(&co, nullptr, body, &waits) == 0) {
                co_resume(co);
            }
        });
        if (co == nullptr) {
            ASSERT_EQ(0, co_create(&co, nullptr, body, &waits));
            co_resume(co);
        }
        if (co->cEnd) {
            // It could not wait: with an error, and at once.
            ASSERT_EQ(-1, waits.result);
            ASSERT_EQ(ENOMEM, waits.error);
            co_reset(co);
            co_resume(co);
        }
        ASSERT_EQ(0, co->cEnd) << "waits now";
        ASSERT_EQ(1, write(ends[1], "x", 1));
        ASSERT_TRUE(support::loop_until([&] { return co->cEnd != 0; }));
        EXPECT_EQ(1, waits.result);
        co_release(co);
        close(ends[0]);
        close(ends[1]);
    }};
    EXPECT_GE(fail_each_in_turn(scenario), 4) << "environment, stack, block, loop, registration";
}

TEST(NoMemory, in_a_wait_for_many_descriptors_is_its_error)
{
    const Scenario scenario = {"poll of many", [] {
        int ends[2];
        ASSERT_EQ(0, pipe(ends));
        struct Waits {
            int fd;
            int result = -2;
            int error = 0;
        } waits{ends[0]};
        stCoRoutine_t *co = nullptr;
        ASSERT_EQ(0, co_create(
                         &co, nullptr,
                         [](void *arg) -> void * {
                             Waits &me = *static_cast<Waits *>(arg);
                             pollfd many[300];
                             for (pollfd &one : many) {
                                 one = {me.fd, POLLIN, 0};
                             }
                             errno = 0;
                             me.result = co_poll(co_get_epoll_ct(), many, 300, 2000);
                             me.error = errno;
                             return nullptr;
                         },
                         &waits));
        co_get_epoll_ct();
        injected([&] { co_resume(co); });
        if (co->cEnd) {
            ASSERT_EQ(-1, waits.result);
            ASSERT_EQ(ENOMEM, waits.error);
            co_reset(co);
            co_resume(co);
        }
        ASSERT_EQ(0, co->cEnd);
        ASSERT_EQ(1, write(ends[1], "x", 1));
        ASSERT_TRUE(support::loop_until([&] { return co->cEnd != 0; }));
        EXPECT_EQ(300, waits.result);
        co_release(co);
        close(ends[0]);
        close(ends[1]);
    }};
    EXPECT_GE(fail_each_in_turn(scenario), 1);
}

TEST(NoMemory, for_conditions_specifics_and_variables_is_an_error)
{
    static const char *names[] = {"COLIB_TEST_A", "COLIB_TEST_B"};
    co_set_env_list(names, 2);
    const Scenario scenario = {"conditions, specifics, variables", [] {
        struct Did {
            stCoCond_t *cond = nullptr;
            int specific = 0;
            int specific_error = 0;
            int variable = 0;
            int variable_error = 0;
        } did;
        stCoRoutine_t *co = nullptr;
        const auto body = [](void *arg) -> void * {
            Did &me = *static_cast<Did *>(arg);
            co_enable_hook_sys();
            me.cond = co_cond_alloc();
            errno = 0;
            me.specific = co_setspecific(700, arg);
            me.specific_error = errno;
            errno = 0;
            me.variable = setenv("COLIB_TEST_B", "value", 1);
            me.variable_error = errno;
            return nullptr;
        };
        ASSERT_EQ(0, co_create(&co, nullptr, body, &did));
        injected([&] { co_resume(co); });
        const auto check_and_free = [&](bool memory) {
            if (memory) {
                EXPECT_NE(nullptr, did.cond);
                EXPECT_EQ(0, did.specific);
                EXPECT_EQ(0, did.variable);
            } else {
                EXPECT_TRUE(did.specific == 0 || did.specific == ENOMEM || did.specific_error == ENOMEM) << did.specific;
                EXPECT_TRUE(did.variable == 0 || (did.variable == -1 && did.variable_error == ENOMEM));
            }
            if (did.cond != nullptr) {
                EXPECT_EQ(0, co_cond_free(did.cond));
            }
        };
        check_and_free(false);
        did = Did{};
        co_reset(co);
        co_resume(co);
        check_and_free(true);
        co_release(co);
    }};
    EXPECT_GE(fail_each_in_turn(scenario), 4);
}

TEST(NoMemory, for_what_the_hooks_know_of_a_socket_is_an_error_or_a_plain_socket)
{
    const Scenario scenario = {"socket", [] {
        // (One batch holds many; each thread takes as many as are free.)
        constexpr int kMany = 300;
        struct Made {
            int fds[kMany];
            int errors[kMany];
        };
        static Made made;
        stCoRoutine_t *co = nullptr;
        ASSERT_EQ(0, co_create(
                         &co, nullptr,
                         [](void *) -> void * {
                             co_enable_hook_sys();
                             for (int i = 0; i < kMany; ++i) {
                                 errno = 0;
                                 made.fds[i] = socket(AF_UNIX, SOCK_STREAM, 0);
                                 made.errors[i] = errno;
                             }
                             return nullptr;
                         },
                         nullptr));
        injected([&] { co_resume(co); });
        for (int i = 0; i < kMany; ++i) {
            EXPECT_TRUE(made.fds[i] >= 0 || made.errors[i] == ENOMEM) << made.errors[i];
            if (made.fds[i] >= 0) {
                EXPECT_EQ(0, close(made.fds[i]));
            }
        }
        co_release(co);
    }};
    fail_each_in_turn(scenario);
}

TEST(NoMemory, at_a_threads_end_and_in_a_fork_does_no_harm)
{
    const Scenario scenario = {"end and fork", [] {
        stCoRoutine_t *co = nullptr;
        int ran = 0;
        ASSERT_EQ(0, co_create(&co, nullptr, count_up, &ran));
        co_get_epoll_ct();
        injected([&] {
            const pid_t pid = fork();
            if (pid == 0) {
                plan.armed = false;
                co_resume(co);
                _exit(ran == 1 ? 0 : 1);
            }
            plan.armed = false;
            int status = -1;
            waitpid(pid, &status, 0);
            EXPECT_EQ(0, status);
        });
        co_release(co);
        plan.armed = true; // until the thread has ended
    }};
    long seen = 0;
    long failed = 0;
    for (long n = 1; n <= 6; ++n) {
        run(scenario, n, true, &seen, &failed);
    }
}

namespace {

// Leaves room for so many more bytes of address space.
bool leave_room(size_t bytes)
{
    const rlimit limit{static_cast<rlim_t>(support::status_kib("VmSize:")) * 1024 + bytes, RLIM_INFINITY};
    return setrlimit(RLIMIT_AS, &limit) == 0;
}

} // namespace

TEST(AddressSpace, that_is_used_up_is_enomem_and_comes_back)
{
    EXPECT_EQ(0, support::in_child([] {
                  if (!leave_room(64u << 20)) {
                      return 10;
                  }
                  for (int round = 0; round < 3; ++round) {
                      std::vector<stCoRoutine_t *> all;
                      all.reserve(100000);
                      int ran = 0;
                      for (;;) {
                          stCoRoutine_t *co = nullptr;
                          const int result = co_create(&co, nullptr, count_up, &ran);
                          if (result != 0) {
                              if (result != -ENOMEM || co != nullptr) {
                                  return 11;
                              }
                              break;
                          }
                          all.push_back(co);
                      }
                      if (all.size() < 100) {
                          return 12;
                      }
                      if (co_alloc_sharestack(100, 1024 * 1024) != nullptr) {
                          return 13;
                      }
                      for (stCoRoutine_t *co : all) {
                          co_resume(co);
                          co_release(co);
                      }
                      if (ran != static_cast<int>(all.size())) {
                          return 14;
                      }
                  }
                  return 0;
              }));
}

#endif
