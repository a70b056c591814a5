/* link_unscripted.c: a session with a server that refuses scripts: finds that out, and lets
 * unscripted.c carry them out instead. It is found out anew in each session, so that a server that
 * permits them again is used at its full speed.
 */
#include "daemon/redis/link_internal.h"

#include <stdio.h>
#include <string.h>

static bool send_one(void *context, uint32_t what, int count, const char *const *words,
                     const size_t *sizes)
{
    struct link *self = context;
    return link_send(self, self->commands, REQUEST_UNSCRIPTED, what, 0, NULL, count, words, sizes);
}

static void answer_one(void *context, const connection_tag *tag, const reply *got, int64_t sent_us)
{
    link_commands_answer(context, tag, got, sent_us);
}

static void on_unsent(void *context)
{
    link_fail(context, SYNC_LOST_CONNECTION, "a request could not be sent", false, false);
}

static void on_out_of_step(void *context)
{
    link_out_of_step(context, "a command in place of a script");
}

bool link_unscripted_create(struct link *self)
{
    static const unscripted_callbacks callbacks = {send_one, answer_one, on_unsent, on_out_of_step};
    self->unscripted = unscripted_create(&callbacks, self);
    return self->unscripted != NULL;
}

/* NOPERM, or renamed away; not what one script is refused for. */
static bool is_refusal(const reply *got, const char *command)
{
    if (got->kind != REPLY_ERROR)
        return false;
    return (reply_error_is(got, "NOPERM") && strstr(got->text, command) != NULL) ||
           strstr(got->text, "unknown command") != NULL;
}

/* Only who may watch can do without. */
static bool change_over(struct link *self, const reply *got)
{
    const char *watch[] = {"WATCH", self->stream}, *unwatch[] = {"UNWATCH"};
    if (self->without_scripts)
        return true;
    self->without_scripts = true;
    snprintf(self->refusal, sizeof self->refusal, "%s", got->said);
    return link_send(self, self->commands, REQUEST_WATCH, 0, 0, NULL, 2, watch, NULL) &&
           link_send(self, self->commands, REQUEST_WATCH, 0, 0, NULL, 1, unwatch, NULL);
}

bool link_refused_script(struct link *self, const connection_tag *tag, const reply *got)
{
    bool sent;
    if (self->cluster != NULL)
        return false; /* no other way there: transactions over its nodes are not to be had */
    if (tag->kind == REQUEST_SCRIPT && is_refusal(got, "'script")) {
        sent = change_over(self, got);
        link_script_done(self);
    } else if (tag->kind == REQUEST_JOIN && !self->without_scripts &&
               is_refusal(got, "'evalsha'")) {
        sent = change_over(self, got) && link_join(self, self->join_epoch, self->join_number,
                                                   self->join_node, self->join_identity);
    } else {
        return false;
    }
    if (!sent)
        on_unsent(self);
    return true;
}

bool link_call_unscripted(struct link *self, const connection_tag *tag, int count,
                          const char *const *arguments, const size_t *sizes, bool *sent)
{
    if (!self->without_scripts || strcmp(arguments[0], "EVALSHA") != 0)
        return false;
    for (size_t i = 0; i < SCRIPT_COUNT; i++) {
        if (arguments[1] == self->sha[i]) {
            *sent = unscripted_call(self->unscripted, tag, (enum script_id)i, count - 2,
                                    arguments + 2, sizes + 2);
            return true;
        }
    }
    return false;
}
