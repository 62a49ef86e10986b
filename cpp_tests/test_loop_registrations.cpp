// A descriptor that the loop has known may be closed past the library, stay open through a dup, a
// child or a peer, and its number may come back as something else: the loop must neither spin nor
// hang.
#include "loop_support.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

using namespace support;

namespace {

int wait_in(int fd, int timeout_ms = 10000)
{
    pollfd p = {fd, POLLIN, 0};
    return co_poll(co_get_epoll_ct(), &p, 1, timeout_ms);
}

// Makes the loop know the reading end: one wait that was served, and the byte consumed.
void make_known(const Pair &pair)
{
    char byte;
    raw_write(pair.b, "x", 1);
    ASSERT_EQ(1, wait_in(pair.a));
    ASSERT_EQ(1, raw_read(pair.a, &byte, 1));
}

void expect_served(const Pair &pair)
{
    // Nothing there yet: must not be woken by what the number was before.
    EXPECT_EQ(0, wait_in(pair.a, 20));
    Co writer([&] {
        nap(10);
        raw_write(pair.b, "y", 1);
    });
    writer.resume();
    EXPECT_EQ(1, wait_in(pair.a, 5000)) << "the new descriptor is not served";
    char byte = 0;
    raw_read(pair.a, &byte, 1);
    EXPECT_EQ('y', byte);
    while (!writer.ended()) {
        nap(1);
    }
}

// Moves the reading end of a fresh pair to `number`, past the library.
Pair pair_on(int number, Pair fresh)
{
    if (fresh.a != number) {
        syscall(SYS_dup3, fresh.a.get(), number, 0);
        fresh.a.reset(number);
    }
    return fresh;
}

using Closing = std::function<void(int fd)>;

void with_fclose(int fd) { fclose(fdopen(fd, "r")); }
void with_a_raw_call(int fd) { raw_close(fd); }
void with_close_range(int fd) { syscall(SYS_close_range, fd, fd, 0); }

// What is closed past the library while its peer stays, and then hangs up.
void goes_on_after(const Closing &closing, const std::function<Pair()> &make)
{
    on_thread([&] {
        Group group;
        group.go([&] {
            for (int round = 0; round < 3; ++round) {
                Pair known = make();
                const int number = known.a;
                make_known(known);
                closing(known.a.forget());
                if (round > 0) {
                    known.b.reset();
                }
                if (round < 2) {
                    expect_idle(300);
                }
                expect_served(pair_on(number, make()));
            }
            expect_idle(300);
        });
        ASSERT_TRUE(group.run());
    });
}

// The same with a dup that keeps the file open: data and hang-up still arrive on it.
void goes_on_after_with_a_dup(const Closing &closing, const std::function<Pair()> &make)
{
    on_thread([&] {
        Group group;
        group.go([&] {
            Pair known = make();
            const int number = known.a;
            make_known(known);
            Fd kept(static_cast<int>(syscall(SYS_dup, number)));
            closing(known.a.forget());
            raw_write(known.b, "z", 1);
            expect_idle(300);
            Pair next = pair_on(number, make());
            expect_served(next);
            expect_idle(300);
            known.b.reset();
            expect_idle(300);
            EXPECT_EQ(1, wait_in(kept, 5000)) << "the dup itself is not served";
            expect_served(next);
        });
        ASSERT_TRUE(group.run());
    });
}

Pair pipe_pair() { return plain_pipe(); }
Pair socket_pair() { return plain_pair(); }

} // namespace

TEST(Registrations, survive_fclose_of_a_pipe) { goes_on_after(with_fclose, pipe_pair); }
TEST(Registrations, survive_fclose_of_a_socket) { goes_on_after(with_fclose, socket_pair); }
TEST(Registrations, survive_a_raw_close_of_a_pipe) { goes_on_after(with_a_raw_call, pipe_pair); }
TEST(Registrations, survive_a_raw_close_of_a_socket) { goes_on_after(with_a_raw_call, socket_pair); }
TEST(Registrations, survive_close_range) { goes_on_after(with_close_range, socket_pair); }
TEST(Registrations, survive_close) { goes_on_after(close, socket_pair); }

