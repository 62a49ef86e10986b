// co_resume, the yields and co_self: who runs when, and from where.
#include "support.h"

using namespace support;

namespace {

int g_messages;

[[maybe_unused]] void count_message(const char *message)
{
    if (message != nullptr && *message != '\0') {
        ++g_messages;
    }
}

// The number of messages that `body` makes the library log.
[[maybe_unused]] int messages_of(const std::function<void()> &body)
{
#ifndef COLIB_PEER
    g_messages = 0;
    co_set_log_handler(count_message);
    body();
    co_set_log_handler(nullptr);
#else
    (void)body;
#endif
    return g_messages;
}

struct Chain {
    int depth;
    int deepest;
    int returned;
};

// Each coroutine makes and runs the next one.
void *descend(void *arg)
{
    Chain *chain = static_cast<Chain *>(arg);
    if (++chain->deepest < chain->depth) {
        const stCoRoutineAttr_t at = attr(8 * 1024);
        stCoRoutine_t *next = nullptr;
        if (co_create(&next, &at, descend, arg) == 0) {
            co_resume(next);
            co_release(next);
        }
    }
    ++chain->returned;
    return nullptr;
}

} // namespace

TEST(CoResume, RunsUntilTheNextYieldAndThenTheEnd)
{
    std::string trace;
    Co co([&] {
        trace += "a";
        co_yield_ct();
        trace += "b";
        co_yield_ct();
        trace += "c";
    });
    co.resume();
    trace += "1";
    co.resume();
    trace += "2";
    EXPECT_FALSE(co.ended());
    co.resume();
    trace += "3";
    EXPECT_TRUE(co.ended());
    EXPECT_EQ(trace, "a1b2c3");
}

TEST(CoResume, PassesTheArgument)
{
    int value = 7;
    void *seen = nullptr;
    Co co([&] { seen = co_self()->arg; });
    co.resume();
    EXPECT_EQ(seen, &co);
    stCoRoutine_t *plain = nullptr;
    co_create(
        &plain, nullptr, [](void *p) -> void * { return *static_cast<int *>(p) = 8, p; }, &value);
    co_resume(plain);
    EXPECT_EQ(value, 8);
    co_release(plain);
}

TEST(CoResume, NestsAndEachYieldReturnsToItsResumer)
{
    std::string trace;
    Co inner([&] {
        trace += "i";
        co_yield_ct();
        trace += "j";
    });
    Co outer([&] {
        trace += "o";
        inner.resume();
        trace += "p";
        co_yield_ct();
        trace += "q";
        inner.resume();
        trace += "r";
    });
    outer.resume();
    trace += "m";
    outer.resume();
    EXPECT_EQ(trace, "oipmqjr");
    EXPECT_TRUE(outer.ended());
    EXPECT_TRUE(inner.ended());
}

TEST(CoResume, AYieldGoesToTheLatestResumerNotTheFirst)
{
    std::string trace;
    Co inner([&] {
        trace += "1";
        co_yield_ct();
        trace += "2";
        co_yield_ct();
        trace += "3";
    });
    Co first([&] {
        inner.resume();
        trace += "a";
    });
    Co second([&] {
        inner.resume();
        trace += "b";
    });
    first.resume();
    second.resume();
    inner.resume();
    trace += "m";
    EXPECT_EQ(trace, "1a2b3m");
}

TEST(CoResume, NestsAHundredDeep)
{
    Chain chain{100, 0, 0};
    stCoRoutine_t *co = nullptr;
    const stCoRoutineAttr_t at = attr(8 * 1024);
    ASSERT_EQ(co_create(&co, &at, descend, &chain), 0);
    co_resume(co);
    co_release(co);
    EXPECT_EQ(chain.deepest, 100);
    EXPECT_EQ(chain.returned, 100);
}

TEST(CoResume, WorksFromTheCallbackOfTheLoop)
{
    int steps = 0;
    Co co([&] {
        for (;;) {
            ++steps;
            co_yield_ct();
        }
    });
    struct State {
        Co *co;
        int *steps;
    } state{&co, &steps};
    co_eventloop(
        co_get_epoll_ct(),
        [](void *p) -> int {
            State *s = static_cast<State *>(p);
            s->co->resume();
            return *s->steps == 5 ? -1 : 0;
        },
        &state);
    EXPECT_EQ(steps, 5);
}

TEST(CoResume, ACoroutineMayCreateAndRunOthers)
{
    int ran = 0;
    Co outer([&] {
        for (int i = 0; i < 10; ++i) {
            Co inner([&] {
                ++ran;
                co_yield_ct();
                ++ran;
            });
            inner.resume();
            inner.resume();
        }
    });
    outer.resume();
    EXPECT_EQ(ran, 20);
}

