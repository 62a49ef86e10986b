// Faults of the one at the other end: it stops reading, closes one half, or is killed in mid-write. Each in a network of the
// test's own, whose buffers are small.
#include "network.h"

#include <random>

#include "pattern.h"

#ifndef COLIB_PEER // needs time-outs of the test's choice, and hooks of ours

using namespace support;

namespace {

void make_buffers_small()
{
    EXPECT_TRUE(put_file("/proc/sys/net/ipv4/tcp_wmem", "4096 65536 65536"));
    EXPECT_TRUE(put_file("/proc/sys/net/ipv4/tcp_rmem", "4096 65536 65536"));
}

// A call that writes these bytes.
struct Writes {
    const char *name;
    ssize_t (*call)(int fd, const std::string &bytes);
};

const Writes writes[] = {
    {"write", [](int fd, const std::string &bytes) { return write(fd, bytes.data(), bytes.size()); }},
    {"send", [](int fd, const std::string &bytes) { return send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL); }},
    {"writev",
     [](int fd, const std::string &bytes) {
         char *data = const_cast<char *>(bytes.data());
         const size_t third = bytes.size() / 3;
         const iovec parts[] = {{data, third}, {data + third, third}, {data + 2 * third, bytes.size() - 2 * third}};
         return writev(fd, parts, 3);
     }},
    {"sendmsg",
     [](int fd, const std::string &bytes) {
         iovec part = {const_cast<char *>(bytes.data()), bytes.size()};
         msghdr message = {};
         message.msg_iov = &part;
         message.msg_iovlen = 1;
         return sendmsg(fd, &message, MSG_NOSIGNAL);
     }},
};

// One connection whose reader stops and starts again.
void stop_reading(Link &link, unsigned stream, const Writes &how, bool by_option)
{
    SCOPED_TRACE(how.name);
    const size_t size = 1000000; // some times what the buffers take
    const int wait = 200;
    EXPECT_EQ(0, by_option ? set_timeout_option(link.client, SO_SNDTIMEO, wait) : co_set_timeout(link.client, -1, wait));

    long long start = now_ms();
    size_t sent = 0;
    ssize_t n = how.call(link.client, bytes_of(stream, 0, size));
    ASSERT_GT(n, 0) << strerror(errno);
    ASSERT_LT(n, static_cast<ssize_t>(size)) << "the buffers took it all";
    EXPECT_GE(now_ms() - start, wait - 1);
    EXPECT_LT(now_ms() - start, wait + 1500);
    sent += n;
    // The kernel may find room for a little more; then there is none.
    for (int round = 0; n > 0 && round < 10; ++round) {
        start = now_ms();
        errno = 0;
        n = how.call(link.client, bytes_of(stream, sent, size - sent));
        sent += n > 0 ? n : 0;
    }
    EXPECT_EQ(-1, n);
    EXPECT_EQ(EAGAIN, errno) << strerror(errno);
    EXPECT_GE(now_ms() - start, wait - 1);
    EXPECT_LT(now_ms() - start, wait + 500);
    ASSERT_LT(sent, size);

    // It reads again, slowly at first: the rest goes through.
    EXPECT_EQ(0, co_set_timeout(link.client, -1, 10000));
    Incoming in{link.server, stream};
    Co reader([&] {
        co_enable_hook_sys();
        while (in.done < size && in.take(in.done < 20000 ? 1000 : 16384) > 0) {
            if (in.done < 20000) {
                nap(2);
            }
        }
    });
    reader.resume();
    EXPECT_EQ(static_cast<ssize_t>(size - sent), how.call(link.client, bytes_of(stream, sent, size - sent)));
    while (!reader.ended()) {
        nap(1);
    }
    EXPECT_EQ(size, in.done) << strerror(in.error);
    EXPECT_TRUE(in.exact);
}

