// Descriptors that the hooks know stay in the loop's epoll set between calls. Every way in which such a number
// can change hands: nobody hangs, the loop does not spin, the next of the number starts afresh.
#ifndef COLIB_PEER

#include "added_support.h"

#include <sys/epoll.h>

using namespace support;

namespace {

const char *const all_of_these = "socketpair,pipe,accept,readv,writev";

// A known descriptor to read from, and its peer.
struct Ends {
    int known;
    Fd peer;
    void put(char c = 'x') const { raw_write(peer, &c, 1); }
};

Ends of_socket()
{
    HookedPair pair = hooked_unix_pair();
    Ends ends{pair.fd.forget(), std::move(pair.peer)};
    co_set_timeout(ends.known, -1, -1);
    return ends;
}

Ends of_socketpair()
{
    int fds[2];
    EXPECT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    return {fds[0], Fd(fds[1])};
}

Ends of_pipe()
{
    int fds[2];
    EXPECT_EQ(0, pipe(fds));
    return {fds[0], Fd(fds[1])};
}

ssize_t read_one(int fd, char *byte) { return read(fd, byte, 1); }

// One read that waited, so that the loop has the number.
void make_registered(const Ends &ends)
{
    Co writer([&] {
        nap(1);
        ends.put();
    });
    writer.resume();
    char byte;
    ASSERT_EQ(1, read_one(ends.known, &byte));
}

// Reads on what has the number now, known or handed over.
void expect_served(int fd, int peer)
{
    bool others_ran = false;
    Co writer([&] {
        nap(10);
        others_ran = true;
        raw_write(peer, "y", 1);
    });
    writer.resume();
    char byte = 0;
    EXPECT_EQ(1, read_one(fd, &byte));
    EXPECT_EQ('y', byte);
    EXPECT_TRUE(others_ran);
}

struct Kind {
    const char *name;
    Ends (*make)();
};
const Kind kinds[] = {{"socket", of_socket}, {"socketpair", of_socketpair}, {"pipe", of_pipe}};

// A way to end a number: if it `replaces`, another file (a plain pair's end) has the number afterwards.
struct Way {
    const char *name;
    bool noticed, replaces;
    std::function<void(int fd, int other)> end;
};
const Way ways[] = {
    {"close", true, false, [](int fd, int) { EXPECT_EQ(0, close(fd)); }},
    {"fclose", true, false, [](int fd, int) { EXPECT_EQ(0, fclose(fdopen(fd, "r"))); }},
    {"close_range", true, false, [](int fd, int) { EXPECT_EQ(0, close_range(fd, fd, 0)); }},
    {"dup2", true, true, [](int fd, int other) { EXPECT_EQ(fd, dup2(other, fd)); }},
    {"dup3", true, true, [](int fd, int other) { EXPECT_EQ(fd, dup3(other, fd, O_CLOEXEC)); }},
    {"raw close", false, false, [](int fd, int) { raw_close(fd); }},
    {"raw close_range", false, false, [](int fd, int) { syscall(SYS_close_range, fd, fd, 0); }},
    {"raw dup3", false, true, [](int fd, int other) { syscall(SYS_dup3, other, fd, 0); }},
};

// Each kind, ended in each way, with another descriptor for the same file left open or not; all at once, each in
// a process of its own.
void for_each_way(const std::function<void(const Kind &, const Way &, bool kept)> &body)
{
    std::vector<std::pair<pid_t, std::string>> children;
    fflush(nullptr);
    for (const Kind &kind : kinds) {
        for (const Way &way : ways) {
            for (bool kept : {false, true}) {
                const pid_t child = fork();
                if (child == 0) {
                    signal(SIGALRM, SIG_DFL);
                    signal(SIGPIPE, SIG_IGN);
                    alarm(30);
                    Chosen chosen(all_of_these);
                    in_hooked_coroutine([&] { body(kind, way, kept); });
                    fflush(nullptr);
                    _exit(testing::Test::HasFailure() ? 1 : 0);
                }
                children.emplace_back(
                    child, std::string(kind.name) + ", " + way.name + (kept ? ", a dup left" : ""));
            }
        }
    }
    for (const auto &child : children) {
        int status = -1;
        waitpid(child.first, &status, 0);
        EXPECT_EQ(0, status) << child.second;
    }
}

} // namespace

TEST(KnownNumbers, that_change_hands_between_calls_leave_nothing_behind)
{
    for_each_way([](const Kind &kind, const Way &way, bool kept) {
        Ends ends = kind.make();
        make_registered(ends);
        Fd dup(kept ? static_cast<int>(syscall(SYS_dup, ends.known)) : -1);
        Pair next = plain_pair();
        way.end(ends.known, next.a);
        ends.put('z');
        if (!way.replaces) {
            syscall(SYS_dup3, next.a.get(), ends.known, 0);
        }
        Fd number(ends.known);
        if (way.noticed) {
            EXPECT_EQ(-1, co_set_timeout(number, -1, -1)) << "known from before";
            EXPECT_EQ(0, co_hook_fd(number));
        }
        expect_served(number, next.b);
        expect_idle(150);
        ends.peer.reset();
        expect_served(number, next.b);
        expect_idle(150);
    });
}

