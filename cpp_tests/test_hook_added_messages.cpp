// recvmsg, sendmsg, recvmmsg and sendmmsg, if asked for; and MSG_WAITALL of all that receives.
#ifndef COLIB_PEER

#include "added_support.h"

using namespace support;

namespace {

// A message in one part, with room for control data if wanted.
struct Message {
    std::string bytes;
    iovec part;
    msghdr header = {};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};

    explicit Message(std::string text) : bytes(std::move(text)), part{&bytes[0], bytes.size()}
    {
        header.msg_iov = &part;
        header.msg_iovlen = 1;
    }
    Message(const Message &) = delete;
    Message &operator=(const Message &) = delete;
    cmsghdr *with_control()
    {
        header.msg_control = control;
        header.msg_controllen = sizeof control;
        return CMSG_FIRSTHDR(&header);
    }
    void with_descriptor(int fd)
    {
        cmsghdr *head = with_control();
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(head), &fd, sizeof fd);
    }
    int descriptor()
    {
        int fd = -1;
        const cmsghdr *head = CMSG_FIRSTHDR(&header);
        if (head != nullptr && head->cmsg_type == SCM_RIGHTS) {
            memcpy(&fd, CMSG_DATA(head), sizeof fd);
        }
        return fd;
    }
};

const char *const all_of_these = "recvmsg,sendmsg,recvmmsg,sendmmsg,socketpair,pipe";

std::vector<mmsghdr> several(Message &message, size_t count)
{
    return std::vector<mmsghdr>(count, mmsghdr{message.header, 0});
}

Fd udp_socket(sockaddr_in *address)
{
    Fd fd(raw_socket(AF_INET, SOCK_DGRAM));
    *address = {};
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof *address;
    bind(fd, reinterpret_cast<sockaddr *>(address), size);
    getsockname(fd, reinterpret_cast<sockaddr *>(address), &size);
    return fd;
}

// Sends `bytes` in pieces, past the hooks, letting others run in between.
void in_pieces(int fd, const std::string &bytes, size_t piece)
{
    for (size_t at = 0; at < bytes.size(); at += piece) {
        nap(5);
        raw_write(fd, &bytes[at], std::min(piece, bytes.size() - at));
    }
}

// A stream on which 1000 bytes come in ten pieces: `receive` gets all, and others run meanwhile.
void receives_all(const std::function<ssize_t(int fd, char *buf, size_t size)> &receive)
{
    with_hooks(all_of_these, [&] {
        HookedPair hooked = hooked_unix_pair();
        auto pair = made_socketpair();
        const int ways[2][2] = {{hooked.fd, hooked.peer}, {pair->a, pair->b}};
        for (const auto &way : ways) {
            const std::string bytes = pattern_of(1000);
            Co sender([&] { in_pieces(way[1], bytes, 100); });
            sender.resume();
            std::string got(bytes.size(), '\0');
            EXPECT_EQ(1000, receive(way[0], &got[0], got.size()));
            EXPECT_TRUE(got == bytes);
            while (!sender.ended()) {
                nap(1);
            }
        }
    });
}

} // namespace

TEST(WaitAll, of_recv_waits_for_all)
{
    receives_all([](int fd, char *buf, size_t size) { return recv(fd, buf, size, MSG_WAITALL); });
}

TEST(WaitAll, of_recvfrom_waits_for_all)
{
    receives_all([](int fd, char *buf, size_t size) {
        return recvfrom(fd, buf, size, MSG_WAITALL, nullptr, nullptr);
    });
}

TEST(WaitAll, of_recvmsg_waits_for_all)
{
    receives_all([](int fd, char *buf, size_t size) {
        iovec parts[] = {{buf, 150}, {buf + 150, 0}, {buf + 150, size - 150}};
        msghdr header = {};
        header.msg_iov = parts;
        header.msg_iovlen = 3;
        return recvmsg(fd, &header, MSG_WAITALL);
    });
}

