/* web_page.h: the bodies that web.c sends: JSON of the state, the status page. Pure formatting of a
 * snapshot; everything that came from outside (names, errors, addresses) is escaped.
 */
#ifndef LARDER_DAEMON_WEB_PAGE_H
#define LARDER_DAEMON_WEB_PAGE_H

#include <event2/buffer.h>

#include "daemon/metrics.h"

void web_page_state(const metrics_snapshot *snapshot, struct evbuffer *out);  /* JSON */
void web_page_status(const metrics_snapshot *snapshot, struct evbuffer *out); /* HTML */

/* "up", "down", "parked", "local": Redis in one word. */
const char *web_page_redis(const metrics_snapshot *snapshot);

/* Append text with what is special in JSON or HTML escaped; bytes that are not ASCII come as "?" in
 * JSON, where they might not be valid UTF-8. */
void web_page_json(struct evbuffer *out, const char *text);
void web_page_html(struct evbuffer *out, const char *text);

#endif
