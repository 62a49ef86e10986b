// Memory of a coroutine that is blocked in a hooked read on a copy stack with 256 bytes of locals, and how
// it splits.
//
//   blocked [COUNT]
//
// COUNT is bounded by the limit of descriptors. Each coroutine opens a datagram socket and reads from it;
// when all are blocked and measured, each gets its datagram, compares its locals and ends.
#include "scale.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "counted.h"

#include "co_routine.h"
#include "co_routine_inner.h"

static long wrong, finished;
static int *sockets;
static char received[8];

__attribute__((noinline)) static int open_socket(long index)
{
    sockaddr_un address;
    timeval patience = {1000, 0};
    int fd;

    co_enable_hook_sys();
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    memset(&address, 0, sizeof(address));
    address.sun_family = AF_UNIX;
    // Without a name the kernel chooses one.
    if (fd < 0 || bind(fd, (sockaddr *)&address, sizeof(address.sun_family)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0)
        fail("socket %ld: %s", index, strerror(errno));
    sockets[index] = fd;
    return fd;
}

__attribute__((noinline)) static void close_socket(long index)
{
    close(sockets[index]);
    finished++;
}

static void *blocked(void *argument)
{
    uint64_t locals[LOCAL_WORDS];

    fill_locals(locals, (uintptr_t)argument);
    open_socket((long)(intptr_t)argument);
    co_yield_ct();
    if (read(sockets[(intptr_t)argument], received, sizeof(received)) != sizeof(received) ||
        !same_locals(locals, (uintptr_t)argument))
        wrong++;
    close_socket((long)(intptr_t)argument);
    return nullptr;
}

static void *nothing(void *) { return nullptr; }

static long count;

static void wake(long index)
{
    sockaddr_un address;
    socklen_t length = sizeof(address);
    static int sender = -1;

    if (sender < 0)
        sender = (int)syscall(SYS_socket, AF_UNIX, SOCK_DGRAM, 0);
    if (getsockname(sockets[index], (sockaddr *)&address, &length) != 0 ||
        syscall(SYS_sendto, sender, "datagram", 8, 0, &address, length) != 8)
        fail("cannot wake coroutine %ld: %s", index, strerror(errno));
}

// The sender's buffer holds a few hundred datagrams that nobody has read yet.
static int wake_some(void *)
{
    static long woken;

    while (woken <= count && woken < finished + 100)
        wake(woken++);
    return finished == count + 1 ? -1 : 0;
}

int main(int argc, char **argv)
{
    rlimit files;
    stCoRoutineAttr_t attributes;
    stCoRoutine_t **all, *last;
    Counts start, opened, waiting;
    long long base, created, yielded, reading;
    long wish = number_argument(argc, argv, 1, 16000);

    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    count = (long)files.rlim_cur - 64 < wish ? (long)files.rlim_cur - 64 : wish;
    if (count < 100)
        fail("too few descriptors: raise `ulimit -n`");
    all = (stCoRoutine_t **)malloc((size_t)count * sizeof(*all));
    sockets = (int *)malloc(((size_t)count + 1) * sizeof(int));
    memset(all, 1, (size_t)count * sizeof(*all));
    memset(sockets, 1, ((size_t)count + 1) * sizeof(int));
    attributes.share_stack = co_alloc_sharestack(1, 64 * 1024);

    // One is there before the counting starts: what the loop and the tables bring once belongs to it.
    co_create(&last, &attributes, blocked, (void *)(intptr_t)count);
    co_resume(last);
    co_resume(last);
    co_create(&all[0], &attributes, nothing, nullptr);
    co_resume(all[0]);
    co_release(all[0]);
    resident();

    base = resident();
    start = counts;
    for (long i = 0; i < count; i++)
        if (co_create(&all[i], &attributes, blocked, (void *)(intptr_t)i) != 0)
            fail("co_create: no memory");
    created = resident();
    for (long i = 0; i < count; i++)
        co_resume(all[i]);
    yielded = resident();
    opened = counts;
    unsigned save_yield = all[0]->save_size;
    for (long i = 0; i < count; i++)
        co_resume(all[i]);
    reading = resident();
    waiting = counts;
    unsigned save_read = all[0]->save_size;

    co_eventloop(co_get_epoll_ct(), wake_some, nullptr);
    if (wrong)
        fail("%ld of %ld coroutines came back with wrong bytes", wrong, count);

    double n = (double)count, total = (double)(reading - base) / n, block = (double)(created - base) / n;
    double record = (double)(opened - start).heap_bytes / n, registration = (double)(waiting - opened).heap_bytes / n;
    if (strcmp(variant(), "ours") == 0) {
        figure("blocked-block", count, block, "B");
        figure("blocked-saved-stack", count, save_read, "B");
        figure("blocked-saved-stack-in-yield", count, save_yield, "B");
        figure("blocked-record", count, record, "B");
        figure("blocked-registration", count, registration, "B");
        figure("blocked-rest", count, total - block - save_read - record - registration, "B");
        figure("blocked-before-the-read", count, (double)(yielded - base) / n, "B");
    }
    figure("memory-blocked", count, total, "B");
    return 0;
}
