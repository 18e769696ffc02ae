/* numa_facts.c - opens a model and prints as JSON where everything really is: the pages of every
 * weight arena, of the KV block and of the scratch by memory node, the CPUs that each worker may
 * use, and the tokens of one greedy answer with a hash of all its logits. test_numa.py runs it on
 * this host and inside emulated machines and judges; nothing is judged here.
 *
 * What it prints comes from the kernel (move_pages, numa_maps, /proc/self/task), not from the
 * engine's own checks, which are printed beside it. The engine's private header is read for the
 * addresses only. One thread; the engine's workers are the others.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/engine.h"
#include "kt.h"

#define MAX_NODES 1024
#define BATCH 1024

static void die(const char *what, const kt_err *err)
{
    fprintf(stderr, "numa_facts: %s: %s\n", what, err != NULL ? err->msg : strerror(errno));
    exit(1);
}

static void log_line(void *user, kt_log_level level, const char *line)
{
    (void)user;
    fprintf(stderr, "%s%s\n", level >= KT_LOG_WARN ? "warning: " : "", line);
}

/* Nodes of the pages in [p, p + bytes) that exist; -1 counts those that do not. */
static void count_pages(const uint8_t *p, uint64_t bytes, uint64_t *at, uint64_t *absent)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *address[BATCH];
    int status[BATCH];
    uint64_t n = (bytes + page - 1) / page;
    *absent = 0;
    for (uint64_t i = 0; i < n; i += BATCH) {
        uint64_t m = n - i < BATCH ? n - i : BATCH;
        for (uint64_t k = 0; k < m; k++)
            address[k] = (void *)(uintptr_t)(p + (i + k) * page);
        if (move_pages(0, m, address, NULL, status, 0) < 0)
            die("move_pages", NULL);
        for (uint64_t k = 0; k < m; k++)
            if (status[k] >= 0 && status[k] < MAX_NODES)
                at[status[k]]++;
            else
                ++*absent;
    }
}

static void print_pages(const uint8_t *p, uint64_t bytes)
{
    static uint64_t at[MAX_NODES];
    uint64_t absent;
    memset(at, 0, sizeof at);
    count_pages(p, bytes, at, &absent);
    printf("{\"absent\": %" PRIu64, absent);
    for (int i = 0; i < MAX_NODES; i++)
        if (at[i] > 0)
            printf(", \"%d\": %" PRIu64, i, at[i]);
    printf("}");
}

/* The policy that the kernel holds for an address, as numa_maps writes it: "bind:1". */
static void print_policy(const void *p)
{
    char line[8192], policy[256] = "?";
    FILE *f = fopen("/proc/self/numa_maps", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char *rest;
        if (strtoull(line, &rest, 16) > (uintptr_t)p)
            break;
        snprintf(policy, sizeof policy, "%.*s", (int)strcspn(rest + 1, " \n"), rest + 1);
    }
    if (f != NULL)
        fclose(f);
    printf("\"%s\"", policy);
}

static void status_value(const char *task, const char *key, char *out, size_t cap)
{
    char path[300], line[4096];
    snprintf(path, sizeof path, "/proc/self/task/%s/status", task);
    FILE *f = fopen(path, "r");
    out[0] = '\0';
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            snprintf(out, cap, "%.*s", (int)strcspn(line + strlen(key), "\n"), line + strlen(key));
    if (f != NULL)
        fclose(f);
}

static void print_threads(void)
{
    DIR *d = opendir("/proc/self/task");
    int n = 0;
    printf("\"threads\": [");
    for (struct dirent *t; d != NULL && (t = readdir(d)) != NULL;) {
        char name[64], cpus[4096];
        if (t->d_name[0] == '.')
            continue;
        status_value(t->d_name, "Name:\t", name, sizeof name);
        status_value(t->d_name, "Cpus_allowed_list:\t", cpus, sizeof cpus);
        printf("%s{\"name\": \"%s\", \"main\": %s, \"cpus\": \"%s\"}", n++ > 0 ? ", " : "", name,
               atoll(t->d_name) == getpid() ? "true" : "false", cpus);
    }
    printf("],\n");
    if (d != NULL)
        closedir(d);
}

