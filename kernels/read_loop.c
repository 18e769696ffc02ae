/* read_loop.c - see read_loop.h. Assembler, because a compiler may drop loads whose values nobody
 * uses, and because no file outside kernels/ is compiled with -m flags. Eight independent
 * accumulators, 512 bytes a round, hardware prefetch only.
 */
#include "read_loop.h"

#include "kern.h"

const char *read_loop_method(uint32_t isa)
{
    return isa & KERN_ISA_AVX512 ? "read_zmm" : isa & KERN_ISA_AVX2 ? "read_ymm" : "read_c";
}

#if defined(__x86_64__)
static void read_zmm(const uint8_t *p, uint64_t rounds)
{
    __asm__ volatile("1:\n\t"
                     "vpord (%0), %%zmm0, %%zmm0\n\t"
                     "vpord 64(%0), %%zmm1, %%zmm1\n\t"
                     "vpord 128(%0), %%zmm2, %%zmm2\n\t"
                     "vpord 192(%0), %%zmm3, %%zmm3\n\t"
                     "vpord 256(%0), %%zmm4, %%zmm4\n\t"
                     "vpord 320(%0), %%zmm5, %%zmm5\n\t"
                     "vpord 384(%0), %%zmm6, %%zmm6\n\t"
                     "vpord 448(%0), %%zmm7, %%zmm7\n\t"
                     "add $512, %0\n\t"
                     "dec %1\n\t"
                     "jnz 1b\n\t"
                     "vzeroupper"
                     : "+r"(p), "+r"(rounds)
                     :
                     : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
                       "xmm7");
}

static void read_ymm(const uint8_t *p, uint64_t rounds)
{
    rounds *= 2;
    __asm__ volatile("1:\n\t"
                     "vpor (%0), %%ymm0, %%ymm0\n\t"
                     "vpor 32(%0), %%ymm1, %%ymm1\n\t"
                     "vpor 64(%0), %%ymm2, %%ymm2\n\t"
                     "vpor 96(%0), %%ymm3, %%ymm3\n\t"
                     "vpor 128(%0), %%ymm4, %%ymm4\n\t"
                     "vpor 160(%0), %%ymm5, %%ymm5\n\t"
                     "vpor 192(%0), %%ymm6, %%ymm6\n\t"
                     "vpor 224(%0), %%ymm7, %%ymm7\n\t"
                     "add $256, %0\n\t"
                     "dec %1\n\t"
                     "jnz 1b\n\t"
                     "vzeroupper"
                     : "+r"(p), "+r"(rounds)
                     :
                     : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",
                       "xmm7");
}
#endif

static void read_c(const uint8_t *p, uint64_t rounds)
{
    const uint64_t *v = (const uint64_t *)(const void *)p;
    uint64_t a[8] = {0};
    for (; rounds > 0; rounds--, v += 64)
        for (int i = 0; i < 64; i++)
            a[i % 8] |= v[i];
    for (int i = 0; i < 8; i++)
        __asm__ volatile("" : : "r"(a[i]));
}

void read_loop(const void *p, uint64_t bytes, uint32_t isa)
{
    uint64_t rounds = bytes / READ_LOOP_BYTES;
    if (rounds == 0)
        return;
#if defined(__x86_64__)
    if (isa & KERN_ISA_AVX512) {
        read_zmm(p, rounds);
        return;
    }
    if (isa & KERN_ISA_AVX2) {
        read_ymm(p, rounds);
        return;
    }
#endif
    (void)isa;
    read_c(p, rounds);
}
