// Operations between two threads: bytes, signals of conditions, releases. Either thread's life may end meanwhile.
#include "soak.h"

#include <cerrno>

#include <poll.h>
#include <sys/socket.h>

namespace soak {

namespace {

// What the two sides of an echo know of each other.
struct Link {
    std::atomic<bool> cut{false}; // one side was given up: the other sees an end of file, or an error, early
};

// Sends back what it gets. Lives in the other thread.
class Serve : public Task {
public:
    Serve(Slot &home, const Step &from, std::shared_ptr<Link> link, int fd)
        : Task(home, from), link_(std::move(link)), fd_(fd)
    {
    }

    void start() override
    {
        own(fd_);
        go([this] {
            at = "serve";
            char bytes[4096];
            for (;;) {
                const ssize_t got = read(fd_, bytes, sizeof bytes);
                if (got < 0 && errno == EINTR) {
                    continue;
                }
                MUST(got >= 0 || link_->cut, "bytes or the end, got %zd", got);
                if (got <= 0) {
                    break;
                }
                for (ssize_t done = 0; done < got;) {
                    const ssize_t wrote = send(fd_, bytes + done, static_cast<size_t>(got - done), MSG_NOSIGNAL);
                    if (wrote < 0 && errno == EINTR) {
                        continue;
                    }
                    MUST(wrote > 0 || link_->cut, "bytes written, got %zd", wrote);
                    if (wrote <= 0) {
                        return;
                    }
                    done += wrote;
                }
            }
            // (Given up by the client: its end of file may come in the middle, and is no error.)
            MUST(shutdown(fd_, SHUT_WR) == 0 || link_->cut, "to shut down");
        });
    }

    void given_up() override { link_->cut = true; }

private:
    std::shared_ptr<Link> link_;
    int fd_;
};

class EchoAcross : public Task {
public:
    using Task::Task;

    void start() override
    {
        int fds[2];
        MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0, "a socket pair");
        fd_ = own(fds[0]);
        total_ = random.between(1, 50000);
        const int there = fds[1];
        const Step their = {Kind::Serve, step.slot, step.life, step.number, random.next()};
        const std::shared_ptr<Link> link = link_;
        slot.another(random).post([their, link, there](Slot &other) {
            other.take(std::unique_ptr<Task>(new Serve(other, their, link, there)));
        });
        go([this] { send_all(); });
        go([this] { receive_all(); });
    }

    void given_up() override { link_->cut = true; }

    void finished() override
    {
        if (!link_->cut) {
            MUST(sent_ == total_ && received_ == total_, "%ld bytes, sent %ld, got %ld", total_, sent_, received_);
            global.totals.bytes_sent += sent_;
            global.totals.bytes_received += received_;
        }
        MUST(received_ <= sent_, "no more bytes than were sent, %ld, got %ld", sent_, received_);
    }

private:
    void send_all()
    {
        at = "send to another thread";
        uint8_t bytes[3000];
        while (sent_ < total_) {
            const long n = std::min<long>(total_ - sent_, sizeof bytes);
            for (long i = 0; i < n; ++i) {
                bytes[i] = byte_at(step.seed, sent_ + i);
            }
            for (long done = 0; done < n;) {
                const ssize_t wrote = send(fd_, bytes + done, static_cast<size_t>(n - done), MSG_NOSIGNAL);
                if (wrote < 0 && errno == EINTR) {
                    continue;
                }
                MUST(wrote > 0 || link_->cut, "bytes sent, got %zd after %ld", wrote, sent_);
                if (wrote <= 0) {
                    return;
                }
                done += wrote;
                sent_ += wrote;
            }
        }
        shutdown(fd_, SHUT_WR);
    }

    void receive_all()
    {
        uint8_t bytes[3000];
        for (;;) {
            const ssize_t got = recv(fd_, bytes, sizeof bytes, 0);
            if (got < 0 && errno == EINTR) {
                continue;
            }
            MUST(got >= 0 || link_->cut, "bytes or the end, got %zd after %ld", got, received_);
            if (got <= 0) {
                break;
            }
            for (ssize_t i = 0; i < got; ++i) {
                const uint8_t wanted = byte_at(step.seed, received_ + i);
                MUST(bytes[i] == wanted, "%02x at byte %ld, got %02x", wanted, static_cast<long>(received_ + i), bytes[i]);
            }
            received_ += got;
        }
        MUST(received_ == total_ || link_->cut, "%ld bytes, got %ld", total_, received_);
        at = "received to the end";
    }

    std::shared_ptr<Link> link_ = std::make_shared<Link>();
    int fd_ = -1;
    long total_ = 0, sent_ = 0, received_ = 0;
};

// A condition that both threads have: who lets go of it last frees it.
struct Shared {
    stCoCond_t *cond = co_cond_alloc();
    std::atomic<int> signalled{0};
    ~Shared() { co_cond_free(cond); }
};

class SignalAcross : public Task {
public:
    using Task::Task;

