/* larder_http.h: the rules of HTTP caching, for whoever answers HTTP requests out of a larder.
 *
 * Pure functions over requests and responses that the caller has parsed: no socket, no map, no
 * clock (the caller says what time it is), no memory but the caller's. What stands in the map is
 * read as hostile: every length is checked. Two policies: under LARDER_HTTP_ROUTE the application
 * says how long its own pages are kept; under LARDER_HTTP_GATEWAY the origin's headers rule, as RFC
 * 9111 has it for a shared cache. doc/http.md tells the rules in full.
 *
 * The order of calls for one request:
 *   larder_http_classify()      is this request anything to the cache?
 *   larder_http_key()           where its page stands; look there
 *   larder_http_decode(), larder_http_select()
 *                               the page, or the key of this request's variant of it; look there
 *   larder_http_serve()         serve, serve and renew, revalidate, or ask the origin
 *   larder_http_forward()       the headers to ask the origin with
 *   larder_http_store() or, after a 304, larder_http_update()
 *                               what to write into the map
 *   larder_http_answer()        status and headers to answer with
 *   larder_http_invalidates()   after an unsafe method: the keys to delete
 *
 * Every function may be called from any thread at any time. Functions return an outcome >= 0 or one
 * of larder.h's errors; larder_last_error() says it in words. Times are milliseconds since the
 * epoch. Zero-initialise every struct; members called reserved must be 0.
 *
 * Copyright (c) the larder authors. SPDX-License-Identifier: MIT
 */
#ifndef LARDER_HTTP_H
#define LARDER_HTTP_H

#include <stddef.h>
#include <stdint.h>

#include "larder.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Memory -----------------------------------------------------------------------------------
 */

/* Memory of the caller's for what a function returns: zero-initialise, set data and size. Each call
 * takes what it needs behind `used`; what it returned lives as long as the memory does. Set used to
 * 0 to use it again. Too little of it: LARDER_ESIZE, `used` as it was, and `wanted` holds the size
 * that is enough for the call. 16 KiB are plenty for all but larder_http_store() and
 * larder_http_update(), which write the body, too (its size and 16 KiB). */
typedef struct larder_http_arena {
    void *data;
    size_t size, used, wanted;
} larder_http_arena;

/* ---- Requests and responses -------------------------------------------------------------------
 */

#define LARDER_HTTP_HEADERS_MAX 256u /* header fields of a request or response */
#define LARDER_HTTP_HEAD_MAX 65536u  /* bytes of their names and values */
#define LARDER_HTTP_BODY_MAX                                                                       \
    (10u << 20)                  /* bytes of a body that is stored, unless told otherwise          \
                                  */
#define LARDER_HTTP_VARY_MAX 16u /* names of Vary; with more a response is not stored */

/* Name and value without the colon and without white space around. A field that came several times
 * is several of these, in their order. Names are compared without regard to case. */
typedef struct larder_http_header {
    larder_bytes name, value;
} larder_http_header;

typedef struct larder_http_request {
    larder_bytes method;    /* "GET": compared with regard to case (RFC 9110, 9.1) */
    larder_bytes path;      /* as it came, percent-encoded, without the query: "/a%20b" */
    larder_bytes query;     /* behind the '?', without it; none and an empty one are the same */
    larder_bytes scheme;    /* "http" where empty; only larder_http_key()'s form by URI needs it */
    larder_bytes authority; /* "example.org:8080"; the Host header's where empty */
    const larder_http_header *headers;
    size_t header_count;
    uint64_t reserved[4];
} larder_http_request;

/* larder_http_response.flags */
enum {
    LARDER_HTTP_OPEN_ENDED = 1u << 0 /* the body is not whole, or nobody knows where it ends */
};

typedef struct larder_http_response {
    uint32_t status, flags;
    const larder_http_header *headers;
    size_t header_count;
    larder_bytes body;
    uint64_t reserved[4];
} larder_http_response;

/* ---- Policy -----------------------------------------------------------------------------------
 */

/* larder_http_policy.kind */
enum {
    LARDER_HTTP_ROUTE = 0,  /* the application declares it */
    LARDER_HTTP_GATEWAY = 1 /* the origin's headers rule: RFC 9111, RFC 5861 */
};

