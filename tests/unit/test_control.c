/* test_control.c: the control segment's file: made once whoever makes it, attached only if it is
 * this boot's, this format's and this namespace's, put aside so that all who have it learn of it.
 */
#include "control.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness.h"

static int directory;
static const struct control_settings settings = {
    .map_size = UINT64_C(16) << 20, .max_value = 1 << 20, .flags = LARDER_PROTECT, .mode = 0640};

static void open_directory(void)
{
    const char *path = harness_path("segment");
    ck_assert_int_eq(mkdir(path, 0700), 0);
    directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(directory, 0);
}

static void close_directory(void)
{
    (void)unlinkat(directory, "control", 0);
    (void)close(directory);
    (void)rmdir(harness_path("segment"));
}

static struct control *attach(size_t *size)
{
    struct control *control = NULL;
    bool replaceable;
    ck_assert_int_eq(control_attach(directory, &control, size, &replaceable), LARDER_OK);
    return control;
}

/* Attaching fails with the code, says why and whether the segment may be put aside. */
static void refused(int code, const char *why, bool may_be_replaced)
{
    struct control *control = NULL;
    size_t size = 0;
    bool replaceable = !may_be_replaced;
    ck_assert_int_eq(control_attach(directory, &control, &size, &replaceable), code);
    ck_assert_ptr_null(control);
    ck_assert_msg(strstr(larder_last_error(), why) != NULL, "\"%s\" does not say \"%s\"",
                  larder_last_error(), why);
    ck_assert_int_eq(replaceable, may_be_replaced);
}

static size_t files(void)
{
    size_t count = 0;
    DIR *listing = opendir(harness_path("segment"));
    ck_assert_ptr_nonnull(listing);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    (void)closedir(listing);
    return count;
}

/* Overwrite bytes of the segment's file. */
static void patch(size_t offset, const void *bytes, size_t size)
{
    int file = openat(directory, "control", O_WRONLY | O_CLOEXEC);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(pwrite(file, bytes, size, (off_t)offset), (ssize_t)size);
    (void)close(file);
}

#define PATCH(member, value)                                                                       \
    do {                                                                                           \
        ck_assert_int_eq(control_create(directory, &settings), LARDER_OK);                         \
        __typeof__(((struct control *)0)->member) patch_ = (value);                                \
        patch(offsetof(struct control, member), &patch_, sizeof patch_);                           \
    } while (0)

START_TEST(a_segment_is_what_was_asked_for)
{
    size_t size;
    struct stat status;
    ck_assert_int_eq(control_create(directory, &settings), LARDER_OK);
    ck_assert_uint_eq(files(), 1);
    ck_assert_int_eq(fstatat(directory, "control", &status, 0), 0);
    ck_assert_uint_eq(status.st_mode & 07777u, 0640);
    struct control *control = attach(&size);
    ck_assert_uint_eq(size, (size_t)status.st_size);
    ck_assert_uint_eq(control->flags, LARDER_PROTECT);
    ck_assert_uint_eq(control->mode, 0640);
    ck_assert_uint_ne(atomic_load(&control->node), 0);
    ck_assert_uint_eq(atomic_load(&control->generation), 0);
    ck_assert_uint_eq(sizeof *control + control_tail(control->popularity_size), size);
    ck_assert_int_eq(gate_enter(&control->write_gate, 0), GATE_ENTERED);
    gate_leave(&control->write_gate);
    control_detach(&control, size);
    ck_assert_ptr_null(control);
    control_detach(&control, size); /* nothing to do */
}
END_TEST

START_TEST(the_second_to_make_one_gets_the_first_ones)
{
    size_t size;
    ck_assert_int_eq(control_create(directory, &settings), LARDER_OK);
    struct control *control = attach(&size);
    uint32_t node = atomic_load(&control->node);
    control_detach(&control, size);
    struct control_settings others = settings;
    others.map_size *= 2;
    ck_assert_int_eq(control_create(directory, &others), LARDER_OK);
    control = attach(&size);
    ck_assert_uint_eq(atomic_load(&control->node), node);
    control_detach(&control, size);
    ck_assert_uint_eq(files(), 1); /* no temporary ones are left */
}
END_TEST

