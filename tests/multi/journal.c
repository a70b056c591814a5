/* journal.c: reads and writes that are journaled, and the judgement of what was read. Called by the
 * processes of coherence.c; it knows nothing of how these come and go.
 *
 * An operation on a key takes the next number of that key and says so before it begins (`started`)
 * and after it has returned (`done`, with what must be found from then on). A reader takes `done`
 * before it reads and `started` after it: what it finds must not be older than the one and not
 * newer than the other, and exactly `done` where they are the same. Values and expiry times carry
 * their number. An operation that never returns, its process killed, stays started and not done.
 */
#include "journal.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "inspect.h"

struct coherence_board *board;

int64_t coherence_now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t coherence_reads(void)
{
    uint64_t sum = 0;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        sum += atomic_load_explicit(&board->slots[slot].reads, memory_order_relaxed);
    }
    return sum;
}

/* ---- The journal ------------------------------------------------------------------------------
 */

static struct done unpack(uint64_t word)
{
    return (struct done){.number = word >> 34,
                         .value = word >> 4 & ((UINT64_C(1) << 30) - 1),
                         .kind = (enum kind)(word & 3)};
}

static uint64_t pack(struct done done)
{
    return done.number << 34 | done.value << 4 | (uint64_t)done.kind;
}

static void raise_to(_Atomic uint64_t *word, uint64_t value)
{
    uint64_t now = atomic_load_explicit(word, memory_order_relaxed);
    while (now < value && !atomic_compare_exchange_weak(word, &now, value)) {
    }
}

/* The only writer of a key begins: what may make it a miss is said, too. */
static uint64_t op_begin(struct journal *journal, bool removes)
{
    uint64_t number = atomic_load_explicit(&journal->started, memory_order_relaxed) + 1;
    if (removes || board->trouble) { /* in trouble any write may be refused */
        atomic_store(&journal->removal, number);
    }
    atomic_store(&journal->started, number);
    return number;
}

static void op_end(struct journal *journal, struct done done, int64_t expires_ms)
{
    if (done.kind != GONE) {
        atomic_store(&journal->expires_ms, expires_ms);
    }
    atomic_store(&journal->done, pack(done));
}

/* ---- Keys and values --------------------------------------------------------------------------
 */

static size_t key_of(char out[KEY_SIZE], unsigned index)
{
    return (size_t)snprintf(out, KEY_SIZE,
                            index % 7 == 3 ? "a rather longer key, number %u" : "k%u", index);
}

static uint64_t tag_of(unsigned index, uint64_t number)
{
    return (uint64_t)index << 40 | number;
}

/* Most fit into the hot set; some do not, so that keys move in and out of it. */
static size_t size_of(uint64_t tag)
{
    static const uint16_t sizes[] = {8,   9,   24,  40,   60,   100,  100,  100,
                                     150, 300, 700, 1000, 1150, 1210, 1300, 2500};
    uint64_t mixed = (tag ^ tag >> 37) * UINT64_C(0x9e3779b97f4a7c15);
    return sizes[mixed >> 60];
}

static bool is_owned(unsigned index)
{
    return index < OWNED;
}

static bool is_counter(unsigned index)
{
    return index >= OWNED + SHARED;
}

/* ---- One look ---------------------------------------------------------------------------------
 */

static struct glance look(unsigned index)
{
    struct journal *journal = &board->keys[index];
    struct glance glance = {.index = index, .done = unpack(atomic_load(&journal->done))};
    glance.expires_ms = atomic_load(&journal->expires_ms);
    glance.version = atomic_load(&journal->version);
    glance.began_ms = coherence_now_ms();
    return glance;
}

#define wrong(glance, started, text, ...)                                                          \
    test_fail("after %" PRIu64 " reads: key %u, done %" PRIu64 " (kind %d of %" PRIu64             \
              "), started %" PRIu64 ": " text,                                                     \
              coherence_reads(), (glance)->index, (glance)->done.number, (int)(glance)->done.kind, \
              (glance)->done.value, started, __VA_ARGS__)

