/* seq_fill.c - positions with made-up keys and values, so that a measurement at long context need
 * not compute the context first.
 *
 * The values are ordinary numbers from a small table, read at another place for every position,
 * layer and head; they go through the same write as real ones. Nothing else of the sequence
 * differs. Not for serving. Engine thread, between steps.
 */
#include "engine.h"

#define TABLE 1024

kt_status kt_seq_fill(kt_seq *s, uint32_t n, kt_err *err)
{
    kt_engine *e = s->e;
    const struct mdl_traits *t = &e->model->t;
    if (!s->open || n > e->ctx - s->len || n + s->len > s->n_pages * KERN_KV_PAGE)
        KT_FAIL(err, KT_E_KV_FULL, "%u positions after %u exceed the sequence's reservation", n,
                s->len);
    float x[TABLE];
    uint32_t bits = 1;
    for (uint32_t i = 0; i < TABLE; i++) {
        bits = bits * 1664525u + 1013904223u;
        x[i] = ((float)(bits >> 8) * 0x1p-23f - 1.0f) * 0.5f;
    }
    if (t->head_dim > TABLE / 4)
        KT_FAIL(err, KT_E_UNSUPPORTED, "heads of %u elements are not made up here", t->head_dim);
    for (uint32_t pos = s->len; pos < s->len + n; pos++)
        for (uint32_t i = 0; i < t->n_layers * t->n_kv_heads; i++) {
            uint8_t *plane =
                eng_kv_plane(e, s->pages[pos / KERN_KV_PAGE], i / t->n_kv_heads, i % t->n_kv_heads);
            uint32_t at = (pos * 37 + i * 101) % (TABLE / 2);
            (void)kern_kv_write(e->kv_type, t->head_dim, pos % KERN_KV_PAGE, x + at,
                                x + TABLE / 4 + at, plane, plane + e->plane_bytes);
        }
    s->len += n;
    return KT_OK;
}
