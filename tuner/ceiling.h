/* ceiling.h - what the hardware allows, measured beside whatever is compared with it: bytes per
 * second of read-only memory traffic, and int8 operations per second of the dot-product instruction
 * that the kernels use, alone and with the fp32 work of canonical arithmetic beside it. One sample
 * a call, so that callers interleave samples with their own.
 * Owner: the thread that opened it.
 */
#ifndef KT_TUNER_CEILING_H
#define KT_TUNER_CEILING_H

#include <stdint.h>

#include "base/status.h"

struct ceiling;

/* n threads pinned to cpus[n] (NULL: not pinned), each with its own buffer of bytes / n touched by
 * itself. */
kt_status ceiling_open(uint32_t n, const int *cpus, uint64_t bytes, struct ceiling **out,
                       kt_err *err);
void ceiling_close(struct ceiling *c);
/* Bytes per second over all threads, every byte read once. */
double ceiling_read(struct ceiling *c);
/* Multiplications plus additions per second (2 per int8 product) of `isa`'s best instruction:
 * vpdpbusd on 512 bits with KERN_ISA_AVX512VNNI, on 256 with KERN_ISA_AVXVNNI; vpmaddubsw, vpmaddwd
 * and vpaddd on 512 bits with KERN_ISA_AVX512, on 256 with KERN_ISA_AVX2; 0 when the mask has none.
 * About 20 ms. */
double ceiling_int8(struct ceiling *c, uint32_t isa);
/* The same with what each group of 32 costs beside its 8 dot products: one convert, one multiply,
 * one fma (the group-scaled peak). No loads, no decoding. Kernels without VNNI add the 16-bit
 * products of narrow formats before they widen them, so they can pass this loop, which widens each.
 * About 20 ms. */
double ceiling_scaled(struct ceiling *c, uint32_t isa);
const char *ceiling_int8_name(uint32_t isa);
/* Multiplications plus additions per second in fp32, vfmadd231ps alone: formats with fp32
 * activations. */
double ceiling_fma(struct ceiling *c, uint32_t isa);
const char *ceiling_fma_name(uint32_t isa);

#endif
