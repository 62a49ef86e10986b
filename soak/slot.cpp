// A slot: one thread after the other, each with a loop, that starts operations step by step.
#include "soak.h"

#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace soak {

namespace {

struct KindOf {
    const char *name;
    int weight;
    std::unique_ptr<Task> (*make)(Slot &, const Step &);
};

const KindOf kKinds[kKindCount] = {
    {"echo", 20, make_bytes},
    {"echo across threads", 6, make_across},
    {"poll of many", 6, make_bytes},
    {"close while waiting", 6, make_bytes},
    {"dup while waiting", 6, make_bytes},
    {"timers", 20, make_waits},
    {"condition", 10, make_waits},
    {"signal across threads", 6, make_across},
    {"mutex", 6, make_waits},
    {"lookup", 4, make_waits},
    {"release while waiting", 8, make_waits},
    {"release across threads", 8, make_across},
    {"nested resumes", 8, make_stacks},
    {"copy stack depth", 10, make_stacks},
    {"create and release", 4, make_stacks},
    {"reset", 4, make_stacks},
    {"exceptions in flight", 6, make_stacks},
    {"specifics", 4, make_stacks},
    {"environment", 3, make_stacks},
    {"nested loop", 2, make_stacks},
    {"fork", 1, make_process},
    {"hook choice", 1, make_process},
    {"throw from callback", 1, nullptr},
    {"signals", 0, make_process},
    {"serve another thread", 0, nullptr},
};

// Tasks in flight in one slot at most.
constexpr size_t kMost = 150;
constexpr long long kSecond = 1000000000;

} // namespace

const char *name_of(Kind kind)
{
    return kind == Kind::Count ? "nothing" : kKinds[static_cast<int>(kind)].name;
}

Slot::Slot(int number) : index(number)
{
    // They stay until the process ends: so they are the slot's, and not made for each life.
    small_copy = co_alloc_sharestack(3, 64 * 1024);
    large_copy = co_alloc_sharestack(2, 512 * 1024);
}

void Slot::post(std::function<void(Slot &)> mail)
{
    const std::lock_guard<std::mutex> locked(mailbox_lock_);
    mailbox_.push_back(std::move(mail));
}

Slot &Slot::another(Random &random) const
{
    const int count = static_cast<int>(global.slots.size());
    const int which = count == 1 ? 0 : (index + 1 + random.below(count - 1)) % count;
    return *global.slots[static_cast<size_t>(which)];
}

bool Slot::deliver()
{
    std::deque<std::function<void(Slot &)>> mail;
    {
        const std::lock_guard<std::mutex> locked(mailbox_lock_);
        mail.swap(mailbox_);
    }
    for (const auto &one : mail) {
        one(*this);
    }
    return !mail.empty();
}

Step Slot::step_of(int number, Kind kind) const
{
    uint64_t seed = global.options.seed;
    for (const int part : {index, life, number}) {
        seed = Random(seed ^ static_cast<uint32_t>(part)).next();
    }
    return Step{kind, index, life, number, seed};
}

void Slot::take(std::unique_ptr<Task> task)
{
    tasks_.push_back(std::move(task));
    tasks_.back()->start();
}

void Slot::drop(std::unique_ptr<Task> task)
{
    const Kind kind = task->step.kind;
    const bool complete = task->ended();
    if (complete) {
        task->finished();
    }
    task->dismantle();
    ++(complete ? global.totals.completed : global.totals.released)[static_cast<int>(kind)];
}

// Takes out the tasks that are over.
void Slot::reap()
{
    const bool look = now_ns() - looked_ns_ > kSecond;
    if (look) {
        looked_ns_ = now_ns();
    }
    for (size_t i = 0; i < tasks_.size();) {
        if (tasks_[i]->ended()) {
            std::unique_ptr<Task> task = std::move(tasks_[i]);
            tasks_[i] = std::move(tasks_.back());
            tasks_.pop_back();
            drop(std::move(task));
            continue;
        }
        if (look && tasks_[i]->overdue(looked_ns_)) {
            tasks_[i]->stuck();
        }
        ++i;
    }
}

static Kind choose(Random &random)
{
    if (global.options.only >= 0) {
        return static_cast<Kind>(global.options.only);
    }
    int sum = 0;
    for (const KindOf &kind : kKinds) {
        sum += kind.weight;
    }
    int left = random.below(sum);
    for (int i = 0; i < kKindCount; ++i) {
        left -= kKinds[i].weight;
        if (left < 0) {
            return static_cast<Kind>(i);
        }
    }
    abort();
}

void Slot::one_step()
{
    Step step = step_of(++steps_, Kind::Count);
    Random random(step.seed ^ 0x5eed);
    step.kind = choose(random);
    doing_ = step.kind;
    if (random.one_in(12) && !tasks_.empty()) {
        const size_t which = static_cast<size_t>(random.below(static_cast<int>(tasks_.size())));
        if (tasks_[which]->may_be_released) {
            std::unique_ptr<Task> task = std::move(tasks_[which]);
            tasks_[which] = std::move(tasks_.back());
            tasks_.pop_back();
            drop(std::move(task));
        }
    }
    if (random.one_in(4)) {
        drop_orphans(1);
    }
    if (step.kind == Kind::ThrowFromCallback) {
        ++global.totals.started[static_cast<int>(step.kind)];
        throw step;
    }
    take(kKinds[static_cast<int>(step.kind)].make(*this, step));
    doing_ = Kind::Count;
}

