// co_create and co_alloc_sharestack: what they accept, what they build, how they fail.
#include "support.h"

#include <memory>

using namespace support;

namespace {

void *do_nothing(void *) { return nullptr; }

void *count_up(void *counter)
{
    ++*static_cast<int *>(counter);
    return nullptr;
}

int stack_size_for(int asked)
{
    const stCoRoutineAttr_t at = attr(asked);
    stCoRoutine_t *co = nullptr;
    EXPECT_EQ(co_create(&co, &at, do_nothing, nullptr), 0);
    const int size = co->stack_mem->stack_size;
    co_release(co);
    return size;
}

} // namespace

TEST(CoCreate, ReturnsZeroAndRunsNothingYet)
{
    int runs = 0;
    stCoRoutine_t *co = nullptr;
    EXPECT_EQ(co_create(&co, nullptr, count_up, &runs), 0);
    ASSERT_NE(co, nullptr);
    EXPECT_EQ(runs, 0);
    co_resume(co);
    EXPECT_EQ(runs, 1);
    co_release(co);
}

TEST(CoCreate, DefaultAttributesAre128KiBAndNoSharedStack)
{
    const stCoRoutineAttr_t at;
    EXPECT_EQ(at.stack_size, 128 * 1024);
    EXPECT_EQ(at.share_stack, nullptr);
}

TEST(CoCreate, NullAttrGives128KiBPrivateStack)
{
    stCoRoutine_t *co = nullptr;
    ASSERT_EQ(co_create(&co, nullptr, do_nothing, nullptr), 0);
    EXPECT_EQ(co->stack_mem->stack_size, 128 * 1024);
    EXPECT_EQ(co->cIsShareStack, 0);
    co_release(co);
}

TEST(CoCreate, StackSizeOfZeroGives128KiB) { EXPECT_EQ(stack_size_for(0), 128 * 1024); }

TEST(CoCreate, NegativeStackSizeGives128KiB)
{
    EXPECT_EQ(stack_size_for(-1), 128 * 1024);
    EXPECT_EQ(stack_size_for(INT_MIN), 128 * 1024);
}

TEST(CoCreate, StackSizeOver8MiBGives8MiB)
{
    EXPECT_EQ(stack_size_for(8 * 1024 * 1024 + 1), 8 * 1024 * 1024);
    EXPECT_EQ(stack_size_for(INT_MAX), 8 * 1024 * 1024);
    EXPECT_EQ(stack_size_for(8 * 1024 * 1024), 8 * 1024 * 1024);
}

TEST(CoCreate, StackSizeIsRoundedUpToWholePages)
{
    const int page = getpagesize(); // 4096 where the original runs
    EXPECT_EQ(stack_size_for(page), page);
    EXPECT_EQ(stack_size_for(page + 1), 2 * page);
    EXPECT_EQ(stack_size_for(100 * 1000), (100 * 1000 + page - 1) / page * page);
    EXPECT_EQ(stack_size_for(1), page);
}

TEST(CoCreate, AttributesAreReadAtCreationOnly)
{
    stCoRoutineAttr_t at = attr(64 * 1024);
    int runs = 0;
    stCoRoutine_t *co = nullptr;
    ASSERT_EQ(co_create(&co, &at, count_up, &runs), 0);
    memset(static_cast<void *>(&at), 0xa5, sizeof at);
    co_resume(co);
    EXPECT_EQ(runs, 1);
    EXPECT_EQ(co->stack_mem->stack_size, 64 * 1024);
    co_release(co);
}

TEST(CoCreate, NearlyTheWholeStackIsUsable)
{
    for (int size : {32 * 1024, 128 * 1024, 8 * 1024 * 1024}) {
        const stCoRoutineAttr_t at = attr(size);
        long sum = 0;
        Co co(
            [&] {
                const size_t bytes = static_cast<size_t>(size) - 8 * 1024;
                volatile char *room = static_cast<volatile char *>(__builtin_alloca(bytes));
                for (size_t i = 0; i < bytes; i += 512) {
                    room[i] = 1;
                }
                co_yield_ct();
                for (size_t i = 0; i < bytes; i += 512) {
                    sum += room[i];
                }
            },
            &at);
        co.resume();
        co.resume();
        EXPECT_EQ(sum, (size - 8 * 1024) / 512);
    }
}

