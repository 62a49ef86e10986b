/* The work whose instructions are counted: run under valgrind --tool=callgrind, which writes the count
 * of each piece into a file of its own, named by "work times". Every work is done twice, for different
 * times, so that the difference is free of what happens once. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

#include "co_routine.h"

enum { FEW = 1024, MANY = 3072 };

static void require(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "counted: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

/* ---- switches --------------------------------------------------------------------------------- */

static stCoRoutine_t *one, *other;

static void *yield_for_ever(void *arg)
{
    for (;;)
        co_yield_ct();
    return arg;
}

static void *end_at_once(void *arg)
{
    return arg;
}

static void round_trips(int times)
{
    for (int i = 0; i < times; i++)
        co_resume(one);
}

static void copy_round_trips(int times)
{
    for (int i = 0; i < times / 2; i++) {
        co_resume(one);
        co_resume(other);
    }
}

static void creations(int times)
{
    for (int i = 0; i < times; i++) {
        stCoRoutine_t *co;
        co_create(&co, NULL, end_at_once, NULL);
        co_resume(co);
        co_release(co);
    }
}

/* ---- waits: a coroutine waits, the loop's callback answers ------------------------------------- */

static int reader = -1, writer = -1, left;
static stCoCond_t *cond;

/* A pair whose reading end is known to the hooks. The writing end stays plain. */
static void make_pair(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    /* An abstract name of the kernel's choice. */
    int listener = (int)syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    socklen_t length = sizeof address;
    require(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)) == 0, "bind");
    require(listen(listener, 1) == 0, "listen");
    require(getsockname(listener, (struct sockaddr *)&address, &length) == 0, "getsockname");
    reader = socket(AF_UNIX, SOCK_STREAM, 0);
    require(connect(reader, (struct sockaddr *)&address, length) == 0, "connect");
    writer = (int)syscall(SYS_accept4, listener, NULL, NULL, 0);
    require(writer >= 0, "accept");
}

static void send_bytes(size_t bytes)
{
    static char data[4096];
    require(syscall(SYS_write, writer, data, bytes) == (long)bytes, "write");
}

static int stop(void *arg)
{
    (void)arg;
    return left == 0 ? -1 : 0;
}

static int send_one_byte(void *arg)
{
    if (left > 0)
        send_bytes(1);
    return stop(arg);
}

static int signal_one(void *arg)
{
    co_cond_signal(cond);
    return stop(arg);
}

static void *read_full_buffers(void *arg)
{
    char buffer[64];
    co_enable_hook_sys();
    if (reader < 0)
        make_pair();
    for (; left > 0; left--) {
        if (left % 64 == 0)
            send_bytes(4096);
        require(read(reader, buffer, sizeof buffer) == sizeof buffer, "read");
    }
    return arg;
}

static void *read_single_bytes(void *arg)
{
    char buffer[64];
    co_enable_hook_sys();
    for (; left > 0; left--)
        require(read(reader, buffer, sizeof buffer) == 1, "read");
    return arg;
}

static void *poll_and_read(void *arg)
{
    char buffer[64];
    for (; left > 0; left--) {
        struct pollfd wanted = {.fd = reader, .events = POLLIN};
        require(co_poll(co_get_epoll_ct(), &wanted, 1, -1) == 1, "co_poll");
        require(syscall(SYS_read, reader, buffer, sizeof buffer) == 1, "read");
    }
    return arg;
}

static void *wait_for_signals(void *arg)
{
    for (; left > 0; left--)
        co_cond_timedwait(cond, -1);
    return arg;
}

static void *sleep_shortly(void *arg)
{
    for (; left > 0; left--)
        co_poll(co_get_epoll_ct(), NULL, 0, 1);
    return arg;
}

static void in_loop(pfn_co_routine_t routine, pfn_co_eventloop_t callback, int times)
{
    stCoRoutine_t *co;
    left = times;
    require(co_create(&co, NULL, routine, NULL) == 0, "co_create");
    co_resume(co);
    if (left > 0)
        co_eventloop(co_get_epoll_ct(), callback, NULL);
    co_release(co);
}

static void ready_reads(int times)
{
    in_loop(read_full_buffers, stop, times);
}

static void waiting_reads(int times)
{
    in_loop(read_single_bytes, send_one_byte, times);
}

static void polls(int times)
{
    in_loop(poll_and_read, send_one_byte, times);
}

static void signals(int times)
{
    in_loop(wait_for_signals, signal_one, times);
}

static void sleeps(int times)
{
    in_loop(sleep_shortly, stop, times);
}

/* ---- hooks that are off: the hook, and the function behind it ----------------------------------- */

