/* ceiling.c - see ceiling.h. The loops are in assembler, because a compiler could hoist or merge
 * them, and because no file outside kernels/ is compiled with -m flags (so registers above 15 are
 * free to use without saying so). Registers are set before each loop: left-over subnormals would
 * slow the fp32 part.
 */
#include "ceiling.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/team.h"
#include "kern.h"
#include "read_loop.h"

struct ceiling {
    struct team *team;
    uint32_t n;
    uint64_t bytes; /* of one thread's buffer, a multiple of 4096 */
    uint8_t **buf;  /* [n] */
    uint32_t isa;
    uint64_t loops;
    void (*work)(struct ceiling *c, uint32_t w);
    uint64_t start_ns, end_ns;
};

static void touch(void *ctx, uint32_t w)
{
    struct ceiling *c = ctx;
    memset(c->buf[w], (int)w + 1, c->bytes);
}

static void read_all(struct ceiling *c, uint32_t w)
{
    read_loop(c->buf[w], c->bytes, c->isa);
}

#if defined(__x86_64__)
#define XMM_0_15                                                                                   \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",       \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#define EACH_6(M) M(0) M(1) M(2) M(3) M(4) M(5)
#define EACH_8(M) EACH_6(M) M(6) M(7)
#define EACH_12(M) EACH_8(M) M(8) M(9) M(10) M(11)
#define TIMES_8(M) M M M M M M M M
/* operands: weights 3, activations 1, scales 0.0625 */
#define SET_ZMM                                                                                    \
    "vpbroadcastd %1, %%zmm30\n\tvpbroadcastd %2, %%zmm31\n\tvbroadcastss %3, %%zmm28\n\t"         \
    "vbroadcastss %3, %%zmm29\n\t" CLEAR(12) CLEAR(13) CLEAR(14) CLEAR(15)
#define SET_YMM                                                                                    \
    "vpbroadcastd %1, %%ymm12\n\tvpbroadcastd %2, %%ymm13\n\tvbroadcastss %3, %%ymm14\n\t"
#define CLEAR(r) "vpxor %%xmm" #r ", %%xmm" #r ", %%xmm" #r "\n\t"
#define LOOP(body) "1:\n\t" body "dec %0\n\tjnz 1b\n\tvzeroupper"
#define DOT_Z(r) "vpdpbusd %%zmm31, %%zmm30, %%zmm" #r "\n\t"
#define DOT_Y(r) "%{vex%} vpdpbusd %%ymm13, %%ymm12, %%ymm" #r "\n\t"
#define DOT_S(r) /* r: 0..5 */                                                                     \
    "vpmaddubsw %%ymm13, %%ymm12, %%ymm15\n\tvpmaddwd %%ymm14, %%ymm15, %%ymm15\n\t"               \
    "vpaddd %%ymm15, %%ymm" #r ", %%ymm" #r "\n\t"
#define DOT_W(r)                                                                                   \
    "vpmaddubsw %%zmm31, %%zmm30, %%zmm27\n\tvpmaddwd %%zmm28, %%zmm27, %%zmm27\n\t"               \
    "vpaddd %%zmm27, %%zmm" #r ", %%zmm" #r "\n\t"
#define FMA_Z(r) "vfmadd231ps %%zmm29, %%zmm28, %%zmm" #r "\n\t"
#define FMA_Y(r) "vfmadd231ps %%ymm14, %%ymm14, %%ymm" #r "\n\t"
/* acc in r, row sum in s */
#define SCALE_Z(r, s)                                                                              \
    "vmulps %%zmm28, %%zmm29, %%zmm27\n\tvcvtdq2ps %%zmm" #r ", %%zmm" #r                          \
    "\n\tvfmadd231ps %%zmm27, %%zmm" #r ", %%zmm" #s "\n\t"                                        \
    "vpxor %%xmm" #r ", %%xmm" #r ", %%xmm" #r "\n\t"
#define SCALE_Y(r, s)                                                                              \
    "vmulps %%ymm14, %%ymm14, %%ymm15\n\tvcvtdq2ps %%ymm" #r ", %%ymm" #r                          \
    "\n\tvfmadd231ps %%ymm15, %%ymm" #r ", %%ymm" #s "\n\t"                                        \
    "vpxor %%xmm" #r ", %%xmm" #r ", %%xmm" #r "\n\t"
