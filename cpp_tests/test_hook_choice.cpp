// Which hooks are on: the words of LIBCO_HOOKS and co_set_hooks, and why most are off by default.
#include "added_hooks.h"

#include <set>

#include <sys/epoll.h>
#include <sys/select.h>
#include <threads.h>

using namespace support;

namespace {

using Names = std::set<std::string>;

// Whether a hooked coroutine in `call` lets others run.
inline bool cooperates(const std::function<void()> &call)
{
    bool early = false;
    on_thread([&] {
        Co co([&] {
            co_enable_hook_sys();
            call();
        });
        co.resume();
        early = !co.ended();
        loop_until([&] { return co.ended(); }, 5000);
    });
    return early;
}

// secure_getenv is one of those that are on by default: it sees the coroutine's own value.
inline bool sees_private_values()
{
    static const char *name = "COLIB_TEST_PRIVATE";
    co_set_env_list(&name, 1);
    bool seen = false;
    in_hooked_coroutine([&] {
        setenv(name, "mine", 1);
        const char *value = secure_getenv(name);
        seen = value != nullptr && std::string(value) == "mine";
    });
    return seen;
}

// With `libco` a time-out of zero ends a read at once.
inline bool ends_reads_at_once()
{
    bool at_once = false;
    on_thread([&] {
        Co co([&] {
            co_enable_hook_sys();
            const int fd = socket(AF_INET, SOCK_DGRAM, 0);
            set_timeout_option(fd, SO_RCVTIMEO, 0);
            char byte;
            at_once = read(fd, &byte, 1) == -1 && errno == EAGAIN;
            close(fd);
        });
        co.resume();
        loop_until([&] { return co.ended(); }, 20);
    });
    return at_once;
}

// Those of the hooks looked at here that are on now.
inline Names on_now()
{
    const timespec ms = {0, 1000000};
    Fd epoll(epoll_create1(0));
    epoll_event event;
    timeval time;
    const std::pair<const char *, std::function<void()>> calls[] = {
        {"usleep", [] { usleep(1000); }},
        {"nanosleep", [&] { nanosleep(&ms, nullptr); }},
        {"clock_nanosleep", [&] { clock_nanosleep(CLOCK_MONOTONIC, 0, &ms, nullptr); }},
        {"thrd_sleep", [&] { thrd_sleep(&ms, nullptr); }},
        {"select", [&] { time = {0, 1000}, select(0, nullptr, nullptr, nullptr, &time); }},
        {"pselect", [&] { pselect(0, nullptr, nullptr, nullptr, &ms, nullptr); }},
        {"ppoll", [&] { ppoll(nullptr, 0, &ms, nullptr); }},
        {"epoll_wait", [&] { epoll_wait(epoll, &event, 1, 1); }},
        {"epoll_pwait", [&] { epoll_pwait(epoll, &event, 1, 1, nullptr); }},
        {"epoll_pwait2", [&] { epoll_pwait2(epoll, &event, 1, &ms, nullptr); }}};
    Names names;
    for (const auto &call : calls) {
        if (cooperates(call.second)) {
            names.insert(call.first);
        }
    }
    if (sees_private_values()) {
        names.insert("secure_getenv");
    }
    if (ends_reads_at_once()) {
        names.insert("libco");
    }
    if (!cooperates([] { poll(nullptr, 0, 1); })) {
        names.insert("not even poll");
    }
    return names;
}

const Names everything = {"usleep", "nanosleep", "clock_nanosleep", "thrd_sleep",   "select",       "pselect",
                          "ppoll",  "epoll_wait", "epoll_pwait",    "epoll_pwait2", "secure_getenv"};

inline Names but(Names names, const Names &without)
{
    for (const std::string &name : without) {
        names.erase(name);
    }
    return names;
}

struct Words {
    const char *words;
    Names on;
};

inline std::vector<Words> meaningful()
{
    return {{"", {"secure_getenv"}},
            {"default", {"secure_getenv"}},
            {"all", everything},
            {"libco", {"libco"}},
            {"usleep", {"secure_getenv", "usleep"}},
            {"usleep,select", {"secure_getenv", "usleep", "select"}},
            {"-secure_getenv", {}},
            {"all,-usleep,-select", but(everything, {"usleep", "select"})},
            {" all , -usleep ,, ", but(everything, {"usleep"})},
            {"libco,nanosleep", {"libco", "nanosleep"}},
            {"usleep,-usleep", {"secure_getenv"}},
            {"-usleep,usleep", {"secure_getenv", "usleep"}},
            {"usleep,all,default,ppoll", {"secure_getenv", "ppoll"}},
            {"libco,all", everything},
            {"__select,__ppoll_chk", {"secure_getenv", "select", "ppoll"}},
            {"all,-__nanosleep", but(everything, {"nanosleep"})}};
}

// What makes no sense, and the word of it that a message names.
const std::pair<const char *, const char *> meaningless[] = {
    {"nonsense", "nonsense"}, {"all,nonsense", "nonsense"}, {"usleep,-nonsense,all", "-nonsense"}, {"-", "-"},
    {"-all", "-all"},         {"-libco", "-libco"},         {"ALL", "ALL"},                        {"all;usleep", "all;usleep"},
    {"usleep all", "usleep all"}, {"read", "read"},         {"all,-close", "-close"},              {"dup", "dup"}};

std::string logged;

inline std::string joined(const Names &names)
{
    std::string text;
    for (const std::string &name : names) {
        text += name + ' ';
    }
    return text;
}

struct Ran {
    int status; // as of in_child
    std::string out;
};

// Runs this program anew with LIBCO_HOOKS=`words` (none if NULL), one test of it, and collects what it
// prints. A run of more than `limit_s` is ended by SIGALRM.
inline Ran run_anew(const char *words, const char *test, unsigned limit_s = 30)
{
    Pair pipe = plain_pipe();
    fflush(nullptr);
    const pid_t pid = fork();
    if (pid == 0) {
        syscall(SYS_dup3, pipe.b.get(), STDOUT_FILENO, 0);
        syscall(SYS_dup3, pipe.b.get(), STDERR_FILENO, 0);
        unsetenv("LIBCO_HOOKS");
        if (words != nullptr) {
            setenv("LIBCO_HOOKS", words, 1);
        }
        signal(SIGALRM, SIG_DFL);
        alarm(limit_s);
        const std::string filter = std::string("--gtest_filter=") + test;
        execl("/proc/self/exe", "choice", filter.c_str(), "--gtest_also_run_disabled_tests", nullptr);
        _exit(126);
    }
    pipe.b.reset();
    Ran ran;
    char text[4096];
    for (ssize_t n; (n = raw_read(pipe.a, text, sizeof text)) > 0;) {
        ran.out.append(text, n);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return ran;
}

inline bool has(const Ran &ran, const std::string &text) { return ran.out.find(text) != std::string::npos; }

// Three coroutines that hold a mutex across a usleep, on one thread.
inline void hold_a_mutex_across_usleep()
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    int done = 0;
    on_thread([&] {
        Group group;
        for (int i = 0; i < 3; ++i) {
            group.go_hooked([&] {
                pthread_mutex_lock(&mutex);
                usleep(2000);
                ++done;
                pthread_mutex_unlock(&mutex);
            });
        }
        EXPECT_TRUE(group.run());
    });
    EXPECT_EQ(3, done);
}

} // namespace

