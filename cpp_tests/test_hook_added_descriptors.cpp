// Pairs, pipes, eventfds and timers that the hooks know, if asked for; and what is noticed of descriptors:
// ioctl, getsockopt, fclose, shutdown.
#ifndef COLIB_PEER

#include "added_support.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

using namespace support;

namespace {

const char *const all_of_these = "accept,socketpair,pipe,pipe2,eventfd,timerfd_create,readv,writev";

uint64_t number_from(int fd)
{
    uint64_t value = 0;
    EXPECT_EQ(8, read(fd, &value, sizeof value));
    return value;
}

ssize_t number_to(int fd, uint64_t value) { return write(fd, &value, sizeof value); }

// One of each that reads can wait for, made with hooks on: what to read from, and what makes it readable.
struct Known {
    std::string name;
    int fd;
    std::function<void()> feed;
};

struct AllKnown {
    std::shared_ptr<Two> pair = made_socketpair(), ends = made_pipe();
    HookedListener listener;
    Fd client = listener.client();
    int accepted = accept(listener.fd, nullptr, nullptr);
    int counter = eventfd(0, 0), timer = timerfd_create(CLOCK_MONOTONIC, 0);

    std::vector<Known> all() const
    {
        auto put = [](int fd) { return [fd] { raw_write(fd, "8 bytes!", 8); }; };
        auto set = [this] {
            itimerspec at_once = {};
            at_once.it_value.tv_nsec = 1;
            timerfd_settime(timer, 0, &at_once, nullptr);
        };
        return {{"socketpair", pair->a, put(pair->b)},
                {"pipe", ends->a, put(ends->b)},
                {"accept", accepted, put(client)},
                {"eventfd", counter, put(counter)},
                {"timerfd", timer, set}};
    }
    ~AllKnown()
    {
        for (int fd : {accepted, counter, timer}) {
            close(fd);
        }
    }
};

// preadv2 and pwritev2 fail from now on as on kernels and files that do not know RWF_NOWAIT.
void without_rwf_nowait()
{
    const sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_preadv2, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pwritev2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter = {sizeof program / sizeof *program, const_cast<sock_filter *>(program)};
    ASSERT_EQ(0, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    ASSERT_EQ(0, prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter));
}

// Each can be read, by read and readv, with others running meanwhile.
void all_can_be_read()
{
    AllKnown known;
    for (const Known &one : known.all()) {
        for (bool vector : {false, true}) {
            bool others_ran = false;
            Co other([&] {
                nap(20);
                others_ran = true;
                one.feed();
            });
            other.resume();
            char bytes[8];
            const iovec part = {bytes, sizeof bytes};
            EXPECT_EQ(8, vector ? readv(one.fd, &part, 1) : read(one.fd, bytes, sizeof bytes)) << one.name;
            EXPECT_TRUE(others_ran) << one.name;
        }
    }
}

// A megabyte goes through, by write and writev.
void all_can_be_written()
{
    for (bool vector : {false, true}) {
        for (const auto &make : {std::function(made_pipe), std::function([] { return made_socketpair(); })}) {
            auto two = make();
            std::swap(two->a, two->b); // a pipe's a is where it is read
            Taker taker(two->b, 10);
            std::string bytes = pattern_of(1 << 20);
            const iovec parts[] = {{&bytes[0], 1000}, {&bytes[1000], bytes.size() - 1000}};
            EXPECT_EQ(1 << 20, vector ? writev(two->a, parts, 2) : write(two->a, bytes.data(), bytes.size()));
            close(std::exchange(two->a, -1));
            EXPECT_TRUE(taker.bytes() == bytes);
        }
    }
}

} // namespace

TEST(AddedDescriptors, can_be_read_while_others_run) { with_hooks(all_of_these, all_can_be_read); }

TEST(AddedDescriptors, can_be_written_while_others_run) { with_hooks(all_of_these, all_can_be_written); }

TEST(AddedDescriptors, can_be_read_while_others_run_where_rwf_nowait_is_not_known)
{
    with_hooks(all_of_these, [] {
        without_rwf_nowait();
        all_can_be_read();
    });
}

TEST(AddedDescriptors, can_be_written_while_others_run_where_rwf_nowait_is_not_known)
{
    with_hooks(all_of_these, [] {
        without_rwf_nowait();
        all_can_be_written();
    });
}

