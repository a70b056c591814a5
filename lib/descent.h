/* descent.h: reading LMDB's trees without LMDB: from a snapshot's root down to a record, for the
 * read side of the store. Faster than mdb_get(), because it asks memory for many keys of a page at
 * once, and safe where LMDB is not: every page number, offset and size is checked before it is
 * used, so that no damage leads out of the mapping or round in circles.
 *
 * Functions over a mapping: nothing here takes a lock, allocates, or knows lmdb.h. The
 * caller holds the snapshot (a reader slot of LMDB's), or the pages would be reused underneath.
 * MAP_FORMAT: the layout of pages is LMDB 0.9's data version 1 (its mdb.c: MDB_page, MDB_node,
 * MDB_db, MDB_meta).
 */
#ifndef LARDER_LIB_DESCENT_H
#define LARDER_LIB_DESCENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "larder.h"

enum { DESCENT_LINE = 64 /* bytes that memory gives at a time */ };

/* A tree of one snapshot. */
struct descent {
    const uint8_t *base; /* of the mapping */
    uint64_t pages;      /* all page numbers are below, and all of them lie in the mapping */
    uint64_t root;
    uint32_t page_size;
    uint32_t depth; /* levels; 0: the tree is empty */
};

/* Where a number was found in a tree, for the next one. Zero it for another snapshot. */
struct descent_place {
    const uint8_t *page;
    uint32_t count, upper, index;
};

/* What LMDB says of one of its named databases. */
struct descent_database {
    struct descent tree;
    uint64_t branch_pages, leaf_pages, overflow_pages, entries;
};

/* Whether the file that is mapped there has pages as they are known here. */
bool descent_knows(const uint8_t *base);

/* Make the meta page of transaction number the older one again: the next commit writes all of it.
 * The one thing here that writes. */
void descent_take_back(uint8_t *base, uint32_t page_size, uint64_t number);

/* The main tree of snapshot `number` of a mapping of so many pages. False: the meta page is
 * damaged, or it is being written over for number + 2, which the caller has to find out. */
bool descent_begin(struct descent *tree, const uint8_t *base, uint32_t page_size, uint64_t pages,
                   uint64_t number);

/* LARDER_OK, LARDER_MISS, or LARDER_ECORRUPT: the tree is damaged. (A damaged tree may also give a
 * miss, but never another key's record.) The bytes lie in the mapping. */
int descent_find(const struct descent *tree, const void *key, size_t size, larder_bytes *data);

/* Whether a plain node of that key, with so many bytes of data at that offset, stands in a mapping
 * of so many bytes; not whether any tree still refers to it. */
bool descent_stands_at(const uint8_t *base, uint64_t mapped, uint64_t offset, size_t data_size,
                       const void *key, size_t size);

/* In a tree of numbers (MDB_INTEGERKEY). One that follows the last found costs no descent. */
int descent_find_number(const struct descent *tree, uint64_t number, struct descent_place *place,
                        larder_bytes *data);

/* What stands on an overflow page behind LMDB's header and that number, all the rest of the page.
 * NULL: there is no such page in the snapshot, it is of another kind, part of a run, or begins with
 * another number. Whether a tree still refers to the page is the caller's to know. */
const void *descent_page(const struct descent *tree, uint64_t page, uint64_t number);
/* Ask for the first lines of a page that is wanted soon. */
static inline void descent_prefetch(const struct descent *tree, uint64_t number, unsigned lines)
{
    if (number < tree->pages) {
        const uint8_t *at = tree->base + number * tree->page_size;
        for (unsigned line = 0; line < lines; line++) {
            __builtin_prefetch(at + (size_t)line * DESCENT_LINE);
        }
        __asm__ volatile(""); /* or gcc finds that a caller has no effect, and leaves it out */
    }
}

/* The first record at or after key, beyond it if after is true. What is found is never before it:
 * a walk comes to an end, whatever the tree looks like. */
int descent_next(const struct descent *tree, const void *key, size_t size, bool after,
                 larder_bytes *found, larder_bytes *data);
int descent_next_number(const struct descent *tree, uint64_t from, uint64_t *number,
                        larder_bytes *data);

/* The named database of numbers that stands in the main tree under that name. */
int descent_open(const struct descent *tree, const void *name, size_t size,
                 struct descent_database *database);

#endif
