/*
 * What the network examples share: a listening socket, accepting in a coroutine, worker processes that end together.
 */
#ifndef EXAMPLE_SERVER_H
#define EXAMPLE_SERVER_H

#include "example_common.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Opens a non-blocking listening socket. Port 0 lets the kernel choose one. */
static inline int ex_listen(const char *usage, const char *ip, long port)
{
    struct sockaddr_in address = ex_address(usage, ip, port);
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        ex_die("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0)
        ex_die("setsockopt(SO_REUSEADDR)");
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, SOMAXCONN) != 0)
        ex_bad_input(usage, "cannot listen on %s:%ld: %s", ip, port, strerror(errno));
    return fd;
}

/* Prints "listening on IP:PORT" with the true port. */
static inline void ex_announce(int listener)
{
    struct sockaddr_in address;
    socklen_t length = sizeof(address);
    char name[INET_ADDRSTRLEN];

    if (getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        ex_die("getsockname");
    if (inet_ntop(AF_INET, &address.sin_addr, name, sizeof(name)) == NULL)
        ex_die("inet_ntop");
    printf("listening on %s:%d\n", name, ntohs(address.sin_port));
    fflush(stdout);
}

/*
 * Takes the next connection of a non-blocking listener, waiting in the calling coroutine for one to come. When
 * descriptors or memory run out it says so once, leaves connections in the kernel's queue and tries again ten times a
 * second.
 */
static inline int ex_accept(int listener)
{
    static int told = 0;

    for (;;) {
        struct pollfd wait = {listener, POLLIN, 0};
        int fd = co_accept(listener, NULL, NULL);

        if (fd >= 0)
            return fd;
        switch (errno) {
        case EAGAIN:
            told = 0; /* the queue is empty: a shortage, if there was one, is over */
            if (co_poll(co_get_epoll_ct(), &wait, 1, -1) < 0)
                ex_die("co_poll on the listener");
            break;
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            if (!told)
                fprintf(stderr, "%s: accept: %s; new connections wait\n", program_invocation_short_name, strerror(errno));
            told = 1;
            wait.fd = -1;
            if (co_poll(co_get_epoll_ct(), &wait, 1, 100) < 0)
                ex_die("co_poll");
            break;
        case EBADF:
        case EINVAL:
        case ENOTSOCK:
        case EOPNOTSUPP:
        case EFAULT:
            ex_die("accept");
        default:
            break; /* this one connection is lost (ECONNABORTED, EPERM, network errors): take the next */
        }
    }
}

/* Lets the process have as many descriptors as the system permits it. */
static inline void ex_raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        ex_die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        ex_die("setrlimit");
}

static inline sigset_t ex_end_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

/* Waits for SIGTERM or SIGINT as for any other input and ends the process with status 0. */
static inline void *ex_signal_routine(void *unused)
{
    sigset_t set = ex_end_signals();
    struct pollfd wait = {signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), POLLIN, 0};

    (void)unused;
    if (wait.fd < 0)
        ex_die("signalfd");
    if (co_poll(co_get_epoll_ct(), &wait, 1, -1) != 1)
        ex_die("co_poll");
    exit(EXIT_SUCCESS);
}

/* From here on SIGTERM and SIGINT end this process from its event loop; a lost connection is no reason to die. */
static inline void ex_end_on_signals(void)
{
    sigset_t set = ex_end_signals();

    if (sigprocmask(SIG_SETMASK, &set, NULL) != 0)
        ex_die("sigprocmask");
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        ex_die("signal(SIGPIPE)");
    ex_start(ex_signal_routine, NULL);
}

struct ex_workers {
    pid_t *pid;
    long count;
};

enum ex_news { EX_TIME_IS_OVER, EX_ASKED_TO_END, EX_WORKER_DIED };

static inline sigset_t ex_supervisor_signals(void)
{
    sigset_t set = ex_end_signals();

    sigaddset(&set, SIGCHLD);
    return set;
}

/*
 * Forks `count` processes; number i runs work(i, argument), which creates coroutines, and then its event loop, until
 * SIGTERM or SIGINT or the end of this process.
 */
static inline struct ex_workers ex_start_workers(long count, void (*work)(long index, void *argument), void *argument)
{
    struct ex_workers workers;
    sigset_t set = ex_supervisor_signals();
    pid_t supervisor = getpid();
    long i;

    workers.count = count;
    workers.pid = (pid_t *)calloc((size_t)count, sizeof(pid_t));
    if (workers.pid == NULL)
        ex_die("calloc");
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        ex_die("sigprocmask");
    for (i = 0; i < count; i++) {
        workers.pid[i] = fork();
        if (workers.pid[i] < 0)
            ex_die("fork"); /* the workers that run already end with us */
        if (workers.pid[i] == 0) {
            if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0)
                ex_die("prctl");
            if (getppid() != supervisor)
                exit(EXIT_FAILURE);
            ex_end_on_signals();
            work(i, argument);
            co_eventloop(co_get_epoll_ct(), NULL, NULL);
            exit(EXIT_FAILURE); /* not reached: without a callback the loop runs for ever */
        }
    }
    return workers;
}

/* Waits for news of the workers: for ms milliseconds at most, or without limit if ms is negative. */
static inline enum ex_news ex_wait_for_workers(long ms)
{
    sigset_t set = ex_supervisor_signals();
    struct timespec limit;
    int number;

    limit.tv_sec = ms / 1000;
    limit.tv_nsec = ms % 1000 * 1000000;
    do
        number = ms < 0 ? sigwaitinfo(&set, NULL) : sigtimedwait(&set, NULL, &limit);
    while (number < 0 && errno == EINTR);
    if (number < 0)
        return EX_TIME_IS_OVER;
    return number == SIGCHLD ? EX_WORKER_DIED : EX_ASKED_TO_END;
}

/* Ends all workers and returns how many of them had ended, or ended now, in any way but with status 0. */
static inline long ex_stop_workers(struct ex_workers *workers)
{
    long bad = 0;
    long i;

    for (i = 0; i < workers->count; i++)
        kill(workers->pid[i], SIGTERM); /* one that has ended is not collected yet: its number is still its own */
    for (i = 0; i < workers->count; i++) {
        int status = 0;

        if (waitpid(workers->pid[i], &status, 0) < 0)
            ex_die("waitpid");
        if (status != 0) {
            fprintf(stderr, "%s: worker %ld ended with status 0x%x\n", program_invocation_short_name, i, (unsigned)status);
            bad++;
        }
    }
    free(workers->pid);
    return bad;
}

/* What a server's first process does: waits for SIGTERM or SIGINT, ends the workers, returns the exit status. */
static inline int ex_supervise(struct ex_workers *workers)
{
    enum ex_news news = ex_wait_for_workers(-1);
    long bad = ex_stop_workers(workers);

    return news == EX_ASKED_TO_END && bad == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
