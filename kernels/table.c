/* table.c - collects the per-ISA tables into one and answers look-ups. Immutable; built on the
 * first call, which must happen before threads start or be guarded by the caller (kern_table is
 * called by kt_engine_open and by programs at start). */
#include "kern.h"

#include <stdio.h>
#include <string.h>

#include "base/sha256.h"
#include "config.h"
#include "tables.h"

#define MAX_ROWS 512

static const struct kern *rows[MAX_ROWS];
static size_t n_rows;

static void take(const struct kern *t, size_t n)
{
    for (size_t i = 0; i < n && n_rows < MAX_ROWS; i++)
        rows[n_rows++] = &t[i];
}

const struct kern *const *kern_table(size_t *n)
{
    if (n_rows == 0) {
        size_t c;
        const struct kern *t;
        t = kern_ref_mm(&c), take(t, c);
        t = kern_ref_vec(&c), take(t, c);
#if KT_HAVE_AVX2
        t = kern_avx2_mm(&c), take(t, c);
        t = kern_avx2_gemm(&c), take(t, c);
        t = kern_avx2_plain(&c), take(t, c);
        t = kern_avx2_fp8(&c), take(t, c);
        t = kern_avx2_i8(&c), take(t, c);
        t = kern_avx2_vec(&c), take(t, c);
#endif
#if KT_HAVE_AVXVNNI
        t = kern_avxvnni_mm(&c), take(t, c);
        t = kern_avxvnni_gemm(&c), take(t, c);
        t = kern_avxvnni_i8(&c), take(t, c);
#endif
#if KT_HAVE_AVX512
        t = kern_avx512_mm(&c), take(t, c);
        t = kern_avx512_gemm(&c), take(t, c);
        t = kern_avx512_plain(&c), take(t, c);
        t = kern_avx512_fp8(&c), take(t, c);
        t = kern_avx512_i8(&c), take(t, c);
        t = kern_avx512_vec(&c), take(t, c);
#endif
#if KT_HAVE_AVX512VNNI
        t = kern_avx512vnni_mm(&c), take(t, c);
        t = kern_avx512vnni_gemm(&c), take(t, c);
        t = kern_avx512vnni_i8(&c), take(t, c);
        t = kern_avx512vnni_vec(&c), take(t, c);
#endif
#if KT_HAVE_AVX512BF16
        t = kern_avx512bf16_mm(&c), take(t, c);
#endif
#if KT_HAVE_AMX
        t = kern_amx_gemm(&c), take(t, c);
        t = kern_amx_i8(&c), take(t, c);
        t = kern_amx_bf16(&c), take(t, c);
#endif
    }
    *n = n_rows;
    return rows;
}

const struct kern *kern_find(enum kern_op op, int dtype, uint32_t isa, const struct kern_shape *s)
{
    size_t n;
    const struct kern *const *t = kern_table(&n), *best = NULL;
    for (size_t i = 0; i < n; i++)
        if (t[i]->op == op && t[i]->dtype == dtype && (t[i]->isa & ~isa) == 0 &&
            (s == NULL || t[i]->fits == NULL || t[i]->fits(s)))
            if (best == NULL || t[i]->rank > best->rank)
                best = t[i];
    return best;
}

const struct kern *kern_by_name(const char *name)
{
    size_t n;
    const struct kern *const *t = kern_table(&n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(t[i]->name, name) == 0)
            return t[i];
    return NULL;
}

const char *kern_variant(const struct kern *k)
{
    const char *last = strrchr(k->name, '_');
    return last != NULL ? last + 1 : k->name;
}

const struct kern *kern_find_variant(enum kern_op op, int dtype, uint32_t isa,
                                     const struct kern_shape *s, const char *variant)
{
    size_t n;
    const struct kern *const *t = kern_table(&n), *best = kern_find(op, dtype, isa, s);
    for (size_t i = 0; best != NULL && i < n; i++)
        if (t[i]->op == op && t[i]->dtype == dtype && (t[i]->isa & ~isa) == 0 &&
            t[i]->layout == best->layout && (s == NULL || t[i]->fits == NULL || t[i]->fits(s)) &&
            strcmp(kern_variant(t[i]), variant) == 0)
            return t[i];
    return best;
}

enum kern_layout kern_layout_for(int dtype, uint32_t isa)
{
    const struct kern *k = kern_find(KERN_GEMV, dtype, isa, NULL);
    return k != NULL ? k->layout : KERN_ROWS;
}

enum kern_act kern_act_of(enum dtype t)
{
    return t == DT_INT8                     ? KERN_ACT_ROW
           : dtype_info(t)->block_elems > 1 ? KERN_ACT_Q8
                                            : KERN_ACT_F32;
}

bool kern_has_dtype(int dtype)
{
    return kern_find(KERN_GEMV, dtype, 0, NULL) != NULL;
}

void kern_abi(char out[17])
{
    size_t n;
    const struct kern *const *t = kern_table(&n);
    struct sha256 h;
    uint8_t d[32];
    sha256_init(&h);
    sha256_update(&h, PACKAGE_VERSION, strlen(PACKAGE_VERSION));
    sha256_update(&h, __VERSION__, strlen(__VERSION__));
    for (size_t i = 0; i < n; i++)
        sha256_update(&h, t[i]->name, strlen(t[i]->name) + 1);
    sha256_final(&h, d);
    for (int i = 0; i < 8; i++)
        snprintf(out + 2 * i, 3, "%02x", d[i]);
}
