/* check_attn.c - attention of every ISA against ref, bit for bit (a NaN equals a NaN): part of
 * checkkern.
 *
 * A case is some heads at some positions of one sequence over pages of one KV type. Keys that no
 * position sees are NaN, so one that counts is seen; planes, queries, part, scratch and output end
 * at inaccessible pages, and the pointers of pages past the last key do not exist. The row under
 * test runs its blocks in two calls, in any order, split anywhere: that must not matter; then the
 * join of the same ISA. A join's row is the same with fewer cases. One thread.
 */
#include "check_vec.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fp.h"
#include "base/mem.h"

enum { FRONT = 64, MAX_PAGES = 16, MAX_POS = 12 };

struct attn_case {
    uint32_t dim, n_q, n_pos, n_keys; /* n_keys: of the last position */
    uint32_t pos[MAX_POS];
    enum kern_kv kv;
    size_t ldq, ldo;
    struct check_buf q, out, part, scratch, posbuf, kptr, vptr, k[MAX_PAGES], v[MAX_PAGES];
    float *want;
    void *ref_part, *ref_scratch;
};

static void close_case(struct attn_case *c)
{
    struct check_buf *all[] = {&c->q,      &c->out,  &c->part, &c->scratch,
                               &c->posbuf, &c->kptr, &c->vptr};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        check_buf_close(all[i]);
    for (int i = 0; i < MAX_PAGES; i++) {
        check_buf_close(&c->k[i]);
        check_buf_close(&c->v[i]);
    }
    mem_free(c->want);
    mem_free(c->ref_part);
    mem_free(c->ref_scratch);
}

/* Element i of a plane of floats. */
static void put(const struct attn_case *c, void *plane, size_t i, float x)
{
    const uint16_t h = f32_to_bf16(x);
    if (c->kv == KERN_KV_BF16)
        memcpy((uint16_t *)plane + i, &h, 2);
    else
        memcpy((float *)plane + i, &x, 4);
}

/* Any codes, also where the last dims are filled up, and the scales of 64 places. */
static void fill_codes(const struct attn_case *c, struct check_rng *r, uint32_t page, int mode,
                       float size)
{
    const size_t n = kern_kv_scales_at(c->dim);
    for (size_t i = 0; i < n; i++) {
        c->k[page].p[i] = (uint8_t)(check_below(r, 255) + 1);
        c->v[page].p[i] = (uint8_t)(check_below(r, 255) - 127);
    }
    for (uint32_t j = 0; j < KERN_KV_PAGE; j++) {
        const bool seen = page * KERN_KV_PAGE + j < c->n_keys;
        const float k = seen ? check_float(r, mode) * size : NAN, /* values': as they are written */
            v = seen ? fminf(fabsf(check_float(r, mode)), FLT_MAX) : NAN;
        memcpy(c->k[page].p + n + 4 * j, &k, sizeof k);
        memcpy(c->v[page].p + n + 4 * j, &v, sizeof v);
    }
}

static void fill_page(const struct attn_case *c, struct check_rng *r, uint32_t page, int mode,
                      float size)
{
    if (c->kv == KERN_KV_INT8) {
        fill_codes(c, r, page, mode, size);
        return;
    }
    for (uint32_t j = 0; j < KERN_KV_PAGE; j++)
        for (uint32_t d = 0; d < c->dim; d++) {
            const bool seen = page * KERN_KV_PAGE + j < c->n_keys;
            put(c, c->k[page].p, (size_t)d * KERN_KV_PAGE + j,
                seen ? check_float(r, mode) * size : NAN);
            put(c, c->v[page].p, (size_t)j * c->dim + d, seen ? check_float(r, mode) : NAN);
        }
}

