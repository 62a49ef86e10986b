// co_poll and the hooked poll answer as poll(2) does on the same set: each expectation here is what
// the plain system call said a moment before.
#include "loop_support.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

extern "C" int __poll(struct pollfd *fds, nfds_t nfds, int timeout);
extern "C" int __poll_chk(struct pollfd *fds, nfds_t nfds, int timeout, size_t fds_size);

using namespace support;

namespace {

// A descriptor in a lasting state, and what keeps it there.
struct Subject {
    std::string name;
    int fd;
    std::vector<Fd> owned;
};

// A number that no descriptor has: far above those in use.
const int not_open = 9990;

class Subjects {
public:
    std::vector<Subject> all;

    Subjects()
    {
        pipes();
        unix_sockets();
        tcp_sockets();
        datagrams();
        event_descriptors();
        files();
        add("a number that is not open", not_open);
        add("-1", -1);
        add("-5", -5);
        add("INT_MIN", INT_MIN);
    }

    int fd(const std::string &name) const
    {
        for (const Subject &s : all) {
            if (s.name == name) {
                return s.fd;
            }
        }
        std::abort();
    }

private:
    template <typename... Owned> void add(const std::string &name, int fd, Owned... owned)
    {
        Subject s{name, fd, {}};
        (s.owned.push_back(std::move(owned)), ...);
        all.push_back(std::move(s));
    }
    void add_first(const std::string &name, Pair pair) // watches a, keeps both
    {
        const int fd = pair.a;
        add(name, fd, std::move(pair.a), std::move(pair.b));
    }
    void add_second(const std::string &name, Pair pair)
    {
        const int fd = pair.b;
        add(name, fd, std::move(pair.a), std::move(pair.b));
    }
    static void fill(int fd)
    {
        static const char block[4096] = {};
        raw_nonblock(fd);
        while (raw_write(fd, block, sizeof block) > 0) {
        }
        while (raw_write(fd, block, 1) > 0) {
        }
    }
    void pipes()
    {
        add_first("empty pipe", plain_pipe());
        Pair p = plain_pipe();
        raw_write(p.b, "x", 1);
        add_first("pipe with data", std::move(p));
        p = plain_pipe();
        p.b.reset();
        add_first("pipe without a writer", std::move(p));
        p = plain_pipe();
        raw_write(p.b, "x", 1);
        p.b.reset();
        add_first("pipe with data and without a writer", std::move(p));
        add_second("writable pipe", plain_pipe());
        p = plain_pipe();
        fill(p.b);
        add_second("full pipe", std::move(p));
        p = plain_pipe();
        p.a.reset();
        add_second("pipe without a reader", std::move(p));
    }
    void unix_sockets()
    {
        add_first("idle stream socket", plain_pair());
        Pair p = plain_pair();
        raw_write(p.b, "x", 1);
        add_first("stream socket with data", std::move(p));
        p = plain_pair();
        fill(p.a);
        add_first("full stream socket", std::move(p));
        p = plain_pair();
        shutdown(p.b, SHUT_WR);
        add_first("stream socket whose peer shut down writing", std::move(p));
        p = plain_pair();
        p.b.reset();
        add_first("stream socket whose peer closed", std::move(p));
        p = plain_pair();
        shutdown(p.a, SHUT_RD);
        add_first("stream socket shut down for reading", std::move(p));
        p = plain_pair();
        shutdown(p.a, SHUT_RDWR);
        add_first("stream socket shut down", std::move(p));
        p = plain_pair(SOCK_SEQPACKET);
        p.b.reset();
        add_first("packet socket whose peer closed", std::move(p));
    }
    static Pair tcp_pair()
    {
        Listener listener;
        Pair p;
        p.a.reset(raw_socket(AF_INET, SOCK_STREAM));
        if (syscall(SYS_connect, p.a.get(), listener.generic(), sizeof listener.addr) != 0) {
            std::abort();
        }
        p.b = listener.take();
        return p;
    }
    static void await(int fd, short events)
    {
        pollfd p = {fd, events, 0};
        raw_poll(&p, 1, 5000);
    }
    void tcp_sockets()
    {
        add_first("idle TCP connection", tcp_pair());
        Pair p = tcp_pair();
        send(p.b, "x", 1, MSG_OOB);
        await(p.a, POLLPRI);
        add_first("TCP connection with urgent data", std::move(p));
        p = tcp_pair();
        raw_write(p.b, "ab", 2);
        send(p.b, "c", 1, MSG_OOB);
        await(p.a, POLLPRI);
        add_first("TCP connection with data and urgent data", std::move(p));
        p = tcp_pair();
        shutdown(p.b, SHUT_WR);
        await(p.a, POLLRDHUP);
        add_first("TCP connection whose peer shut down writing", std::move(p));
        p = tcp_pair();
        shutdown(p.b, SHUT_WR);
        shutdown(p.a, SHUT_WR);
        await(p.a, POLLHUP);
        add_first("TCP connection shut down by both", std::move(p));
        p = tcp_pair();
        raw_write(p.a, "x", 1);
        await(p.b, POLLIN);
        p.b.reset(); // unread data: a reset
        await(p.a, POLLERR);
        add_first("reset TCP connection", std::move(p));
        add("unconnected TCP socket", -1);
        all.back().owned.emplace_back(raw_socket(AF_INET, SOCK_STREAM));
        all.back().fd = all.back().owned[0];
        {
            Listener listener;
            const int fd = listener.fd;
            add("idle listener", fd, std::move(listener.fd));
        }
        {
            Listener listener;
            Fd client(raw_socket(AF_INET, SOCK_STREAM));
            syscall(SYS_connect, client.get(), listener.generic(), sizeof listener.addr);
            const int fd = listener.fd;
            await(fd, POLLIN);
            add("listener with a connection", fd, std::move(listener.fd), std::move(client));
        }
        {
            sockaddr_in nobody;
            {
                Listener closed;
                nobody = closed.addr;
            }
            Fd client(raw_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK));
            syscall(SYS_connect, client.get(), &nobody, sizeof nobody);
            const int fd = client;
            await(fd, POLLERR);
            add("refused TCP socket", fd, std::move(client));
        }
    }
    void datagrams()
    {
        Fd udp(raw_socket(AF_INET, SOCK_DGRAM));
        int fd = udp;
        add("UDP socket", fd, std::move(udp));
        udp.reset(raw_socket(AF_INET, SOCK_DGRAM));
        sockaddr_in addr = {};
        addr.sin_family = AF_INET;
        addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof addr;
        bind(udp, reinterpret_cast<sockaddr *>(&addr), sizeof addr);
        getsockname(udp, reinterpret_cast<sockaddr *>(&addr), &size);
        syscall(SYS_sendto, udp.get(), "x", 1, 0, &addr, size);
        fd = udp;
        add("UDP socket with data", fd, std::move(udp));
        add_first("idle datagram pair", plain_pair(SOCK_DGRAM));
    }
    void event_descriptors()
    {
        const auto one = [this](const char *name, int fd) { add(name, fd, Fd(fd)); };
        one("eventfd at 0", eventfd(0, 0));
        one("eventfd at 1", eventfd(1, 0));
        const uint64_t most = UINT64_MAX - 1;
        const int full = eventfd(0, 0);
        raw_write(full, &most, sizeof most);
        one("full eventfd", full);
        one("idle timerfd", timerfd_create(CLOCK_MONOTONIC, 0));
        const int expired = timerfd_create(CLOCK_MONOTONIC, 0);
        itimerspec soon = {};
        soon.it_value.tv_nsec = 1;
        timerfd_settime(expired, 0, &soon, nullptr);
        await(expired, POLLIN);
        one("expired timerfd", expired);
        sigset_t none;
        sigemptyset(&none);
        one("signalfd", signalfd(-1, &none, 0));
        one("inotify", inotify_init1(0));
        one("empty epoll set", epoll_create1(0));
        Fd ready(eventfd(1, 0));
        const int set = epoll_create1(0);
        epoll_event event = {};
        event.events = EPOLLIN;
        epoll_ctl(set, EPOLL_CTL_ADD, ready, &event);
        add("epoll set with an event", set, Fd(set), std::move(ready));
        const int master = posix_openpt(O_RDWR | O_NOCTTY);
        if (master >= 0) {
            one("pseudo-terminal", master);
        }
    }
    void files()
    {
        const auto one = [this](const char *name, int fd) {
            if (fd >= 0) {
                add(name, fd, Fd(fd));
            }
        };
        one("memory file", memfd_create("colib", 0));
        one("regular file", open("/proc/self/exe", O_RDONLY));
        one("directory", open("/", O_RDONLY | O_DIRECTORY));
        one("null device", open("/dev/null", O_RDWR));
        one("zero device", open("/dev/zero", O_RDONLY));
        one("path descriptor", open("/", O_PATH));
    }
};

