// Operations on descriptors: every byte that is sent arrives once, in order, and nothing else does.
#include "soak.h"

#include <cerrno>
#include <cstddef>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace soak {

namespace {

// Calls of libco's own hooks, which may be interrupted by a signal.
template <typename Call>
ssize_t again(const Call &call)
{
    ssize_t result;
    do {
        result = call();
    } while (result < 0 && errno == EINTR);
    return result;
}

// A client that writes and reads at once, and a server that sends back what it gets.
class Echo : public Task {
public:
    using Task::Task;

    void start() override
    {
        total_ = random.one_in(8) ? random.between(1, 300000) : random.between(1, 20000);
        chunk_ = random.between(1, 6000);
        const int way = random.below(6);
        at = "connect";
        if (way <= 1) {
            listen(way == 0 ? AF_INET : AF_UNIX);
        } else if (way == 2) {
            int fds[2];
            MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0, "a socket pair");
            client_in_ = client_out_ = own(fds[0]);
            server_in_ = server_out_ = own(fds[1]);
        } else if (way == 3) {
            int up[2], down[2];
            MUST(pipe(up) == 0 && pipe(down) == 0, "two pipes");
            client_out_ = own(up[1]);
            server_in_ = own(up[0]);
            server_out_ = own(down[1]);
            client_in_ = own(down[0]);
        } else {
            return datagrams(way == 4);
        }
        if (way > 1) {
            begin_client();
            go([this] { serve(); });
        }
    }

    void finished() override
    {
        MUST(sent_ == total_ && served_ == total_ && received_ == total_, "%ld bytes, sent %ld, served %ld, received %ld",
             total_, sent_, served_, received_);
        global.totals.bytes_sent += sent_;
        global.totals.bytes_received += received_;
    }

private:
    // A listener; the client connects in its coroutine, the server accepts in its own.
    void listen(int family)
    {
        const int listener = own(socket(family, SOCK_STREAM, 0));
        sockaddr_un path = {};
        path.sun_family = AF_UNIX;
        sockaddr_in local = {};
        local.sin_family = AF_INET;
        local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address_length_ = family == AF_INET ? sizeof local : sizeof(sa_family_t); // (a name of the kernel's choice)
        const sockaddr *name = family == AF_INET ? reinterpret_cast<sockaddr *>(&local) : reinterpret_cast<sockaddr *>(&path);
        MUST(bind(listener, name, address_length_) == 0, "to bind");
        MUST(::listen(listener, 1) == 0, "to listen");
        address_length_ = sizeof address_;
        MUST(getsockname(listener, reinterpret_cast<sockaddr *>(&address_), &address_length_) == 0, "a name");
        go([this, listener] {
            pollfd p = {listener, POLLIN, 0};
            const int ready = static_cast<int>(again([&] { return poll(&p, 1, -1); }));
            MUST(ready == 1 && p.revents == POLLIN, "a connection, got %d, %x", ready, p.revents);
            const int fd = random.one_in(2) ? accept(listener, nullptr, nullptr) : co_accept(listener, nullptr, nullptr);
            server_in_ = server_out_ = own(fd);
            serve();
        });
        go([this, family] {
            const int fd = own(socket(family, SOCK_STREAM, 0));
            const int connected = connect(fd, reinterpret_cast<sockaddr *>(&address_), address_length_);
            MUST(connected == 0, "a connection, got %d", connected);
            client_in_ = client_out_ = fd;
            begin_client();
        });
    }

    void begin_client()
    {
        go([this] { write_all(); });
        go([this] { read_all(); });
    }

    void write_all()
    {
        at = "write";
        uint8_t bytes[6000];
        while (sent_ < total_) {
            const long n = std::min<long>(total_ - sent_, chunk_);
            for (long i = 0; i < n; ++i) {
                bytes[i] = byte_at(step.seed, sent_ + i);
            }
            for (long done = 0; done < n;) {
                const ssize_t wrote = again([&] { return write(client_out_, bytes + done, static_cast<size_t>(n - done)); });
                MUST(wrote > 0, "bytes written, got %zd after %ld", wrote, sent_);
                done += wrote;
                sent_ += wrote;
            }
        }
        end_of(client_out_, client_in_);
    }

    void read_all()
    {
        uint8_t bytes[6000];
        for (;;) {
            const ssize_t got = again([&] { return read(client_in_, bytes, static_cast<size_t>(chunk_)); });
            MUST(got >= 0, "bytes or the end, got %zd after %ld", got, received_);
            if (got == 0) {
                break;
            }
            for (ssize_t i = 0; i < got; ++i) {
                const uint8_t wanted = byte_at(step.seed, received_ + i);
                MUST(bytes[i] == wanted, "%02x at byte %ld, got %02x", wanted, static_cast<long>(received_ + i), bytes[i]);
            }
            received_ += got;
        }
        at = "read to the end";
    }