TEST(AddedDescriptors, serve_two_readers_of_one_where_rwf_nowait_is_not_known)
{
    with_hooks(all_of_these, [] {
        without_rwf_nowait();
        auto two = made_pipe();
        int served = 0;
        Group group;
        for (int i = 0; i < 2; ++i) {
            group.go_hooked([&] {
                char byte;
                EXPECT_EQ(1, read(two->a, &byte, 1));
                ++served;
            });
        }
        for (int i = 0; i < 2; ++i) {
            raw_write(two->b, "x", 1);
            nap(30);
            EXPECT_EQ(i + 1, served);
        }
    });
}

TEST(AddedDescriptors, stay_blocking_underneath_whatever_is_done_to_them)
{
    with_hooks(all_of_these, [] {
        AllKnown known;
        for (const Known &one : known.all()) {
            EXPECT_FALSE(is_nonblocking(one.fd)) << one.name;
            one.feed();
            char bytes[8];
            EXPECT_EQ(8, read(one.fd, bytes, sizeof bytes)) << one.name;
            EXPECT_EQ(0, fcntl(one.fd, F_SETFL, fcntl(one.fd, F_GETFL))) << one.name;
            EXPECT_FALSE(is_nonblocking(one.fd)) << one.name << " after F_SETFL";
            int on = 0;
            EXPECT_EQ(0, ioctl(one.fd, FIONBIO, &on)) << one.name;
            EXPECT_FALSE(is_nonblocking(one.fd)) << one.name << " after FIONBIO";
        }
    });
}

TEST(AddedDescriptors, block_a_thread_without_coroutines)
{
    with_hooks(all_of_these, [] {
        AllKnown known;
        for (const Known &one : known.all()) {
            std::atomic<ssize_t> got{-2};
            std::thread plain([&] {
                char bytes[8];
                got = read(one.fd, bytes, sizeof bytes);
            });
            nap(20);
            EXPECT_EQ(-2, got) << one.name;
            one.feed();
            plain.join();
            EXPECT_EQ(8, got) << one.name;
        }
    });
}

TEST(AddedDescriptors, block_a_forked_child_and_the_program_it_starts)
{
    with_hooks(all_of_these, [] {
        auto ends = made_pipe(), words = made_pipe();
        char byte;
        raw_write(ends->b, "x", 1);
        EXPECT_EQ(1, read(ends->a, &byte, 1)) << "used by the hooks before";
        const pid_t child = fork();
        if (child == 0) {
            syscall(SYS_dup3, ends->a, 0, 0);
            syscall(SYS_dup3, words->b, 1, 0);
            raw_close(ends->b);
            execl("/bin/cat", "cat", static_cast<char *>(nullptr));
            _exit(1);
        }
        nap(50);
        raw_write(ends->b, "through cat", 11);
        char bytes[16];
        EXPECT_EQ(11, read(words->a, bytes, sizeof bytes)) << "cat met a non-blocking pipe";
        close(std::exchange(ends->b, -1));
        int status = -1;
        waitpid(child, &status, 0);
        EXPECT_EQ(0, status);
    });
}

TEST(AddedDescriptors, wait_for_ever_by_default)
{
    with_hooks(all_of_these, [] {
        AllKnown known;
        Group group;
        int served = 0;
        for (const Known &one : known.all()) {
            group.go_hooked([&served, one] {
                char bytes[8];
                EXPECT_EQ(8, read(one.fd, bytes, sizeof bytes)) << one.name;
                ++served;
            });
        }
        nap(1300);
        EXPECT_EQ(0, served) << "the second of libco's own descriptors";
        for (const Known &one : known.all()) {
            one.feed();
        }
        nap(50);
        EXPECT_EQ(5, served);
    });
}

TEST(AddedDescriptors, keep_to_the_time_out_of_co_set_timeout)
{
    with_hooks(all_of_these, [] {
        AllKnown known;
        for (const Known &one : known.all()) {
            EXPECT_EQ(0, co_set_timeout(one.fd, 50, 50));
            char bytes[8];
            TIMES_OUT(50, read(one.fd, bytes, sizeof bytes));
        }
    });
}

