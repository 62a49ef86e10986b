// Which descriptors are hooked, and what socket, fcntl, setsockopt, close and co_accept do with
// their state.
#include "loop_support.h"

#include <sys/file.h>
#include <sys/mman.h>

using namespace support;

namespace {

// Whether a read of a descriptor with nothing to read waits cooperatively, rather than failing at once
// or blocking the thread. The descriptor must be idle.
bool read_waits(int fd)
{
    bool reading = true, others_ran = false;
    ssize_t result = -2;
    set_timeout_option(fd, SO_RCVTIMEO, 40);
    Co reader([&] {
        co_enable_hook_sys();
        char byte;
        result = read(fd, &byte, 1);
        reading = false;
    });
    reader.resume();
    others_ran = reading;
    while (!reader.ended()) {
        nap(5);
    }
    return others_ran && result == -1;
}

int get_timeout_option(int fd, int name)
{
    timeval t = {};
    socklen_t size = sizeof t;
    getsockopt(fd, SOL_SOCKET, name, &t, &size);
    return static_cast<int>(t.tv_sec * 1000 + (t.tv_usec + 500) / 1000);
}

} // namespace

TEST(Hooks, are_off_in_a_new_coroutine)
{
    on_thread([] {
        bool outer = true, inner = true;
        Group group;
        group.go([&] {
            outer = co_is_enable_sys_hook();
            co_enable_hook_sys();
            Co child([&] { inner = co_is_enable_sys_hook(); });
            child.resume();
        });
        EXPECT_FALSE(outer);
        EXPECT_FALSE(inner);
    });
}

TEST(Hooks, are_switched_for_one_coroutine_alone)
{
    on_thread([] {
        Group group;
        bool first = false, second = true, after = true;
        group.go([&] {
            co_enable_hook_sys();
            co_yield_ct();
            first = co_is_enable_sys_hook();
            co_disable_hook_sys();
            after = co_is_enable_sys_hook();
        });
        Co other([&] { second = co_is_enable_sys_hook(); });
        other.resume();
        EXPECT_FALSE(co_is_enable_sys_hook()); // main
        loop_rounds(1);
        EXPECT_FALSE(second);
        EXPECT_FALSE(first);
    });
}

TEST(Hooks, can_be_switched_on_and_off_again)
{
    on_thread([] {
        Co co([] {
            co_enable_hook_sys();
            EXPECT_TRUE(co_is_enable_sys_hook());
            co_yield_ct();
            EXPECT_TRUE(co_is_enable_sys_hook());
            co_disable_hook_sys();
            EXPECT_FALSE(co_is_enable_sys_hook());
        });
        co.resume();
        EXPECT_FALSE(co_is_enable_sys_hook());
        co.resume();
        EXPECT_TRUE(co.ended());
    });
}

TEST(Hooks, can_be_switched_on_for_the_main_coroutine)
{
    on_thread([] {
        Co environment([] {});
        co_enable_hook_sys();
        EXPECT_TRUE(co_is_enable_sys_hook());
        co_disable_hook_sys();
        EXPECT_FALSE(co_is_enable_sys_hook());
    });
}

TEST(Hooks, cannot_be_switched_on_without_an_environment_and_create_none)
{
    on_thread([] {
        co_enable_hook_sys();
        EXPECT_FALSE(co_is_enable_sys_hook());
        EXPECT_EQ(nullptr, co_self());
        EXPECT_EQ(nullptr, co_get_curr_thread_env());
        co_disable_hook_sys();
        EXPECT_EQ(nullptr, co_self());
    });
}

TEST(Hooks, when_off_make_a_plain_socket)
{
    on_thread([] {
        Group group;
        group.go([] {
            Fd fd(socket(AF_INET, SOCK_STREAM, 0));
            EXPECT_EQ(0, raw_flags(fd) & O_NONBLOCK);
            EXPECT_EQ(raw_flags(fd), fcntl(fd, F_GETFL));
        });
        ASSERT_TRUE(group.all_ended());
    });
}

