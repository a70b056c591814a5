/* spin.h: looking at a word for some microseconds before sleeping on it. Where what is waited for
 * comes that soon, the sleep, and above all the wake-up of a processor that has gone idle, is most
 * of the time that a caller waits. What it costs is a processor, so it is bounded thrice: by the
 * time, by how many of a host do it at once (half of the processors, at most SPIN_PLACES; none
 * where there is but one), and by whether it has been of use lately: who sleeps all the same, or
 * notices that its processor was given to somebody else meanwhile, makes the next ones sleep at
 * once.
 *
 * Lies in the control segment. A place ends at its time, whoever died in it. Zeroes are a valid
 * area, in which nobody spins. Called by ask.c. Never blocks. Layout: MAP_FORMAT
 */
#ifndef LARDER_LIB_SPIN_H
#define LARDER_LIB_SPIN_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    SPIN_PLACES = 4,
    SPIN_MOST_US = 1000, /* however long the area asks for */
    SPIN_DOUBT = 8,      /* from here on most do not try ... */
    SPIN_TRY_EVERY = 32  /* ... but one in so many */
};

struct spin_area {
    _Atomic int64_t until_us[SPIN_PLACES]; /* CLOCK_MONOTONIC: taken until then */
    _Atomic uint32_t limit_us;             /* how long one may spin; 0: nobody does */
    _Atomic uint32_t doubt, turns;
    uint32_t reserved;
};
static_assert(sizeof(struct spin_area) == 48, "MAP_FORMAT");

struct spin { /* one caller's turn */
    struct spin_area *area;
    int64_t until_us, looked_us;
    unsigned place;
    bool disturbed;
};

/* Processors that this process may use, as found at its first call: > 0. */
unsigned spin_processors(void);

/* Whether this caller may, until until_us (CLOCK_MONOTONIC) at most; then spin_end() it. */
bool spin_begin(struct spin_area *area, int64_t until_us, struct spin *spin);

/* A pause, well under a microsecond, between two looks. False: enough. */
bool spin_on(struct spin *spin);

/* came: what was waited for did. */
void spin_end(const struct spin *spin, bool came);

#endif