// Run by others of this file in a process of their own.
MENDED(Probe, DISABLED_prints_what_is_on)
{
    printf("on: %s.\n", joined(on_now()).c_str());
}

MENDED(Probe, DISABLED_changes_the_environment_later)
{
    const Names before = on_now();
    setenv("LIBCO_HOOKS", "all", 1);
    EXPECT_EQ(before, on_now());
    unsetenv("LIBCO_HOOKS");
    EXPECT_EQ(before, on_now());
    setenv("LIBCO_HOOKS", "libco", 1);
    EXPECT_EQ(0, in_child([&] { return on_now() == before ? 0 : 1; }));
    printf("done.\n");
}

MENDED(Probe, DISABLED_holds_a_mutex_across_usleep)
{
    hold_a_mutex_across_usleep();
    printf("done.\n");
}

MENDED(SetHooks, turns_on_what_the_words_say)
{
    EXPECT_EQ(Names{"secure_getenv"}, on_now());
    for (const Words &each : meaningful()) {
        Chosen chosen(each.words);
        EXPECT_EQ(each.on, on_now()) << each.words;
    }
    EXPECT_EQ(Names{"secure_getenv"}, on_now());
}

MENDED(SetHooks, refuses_words_without_meaning_and_changes_nothing)
{
    co_set_log_handler([](const char *message) { logged = message; });
    Chosen chosen("usleep,ppoll");
    const Names before = {"secure_getenv", "usleep", "ppoll"};
    for (const auto &each : meaningless) {
        logged.clear();
        errno = 0;
        EXPECT_EQ(-1, co_set_hooks(each.first)) << each.first;
        EXPECT_EQ(EINVAL, errno);
        EXPECT_NE(std::string::npos, logged.find('"' + std::string(each.second) + '"')) << logged;
    }
    EXPECT_EQ(before, on_now());
    EXPECT_EQ(-1, co_set_hooks(nullptr));
    EXPECT_EQ(EINVAL, errno);
    EXPECT_EQ(-1, co_set_hooks(std::string(100000, 'x').c_str()));
    EXPECT_EQ(before, on_now());
    co_set_log_handler(nullptr);
}

