/* test_notify.c: the descriptor for event loops: what makes it readable, and that nothing is left
 * behind.
 */
#include <dirent.h>
#include <poll.h>
#include <stdlib.h>

#include "clock.h"
#include "maps.h"
#include "notify.h"

static bool readable(int file, int wait_ms)
{
    struct pollfd poll_one = {.fd = file, .events = POLLIN};
    return poll(&poll_one, 1, wait_ms) == 1;
}

static int acquire(larder *map, const char *key, larder_lease *lease)
{
    return larder_lease_acquire(map, key, strlen(key), NULL, lease, NULL, NULL, NULL);
}

static unsigned fifos(const char *name)
{
    unsigned count = 0;
    DIR *directory = opendir(harness_path("%s", name));
    ck_assert_ptr_nonnull(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        count += strncmp(entry->d_name, "notify-", 7) == 0;
    }
    ck_assert_int_eq(closedir(directory), 0);
    return count;
}

/* A child that takes the key's lease, tells it, and does as it is told. */
struct holder {
    pid_t pid;
    int tell;
};

static struct holder hold_lease(larder *map, const char *key, int64_t hold_ms)
{
    int taken[2], told[2];
    char byte = 0;
    ck_assert_int_eq(pipe(taken), 0);
    ck_assert_int_eq(pipe(told), 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        larder_lease lease;
        larder_lease_options options = {.hold_ms = hold_ms};
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(told[1]);
        int result =
            larder_lease_acquire(map, key, strlen(key), &options, &lease, NULL, NULL, NULL);
        if (result != LARDER_FILL || write(taken[1], "x", 1) != 1) {
            _exit(1);
        }
        if (read(told[0], &byte, 1) == 1) {
            result = larder_lease_fill(map, &lease, key, strlen(key), "filled", 6, NULL);
        }
        _exit(result == LARDER_OK ? 0 : 2);
    }
    ck_assert_int_eq(read(taken[0], &byte, 1), 1);
    (void)close(taken[0]);
    (void)close(taken[1]);
    (void)close(told[0]);
    return (struct holder){.pid = pid, .tell = told[1]};
}

START_TEST(a_fill_makes_it_readable)
{
    larder *map = maps_open("fill", MAPS_SIZE, 0);
    larder_lease lease;
    int file = larder_notify_fd(map);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(larder_notify_fd(map), file);
    ck_assert_uint_eq(fifos("fill"), 1);
    struct holder holder = hold_lease(map, "k", 60000);
    ck_assert(!readable(file, 0));
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_WAIT);
    ck_assert(!readable(file, 20));
    ck_assert_int_eq(write(holder.tell, "f", 1), 1);
    ck_assert(readable(file, harness_patience(2000)));
    ck_assert_int_eq(larder_notify_clear(map), LARDER_OK);
    ck_assert_int_eq(larder_lease_wait(map, &lease, 0), LARDER_OK);
    ck_assert_str_eq(maps_get(map, "k"), "filled");
    int status = 1;
    ck_assert_int_eq(waitpid(holder.pid, &status, 0), holder.pid);
    ck_assert_int_eq(status, 0);
    (void)larder_notify_clear(map); /* its end was watched, too */
    ck_assert(!readable(file, 0));
    larder_close(&map);
    ck_assert_uint_eq(fifos("fill"), 0);
}
END_TEST

START_TEST(a_holders_death_makes_it_readable)
{
    larder *map = maps_new();
    larder_lease lease;
    int file = larder_notify_fd(map);
    ck_assert_int_ge(file, 0);
    struct holder holder = hold_lease(map, "k", 60000);
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_WAIT);
    ck_assert_int_eq(larder_lease_wait(map, &lease, 0), LARDER_WAIT);
    ck_assert_int_eq(kill(holder.pid, SIGKILL), 0); /* and nobody reaps it */
    ck_assert(readable(file, harness_patience(2000)));
    ck_assert_int_eq(larder_notify_clear(map), LARDER_OK);
    ck_assert_int_eq(larder_lease_wait(map, &lease, 0), LARDER_OK);
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    ck_assert(!readable(file, 0));
    ck_assert_int_eq(waitpid(holder.pid, NULL, 0), holder.pid);
    larder_close(&map);
}
END_TEST

START_TEST(a_deadline_makes_it_readable)
{
    larder *map = maps_new();
    larder_lease lease;
    int file = larder_notify_fd(map);
    struct holder holder = hold_lease(map, "k", 100);
    ck_assert_int_eq(kill(holder.pid, SIGSTOP), 0);
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_WAIT);
    ck_assert(readable(file, harness_patience(2000)));
    ck_assert_int_eq(larder_notify_clear(map), LARDER_OK);
    ck_assert_int_eq(larder_lease_wait(map, &lease, 0), LARDER_OK);
    ck_assert_int_eq(larder_notify_clear(map), LARDER_OK); /* we ended it, and were told so */
    ck_assert(!readable(file, 0));
    ck_assert_int_eq(kill(holder.pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(holder.pid, NULL, 0), holder.pid);
    larder_close(&map);
}
END_TEST