const short masks[] = {
    0,
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDHUP,
    POLLRDNORM,
    POLLRDBAND,
    POLLWRNORM,
    POLLWRBAND,
    POLLHUP,
    POLLERR,
    POLLNVAL,
    POLLIN | POLLOUT,
    POLLIN | POLLPRI,
    POLLIN | POLLRDHUP,
    POLLIN | POLLERR | POLLHUP,
    POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLRDNORM | POLLRDBAND | POLLWRNORM | POLLWRBAND,
    static_cast<short>(0x8000) | POLLIN,
    -1,
};

using Poll = std::function<int(pollfd *, nfds_t, int)>;

int cooperative(pollfd *fds, nfds_t n, int timeout_ms)
{
    return co_poll(co_get_epoll_ct(), fds, n, timeout_ms);
}

// The members in which two answers to the same set differ.
std::string differences(const std::vector<pollfd> &expected, const std::vector<pollfd> &actual)
{
    std::string text;
    char one[96];
    for (size_t i = 0; i < expected.size(); ++i) {
        const pollfd &e = expected[i], &a = actual[i];
        if (e.revents != a.revents || e.events != a.events || e.fd != a.fd) {
            snprintf(one, sizeof one, "[%zu] fd %d events %#x: poll(2) %#x, ours %#x\n", i, e.fd,
                     static_cast<unsigned short>(e.events), static_cast<unsigned short>(e.revents),
                     static_cast<unsigned short>(a.revents));
            text += one;
        }
        if (text.size() > 1000) {
            return text + "...";
        }
    }
    return text;
}

