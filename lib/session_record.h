/* session_record.h: what is stored of a session, and how fields are merged into it. Pure: bytes in,
 * bytes out.
 *
 *   head (32 bytes): 1, 0, fields (2 bytes), size of the user (2), 0 (2), created, TTL, end (8
 *   each) | the user | each field in byte order of the names: size of its name (2 bytes), 0 (2),
 *   size of its value (4), name, value
 *
 * Little-endian: it travels. It comes out of shared memory, and out of Redis where anybody may have
 * written it: session_record_decode() checks every length, and that the names ascend.
 */
#ifndef LARDER_LIB_SESSION_RECORD_H
#define LARDER_LIB_SESSION_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder_session.h"

enum {
    SESSION_RECORD_VERSION = 1,
    SESSION_RECORD_HEAD = 32,
    SESSION_RECORD_FIELD_HEAD = 8,
    SESSION_RECORD_SIZE_MAX = INT32_MAX /* whatever a caller asks for */
};

struct session_record {
    int64_t created_ms, ttl_ms; /* > 0 */
    int64_t ends_ms;            /* whatever happens; 0: never */
    larder_bytes user;
    size_t field_count;
    larder_session_field fields[LARDER_SESSION_FIELDS_MAX]; /* ascending, flags 0 */
};

/* Negative, 0, positive as of memcmp(); a shorter one that begins the same comes first. */
int session_compare_names(larder_bytes one, larder_bytes other);

/* A caller's fields, put in order into sorted (room for LARDER_SESSION_FIELDS_MAX). EINVAL: too
 * many, a name without bytes or twice, unknown flags, a value without a pointer; ETOOBIG: a name.
 */
int session_sort_fields(const larder_session_field *fields, size_t count,
                        const larder_session_field *sorted[]);

/* Fields of old with the changes made, as the fields of record; the other members stay. ETOOBIG:
 * more of them than there may be. old and record are two. */
int session_merge(const struct session_record *old, const larder_session_field *const changes[],
                  size_t count, struct session_record *record);

size_t session_record_size(const struct session_record *record);

/* Into session_record_size() bytes. */
void session_record_encode(const struct session_record *record, void *bytes);

/* Pointers go into the bytes. False: it is not one; nothing behind the bytes was looked at. */
bool session_record_decode(const void *bytes, size_t size, struct session_record *record);

#endif
