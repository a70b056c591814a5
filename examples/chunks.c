/* chunks.c: see chunks.h. It reads what libevent is going to read, by the same rules, and only as
 * far as these are beyond doubt: from the first doubt on it leaves everything alone.
 */
#include "examples/chunks.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    LINE_MAX_SIZE = 4096, /* of a chunk's size and extensions */
    BEGIN_SIZE = 64       /* of a line, which is more than all that matter have */
};

struct line {
    struct evbuffer_ptr at;
    char begin[BEGIN_SIZE + 1];
    size_t size;
};

static void put(struct evbuffer *input, const struct evbuffer_ptr *from, size_t offset, char byte)
{
    struct evbuffer_ptr at = *from;
    struct evbuffer_iovec place;
    if (evbuffer_ptr_set(input, &at, offset, EVBUFFER_PTR_ADD) == 0 &&
        evbuffer_peek(input, 1, &at, &place, 1) >= 1)
        *(char *)place.iov_base = byte;
}

/* The next unread line, which is then read. false: it is not whole yet. */
static bool next_line(struct chunks *self, struct evbuffer *input, struct line *line)
{
    size_t eol_size = 0, length = evbuffer_get_length(input);
    if (evbuffer_ptr_set(input, &line->at, length - (size_t)self->unread, EVBUFFER_PTR_SET) != 0)
        return false;
    struct evbuffer_ptr eol = evbuffer_search_eol(input, &line->at, &eol_size, EVBUFFER_EOL_CRLF);
    if (eol.pos < 0)
        return false;
    line->size = (size_t)(eol.pos - line->at.pos);
    size_t copied = line->size < BEGIN_SIZE ? line->size : BEGIN_SIZE;
    evbuffer_copyout_from(input, &line->at, line->begin, copied);
    line->begin[copied] = '\0';
    self->unread -= line->size + eol_size;
    return true;
}

/* "NAME: VALUE" of that name? The value, without spaces around it. */
static const char *value_of(struct line *line, const char *name)
{
    size_t size = strlen(name);
    if (line->size > BEGIN_SIZE || strncasecmp(line->begin, name, size) != 0 ||
        line->begin[size] != ':')
        return NULL;
    char *end = line->begin + line->size;
    while (end > line->begin && (end[-1] == ' ' || end[-1] == '\t'))
        *--end = '\0';
    return line->begin + size + 1 + strspn(line->begin + size + 1, " ");
}

static void read_field(struct chunks *self, struct line *line)
{
    const char *coding = value_of(line, "Transfer-Encoding");
    const char *length = value_of(line, "Content-Length");
    bool doubtful = line->begin[0] == ' ' || line->begin[0] == '\t';
    if (coding != NULL) {
        doubtful = self->chunked || self->left != 0 || strcasecmp(coding, "chunked") != 0;
        self->chunked = true;
    } else if (length != NULL) {
        size_t digits = strspn(length, "0123456789");
        doubtful = self->chunked || self->left != 0 || digits == 0 || digits > 15 ||
                   length[digits] != '\0';
        self->left = doubtful ? 0 : strtoull(length, NULL, 10);
    } else if (strncasecmp(line->begin, "Transfer-Encoding", 17) == 0 ||
               strncasecmp(line->begin, "Content-Length", 14) == 0) {
        doubtful = true;
    }
    if (doubtful)
        self->state = CHUNKS_UNKNOWN;
}

static void end_message(struct chunks *self)
{
    self->state = self->one_message ? CHUNKS_UNKNOWN : CHUNKS_REQUEST_LINE;
    self->chunked = false;
    self->left = 0;
}

static void read_size(struct chunks *self, struct evbuffer *input, const struct line *line)
{
    size_t digits = strspn(line->begin, "0123456789abcdefABCDEF");
    char behind = line->begin[digits];
    if (line->size == 0) /* the end of the chunk before */
        return;
    self->state = CHUNKS_UNKNOWN;
    if (line->size > LINE_MAX_SIZE)
        put(input, &line->at, 0, 'x');
    if (line->size > LINE_MAX_SIZE || digits == 0 || digits > 15 ||
        (behind != '\0' && strchr("; \t", behind) == NULL))
        return;
    if (behind != '\0')
        put(input, &line->at, digits, ' ');
    self->left = strtoull(line->begin, NULL, 16);
    self->state = self->left == 0 ? CHUNKS_TRAILER : CHUNKS_DATA;
}

