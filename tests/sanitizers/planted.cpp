// One fault of a kind that a sanitizer names, on a coroutine's stack after many switches: planted WHICH STACK.
//
// WHICH: overflow, use-after-return, race, undefined, leak; or none, kept: nothing to report. STACK: private or copy.
#include <pthread.h>
#include <string.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "co_routine.h"
#include "co_routine_inner.h"

namespace {

std::string which;
long shared_count;
std::atomic<int> arrived;

__attribute__((noinline)) void fill(char *bytes, int count)
{
    // (The compiler must not know how many.)
    for (volatile int i = 0; i < count; i = i + 1) {
        bytes[i] = static_cast<char>(i);
    }
}

__attribute__((noinline)) int *address_of_local()
{
    int local[4] = {1, 2, 3, 4};
    int *volatile address = local;
    return address;
}

__attribute__((noinline)) int deep(int depth)
{
    char bytes[100];
    memset(bytes, depth, sizeof bytes);
    if (depth > 0) {
        deep(depth - 1);
    } else {
        co_yield_ct();
    }
    for (char byte : bytes) {
        if (byte != depth) {
            abort();
        }
    }
    return bytes[0];
}

__attribute__((noinline)) void plant()
{
    if (which == "overflow") {
        char bytes[24];
        fill(bytes, 25);
        co_yield_ct();
    } else if (which == "use-after-return") {
        int *gone = address_of_local();
        co_yield_ct();
        printf("%d\n", *gone);
    } else if (which == "race") {
        // (Until both threads are here: what the library does in between may order them by accident.)
        static thread_local bool first = true;
        arrived.fetch_add(first, std::memory_order_relaxed);
        first = false;
        while (arrived.load(std::memory_order_relaxed) < 2) {
            co_yield_ct();
        }
        for (int i = 0; i < 100; ++i) {
            ++shared_count;
        }
    } else if (which == "undefined") {
        volatile int most = __INT_MAX__;
        most = most + 1;
    } else if (which == "leak") {
        char *volatile lost = static_cast<char *>(malloc(123));
        fill(lost, 123);
        lost = nullptr;
    }
}

void *routine(void *)
{
    // Not lost: a suspended stack has it.
    char *volatile kept = which == "kept" ? static_cast<char *>(malloc(321)) : nullptr;
    for (int round = 0; round < 10; ++round) {
        deep(5 + round);
        try {
            throw std::runtime_error("in flight");
        } catch (const std::exception &) {
            co_yield_ct();
        }
        if (round == 5) {
            plant();
        }
    }
    if (kept) {
        for (;;) {
            co_yield_ct();
        }
    }
    return nullptr;
}

void *thread(void *stack)
{
    stCoRoutineAttr_t attributes;
    if (static_cast<const char *>(stack) == std::string("copy")) {
        attributes.share_stack = co_alloc_sharestack(2, 64 * 1024);
    }
    static thread_local std::vector<stCoRoutine_t *> all;
    all.resize(6);
    const int rounds = which == "race" ? 10000000 : 100;
    for (auto &co : all) {
        co_create(&co, &attributes, routine, nullptr);
    }
    for (int round = 0; round < rounds; ++round) {
        for (auto *co : all) {
            if (!co->cEnd) {
                co_resume(co);
            }
        }
        bool ended = true;
        for (auto *co : all) {
            ended &= co->cEnd != 0;
        }
        if (ended) {
            break;
        }
        if (round == 6 && which != "kept") {
            // Abandoned half-way, and its stack used again.
            co_release(all[0]);
            co_create(&all[0], &attributes, routine, nullptr);
            co_reset(all[1]);
        }
    }
    if (which != "kept") {
        for (auto *co : all) {
            co_release(co);
        }
    }
    return nullptr;
}

void *last(void *)
{
    puts("to the end");
    exit(0);
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s WHICH STACK\n", argv[0]);
        return 2;
    }
    which = argv[1];
    pthread_t other;
    if (pthread_create(&other, nullptr, thread, argv[2]) != 0) {
        return 2;
    }
    if (which != "kept") {
        thread(argv[2]);
    }
    pthread_join(other, nullptr);
    if (which == "kept") {
        thread(argv[2]);
        // Not lost either: this frame has it when the program ends on another stack.
        char *volatile kept = static_cast<char *>(malloc(321));
        stCoRoutine_t *co;
        co_create(&co, nullptr, last, nullptr);
        co_resume(co);
        free(kept);
    }
    puts("to the end");
    return 0;
}
