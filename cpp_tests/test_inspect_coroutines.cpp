// co_info and co_walk: what each coroutine does.
#include "support.h"

#ifndef COLIB_PEER
#include "co_inspect.h"
#include <atomic>
#include <map>
#include <memory>
#include <netdb.h>
#include <set>
#include <sys/syscall.h>

namespace {

co_info_t info_of(stCoRoutine_t *co)
{
    co_info_t info;
    memset(&info, 0xa5, sizeof info);
    info.size = sizeof info;
    EXPECT_EQ(co_info(co, &info), 0);
    EXPECT_EQ(info.size, sizeof info);
    EXPECT_EQ(info.co, co);
    return info;
}

int this_thread()
{
    return static_cast<int>(syscall(SYS_gettid));
}

TEST(Info, TheStatesOfALife)
{
    support::on_thread([] {
        co_info_t inside{}, outer_from_inside{}, main_from_inside{};
        stCoRoutine_t *main = nullptr;
        support::Co inner([&] {
            inside = info_of(co_self());
            co_yield_ct();
        });
        support::Co outer([&] {
            inner.resume();
            co_yield_ct();
        });
        main = co_self();
        const auto look = [&] {
            outer_from_inside = info_of(outer.get());
            main_from_inside = info_of(main);
        };
        support::Co looks([&] { look(); });

        co_info_t info = info_of(outer.get());
        EXPECT_EQ(info.state, CO_STATE_NEW);
        EXPECT_EQ(info.waits_for, CO_WAITS_NOT);
        EXPECT_EQ(info.thread, this_thread());
        EXPECT_EQ(info.stack_size, 128u * 1024);
        EXPECT_EQ(info.stack_used, 0u);
        EXPECT_EQ(info.descriptor, -1);
        EXPECT_EQ(info.left_ms, -1);
        EXPECT_EQ(info.waited_ms, 0u);
        EXPECT_EQ(info.is_main, 0);
        EXPECT_EQ(info.hooks_on, 0);
        EXPECT_EQ(info.on_copy_stack, 0);
        EXPECT_EQ(reinterpret_cast<void *>(info.routine), reinterpret_cast<void *>(outer.get()->pfn));
        EXPECT_EQ(info.arg, outer.get()->arg);

        support::Co nest([&] {
            looks.resume();
            co_yield_ct();
        });
        outer.resume();
        EXPECT_EQ(inside.state, CO_STATE_RUNNING);
        EXPECT_GT(inside.stack_used, 0u);
        EXPECT_LT(inside.stack_used, 16u * 1024);
        EXPECT_EQ(info_of(inner.get()).state, CO_STATE_SUSPENDED);
        EXPECT_EQ(info_of(outer.get()).state, CO_STATE_SUSPENDED);
        EXPECT_EQ(info_of(main).state, CO_STATE_RUNNING);
        EXPECT_EQ(info_of(main).is_main, 1);
        EXPECT_EQ(info_of(main).stack_size, 0u);
        looks.resume();
        EXPECT_EQ(outer_from_inside.state, CO_STATE_SUSPENDED);
        EXPECT_EQ(main_from_inside.state, CO_STATE_RESUMING);

        inner.resume();
        EXPECT_EQ(info_of(inner.get()).state, CO_STATE_ENDED);
        EXPECT_EQ(info_of(inner.get()).stack_used, 0u);
        inner.reset();
        EXPECT_EQ(info_of(inner.get()).state, CO_STATE_NEW);
    });
}

TEST(Info, ACoroutineThatHasResumedAnotherSaysSo)
{
    co_info_t outer_info{};
    support::Co *outer_of_all = nullptr;
    support::Co inner([&] { outer_info = info_of(outer_of_all->get()); });
    support::Co outer([&] { inner.resume(); });
    outer_of_all = &outer;
    outer.resume();
    EXPECT_EQ(outer_info.state, CO_STATE_RESUMING);
    EXPECT_GT(outer_info.stack_used, 0u);
}

TEST(Info, EachKindOfWaitIsTold)
{
    support::on_thread([] {
        support::Pipe one, two;
        stCoCond_t *condition = co_cond_alloc();
        support::Co time([] { support::poll_one(-1, 5000); }), descriptor([&] { support::poll_one(one.rd, -1); }),
            descriptors([&] {
                struct pollfd fds[3] = {{-1, POLLIN, 0}, {two.rd, POLLIN, 0}, {one.wr, POLLPRI, 0}};
                co_poll(co_get_epoll_ct(), fds, 3, 7000);
            }),
            cond([&] { co_cond_timedwait(condition, -1); }), hooked([&] {
                co_enable_hook_sys();
                struct pollfd fd = {two.rd, POLLIN | POLLPRI, 0};
                poll(&fd, 1, 3000);
            });
        for (support::Co *co : {&time, &descriptor, &descriptors, &cond, &hooked}) {
            co->resume();
            EXPECT_EQ(info_of(co->get()).state, CO_STATE_WAITING);
        }
        co_info_t info = info_of(time.get());
        EXPECT_EQ(info.waits_for, CO_WAITS_TIME);
        EXPECT_EQ(info.descriptor, -1);
        EXPECT_GT(info.left_ms, 1000);
        EXPECT_LE(info.left_ms, 5001);
        EXPECT_LT(info.waited_ms, 4000u);

        info = info_of(descriptor.get());
        EXPECT_EQ(info.waits_for, CO_WAITS_DESCRIPTOR);
        EXPECT_EQ(info.descriptor, one.rd);
        EXPECT_EQ(info.events, POLLIN);
        EXPECT_EQ(info.descriptors, 1u);
        EXPECT_EQ(info.left_ms, -1);

        info = info_of(descriptors.get());
        EXPECT_EQ(info.waits_for, CO_WAITS_DESCRIPTORS);
        EXPECT_EQ(info.descriptor, two.rd);
        EXPECT_EQ(info.events, POLLIN);
        EXPECT_EQ(info.descriptors, 3u);
        EXPECT_GT(info.left_ms, 3000);

        info = info_of(cond.get());
        EXPECT_EQ(info.waits_for, CO_WAITS_CONDITION);
        EXPECT_EQ(info.condition, condition);
        EXPECT_EQ(info.left_ms, -1);

        info = info_of(hooked.get());
        EXPECT_EQ(info.waits_for, CO_WAITS_DESCRIPTOR);
        EXPECT_EQ(info.descriptor, two.rd);
        EXPECT_EQ(info.events, POLLIN | POLLPRI);
        EXPECT_EQ(info.hooks_on, 1);

        // Woken, but not resumed yet.
        co_cond_signal(condition);
        info = info_of(cond.get());
        EXPECT_EQ(info.state, CO_STATE_READY);
        EXPECT_EQ(info.waits_for, CO_WAITS_CONDITION);
        EXPECT_EQ(info.left_ms, -1);
        time.resume(); // by hand: the wait is over
        EXPECT_EQ(info_of(time.get()).state, CO_STATE_ENDED);
        EXPECT_EQ(info_of(time.get()).waits_for, CO_WAITS_NOT);
        for (support::Co *co : {&descriptor, &descriptors, &cond, &hooked}) {
            co->release();
        }
        co_cond_free(condition);
    });
}

TEST(Info, ALookupOfANameIsTold)
{
    support::on_thread([] {
        bool done = false;
        support::Co co([&] {
            co_enable_hook_sys();
            struct addrinfo *found = nullptr;
            if (getaddrinfo("localhost", nullptr, nullptr, &found) == 0) {
                freeaddrinfo(found);
            }
            done = true;
        });
        co.resume();
        if (!done) {
            EXPECT_EQ(info_of(co.get()).state, CO_STATE_WAITING);
            EXPECT_EQ(info_of(co.get()).waits_for, CO_WAITS_NAME);
        }
        ASSERT_TRUE(support::loop_until([&] { return done; }));
    });
}

TEST(Info, HowLongItHasWaitedIsCountedFromTheBeginningOfTheWait)
{
    support::on_thread([] {
        // Outside the loop: the clock, whatever the loop saw last.
        stCoEpoll_t *loop = co_get_epoll_ct();
        support::loop_rounds(1);
        usleep(120 * 1000);
        support::Co first([] { support::poll_one(-1, 60000); });
        first.resume();
        EXPECT_LT(info_of(first.get()).waited_ms, 100u);
        const long long begun = support::now_ms();
        ASSERT_TRUE(support::loop_until([&] { return support::now_ms() - begun >= 60; }));
        const uint64_t waited = info_of(first.get()).waited_ms;
        EXPECT_GE(waited, 55u);
        EXPECT_LE(waited, static_cast<uint64_t>(support::now_ms() - begun) + 5);
        // Inside: a second wait begins anew.
        int rounds = 0;
        support::Co second([&] {
            for (;;) {
                support::poll_one(-1, 30);
                ++rounds;
            }
        });
        second.resume();
        ASSERT_TRUE(support::loop_until([&] { return rounds == 4; }));
        EXPECT_LT(info_of(second.get()).waited_ms, 100u);
        EXPECT_GE(info_of(first.get()).waited_ms, 170u);
        (void)loop;
    });
}

TEST(Info, AfterAnExceptionOfTheLoopsCallbackAWaitBeginsNow)
{
    support::on_thread([] {
        const auto throws = [](void *) -> int { throw 1; };
        EXPECT_THROW(co_eventloop(co_get_epoll_ct(), throws, nullptr), int);
        usleep(120 * 1000);
        support::Co late([] { support::poll_one(-1, 60000); });
        late.resume();
        EXPECT_LT(info_of(late.get()).waited_ms, 100u);
    });
}

// Uses so many bytes of the stack, and writes the lowest of them.
__attribute__((noinline)) void dig(size_t bytes)
{
    volatile char *deep = static_cast<volatile char *>(__builtin_alloca(bytes));
    for (size_t i = 0; i < bytes; i += 64) {
        deep[i] = 1;
    }
}

TEST(Info, TheMarkOfAStackIsTheDeepestByteThatWasUsed)
{
    support::on_thread([] {
        const size_t depth = 50 * 1000;
        const stCoRoutineAttr_t at = support::attr(256 * 1024);
        support::Co co([&] {
            dig(depth);
            co_yield_ct();
            dig(2 * depth);
            co_yield_ct();
        }, &at);
        EXPECT_EQ(info_of(co.get()).stack_most, 0u);
        co.resume();
        co_info_t info = info_of(co.get());
        EXPECT_GE(info.stack_most, depth);
        EXPECT_LE(info.stack_most, depth + 8192);
        EXPECT_GT(info.stack_used, 0u);
        EXPECT_LT(info.stack_used, 3000u);
        EXPECT_EQ(info.stack_size, 256u * 1024);
        co.resume();
        info = info_of(co.get());
        EXPECT_GE(info.stack_most, 2 * depth);
        EXPECT_LE(info.stack_most, 2 * depth + 8192);
    });
}

TEST(Info, OnACopyStackTheMarkIsTheStacksAndWhatIsInUseTheCoroutines)
{
    stShareStack_t *stacks = co_alloc_sharestack(1, 128 * 1024);
    support::on_thread([&] {
        const stCoRoutineAttr_t at = support::attr(0, stacks);
        support::Co deep([] { dig(40 * 1000); co_yield_ct(); }, &at), shallow([] { co_yield_ct(); }, &at);
        deep.resume();
        shallow.resume();
        co_info_t info = info_of(deep.get());
        EXPECT_EQ(info.on_copy_stack, 1);
        EXPECT_EQ(info.stack_size, 128u * 1024);
        EXPECT_GE(info.stack_most, 40u * 1000);
        EXPECT_LE(info.stack_most, 44u * 1000);
        EXPECT_GT(info.stack_used, 0u);
        EXPECT_LE(info.stack_used, deep.get()->save_size);
        EXPECT_GT(info.stack_used + 16, deep.get()->save_size);
        EXPECT_EQ(info_of(shallow.get()).stack_most, info.stack_most);
    });
}

TEST(Info, AnotherThreadsCoroutinesAndMainOneAreToldFromOutside)
{
    support::Pipe begun, over, waits_at;
    stCoRoutine_t *co = nullptr, *main = nullptr;
    int thread = 0;
    std::thread other([&] {
        support::Co waits([&] { support::poll_one(waits_at.rd, 60000); });
        waits.resume();
        co = waits.get();
        main = co_self();
        thread = this_thread();
        begun.put();
        char byte;
        if (read(over.rd, &byte, 1) != 1) {
            std::abort();
        }
    });
    char byte;
    ASSERT_EQ(read(begun.rd, &byte, 1), 1);
    co_info_t info = info_of(co);
    EXPECT_EQ(info.state, CO_STATE_WAITING);
    EXPECT_EQ(info.waits_for, CO_WAITS_DESCRIPTOR);
    EXPECT_EQ(info.descriptor, waits_at.rd);
    EXPECT_EQ(info.thread, thread);
    EXPECT_GT(info.stack_used, 0u);
    EXPECT_EQ(info.stack_most, 0u);
    info = info_of(main);
    EXPECT_EQ(info.state, CO_STATE_RUNNING);
    EXPECT_EQ(info.is_main, 1);
    EXPECT_EQ(info.thread, thread);
    over.put();
    other.join();
}

TEST(Info, BadArgumentsAreRefused)
{
    support::Co co([] {});
    co_info_t info;
    info.size = sizeof info;
    errno = 0;
    EXPECT_EQ(co_info(nullptr, &info), -1);
    EXPECT_EQ(errno, EINVAL);
    EXPECT_EQ(co_info(co.get(), nullptr), -1);
    info.size = sizeof info - 1;
    errno = 0;
    EXPECT_EQ(co_info(co.get(), &info), -1);
    EXPECT_EQ(errno, EINVAL);
    errno = 0;
    EXPECT_EQ(co_walk(CO_THIS_THREAD, nullptr, nullptr), -1);
    EXPECT_EQ(errno, EINVAL);
    const pfn_co_walk_t each = [](stCoRoutine_t *, const co_info_t *, void *) { return 0; };
    EXPECT_EQ(co_walk(2, each, nullptr), -1);
}

// ---- the walk ---------------------------------------------------------------------------------

int walk(int whose, const std::function<int(stCoRoutine_t *, const co_info_t &)> &each)
{
    return co_walk(
        whose,
        [](stCoRoutine_t *co, const co_info_t *info, void *each) {
            EXPECT_EQ(info->co, co);
            EXPECT_EQ(info->size, sizeof *info);
            return (*static_cast<const std::function<int(stCoRoutine_t *, const co_info_t &)> *>(each))(co, *info);
        },
        const_cast<void *>(static_cast<const void *>(&each)));
}

std::map<stCoRoutine_t *, int> seen(int whose)
{
    std::map<stCoRoutine_t *, int> times;
    EXPECT_EQ(walk(whose, [&](stCoRoutine_t *co, const co_info_t &) {
        ++times[co];
        return 0;
    }),
              0);
    return times;
}

TEST(Walk, NamesEachOfTheThreadsCoroutinesOnce)
{
    support::on_thread([] {
        EXPECT_TRUE(seen(CO_THIS_THREAD).empty());
        std::vector<std::unique_ptr<support::Co>> many;
        for (int i = 0; i < 1000; ++i) {
            many.push_back(std::make_unique<support::Co>([] { co_yield_ct(); }));
        }
        for (int i = 0; i < 1000; i += 3) {
            many[i].reset(); // some are kept whole for the next, some go back
        }
        std::map<stCoRoutine_t *, int> expected;
        for (const auto &co : many) {
            if (co != nullptr) {
                expected[co->get()] = 1;
            }
        }
        EXPECT_EQ(seen(CO_THIS_THREAD), expected);
    });
}

TEST(Walk, EndsWhenTheFunctionSaysSoAndReturnsItsWord)
{
    support::on_thread([] {
        std::vector<std::unique_ptr<support::Co>> many;
        for (int i = 0; i < 50; ++i) {
            many.push_back(std::make_unique<support::Co>([] {}));
        }
        int calls = 0;
        EXPECT_EQ(walk(CO_THIS_THREAD, [&](stCoRoutine_t *, const co_info_t &) { return ++calls == 20 ? 4711 : 0; }), 4711);
        EXPECT_EQ(calls, 20);
    });
}

TEST(Walk, TheFunctionMayReleaseWhomItIsCalledForAndOthersAndMakeNewOnes)
{
    support::on_thread([] {
        std::set<stCoRoutine_t *> live;
        const auto make = [&] {
            stCoRoutine_t *co = nullptr;
            co_create(&co, nullptr, [](void *) -> void * { return nullptr; }, nullptr);
            live.insert(co);
            return co;
        };
        for (int i = 0; i < 2000; ++i) {
            make();
        }
        int calls = 0;
        walk(CO_THIS_THREAD, [&](stCoRoutine_t *co, const co_info_t &) {
            EXPECT_EQ(live.count(co), 1u) << "named, but released";
            ++calls;
            live.erase(co);
            co_release(co);
            if (!live.empty()) { // another one, wherever it is
                stCoRoutine_t *other = calls % 2 == 0 ? *live.begin() : *live.rbegin();
                live.erase(other);
                co_release(other);
            }
            if (calls % 10 == 0) {
                make();
            }
            return 0;
        });
        EXPECT_GE(calls, 700);
        EXPECT_LE(calls, 1500);
        std::map<stCoRoutine_t *, int> expected;
        for (stCoRoutine_t *co : live) {
            expected[co] = 1;
        }
        EXPECT_EQ(seen(CO_THIS_THREAD), expected);
        for (stCoRoutine_t *co : live) {
            co_release(co);
        }
    });
}

TEST(Walk, TheFunctionMayResumeWaitAndThrow)
{
    support::on_thread([] {
        support::Co a([] { co_yield_ct(); }), b([] { co_yield_ct(); });
        walk(CO_THIS_THREAD, [&](stCoRoutine_t *co, const co_info_t &info) {
            EXPECT_EQ(info.state, CO_STATE_NEW);
            co_resume(co);
            return 0;
        });
        walk(CO_THIS_THREAD, [&](stCoRoutine_t *, const co_info_t &info) {
            EXPECT_EQ(info.state, CO_STATE_SUSPENDED);
            return 0;
        });
        EXPECT_THROW(walk(CO_THIS_THREAD, [](stCoRoutine_t *, const co_info_t &) -> int { throw 7; }), int);
        int named = 0;
        bool done = false;
        support::Co walks([&] {
            walk(CO_ALL_THREADS, [&](stCoRoutine_t *co, const co_info_t &info) {
                named += co == a.get() || co == b.get() || co == co_self();
                EXPECT_EQ(info.state == CO_STATE_RUNNING, co == co_self());
                support::poll_one(-1, 1); // the walk goes on from the loop
                return 0;
            });
            done = true;
        });
        walks.resume();
        ASSERT_TRUE(support::loop_until([&] { return done; }));
        EXPECT_EQ(named, 3);
    });
}

TEST(Walk, OverAllThreadsItNamesTheOthersCoroutinesAndThoseThatEndedThreadsLeft)
{
    const auto before = seen(CO_ALL_THREADS);
    stCoRoutine_t *left = nullptr;
    support::on_thread([&] {
        support::Co co([] { co_yield_ct(); });
        co.resume();
        left = co.forget();
    });
    support::Pipe begun, over;
    stCoRoutine_t *theirs = nullptr;
    int thread = 0;
    std::thread other([&] {
        support::Co co([&] { support::poll_one(over.rd, -1); });
        co.resume();
        theirs = co.get();
        thread = this_thread();
        begun.put();
        ASSERT_TRUE(support::loop_until([&] { return co.ended(); }));
    });
    char byte;
    ASSERT_EQ(read(begun.rd, &byte, 1), 1);
    support::Co mine([] {});
    auto expected = before;
    expected[left] = expected[theirs] = expected[mine.get()] = 1;
    EXPECT_EQ(seen(CO_ALL_THREADS), expected);
    walk(CO_ALL_THREADS, [&](stCoRoutine_t *co, const co_info_t &info) {
        if (co == left) {
            EXPECT_EQ(info.thread, 0);
            EXPECT_EQ(info.state, CO_STATE_SUSPENDED);
        } else if (co == theirs) {
            EXPECT_EQ(info.thread, thread);
            EXPECT_EQ(info.descriptor, over.rd);
            EXPECT_EQ(info_of(co).thread, thread);
        } else if (co == mine.get()) {
            EXPECT_EQ(info.thread, this_thread());
            EXPECT_EQ(info.state, CO_STATE_NEW);
        }
        return 0;
    });
    EXPECT_EQ(seen(CO_THIS_THREAD).count(theirs), 0u);
    over.put();
    other.join();
    co_release(left);
    expected = before;
    expected[mine.get()] = 1;
    EXPECT_EQ(seen(CO_ALL_THREADS), expected);
    co_info_t info;
    info.size = sizeof info;
    errno = 0;
    EXPECT_EQ(co_info(theirs, &info), -1);
    EXPECT_EQ(errno, ESRCH);
}

TEST(Walk, GoesOnWhileOtherThreadsCreateRunAndRelease)
{
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) {
        threads.emplace_back([&stop, i] {
            const stCoRoutineAttr_t small = support::attr(16 * 1024);
            while (!stop) {
                std::vector<std::unique_ptr<support::Co>> many;
                for (int n = 0; n < 200 * (i + 1); ++n) {
                    many.push_back(std::make_unique<support::Co>([] { support::poll_one(-1, 60000); }, n % 2 ? &small : nullptr));
                    many.back()->resume();
                }
            }
        });
    }
    support::Co mine([] { co_yield_ct(); });
    mine.resume();
    long named = 0;
    for (const long long end = support::now_ms() + 20000; named < 50000 && support::now_ms() < end;) {
        int times = 0;
        walk(CO_ALL_THREADS, [&](stCoRoutine_t *co, const co_info_t &info) {
            times += co == mine.get();
            ++named;
            EXPECT_GE(info.state, CO_STATE_NEW);
            EXPECT_LE(info.state, CO_STATE_ENDED);
            EXPECT_LE(info.stack_used, info.stack_size);
            if (named % 64 == 0) {
                co_info_t again;
                again.size = sizeof again;
                if (co_info(co, &again) != 0) {
                    EXPECT_EQ(errno, ESRCH);
                }
            }
            return 0;
        });
        EXPECT_EQ(times, 1);
    }
    stop = true;
    for (std::thread &thread : threads) {
        thread.join();
    }
    EXPECT_GE(named, 50000);
}

} // namespace
#endif
