// What the hooks cost and change where nobody asked for them: nothing.
#ifndef COLIB_PEER

#include "added_support.h"

#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/select.h>

using namespace support;

namespace {

const long mark = SYS_getpgid;
const unsigned long first_mark = 0x70000000;

// Runs `body` in a child, and returns which system calls it makes between each mark and the next.
std::vector<std::vector<long>> calls_between_marks(const std::function<void()> &body)
{
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        raise(SIGSTOP);
        body();
        _exit(testing::Test::HasFailure() ? 1 : 0);
    }
    std::vector<std::vector<long>> calls;
    int status = 0;
    waitpid(child, &status, 0);
    const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
    EXPECT_EQ(0, ptrace(PTRACE_SETOPTIONS, child, nullptr, options));
    int signal = 0;
    while (ptrace(PTRACE_SYSCALL, child, nullptr, signal) == 0 && waitpid(child, &status, 0) == child &&
           WIFSTOPPED(status)) {
        signal = WSTOPSIG(status);
        if (signal != (SIGTRAP | 0x80)) {
            continue;
        }
        signal = 0;
        __ptrace_syscall_info info = {};
        ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info);
        if (info.op != PTRACE_SYSCALL_INFO_ENTRY) {
            continue;
        }
        const long number = static_cast<long>(info.entry.nr);
        if (number == mark && info.entry.args[0] >= first_mark) {
            calls.emplace_back();
        } else if (!calls.empty()) {
            calls.back().push_back(number);
        }
    }
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(0, WEXITSTATUS(status));
    return calls;
}

struct Named {
    const char *name;
    std::function<void()> call;
};