static void read_line(struct chunks *self, struct evbuffer *input, struct line *line)
{
    switch (self->state) {
    case CHUNKS_REQUEST_LINE:
        self->state = CHUNKS_FIELDS;
        break;
    case CHUNKS_FIELDS:
        if (line->size > 0)
            read_field(self, line);
        else if (self->chunked)
            self->state = CHUNKS_SIZE;
        else if (self->left > 0)
            self->state = CHUNKS_BODY;
        else
            end_message(self);
        break;
    case CHUNKS_SIZE:
        read_size(self, input, line);
        break;
    default:
        if (line->size == 0) /* of the trailer section */
            end_message(self);
    }
}

/* false: no more of it can be read now. */
static bool read_some(struct chunks *self, struct evbuffer *input)
{
    struct line line;
    if (self->unread > evbuffer_get_length(input)) /* libevent has read it in another way */
        self->state = CHUNKS_UNKNOWN;
    if (self->state == CHUNKS_UNKNOWN || self->unread == 0)
        return false;
    if (self->state == CHUNKS_BODY || self->state == CHUNKS_DATA) {
        uint64_t size = self->left < self->unread ? self->left : self->unread;
        self->left -= size;
        self->unread -= size;
        if (self->left == 0 && self->state == CHUNKS_DATA)
            self->state = CHUNKS_SIZE;
        else if (self->left == 0)
            end_message(self);
        return true;
    }
    if (next_line(self, input, &line)) {
        read_line(self, input, &line);
        return true;
    }
    if (self->state == CHUNKS_SIZE && self->unread > LINE_MAX_SIZE) { /* it may never end */
        put(input, &line.at, 0, 'x');
        put(input, &line.at, 1, '\n');
        self->state = CHUNKS_UNKNOWN;
    }
    return false;
}

void chunks_added(struct chunks *self, struct evbuffer *input, size_t size)
{
    self->unread += size;
    while (read_some(self, input))
        ;
}

void chunks_begin_body(struct chunks *self, struct evbuffer *input)
{
    *self = (struct chunks){.state = CHUNKS_SIZE, .one_message = true};
    chunks_added(self, input, evbuffer_get_length(input));
}

/* ---- Streams of requests
 * ------------------------------------------------------------------------------- */

struct chunks_stream {
    struct bufferevent *stream; /* one reference is ours */
    struct chunks chunks;
    struct chunks_stream *next;
};

static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *context)
{
    struct chunks_stream *self = context;
    if (info->n_added > 0)
        chunks_added(&self->chunks, input, info->n_added);
}

static void stream_free(struct chunks_stream *self)
{
    evbuffer_remove_cb(bufferevent_get_input(self->stream), on_input, self);
    bufferevent_decref(self->stream);
    free(self);
}

/* Those whose connection has been freed: nobody is called back any more. (libevent tells nobody
 * that has not had a request of it.) */
static void sweep(struct chunks_stream **list)
{
    while (*list != NULL) {
        struct chunks_stream *each = *list;
        bufferevent_event_cb on_event;
        bufferevent_getcb(each->stream, NULL, NULL, &on_event, NULL);
        if (on_event != NULL) {
            list = &each->next;
        } else {
            *list = each->next;
            stream_free(each);
        }
    }
}

struct bufferevent *chunks_stream_new(struct event_base *base, struct chunks_stream **list)
{
    struct chunks_stream *self = calloc(1, sizeof *self);
    struct bufferevent *stream = bufferevent_socket_new(base, -1, 0);
    sweep(list);
    if (stream == NULL || self == NULL ||
        evbuffer_add_cb(bufferevent_get_input(stream), on_input, self) == NULL) {
        free(self);
        return stream; /* without one libevent makes its own */
    }
    bufferevent_incref(stream);
    *self = (struct chunks_stream){
        .stream = stream, .chunks = {.state = CHUNKS_REQUEST_LINE}, .next = *list};
    *list = self;
    return stream;
}

void chunks_streams_free(struct chunks_stream **list)
{
    while (*list != NULL) {
        struct chunks_stream *each = *list;
        *list = each->next;
        stream_free(each);
    }
}
