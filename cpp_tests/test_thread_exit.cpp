// What a thread leaves behind: nothing.
#include "support.h"

#include <memory>

using namespace support;

namespace {

// One thread's life: coroutines that yield, wait for a descriptor, a condition and a timer.
[[maybe_unused]] void work_with_coroutines()
{
    Pipe pipe_;
    stCoCond_t *cond = co_cond_alloc();
    int done = 0;
    Co yields([&] {
        co_yield_ct();
        ++done;
    });
    Co polls([&] { done += poll_one(pipe_.rd, 10000) == 1; });
    Co waits([&] {
        co_cond_timedwait(cond, 10000);
        ++done;
    });
    Co sleeps([&] {
        poll_one(-1, 1);
        ++done;
    });
    for (Co *co : {&yields, &polls, &waits, &sleeps}) {
        co->resume();
    }
    yields.resume();
    pipe_.put();
    co_cond_signal(cond);
    EXPECT_TRUE(loop_until([&] { return done == 4; }));
    co_cond_free(cond);
}

struct Left {
    int descriptors;
    long resident_kib;
};

// What `threads` threads, one after the other, leave behind after a warm-up.
[[maybe_unused]] Left left_by(int threads, const std::function<void()> &body)
{
    for (int i = 0; i < 100; ++i) {
        on_thread(body);
    }
    const int descriptors = open_descriptors();
    const long resident = status_kib("VmRSS:");
    for (int i = 0; i < threads; ++i) {
        on_thread(body);
    }
    return {open_descriptors() - descriptors, status_kib("VmRSS:") - resident};
}

} // namespace

TEST(ThreadExit, AThreadThatUsedCoroutinesEndsQuietly)
{
    for (int i = 0; i < 10; ++i) {
        on_thread(work_with_coroutines);
    }
}

TEST(ThreadExit, LeavesTheCoroutinesOfOtherThreadsAlone)
{
    Pipe pipe_;
    int result = -2;
    Co co([&] { result = poll_one(pipe_.rd, 10000); });
    co.resume();
    for (int i = 0; i < 10; ++i) {
        on_thread(work_with_coroutines);
    }
    pipe_.put();
    EXPECT_TRUE(loop_until([&] { return result != -2; }));
    EXPECT_EQ(result, 1);
}

MENDED(ThreadExit, TwoThousandThreadsLeaveNoDescriptorAndNoMemory)
{
    const Left left = left_by(2000, work_with_coroutines);
    EXPECT_EQ(left.descriptors, 0);
    EXPECT_LT(left.resident_kib, 4 * 1024);
}

MENDED(ThreadExit, AThreadThatOnlyAskedForItsLoopLeavesNothing)
{
    const Left left = left_by(1000, [] { co_get_epoll_ct(); });
    EXPECT_EQ(left.descriptors, 0);
    EXPECT_LT(left.resident_kib, 4 * 1024);
}

MENDED(ThreadExit, ReleaseInAThreadLocalDestructorLeavesNothing)
{
    struct Holder {
        stCoRoutine_t *co = nullptr;
        ~Holder() { co_release(co); }
    };
    const Left left = left_by(1000, [] {
        static thread_local Holder holder;
        Co co([] { co_yield_ct(); });
        co.resume();
        holder.co = co.forget();
    });
    EXPECT_EQ(left.descriptors, 0);
    EXPECT_LT(left.resident_kib, 4 * 1024);
}

MENDED(ThreadExit, ReleaseByAnotherThreadAfterTheEndLeavesNothing)
{
    stCoRoutine_t *waiting = nullptr;
    stCoRoutine_t *yielded = nullptr;
    const auto body = [&] {
        Co a([] { co_yield_ct(); });
        a.resume();
        yielded = a.forget();
        Co b([] { poll_one(-1, 100000); });
        b.resume();
        waiting = b.forget();
    };
    const auto round = [&] {
        on_thread(body);
        co_release(waiting);
        co_release(yielded);
    };
    for (int i = 0; i < 100; ++i) {
        round();
    }
    const int descriptors = open_descriptors();
    const long resident = status_kib("VmRSS:");
    for (int i = 0; i < 1000; ++i) {
        round();
    }
    EXPECT_EQ(open_descriptors(), descriptors);
    EXPECT_LT(status_kib("VmRSS:") - resident, 4 * 1024);
}

MENDED(ThreadExit, LiveCoroutinesKeepTheirStackButNoDescriptor)
{
    std::vector<stCoRoutine_t *> live;
    const int before = open_descriptors();
    for (int i = 0; i < 50; ++i) {
        on_thread([&] {
            Co co([] { co_yield_ct(); });
            co.resume();
            live.push_back(co.forget());
        });
    }
    EXPECT_EQ(open_descriptors(), before);
    for (stCoRoutine_t *co : live) {
        co_release(co);
    }
}

MENDED(ThreadExit, ACoroutineMadeInALateKeyDestructorLeavesNothing)
{
    static int ran;
    static pthread_key_t key;
    ASSERT_EQ(pthread_key_create(&key,
                                 [](void *) {
                                     Co co([] { ++ran; });
                                     co.resume();
                                 }),
              0);
    ran = 0;
    const Left left = left_by(200, [] {
        co_get_epoll_ct();
        pthread_setspecific(key, &key);
    });
    EXPECT_EQ(ran, 300);
    EXPECT_EQ(left.descriptors, 0);
    pthread_key_delete(key);
}

MENDED(ThreadExit, PthreadExitInTheMainCoroutineLeavesNothing)
{
    const auto round = [] {
        pthread_t thread;
        ASSERT_EQ(pthread_create(
                      &thread, nullptr,
                      [](void *) -> void * {
                          Co co([] { co_yield_ct(); });
                          co.resume();
                          pthread_exit(nullptr);
                      },
                      nullptr),
                  0);
        pthread_join(thread, nullptr);
    };
    for (int i = 0; i < 100; ++i) {
        round();
    }
    const int descriptors = open_descriptors();
    for (int i = 0; i < 300; ++i) {
        round();
    }
    EXPECT_EQ(open_descriptors(), descriptors);
}

MENDED(ThreadExit, ManyThreadsAtOnceLeaveNothing)
{
    const auto round = [] {
        std::vector<std::thread> threads;
        for (int i = 0; i < 16; ++i) {
            threads.emplace_back(work_with_coroutines);
        }
        for (std::thread &t : threads) {
            t.join();
        }
    };
    for (int i = 0; i < 5; ++i) {
        round();
    }
    const int descriptors = open_descriptors();
    for (int i = 0; i < 20; ++i) {
        round();
    }
    EXPECT_EQ(open_descriptors(), descriptors);
}
