/* vec_avx2.c - the vector ops for AVX2 and FMA: activations to int8, RMSNorm, SwiGLU, add, exp,
 * RoPE and the expert sum.
 *
 * Same bits as ref/vec_ref.c. Lanes are elements, which the definition leaves independent; where it
 * fixes an order (dot16) its 16 lanes are two registers. Tails use maskload and maskstore: nothing
 * past the arrays is read or written. Rounding is MXCSR's default, to nearest even, with
 * subnormals. 64-bit fixed point has no conversion in AVX2: values of ordinary size go through the
 * double 1.5 * 2^52, others one by one. Pure functions, any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__)
#error "vec_avx2.c needs the flags of KT_AVX2_CFLAGS"
#endif

#include "vec_avx2.h"

#include "tables.h"

#define INF_BITS 0x7f800000
#define ABS_BITS 0x7fffffff

static inline int32_t max_epi32(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}

static inline int32_t sum_epi32(__m256i v)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* codes of 32 elements; returns their sum. |x * inv| <= 127.0001, so only the rounding can reach
 * the clamp, and packing does not saturate */
static inline int32_t codes32(const __m256 *x, __m256 inv, int8_t *q)
{
    const __m256i lo = _mm256_set1_epi32(-127), hi = _mm256_set1_epi32(127);
    __m256i c[4];
    for (int i = 0; i < 4; i++)
        c[i] = _mm256_max_epi32(_mm256_min_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(x[i], inv)), hi),
                                lo);
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(c[0], c[1]), _mm256_packs_epi32(c[2], c[3]));
    const __m256i order =
        _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* packing works within 128-bit halves */
    _mm256_storeu_si256((__m256i *)q, _mm256_permutevar8x32_epi32(bytes, order));
    return sum_epi32(_mm256_add_epi32(_mm256_add_epi32(c[0], c[1]), _mm256_add_epi32(c[2], c[3])));
}

static bool quant_act(const float *x, uint32_t k, int8_t *q, float *scale, int32_t *sum)
{
    const __m256 abs_bits = _mm256_castsi256_ps(_mm256_set1_epi32(ABS_BITS));
    for (uint32_t g = 0; g < k / KERN_GROUP; g++, x += KERN_GROUP, q += KERN_GROUP) {
        __m256 v[4];
        __m256i top = _mm256_setzero_si256();
        for (int i = 0; i < 4; i++) { /* without the sign, floats order as integers, and NaN and
                                         infinity are the largest */
            v[i] = _mm256_loadu_ps(x + 8 * i);
            top = _mm256_max_epi32(top, _mm256_castps_si256(_mm256_and_ps(v[i], abs_bits)));
        }
        const int32_t bits = max_epi32(top);
        if (bits >= INF_BITS)
            return false;
        const __m128 amax = _mm_castsi128_ps(_mm_cvtsi32_si128(bits));
        if (_mm_comilt_ss(amax, _mm_set_ss(0x1p-100f))) {
            scale[g] = 0.0f;
            sum[g] = 0;
            _mm256_storeu_si256((__m256i *)q, _mm256_setzero_si256());
            continue;
        }
        const __m128 s = _mm_div_ss(amax, _mm_set_ss(127.0f));
        scale[g] = _mm_cvtss_f32(s);
        sum[g] = codes32(v, _mm256_broadcastss_ps(_mm_div_ss(_mm_set_ss(1.0f), s)), q);
    }
    return true;
}

