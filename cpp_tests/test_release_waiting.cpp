// co_release of a coroutine that waits, or runs, by its own thread or by another one.
#include "support.h"

#include <memory>

using namespace support;

MENDED(CoRelease, OfItselfWhileItThenWaitsInPollNeverComesBack)
{
    Pipe pipe_;
    bool came_back = false;
    Co co([&] {
        co_release(co_self());
        poll_one(pipe_.rd, 10);
        came_back = true;
    });
    co.resume();
    co.forget();
    pipe_.put();
    bool later = false;
    Co timer([&] {
        poll(nullptr, 0, 0);
        struct pollfd none = {-1, 0, 0};
        co_poll(co_get_epoll_ct(), &none, 1, 50);
        later = true;
    });
    timer.resume();
    EXPECT_TRUE(loop_until([&] { return later; }));
    EXPECT_FALSE(came_back);
}

MENDED(CoRelease, WhileWaitingInPollTakesItOffDescriptorAndTimer)
{
    Pipe pipe_;
    bool came_back = false;
    Co co([&] {
        poll_one(pipe_.rd, 20);
        came_back = true;
    });
    co.resume();
    co.release();
    pipe_.put();
    bool later = false;
    Co timer([&] {
        struct pollfd none = {-1, 0, 0};
        co_poll(co_get_epoll_ct(), &none, 1, 60);
        later = true;
    });
    timer.resume();
    EXPECT_TRUE(loop_until([&] { return later; }));
    EXPECT_FALSE(came_back);
}

MENDED(CoRelease, WhileWaitingInPollLeavesTheOtherWaitersOfTheDescriptor)
{
    Pipe pipe_;
    std::vector<std::unique_ptr<Co>> waiters;
    std::vector<int> results(3, -2);
    for (size_t i = 0; i < 3; ++i) {
        waiters.push_back(
            std::make_unique<Co>([&results, &pipe_, i] { results[i] = poll_one(pipe_.rd, 10000); }));
        waiters.back()->resume();
    }
    waiters[1]->release();
    pipe_.put();
    EXPECT_TRUE(loop_until([&] { return results[0] != -2 && results[2] != -2; }));
    EXPECT_EQ(results, (std::vector<int>{1, -2, 1}));
}

MENDED(CoRelease, WhileWaitingForManyDescriptorsTakesItOffAll)
{
    std::vector<std::unique_ptr<Pipe>> pipes;
    for (int i = 0; i < 20; ++i) {
        pipes.push_back(std::make_unique<Pipe>());
    }
    const auto wait_for_all = [&] {
        std::vector<struct pollfd> fds;
        for (auto &p : pipes) {
            fds.push_back({p->rd, POLLIN, 0});
        }
        return co_poll(co_get_epoll_ct(), fds.data(), fds.size(), 10000);
    };
    bool came_back = false;
    Co gone([&] {
        wait_for_all();
        came_back = true;
    });
    gone.resume();
    gone.release();
    int result = -2;
    Co other([&] { result = wait_for_all(); });
    other.resume();
    pipes[7]->put();
    EXPECT_TRUE(loop_until([&] { return result != -2; }));
    EXPECT_EQ(result, 1);
    EXPECT_FALSE(came_back);
}

MENDED(CoRelease, WhileWaitingOnAConditionTakesItOffTheQueue)
{
    stCoCond_t *cond = co_cond_alloc();
    std::string trace;
    std::vector<std::unique_ptr<Co>> waiters;
    for (char name : {'a', 'b', 'c', 'd'}) {
        waiters.push_back(std::make_unique<Co>([&trace, cond, name] {
            co_cond_timedwait(cond, 10000);
            trace += name;
        }));
        waiters.back()->resume();
    }
    waiters[0]->release(); // the head
    waiters[2]->release(); // from the middle
    co_cond_signal(cond);
    co_cond_signal(cond);
    EXPECT_TRUE(loop_until([&] { return trace.size() == 2; }));
    EXPECT_EQ(trace, "bd");
    co_cond_free(cond);
}

MENDED(CoRelease, WhileWaitingOnAConditionTakesItOffTheTimer)
{
    stCoCond_t *cond = co_cond_alloc();
    bool came_back = false;
    Co co([&] {
        co_cond_timedwait(cond, 10);
        came_back = true;
    });
    co.resume();
    co.release();
    bool later = false;
    Co timer([&] {
        co_cond_timedwait(cond, 50);
        later = true;
    });
    timer.resume();
    EXPECT_TRUE(loop_until([&] { return later; }));
    EXPECT_FALSE(came_back);
    co_cond_free(cond);
}

