// co_reset: in every state a coroutine can be in.
#include "support.h"

using namespace support;

TEST(CoReset, AnEndedCoroutineRunsTheSameRoutineAndArgumentAgain)
{
    int runs = 0;
    Co co([&] { ++runs; });
    void *arg = co.get()->arg;
    for (int i = 1; i <= 10; ++i) {
        co.resume();
        EXPECT_TRUE(co.ended());
        EXPECT_EQ(runs, i);
        co.reset();
        EXPECT_FALSE(co.ended());
        EXPECT_EQ(co.get()->arg, arg);
    }
}

TEST(CoReset, ASuspendedCoroutineStartsFromTheBeginning)
{
    std::string trace;
    Co co([&] {
        trace += "a";
        co_yield_ct();
        trace += "b";
    });
    co.resume();
    co.reset();
    co.resume();
    EXPECT_EQ(trace, "aa");
    co.resume();
    EXPECT_EQ(trace, "aab");
    EXPECT_TRUE(co.ended());
}

TEST(CoReset, AbandonsTheFramesWithoutRunningDestructors)
{
    int ends = 0;
    Co co([&] {
        CountsEnds guard{&ends};
        co_yield_ct();
    });
    co.resume();
    co.reset();
    EXPECT_EQ(ends, 0);
    co.resume();
    co.resume();
    EXPECT_EQ(ends, 1);
}

TEST(CoReset, OnItselfTakesEffectAtItsEnd)
{
    std::string trace;
    Co co([&] {
        trace += "a";
        co_reset(co_self());
        trace += "b";
    });
    co.resume();
    EXPECT_EQ(trace, "ab");
    co.resume();
    EXPECT_EQ(trace, "abab");
}

TEST(CoReset, OnARunningResumerTakesEffectAtItsEnd)
{
    std::string trace;
    Co *outer_co = nullptr;
    Co inner([&] {
        trace += "i";
        outer_co->reset();
        co_reset(co_self());
    });
    Co outer([&] {
        trace += "o";
        inner.resume();
        trace += "p";
    });
    outer_co = &outer;
    outer.resume();
    EXPECT_EQ(trace, "oip");
    outer.resume();
    EXPECT_EQ(trace, "oipoip");
}

TEST(CoReset, KeepsTheHookFlag)
{
    std::vector<bool> seen;
    Co co([&] {
        seen.push_back(co_is_enable_sys_hook());
        co_enable_hook_sys();
        co_yield_ct();
    });
    co.resume();
    co.reset();
    EXPECT_EQ(co.get()->cEnableSysHook, 1);
    co.resume();
    EXPECT_EQ(seen, (std::vector<bool>{false, true}));
}

TEST(CoReset, KeepsTheSpecifics)
{
    int value = 0;
    std::vector<void *> seen;
    Co co([&] {
        seen.push_back(co_getspecific(5));
        co_setspecific(5, &value);
        co_setspecific(900, &seen);
        seen.push_back(co_getspecific(900));
    });
    co.resume();
    co.reset();
    co.resume();
    ASSERT_EQ(seen.size(), 4u);
    EXPECT_EQ(seen[0], nullptr);
    EXPECT_EQ(seen[2], &value);
    EXPECT_EQ(seen[3], &seen);
}

TEST(CoReset, KeepsTheEnvironmentList)
{
    const char *names[] = {"COLIB_TEST_RESET_NAME"};
    co_set_env_list(names, 1);
    std::vector<std::string> seen;
    Co co([&] {
        co_enable_hook_sys();
        const char *value = getenv("COLIB_TEST_RESET_NAME");
        seen.emplace_back(value == nullptr ? "(unset)" : value);
        setenv("COLIB_TEST_RESET_NAME", "kept", 1);
    });
    co.resume();
    co.reset();
    co.resume();
    EXPECT_EQ(seen, (std::vector<std::string>{"(unset)", "kept"}));
}

TEST(CoReset, OneThatNeverStartedIsANoOp)
{
    int runs = 0;
    Co co([&] { ++runs; });
    co.reset();
    EXPECT_EQ(runs, 0);
    EXPECT_EQ(co.get()->cStart, 0);
    co.resume();
    EXPECT_EQ(runs, 1);
    EXPECT_TRUE(co.ended());
}

TEST(CoReset, OnTheMainCoroutineIsANoOp)
{
    int runs = 0;
    Co co([&] {
        ++runs;
        co_yield_ct();
        ++runs;
    });
    co.resume();
    stCoRoutine_t *main_co = co_self();
    co_reset(main_co);
    co.resume();
    EXPECT_EQ(runs, 2);
    EXPECT_EQ(co_self(), main_co);
}

