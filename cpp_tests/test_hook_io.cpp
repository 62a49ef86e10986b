// Hooked read, recv, recvfrom, write, send and sendto.
#include "loop_support.h"

#include <algorithm>

#include <dlfcn.h>
#include <ext/stdio_filebuf.h>
#include <istream>

using namespace support;

namespace {

struct Reading {
    const char *name;
    std::function<ssize_t(int fd, void *buf, size_t n)> call;
};

const Reading readings[] = {
    {"read", [](int fd, void *buf, size_t n) { return read(fd, buf, n); }},
    {"recv", [](int fd, void *buf, size_t n) { return recv(fd, buf, n, 0); }},
    {"recvfrom", [](int fd, void *buf, size_t n) { return recvfrom(fd, buf, n, 0, nullptr, nullptr); }},
};

struct Writing {
    const char *name;
    std::function<ssize_t(int fd, const void *buf, size_t n)> call;
};

// The calls that go on until everything is written.
const Writing writings[] = {
    {"write", [](int fd, const void *buf, size_t n) { return write(fd, buf, n); }},
    {"send", [](int fd, const void *buf, size_t n) { return send(fd, buf, n, MSG_NOSIGNAL); }},
};

void for_each_reading(const std::function<void(const Reading &)> &body)
{
    for (const Reading &reading : readings) {
        SCOPED_TRACE(reading.name);
        in_hooked_coroutine([&] { body(reading); });
    }
}

void for_each_writing(const std::function<void(const Writing &)> &body)
{
    for (const Writing &writing : writings) {
        SCOPED_TRACE(writing.name);
        in_hooked_coroutine([&] { body(writing); });
    }
}

// Fills the socket until the kernel takes no more.
void fill(int fd)
{
    static const char block[4096] = {};
    while (syscall(SYS_sendto, fd, block, sizeof block, MSG_DONTWAIT, nullptr, 0) > 0) {
    }
    while (syscall(SYS_sendto, fd, block, 1, MSG_DONTWAIT, nullptr, 0) > 0) {
    }
}

ssize_t drain(int fd, size_t most = SIZE_MAX)
{
    static char sink[65536];
    ssize_t sum = 0, n;
    while (most > 0 && (n = syscall(SYS_recvfrom, fd, sink, std::min(sizeof sink, most), MSG_DONTWAIT,
                                    nullptr, nullptr)) > 0) {
        sum += n;
        most -= n;
    }
    return sum;
}

void until_ended(const Co &co)
{
    while (!co.ended()) {
        nap(1);
    }
}

} // namespace

TEST(HookedRead, returns_what_arrives_while_others_run)
{
    for_each_reading([](const Reading &reading) {
        HookedPair pair = hooked_tcp_pair();
        int ticks = 0;
        Co other([&] {
            for (; ticks < 10; ++ticks) {
                nap(2);
            }
            pair.put("hello");
        });
        other.resume();
        char buf[16] = {};
        EXPECT_EQ(5, reading.call(pair.fd, buf, sizeof buf));
        EXPECT_STREQ("hello", buf);
        EXPECT_EQ(10, ticks);
        until_ended(other);
    });
}

TEST(HookedRead, passes_through_the_loop_when_data_is_there)
{
    for_each_reading([](const Reading &reading) {
        HookedPair pair = hooked_unix_pair();
        pair.put("x");
        stCoCond_t *cond = co_cond_alloc();
        bool others_ran = false;
        Co other([&] {
            co_cond_timedwait(cond, -1);
            others_ran = true;
        });
        other.resume();
        co_cond_signal(cond);
        EXPECT_FALSE(others_ran);
        char buf[16];
        EXPECT_EQ(1, reading.call(pair.fd, buf, sizeof buf));
        EXPECT_TRUE(others_ran);
        co_cond_free(cond);
    });
}

TEST(HookedRead, waits_a_second_by_default_and_then_fails)
{
    for_each_reading([](const Reading &reading) {
        HookedPair pair = hooked_unix_pair();
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, reading.call(pair.fd, &byte, 1));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_GE(now_ms() - start, 990);
        EXPECT_LT(now_ms() - start, 3000);
    });
}

TEST(HookedRead, waits_as_long_as_so_rcvtimeo_says)
{
    for_each_reading([](const Reading &reading) {
        HookedPair pair = hooked_unix_pair();
        ASSERT_EQ(0, set_timeout_option(pair.fd, SO_RCVTIMEO, 100));
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, reading.call(pair.fd, &byte, 1));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_GE(now_ms() - start, 98);
        EXPECT_LT(now_ms() - start, 900);
    });
}