// Asks the kernel and `poll_fn` about the same set. A set with something ready is given a time-out
// that would fail the test, one with nothing ready a short one.
void same_answer(const Poll &poll_fn, const std::vector<pollfd> &set)
{
    std::vector<pollfd> expected = set, actual = set;
    for (size_t i = 0; i < set.size(); ++i) {
        expected[i].revents = actual[i].revents = 0x7777;
    }
    const int want = raw_poll(expected.data(), expected.size(), 0);
    const long long start = now_ms();
    const int got = poll_fn(actual.data(), actual.size(), want == 0 ? 2 : 15000);
    const std::string differ = differences(expected, actual);
    EXPECT_EQ(want, got) << "of " << set.size();
    EXPECT_EQ("", differ);
    EXPECT_LT(now_ms() - start, 10000) << "ready, yet it waited";
}

void in_coroutine(const std::function<void()> &body, bool hooks)
{
    on_thread([&] {
        Group group;
        group.go([&] {
            if (hooks) {
                co_enable_hook_sys();
            }
            body();
        });
        ASSERT_TRUE(group.run(60000));
    });
}

// Every subject with every mask, alone.
inline void every_kind_and_event(const Poll &poll_fn, bool hooks)
{
    Subjects subjects;
    in_coroutine(
        [&] {
            for (const Subject &s : subjects.all) {
                for (short mask : masks) {
                    SCOPED_TRACE(s.name);
                    same_answer(poll_fn, {{s.fd, mask, 0}});
                }
            }
        },
        hooks);
}

