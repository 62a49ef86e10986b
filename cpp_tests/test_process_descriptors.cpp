// The loops' own descriptors keep out of the way of programs that close and read numbers they do not have.
#include "support.h"

#include <atomic>

#include <sys/syscall.h>

using namespace support;

// A daemon closes a number twice; the loops of other threads must not be what it meets.
MENDED(ProcessDescriptors, ALoopsOwnDescriptorsAreNotTheNextNumbersToBeGivenOut)
{
    Pipe pipe_;
    const int low = dup(pipe_.rd);
    close(low);
    on_thread([&] {
        Co co([&] { poll_one(pipe_.rd, 10000); });
        co.resume();
        loop_rounds(2);
        EXPECT_EQ(fcntl(low, F_GETFD), -1) << "number " << low << " became the loop's";
        pipe_.put();
        EXPECT_TRUE(loop_until([&] { return co.ended(); }));
    });
}

// One thread closes low numbers that it does not have, and reads them, again and again, past the hooks; meanwhile threads
// come and go whose loops must wake when they are told to, and not otherwise.
MENDED(ProcessDescriptors, AThreadThatClosesNumbersOnceTooOftenStealsNoWakeUp)
{
    EXPECT_EQ(in_child([] {
                  std::atomic<bool> stop{false};
                  std::atomic<long> stolen{0};
                  const int first = dup(0);
                  close(first);
                  std::thread careless([&] {
                      char bytes[8];
                      while (!stop) {
                          for (int fd = first; fd < first + 8; ++fd) {
                              stolen += syscall(SYS_read, fd, bytes, sizeof bytes) == 8;
                              syscall(SYS_close, fd);
                          }
                      }
                  });
                  long late = 0;
                  const long long end = now_ms() + 2000;
                  while (now_ms() < end) {
                      stCoCond_t *cond = co_cond_alloc();
                      std::atomic<bool> waits{false};
                      std::thread serves([&] {
                          Co co([&] { late += co_cond_wait(cond, 1000) != 0; });
                          co.resume();
                          waits = true;
                          // Without a callback it sleeps until it is woken.
                          co_eventloop(co_get_epoll_ct(), [](void *p) { return static_cast<Co *>(p)->ended() ? -1 : 0; }, &co);
                      });
                      while (!waits) {
                          std::this_thread::yield();
                      }
                      co_cond_signal(cond);
                      serves.join();
                      co_cond_free(cond);
                  }
                  stop = true;
                  careless.join();
                  return (stolen != 0) + 2 * (late != 0);
              }),
              0);
}

// Threads open, hand over and close the same few numbers; a close that is not quite over takes nothing from the next owner.
MENDED(ProcessDescriptors, ANumberStaysKnownWhileOtherThreadsCloseAndOpen)
{
    std::atomic<bool> stop{false};
    std::atomic<long> unknown{0}, rounds{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 6; ++i) {
        threads.emplace_back([&] {
            while (!stop) {
                int fds[2];
                if (pipe(fds) != 0) {
                    std::abort();
                }
                for (const int fd : fds) {
                    unknown += co_hook_fd(fd) != 0;
                }
                for (int look = 0; look < 3; ++look) {
                    for (const int fd : fds) {
                        unknown += co_set_timeout(fd, -1, -1) != 0;
                    }
                    std::this_thread::yield();
                }
                close(fds[0]);
                close(fds[1]);
                ++rounds;
            }
        });
    }
    const long long end = now_ms() + 3000;
    while (now_ms() < end && unknown == 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    stop = true;
    for (std::thread &t : threads) {
        t.join();
    }
    EXPECT_EQ(unknown, 0) << "in " << rounds << " rounds";
}
