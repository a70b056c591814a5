/* sabotage.c: switches each rule of the protocol off, one after the other, and counts the seeds
 * until the simulated fleet goes wrong: what no test can miss is no rule, and a rule that nothing
 * catches is not tested. Prints the table that doc/protocol.md shows.
 *
 * Rules that take long to show are left to `make check-long`, unless they are named.
 *
 *   tests/sim/sabotage [RULE...]     only these
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/multi/harness.h"

enum { WITHIN_SHORT = 5000, CATCHES = 50, CATCHES_WITHIN = 10000 };

static bool wanted(const struct rule_row *row, int argc, char **argv)
{
    const char *name = row->name;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return argc == 1 && (test_long() || row->within <= WITHIN_SHORT);
}

/* Seeds until it is caught, and in how few steps of the schedule some seed shows it. */
static void try_rule(enum rule rule)
{
    const struct rule_row *row = &rules[rule];
    char first[512] = "";
    uint64_t caught_after = 0, least = UINT64_MAX, catches = 0;
    uint64_t tries = row->within != 0 ? test_number("LARDER_SIM_WITHIN", row->within, row->within)
                                      : test_number("LARDER_SIM_UNCAUGHT", 500, 50000);
    uint64_t more = test_long() ? CATCHES : 1; /* catches, of which the shortest is told */
    for (uint64_t i = 0; i < tries && catches < more; i++) {
        if (catches != 0 && i >= CATCHES_WITHIN)
            break; /* rare ones cost enough until the first */
        const char *failure = sim_run(sim_first_seed() + i, rule, false);
        if (failure == NULL)
            continue;
        if (catches++ == 0) {
            caught_after = i + 1;
            (void)snprintf(first, sizeof first, "%s", failure);
        }
        least = sim.step < least ? sim.step : least;
    }
    if (catches != 0)
        printf("| %-22s | %6" PRIu64 " | %5" PRIu64 " | %.90s\n", row->name, caught_after, least,
               first);
    else
        printf("| %-22s |      - |     - | not in %" PRIu64 " seeds%s%s\n", row->name, tries,
               *row->why == 0 ? "" : ": ", row->why);
    test_check(row->within == 0 || catches != 0, "rule \"%s\" (%s) is off, and nothing shows it",
               row->name, row->what);
}

int main(int argc, char **argv)
{
    test_begin("sabotage", 600);
    if (TEST_SLOWNESS > 1)
        test_skip("a test of the tests: once is enough, without a sanitizer");
    sim_create();
    printf("| rule switched off      |  seeds | steps | what went wrong\n");
    for (unsigned r = 1; r < RULE_COUNT; r++)
        if (wanted(&rules[r], argc, argv))
            try_rule((enum rule)r);
    sim_destroy();
    test_end();
}
