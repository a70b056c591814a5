/* handle.c: larder_open() and larder_close(): names, directories, who may be trusted, sizes.
 */
#include "handle.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "hotset.h"
#include "map.h"
#include "registry.h"

#define SYSTEM_DIRECTORY "/run/larder"
#define MEBIBYTE (UINT64_C(1) << 20)

enum {
    NAME_MAX_SIZE = 63,
    DEFAULT_WRITE_WAIT_MS = 50,
    OPEN_WAIT_MS = 1000, /* what an open waits for others that open, or replace the map */
    OPEN_AGAIN_MS = 10,  /* between two tries: some are refused at once */
    LONGEST_WRITE_WAIT_MS = 60000,
    VALUE_SHARE = 16, /* the largest value is that part of the map */
    HOT_FIFTHS = 2    /* the hot set has that many fifths of the map's size beside it */
};

static const uint64_t least_map = 16 * MEBIBYTE;
static const uint64_t default_map = 256 * MEBIBYTE;
static const uint64_t largest_map = UINT64_C(1) << 46;
static const uint64_t least_hot = 64 * 1024;
static const uint64_t default_value = 8 * MEBIBYTE;

const char *larder_version_text(void)
{
    return PACKAGE_VERSION;
}

/* ---- Arguments --------------------------------------------------------------------------------
 */

static int check_name(const char *name)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    if (name == NULL || name[0] == '\0') {
        return error_set(LARDER_EINVAL, "a map needs a name");
    }
    size_t size = strnlen(name, NAME_MAX_SIZE + 1);
    if (size > NAME_MAX_SIZE) {
        return error_set(LARDER_EINVAL, "map name of more than %d bytes", NAME_MAX_SIZE);
    }
    for (size_t i = 0; i < size; i++) {
        if (strchr(letters, name[i]) == NULL && (name[i] != '.' || i == 0)) {
            return error_set(LARDER_EINVAL,
                             "byte %zu of the map's name is not of A-Z a-z 0-9 _ - . (and no . "
                             "first)",
                             i + 1);
        }
    }
    return LARDER_OK;
}

int handle_check_size(uint64_t map_size)
{
    if (map_size < least_map || map_size > largest_map) {
        return error_set(LARDER_EINVAL, "map of %" PRIu64 " bytes: it has %" PRIu64 " to %" PRIu64,
                         map_size, least_map, largest_map);
    }
    return LARDER_OK;
}

uint64_t handle_value_limit(uint64_t wanted, uint64_t map_size)
{
    uint64_t share = map_size / VALUE_SHARE;
    uint64_t value = wanted == 0 ? default_value : wanted;
    return value < share ? value : share;
}

static int check_options(const larder_options *options)
{
    static const uint64_t none[sizeof options->reserved / sizeof options->reserved[0]];
    const uint32_t known =
        LARDER_ATTACH | LARDER_READ_ONLY | LARDER_PROTECT | LARDER_LOCAL | LARDER_VERIFY;
    if ((options->flags & ~known) != 0 || memcmp(options->reserved, none, sizeof none) != 0) {
        return error_set(LARDER_EINVAL, "unknown members or flags of larder_options are not 0");
    }
    if (options->map_size != 0 && handle_check_size(options->map_size) != LARDER_OK) {
        return LARDER_EINVAL;
    }
    if (options->write_wait_ms < 0 || options->write_wait_ms > LONGEST_WRITE_WAIT_MS) {
        return error_set(LARDER_EINVAL, "write_wait_ms of %" PRId64 ": it is 0 to %d",
                         options->write_wait_ms, LONGEST_WRITE_WAIT_MS);
    }
    if (options->max_value > UINT32_MAX) {
        return error_set(LARDER_EINVAL, "max_value of %" PRIu64 " bytes: at most %" PRIu32,
                         options->max_value, UINT32_MAX);
    }
    if (options->hot_size != 0 && options->hot_size != LARDER_NO_HOT_SET &&
        (options->hot_size < least_hot || options->hot_size > HOTSET_SIZE_MAX)) {
        return error_set(LARDER_EINVAL,
                         "hot_size of %" PRIu64 " bytes: it has %" PRIu64 " to %" PRIu64,
                         options->hot_size, least_hot, HOTSET_SIZE_MAX);
    }
    if ((options->mode & ~02777u) != 0 || (options->mode & 0002) != 0) {
        return error_set(LARDER_EINVAL, "mode %04o: not a mode, or writable by everybody",
                         options->mode);
    }
    return LARDER_OK;
}

/* ---- Directories ------------------------------------------------------------------------------
 */

