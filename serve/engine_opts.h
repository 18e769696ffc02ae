/* engine_opts.h - from the program's options to the engine's. Pure. */
#ifndef KT_SERVE_ENGINE_OPTS_H
#define KT_SERVE_ENGINE_OPTS_H

#include "base/status.h"
#include "serve/options.h"

void engine_opts_from(const struct options *o, kt_engine_opts *e);

#endif
