/*
 * Waiting for many descriptors at once: each coroutine connects to all given endpoints and watches them with one poll().
 *
 *   cc -std=c11 -Iinclude c_examples/example_poll.c lib/libcolib.a -lpthread -ldl -lm -o example_poll
 *   ./example_poll 127.0.0.1:22 127.0.0.1:8080 192.0.2.1:80
 *
 * Arguments: [-t MILLISECONDS] IP:PORT ...
 *   -t sets how long to wait for all of them together (1000).
 *
 * Prints for each endpoint and each of the two coroutines, as it is known, one of
 *   coroutine 1: 127.0.0.1:22 connected
 *   coroutine 1: 127.0.0.1:8080 failed: Connection refused
 *   coroutine 1: 192.0.2.1:80 timed out
 * and then "coroutine 1: 1 connected, 1 failed, 1 timed out".
 */
#include "example_common.h"

#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char USAGE[] = "[-t MILLISECONDS] IP:PORT ...";

struct endpoint {
    const char *name;
    struct sockaddr_in address;
};

static struct endpoint *endpoints;
static nfds_t endpoint_count;
static long wait_ms = 1000;
static int running;

struct watch {
    int coroutine;
    int connected, failed, timed_out;
    struct pollfd *fds;
};

/* Tells the fate of an endpoint and stops watching it: poll() skips an entry whose descriptor is negative. */
static void settle(struct watch *watch, nfds_t i, int error)
{
    if (error == 0) {
        watch->connected++;
        printf("coroutine %d: %s connected\n", watch->coroutine, endpoints[i].name);
    } else if (error == ETIMEDOUT) {
        watch->timed_out++;
        printf("coroutine %d: %s timed out\n", watch->coroutine, endpoints[i].name);
    } else {
        watch->failed++;
        printf("coroutine %d: %s failed: %s\n", watch->coroutine, endpoints[i].name, strerror(error));
    }
    if (watch->fds[i].fd >= 0 && close(watch->fds[i].fd) != 0)
        ex_die("close");
    watch->fds[i].fd = -1;
}

static void begin(struct watch *watch, nfds_t i)
{
    const struct sockaddr *address = (const struct sockaddr *)&endpoints[i].address;

    watch->fds[i].events = POLLOUT;
    watch->fds[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (watch->fds[i].fd < 0)
        settle(watch, i, errno);
    else if (connect(watch->fds[i].fd, address, sizeof(endpoints[i].address)) == 0)
        settle(watch, i, 0);
    else if (errno != EINPROGRESS)
        settle(watch, i, errno);
}

static long now_ms(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        ex_die("clock_gettime");
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static nfds_t settled(const struct watch *watch)
{
    return (nfds_t)(watch->connected + watch->failed + watch->timed_out);
}

static void *watch_routine(void *argument)
{
    struct watch *watch = argument;
    long deadline = now_ms() + wait_ms;

    co_enable_hook_sys();
    for (nfds_t i = 0; i < endpoint_count; i++)
        begin(watch, i);
    while (settled(watch) < endpoint_count) {
        long left = deadline - now_ms();

        /* The whole coroutine waits here, and the other coroutine runs meanwhile. */
        if (poll(watch->fds, endpoint_count, left > 0 ? (int)left : 0) < 0)
            ex_die("poll");
        for (nfds_t i = 0; i < endpoint_count; i++) {
            int error = 0;
            socklen_t size = sizeof(error);

            if (watch->fds[i].fd < 0)
                continue;
            if (watch->fds[i].revents == 0) {
                if (left <= 0)
                    settle(watch, i, ETIMEDOUT);
                continue;
            }
            if (getsockopt(watch->fds[i].fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
                error = errno;
            settle(watch, i, error);
        }
    }
    printf("coroutine %d: %d connected, %d failed, %d timed out\n", watch->coroutine, watch->connected, watch->failed,
           watch->timed_out);
    running--;
    return NULL;
}

/* "IP:PORT" */
static struct endpoint parse_endpoint(const char *text)
{
    struct endpoint endpoint;
    const char *colon = strrchr(text, ':');
    char ip[INET_ADDRSTRLEN];

    if (colon == NULL || (size_t)(colon - text) >= sizeof(ip))
        ex_bad_input(USAGE, "'%s' is not IP:PORT", text);
    memcpy(ip, text, (size_t)(colon - text));
    ip[colon - text] = '\0';
    endpoint.name = text;
    endpoint.address = ex_address(USAGE, ip, ex_number(USAGE, "PORT", colon + 1, 1, 65535));
    return endpoint;
}

int main(int argc, char **argv)
{
    struct watch watches[2];
    stCoRoutine_t *coroutines[EX_COUNT_OF(watches)];
    int first = 1;

    if (argc > 2 && strcmp(argv[1], "-t") == 0) {
        wait_ms = ex_number(USAGE, "MILLISECONDS", argv[2], 1, 3600000);
        first = 3;
    }
    if (argc <= first)
        ex_bad_input(USAGE, "too few arguments");
    endpoint_count = (nfds_t)(argc - first);
    endpoints = calloc(endpoint_count, sizeof(*endpoints));
    if (endpoints == NULL)
        ex_die("calloc");
    for (nfds_t i = 0; i < endpoint_count; i++)
        endpoints[i] = parse_endpoint(argv[first + (int)i]);

    running = EX_COUNT_OF(watches);
    for (size_t i = 0; i < EX_COUNT_OF(watches); i++) {
        memset(&watches[i], 0, sizeof(watches[i]));
        watches[i].coroutine = (int)i + 1;
        watches[i].fds = calloc(endpoint_count, sizeof(struct pollfd));
        if (watches[i].fds == NULL)
            ex_die("calloc");
        coroutines[i] = ex_start(watch_routine, &watches[i]);
    }
    ex_run_until_zero(&running);
    for (size_t i = 0; i < EX_COUNT_OF(watches); i++) {
        co_release(coroutines[i]);
        free(watches[i].fds);
    }
    free(endpoints);
    return EXIT_SUCCESS;
}
