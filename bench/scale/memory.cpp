// Resident memory of a suspended coroutine that has run.
//
//   memory private|copy COUNT
//
// private: each on its own 128 KiB stack. copy: on one copy stack, with 256 bytes of locals, which are
// compared byte for byte when the coroutines run again. Prints the figures, page tables apart, and for
// private stacks whether there is a guard below each that was looked at.
#include "scale.h"

#include "co_routine.h"
#include "co_routine_inner.h"

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

static void *bare(void *)
{
    co_yield_ct();
    finished++;
    return nullptr;
}

// Whether the byte below a stack faults: the kernel says EFAULT when it is asked to read it.
static bool guarded(stCoRoutine_t *co)
{
    static int pipes[2] = {-1, -1};
    char drain;

    if (pipes[0] < 0 && pipe(pipes) != 0)
        fail("pipe: %s", strerror(errno));
    if (syscall(SYS_write, pipes[1], co->stack_mem->stack_buffer - 1, 1) == 1) {
        syscall(SYS_read, pipes[0], &drain, 1);
        return false;
    }
    return errno == EFAULT;
}

int main(int argc, char **argv)
{
    bool copy = argc > 1 && strcmp(argv[1], "copy") == 0;
    long count = number_argument(argc, argv, 2, 1000000);
    stCoRoutineAttr_t attributes;
    double started, made, resumed;
    long long before, pages_before, after, pages_after;
    long unguarded = 0, looked_at = 0;

    if (argc < 3 || (!copy && strcmp(argv[1], "private") != 0))
        fail("usage: memory private|copy COUNT");
    need_memory_for("memory", count, copy ? 700 : 5000, copy ? 9500 : 26000);

    stCoRoutine_t **all = (stCoRoutine_t **)malloc((size_t)count * sizeof(*all));
    if (!all)
        fail("no memory");
    memset(all, 1, (size_t)count * sizeof(*all));
    attributes.stack_size = 128 * 1024;
    if (copy && !(attributes.share_stack = co_alloc_sharestack(1, 128 * 1024)))
        fail("co_alloc_sharestack: no memory");
    // The environment and whatever the first coroutine brings are not counted.
    stCoRoutine_t *first;
    if (co_create(&first, &attributes, copy ? with_locals : bare, nullptr) != 0)
        fail("co_create: no memory");
    co_resume(first);
    // The first look at /proc pages in what reading it needs.
    resident();
    page_tables();
    before = resident();
    pages_before = page_tables();
    started = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (long i = 0; i < count; i++) {
        if (co_create(&all[i], &attributes, copy ? with_locals : bare, (void *)(i + 1)) != 0)
            fail("co_create: no memory after %ld coroutines", i);
        co_resume(all[i]);
    }
    made = seconds(CLOCK_PROCESS_CPUTIME_ID);
    co_resume(first);
    after = resident();
    pages_after = page_tables();
    for (long i = 0; !copy && i < count; i += 1 + count / 1000, looked_at++)
        unguarded += !guarded(all[i]);
    double again = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (long i = 0; i < count; i++)
        co_resume(all[i]);
    resumed = seconds(CLOCK_PROCESS_CPUTIME_ID);
    if (wrong || finished != count + 1)
        fail("%ld of %ld coroutines came back, %ld of them with wrong bytes", finished, count + 1, wrong);
    for (long i = 0; i < count; i++)
        co_release(all[i]);
    co_release(first);

    figure(copy ? "memory-copy" : "memory-private", count, (double)(after - before) / (double)count, "B");
    figure(copy ? "memory-copy-tables" : "memory-private-tables", count,
           (double)(pages_after - pages_before) / (double)count, "B");
    figure(copy ? "create-run-copy" : "create-run-private", count, (made - started) / (double)count * 1e9, "ns");
    figure(copy ? "resume-end-copy" : "resume-end-private", count, (resumed - again) / (double)count * 1e9, "ns");
    if (!copy)
        figure("unguarded-stacks", count, (double)unguarded / (double)looked_at * 100, "%");
    return 0;
}