static bool in_group(gid_t group)
{
    gid_t groups[256];
    if (group == getegid()) {
        return true;
    }
    int count = getgroups((int)(sizeof groups / sizeof groups[0]), groups);
    for (int i = 0; i < count; i++) {
        if (groups[i] == group) {
            return true;
        }
    }
    return false;
}

/* Whoever owns the directory can put anything into it: it must be ours, root's, or one that was set
 * up for a group that we are in. */
static int check_directory(const char *path, int directory, bool private)
{
    struct stat status;
    if (fstat(directory, &status) != 0) {
        return error_system(error_of_file(errno), "%s", path);
    }
    if ((status.st_mode & S_IWOTH) != 0) {
        return error_set(LARDER_EACCESS, "%s is writable by everybody (mode %04o)", path,
                         status.st_mode & 07777u);
    }
    uid_t self = geteuid();
    bool for_group = (status.st_mode & S_ISGID) != 0 && (status.st_mode & S_IWGRP) != 0 &&
                     (self == 0 || in_group(status.st_gid));
    if (status.st_uid != self && (private || (status.st_uid != 0 && !for_group))) {
        return error_set(LARDER_EACCESS, "%s belongs to user %u (mode %04o), not to user %u", path,
                         (unsigned)status.st_uid, status.st_mode & 07777u, (unsigned)self);
    }
    return LARDER_OK;
}

static int open_directory(int parent, const char *name, const char *path, bool create, mode_t mode,
                          int *out)
{
    bool made = false;
    if (create) {
        if (mkdirat(parent, name, 0700) == 0) {
            made = true;
        } else if (errno != EEXIST) {
            return error_system(errno == ENOSPC || errno == EDQUOT ? LARDER_ENOSPACE
                                                                   : error_of_file(errno),
                                "mkdir of %s", path);
        }
    }
    int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0) {
        if (errno == ENOENT) {
            return error_set(LARDER_ENOTFOUND, "there is no %s", path);
        }
        if (errno == ELOOP || errno == ENOTDIR) {
            return error_set(LARDER_EACCESS, "%s is a symbolic link or not a directory", path);
        }
        return error_system(error_of_file(errno), "%s", path);
    }
    if (made && fchmod(directory, mode) != 0) {
        int result = error_system(LARDER_ESYSTEM, "chmod of %s", path);
        (void)close(directory);
        return result;
    }
    *out = directory;
    return LARDER_OK;
}

/* DIR of the options, or the default one. *private: it must be our own. */
static int choose_directory(const larder_options *options, char *path, size_t size, bool *private)
{
    const char *chosen = options->dir;
    *private = false;
    if (chosen == NULL) {
        chosen = secure_getenv("LARDER_DIR");
    }
    if (chosen == NULL && access(SYSTEM_DIRECTORY, F_OK) == 0) {
        chosen = SYSTEM_DIRECTORY;
    }
    char own[64];
    if (chosen == NULL) {
        *private = true;
        (void)snprintf(own, sizeof own, "/dev/shm/larder-%u", (unsigned)geteuid());
        chosen = own;
    }
    char here[PATH_MAX] = "";
    if (chosen[0] != '/' && getcwd(here, sizeof here) == NULL) {
        return error_system(LARDER_ESYSTEM, "getcwd");
    }
    int length = chosen[0] == '/' ? snprintf(path, size, "%s", chosen)
                                  : snprintf(path, size, "%s/%s", here, chosen);
    if (chosen[0] == '\0' || length < 0 || (size_t)length >= size) {
        return error_set(LARDER_EINVAL, "the directory's name is empty or over %zu bytes", size);
    }
    return LARDER_OK;
}

static uint64_t space_in(int directory)
{
    struct statvfs space;
    return fstatvfs(directory, &space) == 0 ? (uint64_t)space.f_bavail * space.f_frsize
                                            : UINT64_MAX;
}

static uint64_t choose_size(const larder_options *options, int directory)
{
    if (options->map_size != 0) {
        return options->map_size & ~(uint64_t)4095;
    }
    uint64_t half = space_in(directory) / 2;
    uint64_t size = half < default_map ? half : default_map;
    return (size < least_map ? least_map : size) & ~(uint64_t)4095;
}

/* Asked for: that much. By default a share of the map's size, and never more than half of what the
 * map leaves; none for a map that is protected against stray stores: copies would not be. */
static uint64_t choose_hot_size(const larder_options *options, int directory, uint64_t map_size)
{
    uint64_t size = options->hot_size;
    if (size == LARDER_NO_HOT_SET || (size == 0 && (options->flags & LARDER_PROTECT) != 0)) {
        return 0;
    }
    if (size == 0) {
        uint64_t space = space_in(directory);
        uint64_t taken = map_size + control_size(map_size);
        uint64_t left = space > taken ? (space - taken) / 2 : 0;
        uint64_t share = map_size / 5 * HOT_FIFTHS;
        size = share < left ? share : left;
        size = size < least_hot ? 0 : size;
    }
    return size / HOTSET_PAGE * HOTSET_PAGE;
}

