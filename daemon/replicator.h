/* replicator.h: keeps one map in step with one Redis. This is the glue: it moves data between the
 * map's port (lib/replica.h), the protocol machine (daemon/sync) and the connections
 * (daemon/redis), on the caller's libevent loop. larderd's main.c calls it, web.c reads its status.
 * It never blocks the loop: no connect, name lookup, read or write waits, and each round with the
 * map is one short batch.
 */
#ifndef LARDER_DAEMON_REPLICATOR_H
#define LARDER_DAEMON_REPLICATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <event2/event.h>

#include "larder.h"

/* What the replicator logs goes through here; priority is syslog's (LOG_ERR .. LOG_DEBUG). At most
 * one line a state change and one a minute for a lasting trouble; never a key's value. */
typedef void replicator_log(void *context, int priority, const char *text);

/* How larderd learns what other programs change in Redis. */
enum replicator_foreign {
    REPLICATOR_FOREIGN_OFF =
        0, /* not at all: it shows when a value is read and is not its record's */
    REPLICATOR_FOREIGN_TRACKING = 1,
    REPLICATOR_FOREIGN_NOTIFICATIONS = 2
};

typedef struct replicator_settings { /* replicator_settings_init() gives the defaults */
    const char *url;                 /* redis://[USER@]HOST[:PORT][/DB], unix:///PATH[?db=N] */
    struct tls *tls;                 /* needed for a URL with TLS; is shared (daemon/redis/tls.h) */
    const char *user, *password;     /* NULL: none; a user in the URL is the same as user */
    const char *sentinel_user, *sentinel_password; /* of the Sentinels, where there are */
    const char *prefix;                            /* in front of every key; NULL: "NAME:" */
    const char *map_name; /* names the connections and the default prefix */

    int64_t connect_timeout_ms; /* name lookup, connect and greeting, each; 5,000 */
    int64_t reply_timeout_ms;   /* from sending to the whole reply; 5,000 */
    int64_t linger_ms;          /* how long a batch that is not full waits for more; 1 */
    int64_t backoff_min_ms;     /* first pause between attempts (full jitter); 100 */
    int64_t backoff_max_ms;     /* longest pause between attempts; 2,000 */
    int64_t park_ms;            /* pause after wrong credentials or no permission; 30,000 */
    int64_t retry_max_ms;       /* longest pause before a refused key is tried again; 60,000 */
    int64_t tombstone_ms;       /* T: how long Redis remembers removals; 86,400,000 */
    int64_t verify_ms; /* each entry is compared with Redis once in so long; 0: never; 600,000 */
    int64_t ping_ms;   /* idle connections are probed this often; 2,000 */

    /* How long larderd looks for the next miss of a worker, and a worker for its answer, before
     * they sleep; at most 1,000, 0: not at all; 100 */
    uint32_t busy_poll_us;

    uint32_t breaker_failures; /* failures in a row that open the breaker; 3 */
    int64_t breaker_open_ms;   /* open for this long before one attempt is let through; 1,000 */

    uint32_t batch_commands;    /* commands of a batch; 128 */
    uint32_t batch_bytes;       /* bytes of a batch (one larger value goes alone); 524,288 */
    uint32_t batches_in_flight; /* batches sent and not yet acknowledged; 8 */
    uint32_t retry_entries;     /* keys Redis refuses that are remembered one by one; 4,096 */
    uint32_t inline_value;      /* bytes of a value that travels in its event; 2,048 */
    enum replicator_foreign foreign;
    uint64_t stream_bytes;       /* what the event stream may take in Redis; 67,108,864 */
    uint64_t max_value;          /* bytes of a value that is accepted from Redis; 8,388,608 */
    uint64_t max_reply_bytes;    /* bytes of one whole reply; 16,777,216 */
    uint32_t max_reply_elements; /* elements of one reply, all levels together; 65,536 */
    uint32_t max_reply_depth;    /* levels of arrays; 4 */
    uint64_t random_seed;        /* 0: from the kernel */

    replicator_log *log; /* NULL: silent */
    void *log_context;
} replicator_settings;

void replicator_settings_init(replicator_settings *settings);

/* Is this a URL that replicator_start() will take? 0, or -1 and a sentence in error. Forms that are
 * known but not carried out by this version (redis-cluster) and URLs with a
 * password in them are errors that say so. Pure: no lookup, no connection. */
int replicator_url_check(const char *url, char *error, size_t error_size);

/* Does a URL that is taken ask for TLS? */
bool replicator_url_is_tls(const char *url);

typedef struct replicator replicator;

/* Begin. Copies the settings; handle must outlive the replicator and stay claimed with this fence
 * (replica_claim). Redis need not be there. *error gets a sentence. Returns NULL on bad settings
 * (LARDER_EINVAL), no memory (LARDER_ENOMEM) or a failing system call (LARDER_ESYSTEM); *code may
 * be NULL. */