TEST(Hooks, when_off_leave_errno_untouched)
{
    on_thread([] {
        Co environment([] {});
        Pair pipe = plain_pipe(), pair = plain_pair();
        char byte = 0;
        errno = 4711;
        EXPECT_EQ(1, write(pipe.b, "x", 1));
        EXPECT_EQ(1, read(pipe.a, &byte, 1));
        EXPECT_EQ(1, send(pair.b, "x", 1, 0));
        EXPECT_EQ(1, recv(pair.a, &byte, 1, 0));
        EXPECT_EQ(1, sendto(pair.b, "x", 1, 0, nullptr, 0));
        EXPECT_EQ(1, recvfrom(pair.a, &byte, 1, 0, nullptr, nullptr));
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        const int one = 1;
        EXPECT_EQ(0, setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one));
        EXPECT_LE(0, fcntl(fd, F_GETFL));
        EXPECT_EQ(0, fcntl(fd, F_SETFL, O_RDWR));
        pollfd p = {pipe.b, POLLOUT, 0};
        EXPECT_EQ(1, poll(&p, 1, 10));
        EXPECT_EQ(0, close(fd));
        getenv("PATH");
        EXPECT_EQ(4711, errno);
    });
}

TEST(Hooks, when_off_leave_the_errno_of_the_real_call)
{
    on_thread([] {
        Co environment([] {});
        char byte;
        EXPECT_EQ(-1, read(-1, &byte, 1));
        EXPECT_EQ(EBADF, errno);
        EXPECT_EQ(-1, close(9990));
        EXPECT_EQ(EBADF, errno);
        EXPECT_EQ(-1, socket(-1, SOCK_STREAM, 0));
        EXPECT_EQ(EAFNOSUPPORT, errno);
        Pair pipe = plain_pipe();
        EXPECT_EQ(-1, send(pipe.b, "x", 1, 0));
        EXPECT_EQ(ENOTSOCK, errno);
    });
}

TEST(HookedSocket, is_non_blocking_underneath_and_does_not_show_it)
{
    in_hooked_coroutine([] {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT_EQ(O_NONBLOCK, raw_flags(fd) & O_NONBLOCK);
        EXPECT_EQ(0, fcntl(fd, F_GETFL) & O_NONBLOCK);
        EXPECT_EQ(raw_flags(fd) & ~O_NONBLOCK, fcntl(fd, F_GETFL));
        close(fd);
    });
}

TEST(HookedSocket, does_not_show_it_to_a_coroutine_with_hooks_off_either)
{
    in_hooked_coroutine([] {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        co_disable_hook_sys();
        EXPECT_EQ(0, fcntl(fd, F_GETFL) & O_NONBLOCK);
        std::thread([fd] { EXPECT_EQ(0, fcntl(fd, F_GETFL) & O_NONBLOCK); }).join();
        co_enable_hook_sys();
        close(fd);
    });
}

TEST(HookedSocket, reports_the_error_of_the_real_call)
{
    in_hooked_coroutine([] {
        EXPECT_EQ(-1, socket(-1, SOCK_STREAM, 0));
        EXPECT_EQ(EAFNOSUPPORT, errno);
    });
}

TEST(HookedSocket, keeps_its_close_on_exec_flag)
{
    in_hooked_coroutine([] {
        const int with = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const int without = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT_EQ(FD_CLOEXEC, fcntl(with, F_GETFD));
        EXPECT_EQ(0, fcntl(without, F_GETFD));
        close(with);
        close(without);
    });
}

TEST(HookedSocket, made_non_blocking_by_the_program_shows_it)
{
    in_hooked_coroutine([] {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        EXPECT_EQ(O_NONBLOCK, fcntl(fd, F_GETFL) & O_NONBLOCK);
        close(fd);
    });
}

