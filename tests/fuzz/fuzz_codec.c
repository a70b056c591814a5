/* fuzz_codec.c: replies as a hostile server sends them. Byte 0 to 3 choose the limits, byte 4 the
 * pieces in which the rest arrives. What comes out keeps the limits, does not depend on the pieces,
 * survives being written and read again, and takes memory in proportion to the limits alone.
 */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/codec.h"

#define SECRET "ERR" /* what errors of the corpus say */

struct text {
    char *bytes;
    size_t size, room;
};

static void put(struct text *out, const void *bytes, size_t size)
{
    if (size == 0)
        return;
    if (out->bytes == NULL || out->size + size > out->room) {
        out->room = (out->size + size) * 2;
        out->bytes = realloc(out->bytes, out->room);
        fuzz_check(out->bytes != NULL);
    }
    memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
}

static void put_line(struct text *out, char kind, long long number)
{
    char line[32];
    put(out, line, (size_t)snprintf(line, sizeof line, "%c%lld\r\n", kind, number));
}

/* The reply as Redis would have written it. */
static void write_reply(const reply *from, struct text *out)
{
    switch (from->kind) {
    case REPLY_STRING:
        put_line(out, '$', (long long)from->size);
        put(out, from->text, from->size);
        put(out, "\r\n", 2);
        break;
    case REPLY_ARRAY:
        put_line(out, '*', (long long)from->count);
        for (size_t i = 0; i < from->count; i++)
            write_reply(from->elements[i], out);
        break;
    case REPLY_INTEGER:
        put_line(out, ':', from->integer);
        break;
    case REPLY_NIL:
        put(out, "$-1\r\n", 5);
        break;
    case REPLY_STATUS:
    case REPLY_ERROR:
        put(out, from->kind == REPLY_STATUS ? "+" : "-", 1);
        put(out, from->text, from->size);
        put(out, "\r\n", 2);
        break;
    }
}

struct sum {
    size_t elements, bytes, depth;
};

static void weigh(const reply *from, size_t depth, struct sum *sum)
{
    sum->elements++;
    switch (from->kind) {
    case REPLY_STRING:
    case REPLY_STATUS:
    case REPLY_ERROR:
        fuzz_check(from->text != NULL && from->text[from->size] == '\0');
        fuzz_check(from->kind != REPLY_ERROR ||
                   (from->said != NULL && strlen(from->said) < CODEC_SAID_MAX &&
                    strstr(from->said, SECRET) == NULL));
        sum->bytes += from->size;
        break;
    case REPLY_ARRAY:
        sum->depth = depth > sum->depth ? depth : sum->depth;
        fuzz_check(from->elements != NULL || from->count == 0);
        for (size_t i = 0; i < from->count; i++) {
            fuzz_check(from->elements[i] != NULL);
            weigh(from->elements[i], depth + 1, sum);
        }
        break;
    case REPLY_INTEGER:
    case REPLY_NIL:
        break;
    default:
        fuzz_check(!"a kind of reply");
    }
}

/* Feed all in pieces of at most so many bytes; what was understood goes to out. false: broken. */
static bool understand(const uint8_t *data, size_t size, size_t piece, const codec_limits *limits,
                       struct text *out)
{
    size_t before = fuzz_memory();
    codec *self = codec_create(limits);
    fuzz_check(self != NULL);
    size_t most = 0;
    for (size_t at = 0; at < size && codec_error(self) == NULL; at += piece) {
        (void)codec_feed(self, data + at, size - at < piece ? size - at : piece);
        const reply *got;
        while ((got = codec_next(self)) != NULL) {
            struct sum sum = {0};
            weigh(got, 1, &sum);
            fuzz_check(sum.elements <= limits->max_elements);
            fuzz_check(sum.bytes <= limits->max_bytes);
            fuzz_check(sum.depth <= limits->max_depth);
            fuzz_check(codec_error(self) == NULL);
            size_t now = fuzz_memory();
            most = now > most ? now : most;
            write_reply(got, out);
        }
        size_t now = fuzz_memory() - (out->room < fuzz_memory() ? out->room : 0);
        most = now > most ? now : most;
    }
    bool sound = codec_error(self) == NULL;
    if (!sound) { /* for good */
        fuzz_check(!codec_feed(self, "+OK\r\n", 5));
        fuzz_check(codec_next(self) == NULL && codec_error(self) != NULL);
    }
    codec_destroy(&self);
    fuzz_check(self == NULL);
    /* what a reader may keep of one reply twice (buffer and arena), and of one feed */
    if (most > before)
        fuzz_check(most - before <
                   3 * limits->max_bytes + 3 * size +
                       limits->max_elements * (sizeof(reply) + 64 + 8 * limits->max_depth) +
                       (size_t)256 * 1024);
    return sound;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t pieces[] = {1, 2, 3, 7, 16, 64, 1000, 100000};
    if (size < 5)
        return 0;
    codec_limits limits = {.max_bytes = 16 + (size_t)data[0] * 256 + data[1],
                           .max_elements = 1 + data[2],
                           .max_depth = 1 + data[3] % 7,
                           .secrets = {SECRET, NULL}};
    size_t piece = pieces[data[4] % (sizeof pieces / sizeof *pieces)];
    struct text whole = {0}, again = {0}, dripped = {0};
    data += 5;
    size -= 5;
    bool sound = understand(data, size, size == 0 ? 1 : size, &limits, &whole);
    bool sound_dripped = understand(data, size, piece, &limits, &dripped);
    if (sound && sound_dripped) {
        fuzz_check(whole.size == dripped.size);
        fuzz_check(whole.size == 0 || memcmp(whole.bytes, dripped.bytes, whole.size) == 0);
    }
    /* written anew it may only be shorter (":007", "*-1"), so it keeps the limits, too; but what
     * came whole can be too long a line in drips */
    codec_limits generous = {.max_bytes = SIZE_MAX / 4,
                             .max_elements = UINT32_MAX / 2,
                             .max_depth = 7,
                             .secrets = {SECRET, "RR"}};
    fuzz_check(
        understand((const uint8_t *)whole.bytes, whole.size, whole.size + 1, &generous, &again));
    fuzz_check(whole.size == again.size);
    fuzz_check(whole.size == 0 || memcmp(whole.bytes, again.bytes, whole.size) == 0);
    free(whole.bytes);
    free(again.bytes);
    free(dripped.bytes);
    return 0;
}
