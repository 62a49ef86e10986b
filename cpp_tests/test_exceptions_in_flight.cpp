// Exceptions in flight belong to their coroutine: yields inside catch and while unwinding.
#include "support.h"

#include <exception>
#include <memory>

using namespace support;

namespace {

struct Numbered {
    int number;
};

int number_of_current_exception()
{
    try {
        throw;
    } catch (const Numbered &e) {
        return e.number;
    } catch (...) {
        return -1;
    }
}

[[maybe_unused]] int number_in(const std::exception_ptr &p)
{
    if (!p) {
        return -2;
    }
    try {
        std::rethrow_exception(p);
    } catch (const Numbered &e) {
        return e.number;
    }
}

void throw_deep(int depth, int number)
{
    std::string keeps_a_destructor(static_cast<size_t>(depth), 'x');
    if (depth == 0) {
        throw Numbered{number};
    }
    throw_deep(depth - 1, number);
}

// Yields while the stack is being unwound, and notes what it sees before and after.
struct YieldsInDestructor {
    int *before;
    int *after;
    ~YieldsInDestructor()
    {
        *before = std::uncaught_exceptions();
        co_yield_ct();
        *after = std::uncaught_exceptions();
    }
};

} // namespace

MENDED(Exceptions, FiveCoroutinesThatYieldInsideCatchEachKeepTheirOwn)
{
    std::vector<std::unique_ptr<Co>> all;
    std::vector<int> rethrown(5, 0);
    std::vector<int> current(5, 0);
    for (int i = 0; i < 5; ++i) {
        all.push_back(std::make_unique<Co>([i, &rethrown, &current] {
            const size_t at = static_cast<size_t>(i);
            try {
                throw Numbered{i + 10};
            } catch (const Numbered &) {
                co_yield_ct();
                rethrown[at] = number_of_current_exception();
                co_yield_ct();
                current[at] = number_in(std::current_exception());
                co_yield_ct();
            }
            EXPECT_EQ(std::current_exception(), nullptr);
        }));
    }
    for (int round = 0; round < 4; ++round) {
        // Another order in each round, so that the newest handler is never the one that ends first.
        for (size_t k = 0; k < 5; ++k) {
            all[(k * 3 + static_cast<size_t>(round)) % 5]->resume();
        }
    }
    for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(rethrown[static_cast<size_t>(i)], i + 10);
        EXPECT_EQ(current[static_cast<size_t>(i)], i + 10);
        EXPECT_TRUE(all[static_cast<size_t>(i)]->ended());
    }
    EXPECT_EQ(std::current_exception(), nullptr);
    EXPECT_EQ(std::uncaught_exceptions(), 0);
}

MENDED(Exceptions, RethrowAfterAYieldThrowsOnesOwn)
{
    std::vector<std::unique_ptr<Co>> all;
    std::vector<int> caught(5, 0);
    for (int i = 0; i < 5; ++i) {
        all.push_back(std::make_unique<Co>([i, &caught] {
            try {
                try {
                    throw_deep(3, i);
                } catch (...) {
                    co_yield_ct();
                    throw;
                }
            } catch (const Numbered &e) {
                co_yield_ct();
                caught[static_cast<size_t>(i)] = e.number;
            }
        }));
        all.back()->resume();
    }
    for (int round = 0; round < 2; ++round) {
        for (auto &co : all) {
            co->resume();
        }
    }
    EXPECT_EQ(caught, (std::vector<int>{0, 1, 2, 3, 4}));
}

MENDED(Exceptions, OthersThrowAndCatchWhileOneYieldsInsideCatch)
{
    int seen = 0;
    Co holder([&] {
        try {
            throw Numbered{1};
        } catch (...) {
            co_yield_ct();
            seen = number_of_current_exception();
        }
    });
    holder.resume();
    EXPECT_EQ(std::current_exception(), nullptr);
    int caught = 0;
    for (int i = 0; i < 10; ++i) {
        Co other([&] {
            try {
                throw_deep(2, 5);
            } catch (const Numbered &e) {
                caught += e.number;
            }
        });
        other.resume();
        try {
            throw Numbered{6};
        } catch (const Numbered &e) {
            caught += e.number;
        }
    }
    holder.resume();
    EXPECT_EQ(caught, 110);
    EXPECT_EQ(seen, 1);
}

MENDED(Exceptions, ACoroutineResumedInsideCatchSeesNoneOfItsResumers)
{
    int rethrown_after = 0;
    int caught_in_coroutine = 0;
    try {
        throw Numbered{1};
    } catch (...) {
        Co co([&] {
            EXPECT_EQ(std::current_exception(), nullptr);
            EXPECT_EQ(std::uncaught_exceptions(), 0);
            try {
                throw Numbered{2};
            } catch (const Numbered &e) {
                co_yield_ct();
                caught_in_coroutine = e.number + number_of_current_exception();
            }
            EXPECT_EQ(std::current_exception(), nullptr);
        });
        co.resume();
        EXPECT_EQ(number_in(std::current_exception()), 1);
        co.resume();
        rethrown_after = number_of_current_exception();
    }
    EXPECT_EQ(caught_in_coroutine, 4);
    EXPECT_EQ(rethrown_after, 1);
    EXPECT_EQ(std::current_exception(), nullptr);
}

