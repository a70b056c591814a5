/* nodes.c: the cluster as its nodes see it, and open slots mended; see nodes.h. */
#include "tests/chaos/nodes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/names.h"
#include "tests/chaos/nodes_internal.h"
#include "tests/multi/harness.h"

enum { NOBODY = 255, BEGIN_MS = 60000 };

/* A replica takes over some two seconds after its master was heard of last, however old its data.
 */
const char *const nodes_settings[] = {"--cluster-enabled",
                                      "yes",
                                      "--cluster-node-timeout",
                                      "2000",
                                      "--cluster-replica-validity-factor",
                                      "0",
                                      "--cluster-allow-replica-migration",
                                      "no",
                                      "--repl-ping-replica-period",
                                      "1",
                                      NULL};

/* ---- Asking ------------------------------------------------------------------------------------
 */

bool nodes_open(struct node_talk *talk, const struct redis *redis)
{
    talk->open = redis_answers(redis) && client_connect(&talk->client, &redis->server);
    return talk->open;
}

void nodes_close(struct node_talk *talk)
{
    if (talk->open)
        client_close(&talk->client);
    talk->open = false;
}

struct reply nodes_ask(struct node_talk *talk, const char *const *words)
{
    size_t sizes[NODES_WORDS_MAX], count = 0;
    for (; words[count] != NULL; count++) {
        test_check(count < NODES_WORDS_MAX, "too many words");
        sizes[count] = strlen(words[count]);
    }
    client_append(&talk->client, count, words, sizes);
    return client_reply(&talk->client);
}

/* A text reply, copied; NULL: another one. */
static char *ask_text(const struct redis *redis, const char *const *words)
{
    struct node_talk talk;
    char *text = NULL;
    if (!nodes_open(&talk, redis))
        return NULL;
    struct reply reply = nodes_ask(&talk, words);
    if (reply.type == '$' || reply.type == '+')
        text = strndup(reply.text, reply.size);
    nodes_close(&talk);
    return text;
}

static int by_id(const struct redis_side *side, const char *id, size_t size)
{
    for (unsigned i = 0; i < side->count; i++)
        if (strlen(side->servers[i].id) == size && memcmp(side->servers[i].id, id, size) == 0)
            return (int)i;
    return -1;
}

/* ---- What one of them sees --------------------------------------------------------------------
 */

/* "5", "0-5460", "[77->-ID]" (going), "[77-<-ID]" (coming) */
static void read_slots(const struct redis_side *side, char *word, unsigned node,
                       struct node_view *view)
{
    char *end;
    bool open = word[0] == '[';
    unsigned long first = strtoul(word + open, &end, 10), last = first;
    if (open && view->open_count < NODES_OPEN_MAX && strlen(end) > 3) {
        struct open_slot *slot = &view->open[view->open_count++];
        slot->slot = (uint16_t)first;
        slot->coming = end[1] == '<';
        slot->other = by_id(side, end + 3, strcspn(end + 3, "]"));
        return;
    }
    if (*end == '-')
        last = strtoul(end + 1, NULL, 10);
    for (unsigned long slot = first; slot <= last && slot < SLOTS && !open; slot++)
        view->owner[slot] = (unsigned char)node;
}

static void read_line(const struct redis_side *side, char *line, struct node_view *view)
{
    char *words[8], *at = line;
    for (size_t i = 0; i < 8; i++) /* id, address, flags, master, two times, epoch, link */
        if ((words[i] = strsep(&at, " ")) == NULL)
            return;
    int node = by_id(side, words[0], strlen(words[0]));
    view->trouble = view->trouble || node < 0 || strstr(words[2], "fail") != NULL ||
                    strstr(words[2], "handshake") != NULL ||
                    (strstr(words[2], "myself") == NULL && strcmp(words[7], "connected") != 0);
    for (char *word; node >= 0 && (word = strsep(&at, " ")) != NULL;)
        read_slots(side, word, (unsigned)node, view);
}

bool nodes_look(const struct redis_side *side, const struct redis *by, struct node_view *view)
{
    memset(view, 0, sizeof *view);
    memset(view->owner, NOBODY, sizeof view->owner);
    char *text = ask_text(by, (const char *const[]){"CLUSTER", "NODES", NULL}), *at = text;
    for (char *line; text != NULL && (line = strsep(&at, "\n")) != NULL;)
        if (line[0] != 0)
            read_line(side, line, view);
    free(text);
    return text != NULL;
}

