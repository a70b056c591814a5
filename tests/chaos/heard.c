/* heard.c: see heard.h. */
#include "tests/chaos/heard.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/names.h"
#include "lib/replica.h"

static void add(struct heard *out, const void *name, size_t size, uint64_t clock)
{
    if (size == 0 || size >= MANY_NAME)
        return; /* none of this test's */
    test_check(out->count < HEARD_MAX, "too many invalidations to compare");
    struct heard_mark *mark = &out->marks[out->count++];
    memcpy(mark->name, name, size);
    mark->name[size] = '\0';
    mark->clock = clock;
}

static int compare_names(const void *a, const void *b)
{
    const struct heard_mark *one = a, *other = b;
    return strcmp(one->name, other->name);
}

/* What is written meanwhile may come twice in a walk: the one that is found has the later clock or
 * the earlier, and whoever needs the later one looks again. */
static void sort(struct heard *heard)
{
    qsort(heard->marks, heard->count, sizeof *heard->marks, compare_names);
}

bool heard_by_host(struct host *host, struct heard *out)
{
    static replica_marks marks;
    memset(&marks, 0, sizeof marks);
    out->count = 0;
    for (bool restart = true; !marks.end; restart = false) {
        if (replica_marks_read(host->map, &marks, true, true, restart) != LARDER_OK)
            return false;
        for (size_t i = 0; i < marks.count; i++)
            add(out, marks.marks[i].name, marks.marks[i].name_size, marks.marks[i].clock);
    }
    sort(out);
    return true;
}

bool heard_by_redis(const struct redis_side *side, struct heard *out)
{
    char set[NAMES_FLEET_MAX], name[MANY_NAME], text[24];
    struct client client;
    out->count = 0;
    names_fleet(PREFIX, "marks", set, sizeof set);
    if (!client_connect(&client, &redis_of(side, set, strlen(set))->server))
        return false;
    struct reply reply = client_words(&client, 2, (const char *const[]){"HGETALL", set});
    int64_t count = reply.type == '*' ? reply.number : -1;
    for (int64_t i = 0; i + 1 < count; i += 2) {
        uint64_t clock = 0;
        reply = client_reply(&client);
        size_t size = reply.size < sizeof name ? reply.size : 0;
        memcpy(name, reply.text, size);
        reply = client_reply(&client);
        memset(text, 0, sizeof text);
        memcpy(text, reply.text, reply.size < sizeof text ? reply.size : 0);
        if (sscanf(text, "%16" SCNx64, &clock) == 1)
            add(out, name, size, clock);
    }
    client_close(&client);
    sort(out);
    return count >= 0;
}

uint64_t heard_clock(const struct heard *heard, const char *name)
{
    struct heard_mark wanted = {.clock = 0};
    snprintf(wanted.name, sizeof wanted.name, "%s", name);
    const struct heard_mark *found =
        bsearch(&wanted, heard->marks, heard->count, sizeof *heard->marks, compare_names);
    return found == NULL ? 0 : found->clock;
}

/* The floor that stands for what a table had no room for; of groups and tags a map's own, too. */
static uint64_t known(const struct heard *heard, const char *name)
{
    const char *const standing[] = {name, "c", name[0] == 'm' ? "F" : "A",
                                    name[0] == 'm' ? "f" : "A"};
    uint64_t newest = 0;
    for (size_t i = 0; i < sizeof standing / sizeof *standing; i++) {
        uint64_t clock = heard_clock(heard, standing[i]);
        newest = clock > newest ? clock : newest;
    }
    return newest;
}

uint64_t heard_lacks(const struct heard *heard, const struct board *board, const char *place,
                     FILE *told)
{
    uint64_t lacks = 0;
    for (unsigned i = 0; i < NOTES; i++) {
        const struct many_note *note = &board->notes[i];
        char name[MANY_NAME];
        if (atomic_load(&note->done_ms) == 0)
            continue;
        many_note_name(note, name);
        uint64_t clock = known(heard, name);
        if (clock > note->seen)
            continue;
        lacks++;
        if (told != NULL)
            fprintf(told,
                    "%s knows of %s up to %" PRIx64 ", which worker %u invalidated (%s %" PRIu32
                    ") after %" PRIx64 "\n",
                    place, name, clock, note->worker, many_kind_name(note->kind), note->number,
                    note->seen);
    }
    return lacks;
}
