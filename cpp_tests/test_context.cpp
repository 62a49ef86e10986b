// Switching by hand: co_swap, the coctx functions on contexts of the program's own, co_epoll_*.
#include "support.h"

#include <exception>
#include <memory>

#include <sys/epoll.h>
#include <sys/mman.h>

using namespace support;

namespace {

// Two contexts that pass a counter to and fro.
struct PingPong {
    coctx_t caller;
    coctx_t callee;
    int count;
    void *first;
    void *second;
};

void *count_for_ever(void *first, void *second)
{
    PingPong *game = static_cast<PingPong *>(first);
    game->first = first;
    game->second = second;
    for (volatile int mine = 0;;) {
        mine = mine + 1;
        game->count = mine;
        coctx_swap(&game->callee, &game->caller);
    }
}

} // namespace

TEST(CoSwap, SwitchesFromMainToASuspendedCoroutineAndBack)
{
    std::string trace;
    stCoRoutine_t *main_co = nullptr;
    Co co([&] {
        trace += "a";
        co_yield_ct();
        trace += "b";
        co_swap(co.get(), main_co);
        trace += "c";
    });
    main_co = co_self();
    co.resume();
    trace += "1";
    co_swap(main_co, co.get());
    trace += "2";
    co.resume();
    trace += "3";
    EXPECT_EQ(trace, "a1b2c3");
    EXPECT_TRUE(co.ended());
}

TEST(CoSwap, SwitchesBetweenTwoCoroutinesDirectly)
{
    std::string trace;
    Co *a_co = nullptr;
    Co b([&] {
        trace += "b";
        co_yield_ct();
        for (int i = 0; i < 2; ++i) {
            trace += "B";
            co_swap(b.get(), a_co->get());
        }
        trace += "e";
    });
    Co a([&] {
        trace += "a";
        co_swap(a_co->get(), b.get());
        trace += "A";
        co_swap(a_co->get(), b.get());
        trace += "Z";
    });
    a_co = &a;
    b.resume();
    a.resume();
    trace += "m";
    b.resume();
    EXPECT_EQ(trace, "baBABZme");
    EXPECT_TRUE(a.ended());
    EXPECT_TRUE(b.ended());
}

TEST(CoSwap, WorksWithACopyStack)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    std::string trace;
    stCoRoutine_t *main_co = nullptr;
    Co co(
        [&] {
            volatile char local = 'x';
            co_yield_ct();
            trace += local;
            co_swap(co.get(), main_co);
            trace += local;
        },
        &at);
    Co other(
        [&] {
            volatile char local = 'o';
            co_yield_ct();
            trace += local;
        },
        &at);
    main_co = co_self();
    co.resume();
    other.resume(); // takes the stack
    co_swap(main_co, co.get());
    other.resume(); // takes it again
    co.resume();
    EXPECT_EQ(trace, "xox");
}

TEST(Coctx, InitClearsTheContext)
{
    coctx_t ctx;
    memset(&ctx, 0xa5, sizeof ctx);
    EXPECT_EQ(coctx_init(&ctx), 0);
    const coctx_t zero = {};
    EXPECT_EQ(memcmp(&ctx, &zero, sizeof ctx), 0);
}

TEST(Coctx, MakeAndSwapRunAFunctionOnTheProgramsOwnStack)
{
    std::vector<char> stack(64 * 1024);
    PingPong game = {};
    int second = 0;
    ASSERT_EQ(coctx_init(&game.caller), 0);
    ASSERT_EQ(coctx_init(&game.callee), 0);
    game.callee.ss_sp = stack.data();
    game.callee.ss_size = stack.size();
    ASSERT_EQ(coctx_make(&game.callee, count_for_ever, &game, &second), 0);
    EXPECT_EQ(game.count, 0);
    for (int i = 1; i <= 1000; ++i) {
        coctx_swap(&game.caller, &game.callee);
        ASSERT_EQ(game.count, i);
    }
    EXPECT_EQ(game.first, &game);
    EXPECT_EQ(game.second, &second);
    EXPECT_EQ(game.callee.ss_size, stack.size());
    EXPECT_EQ(game.callee.ss_sp, stack.data());
}

TEST(Coctx, MakeAgainStartsFromTheBeginning)
{
    std::vector<char> stack(64 * 1024);
    PingPong game = {};
    coctx_init(&game.callee);
    game.callee.ss_sp = stack.data();
    game.callee.ss_size = stack.size();
    for (int round = 0; round < 3; ++round) {
        ASSERT_EQ(coctx_make(&game.callee, count_for_ever, &game, nullptr), 0);
        coctx_swap(&game.caller, &game.callee);
        coctx_swap(&game.caller, &game.callee);
        EXPECT_EQ(game.count, 2);
    }
}

TEST(Coctx, AStackOfOddAddressAndSizeIsAlignedForTheFunction)
{
    std::vector<char> stack(64 * 1024);
    struct Check {
        coctx_t caller;
        coctx_t callee;
        bool aligned;
    } check = {};
    for (size_t odd = 0; odd < 16; ++odd) {
        check.aligned = false;
        coctx_init(&check.callee);
        check.callee.ss_sp = stack.data() + odd;
        check.callee.ss_size = stack.size() - 32 + odd;
        coctx_make(
            &check.callee,
            [](void *p, void *) -> void * {
                Check *c = static_cast<Check *>(p);
                c->aligned = reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) % 16 == 0;
                coctx_swap(&c->callee, &c->caller);
                return nullptr;
            },
            &check, nullptr);
        coctx_swap(&check.caller, &check.callee);
        EXPECT_TRUE(check.aligned) << odd;
    }
}