TEST(Registrations, survive_fclose_with_a_dup_left) { goes_on_after_with_a_dup(with_fclose, socket_pair); }
TEST(Registrations, survive_a_raw_close_with_a_dup_left)
{
    goes_on_after_with_a_dup(with_a_raw_call, socket_pair);
}
TEST(Registrations, survive_a_raw_close_of_a_pipe_with_a_dup_left)
{
    goes_on_after_with_a_dup(with_a_raw_call, pipe_pair);
}
TEST(Registrations, survive_close_range_with_a_dup_left)
{
    goes_on_after_with_a_dup(with_close_range, socket_pair);
}
TEST(Registrations, survive_close_with_a_dup_left) { goes_on_after_with_a_dup(close, socket_pair); }

TEST(Registrations, survive_dup2_onto_the_number)
{
    on_thread([] {
        Group group;
        group.go([] {
            Pair known = plain_pair();
            make_known(known);
            Pair next = plain_pair();
            ASSERT_EQ(known.a.get(), dup2(next.a, known.a));
            expect_served({Fd(syscall(SYS_dup, known.a.get())), Fd(syscall(SYS_dup, next.b.get()))});
            known.b.reset();
            expect_idle(300);
            next.a.reset(known.a.forget());
            expect_served(next);
        });
        ASSERT_TRUE(group.run());
    });
}

TEST(Registrations, survive_dup2_onto_the_number_with_a_dup_of_the_old_file_left)
{
    on_thread([] {
        Group group;
        group.go([] {
            Pair known = plain_pair();
            make_known(known);
            Fd kept(static_cast<int>(syscall(SYS_dup, known.a.get())));
            Pair next = plain_pair();
            ASSERT_EQ(known.a.get(), dup2(next.a, known.a));
            raw_write(known.b, "z", 1);
            expect_idle(300);
            next.a.reset(known.a.forget());
            expect_served(next);
            expect_idle(300);
        });
        ASSERT_TRUE(group.run());
    });
}

TEST(Registrations, survive_a_number_that_became_a_file)
{
    on_thread([] {
        Group group;
        group.go([] {
            Pair known = plain_pair();
            make_known(known);
            Fd kept(static_cast<int>(syscall(SYS_dup, known.a.get())));
            Fd file(open("/proc/self/exe", O_RDONLY));
            syscall(SYS_dup3, file.get(), known.a.get(), 0);
            raw_write(known.b, "z", 1);
            expect_idle(300);
        });
        ASSERT_TRUE(group.run());
    });
}

// The file stays in the child after the parent closed its number.
TEST(Registrations, survive_a_forked_child_that_keeps_the_file_open)
{
    for (const Closing &closing : {Closing(with_a_raw_call), Closing(close)}) {
        on_thread([&] {
            Group group;
            group.go([&] {
                Pair known = plain_pair(), leash = plain_pipe();
                const int number = known.a;
                make_known(known);
                const pid_t child = fork();
                if (child == 0) {
                    leash.b.reset();
                    char byte;
                    raw_read(leash.a, &byte, 1); // until the parent lets go
                    _exit(0);
                }
                closing(known.a.forget());
                raw_write(known.b, "z", 1);
                expect_idle(300);
                expect_served(pair_on(number, plain_pair()));
                known.b.reset();
                expect_idle(300);
                leash.b.reset();
                waitpid(child, nullptr, 0);
            });
            ASSERT_TRUE(group.run());
        });
    }
}