TEST(AddedDescriptors, made_non_blocking_by_the_program_do_not_wait)
{
    with_hooks(all_of_these, [] {
        Two pair, ends;
        EXPECT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair.both()));
        EXPECT_EQ(0, pipe2(ends.both(), O_NONBLOCK));
        const int counter = eventfd(0, EFD_NONBLOCK), timer = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
        char bytes[8] = {};
        for (int fd : {pair.a, ends.a, counter, timer}) {
            EXPECT_EQ(O_NONBLOCK, fcntl(fd, F_GETFL) & O_NONBLOCK);
            FAILS(EAGAIN, read(fd, bytes, sizeof bytes));
        }
        fill(pair.a);
        fill(ends.b);
        FAILS(EAGAIN, write(pair.a, bytes, sizeof bytes));
        FAILS(EAGAIN, write(ends.b, bytes, sizeof bytes));
        close(counter);
        close(timer);
    });
}

TEST(AddedDescriptors, switched_to_non_blocking_and_back_follow)
{
    with_hooks(all_of_these, [] {
        AllKnown known;
        for (const Known &one : known.all()) {
            char bytes[8];
            int on = 1, off = 0;
            EXPECT_EQ(0, co_set_timeout(one.fd, 50, 50));
            EXPECT_EQ(0, fcntl(one.fd, F_SETFL, O_RDWR | O_NONBLOCK));
            FAILS(EAGAIN, read(one.fd, bytes, sizeof bytes));
            EXPECT_EQ(0, fcntl(one.fd, F_SETFL, O_RDWR));
            TIMES_OUT(50, read(one.fd, bytes, sizeof bytes));
            EXPECT_EQ(0, ioctl(one.fd, FIONBIO, &on));
            EXPECT_EQ(O_NONBLOCK, fcntl(one.fd, F_GETFL) & O_NONBLOCK);
            FAILS(EAGAIN, read(one.fd, bytes, sizeof bytes));
            EXPECT_EQ(0, ioctl(one.fd, FIONBIO, &off));
            TIMES_OUT(50, read(one.fd, bytes, sizeof bytes));
        }
    });
}

TEST(AddedDescriptors, cannot_be_made_of_bad_arguments)
{
    with_hooks(all_of_these, [] {
        Two two;
        FAILS(EINVAL, pipe2(two.both(), 1 << 30));
        FAILS(EFAULT, pipe(nowhere<int>()));
        FAILS(EFAULT, pipe2(nowhere<int>(), 0));
        FAILS(EFAULT, socketpair(AF_UNIX, SOCK_STREAM, 0, nowhere<int>()));
        FAILS(EAFNOSUPPORT, socketpair(12345, SOCK_STREAM, 0, two.both()));
        FAILS(EOPNOTSUPP, socketpair(AF_INET, SOCK_STREAM, 0, two.both()));
        FAILS(EPROTONOSUPPORT, socketpair(AF_UNIX, SOCK_STREAM, 77, two.both()));
        FAILS(EINVAL, eventfd(0, 1 << 30));
        FAILS(EINVAL, timerfd_create(12345, 0));
        FAILS(EINVAL, timerfd_create(CLOCK_MONOTONIC, 1 << 30));
        rlimit limit;
        getrlimit(RLIMIT_NOFILE, &limit);
        Fd lowest(static_cast<int>(syscall(SYS_dup, 0)));
        limit.rlim_cur = lowest.get();
        lowest.reset();
        setrlimit(RLIMIT_NOFILE, &limit);
        FAILS(EMFILE, pipe(two.both()));
        FAILS(EMFILE, pipe2(two.both(), 0));
        FAILS(EMFILE, socketpair(AF_UNIX, SOCK_STREAM, 0, two.both()));
        FAILS(EMFILE, eventfd(0, 0));
        FAILS(EMFILE, timerfd_create(CLOCK_MONOTONIC, 0));
    });
}

TEST(Eventfd, keeps_its_counts)
{
    with_hooks(all_of_these, [] {
        const int counter = eventfd(3, 0), semaphore = eventfd(2, EFD_SEMAPHORE);
        EXPECT_EQ(8, number_to(counter, 4));
        EXPECT_EQ(7u, number_from(counter));
        EXPECT_EQ(1u, number_from(semaphore));
        EXPECT_EQ(1u, number_from(semaphore));
        EXPECT_EQ(0, co_set_timeout(semaphore, 50, 50));
        char bytes[8] = {};
        TIMES_OUT(50, read(semaphore, bytes, sizeof bytes));
        FAILS(EINVAL, read(counter, bytes, 4));
        FAILS(EINVAL, write(counter, bytes, 4));
        FAILS(EINVAL, number_to(counter, UINT64_MAX));
        FAILS(EFAULT, write(counter, nowhere(), 8));
        close(counter);
        close(semaphore);
    });
}

