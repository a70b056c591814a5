/* fields.c: see fields.h.
 */
#include "examples/fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool fields_named(const larder_http_header *field, const char *name)
{
    return field->name.size == strlen(name) &&
           strncasecmp(field->name.data, name, field->name.size) == 0;
}

/* RFC 9110, 5.6.2: tchar. */
static bool is_token(const char *text, size_t size)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == '\0' || strchr(marks, c) == NULL))
            return false;
    }
    return size > 0;
}

const char *fields_read(const struct evkeyvalq *from, larder_http_header *fields, size_t *count,
                        bool *spaced)
{
    const struct evkeyval *field;
    *count = 0;
    *spaced = false;
    for (field = from->tqh_first; field != NULL; field = field->next.tqe_next) {
        size_t given = strlen(field->key), size = given;
        while (size > 0 && (field->key[size - 1] == ' ' || field->key[size - 1] == '\t'))
            size--;
        *spaced = *spaced || size != given;
        if (*count == LARDER_HTTP_HEADERS_MAX)
            return "more than 256 header fields";
        if (!is_token(field->key, size))
            return "a header field whose name is none";
        if (strpbrk(field->value, "\r\n") != NULL) /* libevent lets pass what may be a fold */
            return "a header field with a line break";
        fields[(*count)++] =
            (larder_http_header){{field->key, size}, {field->value, strlen(field->value)}};
    }
    return NULL;
}

bool fields_add(struct evkeyvalq *to, const larder_http_header *field)
{
    char room[1024], *text = room;
    size_t size = field->name.size + field->value.size + 2;
    if (size > sizeof room && (text = malloc(size)) == NULL)
        return false;
    char *value = text + field->name.size + 1;
    snprintf(text, field->name.size + 1, "%.*s", (int)field->name.size,
             (const char *)field->name.data);
    snprintf(value, field->value.size + 1, "%.*s", (int)field->value.size,
             (const char *)field->value.data);
    bool added = evhttp_add_header(to, text, value) == 0;
    if (text != room)
        free(text);
    return added;
}

static bool is_number(larder_bytes text)
{
    const char *digits = text.data;
    for (size_t i = 0; i < text.size; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return false;
    }
    return text.size > 0 && text.size <= 18;
}

struct framing fields_framing(const larder_http_header *fields, size_t count)
{
    struct framing framing = {.chunked = false};
    const larder_http_header *length = NULL;
    for (size_t i = 0; i < count; i++) {
        const larder_http_header *field = &fields[i];
        if (fields_named(field, "Transfer-Encoding")) {
            bool chunked =
                field->value.size == 7 && strncasecmp(field->value.data, "chunked", 7) == 0;
            framing.coding = framing.coding || !chunked || framing.chunked;
            framing.chunked = chunked;
        } else if (fields_named(field, "Content-Length")) {
            bool same = length == NULL ||
                        (length->value.size == field->value.size &&
                         memcmp(length->value.data, field->value.data, field->value.size) == 0);
            framing.length = true;
            framing.faulty = framing.faulty || !same || !is_number(field->value);
            length = field;
        }
    }
    bool empty = length != NULL && !framing.faulty && strtoull(length->value.data, NULL, 10) == 0;
    framing.has_body = framing.chunked || framing.coding || (framing.length && !empty);
    return framing;
}
