/* app_metrics.c - which metrics ktserve has, with all their label values, and where the numbers
 * come from. Names, labels and buckets follow one published table. Totals that the engine keeps
 * itself (layer time, bytes read) are mirrored at each scrape; gauges are read at each scrape;
 * everything else is counted where it happens. Nothing here has labels per request, expert, layer
 * or key.
 */
#include "serve/app_metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "config.h"
#include "serve/app.h"

static const double ttft_bounds[] = {.05, .1, .2, .4, .6, .8,  1,   2,   4,
                                     6,   10, 20, 40, 60, 120, 240, 480, 960};
static const double token_bounds[] = {.005, .01, .015, .02, .03, .04, .05, .075, .1,
                                      .15,  .2,  .3,   .5,  .75, 1,   2,   5,    10};
static const double request_bounds[] = {.5, 1,   2,   5,   10,   20,   30,
                                        60, 120, 300, 600, 1200, 2400, 4800};
static const double count_bounds[] = {1,   2,   4,    8,    16,   32,   64,   128,
                                      256, 512, 1024, 2048, 4096, 8192, 16384};
#define BANDWIDTH_WINDOW_NS 10000000000u
#define BOUNDS(b) b, sizeof b / sizeof b[0]

/* clang-format off */
static const struct met_def
    d_build = {MET_GAUGE, "kt_build_info", "What was built and runs; always 1.", {"version", "git", "cpu_kernel", "cuda"}, NULL, 0},
    d_profile = {MET_GAUGE, "kt_host_profile_info", "Host profile in use; always 1.", {"profile_id", "fingerprint"}, NULL, 0},
    d_profile_state = {MET_GAUGE, "kt_host_profile_state", "1 for the state the host profile is in.", {"state"}, NULL, 0},
    d_profile_time = {MET_GAUGE, "kt_host_profile_timestamp_seconds", "When the host profile in use was made, as Unix time.", {NULL}, NULL, 0},
    d_spot = {MET_GAUGE, "kt_host_profile_spot_ratio", "Measured at the start over what the profile says.", {"measurement"}, NULL, 0},
    d_running = {MET_GAUGE, "kt_requests_running", "Sequences that take part in steps.", {"model"}, NULL, 0},
    d_waiting = {MET_GAUGE, "kt_requests_waiting", "Requests in the queue.", {"model"}, NULL, 0},
    d_kv_ratio = {MET_GAUGE, "kt_kv_cache_used_ratio", "Reserved share of the KV pages.", {"model"}, NULL, 0},
    d_kv_capacity = {MET_GAUGE, "kt_kv_cache_capacity_tokens", "Tokens that fit the KV pages.", {"model"}, NULL, 0},
    d_load = {MET_GAUGE, "kt_model_load_seconds", "Time the model took to load.", {"model"}, NULL, 0},
    d_predicted = {MET_GAUGE, "kt_plan_predicted_decode_seconds", "What the plan expects of a decode step of one sequence.", {"model"}, NULL, 0},
    d_requests = {MET_COUNTER, "kt_requests_total", "Generation requests that ended, by how.", {"model", "reason"}, NULL, 0},
    d_prompt = {MET_COUNTER, "kt_prompt_tokens_total", "Prompt tokens, computed or taken from the cache.", {"model", "source"}, NULL, 0},
    d_generated = {MET_COUNTER, "kt_generated_tokens_total", "Tokens generated.", {"model"}, NULL, 0},
    d_preempt = {MET_COUNTER, "kt_request_preemptions_total", "Sequences put back to the queue.", {"model"}, NULL, 0},
    d_ttft = {MET_HISTOGRAM, "kt_time_to_first_token_seconds", "From arrival to the first token.", {"model"}, BOUNDS(ttft_bounds)},
    d_queue = {MET_HISTOGRAM, "kt_request_queue_seconds", "From arrival to admission.", {"model"}, BOUNDS(ttft_bounds)},
    d_token = {MET_HISTOGRAM, "kt_inter_token_latency_seconds", "Between two tokens of a sequence.", {"model"}, BOUNDS(token_bounds)},
    d_duration = {MET_HISTOGRAM, "kt_request_duration_seconds", "From arrival to the end of a request.", {"model"}, BOUNDS(request_bounds)},
    d_step = {MET_HISTOGRAM, "kt_step_duration_seconds", "Engine steps; prefill: with prompt tokens in it.", {"model", "phase"}, BOUNDS(token_bounds)},
    d_step_tokens = {MET_HISTOGRAM, "kt_step_tokens", "Tokens in an engine step.", {"model"}, BOUNDS(count_bounds)},
    d_layer = {MET_COUNTER, "kt_layer_time_seconds_total", "Time in parts of the layers.", {"part", "device"}, NULL, 0},
    d_expert = {MET_COUNTER, "kt_expert_tokens_total", "Token-expert pairs computed.", {"model", "device"}, NULL, 0},
    d_read = {MET_COUNTER, "kt_weight_read_bytes_total", "Bytes of weights that steps read.", {"node"}, NULL, 0},
    d_bandwidth = {MET_GAUGE, "kt_memory_bandwidth_ratio", "Bytes that decode steps read a second over the node's read rate in the profile; of the latest 10 s or more.", {"node"}, NULL, 0},
    d_misplaced = {MET_GAUGE, "kt_numa_pages_misplaced", "Weight pages of a pool that lay on another node after loading.", {"node"}, NULL, 0},
    d_memory = {MET_GAUGE, "kt_memory_bytes", "Memory of the engine by use.", {"place", "class"}, NULL, 0},
    d_http = {MET_COUNTER, "kt_http_requests_total", "HTTP requests by API and status; 499: client gone.", {"api", "code"}, NULL, 0},
    d_rejected = {MET_COUNTER, "kt_http_rejected_total", "Connections and requests refused before routing.", {"reason"}, NULL, 0},
    d_auth = {MET_COUNTER, "kt_auth_failures_total", "Requests with a wrong or missing key.", {NULL}, NULL, 0},
    d_unknown = {MET_COUNTER, "kt_request_unknown_fields_total", "Request fields that no table knows.", {NULL}, NULL, 0},
    d_cancelled = {MET_COUNTER, "kt_cancelled_total", "Generation requests cancelled, by cause.", {"cause"}, NULL, 0},
    d_connections = {MET_GAUGE, "kt_http_connections", "Open connections.", {"state"}, NULL, 0},
    d_throttled = {MET_COUNTER, "kt_cpu_throttled_seconds_total", "Time the cgroup's CPU quota held threads back.", {NULL}, NULL, 0},
    d_cpu = {MET_COUNTER, "process_cpu_seconds_total", "CPU time of the process.", {NULL}, NULL, 0},
    d_rss = {MET_GAUGE, "process_resident_memory_bytes", "Resident memory of the process.", {NULL}, NULL, 0},
    d_start = {MET_GAUGE, "process_start_time_seconds", "Start of the process, Unix time.", {NULL}, NULL, 0},
    d_fds = {MET_GAUGE, "process_open_fds", "Open file descriptors.", {NULL}, NULL, 0},
    d_max_fds = {MET_GAUGE, "process_max_fds", "Limit of open file descriptors.", {NULL}, NULL, 0};

