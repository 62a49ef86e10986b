/*
 * Closures for C++98 and later: co_ref binds variables by reference, co_func makes a function object that copies what it
 * is given, here run by one coroutine each.
 *
 *   c++ -Iinclude c_examples/example_closure.cpp lib/libcolib.a -lpthread -ldl -lm -o example_closure
 *   ./example_closure
 *
 * Prints
 *   closure 0 starts
 *   closure 1 starts
 *   closure 2 starts
 *   closure 0 adds 0 to 100
 *   closure 1 adds 10 to 100
 *   closure 2 adds 20 to 110
 *   order: 0 1 2, total 130
 */
#include "example_common.h"

#include "co_closure.h"

#include <poll.h>
#include <vector>

static const char USAGE[] = "";

static void *run_closure(void *argument)
{
    co_enable_hook_sys();
    static_cast<stCoClosure_t *>(argument)->exec();
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc > 1)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[1]);

    int total = 100;
    int running = 3;
    std::vector<int> order;
    std::vector<stCoClosure_t *> closures;
    std::vector<stCoRoutine_t *> coroutines;

    co_ref(shared, total, running, order); // shared.total is total itself
    for (int i = 0; i < 3; i++) {
        const int amount = i * 10;
        co_func(add, shared, i, amount) // the closure's i and amount are copies
        {
            printf("closure %d starts\n", i);
            poll(NULL, 0, 1);
            printf("closure %d adds %d to %d\n", i, amount, shared.total);
            shared.total += amount;
            shared.order.push_back(i);
            shared.running--;
        }
        co_func_end;
        closures.push_back(new add(shared, i, amount));
        coroutines.push_back(ex_start(run_closure, closures.back()));
    }
    ex_run_until_zero(&running);

    printf("order:");
    for (size_t i = 0; i < order.size(); i++)
        printf(" %d", order[i]);
    printf(", total %d\n", total);
    for (size_t i = 0; i < closures.size(); i++) {
        co_release(coroutines[i]);
        delete closures[i];
    }
    return EXIT_SUCCESS;
}
