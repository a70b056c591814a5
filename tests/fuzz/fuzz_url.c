/* fuzz_url.c: Redis URLs as anybody could give them. What is taken is terminated and in range, and
 * what it shows of itself is taken again as the same; what is refused comes with a sentence.
 */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/redis/url.h"

#define terminated(text) (memchr(text, 0, sizeof(text)) != NULL)

/* The place, written as text, stands in a URL of its own and is the same there. */
static void check_place(const url_place *place)
{
    char text[URL_PLACE_TEXT_MAX], url[URL_PLACE_TEXT_MAX + 16], error[200];
    redis_url again;
    fuzz_check(terminated(place->host) && terminated(place->path));
    url_place_text(place, text);
    fuzz_check(strlen(text) < sizeof text && url_place_same(place, place));
    if (place->path[0] != 0) {
        fuzz_check(place->path[0] == '/' && place->host[0] == 0);
        return;
    }
    fuzz_check(place->host[0] != 0 && place->port != 0);
    snprintf(url, sizeof url, "redis://%s", text);
    fuzz_check(url_parse(url, &again, error, sizeof error) == 0);
    fuzz_check(again.kind == URL_TCP && again.place_count == 1 && again.user[0] == 0);
    fuzz_check(url_place_same(&again.places[0], place));
}

static void check_taken(const redis_url *url)
{
    fuzz_check(terminated(url->user) && terminated(url->service) && terminated(url->display));
    fuzz_check(url->database <= URL_DATABASE_MAX && url->display[0] != 0);
    fuzz_check(url->place_count >= 1 && url->place_count <= URL_PLACES_MAX);
    fuzz_check((url->kind != URL_TCP && url->kind != URL_UNIX) || url->place_count == 1);
    fuzz_check((url->kind == URL_SENTINEL) == (url->service[0] != 0));
    fuzz_check((url->kind == URL_UNIX) == (url->places[0].path[0] != 0));
    fuzz_check(url->kind != URL_CLUSTER || url->database == 0);
    for (size_t i = 0; i < url->place_count; i++)
        check_place(&url->places[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static redis_url url;
    char *text = malloc(size + 1), error[200] = "", tiny[8] = "";
    fuzz_check(text != NULL);
    memcpy(text, data, size);
    text[size] = 0;
    if (url_parse(text, &url, error, sizeof error) == 0) {
        check_taken(&url);
    } else {
        fuzz_check(error[0] != 0 && terminated(error));
        fuzz_check(url_parse(text, &url, tiny, sizeof tiny) != 0 && terminated(tiny));
        fuzz_check(url_parse(text, &url, NULL, 0) != 0);
    }
    url_place place;
    memset(&place, 0, sizeof place);
    if (size > 2 &&
        url_place_set(&place, (const char *)data + 2, size - 2, data[0] * 256 + data[1]))
        check_place(&place);
    free(text);
    return 0;
}
