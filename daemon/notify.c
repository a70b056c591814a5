/* notify.c: see notify.h. Written here because it is one datagram: no library is linked for it.
 */
#include "daemon/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static struct {
    int fd;
    struct sockaddr_un address;
    socklen_t address_size;
    int64_t watchdog_ms;
    char status[256];
} state = {.fd = -1};

static int64_t watchdog_period(void)
{
    const char *period = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    char *end;
    if (!period) {
        return 0;
    }
    if (pid && strtol(pid, NULL, 10) != (long)getpid()) {
        return 0; /* meant for another process */
    }
    errno = 0;
    unsigned long long microseconds = strtoull(period, &end, 10);
    if (errno || end == period || *end || microseconds == 0) {
        return 0;
    }
    if (microseconds > 86400000000ull) {
        microseconds = 86400000000ull;
    }
    int64_t half_ms = (int64_t)(microseconds / 2000);
    return half_ms > 0 ? half_ms : 1;
}

bool notify_open(char *error, unsigned error_size)
{
    const char *name = getenv("NOTIFY_SOCKET");
    notify_close();
    state.watchdog_ms = watchdog_period();
    if (!name || !*name) {
        return true;
    }
    size_t length = strlen(name);
    if ((name[0] != '/' && name[0] != '@') || length < 2 ||
        length >= sizeof state.address.sun_path) {
        snprintf(error, error_size,
                 "NOTIFY_SOCKET must be a path or @NAME of at most %zu bytes; not notifying",
                 sizeof state.address.sun_path - 1);
        return false;
    }
    memset(&state.address, 0, sizeof state.address);
    state.address.sun_family = AF_UNIX;
    memcpy(state.address.sun_path, name, length);
    size_t counted = length;
    if (name[0] == '@') { /* abstract: a leading zero byte, and no byte more than the name */
        state.address.sun_path[0] = '\0';
    } else {
        counted++;
    }
    state.address_size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + counted);
    state.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (state.fd < 0) {
        snprintf(error, error_size, "a socket for NOTIFY_SOCKET: %s", strerror(errno));
        return false;
    }
    return true;
}

void notify_close(void)
{
    if (state.fd >= 0) {
        close(state.fd);
    }
    state.fd = -1;
    state.watchdog_ms = 0;
    state.status[0] = '\0';
}

static bool send_text(const char *text)
{
    return state.fd >= 0 &&
           sendto(state.fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
                  (const struct sockaddr *)&state.address, state.address_size) >= 0;
}

/* The status is one line of the datagram; a line feed in it would begin another assignment. */
static void remember_status(const char *status)
{
    size_t length = 0;
    for (; length < sizeof state.status - 1 && status[length]; length++) {
        unsigned char byte = (unsigned char)status[length];
        state.status[length] = byte < 0x20 || byte >= 0x7f ? '?' : (char)byte;
    }
    state.status[length] = '\0';
}

static bool send_state(const char *assignments, const char *status)
{
    char text[512];
    remember_status(status);
    snprintf(text, sizeof text, "%s\nSTATUS=%s\n", assignments, state.status);
    return send_text(text);
}

void notify_ready(const char *status)
{
    send_state("READY=1", status);
}

void notify_status(const char *status)
{
    char last[sizeof state.status], text[sizeof state.status + 16];
    memcpy(last, state.status, sizeof last);
    remember_status(status);
    if (strcmp(last, state.status) != 0) {
        snprintf(text, sizeof text, "STATUS=%s\n", state.status);
        if (!send_text(text)) {
            state.status[0] = '\0'; /* not delivered: the next call tries again */
        }
    }
}

void notify_reloading(const char *status)
{
    struct timespec now;
    char text[96];
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%lld",
             (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    send_state(text, status);
}

void notify_stopping(const char *status)
{
    send_state("STOPPING=1", status);
}

int64_t notify_watchdog_ms(void)
{
    return state.watchdog_ms;
}

void notify_watchdog(void)
{
    send_text("WATCHDOG=1\n");
}
