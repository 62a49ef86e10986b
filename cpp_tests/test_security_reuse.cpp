// What a coroutine leaves behind is not there for the next one: the control block, its specifics, the bytes of a copy stack
// that were saved. (A private stack's own bytes are: SECURITY.md says so.)
#include "support.h"

#ifndef COLIB_PEER // the original clears nothing

namespace {

using support::attr;

constexpr size_t kBlock = 208;
const void *const kSecret = reinterpret_cast<void *>(0x5ec2e75ec2e75ec2);

void *idle(void *)
{
    return nullptr;
}

// All that a coroutine can leave in its block, by the calls and by hand; then it waits, and ends.
void *leaves_all(void *)
{
    stCoRoutine_t *self = co_self();
    co_enable_hook_sys();
    co_setspecific(0, kSecret);
    co_setspecific(5, kSecret);
    self->aSpec[0].value = const_cast<void *>(kSecret);
    co_poll(co_get_epoll_ct(), nullptr, 0, 1);
    int ends[2];
    if (pipe(ends) == 0) {
        pollfd one = {ends[0], POLLIN, 0};
        co_poll(co_get_epoll_ct(), &one, 1, 1);
        close(ends[0]);
        close(ends[1]);
    }
    return nullptr;
}

// A new coroutine's block, the address of its stack and what has to be there apart.
std::vector<unsigned char> bytes_of(stCoRoutine_t *co)
{
    std::vector<unsigned char> bytes(kBlock);
    memcpy(bytes.data(), static_cast<void *>(co), kBlock);
    return bytes;
}

stCoRoutine_t *make(const stCoRoutineAttr_t &at)
{
    stCoRoutine_t *co = nullptr;
    if (co_create(&co, &at, idle, nullptr) != 0) {
        std::abort();
    }
    return co;
}

void run_to_its_end(stCoRoutine_t *co)
{
    co_resume(co);
    support::loop_until([&] { return co->cEnd != 0; });
}

} // namespace

TEST(Reuse, of_a_control_block_shows_nothing_of_its_last_coroutine)
{
    support::on_thread([] {
        const stCoRoutineAttr_t at = attr(128 * 1024);
        stCoRoutine_t *first = make(at);
        const std::vector<unsigned char> fresh = bytes_of(first);
        int reused = 0;
        for (int round = 0; round < 50; ++round) {
            first->pfn = leaves_all;
            first->arg = const_cast<void *>(kSecret);
            run_to_its_end(first);
            co_release(first);
            stCoRoutine_t *next = make(at);
            reused += next == first;
            if (next == first) {
                ASSERT_EQ(fresh, bytes_of(next));
            }
            EXPECT_EQ(nullptr, next->aSpec[0].value);
            EXPECT_EQ(0, next->cEnableSysHook);
            first = next;
        }
        EXPECT_GT(reused, 40) << "the very block was to be used again";
        co_release(first);
    });
}

TEST(Reuse, of_a_block_shows_no_specific_of_its_last_coroutine)
{
    support::on_thread([] {
        for (int round = 0; round < 20; ++round) {
            stCoRoutine_t *co = make(attr(64 * 1024));
            co->pfn = leaves_all;
            run_to_its_end(co);
            co_release(co);
            static void *seen[2];
            stCoRoutine_t *next = make(attr(64 * 1024));
            next->pfn = [](void *) -> void * {
                seen[0] = co_getspecific(0);
                seen[1] = co_getspecific(5);
                return nullptr;
            };
            co_resume(next);
            EXPECT_EQ(nullptr, seen[0]);
            EXPECT_EQ(nullptr, seen[1]);
            co_release(next);
        }
    });
}

namespace {

// Fills so many bytes of its stack, and yields until it is released.
void *fills(void *arg)
{
    const int size = *static_cast<int *>(arg);
    volatile unsigned char *bytes = static_cast<volatile unsigned char *>(__builtin_alloca(static_cast<size_t>(size)));
    for (int i = 0; i < size; ++i) {
        bytes[i] = 0xa5;
    }
    for (;;) {
        co_yield_ct();
    }
}

} // namespace

TEST(Reuse, of_a_save_buffer_shows_nothing_beyond_what_was_saved)
{
    support::on_thread([] {
        const stCoRoutineAttr_t at = attr(0, co_alloc_sharestack(1, 128 * 1024));
        int looked_at = 0;
        for (int large = 1500; large < 1800; large += 16) {
            static int size;
            const auto save = [&](int bytes) {
                size = bytes;
                stCoRoutine_t *co = make(at);
                co->pfn = fills;
                co->arg = &size;
                co_resume(co);
                stCoRoutine_t *other = make(at);
                co_resume(other); // takes the stack: the bytes of the first are saved
                co_release(other);
                return co;
            };
            co_release(save(large));
            // Less, in a buffer of the same size (a multiple of 128 there): its end is not this one's.
            stCoRoutine_t *small = save(large - 32);
            const size_t saved = small->save_size;
            ASSERT_TRUE(saved > 1024 && saved <= 2048) << saved;
            for (size_t i = saved; i % 128 != 0; ++i) {
                EXPECT_EQ(0, small->save_buffer[i]);
                ++looked_at;
            }
            co_release(small);
        }
        EXPECT_GT(looked_at, 100);
    });
}

#endif
