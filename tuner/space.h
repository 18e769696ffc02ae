/* space.h - what a search chooses from: axes with their values, the combinations that are worth
 * timing, and how simple each is. The first value of every axis is the default; config 0 is the
 * default of all. Knows no engine: values are numbers or words. Owner: one thread.
 */
#ifndef KT_TUNER_SPACE_H
#define KT_TUNER_SPACE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"

#define SPACE_AXES 10
#define SPACE_VALUES 16
#define SPACE_TEXT 32
#define SPACE_MORE 64 /* configs that space_add may add */

struct space_value {
    char text[SPACE_TEXT]; /* "" for a number */
    double number;
};

struct space_axis {
    char name[SPACE_TEXT];
    struct space_value v[SPACE_VALUES];
    uint32_t n;
    bool apart; /* space_build combines its default only; space_add knows the others */
};

struct space {
    struct space_axis axis[SPACE_AXES];
    uint32_t n_axes;
    uint32_t total; /* combinations before anything was left out, and added ones */
    uint32_t n;     /* configs */
    uint32_t room;  /* for so many */
    uint8_t *at;    /* [n][n_axes] index of the value */
    uint32_t *rank; /* [n] simplicity, lower is simpler */
    double *prior;  /* [n] forecast in seconds, 0 without one */
};

void space_free(struct space *s);
/* A new axis, without values yet; NULL when there are too many. */
struct space_axis *space_axis(struct space *s, const char *name);
/* Values that are there already are not added again; nor is one too many. */
void space_number(struct space_axis *a, double v);
void space_word(struct space_axis *a, const char *v);
/* All combinations. keep (NULL: all) tells which to time, and may set the forecast; the default is
 * kept in any case. */
kt_status space_build(struct space *s, bool (*keep)(void *ctx, const uint8_t *at, double *prior),
                      void *ctx, kt_err *err);

/* One more config after those of space_build; its number, or that of an equal one. UINT32_MAX:
 * there is no room. */
uint32_t space_add(struct space *s, const uint8_t *at);
/* Index of a value on an axis; false when there is none. */
bool space_find(const struct space *s, const char *axis, const struct space_value *v,
                uint32_t *axis_at, uint8_t *value_at);

/* Simplicity of a combination: fewer threads, no SMT, no huge pages, the default kernel, few
 * departures. */
uint32_t space_rank(const struct space *s, const uint8_t *at);

/* Value of an axis in a config; NULL when there is no such axis. */
const struct space_value *space_get(const struct space *s, uint32_t config, const char *axis);
double space_get_number(const struct space *s, uint32_t config, const char *axis, double missing);
/* {"threads": 2, "kernel": "avx2"}; NULL when memory is short. */
json_t *space_json(const struct space *s, uint32_t config);
json_t *space_value_json(const struct space_value *v);
/* "threads 2, kernel avx2": all axes, or those that differ from the default ("the default" when
 * none does). */
void space_text(const struct space *s, uint32_t config, bool all, struct strbuf *out);

#endif
