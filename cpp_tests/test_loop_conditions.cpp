// Condition variables between coroutines.
#include "loop_support.h"

using namespace support;

namespace {

class Condition {
public:
    ~Condition() { free(); }
    operator stCoCond_t *() const { return cond_; }
    void free()
    {
        if (cond_ != nullptr) {
            co_cond_free(std::exchange(cond_, nullptr));
        }
    }

private:
    stCoCond_t *cond_ = co_cond_alloc();
};

} // namespace

TEST(Conditions, wake_the_first_waiter_first)
{
    on_thread([] {
        Condition cond;
        Group group;
        std::string order;
        for (char name = 'a'; name <= 'e'; ++name) {
            group.go([&, name] {
                co_cond_timedwait(cond, -1);
                order += name;
            });
        }
        for (size_t i = 1; i <= 5; ++i) {
            co_cond_signal(cond);
            ASSERT_TRUE(loop_until([&] { return order.size() == i; }));
            loop_rounds(2);
            EXPECT_EQ(i, order.size()) << "one signal woke more than one";
        }
        EXPECT_EQ("abcde", order);
    });
}

TEST(Conditions, wake_in_order_when_signalled_several_times_at_once)
{
    on_thread([] {
        Condition cond;
        Group group;
        std::string order;
        for (char name = 'a'; name <= 'e'; ++name) {
            group.go([&, name] {
                co_cond_timedwait(cond, name % 2 ? 10000 : -1);
                order += name;
            });
        }
        for (int i = 0; i < 5; ++i) {
            co_cond_signal(cond);
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ("abcde", order);
    });
}

TEST(Conditions, broadcast_wakes_all_in_order)
{
    on_thread([] {
        Condition cond;
        Group group;
        std::string order;
        for (char name = 'a'; name <= 'z'; ++name) {
            group.go([&, name] {
                co_cond_timedwait(cond, -1);
                order += name;
            });
        }
        EXPECT_EQ(0, co_cond_broadcast(cond));
        EXPECT_EQ("", order);
        ASSERT_TRUE(group.run());
        EXPECT_EQ("abcdefghijklmnopqrstuvwxyz", order);
    });
}

TEST(Conditions, wake_from_the_loop_and_not_inside_signal)
{
    on_thread([] {
        Condition cond;
        Group group;
        bool woken = false, woken_inside = true;
        group.go([&] {
            co_cond_timedwait(cond, -1);
            woken = true;
        });
        group.go([&] {
            co_cond_signal(cond);
            woken_inside = woken;
        });
        EXPECT_FALSE(woken_inside);
        EXPECT_FALSE(woken);
        ASSERT_TRUE(group.run());
        EXPECT_TRUE(woken);
    });
}

TEST(Conditions, do_not_remember_a_signal_that_nobody_waited_for)
{
    on_thread([] {
        Condition cond;
        Co environment([] {});
        EXPECT_EQ(0, co_cond_signal(cond));
        EXPECT_EQ(0, co_cond_broadcast(cond));
        Group group;
        bool woken = false;
        group.go([&] {
            co_cond_timedwait(cond, -1);
            woken = true;
        });
        loop_rounds(5);
        EXPECT_FALSE(woken);
        co_cond_signal(cond);
        ASSERT_TRUE(group.run());
    });
}

TEST(Conditions, without_a_positive_time_out_wait_for_ever)
{
    on_thread([] {
        Condition cond;
        Group group;
        int woken = 0;
        for (int ms : {0, -1, -1000, INT_MIN}) {
            group.go([&, ms] {
                co_cond_timedwait(cond, ms);
                ++woken;
            });
        }
        Group clock;
        clock.go([] { nap(200); });
        ASSERT_TRUE(clock.run());
        EXPECT_EQ(0, woken);
        co_cond_broadcast(cond);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(4, woken);
    });
}

TEST(Conditions, return_zero_when_signalled_and_when_timed_out)
{
    on_thread([] {
        Condition cond;
        Group group;
        int signalled = -2, timed_out = -2;
        group.go([&] { signalled = co_cond_timedwait(cond, 10000); });
        group.go([&] { timed_out = co_cond_timedwait(cond, 20); });
        co_cond_signal(cond);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(0, signalled);
        EXPECT_EQ(0, timed_out);
    });
}

TEST(Conditions, skip_a_waiter_whose_time_is_over)
{
    on_thread([] {
        Condition cond;
        Group group;
        std::string order;
        group.go([&] {
            co_cond_timedwait(cond, 10);
            order += 'a';
        });
        group.go([&] {
            co_cond_timedwait(cond, 15000);
            order += 'b';
        });
        ASSERT_TRUE(loop_until([&] { return order == "a"; }));
        co_cond_signal(cond);
        ASSERT_TRUE(group.run());
        EXPECT_EQ("ab", order);
    });
}

TEST(Conditions, wake_a_waiter_once_when_its_time_is_over_before_the_loop_serves_the_signal)
{
    on_thread([] {
        Condition cond;
        int woken = 0;
        Co co([&] {
            co_cond_timedwait(cond, 10);
            ++woken;
            co_yield_ct();
            ++woken;
        });
        co.resume();
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        co_cond_signal(cond);
        loop_rounds(30);
        EXPECT_EQ(1, woken);
    });
}

TEST(Conditions, let_a_woken_coroutine_wait_again)
{
    on_thread([] {
        Condition cond;
        Group group;
        int wakes = 0;
        group.go([&] {
            for (int i = 0; i < 100; ++i) {
                co_cond_timedwait(cond, i % 2 ? -1 : 15000);
                ++wakes;
            }
        });
        group.go([&] {
            for (int i = 0; i < 100; ++i) {
                co_cond_signal(cond);
                nap(1);
            }
        });
        ASSERT_TRUE(group.run());
        EXPECT_EQ(100, wakes);
    });
}

TEST(Conditions, end_the_wait_of_a_coroutine_resumed_by_hand)
{
    on_thread([] {
        Condition cond;
        std::string order;
        Co first([&] {
            EXPECT_EQ(0, co_cond_timedwait(cond, -1));
            order += 'a';
        });
        Co second([&] {
            co_cond_timedwait(cond, -1);
            order += 'b';
        });
        first.resume();
        second.resume();
        first.resume();
        EXPECT_EQ("a", order);
        co_cond_signal(cond);
        ASSERT_TRUE(loop_until([&] { return second.ended(); }));
        EXPECT_EQ("ab", order);
    });
}

TEST(Conditions, may_be_freed_by_the_waiter_they_woke)
{
    on_thread([] {
        Group group;
        stCoCond_t *cond = nullptr;
        group.go([&] {
            cond = co_cond_alloc();
            co_cond_timedwait(cond, -1);
            co_cond_free(cond);
        });
        co_cond_signal(cond);
        ASSERT_TRUE(group.run());
    });
}

MENDED(Conditions, tell_that_the_wait_was_signalled)
{
    on_thread([] {
        Condition cond;
        Group group;
        int result = -2;
        group.go([&] { result = co_cond_wait(cond, 10000); });
        co_cond_signal(cond);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(0, result);
    });
}

MENDED(Conditions, tell_that_the_wait_timed_out)
{
    on_thread([] {
        Condition cond;
        Group group;
        int result = -2;
        group.go([&] { result = co_cond_wait(cond, 10); });
        ASSERT_TRUE(group.run());
        EXPECT_EQ(ETIMEDOUT, result);
    });
}

MENDED(Conditions, tell_that_the_waiter_was_resumed_by_hand)
{
    on_thread([] {
        Condition cond;
        int result = -2;
        Co co([&] { result = co_cond_wait(cond, 10000); });
        co.resume();
        co.resume();
        EXPECT_EQ(ECANCELED, result);
    });
}

MENDED(Conditions, tell_that_they_were_freed_under_the_waiter)
{
    on_thread([] {
        Condition cond;
        Group group;
        int result = -2;
        group.go([&] { result = co_cond_wait(cond, 30); });
        cond.free();
        ASSERT_TRUE(group.run());
        EXPECT_EQ(ECANCELED, result);
    });
}

MENDED(Conditions, cannot_be_waited_for_on_the_main_coroutine)
{
    on_thread([] {
        Condition cond;
        Co environment([] {});
        EXPECT_EQ(EPERM, co_cond_wait(cond, 10));
        EXPECT_EQ(EPERM, co_cond_wait(cond, -1));
    });
}

MENDED(Conditions, under_the_old_name_cannot_be_waited_for_on_the_main_coroutine_either)
{
    on_thread([] {
        Condition cond;
        Co environment([] {});
        errno = 0;
        EXPECT_EQ(-1, co_cond_timedwait(cond, 10));
        EXPECT_EQ(EPERM, errno);
    });
}

MENDED(Conditions, cannot_be_waited_for_by_two_threads)
{
    on_thread([] {
        Condition cond;
        Group group;
        group.go([&] { co_cond_timedwait(cond, -1); });
        std::thread([&] {
            Group others;
            others.go([&] { EXPECT_EQ(EPERM, co_cond_wait(cond, 1000)); });
            EXPECT_TRUE(others.all_ended());
        }).join();
        co_cond_signal(cond);
        ASSERT_TRUE(group.run());
    });
}

MENDED(Conditions, are_not_freed_by_another_thread_under_a_waiter)
{
    on_thread([] {
        Condition cond;
        Group group;
        group.go([&] { EXPECT_EQ(0, co_cond_wait(cond, -1)); });
        std::thread([&] {
            errno = 0;
            EXPECT_EQ(-1, co_cond_free(cond));
            EXPECT_EQ(EBUSY, errno);
        }).join();
        co_cond_signal(cond);
        ASSERT_TRUE(group.run());
    });
}

MENDED(Conditions, that_are_null_do_nothing)
{
    on_thread([] {
        Group group;
        group.go([] {
            EXPECT_EQ(EINVAL, co_cond_wait(nullptr, 10));
            co_cond_signal(nullptr);
            co_cond_broadcast(nullptr);
            co_cond_free(nullptr);
        });
        ASSERT_TRUE(group.all_ended());
    });
}

MENDED(Conditions, cannot_be_waited_for_without_an_environment)
{
    on_thread([] {
        Condition cond;
        EXPECT_EQ(EPERM, co_cond_wait(cond, 10));
        EXPECT_EQ(nullptr, co_self());
    });
}

MENDED(Conditions, wait_for_ever_without_a_positive_time_out_under_the_new_name_too)
{
    on_thread([] {
        Condition cond;
        Group group;
        int woken = 0;
        for (int ms : {0, -1, INT_MIN}) {
            group.go([&, ms] {
                EXPECT_EQ(0, co_cond_wait(cond, ms));
                ++woken;
            });
        }
        Group clock;
        clock.go([] { nap(100); });
        ASSERT_TRUE(clock.run());
        EXPECT_EQ(0, woken);
        co_cond_broadcast(cond);
        ASSERT_TRUE(group.run());
    });
}

MENDED(Conditions, freed_with_a_waiter_let_its_time_out_fire)
{
    on_thread([] {
        Condition cond;
        Group group;
        int woken = 0;
        for (int i = 0; i < 10; ++i) {
            group.go([&, i] {
                EXPECT_EQ(0, co_cond_timedwait(cond, 20 + i));
                ++woken;
            });
        }
        cond.free();
        ASSERT_TRUE(group.run());
        EXPECT_EQ(10, woken);
    });
}

MENDED(Conditions, freed_with_a_waiter_let_it_be_released)
{
    on_thread([] {
        Condition cond;
        {
            Co co([&] { co_cond_timedwait(cond, 20); });
            co.resume();
            Co forever([&] { co_cond_timedwait(cond, -1); });
            forever.resume();
            cond.free();
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        loop_rounds(5);
    });
}

MENDED(Conditions, freed_with_a_waiter_let_it_be_reset_and_run_again)
{
    on_thread([] {
        Condition cond, other;
        int runs = 0, woken = 0;
        Co co([&] {
            ++runs;
            co_cond_timedwait(runs == 1 ? cond : other, -1);
            ++woken;
        });
        co.resume();
        cond.free();
        co.reset();
        co.resume();
        EXPECT_EQ(2, runs);
        co_cond_signal(other);
        ASSERT_TRUE(loop_until([&] { return co.ended(); }));
        EXPECT_EQ(1, woken);
    });
}

MENDED(Conditions, freed_after_a_signal_still_wake_the_one_signalled)
{
    on_thread([] {
        Condition cond;
        Group group;
        int result = -2;
        group.go([&] { result = co_cond_wait(cond, -1); });
        co_cond_signal(cond);
        cond.free();
        ASSERT_TRUE(group.run());
        EXPECT_EQ(0, result);
    });
}

MENDED(Conditions, pass_over_a_waiter_that_was_released)
{
    on_thread([] {
        Condition cond;
        Group group;
        bool woken = false;
        Co gone([&] { co_cond_timedwait(cond, 20); });
        gone.resume();
        group.go([&] {
            co_cond_timedwait(cond, 15000);
            woken = true;
        });
        gone.release();
        co_cond_signal(cond);
        loop_rounds(3);
        EXPECT_TRUE(woken);
        ASSERT_TRUE(group.run());
    });
}

MENDED(Conditions, pass_over_a_waiter_that_was_reset)
{
    on_thread([] {
        Condition cond;
        Group group;
        int runs = 0;
        bool woken = false;
        Co again([&] {
            if (++runs == 1) {
                co_cond_timedwait(cond, 20);
            }
        });
        again.resume();
        group.go([&] {
            co_cond_timedwait(cond, 15000);
            woken = true;
        });
        again.reset();
        co_cond_signal(cond);
        loop_rounds(3);
        EXPECT_TRUE(woken);
        again.resume();
        EXPECT_EQ(2, runs);
        EXPECT_TRUE(again.ended());
    });
}

MENDED(Conditions, survive_the_release_of_a_waiter_already_signalled)
{
    on_thread([] {
        Condition cond;
        bool ran = false;
        Co gone([&] {
            co_cond_timedwait(cond, -1);
            ran = true;
        });
        gone.resume();
        co_cond_signal(cond);
        gone.release();
        loop_rounds(3);
        EXPECT_FALSE(ran);
    });
}

// The signal may be refused; the one from the loop's own thread may not.
MENDED(Conditions, survive_a_signal_from_another_thread)
{
    on_thread([] {
        Condition cond;
        Group group;
        int woken = 0;
        for (int i = 0; i < 4; ++i) {
            group.go([&] {
                co_cond_timedwait(cond, -1);
                ++woken;
            });
        }
        std::thread([&] {
            Co environment([] {});
            co_cond_signal(cond);
            co_cond_broadcast(cond);
            loop_rounds(3);
            EXPECT_EQ(0, woken) << "a coroutine ran on a foreign thread";
        }).join();
        loop_rounds(3);
        co_cond_broadcast(cond);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(4, woken);
    });
}

MENDED(Conditions, survive_a_signal_from_a_thread_without_an_environment)
{
    on_thread([] {
        Condition cond;
        Group group;
        group.go([&] { co_cond_timedwait(cond, -1); });
        std::thread([&] {
            co_cond_signal(cond);
            EXPECT_EQ(nullptr, co_self());
        }).join();
        loop_rounds(2);
        co_cond_signal(cond);
        ASSERT_TRUE(group.run());
    });
}

MENDED(Conditions, survive_a_storm_of_signals_from_other_threads)
{
    EXPECT_EQ(0, in_child(
                     [] {
                         on_thread([] {
                             Condition cond;
                             Group group;
                             std::atomic<bool> stop{false};
                             const pthread_t loop_thread = pthread_self();
                             bool strayed = false;
                             for (int i = 0; i < 8; ++i) {
                                 group.go([&] {
                                     while (!stop) {
                                         co_cond_timedwait(cond, 3);
                                         strayed |= !pthread_equal(loop_thread, pthread_self());
                                     }
                                 });
                             }
                             std::vector<std::thread> threads;
                             for (int t = 0; t < 3; ++t) {
                                 threads.emplace_back([&] {
                                     for (int i = 0; i < 20000; ++i) {
                                         co_cond_signal(cond);
                                     }
                                 });
                             }
                             std::thread ender([&] {
                                 for (std::thread &thread : threads) {
                                     thread.join();
                                 }
                                 stop = true;
                             });
                             const bool ended = group.run();
                             ender.join();
                             _exit(ended && !strayed ? 0 : 1);
                         });
                         return 2;
                     },
                     40));
}