TEST(WaitAll, of_a_peek_waits_for_all_and_leaves_it)
{
    receives_all([](int fd, char *buf, size_t size) {
        EXPECT_EQ(static_cast<ssize_t>(size), recv(fd, buf, size, MSG_WAITALL | MSG_PEEK));
        memset(buf, 0, size);
        return recv(fd, buf, size, 0);
    });
}

TEST(WaitAll, returns_what_came_before_the_end)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair();
        raw_write(pair->b, "abc", 3);
        Co closer([&] {
            nap(30);
            close(std::exchange(pair->b, -1));
        });
        closer.resume();
        char buf[8];
        EXPECT_EQ(3, recv(pair->a, buf, sizeof buf, MSG_WAITALL));
        EXPECT_EQ(0, recv(pair->a, buf, sizeof buf, MSG_WAITALL));
    });
}

TEST(WaitAll, returns_what_came_before_the_time_out)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair();
        EXPECT_EQ(0, set_timeout_option(pair->a, SO_RCVTIMEO, 80));
        char buf[8];
        for (int flags : {MSG_WAITALL | MSG_PEEK, +MSG_WAITALL}) {
            raw_write(pair->b, "a", flags & MSG_PEEK ? 1 : 0);
            const long long start = now_ms();
            EXPECT_EQ(1, recv(pair->a, buf, sizeof buf, flags));
            EXPECT_GE(now_ms() - start, 79);
            EXPECT_LT(now_ms() - start, 400);
        }
        TIMES_OUT(80, recv(pair->a, buf, sizeof buf, MSG_WAITALL));
    });
}

TEST(WaitAll, leaves_a_reset_to_the_next_call)
{
    with_hooks(all_of_these, [] {
        HookedPair pair = hooked_tcp_pair();
        pair.put("abc");
        Co resetter([&] {
            nap(30);
            const linger now = {1, 0};
            raw_setsockopt(pair.peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
            pair.peer.reset();
        });
        resetter.resume();
        char buf[8];
        EXPECT_EQ(3, recv(pair.fd, buf, sizeof buf, MSG_WAITALL));
        FAILS(ECONNRESET, recv(pair.fd, buf, sizeof buf, 0));
    });
}

TEST(WaitAll, of_datagrams_returns_one)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair(SOCK_DGRAM);
        raw_write(pair->b, "one", 3);
        char buf[8];
        EXPECT_EQ(3, recv(pair->a, buf, sizeof buf, MSG_WAITALL));
    });
}

TEST(NeverWaiting, flags_are_honoured_by_all_that_receives)
{
    with_hooks(all_of_these, [] {
        HookedPair tcp = hooked_tcp_pair();
        char buf[8];
        Message message("12345678");
        for (int flag : {MSG_DONTWAIT, MSG_ERRQUEUE}) {
            FAILS(EAGAIN, recv(tcp.fd, buf, sizeof buf, flag));
            FAILS(EAGAIN, recvfrom(tcp.fd, buf, sizeof buf, flag, nullptr, nullptr));
            FAILS(EAGAIN, recvmsg(tcp.fd, &message.header, flag));
            std::vector<mmsghdr> all = several(message, 2);
            FAILS(EAGAIN, recvmmsg(tcp.fd, all.data(), 2, flag, nullptr));
        }
        FAILS(EINVAL, recv(tcp.fd, buf, sizeof buf, MSG_OOB));
        FAILS(EINVAL, recvmsg(tcp.fd, &message.header, MSG_OOB));
    });
}

TEST(NeverWaiting, calls_over_and_over_let_others_run)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair(SOCK_DGRAM);
        Message message("12345678");
        std::vector<mmsghdr> all = several(message, 1);
        const std::function<int()> calls[] = {
            [&] { return static_cast<int>(recvmsg(pair->a, &message.header, MSG_DONTWAIT)); },
            [&] { return recvmmsg(pair->a, all.data(), 1, MSG_DONTWAIT, nullptr); },
            [&] { return static_cast<int>(sendmsg(pair->a, &message.header, MSG_DONTWAIT)); },
            [&] { return sendmmsg(pair->a, all.data(), 1, MSG_DONTWAIT); },
        };
        fill(pair->a, 8);
        for (const auto &call : calls) {
            bool others_ran = false;
            Co other([&] {
                nap(1);
                others_ran = true;
            });
            other.resume();
            const long long start = now_ms();
            while (!others_ran && now_ms() < start + 5000) {
                ASSERT_EQ(-1, call());
                ASSERT_EQ(EAGAIN, errno);
            }
            EXPECT_TRUE(others_ran);
        }
    });
}

