// A network of a test's own, whose packets nft drops or answers with a reset; connections in it whose bytes are known; and a
// coroutine beside them that ticks each millisecond, which shows that no call stops the thread.
#ifndef COLIB_CPP_TESTS_NETWORK_H
#define COLIB_CPP_TESTS_NETWORK_H

#include "added_support.h"

#include <net/if.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>

namespace support {

// Why there is no network for the test; passed through the exit status of the child that asked.
enum Hindrance { kNoNamespace = 77, kNoNft = 78 };

inline bool put_file(const std::string &path, const std::string &text)
{
    Fd file(static_cast<int>(syscall(SYS_openat, AT_FDCWD, path.c_str(), O_WRONLY | O_CLOEXEC, 0)));
    return file >= 0 && raw_write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// A program, with its standard output in `output`; the others run meanwhile. Its exit status, or -1.
inline int run_program(std::vector<std::string> words, std::string *output = nullptr)
{
    std::vector<char *> arguments;
    for (std::string &word : words) {
        arguments.push_back(word.data());
    }
    arguments.push_back(nullptr);
    Fd out(static_cast<int>(syscall(SYS_memfd_create, "colib-test", MFD_CLOEXEC)));
    int status = -1;
    std::atomic<bool> done{false};
    // On a thread of its own: who starts a program is stopped until the new one is loaded.
    std::thread starter([&] {
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, out, 1);
        pid_t pid = -1;
        int ended = 0;
        if (posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ) == 0 &&
            waitpid(pid, &ended, 0) == pid && WIFEXITED(ended)) {
            status = WEXITSTATUS(ended);
        }
        posix_spawn_file_actions_destroy(&actions);
        done = true;
    });
    while (!done) {
        nap(1);
    }
    starter.join();
    if (output != nullptr) {
        char bytes[4096];
        const ssize_t n = pread(out, bytes, sizeof bytes, 0);
        output->assign(bytes, n > 0 ? n : 0);
    }
    return status;
}

// What happens to packets that come in, in nft's words, in the place of what was said before. The counter `hit` goes on.
inline void set_rules(const std::vector<std::string> &rules)
{
    std::string script = "flush chain inet faults input\n";
    for (const std::string &rule : rules) {
        script += "add rule inet faults input " + rule + "\n";
    }
    ASSERT_EQ(0, run_program({"nft", script})) << script;
}

// The same for all packets of connections to this port, both ways.
inline void set_rules_of(const HookedListener &listener, const std::string &what)
{
    const std::string port = std::to_string(ntohs(listener.addr.sin_port));
    set_rules({"tcp dport " + port + " " + what, "tcp sport " + port + " " + what});
}

// How many packets the rules have counted as `counter name hit`.
inline long packets_hit()
{
    std::string text;
    EXPECT_EQ(0, run_program({"nft", "list counter inet faults hit"}, &text));
    const size_t at = text.find("packets ");
    return at == std::string::npos ? -1 : atol(text.c_str() + at + 8);
}

// Moves this process to a network of its own; 0, or what hinders it.
inline int enter_network()
{
    const uid_t uid = geteuid();
    if (unshare(CLONE_NEWNET | (uid != 0 ? CLONE_NEWUSER : 0)) != 0) {
        return kNoNamespace;
    }
    // A program keeps its powers over the network only as that user namespace's root.
    if (uid != 0 && !put_file("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1")) {
        return kNoNamespace;
    }
    Fd control(raw_socket(AF_INET, SOCK_DGRAM));
    ifreq request = {};
    strcpy(request.ifr_name, "lo");
    request.ifr_mtu = 1500; // of a real network's size
    if (ioctl(control, SIOCSIFMTU, &request) != 0) {
        return kNoNamespace;
    }
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(control, SIOCSIFFLAGS, &request) != 0) {
        return kNoNamespace;
    }
    const char *path = getenv("PATH");
    setenv("PATH", (std::string(path != nullptr ? path : "/usr/bin:/bin") + ":/usr/sbin:/sbin").c_str(), 1);
    const char *table = "table inet faults {\n"
                        "  counter hit { }\n"
                        "  chain input { type filter hook input priority 0; policy accept; }\n"
                        "}\n";
    int status = -1;
    // On a thread of its own: waiting makes an environment, which this one need not have.
    on_thread([&] { status = run_program({"nft", table}); });
    return status == 0 ? 0 : kNoNft;
}

