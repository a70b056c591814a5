/* test_handle.c: opening: names, options, directories that are not to be trusted, sizes; errors
 * that have a text each.
 */
#include "handle.h"

#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/harness.h"
#include "tests/unit/maps.h"

static void refused(const char *name, const larder_options *options, int code, const char *words)
{
    larder *map = (larder *)1;
    ck_assert_int_eq(larder_open(name, options, &map), code);
    ck_assert_ptr_null(map);
    ck_assert_msg(strstr(larder_last_error(), words) != NULL, "\"%s\" does not say \"%s\"",
                  larder_last_error(), words);
}

START_TEST(names_of_maps)
{
    larder_options options = {.dir = harness_directory(), .map_size = MAPS_SIZE};
    char longest[65];
    static const char *const bad[] = {"a/b", ".a", "..", "a b", "a\n", "\xc3\xa4", "a:b"};
    memset(longest, 'n', 64);
    longest[64] = '\0';
    refused(NULL, &options, LARDER_EINVAL, "name");
    refused("", &options, LARDER_EINVAL, "name");
    refused(longest, &options, LARDER_EINVAL, "63");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        refused(bad[i], &options, LARDER_EINVAL, "byte ");
    }
    ck_assert_int_eq(larder_open("x", &options, NULL), LARDER_EINVAL);
    longest[63] = '\0';
    static const char *const good[] = {"a", "A-Z_0.9", "-", "_"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        larder *map = maps_open(good[i], MAPS_SIZE, 0);
        ck_assert_str_eq(larder_last_error(), "");
        larder_close(&map);
    }
    larder *map = maps_open(longest, MAPS_SIZE, 0);
    larder_close(&map);
}
END_TEST

