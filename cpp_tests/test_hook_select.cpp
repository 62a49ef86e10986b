// select and pselect: cooperative if asked for, and as the manual says for the caller.
#include "added_hooks.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>

extern "C" int __select(int count, fd_set *read, fd_set *write, fd_set *except, struct timeval *timeout);

using namespace support;

namespace {

// Sets of any number of descriptors: what a program with more than FD_SETSIZE of them makes itself.
class Bits {
public:
    explicit Bits(size_t count = FD_SETSIZE) : words_((count + 63) / 64) {}
    void add(int fd) { words_[fd / 64] |= 1UL << (fd % 64); }
    bool has(int fd) const { return (words_[fd / 64] >> (fd % 64) & 1) != 0; }
    fd_set *set() { return reinterpret_cast<fd_set *>(words_.data()); }
    bool operator==(const Bits &other) const { return words_ == other.words_; }
    bool empty() const { return *this == Bits(words_.size() * 64); }

private:
    std::vector<unsigned long> words_;
};

inline Bits of_one(int fd)
{
    Bits bits;
    bits.add(fd);
    return bits;
}

struct Outcome {
    int result, error;
    Bits read, write, except;
    bool operator==(const Outcome &o) const
    {
        return result == o.result && error == o.error && read == o.read && write == o.write && except == o.except;
    }
};

inline Outcome of_select(int count, Bits read, Bits write, Bits except, timeval time)
{
    errno = 1234;
    const int result = select(count, read.set(), write.set(), except.set(), &time);
    return {result, errno, read, write, except};
}

// Descriptors in every state there is, the same for as long as it lives.
struct Zoo {
    Pair quiet = plain_pair(), full = plain_pair(), hung_up = plain_pair(), readable = plain_pair();
    Pair pipe = plain_pipe(), no_reader = plain_pipe(), no_writer = plain_pipe();
    Listener listener;
    Fd urgent{raw_socket(AF_INET, SOCK_STREAM)}, sends_urgent, refused{raw_socket(AF_INET, SOCK_STREAM)};
    Fd file{open("/proc/self/exe", O_RDONLY)}, null{open("/dev/null", O_RDWR)}, event{eventfd(3, 0)};
    std::vector<int> all;

    Zoo()
    {
        raw_nonblock(full.a);
        static char junk[65536];
        while (raw_write(full.a, junk, sizeof junk) > 0) {
        }
        hung_up.b.reset();
        raw_write(readable.b, "x", 1);
        no_reader.a.reset();
        no_writer.b.reset();
        syscall(SYS_connect, urgent.get(), listener.generic(), sizeof listener.addr);
        sends_urgent = listener.take();
        syscall(SYS_sendto, sends_urgent.get(), "!", 1, MSG_OOB, nullptr, 0);
        pollfd p = {urgent, POLLPRI, 0};
        raw_poll(&p, 1, 5000);
        sockaddr_in nobody = listener.addr;
        nobody.sin_port = htons(1);
        syscall(SYS_connect, refused.get(), &nobody, sizeof nobody);
        all = {quiet.a, full.a, hung_up.a, readable.a, pipe.a, pipe.b, no_reader.b, no_writer.a, listener.fd,
               urgent, sends_urgent, refused, file, null, event};
    }
};

} // namespace

MENDED(Select, of_descriptors_where_nothing_happens_waits_in_forty_coroutines_at_once)
{
    Chosen all("all");
    Pair pipe = plain_pipe();
    expect_forty_wait_at_once([&] {
        Bits read = of_one(pipe.a);
        timeval time = {0, 100000};
        EXPECT_EQ(0, select(pipe.a + 1, read.set(), nullptr, nullptr, &time));
        EXPECT_TRUE(read.empty());
        EXPECT_EQ(0, time.tv_sec);
        EXPECT_EQ(0, time.tv_usec);
    });
    expect_forty_wait_at_once([] {
        timeval time = {0, 100000};
        EXPECT_EQ(0, __select(0, nullptr, nullptr, nullptr, &time));
    });
    expect_forty_wait_at_once([&] {
        Bits except = of_one(pipe.a);
        const timespec time = {0, 100000000};
        EXPECT_EQ(0, pselect(pipe.a + 1, nullptr, nullptr, except.set(), &time, nullptr));
        EXPECT_TRUE(except.empty());
    });
}

