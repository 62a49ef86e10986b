// epoll_wait, epoll_pwait and epoll_pwait2: cooperative if asked for, and as the manual says for the caller.
#include "added_hooks.h"

#include <map>

#include <sys/epoll.h>
#include <sys/eventfd.h>

using namespace support;

namespace {

struct Watched {
    Pair pair = plain_pair();
    Fd epoll{epoll_create1(0)};

    explicit Watched(uint32_t events = EPOLLIN) { control(EPOLL_CTL_ADD, events); }
    void control(int op, uint32_t events) const
    {
        epoll_event event = {};
        event.events = events;
        event.data.u64 = 0x123456789abcdefULL;
        if (epoll_ctl(epoll, op, pair.a, &event) != 0) {
            std::abort();
        }
    }
    void put() const { raw_write(pair.b, "x", 1); }
};

using Wait = std::function<int(int fd, epoll_event *events, int room, int ms)>;

// The three functions, in milliseconds.
const std::map<std::string, Wait> functions = {
    {"epoll_wait", [](int fd, epoll_event *events, int room, int ms) { return epoll_wait(fd, events, room, ms); }},
    {"epoll_pwait",
     [](int fd, epoll_event *events, int room, int ms) { return epoll_pwait(fd, events, room, ms, nullptr); }},
    {"epoll_pwait2", [](int fd, epoll_event *events, int room, int ms) {
         const timespec time = as_timespec(ms * 1000000LL);
         return epoll_pwait2(fd, events, room, ms < 0 ? nullptr : &time, nullptr);
     }}};

} // namespace

MENDED(EpollWait, where_nothing_happens_waits_in_forty_coroutines_at_once)
{
    Chosen all("all");
    Watched watched;
    for (const auto &function : functions) {
        expect_forty_wait_at_once([&] {
            epoll_event event;
            EXPECT_EQ(0, function.second(watched.epoll, &event, 1, 100)) << function.first;
        });
    }
}

MENDED(EpollWait, returns_the_events_that_came)
{
    Chosen all("all");
    for (const auto &function : functions) {
        on_thread([&] {
            Watched watched;
            Group group;
            group.go_hooked([&] {
                epoll_event events[4] = {};
                errno = 1234;
                EXPECT_EQ(1, function.second(watched.epoll, events, 4, -1)) << function.first;
                EXPECT_EQ(1234, errno);
                EXPECT_EQ(EPOLLIN + 0u, events[0].events);
                EXPECT_EQ(0x123456789abcdefULL, events[0].data.u64);
            });
            loop_rounds(20);
            EXPECT_FALSE(group.all_ended());
            watched.put();
            ASSERT_TRUE(group.run());
        });
    }
}

MENDED(EpollWait, with_something_ready_lets_others_run_first)
{
    Chosen all("all");
    on_thread([] {
        Watched watched;
        watched.put();
        Co co([&] {
            co_enable_hook_sys();
            epoll_event event;
            EXPECT_EQ(1, epoll_wait(watched.epoll, &event, 1, -1));
        });
        co.resume();
        EXPECT_FALSE(co.ended());
        EXPECT_TRUE(loop_until([&] { return co.ended(); }));
    });
}

MENDED(EpollWait, gives_edges_and_one_shots_once)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        for (uint32_t mode : {EPOLLET, EPOLLONESHOT}) {
            Watched watched(EPOLLIN | mode);
            epoll_event event;
            for (int i = 0; i < 3; ++i) {
                watched.put();
                EXPECT_EQ(1, epoll_wait(watched.epoll, &event, 1, 5000));
                EXPECT_EQ(0, epoll_wait(watched.epoll, &event, 1, 3)) << "twice";
                if (mode == EPOLLONESHOT) {
                    watched.control(EPOLL_CTL_MOD, EPOLLIN | mode);
                    EXPECT_EQ(1, epoll_wait(watched.epoll, &event, 1, 5000));
                    watched.control(EPOLL_CTL_MOD, EPOLLIN | mode);
                }
            }
        }
    });
}

