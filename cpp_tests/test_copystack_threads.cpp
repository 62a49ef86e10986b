// One group of copy stacks in several threads: a stack is one thread's while coroutines that started on it there have neither
// ended nor been released; the others' are refused meanwhile, with a message, and nobody's bytes are touched.
#include "pattern.h"
#include "support.h"

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>

using namespace support;
using pattern::keeps_its_bytes;
using pattern::Random;

namespace {

std::atomic<int> refusals{0};
std::atomic<int> other_messages{0};

// Counts what the library says while it is there.
struct Messages {
    Messages()
    {
        refusals = 0;
        other_messages = 0;
        co_set_log_handler([](const char *message) {
            ++(std::strstr(message, "another thread uses the copy stack") != nullptr ? refusals : other_messages);
        });
    }
    ~Messages() { co_set_log_handler(nullptr); }
};

// A thread that does one thing after the other, when told.
class Worker {
public:
    Worker() : thread_([this] { work(); }) {}
    ~Worker()
    {
        does(nullptr);
        thread_.join();
    }
    void does(const std::function<void()> &what)
    {
        std::unique_lock<std::mutex> lock(mutex_);
        what_ = what;
        asked_ = true;
        changed_.notify_all();
        changed_.wait(lock, [this] { return !asked_; });
    }

private:
    void work()
    {
        std::unique_lock<std::mutex> lock(mutex_);
        for (bool goes_on = true; goes_on;) {
            changed_.wait(lock, [this] { return asked_; });
            goes_on = what_ != nullptr;
            if (goes_on) {
                what_();
            }
            asked_ = false;
            changed_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::function<void()> what_;
    bool asked_ = false;
    std::thread thread_;
};

// Whether `co` runs when it is resumed; if not, the library says so, once.
[[maybe_unused]] bool runs(Co &co, const int &runs_so_far)
{
    const int before = runs_so_far;
    const int refused = refusals;
    co.resume();
    const bool ran = runs_so_far != before;
    EXPECT_EQ(refusals - refused, ran ? 0 : 1);
    return ran;
}

// The main thread's coroutine is refused until another thread's, on the same stack, `leaves` it.
[[maybe_unused]] void is_refused_until(const std::function<void(Co &)> &leaves, int whole_then)
{
    const Messages messages;
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    int mine = 0;
    int whole = 0;
    Co second([&] { ++mine; }, &at);
    Worker other;
    std::unique_ptr<Co> first;
    other.does([&] {
        first = std::make_unique<Co>([&] { whole += keeps_its_bytes(3000, 1, [] { co_yield_ct(); }); }, &at);
        first->resume();
    });
    EXPECT_FALSE(runs(second, mine));
    // Moved off the stack by one that has ended there: it is still at home on it.
    other.does([&] {
        Co passes([] {}, &at);
        passes.resume();
        EXPECT_TRUE(passes.ended());
    });
    EXPECT_FALSE(runs(second, mine));
    other.does([&] { leaves(*first); });
    EXPECT_EQ(whole, whole_then);
    EXPECT_TRUE(runs(second, mine));
    EXPECT_TRUE(second.ended());
    other.does([&] { first.reset(); });
    EXPECT_EQ(other_messages, 0);
}

// What a thread of the strain does with its coroutines: they lie on the stack with `depth` bytes, yield, nest, end, or are
// released half-way, by themselves as well.
struct Strain {
    stShareStack_t *share;
    std::atomic<bool> stop{false};
    std::atomic<long> torn{0};

    // How many coroutines ran.
    long works(uint64_t seed)
    {
        const stCoRoutineAttr_t at = attr(0, share);
        Random random{seed};
        long ran = 0;
        while (!stop) {
            // (Not on their stacks, whose frames are abandoned with a coroutine that is released half-way.)
            std::vector<std::unique_ptr<Co>> inner;
            Co outer([&] { goes(random, at, ran, inner); }, &at);
            const int turns = static_cast<int>(random.below(5));
            for (int i = 0; i < turns && !outer.ended(); ++i) {
                outer.resume();
            }
            if (outer.get()->cStart != 0 && !outer.ended() && random.one_in(4)) {
                outer.reset();
                outer.resume();
            }
        }
        return ran;
    }

    void goes(Random &random, const stCoRoutineAttr_t &at, long &ran, std::vector<std::unique_ptr<Co>> &inner)
    {
        ++ran;
        const size_t bytes = random.depth(8, 6000);
        const bool whole = keeps_its_bytes(bytes, random.next(), [&] {
            if (random.one_in(2)) {
                co_yield_ct();
            }
            if (inner.size() < 3 && random.one_in(2)) {
                // It needs this one's place.
                inner.push_back(std::make_unique<Co>([&] { goes(random, at, ran, inner); }, &at));
                Co &next = *inner.back();
                next.resume();
                co_yield_ct();
                if (!next.ended()) {
                    next.resume();
                }
            }
            if (random.one_in(3)) {
                co_yield_ct();
            }
        });
        torn += !whole;
    }
};

[[maybe_unused]] void strain(int stacks, int threads)
{
    const Messages messages;
    Strain all{co_alloc_sharestack(stacks, 64 * 1024)};
    std::vector<std::thread> workers;
    std::vector<long> ran(static_cast<size_t>(threads));
    for (size_t i = 0; i < ran.size(); ++i) {
        workers.emplace_back([&, i] { ran[i] = all.works(0x9e3779b97f4a7c15u * (i + 1)); });
    }
    std::this_thread::sleep_for(std::chrono::seconds(2));
    all.stop = true;
    for (std::thread &worker : workers) {
        worker.join();
    }
    EXPECT_EQ(all.torn, 0);
    EXPECT_GT(refusals, 0) << "the threads never met";
    for (const long n : ran) {
        EXPECT_GT(n, 0);
    }
    // All have left: anybody may begin.
    const stCoRoutineAttr_t at = attr(0, all.share);
    int done = 0;
    for (int i = 0; i < stacks; ++i) {
        Co co([&] { ++done; }, &at);
        co.resume();
    }
    EXPECT_EQ(done, stacks);
}

} // namespace

MENDED(CopyStackThreads, ASecondThreadIsRefusedUntilTheFirstOnesCoroutineEnds)
{
    is_refused_until([](Co &first) { first.resume(); }, 1);
}

MENDED(CopyStackThreads, ASecondThreadIsRefusedUntilTheFirstOnesCoroutineIsReleased)
{
    is_refused_until([](Co &first) { first.release(); }, 0);
}

MENDED(CopyStackThreads, ASecondThreadIsRefusedUntilTheFirstOnesCoroutineIsReset)
{
    is_refused_until([](Co &first) { first.reset(); }, 0);
}

MENDED(CopyStackThreads, TheStackOfAThreadThatEndedIsFreeWhenWhatItLeftIsReleased)
{
    const Messages messages;
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    std::vector<stCoRoutine_t *> left;
    on_thread([&] {
        for (int i = 0; i < 3; ++i) {
            Co co([] { co_yield_ct(); }, &at);
            co.resume();
            left.push_back(co.forget());
        }
    });
    int mine = 0;
    Co second([&] { ++mine; }, &at);
    EXPECT_FALSE(runs(second, mine));
    for (stCoRoutine_t *co : left) {
        EXPECT_FALSE(second.ended());
        co_release(co);
    }
    EXPECT_TRUE(runs(second, mine));
    EXPECT_EQ(other_messages, 0);
}

MENDED(CopyStackThreads, OneStackUnderStrain)
{
    strain(1, 2);
}

MENDED(CopyStackThreads, ThreeStacksUnderStrain)
{
    strain(3, 4);
}
