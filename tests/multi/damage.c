/* damage.c: what else can happen to files. A memory file system that is too small, a control
 * segment or data file that is cut off, flipped, foreign or of another boot, directories of the
 * wrong owner or mode, symbolic links, a handle that only reads. Each gets a clear error or a fresh
 * generation, from a process that was attached before as well as from one that comes later: no
 * crash, no wrong value, nothing that hangs.
 *
 * Every look is taken in a process of its own, so that a signal is seen as what it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"
#include "harness.h"
#include "inspect.h"
#include "larder.h"

enum { KEYS = 120, VALUE_MAX = 20000, REFUSED = 10 };

struct board {
    _Atomic uint32_t attached, damaged;
    _Atomic int code; /* of the last opening that was refused */
    char message[256];
};
static struct board *board;
static const char *directory;

static int open_with(uint32_t flags, uint64_t map_size, larder **handle)
{
    larder_options options = {.dir = directory, .map_size = map_size, .flags = flags};
    return larder_open("map", &options, handle);
}

static size_t key_text(char out[32], unsigned index)
{
    return (size_t)snprintf(out, 32, "key:%u", index);
}

static size_t size_of(unsigned index)
{
    return index % 5 == 0 ? VALUE_MAX - index : 50 + index;
}

static void set_keys(larder *handle)
{
    static uint8_t value[VALUE_MAX];
    char key[32];
    for (unsigned index = 0; index < KEYS; index++) {
        size_t key_size = key_text(key, index);
        test_value_fill(value, size_of(index), index + 1);
        int code = larder_set(handle, key, key_size, value, size_of(index), NULL);
        test_check(code == LARDER_OK, "set %s: %d %s", key, code, larder_last_error());
    }
}

/* Number of keys that are there; a value that is there is right. */
static unsigned count_keys(larder *handle)
{
    static uint8_t value[VALUE_MAX];
    char key[32];
    unsigned there = 0;
    for (unsigned index = 0; index < KEYS; index++) {
        larder_info info;
        size_t key_size = key_text(key, index);
        int code = larder_get(handle, key, key_size, value, sizeof value, &info);
        if (code == LARDER_MISS)
            continue;
        if (code < 0) {
            test_check(larder_last_error()[0] != '\0', "get %s: %d without a word", key, code);
            continue;
        }
        test_check(code == LARDER_OK && info.size == size_of(index) &&
                       test_value_is(value, info.size, index + 1),
                   "get %s: a wrong value of %" PRIu64 " bytes", key, info.size);
        there++;
    }
    return there;
}

