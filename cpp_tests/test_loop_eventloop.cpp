// co_eventloop: its callback, its end, nesting, signals, sleeping without a callback, fairness.
#include "loop_support.h"

#include <dlfcn.h>
#include <sys/time.h>
#include <ctime>

using namespace support;

namespace {

// The condition that a signal handler signals; handlers can reach nothing else.
stCoCond_t *handler_cond;
volatile sig_atomic_t handler_calls;

void signal_the_condition(int)
{
    handler_calls = handler_calls + 1;
    co_cond_signal(handler_cond);
}

void install_handler(int signo)
{
    struct sigaction action = {};
    action.sa_handler = signal_the_condition;
    action.sa_flags = SA_RESTART;
    sigaction(signo, &action, nullptr);
}

char thread_state(pid_t pid, pid_t tid)
{
    char path[64], text[512] = {};
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", static_cast<int>(pid), static_cast<int>(tid));
    FILE *file = fopen(path, "re");
    if (file == nullptr) {
        return '?';
    }
    const size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    const char *end = n > 0 ? strrchr(text, ')') : nullptr;
    return end != nullptr ? end[2] : '?';
}

// Every wake-up and every preemption of a thread so far, or -1.
inline long context_switches(pid_t pid)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", static_cast<int>(pid));
    FILE *file = fopen(path, "re");
    long sum = -1;
    while (file != nullptr && fgets(line, sizeof line, file) != nullptr) {
        if (const char *found = strstr(line, "ctxt_switches:")) {
            sum = (sum < 0 ? 0 : sum) + atol(found + strlen("ctxt_switches:"));
        }
    }
    if (file != nullptr) {
        fclose(file);
    }
    return sum;
}

// Forks a child that runs `body` (which ends in a loop with no callback and writes a byte to its
// argument shortly before it falls idle), and returns how often the child was switched to within
// three seconds of idleness.
inline long switches_of_an_idle_child(const std::function<void(int ready)> &body)
{
    Pair ready = plain_pipe();
    const pid_t pid = fork();
    if (pid == 0) {
        signal(SIGALRM, SIG_DFL);
        alarm(60);
        body(ready.b);
        _exit(1);
    }
    char byte;
    EXPECT_EQ(1, raw_read(ready.a, &byte, 1));
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    EXPECT_TRUE(wait_until([&] { return thread_state(pid, pid) == 'S'; })) << "the child never sleeps";
    const long before = context_switches(pid);
    std::this_thread::sleep_for(std::chrono::seconds(3));
    const long after = context_switches(pid);
    EXPECT_GE(before, 0);
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return after - before;
}

// gettimeofday and clock_gettime(CLOCK_REALTIME) as the whole program sees them, this many seconds
// wrong: a stepped wall clock.
std::atomic<long> wall_clock_step{0};

} // namespace

extern "C" int gettimeofday(timeval *__restrict tv, void *__restrict) noexcept
{
    timespec t;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &t);
    tv->tv_sec = t.tv_sec + wall_clock_step;
    tv->tv_usec = t.tv_nsec / 1000;
    return 0;
}

extern "C" int clock_gettime(clockid_t clock, timespec *t) noexcept
{
    const long result = syscall(SYS_clock_gettime, clock, t);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        t->tv_sec += wall_clock_step;
    }
    return static_cast<int>(result);
}

TEST(EventLoop, calls_the_callback_after_every_round)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        raw_write(pipe.b, "x", 1);
        int callbacks = 0;
        std::vector<int> seen;
        Group group;
        group.go([&] {
            // The pipe is ready: each wait lasts for one round.
            for (int i = 0; i < 20; ++i) {
                pollfd p = {pipe.a, POLLIN, 0};
                co_poll(co_get_epoll_ct(), &p, 1, 10000);
                seen.push_back(callbacks);
            }
        });
        ASSERT_TRUE(loop_until([&] {
            ++callbacks;
            return group.all_ended();
        }));
        ASSERT_EQ(20u, seen.size());
        for (size_t i = 1; i < seen.size(); ++i) {
            EXPECT_LT(seen[i - 1], seen[i]) << "no callback between two rounds";
        }
    });
}

