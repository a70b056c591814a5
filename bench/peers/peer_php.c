/* peer_php.c: starts php-cli for APCu and Yac: their segments are inherited by fork, so
 * php_worker.php forks its second worker itself and carries out the commands of worker.c in PHP.
 * Sizes are generous: nothing shall be evicted.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "peer.h"

static bool runs(const struct peer_setup *setup, const char *options, const char *test, char *why,
                 size_t why_size)
{
    char command[1200];
    if (!peer_installed("php", why, why_size))
        return false;
    if (setup->php_script == NULL) {
        snprintf(why, why_size, "php_worker.php is not there");
        return false;
    }
    snprintf(command, sizeof command,
             "php -n %s -r 'exit(%s && function_exists(\"pcntl_fork\") ? 0 : 1);' >/dev/null 2>&1",
             options, test);
    /* NOLINTNEXTLINE(cert-env33-c,bugprone-command-processor): a fixed program, paths of ours */
    FILE *program = popen(command, "re");
    if (program == NULL || pclose(program) != 0) {
        snprintf(why, why_size, "php has not the extension (and pcntl)");
        return false;
    }
    return true;
}

static pid_t run_php(const struct peer_setup *setup, const char *peer,
                     const char *const settings[4])
{
    char entries[32], value_size[32], log[300];
    snprintf(entries, sizeof entries, "%" PRIu64, setup->entries);
    snprintf(value_size, sizeof value_size, "%" PRIu64, setup->value_size);
    snprintf(log, sizeof log, "%s/log", setup->directory);
    const char *words[] = {"php",          "-n",
                           "-d",           "memory_limit=-1",
                           "-d",           settings[0],
                           "-d",           settings[1],
                           "-d",           settings[2],
                           "-d",           settings[3],
                           "--",           setup->php_script,
                           peer,           setup->directory,
                           setup->streams, entries,
                           value_size,     NULL};
    words[12] = "-f";
    return peer_run(words, log, NULL);
}

static bool apcu_available(const struct peer_setup *setup, char *why, size_t why_size)
{
    return runs(setup, "-d extension=apcu.so -d apc.enable_cli=1", "apcu_enabled()", why, why_size);
}

static pid_t apcu_start(const struct peer_setup *setup)
{
    char size[64], hint[64];
    snprintf(size, sizeof size, "apc.shm_size=%" PRIu64 "M",
             setup->entries * (setup->value_size * 5 / 4 + 250) / 1000000 + 64);
    snprintf(hint, sizeof hint, "apc.entries_hint=%" PRIu64, setup->entries);
    const char *settings[] = {"extension=apcu.so", "apc.enable_cli=1", size, hint};
    return run_php(setup, "apcu", settings);
}

static bool yac_available(const struct peer_setup *setup, char *why, size_t why_size)
{
    char options[600];
    if (setup->yac_library == NULL) {
        snprintf(why, why_size, "yac.so is not there");
        return false;
    }
    snprintf(options, sizeof options, "-d extension=%s -d yac.enable_cli=1", setup->yac_library);
    return runs(setup, options, "class_exists(\"Yac\")", why, why_size);
}

/* A slot takes 128 bytes; its table is a power of two, and half full at most evicts little. */
static pid_t yac_start(const struct peer_setup *setup)
{
    char extension[512], keys[64], values[64];
    snprintf(extension, sizeof extension, "extension=%s", setup->yac_library);
    snprintf(keys, sizeof keys, "yac.keys_memory_size=%" PRIu64 "M",
             setup->entries * 4 * 128 / 1000000 + 32);
    snprintf(values, sizeof values, "yac.values_memory_size=%" PRIu64 "M",
             setup->entries * (setup->value_size + 100) * 2 / 1000000 + 256);
    const char *settings[] = {extension, "yac.enable_cli=1", keys, values};
    return run_php(setup, "yac", settings);
}

const struct peer peer_apcu = {.name = "apcu",
                               .what = "apcu_fetch, apcu_store in php-cli",
                               .available = apcu_available,
                               .start = apcu_start,
                               .foreign = true};

const struct peer peer_yac = {.name = "yac",
                              .what = "Yac::get, Yac::set in php-cli",
                              .available = yac_available,
                              .start = yac_start,
                              .foreign = true};
