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
#define CO_THIS_THREAD 0

/**
 * Of all threads, those that have ended too.
 */
#define CO_ALL_THREADS 1

/**
 * It has not run yet, or was reset.
 */
#define CO_STATE_NEW 0

/**
 * Its thread runs it.
 */
#define CO_STATE_RUNNING 1

/**
 * It has resumed another, and goes on when that yields.
 */
#define CO_STATE_RESUMING 2

/**
 * It has yielded, and goes on when somebody resumes it.
 */
#define CO_STATE_SUSPENDED 3

/**
 * It waits in a loop, for what waits_for says.
 */
#define CO_STATE_WAITING 4

/**
 * What it waited for came, or its time is over: the loop will resume it.
 */
#define CO_STATE_READY 5

/**
 * Its routine has come to its end.
 */
#define CO_STATE_ENDED 6

/**
 * It does not wait.
 */
#define CO_WAITS_NOT 0

/**
 * For the time alone, or for the loop to go round once.
 */
#define CO_WAITS_TIME 1

/**
 * For one descriptor.
 */
#define CO_WAITS_DESCRIPTOR 2

/**
 * For one of many descriptors.
 */
#define CO_WAITS_DESCRIPTORS 3

/**
 * For a condition, or a clsCoMutex.
 */
#define CO_WAITS_CONDITION 4

/**
 * For a host name to be looked up.
 */
#define CO_WAITS_NAME 5

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
 * CO_THIS_THREAD: that the thread keeps.
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
 * What co_info fills, and co_walk gives.
 *
 * size: as in co_stats_t. co: the coroutine. state: CO_STATE_*. waits_for: CO_WAITS_*, of a waiting or ready one.
 *
 * descriptor, events: which it waits for, and for what (as pollfd.events); of many the first, if it is the calling
 * thread's; else -1 and 0. descriptors: how many it named. condition: from co_cond_alloc; NULL for a ready one.
 *
 * waited_ms: milliseconds since the wait began, less than a round of the loop more or less; begins anew after 49
 * days. left_ms: until its time-out comes; 0: now; -1: it has none.
 *
 * routine, arg: as given to co_create. thread: gettid(2) of its thread; 0: that has ended. is_main: the thread's main
 * coroutine. hooks_on: co_enable_hook_sys. on_copy_stack: it runs on a copy stack.
 *
 * stack_size: bytes of its stack; of a main coroutine 0, and so are the next two. stack_used: bytes in use now; of
 * one that runs in another thread 0. stack_most: bytes that were in use at most since the stack's pages came from the
 * kernel or went back to it, whichever coroutine had the stack: a private stack is reused with what earlier coroutines
 * left on it, a copy stack serves all of its group. Exact to a page at worst (a frame that was not written counts
 * where something below it was). co_walk gives 0, and so does co_info of another thread's coroutine.
 */
typedef struct co_info_t {
    size_t size;
    stCoRoutine_t *co;
    int state;
    int waits_for;
    int descriptor;
    int events;
    uint64_t descriptors;
    const void *condition;
    uint64_t waited_ms;
    int64_t left_ms;
    pfn_co_routine_t routine;
    void *arg;
    int thread;
    int is_main;
    int hooks_on;
    int on_copy_stack;
    uint64_t stack_size;
    uint64_t stack_used;
    uint64_t stack_most;
} co_info_t;

/**
 * Gets a coroutine, what it does, and the argument of co_walk. Anything but 0 ends the walk.
 */
typedef int (*pfn_co_walk_t)(stCoRoutine_t*, const struct co_info_t*, void*);

/**
 * Gets a message of the library and its level: one line without a line end.
 */
typedef void (*pfn_co_log_sink_t)(int, const char*);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Fills *out with what the library counts. whose: CO_THIS_THREAD or CO_ALL_THREADS. May be called from any thread
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
 * Fills *out with what co does just now. Of a coroutine of the calling thread everything is exact. One of another
 * thread goes on meanwhile: each member was right at some moment, but not all at the same one.
 *
 * Returns 0, or -1 with errno EINVAL: co or out is NULL, or out->size is not set; ESRCH: co was released (only told
 * of a coroutine that co_walk has named).
 *
 * Requires:
 * co is NULL, or from co_create or co_walk, or a main coroutine; out is NULL or points at out->size bytes.
 */
int co_info(stCoRoutine_t *co,
            struct co_info_t *out);

/**
 * Calls each for every coroutine that was created and not released, main coroutines aside, in no order. whose:
 * CO_THIS_THREAD or CO_ALL_THREADS. What is there from beginning to end is named once; what comes or goes meanwhile
 * may be left out, and what is created on the way need not be named.
 *
 * each may do anything, no lock is held: of the calling thread's coroutines it may resume, reset and release any, the
 * one it was called for and others, create new ones, wait, and leave by an exception. info is good until each
 * returns. A coroutine of another thread is named as it was a moment ago: that thread goes on, and may have released
 * it by now. Only co_info is safe with it, unless the program knows more.
 *
 * Returns 0, or what each returned to end the walk; -1 with errno EINVAL if each is NULL or whose is neither.
 *
 * Requires:
 * each may be called with arg.
 */
int co_walk(int whose,
            pfn_co_walk_t each,
            void *arg);

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