int Slot::one_turn()
{
    const long long now = now_ns();
    heartbeat_ = now;
    deliver();
    reap();
    const Phase phase = global.phase;
    if (phase == Phase::End) {
        return -1;
    }
    ending = phase == Phase::Settle || (settles_ && steps_ >= steps_wanted_);
    if (phase == Phase::Settle) {
        drop_orphans(orphans_.size());
        return 0;
    }
    if (steps_ >= steps_wanted_) {
        return !settles_ || tasks_.empty() ? -1 : 0;
    }
    // As many steps as the rate allows.
    const double due = static_cast<double>(now - begun_ns_) * global.options.rate / 1e9;
    for (int i = 0; i < 4 && steps_ < due && steps_ < steps_wanted_ && tasks_.size() < kMost; ++i) {
        one_step();
    }
    if (steps_ + 100 < due) { // the machine is busy: no burst afterwards
        begun_ns_ = now - static_cast<long long>(steps_ * 1e9 / global.options.rate);
    }
    return 0;
}

int Slot::turn(void *self)
{
    return static_cast<Slot *>(self)->one_turn();
}

// One thread's life: some thousand steps, then all in flight comes to its end, or is left as it is.
void Slot::live()
{
    Random random(step_of(0, Kind::Count).seed);
    steps_ = 0;
    steps_wanted_ = random.between(100, 3000);
    settles_ = random.one_in(2);
    ending = false;
    ++global.totals.lives;
    // A copy stack takes no other thread's coroutines while it has this one's.
    std::vector<std::unique_ptr<Task>> kept;
    for (auto &orphan : orphans_) {
        if (orphan->on_copy_stack()) {
            drop(std::move(orphan));
        } else {
            kept.push_back(std::move(orphan));
        }
    }
    orphans_.swap(kept);

    take(make_process(*this, step_of(0, Kind::Ticks)));
    {
        Ticker ticker(*this, random);
        begun_ns_ = now_ns();
        for (bool again = true; again;) {
            try {
                co_eventloop(co_get_epoll_ct(), &Slot::turn, this);
                again = false;
            } catch (const Step &thrown) {
                if (thrown.number != steps_ || thrown.life != life) {
                    fail_at(thrown, "catch", "expected the exception of step %d", steps_);
                }
                ++global.totals.completed[static_cast<int>(thrown.kind)];
            }
        }
    }
    for (auto &task : tasks_) {
        orphans_.push_back(std::move(task));
    }
    global.totals.lives_cut += !tasks_.empty();
    tasks_.clear();
}

void Slot::lives()
{
    while (global.phase != Phase::End) {
        ++life;
        std::thread(&Slot::live, this).join();
    }
}

void Slot::drop_orphans(size_t most)
{
    for (size_t i = orphans_.size(); i-- > 0 && most > 0;) {
        if (orphans_[i]->can_go()) {
            std::unique_ptr<Task> orphan = std::move(orphans_[i]);
            orphans_.erase(orphans_.begin() + static_cast<std::ptrdiff_t>(i));
            drop(std::move(orphan));
            --most;
        }
    }
}

void Slot::watch(long long now)
{
    const long long last = heartbeat_;
    if (last != 0 && now - last > 30 * kSecond) {
        fail_at(Step{doing_, index, life, steps_, 0}, "watchdog", "expected a turn of the loop within 30 s, none for %lld s",
                (now - last) / kSecond);
    }
}

// Runs inside a coroutine of this slot.
void Slot::in_child_of_fork(Task *mine, uint64_t seed, int count)
{
    global.is_child = true;
    std::vector<std::unique_ptr<Task>> kept;
    for (auto &task : tasks_) {
        if (task.get() == mine) {
            kept.push_back(std::move(task));
        } else {
            task->dismantle();
        }
    }
    tasks_.swap(kept);
    Random random(seed);
    // (No lookups: another thread may have been in one, and then holds the C library's locks for ever here.)
    const Kind allowed[] = {Kind::Echo,   Kind::PollMany,  Kind::CloseWhileWaiting, Kind::DupWhileWaiting,
                            Kind::Timers, Kind::Condition, Kind::Mutex,             Kind::Release,
                            Kind::Nest,   Kind::Depth,     Kind::Storm,             Kind::Reset,
                            Kind::Exceptions, Kind::Specifics, Kind::Environment};
    for (int i = 0; i < count; ++i) {
        Step step = step_of(steps_ * 1000 + i, allowed[random.below(sizeof allowed / sizeof *allowed)]);
        take(kKinds[static_cast<int>(step.kind)].make(*this, step));
    }
    co_eventloop(
        co_get_epoll_ct(),
        [](void *self) -> int {
            Slot *here = static_cast<Slot *>(self);
            here->reap();
            return here->tasks_.size() == 1 ? -1 : 0;
        },
        this);
}

} // namespace soak
