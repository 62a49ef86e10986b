// One of everything that has a probe: two coroutines, one of them waits a millisecond.
#include "co_routine.h"
#include "co_routine_inner.h"

namespace {

void *waits(void *)
{
    co_poll(co_get_epoll_ct(), nullptr, 0, 1);
    return nullptr;
}

void *yields(void *)
{
    co_yield_ct();
    return nullptr;
}

int until_ended(void *co)
{
    return static_cast<stCoRoutine_t *>(co)->cEnd ? -1 : 0;
}

} // namespace

int main()
{
    stCoRoutine_t *co[2];
    co_create(&co[0], nullptr, waits, nullptr);
    co_create(&co[1], nullptr, yields, nullptr);
    co_resume(co[0]);
    co_resume(co[1]);
    co_resume(co[1]);
    co_eventloop(co_get_epoll_ct(), until_ended, co[0]);
    co_release(co[0]);
    co_release(co[1]);
    return 0;
}