TEST(EventLoop, calls_the_callback_about_once_a_millisecond_when_nothing_happens)
{
    on_thread([] {
        const long long start = now_ms();
        int calls = 0;
        loop_until([&] {
            ++calls;
            return now_ms() - start >= 500;
        });
        EXPECT_GE(calls, 100);
        EXPECT_LE(calls, 600);
    });
}

TEST(EventLoop, calls_the_callback_while_coroutines_sleep_longer)
{
    on_thread([] {
        Group group;
        group.go([] { nap(400); });
        int calls = 0;
        ASSERT_TRUE(loop_until([&] {
            ++calls;
            return group.all_ended();
        }));
        EXPECT_GE(calls, 60);
    });
}

TEST(EventLoop, passes_its_argument_to_the_callback)
{
    on_thread([] {
        void *seen = nullptr;
        static void **out;
        out = &seen;
        int mark = 0;
        co_eventloop(
            co_get_epoll_ct(),
            [](void *arg) {
                *out = arg;
                return -1;
            },
            &mark);
        EXPECT_EQ(&mark, seen);
    });
}

TEST(EventLoop, ends_only_when_the_callback_returns_exactly_minus_one)
{
    on_thread([] {
        struct Returns {
            int next = 0;
            const int values[7] = {0, 1, -2, INT_MIN, INT_MAX, 255, -1};
        } returns;
        co_eventloop(
            co_get_epoll_ct(),
            [](void *p) {
                Returns *r = static_cast<Returns *>(p);
                return r->values[r->next++];
            },
            &returns);
        EXPECT_EQ(7, returns.next);
    });
}

TEST(EventLoop, may_be_called_again_and_serves_what_was_left)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        int polled = -1, woken_by_time = 0;
        group.go([&] {
            pollfd p = {pipe.a, POLLIN, 0};
            polled = co_poll(co_get_epoll_ct(), &p, 1, 20000);
        });
        group.go([&] {
            nap(30);
            ++woken_by_time;
        });
        loop_rounds(3);
        EXPECT_EQ(-1, polled);
        raw_write(pipe.b, "x", 1);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, polled);
        EXPECT_EQ(1, woken_by_time);
    });
}

TEST(EventLoop, nests_inside_a_coroutine)
{
    on_thread([] {
        Group group;
        bool inner_ended = false;
        std::vector<int> order;
        group.go([&] {
            Group inner;
            inner.go([&] {
                nap(20);
                order.push_back(1);
            });
            inner_ended = inner.run();
            order.push_back(2);
        });
        group.go([&] { nap(1); });
        ASSERT_TRUE(group.run());
        EXPECT_TRUE(inner_ended);
        EXPECT_EQ((std::vector<int>{1, 2}), order);
    });
}

TEST(EventLoop, nested_inside_a_coroutine_serves_those_outside_too)
{
    on_thread([] {
        Group group;
        bool outside = false;
        group.go([&] {
            nap(5);
            outside = true;
        });
        bool seen_inside = false;
        group.go([&] { seen_inside = loop_until([&] { return outside; }); });
        ASSERT_TRUE(group.run());
        EXPECT_TRUE(seen_inside);
    });
}

TEST(EventLoop, nests_inside_its_own_callback)
{
    on_thread([] {
        Group group;
        group.go([] { nap(20); });
        bool entered = false, inner = false;
        ASSERT_TRUE(loop_until([&] {
            if (!entered) {
                entered = true;
                inner = group.run();
            }
            return group.all_ended();
        }));
        EXPECT_TRUE(inner);
    });
}

TEST(EventLoop, lets_the_callback_resume_a_coroutine)
{
    on_thread([] {
        int runs = 0;
        Co co([&] {
            for (;;) {
                ++runs;
                co_yield_ct();
            }
        });
        ASSERT_TRUE(loop_until([&] {
            co.resume();
            return runs == 5;
        }));
    });
}