static bool says_ok(const struct redis *redis)
{
    char *text = ask_text(redis, (const char *const[]){"CLUSTER", "INFO", NULL});
    bool good = text != NULL && strstr(text, "cluster_state:ok") != NULL;
    free(text);
    return good;
}

static const char *lacks(const struct redis_side *side, unsigned node, struct node_view *view,
                         struct node_view *first)
{
    const struct redis *redis = &side->servers[node];
    if (!says_ok(redis))
        return "says that the cluster is down";
    if (redis_role(redis) == '?')
        return "is a replica that has not caught up";
    if (!nodes_look(side, redis, view) || view->trouble)
        return "knows of a node that has failed";
    if (view->open_count != 0)
        return "has slots on the move";
    if (node == 0)
        *first = *view;
    if (memcmp(view->owner, first->owner, sizeof view->owner) != 0)
        return "sees other slots at other nodes than the first one";
    return memchr(view->owner, NOBODY, sizeof view->owner) != NULL ? "sees slots at no node" : NULL;
}

bool nodes_whole(struct redis_side *side)
{
    static struct node_view view, first;
    for (unsigned i = 0; i < side->count; i++) {
        const char *lack = lacks(side, i, &view, &first);
        if (lack != NULL) {
            snprintf(side->missing, sizeof side->missing, "%s %s", side->servers[i].place.name,
                     lack);
            return false;
        }
    }
    memcpy(side->owner, first.owner, sizeof side->owner);
    return true;
}

int nodes_server(const struct redis_side *side, uint16_t slot)
{
    static struct node_view view;
    for (unsigned i = 0; i < side->count; i++)
        if (redis_answers(&side->servers[i]) && nodes_look(side, &side->servers[i], &view))
            return view.owner[slot] == NOBODY ? -1 : view.owner[slot];
    return -1;
}

/* ---- Putting it together ----------------------------------------------------------------------
 */

static void must(const struct redis *redis, const char *const *words)
{
    test_check(redis_tell(redis, words), "%s: CLUSTER %s: refused", redis->place.name, words[1]);
}

static bool all_know_all(const struct redis_side *side)
{
    for (unsigned i = 0; i < side->count; i++) {
        char *text = ask_text(&side->servers[i], (const char *const[]){"CLUSTER", "NODES", NULL});
        bool all = text != NULL && strstr(text, "handshake") == NULL;
        for (unsigned k = 0; k < side->count && all; k++)
            all = strstr(text, side->servers[k].id) != NULL;
        free(text);
        if (!all)
            return false;
    }
    return true;
}

static void give_slots(const struct redis_side *side, unsigned master)
{
    char first[8], last[8];
    snprintf(first, sizeof first, "%u", (unsigned)SLOTS * master / MASTERS);
    snprintf(last, sizeof last, "%u", (unsigned)SLOTS * (master + 1) / MASTERS - 1);
    must(&side->servers[master],
         (const char *const[]){"CLUSTER", "ADDSLOTSRANGE", first, last, NULL});
}

void nodes_join(struct redis_side *side)
{
    char port[8], epoch[16];
    snprintf(port, sizeof port, "%d", REDIS_PORT);
    for (unsigned i = 0; i < side->count; i++) {
        struct redis *redis = &side->servers[i];
        char *id = ask_text(redis, (const char *const[]){"CLUSTER", "MYID", NULL});
        test_check(id != NULL, "%s: CLUSTER MYID", redis->place.name);
        snprintf(redis->id, sizeof redis->id, "%s", id);
        free(id);
        snprintf(epoch, sizeof epoch, "%u", i + 1);
        must(redis, (const char *const[]){"CLUSTER", "SET-CONFIG-EPOCH", epoch, NULL});
        if (i < MASTERS)
            give_slots(side, i);
    }
    for (unsigned i = 1; i < side->count; i++)
        must(&side->servers[0],
             (const char *const[]){"CLUSTER", "MEET", side->servers[i].place.address, port, NULL});
    test_until(all_know_all(side), BEGIN_MS, "the nodes do not find each other");
    for (unsigned i = MASTERS; i < side->count; i++)
        must(&side->servers[i],
             (const char *const[]){"CLUSTER", "REPLICATE", side->servers[i - MASTERS].id, NULL});
    test_until(nodes_whole(side), BEGIN_MS, "the cluster does not begin");
}

/* ---- Mending open slots ------------------------------------------------------------------------
 */

static bool is_there(struct node_talk *talk, const char *name)
{
    struct reply reply = nodes_ask(talk, (const char *const[]){"EXISTS", name, NULL});
    return reply.type == ':' && reply.number == 1; /* ASK: it has gone */
}

