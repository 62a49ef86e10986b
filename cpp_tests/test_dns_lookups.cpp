// Every function that looks names up, side by side in the coroutines of one thread, in a network of the
// test's own.
#include "name_server.h"

#include <malloc.h>

#ifndef COLIB_PEER // of these the original has but gethostbyname, which stops all on today's C library

using namespace support;

namespace {

class EachLookup : public testing::TestWithParam<Lookup> {};

// Resumes 40 coroutines that look up; how many were right.
int look_up_forty(const Lookup &lookup, Group &group)
{
    static int right;
    right = 0;
    for (int n = 1; n <= 40; ++n) {
        group.go_hooked([&lookup, n] { right += lookup.ask(n); });
    }
    EXPECT_TRUE(group.run());
    return right;
}

} // namespace

TEST_P(EachLookup, of_100_ms_in_40_coroutines_takes_less_than_a_second_in_all)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(100);
        ASSERT_TRUE(server.bound());
        Group group;
        const long long start = now_ms();
        EXPECT_EQ(40, look_up_forty(GetParam(), group));
        // 16 helper threads make three rounds of it.
        EXPECT_LT(now_ms() - start, 1000);
        EXPECT_GE(now_ms() - start, 100);
    });
}

TEST_P(EachLookup, works_on_copy_stacks_that_are_switched_out_meanwhile)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(20);
        ASSERT_TRUE(server.bound());
        const stCoRoutineAttr_t at = attr(0, co_alloc_sharestack(1, 131072));
        Group group;
        int right = 0;
        for (int n = 1; n <= 20; ++n) {
            group.go_hooked([&right, n] { right += GetParam().ask(n); }, &at);
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(20, right);
    });
}

TEST_P(EachLookup, works_from_several_threads_at_once)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(10);
        ASSERT_TRUE(server.bound());
        std::atomic<int> right{0};
        std::vector<std::thread> all;
        for (int t = 0; t < 4; ++t) {
            all.emplace_back([&right] {
                Group group;
                for (int n = 1; n <= 10; ++n) {
                    group.go_hooked([&right, n] { right += GetParam().ask(n); });
                }
                group.run();
            });
        }
        for (std::thread &thread : all) {
            thread.join();
        }
        EXPECT_EQ(40, right);
    });
}

TEST_P(EachLookup, on_the_main_coroutine_or_with_hooks_off_starts_no_thread)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(0);
        ASSERT_TRUE(server.bound());
        const int before = threads();
        Co plain([] { EXPECT_TRUE(GetParam().ask(3)); });
        plain.resume();
        EXPECT_TRUE(plain.ended());
        co_enable_hook_sys();
        EXPECT_TRUE(GetParam().ask(4));
        EXPECT_EQ(before, threads());
    });
}

TEST_P(EachLookup, leaves_nothing_behind_when_its_coroutine_is_released_or_reset)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(1);
        ASSERT_TRUE(server.bound());
        bool ran_on = false;
        int turn = 0;
        const auto abandon = [&] {
            Co gone([&] {
                co_enable_hook_sys();
                GetParam().ask(1 + turn % 40);
                ran_on = true;
            });
            gone.resume();
            // Some jobs are queued still, some run, some are done and not collected yet.
            if (++turn % 4 == 0) {
                std::this_thread::sleep_for(std::chrono::milliseconds(3));
            }
            if (turn % 2 == 0) {
                gone.reset();
            }
        };
        // What is left when all jobs are done: a group's lookups come after those that were abandoned.
        const auto in_use_after = [&] {
            const long grown = growth_of(500, abandon);
            EXPECT_LT(grown, 1024);
            Group group;
            EXPECT_EQ(40, look_up_forty(GetParam(), group));
            return static_cast<long>(mallinfo2().uordblks);
        };
        const long before = in_use_after();
        // A job is 150 bytes or more: a thousand of them would show.
        EXPECT_LT(in_use_after() - before, 64 * 1024);
        EXPECT_FALSE(ran_on);
        EXPECT_LE(threads(), 2 + 16); // the process's first, this one, the helpers
    });
}

TEST_P(EachLookup, goes_on_in_a_child_of_fork)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(100);
        ASSERT_TRUE(server.bound());
        Group group;
        int right = 0;
        for (int n = 1; n <= 5; ++n) {
            group.go_hooked([&right, n] { right += GetParam().ask(n); });
        }
        loop_rounds(5);
        EXPECT_EQ(0, right);
        EXPECT_EQ(0, in_child(
                         [&] {
                             group.run();
                             return right == 5 ? 0 : 1;
                         },
                         20));
        ASSERT_TRUE(group.run());
        EXPECT_EQ(5, right);
    });
}