TEST(KnownNumbers, that_change_hands_during_a_call_let_it_end)
{
    for_each_way([](const Kind &kind, const Way &way, bool kept) {
        Ends ends = kind.make();
        make_registered(ends);
        EXPECT_EQ(0, co_set_timeout(ends.known, 300, 300));
        Fd dup(kept ? static_cast<int>(syscall(SYS_dup, ends.known)) : -1);
        Pair next = plain_pipe();
        ssize_t got = -2;
        int error = 0;
        bool done = false;
        Group group;
        group.go_hooked([&] {
            char byte;
            got = read_one(ends.known, &byte);
            error = errno;
            done = true;
        });
        nap(5);
        way.end(ends.known, next.a);
        nap(30);
        if (way.noticed) {
            EXPECT_TRUE(done) << "a close wakes who waits";
            EXPECT_EQ(-1, got);
            EXPECT_EQ(EBADF, error) << "not what has the number now";
        }
        nap(400);
        EXPECT_TRUE(done) << "the time-out is over";
        expect_idle(150);
        if (way.replaces) {
            raw_close(ends.known);
        }
    });
}

TEST(KnownNumbers, kept_open_by_a_child_leave_nothing_behind)
{
    for (const Kind &kind : kinds) {
        SCOPED_TRACE(kind.name);
        with_hooks(all_of_these, [&] {
            Ends ends = kind.make();
            make_registered(ends);
            Pair stop = plain_pipe();
            fflush(nullptr);
            const pid_t child = fork();
            if (child == 0) {
                char byte;
                raw_close(stop.b);
                _exit(raw_read(stop.a, &byte, 1) == 0 ? 0 : 1);
            }
            stop.a.reset();
            const int number = ends.known;
            Pair next = plain_pair(); // (while the number is taken)
            close(number);
            ends.put('z');
            expect_idle(150);
            syscall(SYS_dup3, next.a.get(), number, 0);
            Fd reused(number);
            EXPECT_EQ(0, co_hook_fd(number));
            expect_served(number, next.b);
            stop.b.reset();
            int status = -1;
            waitpid(child, &status, 0);
            EXPECT_EQ(0, status);
        });
    }
}

TEST(KnownNumbers, passed_to_a_peer_process_are_served_on_both_sides)
{
    for (const Kind &kind : kinds) {
        SCOPED_TRACE(kind.name);
        with_hooks(all_of_these, [&] {
            Ends ends = kind.make();
            make_registered(ends);
            Pair channel = plain_pair();
            fflush(nullptr);
            const pid_t child = fork();
            if (child == 0) {
                // Another process, which gets the file by SCM_RIGHTS and reads it plainly.
                char control[CMSG_SPACE(sizeof(int))], byte = 0;
                iovec part = {&byte, 1};
                msghdr message = {};
                message.msg_iov = &part;
                message.msg_iovlen = 1;
                message.msg_control = control;
                message.msg_controllen = sizeof control;
                raw_close(ends.known);
                syscall(SYS_recvmsg, channel.b.get(), &message, 0);
                int got = -1;
                memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof got);
                raw_write(channel.b, "r", 1);
                raw_read(channel.b, &byte, 1);
                pollfd p = {got, POLLIN, 0};
                raw_poll(&p, 1, 10000);
                _exit(raw_read(got, &byte, 1) == 1 && byte == 'p' ? 0 : 1);
            }
            char control[CMSG_SPACE(sizeof(int))] = {}, byte = 'c';
            iovec part = {&byte, 1};
            msghdr message = {};
            message.msg_iov = &part;
            message.msg_iovlen = 1;
            message.msg_control = control;
            message.msg_controllen = sizeof control;
            cmsghdr *head = CMSG_FIRSTHDR(&message);
            head->cmsg_level = SOL_SOCKET;
            head->cmsg_type = SCM_RIGHTS;
            head->cmsg_len = CMSG_LEN(sizeof ends.known);
            memcpy(CMSG_DATA(head), &ends.known, sizeof ends.known);
            ASSERT_EQ(1, syscall(SYS_sendmsg, channel.a.get(), &message, 0));
            ASSERT_EQ(1, raw_read(channel.a, &byte, 1));
            expect_served(ends.known, ends.peer);
            close(ends.known);
            ends.put('p');
            expect_idle(150);
            raw_write(channel.a, "g", 1);
            int status = -1;
            waitpid(child, &status, 0);
            EXPECT_EQ(0, status) << "the peer did not get its byte, or met a non-blocking file";
        });
    }
}

