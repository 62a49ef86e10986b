// co_stats: what is counted, of a thread and of all. Every number is exact where nothing else runs.
#include "support.h"

#ifndef COLIB_PEER
#include "co_inspect.h"
#include <memory>
#include <netdb.h>

namespace {

co_stats_t stats(int whose)
{
    co_stats_t now;
    memset(&now, 0xa5, sizeof now);
    now.size = sizeof now;
    EXPECT_EQ(co_stats(&now, whose), 0);
    EXPECT_EQ(now.size, sizeof now);
    return now;
}

co_stats_t mine()
{
    return stats(CO_THIS_THREAD);
}

co_stats_t all()
{
    return stats(CO_ALL_THREADS);
}

// In a thread of its own all counts begin at zero.
TEST(Counters, AThreadThatNeverUsedCoroutinesHasNoneOfAnything)
{
    support::on_thread([] {
        const co_stats_t now = mine();
        co_stats_t zero;
        memset(&zero, 0, sizeof zero);
        zero.size = sizeof zero;
        EXPECT_EQ(memcmp(&now, &zero, sizeof now), 0);
        EXPECT_EQ(co_self(), nullptr);
    });
}

TEST(Counters, CoroutinesAndTheirStacksAreCountedFromCreateToRelease)
{
    support::on_thread([] {
        const stCoRoutineAttr_t small = support::attr(16 * 1024);
        {
            std::vector<std::unique_ptr<support::Co>> many;
            for (int i = 0; i < 100; ++i) {
                many.push_back(std::make_unique<support::Co>([] {}));
                many.push_back(std::make_unique<support::Co>([] {}, &small));
            }
            const co_stats_t now = mine();
            EXPECT_EQ(now.threads, 1u);
            EXPECT_EQ(now.coroutines_created, 200u);
            EXPECT_EQ(now.coroutines_live, 200u);
            EXPECT_EQ(now.stacks_in_use, 200u);
            EXPECT_EQ(now.stack_bytes_in_use, 100u * (128 + 16) * 1024);
            EXPECT_EQ(now.switches, 0u);
            for (auto &co : many) {
                co->resume();
            }
            EXPECT_EQ(mine().switches, 400u);
            EXPECT_EQ(mine().coroutines_live, 200u); // ended, and not released
        }
        const co_stats_t now = mine();
        EXPECT_EQ(now.coroutines_created, 200u);
        EXPECT_EQ(now.coroutines_live, 0u);
        EXPECT_EQ(now.stacks_in_use, 0u);
        EXPECT_EQ(now.stack_bytes_in_use, 0u);
        EXPECT_GT(now.stacks_pooled, 0u);
        EXPECT_GE(now.stack_bytes_pooled, now.stacks_pooled * 16 * 1024);
        // One that is kept whole for the next co_create counts as none, and then as a new one.
        for (int i = 0; i < 10; ++i) {
            support::Co co([] {});
            EXPECT_EQ(mine().coroutines_live, 1u);
            EXPECT_EQ(mine().stacks_in_use, 1u);
            EXPECT_EQ(mine().stack_bytes_in_use, 128u * 1024);
        }
        EXPECT_EQ(mine().coroutines_created, 210u);
        EXPECT_EQ(mine().coroutines_live, 0u);
    });
}

TEST(Counters, OnCopyStacksNoStackIsTakenAndTheBytesThatMoveAreCounted)
{
    stShareStack_t *stacks = co_alloc_sharestack(1, 64 * 1024);
    support::on_thread([&] {
        const stCoRoutineAttr_t copy = support::attr(0, stacks);
        support::Co a([] { co_yield_ct(); }, &copy), b([] { co_yield_ct(); }, &copy);
        a.resume();
        EXPECT_EQ(mine().copied_bytes, 0u);
        EXPECT_EQ(mine().stacks_in_use, 0u);
        EXPECT_EQ(mine().coroutines_live, 2u);
        b.resume(); // a's bytes go
        const uint64_t gone = mine().copied_bytes;
        EXPECT_EQ(gone, a.get()->save_size);
        EXPECT_GT(gone, 0u);
        a.resume(); // b's go, a's come back, and a ends
        EXPECT_TRUE(a.ended());
        EXPECT_EQ(mine().copied_bytes, 2 * gone + b.get()->save_size);
        b.resume();
        EXPECT_EQ(mine().copied_bytes, 2 * gone + 2 * gone);
    });
}

TEST(Counters, WaitsWakesTimeoutsAndTimersAreCounted)
{
    support::on_thread([] {
        support::Pipe pipe;
        stCoCond_t *condition = co_cond_alloc();
        int done = 0;
        const auto body = [&done](const std::function<void()> &wait) {
            return [&done, wait] {
                wait();
                ++done;
            };
        };
        support::Co time(body([] { support::poll_one(-1, 20); })), timed_out(body([&] { support::poll_one(pipe.rd, 20); })),
            signalled(body([&] { co_cond_timedwait(condition, 60000); })), by_hand(body([] { support::poll_one(-1, 60000); }));
        for (support::Co *co : {&time, &timed_out, &signalled, &by_hand}) {
            co->resume();
        }
        co_stats_t now = mine();
        EXPECT_EQ(now.waits, 4u);
        EXPECT_EQ(now.wakes, 0u);
        EXPECT_EQ(now.timers, 4u);
        EXPECT_EQ(now.epoll_waits, 0u);
        EXPECT_GE(now.epoll_ctls, 2u); // the loop's own eventfd, the pipe
        by_hand.resume();
        co_cond_signal(condition);
        EXPECT_EQ(mine().timers, 2u);
        ASSERT_TRUE(support::loop_until([&] { return done == 4; }));
        now = mine();
        EXPECT_EQ(now.waits, 4u);
        EXPECT_EQ(now.wakes, 3u);
        EXPECT_EQ(now.timeouts, 2u);
        EXPECT_EQ(now.timers, 0u);
        EXPECT_GT(now.epoll_waits, 0u);
        EXPECT_EQ(now.switches, 16u);
        co_cond_free(condition);
    });
}

TEST(Counters, WhatAFreedLoopHasDoneStaysCounted)
{
    support::on_thread([] {
        stCoEpoll_t *loop = AllocEpoll();
        bool done = false;
        support::Co co([&] {
            struct pollfd none = {-1, 0, 0};
            co_poll(loop, &none, 1, 1);
            done = true;
        });
        co.resume();
        co_eventloop(
            loop, [](void *p) -> int { return *static_cast<bool *>(p) ? -1 : 0; }, &done);
        const co_stats_t before = mine();
        EXPECT_EQ(before.waits, 1u);
        FreeEpoll(loop);
        const co_stats_t after = mine();
        EXPECT_EQ(after.waits, before.waits);
        EXPECT_EQ(after.timeouts, before.timeouts);
        EXPECT_EQ(after.epoll_waits, before.epoll_waits);
        EXPECT_GE(after.epoll_ctls, before.epoll_ctls);
    });
}

TEST(Counters, SwitchesCountTwoForEachResumeAndOneForASwap)
{
    support::on_thread([] {
        support::Co co([] {
            for (;;) {
                co_yield_ct();
            }
        });
        for (int i = 0; i < 1000; ++i) {
            co.resume();
        }
        EXPECT_EQ(mine().switches, 2000u);
        stCoRoutine_t *main = co_self();
        uint64_t inside = 0;
        support::Co swaps([&] {
            inside = mine().switches;
            co_swap(co_self(), main);
        });
        swaps.resume();
        EXPECT_EQ(inside, 2002u);
        EXPECT_EQ(mine().switches, 2003u);
        swaps.forget(); // whom nobody can tell running from suspended any more
    });
}

TEST(Counters, ACoroutineThatChangesHandsIsCountedOnceAndItsStackGoesWithIt)
{
    const co_stats_t before = all();
    support::on_thread([&] {
        support::Co co([] {});
        support::on_thread([&] {
            co.resume();
            const co_stats_t now = mine();
            EXPECT_EQ(now.coroutines_created, 0u);
            EXPECT_EQ(now.coroutines_live, 1u);
            EXPECT_EQ(now.stacks_in_use, 1u);
            EXPECT_EQ(now.stack_bytes_in_use, 128u * 1024);
            EXPECT_EQ(all().coroutines_live, before.coroutines_live + 1);
            co.release();
            EXPECT_EQ(mine().coroutines_live, 0u);
            EXPECT_EQ(mine().stacks_in_use, 0u);
        });
        const co_stats_t now = mine();
        EXPECT_EQ(now.coroutines_created, 1u);
        EXPECT_EQ(now.coroutines_live, 0u);
        EXPECT_EQ(now.stacks_in_use, 0u);
        EXPECT_EQ(now.stack_bytes_in_use, 0u);
    });
    const co_stats_t after = all();
    EXPECT_EQ(after.coroutines_created, before.coroutines_created + 1);
    EXPECT_EQ(after.coroutines_live, before.coroutines_live);
    EXPECT_EQ(after.stacks_in_use, before.stacks_in_use);
    EXPECT_EQ(after.stack_bytes_in_use, before.stack_bytes_in_use);
}

TEST(Counters, ACoroutineThatAnotherThreadMadeCountsAsItsOwners)
{
    const co_stats_t before = all();
    support::on_thread([&] {
        co_init_curr_thread_env();
        stCoRoutineEnv_t *here = co_get_curr_thread_env();
        stCoRoutine_t *made[2] = {};
        support::on_thread([&] {
            for (stCoRoutine_t *&co : made) {
                co = co_create_env(here, nullptr, [](void *) -> void * { return nullptr; }, nullptr);
            }
            EXPECT_EQ(mine().coroutines_created, 0u);
        });
        EXPECT_EQ(mine().coroutines_created, 2u);
        EXPECT_EQ(mine().coroutines_live, 2u);
        EXPECT_EQ(mine().stacks_in_use, 2u);
        EXPECT_EQ(mine().stack_bytes_in_use, 2u * 128 * 1024);
        co_release(made[0]); // kept whole for the next, perhaps
        EXPECT_EQ(mine().coroutines_live, 1u);
        EXPECT_EQ(mine().stacks_in_use, 1u);
        support::on_thread([&] { co_release(made[1]); });
        EXPECT_EQ(mine().coroutines_live, 0u);
        EXPECT_EQ(mine().stacks_in_use, 0u);
        EXPECT_EQ(mine().stack_bytes_in_use, 0u);
    });
    const co_stats_t after = all();
    EXPECT_EQ(after.coroutines_created, before.coroutines_created + 2);
    EXPECT_EQ(after.coroutines_live, before.coroutines_live);
    EXPECT_EQ(after.stacks_in_use, before.stacks_in_use);
    EXPECT_EQ(after.stack_bytes_in_use, before.stack_bytes_in_use);
}

TEST(Counters, AThreadThatEndedLeavesItsCountsAndWhatItDidNotRelease)
{
    const co_stats_t before = all();
    std::vector<stCoRoutine_t *> left;
    support::on_thread([&] {
        for (int i = 0; i < 3; ++i) {
            support::Co waits([] { support::poll_one(-1, 60000); });
            waits.resume();
            left.push_back(waits.forget());
        }
        EXPECT_EQ(all().threads, before.threads + 1);
        EXPECT_EQ(all().timers, before.timers + 3);
    });
    co_stats_t now = all();
    EXPECT_EQ(now.threads, before.threads);
    EXPECT_EQ(now.coroutines_created, before.coroutines_created + 3);
    EXPECT_EQ(now.coroutines_live, before.coroutines_live + 3);
    EXPECT_EQ(now.stacks_in_use, before.stacks_in_use + 3);
    EXPECT_EQ(now.switches, before.switches + 6);
    EXPECT_EQ(now.waits, before.waits + 3);
    EXPECT_EQ(now.timers, before.timers); // nobody will wake them
    co_release(left[0]);
    co_release(left[1]);
    EXPECT_EQ(all().coroutines_live, before.coroutines_live + 1);
    EXPECT_EQ(all().stacks_in_use, before.stacks_in_use + 1);
    support::on_thread([&] { co_release(left[2]); });
    now = all();
    EXPECT_EQ(now.coroutines_live, before.coroutines_live);
    EXPECT_EQ(now.stacks_in_use, before.stacks_in_use);
    EXPECT_EQ(now.stack_bytes_in_use, before.stack_bytes_in_use);
    EXPECT_EQ(now.waits, before.waits + 3);
}

TEST(Counters, TheSumIsReadWhileOtherThreadsRun)
{
    const co_stats_t before = all();
    constexpr int THREADS = 4, ROUNDS = 5000;
    std::vector<std::thread> threads;
    for (int i = 0; i < THREADS; ++i) {
        threads.emplace_back([] {
            for (int round = 0; round < ROUNDS; ++round) {
                support::Co co([] { co_yield_ct(); });
                co.resume();
                co.resume();
            }
        });
    }
    uint64_t last = before.switches;
    for (int i = 0; i < 1000; ++i) {
        const co_stats_t now = all();
        EXPECT_GE(now.switches, last);
        EXPECT_LE(now.threads, before.threads + THREADS);
        EXPECT_LE(now.coroutines_live, before.coroutines_live + THREADS);
        EXPECT_LE(now.stacks_in_use, before.stacks_in_use + THREADS);
        last = now.switches;
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    const co_stats_t after = all();
    EXPECT_EQ(after.coroutines_created, before.coroutines_created + THREADS * ROUNDS);
    EXPECT_EQ(after.switches, before.switches + 4u * THREADS * ROUNDS);
    EXPECT_EQ(after.coroutines_live, before.coroutines_live);
    EXPECT_EQ(after.stacks_in_use, before.stacks_in_use);
}

TEST(Counters, AChildOfForkGoesOnWithTheCountsButWithoutTheOtherThreads)
{
    struct Pipes {
        support::Pipe begun, over;
    } pipes;
    pthread_t other; // (No std::thread: what that allocates would be lost in the child.)
    ASSERT_EQ(pthread_create(
                  &other, nullptr,
                  [](void *p) -> void * {
                      Pipes *pipes = static_cast<Pipes *>(p);
                      support::Co waits([] { support::poll_one(-1, 60000); });
                      waits.resume();
                      pipes->begun.put();
                      char byte;
                      if (read(pipes->over.rd, &byte, 1) != 1) {
                          std::abort();
                      }
                      return nullptr;
                  },
                  &pipes),
              0);
    char byte;
    ASSERT_EQ(read(pipes.begun.rd, &byte, 1), 1);
    support::Co here([] {});
    const co_stats_t before = all();
    const int status = support::in_child([&] {
        const co_stats_t now = all();
        EXPECT_EQ(now.threads, 1u);
        EXPECT_EQ(now.coroutines_created, before.coroutines_created);
        EXPECT_EQ(now.coroutines_live, before.coroutines_live);
        EXPECT_EQ(now.waits, before.waits);
        EXPECT_EQ(now.switches, before.switches);
        EXPECT_EQ(now.timers, before.timers - 1);
        return ::testing::Test::HasFailure() ? 1 : 0;
    });
    EXPECT_EQ(status, 0);
    pipes.over.put();
    pthread_join(other, nullptr);
}

TEST(Counters, NamesThatAreLookedUpAreCountedWhileTheyAre)
{
    support::on_thread([] {
        bool done = false;
        support::Co co([&] {
            co_enable_hook_sys();
            struct addrinfo *found = nullptr;
            struct addrinfo hints;
            memset(&hints, 0, sizeof hints);
            hints.ai_flags = AI_NUMERICSERV;
            if (getaddrinfo("localhost", "80", &hints, &found) == 0) {
                freeaddrinfo(found);
            }
            done = true;
        });
        co.resume();
        EXPECT_EQ(mine().names_in_flight, done ? 0u : 1u);
        ASSERT_TRUE(support::loop_until([&] { return done; }));
        EXPECT_EQ(mine().names_in_flight, 0u);
    });
}

TEST(Counters, BadArgumentsAreRefusedAndALongerStructIsFilledAsFarAsItIsKnown)
{
    errno = 0;
    EXPECT_EQ(co_stats(nullptr, CO_ALL_THREADS), -1);
    EXPECT_EQ(errno, EINVAL);
    co_stats_t now;
    now.size = sizeof now - 1;
    EXPECT_EQ(co_stats(&now, CO_ALL_THREADS), -1);
    now.size = sizeof now;
    EXPECT_EQ(co_stats(&now, 2), -1);
    EXPECT_EQ(co_stats(&now, -1), -1);
    struct {
        co_stats_t known;
        uint64_t more;
    } longer;
    longer.known.size = sizeof longer;
    longer.more = 4711;
    EXPECT_EQ(co_stats(&longer.known, CO_ALL_THREADS), 0);
    EXPECT_EQ(longer.known.size, sizeof longer.known);
    EXPECT_EQ(longer.more, 4711u);
}

} // namespace
#endif
