// C++ exceptions in coroutines and out of the loop's callback.
#include "support.h"

#include <exception>
#include <memory>
#include <stdexcept>

using namespace support;

namespace {

struct Numbered {
    int number;
};

void throw_deep(int depth, int number)
{
    std::string keeps_a_destructor(static_cast<size_t>(depth), 'x');
    if (depth == 0) {
        throw Numbered{number};
    }
    throw_deep(depth - 1, number);
}

} // namespace

TEST(Exceptions, ThrownAndCaughtInsideACoroutine)
{
    int caught = 0;
    Co co([&] {
        try {
            throw_deep(10, 7);
        } catch (const Numbered &e) {
            caught = e.number;
        }
    });
    co.resume();
    EXPECT_EQ(caught, 7);
    EXPECT_TRUE(co.ended());
}

TEST(Exceptions, ThrownAfterAYieldAndCaughtInsideACoroutine)
{
    int caught = 0;
    Co co([&] {
        try {
            co_yield_ct();
            throw_deep(10, 8);
        } catch (const Numbered &e) {
            caught = e.number;
        }
        co_yield_ct();
        caught += 100;
    });
    co.resume();
    co.resume();
    EXPECT_EQ(caught, 8);
    co.resume();
    EXPECT_EQ(caught, 108);
}

TEST(Exceptions, ThrownAndCaughtOnACopyStack)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    int caught = 0;
    const auto body = [&] {
        try {
            co_yield_ct();
            throw_deep(10, 1);
        } catch (const Numbered &e) {
            caught += e.number;
        }
    };
    Co a(body, &at);
    Co b(body, &at);
    a.resume();
    b.resume();
    a.resume();
    b.resume();
    EXPECT_EQ(caught, 2);
}

TEST(Exceptions, DestructorsRunWhileUnwindingInACoroutine)
{
    int ends = 0;
    Co co([&] {
        try {
            CountsEnds a{&ends};
            CountsEnds b{&ends};
            co_yield_ct();
            throw Numbered{1};
        } catch (const Numbered &) {
        }
    });
    co.resume();
    EXPECT_EQ(ends, 0);
    co.resume();
    EXPECT_EQ(ends, 2);
}

TEST(Exceptions, OutOfTheCallbackReachesTheCallerOfTheLoop)
{
    int caught = 0;
    try {
        co_eventloop(co_get_epoll_ct(), [](void *) -> int { throw Numbered{3}; }, nullptr);
    } catch (const Numbered &e) {
        caught = e.number;
    }
    EXPECT_EQ(caught, 3);
}

TEST(Exceptions, AfterOneOutOfTheCallbackTheLoopMayBeCalledAgain)
{
    Pipe pipe_;
    int result = -2;
    Co co([&] {
        struct pollfd p = {pipe_.rd, POLLIN, 0};
        result = co_poll(co_get_epoll_ct(), &p, 1, 10000);
    });
    co.resume();
    for (int i = 0; i < 100; ++i) {
        EXPECT_THROW(
            co_eventloop(
                co_get_epoll_ct(), [](void *) -> int { throw std::runtime_error("out"); }, nullptr),
            std::runtime_error);
    }
    EXPECT_EQ(result, -2);
    pipe_.put();
    EXPECT_TRUE(loop_until([&] { return result != -2; }));
    EXPECT_EQ(result, 1);
}

TEST(Exceptions, OutOfTheCallbackOfALoopInsideACoroutineReachesThatCoroutine)
{
    int caught = 0;
    Co co([&] {
        try {
            co_eventloop(co_get_epoll_ct(), [](void *) -> int { throw Numbered{4}; }, nullptr);
        } catch (const Numbered &e) {
            caught = e.number;
        }
    });
    co.resume();
    EXPECT_EQ(caught, 4);
    EXPECT_TRUE(co.ended());
}

TEST(Exceptions, OneThatLeavesTheRoutineEndsInTerminate)
{
    EXPECT_EQ(in_child([] {
                  std::set_terminate([] { _exit(42); });
                  Co co([] { throw Numbered{1}; });
                  co.resume();
                  return 1;
              }),
              42);
}

TEST(Exceptions, OneThatLeavesTheRoutineAfterAYieldEndsInTerminate)
{
    EXPECT_EQ(in_child([] {
                  std::set_terminate([] { _exit(42); });
                  Co co([] {
                      co_yield_ct();
                      throw Numbered{1};
                  });
                  try {
                      co.resume();
                      co.resume();
                  } catch (...) {
                      return 2;
                  }
                  return 1;
              }),
              42);
}

TEST(Exceptions, OneThatLeavesTheRoutineAbortsByDefault)
{
    EXPECT_EQ(in_child([] {
                  struct rlimit none = {0, 0};
                  setrlimit(RLIMIT_CORE, &none);
                  fclose(stderr);
                  Co co([] { throw Numbered{1}; });
                  co.resume();
                  return 1;
              }),
              128 + SIGABRT);
}
