/*
 * Coroutine-specific data in C++: a global that is a different object in each coroutine. Any C++ from C++98 on.
 *
 *   c++ -Iinclude c_examples/example_specific.cpp lib/libcolib.a -lpthread -ldl -lm -o example_specific
 *   ./example_specific
 *
 * Prints (example_specific_c.c does the same in C)
 *   coroutine 0: visits 1, name routine_0
 *   coroutine 1: visits 1, name routine_1
 *   coroutine 2: visits 1, name routine_2
 *   coroutine 0: visits 2, name routine_0
 *   coroutine 1: visits 2, name routine_1
 *   coroutine 2: visits 2, name routine_2
 *   main: visits 0
 */
#include "example_common.h"

#include "co_routine_specific.h"

#include <poll.h>

struct Account {
    int visits;
    char name[32];
};

/* `account` acts as a pointer to the running coroutine's own Account, made of zero bytes at its first use. */
CO_ROUTINE_SPECIFIC(Account, account);

static const char USAGE[] = "";
static const int COROUTINES = 3;
static int running = COROUTINES;

/* Takes nothing but what is the caller's own. */
static void visit(int number)
{
    account->visits++;
    printf("coroutine %d: visits %d, name %s\n", number, account->visits, account->name);
}

static void *routine(void *argument)
{
    const int number = *static_cast<int *>(argument);

    co_enable_hook_sys();
    snprintf(account->name, sizeof(account->name), "routine_%d", number);
    visit(number);
    poll(NULL, 0, 1); // the others visit theirs
    visit(number);
    free(account.operator->()); // the object is the program's: the library never frees it
    running--;
    return NULL;
}

int main(int argc, char **argv)
{
    int numbers[COROUTINES];
    stCoRoutine_t *coroutines[COROUTINES];

    if (argc > 1)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[1]);

    for (int i = 0; i < COROUTINES; i++) {
        numbers[i] = i;
        coroutines[i] = ex_start(routine, &numbers[i]);
    }
    ex_run_until_zero(&running);
    printf("main: visits %d\n", account->visits);
    free(account.operator->());
    for (int i = 0; i < COROUTINES; i++)
        co_release(coroutines[i]);
    return EXIT_SUCCESS;
}
