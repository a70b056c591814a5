/* test_tls.c: larderd and a real server over TLS: what is trusted, and for each thing that is not
 * a refusal that names it, without a byte in plain.
 */
#include "tests/ports.h"
#include "tests/redis/certificates.h"
#include "tests/redis/fleet.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/redis/tls.h"

#define DAY (24L * 3600)

static harness_redis redis;
static host lone;
static char port[8], paths[3][160];
static const char *arguments[24];

/* A server whose certificate is this one, with more settings up to a NULL. */
static void start_server(const char *certificate, ...)
{
    size_t count = 0;
    va_list more;
    memset(&redis, 0, sizeof redis);
    ck_assert(port_claim(port));
    (void)snprintf(paths[0], sizeof paths[0], "%s", harness_path("%s.crt", certificate));
    (void)snprintf(paths[1], sizeof paths[1], "%s", harness_path("%s.key", certificate));
    (void)snprintf(paths[2], sizeof paths[2], "%s", harness_path("ca.crt"));
    const char *const fixed[] = {
        "--bind",         "127.0.0.1", "--tls-port",         port,    "--tls-cert-file", paths[0],
        "--tls-key-file", paths[1],    "--tls-ca-cert-file", paths[2]};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        arguments[count++] = fixed[i];
    va_start(more, certificate);
    do {
        ck_assert_uint_lt(count, sizeof arguments / sizeof *arguments);
        arguments[count] = va_arg(more, const char *);
    } while (arguments[count++] != NULL);
    va_end(more);
    redis.extra = arguments;
    harness_redis_start(&redis, "redis");
}

static const char *setting(const char *name, const char *file)
{
    static char texts[4][256];
    static unsigned next;
    char *text = texts[next++ % 4];
    (void)snprintf(text, sizeof texts[0], "%s = \"%s/%s\";", name, harness_directory(), file);
    return text;
}

/* The configuration with this group tls in it. */
static const char *settings(const char *group)
{
    static char text[1024];
    (void)snprintf(text, sizeof text,
                   "redis = { " HOST_QUICK "};\nmap = { size = \"64M\"; };\ntls = { %s };\n",
                   group);
    return text;
}

static void start_host(const char *scheme, const char *name, const char *group)
{
    char url[64];
    (void)snprintf(url, sizeof url, "%s://%s:%s", scheme, name, port);
    host_start(&lone, "lone", NULL, url, settings(group));
}

static void works(void)
{
    host_redis_up(&lone, true);
    host_set(&lone, "k", "v");
    redis_comes_to(&redis, "m:k", "v");
    host_end(&lone);
    harness_redis_end(&redis);
}

/* It says why, and nothing of what it has goes out. */
static void is_refused(const char *because, bool parked)
{
    host_set(&lone, "k", "v");
    host_logs(&lone, because);
    if (parked)
        host_logs(&lone, "parked");
    host_redis_up(&lone, false);
    ck_assert(host_has(&lone, "k", "v"));
    ck_assert(harness_redis_says(&redis, NULL, "GET", "m:k", NULL));
    ck_assert_uint_eq(host_dirty(&lone), 1);
    host_end(&lone);
    harness_redis_end(&redis);
}

static void make_certificates(void)
{
    certificate_make("ca", NULL, NULL, -DAY, 10 * DAY);
    certificate_make("other-ca", NULL, NULL, -DAY, 10 * DAY);
    certificate_make("server", "ca", "DNS:localhost,IP:127.0.0.1", -DAY, 10 * DAY);
}

START_TEST(by_address)
{
    start_server("server", "--tls-auth-clients", "no", NULL);
    start_host("rediss", "127.0.0.1", setting("ca", "ca.crt"));
    works();
}
END_TEST

START_TEST(by_name)
{
    certificate_make("named", "ca", "DNS:localhost", -DAY, 10 * DAY);
    start_server("named", "--tls-auth-clients", "no", NULL);
    start_host("rediss", "localhost", setting("ca", "ca.crt"));
    works();
}
END_TEST

START_TEST(by_a_name_in_the_settings)
{
    char group[512];
    certificate_make("named", "ca", "DNS:cache.example", -DAY, 10 * DAY);
    start_server("named", "--tls-auth-clients", "no", NULL);
    (void)snprintf(group, sizeof group, "%s server_name = \"cache.example\";",
                   setting("ca", "ca.crt"));
    start_host("rediss", "127.0.0.1", group);
    works();
}
END_TEST

