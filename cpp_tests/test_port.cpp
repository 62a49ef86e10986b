// What every port to a processor must keep (docs/PORTING.md): registers, alignment, unwinding, the thread's slot, copies
// of stacks. Written without assembly but for the registers, so that a new port runs it as it is.
#include "support.h"

#include <unwind.h>

#include <cstring>
#include <stdexcept>
#include <thread>

using namespace support;

namespace {

// More live values than a processor has registers that a call preserves: the compiler fills all of those.
template <typename T>
T many_values_across(T seed, void (*leave)(void *), void *arg)
{
    T a = seed + 1, b = seed + 2, c = seed + 3, d = seed + 4, e = seed + 5, f = seed + 6, g = seed + 7, h = seed + 8;
    T i = seed + 9, j = seed + 10, k = seed + 11, l = seed + 12, m = seed + 13, n = seed + 14;
    for (int round = 0; round < 3; ++round) {
        leave(arg);
        a += b * 2, b += c * 3, c += d * 5, d += e * 7, e += f * 11, f += g * 13, g += h * 17, h += i * 19;
        i += j * 23, j += k * 29, k += l * 31, l += m * 37, m += n * 41, n += a;
    }
    return a + b + c + d + e + f + g + h + i + j + k + l + m + n;
}

template <typename T>
void values_survive()
{
    const auto nothing = [](void *) {};
    const T expected_inside = many_values_across<T>(1000, nothing, nullptr);
    const T expected_outside = many_values_across<T>(2000, nothing, nullptr);
    T inside = 0;
    Co co([&] { inside = many_values_across<T>(1000, [](void *) { co_yield_ct(); }, nullptr); });
    const auto resume = [](void *p) { static_cast<Co *>(p)->resume(); };
    EXPECT_EQ(many_values_across<T>(2000, resume, &co), expected_outside);
    co.resume();
    EXPECT_TRUE(co.ended());
    EXPECT_EQ(inside, expected_inside);
}

__attribute__((noinline)) bool aligned_all_the_way(int depth)
{
    alignas(16) volatile char local[16];
    local[0] = static_cast<char>(depth);
    const bool here = reinterpret_cast<uintptr_t>(&local[0]) % 16 == 0 &&
                      reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) % 16 == 0;
    if (depth % 3 == 0) {
        co_yield_ct();
    }
    return here && (depth == 0 || aligned_all_the_way(depth - 1)) && local[0] == static_cast<char>(depth);
}

int frames_seen()
{
    int count = 0;
    _Unwind_Backtrace(
        [](_Unwind_Context *, void *counter) {
            return ++*static_cast<int *>(counter) < 1000 ? _URC_NO_REASON : _URC_END_OF_STACK;
        },
        &count);
    return count;
}

__attribute__((noinline)) int frames_seen_below(int depth)
{
    const int seen = depth == 0 ? frames_seen() : frames_seen_below(depth - 1);
    asm volatile(""); // no tail call
    return seen;
}

} // namespace

TEST(Port, IntegerRegistersSurviveASwitch) { values_survive<unsigned long>(); }

TEST(Port, FloatingPointRegistersSurviveASwitch) { values_survive<double>(); }

TEST(Port, EveryFrameOfACoroutineIsAligned)
{
    bool aligned = false;
    Co co([&] { aligned = aligned_all_the_way(30); });
    while (!co.ended()) {
        co.resume();
    }
    EXPECT_TRUE(aligned);
}

TEST(Port, ABacktraceEndsBehindTheRoutineBeforeAndAfterASwitch)
{
    int shallow = 0, deep = 0, later = 0;
    Co co([&] {
        shallow = frames_seen_below(1);
        deep = frames_seen_below(21);
        co_yield_ct();
        later = frames_seen_below(1);
    });
    co.resume();
    co.resume();
    EXPECT_GE(shallow, 3);
    EXPECT_LT(shallow, 40);
    EXPECT_EQ(deep, shallow + 20);
    EXPECT_EQ(later, shallow);
}

TEST(Port, ExceptionsPassThroughFramesThatWereSuspended)
{
    std::string caught;
    Co co([&] {
        try {
            Co inner([] { co_yield_ct(); });
            inner.resume();
            co_yield_ct();
            throw std::runtime_error("thrown after a switch");
        } catch (const std::runtime_error &error) {
            caught = error.what();
        }
    });
    co.resume();
    EXPECT_THROW(
        [&] {
            co.resume();
            throw std::logic_error("outside");
        }(),
        std::logic_error);
    EXPECT_EQ(caught, "thrown after a switch");
}

TEST(Port, EveryThreadHasItsOwnSlot)
{
    stCoRoutine_t *here = nullptr;
    Co co([&] { here = co_self(); });
    co.resume();
    EXPECT_NE(here, nullptr);
    bool none_at_first = false, worked = false;
    std::thread([&] {
        none_at_first = GetCurrThreadCo() == nullptr;
        Co other([&] { worked = co_self() != here && co_self() != nullptr; });
        other.resume();
    }).join();
    EXPECT_TRUE(none_at_first);
    EXPECT_TRUE(worked);
}

TEST(Port, CopyStacksComeBackByteForByte)
{
    stCoRoutineAttr_t attr;
    attr.stack_size = 128 * 1024;
    attr.share_stack = co_alloc_sharestack(1, 128 * 1024);
    struct Task {
        stCoRoutine_t *co;
        size_t size;
        unsigned seed;
        int wrong;
    };
    // Around the sizes at which copying goes another way, and odd ones.
    std::vector<Task> tasks;
    for (size_t size : {1, 17, 160, 700, 1000, 1024, 1500, 5000, 40000}) {
        tasks.push_back({nullptr, size, static_cast<unsigned>(tasks.size() * 31 + 7), 0});
    }
    for (Task &task : tasks) {
        co_create(
            &task.co, &attr,
            [](void *p) -> void * {
                Task *t = static_cast<Task *>(p);
                auto *bytes = static_cast<volatile unsigned char *>(__builtin_alloca(t->size));
                for (int round = 0; round < 5; ++round) {
                    for (size_t i = 0; i < t->size; ++i) {
                        bytes[i] = static_cast<unsigned char>(t->seed + i * 7 + round);
                    }
                    co_yield_ct();
                    for (size_t i = 0; i < t->size; ++i) {
                        t->wrong += bytes[i] != static_cast<unsigned char>(t->seed + i * 7 + round);
                    }
                }
                return nullptr;
            },
            &task);
    }
    for (int round = 0; round < 6; ++round) {
        for (Task &task : tasks) {
            co_resume(task.co);
        }
    }
    for (Task &task : tasks) {
        EXPECT_EQ(task.wrong, 0) << task.size;
        EXPECT_EQ(task.co->cEnd, 1) << task.size;
        co_release(task.co);
    }
}

TEST(Port, ManySwitchesLoseNothing)
{
    const long rounds = 200000;
    long count = 0;
    Co co([&] {
        for (; count < rounds; ++count) {
            co_yield_ct();
        }
    });
    for (long i = 0; i <= rounds; ++i) {
        co.resume();
    }
    EXPECT_EQ(count, rounds);
    EXPECT_TRUE(co.ended());
}
