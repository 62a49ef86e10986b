// Private environment variables of coroutines. The list of names is the process's and given once.
#include "loop_support.h"

using namespace support;

namespace {

void name_the_private_ones()
{
    const char *names[] = {"COLIB_PRIVATE_B", "COLIB_PRIVATE_A", "", nullptr, "COLIB_PRIVATE_A",
                           "COLIB_PRIVATE_C"};
    co_set_env_list(names, sizeof names / sizeof names[0]);
}

class Env : public testing::Test {
protected:
    static void SetUpTestSuite() { name_the_private_ones(); }
    void TearDown() override
    {
        unsetenv("COLIB_PRIVATE_A");
        unsetenv("COLIB_PUBLIC");
    }
};

std::string value_of(const char *name)
{
    const char *value = getenv(name);
    return value != nullptr ? value : "(unset)";
}

} // namespace

TEST_F(Env, is_private_to_each_coroutine)
{
    on_thread([] {
        Group group;
        std::vector<std::string> seen;
        for (const char *value : {"one", "two", "three"}) {
            group.go_hooked([&, value] {
                EXPECT_EQ("(unset)", value_of("COLIB_PRIVATE_A"));
                EXPECT_EQ(0, setenv("COLIB_PRIVATE_A", value, 1));
                nap(5);
                seen.push_back(value_of("COLIB_PRIVATE_A"));
            });
        }
        ASSERT_TRUE(group.run());
        EXPECT_EQ((std::vector<std::string>{"one", "two", "three"}), seen);
        EXPECT_EQ("(unset)", value_of("COLIB_PRIVATE_A"));
    });
}

TEST_F(Env, starts_unset_even_where_the_process_has_a_value)
{
    setenv("COLIB_PRIVATE_A", "of the process", 1);
    in_hooked_coroutine([] {
        EXPECT_EQ("(unset)", value_of("COLIB_PRIVATE_A"));
        setenv("COLIB_PRIVATE_A", "mine", 1);
        co_disable_hook_sys();
        EXPECT_EQ("of the process", value_of("COLIB_PRIVATE_A"));
        co_enable_hook_sys();
        EXPECT_EQ("mine", value_of("COLIB_PRIVATE_A"));
    });
    EXPECT_EQ("of the process", value_of("COLIB_PRIVATE_A"));
}

TEST_F(Env, with_hooks_off_is_the_process_one)
{
    on_thread([] {
        Group group;
        group.go([] { setenv("COLIB_PRIVATE_A", "shared", 1); });
        group.go([] { EXPECT_EQ("shared", value_of("COLIB_PRIVATE_A")); });
        EXPECT_EQ("shared", value_of("COLIB_PRIVATE_A"));
    });
}

TEST_F(Env, keeps_other_names_in_the_process)
{
    in_hooked_coroutine([] {
        EXPECT_EQ(0, setenv("COLIB_PUBLIC", "for all", 1));
        EXPECT_EQ("for all", value_of("COLIB_PUBLIC"));
    });
    EXPECT_EQ("for all", value_of("COLIB_PUBLIC"));
    in_hooked_coroutine([] {
        EXPECT_EQ("for all", value_of("COLIB_PUBLIC"));
        EXPECT_EQ(0, unsetenv("COLIB_PUBLIC"));
    });
    EXPECT_EQ("(unset)", value_of("COLIB_PUBLIC"));
}

TEST_F(Env, is_overwritten_only_where_asked)
{
    in_hooked_coroutine([] {
        EXPECT_EQ(0, setenv("COLIB_PRIVATE_A", "first", 0));
        EXPECT_EQ("first", value_of("COLIB_PRIVATE_A"));
        EXPECT_EQ(0, setenv("COLIB_PRIVATE_A", "second", 0));
        EXPECT_EQ("first", value_of("COLIB_PRIVATE_A"));
        EXPECT_EQ(0, setenv("COLIB_PRIVATE_A", "third", 1));
        EXPECT_EQ("third", value_of("COLIB_PRIVATE_A"));
    });
}

TEST_F(Env, is_unset_for_one_coroutine_alone)
{
    setenv("COLIB_PRIVATE_A", "of the process", 1);
    in_hooked_coroutine([] {
        setenv("COLIB_PRIVATE_A", "mine", 1);
        EXPECT_EQ(0, unsetenv("COLIB_PRIVATE_A"));
        EXPECT_EQ("(unset)", value_of("COLIB_PRIVATE_A"));
        EXPECT_EQ(0, unsetenv("COLIB_PRIVATE_A"));
    });
    EXPECT_EQ("of the process", value_of("COLIB_PRIVATE_A"));
}