static const char *const api_names[MET_APIS] = {"chat", "completions", "models", "tokenize", "health", "metrics", "admin", "other"};
static const struct { const char *prefix; int api; } api_of[] = {
    {"/v1/chat/", 0}, {"/chat/", 0}, {"/v1/completions", 1}, {"/completions", 1}, {"/v1/models", 2}, {"/tokenize", 3}, {"/detokenize", 3},
    {"/health", 4}, {"/v1/health", 4}, {"/live", 4}, {"/ready", 4}, {"/metrics", 5}, {"/admin/", 6},
};
static const int codes[MET_CODES - 1] = {200, 204, 400, 401, 403, 404, 405, 408, 411, 413, 415, 417, 429, 431, 499, 500, 501, 503};
static const char *const reasons[MET_REASONS] = {"malformed", "header_limit", "body_limit", "body_memory", "header_timeout", "body_timeout", "media_type", "auth",
                                                 "login_rate", "scope", "host", "origin", "connections", "write_stall", "flood", "other"};
/* clang-format on */

static struct met *one(struct app *a, const struct met_def *d, const char *v0, const char *v1)
{
    const char *const values[MET_LABELS] = {v0, v1};
    return met_series(a->met.reg, d, values);
}

static void init_http(struct app *a)
{
    struct app_metrics *m = &a->met;
    for (int i = 0; i < MET_APIS; i++) {
        for (int k = 0; k < MET_CODES; k++) {
            char code[16] = "other";
            if (k < MET_CODES - 1)
                snprintf(code, sizeof code, "%d", codes[k]);
            m->http[i][k] = one(a, &d_http, api_names[i], code);
        }
    }
    for (int i = 0; i < MET_REASONS; i++)
        m->rejected[i] = one(a, &d_rejected, reasons[i], NULL);
    m->auth_failures = one(a, &d_auth, NULL, NULL);
    m->unknown_fields = one(a, &d_unknown, NULL, NULL);
    m->connections[0] = one(a, &d_connections, "idle", NULL);
    m->connections[1] = one(a, &d_connections, "active", NULL);
}