// Sets drawn at random from the subjects, duplicates included; the seed is fixed.
inline void mixed_sets(const Poll &poll_fn, bool hooks, int count)
{
    Subjects subjects;
    in_coroutine(
        [&] {
            unsigned random = 2024;
            const auto next = [&](unsigned below) {
                random = random * 1664525u + 1013904223u;
                return (random >> 8) % below;
            };
            for (int i = 0; i < count; ++i) {
                std::vector<pollfd> set;
                const unsigned size = 1 + next(i % 4 == 0 ? 40 : 4);
                while (set.size() < size) {
                    const Subject &s = subjects.all[next(subjects.all.size())];
                    set.push_back({s.fd, masks[next(sizeof masks / sizeof masks[0])], 0});
                }
                SCOPED_TRACE(i);
                same_answer(poll_fn, set);
            }
        },
        hooks);
}

void compare(const std::vector<std::pair<const char *, short>> &names, bool hooks = false,
             const Poll &poll_fn = cooperative)
{
    Subjects subjects;
    in_coroutine(
        [&] {
            std::vector<pollfd> set;
            for (const auto &[name, events] : names) {
                set.push_back({subjects.fd(name), events, 0});
            }
            same_answer(poll_fn, set);
        },
        hooks);
}

} // namespace

TEST(Poll, reports_a_readable_pipe) { compare({{"pipe with data", POLLIN}}); }
TEST(Poll, times_out_on_an_empty_pipe) { compare({{"empty pipe", POLLIN}}); }
TEST(Poll, reports_a_writable_pipe) { compare({{"writable pipe", POLLOUT}}); }
TEST(Poll, times_out_on_a_full_pipe) { compare({{"full pipe", POLLOUT}}); }
TEST(Poll, reports_a_writer_that_left) { compare({{"pipe without a writer", POLLIN}}); }
TEST(Poll, reports_a_reader_that_left) { compare({{"pipe without a reader", POLLOUT}}); }
TEST(Poll, reports_only_the_events_asked_for)
{
    compare({{"stream socket with data", POLLOUT}});
}
TEST(Poll, reports_several_events_of_one_descriptor)
{
    compare({{"stream socket with data", POLLIN | POLLOUT}});
}
TEST(Poll, reports_a_peer_that_closed) { compare({{"stream socket whose peer closed", POLLIN}}); }
TEST(Poll, reports_a_reset_connection) { compare({{"reset TCP connection", POLLIN}}); }
TEST(Poll, reports_a_refused_connection) { compare({{"refused TCP socket", POLLOUT}}); }
TEST(Poll, reports_a_listener_with_a_connection)
{
    compare({{"listener with a connection", POLLIN}});
}
TEST(Poll, times_out_on_an_idle_listener) { compare({{"idle listener", POLLIN}}); }
TEST(Poll, counts_all_that_are_ready)
{
    compare({{"pipe with data", POLLIN},
             {"empty pipe", POLLIN},
             {"writable pipe", POLLOUT},
             {"idle stream socket", POLLIN},
             {"UDP socket with data", POLLIN}});
}
TEST(Poll, ignores_a_negative_descriptor) { compare({{"pipe with data", POLLIN}, {"-1", POLLIN}}); }
TEST(Poll, times_out_on_negative_descriptors_alone) { compare({{"-1", POLLIN}, {"-5", POLLIN}}); }
TEST(Poll, times_out_on_an_empty_set) { compare({}); }

