// A service of somebody else's, in C++: exceptions inside coroutines, and a hooked read lets the others run.
#include "co_routine.h"
#include "check.h"

#include <stdexcept>
#include <string>

static void *fail_and_recover(void *arg)
{
    std::string *told = static_cast<std::string *>(arg);

    try {
        co_yield_ct();
        throw std::runtime_error("caught after the yield");
    } catch (const std::exception &error) {
        *told = error.what();
    }
    return NULL;
}

static void an_exception_is_caught_inside_its_coroutine()
{
    stCoRoutine_t *co = NULL;
    stCoRoutineAttr_t attr;
    std::string told;

    attr.stack_size = 256 * 1024;
    CHECK(co_create(&co, &attr, fail_and_recover, &told) == 0);
    co_resume(co);
    CHECK(told.empty());
    co_resume(co);
    CHECK(told == "caught after the yield");
    co_release(co);
}

int main()
{
    an_exception_is_caught_inside_its_coroutine();
    hooked_read_lets_others_run();
    puts("C++ consumer: ok");
    return 0;
}
