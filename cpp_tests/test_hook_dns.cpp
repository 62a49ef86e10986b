// Hooked gethostbyname, gethostbyname_r and __res_state.
#include "name_server.h"

#include <resolv.h>

using namespace support;

TEST(Gethostbyname, finds_localhost)
{
    in_hooked_coroutine([] { EXPECT_EQ("127.0.0.1", address_of(gethostbyname("localhost"))); });
}

TEST(Gethostbyname, takes_an_address_as_it_is)
{
    in_hooked_coroutine([] {
        const hostent *host = gethostbyname("192.0.2.7");
        EXPECT_EQ("192.0.2.7", address_of(host));
        ASSERT_NE(nullptr, host);
        EXPECT_STREQ("192.0.2.7", host->h_name);
        EXPECT_EQ(4, host->h_length);
        EXPECT_EQ(nullptr, host->h_addr_list[1]);
    });
}

TEST(Gethostbyname, gives_each_coroutine_a_result_of_its_own)
{
    on_thread([] {
        Group group;
        std::vector<const hostent *> results(10);
        int right = 0, waiting = 0;
        for (int i = 0; i < 10; ++i) {
            group.go_hooked([&, i] {
                const std::string name = "192.0.2." + std::to_string(i);
                results[i] = gethostbyname(name.c_str());
                ++waiting;
                while (waiting < 10) {
                    nap(1);
                }
                right += address_of(results[i]) == name;
                nap(5);
            });
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(10, right);
        for (int i = 1; i < 10; ++i) {
            EXPECT_NE(results[0], results[i]);
        }
    });
}

TEST(Gethostbyname, may_be_called_again_and_again)
{
    in_hooked_coroutine([] {
        for (int i = 1; i < 60; ++i) {
            const std::string name = "192.0.2." + std::to_string(i);
            ASSERT_EQ(name, address_of(gethostbyname(name.c_str())));
            ASSERT_EQ("127.0.0.1", address_of(gethostbyname("localhost")));
        }
    });
}

TEST(Gethostbyname, works_with_hooks_off)
{
    on_thread([] {
        Co co([] { EXPECT_EQ("127.0.0.1", address_of(gethostbyname("localhost"))); });
        co.resume();
        EXPECT_TRUE(co.ended());
        EXPECT_EQ("192.0.2.9", address_of(gethostbyname("192.0.2.9")));
    });
}

TEST(Gethostbyname, works_on_the_main_coroutine)
{
    on_thread([] {
        Co environment([] {});
        co_enable_hook_sys();
        EXPECT_EQ("127.0.0.1", address_of(gethostbyname("localhost")));
    });
}

TEST(Gethostbyname, works_in_a_forked_child)
{
    in_hooked_coroutine([] { EXPECT_EQ("127.0.0.1", address_of(gethostbyname("localhost"))); });
    EXPECT_EQ(0, in_child(
                     [] {
                         in_hooked_coroutine([] {
                             EXPECT_EQ("127.0.0.1", address_of(gethostbyname("localhost")));
                         });
                         return testing::Test::HasFailure() ? 1 : 0;
                     },
                     20));
}

TEST(Gethostbyname, works_on_a_copy_stack)
{
    on_thread([] {
        const stCoRoutineAttr_t at = attr(0, co_alloc_sharestack(1, 131072));
        Group group;
        int right = 0;
        for (int i = 1; i <= 5; ++i) {
            group.go_hooked(
                [&right, i] {
                    char name[32];
                    snprintf(name, sizeof name, "192.0.2.%d", i);
                    const hostent *host = gethostbyname(name);
                    right += address_of(host) == name && address_of(gethostbyname("localhost")) == "127.0.0.1";
                },
                &at);
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(5, right);
    });
}

TEST(Gethostbyname, of_an_unknown_host_gives_nothing)
{
    in_hooked_coroutine([] { EXPECT_EQ(nullptr, gethostbyname("no-such-host.invalid")); }, 60000);
}

TEST(Gethostbyname, of_an_unknown_host_sets_h_errno)
{
    EXPECT_IN_OWN_NETWORK(1, [] {
        NameServer server(0);
        ASSERT_TRUE(server.bound());
        Group group;
        group.go_hooked([] {
            h_errno = 0;
            EXPECT_EQ(nullptr, gethostbyname("unknown.colib.test"));
            EXPECT_EQ(HOST_NOT_FOUND, h_errno);
        });
        ASSERT_TRUE(group.run());
    });
}

TEST(Gethostbyname, asks_for_several_coroutines_at_once)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(200);
        ASSERT_TRUE(server.bound());
        Group group;
        int right = 0;
        for (int i = 1; i <= 3; ++i) {
            group.go_hooked([&right, i] {
                const std::string n = std::to_string(i);
                right += address_of(gethostbyname((n + ".colib.test").c_str())) == "127.0.1." + n;
            });
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(3, right);
    });
}

