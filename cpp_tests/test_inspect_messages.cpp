// Messages: levels, the two kinds of handlers, LIBCO_LOG, and the caller's address behind every word about misuse.
#include "support.h"

#ifndef COLIB_PEER
#include "co_inspect.h"
#include <dlfcn.h>
#include <unwind.h>

// The plain C names of functions whose C++ names the headers give.
extern "C" {
void c_co_resume(stCoRoutine_t *co) __asm__("co_resume");
void c_co_release(stCoRoutine_t *co) __asm__("co_release");
void c_co_yield_ct(void) __asm__("co_yield_ct");
int c_co_create(stCoRoutine_t **co, const void *attr, void *(*pfn)(void *), void *arg) __asm__("co_create");
}

namespace {

std::vector<std::pair<int, std::string>> messages;

void keep(int level, const char *message)
{
    messages.emplace_back(level, message);
}

std::string kept_plain;

void keep_plain(const char *message)
{
    kept_plain = message;
}

// Takes the messages of a scope.
struct Listens {
    Listens()
    {
        messages.clear();
        co_set_log_sink(keep);
    }
    ~Listens()
    {
        co_set_log_sink(nullptr);
        co_set_log_level(CO_LOG_WARN);
    }
};

// Each misuses one function, and does something afterwards: it is no tail call.
#define MISUSE(name, call)                        \
    __attribute__((noinline)) static void name()  \
    {                                             \
        call;                                     \
        __asm__ volatile("");                     \
    }

stCoRoutine_t *ended = nullptr;
stCoRoutine_t *taken = nullptr;
stCoRoutine_t *foreign = nullptr;
stCoEpoll_t *foreign_loop = nullptr;
stCoCond_t *foreign_condition = nullptr;
stCoCond_t *condition = nullptr;

MISUSE(resume_null, co_resume(nullptr))
MISUSE(resume_null_c, c_co_resume(nullptr))
MISUSE(resume_ended, co_resume(ended))
MISUSE(yield_on_main, co_yield_ct())
MISUSE(yield_on_main_c, c_co_yield_ct())
MISUSE(yield_co_on_main, co_yield_co(nullptr))
MISUSE(yield_env_on_main, co_yield_env(nullptr))
MISUSE(release_main, co_release(co_self()))
MISUSE(release_main_c, c_co_release(co_self()))
MISUSE(free_main, co_free(co_self()))
MISUSE(create_nowhere, co_create(nullptr, nullptr, nullptr, nullptr))
MISUSE(create_nowhere_c, c_co_create(nullptr, nullptr, nullptr, nullptr))
MISUSE(wait_on_main, co_cond_timedwait(condition, 1))
MISUSE(wait_on_main_too, co_cond_wait(condition, 1))
MISUSE(no_stacks, co_alloc_sharestack(0, 4096))
MISUSE(swap_null, co_swap(nullptr, nullptr))
MISUSE(swap_main, co_swap(co_self(), co_self()))
MISUSE(bad_hooks, co_set_hooks("nonsense"))

clsCoMutex *mutex = nullptr;
MISUSE(lock_on_main, mutex->CoLock())
MISUSE(resume_taken, co_resume(taken))
MISUSE(resume_foreign, co_resume(foreign))
MISUSE(reset_foreign, co_reset(foreign))

MISUSE(eventloop_foreign, co_eventloop(foreign_loop, nullptr, nullptr))
MISUSE(setspecific_beyond, co_setspecific(1024, &messages))
MISUSE(yield_any_on_main, co_yield(nullptr))

// (A coroutine's: on the main one co_poll is the plain poll.)
__attribute__((noinline)) static void poll_inner_foreign()
{
    struct pollfd none = {-1, 0, 0};
    co_poll_inner(foreign_loop, &none, 1, 1, poll);
    __asm__ volatile("");
}

__attribute__((noinline)) static void free_a_condition_of_others()
{
    co_cond_free(foreign_condition);
    __asm__ volatile("");
}

__attribute__((noinline)) static void poll_foreign()
{
    struct pollfd none = {-1, 0, 0};
    co_poll(foreign_loop, &none, 1, 1);
    __asm__ volatile("");
}

const struct {
    const char *name;
    void (*function)();
} MISUSES[] = {
    {"resume_null", resume_null},
    {"resume_null_c", resume_null_c},
    {"resume_ended", resume_ended},
    {"yield_on_main", yield_on_main},
    {"yield_on_main_c", yield_on_main_c},
    {"yield_co_on_main", yield_co_on_main},
    {"yield_env_on_main", yield_env_on_main},
    {"release_main", release_main},
    {"release_main_c", release_main_c},
    {"free_main", free_main},
    {"create_nowhere", create_nowhere},
    {"create_nowhere_c", create_nowhere_c},
    {"wait_on_main", wait_on_main},
    {"wait_on_main_too", wait_on_main_too},
    {"no_stacks", no_stacks},
    {"swap_null", swap_null},
    {"swap_main", swap_main},
    {"bad_hooks", bad_hooks},
    {"resume_taken", resume_taken},
    {"resume_foreign", resume_foreign},
    {"reset_foreign", reset_foreign},
    {"poll_foreign", poll_foreign},
    {"poll_inner_foreign", poll_inner_foreign},
    {"eventloop_foreign", eventloop_foreign},
    {"setspecific_beyond", setspecific_beyond},
    {"yield_any_on_main", yield_any_on_main},
    {"free_a_condition_of_others", free_a_condition_of_others},
};

// The address behind "called from", and what the message says it is.
struct Called {
    unsigned long address = 0;
    std::string file;
    unsigned long offset = 0;
};

Called called_from(const std::string &message)
{
    Called called;
    char file[512] = "";
    const size_t at = message.find(" (called from ");
    if (at == std::string::npos ||
        sscanf(message.c_str() + at, " (called from %lx = %511[^+]+%lx)", &called.address, file, &called.offset) != 3) {
        ADD_FAILURE() << "no caller in: " << message;
    }
    called.file = file;
    return called;
}

void *function_at(unsigned long address)
{
    return _Unwind_FindEnclosingFunction(reinterpret_cast<void *>(address));
}

void expect_called_from(void (*function)(), const std::string &message)
{
    const Called called = called_from(message);
    EXPECT_EQ(function_at(called.address), reinterpret_cast<void *>(function)) << message;
    Dl_info where{};
    ASSERT_NE(dladdr(reinterpret_cast<void *>(called.address), &where), 0);
    EXPECT_EQ(called.address - called.offset, reinterpret_cast<unsigned long>(where.dli_fbase)) << message;
    EXPECT_NE(called.file.find("test_inspect_messages"), std::string::npos) << message;
}

TEST(Messages, AWordAboutMisuseEndsWithTheAddressOfTheFunctionThatMisused)
{
    support::Co co([] {});
    co.resume();
    ended = co.get();
    condition = co_cond_alloc();
    // Another thread has a coroutine, a loop, and the only copy stack of a group.
    stShareStack_t *stacks = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t copy = support::attr(0, stacks);
    support::Co of_the_taken([] {}, &copy);
    taken = of_the_taken.get();
    support::Pipe begun, over;
    std::thread other([&] {
        support::Co waits([] { co_yield_ct(); }), lies([] { co_yield_ct(); }, &copy);
        foreign_condition = co_cond_alloc();
        support::Co waits_too([] { co_cond_timedwait(foreign_condition, -1); });
        waits_too.resume();
        waits.resume();
        lies.resume();
        foreign = waits.get();
        foreign_loop = co_get_epoll_ct();
        begun.put();
        support::poll_one(over.rd, -1);
    });
    char byte;
    ASSERT_EQ(read(begun.rd, &byte, 1), 1);
    {
        Listens here;
        for (const auto &misuse : MISUSES) {
            SCOPED_TRACE(misuse.name);
            messages.clear();
            if (misuse.function == poll_foreign || misuse.function == poll_inner_foreign ||
                misuse.function == setspecific_beyond) {
                support::Co in_a_coroutine(misuse.function);
                in_a_coroutine.resume();
            } else {
                misuse.function();
            }
            ASSERT_EQ(messages.size(), 1u);
            EXPECT_EQ(messages[0].first, CO_LOG_WARN);
            expect_called_from(misuse.function, messages[0].second);
        }
    }
    over.put();
    other.join();
    co_cond_free(condition);
}

TEST(Messages, TheAddressIsRightInACoroutineOnASmallCopyStackAndInTheLoopsCallback)
{
    Listens here;
    stShareStack_t *stacks = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t small = support::attr(12 * 1024), copy = support::attr(0, stacks);
    for (const stCoRoutineAttr_t *at : {&small, &copy}) {
        messages.clear();
        support::Co co([] { resume_null(); }, at);
        co.resume();
        ASSERT_EQ(messages.size(), 1u);
        expect_called_from(resume_null, messages[0].second);
    }
    messages.clear();
    co_eventloop(
        co_get_epoll_ct(),
        [](void *) -> int {
            release_main();
            return -1;
        },
        nullptr);
    ASSERT_EQ(messages.size(), 1u);
    expect_called_from(release_main, messages[0].second);
}

TEST(Messages, TheAddressIsRightForAMemberOfAClass)
{
    clsCoMutex free_soon;
    mutex = &free_soon;
    support::Co holds([&] {
        free_soon.CoLock();
        support::poll_one(-1, 1);
        free_soon.CoUnLock();
    });
    holds.resume();
    Listens here;
    lock_on_main();
    free_soon.CoUnLock();
    ASSERT_EQ(messages.size(), 1u);
    expect_called_from(lock_on_main, messages[0].second);
}

char kept_small[128];

// Takes little of the stack it is called on.
void keep_small(int, const char *message)
{
    for (size_t i = 0; i + 1 < sizeof kept_small && (i == 0 || message[i - 1] != 0); ++i) {
        kept_small[i] = message[i];
    }
}

TEST(Messages, AMessageOnAStackThatIsNearlyFullHarmsNothing)
{
    Listens here;
    co_set_log_sink(keep_small);
    const stCoRoutineAttr_t smallest = support::attr(4096);
    support::Co co([] { resume_null(); }, &smallest);
    co.resume();
    // Without the address: to find it would take more of the stack than there may be.
    EXPECT_STREQ(kept_small, "colib: co_resume: the coroutine is NULL");
    EXPECT_TRUE(co.ended());
}

TEST(Messages, ErrnoStaysAsItWas)
{
    Listens here;
    errno = EXDEV;
    resume_null();
    EXPECT_EQ(errno, EXDEV);
}

TEST(Messages, TheLevelSaysWhatIsShown)
{
    Listens here;
    ASSERT_EQ(co_set_log_level(CO_LOG_ERROR), 0);
    resume_null();
    EXPECT_TRUE(messages.empty());
    co_log_err("%s %d", "from the program", 7);
    ASSERT_EQ(messages.size(), 1u);
    EXPECT_EQ(messages[0].first, CO_LOG_ERROR);
    EXPECT_EQ(messages[0].second, "from the program 7");
    messages.clear();

    ASSERT_EQ(co_set_log_level(CO_LOG_DEBUG), 0);
    support::on_thread([] { support::Co co([] {}); });
    ASSERT_EQ(messages.size(), 2u);
    EXPECT_EQ(messages[0].first, CO_LOG_DEBUG);
    EXPECT_NE(messages[0].second.find("begins to use coroutines"), std::string::npos);
    EXPECT_NE(messages[1].second.find("0 coroutines left"), std::string::npos);
    messages.clear();

    ASSERT_EQ(co_set_log_level(CO_LOG_OFF), 0);
    resume_null();
    co_log_err("unheard");
    EXPECT_TRUE(messages.empty());

    errno = 0;
    EXPECT_EQ(co_set_log_level(CO_LOG_DEBUG + 1), -1);
    EXPECT_EQ(errno, EINVAL);
    EXPECT_EQ(co_set_log_level(CO_LOG_OFF - 1), -1);
    EXPECT_EQ(co_set_log_level(257), -1);
}

TEST(Messages, OfTheTwoKindsOfHandlersTheOneThatWasSetLastServes)
{
    Listens here;
    kept_plain.clear();
    co_set_log_handler(keep_plain);
    resume_null();
    EXPECT_TRUE(messages.empty());
    EXPECT_EQ(kept_plain.rfind("colib: co_resume: ", 0), 0u);
    kept_plain.clear();
    co_set_log_sink(keep);
    resume_null();
    EXPECT_EQ(messages.size(), 1u);
    EXPECT_TRUE(kept_plain.empty());
    co_set_log_handler(nullptr);
    resume_null();
    EXPECT_EQ(messages.size(), 1u);
}

// What this program says on standard error when it misuses the library under LIBCO_LOG=value.
std::string says_with(const char *value)
{
    support::Pipe out;
    const pid_t pid = fork();
    if (pid == 0) {
        dup2(out.wr, 2);
        dup2(open("/dev/null", O_WRONLY), 1);
        setenv("LIBCO_LOG", value, 1);
        setenv("GTEST_FILTER", "Messages.DISABLED_MisuseOnce", 1);
        execl("/proc/self/exe", "test", "--gtest_also_run_disabled_tests", "--gtest_brief=1", nullptr);
        _exit(127);
    }
    close(std::exchange(out.wr, -1));
    std::string said;
    char buffer[512];
    for (ssize_t n; (n = read(out.rd, buffer, sizeof buffer)) > 0;) {
        said.append(buffer, static_cast<size_t>(n));
    }
    int status = 0;
    waitpid(pid, &status, 0);
    EXPECT_EQ(status, 0);
    return said;
}

TEST(Messages, DISABLED_MisuseOnce)
{
    resume_null();
    co_log_err("the program's");
}

TEST(Messages, TheEnvironmentChoosesTheLevelByNumberOrWord)
{
    const std::string misuse = "colib: co_resume: the coroutine is NULL (called from 0x", program = "the program's\n";
    const auto has = [](const std::string &text, const std::string &part) {
        return text.find(part) != std::string::npos;
    };
    for (const char *value : {"", "0", "off"}) {
        EXPECT_EQ(says_with(value), "") << value;
    }
    EXPECT_EQ(says_with("error"), program);
    for (const char *value : {"1", "warn", "2", "info", "3", "debug"}) {
        const std::string said = says_with(value);
        EXPECT_TRUE(has(said, misuse) && has(said, program)) << value << ": " << said;
    }
    for (const char *value : {"4", "yes", "warn,info", "WARN", "-1"}) {
        const std::string said = says_with(value);
        EXPECT_EQ(said, std::string("colib: LIBCO_LOG is not followed: \"") + value +
                            "\" is none of off, error, warn, info, debug, 0, 1, 2, 3\n");
    }
}

} // namespace
#endif