static int make_map(void *context)
{
    (void)context;
    larder *handle = NULL;
    int code = open_with(0, 16u << 20, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    set_keys(handle);
    test_check(count_keys(handle) == KEYS, "not all keys are there");
    larder_close(&handle);
    return 0;
}

/* All kinds of calls on a map that may be damaged: any outcome, but no wrong value. */
static void use_damaged(larder *handle)
{
    static uint8_t value[VALUE_MAX];
    char key[32];
    count_keys(handle);
    larder_cursor cursor = {0};
    size_t found = 0;
    for (unsigned round = 0; round < KEYS; round++) {
        larder_item items[16];
        void *memory = NULL;
        if (larder_scan(handle, &cursor, (larder_bytes){"key", 3}, items, 16, LARDER_SCAN_VALUES,
                        &found, &memory) < 0 ||
            found == 0) {
            break;
        }
        larder_free(memory);
    }
    for (unsigned index = 0; index < KEYS; index += 3) {
        size_t key_size = key_text(key, index);
        larder_view view;
        if (larder_borrow(handle, key, key_size, &view) == LARDER_OK) {
            size_t sum = 0;
            for (size_t part = 0; part < view.part_count; part++) {
                sum += view.parts[part].iov_len;
                volatile uint8_t byte = *(const uint8_t *)view.parts[part].iov_base;
                (void)byte;
            }
            test_check(sum == view.info.size, "a view of %zu bytes", sum);
            larder_release(handle, &view);
        }
        larder_delete(handle, key, key_size);
        test_value_fill(value, size_of(index), index + 1);
        larder_set(handle, key, key_size, value, size_of(index), NULL);
        larder_incr(handle, "count", 5, 1, NULL, NULL);
    }
    count_keys(handle);
    inspect_report report;
    inspect_check(handle, &report);
    larder_stats stats;
    larder_stats_read(handle, &stats, sizeof stats);
    count_keys(handle);
}

static int attached_before(void *context)
{
    (void)context;
    signal(SIGBUS, SIG_DFL); /* a sanitizer would make an exit of it */
    larder *handle = NULL;
    int code = open_with(LARDER_VERIFY, 0, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    test_check(count_keys(handle) == KEYS, "not all keys are there");
    atomic_store(&board->attached, 1);
    while (!atomic_load(&board->damaged))
        test_pause_us(100);
    use_damaged(handle);
    larder_close(&handle);
    return 0;
}

/* Exit 0: open, REFUSED: an error with words. */
static int comes_later(void *context)
{
    uint32_t flags = *(uint32_t *)context;
    larder *handle = NULL;
    int code = open_with(flags | LARDER_VERIFY, 0, &handle);
    if (code < 0) {
        test_check(handle == NULL && larder_last_error()[0] != '\0', "open: %d without a word",
                   code);
        snprintf(board->message, sizeof board->message, "%s", larder_last_error());
        atomic_store(&board->code, code);
        return REFUSED;
    }
    use_damaged(handle);
    larder_close(&handle);
    return 0;
}

/* The same, and what is set is there; how many of the old keys are expected. */
struct expectation {
    unsigned least, most;
};

static int finds_it_working(void *context)
{
    struct expectation *expected = context;
    larder *handle = NULL;
    int code = open_with(LARDER_VERIFY, 0, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    unsigned there = count_keys(handle);
    test_check(there >= expected->least && there <= expected->most, "%u of %d keys are there",
               there, KEYS);
    set_keys(handle);
    test_check(count_keys(handle) == KEYS, "what was set is not there");
    inspect_report report;
    code = inspect_check(handle, &report);
    test_check(code == LARDER_OK && !report.damaged, "check: %d %s", code,
               report.damaged ? report.damage : larder_last_error());
    larder_close(&handle);
    return 0;
}

/* ---- Doing damage -------------------------------------------------------------------------- */

static void map_path(char out[512], const char *file)
{
    snprintf(out, 512, "%s/map%s%s", directory, *file != '\0' ? "/" : "", file);
}

static void data_path(char out[512])
{
    char pattern[512];
    glob_t found;
    map_path(pattern, "g[0-9]*/data.mdb");
    test_check(glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc >= 1, "no %s", pattern);
    snprintf(out, 512, "%s", found.gl_pathv[0]);
    globfree(&found);
}

static void cut(const char *path, off_t size)
{
    test_check(truncate(path, size) == 0, "truncate %s: %s", path, strerror(errno));
}

static off_t size_of_file(const char *path)
{
    struct stat status;
    test_check(stat(path, &status) == 0, "stat %s: %s", path, strerror(errno));
    return status.st_size;
}

static void overwrite(const char *path, off_t offset, const void *bytes, size_t size)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    test_check(file >= 0 && pwrite(file, bytes, size, offset) == (ssize_t)size, "write %s: %s",
               path, strerror(errno));
    close(file);
}

static void flip(const char *path, off_t offset, unsigned bit)
{
    int file = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte = 0;
    test_check(file >= 0 && pread(file, &byte, 1, offset) == 1, "read %s: %s", path,
               strerror(errno));
    byte = (uint8_t)(byte ^ (1u << bit));
    test_check(pwrite(file, &byte, 1, offset) == 1, "write %s: %s", path, strerror(errno));
    close(file);
}

static void on_control(off_t offset, const void *bytes, size_t size)
{
    char path[512];
    map_path(path, "control");
    overwrite(path, offset, bytes, size);
}

static void control_empty(void)
{
    char path[512];
    map_path(path, "control");
    cut(path, 0);
}
static void control_one_page(void)
{
    char path[512];
    map_path(path, "control");
    cut(path, 4096);
}
static void control_half(void)
{
    char path[512];
    map_path(path, "control");
    cut(path, size_of_file(path) / 2);
}
static void control_less_one(void)
{
    char path[512];
    map_path(path, "control");
    cut(path, size_of_file(path) - 1);
}
static void control_foreign(void)
{
    on_control(0, "#!/bin/sh\necho not yours\n", 24);
}
static void control_format(void)
{
    uint32_t format = CONTROL_FORMAT + 1;
    on_control(offsetof(struct control, format), &format, sizeof format);
}
static void control_order(void)
{
    uint32_t order = 0x04030201;
    on_control(offsetof(struct control, byte_order), &order, sizeof order);
}
static void control_pages(void)
{
    uint32_t size = 16384;
    on_control(offsetof(struct control, page_size), &size, sizeof size);
}
static void control_boot(void)
{
    uint8_t id[16] = "another boot";
    on_control(offsetof(struct control, boot_id), id, sizeof id);
}
static void control_gone(void)
{
    char path[512];
    map_path(path, "control");
    test_check(unlink(path) == 0, "unlink: %s", strerror(errno));
}
static void control_is_directory(void)
{
    char path[512];
    control_gone();
    map_path(path, "control");
    test_check(mkdir(path, 0700) == 0, "mkdir: %s", strerror(errno));
}
static void control_is_link(void)
{
    char path[512], target[512];
    map_path(path, "control");
    snprintf(target, sizeof target, "%s/elsewhere", directory);
    test_check(rename(path, target) == 0 && symlink(target, path) == 0, "%s", strerror(errno));
}
static void data_empty(void)
{
    char path[512];
    data_path(path);
    cut(path, 0);
}
static void data_one_page(void)
{
    char path[512];
    data_path(path);
    cut(path, 4096);
}
static void data_some_pages(void)
{
    char path[512];
    data_path(path);
    cut(path, 20 * 4096);
}
static void data_half(void)
{
    char path[512];
    data_path(path);
    cut(path, size_of_file(path) / 2);
}
static void data_foreign(void)
{
    char path[512];
    uint8_t bytes[16384];
    data_path(path);
    test_value_fill(bytes, sizeof bytes, 12345);
    overwrite(path, 0, bytes, sizeof bytes);
}
static void data_gone(void)
{
    char path[512];
    data_path(path);
    test_check(unlink(path) == 0, "unlink: %s", strerror(errno));
}
static void directory_gone(void)
{
    char path[512];
    map_path(path, "");
    test_remove_tree(path);
}
static void directory_is_link(void)
{
    char path[512], target[512];
    map_path(path, "");
    snprintf(target, sizeof target, "%s/elsewhere", directory);
    test_check(rename(path, target) == 0 && symlink(target, path) == 0, "%s", strerror(errno));
}
static void directory_open_to_all(void)
{
    char path[512];
    map_path(path, "");
    test_check(chmod(path, 0777) == 0, "chmod: %s", strerror(errno));
}

enum outcome {
    FRESH,  /* opens, nothing of the old data is there, all works */
    WORKS,  /* opens, all works, whatever is left of the old data */
    REFUSE, /* an error, always the same */
    EITHER  /* an error, or it works */
};

struct damage {
    const char *name;
    void (*inflict)(void);
    enum outcome outcome;
    int code;     /* of REFUSE; 0: any */
    bool shrinks; /* a file that is mapped: see ended() */
};

static const struct damage damages[] = {
    {"control segment empty", control_empty, FRESH, 0, true},
    {"control segment of one page", control_one_page, FRESH, 0, true},
    {"control segment cut in half", control_half, FRESH, 0, true},
    {"control segment without its last byte", control_less_one, FRESH, 0, false},
    {"control segment is a script", control_foreign, FRESH, 0, false},
    {"control segment of another format", control_format, REFUSE, LARDER_EFORMAT, false},
    {"control segment of another byte order", control_order, REFUSE, LARDER_EFORMAT, false},
    {"control segment of another page size", control_pages, FRESH, 0, false},
    {"control segment of another boot", control_boot, FRESH, 0, false},
    {"control segment gone", control_gone, FRESH, 0, false},
    {"control segment is a directory", control_is_directory, REFUSE, LARDER_EACCESS, false},
    {"control segment is a symbolic link", control_is_link, REFUSE, LARDER_EACCESS, false},
    {"data file empty", data_empty, WORKS, 0, true},
    {"data file of one page", data_one_page, WORKS, 0, true},
    {"data file of twenty pages", data_some_pages, WORKS, 0, true},
    {"data file cut in half", data_half, WORKS, 0, true},
    {"data file is foreign", data_foreign, WORKS, 0, false},
    {"data file gone", data_gone, WORKS, 0, false},
    {"directory gone", directory_gone, FRESH, 0, false},
    {"directory is a symbolic link", directory_is_link, REFUSE, LARDER_EACCESS, false},
    {"directory writable by all", directory_open_to_all, REFUSE, LARDER_EACCESS, false},
};

static unsigned crashes, bus_errors, writer_crashes;

/* What may end a process that is about to write, beside itself. */
enum forgiven {
    NOTHING,
    CUT_OFF, /* a file that is mapped is cut off: the kernel sends SIGBUS, and the library does not
                take that signal away from its host */
    TRUSTED  /* a bit is wrong in LMDB's pages: readers check them, but LMDB, which writes, does not
              */
};

/* A crash is counted and told; the test fails in the end, when all cases have been seen. */
static int ended(pid_t child, const char *name, const char *who, enum forgiven forgiven)
{
    int status = test_wait(child, 20000);
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == REFUSED)) {
        return WEXITSTATUS(status);
    }
    fprintf(stderr, "%s: %s: %s\n", name, who, test_status_text(status));
    int signal_number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (forgiven == CUT_OFF && signal_number == SIGBUS) {
        bus_errors++;
    } else if (forgiven == TRUSTED && (signal_number == SIGSEGV || signal_number == SIGBUS)) {
        writer_crashes++;
    } else {
        crashes++;
    }
    return -1;
}

