/* wraps.c: rules inside the machine: the linker lets calls between its files come here (--wrap, see
 * Makefile.inc), so that production code knows nothing of it. Without a rule switched off each call
 * goes where it was meant to.
 */
#include "tests/sim/sim.h"

#include "daemon/sync/internal.h"

bool __real_sync_marks_hold(const struct sync *self);
bool __wrap_sync_marks_hold(const struct sync *self);
void __real_inbound_forget(struct sync *self);
void __wrap_inbound_forget(struct sync *self);
void __real_pending_again(struct sync *self, uint64_t row);
void __wrap_pending_again(struct sync *self, uint64_t row);
void __real_pending_put_back(struct sync *self, const struct sync_batch *batch,
                             const sync_item *item);
void __wrap_pending_put_back(struct sync *self, const struct sync_batch *batch,
                             const sync_item *item);
void __real_sync_marks_joined(struct sync *self, uint64_t set_id, bool lost, bool other_server);
void __wrap_sync_marks_joined(struct sync *self, uint64_t set_id, bool lost, bool other_server);
int __real_sync_order(const replica_record *a, const replica_record *b);
int __wrap_sync_order(const replica_record *a, const replica_record *b);

uint64_t machine_nonce(const struct sync *machine)
{
    return machine->asked.nonce;
}

uint64_t machine_marks_id(const struct sync *machine)
{
    return machine->marks.set_id;
}

void __wrap_inbound_forget(struct sync *self)
{
    if (!rule_off(RULE_FORGET_COLLECTED))
        __real_inbound_forget(self);
}

void __wrap_pending_again(struct sync *self, uint64_t row)
{
    if (!rule_off(RULE_AGAIN_AFTER_OLD))
        __real_pending_again(self, row);
}

void __wrap_pending_put_back(struct sync *self, const struct sync_batch *batch,
                             const sync_item *item)
{
    if (!rule_off(RULE_PUT_BACK))
        __real_pending_put_back(self, batch, item);
}

void __wrap_sync_marks_joined(struct sync *self, uint64_t set_id, bool lost, bool other_server)
{
    bool floors = self->marks.floors, known = self->marks.known_id != 0;
    bool another = set_id == 0 || (known && set_id != self->marks.known_id);
    __real_sync_marks_joined(self, set_id, lost, other_server);
    if (rule_off(RULE_MARK_OTHER_SERVER) && !lost && !another)
        self->marks.floors = floors;
    if (rule_off(RULE_MARK_HEARD))
        self->marks.heard_number = 0;
}

bool __wrap_sync_marks_hold(const struct sync *self)
{
    return !rule_off(RULE_MARK_FIRST) && __real_sync_marks_hold(self);
}

/* The machine compares only what was fetched. */
int __wrap_sync_order(const replica_record *a, const replica_record *b)
{
    return sim.in_machine && rule_off(RULE_FETCH_NEWER) ? 0 : __real_sync_order(a, b);
}
