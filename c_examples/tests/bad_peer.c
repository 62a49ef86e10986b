/*
 * Peers that misbehave, for the tests. Prints "listening on IP:PORT" and stays until it is killed.
 *   bad_peer silent: fills its own queue and never accepts, so that every further connection attempt hangs
 *   bad_peer refuse: keeps the port without listening, so that every connection is refused
 *   bad_peer corrupt: an echo server for one connection at a time that spoils the last byte of what it sends back
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

/* Begins a connection; true if it is established within a fifth of a second. */
static int gets_through(const struct sockaddr_in *address)
{
    struct pollfd wait = {socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), POLLOUT, 0};

    if (wait.fd < 0)
        die("socket");
    if (connect(wait.fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
        return 1;
    if (errno != EINPROGRESS)
        die("connect");
    return poll(&wait, 1, 200) == 1;
}

static void fill_queue(const struct sockaddr_in *address)
{
    for (int tries = 0; gets_through(address); tries++)
        if (tries == 100) {
            fprintf(stderr, "the queue does not get full\n");
            exit(EXIT_FAILURE);
        }
}

static void echo_spoiled(int listener)
{
    int fd = accept(listener, NULL, NULL);
    char data[2048];
    ssize_t count;

    if (fd < 0)
        die("accept");
    while ((count = read(fd, data, sizeof(data))) > 0) {
        data[count - 1] ^= 1;
        if (write(fd, data, (size_t)count) != count)
            break;
    }
    close(fd);
}

int main(int argc, char **argv)
{
    const char *mode = argc == 2 ? argv[1] : "";
    int corrupt = strcmp(mode, "corrupt") == 0;
    int silent = strcmp(mode, "silent") == 0;
    struct sockaddr_in address;
    socklen_t length = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!corrupt && !silent && strcmp(mode, "refuse") != 0) {
        fprintf(stderr, "usage: bad_peer silent|refuse|corrupt\n");
        return EXIT_FAILURE;
    }
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0)
        die("bind");
    if ((silent || corrupt) && listen(listener, silent ? 0 : 16) != 0)
        die("listen");
    if (getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        die("getsockname");
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        die("signal");
    if (silent)
        fill_queue(&address);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        if (corrupt)
            echo_spoiled(listener);
        else
            pause();
    }
}