TEST(EventLoop, lets_the_callback_create_a_coroutine_that_waits)
{
    on_thread([] {
        Group group;
        int created = 0;
        ASSERT_TRUE(loop_until([&] {
            if (created < 10) {
                ++created;
                group.go([] { nap(3); });
            }
            return created == 10 && group.all_ended();
        }));
    });
}

TEST(EventLoop, serves_a_condition_signalled_before_it_starts)
{
    on_thread([] {
        stCoCond_t *cond = co_cond_alloc();
        Group group;
        group.go([&] { co_cond_timedwait(cond, -1); });
        co_cond_signal(cond);
        EXPECT_FALSE(group.all_ended());
        ASSERT_TRUE(group.run());
        co_cond_free(cond);
    });
}

TEST(EventLoop, serves_a_condition_signalled_before_it_starts_with_no_callback)
{
    EXPECT_EQ(0, in_child(
                     [] {
                         on_thread([] {
                             stCoCond_t *cond = co_cond_alloc();
                             Co waiter([&] {
                                 co_cond_timedwait(cond, -1);
                                 _exit(0);
                             });
                             waiter.resume();
                             co_cond_signal(cond);
                             co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
                         });
                         return 1;
                     },
                     20));
}

TEST(EventLoop, serves_a_condition_signalled_in_a_signal_handler)
{
    on_thread([] {
        handler_cond = co_cond_alloc();
        install_handler(SIGUSR1);
        Group group;
        group.go([] { co_cond_timedwait(handler_cond, -1); });
        int round = 0;
        ASSERT_TRUE(loop_until([&] {
            if (++round == 3) {
                raise(SIGUSR1);
            }
            return group.all_ended();
        }));
        signal(SIGUSR1, SIG_DFL);
        co_cond_free(handler_cond);
    });
}

TEST(EventLoop, wakes_from_sleep_for_a_condition_signalled_in_a_signal_handler)
{
    EXPECT_EQ(0, in_child(
                     [] {
                         handler_cond = co_cond_alloc();
                         install_handler(SIGUSR1);
                         std::atomic<pid_t> tid{0};
                         pthread_t thread;
                         pthread_create(
                             &thread, nullptr,
                             [](void *out) -> void * {
                                 Co waiter([] {
                                     co_cond_timedwait(handler_cond, -1);
                                     _exit(0);
                                 });
                                 waiter.resume();
                                 *static_cast<std::atomic<pid_t> *>(out) = gettid();
                                 co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
                                 return nullptr;
                             },
                             &tid);
                         wait_until([&] { return tid != 0; });
                         std::this_thread::sleep_for(std::chrono::milliseconds(100));
                         wait_until([&] { return thread_state(getpid(), tid) == 'S'; });
                         pthread_kill(thread, SIGUSR1);
                         pthread_join(thread, nullptr);
                         return 1;
                     },
                     20));
}

// A timer fires at a random moment while one coroutine waits for the handler's condition and the
// loop has no callback. A wake-up lost in the gap before the loop sleeps would hang the child.
MENDED(EventLoop, loses_no_wake_up_in_a_storm_of_signals)
{
    EXPECT_EQ(
        0, in_child(
               [] {
                   handler_cond = co_cond_alloc();
                   handler_calls = 0;
                   stCoCond_t *answered = co_cond_alloc();
                   install_handler(SIGUSR2);
                   sigevent event = {};
                   event.sigev_notify = SIGEV_SIGNAL;
                   event.sigev_signo = SIGUSR2;
                   timer_t timer;
                   if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) {
                       return 2;
                   }
                   Co waiter([&] {
                       for (;;) {
                           co_cond_timedwait(handler_cond, -1);
                           co_cond_signal(answered);
                       }
                   });
                   waiter.resume();
                   Co armer([&] {
                       unsigned random = 12345;
                       for (int i = 0; i < 20000; ++i) {
                           random = random * 1664525u + 1013904223u;
                           itimerspec when = {};
                           when.it_value.tv_nsec = 1 + (random >> 8) % 60000;
                           timer_settime(timer, 0, &when, nullptr);
                           co_cond_timedwait(answered, -1);
                       }
                       _exit(handler_calls == 20000 ? 0 : 3);
                   });
                   armer.resume();
                   co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
                   return 4;
               },
               50));
}

