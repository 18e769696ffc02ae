/* attn_avx512vnni.c - attention over INT8 pages with the 512-bit vpdpbusd: the AVX512 source, whose
 * products of bytes then add up in 32 bits at once.
 *
 * The compiler's flags decide, so the source sees __AVX512VNNI__; the row needs
 * KERN_ISA_AVX512VNNI and hands pages of floats to avx512/. Bits equal ref/. No symbol but the
 * accessor. Pure; any thread.
 */
#if !defined(__AVX512VNNI__)
#error "compile with the AVX512-VNNI flags of configure"
#endif
#include "avx512/attn_codes_avx512.c"
