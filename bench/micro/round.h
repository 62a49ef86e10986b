// One interleaved round of a group of google-benchmark cases: every variant of a work right after the
// others, in an order that the round number rotates, and one JSON line of CPU time for each.
#ifndef BENCH_ROUND_H
#define BENCH_ROUND_H

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace bench {

struct Case {
    std::string work;
    std::string variant;
    std::function<void(benchmark::State &)> run;
};

class Lines : public benchmark::BenchmarkReporter {
  public:
    bool ReportContext(const Context &) override { return true; }

    void ReportRuns(const std::vector<Run> &runs) override {
        for (const Run &run : runs) {
            const std::string name = run.benchmark_name();
            const size_t bar = name.find('|');
            if (run.error_occurred) {
                std::fprintf(stderr, "%s: %s\n", name.c_str(), run.error_message.c_str());
                failed = true;
                continue;
            }
            // Manual time is in the real time; otherwise the processor's time counts.
            const bool manual = name.find("/manual_time") != std::string::npos;
            const double ns = manual ? run.GetAdjustedRealTime() : run.GetAdjustedCPUTime();
            const std::string variant = name.substr(bar + 1, name.find('/', bar) - bar - 1);
            std::printf("{\"work\":\"%s\",\"variant\":\"%s\",\"value\":%.4f,\"unit\":\"ns\"}\n",
                        name.substr(0, bar).c_str(), variant.c_str(), ns);
            std::fflush(stdout);
        }
    }

    bool failed = false;
};

// Usage: GROUP ROUND [PART OF A WORK'S NAME]
inline int run_round(int argc, char **argv, const std::vector<Case> &cases, bool manual = false) {
    const size_t round = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 0;
    const char *wanted = argc > 2 ? argv[2] : "";
    std::vector<std::string> works;
    for (const Case &one : cases) {
        if (one.work.find(wanted) != std::string::npos && std::find(works.begin(), works.end(), one.work) == works.end())
            works.push_back(one.work);
    }
    for (const std::string &work : works) {
        std::vector<const Case *> variants;
        for (const Case &one : cases)
            if (one.work == work) variants.push_back(&one);
        std::rotate(variants.begin(), variants.begin() + static_cast<long>(round % variants.size()), variants.end());
        for (const Case *one : variants) {
            auto *registered = benchmark::RegisterBenchmark((work + "|" + one->variant).c_str(), one->run);
            registered->MinTime(0.02)->Unit(benchmark::kNanosecond);
            if (manual) registered->UseManualTime();
        }
    }
    Lines lines;
    benchmark::RunSpecifiedBenchmarks(&lines);
    return lines.failed ? 1 : 0;
}

}  // namespace bench

#endif
