/* chunks.h: chunk extensions, which a recipient ignores (RFC 9112, 7.1.1) and libevent refuses: in
 * the line "3;name=value" the byte behind the size is made a space, which it takes for the end of
 * the number. Nothing else is changed, nothing is added or taken away: where a message ends stays
 * libevent's to say. A line over 4 KiB is made one that it refuses.
 */
#ifndef LARDER_EXAMPLES_CHUNKS_H
#define LARDER_EXAMPLES_CHUNKS_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where in a stream of messages the unread bytes begin. */
struct chunks {
    enum {
        CHUNKS_UNKNOWN, /* it cannot be told, or there is nothing more: all is left as it is */
        CHUNKS_REQUEST_LINE,
        CHUNKS_FIELDS,
        CHUNKS_BODY, /* of a known length */
        CHUNKS_SIZE,
        CHUNKS_DATA,
        CHUNKS_TRAILER
    } state;
    bool one_message, chunked;
    uint64_t left;   /* bytes of the body, or of the chunk; before those the Content-Length */
    uint64_t unread; /* bytes at the buffer's end */
};

/* The buffer begins with the chunks of a body, which are all that is of interest. */
void chunks_begin_body(struct chunks *self, struct evbuffer *input);

/* To be told of what is added to the buffer, before libevent's HTTP reads it. */
void chunks_added(struct chunks *self, struct evbuffer *input, size_t size);

/* Streams of requests, for evhttp_set_bevcb(): a new one, which a list keeps that is NULL at first;
 * NULL: no memory. The list is freed when the server has been. */
struct chunks_stream;
struct bufferevent *chunks_stream_new(struct event_base *base, struct chunks_stream **list);
void chunks_streams_free(struct chunks_stream **list);

#endif
