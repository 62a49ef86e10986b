// Operations that wait: timers, conditions, mutexes, lookups; and releases of who waits.
#include "soak.h"

#include <algorithm>
#include <cerrno>

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <sys/select.h>
#include <sys/socket.h>

namespace soak {

namespace {

class Timers : public Task {
public:
    using Task::Task;

    void start() override
    {
        const int coroutines = random.between(1, 6);
        for (int i = 0; i < coroutines; ++i) {
            const int rounds = random.between(1, 4);
            const uint64_t seed = random.next();
            go([this, rounds, seed] {
                Random own_random(seed);
                for (int round = 0; round < rounds; ++round) {
                    wait(own_random);
                }
            });
        }
    }

    void finished() override
    {
        if (cond_ != nullptr) {
            MUST(co_cond_free(cond_) == 0, "a condition that nobody waits on to be freed");
            cond_ = nullptr;
        }
    }
    ~Timers() override { co_cond_free(cond_); }

private:
    void wait(Random &choices)
    {
        const int ms = choices.one_in(20) ? choices.between(500, 3000) : choices.between(1, 100);
        const int way = choices.below(5);
        const long long since = now_ns();
        timer_set();
        if (way == 0) {
            at = "co_poll";
            MUST(co_poll(co_get_epoll_ct(), nullptr, 0, ms) == 0, "the time to be over");
        } else if (way == 1) {
            at = "poll";
            MUST(poll(nullptr, 0, ms) == 0, "the time to be over");
        } else if (way == 2) {
            at = "co_cond_wait";
            if (cond_ == nullptr) {
                cond_ = co_cond_alloc();
            }
            const int result = co_cond_wait(cond_, ms);
            MUST(result == ETIMEDOUT, "ETIMEDOUT, got %d", result);
        } else if (way == 3) {
            at = "read with a time-out";
            int fds[2];
            MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0, "a socket pair");
            keep(fds[1]);
            own(fds[0]);
            MUST(co_set_timeout(fds[0], ms, ms) == 0, "a time-out set");
            char byte;
            const ssize_t got = read(fds[0], &byte, 1);
            MUST(got < 0 && errno == EAGAIN, "EAGAIN, got %zd", got);
            close_now(fds[0]);
        } else {
            return sleep_for(choices, since);
        }
        timer_fired(since, ms);
    }

    // With the hooks of these calls off they stop the thread: so shortly.
    void sleep_for(Random &choices, long long since)
    {
        const int ms = choices.between(1, 3);
        if (choices.one_in(2)) {
            at = "nanosleep";
            timespec left = {0, ms * 1000000};
            while (nanosleep(&left, &left) != 0) {
                MUST(errno == EINTR, "EINTR at most");
            }
            return timer_fired(since, ms);
        }
        at = "select";
        timeval time = {0, ms * 1000};
        const int found = select(0, nullptr, nullptr, nullptr, &time);
        MUST(found == 0 || (found < 0 && errno == EINTR), "the time to be over, got %d", found);
        timer_fired(since, found == 0 ? ms : 0);
    }

    stCoCond_t *cond_ = nullptr;
};

// The model: a queue of who waits, and a queue of who has been signalled and not run yet. With time-outs it is weaker:
// whether a signal or the time was first is known to the loop alone, so a signal may be for nobody.
class Condition : public Task {
public:
    using Task::Task;

    void start() override
    {
        cond_ = co_cond_alloc();
        MUST(cond_ != nullptr, "a condition");
        timed_ = random.one_in(3);
        const int waiters = random.between(1, 8);
        left_ = waiters;
        for (int i = 0; i < waiters; ++i) {
            const int rounds = random.between(1, 4);
            go([this, i, rounds] {
                for (int round = 0; round < rounds; ++round) {
                    timed_ ? wait_some_time() : wait_in_turn(i);
                }
                --left_;
            });
        }
        go([this] { signal_until_all_are_done(); });
    }

    void finished() override
    {
        MUST(waiting_.empty() && signalled_.empty() && (timed_ || signals_ == wakes_),
             "%ld wakes, got %ld; %zu wait, %zu lost", signals_, wakes_, waiting_.size(), signalled_.size());
        MUST(co_cond_free(cond_) == 0, "a condition that nobody waits on to be freed");
        cond_ = nullptr;
        if (!timed_) {
            global.totals.signals_sent += signals_;
            global.totals.wakes += wakes_;
        }
    }
    ~Condition() override { co_cond_free(cond_); }

private:
    void signal_until_all_are_done()
    {
        at = "signal";
        while (left_ > 0) {
            if (random.one_in(4)) {
                signalled_.insert(signalled_.end(), waiting_.begin(), waiting_.end());
                signals_ += static_cast<long>(waiting_.size()) + timed_ * left_;
                waiting_.clear();
                co_cond_broadcast(cond_);
            } else {
                if (!waiting_.empty()) {
                    signalled_.push_back(waiting_.front());
                    waiting_.erase(waiting_.begin());
                    ++signals_;
                }
                signals_ += timed_;
                co_cond_signal(cond_);
            }
            if (random.one_in(2)) {
                co_poll(co_get_epoll_ct(), nullptr, 0, random.between(1, 3));
            }
        }
    }

    void wait_in_turn(int self)
    {
        waiting_.push_back(self);
        const int result = co_cond_wait(cond_, -1);
        MUST(result == 0, "a signal, got %d", result);
        MUST(!signalled_.empty() && signalled_.front() == self, "waiter %d, woken %d of %zu",
             signalled_.empty() ? -1 : signalled_.front(), self, signalled_.size());
        signalled_.erase(signalled_.begin());
        ++wakes_;
    }

