/* bench_peers: larder beside plain LMDB, APCu, Yac, tdb, uWSGI's cache, memcached, Redis and a bare
 * hash table: get, set and nine gets to a set; one and two processes; uniform and Zipf 0.99. All
 * stores are filled, then rounds go through all cells, the peers taking turns within each, so that
 * what the machine does meanwhile meets all of them.
 *
 *   bench_peers [--full | --bars | --huge] [--peers NAME,NAME...] [--entries N --size BYTES]
 *               [--rounds N] [--window-ms N] [--hot-size BYTES] [--dir DIRECTORY] [--svg FILE]
 *
 * The plot goes to peers.svg beside the program, or to FILE.
 * --bars measures what the library is held to, exits 0 all the same. --huge (as root) compares file
 * systems with and without huge pages, mounted in a namespace of its own. What cannot be run is
 * said, and why.
 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/measure.h"
#include "bench/peers/drive.h"
#include "bench/peers/result.h"

enum { LIMIT_S = 3600 };

#ifndef PEER_SOURCE_DIR
#define PEER_SOURCE_DIR "bench/peers"
#endif

static const struct peer *const all_peers[] = {
    &peer_larder, &peer_larder_cold, &peer_lmdb,  &peer_table,     &peer_tdb,
    &peer_apcu,   &peer_yac,         &peer_uwsgi, &peer_memcached, &peer_redis,
};
enum { PEERS = sizeof all_peers / sizeof *all_peers };

/* A file system under test, besides the one of the directory. */
struct place {
    const char *label, *mount_options; /* NULL: no mount */
    char root[300];
};

struct settings {
    bool full, bars, huge;
    const char *peers, *svg;
    uint64_t entries, size, rounds, window_ns, hot_size;
    struct place places[4];
    unsigned place_count;
};

static struct result result;
static struct settings settings;
static const char php_script[] = PEER_SOURCE_DIR "/php_worker.php";

/* "--name TEXT", else NULL. */
static const char *text_option(int argc, char **argv, const char *name)
{
    for (int at = 1; at < argc && argv[at] != NULL; at++) {
        if (strcmp(argv[at], name) != 0)
            continue;
        if (at + 1 == argc) {
            fprintf(stderr, "%s wants an argument\n", name);
            exit(2);
        }
        return argv[at + 1];
    }
    return NULL;
}

static bool flag_option(int argc, char **argv, const char *name)
{
    for (int at = 1; at < argc && argv[at] != NULL; at++) {
        if (strcmp(argv[at], name) == 0)
            return true;
    }
    return false;
}

static void refuse_unknown(int argc, char **argv)
{
    static const char *const flags[] = {"--full", "--bars", "--huge", NULL};
    static const char *const with_value[] = {"--peers",  "--entries",   "--size",
                                             "--rounds", "--window-ms", "--hot-size",
                                             "--dir",    "--svg",       NULL};
    for (int at = 1; at < argc && argv[at] != NULL; at++) {
        bool known = false;
        for (size_t which = 0; flags[which] != NULL; which++)
            known |= strcmp(argv[at], flags[which]) == 0;
        for (size_t which = 0; !known && with_value[which] != NULL; which++) {
            if (strcmp(argv[at], with_value[which]) == 0) {
                known = true;
                at++;
                break;
            }
        }
        if (!known) {
            fprintf(stderr, "bench_peers: unknown option %s\n", argv[at]);
            exit(2);
        }
    }
}

/* Whether it is on the list of --peers; larder-cold runs for the bars and by name. */
static bool wanted(const struct peer *peer)
{
    size_t size = strlen(peer->name);
    if (settings.huge)
        return peer == &peer_larder || peer == &peer_lmdb;
    if (settings.peers == NULL)
        return settings.bars || settings.full || peer != &peer_larder_cold;
    for (const char *at = settings.peers; *at != '\0';) {
        size_t next = strcspn(at, ",");
        if (next == size && memcmp(at, peer->name, size) == 0)
            return true;
        at += next + (at[next] == ',');
    }
    return false;
}

/* What lies beside this program in the build. NULL: it is not there. */
static const char *built(char out[512], const char *name)
{
    char beside[300];
    ssize_t size = readlink("/proc/self/exe", beside, sizeof beside - 1);
    beside[size > 0 ? size : 0] = '\0';
    char *slash = strrchr(beside, '/');
    if (slash != NULL)
        *slash = '\0';
    snprintf(out, 512, "%s/%s", beside, name);
    return access(out, R_OK) == 0 ? out : NULL;
}

/* ---- Cells ---------------------------------------------------------------------------------- */

static void add_cell(struct result_size *size, enum drive_operation operation,
                     enum workload workload, unsigned processes)
{
    test_check(size->cell_count < RESULT_CELLS_MAX, "too many cells");
    size->cells[size->cell_count++] = (struct drive_cell){operation, workload, processes};
}

