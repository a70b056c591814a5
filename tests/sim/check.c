/* check.c: what must hold, while the fleet runs and when it is at rest. The truth is kept here: the
 * newest version ever written of each key, and whether it was lost by what the protocol does not
 * promise to survive: nobody, neither a map nor Redis, holds it any more after a host lost its map,
 * Redis forgot, or a map evicted what Redis had acknowledged long ago.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { TOLD_WITHIN_MS = 2000, FOUND_WITHIN_MS = 62000 };

/* ---- The truth --------------------------------------------------------------------------------
 */

void check_written(int key, const replica_record *record)
{
    truth *at = &sim.truth[key];
    if (at->any && sync_order(&at->newest, record) >= 0)
        return;
    at->any = true;
    at->lost = at->buried = at->silent = false;
    at->newest = *record;
    at->since_ms = sim.now_ms;
}

/* What is dead is told as a removal. Who sent it may have lost its map since, with all that was
 * left of it: to tell of it does not bring it back. */
void check_removed(int key, const replica_record *record)
{
    const truth *at = &sim.truth[key];
    if (!at->lost || at->newest.version.clock != record->version.clock ||
        at->newest.version.node != record->version.node)
        check_written(key, record);
}

/* A tombstone that is older than T is about to be forgotten, and not pushed again, unless it is
 * this host that has told of it, less than T ago. */
static bool holds(const host *self, int key, const replica_record *newest)
{
    const held_entry *at = &self->map.keys[key];
    bool old = (int64_t)(at->record.version.clock >> 16) < server_wall(&sim.server) - SIM_KEEP_MS;
    bool told = at->acked_ms != 0 && host_wall(self) - at->acked_ms < SIM_KEEP_MS;
    return at->there && sync_order(&at->record, newest) >= 0 &&
           (at->dirty || told || !old || at->record.kind != REPLICA_DELETED);
}

bool check_known(int key, const host *without)
{
    const replica_record *newest = &sim.truth[key].newest;
    const stored *there = &sim.server.data.keys[key];
    bool known = there->there && sync_order(&there->record, newest) >= 0;
    for (unsigned h = 0; h < sim.hosts_count && !known; h++)
        known = &sim.hosts[h] != without && holds(&sim.hosts[h], key, newest);
    return known;
}

void check_lost(int key)
{
    truth *at = &sim.truth[key];
    if (!at->any || at->lost || check_known(key, NULL))
        return;
    at->lost = true;
    TRACE("nobody holds the newest %s any more", sim.key_names[key]);
}

static void prefer(int key, const replica_record *held)
{
    truth *at = &sim.truth[key];
    bool ahead = (int64_t)(held->version.clock >> 16) > server_wall(&sim.server) + SIM_AHEAD_MS;
    if (!ahead && sync_order(held, &at->newest) > 0)
        at->newest = *held;
}

void check_stamped(int key, const replica_record *old, const replica_record *anew)
{
    truth *at = &sim.truth[key];
    const stored *there = &sim.server.data.keys[key];
    if (sync_order(&at->newest, old) != 0) {
        check_written(key, anew);
        return;
    }
    at->newest = *anew;
    at->since_ms = sim.now_ms;
    at->lost = at->buried = false;
    if (there->there)
        prefer(key, &there->record);
    for (unsigned h = 0; h < sim.hosts_count; h++)
        if (sim.hosts[h].map.keys[key].there)
            prefer(key, &sim.hosts[h].map.keys[key].record);
}

void check_gave_way(int key)
{
    sim.truth[key].lost = true;
}

void check_buried(int key)
{
    truth *at = &sim.truth[key];
    for (unsigned h = 0; h < sim.hosts_count && !at->buried; h++) {
        const held_entry *ours = &sim.hosts[h].map.keys[key];
        if (ours->there && ours->dirty) {
            at->forgotten = true; /* that is kept, and will be told, whatever came after it */
            return;
        }
    }
    if (at->silent)
        return; /* only comparing versions now and then would have told the others, and T may be
                   over before that comes round */
    at->buried = at->any && at->lost && !at->forgotten && at->newest.kind == REPLICA_DELETED &&
                 (int64_t)(at->newest.version.clock >> 16) < server_wall(&sim.server) - SIM_KEEP_MS;
}

