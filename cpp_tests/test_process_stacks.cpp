// Handlers, jumps and a program's own contexts on coroutine stacks.
#include "support.h"

#include <csetjmp>

#include <ucontext.h>

using namespace support;

namespace {

volatile sig_atomic_t handled;
long depth_reached;

__attribute__((noinline)) void deep(int levels)
{
    volatile char bytes[1024];
    memset(const_cast<char *>(bytes), levels, sizeof bytes);
    if (levels > 0) {
        deep(levels - 1);
    }
    depth_reached += bytes[7] == static_cast<char>(levels);
}

[[maybe_unused]] void deep_handler(int)
{
    deep(40);
    handled = handled + 1;
}

[[maybe_unused]] void nothing(int)
{
    handled = handled + 1;
}

// A context that calls `run` on this memory, and goes on with `then` when that returns.
[[maybe_unused]] void make_context(ucontext_t &context, std::vector<char> &memory, ucontext_t &then, void (*run)())
{
    getcontext(&context);
    context.uc_stack.ss_sp = memory.data();
    context.uc_stack.ss_size = memory.size();
    context.uc_link = &then;
    makecontext(&context, run, 0);
}

} // namespace

// Forty kilobytes deep on the coroutine's own stack; the bytes of the one it interrupts are as they were.
MENDED(ProcessStacks, ADeepHandlerRunsOnTheCoroutinesStack)
{
    EXPECT_EQ(in_child([] {
                  stShareStack_t *share = co_alloc_sharestack(1, 256 * 1024);
                  const stCoRoutineAttr_t copy = attr(0, share), own = attr(128 * 1024);
                  signal(SIGUSR1, deep_handler);
                  depth_reached = 0;
                  handled = 0;
                  int whole = 0;
                  for (const stCoRoutineAttr_t *at : {&own, &copy}) {
                      const auto body = [&] {
                          volatile int local[64];
                          for (int i = 0; i < 64; ++i) {
                              local[i] = i;
                          }
                          for (int round = 0; round < 10; ++round) {
                              raise(SIGUSR1);
                              co_yield_ct();
                          }
                          for (int i = 0; i < 64; ++i) {
                              whole += local[i] == i;
                          }
                      };
                      Co a(body, at), b(body, at);
                      for (int i = 0; i < 11; ++i) {
                          a.resume();
                          b.resume();
                      }
                  }
                  return handled == 40 && depth_reached == 40 * 41 && whole == 256 ? 0 : 1;
              }),
              0);
}

// With SA_ONSTACK the handler leaves the coroutine's stack alone: a small one is enough.
MENDED(ProcessStacks, AHandlerOnAnAlternateStackLeavesSmallStacksAlone)
{
    EXPECT_EQ(in_child([] {
                  std::vector<char> memory(256 * 1024);
                  stack_t alternate = {};
                  alternate.ss_sp = memory.data();
                  alternate.ss_size = memory.size();
                  struct sigaction action = {};
                  action.sa_handler = deep_handler;
                  action.sa_flags = SA_ONSTACK;
                  if (sigaltstack(&alternate, nullptr) != 0 || sigaction(SIGUSR1, &action, nullptr) != 0) {
                      return 2;
                  }
                  depth_reached = 0;
                  handled = 0;
                  const stCoRoutineAttr_t at = attr(16 * 1024);
                  int polled = 0;
                  Co co(
                      [&] {
                          for (int i = 0; i < 10; ++i) {
                              raise(SIGUSR1);
                              polled += poll_one(-1, 1) == 0;
                          }
                      },
                      &at);
                  co.resume();
                  const bool done = loop_until([&] { return co.ended(); });
                  return done && polled == 10 && depth_reached == 410 ? 0 : 1;
              }),
              0);
}

namespace {
sigjmp_buf out_of_handler;
[[maybe_unused]] void jump(int)
{
    handled = handled + 1;
    siglongjmp(out_of_handler, 1);
}
} // namespace