static bool quant_row(const float *x, uint32_t k, int8_t *q, float *scale, int32_t *sum)
{
    const __m256 abs_bits = _mm256_castsi256_ps(_mm256_set1_epi32(ABS_BITS));
    __m256i top = _mm256_setzero_si256();
    for (uint32_t i = 0; i < k; i += 8)
        top = _mm256_max_epi32(
            top, _mm256_castps_si256(_mm256_and_ps(_mm256_loadu_ps(x + i), abs_bits)));
    const int32_t bits = max_epi32(top);
    if (bits >= INF_BITS)
        return false;
    const __m128 amax = _mm_castsi128_ps(_mm_cvtsi32_si128(bits));
    __m128 inv = _mm_setzero_ps();
    *scale = 0.0f;
    if (!_mm_comilt_ss(amax, _mm_set_ss(0x1p-100f))) {
        const __m128 s = _mm_div_ss(amax, _mm_set_ss(127.0f));
        *scale = _mm_cvtss_f32(s);
        inv = _mm_div_ss(_mm_set_ss(1.0f), s);
    }
    *sum = 0;
    for (uint32_t i = 0; i < k; i += KERN_GROUP) {
        const __m256 v[4] = {_mm256_loadu_ps(x + i), _mm256_loadu_ps(x + i + 8),
                             _mm256_loadu_ps(x + i + 16), _mm256_loadu_ps(x + i + 24)};
        *sum += codes32(v, _mm256_broadcastss_ps(inv), q + i);
    }
    return true;
}

static __m128 dot16(const float *x, uint32_t n)
{
    __m256 lane0 = _mm256_setzero_ps(), lane8 = _mm256_setzero_ps();
    uint32_t k = 0;
    for (; k + 16 <= n; k += 16) {
        const __m256 a = _mm256_loadu_ps(x + k), b = _mm256_loadu_ps(x + k + 8);
        lane0 = _mm256_fmadd_ps(a, a, lane0);
        lane8 = _mm256_fmadd_ps(b, b, lane8);
    }
    if (k < n) { /* absent elements add +0 to a lane that is not negative: no change */
        const uint32_t left = n - k;
        const __m256 a = _mm256_maskload_ps(x + k, head_mask(left < 8 ? left : 8));
        lane0 = _mm256_fmadd_ps(a, a, lane0);
        if (left > 8) {
            const __m256 b = _mm256_maskload_ps(x + k + 8, head_mask(left - 8));
            lane8 = _mm256_fmadd_ps(b, b, lane8);
        }
    }
    const __m256 w8 = _mm256_add_ps(lane0, lane8);
    const __m128 w4 = _mm_add_ps(_mm256_castps256_ps128(w8), _mm256_extractf128_ps(w8, 1));
    const __m128 w2 = _mm_add_ps(w4, _mm_movehl_ps(w4, w4));
    return _mm_add_ss(w2, _mm_movehdup_ps(w2));
}

static void rmsnorm(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    const __m128 mean = _mm_div_ss(dot16(x, n), _mm_set_ss((float)n));
    const __m128 root = _mm_add_ss(mean, _mm_set_ss(eps));
    const __m256 r = _mm256_broadcastss_ps(_mm_div_ss(_mm_set_ss(1.0f), _mm_sqrt_ss(root)));
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(
            y + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), r), _mm256_loadu_ps(w + i)));
    if (i < n) {
        const __m256i m = head_mask(n - i);
        _mm256_maskstore_ps(y + i, m,
                            _mm256_mul_ps(_mm256_mul_ps(_mm256_maskload_ps(x + i, m), r),
                                          _mm256_maskload_ps(w + i, m)));
    }
}

static inline __m256 swiglu8(__m256 g, __m256 u)
{
    const __m256 minus = _mm256_xor_ps(g, _mm256_set1_ps(-0.0f));
    return _mm256_mul_ps(_mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), exp_ps(minus))), u);
}

static void swiglu(const float *g, const float *u, uint32_t n, float *y)
{
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, swiglu8(_mm256_loadu_ps(g + i), _mm256_loadu_ps(u + i)));
    if (i < n) {
        const __m256i m = head_mask(n - i);
        _mm256_maskstore_ps(y + i, m,
                            swiglu8(_mm256_maskload_ps(g + i, m), _mm256_maskload_ps(u + i, m)));
    }
}

