// Hooked connect.
#include "loop_support.h"

using namespace support;

namespace {

// A listener that answers no more: its queue is full, so that further attempts get no reply.
struct SilentListener {
    Listener listener{0};
    std::vector<Fd> in_queue;

    SilentListener()
    {
        // Until one attempt stays without an answer.
        for (int i = 0; i < 16; ++i) {
            in_queue.emplace_back(raw_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK));
            const int fd = in_queue.back();
            syscall(SYS_connect, fd, listener.generic(), sizeof listener.addr);
            pollfd p = {fd, POLLOUT, 0};
            if (raw_poll(&p, 1, 100) == 0) {
                return;
            }
        }
        std::abort();
    }
};

sockaddr_in nobody()
{
    Listener closed;
    return closed.addr;
}

int connect_to(int fd, const sockaddr_in &addr)
{
    return connect(fd, reinterpret_cast<const sockaddr *>(&addr), sizeof addr);
}

} // namespace

TEST(HookedConnect, that_succeeds_leaves_errno_zero)
{
    in_hooked_coroutine([] {
        Listener listener;
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        errno = EIO;
        EXPECT_EQ(0, connect_to(fd, listener.addr));
        EXPECT_EQ(0, errno);
        Fd accepted = listener.take();
        EXPECT_EQ(1, write(fd, "x", 1));
        char byte;
        EXPECT_EQ(1, raw_read(accepted, &byte, 1));
        close(fd);
    });
}

TEST(HookedConnect, yields_to_others_while_it_waits)
{
    on_thread([] {
        Listener listener;
        Group group;
        int result = -2;
        group.go_hooked([&] {
            const int fd = socket(AF_INET, SOCK_STREAM, 0);
            result = connect_to(fd, listener.addr);
            close(fd);
        });
        EXPECT_EQ(-2, result) << "it did not wait in the loop";
        ASSERT_TRUE(group.run());
        EXPECT_EQ(0, result);
    });
}

TEST(HookedConnect, to_a_port_without_a_listener_is_refused)
{
    in_hooked_coroutine([] {
        const sockaddr_in addr = nobody();
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT_EQ(-1, connect_to(fd, addr));
        EXPECT_EQ(ECONNREFUSED, errno);
        close(fd);
    });
}

TEST(HookedConnect, of_a_socket_the_program_made_non_blocking_does_not_wait)
{
    in_hooked_coroutine([] {
        SilentListener silent;
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        const long long start = now_ms();
        EXPECT_EQ(-1, connect_to(fd, silent.listener.addr));
        EXPECT_EQ(EINPROGRESS, errno);
        EXPECT_LT(now_ms() - start, 500);
        close(fd);
    });
}

TEST(HookedConnect, over_a_local_socket_succeeds)
{
    in_hooked_coroutine([] {
        UnixListener listener;
        const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        EXPECT_EQ(0, connect(fd, listener.generic(), listener.size));
        close(fd);
    });
}

TEST(HookedConnect, over_a_local_socket_with_a_full_backlog_fails_at_once)
{
    in_hooked_coroutine([] {
        UnixListener listener(0);
        std::vector<int> fds;
        int result = 0;
        const long long start = now_ms();
        while (result == 0 && fds.size() < 10) {
            fds.push_back(socket(AF_UNIX, SOCK_STREAM, 0));
            result = connect(fds.back(), listener.generic(), listener.size);
        }
        EXPECT_EQ(-1, result);
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_LT(now_ms() - start, 500);
        for (int fd : fds) {
            close(fd);
        }
    });
}

TEST(HookedConnect, of_a_datagram_socket_sets_its_peer)
{
    in_hooked_coroutine([] {
        Fd receiver(raw_socket(AF_INET, SOCK_DGRAM));
        sockaddr_in addr = {};
        addr.sin_family = AF_INET;
        addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof addr;
        bind(receiver, reinterpret_cast<sockaddr *>(&addr), size);
        getsockname(receiver, reinterpret_cast<sockaddr *>(&addr), &size);
        const int fd = socket(AF_INET, SOCK_DGRAM, 0);
        EXPECT_EQ(0, connect_to(fd, addr));
        EXPECT_EQ(2, send(fd, "hi", 2, 0));
        char buf[8];
        EXPECT_EQ(2, raw_read(receiver, buf, sizeof buf));
        close(fd);
    });
}

