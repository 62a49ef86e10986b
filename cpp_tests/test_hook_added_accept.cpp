// accept and accept4, if asked for.
#ifndef COLIB_PEER

#include "added_support.h"

using namespace support;

namespace {

void with_accept(const std::function<void(HookedListener &)> &body)
{
    with_hooks("accept,accept4", [&] {
        HookedListener listener;
        body(listener);
    });
}

} // namespace

TEST(AddedAccept, returns_the_connection_and_its_address)
{
    with_accept([](HookedListener &listener) {
        Fd client = listener.client();
        sockaddr_in peer = {}, own = {};
        socklen_t size = sizeof peer;
        const int fd = accept(listener.fd, reinterpret_cast<sockaddr *>(&peer), &size);
        ASSERT_GE(fd, 0);
        EXPECT_EQ(sizeof peer, size);
        size = sizeof own;
        getsockname(client, reinterpret_cast<sockaddr *>(&own), &size);
        EXPECT_EQ(own.sin_port, peer.sin_port);
        close(fd);
    });
}

TEST(AddedAccept, makes_the_connection_known_and_leaves_it_blocking_underneath)
{
    with_accept([](HookedListener &listener) {
        Fd client = listener.client();
        const int fd = accept(listener.fd, nullptr, nullptr);
        EXPECT_FALSE(is_nonblocking(fd));
        bool others_ran = false;
        Co other([&] {
            nap(50);
            others_ran = true;
            raw_write(client, "x", 1);
        });
        other.resume();
        char byte;
        EXPECT_EQ(1, read(fd, &byte, 1)) << "it waits for ever by default";
        EXPECT_TRUE(others_ran);
        EXPECT_FALSE(is_nonblocking(fd));
        close(fd);
        nap(1);
    });
}

TEST(AddedAccept, of_a_connection_waits_longer_than_the_second_of_libcos_own)
{
    with_accept([](HookedListener &listener) {
        Fd client = listener.client();
        const int fd = accept(listener.fd, nullptr, nullptr);
        Co other([&] {
            nap(1300);
            raw_write(client, "x", 1);
        });
        other.resume();
        char byte;
        EXPECT_EQ(1, read(fd, &byte, 1));
        close(fd);
        while (!other.ended()) {
            nap(1);
        }
    });
}

TEST(AddedAccept, with_sock_nonblock_makes_a_connection_that_does_not_wait)
{
    with_accept([](HookedListener &listener) {
        Fd client = listener.client();
        const int fd = accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        EXPECT_EQ(O_NONBLOCK, fcntl(fd, F_GETFL) & O_NONBLOCK);
        EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
        char byte;
        FAILS(EAGAIN, read(fd, &byte, 1));
        close(fd);
    });
}

TEST(AddedAccept, waits_the_second_of_a_hooked_socket_by_default)
{
    with_accept([](HookedListener &listener) { TIMES_OUT(1000, accept(listener.fd, nullptr, nullptr)); });
}

TEST(AddedAccept, waits_as_long_as_so_rcvtimeo_says)
{
    with_accept([](HookedListener &listener) {
        EXPECT_EQ(0, set_timeout_option(listener.fd, SO_RCVTIMEO, 80));
        TIMES_OUT(80, accept4(listener.fd, nullptr, nullptr, 0));
    });
}

TEST(AddedAccept, passes_the_listeners_time_outs_on_as_tcp_does)
{
    with_accept([](HookedListener &listener) {
        EXPECT_EQ(0, set_timeout_option(listener.fd, SO_RCVTIMEO, 80));
        Fd client = listener.client();
        const int fd = accept(listener.fd, nullptr, nullptr);
        char byte;
        TIMES_OUT(80, read(fd, &byte, 1));
        close(fd);
    });
}

TEST(AddedAccept, of_a_listener_that_the_program_made_non_blocking_does_not_wait)
{
    with_accept([](HookedListener &listener) {
        EXPECT_EQ(0, fcntl(listener.fd, F_SETFL, O_NONBLOCK));
        FAILS(EAGAIN, accept(listener.fd, nullptr, nullptr));
        Fd client = listener.client();
        const int fd = accept(listener.fd, nullptr, nullptr);
        EXPECT_GE(fd, 0);
        EXPECT_EQ(0, co_set_timeout(fd, 50, 50)) << "the hooks know it";
        char byte;
        TIMES_OUT(50, read(fd, &byte, 1));
        close(fd);
    });
}

TEST(AddedAccept, that_fail_over_and_over_let_others_run)
{
    with_accept([](HookedListener &listener) {
        EXPECT_EQ(0, fcntl(listener.fd, F_SETFL, O_NONBLOCK));
        bool others_ran = false;
        Co other([&] {
            nap(1);
            others_ran = true;
        });
        other.resume();
        const long long start = now_ms();
        while (!others_ran && now_ms() < start + 5000) {
            FAILS(EAGAIN, accept(listener.fd, nullptr, nullptr));
        }
        EXPECT_TRUE(others_ran);
    });
}

TEST(AddedAccept, of_connections_that_wait_already_lets_others_run_every_64)
{
    with_accept([](HookedListener &listener) {
        std::vector<Fd> clients;
        for (int i = 0; i < 200; ++i) {
            clients.push_back(listener.client());
        }
        int accepted = 0, seen = 0;
        Co other([&] {
            nap(1);
            seen = accepted;
        });
        other.resume();
        for (; accepted < 200; ++accepted) {
            close(accept(listener.fd, nullptr, nullptr));
            if (accepted == 1) {
                std::this_thread::sleep_for(std::chrono::milliseconds(5));
            }
        }
        EXPECT_TRUE(other.ended());
        EXPECT_LE(seen, 130);
    });
}

