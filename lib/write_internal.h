/* write_internal.h: what write.c, write_incr.c and write_many.c share: a set as it was asked for,
 * and the steps that all writes take.
 */
#ifndef LARDER_LIB_WRITE_INTERNAL_H
#define LARDER_LIB_WRITE_INTERNAL_H

#include "handle.h"
#include "key.h"
#include "policy.h"
#include "writer.h"

enum set_condition {
    SET_ALWAYS,
    SET_IF_MISSING,
    SET_IF_THERE,
    SET_IF_VERSION,
    SET_IF_SAME, /* the same, and a refusal changes nothing */
    SET_IF_NEWER
};

struct set_request {
    struct key key;
    const void *value;
    size_t value_size;
    enum set_condition condition;
    larder_version expected; /* SET_IF_NEWER: its own */
    int64_t created_ms;      /* 0: the version's time */
    struct policy_plan plan;
    struct store_place place; /* where the key's record stood a moment ago */
};

/* What the caller asks for, checked; the condition is SET_ALWAYS. */
int write_make_request(const struct larder *handle, const void *key, size_t key_size,
                       const void *value, size_t value_size, const larder_policy *policy,
                       struct set_request *request);
int write_too_big(const struct larder *handle, size_t size); /* counted; ETOOBIG */

/* Whether a write failed for a reason that does not make its caller a stranger to the map. */
bool write_was_refused(int result);
void write_count_refusal(const struct larder *handle, int result);

/* Inside a write: an outcome or an error. */
int write_set_one(struct writer *writer, const struct set_request *request);
int write_delete_one(struct writer *writer, const struct key *key);

/* writer_run(), and others' requests are taken along. */
int write_run(const struct larder *handle, size_t need, writer_operation *operation, void *context);

#endif
