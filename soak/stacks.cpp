// Operations on coroutines themselves: nested resumes, copies of stacks, creation and release, resets, exceptions, and
// what belongs to a coroutine.
#include "soak.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>

#include <alloca.h>
#include <poll.h>
#include <pthread.h>

namespace soak {

namespace {

void pause_ms(int ms)
{
    co_poll(co_get_epoll_ct(), nullptr, 0, ms);
}

// `bytes` of a pattern on the stack, which must be whole after `between`.
template <typename Between>
__attribute__((noinline)) bool keeps_pattern(int bytes, uint64_t seed, const Between &between)
{
    volatile uint8_t *pattern = static_cast<volatile uint8_t *>(alloca(static_cast<size_t>(bytes)));
    for (int i = 0; i < bytes; ++i) {
        pattern[i] = byte_at(seed, i);
    }
    between();
    int differing = 0;
    for (int i = 0; i < bytes; ++i) {
        differing += pattern[i] != byte_at(seed, i);
    }
    return differing == 0;
}

// Each level resumes the next, which yields back a few times before it ends.
class Nest : public Task {
public:
    using Task::Task;

    void start() override
    {
        depth_ = random.between(2, 20);
        level(0);
    }

    void finished() override
    {
        MUST(entered_ == depth_ && left_ == depth_, "%d levels entered and left, got %d and %d", depth_, entered_, left_);
    }

private:
    void level(int which)
    {
        const int yields = random.below(3);
        const int bytes = random.between(1, 3000);
        const uint64_t seed = random.next();
        stCoRoutine_t *co = go([this, which, yields, bytes, seed] {
            ++entered_;
            const stCoRoutine_t *self = co_self();
            const bool whole = keeps_pattern(bytes, seed, [&] {
                if (which + 1 < depth_) {
                    level(which + 1);
                }
                for (int i = 0; i < yields; ++i) {
                    MUST(co_self() == self, "to be itself at level %d", which);
                    co_yield_ct();
                }
                if (which % 5 == 0) {
                    pause_ms(1);
                }
            });
            MUST(whole, "%d bytes of level %d to be whole", bytes, which);
            ++left_;
        });
        for (int i = 0; i < yields; ++i) {
            co_resume(co);
        }
    }

    int depth_ = 0, entered_ = 0, left_ = 0;
};

// Copy stacks as deep as 40 KiB, left and entered again at every depth.
class Depth : public Task {
public:
    using Task::Task;

    void start() override
    {
        const int coroutines = random.between(2, 6);
        for (int i = 0; i < coroutines; ++i) {
            const int bytes = 1 << random.between(4, 13);
            const int levels = random.between(1, std::min(8, 40 * 1024 / bytes));
            const uint64_t seed = random.next();
            go([this, bytes, levels, seed] { descend(bytes, levels, seed); }, StackKind::Copy);
        }
    }

private:
    void descend(int bytes, int levels, uint64_t seed)
    {
        at = "copy stack";
        const bool whole = keeps_pattern(bytes, seed, [&] {
            pause_ms(static_cast<int>(seed % 3));
            if (levels > 1) {
                descend(bytes, levels - 1, Random(seed).next());
            }
            pause_ms(static_cast<int>(seed % 2));
        });
        MUST(whole, "%d bytes on a copy stack to be whole, %d levels below", bytes, levels);
    }
};

// Many at once, each let go at another point of its life, in any order.
class Storm : public Task {
public:
    using Task::Task;

