/* session.c: sessions of users: larder_session_*. Each is one entry of the map, which slides, and
 * carries its user as a tag. Whatever changes one is a compare-and-swap against the version that
 * was read, judged inside the write gate: a deletion, by key or by tag, that came in between makes
 * it a miss, so no update brings back what was deleted. Never writes an id into a message.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "handle.h"
#include "session_id.h"
#include "session_record.h"
#include "stats.h"
#include "write.h"

enum {
    SWAP_TRIES = 64, /* each one that is lost is another's that was won */
    READ_TRIES = 8,  /* of a session that grows while it is read */
    ROOM = 4096      /* most sessions fit without an allocation */
};

static const char default_prefix[] = "session:";
static const char user_mark[] = "user:"; /* behind the prefix, before the user: the tag */

/* A caller's options, checked. */
struct place {
    larder_bytes prefix;
    int64_t ttl_ms, max_lifetime_ms, read_through_ms;
    uint64_t max_size;
};

/* Bytes as they are stored, in room or in memory. */
struct stored {
    const uint8_t *bytes;
    size_t size;
    void *memory; /* to be freed */
    uint8_t room[ROOM];
};

/* ---- Arguments --------------------------------------------------------------------------------
 */

static int check_options(const larder_session_options *options)
{
    static const uint64_t none[sizeof options->reserved / sizeof options->reserved[0]];
    if (memcmp(options->reserved, none, sizeof none) != 0) {
        return error_set(LARDER_EINVAL, "unknown members of larder_session_options are not 0");
    }
    if (options->ttl_ms < 0 || options->max_lifetime_ms < 0) {
        return error_set(LARDER_EINVAL, "a duration of larder_session_options is negative");
    }
    if (options->prefix.data == NULL && options->prefix.size != 0) {
        return error_set(LARDER_EINVAL, "a prefix of sessions of %zu bytes, but no pointer to them",
                         options->prefix.size);
    }
    if (options->prefix.size > LARDER_SESSION_PREFIX_MAX) {
        return error_set(LARDER_ETOOBIG, "a prefix of sessions of %zu bytes: the limit is %u",
                         options->prefix.size, LARDER_SESSION_PREFIX_MAX);
    }
    return LARDER_OK;
}

static int enter(const larder *handle, const larder_session_options *options, struct place *place)
{
    static const larder_session_options defaults;
    int result = handle_enter(handle);
    if (options == NULL) {
        options = &defaults;
    }
    if (result == LARDER_OK) {
        result = check_options(options);
    }
    if (result != LARDER_OK) {
        return result;
    }
    *place = (struct place){
        .prefix = options->prefix,
        .ttl_ms = options->ttl_ms == 0 ? LARDER_SESSION_TTL_MS : options->ttl_ms,
        .max_lifetime_ms = options->max_lifetime_ms,
        .read_through_ms = options->read_through_ms,
        .max_size = options->max_size == 0 ? LARDER_SESSION_SIZE_MAX : options->max_size};
    if (place->prefix.size == 0) {
        place->prefix = (larder_bytes){default_prefix, sizeof default_prefix - 1};
    }
    if (place->max_size > handle->max_value) {
        place->max_size = handle->max_value;
    }
    return LARDER_OK;
}

/* The same for calls that name a session: MISS where the id cannot be one. */
static int enter_with_id(const larder *handle, const larder_session_options *options,
                         const void *id, size_t id_size, struct place *place,
                         struct session_key *key)
{
    int result = enter(handle, options, place);
    if (result == LARDER_OK && id == NULL && id_size != 0) {
        result = error_set(LARDER_EINVAL, "an id of %zu bytes, but no pointer to them", id_size);
    }
    if (result != LARDER_OK) {
        return result;
    }
    if (!session_id_is_valid(id, id_size)) {
        return LARDER_MISS;
    }
    session_id_key(place->prefix, id, key);
    return LARDER_OK;
}

static int check_user(larder_bytes user)
{
    if (user.data == NULL && user.size != 0) {
        return error_set(LARDER_EINVAL, "a user of %zu bytes, but no pointer to them", user.size);
    }
    if (user.size > LARDER_SESSION_USER_MAX) {
        return error_set(LARDER_ETOOBIG, "user's name of %zu bytes: the limit is %u", user.size,
                         LARDER_SESSION_USER_MAX);
    }
    return LARDER_OK;
}

/* ---- Marks and times --------------------------------------------------------------------------
 */

enum { TAG_MAX = LARDER_SESSION_PREFIX_MAX + sizeof user_mark - 1 + LARDER_SESSION_USER_MAX };

