/* peer_memcached.c: memcached over a unix socket in the instance's directory, spoken to in its text
 * protocol; a call is one request and its answer. Starts the server; the driver ends it by pid.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "bench/measure.h"
#include "peer.h"

static int connection = -1;
static char in[PEER_VALUE_MAX + 256], out[PEER_VALUE_MAX + 256];
static pid_t server;

static bool available(const struct peer_setup *setup, char *why, size_t why_size)
{
    (void)setup;
    return peer_installed("memcached", why, why_size);
}

static pid_t start(const struct peer_setup *setup)
{
    char socket_path[256], megabytes[32], log[300];
    snprintf(socket_path, sizeof socket_path, "%s/socket", setup->directory);
    snprintf(log, sizeof log, "%s/log", setup->directory);
    snprintf(megabytes, sizeof megabytes, "%" PRIu64,
             setup->entries * (setup->value_size * 3 / 2 + 120) / 1000000 + 256);
    const char *words[] = {"memcached", "-s", socket_path, "-m",   megabytes,
                           "-t",        "2",  "-u",        "root", NULL};
    if (geteuid() != 0)
        words[7] = NULL;
    return peer_run(words, log, NULL);
}

static bool open_store(const struct peer_setup *setup)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint64_t until_us = test_now_us() + 10000000;
    snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", setup->directory);
    server = setup->server;
    connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (connect(connection, (struct sockaddr *)&address, sizeof address) != 0) {
        if (test_now_us() > until_us)
            return peer_failed("memcached: %s", strerror(errno));
        test_pause_us(2000);
    }
    return true;
}

static bool send_all(size_t size)
{
    for (size_t sent = 0; sent < size;) {
        ssize_t more = write(connection, out + sent, size - sent);
        if (more <= 0)
            return peer_failed("memcached: write: %s", strerror(errno));
        sent += (size_t)more;
    }
    return true;
}

/* Read until the answer ends with these bytes; its size, or 0. */
static size_t receive(const char *end)
{
    size_t used = 0, end_size = strlen(end);
    for (;;) {
        ssize_t more = read(connection, in + used, sizeof in - used);
        if (more <= 0) {
            peer_failed("memcached: read: %s", strerror(errno));
            return 0;
        }
        used += (size_t)more;
        if (used >= end_size && memcmp(in + used - end_size, end, end_size) == 0)
            return used;
    }
}

static int64_t get(const char *key, void *buffer, size_t buffer_size)
{
    memcpy(out, "get ", 4);
    memcpy(out + 4, key, PEER_KEY_SIZE);
    memcpy(out + 4 + PEER_KEY_SIZE, "\r\n", 2);
    size_t used = send_all(4 + PEER_KEY_SIZE + 2) ? receive("END\r\n") : 0;
    char *line_end = used > 5 ? memchr(in, '\n', used) : NULL;
    if (line_end == NULL)
        return -1;
    line_end[-1] = '\0';
    char *number = strrchr(in, ' ');
    size_t size = number != NULL ? strtoul(number, NULL, 10) : 0;
    if (size > buffer_size || (size_t)(line_end + 1 - in) + size > used)
        return -1;
    memcpy(buffer, line_end + 1, size);
    return (int64_t)size;
}

static size_t request(const char *key, const void *value, size_t size, const char *noreply)
{
    int head = snprintf(out, 128, "set %.*s 0 0 %zu%s\r\n", PEER_KEY_SIZE, key, size, noreply);
    memcpy(out + head, value, size);
    memcpy(out + (size_t)head + size, "\r\n", 2);
    return (size_t)head + size + 2;
}

static bool set(const char *key, const void *value, size_t size)
{
    if (!send_all(request(key, value, size, "")) || receive("\r\n") == 0)
        return false;
    return memcmp(in, "STORED", 6) == 0 || peer_failed("memcached: %.60s", in);
}

static bool set_quietly(const char *key, const void *value, size_t size)
{
    return send_all(request(key, value, size, " noreply"));
}

static uint64_t memory(void)
{
    char path[64], line[256];
    uint64_t kilobytes = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)server);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "VmRSS:", 6) == 0)
            kilobytes = strtoull(line + 6, NULL, 10);
    }
    if (file != NULL)
        fclose(file);
    return kilobytes * 1024;
}

static void close_store(void)
{
    close(connection);
}

const struct peer peer_memcached = {.name = "memcached",
                                    .what = "text protocol, unix socket, two threads",
                                    .available = available,
                                    .start = start,
                                    .open = open_store,
                                    .get = get,
                                    .set = set,
                                    .set_quietly = set_quietly,
                                    .memory = memory,
                                    .close = close_store};