static pid_t begin_case(void)
{
    char path[512];
    map_path(path, "");
    test_remove_tree(path);
    snprintf(path, sizeof path, "%s/elsewhere", directory);
    test_remove_tree(path);
    memset(board, 0, sizeof *board);
    test_join(test_spawn(make_map, NULL), 10000, "the maker");
    pid_t child = test_spawn(attached_before, NULL);
    test_until(atomic_load(&board->attached), 10000, "the attached process does not begin");
    return child;
}

static void one_damage(const struct damage *damage)
{
    struct expectation expected = {0, damage->outcome == FRESH ? 0 : KEYS};
    uint32_t attach = LARDER_ATTACH, none = 0;
    /* with a process that is attached, and one that comes while it lives */
    pid_t child = begin_case();
    damage->inflict();
    pid_t later = test_spawn(comes_later, &none);
    atomic_store(&board->damaged, 1);
    ended(child, damage->name, "attached before", damage->shrinks ? CUT_OFF : NOTHING);
    int result = ended(later, damage->name, "comes later", NOTHING);
    if (damage->outcome == REFUSE && result >= 0) {
        test_check(result == REFUSED, "%s: not refused", damage->name);
        int code = atomic_load(&board->code);
        test_check(damage->code == 0 || code == damage->code, "%s: %d %s", damage->name, code,
                   board->message);
    }
    printf("%s: %s\n", damage->name, result == REFUSED ? board->message : "goes on");
    if (damage->outcome == FRESH || damage->outcome == WORKS) {
        expected = (struct expectation){0, KEYS}; /* the others have already set keys */
        ended(test_spawn(finds_it_working, &expected), damage->name, "comes last", NOTHING);
    }
    /* with nobody attached */
    child = begin_case();
    test_kill(child);
    damage->inflict();
    ended(test_spawn(comes_later, &attach), damage->name, "only attaches", NOTHING);
    if (damage->outcome == FRESH || damage->outcome == WORKS) {
        child = begin_case();
        test_kill(child);
        damage->inflict();
        expected = (struct expectation){0, damage->outcome == FRESH ? 0 : KEYS};
        ended(test_spawn(finds_it_working, &expected), damage->name, "comes alone", NOTHING);
    }
}