#define RUN(set, body)                                                                             \
    __asm__ volatile(set EACH_12(CLEAR) LOOP(body)                                                 \
                     : "+r"(n)                                                                     \
                     : "m"(weight), "m"(act), "m"(scale)                                           \
                     : "cc", XMM_0_15)

static const uint32_t weight = 0x03030303, act = 0x01010101;
static const float scale = 0.0625f;
#endif

/* Independent accumulators, nothing else: 12 of 64 products a loop, or 12 or 6 of 32. */
static void int8_loop(struct ceiling *c, uint32_t w)
{
    uint64_t n = c->loops;
    (void)w;
#if defined(__x86_64__)
    if (c->isa & KERN_ISA_AVX512VNNI)
        RUN(SET_ZMM, EACH_12(DOT_Z));
    else if (c->isa & KERN_ISA_AVX512)
        RUN(SET_ZMM, EACH_12(DOT_W));
    else if (c->isa & KERN_ISA_AVXVNNI)
        RUN(SET_YMM, EACH_12(DOT_Y));
    else if (c->isa & KERN_ISA_AVX2)
        RUN(SET_YMM, EACH_6(DOT_S));
#endif
    (void)n;
}

/* The same of fp32: 12 of 16 or of 8. */
static void fma_loop(struct ceiling *c, uint32_t w)
{
    uint64_t n = c->loops;
    (void)w;
#if defined(__x86_64__)
    if (c->isa & KERN_ISA_AVX512)
        RUN(SET_ZMM, EACH_12(FMA_Z));
    else if (c->isa & KERN_ISA_AVX2)
        RUN(SET_YMM, EACH_12(FMA_Y));
#endif
    (void)n;
}

/* 8 (or 6) accumulators, each with the 8 products of a group; then convert, multiply, fma, and a
 * fresh start. */
static void scaled_loop(struct ceiling *c, uint32_t w)
{
    uint64_t n = c->loops;
    (void)w;
#if defined(__x86_64__)
    if (c->isa & KERN_ISA_AVX512VNNI)
        RUN(SET_ZMM, TIMES_8(EACH_8(DOT_Z)) SCALE_Z(0, 8) SCALE_Z(1, 9) SCALE_Z(2, 10) SCALE_Z(
                         3, 11) SCALE_Z(4, 12) SCALE_Z(5, 13) SCALE_Z(6, 14) SCALE_Z(7, 15));
    else if (c->isa & KERN_ISA_AVX512)
        RUN(SET_ZMM, TIMES_8(EACH_8(DOT_W)) SCALE_Z(0, 8) SCALE_Z(1, 9) SCALE_Z(2, 10) SCALE_Z(
                         3, 11) SCALE_Z(4, 12) SCALE_Z(5, 13) SCALE_Z(6, 14) SCALE_Z(7, 15));
    else if (c->isa & KERN_ISA_AVXVNNI)
        RUN(SET_YMM, TIMES_8(EACH_6(DOT_Y)) SCALE_Y(0, 6) SCALE_Y(1, 7) SCALE_Y(2, 8) SCALE_Y(3, 9)
                         SCALE_Y(4, 10) SCALE_Y(5, 11));
    else if (c->isa & KERN_ISA_AVX2)
        RUN(SET_YMM, TIMES_8(EACH_6(DOT_S)) SCALE_Y(0, 6) SCALE_Y(1, 7) SCALE_Y(2, 8) SCALE_Y(3, 9)
                         SCALE_Y(4, 10) SCALE_Y(5, 11));
#endif
    (void)n;
}

/* From the common start to the last end: waking the workers is not what is measured. */
static void timed(void *ctx, uint32_t w)
{
    struct ceiling *c = ctx;
    team_barrier(c->team, w);
    if (w == 0)
        c->start_ns = clock_ns();
    c->work(c, w);
    team_barrier(c->team, w);
    if (w == 0)
        c->end_ns = clock_ns();
}

