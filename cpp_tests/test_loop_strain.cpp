// What programs do to a library that lives in their process: cancel its threads, close its
// descriptors, fork around it, release what others still look at.
#include "loop_support.h"

#include <sys/syscall.h>

using namespace support;

namespace {

// A descriptor's file, as the kernel names it; empty if the number is closed.
std::string file_of(int fd)
{
    char name[64];
    const ssize_t n = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), name, sizeof name);
    return n > 0 ? std::string(name, n) : "";
}

// Closes everything from 3 on past every hook, and opens files in their place.
void take_over_all_numbers()
{
    syscall(SYS_close_range, 3u, ~0u, 0u);
    for (int i = 0; i < 6; ++i) {
        ASSERT_EQ(3 + i, syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR, 0));
    }
}

bool all_files_are_there()
{
    for (int fd = 3; fd < 9; ++fd) {
        if (file_of(fd) != "/dev/null") {
            return false;
        }
    }
    return true;
}

} // namespace

TEST(PthreadCancel, ends_a_thread_that_runs_the_loop)
{
    for (int (*callback)(void *) : {static_cast<int (*)(void *)>(nullptr), +[](void *) { return 0; }}) {
        pthread_t thread;
        ASSERT_EQ(0, pthread_create(
                         &thread, nullptr,
                         [](void *arg) -> void * {
                             co_eventloop(co_get_epoll_ct(), reinterpret_cast<int (*)(void *)>(arg), nullptr);
                             return nullptr;
                         },
                         reinterpret_cast<void *>(callback)));
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        pthread_cancel(thread);
        void *result = nullptr;
        pthread_join(thread, &result);
        EXPECT_EQ(PTHREAD_CANCELED, result);
    }
}

TEST(Vfork, child_that_closes_its_copies_leaves_the_parents_waits_alone)
{
    on_thread([] {
        int ends[2];
        ASSERT_EQ(0, pipe(ends));
        int got = -2;
        Co waiter([&] { got = poll_one(ends[0], -1); });
        waiter.resume();
        loop_rounds(2);
        const pid_t child = vfork();
        if (child == 0) {
            close(ends[0]);
            _exit(0);
        }
        waitpid(child, nullptr, 0);
        loop_rounds(20);
        EXPECT_EQ(-2, got) << "woke without data";
        ASSERT_EQ(1, write(ends[1], "x", 1));
        EXPECT_TRUE(loop_until([&] { return got == 1; }));
        close(ends[0]);
        close(ends[1]);
    });
}

MENDED(Loop, goes_on_when_its_descriptors_are_closed_past_it_and_closes_none_of_the_programs)
{
    EXPECT_EQ(0, in_child([] {
        on_thread([] {
            Group group;
            group.go([] { nap(20); });
            EXPECT_TRUE(group.run());
            take_over_all_numbers();
            int ends[2];
            ASSERT_EQ(0, pipe(ends));
            int got = -2;
            group.go([&] { got = poll_one(ends[0], 5000); });
            ASSERT_EQ(1, write(ends[1], "x", 1));
            EXPECT_TRUE(loop_until([&] { return got != -2; }));
            EXPECT_EQ(1, got);
            EXPECT_TRUE(all_files_are_there()) << "in use";
        });
        EXPECT_TRUE(all_files_are_there()) << "after the thread's end";
        return testing::Test::HasFailure() ? 1 : 0;
    }));
}

MENDED(Loop, of_a_forked_child_closes_none_of_the_programs_descriptors)
{
    EXPECT_EQ(0, in_child([] {
        Group group;
        group.go([] { nap(20); });
        EXPECT_TRUE(group.run());
        take_over_all_numbers();
        return in_child([] { return all_files_are_there() ? 0 : 1; });
    }));
}

MENDED(Loop, gives_memory_back_although_it_has_a_callback)
{
    on_thread([] {
        {
            std::vector<std::unique_ptr<Co>> all;
            for (int i = 0; i < 1000; ++i) {
                all.push_back(std::make_unique<Co>([] {
                    volatile char used[100000];
                    for (size_t at = 0; at < sizeof used; at += 4096) {
                        used[at] = 1;
                    }
                    co_yield_ct();
                }));
                all.back()->resume();
            }
        }
        const long before = status_kib("VmRSS:");
        const long long deadline = now_ms() + 15000;
        EXPECT_TRUE(loop_until([&] { return status_kib("VmRSS:") < before - 80000 || now_ms() > deadline; }));
        EXPECT_LT(status_kib("VmRSS:"), before - 80000);
    });
}