    void start() override
    {
        const int count = random.between(1, 40);
        std::vector<stCoRoutine_t *> all;
        stCoRoutineAttr_t attr;
        for (int i = 0; i < count; ++i) {
            attr.stack_size = random.one_in(30) ? 8 << 20 : random.between(16, 256) * 1024;
            attr.share_stack = random.one_in(4) ? slot.small_copy : nullptr;
            stCoRoutine_t *co = nullptr;
            MUST(co_create(&co, &attr, &Storm::two_halves, this) == 0 && co != nullptr, "a coroutine");
            all.push_back(co);
        }
        global.totals.coroutines += count;
        for (int turns = random.below(2 * count); turns > 0; --turns) {
            stCoRoutine_t *co = all[static_cast<size_t>(random.below(count))];
            const int wanted = co->cEnd != 0 ? 0 : 1;
            const int before = halves_;
            if (wanted == 1) {
                co_resume(co);
            }
            MUST(halves_ == before + wanted, "%d half to run, ran %d", wanted, halves_ - before);
        }
        while (!all.empty()) {
            std::swap(all[static_cast<size_t>(random.below(static_cast<int>(all.size())))], all.back());
            co_release(all.back());
            all.pop_back();
        }
        global.totals.coroutines_released += count;
    }

private:
    static void *two_halves(void *self)
    {
        ++static_cast<Storm *>(self)->halves_;
        co_yield_ct();
        ++static_cast<Storm *>(self)->halves_;
        return nullptr;
    }

    int halves_ = 0;
};

// Begins anew whenever another coroutine resets it half-way.
class Reset : public Task {
public:
    using Task::Task;

    ~Reset() override { co_cond_free(cond_); }

    void start() override
    {
        cond_ = co_cond_alloc();
        resets_ = random.between(1, 4);
        stCoRoutineAttr_t attr;
        attr.share_stack = random.one_in(2) ? small_copy_stack() : nullptr;
        MUST(co_create(&co_, &attr, &Reset::enter, this) == 0, "a coroutine");
        ++global.totals.coroutines;
        co_resume(co_);
        go([this] {
            for (int i = 1; i <= resets_; ++i) {
                pause_ms(random.between(0, 3));
                const bool waited = stage_ == 1;
                co_reset(co_);
                stage_ = 0;
                co_resume(co_);
                MUST(begun_ == i + 1, "%d beginnings, got %d (it waited: %d)", i + 1, begun_, waited);
            }
            while (ended_ == 0) {
                pause_ms(1);
            }
            done_ = true;
        });
    }

    void given_up() override { release(); }
    void finished() override
    {
        release();
        MUST(done_, "to have been reset");
    }

private:
    static void *enter(void *argument)
    {
        Reset *self = static_cast<Reset *>(argument);
        ++self->begun_;
        self->stage_ = 1;
        pollfd none = {-1, POLLIN, 0};
        if (self->begun_ % 2 == 0) {
            co_cond_timedwait(self->cond_, 3);
        } else {
            co_poll(co_get_epoll_ct(), &none, 1, 3);
        }
        self->stage_ = 2;
        ++self->ended_;
        return nullptr;
    }

    void release()
    {
        co_release(co_);
        ++global.totals.coroutines_released;
    }

    stCoRoutine_t *co_ = nullptr;
    stCoCond_t *cond_ = nullptr;
    int resets_ = 0, begun_ = 0, ended_ = 0, stage_ = 0;
    bool done_ = false;
};

// Waits inside catch, while others do the same: `throw;` throws one's own.
class Exceptions : public Task {
public:
    using Task::Task;

    void start() override
    {
        const int coroutines = random.between(1, 5);
        for (int i = 0; i < coroutines; ++i) {
            const int value = static_cast<int>(random.next());
            const int ms = random.below(3);
            go([this, value, ms] { throw_and_wait(value, ms, 0); }, StackKind::Large);
        }
    }

    void finished() override { MUST(unwound_ == caught_, "%d frames unwound, got %d", caught_, unwound_); }

private:
    struct Unwinds {
        int *count;
        ~Unwinds() { ++*count; }
    };

