// clsCoMutex and clsSmartLock between the coroutines of one thread.
#include "support.h"

#include <memory>

using namespace support;

namespace {

void pause_ms(int ms)
{
    struct pollfd none = {-1, 0, 0};
    co_poll(co_get_epoll_ct(), &none, 1, ms);
}

bool all_ended(const std::vector<std::unique_ptr<Co>> &all)
{
    for (const auto &co : all) {
        if (co->get() != nullptr && !co->ended()) {
            return false;
        }
    }
    return true;
}

} // namespace

TEST(CoMutex, AFreeLockIsTakenAtOnce)
{
    clsCoMutex mutex;
    int steps = 0;
    Co co([&] {
        for (int i = 0; i < 3; ++i) {
            mutex.CoLock();
            ++steps;
            mutex.CoUnLock();
        }
    });
    co.resume();
    EXPECT_EQ(steps, 3);
    EXPECT_TRUE(co.ended());
}

TEST(CoMutex, AHeldLockMakesTheNextOneWait)
{
    clsCoMutex mutex;
    std::string trace;
    Co a([&] {
        mutex.CoLock();
        trace += "a";
        co_yield_ct();
        trace += "A";
        mutex.CoUnLock();
    });
    Co b([&] {
        trace += "b";
        mutex.CoLock();
        trace += "B";
        mutex.CoUnLock();
    });
    a.resume();
    b.resume();
    EXPECT_EQ(trace, "ab");
    loop_rounds(5);
    EXPECT_EQ(trace, "ab");
    a.resume();
    EXPECT_TRUE(loop_until([&] { return b.ended(); }));
    EXPECT_EQ(trace, "abAB");
}

TEST(CoMutex, ManyCoroutinesExcludeOneAnother)
{
    clsCoMutex mutex;
    int inside = 0;
    int most = 0;
    int entries = 0;
    std::vector<std::unique_ptr<Co>> all;
    for (int i = 0; i < 10; ++i) {
        all.push_back(std::make_unique<Co>([&] {
            for (int j = 0; j < 5; ++j) {
                mutex.CoLock();
                most = std::max(most, ++inside);
                ++entries;
                pause_ms(1);
                --inside;
                mutex.CoUnLock();
            }
        }));
    }
    for (auto &co : all) {
        co->resume();
    }
    EXPECT_TRUE(loop_until([&] { return all_ended(all); }));
    EXPECT_EQ(most, 1);
    EXPECT_EQ(entries, 50);
}

TEST(CoMutex, WaitersEnterInTheOrderTheyCame)
{
    clsCoMutex mutex;
    std::string trace;
    std::vector<std::unique_ptr<Co>> all;
    for (char name = 'a'; name <= 'j'; ++name) {
        all.push_back(std::make_unique<Co>([&mutex, &trace, name] {
            mutex.CoLock();
            co_yield_ct();
            trace += name;
            mutex.CoUnLock();
        }));
        all.back()->resume();
    }
    for (auto &co : all) {
        EXPECT_TRUE(trace.size() < 10);
        const size_t before = trace.size();
        co->resume(); // the holder leaves
        EXPECT_EQ(trace.size(), before + 1);
        loop_rounds(3); // the next one enters
    }
    EXPECT_EQ(trace, "abcdefghij");
}

TEST(CoMutex, OneThatUnlocksAndLocksAgainGoesBehindTheWaiters)
{
    clsCoMutex mutex;
    std::string trace;
    std::vector<std::unique_ptr<Co>> all;
    for (char name : {'a', 'b', 'c'}) {
        all.push_back(std::make_unique<Co>([&mutex, &trace, name] {
            for (int i = 0; i < 3; ++i) {
                mutex.CoLock();
                trace += name;
                pause_ms(1);
                mutex.CoUnLock();
            }
        }));
        all.back()->resume();
    }
    EXPECT_TRUE(loop_until([&] { return all_ended(all); }));
    EXPECT_EQ(trace, "abcabcabc");
}

TEST(CoMutex, SmartLockHoldsForItsScope)
{
    clsCoMutex mutex;
    std::string trace;
    const auto body = [&](char name) {
        {
            clsSmartLock lock(&mutex);
            trace += name;
            pause_ms(1);
            trace += name;
        }
        pause_ms(1);
    };
    std::vector<std::unique_ptr<Co>> all;
    for (char name : {'a', 'b', 'c'}) {
        all.push_back(std::make_unique<Co>([&body, name] { body(name); }));
        all.back()->resume();
    }
    EXPECT_TRUE(loop_until([&] { return all_ended(all); }));
    EXPECT_EQ(trace, "aabbcc");
}

TEST(CoMutex, SmartLockLetsGoWhenAnExceptionLeaves)
{
    clsCoMutex mutex;
    bool entered = false;
    Co a([&] {
        try {
            clsSmartLock lock(&mutex);
            throw 1;
        } catch (int) {
        }
    });
    a.resume();
    Co b([&] {
        clsSmartLock lock(&mutex);
        entered = true;
    });
    b.resume();
    EXPECT_TRUE(entered);
}

