// What becomes of the memory of coroutines that ended: kept for the next one, or given back to the kernel.
#include "support.h"

#include <atomic>
#include <memory>

using support::Co;
using support::in_child;
using support::status_kib;

namespace {

constexpr int COUNT = 2000;
constexpr size_t TOUCHED = 16 * 1024;

void touch_stack(unsigned char byte)
{
    unsigned char bytes[TOUCHED];
    memset(bytes, byte, sizeof bytes);
    asm volatile("" : : "r"(bytes) : "memory");
}

// Runs a loop that has nothing to do until `done()` holds, looked at by another thread, which then ends the
// process with status 0; with status 1 after 20 s.
[[noreturn]] void loop_at_rest_until(const std::function<bool()> &done)
{
    std::thread([&] {
        for (int tries = 0; tries < 2000 && !done(); ++tries) {
            usleep(10000);
        }
        _exit(done() ? 0 : 1);
    }).detach();
    co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
    _exit(2);
}

} // namespace

MENDED(StackMemory, OfEndedCoroutinesGoesBackBeforeALongSleepThoughTheyAreKept)
{
    EXPECT_EQ(in_child([]() -> int {
                  std::vector<std::unique_ptr<Co>> all;
                  for (int i = 0; i < COUNT; ++i) {
                      all.push_back(std::make_unique<Co>([] {
                          touch_stack(1);
                          co_yield_ct();
                      }));
                      all.back()->resume();
                  }
                  const long peak = status_kib("VmRSS:");
                  for (auto &co : all) {
                      co->resume();
                  }
                  const long added = COUNT * static_cast<long>(TOUCHED) / 1024;
                  loop_at_rest_until([=] { return peak - status_kib("VmRSS:") > added * 9 / 10; });
              }),
              0);
}

MENDED(StackMemory, OfSuspendedOnesStaysWhenEndedNeighboursGiveTheirsBack)
{
    EXPECT_EQ(in_child([]() -> int {
                  // Every third ends; every third is suspended; every third is suspended and says it has ended.
                  static int wrong = 0;
                  std::vector<std::unique_ptr<Co>> all;
                  for (int i = 0; i < 3 * COUNT / 4; ++i) {
                      all.push_back(std::make_unique<Co>([i] {
                          unsigned char bytes[TOUCHED];
                          memset(bytes, i & 0xff, sizeof bytes);
                          asm volatile("" : : "r"(bytes) : "memory");
                          if (i % 3 != 0) {
                              co_yield_ct();
                          }
                          for (unsigned char byte : bytes) {
                              wrong += byte != (i & 0xff);
                          }
                      }));
                      all.back()->resume();
                      if (i % 3 == 2) {
                          all.back()->get()->cEnd = 1;
                      }
                  }
                  const long peak = status_kib("VmRSS:");
                  // The loop falls asleep for over a second, which is when memory goes back; then they go on.
                  Co later([&] {
                      const long ended = COUNT / 4 * static_cast<long>(TOUCHED) / 1024;
                      do {
                          support::poll_one(-1, 2000);
                      } while (peak - status_kib("VmRSS:") < ended * 8 / 10);
                      for (size_t i = 0; i < all.size(); ++i) {
                          if (i % 3 == 2) {
                              all[i]->get()->cEnd = 0;
                          }
                          if (i % 3 == 0) {
                              all[i]->reset();
                          }
                          all[i]->resume();
                          wrong += !all[i]->ended();
                      }
                      _exit(wrong == 0 ? 0 : 3);
                  });
                  later.resume();
                  co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
                  return 2;
              }),
              0);
}

MENDED(StackMemory, OfAnotherThreadsCoroutinesIsLeftAlone)
{
    EXPECT_EQ(in_child([]() -> int {
                  static std::atomic<int> made{0};
                  static std::atomic<bool> stop{false};
                  // Makes, runs and ends coroutines as fast as it can while the main thread's loop gives back.
                  std::thread other([] {
                      while (!stop) {
                          std::vector<std::unique_ptr<Co>> some;
                          for (int i = 0; i < 100; ++i) {
                              some.push_back(std::make_unique<Co>([i] {
                                  unsigned char bytes[4096];
                                  memset(bytes, i, sizeof bytes);
                                  asm volatile("" : : "r"(bytes) : "memory");
                                  co_yield_ct();
                                  for (unsigned char byte : bytes) {
                                      if (byte != i) {
                                          _exit(4);
                                      }
                                  }
                                  ++made;
                              }));
                              some.back()->resume();
                          }
                          for (auto &co : some) {
                              co->resume();
                          }
                      }
                  });
                  // A wait of more than a second, cut short: memory goes back as the loop falls asleep.
                  int ends[2];
                  if (pipe(ends) != 0) {
                      return 5;
                  }
                  Co waits([&] {
                      for (int round = 0; round < 50; ++round) {
                          std::vector<std::unique_ptr<Co>> mine;
                          for (int i = 0; i < 200; ++i) {
                              mine.push_back(std::make_unique<Co>([] { touch_stack(2); }));
                              mine.back()->resume();
                          }
                          char byte;
                          if (support::poll_one(ends[0], 5000) != 1 || read(ends[0], &byte, 1) != 1) {
                              _exit(6);
                          }
                      }
                      stop = true;
                  });
                  waits.resume();
                  std::thread wakes([&] {
                      for (int round = 0; round < 50; ++round) {
                          usleep(10000);
                          if (write(ends[1], "x", 1) != 1) {
                              _exit(7);
                          }
                      }
                  });
                  std::thread ends_it([&] {
                      wakes.join();
                      other.join();
                      _exit(made > 0 ? 0 : 8);
                  });
                  co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
                  return 2;
              }),
              0);
}

MENDED(StackMemory, OfAReleasedCoroutineComesBackWithNothingOfItsLastLife)
{
    int ran = 0;
    for (int i = 0; i < 100; ++i) {
        Co co([&] {
            stCoRoutine_t *self = co_self();
            EXPECT_EQ(self->cEnableSysHook, 0);
            EXPECT_EQ(self->cEnd, 0);
            EXPECT_EQ(co_getspecific(0), nullptr);
            EXPECT_EQ(co_getspecific(700), nullptr);
            co_enable_hook_sys();
            co_setspecific(0, &ran);
            if (i % 2 == 0) {
                co_setspecific(700, &ran);
            }
            ++ran;
            if (i % 3 == 0) {
                co_yield_ct();
            }
        });
        EXPECT_EQ(co.get()->cStart, 0);
        co.resume();
    }
    EXPECT_EQ(ran, 100);
}