TEST(CoCreate, SharedStacksAreGivenInTurn)
{
    stShareStack_t *share = co_alloc_sharestack(3, 64 * 1024);
    ASSERT_NE(share, nullptr);
    const stCoRoutineAttr_t at = attr(0, share);
    std::vector<stCoRoutine_t *> all;
    for (unsigned i = 0; i < 7; ++i) {
        EXPECT_EQ(share->alloc_idx, i);
        stCoRoutine_t *co = nullptr;
        ASSERT_EQ(co_create(&co, &at, do_nothing, nullptr), 0);
        EXPECT_EQ(co->stack_mem, share->stack_array[i % 3]);
        EXPECT_EQ(co->cIsShareStack, 1);
        all.push_back(co);
    }
    for (stCoRoutine_t *co : all) {
        co_release(co);
    }
}

TEST(CoCreate, SharedStackSizeWinsOverTheAttributes)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(1024 * 1024, share);
    Co co([] {}, &at);
    EXPECT_EQ(co.get()->stack_mem->stack_size, 64 * 1024);
}

TEST(CoCreate, CreatesTheThreadsEnvironmentOnFirstUse)
{
    on_thread([] {
        EXPECT_EQ(co_get_curr_thread_env(), nullptr);
        Co co([] {});
        EXPECT_NE(co_get_curr_thread_env(), nullptr);
        EXPECT_EQ(co.get()->env, co_get_curr_thread_env());
        ASSERT_NE(co_self(), nullptr);
        EXPECT_NE(co_self()->cIsMain, 0);
    });
}

TEST(CoCreate, HooksStartOff)
{
    bool on = true;
    Co co([&] { on = co_is_enable_sys_hook(); });
    EXPECT_EQ(co.get()->cEnableSysHook, 0);
    co.resume();
    EXPECT_FALSE(on);
}

TEST(CoCreate, HooksStartOffEvenWhenTheCreatorHasThemOn)
{
    bool inner_on = true;
    Co outer([&] {
        co_enable_hook_sys();
        Co inner([&] { inner_on = co_is_enable_sys_hook(); });
        inner.resume();
        EXPECT_TRUE(co_is_enable_sys_hook());
    });
    outer.resume();
    EXPECT_FALSE(inner_on);
}

TEST(CoCreate, NullRoutineEndsAtOnce)
{
    stCoRoutine_t *co = nullptr;
    ASSERT_EQ(co_create(&co, nullptr, nullptr, nullptr), 0);
    EXPECT_EQ(co->cEnd, 0);
    co_resume(co);
    EXPECT_EQ(co->cEnd, 1);
    co_release(co);
}

TEST(CoCreate, RoutineMayBeSetLaterThroughPfn)
{
    int runs = 0;
    stCoRoutine_t *co = nullptr;
    ASSERT_EQ(co_create(&co, nullptr, nullptr, nullptr), 0);
    co->pfn = count_up;
    co->arg = &runs;
    co_resume(co);
    EXPECT_EQ(runs, 1);
    co_release(co);
}

TEST(CoCreate, ManyLiveCoroutinesHaveStacksOfTheirOwn)
{
    const stCoRoutineAttr_t at = attr(16 * 1024);
    std::vector<std::unique_ptr<Co>> all;
    std::vector<int> seen(2000, -1);
    for (int i = 0; i < 2000; ++i) {
        all.push_back(std::make_unique<Co>(
            [i, &seen] {
                volatile int mine = i;
                co_yield_ct();
                seen[static_cast<size_t>(i)] = mine;
            },
            &at));
        all.back()->resume();
    }
    for (auto &co : all) {
        co->resume();
    }
    for (int i = 0; i < 2000; ++i) {
        ASSERT_EQ(seen[static_cast<size_t>(i)], i);
    }
}

TEST(CoCreate, StacksAreReusedAfterRelease)
{
    const auto round = [] {
        for (int i = 0; i < 5000; ++i) {
            Co co([] { co_yield_ct(); });
            co.resume();
        }
    };
    round();
    const long before = status_kib("VmRSS:");
    round();
    round();
    EXPECT_LT(status_kib("VmRSS:") - before, 4 * 1024);
}

