// A backtrace taken at any instruction of a switch: a profiler's signal may come anywhere. The trap flag raises a signal after
// each instruction, and the handler walks up from there; what a walk reads beside a stack is a guard, so it would fault.
#include "support.h"

#include <csignal>
#include <cstdint>

#include <sys/socket.h>
#include <sys/ucontext.h>
#include <unistd.h>
#include <unwind.h>

#ifdef __x86_64__

namespace {

using namespace support;

#define KEEP __attribute__((noinline, noclone))

// What the handler found so far. `driver` is the function on the thread's own stack that all walks from there must reach.
struct Found {
    volatile bool stepping = false;
    long steps = 0, on_thread = 0, unfinished = 0, endless = 0, driver_missed = 0;
    uintptr_t low = 0, high = 0, driver = 0;
} found;

struct Walk {
    int frames = 0;
    bool driver = false;
};

_Unwind_Reason_Code note_frame(_Unwind_Context *context, void *p)
{
    Walk &walk = *static_cast<Walk *>(p);
    walk.driver |= _Unwind_GetRegionStart(context) == found.driver;
    return ++walk.frames < 100 ? _URC_NO_REASON : _URC_NORMAL_STOP;
}

void on_step(int, siginfo_t *, void *context)
{
    greg_t *const registers = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
    const auto sp = static_cast<uintptr_t>(registers[REG_RSP]);
    constexpr greg_t trap_flag = 0x100;
    if (!found.stepping) {
        registers[REG_EFL] &= ~trap_flag;
        return;
    }
    registers[REG_EFL] |= trap_flag;
    Walk walk;
    const _Unwind_Reason_Code end = _Unwind_Backtrace(note_frame, &walk);
    ++found.steps;
    found.unfinished += end != _URC_END_OF_STACK;
    found.endless += walk.frames >= 100;
    if (found.low <= sp && sp < found.high) {
        ++found.on_thread;
        found.driver_missed += !walk.driver;
    }
}

using Run = void (*)(void *);

KEEP void driver(Run run, void *arg)
{
    found.stepping = true;
    raise(SIGTRAP);
    run(arg);
    found.stepping = false;
}

// Runs `run(arg)` stepped, and says what the walks were.
void step_through(Run run, void *arg)
{
    static char room[256 * 1024];
    const stack_t alternate = {room, 0, sizeof room};
    struct sigaction action = {};
    action.sa_sigaction = on_step;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    pthread_attr_t attributes;
    void *low = nullptr;
    size_t size = 0;
    Walk once;
    found.driver = reinterpret_cast<uintptr_t>(driver);
    if (sigaltstack(&alternate, nullptr) != 0 || sigaction(SIGTRAP, &action, nullptr) != 0 ||
        _Unwind_Backtrace(note_frame, &once) != _URC_END_OF_STACK || pthread_getattr_np(pthread_self(), &attributes) != 0 ||
        pthread_attr_getstack(&attributes, &low, &size) != 0) {
        printf("cannot step\n");
        return;
    }
    pthread_attr_destroy(&attributes);
    found.low = reinterpret_cast<uintptr_t>(low);
    found.high = found.low + size;
    driver(run, arg);
    printf("%ld steps, %ld on the thread's stack; walks without an end %ld, past 100 frames %ld, that missed who resumed %ld\n",
           found.steps, found.on_thread, found.unfinished, found.endless, found.driver_missed);
}

int verdict()
{
    fflush(stdout);
    return found.steps > 200 && found.on_thread > 50 && found.unfinished == 0 && found.endless == 0 && found.driver_missed == 0 ? 0 : 1;
}

// Stacks beside each other, free again: the next ones have a guard above them.
void make_neighbours()
{
    const stCoRoutineAttr_t at = attr(16 * 1024);
    std::vector<std::unique_ptr<Co>> all;
    for (int i = 0; i < 64; ++i) {
        all.push_back(std::make_unique<Co>([] {}, &at));
        all.back()->resume();
    }
}

void *yields_once(void *)
{
    co_yield_ct();
    return nullptr;
}

void *resumes_twice(void *inner)
{
    co_resume(static_cast<stCoRoutine_t *>(inner));
    co_yield_ct();
    co_resume(static_cast<stCoRoutine_t *>(inner));
    return nullptr;
}

void *waits(void *arg)
{
    poll_one(-1, 1);
    *static_cast<bool *>(arg) = true;
    return nullptr;
}

// Reads as long as a byte comes. (More room than there are bytes: such a read waits without a frame of its own.)
void *reads(void *end)
{
    co_enable_hook_sys();
    char bytes[8];
    while (read(*static_cast<int *>(end), bytes, sizeof bytes) == 1) {
    }
    return nullptr;
}

// A wait of 1 ms and the loop that ends it.
void wait_once(stCoRoutine_t *co, bool &over)
{
    co_resume(co);
    co_eventloop(co_get_epoll_ct(), [](void *p) { return *static_cast<bool *>(p) ? -1 : 0; }, &over);
}

} // namespace