MENDED(Select, returns_what_became_ready_and_what_is_left_of_the_time)
{
    Chosen all("all");
    on_thread([] {
        Pair pipe = plain_pipe(), other = plain_pipe();
        Group group;
        bool done = false;
        group.go_hooked([&] {
            Bits read = of_one(pipe.a);
            read.add(other.a);
            timeval time = {100, 0};
            EXPECT_EQ(1, select(FD_SETSIZE, read.set(), nullptr, nullptr, &time));
            EXPECT_TRUE(read == of_one(pipe.a));
            EXPECT_EQ(99, time.tv_sec);
            done = true;
        });
        EXPECT_FALSE(done);
        raw_write(pipe.b, "x", 1);
        ASSERT_TRUE(group.run());
    });
}

MENDED(Select, without_time_out_waits_for_ever)
{
    Chosen all("all");
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        group.go_hooked([&] {
            Bits read = of_one(pipe.a);
            EXPECT_EQ(1, select(pipe.a + 1, read.set(), nullptr, nullptr, nullptr));
        });
        loop_rounds(50);
        EXPECT_FALSE(group.all_ended());
        raw_write(pipe.b, "x", 1);
        ASSERT_TRUE(group.run());
    });
}

MENDED(Select, with_something_ready_lets_others_run_first)
{
    Chosen all("all");
    on_thread([] {
        Zoo zoo;
        Co co([&] {
            co_enable_hook_sys();
            Bits read = of_one(zoo.readable.a);
            EXPECT_EQ(1, select(FD_SETSIZE, read.set(), nullptr, nullptr, nullptr));
        });
        co.resume();
        EXPECT_FALSE(co.ended());
        EXPECT_TRUE(loop_until([&] { return co.ended(); }));
    });
}

MENDED(Select, of_any_descriptors_answers_as_the_plain_call)
{
    Chosen all("all");
    Zoo zoo;
    in_hooked_coroutine(
        [&] {
            Random random(7);
            int ready = 0, quiet = 0;
            for (int round = 0; round < 400; ++round) {
                Bits sets[3];
                int count = 0;
                for (unsigned i = random.below(4); i-- > 0;) {
                    const int fd = zoo.all[random.below(zoo.all.size())];
                    sets[random.below(3)].add(fd);
                    count = std::max(count, fd + 1);
                }
                if (random.below(20) == 0) {
                    sets[random.below(3)].add(900); // not open
                    count = random.below(2) == 0 ? 901 : count;
                }
                count = random.below(10) == 0 ? static_cast<int>(random.below(40)) : count;
                const timeval time = {0, static_cast<suseconds_t>(random.below(2000))};
                const Outcome hooked = of_select(count, sets[0], sets[1], sets[2], time);
                co_disable_hook_sys();
                const Outcome plain = of_select(count, sets[0], sets[1], sets[2], time);
                co_enable_hook_sys();
                ASSERT_EQ(plain.result, hooked.result) << "round " << round;
                ASSERT_EQ(plain.error, hooked.error) << "round " << round;
                ASSERT_TRUE(plain == hooked) << "round " << round;
                ready += hooked.result > 0;
                quiet += hooked.result == 0;
            }
            EXPECT_GT(ready, 50);
            EXPECT_GT(quiet, 50);
        },
        60000);
}

MENDED(Select, sees_urgent_data_as_an_exceptional_condition)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        Zoo zoo;
        Bits except = of_one(zoo.urgent);
        except.add(zoo.quiet.a);
        EXPECT_EQ(1, select(FD_SETSIZE, nullptr, nullptr, except.set(), nullptr));
        EXPECT_TRUE(except == of_one(zoo.urgent));
    });
}