TEST(HookedRead, waits_longer_than_a_second_where_so_rcvtimeo_says_so)
{
    for_each_reading([](const Reading &reading) {
        HookedPair pair = hooked_unix_pair();
        ASSERT_EQ(0, set_timeout_option(pair.fd, SO_RCVTIMEO, 60000));
        Co other([&] {
            nap(1300);
            pair.put("x");
        });
        other.resume();
        char byte;
        EXPECT_EQ(1, reading.call(pair.fd, &byte, 1));
        until_ended(other);
    });
}

TEST(HookedRead, reports_the_end_of_the_stream)
{
    for_each_reading([](const Reading &reading) {
        HookedPair pair = hooked_tcp_pair();
        Co other([&] {
            nap(10);
            pair.peer.reset();
        });
        other.resume();
        char byte;
        EXPECT_EQ(0, reading.call(pair.fd, &byte, 1));
        until_ended(other);
    });
}

TEST(HookedRead, reports_a_reset_connection)
{
    for_each_reading([](const Reading &reading) {
        HookedPair pair = hooked_tcp_pair();
        Co other([&] {
            nap(10);
            const linger hard = {1, 0};
            raw_setsockopt(pair.peer, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
            pair.peer.reset();
        });
        other.resume();
        char byte;
        EXPECT_EQ(-1, reading.call(pair.fd, &byte, 1));
        EXPECT_EQ(ECONNRESET, errno);
        until_ended(other);
    });
}

TEST(HookedRead, of_a_bad_descriptor_reports_ebadf)
{
    for_each_reading([](const Reading &reading) {
        char byte;
        EXPECT_EQ(-1, reading.call(-1, &byte, 1));
        EXPECT_EQ(EBADF, errno);
        EXPECT_EQ(-1, reading.call(9990, &byte, 1));
        EXPECT_EQ(EBADF, errno);
        EXPECT_EQ(-1, reading.call(INT_MAX, &byte, 1));
        EXPECT_EQ(EBADF, errno);
    });
}

TEST(HookedRead, before_any_loop_runs_stays_suspended_and_is_served_once_one_does)
{
    for (const Reading &reading : readings) {
        on_thread([&] {
            Group group;
            HookedPair pair;
            ssize_t got = -2;
            group.go_hooked([&] {
                pair = hooked_unix_pair();
                char byte;
                got = reading.call(pair.fd, &byte, 1);
            });
            EXPECT_EQ(-2, got);
            pair.put("x");
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            EXPECT_EQ(-2, got);
            ASSERT_TRUE(group.run());
            EXPECT_EQ(1, got);
        });
    }
}

// Whoever resumes the reader gets the thread back at each yield.
TEST(HookedRead, that_are_always_ready_yield_at_least_every_64)
{
    for (const Reading &reading : readings) {
        SCOPED_TRACE(reading.name);
        on_thread([&] {
            int reads = 0;
            Co reader([&] {
                co_enable_hook_sys();
                HookedPair pair = hooked_unix_pair();
                pair.put(std::string(3000, 'x'));
                char byte; // filled by each read
                while (reads < 3000 && reading.call(pair.fd, &byte, 1) == 1) {
                    ++reads;
                }
            });
            int before = 0;
            do {
                before = reads;
                reader.resume();
                ASSERT_LE(reads - before, 65);
            } while (!reader.ended() && (reads > before || reads == 0));
            EXPECT_EQ(3000, reads);
        });
    }
}

TEST(HookedRead, that_are_always_ready_let_others_run)
{
    for_each_reading([](const Reading &reading) {
        HookedPair pair = hooked_unix_pair();
        pair.put(std::string(3000, 'x'));
        bool stop = false;
        int in_a_row = 0, most = 0, times = 0;
        Pair ready = plain_pipe();
        raw_write(ready.b, "x", 1);
        Co other([&] {
            while (!stop) {
                pollfd p = {ready.a, POLLIN, 0};
                co_poll(co_get_epoll_ct(), &p, 1, 1000);
                in_a_row = 0;
                ++times;
            }
        });
        other.resume();
        for (int i = 0; i < 3000; ++i) {
            char byte; // filled by each read
            ASSERT_EQ(1, reading.call(pair.fd, &byte, 1));
            most = std::max(most, ++in_a_row);
        }
        stop = true;
        until_ended(other);
        EXPECT_LE(most, 200); // a few yields may fall into one round of the loop
        EXPECT_GE(times, 15);
    });
}

TEST(HookedRead, of_datagrams_gives_one_at_a_time_and_its_sender)
{
    in_hooked_coroutine([] {
        const int fd = socket(AF_INET, SOCK_DGRAM, 0);
        sockaddr_in addr = {}, from = {};
        addr.sin_family = AF_INET;
        addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof addr;
        ASSERT_EQ(0, bind(fd, reinterpret_cast<sockaddr *>(&addr), sizeof addr));
        getsockname(fd, reinterpret_cast<sockaddr *>(&addr), &size);
        Co sender([&] {
            co_enable_hook_sys();
            nap(10);
            for (const char *text : {"one", "three"}) {
                EXPECT_EQ(static_cast<ssize_t>(strlen(text)),
                          sendto(fd, text, strlen(text), 0, reinterpret_cast<sockaddr *>(&addr), size));
            }
        });
        sender.resume();
        char buf[16];
        socklen_t from_size = sizeof from;
        EXPECT_EQ(3, recvfrom(fd, buf, sizeof buf, 0, reinterpret_cast<sockaddr *>(&from), &from_size));
        EXPECT_EQ(addr.sin_port, from.sin_port);
        EXPECT_EQ(5, recvfrom(fd, buf, sizeof buf, 0, nullptr, nullptr));
        until_ended(sender);
        close(fd);
    });
}

TEST(HookedRead, of_many_coroutines_serves_each_with_its_own_bytes)
{
    on_thread([] {
        Group group;
        int right = 0;
        std::vector<HookedPair> pairs(100);
        for (int i = 0; i < 100; ++i) {
            group.go_hooked([&, i] {
                pairs[i] = hooked_unix_pair();
                char buf[32] = {};
                set_timeout_option(pairs[i].fd, SO_RCVTIMEO, 15000);
                read(pairs[i].fd, buf, sizeof buf);
                right += buf == std::to_string(i);
            });
        }
        for (int i = 99; i >= 0; --i) {
            pairs[i].put(std::to_string(i));
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(100, right);
    });
}

MENDED(HookedRead, with_time_out_zero_waits_for_ever)
{
    for_each_reading([](const Reading &reading) {
        HookedPair pair = hooked_unix_pair();
        ASSERT_EQ(0, set_timeout_option(pair.fd, SO_RCVTIMEO, 0));
        Co other([&] {
            nap(1300); // longer than the default
            pair.put("x");
        });
        other.resume();
        char byte;
        EXPECT_EQ(1, reading.call(pair.fd, &byte, 1));
        until_ended(other);
    });
}

MENDED(HookedSend, with_msg_dontwait_does_not_wait)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        fill(pair.fd);
        char byte = 'x';
        const long long before = now_ms();
        EXPECT_EQ(-1, send(pair.fd, &byte, 1, MSG_DONTWAIT));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_EQ(-1, sendto(pair.fd, &byte, 1, MSG_DONTWAIT, nullptr, 0));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_LT(now_ms() - before, 500) << "the write time-out is a second";
    });
}

