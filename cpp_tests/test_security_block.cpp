// A new coroutine's control block, byte by byte: what co_create puts there, and zeros, though the coroutine that had the block
// before has waited in each way, and its program wrote there by hand what the library alone should write.
#include "support.h"

#ifndef COLIB_PEER // the original clears nothing

using namespace support;

namespace {

void *wait_in_each_way(void *)
{
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    pollfd both[2] = {{ends[0], POLLIN, 0}, {ends[0], POLLIN, 0}};
    EXPECT_EQ(co_poll(co_get_epoll_ct(), both, 1, 1), 0);
    EXPECT_EQ(co_poll(co_get_epoll_ct(), both, 2, 1), 0);
    EXPECT_EQ(co_poll(co_get_epoll_ct(), nullptr, 0, 3), 0);
    close(ends[0]);
    close(ends[1]);
    return nullptr;
}

int stop_when_ended(void *co)
{
    return static_cast<stCoRoutine_t *>(co)->cEnd ? -1 : 0;
}

void expect_the_next_as_new(stCoRoutine_t *first)
{
    stCoRoutine_t *second = nullptr;
    co_release(first);
    ASSERT_EQ(co_create(&second, nullptr, wait_in_each_way, &second), 0);
    ASSERT_EQ(second, first) << "the block that was released last comes first";

    unsigned char found[208], expected[208] = {};
    memcpy(found, second, sizeof found);
    auto put = [&](size_t at, auto value) { memcpy(expected + at, &value, sizeof value); };
    put(offsetof(stCoRoutine_t, env), co_get_curr_thread_env());
    put(offsetof(stCoRoutine_t, pfn), &wait_in_each_way);
    put(offsetof(stCoRoutine_t, arg), &second);
    put(offsetof(stCoRoutine_t, ctx) + offsetof(coctx_t, ss_size), static_cast<size_t>(second->stack_mem->stack_size));
    put(offsetof(stCoRoutine_t, ctx) + offsetof(coctx_t, ss_sp), second->stack_mem->stack_buffer);
    put(offsetof(stCoRoutine_t, stack_mem), second->stack_mem);
    for (size_t i = 0; i < sizeof found; i++) {
        EXPECT_EQ(found[i], expected[i]) << "byte " << i;
    }
    co_release(second);
}

TEST(SecurityBlock, OfOneThatWaitedIsAsNewForTheNext)
{
    stCoRoutine_t *first = nullptr;
    ASSERT_EQ(co_create(&first, nullptr, wait_in_each_way, nullptr), 0);
    co_resume(first);
    co_eventloop(co_get_epoll_ct(), stop_when_ended, first);
    expect_the_next_as_new(first);
}

TEST(SecurityBlock, WrittenByHandIsAsNewForTheNext)
{
    stCoRoutine_t *first = nullptr;
    ASSERT_EQ(co_create(&first, nullptr, wait_in_each_way, nullptr), 0);
    const auto secret = reinterpret_cast<char *>(0x5ec2e75ec2e7);
    first->ctx.ss_sp = secret;
    first->ctx.ss_size = 0x5ec2e7;
    first->stack_sp = secret;
    first->save_size = 0x5ec2e7;
    first->save_buffer = secret;
    expect_the_next_as_new(first);
}

} // namespace

#endif
