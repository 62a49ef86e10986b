// What gdb steps through: resumes, yields and ends on private stacks, and nested ones on one copy stack.
#include "co_routine.h"

extern "C" __attribute__((noinline)) void stepping_ends() { asm volatile(""); }

static stCoRoutine_t *alone, *inner, *outer;

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

extern "C" __attribute__((noinline)) void resume_all()
{
    co_resume(alone);
    co_resume(alone);
    co_resume(outer);
    co_resume(outer);
    stepping_ends();
}

static void make(stCoRoutineAttr_t *on_copy)
{
    co_create(&alone, nullptr, yields_once, nullptr);
    co_create(&inner, on_copy, yields_once, nullptr);
    co_create(&outer, on_copy, resumes_twice, nullptr);
}

int main()
{
    stCoRoutineAttr_t on_copy;
    on_copy.share_stack = co_alloc_sharestack(1, 128 * 1024);
    // What the first such resume makes is not to be stepped through.
    make(&on_copy);
    co_resume(outer);
    co_resume(outer);
    make(&on_copy);
    resume_all();
}