TEST(SteppedBacktrace, OfResumeYieldAndEndOnPrivateStacks)
{
    EXPECT_EQ(in_child([] {
                  make_neighbours();
                  const stCoRoutineAttr_t at = attr(16 * 1024);
                  // Of several one starts at the very top of its stack: each starts a little lower than the one beside it.
                  static stCoRoutine_t *all[64];
                  for (stCoRoutine_t *&co : all) {
                      co_create(&co, &at, yields_once, nullptr);
                  }
                  step_through(
                      [](void *) {
                          for (stCoRoutine_t *co : all) {
                              co_resume(co);
                              co_resume(co);
                          }
                      },
                      nullptr);
                  return verdict();
              }),
              0);
}

TEST(SteppedBacktrace, OfNestedResumesOnOneCopyStack)
{
    EXPECT_EQ(in_child([] {
                  make_neighbours();
                  const stCoRoutineAttr_t at = attr(0, co_alloc_sharestack(1, 128 * 1024));
                  // What the first such resume makes it makes with all signals blocked, and a blocked trap ends a program.
                  static stCoRoutine_t *inner, *outer;
                  co_create(&inner, &at, yields_once, nullptr);
                  co_create(&outer, &at, resumes_twice, inner);
                  co_resume(outer);
                  co_resume(outer);
                  co_create(&inner, &at, yields_once, nullptr);
                  co_create(&outer, &at, resumes_twice, inner);
                  step_through(
                      [](void *) {
                          co_resume(outer);
                          co_resume(outer);
                      },
                      nullptr);
                  return verdict();
              }),
              0);
}

TEST(SteppedBacktrace, OfAWaitAndTheLoop)
{
    for (const bool on_copy : {false, true}) {
        EXPECT_EQ(in_child([on_copy] {
                      make_neighbours();
                      static const stCoRoutineAttr_t at = on_copy ? attr(0, co_alloc_sharestack(1, 128 * 1024)) : attr(16 * 1024);
                      static stCoRoutine_t *first, *second;
                      static bool over[2];
                      co_create(&first, &at, waits, &over[0]);
                      co_create(&second, &at, waits, &over[1]);
                      wait_once(first, over[0]);
                      step_through([](void *) { wait_once(second, over[1]); }, nullptr);
                      return over[1] ? verdict() : 2;
                  }),
                  0)
            << on_copy;
    }
}

TEST(SteppedBacktrace, OfAHookedReadThatWaits)
{
    for (const bool on_copy : {false, true}) {
        EXPECT_EQ(in_child([on_copy] {
                      make_neighbours();
                      const stCoRoutineAttr_t at = on_copy ? attr(0, co_alloc_sharestack(1, 128 * 1024)) : attr(16 * 1024);
                      static stCoRoutine_t *reader;
                      static int ends[2];
                      if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0 || co_hook_fd(ends[0]) != 0) {
                          return 2;
                      }
                      co_create(&reader, &at, reads, &ends[0]);
                      co_resume(reader);
                      // Goes on in its read, gets a byte, and waits again.
                      if (send(ends[1], "x", 1, 0) != 1) {
                          return 2;
                      }
                      step_through([](void *) { co_resume(reader); }, nullptr);
                      return verdict();
                  }),
                  0)
            << on_copy;
    }
}

#else

TEST(SteppedBacktrace, WantsAProcessorThatStepsItsOwnProgram) { GTEST_SKIP() << "the trap flag is x86-64's"; }

#endif
