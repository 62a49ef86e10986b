// One operation: its coroutines, its descriptors, what becomes of it.
#include "soak.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>

namespace soak {

Global global;

// An operation that takes longer is stuck.
static constexpr long long kLimitNs = 60 * 1000000000LL;

static void print_failure(const Step &step, const char *at, const char *what)
{
    char line[1024];
    const int n = snprintf(line, sizeof line, "soak: FAILED seed=%llu thread=%d life=%d step=%d%s: %s, at \"%s\": %s\n",
                           static_cast<unsigned long long>(global.options.seed), step.slot, step.life, step.number,
                           global.is_child ? " (in a child of fork)" : "", name_of(step.kind), at, what);
    if (write(2, line, static_cast<size_t>(std::min<int>(n, sizeof line - 1))) < 0) {
        _exit(1);
    }
}

[[noreturn]] static void give_up()
{
    if (getenv("SOAK_ABORT") != nullptr) { // for a core, or a debugger
        abort();
    }
    _exit(1);
}

void fail_at(const Step &step, const char *at, const char *format, ...)
{
    char what[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    print_failure(step, at, what);
    give_up();
}

void Task::fail(int line, const char *held, const char *format, ...) const
{
    const int error = errno;
    char what[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    fail_at(step, at, "line %d: expected %s: %s (errno %d)", line, held, what, error);
}

Task::Task(Slot &home, const Step &from)
    : step(from), random(from.seed), slot(home), deadline_(now_ns() + kLimitNs)
{
    ++global.totals.started[static_cast<int>(from.kind)];
    ++global.totals.in_flight;
}

Task::~Task()
{
    if (!dismantled_) {
        fail_at(step, at, "destroyed before it was dismantled");
    }
    --global.totals.in_flight;
}

void Task::stuck() const
{
    fail_at(step, at, "expected to end within %lld s: %d of %zu coroutines have not ended", kLimitNs / 1000000000,
            running_, routines_.size());
}

void *Task::enter(void *argument)
{
    Routine *routine = static_cast<Routine *>(argument);
    if (routine->hooks) {
        co_enable_hook_sys();
    }
    routine->body();
    --routine->task->running_;
    return nullptr;
}

static int private_size(Random &random, bool large)
{
    static const int sizes[] = {32, 32, 32, 48, 64, 100, 128, 128, 256, 1024, 8192};
    static const int large_sizes[] = {256, 256, 300, 512, 1024, 8192};
    return 1024 * (large ? large_sizes[random.below(6)] : sizes[random.below(11)]);
}

stCoRoutine_t *Task::go(std::function<void()> body, StackKind stack, bool hooks)
{
    const bool large = stack == StackKind::Large || stack == StackKind::LargePrivate;
    const bool copy = stack == StackKind::Copy || (stack == StackKind::Any && random.one_in(3)) ||
                      (stack == StackKind::Large && random.one_in(4));
    stCoRoutineAttr_t attr;
    attr.stack_size = private_size(random, large);
    attr.share_stack = !copy ? nullptr : large || random.one_in(2) ? slot.large_copy : slot.small_copy;
    on_copy_stack_ |= copy;

    routines_.push_back(std::unique_ptr<Routine>(new Routine{this, std::move(body), hooks, nullptr}));
    Routine *routine = routines_.back().get();
    const int made = co_create(&routine->co, random.one_in(8) && !copy && !large ? nullptr : &attr, &Task::enter, routine);
    MUST(made == 0, "a coroutine, got %d", made);
    ++running_;
    ++global.totals.coroutines;
    stCoRoutine_t *co = routine->co;
    co_resume(co);
    return co;
}

stShareStack_t *Task::small_copy_stack()
{
    on_copy_stack_ = true;
    return slot.small_copy;
}

int Task::keep(int fd)
{
    MUST(fd >= 0, "a descriptor, got %d", fd);
    fds_.push_back(fd);
    return fd;
}

int Task::own(int fd)
{
    keep(fd);
    MUST(co_hook_fd(fd) == 0, "the hooks to take descriptor %d", fd);
    MUST(co_set_timeout(fd, -1, -1) == 0, "descriptor %d to be known", fd);
    return fd;
}

void Task::close_now(int fd)
{
    const auto found = std::find(fds_.begin(), fds_.end(), fd);
    MUST(found != fds_.end(), "descriptor %d to be this operation's", fd);
    fds_.erase(found);
    const int closed = close(fd);
    MUST(closed == 0, "close(%d) to be 0, got %d", fd, closed);
}

void Task::timer_fired(long long since, long long ms)
{
    const long long took = now_ns() - since;
    MUST(took >= ms * 1000000, "%lld ms at least, woken after %lld ns", ms, took);
    const long late = static_cast<long>((took - ms * 1000000) / 1000);
    long latest = global.totals.latest_us.load();
    while (late > latest && !global.totals.latest_us.compare_exchange_weak(latest, late)) {
    }
    --timers_in_air_;
    ++global.totals.timers_set;
    ++global.totals.timers_fired;
}

void Task::dismantle()
{
    if (running_ != 0) {
        given_up();
    }
    global.totals.timers_set += timers_in_air_;
    global.totals.timers_abandoned += timers_in_air_;
    const bool descriptors_first = random.one_in(2);
    const auto close_all = [this] {
        for (const int fd : fds_) {
            close(fd);
        }
        fds_.clear();
    };
    if (descriptors_first) {
        close_all();
    }
    while (!routines_.empty()) {
        const size_t which = static_cast<size_t>(random.below(static_cast<int>(routines_.size())));
        std::swap(routines_[which], routines_.back());
        co_release(routines_.back()->co);
        ++global.totals.coroutines_released;
        routines_.pop_back();
    }
    close_all();
    dismantled_ = true;
}

} // namespace soak
