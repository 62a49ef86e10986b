// What the hooked lookups return is what the plain ones return, error for error, and what needs nobody
// else's answer is found in the thread.
#include "name_server.h"

#ifndef COLIB_PEER // most of these functions are not the original's

using namespace support;

namespace {

std::string text_of(const sockaddr *address, socklen_t size)
{
    char host[NI_MAXHOST], service[NI_MAXSERV];
    if (getnameinfo(address, size, host, sizeof host, service, sizeof service,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return "?";
    }
    return std::string(host) + " " + service;
}

std::string text_of(int status, const addrinfo *list)
{
    std::string text = "status " + std::to_string(status);
    if (status != 0) {
        return text + (status == EAI_SYSTEM ? " errno " + std::to_string(errno) : "");
    }
    for (; list != nullptr; list = list->ai_next) {
        text += "\n  " + text_of(list->ai_addr, list->ai_addrlen) + " family " + std::to_string(list->ai_family) +
                " type " + std::to_string(list->ai_socktype) + " protocol " + std::to_string(list->ai_protocol) +
                (list->ai_canonname != nullptr ? std::string(" called ") + list->ai_canonname : "");
    }
    return text;
}

std::string text_of(const hostent *host)
{
    if (host == nullptr) {
        return "none, h_errno " + std::to_string(h_errno);
    }
    std::string text = host->h_name;
    for (char **alias = host->h_aliases; *alias != nullptr; ++alias) {
        text += std::string(" alias ") + *alias;
    }
    for (char **at = host->h_addr_list; *at != nullptr; ++at) {
        char address[INET6_ADDRSTRLEN];
        text += std::string(" ") + inet_ntop(host->h_addrtype, *at, address, sizeof address);
    }
    return text + " length " + std::to_string(host->h_length);
}

using Question = std::function<std::string()>;

struct Asked {
    std::string what;
    Question ask;
};

// Asks everything plainly, then everything in coroutines at once.
void expect_equal(const std::vector<Asked> &all)
{
    on_thread([&all] {
        std::vector<std::string> plain, hooked(all.size());
        for (const Asked &asked : all) {
            plain.push_back(asked.ask());
        }
        Group group;
        for (size_t i = 0; i < all.size(); ++i) {
            group.go_hooked([&, i] { hooked[i] = all[i].ask(); });
        }
        ASSERT_TRUE(group.run(60000));
        for (size_t i = 0; i < all.size(); ++i) {
            EXPECT_EQ(plain[i], hooked[i]) << all[i].what;
        }
    });
}

const char *const names[] = {"1.colib.test",     "2.both.colib.test", "nodata.colib.test", "fail.colib.test",
                             "bad.colib.test",   "unknown.test",      "localhost",         "localhost6",
                             "first.hosts.test", "second.hosts.test", "127.0.0.1",         "127.1",
                             "::1",              "fe80::1%lo",        "1.2.3.4.",          "1.2.3.4 x",
                             "1.2.3",            "",                  "::zz",              "0x7f000001",
                             "300.1.1.1",        "a:b",               "*"};

std::vector<Asked> hosts()
{
    std::vector<Asked> all;
    for (const std::string name : names) {
        all.push_back({"gethostbyname " + name, [name] {
                           h_errno = 99;
                           return text_of(gethostbyname(name.c_str()));
                       }});
        for (const size_t room : {0, 20, 60, 100, 2048}) {
            all.push_back({"gethostbyname_r " + name + " " + std::to_string(room), [name, room] {
                               HostRoom to;
                               to.error = 99;
                               const int status = gethostbyname_r(name.c_str(), &to.host, to.buf, room,
                                                                  &to.result, &to.error);
                               h_errno = to.error;
                               return std::to_string(status) + text_of(to.result);
                           }});
        }
        for (const int family : {AF_INET, AF_INET6}) {
            all.push_back({"gethostbyname2 " + name, [name, family] {
                               h_errno = 99;
                               return text_of(gethostbyname2(name.c_str(), family));
                           }});
            all.push_back({"gethostbyname2_r " + name, [name, family] {
                               HostRoom to;
                               to.error = 99;
                               const int status = gethostbyname2_r(name.c_str(), family, &to.host, to.buf,
                                                                   sizeof to.buf, &to.result, &to.error);
                               h_errno = to.error;
                               return std::to_string(status) + text_of(to.result);
                           }});
        }
    }
    for (const char *text : {"127.0.1.1", "127.0.1.250", "127.0.9.1", "127.0.0.1", "::1", "::", "fd00::1"}) {
        const bool six = strchr(text, ':') != nullptr;
        for (const socklen_t size : {4, 16, 0, 3, 1000}) {
            for (const int family : {AF_INET, AF_INET6, AF_UNIX}) {
                const auto address = std::make_shared<std::vector<char>>(1024);
                inet_pton(six ? AF_INET6 : AF_INET, text, address->data());
                all.push_back({std::string("gethostbyaddr ") + text, [=] {
                                   h_errno = 99;
                                   return text_of(gethostbyaddr(address->data(), size, family));
                               }});
                all.push_back({std::string("gethostbyaddr_r ") + text, [=] {
                                   HostRoom to;
                                   to.error = 99;
                                   const int status =
                                       gethostbyaddr_r(address->data(), size, family, &to.host, to.buf,
                                                       sizeof to.buf, &to.result, &to.error);
                                   h_errno = to.error;
                                   return std::to_string(status) + text_of(to.result);
                               }});
            }
        }
    }
    return all;
}

std::vector<Asked> addresses()
{
    std::vector<Asked> all;
    const int flags[] = {0, AI_CANONNAME, AI_NUMERICHOST, AI_PASSIVE | AI_NUMERICSERV, AI_V4MAPPED | AI_ALL,
                         AI_ADDRCONFIG, 0x40000000};
    for (const std::string name : names) {
        for (const char *service : {static_cast<const char *>(nullptr), "http", "no-such-service"}) {
            all.push_back({"getaddrinfo " + name, [=] {
                               addrinfo *list = nullptr;
                               const int status = getaddrinfo(name.c_str(), service, nullptr, &list);
                               const std::string text = text_of(status, list);
                               if (status == 0) {
                                   freeaddrinfo(list);
                               }
                               return text;
                           }});
            for (const int flag : flags) {
                for (const int family : {AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX}) {
                    for (const int type : {0, int(SOCK_STREAM)}) {
                        all.push_back({"getaddrinfo " + name + " flags " + std::to_string(flag) + " family " +
                                           std::to_string(family) + " type " + std::to_string(type),
                                       [=] {
                                           addrinfo hints = {}, *list = nullptr;
                                           hints.ai_flags = flag;
                                           hints.ai_family = family;
                                           hints.ai_socktype = type;
                                           const int status = getaddrinfo(name.c_str(), service, &hints, &list);
                                           const std::string text = text_of(status, list);
                                           if (status == 0) {
                                               freeaddrinfo(list);
                                           }
                                           return text;
                                       }});
                    }
                }
            }
        }
    }
    return all;
}

std::vector<Asked> reverse()
{
    std::vector<Asked> all;
    for (const char *text : {"127.0.1.1", "127.0.1.250", "127.0.9.1", "::1", "fd00::1"}) {
        const bool six = strchr(text, ':') != nullptr;
        for (const int flags : {0, NI_NAMEREQD, NI_NUMERICHOST, NI_NUMERICSERV, NI_DGRAM, NI_NOFQDN, 0x4000}) {
            for (const socklen_t size : {0, 1, 2, 16, 28, 128}) {
                for (const socklen_t host_size : {0u, 3u, 256u, 1u << 17}) {
                    for (const socklen_t service_size : {0u, 2u, 64u}) {
                        all.push_back({std::string("getnameinfo ") + text + " flags " + std::to_string(flags), [=] {
                                           sockaddr_storage room = {};
                                           auto *v4 = reinterpret_cast<sockaddr_in *>(&room);
                                           auto *v6 = reinterpret_cast<sockaddr_in6 *>(&room);
                                           room.ss_family = six ? AF_INET6 : AF_INET;
                                           v4->sin_port = htons(80);
                                           inet_pton(room.ss_family, text,
                                                     six ? static_cast<void *>(&v6->sin6_addr) : &v4->sin_addr);
                                           const std::unique_ptr<char[]> own(new char[1 << 17]);
                                           char *host = own.get();
                                           char service[64] = "";
                                           host[0] = 0;
                                           const int status =
                                               getnameinfo(reinterpret_cast<sockaddr *>(&room), size, host,
                                                           host_size, service, service_size, flags);
                                           return std::to_string(status) +
                                                  (status == 0 ? std::string(host) + " " + service : "");
                                       }});
                    }
                }
            }
        }
    }
    return all;
}

// What is looked up in a coroutine, hooked, starts no thread.
void expect_no_thread(const std::function<void()> &body)
{
    EXPECT_EQ(0, in_child([&] {
                  on_thread([&] {
                      const int before = threads();
                      Co co([&] {
                          co_enable_hook_sys();
                          body();
                      });
                      co.resume();
                      EXPECT_TRUE(co.ended());
                      EXPECT_EQ(before, threads());
                  });
                  return testing::Test::HasFailure() ? 1 : 0;
              }));
}

int status_of(const char *node, const char *service, int flags = 0)
{
    addrinfo hints = {}, *list = nullptr;
    hints.ai_flags = flags;
    const int status = getaddrinfo(node, service, &hints, &list);
    if (status == 0) {
        freeaddrinfo(list);
    }
    return status;
}

} // namespace

TEST(LookupResults, of_the_gethostby_family_are_those_of_the_plain_calls)
{
    EXPECT_IN_OWN_NETWORK(1, [] {
        NameServer server(0);
        ASSERT_TRUE(server.bound());
        expect_equal(hosts());
    });
}

TEST(LookupResults, of_getaddrinfo_are_those_of_the_plain_call)
{
    EXPECT_IN_OWN_NETWORK(1, [] {
        NameServer server(0);
        ASSERT_TRUE(server.bound());
        expect_equal(addresses());
    });
}

TEST(LookupResults, of_getnameinfo_are_those_of_the_plain_call)
{
    EXPECT_IN_OWN_NETWORK(1, [] {
        NameServer server(0);
        ASSERT_TRUE(server.bound());
        expect_equal(reverse());
    });
}

TEST(LookupErrors, of_getaddrinfo_are_its_own)
{
    EXPECT_IN_OWN_NETWORK(1, [] {
        NameServer server(0);
        ASSERT_TRUE(server.bound());
        Group group;
        group.go_hooked([] {
            EXPECT_EQ(EAI_NONAME, status_of("unknown.test", nullptr));
            EXPECT_EQ(EAI_NODATA, status_of("nodata.colib.test", nullptr));
            EXPECT_EQ(EAI_AGAIN, status_of("fail.colib.test", nullptr));
            EXPECT_EQ(EAI_AGAIN, status_of("never.colib.test", nullptr));
            EXPECT_EQ(EAI_SERVICE, status_of("1.colib.test", "no-such-service"));
            EXPECT_EQ(EAI_BADFLAGS, status_of("1.colib.test", nullptr, 0x40000000));
            EXPECT_EQ(EAI_NONAME, status_of("1.colib.test", nullptr, AI_NUMERICHOST));
            EXPECT_EQ(EAI_NONAME, status_of(nullptr, nullptr));
        });
        ASSERT_TRUE(group.run());
    });
}

TEST(LookupErrors, of_the_gethostby_family_are_in_h_errno)
{
    EXPECT_IN_OWN_NETWORK(1, [] {
        NameServer server(0);
        ASSERT_TRUE(server.bound());
        Group group;
        const auto expect = [](int wanted, const char *name) {
            h_errno = 99;
            EXPECT_EQ(nullptr, gethostbyname(name)) << name;
            EXPECT_EQ(wanted, h_errno) << name;
            h_errno = 99;
            EXPECT_EQ(nullptr, gethostbyname2(name, AF_INET)) << name;
            EXPECT_EQ(wanted, h_errno) << name;
        };
        // At once, so that each must keep to its own.
        group.go_hooked([&] { expect(HOST_NOT_FOUND, "unknown.test"); });
        group.go_hooked([&] { expect(NO_DATA, "nodata.colib.test"); });
        group.go_hooked([&] { expect(TRY_AGAIN, "fail.colib.test"); });
        group.go_hooked([&] { expect(TRY_AGAIN, "never.colib.test"); });
        group.go_hooked([&] { expect(NO_RECOVERY, "bad.colib.test"); });
        group.go_hooked([] {
            h_errno = 99;
            const in_addr address = address_number(250);
            EXPECT_EQ(nullptr, gethostbyaddr(&address, sizeof address, AF_INET));
            EXPECT_EQ(HOST_NOT_FOUND, h_errno);
        });
        ASSERT_TRUE(group.run());
    });
}

TEST(Literals, never_leave_the_thread)
{
    expect_no_thread([] {
        for (const char *node : {"127.0.0.1", "127.1", "0x7f.1", "::1", "fe80::1%lo", "*"}) {
            EXPECT_EQ(0, status_of(node, "80")) << node;
            EXPECT_EQ(0, status_of(node, "80", AI_NUMERICSERV | AI_PASSIVE)) << node;
        }
        EXPECT_EQ(0, status_of(nullptr, "80"));
        EXPECT_EQ(EAI_NONAME, status_of("some.name", "80", AI_NUMERICHOST));
        for (const char *node : {"127.0.0.1", "10.2", "1"}) {
            EXPECT_NE(nullptr, gethostbyname(node)) << node;
            EXPECT_NE(nullptr, gethostbyname2(node, AF_INET)) << node;
        }
        EXPECT_NE(nullptr, gethostbyname2("::1", AF_INET6));
        EXPECT_EQ(nullptr, gethostbyname("1.2.3.4.5"));
        HostRoom to;
        EXPECT_EQ(0, gethostbyname_r("127.0.0.1", &to.host, to.buf, sizeof to.buf, &to.result, &to.error));
        EXPECT_EQ(0, gethostbyname2_r("127.0.0.1", AF_INET, &to.host, to.buf, sizeof to.buf, &to.result, &to.error));
        sockaddr_in address = {};
        address.sin_family = AF_INET;
        address.sin_port = htons(80);
        char host[64], service[64];
        const auto *generic = reinterpret_cast<sockaddr *>(&address);
        EXPECT_EQ(0, getnameinfo(generic, sizeof address, host, sizeof host, service, sizeof service,
                                 NI_NUMERICHOST | NI_NUMERICSERV));
        EXPECT_EQ(0, getnameinfo(generic, sizeof address, host, sizeof host, nullptr, 0, NI_NUMERICHOST));
        EXPECT_EQ(EAI_FAMILY, getnameinfo(nullptr, 0, host, sizeof host, nullptr, 0, 0));
    });
}

TEST(Lookups, that_only_ours_has_are_plain_where_the_words_say_so)
{
    EXPECT_IN_OWN_NETWORK(1, [] {
        NameServer server(20);
        ASSERT_TRUE(server.bound());
        ASSERT_EQ(0, co_set_hooks("libco"));
        const int before = threads();
        for (const Lookup &lookup : lookups()) {
            const bool libcos = lookup.name == std::string("gethostbyname") ||
                                lookup.name == std::string("gethostbyname_r");
            bool right = false;
            Co co([&] {
                co_enable_hook_sys();
                right = lookup.ask(5);
            });
            co.resume();
            EXPECT_NE(libcos, co.ended()) << lookup.name;
            EXPECT_TRUE(loop_until([&] { return co.ended(); }));
            EXPECT_TRUE(right) << lookup.name;
        }
        EXPECT_GT(threads(), before);
    });
}

TEST(StaticResults, stay_until_the_coroutines_next_call_of_the_family)
{
    EXPECT_IN_OWN_NETWORK(1, [] {
        NameServer server(5);
        ASSERT_TRUE(server.bound());
        Group group;
        int right = 0;
        for (int n = 1; n <= 20; ++n) {
            group.go_hooked([&right, n] {
                const hostent *host = gethostbyname2(test_name(n).c_str(), AF_INET);
                nap(20 - n);
                right += address_of(host) == test_address(n);
                const in_addr address = address_number(n);
                host = gethostbyaddr(&address, sizeof address, AF_INET);
                nap(n);
                right += host != nullptr && host->h_name == test_name(n);
            });
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(40, right);
    });
}

#endif