    void wait_some_time()
    {
        const long long since = now_ns();
        timer_set();
        const int result = co_cond_wait(cond_, 2);
        MUST(result == 0 || result == ETIMEDOUT, "a signal or the time to be over, got %d", result);
        timer_fired(since, result == 0 ? 0 : 2);
        wakes_ += result == 0;
        MUST(wakes_ <= signals_, "a wake for each signal, %ld, got %ld", signals_, wakes_);
    }

    stCoCond_t *cond_ = nullptr;
    bool timed_ = false;
    int left_ = 0;
    long signals_ = 0, wakes_ = 0;
    std::vector<int> waiting_, signalled_;
};

class Mutex : public Task {
public:
    using Task::Task;

    void start() override
    {
        const int coroutines = random.between(2, 6), rounds = random.between(1, 5);
        wanted_ = coroutines * rounds;
        for (int i = 0; i < coroutines; ++i) {
            go([this, rounds] {
                for (int round = 0; round < rounds; ++round) {
                    at = "lock";
                    mutex_.CoLock();
                    MUST(++inside_ == 1, "one inside, got %d", inside_);
                    if (random.one_in(3)) {
                        co_poll(co_get_epoll_ct(), nullptr, 0, 1);
                    }
                    ++done_;
                    --inside_;
                    mutex_.CoUnLock();
                }
            });
        }
    }

    void finished() override { MUST(done_ == wanted_, "%d turns, got %d", wanted_, done_); }

private:
    clsCoMutex mutex_;
    int inside_ = 0, done_ = 0, wanted_ = 0;
};

class Lookup : public Task {
public:
    using Task::Task;

    void start() override
    {
        const int coroutines = random.between(1, 3);
        for (int i = 0; i < coroutines; ++i) {
            const int way = random.below(3);
            const char *name = global.localhost && random.one_in(2) ? "localhost" : "127.0.0.1";
            go([this, way, name] { way == 0 ? by_addrinfo(name) : by_host(name, way == 1); }, StackKind::Large);
        }
    }

private:
    void by_addrinfo(const char *name)
    {
        at = "getaddrinfo";
        addrinfo hints = {};
        hints.ai_family = AF_INET;
        hints.ai_socktype = SOCK_STREAM;
        addrinfo *found = nullptr;
        const int result = getaddrinfo(name, "80", &hints, &found);
        MUST(result == 0 && found != nullptr, "%s to be found, got %d", name, result);
        const sockaddr_in *address = reinterpret_cast<sockaddr_in *>(found->ai_addr);
        const uint32_t number = ntohl(address->sin_addr.s_addr);
        const int port = ntohs(address->sin_port);
        freeaddrinfo(found);
        MUST(number == INADDR_LOOPBACK && port == 80, "127.0.0.1:80, got %08x:%d", number, port);
    }

    void by_host(const char *name, bool into_buffer)
    {
        at = "gethostbyname";
        hostent entry = {};
        char buffer[2048];
        int error = 0;
        hostent *found = nullptr;
        if (into_buffer) {
            gethostbyname_r(name, &entry, buffer, sizeof buffer, &found, &error);
        } else {
            found = gethostbyname(name);
        }
        MUST(found != nullptr && found->h_addrtype == AF_INET && found->h_addr_list[0] != nullptr, "%s to be found", name);
        uint32_t number;
        memcpy(&number, found->h_addr_list[0], sizeof number);
        MUST(ntohl(number) == INADDR_LOOPBACK, "127.0.0.1, got %08x", ntohl(number));
    }
};

// Coroutines in waits that nothing ends but their release; one is resumed by hand, too.
class Release : public Task {
public:
    using Task::Task;

    void start() override
    {
        cond_ = co_cond_alloc();
        int fds[2];
        MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0, "a socket pair");
        silent_ = own(fds[0]);
        keep(fds[1]);
        const int coroutines = random.between(1, 6);
        end_ns_ = now_ns() + random.between(1, 200) * 1000000LL;
        for (int i = 0; i < coroutines; ++i) {
            const int way = random.below(5);
            stCoRoutine_t *co = go([this, way] {
                wait_for_ever(way);
                MUST(by_hand_, "to be woken by hand alone, woken in wait %d", way);
            });
            if (way != 4 && random.one_in(6)) {
                by_hand_ = true;
                co_resume(co);
                by_hand_ = false;
            }
        }
    }

    bool ended() const override { return now_ns() >= end_ns_; }
    ~Release() override { co_cond_free(cond_); }

private:
    void wait_for_ever(int way)
    {
        at = "wait for ever";
        pollfd p = {silent_, POLLIN, 0};
        char byte;
        if (way == 0) {
            co_poll(co_get_epoll_ct(), &p, 1, -1);
        } else if (way == 1) {
            co_poll(co_get_epoll_ct(), &p, 1, 1000000);
        } else if (way == 2) {
            co_cond_timedwait(cond_, -1);
        } else if (way == 3) {
            co_yield_ct();
        } else {
            const ssize_t got = read(silent_, &byte, 1);
            MUST(by_hand_, "no end of a read, got %zd", got);
        }
    }

    stCoCond_t *cond_ = nullptr;
    int silent_ = -1;
    long long end_ns_ = 0;
    bool by_hand_ = false;
};

} // namespace

std::unique_ptr<Task> make_waits(Slot &slot, const Step &step)
{
    switch (step.kind) {
    case Kind::Timers:
        return std::unique_ptr<Task>(new Timers(slot, step));
    case Kind::Condition:
        return std::unique_ptr<Task>(new Condition(slot, step));
    case Kind::Mutex:
        return std::unique_ptr<Task>(new Mutex(slot, step));
    case Kind::Lookup:
        return std::unique_ptr<Task>(new Lookup(slot, step));
    default:
        return std::unique_ptr<Task>(new Release(slot, step));
    }
}

} // namespace soak
