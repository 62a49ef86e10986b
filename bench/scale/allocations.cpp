// Counts what the library asks of the C heap and maps from the kernel while coroutines do what they do all
// day: none of it may.
//
//   allocations
//
// Each kind of work is done once by all its coroutines first (buffers, registrations and the loop are made
// then), and counted from there on. Figures are calls of malloc and its kin plus mmap, per 1000 operations.
#include "scale.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "counted.h"

#include "co_routine.h"

enum { COROUTINES = 500, ROUNDS = 40 };

static bool copy;
static stShareStack_t *stacks;
static stCoRoutine_t *all[COROUTINES];
static long operations;
static Counts from, to;

static void start(pfn_co_routine_t routine, long count)
{
    stCoRoutineAttr_t attributes;

    attributes.share_stack = copy ? stacks : nullptr;
    for (long i = 0; i < count; i++)
        if (co_create(&all[i], &attributes, routine, (void *)(intptr_t)i) != 0)
            fail("co_create: no memory");
}

static void report(const char *work)
{
    char name[64];
    Counts spent = to - from;

    snprintf(name, sizeof(name), "allocations-%s-%s", work, copy ? "copy" : "private");
    figure(name, 0, (double)(spent.heap_calls + spent.maps) / (double)operations * 1000, "per 1000");
}

// ---- resume and yield ----

static void *yields(void *)
{
    for (;;)
        co_yield_ct();
}

static void resume_and_yield()
{
    start(yields, COROUTINES);
    for (int round = -2; round < ROUNDS; round++) {
        if (round == 0)
            from = counts;
        for (long i = 0; i < COROUTINES; i++)
            co_resume(all[i]);
    }
    to = counts;
    operations = COROUTINES * ROUNDS;
    report("resume-yield");
}

// ---- wait with a time-out ----

static long rounds_done;
static bool counting;

static void *waits(void *argument)
{
    co_enable_hook_sys();
    for (;;) {
        poll(nullptr, 0, 1 + (int)((intptr_t)argument % 5));
        rounds_done++;
    }
}

static int waited_enough(void *)
{
    if (!counting && rounds_done >= COROUTINES * 10) {
        counting = true;
        from = counts;
        operations = rounds_done;
    }
    return rounds_done >= COROUTINES * ROUNDS ? -1 : 0;
}

static void wait_for_time()
{
    start(waits, COROUTINES);
    for (long i = 0; i < COROUTINES; i++)
        co_resume(all[i]);
    co_eventloop(co_get_epoll_ct(), waited_enough, nullptr);
    to = counts;
    operations = rounds_done - operations;
    report("wait");
}

// ---- wait on a condition, and be woken: the last coroutine wakes all others in turns ----

static stCoCond_t *conditions[COROUTINES];

static void *waits_for_a_signal(void *argument)
{
    for (;;) {
        co_cond_timedwait(conditions[(intptr_t)argument], 100000);
        rounds_done++;
    }
}

static void *signals(void *)
{
    for (;;) {
        for (auto condition : conditions)
            co_cond_signal(condition);
        co_poll(co_get_epoll_ct(), nullptr, 0, 1);
    }
}

static void wake()
{
    stCoRoutine_t *co;

    for (auto &condition : conditions)
        condition = co_cond_alloc();
    start(waits_for_a_signal, COROUTINES);
    for (long i = 0; i < COROUTINES; i++)
        co_resume(all[i]);
    co_create(&co, nullptr, signals, nullptr);
    co_resume(co);
    co_eventloop(co_get_epoll_ct(), waited_enough, nullptr);
    to = counts;
    operations = rounds_done - operations;
    report("wake");
}

// ---- hooked read and write: pairs of datagram sockets play ball ----

static int balls[COROUTINES];

static void open_balls()
{
    for (long i = 0; i < COROUTINES; i++) {
        timeval patience = {10, 0};
        sockaddr_storage name;
        socklen_t length = sizeof(name);
        sa_family_t unnamed = AF_UNIX;

        balls[i] = socket(AF_UNIX, SOCK_DGRAM, 0);
        if (balls[i] < 0 || bind(balls[i], (sockaddr *)&unnamed, sizeof(unnamed)) != 0)
            fail("socket: %s", strerror(errno));
        setsockopt(balls[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        if (i % 2 == 1) {
            if (getsockname(balls[i - 1], (sockaddr *)&name, &length) != 0 ||
                connect(balls[i], (sockaddr *)&name, length) != 0)
                fail("connect: %s", strerror(errno));
            length = sizeof(name);
            if (getsockname(balls[i], (sockaddr *)&name, &length) != 0 ||
                connect(balls[i - 1], (sockaddr *)&name, length) != 0)
                fail("connect: %s", strerror(errno));
        }
    }
}

static void *opens(void *)
{
    co_enable_hook_sys();
    open_balls();
    return nullptr;
}

static void *plays(void *argument)
{
    long me = (long)(intptr_t)argument;
    char message[16] = "ball";

    co_enable_hook_sys();
    if (me % 2 == 0 && write(balls[me], message, sizeof(message)) != sizeof(message))
        fail("write: %s", strerror(errno));
    for (;;) {
        if (read(balls[me], message, sizeof(message)) != sizeof(message))
            fail("read: %s", strerror(errno));
        rounds_done++;
        if (write(balls[me], message, sizeof(message)) != sizeof(message))
            fail("write: %s", strerror(errno));
    }
}

static void read_and_write()
{
    start(opens, 1);
    co_resume(all[0]);
    start(plays, COROUTINES);
    for (long i = 0; i < COROUTINES; i++)
        co_resume(all[i]);
    co_eventloop(co_get_epoll_ct(), waited_enough, nullptr);
    to = counts;
    operations = rounds_done - operations;
    report("read-write");
}

int main()
{
    static void (*const works[])() = {resume_and_yield, wait_for_time, wake, read_and_write};

    // Each in a process of its own: its coroutines never end.
    for (int kind = 0; kind < 2; kind++)
        for (auto work : works) {
            pid_t pid = fork();
            int status = 0;

            if (pid == 0) {
                copy = kind == 1;
                stacks = co_alloc_sharestack(4, 64 * 1024);
                work();
                fflush(stdout);
                _exit(0);
            }
            if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
                fail("a part of the run failed: status %d", status);
        }
    return 0;
}