static void init_sched(struct app *a)
{
    static const char *const reason[REASON_COUNT] = {"stop", "length", "abort", "error"};
    static const char *const cause[CANCEL_LABELS] = {NULL, "disconnect", "admin", "shutdown",
                                                     "deadline"};
    struct sched_metrics *s = &a->met.sched;
    const char *model = a->model_id;
    for (int i = 0; i < REASON_COUNT; i++)
        s->requests[i] = one(a, &d_requests, model, reason[i]);
    for (int i = 1; i < CANCEL_LABELS; i++)
        s->cancelled[i] = one(a, &d_cancelled, cause[i], NULL);
    s->prompt_tokens = one(a, &d_prompt, model, "computed");
    one(a, &d_prompt, model, "cached");
    s->generated_tokens = one(a, &d_generated, model, NULL);
    one(a, &d_preempt, model, NULL);
    s->ttft = one(a, &d_ttft, model, NULL);
    s->queue_time = one(a, &d_queue, model, NULL);
    s->inter_token = one(a, &d_token, model, NULL);
    s->duration = one(a, &d_duration, model, NULL);
    s->step_prefill = one(a, &d_step, model, "prefill");
    s->step_decode = one(a, &d_step, model, "decode");
    s->step_tokens = one(a, &d_step_tokens, model, NULL);
}

/* ---- scrape ---- */

/* Microseconds after `key` in a cgroup's cpu.stat, or -1. */
static double throttled_seconds(void)
{
    static const struct {
        const char *path, *key;
        double unit;
    } files[] = {{"/sys/fs/cgroup/cpu.stat", "throttled_usec ", 1e-6},
                 {"/sys/fs/cgroup/cpu/cpu.stat", "throttled_time ", 1e-9}};
    for (int i = 0; i < 2; i++) {
        char *text;
        size_t len;
        double v = -1;
        if (file_read(files[i].path, 65536, &text, &len, NULL) != KT_OK)
            continue;
        const char *at = strstr(text, files[i].key);
        if (at != NULL)
            v = strtod(at + strlen(files[i].key), NULL) * files[i].unit;
        mem_free(text);
        if (v >= 0)
            return v;
    }
    return -1;
}

static void collect_process(struct app *a)
{
    struct rusage ru;
    struct rlimit rl;
    char *text;
    size_t len;
    DIR *d = opendir("/proc/self/fd");
    if (getrusage(RUSAGE_SELF, &ru) == 0)
        met_set(a->met.cpu_seconds, (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
                                        1e-6 * (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec));
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0)
        met_set(a->met.max_fds, (double)rl.rlim_cur);
    if (file_read("/proc/self/statm", 4096, &text, &len, NULL) == KT_OK) {
        char *end;
        strtoull(text, &end, 10);
        met_set(a->met.resident, (double)strtoull(end, NULL, 10) * (double)sysconf(_SC_PAGESIZE));
        mem_free(text);
    }
    if (d != NULL) {
        double n = -3; /* the directory itself, "." and ".." */
        while (readdir(d) != NULL)
            n++;
        closedir(d);
        met_set(a->met.open_fds, n);
    }
    met_set(a->met.throttled, throttled_seconds());
}

