/* check_vec.c - every row of the vector ops against its ref row, bit for bit (a NaN equals a NaN):
 * part of checkkern.
 *
 * An op is described by its arrays (slots). Each case fills them twice with the same values: a
 * guarded set for the row, whose arrays end at inaccessible pages and begin behind poison, and a
 * plain set for ref; afterwards all slots must agree, so inputs must be unchanged too. Values are
 * ordinary, of any exponent, or special ones (zeros, subnormals, infinities, NaN, thresholds of the
 * definitions). Attention is in check_attn.c. One thread.
 */
#include "check_vec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fp.h"
#include "base/mem.h"

enum { SLOTS = 4, FRONT = 64 };

/* kind: f fp32, b int8, i int32, l int64; elements num * n / den */
struct slot {
    char kind;
    bool out;         /* not filled */
    uint8_t num, den; /* num 0: one element */
};
struct shape {
    enum kern_op op;
    struct slot slot[SLOTS];
    int n_alias;
    struct {
        uint8_t out, in; /* slot `out` may be slot `in` */
    } alias[2];
};

static const struct shape shapes[] = {
    {KERN_QUANT_ACT,
     {{'f', false, 1, 1}, {'b', true, 1, 1}, {'f', true, 1, 32}, {'i', true, 1, 32}},
     0,
     {{0}}},
    {KERN_QUANT_ROW,
     {{'f', false, 1, 1}, {'b', true, 1, 1}, {'f', true, 0, 1}, {'i', true, 0, 1}},
     0,
     {{0}}},
    {KERN_RMSNORM, {{'f', false, 1, 1}, {'f', false, 1, 1}, {'f', true, 1, 1}}, 1, {{2, 0}}},
    {KERN_SWIGLU, {{'f', false, 1, 1}, {'f', false, 1, 1}, {'f', true, 1, 1}}, 2, {{2, 0}, {2, 1}}},
    {KERN_ADD, {{'f', false, 1, 1}, {'f', false, 1, 1}}, 0, {{0}}},
    {KERN_EXP, {{'f', false, 1, 1}, {'f', true, 1, 1}}, 1, {{1, 0}}},
    {KERN_ROPE, {{'f', false, 2, 1}, {'f', false, 1, 1}, {'f', false, 1, 1}}, 0, {{0}}},
    {KERN_MOE_ADD, {{'l', false, 1, 1}, {'f', false, 1, 1}}, 0, {{0}}},
    {KERN_MOE_DONE, {{'l', false, 1, 1}, {'f', false, 1, 1}}, 0, {{0}}},
};

static bool is_quant(enum kern_op op)
{
    return op == KERN_QUANT_ACT || op == KERN_QUANT_ROW;
}

/* One call: where the slots are, and the scalars. */
struct call {
    void *p[SLOTS];
    uint32_t n;
    float f;
    bool flag, answer;
};

static void invoke(const struct kern *k, struct call *c)
{
    void **p = c->p;
    c->answer = true;
    switch (k->op) {
    case KERN_QUANT_ACT:
    case KERN_QUANT_ROW:
        c->answer = k->run.quant(p[0], c->n, p[1], p[2], p[3]);
        break;
    case KERN_RMSNORM:
        k->run.rmsnorm(p[0], p[1], c->n, c->f, p[2]);
        break;
    case KERN_SWIGLU:
        k->run.swiglu(p[0], p[1], c->n, p[2]);
        break;
    case KERN_ADD:
        k->run.add(p[0], p[1], c->n);
        break;
    case KERN_EXP:
        k->run.vexp(p[0], c->f, c->n, p[1]);
        break;
    case KERN_ROPE:
        k->run.rope(p[0], p[1], p[2], c->n, c->flag);
        break;
    case KERN_MOE_ADD:
        c->answer = k->run.moe_add(p[0], p[1], c->f, c->n);
        break;
    default:
        k->run.moe_done(p[0], p[1], c->n);
        break;
    }
}

static int guarded(const struct kern *k, struct call *c)
{
    volatile int sig = sigsetjmp(check_trap, 1);
    if (sig == 0) {
        check_armed = true;
        invoke(k, c);
        check_armed = false;
    }
    return sig;
}

