/* server.h: the running larderd: the map, the claim on it, the event loop and what lives on it
 * (replicator, janitor, web server, signals, the word to the service manager). main.c starts it
 * with settings that were read without a problem.
 */
#ifndef LARDER_DAEMON_SERVER_H
#define LARDER_DAEMON_SERVER_H

#include "daemon/conf.h"
#include "daemon/prepare.h"

enum { /* exit codes of larderd */
       SERVER_OK = 0,
       SERVER_FAILED = 1,  /* the map, a socket or memory */
       SERVER_USAGE = 2,   /* options or settings */
       SERVER_CLAIMED = 3, /* another larderd has the map */
       SERVER_FENCED = 4   /* a later larderd took it from us */
};

typedef struct server_source { /* where settings come from, for a reload */
    const char *file;
    bool must_exist;
    const conf_flag *flags;
    size_t flag_count;
} server_source;

/* From now on a SIGHUP waits until the event loop is there to take it: before, and when the loop is
 * gone, it would end the process. */
void server_hold_reloads(void);

/* Run until a signal ends it; returns the exit code. Takes conf and prepared over. */
int server_run(struct conf *conf, struct prepared *prepared, const server_source *source);

#endif