MENDED(HookedRead, with_msg_dontwait_does_not_wait)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, recv(pair.fd, &byte, 1, MSG_DONTWAIT));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_EQ(-1, recvfrom(pair.fd, &byte, 1, MSG_DONTWAIT, nullptr, nullptr));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_LT(now_ms() - start, 500);
        pair.put("x");
        EXPECT_EQ(1, recv(pair.fd, &byte, 1, MSG_DONTWAIT));
    });
}

MENDED(HookedRead, with_msg_dontwait_over_and_over_lets_others_run)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        Co writer([&] {
            nap(5);
            pair.put("x");
        });
        writer.resume();
        char byte;
        const long long deadline = now_ms() + 10000;
        ssize_t got;
        while ((got = recv(pair.fd, &byte, 1, MSG_DONTWAIT)) < 0 && now_ms() < deadline) {
            ASSERT_EQ(EAGAIN, errno);
        }
        EXPECT_EQ(1, got) << "the writer never ran";
        until_ended(writer);
    });
}

TEST(HookedRead, with_msg_peek_leaves_the_data)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        pair.put("x");
        char byte = 0;
        EXPECT_EQ(1, recv(pair.fd, &byte, 1, MSG_PEEK));
        EXPECT_EQ(1, recv(pair.fd, &byte, 1, 0));
        EXPECT_EQ('x', byte);
    });
}