/* ---- values ---- */

float check_float(struct check_rng *r, int mode)
{
    static const float special[] = {0.0f,           -0.0f,
                                    0x1p-149f,      -0x1p-149f,
                                    0x1p-126f,      -0x1.fffffcp-127f,
                                    3.4028235e38f,  -3.4028235e38f,
                                    1.0f,           -1.0f,
                                    0x1p-100f,      0x1.fffffep-101f,
                                    88.0f,          -88.0f,
                                    87.0f,          -87.0f,
                                    -87.00001f,     88.00001f,
                                    0x1p19f,        -0x1p19f,
                                    0x1p31f,        -0x1p31f,
                                    0x1.fffffep30f, 0.5f,
                                    0x1p-33f,       0x1.8p-32f,
                                    2.5f,           104.0f,
                                    -104.0f,        INFINITY,
                                    -INFINITY,      NAN};
    const uint32_t n = sizeof special / sizeof special[0];
    if (mode == 0)
        return check_normal(r);
    if (mode == 1)
        return check_normal(r) * 40.0f;
    if (mode == 2) /* any finite exponent */
        return fp_from_bits((uint32_t)(check_u64(r) & 0x807fffff) | check_below(r, 255) << 23);
    return special[check_below(r, mode == 3 ? n - 3 : n)];
}

static int64_t some_fixed(struct check_rng *r)
{
    const uint32_t kind = check_below(r, 8);
    if (kind == 0)
        return INT64_MAX - (int64_t)check_below(r, 3);
    if (kind == 1)
        return INT64_MIN + (int64_t)check_below(r, 3);
    return (int64_t)check_u64(r) >> check_below(r, 64);
}

static size_t kind_bytes(char kind)
{
    return kind == 'b' ? 1 : kind == 'l' ? 8 : 4;
}

static void fill(struct check_rng *r, char kind, void *p, size_t n, int mode)
{
    for (size_t i = 0; i < n; i++) {
        /* special values are rare among ordinary ones in half of their cases, so that rows still
         * compute something */
        float f = check_float(r, mode >= 3 && check_below(r, 2) ? 0 : mode);
        if (kind == 'f')
            memcpy((float *)p + i, &f, 4);
        else
            ((int64_t *)p)[i] = some_fixed(r);
    }
}

/* Index of the first difference, n if none. */
size_t check_differs(char kind, const void *a, const void *b, size_t n)
{
    const size_t w = kind_bytes(kind);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *x = (const uint8_t *)a + i * w, *y = (const uint8_t *)b + i * w;
        if (memcmp(x, y, w) != 0 &&
            !(kind == 'f' && isnan(fp_from_bits(load_u32(x))) && isnan(fp_from_bits(load_u32(y)))))
            return i;
    }
    return n;
}

/* ---- element ops ---- */

struct sets {
    struct check_buf row[SLOTS]; /* FRONT bytes of poison, then the slot */
    void *ref[SLOTS];
    size_t n[SLOTS];
};

static void close_sets(struct sets *s)
{
    for (int i = 0; i < SLOTS; i++) {
        check_buf_close(&s->row[i]);
        mem_free(s->ref[i]);
    }
}

static bool open_sets(struct sets *s, const struct shape *h, struct check_rng *r, uint32_t n,
                      int mode)
{
    for (int i = 0; i < SLOTS && h->slot[i].kind != 0; i++) {
        const struct slot *t = &h->slot[i];
        const size_t w = kind_bytes(t->kind);
        s->n[i] = t->num > 0 ? (size_t)n * t->num / t->den : 1;
        s->ref[i] = mem_alloc(s->n[i] * w);
        if (!check_buf_open(&s->row[i], FRONT + s->n[i] * w, w) || s->ref[i] == NULL)
            return false;
        if (!t->out)
            fill(r, t->kind, s->row[i].p + FRONT, s->n[i], mode);
        memcpy(s->ref[i], s->row[i].p + FRONT, s->n[i] * w);
    }
    return true;
}