TEST(HookedSocket, made_non_blocking_by_the_program_fails_at_once)
{
    in_hooked_coroutine([] {
        UnixListener listener;
        const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        ASSERT_EQ(0, connect(fd, listener.generic(), listener.size));
        char byte;
        bool others_ran = false;
        Co other([&] {
            nap(1);
            others_ran = true;
        });
        other.resume();
        EXPECT_EQ(-1, read(fd, &byte, 1));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_EQ(-1, recv(fd, &byte, 1, 0));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_EQ(-1, recvfrom(fd, &byte, 1, 0, nullptr, nullptr));
        EXPECT_EQ(EAGAIN, errno);
        static const char block[65536] = {};
        ssize_t n;
        while ((n = write(fd, block, sizeof block)) > 0) {
        }
        EXPECT_EQ(-1, n);
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_EQ(-1, send(fd, block, sizeof block, 0));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_EQ(-1, sendto(fd, block, sizeof block, 0, nullptr, 0));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_FALSE(others_ran) << "a call passed through the loop";
        nap(10);
        close(fd);
    });
}

TEST(HookedSocket, switched_to_non_blocking_by_fcntl_fails_at_once)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        ASSERT_EQ(0, fcntl(pair.fd, F_SETFL, fcntl(pair.fd, F_GETFL) | O_NONBLOCK));
        EXPECT_EQ(O_NONBLOCK, fcntl(pair.fd, F_GETFL) & O_NONBLOCK);
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, read(pair.fd, &byte, 1));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_LT(now_ms() - start, 500);
    });
}

TEST(HookedSocket, switched_back_to_blocking_waits_again)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        ASSERT_EQ(0, fcntl(pair.fd, F_SETFL, O_RDWR | O_NONBLOCK));
        ASSERT_EQ(0, fcntl(pair.fd, F_SETFL, O_RDWR));
        EXPECT_EQ(0, fcntl(pair.fd, F_GETFL) & O_NONBLOCK);
        EXPECT_EQ(O_NONBLOCK, raw_flags(pair.fd) & O_NONBLOCK);
        EXPECT_TRUE(read_waits(pair.fd));
    });
}

TEST(HookedSocket, keeps_the_other_flags_of_the_program)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        ASSERT_EQ(0, fcntl(pair.fd, F_SETFL, O_RDWR | O_ASYNC));
        EXPECT_EQ(O_ASYNC, fcntl(pair.fd, F_GETFL) & (O_ASYNC | O_NONBLOCK));
        EXPECT_EQ(O_ASYNC | O_NONBLOCK, raw_flags(pair.fd) & (O_ASYNC | O_NONBLOCK));
        ASSERT_EQ(0, fcntl(pair.fd, F_SETFL, O_RDWR));
        EXPECT_EQ(0, fcntl(pair.fd, F_GETFL) & (O_ASYNC | O_NONBLOCK));
    });
}

TEST(HookedSocket, with_hooks_off_later_goes_straight_to_the_system)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        co_disable_hook_sys();
        char byte;
        EXPECT_EQ(-1, read(pair.fd, &byte, 1)); // non-blocking underneath
        EXPECT_EQ(EAGAIN, errno);
        pair.put("x");
        EXPECT_EQ(1, read(pair.fd, &byte, 1));
        co_enable_hook_sys();
    });
}

TEST(HookedSocket, with_a_number_above_ten_thousand_works)
{
    in_hooked_coroutine([] {
        Fd low(open("/dev/null", O_RDONLY));
        // Occupy every number below, cheaply: lower numbers are taken first.
        std::vector<Fd> fill;
        int top = 0;
        while (top < 10000) {
            fill.emplace_back(static_cast<int>(syscall(SYS_dup, low.get())));
            ASSERT_GE(fill.back(), 0) << "the limit on descriptors is too low";
            top = fill.back();
        }
        HookedPair pair = hooked_unix_pair();
        EXPECT_GT(pair.fd, 10000);
        EXPECT_EQ(0, fcntl(pair.fd, F_GETFL) & O_NONBLOCK);
        EXPECT_TRUE(read_waits(pair.fd));
        pair.put("x");
        char byte = 0;
        EXPECT_EQ(1, read(pair.fd, &byte, 1));
        EXPECT_EQ('x', byte);
    });
}

