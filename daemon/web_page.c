/* web_page.c: see web_page.h.
 */
#include "daemon/web_page.h"

#include <inttypes.h>
#include <time.h>

void web_page_json(struct evbuffer *out, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at == '"' || *at == '\\') {
            evbuffer_add_printf(out, "\\%c", *at);
        } else if (*at < 0x20) {
            evbuffer_add_printf(out, "\\u%04x", *at);
        } else {
            evbuffer_add_printf(out, "%c", *at < 0x7f ? *at : '?');
        }
    }
}

void web_page_html(struct evbuffer *out, const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        switch (*at) {
        case '&':
        case '<':
        case '>':
        case '"':
        case '\'':
            evbuffer_add_printf(out, "&#%u;", *at);
            break;
        default:
            evbuffer_add_printf(out, "%c", *at >= 0x20 && *at < 0x7f ? *at : '?');
            break;
        }
    }
}

static void instant(int64_t ms, char *out, size_t size)
{
    struct tm broken;
    time_t seconds = (time_t)(ms / 1000);
    if (ms <= 0 || !gmtime_r(&seconds, &broken)) {
        snprintf(out, size, "%s", "");
        return;
    }
    size_t length = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &broken);
    snprintf(out + length, size - length, ".%03dZ", (int)(ms % 1000));
}

const char *web_page_redis(const metrics_snapshot *snapshot)
{
    if (!snapshot->replicates) {
        return "local";
    }
    switch (snapshot->redis.state) {
    case REPLICATOR_UP:
        return "up";
    case REPLICATOR_SYNCING:
        return "syncing";
    case REPLICATOR_PARKED:
        return "parked";
    default:
        return "down";
    }
}

static void add_instant(struct evbuffer *out, const char *name, int64_t ms)
{
    char text[40];
    instant(ms, text, sizeof text);
    if (*text) {
        evbuffer_add_printf(out, ",\"%s\":\"%s\"", name, text);
    } else {
        evbuffer_add_printf(out, ",\"%s\":null", name);
    }
}

void web_page_state(const metrics_snapshot *snapshot, struct evbuffer *out)
{
    const replicator_status *redis = &snapshot->redis;
    evbuffer_add_printf(out, "{\"status\":\"%s\",\"map\":{\"name\":\"",
                        !snapshot->map_fresh ? "map_unreadable"
                        : snapshot->degraded ? "degraded"
                                             : "ok");
    web_page_json(out, snapshot->map_name);
    evbuffer_add_printf(out,
                        "\",\"readable\":%s,\"generation\":%" PRIu64 ",\"entries\":%" PRIu64
                        ",\"used_bytes\":%" PRIu64 ",\"size_bytes\":%" PRIu64 "}",
                        snapshot->map_fresh ? "true" : "false", snapshot->map.generation,
                        snapshot->map.entries, snapshot->map.used_bytes, snapshot->map.map_size);
    evbuffer_add_printf(out, ",\"redis\":\"%s\"", web_page_redis(snapshot));
    add_instant(out, "degraded_since", snapshot->degraded ? snapshot->degraded_since_ms : 0);
    evbuffer_add_printf(out, ",\"queue_depth\":%" PRIu64 ",\"oldest_age_seconds\":%.3f",
                        snapshot->map.dirty, (double)snapshot->oldest_age_ms / 1e3);
    if (snapshot->replicates) {
        evbuffer_add_printf(out, ",\"server\":\"");
        web_page_json(out, redis->server);
        evbuffer_add_printf(out, "\",\"breaker\":\"%s\",\"lag_seconds\":%.3f,\"last_error\":",
                            replicator_breaker_name(redis->breaker), (double)redis->lag_ms / 1e3);
        if (*redis->error) {
            evbuffer_add_printf(out, "\"");
            web_page_json(out, redis->error);
            evbuffer_add_printf(out, "\"");
        } else {
            evbuffer_add_printf(out, "null");
        }
        add_instant(out, "last_error_at", redis->error_ms);
    }
    evbuffer_add_printf(out, "}\n");
}

/* ---- The page -------------------------------------------------------------------------------- */

static void row_text(struct evbuffer *out, const char *name, const char *value)
{
    evbuffer_add_printf(out, "<tr><th>");
    web_page_html(out, name);
    evbuffer_add_printf(out, "</th><td>");
    web_page_html(out, value);
    evbuffer_add_printf(out, "</td></tr>\n");
}

