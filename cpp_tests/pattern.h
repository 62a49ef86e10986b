// Patterns on the stack, for the tests of copy stacks.
#ifndef COLIB_CPP_TESTS_PATTERN_H
#define COLIB_CPP_TESTS_PATTERN_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace pattern {

struct Random {
    uint64_t state;
    uint64_t next()
    {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return state;
    }
    size_t below(size_t n) { return static_cast<size_t>(next() % n); }
    bool one_in(size_t n) { return below(n) == 0; }
    // Small ones are as likely as large ones, by magnitude.
    size_t depth(size_t least, size_t most)
    {
        const double span = std::log2(static_cast<double>(most) / static_cast<double>(least));
        const double at = static_cast<double>(below(1 << 20)) / (1 << 20);
        return static_cast<size_t>(static_cast<double>(least) * std::exp2(span * at));
    }
};

inline void fill(volatile uint64_t *words, size_t count, uint64_t seed)
{
    for (size_t i = 0; i < count; ++i) {
        words[i] = seed + i * 0x9e3779b97f4a7c15u;
    }
}

inline bool holds(const volatile uint64_t *words, size_t count, uint64_t seed)
{
    uint64_t differing = 0;
    for (size_t i = 0; i < count; ++i) {
        differing |= words[i] ^ (seed + i * 0x9e3779b97f4a7c15u);
    }
    return differing == 0;
}

// Puts `bytes` of a pattern on the stack, runs `between`, and tells whether the pattern is whole.
template <typename Between>
__attribute__((noinline)) bool keeps_its_bytes(size_t bytes, uint64_t seed, const Between &between)
{
    const size_t count = std::max<size_t>(bytes / 8, 1);
    volatile uint64_t *words = static_cast<volatile uint64_t *>(__builtin_alloca(count * 8));
    fill(words, count, seed);
    between();
    return holds(words, count, seed);
}

} // namespace pattern

#endif