MENDED(Select, counts_a_descriptor_once_for_each_set_it_is_ready_in)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        Zoo zoo;
        Bits read = of_one(zoo.readable.a), write = read, except = read;
        EXPECT_EQ(2, select(FD_SETSIZE, read.set(), write.set(), except.set(), nullptr));
        EXPECT_TRUE(except.empty());
    });
}

MENDED(Select, with_bad_arguments_fails_as_the_plain_call)
{
    Chosen all("all");
    Zoo zoo;
    in_hooked_coroutine([&] {
        const Bits none;
        const Bits closed = of_one(900), one = of_one(zoo.readable.a);
        struct {
            int count;
            const Bits &read;
            timeval time;
        } cases[] = {{-1, one, {1, 0}},      {INT_MIN, one, {1, 0}},       {901, closed, {1, 0}},
                     {64, one, {-1, 0}},     {64, one, {0, -1}}, {64, one, {5, -2000000}},           {64, one, {LONG_MIN, LONG_MIN}},
                     {-1, none, {-1, 5}},    {64, one, {LONG_MAX, 999999}}, {64, one, {0, 2000000}},
                     {64, one, {LONG_MAX, 1999999}}};
        for (const auto &c : cases) {
            const Outcome hooked = of_select(c.count, c.read, none, none, c.time);
            co_disable_hook_sys();
            const Outcome plain = of_select(c.count, c.read, none, none, c.time);
            co_enable_hook_sys();
            EXPECT_TRUE(plain == hooked) << c.count << ": " << hooked.result << " errno " << hooked.error;
        }
        timeval time = {1, 0};
        EXPECT_EQ(-1, select(64, reinterpret_cast<fd_set *>(8), nullptr, nullptr, &time));
        EXPECT_EQ(EFAULT, errno);
        Bits read = one;
        EXPECT_EQ(1, pselect(64, read.set(), nullptr, nullptr, nullptr, nullptr));
        for (timespec bad : {timespec{0, -1}, timespec{0, 1000000000}, timespec{-1, 0}}) {
            EXPECT_EQ(-1, pselect(64, read.set(), nullptr, nullptr, &bad, nullptr));
            EXPECT_EQ(EINVAL, errno);
        }
    });
}

MENDED(Select, with_an_absurd_number_reads_no_further_than_the_kernel)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        // The sets end where memory ends.
        const size_t page = getpagesize();
        char *at = static_cast<char *>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        ASSERT_NE(MAP_FAILED, static_cast<void *>(at));
        ASSERT_EQ(0, mprotect(at + page, page, PROT_NONE));
        fd_set *read = reinterpret_cast<fd_set *>(at + page - sizeof(fd_set));
        Pair pipe = plain_pipe();
        raw_write(pipe.b, "x", 1);
        for (int count : {FD_SETSIZE, FD_SETSIZE + 1, 20000, 1 << 20, INT_MAX}) {
            FD_ZERO(read);
            FD_SET(pipe.a, read);
            EXPECT_EQ(1, select(count, read, nullptr, nullptr, nullptr)) << count;
            EXPECT_TRUE(FD_ISSET(pipe.a, read));
        }
        munmap(at, 2 * page);
    });
}

MENDED(Select, takes_more_descriptors_than_FD_SETSIZE)
{
    rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 4096);
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < 4096) {
        GTEST_SKIP() << "needs 4096 descriptors";
    }
    Chosen all("all");
    on_thread([] {
        Pair pipe = plain_pipe();
        const int far = fcntl(pipe.a, F_DUPFD, 4000);
        ASSERT_EQ(4000, far);
        Group group;
        group.go_hooked([&] {
            Bits read(4096), write(4096);
            read.add(far);
            write.add(pipe.b);
            EXPECT_EQ(1, select(far + 1, read.set(), write.set(), nullptr, nullptr));
            EXPECT_TRUE(read.empty());
            EXPECT_TRUE(write.has(pipe.b));
            read.add(far);
            EXPECT_EQ(1, select(far + 1, read.set(), nullptr, nullptr, nullptr));
            EXPECT_TRUE(read.has(far));
        });
        loop_rounds(3);
        EXPECT_FALSE(group.all_ended());
        raw_write(pipe.b, "x", 1);
        ASSERT_TRUE(group.run());
        raw_close(far);
    });
}

