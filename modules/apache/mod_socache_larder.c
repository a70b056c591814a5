/* mod_socache_larder.c: an ap_socache provider for Apache httpd 2.4: `CacheSocache larder:NAME`,
 * `SSLSessionCache larder:NAME`, `AuthnCacheSOCache larder:NAME` keep what they cache in a map of
 * liblarder, which all children of all servers of the host share, and which survives restarts.
 *
 * httpd's parent never opens the map: each child does, when it first needs it, as the user that it
 * runs as. A map that cannot be had is a miss and a line in the log, never a refused request; it is
 * tried again every few seconds. Keys are never logged: those of mod_ssl are secrets.
 */
#include <ap_socache.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_log.h>
#include <http_protocol.h>
#include <httpd.h>
#include <inttypes.h>
#include <mod_status.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "larder.h"
#include "socache_argument.h"

enum {
    RETRY_SECONDS = 5,  /* between two tries to open the map */
    KEY_ROOM = 512,     /* most keys need no allocation */
    ITERATE_ITEMS = 64, /* of one look at the map */
    PREFIX_MAX = 64     /* "CONSUMER/2.4.57:" */
};

struct ap_socache_instance_t {
    struct socache_argument argument;
    char prefix[PREFIX_MAX]; /* of all keys */
    size_t prefix_size;
    bool travels;
    _Atomic(larder *) handle; /* release; pairs with the acquire in map_of() */
    pthread_mutex_t opening;
    apr_time_t try_again; /* under `opening` */
    int complained;       /* the code that the log has heard of; under `opening` */
};

/* ---- The map ----------------------------------------------------------------------------------
 */

static larder *open_map(ap_socache_instance_t *instance, server_rec *server)
{
    larder *handle = NULL;
    apr_time_t now = apr_time_now();
    if (now < instance->try_again) {
        return NULL;
    }
    larder_options options = {
        .dir = instance->argument.dir,
        .map_size = instance->argument.size,
        .max_value = instance->argument.max_value,
        .write_wait_ms = instance->argument.wait_ms,
        .flags = instance->travels ? 0 : LARDER_LOCAL,
    };
    int result = larder_open(instance->argument.name, &options, &handle);
    if (result == LARDER_OK) {
        if (instance->complained != LARDER_OK) {
            ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, server, "larder: map %s is there again",
                         instance->argument.name);
        }
        instance->complained = LARDER_OK;
        return handle;
    }
    instance->try_again = now + apr_time_from_sec(RETRY_SECONDS);
    if (instance->complained != result) { /* once for each reason and child */
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, server,
                     "larder: cannot open map %s, going on without it: %s: %s",
                     instance->argument.name, larder_strerror(result), larder_last_error());
        instance->complained = result;
    }
    return NULL;
}

/* This process's handle, or NULL. */
static larder *map_of(ap_socache_instance_t *instance, server_rec *server)
{
    larder *handle = atomic_load_explicit(&instance->handle, memory_order_acquire);
    if (handle != NULL) {
        return handle;
    }
    (void)pthread_mutex_lock(&instance->opening);
    handle = atomic_load_explicit(&instance->handle, memory_order_relaxed);
    if (handle == NULL) {
        handle = open_map(instance, server);
        atomic_store_explicit(&instance->handle, handle, memory_order_release);
    }
    (void)pthread_mutex_unlock(&instance->opening);
    return handle;
}

static apr_status_t status_of(int result)
{
    switch (result) {
    case LARDER_OK:
        return APR_SUCCESS;
    case LARDER_MISS:
    case LARDER_ABSENT:
        return APR_NOTFOUND;
    case LARDER_ESIZE:
    case LARDER_ENOMEM:
        return APR_ENOMEM;
    case LARDER_ETOOBIG:
    case LARDER_EFULL:
        return APR_ENOSPC;
    case LARDER_EBUSY:
        return APR_TIMEUP;
    case LARDER_EINVAL:
        return APR_EINVAL;
    default:
        return APR_EGENERAL;
    }
}

/* ---- Keys -------------------------------------------------------------------------------------
 */

struct key {
    const void *data;
    size_t size;
    unsigned char room[KEY_ROOM];
};

static bool make_key(const ap_socache_instance_t *instance, const unsigned char *id,
                     unsigned int id_size, apr_pool_t *pool, struct key *key)
{
    size_t size = instance->prefix_size + id_size;
    unsigned char *bytes = size <= sizeof key->room ? key->room : apr_palloc(pool, size);
    if (size > LARDER_KEY_MAX || bytes == NULL) {
        return false;
    }
    memcpy(bytes, instance->prefix, instance->prefix_size);
    memcpy(bytes + instance->prefix_size, id, id_size);
    key->data = bytes;
    key->size = size;
    return true;
}

