/* faults.h: the trouble of the chaos test: what can happen to hosts, network and Redis, drawn from
 * the seed, told with its time, and undone again. Whatever is broken has a time at which it is
 * repaired; no two things are broken at once in the same place.
 */
#ifndef LARDER_TESTS_CHAOS_FAULTS_H
#define LARDER_TESTS_CHAOS_FAULTS_H

#include <stdio.h>

#include "tests/chaos/chaos.h"
#include "tests/chaos/servers.h"

void faults_begin(struct host *hosts, struct redis_side *side, struct board *board);
/* Repair what is due, break what is due. Call it every few milliseconds. */
void faults_step(void);
/* Repair all. */
void faults_end(void);
/* What was broken and repaired from then to then, by test_now_us() / 1000; when something was, in
 * seconds as they are printed. */
void faults_tell(FILE *out, uint64_t from_ms, uint64_t to_ms);
double faults_time(uint64_t at_ms);
/* One figure for each kind: how often. */
void faults_figures(void);

#endif
