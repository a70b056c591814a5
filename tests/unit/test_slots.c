/* test_slots.c: what a node says of its cluster: which slots are whose, redirections, and the slot
 * that a command belongs to. fuzz_slots.c looks at what no node would say.
 */
#include "tests/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/names.h"
#include "daemon/redis/slots.h"

static const url_place asked = {.host = "10.0.0.9", .port = 7009};
static slots_map map, other;
static char error[200];
static codec *reader;

static void open_reader(void)
{
    static const codec_limits limits = {
        .max_bytes = 1 << 20, .max_elements = 65536, .max_depth = 5};
    reader = codec_create(&limits);
    ck_assert_ptr_nonnull(reader);
}

static void close_reader(void)
{
    codec_destroy(&reader);
}

/* The reply that this text is, good until the next. */
static const reply *said(const char *text)
{
    ck_assert_msg(codec_feed(reader, text, strlen(text)), "%s", codec_error(reader));
    const reply *got = codec_next(reader);
    ck_assert_msg(got != NULL, "no whole reply: %s", text);
    return got;
}

static void is_read(const char *text)
{
    ck_assert_msg(slots_read(said(text), &asked, &map, error, sizeof error), "%s: %s", text, error);
}

static void is_refused(const char *text, const char *because)
{
    ck_assert(!slots_read(said(text), &asked, &map, error, sizeof error));
    ck_assert_msg(strstr(error, because) != NULL, "not \"%s\" but: %s", because, error);
}

static void expect_place(const url_place *place, const char *host, unsigned port)
{
    ck_assert_str_eq(place->host, host);
    ck_assert_uint_eq(place->port, port);
}

#define MASTER(port) "*2\r\n$9\r\n127.0.0.1\r\n:" port "\r\n"

START_TEST(each_slot_has_the_node_that_was_named)
{
    is_read("*3\r\n*3\r\n:0\r\n:99\r\n" MASTER("1") "*3\r\n:200\r\n:16383\r\n" MASTER(
        "2") "*4\r\n:100\r\n:100\r\n" MASTER("1") MASTER("3"));
    ck_assert_uint_eq(map.node_count, 2); /* a replica is none */
    ck_assert_uint_eq(map.covered, 16384 - 99);
    expect_place(&map.nodes[map.owner[0]], "127.0.0.1", 1);
    expect_place(&map.nodes[map.owner[99]], "127.0.0.1", 1);
    expect_place(&map.nodes[map.owner[100]], "127.0.0.1", 1);
    ck_assert_uint_eq(map.owner[101], SLOTS_NOWHERE);
    ck_assert_uint_eq(map.owner[199], SLOTS_NOWHERE);
    expect_place(&map.nodes[map.owner[200]], "127.0.0.1", 2);
    expect_place(&map.nodes[map.owner[16383]], "127.0.0.1", 2);
    url_place place = {.host = "127.0.0.1", .port = 2};
    ck_assert_int_eq(slots_find(&map, &place), map.owner[200]);
    place.port = 3;
    ck_assert_int_eq(slots_find(&map, &place), -1);
}
END_TEST

START_TEST(a_node_without_a_host_is_where_the_one_that_was_asked_is)
{
    is_read("*3\r\n*3\r\n:0\r\n:0\r\n*2\r\n$-1\r\n:1\r\n*3\r\n:1\r\n:1\r\n*2\r\n$0\r\n\r\n:2\r\n"
            "*3\r\n:2\r\n:2\r\n*4\r\n$1\r\n?\r\n:3\r\n$2\r\nid\r\n"
            "*4\r\n$1\r\nx\r\n$1\r\ny\r\n$2\r\nip\r\n$3\r\n::1\r\n");
    expect_place(&map.nodes[map.owner[0]], "10.0.0.9", 1);
    expect_place(&map.nodes[map.owner[1]], "10.0.0.9", 2);
    expect_place(&map.nodes[map.owner[2]], "::1", 3); /* its name is not known: the address is */
}
END_TEST

