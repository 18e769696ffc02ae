/* engine.c - opening and closing an engine, its facts and its counters.
 *
 * Open goes: model description -> host facts -> profile -> plan -> kernels -> memory budget ->
 * memory -> weights -> workers' first step is the caller's. Each stage may fail; kt_engine_close
 * accepts any partly built engine. Defaults and ranges of options are checked here and nowhere
 * else.
 */
#include "engine.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "profile/profile.h"
#include "tuned.h"

_Static_assert(sizeof(kt_engine) % _Alignof(kt_engine) == 0,
               "arrays of engines are not used, but the size must be sane");

void kt_engine_opts_init(kt_engine_opts *o)
{
    memset(o, 0, sizeof *o);
    o->size = sizeof *o;
    o->kv_type = "bf16";
    o->profile_check = "spot";
    o->max_seqs = 16;
    o->batch_tokens = 512;
}

static kt_status quant_option(const char *name, const char *text, int *out, kt_err *err)
{
    *out = -1;
    if (text == NULL || strcmp(text, "none") == 0)
        return KT_OK;
    int t = dtype_by_name(text);
    if (t != DT_MXFP4 && t != DT_Q8_0 && t != DT_Q4_0 && t != DT_INT4 && t != DT_INT8 &&
        t != DT_FP8)
        KT_FAIL(err, KT_E_INVALID, "%s %s: must be mxfp4, q8_0, q4_0, int4, int8, fp8 or none",
                name, text);
    *out = t;
    return KT_OK;
}

static kt_status check_opts(kt_engine *e, const kt_engine_opts *o, kt_err *err)
{
    if (o->size != sizeof *o)
        KT_FAIL(err, KT_E_INVALID,
                "kt_engine_opts has size %zu, this library knows %zu: initialise it with "
                "kt_engine_opts_init, compiled against the same kt.h",
                o->size, sizeof *o);
    if (o->model_path == NULL || o->model_path[0] == '\0')
        KT_FAIL(err, KT_E_INVALID,
                "no model was given; name a GGUF file or a checkpoint directory");
    KT_TRY(quant_option("--quant", o->quant, &e->quant, err));
    KT_TRY(quant_option("--quant-dense", o->quant_dense, &e->quant_dense, err));
    const char *kv = o->kv_type != NULL ? o->kv_type : "bf16";
    int kv_type = kern_kv_by_name(kv);
    if (kv_type < 0)
        KT_FAIL(err, KT_E_INVALID, "--kv-type %s: must be bf16, f32 or int8", kv);
    const char *check = o->profile_check != NULL ? o->profile_check : "spot";
    if (strcmp(check, "spot") != 0 && strcmp(check, "fields") != 0 && strcmp(check, "off") != 0)
        KT_FAIL(err, KT_E_INVALID, "--profile-check %s: must be spot, fields or off", check);
    e->spot_check = strcmp(check, "spot") == 0;
    e->strict = o->strict;
    e->kv_type = o->strict ? KERN_KV_F32 : (enum kern_kv)kv_type;
    if (o->max_seqs < 1 || o->max_seqs > 4096)
        KT_FAIL(err, KT_E_INVALID, "--parallel %u: must be 1 to 4096", o->max_seqs);
    if (o->batch_tokens < 1 || o->batch_tokens > 8192)
        KT_FAIL(err, KT_E_INVALID, "--batch %u: must be 1 to 8192", o->batch_tokens);
    e->max_seqs = o->max_seqs;
    e->batch = o->batch_tokens < o->max_seqs ? o->max_seqs : o->batch_tokens;
    return KT_OK;
}

static kt_status cpu_mask(kt_engine *e, const char *name, kt_err *err)
{
    int mask = name != NULL ? kern_isa_by_name(name) : 0;
    if (mask < 0)
        KT_FAIL(err, KT_E_INVALID,
                "--cpu-mask %s: must be ref, avx2, avxvnni, avx512, avx512vnni or amx", name);
    e->isa = name != NULL ? (uint32_t)mask & kern_isa_host() : kern_isa_host();
    if (name != NULL && ((uint32_t)mask & ~kern_isa_host()) != 0)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "--cpu-mask %s: this CPU or its operating system has only %s", name,
                kern_isa_level_name(kern_isa_host()));
    return KT_OK;
}

