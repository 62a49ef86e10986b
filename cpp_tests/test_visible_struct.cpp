// The parts of the control block that programs read and write themselves.
#include "support.h"

using namespace support;

static_assert(sizeof(stCoRoutineAttr_t) == 12 && alignof(stCoRoutineAttr_t) == 1);
static_assert(offsetof(stCoRoutineAttr_t, stack_size) == 0);
static_assert(offsetof(stCoRoutineAttr_t, share_stack) == 4);

static_assert(alignof(stCoRoutine_t) == 8);
static_assert(offsetof(stCoRoutine_t, env) == 0);
static_assert(offsetof(stCoRoutine_t, pfn) == 8);
static_assert(offsetof(stCoRoutine_t, arg) == 16);
static_assert(offsetof(stCoRoutine_t, ctx) == 24);
static_assert(offsetof(stCoRoutine_t, cStart) == 152);
static_assert(offsetof(stCoRoutine_t, cEnd) == 153);
static_assert(offsetof(stCoRoutine_t, cIsMain) == 154);
static_assert(offsetof(stCoRoutine_t, cEnableSysHook) == 155);
static_assert(offsetof(stCoRoutine_t, cIsShareStack) == 156);
static_assert(offsetof(stCoRoutine_t, pvEnv) == 160);
static_assert(offsetof(stCoRoutine_t, stack_mem) == 168);
static_assert(offsetof(stCoRoutine_t, stack_sp) == 176);
static_assert(offsetof(stCoRoutine_t, save_size) == 184);
static_assert(offsetof(stCoRoutine_t, save_buffer) == 192);
static_assert(offsetof(stCoRoutine_t, aSpec) == 200);
static_assert(sizeof(stCoRoutine_t::save_size) == 4);
static_assert(sizeof(stCoRoutine_t::cStart) == 1);
static_assert(sizeof(stCoRoutine_t::aSpec) >= sizeof(stCoSpec_t));

static_assert(sizeof(stCoSpec_t) == 8 && offsetof(stCoSpec_t, value) == 0);

static_assert(sizeof(stStackMem_t) == 32);
static_assert(offsetof(stStackMem_t, occupy_co) == 0);
static_assert(offsetof(stStackMem_t, stack_size) == 8);
static_assert(offsetof(stStackMem_t, stack_bp) == 16);
static_assert(offsetof(stStackMem_t, stack_buffer) == 24);

static_assert(sizeof(stShareStack_t) == 24);
static_assert(offsetof(stShareStack_t, alloc_idx) == 0);
static_assert(offsetof(stShareStack_t, stack_size) == 4);
static_assert(offsetof(stShareStack_t, count) == 8);
static_assert(offsetof(stShareStack_t, stack_array) == 16);

static_assert(sizeof(coctx_t) == 128);
static_assert(offsetof(coctx_t, regs) == 0);
static_assert(offsetof(coctx_t, ss_size) == 112);
static_assert(offsetof(coctx_t, ss_sp) == 120);
static_assert(sizeof(coctx_param_t) == 16);
static_assert(offsetof(coctx_param_t, s1) == 0 && offsetof(coctx_param_t, s2) == 8);

static_assert(sizeof(co_epoll_res) == 24);
static_assert(offsetof(co_epoll_res, size) == 0);
static_assert(offsetof(co_epoll_res, events) == 8);
static_assert(offsetof(co_epoll_res, eventlist) == 16);

static_assert(sizeof(clsCoMutex) == 16);
static_assert(sizeof(clsSmartLock) == 8);

namespace {

constexpr size_t inline_slots = sizeof(stCoRoutine_t::aSpec) / sizeof(stCoSpec_t);

void *add_one(void *counter)
{
    ++*static_cast<int *>(counter);
    return nullptr;
}

void *add_ten(void *counter)
{
    *static_cast<int *>(counter) += 10;
    return nullptr;
}

// A slot as programs reach it that know only the offset.
void **raw_slot(stCoRoutine_t *co, size_t index)
{
    return reinterpret_cast<void **>(reinterpret_cast<char *>(co) + 200 + index * sizeof(void *));
}

} // namespace

TEST(VisibleStruct, StartAndEndFlagsFollowTheCoroutine)
{
    char start_inside = -1;
    char end_inside = -1;
    Co co([&] {
        start_inside = co_self()->cStart;
        end_inside = co_self()->cEnd;
        co_yield_ct();
    });
    EXPECT_EQ(co.get()->cStart, 0);
    EXPECT_EQ(co.get()->cEnd, 0);
    co.resume();
    EXPECT_EQ(start_inside, 1);
    EXPECT_EQ(end_inside, 0);
    EXPECT_EQ(co.get()->cStart, 1);
    EXPECT_EQ(co.get()->cEnd, 0);
    co.resume();
    EXPECT_EQ(co.get()->cStart, 1);
    EXPECT_EQ(co.get()->cEnd, 1);
}