START_TEST(nonsense_is_refused)
{
    is_refused("*0\r\n", "nobody");
    is_refused("+OK\r\n", "something else");
    is_refused("-ERR no such thing\r\n", "no such thing");
    is_refused("*1\r\n*2\r\n:0\r\n:1\r\n", "entry 0 is no range");
    is_refused("*1\r\n*3\r\n$1\r\n0\r\n:1\r\n" MASTER("1"), "is no range");
    is_refused("*1\r\n:5\r\n", "is no range");
    is_refused("*1\r\n*3\r\n:-1\r\n:1\r\n" MASTER("1"), "slots that there are not");
    is_refused("*1\r\n*3\r\n:2\r\n:1\r\n" MASTER("1"), "slots that there are not");
    is_refused("*1\r\n*3\r\n:0\r\n:16384\r\n" MASTER("1"), "slots that there are not");
    is_refused("*1\r\n*3\r\n:0\r\n:1\r\n" MASTER("0"), "without an address");
    is_refused("*1\r\n*3\r\n:0\r\n:1\r\n" MASTER("65536"), "without an address");
    is_refused("*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$3\r\na/b\r\n:1\r\n", "without an address");
    is_refused("*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\n?\r\n:1\r\n", "without an address");
    is_refused("*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\na\r\n", "without an address");
    is_refused("*2\r\n*3\r\n:0\r\n:5\r\n" MASTER("1") "*3\r\n:5\r\n:6\r\n" MASTER("1"),
               "entry 1 gives a slot to two nodes");
}
END_TEST

/* One for every node: so many, and no more. */
static char *many_nodes(unsigned count)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(out);
    (void)fprintf(out, "*%u\r\n", count);
    for (unsigned i = 0; i < count; i++)
        (void)fprintf(out, "*3\r\n:%u\r\n:%u\r\n*2\r\n$1\r\nh\r\n:%u\r\n", i, i, i + 1);
    ck_assert_int_eq(fclose(out), 0);
    return text;
}

START_TEST(nodes_are_bounded)
{
    char *most = many_nodes(SLOTS_NODES_MAX), *more = many_nodes(SLOTS_NODES_MAX + 1);
    is_read(most);
    ck_assert_uint_eq(map.node_count, SLOTS_NODES_MAX);
    is_refused(more, "more nodes than the limit");
    free(most);
    free(more);
}
END_TEST

START_TEST(the_same_nodes_in_another_order)
{
    uint16_t place_of[SLOTS_NODES_MAX];
    is_read("*2\r\n*3\r\n:0\r\n:0\r\n" MASTER("1") "*3\r\n:1\r\n:1\r\n" MASTER("2"));
    other = map;
    is_read("*2\r\n*3\r\n:0\r\n:0\r\n" MASTER("2") "*3\r\n:1\r\n:1\r\n" MASTER("1"));
    ck_assert(slots_same_nodes(&other, &map, place_of));
    ck_assert_uint_eq(place_of[0], 1);
    ck_assert_uint_eq(place_of[1], 0);
    is_read("*2\r\n*3\r\n:0\r\n:0\r\n" MASTER("2") "*3\r\n:1\r\n:1\r\n" MASTER("3"));
    ck_assert(!slots_same_nodes(&other, &map, place_of));
    is_read("*1\r\n*3\r\n:0\r\n:1\r\n" MASTER("2"));
    ck_assert(!slots_same_nodes(&other, &map, place_of));
}
END_TEST

/* ---- Redirections -----------------------------------------------------------------------------
 */

static void redirects(const char *text, bool ask, unsigned slot, const char *host, unsigned port)
{
    slots_redirection to;
    ck_assert_msg(slots_redirected(said(text), &asked, &to), "%s", text);
    ck_assert_int_eq(to.ask, ask);
    ck_assert_uint_eq(to.slot, slot);
    expect_place(&to.to, host, port);
}

