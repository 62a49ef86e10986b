// Pieces that the tests of the added hooks share. What they test is ours alone.
#ifndef COLIB_CPP_TESTS_ADDED_SUPPORT_H
#define COLIB_CPP_TESTS_ADDED_SUPPORT_H

#include "loop_support.h"

#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

namespace support {

// Chooses hooks for the scope.
struct Chosen {
    explicit Chosen(const char *words) { EXPECT_EQ(0, co_set_hooks(words)); }
    Chosen(const Chosen &) = delete;
    Chosen &operator=(const Chosen &) = delete;
    ~Chosen() { co_set_hooks("default"); }
};

// What the running test has reported so far.
inline int reports() { return testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count(); }

// Runs `body` in a child: one that stops the whole thread for ever fails after `limit_s`.
inline void bounded(const std::function<void()> &body, unsigned limit_s = 20)
{
    const int before = reports();
    const int ended = in_child(
        [&] {
            body();
            return reports() > before ? 1 : 0;
        },
        limit_s);
    EXPECT_EQ(0, ended) << "(128 + SIGALRM: a call stopped the thread)";
}

// The same, as a coroutine with hooks on, and these chosen.
inline void with_hooks(const char *words, const std::function<void()> &body)
{
    bounded([&] {
        Chosen chosen(words);
        in_hooked_coroutine(body);
    });
}

// Something in which a coroutine blocks until `release`.
struct Blocking {
    std::function<void()> call, release;
};

// 40 coroutines of one thread, each blocked 100 ms in what `make` made there, with hooks on.
inline void forty_at_once(const char *words, const std::function<Blocking()> &make)
{
    bounded([&] {
        Chosen chosen(words);
        on_thread([&] {
            Group group;
            int done = 0;
            const long long start = now_ms();
            for (int i = 0; i < 40; ++i) {
                group.go_hooked([&] {
                    const Blocking it = make();
                    group.go([release = it.release] {
                        nap(100);
                        release();
                    });
                    const long long begin = now_ms();
                    it.call();
                    EXPECT_GE(now_ms() - begin, 95) << "it did not block";
                    ++done;
                });
            }
            EXPECT_TRUE(group.run());
            EXPECT_EQ(40, done);
            EXPECT_LT(now_ms() - start, 1000) << "one after the other";
        });
    });
}

// Expects that the call fails with this error, and at once.
inline void fails_with(int error, const char *what, const std::function<ssize_t()> &call)
{
    const long long start = now_ms();
    errno = 0;
    EXPECT_EQ(-1, call()) << what;
    EXPECT_EQ(error, errno) << what << ": " << strerror(errno);
    EXPECT_LT(now_ms() - start, 500) << what << " waited";
}

// Expects that the call fails with EAGAIN after about `ms`.
inline void times_out(int ms, const char *what, const std::function<ssize_t()> &call)
{
    const long long start = now_ms();
    errno = 0;
    EXPECT_EQ(-1, call()) << what;
    EXPECT_EQ(EAGAIN, errno) << what << ": " << strerror(errno);
    EXPECT_GE(now_ms() - start, ms - 1) << what;
    EXPECT_LT(now_ms() - start, ms + 400) << what;
}

#define FAILS(error, call) fails_with(error, #call, [&]() -> ssize_t { return call; })
#define TIMES_OUT(ms, call) times_out(ms, #call, [&]() -> ssize_t { return call; })

// The same value, and the compiler does not know it.
template <typename T> T hidden(T value)
{
    asm volatile("" : "+r"(value));
    return value;
}

// An address that nobody may read or write.
template <typename T = void> T *nowhere() { return hidden(reinterpret_cast<T *>(16)); }

inline bool is_nonblocking(int fd) { return (raw_flags(fd) & O_NONBLOCK) != 0; }

// As much as goes in without waiting; the file's mode is as before.
inline size_t fill(int fd, size_t chunk = 4096)
{
    const int flags = raw_flags(fd);
    const std::string bytes(chunk, 'f');
    size_t total = 0;
    raw_nonblock(fd);
    ssize_t n;
    while ((n = raw_write(fd, bytes.data(), bytes.size())) > 0) {
        total += n;
    }
    syscall(SYS_fcntl, fd, F_SETFL, flags);
    return total;
}

// Takes out what is there; the file's mode is as before.
inline size_t drain(int fd)
{
    const int flags = raw_flags(fd);
    char bytes[65536];
    size_t total = 0;
    raw_nonblock(fd);
    ssize_t n;
    while ((n = raw_read(fd, bytes, sizeof bytes)) > 0) {
        total += n;
    }
    syscall(SYS_fcntl, fd, F_SETFL, flags);
    return total;
}

// Two descriptors that are closed, through the hook, at the end of the scope.
struct Two {
    int a = -1, b = -1;
    Two() = default;
    Two(const Two &) = delete;
    Two &operator=(const Two &) = delete;
    ~Two()
    {
        close(a);
        close(b);
    }
    int *both() { return &a; }
};
static_assert(offsetof(Two, b) == sizeof(int), "an array of two");

inline std::shared_ptr<Two> made_socketpair(int type = SOCK_STREAM)
{
    auto two = std::make_shared<Two>();
    EXPECT_EQ(0, socketpair(AF_UNIX, type, 0, two->both()));
    return two;
}

inline std::shared_ptr<Two> made_pipe()
{
    auto two = std::make_shared<Two>();
    EXPECT_EQ(0, pipe(two->both()));
    return two;
}

// A hooked listener on a free loopback port.
struct HookedListener {
    int fd;
    sockaddr_in addr = {};

    HookedListener() : fd(socket(AF_INET, SOCK_STREAM, 0))
    {
        addr.sin_family = AF_INET;
        addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof addr;
        if (bind(fd, generic(), sizeof addr) != 0 || listen(fd, 256) != 0 ||
            getsockname(fd, generic(), &size) != 0) {
            std::abort();
        }
    }
    HookedListener(const HookedListener &) = delete;
    HookedListener &operator=(const HookedListener &) = delete;
    ~HookedListener() { close(fd); }
    sockaddr *generic() { return reinterpret_cast<sockaddr *>(&addr); }
    // A client, past the hooks.
    Fd client()
    {
        Fd made(raw_socket(AF_INET, SOCK_STREAM));
        if (syscall(SYS_connect, made.get(), generic(), sizeof addr) != 0) {
            std::abort();
        }
        return made;
    }
};

// A file in memory with these bytes.
inline Fd file_of(const std::string &bytes)
{
    Fd file(static_cast<int>(syscall(SYS_memfd_create, "colib-test", 0)));
    if (raw_write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) {
        std::abort();
    }
    lseek(file, 0, SEEK_SET);
    return file;
}

// Bytes that differ from place to place.
inline std::string pattern_of(size_t size)
{
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) {
        bytes[i] = static_cast<char>(i * 7 + i / 251);
    }
    return bytes;
}

// A thread that takes all from `fd`, past the hooks, until the end.
class Taker {
public:
    explicit Taker(int fd, int delay_ms = 0)
        : thread_([this, fd, delay_ms] {
              std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
              char buf[4096];
              ssize_t n;
              while ((n = raw_read(fd, buf, sizeof buf)) > 0) {
                  bytes_.append(buf, n);
              }
          })
    {
    }
    // All that came; the writing end must be closed by now.
    const std::string &bytes()
    {
        thread_.join();
        return bytes_;
    }

private:
    std::string bytes_;
    std::thread thread_;
};

} // namespace support

#endif
