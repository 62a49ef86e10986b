// Operations of the process: children of fork, signals, the choice of hooks.
#include "soak.h"

#include <cerrno>
#include <cstdlib>

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace soak {

namespace {

const int kSignal = SIGUSR1;
thread_local Slot *signalled_slot = nullptr;

// What a handler may do, on whatever stack it runs: asks who runs, signals a condition, writes, closes.
void handle(int)
{
    const int kept = errno;
    Slot *slot = signalled_slot;
    const int fd = slot == nullptr ? -1 : slot->tick_pipe.load(std::memory_order_relaxed);
    if (fd >= 0) {
        ++global.totals.unix_signals;
        co_self();
        if (write(fd, "s", 1) == 1) {
            slot->tick_bytes.fetch_add(1, std::memory_order_relaxed);
        }
        const int copy = dup(fd);
        if (copy >= 0) {
            close(copy);
        }
        co_cond_signal(slot->tick.load(std::memory_order_relaxed));
    }
    errno = kept;
}

// A signal of a thread's own can be put off for a while.
class Blocked {
public:
    Blocked()
    {
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, kSignal);
        pthread_sigmask(SIG_BLOCK, &one, &old_);
    }
    ~Blocked() { pthread_sigmask(SIG_SETMASK, &old_, nullptr); }

private:
    sigset_t old_;
};

// Counts what the signal handler says: every byte that it wrote arrives.
class Ticks : public Task {
public:
    using Task::Task;

    void start() override
    {
        may_be_released = false;
        at = "wait for signals";
        cond_ = co_cond_alloc();
        int fds[2];
        MUST(pipe2(fds, O_NONBLOCK) == 0, "a pipe");
        in_ = keep(fds[0]);
        keep(fds[1]);
        slot.tick_bytes = 0;
        slot.tick = cond_;
        slot.tick_pipe = fds[1];
        go([this] {
            while (!slot.ending) {
                take();
                co_cond_timedwait(cond_, 100);
            }
            // (The handler is not called while it is told to stop.)
            {
                const Blocked blocked;
                slot.tick_pipe = -1;
                slot.tick = nullptr;
            }
            take();
            MUST(got_ == slot.tick_bytes, "%ld bytes from the signal handler, got %ld", slot.tick_bytes.load(), got_);
        });
    }

    // It lasts as long as its thread.
    bool overdue(long long now) const override { return slot.ending && Task::overdue(now); }
    ~Ticks() override { co_cond_free(cond_); }

private:
    void take()
    {
        char bytes[64];
        ssize_t n;
        while ((n = read(in_, bytes, sizeof bytes)) > 0) {
            got_ += n;
        }
        MUST(n < 0 && errno == EAGAIN, "EAGAIN, got %zd", n);
    }

    stCoCond_t *cond_ = nullptr;
    int in_ = -1;
    long got_ = 0;
};

// A child gives up all that is in flight, does operations of its own, and says by its status that all was well.
class Fork : public Task {
public:
    using Task::Task;

    void start() override
    {
        may_be_released = false;
        if (global.totals.children.fetch_add(1) >= 2) { // enough at a time
            --global.totals.children;
            return;
        }
        go([this] { fork_and_wait(); }, StackKind::LargePrivate);
    }

    bool can_go() override
    {
        int status = 0;
        if (pid_ > 0 && waitpid(pid_, &status, WNOHANG) == pid_) {
            pid_ = -1;
            check(status);
        }
        return pid_ <= 0;
    }

private:
    void fork_and_wait()
    {
        at = "fork";
        pid_t pid;
        {
            const Blocked blocked;
            pid = fork();
            if (pid == 0) {
                // The handler's pipe is the parent's; the timer is not inherited.
                slot.tick_pipe = -1;
                slot.tick = nullptr;
            }
        }
        if (pid == 0) {
            signal(SIGALRM, SIG_DFL);
            alarm(50);
            slot.in_child_of_fork(this, random.next(), random.between(1, 20));
            _exit(0);
        }
        MUST(pid > 0, "a child");
        pid_ = pid;
        at = "wait for a child";
        int status = 0;
        pid_t got;
        while ((got = waitpid(pid, &status, WNOHANG)) == 0) {
            co_poll(co_get_epoll_ct(), nullptr, 0, 5);
        }
        MUST(got == pid, "the child %d, got %d", pid, got);
        pid_ = -1;
        check(status);
    }

    void check(int status)
    {
        --global.totals.children;
        MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child that found all well, status %x", status);
    }

    pid_t pid_ = -1;
};

class HookChoice : public Task {
public:
    using Task::Task;

    void start() override
    {
        // Never without what waits on descriptors: those calls would stop a thread whose other coroutines they wait for.
        const char *words[] = {"all", "all,-sleep,-usleep", "all,-nanosleep", "all,-select,-accept",
                               "all,-getaddrinfo", "all"};
        MUST(co_set_hooks(words[random.below(6)]) == 0, "a choice of hooks");
    }
};

} // namespace

void prepare_signals()
{
    struct sigaction action = {};
    action.sa_handler = &handle;
    action.sa_flags = SA_RESTART | SA_ONSTACK;
    sigaction(kSignal, &action, nullptr);
    signal(SIGPIPE, SIG_IGN);
}

Ticker::Ticker(Slot &slot, Random &random) : timer(nullptr)
{
    signalled_slot = &slot;
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = kSignal;
    event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
    const long micros = random.one_in(4) ? random.between(100, 1000) : random.between(1000, 50000);
    itimerspec time = {};
    time.it_value.tv_nsec = time.it_interval.tv_nsec = micros * 1000;
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0 || timer_settime(timer, 0, &time, nullptr) != 0) {
        fail_at(Step{Kind::Ticks, slot.index, slot.life, 0, 0}, "timer_create", "expected a timer, errno %d", errno);
    }
}

Ticker::~Ticker()
{
    timer_delete(timer);
    const Blocked blocked;
    if (signalled_slot != nullptr) {
        signalled_slot->tick_pipe = -1;
        signalled_slot->tick = nullptr;
    }
    signalled_slot = nullptr;
}

std::unique_ptr<Task> make_process(Slot &slot, const Step &step)
{
    switch (step.kind) {
    case Kind::Ticks:
        return std::unique_ptr<Task>(new Ticks(slot, step));
    case Kind::Fork:
        return std::unique_ptr<Task>(new Fork(slot, step));
    default:
        return std::unique_ptr<Task>(new HookChoice(slot, step));
    }
}

} // namespace soak
