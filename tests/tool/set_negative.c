/* set_negative.c: store a negative entry ("known to be absent"), which the tool shows but does not
 * make. usage: set_negative DIR NAME KEY
 */
#include <stdio.h>
#include <string.h>

#include "larder.h"

int main(int argc, char **argv)
{
    larder *handle = NULL;
    larder_policy policy = {.flags = LARDER_NEGATIVE};
    if (argc != 4) {
        return 2;
    }
    larder_options options = {.dir = argv[1], .flags = LARDER_ATTACH};
    int code = larder_open(argv[2], &options, &handle);
    if (code >= 0) {
        code = larder_set(handle, argv[3], strlen(argv[3]), "", 0, &policy);
    }
    if (code < 0) {
        (void)fprintf(stderr, "set_negative: %s\n", larder_last_error());
    }
    larder_close(&handle);
    return code < 0 ? 1 : 0;
}
