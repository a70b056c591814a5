/* prepare.h: what larderd's settings mean on this machine: secrets are read, users and groups
 * looked up, the map's directory is made for them, and settings turned into what the parts take.
 * main.c calls it for --check, server.c at start and at each reload. Lookups may take the name
 * service's time: nothing here is called between start and reload.
 */
#ifndef LARDER_DAEMON_PREPARE_H
#define LARDER_DAEMON_PREPARE_H

#include "daemon/conf.h"
#include "daemon/janitor.h"
#include "daemon/redis/tls.h"
#include "daemon/replicator.h"
#include "larder.h"

struct prepared {                               /* wipe with prepare_free */
    char *password, *sentinel_password, *token; /* "": none */
    tls *tls;                                   /* NULL: redis.url does not ask for it */
    int64_t owner, group;                       /* -1: larderd's */
    conf_listen listen;
};

/* Problems are added with the place of their setting. *out is always filled. */
void prepare_read(const struct conf *conf, const char *file, struct prepared *out,
                  conf_problems *problems);
void prepare_free(struct prepared *self);

/* Where an owner or a group is set: make the map's directory for them, unless there is one. False,
 * with a sentence in error. */
bool prepare_directory(const struct conf *conf, const struct prepared *prepared, char *error,
                       size_t error_size);

/* The texts in the results belong to conf and prepared. */
void prepare_map(const struct conf *conf, larder_options *out);
void prepare_replicator(const struct conf *conf, const struct prepared *prepared,
                        replicator_settings *out);
void prepare_janitor(const struct conf *conf, janitor_settings *out);

#endif