TEST(VisibleStruct, ShowsEnvironmentRoutineAndArgument)
{
    int counter = 0;
    stCoRoutine_t *co = nullptr;
    co_create(&co, nullptr, add_one, &counter);
    EXPECT_EQ(co->env, co_get_curr_thread_env());
    EXPECT_EQ(co->pfn, add_one);
    EXPECT_EQ(co->arg, &counter);
    co_release(co);
}

TEST(VisibleStruct, RoutineAndArgumentWrittenBeforeTheFirstResumeCount)
{
    int first = 0;
    int second = 0;
    stCoRoutine_t *co = nullptr;
    co_create(&co, nullptr, add_one, &first);
    co->pfn = add_ten;
    co->arg = &second;
    co_resume(co);
    EXPECT_EQ(first, 0);
    EXPECT_EQ(second, 10);
    co_release(co);
}

TEST(VisibleStruct, RoutineAndArgumentWrittenAfterAResetCount)
{
    int first = 0;
    int second = 0;
    stCoRoutine_t *co = nullptr;
    co_create(&co, nullptr, add_one, &first);
    co_resume(co);
    co_reset(co);
    co->pfn = add_ten;
    co->arg = &second;
    co_resume(co);
    EXPECT_EQ(first, 1);
    EXPECT_EQ(second, 10);
    co_release(co);
}

TEST(VisibleStruct, StartAndEndWrittenToZeroRestartAnEndedCoroutine)
{
    int counter = 0;
    stCoRoutine_t *co = nullptr;
    co_create(&co, nullptr, add_one, &counter);
    for (int i = 1; i <= 5; ++i) {
        co_resume(co);
        EXPECT_EQ(counter, i);
        EXPECT_EQ(co->cEnd, 1);
        co->cStart = 0;
        co->cEnd = 0;
    }
    co_release(co);
}

TEST(VisibleStruct, StartWrittenToZeroAloneRestartsAnEndedCoroutine)
{
    int counter = 0;
    stCoRoutine_t *co = nullptr;
    co_create(&co, nullptr, add_one, &counter);
    co_resume(co);
    co->cStart = 0;
    co_resume(co);
    EXPECT_EQ(counter, 2);
    co_release(co);
}

TEST(VisibleStruct, StartWrittenToZeroRestartsASuspendedCoroutine)
{
    std::string trace;
    Co co([&] {
        trace += "a";
        co_yield_ct();
        trace += "b";
    });
    co.resume();
    co.get()->cStart = 0;
    co.resume();
    EXPECT_EQ(trace, "aa");
    co.resume();
    EXPECT_EQ(trace, "aab");
    EXPECT_TRUE(co.ended());
}

TEST(VisibleStruct, HookFlagWrittenFromOutsideSwitchesHooksOn)
{
    std::vector<bool> seen;
    Co co([&] {
        for (;;) {
            seen.push_back(co_is_enable_sys_hook());
            co_yield_ct();
        }
    });
    co.get()->cEnableSysHook = 1;
    co.resume();
    co.get()->cEnableSysHook = 0;
    co.resume();
    EXPECT_EQ(seen, (std::vector<bool>{true, false}));
}

TEST(VisibleStruct, HookFlagWrittenByHandActsOnHookedCalls)
{
    // A hooked socket() hides its O_NONBLOCK from F_GETFL; recv on it gives up after SO_RCVTIMEO
    // instead of blocking the thread.
    bool other_ran = false;
    int result = 0;
    int error = 0;
    Co co([&] {
        const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
        struct timeval time_out = {0, 30 * 1000};
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time_out, sizeof time_out);
        char c;
        result = static_cast<int>(recv(fd, &c, 1, 0));
        error = errno;
        close(fd);
    });
    co.get()->cEnableSysHook = 1;
    co.resume();
    EXPECT_FALSE(co.ended());
    Co other([&] { other_ran = true; });
    other.resume();
    EXPECT_TRUE(loop_until([&] { return co.ended(); }));
    EXPECT_TRUE(other_ran);
    EXPECT_EQ(result, -1);
    EXPECT_EQ(error, EAGAIN);
}

