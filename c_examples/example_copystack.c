/*
 * Copy stacks: several coroutines take turns on one stack, and the library keeps the live bytes of those that wait. A
 * waiting coroutine then costs what it has on its stack, not a whole stack.
 *
 *   cc -std=c11 -Iinclude c_examples/example_copystack.c lib/libcolib.a -lpthread -ldl -lm -o example_copystack
 *   ./example_copystack
 *
 * Prints
 *   coroutine 0, round 1: its numbers are 0 100 200
 *   ... each of four coroutines in each of three rounds ...
 *   coroutines 0 and 2 had their numbers at the same address: yes
 *   coroutines 1 and 3 had their numbers at the same address: yes
 *   all values kept: yes
 * Status 1 if a value got lost.
 */
#include "example_common.h"

#include <poll.h>
#include <stdint.h>

static const char USAGE[] = "";

enum { STACKS = 2, COROUTINES = 4, ROUNDS = 3, NUMBERS = 3 };

struct task {
    int number;
    uintptr_t address; /* of the coroutine's array */
};

static int running = COROUTINES;
static int lost;

static void *routine(void *argument)
{
    /*
     * `task` points into main's stack, which stays where it is. A pointer into a copy stack, such as &numbers, is good
     * only while its coroutine runs: never hand it to another one.
     */
    struct task *task = argument;
    volatile int numbers[NUMBERS];

    co_enable_hook_sys();
    task->address = (uintptr_t)numbers;
    for (int i = 0; i < NUMBERS; i++)
        numbers[i] = task->number + 100 * i;
    for (int round = 1; round <= ROUNDS; round++) {
        poll(NULL, 0, 1); /* the others run, on this very stack */
        printf("coroutine %d, round %d: its numbers are %d %d %d\n", task->number, round, numbers[0], numbers[1],
               numbers[2]);
        for (int i = 0; i < NUMBERS; i++)
            if (numbers[i] != task->number + 100 * i)
                lost++;
    }
    running--;
    return NULL;
}

int main(int argc, char **argv)
{
    struct task tasks[COROUTINES];
    stCoRoutine_t *coroutines[COROUTINES];
    stCoRoutineAttr_t attributes;

    if (argc > 1)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[1]);

    attributes.stack_size = 0; /* the shared stacks' size counts */
    attributes.share_stack = co_alloc_sharestack(STACKS, 128 * 1024);
    if (attributes.share_stack == NULL)
        ex_die("co_alloc_sharestack");
    for (int i = 0; i < COROUTINES; i++) {
        int error;

        tasks[i].number = i;
        error = co_create(&coroutines[i], &attributes, routine, &tasks[i]); /* takes the stacks in turn */
        if (error != 0) {
            errno = -error;
            ex_die("co_create");
        }
        co_resume(coroutines[i]);
    }
    ex_run_until_zero(&running);
    for (int i = 0; i < COROUTINES; i++)
        co_release(coroutines[i]);

    for (int i = 0; i < STACKS; i++)
        printf("coroutines %d and %d had their numbers at the same address: %s\n", i, i + STACKS,
               tasks[i].address == tasks[i + STACKS].address ? "yes" : "no");
    printf("all values kept: %s\n", lost == 0 ? "yes" : "no");
    return lost == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
