/* many.c: invalidations of many in the simulated fleet: the tables of the maps (lib/marks.c,
 * lib/sweeps.c, lib/arrival.c, lib/replica_marks.c), the set in Redis and its script, and the check
 * that none is narrowed. Groups are marks of entries, prefixes mean three keys each, buckets those
 * that share a floor.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <string.h>

enum { ROOM_GROUPS = 2, ROOM_PREFIXES = 1, SET_LIMIT = 3, SET_KEEP = 2 }; /* in a crowd */

static const char *const names[MARKS] = {"m0", "m1", "m2", "p0", "p1", "b0",
                                         "b1", "c",  "f",  "F",  "A"};
/* In the order of lib/replica_marks.c. */
static const int reading_order[MARKS] = {
    MARK_CLEAR,  MARK_FLOOR,      MARK_BUCKET,     MARK_BUCKET + 1,  0, 1, 2,
    MARK_PREFIX, MARK_PREFIX + 1, MARK_SET_GROUPS, MARK_SET_PREFIXES};

const char *many_name(int mark)
{
    return names[mark];
}

int many_number(const uint8_t *name, size_t size)
{
    for (int mark = 0; mark < MARKS; mark++)
        if (size == strlen(names[mark]) && memcmp(name, names[mark], size) == 0)
            return mark;
    sim_fail("a mark that nobody made");
}

static bool is_group(int mark)
{
    return mark < GROUPS;
}

static bool is_prefix(int mark)
{
    return mark >= MARK_PREFIX && mark < MARK_PREFIX + PREFIXES;
}

static int prefix_of(int key)
{
    return MARK_PREFIX + (key < 3 ? 0 : 1);
}