/* Rounding activations to BF16 changes bits, so it is never chosen, only asked for. */
static kt_status fast_bf16(kt_engine *e, const kt_engine_opts *o, kt_err *err)
{
    const uint32_t needs = KERN_ISA_AVX2 | KERN_ISA_AVX512 | KERN_ISA_AVX512BF16;
    if (!o->fast_bf16)
        return KT_OK;
    if (o->strict)
        KT_FAIL(err, KT_E_INVALID, "--fast-bf16 rounds what --strict keeps: give one of them");
    if (o->cpu_mask != NULL && (e->isa & KERN_ISA_AVX512) == 0)
        KT_FAIL(err, KT_E_INVALID, "--fast-bf16 needs AVX512, which --cpu-mask %s leaves out",
                o->cpu_mask);
    e->fast = needs | KERN_FAST_BF16;
    if ((needs & ~kern_isa_host()) != 0 ||
        kern_find(KERN_GEMM, DT_BF16, e->fast, NULL)->isa != (needs | KERN_FAST_BF16))
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "--fast-bf16: this CPU or this build has no AVX512-BF16; leave the option out");
    log_info("fast-bf16: BF16 and FP8 matrices, except routers, round activations to BF16 for many "
             "tokens: faster, and the bits depend on batch and prompt chunks");
    return KT_OK;
}

static kt_status check_model(kt_engine *e, const kt_engine_opts *o, kt_err *err)
{
    const struct mdl_traits *t = &e->model->t;
    uint32_t most = t->ctx_tokens > 0 ? t->ctx_tokens : 8192;
    if (o->ctx_tokens > most)
        KT_FAIL(err, KT_E_INVALID, "--ctx %u: %s was made for at most %u tokens", o->ctx_tokens,
                e->model->name, most);
    e->ctx = o->ctx_tokens > 0 ? o->ctx_tokens : most < 8192 ? most : 8192;
    e->max_pages = (e->ctx + KERN_KV_PAGE - 1) / KERN_KV_PAGE;
    e->out_rows = e->max_seqs > 16 ? e->max_seqs : 16;
    if (e->out_rows > e->batch)
        e->out_rows = e->batch;
    return KT_OK;
}

/* One log line for each line of a text. */
static void log_lines(const char *text)
{
    while (text != NULL && *text != '\0') {
        size_t n = strcspn(text, "\n");
        if (n > 0)
            log_info("  %.*s", (int)n, text);
        text += n + (text[n] != '\0');
    }
}

/* The plan, with the number of threads that the user, else a tuning, else a configuration file,
 * else the planner says. */
static kt_status plan_threads(kt_engine *e, const kt_engine_opts *o, struct eng_tuned *tuned,
                              const struct plan_measured *measured, uint32_t n, kt_err *err)
{
    struct plan_opts po;
    plan_opts_init(&po);
    po.threads = tuned->threads > 0 ? 0 : o->threads;
    po.isa_mask = e->isa;
    po.measured = measured;
    po.n_measured = n;
    KT_TRY(eng_tuned_places(e, o, tuned, &po, err));
    KT_TRY(plan_host(e->host, &po, &e->plan, err));
    if (tuned->threads == 0)
        return KT_OK;
    if (tuned->threads >= e->plan->n_threads)
        tuned->threads = 0; /* limits have changed since, or it is what the plan says anyway */
    po.threads = tuned->threads > 0 ? tuned->threads : o->threads;
    if (po.threads == 0)
        return KT_OK;
    if (tuned->threads > 0)
        po.threads_why = "by the tuning below";
    if (tuned->threads > 0 && o->threads > 0)
        log_info("threads: %u, tuned on %s, instead of %u of the configuration file; --threads %u "
                 "or KTSERVE_THREADS keeps the file's",
                 tuned->threads, tuned->created, o->threads, o->threads);
    plan_free(e->plan);
    e->plan = NULL;
    return plan_host(e->host, &po, &e->plan, err);
}

