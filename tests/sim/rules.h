/* rules.h: the rules of the protocol, each of which can be switched off in the simulator: most in
 * the models of map and Redis or on the way between them and the machine, a few by the linker
 * (--wrap) in calls between the machine's files. rules.c says what each is and where it is caught.
 */
#ifndef LARDER_TESTS_SIM_RULES_H
#define LARDER_TESTS_SIM_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rule {
    RULE_NONE, /* nothing is switched off */
    /* of the map */
    RULE_FLOOR,
    RULE_DIRTY_EVICTED,
    RULE_RECENT_EVICTED,
    RULE_TOMBSTONE,
    RULE_ACK_MATCHES,
    RULE_ACK_REQUEUES,
    RULE_OURS_AGAIN,
    RULE_APPLY_NEWER,
    RULE_DROP_OLDER,
    RULE_PLACE_OF_MISSING,
    RULE_OBSERVE,
    RULE_FILL_NEWER,
    RULE_FILL_FLOOR,
    RULE_POSITION_APPLIED,
    RULE_EQUAL_CLEANS,
    RULE_HINT_KEPT,
    RULE_HASH_OF_MISSING,
    RULE_LOWER,
    RULE_OFFSET,
    RULE_MARK_UNTOLD,
    RULE_MARK_NEWEST,
    RULE_MARK_OBSERVE,
    RULE_MARK_ARRIVAL,
    RULE_MARK_SWEEP,
    RULE_MARK_UNSWEPT,
    RULE_MARK_FLOOR,
    RULE_MARK_FLOOR_TOLD,
    RULE_MARK_BURY,
    RULE_DAMAGE_FLOORS,
    RULE_FENCE,
    /* of Redis and its scripts */
    RULE_MARK_MERGE,
    RULE_MARK_EVENT,
    RULE_MARK_SET_FLOOR,
    RULE_MARK_FLOOR_NEWS,
    RULE_MARK_COVERED,
    RULE_COMPARE,
    RULE_KIND_ORDER,
    RULE_HASH_ORDER,
    RULE_EPOCH,
    RULE_EPOCH_ANEW,
    RULE_EPOCH_RISES,
    RULE_EVENT,
    RULE_EVENT_OF_REPLAY,
    RULE_EMIT,
    RULE_EMIT_OF_REPLAY,
    RULE_EMIT_ANSWERED,
    RULE_LACKING,
    RULE_UNORDERED,
    RULE_LATE,
    RULE_LATE_OVER,
    RULE_UNTOLD,
    RULE_REMOVE,
    RULE_HASH,
    RULE_QUIET,
    RULE_AHEAD,
    RULE_NODE,
    /* of the machine, seen at its border */
    RULE_GAP,
    RULE_RANGE,
    RULE_NONCE,
    RULE_RUN_ID,
    RULE_RESYNC,
    RULE_RESYNC_TOMBSTONES,
    RULE_BEGINNING,
    RULE_POSITION_AFTER_RESYNC,
    RULE_HEARTBEAT,
    RULE_HINT_UNTOLD,
    RULE_NOT_ACKED,
    RULE_RETRY,
    RULE_WINNER,
    RULE_ARM,
    RULE_WAKE,
    RULE_RECHECK,
    RULE_VERIFY,
    RULE_VERIFY_OLDER,
    RULE_VERIFY_MISSING,
    RULE_ROLLING,
    RULE_ABSENT,
    RULE_ABSENT_TOLD,
    RULE_MARKS_UP,
    RULE_MARKS_DOWN,
    RULE_MARK_SET,
    RULE_MARK_SET_KEPT,
    /* inside it */
    RULE_MARK_HEARD,
    RULE_MARK_FIRST,
    RULE_MARK_OTHER_SERVER,
    RULE_FORGET_COLLECTED,
    RULE_AGAIN_AFTER_OLD,
    RULE_PUT_BACK,
    RULE_FETCH_NEWER,
    RULE_COUNT
};

struct rule_row {
    const char *name;
    const char *what;  /* is no longer done */
    uint64_t needs;    /* mask of faults (sim.h) without which its absence hardly ever shows */
    enum rule masking; /* another that hides its absence, and is switched off with it */
    unsigned within;   /* seeds in which it must be caught; 0: it is not, for this reason: */
    const char *why;
};

extern const struct rule_row rules[RULE_COUNT];
extern enum rule rule_switched_off, rule_masking;
/* Seeds have the kinds of trouble in which this one matters: that which is off, or one that is on.
 */
extern enum rule rule_favoured;

static inline bool rule_off(enum rule rule)
{
    return rule == rule_switched_off || rule == rule_masking;
}

#endif
