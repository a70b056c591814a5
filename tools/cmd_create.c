/* cmd_create.c: larder create: make the map where it is missing. A map that is there stays as it
 * is: with the sizes that were asked for that is success, with others it is refused, because a new
 * size is a new generation and that is for the map's owner (larderd's configuration) to decide.
 */
#include <inttypes.h>
#include <stdio.h>

#include "lib/handle.h"
#include "lib/hotset.h"
#include "tools/output.h"
#include "tools/tool.h"

/* Whether the map can be attached to now; then it is open. */
static bool is_there(struct tool *tool)
{
    larder_options options = {.dir = tool->dir, .flags = LARDER_ATTACH};
    return larder_open(tool->map, &options, &tool->handle) >= 0;
}

/* What was asked for and is not what the map has. */
static bool has_other_limits(const struct tool *tool, const larder_stats *stats)
{
    uint64_t largest = tool->handle->max_value; /* the map's: opened without a limit of its own */
    if (tool->max_value != 0 && handle_value_limit(tool->max_value, stats->map_size) != largest) {
        output_error("create: the map \"%s\" is there and takes values of %" PRIu64 " bytes",
                     tool->map, largest);
        return true;
    }
    if (tool->hot_size != 0 && tool->hot_size / HOTSET_PAGE * HOTSET_PAGE != stats->hot_size) {
        output_error("create: the map \"%s\" is there with a hot set of %" PRIu64 " bytes",
                     tool->map, stats->hot_size);
        return true;
    }
    return false;
}

int cmd_create(struct tool *tool)
{
    bool there = is_there(tool);
    if (!there) {
        int result = tool_open(tool, ACCESS_CREATE); /* says why, where it cannot */
        if (result != TOOL_OK) {
            return result;
        }
    }
    larder_stats stats = {0};
    int code = larder_stats_read(tool->handle, &stats, sizeof stats);
    if (code < 0) {
        return tool_fail(tool, code, NULL);
    }
    if (there && tool->size != 0 && tool->size != stats.map_size) {
        output_error("create: the map \"%s\" is there with %" PRIu64 " bytes", tool->map,
                     stats.map_size);
        return TOOL_FAILED;
    }
    if (there && has_other_limits(tool, &stats)) {
        return TOOL_FAILED;
    }
    if (tool->json) {
        struct document made = document_object();
        document_put(&made, "map", json_string(tool->map));
        document_put(&made, "created", json_boolean(!there));
        document_count(&made, "map_size", stats.map_size);
        document_count(&made, "generation", stats.generation);
        return output_document(&made) ? TOOL_OK : TOOL_FAILED;
    }
    char size[OUTPUT_UNIT_SIZE];
    (void)printf("map %s %s: %s\n", tool->map, there ? "is there already" : "created",
                 output_bytes(size, stats.map_size));
    return TOOL_OK;
}