/* Gates and barriers take what they must: a reader that gets no processor for long pins pages, then
 * sets are refused, and too many of these raise barriers for their neighbours, too. */
static bool is_excused(larder *handle)
{
    larder_stats stats;
    int result = larder_stats_read(handle, &stats, sizeof stats);
    if (result == LARDER_EBUSY || stats.read_busy > atomic_load(&board->busy_before) ||
        stats.pending_overflows > 0 || stats.refused_full > 0) {
        atomic_fetch_add(&board->excused, 1);
        return true;
    }
    return false;
}

/* Nothing was found. Was something to be found all the time? */
static void judge_miss(larder *handle, const struct glance *glance, const char *how)
{
    struct journal *journal = &board->keys[glance->index];
    uint64_t started = atomic_load(&journal->started);
    if (glance->done.kind == GONE || atomic_load(&journal->removal) > glance->done.number ||
        (is_owned(glance->index) && glance->expires_ms <= coherence_now_ms())) {
        return;
    }
    if (board->trouble && !is_owned(glance->index)) {
        return; /* any of its writers may have been refused */
    }
    if (!is_excused(handle)) {
        wrong(glance, started, "%s misses", how);
    }
}

static void judge_number(const struct glance *glance, uint64_t number, uint64_t started,
                         const char *how)
{
    uint64_t least = glance->done.kind == GONE ? glance->done.number + 1 : glance->done.value;
    if (number < least) {
        wrong(glance, started, "%s finds %" PRIu64 ": stale", how, number);
    }
    if (number > started && !is_counter(glance->index)) {
        wrong(glance, started, "%s finds %" PRIu64 ": of the future", how, number);
    }
}

static void judge_info(const struct glance *glance, const larder_info *info, uint64_t started,
                       const char *how)
{
    int64_t least = glance->expires_ms;
    if (info->expires_ms <= glance->began_ms) {
        wrong(glance, started, "%s finds what expired %" PRId64 " ms before", how,
              glance->began_ms - info->expires_ms);
    }
    if (info->version.clock < glance->version) {
        wrong(glance, started, "%s finds an older version than was read before", how);
    }
    raise_to(&board->keys[glance->index].version, info->version.clock);
    if (is_counter(glance->index)) {
        return;
    }
    if (info->expires_ms >= board->far_ms && least >= board->far_ms && info->expires_ms < least) {
        wrong(glance, started, "%s finds the expiry of %" PRId64 ", not of %" PRId64, how,
              info->expires_ms - board->far_ms, least - board->far_ms);
    }
}

