/* moves.c: slots of the cluster on their way from one master to another; see nodes.h. As
 * `redis-cli --cluster reshard` does it, a few keys at a time, without a look at what belongs
 * together, and in the midst of all other trouble.
 */
#include <stdio.h>
#include <string.h>

#include "daemon/redis/names.h"
#include "tests/chaos/nodes_internal.h"
#include "tests/multi/harness.h"

enum { MOVED_MAX = 60, KEYS_AT_ONCE = 10 };

static struct {
    unsigned from, to;
    uint16_t slots[MOVED_MAX];
    unsigned count;
    uint64_t moved;
    bool begun[SLOTS];
} move;

static bool serves(const struct node_view *view, unsigned node)
{
    return memchr(view->owner, (int)node, sizeof view->owner) != NULL;
}

static unsigned pick(const struct redis_side *side, const struct node_view *view,
                     test_random *random, unsigned but)
{
    unsigned found[SERVERS_MAX], count = 0;
    for (unsigned i = 0; i < side->count; i++)
        if (i != but && redis_answers(&side->servers[i]) && serves(view, i))
            found[count++] = i;
    return count == 0 ? SERVERS_MAX : found[test_random_below(random, count)];
}

/* The stream's own slot often, and slots of keys that are written most. */
static uint16_t pick_slot(test_random *random, bool first)
{
    char name[32];
    if (first && test_random_below(random, 2) == 0)
        return names_slot((const uint8_t *)STREAM, strlen(STREAM));
    if (test_random_below(random, 2) == 0)
        return (uint16_t)test_random_below(random, SLOTS);
    char full[64];
    key_name((uint32_t)test_random_below(random, HOT), name);
    int size = snprintf(full, sizeof full, PREFIX "%s", name);
    return names_slot((const uint8_t *)full, (size_t)size);
}

static bool set_slot(struct node_talk *at, uint16_t slot, const char *how, const char *id)
{
    char number[8];
    snprintf(number, sizeof number, "%u", slot);
    return nodes_ask(at, (const char *const[]){"CLUSTER", "SETSLOT", number, how, id, NULL}).type ==
           '+';
}

static void open_slots(const struct redis_side *side, struct node_view *view, test_random *random,
                       uint16_t first)
{
    struct node_talk from = {0}, to = {0};
    unsigned want = 1 + (unsigned)test_random_below(random, MOVED_MAX);
    if (nodes_open(&from, &side->servers[move.from]) && nodes_open(&to, &side->servers[move.to]))
        for (unsigned tries = 0; move.count < want && tries < 20 * want; tries++) {
            uint16_t slot = tries == 0 ? first : pick_slot(random, false);
            if (view->owner[slot] != move.from ||
                !set_slot(&to, slot, "IMPORTING", side->servers[move.from].id) ||
                !set_slot(&from, slot, "MIGRATING", side->servers[move.to].id))
                continue;
            view->owner[slot] = 255;
            move.begun[slot] = true;
            move.slots[move.count++] = slot;
        }
    nodes_close(&from);
    nodes_close(&to);
}

/* Those of a move that got stuck stay open until all is mended. */
bool nodes_move_begin(struct redis_side *side, test_random *random)
{
    static struct node_view view;
    unsigned any = (unsigned)test_random_below(random, side->count);
    if (!redis_answers(&side->servers[any]) || !nodes_look(side, &side->servers[any], &view))
        return false;
    uint16_t first = pick_slot(random, true);
    move.count = 0;
    move.from = view.owner[first];
    move.to = pick(side, &view, random, move.from);
    if (move.from < side->count && move.to < side->count)
        open_slots(side, &view, random, first);
    return move.count != 0;
}

/* Asked once more whether the slot is its own to give: its replica may have taken its place, and
 * the keys. The new owner first: else nobody would serve it for a moment. */
static bool hand_over(const struct redis_side *side, struct node_talk *from, uint16_t slot)
{
    const char *id = side->servers[move.to].id;
    struct node_talk to = {0};
    bool good = set_slot(from, slot, "MIGRATING", id) && nodes_open(&to, &side->servers[move.to]) &&
                set_slot(&to, slot, "NODE", id);
    nodes_close(&to);
    if (good)
        (void)set_slot(from, slot, "NODE", id);
    move.moved += good;
    return good;
}

bool nodes_move_step(struct redis_side *side, test_random *random)
{
    struct node_talk from = {0};
    char *names[NODES_KEYS_MAX];
    if (move.count == 0)
        return false;
    if (!redis_answers(&side->servers[move.from]) || !redis_answers(&side->servers[move.to]))
        return true; /* later */
    unsigned at = (unsigned)test_random_below(random, move.count);
    if (!nodes_open(&from, &side->servers[move.from]))
        return false;
    size_t count =
        nodes_keys(&from, move.slots[at], 1 + test_random_below(random, KEYS_AT_ONCE), names);
    /* it fails where the other is cut off, no master any more, has no memory ... */
    bool good = count == 0 ? hand_over(side, &from, move.slots[at])
                           : nodes_migrate(&from, &side->servers[move.to],
                                           (const char *const *)names, count);
    nodes_free_keys(names, count);
    nodes_close(&from);
    if (good && count == 0)
        move.slots[at] = move.slots[--move.count];
    return good && move.count != 0;
}

uint64_t nodes_moved(void)
{
    return move.moved;
}

bool nodes_began_to_move(uint16_t slot)
{
    return move.begun[slot];
}
