/* colib: coroutines for C and C++, with libco's functions.
 *
 * Errors are reported as each function says. Unless a function says otherwise it may be called from any
 * thread and concerns the calling thread's coroutines. "As libco" means the same result; every
 * difference is listed in docs/COMPAT.md. */

#ifndef CO_ROUTINE_H
#define CO_ROUTINE_H

/* Written from src/capi/co_routine.rs by `make headers`: change it there. */

#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#ifndef __cplusplus
#include <stdbool.h>
#endif

/* Opaque: co_routine_inner.h shows the first two. */
typedef struct stCoRoutine_t stCoRoutine_t;
typedef struct stShareStack_t stShareStack_t;
typedef struct stCoEpoll_t stCoEpoll_t;
typedef struct stCoCond_t stCoCond_t;

/**
 * Logs a message formatted as by printf; it goes where co_set_log_handler says. As libco, which prints
 * nothing.
 */
void co_log_err(const char *fmt, ...);

/**
 * How to make a coroutine. In C++ the constructor fills in the defaults; in C set both members
 * (0 and NULL are the defaults).
 *
 * stack_size: bytes of its private stack; 0 or less: 128 KiB; at most 8 MiB; rounded up to pages.
 * share_stack: not NULL: the coroutine runs on one of these copy stacks instead, taken in turns.
 */
typedef struct __attribute__((packed)) stCoRoutineAttr_t {
    int stack_size;
    stShareStack_t *share_stack;
#ifdef __cplusplus
    stCoRoutineAttr_t() : stack_size(128 * 1024), share_stack(0) {}
#endif
} stCoRoutineAttr_t;

/**
 * What a coroutine does: gets the argument of co_create; its result is ignored.
 */
typedef void *(*pfn_co_routine_t)(void*);

/**
 * Called by co_eventloop after every round with the argument given there; -1 ends the loop.
 */
typedef int (*pfn_co_eventloop_t)(void*);

/**
 * Gets a message of the library: one line without a line end.
 */
typedef void (*pfn_co_log_t)(const char*);

/**
 * Makes a coroutine that will run routine(arg). It does not run before co_resume.
 *
 * co: gets the new coroutine. attr: NULL for a private stack of 128 KiB. routine: NULL is allowed: such
 * a coroutine ends at once. The first call in a thread also makes the thread's environment.
 *
 * Returns 0. Unlike libco, which crashes there: -EINVAL if co is NULL, -ENOMEM (and *co = NULL) if
 * there is no memory.
 *
 * Requires:
 * attr is NULL or points at attributes; arg is whatever routine takes.
 */
int co_create(stCoRoutine_t **co, const struct stCoRoutineAttr_t *attr, pfn_co_routine_t routine, void *arg);

/**
 * Runs co until it yields or ends, then returns. Works from anywhere: the main program, another
 * coroutine, a callback. As libco.
 *
 * Unlike libco, which crashes there: a coroutine that has ended, runs already, or belongs to another
 * thread is left alone, and so is NULL; a message is logged. A coroutine that never ran belongs to the
 * thread that resumes it first. A coroutine that waits may be resumed by hand: its co_poll returns 0, its
 * hooked read or write behaves as after a time-out, its condition wait returns.
 *
 * Requires:
 * co is NULL, or from co_create and not released.
 */
void co_resume(stCoRoutine_t *co);

#if !defined(__cpp_impl_coroutine)
/**
 * Yields the running coroutine back to whoever resumed it; co is not looked at (in libco it names the
 * thread, which is always the caller's). In C++20 co_yield is a keyword: there the name is co_yield_co.
 *
 * Requires:
 * co is NULL, or from co_create and not released.
 */
void co_yield(stCoRoutine_t *co);
#endif

/**
 * co_yield under a name that is no keyword in C++20.
 *
 * Requires:
 * co is NULL, or from co_create and not released.
 */
void co_yield_co(stCoRoutine_t *co);

/**
 * Yields the running coroutine back to whoever resumed it; returns when it is resumed again. As libco.
 * Outside any coroutine (where libco crashes) it does nothing and logs a message.
 */
void co_yield_ct(void);

/**
 * Frees a coroutine that has ended, never ran, or is suspended (what its frames hold is abandoned, no
 * destructor runs). Works at thread exit, from any thread, and after co's thread has ended. As libco.
 *
 * Unlike libco, which crashes there: NULL does nothing; a running coroutine, also the caller itself,
 * is freed when it yields or ends, or its thread does; one that waits in co_poll or on a condition is taken off first.
 * Another thread's may stay if there is no memory: nothing has happened then but a message. One that was released already is refused,
 * with a message, as long as no other has its place.
 *
 * Requires:
 * co is NULL, or from co_create and not released.
 */
void co_release(stCoRoutine_t *co);

