// Another thread that wants a copy stack at any moment of an end or a yield on it: between any two instructions. It gets the
// stack only once nobody stands on it who needs it, and whatever both put there is whole.
#include "pattern.h"
#include "support.h"

#ifndef COLIB_PEER // the original has no idea of threads on one copy stack

#include "stepped.h"

#include <memory>

namespace {

using namespace support;
using namespace stepped;
using pattern::keeps_its_bytes;

void just_yield()
{
    steps->begin();
    co_yield_ct();
}

void end() { steps->begin(); }

void end_after_its_release()
{
    co_release(co_self());
    steps->begin();
}

void yield_after_its_release()
{
    co_release(co_self());
    just_yield();
}

void end_in_a_handler()
{
    try {
        throw 1;
    } catch (int) {
        steps->begin();
    }
}

// How a coroutine leaves the copy stack, and where its resumer is.
struct Going {
    const char *what;
    void (*go)();
    bool resumer_is_on_the_stack, releases_itself;
    // Whether the other thread may have the stack in the end.
    bool leaves;
};

const Going kGoings[] = {
    {"an end", end, false, false, true},
    {"an end in a handler", end_in_a_handler, false, false, true},
    {"an end to one on the same stack", end, true, false, false},
    {"an end of one that released itself", end_after_its_release, false, true, true},
    {"an end of one that released itself, to one on the same stack", end_after_its_release, true, true, false},
    {"a yield", just_yield, false, false, false},
    {"a yield to one on the same stack", just_yield, true, false, false},
    {"a yield of one that released itself", yield_after_its_release, false, true, true},
    {"a yield of one that released itself, to one on the same stack", yield_after_its_release, true, true, false},
};

// What went wrong, as bits of a child's result.
enum { kTorn = 1, kOtherTorn = 2, kNotRefused = 4, kNotGiven = 8, kFewSteps = 16 };

// The other thread's coroutine: fills most of the stack, and looks at it again when resumed.
struct Rival {
    std::unique_ptr<Co> co;
    bool began = false, whole = false;