TEST(Registrations, survive_a_descriptor_passed_on_to_a_peer)
{
    for (const Closing &closing : {Closing(with_a_raw_call), Closing(close)}) {
        on_thread([&] {
            Group group;
            group.go([&] {
                Pair known = plain_pair(), carrier = plain_pair();
                const int number = known.a;
                make_known(known);
                char byte = 'p';
                iovec data = {&byte, 1};
                alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
                msghdr message = {};
                message.msg_iov = &data;
                message.msg_iovlen = 1;
                message.msg_control = space;
                message.msg_controllen = sizeof space;
                cmsghdr *header = CMSG_FIRSTHDR(&message);
                header->cmsg_level = SOL_SOCKET;
                header->cmsg_type = SCM_RIGHTS;
                header->cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(header), &number, sizeof number);
                ASSERT_EQ(1, syscall(SYS_sendmsg, carrier.a.get(), &message, 0));
                closing(known.a.forget()); // the message in flight holds the file
                raw_write(known.b, "z", 1);
                expect_idle(300);
                expect_served(pair_on(number, plain_pair()));

                ASSERT_EQ(1, syscall(SYS_recvmsg, carrier.b.get(), &message, 0));
                int received = -1;
                memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof received);
                Fd owned(received);
                EXPECT_EQ(1, wait_in(received, 5000));
                ASSERT_EQ(1, raw_read(received, &byte, 1));
                EXPECT_EQ('z', byte);
                expect_idle(300);
            });
            ASSERT_TRUE(group.run());
        });
    }
}

// The two ends are waited for, in turn, in two threads' loops.
TEST(Registrations, of_one_descriptor_in_two_threads_serve_both)
{
    Pair shared = plain_pair();
    std::atomic<int> served{0};
    for (int round = 0; round < 20; ++round) {
        std::vector<std::thread> threads;
        std::atomic<int> waiting{0};
        served = 0;
        for (int t = 0; t < 2; ++t) {
            threads.emplace_back([&] {
                Group group;
                group.go([&] {
                    nap(1);
                    ++waiting;
                    served += wait_in(shared.a) == 1;
                });
                group.run();
            });
        }
        wait_until([&] { return waiting == 2; });
        raw_write(shared.b, "x", 1);
        for (std::thread &thread : threads) {
            thread.join();
        }
        ASSERT_EQ(2, served);
        char byte;
        raw_read(shared.a, &byte, 1);
    }
}

TEST(Registrations, of_a_descriptor_closed_by_one_thread_leave_the_other_threads_loop_idle)
{
    Pair known = plain_pair();
    const int number = known.a;
    Fd kept(static_cast<int>(syscall(SYS_dup, number)));
    std::atomic<bool> is_known{false}, closed{false};
    std::thread other([&] {
        Group group;
        group.go([&] {
            make_known(known);
            is_known = true;
            while (!closed) {
                nap(1);
            }
            expect_idle(300);
            expect_served(pair_on(number, plain_pair()));
        });
        EXPECT_TRUE(group.run());
    });
    on_thread([&] {
        Group group;
        group.go([&] {
            while (!is_known) {
                nap(1);
            }
            make_known(known);
            close(known.a.forget());
            raw_write(known.b, "z", 1);
            closed = true;
            expect_idle(300);
        });
        ASSERT_TRUE(group.run());
    });
    other.join();
}

TEST(Registrations, do_not_disturb_the_programs_own_epoll_set)
{
    on_thread([] {
        Group group;
        group.go([] {
            Pair known = plain_pair();
            Fd own(epoll_create1(0));
            epoll_event event = {};
            event.events = EPOLLIN;
            event.data.u64 = 4711;
            ASSERT_EQ(0, epoll_ctl(own, EPOLL_CTL_ADD, known.a, &event));
            make_known(known);
            raw_write(known.b, "x", 1);
            ASSERT_EQ(1, wait_in(known.a));
            ASSERT_EQ(1, wait_in(own)); // the set itself can be waited for
            epoll_event out = {};
            ASSERT_EQ(1, epoll_wait(own, &out, 1, 0));
            EXPECT_EQ(4711u, out.data.u64);
            EXPECT_EQ(static_cast<uint32_t>(EPOLLIN), out.events);
            char byte;
            raw_read(known.a, &byte, 1);
            ASSERT_EQ(0, epoll_ctl(own, EPOLL_CTL_DEL, known.a, nullptr));
            make_known(known);
        });
        ASSERT_TRUE(group.run());
    });
}