MENDED(Exceptions, NestedHandlersSurviveYields)
{
    std::string trace;
    const auto body = [&trace](char name) {
        try {
            throw Numbered{1};
        } catch (...) {
            co_yield_ct();
            try {
                throw Numbered{2};
            } catch (...) {
                co_yield_ct();
                trace += name;
                trace += static_cast<char>('0' + number_of_current_exception());
            }
            co_yield_ct();
            trace += name;
            trace += static_cast<char>('0' + number_of_current_exception());
        }
    };
    Co a([&] { body('a'); });
    Co b([&] { body('b'); });
    for (int i = 0; i < 2; ++i) {
        a.resume();
        b.resume();
        b.resume();
        a.resume();
    }
    EXPECT_EQ(trace, "a2b2b1a1");
}

MENDED(Exceptions, UncaughtExceptionsAreCountedPerCoroutine)
{
    int before = -1;
    int after = -1;
    bool caught = false;
    Co co([&] {
        try {
            YieldsInDestructor guard{&before, &after};
            throw Numbered{1};
        } catch (const Numbered &) {
            caught = true;
        }
        EXPECT_EQ(std::uncaught_exceptions(), 0);
    });
    co.resume();
    EXPECT_EQ(before, 1);
    EXPECT_EQ(std::uncaught_exceptions(), 0) << "the unwinding coroutine is not this one";
    int inside_other = -1;
    Co other([&] { inside_other = std::uncaught_exceptions(); });
    other.resume();
    EXPECT_EQ(inside_other, 0);
    co.resume();
    EXPECT_EQ(after, 1);
    EXPECT_TRUE(caught);
    EXPECT_EQ(std::uncaught_exceptions(), 0);
}

MENDED(Exceptions, SwitchesFromWithinAnUnwindingMainKeepItsCount)
{
    int in_coroutine = -1;
    int after_resume = -1;
    struct ResumesInDestructor {
        Co *co;
        int *after;
        ~ResumesInDestructor()
        {
            co->resume();
            *after = std::uncaught_exceptions();
        }
    };
    Co co([&] { in_coroutine = std::uncaught_exceptions(); });
    try {
        ResumesInDestructor guard{&co, &after_resume};
        throw Numbered{1};
    } catch (const Numbered &e) {
        EXPECT_EQ(e.number, 1);
    }
    EXPECT_EQ(in_coroutine, 0);
    EXPECT_EQ(after_resume, 1);
}

MENDED(Exceptions, AWaitInsideCatchKeepsTheException)
{
    int done = 0;
    std::vector<std::unique_ptr<Co>> all;
    for (int i = 0; i < 5; ++i) {
        all.push_back(std::make_unique<Co>([i, &done] {
            try {
                throw Numbered{i};
            } catch (...) {
                struct pollfd none = {-1, 0, 0};
                co_poll(co_get_epoll_ct(), &none, 1, 2 + 3 * i);
                done += number_of_current_exception() == i;
            }
        }));
        all.back()->resume();
    }
    EXPECT_TRUE(loop_until([&] {
        for (auto &co : all) {
            if (!co->ended()) {
                return false;
            }
        }
        return true;
    }));
    EXPECT_EQ(done, 5);
}

MENDED(Exceptions, AYieldInsideCatchOnACopyStackKeepsTheException)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    std::vector<std::unique_ptr<Co>> all;
    int right = 0;
    for (int i = 0; i < 5; ++i) {
        all.push_back(std::make_unique<Co>(
            [i, &right] {
                try {
                    throw Numbered{i};
                } catch (const Numbered &e) {
                    co_yield_ct();
                    right += number_of_current_exception() == i && e.number == i;
                }
            },
            &at));
        all.back()->resume();
    }
    for (auto &co : all) {
        co->resume();
    }
    EXPECT_EQ(right, 5);
}

MENDED(Exceptions, ReleasingACoroutineInsideCatchLeavesTheOthersTheirs)
{
    int seen = 0;
    Co keeps([&] {
        try {
            throw Numbered{1};
        } catch (...) {
            co_yield_ct();
            seen = number_of_current_exception();
        }
    });
    Co goes([] {
        try {
            throw Numbered{2};
        } catch (...) {
            co_yield_ct();
        }
    });
    keeps.resume();
    goes.resume();
    goes.release();
    EXPECT_EQ(std::current_exception(), nullptr);
    Co fresh([] { EXPECT_EQ(std::current_exception(), nullptr); });
    fresh.resume();
    keeps.resume();
    EXPECT_EQ(seen, 1);
}

MENDED(Exceptions, AResetInsideCatchStartsWithoutAnException)
{
    int begun = 0;
    bool none_at_start = true;
    Co co([&] {
        none_at_start = none_at_start && std::current_exception() == nullptr;
        if (++begun == 1) {
            try {
                throw Numbered{1};
            } catch (...) {
                co_yield_ct();
            }
        }
    });
    co.resume();
    co.reset();
    co.resume();
    EXPECT_EQ(begun, 2);
    EXPECT_TRUE(none_at_start);
}

MENDED(Exceptions, OutOfTheCallbackWhileACoroutineIsInsideCatchLeavesItItsOwn)
{
    int seen = 0;
    Co holder([&] {
        try {
            throw Numbered{9};
        } catch (...) {
            co_yield_ct();
            seen = number_of_current_exception();
        }
    });
    holder.resume();
    int in_main = 0;
    try {
        co_eventloop(co_get_epoll_ct(), [](void *) -> int { throw Numbered{1}; }, nullptr);
    } catch (const Numbered &) {
        holder.resume();
        in_main = number_of_current_exception();
    }
    EXPECT_EQ(seen, 9);
    EXPECT_EQ(in_main, 1);
}
