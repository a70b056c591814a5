/* notify.h: telling the service manager how we are (the sd_notify protocol, sd_notify(3)): one
 * datagram to the socket that $NOTIFY_SOCKET names, a path or an abstract name. main.c calls it.
 * Without the variable every call does nothing; a send never blocks and never fails the daemon.
 */
#ifndef LARDER_DAEMON_NOTIFY_H
#define LARDER_DAEMON_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

/* Read $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID once. False, with a sentence in error,
 * where the socket is named but cannot be used; the daemon then goes on without it. */
bool notify_open(char *error, unsigned error_size);
void notify_close(void);

void notify_ready(const char *status);  /* READY=1 */
void notify_status(const char *status); /* STATUS=, only when it differs from the last */
void notify_reloading(
    const char *status);                  /* RELOADING=1 with MONOTONIC_USEC; then notify_ready() */
void notify_stopping(const char *status); /* STOPPING=1 */

/* Milliseconds between two notify_watchdog() calls, half of what the manager allows; 0: none asked.
 */
int64_t notify_watchdog_ms(void);
void notify_watchdog(void);

#endif