bool many_concern(int mark, int key, const replica_record *record)
{
    if (is_group(mark))
        return record->mark_count != 0 && record->marks[0] == mark;
    return mark == MARK_CLEAR || mark == prefix_of(key) || mark == MARK_BUCKET + key % BUCKETS;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint64_t many_death(const host *self, int key, const replica_record *record, bool arriving)
{
    const uint64_t *marks = self->map.marks;
    uint64_t newest = later(marks[MARK_CLEAR], marks[MARK_BUCKET + key % BUCKETS]);
    if (record->mark_count != 0)
        newest = later(newest, later(marks[record->marks[0]], marks[MARK_FLOOR]));
    if (arriving && !rule_off(RULE_MARK_ARRIVAL))
        newest = later(newest, later(marks[prefix_of(key)], marks[MARK_SET_PREFIXES]));
    return newest >= record->version.clock ? newest : 0;
}

/* ---- A map's tables ---------------------------------------------------------------------------
 */

static void raise_mark(host_map *map, int mark, uint64_t clock, bool untold)
{
    if (clock <= map->marks[mark])
        return;
    map->marks[mark] = clock;
    map->untold[mark] = map->untold[mark] || untold;
    if (mark == MARK_CLEAR)
        map->cleared = clock;
}

static void drop_oldest_group(host_map *map)
{
    int oldest = -1, count = 0;
    for (int mark = 0; mark < GROUPS; mark++) {
        if (map->marks[mark] == 0)
            continue;
        count++;
        if (oldest < 0 || map->marks[mark] < map->marks[oldest])
            oldest = mark;
    }
    if (count < ROOM_GROUPS)
        return;
    uint64_t clock = map->marks[oldest];
    if (!rule_off(RULE_MARK_FLOOR))
        raise_mark(map, MARK_FLOOR, clock, false);
    if (map->untold[oldest] && !rule_off(RULE_MARK_FLOOR_TOLD)) {
        map->floor_untold = later(map->floor_untold, clock);
        map->untold[MARK_FLOOR] = true;
    }
    map->marks[oldest] = 0;
    map->untold[oldest] = false;
}

/* The floor keeps out what comes later; what has not been told or swept needs more than that. */
static void drop_other_prefix(host_map *map, int mark)
{
    int other = mark == MARK_PREFIX ? MARK_PREFIX + 1 : MARK_PREFIX;
    bool *unswept = &map->unswept[other - MARK_PREFIX];
    if (map->marks[other] == 0)
        return;
    if (map->untold[other] || *unswept)
        raise_mark(map, MARK_CLEAR, map->marks[other], true);
    else
        raise_mark(map, MARK_SET_PREFIXES, map->marks[other], false);
    map->marks[other] = 0;
    map->untold[other] = *unswept = false;
}

static void store(host_map *map, int mark, uint64_t clock, bool untold)
{
    if (sim.faults[FAULT_CROWD] && map->marks[mark] == 0) {
        if (is_group(mark))
            drop_oldest_group(map);
        else if (is_prefix(mark))
            drop_other_prefix(map, mark);
    }
    if (is_prefix(mark) && clock > map->marks[mark])
        map->unswept[mark - MARK_PREFIX] = true;
    raise_mark(map, mark, clock, untold);
}

bool many_untold(const host_map *map)
{
    for (int mark = 0; mark < MARKS; mark++)
        if (map->untold[mark] || (is_prefix(mark) && map->unswept[mark - MARK_PREFIX]))
            return true;
    return false;
}

/* ---- Workers, the sweep, the janitor ----------------------------------------------------------
 */

static void walk_prefix(host *self, int mark)
{
    for (int k = 0; k < (int)sim.keys_count; k++)
        if (prefix_of(k) == mark && self->map.keys[k].there &&
            self->map.keys[k].record.kind != REPLICA_DELETED)
            map_set(self, k, REPLICA_DELETED, INT64_MAX);
}

void many_invalidate(host *self, int mark)
{
    host_map *map = &self->map;
    uint64_t clock = map_next_version(self).clock;
    if (server_ahead(clock))
        return; /* open, see doc/protocol.md */
    TRACE("host %d: invalidates %s at %" PRIu64 ".%u", self->number, names[mark], clock >> 16,
          (unsigned)(clock & 0xffff));
    store(map, mark, clock, true);
    map_wake(self);
    if (is_prefix(mark)) {
        map->fill_floor = later(map->fill_floor, clock);
        if (sim_one_in(4))
            return; /* the worker dies: the call does not return */
        walk_prefix(self, mark);
        if (map->marks[mark] == clock)
            map->unswept[mark - MARK_PREFIX] = false;
    }
    /* What was written before, by clocks that are right, is older than Redis's. More than that need
     * not be believed of a clock that is ahead. */
    uint64_t now = (uint64_t)server_wall(&sim.server) << 16 | UINT16_MAX;
    struct made made = {.clock = clock,
                        .counts = clock < now || !sim.faults[FAULT_FAR] ? clock : now};
    sim.made[mark][sim.made_count[mark]++ % MADE_MAX] = made;
    if (made.counts > sim.newest_made[mark].counts)
        sim.newest_made[mark] = made;
}

bool many_sweep(host *self)
{
    host_map *map = &self->map;
    for (int p = 0; p < PREFIXES; p++) {
        uint64_t clock = map->marks[MARK_PREFIX + p];
        if (!map->unswept[p])
            continue;
        for (int k = 0; k < (int)sim.keys_count && !rule_off(RULE_MARK_SWEEP); k++) {
            const held_entry *at = &map->keys[k];
            if (prefix_of(k) != MARK_PREFIX + p || !at->there ||
                at->record.kind == REPLICA_DELETED || at->record.version.clock > clock)
                continue;
            map_bury(self, k, at->record.version);
            return true;
        }
        map->unswept[p] = false;
        return true;
    }
    return false;
}

void many_janitor(host *self)
{
    for (int k = 0; k < (int)sim.keys_count && !rule_off(RULE_MARK_BURY); k++) {
        const held_entry *at = &self->map.keys[k];
        uint64_t death = at->there && at->record.kind != REPLICA_DELETED
                             ? many_death(self, k, &at->record, false)
                             : 0;
        if (death != 0)
            map_bury(self, k, at->record.version);
    }
}

/* ---- The port ---------------------------------------------------------------------------------
 */

static void arrive(host_map *map, int mark, uint64_t clock)
{
    if (rule_off(RULE_MARK_NEWEST) && clock < map->marks[mark]) {
        map->marks[mark] = clock;
        return;
    }
    switch (mark) {
    case MARK_FLOOR:
    case MARK_SET_GROUPS:
        raise_mark(map, MARK_FLOOR, clock, false);
        break;
    case MARK_SET_PREFIXES: /* it may stand for one that this map has never seen */
        if (clock > map->marks[MARK_SET_PREFIXES] && clock > map->marks[MARK_CLEAR])
            map->marks[MARK_CLEAR] = clock; /* here alone */
        break;
    default:
        if (is_group(mark) && clock <= map->marks[MARK_FLOOR])
            break;
        if (!is_group(mark) && clock >= map->marks[mark])
            map->untold[mark] = false;
        store(map, mark, clock, false);
    }
}

void many_arrive(host *self, replica_event *event)
{
    uint64_t clock = map_believed(&self->map, event->record.version.clock);
    int mark = many_number(event->record.key, event->record.key_size);
    host_map *map = &self->map;
    arrive(map, mark, clock);
    if (is_prefix(mark))
        map->fill_floor = later(map->fill_floor, clock);
    if (!rule_off(RULE_MARK_OBSERVE))
        map_observe(map, clock);
    event->verdict = REPLICA_APPLIED;
}

/* What is to be said of it: 0: nothing. */
static uint64_t worth_telling(const host_map *map, int mark, const sync_action *action)
{
    bool all = action->marks.all, floors = action->marks.floors;
    switch (mark) {
    case MARK_SET_GROUPS:
        return floors ? map->marks[MARK_FLOOR] : 0;
    case MARK_SET_PREFIXES:
        return floors ? map->marks[MARK_SET_PREFIXES] : 0;
    case MARK_FLOOR:
        return all || map->untold[MARK_FLOOR] ? map->floor_untold : 0;
    default:
        return all || map->untold[mark] ? map->marks[mark] : 0;
    }
}

void many_read_out(host *self, const sync_action *action)
{
    host_map *map = &self->map;
    replica_marks *out = &self->marks_out;
    unsigned most = 1 + sim_pick(MARKS_AT_ONCE);
    bool off = rule_off(RULE_MARKS_UP) && action->marks.all;
    out->count = 0;
    if (!action->marks.all || action->marks.restart)
        map->marks_walk = 0;
    while (map->marks_walk < MARKS && out->count < most && !off) {
        int mark = reading_order[map->marks_walk++];
        replica_mark *to = &out->marks[out->count];
        to->clock = worth_telling(map, mark, action);
        if (to->clock == 0)
            continue;
        to->name_size = (uint32_t)strlen(names[mark]);
        memcpy(to->name, names[mark], to->name_size);
        out->count++;
        if (rule_off(RULE_MARK_UNTOLD))
            map->untold[mark] = false;
    }
    out->end = off || map->marks_walk == MARKS;
}

void many_tell(host *self, const sync_action *action)
{
    host_map *map = &self->map;
    for (size_t i = 0; i < action->mark.count; i++) {
        const replica_mark *told = &action->mark.marks[i];
        int mark = many_number(told->name, told->name_size);
        uint64_t now = mark == MARK_FLOOR ? map->floor_untold : map->marks[mark];
        if (now == told->clock)
            map->untold[mark] = false;
    }
}

/* ---- The set in Redis -------------------------------------------------------------------------
 */

sync_change many_change(int mark, uint64_t clock)
{
    return (sync_change){.record = {.version = {.clock = clock},
                                    .kind = REPLICA_MARK,
                                    .expires_at_ms = INT64_MAX,
                                    .key = (const uint8_t *)names[mark],
                                    .key_size = strlen(names[mark])}};
}

static int floor_of(int mark)
{
    return is_group(mark) ? MARK_SET_GROUPS : is_prefix(mark) ? MARK_SET_PREFIXES : -1;
}

static void cut_set(uint64_t *set)
{
    for (;;) {
        int oldest = -1, count = 0;
        for (int mark = 0; mark < MARK_BUCKET; mark++) {
            if (set[mark] == 0)
                continue;
            count++;
            if (oldest < 0 || set[mark] < set[oldest])
                oldest = mark;
        }
        if (count <= SET_KEEP)
            return;
        if (!rule_off(RULE_MARK_SET_FLOOR))
            set[floor_of(oldest)] = later(set[floor_of(oldest)], set[oldest]);
        TRACE("redis: has no room for %s", names[oldest]);
        set[oldest] = 0;
    }
}

static bool take_one(const request *r, int mark, uint64_t clock)
{
    uint64_t *set = sim.server.data.marks, told = clock;
    clock = server_believed(clock);
    bool covered = set[mark] == 0 && floor_of(mark) >= 0 && clock <= set[floor_of(mark)];
    bool of_map = (mark == MARK_SET_GROUPS || mark == MARK_SET_PREFIXES) && !r->quiet &&
                  !rule_off(RULE_MARK_FLOOR_NEWS);
    bool news = clock > set[mark] || (rule_off(RULE_MARK_MERGE) && clock < set[mark]);
    if (!news && !of_map)
        return true;
    if (covered && (r->quiet || rule_off(RULE_MARK_COVERED)))
        return true;
    stream_entry entry = {.nonce = sim_random(),
                          .emitter = r->emitter,
                          .key = mark,
                          .record = many_change(mark, told).record};
    if (!rule_off(RULE_MARK_EVENT) && !server_emit(r, &entry))
        return false;
    if (news && !covered)
        set[mark] = clock;
    if (!rule_off(RULE_MARK_EVENT))
        server_publish(&entry, true);
    return true;
}

void many_server_take(request *r)
{
    server_data *data = &sim.server.data;
    unsigned count = 0;
    r->outcome = SYNC_NO_SCRIPT;
    if (!sim.server.scripts)
        return;
    r->outcome = SYNC_REFUSED_KEY;
    if (cluster_tries_again(r) || (sim.server.refused >> STREAM_SLOT & 1) != 0)
        return;
    r->outcome = SYNC_NO_STREAM;
    for (size_t i = 0; i < r->marks_count; i++)
        if (!take_one(r, many_number(r->marks[i].name, r->marks[i].name_size), r->marks[i].clock))
            return;
    if (data->marks_id == 0)
        data->marks_id = sim_random() | 1;
    for (int mark = 0; mark < MARK_BUCKET; mark++)
        count += data->marks[mark] != 0;
    if (sim.faults[FAULT_CROWD] && count > SET_LIMIT)
        cut_set(data->marks);
    r->outcome = SYNC_STORED;
    r->set_id = data->marks_id;
}

void many_server_page(request *r)
{
    const uint64_t *set = sim.server.data.marks;
    uint64_t mark = r->page;
    for (; mark < MARKS && r->count < MARKS_PAGE; mark++)
        if (set[mark] != 0)
            r->changes[r->count++] = many_change((int)mark, set[mark]);
    r->next = mark < MARKS ? mark : 0;
}

/* ---- What must hold ---------------------------------------------------------------------------
 */

/* Up to when somebody with these tables, cleared up to then, knows of what the mark means. */
static uint64_t known_cleared(const uint64_t *marks, int mark, uint64_t cleared)
{
    uint64_t newest = later(mark == MARK_CLEAR ? 0 : marks[mark], cleared);
    if (is_group(mark))
        newest = later(newest, later(marks[MARK_FLOOR], marks[MARK_SET_GROUPS]));
    if (is_prefix(mark))
        newest = later(newest, marks[MARK_SET_PREFIXES]);
    return newest;
}

static uint64_t known(const uint64_t *marks, int mark)
{
    return known_cleared(marks, mark, marks[MARK_CLEAR]);
}

/* By a host that tells others of it: what it has cleared itself of for the set's floor alone stands
 * for prefixes that this one lacks, and is no proof that anybody knows of another name. */
static uint64_t known_to_tell(const host_map *map, int mark)
{
    return known_cleared(map->marks, mark, is_prefix(mark) ? map->marks[MARK_CLEAR] : map->cleared);
}

/* The newest that was made and is no newer: a floor may stand for another name's. */
static struct made newest_of(int mark, uint64_t limit)
{
    struct made newest = {0};
    for (unsigned i = 0; i < sim.made_count[mark] && i < MADE_MAX; i++)
        if (sim.made[mark][i].clock <= limit && sim.made[mark][i].counts > newest.counts)
            newest = sim.made[mark][i];
    return newest;
}

void many_forgotten(void)
{
    for (int mark = 0; mark <= MARK_CLEAR; mark++) {
        uint64_t newest = known(sim.server.data.marks, mark);
        for (unsigned h = 0; h < sim.hosts_count; h++)
            newest = later(newest, known_to_tell(&sim.hosts[h].map, mark));
        if (newest < sim.newest_made[mark].clock) {
            TRACE("nobody knows of the newest %s any more", names[mark]);
            sim.newest_made[mark] = newest_of(mark, newest);
        }
    }
}

static void check_entry(const host *self, int key)
{
    const held_entry *at = &self->map.keys[key];
    for (int mark = 0; mark <= MARK_CLEAR && map_live(self, key); mark++)
        if (many_concern(mark, key, &at->record) &&
            at->record.version.clock <= sim.newest_made[mark].counts)
            sim_fail("host %d still reads %s of %s, which is older than %s", self->number,
                     sim_text(&at->record), sim.key_names[key], names[mark]);
    if (at->there && at->record.kind != REPLICA_DELETED &&
        many_death(self, key, &at->record, false) != 0)
        sim_fail("host %d: %s is dead, and still there", self->number, sim.key_names[key]);
}

void many_check(void)
{
    for (int mark = 0; mark <= MARK_CLEAR; mark++) {
        if (known(sim.server.data.marks, mark) < sim.newest_made[mark].counts)
            sim_fail("redis does not know of the newest %s", names[mark]);
        for (unsigned h = 0; h < sim.hosts_count; h++)
            if (known(sim.hosts[h].map.marks, mark) < sim.newest_made[mark].counts)
                sim_fail("host %u does not know of the newest %s", h, names[mark]);
    }
    for (unsigned h = 0; h < sim.hosts_count; h++)
        for (int k = 0; k < (int)sim.keys_count; k++)
            check_entry(&sim.hosts[h], k);
}
