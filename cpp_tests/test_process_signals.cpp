// Signals that land on coroutine stacks and in the library's own sections: handlers may ask who runs, signal a condition,
// read, write and close; what they interrupt is none the worse.
#include "support.h"

#include <algorithm>
#include <atomic>
#include <memory>

#include <sys/syscall.h>

using namespace support;

namespace {

// A timer that interrupts this thread again and again.
class Interrupts {
public:
    Interrupts(void (*handler)(int), int every_us, int flags = SA_RESTART)
    {
        struct sigaction action = {};
        action.sa_handler = handler;
        action.sa_flags = flags;
        sigaction(SIGUSR2, &action, nullptr);
        sigevent event = {};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = SIGUSR2;
        event._sigev_un._tid = static_cast<pid_t>(syscall(SYS_gettid));
        itimerspec time = {};
        time.it_value.tv_nsec = time.it_interval.tv_nsec = every_us * 1000L;
        if (timer_create(CLOCK_MONOTONIC, &event, &timer_) != 0 || timer_settime(timer_, 0, &time, nullptr) != 0) {
            std::abort();
        }
    }
    Interrupts(const Interrupts &) = delete;
    Interrupts &operator=(const Interrupts &) = delete;
    ~Interrupts()
    {
        timer_delete(timer_);
        signal(SIGUSR2, SIG_IGN);
    }

private:
    timer_t timer_ = nullptr;
};

// A socket that the hooks know, its peer, and who waits there.
struct Waiter {
    int known = -1, peer = -1;
    // A handler closed `known`. (The number itself says nothing: another waiter may have got it since.)
    std::atomic<bool> gone{false};
    std::unique_ptr<Co> co;

    void open_if_gone()
    {
        if (gone) {
            close(peer);
            open();
        }
    }

    void open()
    {
        int fds[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0) {
            std::abort();
        }
        known = fds[0];
        peer = fds[1];
        if (co_hook_fd(known) != 0) {
            std::abort();
        }
        gone = false;
    }