TEST(KnownNumbers, used_from_two_threads_loops_serve_both)
{
    for (const Kind &kind : kinds) {
        SCOPED_TRACE(kind.name);
        with_hooks(all_of_these, [&] {
            Ends ends = kind.make();
            make_registered(ends);
            std::atomic<int> served{0};
            std::atomic<bool> closed{false};
            std::thread other([&] {
                in_hooked_coroutine([&] {
                    char byte;
                    for (;;) {
                        const ssize_t n = read_one(ends.known, &byte);
                        if (n != 1) {
                            EXPECT_TRUE(closed);
                            EXPECT_EQ(EBADF, errno);
                            break;
                        }
                        ++served;
                    }
                });
            });
            Group group;
            group.go_hooked([&] {
                char byte;
                while (read_one(ends.known, &byte) == 1) {
                    ++served;
                }
            });
            for (int i = 0; i < 200; ++i) {
                ends.put();
                nap(1);
            }
            EXPECT_TRUE(loop_until([&] { return served == 200; }, 5000)) << served;
            closed = true;
            close(ends.known);
            other.join();
            nap(10);
            EXPECT_TRUE(group.all_ended()) << "the close did not wake its own thread's reader";
            expect_idle(150);
        });
    }
}

TEST(KnownNumbers, closed_just_when_another_thread_begins_to_wait_wake_it)
{
    with_hooks(all_of_these, [&] {
        for (int round = 0; round < 200; ++round) {
            Ends ends = of_socketpair();
            // A number that nobody else gets.
            const int low = ends.known;
            ends.known = fcntl(low, F_DUPFD, 500 + round);
            close(low);
            std::atomic<int> served{0};
            std::atomic<bool> ended{false};
            std::thread other([&] {
                in_hooked_coroutine([&] {
                    char byte;
                    while (read_one(ends.known, &byte) == 1) {
                        ++served;
                    }
                    EXPECT_EQ(EBADF, errno);
                });
                ended = true;
            });
            Group group;
            group.go_hooked([&] {
                char byte;
                while (read_one(ends.known, &byte) == 1) {
                    ++served;
                }
            });
            for (int i = 1; i <= 10; ++i) {
                ends.put();
                ASSERT_TRUE(loop_until([&] { return served == i; }, 5000));
            }
            // Both were woken for the last byte: one of the two goes back to waiting just now.
            close(ends.known);
            const bool woken = wait_until([&] { return ended.load(); }, 5000);
            EXPECT_TRUE(woken) << "round " << round;
            if (!woken) {
                _exit(1);
            }
            other.join();
            ASSERT_TRUE(loop_until([&] { return group.all_ended(); }, 5000));
        }
    });
}

TEST(KnownNumbers, in_the_programs_own_epoll_set_are_not_disturbed)
{
    for (const Kind &kind : kinds) {
        SCOPED_TRACE(kind.name);
        with_hooks(all_of_these, [&] {
            Ends ends = kind.make();
            Fd own(epoll_create1(EPOLL_CLOEXEC));
            epoll_event event = {EPOLLIN, {}};
            event.data.u64 = 77;
            ASSERT_EQ(0, epoll_ctl(own, EPOLL_CTL_ADD, ends.known, &event));
            make_registered(ends);
            EXPECT_EQ(0, syscall(SYS_epoll_pwait, own.get(), &event, 1, 0, nullptr, 8));
            ends.put();
            EXPECT_EQ(1, syscall(SYS_epoll_pwait, own.get(), &event, 1, 0, nullptr, 8));
            EXPECT_EQ(77u, event.data.u64);
            char byte;
            EXPECT_EQ(1, read_one(ends.known, &byte));
            ASSERT_EQ(0, epoll_ctl(own, EPOLL_CTL_DEL, ends.known, nullptr));
            expect_served(ends.known, ends.peer);
            close(ends.known);
        });
    }
}

TEST(KnownNumbers, shared_by_a_dup_are_served_by_either)
{
    for (const Kind &kind : kinds) {
        SCOPED_TRACE(kind.name);
        with_hooks(all_of_these, [&] {
            Ends ends = kind.make();
            make_registered(ends);
            const int copies[] = {dup(ends.known), dup2(ends.known, 150), fcntl(ends.known, F_DUPFD_CLOEXEC, 151)};
            for (int copy : copies) {
                expect_served(copy, ends.peer);
            }
            close(ends.known);
            for (int copy : copies) {
                expect_served(copy, ends.peer);
                close(copy);
            }
            expect_idle(150);
        });
    }
}

TEST(KnownNumbers, all_closed_by_closefrom_wake_their_readers)
{
    for (const Kind &kind : kinds) {
        SCOPED_TRACE(kind.name);
        with_hooks(all_of_these, [&] {
            Ends ends = kind.make();
            make_registered(ends);
            const int high = dup2(ends.known, 900);
            int error = 0;
            Group group;
            group.go_hooked([&] {
                char byte;
                EXPECT_EQ(-1, read_one(high, &byte));
                error = errno;
            });
            nap(5);
            closefrom(800);
            nap(20);
            EXPECT_EQ(EBADF, error);
            expect_served(ends.known, ends.peer);
            close(ends.known);
        });
    }
}

#endif