MENDED(EpollWait, sees_descriptors_added_while_it_waits)
{
    Chosen all("all");
    on_thread([] {
        Fd epoll(epoll_create1(0)), event(eventfd(1, 0));
        Group group;
        group.go_hooked([&] {
            epoll_event got = {};
            EXPECT_EQ(1, epoll_wait(epoll, &got, 1, -1));
            EXPECT_EQ(5u, got.data.u32);
        });
        loop_rounds(2);
        epoll_event wish = {};
        wish.events = EPOLLIN;
        wish.data.u32 = 5;
        ASSERT_EQ(0, epoll_ctl(epoll, EPOLL_CTL_ADD, event, &wish));
        ASSERT_TRUE(group.run());
    });
}

MENDED(EpollWait, of_an_empty_set_waits)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        Fd epoll(epoll_create1(0));
        epoll_event event;
        const long long start = now_ns();
        EXPECT_EQ(0, epoll_wait(epoll, &event, 1, 20));
        EXPECT_GE(now_ns() - start, 20000000);
    });
}

MENDED(EpollWait, of_several_coroutines_on_one_set_gives_each_event_to_one)
{
    Chosen all("all");
    on_thread([] {
        const int count = 20;
        Fd epoll(epoll_create1(0));
        std::vector<Fd> events;
        std::vector<int> seen(count);
        Group group;
        for (int i = 0; i < count; ++i) {
            events.emplace_back(eventfd(0, 0));
            epoll_event wish = {};
            wish.events = EPOLLIN | EPOLLONESHOT;
            wish.data.u32 = i;
            ASSERT_EQ(0, epoll_ctl(epoll, EPOLL_CTL_ADD, events.back(), &wish));
            group.go_hooked([&] {
                epoll_event got = {};
                EXPECT_EQ(1, epoll_wait(epoll, &got, 1, -1));
                ++seen[got.data.u32];
            });
        }
        for (const Fd &event : events) {
            const uint64_t one = 1;
            raw_write(event, &one, sizeof one);
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(std::vector<int>(count, 1), seen);
    });
}

MENDED(EpollWait, of_sets_nested_too_deep_for_the_loop_still_waits)
{
    Chosen all("all");
    on_thread([] {
        Watched inner;
        std::vector<Fd> sets;
        int top = inner.epoll;
        for (int depth = 0; depth < 4; ++depth) {
            sets.emplace_back(epoll_create1(0));
            epoll_event wish = {};
            wish.events = EPOLLIN;
            if (epoll_ctl(sets.back(), EPOLL_CTL_ADD, top, &wish) != 0) {
                sets.pop_back();
                break;
            }
            top = sets.back();
        }
        ASSERT_GE(sets.size(), 3u);
        Group group;
        group.go_hooked([&] {
            epoll_event got;
            EXPECT_EQ(0, epoll_wait(top, &got, 1, 5));
            EXPECT_EQ(1, epoll_wait(top, &got, 1, -1));
        });
        loop_rounds(20);
        EXPECT_FALSE(group.all_ended());
        inner.put();
        ASSERT_TRUE(group.run());
    });
}

MENDED(EpollWait, with_bad_arguments_fails_as_the_plain_call)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        Watched watched;
        watched.put();
        Pair pipe = plain_pipe(), readable = plain_pipe();
        raw_write(readable.b, "x", 1);
        Fd file(open("/proc/self/exe", O_RDONLY));
        epoll_event event;
        struct {
            int fd;
            epoll_event *events;
            int room;
        } cases[] = {{-1, &event, 1},          {INT_MIN, &event, 1},      {900, &event, 1},
                     {INT_MAX, &event, 1},     {pipe.a, &event, 1},       {readable.a, &event, 1},
                     {file, &event, 1},        {watched.epoll, &event, 0}, {watched.epoll, &event, -1},
                     {watched.epoll, &event, INT_MAX}, {watched.epoll, nullptr, 1}};
        for (const auto &function : functions) {
            for (const auto &c : cases) {
                const int hooked = function.second(c.fd, c.events, c.room, 1000), hooked_error = errno;
                co_disable_hook_sys();
                const int plain = function.second(c.fd, c.events, c.room, 1000), plain_error = errno;
                co_enable_hook_sys();
                EXPECT_EQ(plain, hooked) << function.first << ' ' << c.fd << ' ' << c.room;
                EXPECT_EQ(-1, hooked);
                EXPECT_EQ(plain_error, hooked_error) << function.first << ' ' << c.fd << ' ' << c.room;
            }
        }
        for (timespec bad : {timespec{0, -1}, timespec{0, 1000000000}, timespec{-1, 0}}) {
            EXPECT_EQ(-1, epoll_pwait2(watched.epoll, &event, 1, &bad, nullptr));
            EXPECT_EQ(EINVAL, errno);
        }
    });
}

