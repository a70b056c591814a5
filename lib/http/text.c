/* text.c: see text.h.
 */
#include "http/text.h"

#include <string.h>

larder_bytes text_of(const char *literal)
{
    return (larder_bytes){literal, strlen(literal)};
}

bool text_same(larder_bytes a, larder_bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

bool text_is(larder_bytes a, const char *literal)
{
    return text_same(a, text_of(literal));
}

char text_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool text_same_name(larder_bytes a, larder_bytes b)
{
    const char *left = a.data, *right = b.data;
    if (a.size != b.size) {
        return false;
    }
    for (size_t i = 0; i < a.size; i++) {
        if (text_lower(left[i]) != text_lower(right[i])) {
            return false;
        }
    }
    return true;
}

bool text_is_name(larder_bytes a, const char *lower_case)
{
    return text_same_name(a, text_of(lower_case));
}

static bool is_tchar(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

bool text_is_token(larder_bytes text)
{
    const char *bytes = text.data;
    for (size_t i = 0; i < text.size; i++) {
        if (!is_tchar(bytes[i])) {
            return false;
        }
    }
    return text.size > 0;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

larder_bytes text_trim(larder_bytes text)
{
    const char *bytes = text.data;
    size_t begin = 0, end = text.size;
    while (begin < end && is_space(bytes[begin])) {
        begin++;
    }
    while (end > begin && is_space(bytes[end - 1])) {
        end--;
    }
    return (larder_bytes){begin == end ? "" : bytes + begin, end - begin};
}

/* Bytes up to the comma that ends the first element, or all. */
static size_t element_end(const char *bytes, size_t size)
{
    bool quoted = false;
    size_t at = 0;
    while (at < size && (quoted || bytes[at] != ',')) {
        if (bytes[at] == '"') {
            quoted = !quoted;
        } else if (quoted && bytes[at] == '\\' && at + 1 < size) {
            at++;
        }
        at++;
    }
    return at;
}

bool text_next(larder_bytes *list, larder_bytes *element)
{
    while (list->size > 0) {
        const char *bytes = list->data;
        size_t end = element_end(bytes, list->size);
        *element = text_trim((larder_bytes){bytes, end});
        size_t taken = end < list->size ? end + 1 : end;
        *list = (larder_bytes){bytes + taken, list->size - taken};
        if (element->size > 0) {
            return true;
        }
    }
    return false;
}

larder_bytes text_unquoted(larder_bytes text)
{
    const char *bytes = text.data;
    if (text.size >= 2 && bytes[0] == '"' && bytes[text.size - 1] == '"') {
        return (larder_bytes){bytes + 1, text.size - 2};
    }
    return text;
}

bool text_seconds(larder_bytes text, int64_t *seconds)
{
    larder_bytes digits = text_unquoted(text);
    const char *bytes = digits.data;
    int64_t value = 0;
    for (size_t i = 0; i < digits.size; i++) {
        if (bytes[i] < '0' || bytes[i] > '9') {
            return false;
        }
        value = value * 10 + (bytes[i] - '0');
        value = value > INT32_MAX ? INT32_MAX : value;
    }
    *seconds = value;
    return digits.size > 0;
}

int text_hex(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = text_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

larder_bytes text_authority(larder_bytes authority, larder_bytes scheme)
{
    const char *port = text_is_name(scheme, "https") ? ":443" : ":80", *bytes = authority.data;
    size_t port_size = strlen(port);
    if (authority.size > port_size &&
        memcmp(bytes + authority.size - port_size, port, port_size) == 0) {
        authority.size -= port_size;
    } else if (authority.size > 0 && bytes[authority.size - 1] == ':') {
        authority.size--;
    }
    return authority;
}
