// A backtrace taken inside a coroutine ends at its first frame, however the coroutine got there: by glibc's
// backtrace(), by the unwinder that C++ exceptions use, and by frame pointers.
#include "support.h"

#include <algorithm>
#include <exception>

#include <execinfo.h>
#include <unwind.h>

#define KEEP __attribute__((noinline, noclone))

namespace {

// One walk: return addresses, innermost first.
struct Walk {
    std::vector<void *> by_glibc, by_unwinder, by_frame_pointers;
    _Unwind_Reason_Code end = _URC_NO_REASON;
    void *routine_returns_to = nullptr;
};

_Unwind_Reason_Code note_frame(_Unwind_Context *context, void *frames)
{
    static_cast<std::vector<void *> *>(frames)->push_back(reinterpret_cast<void *>(_Unwind_GetIP(context)));
    return _URC_NO_REASON;
}

// Where a frame has its caller's frame pointer, followed by the return address.
void **pair_of(void **frame)
{
#ifdef __riscv // the frame pointer points above what is saved
    return frame - 2;
#else
    return frame;
#endif
}

// Without the signature that -mbranch-protection puts on an address that goes to memory.
void *without_signature(void *address)
{
#ifdef __aarch64__
    register void *link asm("x30") = address;
    asm("hint 7" : "+r"(link)); // xpaclri
    address = link;
#endif
    return address;
}

KEEP void walk(Walk &found, void **frame)
{
    found.by_glibc.resize(200);
    found.by_glibc.resize(static_cast<size_t>(backtrace(found.by_glibc.data(), 200)));
    found.by_unwinder.clear();
    found.end = _Unwind_Backtrace(note_frame, &found.by_unwinder);
    found.by_frame_pointers.clear();
    // From the routine's own frame, which has a frame pointer; the last one saved is null.
    for (; frame != nullptr && found.by_frame_pointers.size() < 200; frame = static_cast<void **>(*pair_of(frame))) {
        found.by_frame_pointers.push_back(without_signature(pair_of(frame)[1]));
    }
}

KEEP int deeper(Walk &found, void **frame, int depth)
{
    if (depth == 0) {
        walk(found, frame);
        return 0;
    }
    volatile int more = deeper(found, frame, depth - 1);
    return more + 1;
}

void check(const Walk &found, int depth)
{
    ASSERT_GT(found.by_glibc.size(), 2u);
    EXPECT_EQ(found.by_glibc.back(), found.routine_returns_to) << "glibc's backtrace() goes past the first frame";
    EXPECT_EQ(std::count(found.by_glibc.begin(), found.by_glibc.end(), nullptr), 0);
    // walk, depth + 1 times deeper, the routine, the first frame.
    EXPECT_EQ(found.by_glibc.size(), static_cast<size_t>(depth) + 4);
    ASSERT_FALSE(found.by_unwinder.empty());
    EXPECT_EQ(found.end, _URC_END_OF_STACK);
    EXPECT_EQ(std::count(found.by_unwinder.begin(), found.by_unwinder.end(), found.routine_returns_to), 1);
    ASSERT_EQ(found.by_frame_pointers.size(), 1u) << "the routine's caller's frame pointer is null";
    EXPECT_EQ(found.by_frame_pointers[0], found.routine_returns_to);
}

constexpr int depth = 5;

// Walks when it is new, and again after each yield.
void *walks(void *arg)
{
    auto &found = *static_cast<Walk *>(arg);
    for (;;) {
        found.routine_returns_to = __builtin_return_address(0);
        deeper(found, static_cast<void **>(__builtin_frame_address(0)), depth);
        co_yield_ct();
    }
}

void *walks_once(void *arg)
{
    auto &found = *static_cast<Walk *>(arg);
    found.routine_returns_to = __builtin_return_address(0);
    deeper(found, static_cast<void **>(__builtin_frame_address(0)), depth);
    return nullptr;
}

stCoRoutine_t *make(void *(*routine)(void *), void *arg, stShareStack_t *share = nullptr)
{
    stCoRoutine_t *co = nullptr;
    stCoRoutineAttr_t attr;
    attr.share_stack = share;
    EXPECT_EQ(co_create(&co, &attr, routine, arg), 0);
    return co;
}

void resume_and_check(stCoRoutine_t *co, Walk &found)
{
    found = Walk();
    co_resume(co);
    check(found, depth);
}

} // namespace

MENDED(Backtrace, EndsAtTheFirstFrameOfANewCoroutineAndOfOneResumed)
{
    Walk found;
    stCoRoutine_t *co = make(walks, &found);
    for (int i = 0; i < 3; i++) resume_and_check(co, found);
    co_release(co);
}

MENDED(Backtrace, EndsThereOnACopyStackBeforeAndAfterItsBytesWereMoved)
{
    Walk first_found, second_found;
    stShareStack_t *share = co_alloc_sharestack(1, 128 * 1024);
    stCoRoutine_t *first = make(walks, &first_found, share), *second = make(walks, &second_found, share);
    for (int i = 0; i < 3; i++) {
        resume_and_check(first, first_found);
        resume_and_check(second, second_found);
    }
    co_release(first);
    co_release(second);
}

MENDED(Backtrace, EndsThereAfterAResetAndInAReusedStack)
{
    Walk found;
    stCoRoutine_t *co = make(walks_once, &found);
    for (int i = 0; i < 3; i++) {
        resume_and_check(co, found);
        co_reset(co);
    }
    co_release(co);
    co = make(walks_once, &found);
    resume_and_check(co, found);
    co_release(co);
}

MENDED(Backtrace, OfOneThatAnotherOneResumedShowsItsOwnFramesAlone)
{
    struct Both {
        Walk found;
        stCoRoutine_t *inner;
    } both;
    both.inner = make(walks, &both.found);
    stCoRoutine_t *outer = make(
        [](void *arg) -> void * {
            co_resume(static_cast<Both *>(arg)->inner);
            return nullptr;
        },
        &both);
    co_resume(outer);
    check(both.found, depth);
    co_release(outer);
    co_release(both.inner);
}

// What a crash reporter installed by std::set_terminate sees.
static void report()
{
    Walk found;
    found.end = _Unwind_Backtrace(note_frame, &found.by_unwinder);
    _exit(found.end == _URC_END_OF_STACK && found.by_unwinder.size() > 3 && found.by_unwinder.size() < 30 ? 42 : 43);
}

MENDED(Backtrace, OfAnExceptionThatNobodyCatchesIsWholeInTheTerminateHandler)
{
    stCoRoutine_t *co = make(
        [](void *) -> void * {
            throw std::runtime_error("nobody");
        },
        nullptr);
    pid_t child = fork();
    ASSERT_NE(child, -1);
    if (child == 0) {
        std::set_terminate(report);
        co_resume(co);
        _exit(44);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << status;
    EXPECT_EQ(WEXITSTATUS(status), 42);
    co_release(co);
}
