/* session_id.c: see session_id.h. Keys are digests because keys are seen: in listings, in events,
 * in Redis's slow log. Who reads one there must not be able to take over the session; and no
 * comparison of keys in the map, however it is timed, says anything of an id.
 */
#include "session_id.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

#include "error.h"
#include "sha256.h"

enum { ID_BYTES = 32 };

/* RFC 4648, section 5 */
static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* 32 bytes are 43 characters; the last one has 4 bits of them. */
static void write_base64(const uint8_t bytes[ID_BYTES], char *text)
{
    for (size_t i = 0; i < LARDER_SESSION_ID_SIZE; i++) {
        size_t bit = i * 6, at = bit / 8;
        unsigned pair = (unsigned)bytes[at] << 8 | (at + 1 < ID_BYTES ? bytes[at + 1] : 0u);
        text[i] = alphabet[pair >> (10 - bit % 8) & 63];
    }
}

int session_id_draw(larder_session_id *id)
{
    uint8_t bytes[ID_BYTES];
    ssize_t got = getrandom(bytes, sizeof bytes, GRND_NONBLOCK);
    if (got < 0) {
        return error_system(LARDER_ESYSTEM, "no random bytes for a session's id: getrandom()");
    }
    if ((size_t)got != sizeof bytes) {
        return error_set(LARDER_ESYSTEM, "getrandom() gave %zd of %zu bytes for a session's id",
                         got, sizeof bytes);
    }
    write_base64(bytes, id->text);
    id->text[LARDER_SESSION_ID_SIZE] = '\0';
    explicit_bzero(bytes, sizeof bytes);
    return LARDER_OK;
}

bool session_id_is_valid(const void *id, size_t size)
{
    const char *text = id;
    if (text == NULL || size != LARDER_SESSION_ID_SIZE) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\0' || strchr(alphabet, text[i]) == NULL) {
            return false;
        }
    }
    return (strchr(alphabet, text[size - 1]) - alphabet) % 4 == 0;
}

void session_id_key(larder_bytes prefix, const void *id, struct session_key *key)
{
    uint8_t digest[SHA256_SIZE];
    sha256(id, LARDER_SESSION_ID_SIZE, digest);
    memcpy(key->text, prefix.data, prefix.size);
    write_base64(digest, key->text + prefix.size);
    key->size = prefix.size + LARDER_SESSION_ID_SIZE;
}
