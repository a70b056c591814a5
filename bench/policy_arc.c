/* policy_arc.c: ARC (Megiddo and Modha, FAST 2003): recency and frequency lists with a ghost list
 * each; hits among the ghosts move the boundary.
 */
#include <stdlib.h>

#include "policies.h"

enum { RECENT = 1, FREQUENT = 2, RECENT_GHOST = 3, FREQUENT_GHOST = 4 };

struct arc {
    struct policy_links links;
    struct policy_queue queues[5]; /* by number */
    size_t capacity;
    double target; /* of RECENT */
};

static void *make(size_t capacity, size_t keys)
{
    struct arc *arc = policy_memory(1, sizeof *arc);
    arc->links = policy_links_make(keys);
    for (int number = RECENT; number <= FREQUENT_GHOST; number++) {
        arc->queues[number] = policy_queue_make((uint8_t)number);
    }
    arc->capacity = capacity;
    return arc;
}

static void move(struct arc *arc, uint32_t key, int to)
{
    uint8_t from = arc->links.where[key];
    if (from != 0) {
        policy_take(&arc->links, &arc->queues[from], key);
    }
    if (to != 0) {
        policy_push(&arc->links, &arc->queues[to], key);
    }
}

static void replace(struct arc *arc, bool frequent_ghost)
{
    struct policy_queue *recent = &arc->queues[RECENT];
    double size = (double)recent->size;
    if (recent->size > 0 && (size > arc->target || (frequent_ghost && size == arc->target) ||
                             arc->queues[FREQUENT].size == 0)) {
        move(arc, recent->oldest, RECENT_GHOST);
    } else {
        move(arc, arc->queues[FREQUENT].oldest, FREQUENT_GHOST);
    }
}

static void adapt(struct arc *arc, bool recent_ghost)
{
    double ours = (double)arc->queues[recent_ghost ? RECENT_GHOST : FREQUENT_GHOST].size;
    double others = (double)arc->queues[recent_ghost ? FREQUENT_GHOST : RECENT_GHOST].size;
    double step = others > ours ? others / ours : 1;
    double target = recent_ghost ? arc->target + step : arc->target - step;
    arc->target = target < 0 ? 0 : target > (double)arc->capacity ? (double)arc->capacity : target;
}

static void bring_in(struct arc *arc, uint32_t key)
{
    size_t recent = arc->queues[RECENT].size + arc->queues[RECENT_GHOST].size;
    size_t all = recent + arc->queues[FREQUENT].size + arc->queues[FREQUENT_GHOST].size;
    if (recent >= arc->capacity) {
        if (arc->queues[RECENT].size < arc->capacity) {
            move(arc, arc->queues[RECENT_GHOST].oldest, 0);
            replace(arc, false);
        } else {
            move(arc, arc->queues[RECENT].oldest, 0);
        }
    } else if (all >= arc->capacity) {
        if (all >= 2 * arc->capacity) {
            move(arc, arc->queues[FREQUENT_GHOST].oldest, 0);
        }
        replace(arc, false);
    }
    move(arc, key, RECENT);
}

static bool request(void *self, uint32_t key)
{
    struct arc *arc = self;
    uint8_t where = arc->links.where[key];
    if (where == 0) {
        bring_in(arc, key);
        return false;
    }
    bool hit = where == RECENT || where == FREQUENT;
    if (!hit) {
        adapt(arc, where == RECENT_GHOST);
        replace(arc, where == FREQUENT_GHOST);
    }
    move(arc, key, FREQUENT);
    return hit;
}

static void end(void *self)
{
    struct arc *arc = self;
    policy_links_end(&arc->links);
    free(arc);
}

const struct policy policy_arc = {"ARC", make, request, end};