START_TEST(options_that_are_wrong)
{
    const struct {
        larder_options options;
        const char *words;
    } cases[] = {
        {{.flags = 1u << 30}, "flags"},
        {{.reserved = {0, 0, 0, 0, 0, 0, 1}}, "members"},
        {{.map_size = 4096}, "4096"},
        {{.map_size = UINT64_MAX}, "18446744073709551615"},
        {{.write_wait_ms = -1}, "-1"},
        {{.write_wait_ms = 60001}, "60000"},
        {{.max_value = (uint64_t)UINT32_MAX + 1}, "4294967296"},
        {{.mode = 0777}, "0777"},
        {{.mode = 010000}, "mode"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        larder_options given = cases[i].options;
        given.dir = harness_directory();
        refused("map", &given, LARDER_EINVAL, cases[i].words);
    }
    ck_assert_int_ne(access(harness_path("map"), F_OK), 0); /* nothing was made */
    larder_options attach = {.dir = harness_directory(), .flags = LARDER_ATTACH};
    refused("map", &attach, LARDER_ENOTFOUND, "map");
    attach.flags = LARDER_READ_ONLY;
    refused("map", &attach, LARDER_ENOTFOUND, "map");
}
END_TEST

START_TEST(directories_that_are_not_trusted)
{
    larder_options options = {.map_size = MAPS_SIZE};
    char gone[256], open_to_all[256], link[256], file[256];
    (void)snprintf(gone, sizeof gone, "%s", harness_path("gone"));
    (void)snprintf(open_to_all, sizeof open_to_all, "%s", harness_path("open"));
    (void)snprintf(link, sizeof link, "%s", harness_path("link"));
    (void)snprintf(file, sizeof file, "%s", harness_path("file"));
    options.dir = gone;
    refused("map", &options, LARDER_ENOTFOUND, "gone");
    options.dir = "";
    refused("map", &options, LARDER_EINVAL, "empty");
    char *endless = malloc(5001);
    ck_assert_ptr_nonnull(endless);
    memset(endless, '/', 5000);
    endless[5000] = '\0';
    options.dir = endless;
    refused("map", &options, LARDER_EINVAL, "bytes");
    free(endless);
    ck_assert_int_eq(mkdir(open_to_all, 0700), 0);
    ck_assert_int_eq(chmod(open_to_all, 0777), 0);
    options.dir = open_to_all;
    refused("map", &options, LARDER_EACCESS, "writable by everybody");
    ck_assert_int_eq(chmod(open_to_all, 0700), 0);
    ck_assert_int_eq(symlink(open_to_all, link), 0);
    options.dir = link;
    refused("map", &options, LARDER_EACCESS, "symbolic link");
    ck_assert_int_eq(creat(file, 0600) >= 0, 1);
    options.dir = file;
    refused("map", &options, LARDER_EACCESS, "not a directory");
    options.dir = open_to_all;
    char inner[300];
    (void)snprintf(inner, sizeof inner, "%s/map", open_to_all);
    ck_assert_int_eq(symlink(open_to_all, inner), 0);
    refused("map", &options, LARDER_EACCESS, "symbolic link");
    ck_assert_int_eq(unlink(inner), 0);
    if (geteuid() == 0) { /* somebody else's directory is not trusted */
        ck_assert_int_eq(chown(open_to_all, 12345, 12345), 0);
        refused("map", &options, LARDER_EACCESS, "12345");
        ck_assert_int_eq(chmod(open_to_all, 02770), 0); /* unless it was set up for a group */
        larder *map = NULL;
        ck_assert_int_eq(larder_open("map", &options, &map), LARDER_OK);
        larder_close(&map);
    }
}
END_TEST

START_TEST(sizes_and_modes)
{
    struct stat status;
    larder *map = NULL;
    larder_options options = {
        .dir = harness_directory(), .map_size = MAPS_SIZE + 5000, .max_value = 1000, .mode = 02750};
    ck_assert_int_eq(larder_open("map", &options, &map), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).map_size, MAPS_SIZE + 4096); /* whole pages */
    ck_assert_uint_eq(map->max_value, 1000);
    ck_assert_int_eq(stat(harness_path("map"), &status), 0);
    ck_assert_uint_eq(status.st_mode & 07777u, 02750);
    ck_assert_int_eq(stat(harness_path("map/control"), &status), 0);
    ck_assert_uint_eq(status.st_mode & 07777u, 0600);
    larder *other = NULL; /* another handle may take less, not more, and another size is no error */
    larder_options more = {.dir = harness_directory(), .map_size = 2 * MAPS_SIZE, .max_value = 10};
    ck_assert_int_eq(larder_open("map", &more, &other), LARDER_OK);
    ck_assert_uint_eq(maps_stats(other).map_size, MAPS_SIZE + 4096);
    ck_assert_uint_eq(other->max_value, 10);
    larder_close(&other);
    more.max_value = 1 << 30;
    ck_assert_int_eq(larder_open("map", &more, &other), LARDER_OK);
    ck_assert_uint_eq(other->max_value, 1000);
    larder_close(&other);
    larder_close(&map);
    ck_assert_uint_eq(handle_value_limit(0, UINT64_C(1) << 40), 8u << 20);
    ck_assert_uint_eq(handle_value_limit(0, MAPS_SIZE), MAPS_SIZE / 16);
    ck_assert_uint_eq(handle_value_limit(UINT32_MAX, MAPS_SIZE), MAPS_SIZE / 16);
}
END_TEST

/* Open a map under a limit on the size of files; the limit is lifted before anything else is
 * written, say by a coverage build. */
static int open_limited(const char *directory, uint64_t limit, larder **map)
{
    struct rlimit before, limited;
    larder_options options = {.dir = directory, .map_size = MAPS_SIZE, .hot_size = 2 * MAPS_SIZE};
    (void)getrlimit(RLIMIT_FSIZE, &before);
    limited = before;
    limited.rlim_cur = limit;
    (void)setrlimit(RLIMIT_FSIZE, &limited);
    int result = larder_open("limited", &options, map);
    if (*map != NULL && larder_set(*map, "k", 1, "v", 1, NULL) == LARDER_ENOSPACE) {
        result = LARDER_SKIP;
    }
    (void)setrlimit(RLIMIT_FSIZE, &before);
    return result;
}

