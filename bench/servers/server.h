/*
 * What the benchmark's servers share: a listening socket on a free loopback port, the end by SIGTERM, and the size of
 * the buffer, which is the same in all of them.
 */
#ifndef BENCH_SERVER_H
#define BENCH_SERVER_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_SIZE = 1024 };

static inline void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

/* Takes as many descriptors as the hard limit gives. */
static inline void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("setrlimit");
}

static inline void set_nonblocking(int fd)
{
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        die("fcntl(F_SETFL)");
}

static inline void set_nodelay(int fd)
{
    int on = 1;

    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0)
        die("setsockopt(TCP_NODELAY)");
}

/* A non-blocking listener on a free port of 127.0.0.1, told on standard output. */
static inline int listen_and_announce(void)
{
    struct sockaddr_in address;
    socklen_t length = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    raise_descriptor_limit();
    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0)
        die("socket");
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        die("bind");
    if (listen(fd, 4096) != 0)
        die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        die("getsockname");
    set_nonblocking(fd);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

#endif
