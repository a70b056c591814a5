/* test_session_record.c: the stored form of a session: what is written is read, every damage is
 * told, and merging is what a dictionary of names would do.
 */
#include "session_record.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"

#define TEXT(text)                                                                                 \
    {                                                                                              \
        (text), sizeof(text) - 1                                                                   \
    }

static const larder_session_field some[] = {
    {.name = TEXT("zeta"), .value = TEXT("")},
    {.name = TEXT("a"), .value = TEXT("one")},
    {.name = TEXT("ab"), .value = TEXT("two\0and more")},
    {.name = TEXT("\xff\0"), .value = {NULL, 0}},
};
enum { SOME = sizeof some / sizeof some[0] };

static struct session_record make(const larder_session_field *fields, size_t count)
{
    const larder_session_field *sorted[LARDER_SESSION_FIELDS_MAX];
    struct session_record empty = {.field_count = 0}, record = {.created_ms = 1000,
                                                                .ttl_ms = 1800000,
                                                                .ends_ms = 5000000,
                                                                .user = TEXT("somebody")};
    ck_assert_int_eq(session_sort_fields(fields, count, sorted), LARDER_OK);
    ck_assert_int_eq(session_merge(&empty, sorted, count, &record), LARDER_OK);
    return record;
}

/* In memory of exactly its size, so that a sanitizer sees a byte too far. */
static uint8_t *encode(const struct session_record *record, size_t *size)
{
    *size = session_record_size(record);
    uint8_t *bytes = malloc(*size);
    ck_assert_ptr_nonnull(bytes);
    session_record_encode(record, bytes);
    return bytes;
}

static bool decodes(const uint8_t *bytes, size_t size)
{
    struct session_record record;
    uint8_t *exact = malloc(size == 0 ? 1 : size);
    ck_assert_ptr_nonnull(exact);
    if (size > 0) {
        memcpy(exact, bytes, size);
    }
    bool result = session_record_decode(exact, size, &record);
    free(exact);
    return result;
}

static bool is(larder_bytes bytes, const char *text, size_t size)
{
    return bytes.size == size && (size == 0 || memcmp(bytes.data, text, size) == 0);
}

START_TEST(what_is_written_is_read)
{
    struct session_record record = make(some, SOME), back;
    size_t size;
    uint8_t *bytes = encode(&record, &size);
    ck_assert_uint_eq(size, 32 + 8 + 4 * 8 + 4 + 1 + 3 + 2 + 12 + 2);
    ck_assert(session_record_decode(bytes, size, &back));
    ck_assert_int_eq(back.created_ms, 1000);
    ck_assert_int_eq(back.ttl_ms, 1800000);
    ck_assert_int_eq(back.ends_ms, 5000000);
    ck_assert(is(back.user, "somebody", 8));
    ck_assert_uint_eq(back.field_count, 4);
    ck_assert(is(back.fields[0].name, "a", 1) && is(back.fields[0].value, "one", 3));
    ck_assert(is(back.fields[1].name, "ab", 2) && is(back.fields[1].value, "two\0and more", 12));
    ck_assert(is(back.fields[2].name, "zeta", 4) && is(back.fields[2].value, "", 0));
    ck_assert(is(back.fields[3].name, "\xff\0", 2) && is(back.fields[3].value, "", 0));
    free(bytes);
}
END_TEST

START_TEST(every_shorter_or_longer_form_is_refused)
{
    struct session_record record = make(some, SOME);
    size_t size;
    uint8_t *bytes = encode(&record, &size), longer[512] = {0};
    for (size_t cut = 0; cut < size; cut++) {
        ck_assert_msg(!decodes(bytes, cut), "cut at %zu", cut);
    }
    memcpy(longer, bytes, size);
    ck_assert(decodes(longer, size));
    ck_assert(!decodes(longer, size + 1));
    free(bytes);
}
END_TEST

static const struct {
    size_t at;
    uint8_t byte;
    const char *what;
} damages[] = {
    {0, 2, "another version"},
    {1, 1, "a reserved byte"},
    {2, 5, "one field more than there are"},
    {2, 3, "one field less"},
    {3, 0xff, "more fields than there may be"},
    {4, 9, "a longer user"},
    {5, 0xff, "a user longer than users are"},
    {6, 1, "a reserved number"},
    {15, 0x80, "made before time began"},
    {23, 0x80, "a negative TTL"},
    {31, 0x80, "an end before time began"},
    {40, 0, "a field without a name"},
    {41, 0x7f, "a name longer than names are"},
    {42, 1, "a reserved number of a field"},
    {47, 0xff, "a value longer than all of it"},
    {48, 'b', "names that do not ascend"},
};

