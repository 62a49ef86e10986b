// Coroutines that share stacks: only their live bytes are kept while another one runs there.
#include "support.h"

#include <algorithm>
#include <memory>

#include "pattern.h"

using namespace pattern;
using namespace support;

TEST(CopyStack, ACoroutineAloneOnItsStackGoesOn)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    bool whole = false;
    Co co([&] { whole = keeps_its_bytes(1000, 1, [] { co_yield_ct(); }); }, &at);
    co.resume();
    co.resume();
    EXPECT_TRUE(whole);
}

TEST(CopyStack, NearlyTheWholeStackIsUsable)
{
    stShareStack_t *share = co_alloc_sharestack(1, 256 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    int whole = 0;
    const auto body = [&] {
        whole += keeps_its_bytes(240 * 1024, 77, [] { co_yield_ct(); });
    };
    Co a(body, &at);
    Co b(body, &at);
    a.resume();
    b.resume();
    a.resume();
    b.resume();
    EXPECT_EQ(whole, 2);
}

TEST(CopyStack, AnOddSizeIsUsableToo)
{
    stShareStack_t *share = co_alloc_sharestack(2, 100001);
    ASSERT_NE(share, nullptr);
    const stCoRoutineAttr_t at = attr(0, share);
    int whole = 0;
    int aligned = 0;
    std::vector<std::unique_ptr<Co>> all;
    for (int i = 0; i < 4; ++i) {
        all.push_back(std::make_unique<Co>(
            [&] {
                alignas(16) volatile char probe[16] = {};
                aligned += reinterpret_cast<uintptr_t>(&probe) % 16 == 0;
                whole += keeps_its_bytes(80000, 5, [] { co_yield_ct(); });
            },
            &at));
        all.back()->resume();
    }
    for (auto &co : all) {
        co->resume();
    }
    EXPECT_EQ(whole, 4);
    EXPECT_EQ(aligned, 4);
}

TEST(CopyStack, TheSameAddressBelongsToWhoeverRuns)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    std::vector<const volatile int *> addresses;
    std::vector<int> values;
    const auto body = [&](int value) {
        volatile int local = value;
        addresses.push_back(&local);
        co_yield_ct();
        values.push_back(int{local});
        local = value + 10;
        co_yield_ct();
        values.push_back(int{local});
    };
    Co a([&] { body(1); }, &at);
    Co b([&] { body(2); }, &at);
    for (int i = 0; i < 3; ++i) {
        a.resume();
        b.resume();
    }
    EXPECT_EQ(addresses[0], addresses[1]);
    EXPECT_EQ(values, (std::vector<int>{1, 2, 11, 12}));
}

TEST(CopyStack, OneMayResumeAnotherOfTheSameStack)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    int whole = 0;
    Co inner(
        [&] {
            for (int i = 0; i < 3; ++i) {
                whole += keeps_its_bytes(3000, 9, [] { co_yield_ct(); });
            }
        },
        &at);
    Co outer(
        [&] {
            for (int i = 0; i < 3; ++i) {
                whole += keeps_its_bytes(5000, 10, [&] { inner.resume(); });
                co_yield_ct();
            }
        },
        &at);
    for (int i = 0; i < 3; ++i) {
        outer.resume();
    }
    EXPECT_EQ(whole, 5) << "three of the outer one, two of the inner one that were resumed again";
    inner.resume();
    EXPECT_EQ(whole, 6);
}

TEST(CopyStack, ChainsThroughPrivateStacksBackToTheSameStackWork)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    std::string trace;
    bool whole = false;
    Co last(
        [&] {
            trace += "l";
            whole = keeps_its_bytes(9000, 3, [] { co_yield_ct(); });
            trace += "L";
        },
        &at);
    Co middle([&] {
        last.resume();
        trace += "m";
        co_yield_ct();
        last.resume();
        trace += "M";
    });
    Co first(
        [&] {
            volatile int local = 1;
            middle.resume();
            trace += static_cast<char>('0' + local);
            co_yield_ct();
            middle.resume();
            trace += static_cast<char>('0' + local + 1);
        },
        &at);
    first.resume();
    first.resume();
    EXPECT_EQ(trace, "lm1LM2");
    EXPECT_TRUE(whole);
}