static void print_pools(const struct kt_engine *e)
{
    printf("\"pools\": [");
    for (uint32_t p = 0; p < e->n_pools; p++) {
        const struct plan_pool *q = &e->plan->pools[p];
        printf("%s\n {\"node\": %d, \"threads\": %u, \"share\": %.6f, \"cpus\": [",
               p > 0 ? "," : "", q->node, q->threads, q->share);
        for (uint32_t i = 0; i < q->n_cpus; i++)
            printf("%s%d", i > 0 ? ", " : "", q->cpus[i]);
        printf("], \"rows\": %u, \"bytes\": %" PRIu64 ", \"policy\": ", e->head.part[p].rows,
               e->arena_bytes[p]);
        print_policy(e->arena[p]);
        printf(", \"pages\": ");
        print_pages(e->arena[p], e->arena_bytes[p]);
        printf("}");
    }
    printf("],\n");
}

static void print_shared(const struct kt_engine *e)
{
    printf("\"kv_policy\": ");
    print_policy(e->kv);
    printf(", \"kv_pages\": ");
    print_pages(e->kv, e->kv_bytes);
    printf(",\n\"scratch_pages\": ");
    print_pages(e->scratch, e->scratch_bytes);
    printf(",\n\"own_pages\": [");
    for (uint32_t p = 0; p < e->n_pools; p++) {
        printf("%s", p > 0 ? ", " : "");
        print_pages(e->scratch + e->own_at[p], e->own_at[p + 1] - e->own_at[p]);
    }
    printf("],\n");
}

/* What the library itself says, before and after pages were moved away behind its back: the first
 * quarter of the first pool's arena to the last pool's node. */
static void print_library(struct kt_engine *e, const char *key)
{
    kt_pool_info pool;
    printf("\"%s\": [", key);
    for (uint32_t p = 0; kt_engine_get_pool(e, p, &pool); p++)
        printf("%s{\"node\": %d, \"share\": %.6f, \"pages\": %" PRIu64 ", \"misplaced\": %" PRIu64
               ", \"known\": %s}",
               p > 0 ? ", " : "", pool.node, pool.row_share, pool.weight_pages,
               pool.pages_misplaced, pool.pages_known ? "true" : "false");
    printf("],\n");
}

static void spoil(struct kt_engine *e)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int to = e->plan->pools[e->n_pools - 1].node, status;
    kt_err err = {0};
    for (uint64_t i = 0; i < e->arena_bytes[0] / page / 4; i++) {
        void *address = e->arena[0] + i * page;
        if (move_pages(0, 1, &address, &to, &status, MPOL_MF_MOVE) < 0)
            die("move_pages", NULL);
    }
    if (eng_numa_check(e, &err) != KT_OK)
        die("check", &err);
    printf("\"spoiled\": ");
    print_pages(e->arena[0], e->arena_bytes[0]);
    printf(",\n");
    print_library(e, "library_spoiled");
}

/* The operator on its own: shape with rows for every pool, the same values in every expert. Its
 * engine is the first member of kt_moe, which is how the pages' addresses are known here. */
