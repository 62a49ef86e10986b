/* colib: thin covers of epoll, as libco's co_epoll.h on Linux. */

#ifndef CO_EPOLL_H
#define CO_EPOLL_H

/* Written from src/capi/co_epoll.rs by `make headers`: change it there. */

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <time.h>

struct kevent;

/**
 * Room for events. size: how many.
 */
typedef struct co_epoll_res {
    int size;
    struct epoll_event *events;
    struct kevent *eventlist;
} co_epoll_res;

/**
 * epoll_wait(2) into events->events. timeout: milliseconds, -1 for ever.
 *
 * Requires:
 * events has room for maxevents.
 */
int co_epoll_wait(int epfd, struct co_epoll_res *events, int maxevents, int timeout);

/**
 * epoll_ctl(2).
 *
 * Requires:
 * As epoll_ctl(2).
 */
int co_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);

/**
 * epoll_create(2).
 */
int co_epoll_create(int size);

/**
 * Room for n events. NULL if there is no memory or n is negative.
 */
struct co_epoll_res *co_epoll_res_alloc(int n);

/**
 * Frees what co_epoll_res_alloc returned; NULL does nothing.
 *
 * Requires:
 * room is NULL, or from co_epoll_res_alloc and not freed.
 */
void co_epoll_res_free(struct co_epoll_res *room);

#endif  /* CO_EPOLL_H */
