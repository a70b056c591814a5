/* larder_session.h: sessions of users in a map of liblarder: a bag of named fields under an id that
 * nobody can guess, which lives as long as it is used.
 *
 * Conventions are those of larder.h: any thread, also after fork(); sizes in bytes, times in
 * milliseconds; outcomes >= 0, errors < 0, larder_last_error() in words. No text of the library's,
 * key, event or log line ever holds an id: what is stored under is its SHA-256.
 *
 * Copyright (c) the larder authors. SPDX-License-Identifier: MIT
 */
#ifndef LARDER_SESSION_H
#define LARDER_SESSION_H

#include "larder.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- What a session is ------------------------------------------------------------------------
 */

#define LARDER_SESSION_ID_SIZE 43u         /* characters: 256 bits in base64url without padding */
#define LARDER_SESSION_TTL_MS 1800000      /* 30 minutes: how long an unused session lives */
#define LARDER_SESSION_FIELDS_MAX 256u     /* fields of a session */
#define LARDER_SESSION_FIELD_NAME_MAX 255u /* bytes of a field's name; the least is 1 */
#define LARDER_SESSION_USER_MAX 1024u      /* bytes of a user's name */
#define LARDER_SESSION_PREFIX_MAX 64u      /* bytes of larder_session_options.prefix */
#define LARDER_SESSION_SIZE_MAX 65536u     /* default of larder_session_options.max_size */

/* An id with its final 0. A secret: who has it is the user. */
typedef struct larder_session_id {
    char text[LARDER_SESSION_ID_SIZE + 1];
} larder_session_id;

/* The same in all calls that mean the same sessions. NULL = zero-initialised = the defaults. */
typedef struct larder_session_options { /* unknown members must be 0, else LARDER_EINVAL */
    int64_t ttl_ms;          /* create: how long it lives without being used; 0 = 30 minutes */
    int64_t max_lifetime_ms; /* create: how long it lives at most, used or not; 0: no limit */
    int64_t read_through_ms; /* a session that is not on this host: have larderd ask Redis, and wait
                                for that at most so long, see larder_ask(); 0 = do not */
    larder_bytes prefix;     /* of the keys and tags; size 0 = "session:" */
    uint64_t max_size;       /* bytes that a session takes: 32, its user, and 8 beside the name and
                                value of each field; 0 = LARDER_SESSION_SIZE_MAX */
    uint64_t reserved[4];
} larder_session_options;

/* larder_session_field.flags */
enum {
    LARDER_SESSION_REMOVE = 1u << 0 /* update: the field goes; its value is not looked at */
};

typedef struct larder_session_field {
    larder_bytes name;  /* any bytes, 1 to LARDER_SESSION_FIELD_NAME_MAX of them */
    larder_bytes value; /* any bytes */
    uint32_t flags, reserved0;
} larder_session_field;

typedef struct larder_session {
    larder_bytes user;                  /* size 0: of nobody in particular */
    const larder_session_field *fields; /* in byte order of their names, no two the same */
    size_t field_count;
    int64_t created_ms, expires_ms;
    void *memory; /* all of the above; for larder_session_free() */
    uint64_t reserved[4];
} larder_session;

/* ---- Life -------------------------------------------------------------------------------------
 * An id that cannot be one of larder_session_create() (another length, another alphabet) is a
 * LARDER_MISS without any look-up. A session is an entry of the map: a full map evicts those that
 * are not used, so sessions want a map of their own that is large enough for them. */

/* A new session of a user (size 0: of nobody yet, see larder_session_renew()) with these fields; id
 * receives 256 bits of the kernel's. Waits like a write.
 * Errors: EINVAL, ETOOBIG, EBUSY, EFULL, EREADONLY, ESYSTEM (the kernel has no randomness yet);
 * then there is none. */
int larder_session_create(larder *handle, const larder_session_options *options, larder_bytes user,
                          const larder_session_field *fields, size_t field_count,
                          larder_session_id *id);

/* OK: *session is filled, for larder_session_free(); MISS: there is none, or not any more. Being
 * read extends its life, by at most one write in a quarter of its TTL, which is never waited for.
 * Errors: EINVAL, ENOMEM, and those of larder_get(); *session is empty then, and at a miss. */
int larder_session_get(larder *handle, const larder_session_options *options, const void *id,
                       size_t id_size, larder_session *session);