MENDED(EpollWait, of_a_set_closed_meanwhile_says_EBADF)
{
    Chosen all("all");
    on_thread([] {
        Watched watched;
        Group group;
        group.go_hooked([&] {
            epoll_event event;
            EXPECT_EQ(-1, epoll_wait(watched.epoll, &event, 1, -1));
            EXPECT_EQ(EBADF, errno);
        });
        loop_rounds(2);
        close(watched.epoll.forget());
        ASSERT_TRUE(group.run());
    });
}

MENDED(EpollWait, of_any_set_answers_as_the_plain_call)
{
    Chosen all("all");
    in_hooked_coroutine(
        [] {
            Random random(3);
            const uint32_t masks[] = {EPOLLIN, EPOLLOUT, EPOLLIN | EPOLLOUT, EPOLLPRI, EPOLLRDHUP, 0};
            for (int round = 0; round < 200; ++round) {
                Fd epoll(epoll_create1(0));
                std::vector<Pair> pairs;
                for (unsigned i = random.below(4); i-- > 0;) {
                    pairs.push_back(plain_pair());
                    if (random.below(3) == 0) {
                        raw_write(pairs.back().b, "x", 1);
                    }
                    if (random.below(4) == 0) {
                        pairs.back().b.reset();
                    }
                    epoll_event wish = {};
                    wish.events = masks[random.below(6)];
                    wish.data.u32 = i;
                    epoll_ctl(epoll, EPOLL_CTL_ADD, pairs.back().a, &wish);
                }
                // (Room for all: with less, the kernel reports them in turns.)
                epoll_event hooked[8] = {}, plain[8] = {};
                const int n = epoll_wait(epoll, hooked, 8, 2);
                co_disable_hook_sys();
                ASSERT_EQ(epoll_wait(epoll, plain, 8, 2), n);
                co_enable_hook_sys();
                std::map<uint32_t, uint32_t> hooked_events, plain_events;
                for (int i = 0; i < n; ++i) {
                    hooked_events[hooked[i].data.u32] = hooked[i].events;
                    plain_events[plain[i].data.u32] = plain[i].events;
                }
                ASSERT_EQ(plain_events, hooked_events) << "round " << round;
            }
        },
        60000);
}

MENDED(EpollWait, on_copy_stacks_writes_its_events_where_the_caller_wants_them)
{
    Chosen all("all");
    on_thread([] {
        stShareStack_t *stacks = co_alloc_sharestack(1, 64 * 1024);
        const stCoRoutineAttr_t at = attr(0, stacks);
        std::vector<Watched> watched(10);
        Group group;
        int right = 0;
        for (Watched &one : watched) {
            group.go_hooked(
                [&right, &one] {
                    epoll_event event = {};
                    const int n = epoll_wait(one.epoll, &event, 1, 50000);
                    right += n == 1 && event.events == EPOLLIN && event.data.u64 == 0x123456789abcdefULL;
                },
                &at);
        }
        for (Watched &one : watched) {
            one.put();
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(10, right);
    });
}

MENDED(EpollWait, of_a_coroutine_that_is_released_leaves_nothing_behind)
{
    Chosen all("all");
    on_thread([] {
        Watched watched;
        for (int i = 0; i < 20; ++i) {
            Co co([&] {
                co_enable_hook_sys();
                epoll_event event;
                epoll_wait(watched.epoll, &event, 1, -1);
            });
            co.resume();
            loop_rounds(2);
            EXPECT_FALSE(co.ended());
        }
        watched.put();
        loop_rounds(3);
    });
}

MENDED(EpollWait, blocks_as_before_unless_it_is_asked_for)
{
    for (const char *words : {"default", "libco", "all,-epoll_wait,-epoll_pwait,-epoll_pwait2"}) {
        Chosen chosen(words);
        Watched watched;
        for (const auto &function : functions) {
            expect_blocks([&] {
                epoll_event event;
                EXPECT_EQ(0, function.second(watched.epoll, &event, 1, 2));
            });
        }
    }
}
