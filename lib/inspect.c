/* inspect.c: who reads a map, and is it whole. The walk runs in a child process: a damaged tree can
 * lead LMDB anywhere, and then it is the child that dies, and that is a finding.
 */
#include "inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chunks.h"
#include "clock.h"
#include "evict.h"
#include "format.h"
#include "handle.h"
#include "store.h"
#include "writer.h"

enum { CHECK_SECONDS = 300, CHECK_TRIES = 3 };

int inspect_readers(larder *handle, inspect_reader *readers, size_t max, size_t *found)
{
    struct transaction *t;
    *found = 0;
    int result = handle_enter(handle);
    if (result == LARDER_OK) {
        result = registry_reader(handle->map, &t);
    }
    return result == LARDER_OK ? store_list_readers(t->store, readers, max, found) : result;
}

/* ---- The walk ---------------------------------------------------------------------------------
 */

static void damage(inspect_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void damage(inspect_report *report, const char *format, ...)
{
    if (report->damaged) {
        return; /* the first one is named */
    }
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(report->damage, sizeof report->damage, format, arguments);
    va_end(arguments);
    report->damaged = true;
}

/* A growing list of chunk ranges that records own. */
struct ranges {
    struct range {
        uint64_t first, count;
    } * list;
    size_t used, size;
};

static bool own(struct ranges *ranges, uint64_t first, uint64_t count)
{
    if (ranges->used == ranges->size) {
        size_t size = ranges->size == 0 ? 1024 : ranges->size * 2;
        struct range *list = realloc(ranges->list, size * sizeof *list);
        if (list == NULL) {
            return false;
        }
        ranges->list = list;
        ranges->size = size;
    }
    ranges->list[ranges->used++] = (struct range){.first = first, .count = count};
    return true;
}

static int by_first(const void *a, const void *b)
{
    const struct range *left = a, *right = b;
    return left->first < right->first ? -1 : left->first > right->first;
}

static void check_entry(struct transaction *t, const larder_bytes *form, const larder_bytes *bytes,
                        inspect_report *report, struct ranges *ranges)
{
    struct record record;
    struct key key;
    void *memory = NULL;
    char name[160];
    uint64_t row;
    larder_bytes named;
    (void)key_printable(name, sizeof name, (const uint8_t *)form->data + 1, form->size - 1);
    if (!record_decode(bytes->data, bytes->size, &record)) {
        damage(report, "entry \"%s\": its record of %zu bytes is malformed", name, bytes->size);
        return;
    }
    if (entry_key(form, &record, &key, &memory) != LARDER_OK) {
        damage(report, "entry \"%s\": its key cannot be read", name);
        return;
    }
    if (key.form_size != form->size || memcmp(key.form, form->data, form->size) != 0) {
        damage(report, "entry \"%s\": the long key in its record is another one", name);
    } else if (!record_intact(bytes->data, bytes->size, key.hash)) {
        damage(report, "entry \"%s\": wrong checksum", name);
    } else if (record.chunk_count > 0 && (chunks_verify(t, &record) != LARDER_OK ||
                                          chunks_verify_pages(t, &record) != LARDER_OK)) {
        damage(report, "entry \"%s\": %s", name, larder_last_error());
    } else if (store_log_next(t, record.header.row, &row, &named) != LARDER_OK ||
               row != record.header.row) {
        damage(report, "entry \"%s\": its log row %" PRIu64 " is missing", name, record.header.row);
    } else if (named.size != form->size || memcmp(named.data, form->data, form->size) != 0) {
        damage(report, "entry \"%s\": its log row %" PRIu64 " names another key", name, row);
    }
    free(memory);
    report->bytes += record.value_size;
    report->dirty += (record.header.flags & RECORD_DIRTY) != 0;
    if (record.header.kind == RECORD_DELETED) {
        report->tombstones++;
    } else {
        report->entries++;
    }
    if (record.chunk_count > 0 && !own(ranges, record.first_chunk, record.chunk_count)) {
        damage(report, "no memory to check the chunks");
    }
}

static void check_entries(struct transaction *t, inspect_report *report, struct ranges *ranges)
{
    uint8_t at[KEY_FORM_MAX] = {KEY_TAG};
    size_t at_size = 1;
    larder_bytes form, bytes;
    int result;
    while ((result = store_entry_next(t, at, at_size, true, &form, &bytes)) == LARDER_OK &&
           !report->damaged) {
        if (form.size > sizeof at || form.size < 2 ||
            (at_size > 1 && memcmp(at, form.data, at_size < form.size ? at_size : form.size) > 0)) {
            damage(report, "the tree of entries is out of order");
            return;
        }
        memcpy(at, form.data, form.size);
        at_size = form.size;
        check_entry(t, &form, &bytes, report, ranges);
    }
    if (result < 0) {
        damage(report, "the tree of entries: %s", larder_last_error());
    }
}

/* The first queue's share of the ledger: what the eviction's hands go by. */
static void check_queue(const struct ledger *ledger, const struct ledger *counted,
                        inspect_report *report)
{
    if (ledger->small != counted->small || ledger->returned != counted->returned) {
        damage(report,
               "the ledger counts %" PRIu64 " entries in the first queue, %" PRIu64
               " of them returned; there are %" PRIu64 ", %" PRIu64,
               ledger->small, ledger->returned, counted->small, counted->returned);
    }
}

static void check_log(struct transaction *t, const struct ledger *ledger, inspect_report *report)
{
    struct ledger counted = {.small_hand = ledger->small_hand};
    uint64_t row = 0;
    larder_bytes form, bytes;
    struct record record;
    int result;
    for (uint64_t from = 0; (result = store_log_next(t, from, &row, &form)) == LARDER_OK;
         from = row + 1) {
        report->rows++;
        if (store_entry_get(t, form.data, form.size, &bytes) != LARDER_OK ||
            !record_decode(bytes.data, bytes.size, &record) || record.header.row != row) {
            damage(report, "log row %" PRIu64 " belongs to no entry", row);
            return;
        }
        if (row >= ledger->next_row) {
            damage(report, "log row %" PRIu64 " was never given (the next one is %" PRIu64 ")", row,
                   ledger->next_row);
            return;
        }
        evict_count(&counted, &record.header, 1);
    }
    check_queue(ledger, &counted, report);
    if (result < 0) {
        damage(report, "the log: %s", larder_last_error());
    }
}

static void check_chunks(struct transaction *t, const struct ledger *ledger, inspect_report *report,
                         struct ranges *ranges)
{
    if (ranges->used > 0) { /* the list of none is NULL, which qsort() may not be given */
        qsort(ranges->list, ranges->used, sizeof *ranges->list, by_first);
    }
    size_t range = 0;
    uint64_t id = 0;
    int result;
    for (uint64_t from = 0; (result = store_chunk_next(t, from, &id)) == LARDER_OK; from = id + 1) {
        report->chunks++;
        while (range < ranges->used &&
               id >= ranges->list[range].first + ranges->list[range].count) {
            range++;
        }
        if (range == ranges->used || id < ranges->list[range].first || id >= ledger->next_chunk) {
            damage(report, "chunk %" PRIu64 " belongs to no entry", id);
            return;
        }
    }
    if (result < 0) {
        damage(report, "the chunks: %s", larder_last_error());
    }
    for (size_t i = 1; i < ranges->used; i++) {
        if (ranges->list[i - 1].first + ranges->list[i - 1].count > ranges->list[i].first) {
            damage(report, "chunk %" PRIu64 " belongs to two entries", ranges->list[i].first);
        }
    }
}

static void check_ledger(const struct ledger *ledger, inspect_report *report)
{
    if (ledger->values != report->entries || ledger->tombstones != report->tombstones ||
        ledger->dirty != report->dirty) {
        damage(report,
               "the ledger counts %" PRIu64 " entries, %" PRIu64 " tombstones, %" PRIu64
               " dirty; there are %" PRIu64 ", %" PRIu64 ", %" PRIu64,
               ledger->values, ledger->tombstones, ledger->dirty, report->entries,
               report->tombstones, report->dirty);
    }
}

/* In the child: everything in one snapshot. */
static int walk(larder *handle, inspect_report *report)
{
    struct transaction *t;
    struct ranges ranges = {0};
    int result = LARDER_EBUSY;
    struct ledger ledger = {0};
    for (int tries = 0; tries < CHECK_TRIES; tries++) {
        result = registry_snapshot(handle->map, NULL, &t);
        if (result != LARDER_OK) {
            break;
        }
        /* The ledger copy of this snapshot is overwritten two transactions later. */
        if (ledger_read(t->store->life, t->number, &ledger)) {
            break;
        }
        store_read_end(t);
        result = LARDER_EBUSY;
    }
    if (result == LARDER_ECORRUPT) {
        damage(report, "%s", larder_last_error());
        return LARDER_ECORRUPT;
    }
    if (result != LARDER_OK) {
        return error_set(result, "no snapshot with its ledger to be had");
    }
    check_entries(t, report, &ranges);
    if (!report->damaged) {
        check_log(t, &ledger, report);
    }
    if (!report->damaged) {
        check_chunks(t, &ledger, report, &ranges);
    }
    if (!report->damaged) {
        check_ledger(&ledger, report);
    }
    store_read_end(t);
    free(ranges.list);
    return report->damaged ? LARDER_ECORRUPT : LARDER_OK;
}

/* ---- The child --------------------------------------------------------------------------------
 */

struct answer {
    int result;
    char error[384];
    inspect_report report;
};

static _Noreturn void child(larder *handle, int pipe)
{
    struct answer answer;
    memset(&answer, 0, sizeof answer);
    answer.result = walk(handle, &answer.report);
    (void)snprintf(answer.error, sizeof answer.error, "%s", larder_last_error());
    const char *at = (const char *)&answer;
    for (size_t left = sizeof answer; left > 0;) {
        ssize_t written = write(pipe, at, left);
        if (written <= 0 && errno != EINTR) {
            _exit(1);
        }
        at += written > 0 ? written : 0;
        left -= written > 0 ? (size_t)written : 0;
    }
    _exit(0);
}

/* Read the answer within the deadline; false: the child died or took too long. */
static bool receive(int pipe, struct answer *answer)
{
    int64_t until = clock_monotonic_ms() + CHECK_SECONDS * INT64_C(1000);
    char *at = (char *)answer;
    for (size_t left = sizeof *answer; left > 0;) {
        struct pollfd wait = {.fd = pipe, .events = POLLIN};
        int64_t rest = until - clock_monotonic_ms();
        if (rest <= 0 || (poll(&wait, 1, (int)rest) < 0 && errno != EINTR)) {
            return false;
        }
        ssize_t got = wait.revents == 0 ? 0 : read(pipe, at, left);
        if (got == 0 && wait.revents != 0) {
            return false;
        }
        if (got > 0) {
            at += got;
            left -= (size_t)got;
        } else if (got < 0 && errno != EINTR) {
            return false;
        }
    }
    return true;
}

int inspect_check(larder *handle, inspect_report *report)
{
    int pipes[2];
    struct answer answer;
    struct transaction *reader = NULL;
    memset(report, 0, sizeof *report);
    int result = handle_enter(handle);
    if (result != LARDER_OK) {
        return result;
    }
    /* The child reads through this thread's slot, idle meanwhile: one that it took for itself would
     * bear this process's number and stay. Where none is to be had the child says why. */
    if (registry_reader(handle->map, &reader) != LARDER_OK) {
        reader = NULL;
    }
    if (pipe2(pipes, O_CLOEXEC) != 0) {
        return error_system(LARDER_ESYSTEM, "pipe");
    }
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(pipes[0]);
        child(handle, pipes[1]);
    }
    (void)close(pipes[1]);
    if (pid < 0) {
        (void)close(pipes[0]);
        return error_system(LARDER_ESYSTEM, "fork");
    }
    bool answered = receive(pipes[0], &answer);
    (void)close(pipes[0]);
    if (!answered) {
        (void)kill(pid, SIGKILL);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (reader != NULL) {
        store_read_end(
            reader); /* the child may have died in a snapshot, which stands in our slot */
    }
    if (answered) {
        answer.error[sizeof answer.error - 1] = '\0';
        *report = answer.report;
        return answer.result < 0
                   ? error_set(answer.result, "%s",
                               answer.report.damaged ? answer.report.damage : answer.error)
                   : answer.result;
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL) {
        damage(report, "walking the trees ended in %s: a page of the map is damaged",
               strsignal(WTERMSIG(status)));
        return error_set(LARDER_ECORRUPT, "%s", report->damage);
    }
    if (WIFEXITED(status)) {
        return error_set(LARDER_ESYSTEM, "the process that checked ended with status %d",
                         WEXITSTATUS(status));
    }
    return error_set(LARDER_EBUSY, "the check did not end within %d s", CHECK_SECONDS);
}

size_t inspect_hot_keys(larder *handle, struct hot_key *keys, size_t max, uint64_t *total)
{
    *total = 0;
    return handle_enter(handle) != LARDER_OK
               ? 0
               : hot_keys_read(&map_control(handle->map)->hot_keys, keys, max, total);
}
