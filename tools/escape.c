/* escape.c: see escape.h. One function, escape_step(), decides how a byte or character is shown;
 * streams and buffers both use it.
 */
#include "tools/escape.h"

#include <stdlib.h>
#include <string.h>

enum { STEP_MAX = 16 }; /* four bytes as \xHH each */

static const char hex_digits[] = "0123456789abcdef";

size_t escape_utf8(const uint8_t *data, size_t size, uint32_t *code)
{
    if (size == 0) {
        return 0;
    }
    uint8_t first = data[0];
    if (first < 0x80) {
        *code = first;
        return 1;
    }
    size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4 || length > size) {
        return 0;
    }
    uint32_t value = first & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((data[i] & 0xC0) != 0x80) {
            return 0;
        }
        value = value << 6 | (data[i] & 0x3Fu);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < least[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
        return 0;
    }
    *code = value;
    return length;
}

bool escape_is_utf8(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint32_t code;
    for (size_t i = 0; i < size;) {
        size_t length = escape_utf8(bytes + i, size - i, &code);
        if (length == 0) {
            return false;
        }
        i += length;
    }
    return true;
}

char *escape_lossy(const void *data, size_t size, size_t *out_size)
{
    const uint8_t *bytes = data;
    if (size > SIZE_MAX / 3 - 1) {
        return NULL;
    }
    char *text = malloc(size * 3 + 1);
    if (text == NULL) {
        return NULL;
    }
    size_t used = 0;
    uint32_t code;
    for (size_t i = 0; i < size;) {
        size_t length = escape_utf8(bytes + i, size - i, &code);
        if (length == 0) {
            memcpy(text + used, "\xEF\xBF\xBD", 3);
            used += 3;
            i++;
        } else {
            memcpy(text + used, bytes + i, length);
            used += length;
            i += length;
        }
    }
    text[used] = '\0';
    *out_size = used;
    return text;
}

/* Characters that show nothing, or change how others are shown: controls (Unicode Cc), the format
 * characters that reorder or hide text (Cf), line separators, noncharacters. */
static bool is_shown(uint32_t code)
{
    static const struct {
        uint32_t first, last;
    } hidden[] = {
        {0x00, 0x1F},     {0x7F, 0x9F},     {0xAD, 0xAD},     {0x061C, 0x061C}, {0x115F, 0x1160},
        {0x180E, 0x180E}, {0x200B, 0x200F}, {0x2028, 0x202E}, {0x2060, 0x206F}, {0x3164, 0x3164},
        {0xFDD0, 0xFDEF}, {0xFEFF, 0xFEFF}, {0xFFA0, 0xFFA0}, {0xFFF0, 0xFFFB}, {0xE0000, 0xE0FFF},
    };
    for (size_t i = 0; i < sizeof hidden / sizeof hidden[0]; i++) {
        if (code >= hidden[i].first && code <= hidden[i].last) {
            return false;
        }
    }
    return (code & 0xFFFE) != 0xFFFE;
}

/* Show the character at data in out (STEP_MAX bytes); *out_size bytes of it are used. Returns how
 * many bytes of data it stands for. */
static size_t escape_step(const uint8_t *data, size_t size, enum escape_style style,
                          bool ascii_only, char *out, size_t *out_size)
{
    uint8_t byte = data[0];
    const char *named = NULL;
    if (byte == '\\' && style != ESCAPE_MESSAGE) {
        named = "\\\\";
    } else if (byte == '\n') {
        named = style == ESCAPE_VALUE ? "\n" : "\\n";
    } else if (byte == '\t') {
        named = style == ESCAPE_VALUE ? "\t" : "\\t";
    } else if (byte == '\r') {
        named = "\\r";
    }
    if (named != NULL) {
        *out_size = strlen(named);
        memcpy(out, named, *out_size);
        return 1;
    }
    uint32_t code = 0;
    size_t length = escape_utf8(data, size, &code);
    if (length > 0 && is_shown(code) && !(ascii_only && code > 0x7E)) {
        memcpy(out, data, length);
        *out_size = length;
        return length;
    }
    length = length == 0 ? 1 : length;
    for (size_t i = 0; i < length; i++) {
        out[i * 4] = '\\';
        out[i * 4 + 1] = 'x';
        out[i * 4 + 2] = hex_digits[data[i] >> 4];
        out[i * 4 + 3] = hex_digits[data[i] & 15];
    }
    *out_size = length * 4;
    return length;
}

