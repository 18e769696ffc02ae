/* sum64.h - a fast 64-bit checksum against accidents: flipped bits, cut or shifted data. Not
 * against forgery. Every step is a bijection of the running state, so a change within one 8-byte
 * word is always found, any other change but for one chance in 2^64. Pure; any thread.
 */
#ifndef KT_BASE_SUM64_H
#define KT_BASE_SUM64_H

#include <stddef.h>
#include <stdint.h>

uint64_t sum64(const void *data, size_t n, uint64_t seed);

#endif