MENDED(EventLoop, without_a_callback_and_with_waiters_sleeps_without_a_system_call)
{
    EXPECT_EQ(0, switches_of_an_idle_child([](int ready) {
                  Pair pipe = plain_pipe();
                  Group group;
                  group.go([&] {
                      pollfd p = {pipe.a, POLLIN, 0};
                      co_poll(co_get_epoll_ct(), &p, 1, -1);
                  });
                  group.go([] { co_cond_timedwait(co_cond_alloc(), -1); });
                  group.go([] { nap(INT_MAX); });
                  group.go([&] {
                      nap(20);
                      raw_write(ready, "x", 1);
                  });
                  co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
              }));
}

MENDED(EventLoop, without_a_callback_and_without_waiters_sleeps_without_a_system_call)
{
    EXPECT_EQ(0, switches_of_an_idle_child([](int ready) {
                  raw_write(ready, "x", 1);
                  co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
              }));
}

// Each event is consumed, so the descriptors stay quiet while the loop still knows them.
MENDED(EventLoop, sleeps_without_a_system_call_after_descriptors_were_served)
{
    EXPECT_EQ(0, switches_of_an_idle_child([](int ready) {
                  Pair pipes[8];
                  Group group;
                  for (Pair &pipe : pipes) {
                      pipe = plain_pipe();
                      group.go([&pipe] {
                          for (;;) {
                              pollfd p = {pipe.a, POLLIN, 0};
                              co_poll(co_get_epoll_ct(), &p, 1, -1);
                              char byte;
                              raw_read(pipe.a, &byte, 1);
                          }
                      });
                  }
                  group.go([&] {
                      for (Pair &pipe : pipes) {
                          raw_write(pipe.b, "x", 1);
                          nap(2);
                      }
                      raw_write(ready, "x", 1);
                  });
                  co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
              }));
}

TEST(EventLoop, without_a_callback_wakes_for_a_timer)
{
    EXPECT_EQ(0, in_child(
                     [] {
                         on_thread([] {
                             Co sleeper([] {
                                 nap(150);
                                 _exit(0);
                             });
                             sleeper.resume();
                             co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
                         });
                         return 1;
                     },
                     20));
}

TEST(EventLoop, without_a_callback_wakes_for_a_descriptor)
{
    EXPECT_EQ(0, in_child(
                     [] {
                         on_thread([] {
                             Pair pipe = plain_pipe();
                             std::thread writer([&] {
                                 std::this_thread::sleep_for(std::chrono::milliseconds(100));
                                 raw_write(pipe.b, "x", 1);
                             });
                             Co reader([&] {
                                 pollfd p = {pipe.a, POLLIN, 0};
                                 _exit(co_poll(co_get_epoll_ct(), &p, 1, -1) == 1 ? 0 : 2);
                             });
                             reader.resume();
                             co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
                         });
                         return 1;
                     },
                     20));
}

// Two coroutines signal each other for ever.
MENDED(EventLoop, does_not_starve_a_descriptor_beside_coroutines_that_signal_each_other_for_ever)
{
    EXPECT_EQ(0, in_child(
                     [] {
                         on_thread([] {
                             stCoCond_t *ping = co_cond_alloc(), *pong = co_cond_alloc();
                             Pair pipe = plain_pipe();
                             Group group;
                             group.go([&] {
                                 for (;;) {
                                     co_cond_timedwait(ping, -1);
                                     co_cond_signal(pong);
                                 }
                             });
                             group.go([&] {
                                 for (;;) {
                                     co_cond_signal(ping);
                                     co_cond_timedwait(pong, -1);
                                 }
                             });
                             group.go([&] {
                                 pollfd p = {pipe.a, POLLIN, 0};
                                 _exit(co_poll(co_get_epoll_ct(), &p, 1, -1) == 1 ? 0 : 2);
                             });
                             std::thread writer([&] {
                                 std::this_thread::sleep_for(std::chrono::milliseconds(50));
                                 raw_write(pipe.b, "x", 1);
                             });
                             co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
                         });
                         return 1;
                     },
                     10));
}

