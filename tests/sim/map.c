/* map.c: the model of one host's map: entries with versions, tombstones, floors, dirty rows, as
 * lib/replica_event.c and lib/entry.c have them: what workers and the janitor do to it, and the
 * port that larderd uses. Called by world.c and host.c.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <string.h>

/* Even, so that a removal that keeps a place, one version lower, shows as such (check.c). */
uint32_t map_draw_node(void)
{
    return 2 + 2 * sim_pick(INT32_MAX);
}

void map_reset(host_map *self)
{
    memset(self, 0, sizeof *self);
    self->next_row = 1;
    self->node = map_draw_node();
    self->identity = 1 + sim_pick(INT32_MAX);
}

int64_t host_wall(const host *self)
{
    return sim.now_ms + self->skew;
}

static uint64_t *floor_of(host_map *self, int key)
{
    return &self->floors[key % BUCKETS];
}

static void raise_floor(host_map *self, int key, uint64_t clock)
{
    uint64_t *at = floor_of(self, key);
    if (!rule_off(RULE_FLOOR) && clock > *at)
        *at = clock;
}

static bool expired(const host *self, const replica_record *record)
{
    return record->expires_at_ms != INT64_MAX && host_wall(self) >= record->expires_at_ms;
}

bool map_live(const host *self, int key)
{
    const held_entry *at = &self->map.keys[key];
    return at->there && at->record.kind == REPLICA_VALUE && !expired(self, &at->record) &&
           many_death(self, key, &at->record, false) == 0;
}

unsigned map_dirty(const host_map *self)
{
    unsigned count = 0;
    for (unsigned k = 0; k < sim.keys_count; k++)
        count += self->keys[k].there && self->keys[k].dirty;
    return count;
}

/* ---- Inside a transaction ---------------------------------------------------------------------
 */

/* A dirty entry waits in the log already; one that is not to travel needs no new place. */
static void store(host *self, int key, const replica_record *record, bool dirty)
{
    host_map *map = &self->map;
    held_entry *at = &map->keys[key];
    bool keep_row = at->there && (!dirty || at->dirty);
    if (!keep_row)
        at->row = map->next_row++;
    at->there = true;
    at->dirty = dirty;
    at->acked_ms = 0;
    at->late = false;
    at->record = *record;
    at->record.key = at->record.value = NULL;
    check_held(self, key);
}

static void requeue(host *self, int key)
{
    held_entry *at = &self->map.keys[key];
    at->dirty = true;
    at->acked_ms = 0;
    at->row = self->map.next_row++;
}

static void erase(host *self, int key)
{
    held_entry *at = &self->map.keys[key];
    at->there = at->dirty = false;
    raise_floor(&self->map, key, at->record.version.clock);
}

static uint64_t limit(const host_map *self)
{
    if (!self->clock_known)
        return UINT64_MAX;
    return (uint64_t)(sim.now_ms + self->redis_ms + SIM_AHEAD_MS) << 16 | UINT16_MAX;
}

void map_observe(host_map *self, uint64_t clock)
{
    if (clock <= limit(self))
        self->clock_seen = clock > self->clock_seen ? clock : self->clock_seen;
    else
        clock = limit(self);
    self->clock = clock > self->clock ? clock : self->clock;
}

bool map_ahead(const host_map *self, uint64_t clock)
{
    return clock > limit(self);
}

uint64_t map_believed(const host_map *self, uint64_t clock)
{
    return map_ahead(self, clock) ? limit(self) : clock;
}

larder_version map_next_version(host *self)
{
    host_map *map = &self->map;
    uint64_t physical = (uint64_t)(host_wall(self) + map->offset_ms) << 16;
    map->clock = physical > map->clock ? physical : map->clock + 1;
    if (map->clock_known && map->clock <= limit(map)) /* the real one notes it every second */
        map->clock_seen = map->clock > map->clock_seen ? map->clock : map->clock_seen;
    return (larder_version){.clock = map->clock, .node = map->node};
}

