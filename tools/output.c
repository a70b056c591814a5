/* output.c: see output.h. Standard output is written through stdio and looked at at the end
 * (output_end); where much is written, directly behind it too (output_failed), while errno still
 * says why.
 */
#include "tools/output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/escape.h"

static bool to_terminal;
static int write_error; /* errno of the first write that failed; 0 while none did */
static bool ascii_only; /* a terminal that does not take UTF-8 */

void output_begin(void)
{
    /* The wrong direction on purpose: reading or writing what was closed stays an error. */
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
            (void)open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
        }
    }
    (void)setlocale(LC_CTYPE, "");
    to_terminal = isatty(STDOUT_FILENO) == 1;
    ascii_only = to_terminal && strcmp(nl_langinfo(CODESET), "UTF-8") != 0;
}

bool output_failed(void)
{
    if (ferror(stdout) && write_error == 0) {
        write_error = errno != 0 ? errno : EIO;
    }
    return write_error != 0;
}

bool output_end(void)
{
    (void)fflush(stdout);
    bool failed = output_failed();
    if (fclose(stdout) != 0 && !failed) {
        failed = true;
        write_error = errno;
    }
    if (failed) {
        output_error("cannot write to standard output: %s", strerror(write_error));
    }
    return !failed;
}

void output_error(const char *format, ...)
{
    char sentence[1024];
    char line[2048];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    size_t size = length < 0 ? 0 : (size_t)length;
    size = size < sizeof sentence ? size : sizeof sentence - 1;
    (void)fprintf(stderr, "larder: %s\n",
                  escape_text(line, sizeof line, sentence, size, ESCAPE_MESSAGE));
}

void output_key(larder_bytes key, bool hex)
{
    if (hex) {
        escape_write_hex(stdout, key.data, key.size);
    } else {
        escape_write(stdout, key.data, key.size, ESCAPE_KEY, ascii_only);
    }
}

void output_value(const void *value, size_t size)
{
    if (!to_terminal) {
        (void)fwrite(value, 1, size, stdout);
        (void)output_failed();
        return;
    }
    escape_write(stdout, value, size, ESCAPE_VALUE, ascii_only);
    (void)output_failed();
    if (size == 0 || ((const char *)value)[size - 1] != '\n') {
        (void)putchar('\n');
    }
}

char *output_bytes(char text[OUTPUT_UNIT_SIZE], uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1023.95 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(text, OUTPUT_UNIT_SIZE, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text;
}

char *output_duration(char text[OUTPUT_UNIT_SIZE], int64_t ms)
{
    int64_t seconds = ms / 1000;
    if (ms < 1000) {
        (void)snprintf(text, OUTPUT_UNIT_SIZE, "%" PRId64 " ms", ms);
    } else if (seconds < 60) {
        (void)snprintf(text, OUTPUT_UNIT_SIZE, "%" PRId64 ".%" PRId64 " s", seconds,
                       ms % 1000 / 100);
    } else if (seconds < 3600) {
        (void)snprintf(text, OUTPUT_UNIT_SIZE, "%" PRId64 "m%02" PRId64 "s", seconds / 60,
                       seconds % 60);
    } else if (seconds < 24 * 3600) {
        (void)snprintf(text, OUTPUT_UNIT_SIZE, "%" PRId64 "h%02" PRId64 "m", seconds / 3600,
                       seconds / 60 % 60);
    } else {
        (void)snprintf(text, OUTPUT_UNIT_SIZE, "%" PRId64 "d%02" PRId64 "h", seconds / 86400,
                       seconds / 3600 % 24);
    }
    return text;
}

char *output_time(char text[OUTPUT_UNIT_SIZE], int64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm parts;
    char date[32];
    if (ms == INT64_MAX) {
        (void)snprintf(text, OUTPUT_UNIT_SIZE, "never");
    } else if (ms < 0 || gmtime_r(&seconds, &parts) == NULL || parts.tm_year > 9999 - 1900 ||
               strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &parts) == 0) {
        (void)snprintf(text, OUTPUT_UNIT_SIZE, "%" PRId64 " ms", ms);
    } else {
        (void)snprintf(text, OUTPUT_UNIT_SIZE, "%s.%03dZ", date, (int)(ms % 1000));
    }
    return text;
}

char *output_version(char text[OUTPUT_UNIT_SIZE], larder_version version)
{
    (void)snprintf(text, OUTPUT_UNIT_SIZE, "%016" PRIx64 "-%08" PRIx32, version.clock,
                   version.node);
    return text;
}

struct document document_object(void)
{
    json_t *root = json_object();
    return (struct document){.root = root, .failed = root == NULL};
}

void document_put(struct document *into, const char *name, json_t *value)
{
    /* NULL on either side is refused and the other released by jansson. */
    if (json_object_set_new(into->root, name, value) != 0) {
        into->failed = true;
    }
}

void document_count(struct document *into, const char *name, uint64_t value)
{
    json_int_t number = value > INT64_MAX ? INT64_MAX : (json_int_t)value;
    document_put(into, name, json_integer(number));
}

void document_time(struct document *into, const char *name, int64_t ms)
{
    document_put(into, name, ms == INT64_MAX ? json_null() : json_integer(ms));
}

void document_bytes(struct document *into, const char *name, const void *data, size_t size)
{
    if (escape_is_utf8(data, size)) {
        document_put(into, name, json_stringn(size == 0 ? "" : data, size));
        return;
    }
    char beside[64];
    size_t text_size = 0;
    char *text = escape_lossy(data, size, &text_size);
    char *base64 = escape_base64(data, size);
    (void)snprintf(beside, sizeof beside, "%s_base64", name);
    document_put(into, name, text == NULL ? NULL : json_stringn(text, text_size));
    document_put(into, beside, base64 == NULL ? NULL : json_string(base64));
    free(text);
    free(base64);
}

void document_key(struct document *into, larder_bytes key, bool hex)
{
    document_bytes(into, "key", key.data, key.size);
    if (hex) {
        char *digits = escape_hex(key.data, key.size);
        document_put(into, "key_hex", digits == NULL ? NULL : json_string(digits));
        free(digits);
    }
}

void document_info(struct document *into, const larder_info *info, int64_t now_ms)
{
    char version[OUTPUT_UNIT_SIZE];
    int64_t ttl = INT64_MAX;
    if (info->expires_ms != INT64_MAX && __builtin_sub_overflow(info->expires_ms, now_ms, &ttl)) {
        ttl = INT64_MAX - 1;
    }
    document_count(into, "size", info->size);
    document_put(into, "version", json_string(output_version(version, info->version)));
    document_time(into, "created_ms", info->created_ms);
    document_time(into, "expires_ms", info->expires_ms);
    document_time(into, "ttl_ms", ttl < 0 ? 0 : ttl);
}

static bool write_document(struct document *finished, size_t flags, bool line)
{
    bool built = !finished->failed;
    /* A failed write stays in the stream, for output_end(); anything else is our own doing. */
    if (built && json_dumpf(finished->root, stdout, flags | JSON_ENSURE_ASCII) != 0 &&
        !output_failed()) {
        built = false;
    }
    if (!built) {
        output_error("no memory for the JSON document");
    } else if (line) {
        (void)putchar('\n');
    }
    json_decref(finished->root);
    finished->root = NULL;
    return built;
}

bool output_document(struct document *finished)
{
    return write_document(finished, to_terminal ? JSON_INDENT(2) : 0, true);
}

bool output_document_part(struct document *finished)
{
    return write_document(finished, 0, false);
}
