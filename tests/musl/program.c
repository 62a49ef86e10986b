/* A fully static program on musl (scripts/test-musl.sh): each check says what it found; the first that fails ends it.
 *
 * What it waits for are events: where many wait at once, nobody is answered before all have asked. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <net/if.h>
#include <unistd.h>

#include "co_routine.h"
#include "co_routine_inner.h"

#define CHECK(condition)                                                                            \
	do {                                                                                        \
		if (!(condition)) {                                                                 \
			fprintf(stderr, "%s:%d: %s: errno %d\n", __FILE__, __LINE__, #condition, errno); \
			_exit(1);                                                                   \
		}                                                                                   \
	} while (0)

enum { MANY = 40 };

static int running; /* coroutines that have not come to their end */

static int all_ended(void *arg)
{
	(void)arg;
	return running == 0 ? -1 : 0;
}

static void run_all(void)
{
	co_eventloop(co_get_epoll_ct(), all_ended, NULL);
	CHECK(running == 0);
}

struct task {
	stCoRoutine_t *co;
	void (*body)(struct task *);
	int number;
	int fd;
};

static void *with_hooks(void *arg)
{
	struct task *task = arg;
	co_enable_hook_sys();
	task->body(task);
	--running;
	return NULL;
}

static void go(struct task *task, void (*body)(struct task *), int number, const stCoRoutineAttr_t *attr)
{
	task->body = body;
	task->number = number;
	CHECK(co_create(&task->co, attr, with_hooks, task) == 0);
	++running;
	co_resume(task->co);
}

/* ---- switches ---- */

static int steps;

static void counts(struct task *task)
{
	volatile char bytes[3000];
	for (int round = 0; round < 100; ++round) {
		for (size_t i = 0; i < sizeof bytes; ++i)
			bytes[i] = (char)(task->number + (int)i + round);
		++steps;
		co_yield_ct();
		for (size_t i = 0; i < sizeof bytes; ++i)
			CHECK(bytes[i] == (char)(task->number + (int)i + round));
	}
}

static void check_switches(stShareStack_t *share)
{
	struct task tasks[MANY];
	stCoRoutineAttr_t attr = { 128 * 1024, share };
	steps = 0;
	for (int i = 0; i < MANY; ++i)
		go(&tasks[i], counts, i, &attr);
	while (running > 0)
		for (int i = 0; i < MANY; ++i)
			if (steps <= MANY * 100 && running > 0)
				co_resume(tasks[i].co);
	CHECK(steps == MANY * 100);
	for (int i = 0; i < MANY; ++i)
		co_release(tasks[i].co);
	printf("switches, %s stacks: %d\n", share ? "copy" : "private", steps);
}

static void *own_environment(void *arg)
{
	check_switches(NULL);
	*(int *)arg = 1;
	return NULL;
}

static void check_thread(void)
{
	pthread_t thread;
	int done = 0;
	CHECK(pthread_create(&thread, NULL, own_environment, &done) == 0);
	CHECK(pthread_join(thread, NULL) == 0 && done);
	printf("a thread with coroutines has ended\n");
}

/* ---- sockets ---- */

static int listener;
static struct sockaddr_in address;
static int connected;

static void serves(struct task *task)
{
	char bytes[4096];
	ssize_t n;
	while ((n = read(task->fd, bytes, sizeof bytes)) > 0)
		CHECK(write(task->fd, bytes, (size_t)n) == n);
	CHECK(n == 0);
	CHECK(close(task->fd) == 0);
}

static void accepts(struct task *task)
{
	static struct task servers[MANY];
	(void)task;
	for (int i = 0; i < MANY; ++i) {
		int fd = accept(listener, NULL, NULL);
		CHECK(fd >= 0);
		servers[i].fd = fd;
		go(&servers[i], serves, i, NULL);
	}
}

