// A program whose allocator asks for an environment variable at every allocation, as jemalloc and
// tcmalloc do at their first: getenv must neither recurse nor deadlock, before main or in a coroutine.
#include "loop_support.h"

#ifndef COLIB_PEER // the original recurses before main

extern "C" {
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *old, size_t n);
}

namespace {

std::atomic<long> allocations{0};

void ask()
{
    ++allocations;
    getenv("COLIB_ALLOCATOR_OPTIONS");
}

} // namespace

extern "C" void *malloc(size_t n)
{
    ask();
    return __libc_malloc(n);
}

extern "C" void *calloc(size_t count, size_t n)
{
    ask();
    return __libc_calloc(count, n);
}

extern "C" void *realloc(void *old, size_t n)
{
    ask();
    return __libc_realloc(old, n);
}

using namespace support;

TEST(AllocatorThatCallsGetenv, works_before_main)
{
    EXPECT_GT(allocations, 0);
}

TEST(AllocatorThatCallsGetenv, works_in_a_coroutine_with_private_variables)
{
    const char *names[] = {"COLIB_ALLOCATOR_OPTIONS", "COLIB_PRIVATE"};
    co_set_env_list(names, 2);
    on_thread([] {
        Group group;
        for (int i = 0; i < 3; ++i) {
            group.go_hooked([i] {
                const std::string value = std::to_string(i);
                EXPECT_EQ(nullptr, getenv("COLIB_PRIVATE"));
                EXPECT_EQ(0, setenv("COLIB_PRIVATE", value.c_str(), 1));
                EXPECT_EQ(0, setenv("COLIB_ALLOCATOR_OPTIONS", std::string(1000, 'v').c_str(), 1));
                nap(2);
                EXPECT_STREQ(value.c_str(), getenv("COLIB_PRIVATE"));
                EXPECT_EQ(0, unsetenv("COLIB_ALLOCATOR_OPTIONS"));
            });
        }
        ASSERT_TRUE(group.run());
    });
}

TEST(AllocatorThatCallsGetenv, works_while_names_are_looked_up)
{
    in_hooked_coroutine([] {
        HookedPair pair = hooked_tcp_pair();
        pair.put("x");
        char byte;
        EXPECT_EQ(1, read(pair.fd, &byte, 1));
        EXPECT_EQ(1, write(pair.fd, "y", 1));
        const std::vector<char> large(1 << 20);
        EXPECT_EQ(0, large[12345]);
    });
}

#endif