TEST(VisibleStruct, HookFlagShowsWhatTheCallsDid)
{
    Co co([&] {
        co_enable_hook_sys();
        co_yield_ct();
        co_disable_hook_sys();
        co_yield_ct();
    });
    co.resume();
    EXPECT_EQ(co.get()->cEnableSysHook, 1);
    co.resume();
    EXPECT_EQ(co.get()->cEnableSysHook, 0);
}

TEST(VisibleStruct, OnlyTheMainCoroutineIsMarkedMain)
{
    Co co([] {});
    EXPECT_EQ(co.get()->cIsMain, 0);
    EXPECT_EQ(co_self()->cIsMain, 1);
    EXPECT_EQ(co_self()->cIsShareStack, 0);
    EXPECT_EQ(co_self()->env, co_get_curr_thread_env());
}

TEST(VisibleStruct, MainCoroutineHasStackMemToo)
{
    co_get_epoll_ct();
    EXPECT_NE(co_self()->stack_mem, nullptr);
}

TEST(VisibleStruct, SlotZeroIsTheProgramsOwn)
{
    int value = 0;
    int later = 0;
    void *seen = nullptr;
    Co co([&] {
        seen = *raw_slot(co_self(), 0);
        co_self()->aSpec[0].value = &later;
        co_yield_ct();
        seen = co_self()->aSpec[0].value;
    });
    EXPECT_EQ(*raw_slot(co.get(), 0), nullptr);
    *raw_slot(co.get(), 0) = &value;
    co.resume();
    EXPECT_EQ(seen, &value);
    EXPECT_EQ(*raw_slot(co.get(), 0), &later);
    co.resume();
    EXPECT_EQ(seen, &later);
}

TEST(VisibleStruct, SlotZeroOfTheMainCoroutineIsTheProgramsOwn)
{
    on_thread([] {
        int value = 0;
        Co co([] { co_yield_ct(); });
        EXPECT_EQ(*raw_slot(co_self(), 0), nullptr);
        *raw_slot(co_self(), 0) = &value;
        co.resume();
        co.resume();
        loop_rounds(3);
        EXPECT_EQ(co_self()->aSpec[0].value, &value);
    });
}

TEST(VisibleStruct, EachCoroutineHasItsOwnSlotZero)
{
    Co a([] {});
    Co b([] {});
    *raw_slot(a.get(), 0) = &a;
    *raw_slot(b.get(), 0) = &b;
    EXPECT_EQ(*raw_slot(a.get(), 0), &a);
    EXPECT_EQ(*raw_slot(b.get(), 0), &b);
}

TEST(VisibleStruct, SlotZeroSurvivesWaitsAndReset)
{
    int value = 0;
    int waits = 0;
    Co co([&] {
        struct pollfd none = {-1, 0, 0};
        co_poll(co_get_epoll_ct(), &none, 1, 2);
        ++waits;
    });
    *raw_slot(co.get(), 0) = &value;
    co.resume();
    EXPECT_TRUE(loop_until([&] { return waits == 1; }));
    EXPECT_EQ(*raw_slot(co.get(), 0), &value);
    co.reset();
    EXPECT_EQ(*raw_slot(co.get(), 0), &value);
}

TEST(VisibleStruct, InlineSlotsAreWhatGetSpecificReturns)
{
    static int values[inline_slots];
    size_t agreed = 0;
    Co co([&] {
        for (size_t k = 0; k < inline_slots; ++k) {
            agreed += co_getspecific(static_cast<pthread_key_t>(k)) == &values[k];
        }
    });
    for (size_t k = 0; k < inline_slots; ++k) {
        *raw_slot(co.get(), k) = &values[k];
    }
    co.resume();
    EXPECT_EQ(agreed, inline_slots);
}

TEST(VisibleStruct, SetSpecificWritesTheInlineSlots)
{
    static int values[inline_slots];
    Co co([&] {
        for (size_t k = 0; k < inline_slots; ++k) {
            co_setspecific(static_cast<pthread_key_t>(k), &values[k]);
        }
    });
    co.resume();
    size_t agreed = 0;
    for (size_t k = 0; k < inline_slots; ++k) {
        agreed += *raw_slot(co.get(), k) == &values[k];
    }
    EXPECT_EQ(agreed, inline_slots);
}

TEST(VisibleStruct, StackMemDescribesThePrivateStack)
{
    const char *local = nullptr;
    const stCoRoutineAttr_t at = attr(64 * 1024);
    Co co(
        [&] {
            char c = 0;
            const char *volatile here = &c;
            local = here;
            co_yield_ct();
        },
        &at);
    co.resume();
    const stStackMem_t *mem = co.get()->stack_mem;
    ASSERT_NE(mem, nullptr);
    EXPECT_EQ(mem->stack_size, 64 * 1024);
    EXPECT_EQ(mem->stack_bp, mem->stack_buffer + mem->stack_size);
    EXPECT_GE(local, mem->stack_buffer);
    EXPECT_LT(local, mem->stack_bp);
    EXPECT_GT(local, mem->stack_bp - 4096);
    EXPECT_EQ(co.get()->cIsShareStack, 0);
}