MENDED(CoRelease, AfterTheEventButBeforeItsTurnInTheSameRoundIsSafe)
{
    Pipe first_pipe;
    Pipe second_pipe;
    std::string trace;
    std::unique_ptr<Co> a;
    std::unique_ptr<Co> b;
    // Both become ready in one round: whoever runs first releases the other.
    a = std::make_unique<Co>([&] {
        poll_one(first_pipe.rd, 10000);
        trace += "a";
        b->release();
    });
    b = std::make_unique<Co>([&] {
        poll_one(second_pipe.rd, 10000);
        trace += "b";
        a->release();
    });
    a->resume();
    b->resume();
    first_pipe.put();
    second_pipe.put();
    EXPECT_TRUE(loop_until([&] { return !trace.empty(); }));
    loop_rounds(5);
    EXPECT_EQ(trace.size(), 1u);
}

MENDED(CoRelease, AfterASignalButBeforeItsTurnIsSafe)
{
    stCoCond_t *cond = co_cond_alloc();
    std::string trace;
    std::unique_ptr<Co> a;
    std::unique_ptr<Co> b;
    a = std::make_unique<Co>([&] {
        co_cond_timedwait(cond, 10000);
        trace += "a";
        b->release();
    });
    b = std::make_unique<Co>([&] {
        co_cond_timedwait(cond, 10000);
        trace += "b";
    });
    a->resume();
    b->resume();
    co_cond_broadcast(cond);
    EXPECT_TRUE(loop_until([&] { return !trace.empty(); }));
    loop_rounds(5);
    EXPECT_EQ(trace, "a");
    co_cond_free(cond);
}

MENDED(CoRelease, FromAnotherThreadWhileItWaitsInPollNeverWakesIt)
{
    Pipe waited;
    Pipe go_on;
    Pipe ready;
    bool came_back = false;
    bool other_woken = false;
    stCoRoutine_t *victim = nullptr;
    std::thread creator([&] {
        Co co([&] {
            poll_one(waited.rd, 10000);
            came_back = true;
        });
        co.resume();
        victim = co.forget();
        Co other([&] {
            poll_one(go_on.rd, 10000);
            other_woken = true;
        });
        other.resume();
        ready.put();
        EXPECT_TRUE(loop_until([&] { return other_woken; }));
        loop_rounds(5);
    });
    char c;
    EXPECT_EQ(::read(ready.rd, &c, 1), 1);
    co_release(victim);
    waited.put();
    go_on.put();
    creator.join();
    EXPECT_TRUE(other_woken);
    EXPECT_FALSE(came_back);
}

MENDED(CoRelease, FromAnotherThreadBetweenItsEventAndItsTurnNeverWakesIt)
{
    // Both become ready in one round; whoever runs first has another thread release the other one
    // and goes on only when that is done.
    Pipe first_pipe;
    Pipe second_pipe;
    Pipe ask;
    Pipe answer;
    std::string trace;
    std::thread creator([&] {
        std::unique_ptr<Co> a;
        std::unique_ptr<Co> b;
        const auto release_elsewhere = [&](Co &other) {
            stCoRoutine_t *raw = other.forget();
            EXPECT_EQ(::write(ask.wr, &raw, sizeof raw), static_cast<ssize_t>(sizeof raw));
            char c;
            EXPECT_EQ(::read(answer.rd, &c, 1), 1);
        };
        a = std::make_unique<Co>([&] {
            poll_one(first_pipe.rd, 10000);
            trace += "a";
            release_elsewhere(*b);
        });
        b = std::make_unique<Co>([&] {
            poll_one(second_pipe.rd, 10000);
            trace += "b";
            release_elsewhere(*a);
        });
        a->resume();
        b->resume();
        first_pipe.put();
        second_pipe.put();
        EXPECT_TRUE(loop_until([&] { return !trace.empty(); }));
        loop_rounds(5);
        stCoRoutine_t *end = nullptr;
        EXPECT_EQ(::write(ask.wr, &end, sizeof end), static_cast<ssize_t>(sizeof end));
    });
    stCoRoutine_t *victim = nullptr;
    while (::read(ask.rd, &victim, sizeof victim) == static_cast<ssize_t>(sizeof victim) &&
           victim != nullptr) {
        co_release(victim);
        answer.put();
    }
    creator.join();
    EXPECT_EQ(trace.size(), 1u) << trace;
}

MENDED(CoRelease, FromAnotherThreadWhileItWaitsOnAConditionNeverWakesIt)
{
    Pipe go_on;
    Pipe ready;
    bool came_back = false;
    bool other_woken = false;
    stCoRoutine_t *victim = nullptr;
    std::thread creator([&] {
        stCoCond_t *cond = co_cond_alloc();
        Co co([&] {
            co_cond_timedwait(cond, 30);
            came_back = true;
        });
        co.resume();
        victim = co.forget();
        Co other([&] {
            poll_one(go_on.rd, 10000);
            co_cond_timedwait(cond, 60);
            other_woken = true;
        });
        other.resume();
        ready.put();
        EXPECT_TRUE(loop_until([&] { return other_woken; }));
        co_cond_free(cond);
    });
    char c;
    EXPECT_EQ(::read(ready.rd, &c, 1), 1);
    co_release(victim);
    go_on.put();
    creator.join();
    EXPECT_TRUE(other_woken);
    EXPECT_FALSE(came_back);
}

