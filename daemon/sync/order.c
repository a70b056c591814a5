/* order.c: the one order of all writes of a fleet. The push script in daemon/redis/script.c
 * compares the same way; both are tested against each other. Pure.
 */
#include "daemon/sync/internal.h"

#define COMPARE(a, b)                                                                              \
    if ((a) != (b))                                                                                \
    return (a) < (b) ? -1 : 1

int sync_order(const replica_record *a, const replica_record *b)
{
    COMPARE(a->version.clock, b->version.clock);
    COMPARE(a->version.node, b->version.node);
    COMPARE((int)a->kind, (int)b->kind);
    COMPARE(a->value_hash, b->value_hash);
    return 0;
}

int sync_order_item(const sync_item *item, const replica_record *record)
{
    replica_record ours = {.version = item->version,
                           .kind = (enum replica_kind)item->kind,
                           .value_hash = item->value_hash};
    return sync_order(&ours, record);
}
