// What tests/gdb.sh looks at with gdb: a coroutine in every state, on private stacks and on one copy stack, in two
// threads. Stops in stop_here, inside a coroutine; with the argument "abort" it aborts there, with "throw" an
// exception leaves a coroutine's routine.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <thread>

#include <poll.h>
#include <unistd.h>

#include "co_routine.h"

#define KEEP __attribute__((noinline, noclone))

static const char *what_to_do = "stop";
static int first_pipe[2], second_pipe[2];
static stCoCond_t *condition;

extern "C" KEEP void stop_here(int level)
{
    asm volatile("" : : "r"(level) : "memory");
    if (strcmp(what_to_do, "abort") == 0) abort();
    if (strcmp(what_to_do, "throw") == 0) throw std::runtime_error("nobody catches this");
}

KEEP static void wait_for_events(int count, int timeout_ms)
{
    struct pollfd fds[2] = {{first_pipe[0], POLLIN, 0}, {second_pipe[1], POLLOUT | POLLIN, 0}};
    if (count == 2) fds[1].fd = second_pipe[0];
    int ready = co_poll(co_get_epoll_ct(), fds, static_cast<nfds_t>(count), timeout_ms);
    asm volatile("" : : "r"(ready), "r"(fds) : "memory");
}

static void *read_request(void *) { // one descriptor, no limit
    wait_for_events(1, -1);
    return nullptr;
}

static void *sleep_long(void *) { // time alone
    wait_for_events(0, 600000);
    return nullptr;
}

static void *read_either(void *) { // two descriptors and a limit
    wait_for_events(2, 900000);
    return nullptr;
}

static void *wait_for_signal(void *)
{
    co_cond_timedwait(condition, -1);
    asm volatile("" ::: "memory");
    return nullptr;
}

KEEP static int yield_deep(int depth)
{
    volatile int local = depth * 1000;
    if (depth == 0) {
        co_yield_ct();
    } else {
        yield_deep(depth - 1);
    }
    return local;
}

static void *yield_simply(void *)
{
    yield_deep(2);
    return nullptr;
}

static void *copied_out(void *arg)
{
    volatile long secret = 4711 + reinterpret_cast<long>(arg);
    if (yield_deep(3) != 3000 || secret != 4711 + reinterpret_cast<long>(arg)) abort();
    return nullptr;
}

static void *occupies(void *)
{
    if (yield_deep(1) != 1000) abort();
    return nullptr;
}

static void *never_runs(void *) { return nullptr; }

static void *ends_at_once(void *) { return nullptr; }

static void *runs(void *)
{
    stop_here(1);
    asm volatile("" ::: "memory");
    return nullptr;
}

static void *resumes_another(void *arg)
{
    co_resume(static_cast<stCoRoutine_t *>(arg));
    asm volatile("" ::: "memory");
    return nullptr;
}

static stCoRoutine_t *start(void *(*routine)(void *), void *arg = nullptr, stCoRoutineAttr_t *attr = nullptr)
{
    stCoRoutine_t *co = nullptr;
    if (co_create(&co, attr, routine, arg) != 0) abort();
    co_resume(co);
    return co;
}

static void in_another_thread(std::atomic<bool> &waits)
{
    start(sleep_long);
    waits.store(true);
    co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
}

int main(int argc, char **argv)
{
    if (argc > 1) what_to_do = argv[1];
    if (pipe(first_pipe) != 0 || pipe(second_pipe) != 0) return 1;
    condition = co_cond_alloc();

    std::atomic<bool> waits{false};
    std::thread([&waits] { in_another_thread(waits); }).detach();
    while (!waits.load()) usleep(1000);

    start(read_request);
    start(sleep_long);
    start(read_either);
    start(wait_for_signal);
    start(yield_simply);
    stCoRoutineAttr_t shared;
    shared.stack_size = 64 * 1024;
    shared.share_stack = co_alloc_sharestack(1, 64 * 1024);
    stCoRoutine_t *on_one_stack[] = {start(copied_out, reinterpret_cast<void *>(1), &shared),
                                     start(copied_out, reinterpret_cast<void *>(2), &shared),
                                     start(occupies, nullptr, &shared)};
    start(ends_at_once);
    // Released: kept for the next, and no coroutine any more.
    co_release(start(ends_at_once));

    stCoRoutine_t *never = nullptr, *running = nullptr;
    if (co_create(&never, nullptr, never_runs, nullptr) != 0) return 1;
    if (co_create(&running, nullptr, runs, nullptr) != 0) return 1;
    start(resumes_another, running);
    // What a debugger may have put in place for a look is as it was.
    for (stCoRoutine_t *co : {on_one_stack[2], on_one_stack[0], on_one_stack[1]}) co_resume(co);
    puts("all went on");
    fflush(stdout);
    _exit(0);
}
