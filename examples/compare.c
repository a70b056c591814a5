/* compare.c: does Redis hold exactly what the map holds? Every live entry of the map: the same
 * bytes, the same expiry to the millisecond, the same version in its record; an entry "known
 * absent" has a record and no value; and under the prefix Redis has no key that the map does not
 * have. It speaks to Redis by itself and builds the names by itself (doc/protocol.md), so that it
 * shares no mistake with larderd. It only reads. Where both are in use meanwhile, it looks again
 * until they agree or its time is up.
 *
 *     compare --dir DIR --map NAME --redis SOCKET --prefix PREFIX [--wait MS] [--records]
 *
 * With --records values are not read, only their presence, expiry and version. Prints one line;
 * exit status 0: they agree, 1: they do not, 2: usage, 3: one cannot be read.
 */
#include <errno.h>
#include <getopt.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "larder.h"

#define BATCH 64          /* entries a round trip */
#define PAUSE_MS 100      /* between two looks */
#define TIMEOUT_S 5       /* for an answer of Redis */
#define NAMES_MAX 4000000 /* entries of a map that is compared */

typedef struct name { /* of a plain key in Redis */
    char *text;
    size_t size;
} name;

typedef struct comparison {
    const char *dir, *map, *socket, *prefix;
    int64_t wait_ms;
    bool records_only;
    larder *cache;
    redisContext *redis;
    name *names; /* of all live entries that have a value */
    size_t name_count, name_capacity;
    uint64_t equal, absent, passed_over, missing, different, extra;
    char first[768]; /* the first difference, in words */
} comparison;