/* Who stored something in a cluster and lost its map before it could tell of it: only comparing
 * versions now and then would. */
void check_untold(int key)
{
    const stored *there = &sim.server.data.keys[key];
    if (!there->there || !there->untold)
        return;
    for (unsigned h = 0; h < sim.hosts_count; h++) {
        const held_entry *ours = &sim.hosts[h].map.keys[key];
        if (ours->there && ours->dirty && sync_order(&ours->record, &there->record) >= 0)
            return;
    }
    sim.truth[key].silent = true;
}

/* A key that Redis had, lost and now refuses holds up no resync, and who dies then has forgotten
 * it.
 */
void check_refused(int key, bool acknowledged)
{
    if (acknowledged && !sim.faults[FAULT_VERIFY])
        sim.truth[key].lost = sim.truth[key].forgotten = true;
}

/* Had that been deleted since, it would still be known: not what Redis took from this very host a
 * moment ago, and has lost since. (A clock that is set makes more of a moment.) */
void check_forgets(const host *self, int key)
{
    const truth *at = &sim.truth[key];
    const held_entry *ours = &self->map.keys[key];
    if (ours->acked_ms != 0 && sim.now_ms - at->since_ms < SIM_KEEP_MS / 2 &&
        sync_order(&ours->record, &at->newest) == 0 && !sim.faults[FAULT_FAR])
        sim_fail("host %d forgets %s of %s, the newest, which Redis took from it", self->number,
                 sim_text(&ours->record), sim.key_names[key]);
}

/* ---- While it runs ----------------------------------------------------------------------------
 */

/* No reader of a host ever sees a key go back. */
void check_held(host *self, int key)
{
    host_map *map = &self->map;
    const replica_record *now = &map->keys[key].record;
    bool back = map->seen_any[key] && sync_order(now, &map->seen[key]) < 0;
    /* What came in while this host took it for too far ahead has not raised its clock: where it was
     * Redis's clock that had been set, it is not too far ahead, and rules over what is written
     * here, for a minute at most. So does what was drawn before this host's clock went back, while
     * it is still to come. */
    bool drawn_ahead = map->seen[key].version.clock <= map->lowered_from &&
                       (int64_t)(map->seen[key].version.clock >> 16) > server_wall(&sim.server);
    bool ruled = (map->seen_ahead[key] || drawn_ahead) && map->keys[key].dirty;
    if (back && now->kind == REPLICA_DELETED && sim.faults[FAULT_MARKS] && !ruled)
        return; /* of what was dead when it came: a miss all the same */
    if (back && now->kind == REPLICA_DELETED &&
        now->version.clock == map->seen[key].version.clock &&
        now->version.node + 1 == map->seen[key].version.node)
        return; /* keeps the place of a twin's value of this very version */
    if (back && !ruled && !map_ahead(map, map->seen[key].version.clock))
        sim_fail("host %d: %s went back from %s to %s", self->number, sim.key_names[key],
                 sim_text(&map->seen[key]), sim_text(now));
    map->seen_any[key] = true;
    map->seen_ahead[key] = map_ahead(map, now->version.clock);
    map->seen[key] = *now;
}

void check_bounds(const host *self)
{
    sync_view view;
    const sync_settings *settings = &self->settings;
    sync_look(self->machine, &view);
    if (view.in_flight_batches > settings->batches_in_flight ||
        view.in_flight_items > settings->batches_in_flight * settings->batch_commands ||
        view.retry_entries > settings->retry_entries)
        sim_fail("host %d: %u batches, %u commands in flight, %u refused rows", self->number,
                 view.in_flight_batches, view.in_flight_items, view.retry_entries);
}

static bool same_version(const replica_record *a, const replica_record *b)
{
    return a->version.clock == b->version.clock && a->version.node == b->version.node;
}