static void add_size(uint64_t entries, uint64_t value_size)
{
    struct result_size *size = &result.sizes[result.size_count++];
    const char *unit = entries % 1000000 == 0 ? "m" : entries % 1000 == 0 ? "k" : "";
    uint64_t scale = entries % 1000000 == 0 ? 1000000 : entries % 1000 == 0 ? 1000 : 1;
    test_check(result.size_count < RESULT_SIZES_MAX, "too many sizes");
    snprintf(size->name, sizeof size->name, "%" PRIu64 "%s_%" PRIu64, entries / scale, unit,
             value_size);
    size->entries = entries;
    size->value_size = value_size;
    bool million = entries == 1000000, large = value_size > 4096;
    for (enum workload keys = WORKLOAD_ZIPF; keys <= WORKLOAD_UNIFORM; keys++) {
        add_cell(size, DRIVE_GET, keys, 1);
        if (settings.bars && (keys == WORKLOAD_UNIFORM || large))
            continue;
        if (!settings.bars || million)
            add_cell(size, DRIVE_GET, keys, 2);
        if (settings.huge && keys == WORKLOAD_UNIFORM)
            continue;
        add_cell(size, DRIVE_SET, keys, 1);
        add_cell(size, DRIVE_SET, keys, 2);
        if (!settings.bars)
            add_cell(size, DRIVE_MIX, keys, 1);
        add_cell(size, DRIVE_MIX, keys, 2);
    }
}

static void choose_sizes(void)
{
    if (settings.entries > 0) {
        add_size(settings.entries, settings.size > 0 ? settings.size : 100);
        return;
    }
    add_size(1000000, 100);
    if (settings.huge)
        return;
    add_size(100000, 100);
    if (settings.full) {
        add_size(100000, 1024);
        add_size(1000000, 1024);
    }
    add_size(10000, 16384);
}

/* ---- A size: fill all, take rounds ---------------------------------------------------------- */

static struct drive_instance instances[RESULT_PEERS_MAX];

static uint64_t memory_available(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t kilobytes = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "MemAvailable:", 13) == 0)
            kilobytes = strtoull(line + 13, NULL, 10);
    }
    if (file != NULL)
        fclose(file);
    return kilobytes * 1024;
}

static void open_all(struct result_size *size, const char *streams)
{
    struct peer_setup setup = {.streams = streams,
                               .entries = size->entries,
                               .value_size = size->value_size,
                               .hot_size = settings.hot_size};
    static char uwsgi[512], yac[512];
    setup.php_script = access(php_script, R_OK) == 0 ? php_script : NULL;
    setup.uwsgi_library = built(uwsgi, ".libs/peers_uwsgi.so");
    setup.yac_library = built(yac, "yac.so"); /* ./dev puts it there */
    unsigned count = 0;
    for (unsigned place = 0; place < settings.place_count; place++) {
        for (unsigned at = 0; at < PEERS; at++) {
            char label[32];
            if (!wanted(all_peers[at]))
                continue;
            snprintf(label, sizeof label, "%s%s", all_peers[at]->name,
                     settings.places[place].label);
            struct drive_instance *instance = &instances[count];
            uint64_t needed = size->entries * (size->value_size + 200) * 2;
            if (memory_available() < needed + (UINT64_C(512) << 20)) {
                memset(instance, 0, sizeof *instance);
                snprintf(instance->why, sizeof instance->why, "too little memory is free");
            } else {
                drive_open(instance, all_peers[at], label, settings.places[place].root, &setup);
            }
            snprintf(result.peers[count], sizeof result.peers[count], "%s", label);
            fprintf(stderr, "   %s%s%s\n", label,
                    instance->alive ? "" : ": not measured: ", instance->why);
            count++;
        }
    }
    result.peer_count = count;
}

static void take_round(struct result_size *size, unsigned round)
{
    struct drive_figures figures;
    for (unsigned at = 0; at < size->cell_count; at++) {
        for (unsigned turn = 0; turn < result.peer_count; turn++) {
            unsigned peer = (turn + round) % result.peer_count;
            struct result_line *line = &size->lines[at][peer];
            /* A line that missed a round would be compared with other rounds of its neighbours. */
            if (line->rounds == round &&
                drive_cell(&instances[peer], &size->cells[at], settings.window_ns, &figures)) {
                line->rounds_of[line->rounds++] = figures;
            }
        }
    }
}