    void serve()
    {
        uint8_t bytes[5000];
        for (;;) {
            const ssize_t got = again([&] { return read(server_in_, bytes, sizeof bytes); });
            MUST(got >= 0, "bytes or the end, got %zd after %ld", got, served_);
            if (got == 0) {
                break;
            }
            for (ssize_t done = 0; done < got;) {
                const ssize_t wrote =
                    again([&] { return write(server_out_, bytes + done, static_cast<size_t>(got - done)); });
                MUST(wrote > 0, "bytes written, got %zd after %ld", wrote, served_);
                done += wrote;
                served_ += wrote;
            }
        }
        at = "served to the end";
        end_of(server_out_, server_in_);
    }

    // No more bytes this way.
    void end_of(int out, int in)
    {
        if (out == in) {
            MUST(shutdown(out, SHUT_WR) == 0, "to shut down");
        } else {
            close_now(out);
        }
    }

    // One there, one back, so that none is dropped.
    void datagrams(bool udp)
    {
        int fds[2];
        if (udp) {
            sockaddr_in names[2] = {};
            for (int i = 0; i < 2; ++i) {
                fds[i] = socket(AF_INET, SOCK_DGRAM, 0);
                names[i].sin_family = AF_INET;
                names[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
                socklen_t length = sizeof names[i];
                MUST(bind(fds[i], reinterpret_cast<sockaddr *>(&names[i]), length) == 0, "to bind");
                MUST(getsockname(fds[i], reinterpret_cast<sockaddr *>(&names[i]), &length) == 0, "a name");
            }
            for (int i = 0; i < 2; ++i) {
                const sockaddr *peer = reinterpret_cast<sockaddr *>(&names[1 - i]);
                MUST(connect(fds[i], peer, sizeof names[0]) == 0, "to connect");
            }
        } else {
            MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds) == 0, "a socket pair");
        }
        client_in_ = own(fds[0]);
        server_in_ = own(fds[1]);
        total_ = std::min(total_, 20000L);
        at = "datagrams";
        go([this] {
            uint8_t bytes[1400];
            while (served_ < total_) {
                const ssize_t got = again([&] { return recv(server_in_, bytes, sizeof bytes, 0); });
                MUST(got > 0, "a datagram, got %zd", got);
                const ssize_t sent = again([&] { return send(server_in_, bytes, static_cast<size_t>(got), 0); });
                MUST(sent == got, "%zd bytes sent back, got %zd", got, sent);
                served_ += got;
            }
        });
        go([this] {
            uint8_t bytes[1400];
            while (sent_ < total_) {
                const long n = std::min<long>(total_ - sent_, 1 + chunk_ % 1400);
                for (long i = 0; i < n; ++i) {
                    bytes[i] = byte_at(step.seed, sent_ + i);
                }
                const ssize_t sent = again([&] { return send(client_in_, bytes, static_cast<size_t>(n), 0); });
                MUST(sent == n, "a datagram of %ld sent, got %zd", n, sent);
                const ssize_t got = again([&] { return recv(client_in_, bytes, sizeof bytes, 0); });
                MUST(got == n, "a datagram of %ld back, got %zd", n, got);
                for (long i = 0; i < n; ++i) {
                    MUST(bytes[i] == byte_at(step.seed, sent_ + i), "byte %ld as it was sent", sent_ + i);
                }
                sent_ += n;
                received_ += n;
            }
        });
    }

    int client_in_ = -1, client_out_ = -1, server_in_ = -1, server_out_ = -1;
    long total_ = 0, sent_ = 0, served_ = 0, received_ = 0;
    int chunk_ = 0;
    sockaddr_storage address_ = {};
    socklen_t address_length_ = 0;
};

// One coroutine polls many pipes, another writes single bytes into them.
class PollMany : public Task {
public:
    using Task::Task;

    void start() override
    {
        count_ = random.between(1, 24);
        wanted_ = random.between(1, 100);
        for (int i = 0; i < count_; ++i) {
            int fds[2];
            MUST(pipe2(fds, O_NONBLOCK) == 0, "a pipe");
            // Half of them are unknown to the hooks.
            in_[i] = i % 2 == 0 ? keep(fds[0]) : own(fds[0]);
            out_[i] = keep(fds[1]);
        }
        go([this] { collect(); }, StackKind::Any, random.one_in(2));
        go([this] {
            for (int i = 0; i < wanted_; ++i) {
                const int which = random.below(count_);
                const uint8_t byte = static_cast<uint8_t>(which);
                MUST(write(out_[which], &byte, 1) == 1, "a byte written");
                ++sent_[which];
                if (random.one_in(3)) {
                    co_poll(co_get_epoll_ct(), nullptr, 0, random.one_in(4) ? 2 : 1);
                }
            }
        });
    }

