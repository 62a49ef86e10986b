// Programs that run coroutines under a loop of their own, without co_eventloop and without hooks.
#include "support.h"

#include <algorithm>
#include <map>
#include <memory>

#include <sys/epoll.h>
#include <sys/time.h>

using namespace support;

namespace {

// A reactor as other libraries have one: descriptors with a coroutine to resume.
class Reactor {
public:
    void wait_readable(int fd)
    {
        waiting_[fd] = co_self();
        co_yield_ct();
    }

    // One round; false when nobody waits or nothing came for a second.
    bool turn()
    {
        std::vector<struct pollfd> fds;
        for (const auto &entry : waiting_) {
            fds.push_back({entry.first, POLLIN, 0});
        }
        if (fds.empty() || poll(fds.data(), fds.size(), 1000) <= 0) {
            return false;
        }
        for (const struct pollfd &p : fds) {
            const auto found = waiting_.find(p.fd);
            if (p.revents != 0 && found != waiting_.end()) {
                stCoRoutine_t *co = found->second;
                waiting_.erase(found);
                co_resume(co);
            }
        }
        return true;
    }

private:
    std::map<int, stCoRoutine_t *> waiting_;
};

} // namespace

TEST(OtherLoop, CoroutinesServeConnectionsUnderAPollLoop)
{
    on_thread([] {
        constexpr int pairs = 10;
        constexpr int messages = 20;
        Reactor reactor;
        std::vector<std::unique_ptr<Co>> all;
        std::vector<int> fds;
        int echoed = 0;
        for (int i = 0; i < pairs; ++i) {
            int s[2];
            ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
            fds.insert(fds.end(), s, s + 2);
            const int server = s[0];
            const int client = s[1];
            all.push_back(std::make_unique<Co>([&reactor, server] {
                for (;;) {
                    reactor.wait_readable(server);
                    char c;
                    if (::read(server, &c, 1) != 1) {
                        return;
                    }
                    ++c;
                    EXPECT_EQ(::write(server, &c, 1), 1);
                }
            }));
            all.back()->resume();
            all.push_back(std::make_unique<Co>([&reactor, &echoed, client] {
                for (int m = 0; m < messages; ++m) {
                    char c = static_cast<char>('a' + m);
                    EXPECT_EQ(::write(client, &c, 1), 1);
                    reactor.wait_readable(client);
                    char answer = 0;
                    EXPECT_EQ(::read(client, &answer, 1), 1);
                    echoed += answer == c + 1;
                }
                shutdown(client, SHUT_RDWR);
            }));
            all.back()->resume();
        }
        while (reactor.turn()) {
        }
        EXPECT_EQ(echoed, pairs * messages);
        for (auto &co : all) {
            EXPECT_TRUE(co->ended());
        }
        for (int fd : fds) {
            close(fd);
        }
    });
}

TEST(OtherLoop, CoroutinesRunUnderAnEpollLoopOfTheProgram)
{
    on_thread([] {
        const int epfd = epoll_create1(EPOLL_CLOEXEC);
        std::vector<std::unique_ptr<Pipe>> pipes;
        std::vector<std::unique_ptr<Co>> all;
        int received = 0;
        for (int i = 0; i < 20; ++i) {
            pipes.push_back(std::make_unique<Pipe>());
            const int fd = pipes.back()->rd;
            all.push_back(std::make_unique<Co>([fd, &received] {
                for (int n = 0; n < 10; ++n) {
                    co_yield_ct();
                    char c;
                    received += ::read(fd, &c, 1) == 1;
                }
            }));
            all.back()->resume();
            struct epoll_event ev = {};
            ev.events = EPOLLIN;
            ev.data.ptr = all.back()->get();
            ASSERT_EQ(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev), 0);
        }
        for (int n = 0; n < 10; ++n) {
            for (auto &p : pipes) {
                p->put();
            }
            int handled = 0;
            while (handled < 20) {
                struct epoll_event events[8];
                const int count = epoll_wait(epfd, events, 8, 1000);
                ASSERT_GT(count, 0);
                for (int i = 0; i < count; ++i) {
                    co_resume(static_cast<stCoRoutine_t *>(events[i].data.ptr));
                }
                handled += count;
            }
        }
        EXPECT_EQ(received, 200);
        close(epfd);
    });
}