TEST(HandedOver, a_terminal_is_read_while_others_run)
{
    with_hooks("default", [] {
        Fd master(posix_openpt(O_RDWR | O_NOCTTY));
        ASSERT_EQ(0, grantpt(master));
        ASSERT_EQ(0, unlockpt(master));
        char name[64];
        ASSERT_EQ(0, ptsname_r(master, name, sizeof name));
        Fd terminal(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
        ASSERT_EQ(0, co_hook_fd(terminal));
        bool others_ran = false;
        Co other([&] {
            nap(20);
            others_ran = true;
            raw_write(master, "line\n", 5);
        });
        other.resume();
        char bytes[16];
        EXPECT_EQ(5, read(terminal, bytes, sizeof bytes));
        EXPECT_TRUE(others_ran);
        EXPECT_EQ(6, write(terminal, "answer", 6));
        EXPECT_FALSE(is_nonblocking(terminal));
        winsize size = {};
        EXPECT_EQ(0, ioctl(terminal, TIOCGWINSZ, &size)) << "requests of terminals pass";
    });
}

TEST(HandedOver, a_plain_pipe_is_read_while_others_run)
{
    with_hooks("default", [] {
        Pair ends = plain_pipe();
        ASSERT_EQ(0, co_hook_fd(ends.a));
        Co other([&] {
            nap(20);
            raw_write(ends.b, "x", 1);
        });
        other.resume();
        char byte;
        EXPECT_EQ(1, read(ends.a, &byte, 1));
        EXPECT_EQ(0, co_set_timeout(ends.a, 50, 50));
        TIMES_OUT(50, read(ends.a, &byte, 1));
        FAILS(ENOTSOCK, recv(ends.a, &byte, 1, 0));
    });
}

TEST(HandedOver, a_number_that_became_a_file_meanwhile_is_plain)
{
    with_hooks(all_of_these, [] {
        auto two = made_pipe();
        Fd file = file_of("contents");
        syscall(SYS_dup3, file.get(), two->a, 0);
        char bytes[16];
        EXPECT_EQ(8, read(two->a, bytes, sizeof bytes));
        EXPECT_EQ(0, read(two->a, bytes, sizeof bytes));
        EXPECT_EQ(-1, co_set_timeout(two->a, 1, 1)) << "still known";
    });
}

TEST(HandedOver, a_number_that_became_a_plain_socket_meanwhile_is_read)
{
    with_hooks(all_of_these, [] {
        auto two = made_pipe();
        Pair pair = plain_pair();
        syscall(SYS_dup3, pair.a.get(), two->a, 0);
        raw_write(pair.b, "x", 1);
        char byte;
        EXPECT_EQ(1, read(two->a, &byte, 1));
        EXPECT_EQ(1, write(two->a, "y", 1));
        EXPECT_EQ(1, raw_read(pair.b, &byte, 1));
    });
}

TEST(Fionbio, shows_what_the_program_set_and_keeps_ours)
{
    with_hooks("default", [] {
        HookedPair pair = hooked_unix_pair();
        EXPECT_EQ(0, co_set_timeout(pair.fd, 50, 50));
        char byte;
        int on = 1, off = 0;
        EXPECT_EQ(0, ioctl(pair.fd, FIONBIO, &on));
        EXPECT_EQ(O_NONBLOCK, fcntl(pair.fd, F_GETFL) & O_NONBLOCK);
        FAILS(EAGAIN, read(pair.fd, &byte, 1));
        EXPECT_EQ(0, ioctl(pair.fd, FIONBIO, &off));
        EXPECT_EQ(0, fcntl(pair.fd, F_GETFL) & O_NONBLOCK);
        EXPECT_TRUE(is_nonblocking(pair.fd)) << "the hooks need it";
        TIMES_OUT(50, read(pair.fd, &byte, 1));
    });
}

TEST(Fionbio, of_a_coroutine_with_hooks_off_is_noted_too)
{
    with_hooks("default", [] {
        HookedPair pair = hooked_unix_pair();
        EXPECT_EQ(0, co_set_timeout(pair.fd, 50, 50));
        int on = 1, off = 0;
        char byte;
        co_disable_hook_sys();
        EXPECT_EQ(0, ioctl(pair.fd, FIONBIO, &on));
        co_enable_hook_sys();
        FAILS(EAGAIN, read(pair.fd, &byte, 1));
        co_disable_hook_sys();
        EXPECT_EQ(0, ioctl(pair.fd, FIONBIO, &off));
        EXPECT_FALSE(is_nonblocking(pair.fd)) << "blocking, as asked for, and as F_SETFL does it";
        co_enable_hook_sys();
        TIMES_OUT(50, read(pair.fd, &byte, 1));
    });
}

TEST(Ioctl, passes_on_other_requests_and_errors)
{
    with_hooks("all", [] {
        auto two = made_pipe();
        raw_write(two->b, "abc", 3);
        int waiting = 0, on = 1;
        EXPECT_EQ(0, ioctl(two->a, FIONREAD, &waiting));
        EXPECT_EQ(3, waiting);
        EXPECT_EQ(0, ioctl(two->a, FIOCLEX));
        EXPECT_EQ(FD_CLOEXEC, fcntl(two->a, F_GETFD));
        Fd plain(raw_socket(AF_INET, SOCK_DGRAM));
        EXPECT_EQ(0, ioctl(plain, FIONBIO, &on));
        EXPECT_TRUE(is_nonblocking(plain));
        FAILS(EBADF, ioctl(-1, FIONBIO, &on));
        FAILS(EBADF, ioctl(999, FIONBIO, &on));
        FAILS(EFAULT, ioctl(two->a, FIONBIO, nowhere<int>()));
        FAILS(EFAULT, ioctl(two->a, FIONBIO, nullptr));
        EXPECT_EQ(0, fcntl(two->a, F_GETFL) & O_NONBLOCK) << "noted though it failed";
        FAILS(ENOTTY, ioctl(two->a, TCGETS, &on));
    });
}

TEST(Getsockopt, reports_time_outs_as_the_program_set_them)
{
    with_hooks("default", [] {
        HookedPair pair = hooked_unix_pair();
        auto reported = [&](int name) {
            timeval t = {-1, -1};
            socklen_t size = sizeof t;
            EXPECT_EQ(0, getsockopt(pair.fd, SOL_SOCKET, name, &t, &size));
            EXPECT_EQ(sizeof t, size);
            return t.tv_sec * 1000 + t.tv_usec / 1000;
        };
        EXPECT_EQ(0, reported(SO_RCVTIMEO)) << "the default is no wish of the program's";
        set_timeout_option(pair.fd, SO_RCVTIMEO, 2000);
        EXPECT_EQ(2000, reported(SO_RCVTIMEO));
        EXPECT_EQ(0, reported(SO_SNDTIMEO));
        EXPECT_EQ(0, co_set_timeout(pair.fd, 1234, 5678));
        EXPECT_EQ(1234, reported(SO_RCVTIMEO));
        EXPECT_EQ(5678, reported(SO_SNDTIMEO));
        set_timeout_option(pair.fd, SO_SNDTIMEO, 3000);
        EXPECT_EQ(3000, reported(SO_SNDTIMEO)) << "the later wish counts";
        EXPECT_EQ(1234, reported(SO_RCVTIMEO));
        EXPECT_EQ(0, co_set_timeout(pair.fd, -1, -1));
        EXPECT_EQ(0, reported(SO_RCVTIMEO)) << "for ever";
    });
}

TEST(Getsockopt, writes_no_more_than_there_is_room_and_passes_on_errors)
{
    with_hooks("default", [] {
        HookedPair pair = hooked_unix_pair();
        auto ends = made_pipe();
        EXPECT_EQ(0, co_set_timeout(pair.fd, 1234, 5678));
        unsigned char room[sizeof(timeval)];
        memset(room, 0xee, sizeof room);
        socklen_t size = 4;
        EXPECT_EQ(0, getsockopt(pair.fd, SOL_SOCKET, SO_RCVTIMEO, room, &size));
        EXPECT_EQ(1, room[0]);
        EXPECT_EQ(0xee, room[size]);
        size = sizeof room;
        FAILS(EBADF, getsockopt(-1, SOL_SOCKET, SO_RCVTIMEO, room, &size));
        FAILS(ENOTSOCK, getsockopt(ends->a, SOL_SOCKET, SO_RCVTIMEO, room, &size));
        FAILS(EFAULT, getsockopt(pair.fd, SOL_SOCKET, SO_RCVTIMEO, nowhere(), &size));
        FAILS(EFAULT, getsockopt(pair.fd, SOL_SOCKET, SO_RCVTIMEO, room, nowhere<socklen_t>()));
        FAILS(ENOPROTOOPT, getsockopt(pair.fd, SOL_SOCKET, 12345, room, &size));
        int kind = 0;
        size = sizeof kind;
        EXPECT_EQ(0, getsockopt(pair.fd, SOL_SOCKET, SO_TYPE, &kind, &size));
        EXPECT_EQ(SOCK_STREAM, kind);
    });
}

TEST(Fclose, wakes_who_waits_for_the_number)
{
    with_hooks(all_of_these, [] {
        auto two = made_pipe();
        const int number = std::exchange(two->a, -1);
        FILE *stream = fdopen(number, "r");
        ssize_t got = -2;
        int error = 0;
        Group group;
        group.go_hooked([&] {
            char byte;
            got = read(number, &byte, 1);
            error = errno;
        });
        EXPECT_EQ(0, fclose(stream));
        nap(20);
        EXPECT_EQ(-1, got);
        EXPECT_EQ(EBADF, error);
    });
}

TEST(Fclose, leaves_nothing_to_the_next_of_the_number_and_writes_what_was_held_back)
{
    with_hooks(all_of_these, [] {
        auto two = made_pipe();
        const int number = std::exchange(two->b, -1);
        FILE *stream = fdopen(number, "w");
        fputs("held back", stream);
        EXPECT_EQ(0, fclose(stream));
        char bytes[16];
        EXPECT_EQ(9, read(two->a, bytes, sizeof bytes));
        EXPECT_EQ(0, read(two->a, bytes, sizeof bytes)) << "the end";
        Pair next = plain_pair();
        syscall(SYS_dup3, next.a.get(), number, 0);
        Fd reused(number);
        EXPECT_EQ(-1, co_set_timeout(number, 1, 1)) << "known from before";
    });
}

TEST(Fclose, of_streams_without_a_number_or_with_a_closed_one_is_plain)
{
    with_hooks("all", [] {
        char memory[8];
        FILE *stream = fmemopen(memory, sizeof memory, "w");
        errno = 0;
        EXPECT_EQ(0, fclose(stream));
        EXPECT_EQ(0, errno);
        auto two = made_pipe();
        stream = fdopen(two->a, "r");
        raw_close(std::exchange(two->a, -1));
        FAILS(EBADF, fclose(stream));
    });
}

TEST(Shutdown, wakes_a_reader_with_the_end)
{
    with_hooks(all_of_these, [] {
        HookedPair hooked = hooked_unix_pair(), tcp = hooked_tcp_pair();
        auto pair = made_socketpair();
        for (int fd : {hooked.fd.get(), tcp.fd.get(), pair->a}) {
            co_set_timeout(fd, -1, -1);
            ssize_t got = -2;
            Group group;
            group.go_hooked([&] {
                char byte;
                got = read(fd, &byte, 1);
            });
            nap(10);
            EXPECT_EQ(-2, got);
            EXPECT_EQ(0, shutdown(fd, SHUT_RD));
            nap(20);
            EXPECT_EQ(0, got);
        }
    });
}

TEST(Shutdown, wakes_a_reader_in_another_threads_loop)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair();
        std::atomic<ssize_t> got{-2};
        std::thread other([&] {
            in_hooked_coroutine([&] {
                char byte;
                got = read(pair->a, &byte, 1);
            });
        });
        nap(50);
        EXPECT_EQ(-2, got);
        shutdown(pair->a, SHUT_RDWR);
        other.join();
        EXPECT_EQ(0, got);
    });
}

