// readv and writev, if asked for.
#ifndef COLIB_PEER

#include "added_support.h"

using namespace support;

namespace {

iovec part_of(void *bytes, size_t size) { return {bytes, size}; }

// `bytes` in `count` parts of different sizes, some of them empty.
std::vector<iovec> parts_of(std::string &bytes, size_t count)
{
    std::vector<iovec> parts;
    size_t at = 0;
    for (size_t i = 0; i < count; ++i) {
        const size_t left = bytes.size() - at;
        const size_t size = i + 1 == count ? left : i % 5 == 3 ? 0 : std::min(left, bytes.size() / count + i % 7);
        parts.push_back(part_of(&bytes[at], size));
        at += size;
    }
    return parts;
}

// All of a megabyte arrives in order, though each try takes a part.
void writes_all(int to, int from, size_t parts_count)
{
    Taker taker(from, 20);
    std::string bytes = pattern_of(1 << 20);
    const std::vector<iovec> parts = parts_of(bytes, parts_count);
    EXPECT_EQ(static_cast<ssize_t>(bytes.size()), writev(to, parts.data(), static_cast<int>(parts.size())));
    syscall(SYS_shutdown, to, SHUT_WR);
    close(to);
    EXPECT_TRUE(taker.bytes() == bytes);
}

const char *const all_of_these = "readv,writev,socketpair,pipe,eventfd";

} // namespace

TEST(AddedReadv, fills_the_parts_in_turn)
{
    with_hooks(all_of_these, [] {
        auto two = made_socketpair();
        raw_write(two->b, "abcdef", 6);
        char a[2], b[1], c[8];
        const iovec parts[] = {part_of(a, 2), part_of(nullptr, 0), part_of(b, 1), part_of(c, 8)};
        EXPECT_EQ(6, readv(two->a, parts, 4));
        EXPECT_EQ("ab", std::string(a, 2));
        EXPECT_EQ('c', b[0]);
        EXPECT_EQ("def", std::string(c, 3));
    });
}

TEST(AddedReadv, of_the_end_returns_0)
{
    with_hooks(all_of_these, [] {
        auto sockets = made_socketpair(), ends = made_pipe();
        char byte;
        const iovec part = part_of(&byte, 1);
        close(std::exchange(sockets->b, -1));
        close(std::exchange(ends->b, -1));
        EXPECT_EQ(0, readv(sockets->a, &part, 1));
        EXPECT_EQ(0, readv(ends->a, &part, 1));
    });
}

TEST(AddedReadv, waits_as_long_as_the_time_out_says)
{
    with_hooks(all_of_these, [] {
        HookedPair hooked = hooked_unix_pair();
        auto sockets = made_socketpair(), ends = made_pipe();
        char byte;
        const iovec part = part_of(&byte, 1);
        set_timeout_option(hooked.fd, SO_RCVTIMEO, 60);
        set_timeout_option(sockets->a, SO_RCVTIMEO, 60);
        EXPECT_EQ(0, co_set_timeout(ends->a, 60, 60));
        TIMES_OUT(60, readv(hooked.fd, &part, 1));
        TIMES_OUT(60, readv(sockets->a, &part, 1));
        TIMES_OUT(60, readv(ends->a, &part, 1));
    });
}

TEST(AddedReadv, of_nothing_returns_0_at_once)
{
    with_hooks(all_of_these, [] {
        auto stream = made_socketpair(), datagrams = made_socketpair(SOCK_DGRAM), ends = made_pipe();
        char byte;
        const iovec none[] = {part_of(&byte, 0), part_of(nullptr, 0)};
        for (int fd : {stream->a, datagrams->a, ends->a}) {
            EXPECT_EQ(0, readv(fd, none, 2));
            EXPECT_EQ(0, readv(fd, none, 0));
        }
        raw_write(datagrams->b, "one", 3);
        EXPECT_EQ(0, readv(datagrams->a, none, 2));
        char buf[8];
        EXPECT_EQ(3, read(datagrams->a, buf, sizeof buf)) << "the datagram was lost";
    });
}

