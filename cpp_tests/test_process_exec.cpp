// Programs started from a coroutine, in every way there is: the coroutine gets their results, the other coroutines
// and their waits go on as if nothing had been.
#include "support.h"

#include <spawn.h>

using namespace support;

extern char **environ;

namespace {

const char *const kTrue[] = {"/bin/sh", "-c", "exit 7", nullptr};

[[maybe_unused]] char *const *words(const char *const *argv)
{
    return const_cast<char *const *>(argv);
}

[[maybe_unused]] int status_of(pid_t pid)
{
    int status = 0;
    pid_t got = -1;
    while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR) {
    }
    return got == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

enum class Hooks { Off, On, All };
enum class Stack { Private, Copy };

[[maybe_unused]] const std::vector<std::pair<Stack, Hooks>> kWays = {
    {Stack::Private, Hooks::Off}, {Stack::Private, Hooks::On}, {Stack::Private, Hooks::All},
    {Stack::Copy, Hooks::Off},    {Stack::Copy, Hooks::On},    {Stack::Copy, Hooks::All},
};

// Runs `start` in a coroutine of each kind, in a process of its own, while another coroutine waits for a descriptor and
// a third for a time: all three have to come to their end.
[[maybe_unused]] void in_every_kind_of_coroutine(const std::function<bool()> &start)
{
    for (const auto &[stack, hooks] : kWays) {
        const int result = in_child([&, s = stack, h = hooks] {
            if (h == Hooks::All && co_set_hooks("all") != 0) {
                return 10;
            }
            stShareStack_t *share = co_alloc_sharestack(1, 256 * 1024);
            const stCoRoutineAttr_t at = s == Stack::Copy ? attr(0, share) : attr(256 * 1024);
            Pipe pipe_;
            int polled = -2;
            int slept = -2;
            int started = -1;
            Co polls([&] { polled = poll_one(pipe_.rd, 20000); }, &at);
            Co sleeps([&] { slept = poll_one(-1, 20); }, &at);
            Co starts(
                [&] {
                    if (h != Hooks::Off) {
                        co_enable_hook_sys();
                    }
                    for (int i = 0; i < 3; ++i) {
                        started = start() ? 1 : 0;
                        if (started == 0) {
                            return;
                        }
                        poll_one(-1, 1);
                    }
                    pipe_.put();
                },
                &at);
            polls.resume();
            sleeps.resume();
            starts.resume();
            if (!loop_until([&] { return starts.ended() && (started == 0 || polled != -2) && slept != -2; })) {
                return 11;
            }
            return started == 1 && polled == 1 && slept == 0 ? 0 : 12;
        });
        EXPECT_EQ(result, 0) << (stack == Stack::Copy ? "copy" : "private") << " stack, hooks "
                             << static_cast<int>(hooks);
    }
}

} // namespace

MENDED(ProcessExec, ForkAndExecFromACoroutine)
{
    in_every_kind_of_coroutine([] {
        const pid_t pid = fork();
        if (pid == 0) {
            execv(kTrue[0], words(kTrue));
            _exit(127);
        }
        return status_of(pid) == 7;
    });
}

MENDED(ProcessExec, VforkAndExecFromACoroutine)
{
    in_every_kind_of_coroutine([] {
        const pid_t pid = vfork();
        if (pid == 0) {
            execv(kTrue[0], words(kTrue));
            _exit(127);
        }
        return status_of(pid) == 7;
    });
}

MENDED(ProcessExec, AVforkWhoseExecFailsLeavesTheCoroutine)
{
    in_every_kind_of_coroutine([] {
        const pid_t pid = vfork();
        if (pid == 0) {
            const char *argv[] = {"/nowhere/at/all", nullptr};
            execv(argv[0], words(argv));
            _exit(errno == ENOENT ? 3 : 4);
        }
        return status_of(pid) == 3;
    });
}

