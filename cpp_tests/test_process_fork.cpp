// fork in a process whose other threads work, from wherever coroutines run. Beside test_fork.cpp, where one thread forks.
#include "support.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include <netdb.h>

using namespace support;

namespace {

[[maybe_unused]] int status_of(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Everything of the library once, in a process that has just been forked. Lookups are left out where other threads were in
// one: the C library's own locks are then held for ever in the child, as docs/HOOKS.md says.
[[maybe_unused]] bool all_works(bool lookups)
{
    static stShareStack_t *share = co_alloc_sharestack(1, 128 * 1024);
    const stCoRoutineAttr_t copy = attr(0, share);
    Pipe pipe_;
    stCoCond_t *cond = co_cond_alloc();
    int done = 0;
    const auto polls = [&] { done += poll_one(pipe_.rd, 20000) == 1; };
    const auto waits = [&] { done += co_cond_wait(cond, 20000) == 0; };
    const auto looks_up = [&] {
        co_enable_hook_sys();
        addrinfo *found = nullptr;
        done += !lookups || getaddrinfo("localhost", nullptr, nullptr, &found) == 0;
        if (found != nullptr) {
            freeaddrinfo(found);
        }
    };
    const stCoRoutineAttr_t large = attr(512 * 1024);
    Co all[] = {Co(polls), Co(waits), Co(polls, &copy), Co(waits, &copy), Co(looks_up, &large), Co([&] {
                    done += poll_one(-1, 3) == 0;
                })};
    for (Co &co : all) {
        co.resume();
    }
    pipe_.put();
    co_cond_broadcast(cond);
    const bool good = loop_until([&] { return done == 6; });
    for (Co &co : all) {
        co.release();
    }
    return good && co_cond_free(cond) == 0;
}

// Threads that create, wait, signal, look names up and end, without a pause.
class Bustle {
public:
    explicit Bustle(bool lookups)
    {
        for (int i = 0; i < 3; ++i) {
            threads_.emplace_back([this, lookups] {
                while (!stop_) {
                    on_thread([this, lookups] { one_life(lookups); });
                }
            });
        }
    }
    ~Bustle()
    {
        stop_ = true;
        for (std::thread &t : threads_) {
            t.join();
        }
        EXPECT_GT(lives_, 0);
    }

private:
    void one_life(bool lookups)
    {
        std::vector<std::unique_ptr<Co>> all;
        int done = 0;
        const stCoRoutineAttr_t at = attr(256 * 1024);
        for (int i = 0; i < 8; ++i) {
            all.push_back(std::make_unique<Co>(
                [i, lookups, &done] {
                    co_enable_hook_sys();
                    int fds[2];
                    if (pipe(fds) != 0) {
                        std::abort();
                    }
                    poll_one(fds[0], i % 3);
                    close(fds[0]);
                    close(fds[1]);
                    addrinfo *found = nullptr;
                    if (lookups && getaddrinfo("localhost", nullptr, nullptr, &found) == 0) {
                        freeaddrinfo(found);
                    }
                    ++done;
                },
                &at));
            all.back()->resume();
        }
        if (!loop_until([&] { return done == 8; })) {
            std::abort();
        }
        ++lives_;
    }

    std::atomic<bool> stop_{false};
    std::atomic<long> lives_{0};
    std::vector<std::thread> threads_;
};

} // namespace

MENDED(ProcessFork, WhileOtherThreadsWorkGivesAChildInWhichAllWorks)
{
    for (const bool lookups : {false, true}) {
        const Bustle bustle(lookups);
        for (int i = 0; i < 40; ++i) {
            ASSERT_EQ(in_child([&] { return all_works(!lookups) ? 0 : 1; }, 30), 0) << i << ", lookups " << lookups;
        }
    }
}

MENDED(ProcessFork, FromACoroutineWhileOtherThreadsWorkGivesAChildInWhichAllWorks)
{
    stShareStack_t *share = co_alloc_sharestack(1, 256 * 1024);
    const Bustle bustle(true);
    for (const bool on_copy : {false, true}) {
        const stCoRoutineAttr_t at = on_copy ? attr(0, share) : attr(256 * 1024);
        int good = 0;
        Co forks(
            [&] {
                for (int i = 0; i < 15; ++i) {
                    good += in_child([] { return all_works(false) ? 0 : 1; }, 30) == 0;
                    poll_one(-1, 1);
                }
            },
            &at);
        forks.resume();
        EXPECT_TRUE(loop_until([&] { return forks.ended(); }, 60000));
        EXPECT_EQ(good, 15) << on_copy;
    }
}

// A child releases what it got of the threads that it does not have.
MENDED(ProcessFork, AChildReleasesTheCoroutinesOfThreadsThatItDoesNotHave)
{
    std::vector<stCoRoutine_t *> theirs;
    std::atomic<int> ready{0};
    std::atomic<bool> stop{false};
    stCoCond_t *cond = co_cond_alloc();
    std::thread other([&] {
        std::vector<std::unique_ptr<Co>> all;
        Pipe pipe_;
        const auto add = [&](const std::function<void()> &body) {
            all.push_back(std::make_unique<Co>(body));
            all.back()->resume();
            theirs.push_back(all.back()->get());
        };
        add([] { co_yield_ct(); });
        add([] { poll_one(-1, 100000); });
        add([&] { poll_one(pipe_.rd, -1); });
        add([&] { co_cond_timedwait(cond, -1); });
        ready = 1;
        loop_until([&] { return stop.load(); }, 60000);
    });
    while (ready == 0) {
        std::this_thread::yield();
    }
    EXPECT_EQ(in_child([&] {
                  for (stCoRoutine_t *co : theirs) {
                      co_release(co);
                  }
                  co_cond_signal(cond);
                  return all_works(true) ? 0 : 1;
              }),
              0);
    stop = true;
    other.join();
    co_cond_free(cond);
}

// A handler may dup and close wherever it interrupts its thread, in malloc too; fork waits for malloc's locks, and must not have
// there what the handler waits for.
MENDED(ProcessFork, GoesOnBesideHandlersThatInterruptAllocations)
{
    EXPECT_EQ(in_child([] {
                  static int known;
                  static std::atomic<bool> stop{false};
                  int ends[2];
                  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0 || co_hook_fd(ends[0]) != 0) {
                      return 2;
                  }
                  known = ends[0];
                  signal(SIGUSR1, [](int) { close(dup(known)); });
                  const auto allocates = [] {
                      std::vector<void *> kept(64);
                      for (size_t i = 0; !stop; ++i) {
                          void *&one = kept[i % kept.size()];
                          free(one);
                          one = malloc(2000 + i * 7919 % 30000);
                      }
                      std::for_each(kept.begin(), kept.end(), free);
                  };
                  std::vector<std::thread> threads(4);
                  for (std::thread &thread : threads) {
                      thread = std::thread(allocates);
                  }
                  std::thread signals([&threads] {
                      while (!stop) {
                          for (std::thread &thread : threads) {
                              pthread_kill(thread.native_handle(), SIGUSR1);
                          }
                          usleep(200);
                      }
                  });
                  bool good = true;
                  for (int i = 0; i < 60; ++i) {
                      const pid_t pid = fork();
                      if (pid == 0) {
                          signal(SIGUSR1, SIG_DFL);
                          _exit(i % 20 == 0 && !all_works(false) ? 1 : 0);
                      }
                      good &= pid > 0 && status_of(pid) == 0;
                  }
                  stop = true;
                  signals.join();
                  for (std::thread &thread : threads) {
                      thread.join();
                  }
                  return good ? 0 : 1;
              }),
              0);
}