START_TEST(with_a_certificate_of_its_own)
{
    char group[768];
    certificate_make("client", "ca", NULL, -DAY, 10 * DAY);
    start_server("server", "--tls-auth-clients", "yes", NULL);
    (void)snprintf(group, sizeof group, "%s %s %s", setting("ca", "ca.crt"),
                   setting("cert", "client.crt"), setting("key", "client.key"));
    start_host("rediss", "127.0.0.1", group);
    works();
}
END_TEST

START_TEST(own_certificate_missing)
{
    start_server("server", "--tls-auth-clients", "yes", NULL);
    start_host("rediss", "127.0.0.1", setting("ca", "ca.crt"));
    is_refused("wants a certificate of us", true);
}
END_TEST

START_TEST(own_certificate_missing_in_1_2)
{
    start_server("server", "--tls-auth-clients", "yes", "--tls-protocols", "TLSv1.2", NULL);
    start_host("rediss", "127.0.0.1", setting("ca", "ca.crt"));
    is_refused("wants a certificate of us", true);
}
END_TEST

START_TEST(own_certificate_of_an_unknown_issuer)
{
    char group[768];
    certificate_make("client", "other-ca", NULL, -DAY, 10 * DAY);
    start_server("server", "--tls-auth-clients", "yes", NULL);
    (void)snprintf(group, sizeof group, "%s %s %s", setting("ca", "ca.crt"),
                   setting("cert", "client.crt"), setting("key", "client.key"));
    start_host("rediss", "127.0.0.1", group);
    is_refused("refuses our certificate", true);
}
END_TEST

START_TEST(unknown_issuer)
{
    start_server("server", "--tls-auth-clients", "no", NULL);
    start_host("rediss", "127.0.0.1", setting("ca", "other-ca.crt"));
    is_refused("issuer of the server's certificate is not known", true);
}
END_TEST

START_TEST(issuer_that_the_system_does_not_know)
{
    start_server("server", "--tls-auth-clients", "no", NULL);
    start_host("rediss", "127.0.0.1", "");
    is_refused("issuer of the server's certificate is not known", true);
}
END_TEST

START_TEST(another_name)
{
    certificate_make("named", "ca", "DNS:cache.example,IP:127.0.0.2", -DAY, 10 * DAY);
    start_server("named", "--tls-auth-clients", "no", NULL);
    start_host("rediss", "localhost", setting("ca", "ca.crt"));
    is_refused("for another name", true);
}
END_TEST

/* Its common name alone is not what a certificate is for. */
START_TEST(another_address)
{
    certificate_make("127.0.0.1", "ca", "DNS:localhost,IP:127.0.0.2", -DAY, 10 * DAY);
    start_server("127.0.0.1", "--tls-auth-clients", "no", NULL);
    start_host("rediss", "127.0.0.1", setting("ca", "ca.crt"));
    is_refused("for another name", true);
}
END_TEST

START_TEST(expired)
{
    certificate_make("old", "ca", "IP:127.0.0.1", -DAY, -60);
    start_server("old", "--tls-auth-clients", "no", NULL);
    start_host("rediss", "127.0.0.1", setting("ca", "ca.crt"));
    is_refused("has expired", true);
}
END_TEST

START_TEST(not_valid_yet)
{
    certificate_make("young", "ca", "IP:127.0.0.1", DAY, 10 * DAY);
    start_server("young", "--tls-auth-clients", "no", NULL);
    start_host("rediss", "127.0.0.1", setting("ca", "ca.crt"));
    is_refused("not valid yet", true);
}
END_TEST

START_TEST(only_1_1)
{
    start_server("server", "--tls-auth-clients", "no", "--tls-protocols", "TLSv1.1",
                 "--tls-ciphers", "DEFAULT:@SECLEVEL=0", NULL);
    start_host("rediss", "127.0.0.1", setting("ca", "ca.crt"));
    is_refused("only versions before 1.2", true);
}
END_TEST

START_TEST(plain_server)
{
    ck_assert(port_claim(port));
    arguments[0] = "--port";
    arguments[1] = port;
    arguments[2] = NULL;
    memset(&redis, 0, sizeof redis);
    redis.extra = arguments;
    harness_redis_start(&redis, "redis");
    start_host("rediss", "127.0.0.1", setting("ca", "ca.crt"));
    is_refused("no TLS (is this the server's TLS port?)", false);
}
END_TEST

START_TEST(plain_url)
{
    start_server("server", "--tls-auth-clients", "no", NULL);
    start_host("redis", "127.0.0.1", "");
    is_refused("does it want rediss://?", false);
}
END_TEST

static void copy(const char *from, const char *to)
{
    char command[512];
    (void)snprintf(command, sizeof command, "cp %s/%s %s/%s", harness_directory(), from,
                   harness_directory(), to);
    ck_assert_int_eq(system(command), 0);
}

