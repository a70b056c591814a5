/* json_get.c: what the tool's tests read its JSON with: takes exactly one document from standard
 * input and prints what stands at a path of member names and array indices ("entries.0.key"): text
 * as its bytes, "#" behind an array's path its length, null, true, false, numbers. Exit status 1
 * where the path leads nowhere, 2 where the input is not one valid document.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    json_error_t error;
    char *input = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&input, &size);
    int byte;
    if (argc != 2 || memory == NULL) {
        return 2;
    }
    while ((byte = getchar()) != EOF) {
        if (byte >= 0x80) {
            (void)fprintf(stderr, "json_get: byte 0x%02x is not ASCII\n", (unsigned)byte);
            return 2;
        }
        (void)putc(byte, memory);
    }
    if (fclose(memory) != 0) {
        return 2;
    }
    json_t *root = json_loadb(input, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (root == NULL) {
        (void)fprintf(stderr, "json_get: line %d: %s\n", error.line, error.text);
        return 2;
    }
    const json_t *at = root;
    for (char *part = strtok(argv[1], "."); part != NULL && at != NULL; part = strtok(NULL, ".")) {
        if (json_is_array(at) && strcmp(part, "#") == 0) {
            (void)printf("%zu", json_array_size(at));
            return 0;
        }
        at = json_is_array(at) ? json_array_get(at, strtoul(part, NULL, 10))
                               : json_object_get(at, part);
    }
    if (at == NULL) {
        return 1;
    }
    if (json_is_string(at)) {
        (void)fwrite(json_string_value(at), 1, json_string_length(at), stdout);
    } else {
        (void)json_dumpf(at, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
    }
    json_decref(root);
    free(input);
    return fflush(stdout) == 0 ? 0 : 2;
}