START_TEST(many_makers_at_once_make_one)
{
    pid_t children[8];
    for (size_t i = 0; i < 8; i++) {
        children[i] = fork();
        ck_assert_int_ge(children[i], 0);
        if (children[i] == 0) {
            _exit(control_create(directory, &settings) == LARDER_OK ? 0 : 1);
        }
    }
    for (size_t i = 0; i < 8; i++) {
        int status = 1;
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert_int_eq(status, 0);
    }
    size_t size;
    struct control *control = attach(&size);
    control_detach(&control, size);
    ck_assert_uint_eq(files(), 1);
}
END_TEST

START_TEST(none_is_said_to_be_none)
{
    refused(LARDER_ENOTFOUND, "no such map", false);
    ck_assert_int_eq(control_retire(directory), LARDER_OK); /* nothing to put aside */
}
END_TEST

START_TEST(a_file_that_is_cut_off)
{
    static const size_t cuts[] = {0, 1, 8, 200, sizeof(struct control)};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        ck_assert_int_eq(control_create(directory, &settings), LARDER_OK);
        int file = openat(directory, "control", O_WRONLY | O_CLOEXEC);
        ck_assert_int_eq(ftruncate(file, (off_t)cuts[i]), 0);
        (void)close(file);
        refused(LARDER_EFORMAT, "cut off", true);
        ck_assert_int_eq(control_retire(directory), LARDER_OK);
        ck_assert_uint_eq(files(), 0);
    }
}
END_TEST

START_TEST(a_segment_of_another_length)
{
    ck_assert_int_eq(control_create(directory, &settings), LARDER_OK);
    int file = openat(directory, "control", O_WRONLY | O_CLOEXEC);
    ck_assert_int_eq(ftruncate(file, (off_t)sizeof(struct control) + 4096 * 3), 0);
    (void)close(file);
    refused(LARDER_EFORMAT, "claims", true);
}
END_TEST

START_TEST(another_programs_file)
{
    PATCH(magic, UINT64_C(0x46454443));
    refused(LARDER_EFORMAT, "not larder's", true);
}
END_TEST

START_TEST(another_version_is_left_alone)
{
    char other[32];
    (void)snprintf(other, sizeof other, "format %d", CONTROL_FORMAT + 1);
    PATCH(format, CONTROL_FORMAT + 1);
    refused(LARDER_EFORMAT, other, false);
    PATCH(format, CONTROL_FORMAT);
    PATCH(byte_order, 0x04030201);
    refused(LARDER_EFORMAT, "0x04030201", false);
}
END_TEST

START_TEST(other_pages_and_impossible_sizes)
{
    PATCH(page_size, 65536);
    refused(LARDER_EFORMAT, "65536", true);
    PATCH(page_size, (uint32_t)sysconf(_SC_PAGESIZE));
    PATCH(segment_size, 17);
    refused(LARDER_EFORMAT, "17", true);
    ck_assert_int_eq(control_retire(directory), LARDER_OK);
    PATCH(popularity_size, 0); /* an index would go outside */
    refused(LARDER_EFORMAT, "claims", true);
    PATCH(popularity_size, UINT64_C(1) << 40);
    refused(LARDER_EFORMAT, "claims", true);
    PATCH(popularity_size, 4096 + 1);
    refused(LARDER_EFORMAT, "claims", true);
}
END_TEST

START_TEST(an_earlier_boots_map)
{
    uint8_t id[16] = {1, 2, 3};
    ck_assert_int_eq(control_create(directory, &settings), LARDER_OK);
    patch(offsetof(struct control, boot_id), id, sizeof id);
    refused(LARDER_EFORMAT, "earlier boot", true);
}
END_TEST

START_TEST(another_pid_namespace_is_refused_not_replaced)
{
    PATCH(pid_namespace, 12345);
    refused(LARDER_ENAMESPACE, "12345", false);
    PATCH(pid_namespace, 0); /* not known: locks cannot be trusted less for it */
    size_t size;
    struct control *control = attach(&size);
    control_detach(&control, size);
}
END_TEST

