// What the scale programs share: memory as the kernel counts it, clocks, limits, one JSON line per figure.
#ifndef BENCH_SCALE_H
#define BENCH_SCALE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

__attribute__((noreturn, format(printf, 1, 2))) static inline void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fflush(stdout);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static inline double seconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline int64_t monotonic_ns()
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// Reads a whole small file by system calls alone: measuring must neither allocate nor meet a hook.
static inline long read_file(const char *path, char *text, size_t room)
{
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    size_t length = 0;

    if (fd < 0)
        return -1;
    while (length + 1 < room) {
        long got = syscall(SYS_read, fd, text + length, room - 1 - length);
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    syscall(SYS_close, fd);
    text[length] = 0;
    return (long)length;
}

// The value of a "Name:   123 kB" line in bytes, -1 if there is none.
static inline long long kb_line(const char *path, const char *name)
{
    char text[8192];
    const char *line;

    if (read_file(path, text, sizeof(text)) <= 0)
        return -1;
    line = strstr(text, name);
    return line ? atoll(line + strlen(name)) * 1024 : -1;
}

// Of a process (0: this one), counted page by page: the counters in statm lag behind.
static inline long long rollup_of(int pid, const char *name)
{
    char path[64] = "/proc/self/smaps_rollup";

    if (pid)
        snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    return kb_line(path, name);
}

static inline long long resident(int pid = 0)
{
    long long bytes = rollup_of(pid, "\nRss:");

    if (bytes < 0)
        fail("cannot read the resident memory of process %d from /proc (smaps_rollup)", pid);
    return bytes;
}

static inline long long page_tables() { return kb_line("/proc/self/status", "VmPTE:"); }

// What may still be used: the machine's available memory, or less if a control group says so.
static inline long long available_memory()
{
    long long available = kb_line("/proc/meminfo", "MemAvailable:");
    static const char *const groups[][2] = {
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};

    for (auto &group : groups) {
        char limit[64], used[64];

        if (read_file(group[0], limit, sizeof(limit)) <= 0 || read_file(group[1], used, sizeof(used)) <= 0)
            continue;
        long long left = atoll(limit) - atoll(used);
        if (limit[0] != 'm' && left >= 0 && left < available)
            available = left;
    }
    return available;
}

static inline void need_memory(double bytes, const char *what)
{
    struct rlimit limit;
    long long available = available_memory();

    if (available >= 0 && (double)available < bytes)
        fail("%s needs %.1f GB of memory and %.1f GB are free here: free some, or ask for fewer", what, bytes / 1e9,
             (double)available / 1e9);
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && (double)limit.rlim_cur < bytes)
        fail("%s needs %.1f GB and `ulimit -v` allows %.1f GB: raise it", what, bytes / 1e9,
             (double)limit.rlim_cur / 1e9);
}

static inline long number_argument(int argc, char **argv, int index, long otherwise)
{
    char *end;
    long value;

    if (index >= argc)
        return otherwise;
    value = strtol(argv[index], &end, 10);
    if (*end || value <= 0)
        fail("%s: '%s' is not a positive number", argv[0], argv[index]);
    return value;
}

// The library under test, as the data shall name it.
static inline const char *variant()
{
    const char *name = getenv("BENCH_VARIANT");

    return name ? name : "ours";
}

// Memory for `count` coroutines. Where a peer's do not fit, it is left out; ours must.
static inline void need_memory_for(const char *what, long count, double ours, double peers)
{
    if (strcmp(variant(), "ours") == 0) {
        need_memory(ours * (double)count, what);
    } else if ((double)available_memory() < peers * (double)count) {
        fprintf(stderr, "%s of %ld coroutines: %s is left out, it may need %.0f GB\n", what, count, variant(),
                peers * (double)count / 1e9);
        exit(0);
    }
}

static inline void figure(const char *work, long x, double value, const char *unit, const char *note = nullptr)
{
    printf("{\"work\":\"%s\",\"variant\":\"%s\",", work, variant());
    if (x)
        printf("\"x\":%ld,", x);
    if (note)
        printf("\"note\":\"%s\",", note);
    printf("\"value\":%.6g,\"unit\":\"%s\"}\n", value, unit);
    fflush(stdout);
}

// 256 bytes that belong to one coroutine and can be told from every other's. Called, not inlined: what they
// keep in registers is not to count among the coroutine's live bytes.
enum { LOCAL_WORDS = 32 };

static inline uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

__attribute__((noinline, unused)) static void fill_locals(uint64_t *locals, uint64_t owner)
{
    for (uint64_t i = 0; i < LOCAL_WORDS; i++)
        locals[i] = mixed(owner * LOCAL_WORDS + i + 1);
    // The compiler must believe that somebody reads them.
    __asm__ volatile("" : : "r"(locals) : "memory");
}

__attribute__((noinline, unused)) static bool same_locals(const uint64_t *locals, uint64_t owner)
{
    uint64_t differs = 0;

    __asm__ volatile("" : : "r"(locals) : "memory");
    for (uint64_t i = 0; i < LOCAL_WORDS; i++)
        differs |= locals[i] ^ mixed(owner * LOCAL_WORDS + i + 1);
    return differs == 0;
}

#endif
