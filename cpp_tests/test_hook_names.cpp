// The second names of the hooked calls (double underscore) and the fortified ones act as the first.
#include "loop_support.h"

extern "C" {
ssize_t __read(int fd, void *buf, size_t n);
ssize_t __write(int fd, const void *buf, size_t n);
ssize_t __send(int fd, const void *buf, size_t n, int flags);
int __close(int fd);
int __connect(int fd, const struct sockaddr *addr, socklen_t size);
int __fcntl(int fd, int command, ...);
int __poll(struct pollfd *fds, nfds_t n, int timeout);
ssize_t __read_chk(int fd, void *buf, size_t n, size_t room);
ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags, struct sockaddr *addr,
                       socklen_t *size);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room);
}

using namespace support;

namespace {

// Whether `call`, a read of one byte, waits while others run and then returns what arrived.
inline void expect_cooperative_read(const std::function<ssize_t(int fd, char *byte)> &call)
{
    in_hooked_coroutine([&] {
        HookedPair pair = hooked_unix_pair();
        int ticks = 0;
        Co other([&] {
            for (; ticks < 5; ++ticks) {
                nap(2);
            }
            pair.put("x");
        });
        other.resume();
        char byte = 0;
        EXPECT_EQ(1, call(pair.fd, &byte));
        EXPECT_EQ('x', byte);
        EXPECT_EQ(5, ticks);
        while (!other.ended()) {
            nap(1);
        }
    });
}

// Whether `call`, a write of four megabytes, goes on until all is written.
inline void expect_whole_write(const std::function<ssize_t(int fd, const void *buf, size_t n)> &call)
{
    in_hooked_coroutine([&] {
        HookedPair pair = hooked_unix_pair();
        const std::vector<char> data(4 << 20);
        size_t drained = 0;
        Co reader([&] {
            static char sink[65536];
            while (drained < data.size()) {
                pollfd p = {pair.peer, POLLIN, 0};
                co_poll(co_get_epoll_ct(), &p, 1, 5000);
                const ssize_t n = raw_read(pair.peer, sink, sizeof sink);
                if (n <= 0) {
                    return;
                }
                drained += n;
            }
        });
        reader.resume();
        const ssize_t written = call(pair.fd, data.data(), data.size());
        EXPECT_EQ(static_cast<ssize_t>(data.size()), written);
        if (written != static_cast<ssize_t>(data.size())) {
            pair.peer.reset();
        }
        while (!reader.ended()) {
            nap(1);
        }
    });
}

inline int ends_with_abort(const std::function<void()> &body)
{
    return in_child(
        [&] {
            const int null = open("/dev/null", O_WRONLY);
            dup2(null, STDERR_FILENO);
            body();
            return 0;
        },
        10);
}

} // namespace

MENDED(SecondNames, of_read_wait_cooperatively)
{
    expect_cooperative_read([](int fd, char *byte) { return __read(fd, byte, 1); });
}

MENDED(SecondNames, of_write_write_all)
{
    expect_whole_write([](int fd, const void *buf, size_t n) { return __write(fd, buf, n); });
}

MENDED(SecondNames, of_send_write_all)
{
    expect_whole_write([](int fd, const void *buf, size_t n) { return __send(fd, buf, n, 0); });
}

MENDED(SecondNames, of_connect_wait_cooperatively)
{
    on_thread([] {
        Listener listener;
        Group group;
        int result = -2;
        group.go_hooked([&] {
            const int fd = socket(AF_INET, SOCK_STREAM, 0);
            result = __connect(fd, listener.generic(), sizeof listener.addr);
            close(fd);
        });
        EXPECT_EQ(-2, result);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(0, result);
    });
}

MENDED(SecondNames, of_fcntl_hide_our_flag)
{
    in_hooked_coroutine([] {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT_EQ(O_NONBLOCK, raw_flags(fd) & O_NONBLOCK);
        EXPECT_EQ(0, __fcntl(fd, F_GETFL) & O_NONBLOCK);
        close(fd);
    });
}