/* From a node that does not serve its slot (any more). */
static void remove_there(struct node_talk *talk, const char *name)
{
    (void)nodes_ask(talk, (const char *const[]){"ASKING", NULL});
    (void)nodes_ask(talk, (const char *const[]){"DEL", name, NULL});
}

bool nodes_migrate(struct node_talk *from, const struct redis *to, const char *const *names,
                   size_t count)
{
    char port[8];
    const char *words[NODES_WORDS_MAX] = {"MIGRATE", to->place.address, port,  "", "0",
                                          "500",     "REPLACE",         "KEYS"};
    snprintf(port, sizeof port, "%d", REDIS_PORT);
    if (count > NODES_KEYS_MAX)
        count = NODES_KEYS_MAX;
    memcpy(words + 8, names, count * sizeof *names);
    words[8 + count] = NULL;
    return nodes_ask(from, words).type == '+';
}

size_t nodes_keys(struct node_talk *talk, uint16_t slot, size_t most, char *names[NODES_KEYS_MAX])
{
    char number[8], limit[8];
    size_t found = 0;
    snprintf(number, sizeof number, "%u", slot);
    snprintf(limit, sizeof limit, "%zu", most < NODES_KEYS_MAX ? most : NODES_KEYS_MAX);
    struct reply reply =
        nodes_ask(talk, (const char *const[]){"CLUSTER", "GETKEYSINSLOT", number, limit, NULL});
    int64_t count = reply.type == '*' ? reply.number : 0;
    for (int64_t i = 0; i < count; i++) {
        reply = client_reply(&talk->client);
        names[found++] = strndup(reply.text, reply.size);
    }
    return found;
}

void nodes_free_keys(char *names[NODES_KEYS_MAX], size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
}

/* The record of a plain key; NULL: it is a record itself, or one of the fleet's. */
static const char *record_of(const char *name)
{
    static names_pair back, pair;
    static char record[128];
    size_t size;
    const uint8_t *key = names_back(&back, PREFIX, (const uint8_t *)name, strlen(name), &size);
    if (key == NULL || names_of(&pair, PREFIX, key, size) != 0)
        return NULL;
    snprintf(record, sizeof record, "%.*s", (int)pair.record_size, (const char *)pair.record);
    return record;
}

/* A plain key goes with its record or not at all: where the owner has a record of it, that one is
 * newer than what lies here, because clients have been with the owner since. */
static void bring_back(struct node_talk *here, struct node_talk *owner, const struct redis *to,
                       const char *name)
{
    const char *record = record_of(name), *const both[] = {name, record};
    if (is_there(owner, record == NULL ? name : record)) {
        remove_there(here, name);
        if (record != NULL)
            remove_there(here, record);
    } else {
        (void)nodes_migrate(here, to, both, record == NULL ? 1 : 2);
    }
}

static void make_stable(struct node_talk *at, uint16_t slot)
{
    char number[8];
    snprintf(number, sizeof number, "%u", slot);
    (void)nodes_ask(at, (const char *const[]){"CLUSTER", "SETSLOT", number, "STABLE", NULL});
}

/* Plain keys first: whoever is left has no partner here. false: it could not be done. */
static bool empty(struct node_talk *here, struct node_talk *owner, const struct redis *to,
                  uint16_t slot)
{
    char *names[NODES_KEYS_MAX];
    for (unsigned round = 0; round < 20; round++) {
        size_t count = nodes_keys(here, slot, NODES_KEYS_MAX, names);
        bool plain = false;
        for (size_t i = 0; i < count; i++)
            plain = plain || record_of(names[i]) != NULL;
        for (size_t i = 0; i < count; i++)
            if (!plain || record_of(names[i]) != NULL)
                bring_back(here, owner, to, names[i]);
        nodes_free_keys(names, count);
        if (count == 0)
            return true;
    }
    return false;
}

/* Both ends know of the move: the rest goes the same way, and the slot with it. */
static void finish_move(struct node_talk *from, struct node_talk *to, const struct redis *target,
                        uint16_t slot)
{
    char *names[NODES_KEYS_MAX], number[8];
    for (size_t count = 1; count != 0;) {
        count = nodes_keys(from, slot, NODES_KEYS_MAX, names);
        bool good = count == 0 || nodes_migrate(from, target, (const char *const *)names, count);
        nodes_free_keys(names, count);
        if (!good)
            return;
    }
    snprintf(number, sizeof number, "%u", slot);
    const char *words[] = {"CLUSTER", "SETSLOT", number, "NODE", target->id, NULL};
    if (nodes_ask(to, words).type == '+')
        (void)nodes_ask(from, words);
}

