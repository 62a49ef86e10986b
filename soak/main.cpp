// The soak's options, its progress, its watchdog and its summary.
#include "soak.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include <dirent.h>
#include <getopt.h>
#include <malloc.h>
#include <netdb.h>
#include <sys/random.h>

using namespace soak;

namespace {

const char kUsage[] =
    "usage: soak [-m MINUTES] [-s SEED] [-t THREADS] [-r STEPS] [-k KIND]\n"
    "  -m  minutes to run (10)\n"
    "  -s  the seed (a random one)\n"
    "  -t  threads at a time (3)\n"
    "  -r  steps a second in each thread (400)\n"
    "  -k  one kind of operation alone, by the name in the table\n"
    "SOAK_ABORT in the environment: a failure aborts, for a core.\n";

// How much more memory the last third of the time may need than the first third, on average: what the C library's
// allocator leaves between what is in use.
constexpr long kTolerancePercent = 10;
constexpr long kToleranceKib = 6 * 1024;
// Descriptors in use are those of operations in flight, of which there are now more and now fewer. (At the end none may be
// left at all.)
constexpr long kToleranceDescriptorsPercent = 50;
constexpr long kToleranceDescriptors = 150;

[[noreturn]] void refuse(const char *message, const char *value)
{
    fprintf(stderr, "soak: %s: %s\n%s", message, value, kUsage);
    exit(2);
}

double number(const char *text, double least, double most)
{
    char *end = nullptr;
    errno = 0;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || errno != 0 || !(value >= least && value <= most)) {
        refuse("not a number that makes sense", text);
    }
    return value;
}

uint64_t seed_of(const char *text)
{
    char *end = nullptr;
    errno = 0;
    const uint64_t value = strtoull(text, &end, 0);
    if (end == text || *end != '\0' || errno != 0 || *text == '-') {
        refuse("not a seed", text);
    }
    return value;
}

int kind_of(const char *name)
{
    for (int i = 0; i < kKindCount; ++i) {
        const Kind kind = static_cast<Kind>(i);
        if (strcmp(name_of(kind), name) == 0 && kind != Kind::Ticks && kind != Kind::Serve) {
            return i;
        }
    }
    refuse("no such kind", name);
}

void parse(int count, char **words, Options &options)
{
    if (getrandom(&options.seed, sizeof options.seed, 0) < 0) {
        perror("soak: getrandom");
        exit(2);
    }
    options.seed >>= 16; // short enough to type
    int option;
    while ((option = getopt(count, words, "m:s:t:r:k:h")) != -1) {
        switch (option) {
        case 'm': options.minutes = number(optarg, 0.01, 100000); break;
        case 's': options.seed = seed_of(optarg); break;
        case 't': options.threads = static_cast<int>(number(optarg, 1, 64)); break;
        case 'r': options.rate = static_cast<int>(number(optarg, 1, 100000)); break;
        case 'k': options.only = kind_of(optarg); break;
        case 'h': fputs(kUsage, stdout); exit(0);
        default: fputs(kUsage, stderr); exit(2);
        }
    }
    if (optind != count) {
        refuse("not an option", words[optind]);
    }
}

// A number of a file of /proc, in KiB.
long proc_kib(const char *path, const char *field)
{
    char line[256];
    long value = -1;
    FILE *file = fopen(path, "re");
    while (file != nullptr && fgets(line, sizeof line, file) != nullptr) {
        if (strncmp(line, field, strlen(field)) == 0) {
            value = atol(line + strlen(field));
        }
    }
    if (file != nullptr) {
        fclose(file);
    }
    return value;
}

int descriptors()
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir != nullptr && readdir(dir) != nullptr) {
        ++count;
    }
    if (dir != nullptr) {
        closedir(dir);
    }
    return count - 3;
}

long sum(const std::atomic<long> (&counts)[kKindCount])
{
    long all = 0;
    for (const auto &count : counts) {
        all += count;
    }
    return all;
}

struct Sample {
    double second;
    long rss, pss, fds;
};

Sample sample(double second)
{
    return {second, proc_kib("/proc/self/status", "VmRSS:"), proc_kib("/proc/self/smaps_rollup", "Pss:"), descriptors()};
}

void progress(const Sample &now)
{
    const Totals &t = global.totals;
    printf("soak: %5.0f s  steps %ld  in flight %d  bytes %ld  wakes %ld  timers %ld  signals %ld  rss %ld KiB  pss %ld KiB  fds %ld\n",
           now.second, sum(t.started), t.in_flight.load(), t.bytes_received.load(), t.wakes.load(), t.timers_fired.load(),
           t.unix_signals.load(), now.rss, now.pss, now.fds);
    fflush(stdout);
}

// The average of a part of the samples, from `from` to `to` thirds of the time after the warm-up.
Sample average(const std::vector<Sample> &samples, size_t first, size_t last)
{
    Sample mean = {0, 0, 0, 0};
    for (size_t i = first; i < last; ++i) {
        mean.rss += samples[i].rss;
        mean.pss += samples[i].pss;
        mean.fds += samples[i].fds;
    }
    const long n = static_cast<long>(last - first);
    return {0, mean.rss / n, mean.pss / n, mean.fds / n};
}

