// sleep, usleep, nanosleep, clock_nanosleep and thrd_sleep: cooperative if asked for, and as the manual
// says for the caller.
#include "added_hooks.h"

#include <threads.h>

extern "C" int __nanosleep(const struct timespec *wish, struct timespec *rest);

using namespace support;

namespace {

const timespec tenth = {0, 100000000};

inline timespec in_ms(clockid_t clock, int ms) { return as_timespec(now_ns(clock) + ms * 1000000LL); }

struct Result {
    int value, error;
};

inline bool operator==(const Result &a, const Result &b) { return a.value == b.value && a.error == b.error; }

inline std::ostream &operator<<(std::ostream &out, const Result &r)
{
    return out << r.value << " errno " << r.error;
}

inline Result of(const std::function<int()> &call)
{
    errno = 1234;
    const int value = call();
    return {value, errno};
}

// The same call, hooked in a coroutine and plain, gives the same result and errno.
inline void expect_as_plain(const char *what, const std::function<int()> &call)
{
    in_hooked_coroutine([&] {
        const Result hooked = of(call);
        co_disable_hook_sys();
        EXPECT_EQ(of(call), hooked) << what;
    });
}

inline bool counts_cpu_time(clockid_t clock) { return clock < 0 || clock == CLOCK_PROCESS_CPUTIME_ID; }

inline void expect_nanosleep_as_plain(const char *what, timespec wish)
{
    expect_as_plain(what, [&] { return nanosleep(&wish, nullptr); });
}

} // namespace

MENDED(Sleep, lasts_a_second_in_forty_coroutines_at_once)
{
    Chosen all("all");
    expect_forty_wait_at_once([] { EXPECT_EQ(0u, sleep(1)); }, 1000);
}

MENDED(Usleep, lasts_as_long_in_forty_coroutines_at_once)
{
    Chosen all("all");
    expect_forty_wait_at_once([] { EXPECT_EQ(0, usleep(100000)); });
}

MENDED(Nanosleep, lasts_as_long_in_forty_coroutines_at_once)
{
    Chosen all("all");
    expect_forty_wait_at_once([] { EXPECT_EQ(0, nanosleep(&tenth, nullptr)); });
    expect_forty_wait_at_once([] { EXPECT_EQ(0, __nanosleep(&tenth, nullptr)); });
}

MENDED(ThrdSleep, lasts_as_long_in_forty_coroutines_at_once)
{
    Chosen all("all");
    expect_forty_wait_at_once([] { EXPECT_EQ(0, thrd_sleep(&tenth, nullptr)); });
}

MENDED(ClockNanosleep, lasts_as_long_by_every_clock_in_forty_coroutines_at_once)
{
    Chosen all("all");
    for (clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI}) {
        expect_forty_wait_at_once([&] { EXPECT_EQ(0, clock_nanosleep(clock, 0, &tenth, nullptr)); });
    }
}

MENDED(ClockNanosleep, until_a_time_of_every_clock_ends_when_it_has_come)
{
    Chosen all("all");
    for (clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI}) {
        expect_forty_wait_at_once([&] {
            const timespec until = in_ms(clock, 101);
            EXPECT_EQ(0, clock_nanosleep(clock, TIMER_ABSTIME, &until, nullptr));
            EXPECT_GE(now_ns(clock), until.tv_sec * 1000000000LL + until.tv_nsec);
        });
    }
}

MENDED(ClockNanosleep, until_a_time_further_off_than_the_clock_is_looked_at_ends_when_it_has_come)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        const timespec until = in_ms(CLOCK_REALTIME, 1500);
        EXPECT_EQ(0, clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, nullptr));
        const long long late = now_ns(CLOCK_REALTIME) - (until.tv_sec * 1000000000LL + until.tv_nsec);
        EXPECT_GE(late, 0);
        EXPECT_LT(late, 400000000);
    });
}

MENDED(ClockNanosleep, until_a_time_that_is_past_returns_at_once)
{
    Chosen all("all");
    on_thread([] {
        Co co([] {
            co_enable_hook_sys();
            const timespec past = in_ms(CLOCK_MONOTONIC, -1);
            EXPECT_EQ(0, clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &past, nullptr));
        });
        co.resume();
        EXPECT_TRUE(co.ended());
    });
}

MENDED(Sleeps, shorter_than_a_tick_are_never_early_and_let_others_run)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        bool stop = false;
        int others = 0;
        Co other([&] {
            for (; !stop; ++others) {
                nap(1);
            }
        });
        other.resume();
        for (int i = 1; i <= 50; ++i) {
            const long long start = now_ns();
            EXPECT_EQ(0, usleep(i * 20));
            EXPECT_GE(now_ns() - start, i * 20000LL);
            const timespec one_ns = {0, 1};
            const long long next = now_ns();
            EXPECT_EQ(0, nanosleep(&one_ns, nullptr));
            EXPECT_GE(now_ns() - next, 1);
        }
        EXPECT_GE(others, 25);
        stop = true;
        while (!other.ended()) {
            nap(1);
        }
    });
}

