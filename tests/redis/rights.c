/* rights.c: see rights.h. */
#include "tests/redis/rights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/redis/fleet.h"

#define RULE "    ACL SETUSER larder "

/* Replace every name in capitals with what the test has in its place. */
static void fill_in(char *text, size_t size, const char *name, const char *value)
{
    char *at;
    while ((at = strstr(text, name)) != NULL) {
        char rest[4096];
        (void)snprintf(rest, sizeof rest, "%s", at + strlen(name));
        (void)snprintf(at, size - (size_t)(at - text), "%s%s", value, rest);
    }
}

/* The indented lines that begin with ACL SETUSER: of one server first, then of a cluster. */
static void read_rules(FILE *file, char *text, size_t size, int wanted)
{
    char line[512];
    bool inside = false;
    text[0] = 0;
    for (int found = 0; fgets(line, sizeof line, file) != NULL;) {
        const char *from = line;
        if (strncmp(line, RULE, strlen(RULE)) == 0) {
            inside = true;
            from += strlen(RULE);
        } else if (inside && strncmp(line, "    ", 4) != 0) {
            inside = false;
            if (++found == wanted)
                return;
        }
        size_t used = strlen(text);
        if (inside)
            (void)snprintf(text + used, size - used, "%s", from);
    }
    ck_abort_msg("there are no %d rules", wanted);
}

void rights_read(rights_rule *self, bool of_cluster)
{
    const char *source = getenv("srcdir");
    char path[300];
    (void)snprintf(path, sizeof path, "%s/doc/protocol.md", source == NULL ? "." : source);
    FILE *file = fopen(path, "r");
    ck_assert_msg(file != NULL, "no %s", path);
    read_rules(file, self->text, sizeof self->text, of_cluster ? 2 : 1);
    (void)fclose(file);
    fill_in(self->text, sizeof self->text, "PREFIX", "t:");
    fill_in(self->text, sizeof self->text, "PASSWORD", "pw");
    self->count = 0;
    for (char *rest = self->text, *word; (word = strsep(&rest, " \n")) != NULL;) {
        if (*word == 0)
            continue;
        ck_assert_uint_lt(self->count, RIGHTS_WORDS_MAX);
        self->words[self->count++] = word;
    }
    ck_assert_uint_ge(self->count, 10);
}

void rights_give(const rights_rule *self, harness_redis *redis)
{
    for (size_t i = 0; i < self->count; i++) {
        char *reply =
            harness_redis_command(redis, "ACL", "SETUSER", "larder", self->words[i], NULL);
        ck_assert_msg(strcmp(reply, "OK") == 0, "%s: %s", self->words[i], reply);
        free(reply);
    }
}

void rights_sufficed(harness_redis *redis)
{
    char *log = harness_redis_command(redis, "ACL", "LOG", NULL);
    ck_assert_msg(*log == 0, "denied: %s", log);
    free(log);
}

const char *rights_configuration(void)
{
    static char text[600];
    (void)snprintf(
        text, sizeof text,
        "redis = { prefix = \"t:\"; user = \"larder\"; password_file = \"%s\"; " HOST_QUICK
        "};\nmap = { size = \"64M\"; };\n",
        harness_write("password", 0600, "pw\n"));
    return text;
}
