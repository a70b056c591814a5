/* script.h: the Lua scripts that larderd runs in Redis. Their text is part of the protocol: hosts
 * of different versions may share one Redis, so arguments are only ever appended.
 */
#ifndef LARDER_DAEMON_REDIS_SCRIPT_H
#define LARDER_DAEMON_REDIS_SCRIPT_H

#include <stddef.h>

enum script_id {
    SCRIPT_PUSH = 0,   /* compare and set one entry, emit its event */
    SCRIPT_REMOVE = 1, /* under OOM: drop the value of a deleted entry, tell the others */
    SCRIPT_JOIN = 2,   /* look at the stream, or begin a new epoch */
    SCRIPT_MARK = 3, /* merge invalidations of many into the fleet's set, emit those that are new */
    SCRIPT_STORE = 4, /* Cluster: compare and set one entry, and tell nobody */
    SCRIPT_EMIT = 5,  /* Cluster: tell what a batch has stored */
    SCRIPT_COUNT = 6
};

/* SCRIPT_PUSH: KEYS value, record, stream. ARGV below. Integer replies below; an older entry is
 * answered with {record} or {record, value}, a version that is too far ahead with Redis's time in
 * ms, negated. */
enum {
    PUSH_RECORD = 1,    /* the record's text */
    PUSH_EVENT = 2,     /* the event's text */
    PUSH_VALUE_AT = 3,  /* where the value begins in the event, from 1; 0: see PUSH_VALUE */
    PUSH_OPERATION = 4, /* "s": set the value, "u": unlink it */
    PUSH_EXPIRY = 5,    /* PXAT of the value; "": none */
    PUSH_RECORD_EXPIRY = 6,
    PUSH_EPOCH = 7,  /* "<epoch>-*" */
    PUSH_LENGTH = 8, /* approximate length to trim the stream to */
    PUSH_CHANNEL = 9,
    PUSH_QUIET = 10,  /* "q": equal entries are left alone */
    PUSH_INLINE = 11, /* bytes of a winner's value that may come with the reply */
    PUSH_VALUE = 12,  /* the value, where it is not in the event */
    PUSH_AHEAD = 13,  /* how far ahead of Redis's clock a version may be, ms */
    PUSH_ARGUMENTS = 13
};
enum {
    PUSH_REPLY_STORED = 1,
    PUSH_REPLY_SAME = 2,
    PUSH_REPLY_REMOVED = 3,
    PUSH_REPLY_NO_STREAM = 4,
    PUSH_REPLY_LACKING = 5 /* of STORE, quiet */
};

/* SCRIPT_STORE: KEYS value, record. ARGV below. Replies as those of SCRIPT_PUSH. */
enum {
    STORE_RECORD = 1,
    STORE_OPERATION = 2,
    STORE_EXPIRY = 3,
    STORE_RECORD_EXPIRY = 4,
    STORE_QUIET = 5, /* "q": nothing is written, whatever stands there */
    STORE_INLINE = 6,
    STORE_VALUE = 7,
    STORE_AHEAD = 8, /* as PUSH_AHEAD */
    STORE_ARGUMENTS = 8
};

/* SCRIPT_EMIT: KEYS stream. ARGV "<epoch>-*", length, channel, then any number of events. Replies:
 * PUSH_REPLY_STORED, PUSH_REPLY_NO_STREAM. */

/* SCRIPT_REMOVE: KEYS value, record. ARGV record, event, channel, inline limit, how far ahead. */
/* SCRIPT_JOIN: KEYS stream, node. ARGV id of the cursor ("": none), begin event, channel, whose the
 * node id is, for how long (ms). Reply: {id of the last entry, its event, event at the cursor or
 * "", time ms, whose the node id is}. */

/* SCRIPT_MARK: KEYS mark set, stream. ARGV below, then three for each mark: its name, its clock (16
 * hex digits), its event. Reply: the set's id, or PUSH_REPLY_NO_STREAM (some may be stored). */
enum {
    MARK_EPOCH = 1, /* "<epoch>-*" */
    MARK_LENGTH = 2,
    MARK_CHANNEL = 3,
    MARK_ID = 4,    /* for a set that is made now */
    MARK_LIMIT = 5, /* when it has more fields, it is cut ... */
    MARK_KEEP = 6,  /* ... to the newest so many */
    MARK_QUIET = 7, /* "q": all that a host knows; what a floor of the set stands for is left out */
    MARK_AHEAD =
        8, /* as PUSH_AHEAD; a mark that is further ahead counts as one just so far ahead */
    MARK_ARGUMENTS = 8
};

const char *script_text(enum script_id id);

/* The SHA-1 of the text, as Redis answers SCRIPT LOAD, is kept by the caller. */

#endif