static void asks(struct task *task)
{
	char sent[20000], got[20000];
	size_t have = 0;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(fd >= 0);
	CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
	++connected;
	while (connected < MANY) /* the others connect meanwhile */
		CHECK(poll(NULL, 0, 1) == 0);
	memset(sent, task->number + 1, sizeof sent);
	CHECK(write(fd, sent, sizeof sent) == (ssize_t)sizeof sent);
	while (have < sizeof got) {
		struct pollfd one = { fd, POLLIN, 0 };
		CHECK(poll(&one, 1, 10000) == 1 && one.revents == POLLIN);
		ssize_t n = recv(fd, got + have, sizeof got - have, 0);
		CHECK(n > 0);
		have += (size_t)n;
	}
	CHECK(memcmp(sent, got, sizeof got) == 0);
	CHECK(shutdown(fd, SHUT_WR) == 0);
	CHECK(read(fd, got, 1) == 0);
	CHECK(close(fd) == 0);
}

static void check_sockets(void)
{
	struct task acceptor, tasks[MANY];
	socklen_t len = sizeof address;
	address.sin_family = AF_INET;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
	CHECK(listen(listener, MANY) == 0 && getsockname(listener, (struct sockaddr *)&address, &len) == 0);
	CHECK(co_hook_fd(listener) == 0);
	go(&acceptor, accepts, 0, NULL);
	for (int i = 0; i < MANY; ++i)
		go(&tasks[i], asks, i, NULL);
	run_all();
	close(listener);
	printf("sockets: %d connections at once, all bytes back\n", connected);
}

static void times_out(struct task *task)
{
	int pair[2];
	char byte;
	struct timeval limit = { 0, 20000 };
	(void)task;
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	CHECK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
	errno = 0;
	CHECK(read(pair[0], &byte, 1) == -1 && errno == EAGAIN);
	struct pollfd one = { pair[0], POLLIN, 0 };
	CHECK(poll(&one, 1, 10) == 0);
	close(pair[0]);
	close(pair[1]);
}

/* ---- time: who wakes first sleeps least, whoever began first ---- */

static int wakes, order[4];

static void sleeps(struct task *task)
{
	struct timespec time = { 0, 80 * 1000000 };
	switch (task->number) {
	case 3: CHECK(sleep(1) == 0); break;
	case 2: CHECK(usleep(160 * 1000) == 0); break;
	case 1: CHECK(nanosleep(&time, NULL) == 0); break;
	default: CHECK(poll(NULL, 0, 1) == 0); break;
	}
	order[wakes++] = task->number;
}

static void check_time(void)
{
	struct task tasks[5];
	for (int i = 3; i >= 0; --i)
		go(&tasks[i], sleeps, i, NULL);
	go(&tasks[4], times_out, 0, NULL);
	run_all();
	for (int i = 0; i < 4; ++i)
		CHECK(order[i] == i);
	printf("sleep, usleep, nanosleep, poll: at once, and each its own time\n");
}

/* ---- messages: musl's msghdr has padding where the kernel has the upper half of a number ---- */

union control {
	struct cmsghdr head;
	char room[CMSG_SPACE(sizeof(int))];
};

/* Garbage in all that the program does not have to fill in. */
static void fill(struct msghdr *message, struct iovec *part, union control *control)
{
	memset(message, 0xff, sizeof *message);
	memset(control, 0xff, sizeof *control);
	message->msg_name = NULL;
	message->msg_namelen = 0;
	message->msg_iov = part;
	message->msg_iovlen = 1;
	message->msg_control = control;
	message->msg_controllen = sizeof control->room;
	message->msg_flags = 0;
}