static void choose_settings(const larder_options *options, int directory,
                            struct control_settings *settings)
{
    struct stat status;
    settings->map_size = choose_size(options, directory);
    settings->max_value = handle_value_limit(options->max_value, settings->map_size);
    settings->hot_size = choose_hot_size(options, directory, settings->map_size);
    settings->max_entries = options->max_entries;
    settings->flags = options->flags & LARDER_PROTECT;
    bool group = fstat(directory, &status) == 0 && (status.st_mode & S_IWGRP) != 0;
    settings->mode = group ? 0660 : 0600;
}

/* ---- Open and close ---------------------------------------------------------------------------
 */

static int open_map(const char *name, const larder_options *options, bool attach_only,
                    struct map **map)
{
    char base[MAP_PATH_MAX - 128], path[MAP_PATH_MAX];
    bool private = false;
    int parent = -1, directory = -1;
    struct control_settings settings;
    int result = choose_directory(options, base, sizeof base, &private);
    if (result != LARDER_OK) {
        return result;
    }
    mode_t mode = options->mode != 0 ? (mode_t)options->mode : private ? 0700 : 02770;
    result = open_directory(AT_FDCWD, base, base, private && !attach_only, 0700, &parent);
    if (result == LARDER_OK) {
        result = check_directory(base, parent, private);
    }
    (void)snprintf(path, sizeof path, "%s/%s", base, name);
    if (result == LARDER_OK) {
        result = open_directory(parent, name, path, !attach_only, mode, &directory);
    }
    if (result == LARDER_OK) {
        result = check_directory(path, directory, private);
    }
    if (result == LARDER_OK) {
        choose_settings(options, directory, &settings);
        bool read_only = (options->flags & LARDER_READ_ONLY) != 0;
        result = map_acquire(path, directory, &settings, attach_only, read_only, map);
        if (result != LARDER_OK && !attach_only) {
            (void)unlinkat(parent, name, AT_REMOVEDIR); /* goes only if nothing was made in it */
        }
    }
    if (directory >= 0) {
        (void)close(directory);
    }
    if (parent >= 0) {
        (void)close(parent);
    }
    return result;
}

int larder_open(const char *name, const larder_options *given, larder **out)
{
    static const larder_options defaults;
    const larder_options *options = given == NULL ? &defaults : given;
    if (out == NULL) {
        return error_set(LARDER_EINVAL, "larder_open() without a place for the handle");
    }
    *out = NULL;
    int result = check_name(name);
    if (result == LARDER_OK) {
        result = check_options(options);
    }
    if (result == LARDER_OK) {
        result = registry_init();
    }
    if (result != LARDER_OK) {
        return result;
    }
    registry_check_fork();
    struct larder *handle = calloc(1, sizeof *handle);
    if (handle == NULL) {
        return error_set(LARDER_ENOMEM, "out of memory");
    }
    bool attach_only = (options->flags & (LARDER_ATTACH | LARDER_READ_ONLY)) != 0;
    /* Many processes that begin at once, on a host that has more to do than processors, are held up
     * in there by each other, for longer than a read may be. */
    int64_t until = clock_monotonic_ms() + OPEN_WAIT_MS;
    result = open_map(name, options, attach_only, &handle->map);
    while (result == LARDER_EBUSY && clock_monotonic_ms() < until) {
        (void)nanosleep(&(struct timespec){.tv_nsec = OPEN_AGAIN_MS * 1000000}, NULL);
        result = open_map(name, options, attach_only, &handle->map);
    }
    if (result != LARDER_OK) {
        free(handle);
        return result;
    }
    uint64_t limit = atomic_load(&control_life(map_control(handle->map))->max_value);
    handle->magic = HANDLE_MAGIC;
    handle->wanted_value = options->max_value;
    handle->flags = options->flags;
    handle->write_wait_ms =
        options->write_wait_ms == 0 ? DEFAULT_WRITE_WAIT_MS : options->write_wait_ms;
    handle->max_value =
        options->max_value != 0 && options->max_value < limit ? options->max_value : limit;
    error_clear(); /* what was tried on the way is no error */
    *out = handle;
    return LARDER_OK;
}

void larder_close(larder **out)
{
    if (out == NULL || *out == NULL || (*out)->magic != HANDLE_MAGIC) {
        return;
    }
    struct larder *handle = *out;
    *out = NULL;
    registry_check_fork();
    handle->magic = 0;
    map_release(&handle->map);
    free(handle);
}