struct limited {
    const char *directory; /* the parent's: a child would get its own */
    uint64_t limit;
};

static int opens_limited(void *context)
{
    const struct limited *given = context;
    larder *map = NULL;
    int result = open_limited(given->directory, given->limit, &map);
    bool told = result == LARDER_ENOSPACE && strstr(larder_last_error(), "RLIMIT_FSIZE") != NULL;
    larder_close(&map);
    return told ? 2 : result == LARDER_OK ? 0 : 1;
}

static int writes_limited(void *context)
{
    larder *map = NULL;
    int result = open_limited(context, 4096, &map);
    bool read = map != NULL && maps_get(map, "old") != NULL;
    larder_close(&map);
    return result == LARDER_SKIP && read ? 2 : 1;
}

START_TEST(a_limit_on_the_size_of_files_is_an_error_and_no_signal)
{
    uint64_t too_little[] = {0, 4096, MAPS_SIZE / 4, MAPS_SIZE - 1, 2 * MAPS_SIZE - 1};
    struct limited given = {.directory = harness_directory()};
    for (size_t i = 0; i < sizeof too_little / sizeof too_little[0]; i++) {
        given.limit = too_little[i];
        ck_assert_int_eq(maps_in_child(opens_limited, &given), 2);
        ck_assert_int_ne(access(harness_path("limited/control"), F_OK), 0); /* nothing is left */
    }
    given.limit = 2 * MAPS_SIZE;
    ck_assert_int_eq(maps_in_child(opens_limited, &given), 0);
    ck_assert_int_eq(access(harness_path("limited/control"), F_OK), 0);
}
END_TEST

START_TEST(a_protected_map_is_not_written_past_the_limit)
{
    larder *map = maps_open("limited", MAPS_SIZE, LARDER_PROTECT);
    ck_assert_int_eq(maps_set(map, "old", "v"), LARDER_OK);
    ck_assert_int_eq(maps_in_child(writes_limited, (void *)(uintptr_t)harness_directory()), 2);
    larder_close(&map);
}
END_TEST

/* Whichever call finds no descriptor left: it is no question of rights. */
START_TEST(without_descriptors_a_system_call_failed)
{
    larder *map = maps_open("map", MAPS_SIZE, 0);
    larder_options options = {.dir = harness_directory()};
    struct rlimit before;
    bool opened = false;
    larder_close(&map);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = dup(0); /* the lowest number that is free */
    ck_assert_int_ge(next, 0);
    ck_assert_int_eq(close(next), 0);
    for (int more = 0; more < 32 && !opened; more++) {
        struct rlimit limited = {.rlim_cur = (rlim_t)(next + more), .rlim_max = before.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limited), 0);
        int result = larder_open("map", &options, &map);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
        opened = result == LARDER_OK;
        ck_assert_msg(opened || result == LARDER_ESYSTEM, "%d more: %d %s", more, result,
                      larder_last_error());
    }
    ck_assert(opened);
    larder_close(&map);
}
END_TEST

