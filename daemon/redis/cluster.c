/* cluster.c: see cluster.h. */
#include "daemon/redis/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KNOWN_MAX 16u             /* nodes of the last map that are asked beside the URL's */
#define REFRESH_EVERY_US 10000000 /* the map is looked at again, also without a redirection */
#define REFRESH_LEAST_US 200000   /* and with them, not more often than this */
#define REDIRECTIONS_MAX 5u       /* of one command */
#define HOMELESS_AT_ONCE 64u      /* commands of slots without a node, answered in one turn */

enum { TAG_MAP = CLUSTER_TAGS, TAG_ROUTED, TAG_ASKING };

struct routed { /* a command on its way, kept whole until it is answered */
    struct routed *previous, *next;
    connection_tag tag;
    int64_t sent_us;
    char *command;
    size_t size;
    uint16_t slot;
    uint8_t redirections;
    bool homeless; /* nobody serves its slot: answered from the loop */
};

struct node {
    cluster *cluster;
    connection *connection;
};

struct cluster {
    cluster_callbacks callbacks;
    void *context;
    url_place seeds[URL_PLACES_MAX];
    size_t seed_count, first_seed; /* where the next session begins to ask */
    url_place
        candidates[URL_PLACES_MAX + KNOWN_MAX]; /* of this session, asked one after the other */
    size_t candidate_count, asking;
    connection *seed; /* the one that is asked */
    char trouble[300];
    bool refused; /* all that were asked have said no for good */
    slots_map *map, *read;
    bool mapped;
    struct node nodes[SLOTS_NODES_MAX];
    struct routed *first;
    struct event *soon;
    bool refreshing, refresh_wanted;
    int64_t refreshed_us;
    size_t refresh_turn;
    uint64_t bytes_in, bytes_out;
};

static void on_soon(evutil_socket_t fd, short what, void *context);

cluster *cluster_create(struct event_base *base, const url_place *seeds, size_t count,
                        const cluster_callbacks *callbacks, void *context)
{
    cluster *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->callbacks = *callbacks;
    self->context = context;
    self->seed_count = count < URL_PLACES_MAX ? count : URL_PLACES_MAX;
    memcpy(self->seeds, seeds, self->seed_count * sizeof *seeds);
    for (size_t i = 0; i < SLOTS_NODES_MAX; i++)
        self->nodes[i].cluster = self;
    self->map = calloc(1, sizeof *self->map);
    self->read = calloc(1, sizeof *self->read);
    self->soon = evtimer_new(base, on_soon, self);
    if (self->map == NULL || self->read == NULL || self->soon == NULL)
        cluster_destroy(&self);
    return self;
}

void cluster_destroy(cluster **self)
{
    if (self == NULL || *self == NULL)
        return;
    cluster_disconnect(*self);
    if ((*self)->soon != NULL)
        event_free((*self)->soon);
    free((*self)->map);
    free((*self)->read);
    free(*self);
    *self = NULL;
}

static void close_connection(cluster *self, connection **closing)
{
    if (*closing == NULL)
        return;
    self->bytes_in += connection_bytes_in(*closing);
    self->bytes_out += connection_bytes_out(*closing);
    connection_close(closing);
}

static void forget(cluster *self, struct routed *routed)
{
    if (routed->previous != NULL)
        routed->previous->next = routed->next;
    else
        self->first = routed->next;
    if (routed->next != NULL)
        routed->next->previous = routed->previous;
    codec_free_command(routed->command);
    free(routed);
}

void cluster_disconnect(cluster *self)
{
    close_connection(self, &self->seed);
    for (size_t i = 0; i < SLOTS_NODES_MAX; i++)
        close_connection(self, &self->nodes[i].connection);
    while (self->first != NULL)
        forget(self, self->first);
    if (self->soon != NULL)
        evtimer_del(self->soon);
    self->mapped = self->refreshing = self->refresh_wanted = false;
}

void cluster_bytes(const cluster *self, uint64_t *sent, uint64_t *received)
{
    *sent = self->bytes_out;
    *received = self->bytes_in;
    for (size_t i = 0; self->mapped && i < self->map->node_count; i++) {
        if (self->nodes[i].connection == NULL)
            continue;
        *sent += connection_bytes_out(self->nodes[i].connection);
        *received += connection_bytes_in(self->nodes[i].connection);
    }
}

size_t cluster_nodes(const cluster *self)
{
    return self->mapped ? self->map->node_count : 0;
}