TEST(Shutdown, wakes_a_writer_with_epipe)
{
    with_hooks(all_of_these, [] {
        signal(SIGPIPE, SIG_IGN);
        HookedPair hooked = hooked_unix_pair();
        auto pair = made_socketpair();
        for (int fd : {hooked.fd.get(), pair->a}) {
            co_set_timeout(fd, -1, -1);
            fill(fd);
            ssize_t put = -2;
            int error = 0;
            Group group;
            group.go_hooked([&] {
                put = write(fd, "x", 1);
                error = errno;
            });
            nap(10);
            EXPECT_EQ(-2, put);
            EXPECT_EQ(0, shutdown(fd, SHUT_WR));
            nap(20);
            EXPECT_EQ(-1, put);
            EXPECT_EQ(EPIPE, error);
        }
    });
}

TEST(Shutdown, wakes_a_writer_in_another_threads_loop)
{
    with_hooks(all_of_these, [] {
        signal(SIGPIPE, SIG_IGN);
        auto pair = made_socketpair();
        fill(pair->a);
        std::atomic<ssize_t> put{-2};
        std::thread other([&] {
            in_hooked_coroutine([&] { put = write(pair->a, "x", 1); });
        });
        nap(50);
        EXPECT_EQ(-2, put);
        shutdown(pair->a, SHUT_WR);
        other.join();
        EXPECT_EQ(-1, put);
    });
}

