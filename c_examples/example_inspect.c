/*
 * Looking in: a table of what every coroutine does, as a server's status page would show it, and the counters.
 *
 *   cc -std=c11 -Iinclude c_examples/example_inspect.c lib/libcolib.a -lpthread -ldl -lm -o example_inspect
 *   ./example_inspect
 *
 * Arguments: none
 *
 * Prints, in any order and with other numbers,
 *   NAME      STATE      WAITS FOR             WAITED ms  LEFT ms  STACK  MOST    OF
 *   parent    resuming   -                             0        -    280   552  128K
 *   status    running    -                             0        -   3736     -  128K
 *   new       new        -                             0        -      0     0  128K
 *   done      ended      -                             0        -      0   408  128K
 *   lazy      suspended  -                             0        -    520   520  128K
 *   consumer  waiting    condition                    21        -    168   168  128K
 *   chooser   waiting    2 descriptors                21        -    376   720  128K
 *   sleeper   waiting    time                         21       30    472   472  128K
 *   reader    waiting    descriptor 3 (read)          21    29980    584  1064  128K
 *   9 coroutines live of 9 created, 9 stacks in use, 18 switches, 5 waits, 1 woken, 2 timers, 14 epoll_wait
 */
#include "example_common.h"

#include <poll.h>
#include <unistd.h>

#include "co_inspect.h"

/* What each routine is given. A status page finds a coroutine's name by it. */
struct job {
    const char *name;
    void (*work)(void);
};

static int in_pipe[2], other_pipe[2];
static stCoCond_t *filled;
static stCoRoutine_t *status;
static int finished;

/* Every coroutine of this program runs this: then info->arg is a struct job. */
static void *run(void *argument)
{
    const struct job *job = argument;

    co_enable_hook_sys();
    job->work();
    return NULL;
}

static void read_request(void)
{
    struct pollfd fd = {.fd = in_pipe[0], .events = POLLIN};

    poll(&fd, 1, 30000);
}

static void sleep_a_little(void)
{
    poll(NULL, 0, 50);
}

static void choose(void)
{
    struct pollfd fds[] = {{.fd = in_pipe[0], .events = POLLIN}, {.fd = other_pipe[0], .events = POLLIN}};

    poll(fds, EX_COUNT_OF(fds), -1);
}

static void consume(void)
{
    co_cond_timedwait(filled, -1);
}

static void be_lazy(void)
{
    co_yield_ct();
}

static void do_nothing(void)
{
}

static const char *state_name(const co_info_t *info)
{
    static const char *const names[] = {"new", "running", "resuming", "suspended", "waiting", "ready", "ended"};

    return info->state >= 0 && (size_t)info->state < EX_COUNT_OF(names) ? names[info->state] : "?";
}

static void describe_wait(const co_info_t *info, char *text, size_t size)
{
    switch (info->waits_for) {
    case CO_WAITS_TIME:
        snprintf(text, size, "time");
        break;
    case CO_WAITS_DESCRIPTOR:
        snprintf(text, size, "descriptor %d (%s)", info->descriptor, info->events & POLLIN ? "read" : "write");
        break;
    case CO_WAITS_DESCRIPTORS:
        snprintf(text, size, "%llu descriptors", (unsigned long long)info->descriptors);
        break;
    case CO_WAITS_CONDITION:
        snprintf(text, size, "condition");
        break;
    case CO_WAITS_NAME:
        snprintf(text, size, "a host name");
        break;
    default:
        snprintf(text, size, "-");
    }
}

/* A number, or "-" if it is negative. */
static const char *number_or_none(long long number, char text[24])
{
    if (number < 0)
        return "-";
    snprintf(text, 24, "%lld", number);
    return text;
}

static int print_line(stCoRoutine_t *co, const co_info_t *walked, void *unused)
{
    co_info_t info = {.size = sizeof(info)};
    char wait[64], left[24], most[24];

    (void)unused;
    (void)walked; /* what the walk knows; co_info looks at the stack's memory, too */
    if (co_info(co, &info) != 0)
        ex_die("co_info");
    describe_wait(&info, wait, sizeof(wait));
    printf("%-9s %-10s %-20s %10llu %8s %6llu %5s %4lluK\n",
           info.routine == run ? ((const struct job *)info.arg)->name : "?", state_name(&info), wait,
           (unsigned long long)info.waited_ms, number_or_none(info.left_ms, left), (unsigned long long)info.stack_used,
           number_or_none(info.state == CO_STATE_RUNNING ? -1 : (long long)info.stack_most, most),
           (unsigned long long)info.stack_size / 1024);
    return 0;
}

static void print_status(void)
{
    co_stats_t stats = {.size = sizeof(stats)};

    printf("NAME      STATE      WAITS FOR             WAITED ms  LEFT ms  STACK  MOST    OF\n");
    if (co_walk(CO_THIS_THREAD, print_line, NULL) != 0)
        ex_die("co_walk");
    if (co_stats(&stats, CO_THIS_THREAD) != 0)
        ex_die("co_stats");
    printf("%llu coroutines live of %llu created, %llu stacks in use, %llu switches, %llu waits, %llu woken, %llu timers, "
           "%llu epoll_wait\n",
           (unsigned long long)stats.coroutines_live, (unsigned long long)stats.coroutines_created,
           (unsigned long long)stats.stacks_in_use, (unsigned long long)stats.switches, (unsigned long long)stats.waits,
           (unsigned long long)stats.wakes, (unsigned long long)stats.timers, (unsigned long long)stats.epoll_waits);
}

/* Resumes the coroutine that prints, and waits for it: "resuming". */
static void be_parent(void)
{
    poll(NULL, 0, 20);
    co_resume(status);
    finished = 1;
}

static struct job jobs[] = {
    {"reader", read_request}, {"sleeper", sleep_a_little}, {"chooser", choose},    {"consumer", consume}, {"lazy", be_lazy},
    {"done", do_nothing},     {"new", do_nothing},         {"status", print_status}, {"parent", be_parent},
};

static int is_finished(void *unused)
{
    (void)unused;
    return finished ? -1 : 0;
}

int main(int argc, char **argv)
{
    stCoRoutine_t *coroutines[EX_COUNT_OF(jobs)];

    if (argc > 1)
        ex_bad_input("", "unexpected argument '%s'", argv[1]);
    if (pipe(in_pipe) != 0 || pipe(other_pipe) != 0)
        ex_die("pipe");
    filled = co_cond_alloc();
    if (filled == NULL)
        ex_die("co_cond_alloc");

    for (size_t i = 0; i < EX_COUNT_OF(jobs); i++) {
        int error = co_create(&coroutines[i], NULL, run, &jobs[i]);

        if (error != 0) {
            errno = -error;
            ex_die("co_create");
        }
        if (jobs[i].work == print_status)
            status = coroutines[i]; /* "parent" resumes it */
        else if (strcmp(jobs[i].name, "new") != 0)
            co_resume(coroutines[i]);
    }
    co_eventloop(co_get_epoll_ct(), is_finished, NULL);

    for (size_t i = 0; i < EX_COUNT_OF(jobs); i++)
        co_release(coroutines[i]);
    if (co_cond_free(filled) != 0)
        ex_die("co_cond_free");
    return EXIT_SUCCESS;
}
