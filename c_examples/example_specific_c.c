/*
 * Coroutine-specific data in C: one key, a value of its own for each coroutine, as pthread_setspecific has it for threads.
 *
 *   cc -std=c11 -Iinclude c_examples/example_specific_c.c lib/libcolib.a -lpthread -ldl -lm -o example_specific_c
 *   ./example_specific_c
 *
 * Prints (example_specific.cpp does the same with a C++ template)
 *   coroutine 0: its value was unset, is 0 now
 *   coroutine 1: its value was unset, is 10 now
 *   coroutine 2: its value was unset, is 20 now
 *   coroutine 0: its value is still 0
 *   coroutine 1: its value is still 10
 *   coroutine 2: its value is still 20
 *   main: its value is unset
 */
#include "example_common.h"

#include <poll.h>
#include <pthread.h>

static const char USAGE[] = "";

enum { COROUTINES = 3 };

static pthread_key_t key;
static int running = COROUTINES;

/* A function that knows nothing of its caller gets the caller's value all the same. */
static int *own_value(void)
{
    return co_getspecific(key);
}

static void *routine(void *argument)
{
    int number = *(int *)argument;
    int *value;

    co_enable_hook_sys();
    if (own_value() != NULL)
        printf("coroutine %d: its value was set before\n", number);
    value = malloc(sizeof(*value));
    if (value == NULL)
        ex_die("malloc");
    *value = number * 10;
    if ((errno = co_setspecific(key, value)) != 0)
        ex_die("co_setspecific");
    printf("coroutine %d: its value was unset, is %d now\n", number, *own_value());

    poll(NULL, 0, 1); /* the others set theirs */

    printf("coroutine %d: its value is still %d\n", number, *own_value());
    free(own_value()); /* the value is the program's: the library never frees it */
    running--;
    return NULL;
}

int main(int argc, char **argv)
{
    int numbers[COROUTINES];
    stCoRoutine_t *coroutines[COROUTINES];

    if (argc > 1)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[1]);

    if ((errno = pthread_key_create(&key, NULL)) != 0)
        ex_die("pthread_key_create");
    for (int i = 0; i < COROUTINES; i++) {
        numbers[i] = i;
        coroutines[i] = ex_start(routine, &numbers[i]);
    }
    ex_run_until_zero(&running);
    printf("main: its value is %s\n", own_value() == NULL ? "unset" : "set");
    for (int i = 0; i < COROUTINES; i++)
        co_release(coroutines[i]);
    return EXIT_SUCCESS;
}