    void throw_and_wait(int value, int ms, int nested)
    {
        at = "throw";
        bool again = false;
        try {
            const Unwinds frame{&unwound_};
            throw value;
        } catch (const int &got) {
            ++caught_;
            pause_ms(ms);
            MUST(got == value, "%d, caught %d", value, got);
            try {
                if (nested < 2) {
                    throw_and_wait(value + 1, ms, nested + 1);
                }
                throw;
            } catch (const int &rethrown) {
                MUST(rethrown == value, "%d thrown again, caught %d", value, rethrown);
                again = true;
            }
            MUST(std::uncaught_exceptions() == 0, "none uncaught");
            MUST(std::current_exception() != nullptr, "one in flight");
        }
        MUST(again && (nested > 0 || std::current_exception() == nullptr), "none in flight at the end");
    }

    int unwound_ = 0, caught_ = 0;
};

// Values of a coroutine are its own.
class Specifics : public Task {
public:
    using Task::Task;

    void start() override
    {
        for (int i = random.between(1, 5); i > 0; --i) {
            const uint64_t seed = random.next();
            go([this, seed] {
                const pthread_key_t keys[] = {0, 1, 5, 31, 32, 33, 100, 511, 1000, 1023};
                for (const pthread_key_t key : keys) {
                    MUST(co_getspecific(key) == nullptr, "no value yet for key %u", key);
                    const auto value = reinterpret_cast<void *>(seed + key);
                    MUST(co_setspecific(key, value) == 0, "a value set for key %u", key);
                }
                pause_ms(static_cast<int>(seed % 4));
                for (const pthread_key_t key : keys) {
                    const auto wanted = reinterpret_cast<void *>(seed + key);
                    MUST(co_getspecific(key) == wanted, "%p for key %u, got %p", wanted, key, co_getspecific(key));
                }
            });
        }
    }
};

class Environment : public Task {
public:
    using Task::Task;

    void start() override
    {
        for (int i = random.between(1, 4); i > 0; --i) {
            const int value = static_cast<int>(random.next());
            go([this, value] {
                MUST(getenv("SOAK_A") == nullptr, "no value yet");
                char text[16];
                snprintf(text, sizeof text, "%d", value);
                MUST(setenv("SOAK_A", text, 1) == 0 && setenv("SOAK_B", "b", 1) == 0, "values set");
                pause_ms(value & 3);
                const char *got = getenv("SOAK_A");
                MUST(got != nullptr && strcmp(got, text) == 0, "%s, got %s", text, got == nullptr ? "nothing" : got);
                MUST(unsetenv("SOAK_B") == 0 && getenv("SOAK_B") == nullptr, "one unset");
            });
        }
    }
};

// A coroutine that runs the loop itself for a few rounds.
class NestedLoop : public Task {
public:
    using Task::Task;

    void start() override
    {
        rounds_ = random.between(1, 10);
        go([this] {
            at = "loop in a coroutine";
            pause_ms(1);
            co_eventloop(
                co_get_epoll_ct(),
                [](void *self) -> int { return ++static_cast<NestedLoop *>(self)->ran_ < static_cast<NestedLoop *>(self)->rounds_ ? 0 : -1; },
                this);
            MUST(ran_ == rounds_, "%d rounds, got %d", rounds_, ran_);
        }, StackKind::LargePrivate);
    }

private:
    int rounds_ = 0, ran_ = 0;
};

} // namespace

std::unique_ptr<Task> make_stacks(Slot &slot, const Step &step)
{
    switch (step.kind) {
    case Kind::Nest:
        return std::unique_ptr<Task>(new Nest(slot, step));
    case Kind::Depth:
        return std::unique_ptr<Task>(new Depth(slot, step));
    case Kind::Storm:
        return std::unique_ptr<Task>(new Storm(slot, step));
    case Kind::Reset:
        return std::unique_ptr<Task>(new Reset(slot, step));
    case Kind::Exceptions:
        return std::unique_ptr<Task>(new Exceptions(slot, step));
    case Kind::Specifics:
        return std::unique_ptr<Task>(new Specifics(slot, step));
    case Kind::Environment:
        return std::unique_ptr<Task>(new Environment(slot, step));
    default:
        return std::unique_ptr<Task>(new NestedLoop(slot, step));
    }
}

} // namespace soak