static void passes_a_file(struct task *task)
{
	int pair[2], ends[2], got;
	char byte = 'x';
	struct iovec part = { &byte, 1 };
	union control control;
	struct mmsghdr many[1];
	(void)task;
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && pipe(ends) == 0);
	fill(&many[0].msg_hdr, &part, &control);
	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.head), &ends[1], sizeof(int));
	if (task->number == 0)
		CHECK(sendmsg(pair[0], &many[0].msg_hdr, 0) == 1);
	else
		CHECK(sendmmsg(pair[0], many, 1, 0) == 1 && many[0].msg_len == 1);
	fill(&many[0].msg_hdr, &part, &control);
	if (task->number == 0)
		CHECK(recvmsg(pair[1], &many[0].msg_hdr, 0) == 1);
	else
		CHECK(recvmmsg(pair[1], many, 1, 0, NULL) == 1 && many[0].msg_len == 1);
	struct cmsghdr *head = CMSG_FIRSTHDR(&many[0].msg_hdr);
	CHECK(head && head->cmsg_type == SCM_RIGHTS && head->cmsg_len == CMSG_LEN(sizeof(int)));
	memcpy(&got, CMSG_DATA(head), sizeof got);
	CHECK(write(got, "y", 1) == 1 && read(ends[0], &byte, 1) == 1 && byte == 'y');
	close(got);
	for (int i = 0; i < 2; ++i) {
		close(pair[i]);
		close(ends[i]);
	}
}

/* Two messages of more than a socket takes at once, one behind the other. */

enum { LARGE = 300000 };
static char large[LARGE], arrived[2 * LARGE];
static int stream[2];

static void takes_all(struct task *task)
{
	size_t have = 0;
	ssize_t n;
	(void)task;
	while ((n = read(stream[1], arrived + have, sizeof arrived - have)) > 0)
		have += (size_t)n;
	CHECK(have == sizeof arrived);
	CHECK(memcmp(arrived, large, LARGE) == 0 && memcmp(arrived + LARGE, large, LARGE) == 0);
	close(stream[1]);
}

static void sends_large(struct task *task)
{
	struct iovec part = { large, LARGE };
	struct mmsghdr two[2] = { 0 };
	static struct task taker; /* outlives this one */
	(void)task;
	for (int i = 0; i < LARGE; ++i)
		large[i] = (char)(i % 251);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0);
	go(&taker, takes_all, 0, NULL);
	for (int i = 0; i < 2; ++i) {
		two[i].msg_hdr.msg_iov = &part;
		two[i].msg_hdr.msg_iovlen = 1;
	}
	CHECK(sendmmsg(stream[0], two, 2, 0) == 2 && two[0].msg_len == LARGE && two[1].msg_len == LARGE);
	close(stream[0]);
}

static void check_messages(void)
{
	struct task tasks[3];
	/* On the thread itself the call is the plain one. */
	for (int i = 0; i < 2; ++i) {
		tasks[i].number = i;
		passes_a_file(&tasks[i]);
		go(&tasks[i], passes_a_file, i, NULL);
	}
	go(&tasks[2], sends_large, 0, NULL);
	run_all();
	printf("messages: a file passed, whatever the padding holds; large ones whole\n");
}

/* ---- the environment ---- */

static void has_its_own(struct task *task)
{
	char value[8];
	snprintf(value, sizeof value, "%d", task->number);
	CHECK(setenv("OWN", value, 1) == 0 && setenv("SHARED", value, 1) == 0);
	co_yield_ct();
	CHECK(strcmp(getenv("OWN"), value) == 0);
	CHECK(strcmp(getenv("SHARED"), "1") == 0);
}

static void check_environment(void)
{
	struct task tasks[2];
	const char *names[] = { "OWN" };
	CHECK(getenv("SHARED") == NULL);
	CHECK(setenv("A", "1", 1) == 0 && setenv("AB", "2", 1) == 0 && setenv("A", "3", 0) == 0);
	CHECK(strcmp(getenv("A"), "1") == 0);
	CHECK(unsetenv("A") == 0 && getenv("A") == NULL && strcmp(getenv("AB"), "2") == 0);
	CHECK(unsetenv("none") == 0 && unsetenv("") == -1 && unsetenv("A=") == -1);
	CHECK(putenv((char *)"A=4") == 0 && strcmp(getenv("A"), "4") == 0 && putenv((char *)"A") == 0 && !getenv("A"));
	co_set_env_list(names, 1);
	for (int i = 0; i < 2; ++i)
		go(&tasks[i], has_its_own, i, NULL);
	for (int i = 0; i < 2; ++i)
		co_resume(tasks[i].co);
	CHECK(running == 0 && getenv("OWN") == NULL);
	printf("environment: private names are private, others are not\n");
}