static void random_flips(uint64_t rounds)
{
    test_random random = test_random_new(5);
    unsigned refused = 0;
    for (uint64_t round = 0; round < rounds; round++) {
        char path[512], name[96];
        uint32_t none = 0;
        bool control = round % 3 == 0;
        pid_t child = begin_case();
        control ? map_path(path, "control") : data_path(path);
        /* what is in use: the beginning of either file */
        uint64_t bytes = (uint64_t)size_of_file(path);
        uint64_t limit = control ? bytes : 800u << 10;
        if (control && round % 2 == 0)
            limit = 2048;
        uint64_t count = 1 + test_random_below(&random, 8);
        for (uint64_t at = 0; at < count; at++) {
            flip(path, (off_t)test_random_below(&random, limit < bytes ? limit : bytes),
                 (unsigned)test_random_below(&random, 8));
        }
        snprintf(name, sizeof name, "%" PRIu64 " bits of %s flipped, round %" PRIu64, count,
                 control ? "the control segment" : "the data", round);
        atomic_store(&board->damaged, 1);
        enum forgiven forgiven = control ? NOTHING : TRUSTED;
        ended(child, name, "attached before", forgiven);
        refused += ended(test_spawn(comes_later, &none), name, "comes later", forgiven) == REFUSED;
    }
    test_figure("damage_flips_writer_crashes", writer_crashes, "count");
    test_check(writer_crashes <= 1 + rounds / 20, "%u processes crashed over flipped bits",
               writer_crashes);
    test_figure("damage_flips", (double)rounds, "count");
    test_figure("damage_flips_refused", refused, "count");
}

