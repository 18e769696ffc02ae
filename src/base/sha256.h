/* sha256.h - SHA-256 (FIPS 180-4) for fingerprints and digests; not for secrets beyond comparing
 * keys. Any thread. */
#ifndef KT_BASE_SHA256_H
#define KT_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

struct sha256 {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t block[64];
};

void sha256_init(struct sha256 *s);
void sha256_update(struct sha256 *s, const void *data, size_t n);
void sha256_final(struct sha256 *s, uint8_t digest[32]);
/* Digest of one block as 64 hex digits and NUL. */
void sha256_hex(const void *data, size_t n, char out[65]);

#endif