/* ---- streams ---- */

static void closes_a_stream(struct task *task)
{
	char line[16];
	int pair[2];
	(void)task;
	for (int i = 0; i < 3; ++i) {
		CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
		FILE *stream = fdopen(pair[0], "r");
		CHECK(stream && write(pair[1], "hello\n", 6) == 6);
		CHECK(fgets(line, sizeof line, stream) && strcmp(line, "hello\n") == 0);
		CHECK(fclose(stream) == 0);
		CHECK(read(pair[0], line, 1) == -1 && errno == EBADF);
		CHECK(close(pair[1]) == 0);
	}
}

/* ---- names: the name server answers when everybody has asked ---- */

static int looked_up;

/* The first label of a question: a letter for who asks, and a number. */
static int number_of(const unsigned char *packet, ssize_t size)
{
	return size > 16 && packet[12] == 3 ? (packet[14] - '0') * 10 + packet[15] - '0' : -1;
}

static void *name_server(void *arg)
{
	static unsigned char packets[MANY][512];
	ssize_t sizes[MANY] = { 0 };
	struct sockaddr_in from[MANY];
	int fd = *(int *)arg;
	for (int asked = 0; asked < MANY;) {
		unsigned char packet[512];
		struct sockaddr_in who;
		socklen_t len = sizeof who;
		ssize_t size = recvfrom(fd, packet, 400, 0, (struct sockaddr *)&who, &len);
		int number = number_of(packet, size);
		CHECK(number >= 0 && number < MANY);
		asked += sizes[number] == 0;
		memcpy(packets[number], packet, sizeof packet);
		sizes[number] = size;
		from[number] = who;
	}
	for (int i = 0; i < MANY; ++i) {
		/* The question's name (a pointer to it), A, IN, 60 s, four bytes. */
		unsigned char answer[16] = { 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 1, 2, (unsigned char)i };
		packets[i][2] |= 0x80;
		packets[i][7] = 1;
		memcpy(packets[i] + sizes[i], answer, sizeof answer);
		sendto(fd, packets[i], (size_t)sizes[i] + sizeof answer, 0, (struct sockaddr *)&from[i], sizeof from[i]);
	}
	return NULL;
}

static void looks_up(struct task *task)
{
	char name[32];
	struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *list = NULL;
	struct in_addr got, expected = { htonl(0x0a010200u + (unsigned)task->number) };
	snprintf(name, sizeof name, "n%02d.test", task->number);
	if (task->number % 2) {
		CHECK(getaddrinfo(name, "80", &hints, &list) == 0);
		got = ((struct sockaddr_in *)list->ai_addr)->sin_addr;
		freeaddrinfo(list);
	} else {
		struct hostent *host = gethostbyname(name);
		CHECK(host);
		memcpy(&got, host->h_addr_list[0], sizeof got);
	}
	CHECK(got.s_addr == expected.s_addr);
	++looked_up;
}

/* A network of this process's own whose name server is at 127.0.0.1; 0 if the system allows none. */
static int enter_network(const char *resolv_conf)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd, up;
	if (unshare(CLONE_NEWNS | CLONE_NEWNET | (geteuid() ? CLONE_NEWUSER : 0)) != 0)
		return 0;
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	up = ioctl(fd, SIOCSIFFLAGS, &request);
	close(fd);
	return up == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount(resolv_conf, "/etc/resolv.conf", NULL, MS_BIND, NULL) == 0;
}