/* Every pool reads its share of the weights, and keys and values lie evenly over the nodes. A new
 * value comes after 10 s and some decoding: who scrapes, and how many do, does not matter. */
static void set_bandwidth(struct app_metrics *m, const struct sched_view *v, uint64_t now)
{
    double seconds = (double)(v->decode_ns - m->seen.decode_ns) * 1e-9;
    double weights = (double)(v->decode_weight_bytes - m->seen.decode_weight_bytes);
    double kv = (double)(v->decode_kv_bytes - m->seen.decode_kv_bytes) / m->n_pools;
    if (seconds <= 0 || (m->seen.decode_ns > 0 && now - m->seen_at_ns < BANDWIDTH_WINDOW_NS))
        return;
    for (uint32_t p = 0; p < m->n_pools; p++)
        if (m->pools[p].bandwidth != NULL)
            met_set(m->pools[p].bandwidth, (weights * m->pools[p].weight_share + kv) / seconds /
                                               m->pools[p].read_bytes_per_second);
    m->seen = *v;
    m->seen_at_ns = now;
}

static void collect(void *user)
{
    struct app *a = user;
    struct app_metrics *m = &a->met;
    struct sched_view v;
    uint32_t idle = 0, active = 0;
    kt_engine_stats st;
    if (a->http != NULL)
        http_server_connections(a->http, &idle, &active);
    met_set(m->connections[0], idle);
    met_set(m->connections[1], active);
    collect_process(a);
    if (atomic_load(&a->state) != STATE_READY)
        return;
    sched_get_view(a->sched, &v);
    met_set(m->running, v.running);
    met_set(m->waiting, v.waiting);
    kt_engine_get_stats(a->engine, &st);
    met_set(m->kv_ratio,
            st.kv_pages_total > 0 ? (double)st.kv_pages_used / (double)st.kv_pages_total : 0);
    met_set(m->layer_time[0], (double)st.attn_ns * 1e-9);
    met_set(m->layer_time[1], (double)st.moe_ns * 1e-9);
    met_set(m->layer_time[3], (double)st.other_ns * 1e-9);
    for (uint32_t p = 0; p < m->n_pools; p++)
        met_set(m->pools[p].weight_read, (double)st.weight_read_bytes * m->pools[p].weight_share);
    set_bandwidth(m, &v, clock_ns());
    met_set(m->expert_tokens, (double)st.expert_tokens);
}

bool app_metrics_init(struct app *a)
{
    struct app_metrics *m = &a->met;
    m->reg = met_open();
    if (m->reg == NULL)
        return false;
    m->running = one(a, &d_running, a->model_id, NULL);
    m->waiting = one(a, &d_waiting, a->model_id, NULL);
    m->kv_ratio = one(a, &d_kv_ratio, a->model_id, NULL);
    m->kv_capacity = one(a, &d_kv_capacity, a->model_id, NULL);
    m->load_seconds = one(a, &d_load, a->model_id, NULL);
    init_sched(a);
    init_http(a);
    if (throttled_seconds() >= 0)
        m->throttled = one(a, &d_throttled, NULL, NULL);
    m->cpu_seconds = one(a, &d_cpu, NULL, NULL);
    m->resident = one(a, &d_rss, NULL, NULL);
    m->start_time = one(a, &d_start, NULL, NULL);
    met_set(m->start_time, (double)a->started_unix);
    m->open_fds = one(a, &d_fds, NULL, NULL);
    m->max_fds = one(a, &d_max_fds, NULL, NULL);
    met_on_collect(m->reg, collect, a);
    return met_ok(m->reg);
}