/* What no worker has lived to say, larderd finds by itself, within a minute. */
int64_t check_told_within(void)
{
    return sim.faults[FAULT_KILL] ? FOUND_WITHIN_MS : TOLD_WITHIN_MS;
}

/* With Redis out of memory, everybody in touch with it learns of a deletion all the same. (Not of
 * an eviction's invalidation, which has the version of the value: that one is no older.) */
void check_deletions_told(void)
{
    for (unsigned k = 0; k < sim.keys_count; k++) {
        const truth *at = &sim.truth[k];
        bool known = false;
        for (unsigned h = 0; h < sim.hosts_count; h++) {
            const held_entry *ours = &sim.hosts[h].map.keys[k];
            known = known || (ours->there && sync_order(&ours->record, &at->newest) == 0);
        }
        if (!at->any || at->silent || at->newest.kind != REPLICA_DELETED || !known ||
            sim.now_ms - at->since_ms < check_told_within())
            continue;
        for (unsigned h = 0; h < sim.hosts_count; h++)
            if (map_live(&sim.hosts[h], (int)k) &&
                !same_version(&sim.hosts[h].map.keys[k].record, &at->newest))
                sim_fail("host %u: %s is deleted, but Redis has no memory, and it still has %s", h,
                         sim.key_names[k], sim_text(&sim.hosts[h].map.keys[k].record));
    }
}

/* ---- At rest ----------------------------------------------------------------------------------
 */

bool check_settled(void)
{
    for (unsigned h = 0; h < sim.hosts_count; h++) {
        const host *self = &sim.hosts[h];
        sync_view view;
        sync_look(self->machine, &view);
        if (view.state != SYNC_UP || !view.drained || host_waits(self) ||
            map_dirty(&self->map) != 0 || many_untold(&self->map))
            return false;
    }
    return true;
}

void check_never_settled(void)
{
    char text[512];
    int size = 0;
    for (unsigned h = 0; h < sim.hosts_count && size < (int)sizeof text; h++) {
        const host *self = &sim.hosts[h];
        sync_view view;
        sync_look(self->machine, &view);
        size +=
            snprintf(text + size, sizeof text - (size_t)size,
                     "; host %u: state %d%s%s%s, %u dirty, %u in flight, %u refused", h,
                     (int)view.state, view.drained ? "" : ", not drained",
                     view.resyncing ? ", pushing all" : "", view.catching_up ? ", catching up" : "",
                     map_dirty(&self->map), view.in_flight_items, view.retry_entries);
    }
    sim_fail("never at rest%s", text);
}

/* A removal that keeps the place of what is to be fetched, or that came late, has a version just
 * before the true one: a miss all the same. */
static bool same_for_readers(const replica_record *found, const replica_record *wanted)
{
    return sync_order(found, wanted) == 0 ||
           (found->kind == REPLICA_DELETED && wanted->kind == REPLICA_DELETED);
}

static bool keeps_place(const replica_record *record)
{
    return record->kind == REPLICA_DELETED && record->version.node % 2 == 1;
}

static void check_server_key(int key, const replica_record *wanted)
{
    const stored *at = &sim.server.data.keys[key];
    const char *name = sim.key_names[key];
    bool plain = server_plain_there(at);
    bool old = wanted != NULL && wanted->kind == REPLICA_DELETED &&
               (int64_t)(wanted->version.clock >> 16) < server_wall(&sim.server) - SIM_KEEP_MS / 2;
    /* by its clock; a host's may be behind that */
    old = old || (wanted != NULL && wanted->expires_at_ms <= server_wall(&sim.server));
    if (wanted != NULL && !at->there && !old && (!at->evicted || sim.faults[FAULT_VERIFY]))
        sim_fail("redis does not know the newest %s, %s", name, sim_text(wanted));
    if (wanted != NULL && at->there && sync_order(&at->record, wanted) != 0)
        sim_fail("redis has %s of %s, the newest is %s", sim_text(&at->record), name,
                 sim_text(wanted));
    if (!at->there || at->foreign)
        return;
    bool value =
        at->record.kind == REPLICA_VALUE && server_wall(&sim.server) < at->record.expires_at_ms;
    if (plain && (!value || at->plain_hash != at->record.value_hash))
        sim_fail("redis has a value of %s that is not that of %s", name, sim_text(&at->record));
    if (!plain && value && !at->unlinked)
        sim_fail("redis has lost the value of %s, %s", name, sim_text(&at->record));
}

