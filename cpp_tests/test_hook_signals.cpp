// Calls with a signal mask, and what a signal does to those who wait in select, pselect, ppoll, epoll_wait.
#include "added_hooks.h"

#include <sys/epoll.h>
#include <sys/select.h>

using namespace support;

namespace {

const timespec long_time = {100, 0};

// An epoll set that has nothing to report.
struct QuietEpoll {
    Pair pipe = plain_pipe();
    Fd fd{epoll_create1(0)};
    QuietEpoll()
    {
        epoll_event event = {};
        event.events = EPOLLIN;
        epoll_ctl(fd, EPOLL_CTL_ADD, pipe.a, &event);
    }
};

struct Call {
    const char *name;
    std::function<int(const sigset_t *)> wait;
};

// Each waits for a hundred seconds, with a mask.
inline std::vector<Call> calls_with_mask(QuietEpoll &epoll)
{
    return {{"pselect",
             [&](const sigset_t *mask) {
                 fd_set read;
                 FD_ZERO(&read);
                 FD_SET(epoll.pipe.a, &read);
                 return pselect(FD_SETSIZE, &read, nullptr, nullptr, &long_time, mask);
             }},
            {"pselect for ever", [](const sigset_t *mask) { return pselect(0, nullptr, nullptr, nullptr, nullptr, mask); }},
            {"ppoll",
             [&](const sigset_t *mask) {
                 pollfd p = {epoll.pipe.a, POLLIN, 0};
                 return ppoll(&p, 1, &long_time, mask);
             }},
            {"ppoll of nothing", [](const sigset_t *mask) { return ppoll(nullptr, 0, nullptr, mask); }},
            {"epoll_pwait",
             [&](const sigset_t *mask) {
                 epoll_event event;
                 return epoll_pwait(epoll.fd, &event, 1, 100000, mask);
             }},
            {"epoll_pwait2", [&](const sigset_t *mask) {
                 epoll_event event;
                 return epoll_pwait2(epoll.fd, &event, 1, &long_time, mask);
             }}};
}

} // namespace

MENDED(SignalMask, lets_a_pending_signal_through)
{
    Chosen all("all");
    QuietEpoll epoll;
    for (const Call &call : calls_with_mask(epoll)) {
        HandlerFor usr1(SIGUSR1);
        BlockedSignal blocked(SIGUSR1);
        in_hooked_coroutine([&] {
            pthread_kill(pthread_self(), SIGUSR1);
            EXPECT_EQ(0, handled);
            const sigset_t none = no_signals();
            EXPECT_EQ(-1, call.wait(&none)) << call.name;
            EXPECT_EQ(EINTR, errno) << call.name;
            EXPECT_EQ(1, handled) << call.name;
            EXPECT_TRUE(is_blocked(SIGUSR1));
        });
    }
}

MENDED(SignalMask, lets_a_signal_through_that_comes_while_the_loop_sleeps)
{
    Chosen all("all");
    QuietEpoll epoll;
    for (const Call &call : calls_with_mask(epoll)) {
        HandlerFor usr1(SIGUSR1);
        BlockedSignal blocked(SIGUSR1);
        on_thread([&] {
            Group group;
            group.go_hooked([&] {
                const sigset_t none = no_signals();
                EXPECT_EQ(-1, call.wait(&none)) << call.name;
                EXPECT_EQ(EINTR, errno) << call.name;
            });
            loop_rounds(3);
            EXPECT_FALSE(group.all_ended());
            std::thread sender([target = pthread_self()] { pthread_kill(target, SIGUSR1); });
            ASSERT_TRUE(group.run());
            sender.join();
            EXPECT_EQ(1, handled) << call.name;
        });
    }
}

MENDED(SignalMask, does_not_let_a_signal_into_other_coroutines)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    BlockedSignal blocked(SIGUSR1);
    on_thread([] {
        Group group;
        bool interrupted = false;
        group.go_hooked([&] {
            const sigset_t none = no_signals();
            interrupted = pselect(0, nullptr, nullptr, nullptr, nullptr, &none) == -1;
        });
        group.go([&] {
            nap(2);
            pthread_kill(pthread_self(), SIGUSR1);
            EXPECT_TRUE(is_blocked(SIGUSR1));
            EXPECT_EQ(0, handled);
            EXPECT_FALSE(interrupted);
        });
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, handled);
    });
}

MENDED(SignalMask, that_lets_nothing_through_is_not_interrupted)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    in_hooked_coroutine([] {
        Nuisance signals(SIGUSR1, 1);
        sigset_t full;
        sigfillset(&full);
        const timespec time = {0, 50000000};
        EXPECT_EQ(0, pselect(0, nullptr, nullptr, nullptr, &time, &full));
        EXPECT_EQ(0, ppoll(nullptr, 0, &time, &full));
    });
}