// Ticks each millisecond until it is stopped; the longest time between two ticks is the longest that a call stopped the thread.
// The time in which others had the processor is no call's fault: a busy machine has a lot of it.
class Tick {
public:
    Tick()
        : co_([this] {
              Fd times(static_cast<int>(syscall(SYS_openat, AT_FDCWD, "/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC, 0)));
              nap(1); // the thread's loop is made, for which the kernel may wait to enlarge the table of descriptors
              Gap last = look(times);
              while (!stopped_) {
                  nap(1);
                  const Gap now = look(times);
                  const Gap gap = {now.all - last.all, now.queued - last.queued, now.ran - last.ran};
                  largest_ = gap.all - gap.queued > largest_.all - largest_.queued ? gap : largest_;
                  last = look(times);
                  ++ticks_;
              }
          })
    {
        co_.resume();
    }
    void stop(const char *what)
    {
        stopped_ = true;
        EXPECT_TRUE(loop_until([this] { return co_.ended(); }));
        const double gap = static_cast<double>(largest_.all - largest_.queued) / 1e6;
        printf("%s: largest gap %.2f ms (of these %.2f ms running; others had %.2f ms more) in %d ticks\n", what, gap,
               static_cast<double>(largest_.ran) / 1e6, static_cast<double>(largest_.queued) / 1e6, ticks_);
        EXPECT_LT(gap, 200) << "something stopped the thread";
        EXPECT_GT(ticks_, 5);
    }

private:
    // Nanoseconds in all, ready to run but without a processor, and running.
    struct Gap {
        long long all, queued, ran;
    };

    static Gap look(int times)
    {
        char text[128] = {};
        Gap at = {now_ns(), 0, 0};
        if (syscall(SYS_pread64, times, text, sizeof text - 1, 0) > 0) {
            sscanf(text, "%lld %lld", &at.ran, &at.queued);
        }
        return at;
    }

    Gap largest_ = {};
    int ticks_ = 0;
    bool stopped_ = false;
    Co co_;
};

// How often SIGPIPE came.
inline std::atomic<int> pipe_signals{0};

// Runs `body` as a coroutine with all hooks on, on a thread of this process in a network of its own. The process's exit status.
inline int in_network(const std::function<void(Group &)> &body, int limit_s)
{
    return in_child(
        [&] {
            const int hindered = enter_network();
            if (hindered != 0) {
                return hindered;
            }
            signal(SIGPIPE, [](int) { ++pipe_signals; });
            Chosen chosen("all");
            on_thread([&] {
                Tick tick;
                Group group;
                group.go_hooked([&] { body(group); });
                EXPECT_TRUE(group.run(limit_s * 1000)) << "it did not end in " << limit_s << " s";
                tick.stop(testing::UnitTest::GetInstance()->current_test_info()->name());
            });
            return testing::Test::HasFailure() ? 1 : 0;
        },
        static_cast<unsigned>(limit_s + 20));
}

// That, and skips the test where a network of its own is not to be had.
#define EXPECT_IN_NETWORK(limit_s, ...)                                                           \
    do {                                                                                          \
        const int result = in_network(__VA_ARGS__, limit_s);                                      \
        if (result == kNoNamespace) {                                                             \
            GTEST_SKIP() << "needs a network of its own (unshare), which this system forbids";    \
        }                                                                                         \
        if (result == kNoNft) {                                                                   \
            GTEST_SKIP() << "needs nft, which is not installed or may not set rules here";        \
        }                                                                                         \
        EXPECT_EQ(0, result);                                                                     \
    } while (false)

// The byte at this place of this stream: other than its neighbours' and other streams', however they are mixed up.
inline char byte_of(unsigned stream, size_t offset)
{
    const uint64_t mixed = (offset + 1) * 0x9e3779b97f4a7c15u ^ (stream + 1) * 0xc2b2ae3d27d4eb4fu;
    return static_cast<char>((mixed * 0xff51afd7ed558ccdu) >> 56);
}

inline std::string bytes_of(unsigned stream, size_t offset, size_t size)
{
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) {
        bytes[i] = byte_of(stream, offset + i);
    }
    return bytes;
}

// What one end writes: from where the last call stopped.
struct Outgoing {
    int fd;
    unsigned stream;
    size_t done = 0;
    int error = 0;

    // One call; without `send`, by write().
    ssize_t put(size_t size, bool by_send = true)
    {
        const std::string bytes = bytes_of(stream, done, size);
        errno = 0;
        const ssize_t n = by_send ? send(fd, bytes.data(), size, MSG_NOSIGNAL) : write(fd, bytes.data(), size);
        error = n < 0 ? errno : 0;
        if (n > 0) {
            EXPECT_LE(static_cast<size_t>(n), size);
            done += n;
        }
        return n;
    }
    // Up to this place, or an error.
    bool put_up_to(size_t end, size_t piece)
    {
        while (done < end && put(std::min(piece, end - done)) > 0) {
        }
        return done == end;
    }
};

// What one end reads: each byte must be the one of its place.
struct Incoming {
    int fd;
    unsigned stream;
    size_t done = 0;
    int error = 0;
    bool exact = true;

    ssize_t take(size_t size = 16384)
    {
        std::string bytes(size, '\0');
        errno = 0;
        const ssize_t n = read(fd, bytes.data(), size);
        error = n < 0 ? errno : 0;
        if (n > 0) {
            bytes.resize(n);
            exact = exact && bytes == bytes_of(stream, done, n);
            done += n;
        }
        return n;
    }
    // Up to this place, an end or an error.
    bool take_up_to(size_t end)
    {
        while (done < end && take(std::min<size_t>(16384, end - done)) > 0) {
        }
        return done == end && exact;
    }
};

// A connection of which both ends are hooked; call with hooks on, and one at a time for each listener.
struct Link {
    int client = -1, server = -1;

    Link(HookedListener &listener, int timeout_ms) : client(socket(AF_INET, SOCK_STREAM, 0))
    {
        if (connect(client, listener.generic(), sizeof listener.addr) != 0 ||
            (server = accept(listener.fd, nullptr, nullptr)) < 0) {
            ADD_FAILURE() << "cannot connect: " << strerror(errno);
            std::abort();
        }
        set_timeouts(timeout_ms, timeout_ms);
    }
    Link(const Link &) = delete;
    Link &operator=(const Link &) = delete;
    ~Link()
    {
        close_end(client);
        close_end(server);
    }
    void set_timeouts(int read_ms, int write_ms) const
    {
        EXPECT_EQ(0, co_set_timeout(client, read_ms, write_ms));
        EXPECT_EQ(0, co_set_timeout(server, read_ms, write_ms));
    }
    static void close_end(int &fd)
    {
        if (fd >= 0) {
            EXPECT_EQ(0, close(std::exchange(fd, -1)));
        }
    }
};

// Connections to a port of their own that ask and answer throughout, which no fault of others may hold up.
class Bystanders {
public:
    Bystanders(Group &group, int count)
    {
        for (int i = 0; i < count; ++i) {
            links_.push_back(std::make_unique<Link>(listener_, 10000));
            const unsigned stream = 1000 + 2 * i;
            group.go_hooked([this, fd = links_[i]->server, stream] { answer(fd, stream); });
            group.go_hooked([this, fd = links_[i]->client, stream] { ask(fd, stream); });
        }
    }
    ~Bystanders()
    {
        stopped_ = true;
        while (running_ > 0) {
            nap(1);
        }
    }
    // Rounds of all so far.
    long rounds() const { return rounds_; }
    // Waits for some more rounds, which take a moment.
    void expect_to_go_on() const
    {
        const long before = rounds_;
        const long long start = now_ms();
        while (rounds_ < before + 20 && now_ms() - start < 5000) {
            nap(1);
        }
        EXPECT_GE(rounds_, before + 20) << "others stopped";
    }

private:
    void ask(int fd, unsigned stream)
    {
        ++running_;
        Outgoing out{fd, stream};
        Incoming in{fd, stream + 1};
        while (!stopped_) {
            EXPECT_TRUE(out.put_up_to(out.done + 700, 700));
            EXPECT_TRUE(in.take_up_to(in.done + 700));
            ++rounds_;
            nap(1);
        }
        shutdown(fd, SHUT_WR);
        --running_;
    }
    void answer(int fd, unsigned stream)
    {
        ++running_;
        Incoming in{fd, stream};
        Outgoing out{fd, stream + 1};
        while (in.take_up_to(in.done + 700)) {
            EXPECT_TRUE(out.put_up_to(out.done + 700, 700));
        }
        EXPECT_EQ(0, in.error);
        EXPECT_EQ(0u, in.done % 700);
        --running_;
    }

    HookedListener listener_;
    std::vector<std::unique_ptr<Link>> links_;
    long rounds_ = 0;
    int running_ = 0;
    bool stopped_ = false;
};

} // namespace support

#endif
