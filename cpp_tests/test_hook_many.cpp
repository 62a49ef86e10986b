// Ten thousand connections served by one process, each by a coroutine of its own.
#include "loop_support.h"

using namespace support;

namespace {

const int connections = 10000;

// The clients: plain calls in a child process. Every connection is open before the first byte is
// sent. Returns how many connections failed to echo, at most 100.
int clients(const Listener &listener)
{
    std::vector<int> fds;
    for (int i = 0; i < connections; ++i) {
        const int fd = raw_socket(AF_INET, SOCK_STREAM);
        if (fd < 0 || syscall(SYS_connect, fd, listener.generic(), sizeof listener.addr) != 0) {
            return 101;
        }
        fds.push_back(fd);
    }
    int wrong = 0;
    for (int round = 0; round < 2; ++round) {
        for (int i = 0; i < connections; ++i) {
            const int word = i * 3 + round;
            raw_write(fds[i], &word, sizeof word);
        }
        for (int i = 0; i < connections; ++i) {
            int word = -1;
            const ssize_t n = raw_read(fds[i], &word, sizeof word);
            wrong += n != sizeof word || word != i * 3 + round;
        }
    }
    return wrong > 100 ? 100 : wrong;
}

} // namespace

TEST(ManyConnections, all_echo)
{
    rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_max < connections + 200) {
        GTEST_SKIP() << "needs " << connections + 200 << " descriptors";
    }
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);

    Listener listener(4096);
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        alarm(100);
        _exit(clients(listener));
    }
    raw_nonblock(listener.fd);
    on_thread([&] {
        Group group;
        int open = 0, served = 0, echoed = 0;
        group.go([&] {
            co_enable_hook_sys();
            while (open < connections) {
                pollfd p = {listener.fd, POLLIN, 0};
                ASSERT_EQ(1, co_poll(co_get_epoll_ct(), &p, 1, 30000));
                int fd;
                while ((fd = co_accept(listener.fd, nullptr, nullptr)) >= 0) {
                    ++open;
                    group.go_hooked([&, fd] {
                        set_timeout_option(fd, SO_RCVTIMEO, 90000);
                        char buf[64];
                        ssize_t n;
                        while ((n = read(fd, buf, sizeof buf)) > 0) {
                            echoed += write(fd, buf, n) == n;
                        }
                        served += n == 0;
                        close(fd);
                    });
                }
                ASSERT_EQ(EAGAIN, errno);
            }
        });
        EXPECT_TRUE(loop_until([&] { return open == connections && group.all_ended(); }, 100000));
        EXPECT_EQ(connections, served);
        EXPECT_EQ(2 * connections, echoed);
    });
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(0, WEXITSTATUS(status));
}