TEST(CoResume, WakesACoroutineThatWaitsWithoutATimeOut)
{
    stCoCond_t *cond = co_cond_alloc();
    bool woken = false;
    Co co([&] {
        co_cond_timedwait(cond, -1);
        woken = true;
    });
    co.resume();
    EXPECT_FALSE(woken);
    co.resume();
    EXPECT_TRUE(woken);
    co_cond_free(cond);
}

TEST(CoYield, YieldsTheCurrentCoroutineWhicheverCoroutineOfTheThreadIsNamed)
{
    std::string trace;
    Co other([] {});
    Co co([&] {
        trace += "a";
        co_yield(other.get());
        trace += "b";
        co_yield(co_self());
        trace += "c";
    });
    co.resume();
    trace += "1";
    co.resume();
    trace += "2";
    co.resume();
    EXPECT_EQ(trace, "a1b2c");
    EXPECT_EQ(other.get()->cStart, 0);
}

TEST(CoYield, YieldEnvYieldsTheCurrentCoroutine)
{
    int steps = 0;
    Co co([&] {
        ++steps;
        co_yield_env(co_get_curr_thread_env());
        ++steps;
    });
    co.resume();
    EXPECT_EQ(steps, 1);
    co.resume();
    EXPECT_EQ(steps, 2);
}

TEST(CoSelf, IsNullBeforeTheThreadHasAnEnvironment)
{
    stCoRoutine_t *self = reinterpret_cast<stCoRoutine_t *>(16);
    on_thread([&] { self = co_self(); });
    EXPECT_EQ(self, nullptr);
}

TEST(CoSelf, AskingDoesNotMakeAnEnvironment)
{
    on_thread([] {
        co_self();
        EXPECT_EQ(co_get_curr_thread_env(), nullptr);
    });
}

TEST(CoSelf, IsTheMainCoroutineOutsideAny)
{
    Co co([] {});
    stCoRoutine_t *main_co = co_self();
    ASSERT_NE(main_co, nullptr);
    EXPECT_NE(main_co->cIsMain, 0);
    co.resume();
    EXPECT_EQ(co_self(), main_co);
}

TEST(CoSelf, IsTheRunningCoroutineAtEveryDepth)
{
    stCoRoutine_t *in_inner = nullptr;
    stCoRoutine_t *in_outer_after = nullptr;
    Co inner([&] {
        in_inner = co_self();
        co_yield_ct();
    });
    Co outer([&] {
        inner.resume();
        in_outer_after = co_self();
    });
    outer.resume();
    EXPECT_EQ(in_inner, inner.get());
    EXPECT_EQ(in_outer_after, outer.get());
}

TEST(CoSelf, EachThreadHasItsOwn)
{
    stCoRoutine_t *mine = nullptr;
    stCoRoutine_t *theirs = nullptr;
    Co here([&] { mine = co_self(); });
    on_thread([&] {
        Co there([&] { theirs = co_self(); });
        there.resume();
    });
    here.resume();
    EXPECT_EQ(mine, here.get());
    EXPECT_NE(theirs, nullptr);
    EXPECT_NE(theirs, mine);
}

MENDED(CoResume, NestsTenThousandDeep)
{
    Chain chain{10000, 0, 0};
    stCoRoutine_t *co = nullptr;
    const stCoRoutineAttr_t at = attr(8 * 1024);
    ASSERT_EQ(co_create(&co, &at, descend, &chain), 0);
    co_resume(co);
    EXPECT_EQ(co->cEnd, 1);
    co_release(co);
    EXPECT_EQ(chain.deepest, 10000);
    EXPECT_EQ(chain.returned, 10000);
}

MENDED(CoResume, AnEndedCoroutineIsLeftAloneAndLogged)
{
    int runs = 0;
    Co co([&] { ++runs; });
    co.resume();
    EXPECT_EQ(messages_of([&] { co.resume(); }), 1);
    EXPECT_EQ(runs, 1);
    EXPECT_TRUE(co.ended());
}

MENDED(CoResume, NullIsANoOpAndLogged)
{
    EXPECT_EQ(messages_of([] { co_resume(nullptr); }), 1);
}

MENDED(CoResume, ACoroutineResumingItselfJustGoesOnAndIsLogged)
{
    std::string trace;
    int messages = 0;
    Co co([&] {
        trace += "a";
        messages = messages_of([] { co_resume(co_self()); });
        trace += "b";
        co_yield_ct();
        trace += "c";
    });
    co.resume();
    trace += "m";
    co.resume();
    EXPECT_EQ(trace, "abmc");
    EXPECT_EQ(messages, 1);
}