MENDED(HookedRead, on_the_main_coroutine_still_looks_blocking)
{
    for (const Reading &reading : readings) {
        SCOPED_TRACE(reading.name);
        on_thread([&] {
            Co environment([] {});
            co_enable_hook_sys();
            HookedPair pair = hooked_unix_pair();
            std::thread writer([&] {
                std::this_thread::sleep_for(std::chrono::milliseconds(50));
                pair.put("x");
            });
            char byte = 0;
            EXPECT_EQ(1, reading.call(pair.fd, &byte, 1));
            EXPECT_EQ('x', byte);
            writer.join();
        });
    }
}

MENDED(HookedRead, on_the_main_coroutine_ends_at_its_time_out)
{
    for (const Reading &reading : readings) {
        SCOPED_TRACE(reading.name);
        on_thread([&] {
            Co environment([] {});
            co_enable_hook_sys();
            HookedPair pair = hooked_unix_pair();
            set_timeout_option(pair.fd, SO_RCVTIMEO, 50);
            char byte;
            const long long start = now_ms();
            EXPECT_EQ(-1, reading.call(pair.fd, &byte, 1));
            EXPECT_EQ(EAGAIN, errno);
            EXPECT_GE(now_ms() - start, 49);
            EXPECT_LT(now_ms() - start, 900);
        });
    }
}

MENDED(SetTimeout, sets_the_read_time_out_of_a_descriptor)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        EXPECT_EQ(0, co_set_timeout(pair.fd, 70, 5000));
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, read(pair.fd, &byte, 1));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_GE(now_ms() - start, 69);
        EXPECT_LT(now_ms() - start, 900);
    });
}

MENDED(SetTimeout, sets_the_write_time_out_of_a_descriptor)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        EXPECT_EQ(0, co_set_timeout(pair.fd, 5000, 70));
        fill(pair.fd);
        const long long start = now_ms();
        EXPECT_EQ(-1, write(pair.fd, "x", 1));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_GE(now_ms() - start, 69);
        EXPECT_LT(now_ms() - start, 900);
    });
}

MENDED(SetTimeout, of_minus_one_waits_for_ever)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        EXPECT_EQ(0, co_set_timeout(pair.fd, -1, -1));
        Co other([&] {
            nap(1300);
            pair.put("x");
        });
        other.resume();
        char byte;
        EXPECT_EQ(1, read(pair.fd, &byte, 1));
        until_ended(other);
    });
}

MENDED(SetTimeout, without_a_descriptor_sets_the_default_of_those_made_later)
{
    EXPECT_EQ(0, in_child(
                     [] {
                         in_hooked_coroutine([] {
                             HookedPair before = hooked_unix_pair();
                             EXPECT_EQ(0, co_set_timeout(-1, 80, 80));
                             HookedPair after = hooked_unix_pair();
                             char byte;
                             long long start = now_ms();
                             EXPECT_EQ(-1, read(after.fd, &byte, 1));
                             EXPECT_GE(now_ms() - start, 79);
                             EXPECT_LT(now_ms() - start, 900);
                             start = now_ms();
                             EXPECT_EQ(-1, read(before.fd, &byte, 1));
                             EXPECT_GE(now_ms() - start, 999);
                         });
                         return testing::Test::HasFailure() ? 1 : 0;
                     },
                     30));
}

MENDED(SetTimeout, of_a_descriptor_that_is_not_hooked_fails)
{
    in_hooked_coroutine([] {
        Pair pipe = plain_pipe();
        EXPECT_EQ(-1, co_set_timeout(pipe.a, 10, 10));
        EXPECT_EQ(EBADF, errno);
        EXPECT_EQ(-1, co_set_timeout(9990, 10, 10));
        EXPECT_EQ(EBADF, errno);
    });
}

TEST(HookedWrite, goes_on_until_all_is_written)
{
    for_each_writing([](const Writing &writing) {
        HookedPair pair = hooked_unix_pair();
        const size_t total = 4 << 20;
        std::string sent(total, 0);
        for (size_t i = 0; i < total; ++i) {
            sent[i] = static_cast<char>(i * 31 >> 3);
        }
        std::string got;
        Co reader([&] {
            std::vector<char> buf(70000);
            while (got.size() < total) {
                pollfd p = {pair.peer, POLLIN, 0};
                co_poll(co_get_epoll_ct(), &p, 1, 5000);
                const ssize_t n = raw_read(pair.peer, buf.data(), buf.size());
                if (n <= 0) {
                    return;
                }
                got.append(buf.data(), n);
            }
        });
        reader.resume();
        EXPECT_EQ(static_cast<ssize_t>(total), writing.call(pair.fd, sent.data(), total));
        until_ended(reader);
        EXPECT_TRUE(got == sent) << "bytes differ";
    });
}