connection *cluster_connection(const cluster *self, size_t node)
{
    return self->nodes[node].connection;
}

const url_place *cluster_place(const cluster *self, uint16_t slot)
{
    uint16_t owner = self->mapped ? self->map->owner[slot] : SLOTS_NOWHERE;
    return owner == SLOTS_NOWHERE ? NULL : &self->map->nodes[owner];
}

/* ---- Finding the nodes ------------------------------------------------------------------------
 */

static void ask_next(cluster *self);

static void set_soon(cluster *self, int64_t us)
{
    if (us < 0)
        us = 0;
    struct timeval time = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    evtimer_add(self->soon, &time);
}

static bool send_map_request(connection *to)
{
    static const char *const words[] = {"CLUSTER", "SLOTS"};
    static const size_t sizes[] = {7, 5};
    connection_tag tag = {.kind = TAG_MAP};
    return connection_send(to, &tag, 2, words, sizes);
}

/* A right is missing, or larderd is unknown there: asking again would change nothing. */
static bool is_refusal(const reply *got)
{
    return reply_error_is(got, "NOPERM") || reply_error_is(got, "NOAUTH");
}

/* This candidate was of no use. From the loop, since it may be its own callback that says so. */
static void candidate_failed(cluster *self, const char *why, bool refused)
{
    char place[URL_PLACE_TEXT_MAX];
    url_place_text(&self->candidates[self->asking], place);
    (void)snprintf(self->trouble, sizeof self->trouble, "%.100s: %.180s", place, why);
    self->refused = self->refused && refused;
    close_connection(self, &self->seed);
    self->asking++;
    set_soon(self, 0);
}

static void on_seed_up(void *context)
{
    cluster *self = context;
    if (!self->callbacks.greet(self->context, self->seed) || !send_map_request(self->seed))
        candidate_failed(self, "no memory for the greeting", false);
}

static void open_nodes(cluster *self);

static void on_seed_answer(void *context, const connection_tag *tag, const reply *got,
                           int64_t sent_us)
{
    cluster *self = context;
    char why[256];
    if (tag->kind < CLUSTER_TAGS) {
        self->callbacks.answer(self->context, tag, got, sent_us);
    } else if (reply_error_is(got, "ERR") && strstr(got->text, "cluster support") != NULL) {
        self->callbacks.down(self->context, self->seed, "the server is not one of a cluster", false,
                             false, true);
    } else if (!slots_read(got, &self->candidates[self->asking], self->read, why, sizeof why)) {
        candidate_failed(self, why, is_refusal(got));
    } else {
        slots_map *map = self->map;
        self->map = self->read;
        self->read = map;
        close_connection(self, &self->seed);
        open_nodes(self);
    }
}

static void on_seed_down(void *context, const char *why, bool timed_out, bool protocol)
{
    cluster *self = context;
    (void)timed_out;
    (void)protocol;
    candidate_failed(self, why, connection_refused(self->seed));
}

static void on_no_message(void *context, const char *text, size_t size)
{
    cluster *self = context;
    (void)text;
    (void)size;
    self->callbacks.down(self->context, NULL, "a message came that nobody had asked for", false,
                         true, false);
}

static void on_seed_idle(void *context)
{
    (void)context;
}

static void ask_next(cluster *self)
{
    static const connection_callbacks callbacks = {on_seed_up,   on_seed_answer, on_no_message,
                                                   on_seed_idle, on_seed_down,   NULL};
    if (self->asking == self->candidate_count) {
        self->callbacks.down(self->context, NULL, self->trouble, false, false, self->refused);
        return;
    }
    self->seed =
        self->callbacks.open(self->context, &self->candidates[self->asking], &callbacks, self);
    if (self->seed == NULL)
        candidate_failed(self, "no memory for a connection", false);
}

static void add_candidate(cluster *self, const url_place *place)
{
    for (size_t i = 0; i < self->candidate_count; i++)
        if (url_place_same(&self->candidates[i], place))
            return;
    if (self->candidate_count < sizeof self->candidates / sizeof *self->candidates)
        self->candidates[self->candidate_count++] = *place;
}

void cluster_connect(cluster *self)
{
    cluster_disconnect(self);
    self->candidate_count = self->asking = 0;
    self->trouble[0] = 0;
    self->refused = true;
    for (size_t i = 0; i < self->seed_count; i++)
        add_candidate(self, &self->seeds[(self->first_seed + i) % self->seed_count]);
    for (size_t i = 0; i < self->map->node_count && i < KNOWN_MAX; i++)
        add_candidate(self, &self->map->nodes[i]); /* of the session before */
    if (self->seed_count > 0)                      /* always: a URL names one at least */
        self->first_seed = (self->first_seed + 1) % self->seed_count;
    set_soon(self, 0);
}

