// Threads that end with coroutines in every kind of wait: nothing is left behind once these are released, by whom and when
// ever, and nothing while they are not but their stacks.
#include "support.h"

#include <atomic>
#include <memory>

#include <netdb.h>

using namespace support;

namespace {

// What a thread leaves: for others to release.
struct Left {
    std::vector<stCoRoutine_t *> coroutines;
    stCoCond_t *cond = nullptr;
    std::unique_ptr<clsCoMutex> mutex;
    int fds[2] = {-1, -1};

    void release()
    {
        for (stCoRoutine_t *co : coroutines) {
            co_release(co);
        }
        coroutines.clear();
        EXPECT_EQ(co_cond_free(cond), 0);
        close(fds[0]);
        close(fds[1]);
    }
};

enum Kind { Yielded, NeverRan, Ended, InPoll, InManyPolls, InRead, OnTimer, OnCondition, OnMutex, InLookup, KindCount };

// What the coroutines have: it lives as long as they do.
struct Argument {
    Left *left;
    Kind kind;
};

[[maybe_unused]] void *wait_in(void *argument)
{
    const Argument *a = static_cast<const Argument *>(argument);
    Left &left = *a->left;
    co_enable_hook_sys();
    char byte;
    switch (a->kind) {
    case Ended:
        return nullptr;
    case InPoll:
        poll_one(left.fds[0], -1);
        break;
    case InManyPolls: {
        pollfd fds[40];
        for (pollfd &p : fds) {
            p = {left.fds[0], POLLIN, 0};
        }
        co_poll(co_get_epoll_ct(), fds, 40, 100000);
        break;
    }
    case InRead:
        co_set_timeout(left.fds[0], -1, -1);
        (void)!read(left.fds[0], &byte, 1);
        break;
    case OnTimer:
        poll_one(-1, 100000);
        break;
    case OnCondition:
        co_cond_timedwait(left.cond, 100000);
        break;
    case OnMutex:
        left.mutex->CoLock(); // the second waits for the first, which keeps it
        co_yield_ct();
        break;
    case InLookup: {
        addrinfo *found = nullptr;
        if (getaddrinfo("localhost", nullptr, nullptr, &found) == 0) {
            freeaddrinfo(found);
        }
        break;
    }
    default:
        co_yield_ct();
    }
    return nullptr;
}

Argument arguments[KindCount][2];

// In a thread of its own: coroutines in every kind of wait on this kind of stack, and the thread ends.
[[maybe_unused]] void leave_all(Left &left, stShareStack_t *share, bool loop_first)
{
    left.cond = co_cond_alloc();
    left.mutex = std::make_unique<clsCoMutex>();
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, left.fds) != 0 || co_hook_fd(left.fds[0]) != 0) {
        std::abort();
    }
    const stCoRoutineAttr_t at = share != nullptr ? attr(0, share) : attr(128 * 1024);
    for (int kind = 0; kind < KindCount; ++kind) {
        for (int i = 0; i < 2; ++i) {
            arguments[kind][i] = {&left, static_cast<Kind>(kind)};
            stCoRoutine_t *co = nullptr;
            if (co_create(&co, &at, wait_in, &arguments[kind][i]) != 0) {
                std::abort();
            }
            left.coroutines.push_back(co);
            if (kind != NeverRan) {
                co_resume(co);
            }
        }
    }
    if (loop_first) {
        loop_rounds(3);
    }
}

[[maybe_unused]] void a_thousand_leave_nothing(stShareStack_t *share, bool loop_first)
{
    EXPECT_EQ(in_child([&] {
                  const auto round = [&] {
                      Left left;
                      on_thread([&] { leave_all(left, share, loop_first); });
                      left.release();
                  };
                  for (int i = 0; i < 200; ++i) {
                      round();
                  }
                  const int descriptors = open_descriptors();
                  const long resident = status_kib("VmRSS:");
                  for (int i = 0; i < 1000; ++i) {
                      round();
                  }
                  if (open_descriptors() != descriptors) {
                      return 2;
                  }
                  return status_kib("VmRSS:") - resident < 4 * 1024 && !testing::Test::HasFailure() ? 0 : 1;
              }),
              0);
}

} // namespace

MENDED(ProcessThreads, AThousandThatEndWithPrivateStacksInEveryWaitLeaveNothing)
{
    a_thousand_leave_nothing(nullptr, false);
    a_thousand_leave_nothing(nullptr, true);
}

MENDED(ProcessThreads, AThousandThatEndWithCopyStacksInEveryWaitLeaveNothing)
{
    stShareStack_t *share = co_alloc_sharestack(2, 256 * 1024);
    a_thousand_leave_nothing(share, false);
    a_thousand_leave_nothing(share, true);
}