TEST(HookedWrite, waits_so_sndtimeo_anew_after_each_progress)
{
    for_each_writing([](const Writing &writing) {
        HookedPair pair = hooked_unix_pair();
        set_timeout_option(pair.fd, SO_SNDTIMEO, 800);
        fill(pair.fd);
        const size_t total = 1 << 20;
        bool stop = false;
        Co slow_reader([&] {
            while (!stop) {
                nap(100);
                drain(pair.peer, 100000);
            }
        });
        slow_reader.resume();
        const std::vector<char> data(total);
        const long long start = now_ms();
        EXPECT_EQ(static_cast<ssize_t>(total), writing.call(pair.fd, data.data(), total));
        EXPECT_GT(now_ms() - start, 800) << "too fast to tell";
        stop = true;
        until_ended(slow_reader);
    });
}

TEST(HookedWrite, returns_what_was_written_after_a_stall)
{
    for_each_writing([](const Writing &writing) {
        HookedPair pair = hooked_unix_pair();
        set_timeout_option(pair.fd, SO_SNDTIMEO, 100);
        const std::vector<char> data(8 << 20);
        const long long start = now_ms();
        const ssize_t n = writing.call(pair.fd, data.data(), data.size());
        EXPECT_GT(n, 0);
        EXPECT_LT(n, static_cast<ssize_t>(data.size()));
        EXPECT_GE(now_ms() - start, 98);
        EXPECT_LT(now_ms() - start, 5000);
        EXPECT_EQ(n, drain(pair.peer));
    });
}

TEST(HookedWrite, fails_after_a_stall_in_which_nothing_was_written)
{
    for_each_writing([](const Writing &writing) {
        HookedPair pair = hooked_unix_pair();
        set_timeout_option(pair.fd, SO_SNDTIMEO, 100);
        fill(pair.fd);
        const long long start = now_ms();
        EXPECT_EQ(-1, writing.call(pair.fd, "x", 1));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_GE(now_ms() - start, 98);
    });
}

TEST(HookedWrite, waits_a_second_by_default)
{
    for_each_writing([](const Writing &writing) {
        HookedPair pair = hooked_unix_pair();
        fill(pair.fd);
        const long long start = now_ms();
        EXPECT_EQ(-1, writing.call(pair.fd, "x", 1));
        EXPECT_GE(now_ms() - start, 990);
        EXPECT_LT(now_ms() - start, 3000);
    });
}

TEST(HookedWrite, lets_others_run_while_it_waits)
{
    for_each_writing([](const Writing &writing) {
        HookedPair pair = hooked_unix_pair();
        fill(pair.fd);
        int ticks = 0;
        Co other([&] {
            for (; ticks < 10; ++ticks) {
                nap(2);
            }
            drain(pair.peer);
        });
        other.resume();
        EXPECT_EQ(1, writing.call(pair.fd, "x", 1));
        EXPECT_EQ(10, ticks);
        until_ended(other);
    });
}

TEST(HookedWrite, of_nothing_returns_at_once)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        EXPECT_EQ(0, write(pair.fd, "", 0));
        EXPECT_EQ(0, send(pair.fd, "", 0, 0));
    });
}

TEST(HookedWrite, to_a_peer_that_left_reports_epipe)
{
    signal(SIGPIPE, SIG_IGN);
    for_each_writing([](const Writing &writing) {
        HookedPair pair = hooked_unix_pair();
        pair.peer.reset();
        EXPECT_EQ(-1, writing.call(pair.fd, "x", 1));
        EXPECT_EQ(EPIPE, errno);
    });
    signal(SIGPIPE, SIG_DFL);
}

TEST(HookedWrite, returns_what_was_written_before_the_peer_left)
{
    signal(SIGPIPE, SIG_IGN);
    for_each_writing([](const Writing &writing) {
        HookedPair pair = hooked_unix_pair();
        set_timeout_option(pair.fd, SO_SNDTIMEO, 15000);
        Co peer([&] {
            nap(20);
            pair.peer.reset();
        });
        peer.resume();
        const std::vector<char> data(8 << 20);
        const ssize_t n = writing.call(pair.fd, data.data(), data.size());
        EXPECT_GT(n, 0);
        EXPECT_LT(n, static_cast<ssize_t>(data.size()));
        until_ended(peer);
    });
    signal(SIGPIPE, SIG_DFL);
}