static void check_key(int key)
{
    const truth *at = &sim.truth[key];
    const stored *there = &sim.server.data.keys[key];
    const replica_record *wanted = at->lost ? NULL : &at->newest;
    check_server_key(key, wanted);
    if (wanted == NULL && there->there)
        wanted = &there->record;
    if (at->buried && wanted != NULL && wanted->kind != REPLICA_DELETED)
        sim_fail("%s was deleted long ago, and came back as %s", sim.key_names[key],
                 sim_text(wanted));
    if (there->there &&
        (int64_t)(there->record.version.clock >> 16) > server_wall(&sim.server) + SIM_AHEAD_MS)
        sim_fail("redis has %s of %s: it will rule over what is written for long",
                 sim_text(&there->record), sim.key_names[key]);
    for (unsigned h = 0; h < sim.hosts_count; h++) {
        const held_entry *ours = &sim.hosts[h].map.keys[key];
        if (!ours->there)
            continue;
        if (ours->record.kind == REPLICA_DELETED && (int64_t)(ours->record.version.clock >> 16) <
                                                        server_wall(&sim.server) - SIM_KEEP_MS / 2)
            continue; /* about to be forgotten: a miss, whatever others have */
        if ((keeps_place(&ours->record) || ours->late) && wanted != NULL &&
            sync_order(&ours->record, wanted) < 0)
            continue; /* it came late, for a miss */
        if (at->buried && ours->record.kind != REPLICA_DELETED)
            sim_fail("%s was deleted long ago, and host %u still has %s", sim.key_names[key], h,
                     sim_text(&ours->record));
        if (wanted == NULL)
            wanted = &ours->record; /* Redis was never asked for it since it forgot it */
        if (((at->lost && at->forgotten) || at->silent) && !sim.faults[FAULT_VERIFY])
            continue; /* only comparing versions now and then would tell */
        if (!same_for_readers(&ours->record, wanted))
            sim_fail("host %u keeps %s of %s, the newest is %s%s", h, sim_text(&ours->record),
                     sim.key_names[key], sim_text(wanted), at->lost ? " (of those left)" : "");
    }
}

static void check_position(const host *self)
{
    const replica_position *at = &self->map.position;
    const server_data *data = &sim.server.data;
    uint64_t nonce = data->stream[data->count - 1].nonce;
    if (sim.faults[FAULT_DAMAGE] && at->epoch == 0)
        return; /* it was lost with what stood there, and has not moved: as if it never had been */
    if (at->epoch != data->last_epoch || at->number != data->last_number ||
        (at->nonce != 0 && at->nonce != nonce) ||
        (strcmp(at->run_id, sim.server.run_id) != 0 && !rule_off(RULE_RUN_ID)))
        sim_fail("host %d has stored its place as %" PRIu64 "-%" PRIu64 " of %s, it is %" PRIu64
                 "-%" PRIu64 " of %s",
                 self->number, at->epoch, at->number, at->run_id, data->last_epoch,
                 data->last_number, sim.server.run_id);
}

/* A version names one value: who compares and swaps goes by it. (Until the claims are settled two
 * hosts may give one version to two values; of these the hash decides which stays.) */
static void check_node_ids(void)
{
    for (unsigned a = 0; a < sim.hosts_count; a++)
        for (unsigned b = 0; b < a; b++)
            if (sim.hosts[a].map.node == sim.hosts[b].map.node)
                sim_fail(
                    "hosts %u and %u have one node id: a version of theirs may name two values", b,
                    a);
}

void check_converged(void)
{
    check_node_ids();
    for (unsigned k = 0; k < sim.keys_count; k++)
        if (sim.truth[k].any)
            check_key((int)k);
    many_check();
    for (unsigned h = 0; h < sim.hosts_count; h++)
        check_position(&sim.hosts[h]);
}
