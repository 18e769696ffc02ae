/* kern.h - the kernel table: what every variant computes, on which layout, and how a caller finds
 * one.
 *
 * A variant is a row of a const table {name, op, dtype, layout, isa, tile, fits, rank, run}. ref/
 * has every op in plain C and is the oracle; avx2/ and avx512/ reproduce its bits exactly
 * (canonical arithmetic, docs/ARCHITECTURE.md). Kernels never allocate, lock, log or know a model;
 * they are pure functions of their arguments and may run on any thread.
 *
 * Weights. A matrix [rows][k] (row-major, one row per output) is packed by rows. Two layouts exist:
 *   KERN_ROWS  the file's rows as they are (ref only).
 *   KERN_P16   panels of 16 rows, lanes are rows; the last panel is padded with rows of zero bytes
 * (scale 0). Panels are contiguous, each kern_panel_bytes() long, so a range of panels is a range
 * of memory. Panel starts are 64-byte aligned when the part's base is and kern_panel_bytes is
 * rounded up to 64. Reading past a panel's end never happens except by prefetch. A part (what one
 * NUMA pool owns) is a whole number of panels, except that the matrix' last part may end in a
 * padded one.
 *
 * Activations. For block formats a token's row x[k] is quantised once (KERN_QUANT_ACT): int8 codes,
 * one fp32 scale and one int32 code sum per group of 32. INT8 per row takes the same with one group
 * for the whole row (KERN_QUANT_ROW). For F32, F16, BF16 and FP8 weights the fp32 row itself is
 * used. kern_act_of() says which. k % 32 == 0 where activations are quantised, any k >= 1
 * otherwise.
 */
#ifndef KT_KERN_H
#define KT_KERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"

/* ISA levels as bits; a variant lists exactly what it needs. */
enum {
    KERN_ISA_AVX2 = 1 << 0,   /* AVX2 + FMA + F16C */
    KERN_ISA_AVX512 = 1 << 1, /* F, BW, DQ, VL */
    KERN_ISA_AVX512VNNI = 1 << 2,
    KERN_ISA_AVX512BF16 = 1 << 3,
    KERN_ISA_AVXVNNI = 1 << 4,
    KERN_ISA_AMX = 1 << 5, /* INT8 and BF16 tiles, permission granted */
    /* Not an ISA: the user's permission to round activations to BF16. Rows that need it give other
     * bits than ref/; no CPU has the bit, so nothing picks them unasked. */
    KERN_FAST_BF16 = 1 << 16,
};
/* Masks of the named levels of --cpu-mask: "ref" 0, "avx2", "avxvnni", "avx512", "avx512vnni",
 * "amx" (all below included). -1 for another name. */
int kern_isa_by_name(const char *name);
/* CPUID, XCR0 and (for AMX) permission of the running CPU, as a mask of the bits above. No
 * self-test: that is tuner's. */
uint32_t kern_isa_host(void);
/* Name of the highest named level inside a mask: "amx", "avx512vnni", "avx512", "avx2" or "ref". */
const char *kern_isa_level_name(uint32_t mask);

enum kern_layout { KERN_ROWS, KERN_P16 };

/* The form of activations that a weight type is multiplied with. */
enum kern_act { KERN_ACT_F32, KERN_ACT_Q8, KERN_ACT_ROW };
#define KERN_PANEL 16       /* rows of a panel */
#define KERN_GROUP 32       /* elements under one activation scale */
#define KERN_SEGMENT 512    /* elements of a segment of the canonical row sum */
#define KERN_ROW_MAX 131072 /* columns of INT8 per row: 128 * 127 * columns fits int32 */
#define KERN_KV_PAGE 64     /* positions of a KV page */
#define KERN_KV_BLOCK 256   /* positions of a canonical attention block */