void escape_write(FILE *stream, const void *data, size_t size, enum escape_style style,
                  bool ascii_only)
{
    const uint8_t *bytes = data;
    char step[STEP_MAX];
    size_t step_size;
    for (size_t i = 0; i < size && !ferror(stream);) {
        i += escape_step(bytes + i, size - i, style, ascii_only, step, &step_size);
        (void)fwrite(step, 1, step_size, stream);
    }
}

char *escape_text(char *text, size_t size, const void *data, size_t data_size,
                  enum escape_style style)
{
    const uint8_t *bytes = data;
    char step[STEP_MAX];
    size_t step_size;
    size_t used = 0;
    size_t cut = 0; /* the last place where "..." and the end still fit */
    for (size_t i = 0; i < data_size;) {
        i += escape_step(bytes + i, data_size - i, style, false, step, &step_size);
        if (used + step_size >= size) {
            memcpy(text + cut, "...", 4);
            return text;
        }
        memcpy(text + used, step, step_size);
        used += step_size;
        if (used + 4 <= size) {
            cut = used;
        }
    }
    text[used] = '\0';
    return text;
}

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    if (digit >= 'a' && digit <= 'f') {
        return digit - 'a' + 10;
    }
    if (digit >= 'A' && digit <= 'F') {
        return digit - 'A' + 10;
    }
    return -1;
}

bool escape_from_hex(const char *text, uint8_t *out, size_t *out_size, size_t *bad)
{
    size_t i = 0;
    for (; text[i] != '\0'; i++) {
        int value = hex_value(text[i]);
        if (value < 0) {
            *bad = i;
            return false;
        }
        if (i % 2 == 0) {
            if (text[i + 1] == '\0') {
                *bad = i;
                return false;
            }
            out[i / 2] = (uint8_t)(value << 4);
        } else {
            out[i / 2] = (uint8_t)(out[i / 2] | value);
        }
    }
    *out_size = i / 2;
    return true;
}

void escape_write_hex(FILE *stream, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size && !ferror(stream); i++) {
        (void)putc(hex_digits[bytes[i] >> 4], stream);
        (void)putc(hex_digits[bytes[i] & 15], stream);
    }
}

char *escape_hex(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    if (size > SIZE_MAX / 2 - 1) {
        return NULL;
    }
    char *text = malloc(size * 2 + 1);
    if (text == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < size; i++) {
        text[i * 2] = hex_digits[bytes[i] >> 4];
        text[i * 2 + 1] = hex_digits[bytes[i] & 15];
    }
    text[size * 2] = '\0';
    return text;
}

char *escape_base64(const void *data, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *bytes = data;
    if (size > SIZE_MAX / 2) {
        return NULL;
    }
    char *text = malloc((size + 2) / 3 * 4 + 1);
    if (text == NULL) {
        return NULL;
    }
    char *at = text;
    for (size_t i = 0; i < size; i += 3) {
        size_t rest = size - i;
        uint32_t group = (uint32_t)bytes[i] << 16;
        group |= rest > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        group |= rest > 2 ? (uint32_t)bytes[i + 2] : 0;
        *at++ = digits[group >> 18];
        *at++ = digits[group >> 12 & 63];
        *at++ = rest > 1 ? digits[group >> 6 & 63] : '=';
        *at++ = rest > 2 ? digits[group & 63] : '=';
    }
    *at = '\0';
    return text;
}
