// Calls that cannot do what they are asked for: they say so, or do nothing.
#include "loop_support.h"

#include <netdb.h>

#include <atomic>

using namespace support;

namespace {

// Runs `body` with the loop and the environment of a thread that is still there.
void with_another_threads(const std::function<void(stCoEpoll_t *, stCoRoutineEnv_t *)> &body)
{
    std::atomic<stCoEpoll_t *> loop{nullptr};
    std::atomic<stCoRoutineEnv_t *> env{nullptr};
    std::atomic<bool> over{false};
    std::thread other([&] {
        Co makes_an_environment([] {});
        env = co_get_curr_thread_env();
        loop = co_get_epoll_ct();
        while (!over) {
            usleep(1000);
        }
    });
    while (!loop) {
        usleep(1000);
    }
    body(loop, env);
    over = true;
    other.join();
}

} // namespace

MENDED(Refused, APollWithoutAnArray)
{
    pollfd *nowhere = nullptr;
    int results[2] = {0, 0}, errors[2] = {0, 0};
    Co co([&] {
        results[0] = co_poll(co_get_epoll_ct(), nowhere, 2, 1000);
        errors[0] = errno;
        co_enable_hook_sys();
        results[1] = poll(nowhere, 2, 1000);
        errors[1] = errno;
    });
    co.resume();
    ASSERT_TRUE(loop_until([&] { return co.ended(); }));
    for (int i = 0; i < 2; ++i) {
        EXPECT_EQ(-1, results[i]);
        EXPECT_EQ(EFAULT, errors[i]);
    }
}

MENDED(Refused, APollInTheLoopOfAnotherThread)
{
    with_another_threads([](stCoEpoll_t *loop, stCoRoutineEnv_t *) {
        Pipe pipe;
        int result = 0, error = 0;
        Co co([&] {
            pollfd one = {pipe.rd, POLLIN, 0};
            result = co_poll(loop, &one, 1, 1000);
            error = errno;
        });
        co.resume();
        EXPECT_TRUE(co.ended());
        EXPECT_EQ(-1, result);
        EXPECT_EQ(EINVAL, error);
    });
}

MENDED(Refused, TheLoopOfAnotherThread)
{
    with_another_threads([](stCoEpoll_t *loop, stCoRoutineEnv_t *) {
        int calls = 0;
        const auto count = [](void *calls) { return ++*static_cast<int *>(calls) ? -1 : 0; };
        co_eventloop(loop, count, &calls);
        EXPECT_EQ(0, calls);
        co_eventloop(co_get_epoll_ct(), count, &calls);
        EXPECT_EQ(1, calls);
    });
}

MENDED(Refused, AYieldOfAnotherThread)
{
    with_another_threads([](stCoEpoll_t *, stCoRoutineEnv_t *env) {
        bool went_on = false;
        Co co([&] {
            co_yield_env(env);
            went_on = true;
        });
        co.resume();
        EXPECT_TRUE(went_on);
    });
}

MENDED(Refused, ASwapWithNobody)
{
    bool went_on = false;
    Co co([&] {
        co_swap(co_self(), nullptr);
        co_swap(nullptr, co_self());
        went_on = true;
    });
    co.resume();
    EXPECT_TRUE(went_on);
}

MENDED(Refused, ALookupOfNoName)
{
    Co co([] {
        errno = 0;
        EXPECT_EQ(nullptr, co_gethostbyname(nullptr));
        EXPECT_EQ(EINVAL, errno);
    });
    co.resume();
    EXPECT_TRUE(loop_until([&] { return co.ended(); }));
}

// With hooks off: the functions under their own names.
MENDED(Lookups, ByNameAreACoroutinesOwnWithHooksOff)
{
    const hostent *kept[2] = {nullptr, nullptr};
    const auto look = [&](int which, const char *name) {
        kept[which] = co_gethostbyname(name);
        co_yield_ct();
    };
    Co first([&] { look(0, "192.0.2.1"); }), second([&] { look(1, "192.0.2.2"); });
    first.resume();
    second.resume();
    ASSERT_TRUE(loop_until([&] { return kept[0] && kept[1]; }));
    EXPECT_NE(kept[0], kept[1]);
    EXPECT_STREQ("192.0.2.1", kept[0]->h_name);
    EXPECT_STREQ("192.0.2.2", kept[1]->h_name);
    EXPECT_STREQ("192.0.2.3", co_gethostbyname("192.0.2.3")->h_name) << "on the main coroutine";
}

MENDED(Lookups, IntoABufferWorkWithHooksOff)
{
    bool found[2] = {false, false};
    const auto look = [&](int which) {
        hostent host = {}, *result = nullptr;
        char buffer[1024];
        int error = 0;
        EXPECT_EQ(0, co_gethostbyname_r("192.0.2.9", &host, buffer, sizeof buffer, &result, &error));
        EXPECT_EQ(&host, result);
        found[which] = result && std::string("192.0.2.9") == result->h_name;
        EXPECT_EQ(ERANGE, co_gethostbyname_r("192.0.2.9", &host, buffer, 8, &result, &error));
        EXPECT_EQ(nullptr, result);
    };
    Co co([&] { look(0); });
    co.resume();
    look(1);
    EXPECT_TRUE(loop_until([&] { return co.ended(); }));
    EXPECT_TRUE(found[0]);
    EXPECT_TRUE(found[1]) << "on the main coroutine";
}
