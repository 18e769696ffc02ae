/* load_show.h - the progress of loading a model on standard error, for every command that loads
 * one: a bar on a terminal, a line every few seconds elsewhere. Owner: the main thread, which
 * loads.
 */
#ifndef KT_TUNER_LOAD_SHOW_H
#define KT_TUNER_LOAD_SHOW_H

#include "kt.h"

/* Before kt_engine_open. */
void load_show(kt_engine_opts *o);

#endif
