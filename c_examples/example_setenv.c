/*
 * An environment variable for each coroutine: code written for one request a process (CGI) keeps its request in the
 * environment, and many such requests run in one process.
 *
 *   cc -std=c11 -Iinclude c_examples/example_setenv.c lib/libcolib.a -lpthread -ldl -lm -o example_setenv
 *   ./example_setenv
 *
 * Prints
 *   coroutine 0: REQUEST_ID unset, set to request_0
 *   coroutine 1: REQUEST_ID unset, set to request_1
 *   coroutine 2: REQUEST_ID unset, set to request_2
 *   coroutine 0: REQUEST_ID request_0, LAST_REQUEST request_2
 *   coroutine 1: REQUEST_ID request_1, LAST_REQUEST request_2
 *   coroutine 2: REQUEST_ID request_2, LAST_REQUEST request_2
 *   main: REQUEST_ID unset, LAST_REQUEST request_2
 */
#include "example_common.h"

#include <poll.h>

static const char USAGE[] = "";

enum { COROUTINES = 3 };

static int running = COROUTINES;

static const char *value_of(const char *name)
{
    const char *value = getenv(name);

    return value == NULL ? "unset" : value;
}

static void *routine(void *argument)
{
    int number = *(int *)argument;
    char id[32];

    co_enable_hook_sys(); /* getenv, setenv and unsetenv are hooked calls */
    snprintf(id, sizeof(id), "request_%d", number);
    printf("coroutine %d: REQUEST_ID %s", number, value_of("REQUEST_ID"));
    if (setenv("REQUEST_ID", id, 1) != 0 || setenv("LAST_REQUEST", id, 1) != 0)
        ex_die("setenv");
    printf(", set to %s\n", id);

    poll(NULL, 0, 1); /* the others set theirs */

    printf("coroutine %d: REQUEST_ID %s, LAST_REQUEST %s\n", number, value_of("REQUEST_ID"), value_of("LAST_REQUEST"));
    running--;
    return NULL;
}

int main(int argc, char **argv)
{
    const char *own[] = {"REQUEST_ID"}; /* each coroutine has its own; all other names stay the process's */
    int numbers[COROUTINES];
    stCoRoutine_t *coroutines[COROUTINES];

    if (argc > 1)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[1]);

    co_set_env_list(own, EX_COUNT_OF(own)); /* before the coroutines are made; the first call counts */
    for (int i = 0; i < COROUTINES; i++) {
        numbers[i] = i;
        coroutines[i] = ex_start(routine, &numbers[i]);
    }
    ex_run_until_zero(&running);
    printf("main: REQUEST_ID %s, LAST_REQUEST %s\n", value_of("REQUEST_ID"), value_of("LAST_REQUEST"));
    for (int i = 0; i < COROUTINES; i++)
        co_release(coroutines[i]);
    return EXIT_SUCCESS;
}