enum kern_op {
    KERN_GEMV, /* few tokens: streams weights, run.mm */
    KERN_GEMM, /* many tokens: decodes a block once for a tile of tokens, run.mm. Same arguments and
                  bits as GEMV */
    KERN_QUANT_ACT, /* run.quant */
    KERN_QUANT_ROW, /* run.quant, one group per row: scale and sum are single numbers */
    KERN_RMSNORM,   /* run.rmsnorm */
    KERN_SWIGLU,    /* run.swiglu */
    KERN_ADD,       /* run.add */
    KERN_EXP,       /* run.vexp */
    KERN_ROPE,      /* run.rope */
    KERN_ATTN,      /* run.attn */
    KERN_ATTN_JOIN, /* run.attn */
    KERN_MOE_ADD,   /* run.moe_add */
    KERN_MOE_DONE,  /* run.moe_done */
    KERN_OP_COUNT
};

/* Arguments of GEMV and GEMM: y[i][r] = sum over k of W[r][k] * x[tok ? tok[i] : i][k] in canonical
 * order, for r in [row0, row1), i < n. */
struct kern_mm {
    const void *w; /* the part's packed rows; row 0 of the part is its first */
    uint32_t k;    /* columns */
    uint32_t row0,
        row1;   /* rows of the part to compute; row0 % 16 == 0; row1 may be the part's odd end */
    uint32_t n; /* tokens, >= 1 */
    const uint32_t *tok; /* [n] indices of activation rows, or NULL for 0..n-1 */
    const int8_t *q;     /* block formats: codes [..][ldq], 64-byte aligned base */
    const float *scale;  /* block formats: [..][ldg], one per group of 32; INT8 per row: one */
    const int32_t *sum;  /* the same, sums of the groups' codes */
    const float *x;      /* plain formats: [..][ldx] */
    const uint16_t *b;   /* x rounded to BF16 (kern_round_bf16), a zero behind an odd last column:
                            [..][ldb], or NULL. For rows that need KERN_FAST_BF16 */
    size_t ldq, ldg, ldx, ldb; /* elements between activation rows */
    float *y; /* out [n][ldy]; element (i, r) at y[i * ldy + r]; rows outside [row0, row1) are not
                 written */
    size_t ldy;
    const void *next; /* packed rows that the caller multiplies after this, where it knows them, or
                         NULL. A GEMM may ask for their first bytes meanwhile; never read */
    const void *also; /* activations that come with them: the same */
    size_t also_bytes;
};
typedef void (*kern_mm_fn)(const struct kern_mm *a);

/* Quantise x[k], k % 32 == 0, to q[k], scale[k/32], sum[k/32] (weight-formats section 10). false if
 * any x is NaN or infinite (outputs undefined). */
typedef bool (*kern_quant_fn)(const float *x, uint32_t k, int8_t *q, float *scale, int32_t *sum);
/* y[i] = (x[i] * (1 / sqrt(dot16(x,x)/n + eps))) * w[i]. y may be x. */
typedef void (*kern_rmsnorm_fn)(const float *x, const float *w, uint32_t n, float eps, float *y);
/* y[i] = (g[i] / (1 + exp(-g[i]))) * u[i]. y may be g or u. */
typedef void (*kern_swiglu_fn)(const float *g, const float *u, uint32_t n, float *y);
/* y[i] = y[i] + x[i] */
typedef void (*kern_add_fn)(float *y, const float *x, uint32_t n);
/* y[i] = exp(fl32(x[i] - m)), canonical exp. y may be x. */
typedef void (*kern_exp_fn)(const float *x, float m, uint32_t n, float *y);
/* Rotate one head in place: pairs (i, i + half) for NeoX, (2i, 2i+1) interleaved; cos, sin [half].
 * a' = fma(a, cos, -fl32(b*sin)), b' = fma(b, cos, fl32(a*sin)). */
typedef void (*kern_rope_fn)(float *x, const float *cos, const float *sin, uint32_t half,
                             bool interleaved);
/* acc[i] += llrint(fl32(w * y[i]) * 2^32), saturating at the int64 range (each product and each
 * sum). false if a product is NaN or infinite; such products are left out. */