START_TEST(damage_is_told)
{
    struct session_record record = make(some, SOME);
    size_t size;
    uint8_t *bytes = encode(&record, &size);
    ck_assert_uint_ne(bytes[damages[_i].at], damages[_i].byte);
    bytes[damages[_i].at] = damages[_i].byte;
    ck_assert_msg(!decodes(bytes, size), "%s", damages[_i].what);
    free(bytes);
}
END_TEST

START_TEST(a_ttl_of_nothing_is_damage)
{
    struct session_record record = make(some, SOME);
    size_t size;
    record.ttl_ms = 0;
    uint8_t *bytes = encode(&record, &size);
    ck_assert(!decodes(bytes, size));
    free(bytes);
}
END_TEST

START_TEST(random_damage_never_reads_too_far)
{
    uint64_t stream = harness_seed();
    struct session_record record = make(some, SOME);
    size_t size;
    uint8_t *bytes = encode(&record, &size), spoiled[256];
    for (int i = 0; i < 100000; i++) {
        memcpy(spoiled, bytes, size);
        for (uint64_t many = 1 + harness_random(&stream) % 3; many > 0; many--) {
            spoiled[harness_random(&stream) % size] = (uint8_t)harness_random(&stream);
        }
        (void)decodes(spoiled, size - harness_random(&stream) % 4);
    }
    free(bytes);
}
END_TEST

static void expect(const struct session_record *record, const char *wanted)
{
    char text[256] = "";
    for (size_t i = 0; i < record->field_count; i++) {
        const larder_session_field *field = &record->fields[i];
        size_t used = strlen(text);
        ck_assert_uint_eq(field->flags, 0);
        (void)snprintf(text + used, sizeof text - used, "%s%.*s=%.*s", i == 0 ? "" : " ",
                       (int)field->name.size, (const char *)field->name.data,
                       (int)field->value.size, (const char *)field->value.data);
    }
    ck_assert_str_eq(text, wanted);
}

START_TEST(merging_replaces_adds_and_removes)
{
    static const larder_session_field old_fields[] = {{.name = TEXT("b"), .value = TEXT("1")},
                                                      {.name = TEXT("d"), .value = TEXT("2")},
                                                      {.name = TEXT("f"), .value = TEXT("3")}};
    static const larder_session_field changes[] = {
        {.name = TEXT("g"), .value = TEXT("7")},
        {.name = TEXT("d"), .flags = LARDER_SESSION_REMOVE},
        {.name = TEXT("a"), .value = TEXT("5")},
        {.name = TEXT("e"), .flags = LARDER_SESSION_REMOVE}, /* not there: fine */
        {.name = TEXT("f"), .value = TEXT("")}};
    const larder_session_field *sorted[LARDER_SESSION_FIELDS_MAX];
    struct session_record old = make(old_fields, 3), record;
    ck_assert_int_eq(session_sort_fields(changes, 5, sorted), LARDER_OK);
    ck_assert_int_eq(session_merge(&old, sorted, 5, &record), LARDER_OK);
    expect(&record, "a=5 b=1 f= g=7");
    ck_assert_int_eq(session_merge(&old, sorted, 0, &record), LARDER_OK);
    expect(&record, "b=1 d=2 f=3");
}
END_TEST

START_TEST(there_are_so_many_fields_and_no_more)
{
    static char names[LARDER_SESSION_FIELDS_MAX + 1][8];
    static larder_session_field fields[LARDER_SESSION_FIELDS_MAX + 1];
    const larder_session_field *sorted[LARDER_SESSION_FIELDS_MAX];
    for (size_t i = 0; i <= LARDER_SESSION_FIELDS_MAX; i++) {
        int size = snprintf(names[i], sizeof names[i], "%03zu", i);
        fields[i] = (larder_session_field){.name = {names[i], (size_t)size}};
    }
    struct session_record full = make(fields, LARDER_SESSION_FIELDS_MAX), record;
    ck_assert_uint_eq(full.field_count, LARDER_SESSION_FIELDS_MAX);
    ck_assert_int_eq(session_sort_fields(fields, LARDER_SESSION_FIELDS_MAX + 1, sorted),
                     LARDER_EINVAL);
    larder_session_field *last = &fields[LARDER_SESSION_FIELDS_MAX];
    ck_assert_int_eq(session_sort_fields(last, 1, sorted), LARDER_OK);
    ck_assert_int_eq(session_merge(&full, sorted, 1, &record), LARDER_ETOOBIG);
    /* one goes, one comes */
    larder_session_field both[] = {fields[7], *last};
    both[0].flags = LARDER_SESSION_REMOVE;
    ck_assert_int_eq(session_sort_fields(both, 2, sorted), LARDER_OK);
    ck_assert_int_eq(session_merge(&full, sorted, 2, &record), LARDER_OK);
    ck_assert_uint_eq(record.field_count, LARDER_SESSION_FIELDS_MAX);
}
END_TEST