TEST(Descriptors, made_past_the_hooks_stay_plain)
{
    in_hooked_coroutine([] {
        Pair pair = plain_pair();
        raw_write(pair.b, "x", 1);
        bool others_ran = false;
        Co other([&] {
            nap(1);
            others_ran = true;
        });
        other.resume();
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        char byte;
        EXPECT_EQ(1, read(pair.a, &byte, 1));
        raw_write(pair.b, "x", 1);
        EXPECT_EQ(1, recv(pair.a, &byte, 1, 0));
        raw_write(pair.b, "x", 1);
        EXPECT_EQ(1, recvfrom(pair.a, &byte, 1, 0, nullptr, nullptr));
        EXPECT_EQ(1, write(pair.a, "y", 1));
        EXPECT_EQ(1, send(pair.a, "y", 1, 0));
        EXPECT_EQ(0, raw_flags(pair.a) & O_NONBLOCK);
        EXPECT_FALSE(others_ran) << "a plain descriptor passed through the loop";
        nap(5);
    });
}

TEST(Descriptors, made_past_the_hooks_block_the_thread)
{
    in_hooked_coroutine([] {
        Pair pair = plain_pair();
        bool others_ran = false;
        Co other([&] {
            nap(1);
            others_ran = true;
        });
        other.resume();
        std::thread writer([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            raw_write(pair.b, "x", 1);
        });
        char byte;
        EXPECT_EQ(1, read(pair.a, &byte, 1));
        EXPECT_FALSE(others_ran);
        writer.join();
        nap(5);
    });
}

TEST(Descriptors, of_other_threads_stay_plain)
{
    on_thread([] {
        Co environment([] { co_enable_hook_sys(); });
        environment.resume();
        std::thread([] {
            Fd fd(socket(AF_INET, SOCK_STREAM, 0));
            EXPECT_EQ(0, raw_flags(fd) & O_NONBLOCK);
            Pair pair = plain_pair();
            std::thread writer([&] {
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
                raw_write(pair.b, "x", 1);
            });
            char byte;
            EXPECT_EQ(1, read(pair.a, &byte, 1));
            writer.join();
            EXPECT_EQ(nullptr, co_self());
        }).join();
    });
}

TEST(Descriptors, closed_with_hooks_on_leave_nothing_to_the_next_of_the_number)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        const int number = pair.fd;
        Pair next = plain_pair();
        close(pair.fd.forget());
        syscall(SYS_dup3, next.a.get(), number, 0);
        Fd reused(number);
        raw_nonblock(reused);
        EXPECT_EQ(O_NONBLOCK, fcntl(number, F_GETFL) & O_NONBLOCK) << "hides a flag that is not ours";
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, read(number, &byte, 1));
        EXPECT_LT(now_ms() - start, 500) << "waits as the old one did";
    });
}

MENDED(Descriptors, closed_with_hooks_off_leave_nothing_to_the_next_of_the_number)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        const int number = pair.fd;
        Pair next = plain_pair();
        co_disable_hook_sys();
        close(pair.fd.forget());
        co_enable_hook_sys();
        syscall(SYS_dup3, next.a.get(), number, 0);
        Fd reused(number);
        raw_nonblock(reused);
        EXPECT_EQ(O_NONBLOCK, fcntl(number, F_GETFL) & O_NONBLOCK) << "hides a flag that is not ours";
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, read(number, &byte, 1));
        EXPECT_LT(now_ms() - start, 500) << "waits as the old one did";
    });
}

MENDED(Descriptors, closed_by_another_thread_leave_nothing_to_the_next_of_the_number)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        const int number = pair.fd;
        Pair next = plain_pair();
        std::thread([&] { close(pair.fd.forget()); }).join();
        syscall(SYS_dup3, next.a.get(), number, 0);
        Fd reused(number);
        raw_nonblock(reused);
        EXPECT_EQ(O_NONBLOCK, fcntl(number, F_GETFL) & O_NONBLOCK);
    });
}

TEST(Descriptors, made_by_socket_on_a_used_number_start_with_a_fresh_state)
{
    in_hooked_coroutine([] {
        UnixListener listener;
        const int first = socket(AF_UNIX, SOCK_STREAM, 0);
        set_timeout_option(first, SO_RCVTIMEO, 30);
        fcntl(first, F_SETFL, O_RDWR | O_NONBLOCK);
        raw_close(first); // past the hook
        const int second = socket(AF_UNIX, SOCK_STREAM, 0);
        ASSERT_EQ(first, second);
        EXPECT_EQ(0, fcntl(second, F_GETFL) & O_NONBLOCK);
        ASSERT_EQ(0, connect(second, listener.generic(), listener.size));
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, read(second, &byte, 1));
        EXPECT_GE(now_ms() - start, 990);
        close(second);
    });
}