MENDED(CoRelease, FromAnotherThreadWhileItWaitsOnAConditionLeavesTheSignalToTheNext)
{
    Pipe ask;
    Pipe answer;
    stCoRoutine_t *victim = nullptr;
    bool came_back = false;
    bool next_woken = false;
    std::thread creator([&] {
        stCoCond_t *cond = co_cond_alloc();
        Co first([&] {
            co_cond_timedwait(cond, 10000);
            came_back = true;
        });
        Co second([&] {
            co_cond_timedwait(cond, 10000);
            next_woken = true;
        });
        first.resume();
        second.resume();
        victim = first.forget();
        ask.put();
        char c;
        EXPECT_EQ(::read(answer.rd, &c, 1), 1);
        co_cond_signal(cond); // no round of the loop between release and signal
        EXPECT_TRUE(loop_until([&] { return next_woken; }, 2000));
        second.release();
        co_cond_free(cond);
    });
    char c;
    EXPECT_EQ(::read(ask.rd, &c, 1), 1);
    co_release(victim);
    answer.put();
    creator.join();
    EXPECT_TRUE(next_woken);
    EXPECT_FALSE(came_back);
}

MENDED(CoRelease, FromAnotherThreadInALoopWhileTheCreatorKeepsWaitingAndWaking)
{
    // Hundreds of releases from outside race with the creator's own loop.
    Pipe hand_over;
    bool stop = false;
    int woken = 0;
    std::thread creator([&] {
        Pipe never;
        Co ticker([&] {
            struct pollfd none = {-1, 0, 0};
            for (int i = 0; i < 300; ++i) {
                Co co([&] {
                    poll_one(never.rd, 10000);
                    ++woken;
                });
                co.resume();
                stCoRoutine_t *raw = co.forget();
                if (::write(hand_over.wr, &raw, sizeof raw) != sizeof raw) {
                    std::abort();
                }
                if (i % 10 == 0) {
                    co_poll(co_get_epoll_ct(), &none, 1, 1);
                }
            }
            stCoRoutine_t *end = nullptr;
            if (::write(hand_over.wr, &end, sizeof end) != sizeof end) {
                std::abort();
            }
            stop = true;
        });
        ticker.resume();
        EXPECT_TRUE(loop_until([&] { return stop; }));
    });
    for (;;) {
        stCoRoutine_t *raw = nullptr;
        ASSERT_EQ(::read(hand_over.rd, &raw, sizeof raw), static_cast<ssize_t>(sizeof raw));
        if (raw == nullptr) {
            break;
        }
        co_release(raw);
    }
    creator.join();
    EXPECT_EQ(woken, 0);
}

MENDED(CoRelease, FromAnotherThreadWhileItRunsLetsItGoOnUntilItsYield)
{
    Pipe running;
    Pipe go_on;
    std::string trace;
    stCoRoutine_t *victim = nullptr;
    std::thread creator([&] {
        Co co([&] {
            trace += "a";
            running.put();
            char c;
            EXPECT_EQ(::read(go_on.rd, &c, 1), 1);
            // Looks for what other threads have released, while this one still runs.
            const stCoRoutineAttr_t at = attr(0, co_alloc_sharestack(1, 64 * 1024));
            Co looks([&] { trace += "b"; }, &at);
            looks.resume();
            co_yield_ct();
            trace += "x";
        });
        victim = co.get();
        co.resume();
        co.forget();
        // It is freed by now: who comes next gets its block.
        Co next([&] { trace += "n"; });
        EXPECT_EQ(next.get(), victim);
        next.resume();
    });
    char c;
    EXPECT_EQ(::read(running.rd, &c, 1), 1);
    co_release(victim);
    go_on.put();
    creator.join();
    EXPECT_EQ(trace, "abn");
}

MENDED(CoRelease, OneThatWaitsAfterItsThreadEndedIsSafe)
{
    Pipe pipe_;
    stCoRoutine_t *in_poll = nullptr;
    stCoRoutine_t *in_cond = nullptr;
    stCoCond_t *cond = co_cond_alloc();
    on_thread([&] {
        Co a([&] { poll_one(pipe_.rd, 10000); });
        a.resume();
        in_poll = a.forget();
        Co b([&] { co_cond_timedwait(cond, 10000); });
        b.resume();
        in_cond = b.forget();
    });
    co_release(in_poll);
    co_release(in_cond);
    co_cond_signal(cond); // nobody is left in the queue
    loop_rounds(3);
    co_cond_free(cond);
}
