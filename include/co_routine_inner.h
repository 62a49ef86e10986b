/* colib: behind co_routine.h, as libco's co_routine_inner.h. */

#ifndef CO_ROUTINE_INNER_H
#define CO_ROUTINE_INNER_H

/* Written from src/capi/co_routine_inner.rs by `make headers`: change it there. */

#include <netdb.h>
#include "co_routine.h"
#include "coctx.h"

typedef struct stCoRoutineEnv_t stCoRoutineEnv_t;
typedef struct stCoSpec_t stCoSpec_t;
typedef struct stStackMem_t stStackMem_t;

/**
 * One value of a coroutine (co_getspecific).
 */
struct stCoSpec_t {
    void *value;
};

/**
 * A coroutine. Programs may read and write these members, as with libco; from save_buffer on only
 * aSpec[0] is at libco's place, and ctx.regs means nothing. Made by co_create alone: the true object is
 * longer.
 *
 * pfn, arg: read when the coroutine starts. cStart: 0: new, 1: started; writing 0 acts as co_reset.
 * cEnd: 1: ended. cIsMain: the thread's main coroutine. cEnableSysHook: 1: hooks on; may be written.
 * cIsShareStack: runs on a copy stack. aSpec[0]: the value of key 0, the program's own to read and write,
 * on the main coroutine too.
 */
struct stCoRoutine_t {
    stCoRoutineEnv_t *env;
    pfn_co_routine_t pfn;
    void *arg;
    coctx_t ctx;
    char cStart;
    char cEnd;
    char cIsMain;
    char cEnableSysHook;
    char cIsShareStack;
    void *pvEnv;
    struct stStackMem_t *stack_mem;
    char *stack_sp;
    unsigned int save_size;
    char *save_buffer;
    struct stCoSpec_t aSpec[1];
};

/**
 * A stack. occupy_co: copy stacks: whose bytes lie on it. stack_size: bytes. stack_bp: its end, where
 * the routine starts. stack_buffer: its lowest byte.
 */
struct stStackMem_t {
    struct stCoRoutine_t *occupy_co;
    int stack_size;
    char *stack_bp;
    char *stack_buffer;
};

/**
 * Copy stacks (co_alloc_sharestack). alloc_idx: whose turn is next, modulo count.
 */
struct stShareStack_t {
    unsigned int alloc_idx;
    int stack_size;
    int count;
    struct stStackMem_t **stack_array;
};

/**
 * A plain function.
 */
typedef void (*pfnCoRoutineFunc_t)(void);

/**
 * Makes the calling thread's environment; twice is as once (the original loses the first).
 */
void co_init_curr_thread_env(void);

/**
 * The calling thread's environment, NULL if it has none. As libco.
 */
stCoRoutineEnv_t *co_get_curr_thread_env(void);

/**
 * co_release. As libco.
 *
 * Requires:
 * As co_release.
 */
void co_free(stCoRoutine_t *co);

/**
 * Yields the coroutine that runs in env, which is the caller's. As libco.
 *
 * Requires:
 * env is NULL or an environment.
 */
void co_yield_env(stCoRoutineEnv_t *env);

/**
 * A loop of the program's own for the calling thread's coroutines: co_poll on it is served by
 * co_eventloop of it alone. Returns NULL if there is no memory.
 */
stCoEpoll_t *AllocEpoll(void);

/**
 * Frees a loop; NULL does nothing. Coroutines that wait in it stay suspended; the thread's own loop is
 * made anew when it is used again.
 *
 * Requires:
 * ctx is NULL or a loop that nobody uses after this.
 */
void FreeEpoll(stCoEpoll_t *ctx);

/**
 * The running coroutine, as co_self. As libco.
 */
stCoRoutine_t *GetCurrThreadCo(void);

/**
 * Makes ev the loop that co_get_epoll_ct returns in env's thread, and that conditions and hooks use
 * there. The one before is not freed. As libco.
 *
 * Requires:
 * env is NULL or the calling thread's environment, ev NULL or a live loop of that thread.
 */
void SetEpoll(stCoRoutineEnv_t *env, stCoEpoll_t *ev);

/**
 * The running coroutine of an environment.
 *
 * Requires:
 * env is NULL or an environment.
 */
stCoRoutine_t *GetCurrCo(stCoRoutineEnv_t *env);

/**
 * co_create for a given environment; NULL if there is none, or no memory.
 *
 * Requires:
 * env is NULL or an environment; attr NULL or valid.
 */
stCoRoutine_t *co_create_env(stCoRoutineEnv_t *env,
                             const stCoRoutineAttr_t *attr,
                             pfn_co_routine_t pfn,
                             void *arg);

/**
 * co_poll with the function that serves where nobody can wait (the plain poll if NULL).
 *
 * Requires:
 * As co_poll.
 */
int co_poll_inner(stCoEpoll_t *ctx,
                  struct pollfd *fds,
                  nfds_t nfds,
                  int timeout,
                  int (*pollfunc)(struct pollfd*, nfds_t, int));

/**
 * Leaves curr, which runs, for pending_co, which is suspended: the switch below resume and yield.
 *
 * Requires:
 * Both are NULL or coroutines of the calling thread.
 */
void co_swap(stCoRoutine_t *curr, stCoRoutine_t *pending_co);

/**
 * gethostbyname for a coroutine: the others run meanwhile; the result is the coroutine's own, good until
 * its next call.
 *
 * Requires:
 * name is NULL or a string.
 */
struct hostent *co_gethostbyname(const char *name);

/**
 * gethostbyname_r for a coroutine: the others run meanwhile.
 *
 * Requires:
 * As gethostbyname_r.
 */
int co_gethostbyname_r(const char *name,
                       struct hostent *result_buf,
                       char *buf,
                       size_t buflen,
                       struct hostent **result,
                       int *h_errnop);

#endif  /* CO_ROUTINE_INNER_H */
