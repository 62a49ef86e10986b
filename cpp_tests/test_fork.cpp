// fork: the child goes on with every coroutine, and neither process disturbs the other.
#include "support.h"

#include <memory>

using namespace support;

namespace {

// Forks without waiting for the child, so that both can run at once.
[[maybe_unused]] pid_t fork_child(const std::function<int()> &body)
{
    fflush(nullptr);
    const pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        const int result = body();
        fflush(nullptr);
        _exit(result);
    }
    return pid;
}

[[maybe_unused]] int result_of(pid_t pid)
{
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

} // namespace

TEST(Fork, TheChildGoesOnWithSuspendedCoroutines)
{
    std::vector<std::unique_ptr<Co>> all;
    std::vector<int> results(100, 0);
    for (int i = 0; i < 100; ++i) {
        all.push_back(std::make_unique<Co>([i, &results] {
            volatile int local = i;
            co_yield_ct();
            results[static_cast<size_t>(i)] = local + 1;
        }));
        all.back()->resume();
    }
    const auto finish = [&] {
        for (auto &co : all) {
            co->resume();
        }
        for (int i = 0; i < 100; ++i) {
            if (results[static_cast<size_t>(i)] != i + 1) {
                return 1;
            }
        }
        return 0;
    };
    EXPECT_EQ(in_child(finish), 0);
    EXPECT_EQ(results[5], 0) << "the parent's own memory";
    EXPECT_EQ(finish(), 0);
}

