// co_closure.h: co_ref and co_func.
#include "support.h"

#include "co_closure.h"

#include <memory>

using namespace support;

namespace {

void *exec_closure(void *closure)
{
    static_cast<stCoClosure_t *>(closure)->exec();
    return nullptr;
}

struct CountsClosureEnds : stCoClosure_t {
    int *ends;
    explicit CountsClosureEnds(int *e) : ends(e) {}
    ~CountsClosureEnds() override { ++*ends; }
    void exec() override {}
};

} // namespace

TEST(CoClosure, FuncCopiesWhatItCaptures)
{
    int result = 0;
    int *out = &result;
    int a = 1;
    int b = 2;
    co_func(add, a, b, out)
    {
        *out = a * 10 + b;
    }
    co_func_end;
    add closure(a, b, out);
    a = 100;
    b = 200;
    closure.exec();
    EXPECT_EQ(result, 12);
}

TEST(CoClosure, RefCapturesByReference)
{
    int total = 0;
    std::string text = "x";
    co_ref(ref, total, text);
    co_func(append, ref)
    {
        ref.total += 5;
        ref.text += "y";
    }
    co_func_end;
    append closure(ref);
    closure.exec();
    closure.exec();
    EXPECT_EQ(total, 10);
    EXPECT_EQ(text, "xyy");
}

TEST(CoClosure, SixValuesMayBeCaptured)
{
    int a = 1, b = 2, c = 3, d = 4, e = 5;
    long sum = 0;
    long *out = &sum;
    co_func(adds, a, b, c, d, e, out)
    {
        *out = a + b + c + d + e;
        EXPECT_EQ(_member_cnt, 6);
    }
    co_func_end;
    adds closure(a, b, c, d, e, out);
    closure.exec();
    EXPECT_EQ(sum, 15);
}

TEST(CoClosure, OneValueMayBeCaptured)
{
    int value = 3;
    int *out = &value;
    co_func(triple, out)
    {
        *out *= 3;
    }
    co_func_end;
    triple closure(out);
    closure.exec();
    EXPECT_EQ(value, 9);
}

TEST(CoClosure, RunsAsACoroutineAndMayYield)
{
    std::string trace;
    char name = 'a';
    co_ref(ref, trace);
    co_func(speak, ref, name)
    {
        ref.trace += name;
        co_yield_ct();
        ref.trace += static_cast<char>(name - 32);
    }
    co_func_end;
    std::vector<std::unique_ptr<stCoClosure_t>> closures;
    std::vector<stCoRoutine_t *> all;
    for (name = 'a'; name < 'd'; ++name) {
        closures.push_back(std::make_unique<speak>(ref, name));
        stCoRoutine_t *co = nullptr;
        ASSERT_EQ(co_create(&co, nullptr, exec_closure, closures.back().get()), 0);
        all.push_back(co);
    }
    for (int round = 0; round < 2; ++round) {
        for (stCoRoutine_t *co : all) {
            co_resume(co);
        }
    }
    for (stCoRoutine_t *co : all) {
        EXPECT_EQ(co->cEnd, 1);
        co_release(co);
    }
    EXPECT_EQ(trace, "abcABC");
}

TEST(CoClosure, IsDestroyedThroughItsBase)
{
    int ends = 0;
    stCoClosure_t *closure = new CountsClosureEnds(&ends);
    closure->exec();
    delete closure;
    EXPECT_EQ(ends, 1);
}