MENDED(CoCreate, NullResultPointerGivesEINVAL)
{
    EXPECT_EQ(co_create(nullptr, nullptr, do_nothing, nullptr), -EINVAL);
}

MENDED(CoCreate, OutOfMemoryReturnsENOMEMAndClearsTheResult)
{
    EXPECT_EQ(in_child([] {
                  const stCoRoutineAttr_t at = attr(8 * 1024 * 1024);
                  if (!leave_address_space(512u << 20)) {
                      return 10;
                  }
                  for (int i = 0; i < 1000; ++i) {
                      stCoRoutine_t *co = reinterpret_cast<stCoRoutine_t *>(16);
                      const int result = co_create(&co, &at, do_nothing, nullptr);
                      if (result != 0) {
                          return result == -ENOMEM && co == nullptr ? 0 : 11;
                      }
                  }
                  return 12;
              }),
              0);
}

MENDED(CoCreate, OutOfMemoryLeavesTheLiveCoroutinesWorking)
{
    EXPECT_EQ(in_child([] {
                  const stCoRoutineAttr_t at = attr(8 * 1024 * 1024);
                  if (!leave_address_space(512u << 20)) {
                      return 10;
                  }
                  int runs = 0;
                  std::vector<stCoRoutine_t *> all;
                  for (;;) {
                      stCoRoutine_t *co = nullptr;
                      if (co_create(&co, &at, count_up, &runs) != 0) {
                          break;
                      }
                      all.push_back(co);
                      if (all.size() > 1000) {
                          return 11;
                      }
                  }
                  for (stCoRoutine_t *co : all) {
                      co_resume(co);
                  }
                  return runs > 0 && runs == static_cast<int>(all.size()) ? 0 : 12;
              }),
              0);
}

MENDED(CoCreate, WorksAgainAfterMemoryCameBack)
{
    EXPECT_EQ(in_child([] {
                  const stCoRoutineAttr_t at = attr(8 * 1024 * 1024);
                  struct rlimit old;
                  getrlimit(RLIMIT_AS, &old);
                  if (!leave_address_space(512u << 20)) {
                      return 10;
                  }
                  stCoRoutine_t *co = nullptr;
                  for (int i = 0; i < 1000 && co_create(&co, &at, do_nothing, nullptr) == 0; ++i) {
                  }
                  if (co != nullptr) {
                      return 11;
                  }
                  setrlimit(RLIMIT_AS, &old);
                  int runs = 0;
                  if (co_create(&co, &at, count_up, &runs) != 0) {
                      return 12;
                  }
                  co_resume(co);
                  return runs == 1 ? 0 : 13;
              }),
              0);
}

MENDED(CoAllocShareStack, NoStacksOrNoSizeGivesNull)
{
    EXPECT_EQ(co_alloc_sharestack(0, 64 * 1024), nullptr);
    EXPECT_EQ(co_alloc_sharestack(-1, 64 * 1024), nullptr);
    EXPECT_EQ(co_alloc_sharestack(1, 0), nullptr);
    EXPECT_EQ(co_alloc_sharestack(1, -4096), nullptr);
    EXPECT_EQ(co_alloc_sharestack(INT_MIN, INT_MIN), nullptr);
}

MENDED(CoAllocShareStack, NoMemoryForTheStacksGivesNullAndTakesNone)
{
    EXPECT_EQ(in_child([] {
                  if (!leave_address_space(256u << 20)) {
                      return 10;
                  }
                  for (int i = 0; i < 20; ++i) {
                      if (co_alloc_sharestack(1000, 1 << 20) != nullptr) {
                          return 11;
                      }
                      if (co_alloc_sharestack(INT_MAX, INT_MAX) != nullptr) {
                          return 12;
                      }
                  }
                  // What was taken on the way has been given back.
                  stShareStack_t *share = co_alloc_sharestack(100, 1 << 20);
                  if (share == nullptr) {
                      return 13;
                  }
                  const stCoRoutineAttr_t at = attr(0, share);
                  int runs = 0;
                  Co co([&] { ++runs; }, &at);
                  co.resume();
                  return runs == 1 ? 0 : 14;
              }),
              0);
}
