// A network of its own for a test of name lookups, with a name server of the test's, and the lookups
// themselves, all of one shape.
#ifndef COLIB_CPP_TESTS_NAME_SERVER_H
#define COLIB_CPP_TESTS_NAME_SERVER_H

#include "loop_support.h"

#include <net/if.h>
#include <netdb.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>

#include <deque>

namespace support {

// Puts a file of the test's in the place of one of the system's, for this process.
inline bool replace_file(const char *path, const std::string &text)
{
    char own[] = "/tmp/colib-names-XXXXXX";
    Fd file(mkstemp(own));
    const bool written = raw_write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                         fchmod(file, 0644) == 0;
    const bool mounted = access(path, F_OK) != 0 || mount(own, path, nullptr, MS_BIND, nullptr) == 0;
    unlink(own);
    return written && mounted;
}

// Moves this process to a network of its own, with 127.0.0.1 as the one name server, asked once with a
// time-out of `seconds`.
inline bool own_network(int seconds)
{
    const int flags = CLONE_NEWNS | CLONE_NEWNET | (geteuid() != 0 ? CLONE_NEWUSER : 0);
    if (unshare(flags) != 0 || mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        return false;
    }
    Fd control(raw_socket(AF_INET, SOCK_DGRAM));
    ifreq request = {};
    strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    return ioctl(control, SIOCSIFFLAGS, &request) == 0 &&
           replace_file("/etc/resolv.conf", "nameserver 127.0.0.1\noptions attempts:1 timeout:" +
                                                std::to_string(seconds) + "\n") &&
           replace_file("/etc/nsswitch.conf", "hosts: files dns\nservices: files\n") &&
           replace_file("/etc/hosts", "127.0.0.1 localhost\n127.0.9.1 first.hosts.test second.hosts.test\n"
                                      "::1 localhost6\n");
}

// A name server on 127.0.0.1:53, in a process of its own, that answers `delay_ms` after the question:
//
//   <number>.colib.test       127.0.1.<number>, and that address the name
//   <number>.both.colib.test  and fd00::<number>
//   nodata. fail. bad.        no record, SERVFAIL, FORMERR
//   never.                    no answer at all
//   anything else             does not exist
class NameServer {
public:
    explicit NameServer(int delay_ms)
    {
        Fd fd(raw_socket(AF_INET, SOCK_DGRAM));
        sockaddr_in addr = {};
        addr.sin_family = AF_INET;
        addr.sin_port = htons(53);
        addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        const int room = 1 << 22;
        raw_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
        bound_ = bind(fd, reinterpret_cast<sockaddr *>(&addr), sizeof addr) == 0;
        pid_ = fork();
        if (pid_ == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            serve(fd, delay_ms);
            _exit(0);
        }
    }
    ~NameServer()
    {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    bool bound() const { return bound_ && pid_ > 0; }

private:
    struct Reply {
        long long due;
        sockaddr_in to;
        std::string packet;
    };

    static void serve(int fd, int delay_ms)
    {
        std::deque<Reply> replies; // in the order of `due`, since all wait as long
        for (;;) {
            pollfd wait = {fd, POLLIN, 0};
            const int left = replies.empty() ? -1 : static_cast<int>(std::max(0LL, replies[0].due - now_ms()));
            raw_poll(&wait, 1, left);
            while (!replies.empty() && replies[0].due <= now_ms()) {
                const Reply &reply = replies[0];
                syscall(SYS_sendto, fd, reply.packet.data(), reply.packet.size(), 0, &reply.to, sizeof reply.to);
                replies.pop_front();
            }
            char packet[512];
            sockaddr_in from = {};
            socklen_t size = sizeof from;
            const ssize_t n = syscall(SYS_recvfrom, fd, packet, sizeof packet, MSG_DONTWAIT, &from, &size);
            if (n >= 17) {
                const std::string reply = answer(std::string(packet, n));
                if (!reply.empty()) {
                    replies.push_back({now_ms() + delay_ms, from, reply});
                }
            }
        }
    }

    // The labels of the name asked for.
    static std::vector<std::string> labels_of(const std::string &packet)
    {
        std::vector<std::string> labels;
        size_t at = 12;
        while (at < packet.size() && packet[at] != 0) {
            labels.push_back(packet.substr(at + 1, static_cast<unsigned char>(packet[at])));
            at += 1 + static_cast<unsigned char>(packet[at]);
        }
        return labels;
    }

    static std::string answer(const std::string &question)
    {
        const size_t name_end = question.find('\0', 12);
        const std::vector<std::string> labels = labels_of(question);
        if (labels.empty() || labels[0] == "never") {
            return "";
        }
        const int type = question[name_end + 2];
        const int number = labels.size() > 1 ? atoi(labels[0].c_str()) : 0;
        const bool both = labels.size() > 1 && labels[1] == "both";
        std::string data;
        if (number > 0 && number < 200 && type == 12) {
            const std::string name = std::to_string(number);
            data = std::string(1, static_cast<char>(name.size())) + name + std::string("\5colib\4test\0", 12);
        } else if (number > 0 && type == 1) {
            data = {127, 0, 1, static_cast<char>(number)};
        } else if (number > 0 && type == 28 && both) {
            data = std::string("\xfd", 1) + std::string(14, 0) + static_cast<char>(number);
        }
        int code = !data.empty() || (number > 0 && type != 12) ? 0 : 3;
        code = labels[0] == "nodata" ? 0 : labels[0] == "fail" ? 2 : labels[0] == "bad" ? 1 : code;
        std::string reply = question.substr(0, name_end + 5);
        reply[2] = static_cast<char>(0x85); // an authoritative answer
        reply[3] = static_cast<char>(0x80 | code);
        reply[6] = reply[8] = reply[9] = reply[10] = reply[11] = 0;
        reply[7] = !data.empty();
        if (!data.empty()) {
            const char record[] = {'\xc0', 12, 0, static_cast<char>(type),        0, 1, 0, 0, 0, 60,
                                   0,      static_cast<char>(data.size())};
            reply.append(record, sizeof record).append(data);
        }
        return reply;
    }

    bool bound_ = false;
    pid_t pid_ = -1;
};

const int cannot = 77; // this system doesn't let the test have a network of its own

// Runs `body` on a thread of a child with a network of its own; skips the test where that is not allowed.
#define EXPECT_IN_OWN_NETWORK(seconds, ...)                                                      \
    do {                                                                                         \
        const int result = in_child(                                                             \
            [&] {                                                                                \
                if (!own_network(seconds)) {                                                     \
                    return cannot;                                                               \
                }                                                                                \
                on_thread(__VA_ARGS__);                                                            \
                return testing::Test::HasFailure() ? 1 : 0;                                      \
            },                                                                                   \
            100);                                                                                \
        if (result == cannot) {                                                                  \
            GTEST_SKIP() << "needs a network of its own (unshare), which this system forbids";   \
        }                                                                                        \
        EXPECT_EQ(0, result);                                                                    \
    } while (false)

inline std::string address_of(const hostent *host)
{
    if (host == nullptr || host->h_addr_list[0] == nullptr) {
        return "(none)";
    }
    char text[INET6_ADDRSTRLEN];
    return inet_ntop(host->h_addrtype, host->h_addr_list[0], text, sizeof text);
}

inline std::string address_of(const addrinfo *list)
{
    char text[NI_MAXHOST];
    if (list == nullptr ||
        getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) != 0) {
        return "(none)";
    }
    return text;
}

inline in_addr address_number(int n)
{
    in_addr address;
    address.s_addr = htonl(0x7f000100 + static_cast<unsigned>(n));
    return address;
}

// One way to look up: <n>.colib.test, or 127.0.1.<n>; whether the answer was right.
struct Lookup {
    const char *name;
    bool (*ask)(int n);
};

inline void PrintTo(const Lookup &lookup, std::ostream *out) { *out << lookup.name; }

inline std::string test_name(int n) { return std::to_string(n) + ".colib.test"; }
inline std::string test_address(int n) { return "127.0.1." + std::to_string(n); }

struct HostRoom {
    hostent host = {};
    hostent *result = nullptr;
    char buf[2048];
    int error = 0;
};

inline const std::vector<Lookup> &lookups()
{
    static const std::vector<Lookup> all = {
        {"getaddrinfo",
         [](int n) {
             addrinfo hints = {}, *list = nullptr;
             hints.ai_socktype = SOCK_STREAM;
             if (getaddrinfo(test_name(n).c_str(), "80", &hints, &list) != 0) {
                 return false;
             }
             const bool right = address_of(list) == test_address(n) && list->ai_next == nullptr;
             freeaddrinfo(list);
             return right;
         }},
        {"gethostbyname", [](int n) { return address_of(gethostbyname(test_name(n).c_str())) == test_address(n); }},
        {"gethostbyname_r",
         [](int n) {
             HostRoom to;
             return gethostbyname_r(test_name(n).c_str(), &to.host, to.buf, sizeof to.buf, &to.result,
                                    &to.error) == 0 &&
                    to.result == &to.host && address_of(to.result) == test_address(n);
         }},
        {"gethostbyname2",
         [](int n) { return address_of(gethostbyname2(test_name(n).c_str(), AF_INET)) == test_address(n); }},
        {"gethostbyname2_r",
         [](int n) {
             HostRoom to;
             return gethostbyname2_r(test_name(n).c_str(), AF_INET, &to.host, to.buf, sizeof to.buf,
                                     &to.result, &to.error) == 0 &&
                    to.result == &to.host && address_of(to.result) == test_address(n);
         }},
        {"gethostbyaddr",
         [](int n) {
             const in_addr address = address_number(n);
             const hostent *host = gethostbyaddr(&address, sizeof address, AF_INET);
             return host != nullptr && host->h_name == test_name(n);
         }},
        {"gethostbyaddr_r",
         [](int n) {
             HostRoom to;
             const in_addr address = address_number(n);
             return gethostbyaddr_r(&address, sizeof address, AF_INET, &to.host, to.buf, sizeof to.buf,
                                    &to.result, &to.error) == 0 &&
                    to.result == &to.host && to.host.h_name == test_name(n);
         }},
        {"getnameinfo",
         [](int n) {
             sockaddr_in address = {};
             address.sin_family = AF_INET;
             address.sin_port = htons(80);
             address.sin_addr = address_number(n);
             char host[256], service[32];
             return getnameinfo(reinterpret_cast<sockaddr *>(&address), sizeof address, host, sizeof host,
                                service, sizeof service, NI_NAMEREQD | NI_NUMERICSERV) == 0 &&
                    host == test_name(n) && service == std::string("80");
         }},
    };
    return all;
}

// The threads of this process.
inline int threads() { return static_cast<int>(status_kib("Threads:")); }

} // namespace support

#endif