void map_wake(host *self)
{
    if (!self->armed)
        return;
    if (sim.faults[FAULT_KILL] && !sim.calm && sim_one_in(8)) {
        TRACE("host %d: the worker dies before it wakes larderd", self->number);
        return;
    }
    self->armed = false;
    if (!rule_off(RULE_WAKE))
        host_say(self, SYNC_EV_WAKE);
}

/* ---- Workers and the janitor ------------------------------------------------------------------
 */

void map_set(host *self, int key, enum replica_kind kind, int64_t expires_at_ms)
{
    held_entry *at = &self->map.keys[key];
    replica_record record = {.version = map_next_version(self),
                             .kind = kind,
                             .expires_at_ms = kind == REPLICA_DELETED ? INT64_MAX : expires_at_ms};
    if (kind == REPLICA_VALUE)
        record.value_hash = sim_random() | 1;
    if (kind != REPLICA_DELETED && sim.faults[FAULT_MARKS] && sim_one_in(2)) {
        record.mark_count = 1;
        record.marks[0] = (uint8_t)sim_pick(GROUPS);
    }
    if (kind != REPLICA_DELETED && many_death(self, key, &record, false) != 0)
        sim_fail("host %d: what is written is dead at once: %s of %s", self->number,
                 sim_text(&record), sim.key_names[key]);
    TRACE("host %d: writes %s of %s%s", self->number, sim_text(&record), sim.key_names[key],
          at->there && at->dirty ? " over a dirty one" : "");
    if (at->there && map_ahead(&self->map, at->record.version.clock))
        check_stamped(key, &at->record, &record);
    check_written(key, &record);
    if (kind == REPLICA_DELETED && rule_off(RULE_TOMBSTONE)) {
        at->record.version = record.version;
        erase(self, key);
    } else {
        store(self, key, &record, true);
    }
    map_wake(self);
}

/* entry_drop(): what Redis may not have, or a failover forget, leaves an invalidation. */
static void drop(host *self, int key)
{
    held_entry *at = &self->map.keys[key];
    bool recent = at->acked_ms != 0 && host_wall(self) - at->acked_ms < SIM_RECENTLY_MS;
    bool leaves = at->record.kind != REPLICA_DELETED && (at->dirty || recent);
    if (leaves) {
        replica_record gone = {
            .version = at->record.version, .kind = REPLICA_DELETED, .expires_at_ms = INT64_MAX};
        check_written(key, &gone);
        if (!rule_off(at->dirty ? RULE_DIRTY_EVICTED : RULE_RECENT_EVICTED)) {
            store(self, key, &gone, true);
            map_wake(self);
            return;
        }
        erase(self, key);
        return;
    }
    erase(self, key);
    check_lost(key);
}

void map_bury(host *self, int key, larder_version version)
{
    replica_record gone = {.version = version, .kind = REPLICA_DELETED, .expires_at_ms = INT64_MAX};
    TRACE("host %d: buries %s of %s", self->number, sim_text(&gone), sim.key_names[key]);
    check_written(key, &gone);
    store(self, key, &gone, true);
    map_wake(self);
}

void map_evict(host *self, int key)
{
    held_entry *at = &self->map.keys[key];
    if (!at->there || at->record.kind == REPLICA_DELETED)
        return;
    TRACE("host %d: evicts %s of %s%s", self->number, sim_text(&at->record), sim.key_names[key],
          at->dirty ? " (dirty)" : "");
    drop(self, key);
}

void map_expire(host *self)
{
    for (unsigned k = 0; k < sim.keys_count; k++) {
        held_entry *at = &self->map.keys[k];
        if (!at->there || at->record.kind == REPLICA_DELETED || !expired(self, &at->record))
            continue;
        TRACE("host %d: %s of %s has expired", self->number, sim_text(&at->record),
              sim.key_names[k]);
        drop(self, (int)k);
    }
}