static bool init_pools(struct app *a)
{
    struct app_metrics *m = &a->met;
    kt_pool_info pool;
    m->n_pools = a->info.n_pools;
    m->pools = mem_calloc(m->n_pools, sizeof *m->pools);
    if (m->pools == NULL)
        return false;
    for (uint32_t p = 0; p < m->n_pools && kt_engine_get_pool(a->engine, p, &pool); p++) {
        struct pool_met *o = &m->pools[p];
        char node[16] = "all";
        if (pool.node >= 0)
            snprintf(node, sizeof node, "%d", pool.node);
        if (pool.pages_known)
            met_set(one(a, &d_misplaced, node, NULL), (double)pool.pages_misplaced);
        o->weight_read = one(a, &d_read, node, NULL);
        o->weight_share = pool.row_share;
        o->read_bytes_per_second = pool.read_bytes_per_second;
        if (pool.read_bytes_per_second > 0)
            o->bandwidth = one(a, &d_bandwidth, node, NULL);
    }
    return true;
}

void app_metrics_close(struct app *a)
{
    met_close(a->met.reg);
    mem_free(a->met.pools);
    a->met.reg = NULL;
    a->met.pools = NULL;
    a->met.n_pools = 0;
}

bool app_metrics_loaded(struct app *a)
{
    static const char *const parts[] = {"attn", "moe", "shared", "other"}, *const classes[] = {
                                                                               "weights", "kv",
                                                                               "scratch"};
    static const char *const states[] = {"match", "stale", "mismatch", "none"};
    struct app_metrics *m = &a->met;
    const kt_engine_info *i = &a->info;
    const double bytes[] = {(double)i->weight_bytes, (double)i->kv_bytes, (double)i->scratch_bytes};
    const char *const build[] = {PACKAGE_VERSION, KT_GIT, i->kernel, "none"};
    met_set(met_series(m->reg, &d_build, build), 1);
    if (i->profile_id[0] != '\0') {
        met_set(one(a, &d_profile, i->profile_id, i->profile_host), 1);
        met_set(one(a, &d_profile_time, NULL, NULL), (double)i->profile_time);
    }
    if (i->predicted_decode_seconds > 0)
        met_set(one(a, &d_predicted, a->model_id, NULL), i->predicted_decode_seconds);
    for (uint32_t k = 0; k < i->n_spots; k++)
        met_set(one(a, &d_spot, i->spot[k].id, NULL), i->spot[k].measured / i->spot[k].profiled);
    for (int k = 0; k < 4; k++) {
        m->profile_state[k] = one(a, &d_profile_state, states[k], NULL);
        met_set(m->profile_state[k], strcmp(i->profile_state, states[k]) == 0);
        m->layer_time[k] = one(a, &d_layer, parts[k], "cpu");
    }
    for (int k = 0; k < 3; k++) {
        m->memory[k] = one(a, &d_memory, "host", classes[k]);
        met_set(m->memory[k], bytes[k]);
    }
    if (!init_pools(a))
        return false;
    m->expert_tokens = one(a, &d_expert, a->model_id, i->n_pools == 1 ? "cpu0" : "cpu");
    met_set(m->kv_capacity, (double)i->kv_pages * i->kv_page_tokens);
    met_set(m->load_seconds, i->load_seconds);
    return met_ok(m->reg);
}

void app_metrics_done(struct app *a, const char *route, int status)
{
    int api = MET_APIS - 1, code = MET_CODES - 1;
    for (size_t i = 0; route != NULL && i < sizeof api_of / sizeof api_of[0]; i++)
        if (strncmp(route, api_of[i].prefix, strlen(api_of[i].prefix)) == 0)
            api = api_of[i].api;
    for (int i = 0; i < MET_CODES - 1; i++)
        if (codes[i] == status)
            code = i;
    met_inc(a->met.http[api][code]);
    if (status == 401)
        met_inc(a->met.auth_failures);
}

void app_metrics_rejected(struct app *a, const char *reason)
{
    int at = MET_REASONS - 1;
    for (int i = 0; i < MET_REASONS; i++)
        if (reason != NULL && strcmp(reasons[i], reason) == 0)
            at = i;
    met_inc(a->met.rejected[at]);
}