TEST_F(Env, copies_the_value)
{
    in_hooked_coroutine([] {
        char value[] = "before";
        setenv("COLIB_PRIVATE_B", value, 1);
        value[0] = 'X';
        EXPECT_EQ("before", value_of("COLIB_PRIVATE_B"));
    });
}

TEST_F(Env, keeps_several_names_apart)
{
    in_hooked_coroutine([] {
        setenv("COLIB_PRIVATE_A", "a", 1);
        setenv("COLIB_PRIVATE_B", "b", 1);
        setenv("COLIB_PRIVATE_C", "c", 1);
        EXPECT_EQ("a", value_of("COLIB_PRIVATE_A"));
        EXPECT_EQ("b", value_of("COLIB_PRIVATE_B"));
        EXPECT_EQ("c", value_of("COLIB_PRIVATE_C"));
    });
}

TEST_F(Env, is_private_to_the_main_coroutine_too)
{
    setenv("COLIB_PRIVATE_A", "of the process", 1);
    on_thread([] {
        Co environment([] {});
        co_enable_hook_sys();
        EXPECT_EQ("(unset)", value_of("COLIB_PRIVATE_A"));
        setenv("COLIB_PRIVATE_A", "main's", 1);
        EXPECT_EQ("main's", value_of("COLIB_PRIVATE_A"));
        Co other([] {
            co_enable_hook_sys();
            EXPECT_EQ("(unset)", value_of("COLIB_PRIVATE_A"));
        });
        other.resume();
        co_disable_hook_sys();
        EXPECT_EQ("of the process", value_of("COLIB_PRIVATE_A"));
    });
}

TEST_F(Env, goes_by_the_first_list_alone)
{
    const char *names[] = {"COLIB_TOO_LATE"};
    co_set_env_list(names, 1);
    in_hooked_coroutine([] {
        setenv("COLIB_TOO_LATE", "public", 1);
        setenv("COLIB_PRIVATE_A", "private", 1);
    });
    EXPECT_EQ("public", value_of("COLIB_TOO_LATE"));
    EXPECT_EQ("(unset)", value_of("COLIB_PRIVATE_A"));
    unsetenv("COLIB_TOO_LATE");
}

TEST_F(Env, outlives_a_reset)
{
    on_thread([] {
        std::vector<std::string> seen;
        Co co([&] {
            co_enable_hook_sys();
            seen.push_back(value_of("COLIB_PRIVATE_A"));
            setenv("COLIB_PRIVATE_A", "kept", 1);
        });
        co.resume();
        co.reset();
        co.resume();
        EXPECT_EQ((std::vector<std::string>{"(unset)", "kept"}), seen);
    });
}

TEST_F(Env, of_a_thread_without_an_environment_is_the_process_one)
{
    setenv("COLIB_PRIVATE_A", "of the process", 1);
    on_thread([] {
        EXPECT_EQ("of the process", value_of("COLIB_PRIVATE_A"));
        EXPECT_EQ(nullptr, co_self());
    });
}

MENDED(EnvMemory, is_freed_with_the_coroutine)
{
    name_the_private_ones();
    on_thread([] {
        const std::string large(100000, 'v');
        const auto use = [&](int times) {
            for (int i = 0; i < times; ++i) {
                Co co([&] {
                    co_enable_hook_sys();
                    setenv("COLIB_PRIVATE_A", large.c_str(), 1);
                });
                co.resume();
            }
        };
        use(50);
        const long before = status_kib("VmRSS");
        use(2000); // 200 MB, were they kept
        EXPECT_LT(status_kib("VmRSS") - before, 20000);
    });
}

TEST(EnvErrors, are_those_of_libc)
{
    name_the_private_ones();
    in_hooked_coroutine([] {
        EXPECT_EQ(-1, setenv("", "x", 1));
        EXPECT_EQ(EINVAL, errno);
        EXPECT_EQ(-1, setenv("A=B", "x", 1));
        EXPECT_EQ(EINVAL, errno);
        EXPECT_EQ(-1, unsetenv(""));
        EXPECT_EQ(EINVAL, errno);
    });
}