static void row_count(struct evbuffer *out, const char *name, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, value);
    row_text(out, name, text);
}

static void row_seconds(struct evbuffer *out, const char *name, int64_t ms)
{
    char text[32];
    snprintf(text, sizeof text, "%.3f s", (double)ms / 1e3);
    row_text(out, name, text);
}

static void row_share(struct evbuffer *out, const char *name, uint64_t part, uint64_t whole)
{
    char text[96];
    snprintf(text, sizeof text, "%" PRIu64 " of %" PRIu64 " (%.1f %%)", part, whole,
             whole ? 100.0 * (double)part / (double)whole : 0.0);
    row_text(out, name, text);
}

static void table(struct evbuffer *out, const char *title)
{
    evbuffer_add_printf(out, "</table>\n<h2>%s</h2>\n<table>\n", title);
}

void web_page_status(const metrics_snapshot *snapshot, struct evbuffer *out)
{
    const replicator_status *redis = &snapshot->redis;
    const larder_stats *map = &snapshot->map;
    char text[64];
    evbuffer_add_printf(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                             "<meta http-equiv=\"refresh\" content=\"5\"><title>larder: ");
    web_page_html(out, snapshot->map_name);
    evbuffer_add_printf(
        out, "</title>\n<style>body{font:15px/1.4 sans-serif;margin:2em;max-width:60em}"
             "th{text-align:left;font-weight:normal;padding-right:2em;color:#555}"
             "td{font-variant-numeric:tabular-nums}h2{font-size:1.1em;margin:1.4em 0 .3em}"
             "</style></head><body>\n<h1>larder: ");
    web_page_html(out, snapshot->map_name);
    evbuffer_add_printf(out, "</h1>\n<table>\n");
    row_text(out, "state",
             !snapshot->map_fresh ? "the map cannot be read"
             : snapshot->degraded ? "degraded: not in step with Redis"
                                  : "ok");
    row_text(out, "redis", web_page_redis(snapshot));
    if (snapshot->degraded) {
        instant(snapshot->degraded_since_ms, text, sizeof text);
        row_text(out, "degraded since", text);
    }
    row_count(out, "entries Redis has not acknowledged", map->dirty);
    row_seconds(out, "oldest of them", snapshot->oldest_age_ms);

    table(out, "Map");
    row_share(out, "bytes used", map->used_bytes, map->map_size);
    row_share(out, "hits of lookups", map->hits,
              map->hits + map->misses + map->absent + map->stale);
    row_count(out, "entries", map->entries);
    row_count(out, "tombstones", map->tombstones);
    row_count(out, "generation", map->generation);
    row_count(out, "processes", map->processes);
    row_count(out, "evicted for space", map->evictions);
    row_count(out, "expired", map->expirations);
    row_count(out, "writes refused: gate busy", map->refused_busy);
    row_count(out, "writes refused: full", map->refused_full);

    if (snapshot->replicates) {
        table(out, "Redis");
        row_text(out, "server", redis->server);
        row_text(out, "version", redis->redis_version);
        row_text(out, "state", replicator_state_name(redis->state));
        row_text(out, "breaker", replicator_breaker_name(redis->breaker));
        row_text(out, "last error", *redis->error ? redis->error : "none");
        row_count(out, "acknowledged", redis->acknowledged);
        row_count(out, "events applied", redis->applied);
        row_count(out, "keys refused, waiting", redis->retry_entries);
        row_count(out, "refused beyond redis.retry_entries", redis->left_entries);
        row_count(out, "taken by Redis, not noted in the map", redis->unacknowledged);
        row_seconds(out, "lag", redis->lag_ms);
    }

    table(out, "Janitor");
    row_count(out, "expired entries removed", snapshot->janitor.removed);
    row_count(out, "evicted to the watermark", snapshot->janitor.evicted);
    row_seconds(out, "last walk took", snapshot->janitor.pass_took_ms);
    row_count(out, "damaged entries found", snapshot->janitor.damaged);

    evbuffer_add_printf(out,
                        "</table>\n<p>larderd %s &middot; <a href=\"/metrics\">/metrics</a> "
                        "&middot; <a href=\"/healthz\">/healthz</a></p>\n</body></html>\n",
                        larder_version_text());
}
