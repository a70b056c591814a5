/* site.c: reads the access log and makes the pages; see site.h. Server and replay both link this,
 * so that a body which is torn, of another page, or older than its 5-minute mark is noticed. It
 * must never trust the log: every line is checked, every table bounded.
 */
#include "examples/site.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static const struct {
    const char *suffix, *type;
} content_types[] = {
    {".html", "text/html; charset=utf-8"},
    {".htm", "text/html; charset=utf-8"},
    {".xhtml", "application/xhtml+xml"},
    {".css", "text/css"},
    {".js", "text/javascript"},
    {".txt", "text/plain; charset=utf-8"},
    {".xml", "application/xml"},
    {".json", "application/json"},
    {".png", "image/png"},
    {".gif", "image/gif"},
    {".jpg", "image/jpeg"},
    {".jpeg", "image/jpeg"},
    {".ico", "image/x-icon"},
    {".svg", "image/svg+xml"},
    {".pdf", "application/pdf"},
    {".gz", "application/gzip"},
    {".jar", "application/java-archive"},
    {".ttf", "font/ttf"},
    {".woff", "font/woff"},
};

static const char *const method_names[] = {"GET", "HEAD", "POST", "OPTIONS"};

const char *site_method_name(enum site_method method)
{
    return method_names[method];
}

int64_t site_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* FNV-1a, 64 bits. */
static uint64_t path_hash(const char *path)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const char *at = path; *at != '\0'; at++)
        hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
    return hash;
}

static const char *content_type(const char *path)
{
    size_t length = strcspn(path, "?");
    for (size_t i = 0; i < sizeof content_types / sizeof content_types[0]; i++) {
        size_t suffix = strlen(content_types[i].suffix);
        if (length >= suffix &&
            strncasecmp(path + length - suffix, content_types[i].suffix, suffix) == 0)
            return content_types[i].type;
    }
    return "text/html; charset=utf-8";
}

/* The place in the table where this path is, or the free place where it belongs. */
static size_t table_slot(const site *self, const char *path, uint64_t hash)
{
    size_t slot = (size_t)hash & (self->table_size - 1);
    while (self->table[slot] != 0 && strcmp(self->pages[self->table[slot] - 1].path, path) != 0)
        slot = (slot + 1) & (self->table_size - 1);
    return slot;
}

const site_page *site_find(const site *self, const char *path)
{
    uint32_t found = self->table[table_slot(self, path, path_hash(path))];
    return found == 0 ? NULL : &self->pages[found - 1];
}

static int table_grow(site *self)
{
    uint32_t *old = self->table;
    size_t size = self->table_size == 0 ? 1024 : self->table_size * 2;
    self->table = calloc(size, sizeof *self->table);
    if (self->table == NULL) {
        self->table = old;
        return -1;
    }
    self->table_size = size;
    for (size_t i = 0; i < self->page_count; i++)
        self->table[table_slot(self, self->pages[i].path, self->pages[i].seed)] = (uint32_t)i + 1;
    free(old);
    return 0;
}

/* Make room for one more item of item_size bytes. */
static int array_grow(void **array, size_t count, size_t *capacity, size_t item_size)
{
    if (count < *capacity)
        return 0;
    size_t larger = *capacity == 0 ? 1024 : *capacity * 2;
    void *moved = reallocarray(*array, larger, item_size);
    if (moved == NULL)
        return -1;
    *array = moved;
    *capacity = larger;
    return 0;
}

/* The page of this path, made if it is new; valid until the next is made. NULL: no memory. */
static site_page *page_of(site *self, const char *path)
{
    if (self->page_count * 2 >= self->table_size && table_grow(self) != 0)
        return NULL;
    uint64_t hash = path_hash(path);
    size_t slot = table_slot(self, path, hash);
    if (self->table[slot] != 0)
        return &self->pages[self->table[slot] - 1];
    if (array_grow((void **)&self->pages, self->page_count, &self->page_capacity,
                   sizeof *self->pages) != 0)
        return NULL;
    char *copy = strdup(path);
    if (copy == NULL)
        return NULL;
    site_page *page = &self->pages[self->page_count++];
    *page = (site_page){.path = copy, .type = content_type(path), .seed = hash};
    self->table[slot] = (uint32_t)self->page_count;
    return page;
}

/* What one line of the log teaches about a page. A log has 304, 206 and 416 where clients asked
 * with conditions or for ranges: the page behind them is an ordinary one. The largest size seen
 * counts; an answer with a page outweighs an error that happened once. */