MENDED(SetHooks, counts_at_once_in_every_thread_and_coroutine)
{
    on_thread([] {
        int step = 0;
        Co co([&] {
            co_enable_hook_sys();
            usleep(1000);
            step = 1;
            co_yield_ct();
            usleep(1000);
            step = 2;
        });
        co.resume();
        EXPECT_EQ(1, step);
        std::thread([] { EXPECT_EQ(0, co_set_hooks("usleep")); }).join();
        co.resume();
        EXPECT_EQ(1, step);
        EXPECT_TRUE(loop_until([&] { return co.ended(); }));
        EXPECT_EQ(2, step);
        EXPECT_EQ(0, co_set_hooks("default"));
    });
}

MENDED(LibcoHooks, in_the_environment_takes_the_same_words)
{
    for (const Words &each : meaningful()) {
        const Ran ran = run_anew(each.words, "Probe.DISABLED_prints_what_is_on");
        EXPECT_EQ(0, ran.status);
        EXPECT_TRUE(has(ran, "on: " + joined(each.on) + ".")) << each.words << '\n' << ran.out;
        EXPECT_FALSE(has(ran, "LIBCO_HOOKS")) << ran.out;
    }
    EXPECT_TRUE(has(run_anew(nullptr, "Probe.DISABLED_prints_what_is_on"), "on: secure_getenv ."));
}

MENDED(LibcoHooks, with_words_without_meaning_are_reported_and_not_followed)
{
    for (const auto &each : meaningless) {
        const Ran ran = run_anew(each.first, "Probe.DISABLED_prints_what_is_on");
        EXPECT_EQ(0, ran.status);
        EXPECT_TRUE(has(ran, "on: secure_getenv .")) << each.first << '\n' << ran.out;
        EXPECT_TRUE(has(ran, "LIBCO_HOOKS")) << ran.out;
        EXPECT_TRUE(has(ran, '"' + std::string(each.second) + '"')) << ran.out;
    }
}

MENDED(LibcoHooks, are_read_when_the_program_starts_and_never_again)
{
    for (const char *words : {static_cast<const char *>(nullptr), "usleep"}) {
        const Ran ran = run_anew(words, "Probe.DISABLED_changes_the_environment_later");
        EXPECT_EQ(0, ran.status) << ran.out;
        EXPECT_TRUE(has(ran, "done.")) << ran.out;
    }
}

// Why the added hooks are off by default.
MENDED(Mutex, held_across_usleep_works_by_default)
{
    hold_a_mutex_across_usleep();
    EXPECT_TRUE(has(run_anew(nullptr, "Probe.DISABLED_holds_a_mutex_across_usleep"), "done."));
    EXPECT_TRUE(has(run_anew("all,-usleep", "Probe.DISABLED_holds_a_mutex_across_usleep"), "done."));
}

MENDED(Mutex, held_across_usleep_stops_the_thread_for_ever_with_all)
{
    const Ran ran = run_anew("all", "Probe.DISABLED_holds_a_mutex_across_usleep", 2);
    EXPECT_EQ(128 + SIGALRM, ran.status) << ran.out;
    EXPECT_FALSE(has(ran, "done.")) << ran.out;
}
