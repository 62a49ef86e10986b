// The process ends from inside a coroutine, or with coroutines in every state: handlers and destructors run as ever, and may
// use the library.
#include "support.h"

#include <atomic>
#include <memory>

using namespace support;

namespace {

// Writes what happens to a pipe that the parent reads.
int report_to = -1;

[[maybe_unused]] void report(char c)
{
    if (report_to >= 0 && ::write(report_to, &c, 1) != 1) {
        std::abort();
    }
}

// Uses the library when the process ends, after main and after the handlers of atexit.
struct UsesTheLibraryAtTheEnd {
    stCoRoutine_t *kept = nullptr;
    ~UsesTheLibraryAtTheEnd()
    {
        if (report_to < 0) {
            return;
        }
        co_release(kept);
        int ran = 0;
        Co co([&] {
            ++ran;
            poll_one(-1, 1);
            ++ran;
        });
        co.resume();
        report(loop_until([&] { return ran == 2; }, 5000) ? 'S' : 's');
    }
};
UsesTheLibraryAtTheEnd at_the_end;

struct LocalAtTheEnd {
    ~LocalAtTheEnd()
    {
        if (report_to >= 0) {
            int ran = 0;
            Co co([&] { ++ran; });
            co.resume();
            report(ran == 1 ? 'L' : 'l');
        }
    }
};

[[maybe_unused]] void at_exit()
{
    stCoCond_t *cond = co_cond_alloc();
    int woken = 0;
    Co co([&] { woken += co_cond_wait(cond, 5000) == 0; });
    co.resume();
    co_cond_signal(cond);
    report(loop_until([&] { return woken == 1; }, 5000) ? 'A' : 'a');
    co.release();
    co_cond_free(cond);
}

struct End {
    int status;
    std::string said;
};

// Coroutines in every state, then `ending` on the main coroutine or inside one.
[[maybe_unused]] End process_that(const std::function<void()> &ending, bool in_coroutine, bool copy)
{
    Pipe pipe_;
    fflush(nullptr);
    const pid_t pid = fork();
    if (pid == 0) {
        alarm(30);
        report_to = pipe_.wr;
        static thread_local LocalAtTheEnd local;
        (void)&local;
        atexit(at_exit);
        stShareStack_t *share = co_alloc_sharestack(1, 128 * 1024);
        const stCoRoutineAttr_t at = attr(0, copy ? share : nullptr);
        static stCoCond_t *cond = co_cond_alloc();
        static std::vector<std::unique_ptr<Co>> *all = new std::vector<std::unique_ptr<Co>>;
        for (const std::function<void()> &body : {std::function<void()>([] { co_yield_ct(); }),
                                                  std::function<void()>([] { poll_one(-1, 100000); }),
                                                  std::function<void()>([] { co_cond_timedwait(cond, -1); }),
                                                  std::function<void()>([] {})}) {
            all->push_back(std::make_unique<Co>(body, &at));
            all->back()->resume();
        }
        Co kept([] { co_yield_ct(); });
        kept.resume();
        at_the_end.kept = kept.forget();
        if (in_coroutine) {
            static Co *runs = new Co(ending, &at);
            runs->resume();
        } else {
            ending();
        }
        report('!');
        _exit(99);
    }
    close(pipe_.wr);
    pipe_.wr = -1;
    End end{0, ""};
    char c;
    while (::read(pipe_.rd, &c, 1) == 1) {
        end.said += c;
    }
    waitpid(pid, &end.status, 0);
    return end;
}

[[maybe_unused]] void check(const std::function<void()> &ending, const std::string &said, int status)
{
    for (const bool in_coroutine : {false, true}) {
        for (const bool copy : {false, true}) {
            const End end = process_that(ending, in_coroutine, copy);
            EXPECT_EQ(end.said, said) << in_coroutine << copy;
            EXPECT_EQ(end.status, status) << in_coroutine << copy;
        }
    }
}

} // namespace

// thread_local destructors, then the handlers of atexit and the destructors of statics in the order of the C++ standard.
MENDED(ProcessExit, ExitRunsEverythingAndAllOfItMayUseTheLibrary)
{
    check([] { exit(3); }, "LAS", 3 << 8);
}

MENDED(ProcessExit, QuickExitRunsItsHandlersAlone)
{
    check(
        [] {
            at_quick_exit([] {
                int ran = 0;
                Co co([&] { ++ran; });
                co.resume();
                report(ran == 1 ? 'Q' : 'q');
            });
            quick_exit(4);
        },
        "Q", 4 << 8);
}

MENDED(ProcessExit, UnderscoreExitRunsNothing)
{
    check([] { _exit(5); }, "", 5 << 8);
}

MENDED(ProcessExit, AbortEndsTheProcessByItsSignal)
{
    for (const bool in_coroutine : {false, true}) {
        const End end = process_that(
            [] {
                const struct rlimit none = {0, 0};
                setrlimit(RLIMIT_CORE, &none);
                abort();
            },
            in_coroutine, false);
        EXPECT_TRUE(WIFSIGNALED(end.status) && WTERMSIG(end.status) == SIGABRT) << end.status;
    }
}

// As when main returns while others still work: their threads are stopped wherever they are.
MENDED(ProcessExit, ExitWhileOtherThreadsRunTheirLoops)
{
    for (int i = 0; i < 10; ++i) {
        EXPECT_EQ(in_child([] {
                      std::atomic<int> running{0};
                      for (int t = 0; t < 3; ++t) {
                          std::thread([&running] {
                              Co busy([&running] {
                                  ++running;
                                  for (;;) {
                                      Co inner([] { poll_one(-1, 1); });
                                      inner.resume();
                                      poll_one(-1, 1);
                                  }
                              });
                              busy.resume();
                              co_eventloop(co_get_epoll_ct(), nullptr, nullptr);
                          }).detach();
                      }
                      while (running < 3) {
                          std::this_thread::yield();
                      }
                      Co exits([] { exit(6); });
                      exits.resume();
                      return 1;
                  }),
                  6);
    }
}

// A coroutine ends the main thread; the process lives on in the other threads, and ends with the last.
MENDED(ProcessExit, PthreadExitOfTheMainThreadInACoroutineLetsOtherThreadsGoOn)
{
    EXPECT_EQ(in_child([] {
                  std::thread([] {
                      int slept = -1;
                      Co co([&] { slept = poll_one(-1, 50); });
                      co.resume();
                      loop_until([&] { return slept == 0; });
                      _exit(slept == 0 ? 8 : 9);
                  }).detach();
                  Co ends([] { pthread_exit(nullptr); });
                  ends.resume();
                  return 1;
              }),
              8);
}
