// The inner functions that programs call: loops and environments of their own, co_poll_inner.
#include "support.h"

using namespace support;

namespace {

// As loop_until, on a given loop.
bool run_loop(stCoEpoll_t *loop, const std::function<bool()> &done, int limit_ms = 10000)
{
    struct State {
        const std::function<bool()> &done;
        long long deadline;
        bool held;
    } state{done, now_ms() + limit_ms, false};
    co_eventloop(
        loop,
        [](void *p) -> int {
            State *s = static_cast<State *>(p);
            s->held = s->done();
            return s->held || now_ms() > s->deadline ? -1 : 0;
        },
        &state);
    return state.held;
}

void run_rounds(stCoEpoll_t *loop, int rounds)
{
    run_loop(loop, [&] { return --rounds <= 0; });
}

int poll_on(stCoEpoll_t *loop, int fd, int timeout_ms)
{
    struct pollfd p = {fd, POLLIN, 0};
    return co_poll(loop, &p, 1, timeout_ms);
}

int g_poll_calls;

int counting_poll(struct pollfd fds[], nfds_t nfds, int timeout)
{
    ++g_poll_calls;
    return poll(fds, nfds, timeout);
}

int answering_poll(struct pollfd fds[], nfds_t, int timeout)
{
    ++g_poll_calls;
    fds[0].revents = POLLPRI;
    return timeout == 0 ? 7 : -7;
}

} // namespace

TEST(OwnLoop, AWaitIsServedByItsOwnLoop)
{
    stCoEpoll_t *own = AllocEpoll();
    ASSERT_NE(own, nullptr);
    Pipe pipe_;
    int result = -2;
    Co co([&] { result = poll_on(own, pipe_.rd, 10000); });
    co.resume();
    pipe_.put();
    EXPECT_TRUE(run_loop(own, [&] { return result != -2; }));
    EXPECT_EQ(result, 1);
    FreeEpoll(own);
}

TEST(OwnLoop, AWaitIsServedByItsOwnLoopAlone)
{
    stCoEpoll_t *own = AllocEpoll();
    Pipe pipe_;
    int ready = -2;
    int timed_out = -2;
    Co waits([&] { ready = poll_on(own, pipe_.rd, 10000); });
    Co sleeps([&] { timed_out = poll_on(own, -1, 5); });
    waits.resume();
    sleeps.resume();
    pipe_.put();
    const long long begin = now_ms();
    run_loop(co_get_epoll_ct(), [&] { return now_ms() - begin > 20; });
    EXPECT_EQ(ready, -2);
    EXPECT_EQ(timed_out, -2);
    EXPECT_TRUE(run_loop(own, [&] { return ready != -2 && timed_out != -2; }));
    EXPECT_EQ(ready, 1);
    EXPECT_EQ(timed_out, 0);
    FreeEpoll(own);
}

TEST(OwnLoop, DoesNotServeTheWaitsOfTheThreadsLoop)
{
    stCoEpoll_t *own = AllocEpoll();
    Pipe pipe_;
    int result = -2;
    Co co([&] { result = poll_on(co_get_epoll_ct(), pipe_.rd, 10000); });
    co.resume();
    pipe_.put();
    run_rounds(own, 5);
    EXPECT_EQ(result, -2);
    EXPECT_TRUE(loop_until([&] { return result != -2; }));
    EXPECT_EQ(result, 1);
    FreeEpoll(own);
}

TEST(OwnLoop, TwoLoopsMayWaitForTheSameDescriptor)
{
    stCoEpoll_t *first = AllocEpoll();
    stCoEpoll_t *second = AllocEpoll();
    Pipe pipe_;
    int one = -2;
    int two = -2;
    Co a([&] { one = poll_on(first, pipe_.rd, 10000); });
    Co b([&] { two = poll_on(second, pipe_.rd, 10000); });
    a.resume();
    b.resume();
    pipe_.put();
    EXPECT_TRUE(run_loop(second, [&] { return two != -2; }));
    EXPECT_EQ(one, -2);
    EXPECT_TRUE(run_loop(first, [&] { return one != -2; }));
    EXPECT_EQ(one, 1);
    EXPECT_EQ(two, 1);
    FreeEpoll(first);
    FreeEpoll(second);
}

TEST(OwnLoop, SetEpollMakesItTheThreads)
{
    on_thread([] {
        stCoEpoll_t *usual = co_get_epoll_ct();
        stCoEpoll_t *own = AllocEpoll();
        SetEpoll(co_get_curr_thread_env(), own);
        EXPECT_EQ(co_get_epoll_ct(), own);
        SetEpoll(co_get_curr_thread_env(), usual);
        EXPECT_EQ(co_get_epoll_ct(), usual);
        FreeEpoll(own);
    });
}

