// Handlers with SA_ONSTACK, on the signal stack that the library gives the thread for faults, or on the program's own. There
// is one of it, so nobody may leave it in the middle for another coroutine: a call that waits blocks the thread.
#include "loop_support.h"

using namespace support;

#ifndef COLIB_PEER // the original leaves the thread without one

namespace {

constexpr size_t room = 4096;
int full = -1;
int entered, ended, overwritten;
ssize_t results[2];

// Frames of the handler that the next signal must not overwrite, around a call that has to wait.
void waiting_handler(int signal)
{
    const int index = entered++;
    volatile char frame[room];
    memset(const_cast<char *>(frame), signal + index, sizeof frame);
    char bytes[64] = {};
    results[index] = write(full, bytes, sizeof bytes);
    for (const volatile char &byte : frame) {
        overwritten += byte != static_cast<char>(signal + index);
    }
    ++ended;
}

bool fill(int fd)
{
    char bytes[4096] = {};
    while (send(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
    }
    while (send(fd, bytes, 1, MSG_DONTWAIT) > 0) {
    }
    return errno == EAGAIN;
}

// Two coroutines whose handlers write to a full socket, one after the other.
int two_wait_in_a_handler(const stCoRoutineAttr_t *at)
{
    struct sigaction action = {};
    action.sa_handler = waiting_handler;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, nullptr);
    entered = ended = overwritten = 0;
    HookedPair pair;
    Group group;
    bool filled = false;
    group.go_hooked([&] {
        pair = hooked_unix_pair();
        set_timeout_option(pair.fd, SO_SNDTIMEO, 30);
        filled = fill(pair.fd);
    });
    if (!filled) {
        return 2;
    }
    full = pair.fd;
    for (int i = 0; i < 2; ++i) {
        group.go_hooked(
            [] {
                sigset_t none;
                sigemptyset(&none);
                sigprocmask(SIG_SETMASK, &none, nullptr);
                raise(SIGUSR1);
                nap(1);
            },
            at);
    }
    if (!group.run() || ended != 2) {
        return 3;
    }
    if (overwritten != 0) {
        return 4;
    }
    return results[0] == -1 && results[1] == -1 ? 0 : 5;
}

} // namespace

TEST(ProcessSignalStack, AHandlersFramesStayWholeWhileItWaits)
{
    EXPECT_EQ(in_child([] { return two_wait_in_a_handler(nullptr); }), 0);
}

TEST(ProcessSignalStack, AHandlerThatWaitsTakesNothingFromACopyStack)
{
    EXPECT_EQ(in_child([] {
                  const stCoRoutineAttr_t copy = attr(0, co_alloc_sharestack(1, 128 * 1024));
                  return two_wait_in_a_handler(&copy);
              }),
              0);
}

TEST(ProcessSignalStack, TheProgramsOwnIsNotLeftEither)
{
    EXPECT_EQ(in_child([] {
                  stack_t own = {};
                  own.ss_size = 256 * 1024;
                  static void *const memory = malloc(own.ss_size); // (Static: nobody else tells memcheck that it is in use.)
                  own.ss_sp = memory;
                  const stCoRoutineAttr_t copy = attr(0, co_alloc_sharestack(1, 128 * 1024));
                  if (sigaltstack(&own, nullptr) != 0) {
                      return 1;
                  }
                  const int result = two_wait_in_a_handler(nullptr);
                  return result != 0 ? result : two_wait_in_a_handler(&copy);
              }),
              0);
}

namespace {
int polled, slept;
void looking_handler(int)
{
    pollfd one = {full, POLLIN, 0};
    polled = poll(&one, 1, 20);
    char byte;
    slept = static_cast<int>(read(full, &byte, 1)) == -1 && errno == EAGAIN;
}
} // namespace

TEST(ProcessSignalStack, PollAndReadInAHandlerEndWithTheirTime)
{
    EXPECT_EQ(in_child([] {
                  struct sigaction action = {};
                  action.sa_handler = looking_handler;
                  action.sa_flags = SA_ONSTACK;
                  sigaction(SIGUSR1, &action, nullptr);
                  polled = slept = -1;
                  Group group;
                  HookedPair pair;
                  long long began = 0, took = 0;
                  group.go_hooked([&] {
                      pair = hooked_unix_pair();
                      set_timeout_option(pair.fd, SO_RCVTIMEO, 30);
                      full = pair.fd;
                      began = now_ms();
                      raise(SIGUSR1);
                      took = now_ms() - began;
                  });
                  return group.run() && polled == 0 && slept == 1 && took >= 50 ? 0 : 1;
              }),
              0);
}

namespace {
// As one that writes a report: it ran on a large stack before there were coroutines.
void large_handler(int)
{
    volatile char report[200 * 1024];
    for (size_t i = 0; i < sizeof report; i += 1024) {
        report[i] = 7;
    }
    _exit(report[1024] == 7 ? 0 : 1);
}
} // namespace

TEST(ProcessSignalStack, AHandlerOfFaultsThatWasThereBeforeHasRoomForLargeFrames)
{
    EXPECT_EQ(in_child([] {
                  signal(SIGSEGV, large_handler);
                  const stCoRoutineAttr_t large = attr(1024 * 1024);
                  Co co([] { *reinterpret_cast<volatile int *>(8) = 1; }, &large);
                  co.resume();
                  return 2;
              }),
              0);
}

#endif
