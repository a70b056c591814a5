/* network.h: places with a network of their own: Linux network namespaces that hang on one bridge,
 * which stands in a namespace of the test's. A cable can be pulled, or one direction of it
 * silenced; nothing is told to either side, as with a real cut. Nothing of the machine's own
 * network is touched, and all of it goes when the test ends, however it ends.
 */
#ifndef LARDER_TESTS_CHAOS_NETWORK_H
#define LARDER_TESTS_CHAOS_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct place {
    char name[16];
    char address[16];
    int descriptor; /* of the namespace */
    unsigned index; /* of its cable */
};

/* Make the switch. Skips the test where namespaces, cables or bridges cannot be made. */
void network_begin(void);

void network_place(struct place *place, const char *name);

/* Start a program there; what it says is appended to the log; it dies with the test. environment:
 * "NAME=value" strings up to a NULL, or NULL. */
pid_t network_run(const struct place *place, const char *const *words, const char *log,
                  const char *const *environment);

void network_cable(const struct place *place, bool plugged);
/* What the place sends to the other gets lost (silent) or arrives; the other direction lives on. */
void network_silence(const struct place *from, const struct place *to, bool silent);

#endif
