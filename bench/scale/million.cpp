// One million established TCP connections over loopback, served by plain blocking read and write in
// coroutines on copy stacks.
//
//   million [CONNECTIONS]
//
// A process may have only so many descriptors, so the connections are spread: pairs of a server and a client
// process, each pair at an address of its own (127.1.N.1), inside a new network namespace whose port range is
// widened. Every connection is echoed when it is made and once more when all are there; the client compares
// each byte. The server processes' memory is summed as PSS, less what they had before the first connection.
// Prints progress and a table. Status 1 if a connection was not echoed correctly.
#include "scale.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "co_routine.h"
#include "co_routine_inner.h"

enum {
    MESSAGE = 64,
    BATCH = 128, // connections a client has under way at once
    PORT = 4000,      // the same in every pair: the addresses differ
    SPARE = 64,       // descriptors a process needs for itself
    MOST_PORTS = 60000,
    MOST_PAIRS = 250
};

enum Phase { LISTENING, CONNECTING, ECHOING, ENDING };

// What the processes tell each other.
struct Shared {
    volatile int phase;
    volatile int ready_servers;
    struct {
        volatile long connected, echoed, again, wrong;
        volatile long accepted; // by the server
        char complaint[128];
    } pair[MOST_PAIRS];
};

static Shared *shared;
static long per_pair;
static pid_t servers[MOST_PAIRS], clients[MOST_PAIRS];
static long pairs;

static sockaddr_in address_of(long pair)
{
    sockaddr_in address;

    memset(&address, 0, sizeof(address));
    address.sin_family = AF_INET;
    address.sin_port = htons(PORT);
    address.sin_addr.s_addr = htonl(0x7f010001u + ((uint32_t)pair << 8));
    return address;
}

// ---- server ----------------------------------------------------------------------------------------------

static void *serve(void *argument)
{
    int fd = (int)(intptr_t)argument;
    char message[MESSAGE];

    co_enable_hook_sys();
    for (;;) {
        ssize_t got = read(fd, message, sizeof(message));
        if (got <= 0 || write(fd, message, (size_t)got) != got)
            break;
    }
    close(fd);
    return nullptr;
}

struct Server {
    int listener;
    long pair;
    stShareStack_t *stacks;
};

static void *accept_all(void *argument)
{
    Server *server = (Server *)argument;
    stCoRoutineAttr_t attributes;

    co_enable_hook_sys();
    attributes.share_stack = server->stacks;
    __sync_fetch_and_add(&shared->ready_servers, 1);
    for (;;) {
        int fd = co_accept(server->listener, nullptr, nullptr);
        if (fd < 0) {
            pollfd one = {server->listener, POLLIN, 0};
            if (errno != EAGAIN)
                snprintf(shared->pair[server->pair].complaint, sizeof(shared->pair[0].complaint), "accept: %s",
                         strerror(errno));
            poll(&one, 1, errno == EAGAIN ? -1 : 100);
            continue;
        }
        stCoRoutine_t *co;
        if (co_create(&co, &attributes, serve, (void *)(intptr_t)fd) != 0) {
            snprintf(shared->pair[server->pair].complaint, sizeof(shared->pair[0].complaint),
                     "co_create: no memory");
            close(fd);
            continue;
        }
        shared->pair[server->pair].accepted++;
        co_resume(co);
    }
}

