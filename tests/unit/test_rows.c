/* test_rows.c: blocks of log rows: a model beside them, damage, and how rows are numbered.
 */
#include "rows.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"

static uint64_t stream;

/* What a block should hold. */
struct model {
    size_t sizes[ROWS_IN_BLOCK]; /* 0: not there */
    uint8_t forms[ROWS_IN_BLOCK][KEY_FORM_MAX];
};

static void same(const struct model *model, const larder_bytes *block)
{
    for (unsigned from = 0; from <= ROWS_IN_BLOCK; from++) {
        unsigned next = from, previous = from, index = 99;
        larder_bytes form;
        while (next < ROWS_IN_BLOCK && model->sizes[next] == 0) {
            next++;
        }
        int result = block->size == 0 ? LARDER_MISS : rows_next(block, from, &index, &form);
        ck_assert_int_eq(result, next < ROWS_IN_BLOCK ? LARDER_OK : LARDER_MISS);
        if (result == LARDER_OK) {
            ck_assert_uint_eq(index, next);
            ck_assert_uint_eq(form.size, model->sizes[next]);
            ck_assert_mem_eq(form.data, model->forms[next], form.size);
        }
        while (previous > 0 && model->sizes[previous - 1] == 0) {
            previous--;
        }
        result = block->size == 0 ? LARDER_MISS : rows_previous(block, from, &index, &form);
        ck_assert_int_eq(result, previous > 0 ? LARDER_OK : LARDER_MISS);
        if (result == LARDER_OK) {
            ck_assert_uint_eq(index, previous - 1);
            ck_assert_uint_eq(form.size, model->sizes[index]);
            ck_assert_mem_eq(form.data, model->forms[index], form.size);
        }
    }
}

static bool is_last(const struct model *model, unsigned index)
{
    for (unsigned i = index + 1; i < ROWS_IN_BLOCK; i++) {
        if (model->sizes[i] != 0) {
            return false;
        }
    }
    return true;
}

static bool is_behind_a_long_one(const struct model *model, unsigned index)
{
    for (unsigned i = 0; i < index; i++) {
        if (model->sizes[i] > ROWS_FORM_SHORT) {
            return true;
        }
    }
    return false;
}

START_TEST(random_rows_come_and_go)
{
    stream = harness_seed();
    for (int round = 0; round < 300; round++) {
        static struct model model;
        static uint8_t bytes[2][ROWS_BUFFER];
        larder_bytes block = {bytes[0], 0};
        memset(&model, 0, sizeof model);
        for (int turn = 0; turn < 60; turn++) {
            unsigned index = (unsigned)(harness_random(&stream) % ROWS_IN_BLOCK);
            uint8_t *out = bytes[block.data == bytes[0]];
            size_t size = 0;
            if (harness_random(&stream) % 3 == 0 && block.size > 0) {
                int expected = model.sizes[index] == 0 ? LARDER_MISS : LARDER_OK;
                ck_assert_int_eq(rows_remove(&block, index, out, &size), expected);
                if (expected != LARDER_OK) {
                    continue;
                }
                model.sizes[index] = 0;
            } else {
                uint8_t form[KEY_FORM_MAX];
                bool is_long = harness_random(&stream) % 8 == 0;
                larder_bytes added = {form,
                                      1 + harness_random(&stream) % (is_long ? KEY_FORM_MAX : 40)};
                memset(form, (int)harness_random(&stream), added.size);
                int expected = model.sizes[index] != 0 ? LARDER_EXISTS
                               : is_behind_a_long_one(&model, index) ||
                                       (added.size > ROWS_FORM_SHORT && !is_last(&model, index))
                                   ? LARDER_ECORRUPT
                                   : LARDER_OK;
                ck_assert_int_eq(rows_insert(&block, index, &added, out, &size), expected);
                if (expected != LARDER_OK) {
                    continue;
                }
                model.sizes[index] = added.size;
                memcpy(model.forms[index], form, added.size);
            }
            block = (larder_bytes){out, size};
            same(&model, &block);
        }
    }
}
END_TEST