TEST(AddedRecvmsg, returns_sender_parts_flags_and_the_truth_about_truncation)
{
    with_hooks(all_of_these, [] {
        const int fd = socket(AF_INET, SOCK_DGRAM, 0);
        sockaddr_in own = {}, peer_address, sender = {};
        own.sin_family = AF_INET;
        own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof own;
        ASSERT_EQ(0, bind(fd, reinterpret_cast<sockaddr *>(&own), size));
        getsockname(fd, reinterpret_cast<sockaddr *>(&own), &size);
        Fd peer = udp_socket(&peer_address);
        Co other([&] {
            nap(20);
            syscall(SYS_sendto, peer.get(), "abcdef", 6, 0, &own, sizeof own);
        });
        other.resume();
        Message message("1234");
        message.header.msg_name = &sender;
        message.header.msg_namelen = sizeof sender;
        EXPECT_EQ(4, recvmsg(fd, &message.header, 0));
        EXPECT_EQ("abcd", message.bytes);
        EXPECT_EQ(MSG_TRUNC, message.header.msg_flags & MSG_TRUNC);
        EXPECT_EQ(peer_address.sin_port, sender.sin_port);
        EXPECT_EQ(sizeof sender, message.header.msg_namelen);
        close(fd);
    });
}

TEST(AddedRecvmsg, takes_descriptors_that_sendmsg_passes)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair(), passed = made_pipe();
        Co sender([&] {
            co_enable_hook_sys();
            nap(20);
            Message message("x");
            message.with_descriptor(passed->a);
            EXPECT_EQ(1, sendmsg(pair->b, &message.header, 0));
        });
        sender.resume();
        Message message("?");
        message.with_control();
        EXPECT_EQ(1, recvmsg(pair->a, &message.header, MSG_WAITALL));
        Fd got(message.descriptor());
        ASSERT_GE(got, 0);
        raw_write(passed->b, "y", 1);
        char byte = 0;
        EXPECT_EQ(1, raw_read(got, &byte, 1));
        EXPECT_EQ('y', byte);
    });
}

TEST(AddedRecvmsg, with_msg_peek_leaves_the_message)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair(SOCK_DGRAM);
        raw_write(pair->b, "abcd", 4);
        for (int flags : {+MSG_PEEK, +MSG_PEEK, 0}) {
            Message message("????");
            EXPECT_EQ(4, recvmsg(pair->a, &message.header, flags));
            EXPECT_EQ("abcd", message.bytes);
        }
    });
}

TEST(AddedRecvmsg, waits_as_long_as_the_time_out_says)
{
    with_hooks(all_of_these, [] {
        HookedPair hooked = hooked_unix_pair();
        auto pair = made_socketpair();
        Message message("?");
        std::vector<mmsghdr> all = several(message, 2);
        for (int fd : {hooked.fd.get(), pair->a}) {
            set_timeout_option(fd, SO_RCVTIMEO, 60);
            TIMES_OUT(60, recvmsg(fd, &message.header, 0));
            TIMES_OUT(60, recvmmsg(fd, all.data(), 2, 0, nullptr));
        }
    });
}

