// What gdb steps through: resumes, yields and ends on private stacks, in handlers, nested ones on one copy stack, and hooked reads
// that wait.
#include "co_routine.h"
#include "co_routine_inner.h"

#include <sys/socket.h>
#include <unistd.h>

extern "C" __attribute__((noinline)) void stepping_ends() { asm volatile(""); }

static stCoRoutine_t *alone, *inner, *outer, *reader, *catcher;
static int ends[2];
// What stepped.py looks at after each step.
stCoRoutine_t *everyone[5];

static void *yields_once(void *)
{
    co_yield_ct();
    return nullptr;
}

static void *resumes_twice(void *)
{
    co_resume(inner);
    co_yield_ct();
    co_resume(inner);
    return nullptr;
}

static void *reads(void *)
{
    co_enable_hook_sys();
    // (More room than there are bytes: such a read waits without a frame of its own.)
    char bytes[8];
    while (read(ends[0], bytes, sizeof bytes) == 1) {
    }
    return nullptr;
}

// (What throws is not to be stepped through.)
static void *yields_in_a_handler(void *)
{
    try {
        throw 1;
    } catch (int) {
        co_yield_ct();
        co_yield_ct();
    }
    return nullptr;
}

extern "C" __attribute__((noinline)) void resume_all()
{
    co_resume(alone);
    co_resume(alone);
    co_resume(outer);
    co_resume(outer);
    // Goes on in its read, gets the byte, and waits again.
    co_resume(reader);
    co_resume(catcher);
    stepping_ends();
}

static void make(stCoRoutineAttr_t *on_copy)
{
    co_create(&alone, nullptr, yields_once, nullptr);
    co_create(&inner, on_copy, yields_once, nullptr);
    co_create(&outer, on_copy, resumes_twice, nullptr);
}

static bool send_byte() { return send(ends[1], "x", 1, 0) == 1; }

int main()
{
    stCoRoutineAttr_t on_copy;
    on_copy.share_stack = co_alloc_sharestack(1, 128 * 1024);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0 || co_hook_fd(ends[0]) != 0) {
        return 1;
    }
    co_create(&reader, nullptr, reads, nullptr);
    // What the first such resume and wait make is not to be stepped through.
    co_resume(reader);
    if (!send_byte()) {
        return 1;
    }
    co_resume(reader);
    make(&on_copy);
    co_resume(outer);
    co_resume(outer);
    make(&on_copy);
    co_create(&catcher, nullptr, yields_in_a_handler, nullptr);
    co_resume(catcher);
    if (!send_byte()) {
        return 1;
    }
    stCoRoutine_t *const all[] = {alone, inner, outer, reader, catcher};
    for (int i = 0; i < 5; ++i) {
        everyone[i] = all[i];
    }
    resume_all();
}
