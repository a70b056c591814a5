/* session_cookie.c: the cookie that carries a session's id: written for a response, and looked for
 * in what a request brought. Pure; a name, a path or an id that could end the header or its
 * attribute is refused, never escaped.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "session_id.h"

static const char default_name[] = "session_id";

/* RFC 9110, section 5.6.2: tchar. */
static bool is_token_byte(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

/* RFC 6265, section 4.1.1, path-value: no control characters and no ";". Of those beyond ASCII
 * browsers think differently: none. */
static bool is_path_byte(char c)
{
    return c >= ' ' && c <= '~' && c != ';';
}

/* RFC 1034, section 3.5. */
static bool is_domain_byte(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ||
           c == '.';
}

static int check_text(const char *what, larder_bytes text, size_t limit, bool (*allowed)(char))
{
    const char *bytes = text.data;
    if (text.size > limit) {
        return error_set(LARDER_ETOOBIG, "%s of %zu bytes of a cookie: the limit is %zu", what,
                         text.size, limit);
    }
    if (bytes == NULL) {
        return error_set(LARDER_EINVAL, "the %s of a cookie is no pointer, but has a size", what);
    }
    for (size_t i = 0; i < text.size; i++) {
        if (!allowed(bytes[i])) {
            return error_set(LARDER_EINVAL, "the %s of a cookie cannot have byte %zu, 0x%02x", what,
                             i, (unsigned)(unsigned char)bytes[i]);
        }
    }
    return LARDER_OK;
}

static int check_name(larder_bytes *name)
{
    if (name->size == 0) {
        *name = (larder_bytes){default_name, sizeof default_name - 1};
    }
    return check_text("name", *name, LARDER_COOKIE_NAME_MAX, is_token_byte);
}

/* Browsers compare these prefixes without regard to case (RFC 6265bis, section 4.1.3). */
static bool begins(larder_bytes name, const char *prefix)
{
    size_t size = strlen(prefix);
    return name.size >= size && strncasecmp(name.data, prefix, size) == 0;
}

/* What a browser would not take, it would drop without a word: say so here. */
static int check_together(const larder_cookie *cookie)
{
    bool plain = (cookie->flags & LARDER_COOKIE_PLAIN) != 0;
    bool host = begins(cookie->name, "__Host-");
    if (plain && (host || begins(cookie->name, "__Secure-"))) {
        return error_set(LARDER_EINVAL, "a cookie of that name has to be Secure");
    }
    if (host && (cookie->domain.size != 0 || cookie->path.size != 1)) {
        return error_set(LARDER_EINVAL, "a __Host- cookie has no domain, and the path /");
    }
    if (plain && (cookie->flags & LARDER_COOKIE_CROSS) != 0) {
        return error_set(LARDER_EINVAL, "a cookie with SameSite=None has to be Secure");
    }
    return LARDER_OK;
}

static int check(larder_cookie *cookie)
{
    static const uint64_t none[sizeof cookie->reserved / sizeof cookie->reserved[0]];
    const uint32_t sites = LARDER_COOKIE_STRICT | LARDER_COOKIE_CROSS;
    const uint32_t known = LARDER_COOKIE_PLAIN | LARDER_COOKIE_SCRIPT | LARDER_COOKIE_BRIEF | sites;
    if ((cookie->flags & ~known) != 0 || cookie->reserved0 != 0 ||
        memcmp(cookie->reserved, none, sizeof none) != 0) {
        return error_set(LARDER_EINVAL, "unknown members or flags of larder_cookie are not 0");
    }
    if ((cookie->flags & sites) == sites) {
        return error_set(LARDER_EINVAL, "a cookie cannot be SameSite=Strict and SameSite=None");
    }
    if (cookie->max_age_ms < 0) {
        return error_set(LARDER_EINVAL, "the age of a cookie is negative");
    }
    if (cookie->path.size == 0) {
        cookie->path = (larder_bytes){"/", 1};
    }
    int result = check_name(&cookie->name);
    if (result == LARDER_OK) {
        result = check_text("path", cookie->path, LARDER_COOKIE_PATH_MAX, is_path_byte);
    }
    if (result == LARDER_OK && *(const char *)cookie->path.data != '/') {
        result = error_set(LARDER_EINVAL, "the path of a cookie begins with /");
    }
    if (result == LARDER_OK && cookie->domain.size != 0) {
        result = check_text("domain", cookie->domain, LARDER_COOKIE_DOMAIN_MAX, is_domain_byte);
    }
    return result == LARDER_OK ? check_together(cookie) : result;
}

/* "; Max-Age=N". 0 would take the cookie away: what is left of a second counts as one. */
static void write_age(const larder_cookie *cookie, bool remove, char *text, size_t size)
{
    int64_t ms = cookie->max_age_ms == 0 ? LARDER_SESSION_TTL_MS : cookie->max_age_ms;
    int64_t seconds = remove ? 0 : ms / 1000 + (ms % 1000 != 0);
    text[0] = '\0';
    if (remove || (cookie->flags & LARDER_COOKIE_BRIEF) == 0) {
        (void)snprintf(text, size, "; Max-Age=%" PRId64, seconds);
    }
}

int larder_cookie_write(const larder_cookie *given, const void *id, size_t id_size, char *buffer,
                        size_t buffer_size, size_t *size)
{
    larder_cookie cookie = given == NULL ? (larder_cookie){.flags = 0} : *given;
    bool remove = id == NULL && id_size == 0;
    char age[40];
    int result = check(&cookie);
    if (result == LARDER_OK && !remove && !session_id_is_valid(id, id_size)) {
        result = error_set(LARDER_EINVAL, "that is not the id of a session");
    }
    if (result == LARDER_OK && buffer == NULL && buffer_size != 0) {
        result = error_set(LARDER_EINVAL, "larder_cookie_write() without a buffer");
    }
    if (result != LARDER_OK) {
        return result;
    }
    write_age(&cookie, remove, age, sizeof age);
    const char *site = (cookie.flags & LARDER_COOKIE_STRICT) != 0  ? "Strict"
                       : (cookie.flags & LARDER_COOKIE_CROSS) != 0 ? "None"
                                                                   : "Lax";
    char text[LARDER_COOKIE_SIZE];
    int length = snprintf(text, sizeof text, "%.*s=%.*s%s; Path=%.*s%s%.*s%s%s; SameSite=%s",
                          (int)cookie.name.size, (const char *)cookie.name.data, (int)id_size,
                          remove ? "" : (const char *)id, age, (int)cookie.path.size,
                          (const char *)cookie.path.data,
                          cookie.domain.size != 0 ? "; Domain=" : "", (int)cookie.domain.size,
                          cookie.domain.size != 0 ? (const char *)cookie.domain.data : "",
                          (cookie.flags & LARDER_COOKIE_PLAIN) != 0 ? "" : "; Secure",
                          (cookie.flags & LARDER_COOKIE_SCRIPT) != 0 ? "" : "; HttpOnly", site);
    if (size != NULL) {
        *size = (size_t)length;
    }
    if (buffer == NULL || (size_t)length >= buffer_size) {
        return error_set(LARDER_ESIZE, "a cookie of %d bytes, and a buffer of %zu", length,
                         buffer_size);
    }
    memcpy(buffer, text, (size_t)length + 1);
    return LARDER_OK;
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

static larder_bytes trim(larder_bytes text)
{
    const char *bytes = text.data;
    while (text.size > 0 && (*bytes == ' ' || *bytes == '\t')) {
        bytes++;
        text.size--;
    }
    while (text.size > 0 && (bytes[text.size - 1] == ' ' || bytes[text.size - 1] == '\t')) {
        text.size--;
    }
    text.data = bytes;
    return text;
}

/* Whether "NAME=VALUE" is of that name and its value can be an id. */
static bool read_pair(larder_bytes pair, larder_bytes name, larder_session_id *id)
{
    const char *equals = pair.size == 0 ? NULL : memchr(pair.data, '=', pair.size);
    if (equals == NULL) {
        return false;
    }
    const char *begin = pair.data;
    larder_bytes key = trim((larder_bytes){begin, (size_t)(equals - begin)});
    larder_bytes value = trim((larder_bytes){equals + 1, pair.size - (size_t)(equals - begin) - 1});
    const char *text = value.data;
    if (value.size >= 2 && text[0] == '"' && text[value.size - 1] == '"') {
        text++;
        value.size -= 2;
    }
    if (key.size != name.size || memcmp(key.data, name.data, name.size) != 0 ||
        !session_id_is_valid(text, value.size)) {
        return false;
    }
    memcpy(id->text, text, LARDER_SESSION_ID_SIZE);
    id->text[LARDER_SESSION_ID_SIZE] = '\0';
    return true;
}

int larder_cookie_read(larder_bytes header, larder_bytes name, larder_session_id *id)
{
    int result = check_name(&name);
    if (result == LARDER_OK && (id == NULL || (header.data == NULL && header.size != 0))) {
        result = error_set(LARDER_EINVAL, "larder_cookie_read() without a header or a place");
    }
    if (result != LARDER_OK) {
        return result;
    }
    const char *at = header.data;
    size_t left = header.size;
    while (left > 0) {
        const char *semicolon = memchr(at, ';', left);
        size_t size = semicolon == NULL ? left : (size_t)(semicolon - at);
        if (read_pair((larder_bytes){at, size}, name, id)) {
            return LARDER_OK;
        }
        size += semicolon != NULL;
        at += size;
        left -= size;
    }
    return LARDER_MISS;
}