replicator *replicator_start(struct event_base *base, larder *handle,
                             const replicator_settings *settings, uint64_t fence, int *code,
                             char *error, size_t error_size);

/* Push what is dirty for at most drain_ms (0: not at all), then disconnect and call
 * stopped(context) from the loop: always exactly once, at the latest drain_ms plus one loop round
 * later. A second call shortens the drain. replicator_free() comes after that. */
void replicator_stop(replicator *self, int64_t drain_ms, void (*stopped)(void *context),
                     void *context);

/* Release all; without a stop before, connections are simply closed. NULL-safe, sets NULL. */
void replicator_free(replicator **self);

/* Called once, from the loop, when the map refused a write because a later daemon claimed it: this
 * daemon must end. The replicator has disconnected by itself. */
void replicator_on_fenced(replicator *self, void (*fenced)(void *context), void *context);

enum replicator_state {
    REPLICATOR_DISCONNECTED = 0, /* between attempts */
    REPLICATOR_CONNECTING = 1,   /* lookup, connect, greeting, scripts */
    REPLICATOR_SYNCING = 2,      /* up, but history is being caught up or pushed again */
    REPLICATOR_UP = 3,           /* in step */
    REPLICATOR_PARKED = 4        /* wrong credentials or no permission: needs an operator */
};

enum replicator_breaker {
    REPLICATOR_BREAKER_CLOSED = 0,
    REPLICATOR_BREAKER_OPEN = 1,
    REPLICATOR_BREAKER_HALF_OPEN = 2
};

typedef struct replicator_status {
    enum replicator_state state;
    enum replicator_breaker breaker;
    int64_t since_ms; /* wall clock of the last change of state */
    char error[256];  /* last error in words, "" if there was none; no secrets */
    int64_t error_ms; /* wall clock of it; 0: none */
    char server[128]; /* "host:port" or "unix:/path", and "/db"; of Sentinels: the master's */
    char run_id[48];  /* of the server; "" until known */
    char redis_version[32];

    /* counted since start */
    uint64_t pushed;       /* commands that carried an entry */
    uint64_t acknowledged; /* entries whose dirty flag was cleared */
    uint64_t old;          /* pushes answered "a newer one is there" */
    uint64_t events;       /* events received that were not seen before */
    uint64_t applied;      /* of these, changed the map */
    uint64_t echoes;       /* of these, equal to what the map had */
    uint64_t ours_newer;   /* of these, older than what the map had: pushed again */
    uint64_t not_stored;   /* of these, refused by the map (floor, space, size) */
    uint64_t duplicates;   /* events received with a number already passed */
    uint64_t gaps;         /* holes in the numbers, each closed from the stream */
    uint64_t resyncs;      /* times the history was lost and all entries compared */
    uint64_t verified;     /* entries compared with their record in Redis */
    uint64_t mended;       /* of these, where the two were not the same */
    uint64_t forgotten;    /* of these, dropped: Redis knew nothing of them, after an absence
                              longer than removals are remembered */
    uint64_t ahead;        /* writes too far ahead of Redis's clock, stamped anew */
    uint64_t nodes_drawn;  /* times another map was found to have our node id */
    uint64_t connects, reconnects; /* sessions begun; of these, after the first */
    uint64_t connect_failures;
    uint64_t timeouts;        /* requests that passed their deadline */
    uint64_t protocol_errors; /* replies out of step, malformed or over a limit */
    uint64_t refused;         /* pushes Redis refused, each try counted */
    uint64_t scripts_loaded;
    uint64_t map_busy; /* map calls that had to be repeated */
    uint64_t bytes_sent, bytes_received;
    uint64_t asks; /* requests of workers for what they missed */
    uint64_t foreign, foreign_checks, foreign_skipped; /* keys that others changed, and looks */
    uint64_t asks_sent; /* commands to Redis for them: one for all who miss a key at a time */

    /* now */
    uint32_t retry_entries;  /* refused keys waiting for their next try */
    uint64_t left_entries;   /* those beside, which are tried again together */
    uint32_t in_flight;      /* commands sent, not answered */
    uint32_t unacknowledged; /* entries that Redis took, and the map has yet no room to note */
    uint64_t epoch, number;  /* place in the event stream */
    int64_t lag_ms;          /* age of the oldest event applied in the last batch */
    int64_t round_trip_us;   /* smoothed round trip of the command connection; 0: unknown */
    int64_t clock_offset_ms; /* Redis's clock minus ours */
    int64_t attempt_in_ms;   /* until the next connection attempt; 0: none is planned */
} replicator_status;

void replicator_status_read(const replicator *self, replicator_status *out);

const char *replicator_state_name(enum replicator_state state);     /* static, "up" */
const char *replicator_breaker_name(enum replicator_breaker state); /* static, "half-open" */

#endif
