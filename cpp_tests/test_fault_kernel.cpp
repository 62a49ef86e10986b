// The kernel gives less than it was asked for, interrupts, refuses: injected below the library, at the system call itself, by a
// parent that traces the process. (The library makes its calls through the C library and past it: ptrace sees both.) Data
// stays exact, or the caller gets the error.
#include "support.h"

// The original loses bytes; other processors have other registers.
#if !defined(COLIB_PEER) && defined(__x86_64__)

#include <algorithm>
#include <functional>
#include <random>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>

#include "loop_support.h"

namespace {

using Registers = user_regs_struct;
using Number = unsigned long long;

// What the two processes share.
struct Shared {
    volatile int armed;
    long injected;
    long failures_seen; // by the program
};
Shared *shared;

// What to do with a system call that begins: 0 nothing, -1 go on with changed registers, else the error to give.
using Policy = std::function<int(Registers &, std::mt19937 &)>;

unsigned seed_of_test()
{
    const char *wish = getenv("COLIB_TEST_SEED");
    return wish != nullptr ? static_cast<unsigned>(atol(wish)) : std::random_device{}();
}

// Runs `body` in a child whose system calls go by the policy while it is armed. Returns its status, or 128 + signal;
// -1 if tracing is not permitted.
int traced(const std::function<int()> &body, const Policy &policy, unsigned seed)
{
    shared = static_cast<Shared *>(mmap(nullptr, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    *shared = Shared{};
    fflush(nullptr);
    const pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
            _exit(127);
        }
        raise(SIGSTOP);
        signal(SIGALRM, SIG_DFL);
        alarm(60);
        const int result = body();
        shared->armed = 0;
        fflush(nullptr);
        _exit(result);
    }
    std::mt19937 random(seed);
    bool entry = true;
    int pending = 0;
    int status = 0;
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) {
        return WIFEXITED(status) && WEXITSTATUS(status) == 127 ? -1 : 1;
    }
    ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    long signal = 0;
    for (;;) {
        ptrace(PTRACE_SYSCALL, pid, nullptr, signal);
        signal = 0;
        if (waitpid(pid, &status, 0) != pid) {
            return 1;
        }
        if (WIFEXITED(status)) {
            return WEXITSTATUS(status);
        }
        if (WIFSIGNALED(status)) {
            return 128 + WTERMSIG(status);
        }
        if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
            signal = WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status);
            continue;
        }
        Registers registers;
        ptrace(PTRACE_GETREGS, pid, nullptr, &registers);
        if (entry) {
            pending = shared->armed ? policy(registers, random) : 0;
            if (pending != 0) {
                ++shared->injected;
                if (pending > 0) {
                    registers.orig_rax = static_cast<Number>(-1); // no call at all
                }
                ptrace(PTRACE_SETREGS, pid, nullptr, &registers);
            }
        } else if (pending > 0) {
            registers.rax = static_cast<Number>(-pending);
            ptrace(PTRACE_SETREGS, pid, nullptr, &registers);
        }
        entry = !entry;
    }
}

bool reads(const Registers &r) { return r.orig_rax == SYS_read || r.orig_rax == SYS_recvfrom; }
bool writes(const Registers &r) { return r.orig_rax == SYS_write || r.orig_rax == SYS_sendto; }
bool moves_vectors(const Registers &r)
{
    return r.orig_rax == SYS_readv || r.orig_rax == SYS_writev || r.orig_rax == SYS_sendmsg || r.orig_rax == SYS_recvmsg ||
        r.orig_rax == SYS_preadv2 || r.orig_rax == SYS_pwritev2;
}
bool waits(const Registers &r)
{
    return r.orig_rax == SYS_epoll_pwait2 || r.orig_rax == SYS_epoll_pwait || r.orig_rax == SYS_epoll_wait ||
        r.orig_rax == SYS_poll || r.orig_rax == SYS_ppoll;
}

// Echoes over socket pairs, in coroutines.
enum class Style { PlainReadWrite, SendRecv, PolledReadWrite, Vectors };
constexpr Style kStyles[] = {Style::PlainReadWrite, Style::SendRecv, Style::PolledReadWrite, Style::Vectors};