MENDED(SignalMask, counts_for_its_call_alone)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    BlockedSignal blocked(SIGUSR1);
    in_hooked_coroutine([] {
        const sigset_t none = no_signals();
        const timespec time = {0, 2000000};
        EXPECT_EQ(0, pselect(0, nullptr, nullptr, nullptr, &time, &none));
        pthread_kill(pthread_self(), SIGUSR1);
        EXPECT_EQ(0, usleep(5000));
        EXPECT_EQ(0, pselect(0, nullptr, nullptr, nullptr, &time, nullptr));
        EXPECT_EQ(0, handled);
        EXPECT_EQ(-1, pselect(0, nullptr, nullptr, nullptr, &time, &none));
        EXPECT_EQ(1, handled);
    });
}

MENDED(SignalMask, of_a_coroutine_that_another_thread_releases_counts_no_more)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    BlockedSignal blocked(SIGUSR1);
    on_thread([] {
        Co co([] {
            co_enable_hook_sys();
            const sigset_t none = no_signals();
            pselect(0, nullptr, nullptr, nullptr, nullptr, &none);
        });
        co.resume();
        loop_rounds(2);
        stCoRoutine_t *left = co.forget();
        std::thread([left] { co_release(left); }).join();
        loop_rounds(2);
        pthread_kill(pthread_self(), SIGUSR1);
        loop_rounds(5);
        EXPECT_EQ(0, handled);
    });
}

MENDED(Signal, with_a_handler_ends_every_such_wait_by_EINTR)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    on_thread([] {
        QuietEpoll epoll;
        Group group;
        int interrupted = 0;
        std::vector<Call> calls = calls_with_mask(epoll);
        calls.push_back({"select", [&](const sigset_t *) {
                             fd_set read;
                             FD_ZERO(&read);
                             FD_SET(epoll.pipe.a, &read);
                             timeval time = {100, 0};
                             const int result = select(FD_SETSIZE, &read, nullptr, nullptr, &time);
                             const int error = errno;
                             EXPECT_TRUE(FD_ISSET(epoll.pipe.a, &read));
                             EXPECT_EQ(99, time.tv_sec);
                             errno = error;
                             return result;
                         }});
        calls.push_back({"epoll_wait", [&](const sigset_t *) {
                             epoll_event event;
                             return epoll_wait(epoll.fd, &event, 1, -1);
                         }});
        for (const Call &call : calls) {
            group.go_hooked([&] { interrupted += call.wait(nullptr) == -1 && errno == EINTR; });
        }
        Nuisance signals(SIGUSR1);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(static_cast<int>(calls.size()), interrupted);
    });
}

MENDED(Signal, that_is_ignored_or_has_no_handler_ends_no_wait)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        Nuisance signals(SIGURG, 1); // ignored unless there is a handler
        EXPECT_EQ(0, usleep(30000));
        const timespec time = {0, 30000000};
        EXPECT_EQ(0, pselect(0, nullptr, nullptr, nullptr, &time, nullptr));
        QuietEpoll epoll;
        epoll_event event;
        EXPECT_EQ(0, epoll_wait(epoll.fd, &event, 1, 30));
    });
}

MENDED(Signal, that_stops_the_process_for_a_while_ends_no_wait)
{
    Chosen all("all");
    Pair ready = plain_pipe();
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        alarm(30);
        int slept = -2, selected = -2;
        on_thread([&] {
            Group group;
            group.go_hooked([&] { slept = usleep(200000); });
            group.go_hooked([&] {
                const timespec time = {0, 200000000};
                selected = pselect(0, nullptr, nullptr, nullptr, &time, nullptr);
            });
            raw_write(ready.b, "x", 1);
            group.run();
        });
        _exit(slept == 0 && selected == 0 ? 0 : 1);
    }
    char byte;
    ASSERT_EQ(1, raw_read(ready.a, &byte, 1));
    int status = 0, stops = 0;
    while (kill(child, SIGSTOP) == 0 && waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status)) {
        ++stops;
        kill(child, SIGCONT);
        const timespec pause = {0, 10000000};
        syscall(SYS_nanosleep, &pause, nullptr);
    }
    EXPECT_GT(stops, 5);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(0, WEXITSTATUS(status));
}

MENDED(Signal, and_a_ready_descriptor_together_report_the_descriptor)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    BlockedSignal blocked(SIGUSR1);
    in_hooked_coroutine([] {
        QuietEpoll epoll;
        raw_write(epoll.pipe.b, "x", 1);
        pthread_kill(pthread_self(), SIGUSR1);
        const sigset_t none = no_signals();
        pollfd p = {epoll.pipe.a, POLLIN, 0};
        EXPECT_EQ(1, ppoll(&p, 1, &long_time, &none));
        EXPECT_EQ(POLLIN, p.revents);
        epoll_event event;
        EXPECT_EQ(1, epoll_pwait(epoll.fd, &event, 1, 100000, &none));
    });
}