TEST(CopyStack, CopiesTakeTheLiveBytesOnly)
{
    stShareStack_t *share = co_alloc_sharestack(1, 1024 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    std::vector<std::unique_ptr<Co>> all;
    const long before = status_kib("VmRSS:");
    for (int i = 0; i < 2000; ++i) {
        all.push_back(std::make_unique<Co>([] { co_yield_ct(); }, &at));
        all.back()->resume();
    }
    EXPECT_LT(status_kib("VmRSS:") - before, 2000 * 16);
}

TEST(CopyStack, WaitsInPollKeepTheirArrays)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    constexpr int count = 20;
    std::vector<std::unique_ptr<Pipe>> pipes;
    std::vector<std::unique_ptr<Co>> all;
    int right = 0;
    int ended = 0;
    for (int i = 0; i < count; ++i) {
        pipes.push_back(std::make_unique<Pipe>());
        all.push_back(std::make_unique<Co>(
            [i, &pipes, &right, &ended] {
                struct pollfd fds[3] = {
                    {pipes[static_cast<size_t>(i)]->rd, POLLIN, 0},
                    {-1, POLLIN, 0},
                    {pipes[static_cast<size_t>(i)]->wr, 0, 0},
                };
                const int result = co_poll(co_get_epoll_ct(), fds, i % 2 == 0 ? 1 : 3, 10000);
                right += result == 1 && fds[0].revents == POLLIN && fds[2].revents == 0;
                ++ended;
            },
            &at));
        all.back()->resume();
    }
    for (size_t i = 0; i < count; ++i) {
        pipes[i * 7 % count]->put();
        loop_rounds(1);
    }
    EXPECT_TRUE(loop_until([&] { return ended == count; }));
    EXPECT_EQ(right, count);
}

TEST(CopyStack, AnArrayGivenToPollIsNotWrittenWhileItsStackIsSwitchedOut)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    Pipe pipe_;
    short revents = 0;
    int result = -2;
    bool whole = false;
    bool began = false;
    Co waits(
        [&] {
            struct pollfd fds[40];
            for (struct pollfd &p : fds) {
                p = {-1, POLLIN, 0};
            }
            fds[39].fd = pipe_.rd;
            result = co_poll(co_get_epoll_ct(), fds, 40, 10000);
            revents = fds[39].revents;
        },
        &at);
    Co covers(
        [&] {
            // Its bytes lie where the array was, from before the event until after it.
            whole = keeps_its_bytes(16 * 1024, 4, [&] {
                began = true;
                co_yield_ct();
            });
        },
        &at);
    waits.resume();
    covers.resume();
    EXPECT_TRUE(began);
    pipe_.put();
    EXPECT_TRUE(loop_until([&] { return result != -2; }));
    covers.resume();
    EXPECT_EQ(result, 1);
    EXPECT_EQ(revents, POLLIN);
    EXPECT_TRUE(whole);
}

TEST(CopyStack, WaitsOnConditionsAndTimersWork)
{
    stShareStack_t *share = co_alloc_sharestack(2, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    stCoCond_t *cond = co_cond_alloc();
    std::vector<std::unique_ptr<Co>> all;
    int whole = 0;
    for (int i = 0; i < 30; ++i) {
        all.push_back(std::make_unique<Co>(
            [i, cond, &whole] {
                whole += keeps_its_bytes(static_cast<size_t>(100 + i * 500), 8, [i, cond] {
                    co_cond_timedwait(cond, i % 3 == 0 ? 5 : -1);
                    struct pollfd none = {-1, 0, 0};
                    co_poll(co_get_epoll_ct(), &none, 1, 1 + i % 4);
                });
            },
            &at));
        all.back()->resume();
    }
    const long long begin = now_ms();
    EXPECT_TRUE(loop_until([&] {
        if (now_ms() - begin > 20) {
            co_cond_broadcast(cond);
        }
        return std::all_of(all.begin(), all.end(), [](auto &co) { return co->ended(); });
    }));
    EXPECT_EQ(whole, 30);
    co_cond_free(cond);
}

MENDED(CopyStack, TheOthersGoOnAfterTheOccupantWasReleased)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    int whole = 0;
    // Another pattern each time, or one's bytes would pass for another's.
    uint64_t next_seed = 0;
    const auto body = [&] {
        whole += keeps_its_bytes(2000, next_seed += 1000, [] { co_yield_ct(); });
    };
    Co a(body, &at);
    Co b(body, &at);
    Co occupant(body, &at);
    a.resume();
    b.resume();
    occupant.resume();
    occupant.release();
    a.resume();
    b.resume();
    EXPECT_EQ(whole, 2);
}

MENDED(CopyStack, TheOthersGoOnAfterAnEndedOccupantWasReleased)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    int whole = 0;
    Co a([&] { whole += keeps_its_bytes(2000, 6, [] { co_yield_ct(); }); }, &at);
    a.resume();
    for (int i = 0; i < 5; ++i) {
        Co occupant([] { keeps_its_bytes(10000, 1, [] {}); }, &at);
        occupant.resume();
    }
    a.resume();
    EXPECT_EQ(whole, 1);
}

MENDED(CopyStack, TheOthersGoOnAfterTheOccupantWasReset)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    int whole = 0;
    // Another pattern each time, or one's bytes would pass for another's.
    uint64_t next_seed = 0;
    const auto body = [&] {
        whole += keeps_its_bytes(2000, next_seed += 1000, [] { co_yield_ct(); });
    };
    Co a(body, &at);
    Co occupant(body, &at);
    a.resume();
    occupant.resume();
    occupant.reset();
    a.resume();
    EXPECT_EQ(whole, 1);
    occupant.resume();
    occupant.resume();
    EXPECT_EQ(whole, 2);
}

