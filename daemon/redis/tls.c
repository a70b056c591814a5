/* tls.c: see tls.h. OpenSSL keeps what was read; the digest of all of it tells at a reload whether
 * anything changed, also where a file was renewed under its old name.
 */
#include "daemon/redis/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#define FILE_MAX ((size_t)4 * 1024 * 1024) /* bytes; the system's trust store has 220,000 */
#define DIGEST_SIZE 32

struct tls {
    SSL_CTX *context;
    unsigned users;
    char server_name[256];
    unsigned char digest[DIGEST_SIZE];
};

struct reader { /* one tls_create() */
    tls *self;
    EVP_MD_CTX *digest;
    char *error;
    size_t error_size;
};

static bool is_set(const char *text)
{
    return text != NULL && *text != 0;
}

static bool fail(struct reader *reader, const char *path, const char *why)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;
    snprintf(reader->error, reader->error_size, "%s: %s%s%s%s", path, why,
             reason != NULL ? " (" : "", reason != NULL ? reason : "", reason != NULL ? ")" : "");
    ERR_clear_error();
    return false;
}

static bool note(struct reader *reader, const void *bytes, size_t size)
{
    return EVP_DigestUpdate(reader->digest, &size, sizeof size) == 1 &&
           EVP_DigestUpdate(reader->digest, bytes, size) == 1;
}

/* The whole file in a memory BIO; NULL: error is set. */
static BIO *read_whole(struct reader *reader, const char *path)
{
    struct stat status;
    BIO *bio = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &status) != 0) {
        fail(reader, path, strerror(errno));
    } else if (!S_ISREG(status.st_mode)) {
        fail(reader, path, "not a regular file");
    } else if (status.st_size > (off_t)FILE_MAX) {
        fail(reader, path, "larger than 4 MiB");
    } else if ((bio = BIO_new(BIO_s_mem())) == NULL) {
        fail(reader, path, "no memory");
    } else {
        char part[16384];
        ssize_t got;
        size_t total = 0;
        while ((got = read(fd, part, sizeof part)) > 0 && (total += (size_t)got) <= FILE_MAX)
            if (!note(reader, part, (size_t)got) || BIO_write(bio, part, (int)got) != got)
                break;
        if (got != 0) {
            fail(reader, path, got < 0 ? strerror(errno) : "cannot be read whole");
            BIO_free(bio);
            bio = NULL;
        }
    }
    if (fd >= 0)
        close(fd);
    return bio;
}

