/* control.c: making, attaching and retiring the control segment.
 *
 * It is made under a temporary name, filled, and published with link(2): nobody ever sees half a
 * segment, and of two makers one wins. No lock is needed, so none can be left behind.
 */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "allocate.h"
#include "clock.h"
#include "error.h"
#include "replica.h"

#define CONTROL_NAME "control"

enum {
    POPULARITY_LINE = 64,
    POPULARITY_LEAST = 2048,
    POPULARITY_MOST = 256 << 20 /* counters and ghosts are chosen by 32 bits of a hash */
};

/* All zeros where it cannot be read (no /proc, no descriptors left): that tells nothing. */
static void read_boot_id(uint8_t id[16])
{
    char text[64] = {0};
    int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        ssize_t got = read(file, text, sizeof text - 1);
        (void)got;
        (void)close(file);
    }
    memset(id, 0, 16);
    size_t nibbles = 0;
    for (const char *at = text; *at != '\0' && nibbles < 32; at++) {
        int digit = *at >= '0' && *at <= '9'   ? *at - '0'
                    : *at >= 'a' && *at <= 'f' ? *at - 'a' + 10
                                               : -1;
        if (digit >= 0) {
            id[nibbles / 2] = (uint8_t)(id[nibbles / 2] << 4 | digit);
            nibbles++;
        }
    }
}

static uint64_t pid_namespace(void)
{
    struct stat status;
    return stat("/proc/self/ns/pid", &status) == 0 ? (uint64_t)status.st_ino : 0;
}

static uint64_t popularity_size(uint64_t map_size)
{
    uint64_t size = map_size / CONTROL_MAP_PER_POPULARITY;
    size = size < POPULARITY_MOST ? size : POPULARITY_MOST;
    return size < POPULARITY_LEAST ? POPULARITY_LEAST : size - size % POPULARITY_LINE;
}

size_t control_size(uint64_t map_size)
{
    return sizeof(struct control) + control_tail(popularity_size(map_size));
}

uint32_t control_random_node(void)
{
    uint32_t node = 0;
    if (getrandom(&node, sizeof node, GRND_NONBLOCK) != (ssize_t)sizeof node) {
        node = (uint32_t)clock_wall_ms() ^ (uint32_t)getpid() << 16;
    }
    return node <= REPLICA_FOREIGN_NODE ? REPLICA_FOREIGN_NODE + 1 : node;
}

static int fill(struct control *control, const struct control_settings *settings, size_t size,
                uint64_t popularity)
{
    control->magic = CONTROL_MAGIC;
    control->format = CONTROL_FORMAT;
    control->byte_order = CONTROL_BYTE_ORDER;
    control->page_size = (uint32_t)sysconf(_SC_PAGESIZE);
    control->flags = settings->flags;
    control->segment_size = size;
    read_boot_id(control->boot_id);
    control->pid_namespace = pid_namespace();
    control->popularity_size = popularity;
    control->mode = settings->mode;
    control->home = control_random_node();
    atomic_store(&control->node, control->home);
    atomic_store(&control->clock, (uint64_t)clock_wall_ms() << 16);
    int error = gate_init(&control->write_gate);
    if (error == 0) {
        error = gate_init(&control->reader_gate);
    }
    if (error == 0) {
        error = gate_init(&control->open_gate);
    }
    if (error == 0) {
        error = marks_init(&control->marks);
    }
    if (error == 0) {
        error = sweeps_init(&control->sweeps);
    }
    return error;
}

int control_create(int directory, const struct control_settings *settings)
{
    char name[64];
    uint64_t unique = 0;
    (void)!getrandom(&unique, sizeof unique, GRND_NONBLOCK);
    (void)snprintf(name, sizeof name, "control.new-%d-%" PRIx64, (int)getpid(), unique);
    uint64_t popularity = popularity_size(settings->map_size);
    size_t size = control_size(settings->map_size);
    int result = LARDER_OK;
    struct control *control = MAP_FAILED;
    int file = openat(directory, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0) {
        return error_system(errno == EACCES || errno == EPERM || errno == EROFS ? LARDER_EACCESS
                                                                                : LARDER_ESYSTEM,
                            "cannot make the control segment");
    }
    result = allocate_file(file, size, "control segment");
    if (result != LARDER_OK) {
        goto out;
    }
    if (fchmod(file, settings->mode) != 0) {
        result = error_system(LARDER_ESYSTEM, "fchmod of the control segment");
        goto out;
    }
    control = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (control == MAP_FAILED) {
        result = error_system(LARDER_ENOMEM, "mmap of %zu bytes", size);
        goto out;
    }
    int error = fill(control, settings, size, popularity);
    if (error != 0) {
        errno = error;
        result = error_system(LARDER_ESYSTEM, "robust shared mutexes");
        goto out;
    }
    if (linkat(directory, name, directory, CONTROL_NAME, 0) != 0 && errno != EEXIST) {
        result = error_system(LARDER_ESYSTEM, "publishing the control segment");
    }
out:
    (void)unlinkat(directory, name, 0);
    if (control != MAP_FAILED) {
        (void)munmap(control, size);
    }
    (void)close(file);
    return result;
}

int control_check_namespace(const struct control *control)
{
    uint64_t own = pid_namespace();
    if (own != 0 && control->pid_namespace != 0 && own != control->pid_namespace) {
        return error_set(LARDER_ENAMESPACE,
                         "the map belongs to PID namespace %" PRIu64 ", this process is in %" PRIu64
                         ": locks and reader slots go by pid",
                         control->pid_namespace, own);
    }
    return LARDER_OK;
}

