/* many.c: invalidations of many by the workers of the chaos test: groups, tags, prefixes, patterns
 * and the clear; see chaos.h. What they must have hit is written on the board twice: as the clock
 * up to which everything with that mark is dead, and, in groups of a worker's own keys, as the
 * last thing that it did to each of them.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lib/control.h"
#include "lib/key.h"
#include "lib/marks.h"
#include "tests/chaos/chaos.h"

static bool in_a_group(uint32_t key)
{
    return key % 4 != 0;
}

static bool has_a_tag(uint32_t key)
{
    return key % 3 == 0;
}

static bool has_a_prefix(uint32_t key)
{
    return key % 8 == 5;
}

static unsigned own_group(uint32_t key)
{
    return key / (HOSTS * WORKERS) % OWN_GROUPS;
}

static larder_bytes own_group_name(unsigned owner, unsigned group, char out[24])
{
    int size = snprintf(out, 24, "own%u.%u", owner, group);
    return (larder_bytes){out, (size_t)size};
}

void many_give(uint32_t key, struct many_names *text, larder_policy *policy)
{
    int owner = key_owner(key);
    if (owner >= 0) {
        policy->group = own_group_name((unsigned)owner, own_group(key), text->group);
    } else if (in_a_group(key)) {
        int size = snprintf(text->group, sizeof text->group, "g%u", key % GROUPS);
        policy->group = (larder_bytes){text->group, (size_t)size};
    }
    if (has_a_tag(key)) {
        int size = snprintf(text->tag, sizeof text->tag, "t%u", key % TAGS);
        text->tags[0] = (larder_bytes){text->tag, (size_t)size};
        policy->tags = text->tags;
        policy->tag_count = 1;
    }
}

static uint64_t more(uint64_t a, const _Atomic uint64_t *b)
{
    uint64_t other = atomic_load(b);
    return a > other ? a : other;
}

uint64_t many_dead(const struct many_dead_clocks *dead, uint32_t key)
{
    uint64_t clock = atomic_load(&dead->all);
    if (key_owner(key) < 0 && in_a_group(key))
        clock = more(clock, &dead->groups[key % GROUPS]);
    if (has_a_tag(key))
        clock = more(clock, &dead->tags[key % TAGS]);
    if (has_a_prefix(key))
        clock = more(clock, &dead->prefixes[key % PREFIXES]);
    return clock;
}

static void raise_to(_Atomic uint64_t *word, uint64_t clock)
{
    uint64_t now = atomic_load(word);
    while (now < clock && !atomic_compare_exchange_weak(word, &now, clock)) {
    }
}

static void check(int code, const char *what)
{
    test_check(code == LARDER_OK, "%s: %d %s", what, code, larder_last_error());
}

/* ---- Notes ------------------------------------------------------------------------------------
 */

static struct many_note *note_begin(struct board *board, unsigned worker, enum many_kind kind,
                                    uint32_t number, uint64_t seen)
{
    struct many_note *note = &board->notes[atomic_fetch_add(&board->noted, 1) % NOTES];
    atomic_store(&note->done_ms, 0);
    note->begun_ms = test_now_us() / 1000;
    note->kind = kind;
    note->number = number;
    note->worker = worker;
    note->seen = seen;
    return note;
}

static void note_end(struct many_note *note)
{
    atomic_store(&note->done_ms, test_now_us() / 1000);
}

bool many_concerns(const struct many_note *note, uint32_t key)
{
    switch (note->kind) {
    case MANY_GROUP:
        return key_owner(key) < 0 && in_a_group(key) && key % GROUPS == note->number;
    case MANY_OWN_GROUP:
        return key_owner(key) == (int)note->worker && own_group(key) == note->number;
    case MANY_TAG:
        return has_a_tag(key) && key % TAGS == note->number;
    case MANY_PREFIX:
    case MANY_PATTERN:
        return has_a_prefix(key) && key % PREFIXES == note->number;
    case MANY_CLEAR:
        break;
    }
    return true;
}

const char *many_kind_name(enum many_kind kind)
{
    static const char *const names[] = {"group",  "own group", "tag",
                                        "prefix", "pattern",   "everything"};
    return names[kind];
}

static void write_mark_name(enum mark_kind kind, larder_bytes name, char out[MANY_NAME])
{
    uint8_t mark[RECORD_MARK_SIZE];
    marks_make(mark, kind, name.data, name.size);
    snprintf(out, MANY_NAME, "m%016" PRIx64, marks_tag(mark));
}

static void write_prefix_name(bool pattern, uint32_t number, char out[MANY_NAME])
{
    snprintf(out, MANY_NAME, pattern ? "gp%u:?:[0-9]*" : "pp%u:", number);
}

void many_note_name(const struct many_note *note, char out[MANY_NAME])
{
    char text[24];
    larder_bytes name = {text, 0};
    switch (note->kind) {
    case MANY_GROUP:
    case MANY_TAG:
        name.size = (size_t)snprintf(text, sizeof text, note->kind == MANY_TAG ? "t%u" : "g%u",
                                     note->number);
        write_mark_name(note->kind == MANY_TAG ? MARK_TAG : MARK_GROUP, name, out);
        break;
    case MANY_OWN_GROUP:
        write_mark_name(MARK_GROUP, own_group_name(note->worker, note->number, text), out);
        break;
    case MANY_PREFIX:
    case MANY_PATTERN:
        write_prefix_name(note->kind == MANY_PATTERN, note->number, out);
        break;
    case MANY_CLEAR:
        snprintf(out, MANY_NAME, "c");
    }
}

