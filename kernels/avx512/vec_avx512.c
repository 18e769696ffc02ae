/* vec_avx512.c - the vector ops for AVX512 F, BW, DQ and VL: activations to int8, RMSNorm, SwiGLU,
 * add, exp, RoPE and the expert sum.
 *
 * Same bits as ref/vec_ref.c. Lanes are elements, which the definition leaves independent; where it
 * fixes an order (dot16) its 16 lanes are the register's. Tails use masks: nothing past the arrays
 * is read or written. Rounding is MXCSR's default, to nearest even, with subnormals. Pure
 * functions, any thread.
 */
#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__)
#error "vec_avx512.c needs the AVX512 flags of KT_AVX512_CFLAGS"
#endif

#include "vec_avx512.h"

#include "tables.h"

#define INF_BITS 0x7f800000
#define ABS_BITS 0x7fffffff

/* The bits of max |x| of a group: without the sign, floats order as integers, and NaN and infinity
 * are the largest. */
static inline int32_t amax_bits(const float *x)
{
    const __m512i abs_bits = _mm512_set1_epi32(ABS_BITS);
    const __m512i a = _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x)), abs_bits);
    const __m512i b = _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x + 16)), abs_bits);
    return _mm512_reduce_max_epi32(_mm512_max_epi32(a, b));
}

/* Codes of a group; returns their sum. |x * inv| <= 127 (1 + 2^-22), which rounds to 127: the clamp
 * of the definition cannot act. */
static inline int32_t codes32(const float *x, float inv, int8_t *q)
{
    const __m512 f = _mm512_set1_ps(inv);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), f)),
                  b = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), f));
    _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(a));
    _mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtepi32_epi8(b));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
}

/* Sixteen groups at a time, so that their divisions are two instructions. */
static bool quant_act(const float *x, uint32_t k, int8_t *q, float *scale, int32_t *sum)
{
    const uint32_t groups = k / KERN_GROUP;
    for (uint32_t g = 0; g < groups; g += 16) {
        const uint32_t n = groups - g < 16 ? groups - g : 16;
        int32_t bits[16];
        float inv[16];
        for (uint32_t i = 0; i < n; i++)
            bits[i] = amax_bits(x + (size_t)(g + i) * KERN_GROUP);
        const __m512i top = _mm512_maskz_loadu_epi32(head_mask(n), bits);
        if (_mm512_cmpge_epi32_mask(top, _mm512_set1_epi32(INF_BITS)) != 0)
            return false;
        const __m512 amax = _mm512_castsi512_ps(top);
        const __mmask16 live = _mm512_cmp_ps_mask(amax, _mm512_set1_ps(0x1p-100f),
                                                  _CMP_GE_OQ); /* below: scale 0, codes 0 */
        const __m512 s = _mm512_maskz_div_ps(live, amax, _mm512_set1_ps(127.0f));
        _mm512_mask_storeu_ps(scale + g, head_mask(n), s);
        _mm512_storeu_ps(inv, _mm512_maskz_div_ps(live, _mm512_set1_ps(1.0f), s));
        for (uint32_t i = 0; i < n; i++)
            sum[g + i] =
                codes32(x + (size_t)(g + i) * KERN_GROUP, inv[i], q + (size_t)(g + i) * KERN_GROUP);
    }
    return true;
}

static bool quant_row(const float *x, uint32_t k, int8_t *q, float *scale, int32_t *sum)
{
    const __m512i abs_bits = _mm512_set1_epi32(ABS_BITS);
    __m512i top = _mm512_setzero_si512();
    for (uint32_t i = 0; i < k; i += 16)
        top = _mm512_max_epi32(
            top, _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x + i)), abs_bits));
    const int32_t bits = _mm512_reduce_max_epi32(top);
    if (bits >= INF_BITS)
        return false;
    const __m128 amax = _mm_castsi128_ps(_mm_cvtsi32_si128(bits));
    float inv = 0.0f;
    *scale = 0.0f;
    if (!_mm_comilt_ss(amax, _mm_set_ss(0x1p-100f))) {
        const __m128 s = _mm_div_ss(amax, _mm_set_ss(127.0f));
        *scale = _mm_cvtss_f32(s);
        inv = _mm_cvtss_f32(_mm_div_ss(_mm_set_ss(1.0f), s));
    }
    const __m512 f = _mm512_set1_ps(inv);
    __m512i total = _mm512_setzero_si512();
    for (uint32_t i = 0; i < k; i += 16) {
        const __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), f));
        _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtepi32_epi8(c));
        total = _mm512_add_epi32(total, c);
    }
    *sum = _mm512_reduce_add_epi32(total);
    return true;
}