TEST(Registrations, of_an_event_that_nobody_waits_for_any_more_do_not_spin)
{
    on_thread([] {
        Group group;
        group.go([] {
            Pair known = plain_pair();
            make_known(known);
            raw_write(known.b, "x", 1); // stays unread
            expect_idle(300);
        });
        ASSERT_TRUE(group.run());
    });
}

TEST(Registrations, of_a_hung_up_descriptor_that_nobody_waits_for_any_more_do_not_spin)
{
    on_thread([] {
        Group group;
        group.go([] {
            Pair known = plain_pair();
            make_known(known);
            known.b.reset();
            expect_idle(300);
        });
        ASSERT_TRUE(group.run());
    });
}

TEST(Registrations, do_not_wake_a_reader_for_what_only_a_writer_waited_for)
{
    on_thread([] {
        Group group;
        group.go([] {
            Pair known = plain_pair();
            pollfd p = {known.a, POLLOUT, 0};
            ASSERT_EQ(1, co_poll(co_get_epoll_ct(), &p, 1, 1000)); // writable all the time
            Co reader([&] { wait_in(known.a, 350); });
            reader.resume();
            expect_idle(300);
            while (!reader.ended()) {
                nap(5);
            }
        });
        ASSERT_TRUE(group.run());
    });
}

TEST(Registrations, of_descriptors_opened_and_closed_over_and_over_serve_each)
{
    on_thread([] {
        Group group;
        group.go([] {
            const Closing closings[] = {close, with_a_raw_call, with_fclose, with_close_range};
            for (int i = 0; i < 400; ++i) {
                Pair pair = i % 3 == 0 ? plain_pipe() : plain_pair();
                make_known(pair);
                if (i % 5 == 0) {
                    raw_write(pair.b, "left", 4);
                }
                closings[i % 4](pair.a.forget());
            }
        });
        ASSERT_TRUE(group.run());
    });
}

TEST(Registrations, of_hooked_sockets_closed_and_reused_serve_each)
{
    in_hooked_coroutine([] {
        for (int i = 0; i < 200; ++i) {
            HookedPair pair = hooked_tcp_pair();
            pair.put("q");
            char byte = 0;
            ASSERT_EQ(1, read(pair.fd, &byte, 1));
            if (i % 4 == 0) {
                raw_close(pair.fd.forget()); // past the hook
            }
        }
    });
}

// A wait whose descriptor is closed past the library cannot be told: it must still time out.
TEST(Registrations, closed_past_the_library_during_a_wait_let_the_time_out_fire)
{
    on_thread([] {
        Group group;
        Pair pair = plain_pair();
        bool ended = false;
        group.go([&] {
            wait_in(pair.a, 100);
            ended = true;
        });
        group.go([&] {
            nap(10);
            raw_close(pair.a.forget());
        });
        ASSERT_TRUE(group.run());
        EXPECT_TRUE(ended);
    });
}

MENDED(Registrations, closed_past_the_library_during_a_wait_with_a_dup_left_do_not_spin)
{
    on_thread([] {
        Group group;
        Pair pair = plain_pair();
        Fd kept(static_cast<int>(syscall(SYS_dup, pair.a.get())));
        group.go([&] { wait_in(pair.a, 100); });
        group.go([&] {
            nap(10);
            raw_close(pair.a.forget());
            nap(150);
            raw_write(pair.b, "z", 1);
            expect_idle(300);
        });
        ASSERT_TRUE(group.run());
    });
}