// A pair, a pipe and other descriptors that the hooks do not know, and every hooked call on them: each is one
// system call.
class Calls {
public:
    std::vector<Named> all()
    {
        fill(full_.a);
        listen(listener_, 8);
        fcntl(listener_, F_SETFL, O_NONBLOCK);
        part_ = {buf_, sizeof buf_};
        message_.msg_iov = &part_;
        message_.msg_iovlen = 1;
        many_ = {message_, 0};
        stream_ = fdopen(static_cast<int>(syscall(SYS_dup, 0)), "r");
        const int in = pair_.a, out = pair_.b, file = file_;
        sockaddr *name = reinterpret_cast<sockaddr *>(&name_);
        epoll_ = Fd(epoll_create1(0));
        return {
            {"accept", [=] { accept(listener_, nullptr, nullptr); }},
            {"accept4", [=] { accept4(listener_, nullptr, nullptr, 0); }},
            {"write", [=] { check(8, write(out, buf_, 8)); }},
            {"send", [=] { check(8, send(out, buf_, 8, 0)); }},
            {"sendto", [=] { check(8, sendto(out, buf_, 8, 0, nullptr, 0)); }},
            {"writev", [=] { check(8, writev(out, &part_, 1)); }},
            {"sendmsg", [=] { check(8, sendmsg(out, &message_, 0)); }},
            {"sendmmsg", [=] { check(1, sendmmsg(out, &many_, 1, 0)); }},
            {"sendfile", [=] { check(8, sendfile(out, file, nullptr, 8)); }},
            {"sendfile64", [=] { check(8, sendfile64(out, file, nullptr, 8)); }},
            {"read", [=] { check(8, read(in, buf_, 8)); }},
            {"recv", [=] { check(8, recv(in, buf_, 8, 0)); }},
            {"recvfrom", [=] { check(8, recvfrom(in, buf_, 8, 0, nullptr, nullptr)); }},
            {"readv", [=] { check(8, readv(in, &part_, 1)); }},
            {"recvmsg", [=] { check(8, recvmsg(in, &message_, 0)); }},
            {"recvmmsg", [=] { check(1, recvmmsg(in, &many_, 1, MSG_WAITFORONE, nullptr)); }},
            {"recv of all", [=] { check(8, recv(in, buf_, 8, MSG_WAITALL)); }},
            {"write to what is full", [=] { check(-1, send(full_.a, buf_, 8, MSG_DONTWAIT)); }},
            {"shutdown", [=] { check(0, shutdown(in, SHUT_WR)); }},
            {"getsockopt",
             [=] {
                 timeval t;
                 socklen_t size = sizeof t;
                 check(0, getsockopt(in, SOL_SOCKET, SO_RCVTIMEO, &t, &size));
             }},
            {"setsockopt",
             [=] {
                 const timeval t = {5, 0};
                 check(0, setsockopt(in, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
             }},
            {"ioctl",
             [=] {
                 int on = 0;
                 check(0, ioctl(in, FIONBIO, &on));
             }},
            {"F_GETFL", [=] { check(O_RDWR, fcntl(in, F_GETFL)); }},
            {"F_SETFL", [=] { check(0, fcntl(in, F_SETFL, O_RDWR)); }},
            {"F_DUPFD", [=] { check(100, fcntl(in, F_DUPFD, 100)); }},
            {"dup", [=] { dup(in); }},
            {"dup2", [=] { check(101, dup2(in, 101)); }},
            {"dup3", [=] { check(102, dup3(in, 102, O_CLOEXEC)); }},
            {"close", [=] { check(0, close(100)); }},
            {"close_range", [=] { check(0, close_range(101, 110, 0)); }},
            {"fclose", [=] { check(0, fclose(stream_)); }},
            {"socket", [=] { socket(AF_INET, SOCK_DGRAM, 0); }},
            {"connect", [=] { connect(in, name, sizeof name_); }},
            {"socketpair", [=] { check(0, socketpair(AF_UNIX, SOCK_STREAM, 0, numbers_)); }},
            {"pipe", [=] { check(0, pipe(numbers_)); }},
            {"pipe2", [=] { check(0, pipe2(numbers_, O_CLOEXEC)); }},
            {"eventfd", [=] { eventfd(0, 0); }},
            {"timerfd_create", [=] { timerfd_create(CLOCK_MONOTONIC, 0); }},
            {"poll", [=] { poll(nullptr, 0, 1); }},
            {"ppoll", [=] { ppoll(nullptr, 0, &short_, nullptr); }},
            {"select",
             [=] {
                 timeval t = {0, 1000};
                 select(0, nullptr, nullptr, nullptr, &t);
             }},
            {"pselect", [=] { pselect(0, nullptr, nullptr, nullptr, &short_, nullptr); }},
            {"epoll_wait", [=] { epoll_wait(epoll_, &event_, 1, 1); }},
            {"epoll_pwait", [=] { epoll_pwait(epoll_, &event_, 1, 1, nullptr); }},
            {"usleep", [=] { usleep(10); }},
            {"nanosleep", [=] { nanosleep(&short_, nullptr); }},
            {"clock_nanosleep", [=] { clock_nanosleep(CLOCK_MONOTONIC, 0, &short_, nullptr); }},
        };
    }

private:
    static void check(ssize_t expected, ssize_t got)
    {
        if (expected != got) {
            ADD_FAILURE() << "expected " << expected << ", got " << got << ": " << strerror(errno);
        }
    }

    Pair pair_ = plain_pair(), full_ = plain_pair();
    Fd listener_{raw_socket(AF_INET, SOCK_STREAM)}, file_ = file_of("16 bytes in all."), epoll_;
    char buf_[8] = {};
    iovec part_;
    msghdr message_ = {};
    mmsghdr many_;
    FILE *stream_ = nullptr;
    sockaddr_un name_ = {};
    int numbers_[2];
    epoll_event event_;
    const timespec short_ = {0, 1000};
};

void each_is_one_system_call(const std::function<void(const std::function<void()> &)> &where)
{
    Calls calls;
    const std::vector<Named> all = calls.all();
    const auto made = calls_between_marks([&] {
        where([&] {
            for (size_t i = 0; i < all.size(); ++i) {
                syscall(mark, first_mark + i);
                all[i].call();
            }
            syscall(mark, first_mark + all.size());
        });
    });
    ASSERT_EQ(all.size() + 1, made.size());
    for (size_t i = 0; i < all.size(); ++i) {
        std::string list;
        for (long number : made[i]) {
            list += " " + std::to_string(number);
        }
        EXPECT_EQ(1u, made[i].size()) << all[i].name << " makes the system calls" << list;
    }
}

} // namespace

TEST(HooksOff, make_no_extra_system_call_without_an_environment)
{
    each_is_one_system_call([](const std::function<void()> &calls) { calls(); });
}

TEST(HooksOff, make_no_extra_system_call_in_a_coroutine)
{
    each_is_one_system_call([](const std::function<void()> &calls) {
        co_set_hooks("all");
        Co co([&] { calls(); });
        co.resume();
    });
}

TEST(HooksOff, make_no_extra_system_call_after_hooks_were_on)
{
    each_is_one_system_call([](const std::function<void()> &calls) {
        co_set_hooks("all");
        Co co([&] {
            co_enable_hook_sys();
            for (int i = 0; i < 3; ++i) {
                const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
                close(fd);
            }
            co_disable_hook_sys();
            calls();
        });
        co.resume();
    });
}

TEST(AddedHooks, are_the_plain_calls_by_default)
{
    with_hooks("default", [] {
        HookedListener listener;
        HookedPair pair = hooked_unix_pair();
        co_set_timeout(listener.fd, -1, -1);
        co_set_timeout(pair.fd, -1, -1);
        char bytes[8] = {};
        iovec part = {bytes, sizeof bytes};
        msghdr message = {};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        mmsghdr many = {message, 0};
        Fd file = file_of("bytes");
        // Non-blocking underneath, which a plain call sees, as in libco.
        FAILS(EAGAIN, accept(listener.fd, nullptr, nullptr));
        FAILS(EAGAIN, accept4(listener.fd, nullptr, nullptr, 0));
        FAILS(EAGAIN, readv(pair.fd, &part, 1));
        FAILS(EAGAIN, recvmsg(pair.fd, &message, 0));
        FAILS(EAGAIN, recvmmsg(pair.fd, &many, 1, 0, nullptr));
        fill(pair.fd);
        FAILS(EAGAIN, writev(pair.fd, &part, 1));
        FAILS(EAGAIN, sendmsg(pair.fd, &message, 0));
        FAILS(EAGAIN, sendmmsg(pair.fd, &many, 1, 0));
        FAILS(EAGAIN, sendfile(pair.fd, file, nullptr, 5));
        FAILS(EAGAIN, sendfile64(pair.fd, file, nullptr, 5));
    });
}

TEST(AddedHooks, by_default_know_nothing_of_what_is_made)
{
    with_hooks("default", [] {
        HookedListener listener;
        Fd client = listener.client();
        nap(10);
        auto pair = made_socketpair(), ends = made_pipe();
        Two more;
        EXPECT_EQ(0, pipe2(more.both(), 0));
        const int connection = accept(listener.fd, nullptr, nullptr), counter = eventfd(0, 0),
                  timer = timerfd_create(CLOCK_MONOTONIC, 0);
        for (int fd : {pair->a, pair->b, ends->a, ends->b, more.a, more.b, connection, counter, timer}) {
            EXPECT_EQ(-1, co_set_timeout(fd, 1, 1));
            EXPECT_EQ(EBADF, errno);
        }
        for (int fd : {connection, counter, timer}) {
            close(fd);
        }
    });
}

TEST(AddedHooks, stop_the_thread_by_default_where_libco_does)
{
    with_hooks("default", [] {
        Pair ends = plain_pipe();
        bool others_ran = false;
        Co other([&] {
            nap(1);
            others_ran = true;
        });
        other.resume();
        std::thread writer([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            raw_write(ends.b, "x", 1);
        });
        char byte;
        const iovec part = {&byte, 1};
        EXPECT_EQ(1, readv(ends.a, &part, 1));
        EXPECT_FALSE(others_ran);
        writer.join();
        nap(5);
    });
}

TEST(LibcosHooks, alone_keep_its_time_out_of_zero)
{
    with_hooks("libco", [] {
        HookedPair pair = hooked_unix_pair();
        set_timeout_option(pair.fd, SO_RCVTIMEO, 0);
        char byte;
        FAILS(EAGAIN, read(pair.fd, &byte, 1));
        auto ends = made_pipe();
        EXPECT_EQ(-1, co_set_timeout(ends->a, 1, 1));
    });
}

TEST(ChosenHooks, follow_the_environment_of_the_program)
{
    EXPECT_EQ(0, in_child([] {
                  setenv("LIBCO_HOOKS", "all,-pipe2", 1);
                  execl("/proc/self/exe", "test", "--gtest_also_run_disabled_tests", "--gtest_brief=1",
                        "--gtest_filter=ChosenHooks.DISABLED_all_but_pipe2", static_cast<char *>(nullptr));
                  return 1;
              }));
}

// Run by the one above, with LIBCO_HOOKS.
TEST(ChosenHooks, DISABLED_all_but_pipe2)
{
    in_hooked_coroutine([] {
        auto known = made_pipe();
        EXPECT_EQ(0, co_set_timeout(known->a, 1, 1));
        Two unknown;
        EXPECT_EQ(0, pipe2(unknown.both(), 0));
        EXPECT_EQ(-1, co_set_timeout(unknown.a, 1, 1));
    });
}

#endif