#define CALLS(X)                                                            \
    X(socket, int, (int, int, int), (-1, 0, 0))                             \
    X(connect, int, (int, const struct sockaddr *, socklen_t), (-1, NULL, 0)) \
    X(read, ssize_t, (int, void *, size_t), (-1, bytes, 1))                 \
    X(write, ssize_t, (int, const void *, size_t), (-1, bytes, 1))          \
    X(recv, ssize_t, (int, void *, size_t, int), (-1, bytes, 1, 0))         \
    X(send, ssize_t, (int, const void *, size_t, int), (-1, bytes, 1, 0))   \
    X(recvfrom, ssize_t, (int, void *, size_t, int, struct sockaddr *, socklen_t *), (-1, bytes, 1, 0, NULL, NULL)) \
    X(sendto, ssize_t, (int, const void *, size_t, int, const struct sockaddr *, socklen_t), (-1, bytes, 1, 0, NULL, 0)) \
    X(poll, int, (struct pollfd *, nfds_t, int), (NULL, 0, 0))              \
    X(setsockopt, int, (int, int, int, const void *, socklen_t), (-1, SOL_SOCKET, SO_RCVTIMEO, bytes, 16)) \
    X(getenv, char *, (const char *), ("COLIB_COUNTED"))                    \
    X(setenv, int, (const char *, const char *, int), ("COLIB_COUNTED", "1", 1)) \
    X(unsetenv, int, (const char *), ("COLIB_UNKNOWN"))                     \
    X(select, int, (int, fd_set *, fd_set *, fd_set *, struct timeval *), (-1, NULL, NULL, NULL, NULL)) \
    X(pselect, int, (int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *), (-1, NULL, NULL, NULL, NULL, NULL)) \
    X(ppoll, int, (struct pollfd *, nfds_t, const struct timespec *, const sigset_t *), (NULL, 0, &bad_time, NULL)) \
    X(epoll_wait, int, (int, struct epoll_event *, int, int), (-1, NULL, 1, 0)) \
    X(epoll_pwait, int, (int, struct epoll_event *, int, int, const sigset_t *), (-1, NULL, 1, 0, NULL)) \
    X(epoll_pwait2, int, (int, struct epoll_event *, int, const struct timespec *, const sigset_t *), (-1, NULL, 1, NULL, NULL)) \
    X(sleep, unsigned, (unsigned), (0))                                     \
    X(usleep, int, (useconds_t), (0))                                       \
    X(nanosleep, int, (const struct timespec *, struct timespec *), (&bad_time, NULL)) \
    X(clock_nanosleep, int, (clockid_t, int, const struct timespec *, struct timespec *), (CLOCK_MONOTONIC, 0, &bad_time, NULL)) \
    X(thrd_sleep, int, (const struct timespec *, struct timespec *), (&bad_time, NULL))

static char bytes[64];
static const struct timespec bad_time = {0, -1};
#define CALLING(name, result, parameters, arguments)                          \
    static void hooked_##name(int times)                                      \
    {                                                                         \
        for (int i = 0; i < times; i++)                                       \
            name arguments;                                                   \
    }                                                                         \
    static result(*real_##name) parameters;                                   \
    static void plain_##name(int times)                                       \
    {                                                                         \
        for (int i = 0; i < times; i++)                                       \
            real_##name arguments;                                            \
    }
CALLS(CALLING)

/* ------------------------------------------------------------------------------------------------ */

static void count_for(const char *work, void (*run)(int), int few, int many)
{
    const int sizes[] = {few, many};
    run(few); /* caches and tables are filled now */
    for (int i = 0; i < 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s %d", work, sizes[i]);
        CALLGRIND_ZERO_STATS;
        run(sizes[i]);
        CALLGRIND_DUMP_STATS_AT(name);
    }
}

static void count(const char *work, void (*run)(int))
{
    count_for(work, run, FEW, MANY);
}

static void make_two(const stCoRoutineAttr_t *attr)
{
    require(co_create(&one, attr, yield_for_ever, NULL) == 0, "co_create");
    require(co_create(&other, attr, yield_for_ever, NULL) == 0, "co_create");
    co_resume(one);
    co_resume(other);
}

static void release_two(void)
{
    co_release(one);
    co_release(other);
}

int main(void)
{
    void *libc = dlopen("libc.so.6", RTLD_NOW);
    stCoRoutineAttr_t on_copy_stack = {0, co_alloc_sharestack(1, 128 * 1024)};
    require(libc != NULL, "dlopen");

    make_two(NULL);
    count("switch", round_trips);
    release_two();
    make_two(&on_copy_stack);
    count("copy-switch", copy_round_trips);
    release_two();
    count("create", creations);

    cond = co_cond_alloc();
    count("read-ready", ready_reads);
    count("read-wait", waiting_reads);
    count("poll-wait", polls);
    count("cond-wait", signals);
    count_for("sleep", sleeps, FEW / 16, MANY / 16); /* each takes a millisecond */

#define COUNT_BOTH(name, result, parameters, arguments)                      \
    *(void **)&real_##name = dlsym(libc, #name);                             \
    count("hooked " #name, hooked_##name);                                   \
    count("plain " #name, plain_##name);
    CALLS(COUNT_BOTH)
    return 0;
}