TEST_P(EachLookup, resumed_by_hand_fails_and_can_be_repeated)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(50);
        ASSERT_TRUE(server.bound());
        Group group;
        int answers = 0;
        Co &co = group.go_hooked([&] {
            EXPECT_FALSE(GetParam().ask(1));
            EXPECT_EQ(EINTR, errno);
            EXPECT_TRUE(GetParam().ask(2));
            ++answers;
        });
        co.resume();
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, answers);
    });
}

TEST_P(EachLookup, is_made_in_place_where_no_thread_can_be_had)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(0);
        ASSERT_TRUE(server.bound());
        EXPECT_TRUE(GetParam().ask(1)); // whatever the C library loads, it has loaded
        Co co([] {
            co_enable_hook_sys();
            EXPECT_TRUE(GetParam().ask(2));
        });
        const int before = threads();
        ASSERT_TRUE(leave_address_space(400 * 1024));
        co.resume();
        EXPECT_TRUE(co.ended());
        EXPECT_EQ(before, threads());
    });
}

INSTANTIATE_TEST_SUITE_P(Names, EachLookup, testing::ValuesIn(lookups()),
                         [](const testing::TestParamInfo<Lookup> &info) { return std::string(info.param.name); });

TEST(Getaddrinfo, frees_the_lists_that_nobody_came_back_for)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(0);
        ASSERT_TRUE(server.bound());
        const auto in_use_after = [] {
            for (int round = 0; round < 125; ++round) {
                Group group;
                for (int n = 1; n <= 16; ++n) {
                    group.go_hooked([n] { lookups()[0].ask(n); });
                }
                // The helpers finish; no loop runs to collect it.
                std::this_thread::sleep_for(std::chrono::milliseconds(5));
            }
            return static_cast<long>(mallinfo2().uordblks);
        };
        const long before = in_use_after();
        // 2000 lists of about 80 bytes.
        EXPECT_LT(in_use_after() - before, 64 * 1024);
    });
}

TEST(HelperThreads, are_as_many_as_asked_for_and_no_more)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(100);
        ASSERT_TRUE(server.bound());
        const int before = threads();
        int most = 0;
        for (const int wanted : {1, 3, 40}) {
            ASSERT_EQ(0, co_set_helper_threads(wanted));
            Group group;
            int right = 0;
            const int count = wanted < 40 ? 6 : 40;
            most = 0;
            for (int n = 1; n <= count; ++n) {
                group.go_hooked([&right, n] { right += lookups()[0].ask(n); });
            }
            const long long start = now_ms();
            EXPECT_TRUE(loop_until([&] {
                most = std::max(most, threads() - before);
                return group.all_ended();
            }));
            EXPECT_EQ(count, right);
            EXPECT_EQ(wanted, most);
            EXPECT_GE(now_ms() - start, (count + wanted - 1) / wanted * 100 - 10) << wanted;
        }
        // Fewer again: those that are too many go when they are woken or have been idle.
        ASSERT_EQ(0, co_set_helper_threads(1));
        Group group;
        group.go_hooked([] { EXPECT_TRUE(lookups()[0].ask(1)); });
        ASSERT_TRUE(group.run());
        EXPECT_TRUE(wait_until([&] { return threads() - before <= 1; }));
    });
}

TEST(HelperThreads, refuse_a_number_out_of_bounds)
{
    for (const int wrong : {0, -1, INT_MIN, 1025, INT_MAX}) {
        errno = 0;
        EXPECT_EQ(-1, co_set_helper_threads(wrong)) << wrong;
        EXPECT_EQ(EINVAL, errno) << wrong;
    }
    EXPECT_EQ(0, co_set_helper_threads(1024));
    EXPECT_EQ(0, co_set_helper_threads(16));
}

TEST(HelperThreads, block_all_signals_and_end_when_idle)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(0);
        ASSERT_TRUE(server.bound());
        const int before = threads();
        Group group;
        group.go_hooked([] { EXPECT_TRUE(lookups()[0].ask(1)); });
        ASSERT_TRUE(group.run());
        EXPECT_EQ(before + 1, threads());
        EXPECT_TRUE(wait_until([&] { return threads() == before; }));
    });
}

#endif
