/* certificates.c: see certificates.h. */
#include "tests/redis/certificates.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "tests/harness.h"

static FILE *open_file(const char *name, const char *suffix, const char *mode)
{
    const char *path = harness_path("%s.%s", name, suffix);
    FILE *file = fopen(path, mode);
    ck_assert_msg(file != NULL, "%s cannot be opened", path);
    ck_assert_int_eq(chmod(path, 0600), 0);
    return file;
}

static EVP_PKEY *read_key(const char *name)
{
    FILE *file = open_file(name, "key", "r");
    EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    ck_assert_ptr_nonnull(key);
    (void)fclose(file);
    return key;
}

static X509 *read_certificate(const char *name)
{
    FILE *file = open_file(name, "crt", "r");
    X509 *certificate = PEM_read_X509(file, NULL, NULL, NULL);
    ck_assert_ptr_nonnull(certificate);
    (void)fclose(file);
    return certificate;
}

static void extend(X509 *certificate, X509 *issuer, int kind, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
    ck_assert_msg(extension != NULL, "bad extension: %s", value);
    ck_assert_int_eq(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

void certificate_make(const char *name, const char *issuer, const char *names, long from,
                      long until)
{
    X509 *certificate = X509_new(), *parent = issuer != NULL ? read_certificate(issuer) : NULL;
    EVP_PKEY *key = EVP_EC_gen("P-256"), *signer = issuer != NULL ? read_key(issuer) : key;
    uint64_t serial = 0;
    ck_assert(certificate != NULL && key != NULL);
    ck_assert_int_eq(RAND_bytes((unsigned char *)&serial, sizeof serial), 1);
    (void)X509_set_version(certificate, 2);
    (void)ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), serial >> 1);
    (void)X509_gmtime_adj(X509_getm_notBefore(certificate), from);
    (void)X509_gmtime_adj(X509_getm_notAfter(certificate), until);
    (void)X509_set_pubkey(certificate, key);
    (void)X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                                     (const unsigned char *)name, -1, -1, 0);
    (void)X509_set_issuer_name(certificate,
                               X509_get_subject_name(parent != NULL ? parent : certificate));
    extend(certificate, parent != NULL ? parent : certificate, NID_basic_constraints,
           parent != NULL ? "critical,CA:FALSE" : "critical,CA:TRUE");
    if (names != NULL)
        extend(certificate, parent, NID_subject_alt_name, names);
    ck_assert_int_gt(X509_sign(certificate, signer, EVP_sha256()), 0);
    FILE *file = open_file(name, "crt", "w");
    ck_assert_int_eq(PEM_write_X509(file, certificate), 1);
    (void)fclose(file);
    file = open_file(name, "key", "w");
    ck_assert_int_eq(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    (void)fclose(file);
    if (signer != key)
        EVP_PKEY_free(signer);
    EVP_PKEY_free(key);
    X509_free(parent);
    X509_free(certificate);
}

void certificate_encrypt_key(const char *from, const char *name)
{
    EVP_PKEY *key = read_key(from);
    FILE *file = open_file(name, "key", "w");
    ck_assert_int_eq(PEM_write_PrivateKey(file, key, EVP_aes_128_cbc(),
                                          (const unsigned char *)"passphrase", 10, NULL, NULL),
                     1);
    (void)fclose(file);
    EVP_PKEY_free(key);
}
