/* mm_i8_avxvnni.c - INT8 matrices with one scale per row with the 256-bit vpdpbusd of client
 * processors: the AVX2 source, whose products of bytes then add up in 32 bits at once.
 *
 * With -mavxvnni the instruction has its VEX form and the rows need KERN_ISA_AVXVNNI. The tests
 * also compile this file with the AVX512 flags: the same logic in EVEX form, for processors that
 * have that one. Bits equal ref/. No symbol but the accessor. Pure; any thread.
 */
#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__) ||                               \
    !(defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__)))
#error "compile with the AVX-VNNI flags of configure"
#endif
#define KERN_VNNI256 1
#include "avx2/mm_i8_avx2.c"