TEST(Fork, TheChildGoesOnWithCoroutinesOnCopyStacks)
{
    stShareStack_t *share = co_alloc_sharestack(1, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    std::vector<std::unique_ptr<Co>> all;
    int sum = 0;
    for (int i = 0; i < 20; ++i) {
        all.push_back(std::make_unique<Co>(
            [i, &sum] {
                volatile int local = i;
                co_yield_ct();
                sum += local;
            },
            &at));
        all.back()->resume();
    }
    const auto finish = [&] {
        for (auto &co : all) {
            co->resume();
        }
        return sum == 190 ? 0 : 1;
    };
    EXPECT_EQ(in_child(finish), 0);
    EXPECT_EQ(finish(), 0);
}

TEST(Fork, TheChildMakesNewCoroutines)
{
    Co co([] { co_yield_ct(); });
    co.resume();
    EXPECT_EQ(in_child([] {
                  int runs = 0;
                  Co fresh([&] {
                      ++runs;
                      co_yield_ct();
                      ++runs;
                  });
                  fresh.resume();
                  fresh.resume();
                  return runs == 2 ? 0 : 1;
              }),
              0);
}

// In these two the parent never goes on, as where a program daemonises.
TEST(Fork, AWaitForADescriptorGoesOnInTheChild)
{
    EXPECT_EQ(in_child([] {
                  Pipe pipe_;
                  int result = -2;
                  Co co([&] { result = poll_one(pipe_.rd, 10000); });
                  co.resume();
                  _exit(in_child([&] {
                      pipe_.put();
                      return loop_until([&] { return result != -2; }, 5000) && result == 1 ? 0 : 1;
                  }));
                  return 1;
              }),
              0);
}

TEST(Fork, ATimeOutGoesOnInTheChild)
{
    EXPECT_EQ(in_child([] {
                  Pipe pipe_;
                  int result = -2;
                  Co co([&] { result = poll_one(pipe_.rd, 30); });
                  co.resume();
                  _exit(in_child([&] {
                      return loop_until([&] { return result != -2; }, 5000) && result == 0 ? 0 : 1;
                  }));
                  return 1;
              }),
              0);
}

TEST(Fork, AWaitOnAConditionGoesOnInTheChild)
{
    stCoCond_t *cond = co_cond_alloc();
    bool woken = false;
    Co co([&] {
        co_cond_timedwait(cond, 10000);
        woken = true;
    });
    co.resume();
    const auto finish = [&] {
        co_cond_signal(cond);
        return loop_until([&] { return woken; }, 5000) ? 0 : 1;
    };
    EXPECT_EQ(in_child(finish), 0);
    EXPECT_FALSE(woken);
    EXPECT_EQ(finish(), 0);
    co_cond_free(cond);
}

TEST(Fork, DaemonisingAfterCreatingCoroutinesWorks)
{
    // The parent leaves at once, as a daemon's does; the grandchild serves.
    EXPECT_EQ(in_child([] {
                  Pipe request;
                  Pipe answer;
                  Co server([&] {
                      if (poll_one(request.rd, 10000) == 1) {
                          answer.put('k');
                      }
                  });
                  server.resume();
                  const pid_t pid = fork();
                  if (pid == 0) {
                      alarm(20);
                      setsid();
                      loop_until([&] { return server.ended(); }, 5000);
                      _exit(0);
                  }
                  request.put();
                  struct pollfd p = {answer.rd, POLLIN, 0};
                  char c = 0;
                  const bool answered =
                      poll(&p, 1, 8000) == 1 && ::read(answer.rd, &c, 1) == 1 && c == 'k';
                  waitpid(pid, nullptr, 0);
                  _exit(answered ? 0 : 1);
                  return 1;
              }),
              0);
}

TEST(Fork, InsideACoroutineContinuesThatCoroutineInBoth)
{
    pid_t pid = -1;
    std::string trace;
    Co co([&] {
        volatile int local = 5;
        fflush(nullptr);
        pid = fork();
        trace += static_cast<char>('0' + local);
        co_yield_ct();
        trace += "b";
    });
    co.resume();
    co.resume();
    const bool right = trace == "5b" && co.ended();
    if (pid == 0) {
        _exit(right ? 0 : 1);
    }
    EXPECT_TRUE(right);
    int status = -1;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
}

MENDED(Fork, ParentAndChildEachGetTheirOwnWakeUp)
{
    Pipe pipe_;
    Pipe child_done;
    int result = -2;
    Co co([&] { result = poll_one(pipe_.rd, 10000); });
    co.resume();
    const auto finish = [&] {
        return loop_until([&] { return result != -2; }, 5000) && result == 1 ? 0 : 1;
    };
    // The child is done with its wait, and the descriptor, before the parent's loop starts.
    EXPECT_EQ(in_child([&] {
                  pipe_.put();
                  return finish();
              }),
              0);
    EXPECT_EQ(finish(), 0);
}

MENDED(Fork, TheChildsNewWaitsDoNotReachTheParent)
{
    Pipe parents;
    Pipe childs;
    Pipe tell;
    co_get_epoll_ct();
    int unexpected = 0;
    Co in_parent([&] {
        poll_one(parents.rd, 10000);
        ++unexpected;
    });
    in_parent.resume();
    const pid_t pid = fork_child([&] {
        int result = -2;
        Co fresh([&] { result = poll_one(childs.rd, 10000); });
        fresh.resume();
        tell.put();
        return loop_until([&] { return result == 1; }, 10000) ? 0 : 1;
    });
    char c;
    ASSERT_EQ(::read(tell.rd, &c, 1), 1);
    childs.put(); // ready from now on: a shared epoll instance would hand it to the parent as well
    loop_rounds(20);
    EXPECT_EQ(result_of(pid), 0);
    EXPECT_EQ(unexpected, 0);
    parents.put();
    EXPECT_TRUE(loop_until([&] { return unexpected == 1; }));
}

MENDED(Fork, TheChildClosingADescriptorLeavesTheParentsWait)
{
    Pipe pipe_;
    int result = -2;
    Co co([&] { result = poll_one(pipe_.rd, 10000); });
    co.resume();
    EXPECT_EQ(in_child([&] {
                  loop_rounds(2);
                  close(pipe_.rd);
                  loop_rounds(5);
                  return 0;
              }),
              0);
    pipe_.put();
    EXPECT_TRUE(loop_until([&] { return result != -2; }));
    EXPECT_EQ(result, 1);
}

MENDED(Fork, TheChildReleasingAWaiterLeavesTheParentsWait)
{
    Pipe pipe_;
    int result = -2;
    Co co([&] { result = poll_one(pipe_.rd, 10000); });
    co.resume();
    EXPECT_EQ(in_child([&] {
                  co.release();
                  pipe_.put();
                  loop_rounds(5);
                  return result == -2 ? 0 : 1;
              }),
              0);
    EXPECT_TRUE(loop_until([&] { return result != -2; }));
    EXPECT_EQ(result, 1);
}

MENDED(Fork, AForkInsideACoroutineWithWaitersServesBothLoops)
{
    Pipe pipe_;
    int result = -2;
    pid_t pid = -1;
    Co waiter([&] { result = poll_one(pipe_.rd, 10000); });
    waiter.resume();
    Co forker([&] {
        poll_one(-1, 2);
        fflush(nullptr);
        pid = fork();
        poll_one(-1, 2);
        pipe_.put();
    });
    forker.resume();
    const bool served = loop_until([&] { return forker.ended() && result != -2; }, 8000);
    if (pid == 0) {
        _exit(served && result == 1 ? 0 : 1);
    }
    EXPECT_TRUE(served);
    EXPECT_EQ(result, 1);
    EXPECT_EQ(result_of(pid), 0);
}

MENDED(Fork, AGrandchildGoesOnToo)
{
    Pipe pipe_;
    int result = -2;
    Co co([&] { result = poll_one(pipe_.rd, 10000); });
    co.resume();
    const auto finish = [&] {
        return loop_until([&] { return result != -2; }, 5000) && result == 1 ? 0 : 1;
    };
    EXPECT_EQ(in_child([&] {
                  const int below = in_child([&] {
                      pipe_.put();
                      return finish();
                  });
                  return below == 0 ? finish() : 10 + below;
              }),
              0);
    EXPECT_EQ(finish(), 0);
}

MENDED(Fork, ManyWaitsOfEveryKindGoOnInParentAndChild)
{
    constexpr int count = 50;
    std::vector<std::unique_ptr<Pipe>> pipes;
    std::vector<std::unique_ptr<Co>> all;
    stCoCond_t *cond = co_cond_alloc();
    int woken = 0;
    for (int i = 0; i < count; ++i) {
        pipes.push_back(std::make_unique<Pipe>());
        const int fd = pipes.back()->rd;
        all.push_back(std::make_unique<Co>([&woken, fd] { woken += poll_one(fd, 10000) == 1; }));
        all.push_back(std::make_unique<Co>([&woken] { woken += poll_one(-1, 50) == 0; }));
        all.push_back(std::make_unique<Co>([&woken, cond] {
            co_cond_timedwait(cond, 10000);
            ++woken;
        }));
    }
    for (auto &co : all) {
        co->resume();
    }
    const auto finish = [&] {
        for (auto &p : pipes) {
            p->put();
        }
        co_cond_broadcast(cond);
        return loop_until([&] { return woken == 3 * count; }, 8000) ? 0 : 1;
    };
    EXPECT_EQ(in_child(finish), 0);
    EXPECT_EQ(woken, 0);
    EXPECT_EQ(finish(), 0);
    co_cond_free(cond);
}
