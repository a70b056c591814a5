/* codec.c: see codec.h. The only file that includes hiredis.h.
 *
 * hiredis's reader is given functions of our own, which build replies in an arena and refuse what
 * passes a limit. What it buffers without building anything (a long line, a bulk string that never
 * ends) is limited by counting the bytes fed since the last whole reply.
 */
#include "daemon/redis/codec.h"

#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#define FIRST_CHUNK ((size_t)64 * 1024)
#define FEED_PIECE ((size_t)16 * 1024)
#define LINE_MAX_BYTES ((size_t)64 * 1024) /* of a status, error or number */
#define HEADER_MAX_BYTES ((size_t)64)      /* of a "$..." or "*..." line */

struct chunk {
    struct chunk *next;
    size_t size, used;
    alignas(max_align_t) unsigned char bytes[];
};

struct codec {
    redisReader *reader;
    codec_limits limits;
    struct chunk *chunks; /* the newest first; the oldest is kept */
    size_t pending;       /* bytes fed since the last whole reply began */
    uint32_t elements;    /* of the present reply */
    bool broken;
    char error[160];
};

static void break_it(codec *self, const char *why)
{
    if (self->broken)
        return;
    self->broken = true;
    snprintf(self->error, sizeof self->error, "%s", why);
}

static void *take(codec *self, size_t size)
{
    struct chunk *chunk = self->chunks;
    size = (size + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    if (chunk == NULL || chunk->size - chunk->used < size) {
        size_t room = size > FIRST_CHUNK ? size : FIRST_CHUNK;
        chunk = malloc(sizeof *chunk + room);
        if (chunk == NULL) {
            break_it(self, "no memory for a reply");
            return NULL;
        }
        chunk->next = self->chunks;
        chunk->size = room;
        chunk->used = 0;
        self->chunks = chunk;
    }
    void *memory = chunk->bytes + chunk->used;
    chunk->used += size;
    return memory;
}

static void forget_reply(codec *self)
{
    while (self->chunks != NULL &&
           (self->chunks->next != NULL || self->chunks->size > FIRST_CHUNK)) {
        struct chunk *next = self->chunks->next;
        free(self->chunks);
        self->chunks = next;
    }
    if (self->chunks != NULL)
        self->chunks->used = 0;
    self->elements = 0;
}

/* A new reply object, entered into its parent. */
static reply *make(const redisReadTask *task, enum reply_kind kind)
{
    codec *self = task->privdata;
    if (self->broken)
        return NULL;
    if (++self->elements > self->limits.max_elements) {
        break_it(self, "a reply has more elements than the limit");
        return NULL;
    }
    reply *made = take(self, sizeof *made);
    if (made == NULL)
        return NULL;
    memset(made, 0, sizeof *made);
    made->kind = kind;
    if (task->parent != NULL)
        ((reply *)task->parent->obj)->elements[task->idx] = made;
    return made;
}

static void *make_string(const redisReadTask *task, char *text, size_t size)
{
    enum reply_kind kind = task->type == REDIS_REPLY_ERROR    ? REPLY_ERROR
                           : task->type == REDIS_REPLY_STATUS ? REPLY_STATUS
                                                              : REPLY_STRING;
    reply *made = make(task, kind);
    if (made == NULL)
        return NULL;
    char *copy = take(task->privdata, size + 1);
    if (copy == NULL)
        return NULL;
    memcpy(copy, text, size);
    copy[size] = 0;
    made->text = copy;
    made->size = size;
    if (kind == REPLY_ERROR) {
        codec *self = task->privdata;
        size_t room = size < CODEC_SAID_MAX / 4 ? 3 * size + 8 : CODEC_SAID_MAX; /* "***" for one */
        char *said = take(self, room);
        if (said == NULL)
            return NULL;
        codec_mask(copy, self->limits.secrets, said, room);
        made->said = said;
    }
    return made;
}

static void *make_array(const redisReadTask *task, int count)
{
    codec *self = task->privdata;
    uint32_t depth = 1;
    for (const redisReadTask *up = task->parent; up != NULL; up = up->parent)
        depth++;
    if (depth > self->limits.max_depth) {
        break_it(self, "a reply is nested deeper than the limit");
        return NULL;
    }
    if (count < 0 || (uint32_t)count > self->limits.max_elements - self->elements) {
        break_it(self, "a reply has more elements than the limit");
        return NULL;
    }
    reply *made = make(task, REPLY_ARRAY);
    if (made == NULL)
        return NULL;
    made->elements = take(self, sizeof(reply *) * ((size_t)count + 1));
    if (made->elements == NULL)
        return NULL;
    memset(made->elements, 0, sizeof(reply *) * ((size_t)count + 1));
    made->count = (size_t)count;
    return made;
}

static void *make_integer(const redisReadTask *task, long long value)
{
    reply *made = make(task, REPLY_INTEGER);
    if (made != NULL)
        made->integer = value;
    return made;
}

static void *make_nil(const redisReadTask *task)
{
    return make(task, REPLY_NIL);
}

static void forget(void *object)
{
    (void)object; /* the arena is emptied as a whole */
}

static redisReplyObjectFunctions functions = {make_string, make_array, make_integer, make_nil,
                                              forget};

codec *codec_create(const codec_limits *limits)
{
    codec *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->limits = *limits;
    self->reader = redisReaderCreateWithFunctions(&functions);
    if (self->reader == NULL) {
        free(self);
        return NULL;
    }
    self->reader->privdata = self;
    return self;
}

void codec_destroy(codec **self)
{
    if (self == NULL || *self == NULL)
        return;
    redisReaderFree((*self)->reader);
    while ((*self)->chunks != NULL) {
        struct chunk *next = (*self)->chunks->next;
        free((*self)->chunks);
        (*self)->chunks = next;
    }
    free(*self);
    *self = NULL;
}

bool codec_feed(codec *self, const void *bytes, size_t size)
{
    const char *at = bytes;
    self->pending += size;
    while (size > 0 && !self->broken) {
        size_t piece = size > FEED_PIECE ? FEED_PIECE : size;
        if (redisReaderFeed(self->reader, at, piece) != REDIS_OK)
            break_it(self, "no memory for a reply");
        at += piece;
        size -= piece;
    }
    return !self->broken;
}

/* What is buffered and not yet a reply must be able to become one: no endless lines, which the
 * reader would search anew with every byte that drips in. */
static void check_unfinished(codec *self)
{
    const redisReader *reader = self->reader;
    size_t size = reader->len - reader->pos;
    if (self->pending > self->limits.max_bytes) {
        break_it(self, "a reply is larger than the limit");
        return;
    }
    if (size == 0)
        return;
    char kind = reader->buf[reader->pos];
    size_t limit = HEADER_MAX_BYTES;
    if (reader->ridx >= 0 && reader->rstack[reader->ridx].type > 0) {
        /* the first byte was taken already; what follows is the line */
        int type = reader->rstack[reader->ridx].type;
        kind = type == REDIS_REPLY_STRING ? '$' : type == REDIS_REPLY_ARRAY ? '*' : '+';
    }
    if (kind == '+' || kind == '-' || kind == ':')
        limit = LINE_MAX_BYTES;
    if (size > limit && memchr(reader->buf + reader->pos, '\n', limit) == NULL)
        break_it(self, "a line of a reply does not end");
}

const reply *codec_next(codec *self)
{
    void *object = NULL;
    if (self->broken)
        return NULL;
    if (self->reader->reply == NULL)
        forget_reply(self);
    if (redisReaderGetReply(self->reader, &object) != REDIS_OK) {
        char why[sizeof self->error];
        snprintf(why, sizeof why, "not Redis's protocol: %s", self->reader->errstr);
        break_it(self, why);
        return NULL;
    }
    if (object == NULL) {
        check_unfinished(self);
        return NULL;
    }
    size_t rest = self->reader->len - self->reader->pos;
    if (self->pending - rest > self->limits.max_bytes) { /* it came in one piece */
        break_it(self, "a reply is larger than the limit");
        return NULL;
    }
    self->pending = rest;
    return object;
}

const char *codec_error(const codec *self)
{
    return self->broken ? self->error : NULL;
}

/* A line that says how many or how long. */
static char *put_header(char *at, char kind, size_t number)
{
    char digits[20];
    size_t used = sizeof digits;
    do
        digits[--used] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    *at++ = kind;
    memcpy(at, digits + used, sizeof digits - used);
    at += sizeof digits - used;
    memcpy(at, "\r\n", 2);
    return at + 2;
}

/* By ourselves: hiredis prints every length with printf, or lets a string grow by it, and takes ten
 * times as long, which whoever waits for the reply would notice. */
size_t codec_command(char **out, int count, const char *const *arguments, const size_t *sizes)
{
    enum { HEADER = 1 + 20 + 2 };
    size_t room = HEADER;
    for (int i = 0; i < count; i++)
        room += HEADER + sizes[i] + 2;
    char *at = *out = malloc(room);
    if (at == NULL)
        return 0;
    at = put_header(at, '*', (size_t)count);
    for (int i = 0; i < count; i++) {
        at = put_header(at, '$', sizes[i]);
        if (sizes[i] != 0)
            memcpy(at, arguments[i], sizes[i]);
        memcpy(at + sizes[i], "\r\n", 2);
        at += sizes[i] + 2;
    }
    return (size_t)(at - *out);
}

void codec_free_command(char *command)
{
    free(command);
}

bool reply_error_is(const reply *self, const char *word)
{
    size_t size = strlen(word);
    return self->kind == REPLY_ERROR && self->size >= size && memcmp(self->text, word, size) == 0 &&
           (self->size == size || self->text[size] == ' ');
}

/* The secret that the text begins with; the longest, where one begins with the other. 0: none. */
static size_t secret_at(const char *text, const char *const secrets[CODEC_SECRETS])
{
    size_t longest = 0;
    for (size_t i = 0; i < CODEC_SECRETS; i++) {
        size_t size = secrets[i] != NULL ? strlen(secrets[i]) : 0;
        if (size > longest && strncmp(text, secrets[i], size) == 0)
            longest = size;
    }
    return longest;
}

void codec_mask(const char *text, const char *const secrets[CODEC_SECRETS], char *out, size_t size)
{
    const char *at = text, *end = strstr(at, ", with args");
    size_t used = 0;
    if (end == NULL)
        end = at + strlen(at);
    while (at < end && used + 4 < size) {
        size_t secret = secret_at(at, secrets);
        if (secret != 0) {
            memcpy(out + used, "***", 3);
            used += 3;
            at += secret;
        } else {
            out[used++] = *at++;
        }
    }
    out[used] = 0;
}

bool reply_text_is(const reply *self, const char *text)
{
    return (self->kind == REPLY_STRING || self->kind == REPLY_STATUS) &&
           self->size == strlen(text) && memcmp(self->text, text, self->size) == 0;
}