static const char *compare(const struct check_opts *o, const struct kern *k, const struct shape *h,
                           struct sets *s, const struct call *a, const struct call *b)
{
    static char what[160];
    const char *kind = "";
    bool flipped = false;
    if (a->answer != b->answer) {
        snprintf(what, sizeof what, "n %u: answered %d, expected %d", a->n, a->answer, b->answer);
        return what;
    }
    if (!a->answer && is_quant(k->op))
        return NULL; /* outputs are undefined */
    for (int i = 0; i < SLOTS && h->slot[i].kind != 0; i++) {
        const char t = h->slot[i].kind;
        uint8_t *p = s->row[i].p + FRONT;
        if (!flipped && (h->slot[i].out || h->op == KERN_ADD || h->op == KERN_ROPE ||
                         h->op == KERN_MOE_ADD || h->op == KERN_MOE_DONE)) {
            check_break(o, k, p, s->n[i] * kind_bytes(t));
            flipped = true;
        }
        const size_t at = check_differs(t, p, s->ref[i], s->n[i]);
        if (at < s->n[i])
            kind = "differs from ref";
        else if (!check_is_poison(s->row[i].p, FRONT))
            kind = "has something written before it";
        else
            continue;
        snprintf(what, sizeof what, "n %u flag %d f %a: array %d %s, element %zu", a->n, a->flag,
                 (double)a->f, i, kind, at);
        return what;
    }
    return NULL;
}

static const char *one(const struct check_opts *o, const struct kern *k, const struct shape *h,
                       struct check_rng *r, uint32_t n)
{
    static char what[80];
    const struct kern *ref = kern_find(k->op, -1, 0, NULL);
    const int mode = (int)check_below(r, is_quant(k->op) ? 4 : 5);
    struct sets s = {0};
    const char *bad = "no memory";
    if (open_sets(&s, h, r, n, mode)) {
        struct call a = {.n = n,
                         .f = k->op == KERN_RMSNORM ? 1e-6f
                              : check_below(r, 4)   ? check_normal(r)
                                                    : check_float(r, mode),
                         .flag = check_below(r, 2)};
        struct call b = a;
        for (int i = 0; i < SLOTS; i++)
            a.p[i] = s.row[i].p + FRONT, b.p[i] = s.ref[i];
        const uint32_t alias = check_below(r, (uint32_t)h->n_alias + 1);
        if (alias > 0) {
            a.p[h->alias[alias - 1].out] = a.p[h->alias[alias - 1].in];
            b.p[h->alias[alias - 1].out] = b.p[h->alias[alias - 1].in];
        }
        invoke(ref, &b);
        const int sig = guarded(k, &a);
        if (sig != 0)
            snprintf(what, sizeof what, "signal %d at n %u", sig, n);
        bad = sig != 0 ? what : compare(o, k, h, &s, &a, &b);
    }
    close_sets(&s);
    return bad;
}

static int check_elements(const struct check_opts *o, const struct kern *k, const struct shape *h)
{
    static const uint32_t sizes[] = {1,  2,  3,  4,   5,   7,   8,   9,   11,  12, 15,
                                     16, 17, 20, 23,  24,  31,  32,  33,  47,  48, 63,
                                     64, 65, 80, 100, 128, 129, 511, 768, 2048};
    struct check_rng r = {o->seed};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        for (int turn = 0; turn < 24; turn++) {
            const uint32_t n = is_quant(k->op) ? (sizes[i] + 31) / 32 * 32 : sizes[i];
            const char *what = one(o, k, h, &r, n);
            if (what != NULL)
                return check_row(o, k, what);
        }
    return check_row(o, k, NULL);
}

int check_vec(const struct check_opts *o)
{
    size_t n;
    const struct kern *const *t = kern_table(&n);
    int bad = 0;
    if (o->bench && !o->list)
        return check_vec_bench(o);
    for (size_t i = 0; i < n; i++) {
        if (t[i]->op == KERN_GEMV || t[i]->op == KERN_GEMM || !check_wants(o, t[i]))
            continue;
        if (t[i]->op == KERN_ATTN || t[i]->op == KERN_ATTN_JOIN)
            bad |= check_attn(o, t[i]);
        for (size_t h = 0; h < sizeof shapes / sizeof shapes[0]; h++)
            if (shapes[h].op == t[i]->op)
                bad |= check_elements(o, t[i], &shapes[h]);
    }
    return bad;
}