unsigned char byte_at(int stream, long offset)
{
    return static_cast<unsigned char>(offset * 31 + offset / 251 + stream * 7);
}

// One read or write in a style; what a program does about EINTR and EAGAIN is to call again.
ssize_t move(Style style, bool out, int fd, void *bytes, size_t size)
{
    for (;;) {
        if (style == Style::PolledReadWrite) {
            pollfd one = {fd, static_cast<short>(out ? POLLOUT : POLLIN), 0};
            if (co_poll(co_get_epoll_ct(), &one, 1, 5000) < 0 && errno != EINTR) {
                return -1;
            }
        }
        iovec parts[2] = {{bytes, size / 2}, {static_cast<char *>(bytes) + size / 2, size - size / 2}};
        ssize_t n = 0;
        switch (style) {
        case Style::SendRecv:
            n = out ? send(fd, bytes, size, MSG_NOSIGNAL) : recv(fd, bytes, size, 0);
            break;
        case Style::Vectors:
            n = out ? writev(fd, parts, 2) : readv(fd, parts, 2);
            break;
        default:
            n = out ? write(fd, bytes, size) : read(fd, bytes, size);
        }
        if (n >= 0 || (errno != EINTR && errno != EAGAIN)) {
            return n;
        }
    }
}

struct Stream {
    int number;
    Style style;
    long total;
    int client = -1, server = -1;
    long sent = 0, received = 0;
    int error = 0; // the first one that either end got
    bool exact = true;
    bool client_done = false, server_done = false;
};

void serve(Stream &stream)
{
    char bytes[700];
    for (;;) {
        const ssize_t n = move(stream.style, false, stream.server, bytes, sizeof bytes);
        if (n <= 0) {
            stream.error = n < 0 ? errno : stream.error;
            break;
        }
        for (ssize_t done = 0; done < n;) {
            const ssize_t wrote =
                move(stream.style, true, stream.server, bytes + done, static_cast<size_t>(n - done));
            if (wrote <= 0) {
                stream.error = errno;
                break;
            }
            done += wrote;
        }
        if (stream.error != 0) {
            break;
        }
    }
    shutdown(stream.server, SHUT_RDWR);
    stream.server_done = true;
}

void ask(Stream &stream)
{
    unsigned char bytes[500];
    while (stream.received < stream.total) {
        const long n = std::min<long>(sizeof bytes, stream.total - stream.sent);
        for (long i = 0; i < n; ++i) {
            bytes[i] = byte_at(stream.number, stream.sent + i);
        }
        for (long done = 0; done < n;) {
            const ssize_t wrote =
                move(stream.style, true, stream.client, bytes + done, static_cast<size_t>(n - done));
            if (wrote <= 0) {
                stream.error = errno;
                goto end;
            }
            done += wrote;
        }
        stream.sent += n;
        while (stream.received < stream.sent) {
            const ssize_t got = move(stream.style, false, stream.client, bytes, sizeof bytes);
            if (got <= 0) {
                stream.error = got < 0 ? errno : stream.error;
                goto end;
            }
            for (ssize_t i = 0; i < got; ++i) {
                stream.exact = stream.exact && bytes[i] == byte_at(stream.number, stream.received + i);
            }
            stream.received += got;
        }
    }
end:
    shutdown(stream.client, SHUT_RDWR);
    stream.client_done = true;
}

// Runs the streams to their ends, armed. False if they do not come to one.
bool run_streams(std::vector<Stream> &streams)
{
    co_set_hooks("all");
    co_set_timeout(-1, 10000, 10000);
    support::Group group;
    for (Stream &stream : streams) {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0 || co_hook_fd(ends[0]) != 0 || co_hook_fd(ends[1]) != 0) {
            return false;
        }
        stream.client = ends[0];
        stream.server = ends[1];
        group.go_hooked([&] { serve(stream); });
        group.go_hooked([&] { ask(stream); });
    }
    shared->armed = 1;
    const bool over = support::loop_until(
        [&] {
            return std::all_of(streams.begin(), streams.end(), [](const Stream &s) { return s.client_done && s.server_done; });
        },
        30000);
    shared->armed = 0;
    return over;
}