/* Too many tombstones: those that Redis has go early, the floors stand for them. */
void map_forget_tombstones(host *self)
{
    for (unsigned k = 0; k < sim.keys_count; k++) {
        held_entry *at = &self->map.keys[k];
        if (!at->there || at->record.kind != REPLICA_DELETED || at->dirty)
            continue;
        TRACE("host %d: forgets %s of %s", self->number, sim_text(&at->record), sim.key_names[k]);
        drop(self, (int)k);
    }
}

/* What a resize carries over: all that must stay, and what fits. */
void map_switch(host *self)
{
    TRACE("host %d: its map gets a new generation", self->number);
    for (unsigned k = 0; k < sim.keys_count; k++) {
        held_entry *at = &self->map.keys[k];
        bool recent = at->acked_ms != 0 && host_wall(self) - at->acked_ms < SIM_RECENTLY_MS;
        if (!at->there || at->dirty || recent || at->record.kind == REPLICA_DELETED ||
            !sim_one_in(2))
            continue;
        TRACE("host %d: leaves out %s of %s", self->number, sim_text(&at->record),
              sim.key_names[k]);
        erase(self, (int)k);
        check_lost((int)k);
    }
}

/* Nothing can be read of what stood there. Nothing older than now may come in again: it may have
 * been newer, or deleted. What the control segment holds (marks, clock, row numbers) stays. */
void map_damage(host *self)
{
    host_map *map = &self->map;
    TRACE("host %d: its map is damaged, and begins anew", self->number);
    memset(map->keys, 0, sizeof map->keys);
    map->position = (replica_position){.marks_id = map->position.marks_id};
    uint64_t now = map_next_version(self).clock;
    for (unsigned b = 0; b < BUCKETS && !rule_off(RULE_DAMAGE_FLOORS); b++)
        map->floors[b] = now;
    map->fill_floor = now;
}

void map_copy(host *self, const host *from)
{
    uint32_t identity = self->map.identity;
    TRACE("host %d: its map is a copy of host %d's now", self->number, from->number);
    self->map = from->map;
    self->map.identity = identity;
    self->skew = from->skew;
    many_forgotten();
}

void map_forget_old(host *self)
{
    for (unsigned k = 0; k < sim.keys_count; k++) {
        held_entry *at = &self->map.keys[k];
        int64_t written = (int64_t)(at->record.version.clock >> 16);
        bool recent = at->acked_ms != 0 && host_wall(self) - at->acked_ms < SIM_RECENTLY_MS;
        if (!at->there || at->record.kind != REPLICA_DELETED || at->dirty || recent ||
            written > host_wall(self) + self->map.offset_ms - SIM_KEEP_MS)
            continue;
        TRACE("host %d: forgets %s of %s, it is old", self->number, sim_text(&at->record),
              sim.key_names[k]);
        drop(self, (int)k);
    }
}

void map_fill_begin(host *self, int key)
{
    host_map *map = &self->map;
    if (map->filling)
        return;
    map->filling = true;
    map->fill_key = key;
    map->fill_version = map_next_version(self);
}

void map_fill_end(host *self)
{
    host_map *map = &self->map;
    if (!map->filling)
        return;
    map->filling = false;
    int key = map->fill_key;
    const held_entry *at = &map->keys[key];
    uint64_t clock = map->fill_version.clock;
    bool newer = !at->there || at->record.version.clock < clock;
    if ((!newer && !rule_off(RULE_FILL_NEWER)) ||
        (clock <= *floor_of(map, key) && !rule_off(RULE_FILL_FLOOR)) || clock <= map->fill_floor)
        return;
    replica_record record = {.version = map->fill_version,
                             .kind = REPLICA_VALUE,
                             .value_hash = sim_random() | 1,
                             .expires_at_ms = INT64_MAX};
    if (many_death(self, key, &record, false) != 0)
        return;
    TRACE("host %d: fills %s with %s", self->number, sim.key_names[key], sim_text(&record));
    check_written(key, &record);
    store(self, key, &record, true);
    map_wake(self);
}

