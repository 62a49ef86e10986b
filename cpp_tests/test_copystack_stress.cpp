// Copy stacks under many coroutines and many random switches.
#include "support.h"

#include <memory>
#include <random>

#include "pattern.h"

using namespace pattern;
using namespace support;

namespace {

struct Stress;

struct Slot {
    enum class State { ready, running, ended };
    Stress *all = nullptr;
    stCoRoutine_t *co = nullptr;
    stCoRoutineAttr_t at;
    State state = State::ready;
    size_t deepest = 0;
};

struct Stress {
    Random random;
    bool with_endings;
    long switches = 0;
    long damaged = 0;
    long wanted;
    int level = 0;
    std::vector<Slot> slots;

    Stress(uint64_t seed, long how_many, bool endings)
        : random{seed}, with_endings(endings), wanted(how_many)
    {
        stShareStack_t *shares[] = {
            co_alloc_sharestack(2, 64 * 1024),
            co_alloc_sharestack(1, 128 * 1024),
            co_alloc_sharestack(3, 48 * 1024),
            nullptr,
        };
        for (int i = 0; i < 96; ++i) {
            Slot slot;
            stShareStack_t *share = shares[i % 4];
            slot.all = this;
            slot.at = attr(64 * 1024, share);
            slot.deepest = share == nullptr ? 4096 : static_cast<size_t>(share->stack_size) - 16384;
            slots.push_back(slot);
        }
        for (Slot &slot : slots) {
            create(slot);
        }
    }

    ~Stress()
    {
        for (Slot &slot : slots) {
            co_release(slot.co);
        }
    }

    void create(Slot &slot)
    {
        if (co_create(&slot.co, &slot.at, routine, &slot) != 0) {
            std::abort();
        }
        slot.state = Slot::State::ready;
    }

    // Does something to a coroutine that is not running: from main or from inside another one.
    void act()
    {
        Slot &slot = slots[random.below(slots.size())];
        if (slot.state == Slot::State::running) {
            return;
        }
        if (with_endings && (random.one_in(32) || slot.state == Slot::State::ended)) {
            if (random.one_in(2)) {
                co_release(slot.co);
                create(slot);
            } else {
                co_reset(slot.co);
                slot.state = Slot::State::ready;
            }
            return;
        }
        slot.state = Slot::State::running;
        ++level;
        ++switches;
        co_resume(slot.co);
        --level;
        if (slot.state == Slot::State::running) {
            slot.state = Slot::State::ended;
        }
    }

    void run()
    {
        while (switches < wanted && damaged == 0) {
            act();
        }
    }

    static void *routine(void *arg)
    {
        Slot *slot = static_cast<Slot *>(arg);
        Stress *all = slot->all;
        do {
            step(slot, all, all->random.depth(64, slot->deepest));
        } while (!all->with_endings || !all->random.one_in(16));
        return nullptr;
    }

    static __attribute__((noinline)) void step(Slot *slot, Stress *all, size_t depth)
    {
        const uint64_t seed = all->random.next();
        const bool whole = keeps_its_bytes(depth, seed, [slot, all] {
            if (all->level < 6 && all->random.one_in(4)) {
                all->act();
            }
            slot->state = Slot::State::ready;
            ++all->switches;
            co_yield_ct();
            if (all->level < 6 && all->random.one_in(8)) {
                all->act();
            }
        });
        all->damaged += !whole;
    }
};

uint64_t fresh_seed()
{
    const char *given = getenv("COLIB_TEST_SEED");
    return given != nullptr ? strtoull(given, nullptr, 0) : (std::random_device{}() | 1u);
}

void run_stress(long switches, bool endings)
{
    const uint64_t seed = fresh_seed();
    printf("seed %llu (COLIB_TEST_SEED repeats it)\n", static_cast<unsigned long long>(seed));
    fflush(stdout);
    Stress stress(seed, switches, endings);
    stress.run();
    EXPECT_EQ(stress.damaged, 0);
    EXPECT_GE(stress.switches, switches);
}

} // namespace

TEST(CopyStack, TwentyThousandCoroutinesOnThreeStacksKeepTheirBytes)
{
    stShareStack_t *share = co_alloc_sharestack(3, 64 * 1024);
    const stCoRoutineAttr_t at = attr(0, share);
    Random random{88172645463325252u};
    int whole = 0;
    std::vector<std::unique_ptr<Co>> all;
    for (int i = 0; i < 20000; ++i) {
        // The greatest depths are few: their copies are what this test costs.
        const size_t depth = i % 100 == 0 ? 40 * 1024 : random.depth(100, 40 * 1024 / 4);
        const uint64_t seed = random.next();
        all.push_back(std::make_unique<Co>(
            [depth, seed, &whole] {
                whole += keeps_its_bytes(depth, seed, [] { co_yield_ct(); });
                co_yield_ct();
                whole += keeps_its_bytes(depth / 2, seed, [] { co_yield_ct(); });
            },
            &at));
    }
    for (int round = 0; round < 4; ++round) {
        for (size_t k = 0; k < all.size(); ++k) {
            all[k * 7919 % all.size()]->resume();
        }
    }
    EXPECT_EQ(whole, 40000);
    for (auto &co : all) {
        ASSERT_TRUE(co->ended());
    }
}

TEST(CopyStack, RandomSwitchesKeepEveryLiveByte) { run_stress(200000, false); }

MENDED(CopyStack, RandomSwitchesReleasesAndResetsKeepEveryLiveByte)
{
    run_stress(2000000, true);
}