static int64_t clock_ms(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- Names in Redis (doc/protocol.md) ------------------------------------------------------- */

static bool has_tag(const char *text, size_t size)
{
    const char *open = memchr(text, '{', size);
    const char *close = open == NULL ? NULL : memchr(open, '}', size - (size_t)(open - text));
    return close != NULL && close > open + 1;
}

/* "%7B" or "%7D" with any number of "25" after the percent sign. */
static bool has_escape(const char *text, size_t size)
{
    for (const char *at = memchr(text, '%', size), *end = text + size; at != NULL;
         at = memchr(at + 1, '%', (size_t)(end - at - 1))) {
        const char *code = at + 1;
        while (end - code > 2 && memcmp(code, "25", 2) == 0)
            code += 2;
        if (end - code >= 2 && code[0] == '7' && (code[1] == 'B' || code[1] == 'D'))
            return true;
    }
    return false;
}

/* The name of prefix + key; .text NULL: no memory. */
static name name_of(const char *prefix, const void *key, size_t key_size)
{
    size_t size = strlen(prefix) + key_size, used = 0;
    char *plain = malloc(size + 1), *out = malloc(size * 3 + 1);
    if (plain == NULL || out == NULL) {
        free(plain);
        free(out);
        return (name){0};
    }
    memcpy(plain, prefix, strlen(prefix));
    memcpy(plain + strlen(prefix), key, key_size);
    bool braces = memchr(plain, '{', size) != NULL || memchr(plain, '}', size) != NULL;
    bool escape = !has_tag(plain, size) && (braces || has_escape(plain, size));
    for (size_t i = 0; i < size; i++) {
        if (escape && strchr("{}%", plain[i]) != NULL && plain[i] != '\0')
            used += (size_t)sprintf(out + used, "%%%02X", (unsigned char)plain[i]);
        else
            out[used++] = plain[i];
    }
    free(plain);
    return (name){.text = out, .size = used};
}

/* The name of its version record; .text NULL: no memory. */
static name record_of(const name *key)
{
    name record = {.text = malloc(key->size * 2 + 5)};
    if (record.text == NULL)
        return record;
    const char *tag = key->text;
    size_t tag_size = key->size;
    bool tagged = has_tag(key->text, key->size);
    if (tagged) {
        tag = (const char *)memchr(key->text, '{', key->size) + 1;
        tag_size = (size_t)((const char *)memchr(tag, '}', key->size) - tag);
    }
    memcpy(record.text, "v:{", 3);
    memcpy(record.text + 3, tag, tag_size);
    record.text[3 + tag_size] = '}';
    record.size = tag_size + 4;
    if (tagged) {
        memcpy(record.text + record.size, key->text, key->size);
        record.size += key->size;
    }
    return record;
}

static int name_order(const void *a, const void *b)
{
    const name *left = a, *right = b;
    size_t shorter = left->size < right->size ? left->size : right->size;
    int order = memcmp(left->text, right->text, shorter);
    if (order != 0)
        return order;
    return left->size < right->size ? -1 : left->size > right->size;
}

/* ---- Differences ---------------------------------------------------------------------------- */

__attribute__((format(printf, 5, 6))) static void differ(comparison *self, uint64_t *counter,
                                                         const void *key, size_t key_size,
                                                         const char *format, ...)
{
    (*counter)++;
    if (self->first[0] != '\0')
        return;
    char shown[257];
    size_t size = key_size < sizeof shown - 1 ? key_size : sizeof shown - 1;
    for (size_t i = 0; i < size; i++) {
        char letter = ((const char *)key)[i];
        shown[i] = letter;
        if (letter < 0x20 || letter > 0x7e)
            shown[i] = '?';
    }
    shown[size] = '\0';
    int used = snprintf(self->first, sizeof self->first, "%s: ", shown);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(self->first + used, sizeof self->first - (size_t)used, format, arguments);
    va_end(arguments);
}

static bool command(comparison *self, const char *verb, const name *what)
{
    const char *words[] = {verb, what->text};
    const size_t sizes[] = {strlen(verb), what->size};
    return redisAppendCommandArgv(self->redis, 2, words, sizes) == REDIS_OK;
}

/* The next reply, NULL: the connection failed. */
static redisReply *reply(comparison *self)
{
    void *got = NULL;
    return redisGetReply(self->redis, &got) == REDIS_OK ? got : NULL;
}

/* "1" clock:16 node:8 kind:1 ... : is it this version and kind? */
static bool record_matches(const redisReply *record, const larder_version *version, char kind)
{
    char expected[32];
    int size = snprintf(expected, sizeof expected, "1%016" PRIx64 "%08" PRIx32 "%c", version->clock,
                        version->node, kind);
    return record->type == REDIS_REPLY_STRING && record->len > (size_t)size &&
           strncasecmp(record->str, expected, (size_t)size) == 0;
}

static bool item_negative(const larder_item *item)
{
    return item->outcome == LARDER_ABSENT || (item->info.flags & LARDER_NEGATIVE) != 0;
}

/* One entry against what Redis answered to GET (or EXISTS), PEXPIRETIME and GET of its record. */
static void item_compare(comparison *self, const larder_item *item, const redisReply *value,
                         const redisReply *expiry, const redisReply *record)
{
    bool negative = item_negative(item);
    bool there = self->records_only ? value->type == REDIS_REPLY_INTEGER && value->integer == 1
                                    : value->type == REDIS_REPLY_STRING;
    int64_t expires_at = item->info.expires_ms == INT64_MAX ? -1 : item->info.expires_ms;
    if ((item->info.flags & LARDER_LOCAL) != 0 ||
        item->info.expires_ms <= clock_ms(CLOCK_REALTIME)) {
        self->passed_over++; /* it does not travel, or expired while we looked */
    } else if (!record_matches(record, &item->info.version, negative ? '2' : '1')) {
        uint64_t *counter = record->type == REDIS_REPLY_NIL ? &self->missing : &self->different;
        differ(
            self, counter, item->key, item->key_size, "its record in Redis is %s, not %016" PRIx64,
            record->type == REDIS_REPLY_STRING ? record->str : "missing", item->info.version.clock);
    } else if (negative && there) {
        differ(self, &self->different, item->key, item->key_size,
               "known absent here, but Redis has a value");
    } else if (negative) {
        self->absent++;
    } else if (!there) {
        differ(self, &self->missing, item->key, item->key_size, "Redis has no value");
    } else if (!self->records_only && (value->len != item->value_size ||
                                       memcmp(value->str, item->value, item->value_size) != 0)) {
        differ(self, &self->different, item->key, item->key_size,
               "Redis has another value (%zu bytes, here %zu)", value->len, item->value_size);
    } else if (expiry->type != REDIS_REPLY_INTEGER || expiry->integer != expires_at) {
        differ(self, &self->different, item->key, item->key_size,
               "it expires at %lld in Redis, at %" PRId64 " here", expiry->integer, expires_at);
    } else {
        self->equal++;
    }
}

static bool names_add(comparison *self, name added)
{
    if (self->name_count == self->name_capacity) {
        size_t larger = self->name_capacity == 0 ? 4096 : self->name_capacity * 2;
        name *moved =
            larger > NAMES_MAX * 2 ? NULL : reallocarray(self->names, larger, sizeof *self->names);
        if (moved == NULL) {
            free(added.text);
            return false;
        }
        self->names = moved;
        self->name_capacity = larger;
    }
    self->names[self->name_count++] = added;
    return true;
}

/* Ask Redis for all of a batch in one go, and compare. false: Redis cannot be read. */
static bool batch_compare(comparison *self, const larder_item *items, size_t count)
{
    bool good = true;
    for (size_t i = 0; i < count && good; i++) {
        name key = name_of(self->prefix, items[i].key, items[i].key_size);
        name record = {0};
        if (key.text != NULL)
            record = record_of(&key);
        good = record.text != NULL && command(self, self->records_only ? "EXISTS" : "GET", &key) &&
               command(self, "PEXPIRETIME", &key) && command(self, "GET", &record);
        free(record.text);
        if (item_negative(&items[i]) || (items[i].info.flags & LARDER_LOCAL) != 0)
            free(key.text);
        else if (key.text == NULL || !names_add(self, key))
            good = false;
    }
    for (size_t i = 0; i < count && good; i++) {
        redisReply *value = reply(self);
        redisReply *expiry = value == NULL ? NULL : reply(self);
        redisReply *record = expiry == NULL ? NULL : reply(self);
        good = record != NULL;
        if (good)
            item_compare(self, &items[i], value, expiry, record);
        freeReplyObject(value);
        freeReplyObject(expiry);
        freeReplyObject(record);
    }
    return good;
}

/* Every live entry of the map. 0, or -1: one of the two cannot be read. */
static int map_compare(comparison *self)
{
    larder_cursor cursor = {0};
    larder_item items[BATCH];
    size_t found = 0;
    do {
        void *memory = NULL;
        int scanned = larder_scan(self->cache, &cursor, (larder_bytes){0}, items, BATCH,
                                  self->records_only ? LARDER_SCAN_KEYS : LARDER_SCAN_VALUES,
                                  &found, &memory);
        if (scanned < 0) {
            fprintf(stderr, "compare: the map: %s: %s\n", larder_strerror(scanned),
                    larder_last_error());
            return -1;
        }
        bool good = batch_compare(self, items, found);
        larder_free(memory);
        if (!good) {
            fprintf(stderr, "compare: Redis: %s\n",
                    self->redis->err != 0 ? self->redis->errstr : "no memory");
            return -1;
        }
    } while (found > 0);
    return 0;
}

/* Every key that Redis has under the prefix. */
static int extra_count(comparison *self)
{
    char pattern[1024], cursor[32] = "0";
    size_t used = 0;
    for (const char *at = self->prefix; *at != '\0' && used + 3 < sizeof pattern; at++) {
        if (strchr("*?[]\\^", *at) != NULL)
            pattern[used++] = '\\';
        pattern[used++] = *at;
    }
    memcpy(pattern + used, "*", 2);
    if (self->name_count > 0)
        qsort(self->names, self->name_count, sizeof *self->names, name_order);
    do {
        redisReply *page =
            redisCommand(self->redis, "SCAN %s MATCH %s COUNT 1000", cursor, pattern);
        if (page == NULL || page->type != REDIS_REPLY_ARRAY || page->elements != 2 ||
            page->element[0]->type != REDIS_REPLY_STRING ||
            page->element[1]->type != REDIS_REPLY_ARRAY) {
            fprintf(stderr, "compare: Redis does not answer to SCAN: %s\n", self->redis->errstr);
            freeReplyObject(page);
            return -1;
        }
        snprintf(cursor, sizeof cursor, "%s", page->element[0]->str);
        for (size_t i = 0; i < page->element[1]->elements; i++) {
            const redisReply *key = page->element[1]->element[i];
            name sought = {.text = key->str, .size = key->len};
            if (self->name_count == 0 ||
                bsearch(&sought, self->names, self->name_count, sizeof sought, name_order) == NULL)
                differ(self, &self->extra, key->str, key->len, "in Redis, but not in the map");
        }
        freeReplyObject(page);
    } while (strcmp(cursor, "0") != 0);
    return 0;
}

static void names_clear(comparison *self)
{
    for (size_t i = 0; i < self->name_count; i++)
        free(self->names[i].text);
    self->name_count = 0;
}

/* One look at all. 1: they agree, 0: they do not, -1: one of the two cannot be read. */
static int look(comparison *self)
{
    self->equal = self->absent = self->passed_over = 0;
    self->missing = self->different = self->extra = 0;
    self->first[0] = '\0';
    names_clear(self);
    if (map_compare(self) != 0 || extra_count(self) != 0)
        return -1;
    return self->missing == 0 && self->different == 0 && self->extra == 0;
}

static void options_read(comparison *self, int argc, char **argv)
{
    static const struct option names[] = {
        {"dir", required_argument, NULL, 'd'},
        {"map", required_argument, NULL, 'm'},
        {"redis", required_argument, NULL, 'r'},
        {"prefix", required_argument, NULL, 'p'},
        {"wait", required_argument, NULL, 'w'},
        {"records", no_argument, NULL, 'o'},
        {NULL, 0, NULL, 0},
    };
    int option;
    char *end = NULL;
    bool good = true;
    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'd':
            self->dir = optarg;
            break;
        case 'm':
            self->map = optarg;
            break;
        case 'r':
            self->socket = optarg;
            break;
        case 'p':
            self->prefix = optarg;
            break;
        case 'w':
            self->wait_ms = strtol(optarg, &end, 10);
            good = good && *end == '\0' && self->wait_ms >= 0 && self->wait_ms <= 600000;
            break;
        case 'o':
            self->records_only = true;
            break;
        default:
            good = false;
            break;
        }
    }
    if (!good || optind != argc || self->map == NULL || self->socket == NULL ||
        self->prefix == NULL || strlen(self->prefix) > 255) {
        fprintf(stderr, "usage: compare --dir DIR --map NAME --redis SOCKET --prefix PREFIX "
                        "[--wait MS] [--records]\n");
        exit(2);
    }
}

