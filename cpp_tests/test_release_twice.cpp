// co_release of what was released already, and not given to anybody since: refused with a message, whoever released it first and
// wherever its block is. The next coroutines are as many as were created.
#include "support.h"

#ifndef COLIB_PEER // the original frees it twice

#include <atomic>
#include <memory>
#include <set>

namespace {

using namespace support;

std::atomic<int> refused{0};

struct Listens {
    Listens()
    {
        refused = 0;
        co_set_log_handler([](const char *message) { refused += std::strstr(message, "released already: coroutine") != nullptr; });
    }
    ~Listens() { co_set_log_handler(nullptr); }
};

stCoRoutine_t *suspended(const stCoRoutineAttr_t *at = nullptr)
{
    Co co([] { co_yield_ct(); }, at);
    co.resume();
    return co.forget();
}

// Releases `co` once more. No two of the next hundred coroutines may be one, and all of them run.
void release_again(stCoRoutine_t *co, const stCoRoutineAttr_t *at = nullptr)
{
    const int before = refused;
    co_release(co);
    EXPECT_EQ(refused, before + 1);
    int ran = 0;
    std::vector<std::unique_ptr<Co>> next;
    std::set<stCoRoutine_t *> different;
    for (int i = 0; i < 100; ++i) {
        next.push_back(std::make_unique<Co>([&] { ++ran; }, at));
        different.insert(next.back()->get());
    }
    for (std::unique_ptr<Co> &each : next) {
        each->resume();
    }
    EXPECT_EQ(different.size(), 100u);
    EXPECT_EQ(ran, 100);
}

} // namespace

TEST(ReleaseTwice, OfOneThatWasKeptForTheNextIsRefused)
{
    const Listens here;
    stCoRoutine_t *co = suspended();
    co_release(co);
    release_again(co);
}

TEST(ReleaseTwice, OfOneWhoseBlockWentToThePoolIsRefused)
{
    const Listens here;
    std::vector<stCoRoutine_t *> many;
    for (int i = 0; i < 1000; ++i) {
        many.push_back(suspended());
    }
    for (stCoRoutine_t *co : many) {
        co_release(co);
    }
    for (size_t i = 0; i < many.size(); i += 100) {
        co_release(many[i]);
    }
    EXPECT_EQ(refused, 10);
    release_again(many.back());
}

TEST(ReleaseTwice, OfOneOnACopyStackIsRefused)
{
    const Listens here;
    const stCoRoutineAttr_t at = attr(0, co_alloc_sharestack(1, 64 * 1024));
    stCoRoutine_t *co = suspended(&at);
    co_release(co);
    release_again(co, &at);
}

TEST(ReleaseTwice, OfOneThatRunsIsRefused)
{
    const Listens here;
    stCoRoutine_t *self = nullptr;
    Co co([&] {
        self = co_self();
        co_release(self);
        co_release(self);
        EXPECT_EQ(refused, 1);
        on_thread([&] { co_release(self); });
        EXPECT_EQ(refused, 2);
    });
    co.resume();
    co.forget();
    release_again(self);
}

TEST(ReleaseTwice, OfOneThatAnotherThreadReleasedIsRefused)
{
    const Listens here;
    stCoRoutine_t *plain = suspended();
    int waited = -1;
    Co waits([&] { waited = poll_one(-1, 20); });
    waits.resume();
    on_thread([&] {
        co_release(plain);
        co_release(waits.get());
        co_release(waits.get());
        EXPECT_EQ(refused, 1);
    });
    // Before this thread has looked.
    co_release(waits.get());
    EXPECT_EQ(refused, 2);
    co_release(plain);
    EXPECT_EQ(refused, 3);
    loop_rounds(3);
    release_again(waits.forget());
    EXPECT_EQ(waited, -1);
}

TEST(ReleaseTwice, OfOneOfAnEndedThreadIsRefused)
{
    const Listens here;
    stCoRoutine_t *first = nullptr;
    stCoRoutine_t *second = nullptr;
    on_thread([&] {
        first = suspended();
        second = suspended();
    });
    co_release(first);
    co_release(first);
    EXPECT_EQ(refused, 1);
    co_release(second);
    release_again(second);
}

TEST(ReleaseTwice, AResumeAfterItIsRefused)
{
    const Listens here;
    std::vector<stCoRoutine_t *> many;
    int ran = 0;
    for (int i = 0; i < 1000; ++i) {
        Co co([&] { ++ran; });
        many.push_back(co.forget());
    }
    for (stCoRoutine_t *co : many) {
        co_release(co);
    }
    for (stCoRoutine_t *co : many) {
        co_resume(co);
    }
    EXPECT_EQ(ran, 0);
    release_again(many[0]);
}

#endif // COLIB_PEER