// Between a writer's try and its wait nobody knows yet that it will wait.
TEST(Shutdown, just_as_another_thread_begins_to_wait_wakes_it)
{
    with_hooks(all_of_these, [] {
        signal(SIGPIPE, SIG_IGN);
        const long long end = now_ms() + 2000;
        for (int i = 0; now_ms() < end; ++i) {
            auto pair = made_socketpair();
            fill(pair->a);
            std::atomic<bool> begun{false};
            ssize_t put = -2;
            std::thread other([&] {
                in_hooked_coroutine([&] {
                    co_get_epoll_ct(); // (A loop that is only made for this wait cannot be told.)
                    begun = true;
                    put = write(pair->a, "x", 1);
                });
            });
            while (!begun) {
            }
            for (volatile int pause = i % 200 * 10; pause > 0; pause = pause - 1) {
            }
            shutdown(pair->a, SHUT_WR);
            other.join();
            ASSERT_EQ(-1, put);
        }
    });
}

TEST(Shutdown, for_writing_leaves_a_poll_with_the_truth)
{
    with_hooks(all_of_these, [] {
        auto pair = made_socketpair();
        fill(pair->a);
        int got[2] = {-2, -2};
        Group group;
        for (int i = 0; i < 2; ++i) {
            group.go_hooked([&, i] {
                pollfd p[2] = {{pair->a, POLLOUT, 0}, {pair->b, POLLPRI, 0}};
                got[i] = poll(p, i + 1, 10000);
            });
        }
        nap(10);
        shutdown(pair->a, SHUT_WR);
        pollfd now = {pair->a, POLLOUT, 0};
        const int plain = raw_poll(&now, 1, 0);
        nap(30);
        EXPECT_EQ(plain == 0 ? -2 : 1, got[0]);
        EXPECT_EQ(plain == 0 ? -2 : 1, got[1]);
        drain(pair->b);
        nap(30);
        EXPECT_EQ(1, got[0]);
        EXPECT_EQ(1, got[1]);
    });
}