MENDED(Poll, reports_a_number_that_is_not_open_at_once)
{
    compare({{"a number that is not open", POLLIN}});
}
MENDED(Poll, reports_a_number_that_is_not_open_beside_a_descriptor_that_waits)
{
    compare({{"empty pipe", POLLIN}, {"a number that is not open", POLLIN}});
}
MENDED(Poll, reports_a_regular_file_as_ready)
{
    compare({{"regular file", POLLIN | POLLOUT}});
}
MENDED(Poll, reports_a_regular_file_beside_a_descriptor_that_waits)
{
    compare({{"empty pipe", POLLIN}, {"regular file", POLLIN}});
}
TEST(Poll, waits_on_a_file_that_is_asked_for_nothing) { compare({{"regular file", 0}}); }
MENDED(Poll, counts_each_duplicate)
{
    compare({{"pipe with data", POLLIN}, {"pipe with data", POLLIN}, {"pipe with data", POLLIN}});
}
MENDED(Poll, gives_each_duplicate_its_own_events)
{
    compare({{"stream socket with data", POLLIN},
             {"stream socket with data", POLLOUT},
             {"stream socket with data", 0}});
}
TEST(Poll, clears_revents_of_a_negative_descriptor)
{
    compare({{"-1", POLLIN}, {"pipe with data", POLLIN}, {"INT_MIN", POLLIN}});
}
MENDED(Poll, reports_urgent_data) { compare({{"TCP connection with urgent data", POLLPRI}}); }
MENDED(Poll, reports_a_peer_that_shut_down_writing)
{
    compare({{"TCP connection whose peer shut down writing", POLLRDHUP}});
}
TEST(Poll, reports_hang_up_to_one_who_asked_for_nothing)
{
    compare({{"stream socket whose peer closed", 0}});
}

TEST(Poll, hooked_reports_a_readable_pipe) { compare({{"pipe with data", POLLIN}}, true, ::poll); }
TEST(Poll, hooked_times_out_on_an_empty_pipe) { compare({{"empty pipe", POLLIN}}, true, ::poll); }
TEST(Poll, hooked_reports_a_regular_file) { compare({{"regular file", POLLIN}}, true, ::poll); }
TEST(Poll, under_its_second_name_reports_a_readable_pipe)
{
    compare({{"pipe with data", POLLIN}}, true, __poll);
}

MENDED(Poll, agrees_with_the_system_on_every_kind_of_descriptor_and_event)
{
    every_kind_and_event(cooperative, false);
}
MENDED(Poll, hooked_agrees_with_the_system_on_every_kind_of_descriptor_and_event)
{
    every_kind_and_event(::poll, true);
}
MENDED(Poll, agrees_with_the_system_on_mixed_sets) { mixed_sets(cooperative, false, 300); }
MENDED(Poll, with_hooks_on_agrees_with_the_system_on_mixed_sets)
{
    mixed_sets(cooperative, true, 100);
}
MENDED(Poll, hooked_agrees_with_the_system_on_mixed_sets) { mixed_sets(::poll, true, 300); }
MENDED(Poll, under_its_second_name_agrees_with_the_system_on_mixed_sets)
{
    mixed_sets(__poll, true, 50);
}
MENDED(Poll, fortified_agrees_with_the_system_on_mixed_sets)
{
    mixed_sets(
        [](pollfd *fds, nfds_t n, int timeout_ms) {
            return __poll_chk(fds, n, timeout_ms, n * sizeof *fds);
        },
        true, 50);
}

TEST(Poll, agrees_with_the_system_on_a_thousand_descriptors)
{
    std::vector<Pair> pipes;
    for (int i = 0; i < 500; ++i) {
        pipes.push_back(plain_pipe());
        if (i % 7 == 0) {
            raw_write(pipes.back().b, "x", 1);
        }
    }
    in_coroutine(
        [&] {
            std::vector<pollfd> set;
            for (const Pair &p : pipes) {
                set.push_back({p.a, POLLIN, 0});
                set.push_back({p.b, POLLOUT, 0});
            }
            same_answer(cooperative, set);
        },
        false);
}

