// A coroutine that waits a millisecond, to show that a program linked this way works.
#include <cstdio>
#include <cstdlib>

#include "co_routine.h"
#include "co_routine_inner.h"

#ifdef WITH_OTHER
extern "C" int other_library(int n);
#endif

static void *waits(void *)
{
    co_poll(co_get_epoll_ct(), nullptr, 0, 1);
    return nullptr;
}

int main()
{
#ifdef WITH_OTHER
    if (other_library(41) != 42) {
        return 1;
    }
#endif
    stCoRoutine_t *co;
    if (co_create(&co, nullptr, waits, nullptr) != 0) {
        return 1;
    }
    co_resume(co);
    co_resume(nullptr); // (misuse: a word about it if LIBCO_LOG is heard)
    co_eventloop(
        co_get_epoll_ct(), [](void *arg) { return static_cast<stCoRoutine_t *>(arg)->cEnd ? -1 : 0; }, co);
    co_release(co);
    puts("ran");
    return 0;
}