/* larder_http_policy.flags */
enum {
    /* route: the page is one user's. "Cache-Control: private" goes out with it and also lets pages
     * that say private of themselves be stored here, each user's own (see LARDER_HTTP_SHARED) */
    LARDER_HTTP_PRIVATE = 1u << 0,
    /* Authorization and Cookie do not change the page: one copy for all. Without it, what was made
     * for a request with credentials is never another's answer. */
    LARDER_HTTP_SHARED = 1u << 1,
    /* gateway: no freshness is guessed where the origin gives none (RFC 9111, 4.2.2) */
    LARDER_HTTP_NO_HEURISTIC = 1u << 2
};

typedef struct larder_http_policy {
    uint32_t kind, flags;
    int64_t ttl_ms;                    /* route: how long a page is fresh; 0 = no expiry */
    int64_t expires_ms;                /* route: until when, instead of ttl_ms; 0 = ttl_ms rules */
    int64_t stale_while_revalidate_ms; /* RFC 5861, 3; gateway: where the response has none */
    int64_t stale_if_error_ms;         /* RFC 5861, 4; gateway: where the response has none */
    int64_t heuristic_max_ms;          /* gateway: longest guess; 0 = 24 h */
    uint64_t max_body;                 /* bytes; 0 = LARDER_HTTP_BODY_MAX */
    larder_bytes status_header;        /* "X-Redis-Cache": HIT, MISS, ...; empty = none is sent */
    uint64_t reserved[8];
} larder_http_policy;

/* ---- Keys -------------------------------------------------------------------------------------
 */

/* larder_http_key_options.form */
enum {
    /* PREFIX:{GROUP}:PATH:PARAMS as in "redis:fastapi:cache:{products}:items:a=1:z=2". The path's
     * outer slashes are stripped, inner ones are colons; parameters are sorted by name, those of
     * one name stay in their order. Path and parameters are decoded; ':', '&', '=', '%', '#', '{',
     * '}' and a decoded '/' inside them are percent-encoded, so that no two requests share a key
     * that differ after decoding in more than outer slashes. Empty parts are left out with their
     * colon. The method is no part of it: GET, PUT and DELETE of a path have one key. */
    LARDER_HTTP_KEY_ROUTE = 0,
    /* PREFIX:{GROUP}:METHOD:USER:PATH:PARAMS, the user's place empty where there is none; HEAD has
     * GET's key. */
    LARDER_HTTP_KEY_METHOD = 1,
    /* PREFIX:SCHEME://AUTHORITY/PATH?QUERY: RFC 9111, 2, normalized as in RFC 3986, 6.2.2 and 6.2.3
     * (case, needless escapes, default port, empty path); the query's order is kept. */
    LARDER_HTTP_KEY_URI = 2
};

typedef struct larder_http_key_options {
    uint32_t form, reserved0;
    larder_bytes prefix; /* empty: none, and no colon */
    larder_bytes group;  /* '{', '}', '%' in it are percent-encoded; empty: none */
    larder_bytes user;   /* LARDER_HTTP_KEY_METHOD */
    uint64_t reserved[4];
} larder_http_key_options;

/* Errors: ETOOBIG (over LARDER_KEY_MAX bytes, or more than 1,024 parameters), EINVAL (by URI:
 * neither authority nor one Host header), ESIZE. */
int larder_http_key(const larder_http_request *request, const larder_http_key_options *options,
                    larder_http_arena *arena, larder_bytes *key);

/* ---- What a request is to the cache ------------------------------------------------------------
 */

/* larder_http_classify() */
enum {
    LARDER_HTTP_LOOKUP = 0, /* look it up, and store the answer if larder_http_store() says so */
    LARDER_HTTP_BYPASS = 1, /* neither: ask the origin with the request as it is */
    LARDER_HTTP_UNSAFE = 2  /* ask the origin; then larder_http_invalidates() (RFC 9111, 4.4) */
};

/* LOOKUP: GET and HEAD. BYPASS: no-store in the request (RFC 9111, 5.2.1.5), Range (RFC
 * 9110, 14.2), If-Match, If-Unmodified-Since and If-Range (RFC 9110, 13.1: the origin's to judge),
 * OPTIONS and TRACE, a header section over the limits; and at a gateway a Connection that takes
 * fields from the request (RFC 9110, 7.6.1) which the key or Vary may name. UNSAFE: all other
 * methods (RFC 9110, 9.2.1). LARDER_EINVAL: the policy is not valid. */
int larder_http_classify(const larder_http_policy *policy, const larder_http_request *request);

/* ---- Entity tags and dates ---------------------------------------------------------------------
 */

#define LARDER_HTTP_ETAG_SIZE 37u /* W/"32 digits" and a 0 byte */
#define LARDER_HTTP_DATE_SIZE 30u /* "Sun, 06 Nov 1994 08:49:37 GMT" and a 0 byte */

