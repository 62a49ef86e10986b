// Pieces that the tests of the added hooks share: choosing them, many coroutines in one call, signals.
#ifndef COLIB_CPP_TESTS_ADDED_HOOKS_H
#define COLIB_CPP_TESTS_ADDED_HOOKS_H

#include "loop_support.h"

#ifdef COLIB_PEER
// Ours alone: see support.h.
int co_set_hooks(const char *words);
int co_hook_fd(int fd);
#endif

namespace support {

// Chooses hooks until the end of the scope.
struct Chosen {
    explicit Chosen(const char *words)
    {
        if (choose(words) != 0) {
            std::abort();
        }
    }
    ~Chosen() { choose("default"); }
    Chosen(const Chosen &) = delete;
    Chosen &operator=(const Chosen &) = delete;

private:
    static int choose(const char *words)
    {
#ifdef COLIB_PEER
        (void)words;
        return 0;
#else
        return co_set_hooks(words);
#endif
    }
};

// Forty coroutines of one thread are in `call` at once, which lasts at least `ms` in each: all take less
// than a second longer.
inline void expect_forty_wait_at_once(const std::function<void()> &call, int ms = 100)
{
    on_thread([&] {
        Group group;
        int done = 0;
        const long long start = now_ms();
        for (int i = 0; i < 40; ++i) {
            group.go_hooked([&] {
                const long long begin = now_ns();
                call();
                EXPECT_GE(now_ns() - begin, ms * 1000000LL) << "early";
                ++done;
            });
        }
        EXPECT_EQ(0, done);
        ASSERT_TRUE(group.run());
        EXPECT_EQ(40, done);
        EXPECT_LT(now_ms() - start, ms + 900);
    });
}

// A hooked coroutine in `call` stops its thread: it is back before its resume is.
inline void expect_blocks(const std::function<void()> &call)
{
    on_thread([&] {
        Co co([&] {
            co_enable_hook_sys();
            call();
        });
        co.resume();
        EXPECT_TRUE(co.ended()) << "it let others run";
        if (!co.ended()) {
            loop_until([&] { return co.ended(); });
        }
    });
}

// How often the handler of `HandlerFor` has run.
inline std::atomic<int> handled{0};

// A handler for a signal until the end of the scope. Calls are not restarted.
class HandlerFor {
public:
    explicit HandlerFor(int signal) : signal_(signal)
    {
        struct sigaction ours = {};
        ours.sa_handler = [](int) { ++handled; };
        sigaction(signal, &ours, &old_);
        handled = 0;
    }
    ~HandlerFor() { sigaction(signal_, &old_, nullptr); }
    HandlerFor(const HandlerFor &) = delete;
    HandlerFor &operator=(const HandlerFor &) = delete;

private:
    int signal_;
    struct sigaction old_ = {};
};

// Sends the calling thread a signal again and again, from another thread, until the end of the scope: so
// one comes while the thread sleeps in the loop.
class Nuisance {
public:
    explicit Nuisance(int signal, int every_ms = 5)
        : thread_([this, signal, every_ms, target = pthread_self()] {
              while (!stop_) {
                  pthread_kill(target, signal);
                  usleep_raw(every_ms);
              }
          })
    {
    }
    ~Nuisance()
    {
        stop_ = true;
        thread_.join();
    }
    Nuisance(const Nuisance &) = delete;
    Nuisance &operator=(const Nuisance &) = delete;

private:
    static void usleep_raw(int ms)
    {
        timespec t = {0, ms * 1000000L};
        syscall(SYS_nanosleep, &t, nullptr);
    }
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

// Blocks a signal in the calling thread until the end of the scope.
class BlockedSignal {
public:
    explicit BlockedSignal(int signal)
    {
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, signal);
        pthread_sigmask(SIG_BLOCK, &one, &old_);
    }
    ~BlockedSignal() { pthread_sigmask(SIG_SETMASK, &old_, nullptr); }
    BlockedSignal(const BlockedSignal &) = delete;
    BlockedSignal &operator=(const BlockedSignal &) = delete;

private:
    sigset_t old_;
};

inline bool is_blocked(int signal)
{
    sigset_t now;
    pthread_sigmask(SIG_BLOCK, nullptr, &now);
    return sigismember(&now, signal) == 1;
}

inline sigset_t no_signals()
{
    sigset_t set;
    sigemptyset(&set);
    return set;
}

inline timespec as_timespec(long long ns)
{
    timespec t;
    t.tv_sec = ns / 1000000000;
    t.tv_nsec = ns % 1000000000;
    return t;
}

// xorshift: the same numbers in every run.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}
    unsigned below(unsigned limit)
    {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 7;
        state_ ^= state_ << 17;
        return static_cast<unsigned>((state_ >> 20) % limit);
    }

private:
    uint64_t state_;
};

} // namespace support

#endif
