/*
 * Load for an echo server on 127.0.0.1: CONNECTIONS connections, each of which sends 64 bytes, waits for them to come
 * back, compares them, and starts again.
 *
 *   load PORT SERVER_PID CONNECTIONS
 *
 * Each line on standard input asks for one slice of load, which begins and ends with all connections silent, and is
 * answered by a line of JSON:
 *
 *   cpu MS      {"requests": N, "cpu_ns": CPU time of the server}
 *   calls MS    {"requests": N, "calls": system calls of the server}, or {} where the kernel does not let us count;
 *               apart, since to count makes them dearer
 *
 * The load must be quicker than the server, or the server sees its requests one by one and the load is measured: so
 * it never sleeps in a slice, takes edge-triggered events, and calls send and recv rather than write and read. Fails if a byte is wrong or a
 * connection breaks.
 */
#define _GNU_SOURCE
#include "server.h"

#include <dirent.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>

enum { MESSAGE = 64, EVENTS = 512, THREADS = 64 };

#define PATIENCE_NS 10000000000

struct connection {
    int fd;
    uint32_t received;
    uint64_t message[MESSAGE / 8];
};

static struct connection *connections;
static int epoll;
static int connection_count;
static uint64_t replies, in_flight, last_reply;
static bool stopping;

static void fail(const char *what)
{
    fprintf(stderr, "load: %s\n", what);
    exit(EXIT_FAILURE);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void send_next(struct connection *c)
{
    c->message[0]++;
    c->message[MESSAGE / 8 - 1] = c->message[0] * 0x9e3779b97f4a7c15;
    c->received = 0;
    if (send(c->fd, c->message, MESSAGE, MSG_DONTWAIT | MSG_NOSIGNAL) != MESSAGE)
        fail("a send failed");
    in_flight++;
}

static void receive(struct connection *c)
{
    char got[MESSAGE];
    ssize_t count = recv(c->fd, got, sizeof(got) - c->received, MSG_DONTWAIT);

    if (count < 0 && errno == EAGAIN)
        return;
    if (count <= 0)
        fail("the server closed a connection");
    if (memcmp(got, (char *)c->message + c->received, (size_t)count) != 0)
        fail("an echo differs from what was sent");
    c->received += (uint32_t)count;
    if (c->received == MESSAGE) {
        replies++;
        in_flight--;
        if (!stopping)
            send_next(c);
    }
}

static void take_replies(void)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, 0);

    for (int i = 0; i < count; i++)
        receive(events[i].data.ptr);
    if (count > 0)
        last_reply = now_ns();
    else if (in_flight > 0 && now_ns() - last_reply > PATIENCE_NS)
        fail("no echo for ten seconds");
}

/* Keeps every connection busy for so long, then takes the last replies. Returns how many came in all. */
static uint64_t run_slice(uint64_t ns)
{
    uint64_t before = replies, until = now_ns() + ns;

    stopping = false;
    last_reply = now_ns();
    for (int i = 0; i < connection_count; i++)
        send_next(&connections[i]);
    while (now_ns() < until)
        take_replies();
    stopping = true;
    while (in_flight > 0)
        take_replies();
    return replies - before;
}

static void connect_all(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    /* Closed by a reset: leaves no port behind in TIME_WAIT. */
    struct linger reset = {1, 0};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < connection_count; i++) {
        struct connection *c = &connections[i];
        struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = c};

        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (c->fd < 0)
            die("load: socket");
        if (connect(c->fd, (struct sockaddr *)&address, sizeof(address)) != 0)
            die("load: connect");
        if (setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) != 0)
            die("load: setsockopt");
        set_nodelay(c->fd);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) != 0)
            die("load: epoll_ctl");
        for (int k = 0; k < MESSAGE / 8; k++)
            c->message[k] = (uint64_t)i << 32 | (uint32_t)k << 24;
    }
}