MENDED(Select, for_less_than_a_hung_up_descriptor_reports_waits_without_spinning)
{
    Chosen all("all");
    in_hooked_coroutine([] {
        Zoo zoo;
        Bits write = of_one(zoo.no_writer.a), except = of_one(zoo.hung_up.a);
        timeval time = {0, 300000};
        expect_idle_during([&] { EXPECT_EQ(0, select(FD_SETSIZE, nullptr, write.set(), except.set(), &time)); });
    });
}

MENDED(Select, of_a_descriptor_closed_meanwhile_says_EBADF)
{
    Chosen all("all");
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        group.go_hooked([&] {
            const Bits asked = of_one(pipe.a);
            Bits read = asked;
            EXPECT_EQ(-1, select(FD_SETSIZE, read.set(), nullptr, nullptr, nullptr));
            EXPECT_EQ(EBADF, errno);
            EXPECT_TRUE(read == asked) << "sets are left alone after an error";
        });
        loop_rounds(2);
        close(pipe.a.forget());
        ASSERT_TRUE(group.run());
    });
}

MENDED(Select, whose_byte_another_took_waits_on)
{
    Chosen all("all");
    on_thread([] {
        Pair pipe = plain_pipe();
        Group group;
        std::string order;
        for (char name : {'a', 'b', 'c'}) {
            group.go_hooked([&, name] {
                Bits read = of_one(pipe.a);
                EXPECT_EQ(1, select(FD_SETSIZE, read.set(), nullptr, nullptr, nullptr));
                char byte;
                EXPECT_EQ(1, raw_read(pipe.a, &byte, 1));
                order += name;
            });
        }
        for (size_t i = 1; i <= 3; ++i) {
            raw_write(pipe.b, "x", 1);
            ASSERT_TRUE(loop_until([&] { return order.size() == i; }));
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ("abc", order);
    });
}

MENDED(Select, on_copy_stacks_writes_its_sets_where_the_caller_wants_them)
{
    Chosen all("all");
    on_thread([] {
        stShareStack_t *stacks = co_alloc_sharestack(1, 64 * 1024);
        const stCoRoutineAttr_t at = attr(0, stacks);
        Pair pipes[10];
        Group group;
        int right = 0;
        for (Pair &pipe : pipes) {
            pipe = plain_pipe();
            group.go_hooked(
                [&right, &pipe] {
                    fd_set read;
                    FD_ZERO(&read);
                    FD_SET(pipe.a, &read);
                    timeval time = {50, 0};
                    const int n = select(FD_SETSIZE, &read, nullptr, nullptr, &time);
                    right += n == 1 && FD_ISSET(pipe.a, &read) && time.tv_sec == 49;
                },
                &at);
        }
        for (Pair &pipe : pipes) {
            raw_write(pipe.b, "x", 1);
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(10, right);
    });
}

MENDED(Select, of_a_coroutine_that_is_released_leaves_nothing_behind)
{
    Chosen all("all");
    on_thread([] {
        Zoo zoo;
        const auto body = [&] {
            co_enable_hook_sys();
            Bits read = of_one(zoo.quiet.a), write = of_one(zoo.full.a);
            const timespec time = {100, 0};
            const sigset_t none = no_signals();
            pselect(FD_SETSIZE, read.set(), write.set(), nullptr, &time, &none);
        };
        for (int i = 0; i < 20; ++i) {
            Co released(body), reset(body);
            released.resume();
            reset.resume();
            loop_rounds(2);
            reset.reset();
        }
        loop_rounds(2);
    });
}

MENDED(Select, blocks_as_before_unless_it_is_asked_for)
{
    for (const char *words : {"default", "libco", "all,-select,-pselect"}) {
        Chosen chosen(words);
        expect_blocks([] {
            timeval time = {0, 2000};
            select(0, nullptr, nullptr, nullptr, &time);
        });
        expect_blocks([] {
            const timespec time = {0, 2000000};
            pselect(0, nullptr, nullptr, nullptr, &time, nullptr);
        });
    }
}