// `first` asks and shuts its half; `second` reads to the end and then answers at length.
void half_close(int first, int second, unsigned stream)
{
    const size_t request = 10000, reply = 1 << 20;
    Co asker([&] {
        co_enable_hook_sys();
        Outgoing out{first, stream};
        Incoming in{first, stream + 1};
        EXPECT_TRUE(out.put_up_to(request, 3000));
        nap(50);
        EXPECT_EQ(0, shutdown(first, SHUT_WR));
        EXPECT_TRUE(in.take_up_to(reply)) << in.done << ", " << strerror(in.error);
        for (int i = 0; i < 3; ++i) {
            EXPECT_EQ(0, in.take()) << "the end stays";
            EXPECT_EQ(0, in.error);
        }
        EXPECT_EQ(-1, out.put(10));
        EXPECT_EQ(EPIPE, out.error) << strerror(out.error);
    });
    asker.resume();
    pollfd half = {second, POLLRDHUP, 0};
    const long long start = now_ms();
    EXPECT_EQ(1, poll(&half, 1, 10000));
    EXPECT_EQ(POLLRDHUP, half.revents) << "bytes alone are no reason";
    EXPECT_GE(now_ms() - start, 40);
    Incoming in{second, stream};
    Outgoing out{second, stream + 1};
    EXPECT_TRUE(in.take_up_to(request));
    EXPECT_EQ(0, in.take());
    while (out.done < reply && out.put_up_to(std::min(out.done + 50000, reply), 7000)) {
        nap(1);
    }
    EXPECT_EQ(reply, out.done) << strerror(out.error);
    EXPECT_EQ(0, shutdown(second, SHUT_WR));
    while (!asker.ended()) {
        nap(1);
    }
    half.events = POLLIN | POLLRDHUP;
    EXPECT_EQ(1, poll(&half, 1, 1000));
    EXPECT_EQ(POLLHUP, half.revents & POLLHUP) << "both halves are closed";
    EXPECT_EQ(0, in.take());
}

// What a peer in a process of its own tells the test, also after its death.
struct Shared {
    std::atomic<size_t> done;
    std::atomic<bool> exact;
};

// The peer's process: connects, and then writes or reads for ever, in a coroutine with hooks on.
[[noreturn]] void be_killed(const HookedListener &listener, unsigned stream, bool writer, Shared *shared)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    on_thread([&] {
        Group group;
        group.go_hooked([&] {
            const int fd = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(fd, reinterpret_cast<const sockaddr *>(&listener.addr), sizeof listener.addr) != 0) {
                _exit(1);
            }
            co_set_timeout(fd, -1, -1);
            Outgoing out{fd, stream};
            Incoming in{fd, stream};
            while (writer ? out.put(100000) > 0 : in.take(5000) > 0) {
                shared->done = writer ? out.done : in.done;
                shared->exact = in.exact;
            }
        });
        group.run(60000);
    });
    _exit(2); // it was to be killed
}

// What one of the hundred came to.
struct Ends {
    int end_of_file = 0, reset = 0, broken_pipe = 0;
};

// A peer that is killed at a random moment after its first bytes.
void kill_one(HookedListener &listener, unsigned stream, bool peer_writes, size_t after_us, Shared *shared, Ends &ends)
{
    shared->done = 0;
    shared->exact = true;
    const pid_t pid = fork();
    if (pid == 0) {
        be_killed(listener, stream, peer_writes, shared);
    }
    ASSERT_GT(pid, 0);
    const int fd = accept(listener.fd, nullptr, nullptr);
    ASSERT_GE(fd, 0) << strerror(errno);
    EXPECT_EQ(0, co_set_timeout(fd, 10000, 10000));
    Incoming in{fd, stream};
    Outgoing out{fd, stream};
    const size_t &done = peer_writes ? in.done : out.done;
    Co killer([&] {
        while (done == 0) {
            nap(1);
        }
        nap(static_cast<int>(after_us / 1000));
        const long long until = now_ns() + static_cast<long long>(after_us % 1000) * 1000;
        while (now_ns() < until) { // no timer is as fine
        }
        EXPECT_EQ(0, kill(pid, SIGKILL));
    });
    killer.resume();
    const long long start = now_ms();
    while (peer_writes ? in.take() > 0 : out.put(150000) > 0) {
    }
    EXPECT_LT(now_ms() - start, 5000);
    while (!killer.ended()) {
        nap(1);
    }
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        nap(1);
    }
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "status " << status;
    const int error = peer_writes ? in.error : out.error;
    EXPECT_TRUE(error == ECONNRESET || error == (peer_writes ? 0 : EPIPE)) << strerror(error);
    ++(error == 0 ? ends.end_of_file : error == EPIPE ? ends.broken_pipe : ends.reset);
    EXPECT_TRUE(in.exact && shared->exact);
    if (peer_writes) {
        EXPECT_GE(in.done, shared->done - std::min<size_t>(shared->done, 300000)) << "more was lost than buffers hold";
    } else {
        EXPECT_GE(out.done, shared->done) << "more came than was told to be sent";
        EXPECT_LE(out.done, shared->done + 300000) << "more was told to be sent than buffers hold";
    }
    EXPECT_EQ(0, close(fd));
}

} // namespace

