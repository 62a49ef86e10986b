// co_release (co_free): of one that ended, never ran, is suspended or runs; from anywhere.
#include "support.h"

#include <memory>

using namespace support;

TEST(CoRelease, OneThatEndedIsFreed)
{
    EXPECT_LT(growth_of(3000,
                        [] {
                            Co co([] {});
                            co.resume();
                            EXPECT_TRUE(co.ended());
                        }),
              4 * 1024);
}

TEST(CoRelease, OneThatNeverRanIsFreedAndNeverRuns)
{
    int runs = 0;
    EXPECT_LT(growth_of(3000, [&] { Co co([&] { ++runs; }); }), 4 * 1024);
    EXPECT_EQ(runs, 0);
}

TEST(CoRelease, OneThatIsSuspendedIsFreedWithoutRunningDestructors)
{
    int ends = 0;
    EXPECT_LT(growth_of(3000,
                        [&] {
                            Co co([&] {
                                CountsEnds guard{&ends};
                                co_yield_ct();
                            });
                            co.resume();
                        }),
              4 * 1024);
    EXPECT_EQ(ends, 0);
}

TEST(CoRelease, CoFreeIsTheSame)
{
    EXPECT_LT(growth_of(3000,
                        [] {
                            Co co([] { co_yield_ct(); });
                            co.resume();
                            co_free(co.forget());
                        }),
              4 * 1024);
}

TEST(CoRelease, WorksFromInsideAnotherCoroutine)
{
    bool done = false;
    Co victim([] { co_yield_ct(); });
    victim.resume();
    Co other([&] {
        victim.release();
        co_yield_ct();
        done = true;
    });
    other.resume();
    other.resume();
    EXPECT_TRUE(done);
}

TEST(CoRelease, WorksFromAnotherThreadWhileTheCreatorLives)
{
    stCoRoutine_t *co = nullptr;
    Pipe made;
    Pipe released;
    bool still_works = false;
    std::thread creator([&] {
        Co mine([] { co_yield_ct(); });
        mine.resume();
        co = mine.forget();
        made.put();
        char c;
        EXPECT_EQ(::read(released.rd, &c, 1), 1);
        Co next([&] { still_works = true; });
        next.resume();
    });
    char c;
    EXPECT_EQ(::read(made.rd, &c, 1), 1);
    co_release(co);
    released.put();
    creator.join();
    EXPECT_TRUE(still_works);
}

TEST(CoRelease, WorksFromAThreadWithNoEnvironment)
{
    Co co([] { co_yield_ct(); });
    co.resume();
    stCoRoutine_t *raw = co.forget();
    on_thread([raw] { co_release(raw); });
    int runs = 0;
    Co next([&] { ++runs; });
    next.resume();
    EXPECT_EQ(runs, 1);
}

TEST(CoRelease, WorksAfterTheCreatingThreadEndedAndItsStacksLiveOn)
{
    std::vector<stCoRoutine_t *> left;
    std::vector<const volatile int *> locals;
    on_thread([&] {
        for (int i = 0; i < 50; ++i) {
            Co co([&locals, i] {
                volatile int local = i * 3;
                locals.push_back(&local);
                co_yield_ct();
                locals.push_back(&local);
            });
            if (i % 2 == 0) {
                co.resume();
            }
            left.push_back(co.forget());
        }
    });
    // Other threads and coroutines come and go meanwhile.
    for (int i = 0; i < 20; ++i) {
        on_thread([] {
            Co co([] { co_yield_ct(); });
            co.resume();
        });
    }
    ASSERT_EQ(locals.size(), 25u);
    for (int i = 0; i < 25; ++i) {
        EXPECT_EQ(*locals[static_cast<size_t>(i)], i * 2 * 3);
    }
    for (stCoRoutine_t *co : left) {
        co_release(co);
    }
}

namespace {

struct ReleasesAtThreadExit {
    std::vector<std::unique_ptr<Co>> held;
    ~ReleasesAtThreadExit()
    {
        for (auto &co : held) {
            co->release();
        }
    }
};

thread_local ReleasesAtThreadExit t_holder;

} // namespace

TEST(CoRelease, WorksInACxxThreadLocalDestructorAtThreadExit)
{
    for (int i = 0; i < 20; ++i) {
        on_thread([] {
            for (int j = 0; j < 6; ++j) {
                t_holder.held.push_back(std::make_unique<Co>([] { co_yield_ct(); }));
                if (j % 3 != 0) {
                    t_holder.held.back()->resume();
                }
                if (j % 3 == 2) {
                    t_holder.held.back()->resume();
                }
            }
        });
    }
}

