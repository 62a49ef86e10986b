// What it costs when a sleeping coroutine wakes, and how late it does.
//
//   timers private|copy COUNT [SECONDS]
//
// COUNT coroutines each sleep 1 to 5000 ms (poll without descriptors), over and over. After a second of
// settling in, SECONDS are measured: CPU time of the process over wake-ups, mean and largest lateness, and
// how many woke early.
#include "scale.h"

#include <poll.h>

#include "co_routine.h"

static uint64_t random_state = 88172645463325252u;
static long fires, early;
static int64_t late_sum, late_max;
static int64_t measure_from, measure_to;
static double cpu_from, cpu_to;
static double length = 2;
static const char *kind;
static long count;

static int random_ms()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return 1 + (int)(random_state % 5000);
}

static void *sleeper(void *)
{
    co_enable_hook_sys();
    for (;;) {
        int ms = random_ms();
        int64_t due = monotonic_ns() + (int64_t)ms * 1000000;

        poll(nullptr, 0, ms);
        int64_t late = monotonic_ns() - due;
        if (measure_from && !measure_to) {
            fires++;
            early += late < 0;
            late_sum += late;
            if (late > late_max)
                late_max = late;
        }
    }
}

static void report()
{
    char name[64];
    double fired = (double)fires;

#define WORK(what) (snprintf(name, sizeof(name), "timer-%s-%s", what, kind), name)
    figure(WORK("cpu"), count, (cpu_to - cpu_from) / fired * 1e9, "ns");
    figure(WORK("late-mean"), count, (double)late_sum / fired / 1e6, "ms");
    figure(WORK("late-max"), count, (double)late_max / 1e6, "ms");
    figure(WORK("early"), count, (double)early, "fires");
}

static void *timekeeper(void *)
{
    co_enable_hook_sys();
    poll(nullptr, 0, 1000);
    cpu_from = seconds(CLOCK_PROCESS_CPUTIME_ID);
    measure_from = monotonic_ns();
    poll(nullptr, 0, (int)(length * 1000));
    measure_to = monotonic_ns();
    cpu_to = seconds(CLOCK_PROCESS_CPUTIME_ID);
    report();
    // A loop without a callback runs for ever.
    _exit(0);
}

int main(int argc, char **argv)
{
    bool copy = argc > 1 && strcmp(argv[1], "copy") == 0;
    count = number_argument(argc, argv, 2, 100000);
    stCoRoutineAttr_t attributes;
    stCoRoutine_t *co;

    if (argc < 3 || (!copy && strcmp(argv[1], "private") != 0))
        fail("usage: timers private|copy COUNT [SECONDS]");
    kind = argv[1];
    length = (double)number_argument(argc, argv, 3, 2);
    need_memory_for("timers", count, copy ? 700 : 5000, copy ? 9500 : 26000);
    attributes.stack_size = 128 * 1024;
    if (copy && !(attributes.share_stack = co_alloc_sharestack(64, 128 * 1024)))
        fail("co_alloc_sharestack: no memory");
    for (long i = 0; i < count; i++) {
        if (co_create(&co, &attributes, sleeper, nullptr) != 0)
            fail("co_create: no memory after %ld coroutines", i);
        co_resume(co);
    }
    attributes.share_stack = nullptr;
    co_create(&co, &attributes, timekeeper, nullptr);
    co_resume(co);
    co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
    return 1;
}
