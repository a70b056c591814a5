/* error.c: codes, their short texts, and this thread's last error in full words.
 */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_SIZE = 384 };

static __thread char last_text[TEXT_SIZE];

static const struct {
    int code;
    const char *text;
} texts[] = {
    {LARDER_OK, "ok"},
    {LARDER_MISS, "not found"},
    {LARDER_STALE, "stale value"},
    {LARDER_EXISTS, "the key exists already"},
    {LARDER_CONFLICT, "the entry has another version"},
    {LARDER_ABSENT, "known to be absent"},
    {LARDER_REFRESH, "a value that is yours to renew"},
    {LARDER_FILL, "not found, and yours to fill"},
    {LARDER_WAIT, "another is filling it"},
    {LARDER_SKIP, "a value that is not for the cache"},
    {LARDER_EBUSY, "another process holds the lock"},
    {LARDER_ESIZE, "the buffer is too small"},
    {LARDER_EINVAL, "invalid argument"},
    {LARDER_ETOOBIG, "key or value over the limit"},
    {LARDER_EFULL, "the map is full"},
    {LARDER_ENAMESPACE, "the map belongs to another PID namespace"},
    {LARDER_ECORRUPT, "the map is damaged"},
    {LARDER_EFORMAT, "the map has another format"},
    {LARDER_EACCESS, "access refused"},
    {LARDER_ENOTFOUND, "no such map"},
    {LARDER_ENOSPACE, "the file system has no space for the map"},
    {LARDER_ENOMEM, "out of memory"},
    {LARDER_ESYSTEM, "a system call failed"},
    {LARDER_ENUMBER, "the value is not a 64-bit decimal integer"},
    {LARDER_EOVERFLOW, "the result does not fit"},
    {LARDER_EREADONLY, "the handle is read-only"},
    {LARDER_EUNSUPPORTED, "not supported by this version"},
    {LARDER_ELIMIT, "a bounded resource is used up"},
    {LARDER_EDUPLICATE, "a second copy of the library is loaded"},
};

const char *larder_strerror(int code)
{
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].code == code) {
            return texts[i].text;
        }
    }
    return code < 0 ? "unknown error" : "unknown outcome";
}

const char *larder_last_error(void)
{
    return last_text;
}

void error_clear(void)
{
    last_text[0] = '\0';
}

int error_of_file(int error)
{
    switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EINTR:
    case EIO:
        return LARDER_ESYSTEM;
    default:
        return LARDER_EACCESS;
    }
}

int(error_set)(int code, const char *format, ...)
{
    int saved = errno;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(last_text, sizeof last_text, format, arguments);
    va_end(arguments);
    errno = saved;
    return code;
}

int(error_system)(int code, const char *format, ...)
{
    int saved = errno;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(last_text, sizeof last_text, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < sizeof last_text) {
        char buffer[128];
        (void)snprintf(last_text + length, sizeof last_text - (size_t)length, ": %s",
                       strerror_r(saved, buffer, sizeof buffer));
    }
    errno = saved;
    return code;
}
