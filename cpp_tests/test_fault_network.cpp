// Faults of a network, each in one of the test's own: packets that are lost, connections that are reset, and a hole that
// swallows everything. What arrives is exact, what fails says why and in time, and nobody else waits.
#include "network.h"

#ifndef COLIB_PEER // needs time-outs of the test's choice, and hooks of ours

using namespace support;

namespace {

// Lets packets that were lost be sent anew after some 10 ms, not 200 and then twice as long each time: a round trip takes
// microseconds here. On a kernel that lacks one of these files it takes longer.
void recover_fast()
{
    EXPECT_EQ(0, run_program({"ip", "route", "change", "local", "127.0.0.1", "dev", "lo", "rto_min", "10ms", "src",
                              "127.0.0.1", "table", "local"}));
    put_file("/proc/sys/net/ipv4/tcp_thin_linear_timeouts", "1");
    put_file("/proc/sys/net/ipv4/tcp_rto_max_ms", "1000");
    put_file("/proc/sys/net/ipv4/tcp_retries2", "100");
    put_file("/proc/sys/net/ipv4/tcp_syn_retries", "100");
    put_file("/proc/sys/net/ipv4/tcp_synack_retries", "100");
    put_file("/proc/sys/net/ipv4/tcp_no_metrics_save", "1");
}

// Both ways of one connection, each in a coroutine, so that a read and a write wait on one descriptor.
struct Exchange {
    Exchange(HookedListener &listener, unsigned stream, int timeout_ms)
        : link(listener, timeout_ms), to_server{link.client, stream}, to_client{link.server, stream + 1},
          at_server{link.server, stream}, at_client{link.client, stream + 1}
    {
    }
    void start(Group &group, const std::function<void(Outgoing &)> &writes)
    {
        for (Outgoing *out : {&to_server, &to_client}) {
            group.go_hooked([this, out, writes] {
                writes(*out);
                --running;
            });
        }
        for (Incoming *in : {&at_server, &at_client}) {
            group.go_hooked([this, in] {
                while (in->take() > 0) {
                }
                --running;
            });
        }
    }
    void wait() const
    {
        while (running > 0) {
            nap(1);
        }
    }

    Link link;
    Outgoing to_server, to_client;
    Incoming at_server, at_client;
    int running = 4;
};

} // namespace

