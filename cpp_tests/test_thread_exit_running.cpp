// A thread that ends (pthread_exit) on the stack of a coroutine: that one, and those that resumed it, have ended with it.
// Released while they ran, by their thread or by another, they are freed then, with their stacks; else by whom releases
// them later, even while the thread still ends.
#include "support.h"

#ifndef COLIB_PEER
#include "co_inspect.h"

#include <atomic>

#include <malloc.h>

using namespace support;

namespace {

// What all threads have now.
co_stats_t counted()
{
    co_stats_t stats;
    stats.size = sizeof stats;
    EXPECT_EQ(co_stats(&stats, CO_ALL_THREADS), 0);
    return stats;
}

// Whether a coroutine of this thread may begin on the one stack of `share`.
bool may_begin(stShareStack_t *share)
{
    bool ran = false;
    const stCoRoutineAttr_t at = attr(0, share);
    Co co([&] { ran = true; }, &at);
    co.resume();
    return ran;
}

// No group for private stacks, and a new one. (What this thread keeps for itself of the first is not counted later.)
std::vector<stShareStack_t *> both_kinds()
{
    const std::vector<stShareStack_t *> kinds = {nullptr, co_alloc_sharestack(1, 64 * 1024)};
    EXPECT_TRUE(may_begin(kinds[1]));
    return kinds;
}

// Runs `body` in a coroutine of a coroutine of a new thread, which ends there. `first` and `second` are the two.
struct Ending {
    std::function<void(Ending &)> body;
    stShareStack_t *share = nullptr;
    std::atomic<stCoRoutine_t *> first{nullptr};
    std::atomic<stCoRoutine_t *> second{nullptr};
    std::atomic<bool> goes_on{false};

    pthread_t begins()
    {
        pthread_t thread;
        const auto run = [](void *self) -> void * {
            Ending &ending = *static_cast<Ending *>(self);
            ending.first = ending.make([](void *arg) -> void * {
                Ending &of = *static_cast<Ending *>(arg);
                of.second = of.make([](void *inner) -> void * {
                    static_cast<Ending *>(inner)->body(*static_cast<Ending *>(inner));
                    pthread_exit(nullptr);
                });
                co_resume(of.second);
                return nullptr;
            });
            co_resume(ending.first);
            return nullptr;
        };
        EXPECT_EQ(pthread_create(&thread, nullptr, run, this), 0);
        return thread;
    }

    stCoRoutine_t *make(void *(*routine)(void *))
    {
        const stCoRoutineAttr_t at = attr(1024 * 1024, share);
        stCoRoutine_t *co = nullptr;
        EXPECT_EQ(co_create(&co, &at, routine, this), 0);
        return co;
    }
};

// Rounds on private stacks and on a copy stack, which anybody may use afterwards; nothing may be left of them.
void leaves_nothing(const std::function<void(Ending &)> &in_coroutine,
                                     const std::function<void(Ending &)> &meanwhile = nullptr)
{
    const std::vector<stShareStack_t *> kinds = both_kinds();
    const co_stats_t before = counted();
    for (stShareStack_t *share : kinds) {
        for (int i = 0; i < 20; ++i) {
            Ending ending;
            ending.body = in_coroutine;
            ending.share = share;
            const pthread_t thread = ending.begins();
            if (meanwhile != nullptr) {
                meanwhile(ending);
            }
            pthread_join(thread, nullptr);
        }
        EXPECT_TRUE(share == nullptr || may_begin(share));
    }
    const co_stats_t after = counted();
    EXPECT_EQ(after.coroutines_live, before.coroutines_live);
    EXPECT_EQ(after.stacks_in_use, before.stacks_in_use);
    EXPECT_EQ(after.stack_bytes_in_use, before.stack_bytes_in_use);
    EXPECT_EQ(after.threads, before.threads);
}

void wait_until(const std::atomic<bool> &flag)
{
    while (!flag) {
        std::this_thread::yield();
    }
}

} // namespace

TEST(ThreadExitRunning, ReleasedByThemselvesTheyAreFreed)
{
    leaves_nothing([](Ending &ending) {
        co_release(ending.first);
        co_release(ending.second);
    });
}

