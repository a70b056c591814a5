/* certificates.h: authorities and certificates for tests of TLS, made with libcrypto in the test's
 * own directory. A helper that cannot do its work fails the running test.
 */
#ifndef LARDER_TESTS_REDIS_CERTIFICATES_H
#define LARDER_TESTS_REDIS_CERTIFICATES_H

/* Make NAME.crt and NAME.key (mode 0600), valid from and until so many seconds from now. issuer:
 * the name of one made before; NULL: an authority of its own. names: what it is for
 * ("DNS:localhost,IP:127.0.0.1"), or NULL. */
void certificate_make(const char *name, const char *issuer, const char *names, long from,
                      long until);

/* The same key, encrypted with a passphrase, as NAME.key. */
void certificate_encrypt_key(const char *from, const char *name);

#endif
