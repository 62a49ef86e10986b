// No descriptors: a loop needs two, and is made at the first wait. A wait that cannot have them fails with EMFILE, leaks nothing,
// and works when there are descriptors again; what needs none works throughout.
#include "support.h"

#ifndef COLIB_PEER // the original aborts, or waits on descriptor -1

#include "loop_support.h"

namespace {

using support::Co;
using support::in_child;

// Lets the process open so many more descriptors.
bool leave_descriptors(int more)
{
    // The lowest free numbers are given out first, so those above the limit do not matter.
    std::vector<int> all;
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    int highest = -1;
    for (int i = 0; i < more + 1; ++i) {
        const int fd = fcntl(0, F_DUPFD_CLOEXEC, 0);
        if (fd < 0) {
            return false;
        }
        all.push_back(fd);
        highest = fd;
    }
    for (int fd : all) {
        close(fd);
    }
    limit.rlim_cur = static_cast<rlim_t>(highest);
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

bool lift_limit()
{
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

// In a child, with its first loop still to be made: the first wait in a coroutine.
int first_wait_with(int descriptors)
{
    return in_child([=] {
        int ends[2];
        if (pipe(ends) != 0) {
            return 10;
        }
        int result = -2;
        int error = 0;
        Co co([&] {
            pollfd one = {ends[0], POLLIN, 0};
            errno = 0;
            result = co_poll(co_get_epoll_ct(), &one, 1, 5000);
            error = errno;
        });
        const int open_before = support::open_descriptors();
        if (!leave_descriptors(descriptors)) {
            return 11;
        }
        co.resume();
        if (!lift_limit()) {
            return 12;
        }
        if (descriptors < 2) {
            if (!co.ended() || result != -1 || error != EMFILE) {
                return 13;
            }
            if (support::open_descriptors() != open_before) {
                return 14;
            }
            co.reset();
            co.resume();
        }
        if (co.ended()) {
            return 15;
        }
        if (write(ends[1], "x", 1) != 1 || !support::loop_until([&] { return co.ended(); }) || result != 1) {
            return 16;
        }
        return 0;
    });
}

} // namespace

TEST(NoDescriptors, for_the_first_wait_is_emfile_and_passes)
{
    EXPECT_EQ(0, first_wait_with(0));
    EXPECT_EQ(0, first_wait_with(1));
    EXPECT_EQ(0, first_wait_with(2));
}

TEST(NoDescriptors, at_all_leave_creation_switches_and_conditions_alone)
{
    EXPECT_EQ(0, in_child([] {
                  if (!leave_descriptors(0)) {
                      return 10;
                  }
                  int ran = 0;
                  std::vector<stCoRoutine_t *> all(200);
                  for (stCoRoutine_t *&co : all) {
                      const auto body = [](void *arg) -> void * {
                          ++*static_cast<int *>(arg);
                          co_yield_ct();
                          ++*static_cast<int *>(arg);
                          return nullptr;
                      };
                      if (co_create(&co, nullptr, body, &ran) != 0) {
                          return 11;
                      }
                  }
                  stShareStack_t *group = co_alloc_sharestack(2, 64 * 1024);
                  const stCoRoutineAttr_t at = support::attr(0, group);
                  stCoRoutine_t *copied = nullptr;
                  if (group == nullptr || co_create(&copied, &at, nullptr, nullptr) != 0) {
                      return 12;
                  }
                  co_resume(copied);
                  for (stCoRoutine_t *co : all) {
                      co_resume(co);
                      co_resume(co);
                      co_release(co);
                  }
                  return ran == 400 ? 0 : 13;
              }));
}

TEST(NoDescriptors, in_hooked_calls_is_their_own_error)
{
    EXPECT_EQ(0, in_child([] {
                  int failed_with[3] = {};
                  support::Group group;
                  group.go_hooked([&] {
                      if (!leave_descriptors(0)) {
                          return;
                      }
                      failed_with[0] = socket(AF_INET, SOCK_STREAM, 0) == -1 ? errno : 0;
                      failed_with[1] = fcntl(0, F_DUPFD, 0) == -1 ? errno : 0;
                      int pair[2];
                      failed_with[2] = socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == -1 ? errno : 0;
                      lift_limit();
                      const int fd = socket(AF_INET, SOCK_STREAM, 0);
                      if (fd < 0) {
                          failed_with[0] = -1;
                      }
                      close(fd);
                  });
                  group.run();
                  return failed_with[0] == EMFILE && failed_with[1] == EMFILE && failed_with[2] == EMFILE ? 0 : 1;
              }));
}

// A loop that could not be made at its thread's first wait is made at a later one, and serves both.
TEST(NoDescriptors, for_a_while_in_a_server_cost_it_only_the_waits_of_that_time)
{
    EXPECT_EQ(0, in_child([] {
                  int failed = 0;
                  int slept = 0;
                  std::vector<stCoRoutine_t *> all(50);
                  struct Counts {
                      int *failed;
                      int *slept;
                  } counts{&failed, &slept};
                  const auto body = [](void *arg) -> void * {
                      const Counts &me = *static_cast<Counts *>(arg);
                      for (int i = 0; i < 3; ++i) {
                          if (co_poll(co_get_epoll_ct(), nullptr, 0, 1) == -1 && errno == EMFILE) {
                              ++*me.failed;
                          } else {
                              ++*me.slept;
                          }
                      }
                      return nullptr;
                  };
                  if (!leave_descriptors(0)) {
                      return 10;
                  }
                  for (size_t i = 0; i < all.size(); ++i) {
                      if (i == 25 && !lift_limit()) {
                          return 11;
                      }
                      co_create(&all[i], nullptr, body, &counts);
                      co_resume(all[i]);
                  }
                  const auto all_ended = [&] {
                      for (const stCoRoutine_t *co : all) {
                          if (!co->cEnd) {
                              return false;
                          }
                      }
                      return true;
                  };
                  if (!support::loop_until(all_ended)) {
                      return 12;
                  }
                  return failed + slept == 150 && slept >= 75 ? 0 : 13;
              }));
}

#endif
