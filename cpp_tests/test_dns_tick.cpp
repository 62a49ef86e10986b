// A name server that answers late or never stops nobody but who asks it.
#include "name_server.h"

#ifndef COLIB_PEER // the original stops all coroutines on today's C library

using namespace support;

namespace {

// Runs the group while a coroutine ticks each millisecond; the largest gap between two ticks.
double largest_gap_ms(Group &group, int *ticks)
{
    long long gap = 0;
    bool done = false;
    Co ticker([&] {
        long long last = now_ns();
        while (!done) {
            nap(1);
            gap = std::max(gap, now_ns() - last);
            last = now_ns();
            ++*ticks;
        }
    });
    ticker.resume();
    EXPECT_TRUE(group.run(60000));
    done = true;
    EXPECT_TRUE(loop_until([&] { return ticker.ended(); }));
    return static_cast<double>(gap) / 1e6;
}

const double limit_ms = 50; // a blocked resolver makes it a second at the least

} // namespace

TEST(SlowNameServer, that_answers_late_does_not_hold_up_a_tick_of_a_millisecond)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(500);
        ASSERT_TRUE(server.bound());
        Group group;
        int right = 0, ticks = 0;
        for (int n = 1; n <= 50; ++n) {
            group.go_hooked([&right, n] {
                right += lookups()[0].ask(n);
                right += lookups()[1].ask(n + 50);
            });
        }
        const double gap = largest_gap_ms(group, &ticks);
        printf("late: largest gap %.2f ms in %d ticks\n", gap, ticks);
        EXPECT_EQ(100, right);
        EXPECT_LT(gap, limit_ms);
        EXPECT_GT(ticks, 500);
    });
}

TEST(SlowNameServer, that_never_answers_does_not_hold_up_a_tick_of_a_millisecond)
{
    EXPECT_IN_OWN_NETWORK(1, [] {
        NameServer server(0);
        ASSERT_TRUE(server.bound());
        Group group;
        int ticks = 0, given_up = 0, right = 0;
        for (int n = 1; n <= 50; ++n) {
            group.go_hooked([&given_up, n] {
                if (n % 2 == 0) {
                    addrinfo *list = nullptr;
                    given_up += getaddrinfo("never.colib.test", nullptr, nullptr, &list) == EAI_AGAIN;
                } else {
                    h_errno = 0;
                    const hostent *host = gethostbyname("never.colib.test");
                    given_up += host == nullptr && h_errno == TRY_AGAIN;
                }
            });
        }
        group.go_hooked([&right] { right += lookups()[0].ask(7); });
        const double gap = largest_gap_ms(group, &ticks);
        printf("never: largest gap %.2f ms in %d ticks\n", gap, ticks);
        EXPECT_EQ(50, given_up);
        EXPECT_EQ(1, right);
        EXPECT_LT(gap, limit_ms);
        EXPECT_GT(ticks, 1000);
    });
}

#endif