static bool open_case(struct attn_case *c, struct check_rng *r)
{
    const uint32_t pages = (c->n_keys + KERN_KV_PAGE - 1) / KERN_KV_PAGE, rows = c->n_pos * c->n_q;
    const size_t page_bytes = kern_kv_plane_bytes(c->kv, c->dim),
                 part = kern_attn_part_bytes(rows, c->dim, c->n_keys),
                 scratch = kern_attn_scratch_bytes(rows, c->dim),
                 q = (c->n_pos - 1) * c->ldq + (size_t)c->n_q * c->dim,
                 out = (c->n_pos - 1) * c->ldo + (size_t)c->n_q * c->dim;
    const int mode = (int)check_below(r, 3);
    const float size = check_below(r, 3) ? 1.0f : 0x1p-20f;
    bool ok = check_buf_open(&c->q, q * 4, 4) && check_buf_open(&c->out, FRONT + out * 4, 4) &&
              check_buf_open(&c->part, part, 64) && check_buf_open(&c->scratch, scratch, 64) &&
              check_buf_open(&c->posbuf, c->n_pos * 4, 4) &&
              check_buf_open(&c->kptr, pages * sizeof(void *), sizeof(void *)) &&
              check_buf_open(&c->vptr, pages * sizeof(void *), sizeof(void *));
    c->want = mem_alloc(out * 4);
    c->ref_part = mem_aligned(64, part);
    c->ref_scratch = mem_aligned(64, scratch);
    for (uint32_t g = 0; ok && g < pages; g++)
        ok = check_buf_open(&c->k[g], page_bytes, 64) && check_buf_open(&c->v[g], page_bytes, 64);
    if (!ok || c->want == NULL || c->ref_part == NULL || c->ref_scratch == NULL)
        return false;
    memset(c->scratch.p, 0xff, scratch); /* NaN */
    memset(c->part.p, 0xff, part);
    memcpy(c->posbuf.p, c->pos, c->n_pos * 4);
    memcpy(c->want, c->out.p + FRONT, out * 4); /* what no row owns stays poison */
    for (size_t i = 0; i < q; i++) {
        const float x = check_float(r, mode == 2 ? 0 : mode);
        memcpy(c->q.p + i * 4, &x, 4);
    }
    if (c->kv == KERN_KV_INT8 && check_below(r, 4) == 0) { /* one row is not finite or only zeros */
        const float odd[] = {NAN, INFINITY, 0.0f, 0x1p-120f};
        const uint32_t kind = check_below(r, 4), d = check_below(r, c->dim);
        float *row = (float *)(void *)c->q.p + (size_t)check_below(r, c->n_q) * c->dim;
        for (uint32_t i = kind < 2 ? d : 0; i < (kind < 2 ? d + 1 : c->dim); i++)
            row[i] = odd[kind];
    }
    for (uint32_t g = 0; g < pages; g++) {
        fill_page(c, r, g, mode, size);
        ((const void **)c->kptr.p)[g] = c->k[g].p;
        ((const void **)c->vptr.p)[g] = c->v[g].p;
    }
    return true;
}

static int guarded(const struct kern *k, const struct kern_attn *a)
{
    volatile int sig = sigsetjmp(check_trap, 1);
    if (sig == 0) {
        check_armed = true;
        k->run.attn(a);
        check_armed = false;
    }
    return sig;
}

/* Blocks in two calls, the later ones first in half of the cases; then the join. */
static int run(const struct kern *k, const struct kern *join, struct kern_attn a, uint32_t cut,
               bool swap)
{
    for (int turn = 0; turn < 2; turn++) {
        const bool late = (turn == 1) != swap;
        a.block0 = late ? cut : 0;
        a.block1 = late ? UINT32_MAX : cut;
        const int sig = guarded(k, &a);
        if (sig != 0)
            return sig;
    }
    a.scratch = NULL;
    return guarded(join, &a);
}

