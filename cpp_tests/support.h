// Shared pieces of the behaviour tests: the library's public headers, what no header declares, and
// small helpers. Tests of what the original library does too are written with TEST; tests of what
// only ours does with MENDED, which leaves them out when a peer library is tested (COLIB_PEER).
#ifndef COLIB_CPP_TESTS_SUPPORT_H
#define COLIB_CPP_TESTS_SUPPORT_H

#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "co_routine.h"
#include "co_routine_inner.h"
#include "coctx.h"
#include "co_epoll.h"
#include "co_comm.h"

// Exported functions that programs declare themselves.
stCoRoutine_t *co_create_env(stCoRoutineEnv_t *env, const stCoRoutineAttr_t *attr,
                             void *(*routine)(void *), void *arg);
int co_poll_inner(stCoEpoll_t *ctx, struct pollfd fds[], nfds_t nfds, int timeout_ms,
                  int (*poll_fn)(struct pollfd[], nfds_t, int));
void co_swap(stCoRoutine_t *from, stCoRoutine_t *to);
stCoRoutine_t *GetCurrCo(stCoRoutineEnv_t *env);
int co_accept(int fd, struct sockaddr *addr, socklen_t *len);
extern "C" void coctx_swap(coctx_t *from, coctx_t *to);

#ifdef COLIB_PEER
// Ours alone: declared so that the tests left out still compile; nothing refers to them then.
void co_yield_co(stCoRoutine_t *co);
int co_cond_wait(stCoCond_t *cond, int timeout_ms);
void co_set_log_handler(void (*handler)(const char *message));
int co_set_timeout(int fd, int read_ms, int write_ms);
int co_set_hooks(const char *words);
int co_hook_fd(int fd);
// A template that nobody instantiates: checked by the compiler, absent from the program.
#define MENDED(Suite, name)     \
    template <typename LeftOut> \
    [[maybe_unused]] static void Suite##_##name##_left_out()
#else
#define MENDED(Suite, name) TEST(Suite, name)
#endif

namespace support {

inline long long now_ms()
{
    using namespace std::chrono;
    return duration_cast<milliseconds>(steady_clock::now().time_since_epoch()).count();
}

inline stCoRoutineAttr_t attr(int stack_size, stShareStack_t *share = nullptr)
{
    stCoRoutineAttr_t a;
    a.stack_size = stack_size;
    a.share_stack = share;
    return a;
}

// A coroutine that runs a C++ callable. Releases it at the end of its scope, unless `forget` or
// `release` was called. The callable must outlive the coroutine's last run: it lives in here.
class Co {
public:
    explicit Co(std::function<void()> body, const stCoRoutineAttr_t *at = nullptr)
        : body_(std::move(body))
    {
        if (co_create(&co_, at, &Co::enter, this) != 0) {
            std::abort();
        }
    }
    Co(const Co &) = delete;
    Co &operator=(const Co &) = delete;
    ~Co() { release(); }

    void resume() { co_resume(co_); }
    void reset() { co_reset(co_); }
    void release()
    {
        if (co_ != nullptr) {
            co_release(std::exchange(co_, nullptr));
        }
    }
    stCoRoutine_t *forget() { return std::exchange(co_, nullptr); }
    stCoRoutine_t *get() const { return co_; }
    bool ended() const { return co_->cEnd != 0; }

private:
    static void *enter(void *self)
    {
        static_cast<Co *>(self)->body_();
        return nullptr;
    }

    std::function<void()> body_;
    stCoRoutine_t *co_ = nullptr;
};

// The rounds of the calling thread's loop, as loop_until counts them.
inline thread_local long long rounds_seen = 0;

// Runs the thread's event loop until `done()` holds (true) or `limit_ms` have passed (false).
inline bool loop_until(const std::function<bool()> &done, int limit_ms = 20000)
{
    struct State {
        const std::function<bool()> &done;
        long long deadline;
        bool held;
    } state{done, now_ms() + limit_ms, false};
    co_eventloop(
        co_get_epoll_ct(),
        [](void *p) -> int {
            State *s = static_cast<State *>(p);
            ++rounds_seen;
            s->held = s->done();
            return s->held || now_ms() > s->deadline ? -1 : 0;
        },
        &state);
    return state.held;
}

// Runs the thread's event loop for `rounds` rounds.
inline void loop_rounds(int rounds)
{
    co_eventloop(
        co_get_epoll_ct(), [](void *p) -> int { return --*static_cast<int *>(p) <= 0 ? -1 : 0; },
        &rounds);
}

// Runs `body` on a thread of its own, hence with a fresh environment.
inline void on_thread(const std::function<void()> &body)
{
    std::thread(body).join();
}

// Runs `body` in a forked child and returns its result (0 to 127), or 128 + the signal that ended
// it. A child that hangs is ended after `limit_s`.
inline int in_child(const std::function<int()> &body, unsigned limit_s = 60)
{
    fflush(nullptr);
    const pid_t pid = fork();
    if (pid == 0) {
        signal(SIGALRM, SIG_DFL);
        alarm(limit_s);
        const int result = body();
        fflush(nullptr);
        _exit(result);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

inline int open_descriptors()
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir != nullptr && readdir(dir) != nullptr) {
        ++count;
    }
    if (dir != nullptr) {
        closedir(dir);
    }
    return count - 3; // ".", ".." and the directory itself
}

// A number of /proc/self/status, in KiB ("VmRSS", "VmSize").
inline long status_kib(const char *field)
{
    char line[256];
    long value = -1;
    FILE *file = fopen("/proc/self/status", "re");
    while (file != nullptr && fgets(line, sizeof line, file) != nullptr) {
        if (strncmp(line, field, strlen(field)) == 0) {
            value = atol(line + strlen(field) + 1);
        }
    }
    if (file != nullptr) {
        fclose(file);
    }
    return value;
}

// Resident memory in KiB that `times` calls of `body` leave behind, after as many to warm up.
inline long growth_of(int times, const std::function<void()> &body)
{
    long before = 0;
    for (int round = 0; round < 2; ++round) {
        before = status_kib("VmRSS:");
        for (int i = 0; i < times; ++i) {
            body();
        }
    }
    return status_kib("VmRSS:") - before;
}

// Waits by co_poll for one descriptor to become readable; -1 for `fd` just waits.
inline int poll_one(int fd, int timeout_ms)
{
    struct pollfd p = {fd, POLLIN, 0};
    return co_poll(co_get_epoll_ct(), &p, 1, timeout_ms);
}

// Counts how often its destructor ran.
struct CountsEnds {
    int *ends;
    ~CountsEnds() { ++*ends; }
};

// Lowers the limit of the address space to `spare` bytes above what is in use now.
inline bool leave_address_space(size_t spare)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0) {
        return false;
    }
    limit.rlim_cur = static_cast<rlim_t>(status_kib("VmSize:")) * 1024 + spare;
    return setrlimit(RLIMIT_AS, &limit) == 0;
}

// A pipe closed at the end of the scope.
struct Pipe {
    int rd = -1;
    int wr = -1;
    Pipe()
    {
        int fds[2];
        if (pipe(fds) != 0) {
            std::abort();
        }
        rd = fds[0];
        wr = fds[1];
    }
    Pipe(const Pipe &) = delete;
    Pipe &operator=(const Pipe &) = delete;
    ~Pipe()
    {
        close(rd);
        close(wr);
    }
    void put(char c = 'x') const
    {
        if (::write(wr, &c, 1) != 1) {
            std::abort();
        }
    }
};

} // namespace support

#endif
