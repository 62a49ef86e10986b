// co_setspecific, co_getspecific and CO_ROUTINE_SPECIFIC.
#include "support.h"

#include "co_routine_specific.h"

#include <memory>

using namespace support;

namespace {

// Programs write the macro with and without a semicolon.
struct Tally {
    int count;
    char text[100];
};
CO_ROUTINE_SPECIFIC(Tally, g_tally)

struct Other {
    long value;
};
CO_ROUTINE_SPECIFIC(Other, g_other);

} // namespace

TEST(Specifics, EachCoroutineHasItsOwnValues)
{
    std::vector<std::unique_ptr<Co>> all;
    std::vector<long> values(10);
    int right = 0;
    for (size_t i = 0; i < 10; ++i) {
        all.push_back(std::make_unique<Co>([i, &values, &right] {
            EXPECT_EQ(co_getspecific(3), nullptr);
            EXPECT_EQ(co_setspecific(3, &values[i]), 0);
            co_yield_ct();
            right += co_getspecific(3) == &values[i];
        }));
        all.back()->resume();
    }
    for (auto &co : all) {
        co->resume();
    }
    EXPECT_EQ(right, 10);
}

TEST(Specifics, EveryKeyBelow1024HoldsItsOwnValue)
{
    static char values[1024];
    int right = 0;
    Co co([&] {
        for (pthread_key_t k = 0; k < 1024; ++k) {
            EXPECT_EQ(co_setspecific(k, &values[k]), 0);
        }
        co_yield_ct();
        for (pthread_key_t k = 0; k < 1024; ++k) {
            right += co_getspecific(k) == &values[k];
        }
    });
    co.resume();
    co.resume();
    EXPECT_EQ(right, 1024);
}

TEST(Specifics, KeysThatWereNeverSetAreNull)
{
    int null = 0;
    Co co([&] {
        co_setspecific(500, &null);
        for (pthread_key_t k = 0; k < 1024; ++k) {
            null += co_getspecific(k) == nullptr;
        }
    });
    co.resume();
    EXPECT_EQ(null, 1023);
}

TEST(Specifics, AValueMayBeReplacedAndClearedAgain)
{
    int a = 0;
    int b = 0;
    Co co([&] {
        for (pthread_key_t key : {0u, 1u, 1023u}) {
            co_setspecific(key, &a);
            co_setspecific(key, &b);
            EXPECT_EQ(co_getspecific(key), &b);
            co_setspecific(key, nullptr);
            EXPECT_EQ(co_getspecific(key), nullptr);
        }
    });
    co.resume();
    EXPECT_TRUE(co.ended());
}

TEST(Specifics, OnTheMainCoroutineTheyAreTheThreads)
{
    pthread_key_t key;
    ASSERT_EQ(pthread_key_create(&key, nullptr), 0);
    co_get_epoll_ct(); // makes the environment
    int a = 0;
    int b = 0;
    EXPECT_EQ(co_setspecific(key, &a), 0);
    EXPECT_EQ(pthread_getspecific(key), &a);
    pthread_setspecific(key, &b);
    EXPECT_EQ(co_getspecific(key), &b);
    pthread_key_delete(key);
}

TEST(Specifics, OnTheMainCoroutineAKeyThatPthreadRefusesIsRefused)
{
    co_get_epoll_ct();
    int value = 0;
    EXPECT_EQ(co_setspecific(5000, &value), EINVAL);
    EXPECT_EQ(co_getspecific(5000), nullptr);
}

TEST(Specifics, WithoutAnEnvironmentTheyAreTheThreads)
{
    pthread_key_t key;
    ASSERT_EQ(pthread_key_create(&key, nullptr), 0);
    on_thread([key] {
        int a = 0;
        EXPECT_EQ(co_setspecific(key, &a), 0);
        EXPECT_EQ(pthread_getspecific(key), &a);
        EXPECT_EQ(co_getspecific(key), &a);
        EXPECT_EQ(co_get_curr_thread_env(), nullptr);
    });
    pthread_key_delete(key);
}

TEST(Specifics, ACoroutineDoesNotSeeTheThreads)
{
    pthread_key_t key;
    ASSERT_EQ(pthread_key_create(&key, nullptr), 0);
    int of_thread = 0;
    int of_coroutine = 0;
    void *seen = &of_thread;
    Co co([&] {
        seen = co_getspecific(key);
        co_setspecific(key, &of_coroutine);
    });
    co_setspecific(key, &of_thread);
    co.resume();
    EXPECT_EQ(seen, nullptr);
    EXPECT_EQ(co_getspecific(key), &of_thread);
    EXPECT_EQ(pthread_getspecific(key), &of_thread);
    pthread_setspecific(key, nullptr);
    pthread_key_delete(key);
}

