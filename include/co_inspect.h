/* colib: looking in. Counters, what each coroutine does, messages. Not in libco. docs/DEBUGGING.md shows
 * what each prints. */

#ifndef CO_INSPECT_H
#define CO_INSPECT_H

/* Written from src/capi/co_inspect.rs by `make headers`: change it there. */

#include <stddef.h>
#include <stdint.h>
#include "co_routine.h"

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
 * Gets a message of the library and its level: one line without a line end.
 */
typedef void (*pfn_co_log_sink_t)(int, const char*);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

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
