/* secret.c: see secret.h.
 */
#include "daemon/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* At most limit + 1 bytes, so that more than limit is seen. */
static bool read_open(int fd, const char *path, char *text, size_t limit, size_t *size, char *error,
                      size_t error_size)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
        return false;
    }
    if (!S_ISREG(status.st_mode)) {
        snprintf(error, error_size, "%s: not a regular file", path);
        return false;
    }
    if (status.st_mode & (S_IROTH | S_IWOTH)) {
        snprintf(error, error_size,
                 "%s: readable or writable by others (mode %04o): use 0600 or 0640", path,
                 (unsigned)status.st_mode & 07777u);
        return false;
    }
    *size = 0;
    ssize_t got;
    do {
        got = read(fd, text + *size, limit + 1 - *size);
        *size += got > 0 ? (size_t)got : 0;
    } while ((got > 0 && *size < limit + 1) || (got < 0 && errno == EINTR));
    if (got < 0) {
        snprintf(error, error_size, "%s: %s", path, strerror(errno));
        return false;
    }
    return true;
}

static bool acceptable(char *text, size_t *size, const char *path, char *error, size_t error_size)
{
    if (*size > 0 && text[*size - 1] == '\n') {
        --*size;
    }
    if (*size > 0 && text[*size - 1] == '\r') {
        --*size;
    }
    if (*size == 0 || *size > SECRET_MAX) {
        snprintf(error, error_size, "%s: %s", path,
                 *size ? "longer than 1024 bytes" : "the file is empty");
        return false;
    }
    for (size_t i = 0; i < *size; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            snprintf(error, error_size, "%s: holds a control character: one line is expected",
                     path);
            return false;
        }
    }
    return true;
}

static bool acceptable_pem(char *text, size_t *size, const char *path, char *error,
                           size_t error_size)
{
    if (*size == 0 || *size > SECRET_PEM_MAX) {
        snprintf(error, error_size, "%s: %s", path,
                 *size ? "longer than 65536 bytes" : "the file is empty");
        return false;
    }
    if (memchr(text, '\0', *size)) {
        snprintf(error, error_size, "%s: holds a zero byte: PEM text is expected", path);
        return false;
    }
    return true;
}

/* What can be read and is acceptable, of at most limit bytes. */
static bool read_secret(const char *path, const char *credential, size_t limit,
                        bool (*accept)(char *text, size_t *size, const char *path, char *error,
                                       size_t error_size),
                        char **out, char *error, size_t error_size)
{
    char composed[4096];
    size_t size = 0;
    bool optional = !*path;
    *out = NULL;
    if (optional) {
        const char *directory = getenv("CREDENTIALS_DIRECTORY");
        if (!directory || !*directory) {
            path = NULL;
        } else {
            snprintf(composed, sizeof composed, "%s/%s", directory, credential);
            path = composed;
        }
    }
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    if (fd < 0) {
        if (path && !(optional && errno == ENOENT)) {
            snprintf(error, error_size, "%s: %s", path, strerror(errno));
            return false;
        }
        *out = strdup("");
    } else {
        char *text = malloc(limit + 2);
        bool good = text && read_open(fd, path, text, limit, &size, error, error_size) &&
                    accept(text, &size, path, error, error_size);
        close(fd);
        if (good) {
            *out = strndup(text, size);
        }
        if (text) {
            explicit_bzero(text, limit + 2);
            free(text);
            if (!good) {
                return false;
            }
        }
    }
    if (!*out) {
        snprintf(error, error_size, "no memory");
    }
    return *out != NULL;
}

bool secret_read(const char *path, const char *credential, char **out, char *error,
                 size_t error_size)
{
    /* a line end, of two bytes perhaps, is not part of it */
    return read_secret(path, credential, SECRET_MAX + 2, acceptable, out, error, error_size);
}

bool secret_read_pem(const char *path, const char *credential, char **out, char *error,
                     size_t error_size)
{
    return read_secret(path, credential, SECRET_PEM_MAX, acceptable_pem, out, error, error_size);
}

void secret_free(char **secret)
{
    if (*secret) {
        explicit_bzero(*secret, strlen(*secret));
        free(*secret);
        *secret = NULL;
    }
}

bool secret_equal(const char *secret, const char *given, size_t given_size)
{
    size_t secret_size = strlen(secret);
    volatile unsigned char difference = secret_size != given_size;
    for (size_t i = 0; i < given_size; i++) {
        /* The index stays inside secret (its end included) whatever the sizes are. */
        difference |= (unsigned char)(secret[i % (secret_size + 1)] ^ given[i]);
    }
    return difference == 0;
}