/* ---- The port ---------------------------------------------------------------------------------
 */

/* The live row at or after from; -1: none. */
static int next_row(const host_map *self, uint64_t from)
{
    int found = -1;
    for (unsigned k = 0; k < sim.keys_count; k++) {
        const held_entry *at = &self->keys[k];
        if (at->there && at->row >= from && (found < 0 || at->row < self->keys[found].row))
            found = (int)k;
    }
    return found;
}

int map_outbox(host *self, const sync_action *action)
{
    replica_batch *out = &self->rows_out;
    host_map *map = &self->map;
    unsigned looks = 1 + sim_pick(KEYS_MAX); /* a call looks at a bounded number of rows */
    if (self->busy && !sim_one_in(3))
        return LARDER_EBUSY;
    out->records = self->rows;
    out->count = 0;
    out->end = false;
    out->next_row = action->read.from_row;
    for (; looks > 0 && out->count < action->read.max_records; looks--) {
        int k = next_row(map, out->next_row);
        if (k < 0) {
            out->end = true;
            break;
        }
        const held_entry *at = &map->keys[k];
        out->next_row = at->row + 1;
        if (!at->dirty && !action->read.include_clean)
            continue;
        bool dead =
            at->record.kind != REPLICA_DELETED && many_death(self, k, &at->record, false) != 0;
        if (dead && !at->dirty)
            continue; /* the janitor makes a deletion of it */
        if (action->read.include_clean &&
            (rule_off(RULE_RESYNC) ||
             (rule_off(RULE_RESYNC_TOMBSTONES) && at->record.kind == REPLICA_DELETED)))
            continue;
        replica_record *record = &self->rows[out->count++];
        *record = at->record;
        if (dead)
            *record = (replica_record){
                .version = at->record.version, .kind = REPLICA_DELETED, .expires_at_ms = INT64_MAX};
        record->row = at->row;
        record->acked_ms = at->acked_ms;
        record->dirty = at->dirty;
        if (rule_off(RULE_ABSENT_TOLD) && record->kind != REPLICA_DELETED)
            record->dirty = false, record->acked_ms = 0;
        sim_name_key(k, record);
        record->value = (const uint8_t *)&record->value_hash;
        record->value_size = record->kind == REPLICA_VALUE ? VALUE_SIZE : 0;
    }
    return LARDER_OK;
}

static void check_value(const replica_event *event)
{
    const replica_record *in = &event->record;
    if (in->kind != REPLICA_VALUE || event->value_missing)
        return;
    if (in->value_size != VALUE_SIZE || memcmp(in->value, &in->value_hash, VALUE_SIZE) != 0)
        sim_fail("a value that is not its record's");
}

/* Something newer stands in Redis, and its value does not come with the event: ours goes, and a
 * removal of the version just before that one keeps its place, so that nothing older comes in. */
static void stand_in(host *self, int key, const replica_record *in)
{
    held_entry *at = &self->map.keys[key];
    replica_record gone = {
        .version = in->version, .kind = REPLICA_DELETED, .expires_at_ms = INT64_MAX};
    gone.version.node--;                                   /* no map has that id */
    if (at->there && sync_order(&at->record, &gone) > 0) { /* a twin's: of ours, another value */
        at->there = at->dirty = false;
        self->map.seen_any[key] = false; /* what a third wrote in that tick may come in between */
        raise_floor(&self->map, key, in->version.clock - 1);
    } else {
        store(self, key, &gone, false);
    }
    check_lost(key);
}

/* Newer, and of no use to anybody here: ours goes, and nothing older may come. */
static void give_up(host *self, int key, const replica_record *in)
{
    held_entry *at = &self->map.keys[key];
    at->there = at->dirty = false;
    raise_floor(&self->map, key, at->record.version.clock);
    raise_floor(&self->map, key, in->version.clock);
    check_lost(key);
}

