// ppoll: cooperative if asked for, and as the manual says for the caller.
#include "added_hooks.h"

#include <sys/eventfd.h>

extern "C" int __ppoll_chk(struct pollfd *fds, nfds_t count, const struct timespec *time, const sigset_t *mask,
                           size_t room);

using namespace support;

namespace {

struct Outcome {
    int result, error;
    std::vector<short> revents;
    bool operator==(const Outcome &o) const
    {
        return result == o.result && error == o.error && revents == o.revents;
    }
};

inline Outcome of_ppoll(std::vector<pollfd> fds, nfds_t count, const timespec *time)
{
    errno = 1234;
    Outcome outcome = {ppoll(fds.data(), count, time, nullptr), 0, {}};
    outcome.error = errno;
    for (const pollfd &p : fds) {
        outcome.revents.push_back(p.revents);
    }
    return outcome;
}

} // namespace

MENDED(Ppoll, of_descriptors_where_nothing_happens_waits_in_forty_coroutines_at_once)
{
    Chosen all("all");
    Pair pipe = plain_pipe();
    const timespec time = {0, 100000000};
    expect_forty_wait_at_once([&] {
        pollfd p[] = {{pipe.a, POLLIN, 7}, {-1, POLLIN, 7}};
        EXPECT_EQ(0, ppoll(p, 2, &time, nullptr));
        EXPECT_EQ(0, p[0].revents);
        EXPECT_EQ(0, p[1].revents);
    });
    expect_forty_wait_at_once([&] {
        pollfd p = {pipe.a, POLLIN, 7};
        EXPECT_EQ(0, __ppoll_chk(&p, 1, &time, nullptr, sizeof p));
    });
}

MENDED(Ppoll, is_never_early_by_a_nanosecond)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        for (long ns : {1L, 999L, 300000L, 999999L, 1000000L, 1000001L}) {
            const timespec time = {0, ns};
            const long long start = now_ns();
            EXPECT_EQ(0, ppoll(nullptr, 0, &time, nullptr));
            EXPECT_GE(now_ns() - start, ns);
            EXPECT_EQ(ns, time.tv_nsec) << "the time is not written";
        }
    });
}

MENDED(Ppoll, returns_what_became_ready)
{
    Chosen all("all");
    on_thread([] {
        Pair one = plain_pair(), other = plain_pair();
        Group group;
        group.go_hooked([&] {
            pollfd p[] = {{one.a, POLLIN, 0}, {other.a, POLLIN | POLLRDHUP, 0}, {one.a, POLLPRI, 0}};
            EXPECT_EQ(1, ppoll(p, 3, nullptr, nullptr));
            EXPECT_EQ(0, p[0].revents);
            EXPECT_EQ(POLLIN | POLLRDHUP | POLLHUP, p[1].revents);
            EXPECT_EQ(0, p[2].revents);
        });
        loop_rounds(2);
        EXPECT_FALSE(group.all_ended());
        other.b.reset();
        ASSERT_TRUE(group.run());
    });
}

MENDED(Ppoll, of_any_descriptors_answers_as_the_plain_call)
{
    Chosen all("all");
    Pair quiet = plain_pair(), hung_up = plain_pair(), readable = plain_pair(), no_writer = plain_pipe();
    hung_up.b.reset();
    no_writer.b.reset();
    raw_write(readable.b, "x", 1);
    Fd file(open("/proc/self/exe", O_RDONLY)), event(eventfd(3, 0));
    const int fds[] = {quiet.a, hung_up.a, readable.a, no_writer.a, file, event, -1, 900, -5};
    const short asked[] = {0, POLLIN, POLLOUT, POLLPRI, POLLIN | POLLOUT, POLLRDHUP, POLLRDNORM | POLLWRNORM};
    in_hooked_coroutine(
        [&] {
            Random random(11);
            for (int round = 0; round < 400; ++round) {
                std::vector<pollfd> set(random.below(4));
                for (pollfd &p : set) {
                    p = {fds[random.below(9)], asked[random.below(7)], 99};
                }
                const timespec time = {0, static_cast<long>(random.below(2000000))};
                const Outcome hooked = of_ppoll(set, set.size(), &time);
                co_disable_hook_sys();
                const Outcome plain = of_ppoll(set, set.size(), &time);
                co_enable_hook_sys();
                ASSERT_TRUE(plain == hooked) << "round " << round << ": " << plain.result << ' ' << hooked.result;
            }
        },
        60000);
}

MENDED(Ppoll, with_bad_arguments_fails_as_the_plain_call)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        // (The compiler would see what is wrong.)
        int (*volatile call)(pollfd *, nfds_t, const timespec *, const sigset_t *) = ppoll;
        const timespec second = {1, 0};
        for (timespec bad : {timespec{0, -1}, timespec{0, 1000000000}, timespec{-1, 0}, timespec{LONG_MIN, 0}}) {
            EXPECT_EQ(-1, call(nullptr, 0, &bad, nullptr));
            EXPECT_EQ(EINVAL, errno);
        }
        EXPECT_EQ(-1, call(nullptr, 1, &second, nullptr));
        EXPECT_EQ(EFAULT, errno);
        EXPECT_EQ(-1, call(reinterpret_cast<pollfd *>(8), 3, &second, nullptr));
        EXPECT_EQ(EFAULT, errno);
        pollfd p = {0, 0, 0};
        EXPECT_EQ(-1, call(&p, 1UL << 40, &second, nullptr));
        EXPECT_EQ(EINVAL, errno);
        EXPECT_EQ(-1, call(&p, ULONG_MAX, &second, nullptr));
        EXPECT_EQ(EINVAL, errno);
        EXPECT_EQ(-1, call(&p, 1, &second, reinterpret_cast<sigset_t *>(8)));
        EXPECT_EQ(EFAULT, errno);
    });
}

MENDED(Ppoll, of_a_descriptor_closed_meanwhile_says_POLLNVAL)
{
    Chosen all("all");
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        group.go_hooked([&] {
            pollfd p = {pipe.a, POLLIN, 0};
            EXPECT_EQ(1, ppoll(&p, 1, nullptr, nullptr));
            EXPECT_EQ(POLLNVAL, p.revents);
        });
        loop_rounds(2);
        close(pipe.a.forget());
        ASSERT_TRUE(group.run());
    });
}

MENDED(Ppoll, fortified_ends_the_program_when_the_array_is_too_small)
{
    EXPECT_EQ(128 + SIGABRT, in_child(
                                 [] {
                                     dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
                                     pollfd p[2] = {{-1, 0, 0}, {-1, 0, 0}};
                                     const timespec now = {0, 0};
                                     __ppoll_chk(p, 2, &now, nullptr, sizeof p[0]);
                                     return 0;
                                 },
                                 10));
}

MENDED(Ppoll, blocks_as_before_unless_it_is_asked_for)
{
    const timespec time = {0, 2000000};
    for (const char *words : {"default", "libco", "all,-ppoll"}) {
        Chosen chosen(words);
        expect_blocks([&] { ppoll(nullptr, 0, &time, nullptr); });
    }
}