// Four releasing threads and four that end, at once.
MENDED(ProcessThreads, ThatEndWhileOthersReleaseTheirCoroutinesLeaveNothing)
{
    EXPECT_EQ(in_child([] {
                  const auto round = [] {
                      stCoCond_t *cond = co_cond_alloc();
                      std::atomic<stCoRoutine_t *> handed[64] = {};
                      std::atomic<bool> over{false};
                      std::thread releases([&] {
                          bool last = false;
                          while (!last) {
                              last = over;
                              for (auto &one : handed) {
                                  if (stCoRoutine_t *co = one.exchange(nullptr)) {
                                      co_release(co);
                                  }
                              }
                          }
                      });
                      on_thread([&] {
                          for (int i = 0; i < 64; ++i) {
                              stCoRoutine_t *co = nullptr;
                              co_create(
                                  &co, nullptr,
                                  [](void *c) -> void * {
                                      co_cond_timedwait(static_cast<stCoCond_t *>(c), 100000);
                                      return nullptr;
                                  },
                                  cond);
                              co_resume(co);
                              handed[i] = co;
                          }
                          if (now_ms() % 2 == 0) {
                              loop_rounds(1);
                          }
                      });
                      over = true;
                      releases.join();
                      co_cond_free(cond);
                  };
                  for (int i = 0; i < 100; ++i) {
                      round();
                  }
                  const int descriptors = open_descriptors();
                  const long resident = status_kib("VmRSS:");
                  for (int i = 0; i < 400; ++i) {
                      round();
                  }
                  return open_descriptors() == descriptors && status_kib("VmRSS:") - resident < 4 * 1024 ? 0 : 1;
              }),
              0);
}

// As a thread ends it takes its waits apart one after the other; another thread that releases the coroutines meanwhile, and
// whose own coroutines get their memory at once, must not find the ending thread's hands in there.
MENDED(ProcessThreads, ThatEndTouchNoCoroutineThatIsSomebodyElsesByNow)
{
    constexpr int count = 256;
    EXPECT_EQ(in_child([] {
                  static Pipe silent;
                  const stCoRoutineAttr_t small = attr(16 * 1024);
                  for (int round = 0; round < 300; ++round) {
                      static std::atomic<bool> ready;
                      static std::atomic<stCoRoutine_t *> theirs[count];
                      ready = false;
                      stCoCond_t *cond = co_cond_alloc();
                      std::thread ends([&small, cond] {
                          for (int i = 0; i < count; ++i) {
                              stCoRoutine_t *co = nullptr;
                              co_create(
                                  &co, &small,
                                  [](void *c) -> void * {
                                      if (c != nullptr) {
                                          co_cond_timedwait(static_cast<stCoCond_t *>(c), 100000);
                                      } else {
                                          poll_one(silent.rd, 100000);
                                      }
                                      return nullptr;
                                  },
                                  i % 2 ? cond : nullptr);
                              co_resume(co);
                              theirs[i] = co;
                          }
                          ready = true;
                      });
                      while (!ready) {
                      }
                      for (volatile int pause = round % 30 * 300; pause > 0; pause = pause - 1) {
                      }
                      int over = 0;
                      std::vector<std::unique_ptr<Co>> mine;
                      for (auto &one : theirs) {
                          co_release(one);
                          mine.push_back(std::make_unique<Co>([&over] { over += poll_one(silent.rd, 1) == 0; }, &small));
                          mine.back()->resume();
                      }
                      ends.join();
                      if (!loop_until([&] { return over == count; }, 10000) || co_cond_free(cond) != 0) {
                          return 1;
                      }
                  }
                  return 0;
              }, 60),
              0);
}

// The release comes at any moment of the last steps before a wait: however that ends, nobody waits any more.
MENDED(ProcessThreads, ThatReleaseACoroutineJustAsItBeginsToWaitTakeItOffItsWait)
{
    static std::atomic<int> messages;
    messages = 0;
    co_set_log_handler([](const char *) { ++messages; });
    std::atomic<stCoRoutine_t *> victim{nullptr};
    std::atomic<bool> stop{false};
    std::atomic<int> released{0};
    std::thread releases([&] {
        while (!stop) {
            if (stCoRoutine_t *co = victim.exchange(nullptr)) {
                co_release(co);
                ++released;
            }
        }
    });
    struct Wait {
        std::atomic<stCoRoutine_t *> *victim;
        stCoCond_t *cond;
        int steps;
        bool went_on;
    };
    // Keeps the loop from sleeping.
    Pipe ready;
    ready.put();
    Co busy([&] {
        while (!stop) {
            poll_one(ready.rd, 1000);
        }
    });
    busy.resume();
    bool went_on = false;
    const long long end = now_ms() + 3000;
    for (int i = 0; now_ms() < end && !went_on && messages == 0; ++i) {
        Wait wait{&victim, co_cond_alloc(), i % 150, false};
        stCoRoutine_t *co = nullptr;
        ASSERT_EQ(co_create(
                      &co, nullptr,
                      [](void *argument) -> void * {
                          Wait *w = static_cast<Wait *>(argument);
                          *w->victim = co_self();
                          for (volatile int step = 0; step < w->steps; step = step + 1) {
                          }
                          co_cond_timedwait(w->cond, -1);
                          w->went_on = true;
                          return nullptr;
                      },
                      &wait),
                  0);
        co_resume(co);
        while (released != i + 1) {
            std::this_thread::yield();
        }
        loop_rounds(2);
        co_cond_signal(wait.cond);
        loop_rounds(1);
        EXPECT_EQ(co_cond_free(wait.cond), 0);
        went_on = wait.went_on;
    }
    stop = true;
    releases.join();
    co_set_log_handler(nullptr);
    EXPECT_EQ(messages, 0) << "conditions were freed that somebody still waited on";
    EXPECT_FALSE(went_on);
}