/* ---- Trees, and those who only read --------------------------------------------------------- */

/* What a page of LMDB's begins with. */
struct page_header {
    uint64_t number;
    uint16_t pad, flags, lower, upper;
};

/* Spoil count places of the pages of trees: headers, pointers, the heads of nodes. */
static void spoil_trees(test_random *random, unsigned count)
{
    enum { PAGE = 4096, BRANCH = 1, LEAF = 2 };
    char path[512];
    data_path(path);
    int file = open(path, O_RDWR | O_CLOEXEC);
    test_check(file >= 0, "open %s: %s", path, strerror(errno));
    for (unsigned tries = 0; count > 0 && tries < 100000; tries++) {
        uint8_t page[PAGE];
        struct page_header header;
        off_t number = (off_t)test_random_below(random, 200);
        test_check(pread(file, page, sizeof page, number * PAGE) == PAGE, "read a page");
        memcpy(&header, page, sizeof header);
        if (header.number != (uint64_t)number || (header.flags & (BRANCH | LEAF)) == 0 ||
            header.lower <= sizeof header || header.lower > PAGE) {
            continue;
        }
        uint64_t nodes = (header.lower - sizeof header) / 2, kind = test_random_below(random, 3);
        size_t offset = test_random_below(random, sizeof header); /* of the header */
        uint16_t node = 0;
        memcpy(&node, page + sizeof header + 2 * test_random_below(random, nodes), sizeof node);
        if (kind == 1) {
            offset = sizeof header + test_random_below(random, 2 * nodes);
        } else if (kind == 2 && node < PAGE - 8) {
            offset = node + test_random_below(random, 8);
        }
        uint8_t byte = (uint8_t)test_random_below(random, 256);
        test_check(pwrite(file, &byte, 1, number * PAGE + (off_t)offset) == 1, "write a page");
        count--;
    }
    close(file);
}

static void read_damaged(larder *handle)
{
    char key[32];
    count_keys(handle);
    for (unsigned index = 0; index < KEYS; index++) {
        size_t key_size = key_text(key, index);
        larder_view view;
        larder_has(handle, key, key_size);
        if (larder_borrow(handle, key, key_size, &view) == LARDER_OK) {
            for (size_t part = 0; part < view.part_count; part++) {
                volatile uint8_t byte = *(const uint8_t *)view.parts[part].iov_base;
                (void)byte;
            }
            larder_release(handle, &view);
        }
    }
    larder_cursor cursor = {0};
    size_t found = 0;
    do {
        larder_item items[16];
        void *memory = NULL;
        if (larder_scan(handle, &cursor, (larder_bytes){"", 0}, items, 16, LARDER_SCAN_VALUES,
                        &found, &memory) < 0) {
            break;
        }
        larder_free(memory);
    } while (found > 0);
    larder_stats stats;
    larder_stats_read(handle, &stats, sizeof stats);
}