// What a server does between vfork and exec: puts pipes in the place of the standard descriptors, and closes the rest.
MENDED(ProcessExec, AVforkChildThatMovesDescriptorsLeavesTheParentsWaits)
{
    in_every_kind_of_coroutine([] {
        int fds[2];
        if (pipe(fds) != 0) {
            return false;
        }
        const pid_t pid = vfork();
        if (pid == 0) {
            dup2(fds[1], 1);
            for (int fd = 3; fd < 64; ++fd) {
                close(fd);
            }
            const char *argv[] = {"/bin/echo", "hello", nullptr};
            execv(argv[0], words(argv));
            _exit(127);
        }
        close(fds[1]);
        char text[16] = "";
        size_t have = 0;
        ssize_t got = 0;
        while ((got = read(fds[0], text + have, sizeof text - 1 - have)) > 0) {
            have += static_cast<size_t>(got);
        }
        close(fds[0]);
        return status_of(pid) == 0 && strcmp(text, "hello\n") == 0;
    });
}

MENDED(ProcessExec, PosixSpawnFromACoroutine)
{
    in_every_kind_of_coroutine([] {
        pid_t pid = -1;
        if (posix_spawn(&pid, kTrue[0], nullptr, nullptr, words(kTrue), environ) != 0) {
            return false;
        }
        return status_of(pid) == 7;
    });
}

MENDED(ProcessExec, PopenReadsAndWritesFromACoroutine)
{
    in_every_kind_of_coroutine([] {
        FILE *from = popen("echo one; sleep 0.01; echo two", "r");
        char text[32] = "";
        if (from == nullptr) {
            return false;
        }
        const size_t got = fread(text, 1, sizeof text - 1, from);
        if (pclose(from) != 0 || got != 8 || strcmp(text, "one\ntwo\n") != 0) {
            return false;
        }
        FILE *to = popen("read a; test \"$a\" = word", "w");
        if (to == nullptr || fputs("word\n", to) < 0) {
            return false;
        }
        return pclose(to) == 0;
    });
}

MENDED(ProcessExec, SystemFromACoroutine)
{
    in_every_kind_of_coroutine([] {
        const int status = system("exit 9");
        return WIFEXITED(status) && WEXITSTATUS(status) == 9;
    });
}

// A server that counts its children in SIGCHLD's handler, which interrupts the loop, and wakes who waits for them.
MENDED(ProcessExec, ASigchldHandlerWakesTheCoroutineThatWaitsForItsChild)
{
    static stCoCond_t *ended;
    static volatile sig_atomic_t children;
    EXPECT_EQ(in_child([] {
                  ended = co_cond_alloc();
                  struct sigaction action = {};
                  action.sa_handler = [](int) {
                      const int kept = errno;
                      while (waitpid(-1, nullptr, WNOHANG) > 0) {
                          ++children;
                      }
                      co_cond_signal(ended);
                      errno = kept;
                  };
                  action.sa_flags = SA_RESTART;
                  sigaction(SIGCHLD, &action, nullptr);
                  const int wanted = 20;
                  Co starts([] {
                      co_enable_hook_sys();
                      for (int i = 0; i < wanted; ++i) {
                          const int before = children;
                          pid_t pid = -1;
                          posix_spawn(&pid, kTrue[0], nullptr, nullptr, words(kTrue), environ);
                          while (children == before) {
                              co_cond_timedwait(ended, 20);
                          }
                      }
                  });
                  starts.resume();
                  const bool done = loop_until([&] { return starts.ended(); });
                  return done && children == wanted ? 0 : 1;
              }),
              0);
}

