/* tls.h: the client's side of TLS: whom to trust, what to show, and what it was that failed. The
 * files are read once, here; connection.c makes a session of it for each connection. Chain and name
 * of the server are always verified, nothing older than TLS 1.2 is spoken, and there is no way
 * to switch either off.
 */
#ifndef LARDER_DAEMON_REDIS_TLS_H
#define LARDER_DAEMON_REDIS_TLS_H

#include <stdbool.h>
#include <stddef.h>

struct ssl_st; /* OpenSSL's SSL */

typedef struct tls_settings { /* "" or NULL: not set */
    const char *ca;           /* file of trusted certificates; neither of both: the system's */
    const char *ca_dir;       /* directory of them, as made by `openssl rehash` */
    const char *cert;         /* file of our certificate and those between it and the CA */
    const char *key;          /* its private key: the PEM text itself */
    const char *server_name;  /* what the server's certificate must name, where not its host */
} tls_settings;

typedef struct tls tls;

enum tls_fault { TLS_FAULT_NONE, TLS_FAULT_CA, TLS_FAULT_CA_DIR, TLS_FAULT_CERT, TLS_FAULT_KEY };

/* Read and check. NULL: a sentence in error, and in *fault whose. */
tls *tls_create(const tls_settings *settings, enum tls_fault *fault, char *error,
                size_t error_size);
tls *tls_share(tls *self);    /* NULL-safe; each share is released */
void tls_release(tls **self); /* NULL-safe, sets NULL */

/* Was it made of the same settings and files? Both NULL: yes. */
bool tls_same(const tls *a, const tls *b);

/* A session with the server at host (a name or an address); freed with its bufferevent. NULL: no
 * memory. */
struct ssl_st *tls_session(tls *self, const char *host);

/* After a session failed with one of OpenSSL's errors (0: none was left): a sentence. false: it was
 * not TLS that failed. refused: trying again changes nothing until somebody has put it right; never
 * where it was not TLS. */
bool tls_failure(struct ssl_st *session, unsigned long error, char *out, size_t out_size,
                 bool *refused);

#endif
