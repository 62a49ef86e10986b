// Ten million coroutines suspended at once on one copy stack, each with 256 bytes of locals, then all of
// them resumed and every byte compared.
//
//   ten-million [COUNT]
//
// Says first if the machine cannot hold them. Status 1 if a byte differs, a coroutine is missing, or they
// took more memory than promised (620 bytes each, the whole process counted).
#include "scale.h"

#include "co_routine.h"

static long wrong, finished;

static void *with_locals(void *argument)
{
    uint64_t locals[LOCAL_WORDS];

    fill_locals(locals, (uintptr_t)argument);
    co_yield_ct();
    if (!same_locals(locals, (uintptr_t)argument))
        wrong++;
    finished++;
    return nullptr;
}

static void progress(const char *what, long done, long count, double since)
{
    printf("%s %9ld of %ld   %6.1f s   resident %5.2f GB\n", what, done, count, seconds(CLOCK_MONOTONIC) - since,
           (double)kb_line("/proc/self/status", "VmRSS:") / 1e9);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    long count = number_argument(argc, argv, 1, 10000000);
    long step = count < 10 ? 1 : count / 10;
    double began, created_from, created, resumed_from, ended;
    long long before, after;
    stCoRoutineAttr_t attributes;
    stCoRoutine_t **all;

    need_memory(640. * (double)count + 50e6, argc > 1 ? "the run" : "ten-million");
    all = (stCoRoutine_t **)malloc((size_t)count * sizeof(*all));
    attributes.share_stack = co_alloc_sharestack(1, 64 * 1024);
    if (!all || !attributes.share_stack)
        fail("no memory");
    resident();
    before = resident();
    began = seconds(CLOCK_MONOTONIC);
    created_from = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (long i = 0; i < count; i++) {
        if (co_create(&all[i], &attributes, with_locals, (void *)(i + 1)) != 0)
            fail("co_create: no memory after %ld coroutines", i);
        co_resume(all[i]);
        if ((i + 1) % step == 0)
            progress("suspended", i + 1, count, began);
    }
    created = seconds(CLOCK_PROCESS_CPUTIME_ID);
    after = resident();
    resumed_from = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (long i = 0; i < count; i++) {
        co_resume(all[i]);
        if ((i + 1) % step == 0)
            progress("compared ", i + 1, count, began);
    }
    ended = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (long i = 0; i < count; i++)
        co_release(all[i]);
    progress("released ", count, count, began);

    printf("\n%-46s %12ld\n", "coroutines suspended at once", count);
    printf("%-46s %12.2f GB\n", "resident, the whole process", (double)after / 1e9);
    printf("%-46s %12.1f B\n", "resident per coroutine", (double)(after - before) / (double)count - sizeof(*all));
    printf("%-46s %12.0f ns\n", "create, run and suspend: CPU time", (created - created_from) / (double)count * 1e9);
    printf("%-46s %12.0f ns\n", "resume, compare and end: CPU time", (ended - resumed_from) / (double)count * 1e9);
    printf("%-46s %12ld\n", "came back with every byte in place", finished - wrong);
    if (wrong || finished != count)
        fail("%ld came back, %ld with wrong bytes", finished, wrong);
    if (count >= 1000000 && (double)after > 620. * (double)count)
        fail("%.2f GB is more than the %.2f GB promised", (double)after / 1e9, 620. * (double)count / 1e9);
    return 0;
}