std::vector<Stream> streams_of_all_styles(long total)
{
    std::vector<Stream> streams;
    for (int i = 0; i < 8; ++i) {
        streams.push_back(Stream{i, kStyles[i % 4], total});
    }
    return streams;
}

// All of it arrives, whatever the policy does.
int stays_exact()
{
    std::vector<Stream> streams = streams_of_all_styles(6000);
    if (!run_streams(streams)) {
        return 10;
    }
    for (const Stream &stream : streams) {
        if (stream.error != 0 || !stream.exact || stream.received != stream.total) {
            return 20 + stream.number;
        }
    }
    return 0;
}

void expect_exact(const Policy &policy, long at_least)
{
    const unsigned seed = seed_of_test();
    SCOPED_TRACE("COLIB_TEST_SEED=" + std::to_string(seed));
    const int status = traced(stays_exact, policy, seed);
    if (status < 0) {
        GTEST_SKIP() << "ptrace is not permitted";
    }
    EXPECT_EQ(0, status);
    EXPECT_GE(shared->injected, at_least) << "nothing was injected";
}

} // namespace

TEST(KernelFaults, short_reads_and_writes_lose_nothing)
{
    expect_exact(
        [](Registers &r, std::mt19937 &random) {
            if ((!reads(r) && !writes(r)) || r.rdx < 2 || random() % 2 == 0) {
                return 0;
            }
            r.rdx = 1 + random() % std::min<Number>(r.rdx - 1, 60);
            return -1;
        },
        200);
}

TEST(KernelFaults, interruptions_lose_nothing)
{
    expect_exact(
        [](Registers &r, std::mt19937 &random) {
            const bool concerned = reads(r) || writes(r) || moves_vectors(r) || waits(r);
            return concerned && random() % 3 == 0 ? EINTR : 0;
        },
        100);
}

TEST(KernelFaults, unexpected_eagain_is_waited_out)
{
    expect_exact(
        [](Registers &r, std::mt19937 &random) {
            return (reads(r) || writes(r) || moves_vectors(r)) && random() % 3 == 0 ? EAGAIN : 0;
        },
        100);
}

TEST(KernelFaults, an_old_kernel_without_the_newer_calls_serves_as_well)
{
    expect_exact(
        [](Registers &r, std::mt19937 &) {
            return r.orig_rax == SYS_epoll_pwait2 || r.orig_rax == SYS_process_madvise ? ENOSYS : 0;
        },
        1);
}

TEST(KernelFaults, an_error_of_one_connection_is_its_own_and_the_bytes_before_it_are_exact)
{
    const unsigned seed = seed_of_test();
    SCOPED_TRACE("COLIB_TEST_SEED=" + std::to_string(seed));
    for (int error : {ECONNRESET, ENOBUFS, EPIPE, ENOMEM, EIO}) {
        SCOPED_TRACE(strerror(error));
        // One in fifty, of the styles whose calls it is; each connection has then had its last.
        const Policy policy = [error](Registers &r, std::mt19937 &random) {
            return (reads(r) || writes(r)) && random() % 50 == 0 ? error : 0;
        };
        const auto body = [error] {
            std::vector<Stream> streams = streams_of_all_styles(20000);
            if (!run_streams(streams)) {
                return 10;
            }
            int failed = 0;
            for (const Stream &stream : streams) {
                if (!stream.exact) {
                    return 20 + stream.number;
                }
                if (stream.received == stream.total) {
                    continue;
                }
                // Its own error, or what the other end's shutdown makes of it.
                if (stream.error != error && stream.error != EPIPE && stream.error != ECONNRESET && stream.error != 0) {
                    return 40 + stream.number;
                }
                failed += stream.error == error;
                shared->failures_seen += stream.error == error;
            }
            return failed > 0 ? 0 : 60;
        };
        signal(SIGPIPE, SIG_IGN);
        const int status = traced(body, policy, seed);
        if (status < 0) {
            GTEST_SKIP() << "ptrace is not permitted";
        }
        EXPECT_EQ(0, status);
        EXPECT_GE(shared->injected, shared->failures_seen);
        EXPECT_GE(shared->failures_seen, 1);
    }
}