START_TEST(the_largest_value_is_the_creators_and_less_is_the_handles)
{
    static const char value[1001];
    larder_options options = {.dir = harness_directory(), .map_size = MAPS_SIZE, .max_value = 1000};
    larder *creator, *lesser, *greater;
    ck_assert_int_eq(larder_open("limits", &options, &creator), LARDER_OK);
    options.max_value = 10;
    ck_assert_int_eq(larder_open("limits", &options, &lesser), LARDER_OK);
    options.max_value = 1 << 20;
    ck_assert_int_eq(larder_open("limits", &options, &greater), LARDER_OK);
    ck_assert_int_eq(larder_set(lesser, "k", 1, value, 10, NULL), LARDER_OK);
    ck_assert_int_eq(larder_set(lesser, "k", 1, value, 11, NULL), LARDER_ETOOBIG);
    ck_assert_msg(strstr(larder_last_error(), "the limit is 10") != NULL, "%s",
                  larder_last_error());
    ck_assert_int_eq(larder_set(creator, "k", 1, value, 1000, NULL), LARDER_OK);
    ck_assert_int_eq(larder_set(creator, "k", 1, value, 1001, NULL), LARDER_ETOOBIG);
    ck_assert_int_eq(larder_set(greater, "k", 1, value, 1000, NULL), LARDER_OK);
    ck_assert_int_eq(larder_set(greater, "k", 1, value, 1001, NULL), LARDER_ETOOBIG);
    ck_assert_msg(strstr(larder_last_error(), "the limit is 1000") != NULL, "%s",
                  larder_last_error());
    /* what others stored is read by all */
    ck_assert_int_eq(larder_set(creator, "k", 1, value, 1000, NULL), LARDER_OK);
    larder_info info;
    ck_assert_int_eq(larder_get(lesser, "k", 1, NULL, 0, &info), LARDER_ESIZE);
    ck_assert_uint_eq(info.size, 1000);
    larder_close(&creator);
    larder_close(&lesser);
    larder_close(&greater);
}
END_TEST

START_TEST(the_environment_names_the_directory)
{
    larder *map = NULL;
    ck_assert_int_eq(setenv("LARDER_DIR", harness_directory(), 1), 0);
    larder_options options = {.map_size = MAPS_SIZE};
    ck_assert_int_eq(larder_open("map", &options, &map), LARDER_OK);
    ck_assert_int_eq(access(harness_path("map/control"), F_OK), 0);
    larder_close(&map);
    ck_assert_int_eq(chdir(harness_directory()), 0);
    options.dir = ".";
    ck_assert_int_eq(larder_open("map", &options, &map), LARDER_OK);
    ck_assert_int_eq(chdir("/"), 0);
    control_poison(maps_control(map), 1); /* what is opened later is found all the same */
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    larder_close(&map);
}
END_TEST

START_TEST(maps_with_protected_pages)
{
    larder *map = maps_open("map", MAPS_SIZE, LARDER_PROTECT);
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    larder_close(&map);
    map = maps_open("map", 0, 0); /* the creator's choice */
    ck_assert_uint_eq(maps_control(map)->flags & LARDER_PROTECT, LARDER_PROTECT);
    ck_assert_str_eq(maps_get(map, "key"), "value");
    ck_assert_int_eq(maps_set(map, "key", "other"), LARDER_OK);
    maps_whole(map);
    larder_close(&map);
}
END_TEST

START_TEST(a_local_handle_writes_what_never_travels)
{
    larder *map = maps_open("map", MAPS_SIZE, LARDER_LOCAL);
    ck_assert_int_eq(maps_set(map, "key", "value"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).dirty, 0);
    ck_assert_uint_eq(maps_stats(map).entries, 1);
    ck_assert_int_eq(maps_delete(map, "key"), LARDER_OK);
    ck_assert_uint_eq(maps_stats(map).tombstones, 0);
    larder_close(&map);
}
END_TEST

/* A process that opens the map when it is told to. It began before this one had: a child shares
 * what its parent has opened. */
struct opener {
    pid_t pid;
    int go;
};

static struct opener opener_begin(const char *directory)
{
    int go[2];
    char byte;
    ck_assert_int_eq(pipe(go), 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        larder *map = NULL;
        larder_options options = {.dir = directory, .flags = LARDER_ATTACH};
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(read(go[0], &byte, 1) == 1 ? -larder_open("opened", &options, &map) & 0xff : 1);
    }
    (void)close(go[0]);
    return (struct opener){pid, go[1]};
}