TEST(Poll, waits_for_one_of_a_thousand_descriptors)
{
    std::vector<Pair> pipes;
    for (int i = 0; i < 1000; ++i) {
        pipes.push_back(plain_pipe());
    }
    on_thread([&] {
        Group group;
        std::vector<pollfd> set;
        int result = -1;
        group.go([&] {
            for (const Pair &p : pipes) {
                set.push_back({p.a, POLLIN, 0});
            }
            result = co_poll(co_get_epoll_ct(), set.data(), set.size(), 15000);
        });
        group.go([&] {
            nap(5);
            raw_write(pipes[777].b, "x", 1);
        });
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, result);
        EXPECT_EQ(POLLIN, set[777].revents);
        EXPECT_EQ(0, set[776].revents);
    });
}

MENDED(Poll, refuses_more_descriptors_than_the_limit_allows)
{
    in_coroutine(
        [] {
            rlimit limit;
            getrlimit(RLIMIT_NOFILE, &limit);
            std::vector<pollfd> set(limit.rlim_cur + 1, pollfd{-1, POLLIN, 0});
            errno = 0;
            EXPECT_EQ(-1, cooperative(set.data(), set.size(), 5));
            EXPECT_EQ(EINVAL, errno);
        },
        false);
}

TEST(Poll, hooked_with_time_out_zero_answers_without_a_round_of_the_loop)
{
    Pair pipe = plain_pipe();
    raw_write(pipe.b, "x", 1);
    on_thread([&] {
        Group group;
        int empty = -1, ready = -1;
        group.go_hooked([&] {
            pollfd p = {pipe.a, POLLIN, 0};
            ready = poll(&p, 1, 0);
            EXPECT_EQ(POLLIN, p.revents);
            char byte;
            raw_read(pipe.a, &byte, 1);
            empty = poll(&p, 1, 0);
            EXPECT_EQ(0, p.revents);
        });
        EXPECT_TRUE(group.all_ended());
        EXPECT_EQ(0, empty);
        EXPECT_EQ(1, ready);
    });
}

MENDED(Poll, co_poll_with_time_out_zero_is_the_plain_call)
{
    Subjects subjects;
    on_thread([&] {
        Group group;
        group.go([&] {
            for (const Subject &s : subjects.all) {
                pollfd want = {s.fd, POLLIN | POLLOUT, 0x7777}, got = want;
                const int expected = raw_poll(&want, 1, 0);
                EXPECT_EQ(expected, co_poll(co_get_epoll_ct(), &got, 1, 0)) << s.name;
                EXPECT_EQ(want.revents, got.revents) << s.name;
            }
        });
        EXPECT_TRUE(group.all_ended()) << "it waited";
    });
}

MENDED(Poll, on_the_main_coroutine_is_the_plain_call)
{
    Subjects subjects;
    on_thread([&] {
        Co unused([] {});
        for (const Subject &s : subjects.all) {
            same_answer(cooperative, {{s.fd, POLLIN, 0}});
        }
    });
}

MENDED(Poll, hooked_on_the_main_coroutine_is_the_plain_call)
{
    Subjects subjects;
    on_thread([&] {
        Co unused([] {});
        co_enable_hook_sys();
        for (const Subject &s : subjects.all) {
            same_answer(::poll, {{s.fd, POLLIN, 0}});
        }
    });
}

TEST(Poll, on_a_thread_without_an_environment_hooked_poll_is_the_plain_call)
{
    Subjects subjects;
    on_thread([&] {
        for (const Subject &s : subjects.all) {
            same_answer(::poll, {{s.fd, POLLIN, 0}});
        }
        EXPECT_EQ(nullptr, co_self());
    });
}