/* ---- The provider -----------------------------------------------------------------------------
 */

static const char *create(ap_socache_instance_t **instance, const char *argument,
                          apr_pool_t *temporary, apr_pool_t *pool)
{
    ap_socache_instance_t *made = apr_pcalloc(pool, sizeof *made);
    const char *error = socache_argument_parse(argument, temporary, pool, &made->argument);
    *instance = made;
    return error;
}

/* What is stored is httpd's own structures: another version of it is another cache. */
static apr_status_t init(ap_socache_instance_t *instance, const char *consumer,
                         const struct ap_socache_hints *hints, server_rec *server, apr_pool_t *pool)
{
    ap_version_t version;
    (void)hints;
    (void)pool;
    ap_get_server_revision(&version);
    int size = apr_snprintf(instance->prefix, sizeof instance->prefix, "%s/%d.%d.%d:", consumer,
                            version.major, version.minor, version.patch);
    if ((size_t)size >= sizeof instance->prefix - 1) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, 0, server,
                     "larder: the consumer's name %s is too long", consumer);
        return APR_EINVAL;
    }
    instance->prefix_size = (size_t)size;
    /* Pages are shared by all hosts; secrets of TLS and of passwords only if that is asked for. */
    instance->travels = instance->argument.travel == SOCACHE_TRAVEL_DEFAULT
                            ? strcmp(consumer, "cache-socache") == 0
                            : instance->argument.travel == SOCACHE_TRAVEL_YES;
    return pthread_mutex_init(&instance->opening, NULL) == 0 ? APR_SUCCESS : APR_ENOMEM;
}

static void destroy(ap_socache_instance_t *instance, server_rec *server)
{
    (void)server;
    larder *handle = atomic_exchange(&instance->handle, NULL);
    larder_close(&handle);
}

static apr_status_t store(ap_socache_instance_t *instance, server_rec *server,
                          const unsigned char *id, unsigned int id_size, apr_time_t expiry,
                          unsigned char *data, unsigned int size, apr_pool_t *pool)
{
    struct key key;
    larder *handle = map_of(instance, server);
    larder_policy policy = {.expiry = larder_expire_at((int64_t)apr_time_as_msec(expiry))};
    if (handle == NULL) {
        return APR_EGENERAL;
    }
    if (!make_key(instance, id, id_size, pool, &key)) {
        return APR_EINVAL;
    }
    if (expiry <= apr_time_now()) {
        /* Stored, and expired at once. mod_cache_socache invalidates so (a POST, say), and would
         * log a warning for each page that is refused. */
        int gone = larder_delete(handle, key.data, key.size);
        return gone == LARDER_MISS ? APR_SUCCESS : status_of(gone);
    }
    int result = larder_set(handle, key.data, key.size, data, size, &policy);
    if (result != LARDER_OK) {
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, server, "larder: not stored in map %s: %s: %s",
                     instance->argument.name, larder_strerror(result), larder_last_error());
    }
    return status_of(result);
}

static apr_status_t retrieve(ap_socache_instance_t *instance, server_rec *server,
                             const unsigned char *id, unsigned int id_size, unsigned char *data,
                             unsigned int *size, apr_pool_t *pool)
{
    struct key key;
    larder_info info;
    larder *handle = map_of(instance, server);
    if (handle == NULL) {
        return APR_NOTFOUND;
    }
    if (!make_key(instance, id, id_size, pool, &key)) {
        return APR_EINVAL;
    }
    const larder_read read = {.read_through_ms =
                                  instance->travels ? instance->argument.read_through_ms : 0};
    int result = larder_get_with(handle, key.data, key.size, data, *size, &info, &read);
    if (result == LARDER_OK) {
        *size = (unsigned int)info.size; /* it fitted into one */
    }
    return status_of(result);
}

static apr_status_t drop(ap_socache_instance_t *instance, server_rec *server,
                         const unsigned char *id, unsigned int id_size, apr_pool_t *pool)
{
    struct key key;
    larder *handle = map_of(instance, server);
    if (handle == NULL) {
        return APR_EGENERAL;
    }
    if (!make_key(instance, id, id_size, pool, &key)) {
        return APR_EINVAL;
    }
    return status_of(larder_delete(handle, key.data, key.size));
}

/* ---- Looking at it ----------------------------------------------------------------------------
 */