static double seconds_of(struct ceiling *c, void (*work)(struct ceiling *, uint32_t))
{
    c->work = work;
    team_run(c->team, timed, c);
    return (double)(c->end_ns - c->start_ns) * 1e-9;
}

double ceiling_read(struct ceiling *c)
{
    c->isa = kern_isa_host();
    return (double)(c->bytes * c->n) / seconds_of(c, read_all);
}

/* Operations per second of a loop with `products` products a turn, over about 20 ms. */
static double rate(struct ceiling *c, void (*loop)(struct ceiling *, uint32_t), double products,
                   uint32_t isa)
{
    c->isa = isa;
    c->loops = 10000;
    c->loops = (uint64_t)(10000 * 0.020 / (seconds_of(c, loop) + 1e-9)) + 1;
    return 2 * products * (double)c->loops * c->n / seconds_of(c, loop);
}

double ceiling_int8(struct ceiling *c, uint32_t isa)
{
    double products = isa & (KERN_ISA_AVX512VNNI | KERN_ISA_AVX512) ? 12 * 64
                      : isa & KERN_ISA_AVXVNNI                      ? 12 * 32
                      : isa & KERN_ISA_AVX2                         ? 6 * 32
                                                                    : 0;
    return products > 0 ? rate(c, int8_loop, products, isa) : 0;
}

double ceiling_fma(struct ceiling *c, uint32_t isa)
{
    double products = isa & KERN_ISA_AVX512 ? 12 * 16 : isa & KERN_ISA_AVX2 ? 12 * 8 : 0;
    return products > 0 ? rate(c, fma_loop, products, isa) : 0;
}

double ceiling_scaled(struct ceiling *c, uint32_t isa)
{
    double products = isa & (KERN_ISA_AVX512VNNI | KERN_ISA_AVX512) ? 64 * 64
                      : isa & (KERN_ISA_AVXVNNI | KERN_ISA_AVX2)    ? 48 * 32
                                                                    : 0;
    return products > 0 ? rate(c, scaled_loop, products, isa) : 0;
}

const char *ceiling_int8_name(uint32_t isa)
{
    return isa & KERN_ISA_AVX512VNNI ? "vpdpbusd, 512 bit"
           : isa & KERN_ISA_AVX512   ? "vpmaddubsw, 512 bit"
           : isa & KERN_ISA_AVXVNNI  ? "vpdpbusd, 256 bit"
           : isa & KERN_ISA_AVX2     ? "vpmaddubsw, 256 bit"
                                     : "none";
}

const char *ceiling_fma_name(uint32_t isa)
{
    return isa & KERN_ISA_AVX512 ? "vfmadd231ps, 512 bit"
           : isa & KERN_ISA_AVX2 ? "vfmadd231ps, 256 bit"
                                 : "none";
}

kt_status ceiling_open(uint32_t n, const int *cpus, uint64_t bytes, struct ceiling **out,
                       kt_err *err)
{
    *out = NULL;
    struct ceiling *c = mem_calloc(1, sizeof *c);
    if (c == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the bandwidth measurement");
    c->n = n;
    c->bytes = (bytes / n + 4095) / 4096 * 4096;
    c->buf = mem_calloc(n, sizeof *c->buf);
    bool ok = c->buf != NULL;
    for (uint32_t i = 0; ok && i < n; i++)
        ok = (c->buf[i] = mem_map(c->bytes + 4096)) != NULL;
    kt_status s =
        ok ? team_open(&(struct team_opts){.n = n, .cpu = cpus, .name = "kt-ceil"}, &c->team, err)
           : err_set(err, KT_E_NOMEM, 0, __func__, "no memory for buffers of %llu bytes",
                     (unsigned long long)bytes);
    if (s != KT_OK) {
        ceiling_close(c);
        return s;
    }
    team_run(c->team, touch, c);
    *out = c;
    return KT_OK;
}

void ceiling_close(struct ceiling *c)
{
    if (c == NULL)
        return;
    team_close(c->team);
    for (uint32_t i = 0; c->buf != NULL && i < c->n; i++)
        mem_unmap(c->buf[i], c->bytes + 4096);
    mem_free(c->buf);
    mem_free(c);
}
