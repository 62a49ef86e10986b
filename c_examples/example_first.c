/*
 * The smallest server: echoes what it gets, one coroutine a connection, in plain blocking style. README.md shows it.
 *
 *   make && ./example_first 7777
 *
 * Prints "listening on 127.0.0.1:7777" and serves until it is killed.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "co_routine.h"

static void *serve(void *arg) /* one coroutine a connection */
{
	int fd = (int)(intptr_t)arg;
	char buffer[4096];
	ssize_t n;

	co_enable_hook_sys(); /* from here on read and write let others run */
	while ((n = read(fd, buffer, sizeof buffer)) > 0)
		if (write(fd, buffer, (size_t)n) != n)
			break;
	close(fd);
	co_release(co_self()); /* this coroutine is freed when it ends */
	return NULL;
}

static void *listens(void *arg)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(intptr_t)arg)};
	int on = 1, listener;

	co_enable_hook_sys();
	listener = socket(AF_INET, SOCK_STREAM, 0); /* made with hooks on: never blocks the thread */
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, SOMAXCONN) != 0) {
		perror("example_first: cannot listen");
		exit(1);
	}
	printf("listening on 127.0.0.1:%d\n", ntohs(at.sin_port));
	fflush(stdout);
	for (;;) {
		struct pollfd wait = {.fd = listener, .events = POLLIN};
		stCoRoutine_t *co;
		int fd;

		poll(&wait, 1, -1); /* others run until a connection comes */
		fd = co_accept(listener, NULL, NULL);
		if (fd < 0)
			continue;
		if (co_create(&co, NULL, serve, (void *)(intptr_t)fd) != 0) {
			close(fd); /* no memory */
			continue;
		}
		co_resume(co); /* runs until it waits */
	}
}

int main(int argc, char **argv)
{
	int port = argc == 2 ? atoi(argv[1]) : 0;
	stCoRoutine_t *co;

	if (port < 1 || port > 65535) {
		fprintf(stderr, "usage: %s PORT\n", argv[0]);
		return 1;
	}
	co_set_timeout(-1, 60 * 1000, 10 * 1000); /* reads wait a minute (1 s if not set, as in libco) */
	if (co_create(&co, NULL, listens, (void *)(intptr_t)port) != 0)
		return 1;
	co_resume(co);
	co_eventloop(co_get_epoll_ct(), NULL, NULL); /* for ever */
	return 0;
}
