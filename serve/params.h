/* params.h - the one table of request fields: names, aliases, types, ranges, defaults, and which
 * API has them. The mapper reads numbers, booleans and ranges from it; documentation is made from
 * it. Immutable.
 */
#ifndef KT_SERVE_PARAMS_H
#define KT_SERVE_PARAMS_H

#include "serve/req.h"

enum param_type {
    P_BOOL,
    P_INT,
    P_NUM,
    P_CUSTOM /* has its own reader in the mapper */
};

enum param_use {
    P_USED,
    P_ACCEPTED,   /* checked, but of no effect in this version's scheduling */
    P_UNSUPPORTED /* any value other than the default is answered with 501 */
};

struct param {
    const char *name, *aliases; /* aliases: separated by one space */
    unsigned apis;
    enum param_type type;
    enum param_use use;
    bool open_min; /* the minimum itself is excluded */
    double min, max;
    const char *def; /* default as text: JSON, or words for what depends on the model */
    size_t offset;   /* of the field in kts_req: bool, int64_t or double by type; 0: none */
};

#define PARAM_NONE 0
extern const struct param param_table[];
extern const size_t param_count;

/* The row of a name or alias for that API, or NULL. */
const struct param *param_find(const char *name, enum kts_api api);
/* Check `v` against the row and store it. Nothing happens for null. */
int param_store(const struct param *p, const char *name, const json_t *v, struct kts_req *r,
                struct kts_fail *f);

#endif