/* ---- The nodes' connections -------------------------------------------------------------------
 */

static void on_node_up(void *context)
{
    struct node *node = context;
    cluster *self = node->cluster;
    self->callbacks.up(self->context, (size_t)(node - self->nodes), node->connection);
}

static void on_node_down(void *context, const char *why, bool timed_out, bool protocol)
{
    struct node *node = context;
    cluster *self = node->cluster;
    char place[URL_PLACE_TEXT_MAX], text[400];
    url_place_text(&self->map->nodes[node - self->nodes], place);
    (void)snprintf(text, sizeof text, "%.100s: %.280s", place, why);
    self->callbacks.down(self->context, node->connection, text, timed_out, protocol, false);
}

static void on_node_idle(void *context)
{
    struct node *node = context;
    node->cluster->callbacks.idle(node->cluster->context);
}

static void on_node_message(void *context, const char *text, size_t size)
{
    struct node *node = context;
    on_no_message(node->cluster, text, size);
}

static void on_node_answer(void *context, const connection_tag *tag, const reply *got,
                           int64_t sent_us);

static void open_nodes(cluster *self)
{
    static const connection_callbacks callbacks = {on_node_up,   on_node_answer, on_node_message,
                                                   on_node_idle, on_node_down,   NULL};
    self->mapped = true;
    self->refreshed_us = connection_now_us();
    for (size_t i = 0; i < self->map->node_count; i++) {
        struct node *node = &self->nodes[i];
        node->connection =
            self->callbacks.open(self->context, &self->map->nodes[i], &callbacks, node);
        if (node->connection == NULL) {
            self->callbacks.down(self->context, NULL, "no memory for a connection", false, false,
                                 false);
            return;
        }
    }
    self->callbacks.mapped(self->context);
}

/* ---- The map, again ---------------------------------------------------------------------------
 */

static void refresh_now(cluster *self)
{
    connection *to = self->nodes[self->refresh_turn++ % self->map->node_count].connection;
    if (!self->refreshing && send_map_request(to)) {
        self->refreshing = true;
        self->refresh_wanted = false;
    }
}

void cluster_refresh(cluster *self)
{
    int64_t passed = connection_now_us() - self->refreshed_us;
    if (self->mapped && !self->refreshing && passed >= REFRESH_EVERY_US)
        refresh_now(self);
}

static int64_t refresh_due(const cluster *self)
{
    return self->refreshed_us + REFRESH_LEAST_US;
}

/* A redirection says that the map is old. */
static void want_refresh(cluster *self)
{
    if (self->refresh_wanted || self->refreshing)
        return;
    self->refresh_wanted = true;
    set_soon(self, refresh_due(self) - connection_now_us());
}

static void got_map(cluster *self, const struct node *node, const reply *got)
{
    uint16_t place_of[SLOTS_NODES_MAX];
    char why[256];
    self->refreshing = false;
    self->refreshed_us = connection_now_us();
    if (!slots_read(got, &self->map->nodes[node - self->nodes], self->read, why, sizeof why)) {
        self->callbacks.down(self->context, NULL, why, false, got->kind != REPLY_ERROR,
                             is_refusal(got));
    } else if (!slots_same_nodes(self->map, self->read, place_of)) {
        self->callbacks.down(self->context, NULL, "other nodes than before serve the cluster",
                             false, false, false);
    } else {
        for (size_t i = 0; i < SLOTS_COUNT; i++) {
            uint16_t owner = self->read->owner[i];
            self->map->owner[i] = owner == SLOTS_NOWHERE ? owner : place_of[owner];
        }
        self->map->covered = self->read->covered;
    }
}

/* ---- Commands ---------------------------------------------------------------------------------
 */

static bool send_routed(struct routed *routed, connection *to)
{
    connection_tag tag = {.kind = TAG_ROUTED, .pointer = routed};
    return connection_send_bytes(to, &tag, routed->command, routed->size);
}

/* Its last reply. Nothing of the routed command may be looked at afterwards. */
static void give(cluster *self, struct routed *routed, const reply *got)
{
    connection_tag tag = routed->tag;
    int64_t sent_us = routed->sent_us;
    forget(self, routed);
    self->callbacks.answer(self->context, &tag, got, sent_us);
}

