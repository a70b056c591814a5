/* fleet.c: runs seeds of the simulated fleet. `make check` runs 10,000, `make check-long` a
 * million. `make check` always runs the same ones, from 1 on, so that it judges the change at hand;
 * new ones are for `make check-long`.
 *
 *   LARDER_SEED=S tests/sim/fleet --trace      that one seed again, every step of it told
 *   LARDER_SEED=S LARDER_SIM_SEEDS=N ...       N seeds from S on
 *   ... --off RULE                             with that rule switched off (rules.c has the names)
 *   ... --for RULE                             with it on, in the trouble that it is there for
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/multi/harness.h"

static enum rule rule_named(const char *name)
{
    for (unsigned r = 1; r < RULE_COUNT; r++)
        if (strcmp(rules[r].name, name) == 0)
            return (enum rule)r;
    test_fail("there is no rule \"%s\"", name);
}

int main(int argc, char **argv)
{
    bool tracing = false;
    enum rule off = RULE_NONE;
    test_begin("fleet", 600);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0)
            tracing = true;
        else if (strcmp(argv[i], "--off") == 0 && i + 1 < argc)
            off = rule_named(argv[++i]);
        else if (strcmp(argv[i], "--for") == 0 && i + 1 < argc)
            rule_favoured = rule_named(argv[++i]);
        else
            test_fail("usage: fleet [--trace] [--off RULE | --for RULE]");
    }
    /* under a sanitizer it is the memory that is looked at: any seeds do for that */
    uint64_t seeds = tracing ? 1 : test_number("LARDER_SIM_SEEDS", 10000 / TEST_SLOWNESS, 1000000);
    uint64_t began = test_now_us();
    sim_create();
    for (uint64_t i = 0; i < seeds; i++) {
        uint64_t seed = sim_first_seed() + i;
        const char *failure = sim_run(seed, off, tracing);
        test_check(failure == NULL,
                   "%s\n  every step of it: LARDER_SEED=%" PRIu64 " tests/sim/fleet --trace",
                   failure, seed);
    }
    sim_destroy();
    test_figure("sim_seeds", (double)seeds, "seeds");
    test_figure("sim_speed", (double)seeds * 1e6 / (double)(test_now_us() - began + 1), "seeds/s");
    test_end();
}