/* The file is another one under the same name. */
START_TEST(renewed_and_read_again)
{
    copy("other-ca.crt", "trusted.crt");
    start_server("server", "--tls-auth-clients", "no", NULL);
    start_host("rediss", "127.0.0.1", setting("ca", "trusted.crt"));
    host_logs(&lone, "is not known");
    /* what cannot be read changes nothing */
    ck_assert_int_eq(unlink(harness_path("trusted.crt")), 0);
    ck_assert_int_eq(kill(lone.larderd.process.pid, SIGHUP), 0);
    host_logs(&lone, "reload_refused");
    copy("ca.crt", "trusted.crt");
    ck_assert_int_eq(kill(lone.larderd.process.pid, SIGHUP), 0);
    works();
}
END_TEST

/* The CA's file and the other one in a directory by their hashes. */
START_TEST(directory_of_authorities)
{
    ck_assert_int_eq(mkdir(harness_path("trust"), 0700), 0);
    copy("ca.crt", "trust/ca.crt");
    char command[256];
    (void)snprintf(command, sizeof command, "openssl rehash %s/trust", harness_directory());
    ck_assert_int_eq(system(command), 0);
    start_server("server", "--tls-auth-clients", "no", NULL);
    start_host("rediss", "127.0.0.1", setting("ca_dir", "trust"));
    works();
}
END_TEST

/* What ends a session that was up is nobody's to put right: it is only tried again. The server is
 * one that has a certificate of ours to like. */
static void check_ends(const char *protocols)
{
    char group[768];
    certificate_make("client", "ca", NULL, -DAY, 10 * DAY);
    start_server("server", "--tls-auth-clients", "yes", "--tls-protocols", protocols, NULL);
    (void)snprintf(group, sizeof group, "%s %s %s", setting("ca", "ca.crt"),
                   setting("cert", "client.crt"), setting("key", "client.key"));
    start_host("rediss", "127.0.0.1", group);
    static const char *const killed[] = {"normal", "pubsub"};
    for (size_t i = 0; i < sizeof killed / sizeof *killed; i++) {
        host_set(&lone, "before", killed[i]);
        redis_comes_to(&redis, "m:before", killed[i]);
        host_redis_up(&lone, true);
        ck_assert(harness_redis_says(&redis, "1", "CLIENT", "KILL", "TYPE", killed[i], NULL));
        host_set(&lone, "after", killed[i]);
        redis_comes_to(&redis, "m:after", killed[i]);
    }
    host_redis_up(&lone, true);
    harness_redis_end(&redis);
    host_redis_up(&lone, false); /* nobody listens */
    harness_redis_restart(&redis);
    host_redis_up(&lone, true);
    harness_redis_kill(&redis);
    harness_redis_restart(&redis);
    host_set(&lone, "last", "v");
    redis_comes_to(&redis, "m:last", "v");
    harness_never_logged(&lone.larderd.process, "parked");
    works();
}

START_TEST(ends_of_a_session_do_not_park)
{
    check_ends("TLSv1.3");
}
END_TEST

START_TEST(ends_of_a_session_do_not_park_in_1_2)
{
    check_ends("TLSv1.2");
}
END_TEST

/* ---- Settings that cannot be right --------------------------------------------------------------
 */

static void check_says(const char *url, const char *group, const char *problem)
{
    char command[640], line[512], said[4096] = "";
    (void)snprintf(command, sizeof command, "%s -c %s --redis %s --check 2>&1", getenv("LARDERD"),
                   harness_write("check.conf", 0600, settings(group)), url);
    FILE *output = popen(command, "r");
    ck_assert_ptr_nonnull(output);
    while (fgets(line, sizeof line, output) != NULL)
        (void)strncat(said, line, sizeof said - strlen(said) - 1);
    int status = pclose(output);
    if (problem == NULL)
        ck_assert_msg(status == 0, "%s", said);
    else
        ck_assert_msg(status != 0 && strstr(said, problem) != NULL, "not \"%s\" but: %s", problem,
                      said);
    ck_assert_msg(strstr(said, "PRIVATE KEY") == NULL, "a key was printed: %s", said);
}