TEST(Setsockopt, reaches_the_kernel)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_tcp_pair();
        const int one = 1;
        int value = 0;
        socklen_t size = sizeof value;
        EXPECT_EQ(0, setsockopt(pair.fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one));
        getsockopt(pair.fd, SOL_SOCKET, SO_KEEPALIVE, &value, &size);
        EXPECT_EQ(1, value);
        EXPECT_EQ(0, setsockopt(pair.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
        getsockopt(pair.fd, IPPROTO_TCP, TCP_NODELAY, &value, &size);
        EXPECT_EQ(1, value);
        EXPECT_EQ(0, set_timeout_option(pair.fd, SO_RCVTIMEO, 1500));
        EXPECT_EQ(1500, get_timeout_option(pair.fd, SO_RCVTIMEO));
        EXPECT_EQ(0, set_timeout_option(pair.fd, SO_SNDTIMEO, 2500));
        EXPECT_EQ(2500, get_timeout_option(pair.fd, SO_SNDTIMEO));
    });
}

TEST(Setsockopt, reports_the_kernels_error)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_tcp_pair();
        const int one = 1;
        EXPECT_EQ(-1, setsockopt(pair.fd, SOL_SOCKET, 9999, &one, sizeof one));
        EXPECT_EQ(ENOPROTOOPT, errno);
        EXPECT_EQ(-1, setsockopt(-1, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one));
        EXPECT_EQ(EBADF, errno);
        Pair pipe = plain_pipe();
        EXPECT_EQ(-1, setsockopt(pipe.a, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one));
        EXPECT_EQ(ENOTSOCK, errno);
    });
}

TEST(Setsockopt, of_a_time_out_with_hooks_off_is_not_recorded)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        co_disable_hook_sys();
        set_timeout_option(pair.fd, SO_RCVTIMEO, 20);
        co_enable_hook_sys();
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, read(pair.fd, &byte, 1));
        EXPECT_GE(now_ms() - start, 990);
    });
}

TEST(Setsockopt, of_a_time_out_on_the_main_coroutine_is_recorded)
{
    on_thread([] {
        Co environment([] {});
        co_enable_hook_sys();
        HookedPair pair = hooked_unix_pair();
        set_timeout_option(pair.fd, SO_RCVTIMEO, 60);
        Group group;
        long long took = 0;
        group.go_hooked([&] {
            char byte;
            const long long start = now_ms();
            EXPECT_EQ(-1, read(pair.fd, &byte, 1));
            took = now_ms() - start;
        });
        ASSERT_TRUE(group.run());
        EXPECT_GE(took, 50);
        EXPECT_LT(took, 900);
    });
}

MENDED(Setsockopt, that_the_kernel_refused_is_not_recorded)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        ASSERT_EQ(0, set_timeout_option(pair.fd, SO_RCVTIMEO, 300));
        const timeval wrong[] = {{0, 2000000}, {0, -5}};
        for (const timeval &t : wrong) {
            EXPECT_EQ(-1, setsockopt(pair.fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
            EXPECT_EQ(EDOM, errno);
        }
        const timeval brief = {0, 20000};
        EXPECT_EQ(-1, setsockopt(pair.fd, SOL_SOCKET, SO_RCVTIMEO, &brief, 4));
        EXPECT_EQ(EINVAL, errno);
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, read(pair.fd, &byte, 1));
        EXPECT_GE(now_ms() - start, 299);
        EXPECT_LT(now_ms() - start, 900);
    });
}

MENDED(Setsockopt, with_a_bad_pointer_reports_efault)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        EXPECT_EQ(-1, setsockopt(pair.fd, SOL_SOCKET, SO_RCVTIMEO, reinterpret_cast<void *>(8),
                                 sizeof(timeval)));
        EXPECT_EQ(EFAULT, errno);
    });
}

