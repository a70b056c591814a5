/* fuzz_conf.c: configuration files as anybody could write them. Problems are bounded and can be
 * printed; a file without a problem gives values that survive being written and read again.
 */
#include "tests/fuzz/fuzz.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/conf.h"

static void check_problems(const conf_problems *problems)
{
    for (size_t i = 0; i < problems->count && i < CONF_PROBLEMS_MAX; i++) {
        const char *text = problems->text[i];
        fuzz_check(text != NULL && *text != 0 && strlen(text) < 4096);
        for (; *text != 0; text++)
            fuzz_check((unsigned char)*text >= ' ' && *text != 0x7f);
    }
}

static void check_values(const struct conf *conf)
{
    struct conf copy;
    conf_problems none = {0};
    conf_read(&copy, "/nonexistent", false, NULL, 0, &none);
    fuzz_check(none.count == 0);
    for (size_t i = 0; i < conf_row_count; i++) {
        static char text[2 * CONF_TEXT_MAX];
        char error[512];
        const conf_row *row = &conf_rows[i];
        conf_format(conf, row, text, sizeof text);
        fuzz_check(conf_set(&copy, row, text, error, sizeof error));
        if (row->type != CONF_SHARE) /* which is written in decimals */
            fuzz_check(conf_same(conf, &copy, row));
        fuzz_check(conf_copy(&copy, conf, row) && conf_same(conf, &copy, row));
    }
    conf_free(&copy);
}

static void check_parsers(const char *text)
{
    int64_t number = 0;
    conf_listen listen;
    char error[200] = "";
    if (conf_parse_size(text, &number))
        fuzz_check(number >= 0);
    if (conf_parse_duration(text, &number))
        fuzz_check(number >= 0);
    if (conf_parse_listen(text, &listen, error, sizeof error)) {
        fuzz_check(memchr(listen.path, 0, sizeof listen.path) != NULL);
        fuzz_check(memchr(listen.address, 0, sizeof listen.address) != NULL);
        fuzz_check(listen.is_unix ? listen.path[0] == '/' : listen.port <= 65535);
    } else {
        fuzz_check(error[0] != 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf conf;
    conf_problems problems = {0};
    char path[64], *text = malloc(size + 1);
    int file = memfd_create("conf", MFD_CLOEXEC);
    fuzz_check(text != NULL && file >= 0 && write(file, data, size) == (ssize_t)size);
    memcpy(text, data, size);
    text[size] = 0;
    check_parsers(text);
    free(text);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    conf_read(&conf, path, true, NULL, 0, &problems);
    check_problems(&problems);
    if (problems.count == 0)
        check_values(&conf);
    conf_problems_free(&problems);
    conf_free(&conf);
    close(file);
    return 0;
}