namespace {

// A process with coroutines of each kind that wait daemonises; the daemon's coroutines come to their ends and say so.
[[maybe_unused]] bool daemon_serves(bool close_standard, bool from_coroutine)
{
    Pipe answer;
    Pipe request;
    const pid_t pid = fork();
    if (pid == 0) {
        alarm(30);
        stShareStack_t *share = co_alloc_sharestack(1, 128 * 1024);
        const stCoRoutineAttr_t copy = attr(0, share);
        stCoCond_t *cond = co_cond_alloc();
        int done = 0;
        const auto polls = [&] { done += poll_one(request.rd, 20000) == 1; };
        const auto sleeps = [&] { done += poll_one(-1, 30) == 0; };
        const auto waits = [&] { done += co_cond_wait(cond, 20000) == 0; };
        Co all[] = {Co(polls), Co(sleeps), Co(waits), Co(polls, &copy), Co(sleeps, &copy), Co(waits, &copy)};
        for (Co &co : all) {
            co.resume();
        }
        const auto daemonise = [&] {
            if (daemon(0, close_standard ? 0 : 1) != 0) {
                _exit(1);
            }
            alarm(30);
        };
        Co becomes(daemonise);
        if (from_coroutine) {
            becomes.resume();
        } else {
            daemonise();
        }
        answer.put('d'); // the parent's answer would never come: it has gone
        co_cond_broadcast(cond);
        const bool served = loop_until([&] { return done == 6; });
        answer.put(served ? 'k' : 'n');
        _exit(0);
    }
    char c = 0;
    const bool gone = status_of(pid) == 0;
    const bool began = ::read(answer.rd, &c, 1) == 1 && c == 'd';
    request.put();
    const bool served = ::read(answer.rd, &c, 1) == 1 && c == 'k';
    return gone && began && served;
}

} // namespace

MENDED(ProcessExec, ADaemonServesTheWaitsThatWereThereBefore)
{
    EXPECT_TRUE(daemon_serves(false, false));
    EXPECT_TRUE(daemon_serves(true, false));
}

MENDED(ProcessExec, ACoroutineMayDaemonise)
{
    EXPECT_TRUE(daemon_serves(true, true));
}

// The old way: forks, and closes every number it does not know, the loop's own among them.
MENDED(ProcessExec, ADaemonThatClosesEveryNumberGoesOnWithItsTimers)
{
    for (const bool with_close_range : {false, true}) {
        EXPECT_EQ(in_child([&] {
                      int slept = -2;
                      Co sleeps([&] { slept = poll_one(-1, 50); });
                      sleeps.resume();
                      loop_rounds(2);
                      const pid_t pid = fork();
                      if (pid > 0) {
                          return status_of(pid);
                      }
                      alarm(30);
                      setsid();
                      if (with_close_range) {
                          close_range(3, ~0U, 0);
                      } else {
                          for (int fd = 3; fd < 1024; ++fd) {
                              close(fd);
                          }
                      }
                      Pipe fresh;
                      int polled = -2;
                      Co polls([&] { polled = poll_one(fresh.rd, 20000); });
                      polls.resume();
                      const bool timed = loop_until([&] { return slept == 0; });
                      fresh.put();
                      const bool woken = loop_until([&] { return polled == 1; });
                      _exit(timed && woken ? 0 : 1);
                      return 1;
                  }),
                  0);
    }
}

MENDED(ProcessExec, ExecInACoroutineReplacesTheProcess)
{
    for (const Stack stack : {Stack::Private, Stack::Copy}) {
        EXPECT_EQ(in_child([&] {
                      stShareStack_t *share = co_alloc_sharestack(1, 128 * 1024);
                      const stCoRoutineAttr_t at = stack == Stack::Copy ? attr(0, share) : attr(0);
                      Co waits([] { poll_one(-1, 20000); });
                      waits.resume();
                      Co replaces([] { execv(kTrue[0], words(kTrue)); }, &at);
                      replaces.resume();
                      return 1;
                  }),
                  7);
    }
}

// The new program has none of the library's descriptors: they are all close-on-exec.
MENDED(ProcessExec, NoDescriptorOfTheLibraryReachesTheNewProgram)
{
    EXPECT_EQ(in_child([] {
                  const int before = open_descriptors();
                  Pipe pipe_;
                  Co polls([&] { poll_one(pipe_.rd, 20000); });
                  polls.resume();
                  loop_rounds(2);
                  const int after = open_descriptors();
                  if (after < before + 3) {
                      return 1; // no loop's descriptor is there to leak
                  }
                  char command[128];
                  snprintf(command, sizeof command, "test $(ls /proc/self/fd | wc -l) = %d",
                           before + 2 + 1); // the pipe, and ls's directory
                  const int status = system(command);
                  return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
              }),
              0);
}
