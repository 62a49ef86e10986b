/*
 * An echo server: several processes, each with a fixed number of coroutines that read and write.
 *
 *   cc -std=c11 -Iinclude c_examples/example_echosvr.c lib/libcolib.a -lpthread -ldl -lm -o example_echosvr
 *   ./example_echosvr 127.0.0.1 8000 100 2
 *
 * Arguments: IP PORT TASK_COUNT PROCESS_COUNT [-d]
 *   Each of PROCESS_COUNT processes serves up to TASK_COUNT connections at a time; further ones wait in the kernel's
 *   queue until a task is free. PORT 0 takes a free port. -d goes to the background.
 *
 * Prints "listening on IP:PORT", with -d also "running in the background as process PID", then nothing.
 * SIGTERM or SIGINT (to the first process) ends all of them with status 0.
 */
#include "example_server.h"

#include <fcntl.h>

static const char USAGE[] = "IP PORT TASK_COUNT PROCESS_COUNT [-d]";

/* A coroutine and the connection it serves. */
struct task {
    stCoRoutine_t *co;
    struct task *next_free;
    int fd;
};

struct server {
    int listener;
    long task_count;
    struct task *free_tasks;
    stCoCond_t *task_became_free;
};

static struct server server;

static int wait_for(int fd, short events)
{
    struct pollfd wait = {fd, events, 0};

    return co_poll(co_get_epoll_ct(), &wait, 1, -1);
}

/* Writes everything, waiting while the peer does not take it; false if the connection is lost. */
static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(fd, data, size);

        if (written > 0) {
            data += written;
            size -= (size_t)written;
        } else if (written < 0 && errno == EAGAIN) {
            if (wait_for(fd, POLLOUT) < 0)
                return 0;
        } else {
            return 0;
        }
    }
    return 1;
}

static void echo(int fd)
{
    char buffer[16 * 1024];

    for (;;) {
        ssize_t count;

        if (wait_for(fd, POLLIN) < 0)
            return;
        count = read(fd, buffer, sizeof(buffer));
        if (count < 0 && errno == EAGAIN)
            continue;
        if (count <= 0 || !write_all(fd, buffer, (size_t)count))
            return;
    }
}

/* Serves one connection after the other; yields while there is none, and is resumed by the accepting coroutine. */
static void *task_routine(void *argument)
{
    struct task *task = argument;

    co_enable_hook_sys();
    for (;;) {
        task->next_free = server.free_tasks;
        server.free_tasks = task;
        co_cond_signal(server.task_became_free);
        co_yield_ct();

        echo(task->fd);
        close(task->fd);
    }
    return NULL;
}

static void *accept_routine(void *unused)
{
    (void)unused;
    co_enable_hook_sys();
    for (;;) {
        struct task *task;
        int fd;

        while (server.free_tasks == NULL)
            co_cond_timedwait(server.task_became_free, -1);
        fd = ex_accept(server.listener);
        if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
            ex_die("fcntl");
        task = server.free_tasks;
        server.free_tasks = task->next_free;
        task->fd = fd;
        co_resume(task->co);
    }
    return NULL;
}

static void start_coroutines(long index, void *unused)
{
    struct task *tasks = calloc((size_t)server.task_count, sizeof(*tasks));

    (void)index;
    (void)unused;
    server.task_became_free = co_cond_alloc();
    if (tasks == NULL || server.task_became_free == NULL)
        ex_die("cannot make the tasks");
    for (long i = 0; i < server.task_count; i++)
        tasks[i].co = ex_start(task_routine, &tasks[i]);
    ex_start(accept_routine, NULL);
}

/* The parent tells the new process's number and ends; the new process leaves the terminal. */
static void go_to_background(void)
{
    pid_t pid = fork();
    int null;

    if (pid < 0)
        ex_die("fork");
    if (pid > 0) {
        printf("running in the background as process %ld\n", (long)pid);
        exit(EXIT_SUCCESS);
    }
    null = open("/dev/null", O_RDWR);
    if (null < 0 || setsid() < 0 || chdir("/") != 0)
        ex_die("cannot go to the background");
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (dup2(null, fd) < 0)
            ex_die("dup2");
    if (null > STDERR_FILENO)
        close(null);
}

int main(int argc, char **argv)
{
    struct ex_workers workers;
    long port, process_count;

    if (argc < 5)
        ex_bad_input(USAGE, "too few arguments");
    if (argc > 6 || (argc == 6 && strcmp(argv[5], "-d") != 0))
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[argc - 1]);
    port = ex_number(USAGE, "PORT", argv[2], 0, 65535);
    server.task_count = ex_number(USAGE, "TASK_COUNT", argv[3], 1, 1000000);
    process_count = ex_number(USAGE, "PROCESS_COUNT", argv[4], 1, 1024);

    ex_raise_descriptor_limit();
    server.listener = ex_listen(USAGE, argv[1], port);
    if (argc == 6) {
        ex_announce(server.listener); /* the background has no one to tell */
        go_to_background();
    }
    workers = ex_start_workers(process_count, start_coroutines, NULL);
    if (argc < 6)
        ex_announce(server.listener);
    return ex_supervise(&workers);
}
