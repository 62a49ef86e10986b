// Two coroutines that compute in turns, for perf to sample (tests/gdb.sh).
#include <cstdint>

#include "co_routine.h"

__attribute__((noinline)) static uint64_t multiply(uint64_t n)
{
    for (int i = 0; i < 2000; i++) n = n * 6364136223846793005u + 1;
    return n;
}

// (A walk by frame pointers misses the caller of a function that calls nobody: not serve.)
__attribute__((noinline)) static uint64_t work(uint64_t n)
{
    return multiply(n) + 1;
}

static void *serve(void *)
{
    volatile uint64_t sum = 0;
    for (;;) {
        sum = sum + work(sum);
        co_yield_ct();
    }
}

int main()
{
    stCoRoutine_t *both[2];
    for (stCoRoutine_t *&co : both) {
        if (co_create(&co, nullptr, serve, nullptr) != 0) return 1;
    }
    for (int i = 0; i < 200000; i++) co_resume(both[i & 1]);
    return 0;
}