    void start() override
    {
        waiters_ = random.between(1, 5);
        for (int i = 0; i < waiters_; ++i) {
            go([this] {
                at = "wait for another thread's signal";
                const int result = co_cond_wait(shared_->cond, -1);
                MUST(result == 0 && woken_ < shared_->signalled, "one of %d signals, got %d after %d wakes",
                     shared_->signalled.load(), result, woken_);
                ++woken_;
            });
        }
        const int waiters = waiters_;
        const bool at_once = random.one_in(2);
        const std::shared_ptr<Shared> shared = shared_;
        slot.another(random).post([shared, waiters, at_once](Slot &) {
            shared->signalled += waiters;
            if (at_once) {
                co_cond_broadcast(shared->cond);
            } else {
                for (int i = 0; i < waiters; ++i) {
                    co_cond_signal(shared->cond);
                }
            }
        });
    }

    void finished() override
    {
        MUST(woken_ == waiters_, "%d wakes, got %d", waiters_, woken_);
        global.totals.signals_sent += waiters_;
        global.totals.wakes += woken_;
    }

private:
    std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
    int waiters_ = 0, woken_ = 0;
};

// Coroutines that another thread releases while they wait, and while their own thread may be waking them.
struct Doomed {
    stCoRoutine_t *co = nullptr;
    stCoCond_t *cond = co_cond_alloc();
    int fds[2] = {-1, -1};
    int way = 0;
    Step step = {};
    std::atomic<bool> released{false};
    bool forbidden = false; // its own thread has seen that it is released

    ~Doomed()
    {
        co_cond_free(cond);
        for (const int fd : fds) {
            if (fd >= 0) {
                close(fd);
            }
        }
    }
};

class ReleaseAcross : public Task {
public:
    using Task::Task;

    void start() override
    {
        may_be_released = false; // the coroutine is not this operation's
        at = "wait to be released by another thread";
        Doomed &doomed = *doomed_;
        doomed.step = step;
        doomed.way = random.below(4);
        MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, doomed.fds) == 0, "a socket pair");
        MUST(co_hook_fd(doomed.fds[0]) == 0 && co_set_timeout(doomed.fds[0], -1, -1) == 0, "a known descriptor");
        stCoRoutineAttr_t attr;
        // (A copy stack takes no coroutine of the next life while it has one of this.)
        attr.stack_size = random.between(32, 256) * 1024;
        MUST(co_create(&doomed.co, &attr, &ReleaseAcross::enter, doomed_.get()) == 0, "a coroutine");
        ++global.totals.coroutines;
        co_resume(doomed.co);
        const std::shared_ptr<Doomed> box = doomed_;
        slot.another(random).post([box](Slot &) {
            co_release(box->co);
            ++global.totals.coroutines_released;
            box->released = true;
        });
        if (random.one_in(3)) {
            // Wakes it at about the same time.
            const int ms = random.below(3);
            go([this, ms] {
                co_poll(co_get_epoll_ct(), nullptr, 0, ms);
                doomed_->way < 2 ? (void)!write(doomed_->fds[1], "x", 1) : (void)co_cond_signal(doomed_->cond);
            });
        }
    }

    bool ended() const override
    {
        if (!doomed_->released || !Task::ended()) {
            return false;
        }
        // Its thread takes it off its wait in the next round, and it must not run before that either.
        doomed_->forbidden = true;
        return ++rounds_ > 2;
    }

private:
    static void *enter(void *argument)
    {
        Doomed *doomed = static_cast<Doomed *>(argument);
        co_enable_hook_sys();
        for (;;) {
            pollfd p = {doomed->fds[0], POLLIN, 0};
            char byte;
            if (doomed->way == 0) {
                co_poll(co_get_epoll_ct(), &p, 1, -1);
            } else if (doomed->way == 1) {
                (void)!read(doomed->fds[0], &byte, 1);
            } else if (doomed->way == 2) {
                co_cond_timedwait(doomed->cond, -1);
            } else {
                co_cond_timedwait(doomed->cond, 2);
            }
            if (doomed->forbidden) {
                fail_at(doomed->step, "released by another thread", "expected not to run any more");
            }
            if (doomed->way == 0) {
                co_poll(co_get_epoll_ct(), nullptr, 0, 1);
            }
        }
    }

    std::shared_ptr<Doomed> doomed_ = std::make_shared<Doomed>();
    mutable int rounds_ = 0;
};

} // namespace

std::unique_ptr<Task> make_across(Slot &slot, const Step &step)
{
    switch (step.kind) {
    case Kind::EchoAcross:
        return std::unique_ptr<Task>(new EchoAcross(slot, step));
    case Kind::SignalAcross:
        return std::unique_ptr<Task>(new SignalAcross(slot, step));
    default:
        return std::unique_ptr<Task>(new ReleaseAcross(slot, step));
    }
}

} // namespace soak