/* Certificates, one after the other; the end of the file is an error of its own in OpenSSL. */
static X509 *next_certificate(BIO *bio)
{
    ERR_clear_error();
    X509 *certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    if (certificate == NULL && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
        ERR_clear_error();
    return certificate;
}

static bool read_ca(struct reader *reader, const char *path)
{
    X509_STORE *store = SSL_CTX_get_cert_store(reader->self->context);
    BIO *bio = read_whole(reader, path);
    X509 *certificate;
    size_t count = 0;
    if (bio == NULL)
        return false;
    while ((certificate = next_certificate(bio)) != NULL) {
        bool added = X509_STORE_add_cert(store, certificate) == 1;
        X509_free(certificate);
        if (!added)
            break;
        count++;
    }
    BIO_free(bio);
    if (ERR_peek_last_error() != 0)
        return fail(reader, path, "a certificate in it cannot be read");
    return count != 0 || fail(reader, path, "there is no certificate in it");
}

static bool read_ca_dir(struct reader *reader, const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return fail(reader, path, strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return fail(reader, path, "not a directory");
    /* its files are looked for when a certificate needs them */
    return (SSL_CTX_load_verify_dir(reader->self->context, path) == 1 &&
            note(reader, path, strlen(path))) ||
           fail(reader, path, "cannot be used");
}

static bool use_system(struct reader *reader)
{
    struct stat status;
    const char *file = X509_get_default_cert_file();
    /* an update of the system's store counts as a change */
    if (stat(file, &status) == 0 && !note(reader, &status.st_mtim, sizeof status.st_mtim))
        return fail(reader, file, "no memory");
    return SSL_CTX_set_default_verify_paths(reader->self->context) == 1 ||
           fail(reader, file, "the system's certificates cannot be read");
}

static bool read_cert(struct reader *reader, const char *path)
{
    SSL_CTX *context = reader->self->context;
    BIO *bio = read_whole(reader, path);
    if (bio == NULL)
        return false;
    X509 *certificate = next_certificate(bio);
    bool good = certificate != NULL && SSL_CTX_use_certificate(context, certificate) == 1;
    X509_free(certificate);
    while (good && (certificate = next_certificate(bio)) != NULL) {
        good = SSL_CTX_add1_chain_cert(context, certificate) == 1;
        X509_free(certificate);
    }
    BIO_free(bio);
    if (ERR_peek_last_error() != 0)
        return fail(reader, path, "a certificate in it cannot be used");
    return good || fail(reader, path, "there is no certificate in it");
}

/* Nobody is there to be asked. */
static int no_passphrase(char *out, int size, int writing, void *context)
{
    (void)out;
    (void)size;
    (void)writing;
    *(bool *)context = true;
    return -1;
}

static bool read_key(struct reader *reader, const char *text)
{
    bool encrypted = false;
    BIO *bio = BIO_new_mem_buf(text, -1);
    EVP_PKEY *key =
        bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &encrypted) : NULL;
    BIO_free(bio);
    if (key == NULL) {
        if (encrypted)
            ERR_clear_error();
        return fail(reader, "the key",
                    encrypted ? "is encrypted: larderd cannot ask for a passphrase"
                              : "there is no private key in it");
    }
    bool good = SSL_CTX_use_PrivateKey(reader->self->context, key) == 1 &&
                SSL_CTX_check_private_key(reader->self->context) == 1;
    EVP_PKEY_free(key);
    return good ? note(reader, text, strlen(text))
                : fail(reader, "the key", "is not the certificate's");
}

static bool read_all(struct reader *reader, const tls_settings *settings, enum tls_fault *fault)
{
    *fault = TLS_FAULT_CA;
    if (is_set(settings->ca) && !read_ca(reader, settings->ca))
        return false;
    *fault = TLS_FAULT_CA_DIR;
    if (is_set(settings->ca_dir) && !read_ca_dir(reader, settings->ca_dir))
        return false;
    *fault = TLS_FAULT_NONE;
    if (!is_set(settings->ca) && !is_set(settings->ca_dir) && !use_system(reader))
        return false;
    *fault = TLS_FAULT_CERT;
    if (is_set(settings->cert) && !read_cert(reader, settings->cert))
        return false;
    *fault = TLS_FAULT_KEY;
    if (is_set(settings->cert) && !is_set(settings->key))
        return fail(reader, "the key", "is not there: a certificate needs one");
    return !is_set(settings->cert) || read_key(reader, settings->key);
}

tls *tls_create(const tls_settings *settings, enum tls_fault *fault, char *error, size_t error_size)
{
    struct reader reader = {.error = error, .error_size = error_size};
    unsigned char digest[EVP_MAX_MD_SIZE];
    *fault = TLS_FAULT_NONE;
    snprintf(error, error_size, "no memory");
    ERR_clear_error();
    tls *self = reader.self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->users = 1;
    snprintf(self->server_name, sizeof self->server_name, "%s",
             is_set(settings->server_name) ? settings->server_name : "");
    self->context = SSL_CTX_new(TLS_client_method());
    reader.digest = EVP_MD_CTX_new();
    bool good = self->context != NULL && reader.digest != NULL &&
                SSL_CTX_set_min_proto_version(self->context, TLS1_2_VERSION) == 1 &&
                EVP_DigestInit_ex(reader.digest, EVP_sha256(), NULL) == 1 &&
                note(&reader, self->server_name, strlen(self->server_name));
    if (good) {
        SSL_CTX_set_verify(self->context, SSL_VERIFY_PEER, NULL);
        /* a reply's length tells whether it is whole: no need for the close_notify */
        SSL_CTX_set_options(self->context, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION |
                                               SSL_OP_NO_COMPRESSION);
        good = read_all(&reader, settings, fault) &&
               EVP_DigestFinal_ex(reader.digest, digest, NULL) == 1;
    }
    EVP_MD_CTX_free(reader.digest);
    if (good)
        memcpy(self->digest, digest, DIGEST_SIZE);
    else
        tls_release(&self);
    return self;
}

tls *tls_share(tls *self)
{
    if (self != NULL)
        self->users++;
    return self;
}

void tls_release(tls **self)
{
    if (self == NULL || *self == NULL)
        return;
    tls *old = *self;
    *self = NULL;
    if (--old->users == 0) {
        SSL_CTX_free(old->context);
        free(old);
    }
}

bool tls_same(const tls *a, const tls *b)
{
    if (a == NULL || b == NULL)
        return a == b;
    return memcmp(a->digest, b->digest, DIGEST_SIZE) == 0;
}

/* ---- Sessions ---------------------------------------------------------------------------------
 */

struct ssl_st *tls_session(tls *self, const char *host)
{
    const char *name = self->server_name[0] != 0 ? self->server_name : host;
    SSL *session = SSL_new(self->context);
    if (session == NULL)
        return NULL;
    X509_VERIFY_PARAM *verify = SSL_get0_param(session);
    SSL_set_hostflags(session, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    /* an address: no SNI, and the certificate must name it as an address */
    bool good = X509_VERIFY_PARAM_set1_ip_asc(verify, name) == 1 ||
                (SSL_set1_host(session, name) == 1 && SSL_set_tlsext_host_name(session, name) == 1);
    ERR_clear_error();
    if (!good) {
        SSL_free(session);
        return NULL;
    }
    return session;
}

static void certificate_failure(long result, char *out, size_t size)
{
    switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        snprintf(out, size, "TLS: the server's certificate, or its issuer's, has expired");
        break;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        snprintf(out, size, "TLS: the server's certificate is not valid yet");
        break;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        snprintf(out, size,
                 "TLS: the server's certificate is for another name (tls.server_name tells which "
                 "one it must have)");
        break;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
        snprintf(out, size,
                 "TLS: the issuer of the server's certificate is not known (tls.ca names those "
                 "to trust)");
        break;
    default:
        snprintf(out, size, "TLS: the server's certificate: %s",
                 X509_verify_cert_error_string(result));
        break;
    }
}

bool tls_failure(struct ssl_st *session, unsigned long error, char *out, size_t out_size,
                 bool *refused)
{
    long result = SSL_get_verify_result(session);
    int reason = ERR_GET_REASON(error);
    *refused = false;
    if (result == X509_V_OK && (error == 0 || ERR_GET_LIB(error) != ERR_LIB_SSL))
        return false;
    *refused = true;
    if (result != X509_V_OK) {
        certificate_failure(result, out, out_size);
        return true;
    }
    switch (reason) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_HTTP_REQUEST:
        snprintf(out, out_size, "TLS: the server does not speak it: is this its TLS port?");
        break;
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
    case SSL_R_UNSUPPORTED_PROTOCOL:
        snprintf(out, out_size, "TLS: the server speaks only versions before 1.2");
        break;
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
        snprintf(out, out_size, "TLS: the server wants a certificate of us (tls.cert, tls.key)");
        break;
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
        snprintf(out, out_size,
                 "TLS: the server refuses: it wants a certificate of us (tls.cert, tls.key), or "
                 "there is no cipher in common");
        break;
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
        snprintf(out, out_size, "TLS: the server refuses our certificate (tls.cert): %s",
                 ERR_reason_error_string(error));
        break;
    default:
        *refused = false;
        snprintf(out, out_size, "TLS: %s",
                 ERR_reason_error_string(error) != NULL ? ERR_reason_error_string(error)
                                                        : "the session failed");
        break;
    }
    return true;
}
