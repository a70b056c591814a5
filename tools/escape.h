/* escape.h: bytes that came from outside, made fit to be shown or passed on: UTF-8, escapes for
 * terminals and messages, hexadecimal, base64. Pure functions; everything the tool prints that it
 * did not write itself goes through here. Nothing here may let a control character, a terminal's
 * escape sequence or a reordering character through.
 */
#ifndef LARDER_TOOLS_ESCAPE_H
#define LARDER_TOOLS_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum escape_style {
    ESCAPE_KEY,    /* one line, can be turned back: \\ \n \t \r \xHH */
    ESCAPE_VALUE,  /* the same, but line feeds and tabs stay */
    ESCAPE_MESSAGE /* one line, and backslashes stay: for sentences that are escaped in part */
};

/* Length (1 to 4) of the well-formed UTF-8 character at data, its code in *code; 0 if there is none
 * (RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF). */
size_t escape_utf8(const uint8_t *data, size_t size, uint32_t *code);

/* Whether all of it is well-formed UTF-8. */
bool escape_is_utf8(const void *data, size_t size);

/* A copy in well-formed UTF-8, every byte that belongs to no character replaced by U+FFFD. NULL
 * without memory (or above a third of the address space); release with free(). */
char *escape_lossy(const void *data, size_t size, size_t *out_size);

/* Write it to stream; ascii_only escapes every byte above 0x7E (terminals that are not UTF-8).
 * Errors stay in the stream (ferror). */
void escape_write(FILE *stream, const void *data, size_t size, enum escape_style style,
                  bool ascii_only);

/* The same into text (size >= 16), cut with "..." where it does not fit. Returns text. */
char *escape_text(char *text, size_t size, const void *data, size_t data_size,
                  enum escape_style style);

/* Hexadecimal digits, any case, to bytes. out holds strlen(text) / 2 bytes. False, and *bad set to
 * the place, for an odd number of digits or another character. */
bool escape_from_hex(const char *text, uint8_t *out, size_t *out_size, size_t *bad);
void escape_write_hex(FILE *stream, const void *data, size_t size);

/* Lower case digits, or base64 with padding (RFC 4648 section 4), 0-terminated; NULL without
 * memory; release with free(). */
char *escape_hex(const void *data, size_t size);
char *escape_base64(const void *data, size_t size);

#endif
