/* allocate.h: making a file as large as it will ever be, without a signal. Writing or extending
 * past RLIMIT_FSIZE raises SIGXFSZ, which ends the host program: so the limit is asked for first,
 * each time, because a program may change it at any moment.
 */
#ifndef LARDER_LIB_ALLOCATE_H
#define LARDER_LIB_ALLOCATE_H

#include <stdbool.h>
#include <stdint.h>

/* Whether this process may write a file up to that byte. */
bool allocate_allowed(uint64_t end);

/* The same as OK or ENOSPACE; what: the file's name in the sentence. */
int allocate_check(uint64_t size, const char *what);

/* Give the open file its size, allocated. ENOSPACE, ESYSTEM. */
int allocate_file(int file, uint64_t size, const char *what);

#endif
