/* socache_argument.c: see socache_argument.h.
 */
#include "socache_argument.h"

#include <apr_strings.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { NAME_MAX_SIZE = 63, WAIT_MS_MAX = 60000 };

static const char *const option_names[] = {"dir",  "size",         "max_value",
                                           "wait", "read_through", "travel"};
enum { OPTION_COUNT = sizeof option_names / sizeof option_names[0] };
#define SIZE_MIN (UINT64_C(16) << 20)

/* Digits and what stands behind them. */
static bool read_number(const char *text, uint64_t *number, const char **unit)
{
    char *end = NULL;
    if (*text < '0' || *text > '9') {
        return false;
    }
    errno = 0;
    *number = strtoull(text, &end, 10);
    *unit = end;
    return errno == 0;
}

static bool read_size(const char *text, uint64_t *bytes)
{
    static const char units[] = "KMGT";
    const char *unit;
    if (!read_number(text, bytes, &unit)) {
        return false;
    }
    const char *found = *unit == '\0' ? NULL : strchr(units, *unit);
    if (*unit != '\0' && (found == NULL || unit[1] != '\0')) {
        return false;
    }
    uint64_t factor = found == NULL ? 1 : UINT64_C(1) << (10 * (found - units + 1));
    return !__builtin_mul_overflow(*bytes, factor, bytes);
}

static bool read_duration(const char *text, int64_t *ms)
{
    const char *unit;
    uint64_t number;
    if (!read_number(text, &number, &unit) || number > WAIT_MS_MAX) {
        return false;
    }
    bool seconds = strcmp(unit, "s") == 0;
    *ms = (int64_t)number * (seconds ? 1000 : 1);
    return (seconds || strcmp(unit, "ms") == 0) && *ms <= WAIT_MS_MAX;
}

static const char *read_dir(const char *value, apr_pool_t *pool, struct socache_argument *argument)
{
    struct stat found;
    argument->dir = apr_pstrdup(pool, value);
    if (*value != '/') {
        return apr_psprintf(pool, "larder: dir=%s has to be an absolute path", value);
    }
    if (stat(value, &found) != 0 || !S_ISDIR(found.st_mode)) {
        return apr_psprintf(pool, "larder: dir=%s is no directory", value);
    }
    return NULL;
}

static const char *read_travel(const char *value, apr_pool_t *pool,
                               struct socache_argument *argument)
{
    bool yes = strcmp(value, "yes") == 0;
    argument->travel = yes ? SOCACHE_TRAVEL_YES : SOCACHE_TRAVEL_NO;
    return yes || strcmp(value, "no") == 0
               ? NULL
               : apr_psprintf(pool, "larder: travel=%s has to be yes or no", value);
}

static const char *read_option(const char *name, const char *value, apr_pool_t *pool,
                               struct socache_argument *argument)
{
    bool is_size = strcmp(name, "size") == 0, is_wait = strcmp(name, "wait") == 0;
    if (strcmp(name, "dir") == 0) {
        return read_dir(value, pool, argument);
    }
    if (strcmp(name, "travel") == 0) {
        return read_travel(value, pool, argument);
    }
    if (is_size || strcmp(name, "max_value") == 0) {
        uint64_t *bytes = is_size ? &argument->size : &argument->max_value;
        return read_size(value, bytes) && *bytes >= (is_size ? SIZE_MIN : 1)
                   ? NULL
                   : apr_psprintf(pool, "larder: %s=%s has to be a size like 64M, at least %s",
                                  name, value, is_size ? "16M" : "1");
    }
    if (is_wait || strcmp(name, "read_through") == 0) {
        return read_duration(value, is_wait ? &argument->wait_ms : &argument->read_through_ms)
                   ? NULL
                   : apr_psprintf(pool, "larder: %s=%s has to be a time like 50ms, at most 60s",
                                  name, value);
    }
    return apr_psprintf(pool,
                        "larder: there is no option %s (there are dir, size, max_value, wait, "
                        "read_through and travel)",
                        name);
}

/* Each option once: of two, one would be heard, and nobody could tell which. */
static const char *note_option(const char *name, apr_pool_t *pool, bool given[OPTION_COUNT])
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (strcmp(name, option_names[i]) == 0) {
            bool again = given[i];
            given[i] = true;
            return again ? apr_psprintf(pool, "larder: option %s is given twice", name) : NULL;
        }
    }
    return NULL; /* read_option() says that there is none */
}

/* What no map could be, however large the host is: found out here and not at the first request. */
static const char *check_together(const struct socache_argument *argument, apr_pool_t *pool)
{
    if (argument->size != 0 && argument->max_value > argument->size / 16) {
        return apr_psprintf(pool,
                            "larder: max_value is %" APR_UINT64_T_FMT
                            " bytes, which is more than a sixteenth of size",
                            (apr_uint64_t)argument->max_value);
    }
    if (argument->max_value > UINT32_MAX) {
        return "larder: max_value has to be below 4G";
    }
    if (argument->travel == SOCACHE_TRAVEL_NO && argument->read_through_ms != 0) {
        return "larder: read_through asks Redis, and travel=no keeps away from it: one of them";
    }
    return NULL;
}

static const char *read_options(char *text, apr_pool_t *pool, struct socache_argument *argument)
{
    char *state = NULL;
    bool given[OPTION_COUNT] = {false};
    for (char *option = apr_strtok(text, ",", &state); option != NULL;
         option = apr_strtok(NULL, ",", &state)) {
        char *equals = strchr(option, '=');
        if (equals == NULL) {
            return apr_psprintf(pool, "larder: option %s has no value", option);
        }
        *equals = '\0';
        const char *error = note_option(option, pool, given);
        if (error == NULL) {
            error = read_option(option, equals + 1, pool, argument);
        }
        if (error != NULL) {
            return error;
        }
    }
    return check_together(argument, pool);
}

/* As larder_open() has it. */
static bool is_name(const char *name)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.";
    size_t size = strlen(name);
    return size > 0 && size <= NAME_MAX_SIZE && name[0] != '.' && strspn(name, letters) == size;
}

const char *socache_argument_parse(const char *text, apr_pool_t *temporary, apr_pool_t *pool,
                                   struct socache_argument *argument)
{
    char *name = apr_pstrdup(pool, text == NULL ? "" : text);
    char *options = strchr(name, '(');
    *argument = (struct socache_argument){.name = name};
    if (options != NULL) {
        char *end = options + strlen(options) - 1;
        if (*end != ')') {
            return apr_psprintf(pool, "larder: a ) is missing at the end of %s", name);
        }
        *options++ = *end = '\0';
        options = apr_pstrdup(temporary, options);
    }
    if (!is_name(name)) {
        return apr_psprintf(pool,
                            "larder: \"%s\" cannot be the name of a map: larder:NAME or "
                            "larder:NAME(size=64M,...), of 1 to %d letters, digits, _, - and .",
                            name, NAME_MAX_SIZE);
    }
    return options == NULL ? NULL : read_options(options, pool, argument);
}