MENDED(SecondNames, of_close_are_noticed)
{
    in_hooked_coroutine([] {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        Pair next = plain_pair();
        EXPECT_EQ(0, __close(fd));
        syscall(SYS_dup3, next.a.get(), fd, 0);
        Fd reused(fd);
        raw_nonblock(reused);
        EXPECT_EQ(O_NONBLOCK, fcntl(reused, F_GETFL) & O_NONBLOCK) << "inherits the old state";
    });
}

MENDED(SecondNames, of_close_wake_the_waiters)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        group.go([&] {
            pollfd p = {pipe.a, POLLIN, 0};
            co_poll(co_get_epoll_ct(), &p, 1, -1);
        });
        loop_rounds(2);
        __close(pipe.a.forget());
        ASSERT_TRUE(group.run(5000));
    });
}

TEST(SecondNames, of_poll_wait_cooperatively)
{
    expect_cooperative_read([](int fd, char *byte) {
        pollfd p = {fd, POLLIN, 0};
        EXPECT_EQ(1, __poll(&p, 1, 10000));
        return raw_read(fd, byte, 1);
    });
}

MENDED(FortifiedNames, of_read_wait_cooperatively)
{
    expect_cooperative_read([](int fd, char *byte) { return __read_chk(fd, byte, 1, 1); });
}

MENDED(FortifiedNames, of_recv_wait_cooperatively)
{
    expect_cooperative_read([](int fd, char *byte) { return __recv_chk(fd, byte, 1, 1, 0); });
}

MENDED(FortifiedNames, of_recvfrom_wait_cooperatively)
{
    expect_cooperative_read(
        [](int fd, char *byte) { return __recvfrom_chk(fd, byte, 1, 1, 0, nullptr, nullptr); });
}

MENDED(FortifiedNames, of_poll_wait_cooperatively)
{
    expect_cooperative_read([](int fd, char *byte) {
        pollfd p = {fd, POLLIN, 0};
        EXPECT_EQ(1, __poll_chk(&p, 1, 10000, sizeof p));
        return raw_read(fd, byte, 1);
    });
}

TEST(FortifiedNames, of_read_end_the_program_when_the_buffer_is_too_small)
{
    EXPECT_EQ(128 + SIGABRT, ends_with_abort([] {
                  char buf[4];
                  __read_chk(0, buf, 5, sizeof buf);
              }));
}

TEST(FortifiedNames, of_recv_end_the_program_when_the_buffer_is_too_small)
{
    EXPECT_EQ(128 + SIGABRT, ends_with_abort([] {
                  char buf[4];
                  __recv_chk(0, buf, 5, sizeof buf, 0);
              }));
}

TEST(FortifiedNames, of_recvfrom_end_the_program_when_the_buffer_is_too_small)
{
    EXPECT_EQ(128 + SIGABRT, ends_with_abort([] {
                  char buf[4];
                  __recvfrom_chk(0, buf, 5, sizeof buf, 0, nullptr, nullptr);
              }));
}

TEST(FortifiedNames, of_poll_end_the_program_when_the_array_is_too_small)
{
    EXPECT_EQ(128 + SIGABRT, ends_with_abort([] {
                  pollfd p[2] = {{-1, 0, 0}, {-1, 0, 0}};
                  __poll_chk(p, 2, 0, sizeof p[0]);
              }));
}

TEST(FortifiedNames, of_calls_with_hooks_off_are_the_plain_calls)
{
    on_thread([] {
        Pair pair = plain_pair();
        char byte = 0;
        raw_write(pair.b, "abc", 3);
        EXPECT_EQ(1, __read_chk(pair.a, &byte, 1, 1));
        EXPECT_EQ('a', byte);
        EXPECT_EQ(1, __recv_chk(pair.a, &byte, 1, 1, 0));
        EXPECT_EQ('b', byte);
        pollfd p = {pair.a, POLLIN, 0};
        EXPECT_EQ(1, __poll_chk(&p, 1, 0, sizeof p));
        EXPECT_EQ(1, __recvfrom_chk(pair.a, &byte, 1, 1, 0, nullptr, nullptr));
        EXPECT_EQ('c', byte);
        EXPECT_EQ(0, __poll_chk(&p, 1, 0, sizeof p));
    });
}