/* Profile and plan: which pools, how many threads, which ISA. A profile of another host is never
 * half-used. */
static kt_status make_plan(kt_engine *e, const kt_engine_opts *o, kt_err *err)
{
    struct profile_match m = {0};
    struct strbuf text = {0};
    e->profile_state = profile_state_name(PROFILE_NONE);
    if (o->profile_path != NULL) {
        KT_TRY(profile_open_for_host(o->profile_path, e->host, o->trust_profile, &e->profile, &m,
                                     err));
        if (m.state == PROFILE_STALE && o->profile_check != NULL &&
            strcmp(o->profile_check, "off") == 0)
            m.state = PROFILE_MATCH;
        e->profile_state = profile_state_name(m.state);
        if (m.state == PROFILE_MISMATCH)
            log_warn("KT026: %s is of another host: %s. Measure this one: kttune probe -o FILE, "
                     "then --profile FILE",
                     o->profile_path,
                     e->profile != NULL ? "used because it was trusted" : "starting with defaults");
        else if (m.state == PROFILE_STALE)
            log_warn("KT025: %s is stale; used as a whole. Run: kttune probe -o %s",
                     o->profile_path, o->profile_path);
        if (m.state == PROFILE_MISMATCH || m.state == PROFILE_STALE) {
            profile_match_text(&m, &text);
            log_lines(text.data);
        }
        profile_match_free(&m);
        sb_free(&text);
    } else {
        log_info("no profile: defaults are used; kttune probe measures this host");
    }
    char abi[17];
    kern_abi(abi);
    e->kernels_measured = e->profile != NULL && e->profile->kernel_abi != NULL &&
                          strcmp(e->profile->kernel_abi, abi) == 0;
    const char *level =
        e->profile != NULL && o->cpu_mask == NULL ? profile_isa_level(e->profile, abi) : NULL;
    if (level != NULL && kern_isa_by_name(level) >= 0)
        e->isa &= (uint32_t)kern_isa_by_name(level);
    struct eng_tuned tuned;
    eng_tuned_find(e, o, abi, &tuned);
    if (tuned.kernel != NULL && o->cpu_mask != NULL) {
        log_info("kernel level: %s, tuned on %s, instead of %s of the configuration file; "
                 "--cpu-mask %s or KTSERVE_CPU_MASK keeps the file's",
                 tuned.kernel, tuned.created, o->cpu_mask, o->cpu_mask);
        e->isa = kern_isa_host();
    }
    if (tuned.kernel != NULL)
        e->isa &= (uint32_t)kern_isa_by_name(tuned.kernel);
    eng_tuned_knobs(&tuned, &e->knobs);
    KT_TRY(eng_tuned_rows(e, o, &tuned, err));
    struct plan_measured *measured = NULL;
    uint32_t n = e->profile != NULL ? e->profile->n_knees : 0;
    if (n > 0) {
        measured = mem_calloc(n, sizeof *measured);
        if (measured == NULL)
            KT_FAIL(err, KT_E_NOMEM, "no memory for the plan");
        for (uint32_t i = 0; i < n; i++) {
            const struct profile_knee *k = &e->profile->knees[i];
            measured[i] = (struct plan_measured){k->node,
                                                 k->knee_threads,
                                                 k->knee_bytes_per_second,
                                                 k->read_bytes_per_second,
                                                 k->best_threads,
                                                 (const char *const *)k->because,
                                                 k->n_because};
        }
    }
    kt_status s = plan_threads(e, o, &tuned, measured, n, err);
    mem_free(measured);
    if (s == KT_OK)
        s = eng_rows_say(e, o, &tuned, err);
    return s == KT_OK ? eng_tuned_say(&tuned, e->plan, err) : s;
}