static void page_learn(site_page *page, unsigned long status, unsigned long long bytes)
{
    bool content = status == 200 || status == 206 || status == 304 || status == 416;
    if (content)
        page->status = 200;
    else if (page->status == 0)
        page->status = (uint32_t)status;
    if ((status == 200 || status == 206) && bytes > page->size)
        page->size = bytes < SITE_PAGE_MAX ? (uint32_t)bytes : SITE_PAGE_MAX;
}

static bool path_valid(const char *path)
{
    if (path[0] != '/' || strlen(path) > SITE_PATH_MAX)
        return false;
    for (const char *at = path; *at != '\0'; at++)
        if (*at <= 0x20 || *at >= 0x7f)
            return false;
    return true;
}

/* NULL, or what is wrong with the line. */
static const char *line_read(site *self, char *line)
{
    char *rest = line;
    char *method_text = strsep(&rest, " ");
    char *path = strsep(&rest, " ");
    char *status_text = strsep(&rest, " ");
    char *bytes_text = strsep(&rest, " ");
    if (bytes_text == NULL || rest != NULL)
        return "not of the form METHOD PATH STATUS BYTES";
    size_t method = 0;
    while (method < sizeof method_names / sizeof method_names[0] &&
           strcmp(method_text, method_names[method]) != 0)
        method++;
    if (method == sizeof method_names / sizeof method_names[0])
        return "the method is none of GET, HEAD, POST, OPTIONS";
    if (!path_valid(path))
        return "the path does not begin with '/', is too long or holds a byte that must be escaped";
    char *end;
    unsigned long status = strtoul(status_text, &end, 10);
    if (!isdigit((unsigned char)status_text[0]) || *end != '\0' || status < 200 || status > 599)
        return "the status is not a number from 200 to 599";
    unsigned long long bytes = 0;
    if (strcmp(bytes_text, "-") != 0) {
        errno = 0;
        bytes = strtoull(bytes_text, &end, 10);
        if (!isdigit((unsigned char)bytes_text[0]) || *end != '\0' || errno != 0)
            return "the size is neither a number of bytes nor '-'";
    }
    site_page *page = page_of(self, path);
    if (page == NULL || array_grow((void **)&self->requests, self->request_count,
                                   &self->request_capacity, sizeof *self->requests) != 0)
        return "no memory";
    page_learn(page, status, bytes);
    self->requests[self->request_count++] =
        (site_request){.method = (enum site_method)method, .page = (uint32_t)(page - self->pages)};
    return NULL;
}

int site_load(const char *file, site **out, char *error, size_t error_size)
{
    int result = -1;
    char *line = NULL;
    size_t capacity = 0, number = 0;
    *out = NULL;
    FILE *stream = fopen(file, "re");
    site *self = calloc(1, sizeof *self);
    if (stream == NULL || self == NULL || table_grow(self) != 0) {
        snprintf(error, error_size, "cannot read %s: %s", file, strerror(errno));
        goto out;
    }
    ssize_t length;
    while (self->request_count < SITE_REQUESTS_MAX &&
           (length = getline(&line, &capacity, stream)) > 0) {
        number++;
        if (line[length - 1] == '\n')
            line[length - 1] = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        const char *wrong = line_read(self, line);
        if (wrong != NULL) {
            snprintf(error, error_size, "%s:%zu: %s", file, number, wrong);
            goto out;
        }
    }
    if (ferror(stream) != 0 || self->request_count == 0) {
        snprintf(error, error_size, "%s: %s", file,
                 ferror(stream) != 0 ? strerror(errno) : "no request in it");
        goto out;
    }
    for (size_t i = 0; i < self->page_count; i++)
        if (self->pages[i].size == 0)
            self->pages[i].size = SITE_UNKNOWN_SIZE;
    *out = self;
    self = NULL;
    result = 0;
out:
    site_free(&self);
    free(line);
    if (stream != NULL)
        fclose(stream);
    return result;
}

void site_free(site **self)
{
    if (*self == NULL)
        return;
    for (size_t i = 0; i < (*self)->page_count; i++)
        free((*self)->pages[i].path);
    free((*self)->pages);
    free((*self)->requests);
    free((*self)->table);
    free(*self);
    *self = NULL;
}

void site_body(const site_page *page, int64_t period, char *out)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789";
    _Static_assert(sizeof letters == 65, "six bits choose a letter");
    uint64_t state = page->seed ^ ((uint64_t)period * UINT64_C(0x9e3779b97f4a7c15));
    if (state == 0)
        state = 1;
    uint64_t bits = 0;
    for (uint32_t i = 0; i < page->size; i++) {
        if (i % 10 == 0) { /* xorshift64*: ten letters of six bits a step */
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            bits = state * UINT64_C(0x2545f4914f6cdd1d);
        }
        out[i] = i % 80 == 79 ? '\n' : letters[bits & 63];
        bits >>= 6;
    }
}