static void give_later(cluster *self, struct routed *routed)
{
    static const char text[] = CLUSTER_LATER " its slot is on the move";
    static const reply later = {
        .kind = REPLY_ERROR, .text = text, .size = sizeof text - 1, .said = text};
    give(self, routed, &later);
}

/* A key that is moved is where the map says, or, once, where the old place says (ASK). */
static void redirect(cluster *self, struct routed *routed, const slots_redirection *to)
{
    static const char *const asking[] = {"ASKING"};
    static const size_t size[] = {6};
    connection_tag tag = {.kind = TAG_ASKING};
    int node = slots_find(self->map, &to->to);
    if (!to->ask)
        want_refresh(self);
    if (node < 0 || to->slot != routed->slot || ++routed->redirections > REDIRECTIONS_MAX) {
        want_refresh(self);
        give_later(self, routed);
        return;
    }
    connection *there = self->nodes[node].connection;
    if (!to->ask)
        self->map->owner[to->slot] = (uint16_t)node;
    if ((to->ask && !connection_send(there, &tag, 1, asking, size)) || !send_routed(routed, there))
        give_later(self, routed);
}

/* "CLUSTERDOWN Hash slot not served": of this key only, unlike "The cluster is down". */
static bool is_of_the_slot(const reply *error)
{
    return reply_error_is(error, "TRYAGAIN") ||
           (reply_error_is(error, "CLUSTERDOWN") && strstr(error->text, "not served") != NULL);
}

static void on_node_answer(void *context, const connection_tag *tag, const reply *got,
                           int64_t sent_us)
{
    struct node *node = context;
    cluster *self = node->cluster;
    slots_redirection to;
    if (tag->kind < CLUSTER_TAGS) {
        self->callbacks.answer(self->context, tag, got, sent_us);
    } else if (tag->kind == TAG_MAP) {
        got_map(self, node, got);
    } else if (tag->kind == TAG_ROUTED) {
        struct routed *routed = tag->pointer;
        if (slots_redirected(got, &self->map->nodes[node - self->nodes], &to))
            redirect(self, routed, &to);
        else if (got->kind == REPLY_ERROR && is_of_the_slot(got))
            give_later(self, routed);
        else
            give(self, routed, got);
    }
    /* ASKING: whatever is wrong shows in the reply to the command behind it */
}

bool cluster_send(cluster *self, const connection_tag *tag, int count, const char *const *arguments,
                  const size_t *sizes)
{
    struct routed *routed = self->mapped ? calloc(1, sizeof *routed) : NULL;
    if (routed == NULL)
        return false;
    routed->tag = *tag;
    routed->sent_us = connection_now_us();
    routed->slot = slots_of_command(count, arguments, sizes);
    routed->size = codec_command(&routed->command, count, arguments, sizes);
    if (routed->size == 0) {
        free(routed);
        return false;
    }
    routed->next = self->first;
    if (self->first != NULL)
        self->first->previous = routed;
    self->first = routed;
    uint16_t owner = routed->slot == SLOTS_NOWHERE ? 0 : self->map->owner[routed->slot];
    if (owner == SLOTS_NOWHERE) {
        routed->homeless = true;
        set_soon(self, 0);
        return true;
    }
    if (!send_routed(routed, self->nodes[owner].connection)) {
        forget(self, routed);
        return false;
    }
    return true;
}

static struct routed *find_homeless(const cluster *self)
{
    struct routed *at = self->first;
    while (at != NULL && !at->homeless)
        at = at->next;
    return at;
}

static void on_soon(evutil_socket_t fd, short what, void *context)
{
    cluster *self = context;
    struct routed *homeless = NULL;
    (void)fd;
    (void)what;
    if (!self->mapped) {
        ask_next(self);
        return;
    }
    int64_t left = refresh_due(self) - connection_now_us();
    if (self->refresh_wanted && !self->refreshing && left <= 0)
        refresh_now(self);
    /* an answer may bring new ones, and may end the session */
    for (unsigned i = 0; i < HOMELESS_AT_ONCE && self->mapped; i++) {
        homeless = find_homeless(self);
        if (homeless == NULL)
            break;
        self->refresh_wanted = true;
        give_later(self, homeless);
    }
    if (!self->mapped)
        return;
    self->callbacks.idle(self->context);
    if (self->mapped && (homeless != NULL || self->refresh_wanted))
        set_soon(self, homeless != NULL ? 0 : left > 0 ? left : REFRESH_LEAST_US);
}