/* A weak entity tag of a body (RFC 9110, 8.8.3): the same in all processes, on all hosts, for ever.
 * The first form writes LARDER_HTTP_ETAG_SIZE bytes. Not a cryptographic hash. */
void larder_http_etag(larder_bytes body, char *text);

/* Dates of RFC 9110, 5.6.7: all three forms are read; now_ms settles the century of the one with
 * two digits. LARDER_EINVAL: not a date. Written is the first form, of years 1970 to 9999 (others
 * are moved to the nearest of these); LARDER_HTTP_DATE_SIZE bytes. */
int larder_http_date_read(larder_bytes text, int64_t now_ms, int64_t *ms);
void larder_http_date_write(int64_t ms, char *text);

/* ---- The stored form ---------------------------------------------------------------------------
 */

/* larder_http_stored.kind */
enum {
    LARDER_HTTP_RESPONSE = 1,
    LARDER_HTTP_VARIANTS = 2 /* no response: it names what the variants of this key vary by */
};

/* larder_http_stored.flags */
enum {
    LARDER_HTTP_STORED_REVALIDATE = 1u << 0,    /* never without asking: no-cache */
    LARDER_HTTP_STORED_NO_STALE = 1u << 1,      /* never stale: must-revalidate and its kin */
    LARDER_HTTP_STORED_PRIVATE = 1u << 2,       /* for one user */
    LARDER_HTTP_STORED_PUBLIC = 1u << 3,        /* for all: public, s-maxage */
    LARDER_HTTP_STORED_HEURISTIC = 1u << 4,     /* its lifetime is a guess */
    LARDER_HTTP_STORED_VARIANT = 1u << 5,       /* stands under a variant's key */
    LARDER_HTTP_STORED_AUTHORIZATION = 1u << 6, /* made for a request that carried one */
    LARDER_HTTP_STORED_COOKIE = 1u << 7         /* made for a request that carried one */
};

/* What stands in the map, decoded: pointers into those bytes and into the arena. */
typedef struct larder_http_stored {
    uint32_t kind, flags;
    larder_http_response
        response;        /* header fields in their order, body to the byte; with an ETag */
    int64_t made_ms;     /* when the origin made it: age is counted from here */
    int64_t lifetime_ms; /* fresh while now < made + lifetime; INT64_MAX: for ever */
    int64_t stale_while_revalidate_ms, stale_if_error_ms; /* behind its lifetime */
    uint64_t seed;                                        /* part of the variants' keys */
    larder_bytes vary;  /* names in lower case, sorted, parted by "," */
    uint8_t digest[32]; /* of the request's values of these */
    uint64_t reserved[4];
} larder_http_stored;

/* Decode, checking every length. LARDER_ECORRUPT: not of this form (a miss). The arena needs 32
 * bytes a header field. */
int larder_http_decode(larder_bytes bytes, larder_http_arena *arena, larder_http_stored *stored);

/* Encode into the arena, as larder_http_store() does. For who keeps responses without its rules. */
int larder_http_encode(const larder_http_stored *stored, larder_http_arena *arena,
                       larder_bytes *bytes);

/* ---- Variants (RFC 9111, 4.1) ------------------------------------------------------------------
 */

/* larder_http_select() */
enum {
    LARDER_HTTP_CHOSEN = 0,  /* this is the response for this request */
    LARDER_HTTP_VARIANT = 1, /* look under *variant instead; where it is missing, that is a miss */
    LARDER_HTTP_OTHER = 2    /* a variant, and another request's: a miss (keys that collide) */
};

/* What was found under `key`: is it this request's? Where the page varies (by its Vary header, or
 * by Authorization and Cookie unless the policy says LARDER_HTTP_SHARED), variants stand under keys
 * that are made of the key, a number drawn when it was stored and a SHA-256 of the request's values
 * of these headers: deleting the key makes all its variants unreachable. */
int larder_http_select(const larder_http_policy *policy, const larder_http_request *request,
                       larder_bytes key, const larder_http_stored *stored, larder_http_arena *arena,
                       larder_bytes *variant);

/* ---- Reasons -----------------------------------------------------------------------------------
 */