    // A peer whose other end was closed says so, one way or the other.
    void wake() const
    {
        if (send(peer, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN && errno != EPIPE && errno != ECONNRESET) {
            std::abort();
        }
    }
};

// What the handlers below work on.
std::atomic<Waiter *> to_close{nullptr};
std::atomic<long> closed{0};
std::atomic<long> handled{0};
std::atomic<stCoCond_t *> to_signal{nullptr};
std::atomic<int> to_write{-1};
std::atomic<long> written{0};

[[maybe_unused]] void close_one(int)
{
    const int kept = errno;
    Waiter *const waiter = to_close.exchange(nullptr);
    if (waiter != nullptr) {
        waiter->gone = true;
        close(waiter->known);
        ++closed;
    }
    ++handled;
    errno = kept;
}

[[maybe_unused]] void do_everything(int)
{
    const int kept = errno;
    co_self();
    stCoCond_t *cond = to_signal;
    if (cond != nullptr) {
        co_cond_signal(cond);
    }
    const int fd = to_write;
    if (fd >= 0) {
        written += write(fd, "x", 1) == 1;
        const int copy = dup(fd);
        char byte;
        if (copy >= 0) {
            if (read(copy, &byte, 0) > 0) {
                std::abort();
            }
            close(copy);
        }
    }
    ++handled;
    errno = kept;
}

// Coroutines that wait for sockets, which a handler closes under them, for a second. Returns how many were not woken, or 100 if
// the handler had nearly nothing to do.
[[maybe_unused]] int closes_in_handlers(bool hooked_read, int every_us)
{
    std::vector<Waiter> all(24);
    bool stop = false;
    to_close = nullptr;
    closed = 0;
    for (Waiter &w : all) {
        w.open();
        w.co = std::make_unique<Co>([&w, &stop, hooked_read] {
            co_enable_hook_sys();
            while (!stop) {
                char byte;
                if (hooked_read) {
                    co_set_timeout(w.known, -1, -1);
                    (void)!read(w.known, &byte, 1);
                } else {
                    pollfd p = {w.known, POLLIN, 0};
                    co_poll(co_get_epoll_ct(), &p, 1, -1);
                    (void)!::recv(w.known, &byte, 1, MSG_DONTWAIT);
                }
                w.open_if_gone();
            }
        });
        w.co->resume();
    }
    size_t next = 0;
    const long long end = now_ms() + 1000;
    {
        const Interrupts interrupts(close_one, every_us);
        while (now_ms() < end) {
            // Wakes some, so that registrations change all the time.
            for (size_t i = 0; i < 4; ++i) {
                all[(next + i) % all.size()].wake();
            }
            if (to_close == nullptr) {
                Waiter &w = all[next++ % all.size()];
                if (!w.gone) {
                    to_close = &w;
                }
            }
            loop_rounds(1);
        }
        to_close = nullptr;
    }
    // Everybody can still be woken.
    stop = true;
    for (const Waiter &w : all) {
        w.wake();
    }
    int asleep = 0;
    loop_until(
        [&] {
            asleep = static_cast<int>(std::count_if(all.begin(), all.end(), [](const Waiter &w) { return !w.co->ended(); }));
            return asleep == 0;
        },
        5000);
    for (Waiter &w : all) {
        w.co->release();
        close(w.known);
        close(w.peer);
    }
    return asleep == 0 && closed <= 100 ? 100 : asleep;
}

} // namespace

MENDED(ProcessSignals, ACloseInAHandlerWakesWhoWaitsWhateverItInterrupts)
{
    for (const bool hooked_read : {false, true}) {
        for (const int every_us : {97, 501}) {
            EXPECT_EQ(in_child([&] { return closes_in_handlers(hooked_read, every_us); }), 0)
                << hooked_read << ", " << every_us;
        }
    }
}

// Whatever the library does is interrupted ten thousand times a second, on private and on copy stacks.
MENDED(ProcessSignals, HandlersInterruptEverythingTheLibraryDoes)
{
    for (const int every_us : {101, 997}) {
        EXPECT_EQ(in_child([&] {
                      stShareStack_t *share = co_alloc_sharestack(2, 128 * 1024);
                      Pipe pipe_;
                      fcntl(pipe_.wr, F_SETFL, O_NONBLOCK);
                      fcntl(pipe_.rd, F_SETFL, O_NONBLOCK);
                      to_signal = co_cond_alloc();
                      to_write = pipe_.wr;
                      handled = written = 0;
                      long read_back = 0;
                      bool stop = false;
                      long signalled = 0;
                      Co reads([&] {
                          char bytes[256];
                          while (!stop) {
                              poll_one(pipe_.rd, 10);
                              ssize_t n;
                              while ((n = ::read(pipe_.rd, bytes, sizeof bytes)) > 0) {
                                  read_back += n;
                              }
                          }
                      });
                      Co waits([&] {
                          while (!stop) {
                              signalled += co_cond_wait(to_signal, 20) == 0;
                          }
                      });
                      reads.resume();
                      waits.resume();
                      long rounds = 0;
                      {
                          const Interrupts interrupts(do_everything, every_us);
                          const long long end = now_ms() + 1500;
                          while (now_ms() < end) {
                              const stCoRoutineAttr_t at = ++rounds % 2 == 0 ? attr(0, share) : attr(64 * 1024);
                              std::vector<std::unique_ptr<Co>> all;
                              for (int i = 0; i < 20; ++i) {
                                  all.push_back(std::make_unique<Co>(
                                      [i] {
                                          co_yield_ct();
                                          poll_one(-1, i % 3);
                                          co_yield_ct();
                                      },
                                      &at));
                                  all.back()->resume();
                              }
                              for (auto &co : all) {
                                  co->resume();
                              }
                              loop_rounds(3);
                              for (size_t i = 0; i < all.size(); i += 2) {
                                  all[i]->reset();
                                  all[i]->resume();
                              }
                              // The rest are released as they are: yielded, waiting, or at their end.
                          }
                      }
                      stop = true;
                      if (!loop_until([&] { return reads.ended() && waits.ended(); }, 5000)) {
                          return 1;
                      }
                      char bytes[256];
                      ssize_t n;
                      while ((n = ::read(pipe_.rd, bytes, sizeof bytes)) > 0) {
                          read_back += n;
                      }
                      if (read_back != written || handled < 100 || signalled == 0) {
                          return 2;
                      }
                      return rounds > 5 ? 0 : 3;
                  }),
                  0)
            << every_us;
    }
}

// fork holds the library's locks; a handler that wants one must not run meanwhile.
MENDED(ProcessSignals, HandlersMayCloseAndSignalWhileTheThreadForks)
{
    EXPECT_EQ(in_child([] {
                  // A condition of another thread: signalling it takes a lock.
                  std::atomic<bool> stop{false};
                  std::atomic<bool> there{false};
                  stCoCond_t *cond = co_cond_alloc();
                  std::thread other([&] {
                      Co waits([&] {
                          while (!stop) {
                              there = true;
                              co_cond_timedwait(cond, 50);
                          }
                      });
                      waits.resume();
                      loop_until([&] { return waits.ended(); }, 60000);
                  });
                  while (!there) {
                      std::this_thread::yield();
                  }
                  Pipe pipe_;
                  fcntl(pipe_.wr, F_SETFL, O_NONBLOCK);
                  to_signal = cond;
                  to_write = pipe_.wr;
                  int bad = 0;
                  {
                      const Interrupts interrupts(do_everything, 53);
                      Co forks([&] {
                          for (int i = 0; i < 300; ++i) {
                              const pid_t pid = fork();
                              if (pid == 0) {
                                  _exit(close(pipe_.rd) == 0 ? 0 : 1);
                              }
                              int status = 0;
                              while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
                              }
                              bad += status != 0;
                          }
                      });
                      forks.resume();
                  }
                  stop = true;
                  other.join();
                  return bad == 0 ? 0 : 1;
              }),
              0);
}

// The mask is as it was, in parent and child.
MENDED(ProcessSignals, ForkLeavesTheSignalMaskAlone)
{
    EXPECT_EQ(in_child([] {
                  sigset_t wanted;
                  sigemptyset(&wanted);
                  sigaddset(&wanted, SIGUSR1);
                  sigaddset(&wanted, SIGTERM);
                  pthread_sigmask(SIG_SETMASK, &wanted, nullptr);
                  Co co([] { co_yield_ct(); });
                  co.resume();
                  const auto same = [&] {
                      sigset_t now;
                      pthread_sigmask(SIG_BLOCK, nullptr, &now);
                      for (int i = 1; i < 65; ++i) {
                          if (sigismember(&now, i) != sigismember(&wanted, i)) {
                              return false;
                          }
                      }
                      return true;
                  };
                  const int child = in_child([&] { return same() ? 0 : 1; });
                  return child == 0 && same() ? 0 : 1;
              }),
              0);
}
