/* site.h: the make-believe web site of the examples. An access log ("METHOD PATH STATUS BYTES" a
 * line) says which pages there are, how large each is and what was asked for in which order. The
 * server's origin makes pages from it; the replay asks for them and knows what must come back.
 * Pure but for site_load(): no network, no cache.
 */
#ifndef LARDER_EXAMPLES_SITE_H
#define LARDER_EXAMPLES_SITE_H

#include <stddef.h>
#include <stdint.h>

#define SITE_PERIOD_MS 300000   /* a page says something new every 5 minutes of the wall clock */
#define SITE_PAGE_MAX 65536u    /* bytes of a body; the log's larger ones are capped to this */
#define SITE_UNKNOWN_SIZE 4096u /* where the log never says how large a page is */
#define SITE_PATH_MAX 4096u     /* bytes of a path with its query */
#define SITE_REQUESTS_MAX 1000000u

enum site_method { SITE_GET = 0, SITE_HEAD = 1, SITE_POST = 2, SITE_OPTIONS = 3 };

typedef struct site_page {
    char *path;
    const char *type; /* Content-Type */
    uint64_t seed;
    uint32_t status; /* what the origin answers: 200, 301, 403, 404 or 500 */
    uint32_t size;   /* bytes of the body where status is 200 */
} site_page;

typedef struct site_request {
    enum site_method method;
    uint32_t page;
} site_request;

typedef struct site {
    site_page *pages;
    size_t page_count, page_capacity;
    site_request *requests;
    size_t request_count, request_capacity;
    uint32_t *table; /* page number + 1 by hash of path, open addressing; 0: free */
    size_t table_size;
} site;

/* Read FILE, at most SITE_REQUESTS_MAX requests of it. Returns 0, or -1 and a sentence that names
 * file and line in error. Release with site_free(). */
int site_load(const char *file, site **out, char *error, size_t error_size);
void site_free(site **self);

/* The page of a path (query included), or NULL. */
const site_page *site_find(const site *self, const char *path);

/* Write the page->size bytes that the page holds in this period (milliseconds since the epoch
 * divided by SITE_PERIOD_MS): lines of text, different for every page and every period. */
void site_body(const site_page *page, int64_t period, char *out);

const char *site_method_name(enum site_method method);

int64_t site_now_ms(void); /* wall clock */

#endif