/* What is wrong with a mapped segment of that size, or LARDER_OK. */
static int examine(const struct control *control, size_t size, bool *replaceable)
{
    static const uint8_t unknown[16];
    uint8_t boot_id[16];
    *replaceable = true;
    if (control->magic != CONTROL_MAGIC) {
        return error_set(LARDER_EFORMAT, "the control segment is not larder's");
    }
    if (control->byte_order != CONTROL_BYTE_ORDER || control->format != CONTROL_FORMAT) {
        /* it may be in good use by another version: not ours to take away */
        *replaceable = false;
        return error_set(LARDER_EFORMAT,
                         "the map has format %u (byte order 0x%08x), this library has format %d",
                         control->format, control->byte_order, CONTROL_FORMAT);
    }
    if (control->page_size != (uint32_t)sysconf(_SC_PAGESIZE)) {
        return error_set(LARDER_EFORMAT, "the map was made with pages of %u bytes",
                         control->page_size);
    }
    uint64_t popularity = control->popularity_size;
    if (control->segment_size != size || popularity < POPULARITY_LEAST ||
        popularity > POPULARITY_MOST || popularity % POPULARITY_LINE != 0 ||
        size - sizeof *control != control_tail(popularity)) {
        return error_set(LARDER_EFORMAT, "the control segment has %zu bytes and claims %" PRIu64,
                         size, control->segment_size);
    }
    read_boot_id(boot_id);
    if (memcmp(boot_id, unknown, sizeof boot_id) != 0 &&
        memcmp(control->boot_id, unknown, sizeof boot_id) != 0 &&
        memcmp(boot_id, control->boot_id, sizeof boot_id) != 0) {
        return error_set(LARDER_EFORMAT, "the map was left behind by an earlier boot");
    }
    if ((atomic_load(&control->generation) & GENERATION_RETIRED) != 0) {
        return error_set(LARDER_EFORMAT, "the control segment has been retired");
    }
    *replaceable = false;
    return control_check_namespace(control);
}

int control_attach(int directory, struct control **out, size_t *out_size, bool *replaceable)
{
    struct stat status;
    *replaceable = false;
    int file = openat(directory, CONTROL_NAME, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        if (errno == ENOENT) {
            return error_set(LARDER_ENOTFOUND, "there is no such map");
        }
        return error_system(error_of_file(errno), "cannot open the control segment");
    }
    int result = LARDER_OK;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
        result = error_set(LARDER_EACCESS, "the control segment is not a regular file");
        goto out;
    }
    size_t size = (size_t)status.st_size;
    if (size <= sizeof(struct control)) {
        *replaceable = true;
        result = error_set(LARDER_EFORMAT, "the control segment is cut off at %zu bytes", size);
        goto out;
    }
    struct control *control = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (control == MAP_FAILED) {
        result = error_system(LARDER_ENOMEM, "mmap of the control segment (%zu bytes)", size);
        goto out;
    }
    result = examine(control, size, replaceable);
    if (result != LARDER_OK) {
        (void)munmap(control, size);
        goto out;
    }
    *out = control;
    *out_size = size;
out:
    (void)close(file);
    return result;
}

void control_detach(struct control **control, size_t size)
{
    if (*control != NULL) {
        (void)munmap(*control, size);
        *control = NULL;
    }
}

int control_retire(int directory)
{
    char name[64];
    int file = openat(directory, CONTROL_NAME, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (file >= 0) {
        /* Through the file, not a mapping: it may be too short for one. */
        uint64_t retired = GENERATION_RETIRED;
        struct stat status;
        const size_t end = offsetof(struct control, generation) + sizeof retired;
        if (fstat(file, &status) == 0 && status.st_size >= (off_t)end && allocate_allowed(end)) {
            ssize_t put =
                pwrite(file, &retired, sizeof retired, (off_t)offsetof(struct control, generation));
            (void)put; /* whoever has it mapped then finds out by other means */
        }
        (void)close(file);
    }
    (void)snprintf(name, sizeof name, "control.old-%d-%" PRId64, (int)getpid(),
                   clock_monotonic_ms());
    if (renameat(directory, CONTROL_NAME, directory, name) != 0) {
        return errno == ENOENT
                   ? LARDER_OK
                   : error_system(LARDER_EACCESS, "cannot put the control segment aside");
    }
    (void)unlinkat(directory, name, 0);
    return LARDER_OK;
}

bool ledger_read(struct control_life *life, uint64_t transaction, struct ledger *ledger)
{
    struct ledger *shared = &life->ledgers[transaction & 1];
    /* acquire, and the fence before the second look: pairs with ledger_write() */
    if (atomic_load_explicit(&shared->transaction, memory_order_acquire) != transaction) {
        return false;
    }
    memcpy(ledger, shared, sizeof *ledger);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&shared->transaction, memory_order_relaxed) == transaction;
}

void ledger_write(struct control_life *life, const struct ledger *ledger)
{
    uint64_t transaction = atomic_load_explicit(&ledger->transaction, memory_order_relaxed);
    struct ledger *shared = &life->ledgers[transaction & 1];
    const size_t head = sizeof shared->transaction;
    atomic_store_explicit(&shared->transaction, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    memcpy((uint8_t *)shared + head, (const uint8_t *)ledger + head, sizeof *shared - head);
    atomic_store_explicit(&shared->transaction, transaction, memory_order_release);
}

void control_poison(struct control *control, uint64_t word)
{
    /* release: pairs with the acquire load at the start of every call */
    (void)atomic_compare_exchange_strong_explicit(&control->generation, &word,
                                                  word | GENERATION_POISONED, memory_order_release,
                                                  memory_order_relaxed);
}
