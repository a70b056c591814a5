/* probe.c: an httpd module for the test of mod_socache_larder: it calls the provider as another
 * module would, with what a request's query says, and answers with what the provider said. `Probe
 * ARGUMENT` in the configuration is the provider's argument.
 *
 *   /probe?store&ID&SIZE&TTL_MS   /probe?retrieve&ID&ROOM   /probe?remove&ID /probe?iterate&STOP_AT
 */
#include <ap_provider.h>
#include <ap_socache.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_protocol.h>
#include <httpd.h>
#include <stdlib.h>
#include <string.h>

static const ap_socache_provider_t *provider;
static ap_socache_instance_t *instance;

static const char *set_argument(cmd_parms *command, void *context, const char *argument)
{
    (void)context;
    provider = ap_lookup_provider(AP_SOCACHE_PROVIDER_GROUP, "larder", AP_SOCACHE_PROVIDER_VERSION);
    return provider == NULL
               ? "no provider"
               : provider->create(&instance, argument, command->temp_pool, command->pool);
}

static int prepare(apr_pool_t *pool, apr_pool_t *log, apr_pool_t *temporary, server_rec *server)
{
    (void)log;
    (void)temporary;
    return provider != NULL && provider->init(instance, "probe", NULL, server, pool) == APR_SUCCESS
               ? OK
               : DECLINED;
}

struct walk {
    request_rec *request;
    long stop_at, seen;
};

static apr_status_t see(ap_socache_instance_t *of, server_rec *server, void *context,
                        const unsigned char *id, unsigned int id_size, const unsigned char *data,
                        unsigned int size, apr_pool_t *pool)
{
    struct walk *walk = context;
    (void)of;
    (void)server;
    (void)pool;
    (void)ap_rprintf(walk->request, "%.*s %u %s\n", (int)id_size, (const char *)id, size,
                     id[id_size] == 0 && data[size] == 0 ? "ended" : "not ended");
    return ++walk->seen == walk->stop_at ? APR_EGENERAL : APR_SUCCESS;
}

static apr_status_t run(request_rec *request, char *words[4])
{
    const unsigned char *id = (const unsigned char *)words[1];
    unsigned int id_size = (unsigned int)strlen(words[1]);
    unsigned long size = strtoul(words[2], NULL, 10);
    server_rec *server = request->server;
    apr_pool_t *pool = request->pool;
    unsigned char *data = apr_palloc(pool, size + 1);
    if (strcmp(words[0], "store") == 0) {
        memset(data, 'x', size);
        apr_time_t expiry = apr_time_now() + strtol(words[3], NULL, 10) * 1000;
        return provider->store(instance, server, id, id_size, expiry, data, (unsigned int)size,
                               pool);
    }
    if (strcmp(words[0], "retrieve") == 0) {
        unsigned int room = (unsigned int)size;
        apr_status_t result = provider->retrieve(instance, server, id, id_size, data, &room, pool);
        (void)ap_rprintf(request, "size %u\n", room);
        return result;
    }
    if (strcmp(words[0], "remove") == 0) {
        return provider->remove(instance, server, id, id_size, pool);
    }
    struct walk walk = {.request = request, .stop_at = strtol(words[1], NULL, 10)};
    return provider->iterate(instance, server, &walk, see, pool);
}

static int answer(request_rec *request)
{
    char *words[4] = {"", "", "0", "0"}, *state = NULL;
    if (request->handler == NULL || strcmp(request->handler, "larder-probe") != 0) {
        return DECLINED;
    }
    char *word = apr_strtok(apr_pstrdup(request->pool, request->args == NULL ? "" : request->args),
                            "&", &state);
    for (size_t i = 0; i < 4 && word != NULL; i++) {
        words[i] = word;
        word = apr_strtok(NULL, "&", &state);
    }
    ap_set_content_type(request, "text/plain");
    apr_status_t result = run(request, words);
    (void)ap_rprintf(request, "status %d %s\n", result,
                     result == APR_SUCCESS    ? "success"
                     : result == APR_NOTFOUND ? "notfound"
                     : result == APR_ENOMEM   ? "nomem"
                     : result == APR_ENOSPC   ? "nospace"
                     : result == APR_EINVAL   ? "invalid"
                     : result == APR_TIMEUP   ? "timeup"
                                              : "general");
    return OK;
}

static const command_rec commands[] = {
    AP_INIT_TAKE1("Probe", set_argument, NULL, RSRC_CONF, "the argument of the provider"), {NULL}};

static void register_hooks(apr_pool_t *pool)
{
    (void)pool;
    ap_hook_post_config(prepare, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(answer, NULL, NULL, APR_HOOK_MIDDLE);
}

/* httpd looks for it by name; everything else of this object is hidden. */
extern module probe_module __attribute__((visibility("default")));

AP_DECLARE_MODULE(probe) = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, commands, register_hooks, 0,
};