TEST(KernelFaults, of_epoll_ctl_are_the_waits_error_and_pass)
{
    for (int error : {ENOMEM, ENOSPC}) {
        SCOPED_TRACE(strerror(error));
        const auto body = [error] {
            int ends[2];
            if (pipe(ends) != 0) {
                return 10;
            }
            int results[3] = {-2, -2, -2};
            int errors[3] = {};
            for (int i = 0; i < 3; ++i) {
                support::Co co([&] {
                    pollfd one = {ends[0], POLLIN, 0};
                    errno = 0;
                    results[i] = co_poll(co_get_epoll_ct(), &one, 1, 2000);
                    errors[i] = errno;
                });
                shared->armed = i == 1;
                co.resume();
                shared->armed = 0;
                if (i != 1 && (write(ends[1], "x", 1) != 1 || !support::loop_until([&] { return co.ended(); }))) {
                    return 11;
                }
                char byte;
                if (i != 1 && read(ends[0], &byte, 1) != 1) {
                    return 12;
                }
                if (i == 1 && !co.ended()) {
                    return 13; // it waits for what will never come
                }
            }
            return results[0] == 1 && results[1] == -1 && errors[1] == error && results[2] == 1 ? 0 : 14;
        };
        const int status =
            traced(body, [error](Registers &r, std::mt19937 &) { return r.orig_rax == SYS_epoll_ctl ? error : 0; }, 1);
        if (status < 0) {
            GTEST_SKIP() << "ptrace is not permitted";
        }
        EXPECT_EQ(0, status);
        EXPECT_GE(shared->injected, 1);
    }
}

TEST(KernelFaults, where_guards_cannot_be_installed_by_madvise_they_are_made_by_mprotect)
{
    const auto body = [] {
        const rlimit none{0, 0};
        setrlimit(RLIMIT_CORE, &none);
        if (freopen("/dev/null", "w", stderr) == nullptr) {
            return 10;
        }
        shared->armed = 1;
        stCoRoutine_t *co = nullptr;
        const auto touch_guard = [](void *) -> void * {
            *static_cast<volatile char *>(co_self()->stack_mem->stack_buffer - 1) = 1;
            return nullptr;
        };
        if (co_create(&co, nullptr, touch_guard, nullptr) != 0) {
            return 11;
        }
        shared->armed = 0;
        co_resume(co);
        return 12;
    };
    constexpr Number kGuardInstall = 102;
    const Policy policy = [](Registers &r, std::mt19937 &) {
        if (r.orig_rax == SYS_process_madvise) {
            return ENOSYS;
        }
        return r.orig_rax == SYS_madvise && r.rdx == kGuardInstall ? EINVAL : 0;
    };
    const int status = traced(body, policy, 1);
    if (status < 0) {
        GTEST_SKIP() << "ptrace is not permitted";
    }
    EXPECT_EQ(128 + SIGSEGV, status);
    EXPECT_GE(shared->injected, 1);
}

namespace {

volatile sig_atomic_t ticks;

} // namespace

TEST(KernelFaults, a_storm_of_real_signals_loses_nothing)
{
    EXPECT_EQ(0, support::in_child([] {
                  shared = static_cast<Shared *>(
                      mmap(nullptr, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
                  struct sigaction action {};
                  action.sa_handler = [](int) { ticks = ticks + 1; };
                  sigaction(SIGVTALRM, &action, nullptr); // (without SA_RESTART)
                  sigaction(SIGPROF, &action, nullptr);
                  timer_t timer;
                  sigevent event{};
                  event.sigev_notify = SIGEV_SIGNAL;
                  event.sigev_signo = SIGPROF;
                  const itimerspec each = {{0, 1000000}, {0, 1000000}};
                  if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0 || timer_settime(timer, 0, &each, nullptr) != 0) {
                      return 1;
                  }
                  const long long start = support::now_ms();
                  while (support::now_ms() - start < 1500) {
                      std::vector<Stream> streams = streams_of_all_styles(60000);
                      if (!run_streams(streams)) {
                          return 2;
                      }
                      for (const Stream &stream : streams) {
                          if (stream.error != 0 || !stream.exact || stream.received != stream.total) {
                              return 20 + stream.number;
                          }
                          close(stream.client);
                          close(stream.server);
                      }
                  }
                  return ticks > 300 ? 0 : 3;
              }));
}

#endif