    void finished() override
    {
        for (int i = 0; i < count_; ++i) {
            MUST(sent_[i] == received_[i], "%d bytes from pipe %d, got %d", sent_[i], i, received_[i]);
        }
        global.totals.bytes_sent += wanted_;
        global.totals.bytes_received += all_;
    }

private:
    void collect()
    {
        at = "poll";
        while (all_ < wanted_) {
            pollfd fds[24];
            for (int i = 0; i < count_; ++i) {
                fds[i] = {in_[i], POLLIN, 0};
            }
            const int found = co_poll(co_get_epoll_ct(), fds, static_cast<nfds_t>(count_), -1);
            int marked = 0;
            for (int i = 0; i < count_; ++i) {
                marked += fds[i].revents != 0;
                MUST(fds[i].revents == 0 || fds[i].revents == POLLIN, "POLLIN or nothing, got %x", fds[i].revents);
                uint8_t byte = 255;
                while (fds[i].revents != 0 && read(in_[i], &byte, 1) == 1) {
                    MUST(byte == i, "pipe %d's byte, got %d", i, byte);
                    ++received_[i];
                    ++all_;
                }
            }
            MUST(found > 0 && found == marked, "as many as are marked, %d: got %d", marked, found);
        }
    }

    int count_ = 0, wanted_ = 0, all_ = 0;
    int in_[24] = {}, out_[24] = {}, sent_[24] = {}, received_[24] = {};
};

// Who waits for a number that is closed, or made another file's, is told so.
class CloseWhileWaiting : public Task {
public:
    using Task::Task;

    void start() override
    {
        int fds[2];
        MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0, "a socket pair");
        const int fd = random.one_in(2) ? own(fds[0]) : keep(fds[0]);
        keep(fds[1]);
        const int waiters = random.between(1, 4);
        for (int i = 0; i < waiters; ++i) {
            go([this, fd] {
                at = "poll of what is closed";
                pollfd p = {fd, POLLIN, 0};
                const int found = co_poll(co_get_epoll_ct(), &p, 1, -1);
                // (The number may be another file's by now.)
                MUST(closed_ && found == 1 && p.revents != 0,
                     "to be woken by the close: closed %d, got %d, %x", closed_, found, p.revents);
            });
        }
        const bool by_dup = random.one_in(3);
        go([this, fd, by_dup] {
            co_poll(co_get_epoll_ct(), nullptr, 0, random.between(0, 20));
            closed_ = true;
            if (!by_dup) {
                return close_now(fd);
            }
            // The new file reports its end for good.
            int pipe_[2];
            MUST(pipe(pipe_) == 0, "a pipe");
            MUST(dup2(pipe_[0], fd) == fd, "a dup");
            close(pipe_[0]);
            close(pipe_[1]);
        });
    }

private:
    bool closed_ = false;
};

// A dup that comes and goes leaves the waits of its file alone; and the file lives on in a dup.
class DupWhileWaiting : public Task {
public:
    using Task::Task;

    void start() override
    {
        int fds[2];
        MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0, "a socket pair");
        in_ = own(fds[0]);
        out_ = keep(fds[1]);
        wanted_ = random.between(1, 10);
        go([this] {
            at = "read beside dups";
            while (got_ < wanted_) {
                uint8_t byte = 0;
                const ssize_t n = again([&] { return read(in_, &byte, 1); });
                MUST(n == 1 && byte == byte_at(step.seed, got_), "byte %d, got %zd, %02x", got_, n, byte);
                ++got_;
            }
        });
        go([this] {
            for (int i = 0; i < wanted_; ++i) {
                const int copy = dup(in_);
                MUST(copy >= 0, "a dup");
                keep(copy);
                pollfd p = {copy, POLLIN, 0};
                const int ms = random.between(0, 2);
                // (Without a time it is the plain poll, which a signal interrupts.)
                const int found = static_cast<int>(again([&] { return co_poll(co_get_epoll_ct(), &p, 1, ms); }));
                MUST(found == 0 || (found == 1 && p.revents == POLLIN), "nothing or POLLIN, got %d, %x", found, p.revents);
                close_now(copy);
                const uint8_t byte = byte_at(step.seed, i);
                MUST(write(out_, &byte, 1) == 1, "a byte written");
            }
        });
    }

    void finished() override
    {
        MUST(got_ == wanted_, "%d bytes, got %d", wanted_, got_);
        global.totals.bytes_sent += wanted_;
        global.totals.bytes_received += got_;
    }

private:
    int in_ = -1, out_ = -1, wanted_ = 0, got_ = 0;
};

} // namespace

std::unique_ptr<Task> make_bytes(Slot &slot, const Step &step)
{
    switch (step.kind) {
    case Kind::Echo:
        return std::unique_ptr<Task>(new Echo(slot, step));
    case Kind::PollMany:
        return std::unique_ptr<Task>(new PollMany(slot, step));
    case Kind::CloseWhileWaiting:
        return std::unique_ptr<Task>(new CloseWhileWaiting(slot, step));
    default:
        return std::unique_ptr<Task>(new DupWhileWaiting(slot, step));
    }
}

} // namespace soak