START_TEST(redirections)
{
    redirects("-MOVED 3999 127.0.0.1:6381\r\n", false, 3999, "127.0.0.1", 6381);
    redirects("-ASK 16383 host.example:65535\r\n", true, 16383, "host.example", 65535);
    redirects("-MOVED 0 ::1:7\r\n", false, 0, "::1", 7);
    redirects("-MOVED 1 :7\r\n", false, 1, "10.0.0.9", 7);
}
END_TEST

START_TEST(what_is_no_redirection)
{
    static const char *const texts[] = {
        "-MOVED\r\n",           "-MOVED 1\r\n",         "-MOVED 1 h\r\n",
        "-MOVED 1 h:\r\n",      "-MOVED 1 h:0\r\n",     "-MOVED 1 h:65536\r\n",
        "-MOVED 1 h:7x\r\n",    "-MOVED 16384 h:7\r\n", "-MOVED 99999999999999999999 h:7\r\n",
        "-MOVED x h:7\r\n",     "-MOVED  1 h:7\r\n",    "-MOVEDX 1 h:7\r\n",
        "-ERR MOVED 1 h:7\r\n", "+MOVED 1 h:7\r\n",     "-ASK 1 a b:7\r\n"};
    slots_redirection to;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        ck_assert_msg(!slots_redirected(said(texts[i]), &asked, &to), "%s", texts[i]);
}
END_TEST

/* ---- Commands ---------------------------------------------------------------------------------
 */

static uint16_t slot_of(int count, const char *const *words)
{
    size_t sizes[8];
    for (int i = 0; i < count; i++)
        sizes[i] = strlen(words[i]);
    return slots_of_command(count, words, sizes);
}

START_TEST(slots_of_commands)
{
    uint16_t slot = names_slot((const uint8_t *)"foo", 3); /* as the specification says */
    ck_assert_uint_eq(slot, 12182);
    ck_assert_uint_eq(slot_of(2, (const char *const[]){"GET", "foo"}), slot);
    ck_assert_uint_eq(slot_of(3, (const char *const[]){"MGET", "a{foo}", "b{foo}"}), slot);
    ck_assert_uint_eq(slot_of(5, (const char *const[]){"EVALSHA", "f00d", "2", "foo", "x"}), slot);
    ck_assert_uint_eq(slot_of(4, (const char *const[]){"eval", "return 1", "1", "foo"}), slot);
    ck_assert_uint_eq(slot_of(4, (const char *const[]){"FCALL", "f", "1", "foo"}), slot);
    ck_assert_uint_eq(slot_of(4, (const char *const[]){"EVALSHA", "f00d", "0", "foo"}),
                      SLOTS_NOWHERE);
    ck_assert_uint_eq(slot_of(3, (const char *const[]){"EVALSHA", "f00d", "1"}), SLOTS_NOWHERE);
    ck_assert_uint_eq(slot_of(2, (const char *const[]){"EVALSHA", "f00d"}), SLOTS_NOWHERE);
    ck_assert_uint_eq(slot_of(1, (const char *const[]){"PING"}), SLOTS_NOWHERE);
    ck_assert_uint_eq(slot_of(0, NULL), SLOTS_NOWHERE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("slots");
    TCase *all = tcase_create("slots");
    tcase_add_checked_fixture(all, open_reader, close_reader);
    tcase_add_test(all, each_slot_has_the_node_that_was_named);
    tcase_add_test(all, a_node_without_a_host_is_where_the_one_that_was_asked_is);
    tcase_add_test(all, nonsense_is_refused);
    tcase_add_test(all, nodes_are_bounded);
    tcase_add_test(all, the_same_nodes_in_another_order);
    tcase_add_test(all, redirections);
    tcase_add_test(all, what_is_no_redirection);
    tcase_add_test(all, slots_of_commands);
    suite_add_tcase(suite, all);
    return harness_run(suite);
}