TEST(AddedRecvmsg, of_bad_arguments_fails_as_the_manual_says)
{
    with_hooks(all_of_these, [] {
        HookedPair hooked = hooked_unix_pair();
        auto pair = made_socketpair(), ends = made_pipe();
        Message message("?");
        FAILS(EBADF, recvmsg(-1, &message.header, 0));
        FAILS(EBADF, recvmsg(999, &message.header, 0));
        FAILS(ENOTSOCK, recvmsg(ends->a, &message.header, 0));
        for (int fd : {hooked.fd.get(), pair->a}) {
            FAILS(EFAULT, recvmsg(fd, nowhere<msghdr>(), 0));
            FAILS(EFAULT, recvmsg(fd, hidden<msghdr *>(nullptr), MSG_WAITALL));
            Message bad("?");
            bad.header.msg_iov = nowhere<iovec>();
            FAILS(EFAULT, recvmsg(fd, &bad.header, 0));
            bad.header.msg_iov = &bad.part;
            bad.header.msg_iovlen = IOV_MAX + 1;
            FAILS(EMSGSIZE, recvmsg(fd, &bad.header, 0));
            bad.header.msg_iovlen = SIZE_MAX;
            FAILS(EMSGSIZE, recvmsg(fd, &bad.header, MSG_WAITALL));
            bad.header.msg_iovlen = 1;
            bad.part.iov_base = nowhere();
            raw_write(fd == pair->a ? pair->b : hooked.peer.get(), "x", 1);
            FAILS(EFAULT, recvmsg(fd, &bad.header, 0));
        }
        const int stream = socket(AF_INET, SOCK_STREAM, 0);
        FAILS(ENOTCONN, recvmsg(stream, &message.header, 0));
        close(stream);
    });
}

TEST(AddedRecvmsg, of_a_refused_datagram_reports_it)
{
    with_hooks(all_of_these, [] {
        sockaddr_in closed;
        udp_socket(&closed);
        const int fd = socket(AF_INET, SOCK_DGRAM, 0);
        ASSERT_EQ(0, connect(fd, reinterpret_cast<sockaddr *>(&closed), sizeof closed));
        Message message("x");
        EXPECT_EQ(1, sendmsg(fd, &message.header, 0));
        FAILS(ECONNREFUSED, recvmsg(fd, &message.header, 0));
        close(fd);
    });
}

TEST(AddedSendmsg, goes_on_until_all_is_sent)
{
    with_hooks(all_of_these, [] {
        HookedPair hooked = hooked_unix_pair();
        auto pair = made_socketpair();
        const int ways[2][2] = {{hooked.fd.forget(), hooked.peer}, {std::exchange(pair->a, -1), pair->b}};
        for (const auto &way : ways) {
            Taker taker(way[1], 20);
            Message message(pattern_of(1 << 20));
            std::vector<iovec> parts;
            for (size_t i = 0; i < 64; ++i) {
                parts.push_back({&message.bytes[i << 14], 1 << 14});
            }
            message.header.msg_iov = parts.data();
            message.header.msg_iovlen = parts.size();
            EXPECT_EQ(1 << 20, sendmsg(way[0], &message.header, 0));
            close(way[0]);
            EXPECT_TRUE(taker.bytes() == message.bytes);
        }
    });
}

TEST(AddedSendmsg, passes_a_descriptor_once_though_it_sends_in_pieces)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair();
        Message message(pattern_of(1 << 20));
        message.with_descriptor(pair->b);
        Co sender([&] {
            co_enable_hook_sys();
            EXPECT_EQ(1 << 20, sendmsg(pair->a, &message.header, 0));
            close(std::exchange(pair->a, -1));
        });
        sender.resume();
        int descriptors = 0;
        ssize_t n, total = 0;
        do {
            Message got(std::string(4096, '\0'));
            got.with_control();
            n = recvmsg(pair->b, &got.header, 0);
            total += n;
            Fd fd(got.descriptor());
            descriptors += fd >= 0;
        } while (n > 0);
        EXPECT_EQ(1 << 20, total);
        EXPECT_EQ(1, descriptors);
    });
}

TEST(AddedSendmsg, returns_what_was_sent_after_a_stall)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair();
        Message message(pattern_of(1 << 20));
        EXPECT_EQ(0, set_timeout_option(pair->a, SO_SNDTIMEO, 60));
        const ssize_t put = sendmsg(pair->a, &message.header, 0);
        EXPECT_GT(put, 0);
        EXPECT_LT(put, 1 << 20);
        TIMES_OUT(60, sendmsg(pair->a, &message.header, 0));
    });
}

