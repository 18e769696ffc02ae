/* isa.c - which instruction sets this CPU, its operating system and this process may use, as
 * KERN_ISA_* bits.
 *
 * A bit is set only when all three agree: CPUID lists the instructions, XCR0 says that the kernel
 * saves the registers, and (AMX) the process has been granted the tile state. It says nothing about
 * speed and runs no kernel: the self-test is the tuner's. Any thread; no state is kept except the
 * AMX permission, which Linux grants to the whole process and which is asked for only where AMX
 * exists. On machines that are not x86-64 the mask is 0 and ref/ serves.
 */
#include "kern.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#define MASK_AVX2 ((uint32_t)KERN_ISA_AVX2)
#define MASK_AVX512 (MASK_AVX2 | (uint32_t)KERN_ISA_AVX512)
#define MASK_AVX512VNNI (MASK_AVX512 | (uint32_t)KERN_ISA_AVX512VNNI)
#define MASK_AMX (MASK_AVX512VNNI | (uint32_t)KERN_ISA_AMX)

/* ascending; every level contains those before it */
static const struct {
    const char *name;
    uint32_t mask;
} levels[] = {
    {"ref", 0},
    {"avx2", MASK_AVX2},
    {"avxvnni", MASK_AVX2 | (uint32_t)KERN_ISA_AVXVNNI},
    {"avx512", MASK_AVX512},
    {"avx512vnni", MASK_AVX512VNNI},
    {"amx", MASK_AMX},
};
#define N_LEVELS (sizeof levels / sizeof levels[0])

int kern_isa_by_name(const char *name)
{
    for (size_t i = 0; name != NULL && i < N_LEVELS; i++)
        if (strcmp(levels[i].name, name) == 0)
            return (int)levels[i].mask;
    return -1;
}

const char *kern_isa_level_name(uint32_t mask)
{
    const char *name = levels[0].name;
    for (size_t i = 1; i < N_LEVELS; i++)
        if ((levels[i].mask & ~mask) == 0)
            name = levels[i].name;
    return name;
}

#if defined(__x86_64__)

/* state components of XCR0 */
#define XCR0_YMM 0x6u      /* SSE and the upper halves of YMM */
#define XCR0_ZMM 0xe6u     /* the above, mask registers, upper halves of ZMM0-15, ZMM16-31 */
#define XCR0_TILE 0x60000u /* tile configuration and tile data */

struct regs {
    uint32_t a, b, c, d;
};

static bool has(uint32_t reg, unsigned bit)
{
    return (reg >> bit & 1) != 0;
}

/* Register 0, by opcode: the assembler mnemonic would need -mxsave, and isa.c has baseline flags.
 * Only with OSXSAVE set. */
static uint32_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

/* Tile data are off in a new process; the first use without permission is SIGILL. */
static bool tile_permission(void)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    const long get_perm = 0x1022, req_perm = 0x1023, tile_data = 18;
    uint64_t have = 0;
    if (syscall(SYS_arch_prctl, req_perm, tile_data) != 0)
        return false;
    return syscall(SYS_arch_prctl, get_perm, &have) == 0 && (have >> tile_data & 1) != 0;
#else
    return false;
#endif
}

uint32_t kern_isa_host(void)
{
    struct regs f1 = {0}, f7 = {0}, f71 = {0};
    if (!__get_cpuid(1, &f1.a, &f1.b, &f1.c, &f1.d) || !has(f1.c, 27)) /* OSXSAVE */
        return 0;
    if (!__get_cpuid_count(7, 0, &f7.a, &f7.b, &f7.c, &f7.d))
        return 0;
    if (f7.a >= 1)
        __get_cpuid_count(7, 1, &f71.a, &f71.b, &f71.c, &f71.d);

    const uint32_t saved = xcr0();
    uint32_t isa = 0;
    if ((saved & XCR0_YMM) != XCR0_YMM)
        return 0;
    if (has(f1.c, 28) && has(f1.c, 12) && has(f1.c, 29) && has(f7.b, 5)) /* AVX, FMA, F16C, AVX2 */
        isa |= KERN_ISA_AVX2;
    if (isa != 0 && has(f71.a, 4))
        isa |= KERN_ISA_AVXVNNI;
    if (isa != 0 && (saved & XCR0_ZMM) == XCR0_ZMM && has(f7.b, 16) && has(f7.b, 17) &&
        has(f7.b, 30) && has(f7.b, 31)) { /* F DQ BW VL */
        isa |= KERN_ISA_AVX512;
        if (has(f7.c, 11))
            isa |= KERN_ISA_AVX512VNNI;
        if (has(f71.a, 5))
            isa |= KERN_ISA_AVX512BF16;
    }
    /* TILE, INT8, BF16: together or not at all */
    if (has(f7.d, 24) && has(f7.d, 25) && has(f7.d, 22) && (saved & XCR0_TILE) == XCR0_TILE &&
        tile_permission())
        isa |= KERN_ISA_AMX;
    return isa;
}

#else

uint32_t kern_isa_host(void)
{
    return 0;
}

#endif
