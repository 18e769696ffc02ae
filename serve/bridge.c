/* bridge.c - the event queue from the engine thread to the I/O thread, with its eventfd.
 * One lock around a linked list; the eventfd is written only when the list was empty, so a busy
 * stream costs one wake-up per step at most.
 */
#include "serve/bridge.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/status.h"

struct bridge {
    pthread_mutex_t lock;
    struct kts_event *first, **last; /* guarded by lock */
    uint32_t n;                      /* guarded by lock */
    uint32_t max;
    bool was_full; /* I/O thread */
    int fd;
};

kt_status bridge_open(uint32_t max_events, struct bridge **out, kt_err *err)
{
    struct bridge *b = mem_calloc(1, sizeof *b);
    *out = NULL;
    if (b == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the event queue");
    b->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (b->fd < 0) {
        int e = errno;
        mem_free(b);
        return err_set(err, KT_E_IO, e, __func__, "cannot make an eventfd: %s", strerror(e));
    }
    pthread_mutex_init(&b->lock, NULL);
    b->last = &b->first;
    b->max = max_events;
    *out = b;
    return KT_OK;
}

void bridge_event_free(struct kts_event *e)
{
    if (e != NULL && e != &e->job->last)
        mem_free(e);
}

void bridge_close(struct bridge *b)
{
    if (b == NULL)
        return;
    for (struct kts_event *e = b->first; e != NULL;) {
        struct kts_event *next = e->next;
        bridge_event_free(e);
        e = next;
    }
    close(b->fd);
    pthread_mutex_destroy(&b->lock);
    mem_free(b);
}

int bridge_fd(const struct bridge *b)
{
    return b->fd;
}

void bridge_wake(struct bridge *b)
{
    uint64_t one = 1;
    ssize_t n = write(b->fd, &one, sizeof one); /* fails only when a wake-up is pending already */
    (void)n;
}

void bridge_push(struct bridge *b, struct kts_event *first)
{
    struct kts_event *end = first;
    uint32_t n = 1;
    if (first == NULL)
        return;
    for (; end->next != NULL; end = end->next)
        n++;
    pthread_mutex_lock(&b->lock);
    bool was_empty = b->first == NULL;
    *b->last = first;
    b->last = &end->next;
    b->n += n;
    pthread_mutex_unlock(&b->lock);
    if (was_empty)
        bridge_wake(b);
}

bool bridge_full(struct bridge *b)
{
    pthread_mutex_lock(&b->lock);
    bool full = b->n >= b->max;
    pthread_mutex_unlock(&b->lock);
    return full;
}

bool bridge_was_full(const struct bridge *b)
{
    return b->was_full;
}

struct kts_event *bridge_take(struct bridge *b)
{
    uint64_t count;
    ssize_t n = read(b->fd, &count, sizeof count);
    (void)n;
    pthread_mutex_lock(&b->lock);
    struct kts_event *e = b->first;
    b->first = NULL;
    b->last = &b->first;
    b->was_full = b->n >= b->max;
    b->n = 0;
    pthread_mutex_unlock(&b->lock);
    return e;
}

void kts_job_free(struct kts_job *j)
{
    if (j == NULL)
        return;
    for (uint32_t i = 0; j->prompts != NULL && i < j->n_prompts; i++)
        mem_free(j->prompts[i].ids);
    mem_free(j->prompts);
    kts_req_free(&j->req);
    mem_free(j);
}