TEST(AddedSendmsg, of_bad_arguments_fails_as_the_manual_says)
{
    with_hooks(all_of_these, [] {
        signal(SIGPIPE, SIG_IGN);
        HookedPair hooked = hooked_unix_pair();
        auto pair = made_socketpair(), ends = made_pipe(), datagrams = made_socketpair(SOCK_DGRAM);
        Message message("x"), long_one(std::string(1 << 22, 'x'));
        FAILS(EBADF, sendmsg(-1, &message.header, 0));
        FAILS(ENOTSOCK, sendmsg(ends->b, &message.header, 0));
        for (int fd : {hooked.fd.get(), pair->a}) {
            FAILS(EFAULT, sendmsg(fd, nowhere<msghdr>(), 0));
            Message bad("?");
            bad.header.msg_iov = nowhere<iovec>();
            FAILS(EFAULT, sendmsg(fd, &bad.header, 0));
            bad.header.msg_iov = &bad.part;
            bad.header.msg_iovlen = IOV_MAX + 1;
            FAILS(EMSGSIZE, sendmsg(fd, &bad.header, 0));
            bad.header.msg_iovlen = 1;
            bad.part.iov_base = nowhere();
            FAILS(EFAULT, sendmsg(fd, &bad.header, 0));
        }
        sockaddr_un named = {};
        named.sun_family = AF_UNIX;
        message.header.msg_name = &named;
        message.header.msg_namelen = sizeof named;
        FAILS(EISCONN, sendmsg(pair->a, &message.header, 0));
        message.header.msg_name = nullptr;
        message.header.msg_namelen = 0;
        FAILS(EMSGSIZE, sendmsg(datagrams->a, &long_one.header, 0));
        FAILS(EOPNOTSUPP, sendmsg(datagrams->a, &message.header, MSG_OOB));
        const int stream = socket(AF_UNIX, SOCK_STREAM, 0), loose = socket(AF_INET, SOCK_DGRAM, 0);
        FAILS(ENOTCONN, sendmsg(stream, &message.header, 0));
        FAILS(EDESTADDRREQ, sendmsg(loose, &message.header, 0));
        close(std::exchange(pair->b, -1));
        FAILS(EPIPE, sendmsg(pair->a, &message.header, 0));
        close(stream);
        close(loose);
    });
}

TEST(AddedRecvmmsg, waits_for_as_many_as_asked_for)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair(SOCK_DGRAM);
        Co sender([&] {
            for (int i = 0; i < 5; ++i) {
                nap(5);
                raw_write(pair->b, "abcdef", i + 1);
            }
        });
        sender.resume();
        Message message("??????");
        std::vector<mmsghdr> all = several(message, 5);
        EXPECT_EQ(5, recvmmsg(pair->a, all.data(), 5, 0, nullptr));
        for (unsigned i = 0; i < 5; ++i) {
            EXPECT_EQ(i + 1, all[i].msg_len);
        }
        while (!sender.ended()) {
            nap(1);
        }
    });
}

TEST(AddedRecvmmsg, with_waitforone_takes_what_is_there)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair(SOCK_DGRAM);
        Co sender([&] {
            nap(20);
            raw_write(pair->b, "a", 1);
            raw_write(pair->b, "bc", 2);
        });
        sender.resume();
        Message message("??????");
        std::vector<mmsghdr> all = several(message, 5);
        EXPECT_EQ(2, recvmmsg(pair->a, all.data(), 5, MSG_WAITFORONE, nullptr));
        EXPECT_EQ(2u, all[1].msg_len);
    });
}

TEST(AddedRecvmmsg, ends_at_its_time_out_with_what_has_come)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair(SOCK_DGRAM);
        raw_write(pair->b, "a", 1);
        Message message("?");
        std::vector<mmsghdr> all = several(message, 3);
        timespec timeout = {0, 80 * 1000 * 1000};
        const long long start = now_ms();
        EXPECT_EQ(1, recvmmsg(pair->a, all.data(), 3, 0, &timeout));
        EXPECT_GE(now_ms() - start, 78);
        EXPECT_LT(now_ms() - start, 400);
    });
}

