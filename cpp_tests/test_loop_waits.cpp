// Who is woken when several coroutines, or closing hands, share a descriptor.
#include "loop_support.h"

using namespace support;

namespace {

int wait_for(int fd, short events, int timeout_ms, short *revents = nullptr)
{
    pollfd p = {fd, events, 0};
    const int result = co_poll(co_get_epoll_ct(), &p, 1, timeout_ms);
    if (revents != nullptr) {
        *revents = p.revents;
    }
    return result;
}

} // namespace

TEST(Waits, for_ever_last_until_the_event_comes)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        int result = -2;
        group.go([&] { result = wait_for(pipe.a, POLLIN, -1); });
        group.go([&] {
            nap(300);
            EXPECT_EQ(-2, result);
            raw_write(pipe.b, "x", 1);
        });
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, result);
    });
}

TEST(Waits, longer_than_forty_seconds_beside_short_ones_are_not_ended_early)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        int early = 0;
        std::vector<std::unique_ptr<Co>> sleepers;
        for (int ms : {40000, 40001, 41000, 59999, 60000, 60001, 65536, 120000, 3600000, INT_MAX, -1}) {
            sleepers.push_back(std::make_unique<Co>([&early, ms] {
                nap(ms);
                ++early;
            }));
            sleepers.back()->resume();
        }
        Group group;
        for (int i = 0; i < 50; ++i) {
            group.go([i] {
                const long long end = now_ms() + 1200;
                while (now_ms() < end) {
                    nap(1 + i % 7);
                }
            });
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(0, early);
        for (auto &sleeper : sleepers) {
            sleeper->forget(); // still asleep
        }
    });
}

MENDED(Waits, of_several_coroutines_for_one_event_are_all_served)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        int served = 0;
        for (int i = 0; i < 100; ++i) {
            group.go([&] {
                short revents = 0;
                served += wait_for(pipe.a, POLLIN, 15000, &revents) == 1 && revents == POLLIN;
            });
        }
        loop_rounds(3);
        EXPECT_EQ(0, served);
        raw_write(pipe.b, "x", 1);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(100, served);
    });
}

MENDED(Waits, of_several_coroutines_for_different_events_are_served_each_by_its_own)
{
    on_thread([] {
        Pair pair = plain_pair();
        static const char block[4096] = {};
        raw_nonblock(pair.a);
        while (raw_write(pair.a, block, sizeof block) > 0) {
        }
        Group group;
        short read_events = -1, write_events = -1;
        group.go([&] { wait_for(pair.a, POLLIN, 15000, &read_events); });
        group.go([&] { wait_for(pair.a, POLLOUT, 15000, &write_events); });
        loop_rounds(3);
        EXPECT_EQ(-1, read_events);
        EXPECT_EQ(-1, write_events);
        raw_write(pair.b, "x", 1);
        ASSERT_TRUE(loop_until([&] { return read_events != -1; }));
        EXPECT_EQ(POLLIN, read_events);
        EXPECT_EQ(-1, write_events);
        raw_nonblock(pair.b);
        static char sink[65536];
        while (raw_read(pair.b, sink, sizeof sink) > 0) {
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(POLLOUT, write_events);
    });
}

MENDED(Waits, of_which_one_times_out_leave_the_others_waiting)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        int early = -2, late = -2;
        group.go([&] { late = wait_for(pipe.a, POLLIN, 15000); });
        group.go([&] { early = wait_for(pipe.a, POLLIN, 20); });
        ASSERT_TRUE(loop_until([&] { return early != -2; }));
        EXPECT_EQ(0, early);
        EXPECT_EQ(-2, late);
        raw_write(pipe.b, "x", 1);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, late);
    });
}

