// Built with -mbranch-protection=standard: coroutines of every kind, or one planted fault that a processor which checks
// branches (BTI) or return addresses (PAC) stops.
//
//   program               goes everywhere that branches lead, and prints "ran"
//   program own           branches into the middle of a function of the program's
//   program library       ... of the library's
//   program return        goes on with a context whose return address somebody has overwritten
//
// The last three print "not stopped" where nothing checks.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>

#include <sys/socket.h>
#include <unistd.h>

#include "co_routine.h"
#include "co_routine_inner.h"
#include "coctx.h"

extern "C" void coctx_swap(coctx_t *, coctx_t *);

namespace {

void check(bool right, const char *what)
{
    if (!right) {
        printf("wrong: %s\n", what);
        exit(1);
    }
}

// Some frames whose return addresses are signed on the coroutine's stack.
__attribute__((noinline)) int yields_below(int depth)
{
    volatile char local[100];
    local[depth] = static_cast<char>(depth);
    const int below = depth == 0 ? (co_yield_ct(), 0) : yields_below(depth - 1);
    return below + local[depth];
}

__attribute__((noinline)) void throws_below(int depth)
{
    co_yield_ct();
    if (depth == 0) {
        throw std::runtime_error("from below");
    }
    throws_below(depth - 1);
    asm volatile(""); // no tail call
}

void *routine(void *result)
{
    int sum = yields_below(20);
    try {
        throws_below(5);
    } catch (const std::runtime_error &error) {
        sum += error.what() == std::string("from below");
    }
    *static_cast<int *>(result) = sum;
    return nullptr;
}

void run_routines(stShareStack_t *shared)
{
    stCoRoutineAttr_t attr;
    attr.share_stack = shared;
    stCoRoutine_t *co[8];
    int results[8] = {};
    for (int i = 0; i < 8; ++i) {
        check(co_create(&co[i], &attr, routine, &results[i]) == 0, "co_create");
    }
    for (int round = 0; round < 8; ++round) {
        for (stCoRoutine_t *each : co) {
            co_resume(each);
        }
    }
    for (int i = 0; i < 8; ++i) {
        check(co[i]->cEnd != 0 && results[i] == 211, "a routine's result");
        co_release(co[i]);
    }
}

// Through the hooks, the loop and its timers.
void *talks(void *fds)
{
    co_enable_hook_sys();
    const int *fd = static_cast<int *>(fds);
    char buffer[6] = {};
    check(read(fd[0], buffer, 5) == 5 && strcmp(buffer, "hello") == 0, "read");
    usleep(1000);
    return nullptr;
}

void *answers(void *fds)
{
    co_enable_hook_sys();
    usleep(1000);
    check(write(static_cast<int *>(fds)[1], "hello", 5) == 5, "write");
    return nullptr;
}

void run_loop()
{
    int fds[2];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0, "socketpair");
    check(co_hook_fd(fds[0]) == 0 && co_hook_fd(fds[1]) == 0, "co_hook_fd");
    stCoRoutine_t *both[2];
    co_create(&both[0], nullptr, talks, fds);
    co_create(&both[1], nullptr, answers, fds);
    co_resume(both[0]);
    co_resume(both[1]);
    co_eventloop(
        co_get_epoll_ct(),
        [](void *arg) {
            auto **co = static_cast<stCoRoutine_t **>(arg);
            return co[0]->cEnd && co[1]->cEnd ? -1 : 0;
        },
        both);
    co_release(both[0]);
    co_release(both[1]);
    close(fds[0]);
    close(fds[1]);
}

coctx_t outside, inside;
int turns;

void *raw(void *first, void *second)
{
    check(first == &outside && second == &inside, "the arguments of a raw context");
    for (;;) {
        ++turns;
        coctx_swap(&inside, &outside);
    }
}

alignas(16) char raw_stack[64 * 1024];

void start_raw_context()
{
    coctx_init(&inside);
    inside.ss_sp = raw_stack;
    inside.ss_size = sizeof raw_stack;
    coctx_make(&inside, raw, &outside, &inside);
    coctx_swap(&outside, &inside);
    coctx_swap(&outside, &inside);
    check(turns == 2, "turns of a raw context");
}

void run_all()
{
    run_routines(nullptr);
    run_routines(co_alloc_sharestack(2, 128 * 1024));
    run_loop();
    check(co_gethostbyname("127.0.0.1") != nullptr, "a lookup");
    start_raw_context();
    std::thread([] { run_routines(nullptr); }).join();
}

// Its second instruction is no place to branch to.
__attribute__((noinline)) int no_door(int value)
{
    return value + 1;
}

void branch_behind_the_door_of(void *function)
{
    void *volatile behind = static_cast<char *>(function) + 4;
    reinterpret_cast<void (*)(void *)>(behind)(nullptr);
    puts("not stopped");
}

// Where the overwritten address leads.
void elsewhere()
{
    puts("not stopped");
    fflush(stdout);
    _exit(0);
}

void overwrite_a_return_address()
{
    start_raw_context();
    // The picture in src/arch/aarch64.rs: the stack pointer in regs[13], the address in its last word.
    static_cast<void **>(inside.regs[13])[19] = reinterpret_cast<void *>(&elsewhere);
    coctx_swap(&outside, &inside);
}

} // namespace

int main(int argc, char **argv)
{
    const std::string mode = argc > 1 ? argv[1] : "";
    if (mode.empty()) {
        run_all();
        puts("ran");
    } else if (mode == "own") {
        branch_behind_the_door_of(reinterpret_cast<void *>(&no_door));
    } else if (mode == "library") {
        branch_behind_the_door_of(reinterpret_cast<void *>(&co_resume));
    } else {
        overwrite_a_return_address();
    }
    return 0;
}
