// Numbers that come and go by other calls than socket and close.
#include "loop_support.h"

#include <atomic>

#include <sys/syscall.h>
#include <sys/time.h>

using namespace support;

namespace {

// A hooked datagram socket on which nothing arrives, with a read time-out of 50 ms.
int quiet_socket()
{
    const int fd = socket(AF_INET, SOCK_DGRAM, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(0, bind(fd, reinterpret_cast<sockaddr *>(&address), sizeof address));
    EXPECT_EQ(0, co_set_timeout(fd, 50, 50));
    return fd;
}

long long time_of_a_read(int fd)
{
    char byte;
    const long long start = now_ms();
    EXPECT_EQ(-1, read(fd, &byte, 1));
    EXPECT_EQ(EAGAIN, errno);
    return now_ms() - start;
}

} // namespace

MENDED(Dup, of_a_hooked_socket_waits_as_the_socket_does)
{
    in_hooked_coroutine([] {
        const int fd = quiet_socket();
        const int copies[] = {dup(fd), dup2(fd, 200), dup3(fd, 201, O_CLOEXEC), fcntl(fd, F_DUPFD, 202)};
        for (int copy : copies) {
            ASSERT_GE(copy, 0);
            EXPECT_EQ(0, fcntl(copy, F_GETFL) & O_NONBLOCK);
            EXPECT_GE(time_of_a_read(copy), 49);
        }
        EXPECT_EQ(0, co_set_timeout(200, 1, 1));
        EXPECT_LT(time_of_a_read(fd), 40) << "one file, one state";
        for (int copy : copies) {
            close(copy);
        }
        EXPECT_LT(time_of_a_read(fd), 40) << "the others are closed";
        close(fd);
    });
}

MENDED(Dup2, onto_a_hooked_socket_forgets_it)
{
    in_hooked_coroutine([] {
        const int fd = quiet_socket();
        int ends[2];
        ASSERT_EQ(0, pipe2(ends, O_NONBLOCK));
        ASSERT_EQ(fd, dup2(ends[0], fd));
        EXPECT_NE(0, fcntl(fd, F_GETFL) & O_NONBLOCK) << "the pipe's own flag is hidden";
        EXPECT_LT(time_of_a_read(fd), 40) << "the pipe is non-blocking";
        for (int each : {fd, ends[0], ends[1]}) {
            close(each);
        }
    });
}

MENDED(Dup2, onto_a_number_that_is_waited_for_wakes_the_waiter)
{
    on_thread([] {
        int ends[2], others[2];
        ASSERT_EQ(0, pipe(ends));
        ASSERT_EQ(0, pipe(others));
        int got = -2;
        Co waiter([&] { got = poll_one(ends[0], -1); });
        waiter.resume();
        ASSERT_EQ(ends[0], dup2(others[0], ends[0]));
        EXPECT_TRUE(loop_until([&] { return got == 1; }));
        for (int each : {ends[0], ends[1], others[0], others[1]}) {
            close(each);
        }
    });
}

MENDED(Dup2, that_fails_or_changes_nothing_leaves_the_number_alone)
{
    in_hooked_coroutine([] {
        const int fd = quiet_socket();
        EXPECT_EQ(-1, dup2(-1, fd));
        EXPECT_EQ(EBADF, errno);
        EXPECT_EQ(fd, dup2(fd, fd));
        EXPECT_GE(time_of_a_read(fd), 49);
        close(fd);
    });
}

MENDED(CloseRange, forgets_hooked_sockets)
{
    EXPECT_EQ(0, in_child([] {
        in_hooked_coroutine([] {
            const int fd = quiet_socket();
            ASSERT_EQ(0, close_range(fd, fd + 10, 0));
            ASSERT_EQ(fd, syscall(SYS_dup3, 0, fd, 0)) << "a number of its past, given out past us";
            EXPECT_EQ(-1, co_set_timeout(fd, 1, 1));
            EXPECT_EQ(EBADF, errno);
        });
        return testing::Test::HasFailure() ? 1 : 0;
    }));
}

MENDED(Pipe, in_the_place_of_a_socket_closed_past_the_library_is_plain)
{
    in_hooked_coroutine([] {
        const int fd = quiet_socket();
        syscall(SYS_close, fd);
        int ends[2];
        ASSERT_EQ(0, pipe2(ends, O_NONBLOCK));
        ASSERT_EQ(fd, ends[0]);
        EXPECT_NE(0, fcntl(fd, F_GETFL) & O_NONBLOCK);
        EXPECT_LT(time_of_a_read(fd), 40);
        close(ends[0]);
        close(ends[1]);
    });
}

// What is known of a number may be changed by one thread while another closes it: of the next number that gets the
// same memory nothing is lost.
MENDED(HookNumbers, TimeoutsMayBeSetByOneThreadWhileAnotherClosesTheNumber)
{
    EXPECT_EQ(in_child([]() -> int {
                  static std::atomic<int> number{-1};
                  static std::atomic<bool> stop{false};
                  const auto sets = [] {
                      Co co([] {
                          co_enable_hook_sys();
                          const timeval patience = {1, 0};
                          for (bool other = false; !stop; other = !other) {
                              setsockopt(number, SOL_SOCKET, other ? SO_RCVTIMEO : SO_SNDTIMEO, &patience, sizeof patience);
                              co_set_timeout(number, 2000, 3000);
                          }
                      });
                      co.resume();
                  };
                  std::thread one(sets), other(sets);
                  Co co([] {
                      co_enable_hook_sys();
                      for (const long long end = support::now_ms() + 3000; support::now_ms() < end;) {
                          number = socket(AF_INET, SOCK_STREAM, 0);
                          sched_yield();
                          close(number);
                          const int next[] = {socket(AF_INET, SOCK_STREAM, 0), socket(AF_INET, SOCK_STREAM, 0)};
                          for (int fd : next) {
                              if (fd < 0 || close(fd) != 0) {
                                  _exit(1);
                              }
                          }
                      }
                      stop = true;
                  });
                  co.resume();
                  one.join();
                  other.join();
                  return 0;
              }),
              0);
}

MENDED(HookFd, TakesWhatCanBeWaitedForAndSaysWhatCannot)
{
    EXPECT_EQ(-1, co_hook_fd(-1));
    EXPECT_EQ(EBADF, errno);
    for (const char *path : {"/dev/null", "/", "/proc/self/exe"}) {
        const int fd = open(path, O_RDONLY);
        ASSERT_LE(0, fd);
        errno = 0;
        EXPECT_EQ(-1, co_hook_fd(fd)) << path;
        EXPECT_EQ(EPERM, errno) << path;
        close(fd);
        EXPECT_EQ(-1, co_hook_fd(fd)) << path << ", closed";
        EXPECT_EQ(EBADF, errno);
    }
    int ends[2];
    ASSERT_EQ(0, pipe(ends));
    const int before = open_descriptors();
    EXPECT_EQ(0, co_hook_fd(ends[0]));
    EXPECT_EQ(0, co_hook_fd(ends[0])) << "known already";
    EXPECT_EQ(before, open_descriptors());
    EXPECT_EQ(0, co_set_timeout(ends[0], 20, 20));
    in_hooked_coroutine([&] { EXPECT_GE(time_of_a_read(ends[0]), 19); });
    close(ends[0]);
    close(ends[1]);
}

// It is the same file as before: nobody who waits for it is told that it was closed.
MENDED(HookFd, LeavesThoseWaitingWhoWaitForTheDescriptorAlready)
{
    Pipe pipe;
    pollfd first = {pipe.rd, POLLIN, 0}, second = first;
    int result = -1;
    Co waiter([&] { result = co_poll(co_get_epoll_ct(), &first, 1, 10000); });
    waiter.resume();
    EXPECT_EQ(0, co_hook_fd(pipe.rd));
    Co other([&] { co_poll(co_get_epoll_ct(), &second, 1, 10000); });
    other.resume();
    loop_rounds(3);
    EXPECT_FALSE(waiter.ended()) << "revents " << first.revents;
    pipe.put();
    EXPECT_TRUE(loop_until([&] { return waiter.ended() && other.ended(); }));
    EXPECT_EQ(1, result);
    EXPECT_EQ(POLLIN, first.revents);
    EXPECT_EQ(POLLIN, second.revents);
}

// ... until it is.
MENDED(HookFd, LetsACloseWakeWhoWaitedBefore)
{
    Pipe pipe;
    int result = -1;
    pollfd one = {pipe.rd, POLLIN, 0};
    Co waiter([&] { result = co_poll(co_get_epoll_ct(), &one, 1, 10000); });
    waiter.resume();
    EXPECT_EQ(0, co_hook_fd(pipe.rd));
    close(pipe.rd);
    const long long start = now_ms();
    EXPECT_TRUE(loop_until([&] { return waiter.ended(); }));
    EXPECT_GT(5000, now_ms() - start) << "by its time-out";
    EXPECT_EQ(1, result);
    EXPECT_EQ(POLLNVAL, one.revents);
}
