/* exchange.h - generation requests on the I/O thread: from the HTTP exchange to a job and back. All
 * functions: I/O thread.
 */
#ifndef KT_SERVE_EXCHANGE_H
#define KT_SERVE_EXCHANGE_H

#include "serve/app.h"
#include "serve/out_openai.h"

struct exchange {
    struct exchange *next, **prev; /* in app.live */
    struct app *app;
    struct http_x *x; /* NULL once the client is gone */
    struct kts_job *job;
    struct out_openai out;
    struct strbuf frames;   /* of this batch of events, not yet written */
    struct kts_fail broken; /* status 0: none; else frames were lost for lack of memory */
    bool dirty;
    struct exchange *next_dirty;
    uint64_t running_since_ns; /* 0 while queued */
    uint64_t last_write_ns;
};

/* Handlers of the two generation routes. */
void exchange_chat(struct http_x *x, void *user);
void exchange_completion(struct http_x *x, void *user);
/* Take and handle all events of the bridge. */
void exchange_events(struct app *a);
/* Once a second: begin streams whose prompt takes long, send keep-alives. */
void exchange_tick(struct app *a);
/* Cancel one request by id. false: there is none. */
bool exchange_cancel(struct app *a, const char *id);

#endif