// Every command twice: hooks off and on, with and without a record.
TEST(Fcntl, passes_on_the_commands_of_descriptors)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        for (int hooks = 0; hooks < 2; ++hooks) {
            hooks ? co_enable_hook_sys() : co_disable_hook_sys();
            EXPECT_EQ(0, fcntl(pair.fd, F_SETFD, FD_CLOEXEC));
            EXPECT_EQ(FD_CLOEXEC, fcntl(pair.fd, F_GETFD));
            EXPECT_EQ(0, fcntl(pair.fd, F_SETFD, 0));
            EXPECT_EQ(0, fcntl(pair.fd, F_SETOWN, getpid()));
            EXPECT_EQ(getpid(), fcntl(pair.fd, F_GETOWN));
            Fd copy(fcntl(pair.fd, F_DUPFD, 500));
            EXPECT_LE(500, copy);
            close(copy.forget());
        }
    });
}

TEST(Fcntl, passes_on_record_locks)
{
    in_hooked_coroutine([] {
        Fd file(memfd_create("colib", 0));
        ASSERT_EQ(0, ftruncate(file, 100));
        struct flock lock = {};
        lock.l_type = F_WRLCK;
        lock.l_start = 10;
        lock.l_len = 20;
        EXPECT_EQ(0, fcntl(file, F_SETLK, &lock));
        EXPECT_EQ(0, fcntl(file, F_SETLKW, &lock));
        // Seen by another process alone.
        EXPECT_EQ(0, in_child([&] {
                      struct flock asked = {};
                      asked.l_type = F_WRLCK;
                      return fcntl(file, F_GETLK, &asked) == 0 && asked.l_type == F_WRLCK &&
                                     asked.l_start == 10 && asked.l_len == 20
                                 ? 0
                                 : 1;
                  }));
        lock.l_type = F_UNLCK;
        EXPECT_EQ(0, fcntl(file, F_SETLK, &lock));
    });
}

MENDED(Fcntl, passes_on_the_commands_the_original_dropped)
{
    in_hooked_coroutine([] {
        Pair pipe = plain_pipe();
        HookedPair pair = hooked_unix_pair();
        for (int hooks = 0; hooks < 2; ++hooks) {
            hooks ? co_enable_hook_sys() : co_disable_hook_sys();
            EXPECT_LE(65536 * (hooks + 1), fcntl(pipe.b, F_SETPIPE_SZ, 65536 * (hooks + 1)));
            EXPECT_EQ(65536 * (hooks + 1), fcntl(pipe.b, F_GETPIPE_SZ));
            Fd copy(fcntl(pair.fd, F_DUPFD_CLOEXEC, 600));
            EXPECT_LE(600, copy);
            EXPECT_EQ(FD_CLOEXEC, fcntl(copy, F_GETFD));
            close(copy.forget());
            EXPECT_EQ(0, fcntl(pair.fd, F_SETSIG, SIGUSR1));
            EXPECT_EQ(SIGUSR1, fcntl(pair.fd, F_GETSIG));
            EXPECT_EQ(0, fcntl(pair.fd, F_SETSIG, 0));
        }
    });
}

MENDED(Fcntl, passes_on_pointer_arguments_of_the_commands_the_original_dropped)
{
    in_hooked_coroutine([] {
        Fd file(memfd_create("colib", MFD_ALLOW_SEALING));
        struct flock lock = {};
        lock.l_type = F_WRLCK;
        lock.l_len = 10;
        EXPECT_EQ(0, fcntl(file, F_OFD_SETLK, &lock));
        lock.l_type = F_UNLCK;
        EXPECT_EQ(0, fcntl(file, F_OFD_SETLK, &lock));
        Pair pair = plain_pair();
        f_owner_ex owner = {F_OWNER_PID, getpid()};
        EXPECT_EQ(0, fcntl(pair.a, F_SETOWN_EX, &owner));
        f_owner_ex seen = {};
        EXPECT_EQ(0, fcntl(pair.a, F_GETOWN_EX, &seen));
        EXPECT_EQ(getpid(), seen.pid);
        uint64_t hint = RWH_WRITE_LIFE_SHORT, read_hint = 99;
        EXPECT_EQ(0, fcntl(file, F_SET_RW_HINT, &hint));
        EXPECT_EQ(0, fcntl(file, F_GET_RW_HINT, &read_hint));
        EXPECT_EQ(hint, read_hint);
        EXPECT_EQ(0, fcntl(file, F_ADD_SEALS, F_SEAL_GROW));
        EXPECT_EQ(F_SEAL_GROW, fcntl(file, F_GET_SEALS));
    });
}

