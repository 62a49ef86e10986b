// co_walk and co_info of coroutines that have been released, but not freed: kept for the next co_create, or handed over
// to the thread that has them.
#include "loop_support.h"

#ifndef COLIB_PEER
#include "co_inspect.h"
#include "co_routine_inner.h"
#include <set>

using namespace support;

namespace {

std::set<stCoRoutine_t *> walked(int whose)
{
    std::set<stCoRoutine_t *> all;
    co_walk(
        whose,
        [](stCoRoutine_t *co, const co_info_t *, void *all) {
            static_cast<std::set<stCoRoutine_t *> *>(all)->insert(co);
            return 0;
        },
        &all);
    return all;
}

int error_of_info(stCoRoutine_t *co)
{
    co_info_t info;
    info.size = sizeof info;
    return co_info(co, &info) == 0 ? 0 : errno;
}

void *waits_for_long(void *)
{
    nap(60000);
    return nullptr;
}

void expect_nobody_names_the_released(const stCoRoutineAttr_t *at)
{
    stCoRoutine_t *all[3];
    for (stCoRoutine_t *&co : all) {
        ASSERT_EQ(co_create(&co, at, waits_for_long, &co), 0);
        co_resume(co);
    }
    on_thread([&] {
        co_release(all[0]);
        co_release(all[2]);
        const auto seen = walked(CO_ALL_THREADS);
        EXPECT_EQ(seen.count(all[0]) + seen.count(all[2]), 0u);
        EXPECT_EQ(seen.count(all[1]), 1u);
        EXPECT_EQ(error_of_info(all[0]), ESRCH);
        EXPECT_EQ(error_of_info(all[1]), 0);
    });
    // Its own thread has not looked yet, and has all three.
    const auto seen = walked(CO_THIS_THREAD);
    EXPECT_EQ(seen.count(all[0]) + seen.count(all[2]), 0u);
    EXPECT_EQ(seen.count(all[1]), 1u);
    EXPECT_EQ(error_of_info(all[2]), ESRCH);
    co_info_t info;
    info.size = sizeof info;
    ASSERT_EQ(co_info(all[1], &info), 0);
    EXPECT_EQ(info.arg, &all[1]);
    loop_rounds(3);
    co_release(all[1]);
}

TEST(InspectReleased, OneThatWaitsAndAnotherThreadReleasedIsNotNamed)
{
    on_thread([] { expect_nobody_names_the_released(nullptr); });
}

TEST(InspectReleased, NorOneOnACopyStack)
{
    on_thread([] {
        const stCoRoutineAttr_t copy = attr(0, co_alloc_sharestack(2, 64 * 1024));
        expect_nobody_names_the_released(&copy);
    });
}

// Another thread that looks may see parts of a block from before and after its release: each must be one that it had.
TEST(InspectReleased, OneThatIsKeptForTheNextStillHasWhatAWalkTells)
{
    on_thread([] {
        stCoRoutine_t *all[4];
        for (stCoRoutine_t *&co : all) {
            ASSERT_EQ(co_create(&co, nullptr, waits_for_long, &co), 0);
        }
        for (stCoRoutine_t *co : all) {
            co_release(co);
        }
        // (Their memory stays: it is kept for the next.)
        for (stCoRoutine_t *&co : all) {
            EXPECT_EQ(co->arg, &co);
            EXPECT_EQ(co->pfn, &waits_for_long);
        }
        stCoRoutine_t *next = nullptr;
        ASSERT_EQ(co_create(&next, nullptr, waits_for_long, nullptr), 0);
        EXPECT_EQ(next, all[3]);
        EXPECT_EQ(next->arg, nullptr);
        EXPECT_EQ(next->stack_sp, nullptr);
        co_release(next);
    });
}

} // namespace
#endif