MENDED(ProcessStacks, AHandlerMayJumpBackIntoTheCoroutineItInterrupted)
{
    EXPECT_EQ(in_child([] {
                  signal(SIGSEGV, jump);
                  handled = 0;
                  stShareStack_t *share = co_alloc_sharestack(1, 128 * 1024);
                  const stCoRoutineAttr_t copy = attr(0, share), own = attr(0);
                  int back = 0;
                  for (const stCoRoutineAttr_t *at : {&own, &copy}) {
                      Co co(
                          [&] {
                              for (volatile int i = 0; i < 100; i = i + 1) {
                                  if (sigsetjmp(out_of_handler, 1) == 0) {
                                      *static_cast<volatile int *>(nullptr) = 1;
                                  }
                                  ++back;
                                  poll_one(-1, i % 10 == 0 ? 1 : 0);
                              }
                          },
                          at);
                      co.resume();
                      if (!loop_until([&] { return co.ended(); })) {
                          return 2;
                      }
                  }
                  return back == 200 && handled == 200 ? 0 : 1;
              }),
              0);
}

TEST(ProcessStacks, SetjmpAndLongjmpWorkInsideACoroutineAcrossYields)
{
    int jumps = 0;
    Co co([&] {
        jmp_buf here;
        volatile int round = 0;
        if (setjmp(here) < 50) {
            round = round + 1;
            co_yield_ct();
            ++jumps;
            longjmp(here, round);
        }
    });
    for (int i = 0; i < 51; ++i) {
        co.resume();
    }
    EXPECT_TRUE(co.ended());
    EXPECT_EQ(jumps, 50);
}

// A program's own contexts: one inside a coroutine, coroutines inside one.
TEST(ProcessStacks, OwnContextsWorkBesideCoroutines)
{
    static ucontext_t outer, inner;
    static std::string trace;
    trace.clear();
    std::vector<char> memory(128 * 1024);
    Co co([&] {
        make_context(inner, memory, outer, [] {
            trace += 'a';
            swapcontext(&inner, &outer);
            Co within([] {
                trace += 'c';
                co_yield_ct();
                trace += 'd';
            });
            within.resume();
            within.resume();
            trace += 'e';
        });
        swapcontext(&outer, &inner);
        trace += 'b';
        co_yield_ct();
        swapcontext(&outer, &inner);
        trace += 'f';
    });
    co.resume();
    co.resume();
    EXPECT_EQ(trace, "abcdef");
    EXPECT_TRUE(co.ended());
}

// Its bytes are not where they could be moved from: whoever shares its copy stack has to wait until it is back.
MENDED(ProcessStacks, AYieldOnAnOwnContextKeepsOthersOffItsCopyStack)
{
    static ucontext_t outer, inner;
    static std::string trace;
    for (int place = 0; place < 2; ++place) {
        EXPECT_EQ(in_child([place] {
                      trace.clear();
                      // Below the copy stack in memory, and above it.
                      std::vector<char> first(1024 * 1024);
                      const stCoRoutineAttr_t copy = attr(0, co_alloc_sharestack(1, 64 * 1024));
                      std::vector<char> last(1024 * 1024);
                      std::vector<char> &memory = place == 0 ? first : last;
                      Co co(
                          [&] {
                              make_context(inner, memory, outer, [] {
                                  trace += 'a';
                                  co_yield_ct();
                                  trace += 'b';
                              });
                              swapcontext(&outer, &inner);
                              trace += 'c';
                          },
                          &copy);
                      Co other([] { trace += 'd'; }, &copy);
                      co.resume();
                      other.resume();
                      co.resume();
                      other.resume();
                      return trace == "abcd" ? 0 : 1;
                  }),
                  0);
    }
}

MENDED(ProcessStacks, SigpipeOfAHookedWriteIsTheProgramsAsEver)
{
    const auto write_to_nobody = [](void (*handler)(int)) {
        return in_child([handler] {
            signal(SIGPIPE, handler);
            handled = 0;
            int fds[2];
            if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0 || co_hook_fd(fds[0]) != 0) {
                return 2;
            }
            close(fds[1]);
            ssize_t result = 0;
            int error = 0;
            Co co([&] {
                co_enable_hook_sys();
                result = write(fds[0], "x", 1);
                error = errno;
            });
            co.resume();
            loop_until([&] { return co.ended(); });
            return result == -1 && error == EPIPE ? 10 + static_cast<int>(handled) : 3;
        });
    };
    EXPECT_EQ(write_to_nobody(SIG_DFL), 128 + SIGPIPE);
    EXPECT_EQ(write_to_nobody(SIG_IGN), 10);
    EXPECT_EQ(write_to_nobody(nothing), 11);
}