MENDED(Fcntl, of_a_bad_number_or_command_reports_the_kernels_error)
{
    in_hooked_coroutine([] {
        Pair pipe = plain_pipe();
        for (int hooks = 0; hooks < 2; ++hooks) {
            hooks ? co_enable_hook_sys() : co_disable_hook_sys();
            errno = 0;
            EXPECT_EQ(-1, fcntl(-1, F_GETFL));
            EXPECT_EQ(EBADF, errno);
            errno = 0;
            EXPECT_EQ(-1, fcntl(9990, F_SETFL, 0));
            EXPECT_EQ(EBADF, errno);
            errno = 0;
            EXPECT_EQ(-1, fcntl(pipe.a, 987654));
            EXPECT_EQ(EINVAL, errno);
        }
    });
}

MENDED(Fcntl, under_its_large_file_name_hides_the_flag_too)
{
    in_hooked_coroutine([] {
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT_EQ(0, fcntl64(fd, F_GETFL) & O_NONBLOCK);
        EXPECT_EQ(0, fcntl64(fd, F_SETFL, O_RDWR | O_NONBLOCK));
        EXPECT_EQ(O_NONBLOCK, fcntl(fd, F_GETFL) & O_NONBLOCK);
        EXPECT_EQ(0, fcntl64(fd, F_SETFL, O_RDWR));
        EXPECT_EQ(O_NONBLOCK, raw_flags(fd) & O_NONBLOCK);
        close(fd);
    });
}

MENDED(Dup, by_fcntl_shares_the_state)
{
    for (int command : {F_DUPFD, F_DUPFD_CLOEXEC}) {
        in_hooked_coroutine([command] {
            HookedPair pair = hooked_unix_pair();
            const int copy = fcntl(pair.fd, command, 100);
            ASSERT_LE(100, copy);
            EXPECT_EQ(0, fcntl(copy, F_GETFL) & O_NONBLOCK);
            EXPECT_TRUE(read_waits(copy));
            // The flag belongs to the open file: set through one, seen through the other.
            EXPECT_EQ(0, fcntl(copy, F_SETFL, O_RDWR | O_NONBLOCK));
            EXPECT_EQ(O_NONBLOCK, fcntl(pair.fd, F_GETFL) & O_NONBLOCK);
            EXPECT_EQ(0, fcntl(pair.fd, F_SETFL, O_RDWR));
            EXPECT_EQ(0, fcntl(copy, F_GETFL) & O_NONBLOCK);
            close(copy);
        });
    }
}

MENDED(Dup, by_fcntl_lives_on_when_the_first_is_closed)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_unix_pair();
        const int copy = fcntl(pair.fd, F_DUPFD, 100);
        close(pair.fd.forget());
        EXPECT_EQ(0, fcntl(copy, F_GETFL) & O_NONBLOCK);
        EXPECT_TRUE(read_waits(copy));
        pair.put("x");
        char byte;
        EXPECT_EQ(1, read(copy, &byte, 1));
        close(copy);
    });
}

namespace {

// A client of `listener` with a byte on its way.
Fd client_of(const Listener &listener, const char *bytes)
{
    Fd client(raw_socket(AF_INET, SOCK_STREAM));
    syscall(SYS_connect, client.get(), listener.generic(), sizeof listener.addr);
    raw_write(client, bytes, strlen(bytes));
    return client;
}

} // namespace

