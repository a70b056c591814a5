/* slots.c: see slots.h. */
#include "daemon/redis/slots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/redis/names.h"

#define NODE_FIELDS 2 /* of a node in CLUSTER SLOTS: host, port; id and more may follow */

/* ---- CLUSTER SLOTS ----------------------------------------------------------------------------
 */

/* Among the names and values that may stand at a node's end, the value of one. */
static const reply *extra_field(const reply *node, const char *name)
{
    const reply *fields = node->count > 3 ? node->elements[3] : NULL;
    if (fields == NULL || fields->kind != REPLY_ARRAY)
        return NULL;
    for (size_t i = 0; i + 1 < fields->count; i += 2)
        if (fields->elements[i]->kind == REPLY_STRING && reply_text_is(fields->elements[i], name) &&
            fields->elements[i + 1]->kind == REPLY_STRING)
            return fields->elements[i + 1];
    return NULL;
}

/* Where a node listens. Without a host of its own it is where the one that was asked is; "?" says
 * that it should have a name and has none: then its address counts. */
static bool read_place(const reply *node, const url_place *asked, url_place *out)
{
    if (node->kind != REPLY_ARRAY || node->count < NODE_FIELDS ||
        node->elements[1]->kind != REPLY_INTEGER)
        return false;
    const reply *host = node->elements[0];
    long long port = node->elements[1]->integer;
    if (host->kind == REPLY_STRING && reply_text_is(host, "?"))
        host = extra_field(node, "ip");
    if (host == NULL)
        return false;
    if (host->kind == REPLY_NIL || (host->kind == REPLY_STRING && host->size == 0))
        return url_place_set(out, asked->host, strlen(asked->host), port);
    return host->kind == REPLY_STRING && url_place_set(out, host->text, host->size, port);
}

int slots_find(const slots_map *map, const url_place *place)
{
    for (size_t i = 0; i < map->node_count; i++)
        if (url_place_same(&map->nodes[i], place))
            return (int)i;
    return -1;
}

static int add_node(slots_map *map, const url_place *place)
{
    int found = slots_find(map, place);
    if (found >= 0 || map->node_count == SLOTS_NODES_MAX)
        return found;
    map->nodes[map->node_count] = *place;
    return (int)map->node_count++;
}

/* {first, last, master, replicas...}; NULL, or what is wrong with it. */
static const char *read_range(const reply *range, const url_place *asked, slots_map *out)
{
    url_place place;
    if (range->kind != REPLY_ARRAY || range->count < 3 ||
        range->elements[0]->kind != REPLY_INTEGER || range->elements[1]->kind != REPLY_INTEGER)
        return "is no range of slots";
    long long first = range->elements[0]->integer, last = range->elements[1]->integer;
    if (first < 0 || last < first || last >= SLOTS_COUNT)
        return "names slots that there are not";
    if (!read_place(range->elements[2], asked, &place))
        return "names a node without an address";
    int node = add_node(out, &place);
    if (node < 0)
        return "has more nodes than the limit";
    for (long long slot = first; slot <= last; slot++) {
        if (out->owner[slot] != SLOTS_NOWHERE)
            return "gives a slot to two nodes";
        out->owner[slot] = (uint16_t)node;
        out->covered++;
    }
    return NULL;
}

bool slots_read(const reply *got, const url_place *asked, slots_map *out, char *error,
                size_t error_size)
{
    out->node_count = out->covered = 0;
    for (size_t i = 0; i < SLOTS_COUNT; i++)
        out->owner[i] = SLOTS_NOWHERE;
    if (got->kind == REPLY_ERROR) {
        snprintf(error, error_size, "CLUSTER SLOTS: %.200s", got->said);
        return false;
    }
    if (got->kind != REPLY_ARRAY) {
        snprintf(error, error_size, "CLUSTER SLOTS was answered with something else");
        return false;
    }
    for (size_t i = 0; i < got->count; i++) {
        const char *wrong = read_range(got->elements[i], asked, out);
        if (wrong != NULL) {
            snprintf(error, error_size, "CLUSTER SLOTS: entry %zu %s", i, wrong);
            return false;
        }
    }
    if (out->covered == 0)
        snprintf(error, error_size, "the node knows of nobody that serves a slot");
    return out->covered != 0;
}

bool slots_same_nodes(const slots_map *a, const slots_map *b, uint16_t place_of[SLOTS_NODES_MAX])
{
    if (a->node_count != b->node_count) /* each stands in a map once */
        return false;
    for (size_t i = 0; i < b->node_count; i++) {
        int found = slots_find(a, &b->nodes[i]);
        if (found < 0)
            return false;
        place_of[i] = (uint16_t)found;
    }
    return true;
}

/* ---- Redirections -----------------------------------------------------------------------------
 */

static bool read_number(const char **at, long long max, long long *out)
{
    const char *from = *at;
    *out = 0;
    while (**at >= '0' && **at <= '9' && *out <= max)
        *out = *out * 10 + (*(*at)++ - '0');
    return *at != from && *out <= max;
}

/* "MOVED 3999 127.0.0.1:6381", "ASK 3999 name:6381", "MOVED 3999 :6381", "ASK 3999 ::1:6381" */
bool slots_redirected(const reply *error, const url_place *asked, slots_redirection *out)
{
    bool ask = reply_error_is(error, "ASK");
    if (!ask && !reply_error_is(error, "MOVED"))
        return false;
    const char *at = error->text + (ask ? 3 : 5);
    long long slot, port;
    if (*at++ != ' ' || !read_number(&at, SLOTS_COUNT - 1, &slot) || *at++ != ' ')
        return false;
    const char *colon = strrchr(at, ':'), *end = colon == NULL ? NULL : colon + 1;
    if (end == NULL || !read_number(&end, UINT16_MAX, &port) || *end != 0)
        return false;
    out->ask = ask;
    out->slot = (uint16_t)slot;
    if (colon == at)
        return url_place_set(&out->to, asked->host, strlen(asked->host), port);
    return url_place_set(&out->to, at, (size_t)(colon - at), port);
}

/* ---- Commands ---------------------------------------------------------------------------------
 */

static bool is_word(const char *argument, size_t size, const char *word)
{
    return size == strlen(word) && strncasecmp(argument, word, size) == 0;
}

uint16_t slots_of_command(int count, const char *const *arguments, const size_t *sizes)
{
    static const char *const counted[] = {"EVALSHA", "EVAL",
                                          "FCALL"}; /* what, how many keys, keys */
    int key = 1;
    for (size_t i = 0; count > 0 && i < sizeof counted / sizeof *counted; i++)
        if (is_word(arguments[0], sizes[0], counted[i]))
            key = count > 2 && !is_word(arguments[2], sizes[2], "0") ? 3 : count;
    if (key >= count)
        return SLOTS_NOWHERE;
    return names_slot((const uint8_t *)arguments[key], sizes[key]);
}