/* The threads of the server. */
static int list_threads(long pid, long *threads)
{
    char path[64];
    struct dirent *entry;
    int count = 0;
    DIR *dir;

    snprintf(path, sizeof(path), "/proc/%ld/task", pid);
    dir = opendir(path);
    if (dir == NULL)
        die(path);
    while ((entry = readdir(dir)) != NULL && count < THREADS)
        if (entry->d_name[0] != '.')
            threads[count++] = atol(entry->d_name);
    closedir(dir);
    return count;
}

/* CPU time the server has used, in nanoseconds. */
static uint64_t cpu_time(long pid)
{
    long threads[THREADS];
    int count = list_threads(pid, threads);
    uint64_t sum = 0, used;

    for (int i = 0; i < count; i++) {
        char path[80];
        FILE *file;

        snprintf(path, sizeof(path), "/proc/%ld/task/%ld/schedstat", pid, threads[i]);
        file = fopen(path, "r");
        if (file == NULL || fscanf(file, "%lu", &used) != 1)
            die(path);
        fclose(file);
        sum += used;
    }
    return sum;
}

/* Opens a counter of system calls for each thread of the server; returns how many, 0 if the kernel does not let us. */
static int open_counters(long pid, int *counters)
{
    struct perf_event_attr attr;
    long threads[THREADS];
    int count = list_threads(pid, threads), opened = 0;
    unsigned long id = 0;
    FILE *file = fopen("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id", "r");

    if (file == NULL)
        file = fopen("/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id", "r");
    if (file == NULL || fscanf(file, "%lu", &id) != 1)
        count = 0;
    if (file != NULL)
        fclose(file);
    memset(&attr, 0, sizeof(attr));
    attr.size = sizeof(attr);
    attr.type = PERF_TYPE_TRACEPOINT;
    attr.config = id;
    while (opened < count) {
        int fd = (int)syscall(SYS_perf_event_open, &attr, (pid_t)threads[opened], -1, -1, 0UL);

        if (fd < 0)
            return 0;
        counters[opened++] = fd;
    }
    return opened;
}

static uint64_t read_counters(const int *counters, int count)
{
    uint64_t sum = 0, value;

    for (int i = 0; i < count; i++) {
        if (read(counters[i], &value, sizeof(value)) != sizeof(value))
            die("load: reading a counter");
        sum += value;
    }
    return sum;
}

static void measure_cpu(long pid, uint64_t ns)
{
    uint64_t before = cpu_time(pid);
    uint64_t requests = run_slice(ns);

    printf("{\"requests\":%lu,\"cpu_ns\":%lu}\n", requests, cpu_time(pid) - before);
}

static void count_calls(long pid, uint64_t ns)
{
    int counters[THREADS];
    int count = open_counters(pid, counters);

    if (count == 0) {
        printf("{}\n");
        return;
    }
    uint64_t requests = run_slice(ns);
    printf("{\"requests\":%lu,\"calls\":%lu}\n", requests, read_counters(counters, count));
    for (int i = 0; i < count; i++)
        close(counters[i]);
}

int main(int argc, char **argv)
{
    char what[8];
    unsigned long ms;
    long pid;

    if (argc != 4) {
        fprintf(stderr, "usage: %s PORT SERVER_PID CONNECTIONS\n", argv[0]);
        return EXIT_FAILURE;
    }
    pid = atol(argv[2]);
    connection_count = atoi(argv[3]);
    raise_descriptor_limit();
    connections = calloc((size_t)connection_count, sizeof(*connections));
    epoll = epoll_create1(0);
    if (connections == NULL || epoll < 0)
        die("load");
    connect_all(atoi(argv[1]));
    while (scanf("%7s %lu", what, &ms) == 2) {
        if (strcmp(what, "cpu") == 0)
            measure_cpu(pid, ms * 1000000);
        else
            count_calls(pid, ms * 1000000);
        fflush(stdout);
    }
    return EXIT_SUCCESS;
}