TEST(AddedRecvmmsg, of_bad_arguments_fails_as_the_manual_says)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair(SOCK_DGRAM), ends = made_pipe();
        Message message("?");
        std::vector<mmsghdr> all = several(message, 2);
        timespec bad = {0, -1};
        FAILS(EBADF, recvmmsg(-1, all.data(), 2, 0, nullptr));
        FAILS(ENOTSOCK, recvmmsg(ends->a, all.data(), 2, 0, nullptr));
        FAILS(EFAULT, recvmmsg(pair->a, nowhere<mmsghdr>(), 2, 0, nullptr));
        FAILS(EFAULT, recvmmsg(pair->a, nowhere<mmsghdr>(), hidden(UINT_MAX), 0, nullptr));
        FAILS(EINVAL, recvmmsg(pair->a, all.data(), 2, 0, &bad));
        FAILS(EFAULT, recvmmsg(pair->a, all.data(), 2, 0, nowhere<timespec>()));
        EXPECT_EQ(0, recvmmsg(pair->a, all.data(), 0, 0, nullptr));
    });
}

TEST(AddedSendmmsg, sends_each_message_and_its_length)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair(SOCK_SEQPACKET);
        const size_t count = 600;
        Message message(std::string(1000, 'm'));
        std::vector<mmsghdr> all = several(message, count);
        Taker taker(pair->b, 20);
        EXPECT_EQ(static_cast<int>(count), sendmmsg(pair->a, all.data(), count, 0));
        for (const mmsghdr &each : all) {
            ASSERT_EQ(1000u, each.msg_len);
        }
        close(std::exchange(pair->a, -1));
        EXPECT_EQ(count * 1000, taker.bytes().size());
    });
}

TEST(AddedSendmmsg, sends_each_message_whole_on_a_stream)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair();
        Message message(pattern_of(300000));
        std::vector<mmsghdr> all = several(message, 4);
        Taker taker(pair->b, 20);
        EXPECT_EQ(4, sendmmsg(pair->a, all.data(), 4, 0));
        for (const mmsghdr &each : all) {
            EXPECT_EQ(300000u, each.msg_len);
        }
        close(std::exchange(pair->a, -1));
        std::string wanted;
        for (int i = 0; i < 4; ++i) {
            wanted += message.bytes;
        }
        EXPECT_TRUE(taker.bytes() == wanted);
    });
}

TEST(AddedSendmmsg, returns_how_many_went_after_a_stall)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair(SOCK_DGRAM);
        Message message("m");
        std::vector<mmsghdr> all = several(message, 1000);
        EXPECT_EQ(0, set_timeout_option(pair->a, SO_SNDTIMEO, 60));
        const long long start = now_ms();
        const int put = sendmmsg(pair->a, all.data(), 1000, 0);
        EXPECT_GT(put, 0);
        EXPECT_LT(put, 1000);
        EXPECT_GE(now_ms() - start, 59);
        TIMES_OUT(60, sendmmsg(pair->a, all.data(), 1000, 0));
    });
}

TEST(AddedSendmmsg, of_bad_arguments_fails_as_the_manual_says)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair(SOCK_DGRAM), ends = made_pipe();
        Message message("m"), long_one(std::string(1 << 22, 'x'));
        std::vector<mmsghdr> all = several(message, 2);
        FAILS(EBADF, sendmmsg(-1, all.data(), 2, 0));
        FAILS(ENOTSOCK, sendmmsg(ends->b, all.data(), 2, 0));
        FAILS(EFAULT, sendmmsg(pair->a, nowhere<mmsghdr>(), 2, 0));
        FAILS(EFAULT, sendmmsg(pair->a, nowhere<mmsghdr>(), hidden(UINT_MAX), 0));
        EXPECT_EQ(0, sendmmsg(pair->a, all.data(), 0, 0));
        all[1].msg_hdr = long_one.header;
        EXPECT_EQ(1, sendmmsg(pair->a, all.data(), 2, 0)) << "what went before the error counts";
    });
}

#endif