TEST(AddedReadv, of_bytes_that_are_there_lets_others_run_every_64)
{
    with_hooks(all_of_these, [] {
        auto two = made_pipe();
        const std::string bytes(300, 'x');
        raw_write(two->b, bytes.data(), bytes.size());
        int got = 0, seen = -1;
        Co other([&] {
            nap(1);
            seen = got;
        });
        other.resume();
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        char byte;
        const iovec part = part_of(&byte, 1);
        for (; got < 300; ++got) {
            ASSERT_EQ(1, readv(two->a, &part, 1));
        }
        EXPECT_GE(seen, 0);
        EXPECT_LE(seen, 130);
    });
}

TEST(AddedReadv, of_two_coroutines_on_one_pipe_serves_both)
{
    with_hooks(all_of_these, [] {
        auto two = made_pipe();
        int served = 0;
        Group group;
        for (int i = 0; i < 2; ++i) {
            group.go_hooked([&] {
                char byte;
                const iovec part = part_of(&byte, 1);
                EXPECT_EQ(1, readv(two->a, &part, 1));
                ++served;
            });
        }
        for (int i = 0; i < 2; ++i) {
            raw_write(two->b, "x", 1);
            nap(30);
            EXPECT_EQ(i + 1, served) << "both woke for one byte: the other stopped the thread, or is lost";
        }
    });
}

TEST(AddedReadv, of_bad_arguments_fails_as_the_manual_says)
{
    with_hooks(all_of_these, [] {
        HookedPair hooked = hooked_unix_pair();
        auto sockets = made_socketpair(), ends = made_pipe();
        char byte;
        const iovec part = part_of(&byte, 1), bad = part_of(nowhere(), 1);
        const iovec absurd = part_of(&byte, SIZE_MAX), half = part_of(&byte, SIZE_MAX / 2);
        const iovec huge[] = {half, half};
        std::vector<iovec> many(IOV_MAX + 1, part_of(&byte, 0));
        FAILS(EBADF, readv(-1, &part, 1));
        FAILS(EBADF, readv(999, &part, 1));
        FAILS(EBADF, readv(ends->b, &part, 1));
        for (int fd : {hooked.fd.get(), sockets->a, ends->a}) {
            FAILS(EINVAL, readv(fd, &part, hidden(-1)));
            FAILS(EINVAL, readv(fd, many.data(), IOV_MAX + 1));
            FAILS(EFAULT, readv(fd, nowhere<iovec>(), 1));
            FAILS(EFAULT, readv(fd, hidden<iovec *>(nullptr), 1));
            FAILS(EINVAL, readv(fd, &absurd, 1));
            FAILS(EFAULT, readv(fd, huge, 2));
        }
        for (int to : {hooked.peer.get(), sockets->b, ends->b}) {
            raw_write(to, "x", 1);
        }
        for (int fd : {hooked.fd.get(), sockets->a, ends->a}) {
            FAILS(EFAULT, readv(fd, &bad, 1));
        }
        const int counter = eventfd(1, 0);
        FAILS(EINVAL, readv(counter, &part, 1));
        close(counter);
    });
}

