/*
 * The limit: an echo server by hand-written epoll. One thread, level-triggered, one buffer for all connections; what a
 * socket does not take at once is not kept (64-byte echoes always fit).
 *
 *   echo_epoll [recv]     by read and write; with an argument by recv and send, which cost the kernel less
 *
 * Prints its port; runs until it is killed.
 */
#define _GNU_SOURCE
#include "server.h"

#include <stdbool.h>
#include <sys/epoll.h>

enum { EVENTS = 512 };

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        die("epoll_ctl");
}

static void accept_all(int epoll, int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);

        if (fd < 0)
            return;
        set_nodelay(fd);
        watch(epoll, fd);
    }
}

static void echo_by_recv(int fd)
{
    static char buffer[BUFFER_SIZE];
    ssize_t count = recv(fd, buffer, sizeof(buffer), 0);

    if (count < 0 && errno == EAGAIN)
        return;
    if (count <= 0 || send(fd, buffer, (size_t)count, MSG_NOSIGNAL) != count)
        close(fd);
}

static void echo(int fd)
{
    static char buffer[BUFFER_SIZE];
    ssize_t count = read(fd, buffer, sizeof(buffer));

    if (count < 0 && errno == EAGAIN)
        return;
    if (count <= 0 || write(fd, buffer, (size_t)count) != count)
        close(fd);
}

int main(int argc, char **argv)
{
    bool by_recv = argc == 2 && strcmp(argv[1], "recv") == 0;
    int listener = listen_and_announce();
    int epoll = epoll_create1(0);
    struct epoll_event events[EVENTS];

    if (epoll < 0)
        die("epoll_create1");
    watch(epoll, listener);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_all(epoll, listener);
            else if (by_recv)
                echo_by_recv(events[i].data.fd);
            else
                echo(events[i].data.fd);
        }
    }
}