TEST(Shutdown, ends_a_connect_that_waits)
{
    with_hooks("default", [] {
        // A full backlog: the next connection is not answered.
        Listener listener(0);
        std::vector<Fd> fillers;
        for (int i = 0; i < 4; ++i) {
            fillers.emplace_back(raw_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK));
            syscall(SYS_connect, fillers.back().get(), listener.generic(), sizeof listener.addr);
        }
        // What a thread that blocks in connect sees.
        Fd plain(raw_socket(AF_INET, SOCK_STREAM));
        int plain_error = 0;
        std::thread blocked([&] {
            syscall(SYS_connect, plain.get(), listener.generic(), sizeof listener.addr);
            plain_error = errno;
        });
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        int result = -2, error = 0;
        Group group;
        group.go_hooked([&] {
            result = connect(fd, listener.generic(), sizeof listener.addr);
            error = errno;
        });
        nap(50);
        EXPECT_EQ(-2, result);
        shutdown(fd, SHUT_RDWR);
        shutdown(plain, SHUT_RDWR);
        blocked.join();
        nap(50);
        EXPECT_EQ(-1, result);
        EXPECT_NE(0, plain_error);
        EXPECT_EQ(plain_error, error);
        close(fd);
    });
}

TEST(Shutdown, of_bad_arguments_fails_as_the_manual_says)
{
    with_hooks(all_of_these, [] {
        auto ends = made_pipe(), pair = made_socketpair();
        const int stream = socket(AF_INET, SOCK_STREAM, 0);
        FAILS(EBADF, shutdown(-1, SHUT_RD));
        FAILS(ENOTSOCK, shutdown(ends->a, SHUT_RD));
        FAILS(EINVAL, shutdown(pair->a, 7));
        FAILS(ENOTCONN, shutdown(stream, SHUT_RD));
        close(stream);
    });
}

#endif
