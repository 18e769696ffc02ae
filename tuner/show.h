/* show.h - a profile as a table for people: host, limits, bandwidth with the knee, joins, experts
 * per variant, decisions with reasons, warnings. Prints only what the file says; computes no new
 * facts. Used by `kttune show` and at the end of `kttune probe`. */
#ifndef KT_TUNER_SHOW_H
#define KT_TUNER_SHOW_H

#include "base/strbuf.h"
#include "profile/profile.h"

/* m: result of matching against this machine, or NULL when the file was not compared. color: use
 * terminal attributes. */
void show_profile(const struct profile *p, const struct profile_match *m, bool color,
                  struct strbuf *out);
/* One decision in two or three lines. */
void show_decision(const struct json_t *d, bool color, struct strbuf *out);
/* "24.3 GB/s", "1.2 us", "210 Gop/s" */
void show_value(double v, const char *unit, char *out, size_t n);

#endif
