/* source.h - the model's files as the packers read them: whole pieces, in parallel, by read(2) into
 * the packer's own buffer.
 *
 * Not the mapping: reading a mapped file maps each page, which costs more than copying it, counts
 * as this process' memory until it is given back, and a file that shrinks meanwhile kills the
 * process. A piece that is not in memory starts reading ahead for everybody, so that a disk sees
 * long sequential requests as long as pieces are asked for about in file order. Any thread.
 */
#ifndef KT_ENGINE_SOURCE_H
#define KT_ENGINE_SOURCE_H

#include "base/status.h"
#include "model/model.h"

struct source;

/* Opens all files of a model. drop: give pages back to the system as soon as they were read, for
 * hosts that cannot hold the packed copy beside the file's pages. */
kt_status source_open(const struct mdl *m, bool drop, struct source **out, kt_err *err);
void source_close(struct source *s);
/* Bytes of all files. */
uint64_t source_bytes(const struct mdl *m);
/* Copy `bytes` bytes of the file that is mapped at `at` to dst. KT_E_IO when it cannot be read or
 * has become shorter. */
kt_status source_read(struct source *s, const uint8_t *at, uint64_t bytes, uint8_t *dst,
                      kt_err *err);

#endif
