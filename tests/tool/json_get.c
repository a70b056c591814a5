/* json_get.c: what the tool's tests read its JSON with: takes exactly one document from standard
 * input and prints what stands at a path of member names and array indices ("entries.0.key"): text
 * as its bytes, "#" behind an array's path its length, null, true, false, numbers. Exit status 1
 * where the path leads nowhere, 2 where the input is not one valid document.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Standard input; NULL where it is not ASCII. */
static char *read_input(size_t *size)
{
    char *input = NULL;
    FILE *memory = open_memstream(&input, size);
    int byte;
    if (memory == NULL) {
        return NULL;
    }
    while ((byte = getchar()) != EOF && byte < 0x80) {
        (void)putc(byte, memory);
    }
    if (fclose(memory) != 0 || byte != EOF) {
        (void)fprintf(stderr, "json_get: no ASCII\n");
        free(input);
        return NULL;
    }
    return input;
}

/* Print what stands at the path. False where it leads nowhere. */
static bool print_at(const json_t *at, char *path)
{
    for (char *part = strtok(path, "."); part != NULL && at != NULL; part = strtok(NULL, ".")) {
        if (json_is_array(at) && strcmp(part, "#") == 0) {
            (void)printf("%zu", json_array_size(at));
            return true;
        }
        at = json_is_array(at) ? json_array_get(at, strtoul(part, NULL, 10))
                               : json_object_get(at, part);
    }
    if (json_is_string(at)) {
        (void)fwrite(json_string_value(at), 1, json_string_length(at), stdout);
    } else if (at != NULL) {
        (void)json_dumpf(at, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
    }
    return at != NULL;
}

int main(int argc, char **argv)
{
    json_error_t error = {.line = 0};
    size_t size = 0;
    char *input = argc == 2 ? read_input(&size) : NULL;
    if (input == NULL) {
        return 2;
    }
    int result = 2;
    json_t *root = json_loadb(input, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (root == NULL) {
        (void)fprintf(stderr, "json_get: line %d: %s\n", error.line, error.text);
    } else {
        result = print_at(root, argv[1]) ? 0 : 1;
    }
    json_decref(root);
    free(input);
    return fflush(stdout) == 0 ? result : 2;
}