static larder_bytes make_tag(const struct place *place, larder_bytes user, uint8_t room[TAG_MAX])
{
    uint8_t *at = room;
    memcpy(at, place->prefix.data, place->prefix.size);
    at += place->prefix.size;
    memcpy(at, user_mark, sizeof user_mark - 1);
    at += sizeof user_mark - 1;
    memcpy(at, user.data, user.size);
    return (larder_bytes){room, (size_t)(at - room) + user.size};
}

static int begin_life(const struct place *place, struct session_record *record)
{
    record->created_ms = clock_wall_ms();
    record->ttl_ms = place->ttl_ms;
    record->ends_ms = 0;
    if (place->max_lifetime_ms > 0 &&
        __builtin_add_overflow(record->created_ms, place->max_lifetime_ms, &record->ends_ms)) {
        return error_set(LARDER_EOVERFLOW, "a session's longest life of %" PRId64 " ms",
                         place->max_lifetime_ms);
    }
    return LARDER_OK;
}

/* When it ends unless it is used. */
static int64_t expires_ms(const struct session_record *record)
{
    int64_t at;
    if (__builtin_add_overflow(clock_wall_ms(), record->ttl_ms, &at)) {
        at = INT64_MAX;
    }
    return record->ends_ms != 0 && record->ends_ms < at ? record->ends_ms : at;
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

/* What is stored under the key, taken apart: OK, MISS, error. stored is the caller's to free. */
static int read_stored(larder *handle, const struct place *place, const struct session_key *key,
                       uint32_t flags, struct stored *stored, struct session_record *record,
                       larder_info *info)
{
    const larder_read read = {.flags = flags, .read_through_ms = place->read_through_ms};
    uint8_t *buffer = stored->room;
    size_t size = sizeof stored->room;
    int result = LARDER_ESIZE;
    for (int tries = 0; result == LARDER_ESIZE && tries < READ_TRIES; tries++) {
        result = larder_get_with(handle, key->text, key->size, buffer, size, info, &read);
        if (result == LARDER_ESIZE) {
            free(stored->memory);
            size = info->size;
            stored->memory = buffer = malloc(size);
            if (buffer == NULL) {
                return error_set(LARDER_ENOMEM, "no memory for a session of %zu bytes", size);
            }
        }
    }
    if (result != LARDER_OK) {
        return result == LARDER_ABSENT  ? LARDER_MISS
               : result == LARDER_ESIZE ? LARDER_EBUSY
                                        : result;
    }
    stored->bytes = buffer;
    stored->size = info->size;
    if (!session_record_decode(stored->bytes, stored->size, record)) {
        stats_count(map_stats(handle->map), STATS_READ_CORRUPT);
        return LARDER_MISS;
    }
    return LARDER_OK;
}

/* A session of the caller's own: its fields, and behind them the bytes that they point into. record
 * is that of the stored bytes, and is changed. */
static int give(const struct stored *stored, struct session_record *record, int64_t expires,
                larder_session *session)
{
    size_t head = record->field_count * sizeof record->fields[0];
    uint8_t *memory = malloc(head + stored->size);
    if (memory == NULL) {
        return error_set(LARDER_ENOMEM, "no memory for a session of %zu bytes", stored->size);
    }
    memcpy(memory + head, stored->bytes, stored->size);
    (void)session_record_decode(memory + head, stored->size, record); /* as it was before */
    memcpy(memory, record->fields, head);
    *session = (larder_session){.user = record->user,
                                .fields = (const larder_session_field *)(const void *)memory,
                                .field_count = record->field_count,
                                .created_ms = record->created_ms,
                                .expires_ms = expires,
                                .memory = memory};
    return LARDER_OK;
}

int larder_session_get(larder *handle, const larder_session_options *options, const void *id,
                       size_t id_size, larder_session *session)
{
    struct place place;
    struct session_key key;
    struct session_record record;
    larder_info info;
    if (session == NULL) {
        return error_set(LARDER_EINVAL, "larder_session_get() without a place for it");
    }
    *session = (larder_session){.memory = NULL};
    int result = enter_with_id(handle, options, id, id_size, &place, &key);
    if (result != LARDER_OK) {
        return result;
    }
    struct stored stored = {.memory = NULL};
    result = read_stored(handle, &place, &key, 0, &stored, &record, &info);
    if (result == LARDER_OK) {
        result = give(&stored, &record, info.expires_ms, session);
    }
    free(stored.memory);
    return result;
}

const larder_session_field *larder_session_find(const larder_session *session, larder_bytes name)
{
    size_t low = 0, high = session == NULL ? 0 : session->field_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = session_compare_names(session->fields[middle].name, name);
        if (order == 0) {
            return &session->fields[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

void larder_session_free(larder_session *session)
{
    if (session != NULL) {
        free(session->memory);
        *session = (larder_session){.memory = NULL};
    }
}

/* ---- Writing ----------------------------------------------------------------------------------
 */

static int encode(const struct place *place, const struct session_record *record,
                  struct stored *stored)
{
    size_t size = session_record_size(record);
    uint8_t *bytes = stored->room;
    if (size > place->max_size) {
        return error_set(LARDER_ETOOBIG, "session of %zu bytes: the limit is %" PRIu64, size,
                         place->max_size);
    }
    if (size > sizeof stored->room) {
        stored->memory = bytes = malloc(size);
        if (bytes == NULL) {
            return error_set(LARDER_ENOMEM, "no memory for a session of %zu bytes", size);
        }
    }
    session_record_encode(record, bytes);
    stored->bytes = bytes;
    stored->size = size;
    return LARDER_OK;
}

/* Store it, if nothing of that key is there (expected NULL), or if it is of that version. OK, MISS,
 * CONFLICT, error. stored is the caller's to free. */
static int store(larder *handle, const struct place *place, const struct session_key *key,
                 const struct session_record *record, const larder_version *expected,
                 struct stored *stored)
{
    uint8_t room[TAG_MAX];
    larder_bytes tag;
    larder_policy policy = {.expiry = larder_expire_sliding(record->ttl_ms)};
    if (record->user.size != 0) {
        tag = make_tag(place, record->user, room);
        policy.tags = &tag;
        policy.tag_count = 1;
    }
    if (record->ends_ms != 0) {
        policy.max_lifetime_ms = record->ends_ms - clock_wall_ms();
        if (policy.max_lifetime_ms <= 0) {
            return LARDER_MISS;
        }
    }
    int result = encode(place, record, stored);
    if (result != LARDER_OK) {
        return result;
    }
    if (expected != NULL) {
        return write_swap(handle, key->text, key->size, stored->bytes, stored->size, expected,
                          &policy);
    }
    result = larder_add(handle, key->text, key->size, stored->bytes, stored->size, &policy);
    return result == LARDER_EXISTS ? error_set(LARDER_ESYSTEM, "the kernel gave an id twice")
                                   : result;
}

/* Remove it, if it is of that version. OK, MISS, CONFLICT, error. */
static int remove_version(larder *handle, const struct session_key *key,
                          const larder_version *expected)
{
    const larder_policy past = {.expiry = larder_expire_at(1)};
    return write_swap(handle, key->text, key->size, NULL, 0, expected, &past);
}

/* Under an id of its own. */
static int store_new(larder *handle, const struct place *place, const struct session_record *record,
                     larder_session_id *id, struct session_key *key)
{
    struct stored stored = {.memory = NULL};
    int result = session_id_draw(id);
    if (result != LARDER_OK) {
        return result;
    }
    session_id_key(place->prefix, id->text, key);
    result = store(handle, place, key, record, NULL, &stored);
    free(stored.memory);
    return result;
}

int larder_session_create(larder *handle, const larder_session_options *options, larder_bytes user,
                          const larder_session_field *fields, size_t field_count,
                          larder_session_id *id)
{
    const larder_session_field *sorted[LARDER_SESSION_FIELDS_MAX];
    struct session_record record, empty = {.field_count = 0};
    struct session_key key;
    struct place place;
    if (id == NULL) {
        return error_set(LARDER_EINVAL, "larder_session_create() without a place for the id");
    }
    *id = (larder_session_id){.text = ""};
    int result = enter(handle, options, &place);
    if (result == LARDER_OK) {
        result = check_user(user);
    }
    if (result == LARDER_OK) {
        result = session_sort_fields(fields, field_count, sorted);
    }
    if (result == LARDER_OK) {
        result = session_merge(&empty, sorted, field_count, &record);
    }
    if (result == LARDER_OK) {
        result = begin_life(&place, &record);
    }
    if (result != LARDER_OK) {
        return result;
    }
    record.user = user;
    result = store_new(handle, &place, &record, id, &key);
    if (result != LARDER_OK) {
        *id = (larder_session_id){.text = ""};
    }
    return result;
}

/* One try: what is there, with the changes, if it is still what was read. */
static int try_update(larder *handle, const struct place *place, const struct session_key *key,
                      const larder_session_field *const changes[], size_t count,
                      larder_session *after)
{
    struct session_record old, record;
    struct stored stored = {.memory = NULL}, written = {.memory = NULL};
    larder_info info;
    int result = read_stored(handle, place, key, LARDER_PEEK, &stored, &old, &info);
    if (result == LARDER_OK) {
        record.created_ms = old.created_ms;
        record.ttl_ms = old.ttl_ms;
        record.ends_ms = old.ends_ms;
        record.user = old.user;
        result = session_merge(&old, changes, count, &record);
    }
    if (result == LARDER_OK) {
        result = store(handle, place, key, &record, &info.version, &written);
    }
    if (result == LARDER_OK && after != NULL) {
        result = give(&written, &record, expires_ms(&record), after);
    }
    free(stored.memory);
    free(written.memory);
    return result;
}

int larder_session_update(larder *handle, const larder_session_options *options, const void *id,
                          size_t id_size, const larder_session_field *fields, size_t field_count,
                          larder_session *after)
{
    const larder_session_field *changes[LARDER_SESSION_FIELDS_MAX];
    struct place place;
    struct session_key key;
    if (after != NULL) {
        *after = (larder_session){.memory = NULL};
    }
    int result = session_sort_fields(fields, field_count, changes);
    if (result == LARDER_OK) {
        result = enter_with_id(handle, options, id, id_size, &place, &key);
    }
    if (result != LARDER_OK) {
        return result;
    }
    for (int tries = 0; tries < SWAP_TRIES; tries++) {
        result = try_update(handle, &place, &key, changes, field_count, after);
        if (result != LARDER_CONFLICT) {
            return result;
        }
    }
    return error_set(LARDER_EBUSY, "a session was changed by others %d times in a row", SWAP_TRIES);
}

/* One try. The new one comes first, under an id that nobody knows yet: whatever ends the old one in
 * between (its deletion, that of all of its user) is found when the old one is taken away, and then
 * the new one goes again. */
static int try_renew(larder *handle, const struct place *place, const struct session_key *key,
                     const larder_bytes *user, larder_session_id *new_id)
{
    struct session_record record;
    struct session_key new_key;
    struct stored stored = {.memory = NULL};
    larder_info info;
    int result = read_stored(handle, place, key, LARDER_PEEK, &stored, &record, &info);
    if (result == LARDER_OK && user != NULL) {
        record.user = *user;
        result = begin_life(place, &record);
    }
    if (result == LARDER_OK) {
        result = store_new(handle, place, &record, new_id, &new_key);
        if (result == LARDER_OK) {
            result = remove_version(handle, key, &info.version);
            if (result != LARDER_OK) {
                (void)larder_delete(handle, new_key.text, new_key.size);
            }
        }
    }
    free(stored.memory);
    return result;
}

int larder_session_renew(larder *handle, const larder_session_options *options, const void *id,
                         size_t id_size, const larder_bytes *user, larder_session_id *new_id)
{
    struct place place;
    struct session_key key;
    if (new_id == NULL) {
        return error_set(LARDER_EINVAL, "larder_session_renew() without a place for the id");
    }
    larder_session_id drawn = {.text = ""};
    int result = user == NULL ? LARDER_OK : check_user(*user);
    if (result == LARDER_OK) {
        result = enter_with_id(handle, options, id, id_size, &place, &key);
    }
    for (int tries = 0; result == LARDER_OK && tries < SWAP_TRIES; tries++) {
        result = try_renew(handle, &place, &key, user, &drawn);
        if (result == LARDER_OK) {
            *new_id = drawn; /* which may be where the old one stood */
            return LARDER_OK;
        }
        if (result == LARDER_CONFLICT) {
            result = LARDER_OK;
        }
    }
    *new_id = (larder_session_id){.text = ""};
    return result != LARDER_OK
               ? result
               : error_set(LARDER_EBUSY, "a session was changed by others %d times in a row",
                           SWAP_TRIES);
}

/* ---- Deleting ---------------------------------------------------------------------------------
 */

int larder_session_delete(larder *handle, const larder_session_options *options, const void *id,
                          size_t id_size)
{
    struct place place;
    struct session_key key;
    int result = enter_with_id(handle, options, id, id_size, &place, &key);
    return result == LARDER_OK ? larder_delete(handle, key.text, key.size) : result;
}

int larder_session_delete_user(larder *handle, const larder_session_options *options,
                               larder_bytes user, uint64_t *count)
{
    uint8_t room[TAG_MAX];
    struct place place;
    int result = enter(handle, options, &place);
    if (result == LARDER_OK && user.size == 0) {
        result = error_set(LARDER_EINVAL, "all sessions of a user without a name");
    }
    if (result == LARDER_OK) {
        result = check_user(user);
    }
    return result == LARDER_OK ? larder_invalidate_tag(handle, make_tag(&place, user, room), count)
                               : result;
}
