/* colib: looking in. Counters, what each coroutine does, messages. Not in libco. docs/DEBUGGING.md shows
 * what each prints. */

#ifndef CO_INSPECT_H
#define CO_INSPECT_H

/* Written from src/capi/co_inspect.rs by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>
#include "co_routine.h"

/**
 * Of the calling thread.
 */
#define CO_STATS_THREAD 0

/**
 * Of all threads, those that have ended too.
 */
#define CO_STATS_ALL 1

/**
 * The library cannot do what it was asked to: no memory, no descriptor.
 */
#define CO_LOG_ERROR 0

/**
 * The program has misused the library; the message ends with the caller's address.
 */
#define CO_LOG_WARN 1

/**
 * The library helps itself, at a price.
 */
#define CO_LOG_INFO 2

/**
 * What comes and goes.
 */
#define CO_LOG_DEBUG 3

/**
 * No level: nothing is shown.
 */
#define CO_LOG_OFF -1

/**
 * What co_stats fills. Counts of what has happened only grow; those that say "now" are of the moment.
 *
 * size: the caller sets it to sizeof(co_stats_t); co_stats sets it to how much of the struct it has filled, so that
 * programs go on with older and newer libraries.
 *
 * threads: that use coroutines, now. coroutines_created: by co_create. coroutines_live: created and not released,
 * now; those that have ended count until they are released.
 *
 * stacks_in_use, stack_bytes_in_use: private stacks that coroutines have, now, and their sizes (memory is taken
 * only as far as they are touched). stacks_pooled, stack_bytes_pooled: those that wait for the next co_create, now;
 * CO_STATS_THREAD: that the thread keeps.
 *
 * switches: into a coroutine and back, two for each co_resume or resume by the loop: a coroutine that has not
 * yielded yet counts as back. copied_bytes: to and from copy stacks.
 *
 * waits: that coroutines began (for time, descriptors, conditions, names). wakes: that the loop ended. timeouts: of
 * these, by the time. timers: that are set, now. epoll_waits: calls of epoll_pwait2(2) and its like by the loop.
 * epoll_ctls: calls of epoll_ctl(2). names_in_flight: host names being looked up, or waiting for a helper thread,
 * now.
 */
typedef struct co_stats_t {
    size_t size;
    uint64_t threads;
    uint64_t coroutines_created;
    uint64_t coroutines_live;
    uint64_t stacks_in_use;
    uint64_t stack_bytes_in_use;
    uint64_t stacks_pooled;
    uint64_t stack_bytes_pooled;
    uint64_t switches;
    uint64_t copied_bytes;
    uint64_t waits;
    uint64_t wakes;
    uint64_t timeouts;
    uint64_t timers;
    uint64_t epoll_waits;
    uint64_t epoll_ctls;
    uint64_t names_in_flight;
} co_stats_t;

/**
 * Gets a message of the library and its level: one line without a line end.
 */
typedef void (*pfn_co_log_sink_t)(int, const char*);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Fills *out with what the library counts. whose: CO_STATS_THREAD or CO_STATS_ALL. May be called from any thread
 * while others run, which it does not hold up: their counts are as they are just now, not all of the same moment. A
 * child of fork goes on with its parent's counts.
 *
 * Returns 0, or -1 with errno EINVAL: out is NULL, out->size is not set, whose is neither.
 *
 * Requires:
 * out is NULL or points at out->size bytes.
 */
int co_stats(struct co_stats_t *out,
             int whose);

/**
 * As co_set_log_handler, for a function that gets the level too: the one that was set last, by either, gets
 * the messages of all threads. NULL: nowhere, or to standard error if LIBCO_LOG was set when the program
 * started. sink runs on the stack of whoever causes the message, which may be a coroutine's. What co_log_err
 * says comes as CO_LOG_ERROR.
 */
void co_set_log_sink(pfn_co_log_sink_t sink);

/**
 * Shows messages of this level and those above it, in all threads, from now on. level: CO_LOG_WARN if this is
 * never called and LIBCO_LOG (docs/DEBUGGING.md) says nothing else.
 *
 * Returns 0, or -1 with errno EINVAL for what is no level; then nothing has changed.
 */
int co_set_log_level(int level);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CO_INSPECT_H */