static __m128 dot16(const float *x, uint32_t n)
{
    __m512 lane = _mm512_setzero_ps();
    uint32_t k = 0;
    for (; k + 16 <= n; k += 16) {
        const __m512 v = _mm512_loadu_ps(x + k);
        lane = _mm512_fmadd_ps(v, v, lane);
    }
    if (k < n) { /* absent elements add +0 to a lane that is not negative: no change */
        const __m512 v = _mm512_maskz_loadu_ps(head_mask(n - k), x + k);
        lane = _mm512_fmadd_ps(v, v, lane);
    }
    const __m256 w8 = _mm256_add_ps(_mm512_castps512_ps256(lane), _mm512_extractf32x8_ps(lane, 1));
    const __m128 w4 = _mm_add_ps(_mm256_castps256_ps128(w8), _mm256_extractf128_ps(w8, 1));
    const __m128 w2 = _mm_add_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_add_ss(w2, _mm_movehdup_ps(w2));
}

static void rmsnorm(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    const __m128 mean = _mm_div_ss(dot16(x, n), _mm_set_ss((float)n));
    const __m128 root = _mm_add_ss(mean, _mm_set_ss(eps));
    const __m512 r = _mm512_broadcastss_ps(_mm_div_ss(_mm_set_ss(1.0f), _mm_sqrt_ss(root)));
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(
            y + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), r), _mm512_loadu_ps(w + i)));
    if (i < n) {
        const __mmask16 m = head_mask(n - i);
        const __m512 v = _mm512_mul_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(m, x + i), r),
                                       _mm512_maskz_loadu_ps(m, w + i));
        _mm512_mask_storeu_ps(y + i, m, v);
    }
}

static inline __m512 swiglu16(__m512 g, __m512 u)
{
    const __m512 minus = _mm512_xor_ps(g, _mm512_set1_ps(-0.0f));
    return _mm512_mul_ps(_mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), exp_ps(minus))), u);
}

static void swiglu(const float *g, const float *u, uint32_t n, float *y)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(y + i, swiglu16(_mm512_loadu_ps(g + i), _mm512_loadu_ps(u + i)));
    if (i < n) {
        const __mmask16 m = head_mask(n - i);
        _mm512_mask_storeu_ps(
            y + i, m, swiglu16(_mm512_maskz_loadu_ps(m, g + i), _mm512_maskz_loadu_ps(m, u + i)));
    }
}

static void add(float *y, const float *x, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(y + i, _mm512_add_ps(_mm512_loadu_ps(y + i), _mm512_loadu_ps(x + i)));
    if (i < n) {
        const __mmask16 m = head_mask(n - i);
        _mm512_mask_storeu_ps(
            y + i, m,
            _mm512_add_ps(_mm512_maskz_loadu_ps(m, y + i), _mm512_maskz_loadu_ps(m, x + i)));
    }
}

static void vexp(const float *x, float m, uint32_t n, float *y)
{
    const __m512 top = _mm512_set1_ps(m);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(y + i, exp_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), top)));
    if (i < n) {
        const __mmask16 k = head_mask(n - i);
        _mm512_mask_storeu_ps(y + i, k,
                              exp_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(k, x + i), top)));
    }
}

/* pairs (i, i + half) */
static void rope_halves(float *x, const float *cos, const float *sin, uint32_t half)
{
    for (uint32_t i = 0; i < half; i += 16) {
        const __mmask16 m = head_mask(half - i < 16 ? half - i : 16);
        const __m512 a = _mm512_maskz_loadu_ps(m, x + i),
                     b = _mm512_maskz_loadu_ps(m, x + half + i);
        const __m512 c = _mm512_maskz_loadu_ps(m, cos + i), s = _mm512_maskz_loadu_ps(m, sin + i);
        _mm512_mask_storeu_ps(x + i, m, _mm512_fmsub_ps(a, c, _mm512_mul_ps(b, s)));
        _mm512_mask_storeu_ps(x + half + i, m, _mm512_fmadd_ps(b, c, _mm512_mul_ps(a, s)));
    }
}

/* pairs (2i, 2i + 1), eight in a register: even lanes a c - b s, odd lanes b c + a s */
static void rope_pairs(float *x, const float *cos, const float *sin, uint32_t half)
{
    const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
    for (uint32_t i = 0; i < half; i += 8) {
        const uint32_t n = half - i < 8 ? half - i : 8;
        const __mmask16 m = head_mask(2 * n), h = head_mask(n);
        const __m512 v = _mm512_maskz_loadu_ps(m, x + 2 * (size_t)i);
        const __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(h, cos + i));
        const __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(h, sin + i));
        const __m512 swapped = _mm512_permute_ps(v, 0xb1);
        _mm512_mask_storeu_ps(x + 2 * (size_t)i, m,
                              _mm512_fmaddsub_ps(v, c, _mm512_mul_ps(swapped, s)));
    }
}

static void rope(float *x, const float *cos, const float *sin, uint32_t half, bool interleaved)
{
    if (interleaved)
        rope_pairs(x, cos, sin, half);
    else
        rope_halves(x, cos, sin, half);
}

/* p * 2^32 is exact in double; out of range it converts to INT64_MIN */
static inline __m512i to_fixed(__m256 p)
{
    return _mm512_cvtpd_epi64(_mm512_mul_pd(_mm512_cvtps_pd(p), _mm512_set1_pd(0x1p32)));
}