/* larder_http_decision.reason, larder_http_plan.reason; numbers are frozen */
enum {
    LARDER_HTTP_WHY_NONE = 0,
    /* of serving, or not */
    LARDER_HTTP_WHY_ABSENT = 1,      /* nothing is stored for this request */
    LARDER_HTTP_WHY_FRESH = 2,       /* RFC 9111, 4.2 */
    LARDER_HTTP_WHY_STALE = 3,       /* past its lifetime */
    LARDER_HTTP_WHY_MAX_STALE = 4,   /* stale, and the client takes that (RFC 9111, 5.2.1.2) */
    LARDER_HTTP_WHY_NO_CACHE = 5,    /* the client asks for a new one (5.2.1.4, 5.2.1.1) */
    LARDER_HTTP_WHY_MIN_FRESH = 6,   /* not fresh for as long as the client wants (5.2.1.3) */
    LARDER_HTTP_WHY_REVALIDATE = 7,  /* the response says no-cache (5.2.2.4) */
    LARDER_HTTP_WHY_CREDENTIALS = 8, /* it may be another user's (3.5) */
    /* of not storing */
    LARDER_HTTP_WHY_METHOD = 16,   /* not GET */
    LARDER_HTTP_WHY_STATUS = 17,   /* not 2xx; 206, 304; a status that is not kept unasked */
    LARDER_HTTP_WHY_NO_STORE = 18, /* the request or the response says so (5.2.1.5, 5.2.2.5) */
    LARDER_HTTP_WHY_PRIVATE = 19,  /* the response says so (5.2.2.7) */
    LARDER_HTTP_WHY_SET_COOKIE = 20,
    LARDER_HTTP_WHY_VARY = 21,        /* Vary: *, or more names than LARDER_HTTP_VARY_MAX (4.1) */
    LARDER_HTTP_WHY_PARTIAL = 22,     /* Range, Content-Range: a part of a page */
    LARDER_HTTP_WHY_OPEN_ENDED = 23,  /* not whole, or not of the length that it says */
    LARDER_HTTP_WHY_TOO_LARGE = 24,   /* over max_body, or over the limits of a head */
    LARDER_HTTP_WHY_NO_FRESHNESS = 25 /* never fresh, and nothing to revalidate it with */
};

/* A short English text; never NULL, static. */
const char *larder_http_reason(uint32_t reason);

/* ---- May it be served? (RFC 9111, 4; RFC 5861)
 * --------------------------------------------------- */

/* larder_http_decision.action */
enum {
    LARDER_HTTP_FORWARD = 0,     /* ask the origin */
    LARDER_HTTP_SERVE = 1,       /* answer with it */
    LARDER_HTTP_SERVE_STALE = 2, /* answer with it and renew it behind the client's back: who gets
                                    LARDER_REFRESH of larder_lease_acquire() does */
    LARDER_HTTP_REVALIDATE = 3,  /* ask the origin whether it has changed */
    LARDER_HTTP_UNAVAILABLE = 4  /* answer 504: the client wants nothing but what is cached */
};

/* larder_http_decision.flags */
enum {
    /* should the origin not answer, or with 500, 502, 503 or 504: answer with what is stored */
    LARDER_HTTP_IF_ERROR = 1u << 0
};

typedef struct larder_http_decision {
    uint32_t action, reason, flags;
    uint32_t
        status;     /* SERVE, SERVE_STALE: the stored one, or 304 where the client has it already */
    int64_t age_ms; /* since the origin made it */
    int64_t
        fresh_ms; /* how long it is still fresh; negative: since when not; INT64_MAX: for ever */
    uint64_t reserved[4];
} larder_http_decision;

/* stored: what larder_http_select() chose, or NULL: nothing. Route: no-cache and max-age of the
 * request are heard (a page of an age of max-age or more is a miss), stale pages as the policy
 * says. Gateway: all of RFC 9111, 4.2 and 5.2.1, and RFC 5861. LARDER_OK, or EINVAL (policy). */
int larder_http_serve(const larder_http_policy *policy, const larder_http_request *request,
                      const larder_http_stored *stored, int64_t now_ms,
                      larder_http_decision *decision);

/* The header fields for asking the origin: without those that end here (RFC 9110, 7.6.1), and for
 * what is to be stored without the client's conditions. stored: with REVALIDATE, what is to be
 * revalidated: If-None-Match and If-Modified-Since of it (RFC 9111, 4.3.1); else NULL. */
int larder_http_forward(const larder_http_policy *policy, const larder_http_request *request,
                        const larder_http_stored *stored, larder_http_arena *arena,
                        const larder_http_header **headers, size_t *header_count);

/* ---- May it be stored? (RFC 9111, 3)
 * --------------------------------------------------------------- */