MENDED(Waits, of_several_coroutines_in_sets_that_overlap_are_all_served)
{
    on_thread([] {
        std::vector<Pair> pipes;
        for (int i = 0; i < 8; ++i) {
            pipes.push_back(plain_pipe());
        }
        Group group;
        int served = 0;
        for (int k = 0; k < 8; ++k) {
            group.go([&, k] {
                pollfd set[4];
                for (int i = 0; i < 4; ++i) {
                    set[i] = {pipes[(k + i) % 8].a, POLLIN, 0};
                }
                const int result = co_poll(co_get_epoll_ct(), set, 4, 15000);
                int marked = 0;
                for (const pollfd &p : set) {
                    marked += p.revents == POLLIN && p.fd == pipes[3].a;
                }
                served += result == 1 && marked == 1;
            });
        }
        raw_write(pipes[3].b, "x", 1);
        ASSERT_TRUE(loop_until([&] { return served == 4; }));
        loop_rounds(3);
        EXPECT_EQ(4, served); // the sets of 0, 1, 2 and 3 contain it
        raw_write(pipes[7].b, "x", 1);
        ASSERT_TRUE(group.run());
    });
}

MENDED(Waits, of_a_reader_and_a_writer_move_eight_megabytes_each_way_on_one_socket)
{
    const size_t total = 8 << 20;
    on_thread([&] {
        Group group;
        group.go_hooked([&] {
            HookedPair pair = hooked_tcp_pair();
            raw_nonblock(pair.peer);
            size_t got = 0, sent = 0, echoed_in = 0, echoed_out = 0;
            bool right = true;
            Co reader([&] {
                co_enable_hook_sys();
                std::vector<unsigned char> buf(50000);
                while (got < total) {
                    const ssize_t n = read(pair.fd, buf.data(), buf.size());
                    if (n <= 0) {
                        return;
                    }
                    for (ssize_t i = 0; i < n; ++i) {
                        right = right && buf[i] == static_cast<unsigned char>((got + i) * 7 >> 4);
                    }
                    got += n;
                }
            });
            Co writer([&] {
                co_enable_hook_sys();
                std::vector<unsigned char> all(total);
                for (size_t i = 0; i < total; ++i) {
                    all[i] = static_cast<unsigned char>(i * 7 >> 4);
                }
                sent = write(pair.fd, all.data(), all.size());
            });
            // The peer, on one non-blocking descriptor of its own: an echo of limited memory.
            Co echo([&] {
                std::vector<char> held(300000);
                size_t from = 0, to = 0;
                while (echoed_out < total) {
                    if (from == to) {
                        from = to = 0;
                        const ssize_t n = raw_read(pair.peer, held.data(), held.size());
                        if (n > 0) {
                            to = n;
                            echoed_in += n;
                        } else if (wait_for(pair.peer, POLLIN, 10000) != 1) {
                            return;
                        }
                    } else {
                        const ssize_t n = raw_write(pair.peer, held.data() + from, to - from);
                        if (n > 0) {
                            from += n;
                            echoed_out += n;
                        } else if (wait_for(pair.peer, POLLOUT, 10000) != 1) {
                            return;
                        }
                    }
                }
            });
            reader.resume();
            writer.resume();
            echo.resume();
            while (!reader.ended() || !writer.ended() || !echo.ended()) {
                nap(5);
            }
            EXPECT_EQ(total, sent);
            EXPECT_EQ(total, got);
            EXPECT_TRUE(right) << "bytes differ";
        });
        ASSERT_TRUE(group.run(60000));
    });
}

MENDED(Waits, end_when_the_descriptor_is_closed)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        int woken = 0;
        for (int i = 0; i < 3; ++i) {
            group.go([&] {
                wait_for(pipe.a, POLLIN, -1);
                ++woken;
            });
        }
        loop_rounds(3);
        EXPECT_EQ(0, woken);
        EXPECT_EQ(0, close(pipe.a.forget()));
        ASSERT_TRUE(group.run());
    });
}