TEST(AddedReadv, of_a_reset_connection_reports_it)
{
    with_hooks(all_of_these, [] {
        HookedPair pair = hooked_tcp_pair();
        const linger now = {1, 0};
        raw_setsockopt(pair.peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        pair.peer.reset();
        char byte;
        const iovec part = part_of(&byte, 1);
        FAILS(ECONNRESET, readv(pair.fd, &part, 1));
    });
}

TEST(AddedWritev, goes_on_until_all_is_written_to_a_hooked_socket)
{
    with_hooks(all_of_these, [] {
        HookedPair pair = hooked_unix_pair();
        writes_all(pair.fd.forget(), pair.peer, 3);
    });
}

TEST(AddedWritev, goes_on_until_all_of_many_parts_is_written)
{
    with_hooks(all_of_these, [] {
        auto two = made_socketpair();
        writes_all(std::exchange(two->a, -1), two->b, IOV_MAX);
    });
}

TEST(AddedWritev, goes_on_until_all_is_written_to_a_pipe)
{
    with_hooks(all_of_these, [] {
        auto two = made_pipe();
        writes_all(std::exchange(two->b, -1), two->a, 40);
    });
}

TEST(AddedWritev, returns_what_was_written_after_a_stall)
{
    with_hooks(all_of_these, [] {
        auto sockets = made_socketpair(), ends = made_pipe();
        std::string bytes = pattern_of(1 << 20);
        const std::vector<iovec> parts = parts_of(bytes, 5);
        for (int fd : {sockets->a, ends->b}) {
            EXPECT_EQ(0, co_set_timeout(fd, 60, 60));
            const long long start = now_ms();
            const ssize_t put = writev(fd, parts.data(), 5);
            EXPECT_GT(put, 0);
            EXPECT_LT(put, 1 << 20);
            EXPECT_GE(now_ms() - start, 59);
            TIMES_OUT(60, writev(fd, parts.data(), 5));
        }
    });
}

TEST(AddedWritev, of_nothing_sends_nothing)
{
    with_hooks(all_of_these, [] {
        auto datagrams = made_socketpair(SOCK_DGRAM);
        char byte;
        const iovec none = part_of(&byte, 0);
        EXPECT_EQ(0, writev(datagrams->a, &none, 1));
        EXPECT_EQ(0, writev(datagrams->a, &none, 0));
        char buf[8];
        EXPECT_EQ(-1, recv(datagrams->b, buf, sizeof buf, MSG_DONTWAIT)) << "an empty datagram was sent";
    });
}

TEST(AddedWritev, to_a_pipe_in_small_pieces_is_atomic)
{
    with_hooks(all_of_these, [] {
        auto two = made_pipe();
        fill(two->b);
        // Room for less than the whole: none of it may be written.
        char buf[4096];
        ASSERT_EQ(4096, raw_read(two->a, buf, sizeof buf));
        const std::string page(100, 'a');
        raw_write(two->b, page.data(), page.size());
        EXPECT_EQ(0, co_set_timeout(two->b, 30, 30));
        std::string bytes(PIPE_BUF, 'b');
        const std::vector<iovec> parts = parts_of(bytes, 3);
        TIMES_OUT(30, writev(two->b, parts.data(), 3));
    });
}

TEST(AddedWritev, to_who_left_reports_epipe)
{
    with_hooks(all_of_these, [] {
        signal(SIGPIPE, SIG_IGN);
        auto sockets = made_socketpair(), ends = made_pipe();
        close(std::exchange(sockets->b, -1));
        close(std::exchange(ends->a, -1));
        char byte = 'x';
        const iovec part = part_of(&byte, 1);
        FAILS(EPIPE, writev(sockets->a, &part, 1));
        FAILS(EPIPE, writev(ends->b, &part, 1));
    });
}

TEST(AddedWritev, to_who_left_raises_sigpipe)
{
    EXPECT_EQ(128 + SIGPIPE, in_child([] {
                  Chosen chosen(all_of_these);
                  signal(SIGPIPE, SIG_DFL);
                  in_hooked_coroutine([] {
                      auto ends = made_pipe();
                      close(std::exchange(ends->a, -1));
                      char byte = 'x';
                      const iovec part = part_of(&byte, 1);
                      writev(ends->b, &part, 1);
                  });
                  return 0;
              }));
}

TEST(AddedWritev, of_bad_arguments_fails_as_the_manual_says)
{
    with_hooks(all_of_these, [] {
        HookedPair hooked = hooked_unix_pair();
        auto sockets = made_socketpair(), ends = made_pipe();
        char byte = 'x';
        const iovec part = part_of(&byte, 1), bad = part_of(nowhere(), 1);
        const iovec absurd = part_of(&byte, SIZE_MAX), half = part_of(&byte, SIZE_MAX / 2);
        const iovec huge[] = {half, half};
        std::vector<iovec> many(IOV_MAX + 1, part_of(&byte, 0));
        FAILS(EBADF, writev(-1, &part, 1));
        FAILS(EBADF, writev(999, &part, 1));
        FAILS(EBADF, writev(ends->a, &part, 1));
        for (int fd : {hooked.fd.get(), sockets->a, ends->b}) {
            FAILS(EINVAL, writev(fd, &part, hidden(-1)));
            FAILS(EINVAL, writev(fd, many.data(), IOV_MAX + 1));
            FAILS(EFAULT, writev(fd, nowhere<iovec>(), 1));
            FAILS(EFAULT, writev(fd, hidden<iovec *>(nullptr), 2));
            FAILS(EINVAL, writev(fd, &absurd, 1));
            FAILS(EFAULT, writev(fd, huge, 2));
            FAILS(EFAULT, writev(fd, &bad, 1));
        }
        const int counter = eventfd(1, 0);
        FAILS(EINVAL, writev(counter, &part, 1));
        FAILS(EFAULT, writev(counter, nowhere<iovec>(), 1));
        close(counter);
    });
}

TEST(AddedVectors, on_copy_stacks_keep_their_parts_while_others_use_the_stack)
{
    bounded([] {
        Chosen chosen(all_of_these);
        on_thread([] {
            stShareStack_t *share = co_alloc_sharestack(1, 128 * 1024);
            const stCoRoutineAttr_t at = attr(0, share);
            const int count = 20;
            Two pairs[count];
            int right = 0;
            Group group;
            for (int i = 0; i < count; ++i) {
                group.go_hooked(
                    [&, i] {
                        ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i].both()));
                        char head[3] = {}, tail[5] = {};
                        iovec in[] = {part_of(head, 3), part_of(tail, 5)};
                        ASSERT_EQ(8, readv(pairs[i].a, in, 2));
                        right += memcmp(head, "8 b", 3) == 0 && memcmp(tail, "ytes", 4) == 0 && tail[4] == 'a' + i;
                        char out[600];
                        memset(out, 'a' + i, sizeof out);
                        std::vector<iovec> parts(1000, part_of(out, sizeof out));
                        EXPECT_EQ(600000, writev(pairs[i].a, parts.data(), 1000));
                    },
                    &at);
            }
            for (int i = 0; i < count; ++i) {
                group.go([&, i] {
                    nap(5);
                    char bytes[] = "8 bytes";
                    bytes[7] = static_cast<char>('a' + i);
                    raw_write(pairs[i].b, bytes, 8);
                    for (size_t got = 0; got < 600000; got += drain(pairs[i].b)) {
                        nap(1);
                    }
                });
            }
            EXPECT_TRUE(group.run());
            EXPECT_EQ(count, right);
        });
    });
}