START_TEST(whoever_has_a_retired_segment_learns_of_it)
{
    size_t size, fresh_size;
    ck_assert_int_eq(control_create(directory, &settings), LARDER_OK);
    struct control *control = attach(&size);
    atomic_store(&control->generation, 3);
    ck_assert_int_eq(control_retire(directory), LARDER_OK);
    ck_assert_uint_ne(atomic_load(&control->generation) & GENERATION_RETIRED, 0);
    ck_assert_uint_eq(files(), 0);
    refused(LARDER_ENOTFOUND, "no such map", false);
    ck_assert_int_eq(control_create(directory, &settings), LARDER_OK);
    struct control *fresh = attach(&fresh_size);
    ck_assert_uint_eq(atomic_load(&fresh->generation), 0);
    control_detach(&fresh, fresh_size);
    control_detach(&control, size);
}
END_TEST

START_TEST(a_retired_segment_under_the_name_is_refused)
{
    PATCH(generation, GENERATION_RETIRED);
    refused(LARDER_EFORMAT, "retired", true);
}
END_TEST

START_TEST(what_is_not_a_file_of_ours_is_not_opened)
{
    ck_assert_int_eq(symlinkat("/etc/passwd", directory, "control"), 0);
    refused(LARDER_EACCESS, "cannot open", false);
    ck_assert_int_eq(unlinkat(directory, "control", 0), 0);
    ck_assert_int_eq(mkfifoat(directory, "control", 0600), 0);
    refused(LARDER_EACCESS, "not a regular file", false); /* and does not wait for its other end */
    ck_assert_int_eq(unlinkat(directory, "control", 0), 0);
    ck_assert_int_eq(mkdirat(directory, "control", 0700), 0);
    refused(LARDER_EACCESS, "control segment", false);
    ck_assert_int_eq(unlinkat(directory, "control", AT_REMOVEDIR), 0);
}
END_TEST

START_TEST(a_directory_that_is_gone)
{
    ck_assert_int_eq(rmdir(harness_path("segment")), 0);
    ck_assert_int_eq(control_create(directory, &settings), LARDER_ESYSTEM);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "control segment"));
}
END_TEST

START_TEST(poison_is_for_the_generation_that_was_seen)
{
    size_t size;
    ck_assert_int_eq(control_create(directory, &settings), LARDER_OK);
    struct control *control = attach(&size);
    atomic_store(&control->generation, 5);
    control_poison(control, 4); /* a late finder: that one is gone already */
    ck_assert_uint_eq(atomic_load(&control->generation), 5);
    control_poison(control, 5);
    ck_assert_uint_eq(atomic_load(&control->generation), 5 | GENERATION_POISONED);
    ck_assert_uint_eq(GENERATION_NUMBER(atomic_load(&control->generation)), 5);
    control_detach(&control, size);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("control");
    TCase *tests = tcase_create("control");
    tcase_add_checked_fixture(tests, open_directory, close_directory);
    tcase_add_test(tests, a_segment_is_what_was_asked_for);
    tcase_add_test(tests, the_second_to_make_one_gets_the_first_ones);
    tcase_add_test(tests, many_makers_at_once_make_one);
    tcase_add_test(tests, none_is_said_to_be_none);
    tcase_add_test(tests, a_file_that_is_cut_off);
    tcase_add_test(tests, a_segment_of_another_length);
    tcase_add_test(tests, another_programs_file);
    tcase_add_test(tests, another_version_is_left_alone);
    tcase_add_test(tests, other_pages_and_impossible_sizes);
    tcase_add_test(tests, an_earlier_boots_map);
    tcase_add_test(tests, another_pid_namespace_is_refused_not_replaced);
    tcase_add_test(tests, whoever_has_a_retired_segment_learns_of_it);
    tcase_add_test(tests, a_retired_segment_under_the_name_is_refused);
    tcase_add_test(tests, what_is_not_a_file_of_ours_is_not_opened);
    tcase_add_test(tests, a_directory_that_is_gone);
    tcase_add_test(tests, poison_is_for_the_generation_that_was_seen);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