static int opener_go(const struct opener *opener)
{
    int status = 0;
    ck_assert_int_eq(write(opener->go, "x", 1), 1);
    ck_assert_int_eq(waitpid(opener->pid, &status, 0), opener->pid);
    (void)close(opener->go);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void *leave_later(void *context)
{
    (void)nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    maps_let_go(context);
    return NULL;
}

START_TEST(an_open_waits_for_others_that_open)
{
    pthread_t thread;
    const char *directory = harness_directory(); /* a child's own would be another one */
    struct opener first = opener_begin(directory), second = opener_begin(directory);
    larder *map = maps_open("opened", MAPS_SIZE, 0);
    struct maps_holder holder = maps_hold(&maps_control(map)->reader_gate);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(opener_go(&first), -LARDER_EBUSY & 0xff); /* but not for ever */
    ck_assert_int_ge(harness_now_ms() - began, 900);
    ck_assert_int_eq(pthread_create(&thread, NULL, leave_later, &holder), 0);
    ck_assert_int_eq(opener_go(&second), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    larder_close(&map);
}
END_TEST

/* Of the one child that has ended, ms. */
static int64_t processor_time_of_children(void)
{
    struct rusage usage;
    ck_assert_int_eq(getrusage(RUSAGE_CHILDREN, &usage), 0);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

/* As when the disk is full: each try is refused at once, by a generation that could not be made. */
START_TEST(an_open_that_is_refused_at_once_sleeps_between_its_tries)
{
    const char *directory = harness_directory();
    struct opener opener = opener_begin(directory);
    larder *map = maps_open("opened", MAPS_SIZE, 0);
    struct control *control = maps_control(map);
    (void)atomic_fetch_or(&control->generation, GENERATION_POISONED);
    atomic_store(&control->retry_at_ms, harness_now_ms() + 600000);
    int64_t began = harness_now_ms();
    ck_assert_int_eq(opener_go(&opener), -LARDER_EBUSY & 0xff);
    int64_t took = harness_now_ms() - began, worked = processor_time_of_children();
    ck_assert_int_ge(took, 900);
    ck_assert_msg(worked < took / 2, "%d of %d ms at work", (int)worked, (int)took);
    larder_close(&map);
}
END_TEST

START_TEST(every_code_has_a_text)
{
    for (int code = LARDER_EDUPLICATE; code <= LARDER_EBUSY; code++) {
        ck_assert_str_ne(larder_strerror(code), larder_strerror(-1));
        for (int other = LARDER_EDUPLICATE; other < code; other++) {
            ck_assert_str_ne(larder_strerror(code), larder_strerror(other));
        }
    }
    for (int code = LARDER_OK; code <= LARDER_ABSENT; code++) {
        ck_assert_str_ne(larder_strerror(code), larder_strerror(4711));
    }
    ck_assert_str_eq(larder_strerror(-1), "unknown error");
    ck_assert_str_eq(larder_strerror(4711), "unknown outcome");
    ck_assert_ptr_nonnull(strchr(larder_version_text(), '.'));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("handle");
    TCase *tests = tcase_create("handle");
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, names_of_maps);
    tcase_add_test(tests, options_that_are_wrong);
    tcase_add_test(tests, directories_that_are_not_trusted);
    tcase_add_test(tests, sizes_and_modes);
    tcase_add_test(tests, the_largest_value_is_the_creators_and_less_is_the_handles);
    tcase_add_test(tests, a_limit_on_the_size_of_files_is_an_error_and_no_signal);
    tcase_add_test(tests, a_protected_map_is_not_written_past_the_limit);
    tcase_add_test(tests, without_descriptors_a_system_call_failed);
    tcase_add_test(tests, the_environment_names_the_directory);
    tcase_add_test(tests, maps_with_protected_pages);
    tcase_add_test(tests, a_local_handle_writes_what_never_travels);
    tcase_add_test(tests, an_open_waits_for_others_that_open);
    tcase_add_test(tests, an_open_that_is_refused_at_once_sleeps_between_its_tries);
    tcase_add_test(tests, every_code_has_a_text);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