static void run_size(struct result_size *size)
{
    char streams[320];
    fprintf(stderr, "== %s: filling\n", size->name);
    snprintf(streams, sizeof streams, "%s/streams", settings.places[0].root);
    test_check(mkdir(streams, 0700) == 0, "mkdir %s: %s", streams, strerror(errno));
    workload_write(streams, size->entries);
    open_all(size, streams);
    for (unsigned round = 0; round < settings.rounds; round++) {
        fprintf(stderr, "== %s: round %u of %" PRIu64 "\n", size->name, round + 1, settings.rounds);
        take_round(size, round);
    }
    for (unsigned at = 0; at < result.peer_count; at++) {
        size->entry_bytes[at] = instances[at].entry_bytes;
        result.loop_ns[at] = instances[at].loop_ns;
        result.timer_ns[at] = instances[at].timer_ns;
        snprintf(size->why[at], sizeof size->why[at], "%s", instances[at].why);
        drive_close(&instances[at]);
    }
    test_remove_tree(streams);
}

/* ---- Places --------------------------------------------------------------------------------- */

static void mount_places(void)
{
    char options[128];
    test_check(unshare(CLONE_NEWNS) == 0, "--huge wants to mount a tmpfs, as root: %s",
               strerror(errno));
    test_check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mount: %s",
               strerror(errno));
    for (unsigned at = 0; at < settings.place_count; at++) {
        struct place *place = &settings.places[at];
        snprintf(options, sizeof options, "size=4g,mode=0700,%s", place->mount_options);
        test_check(mkdir(place->root, 0700) == 0, "mkdir %s: %s", place->root, strerror(errno));
        test_check(mount("tmpfs", place->root, "tmpfs", MS_NOSUID | MS_NODEV, options) == 0,
                   "mount -o %s: %s", options, strerror(errno));
    }
}

static void choose_places(void)
{
    static const struct place huge[] = {{"", "huge=never", ""},
                                        {"@advise", "huge=advise", ""},
                                        {"@within", "huge=within_size", ""},
                                        {"@always", "huge=always", ""}};
    if (!settings.huge) {
        settings.place_count = 1;
        settings.places[0].label = "";
        snprintf(settings.places[0].root, sizeof settings.places[0].root, "%s", test_directory());
        return;
    }
    settings.place_count = sizeof huge / sizeof *huge;
    for (unsigned at = 0; at < settings.place_count; at++) {
        settings.places[at] = huge[at];
        snprintf(settings.places[at].root, sizeof settings.places[at].root, "%s/fs%u",
                 test_directory(), at);
    }
    mount_places();
}

static void leave_places(void)
{
    for (unsigned at = 0; settings.huge && at < settings.place_count; at++)
        umount2(settings.places[at].root, MNT_DETACH);
}

static void draw(void)
{
    char beside[512];
    built(beside, "peers.svg");
    if (settings.svg == NULL)
        settings.svg = beside;
    FILE *file = fopen(settings.svg, "we");
    test_check(file != NULL, "cannot write %s: %s", settings.svg, strerror(errno));
    result_plot(&result, file);
    test_check(fclose(file) == 0, "cannot write %s: %s", settings.svg, strerror(errno));
    printf("plot: %s\n", settings.svg);
}

int main(int argc, char **argv)
{
    refuse_unknown(argc, argv);
    const char *directory = text_option(argc, argv, "--dir");
    if (directory != NULL)
        setenv("LARDER_TEST_DIR", directory, 1);
    measure_begin("bench_peers", LIMIT_S);
    settings.full = flag_option(argc, argv, "--full");
    settings.bars = flag_option(argc, argv, "--bars");
    settings.huge = flag_option(argc, argv, "--huge");
    settings.peers = text_option(argc, argv, "--peers");
    settings.svg = text_option(argc, argv, "--svg");
    settings.entries = measure_option(argc, argv, "--entries", 0);
    settings.size = measure_option(argc, argv, "--size", 0);
    uint64_t window_ms = settings.full ? 100 : settings.bars || settings.huge ? 40 : 25;
    settings.rounds = measure_option(argc, argv, "--rounds", 5);
    settings.hot_size = measure_option(argc, argv, "--hot-size", 0);
    settings.window_ns = measure_option(argc, argv, "--window-ms", window_ms) * 1000000;
    test_check(settings.rounds > 0 && settings.rounds <= RESULT_ROUNDS_MAX, "--rounds: 1 to %d",
               RESULT_ROUNDS_MAX);
    test_check(settings.window_ns > 0 && settings.window_ns <= 5000000000,
               "--window-ms: 1 to 5000");
    test_check(settings.entries <= 10000000 && (settings.size == 0 || settings.size >= 32) &&
                   settings.size <= PEER_VALUE_MAX,
               "--entries: at most 10 million; --size: 32 to %d", PEER_VALUE_MAX);
    choose_places();
    choose_sizes();
    for (unsigned at = 0; at < result.size_count; at++)
        run_size(&result.sizes[at]);
    leave_places();
    result_table(&result);
    draw();
    result_figures(&result);
    if (settings.bars)
        result_bars(&result);
    test_end();
}
