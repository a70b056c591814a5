/* asking.c: see asking.h. The answer is never in the request: it is in the map, or it is not.
 */
#include "asking.h"

#include <inttypes.h>
#include <string.h>

#include "ask.h"
#include "clock.h"
#include "handle.h"
#include "stats.h"

#define ASKED_MAGIC UINT32_C(0x61736b64)

/* What stands in larder_asked.internal. It is the caller's memory: checked before use. */
struct inside {
    uint64_t word;
    uint32_t slot, magic;
    int64_t until_ms; /* CLOCK_MONOTONIC */
    uint32_t own, reserved;
};
static_assert(sizeof(struct inside) == sizeof(((larder_asked *)NULL)->internal), "larder_asked");

int asking_check_budget(int64_t budget_ms)
{
    return budget_ms >= 1 && budget_ms <= ASK_BUDGET_MAX_MS
               ? LARDER_OK
               : error_set(LARDER_EINVAL, "a read-through budget of %" PRId64 " ms: it is 1 to %d",
                           budget_ms, ASK_BUDGET_MAX_MS);
}

/* LARDER_WAIT or LARDER_MISS, counted. The key is a valid one. */
static int begin(larder *handle, const void *key, size_t key_size, int64_t budget_ms,
                 struct ask_ticket *ticket)
{
    uint64_t hash[2];
    struct stats_slot *stats = map_stats(handle->map);
    key_hash_wide(key, key_size, hash);
    switch (ask_begin(handle->map, key, key_size, hash, budget_ms, ticket)) {
    case ASK_BEGUN:
        if (!ticket->own) {
            stats_count(stats, STATS_ASKS_JOINED);
        }
        return LARDER_WAIT;
    case ASK_NOBODY:
        stats_count(stats, STATS_ASKS_NOBODY);
        break;
    case ASK_NO_ROOM:
        stats_count(stats, STATS_ASKS_FULL);
        break;
    }
    return LARDER_MISS;
}

/* How a wait ended, counted. Only whoever made the request tells that its time was over: three in a
 * row, not three who waited for one. */
static int finish(larder *handle, const struct ask_ticket *ticket, enum ask_end end)
{
    struct stats_slot *stats = map_stats(handle->map);
    switch (end) {
    case ASK_FOUND:
        ask_note_answer(handle->map);
        stats_count(stats, STATS_ASKS_FOUND);
        return LARDER_OK;
    case ASK_OVER: /* nobody knows any more how: worth a look, and no count */
        return LARDER_OK;
    case ASK_ABSENT:
        ask_note_answer(handle->map);
        stats_count(stats, STATS_ASKS_ABSENT);
        return LARDER_MISS;
    default:
        if (ticket->own) {
            ask_note_timeout(handle->map);
        }
        stats_count(stats, STATS_ASKS_TIMEOUTS);
        return error_set(LARDER_EBUSY, "larderd gave no answer in time");
    }
}

bool asking_read_through(larder *handle, const void *key, size_t key_size, int64_t budget_ms)
{
    struct ask_ticket ticket;
    int64_t until_ms = clock_monotonic_ms() + budget_ms;
    if (begin(handle, key, key_size, budget_ms, &ticket) != LARDER_WAIT) {
        return false;
    }
    return finish(handle, &ticket, ask_sleep(handle->map, &ticket, until_ms)) == LARDER_OK;
}

int larder_ask(larder *handle, const void *key, size_t key_size, int64_t budget_ms,
               larder_asked *asked)
{
    struct key checked;
    struct ask_ticket ticket;
    if (asked == NULL) {
        return error_set(LARDER_EINVAL, "larder_ask() without a place for what is asked");
    }
    *asked = (larder_asked){.internal = {0}};
    int result = handle_enter(handle);
    if (result == LARDER_OK) {
        result = key_begin(&checked, key, key_size);
    }
    if (result == LARDER_OK) {
        result = asking_check_budget(budget_ms);
    }
    if (result != LARDER_OK) {
        return result;
    }
    struct inside inside = {.magic = ASKED_MAGIC, .until_ms = clock_monotonic_ms() + budget_ms};
    result = begin(handle, key, key_size, budget_ms, &ticket);
    if (result == LARDER_WAIT) {
        inside.word = ticket.word;
        inside.slot = ticket.slot;
        inside.own = ticket.own;
        ask_watch(handle->map, &ticket, inside.until_ms);
    } else {
        inside.slot = ASK_SLOTS;
    }
    memcpy(asked->internal, &inside, sizeof inside);
    return result;
}

int larder_ask_wait(larder *handle, const larder_asked *asked, int64_t wait_ms)
{
    struct inside inside;
    int result = handle_enter(handle);
    if (result != LARDER_OK) {
        return result;
    }
    if (asked == NULL ||
        (memcpy(&inside, asked->internal, sizeof inside), inside.magic != ASKED_MAGIC)) {
        return error_set(LARDER_EINVAL, "not what larder_ask() gave");
    }
    if (wait_ms < 0 || wait_ms > ASK_BUDGET_MAX_MS) {
        return error_set(LARDER_EINVAL, "a wait of %" PRId64 " ms: it is 0 to %d", wait_ms,
                         ASK_BUDGET_MAX_MS);
    }
    if (inside.slot >= ASK_SLOTS) {
        return error_set(LARDER_EBUSY, "nobody was asked");
    }
    struct ask_ticket ticket = {.word = inside.word, .slot = inside.slot, .own = inside.own != 0};
    int64_t now_ms = clock_monotonic_ms();
    int64_t until_ms = now_ms + wait_ms < inside.until_ms ? now_ms + wait_ms : inside.until_ms;
    enum ask_end end =
        wait_ms == 0 ? ask_look(handle->map, &ticket) : ask_sleep(handle->map, &ticket, until_ms);
    if (end == ASK_PENDING && clock_monotonic_ms() < inside.until_ms) {
        ask_watch(handle->map, &ticket, inside.until_ms);
        return LARDER_WAIT;
    }
    return finish(handle, &ticket, end);
}
