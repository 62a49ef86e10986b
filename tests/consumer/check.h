/* What both programs check: that libc's names reach the library's hooks. */
#ifndef CONSUMER_CHECK_H
#define CONSUMER_CHECK_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(condition)                                                               \
    do {                                                                               \
        if (!(condition)) {                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);    \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

static struct sockaddr_in server_address;
static int client_waits, server_saw_client_wait, client_done;

static void *client(void *unused)
{
    char text[8] = "";
    int fd;

    (void)unused;
    co_enable_hook_sys();
    fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    CHECK(connect(fd, (struct sockaddr *)&server_address, sizeof(server_address)) == 0);
    client_waits = 1;
    /* A read that does not reach the hook would stop the whole program here. */
    CHECK(read(fd, text, sizeof(text)) == 5);
    client_waits = 0;
    CHECK(strcmp(text, "hello") == 0);
    close(fd);
    client_done = 1;
    return NULL;
}

static void *server(void *listener)
{
    int fd = accept(*(int *)listener, NULL, NULL);

    CHECK(fd >= 0);
    while (!client_waits)
        co_poll(co_get_epoll_ct(), NULL, 0, 1);
    server_saw_client_wait = 1;
    CHECK(write(fd, "hello", 5) == 5);
    close(fd);
    return NULL;
}

static int until_done(void *unused)
{
    (void)unused;
    return client_done ? -1 : 0;
}

static void hooked_read_lets_others_run(void)
{
    socklen_t size = sizeof(server_address);
    stCoRoutine_t *client_co, *server_co;
    int listener = socket(AF_INET, SOCK_STREAM, 0);

    alarm(30);
    CHECK(listener >= 0);
    server_address.sin_family = AF_INET;
    server_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(listener, (struct sockaddr *)&server_address, size) == 0);
    CHECK(listen(listener, 1) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&server_address, &size) == 0);

    CHECK(co_create(&client_co, NULL, client, NULL) == 0);
    CHECK(co_create(&server_co, NULL, server, &listener) == 0);
    co_resume(client_co);
    co_resume(server_co);
    co_eventloop(co_get_epoll_ct(), until_done, NULL);
    CHECK(server_saw_client_wait);
    co_release(client_co);
    co_release(server_co);
    close(listener);
}

#endif
