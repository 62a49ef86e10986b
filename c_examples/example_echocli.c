/*
 * An echo client: many coroutines in several processes send messages and check what comes back.
 *
 *   cc -std=c11 -Iinclude c_examples/example_echocli.c lib/libcolib.a -lpthread -ldl -lm -o example_echocli
 *   ./example_echocli 127.0.0.1 8000 100 2 5
 *
 * Arguments: IP PORT TASK_COUNT PROCESS_COUNT [SECONDS]
 *   Each of PROCESS_COUNT processes keeps TASK_COUNT connections busy, for SECONDS or until SIGTERM or SIGINT.
 *
 * Prints each second "second 1: succeeded 41234, failed 0" (messages of that second) and at the end
 * "total: succeeded 206170, failed 0, wrong 0". Status 0 if something came back and no byte of it was wrong, else 1.
 */
#include "example_server.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>

static const char USAGE[] = "IP PORT TASK_COUNT PROCESS_COUNT [SECONDS]";

enum { LONGEST_MESSAGE = 1024, RETRY_MS = 100 };

/* One process's counts, in memory that the first process reads. */
struct counts {
    alignas(64) atomic_ulong succeeded;
    atomic_ulong failed;
    atomic_ulong wrong;
};

static struct sockaddr_in address;
static long task_count;
static struct counts *counts; /* one a process */
static struct counts *mine;

enum outcome { SUCCEEDED, FAILED, WRONG };

/* Sends one message and reads it back. Blocking calls in form; in truth other coroutines run while this one waits. */
static enum outcome exchange(int fd, unsigned seed)
{
    unsigned char sent[LONGEST_MESSAGE];
    unsigned char got[LONGEST_MESSAGE];
    size_t length = 1 + seed % LONGEST_MESSAGE;
    size_t have = 0;

    for (size_t i = 0; i < length; i++)
        sent[i] = (unsigned char)(seed * 31 + i * 7);
    if (write(fd, sent, length) != (ssize_t)length)
        return FAILED;
    while (have < length) {
        ssize_t count = read(fd, got + have, length - have);

        if (count <= 0)
            return FAILED;
        have += (size_t)count;
    }
    return memcmp(sent, got, length) == 0 ? SUCCEEDED : WRONG;
}

/* The first failed connect of a process says why; the others are counted. */
static bool told_why;

static void *client_routine(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;

    co_enable_hook_sys();
    for (;;) {
        enum outcome outcome = FAILED;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
            while ((outcome = exchange(fd, seed)) == SUCCEEDED) {
                atomic_fetch_add_explicit(&mine->succeeded, 1, memory_order_relaxed);
                seed += 617;
            }
        } else if (!told_why) {
            told_why = true;
            fprintf(stderr, "%s: cannot connect: %s\n", program_invocation_short_name, strerror(errno));
        }
        atomic_fetch_add_explicit(outcome == WRONG ? &mine->wrong : &mine->failed, 1, memory_order_relaxed);
        if (fd >= 0)
            close(fd);
        poll(NULL, 0, RETRY_MS); /* a hooked poll without descriptors sleeps */
    }
    return NULL;
}

static void start_coroutines(long index, void *unused)
{
    (void)unused;
    mine = &counts[index];
    for (long i = 0; i < task_count; i++)
        ex_start(client_routine, (void *)(uintptr_t)(index * task_count + i));
}

struct sum {
    unsigned long succeeded, failed, wrong;
};

static struct sum add_up(long process_count)
{
    struct sum sum = {0, 0, 0};

    for (long i = 0; i < process_count; i++) {
        sum.succeeded += atomic_load_explicit(&counts[i].succeeded, memory_order_relaxed);
        sum.failed += atomic_load_explicit(&counts[i].failed, memory_order_relaxed);
        sum.wrong += atomic_load_explicit(&counts[i].wrong, memory_order_relaxed);
    }
    return sum;
}

int main(int argc, char **argv)
{
    struct ex_workers workers;
    struct sum sum, before = {0, 0, 0};
    enum ex_news news = EX_TIME_IS_OVER;
    long port, process_count, seconds = 0, bad;

    if (argc < 5)
        ex_bad_input(USAGE, "too few arguments");
    if (argc > 6)
        ex_bad_input(USAGE, "unexpected argument '%s'", argv[6]);
    port = ex_number(USAGE, "PORT", argv[2], 1, 65535);
    address = ex_address(USAGE, argv[1], port);
    task_count = ex_number(USAGE, "TASK_COUNT", argv[3], 1, 1000000);
    process_count = ex_number(USAGE, "PROCESS_COUNT", argv[4], 1, 1024);
    if (argc == 6)
        seconds = ex_number(USAGE, "SECONDS", argv[5], 1, 1000000);

    ex_raise_descriptor_limit();
    counts = mmap(NULL, (size_t)process_count * sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED)
        ex_die("mmap");
    workers = ex_start_workers(process_count, start_coroutines, NULL);
    for (long second = 1; (seconds == 0 || second <= seconds) && news == EX_TIME_IS_OVER; second++) {
        news = ex_wait_for_workers(1000);
        sum = add_up(process_count);
        printf("second %ld: succeeded %lu, failed %lu\n", second, sum.succeeded - before.succeeded,
               sum.failed - before.failed);
        fflush(stdout);
        before = sum;
    }
    bad = ex_stop_workers(&workers);
    sum = add_up(process_count);
    printf("total: succeeded %lu, failed %lu, wrong %lu\n", sum.succeeded, sum.failed, sum.wrong);
    return sum.succeeded > 0 && sum.wrong == 0 && bad == 0 && news != EX_WORKER_DIED ? EXIT_SUCCESS : EXIT_FAILURE;
}