/* Where the page belongs and when it was asked for. */
typedef struct larder_http_place {
    larder_bytes key; /* of larder_http_key(), not a variant's */
    const larder_http_stored
        *found; /* what was found under it, whatever select() said; NULL: none */
    int64_t request_ms, response_ms; /* when the origin was asked, and when it answered */
    uint64_t seed; /* any number that hardly comes twice: larder_lease.version.clock;
                      0 = made of time, key and body */
    uint64_t reserved[4];
} larder_http_place;

typedef struct larder_http_write {
    larder_bytes key, value;
    larder_policy policy; /* expiry and staleness; add group and tags, the same for all writes */
} larder_http_write;

typedef struct larder_http_plan {
    uint32_t reason;
    uint32_t write_count; /* in this order; the one whose key you hold the lease of by
                             larder_lease_fill(), and after a LARDER_CONFLICT no more of them */
    larder_http_write writes[2];
    larder_http_stored stored; /* the response as it is stored, to answer with */
    uint64_t reserved[4];
} larder_http_plan;

/* LARDER_OK: do the plan's writes. LARDER_SKIP: not for the cache, for the plan's reason. Route:
 * GET and 2xx but 206, fresh for as long as the policy says. Gateway: RFC 9111, 3 and 4.2. Neither:
 * what has Set-Cookie, is one user's, is not whole or too large. Left out of what is stored: fields
 * that end here, Content-Length, Date, Age. A route's page gets an ETag if it has none. The arena
 * holds the body. Errors: EINVAL, ETOOBIG (the variant's key), ESIZE. */
int larder_http_store(const larder_http_policy *policy, const larder_http_request *request,
                      const larder_http_response *response, const larder_http_place *place,
                      larder_http_arena *arena, larder_http_plan *plan);

/* The same after a 304 for what is stored (RFC 9111, 3.2 and 4.3.4): its fields replace the stored
 * ones of the same name. LARDER_CONFLICT: it is not this response that it speaks of: ask again
 * without conditions. A strong entity tag names the response that has the same one, a weak one
 * those that it matches weakly, a Last-Modified without an entity tag those that have the same; a
 * 304 without any of them updates only what has no entity tag. LARDER_SKIP: it is not to be stored
 * (Set-Cookie, no-store); plan->stored.response is what to answer this client with, by
 * larder_http_answer() as a response that is not stored. */
int larder_http_update(const larder_http_policy *policy, const larder_http_request *request,
                       const larder_http_stored *stored, const larder_http_response *response,
                       const larder_http_place *place, larder_http_arena *arena,
                       larder_http_plan *plan);

/* ---- Answering ---------------------------------------------------------------------------------
 */

/* larder_http_answer(): what the status header says */
enum {
    LARDER_HTTP_HIT = 0,
    LARDER_HTTP_MISS = 1,
    LARDER_HTTP_BYPASSED = 2,  /* "BYPASS" */
    LARDER_HTTP_STALE_HIT = 3, /* "STALE" */
    LARDER_HTTP_REVALIDATED = 4
};

/* Status and header fields for the client; all but Content-Length and what the server adds itself.
 * stored: of larder_http_decode() or the plan; the response then is &stored->response. NULL: it is
 * not stored. Route: Cache-Control is "max-age=REMAINING" or, without an expiry, "no-cache", after
 * "private, " where the policy says so; the same ETag in all processes. Gateway: Date and Age (RFC
 * 9111, 5.1). 304 where the client has it already (RFC 9110, 15.4.5): with ETag, Cache-Control,
 * Vary, Content-Location, Expires, Date, and the status header alone (and Set-Cookie, which comes
 * only with what is not stored). answer->body: with HEAD it is
 * for its size alone. */
int larder_http_answer(const larder_http_policy *policy, const larder_http_request *request,
                       const larder_http_response *response, const larder_http_stored *stored,
                       uint32_t cache_status, int64_t now_ms, larder_http_arena *arena,
                       larder_http_response *answer);

/* ---- Invalidating (RFC 9111, 4.4)
 * ---------------------------------------------------------------- */

#define LARDER_HTTP_KEYS_MAX 3u

/* After an unsafe method that did not fail (2xx or 3xx): the keys to delete, at most
 * LARDER_HTTP_KEYS_MAX: the request's own and those of Location and Content-Location where they are
 * of the same origin (an absolute URI or an absolute path). A GET's keys: with
 * LARDER_HTTP_KEY_METHOD the user's own. */
int larder_http_invalidates(const larder_http_request *request,
                            const larder_http_response *response,
                            const larder_http_key_options *options, larder_http_arena *arena,
                            larder_bytes *keys, size_t *key_count);

#ifdef __cplusplus
}
#endif
#endif