TEST(HookedConnect, reports_the_error_of_the_real_call)
{
    in_hooked_coroutine([] {
        Listener listener;
        EXPECT_EQ(-1, connect_to(-1, listener.addr));
        EXPECT_EQ(EBADF, errno);
        Pair pipe = plain_pipe();
        EXPECT_EQ(-1, connect_to(pipe.a, listener.addr));
        EXPECT_EQ(ENOTSOCK, errno);
        HookedPair pair = hooked_unix_pair();
        UnixListener other;
        EXPECT_EQ(-1, connect(pair.fd, other.generic(), other.size));
        EXPECT_EQ(EISCONN, errno);
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in wrong = listener.addr;
        wrong.sin_family = AF_INET6;
        EXPECT_EQ(-1, connect_to(fd, wrong));
        EXPECT_EQ(EAFNOSUPPORT, errno);
        close(fd);
    });
}

TEST(HookedConnect, of_a_plain_descriptor_is_the_plain_call)
{
    in_hooked_coroutine([] {
        Listener listener;
        Fd fd(raw_socket(AF_INET, SOCK_STREAM));
        bool others_ran = false;
        Co other([&] {
            nap(1);
            others_ran = true;
        });
        other.resume();
        EXPECT_EQ(0, connect_to(fd, listener.addr));
        EXPECT_FALSE(others_ran);
        nap(5);
    });
}

TEST(HookedConnect, serves_many_at_once)
{
    on_thread([] {
        Listener listener(256);
        Group group;
        int connected = 0;
        std::vector<int> fds(200, -1);
        for (int &fd : fds) {
            group.go_hooked([&] {
                fd = socket(AF_INET, SOCK_STREAM, 0);
                connected += connect_to(fd, listener.addr) == 0;
            });
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(200, connected);
        for (int fd : fds) {
            close(fd);
        }
    });
}

MENDED(HookedConnect, without_an_answer_ends_at_so_sndtimeo)
{
    in_hooked_coroutine([] {
        SilentListener silent;
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        set_timeout_option(fd, SO_SNDTIMEO, 150);
        const long long start = now_ms();
        EXPECT_EQ(-1, connect_to(fd, silent.listener.addr));
        EXPECT_EQ(ETIMEDOUT, errno);
        EXPECT_GE(now_ms() - start, 149);
        EXPECT_LT(now_ms() - start, 5000);
        close(fd);
    });
}

// Two seconds are twice the default time-out of writes, which must not apply.
MENDED(HookedConnect, without_an_answer_goes_on_past_the_default_write_time_out)
{
    on_thread([] {
        SilentListener silent;
        bool connected = false;
        int fd = -1;
        Co connecting([&] {
            co_enable_hook_sys();
            fd = socket(AF_INET, SOCK_STREAM, 0);
            connect_to(fd, silent.listener.addr);
            connected = true;
        });
        connecting.resume();
        Group clock;
        int ticks = 0;
        clock.go([&] {
            for (; ticks < 20; ++ticks) {
                nap(100);
            }
        });
        ASSERT_TRUE(clock.run());
        EXPECT_EQ(20, ticks);
        EXPECT_FALSE(connected);
        close(fd); // wakes it
        ASSERT_TRUE(loop_until([&] { return connecting.ended(); }));
    });
}

MENDED(HookedConnect, on_the_main_coroutine_still_looks_blocking)
{
    on_thread([] {
        Co environment([] {});
        co_enable_hook_sys();
        Listener listener;
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT_EQ(0, connect_to(fd, listener.addr));
        EXPECT_EQ(0, errno);
        close(fd);
        const sockaddr_in addr = nobody();
        const int refused = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT_EQ(-1, connect_to(refused, addr));
        EXPECT_EQ(ECONNREFUSED, errno);
        close(refused);
    });
}