static void take_place(host *self, int key, const replica_event *event, bool dead)
{
    held_entry *at = &self->map.keys[key];
    bool missing = event->value_missing && !dead;
    if (at->there ? rule_off(RULE_DROP_OLDER) : !event->unordered || rule_off(RULE_UNORDERED))
        return;
    if (rule_off(RULE_PLACE_OF_MISSING)) {
        at->there = at->dirty = false;
        check_lost(key);
    } else if (missing) {
        stand_in(self, key, &event->record);
    } else {
        give_up(self, key, &event->record);
    }
}

static void apply_newer(host *self, int key, replica_event *event)
{
    const replica_record *in = &event->record;
    bool deleted = in->kind == REPLICA_DELETED;
    bool dead = deleted || expired(self, in);
    bool unusable = event->value_missing || sim_size(in->value_hash) >= HUGE_SIZE;
    event->verdict = unusable && !dead ? REPLICA_REFUSED : REPLICA_APPLIED;
    if ((dead || unusable) && !deleted) {
        take_place(self, key, event, dead);
        return;
    }
    check_value(event);
    store(self, key, in, event->hint && !rule_off(RULE_HINT_KEPT));
    event->row = event->hint ? self->map.keys[key].row : 0;
}

static void apply_one(host *self, replica_event *event)
{
    const replica_record *in = &event->record;
    if (in->kind == REPLICA_MARK) {
        many_arrive(self, event);
        return;
    }
    int key = sim_key(in->key, in->key_size);
    host_map *map = &self->map;
    held_entry *at = &map->keys[key];
    uint64_t death;
    if (at->there) {
        int order = sync_order(&at->record, in);
        if (rule_off(RULE_HASH_OF_MISSING) && event->value_missing &&
            at->record.version.clock == in->version.clock &&
            at->record.version.node == in->version.node && at->record.kind == in->kind)
            order = 0;
        if (order > 0 && !at->dirty && map_ahead(map, at->record.version.clock) &&
            !map_ahead(map, in->version.clock)) {
            order = -1;
            map->seen_any[key] = false; /* it goes back, and is meant to */
        }
        if (order == 0) {
            event->verdict = REPLICA_EQUAL;
            event->row = at->dirty ? at->row : 0;
            bool told = !event->untold || rule_off(event->hint ? RULE_HINT_UNTOLD : RULE_UNTOLD);
            if (at->dirty && told && !rule_off(RULE_EQUAL_CLEANS)) {
                at->dirty = false;
                at->acked_ms = host_wall(self);
            }
            return;
        }
        if (order > 0 && !rule_off(RULE_APPLY_NEWER)) {
            event->verdict = REPLICA_OLDER;
            if (!at->dirty && !event->doubtful && !rule_off(RULE_OURS_AGAIN))
                requeue(self, key);
            return;
        }
    }
    if (!rule_off(RULE_OBSERVE))
        map_observe(map, in->version.clock);
    death = in->kind == REPLICA_DELETED ? 0 : many_death(self, key, in, true);
    if (death != 0) {
        event->verdict = at->there ? REPLICA_APPLIED : REPLICA_REFUSED;
        if (at->there || *floor_of(map, key) < in->version.clock)
            map_bury(self, key, in->version);
        return;
    }
    if (!at->there && in->version.clock <= *floor_of(map, key)) {
        event->verdict = REPLICA_REFUSED;
        return;
    }
    bool late = event->late && !rule_off(RULE_LATE);
    if (!at->there && late && in->kind != REPLICA_VALUE) {
        raise_floor(map, key, in->version.clock);
        event->verdict = REPLICA_REFUSED;
        return;
    }
    if (late && in->kind != REPLICA_DELETED && (!at->there || !rule_off(RULE_LATE_OVER)))
        event->value_missing = true;
    apply_newer(self, key, event);
    at->late = late && in->kind == REPLICA_DELETED;
}

