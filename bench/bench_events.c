/* bench_events: what watching costs. In short rounds that take turns in one process: a hit with
 * sampling as it is and without (and the countdown alone, done twice instead of once); a set that
 * nobody follows and one that somebody does; a named event; how long after it a waiting follower
 * of another process has it.
 *
 *   bench_events [--rounds N] [--events N]
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/measure.h"
#include "larder.h"
#include "sample.h"

enum { KEYS = 1000, HITS = 256, SETS = 64, ROUNDS_MAX = 20000, EVENTS_MAX = 20000 };

static larder *handle;
static char keys[KEYS][17];
static uint8_t value[100];
static double first[ROUNDS_MAX], second[ROUNDS_MAX], third[ROUNDS_MAX], ratios[ROUNDS_MAX];

static void hit(size_t at)
{
    uint8_t room[128];
    int code = larder_get(handle, keys[at % KEYS], 16, room, sizeof room, NULL);
    if (__builtin_expect(code != LARDER_OK, 0))
        test_fail("get: %d", code);
}

static double hits(size_t from)
{
    uint64_t began = test_now_ns();
    for (size_t at = 0; at < HITS; at++)
        hit(from + at);
    return (double)(test_now_ns() - began) / HITS;
}

static double hits_counting_twice(size_t from)
{
    uint64_t began = test_now_ns(), sum = 0;
    for (size_t at = 0; at < HITS; at++) {
        sum += sample_begin_read();
        hit(from + at);
    }
    test_check(sum == 0, "nothing was to be sampled");
    return (double)(test_now_ns() - began) / HITS;
}

static void measure_sampling(size_t rounds)
{
    for (size_t round = 0; round < rounds; round++) {
        for (size_t turn = 0; turn < 3; turn++) {
            size_t which = (turn + round) % 3;
            sample_thread.reads_left = which == 0 ? (uint32_t)(round % SAMPLE_READS) : UINT32_MAX;
            if (which == 0)
                first[round] = hits(round);
            else if (which == 1)
                second[round] = hits(round);
            else
                third[round] = hits_counting_twice(round);
        }
    }
    for (size_t round = 0; round < rounds; round++)
        ratios[round] = first[round] - second[round];
    double sampled = measure_median(ratios, rounds);
    for (size_t round = 0; round < rounds; round++)
        ratios[round] = third[round] - second[round];
    double counting = measure_median(ratios, rounds);
    double plain = measure_median(second, rounds);
    test_figure("hit_unsampled", plain, "ns");
    test_figure("hit_sampling_added", sampled, "ns");
    test_figure("hit_countdown_added", counting, "ns");
    test_figure("hit_watching_share", 100 * (sampled + counting) / plain, "%");
}

static double sets(size_t from)
{
    uint64_t began = test_now_ns();
    for (size_t at = 0; at < SETS; at++) {
        int code = larder_set(handle, keys[(from + at) % KEYS], 16, value, sizeof value, NULL);
        if (__builtin_expect(code != LARDER_OK, 0))
            test_fail("set: %d %s", code, larder_last_error());
    }
    return (double)(test_now_ns() - began) / SETS;
}

static void measure_following(size_t rounds)
{
    for (size_t round = 0; round < rounds; round++) {
        for (size_t turn = 0; turn < 2; turn++) {
            larder_follower *follower = NULL;
            if ((turn + round) % 2 == 0) {
                first[round] = sets(round);
                continue;
            }
            int code = larder_follow(handle, NULL, &follower);
            test_check(code == LARDER_OK, "follow: %d", code);
            second[round] = sets(round);
            larder_unfollow(&follower);
        }
        ratios[round] = second[round] - first[round];
    }
    test_figure("set_unfollowed", measure_median(first, rounds), "ns");
    test_figure("set_followed_added", measure_median(ratios, rounds), "ns");
}

static uint64_t *arrived; /* shared: when event i was there */
static _Atomic int *ready;

static int follow(void *context)
{
    size_t count = *(const size_t *)context;
    larder_filter filter = {.kinds = LARDER_EVENT_NAMED};
    larder_follower *follower = NULL;
    larder_event event;
    if (larder_follow(handle, &filter, &follower) != LARDER_OK)
        return 1;
    *ready = 1;
    for (size_t seen = 0; seen < count; seen++) {
        if (larder_wait_event(follower, 10000, &event) != LARDER_OK)
            return 2;
        arrived[seen] = test_now_ns();
    }
    larder_unfollow(&follower);
    return 0;
}

static void measure_delivery(size_t count)
{
    static double waits[EVENTS_MAX], costs[EVENTS_MAX];
    larder_bytes name = {"bench:event", 11}, data = {value, sizeof value};
    ready = test_shared(sizeof *ready);
    arrived = test_shared(count * sizeof *arrived);
    pid_t child = test_spawn(follow, &count);
    test_until(*ready == 1, 10000, "the follower does not follow");
    for (size_t at = 0; at < count; at++) {
        test_pause_us(100); /* so that it sleeps again */
        uint64_t began = test_now_ns();
        int code = larder_publish(handle, name, data);
        test_check(code == LARDER_OK, "publish: %d", code);
        costs[at] = (double)(test_now_ns() - began);
        waits[at] = (double)began;
    }
    test_join(child, 20000, "the follower");
    for (size_t at = 0; at < count; at++)
        waits[at] = ((double)arrived[at] - waits[at]) / 1000;
    test_figure("publish_waking_p50", measure_quantile(costs, count, 0.5), "ns");
    test_figure("event_delivered_p50", measure_quantile(waits, count, 0.5), "us");
    test_figure("event_delivered_p99", measure_quantile(waits, count, 0.99), "us");

    larder_follower *follower = NULL;
    test_check(larder_follow(handle, NULL, &follower) == LARDER_OK, "follow");
    uint64_t began = test_now_ns();
    for (size_t at = 0; at < count; at++)
        (void)larder_publish(handle, name, data);
    test_figure("publish_followed", (double)(test_now_ns() - began) / (double)count, "ns");
    larder_unfollow(&follower);
}

int main(int argc, char **argv)
{
    measure_begin("bench_events", 120);
    size_t rounds = measure_option(argc, argv, "--rounds", 2000);
    size_t events = measure_option(argc, argv, "--events", 5000);
    test_check(rounds > 0 && rounds <= ROUNDS_MAX && events > 0 && events <= EVENTS_MAX, "options");
    larder_options options = {.dir = test_directory(), .map_size = 64u << 20};
    int code = larder_open("bench", &options, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    for (size_t at = 0; at < KEYS; at++) {
        snprintf(keys[at], sizeof keys[at], "bench:%010zu", at);
        sets(at);
    }
    hits(0); /* this thread's first sample only begins it */
    measure_sampling(rounds);
    measure_following(rounds);
    measure_delivery(events);
    larder_close(&handle);
    test_end();
}
