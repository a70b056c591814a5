/* fuzz_slots.c: what a hostile node says of a cluster: the reply to CLUSTER SLOTS and redirections,
 * as bytes of the protocol. A map that is taken is whole: each slot has one node of it or none,
 * each node stands in it once, and written as a node would say it, it is read as the same.
 */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/slots.h"

static url_place asked = {.host = "node.example", .port = 7000};

static bool terminated(const char *text, size_t room)
{
    return memchr(text, 0, room) != NULL;
}

static void check_place(const url_place *place)
{
    fuzz_check(place->port != 0 && place->path[0] == 0 && place->host[0] != 0);
    fuzz_check(terminated(place->host, sizeof place->host));
}

static void check_map(const slots_map *map)
{
    size_t covered = 0;
    fuzz_check(map->node_count > 0 && map->node_count <= SLOTS_NODES_MAX);
    for (size_t i = 0; i < map->node_count; i++) {
        check_place(&map->nodes[i]);
        fuzz_check(slots_find(map, &map->nodes[i]) == (int)i);
    }
    for (size_t i = 0; i < SLOTS_COUNT; i++) {
        fuzz_check(map->owner[i] == SLOTS_NOWHERE || map->owner[i] < map->node_count);
        covered += map->owner[i] != SLOTS_NOWHERE;
    }
    fuzz_check(covered == map->covered && covered > 0);
}

/* As a node says it, from the last slot to the first. */
static void say(const slots_map *map, FILE *out)
{
    size_t ranges = 0;
    for (size_t i = 0; i < SLOTS_COUNT; i++)
        ranges += map->owner[i] != SLOTS_NOWHERE && (i == 0 || map->owner[i] != map->owner[i - 1]);
    (void)fprintf(out, "*%zu\r\n", ranges);
    for (size_t last = SLOTS_COUNT; last-- > 0;) {
        size_t first = last;
        if (map->owner[last] == SLOTS_NOWHERE)
            continue;
        while (first > 0 && map->owner[first - 1] == map->owner[last])
            first--;
        const url_place *node = &map->nodes[map->owner[last]];
        (void)fprintf(out, "*3\r\n:%zu\r\n:%zu\r\n*2\r\n$%zu\r\n%s\r\n:%u\r\n", first, last,
                      strlen(node->host), node->host, (unsigned)node->port);
        last = first;
    }
}

static codec *make_codec(void)
{
    static const codec_limits limits = {
        .max_bytes = (size_t)8 << 20, .max_elements = 1u << 20, .max_depth = 5};
    codec *self = codec_create(&limits);
    fuzz_check(self != NULL);
    return self;
}

static void check_again(const slots_map *map)
{
    static slots_map again;
    uint16_t place_of[SLOTS_NODES_MAX];
    char *text = NULL, error[200];
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    fuzz_check(out != NULL);
    say(map, out);
    fuzz_check(fclose(out) == 0);
    codec *self = make_codec();
    fuzz_check(codec_feed(self, text, size));
    const reply *got = codec_next(self);
    fuzz_check(got != NULL && slots_read(got, &asked, &again, error, sizeof error));
    check_map(&again);
    fuzz_check(again.covered == map->covered && slots_same_nodes(map, &again, place_of));
    for (size_t i = 0; i < SLOTS_COUNT; i++)
        fuzz_check(again.owner[i] == SLOTS_NOWHERE ? map->owner[i] == SLOTS_NOWHERE
                                                   : map->owner[i] == place_of[again.owner[i]]);
    codec_destroy(&self);
    free(text);
}

static void one_reply(const reply *got)
{
    static slots_map map;
    char error[200] = "", tiny[8] = "";
    slots_redirection to;
    if (slots_read(got, &asked, &map, error, sizeof error)) {
        check_map(&map);
        check_again(&map);
    } else {
        fuzz_check(error[0] != 0 && terminated(error, sizeof error));
        fuzz_check(!slots_read(got, &asked, &map, tiny, sizeof tiny));
        fuzz_check(terminated(tiny, sizeof tiny));
    }
    if (slots_redirected(got, &asked, &to)) {
        fuzz_check(got->kind == REPLY_ERROR && to.slot < SLOTS_COUNT);
        check_place(&to.to);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    codec *self = make_codec();
    const reply *got;
    if (codec_feed(self, data, size))
        while ((got = codec_next(self)) != NULL)
            one_reply(got);
    codec_destroy(&self);
    return 0;
}
