// A service as it was written for libco: its own declarations, C++ linkage, raw looks into the
// coroutine. Compiled without any header of the library.
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct stCoRoutine_t;
struct stCoRoutineAttr_t;
struct stCoEpoll_t;
struct stCoRoutineEnv_t;

int co_create(stCoRoutine_t **co, const stCoRoutineAttr_t *attr, void *(*routine)(void *), void *arg);
void co_resume(stCoRoutine_t *co);
void co_yield_ct();
void co_free(stCoRoutine_t *co);
void co_reset(stCoRoutine_t *co);
stCoRoutine_t *co_self();
stCoEpoll_t *co_get_epoll_ct();
void co_eventloop(stCoEpoll_t *ctx, int (*pfn)(void *), void *arg);
void co_enable_hook_sys();
int co_accept(int fd, struct sockaddr *addr, socklen_t *len);
int co_setspecific(unsigned int key, const void *value);
void *co_getspecific(unsigned int key);
void co_init_curr_thread_env();
stCoRoutineEnv_t *co_get_curr_thread_env();
void co_log_err(const char *fmt, ...);

class clsCoMutex {
  public:
	clsCoMutex();
	~clsCoMutex();
	void CoLock();
	void CoUnLock();

  private:
	void *condition;
	int users;
};

static char *at(stCoRoutine_t *co, int offset) { return reinterpret_cast<char *>(co) + offset; }

enum { START = 152, END = 153, IS_MAIN = 154, SPEC0 = 200 };

static int resumes;

static void *counts(void *)
{
	for (;;) {
		resumes++;
		co_yield_ct();
		if (resumes == 4)
			return 0;
	}
}

static void *specific(void *)
{
	*reinterpret_cast<const char **>(at(co_self(), SPEC0)) = "seven";
	printf("spec %s\n", static_cast<const char *>(co_getspecific(0)));
	return 0;
}

static int pair[2];
static bool done;

static void *echoes(void *)
{
	co_enable_hook_sys();
	char buffer[16] = "";
	if (read(pair[0], buffer, sizeof buffer - 1) > 0)
		printf("echo %s\n", buffer);
	done = true;
	return 0;
}

static clsCoMutex *mutex;
static int locked;

static void *locks(void *)
{
	mutex->CoLock();
	co_yield_ct();
	locked++;
	mutex->CoUnLock();
	return 0;
}

static int until_done(void *) { return done ? -1 : 0; }
static int until_locked(void *arg)
{
	// Whoever holds the mutex yields once: resume all of them in turn.
	stCoRoutine_t **all = static_cast<stCoRoutine_t **>(arg);
	for (int i = 0; i < 3; i++)
		if (!*at(all[i], END) && locked == i) {
			co_resume(all[i]);
			break;
		}
	return locked == 3 ? -1 : 0;
}

int main()
{
	co_init_curr_thread_env();
	if (co_get_curr_thread_env() == 0 || !*at(co_self(), IS_MAIN))
		return 1;

	stCoRoutine_t *co = 0;
	if (co_create(&co, 0, counts, 0) != 0 || *at(co, START))
		return 2;
	while (!*at(co, END))
		co_resume(co);
	printf("resumes %d\n", resumes);
	co_free(co);

	co_create(&co, 0, specific, 0);
	co_resume(co);
	int ended = *at(co, END);
	*reinterpret_cast<const char **>(at(co_self(), SPEC0)) = "nine";
	printf("main spec %s\n", *reinterpret_cast<const char **>(at(co_self(), SPEC0)));
	printf("ended %d\n", ended);
	co_free(co);

	resumes = 0;
	co_create(&co, 0, counts, 0);
	co_resume(co);
	*at(co, START) = 0; // as co_reset
	*at(co, END) = 0;
	co_resume(co);
	printf("reset %d\n", resumes);
	co_free(co);

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0 || write(pair[1], "ping", 4) != 4)
		return 3;
	co_create(&co, 0, echoes, 0);
	co_resume(co);
	co_eventloop(co_get_epoll_ct(), until_done, 0);
	co_free(co);

	clsCoMutex one;
	mutex = &one;
	stCoRoutine_t *all[3];
	for (int i = 0; i < 3; i++) {
		co_create(&all[i], 0, locks, 0);
		co_resume(all[i]);
	}
	co_eventloop(co_get_epoll_ct(), until_locked, all);
	printf("locked %d\n", locked);
	for (int i = 0; i < 3; i++)
		co_free(all[i]);

	co_log_err("formatted %d %s %f", 1, "two", 3.0);
	puts("ok");
	return 0;
}
