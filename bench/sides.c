/* sides.c: see sides.h. */
#include "bench/sides.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tests/multi/harness.h"

enum { VALUE_MAX = 4096 };

larder *side_attach(const struct side *side)
{
    larder_options options = {
        .dir = side->directory, .flags = LARDER_ATTACH, .write_wait_ms = 1000};
    larder *handle = NULL;
    uint64_t deadline = test_now_us() + 20000000;
    int code;
    while ((code = larder_open(side->map, &options, &handle)) == LARDER_ENOTFOUND &&
           test_now_us() < deadline) {
        test_pause_us(1000);
    }
    test_check(code == LARDER_OK, "attach: %d %s", code, larder_last_error());
    return handle;
}

void side_start(struct side *side, const char *map, const char *name, const char *redis_url,
                const char *settings)
{
    char log[32], text[512];
    side->map = map;
    snprintf(side->directory, sizeof side->directory, "%s/%s", test_directory(), name);
    test_check(mkdir(side->directory, 0700) == 0, "mkdir");
    snprintf(log, sizeof log, "larderd-%s", name);
    snprintf(text, sizeof text, "map = { size = \"64M\"; };\n%s", settings);
    server_larderd_start(&side->larderd, log, map, side->directory, redis_url, text);
    side->handle = side_attach(side);
    server_wait_redis(side->handle, true, 20000);
}

void side_end(struct side *side)
{
    server_end(&side->larderd, SIGTERM);
    larder_close(&side->handle);
}

void side_set(struct side *side, const char *key, size_t key_size, uint64_t number,
              size_t value_size)
{
    uint8_t value[VALUE_MAX];
    test_check(value_size <= sizeof value, "a value of %zu bytes", value_size);
    test_value_fill(value, value_size, number);
    int code = larder_set(side->handle, key, key_size, value, value_size, NULL);
    test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
}
