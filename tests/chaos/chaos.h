/* chaos.h: what the parts of the chaos test share: the fleet's measures, the keys, the board on
 * which workers write what they did, and the hosts. Every host is a network namespace with a map
 * directory, a larderd and worker processes of its own, and a wall clock that the test sets.
 */
#ifndef LARDER_TESTS_CHAOS_H
#define LARDER_TESTS_CHAOS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"
#include "tests/chaos/network.h"
#include "tests/chaos/wall_clock.h"
#include "tests/multi/harness.h"

enum {
    HOSTS = 3,
    WORKERS = 3, /* of a host */
    KEYS = 50000,
    OWNED = 10000, /* the last keys have one writer each: what it did last must be what is left */
    HOT = 500,     /* the first keys get a third of all writes */
    FILL = 7000,   /* a worker's first writes, as fast as it can: the maps are full after them */
    VALUE_MAX = 6000,
    REMEMBERED_MS = 30000, /* what Redis forgets of later is brought back */
    GROUPS = 499,          /* three keys of four are in one of these, whoever writes them */
    TAGS = 997,            /* a third of the keys bears one of these */
    PREFIXES = 50,         /* an eighth of the keys begins with one of these */
    OWN_GROUPS = 40,       /* of a worker: each of its own keys is in one of these */
    NOTES = 4096,          /* invalidations of many that are remembered one by one */
    MANY_NAME = 40         /* what the fleet calls one, with its zero */
};

/* So small that it evicts all the time. Where it has more tombstones than an eighth of it has room
 * for, at 256 bytes each, it forgets those that Redis has taken: most schedules have fewer. */
#define MAP_BYTES (64 << 20)
#define TOMBSTONES_KEPT (MAP_BYTES / 2048)

#define MAP_NAME "chaos"
#define PREFIX "chaos:"
#define STREAM "larder:{chaos:}:events"

/* ---- Keys and values ----------------------------------------------------------------------- */

/* Some names carry a hash tag, as Cluster's users write them. */
size_t key_name(uint32_t key, char out[32]);
/* The worker (0 .. HOSTS * WORKERS - 1) that alone writes the key, or -1. */
int key_owner(uint32_t key);

/* What a write is called. Its value tells it again, and with it the key. */
uint64_t tag_of(uint32_t key, unsigned worker, uint64_t count, bool deletion);
uint32_t tag_key(uint64_t tag);
bool tag_deletes(uint64_t tag);
/* A deletion by an invalidation of many: all hosts know it, but where none of them holds the key,
 * nobody takes the plain value away from Redis. */
uint64_t tag_wide(uint64_t tag);
bool tag_is_wide(uint64_t tag);
/* A set that was refused: its host serves neither the old value nor the new one, other hosts may go
 * on with the old one. */
uint64_t tag_refused(uint64_t tag);
bool tag_is_refused(uint64_t tag);

/* ---- The board: a file that all processes map ----------------------------------------------- */

struct deed { /* of an owned key */
    _Atomic uint64_t begun, done, done_ms;
};

struct worker_board {
    _Atomic uint64_t count; /* numbers its writes, also over its death */
    _Atomic uint64_t sets, deletes, gets, hits, refused;
};

/* Of what carries one of these, nothing may be read any more whose clock is no higher than this: it
 * was seen on that host before the invalidation was called. */
struct many_dead_clocks {
    _Atomic uint64_t groups[GROUPS], tags[TAGS], prefixes[PREFIXES], all;
};

/* Which invalidation it was, for whoever has to explain what came of it. */
enum many_kind { MANY_GROUP, MANY_OWN_GROUP, MANY_TAG, MANY_PREFIX, MANY_PATTERN, MANY_CLEAR };

struct many_note {
    _Atomic uint64_t done_ms; /* 0: it is being written, or its worker died inside the call */
    uint64_t begun_ms, seen;  /* seen: what is no newer is dead */
    enum many_kind kind;
    uint32_t number;
    unsigned worker;
};

struct board {
    _Atomic uint32_t go, stop;
    _Atomic uint64_t lost_ms;             /* when Redis lost data last, by the monotonic clock */
    _Atomic uint32_t crowded;             /* some host had more tombstones than TOMBSTONES_KEPT */
    _Atomic uint32_t clear_wanted[HOSTS]; /* a worker of that host is to clear its map */
    _Atomic uint64_t marks, clears;       /* how many */
    struct many_dead_clocks dead[HOSTS];
    _Atomic uint64_t noted;
    struct many_note notes[NOTES]; /* the last ones */
    struct worker_board workers[HOSTS * WORKERS];
    struct deed deeds[OWNED];
};

struct board *board_map(const char *path, bool create);

/* ---- Invalidations of many (many.c) -------------------------------------------------------- */

struct many_names { /* what a policy points to */
    char group[24], tag[16];
    larder_bytes tags[1];
};

/* The marks that the key bears: into the policy, which lives as long as text. */
void many_give(uint32_t key, struct many_names *text, larder_policy *policy);
/* Entries of this key up to that clock are dead, as far as the host's workers know. */
uint64_t many_dead(const struct many_dead_clocks *dead, uint32_t key);
/* A worker's turn: invalidate something, which is not what is asked for in clear_wanted. seen: a
 * clock that this host knows. */
void many_invalidate(larder *map, struct board *board, unsigned worker, uint64_t seen,
                     test_random *random);
/* Whether it means that key; what it is called. */
bool many_concerns(const struct many_note *note, uint32_t key);
const char *many_kind_name(enum many_kind kind);
/* What the fleet calls it (doc/protocol.md). */
void many_note_name(const struct many_note *note, char out[MANY_NAME]);
/* What the fleet calls the invalidations that can hit the key, one after the other, none for some
 * numbers; false: there are no more. */
bool many_mark_name(uint32_t key, unsigned index, char out[MANY_NAME]);
/* Clear the map, if that is wanted. */
void many_clear(larder *map, struct board *board, unsigned worker, uint64_t seen);

/* ---- Workers (worker.c) -------------------------------------------------------------------- */

/* The main() of a worker: words after "worker": directory, board, number, seed, operations a
 * second. Ends when the board says stop; exit 99 when it read what must not be. */
int worker_main(int argc, char **argv);

/* ---- Hosts (host.c) ------------------------------------------------------------------------ */

struct host {
    unsigned number;
    struct place place;
    char directory[300], log[300], worker_log[300], config[300];
    char url[300];
    struct wall_clock clock;
    pid_t larderd, workers[WORKERS];
    uint64_t larderd_since_us;
    bool larderd_frozen, worker_frozen[WORKERS];
    larder *map; /* the test's own handle */
};

struct host_settings {
    const char *board, *url;
    uint64_t rate; /* operations a second of a worker; 0: as many as it can */
};

void host_begin(struct host *host, unsigned number, const struct host_settings *settings);
void host_start_larderd(struct host *host);
void host_end_larderd(struct host *host, int signal_number);
void host_start_worker(struct host *host, unsigned worker);
void host_kill_worker(struct host *host, unsigned worker);
/* Fails the test if a process has ended that was to run. */
void host_look(struct host *host);
larder_stats host_stats(struct host *host);
/* After the board's stop: all workers must end well. */
void host_join_workers(struct host *host);
void host_end(struct host *host);

/* A process is stopped, continued; remembers nothing. */
void process_freeze(pid_t pid);
void process_thaw(pid_t pid);

#endif
