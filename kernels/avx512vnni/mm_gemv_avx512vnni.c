/* mm_gemv_avx512vnni.c - block-format products for few tokens with the 512-bit vpdpbusd: the AVX512
 * source, whose products of bytes then add up in 32 bits at once.
 *
 * The compiler's flags decide, so mm512.h sees __AVX512VNNI__; the rows need KERN_ISA_AVX512VNNI.
 * The directory avx512/ is compiled without, for processors that have AVX512 alone. Bits equal
 * ref/. No symbol but the accessor. Pure; any thread.
 */
#if !defined(__AVX512VNNI__)
#error "compile with the AVX512-VNNI flags of configure"
#endif
#include "avx512/mm_gemv_avx512.c"