TEST(Accept, leaves_the_mode_as_accept_made_it)
{
    on_thread([] {
        Group group;
        group.go([] {
            for (int hooks = 0; hooks < 2; ++hooks) {
                hooks ? co_enable_hook_sys() : co_disable_hook_sys();
                Listener listener;
                Fd client = client_of(listener, "x");
                sockaddr_in from = {};
                socklen_t size = sizeof from;
                const int fd = co_accept(listener.fd, reinterpret_cast<sockaddr *>(&from), &size);
                ASSERT_LE(0, fd);
                EXPECT_EQ(0, raw_flags(fd) & O_NONBLOCK);
                EXPECT_EQ(0, fcntl(fd, F_GETFL) & O_NONBLOCK);
                EXPECT_EQ(AF_INET, from.sin_family);
                EXPECT_EQ(htonl(INADDR_LOOPBACK), from.sin_addr.s_addr);
                EXPECT_EQ(sizeof from, size);
                close(fd);
            }
        });
        ASSERT_TRUE(group.run());
    });
}

TEST(Accept, never_waits_longer_than_accept_would)
{
    in_hooked_coroutine([] {
        Listener listener;
        raw_nonblock(listener.fd);
        const long long start = now_ms();
        EXPECT_EQ(-1, co_accept(listener.fd, nullptr, nullptr));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_LT(now_ms() - start, 500);
    });
}

TEST(Accept, reports_the_error_of_the_real_call)
{
    in_hooked_coroutine([] {
        EXPECT_EQ(-1, co_accept(-1, nullptr, nullptr));
        EXPECT_EQ(EBADF, errno);
        Pair pair = plain_pair();
        EXPECT_EQ(-1, co_accept(pair.a, nullptr, nullptr));
        EXPECT_EQ(EINVAL, errno);
    });
}

TEST(Accept, makes_reads_cooperative_whether_hooks_were_on_or_off)
{
    on_thread([] {
        for (bool hooks : {false, true}) {
            Listener listener;
            Fd client = client_of(listener, "");
            int fd = -1;
            Group group;
            ssize_t got = -2;
            group.go([&] {
                if (hooks) {
                    co_enable_hook_sys();
                }
                fd = co_accept(listener.fd, nullptr, nullptr);
                co_enable_hook_sys();
                char byte;
                got = read(fd, &byte, 1);
                close(fd);
            });
            EXPECT_EQ(-2, got);
            group.go([&] {
                nap(20);
                raw_write(client, "x", 1);
            });
            ASSERT_TRUE(group.run());
            EXPECT_EQ(1, got);
        }
    });
}

TEST(Accept, by_another_program_of_a_non_blocking_descriptor_is_honoured)
{
    in_hooked_coroutine([] {
        Listener listener;
        Fd client = client_of(listener, "");
        const int fd = co_accept(listener.fd, nullptr, nullptr);
        ASSERT_EQ(0, fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK));
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, read(fd, &byte, 1));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_LT(now_ms() - start, 500);
        close(fd);
    });
}

MENDED(Accept, makes_a_read_of_nothing_end_at_its_time_out)
{
    in_hooked_coroutine([] {
        Listener listener;
        Fd client = client_of(listener, "");
        const int fd = co_accept(listener.fd, nullptr, nullptr);
        char byte;
        const long long start = now_ms();
        EXPECT_EQ(-1, read(fd, &byte, 1));
        EXPECT_EQ(EAGAIN, errno);
        EXPECT_GE(now_ms() - start, 999);
        close(fd);
    });
}

MENDED(Accept, makes_a_long_write_cooperative)
{
    in_hooked_coroutine([] {
        Listener listener;
        Fd client = client_of(listener, "");
        raw_nonblock(client);
        const int fd = co_accept(listener.fd, nullptr, nullptr);
        const size_t total = 16 << 20;
        size_t drained = 0;
        Co reader([&] {
            static char sink[1 << 16];
            while (drained < total) {
                pollfd p = {client, POLLIN, 0};
                co_poll(co_get_epoll_ct(), &p, 1, 5000);
                const ssize_t n = raw_read(client, sink, sizeof sink);
                if (n <= 0) {
                    break;
                }
                drained += n;
            }
        });
        reader.resume();
        const std::vector<char> data(total);
        EXPECT_EQ(static_cast<ssize_t>(total), write(fd, data.data(), total));
        while (!reader.ended()) {
            nap(1);
        }
        EXPECT_EQ(total, drained);
        close(fd);
    });
}