TEST(LossyNetwork, of_thirty_packets_in_a_hundred_brings_every_byte)
{
    const size_t size = 20000;
    EXPECT_IN_NETWORK(60, [](Group &group) {
        recover_fast();
        HookedListener listener;
        EXPECT_EQ(0, co_set_timeout(listener.fd, 50000, 50000));
        set_rules_of(listener, "numgen random mod 100 < 30 counter name hit drop");
        const long long start = now_ms();
        // Nobody closes before all has arrived: of a socket that is closed the kernel gives up the rest after a few tries.
        int left = 40, arrived = 0;
        for (unsigned i = 0; i < 20; ++i) {
            group.go_hooked([&left, &arrived, &listener, i] {
                const int fd = socket(AF_INET, SOCK_STREAM, 0);
                const int on = 1;
                EXPECT_EQ(0, setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
                EXPECT_EQ(0, co_set_timeout(fd, 50000, 50000));
                EXPECT_EQ(0, connect(fd, listener.generic(), sizeof listener.addr)) << strerror(errno);
                Outgoing out{fd, 2 * i};
                Incoming in{fd, 2 * i + 1};
                EXPECT_EQ(4, write(fd, &i, 4)); // whose streams these are
                EXPECT_TRUE(out.put_up_to(size, 1000)) << strerror(out.error);
                EXPECT_EQ(0, shutdown(fd, SHUT_WR));
                EXPECT_TRUE(in.take_up_to(size)) << in.done << ", " << strerror(in.error);
                EXPECT_EQ(0, in.take());
                for (++arrived; arrived < 40;) {
                    nap(1);
                }
                EXPECT_EQ(0, close(fd));
                --left;
            });
            group.go_hooked([&left, &arrived, &listener] {
                const int fd = accept(listener.fd, nullptr, nullptr);
                ASSERT_GE(fd, 0) << strerror(errno);
                EXPECT_EQ(0, co_set_timeout(fd, 50000, 50000));
                const int on = 1;
                EXPECT_EQ(0, setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
                unsigned number = 0;
                EXPECT_EQ(4, recv(fd, &number, 4, MSG_WAITALL));
                Incoming in{fd, 2 * number};
                Outgoing out{fd, 2 * number + 1};
                EXPECT_TRUE(out.put_up_to(size, 1000)) << strerror(out.error);
                EXPECT_EQ(0, shutdown(fd, SHUT_WR));
                EXPECT_TRUE(in.take_up_to(size)) << in.done << ", " << strerror(in.error);
                EXPECT_EQ(0, in.take());
                for (++arrived; arrived < 40;) {
                    nap(1);
                }
                EXPECT_EQ(0, close(fd));
                --left;
            });
        }
        while (left > 0) {
            nap(1);
        }
        const long lost = packets_hit();
        printf("%ld packets lost, %lld ms\n", lost, now_ms() - start);
        EXPECT_GT(lost, 100);
    });
}

TEST(ResetConnections, fail_in_mid_stream_after_an_exact_prefix_and_the_others_go_on)
{
    EXPECT_IN_NETWORK(25, [](Group &group) {
        HookedListener listener;
        Bystanders others(group, 4);
        std::vector<std::unique_ptr<Exchange>> all;
        for (unsigned i = 0; i < 8; ++i) {
            all.push_back(std::make_unique<Exchange>(listener, 2 * i, 10000));
            // Half of them at full speed, so that writes wait; half in small pieces, so that reads do.
            all.back()->start(group, [i](Outgoing &out) {
                while (out.put(i % 2 == 0 ? 300000 : 500) > 0) {
                    if (i % 2 != 0) {
                        nap(1);
                    }
                }
            });
        }
        for (const auto &one : all) {
            while (one->at_client.done < 10000 || one->at_server.done < 10000) {
                nap(1);
            }
        }
        EXPECT_EQ(0, packets_hit());
        const long long start = now_ms();
        set_rules_of(listener, "tcp flags & rst == 0 counter name hit reject with tcp reset");
        for (const auto &one : all) {
            one->wait();
            // The error is told once, to whoever asks first; the other call sees the end that it made. (A write that is just
            // going on may have it after its first bytes, and tells their number.)
            for (const auto &end : {std::make_pair(&one->to_server, &one->at_client),
                                    std::make_pair(&one->to_client, &one->at_server)}) {
                const int write_error = end.first->error, read_error = end.second->error;
                EXPECT_TRUE(write_error == ECONNRESET || write_error == EPIPE) << strerror(write_error);
                EXPECT_TRUE(read_error == ECONNRESET || read_error == 0) << strerror(read_error);
            }
            EXPECT_TRUE(one->at_server.exact && one->at_client.exact);
            EXPECT_LE(one->at_server.done, one->to_server.done);
            EXPECT_LE(one->at_client.done, one->to_client.done);
        }
        EXPECT_LT(now_ms() - start, 8000) << "they waited for a time-out";
        EXPECT_GE(packets_hit(), 8);
        EXPECT_EQ(0, pipe_signals);
        others.expect_to_go_on();
    });
}

TEST(ResetConnections, by_a_peer_that_does_not_linger_wake_a_read_and_a_write_that_wait)
{
    EXPECT_IN_NETWORK(25, [](Group &group) {
        HookedListener listener;
        Bystanders others(group, 2);
        int left = 0;
        for (unsigned i = 0; i < 12; ++i) {
            ++left;
            group.go_hooked([&left, &group, &listener, i] {
                Link link(listener, 10000);
                Outgoing out{link.client, 2 * i}, back{link.server, 2 * i + 1};
                Incoming in{link.server, 2 * i}, there{link.client, 2 * i + 1};
                int waiting = 2;
                EXPECT_TRUE(back.put_up_to(3000, 1000));
                group.go_hooked([&] {
                    while (there.take() > 0) {
                    }
                    --waiting;
                });
                group.go_hooked([&] {
                    while (i % 2 == 0 && out.put(300000) > 0) { // odd ones write nothing, so the read has the error
                    }
                    --waiting;
                });
                while (there.done < 3000 || (i % 2 == 0 && !in.take_up_to(200000))) {
                    nap(1);
                }
                nap(20); // the buffers are full again
                const linger none = {1, 0};
                EXPECT_EQ(0, setsockopt(link.server, SOL_SOCKET, SO_LINGER, &none, sizeof none));
                const long long start = now_ms();
                Link::close_end(link.server);
                while (waiting > 0) {
                    nap(1);
                }
                EXPECT_LT(now_ms() - start, 2000);
                EXPECT_EQ(3000u, there.done);
                EXPECT_TRUE(there.exact);
                if (i % 2 == 0) {
                    EXPECT_TRUE(out.error == ECONNRESET || out.error == EPIPE) << strerror(out.error);
                    EXPECT_TRUE(out.error == ECONNRESET || there.error == ECONNRESET) << "nobody was told";
                    EXPECT_GE(out.done, in.done);
                } else {
                    EXPECT_EQ(ECONNRESET, there.error);
                    EXPECT_EQ(-1, out.put(10));
                    EXPECT_EQ(EPIPE, out.error);
                    EXPECT_EQ(0, there.take()) << "the error was told before";
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

TEST(ResetConnections, cut_a_waiting_write_short_and_leave_the_error_to_the_next_call)
{
    EXPECT_IN_NETWORK(10, [](Group &) {
        HookedListener listener;
        for (int i = 0; i < 4; ++i) {
            SCOPED_TRACE(i);
            Link link(listener, 10000);
            Outgoing out{link.client, 1};
            Incoming in{link.client, 2};
            ssize_t written = 0;
            Co writer([&] {
                co_enable_hook_sys();
                written = out.put(20000000, i % 2 != 0);
            });
            writer.resume();
            nap(20);
            ASSERT_FALSE(writer.ended()) << "the buffers took it all";
            const linger none = {1, 0};
            EXPECT_EQ(0, setsockopt(link.server, SOL_SOCKET, SO_LINGER, &none, sizeof none));
            Link::close_end(link.server);
            while (!writer.ended()) {
                nap(1);
            }
            EXPECT_GT(written, 0);
            EXPECT_EQ(-1, i < 2 ? in.take() : out.put(10, false));
            EXPECT_EQ(ECONNRESET, i < 2 ? in.error : out.error) << "not an end like any other";
            EXPECT_EQ(0, pipe_signals);
        }
    });
}

TEST(ResetConnections, raise_sigpipe_at_a_write_and_only_there)
{
    EXPECT_IN_NETWORK(10, [](Group &) {
        HookedListener listener;
        Link link(listener, 1000);
        nap(30);
        Outgoing out{link.client, 1};
        const linger none = {1, 0};
        EXPECT_EQ(0, setsockopt(link.server, SOL_SOCKET, SO_LINGER, &none, sizeof none));
        Link::close_end(link.server);
        EXPECT_EQ(-1, out.put(10, false));
        EXPECT_EQ(ECONNRESET, out.error);
        EXPECT_EQ(0, pipe_signals);
        EXPECT_EQ(-1, out.put(10));
        EXPECT_EQ(EPIPE, out.error);
        EXPECT_EQ(0, pipe_signals);
        EXPECT_EQ(-1, out.put(10, false));
        EXPECT_EQ(EPIPE, out.error);
        EXPECT_EQ(1, pipe_signals);
    });
}

TEST(BlackHole, times_out_connects_reads_and_writes_and_lets_the_same_connection_go_on)
{
    EXPECT_IN_NETWORK(25, [](Group &group) {
        recover_fast();
        HookedListener listener;
        Bystanders others(group, 4);
        Link link(listener, 200);
        Outgoing out{link.client, 1}, back{link.server, 2};
        Incoming in{link.server, 1}, there{link.client, 2};
        EXPECT_TRUE(out.put_up_to(50000, 5000) && in.take_up_to(50000));
        set_rules_of(listener, "counter name hit drop");

        const long before = others.rounds();
        int connects = 0;
        for (int i = 0; i < 10; ++i) {
            group.go_hooked([&connects, &listener, i] {
                const int fd = socket(AF_INET, SOCK_STREAM, 0);
                EXPECT_EQ(0, i % 2 == 0 ? set_timeout_option(fd, SO_SNDTIMEO, 300) : co_set_timeout(fd, -1, 300));
                const long long start = now_ms();
                errno = 0;
                EXPECT_EQ(-1, connect(fd, listener.generic(), sizeof listener.addr));
                EXPECT_EQ(ETIMEDOUT, errno) << strerror(errno);
                EXPECT_GE(now_ms() - start, 299);
                EXPECT_LT(now_ms() - start, 800);
                EXPECT_EQ(0, close(fd));
                ++connects;
            });
        }
        EXPECT_TRUE(back.put_up_to(5000, 1000)) << "the kernel takes what it cannot send yet";
        times_out(200, "read", [&] { return there.take(); });
        // Writes go on until the buffer is full; after 200 ms without progress they stop.
        const long long start = now_ms();
        EXPECT_FALSE(out.put_up_to(20000000, 1000000));
        EXPECT_EQ(EAGAIN, out.error);
        EXPECT_GE(now_ms() - start, 399) << "one wait after what went in, and one more";
        EXPECT_LT(now_ms() - start, 2000);
        EXPECT_GT(out.done, 50000u);
        times_out(200, "write", [&] { return out.put(100000); });
        while (connects < 10) {
            nap(1);
        }
        EXPECT_GE(others.rounds(), before + 100) << "others waited for the hole";
        EXPECT_GT(packets_hit(), 10);

        set_rules({});
        link.set_timeouts(10000, 10000);
        EXPECT_TRUE(there.take_up_to(5000)) << there.done << ", " << strerror(there.error);
        EXPECT_TRUE(in.take_up_to(out.done)) << in.done << " of " << out.done << ", " << strerror(in.error);
        EXPECT_TRUE(out.put_up_to(out.done + 100000, 1000) && in.take_up_to(out.done));
        others.expect_to_go_on();
    });
}

#endif
