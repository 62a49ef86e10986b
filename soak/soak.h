// The soak: threads with loops that do everything the library offers at random, each operation checked by a model.
//
//   main.cpp       options, progress, the watchdog, the summary
//   slot.cpp       a slot: one thread after the other, each with a loop, that starts operations step by step
//   task.cpp       one operation: its coroutines, its descriptors, what becomes of it
//   bytes.cpp, waits.cpp, stacks.cpp, across.cpp, process.cpp    the operations
//
// Step n of life l of slot s is made of random numbers that come from the seed, s, l and n alone: the same seed gives the
// same operations with the same choices. How threads interleave, and so what an operation meets, is not repeated.
#ifndef COLIB_SOAK_H
#define COLIB_SOAK_H

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "co_comm.h"
#include "co_routine.h"
#include "co_routine_inner.h"

namespace soak {

// splitmix64.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t next()
    {
        uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    int below(int n) { return static_cast<int>(next() % static_cast<uint64_t>(n)); }
    int between(int least, int most) { return least + below(most - least + 1); }
    bool one_in(int n) { return below(n) == 0; }

private:
    uint64_t state_;
};

// The operations. Keep `kKinds` in slot.cpp in step.
enum class Kind {
    Echo,
    EchoAcross,
    PollMany,
    CloseWhileWaiting,
    DupWhileWaiting,
    Timers,
    Condition,
    SignalAcross,
    Mutex,
    Lookup,
    Release,
    ReleaseAcross,
    Nest,
    Depth,
    Storm,
    Reset,
    Exceptions,
    Specifics,
    Environment,
    NestedLoop,
    Fork,
    HookChoice,
    ThrowFromCallback,
    Ticks, // one for each life, started with it
    Serve, // the other side of EchoAcross
    Count,
};
constexpr int kKindCount = static_cast<int>(Kind::Count);
const char *name_of(Kind kind);

struct Options {
    double minutes = 10;
    uint64_t seed = 0;
    int threads = 3;
    int rate = 400; // steps a second in each thread
    int only = -1;  // one kind alone
};

// What was done, for the progress line, the table at the end and its last checks.
struct Totals {
    std::atomic<long> started[kKindCount] = {};
    std::atomic<long> completed[kKindCount] = {};
    std::atomic<long> released[kKindCount] = {}; // half-way
    std::atomic<long> coroutines{0};
    std::atomic<long> coroutines_released{0};
    std::atomic<long> bytes_sent{0}, bytes_received{0};                       // of operations that came to their end
    std::atomic<long> signals_sent{0}, wakes{0};                              // of conditions, likewise
    std::atomic<long> timers_set{0}, timers_fired{0}, timers_abandoned{0};
    std::atomic<long> latest_us{0};
    std::atomic<long> unix_signals{0};
    std::atomic<long> lives{0}, lives_cut{0}; // threads, and those that ended with everything in flight
    std::atomic<int> children{0};
    std::atomic<int> in_flight{0};
};

// In Settle no step begins any more, and everything in flight comes to its end.
enum class Phase { Run, Settle, End };

struct Global {
    Options options;
    Totals totals;
    std::atomic<Phase> phase{Phase::Run};
    bool is_child = false; // of fork
    bool localhost = false;
    std::vector<std::unique_ptr<class Slot>> slots;
};
extern Global global;

inline long long now_ns()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

inline uint8_t byte_at(uint64_t seed, long offset)
{
    return static_cast<uint8_t>(seed + static_cast<uint64_t>(offset) * 131 + (static_cast<uint64_t>(offset) >> 8) * 7);
}

// Which step of which life began something.
struct Step {
    Kind kind;
    int slot;
    int life;
    int number;
    uint64_t seed;
};

[[noreturn]] void fail_at(const Step &step, const char *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum class StackKind { Any, Large, LargePrivate, Copy };

// One operation: starts coroutines in `start`, and is complete when all have ended.
class Task {
public:
    Task(Slot &home, const Step &from);
    virtual ~Task();
    Task(const Task &) = delete;
    Task &operator=(const Task &) = delete;

    virtual void start() = 0;
    // All coroutines have ended: the last checks, and the sums.
    virtual void finished() {}
    // Whether it is over.
    virtual bool ended() const { return running_ == 0; }
    // Left behind by a thread that ended: whether it can be dropped without a wait for something else.
    virtual bool can_go() { return true; }
    // It is given up half-way: called before its coroutines are released.
    virtual void given_up() {}

    // Releases the coroutines and closes the descriptors, in an order that the step's random numbers say. In any thread
    // after the end of its own.
    void dismantle();
    virtual bool overdue(long long now) const { return now > deadline_; }
    [[noreturn]] void stuck() const;
    bool on_copy_stack() const { return on_copy_stack_; }

    const Step step;
    bool may_be_released = true;

protected:
    // A new coroutine, which is resumed at once. It must leave nothing behind that only a destructor gives back: it may be
    // released whenever it waits.
    stCoRoutine_t *go(std::function<void()> body, StackKind stack = StackKind::Any, bool hooks = true);
    // A descriptor that goes when the operation does. The hooks know it, and calls on it wait for ever.
    int own(int fd);
    // As `own`, left as it was made.
    int keep(int fd);
    void close_now(int fd);
    // A coroutine that `go` did not make is on a copy stack.
    stShareStack_t *small_copy_stack();
    // A timer of `ms` milliseconds was waited for from `since` on.
    void timer_set() { ++timers_in_air_; }
    void timer_fired(long long since, long long ms);

    [[noreturn]] void fail(int line, const char *held, const char *format, ...) const
        __attribute__((format(printf, 4, 5)));

    Random random;
    Slot &slot;
    const char *at = "start"; // what it is doing, for messages

private:
    struct Routine {
        Task *task;
        std::function<void()> body;
        bool hooks;
        stCoRoutine_t *co;
    };
    static void *enter(void *routine);

    std::vector<std::unique_ptr<Routine>> routines_;
    std::vector<int> fds_;
    int running_ = 0;
    int timers_in_air_ = 0;
    bool on_copy_stack_ = false;
    bool dismantled_ = false;
    long long deadline_;
};

// In an operation: what must hold, and what was expected if it does not.
#define MUST(holds, ...)                                \
    do {                                                \
        if (!(holds)) {                                 \
            fail(__LINE__, #holds, __VA_ARGS__);        \
        }                                               \
    } while (0)

std::unique_ptr<Task> make_bytes(Slot &slot, const Step &step);
std::unique_ptr<Task> make_waits(Slot &slot, const Step &step);
std::unique_ptr<Task> make_stacks(Slot &slot, const Step &step);
std::unique_ptr<Task> make_across(Slot &slot, const Step &step);
std::unique_ptr<Task> make_process(Slot &slot, const Step &step);

// Threads, one after the other.
class Slot {
public:
    explicit Slot(int index);

    void begin() { thread_ = std::thread(&Slot::lives, this); }
    void join() { thread_.join(); }
    // Something to do in this slot's thread, now or in the next life.
    void post(std::function<void(Slot &)> mail);
    Slot &another(Random &random) const;
    // Puts a task into the slot and starts it. Its thread alone.
    void take(std::unique_ptr<Task> task);
    void watch(long long now);
    // A child of fork: gives up everything but `mine`, then does `count` operations of its own.
    void in_child_of_fork(Task *mine, uint64_t seed, int count);

    const int index;
    int life = 0;
    bool ending = false; // the life's last operations come to their end
    stShareStack_t *small_copy = nullptr, *large_copy = nullptr;
    // What the signal handler uses; see process.cpp.
    std::atomic<stCoCond_t *> tick{nullptr};
    std::atomic<int> tick_pipe{-1};
    std::atomic<long> tick_bytes{0};

private:
    void lives();
    void live();
    static int turn(void *self);
    int one_turn();
    void one_step();
    void reap();
    void drop_orphans(size_t most);
    bool deliver();
    std::unique_ptr<Task> make(const Step &step);
    Step step_of(int number, Kind kind) const;
    void drop(std::unique_ptr<Task> task);

    std::thread thread_;
    std::vector<std::unique_ptr<Task>> tasks_;
    std::vector<std::unique_ptr<Task>> orphans_; // of the life before
    std::mutex mailbox_lock_;
    std::deque<std::function<void(Slot &)>> mailbox_;
    int steps_ = 0;
    int steps_wanted_ = 0;
    bool settles_ = false;
    long long begun_ns_ = 0;
    long long looked_ns_ = 0;
    std::atomic<long long> heartbeat_{0};
    std::atomic<Kind> doing_{Kind::Count};
};

// A life's signals: a timer of its own, handled in its thread. In process.cpp.
struct Ticker {
    Ticker(Slot &slot, Random &random);
    ~Ticker();
    timer_t timer;
};
void prepare_signals();

} // namespace soak

#endif
