/* replicator_poll.c: see replicator_poll.h. */
#include "daemon/replicator_poll.h"

enum {
    USUAL_SHARE = 8, /* of the newest in the smoothed time, 1 in so many */
    FAR_LIMITS = 4,  /* limits: what takes longer counts as so long */
    OTHERS_US = 50,  /* more than Redis needs for an answer: the processor is wanted */
    REST_LEAST_US = 10000,
    REST_MOST_US = 1000000,
    REST_SHARE = 64 /* of the rest is taken back whenever it was good to look */
};

void poll_init(struct poll *self, int64_t limit_us, unsigned processors)
{
    limit_us = limit_us < POLL_MOST_US ? limit_us : POLL_MOST_US;
    *self = (struct poll){.limit_us = processors > 1 ? limit_us : 0, .rest_us = REST_LEAST_US};
    self->request.usual_us = self->reply.usual_us = self->limit_us * FAR_LIMITS;
}

static void came(struct poll *self, struct poll_expected *expected, int64_t now_us)
{
    if (expected->since_us == 0)
        return;
    int64_t far = self->limit_us * FAR_LIMITS, took = now_us - expected->since_us;
    took = took < 0 ? 0 : took < far ? took : far;
    expected->usual_us += (took - expected->usual_us) / USUAL_SHARE;
    expected->since_us = 0;
    if (took < self->limit_us && now_us >= self->rest_until_us && self->rest_us > REST_LEAST_US)
        self->rest_us -= self->rest_us / REST_SHARE;
}

void poll_requested(struct poll *self, int64_t now_us)
{
    came(self, &self->request, now_us);
}

void poll_sent(struct poll *self, int64_t now_us)
{
    self->reply.since_us = now_us;
}

void poll_replied(struct poll *self, int64_t now_us)
{
    came(self, &self->reply, now_us);
}

void poll_answered(struct poll *self, int64_t now_us)
{
    self->request.since_us = now_us;
}

static bool may_come(const struct poll *self, const struct poll_expected *expected, int64_t now_us)
{
    int64_t patience =
        expected->usual_us * 2 < self->limit_us ? expected->usual_us * 2 : self->limit_us;
    return expected->since_us != 0 && expected->usual_us <= self->limit_us &&
           now_us - expected->since_us < patience;
}

bool poll_wanted(const struct poll *self, int64_t now_us)
{
    return self->limit_us != 0 && now_us >= self->rest_until_us &&
           (may_come(self, &self->request, now_us) || may_come(self, &self->reply, now_us));
}

void poll_offered(struct poll *self, int64_t now_us, int64_t took_us)
{
    if (took_us < OTHERS_US)
        return;
    self->rest_until_us = now_us + self->rest_us;
    self->rest_us = self->rest_us * 2 < REST_MOST_US ? self->rest_us * 2 : REST_MOST_US;
}
