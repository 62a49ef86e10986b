// Boost.Context's fibers: one resume and the answering one; a fiber made on a pooled stack, run, ended.
#ifndef BENCH_PEER_BOOST_H
#define BENCH_PEER_BOOST_H

#include <benchmark/benchmark.h>

#include <boost/context/fiber.hpp>
#include <boost/context/pooled_fixedsize_stack.hpp>

#include <memory>
#include <utility>

namespace peer {

inline void boost_switch(benchmark::State &state) {
    using boost::context::fiber;
    fiber co([](fiber &&caller) {
        for (;;) caller = std::move(caller).resume();
        return std::move(caller);
    });
    while (state.KeepRunningBatch(1024)) {
        for (int i = 0; i < 1024; i++) co = std::move(co).resume();
    }
}

inline void boost_create(benchmark::State &state) {
    using boost::context::fiber;
    boost::context::pooled_fixedsize_stack pool(128 * 1024);
    while (state.KeepRunningBatch(1024)) {
        for (int i = 0; i < 1024; i++) {
            fiber co(std::allocator_arg, pool, [](fiber &&caller) { return std::move(caller); });
            co = std::move(co).resume();
        }
    }
}

}  // namespace peer

#endif
