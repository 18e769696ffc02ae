/* read_loop.h - the one loop that this program times as "reading memory": every byte once, with the
 * widest loads that the CPU may use, so that it is a ceiling for kernels of any width. Pure; any
 * thread.
 */
#ifndef KT_KERN_READ_LOOP_H
#define KT_KERN_READ_LOOP_H

#include <stdint.h>

#define READ_LOOP_BYTES 512 /* granule */

/* Read [p, p + bytes), bytes a multiple of READ_LOOP_BYTES, p 64-byte aligned. `isa` as
 * kern_isa_host() says. */
void read_loop(const void *p, uint64_t bytes, uint32_t isa);
/* Name of the method for provenance: "read_zmm", "read_ymm", "read_c". */
const char *read_loop_method(uint32_t isa);

#endif
