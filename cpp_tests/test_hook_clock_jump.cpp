// clock_nanosleep until a time of a clock that is set meanwhile. The program's own clock_gettime stands
// before the C library's, so the test sets the clock for itself alone.
#include "added_hooks.h"

namespace {

std::atomic<long long> ahead_s{0}; // how far CLOCK_REALTIME was set forward

} // namespace

extern "C" int clock_gettime(clockid_t clock, struct timespec *now) noexcept
{
    const int result = static_cast<int>(syscall(SYS_clock_gettime, clock, now));
    if (result == 0 && clock == CLOCK_REALTIME) {
        now->tv_sec += ahead_s;
    }
    return result;
}

using namespace support;

namespace {

inline timespec in_seconds(int seconds)
{
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_sec += seconds;
    return now;
}

} // namespace

MENDED(ClockNanosleep, until_a_time_of_a_clock_that_is_set_forward_ends_within_about_a_second)
{
    Chosen all("all");
    ahead_s = 0;
    on_thread([] {
        Group group;
        long long set_at = 0, woken_at = 0;
        group.go_hooked([&] {
            const timespec until = in_seconds(3600);
            EXPECT_EQ(0, clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, nullptr));
            woken_at = now_ms();
        });
        loop_rounds(20);
        EXPECT_FALSE(group.all_ended());
        set_at = now_ms();
        ahead_s = 4000;
        ASSERT_TRUE(group.run());
        EXPECT_LT(woken_at - set_at, 2000);
    });
    ahead_s = 0;
}

MENDED(ClockNanosleep, until_a_time_of_a_clock_that_is_set_back_waits_for_it)
{
    Chosen all("all");
    ahead_s = 2;
    on_thread([] {
        Group group;
        const long long start = now_ms();
        group.go_hooked([&] {
            const timespec until = in_seconds(1);
            EXPECT_EQ(0, clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, nullptr));
        });
        ahead_s = 1;
        ASSERT_TRUE(group.run());
        EXPECT_GE(now_ms() - start, 1990);
        EXPECT_LT(now_ms() - start, 4000);
    });
    ahead_s = 0;
}

MENDED(ClockNanosleep, for_a_length_of_time_is_not_moved_by_the_clock)
{
    Chosen all("all");
    ahead_s = 0;
    on_thread([] {
        Group group;
        const long long start = now_ms();
        group.go_hooked([&] {
            const timespec time = {0, 200000000};
            EXPECT_EQ(0, clock_nanosleep(CLOCK_REALTIME, 0, &time, nullptr));
        });
        ahead_s = 1000;
        ASSERT_TRUE(group.run());
        EXPECT_GE(now_ms() - start, 199);
        EXPECT_LT(now_ms() - start, 1200);
    });
    ahead_s = 0;
}
