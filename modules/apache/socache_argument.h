/* socache_argument.h: the argument of `larder:NAME(option=value,...)` in httpd's configuration,
 * read once, in httpd's parent. Every mistake is named here, before a server starts.
 */
#ifndef LARDER_MODULES_APACHE_SOCACHE_ARGUMENT_H
#define LARDER_MODULES_APACHE_SOCACHE_ARGUMENT_H

#include <apr_pools.h>
#include <stdint.h>

enum { SOCACHE_TRAVEL_DEFAULT, SOCACHE_TRAVEL_YES, SOCACHE_TRAVEL_NO };

struct socache_argument {
    const char *name;
    const char *dir;         /* NULL: larder's own default, of the user that children run as */
    uint64_t size;           /* bytes of the map, for whoever creates it; 0: larder's default */
    uint64_t max_value;      /* bytes; 0: larder's default */
    int64_t wait_ms;         /* for the write gate; 0: larder's default */
    int64_t read_through_ms; /* 0: Redis is not asked */
    int travel;
};

/* NULL, or what is wrong, in words, from the pool. text may be NULL. */
const char *socache_argument_parse(const char *text, apr_pool_t *temporary, apr_pool_t *pool,
                                   struct socache_argument *argument);

#endif