TEST(Coctx, OwnContextsWorkInsideACoroutine)
{
    int count = 0;
    Co co([&] {
        std::vector<char> stack(64 * 1024);
        PingPong game = {};
        coctx_init(&game.callee);
        game.callee.ss_sp = stack.data();
        game.callee.ss_size = stack.size();
        coctx_make(&game.callee, count_for_ever, &game, nullptr);
        for (int i = 0; i < 3; ++i) {
            coctx_swap(&game.caller, &game.callee);
            co_yield_ct();
        }
        count = game.count;
    });
    for (int i = 0; i < 4; ++i) {
        co.resume();
    }
    EXPECT_EQ(count, 3);
}

MENDED(Coctx, AnExceptionThatNobodyCatchesInAnOwnContextTerminates)
{
    EXPECT_EQ(in_child([] {
                  // A guard above the stack: a search that goes on there faults.
                  const size_t size = 64 * 1024, page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
                  char *stack = static_cast<char *>(mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
                  if (stack == MAP_FAILED || mprotect(stack + size, page, PROT_NONE) != 0) {
                      return 2;
                  }
                  std::set_terminate([] { _exit(3); });
                  static coctx_t caller, callee;
                  coctx_init(&caller);
                  coctx_init(&callee);
                  callee.ss_sp = stack;
                  callee.ss_size = size;
                  coctx_make(&callee, [](void *, void *) -> void * { throw 1; }, nullptr, nullptr);
                  coctx_swap(&caller, &callee);
                  return 1;
              }),
              3);
}

#if defined(__x86_64__)
TEST(Coctx, MakeFillsTheRegistersOfTheOriginalLayout)
{
    std::vector<char> stack(4096);
    coctx_t ctx;
    int first = 0;
    int second = 0;
    coctx_init(&ctx);
    ctx.ss_sp = stack.data();
    ctx.ss_size = stack.size();
    coctx_make(&ctx, count_for_ever, &first, &second);
    EXPECT_EQ(ctx.regs[7], &first);
    EXPECT_EQ(ctx.regs[8], &second);
    EXPECT_EQ(ctx.regs[9], reinterpret_cast<void *>(count_for_ever));
    const char *sp = static_cast<const char *>(ctx.regs[13]);
    EXPECT_GE(sp, stack.data());
    EXPECT_LT(sp, stack.data() + stack.size());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(sp) % 16, 0u);
}
#endif

TEST(CoEpoll, ReportsAReadyDescriptor)
{
    const int epfd = co_epoll_create(1024);
    ASSERT_GE(epfd, 0);
    Pipe pipe_;
    struct epoll_event ev = {};
    ev.events = EPOLLIN;
    ev.data.u64 = 0x123456789abcdefu;
    ASSERT_EQ(co_epoll_ctl(epfd, EPOLL_CTL_ADD, pipe_.rd, &ev), 0);
    struct co_epoll_res *res = co_epoll_res_alloc(16);
    ASSERT_NE(res, nullptr);
    EXPECT_EQ(res->size, 16);
    ASSERT_NE(res->events, nullptr);
    EXPECT_EQ(co_epoll_wait(epfd, res, 16, 0), 0);
    pipe_.put();
    ASSERT_EQ(co_epoll_wait(epfd, res, 16, 1000), 1);
    EXPECT_EQ(res->events[0].events, static_cast<uint32_t>(EPOLLIN));
    EXPECT_EQ(res->events[0].data.u64, 0x123456789abcdefu);
    EXPECT_EQ(co_epoll_ctl(epfd, EPOLL_CTL_DEL, pipe_.rd, &ev), 0);
    EXPECT_EQ(co_epoll_wait(epfd, res, 16, 0), 0);
    co_epoll_res_free(res);
    close(epfd);
}

TEST(CoEpoll, ReturnsNoMoreThanAskedFor)
{
    const int epfd = co_epoll_create(1024);
    std::vector<std::unique_ptr<Pipe>> pipes;
    for (int i = 0; i < 8; ++i) {
        pipes.push_back(std::make_unique<Pipe>());
        struct epoll_event ev = {};
        ev.events = EPOLLOUT;
        ASSERT_EQ(co_epoll_ctl(epfd, EPOLL_CTL_ADD, pipes.back()->wr, &ev), 0);
    }
    struct co_epoll_res *res = co_epoll_res_alloc(8);
    EXPECT_EQ(co_epoll_wait(epfd, res, 3, 0), 3);
    EXPECT_EQ(co_epoll_wait(epfd, res, 8, 0), 8);
    co_epoll_res_free(res);
    close(epfd);
}

TEST(CoEpoll, ErrorsComeBackWithErrno)
{
    struct epoll_event ev = {};
    errno = 0;
    EXPECT_EQ(co_epoll_ctl(-1, EPOLL_CTL_ADD, 0, &ev), -1);
    EXPECT_EQ(errno, EBADF);
    struct co_epoll_res *res = co_epoll_res_alloc(1);
    errno = 0;
    EXPECT_EQ(co_epoll_wait(-1, res, 1, 0), -1);
    EXPECT_EQ(errno, EBADF);
    co_epoll_res_free(res);
}

TEST(CoEpoll, FreeingANullResultIsANoOp)
{
    co_epoll_res_free(nullptr);
    struct co_epoll_res *res = co_epoll_res_alloc(1);
    EXPECT_NE(res, nullptr);
    co_epoll_res_free(res);
}