static int child_with_its_own(void *context)
{
    larder *map = context;
    larder_lease lease;
    int file = larder_notify_fd(map);
    if (file < 0) {
        return 1;
    }
    if (acquire(map, "k", &lease) != LARDER_WAIT) {
        return 2;
    }
    notify_process(map->map, (unsigned)notify_slot_of(map->map));
    return readable(file, 2000) ? 0 : 3; /* it leaves its FIFO and slot behind */
}

START_TEST(a_child_has_its_own_and_the_dead_are_swept_away)
{
    larder *map = maps_open("sweep", MAPS_SIZE, 0);
    larder_lease lease;
    int file = larder_notify_fd(map);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(maps_in_child(child_with_its_own, map), 0);
        ck_assert_uint_le(fifos("sweep"), 2); /* ours and the last child's */
    }
    ck_assert(!readable(file, 0));
    larder_close(&map);
}
END_TEST

static int child_that_closes(void *context)
{
    larder *map = context;
    int result = larder_notify_fd(map) >= 0 ? 0 : 1;
    larder_close(&map);
    return result;
}

/* Whoever claims a slot writes his pid before his start: the last owner's start beside it would
 * have the next one who sweeps take it from him. */
START_TEST(a_free_slot_keeps_no_start_of_its_last_owner)
{
    larder *map = maps_open("starts", MAPS_SIZE, 0);
    struct notify_table *table = &maps_control(map)->notify;
    larder_lease lease;
    ck_assert_int_eq(acquire(map, "k", &lease), LARDER_FILL);
    ck_assert_int_eq(maps_in_child(child_with_its_own, map), 0); /* leaves its slot behind */
    ck_assert_uint_ne(atomic_load(&table->slots[0].start), 0);
    atomic_store(&table->slots[1].pid, getpid()); /* claimed just now: no start yet */
    ck_assert_int_eq(maps_in_child(child_that_closes, map), 0);
    ck_assert_int_eq(atomic_load(&table->slots[0].pid), 0);
    ck_assert_uint_eq(atomic_load(&table->slots[0].start), 0);
    ck_assert_int_eq(atomic_load(&table->slots[1].pid), getpid());
    atomic_store(&table->slots[1].pid, 0);
    larder_close(&map);
}
END_TEST

START_TEST(a_full_table_is_an_error_and_takes_nothing)
{
    larder *map = maps_new();
    struct notify_table *table = &maps_control(map)->notify;
    for (unsigned i = 0; i < NOTIFY_SLOTS; i++) {
        atomic_store(&table->slots[i].pid, 1); /* lives */
    }
    ck_assert_int_eq(larder_notify_fd(map), LARDER_ELIMIT);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "256"));
    atomic_store(&table->slots[200].pid, 0);
    ck_assert_int_ge(larder_notify_fd(map), 0);
    ck_assert_int_eq(notify_slot_of(map->map), 200);
    /* bits and slots of nobody are no harm */
    struct notify_set set;
    memset(&set, 0xff, sizeof set);
    notify_all(map->map, &set);
    notify_process(map->map, NOTIFY_SLOTS + 5);
    ck_assert_uint_eq(atomic_load(&set.words[0]), 0);
    ck_assert(readable(larder_notify_fd(map), 0));
    larder_close(&map);
}
END_TEST

START_TEST(without_a_descriptor_nothing_is_made)
{
    larder *map = maps_open("none", MAPS_SIZE, 0);
    larder_lease first, second;
    ck_assert_int_eq(acquire(map, "k", &first), LARDER_FILL);
    ck_assert_int_eq(acquire(map, "k", &second), LARDER_WAIT);
    ck_assert_int_eq(larder_notify_clear(map), LARDER_OK);
    ck_assert_uint_eq(fifos("none"), 0);
    ck_assert_int_eq(larder_notify_fd(NULL), LARDER_EINVAL);
    ck_assert_int_eq(larder_notify_clear(NULL), LARDER_EINVAL);
    larder_close(&map);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("notify");
    TCase *cases = tcase_create("notify");
    tcase_add_test(cases, a_fill_makes_it_readable);
    tcase_add_test(cases, a_holders_death_makes_it_readable);
    tcase_add_test(cases, a_deadline_makes_it_readable);
    tcase_add_test(cases, a_child_has_its_own_and_the_dead_are_swept_away);
    tcase_add_test(cases, a_free_slot_keeps_no_start_of_its_last_owner);
    tcase_add_test(cases, a_full_table_is_an_error_and_takes_nothing);
    tcase_add_test(cases, without_a_descriptor_nothing_is_made);
    suite_add_tcase(suite, cases);
    return harness_run(suite);
}
