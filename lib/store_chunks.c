/* store_chunks.c: the chunks of large values, one page each, in a tree of their own. */
#include "store.h"

#include <string.h>

#include "copy.h"
#include "format.h"
#include "store_lmdb.h"

/* The chunks database of a reader's snapshot. */
static int open_chunks(struct transaction *t, const char *what)
{
    struct descent_database chunks;
    if (t->chunks_known) {
        return LARDER_OK;
    }
    int result = lmdb_found(
        t, descent_open(&t->tree, LMDB_CHUNKS_NAME, sizeof LMDB_CHUNKS_NAME - 1, &chunks), what);
    if (result != LARDER_OK) {
        return result == LARDER_MISS ? lmdb_fail(t, MDB_CORRUPTED, what) : result;
    }
    t->chunks = chunks.tree;
    t->place = (struct descent_place){.page = NULL};
    t->chunks_known = true;
    return LARDER_OK;
}

static int next_number(struct transaction *t, MDB_dbi database, uint64_t from, uint64_t *number,
                       MDB_val *data, const char *what)
{
    if (store_finds_own_way(t)) {
        larder_bytes bytes = {0};
        int own = open_chunks(t, what);
        if (own == LARDER_OK) {
            own = lmdb_found(t, descent_next_number(&t->chunks, from, number, &bytes), what);
        }
        *data = lmdb_value(bytes.data, bytes.size);
        return own;
    }
    MDB_val key = lmdb_value(&from, sizeof from);
    int result = lmdb_seek(t, database, &key, data, false, what);
    if (result == LARDER_OK) {
        if (key.mv_size != sizeof *number) {
            return lmdb_fail(t, MDB_CORRUPTED, what);
        }
        memcpy(number, key.mv_data, sizeof *number);
    }
    return result;
}

/* The number of the page that begins before those bytes, from its header; 0: they do not begin a
 * page, or its number takes more than 32 bits. A writer's page may lie in memory of its own, but
 * bears the number it will have. MAP_FORMAT */
static uint32_t page_of(const struct store *store, const void *content)
{
    uint64_t number;
    memcpy(&number, (const uint8_t *)content - LMDB_PAGE_HEADER, sizeof number);
    return store->page_size == STORE_CHUNKS_PAGE && number < store->max_pages &&
                   number <= UINT32_MAX
               ? (uint32_t)number
               : 0;
}

int store_chunk_put(struct transaction *t, uint64_t id, const void *data, size_t size,
                    uint32_t *page)
{
    MDB_val key = lmdb_value(&id, sizeof id), room = {.mv_size = CHUNK_PAGE};
    int result = lmdb_append_room(t, t->store->chunks, &key, &room, "writing a chunk");
    *page = 0;
    if (result == LARDER_OK) {
        memcpy(room.mv_data, &id, sizeof id);
        if (size > 0) {
            copy_bytes((uint8_t *)room.mv_data + sizeof id, data, size);
        }
        *page = page_of(t->store, room.mv_data);
    }
    return result;
}

/* The bytes of a chunk, if it is that one. */
static int open_chunk(const larder_bytes *content, uint64_t id, larder_bytes *data)
{
    uint64_t theirs;
    if (content->size != CHUNK_PAGE) {
        return LARDER_MISS;
    }
    memcpy(&theirs, content->data, sizeof theirs);
    *data =
        (larder_bytes){.data = (const uint8_t *)content->data + sizeof theirs, .size = CHUNK_SIZE};
    return theirs == id ? LARDER_OK : LARDER_MISS;
}

int store_chunk_get(struct transaction *t, uint64_t id, larder_bytes *data)
{
    if (store_finds_own_way(t)) {
        int result = open_chunks(t, "reading a chunk");
        if (result != LARDER_OK) {
            return result;
        }
        larder_bytes content = {0};
        result = lmdb_found(t, descent_find_number(&t->chunks, id, &t->place, &content),
                            "reading a chunk");
        return result == LARDER_OK ? open_chunk(&content, id, data) : result;
    }
    MDB_val key = lmdb_value(&id, sizeof id), value;
    int result = lmdb_get(t, t->store->chunks, &key, &value, "reading a chunk");
    if (result == LARDER_OK) {
        larder_bytes content = lmdb_bytes(&value);
        result = open_chunk(&content, id, data);
    }
    return result;
}

int store_chunk_delete(struct transaction *t, uint64_t id)
{
    MDB_val key = lmdb_value(&id, sizeof id);
    return lmdb_delete(t, t->store->chunks, &key, "removing a chunk");
}

int store_chunk_next(struct transaction *t, uint64_t from, uint64_t *id)
{
    MDB_val data;
    return next_number(t, t->store->chunks, from, id, &data, "walking the chunks");
}