kt_status eng_find_kernels(kt_engine *e, kt_err *err)
{
    static const enum kern_op op[] = {KERN_QUANT_ACT, KERN_QUANT_ROW, KERN_RMSNORM,  KERN_SWIGLU,
                                      KERN_ADD,       KERN_EXP,       KERN_ROPE,     KERN_ATTN,
                                      KERN_MOE_ADD,   KERN_MOE_DONE,  KERN_ATTN_JOIN};
    const struct kern *k[sizeof op / sizeof op[0]];
    for (size_t i = 0; i < sizeof op / sizeof op[0]; i++) {
        k[i] = kern_find(op[i], -1, e->isa, NULL);
        if (k[i] == NULL)
            KT_FAIL(err, KT_E_INTERNAL, "the kernel table has no row for operation %d", (int)op[i]);
    }
    e->fn = (struct eng_kernels){k[0]->run.quant,   k[1]->run.quant,   k[2]->run.rmsnorm,
                                 k[3]->run.swiglu,  k[4]->run.add,     k[5]->run.vexp,
                                 k[6]->run.rope,    k[7]->run.attn,    k[10]->run.attn,
                                 k[8]->run.moe_add, k[9]->run.moe_done};
    return KT_OK;
}

kt_status eng_start_workers(kt_engine *e, kt_err *err)
{
    e->n_workers = e->max_workers = e->plan->n_threads;
    e->n_pools = e->plan->n_pools;
    e->worker = mem_calloc(e->max_workers, sizeof *e->worker);
    e->pool_workers = mem_calloc(e->n_pools, sizeof *e->pool_workers);
    e->pool_counter = mem_aligned(64, e->n_pools * sizeof *e->pool_counter);
    e->all_counter = mem_aligned(64, sizeof *e->all_counter);
    e->arena = mem_calloc(e->n_pools, sizeof *e->arena);
    e->arena_bytes = mem_calloc(e->n_pools, sizeof *e->arena_bytes);
    e->open_threads = mem_calloc(e->n_pools, sizeof *e->open_threads);
    e->pages = mem_calloc(e->n_pools, sizeof *e->pages);
    e->own_at = mem_calloc(e->n_pools + (size_t)1, sizeof *e->own_at);
    e->own = mem_calloc(e->max_workers, sizeof *e->own);
    if (e->open_threads == NULL || e->pages == NULL || e->own_at == NULL || e->own == NULL ||
        e->worker == NULL || e->pool_workers == NULL || e->pool_counter == NULL ||
        e->all_counter == NULL || e->arena == NULL || e->arena_bytes == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %u workers", e->max_workers);
    for (uint32_t p = 0; p < e->n_pools; p++)
        e->open_threads[p] = e->plan->pools[p].threads;
    return eng_start_team(e, err);
}

/* cos and sin of fl32(p * f_i), in double, times the attention factor, rounded once. */
static void fill_rope(kt_engine *e, float *freqs)
{
    const struct mdl_rope *r = &e->model->t.rope;
    uint32_t half = r->dims / 2;
    mdl_rope_freqs(r, freqs);
    for (uint32_t p = 0; p < e->ctx; p++)
        for (uint32_t i = 0; i < half; i++) {
            double angle = (double)((float)p * freqs[i]);
            e->rope_cos[(size_t)p * half + i] = (float)(cos(angle) * r->attention_factor);
            e->rope_sin[(size_t)p * half + i] = (float)(sin(angle) * r->attention_factor);
        }
}

/* The commonest type of a part, for reports. */
static void name_formats(kt_engine *e)
{
    const struct eng_layer *last = &e->layer[e->model->t.n_layers - 1];
    e->dense_format = dtype_name(last->q.type);
    e->expert_format = "";
    for (uint32_t i = 0; i < e->model->t.n_layers; i++)
        if (e->layer[i].moe) {
            const struct eng_layer *l = &e->layer[i];
            e->expert_format = dtype_name(l->gate[0].type);
            e->expert_bytes =
                kern_packed_bytes(l->gate[0].layout, l->gate[0].type, l->gate[0].rows,
                                  l->gate[0].k) +
                kern_packed_bytes(l->up[0].layout, l->up[0].type, l->up[0].rows, l->up[0].k) +
                kern_packed_bytes(l->down[0].layout, l->down[0].type, l->down[0].rows,
                                  l->down[0].k);
            return;
        }
}

kt_status eng_prepare(kt_engine *e, const kt_engine_opts *o, kt_err *err)
{
    size_t n;
    (void)kern_table(&n); /* builds the table while there is one thread */
    eng_knobs_default(&e->knobs);
    KT_TRY(cpu_mask(e, o->cpu_mask, err));
    KT_TRY(fast_bf16(e, o, err));
    KT_TRY(host_read(NULL, &e->host, err));
    KT_TRY(make_plan(e, o, err));
    struct strbuf text = {0};
    plan_print(e->plan, &text);
    e->plan_text = sb_take(&text, NULL);
    e->profile_id = mem_strdup(e->profile != NULL ? e->profile->id : "");
    if (e->plan_text == NULL || e->profile_id == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the plan's text");
    e->loaded_isa = e->isa;
    return eng_find_kernels(e, err);
}

static kt_status load(kt_engine *e, const kt_engine_opts *o, kt_err *err)
{
    KT_TRY(check_opts(e, o, err));
    KT_TRY(mdl_open(o->model_path, &e->model, err));
    KT_TRY(check_model(e, o, err));
    KT_TRY(eng_prepare(e, o, err));
    if (o->metadata_only)
        return KT_OK;
    KT_TRY(eng_start_workers(e, err));
    KT_TRY(eng_load_layout(e, err));
    KT_TRY(eng_settle_pages(e, err));
    KT_TRY(eng_budget(e, o, err));
    KT_TRY(eng_take_memory(e, err));
    float *freqs = mem_calloc(e->model->t.rope.dims / 2 + 1, sizeof *freqs);
    if (freqs == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the rope table");
    fill_rope(e, freqs);
    mem_free(freqs);
    name_formats(e);
    if (e->spot_check)
        KT_TRY(eng_spot_check(e, err));
    e->predicted_decode = eng_predict_decode(e, o);
    KT_TRY(eng_load_weights(e, o, err));
    return eng_numa_check(e, err);
}

kt_status kt_engine_open(const kt_engine_opts *o, kt_engine **out, kt_err *err)
{
    uint64_t start = clock_ns();
    *out = NULL;
    kt_engine *e = mem_calloc(1, sizeof *e);
    if (e == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for an engine");
    kt_status s = load(e, o, err);
    if (s != KT_OK) {
        kt_engine_close(e);
        return s;
    }
    e->load_seconds = (double)(clock_ns() - start) * 1e-9;
    log_info("%s: %s kernels, %u thread%s in %u pool%s, ready after %.2f s", e->model->name,
             kern_isa_level_name(e->isa), e->n_workers, e->n_workers == 1 ? "" : "s", e->n_pools,
             e->n_pools == 1 ? "" : "s", e->load_seconds);
    *out = e;
    return KT_OK;
}

void eng_release(kt_engine *e)
{
    team_close(e->team);
    eng_free_memory(e);
    mem_free(e->worker);
    mem_free(e->pool_workers);
    mem_free(e->pages);
    mem_free(e->own_at);
    mem_free(e->own);
    mem_free(e->open_threads);
    mem_free(e->pool_counter);
    mem_free(e->all_counter);
    plan_free(e->plan);
    profile_close(e->profile);
    host_free(e->host);
    mem_free(e->plan_text);
    mem_free(e->profile_id);
}

void kt_engine_close(kt_engine *e)
{
    if (e == NULL)
        return;
    eng_release(e);
    mdl_close(e->model);
    mem_free(e);
}

void kt_engine_get_info(const kt_engine *e, kt_engine_info *info)
{
    const struct mdl_traits *t = &e->model->t;
    memset(info, 0, sizeof *info);
    info->arch = t->arch;
    info->model_name = e->model->name;
    info->n_layers = t->n_layers;
    info->n_moe_layers = t->n_moe_layers;
    info->hidden = t->hidden;
    info->vocab = t->vocab;
    info->n_experts = t->n_experts;
    info->experts_per_token = t->top_k;
    for (uint32_t i = 0, seen = 0; i < t->n_layers; i++)
        if (t->layer_is_moe[i]) {
            if (seen++ == 0)
                info->first_moe_layer = i;
            info->last_moe_layer = i;
        }
    info->ctx_tokens = e->ctx;
    info->model_ctx_tokens = t->ctx_tokens;
    info->max_seqs = e->max_seqs;
    info->batch_tokens = e->batch;
    info->kv_page_tokens = KERN_KV_PAGE;
    info->kv_pages = e->kv_pages;
    info->weight_bytes = e->weight_bytes;
    info->kv_bytes = e->kv_bytes;
    info->scratch_bytes = e->scratch_bytes;
    info->expert_bytes = e->expert_bytes;
    info->n_pools = e->plan->n_pools;
    info->n_threads = e->plan->n_threads;
    info->kernel = kern_isa_level_name(e->isa);
    info->kv_type = kern_kv_name(e->kv_type);
    info->profile_state = e->profile_state;
    info->predicted_decode_seconds = e->predicted_decode;
    info->n_spots = e->n_spots;
    for (uint32_t i = 0; i < e->n_spots; i++)
        info->spot[i] = e->spot[i].pub;
    info->profile_id = e->profile_id;
    info->profile_host =
        e->profile != NULL && e->profile->hard_id != NULL ? e->profile->hard_id : "";
    info->profile_time = e->profile != NULL ? profile_created_seconds(e->profile) : 0;
    info->plan_text = e->plan_text;
    info->dense_format = e->dense_format != NULL ? e->dense_format : "";
    info->expert_format = e->expert_format != NULL ? e->expert_format : "";
    info->load_seconds = e->load_seconds;
    info->pack_seconds = e->pack_seconds;
    info->load_bytes = e->load_bytes;
    info->pack_cache = e->pack_cache != NULL ? e->pack_cache : "off";
    info->strict = e->strict;
}

void kt_engine_get_stats(const kt_engine *e, kt_engine_stats *s)
{
    s->steps = atomic_load_explicit(&e->stat.steps, memory_order_relaxed);
    s->step_tokens = atomic_load_explicit(&e->stat.tokens, memory_order_relaxed);
    s->decode_tokens = atomic_load_explicit(&e->stat.decode, memory_order_relaxed);
    s->prefill_tokens = atomic_load_explicit(&e->stat.prefill, memory_order_relaxed);
    s->weight_read_bytes = atomic_load_explicit(&e->stat.weight_bytes, memory_order_relaxed);
    s->kv_read_bytes = atomic_load_explicit(&e->stat.kv_bytes, memory_order_relaxed);
    s->weight_macs = atomic_load_explicit(&e->stat.macs, memory_order_relaxed);
    s->row_macs = atomic_load_explicit(&e->stat.row_macs, memory_order_relaxed);
    s->float_macs = atomic_load_explicit(&e->stat.float_macs, memory_order_relaxed);
    s->attn_macs = atomic_load_explicit(&e->stat.attn_macs, memory_order_relaxed);
    s->attend_ns = atomic_load_explicit(&e->stat.attend_ns, memory_order_relaxed);
    s->attn_ns = atomic_load_explicit(&e->stat.attn_ns, memory_order_relaxed);
    s->moe_ns = atomic_load_explicit(&e->stat.moe_ns, memory_order_relaxed);
    s->other_ns = atomic_load_explicit(&e->stat.other_ns, memory_order_relaxed);
    s->kv_pages_used = atomic_load_explicit(&e->stat.pages_used, memory_order_relaxed);
    s->kv_pages_total = e->kv_pages;
    s->expert_tokens = atomic_load_explicit(&e->stat.expert_tokens, memory_order_relaxed);
}

_Static_assert(sizeof(_Atomic uint64_t) == sizeof(uint64_t), "counts are handed out as plain u64");

const uint64_t *kt_engine_expert_counts(const kt_engine *e)
{
    return (const uint64_t *)(uintptr_t)e->counts;
}

void kt_engine_set_tap(kt_engine *e, kt_tap_fn fn, void *user)
{
    e->tap = fn;
    e->tap_user = user;
}
