/* wire.h: how records and events are written in Redis, and how they are read back. Pure text work;
 * everything that is read is treated as hostile. doc/protocol.md describes the forms.
 *
 *   record   "1" clock:16 node:8 kind:1 hash:16 " " expires " " size fields  (hex; decimal; "-":
 *            never)
 *   field    " s" stale-until, " p" sliding period, " l" latest expiry, " c" created (decimal),
 *            " m" marks:32 each, up to 17 (hex); what is not so has no field
 *   event    "E1 " emitter:16 " " nonce:16 " " inline:1 " " key-size " " record "\n" key value
 *   begin    "B1 " emitter:16 " " nonce:16 "\n"
 *   message  id " " event          (id: epoch "-" number, or "-" outside the numbers)
 *
 * Fields of other letters, which a later version may append to a record, are ignored.
 */
#ifndef LARDER_DAEMON_REDIS_WIRE_H
#define LARDER_DAEMON_REDIS_WIRE_H

#include "daemon/sync/sync.h"

#define WIRE_RECORD_MAX 768u     /* bytes of a record that is written, with its 0 */
#define WIRE_EVENT_HEAD_MAX 864u /* bytes of an event before its key, with a 0 */

/* Write the record's text; its length. */
size_t wire_record(const replica_record *record, char out[WIRE_RECORD_MAX]);

/* Read one: version, kind, hash, times and marks of out->record, out->full_size; the rest is
 * untouched. false: not a record of this format. */
bool wire_record_read(const char *text, size_t size, sync_change *out);

/* Write what stands before the key; its length. */
size_t wire_event_head(const char *record, size_t record_size, size_t key_size, bool with_value,
                       uint64_t emitter, uint64_t nonce, char out[WIRE_EVENT_HEAD_MAX]);
size_t wire_begin(uint64_t emitter, uint64_t nonce, char out[WIRE_EVENT_HEAD_MAX]);

/* Read 16 hex digits: a mark's clock, the mark set's id. */
bool wire_clock_read(const char *text, size_t size, uint64_t *clock);

/* Read "epoch-number". */
bool wire_id_read(const char *text, size_t size, uint64_t *epoch, uint64_t *number);
size_t wire_id(uint64_t epoch, uint64_t number, char out[48]);

/* Read an event into out (key and value point into text). Epoch and number stay as they are. What
 * cannot be read is marked malformed. */
void wire_event_read(const char *text, size_t size, sync_change *out);

/* Read a message of the channel: id, then event. false: not even an id. */
bool wire_message_read(const char *text, size_t size, sync_change *out);

#endif