START_TEST(a_field_that_is_none_is_refused)
{
    static char long_name[LARDER_SESSION_FIELD_NAME_MAX + 1];
    const larder_session_field *sorted[LARDER_SESSION_FIELDS_MAX];
    larder_session_field field = {.name = {long_name, LARDER_SESSION_FIELD_NAME_MAX}};
    memset(long_name, 'x', sizeof long_name);
    ck_assert_int_eq(session_sort_fields(&field, 1, sorted), LARDER_OK);
    field.name.size++;
    ck_assert_int_eq(session_sort_fields(&field, 1, sorted), LARDER_ETOOBIG);
    field.name.size = 0;
    ck_assert_int_eq(session_sort_fields(&field, 1, sorted), LARDER_EINVAL);
    field.name = (larder_bytes){NULL, 1};
    ck_assert_int_eq(session_sort_fields(&field, 1, sorted), LARDER_EINVAL);
    field.name = (larder_bytes)TEXT("a");
    field.flags = 2;
    ck_assert_int_eq(session_sort_fields(&field, 1, sorted), LARDER_EINVAL);
    field.flags = 0;
    field.reserved0 = 1;
    ck_assert_int_eq(session_sort_fields(&field, 1, sorted), LARDER_EINVAL);
    field.reserved0 = 0;
    field.value = (larder_bytes){NULL, 1};
    ck_assert_int_eq(session_sort_fields(&field, 1, sorted), LARDER_EINVAL);
    field.flags = LARDER_SESSION_REMOVE; /* nobody looks at the value */
    ck_assert_int_eq(session_sort_fields(&field, 1, sorted), LARDER_OK);
    ck_assert_int_eq(session_sort_fields(NULL, 1, sorted), LARDER_EINVAL);
    ck_assert_int_eq(session_sort_fields(NULL, 0, sorted), LARDER_OK);
    larder_session_field twice[] = {{.name = TEXT("a")}, {.name = TEXT("b")}, {.name = TEXT("a")}};
    ck_assert_int_eq(session_sort_fields(twice, 3, sorted), LARDER_EINVAL);
    ck_assert_ptr_nonnull(strstr(larder_last_error(), "twice"));
}
END_TEST

START_TEST(a_size_that_does_not_fit_is_no_small_one)
{
    larder_session_field fields[] = {{.name = TEXT("a"), .value = {"x", SIZE_MAX - 8}},
                                     {.name = TEXT("b"), .value = {"x", 100}}};
    struct session_record record = make(fields, 2);
    ck_assert_uint_eq(session_record_size(&record), SIZE_MAX);
    fields[0].value.size = fields[1].value.size = INT32_MAX;
    record = make(fields, 2);
    ck_assert_uint_gt(session_record_size(&record), INT32_MAX);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("session_record");
    TCase *form = tcase_create("form"), *fields = tcase_create("fields");
    tcase_add_test(form, what_is_written_is_read);
    tcase_add_test(form, every_shorter_or_longer_form_is_refused);
    tcase_add_loop_test(form, damage_is_told, 0, (int)(sizeof damages / sizeof damages[0]));
    tcase_add_test(form, a_ttl_of_nothing_is_damage);
    tcase_add_test(form, random_damage_never_reads_too_far);
    tcase_add_test(form, a_size_that_does_not_fit_is_no_small_one);
    tcase_add_test(fields, merging_replaces_adds_and_removes);
    tcase_add_test(fields, there_are_so_many_fields_and_no_more);
    tcase_add_test(fields, a_field_that_is_none_is_refused);
    suite_add_tcase(suite, form);
    suite_add_tcase(suite, fields);
    return harness_run(suite);
}
