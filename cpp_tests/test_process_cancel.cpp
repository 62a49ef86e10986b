// pthread_cancel and pthread_exit on coroutine stacks. The frames of the coroutine that runs are unwound, as a thread's
// would be, and the thread ends; the frames of coroutines that are suspended, and of those that resumed the running one, are
// abandoned, as by co_release.
#include "support.h"

#include <atomic>

using namespace support;

namespace {

struct Seen {
    std::atomic<int> cleaned{0};  // pthread_cleanup_push
    std::atomic<int> unwound{0};  // destructors
    std::atomic<int> local{0};    // thread_local destructors
    std::atomic<bool> there{false};
    std::atomic<stCoRoutine_t *> co{nullptr};
};

[[maybe_unused]] void clean(void *seen)
{
    ++static_cast<Seen *>(seen)->cleaned;
}

struct Unwinds {
    std::atomic<int> *count;
    ~Unwinds() { ++*count; }
};

// What the coroutine does when the thread is to end: returns only if it does not.
using Ending = void (*)(Seen &seen, int fd);

struct Life {
    Seen seen;
    Ending ending = nullptr;
    bool hooks = false;
    stShareStack_t *share = nullptr;

    // A coroutine in a coroutine, since both have frames; false if the thread did not end by `result`.
    bool ends(void *wanted, bool cancelled_by_another)
    {
        pthread_t thread;
        if (pthread_create(&thread, nullptr, &Life::run, this) != 0) {
            return false;
        }
        if (cancelled_by_another) {
            while (!seen.there) {
                std::this_thread::yield();
            }
            pthread_cancel(thread);
        }
        void *result = nullptr;
        pthread_join(thread, &result);
        if (stCoRoutine_t *left = seen.co) {
            co_release(left);
        }
        return result == wanted && seen.local == 1;
    }

    static void *run(void *self)
    {
        Life *life = static_cast<Life *>(self);
        static thread_local Unwinds local{nullptr};
        local.count = &life->seen.local;
        const stCoRoutineAttr_t at = attr(0, life->share);
        stCoRoutine_t *co = nullptr;
        if (co_create(&co, life->share != nullptr ? &at : nullptr, &Life::in_coroutine, life) != 0) {
            return nullptr;
        }
        life->seen.co = co;
        co_resume(co);
        co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
        return nullptr;
    }

    static void *in_coroutine(void *self)
    {
        Life *life = static_cast<Life *>(self);
        if (life->hooks) {
            co_enable_hook_sys();
        }
        int fds[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0 || co_hook_fd(fds[0]) != 0) {
            std::abort();
        }
        {
            const Unwinds frame{&life->seen.unwound};
            pthread_cleanup_push(clean, &life->seen);
            life->ending(life->seen, fds[0]);
            pthread_cleanup_pop(0);
        }
        return nullptr;
    }
};

[[maybe_unused]] const Ending kExits = [](Seen &, int) { pthread_exit(reinterpret_cast<void *>(7)); };
[[maybe_unused]] const Ending kTests = [](Seen &, int) {
    pthread_cancel(pthread_self());
    pthread_testcancel();
};
[[maybe_unused]] const Ending kReads = [](Seen &seen, int fd) {
    char byte;
    seen.there = true;
    (void)!read(fd, &byte, 1);
};
[[maybe_unused]] const Ending kPolls = [](Seen &seen, int fd) {
    pollfd p = {fd, POLLIN, 0};
    seen.there = true;
    poll(&p, 1, -1);
};
[[maybe_unused]] const Ending kSleeps = [](Seen &seen, int) {
    seen.there = true;
    usleep(900000);
};
[[maybe_unused]] const Ending kSpins = [](Seen &seen, int) {
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
    seen.there = true;
    for (volatile int i = 0;; i = i + 1) {
    }
};

// On both kinds of stacks; how often the frame's handler and destructor have to run.
[[maybe_unused]] void check(Ending ending, bool hooks, void *result, bool cancelled_by_another, int frames)
{
    static stShareStack_t *share = co_alloc_sharestack(1, 128 * 1024);
    for (const bool copy : {false, true}) {
        Life life;
        life.ending = ending;
        life.hooks = hooks;
        life.share = copy ? share : nullptr;
        EXPECT_TRUE(life.ends(result, cancelled_by_another)) << copy;
        EXPECT_EQ(life.seen.cleaned, frames) << copy;
        EXPECT_EQ(life.seen.unwound, frames) << copy;
    }
}

} // namespace

MENDED(ProcessCancel, PthreadExitUnwindsTheCoroutineThatRuns)
{
    check(kExits, false, reinterpret_cast<void *>(7), false, 1);
}

MENDED(ProcessCancel, ACancellationPointUnwindsTheCoroutineThatRuns)
{
    check(kTests, false, PTHREAD_CANCELED, false, 1);
}

MENDED(ProcessCancel, ABlockingCallWithoutHooksIsACancellationPoint)
{
    check(kReads, false, PTHREAD_CANCELED, true, 1);
    check(kPolls, false, PTHREAD_CANCELED, true, 1);
    check(kSleeps, false, PTHREAD_CANCELED, true, 1);
}

MENDED(ProcessCancel, AsynchronousCancellationUnwindsTheCoroutineThatRuns)
{
    check(kSpins, false, PTHREAD_CANCELED, true, 1);
}

// The thread sleeps in its loop then, for all its coroutines.
MENDED(ProcessCancel, AHookedCallThatWaitsLetsTheThreadBeCancelledInItsLoop)
{
    check(kReads, true, PTHREAD_CANCELED, true, 0);
    check(kPolls, true, PTHREAD_CANCELED, true, 0);
    EXPECT_EQ(in_child([] {
                  co_set_hooks("all");
                  Life life;
                  life.ending = kSleeps;
                  life.hooks = true;
                  return life.ends(PTHREAD_CANCELED, true) && life.seen.cleaned == 0 ? 0 : 1;
              }),
              0);
}

MENDED(ProcessCancel, AThreadThatDisabledCancellationIsNotCancelledInItsLoop)
{
    pthread_t thread;
    static std::atomic<bool> there;
    there = false;
    ASSERT_EQ(0, pthread_create(
                     &thread, nullptr,
                     [](void *) -> void * {
                         pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
                         int slept = -1;
                         Co co([&] {
                             there = true;
                             slept = poll_one(-1, 100);
                         });
                         co.resume();
                         return loop_until([&] { return slept == 0; }) ? &there : nullptr;
                     },
                     nullptr));
    while (!there) {
        std::this_thread::yield();
    }
    pthread_cancel(thread);
    void *result = nullptr;
    pthread_join(thread, &result);
    EXPECT_EQ(result, &there);
}

MENDED(ProcessCancel, ThreadsThatEndOnCoroutineStacksLeaveNothing)
{
    const auto round = [] {
        Life life;
        life.ending = kExits;
        EXPECT_TRUE(life.ends(reinterpret_cast<void *>(7), false));
    };
    // (Its socket pair is the coroutine's, and stays open: two a round.)
    EXPECT_EQ(in_child([&] {
                  for (int i = 0; i < 100; ++i) {
                      round();
                  }
                  close_range(3, ~0U, 0);
                  const int descriptors = open_descriptors();
                  const long resident = status_kib("VmRSS:");
                  for (int i = 0; i < 400; ++i) {
                      round();
                  }
                  if (open_descriptors() - descriptors != 800) {
                      return 2;
                  }
                  return status_kib("VmRSS:") - resident < 4096 ? 0 : 1;
              }),
              0);
}
