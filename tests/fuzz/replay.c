/* replay.c: main() of a fuzz target without libFuzzer: each file of the corpus beside the sources
 * (tests/fuzz/corpus/TARGET), as it is and with a few thousand small changes drawn from the seed.
 * Other files and folders may be named instead; those are replayed as they are.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"
#include "tests/multi/harness.h"

enum { INPUT_MAX = 65536, FILES_MAX = 4096 };

static test_random randomness;
static uint64_t files, runs;

static size_t read_file(const char *path, uint8_t *out)
{
    FILE *file = fopen(path, "re");
    test_check(file != NULL, "%s: %s", path, strerror(errno));
    size_t size = fread(out, 1, INPUT_MAX, file);
    fclose(file);
    return size;
}

/* The target gets memory of just the size, so that a sanitizer sees each byte too far. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size == 0 ? 1 : size);
    test_check(exact != NULL, "malloc");
    memcpy(exact, data, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    runs++;
}

static size_t change(uint8_t *data, size_t size)
{
    static const char telling[] = "\r\n$*:+-0123456789 %{}\"/@\xff";
    size_t at = size == 0 ? 0 : (size_t)test_random_below(&randomness, size);
    switch (test_random_below(&randomness, 5)) {
    case 0:
        if (size > 0)
            data[at] = (uint8_t)test_random_next(&randomness);
        break;
    case 1:
        if (size > 0)
            data[at] = (uint8_t)telling[test_random_below(&randomness, sizeof telling - 1)];
        break;
    case 2: /* lost */
        if (size > 0)
            memmove(data + at, data + at + 1, --size - at);
        break;
    case 3: /* doubled */
        if (size > 0 && size < INPUT_MAX)
            memmove(data + at + 1, data + at, size++ - at);
        break;
    default: /* cut off */
        size = at;
        break;
    }
    return size;
}

static void replay_file(const char *path, uint64_t changed)
{
    static uint8_t whole[INPUT_MAX], data[INPUT_MAX];
    size_t size = read_file(path, whole);
    files++;
    run(whole, size);
    for (uint64_t i = 0; i < changed; i++) {
        size_t now = size;
        memcpy(data, whole, size);
        for (uint64_t times = 1 + test_random_below(&randomness, 4); times > 0; times--)
            now = change(data, now);
        run(data, now);
    }
}

static void replay(const char *path, uint64_t changed)
{
    struct stat status;
    test_check(stat(path, &status) == 0, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(status.st_mode)) {
        replay_file(path, changed);
        return;
    }
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, NULL, alphasort);
    test_check(count >= 0, "%s: %s", path, strerror(errno));
    for (int i = 0; i < count; i++) {
        char name[1024];
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            replay_file(name, changed);
        free(entries[i]);
    }
    free(entries);
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/'), *sources = getenv("srcdir");
    const char *name = slash == NULL ? argv[0] : slash + 1;
    char corpus[1024];
    test_begin(name, 120);
    randomness = test_random_new(1);
    for (int i = 1; i < argc; i++)
        replay(argv[i], 0);
    if (argc == 1) {
        snprintf(corpus, sizeof corpus, "%s/tests/fuzz/corpus/%s", sources == NULL ? "." : sources,
                 name + strlen("fuzz_"));
        replay(corpus, test_number("LARDER_FUZZ_CHANGES", 1000, 20000));
    }
    test_check(files > 0, "there is nothing to replay");
    printf("%" PRIu64 " files, %" PRIu64 " runs\n", files, runs);
    test_end();
}
