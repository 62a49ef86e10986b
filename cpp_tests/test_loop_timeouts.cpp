// Time-outs: never early, late by little, in the order of their deadlines.
#include "loop_support.h"

#include <algorithm>

using namespace support;

namespace {

const long long ms_in_ns = 1000000;

unsigned next_random(unsigned *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

// Starts `waiters` coroutines that call `wait(ms)` five times each for 1 to 50 ms, and returns how
// many calls came back before their time.
template <typename Wait> int early_returns(int waiters, Wait wait)
{
    int early = 0, calls = 0;
    on_thread([&] {
        Group group;
        unsigned random = 7;
        for (int i = 0; i < waiters; ++i) {
            group.go([&] {
                for (int k = 0; k < 5; ++k) {
                    const int ms = 1 + next_random(&random) % 50;
                    const long long start = now_ns();
                    wait(ms);
                    early += now_ns() - start < ms * ms_in_ns;
                    ++calls;
                }
            });
        }
        ASSERT_TRUE(group.run());
    });
    EXPECT_EQ(5 * waiters, calls);
    return early;
}

} // namespace

MENDED(TimeOuts, of_co_poll_with_no_descriptor_are_never_early)
{
    EXPECT_EQ(0, early_returns(2000, [](int ms) { nap(ms); }));
}

MENDED(TimeOuts, of_co_poll_on_a_descriptor_are_never_early)
{
    Pair pipe = plain_pipe();
    const int fd = pipe.a;
    EXPECT_EQ(0, early_returns(2000, [fd](int ms) {
                  pollfd p = {fd, POLLIN, 0};
                  EXPECT_EQ(0, co_poll(co_get_epoll_ct(), &p, 1, ms));
              }));
}

MENDED(TimeOuts, of_conditions_are_never_early)
{
    stCoCond_t *cond = co_cond_alloc();
    EXPECT_EQ(0, early_returns(2000, [cond](int ms) { co_cond_timedwait(cond, ms); }));
    co_cond_free(cond);
}

MENDED(TimeOuts, of_a_single_sleeper_are_never_early)
{
    int early = 0;
    in_hooked_coroutine([&] {
        for (int i = 0; i < 300; ++i) {
            const int ms = 1 + i % 3;
            const long long start = now_ns();
            nap(ms);
            early += now_ns() - start < ms * ms_in_ns;
        }
    });
    EXPECT_EQ(0, early);
}

MENDED(TimeOuts, set_by_a_coroutine_that_computed_for_long_are_never_early)
{
    int early = 0;
    in_hooked_coroutine([&] {
        for (int i = 0; i < 20; ++i) {
            // Whatever time the loop remembers is old by now.
            for (const long long start = now_ns(); now_ns() - start < 7 * ms_in_ns;) {
            }
            const long long start = now_ns();
            nap(5);
            early += now_ns() - start < 5 * ms_in_ns;
        }
    });
    EXPECT_EQ(0, early);
}

MENDED(TimeOuts, are_typically_late_by_at_most_two_milliseconds)
{
    // Without a callback: the loop sleeps until the timer alone.
    EXPECT_EQ(0, in_child(
                     [] {
                         on_thread([] {
                             Co sleeper([] {
                                 std::vector<long long> late;
                                 for (int i = 0; i < 101; ++i) {
                                     const int ms = 1 + i % 20;
                                     const long long start = now_ns();
                                     nap(ms);
                                     late.push_back(now_ns() - start - ms * ms_in_ns);
                                 }
                                 std::nth_element(late.begin(), late.begin() + 50, late.end());
                                 _exit(late[50] <= 2 * ms_in_ns ? 0 : 1);
                             });
                             sleeper.resume();
                             co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
                         });
                         return 2;
                     },
                     30));
}

// Deadlines are rounded to ticks of a millisecond, so two that lie closer than one tick may swap; a
// sample whose beginning was held up by the system for longer does not tell its deadline.
TEST(TimeOuts, fire_in_the_order_of_their_deadlines)
{
    on_thread([] {
        struct Timer {
            long long deadline;
            bool exact;
        };
        std::vector<Timer> fired;
        Group group;
        unsigned random = 99;
        for (int i = 0; i < 10000; ++i) {
            const int ms = 1 + next_random(&random) % 800;
            const long long before = now_ns();
            auto exact = std::make_shared<bool>(false);
            group.go([&fired, exact, before, ms] {
                nap(ms);
                fired.push_back({before + ms * ms_in_ns, *exact});
            });
            *exact = now_ns() - before < ms_in_ns / 2;
        }
        ASSERT_TRUE(group.run());
        ASSERT_EQ(10000u, fired.size());
        long long latest = 0;
        int out_of_order = 0, exact = 0;
        for (const Timer &timer : fired) {
            if (timer.exact) {
                ++exact;
                out_of_order += timer.deadline + 2 * ms_in_ns < latest;
                latest = std::max(latest, timer.deadline);
            }
        }
        EXPECT_EQ(0, out_of_order);
        EXPECT_GT(exact, 5000);
    });
}

TEST(TimeOuts, all_fire_when_ten_thousand_share_one_deadline)
{
    on_thread([] {
        Group group;
        int fired = 0;
        for (int i = 0; i < 10000; ++i) {
            group.go([&] {
                nap(50);
                ++fired;
            });
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(10000, fired);
    });
}

TEST(TimeOuts, that_fell_due_while_the_thread_computed_all_fire)
{
    on_thread([] {
        Group group;
        int fired = 0;
        for (int ms = 1; ms <= 200; ++ms) {
            group.go([&, ms] {
                nap(ms);
                ++fired;
            });
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
        ASSERT_TRUE(group.run());
        EXPECT_EQ(200, fired);
    });
}

TEST(TimeOuts, set_anew_from_a_time_out_fire_again)
{
    on_thread([] {
        Group group;
        int fired = 0;
        for (int i = 0; i < 10; ++i) {
            group.go([&] {
                for (int k = 0; k < 30; ++k) {
                    nap(1 + k % 3);
                    ++fired;
                }
            });
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(300, fired);
    });
}

MENDED(TimeOuts, below_a_millisecond_round_up_to_one)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        const timeval tiny = {0, 1};
        ASSERT_EQ(0, setsockopt(pair.fd, SOL_SOCKET, SO_RCVTIMEO, &tiny, sizeof tiny));
        char byte;
        const long long start = now_ns();
        EXPECT_EQ(-1, read(pair.fd, &byte, 1));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_GE(now_ns() - start, ms_in_ns);
    });
}

MENDED(TimeOuts, of_hooked_reads_are_never_early)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        for (int ms : {1, 2, 3, 5, 8, 13, 21}) {
            set_timeout_option(pair.fd, SO_RCVTIMEO, ms);
            char byte;
            const long long start = now_ns();
            EXPECT_EQ(-1, read(pair.fd, &byte, 1));
            EXPECT_GE(now_ns() - start, ms * ms_in_ns) << ms;
        }
    });
}
