// Whether the memory of private stacks goes back to the kernel when their coroutines have ended.
//
//   memory-back [COUNT]
//
// COUNT coroutines touch 16 KiB of stack each and yield (the peak), then run to their end. The loop is then
// given nothing to do for a minute. Another process waits until it sleeps and reads its memory. Done twice:
// with ended coroutines kept, and with ended coroutines released. The figure is how much of what was added
// up to the peak is back, in per cent.
#include "scale.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "co_routine.h"

struct Told {
    volatile long long before, peak;
    volatile int ended;
};

static void *touches(void *)
{
    char bytes[16 * 1024];

    memset(bytes, 1, sizeof(bytes));
    __asm__ volatile("" : : "r"(bytes) : "memory");
    co_yield_ct();
    __asm__ volatile("" : : "r"(bytes) : "memory");
    return nullptr;
}

static void *sleeps(void *argument)
{
    co_enable_hook_sys();
    ((Told *)argument)->ended = 1;
    poll(nullptr, 0, 60000);
    return nullptr;
}

static void run(Told *told, long count, bool released)
{
    stCoRoutine_t **all = (stCoRoutine_t **)malloc((size_t)count * sizeof(*all)), *last;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    memset(all, 1, (size_t)count * sizeof(*all));
    co_create(&last, nullptr, touches, nullptr);
    co_resume(last);
    resident();
    told->before = resident();
    for (long i = 0; i < count; i++) {
        if (co_create(&all[i], nullptr, touches, nullptr) != 0)
            fail("co_create: no memory");
        co_resume(all[i]);
    }
    told->peak = resident();
    for (long i = 0; i < count; i++) {
        co_resume(all[i]);
        if (released)
            co_release(all[i]);
    }
    co_create(&last, nullptr, sleeps, told);
    co_resume(last);
    co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
}

// Sleeping in the kernel, seen twice in a row: the loop has gone to rest.
static void wait_until_asleep(pid_t pid, Told *told)
{
    char path[64], text[512];
    int seen = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    for (int tries = 0; tries < 6000 && seen < 3; tries++) {
        if (waitpid(pid, nullptr, WNOHANG) == pid)
            fail("the measured process ended before its time");
        usleep(10000);
        if (!told->ended || read_file(path, text, sizeof(text)) <= 0)
            continue;
        const char *state = strrchr(text, ')');
        seen = state && state[2] == 'S' ? seen + 1 : 0;
    }
    if (seen < 3)
        fail("the loop does not go to sleep");
}

int main(int argc, char **argv)
{
    long count = number_argument(argc, argv, 1, 100000);

    need_memory(21000. * (double)count, "memory-back");
    for (int released = 0; released < 2; released++) {
        Told *told = (Told *)mmap(nullptr, sizeof(Told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        pid_t pid = fork();

        if (pid < 0 || told == MAP_FAILED)
            fail("cannot start a process: %s", strerror(errno));
        if (pid == 0)
            run(told, count, released);
        wait_until_asleep(pid, told);
        long long after = resident(pid);
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
        double back = 100 * (double)(told->peak - after) / (double)(told->peak - told->before);
        printf("{\"work\":\"memory-back-%s\",\"variant\":\"%s\",\"x\":%ld,\"better\":\"higher\","
               "\"note\":\"peak %.0f MB, asleep %.0f MB\",\"value\":%.4g,\"unit\":\"%%\"}\n",
               released ? "released" : "ended", variant(), count, (double)told->peak / 1e6, (double)after / 1e6, back);
        fflush(stdout);
    }
    return 0;
}