static void run_server(long pair)
{
    sockaddr_in address = address_of(pair);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    Server server = {listener, pair, nullptr};
    stCoRoutine_t *co;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (listener < 0 || bind(listener, (sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 4096) != 0)
        fail("server %ld: cannot listen: %s", pair, strerror(errno));
    // Connections wait for as long as it takes.
    co_set_timeout(-1, -1, -1);
    server.stacks = co_alloc_sharestack(1, 64 * 1024);
    if (!server.stacks || co_create(&co, nullptr, accept_all, &server) != 0)
        fail("server %ld: no memory", pair);
    co_resume(co);
    co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
    _exit(1);
}

// ---- client: plain blocking sockets, no library ------------------------------------------------------------

static void message_of(char *message, long pair, long index, int round)
{
    uint64_t *words = (uint64_t *)message;

    for (uint64_t i = 0; i < MESSAGE / 8; i++)
        words[i] = mixed(((uint64_t)pair << 40) + ((uint64_t)index << 8) + (uint64_t)round * 16 + i + 1);
}

static void complain(long pair, const char *what)
{
    if (!shared->pair[pair].complaint[0])
        snprintf(shared->pair[pair].complaint, sizeof(shared->pair[0].complaint), "%s: %s", what, strerror(errno));
    shared->pair[pair].wrong++;
}

// Sends to a batch of connections, then compares what comes back.
static long echo(long pair, const int *sockets, long from, long count, int round)
{
    char message[MESSAGE] __attribute__((aligned(8))), back[MESSAGE];
    long right = 0;

    for (long i = from; i < from + count; i++) {
        message_of(message, pair, i, round);
        if (sockets[i] >= 0 && syscall(SYS_write, sockets[i], message, MESSAGE) != MESSAGE)
            complain(pair, "write");
    }
    for (long i = from; i < from + count; i++) {
        long have = 0;
        if (sockets[i] < 0)
            continue;
        message_of(message, pair, i, round);
        while (have < MESSAGE) {
            long got = syscall(SYS_read, sockets[i], back + have, MESSAGE - have);
            if (got <= 0)
                break;
            have += got;
        }
        if (have == MESSAGE && memcmp(message, back, MESSAGE) == 0)
            right++;
        else
            complain(pair, "echo");
    }
    return right;
}

static void run_client(long pair, long count)
{
    sockaddr_in address = address_of(pair);
    int *sockets = (int *)malloc((size_t)count * sizeof(int)), on = 1;
    timeval patience = {120, 0};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!sockets)
        fail("client %ld: no memory", pair);
    while (shared->phase < CONNECTING)
        usleep(10000);
    for (long from = 0; from < count; from += BATCH) {
        long batch = count - from < BATCH ? count - from : (long)BATCH;
        for (long i = from; i < from + batch; i++) {
            sockets[i] = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
            syscall(SYS_setsockopt, sockets[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
            syscall(SYS_setsockopt, sockets[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
            if (sockets[i] < 0 || syscall(SYS_connect, sockets[i], &address, sizeof(address)) != 0) {
                complain(pair, sockets[i] < 0 ? "socket" : "connect");
                if (sockets[i] >= 0)
                    syscall(SYS_close, sockets[i]);
                sockets[i] = -1;
            } else {
                shared->pair[pair].connected++;
            }
        }
        shared->pair[pair].echoed += echo(pair, sockets, from, batch, 0);
    }
    while (shared->phase < ECHOING)
        usleep(50000);
    for (long from = 0; from < count; from += BATCH)
        shared->pair[pair].again += echo(pair, sockets, from, count - from < BATCH ? count - from : (long)BATCH, 1);
    while (shared->phase < ENDING)
        usleep(50000);
    _exit(0);
}

// ---- the run -----------------------------------------------------------------------------------------------

static void stop_all(int)
{
    for (long i = 0; i < pairs; i++) {
        if (clients[i] > 0)
            kill(clients[i], SIGKILL);
        if (servers[i] > 0)
            kill(servers[i], SIGKILL);
    }
    _exit(1);
}

static void write_setting(const char *path, const char *value)
{
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY, 0);

    if (fd < 0 || syscall(SYS_write, fd, value, strlen(value)) < 0)
        fail("cannot set %s to '%s': %s", path, value, strerror(errno));
    syscall(SYS_close, fd);
}

// A network of our own: nothing here is seen outside, and no setting outside changes.
static void own_network()
{
    char map[64];
    unsigned uid = getuid(), gid = getgid();
    ifreq loopback;
    int fd;

    if (unshare(CLONE_NEWNET) != 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
            fail("no network namespace of our own (%s): run as root, or allow user namespaces", strerror(errno));
        write_setting("/proc/self/setgroups", "deny");
        snprintf(map, sizeof(map), "0 %u 1", uid);
        write_setting("/proc/self/uid_map", map);
        snprintf(map, sizeof(map), "0 %u 1", gid);
        write_setting("/proc/self/gid_map", map);
    }
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memset(&loopback, 0, sizeof(loopback));
    strcpy(loopback.ifr_name, "lo");
    loopback.ifr_flags = IFF_UP | IFF_RUNNING;
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &loopback) != 0)
        fail("cannot bring up the loopback device: %s", strerror(errno));
    close(fd);
    write_setting("/proc/sys/net/ipv4/ip_local_port_range", "5000 65500");
    write_setting("/proc/sys/net/core/somaxconn", "4096");
}

static void check_limits(long connections)
{
    rlimit files, processes;
    char text[128];
    long long most_files, used_files;

    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur < 256)
        fail("a process may have only %llu descriptors here: raise `ulimit -n`", (unsigned long long)files.rlim_cur);
    per_pair = (long)files.rlim_cur - SPARE;
    if (per_pair > MOST_PORTS)
        per_pair = MOST_PORTS;
    pairs = (connections + per_pair - 1) / per_pair;
    // As many in each pair.
    per_pair = (connections + pairs - 1) / pairs;
    if (pairs > MOST_PAIRS)
        fail("%ld connections take %ld pairs of processes at %llu descriptors each, and %d is the most: raise "
             "`ulimit -n` or ask for fewer connections",
             connections, pairs, (unsigned long long)files.rlim_cur, MOST_PAIRS);
    getrlimit(RLIMIT_NPROC, &processes);
    if (processes.rlim_cur != RLIM_INFINITY && (long)processes.rlim_cur < pairs * 2 + 10)
        fail("%ld processes are needed and `ulimit -u` allows %llu", pairs * 2, (unsigned long long)processes.rlim_cur);
    if (read_file("/proc/sys/fs/file-max", text, sizeof(text)) > 0) {
        most_files = atoll(text);
        used_files = read_file("/proc/sys/fs/file-nr", text, sizeof(text)) > 0 ? atoll(text) : 0;
        if (most_files - used_files < connections * 2 + pairs * 20)
            fail("%ld open files are needed and the system allows %lld more: raise fs.file-max", connections * 2,
                 most_files - used_files);
    }
    // Two sockets and two files in the kernel, and what the library takes.
    need_memory(10700. * (double)connections + 3e6 * 2 * (double)pairs, "the run");
}

