/* pack_cache.h - packed weights kept in a file, so that a later start reads them instead of packing
 * (--pack-cache). One file per model name and layout; a file that does not fit or is damaged is
 * ignored with a reason in the log, and replaced. Nothing here can make a load fail but a directory
 * that is none. Owner: the engine thread; its workers inside.
 */
#ifndef KT_ENGINE_PACK_CACHE_H
#define KT_ENGINE_PACK_CACHE_H

#include "engine.h"
#include "source.h"

struct pack_cache;

/* drop: as source_open. KT_E_INVALID when dir is not a directory. */
kt_status pack_cache_open(struct kt_engine *e, const kt_engine_opts *o, struct source *src,
                          bool drop, struct pack_cache **out, kt_err *err);
/* Fill the arenas. false: there is no usable file (the log says why); the arenas hold anything. */
bool pack_cache_read(struct pack_cache *c);
/* Write the arenas; failures are logged, and leave the directory as it was. */
bool pack_cache_write(struct pack_cache *c);
void pack_cache_close(struct pack_cache *c);

#endif
