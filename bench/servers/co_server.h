/*
 * What the servers by coroutines share: one that accepts and starts another for each connection. Only functions of
 * the original interface, so that any library with libco's headers can take part.
 */
#ifndef BENCH_CO_SERVER_H
#define BENCH_CO_SERVER_H

#include "co.h"

static pfn_co_routine_t serve_connection; /* gets the descriptor */
static int listener;

static void start(pfn_co_routine_t routine, intptr_t argument)
{
    stCoRoutine_t *co = NULL;

    if (co_create(&co, NULL, routine, reinterpret_cast<void *>(argument)) != 0)
        die("co_create");
    co_resume(co);
}

static void *accept_connections(void *)
{
    co_enable_hook_sys();
    for (;;) {
        int fd = co_accept(listener, NULL, NULL);

        if (fd >= 0) {
            set_nodelay(fd);
            start(serve_connection, fd);
            continue;
        }
        struct pollfd wait = {listener, POLLIN, 0};
        co_poll(co_get_epoll_ct(), &wait, 1, -1);
    }
    return NULL;
}

static void run_server(pfn_co_routine_t routine)
{
    serve_connection = routine;
    listener = listen_and_announce();
    start(accept_connections, 0);
    co_eventloop(co_get_epoll_ct(), NULL, NULL);
}

#endif