static int both_open(comparison *self)
{
    larder_options options = {.dir = self->dir, .flags = LARDER_ATTACH | LARDER_READ_ONLY};
    struct timeval timeout = {.tv_sec = TIMEOUT_S};
    int opened = larder_open(self->map, &options, &self->cache);
    if (opened != LARDER_OK) {
        fprintf(stderr, "compare: the map: %s: %s\n", larder_strerror(opened), larder_last_error());
        return -1;
    }
    self->redis = redisConnectUnixWithTimeout(self->socket, timeout);
    if (self->redis == NULL || self->redis->err != 0 ||
        redisSetTimeout(self->redis, timeout) != REDIS_OK) {
        fprintf(stderr, "compare: Redis at %s: %s\n", self->socket,
                self->redis == NULL ? "no memory" : self->redis->errstr);
        return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    comparison self = {.wait_ms = 2000};
    int agreed = -1;
    options_read(&self, argc, argv);
    if (both_open(&self) == 0) {
        int64_t started = clock_ms(CLOCK_MONOTONIC);
        while ((agreed = look(&self)) == 0 && clock_ms(CLOCK_MONOTONIC) - started < self.wait_ms) {
            struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000L};
            nanosleep(&pause, NULL);
        }
        if (agreed >= 0)
            printf("equal=%" PRIu64 " absent=%" PRIu64 " missing=%" PRIu64 " different=%" PRIu64
                   " extra=%" PRIu64 " waited_ms=%" PRId64 "%s%s\n",
                   self.equal, self.absent, self.missing, self.different, self.extra,
                   clock_ms(CLOCK_MONOTONIC) - started, agreed == 0 ? " first: " : "",
                   agreed == 0 ? self.first : "");
    }
    names_clear(&self);
    free(self.names);
    if (self.redis != NULL)
        redisFree(self.redis);
    larder_close(&self.cache);
    return agreed < 0 ? 3 : agreed == 1 ? 0 : 1;
}