MENDED(CoCreate, gets_memory_that_free_stacks_of_another_size_held)
{
    EXPECT_EQ(0, in_child([] {
        if (!leave_address_space(200u << 20)) {
            return 2;
        }
        const stCoRoutineAttr_t large = attr(8 << 20);
        std::vector<stCoRoutine_t *> all;
        stCoRoutine_t *co = nullptr;
        while (co_create(&co, &large, nullptr, nullptr) == 0) {
            all.push_back(co);
        }
        for (stCoRoutine_t *each : all) {
            co_release(each);
        }
        for (int i = 0; i < 500; ++i) {
            if (co_create(&co, nullptr, nullptr, nullptr) != 0) {
                return 1;
            }
        }
        return 0;
    }));
}

MENDED(CEnd, written_by_hand_on_a_waiting_coroutine_leaves_nothing_behind)
{
    on_thread([] {
        int ends[2];
        ASSERT_EQ(0, pipe(ends));
        Co ended_by_hand([&] { poll_one(ends[0], -1); });
        ended_by_hand.resume();
        ended_by_hand.get()->cEnd = 1;
        ASSERT_EQ(1, write(ends[1], "x", 1));
        loop_rounds(5);
        ended_by_hand.release();
        int got = -2;
        Co next([&] { got = poll_one(ends[0], 1000); });
        next.resume();
        EXPECT_TRUE(loop_until([&] { return got == 1; }));
        close(ends[0]);
        close(ends[1]);
    });
}

MENDED(FreeEpoll, with_waiters_on_a_condition_leaves_the_condition_usable)
{
    on_thread([] {
        co_init_curr_thread_env();
        stCoEpoll_t *own = AllocEpoll();
        SetEpoll(co_get_curr_thread_env(), own);
        stCoCond_t *cond = co_cond_alloc();
        bool first_woke = false, second_woke = false;
        Co timed([&] { co_cond_timedwait(cond, 100000); });
        Co untimed([&] {
            co_cond_timedwait(cond, 0);
            first_woke = true;
        });
        timed.resume();
        untimed.resume();
        FreeEpoll(own);
        SetEpoll(co_get_curr_thread_env(), nullptr);
        co_cond_signal(cond);
        Co later([&] {
            co_cond_timedwait(cond, 0);
            second_woke = true;
        });
        later.resume();
        co_cond_signal(cond);
        EXPECT_TRUE(loop_until([&] { return second_woke; }));
        EXPECT_FALSE(first_woke);
        co_cond_free(cond);
    });
}

MENDED(CoSwap, to_an_ended_coroutine_does_nothing)
{
    on_thread([] {
        Co ended([] {});
        ended.resume();
        co_swap(co_self(), ended.get());
        EXPECT_NE(0, co_self()->cIsMain);
    });
}

MENDED(ClsCoMutex, is_handed_to_the_main_coroutine_in_its_turn)
{
    on_thread([] {
        clsCoMutex mutex;
        bool stop = false;
        Group group;
        for (int i = 0; i < 2; ++i) {
            group.go([&] {
                while (!stop) {
                    mutex.CoLock();
                    nap(1);
                    mutex.CoUnLock();
                }
            });
        }
        mutex.CoLock();
        stop = true;
        mutex.CoUnLock();
        EXPECT_TRUE(group.run());
    });
}

// A copy stack's occupant is looked at by its thread when the next one needs the stack.
MENDED(CoRelease, of_a_copy_stack_coroutine_from_another_thread_does_not_disturb_its_owner)
{
    on_thread([] {
        const stCoRoutineAttr_t at = attr(0, co_alloc_sharestack(1, 131072));
        std::atomic<stCoRoutine_t *> box{nullptr};
        std::atomic<bool> stop{false};
        std::thread releaser([&] {
            while (!stop) {
                if (stCoRoutine_t *co = box.exchange(nullptr)) {
                    co_release(co);
                }
            }
        });
        const auto deep = [](void *) -> void * {
            volatile char live[30000];
            live[0] = 1;
            co_yield_ct();
            return reinterpret_cast<void *>(static_cast<intptr_t>(live[0]));
        };
        stCoRoutine_t *other = nullptr;
        ASSERT_EQ(0, co_create(&other, &at, [](void *) -> void * {
            for (;;) {
                co_yield_ct();
            }
        }, nullptr));
        for (int i = 0; i < 20000; ++i) {
            stCoRoutine_t *co = nullptr;
            ASSERT_EQ(0, co_create(&co, &at, deep, nullptr));
            co_resume(co);
            stCoRoutine_t *empty = nullptr;
            if (!box.compare_exchange_strong(empty, co)) {
                co_release(co);
            }
            co_resume(other);
        }
        stop = true;
        releaser.join();
        co_release(other);
    });
}
