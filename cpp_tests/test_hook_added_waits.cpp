// Each added call on sockets and descriptors lets the other coroutines of its thread run: 40 of them, each
// blocked 100 ms in it, take little more than 100 ms.
#ifndef COLIB_PEER

#include "added_support.h"

using namespace support;

namespace {

// A socket that the hooked socket() made, and its peer.
std::shared_ptr<HookedPair> made_socket() { return std::make_shared<HookedPair>(hooked_unix_pair()); }

iovec part_of(char *bytes, size_t size) { return {bytes, size}; }

// A message in one part.
struct Message {
    char bytes[64] = "message";
    iovec part = {bytes, 8};
    msghdr header = {};
    Message()
    {
        header.msg_iov = &part;
        header.msg_iovlen = 1;
    }
};

// A call that reads eight bytes from `fd`, and the peer that writes them.
template <typename Call> Blocking reading(std::shared_ptr<Two> two, Call call)
{
    return {[two, call] { EXPECT_EQ(8, call(two->a)); }, [two] { raw_write(two->b, "8 bytes!", 8); }};
}

// The same for a socket of socket().
template <typename Call> Blocking reading(std::shared_ptr<HookedPair> pair, Call call)
{
    return {[pair, call] { EXPECT_EQ(8, call(pair->fd)); }, [pair] { pair->put("8 bytes!"); }};
}

// A call that writes eight bytes to `to`, which is full until `from` is drained.
template <typename Owner, typename Call> Blocking writing(Owner owner, int to, int from, Call call)
{
    EXPECT_GT(fill(to), 0u);
    return {[owner, to, call] { EXPECT_EQ(8, call(to)); }, [owner, from] { EXPECT_GT(drain(from), 0u); }};
}

template <typename Call> Blocking writing_to_socketpair(Call call, int type = SOCK_STREAM)
{
    auto two = made_socketpair(type);
    return writing(two, two->a, two->b, call);
}

ssize_t by_read(int fd)
{
    char buf[64];
    return read(fd, buf, sizeof buf);
}

ssize_t by_readv(int fd)
{
    char a[4], b[60];
    const iovec parts[] = {part_of(a, sizeof a), part_of(b, sizeof b)};
    return readv(fd, parts, 2);
}

ssize_t by_recvmsg(int fd)
{
    Message message;
    message.part.iov_len = sizeof message.bytes;
    return recvmsg(fd, &message.header, 0);
}

ssize_t by_write(int fd) { return write(fd, "8 bytes!", 8); }

ssize_t by_writev(int fd)
{
    char a[] = "8 by", b[] = "tes!";
    const iovec parts[] = {part_of(a, 4), part_of(b, 4)};
    return writev(fd, parts, 2);
}

ssize_t by_sendmsg(int fd)
{
    Message message;
    return sendmsg(fd, &message.header, 0);
}

} // namespace

TEST(FortyAtOnce, in_accept_of_a_hooked_listener)
{
    forty_at_once("accept", [] {
        auto listener = std::make_shared<HookedListener>();
        return Blocking{[listener] {
                            Fd taken(accept(listener->fd, nullptr, nullptr));
                            EXPECT_GE(taken, 0);
                        },
                        [listener] { listener->client(); }};
    });
}

TEST(FortyAtOnce, in_accept4_of_a_listener_handed_over)
{
    forty_at_once("accept4", [] {
        auto listener = std::make_shared<Listener>();
        EXPECT_EQ(0, co_hook_fd(listener->fd));
        return Blocking{[listener] {
                            Fd taken(accept4(listener->fd, nullptr, nullptr, SOCK_CLOEXEC));
                            EXPECT_GE(taken, 0);
                        },
                        [listener] {
                            Fd client(raw_socket(AF_INET, SOCK_STREAM));
                            syscall(SYS_connect, client.get(), listener->generic(), sizeof listener->addr);
                        }};
    });
}

TEST(FortyAtOnce, in_readv_of_a_socket)
{
    forty_at_once("readv", [] { return reading(made_socket(), by_readv); });
}

TEST(FortyAtOnce, in_readv_of_a_socketpair)
{
    forty_at_once("readv,socketpair", [] { return reading(made_socketpair(), by_readv); });
}

TEST(FortyAtOnce, in_readv_of_a_pipe)
{
    forty_at_once("readv,pipe", [] { return reading(made_pipe(), by_readv); });
}

TEST(FortyAtOnce, in_recvmsg_of_a_socket)
{
    forty_at_once("recvmsg", [] { return reading(made_socket(), by_recvmsg); });
}

TEST(FortyAtOnce, in_recvmsg_of_a_socketpair)
{
    forty_at_once("recvmsg,socketpair", [] { return reading(made_socketpair(SOCK_DGRAM), by_recvmsg); });
}

TEST(FortyAtOnce, in_recvmmsg_for_its_first_message)
{
    forty_at_once("recvmmsg,socketpair", [] {
        return reading(made_socketpair(SOCK_DGRAM), [](int fd) {
            Message message;
            mmsghdr all[2] = {{message.header, 0}, {message.header, 0}};
            EXPECT_EQ(1, recvmmsg(fd, all, 2, MSG_WAITFORONE, nullptr));
            return all[0].msg_len;
        });
    });
}

TEST(FortyAtOnce, in_recvmmsg_for_its_last_message)
{
    forty_at_once("recvmmsg,socketpair", [] {
        auto two = made_socketpair(SOCK_DGRAM);
        raw_write(two->b, "8 bytes!", 8);
        return reading(two, [](int fd) {
            Message first, second;
            mmsghdr all[2] = {{first.header, 0}, {second.header, 0}};
            EXPECT_EQ(2, recvmmsg(fd, all, 2, 0, nullptr));
            return all[1].msg_len;
        });
    });
}