static void totals(long *connected, long *echoed, long *again, long *wrong, long *accepted)
{
    *connected = *echoed = *again = *wrong = *accepted = 0;
    for (long i = 0; i < pairs; i++) {
        *connected += shared->pair[i].connected;
        *echoed += shared->pair[i].echoed;
        *again += shared->pair[i].again;
        *wrong += shared->pair[i].wrong;
        *accepted += shared->pair[i].accepted;
    }
}

static double servers_pss()
{
    double sum = 0;

    for (long i = 0; i < pairs; i++) {
        long long bytes = rollup_of(servers[i], "\nPss:");
        if (bytes < 0)
            fail("cannot read the memory of server %ld (process %d): did it die?", i, servers[i]);
        sum += (double)bytes;
    }
    return sum;
}

// Waits until all are through with a phase; tells how far they are.
static void watch(const char *what, long connections, bool second, double began)
{
    long connected, echoed, again, wrong, accepted, last = -1, done;
    double told = 0, moved = seconds(CLOCK_MONOTONIC);

    do {
        usleep(100000);
        totals(&connected, &echoed, &again, &wrong, &accepted);
        done = (second ? again : echoed) + wrong;
        if (done != last) {
            last = done;
            moved = seconds(CLOCK_MONOTONIC);
        }
        if (seconds(CLOCK_MONOTONIC) - moved > 60) {
            for (long i = 0; i < pairs; i++)
                if (shared->pair[i].complaint[0])
                    fprintf(stderr, "pair %ld: %s\n", i, shared->pair[i].complaint);
            fprintf(stderr, "nothing has moved for a minute: giving up\n");
            stop_all(0);
        }
        if (seconds(CLOCK_MONOTONIC) - told >= 2 || done >= connections) {
            told = seconds(CLOCK_MONOTONIC);
            printf("%-10s %8ld of %ld   %6.1f s   free memory %5.1f GB\n", what, second ? again : echoed, connections,
                   told - began, (double)available_memory() / 1e9);
            fflush(stdout);
        }
        for (pid_t pid; (pid = waitpid(-1, nullptr, WNOHANG)) > 0;) {
            fprintf(stderr, "process %d ended before its time\n", pid);
            stop_all(0);
        }
    } while (done < connections);
}

