// Pieces that the tests of the event loop and of the hooks share: groups of coroutines, descriptors
// made past the hooks, and connected pairs of which one end was made by the hooked socket().
#ifndef COLIB_CPP_TESTS_LOOP_SUPPORT_H
#define COLIB_CPP_TESTS_LOOP_SUPPORT_H

#include "support.h"

#include <atomic>
#include <memory>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/syscall.h>
#include <sys/un.h>

namespace support {

// Coroutines that start when they are added and are released together.
class Group {
public:
    Co &go(std::function<void()> body, const stCoRoutineAttr_t *at = nullptr)
    {
        all_.push_back(std::make_unique<Co>(std::move(body), at));
        Co &added = *all_.back();
        added.resume();
        return added;
    }
    // The same with hooks on.
    Co &go_hooked(std::function<void()> body, const stCoRoutineAttr_t *at = nullptr)
    {
        return go(
            [body = std::move(body)] {
                co_enable_hook_sys();
                body();
            },
            at);
    }
    bool all_ended() const
    {
        for (const auto &co : all_) {
            if (!co->ended()) {
                return false;
            }
        }
        return true;
    }
    // Runs the loop until all have ended.
    bool run(int limit_ms = 20000)
    {
        return loop_until([this] { return all_ended(); }, limit_ms);
    }

private:
    std::vector<std::unique_ptr<Co>> all_;
};

// One hooked coroutine on a thread of its own, run to its end.
inline void in_hooked_coroutine(const std::function<void()> &body, int limit_ms = 20000)
{
    on_thread([&] {
        Group group;
        group.go_hooked(body);
        ASSERT_TRUE(group.run(limit_ms)) << "the coroutine did not end";
    });
}

// Lets the others run for `ms`.
inline void nap(int ms) { co_poll(co_get_epoll_ct(), nullptr, 0, ms); }

inline long long now_ns(clockid_t clock = CLOCK_MONOTONIC)
{
    timespec t;
    syscall(SYS_clock_gettime, clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

// Expects the loop to sleep while `wait` lasts: one that spins makes some hundred rounds a millisecond,
// one that ticks makes one. Rounds, not time of the processor: what a busy host takes from the machine
// is reckoned as the thread's.
inline void expect_idle_during(const std::function<void()> &wait)
{
    const long long rounds = rounds_seen, start = now_ns();
    wait();
    const long long made = rounds_seen - rounds, passed_ms = (now_ns() - start) / 1000000;
    EXPECT_GT(made, 0) << "no loop_until runs the loop";
    EXPECT_LT(made, 3 * passed_ms + 20) << "the loop spins";
}

inline void expect_idle(int ms)
{
    expect_idle_during([ms] { nap(ms); });
}

// Waits, on a thread without a loop, until `held()` or `limit_ms` have passed.
inline bool wait_until(const std::function<bool()> &held, int limit_ms = 20000)
{
    const long long deadline = now_ms() + limit_ms;
    while (!held()) {
        if (now_ms() > deadline) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

// System calls that no hook sees.
inline ssize_t raw_read(int fd, void *buf, size_t n) { return syscall(SYS_read, fd, buf, n); }
inline ssize_t raw_write(int fd, const void *buf, size_t n) { return syscall(SYS_write, fd, buf, n); }
inline int raw_close(int fd) { return static_cast<int>(syscall(SYS_close, fd)); }
inline int raw_flags(int fd) { return static_cast<int>(syscall(SYS_fcntl, fd, F_GETFL)); }
inline void raw_nonblock(int fd) { syscall(SYS_fcntl, fd, F_SETFL, raw_flags(fd) | O_NONBLOCK); }
inline int raw_poll(pollfd *fds, nfds_t n, int timeout_ms)
{
#ifdef SYS_poll
    return static_cast<int>(syscall(SYS_poll, fds, n, timeout_ms));
#else // newer architectures have ppoll alone
    struct timespec timeout = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
    return static_cast<int>(syscall(SYS_ppoll, fds, n, timeout_ms < 0 ? nullptr : &timeout, nullptr, 0));
#endif
}
inline int raw_socket(int domain, int type)
{
    return static_cast<int>(syscall(SYS_socket, domain, type | SOCK_CLOEXEC, 0));
}
inline int raw_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    return static_cast<int>(syscall(SYS_setsockopt, fd, level, name, value, size));
}

// A descriptor closed, past the hooks, at the end of the scope.
class Fd {
public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd &&other) noexcept : fd_(other.forget()) {}
    Fd &operator=(Fd &&other) noexcept
    {
        reset(other.forget());
        return *this;
    }
    ~Fd() { reset(); }
    void reset(int fd = -1)
    {
        if (fd_ >= 0) {
            raw_close(fd_);
        }
        fd_ = fd;
    }
    int forget() { return std::exchange(fd_, -1); }
    int get() const { return fd_; }
    operator int() const { return fd_; }

private:
    int fd_ = -1;
};

struct Pair {
    Fd a, b;
};

// A connected stream pair that the library knows nothing of.
inline Pair plain_pair(int type = SOCK_STREAM)
{
    int fds[2];
    if (syscall(SYS_socketpair, AF_UNIX, type, 0, fds) != 0) {
        std::abort();
    }
    return {Fd(fds[0]), Fd(fds[1])};
}

inline Pair plain_pipe()
{
    int fds[2];
    if (syscall(SYS_pipe2, fds, 0) != 0) {
        std::abort();
    }
    return {Fd(fds[0]), Fd(fds[1])};
}

// A listening TCP socket on a free loopback port, made past the hooks.
struct Listener {
    Fd fd;
    sockaddr_in addr = {};

    explicit Listener(int backlog = 128, int receive_buffer = 0)
        : fd(raw_socket(AF_INET, SOCK_STREAM))
    {
        addr.sin_family = AF_INET;
        addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof addr;
        if (receive_buffer > 0) {
            raw_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
        }
        if (bind(fd, generic(), sizeof addr) != 0 || listen(fd, backlog) != 0 ||
            getsockname(fd, reinterpret_cast<sockaddr *>(&addr), &size) != 0) {
            std::abort();
        }
    }
    const sockaddr *generic() const { return reinterpret_cast<const sockaddr *>(&addr); }
    // Takes the next connection, past the hooks.
    Fd take() const { return Fd(static_cast<int>(syscall(SYS_accept4, fd.get(), nullptr, nullptr, 0))); }
};

// A listening AF_UNIX socket with an abstract name, made past the hooks.
struct UnixListener {
    Fd fd;
    sockaddr_un addr = {};
    socklen_t size = 0;

    explicit UnixListener(int backlog = 128, int type = SOCK_STREAM) : fd(raw_socket(AF_UNIX, type))
    {
        static std::atomic<int> serial{0};
        addr.sun_family = AF_UNIX;
        const int n = snprintf(addr.sun_path + 1, sizeof addr.sun_path - 1, "colib-test-%d-%d",
                               static_cast<int>(getpid()), serial++);
        size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + n);
        if (bind(fd, generic(), size) != 0 ||
            (type == SOCK_STREAM && listen(fd, backlog) != 0)) {
            std::abort();
        }
    }
    const sockaddr *generic() const { return reinterpret_cast<const sockaddr *>(&addr); }
    Fd take() const { return Fd(static_cast<int>(syscall(SYS_accept4, fd.get(), nullptr, nullptr, 0))); }
};

// Call these with hooks on: `fd` comes from the hooked socket(), `peer` from the raw system call.
// The pair on AF_UNIX is connected without waiting.
struct HookedPair {
    Fd fd, peer;

    void put(const std::string &bytes) const
    {
        if (raw_write(peer, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
            std::abort();
        }
    }
    // close() as a program calls it, through the hook.
    ~HookedPair()
    {
        if (fd >= 0) {
            close(fd.forget());
        }
    }
    HookedPair() = default;
    HookedPair(HookedPair &&) = default;
    HookedPair &operator=(HookedPair &&) = default;
};

inline HookedPair hooked_unix_pair()
{
    UnixListener listener;
    HookedPair pair;
    pair.fd.reset(socket(AF_UNIX, SOCK_STREAM, 0));
    if (connect(pair.fd, listener.generic(), listener.size) != 0) {
        std::abort();
    }
    pair.peer = listener.take();
    return pair;
}

inline HookedPair hooked_tcp_pair()
{
    Listener listener;
    HookedPair pair;
    pair.fd.reset(socket(AF_INET, SOCK_STREAM, 0));
    if (connect(pair.fd, listener.generic(), sizeof listener.addr) != 0) {
        std::abort();
    }
    pair.peer = listener.take();
    return pair;
}

inline timeval as_timeval(int ms)
{
    timeval t;
    t.tv_sec = ms / 1000;
    t.tv_usec = ms % 1000 * 1000;
    return t;
}

inline int set_timeout_option(int fd, int name, int ms)
{
    const timeval t = as_timeval(ms);
    return setsockopt(fd, SOL_SOCKET, name, &t, sizeof t);
}

} // namespace support

#endif
