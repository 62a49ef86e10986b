// A plug-in that is linked to the static library, whatever the program that loads it has. For test_process_dlopen.cpp.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "co_routine.h"

namespace {

struct Work {
    int fds[2];
    int done;
};

void *waits(void *argument)
{
    Work *work = static_cast<Work *>(argument);
    pollfd p = {work->fds[0], POLLIN, 0};
    char byte;
    work->done += co_poll(co_get_epoll_ct(), &p, 1, 20000) == 1 && read(work->fds[0], &byte, 1) == 1;
    return nullptr;
}

void *wakes(void *argument)
{
    Work *work = static_cast<Work *>(argument);
    work->done += co_poll(co_get_epoll_ct(), nullptr, 0, 2) == 0;
    work->done += write(work->fds[1], "x", 1) == 1;
    return nullptr;
}

} // namespace

// Two coroutines, of which one wakes the other: 3 if all was well.
extern "C" int plugin_works()
{
    Work work = {{-1, -1}, 0};
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, work.fds) != 0) {
        return -1;
    }
    stCoRoutine_t *both[2];
    co_create(&both[0], nullptr, waits, &work);
    co_create(&both[1], nullptr, wakes, &work);
    co_resume(both[0]);
    co_resume(both[1]);
    co_eventloop(
        co_get_epoll_ct(), [](void *done) -> int { return *static_cast<int *>(done) == 3 ? -1 : 0; }, &work.done);
    co_release(both[0]);
    co_release(both[1]);
    close(work.fds[0]);
    close(work.fds[1]);
    return work.done;
}
