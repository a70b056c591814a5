/* sim.c: running one seed: chance, names, the trace, and the way out when something does not hold.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/multi/harness.h"

world sim;

static jmp_buf way_out;
static char failure[1024];

uint64_t sim_random(void)
{
    return sync_random(&sim.chance);
}

unsigned sim_pick(unsigned below)
{
    return (unsigned)(sim_random() % below);
}

/* ---- Keys and values --------------------------------------------------------------------------
 */

bool sim_large(uint64_t hash)
{
    return sim_size(hash) > VALUE_SIZE;
}

uint64_t sim_size(uint64_t hash)
{
    if (!sim.faults[FAULT_LARGE] || hash == 0)
        return VALUE_SIZE;
    return hash % 8 == 1 ? HUGE_SIZE : hash % 8 == 3 ? LARGE_SIZE : VALUE_SIZE;
}

int sim_key(const uint8_t *key, size_t size)
{
    for (int k = 0; k < (int)sim.keys_count; k++)
        if (size == strlen(sim.key_names[k]) && memcmp(key, sim.key_names[k], size) == 0)
            return k;
    sim_fail("a key that nobody wrote");
}

void sim_name_key(int key, replica_record *record)
{
    record->key = (const uint8_t *)sim.key_names[key];
    record->key_size = strlen(sim.key_names[key]);
}

const char *sim_text(const replica_record *record)
{
    static char texts[4][64];
    static unsigned next;
    static const char *const kinds[] = {"mark", "value", "negative", "deletion"};
    char *text = texts[next++ % 4];
    (void)snprintf(text, sizeof texts[0], "%s %" PRIu64 ".%u/%x", kinds[record->kind & 3],
                   record->version.clock >> 16, (unsigned)(record->version.clock & 0xffff),
                   record->version.node >> 16);
    return text;
}

/* ---- The trace and the way out ----------------------------------------------------------------
 */

void sim_trace(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    printf("%6" PRIu64 " %8" PRId64 "  ", sim.step, sim.now_ms - SIM_BEGAN_MS);
    vprintf(format, list);
    printf("\n");
    va_end(list);
}

void sim_fail(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    (void)vsnprintf(failure, sizeof failure, format, list);
    va_end(list);
    longjmp(way_out, 1);
}

const char *sim_run(uint64_t seed, enum rule off, bool tracing)
{
    const char *volatile result = NULL;
    rule_switched_off = off;
    rule_masking = rules[off].masking;
    if (off != RULE_NONE)
        rule_favoured = off;
    sim.tracing = tracing;
    if (setjmp(way_out) == 0) {
        world_begin(seed);
        world_run();
    } else {
        result = failure;
    }
    rule_switched_off = rule_masking = RULE_NONE;
    return result;
}

uint64_t sim_first_seed(void)
{
    return test_long() || getenv("LARDER_SEED") != NULL ? test_seed() : 1;
}

void sim_create(void)
{
    sim.server.data.stream = calloc(STREAM_MAX, sizeof(stream_entry));
    sim.server.replica.stream = calloc(STREAM_MAX, sizeof(stream_entry));
    for (int k = 0; k < KEYS_MAX; k++)
        (void)snprintf(sim.key_names[k], sizeof sim.key_names[k], "key%d", k);
    if (sim.server.data.stream == NULL || sim.server.replica.stream == NULL)
        abort();
}

void sim_destroy(void)
{
    free(sim.server.data.stream);
    free(sim.server.replica.stream);
    for (unsigned h = 0; h < HOSTS_MAX; h++)
        sync_destroy(&sim.hosts[h].machine), sync_destroy(&sim.hosts[h].ghost);
}