TEST(HookedWrite, of_a_bad_descriptor_reports_ebadf)
{
    in_hooked_coroutine([] {
        EXPECT_EQ(-1, write(-1, "x", 1));
        EXPECT_EQ(EBADF, errno);
        EXPECT_EQ(-1, send(9990, "x", 1, 0));
        EXPECT_EQ(EBADF, errno);
        EXPECT_EQ(-1, sendto(-1, "x", 1, 0, nullptr, 0));
        EXPECT_EQ(EBADF, errno);
    });
}

MENDED(HookedWrite, with_time_out_zero_waits_for_ever)
{
    for_each_writing([](const Writing &writing) {
        HookedPair pair = hooked_unix_pair();
        ASSERT_EQ(0, set_timeout_option(pair.fd, SO_SNDTIMEO, 0));
        fill(pair.fd);
        Co other([&] {
            nap(1300);
            drain(pair.peer);
        });
        other.resume();
        EXPECT_EQ(1, writing.call(pair.fd, "x", 1));
        until_ended(other);
    });
}

MENDED(HookedWrite, on_the_main_coroutine_still_looks_blocking)
{
    for (const Writing &writing : writings) {
        SCOPED_TRACE(writing.name);
        on_thread([&] {
            Co environment([] {});
            co_enable_hook_sys();
            HookedPair pair = hooked_unix_pair();
            const size_t total = 2 << 20;
            std::thread reader([&] {
                std::vector<char> sink(65536);
                size_t got = 0;
                while (got < total) {
                    std::this_thread::sleep_for(std::chrono::milliseconds(1));
                    const ssize_t n = raw_read(pair.peer, sink.data(), sink.size());
                    if (n <= 0) {
                        return;
                    }
                    got += n;
                }
            });
            const std::vector<char> data(total);
            EXPECT_EQ(static_cast<ssize_t>(total), writing.call(pair.fd, data.data(), total));
            reader.join();
        });
    }
}

TEST(HookedSendto, tries_once_when_there_is_room)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        const std::vector<char> data(8 << 20);
        const ssize_t n = sendto(pair.fd, data.data(), data.size(), 0, nullptr, 0);
        EXPECT_GT(n, 0);
        EXPECT_LT(n, static_cast<ssize_t>(data.size())) << "it did not stop after one try";
    });
}

TEST(HookedSendto, waits_once_for_room_and_tries_again)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        fill(pair.fd);
        int ticks = 0;
        Co other([&] {
            for (; ticks < 5; ++ticks) {
                nap(2);
            }
            drain(pair.peer);
        });
        other.resume();
        EXPECT_EQ(1, sendto(pair.fd, "x", 1, 0, nullptr, 0));
        EXPECT_EQ(5, ticks);
        until_ended(other);
    });
}

TEST(HookedSendto, fails_after_a_wait_of_so_sndtimeo)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        set_timeout_option(pair.fd, SO_SNDTIMEO, 100);
        fill(pair.fd);
        const long long start = now_ms();
        EXPECT_EQ(-1, sendto(pair.fd, "x", 1, 0, nullptr, 0));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_GE(now_ms() - start, 98);
        EXPECT_LT(now_ms() - start, 900);
    });
}

// The C++ library's own shared object reads through the hooked name.
TEST(Hooks, serve_a_shared_library_that_reads)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        set_timeout_option(pair.fd, SO_RCVTIMEO, 15000);
        int ticks = 0;
        Co other([&] {
            for (; ticks < 5; ++ticks) {
                nap(2);
            }
            pair.put("word ");
        });
        other.resume();
        __gnu_cxx::stdio_filebuf<char> buffer(pair.fd.forget(), std::ios::in); // takes it over
        std::istream stream(&buffer);
        std::string word;
        stream >> word;
        EXPECT_EQ("word", word);
        EXPECT_EQ(5, ticks);
        until_ended(other);
    });
}

TEST(Hooks, are_found_by_name_at_run_time)
{
    using Read = ssize_t (*)(int, void *, size_t);
    const Read found = reinterpret_cast<Read>(dlsym(RTLD_DEFAULT, "read"));
    ASSERT_NE(nullptr, found);
    in_hooked_coroutine([found] {
        HookedPair pair = hooked_unix_pair();
        Co other([&] {
            nap(10);
            pair.put("x");
        });
        other.resume();
        char byte = 0;
        EXPECT_EQ(1, found(pair.fd, &byte, 1));
        EXPECT_EQ('x', byte);
        until_ended(other);
    });
}
