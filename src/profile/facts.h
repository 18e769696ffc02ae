/* facts.h - small pieces of a host as JSON values, shared by fingerprint.c and build.c. Unknown
 * facts become null. All return new references (NULL when memory is short, which jansson's setters
 * pass on as failure). Internal to src/profile; no state. */
#ifndef KT_PROFILE_FACTS_H
#define KT_PROFILE_FACTS_H

#include <jansson.h>

#include "host/host.h"

json_t *facts_text(const char *s);           /* NULL or "": null; cut at 4096 bytes */
json_t *facts_bytes(uint64_t bytes);         /* HOST_UNKNOWN_BYTES: null; kept below 2^53 */
json_t *facts_flag(int v);                   /* < 0: null */
json_t *facts_set(const struct host_set *s); /* "0-3,8" */
/* Flags that matter to kernels and that the CPU states and the operating system enables; the
 * self-test is not part of it, because a start of the server must come to the same list without
 * running one. */
json_t *facts_usable_isa(const struct host *h);

/* All sections of host.json that are facts, set in `root`. false when memory is short. */
bool facts_environment(const struct host *h, json_t *root);
bool facts_topology(const struct host *h, json_t *root);
bool facts_isa(const struct host *h, json_t *root);

#endif
