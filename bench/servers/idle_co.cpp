/*
 * A loop without a callback and many coroutines that sleep for an hour.
 *
 *   idle_co COROUTINES
 *
 * Prints how many sleep once all do; runs until it is killed.
 */
#include "co.h"

static void *sleep_long(void *)
{
    for (;;)
        co_poll(co_get_epoll_ct(), NULL, 0, 3600 * 1000);
}

int main(int argc, char **argv)
{
    int count = argc == 2 ? atoi(argv[1]) : 0;
    stCoRoutineAttr_t attributes;

    if (count <= 0) {
        fprintf(stderr, "usage: %s COROUTINES\n", argv[0]);
        return EXIT_FAILURE;
    }
    attributes.share_stack = co_alloc_sharestack(1, 128 * 1024);
    for (int i = 0; i < count; i++) {
        stCoRoutine_t *co = NULL;

        if (co_create(&co, &attributes, sleep_long, NULL) != 0)
            die("co_create");
        co_resume(co);
    }
    printf("%d\n", count);
    fflush(stdout);
    co_eventloop(co_get_epoll_ct(), NULL, NULL);
}
