/* codec.h: bytes to replies, with limits on size, elements and depth, on top of hiredis's reader.
 * No socket. A reply lives in the codec's own memory until the next one is asked for, so that a
 * hundred thousand small replies a second cost no allocation each. What breaks a limit or the
 * protocol breaks the codec for good: its connection must end.
 */
#ifndef LARDER_DAEMON_REDIS_CODEC_H
#define LARDER_DAEMON_REDIS_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum reply_kind {
    REPLY_STRING = 1,
    REPLY_ARRAY,
    REPLY_INTEGER,
    REPLY_NIL,
    REPLY_STATUS,
    REPLY_ERROR
};

typedef struct reply {
    enum reply_kind kind;
    long long integer;
    const char *text; /* STRING, STATUS, ERROR: size bytes and a 0 */
    size_t size;
    const char *said;        /* ERROR: the text for a log, without secrets; see codec_limits */
    struct reply **elements; /* ARRAY: count of them, none is NULL */
    size_t count;
} reply;

#define CODEC_SECRETS 2u
#define CODEC_SAID_MAX 320u /* bytes of reply.said with its end; longer ones are cut */

typedef struct codec_limits {
    size_t max_bytes;      /* of one whole reply */
    uint32_t max_elements; /* of one reply, all levels together */
    uint32_t max_depth;    /* 1: no arrays within arrays; at most 7 */
    /* What no log may show: the passwords, which whoever is at the other end has been told. NULL
     * or "": none. They must outlive the codec. */
    const char *secrets[CODEC_SECRETS];
} codec_limits;

typedef struct codec codec;

codec *codec_create(const codec_limits *limits); /* NULL: no memory */
void codec_destroy(codec **self);

/* Take bytes from the socket. false: broken, see codec_error(). */
bool codec_feed(codec *self, const void *bytes, size_t size);

/* The next whole reply, valid until the next call; NULL: none yet, or broken. */
const reply *codec_next(codec *self);

/* NULL: sound; else a sentence. */
const char *codec_error(const codec *self);

/* Format a command: *out is freed with codec_free_command(). Its length, or 0: no memory. */
size_t codec_command(char **out, int count, const char *const *arguments, const size_t *sizes);
void codec_free_command(char *command);

/* "NOAUTH", "OOM", ...: does an error reply begin with this word? */
bool reply_error_is(const reply *self, const char *word);
bool reply_text_is(const reply *self, const char *text);

/* Words of the other end's, for a log: each secret in them is "***", and of an error that repeats
 * the arguments of a command they are left out (a long one would be cut within the secret). Where
 * words of the server's reach a log otherwise than by reply.said, they go through this. size: of
 * out, at least 4. */
void codec_mask(const char *text, const char *const secrets[CODEC_SECRETS], char *out, size_t size);

#endif