MENDED(Poll, on_a_thread_without_an_environment_co_poll_is_the_plain_call)
{
    Subjects subjects;
    on_thread([&] {
        const Poll without_a_loop = [](pollfd *fds, nfds_t n, int timeout_ms) {
            return co_poll(nullptr, fds, n, timeout_ms);
        };
        for (const Subject &s : subjects.all) {
            same_answer(without_a_loop, {{s.fd, POLLIN, 0}});
        }
        EXPECT_EQ(nullptr, co_self());
    });
}

TEST(Poll, with_something_ready_still_passes_through_the_loop_once)
{
    Pair pipes[2] = {plain_pipe(), plain_pipe()};
    on_thread([&] {
        Group group;
        std::string order;
        for (int k = 0; k < 2; ++k) {
            raw_write(pipes[k].b, "x", 1);
            group.go([&, k] {
                for (int i = 0; i < 3; ++i) {
                    pollfd p = {pipes[k].a, POLLIN, 0};
                    order += static_cast<char>('a' + k);
                    EXPECT_EQ(1, co_poll(co_get_epoll_ct(), &p, 1, 10000));
                }
            });
            EXPECT_EQ(static_cast<size_t>(k + 1), order.size()) << "it did not yield";
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ("ababab", order);
    });
}

MENDED(Poll, takes_turns_with_others_that_are_ready)
{
    Pair pipe = plain_pipe();
    raw_write(pipe.b, "x", 1);
    on_thread([&] {
        Group group;
        std::string order;
        for (char name : {'a', 'b', 'c'}) {
            group.go([&order, &pipe, name] {
                for (int i = 0; i < 3; ++i) {
                    pollfd p = {pipe.a, POLLIN, 0};
                    order += name;
                    EXPECT_EQ(1, co_poll(co_get_epoll_ct(), &p, 1, 10000));
                }
            });
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ("abcabcabc", order);
    });
}

MENDED(Poll, of_a_ready_file_passes_through_the_loop_too)
{
    Fd file(open("/proc/self/exe", O_RDONLY));
    on_thread([&] {
        Group group;
        int result = -1;
        group.go([&] {
            pollfd p = {file, POLLIN, 0};
            result = co_poll(co_get_epoll_ct(), &p, 1, 10000);
        });
        EXPECT_EQ(-1, result) << "it did not yield";
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, result);
    });
}

MENDED(Poll, without_a_loop_named_uses_the_threads)
{
    Pair pipe = plain_pipe();
    on_thread([&] {
        Group group;
        int result = -2;
        group.go([&] {
            pollfd p = {pipe.a, POLLIN, 0};
            result = co_poll(nullptr, &p, 1, 10000);
        });
        EXPECT_EQ(-2, result);
        raw_write(pipe.b, "x", 1);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, result);
    });
}

TEST(Poll, writes_into_the_callers_array_of_a_copy_stack)
{
    Pair pipes[3] = {plain_pipe(), plain_pipe(), plain_pipe()};
    on_thread([&] {
        stShareStack_t *share = co_alloc_sharestack(1, 65536);
        const stCoRoutineAttr_t at = attr(0, share);
        Group group;
        int good = 0;
        for (int i = 0; i < 3; ++i) {
            group.go(
                [&good, &pipes, i] {
                    volatile char local[512];
                    for (volatile char &byte : local) {
                        byte = static_cast<char>(i);
                    }
                    pollfd p[2] = {{-1, 0, 0}, {pipes[i].a, POLLIN, 0}};
                    const bool ready = i == 1;
                    const int result = co_poll(co_get_epoll_ct(), p, 2, ready ? 10000 : 50);
                    bool intact = result == (ready ? 1 : 0) && p[1].revents == (ready ? POLLIN : 0);
                    for (volatile char &byte : local) {
                        intact = intact && byte == static_cast<char>(i);
                    }
                    good += intact;
                },
                &at);
        }
        raw_write(pipes[1].b, "x", 1);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(3, good);
    });
}