bool many_mark_name(uint32_t key, unsigned index, char out[MANY_NAME])
{
    static const char *const of_all[] = {"c", "f", "F", "A"};
    struct many_names text;
    larder_policy policy = {0};
    char name[32];
    size_t size = key_name(key, name);
    many_give(key, &text, &policy);
    out[0] = 0;
    if (index == 0 && policy.group.size != 0)
        write_mark_name(MARK_GROUP, policy.group, out);
    else if (index == 1 && policy.tag_count != 0)
        write_mark_name(MARK_TAG, policy.tags[0], out);
    else if ((index == 2 || index == 3) && has_a_prefix(key))
        write_prefix_name(index == 3, key % PREFIXES, out);
    else if (index == 4)
        snprintf(out, MANY_NAME, "b%03x", (unsigned)control_bucket(key_hash(name, size)));
    else if (index >= 5 && index < 9)
        snprintf(out, MANY_NAME, "%s", of_all[index - 5]);
    return index < 9;
}

/* ---- Invalidating -----------------------------------------------------------------------------
 */

/* Every key that was in it when the call began is dead when it has returned. */
static void invalidate_own(larder *map, struct board *board, unsigned worker, unsigned group,
                           uint64_t seen)
{
    char name[24];
    uint64_t count = atomic_fetch_add(&board->workers[worker].count, 1) + 1;
    for (unsigned turn = 0; turn < 2; turn++) {
        for (uint32_t key = KEYS - OWNED; key < KEYS; key++) {
            struct deed *deed = &board->deeds[key - (KEYS - OWNED)];
            if (key_owner(key) != (int)worker || own_group(key) != group ||
                atomic_load(&deed->begun) == 0)
                continue;
            uint64_t tag = tag_wide(tag_of(key, worker, count, true));
            if (turn == 1)
                atomic_store(&deed->done_ms, test_now_us() / 1000);
            atomic_store(turn == 0 ? &deed->begun : &deed->done, tag);
        }
        if (turn == 0) {
            struct many_note *note = note_begin(board, worker, MANY_OWN_GROUP, group, seen);
            check(larder_invalidate_group(map, own_group_name(worker, group, name), NULL),
                  "invalidate a group");
            note_end(note);
        }
    }
}

void many_invalidate(larder *map, struct board *board, unsigned worker, uint64_t seen,
                     test_random *random)
{
    struct many_dead_clocks *dead = &board->dead[worker / WORKERS];
    uint32_t number = (uint32_t)test_random_below(random, GROUPS * TAGS);
    char name[32];
    larder_bytes text = {name, 0};
    struct many_note *note;
    switch (test_random_below(random, 8)) {
    case 0:
    case 1:
    case 2:
        text.size = (size_t)snprintf(name, sizeof name, "g%u", number % GROUPS);
        note = note_begin(board, worker, MANY_GROUP, number % GROUPS, seen);
        check(larder_invalidate_group(map, text, NULL), "invalidate a group");
        note_end(note);
        raise_to(&dead->groups[number % GROUPS], seen);
        break;
    case 3:
    case 4:
        text.size = (size_t)snprintf(name, sizeof name, "t%u", number % TAGS);
        note = note_begin(board, worker, MANY_TAG, number % TAGS, seen);
        check(larder_invalidate_tag(map, text, NULL), "invalidate a tag");
        note_end(note);
        raise_to(&dead->tags[number % TAGS], seen);
        break;
    case 5:
        text.size = (size_t)snprintf(name, sizeof name, "p%u:", number % PREFIXES);
        note = note_begin(board, worker, MANY_PREFIX, number % PREFIXES, seen);
        check(larder_invalidate_prefix(map, text, NULL), "invalidate a prefix");
        note_end(note);
        raise_to(&dead->prefixes[number % PREFIXES], seen);
        break;
    case 6:
        text.size = (size_t)snprintf(name, sizeof name, "p%u:?:[0-9]*", number % PREFIXES);
        note = note_begin(board, worker, MANY_PATTERN, number % PREFIXES, seen);
        check(larder_invalidate_match(map, text, NULL), "invalidate a pattern");
        note_end(note);
        raise_to(&dead->prefixes[number % PREFIXES], seen);
        break;
    default:
        invalidate_own(map, board, worker, number % OWN_GROUPS, seen);
        break;
    }
    atomic_fetch_add(&board->marks, 1);
}

void many_clear(larder *map, struct board *board, unsigned worker, uint64_t seen)
{
    unsigned host = worker / WORKERS;
    if (atomic_load(&board->clear_wanted[host]) == 0 ||
        atomic_exchange(&board->clear_wanted[host], 0) == 0)
        return;
    struct many_note *note = note_begin(board, worker, MANY_CLEAR, 0, seen);
    check(larder_clear(map), "clear");
    note_end(note);
    raise_to(&board->dead[host].all, seen);
    atomic_fetch_add(&board->clears, 1);
}