TEST(VisibleStruct, StackMemDescribesTheSharedStack)
{
    stShareStack_t *share = co_alloc_sharestack(2, 64 * 1024);
    EXPECT_EQ(share->count, 2);
    EXPECT_EQ(share->stack_size, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    const char *local = nullptr;
    stCoRoutine_t *occupant = nullptr;
    Co co(
        [&] {
            char c = 0;
            const char *volatile here = &c;
            local = here;
            occupant = co_self()->stack_mem->occupy_co;
            co_yield_ct();
        },
        &at);
    co.resume();
    const stStackMem_t *mem = co.get()->stack_mem;
    EXPECT_EQ(mem, share->stack_array[0]);
    EXPECT_EQ(mem->stack_size, 64 * 1024);
    EXPECT_EQ(mem->stack_bp, mem->stack_buffer + mem->stack_size);
    EXPECT_GE(local, mem->stack_buffer);
    EXPECT_LT(local, mem->stack_bp);
    EXPECT_EQ(occupant, co.get());
}

TEST(VisibleStruct, SaveBufferHoldsTheLiveBytesOfASwitchedOutCopyStack)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    const char *address = nullptr;
    Co co(
        [&] {
            volatile char marker[64];
            for (auto &byte : marker) {
                byte = 0x5a;
            }
            address = const_cast<const char *>(&marker[0]);
            co_yield_ct();
            marker[0] = 0;
        },
        &at);
    Co other([] { co_yield_ct(); }, &at);
    co.resume();
    other.resume(); // takes the stack
    const stCoRoutine_t *raw = co.get();
    ASSERT_NE(raw->save_buffer, nullptr);
    EXPECT_GT(raw->save_size, 64u);
    EXPECT_LT(raw->save_size, 8192u);
    ASSERT_GE(address, raw->stack_sp);
    const size_t offset = static_cast<size_t>(address - raw->stack_sp);
    ASSERT_LE(offset + 64, raw->save_size);
    for (size_t i = 0; i < 64; ++i) {
        ASSERT_EQ(raw->save_buffer[offset + i], 0x5a);
    }
}

MENDED(VisibleStruct, StartWrittenToZeroWhileWaitingInPollActsAsReset)
{
    Pipe pipe_;
    int begun = 0;
    int went_on = 0;
    Co co([&] {
        if (++begun == 1) {
            struct pollfd p = {pipe_.rd, POLLIN, 0};
            co_poll(co_get_epoll_ct(), &p, 1, 30);
        } else {
            co_yield_ct();
        }
        ++went_on;
    });
    co.resume();
    co.get()->cStart = 0;
    co.resume();
    EXPECT_EQ(begun, 2);
    pipe_.put();
    bool later = false;
    Co timer([&] {
        struct pollfd none = {-1, 0, 0};
        co_poll(co_get_epoll_ct(), &none, 1, 60);
        later = true;
    });
    timer.resume();
    EXPECT_TRUE(loop_until([&] { return later; }));
    EXPECT_EQ(begun, 2);
    EXPECT_EQ(went_on, 0);
    co.resume();
    EXPECT_EQ(went_on, 1);
}

MENDED(VisibleStruct, StartWrittenToZeroWhileWaitingOnAConditionActsAsReset)
{
    stCoCond_t *cond = co_cond_alloc();
    int begun = 0;
    bool second_woken = false;
    Co first([&] {
        if (++begun == 1) {
            co_cond_timedwait(cond, 10000);
        } else {
            co_yield_ct();
        }
    });
    Co second([&] {
        co_cond_timedwait(cond, 10000);
        second_woken = true;
    });
    first.resume();
    second.resume();
    first.get()->cStart = 0;
    first.resume();
    EXPECT_EQ(begun, 2);
    co_cond_signal(cond);
    EXPECT_TRUE(loop_until([&] { return second_woken; }));
    EXPECT_FALSE(first.ended());
    co_cond_free(cond);
}

MENDED(VisibleStruct, HasAShortInlineArrayOfSpecifics)
{
    EXPECT_LT(sizeof(stCoRoutine_t), 512u);
    EXPECT_LT(inline_slots, 1024u);
}