bool flat(const char *what, long before, long after, long tolerance)
{
    const bool holds = after - before <= tolerance;
    printf("  %-34s %10ld -> %ld (at most %ld more)%s\n", what, before, after, tolerance, holds ? "" : "  FAILED");
    return holds;
}

bool is_flat(const std::vector<Sample> &samples)
{
    // A fifth of the time to warm up; then what the first third of the rest used, and the last.
    const size_t warm = samples.size() / 5, third = (samples.size() - warm) / 3;
    if (third == 0) {
        printf("  too short to say whether memory is flat\n");
        return true;
    }
    const Sample before = average(samples, warm, warm + third);
    const Sample after = average(samples, samples.size() - third, samples.size());
    const long kib = before.rss * kTolerancePercent / 100 + kToleranceKib;
    bool good = flat("resident memory, KiB", before.rss, after.rss, kib);
    good &= flat("its share of what is shared, KiB", before.pss, after.pss, kib);
    good &= flat("descriptors", before.fds, after.fds,
                 before.fds * kToleranceDescriptorsPercent / 100 + kToleranceDescriptors);
    return good;
}

bool equal(const char *what, long wanted, long got)
{
    printf("  %-34s %10ld -> %ld%s\n", what, wanted, got, wanted == got ? "" : "  FAILED");
    return wanted == got;
}

bool summary(const std::vector<Sample> &samples, int descriptors_before)
{
    const Totals &t = global.totals;
    printf("\n  %-34s %10s %10s %10s\n", "operation", "begun", "complete", "released");
    for (int i = 0; i < kKindCount; ++i) {
        printf("  %-34s %10ld %10ld %10ld\n", name_of(static_cast<Kind>(i)), t.started[i].load(), t.completed[i].load(),
               t.released[i].load());
    }
    printf("\n  %-34s %10ld, %ld of them with everything in flight\n", "threads that ended", t.lives.load(), t.lives_cut.load());
    printf("  %-34s %10ld\n", "signals handled", t.unix_signals.load());
    printf("  %-34s %10ld, latest by %.1f ms\n", "timers", t.timers_fired.load(), static_cast<double>(t.latest_us) / 1000);
    bool good = equal("operations begun, over", sum(t.started), sum(t.completed) + sum(t.released));
    good &= equal("coroutines made, released", t.coroutines, t.coroutines_released);
    good &= equal("bytes sent, received", t.bytes_sent, t.bytes_received);
    good &= equal("conditions signalled, woken", t.signals_sent, t.wakes);
    good &= equal("timers set, fired or given up", t.timers_set, t.timers_fired + t.timers_abandoned);
    good &= equal("descriptors before, after", descriptors_before, descriptors());
    return is_flat(samples) && good;
}

void sleep_ms(int ms)
{
    const timespec time = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&time, nullptr);
}

void watch()
{
    const long long now = now_ns();
    for (const auto &slot : global.slots) {
        slot->watch(now);
    }
}

// Runs for the time asked for, looks every second, and says every ten how it goes.
std::vector<Sample> run()
{
    std::vector<Sample> samples;
    const long long begun = now_ns();
    const double wanted = global.options.minutes * 60;
    for (long tick = 1;; ++tick) {
        sleep_ms(1000);
        const double second = static_cast<double>(now_ns() - begun) / 1e9;
        watch();
        samples.push_back(sample(second));
        if (tick % 10 == 0 || second >= wanted) {
            progress(samples.back());
        }
        if (second >= wanted) {
            return samples;
        }
    }
}

// Everything in flight comes to its end: but one operation for each thread, which counts its signals until then.
void settle()
{
    global.phase = Phase::Settle;
    while (global.totals.in_flight > 0) {
        sleep_ms(10);
        watch();
    }
    global.phase = Phase::End;
    for (const auto &slot : global.slots) {
        slot->join();
    }
}

} // namespace

int main(int count, char **words)
{
    parse(count, words, global.options);
    printf("soak: seed %llu, %.3g minutes, %d threads\n", static_cast<unsigned long long>(global.options.seed),
           global.options.minutes, global.options.threads);
    fflush(stdout);
    // As many arenas as threads at a time, so that memory does not depend on which thread came when.
    mallopt(M_ARENA_MAX, global.options.threads + 1);
    const char *names[] = {"SOAK_A", "SOAK_B"};
    co_set_env_list(names, 2);
    co_set_hooks("all");
    // Nothing here is misuse, and memory is not short: the library has nothing to say.
    co_set_log_handler([](const char *message) {
        fail_at(Step{Kind::Count, -1, 0, 0, 0}, "a message of the library", "expected none, got: %s", message);
    });
    prepare_signals();
    global.localhost = gethostbyname("localhost") != nullptr;

    const int before = descriptors();
    for (int i = 0; i < global.options.threads; ++i) {
        global.slots.push_back(std::unique_ptr<Slot>(new Slot(i)));
    }
    for (const auto &slot : global.slots) {
        slot->begin();
    }
    const std::vector<Sample> samples = run();
    settle();
    const bool good = summary(samples, before);
    printf("soak: %s, seed %llu\n", good ? "all accounted for" : "FAILED", static_cast<unsigned long long>(global.options.seed));
    return good ? 0 : 1;
}
