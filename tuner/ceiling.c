/* ceiling.c - see ceiling.h. The int8 loop is in assembler, because a compiler could hoist or merge
 * it, and because no file outside kernels/ is compiled with -m flags.
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
};

static void touch(void *ctx, uint32_t w)
{
    struct ceiling *c = ctx;
    memset(c->buf[w], (int)w + 1, c->bytes);
}

static void read_all(void *ctx, uint32_t w)
{
    struct ceiling *c = ctx;
    read_loop(c->buf[w], c->bytes, c->isa);
}

/* 12 independent accumulators; products per loop: 12 * 64 (zmm) or 12 * 32 (ymm). */
static void int8_loop(void *ctx, uint32_t w)
{
    struct ceiling *c = ctx;
    uint64_t n = c->loops;
    (void)w;
#if defined(__x86_64__)
    if (c->isa & KERN_ISA_AVX512VNNI) {
        __asm__ volatile("1:\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm0\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm1\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm2\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm3\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm4\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm5\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm6\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm7\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm8\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm9\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm10\n\t"
                         "vpdpbusd %%zmm12, %%zmm13, %%zmm11\n\t"
                         "dec %0\n\t"
                         "jnz 1b\n\t"
                         "vzeroupper"
                         : "+r"(n)
                         :
                         : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13");
    } else if (c->isa & KERN_ISA_AVX2) {
        __asm__ volatile("1:\n\t"
                         "vpmaddubsw %%ymm12, %%ymm13, %%ymm6\n\t"
                         "vpmaddubsw %%ymm12, %%ymm13, %%ymm7\n\t"
                         "vpmaddubsw %%ymm12, %%ymm13, %%ymm8\n\t"
                         "vpmaddubsw %%ymm12, %%ymm13, %%ymm9\n\t"
                         "vpmaddubsw %%ymm12, %%ymm13, %%ymm10\n\t"
                         "vpmaddubsw %%ymm12, %%ymm13, %%ymm11\n\t"
                         "vpmaddwd %%ymm14, %%ymm6, %%ymm6\n\t"
                         "vpmaddwd %%ymm14, %%ymm7, %%ymm7\n\t"
                         "vpmaddwd %%ymm14, %%ymm8, %%ymm8\n\t"
                         "vpmaddwd %%ymm14, %%ymm9, %%ymm9\n\t"
                         "vpmaddwd %%ymm14, %%ymm10, %%ymm10\n\t"
                         "vpmaddwd %%ymm14, %%ymm11, %%ymm11\n\t"
                         "vpaddd %%ymm6, %%ymm0, %%ymm0\n\t"
                         "vpaddd %%ymm7, %%ymm1, %%ymm1\n\t"
                         "vpaddd %%ymm8, %%ymm2, %%ymm2\n\t"
                         "vpaddd %%ymm9, %%ymm3, %%ymm3\n\t"
                         "vpaddd %%ymm10, %%ymm4, %%ymm4\n\t"
                         "vpaddd %%ymm11, %%ymm5, %%ymm5\n\t"
                         "dec %0\n\t"
                         "jnz 1b\n\t"
                         "vzeroupper"
                         : "+r"(n)
                         :
                         : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                           "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14");
    }
#endif
}

double ceiling_read(struct ceiling *c)
{
    c->isa = kern_isa_host();
    uint64_t t = clock_ns();
    team_run(c->team, read_all, c);
    return (double)(c->bytes * c->n) / ((double)(clock_ns() - t) * 1e-9);
}

double ceiling_int8(struct ceiling *c, uint32_t isa)
{
    double products = isa & KERN_ISA_AVX512VNNI ? 12 * 64 : isa & KERN_ISA_AVX2 ? 6 * 32 : 0;
    if (products == 0)
        return 0;
    c->isa = isa;
    c->loops = 100000;
    uint64_t t = clock_ns();
    team_run(c->team, int8_loop, c);
    uint64_t once = clock_ns() - t;
    c->loops = c->loops * 20000000u / (once > 0 ? once : 1) + 1; /* about 20 ms */
    t = clock_ns();
    team_run(c->team, int8_loop, c);
    return 2 * products * (double)c->loops * c->n / ((double)(clock_ns() - t) * 1e-9);
}

const char *ceiling_int8_name(uint32_t isa)
{
    return isa & KERN_ISA_AVX512VNNI ? "vpdpbusd, 512 bit"
           : isa & KERN_ISA_AVX2     ? "vpmaddubsw, 256 bit"
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
