/* deadline.c: see deadline.h. */
#include "daemon/deadline.h"

#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

struct deadline {
    struct event *event;
    int timer;
    int64_t due_ms; /* as set */
    void (*due)(void *context);
    void *context;
};

static void on_due(evutil_socket_t timer, short what, void *context)
{
    struct deadline *self = context;
    uint64_t times;
    (void)what;
    if (read(timer, &times, sizeof times) != (ssize_t)sizeof times)
        return; /* set anew since the loop looked */
    self->due_ms = DEADLINE_NEVER;
    self->due(self->context);
}

struct deadline *deadline_new(struct event_base *base, void (*due)(void *context), void *context)
{
    struct deadline *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->due_ms = DEADLINE_NEVER;
    self->due = due;
    self->context = context;
    self->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (self->timer >= 0)
        self->event = event_new(base, self->timer, EV_READ | EV_PERSIST, on_due, self);
    if (self->event == NULL || event_add(self->event, NULL) != 0)
        deadline_free(&self);
    return self;
}

void deadline_set(struct deadline *self, int64_t due_ms)
{
    if (due_ms == self->due_ms)
        return;
    self->due_ms = due_ms;
    struct itimerspec time = {.it_value = {0}}; /* never */
    if (due_ms != DEADLINE_NEVER) {
        due_ms = due_ms < 1 ? 1 : due_ms;
        time.it_value.tv_sec = (time_t)(due_ms / 1000);
        time.it_value.tv_nsec = (long)(due_ms % 1000) * 1000000;
    }
    (void)timerfd_settime(self->timer, TFD_TIMER_ABSTIME, &time, NULL); /* fails on no such time */
}

void deadline_free(struct deadline **self)
{
    struct deadline *old = *self;
    *self = NULL;
    if (old == NULL)
        return;
    if (old->event != NULL)
        event_free(old->event);
    if (old->timer >= 0)
        (void)close(old->timer);
    free(old);
}