TEST(ThreadExitRunning, ReleasedByAnotherThreadWhileTheyRunTheyAreFreed)
{
    leaves_nothing([](Ending &ending) { wait_until(ending.goes_on); },
                   [](Ending &ending) {
                       while (ending.second == nullptr) {
                           std::this_thread::yield();
                       }
                       co_release(ending.second);
                       co_release(ending.first);
                       ending.goes_on = true;
                   });
}

TEST(ThreadExitRunning, ReleasedAfterwardsTheyAreFreed)
{
    std::vector<stCoRoutine_t *> left;
    const std::vector<stShareStack_t *> kinds = both_kinds();
    const co_stats_t before = counted();
    for (stShareStack_t *share : kinds) {
        Ending ending;
        ending.body = [](Ending &) {};
        ending.share = share;
        pthread_join(ending.begins(), nullptr);
        for (stCoRoutine_t *co : {ending.first.load(), ending.second.load()}) {
            EXPECT_EQ(co->cEnd, 1);
            co_info_t info;
            info.size = sizeof info;
            EXPECT_EQ(co_info(co, &info), 0);
            EXPECT_EQ(info.state, CO_STATE_ENDED);
            EXPECT_EQ(info.thread, 0);
            co_resume(co); // refused
            left.push_back(co);
        }
        EXPECT_TRUE(share == nullptr || may_begin(share));
    }
    for (stCoRoutine_t *co : left) {
        co_release(co);
    }
    const co_stats_t after = counted();
    EXPECT_EQ(after.coroutines_live, before.coroutines_live);
    EXPECT_EQ(after.stacks_in_use, before.stacks_in_use);
    EXPECT_EQ(after.stack_bytes_in_use, before.stack_bytes_in_use);
}

TEST(ThreadExitRunning, TheLastOneThatItLeavesIsReleasedWhileItStillEnds)
{
    // What is freed is overwritten.
    mallopt(M_PERTURB, 0xa5);
    const co_stats_t before = counted();
    for (int i = 0; i < 500; ++i) {
        std::atomic<stCoRoutine_t *> left{nullptr};
        std::thread thread([&] {
            Co co([] { co_yield_ct(); });
            co.resume();
            left = co.forget();
        });
        while (left == nullptr) {
        }
        // From the moment on that the thread counts as ended.
        co_info_t info;
        do {
            info.size = sizeof info;
            EXPECT_EQ(co_info(left, &info), 0);
        } while (info.thread != 0);
        co_release(left);
        thread.join();
    }
    mallopt(M_PERTURB, 0);
    EXPECT_EQ(counted().coroutines_live, before.coroutines_live);
}

// One that co_swap left running, so to say: nobody goes back to it when its thread ends.
TEST(ThreadExitRunning, WhatCoSwapLeftIsFreedTooAndAChildOfForkIsThere)
{
    static stCoRoutine_t *swaps;
    static stCoRoutine_t *back;
    const stCoRoutineAttr_t copy = attr(0, both_kinds()[1]);
    const co_stats_t before = counted();
    for (const stCoRoutineAttr_t *at : {static_cast<const stCoRoutineAttr_t *>(nullptr), &copy}) {
        for (const bool by_itself : {false, true}) {
            std::atomic<int> stage{0};
            std::thread thread([&] {
                Co second([] { co_swap(co_self(), back); });
                Co first([&] { co_swap(co_self(), second.get()); }, at);
                back = GetCurrCo(co_get_curr_thread_env());
                swaps = first.get();
                first.resume();
                if (by_itself) {
                    first.release();
                }
                first.forget();
                stage = 1;
                while (stage != 2) {
                    std::this_thread::yield();
                }
            });
            while (stage != 1) {
                std::this_thread::yield();
            }
            if (!by_itself) {
                co_release(swaps);
            }
            EXPECT_EQ(in_child([] { return 0; }, 10), 0);
            stage = 2;
            thread.join();
            EXPECT_EQ(in_child([] { return 0; }, 10), 0);
        }
    }
    EXPECT_TRUE(may_begin(copy.share_stack));
    EXPECT_EQ(counted().coroutines_live, before.coroutines_live);
}

#endif
