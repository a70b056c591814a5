/* link_foreign.c: noticing what other programs change in Redis, where the settings ask for it: by
 * CLIENT TRACKING of everything under the prefix, told on the channel's connection, or by keyspace
 * notifications, which the server's own settings must allow. See link.h. Both tell of larder's own
 * writes, too: what is to be made of a change is daemon/sync's to say.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/link_internal.h"

bool link_foreign_listen(struct link *self)
{
    char pattern[48];
    const char *id[] = {"CLIENT", "ID"};
    const char *tracking[] = {"SUBSCRIBE", "__redis__:invalidate"};
    const char *notifications[] = {"PSUBSCRIBE", pattern};
    snprintf(pattern, sizeof pattern, "__keyevent@%u__:*", self->settings.url.database);
    switch (self->settings.foreign) {
    case LINK_FOREIGN_OFF:
        break;
    case LINK_FOREIGN_TRACKING:
        return link_send(self, self->channel, REQUEST_CLIENT_ID, 0, 0, NULL, 2, id, NULL) &&
               link_send(self, self->channel, REQUEST_LISTEN, 0, 0, NULL, 2, tracking, NULL);
    case LINK_FOREIGN_NOTIFICATIONS:
        return link_send(self, self->channel, REQUEST_LISTEN, 0, 0, NULL, 2, notifications, NULL);
    }
    return true;
}

static bool send_words(struct link *self, enum request_kind kind, int count,
                       const char *const *words)
{
    size_t sizes[9];
    for (int i = 0; i < count; i++)
        sizes[i] = strlen(words[i]);
    return link_send(self, self->commands, kind, 0, 0, NULL, count, words, sizes);
}

bool link_foreign_begin(struct link *self)
{
    char id[24];
    const char *all[] = {"CLIENT", "TRACKING", "ON", "REDIRECT", id, "NOLOOP", "BCAST"};
    const char *some[] = {"CLIENT", "TRACKING", "ON",     "REDIRECT",           id,
                          "NOLOOP", "BCAST",    "PREFIX", self->settings.prefix};
    const char *config[] = {"CONFIG", "GET", "notify-keyspace-events"};
    snprintf(id, sizeof id, "%" PRId64, self->channel_id);
    bool prefixed = self->settings.prefix[0] != 0;
    switch (self->settings.foreign) {
    case LINK_FOREIGN_OFF:
        break;
    case LINK_FOREIGN_TRACKING:
        return send_words(self, REQUEST_TRACK, prefixed ? 9 : 7, prefixed ? some : all);
    case LINK_FOREIGN_NOTIFICATIONS:
        return send_words(self, REQUEST_NOTIFICATIONS, 3, config);
    }
    return true;
}

/* Redis says nothing when the connection that tracking tells is gone. */
bool link_foreign_probe(struct link *self)
{
    static const char *const words[] = {"CLIENT", "TRACKINGINFO"};
    return self->settings.foreign != LINK_FOREIGN_TRACKING ||
           send_words(self, REQUEST_TRACKED, 2, words);
}

static bool has(const reply *array, const char *text)
{
    for (size_t i = 0; array->kind == REPLY_ARRAY && i < array->count; i++)
        if (array->elements[i]->kind == REPLY_STRING && reply_text_is(array->elements[i], text))
            return true;
    return false;
}

static bool still_tracks(const struct link *self, const reply *got)
{
    if (got->kind != REPLY_ARRAY || got->count < 4)
        return false;
    const reply *flags = got->elements[1], *redirect = got->elements[3];
    return has(flags, "bcast") && !has(flags, "broken_redirect") &&
           redirect->kind == REPLY_INTEGER && redirect->integer == self->channel_id;
}

/* What must be among the flags: key events (E) of all kinds of changes to text values (A, or g and
 * $). */
static void check_notifications(struct link *self, const reply *got)
{
    const reply *flags = got->kind == REPLY_ARRAY && got->count == 2 ? got->elements[1] : NULL;
    if (self->warned)
        return;
    self->warned = true; /* once is enough: they are told in every session */
    if (flags == NULL || flags->kind != REPLY_STRING) {
        self->callbacks.warned(self->context,
                               "redis.foreign = \"notifications\": whether the server sends them "
                               "cannot be known (CONFIG GET is not permitted)");
        return;
    }
    bool all = strchr(flags->text, 'A') != NULL ||
               (strchr(flags->text, 'g') != NULL && strchr(flags->text, '$') != NULL);
    self->warned = strchr(flags->text, 'E') == NULL || !all;
    if (self->warned)
        self->callbacks.warned(self->context,
                               "redis.foreign = \"notifications\": the server does not send them: "
                               "its notify-keyspace-events must have E and A (or g and $); changes "
                               "by other programs go unnoticed until then");
}

void link_foreign_answer(struct link *self, const connection_tag *tag, const reply *got)
{
    if (tag->kind == REQUEST_CLIENT_ID && got->kind == REPLY_INTEGER) {
        self->channel_id = got->integer;
    } else if (tag->kind == REQUEST_LISTEN && got->kind == REPLY_ARRAY && got->count == 3) {
        return;
    } else if (tag->kind == REQUEST_NOTIFICATIONS) {
        check_notifications(self, got);
    } else if (tag->kind == REQUEST_TRACKED) {
        if (!still_tracks(self, got))
            link_fail(self, SYNC_LOST_CONNECTION, "Redis tracks no longer what others change",
                      false, false);
    } else if (tag->kind != REQUEST_TRACK) {
        link_fail(self, SYNC_LOST_CONNECTION, "CLIENT was answered with something else", false,
                  true);
    }
}

static void tell(struct link *self, const reply *name)
{
    size_t key_size = 0;
    if (name->kind != REPLY_STRING)
        return;
    const uint8_t *key = names_back(&self->names, self->settings.prefix,
                                    (const uint8_t *)name->text, name->size, &key_size);
    if (key != NULL)
        self->callbacks.changed(self->context, key, key_size);
}

/* What Redis does by itself says nothing of the data. */
static bool is_upkeep(const reply *channel)
{
    const char *event = strstr(channel->text, "__:");
    return event != NULL && (strcmp(event + 3, "expired") == 0 ||
                             strcmp(event + 3, "evicted") == 0 || strcmp(event + 3, "expire") == 0);
}

void link_foreign_message(struct link *self, const reply *message)
{
    const reply *last = message->elements[message->count - 1];
    if (!self->told_connected)
        return;
    if (message->count == 4) {
        if (!is_upkeep(message->elements[2]))
            tell(self, last);
        return;
    }
    /* nil: the server was emptied, which the event stream tells */
    for (size_t i = 0; last->kind == REPLY_ARRAY && i < last->count && self->told_connected; i++)
        tell(self, last->elements[i]);
}
