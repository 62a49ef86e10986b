// What the hooks add to the calls they stand for.
//
// read-ready  a hooked read of a socket that has more to give than the buffer takes, as has the last one
// read-short  a hooked read that gets less than it asked for, as did the last one: it waits first
// hooks-off   any hook in a coroutine whose hooks are off, on average of six; behind it is nothing.c
//
// The limit is the same call without a hook. BENCH_LINKAGE and BENCH_VARIANT as in switch.cpp.
#include <co_routine.h>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <array>

#include "round.h"

namespace {

using ReadFunction = ssize_t (*)(int, void *, size_t);

void require(bool holds, const char *what) {
    if (holds) return;
    std::perror(what);
    std::exit(1);
}

// Of the C library itself, past every hook and past nothing.c.
template <class Function>
Function from(const char *library, const char *name) {
    void *handle = dlopen(library, RTLD_NOW);
    require(handle != nullptr, library);
    return reinterpret_cast<Function>(dlsym(handle, name));
}

double processor_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// ---- in a coroutine, served by the loop --------------------------------------------------------

struct Job {
    std::function<void()> work;
    bool done = false;
};

void *run_job(void *job) {
    static_cast<Job *>(job)->work();
    static_cast<Job *>(job)->done = true;
    return nullptr;
}

int stop_when_done(void *job) { return static_cast<Job *>(job)->done ? -1 : 0; }

void in_coroutine(std::function<void()> work) {
    Job job{std::move(work)};
    stCoRoutine_t *co = nullptr;
    co_create(&co, nullptr, run_job, &job);
    co_resume(co);
    if (!job.done) co_eventloop(co_get_epoll_ct(), stop_when_done, &job);
    co_release(co);
}

// ---- reads -------------------------------------------------------------------------------------

// A TCP connection over loopback. The reader was made with the hooks on, the writer past them.
struct Connection {
    int reader, writer;
};

Connection connection() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    const int listener = static_cast<int>(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
    require(bind(listener, reinterpret_cast<sockaddr *>(&address), size) == 0, "bind");
    require(listen(listener, 1) == 0, "listen");
    require(getsockname(listener, reinterpret_cast<sockaddr *>(&address), &size) == 0, "getsockname");
    Connection made{};
    made.reader = socket(AF_INET, SOCK_STREAM, 0);
    require(connect(made.reader, reinterpret_cast<sockaddr *>(&address), size) == 0, "connect");
    made.writer = static_cast<int>(syscall(SYS_accept4, listener, nullptr, nullptr, 0));
    require(made.writer >= 0, "accept");
    syscall(SYS_close, listener);
    return made;
}

void send_bytes(int fd, size_t count) {
    static std::array<char, 16384> bytes;
    require(syscall(SYS_write, fd, bytes.data(), count) == static_cast<long>(count), "write");
}

void read_ready(benchmark::State &state, ReadFunction read_it) {
    constexpr int reads = 256;
    in_coroutine([&] {
        co_enable_hook_sys();
        const Connection pair = connection();
        std::array<char, 64> buffer{};
        while (state.KeepRunningBatch(reads)) {
            send_bytes(pair.writer, reads * buffer.size());
            const double start = processor_seconds();
            for (int i = 0; i < reads; i++)
                require(read_it(pair.reader, buffer.data(), buffer.size()) == ssize_t{buffer.size()}, "read");
            state.SetIterationTime(processor_seconds() - start);
        }
        close(pair.reader);
        syscall(SYS_close, pair.writer);
    });
}

void read_short(benchmark::State &state, ReadFunction read_it) {
    static std::array<Connection, 256> pairs;
    in_coroutine([&] {
        co_enable_hook_sys();
        for (Connection &pair : pairs) pair = connection();
        std::array<char, 4096> buffer{};
        while (state.KeepRunningBatch(pairs.size())) {
            for (const Connection &pair : pairs) send_bytes(pair.writer, 64);
            const double start = processor_seconds();
            for (const Connection &pair : pairs)
                require(read_it(pair.reader, buffer.data(), buffer.size()) == 64, "read");
            state.SetIterationTime(processor_seconds() - start);
        }
        for (const Connection &pair : pairs) {
            close(pair.reader);
            syscall(SYS_close, pair.writer);
        }
    });
}

// ---- hooks that are off ------------------------------------------------------------------------

struct Calls {
    ReadFunction read;
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*recv)(int, void *, size_t, int);
    ssize_t (*send)(int, const void *, size_t, int);
    int (*setsockopt)(int, int, int, const void *, socklen_t);
    int (*poll)(pollfd *, nfds_t, int);
};

void hooks_off(benchmark::State &state, const Calls &given) {
    constexpr int rounds = 256;
    constexpr int calls = 6;
    in_coroutine([&] {
        const Calls call = given;
        std::array<char, 16> bytes{};
        while (state.KeepRunningBatch(rounds * calls)) {
            const double start = processor_seconds();
            for (int i = 0; i < rounds; i++) {
                call.read(-1, bytes.data(), 1);
                call.write(-1, bytes.data(), 1);
                call.recv(-1, bytes.data(), 1, 0);
                call.send(-1, bytes.data(), 1, 0);
                call.setsockopt(-1, SOL_SOCKET, SO_RCVTIMEO, bytes.data(), bytes.size());
                call.poll(nullptr, 0, 0);
            }
            state.SetIterationTime(processor_seconds() - start);
        }
    });
}

}  // namespace

int main(int argc, char **argv) {
    const std::string linkage = BENCH_LINKAGE;
    const auto libc_read = from<ReadFunction>("libc.so.6", "read");
    const Calls hooked = {read, write, recv, send, setsockopt, poll};
    const auto nothing = [](auto function, const char *name) { return from<decltype(function)>("libnothing.so", name); };
    const Calls plain = {nothing(hooked.read, "read"),       nothing(hooked.write, "write"),
                         nothing(hooked.recv, "recv"),       nothing(hooked.send, "send"),
                         nothing(hooked.setsockopt, "setsockopt"), nothing(hooked.poll, "poll")};
    const auto reads = [](auto work, ReadFunction read_it) {
        return [work, read_it](benchmark::State &state) { work(state, read_it); };
    };
    const auto off = [](const Calls &calls) { return [calls](benchmark::State &state) { hooks_off(state, calls); }; };
    std::vector<bench::Case> cases;
    for (const bool limit : {false, true}) {
        const std::string variant = limit ? "limit" : BENCH_VARIANT;
        if (limit && std::string(BENCH_VARIANT) != "ours") continue;
        const ReadFunction read_it = limit ? libc_read : hooked.read;
        cases.push_back({"read-ready-" + linkage, variant, reads(read_ready, read_it)});
        cases.push_back({"read-short-" + linkage, variant, reads(read_short, read_it)});
        cases.push_back({"hooks-off-" + linkage, variant, off(limit ? plain : hooked)});
    }
    return bench::run_round(argc, argv, cases, true);
}