static const char *attend(const struct check_opts *o, const struct kern *k, struct check_rng *r,
                          struct attn_case *c)
{
    static char what[200];
    const struct kern *ref = kern_find(KERN_ATTN, -1, 0, NULL),
                      *ref_join = kern_find(KERN_ATTN_JOIN, -1, 0, NULL),
                      *attn = kern_find(KERN_ATTN, -1, k->isa, NULL),
                      *join = kern_find(KERN_ATTN_JOIN, -1, k->isa, NULL);
    if (!open_case(c, r))
        return "no memory";
    struct kern_attn a = {
        .q = (const float *)c->q.p,
        .out = c->want,
        .ldq = c->ldq,
        .ldo = c->ldo,
        .pos = c->pos,
        .n_pos = c->n_pos,
        .n_q = c->n_q,
        .dim = c->dim,
        .block1 = UINT32_MAX,
        .kv = c->kv,
        .kpage = (const void *const *)c->kptr.p,
        .vpage = (const void *const *)c->vptr.p,
        .scale = (float)(1 / sqrt(c->dim)),
        .part = c->ref_part,
        .scratch = c->ref_scratch,
    };
    const size_t n = (c->n_pos - 1) * c->ldo + (size_t)c->n_q * c->dim;
    const uint32_t cut = check_below(r, (c->n_keys - 1) / KERN_KV_BLOCK + 2);
    ref->run.attn(&a);
    ref_join->run.attn(&a);
    a.out = (float *)(c->out.p + FRONT), a.part = c->part.p, a.scratch = c->scratch.p;
    a.pos = (const uint32_t *)c->posbuf.p;
    const int sig = run(attn, join, a, cut, check_below(r, 2));
    if (sig == 0)
        check_break(o, k, a.out, n * 4);
    const size_t at = sig == 0 ? check_differs('f', a.out, c->want, n) : 0;
    if (sig == 0 && at == n && check_is_poison(c->out.p, FRONT))
        return NULL;
    snprintf(what, sizeof what, "dim %u n_q %u positions %u..%u (%u) %s cut %u: ", c->dim, c->n_q,
             c->pos[0], c->pos[c->n_pos - 1], c->n_pos, kern_kv_name(c->kv), cut);
    const size_t len = strlen(what);
    if (sig != 0)
        snprintf(what + len, sizeof what - len, "signal %d", sig);
    else if (at < n)
        snprintf(what + len, sizeof what - len, "element %zu is %a, expected %a", at,
                 (double)a.out[at], (double)c->want[at]);
    else
        snprintf(what + len, sizeof what - len, "something is written before the output");
    return what;
}

/* Positions: consecutive in most cases, as in a prompt; with gaps in the others. */
static void choose(struct attn_case *c, struct check_rng *r, uint32_t first)
{
    c->n_pos = check_below(r, 3) ? 1 + check_below(r, MAX_POS) : 1;
    c->pos[0] = first;
    for (uint32_t i = 1; i < c->n_pos; i++)
        c->pos[i] = c->pos[i - 1] + (check_below(r, 6) ? 1 : check_below(r, 20));
    while (c->pos[c->n_pos - 1] >= MAX_PAGES * KERN_KV_PAGE)
        c->n_pos--;
    c->n_keys = c->pos[c->n_pos - 1] + 1;
    c->ldq = (size_t)c->n_q * c->dim + check_below(r, 3) * 5;
    c->ldo = (size_t)c->n_q * c->dim + check_below(r, 3) * 3;
}

int check_attn(const struct check_opts *o, const struct kern *k)
{
    static const uint32_t dims[] = {2, 16, 18, 32, 34, 64, 80, 96, 128};
    static const uint32_t first[] = {0,   1,   7,   14,  15,  16,  62,  63,  64, 129,
                                     191, 254, 255, 256, 299, 511, 512, 699, 999};
    struct check_rng r = {o->seed};
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++)
        for (uint32_t n_q = 1; n_q <= 16; n_q += k->op == KERN_ATTN ? 1 : 5)
            for (int kv = 0; kv < KERN_KV_COUNT; kv++) {
                /* long ones seldom: ref is slow */
                const uint32_t pick = check_below(&r, dims[d] > 32 && check_below(&r, 5) ? 8 : 19);
                struct attn_case c = {.dim = dims[d], .n_q = n_q, .kv = (enum kern_kv)kv};
                choose(&c, &r, first[pick]);
                const char *what = attend(o, k, &r, &c);
                close_case(&c);
                if (what != NULL)
                    return check_row(o, k, what);
            }
    return check_row(o, k, NULL);
}
