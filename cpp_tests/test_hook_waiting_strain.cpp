// Many coroutines in many kinds of waits at once, on private and copy stacks, with signals, wake-ups by hand,
// resets and releases at any time.
#include "added_hooks.h"

#include <sys/epoll.h>
#include <sys/select.h>

using namespace support;

namespace {

struct Strain {
    Random random{42};
    std::vector<Pair> pipes;
    Fd epoll{epoll_create1(0)};
    bool stop = false;
    long calls = 0, ready = 0, over = 0, interrupted = 0, wrong = 0;

    Strain()
    {
        for (int i = 0; i < 16; ++i) {
            pipes.push_back(plain_pipe());
            raw_nonblock(pipes.back().a);
            raw_nonblock(pipes.back().b);
            epoll_event event = {};
            event.events = i % 2 == 0 ? EPOLLIN : EPOLLIN | EPOLLET;
            epoll_ctl(epoll, EPOLL_CTL_ADD, pipes.back().a, &event);
        }
    }

    // Counts how a call ended that must last `ns` unless something came.
    void note(int result, long long start, long long ns)
    {
        ++calls;
        if (result > 0) {
            ++ready;
        } else if (result == 0) {
            ++over;
            wrong += now_ns() - start < ns;
        } else {
            ++interrupted;
            wrong += errno != EINTR;
        }
    }

    // One call of a kind and a time-out of up to 8 ms. Results lie on the caller's stack.
    void call(unsigned kind)
    {
        const long long ns = 1 + random.below(8000000), start = now_ns();
        const timespec time = as_timespec(ns);
        const sigset_t none = no_signals();
        const sigset_t *mask = random.below(2) == 0 ? &none : nullptr;
        const int one = pipes[random.below(16)].a, two = pipes[random.below(16)].a;
        if (kind == 0) {
            note(nanosleep(&time, nullptr), start, ns);
        } else if (kind == 1) {
            note(usleep(1 + ns / 1000), start, ns);
        } else if (kind == 2) {
            fd_set read;
            FD_ZERO(&read);
            FD_SET(one, &read);
            FD_SET(two, &read);
            const int n = pselect(FD_SETSIZE, &read, nullptr, nullptr, &time, mask);
            wrong += n >= 0 && FD_ISSET(one, &read) + (one != two && FD_ISSET(two, &read)) != n;
            note(n, start, ns);
            take(one);
        } else if (kind == 3) {
            pollfd p[] = {{one, POLLIN, 0}, {two, POLLIN, 0}};
            const int n = ppoll(p, 2, &time, mask);
            wrong += n >= 0 && (p[0].revents != 0) + (p[1].revents != 0) != n;
            note(n, start, ns);
            take(two);
        } else {
            epoll_event events[4];
            note(epoll_pwait(epoll, events, 4, 1 + ns / 1000000, mask), start, ns);
            take(one);
        }
    }

    void take(int fd)
    {
        char byte;
        while (raw_read(fd, &byte, 1) == 1) {
        }
    }
};

} // namespace

MENDED(WaitingStrain, keeps_every_call_true_and_leaves_nothing_behind)
{
    Chosen all("all");
    HandlerFor usr1(SIGUSR1);
    BlockedSignal blocked(SIGUSR2);
    HandlerFor usr2(SIGUSR2);
    on_thread([] {
        Strain strain;
        stShareStack_t *stacks = co_alloc_sharestack(2, 64 * 1024);
        const stCoRoutineAttr_t copy = attr(0, stacks);
        const auto body = [&strain] {
            co_enable_hook_sys();
            while (!strain.stop) {
                strain.call(strain.random.below(5));
            }
        };
        std::vector<std::unique_ptr<Co>> cos;
        for (int i = 0; i < 100; ++i) {
            cos.push_back(std::make_unique<Co>(body, i % 2 == 0 ? &copy : nullptr));
            cos.back()->resume();
        }
        {
            Nuisance one(SIGUSR1, 7), other(SIGUSR2, 11);
            const long long end = now_ms() + 2000;
            ASSERT_TRUE(loop_until([&] {
                for (unsigned i = strain.random.below(4); i-- > 0;) {
                    raw_write(strain.pipes[strain.random.below(16)].b, "x", 1);
                }
                std::unique_ptr<Co> &co = cos[strain.random.below(cos.size())];
                switch (strain.random.below(8)) {
                case 0:
                    co->resume();
                    break;
                case 1:
                    co->reset();
                    co->resume();
                    break;
                case 2:
                    co = std::make_unique<Co>(body, strain.random.below(2) == 0 ? &copy : nullptr);
                    co->resume();
                    break;
                }
                return now_ms() >= end;
            }));
        }
        strain.stop = true;
        ASSERT_TRUE(loop_until([&] {
            for (const auto &co : cos) {
                if (!co->ended()) {
                    return false;
                }
            }
            return true;
        }));
        EXPECT_EQ(0, strain.wrong);
        EXPECT_GT(strain.ready, 100);
        EXPECT_GT(strain.over, 100);
        EXPECT_GT(strain.interrupted, 100);
        const int descriptors = open_descriptors();
        for (int i = 0; i < 200; ++i) {
            strain.stop = false;
            Co co([&] {
                co_enable_hook_sys();
                strain.call(i % 5);
            });
            co.resume();
        }
        EXPECT_EQ(descriptors, open_descriptors());
    });
}
