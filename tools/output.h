/* output.h: how the tool speaks: text and JSON on standard output, messages on standard error.
 * Every command prints through these functions, so that nothing foreign reaches a terminal
 * unescaped and no failed write goes unnoticed.
 */
#ifndef LARDER_TOOLS_OUTPUT_H
#define LARDER_TOOLS_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

/* Look at where standard output goes; call once, first. Descriptors 0 to 2 that are closed are
 * occupied so that no file of the map can take their numbers. */
void output_begin(void);

/* Flush and close standard output. False after a message where something could not be written. */
bool output_end(void);

/* Whether something could not be written so far; keeps the reason. Ask directly behind writing. */
bool output_failed(void);

/* "larder: " and the sentence, escaped, as one line on standard error. */
void output_error(const char *format, ...) __attribute__((format(printf, 1, 2), cold));

/* A key as text (hexadecimal where hex), without a line's end. */
void output_key(larder_bytes key, bool hex);

/* A value: its bytes, or on a terminal escaped, with a line feed at the end if it has none. */
void output_value(const void *value, size_t size);

/* ---- Units: into text, which is returned */

enum { OUTPUT_UNIT_SIZE = 48 };

char *output_bytes(char text[OUTPUT_UNIT_SIZE], uint64_t bytes); /* "12.3 MiB" */
char *output_duration(char text[OUTPUT_UNIT_SIZE], int64_t ms);  /* "250 ms", "4m59s" */
char *output_time(char text[OUTPUT_UNIT_SIZE], int64_t ms);      /* RFC 3339, UTC; "never" */
char *output_version(char text[OUTPUT_UNIT_SIZE], larder_version version); /* CLOCK-NODE in hex */

/* ---- JSON: a document is built with these, which remember a failure (out of memory) instead of
 * returning it, and is written by output_document. Output is ASCII; other characters are \uXXXX. */

struct document {
    json_t *root;
    bool failed;
};

struct document document_object(void);
void document_put(struct document *into, const char *name, json_t *value); /* takes value over */
void document_count(struct document *into, const char *name, uint64_t value);
void document_time(struct document *into, const char *name, int64_t ms); /* INT64_MAX: null */

/* name: the bytes as text, lossy where they are not UTF-8, and then NAME_base64 beside it. */
void document_bytes(struct document *into, const char *name, const void *data, size_t size);

/* "key", "key_base64", and with hex "key_hex". */
void document_key(struct document *into, larder_bytes key, bool hex);

/* size, version, created_ms, expires_ms, ttl_ms at the time now_ms. */
void document_info(struct document *into, const larder_info *info, int64_t now_ms);

/* Write it and a line feed, and release it. False after a message where it could not be built. */
bool output_document(struct document *finished);

/* The same without indentation and line feed: a part of a larger document. */
bool output_document_part(struct document *finished);

#endif