static void add(float *y, const float *x, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
    if (i < n) {
        const __m256i m = head_mask(n - i);
        _mm256_maskstore_ps(
            y + i, m, _mm256_add_ps(_mm256_maskload_ps(y + i, m), _mm256_maskload_ps(x + i, m)));
    }
}

static void vexp(const float *x, float m, uint32_t n, float *y)
{
    const __m256 top = _mm256_set1_ps(m);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, exp_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), top)));
    if (i < n) {
        const __m256i k = head_mask(n - i);
        _mm256_maskstore_ps(y + i, k, exp_ps(_mm256_sub_ps(_mm256_maskload_ps(x + i, k), top)));
    }
}

/* pairs (i, i + half); full vectors apart, because a masked store costs as much as the rest */
static void rope_halves(float *x, const float *cos, const float *sin, uint32_t half)
{
    uint32_t i = 0;
    for (; i + 8 <= half; i += 8) {
        const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + half + i);
        const __m256 c = _mm256_loadu_ps(cos + i), s = _mm256_loadu_ps(sin + i);
        _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_storeu_ps(x + half + i, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
    if (i < half) {
        const __m256i m = head_mask(half - i);
        const __m256 a = _mm256_maskload_ps(x + i, m), b = _mm256_maskload_ps(x + half + i, m);
        const __m256 c = _mm256_maskload_ps(cos + i, m), s = _mm256_maskload_ps(sin + i, m);
        _mm256_maskstore_ps(x + i, m, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_maskstore_ps(x + half + i, m, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
}

/* Four pairs: even lanes a c - b s, odd lanes b c + a s; c and s hold the four factors in their
 * lower half. */
static inline __m256 rotate4(__m256 v, __m256 c, __m256 s)
{
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    const __m256 swapped = _mm256_permute_ps(v, 0xb1);
    return _mm256_fmaddsub_ps(v, _mm256_permutevar8x32_ps(c, twice),
                              _mm256_mul_ps(swapped, _mm256_permutevar8x32_ps(s, twice)));
}

/* pairs (2i, 2i + 1) */
static void rope_pairs(float *x, const float *cos, const float *sin, uint32_t half)
{
    uint32_t i = 0;
    for (; i + 4 <= half; i += 4) {
        const __m256 c = _mm256_castps128_ps256(_mm_loadu_ps(cos + i)),
                     s = _mm256_castps128_ps256(_mm_loadu_ps(sin + i));
        _mm256_storeu_ps(x + 2 * (size_t)i, rotate4(_mm256_loadu_ps(x + 2 * (size_t)i), c, s));
    }
    if (i < half) {
        const __m256i m = head_mask(2 * (half - i)), h = head_mask(half - i);
        const __m256 c = _mm256_maskload_ps(cos + i, h), s = _mm256_maskload_ps(sin + i, h);
        _mm256_maskstore_ps(x + 2 * (size_t)i, m,
                            rotate4(_mm256_maskload_ps(x + 2 * (size_t)i, m), c, s));
    }
}

static void rope(float *x, const float *cos, const float *sin, uint32_t half, bool interleaved)
{
    if (interleaved)
        rope_pairs(x, cos, sin, half);
    else
        rope_halves(x, cos, sin, half);
}

/* One element of the expert sum, any value: false if p is not finite. */
static bool add_fixed(int64_t *acc, float p)
{
    const __m128 v = _mm_set_ss(p);
    if ((_mm_cvtsi128_si32(_mm_castps_si128(v)) & ABS_BITS) >= INF_BITS)
        return false;
    const __m128d d = _mm_set_sd((double)p * 0x1p32); /* exact */
    const int64_t f = _mm_comige_sd(d, _mm_set_sd(0x1p63))
                          ? INT64_MAX
                          : _mm_cvtsd_si64(d); /* below the range: INT64_MIN, as wanted */
    if (__builtin_add_overflow(*acc, f, acc))
        *acc = f > 0 ? INT64_MAX : INT64_MIN;
    return true;
}

static bool moe_add(int64_t *acc, const float *y, float w, uint32_t n)
{
    /* |p * 2^32| < 2^51: adding 1.5 * 2^52 rounds to an integer, nearest even, in the low bits; NaN
     * fails the comparison */
    const __m128 weight = _mm_set1_ps(w), limit = _mm_set1_ps(0x1p19f),
                 abs_bits = _mm_castsi128_ps(_mm_set1_epi32(ABS_BITS));
    const __m256d magic = _mm256_set1_pd(0x1.8p52);
    bool ok = true;
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const __m128 p = _mm_mul_ps(weight, _mm_loadu_ps(y + i));
        const __m256i a = _mm256_loadu_si256((const __m256i *)(acc + i));
        const __m256d t = _mm256_fmadd_pd(_mm256_cvtps_pd(p), _mm256_set1_pd(0x1p32), magic);
        const __m256i f = _mm256_sub_epi64(_mm256_castpd_si256(t), _mm256_castpd_si256(magic));
        const __m256i s = _mm256_add_epi64(a, f);
        const __m256i over = _mm256_and_si256(_mm256_xor_si256(a, s), _mm256_xor_si256(f, s));
        const int small = _mm_movemask_ps(_mm_cmplt_ps(_mm_and_ps(p, abs_bits), limit));
        if (small == 15 && _mm256_movemask_pd(_mm256_castsi256_pd(over)) == 0)
            _mm256_storeu_si256((__m256i *)(acc + i), s);
        else
            for (uint32_t j = i; j < i + 4; j++)
                ok &= add_fixed(&acc[j], w * y[j]);
    }
    for (; i < n; i++)
        ok &= add_fixed(&acc[i], w * y[i]);
    return ok;
}

static void moe_done(int64_t *acc, float *x, uint32_t n)
{
    /* |acc| < 2^51: as the low bits of 1.5 * 2^52 it is a double, exactly, so that the step to
     * single is the only rounding */
    const __m256d magic = _mm256_set1_pd(0x1.8p52);
    const __m256i half = _mm256_set1_epi64x((int64_t)1 << 51),
                  high = _mm256_set1_epi64x(-((int64_t)1 << 52));
    uint32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(acc + i));
        if (!_mm256_testz_si256(_mm256_add_epi64(a, half), high))
            break;
        const __m256d d = _mm256_sub_pd(
            _mm256_castsi256_pd(_mm256_add_epi64(a, _mm256_castpd_si256(magic))), magic);
        const __m128 v = _mm_mul_ps(_mm256_cvtpd_ps(d), _mm_set1_ps(0x1p-32f));
        _mm_storeu_ps(x + i, _mm_add_ps(_mm_loadu_ps(x + i), v));
        _mm256_storeu_si256((__m256i *)(acc + i), _mm256_setzero_si256());
    }
    for (; i < n; i++) {
        x[i] = x[i] + (float)acc[i] * 0x1p-32f; /* cvtsi2ss: one rounding */
        acc[i] = 0;
    }
}

#define ROW(op_, field, fn)                                                                        \
    {                                                                                              \
        .name = #fn "_f32_avx2", .op = op_, .dtype = -1, .layout = KERN_ROWS,                      \
        .isa = KERN_ISA_AVX2, .tok_tile = 1, .rank = 10, .run.field = fn                           \
    }

const struct kern *kern_avx2_vec(size_t *n)
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
        {.name = "attn_f32_avx2",
         .op = KERN_ATTN,
         .dtype = -1,
         .layout = KERN_ROWS,
         .isa = KERN_ISA_AVX2,
         .tok_tile = 1,
         .rank = 10,
         .run.attn = kern_avx2_attn},
        {.name = "attn_join_f32_avx2",
         .op = KERN_ATTN_JOIN,
         .dtype = -1,
         .layout = KERN_ROWS,
         .isa = KERN_ISA_AVX2,
         .tok_tile = 1,
         .rank = 10,
         .run.attn = kern_avx2_attn_join},
    };
    *n = sizeof table / sizeof table[0];
    return table;
}