START_TEST(settings_that_cannot_be_right)
{
    static const char url[] = "rediss://h";
    char group[768];
    certificate_make("client", "ca", NULL, -DAY, 10 * DAY);
    certificate_make("client2", "ca", NULL, -DAY, 10 * DAY);
    certificate_encrypt_key("client", "locked");
    ck_assert_int_eq(chmod(harness_path("client2.key"), 0644), 0);
    check_says(url, setting("ca", "ca.crt"), NULL);
    check_says(url, setting("ca", "ca.crts"), "No such file");
    check_says(url, setting("ca", "ca.key"), "no certificate in it");
    check_says(url, setting("ca_dir", "ca.crt"), "not a directory");
    check_says(url, setting("cert", "client.key"), "no certificate in it");
    check_says(url, setting("cert", "client.crt"), "a certificate needs one");
    check_says("redis://h", setting("ca", "ca.crt"), "does not ask for TLS");
    check_says("''", setting("ca", "none.crt"), "does not ask for TLS"); /* no URL */
    check_says(url, setting("key", "client.key"), "needs tls.cert");
    check_says(url, "server_name = \"a b\";", "host's name");
    static const struct {
        const char *key, *problem;
    } keys[] = {{"client.key", NULL},
                {"locked.key", "is encrypted"},
                {"client2.key", "readable or writable by others"},
                {"ca.key", "not the certificate's"},
                {"ca.crt", "no private key in it"},
                {"none.key", "No such file"}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        (void)snprintf(group, sizeof group, "%s %s", setting("cert", "client.crt"),
                       setting("key", keys[i].key));
        check_says(url, group, keys[i].problem);
    }
}
END_TEST

/* The service manager's place for secrets. */
START_TEST(key_from_the_credentials_directory)
{
    certificate_make("client", "ca", NULL, -DAY, 10 * DAY);
    ck_assert_int_eq(mkdir(harness_path("credentials"), 0700), 0);
    ck_assert_int_eq(setenv("CREDENTIALS_DIRECTORY", harness_path("credentials"), 1), 0);
    check_says("rediss://h", setting("cert", "client.crt"), "a certificate needs one");
    copy("client.key", "credentials/tls-key");
    ck_assert_int_eq(chmod(harness_path("credentials/tls-key"), 0600), 0);
    check_says("rediss://h", setting("cert", "client.crt"), NULL);
}
END_TEST

START_TEST(what_was_read_is_compared)
{
    enum tls_fault fault;
    char error[512], path[160];
    (void)snprintf(path, sizeof path, "%s", harness_path("same.crt"));
    copy("ca.crt", "same.crt");
    tls_settings wanted = {.ca = path};
    tls *first = tls_create(&wanted, &fault, error, sizeof error);
    tls *second = tls_create(&wanted, &fault, error, sizeof error);
    copy("other-ca.crt", "same.crt");
    tls *third = tls_create(&wanted, &fault, error, sizeof error);
    wanted.server_name = "cache.example";
    tls *fourth = tls_create(&wanted, &fault, error, sizeof error);
    ck_assert_msg(first != NULL && second != NULL && third != NULL && fourth != NULL, "%s", error);
    ck_assert(tls_same(first, second));
    ck_assert(!tls_same(first, third));
    ck_assert(!tls_same(third, fourth));
    ck_assert(!tls_same(first, NULL));
    ck_assert(tls_same(NULL, NULL));
    tls_release(&first);
    tls_release(&second);
    tls_release(&third);
    tls_release(&fourth);
}
END_TEST

int main(void)
{
    harness_needs_redis();
    Suite *suite = suite_create("tls");
    TCase *all = tcase_create("tls");
    tcase_add_checked_fixture(all, make_certificates, NULL);
    tcase_set_timeout(all, 60);
    tcase_add_test(all, by_address);
    tcase_add_test(all, by_name);
    tcase_add_test(all, by_a_name_in_the_settings);
    tcase_add_test(all, with_a_certificate_of_its_own);
    tcase_add_test(all, own_certificate_missing);
    tcase_add_test(all, own_certificate_missing_in_1_2);
    tcase_add_test(all, own_certificate_of_an_unknown_issuer);
    tcase_add_test(all, unknown_issuer);
    tcase_add_test(all, issuer_that_the_system_does_not_know);
    tcase_add_test(all, another_name);
    tcase_add_test(all, another_address);
    tcase_add_test(all, expired);
    tcase_add_test(all, not_valid_yet);
    tcase_add_test(all, only_1_1);
    tcase_add_test(all, plain_server);
    tcase_add_test(all, plain_url);
    tcase_add_test(all, renewed_and_read_again);
    tcase_add_test(all, directory_of_authorities);
    tcase_add_test(all, ends_of_a_session_do_not_park);
    tcase_add_test(all, ends_of_a_session_do_not_park_in_1_2);
    tcase_add_test(all, settings_that_cannot_be_right);
    tcase_add_test(all, key_from_the_credentials_directory);
    tcase_add_test(all, what_was_read_is_compared);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