MENDED(Waits, end_with_pollnval_when_the_descriptor_is_closed)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        short revents = 0;
        int result = -2;
        group.go([&] { result = wait_for(pipe.a, POLLIN, 10000, &revents); });
        group.go([&] {
            nap(2);
            EXPECT_EQ(0, close(pipe.a.forget()));
        });
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, result);
        EXPECT_EQ(POLLNVAL, revents);
    });
}

MENDED(Waits, end_when_one_descriptor_of_the_set_is_closed)
{
    on_thread([] {
        Pair pipes[3] = {plain_pipe(), plain_pipe(), plain_pipe()};
        Group group;
        int result = -2;
        group.go([&] {
            pollfd set[3] = {
                {pipes[0].a, POLLIN, 0}, {pipes[1].a, POLLIN, 0}, {pipes[2].a, POLLIN, 0}};
            result = co_poll(co_get_epoll_ct(), set, 3, -1);
        });
        loop_rounds(2);
        close(pipes[1].a.forget());
        ASSERT_TRUE(group.run());
        EXPECT_NE(-2, result);
    });
}

// A file reports nothing that it is not asked for: only its close can end the wait.
MENDED(Waits, for_nothing_of_a_file_end_when_it_is_closed)
{
    for (const bool by_another_thread : {false, true}) {
        SCOPED_TRACE(by_another_thread ? "closed by another thread" : "closed by another coroutine");
        on_thread([by_another_thread] {
            Fd alone(open("/dev/null", O_RDONLY));
            Fd beside(open("/dev/null", O_RDONLY));
            Pair pipe = plain_pipe();
            Group group;
            int results[2] = {-2, -2};
            pollfd one = {alone, 0, 0};
            pollfd two[2] = {{pipe.a, POLLIN, 0}, {beside, 0, 0}};
            group.go([&] { results[0] = co_poll(co_get_epoll_ct(), &one, 1, 10000); });
            group.go([&] { results[1] = co_poll(co_get_epoll_ct(), two, 2, 10000); });
            loop_rounds(3);
            EXPECT_EQ(-2, results[0]);
            EXPECT_EQ(-2, results[1]);
            const auto close_both = [&] {
                EXPECT_EQ(0, close(alone.forget()));
                EXPECT_EQ(0, close(beside.forget()));
            };
            by_another_thread ? std::thread(close_both).join() : close_both();
            ASSERT_TRUE(group.run());
            EXPECT_EQ(1, results[0]);
            EXPECT_EQ(POLLNVAL, one.revents);
            EXPECT_EQ(1, results[1]);
            EXPECT_EQ(0, two[0].revents);
            EXPECT_EQ(POLLNVAL, two[1].revents);
        });
    }
}

MENDED(Waits, end_when_another_coroutine_closes_with_hooks_on)
{
    on_thread([] {
        Group group;
        ssize_t result = -2;
        int error = 0;
        group.go_hooked([&] {
            HookedPair pair = hooked_tcp_pair();
            const int fd = pair.fd;
            set_timeout_option(fd, SO_RCVTIMEO, 15000);
            Co reader([&] {
                co_enable_hook_sys();
                char byte;
                errno = 0;
                result = read(fd, &byte, 1);
                error = errno;
            });
            reader.resume();
            nap(10);
            EXPECT_EQ(-2, result);
            close(pair.fd.forget());
            const long long start = now_ms();
            while (!reader.ended()) {
                nap(1);
            }
            EXPECT_LT(now_ms() - start, 5000);
        });
        ASSERT_TRUE(group.run());
        EXPECT_EQ(-1, result);
        EXPECT_EQ(EBADF, error);
    });
}

MENDED(Waits, end_when_another_thread_closes_the_descriptor)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        std::atomic<bool> waiting{false};
        group.go([&] { wait_for(pipe.a, POLLIN, -1); });
        std::thread closer([&] {
            wait_until([&] { return waiting.load(); });
            close(pipe.a.forget());
        });
        int round = 0;
        EXPECT_TRUE(loop_until([&] {
            waiting = ++round > 3;
            return group.all_ended();
        }));
        closer.join();
    });
}