static void print_operator(void)
{
    enum { E = 5, HIDDEN = 512, INTER = 1024 };
    kt_moe_opts o;
    kt_moe *op;
    kt_err err = {0};
    kt_pool_info pool;
    float *rows = calloc((size_t)HIDDEN * INTER, sizeof *rows);
    kt_moe_opts_init(&o);
    o.n_experts = E, o.top_k = 2, o.hidden = HIDDEN, o.inter = INTER, o.max_tokens = 8;
    if (rows == NULL || kt_moe_open(&o, &op, &err) != KT_OK)
        die("operator", &err);
    for (uint32_t x = 0; x < E; x++)
        for (int m = KT_MOE_GATE; m <= KT_MOE_DOWN; m++) {
            if (!kt_moe_get_pool(op, 0, &pool) || pool.pages_known || pool.weight_pages > 0)
                die("pages of the operator are known too early", NULL);
            if (kt_moe_load(op, x, (kt_moe_matrix)m, "f32", rows, &err) != KT_OK)
                die("operator", &err);
        }
    const struct kt_engine *e = (const struct kt_engine *)(const void *)op;
    printf("\"operator\": [");
    for (uint32_t p = 0; kt_moe_get_pool(op, p, &pool); p++) {
        printf("%s{\"node\": %d, \"bytes\": %" PRIu64 ", \"count\": %" PRIu64
               ", \"misplaced\": %" PRIu64 ", \"known\": %s, \"policy\": ",
               p > 0 ? ", " : "", pool.node, pool.weight_bytes, pool.weight_pages,
               pool.pages_misplaced, pool.pages_known ? "true" : "false");
        print_policy(e->arena[p]);
        printf(", \"pages\": ");
        print_pages(e->arena[p], e->arena_bytes[p]);
        printf("}");
    }
    printf("],\n");
    kt_moe_close(op);
    free(rows);
}

static uint64_t hash(uint64_t h, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * UINT64_C(1099511628211);
    return h;
}

/* One answer, greedy, at most n tokens. */
static void generate(kt_engine *e, const char *model, uint32_t n)
{
    const kt_chat_message ask = {"user", "What is the capital of France?"};
    kt_tokenizer *tok;
    kt_engine_info info;
    kt_seq *s;
    kt_err err = {0};
    int32_t ids[256];
    size_t have;
    uint64_t h = UINT64_C(14695981039346656037);
    kt_engine_get_info(e, &info);
    float *logits = calloc(info.vocab, sizeof *logits);
    if (logits == NULL || kt_tokenizer_open(model, NULL, &tok, &err) != KT_OK ||
        kt_chat_encode(tok, &ask, 1, true, ids, 256, &have, &err) != KT_OK ||
        kt_seq_open(e, (uint32_t)have + n, &s, &err) != KT_OK)
        die("generation", &err);
    printf("\"tokens\": [");
    for (uint32_t i = 0; i < n; i++) {
        kt_batch_item it = {.seq = s, .ids = ids, .n = (uint32_t)have, .logits = logits};
        if (kt_step(e, &it, 1, &err) != KT_OK || it.result != KT_OK)
            die("step", &err);
        h = hash(h, logits, info.vocab * sizeof *logits);
        int32_t best = 0;
        for (uint32_t v = 1; v < info.vocab; v++)
            if (logits[v] > logits[best])
                best = (int32_t)v;
        printf("%s%d", i > 0 ? ", " : "", best);
        ids[0] = best;
        have = 1;
        if (kt_token_is_eos(tok, best))
            break;
    }
    printf("],\n\"logits_hash\": \"%016" PRIx64 "\",\n", h);
    kt_seq_close(s);
    kt_tokenizer_close(tok);
    free(logits);
}

int main(int argc, char **argv)
{
    kt_engine_opts o;
    kt_engine *e;
    kt_err err = {0};
    if (argc < 2) {
        fprintf(stderr, "usage: numa_facts MODEL [TOKENS [PAGES]]\n");
        return 64;
    }
    kt_log_sink(log_line, NULL);
    kt_engine_opts_init(&o);
    o.model_path = argv[1];
    o.ctx_tokens = 256;
    o.max_seqs = 4;
    o.batch_tokens = 64;
    o.pages = argc > 3 ? argv[3] : NULL;
    if (kt_engine_open(&o, &e, &err) != KT_OK)
        die("open", &err);
    printf("{\"kernels\": \"%s\",\n", kern_isa_level_name(e->isa));
    print_pools(e);
    print_threads();
    generate(e, argv[1], argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 16);
    print_shared(e);
    print_library(e, "library");
    if (e->n_pools > 1 && o.pages == NULL)
        spoil(e);
    kt_engine_close(e);
    if (o.pages == NULL)
        print_operator();
    printf("\"end\": true}\n");
    return 0;
}