/* Every call ends, and stays inside the block: a sanitizer watches. */
static void survives(const uint8_t *bytes, size_t size)
{
    static uint8_t out[ROWS_BUFFER];
    uint8_t *copy = malloc(size == 0 ? 1 : size); /* exactly that many */
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, bytes, size);
    larder_bytes block = {copy, size}, form, added = {"\2key", 4};
    unsigned index;
    size_t got;
    for (unsigned i = 0; i < ROWS_IN_BLOCK; i++) {
        if (rows_next(&block, i, &index, &form) == LARDER_OK) {
            ck_assert_uint_ge(index, i);
            ck_assert(form.size > 0 && form.size <= KEY_FORM_MAX);
        }
        (void)rows_previous(&block, i, &index, &form);
        if (size > 0) {
            (void)rows_insert(&block, i, &added, out, &got);
            (void)rows_remove(&block, i, out, &got);
        }
    }
    free(copy);
}

START_TEST(damage_is_found_or_harmless)
{
    uint8_t bytes[400];
    unsigned index;
    larder_bytes form;
    stream = harness_seed() ^ 5;
    for (int i = 0; i < 20000; i++) {
        size_t size = harness_random(&stream) % sizeof bytes;
        for (size_t at = 0; at < size; at++) {
            bytes[at] = (uint8_t)(harness_random(&stream) % (i % 2 == 0 ? 256 : 8));
        }
        survives(bytes, size);
    }
    const struct {
        const char *bytes;
        size_t size;
    } wrong[] = {
        {"", 0},           /* no head */
        {"\1", 1},         /* half of one */
        {"\1\0", 2},       /* a row that is not there */
        {"\1\0\5abc", 6},  /* cut off */
        {"\1\0\0abc", 6},  /* a long one that is short */
        {"\3\0\0abc", 6},  /* and not the last */
        {"\2\0\1a\1b", 6}, /* more bytes than rows */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        larder_bytes block = {wrong[i].bytes, wrong[i].size};
        int first = rows_next(&block, 0, &index, &form);
        int second = first == LARDER_OK ? rows_next(&block, index + 1, &index, &form) : first;
        ck_assert_msg(second == LARDER_ECORRUPT, "%zu: %d", i, second);
        ck_assert_int_eq(rows_previous(&block, ROWS_IN_BLOCK, &index, &form), LARDER_ECORRUPT);
    }
}
END_TEST

START_TEST(blocks_end_where_a_form_does_not_fit)
{
    uint64_t used = 0, next = 32;
    for (unsigned i = 0; i < 3 * ROWS_IN_BLOCK; i++) { /* short ones: all of them in a row */
        ck_assert_uint_eq(rows_number(next, 17, &used), 32 + i);
        next = 33 + i;
        ck_assert_uint_eq(used, ROWS_HEAD + (1 + i % ROWS_IN_BLOCK) * 18);
    }
    next = 5 * ROWS_IN_BLOCK + 7;
    used = ROWS_BYTES_MOST - 18;
    ck_assert_uint_eq(rows_number(next, 17, &used), next);
    ck_assert_uint_eq(used, ROWS_BYTES_MOST);
    ck_assert_uint_eq(rows_number(next + 1, 1, &used), 6 * ROWS_IN_BLOCK);
    ck_assert_uint_eq(used, ROWS_HEAD + 2);
    /* behind a long one nothing comes, and the next block begins */
    ck_assert_uint_eq(rows_number(6 * ROWS_IN_BLOCK + 1, 300, &used), 6 * ROWS_IN_BLOCK + 1);
    ck_assert_uint_eq(rows_number(6 * ROWS_IN_BLOCK + 2, 17, &used), 7 * ROWS_IN_BLOCK);
    used = UINT64_MAX / 2; /* read from shared memory */
    ck_assert_uint_eq(rows_number(6 * ROWS_IN_BLOCK + 2, 17, &used), 7 * ROWS_IN_BLOCK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rows");
    TCase *tests = tcase_create("rows");
    tcase_set_timeout(tests, harness_patience(30000) / 1000);
    tcase_add_test(tests, random_rows_come_and_go);
    tcase_add_test(tests, damage_is_found_or_harmless);
    tcase_add_test(tests, blocks_end_where_a_form_does_not_fit);
    suite_add_tcase(suite, tests);
    return harness_run(suite);
}