static void check_names(const char *resolv_conf)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(53) };
	struct task tasks[MANY];
	struct hostent *host;
	pthread_t thread;
	int fd;
	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (!enter_network(resolv_conf)) {
		printf("names: skipped: this system allows no network of its own\n");
		return;
	}
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
	CHECK(pthread_create(&thread, NULL, name_server, &fd) == 0);
	CHECK(co_set_helper_threads(MANY) == 0); /* gethostbyname's */
	for (int i = 0; i < MANY; ++i)
		go(&tasks[i], looks_up, i, NULL);
	run_all();
	CHECK(pthread_join(thread, NULL) == 0);
	close(fd);
	CHECK((host = gethostbyname("127.0.0.1")) && host->h_length == 4);
	printf("names: %d looked up at once\n", looked_up);
}

/* ---- misuse is reported with its caller, which takes the unwinder; an overflow is named, by the handler ---- */

static char said[512];

static void hear(const char *text)
{
	snprintf(said, sizeof said, "%s", text);
}

__attribute__((noinline)) static void misuses(void)
{
	co_resume(NULL);
	__asm__ volatile("");
}

/* musl runs the ends of a thread on the stack that pthread_exit was called on. */
static stCoRoutine_t *outer, *inner;

static void *exits(void *arg)
{
	(void)arg;
	pthread_exit(NULL);
}

static void *resumes(void *co)
{
	co_resume(*(stCoRoutine_t **)co);
	return NULL;
}

static void *ends_in_a_coroutine(void *arg)
{
	(void)arg;
	CHECK(co_create(&inner, NULL, exits, NULL) == 0);
	CHECK(co_create(&outer, NULL, resumes, &inner) == 0);
	co_resume(outer);
	return NULL;
}

static void check_exit(void)
{
	pthread_t thread;
	CHECK(pthread_create(&thread, NULL, ends_in_a_coroutine, NULL) == 0);
	CHECK(pthread_join(thread, NULL) == 0);
	CHECK(outer->cEnd == 1);
	co_set_log_handler(hear);
	co_release(outer);
	CHECK(said[0] == 0);
	co_release(inner);
	CHECK(strstr(said, "is not freed: its thread ended on its stack") != NULL);
	co_set_log_handler(NULL);
	said[0] = 0;
	printf("pthread_exit in a coroutine: the other one is freed\n");
}

static void check_misuse(void)
{
	const char *from;
	co_set_log_handler(hear);
	misuses();
	co_set_log_handler(NULL);
	from = strstr(said, "(called from ");
	CHECK(from);
	size_t at = strtoul(from + strlen("(called from "), NULL, 16), start = (size_t)misuses;
	CHECK(at > start && at < start + 64);
	printf("misuse: reported with its caller\n");
}

__attribute__((noinline)) static int descends(int depth)
{
	volatile char bytes[1000];
	bytes[0] = (char)depth;
	return depth == 0 ? 0 : descends(depth - 1) + bytes[0];
}

static void overflows(struct task *task)
{
	(void)task;
	descends(1000000);
}

static void check_overflow(void)
{
	struct task task;
	int pair[2], status;
	char text[1024] = "";
	CHECK(pipe(pair) == 0);
	pid_t child = fork();
	if (child == 0) {
		syscall(SYS_dup3, pair[1], 2, 0);
		go(&task, overflows, 0, NULL);
		_exit(0);
	}
	close(pair[1]);
	CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	CHECK(read(pair[0], text, sizeof text - 1) > 0);
	CHECK(strstr(text, "ran off its stack"));
	close(pair[0]);
	printf("overflow: %s", text);
}

int main(int argc, char **argv)
{
	struct task task;
	CHECK(argc == 2);
	setvbuf(stdout, NULL, _IOLBF, 0);
	check_switches(NULL);
	check_switches(co_alloc_sharestack(2, 128 * 1024));
	check_thread();
	CHECK(co_set_hooks("all") == 0);
	check_sockets();
	check_time();
	check_messages();
	check_environment();
	go(&task, closes_a_stream, 0, NULL);
	run_all();
	printf("streams: closed, and their numbers with them\n");
	check_exit();
	check_misuse();
	check_overflow();
	check_names(argv[1]);
	printf("all passed\n");
	return 0;
}
