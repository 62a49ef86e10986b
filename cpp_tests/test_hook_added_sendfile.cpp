// sendfile and sendfile64, if asked for.
#ifndef COLIB_PEER

#include "added_support.h"

using namespace support;

namespace {

const char *const all_of_these = "sendfile,socketpair,pipe,accept";
const size_t megabyte = 1 << 20;

// What a sendfile may go to: a socket that is non-blocking underneath, one that is not, and a pipe.
struct Ways {
    HookedPair hooked = hooked_unix_pair();
    std::shared_ptr<Two> pair = made_socketpair(), ends = made_pipe();
    struct Way {
        int to, from;
    };
    std::vector<Way> all() const
    {
        return {{hooked.fd, hooked.peer}, {pair->a, pair->b}, {ends->b, ends->a}};
    }
};

} // namespace

TEST(AddedSendfile, goes_on_until_all_is_sent_and_moves_the_offset)
{
    with_hooks(all_of_these, [] {
        const std::string bytes = pattern_of(megabyte + 5000);
        Fd file = file_of(bytes);
        Ways ways;
        for (const auto &way : ways.all()) {
            Taker taker(way.from, 20);
            off_t offset = 5000;
            EXPECT_EQ(static_cast<ssize_t>(megabyte), sendfile(way.to, file, &offset, megabyte));
            EXPECT_EQ(static_cast<off_t>(megabyte + 5000), offset);
            EXPECT_EQ(0, lseek(file, 0, SEEK_CUR)) << "the file's position stays";
            syscall(SYS_shutdown, way.to, SHUT_WR);
            Fd null(open("/dev/null", O_WRONLY | O_CLOEXEC));
            dup2(null, way.to);
            EXPECT_TRUE(taker.bytes() == bytes.substr(5000));
        }
    });
}

TEST(AddedSendfile, without_an_offset_moves_the_files_position)
{
    with_hooks(all_of_these, [] {
        const std::string bytes = pattern_of(megabyte);
        Fd file = file_of(bytes);
        Ways ways;
        for (const auto &way : ways.all()) {
            Taker taker(way.from, 20);
            lseek(file, 100, SEEK_SET);
            EXPECT_EQ(static_cast<ssize_t>(megabyte - 100), sendfile64(way.to, file, nullptr, size_t{1} << 40));
            EXPECT_EQ(static_cast<off_t>(megabyte), lseek(file, 0, SEEK_CUR));
            EXPECT_EQ(0, sendfile(way.to, file, nullptr, 10)) << "the end of the file";
            syscall(SYS_shutdown, way.to, SHUT_WR);
            Fd null(open("/dev/null", O_WRONLY | O_CLOEXEC));
            dup2(null, way.to);
            EXPECT_TRUE(taker.bytes() == bytes.substr(100));
        }
    });
}

TEST(AddedSendfile, returns_what_was_sent_after_a_stall)
{
    with_hooks(all_of_these, [] {
        Fd file = file_of(pattern_of(megabyte));
        Ways ways;
        for (const auto &way : ways.all()) {
            EXPECT_EQ(0, co_set_timeout(way.to, 60, 60));
            off_t offset = 0;
            const ssize_t put = sendfile(way.to, file, &offset, megabyte);
            EXPECT_GT(put, 0);
            EXPECT_LT(put, static_cast<ssize_t>(megabyte));
            EXPECT_EQ(put, offset);
            TIMES_OUT(60, sendfile(way.to, file, &offset, megabyte));
            EXPECT_EQ(put, offset);
        }
    });
}

TEST(AddedSendfile, to_a_descriptor_that_the_program_made_non_blocking_does_not_wait)
{
    with_hooks(all_of_these, [] {
        Fd file = file_of(pattern_of(100));
        Ways ways;
        for (const auto &way : ways.all()) {
            fill(way.to);
            EXPECT_EQ(0, fcntl(way.to, F_SETFL, O_NONBLOCK));
            FAILS(EAGAIN, sendfile(way.to, file, nullptr, 100));
        }
    });
}

TEST(AddedSendfile, of_bad_arguments_fails_as_the_manual_says)
{
    with_hooks(all_of_these, [] {
        signal(SIGPIPE, SIG_IGN);
        Fd file = file_of("bytes");
        Ways ways;
        auto other = made_socketpair();
        Fd only_written(open("/dev/null", O_WRONLY | O_CLOEXEC));
        for (const auto &way : ways.all()) {
            off_t offset = 0, negative = -5;
            FAILS(EBADF, sendfile(way.to, -1, nullptr, 5));
            FAILS(EBADF, sendfile(way.to, 999, &offset, 5));
            FAILS(EBADF, sendfile(way.to, only_written, nullptr, 5));
            FAILS(EFAULT, sendfile(way.to, file, nowhere<off_t>(), 5));
            FAILS(EINVAL, sendfile(way.to, file, &negative, 5));
            FAILS(EINVAL, sendfile(way.to, file, nullptr, SIZE_MAX));
            EXPECT_EQ(0, sendfile(way.to, file, &offset, 0));
        }
        FAILS(EINVAL, sendfile(ways.pair->a, other->a, nullptr, 5));
        FAILS(EINVAL, sendfile(ways.hooked.fd, other->a, nullptr, 5));
        FAILS(EBADF, sendfile(-1, file, nullptr, 5));
        FAILS(EBADF, sendfile(ways.ends->a, file, nullptr, 5));
        close(std::exchange(ways.pair->b, -1));
        close(std::exchange(ways.ends->a, -1));
        FAILS(EPIPE, sendfile(ways.pair->a, file, nullptr, 5));
        FAILS(EPIPE, sendfile(ways.ends->b, file, nullptr, 5));
    });
}

TEST(AddedSendfile, to_what_the_hooks_do_not_know_is_plain)
{
    with_hooks(all_of_these, [] {
        Fd from = file_of("bytes"), to = file_of("");
        EXPECT_EQ(5, sendfile(to, from, nullptr, 5));
        Pair pair = plain_pair();
        raw_nonblock(pair.a);
        fill(pair.a);
        lseek(from, 0, SEEK_SET);
        FAILS(EAGAIN, sendfile(pair.a, from, nullptr, 5));
    });
}

#endif
