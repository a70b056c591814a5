/* cmd_invalidate.c: larder invalidate (and evict, its other name) and larder clear: what kills many
 * entries at once. Several of --group, --tag, --prefix and --match may be given; each is carried
 * out, and with --count counted, or none, where one is not valid.
 */
#include <inttypes.h>
#include <stdio.h>

#include "lib/invalidate.h"
#include "lib/policy.h"
#include "tools/output.h"
#include "tools/tool.h"

static int invalidate(struct tool *tool, const struct tool_target *target, uint64_t *count)
{
    switch (target->kind) {
    case TARGET_GROUP:
        return larder_invalidate_group(tool->handle, target->name, count);
    case TARGET_TAG:
        return larder_invalidate_tag(tool->handle, target->name, count);
    case TARGET_PREFIX:
        return larder_invalidate_prefix(tool->handle, target->name, count);
    default:
        return larder_invalidate_match(tool->handle, target->name, count);
    }
}

static int check(const struct tool_target *target)
{
    switch (target->kind) {
    case TARGET_GROUP:
        return policy_check_name("group", target->name);
    case TARGET_TAG:
        return policy_check_name("tag", target->name);
    case TARGET_PREFIX:
        return invalidate_check_prefix(target->name);
    default:
        return invalidate_check_match(target->name);
    }
}

static int finish(const struct tool *tool, bool counted, uint64_t died)
{
    if (tool->json) {
        struct document report = document_object();
        document_put(&report, "outcome", json_string("invalidated"));
        if (counted) {
            document_count(&report, "count", died);
        }
        return output_document(&report) ? TOOL_OK : TOOL_FAILED;
    }
    if (counted) {
        (void)printf("%" PRIu64 "\n", died);
    }
    return TOOL_OK;
}

int cmd_invalidate(struct tool *tool)
{
    uint64_t died = 0;
    if (tool->target_count == 0) {
        output_error("%s: say what: --group, --tag, --prefix or --match", tool->command->name);
        return TOOL_USAGE;
    }
    for (size_t i = 0; i < tool->target_count; i++) { /* all, before any is carried out */
        int code = check(&tool->targets[i]);
        if (code < 0) {
            return tool_fail(tool, code, &tool->targets[i].name);
        }
    }
    for (size_t i = 0; i < tool->target_count; i++) {
        uint64_t count = 0;
        int code = invalidate(tool, &tool->targets[i], tool->count ? &count : NULL);
        if (code < 0) {
            return tool_fail(tool, code, &tool->targets[i].name);
        }
        died += count;
    }
    return finish(tool, tool->count, died);
}

int cmd_clear(struct tool *tool)
{
    int code = larder_clear(tool->handle);
    return code < 0 ? tool_fail(tool, code, NULL) : finish(tool, false, 0);
}
