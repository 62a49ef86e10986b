/*
 * A condition between coroutines: a producer hands tasks to consumers that wait for them.
 *
 *   cc -std=c11 -Iinclude c_examples/example_cond.c lib/libcolib.a -lpthread -ldl -lm -o example_cond
 *   ./example_cond 3
 *
 * Arguments: [TASK_COUNT]
 *
 * Prints
 *   nothing produced for 10 ms: the wait timed out
 *   produced task 1
 *   consumer 1 took task 1
 *   ...
 *   consumer 1 ends
 *   consumer 2 ends
 *   produced 3, consumed 3
 */
#include "example_common.h"

#include <poll.h>

static const char USAGE[] = "[TASK_COUNT]";

enum { CONSUMERS = 2, QUEUE_SIZE = 4 };

struct queue {
    long task[QUEUE_SIZE];
    long put, taken; /* how many so far */
    int closed;
    stCoCond_t *changed;
};

static struct queue queue;
static long task_count = 5;
static int running;

static void *consumer_routine(void *argument)
{
    int number = *(int *)argument;

    for (;;) {
        /* Another coroutine may take the task between the signal and our turn: look again after each wait. */
        while (queue.put == queue.taken && !queue.closed)
            co_cond_timedwait(queue.changed, -1);
        if (queue.put == queue.taken)
            break;
        printf("consumer %d took task %ld\n", number, queue.task[queue.taken++ % QUEUE_SIZE]);
    }
    printf("consumer %d ends\n", number);
    running--;
    return NULL;
}

static void *producer_routine(void *unused)
{
    (void)unused;
    co_enable_hook_sys();

    /* co_cond_wait tells how the wait ended; co_cond_timedwait returns 0 in any case. */
    if (co_cond_wait(queue.changed, 10) == ETIMEDOUT)
        printf("nothing produced for 10 ms: the wait timed out\n");

    for (long number = 1; number <= task_count; number++) {
        while (queue.put - queue.taken == QUEUE_SIZE)
            poll(NULL, 0, 1);
        queue.task[queue.put++ % QUEUE_SIZE] = number;
        printf("produced task %ld\n", number);
        if (co_cond_signal(queue.changed) != 0)
            ex_die("co_cond_signal");
        if (number % 3 == 0)
            poll(NULL, 0, 1); /* a hooked poll without descriptors sleeps; the consumers run */
    }
    queue.closed = 1;
    if (co_cond_broadcast(queue.changed) != 0)
        ex_die("co_cond_broadcast");
    running--;
    return NULL;
}

int main(int argc, char **argv)
{
    int numbers[CONSUMERS];
    stCoRoutine_t *coroutines[CONSUMERS + 1];

    if (argc > 2)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[2]);
    if (argc > 1)
        task_count = ex_number(USAGE, "TASK_COUNT", argv[1], 1, 1000000);

    queue.changed = co_cond_alloc();
    if (queue.changed == NULL)
        ex_die("co_cond_alloc");
    running = CONSUMERS + 1;
    coroutines[CONSUMERS] = ex_start(producer_routine, NULL);
    for (int i = 0; i < CONSUMERS; i++) {
        numbers[i] = i + 1;
        coroutines[i] = ex_start(consumer_routine, &numbers[i]);
    }
    ex_run_until_zero(&running);
    for (int i = 0; i <= CONSUMERS; i++)
        co_release(coroutines[i]);
    if (co_cond_free(queue.changed) != 0)
        ex_die("co_cond_free");
    printf("produced %ld, consumed %ld\n", queue.put, queue.taken);
    return EXIT_SUCCESS;
}