TEST(AddedVectors, on_the_main_coroutine_look_blocking)
{
    bounded([] {
        Chosen chosen(all_of_these);
        on_thread([] {
            co_init_curr_thread_env();
            co_enable_hook_sys();
            auto sockets = made_socketpair(), ends = made_pipe();
            char bytes[8];
            const iovec part = part_of(bytes, sizeof bytes);
            for (int fd : {sockets->a, ends->a}) {
                EXPECT_EQ(0, co_set_timeout(fd, 50, 50));
                TIMES_OUT(50, readv(fd, &part, 1));
            }
            raw_write(sockets->b, "1234", 4);
            std::thread rest([&] {
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
                raw_write(sockets->b, "5678", 4);
            });
            EXPECT_EQ(8, recv(sockets->a, bytes, sizeof bytes, MSG_WAITALL));
            rest.join();
            EXPECT_EQ(0, co_set_timeout(ends->a, -1, -1));
            writes_all(std::exchange(ends->b, -1), ends->a, 7);
            writes_all(std::exchange(sockets->a, -1), sockets->b, 7);
        });
    });
}

TEST(AddedVectors, of_descriptors_that_the_hooks_do_not_know_are_plain)
{
    with_hooks(all_of_these, [] {
        Pair pair = plain_pipe();
        raw_nonblock(pair.a);
        char byte = 'x';
        const iovec part = part_of(&byte, 1);
        FAILS(EAGAIN, readv(pair.a, &part, 1));
        EXPECT_EQ(1, writev(pair.b, &part, 1));
        EXPECT_EQ(1, readv(pair.a, &part, 1));
    });
}

#endif