static void tell(request_rec *request, bool brief, const char *name, uint64_t value)
{
    (void)ap_rprintf(
        request, brief ? "%s: %" APR_UINT64_T_FMT "\n" : "%s: <b>%" APR_UINT64_T_FMT "</b><br>\n",
        name, (apr_uint64_t)value);
}

/* The figures are the whole map's: all children, all consumers, and whoever else uses it. */
static void status(ap_socache_instance_t *instance, request_rec *request, int flags)
{
    larder_stats stats;
    bool brief = (flags & AP_STATUS_SHORT) != 0;
    const char *name = ap_escape_html(request->pool, instance->argument.name);
    larder *handle = map_of(instance, request->server);
    (void)ap_rprintf(request,
                     brief ? "CacheType: LARDER\nCacheMap: %s\n"
                           : "cache type: <b>LARDER</b>, map: <b>%s</b><br>\n",
                     name);
    if (handle == NULL || larder_stats_read(handle, &stats, sizeof stats) != LARDER_OK) {
        (void)ap_rputs(brief ? "CacheOpen: 0\n" : "the map cannot be opened<br>\n", request);
        return;
    }
    tell(request, brief, "CacheOpen", 1);
    tell(request, brief, "CacheSize", stats.map_size);
    tell(request, brief, "CacheUsed", stats.used_bytes);
    tell(request, brief, "CacheCurrentEntries", stats.entries);
    tell(request, brief, "CacheHits", stats.hits);
    tell(request, brief, "CacheMisses", stats.misses);
    tell(request, brief, "CacheStores", stats.sets);
    tell(request, brief, "CacheEvictions", stats.evictions);
    tell(request, brief, "CacheExpirations", stats.expirations);
    tell(request, brief, "CacheRefused",
         stats.refused_busy + stats.refused_full + stats.refused_size);
    tell(request, brief, "CacheReplicates", stats.replicates);
    tell(request, brief, "CacheRedisUp", stats.redis_up);
}

/* One entry, with a 0 behind the id and behind the data. */
static apr_status_t pass(ap_socache_instance_t *instance, server_rec *server, void *context,
                         ap_socache_iterator_t *iterator, const larder_item *item, apr_pool_t *pool)
{
    size_t skip = instance->prefix_size;
    const char *id = apr_pstrmemdup(pool, (const char *)item->key + skip, item->key_size - skip);
    const char *data = apr_pstrmemdup(pool, item->value, item->value_size);
    if (id == NULL || data == NULL) {
        return APR_ENOMEM;
    }
    return iterator(instance, server, context, (const unsigned char *)id,
                    (unsigned int)(item->key_size - skip), (const unsigned char *)data,
                    (unsigned int)item->value_size, pool);
}

static apr_status_t iterate(ap_socache_instance_t *instance, server_rec *server, void *context,
                            ap_socache_iterator_t *iterator, apr_pool_t *pool)
{
    larder *handle = map_of(instance, server);
    larder_cursor cursor = {.size = 0};
    larder_item items[ITERATE_ITEMS];
    larder_bytes prefix = {instance->prefix, instance->prefix_size};
    apr_pool_t *one = NULL;
    size_t found = 0;
    void *memory = NULL;
    if (handle == NULL) {
        return APR_EGENERAL;
    }
    apr_status_t result = apr_pool_create(&one, pool);
    while (result == APR_SUCCESS) {
        result = status_of(larder_scan(handle, &cursor, prefix, items, ITERATE_ITEMS,
                                       LARDER_SCAN_VALUES, &found, &memory));
        if (result != APR_SUCCESS || found == 0) {
            break;
        }
        for (size_t i = 0; i < found && result == APR_SUCCESS; i++) {
            result = pass(instance, server, context, iterator, &items[i], one);
            apr_pool_clear(one);
        }
        larder_free(memory);
        memory = NULL;
    }
    if (one != NULL) {
        apr_pool_destroy(one);
    }
    return result;
}

/* No AP_SOCACHE_FLAG_NOTMPSAFE: httpd takes no mutex around these calls. */
static const ap_socache_provider_t provider = {
    "larder", 0, create, init, destroy, store, retrieve, drop, status, iterate,
};

static void register_provider(apr_pool_t *pool)
{
    (void)ap_register_provider(pool, AP_SOCACHE_PROVIDER_GROUP, "larder",
                               AP_SOCACHE_PROVIDER_VERSION, &provider);
}

/* httpd looks for it by name; everything else of this object is hidden. */
extern module socache_larder_module __attribute__((visibility("default")));

AP_DECLARE_MODULE(socache_larder) = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_provider, 0,
};