/* value NULL: it was not asked for; info NULL: likewise. */
static void judge(larder *handle, const struct glance *glance, int outcome, const void *value,
                  size_t size, const larder_info *info, const char *how)
{
    if (outcome == LARDER_MISS) {
        judge_miss(handle, glance, how);
        return;
    }
    uint64_t started = atomic_load(&board->keys[glance->index].started);
    if (outcome != LARDER_OK && outcome != LARDER_ABSENT) {
        wrong(glance, started, "%s gives %d: %s", how, outcome, larder_last_error());
    }
    bool counter = is_counter(glance->index);
    uint64_t number = 0;
    if (outcome == LARDER_ABSENT) {
        bool numbered = info != NULL && info->expires_ms > board->far_ms;
        number = numbered ? (uint64_t)(info->expires_ms - board->far_ms) : 0;
    } else if (value != NULL && counter) {
        char text[24] = "";
        memcpy(text, value, size < sizeof text - 1 ? size : sizeof text - 1);
        number = strtoull(text, NULL, 10);
    } else if (value != NULL) {
        uint64_t tag;
        if (!test_value_tag(value, size, &tag) || tag >> 40 != glance->index ||
            size != size_of(tag)) {
            wrong(glance, started, "%s finds a torn value of %zu bytes", how, size);
        }
        number = tag & ((UINT64_C(1) << 40) - 1);
    }
    if (number != 0) {
        judge_number(glance, number, started, how);
    }
    if (info != NULL) {
        judge_info(glance, info, started, how);
        if (number != 0 && !counter && info->expires_ms >= board->far_ms &&
            (uint64_t)(info->expires_ms - board->far_ms) < number) {
            wrong(glance, started, "%s finds %" PRIu64 " with an older one's expiry", how, number);
        }
    }
    if (started != glance->done.number || !is_owned(glance->index)) {
        return;
    }
    /* nobody was at the key while we read: it is exactly what was left */
    enum kind kind = outcome == LARDER_OK ? VALUE : NEGATIVE;
    if (glance->done.kind != kind) {
        wrong(glance, started, "%s finds kind %d", how, (int)kind);
    }
    if (number != 0 && outcome == LARDER_OK && number != glance->done.value) {
        wrong(glance, started, "%s finds %" PRIu64, how, number);
    }
    if (info != NULL && info->expires_ms != glance->expires_ms) {
        wrong(glance, started, "%s finds the expiry %" PRId64 " ms off", how,
              info->expires_ms - glance->expires_ms);
    }
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

static void read_many(struct worker *worker)
{
    char keys[MANY][KEY_SIZE];
    larder_item items[MANY] = {0};
    struct glance glances[MANY];
    void *memory = NULL;
    for (unsigned i = 0; i < MANY; i++) {
        unsigned index = coherence_choose(worker);
        items[i].key = keys[i];
        items[i].key_size = key_of(keys[i], index);
        glances[i] = look(index);
    }
    int result = larder_get_many(worker->handle, items, MANY, &memory);
    test_check(result == LARDER_OK, "get_many: %d %s", result, larder_last_error());
    for (unsigned i = 0; i < MANY; i++) {
        judge(worker->handle, &glances[i], items[i].outcome, items[i].value, items[i].value_size,
              &items[i].info, "get_many");
    }
    larder_free(memory);
    coherence_count(worker, MANY);
}

static void read_view(struct worker *worker, unsigned index, const char *key, size_t key_size)
{
    larder_view view;
    size_t size = 0;
    struct glance glance = look(index);
    int outcome = larder_borrow(worker->handle, key, key_size, &view);
    if (outcome == LARDER_OK || outcome == LARDER_ABSENT) {
        for (size_t i = 0; i < view.part_count; i++) {
            memcpy(worker->buffer + size, view.parts[i].iov_base, view.parts[i].iov_len);
            size += view.parts[i].iov_len;
        }
    }
    judge(worker->handle, &glance, outcome, worker->buffer, size, &view.info, "borrow");
    larder_release(worker->handle, &view);
}

static void read_alloc(struct worker *worker, unsigned index, const char *key, size_t key_size)
{
    void *value = NULL;
    size_t size = 0;
    larder_info info;
    struct glance glance = look(index);
    int outcome = larder_get_alloc(worker->handle, key, key_size, &value, &size, &info);
    judge(worker->handle, &glance, outcome, value, size, &info, "get_alloc");
    larder_free(value);
}

void coherence_read(struct worker *worker)
{
    static const larder_read peek = {.flags = LARDER_PEEK};
    char key[KEY_SIZE];
    larder_info info;
    unsigned how = (unsigned)test_random_below(&worker->random, 64);
    if (how == 0) {
        read_many(worker);
        return;
    }
    unsigned index = coherence_choose(worker);
    size_t key_size = key_of(key, index);
    struct glance glance;
    int outcome;
    if (how <= 3) {
        read_view(worker, index, key, key_size);
    } else if (how <= 7) {
        read_alloc(worker, index, key, key_size);
    } else if (how <= 11) {
        glance = look(index);
        outcome = larder_has(worker->handle, key, key_size);
        judge(worker->handle, &glance, outcome, NULL, 0, NULL, "has");
    } else {
        bool peeks = how <= 15;
        glance = look(index);
        outcome = larder_get_with(worker->handle, key, key_size, worker->buffer,
                                  sizeof worker->buffer, &info, peeks ? &peek : NULL);
        judge(worker->handle, &glance, outcome, worker->buffer,
              outcome == LARDER_OK ? (size_t)info.size : 0, &info, peeks ? "peek" : "get");
    }
    coherence_count(worker, 1);
}

/* ---- Writing: keys of one writer --------------------------------------------------------------
 */

struct change { /* of one key, about to be made */
    unsigned index;
    uint64_t number;
    struct done before;
    char key[KEY_SIZE];
    size_t key_size, size;
    larder_policy policy;
    char name[24]; /* of the key's mark */
    larder_bytes tags[2];
};

static struct change change_begin(struct worker *worker, unsigned index, bool removes, bool brief)
{
    struct journal *journal = &board->keys[index];
    struct change change = {.index = index, .before = unpack(atomic_load(&journal->done))};
    change.key_size = key_of(change.key, index);
    change.number = op_begin(journal, removes || brief);
    change.size = size_of(tag_of(index, change.number));
    int64_t expires_ms = board->far_ms + (int64_t)change.number;
    if (brief) {
        expires_ms = coherence_now_ms() + 2 + (int64_t)test_random_below(&worker->random, 40);
    }
    change.policy.expiry = larder_expire_at(expires_ms);
    return change;
}

static void change_end(const struct change *change, enum kind kind, uint64_t value,
                       int64_t expires_ms)
{
    op_end(&board->keys[change->index],
           (struct done){.number = change->number, .value = value, .kind = kind}, expires_ms);
}

/* Nothing has changed, but that the operation is over. */
static void change_vain(const struct change *change)
{
    change_end(change, change->before.kind, change->before.value,
               atomic_load(&board->keys[change->index].expires_ms));
}

static larder_bytes mark_name(struct change *change)
{
    size_t size = (size_t)snprintf(change->name, sizeof change->name, "mark of %u", change->index);
    return (larder_bytes){change->name, size};
}

/* Two of three values carry a mark that no other key has, so that this one's journal tells what its
 * invalidation leaves. */
static enum mark give_mark(struct change *change)
{
    enum mark mark = (enum mark)(change->number % 3);
    if (mark == GROUP) {
        change->policy.group = mark_name(change);
    } else if (mark == TAG) {
        change->tags[0] = (larder_bytes){"all", 3};
        change->tags[1] = mark_name(change);
        change->policy.tags = change->tags;
        change->policy.tag_count = 2;
    }
    return mark;
}

static void note_mark(const struct change *change, enum mark mark)
{
    atomic_store(&board->keys[change->index].mark, mark);
}

/* A refusal is for trouble only; but a reader that gets no processor for long pins pages. */
static void refused(const struct change *change, int result, const char *what)
{
    test_check((board->trouble && result == LARDER_EBUSY) || result == LARDER_EFULL,
               "%s of key %u: %d %s", what, change->index, result, larder_last_error());
}

static void store(struct worker *worker, unsigned index, bool brief, bool negative)
{
    struct change change = change_begin(worker, index, false, brief);
    test_value_fill(worker->value, change.size, tag_of(index, change.number));
    if (negative) {
        change.policy.flags = LARDER_NEGATIVE;
    }
    note_mark(&change, give_mark(&change));
    int result =
        larder_set(worker->handle, change.key, change.key_size, negative ? NULL : worker->value,
                   negative ? 0 : change.size, &change.policy);
    if (result != LARDER_OK) {
        refused(&change, result, "set");
        change_end(&change, GONE, 0, 0);
        return;
    }
    change_end(&change, negative ? NEGATIVE : VALUE, change.number, change.policy.expiry.ms);
}

static bool is_there(const struct change *change)
{
    return change->before.kind != GONE &&
           atomic_load(&board->keys[change->index].expires_ms) > coherence_now_ms();
}

/* replace (or add): only over something (nothing). */
static void store_if(struct worker *worker, unsigned index, bool replaces)
{
    struct change change = change_begin(worker, index, false, false);
    test_value_fill(worker->value, change.size, tag_of(index, change.number));
    enum mark mark = give_mark(&change);
    int result = (replaces ? larder_replace : larder_add)(
        worker->handle, change.key, change.key_size, worker->value, change.size, &change.policy);
    if (result == LARDER_OK) {
        note_mark(&change, mark);
        change_end(&change, VALUE, change.number, change.policy.expiry.ms);
    } else if (result == LARDER_EXISTS) {
        test_check(change.before.kind != GONE, "add finds key %u, which is gone", index);
        change_vain(&change);
    } else if (result == LARDER_MISS) {
        test_check(board->trouble || !is_there(&change) || is_excused(worker->handle),
                   "replace misses key %u", index);
        change_end(&change, GONE, 0, 0);
    } else {
        refused(&change, result, "add or replace");
        if (replaces) {
            change_end(&change, GONE, 0, 0);
        } else {
            change_vain(&change);
        }
    }
}

static void touch(struct worker *worker, unsigned index, bool brief, bool past)
{
    struct change change = change_begin(worker, index, past, brief);
    larder_expiry expiry = past ? larder_expire_at(1) : change.policy.expiry;
    int result = larder_touch(worker->handle, change.key, change.key_size, &expiry);
    if (result != LARDER_OK && result != LARDER_MISS) {
        refused(&change, result, "touch");
        change_vain(&change);
    } else if (result == LARDER_MISS) {
        test_check(board->trouble || !is_there(&change) || is_excused(worker->handle),
                   "touch misses key %u", index);
        change_end(&change, GONE, 0, 0);
    } else if (past || (board->trouble && expiry.ms <= coherence_now_ms())) {
        change_end(&change, GONE, 0, 0); /* expired by the time it was refused: a delete */
    } else {
        test_check(change.before.kind != GONE, "touch finds key %u, which is gone", index);
        change_end(&change, change.before.kind, change.before.value, expiry.ms);
    }
}

static void forget(struct worker *worker, unsigned index)
{
    struct change change = change_begin(worker, index, true, false);
    int result = larder_delete(worker->handle, change.key, change.key_size);
    test_check(result == LARDER_OK || result == LARDER_MISS, "delete: %d %s", result,
               larder_last_error());
    change_end(&change, GONE, 0, 0);
}

/* By its group or its tag; one time in three by the other one, which must leave it alone. */
static void invalidate(struct worker *worker, unsigned index)
{
    struct change change = change_begin(worker, index, true, false);
    enum mark carries = (enum mark)atomic_load(&board->keys[index].mark);
    bool by_tag = test_random_below(&worker->random, 3) == 0 ? carries != TAG : carries == TAG;
    larder_bytes name = mark_name(&change);
    int result =
        (by_tag ? larder_invalidate_tag : larder_invalidate_group)(worker->handle, name, NULL);
    test_check(result == LARDER_OK, "invalidate: %d %s", result, larder_last_error());
    if (carries == (by_tag ? TAG : GROUP)) {
        change_end(&change, GONE, 0, 0);
    } else {
        change_vain(&change);
    }
}

static void change_many(struct worker *worker, unsigned index, bool deletes)
{
    struct change changes[MANY];
    larder_item items[MANY] = {0};
    for (unsigned i = 0; i < MANY; i++) {
        changes[i] = change_begin(worker, index, deletes, false);
        uint8_t *value = worker->many + (size_t)i * VALUE_MAX;
        test_value_fill(value, changes[i].size, tag_of(index, changes[i].number));
        items[i] = (larder_item){.key = changes[i].key, .key_size = changes[i].key_size};
        if (!deletes) {
            items[i].value = value;
            items[i].value_size = changes[i].size;
        }
        index = (index + SLOTS) % OWNED; /* the next key of the same writer */
    }
    /* one policy for all of them: an expiry that carries no number */
    larder_policy policy = {.expiry = larder_expire_at(board->far_ms - 1)};
    int result = deletes ? larder_delete_many(worker->handle, items, MANY)
                         : larder_set_many(worker->handle, items, MANY, &policy);
    if (result != LARDER_OK) {
        refused(&changes[0], result, deletes ? "delete_many" : "set_many");
    }
    for (unsigned i = 0; i < MANY; i++) {
        bool there = !deletes && result == LARDER_OK;
        note_mark(&changes[i], UNMARKED);
        change_end(&changes[i], there ? VALUE : GONE, there ? changes[i].number : 0,
                   policy.expiry.ms);
    }
}

static void write_owned(struct worker *worker, unsigned index)
{
    struct journal *journal = &board->keys[index];
    unsigned what = (unsigned)test_random_below(&worker->random, 100);
    if (unpack(atomic_load(&journal->done)).number != atomic_load(&journal->started)) {
        what = what % 60; /* who had it before was killed inside: what there is is not known */
    }
    if (what < 40) {
        store(worker, index, what >= 34, false);
    } else if (what < 45) {
        store(worker, index, false, true);
    } else if (what < 60) {
        forget(worker, index);
    } else if (what < 68) {
        invalidate(worker, index);
    } else if (what < 82) {
        touch(worker, index, what >= 78, what == 81);
    } else if (what < 88) {
        store_if(worker, index, what < 84);
    } else {
        change_many(worker, index, what >= 94);
    }
}

/* ---- Writing: keys of many writers ------------------------------------------------------------
 */

/* Numbers grow along the versions of a key: the new one is taken after the old one was seen, and
 * stored only over that one. */
static void write_shared(struct worker *worker, unsigned index)
{
    struct journal *journal = &board->keys[index];
    char key[KEY_SIZE];
    size_t key_size = key_of(key, index);
    larder_info info;
    struct glance glance = look(index);
    int found =
        larder_get(worker->handle, key, key_size, worker->buffer, sizeof worker->buffer, &info);
    judge(worker->handle, &glance, found, worker->buffer, found == LARDER_OK ? info.size : 0, &info,
          "get");
    if (found == LARDER_MISS && worker->slot != 0) {
        return; /* two who add could do so in the wrong order */
    }
    uint64_t number = atomic_fetch_add(&journal->started, 1) + 1;
    size_t size = size_of(tag_of(index, number));
    larder_policy policy = {.expiry = larder_expire_at(board->far_ms + (int64_t)number)};
    test_value_fill(worker->value, size, tag_of(index, number));
    int result = found == LARDER_MISS
                     ? larder_add(worker->handle, key, key_size, worker->value, size, &policy)
                     : larder_cas(worker->handle, key, key_size, worker->value, size, &info.version,
                                  &policy);
    if (result == LARDER_OK) {
        raise_to(&journal->done,
                 pack((struct done){.number = number, .value = number, .kind = VALUE}));
    } else if (result != LARDER_CONFLICT) {
        bool troubled = result == LARDER_MISS || result == LARDER_EXISTS || result == LARDER_EBUSY;
        test_check(result == LARDER_EFULL || (board->trouble && troubled),
                   "cas or add of key %u: %d %s", index, result, larder_last_error());
    }
}

static void write_counter(struct worker *worker, unsigned index)
{
    struct journal *journal = &board->keys[index];
    char key[KEY_SIZE];
    size_t key_size = key_of(key, index);
    int64_t count = 0;
    int result = larder_incr(worker->handle, key, key_size, 1, &count, NULL);
    if (result == LARDER_EFULL) {
        return;
    }
    test_check(result == LARDER_OK, "incr: %d %s", result, larder_last_error());
    raise_to(
        &journal->done,
        pack((struct done){.number = (uint64_t)count, .value = (uint64_t)count, .kind = VALUE}));
}

void coherence_write(struct worker *worker)
{
    unsigned index = coherence_choose(worker);
    if (is_owned(index)) {
        write_owned(worker, index / SLOTS * SLOTS + worker->slot);
    } else if (!is_counter(index)) {
        write_shared(worker, index);
    } else {
        write_counter(worker, index);
    }
}

void coherence_fill(larder *handle)
{
    static struct worker worker;
    worker.handle = handle;
    worker.random = test_random_new(1000);
    for (unsigned index = 0; index < KEYS; index++) {
        worker.slot = is_owned(index) ? index % SLOTS : 0;
        if (is_owned(index)) {
            store(&worker, index, false, false);
            continue;
        }
        if (is_counter(index)) {
            write_counter(&worker, index);
            continue;
        }
        write_shared(&worker, index);
    }
}
