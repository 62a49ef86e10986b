/* A service of somebody else's, in C: coroutines take turns, and a hooked read lets the others run. */
#include "co_routine.h"
#include "check.h"

static int step;

static void *count(void *arg)
{
    int *turns = arg;

    for (*turns = 1; *turns < 3; ++*turns) {
        step = step * 10 + *turns;
        co_yield_ct();
    }
    return NULL;
}

static void coroutines_take_turns(void)
{
    stCoRoutine_t *first, *second;
    int first_turns = 0, second_turns = 0;
    int i;

    CHECK(co_create(&first, NULL, count, &first_turns) == 0);
    CHECK(co_create(&second, NULL, count, &second_turns) == 0);
    for (i = 0; i < 3; i++) {
        co_resume(first);
        co_resume(second);
    }
    CHECK(step == 1122);
    CHECK(first_turns == 3 && second_turns == 3);
    co_release(first);
    co_release(second);
}

int main(void)
{
    coroutines_take_turns();
    hooked_read_lets_others_run();
    puts("C consumer: ok");
    return 0;
}