TEST(OwnLoop, AfterSetEpollItServesConditions)
{
    on_thread([] {
        stCoEpoll_t *usual = co_get_epoll_ct();
        stCoEpoll_t *own = AllocEpoll();
        SetEpoll(co_get_curr_thread_env(), own);
        stCoCond_t *cond = co_cond_alloc();
        int woken = 0;
        Co signalled([&] {
            co_cond_timedwait(cond, -1);
            ++woken;
        });
        Co timed([&] {
            co_cond_timedwait(cond, 5);
            ++woken;
        });
        signalled.resume();
        timed.resume();
        co_cond_signal(cond);
        EXPECT_TRUE(run_loop(own, [&] { return woken == 2; }));
        SetEpoll(co_get_curr_thread_env(), usual);
        FreeEpoll(own);
        co_cond_free(cond);
    });
}

TEST(OwnLoop, FreeingNullIsANoOp)
{
    FreeEpoll(nullptr);
    stCoEpoll_t *own = AllocEpoll();
    EXPECT_NE(own, nullptr);
    FreeEpoll(own);
}

TEST(OwnLoop, ALoopThatNeverRanMayBeFreed)
{
    for (int i = 0; i < 10; ++i) {
        stCoEpoll_t *own = AllocEpoll();
        ASSERT_NE(own, nullptr);
        FreeEpoll(own);
    }
}

TEST(Environment, InitMakesItAndItsMainCoroutine)
{
    on_thread([] {
        EXPECT_EQ(co_get_curr_thread_env(), nullptr);
        EXPECT_EQ(GetCurrThreadCo(), nullptr);
        co_init_curr_thread_env();
        ASSERT_NE(co_get_curr_thread_env(), nullptr);
        ASSERT_NE(GetCurrThreadCo(), nullptr);
        EXPECT_NE(GetCurrThreadCo()->cIsMain, 0);
        EXPECT_NE(co_get_epoll_ct(), nullptr);
    });
}

TEST(Environment, AskingForTheLoopMakesIt)
{
    on_thread([] {
        EXPECT_NE(co_get_epoll_ct(), nullptr);
        EXPECT_NE(co_get_curr_thread_env(), nullptr);
    });
}

TEST(Environment, EachThreadHasItsOwnEnvironmentAndLoop)
{
    stCoRoutineEnv_t *env = nullptr;
    stCoEpoll_t *loop = co_get_epoll_ct();
    on_thread([&] {
        EXPECT_NE(co_get_epoll_ct(), loop);
        env = co_get_curr_thread_env();
    });
    EXPECT_NE(env, co_get_curr_thread_env());
    EXPECT_EQ(co_get_epoll_ct(), loop);
}

TEST(Environment, CurrentCoroutineIsTheOneThatRuns)
{
    stCoRoutine_t *by_env = nullptr;
    stCoRoutine_t *by_thread = nullptr;
    Co co([&] {
        by_env = GetCurrCo(co_get_curr_thread_env());
        by_thread = GetCurrThreadCo();
    });
    co.resume();
    EXPECT_EQ(by_env, co.get());
    EXPECT_EQ(by_thread, co.get());
    EXPECT_EQ(GetCurrCo(co_get_curr_thread_env()), co_self());
    EXPECT_EQ(GetCurrThreadCo(), co_self());
}

TEST(Environment, CreateEnvMakesACoroutineOfThatEnvironment)
{
    co_get_epoll_ct();
    int counter = 0;
    const stCoRoutineAttr_t at = attr(64 * 1024);
    stCoRoutine_t *co = co_create_env(
        co_get_curr_thread_env(), &at,
        [](void *p) -> void * {
            ++*static_cast<int *>(p);
            co_yield_env(co_get_curr_thread_env());
            ++*static_cast<int *>(p);
            return nullptr;
        },
        &counter);
    ASSERT_NE(co, nullptr);
    EXPECT_EQ(co->env, co_get_curr_thread_env());
    EXPECT_EQ(co->stack_mem->stack_size, 64 * 1024);
    EXPECT_EQ(co->cStart, 0);
    co_resume(co);
    EXPECT_EQ(counter, 1);
    co_resume(co);
    EXPECT_EQ(counter, 2);
    EXPECT_EQ(co->cEnd, 1);
    co_free(co);
}

TEST(Environment, CreateEnvWithoutAttributesGives128KiB)
{
    co_get_epoll_ct();
    stCoRoutine_t *co = co_create_env(co_get_curr_thread_env(), nullptr, nullptr, nullptr);
    ASSERT_NE(co, nullptr);
    EXPECT_EQ(co->stack_mem->stack_size, 128 * 1024);
    EXPECT_EQ(co->cIsMain, 0);
    co_resume(co);
    EXPECT_EQ(co->cEnd, 1);
    co_release(co);
}

TEST(PollInner, WithTimeOutZeroTheGivenFunctionAnswers)
{
    Pipe pipe_;
    int result = 0;
    short revents = 0;
    g_poll_calls = 0;
    Co co([&] {
        struct pollfd p = {pipe_.rd, POLLIN, 0};
        result = co_poll_inner(co_get_epoll_ct(), &p, 1, 0, answering_poll);
        revents = p.revents;
    });
    co.resume();
    EXPECT_EQ(result, 7);
    EXPECT_EQ(revents, POLLPRI);
    EXPECT_EQ(g_poll_calls, 1);
}