TEST(CoRelease, WorksInAPthreadKeyDestructorWhicheverKeyCameFirst)
{
    // The destructors run in the order of the keys, which the library's own may be among.
    static std::vector<pthread_key_t> keys;
    for (int i = 0; i < 8; ++i) {
        pthread_key_t key;
        ASSERT_EQ(pthread_key_create(
                      &key, [](void *co) { co_release(static_cast<stCoRoutine_t *>(co)); }),
                  0);
        keys.push_back(key);
    }
    for (int i = 0; i < 20; ++i) {
        on_thread([] {
            for (pthread_key_t key : keys) {
                Co co([] { co_yield_ct(); });
                co.resume();
                pthread_setspecific(key, co.forget());
            }
        });
    }
    for (pthread_key_t key : keys) {
        pthread_key_delete(key);
    }
    keys.clear();
}

TEST(CoRelease, WorksInADestructorAfterManyRoundsOfKeyDestructors)
{
    static pthread_key_t key;
    static int rounds;
    ASSERT_EQ(pthread_key_create(&key,
                                 [](void *co) {
                                     if (++rounds < 3) {
                                         pthread_setspecific(key, co);
                                     } else {
                                         co_release(static_cast<stCoRoutine_t *>(co));
                                     }
                                 }),
              0);
    on_thread([] {
        Co co([] { co_yield_ct(); });
        co.resume();
        pthread_setspecific(key, co.forget());
    });
    EXPECT_EQ(rounds, 3);
    pthread_key_delete(key);
}

MENDED(CoRelease, NullIsANoOp)
{
    co_release(nullptr);
    co_free(nullptr);
    int runs = 0;
    Co co([&] { ++runs; });
    co.resume();
    EXPECT_EQ(runs, 1);
}

MENDED(CoRelease, OfItselfFreesItWhenItYields)
{
    int went_on = 0;
    int ends = 0;
    EXPECT_LT(growth_of(5000,
                        [&] {
                            Co co([&] {
                                CountsEnds guard{&ends};
                                co_release(co_self());
                                ++went_on;
                                co_yield_ct();
                                ++ends;
                            });
                            co.resume();
                            co.forget();
                        }),
              4 * 1024);
    EXPECT_EQ(went_on, 10000);
    EXPECT_EQ(ends, 0);
}

MENDED(CoRelease, OfItselfFreesItWhenItEnds)
{
    int went_on = 0;
    int ends = 0;
    EXPECT_LT(growth_of(5000,
                        [&] {
                            Co co([&] {
                                CountsEnds guard{&ends};
                                co_release(co_self());
                                ++went_on;
                            });
                            co.resume();
                            co.forget();
                        }),
              4 * 1024);
    EXPECT_EQ(went_on, 10000);
    EXPECT_EQ(ends, 10000);
}

MENDED(CoRelease, OfOnesResumerFreesItWhenItEnds)
{
    int went_on = 0;
    EXPECT_LT(growth_of(3000,
                        [&] {
                            Co *outer_co = nullptr;
                            Co inner([&] {
                                outer_co->release();
                                co_yield_ct();
                                ++went_on;
                            });
                            Co outer([&] {
                                inner.resume();
                                ++went_on;
                                inner.resume();
                                ++went_on;
                            });
                            outer_co = &outer;
                            outer.resume();
                        }),
              4 * 1024);
    EXPECT_EQ(went_on, 6000 * 3);
}

MENDED(CoRelease, OfOnesResumerFreesItWhenItYields)
{
    int went_on = 0;
    EXPECT_LT(growth_of(3000,
                        [&] {
                            Co *outer_co = nullptr;
                            Co inner([&] { outer_co->release(); });
                            Co outer([&] {
                                inner.resume();
                                ++went_on;
                                co_yield_ct();
                                went_on += 1000000;
                            });
                            outer_co = &outer;
                            outer.resume();
                        }),
              4 * 1024);
    EXPECT_EQ(went_on, 6000);
}

MENDED(CoRelease, OneThatIsResumedAllTheSameStaysWhereItIsWhileNobodyHasItsPlace)
{
    int ran = 0;
    Co co([&] {
        ++ran;
        co_yield_ct();
        ++ran;
    });
    co.resume();
    stCoRoutine_t *released = co.forget();
    co_release(released);
    co_resume(released);
    EXPECT_EQ(ran, 1);
}