int main(int argc, char **argv)
{
    long connections = number_argument(argc, argv, 1, 1000000), left;
    long connected, echoed, again, wrong, accepted;
    double began = seconds(CLOCK_MONOTONIC), before, idle, after, free_before, free_after;

    check_limits(connections);
    own_network();
    shared = (Shared *)mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("no memory");
    printf("%ld connections over %ld pairs of processes, up to %ld each\n", connections, pairs, per_pair);
    fflush(stdout);
    signal(SIGINT, stop_all);
    signal(SIGTERM, stop_all);
    left = connections;
    for (long i = 0; i < pairs; i++) {
        long mine = left < per_pair ? left : per_pair;
        left -= mine;
        if ((servers[i] = fork()) == 0)
            run_server(i);
        if ((clients[i] = fork()) == 0)
            run_client(i, mine);
        if (servers[i] < 0 || clients[i] < 0) {
            fprintf(stderr, "fork: %s\n", strerror(errno));
            stop_all(0);
        }
    }
    while (shared->ready_servers < pairs) {
        usleep(10000);
        for (pid_t pid; (pid = waitpid(-1, nullptr, WNOHANG)) > 0;)
            stop_all(0);
    }
    // The last one has counted itself a moment before its loop went to sleep.
    usleep(200000);
    before = servers_pss();
    free_before = (double)available_memory();
    shared->phase = CONNECTING;
    watch("connected", connections, false, began);
    idle = servers_pss();
    shared->phase = ECHOING;
    watch("echoed", connections, true, began);
    after = servers_pss();
    free_after = (double)available_memory();
    totals(&connected, &echoed, &again, &wrong, &accepted);

    printf("\n%-58s %12ld\n", "connections established at once", connected);
    printf("%-58s %12ld\n", "echoed correctly when made", echoed);
    printf("%-58s %12ld\n", "echoed correctly with all of them there", again);
    printf("%-58s %12ld\n", "failed", wrong);
    printf("%-58s %12.1f MB\n", "server processes' PSS before the first connection", before / 1e6);
    printf("%-58s %12.1f MB\n", "server processes' PSS with all of them", after / 1e6);
    printf("%-58s %12.1f B\n", "server memory per connection", (after - before) / (double)connections);
    printf("%-58s %12.1f B\n", "the same before the second echo", (idle - before) / (double)connections);
    // Others on the machine take and give memory too: with few connections this says nothing.
    if (connections >= 100000)
        printf("%-58s %12.1f B\n", "all memory of the machine per connection, both ends",
               (free_before - free_after) / (double)connections);
    printf("%-58s %12.1f s\n", "time", seconds(CLOCK_MONOTONIC) - began);
    shared->phase = ENDING;
    for (long i = 0; i < pairs; i++) {
        kill(servers[i], SIGKILL);
        kill(clients[i], SIGKILL);
        waitpid(servers[i], nullptr, 0);
        waitpid(clients[i], nullptr, 0);
    }
    for (long i = 0; i < pairs; i++)
        if (shared->pair[i].complaint[0])
            fprintf(stderr, "pair %ld: %s\n", i, shared->pair[i].complaint);
    if (connections >= 100000 && after - before > 1024. * (double)connections) {
        fprintf(stderr, "more than the 1024 bytes a connection promised\n");
        return 1;
    }
    return wrong || connected != connections || again != connections;
}
