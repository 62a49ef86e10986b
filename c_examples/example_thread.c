/*
 * Several threads, each with coroutines and an event loop of its own. A coroutine stays in the thread that made it.
 *
 *   cc -std=c11 -Iinclude c_examples/example_thread.c lib/libcolib.a -lpthread -ldl -lm -o example_thread
 *   ./example_thread 2
 *
 * Arguments: THREAD_COUNT
 *
 * Prints
 *   thread 1: 10 coroutines woke 50 times, all in their own thread
 *   thread 2: 10 coroutines woke 50 times, all in their own thread
 */
#include "example_common.h"

#include <poll.h>
#include <pthread.h>

static const char USAGE[] = "THREAD_COUNT";

enum { COROUTINES = 10, WAKES = 5 };

struct worker {
    pthread_t thread;
    int running;
    int woke;      /* no lock: the coroutines of one thread never run at the same time */
    int elsewhere; /* how often a coroutine found itself in another thread */
};

static void *routine(void *argument)
{
    struct worker *worker = argument;

    co_enable_hook_sys();
    for (int i = 0; i < WAKES; i++) {
        poll(NULL, 0, 1);
        worker->woke++;
        if (!pthread_equal(pthread_self(), worker->thread))
            worker->elsewhere++;
    }
    worker->running--;
    return NULL;
}

static void *thread_main(void *argument)
{
    struct worker *worker = argument;
    stCoRoutine_t *coroutines[COROUTINES];

    worker->thread = pthread_self();
    worker->running = COROUTINES;
    for (int i = 0; i < COROUTINES; i++)
        coroutines[i] = ex_start(routine, worker);
    ex_run_until_zero(&worker->running);
    for (int i = 0; i < COROUTINES; i++)
        co_release(coroutines[i]);
    return NULL;
}

int main(int argc, char **argv)
{
    struct worker *workers;
    pthread_t *threads;
    long count;
    int status = EXIT_SUCCESS;

    if (argc < 2)
        ex_bad_input(USAGE, "too few arguments");
    if (argc > 2)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[2]);
    count = ex_number(USAGE, "THREAD_COUNT", argv[1], 1, 10000);
    workers = calloc((size_t)count, sizeof(*workers));
    threads = calloc((size_t)count, sizeof(*threads));
    if (workers == NULL || threads == NULL)
        ex_die("calloc");

    for (long i = 0; i < count; i++)
        if ((errno = pthread_create(&threads[i], NULL, thread_main, &workers[i])) != 0)
            ex_die("pthread_create");
    for (long i = 0; i < count; i++) {
        if ((errno = pthread_join(threads[i], NULL)) != 0)
            ex_die("pthread_join");
        printf("thread %ld: %d coroutines woke %d times, %s\n", i + 1, COROUTINES, workers[i].woke,
               workers[i].elsewhere == 0 ? "all in their own thread" : "NOT all in their own thread");
        if (workers[i].elsewhere != 0 || workers[i].woke != COROUTINES * WAKES)
            status = EXIT_FAILURE;
    }
    free(workers);
    free(threads);
    return status;
}