MENDED(CoResume, ResumingOnesOwnResumerIsANoOpAndLogged)
{
    std::string trace;
    int messages = 0;
    Co *outer_co = nullptr;
    Co inner([&] {
        trace += "i";
        messages = messages_of([&] { outer_co->resume(); });
        trace += "j";
        co_yield_ct();
        trace += "k";
    });
    Co outer([&] {
        trace += "o";
        inner.resume();
        trace += "p";
        inner.resume();
    });
    outer_co = &outer;
    outer.resume();
    EXPECT_EQ(trace, "oijpk");
    EXPECT_TRUE(outer.ended());
    EXPECT_EQ(messages, 1);
}

MENDED(CoResume, ResumingTheMainCoroutineIsANoOp)
{
    std::string trace;
    co_get_epoll_ct(); // makes the environment
    stCoRoutine_t *main_co = co_self();
    co_resume(main_co);
    Co inside([&] {
        trace += "c";
        co_resume(main_co);
        trace += "d";
        EXPECT_NE(co_self(), main_co);
    });
    inside.resume();
    EXPECT_EQ(trace, "cd");
    EXPECT_EQ(co_self(), main_co);
}

MENDED(CoResume, FromAThreadThatDidNotCreateItIsANoOpAndLogged)
{
    int steps = 0;
    Co co([&] {
        ++steps;
        co_yield_ct();
        ++steps;
    });
    co.resume();
    int messages = 0;
    on_thread([&] { messages += messages_of([&] { co.resume(); }); });
    EXPECT_EQ(steps, 1);
    on_thread([&] {
        Co other([] {}); // a thread with an environment of its own
        messages += messages_of([&] { co.resume(); });
    });
    EXPECT_EQ(steps, 1);
    EXPECT_EQ(messages, 2);
    co.resume();
    EXPECT_EQ(steps, 2);
    EXPECT_TRUE(co.ended());
}

MENDED(CoResume, OneThatNeverRanBelongsToTheThreadThatResumesItFirst)
{
    int steps = 0;
    std::thread::id ran_on;
    Co co([&] {
        ran_on = std::this_thread::get_id();
        EXPECT_EQ(co_self(), co.get());
        ++steps;
        co_yield_ct();
        ++steps;
        EXPECT_EQ(ran_on, std::this_thread::get_id());
    });
    Pipe stepped;
    Pipe go_on;
    std::thread other([&] {
        co.resume();
        EXPECT_EQ(co.get()->env, co_get_curr_thread_env());
        stepped.put();
        char c;
        EXPECT_EQ(::read(go_on.rd, &c, 1), 1);
        co.resume();
    });
    char c;
    EXPECT_EQ(::read(stepped.rd, &c, 1), 1);
    EXPECT_EQ(steps, 1);
    co.resume(); // it is the other thread's now
    EXPECT_EQ(steps, 1);
    go_on.put();
    const std::thread::id id = other.get_id();
    other.join();
    EXPECT_EQ(steps, 2);
    EXPECT_EQ(ran_on, id);
    EXPECT_TRUE(co.ended());
}

MENDED(CoResume, OneThatWasHandedOverWaitsInTheLoopOfItsNewThread)
{
    Pipe pipe_;
    int result = -2;
    Co co([&] {
        struct pollfd p = {pipe_.rd, POLLIN, 0};
        result = co_poll(co_get_epoll_ct(), &p, 1, 5000);
    });
    on_thread([&] {
        co.resume();
        pipe_.put();
        EXPECT_TRUE(loop_until([&] { return result != -2; }, 5000));
    });
    EXPECT_EQ(result, 1);
}

MENDED(CoYield, OnTheMainCoroutineIsANoOpAndLogged)
{
    Co co([] {}); // makes the environment
    stCoRoutine_t *main_co = co_self();
    EXPECT_EQ(messages_of([] { co_yield_ct(); }), 1);
    EXPECT_EQ(messages_of([&] { co_yield(main_co); }), 1);
    EXPECT_EQ(messages_of([&] { co_yield(co.get()); }), 1);
    EXPECT_EQ(messages_of([] { co_yield_env(co_get_curr_thread_env()); }), 1);
    EXPECT_EQ(co_self(), main_co);
    co.resume();
    EXPECT_TRUE(co.ended());
}

MENDED(CoYield, WithNoEnvironmentIsANoOpAndLogged)
{
    int messages = 0;
    on_thread([&] {
        messages += messages_of([] { co_yield_ct(); });
        messages += messages_of([] { co_yield_env(nullptr); });
        EXPECT_EQ(co_get_curr_thread_env(), nullptr);
    });
    EXPECT_EQ(messages, 2);
}

MENDED(CoYield, HasASecondNameForCxx20)
{
    std::string trace;
    Co co([&] {
        trace += "a";
        co_yield_co(co_self());
        trace += "b";
    });
    co.resume();
    trace += "m";
    co.resume();
    EXPECT_EQ(trace, "amb");
}
