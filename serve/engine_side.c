/* engine_side.c - what runs on the engine thread: opening tokenizer and engine, the scheduler's
 * loop, closing. The tokenizer comes first: it is cheap, and a model without one is refused before
 * minutes of packing. Everything that the I/O thread reads is written before the state is
 * published. The engine is used on this thread only, from open to close.
 */
#include "serve/engine_side.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "serve/engine_opts.h"

static void progress(void *user, uint64_t done, uint64_t total)
{
    struct app *a = user;
    atomic_store(&a->load_done, done);
    atomic_store(&a->load_total, total);
    const char *text = a->opt.quiet ? "" : bar_step(&a->load_bar, done, total, clock_ns());
    if (a->load_bar.tty && *text != '\0') {
        ssize_t w = write(STDERR_FILENO, text, strlen(text));
        (void)w;
    } else if (*text != '\0') {
        log_info("%.*s", (int)strcspn(text, "\n"), text);
    }
}

void engine_opts_from(const struct options *o, kt_engine_opts *e)
{
    kt_engine_opts_init(e);
    e->model_path = o->model;
    e->profile_path = o->profile;
    e->quant = o->quant;
    e->quant_dense = o->quant_dense;
    e->pack_cache_dir = o->pack_cache;
    e->strict = o->strict;
    e->fast_bf16 = o->fast_bf16;
    if (o->kv_type != NULL)
        e->kv_type = o->kv_type;
    else if (o->strict)
        e->kv_type = "f32";
    e->max_seqs = (uint32_t)o->parallel;
    e->ctx_tokens = (uint32_t)o->ctx;
    e->kv_tokens = o->kv_tokens;
    e->batch_tokens = (uint32_t)o->batch;
    e->threads = (uint32_t)o->threads;
    e->cpu_mask = o->cpu_mask;
    e->pages = o->pages;
    e->smt = o->smt;
    e->pools = (uint32_t)o->pools;
    e->gemv_rows = (uint32_t)o->gemv_rows;
    e->gemv_rows_yield = options_from_file(o, "gemv-rows");
    e->pages_yield = options_from_file(o, "pages");
    e->smt_yield = options_from_file(o, "smt");
    e->pools_yield = options_from_file(o, "pools");
    e->threads_yield = options_from_file(o, "threads");
    e->cpu_mask_yield = options_from_file(o, "cpu-mask");
    e->memory_limit_bytes = o->memory_limit_mib << 20;
    e->trust_profile = o->trust_profile;
    e->profile_check = o->profile_check;
}

static kt_status open_tokenizer(const struct options *o, kt_tokenizer **out, kt_err *err)
{
    kt_status st = kt_tokenizer_open(o->model, o->chat_template, out, err);
    if (st == KT_E_NOT_FOUND && access(o->model, F_OK) != 0)
        KT_FAIL(err, st, "-m %.160s: there is no such file or directory", o->model);
    if (st == KT_E_NOT_FOUND) {
        char why[300];
        snprintf(why, sizeof why, "%.299s", err->msg);
        return err_set(err, st, 0, __func__, "cannot serve %.120s without a tokenizer: %s",
                       o->model, why);
    }
    return st;
}

kt_status engine_side_check(const struct options *o, kt_err *err)
{
    kt_engine_opts e;
    kt_engine *engine = NULL;
    kt_tokenizer *tok = NULL;
    kt_status st = open_tokenizer(o, &tok, err);
    if (st == KT_OK) {
        engine_opts_from(o, &e);
        e.metadata_only = true;
        st = kt_engine_open(&e, &engine, err);
    }
    kt_engine_close(engine);
    kt_tokenizer_close(tok);
    return st;
}

/* The longest sequence that can ever be admitted: the context, or all KV pages if they are fewer.
 */
static uint32_t usable_ctx(const kt_engine_info *i)
{
    uint64_t kv = i->kv_pages * i->kv_page_tokens;
    return kv < i->ctx_tokens ? (uint32_t)kv : i->ctx_tokens;
}

static void set_limits(struct app *a)
{
    const char *bytes;
    a->limits = (struct kts_limits){.ctx = usable_ctx(&a->info),
                                    .vocab = a->info.vocab,
                                    .model_id = a->model_id,
                                    .accept_any_model = a->opt.accept_any_model};
    kt_sampling_defaults(a->tok, &a->limits.defaults);
    a->longest_token = 1;
    for (uint32_t id = 0; id < kt_tokenizer_vocab(a->tok); id++) {
        size_t n = kt_token_bytes(a->tok, (int32_t)id, &bytes);
        if (n > a->longest_token)
            a->longest_token = n;
    }
    memset(&a->chat_error, 0, sizeof a->chat_error);
    if (kt_chat_supported(a->tok, &a->chat_error) != KT_OK)
        log_warn("chat is off: %s", a->chat_error.msg);
    else
        a->chat_error.code = KT_OK;
}

static kt_status open_sched(struct app *a, kt_err *err)
{
    struct sched *s;
    struct sched_config c = {.engine = a->engine,
                             .tok = a->tok,
                             .events = a->bridge,
                             .met = a->met.sched,
                             .ctx = a->limits.ctx,
                             .queue_requests = (uint32_t)a->opt.queue,
                             .queue_tokens = 4 * (uint64_t)a->limits.ctx,
                             .latency_target_ns = a->opt.latency_target * 1000000,
                             .queue_deadline_ns = a->opt.queue_timeout * 1000000000,
                             .request_deadline_ns = a->opt.request_timeout * 1000000000};
    kt_status st = sched_open(&c, &s, err);
    if (st == KT_OK) {
        pthread_mutex_lock(&a->sched_lock);
        a->sched = s;
        pthread_mutex_unlock(&a->sched_lock);
    }
    return st;
}

static kt_status load(struct app *a, kt_err *err)
{
    kt_engine_opts e;
    kt_status st = open_tokenizer(&a->opt, &a->tok, err);
    if (st != KT_OK)
        return st;
    engine_opts_from(&a->opt, &e);
    e.progress = progress;
    e.progress_user = a;
    bar_open(&a->load_bar, "loading", isatty(STDERR_FILENO) == 1);
    st = kt_engine_open(&e, &a->engine, err);
    if (st != KT_OK)
        return st;
    kt_engine_get_info(a->engine, &a->info);
    if (kt_tokenizer_vocab(a->tok) > a->info.vocab)
        return err_set(
            err, KT_E_FORMAT, 0, __func__,
            "the tokenizer has %u tokens but the model's head only %u: they do not belong together",
            kt_tokenizer_vocab(a->tok), a->info.vocab);
    set_limits(a);
    return open_sched(a, err);
}

static void *run(void *user)
{
    struct app *a = user;
    kt_status st = load(a, &a->load_error);
    atomic_store(&a->state, st == KT_OK ? STATE_READY : STATE_FAILED);
    bridge_wake(a->bridge);
    if (st == KT_OK)
        sched_run(a->sched);
    return NULL;
}

int engine_side_start(struct app *a, kt_err *err)
{
    int rc = pthread_create(&a->engine_thread, NULL, run, a);
    if (rc != 0) {
        err_set(err, KT_E_IO, rc, __func__, "cannot start the engine thread: %s", strerror(rc));
        return -1;
    }
    a->engine_started = true;
    return 0;
}

void engine_side_join(struct app *a)
{
    if (a->engine_started) {
        pthread_mutex_lock(&a->sched_lock);
        if (a->sched != NULL)
            sched_stop(a->sched);
        pthread_mutex_unlock(&a->sched_lock);
        pthread_join(a->engine_thread, NULL);
        a->engine_started = false;
    }
}
