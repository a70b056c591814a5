/* secret.h: reading what must not stand in a configuration or on a command line (the passwords of
 * Redis and its Sentinels, the key for TLS, the token of the web server) from a file of its own or
 * from $CREDENTIALS_DIRECTORY, and comparing and wiping it. prepare.c and web.c call it. Nothing
 * here logs.
 */
#ifndef LARDER_DAEMON_SECRET_H
#define LARDER_DAEMON_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#define SECRET_MAX 1024u      /* bytes */
#define SECRET_PEM_MAX 65536u /* bytes */

/* The secret in the file at path; where path is "", in $CREDENTIALS_DIRECTORY/credential, and if
 * there is none, "" with success. One line end at its end is not part of it. False, with a sentence
 * in error: not readable, not a regular file, readable by others, empty, too long, control
 * characters. *out is the caller's: secret_free(). */
bool secret_read(const char *path, const char *credential, char **out, char *error,
                 size_t error_size);

/* The same of a key in PEM text, of many lines. */
bool secret_read_pem(const char *path, const char *credential, char **out, char *error,
                     size_t error_size);

/* Wipe and free; NULL-safe, sets NULL. */
void secret_free(char **secret);

/* In a time that depends on the size of given alone. */
bool secret_equal(const char *secret, const char *given, size_t given_size);

#endif
