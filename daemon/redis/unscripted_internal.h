/* unscripted_internal.h: what the three files of unscripted.h share: the calls, the chunk that is
 * under way (unscripted.c), and how pushes and removals (unscripted_push.c) and joins
 * (unscripted_join.c) are carried out.
 */
#ifndef LARDER_DAEMON_REDIS_UNSCRIPTED_INTERNAL_H
#define LARDER_DAEMON_REDIS_UNSCRIPTED_INTERNAL_H

#include "daemon/redis/unscripted.h"

#define CHUNK_MAX 32u
#define ATTEMPTS_MAX 20u /* of a chunk; the last ones with a single call */
#define ERROR_MAX 256u

/* The words of a call: the number of keys, the keys, then the arguments, counted from 1 as in Lua.
 */
#define KEY(n) (n)
#define PUSH_ARGUMENT(n) (3 + (n))
#define REMOVE_ARGUMENT(n) (2 + (n))

/* What a reply is for; its call in the chunk stands above WHAT_BITS. */
enum what {
    WHAT_IGNORED,
    WHAT_PLACE, /* XINFO STREAM: is the epoch the one that the pushes are for? */
    WHAT_WATCHED,
    WHAT_RECORD,
    WHAT_VALUE,  /* GETRANGE, one byte more than may come along */
    WHAT_EXISTS, /* after it: an empty value or none */
    WHAT_QUEUED,
    WHAT_DONE, /* EXEC, or UNWATCH where nothing is to be written */
    WHAT_TIME,
    WHAT_OWNER,
    WHAT_LAST,
    WHAT_CURSOR,
    WHAT_STREAM,
    WHAT_BEGUN,
    WHAT_FIELDS,
    WHAT_MARK
};
#define WHAT_BITS 8

enum decision {
    DECISION_OPEN,
    DECISION_ERROR,
    DECISION_SAME,
    DECISION_OLD,
    DECISION_WRITE,
    DECISION_NO_STREAM,
    DECISION_AHEAD, /* of the server's clock */
    DECISION_TEXT
};

struct text { /* a string of a reply, kept */
    char *bytes;
    size_t size;
};

struct mark { /* of the fleet's set */
    bool there, told, set;
    uint64_t clock;
    const char *text; /* of a floor that is raised */
    size_t result;    /* where EXEC's results have its event's */
};

struct call {
    struct call *next;
    connection_tag tag;
    enum script_id script;
    int64_t sent_us;
    int count;
    const char **words;
    size_t *sizes;
    /* of the attempt that is under way */
    enum decision decision;
    long long written;     /* the answer to one that was written */
    char error[ERROR_MAX]; /* or the text that is answered */
    char said[ERROR_MAX];  /* an error's, for a log */
    struct text record, value;
    bool has_record, has_value;
    /* of a join */
    struct text last_id, last_event, at, owner;
    /* of marks: the two floors and the set's id before those that the call names */
    struct mark *marks;
    size_t mark_count, marks_read, fields, queued;
    uint64_t seconds, microseconds, epoch; /* the server's clock; also of a chunk's first push */
};

struct unscripted {
    unscripted_callbacks callbacks;
    void *context;
    struct call *first, **last;
    struct call *chunk[CHUNK_MAX]; /* the first of the list */
    size_t chunk_size, chunk_limit;
    uint64_t stream_epoch; /* of the stream's last entry, when the chunk was begun; 0: none */
    unsigned attempts;
    bool under_way, broken;
    bool out_of_step; /* broken by a reply */
    uint64_t life;    /* counts resets: an answer may end the session */
};

/* ---- unscripted.c ---------------------------------------------------------------------------- */

void unscripted_forget_text(struct text *text);
bool unscripted_keep(struct text *text, const reply *got); /* false: no memory */
/* What is said of the call in place of a reply; the first thing counts. */
void unscripted_refuse(struct call *call, const char *error);
void unscripted_refuse_as(struct call *call, const reply *error); /* by the server */

void unscripted_send(unscripted *self, enum what what, size_t index, int count,
                     const char *const *words, const size_t *sizes);
void unscripted_send_words(unscripted *self, enum what what, size_t index, int count,
                           const char *const *words);
/* A command and a word of the call, of any bytes. */
void unscripted_send_key(unscripted *self, enum what what, size_t index, const char *command,
                         int word);
/* "id event" on the channel. */
void unscripted_send_message(unscripted *self, enum what what, size_t index, const char *channel,
                             const char *id, size_t id_size, const char *event, size_t event_size);

/* The argument that has this number; "" where the call has fewer. */
const char *unscripted_argument(const struct call *call, int number);

reply unscripted_string(const char *bytes, size_t size);
/* The reply is not one to what was asked: all that follow may be another's, too. */
void unscripted_break(unscripted *self);
/* Answer the first call, which is gone afterwards. false: the session was ended. */
bool unscripted_answer(unscripted *self, const reply *got);
/* All of the chunk have their decision. */
void unscripted_answer_chunk(unscripted *self);
/* Somebody wrote one of the records, or one of the calls was refused: the others once more. */
void unscripted_begin_again(unscripted *self);
void unscripted_begin_chunk(unscripted *self);

/* ---- unscripted_push.c ----------------------------------------------------------------------- */

/* What is read of the chunk before the decision. */
void unscripted_read_records(unscripted *self);
void unscripted_got_record(unscripted *self, size_t index, const reply *got);
void unscripted_got_value(struct call *call, const reply *got);
void unscripted_got_done(unscripted *self, const reply *got);

/* ---- unscripted_mark.c ----------------------------------------------------------------------- */

void unscripted_read_marks(unscripted *self);
void unscripted_got_fields(struct call *call, const reply *got);
void unscripted_got_mark(unscripted *self, const reply *got);
void unscripted_got_marked(unscripted *self, const reply *got);

/* ---- unscripted_join.c ----------------------------------------------------------------------- */

void unscripted_read_stream(unscripted *self);
void unscripted_got_time(struct call *call, const reply *got);
void unscripted_got_owner(unscripted *self, const reply *got);
void unscripted_got_last(unscripted *self, const reply *got);
void unscripted_got_begun(unscripted *self, const reply *got);
/* Epochs only rise: above one that was known. */
void unscripted_behind(struct call *join, const char *id);
/* The id and the event of the one entry of a range. */
bool unscripted_entry(const reply *got, const reply **id, const reply **event);
/* XINFO's last-generated-id; NULL: there is no stream. */
const char *unscripted_last_id(const reply *got);

#endif