MENDED(Sleeps, leave_errno_alone_as_the_plain_calls_do)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        Co other([] {
            for (int i = 0; i < 10; ++i) {
                errno = EDOM;
                nap(1);
            }
        });
        other.resume();
        const timespec ms = {0, 1000000};
        EXPECT_EQ((Result{0, 1234}), of([] { return usleep(1000); }));
        EXPECT_EQ((Result{0, 1234}), of([&] { return nanosleep(&ms, nullptr); }));
        EXPECT_EQ((Result{0, 1234}), of([&] { return clock_nanosleep(CLOCK_MONOTONIC, 0, &ms, nullptr); }));
        EXPECT_EQ((Result{0, 1234}), of([&] { return thrd_sleep(&ms, nullptr); }));
        EXPECT_EQ((Result{0, 1234}), of([] { return static_cast<int>(sleep(1)); }));
        while (!other.ended()) {
            nap(1);
        }
    });
}

MENDED(Sleeps, with_bad_arguments_fail_as_the_plain_calls)
{
    Chosen all("all");
    expect_as_plain("NULL", [] { return nanosleep(nullptr, nullptr); });
    expect_nanosleep_as_plain("negative nanoseconds", {0, -1});
    expect_nanosleep_as_plain("a second of nanoseconds", {0, 1000000000});
    expect_nanosleep_as_plain("negative seconds", {-1, 0});
    expect_nanosleep_as_plain("negative seconds, absurd nanoseconds", {-1, LONG_MAX});
    expect_nanosleep_as_plain("zero", {0, 0});
    expect_as_plain("usleep of zero", [] { return usleep(0); });
    expect_as_plain("usleep of more than a second", [] { return usleep(1000001); });
    expect_as_plain("sleep of zero", [] { return static_cast<int>(sleep(0)); });
    const timespec bad = {0, 1000000000};
    expect_as_plain("thrd_sleep", [&] { return thrd_sleep(&bad, nullptr); });
    expect_as_plain("thrd_sleep NULL", [] { return thrd_sleep(nullptr, nullptr); });
}

MENDED(ClockNanosleep, with_any_clock_flags_and_time_answers_as_the_plain_call)
{
    Chosen all("all");
    const timespec times[] = {{0, 0}, {0, 1}, {0, -1}, {0, 1000000000}, {-1, 0}, {1, 0}, {LONG_MIN, 5}};
    for (clockid_t clock = -20; clock < 24; ++clock) {
        for (int flags : {0, TIMER_ABSTIME, 2, TIMER_ABSTIME | 64, -1}) {
            for (const timespec &time : times) {
                const bool past = (flags & TIMER_ABSTIME) != 0 && time.tv_sec == 0;
                const bool valid = time.tv_sec >= 0 && time.tv_nsec >= 0 && time.tv_nsec < 1000000000;
                if (valid && (counts_cpu_time(clock) || (!past && time.tv_sec == 1))) {
                    continue; // would wait, for ever perhaps
                }
                timespec rest = {7, 7};
                expect_as_plain("a clock", [&] { return clock_nanosleep(clock, flags, &time, &rest); });
                EXPECT_EQ(7, rest.tv_sec);
            }
            expect_as_plain("NULL", [&] { return clock_nanosleep(clock, flags, nullptr, nullptr); });
        }
    }
}

MENDED(Sleeps, that_a_signal_handler_interrupts_say_what_is_left)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    in_hooked_coroutine([] {
        Nuisance signals(SIGUSR1);
        const timespec wish = {100, 500000000};
        timespec rest = {-1, -1};
        EXPECT_EQ((Result{-1, EINTR}), of([&] { return nanosleep(&wish, &rest); }));
        EXPECT_GE(rest.tv_sec, 99);
        EXPECT_LE(rest.tv_sec, 100);
        EXPECT_GE(rest.tv_nsec, 0);
        EXPECT_LT(rest.tv_nsec, 1000000000);
        EXPECT_EQ((Result{-1, EINTR}), of([&] { return nanosleep(&wish, nullptr); }));

        rest = {-1, -1};
        EXPECT_EQ((Result{EINTR, 1234}),
                  of([&] { return clock_nanosleep(CLOCK_MONOTONIC, 0, &wish, &rest); }));
        EXPECT_GE(rest.tv_sec, 99);

        rest = {-1, -1};
        EXPECT_EQ(-1, thrd_sleep(&wish, &rest));
        EXPECT_GE(rest.tv_sec, 99);

        EXPECT_EQ((Result{-1, EINTR}), of([] { return usleep(100000000); }));
        EXPECT_EQ((Result{99, EINTR}), of([] { return static_cast<int>(sleep(100)); }));

        rest = {-1, -1};
        const timespec until = in_ms(CLOCK_REALTIME, 100000);
        EXPECT_EQ(EINTR, clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, &rest));
        EXPECT_EQ(-1, rest.tv_sec) << "nothing is left of a point in time";
    });
    EXPECT_GT(handled, 0);
}