int map_apply(host *self, const sync_action *action)
{
    bool refused = self->dies_applying || (self->busy && !sim_one_in(3));
    if (self->dies_applying)
        self->dies_in = 1;
    if (action->apply.position != NULL && (!refused || rule_off(RULE_POSITION_APPLIED)))
        self->map.position = *action->apply.position;
    if (refused)
        return LARDER_EBUSY;
    for (size_t i = 0; i < action->apply.count; i++) {
        replica_event *event = &action->apply.events[i];
        apply_one(self, event);
        TRACE("host %d: applies %s of %.*s%s: %d", self->number, sim_text(&event->record),
              (int)event->record.key_size, (const char *)event->record.key,
              event->value_missing ? " (no value)" : "", (int)event->verdict);
    }
    return LARDER_OK;
}

/* Redis took its version for too far ahead: another, and the clock goes back with it. */
static void stamp_anew(host *self, int key)
{
    host_map *map = &self->map;
    held_entry *at = &map->keys[key];
    replica_record old = at->record;
    uint64_t most = limit(map);
    if (map->clock > most && !rule_off(RULE_LOWER)) {
        map->lowered_from = map->clock > map->lowered_from ? map->clock : map->lowered_from;
        map->clock = (uint64_t)(sim.now_ms + map->redis_ms) << 16;
        uint64_t seen = map->clock_seen < most ? map->clock_seen : most - (2000 << 16);
        map->clock = seen > map->clock ? seen : map->clock;
        for (unsigned b = 0; b < BUCKETS; b++)
            map->floors[b] = map->floors[b] > most ? most : map->floors[b];
    }
    at->record.version = map_next_version(self);
    if (old.kind != REPLICA_DELETED && many_death(self, key, &old, false) != 0) {
        at->record = old;
        map_bury(self, key, old.version); /* a new version would bring it back to life */
        return;
    }
    TRACE("host %d: stamps %s of %s anew: %s", self->number, sim_text(&old), sim.key_names[key],
          sim_text(&at->record));
    map->seen_any[key] = false;
    requeue(self, key);
    check_stamped(key, &old, &at->record);
    check_held(self, key);
}

static void acknowledge_one(host *self, const replica_ack *ack, size_t *cleared)
{
    int key = sim_key(ack->key, ack->key_size);
    held_entry *at = &self->map.keys[key];
    if (!at->there)
        return;
    bool same = at->record.version.clock == ack->version.clock &&
                at->record.version.node == ack->version.node && at->record.kind == ack->kind;
    if (at->dirty && at->record.kind != REPLICA_DELETED && ack->kind == REPLICA_DELETED &&
        at->record.version.clock == ack->version.clock &&
        at->record.version.node == ack->version.node && ack->what == REPLICA_STORED &&
        many_death(self, key, &at->record, false) != 0) {
        map_bury(self, key, at->record.version); /* it went out as a removal */
        same = true;
    }
    if (!same && !rule_off(RULE_ACK_MATCHES)) {
        if (at->dirty && !rule_off(RULE_ACK_REQUEUES))
            requeue(self, key);
    } else if (ack->what == REPLICA_AHEAD) {
        stamp_anew(self, key);
    } else if (ack->what == REPLICA_FORGET) {
        if (at->dirty)
            return;
        TRACE("host %d: forgets %s of %s, nobody knows it", self->number, sim_text(&at->record),
              sim.key_names[key]);
        ++*cleared;
        check_forgets(self, key);
        erase(self, key);
        check_lost(key);
    } else if (at->dirty) {
        at->dirty = false;
        at->acked_ms = host_wall(self);
        map_observe(&self->map, ack->version.clock);
        ++*cleared;
        TRACE("host %d: %s of %s is acknowledged", self->number, sim_text(&at->record),
              sim.key_names[key]);
        check_lost(key);
    }
}

int map_acknowledge(host *self, const sync_action *action, size_t *cleared)
{
    *cleared = 0;
    if (self->busy && !sim_one_in(3))
        return LARDER_EBUSY;
    for (size_t i = 0; i < action->acknowledge.count; i++)
        acknowledge_one(self, &action->acknowledge.acks[i], cleared);
    return LARDER_OK;
}