TEST(Waits, end_with_nothing_ready_when_the_coroutine_is_resumed_by_hand)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        int result = -2;
        short revents = -1;
        Co co([&] { result = wait_for(pipe.a, POLLIN, 60000, &revents); });
        co.resume();
        loop_rounds(2);
        EXPECT_EQ(-2, result);
        co.resume();
        EXPECT_TRUE(co.ended());
        EXPECT_EQ(0, result);
        EXPECT_EQ(0, revents);
    });
}

TEST(Waits, work_as_ever_after_one_was_ended_by_hand)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        std::vector<int> results;
        Co co([&] {
            results.push_back(wait_for(pipe.a, POLLIN, 60000));
            results.push_back(wait_for(pipe.a, POLLIN, 20));
            results.push_back(wait_for(pipe.a, POLLIN, 60000));
        });
        co.resume();
        loop_rounds(2);
        co.resume();
        ASSERT_TRUE(loop_until([&] { return results.size() == 2; }));
        raw_write(pipe.b, "x", 1);
        ASSERT_TRUE(loop_until([&] { return co.ended(); }));
        EXPECT_EQ((std::vector<int>{0, 0, 1}), results);
    });
}

TEST(Waits, of_a_sleeper_resumed_by_hand_do_not_come_back_at_their_time_out)
{
    on_thread([] {
        int steps = 0;
        Co co([&] {
            nap(30);
            ++steps;
            co_yield_ct();
            ++steps;
        });
        co.resume();
        co.resume();
        EXPECT_EQ(1, steps);
        Group group;
        group.go([] { nap(120); });
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, steps) << "the old time-out resumed it";
    });
}

TEST(Waits, before_any_loop_runs_stay_suspended_until_one_does)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        int result = -2;
        group.go([&] { result = wait_for(pipe.a, POLLIN, 10000); });
        raw_write(pipe.b, "x", 1);
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        EXPECT_EQ(-2, result);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, result);
    });
}

TEST(Waits, that_saw_the_event_come_between_two_rounds_report_it_once)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        int reads = 0;
        group.go([&] {
            char byte;
            for (int i = 0; i < 200; ++i) {
                ASSERT_EQ(1, wait_for(pipe.a, POLLIN, 10000));
                ASSERT_EQ(1, raw_read(pipe.a, &byte, 1));
                ++reads;
            }
            EXPECT_EQ(0, wait_for(pipe.a, POLLIN, 5));
        });
        int written = 0;
        ASSERT_TRUE(loop_until([&] {
            if (written == reads && written < 200) {
                raw_write(pipe.b, "x", 1);
                ++written;
            }
            return group.all_ended();
        }));
        EXPECT_EQ(200, reads);
    });
}

MENDED(Waits, of_a_released_coroutine_are_taken_off_the_descriptor)
{
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        int result = -2;
        {
            Co gone([&] { wait_for(pipe.a, POLLIN, 20); });
            gone.resume();
            group.go([&] { result = wait_for(pipe.a, POLLIN, 10000); });
            loop_rounds(2);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(40));
        loop_rounds(3);
        EXPECT_EQ(-2, result);
        raw_write(pipe.b, "x", 1);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(1, result);
    });
}

TEST(Waits, of_many_descriptors_that_fire_together_are_all_served)
{
    on_thread([] {
        std::vector<Pair> pipes;
        for (int i = 0; i < 3000; ++i) {
            pipes.push_back(plain_pipe());
        }
        Group group;
        int served = 0;
        for (const Pair &pipe : pipes) {
            group.go([&] { served += wait_for(pipe.a, POLLIN, 15000) == 1; });
        }
        for (const Pair &pipe : pipes) {
            raw_write(pipe.b, "x", 1);
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(3000, served);
    });
}