/* Merge: each field that is named replaces the one of its name, is added, or is removed; all others
 * stay, also those that somebody else is changing at the same time: changes of one session follow
 * one another, and each sees the one before. Extends its life, like a read. No field at all does
 * just that. after may be NULL; else it is the session with all changes, for larder_session_free().
 * An update that races a deletion (of the session, or of all of its user) never brings it back.
 * OK; MISS: there is none. Errors, which leave it as it was: EINVAL (also one name twice), ETOOBIG
 * (the whole would be too large, or have too many fields), EBUSY (the gate, or 64 others in a row
 * were quicker), EFULL, EREADONLY, ENOMEM. */
int larder_session_update(larder *handle, const larder_session_options *options, const void *id,
                          size_t id_size, const larder_session_field *fields, size_t field_count,
                          larder_session *after);

/* The same session under another id, and the old id is worth nothing from then on: to be called
 * whenever somebody logs in, lest they go on under an id that was foisted on them (session
 * fixation). user NULL: all else stays. Else the session is that user's from now on, and its life
 * begins anew under these options. What races is as in larder_session_update().
 * OK, MISS. Errors, which leave the old one as it was: as of create. */
int larder_session_renew(larder *handle, const larder_session_options *options, const void *id,
                         size_t id_size, const larder_bytes *user, larder_session_id *new_id);

/* OK: it was there; MISS: it was not. Never refused for a busy gate, see larder_delete(). */
int larder_session_delete(larder *handle, const larder_session_options *options, const void *id,
                          size_t id_size);

/* All sessions of a user that were created or changed before: by a tag, so in O(1), and never
 * refused. count as in larder_invalidate_tag(). Errors: EINVAL (no user), ETOOBIG, EREADONLY. */
int larder_session_delete_user(larder *handle, const larder_session_options *options,
                               larder_bytes user, uint64_t *count);

/* The field of that name, or NULL. Good as long as the session is. */
const larder_session_field *larder_session_find(const larder_session *session, larder_bytes name);

/* Release what get or update filled, and empty it; NULL and an empty one are allowed. */
void larder_session_free(larder_session *session);

/* ---- Cookies: RFC 6265, and SameSite and name prefixes of its revision (RFC 6265bis) ----------
 */

#define LARDER_COOKIE_NAME_MAX 128u /* bytes of a cookie's name */
#define LARDER_COOKIE_PATH_MAX 1024u
#define LARDER_COOKIE_DOMAIN_MAX 253u
#define LARDER_COOKIE_SIZE 2048u /* a buffer that holds any cookie of these */

/* larder_cookie.flags: what differs from HttpOnly; Secure; SameSite=Lax */
enum {
    LARDER_COOKIE_PLAIN = 1u << 0,  /* without Secure: over http:// on a developer's machine */
    LARDER_COOKIE_SCRIPT = 1u << 1, /* without HttpOnly */
    LARDER_COOKIE_STRICT = 1u << 2, /* SameSite=Strict */
    LARDER_COOKIE_CROSS = 1u << 3,  /* SameSite=None, which browsers take with Secure only */
    LARDER_COOKIE_BRIEF = 1u << 4   /* without Max-Age: until the browser is closed */
};

typedef struct larder_cookie { /* zero-initialise; unknown members must be 0 */
    larder_bytes name;         /* a token (RFC 6265 4.1.1, RFC 9110 5.6.2); size 0 = "session_id" */
    larder_bytes path;         /* begins with "/"; size 0 = "/" */
    larder_bytes domain;       /* size 0: the host that set it, and no other */
    int64_t max_age_ms;        /* whole seconds, rounded up; 0 = 30 minutes */
    uint32_t flags, reserved0;
    uint64_t reserved[4];
} larder_cookie;

/* The value of a Set-Cookie header, with its final 0: "NAME=ID; Max-Age=1800; Path=/; Secure;
 * HttpOnly; SameSite=Lax". id NULL (id_size 0): a cookie that takes the browser's away
 * (Max-Age=0). cookie may be NULL. *size (may be NULL) receives the bytes without the final 0.
 * Pure. OK. Errors: EINVAL (the name, path, domain or id has a byte that it cannot have; a name
 * that begins with __Secure- or __Host- and what that forbids; SameSite=None without Secure;
 * two SameSites), ETOOBIG, ESIZE (of the buffer, *size is set). */
int larder_cookie_write(const larder_cookie *cookie, const void *id, size_t id_size, char *buffer,
                        size_t buffer_size, size_t *size);

/* The id in the value of a Cookie header of a request (RFC 6265 4.2): the first cookie of that name
 * (size 0 = "session_id") whose value can be an id, with or without double quotes. header is
 * hostile: any bytes. Pure. OK; MISS: none. Errors: EINVAL. */
int larder_cookie_read(larder_bytes header, larder_bytes name, larder_session_id *id);

#ifdef __cplusplus
}
#endif
#endif