TEST(APeerThatStopsReading, ends_a_write_with_what_went_and_then_eagain_in_time)
{
    EXPECT_IN_NETWORK(25, [](Group &group) {
        make_buffers_small();
        HookedListener listener;
        Bystanders others(group, 4);
        std::vector<std::unique_ptr<Link>> links;
        int left = 0;
        const long before = others.rounds();
        for (unsigned i = 0; i < 8; ++i) {
            links.push_back(std::make_unique<Link>(listener, 10000));
            ++left;
            group.go_hooked([&left, &link = *links.back(), i] {
                stop_reading(link, i, writes[i / 2], i % 2 == 0);
                --left;
            });
        }
        while (left > 0) {
            nap(1);
        }
        EXPECT_GT(others.rounds(), before + 100) << "others waited for it";
        others.expect_to_go_on();
    });
}

TEST(AHalfClosedConnection, carries_the_other_half_to_its_end)
{
    EXPECT_IN_NETWORK(25, [](Group &group) {
        HookedListener listener;
        Bystanders others(group, 2);
        std::vector<std::unique_ptr<Link>> links;
        int left = 0;
        for (unsigned i = 0; i < 12; ++i) {
            links.push_back(std::make_unique<Link>(listener, 10000));
            ++left;
            group.go_hooked([&left, &link = *links.back(), i] {
                if (i % 2 == 0) {
                    half_close(link.client, link.server, 2 * i);
                } else {
                    half_close(link.server, link.client, 2 * i);
                }
                --left;
            });
        }
        while (left > 0) {
            nap(1);
        }
        EXPECT_EQ(0, pipe_signals);
        others.expect_to_go_on();
    });
}

TEST(AKilledPeer, leaves_an_exact_prefix_a_hundred_times_at_random)
{
    const char *wish = getenv("COLIB_TEST_SEED");
    const uint64_t seed = wish != nullptr ? strtoull(wish, nullptr, 0) : (std::random_device{}() | 1u);
    printf("seed %llu (COLIB_TEST_SEED repeats it)\n", static_cast<unsigned long long>(seed));
    EXPECT_IN_NETWORK(40, [seed](Group &group) {
        make_buffers_small();
        Bystanders others(group, 2);
        pattern::Random random{seed};
        void *page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        ASSERT_NE(MAP_FAILED, page);
        Shared *shared = static_cast<Shared *>(page);
        std::vector<std::unique_ptr<HookedListener>> listeners;
        Ends ends;
        int left = 4;
        for (int worker = 0; worker < 4; ++worker) {
            listeners.push_back(std::make_unique<HookedListener>());
            EXPECT_EQ(0, co_set_timeout(listeners.back()->fd, 10000, 10000));
            group.go_hooked([&, worker] {
                for (unsigned i = 0; i < 25 && !testing::Test::HasFatalFailure(); ++i) {
                    kill_one(*listeners[worker], 100 * worker + i, i % 2 == 0, random.below(8000), &shared[worker], ends);
                }
                --left;
            });
        }
        while (left > 0) {
            nap(1);
        }
        printf("%d ends of file, %d resets, %d broken pipes\n", ends.end_of_file, ends.reset, ends.broken_pipe);
        EXPECT_EQ(100, ends.end_of_file + ends.reset + ends.broken_pipe);
        EXPECT_EQ(0, pipe_signals);
        others.expect_to_go_on();
        munmap(page, 4096);
    });
}

#endif