TEST(CoMutex, TheMainCoroutineMayTakeAFreeLock)
{
    clsCoMutex mutex;
    bool entered = false;
    Co co([&] {
        clsSmartLock lock(&mutex);
        entered = true;
    });
    mutex.CoLock();
    co.resume();
    EXPECT_FALSE(entered);
    mutex.CoUnLock();
    EXPECT_TRUE(loop_until([&] { return entered; }));
    EXPECT_TRUE(co.ended());
}

TEST(CoMutex, TwoMutexesAreIndependent)
{
    clsCoMutex first;
    clsCoMutex second;
    bool entered = false;
    Co a([&] {
        first.CoLock();
        co_yield_ct();
        first.CoUnLock();
    });
    Co b([&] {
        second.CoLock();
        entered = true;
        second.CoUnLock();
    });
    a.resume();
    b.resume();
    EXPECT_TRUE(entered);
    a.resume();
}

MENDED(CoMutex, NothingIsLostWhenAWaiterIsReleased)
{
    clsCoMutex mutex;
    std::string trace;
    std::vector<std::unique_ptr<Co>> all;
    for (char name : {'a', 'b', 'c', 'd'}) {
        all.push_back(std::make_unique<Co>([&mutex, &trace, name] {
            mutex.CoLock();
            co_yield_ct();
            trace += name;
            mutex.CoUnLock();
        }));
        all.back()->resume();
    }
    all[1]->release(); // b waits
    all[0]->resume();  // a leaves
    loop_rounds(3);
    all[2]->resume();
    loop_rounds(3);
    all[3]->resume();
    EXPECT_EQ(trace, "acd");
    bool entered = false;
    Co late([&] {
        clsSmartLock lock(&mutex);
        entered = true;
    });
    late.resume();
    EXPECT_TRUE(entered) << "the lock is free again";
}

MENDED(CoMutex, NothingIsLostWhenTheOnlyWaiterIsReleased)
{
    clsCoMutex mutex;
    Co holder([&] {
        mutex.CoLock();
        co_yield_ct();
        mutex.CoUnLock();
    });
    Co waiter([&] {
        mutex.CoLock();
        mutex.CoUnLock();
    });
    holder.resume();
    waiter.resume();
    waiter.release();
    holder.resume();
    bool entered = false;
    Co late([&] {
        clsSmartLock lock(&mutex);
        entered = true;
    });
    late.resume();
    EXPECT_TRUE(loop_until([&] { return entered; }, 2000));
}

MENDED(CoMutex, AReleasedWaiterThatWasJustHandedTheLockPassesItOn)
{
    clsCoMutex mutex;
    std::string trace;
    std::vector<std::unique_ptr<Co>> all;
    for (char name : {'a', 'b', 'c'}) {
        all.push_back(std::make_unique<Co>([&mutex, &trace, name] {
            mutex.CoLock();
            if (name == 'a') {
                co_yield_ct();
            }
            trace += name;
            mutex.CoUnLock();
        }));
        all.back()->resume();
    }
    all[0]->resume();  // a leaves: b is next, but has not run yet
    all[1]->release();
    EXPECT_TRUE(loop_until([&] { return all[2]->ended(); }, 2000));
    EXPECT_EQ(trace, "ac");
}

MENDED(CoMutex, AReleasedLastWaiterThatWasJustHandedTheLockFreesIt)
{
    clsCoMutex mutex;
    Co holder([&] {
        mutex.CoLock();
        co_yield_ct();
        mutex.CoUnLock();
    });
    Co waiter([&] {
        mutex.CoLock();
        mutex.CoUnLock();
    });
    holder.resume();
    waiter.resume();
    holder.resume();
    waiter.release();
    loop_rounds(3);
    bool entered = false;
    Co late([&] {
        clsSmartLock lock(&mutex);
        entered = true;
    });
    late.resume();
    EXPECT_TRUE(loop_until([&] { return entered; }, 2000));
}

MENDED(CoMutex, AResetWaiterLosesItsPlaceAndNothingElse)
{
    clsCoMutex mutex;
    std::string trace;
    std::vector<std::unique_ptr<Co>> all;
    for (char name : {'a', 'b', 'c'}) {
        all.push_back(std::make_unique<Co>([&mutex, &trace, name] {
            mutex.CoLock();
            if (name == 'a') {
                co_yield_ct();
            }
            trace += name;
            mutex.CoUnLock();
        }));
        all.back()->resume();
    }
    all[1]->reset();
    all[0]->resume();
    EXPECT_TRUE(loop_until([&] { return all[2]->ended(); }, 2000));
    EXPECT_EQ(trace, "ac");
    all[1]->resume();
    EXPECT_TRUE(loop_until([&] { return all[1]->ended(); }, 2000));
    EXPECT_EQ(trace, "acb");
}