TEST(CoReset, WorksFromInsideAnotherCoroutine)
{
    std::string trace;
    Co target([&] {
        trace += "a";
        co_yield_ct();
        trace += "b";
    });
    target.resume();
    Co other([&] {
        target.reset();
        target.resume();
    });
    other.resume();
    EXPECT_EQ(trace, "aa");
}

TEST(CoReset, AThousandResetsHalfWayLeaveNoMemoryBehind)
{
    Co co([] { co_yield_ct(); });
    EXPECT_LT(growth_of(20000,
                        [&] {
                            co.resume();
                            co.reset();
                        }),
              2 * 1024);
}

MENDED(CoReset, WhileWaitingInPollTakesItOffTheDescriptor)
{
    Pipe pipe_;
    int begun = 0;
    int finished = 0;
    Co co([&] {
        ++begun;
        if (begun == 1) {
            poll_one(pipe_.rd, 10000);
            ++finished;
        }
        co_yield_ct();
        ++finished;
    });
    co.resume();
    co.reset();
    pipe_.put();
    loop_rounds(5);
    EXPECT_EQ(begun, 1) << "the event reached a coroutine that was reset";
    co.resume();
    EXPECT_EQ(begun, 2);
    loop_rounds(5);
    EXPECT_EQ(finished, 0) << "the event resumed a coroutine that no longer waits";
    co.resume();
    EXPECT_EQ(finished, 1);
}

MENDED(CoReset, WhileWaitingInPollTakesItOffTheTimer)
{
    Pipe pipe_;
    int begun = 0;
    int went_on = 0;
    Co co([&] {
        if (++begun == 1) {
            poll_one(pipe_.rd, 20);
        } else {
            co_yield_ct();
        }
        ++went_on;
    });
    co.resume();
    co.reset();
    co.resume();
    bool later = false;
    Co timer([&] {
        poll_one(pipe_.rd, 60);
        later = true;
    });
    timer.resume();
    EXPECT_TRUE(loop_until([&] { return later; }));
    EXPECT_EQ(begun, 2);
    EXPECT_EQ(went_on, 0);
}

MENDED(CoReset, WhileWaitingInPollMayWaitForTheSameDescriptorAgain)
{
    Pipe pipe_;
    std::vector<int> results;
    Co co([&] { results.push_back(poll_one(pipe_.rd, 10000)); });
    co.resume();
    for (int i = 0; i < 3; ++i) {
        co.reset();
        co.resume();
    }
    EXPECT_TRUE(results.empty());
    pipe_.put();
    EXPECT_TRUE(loop_until([&] { return co.ended(); }));
    EXPECT_EQ(results, std::vector<int>{1});
}

MENDED(CoReset, WhileWaitingOnAConditionTakesItOffTheQueue)
{
    stCoCond_t *cond = co_cond_alloc();
    std::string trace;
    bool wait = true;
    Co first([&] {
        trace += "f";
        if (wait) {
            co_cond_timedwait(cond, 10000);
            trace += "F";
        }
    });
    Co second([&] {
        co_cond_timedwait(cond, 10000);
        trace += "S";
    });
    first.resume();
    second.resume();
    first.reset();
    co_cond_signal(cond);
    EXPECT_TRUE(loop_until([&] { return second.ended(); }));
    EXPECT_EQ(trace, "fS");
    wait = false;
    first.resume();
    EXPECT_EQ(trace, "fSf");
    co_cond_free(cond);
}

MENDED(CoReset, AfterASignalButBeforeItsTurnIsNotRunByTheLoop)
{
    stCoCond_t *cond = co_cond_alloc();
    int first_begun = 0;
    int first_woken = 0;
    bool second_woken = false;
    Co first([&] {
        ++first_begun;
        co_cond_timedwait(cond, 10000);
        ++first_woken;
    });
    Co second([&] {
        co_cond_timedwait(cond, 10000);
        second_woken = true;
    });
    first.resume();
    second.resume();
    co_cond_signal(cond);
    first.reset();
    loop_rounds(5);
    EXPECT_EQ(first_begun, 1);
    EXPECT_EQ(first_woken, 0);
    co_cond_signal(cond);
    EXPECT_TRUE(loop_until([&] { return second_woken; }));
    EXPECT_EQ(first_begun, 1);
    EXPECT_EQ(first_woken, 0);
    co_cond_free(cond);
}