TEST(PollInner, WaitsInTheLoopAsCoPollDoes)
{
    Pipe pipe_;
    int result = -2;
    short revents = 0;
    g_poll_calls = 0;
    Co co([&] {
        struct pollfd p = {pipe_.rd, POLLIN, 0};
        result = co_poll_inner(co_get_epoll_ct(), &p, 1, 10000, counting_poll);
        revents = p.revents;
    });
    co.resume();
    EXPECT_EQ(result, -2);
    pipe_.put();
    EXPECT_TRUE(loop_until([&] { return result != -2; }));
    EXPECT_EQ(result, 1);
    EXPECT_EQ(revents, POLLIN);
    EXPECT_EQ(g_poll_calls, 0);
}

TEST(PollInner, TimesOut)
{
    Pipe pipe_;
    int result = -2;
    Co co([&] {
        struct pollfd p = {pipe_.rd, POLLIN, 0};
        result = co_poll_inner(co_get_epoll_ct(), &p, 1, 5, nullptr);
    });
    co.resume();
    EXPECT_TRUE(loop_until([&] { return result != -2; }));
    EXPECT_EQ(result, 0);
}

TEST(PollInner, AFileIsReady)
{
    FILE *file = tmpfile();
    ASSERT_NE(file, nullptr);
    int result = -2;
    short revents = 0;
    Co co([&] {
        struct pollfd p = {fileno(file), POLLIN, 0};
        result = co_poll_inner(co_get_epoll_ct(), &p, 1, 10000, counting_poll);
        revents = p.revents;
    });
    co.resume();
    EXPECT_TRUE(loop_until([&] { return result != -2; }));
    EXPECT_EQ(result, 1);
    EXPECT_EQ(revents, POLLIN);
    fclose(file);
}

MENDED(OwnLoop, FreeEpollClosesItsDescriptor)
{
    const int before = open_descriptors();
    for (int i = 0; i < 100; ++i) {
        stCoEpoll_t *own = AllocEpoll();
        ASSERT_NE(own, nullptr);
        run_rounds(own, 2);
        FreeEpoll(own);
    }
    EXPECT_EQ(open_descriptors(), before);
}

MENDED(OwnLoop, LoopsLeaveNoMemoryBehind)
{
    const auto round = [] {
        for (int i = 0; i < 200; ++i) {
            stCoEpoll_t *own = AllocEpoll();
            Pipe pipe_;
            int result = -2;
            Co co([&] { result = poll_on(own, pipe_.rd, 10000); });
            co.resume();
            pipe_.put();
            run_loop(own, [&] { return result != -2; });
            FreeEpoll(own);
        }
    };
    round();
    const long before = status_kib("VmRSS:");
    round();
    EXPECT_LT(status_kib("VmRSS:") - before, 2 * 1024);
}

MENDED(Environment, InitTwiceIsAsOnce)
{
    on_thread([] {
        co_init_curr_thread_env();
        stCoRoutineEnv_t *env = co_get_curr_thread_env();
        stCoRoutine_t *main_co = co_self();
        stCoEpoll_t *loop = co_get_epoll_ct();
        int steps = 0;
        Co co([&] {
            ++steps;
            co_yield_ct();
            co_init_curr_thread_env();
            ++steps;
            co_yield_ct();
            ++steps;
        });
        co.resume();
        co_init_curr_thread_env();
        EXPECT_EQ(co_get_curr_thread_env(), env);
        EXPECT_EQ(co_self(), main_co);
        EXPECT_EQ(co_get_epoll_ct(), loop);
        co.resume();
        co.resume();
        EXPECT_EQ(steps, 3);
        EXPECT_TRUE(co.ended());
    });
}

MENDED(PollInner, WithTimeOutZeroAndNoFunctionItIsAPlainPoll)
{
    Pipe pipe_;
    int empty = -2;
    int full = -2;
    Co co([&] {
        struct pollfd p = {pipe_.rd, POLLIN, 0};
        empty = co_poll_inner(co_get_epoll_ct(), &p, 1, 0, nullptr);
        pipe_.put();
        full = co_poll_inner(co_get_epoll_ct(), &p, 1, 0, nullptr);
    });
    co.resume();
    EXPECT_EQ(empty, 0);
    EXPECT_EQ(full, 1);
    EXPECT_TRUE(co.ended());
}

MENDED(PollInner, OnTheMainCoroutineItIsAPlainPoll)
{
    Pipe pipe_;
    co_get_epoll_ct();
    struct pollfd p = {pipe_.rd, POLLIN, 0};
    EXPECT_EQ(co_poll_inner(co_get_epoll_ct(), &p, 1, 5, counting_poll), 0);
    pipe_.put();
    EXPECT_EQ(co_poll_inner(co_get_epoll_ct(), &p, 1, 5, counting_poll), 1);
    EXPECT_EQ(p.revents, POLLIN);
}