MENDED(Gethostbyname, lets_others_run_while_the_name_server_is_silent)
{
    EXPECT_IN_OWN_NETWORK(1, [] {
        Fd silent(raw_socket(AF_INET, SOCK_DGRAM));
        sockaddr_in addr = {};
        addr.sin_family = AF_INET;
        addr.sin_port = htons(53);
        addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ASSERT_EQ(0, bind(silent, reinterpret_cast<sockaddr *>(&addr), sizeof addr));
        Group group;
        bool ended = false;
        int ticks = 0;
        group.go_hooked([&] {
            h_errno = 0;
            EXPECT_EQ(nullptr, gethostbyname("1.colib.test"));
            EXPECT_EQ(TRY_AGAIN, h_errno);
            ended = true;
        });
        group.go([&] {
            while (!ended) {
                nap(10);
                ++ticks;
            }
        });
        ASSERT_TRUE(group.run());
        EXPECT_GE(ticks, 30);
    });
}

MENDED(Gethostbyname, lets_its_coroutine_be_released_while_it_waits)
{
    EXPECT_IN_OWN_NETWORK(5, [] {
        NameServer server(300);
        ASSERT_TRUE(server.bound());
        bool ran_on = false;
        {
            Co gone([&] {
                co_enable_hook_sys();
                gethostbyname("1.colib.test");
                ran_on = true;
            });
            gone.resume();
            loop_rounds(20);
        }
        Group group;
        group.go_hooked([] { EXPECT_EQ("127.0.1.2", address_of(gethostbyname("2.colib.test"))); });
        ASSERT_TRUE(group.run());
        EXPECT_FALSE(ran_on);
    });
}

TEST(GethostbynameR, finds_localhost_in_the_callers_buffer)
{
    in_hooked_coroutine([] {
        hostent host, *result = nullptr;
        char buf[2048];
        int error = -1;
        EXPECT_EQ(0, gethostbyname_r("localhost", &host, buf, sizeof buf, &result, &error));
        EXPECT_EQ(&host, result);
        EXPECT_EQ("127.0.0.1", address_of(result));
        ASSERT_NE(nullptr, result);
        EXPECT_LE(buf, host.h_name);
        EXPECT_LT(host.h_name, buf + sizeof buf);
    });
}

TEST(GethostbynameR, with_too_small_a_buffer_reports_erange)
{
    in_hooked_coroutine([] {
        for (const char *name : {"localhost", "192.0.2.1"}) {
            hostent host, *result = &host;
            char buf[8];
            int error = -1;
            EXPECT_EQ(ERANGE, gethostbyname_r(name, &host, buf, sizeof buf, &result, &error)) << name;
            EXPECT_EQ(nullptr, result) << name;
            EXPECT_EQ(NETDB_INTERNAL, error) << name;
        }
    });
}

TEST(GethostbynameR, of_an_unknown_host_reports_why)
{
    in_hooked_coroutine(
        [] {
            hostent host, *result = &host;
            char buf[2048];
            int error = 0;
            gethostbyname_r("no-such-host.invalid", &host, buf, sizeof buf, &result, &error);
            EXPECT_EQ(nullptr, result);
            EXPECT_TRUE(error == HOST_NOT_FOUND || error == TRY_AGAIN || error == NO_RECOVERY) << error;
        },
        60000);
}

TEST(GethostbynameR, serves_several_coroutines_at_once)
{
    on_thread([] {
        Group group;
        int right = 0;
        for (int i = 0; i < 20; ++i) {
            group.go_hooked([&right, i] {
                const std::string name = "192.0.2." + std::to_string(i);
                hostent host, *result = nullptr;
                char buf[1024];
                int error;
                gethostbyname_r(name.c_str(), &host, buf, sizeof buf, &result, &error);
                nap(1);
                right += address_of(result) == name;
            });
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ(20, right);
    });
}

TEST(ResState, belongs_to_the_coroutine)
{
    on_thread([] {
        res_state threads = __res_state(), first = nullptr, second = nullptr;
        Group group;
        group.go_hooked([&] {
            first = __res_state();
            first->retrans = 77;
            nap(5);
            EXPECT_EQ(first, __res_state());
            EXPECT_EQ(77, __res_state()->retrans);
        });
        group.go_hooked([&] {
            second = __res_state();
            second->retrans = 88;
            nap(1);
            EXPECT_EQ(88, __res_state()->retrans);
        });
        EXPECT_NE(nullptr, first);
        EXPECT_NE(nullptr, second);
        EXPECT_NE(first, second);
        EXPECT_NE(threads, first);
        EXPECT_NE(threads, second);
        ASSERT_TRUE(group.run());
    });
}

TEST(ResState, with_hooks_off_belongs_to_the_thread)
{
    on_thread([] {
        res_state threads = __res_state();
        EXPECT_NE(nullptr, threads);
        Co co([&] { EXPECT_EQ(threads, __res_state()); });
        co.resume();
        std::thread([&] { EXPECT_NE(threads, __res_state()); }).join();
    });
}
