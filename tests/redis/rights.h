/* rights.h: the rights that doc/protocol.md names, read from the document itself, so that the two
 * cannot part.
 */
#ifndef LARDER_TESTS_REDIS_RIGHTS_H
#define LARDER_TESTS_REDIS_RIGHTS_H

#include "tests/harness.h"

#define RIGHTS_WORDS_MAX 64

typedef struct rights_rule {
    char text[4096];                     /* with the prefix "t:" and the password "pw" filled in */
    const char *words[RIGHTS_WORDS_MAX]; /* what follows ACL SETUSER larder */
    size_t count;
} rights_rule;

/* The rule for one server; of_cluster: and what the one for clusters adds to it. */
void rights_read(rights_rule *self, bool of_cluster);

/* Give the server's user "larder" these. */
void rights_give(const rights_rule *self, harness_redis *redis);

/* None of the server's users has lacked one. */
void rights_sufficed(harness_redis *redis);

/* The configuration of a host that is this user. */
const char *rights_configuration(void);

#endif