TEST(OtherLoop, BlockingCallsStayPlainWithoutHooks)
{
    // In a coroutine without hooks a read blocks the thread, as it did before coroutines came.
    on_thread([] {
        Pipe pipe_;
        std::string trace;
        Co co([&] {
            char c;
            if (::read(pipe_.rd, &c, 1) == 1) {
                trace += c;
            }
        });
        std::thread writer([&] {
            usleep(20 * 1000);
            pipe_.put('w');
        });
        co.resume();
        trace += "after";
        writer.join();
        EXPECT_EQ(trace, "wafter");
    });
}

TEST(OtherLoop, PlainPollInACoroutineWithoutHooksSleeps)
{
    on_thread([] {
        long long took = 0;
        Co co([&] {
            const long long begin = now_ms();
            EXPECT_EQ(poll(nullptr, 0, 20), 0);
            took = now_ms() - begin;
        });
        co.resume();
        EXPECT_TRUE(co.ended());
        EXPECT_GE(took, 19);
    });
}

TEST(OtherLoop, ACoroutineMayYieldFromWithinACallbackOfALibrary)
{
    on_thread([] {
        static int compared;
        compared = 0;
        std::vector<int> numbers = {5, 3, 9, 1, 7, 2, 8};
        Co co([&] {
            qsort(numbers.data(), numbers.size(), sizeof(int), [](const void *a, const void *b) {
                ++compared;
                co_yield_ct();
                return *static_cast<const int *>(a) - *static_cast<const int *>(b);
            });
        });
        int resumes = 0;
        while (!co.ended()) {
            co.resume();
            ++resumes;
        }
        EXPECT_TRUE(std::is_sorted(numbers.begin(), numbers.end()));
        EXPECT_EQ(resumes, compared + 1);
    });
}

TEST(OtherLoop, GeneratorsWorkWithNoLoopAtAll)
{
    on_thread([] {
        int next = 0;
        Co fibonacci([&] {
            int a = 0;
            int b = 1;
            for (;;) {
                next = a;
                co_yield_ct();
                a = std::exchange(b, a + b);
            }
        });
        std::vector<int> got;
        for (int i = 0; i < 10; ++i) {
            fibonacci.resume();
            got.push_back(next);
        }
        EXPECT_EQ(got, (std::vector<int>{0, 1, 1, 2, 3, 5, 8, 13, 21, 34}));
    });
}

TEST(OtherLoop, TheLibraryTakesAtMostOneDescriptorOfTheThread)
{
    on_thread([] {
        const int before = open_descriptors();
        Co co([] { co_yield_ct(); });
        co.resume();
        co.resume();
        EXPECT_LE(open_descriptors(), before + 1);
    });
}

TEST(OtherLoop, SignalsInterruptTheProgramsOwnPollAsEver)
{
    on_thread([] {
        int result = 0;
        int error = 0;
        struct sigaction action = {};
        struct sigaction old;
        action.sa_handler = [](int) {};
        sigaction(SIGUSR2, &action, &old);
        Co co([&] {
            const pthread_t me = pthread_self();
            Pipe pipe_;
            std::thread sender([&, me] {
                // Until it is seen: the first ones may come before the poll.
                struct pollfd p = {pipe_.rd, POLLIN, 0};
                do {
                    pthread_kill(me, SIGUSR2);
                } while (poll(&p, 1, 5) == 0);
            });
            result = poll(nullptr, 0, 5000);
            error = errno;
            pipe_.put();
            sender.join();
        });
        co.resume();
        sigaction(SIGUSR2, &old, nullptr);
        EXPECT_EQ(result, -1);
        EXPECT_EQ(error, EINTR);
    });
}