    explicit Rival(const stCoRoutineAttr_t &at)
    {
        co = std::make_unique<Co>(
            [this] {
                began = true;
                whole = keeps_its_bytes(48 * 1024, 7, [] { co_yield_ct(); });
            },
            &at);
        co->resume();
    }
    // Whether it came through, if it began.
    bool ends_whole()
    {
        if (began) {
            co->resume();
        }
        return whole == began;
    }
};

// For each step of `going` in turn: the other thread resumes its coroutine there.
int rival_at_each_step(const Going &going)
{
    steps->be_stepped();
    const stCoRoutineAttr_t at = attr(0, co_alloc_sharestack(1, 64 * 1024));
    Semaphore look, looked;
    bool over = false;
    int got_it = 0;
    bool rival_whole = true;
    std::thread other([&] {
        for (steps->begin_now.wait(); !over; steps->begin_now.wait()) {
            Rival rival(at);
            got_it += rival.began;
            steps->is_done.post();
            look.wait();
            rival_whole = rival.ends_whole();
            rival.co.reset();
            looked.post();
        }
    });
    int wrong = 0;
    long count = -1;
    for (bool reached = true; reached && wrong == 0; count += reached) {
        bool whole = false;
        stCoRoutine_t *victim = nullptr;
        Co leaves([&] { whole = keeps_its_bytes(64, 3, going.go); }, &at);
        victim = leaves.get();
        Co resumes(
            [&] {
                const bool all = keeps_its_bytes(3000, 5, [&] {
                    co_resume(victim);
                    steps->end();
                });
                wrong |= all ? 0 : kTorn;
                co_yield_ct();
            },
            going.resumer_is_on_the_stack ? &at : nullptr);
        if (going.releases_itself) {
            leaves.forget();
        }
        steps->chosen = count;
        steps->reached = false;
        resumes.resume();
        reached = count < 0 || steps->reached;
        if (steps->reached) {
            if (!steps->was_done) {
                steps->is_done.wait();
            }
            look.post();
            looked.wait();
            wrong |= rival_whole ? 0 : kOtherTorn;
        }
        if (going.go == just_yield) {
            leaves.resume();
        }
        if (!going.releases_itself || going.go == end_after_its_release) {
            wrong |= whole ? 0 : kTorn;
        }
    }
    wrong |= got_it != 0 && !going.leaves ? kNotRefused : 0;
    wrong |= got_it == 0 && going.leaves ? kNotGiven : 0;
    over = true;
    steps->begin_now.post();
    other.join();
    printf("%s: %ld steps, %d with the stack for the other thread\n", going.what, count, got_it);
    const std::pair<int, const char *> words[] = {
        {kTorn, "its thread's bytes were written to"},
        {kOtherTorn, "the other thread's bytes were written to"},
        {kNotRefused, "the other thread had the stack"},
        {kNotGiven, "the other thread never had the stack"},
    };
    for (const auto &[bit, word] : words) {
        if ((wrong & bit) != 0) {
            printf("%s, step %ld: %s\n", going.what, steps->chosen, word);
        }
    }
    return wrong | (count < 20 ? kFewSteps : 0);
}

// What a thread does on a copy stack while another one forks.
struct Work {
    const char *what;
    void (*work)(const stCoRoutineAttr_t &at, std::vector<stCoRoutine_t *> &left);
};

void *yields_once(void *)
{
    keeps_its_bytes(600, 9, [] { co_yield_ct(); });
    return nullptr;
}

void *ends_at_once(void *) { return nullptr; }

stCoRoutine_t *made(const stCoRoutineAttr_t &at, void *(*routine)(void *), std::vector<stCoRoutine_t *> &left)
{
    stCoRoutine_t *co = nullptr;
    if (co_create(&co, &at, routine, nullptr) != 0) {
        abort();
    }
    left.push_back(co);
    return co;
}

const Work kWorks[] = {
    {"a run to the end",
     [](const stCoRoutineAttr_t &at, std::vector<stCoRoutine_t *> &left) {
         stCoRoutine_t *co = made(at, ends_at_once, left);
         steps->begin();
         co_resume(co);
         steps->end();
     }},
    {"a reset",
     [](const stCoRoutineAttr_t &at, std::vector<stCoRoutine_t *> &left) {
         stCoRoutine_t *co = made(at, yields_once, left);
         co_resume(co);
         steps->begin();
         co_reset(co);
         steps->end();
     }},
    {"a resume that moves another one out",
     [](const stCoRoutineAttr_t &at, std::vector<stCoRoutine_t *> &left) {
         co_resume(made(at, yields_once, left));
         stCoRoutine_t *co = made(at, yields_once, left);
         steps->begin();
         co_resume(co);
         steps->end();
     }},
};

// Another thread releases the coroutine that runs; what it then does is stepped.
template <void (*go)()>
void *is_released_and_goes(void *)
{
    stCoRoutine_t *self = co_self();
    on_thread([&] { co_release(self); });
    go();
    return nullptr;
}

template <void (*go)()>
void released_and_goes(const stCoRoutineAttr_t *at)
{
    stCoRoutine_t *co = nullptr;
    if (co_create(&co, at, is_released_and_goes<go>, nullptr) != 0) {
        abort();
    }
    co_resume(co);
    steps->end();
}

const Work kReleased[] = {
    {"a yield of one that another thread released",
     [](const stCoRoutineAttr_t &, std::vector<stCoRoutine_t *> &) { released_and_goes<just_yield>(nullptr); }},
    {"an end of one that another thread released",
     [](const stCoRoutineAttr_t &, std::vector<stCoRoutine_t *> &) { released_and_goes<end>(nullptr); }},
    {"a yield on a copy stack of one that another thread released",
     [](const stCoRoutineAttr_t &at, std::vector<stCoRoutine_t *> &) { released_and_goes<just_yield>(&at); }},
    {"an end on a copy stack of one that another thread released",
     [](const stCoRoutineAttr_t &at, std::vector<stCoRoutine_t *> &) { released_and_goes<end>(&at); }},
};

// In a child of fork, when all that the other thread had is released: whether anybody may begin on its stack.
bool may_begin(const stCoRoutineAttr_t &at)
{
    int ran = 0;
    for (int i = 0; i < 2; ++i) {
        Co co([&] { ++ran; }, &at);
        co.resume();
    }
    return ran == 2;
}

// For each step of `work` in turn: the other thread forks there.
int fork_at_each_step(const Work &work)
{
    steps->be_stepped();
    const stCoRoutineAttr_t at = attr(0, co_alloc_sharestack(1, 64 * 1024));
    std::vector<stCoRoutine_t *> left;
    bool over = false;
    int lost = 0;
    std::thread other([&] {
        co_get_epoll_ct();
        for (steps->begin_now.wait(); !over; steps->begin_now.wait()) {
            const int result = in_child(
                [&] {
                    for (stCoRoutine_t *co : left) {
                        co_release(co);
                    }
                    return may_begin(at) ? 0 : 1;
                },
                10);
            if (result != 0 && lost++ == 0) {
                printf("%s, step %ld: the child ended with %d\n", work.what, steps->chosen, result);
            }
            steps->is_done.post();
        }
    });
    long count = -1;
    for (bool reached = true; reached; count += reached) {
        steps->chosen = count;
        steps->reached = false;
        work.work(at, left);
        reached = count < 0 || steps->reached;
        if (steps->reached && !steps->was_done) {
            steps->is_done.wait();
        }
        for (stCoRoutine_t *co : left) {
            co_release(co);
        }
        left.clear();
    }
    over = true;
    steps->begin_now.post();
    other.join();
    printf("%s: %ld forks, %d children without the stack\n", work.what, count, lost);
    return lost != 0 || count < 20;
}

} // namespace

TEST(SteppedCopyStack, AChildOfForkHasTheStackWhateverTheOtherThreadWasDoing)
{
    step_each(kWorks, fork_at_each_step);
}

TEST(SteppedCopyStack, AChildOfForkIsThereWhateverTheOtherThreadWasAskedToRelease)
{
    step_each(kReleased, fork_at_each_step);
}

TEST(SteppedCopyStack, WantedByAnotherThreadBetweenAnyTwoInstructionsOfAnEndOrAYield)
{
    step_each(kGoings, rival_at_each_step);
}

#endif // COLIB_PEER
