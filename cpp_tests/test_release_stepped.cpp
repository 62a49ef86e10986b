// co_release by another thread at any moment of a coroutine's yield, wait, wake or end: between any two instructions. A coroutine
// counts as suspended only once its stack is left, or the next owner of its stack and its block finds them written to.
#include "support.h"

#ifndef COLIB_PEER // the original frees what another thread runs

#include "stepped.h"

#include <algorithm>
#include <iterator>
#include <memory>

namespace {

using namespace support;
using namespace stepped;

const int kStackSize = 16 * 1024;

// Coroutines that get what was released: their stacks are full of a pattern, which they look at again when resumed.
class Crowd {
public:
    Crowd()
    {
        const stCoRoutineAttr_t at = attr(kStackSize);
        for (std::unique_ptr<Co> &co : all_) {
            co = std::make_unique<Co>([this] { fill_and_look(); }, &at);
            co->resume();
        }
    }
    // How many have found all as they left it.
    int whole()
    {
        for (std::unique_ptr<Co> &co : all_) {
            co->resume();
        }
        return whole_;
    }

    // More than a thread keeps for itself when they are released: what else was released must be among them.
    static const int kCount = 48;

private:
    void fill_and_look()
    {
        volatile unsigned char bytes[kStackSize / 2];
        for (volatile unsigned char &byte : bytes) {
            byte = 0xa5;
        }
        co_yield_ct();
        bool all = true;
        for (volatile unsigned char &byte : bytes) {
            all = all && byte == 0xa5;
        }
        whole_ += all;
    }

    std::unique_ptr<Co> all_[kCount];
    int whole_ = 0;
};

int read_end = -1;
stCoRoutine_t *victim = nullptr;
bool went_on = false;
bool lost_its_specific = false;

void wait_for_byte()
{
    steps->begin();
    poll_one(read_end, -1);
}

void just_yield()
{
    steps->begin();
    co_yield_ct();
}

void read_as_long_as_a_byte_comes()
{
    co_enable_hook_sys();
    char bytes[8];
    steps->begin();
    while (read(read_end, bytes, sizeof bytes) == 1) {
    }
}

void yield_in_a_handler()
{
    try {
        throw 1;
    } catch (int) {
        just_yield();
    }
}

stCoRoutine_t *resumer_of_victim = nullptr;

void swap_to_the_resumer()
{
    steps->begin();
    co_swap(victim, resumer_of_victim);
    // (Refused if it was released before.)
    co_yield_ct();
}

void end() { steps->begin(); }

// All of its block is its own while it runs.
void wait_with_a_specific()
{
    static int first, second;
    co_setspecific(0, &first);
    poll_one(read_end, -1);
    lost_its_specific = co_getspecific(0) != &first;
    co_setspecific(0, &second);
    steps->end();
    co_yield_ct();
}

// How the victim leaves its stack, and for whom.
struct Going {
    const char *what;
    void (*go)();
    bool on_copy_stack, resumer_on_copy_stack, resumer_in_a_handler;
    // Another way through the release.
    bool for_the_release;
    // Its steps are those from the one that is woken just before it to its own.
    bool and_is_woken = false;
};

const Going kGoings[] = {
    {"a yield", just_yield, false, false, false, true},
    {"a yield in a handler", yield_in_a_handler, false, false, false, true},
    {"a yield to one on a copy stack", just_yield, false, true, false, false},
    {"a yield to one in a handler", just_yield, false, false, true, false},
    {"a yield from a copy stack", just_yield, true, false, false, false},
    {"a yield to one on the same copy stack", just_yield, true, true, false, false},
    {"co_swap", swap_to_the_resumer, false, false, false, false},
    {"a wait", wait_for_byte, false, false, false, true},
    {"a wait in a coroutine whose resumer is in a handler", wait_for_byte, false, false, true, false},
    {"a hooked read", read_as_long_as_a_byte_comes, false, false, false, true},
    {"an end", end, false, false, false, false},
    {"an end to one on a copy stack", end, false, true, false, true},
    {"an end to one in a handler", end, false, false, true, false},
    {"an end on a copy stack", end, true, false, false, false},
    {"an end to one on the same copy stack", end, true, true, false, false},
    {"a wake", wait_with_a_specific, false, false, false, false, true},
    {"a wake on a copy stack", wait_with_a_specific, true, true, false, false, true},
};

// A victim that is about to go, and who resumes it.
class Stage {
public:
    Stage(const Going &going, stShareStack_t *copy_stack) : going_(going)
    {
        const stCoRoutineAttr_t at[] = {attr(kStackSize), attr(0, copy_stack)};
        read_end = pipe_.rd;
        went_on = lost_its_specific = false;
        if (co_hook_fd(read_end) != 0 || co_create(&victim, &at[going.on_copy_stack], &Stage::run, this) != 0) {
            abort();
        }
        resumer_ = std::make_unique<Co>([this] { resume(); }, &at[going.resumer_on_copy_stack]);
        resumer_of_victim = resumer_->get();
        // (A resumer may stand on the same copy stack.)
        steps->victim = going.on_copy_stack ? nullptr : victim;
        steps->stood_on_a_suspended_stack = 0;
    }

    // Runs the victim: `before`, on its stack, and what it does then. Steps end where its resumer goes on.
    void play(const std::function<void()> &before)
    {
        before_ = &before;
        if (going_.and_is_woken) {
            herald_.resume();
        }
        resumer_->resume();
        if (going_.and_is_woken) {
            wake();
        }
    }