TEST(AddedAccept, of_a_listener_that_the_hooks_do_not_know_is_plain)
{
    with_hooks("accept", [] {
        Listener listener;
        raw_nonblock(listener.fd);
        FAILS(EAGAIN, accept(listener.fd, nullptr, nullptr));
        Fd client(raw_socket(AF_INET, SOCK_STREAM));
        ASSERT_EQ(0, syscall(SYS_connect, client.get(), listener.generic(), sizeof listener.addr));
        Fd fd(accept(listener.fd, nullptr, nullptr));
        ASSERT_GE(fd, 0);
        EXPECT_EQ(-1, co_set_timeout(fd, 1, 1)) << "the hooks know the connection";
    });
}

TEST(AddedAccept, on_the_main_coroutine_waits_with_the_time_out)
{
    bounded([] {
        Chosen chosen("accept");
        on_thread([] {
            co_init_curr_thread_env();
            co_enable_hook_sys();
            HookedListener listener;
            EXPECT_EQ(0, set_timeout_option(listener.fd, SO_RCVTIMEO, 80));
            TIMES_OUT(80, accept(listener.fd, nullptr, nullptr));
            Fd client = listener.client();
            const int fd = accept(listener.fd, nullptr, nullptr);
            EXPECT_GE(fd, 0);
            close(fd);
        });
    });
}

TEST(AddedAccept, of_two_coroutines_on_one_blocking_listener_serves_both)
{
    with_hooks("accept", [] {
        Listener listener;
        ASSERT_EQ(0, co_hook_fd(listener.fd));
        int served = 0;
        Group group;
        for (int i = 0; i < 2; ++i) {
            group.go_hooked([&] {
                close(accept(listener.fd, nullptr, nullptr));
                ++served;
            });
        }
        // Both wake for the first connection; one of them must wait on, not stop the thread.
        for (int i = 0; i < 2; ++i) {
            Fd client(raw_socket(AF_INET, SOCK_STREAM));
            ASSERT_EQ(0, syscall(SYS_connect, client.get(), listener.generic(), sizeof listener.addr));
            nap(30);
            EXPECT_EQ(i + 1, served);
        }
    });
}

TEST(AddedAccept, whose_listener_is_shut_down_ends_with_einval)
{
    with_hooks("accept", [] {
        HookedListener listener;
        co_set_timeout(listener.fd, -1, -1);
        Co other([&] {
            nap(30);
            shutdown(listener.fd, SHUT_RDWR);
        });
        other.resume();
        EXPECT_EQ(-1, accept(listener.fd, nullptr, nullptr));
        EXPECT_EQ(EINVAL, errno);
    });
}

TEST(AddedAccept, whose_listener_is_closed_meanwhile_ends_with_ebadf)
{
    with_hooks("accept", [] {
        auto *listener = new HookedListener;
        const int fd = listener->fd;
        co_set_timeout(fd, -1, -1);
        Co other([&] {
            nap(30);
            delete listener;
        });
        other.resume();
        EXPECT_EQ(-1, accept(fd, nullptr, nullptr));
        EXPECT_EQ(EBADF, errno);
    });
}

TEST(AddedAccept, of_bad_arguments_fails_as_the_manual_says)
{
    with_hooks("accept,accept4,pipe,socketpair", [] {
        HookedListener listener;
        auto pipe = made_pipe();
        auto pair = made_socketpair();
        const int stream = socket(AF_INET, SOCK_STREAM, 0), datagrams = socket(AF_INET, SOCK_DGRAM, 0);
        FAILS(EBADF, accept(-1, nullptr, nullptr));
        FAILS(EBADF, accept(999, nullptr, nullptr));
        FAILS(EBADF, accept4(INT_MIN, nullptr, nullptr, 0));
        FAILS(ENOTSOCK, accept(pipe->a, nullptr, nullptr));
        FAILS(EINVAL, accept(stream, nullptr, nullptr));
        FAILS(EOPNOTSUPP, accept(datagrams, nullptr, nullptr));
        FAILS(EINVAL, accept(pair->a, nullptr, nullptr));
        FAILS(EINVAL, accept4(listener.fd, nullptr, nullptr, 1 << 20));
        Fd first = listener.client(), second = listener.client();
        socklen_t size = static_cast<socklen_t>(-5);
        sockaddr_in address;
        FAILS(EINVAL, accept(listener.fd, reinterpret_cast<sockaddr *>(&address), &size));
        socklen_t good = sizeof address;
        FAILS(EFAULT, accept(listener.fd, nowhere<sockaddr>(), &good));
        close(stream);
        close(datagrams);
    });
}

TEST(AddedAccept, without_a_free_number_fails_with_emfile)
{
    with_hooks("accept", [] {
        HookedListener listener;
        Fd client = listener.client();
        // The loop's own descriptors are there already.
        nap(1);
        rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);
        Fd lowest(static_cast<int>(syscall(SYS_dup, 0)));
        limit.rlim_cur = lowest.get();
        lowest.reset();
        setrlimit(RLIMIT_NOFILE, &limit);
        FAILS(EMFILE, accept(listener.fd, nullptr, nullptr));
        ++limit.rlim_cur;
        setrlimit(RLIMIT_NOFILE, &limit);
        const int fd = accept(listener.fd, nullptr, nullptr);
        EXPECT_GE(fd, 0) << "the connection is still there";
        close(fd);
    });
}

#endif