MENDED(CopyStack, TheOthersGoOnAfterASwitchedOutOneWasReset)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    int whole = 0;
    // Another pattern each time, or one's bytes would pass for another's.
    uint64_t next_seed = 0;
    const auto body = [&] {
        whole += keeps_its_bytes(2000, next_seed += 1000, [] { co_yield_ct(); });
    };
    Co a(body, &at);
    Co b(body, &at);
    Co c(body, &at);
    a.resume();
    b.resume();
    c.resume();
    a.reset();
    b.resume();
    a.resume();
    c.resume();
    a.resume();
    EXPECT_EQ(whole, 3);
}

MENDED(CopyStack, TheRunningOneMayReleaseAnotherOfItsStack)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    bool whole = false;
    Co other([] { co_yield_ct(); }, &at);
    other.resume();
    Co co(
        [&] {
            whole = keeps_its_bytes(4000, 2, [&] {
                other.release();
                co_yield_ct();
            });
        },
        &at);
    co.resume();
    co.resume();
    EXPECT_TRUE(whole);
}

MENDED(CopyStack, OneMayReleaseItselfOrItsResumerOfTheSameStack)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    int whole = 0;
    Co stays([&] { whole += keeps_its_bytes(3000, 12, [] { co_yield_ct(); }); }, &at);
    stays.resume();
    for (int i = 0; i < 100; ++i) {
        Co *outer_co = nullptr;
        Co inner(
            [&] {
                outer_co->release();
                whole += keeps_its_bytes(2000, 13, [] { co_yield_ct(); });
                co_release(co_self());
                co_yield_ct();
                whole += 1000000;
            },
            &at);
        Co outer(
            [&] {
                whole += keeps_its_bytes(1000, 14, [&] {
                    inner.resume();
                    inner.resume();
                });
            },
            &at);
        outer_co = &outer;
        outer.resume();
        inner.forget();
    }
    stays.resume();
    EXPECT_EQ(whole, 201);
}

MENDED(CopyStack, TheOccupantMayBeReleasedByAnotherThread)
{
    Pipe ready;
    Pipe released;
    stCoRoutine_t *occupant = nullptr;
    int whole = 0;
    std::thread owner([&] {
        stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
        const stCoRoutineAttr_t at = attr(0, share);
        Co a([&] { whole += keeps_its_bytes(2000, 21, [] { co_yield_ct(); }); }, &at);
        Co b([&] { whole += keeps_its_bytes(3000, 22, [] { co_yield_ct(); }); }, &at);
        Co gone([] { keeps_its_bytes(4000, 23, [] { co_yield_ct(); }); }, &at);
        a.resume();
        b.resume();
        gone.resume();
        occupant = gone.forget();
        ready.put();
        char c;
        EXPECT_EQ(::read(released.rd, &c, 1), 1);
        a.resume();
        b.resume();
    });
    char c;
    EXPECT_EQ(::read(ready.rd, &c, 1), 1);
    co_release(occupant);
    released.put();
    owner.join();
    EXPECT_EQ(whole, 2);
}

MENDED(CopyStack, OneThatCallsItselfNewWhileItRunsGoesOnAllTheSame)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    int starts = 0;
    int whole = 0;
    Co on_private([] { co_yield_ct(); });
    Co on_the_same([] { keeps_its_bytes(3000, 31, [] { co_yield_ct(); }); }, &at);
    Co co(
        [&] {
            ++starts;
            whole += keeps_its_bytes(2000, 32, [&] {
                co_self()->cStart = 0;
                on_private.resume();
                on_the_same.resume();
            });
        },
        &at);
    co.resume();
    EXPECT_EQ(starts, 1);
    EXPECT_EQ(whole, 1);
}

MENDED(CopyStack, ReleaseWhileWaitingLeavesTheOtherWaitersOfTheStack)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    Pipe pipe_;
    std::vector<std::unique_ptr<Co>> all;
    int right = 0;
    for (int i = 0; i < 6; ++i) {
        all.push_back(std::make_unique<Co>(
            [&] {
                struct pollfd p = {pipe_.rd, POLLIN, 0};
                right += co_poll(co_get_epoll_ct(), &p, 1, 10000) == 1 && p.revents == POLLIN;
            },
            &at));
        all.back()->resume();
    }
    all[5]->release(); // the occupant
    all[2]->release();
    pipe_.put();
    EXPECT_TRUE(loop_until([&] { return right == 4; }));
    EXPECT_EQ(right, 4);
}

MENDED(CopyStack, SavedBytesAreFreedWithTheirCoroutine)
{
    stShareStack_t *share = co_alloc_sharestack(1, 128 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    const auto round = [&] {
        std::vector<std::unique_ptr<Co>> all;
        for (int i = 0; i < 200; ++i) {
            all.push_back(std::make_unique<Co>(
                [] { keeps_its_bytes(50 * 1024, 1, [] { co_yield_ct(); }); }, &at));
            all.back()->resume();
        }
    };
    round();
    const long before = status_kib("VmRSS:");
    for (int i = 0; i < 10; ++i) {
        round();
    }
    EXPECT_LT(status_kib("VmRSS:") - before, 4 * 1024);
}