    // What would wake it, if it still waited.
    void wake()
    {
        pipe_.put();
        loop_rounds(3);
    }

private:
    void resume()
    {
        if (!going_.resumer_in_a_handler) {
            return resume_victim();
        }
        try {
            throw 1;
        } catch (int) {
            resume_victim();
        }
    }
    static void resume_victim()
    {
        co_resume(victim);
        steps->end();
    }
    static void *run(void *p)
    {
        const Stage &stage = *static_cast<Stage *>(p);
        (*stage.before_)();
        stage.going_.go();
        went_on = stage.going_.go != end;
        return nullptr;
    }

    Going going_;
    Pipe pipe_;
    const std::function<void()> *before_ = nullptr;
    std::unique_ptr<Co> resumer_;
    Co herald_{[] {
        poll_one(read_end, -1);
        steps->begin();
    }};
};

// What went wrong at a step, as bits of a child's result.
enum { kWentOn = 1, kChanged = 2, kFewSteps = 4, kLost = 8, kTooEarly = 16, kNotLeft = 32 };

int say(const Going &going, int wrong)
{
    const std::pair<int, const char *> words[] = {
        {kWentOn, "it ran after its release"},
        {kChanged, "a stack was written to that another coroutine has"},
        {kLost, "a part of its block changed while it ran"},
        {kTooEarly, "it counted as suspended while its thread stood on its stack"},
        {kNotLeft, "it counts as running for ever"},
    };
    for (const auto &[bit, word] : words) {
        if ((wrong & bit) != 0) {
            printf("%s, step %ld: %s\n", going.what, steps->chosen, word);
        }
    }
    return wrong;
}

// The other thread's coroutines, which have what was released, look at it when this thread's has gone.
class Look {
public:
    void of(Crowd &crowd)
    {
        begin_.wait();
        whole_ = crowd.whole();
        end_.post();
    }
    int verdict(const Going &going)
    {
        begin_.post();
        end_.wait();
        return say(going, (went_on ? kWentOn : 0) | (whole_ != Crowd::kCount ? kChanged : 0) | (lost_its_specific ? kLost : 0) |
                              (steps->stood_on_a_suspended_stack != 0 ? kTooEarly : 0));
    }

private:
    Semaphore begin_, end_;
    int whole_ = 0;
};

// For each step of `going` in turn: the release happens there.
int release_at_each_step(const Going &going)
{
    steps->be_stepped();
    stShareStack_t *const copy_stack = co_alloc_sharestack(1, 64 * 1024);
    Look look;
    bool over = false;
    std::thread other([&] {
        for (steps->begin_now.wait(); !over; steps->begin_now.wait()) {
            co_release(victim);
            Crowd crowd;
            steps->is_done.post();
            look.of(crowd);
        }
    });
    int wrong = 0;
    long count = -1;
    // (The first time makes what later ones find made.)
    for (bool reached = true; reached && wrong == 0; count += reached) {
        Stage stage(going, copy_stack);
        steps->chosen = count;
        steps->reached = false;
        stage.play([] {});
        reached = count < 0 || steps->reached;
        if (!steps->reached) {
            wrong = say(going, victim->ctx.regs[1] != nullptr ? kNotLeft : 0);
            co_release(victim);
            continue;
        }
        if (!steps->was_done) {
            steps->is_done.wait();
        }
        stage.wake();
        wrong = look.verdict(going);
    }
    over = true;
    steps->begin_now.post();
    other.join();
    printf("%s: %ld steps\n", going.what, count);
    return wrong | (count < 20 ? kFewSteps : 0);
}

// For each step of co_release in turn, in another thread: `going` happens there.
int go_at_each_step_of_a_release(const Going &going)
{
    stShareStack_t *const copy_stack = co_alloc_sharestack(1, 64 * 1024);
    Semaphore runs, released;
    Look look;
    bool over = false;
    std::thread other([&] {
        steps->be_stepped();
        for (runs.wait(); !over; runs.wait()) {
            steps->begin();
            co_release(victim);
            steps->end();
            if (!steps->reached) {
                steps->begin_now.post();
            }
            Crowd crowd;
            released.post();
            look.of(crowd);
        }
    });
    int wrong = 0;
    long count = -1;
    for (bool reached = true; reached && wrong == 0; count += reached) {
        Stage stage(going, copy_stack);
        steps->chosen = count;
        steps->reached = steps->was_done = false;
        stage.play([&] {
            runs.post();
            steps->begin_now.wait();
        });
        steps->is_done.post();
        released.wait();
        reached = count < 0 || steps->reached;
        if (!steps->was_done) {
            steps->is_done.wait();
        }
        stage.wake();
        wrong = look.verdict(going);
    }
    over = true;
    runs.post();
    other.join();
    printf("%s: %ld steps of co_release\n", going.what, count);
    return wrong | (count < 20 ? kFewSteps : 0);
}

} // namespace

TEST(SteppedRelease, ByAnotherThreadBetweenAnyTwoInstructionsOfAYieldAWaitAndAnEnd)
{
    step_each(kGoings, release_at_each_step);
}

TEST(SteppedRelease, AYieldAWaitAndAnEndBetweenAnyTwoInstructionsOfTheRelease)
{
    std::vector<Going> chosen;
    std::copy_if(std::begin(kGoings), std::end(kGoings), std::back_inserter(chosen), [](const Going &going) { return going.for_the_release; });
    ASSERT_FALSE(chosen.empty());
    step_each(chosen, go_at_each_step_of_a_release);
}

#endif // COLIB_PEER