static bool is_going(const struct node_view *view, uint16_t slot, unsigned to)
{
    for (unsigned i = 0; i < view->open_count; i++)
        if (view->open[i].slot == slot && !view->open[i].coming && view->open[i].other == (int)to)
            return true;
    return false;
}

static void mend_coming(const struct redis_side *side, unsigned here, uint16_t slot, unsigned owner,
                        const struct node_view *owners)
{
    struct node_talk at = {0}, there = {0};
    if (nodes_open(&at, &side->servers[here]) && nodes_open(&there, &side->servers[owner])) {
        if (here != owner && is_going(owners, slot, here))
            finish_move(&there, &at, &side->servers[here], slot);
        else if (here == owner || empty(&at, &there, &side->servers[owner], slot))
            make_stable(&at, slot);
    }
    nodes_close(&at);
    nodes_close(&there);
}

static bool comes_anywhere(const struct redis_side *side, uint16_t slot)
{
    static struct node_view view;
    for (unsigned i = 0; i < side->count; i++) {
        if (!nodes_look(side, &side->servers[i], &view))
            return true; /* it may */
        for (unsigned k = 0; k < view.open_count; k++)
            if (view.open[k].coming && view.open[k].slot == slot)
                return true;
    }
    return false;
}

static void mend_going(const struct redis_side *side, unsigned here, uint16_t slot)
{
    struct node_talk at;
    if (comes_anywhere(side, slot) || !nodes_open(&at, &side->servers[here]))
        return; /* its keys are elsewhere still */
    make_stable(&at, slot);
    nodes_close(&at);
}

/* ---- Mending views -----------------------------------------------------------------------------
 */

/* The one that says so of itself; -1: none does; -2: several, and their epochs decide. */
static int claimant(const struct redis_side *side, const struct node_view *views, unsigned slot)
{
    int found = -1;
    for (unsigned i = 0; i < side->count; i++)
        if (views[i].owner[slot] == i)
            found = found == -1 ? (int)i : -2;
    return found;
}

static bool is_master(const struct node_view *view, unsigned node)
{
    return memchr(view->owner, (int)node, sizeof view->owner) != NULL;
}

/* Slots that a broken move and a failover together have left with one who does not know it, or with
 * nobody: those who see it differently are told. */
static void mend_views(const struct redis_side *side, const struct node_view *views)
{
    bool changed[SERVERS_MAX] = {false};
    unsigned any = 0;
    while (any + 1 < side->count && !is_master(&views[any], any))
        any++;
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        char number[8];
        int of = claimant(side, views, slot);
        unsigned owner = of == -1 ? any : (unsigned)of;
        snprintf(number, sizeof number, "%hu", (unsigned short)slot);
        for (unsigned i = 0; i < side->count && of != -2; i++) {
            const char *words[] = {"CLUSTER", "SETSLOT", number, "NODE", side->servers[owner].id,
                                   NULL};
            if (views[i].owner[slot] == owner)
                continue;
            changed[owner] = true;
            if (is_master(&views[i], i))
                (void)redis_tell(&side->servers[i], words);
        }
    }
    for (unsigned i = 0; i < side->count; i++)
        if (changed[i]) /* replicas believe whoever has the highest */
            (void)redis_tell(&side->servers[i],
                             (const char *const[]){"CLUSTER", "BUMPEPOCH", NULL});
}

void nodes_mend(struct redis_side *side, bool views_too)
{
    static struct node_view views[SERVERS_MAX];
    for (unsigned i = 0; i < side->count; i++)
        if (!nodes_look(side, &side->servers[i], &views[i]))
            return;
    for (unsigned i = 0; i < side->count; i++)
        for (unsigned k = 0; k < views[i].open_count; k++)
            for (unsigned owner = 0; owner < side->count && views[i].open[k].coming; owner++)
                if (views[owner].owner[views[i].open[k].slot] == owner)
                    mend_coming(side, i, views[i].open[k].slot, owner, &views[owner]);
    for (unsigned i = 0; i < side->count; i++)
        for (unsigned k = 0; k < views[i].open_count; k++)
            if (!views[i].open[k].coming)
                mend_going(side, i, views[i].open[k].slot);
    if (views_too)
        mend_views(side, views);
}