TEST(Specifics, ValuesAreReadableAfterRelease)
{
    int *in_heap = new int(77);
    Co co([&] {
        co_setspecific(0, in_heap);
        co_setspecific(700, in_heap);
        co_yield_ct();
    });
    co.resume();
    co.release();
    EXPECT_EQ(*in_heap, 77);
    delete in_heap;
}

TEST(Specifics, ReleaseDoesNotRunTheDestructorsOfTheKeys)
{
    static int destroyed;
    destroyed = 0;
    pthread_key_t key;
    ASSERT_EQ(pthread_key_create(&key, [](void *) { ++destroyed; }), 0);
    on_thread([key] {
        int value = 0;
        Co co([&] { co_setspecific(key, &value); });
        co.resume();
    });
    EXPECT_EQ(destroyed, 0);
    pthread_key_delete(key);
}

TEST(Specifics, ANestedCoroutineUsesItsOwn)
{
    int outer_value = 0;
    int inner_value = 0;
    Co outer([&] {
        co_setspecific(9, &outer_value);
        Co inner([&] {
            EXPECT_EQ(co_getspecific(9), nullptr);
            co_setspecific(9, &inner_value);
        });
        inner.resume();
        EXPECT_EQ(co_getspecific(9), &outer_value);
    });
    outer.resume();
    EXPECT_TRUE(outer.ended());
}

TEST(SpecificMacro, GivesEachCoroutineAZeroedObject)
{
    std::vector<Tally *> objects;
    const auto body = [&objects](int by) {
        EXPECT_EQ(g_tally->count, 0);
        EXPECT_EQ(g_tally->text[99], '\0');
        for (int i = 0; i < 3; ++i) {
            g_tally->count += by;
            co_yield_ct();
        }
        objects.push_back(g_tally.operator->());
    };
    Co a([&] { body(1); });
    Co b([&] { body(10); });
    for (int i = 0; i < 4; ++i) {
        a.resume();
        b.resume();
    }
    ASSERT_EQ(objects.size(), 2u);
    EXPECT_EQ(objects[0]->count, 3);
    EXPECT_EQ(objects[1]->count, 30);
    a.release();
    EXPECT_EQ(objects[0]->count, 3) << "the value belongs to the program";
    free(objects[0]);
    free(objects[1]);
}

TEST(SpecificMacro, TwoOfThemDoNotMix)
{
    Co co([] {
        g_tally->count = 1;
        g_other->value = 2;
        EXPECT_EQ(g_tally->count, 1);
        EXPECT_EQ(g_other->value, 2);
        free(g_tally.operator->());
        free(g_other.operator->());
    });
    co.resume();
    EXPECT_TRUE(co.ended());
}

TEST(SpecificMacro, OnTheMainCoroutineItIsTheThreads)
{
    on_thread([] {
        co_get_epoll_ct();
        g_tally->count = 5;
        Co co([] {
            g_tally->count += 1;
            EXPECT_EQ(g_tally->count, 1);
            free(g_tally.operator->());
        });
        co.resume();
        EXPECT_EQ(g_tally->count, 5);
        free(g_tally.operator->());
    });
}

TEST(SpecificMacro, WithoutAnEnvironmentItIsTheThreads)
{
    on_thread([] {
        g_tally->count = 4;
        EXPECT_EQ(g_tally->count, 4);
        free(g_tally.operator->());
    });
}

MENDED(Specifics, AKeyOf1024OrMoreIsRefused)
{
    int value = 0;
    Co co([&] {
        for (pthread_key_t key : {1024u, 1025u, 100000u, UINT_MAX}) {
            EXPECT_EQ(co_setspecific(key, &value), EINVAL);
            EXPECT_EQ(co_getspecific(key), nullptr);
        }
    });
    co.resume();
    EXPECT_TRUE(co.ended());
}

TEST(Specifics, TheirMemoryIsFreedWithTheCoroutine)
{
    const auto round = [] {
        for (int i = 0; i < 2000; ++i) {
            Co co([&] {
                for (pthread_key_t k = 0; k < 1024; k += 100) {
                    co_setspecific(k, &k);
                }
            });
            co.resume();
        }
    };
    round();
    const long before = status_kib("VmRSS:");
    round();
    round();
    EXPECT_LT(status_kib("VmRSS:") - before, 4 * 1024);
}
