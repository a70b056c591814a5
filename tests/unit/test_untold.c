/* test_untold.c: the events of batches between storing and telling: which are kept, and until when.
 */
#include "tests/harness.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/redis/untold.h"

static untold *list;
static const char one[1], two[1]; /* batches: their addresses are all that counts */

static void clear(void)
{
    untold_clear(&list);
    ck_assert_ptr_null(list);
}

static void keep(untold *self, size_t index, const char *event)
{
    ck_assert(untold_keep(self, index, event, strlen(event)));
}

static void expect_event(const untold *self, size_t index, const char *event, bool stored)
{
    ck_assert_uint_eq(self->events[index].size, strlen(event));
    ck_assert_mem_eq(self->bytes + self->events[index].at, event, strlen(event));
    ck_assert_int_eq(self->events[index].stored, stored);
}

START_TEST(what_was_stored_is_kept_until_it_is_told)
{
    untold *self = untold_begin(&list, one, 3);
    ck_assert_ptr_nonnull(self);
    keep(self, 0, "first");
    keep(self, 1, "second");
    keep(self, 2, "third");
    untold_answered(&list, one, 1, true);
    untold_answered(&list, one, 0, false);
    untold_answered(&list, one, 2, true);
    ck_assert_ptr_eq(untold_find(&list, one), self);
    ck_assert_uint_eq(self->stored, 2);
    expect_event(self, 0, "first", false);
    expect_event(self, 1, "second", true);
    expect_event(self, 2, "third", true);
    untold_forget(&list, one);
    ck_assert_ptr_null(untold_find(&list, one));
}
END_TEST

START_TEST(a_batch_of_which_nothing_was_stored_is_forgotten)
{
    untold *self = untold_begin(&list, one, 2);
    keep(self, 0, "first");
    keep(self, 1, "second");
    untold_answered(&list, one, 0, false);
    ck_assert_ptr_eq(untold_find(&list, one), self);
    untold_answered(&list, one, 1, false);
    ck_assert_ptr_null(untold_find(&list, one));
}
END_TEST

START_TEST(batches_do_not_mix)
{
    untold *first = untold_begin(&list, one, 1), *second = untold_begin(&list, two, 1);
    keep(first, 0, "of one");
    keep(second, 0, "of two");
    ck_assert_ptr_eq(untold_find(&list, one), first);
    ck_assert_ptr_eq(untold_find(&list, two), second);
    untold_answered(&list, two, 0, true);
    ck_assert_uint_eq(first->answered, 0);
    untold_forget(&list, one);
    ck_assert_ptr_null(untold_find(&list, one));
    ck_assert_ptr_eq(untold_find(&list, two), second);
    expect_event(second, 0, "of two", true);
}
END_TEST

/* Events that together are many times as large as the room that was made for the first. */
START_TEST(events_of_any_size)
{
    enum { COUNT = 200 };
    static char event[COUNT * 40 + 1];
    untold *self = untold_begin(&list, one, COUNT);
    size_t all = 0;
    for (size_t i = 0; i < COUNT; i++) {
        memset(event, 'a' + (int)(i % 26), i * 40 + 1);
        event[i * 40 + 1] = 0;
        keep(self, i, event);
        all += i * 40 + 1;
    }
    ck_assert_uint_eq(self->used, all);
    ck_assert_uint_le(self->room, 4 * all);
    for (size_t i = 0; i < COUNT; i++) {
        memset(event, 'a' + (int)(i % 26), i * 40 + 1);
        event[i * 40 + 1] = 0;
        expect_event(self, i, event, false);
    }
}
END_TEST

/* Of a batch that is not there, of an item that it has not, of one that was not sent to be stored.
 */
START_TEST(answers_to_nothing)
{
    untold_answered(&list, one, 0, true);
    untold_forget(&list, one);
    ck_assert_ptr_null(untold_find(&list, one));
    untold *self = untold_begin(&list, one, 2);
    keep(self, 0, "first");
    untold_answered(&list, one, 2, true);
    ck_assert_uint_eq(self->answered, 0);
    untold_answered(&list, one, 1, true);
    ck_assert_uint_eq(self->answered, 1);
    ck_assert_uint_eq(self->stored, 0);
    ck_assert(!self->events[1].stored);
    untold_answered(&list, one, 0, false);
    ck_assert_ptr_null(untold_find(&list, one));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("untold");
    TCase *all = tcase_create("untold");
    tcase_add_checked_fixture(all, NULL, clear);
    tcase_add_test(all, what_was_stored_is_kept_until_it_is_told);
    tcase_add_test(all, a_batch_of_which_nothing_was_stored_is_forgotten);
    tcase_add_test(all, batches_do_not_mix);
    tcase_add_test(all, events_of_any_size);
    tcase_add_test(all, answers_to_nothing);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