MENDED(ProcessFork, FromTheLoopsCallbackServesTheWaitsInBoth)
{
    int slept = -1;
    Co co([&] { slept = poll_one(-1, 30); });
    co.resume();
    pid_t pid = -1;
    bool forked = false;
    const bool done = loop_until([&] {
        if (!forked) {
            forked = true;
            fflush(nullptr);
            pid = fork();
            if (pid == 0) {
                alarm(30);
            }
        }
        return slept == 0;
    });
    if (pid == 0) {
        _exit(done ? 0 : 1);
    }
    EXPECT_TRUE(done);
    EXPECT_EQ(status_of(pid), 0);
}

// Children of children, each forked from a coroutine of the one before, with a wait of the first still in flight.
MENDED(ProcessFork, EightGenerationsEachFromACoroutine)
{
    EXPECT_EQ(in_child([] {
                  int slept = -1;
                  Co sleeps([&] { slept = poll_one(-1, 50); });
                  sleeps.resume();
                  int generation = 0, status = 0;
                  const auto descend = [&] {
                      while (generation < 8) {
                          const pid_t pid = fork();
                          if (pid != 0) {
                              status = status_of(pid);
                              return;
                          }
                          ++generation;
                          poll_one(-1, 1);
                      }
                  };
                  Co forks(descend);
                  forks.resume();
                  const bool good = loop_until([&] { return forks.ended() && slept == 0; });
                  const int result = good && status == 0 ? 0 : 1;
                  if (generation > 0) {
                      _exit(result);
                  }
                  return result;
              }),
              0);
}
