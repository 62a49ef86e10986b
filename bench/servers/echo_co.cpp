/*
 * An echo server by coroutines, one for each connection.
 *
 *   echo_co poll     waits by co_poll, then reads and writes, as libco's users do it
 *   echo_co plain    as if read and write blocked
 *
 * Prints its port; runs until it is killed.
 */
#include "co_server.h"

#include <sys/time.h>

static int descriptor(void *argument)
{
    return static_cast<int>(reinterpret_cast<intptr_t>(argument));
}

static void *echo_by_poll(void *argument)
{
    int fd = descriptor(argument);
    char buffer[BUFFER_SIZE];

    co_enable_hook_sys();
    set_nonblocking(fd);
    for (;;) {
        struct pollfd wait = {fd, POLLIN | POLLERR | POLLHUP, 0};

        co_poll(co_get_epoll_ct(), &wait, 1, 60 * 1000);
        ssize_t count = read(fd, buffer, sizeof(buffer));
        if (count < 0 && errno == EAGAIN)
            continue;
        if (count <= 0 || write(fd, buffer, count) != count)
            break;
    }
    close(fd);
    return NULL;
}

static void *echo_plain(void *argument)
{
    int fd = descriptor(argument);
    struct timeval minute = {60, 0};
    char buffer[BUFFER_SIZE];

    co_enable_hook_sys();
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &minute, sizeof(minute)) != 0)
        die("setsockopt(SO_RCVTIMEO)");
    for (;;) {
        ssize_t count = read(fd, buffer, sizeof(buffer));

        if (count <= 0 || write(fd, buffer, count) != count)
            break;
    }
    close(fd);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "poll") == 0)
        run_server(echo_by_poll);
    if (argc == 2 && strcmp(argv[1], "plain") == 0)
        run_server(echo_plain);
    fprintf(stderr, "usage: %s poll|plain\n", argv[0]);
    return EXIT_FAILURE;
}