typedef bool (*kern_moe_add_fn)(int64_t *acc, const float *y, float w, uint32_t n);
/* x[i] = x[i] + fl32((double or exact)acc[i] rounded to fp32, times 2^-32); acc[i] = 0 */
typedef void (*kern_moe_done_fn)(int64_t *acc, float *x, uint32_t n);

/* How keys and values are kept. A page holds KERN_KV_PAGE positions of one kv head as two planes of
 * kern_kv_plane_bytes each, 64-byte aligned: keys transposed [dim][64] (lanes are keys), values
 * [64][dim]. F32: as they are. BF16: rounded to nearest even. INT8: per position and plane one
 * group of dim elements, quantised as activations are; for the dot instructions of bytes codes
 * of keys are stored plus 128 as [dim / 4][64][4], the last dims filled up with zero codes, and
 * those of values as [64 / 4][dim][4]; 64 fp32 scales, one per position, follow in both planes. */
enum kern_kv { KERN_KV_F32, KERN_KV_BF16, KERN_KV_INT8, KERN_KV_COUNT };
const char *kern_kv_name(enum kern_kv t); /* "f32", "bf16", "int8": also the option values */
int kern_kv_by_name(const char *name);    /* -1 for another name */
uint64_t kern_kv_plane_bytes(enum kern_kv t, uint32_t dim);
/* of an INT8 plane */
static inline size_t kern_kv_scales_at(uint32_t dim)
{
    return (size_t)KERN_KV_PAGE * ((dim + 3) & ~3u);
}
/* Write key and value [dim] of place `at` of a page. false: a NaN or an infinity that the type
 * cannot hold (INT8); zeros are stored then. */
bool kern_kv_write(enum kern_kv t, uint32_t dim, uint32_t at, const float *k, const float *v,
                   void *kplane, void *vplane);

/* Attention of n_q query heads that share one kv head, at n_pos query positions of one sequence;
 * position i sees keys 0..pos[i] (absolute positions). Page p covers positions 64p..64p+63;
 * kpage[p] and vpage[p] point at its planes. A row is a pair (position, head); what it gives does
 * not depend on the others of the call. KERN_ATTN       blocks [block0, block1) of 256 positions
 * (those past a row's last key are left out): s_j, m_b = max s_j, p_j = exp(s_j - m_b), l_b and
 * o_b with j ascending, into `part`; attn_ref.c has the formulas. Calls for different blocks may
 * run at once. INT8 keys: a NaN or an infinity in a row of q makes the row NaN. KERN_ATTN_JOIN
 * after all blocks: M = max m_b; l and o with b ascending and the factors exp(m_b - M); out = o /
 * l. Destroys part. Same ISA as the calls before. part: kern_attn_part_bytes(n_pos * n_q, dim, keys
 * of the last position); scratch (not used by the join): kern_attn_scratch_bytes(n_pos * n_q, dim),
 * one per running call; both 64-byte aligned. */
struct kern_attn {
    const float *q;      /* position i, head h at q + i * ldq + h * dim; rotated */
    float *out;          /* position i, head h at out + i * ldo + h * dim */
    size_t ldq, ldo;     /* elements between positions */
    const uint32_t *pos; /* [n_pos] ascending */
    uint32_t n_pos, n_q, dim;
    uint32_t block0, block1;
    enum kern_kv kv;
    const void *const *kpage;
    const void *const *vpage;
    float scale;
    void *part, *scratch;
};
typedef void (*kern_attn_fn)(const struct kern_attn *a);
size_t kern_attn_part_bytes(uint32_t rows, uint32_t dim, uint32_t n_keys);
size_t kern_attn_scratch_bytes(uint32_t rows, uint32_t dim);

struct kern_shape {
    uint32_t rows, k, n; /* matrices: rows, columns, tokens; others: n elements in k */
};

