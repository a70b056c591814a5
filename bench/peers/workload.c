/* workload.c: the driver's side: see workload.h.
 */
#include "workload.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/measure.h"
#include "peer.h"

static void write_stream(const char *directory, const char *name, const uint32_t *numbers,
                         size_t count)
{
    char path[512], key[32];
    snprintf(path, sizeof path, "%s/keys.%s", directory, name);
    FILE *file = fopen(path, "we");
    test_check(file != NULL, "cannot write %s", path);
    for (size_t at = 0; at < count; at++) {
        snprintf(key, sizeof key, "bench:%010" PRIu32, numbers[at]);
        test_check(fwrite(key, PEER_KEY_SIZE, 1, file) == 1, "cannot write %s", path);
    }
    test_check(fclose(file) == 0, "cannot write %s", path);
}

static void shuffle(uint32_t *numbers, uint32_t count, test_random *random)
{
    for (uint32_t at = 0; at < count; at++)
        numbers[at] = at;
    for (uint32_t at = count - 1; at > 0; at--) {
        uint32_t other = (uint32_t)test_random_below(random, at + 1), swap = numbers[at];
        numbers[at] = numbers[other];
        numbers[other] = swap;
    }
}

void workload_write(const char *directory, uint64_t entries)
{
    size_t room = entries > PEER_STREAM_KEYS ? entries : PEER_STREAM_KEYS;
    uint32_t *numbers = calloc(room, sizeof *numbers);
    test_random random = test_random_new(entries);
    test_check(numbers != NULL, "calloc");
    shuffle(numbers, (uint32_t)entries, &random);
    write_stream(directory, workload_names[WORKLOAD_FILL], numbers, entries);
    measure_zipf(numbers, PEER_STREAM_KEYS, (uint32_t)entries, &random);
    write_stream(directory, workload_names[WORKLOAD_ZIPF], numbers, PEER_STREAM_KEYS);
    measure_uniform(numbers, PEER_STREAM_KEYS, (uint32_t)entries, &random);
    write_stream(directory, workload_names[WORKLOAD_UNIFORM], numbers, PEER_STREAM_KEYS);
    free(numbers);
}
