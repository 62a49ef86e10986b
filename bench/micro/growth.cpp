// What one operation takes as there are more coroutines: flat, but for the caches' misses.
//
// growth-create   co_create and the first co_resume, up to the routine's first yield
// growth-switch   co_resume and its co_yield_ct, one coroutine after the other
// growth-wait     a wait on a condition, signalled, and woken by the loop
// growth-timer    a sleep that ends; the more coroutines, the longer they sleep: as many end in a second
//
// The coroutines take turns on one copy stack; with "-private" each has its own.
#include <co_routine.h>

#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace {

double processor_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double clock_seconds() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void print(const char *work, const char *kind, size_t coroutines, double seconds, double operations) {
    std::printf("{\"work\":\"%s%s\",\"variant\":\"%s\",\"x\":%zu,\"value\":%.3f,\"unit\":\"ns\"}\n", work, kind,
                BENCH_VARIANT, coroutines, seconds * 1e9 / operations);
    std::fflush(stdout);
}

// ---- what a coroutine does, told while it is suspended -----------------------------------------

enum class Task { yield, wait, sleep, end };

Task task = Task::yield;
stCoCond_t *condition;
size_t events;
int longest_sleep;
double stop_at;

int random_sleep() {
    static uint64_t state = 88172645463325252u;
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return 1 + static_cast<int>(state % static_cast<uint64_t>(longest_sleep));
}

void *routine(void *) {
    for (;;) {
        switch (task) {
        case Task::yield: co_yield_ct(); break;
        case Task::wait:
            co_cond_timedwait(condition, -1);
            events++;
            co_yield_ct();
            break;
        case Task::sleep:
            co_poll(co_get_epoll_ct(), nullptr, 0, random_sleep());
            events++;
            break;
        case Task::end: return nullptr;
        }
    }
}

int stop_after_events(void *wanted) { return events >= *static_cast<size_t *>(wanted) ? -1 : 0; }
int stop_after_time(void *) { return clock_seconds() >= stop_at ? -1 : 0; }

// The coroutines are left as they are: the process ends.
void measure(size_t count, stShareStack_t *stack) {
    const char *kind = stack != nullptr ? "" : "-private";
    std::vector<stCoRoutine_t *> all(count);
    stCoRoutineAttr_t attr;
    if (stack != nullptr) attr.share_stack = stack;
    // Small counts go round more often, so that there is something to measure.
    const size_t rounds = std::max<size_t>(1, 200000 / count);

    task = Task::yield;
    double start = processor_seconds();
    for (stCoRoutine_t *&co : all) {
        if (co_create(&co, &attr, routine, nullptr) != 0) {
            std::fprintf(stderr, "growth: no memory for %zu coroutines\n", count);
            std::exit(1);
        }
        co_resume(co);
    }
    print("growth-create", kind, count, processor_seconds() - start, static_cast<double>(count));

    start = processor_seconds();
    for (size_t round = 0; round < rounds; round++)
        for (stCoRoutine_t *co : all) co_resume(co);
    print("growth-switch", kind, count, processor_seconds() - start, static_cast<double>(rounds * count));

    if (stack != nullptr) {
        task = Task::wait;
        const size_t waits = std::max<size_t>(1, rounds / 4);
        start = processor_seconds();
        for (size_t round = 0; round < waits; round++) {
            events = 0;
            for (stCoRoutine_t *co : all) co_resume(co);
            co_cond_broadcast(condition);
            size_t wanted = count;
            co_eventloop(co_get_epoll_ct(), stop_after_events, &wanted);
        }
        print("growth-wait", kind, count, processor_seconds() - start, static_cast<double>(waits * count));

        task = Task::sleep;
        longest_sleep = static_cast<int>(count / 100);
        for (stCoRoutine_t *co : all) co_resume(co);
        events = 0;
        stop_at = clock_seconds() + 0.7;
        start = processor_seconds();
        co_eventloop(co_get_epoll_ct(), stop_after_time, nullptr);
        print("growth-timer", kind, count, processor_seconds() - start, static_cast<double>(events));
    }
}

size_t available_kilobytes() {
    std::ifstream file("/proc/meminfo");
    for (std::string key; file >> key;) {
        size_t value = 0;
        if (key == "MemAvailable:" && file >> value) return value;
    }
    return 0;
}

// Every size in a process of its own, so that none finds what another left.
bool in_process(size_t count, bool on_copy_stack) {
    const pid_t child = fork();
    if (child == 0) {
        condition = co_cond_alloc();
        measure(count, on_copy_stack ? co_alloc_sharestack(1, 128 * 1024) : nullptr);
        _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        std::fprintf(stderr, "growth: %zu coroutines went wrong (status %d)\n", count, status);
        return false;
    }
    return true;
}

}  // namespace

// Usage: growth ROUND [LARGEST]
int main(int argc, char **argv) {
    const bool ours = std::strcmp(BENCH_VARIANT, "ours") == 0;
    const size_t largest = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : ours ? 1000000 : 100000;
    bool went_well = true;
    for (size_t count = 1000; count <= largest; count *= 10) {
        went_well &= in_process(count, true);
        // One resident page each and what describes it, twice as much to be safe.
        const size_t needed = 2 * 5 * count;
        if (available_kilobytes() > needed) {
            went_well &= in_process(count, false);
        } else {
            std::fprintf(stderr, "growth: %zu private stacks want %zu MB free: left out\n", count, needed / 1024);
        }
    }
    return went_well ? 0 : 1;
}
