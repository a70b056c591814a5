/* journal.h: a journal of operations in shared memory, and reads and writes by it. journal.c judges
 * what was read; coherence.c starts the processes that do so, and stops and kills them.
 */
#ifndef LARDER_TESTS_JOURNAL_H
#define LARDER_TESTS_JOURNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness.h"
#include "larder.h"

enum {
    PROCESSES = 4,
    SLOTS = 6,     /* writers: a process has one or two */
    OWNED = 3000,  /* keys of one writer each: any operation. A multiple of SLOTS */
    SHARED = 64,   /* keys of all writers: add and cas */
    COUNTERS = 16, /* keys of all writers: incr */
    KEYS = OWNED + SHARED + COUNTERS,
    BUSY = 48, /* owned keys that half of everything goes to */
    MANY = 8,
    KEY_SIZE = 48,
    VALUE_MAX = 2560
};

enum kind { GONE, VALUE, NEGATIVE };

/* What a stored value can be invalidated by, beside its key. */
enum mark { UNMARKED, GROUP, TAG };

/* What holds once an operation has returned. */
struct done {
    uint64_t number; /* of the operation */
    uint64_t value;  /* of the operation that stored the value */
    enum kind kind;
};

struct journal { /* of a key */
    _Atomic uint64_t started;
    _Atomic uint64_t done;      /* packed */
    _Atomic uint64_t removal;   /* the last started operation that may leave nothing */
    _Atomic uint64_t version;   /* the clock of the newest that anybody has read */
    _Atomic int64_t expires_ms; /* of the last that was stored or touched */
    _Atomic uint32_t mark;      /* enum mark of the last that was stored */
    uint32_t padding0;
    uint64_t padding[2];
};

struct coherence_board {
    struct {
        _Atomic uint64_t reads;
        uint64_t padding[7];
    } slots[SLOTS];
    _Atomic uint32_t warm; /* threads that have their reader */
    _Atomic uint32_t go, end;
    _Atomic uint64_t busy_before; /* stats.read_busy once all were warm */
    _Atomic uint64_t excused;     /* misses that a busy gate or a barrier explains */
    _Atomic uint64_t writes;
    bool trouble;   /* processes are stopped and killed */
    int64_t far_ms; /* expiry of operation 0; brief ones come long before */
    struct journal keys[KEYS];
};

extern struct coherence_board *board;

/* What the journal says before a read. */
struct glance {
    unsigned index;
    struct done done;
    int64_t expires_ms, began_ms;
    uint64_t version;
};

struct worker {
    larder *handle;
    unsigned slot;
    test_random random;
    uint8_t buffer[VALUE_MAX], value[VALUE_MAX];
    uint8_t many[MANY * VALUE_MAX];
};

int64_t coherence_now_ms(void);

/* Reads of all processes so far. */
uint64_t coherence_reads(void);

static inline void coherence_count(struct worker *worker, uint64_t reads)
{
    _Atomic uint64_t *own = &board->slots[worker->slot].reads;
    atomic_store_explicit(own, atomic_load_explicit(own, memory_order_relaxed) + reads,
                          memory_order_relaxed);
}

/* Half of it among a few keys; counters only where nobody's increments can be lost. */
static inline unsigned coherence_choose(struct worker *worker)
{
    uint64_t random = test_random_next(&worker->random);
    unsigned keys = board->trouble ? KEYS - COUNTERS : KEYS;
    return (random >> 63) != 0 ? (unsigned)(random % BUSY) : (unsigned)(random % keys);
}

void coherence_read(struct worker *worker);
void coherence_write(struct worker *worker);

/* Write each key once. */
void coherence_fill(larder *handle);

#endif
