/* tables.h - the accessor of each per-ISA table; table.c is the only caller. A table is a const
 * array in its own ISA library; the accessor is plain data access and safe on any CPU. */
#ifndef KT_KERN_TABLES_H
#define KT_KERN_TABLES_H

#include "kern.h"

const struct kern *kern_ref_mm(size_t *n);
const struct kern *kern_ref_vec(size_t *n);
const struct kern *kern_avx2_mm(size_t *n);
const struct kern *kern_avx2_gemm(size_t *n);
const struct kern *kern_avx2_plain(size_t *n);
const struct kern *kern_avx2_fp8(size_t *n);
const struct kern *kern_avx2_i8(size_t *n);
const struct kern *kern_avx2_vec(size_t *n);
const struct kern *kern_avxvnni_mm(size_t *n);
const struct kern *kern_avxvnni_gemm(size_t *n);
const struct kern *kern_avxvnni_i8(size_t *n);
const struct kern *kern_avxvnni_evex_mm(size_t *n); /* tests only */
const struct kern *kern_avxvnni_evex_gemm(size_t *n);
const struct kern *kern_avxvnni_evex_i8(size_t *n);
const struct kern *kern_avx512_mm(size_t *n);
const struct kern *kern_avx512_gemm(size_t *n);
const struct kern *kern_avx512_plain(size_t *n);
const struct kern *kern_avx512_fp8(size_t *n);
const struct kern *kern_avx512_i8(size_t *n);
const struct kern *kern_avx512_vec(size_t *n);
const struct kern *kern_avx512vnni_mm(size_t *n);
const struct kern *kern_avx512vnni_gemm(size_t *n);
const struct kern *kern_avx512vnni_i8(size_t *n);
const struct kern *kern_avx512vnni_vec(size_t *n);
const struct kern *kern_avx512bf16_mm(size_t *n);
const struct kern *kern_amx_gemm(size_t *n);
const struct kern *kern_amx_i8(size_t *n);
const struct kern *kern_amx_bf16(size_t *n);
/* The same sources over the tile model of amx/tile.h; in the kernel tests only. */
const struct kern *kern_amx_gemm_emulated(size_t *n);
const struct kern *kern_amx_i8_emulated(size_t *n);
const struct kern *kern_amx_bf16_emulated(size_t *n);

#endif
