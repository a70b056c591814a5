/* replicator_say.c: what the replicator's log tells: lines, troubles (each once a minute, and of
 * different ones no more than so many), and that Redis refuses more keys than are remembered one by
 * one. What a server says of itself comes without the passwords. See replicator_internal.h.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "daemon/replicator_internal.h"

#define MINUTE_MS 60000
#define TROUBLES_A_MINUTE 30u
#define QUIET_BEATS 5u /* without a key left over: it has ended */

void replicator_say(replicator *self, int priority, const char *format, ...)
{
    char text[512];
    va_list arguments;
    if (self->settings.log == NULL)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    self->settings.log(self->settings.log_context, priority, text);
}

void replicator_mask(const replicator *self, const char *text, char *out, size_t size)
{
    enum { LEAST = 8 }; /* a shorter one would show by what is missing in sentences of our own */
    const char *secrets[CODEC_SECRETS] = {self->settings.password,
                                          self->settings.sentinel_password};
    for (size_t i = 0; i < CODEC_SECRETS; i++)
        if (secrets[i] != NULL && strlen(secrets[i]) < LEAST)
            secrets[i] = NULL;
    codec_mask(text, secrets, out, size);
}

/* A server that refuses each key in other words must not fill the log. */
static bool too_many(replicator *self, int64_t now)
{
    if (now - self->troubles_ms >= MINUTE_MS) {
        if (self->troubles > TROUBLES_A_MINUTE)
            replicator_say(self, LOG_WARNING, "redis: %" PRIu32 " other troubles were not logged",
                           self->troubles - TROUBLES_A_MINUTE);
        self->troubles_ms = now;
        self->troubles = 0;
    }
    if (self->troubles < UINT32_MAX)
        self->troubles++;
    return self->troubles > TROUBLES_A_MINUTE;
}

void replicator_trouble(replicator *self, const char *said)
{
    int64_t now = replicator_now_ms();
    char text[sizeof self->error], why[512];
    replicator_mask(self, said, why, sizeof why);
    /* Redis does not say which one */
    bool right = strstr(why, "user executing the script") != NULL;
    snprintf(text, sizeof text, right ? "%.170s%s" : "%.255s%s", why,
             right ? ": a right is missing which the scripts need (protocol.md, Rights)" : "");
    bool repeated = strcmp(self->error, text) == 0 && now - self->error_logged_ms < MINUTE_MS;
    memcpy(self->error, text, sizeof text);
    self->error_ms = replicator_wall_ms();
    if (repeated || too_many(self, now))
        return;
    self->error_logged_ms = now;
    replicator_say(self, LOG_WARNING, "redis: %s", text);
}

void replicator_say_left(replicator *self, uint64_t left)
{
    int64_t now = replicator_now_ms();
    if (left != 0) {
        self->left_quiet = 0;
        if (self->left_told || (self->left_ms != 0 && now - self->left_ms < MINUTE_MS))
            return;
        self->left_told = true;
        self->left_ms = now;
        replicator_say(self, LOG_WARNING,
                       "redis %s: refuses more keys than the %" PRIu32
                       " (redis.retry_entries) that "
                       "are remembered one by one: %" PRIu64 " others, so far, are tried again "
                       "together, after longer pauses",
                       self->url.display, self->settings.retry_entries, left);
    } else if (self->left_told && ++self->left_quiet >= QUIET_BEATS) {
        self->left_told = false;
        replicator_say(self, LOG_NOTICE, "redis %s: no more keys are refused than are remembered",
                       self->url.display);
    }
}