/**
 * Makes co ready to run the same routine with the same argument again, also if it is suspended
 * half-way. It keeps its hook flag, specifics and environment variables. Called on the running
 * coroutine it takes effect when that ends. Never started, main, or NULL: nothing. As libco; unlike
 * libco a wait in co_poll or on a condition is ended first.
 *
 * Requires:
 * co is NULL, or from co_create and not released.
 */
void co_reset(stCoRoutine_t *co);

/**
 * The running coroutine: the thread's main coroutine outside any other, NULL if the thread has never
 * used the library. As libco.
 */
stCoRoutine_t *co_self(void);

/**
 * poll(2) that lets other coroutines run meanwhile, hooks on or off.
 *
 * ctx: the loop that wakes the caller (co_get_epoll_ct; NULL is the same). timeout_ms: in milliseconds,
 * negative for ever; never early. With a time-out other than 0 the caller passes through the loop once
 * even if something is ready. With 0, on the main coroutine, and in a thread that never used the
 * library it is the plain poll.
 *
 * Returns as poll(2) does: the number of ready descriptors, 0 after the time-out, -1 with errno. Unlike
 * libco revents is right in every case: closed descriptors (POLLNVAL at once), files, duplicates.
 *
 * Requires:
 * fds has nfds members; ctx is NULL or a live loop.
 */
int co_poll(stCoEpoll_t *ctx, struct pollfd *fds, nfds_t nfds, int timeout_ms);

/**
 * Runs the loop: resumes the coroutines whose descriptors, conditions or time-outs come up.
 *
 * ctx: the loop (co_get_epoll_ct; NULL is the same). pfn: called with arg after every round and about
 * once a millisecond when nothing happens; the loop ends when it returns -1; an exception from it
 * leaves co_eventloop. NULL: runs for ever. May be called again, and from a coroutine or a callback.
 * As libco; unlike libco a loop without callback sleeps until something happens, without a tick.
 *
 * Requires:
 * ctx is NULL or a live loop; pfn may be called with arg.
 */
void co_eventloop(stCoEpoll_t *ctx, pfn_co_eventloop_t pfn, void *arg);

/**
 * Sets the running coroutine's value for a key below 1024. On the main coroutine, and in a thread that
 * never used the library, it is pthread_setspecific. Values are never freed by the library. As libco.
 *
 * Returns 0; EINVAL for a key of 1024 or more (where libco writes out of bounds); ENOMEM.
 */
int co_setspecific(pthread_key_t key, const void *value);

/**
 * The running coroutine's value for a key; NULL if unset, or if the key is 1024 or more. On the main
 * coroutine, and in a thread that never used the library, it is pthread_getspecific. As libco.
 */
void *co_getspecific(pthread_key_t key);

/**
 * The calling thread's loop, made on first use. NULL (unlike libco) if there is no memory.
 */
stCoEpoll_t *co_get_epoll_ct(void);

/**
 * Switches the hooks on for the running coroutine: blocking calls on sockets that it makes from now on
 * let other coroutines run. Does nothing in a thread that never used the library. As libco.
 */
void co_enable_hook_sys(void);

/**
 * Switches the hooks off for the running coroutine. As libco.
 */
void co_disable_hook_sys(void);

/**
 * Whether the hooks are on for the running coroutine. As libco.
 */
bool co_is_enable_sys_hook(void);

/**
 * A new condition: coroutines of one thread wait on it for each other. NULL if there is no memory.
 */
stCoCond_t *co_cond_alloc(void);

/**
 * Frees a condition. Returns 0. Unlike libco it is safe with waiters: they are never signalled any
 * more, but their time-outs still fire. -1 with errno EBUSY, and nothing is freed, if coroutines of
 * another thread wait on it. NULL does nothing.
 *
 * Requires:
 * cond is NULL, or from co_cond_alloc and not freed.
 */
int co_cond_free(stCoCond_t *cond);

/**
 * Wakes the coroutine that has waited longest; it runs when the loop gets to it, not inside this call.
 * Returns 0, also if nobody waits. As libco. Unlike libco it may be called from a signal handler and
 * from another thread: the waiter wakes in its own loop.
 *
 * Requires:
 * cond is NULL, or from co_cond_alloc and not freed.
 */
int co_cond_signal(stCoCond_t *cond);

/**
 * As co_cond_signal, for all who wait, in the order they came.
 *
 * Requires:
 * cond is NULL, or from co_cond_alloc and not freed.
 */
int co_cond_broadcast(stCoCond_t *cond);

/**
 * Waits until the condition is signalled or timeout_ms milliseconds are over; 0 or less: for ever.
 *
 * Returns 0 in both cases, as libco (co_cond_wait tells them apart). Unlike libco, which crashes there:
 * -1 with errno EPERM outside a coroutine, or if coroutines of another thread wait on it; EINVAL for NULL.
 *
 * Requires:
 * cond is NULL, or from co_cond_alloc and not freed.
 */
int co_cond_timedwait(stCoCond_t *cond, int timeout_ms);