MENDED(EventLoop, does_not_starve_a_timer_beside_coroutines_that_signal_each_other_for_ever)
{
    EXPECT_EQ(0, in_child(
                     [] {
                         on_thread([] {
                             stCoCond_t *ping = co_cond_alloc(), *pong = co_cond_alloc();
                             Group group;
                             group.go([&] {
                                 for (;;) {
                                     co_cond_timedwait(ping, -1);
                                     co_cond_signal(pong);
                                 }
                             });
                             group.go([&] {
                                 for (;;) {
                                     co_cond_signal(ping);
                                     co_cond_timedwait(pong, -1);
                                 }
                             });
                             group.go([&] {
                                 nap(20);
                                 _exit(0);
                             });
                             co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
                         });
                         return 1;
                     },
                     10));
}

MENDED(EventLoop, calls_the_callback_beside_coroutines_that_signal_each_other_for_ever)
{
    EXPECT_EQ(0, in_child(
                     [] {
                         on_thread([] {
                             stCoCond_t *ping = co_cond_alloc(), *pong = co_cond_alloc();
                             Group group;
                             group.go([&] {
                                 for (;;) {
                                     co_cond_timedwait(ping, -1);
                                     co_cond_signal(pong);
                                 }
                             });
                             group.go([&] {
                                 for (;;) {
                                     co_cond_signal(ping);
                                     co_cond_timedwait(pong, -1);
                                 }
                             });
                             loop_rounds(5);
                             _exit(0);
                         });
                         return 1;
                     },
                     10));
}

MENDED(EventLoop, is_not_disturbed_by_a_wall_clock_stepped_forwards)
{
    on_thread([] {
        Group group;
        const long long start = now_ms();
        group.go([] { nap(300); });
        group.go([] {
            nap(20);
            wall_clock_step = 3600;
        });
        const bool ended = group.run();
        wall_clock_step = 0;
        ASSERT_TRUE(ended);
        EXPECT_GE(now_ms() - start, 299);
    });
}

MENDED(EventLoop, is_not_disturbed_by_a_wall_clock_stepped_backwards)
{
    on_thread([] {
        Group group;
        const long long start = now_ms();
        group.go([] { nap(100); });
        group.go([] {
            nap(20);
            wall_clock_step = -3600;
            nap(20);
        });
        const bool ended = group.run(5000);
        wall_clock_step = 0;
        EXPECT_TRUE(ended);
        EXPECT_LT(now_ms() - start, 4000);
    });
}

TEST(EventLoop, runs_in_several_threads_at_once)
{
    std::vector<std::thread> threads;
    std::atomic<int> done{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            Pair pipe = plain_pipe();
            Group group;
            group.go([&] {
                for (int i = 0; i < 50; ++i) {
                    pollfd p = {pipe.a, POLLIN, 0};
                    char byte;
                    if (co_poll(co_get_epoll_ct(), &p, 1, 10000) != 1 || raw_read(pipe.a, &byte, 1) != 1) {
                        return;
                    }
                }
                ++done;
            });
            group.go([&] {
                for (int i = 0; i < 50; ++i) {
                    nap(1);
                    raw_write(pipe.b, "x", 1);
                }
            });
            group.run();
        });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    EXPECT_EQ(4, done);
}

TEST(EventLoop, leaves_its_place_to_an_exception_from_the_callback_and_may_be_called_again)
{
    on_thread([] {
        Group group;
        group.go([] { nap(20); });
        bool caught = false;
        try {
            co_eventloop(
                co_get_epoll_ct(), [](void *) -> int { throw 7; }, nullptr);
        } catch (int value) {
            caught = value == 7;
        }
        EXPECT_TRUE(caught);
        EXPECT_TRUE(group.run());
    });
}
