/* nodes_internal.h: what nodes.c and moves.c share: talking to a node, and what it sees. */
#ifndef LARDER_TESTS_CHAOS_NODES_INTERNAL_H
#define LARDER_TESTS_CHAOS_NODES_INTERNAL_H

#include "tests/chaos/nodes.h"

enum { NODES_OPEN_MAX = 256, NODES_KEYS_MAX = 64, NODES_WORDS_MAX = NODES_KEYS_MAX + 10 };

struct node_talk {
    struct client client;
    bool open;
};

struct open_slot {
    uint16_t slot;
    bool coming; /* else going */
    int other;   /* the server it comes from or goes to; -1: none of ours */
};

struct node_view {
    unsigned char owner[SLOTS]; /* which server; 255: nobody */
    struct open_slot open[NODES_OPEN_MAX];
    unsigned open_count;
    bool trouble; /* it knows of one that has failed or is not connected to it */
};

bool nodes_open(struct node_talk *talk, const struct redis *redis);
void nodes_close(struct node_talk *talk);
struct reply nodes_ask(struct node_talk *talk, const char *const *words);
bool nodes_look(const struct redis_side *side, const struct redis *by, struct node_view *view);
/* Up to most names (and NODES_KEYS_MAX) of what a node has of a slot. */
size_t nodes_keys(struct node_talk *talk, uint16_t slot, size_t most, char *names[NODES_KEYS_MAX]);
void nodes_free_keys(char *names[NODES_KEYS_MAX], size_t count);
bool nodes_migrate(struct node_talk *from, const struct redis *to, const char *const *names,
                   size_t count);

#endif