/**
 * As co_cond_timedwait, but tells how the wait ended. Not in libco.
 *
 * Returns 0: signalled; ETIMEDOUT: the time is over; ECANCELED: the condition was freed meanwhile (told
 * when the time is over), or the coroutine was resumed by hand; EPERM: this caller cannot wait here; EINVAL: cond is NULL; ENOMEM.
 *
 * Requires:
 * cond is NULL, or from co_cond_alloc and not freed.
 */
int co_cond_wait(stCoCond_t *cond,
                 int timeout_ms);

/**
 * Makes iCount copy stacks of iStackSize bytes each (rounded up to pages). Coroutines created with them
 * take turns; who is switched out keeps a copy of its live bytes only. The usual caution: a pointer
 * into such a stack is good only while its coroutine runs. They stay until the process ends. As libco.
 *
 * A stack is one thread's at a time: while coroutines that started on it there have neither come to their end nor been released,
 * co_resume in another thread refuses those that would start on it, and logs a message.
 *
 * NULL (where libco crashes) if an argument is 0 or less, if a stack had 2 GiB when rounded up, or if there is no memory.
 */
stShareStack_t *co_alloc_sharestack(int iCount,
                                    int iStackSize);

/**
 * Names the environment variables that each coroutine with hooks on has for itself: unset at first,
 * set and read by setenv, unsetenv, getenv. cnt: how many names. The first call in the process wins.
 * As libco.
 *
 * Requires:
 * name has cnt members, each NULL or a string.
 */
void co_set_env_list(const char **name, size_t cnt);

/**
 * accept(2) that makes the new socket known to the hooks: reads and writes on it in a coroutine with
 * hooks on are cooperative. Hooks may be on or off; the socket is not made non-blocking. It waits as
 * accept does: on a blocking listener it stops the whole thread. A listener made with hooks on, or
 * non-blocking, gives EAGAIN: wait for it in poll or co_poll first. As libco, where no header declares it.
 *
 * Returns the new descriptor, or -1 with errno as accept(2).
 *
 * Requires:
 * As accept(2).
 */
int co_accept(int fd, struct sockaddr *addr, socklen_t *len);

/**
 * Sets the time-outs of a descriptor that the hooks know (a socket made with hooks on, or from co_accept,
 * or a dup of one by fcntl), as SO_RCVTIMEO and SO_SNDTIMEO would but without the kernel hearing of it; or
 * with fd = -1 those that descriptors made later in any thread start with (1000 ms, as libco). Not in libco.
 *
 * read_ms, write_ms: milliseconds; 0: calls do not wait; negative: for ever. connect, too, keeps to
 * write_ms if it is set for its socket. Returns 0, or -1 with errno EBADF if the hooks
 * do not know fd.
 */
int co_set_timeout(int fd, int read_ms, int write_ms);

/**
 * Chooses which of the added hooks are on, in all threads, from now on; the environment variable
 * LIBCO_HOOKS takes the same words when the program starts. words: separated by commas: default (what is
 * on without a word: libco's hooks and the names calls), all, libco (libco's hooks alone, and a read
 * time-out of 0 ends at once, as there), or the name of a hook, with a - in front to leave it out:
 * "all,-sleep,-accept". docs/HOOKS.md lists them. Hooks beyond libco's are off unless asked for: code that
 * holds a mutex across one of those calls deadlocks if another coroutine runs meanwhile. Not in libco.
 *
 * Returns 0, or -1 with errno EINVAL (words is NULL, or has a word that is none of these); then nothing has
 * changed.
 *
 * Requires:
 * words is NULL or a string.
 */
int co_set_hooks(const char *words);

/**
 * Sets how many threads of the process at most look names up for coroutines with hooks on; each calls the C
 * library's own function. They are made when they are needed, have all signals blocked, and end when they
 * have been idle for five seconds. Lookups beyond that number wait their turn. Not in libco.
 *
 * count: 1 to 1024; 16 if this is never called. Returns 0, or -1 with errno EINVAL; then nothing has changed.
 */
int co_set_helper_threads(int count);

/**
 * Makes a descriptor known to the hooks that they do not know: made before hooks were on, by another
 * library, inherited. Its mode is left as it is; reads and writes on it in a coroutine with hooks on are
 * cooperative from now on, with time-outs for ever (co_set_timeout sets others). Not in libco.
 *
 * Returns 0 (also if the hooks know it already), or -1 with errno EBADF, EPERM (a file that cannot be waited
 * for), ENOMEM, or EMFILE or ENFILE (finding that out takes a descriptor).
 */
int co_hook_fd(int fd);

/**
 * Sends the library's messages (misuse, lack of memory) of all threads to handler; NULL: nowhere, or to standard error
 * if LIBCO_LOG=1 is in the environment when the program starts. Not in libco, which prints nothing.
 */
void co_set_log_handler(pfn_co_log_t handler);

#endif  /* CO_ROUTINE_H */