MENDED(Sleeps, go_on_with_what_is_left_until_the_time_is_over)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    in_hooked_coroutine([] {
        Nuisance signals(SIGUSR1, 3);
        const long long start = now_ns();
        timespec left = tenth;
        int interrupted = 0;
        while (nanosleep(&left, &left) != 0) {
            ASSERT_EQ(EINTR, errno);
            ++interrupted;
        }
        EXPECT_GT(interrupted, 0);
        EXPECT_GE(now_ns() - start, 100000000);
        EXPECT_LT(now_ns() - start, 1000000000);
    });
}

MENDED(Sleeps, of_every_coroutine_end_by_one_signal_but_a_poll_does_not)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    on_thread([] {
        int interrupted = 0, polled = -2;
        Group group;
        for (int i = 0; i < 10; ++i) {
            group.go_hooked([&] { interrupted += usleep(100000000) == -1 && errno == EINTR; });
        }
        Co poller([&] {
            co_enable_hook_sys();
            polled = poll(nullptr, 0, 100000);
        });
        poller.resume();
        {
            Nuisance signals(SIGUSR1);
            ASSERT_TRUE(group.run());
        }
        EXPECT_EQ(10, interrupted);
        EXPECT_EQ(-2, polled);
    });
}

MENDED(Sleeps, of_a_coroutine_resumed_by_hand_are_interrupted)
{
    Chosen all("all");
    on_thread([] {
        timespec rest = {-1, -1};
        Result result = {0, 0};
        Co co([&] {
            co_enable_hook_sys();
            const timespec wish = {100, 0};
            result = of([&] { return nanosleep(&wish, &rest); });
        });
        co.resume();
        ASSERT_FALSE(co.ended());
        co.resume();
        EXPECT_TRUE(co.ended());
        EXPECT_EQ((Result{-1, EINTR}), result);
        EXPECT_EQ(99, rest.tv_sec);
    });
}

MENDED(Sleeps, on_copy_stacks_write_what_is_left_where_the_caller_wants_it)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    on_thread([] {
        stShareStack_t *stacks = co_alloc_sharestack(1, 64 * 1024);
        const stCoRoutineAttr_t at = attr(0, stacks);
        Group group;
        int right = 0;
        for (int i = 1; i <= 20; ++i) {
            group.go_hooked(
                [&right, i] {
                    const timespec wish = {100 * i, 0};
                    timespec rest = {-1, -1};
                    const int result = nanosleep(&wish, &rest);
                    right += result == -1 && errno == EINTR && rest.tv_sec < 100 * i && rest.tv_sec > 100 * i - 20;
                },
                &at);
        }
        Nuisance signals(SIGUSR1);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(20, right);
    });
}

MENDED(Sleeps, of_a_coroutine_that_is_released_or_reset_leave_nothing_behind)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    on_thread([] {
        int runs = 0;
        const auto body = [&] {
            co_enable_hook_sys();
            ++runs;
            const timespec long_time = {runs % 2 == 0 ? LONG_MAX : 100, 999999999};
            nanosleep(&long_time, nullptr);
        };
        for (int i = 0; i < 10; ++i) {
            Co released(body);
            released.resume();
            Co reset(body);
            reset.resume();
            reset.reset();
            EXPECT_FALSE(released.ended());
        }
        EXPECT_EQ(20, runs);
        Nuisance signals(SIGUSR1);
        Group group;
        int interrupted = 0;
        group.go_hooked([&] { interrupted = usleep(100000000); });
        ASSERT_TRUE(group.run());
        EXPECT_EQ(-1, interrupted);
    });
}

MENDED(Sleeps, of_a_thread_that_has_ended_are_released_by_another)
{
    Chosen all("all");
    stCoRoutine_t *left = nullptr;
    on_thread([&] {
        Co co([] {
            co_enable_hook_sys();
            usleep(100000000);
        });
        co.resume();
        loop_rounds(2);
        left = co.forget();
    });
    co_release(left);
}

MENDED(Sleeps, block_as_before_unless_they_are_asked_for)
{
    for (const char *words : {"default", "libco", "all,-sleep,-usleep,-nanosleep,-clock_nanosleep,-thrd_sleep"}) {
        Chosen chosen(words);
        const timespec ms = {0, 2000000};
        expect_blocks([] { usleep(2000); });
        expect_blocks([&] { nanosleep(&ms, nullptr); });
        expect_blocks([&] { clock_nanosleep(CLOCK_MONOTONIC, 0, &ms, nullptr); });
        expect_blocks([&] { thrd_sleep(&ms, nullptr); });
    }
    expect_blocks([] { sleep(1); });
}

MENDED(Sleeps, on_the_main_coroutine_without_environment_and_with_hooks_off_block)
{
    Chosen all("all");
    on_thread([] {
        const auto sleeps = [] {
            const long long start = now_ns();
            EXPECT_EQ(0, usleep(2000));
            EXPECT_GE(now_ns() - start, 2000000);
        };
        sleeps();
        Co co([&] { sleeps(); });
        co.resume();
        EXPECT_TRUE(co.ended());
        co_enable_hook_sys();
        sleeps();
    });
}