/* Sign bits: did a + f, which gave s, leave the range? (a ^ s) & (f ^ s) */
static inline __mmask8 overflow(__m512i a, __m512i f, __m512i s)
{
    return _mm512_movepi64_mask(_mm512_ternarylogic_epi64(a, f, s, 0x42));
}

/* Up to 8 elements of any value. Products that are not finite are left out; returns them. */
static __mmask8 moe_add_any(int64_t *acc, const float *y, __m256 weight, __mmask8 m)
{
    const __m256 p = _mm256_mul_ps(weight, _mm256_maskz_loadu_ps(m, y));
    const __mmask8 odd =
        _mm256_mask_fpclass_ps_mask(m, p, 0x99); /* quiet and signalling NaN, both infinities */
    const __m512i max = _mm512_set1_epi64(INT64_MAX), a = _mm512_maskz_loadu_epi64(m, acc);
    const __m512i f = _mm512_mask_mov_epi64(
        to_fixed(p), _mm256_cmp_ps_mask(p, _mm256_set1_ps(0x1p31f), _CMP_GE_OQ), max);
    const __m512i s = _mm512_add_epi64(a, f);
    const __m512i kept = _mm512_mask_xor_epi64(s, overflow(a, f, s), _mm512_srai_epi64(f, 63), max);
    _mm512_mask_storeu_epi64(acc, m & (__mmask8)~odd, kept);
    return odd;
}

static bool moe_add(int64_t *acc, const float *y, float w, uint32_t n)
{
    const __m256 weight = _mm256_set1_ps(w), limit = _mm256_set1_ps(0x1p31f),
                 abs_bits = _mm256_castsi256_ps(_mm256_set1_epi32(ABS_BITS));
    __mmask8 bad = 0;
    uint32_t i = 0;
    for (; i + 8 <= n;
         i += 8) { /* nothing saturates in practice: look, and do the careful form only then */
        const __m256 p = _mm256_mul_ps(weight, _mm256_loadu_ps(y + i));
        const __mmask8 large = _mm256_cmp_ps_mask(_mm256_and_ps(p, abs_bits), limit, _CMP_NLT_UQ);
        const __m512i a = _mm512_loadu_si512(acc + i), f = to_fixed(p), s = _mm512_add_epi64(a, f);
        if ((large | overflow(a, f, s)) == 0)
            _mm512_storeu_si512(acc + i, s);
        else
            bad |= moe_add_any(acc + i, y + i, weight, 0xff);
    }
    if (i < n)
        bad |= moe_add_any(acc + i, y + i, weight, (__mmask8)head_mask(n - i));
    return bad == 0;
}

static void moe_done(int64_t *acc, float *x, uint32_t n)
{
    const __m256 unit = _mm256_set1_ps(0x1p-32f);
    for (uint32_t i = 0; i < n; i += 8) {
        const __mmask8 m = (__mmask8)head_mask(n - i < 8 ? n - i : 8);
        const __m256 v =
            _mm512_cvtepi64_ps(_mm512_maskz_loadu_epi64(m, acc + i)); /* one rounding */
        _mm256_mask_storeu_ps(
            x + i, m, _mm256_add_ps(_mm256_maskz_loadu_ps(m, x + i), _mm256_mul_ps(v, unit)));
        _mm512_mask_storeu_epi64(acc + i, m, _mm512_setzero_si512());
    }
}

#define ROW(op_, field, fn)                                                                        \
    {                                                                                              \
        .name = #fn "_f32_avx512", .op = op_, .dtype = -1, .layout = KERN_ROWS,                    \
        .isa = KERN_ISA_AVX2 | KERN_ISA_AVX512, .tok_tile = 1, .rank = 20, .run.field = fn         \
    }

const struct kern *kern_avx512_vec(size_t *n)
{
    static const struct kern table[] = {
        ROW(KERN_QUANT_ACT, quant, quant_act),
        ROW(KERN_QUANT_ROW, quant, quant_row),
        ROW(KERN_RMSNORM, rmsnorm, rmsnorm),
        ROW(KERN_SWIGLU, swiglu, swiglu),
        ROW(KERN_ADD, add, add),
        ROW(KERN_EXP, vexp, vexp),
        ROW(KERN_ROPE, rope, rope),
        ROW(KERN_MOE_ADD, moe_add, moe_add),
        ROW(KERN_MOE_DONE, moe_done, moe_done),
        {.name = "attn_f32_avx512",
         .op = KERN_ATTN,
         .dtype = -1,
         .layout = KERN_ROWS,
         .isa = KERN_ISA_AVX2 | KERN_ISA_AVX512,
         .tok_tile = 1,
         .rank = 20,
         .run.attn = kern_avx512_attn},
        {.name = "attn_join_f32_avx512",
         .op = KERN_ATTN_JOIN,
         .dtype = -1,
         .layout = KERN_ROWS,
         .isa = KERN_ISA_AVX2 | KERN_ISA_AVX512,
         .tok_tile = 1,
         .rank = 20,
         .run.attn = kern_avx512_attn_join},
    };
    *n = sizeof table / sizeof table[0];
    return table;
}