struct kern {
    const char *name; /* "gemv_mxfp4_q8_avx512vnni", "rmsnorm_f32_avx2" */
    enum kern_op op;
    int dtype; /* weight type of GEMV and GEMM; -1 otherwise */
    enum kern_layout layout;
    uint32_t isa;      /* bits that must all be present */
    uint16_t tok_tile; /* tokens per inner tile, 1 if not tiled. Of a GEMV: also up to how many
                          tokens it is the better choice, until that is measured */
    int rank;          /* static preference, higher is better */
    bool (*fits)(const struct kern_shape *s); /* NULL: always */
    union {
        kern_mm_fn mm;
        kern_quant_fn quant;
        kern_rmsnorm_fn rmsnorm;
        kern_swiglu_fn swiglu;
        kern_add_fn add;
        kern_exp_fn vexp;
        kern_rope_fn rope;
        kern_attn_fn attn;
        kern_moe_add_fn moe_add;
        kern_moe_done_fn moe_done;
    } run;
};

/* All rows that were built, whatever this CPU can do; *n is their number. */
const struct kern *const *kern_table(size_t *n);
/* Best row by rank for op, dtype (-1 where none) and shape (NULL: any) whose isa bits are inside
 * `isa`; NULL if none (only for dtypes without kernels). */
const struct kern *kern_find(enum kern_op op, int dtype, uint32_t isa, const struct kern_shape *s);
const struct kern *kern_by_name(const char *name);
/* The part of a row's name after the last '_', which says how it computes: "avx512vnni-x4". */
const char *kern_variant(const struct kern *k);
/* kern_find, but the row of this variant where it may run and reads the same layout. */
const struct kern *kern_find_variant(enum kern_op op, int dtype, uint32_t isa,
                                     const struct kern_shape *s, const char *variant);
/* Digest of the kernel table (names, versions, compiler): 16 hex digits and NUL. Part of every
 * tuning's key. */
void kern_abi(char out[17]);
/* Layout that the variants of an ISA mask share for a dtype: KERN_P16 as soon as any P16 row is
 * usable, else KERN_ROWS. */
enum kern_layout kern_layout_for(int dtype, uint32_t isa);

/* ---- packing ---- */
enum kern_act kern_act_of(enum dtype t);
/* k is a multiple of this. */
static inline uint32_t kern_row_unit(enum dtype t)
{
    return kern_act_of(t) == KERN_ACT_ROW ? KERN_GROUP : dtype_info(t)->block_elems;
}
/* Can this dtype be multiplied (GEMV/GEMM exist)? */
bool kern_has_dtype(int dtype);
/* Bytes of one panel of 16 rows (P16) or of 16 rows (ROWS); rows of k elements. 64-byte multiple
 * for P16. */
uint64_t kern_panel_bytes(enum kern_layout l, enum dtype t, uint32_t k);
/* Bytes of a part with `rows` rows. */
uint64_t kern_packed_bytes(enum kern_layout l, enum dtype t, uint32_t rows, uint32_t k);
/* n values to BF16, to nearest even; NaN stays one. */
void kern_round_bf16(const float *x, uint32_t n, uint16_t *out);
/* Pack rows [0, rows) from file form (contiguous rows of dtype_row_bytes) into dst. Returns -1, or
 * the index of the first row that holds a value the format forbids (NaN or infinite scale or
 * element, MXFP4 exponent 255). */
int64_t kern_pack(enum kern_layout l, enum dtype t, const void *src, uint32_t rows, uint32_t k,
                  void *dst);

/* ---- decoding and quantising rows in file form (also for conversion, embedding rows and --strict)
 * ---- */
/* Decode n elements (a multiple of the block; exactly one row where scales stand before the codes)
 * to fp32, bit for bit as weight-formats sections 3 and 6. false: dtype has no decoder. */
bool kern_decode(enum dtype t, const void *src, uint64_t n, float *dst);
/* Reference quantisers: F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 MXFP4 INT4 FP8 INT8. n as for
 * kern_decode. false: dtype has no quantiser. */
bool kern_quantise(enum dtype t, const float *src, uint64_t n, void *dst);

#endif
