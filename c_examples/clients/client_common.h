/*
 * What the client programs share beside ../example_common.h: many coroutines of one thread that each call the same
 * routine, a clock, and a check that ends the program with a message.
 */
#ifndef CLIENT_COMMON_H
#define CLIENT_COMMON_H

#include "../example_common.h"

#include <time.h>

static inline double cl_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Ends the program with status 1 and a message of the client library's own. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void cl_die(const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "%s: ", program_invocation_short_name);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

struct cl_crowd {
    void (*work)(int number); /* what each of them does, with hooks on */
    int running;
};

struct cl_member {
    struct cl_crowd *crowd;
    int number;
};

static inline void *cl_member_routine(void *argument)
{
    struct cl_member *member = argument;

    co_enable_hook_sys();
    member->crowd->work(member->number);
    member->crowd->running--;
    return NULL;
}

/*
 * Runs work(0) to work(count - 1) in a coroutine each, all in this thread, until the last has ended. Returns how many
 * seconds that took. Client libraries get 256 KiB of stack: some keep buffers of 64 KiB there.
 */
static inline double cl_run(int count, void (*work)(int number))
{
    struct cl_crowd crowd = {work, count};
    stCoRoutineAttr_t attributes = {256 * 1024, NULL};
    struct cl_member *members = calloc((size_t)count, sizeof(*members));
    stCoRoutine_t **coroutines = calloc((size_t)count, sizeof(*coroutines));
    double start = cl_seconds();

    if (members == NULL || coroutines == NULL)
        ex_die("calloc");
    for (int i = 0; i < count; i++) {
        int error;

        members[i] = (struct cl_member){&crowd, i};
        error = co_create(&coroutines[i], &attributes, cl_member_routine, &members[i]);
        if (error != 0) {
            errno = -error;
            ex_die("co_create");
        }
        co_resume(coroutines[i]);
    }
    ex_run_until_zero(&crowd.running);
    for (int i = 0; i < count; i++)
        co_release(coroutines[i]);
    free(coroutines);
    free(members);
    return cl_seconds() - start;
}

#endif