static int reads_before(void *context)
{
    (void)context;
    larder *handle = NULL;
    int code = open_with(LARDER_READ_ONLY | LARDER_VERIFY, 0, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    atomic_store(&board->attached, 1);
    while (!atomic_load(&board->damaged))
        test_pause_us(100);
    read_damaged(handle);
    larder_close(&handle);
    return 0;
}

static int reads_later(void *context)
{
    (void)context;
    larder *handle = NULL;
    if (open_with(LARDER_READ_ONLY | LARDER_VERIFY, 0, &handle) < 0) {
        return REFUSED;
    }
    read_damaged(handle);
    larder_close(&handle);
    return 0;
}

/* Whatever has happened to the trees: those who only read, and those who come to read, go on. */
static void readers_of_spoilt_trees(uint64_t rounds)
{
    test_random random = test_random_new(6);
    for (uint64_t round = 0; round < rounds; round++) {
        char name[64];
        test_kill(begin_case());
        atomic_store(&board->attached, 0);
        pid_t child = test_spawn(reads_before, NULL);
        test_until(atomic_load(&board->attached), 10000, "the reader does not begin");
        spoil_trees(&random, 1 + (unsigned)test_random_below(&random, 20));
        snprintf(name, sizeof name, "spoilt trees, round %" PRIu64, round);
        atomic_store(&board->damaged, 1);
        ended(child, name, "reads, attached before", NOTHING);
        ended(test_spawn(reads_later, NULL), name, "reads, comes later", NOTHING);
    }
    test_figure("damage_spoilt_trees", (double)rounds, "count");
}

/* ---- Too little space ---------------------------------------------------------------------- */

static unsigned count_files(const char *path)
{
    char pattern[520];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/*", path);
    unsigned count = glob(pattern, 0, NULL, &found) == 0 ? (unsigned)found.gl_pathc : 0;
    globfree(&found);
    return count;
}

static int no_space_for(uint64_t map_size)
{
    larder *handle = NULL;
    int code = open_with(0, map_size, &handle);
    test_check(code == LARDER_ENOSPACE, "a map of %" PRIu64 " bytes: %d %s", map_size, code,
               larder_last_error());
    test_check(handle == NULL && larder_last_error()[0] != '\0', "no words");
    printf("message: %s\n", larder_last_error());
    return 0;
}

/* But for an empty directory, which another process may already be filling. */
static void nothing_is_left(void)
{
    char path[512];
    map_path(path, "");
    test_check(count_files(path) == 0, "%u things are left in %s", count_files(path), path);
}

static int over_free_space(void *context)
{
    (void)context;
    struct statvfs space;
    test_check(statvfs(directory, &space) == 0, "statvfs: %s", strerror(errno));
    uint64_t available = (uint64_t)space.f_bavail * space.f_frsize;
    no_space_for((available + (UINT64_C(64) << 30)) & ~UINT64_C(4095));
    nothing_is_left();
    return 0;
}

/* Default sizes leave room for all that belongs to a map: down to the least map and its control
 * segment, a little over 22 MiB. */
static void default_sizes_fit(const char *small)
{
    for (unsigned megabytes = 23; megabytes <= 48; megabytes++) {
        char options[64], name[32];
        snprintf(options, sizeof options, "size=%um,mode=0700", megabytes);
        snprintf(name, sizeof name, "of-%u", megabytes);
        test_check(mount("none", small, "tmpfs", 0, options) == 0, "mount: %s", strerror(errno));
        larder *handle = NULL;
        larder_options defaults = {.dir = small};
        int code = larder_open(name, &defaults, &handle);
        test_check(code == LARDER_OK, "a map on %u MiB: %d %s", megabytes, code,
                   larder_last_error());
        test_check(larder_set(handle, "k", 1, "v", 1, NULL) == LARDER_OK, "set: %s",
                   larder_last_error());
        larder_close(&handle);
        test_check(umount2(small, MNT_DETACH) == 0, "umount: %s", strerror(errno));
    }
}

enum { SMALL = 12 << 20, FILE_PAGE = 4096, BEFORE = 8, BEHIND = 40, READERS = 100 };

/* A map that does not fit: an error, whatever page behind the control segment is the last. */
static void whatever_is_left(const char *small)
{
    char path[600];
    test_check(mount("none", small, "tmpfs", 0, "size=12m,mode=0700") == 0, "mount: %s",
               strerror(errno));
    snprintf(path, sizeof path, "%s/ballast", small);
    int control = (int)(sizeof(struct control) / FILE_PAGE);
    for (int pages = control - BEFORE; pages < control + BEHIND; pages++) {
        larder *handle = NULL;
        larder_options options = {.dir = small, .map_size = 16u << 20};
        int file = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
        test_check(file >= 0 && posix_fallocate(file, 0, SMALL - pages * FILE_PAGE) == 0,
                   "ballast");
        close(file);
        int code = larder_open("part", &options, &handle);
        test_check(code == LARDER_ENOSPACE, "%d pages are left: %d %s", pages, code,
                   larder_last_error());
    }
    test_check(umount2(small, MNT_DETACH) == 0, "umount: %s", strerror(errno));
}

static pthread_barrier_t all_read;

static void *read_beside(void *handle)
{
    test_check(larder_has(handle, "more:1499", 9) == LARDER_OK, "a reader: %s",
               larder_last_error());
    pthread_barrier_wait(&all_read); /* as many at once */
    return NULL;
}

/* Each takes a slot of LMDB's lock file, of which nobody has touched more than the first page. */
static void many_readers(larder *handle)
{
    pthread_t threads[READERS];
    test_check(pthread_barrier_init(&all_read, NULL, READERS) == 0, "barrier");
    for (size_t i = 0; i < READERS; i++)
        test_check(pthread_create(&threads[i], NULL, read_beside, handle) == 0, "thread");
    for (size_t i = 0; i < READERS; i++)
        test_check(pthread_join(threads[i], NULL) == 0, "join");
}

static int on_small_file_system(void *context)
{
    (void)context;
    if (unshare(CLONE_NEWNS) != 0)
        return TEST_SKIP;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return TEST_SKIP;
    char small[512];
    snprintf(small, sizeof small, "%s/small", directory);
    if (mkdir(small, 0700) != 0 || mount("none", small, "tmpfs", 0, "size=8m,mode=0700") != 0) {
        return TEST_SKIP;
    }
    test_check(umount2(small, MNT_DETACH) == 0, "umount: %s", strerror(errno));
    default_sizes_fit(small);
    whatever_is_left(small);
    test_check(mount("none", small, "tmpfs", 0, "size=8m,mode=0700") == 0, "mount again");
    directory = small;
    no_space_for(0);
    no_space_for(64u << 20);
    nothing_is_left();
    test_check(mount("none", small, "tmpfs", MS_REMOUNT, "size=32m,mode=0700") == 0, "remount");
    larder *handle = NULL;
    int code = open_with(0, 0, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    set_keys(handle);
    /* somebody else takes the rest: what is preallocated stays ours */
    char path[600];
    snprintf(path, sizeof path, "%s/ballast", small);
    int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    static uint8_t ballast[65536];
    while (write(file, ballast, sizeof ballast) > 0)
        continue;
    close(file);
    static uint8_t value[60000];
    for (uint64_t index = 0; index < 1500; index++) { /* 90 MB through 16 */
        char key[32];
        size_t key_size = (size_t)snprintf(key, sizeof key, "more:%" PRIu64, index);
        test_value_fill(value, sizeof value, index);
        code = larder_set(handle, key, key_size, value, sizeof value, NULL);
        test_check(code == LARDER_OK, "set: %d %s", code, larder_last_error());
    }
    larder *other = NULL;
    larder_options options = {.dir = directory, .map_size = 16u << 20};
    code = larder_open("other", &options, &other);
    test_check(code == LARDER_ENOSPACE, "a second map: %d %s", code, larder_last_error());
    test_check(larder_has(handle, "more:1499", 9) == LARDER_OK, "the first map was hurt");
    many_readers(handle);
    larder_close(&handle);
    return 0;
}

/* ---- Who may, and handles that only read --------------------------------------------------- */

static int as_nobody(void *context)
{
    (void)context;
    test_check(setgid(65534) == 0 && setuid(65534) == 0, "setuid: %s", strerror(errno));
    larder *handle = NULL;
    int code = open_with(0, 0, &handle);
    test_check(code == LARDER_EACCESS, "open of another user's map: %d %s", code,
               larder_last_error());
    printf("message: %s\n", larder_last_error());
    return 0;
}

static void wrong_owner(void)
{
    char path[512];
    if (geteuid() != 0) {
        printf("wrong owner: not tried, needs root\n");
        return;
    }
    test_kill(begin_case());
    map_path(path, "");
    test_check(chmod(directory, 0755) == 0 && chown(path, 1234, 1234) == 0 &&
                   chmod(path, 0755) == 0,
               "%s", strerror(errno));
    test_join(test_spawn(as_nobody, NULL), 10000, "nobody on a stranger's directory");
    test_check(chown(path, 0, 0) == 0 && chmod(path, 0700) == 0, "%s", strerror(errno));
    test_join(test_spawn(as_nobody, NULL), 10000, "nobody on root's directory");
    test_check(chmod(path, 0755) == 0, "%s", strerror(errno));
    test_join(test_spawn(as_nobody, NULL), 10000, "nobody on root's files");
    test_check(chmod(directory, 0700) == 0, "%s", strerror(errno));
}

static int read_only(void *context)
{
    (void)context;
    larder *handle = NULL;
    larder_item item = {.key = "k", .key_size = 1, .value = "v", .value_size = 1};
    larder_expiry expiry = larder_expire_in(1000);
    larder_version version = {0};
    int code = open_with(LARDER_READ_ONLY, 0, &handle);
    test_check(code == LARDER_OK, "open: %d %s", code, larder_last_error());
    test_check(count_keys(handle) == KEYS, "not all keys are there");
    test_check(larder_set(handle, "k", 1, "v", 1, NULL) == LARDER_EREADONLY, "set");
    test_check(larder_add(handle, "k", 1, "v", 1, NULL) == LARDER_EREADONLY, "add");
    test_check(larder_replace(handle, "key:1", 5, "v", 1, NULL) == LARDER_EREADONLY, "replace");
    test_check(larder_cas(handle, "key:1", 5, "v", 1, &version, NULL) == LARDER_EREADONLY, "cas");
    test_check(larder_delete(handle, "key:1", 5) == LARDER_EREADONLY, "delete");
    test_check(larder_touch(handle, "key:1", 5, &expiry) == LARDER_EREADONLY, "touch");
    test_check(larder_incr(handle, "n", 1, 1, NULL, NULL) == LARDER_EREADONLY, "incr");
    test_check(larder_set_many(handle, &item, 1, NULL) == LARDER_EREADONLY, "set_many");
    test_check(larder_delete_many(handle, &item, 1) == LARDER_EREADONLY, "delete_many");
    test_check(count_keys(handle) == KEYS, "a refused write changed something");
    larder_close(&handle);
    return 0;
}

static int attach_to_nothing(void *context)
{
    uint32_t flags = *(uint32_t *)context;
    larder *handle = NULL;
    int code = open_with(flags, 0, &handle);
    test_check(code == LARDER_ENOTFOUND && handle == NULL, "attach to nothing: %d %s", code,
               larder_last_error());
    test_check(count_files(directory) == 0, "attaching made something");
    return 0;
}

int main(void)
{
    test_begin("damage", 120);
    directory = test_directory();
    board = test_shared(sizeof *board);
    uint32_t attach = LARDER_ATTACH, only = LARDER_READ_ONLY;
    test_join(test_spawn(attach_to_nothing, &attach), 10000, "attach");
    test_join(test_spawn(attach_to_nothing, &only), 10000, "read only");
    test_join(test_spawn(over_free_space, NULL), 10000, "a map over the free space");
    int status = test_wait(test_spawn(on_small_file_system, NULL), 30000);
    if (WIFEXITED(status) && WEXITSTATUS(status) == TEST_SKIP) {
        printf("small file system: not tried, no permission to mount\n");
    } else {
        test_check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a small file system: %s",
                   test_status_text(status));
    }
    test_kill(begin_case());
    test_join(test_spawn(read_only, NULL), 10000, "a handle that only reads");
    wrong_owner();
    for (size_t at = 0; at < sizeof damages / sizeof damages[0]; at++)
        one_damage(&damages[at]);
    random_flips(test_number("LARDER_ROUNDS", 60, 5000) / TEST_SLOWNESS);
    readers_of_spoilt_trees(test_number("LARDER_ROUNDS", 60, 5000) / TEST_SLOWNESS);
    test_figure("damage_bus_errors_of_attached", bus_errors, "count");
    test_figure("damage_kinds", (double)(sizeof damages / sizeof damages[0]), "count");
    test_check(crashes == 0, "%u processes did not end well", crashes);
    test_end();
}