TEST(FortyAtOnce, in_read_of_a_socketpair)
{
    forty_at_once("socketpair", [] { return reading(made_socketpair(), by_read); });
}

TEST(FortyAtOnce, in_read_of_a_pipe)
{
    forty_at_once("pipe", [] { return reading(made_pipe(), by_read); });
}

TEST(FortyAtOnce, in_read_of_a_pipe2)
{
    forty_at_once("pipe2", [] {
        auto two = std::make_shared<Two>();
        EXPECT_EQ(0, pipe2(two->both(), O_CLOEXEC));
        return reading(two, by_read);
    });
}

TEST(FortyAtOnce, in_read_of_an_eventfd)
{
    forty_at_once("eventfd", [] {
        auto two = std::make_shared<Two>();
        two->a = eventfd(0, EFD_CLOEXEC);
        return Blocking{[two] {
                            uint64_t value = 0;
                            EXPECT_EQ(8, read(two->a, &value, sizeof value));
                            EXPECT_EQ(7u, value);
                        },
                        [two] {
                            const uint64_t value = 7;
                            raw_write(two->a, &value, sizeof value);
                        }};
    });
}

TEST(FortyAtOnce, in_write_to_a_full_eventfd)
{
    forty_at_once("eventfd", [] {
        auto two = std::make_shared<Two>();
        two->a = eventfd(0, EFD_CLOEXEC);
        const uint64_t most = UINT64_MAX - 1;
        raw_write(two->a, &most, sizeof most);
        return Blocking{[two] {
                            const uint64_t one = 1;
                            EXPECT_EQ(8, write(two->a, &one, sizeof one));
                        },
                        [two] {
                            uint64_t value = 0;
                            raw_read(two->a, &value, sizeof value);
                        }};
    });
}

TEST(FortyAtOnce, in_read_of_a_timer)
{
    forty_at_once("timerfd_create", [] {
        auto two = std::make_shared<Two>();
        two->a = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
        itimerspec in_100_ms = {};
        in_100_ms.it_value.tv_nsec = 100 * 1000 * 1000;
        EXPECT_EQ(0, timerfd_settime(two->a, 0, &in_100_ms, nullptr));
        return Blocking{[two] {
                            uint64_t times = 0;
                            EXPECT_EQ(8, read(two->a, &times, sizeof times));
                            EXPECT_EQ(1u, times);
                        },
                        [two] {}};
    });
}

TEST(FortyAtOnce, in_write_to_a_full_pipe)
{
    forty_at_once("pipe", [] {
        auto two = made_pipe();
        return writing(two, two->b, two->a, by_write);
    });
}

TEST(FortyAtOnce, in_writev_to_a_full_pipe)
{
    forty_at_once("pipe,writev", [] {
        auto two = made_pipe();
        return writing(two, two->b, two->a, by_writev);
    });
}

TEST(FortyAtOnce, in_writev_to_a_full_socket)
{
    forty_at_once("writev", [] {
        auto pair = made_socket();
        return writing(pair, pair->fd, pair->peer, by_writev);
    });
}

TEST(FortyAtOnce, in_writev_to_a_full_socketpair)
{
    forty_at_once("writev,socketpair", [] { return writing_to_socketpair(by_writev); });
}

TEST(FortyAtOnce, in_sendmsg_to_a_full_socket)
{
    forty_at_once("sendmsg", [] {
        auto pair = made_socket();
        return writing(pair, pair->fd, pair->peer, by_sendmsg);
    });
}

TEST(FortyAtOnce, in_sendmsg_to_a_full_socketpair)
{
    forty_at_once("sendmsg,socketpair", [] { return writing_to_socketpair(by_sendmsg); });
}

TEST(FortyAtOnce, in_sendmmsg_to_a_full_socketpair)
{
    forty_at_once("sendmmsg,socketpair", [] {
        return writing_to_socketpair(
            [](int fd) {
                Message message;
                mmsghdr all[2] = {{message.header, 0}, {message.header, 0}};
                EXPECT_EQ(2, sendmmsg(fd, all, 2, 0));
                return all[1].msg_len;
            },
            SOCK_SEQPACKET);
    });
}

TEST(FortyAtOnce, in_sendfile_to_a_full_socket)
{
    forty_at_once("sendfile", [] {
        auto pair = made_socket();
        return writing(pair, pair->fd, pair->peer, [](int fd) {
            Fd file = file_of("8 bytes!");
            return sendfile(fd, file, nullptr, 8);
        });
    });
}

TEST(FortyAtOnce, in_sendfile64_to_a_full_socketpair)
{
    forty_at_once("sendfile,socketpair", [] {
        return writing_to_socketpair([](int fd) {
            Fd file = file_of("8 bytes!");
            off64_t offset = 0;
            return sendfile64(fd, file, &offset, 8);
        });
    });
}

TEST(FortyAtOnce, in_sendfile_to_a_full_pipe)
{
    forty_at_once("sendfile,pipe", [] {
        auto two = made_pipe();
        return writing(two, two->b, two->a, [](int fd) {
            Fd file = file_of("8 bytes!");
            return sendfile(fd, file, nullptr, 8);
        });
    });
}

TEST(FortyAtOnce, in_recv_of_all)
{
    forty_at_once("socketpair", [] {
        auto two = made_socketpair();
        raw_write(two->b, "half", 4);
        return reading(two, [](int fd) {
            char buf[12];
            return recv(fd, buf, sizeof buf, MSG_WAITALL) - 4;
        });
    });
}

#endif
