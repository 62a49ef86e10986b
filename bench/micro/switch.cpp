// Switches and coroutines made, beside the limits and the peers, all in one process.
//
// switch       co_resume and the co_yield_ct that answers it
// create       co_create, co_resume of a routine that ends at once, co_release
// copy-switch  co_resume and co_yield_ct of two coroutines that take turns on one copy stack, with so
//              many bytes live: each resume moves one coroutine out and the other in
//
// BENCH_LINKAGE: "static" or "shared". BENCH_VARIANT: whose libcolib this is linked to, "ours" or
// "peer:NAME". BENCH_REFERENCES: limits and peers are measured too.
#include <co_routine.h>
#include <co_routine_inner.h>

#include <alloca.h>

#include <array>
#include <cstdint>
#include <memory>

#include "peer_boost.h"
#include "round.h"

#ifndef BENCH_REFERENCES
#define BENCH_REFERENCES 1
#endif

namespace {

// Operations between two looks at the iteration counter.
constexpr int batch = 1024;

// ---- the library -------------------------------------------------------------------------------

void *yield_for_ever(void *) {
    for (;;) co_yield_ct();
    return nullptr;
}

void *end_at_once(void *) { return nullptr; }

void colib_switch(benchmark::State &state) {
    stCoRoutine_t *co = nullptr;
    co_create(&co, nullptr, yield_for_ever, nullptr);
    co_resume(co);
    while (state.KeepRunningBatch(batch)) {
        for (int i = 0; i < batch; i++) co_resume(co);
    }
    co_release(co);
}

void colib_create(benchmark::State &state) {
    // One that lives on lies behind the place that is used again and again, as in any server; an
    // allocator that has nothing behind it may give each stack back to the kernel.
    stCoRoutine_t *first = nullptr, *living = nullptr;
    co_create(&first, nullptr, end_at_once, nullptr);
    co_create(&living, nullptr, end_at_once, nullptr);
    co_release(first);
    while (state.KeepRunningBatch(batch)) {
        for (int i = 0; i < batch; i++) {
            stCoRoutine_t *co = nullptr;
            co_create(&co, nullptr, end_at_once, nullptr);
            co_resume(co);
            co_release(co);
        }
    }
    co_release(living);
}

void *yield_with_locals(void *bytes) {
    volatile char *locals = static_cast<char *>(alloca(reinterpret_cast<uintptr_t>(bytes)));
    locals[0] = 1;
    for (;;) co_yield_ct();
    return nullptr;
}

using Pair = std::array<stCoRoutine_t *, 2>;

Pair copy_pair(stShareStack_t *stack, uintptr_t locals) {
    stCoRoutineAttr_t attr;
    attr.stack_size = 0;
    attr.share_stack = stack;
    Pair pair{};
    for (stCoRoutine_t *&co : pair) co_create(&co, &attr, yield_with_locals, reinterpret_cast<void *>(locals));
    for (stCoRoutine_t *co : pair) co_resume(co);
    co_resume(pair[0]);
    return pair;
}

void release(const Pair &pair) {
    for (stCoRoutine_t *co : pair) co_release(co);
}

void colib_copy_switch(benchmark::State &state, size_t live) {
    // Copy stacks stay until the process ends: one serves all rounds.
    static stShareStack_t *stack = co_alloc_sharestack(1, 256 * 1024);
    // What the frames take beside the locals differs between libraries; what is live shall not.
    const Pair probe = copy_pair(stack, 16);
    const size_t frames = probe[1]->save_size - 16;
    release(probe);
    if (frames > live) return state.SkipWithError("the frames alone take more than what should be live");
    const Pair pair = copy_pair(stack, live - frames);
    if (const size_t is = pair[1]->save_size; is > live + 16 || is + 16 < live)
        return state.SkipWithError("could not make as many bytes live as wanted");
    while (state.KeepRunningBatch(batch)) {
        for (int i = 0; i < batch / 2; i++) {
            co_resume(pair[1]);
            co_resume(pair[0]);
        }
    }
    release(pair);
}

// ---- limits ------------------------------------------------------------------------------------

#if BENCH_REFERENCES

extern "C" void limit_switch(void **save, void *next);

void *limit_main, *limit_co;

void limit_routine() {
    for (;;) limit_switch(&limit_co, limit_main);
}

void *limit_context(char *stack, size_t size) {
    auto *top = reinterpret_cast<uintptr_t *>((reinterpret_cast<uintptr_t>(stack) + size) & ~uintptr_t{15});
#if defined(__x86_64__)
    uintptr_t *sp = top - 8;
    sp[6] = reinterpret_cast<uintptr_t>(limit_routine);
#else
    uintptr_t *sp = top - 20;
    sp[1] = reinterpret_cast<uintptr_t>(limit_routine);
#endif
    return sp;
}

void limit_round_trip(benchmark::State &state) {
    static std::array<char, 64 * 1024> stack;
    limit_co = limit_context(stack.data(), stack.size());
    while (state.KeepRunningBatch(batch)) {
        for (int i = 0; i < batch; i++) limit_switch(&limit_main, limit_co);
    }
}

void two_memcpy(benchmark::State &state, size_t live) {
    const std::unique_ptr<char[]> stack(new char[live]()), one(new char[live]()), other(new char[live]());
    while (state.KeepRunningBatch(batch)) {
        for (int i = 0; i < batch / 2; i++) {
            benchmark::DoNotOptimize(std::memcpy(one.get(), stack.get(), live));
            benchmark::DoNotOptimize(std::memcpy(stack.get(), other.get(), live));
            benchmark::DoNotOptimize(std::memcpy(other.get(), stack.get(), live));
            benchmark::DoNotOptimize(std::memcpy(stack.get(), one.get(), live));
        }
    }
}

// ---- peers -------------------------------------------------------------------------------------

// ../peers: corosensei, its loops inlined in Rust.
extern "C" void peer_corosensei_switch(uint64_t rounds);
extern "C" void peer_corosensei_create(uint64_t rounds, void *(*routine)(void *));

void corosensei_switch(benchmark::State &state) {
    while (state.KeepRunningBatch(64 * batch)) peer_corosensei_switch(64 * batch);
}

void corosensei_create(benchmark::State &state) {
    while (state.KeepRunningBatch(64 * batch)) peer_corosensei_create(64 * batch, end_at_once);
}

#endif

}  // namespace

int main(int argc, char **argv) {
    const std::string linkage = BENCH_LINKAGE;
    std::vector<bench::Case> cases = {
        {"switch-" + linkage, BENCH_VARIANT, colib_switch},
#if BENCH_REFERENCES
        {"switch-" + linkage, "limit", limit_round_trip},
        {"switch-" + linkage, "peer:corosensei", corosensei_switch},
        {"switch-" + linkage, "peer:boost-context", peer::boost_switch},
#endif
        {"create-" + linkage, BENCH_VARIANT, colib_create},
#if BENCH_REFERENCES
        {"create-" + linkage, "peer:corosensei", corosensei_create},
        {"create-" + linkage, "peer:boost-context", peer::boost_create},
#endif
    };
    for (const size_t live : {256, 4096, 32768}) {
        const std::string work = "copy-switch-" + std::to_string(live) + "-" + linkage;
        cases.push_back({work, BENCH_VARIANT, [live](benchmark::State &state) { colib_copy_switch(state, live); }});
#if BENCH_REFERENCES
        cases.push_back({work, "limit", [live](benchmark::State &state) { two_memcpy(state, live); }});
#endif
    }
    return bench::run_round(argc, argv, cases);
}
