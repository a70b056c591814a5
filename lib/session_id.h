/* session_id.h: session ids: drawn from the kernel, checked, and turned into the keys that sessions
 * are stored under. An id is a secret; a key is not, and does not tell the id.
 */
#ifndef LARDER_LIB_SESSION_ID_H
#define LARDER_LIB_SESSION_ID_H

#include <stdbool.h>
#include <stddef.h>

#include "larder_session.h"

enum { SESSION_KEY_MAX = LARDER_SESSION_PREFIX_MAX + LARDER_SESSION_ID_SIZE };

struct session_key {
    size_t size;
    char text[SESSION_KEY_MAX];
};

/* 256 bits of the kernel's. Never waits: ESYSTEM where it has none to give. */
int session_id_draw(larder_session_id *id);

/* Whether it can be one that session_id_draw() gave: its length, its alphabet, and that the bits
 * of its last character which stand for nothing are 0. */
bool session_id_is_valid(const void *id, size_t size);

/* The prefix, and the SHA-256 of a valid id in the same alphabet. */
void session_id_key(larder_bytes prefix, const void *id, struct session_key *key);

#endif
