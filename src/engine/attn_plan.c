/* attn_plan.c - how the attention of a step is divided among the workers.
 *
 * An item is some consecutive positions of one sequence, or a range of the key blocks of one
 * position; workers claim (item, kv head) pairs. Several positions share each page that is read, so
 * a prompt gets as many per item as balance allows. Single positions of long sequences are split
 * when there are too few of them for the workers: each range leaves its part sums in a slot, and
 * the worker that finishes last joins them. Results never depend on the division (canonical
 * arithmetic). Engine thread, before the team runs.
 */
#include "engine.h"

#define ROWS_MOST 64 /* (position, head) pairs of an item: their scores and queries stay in L2 */
#define POSITIONS_LEAST 4     /* that the part sums have room for, however long the context */
#define PART_BYTES (4u << 20) /* above it fewer positions share an item */
#define CLAIMS 16             /* wanted per worker: the end of a phase waits for at most one */
#define RANGE_LEAST 4 /* blocks of a range: below, queries are rotated more often than used */

static uint32_t group_of(const struct mdl_traits *t)
{
    return t->n_heads / t->n_kv_heads;
}

void eng_attn_sizes(struct kt_engine *e)
{
    const struct mdl_traits *t = &e->model->t;
    uint32_t group = group_of(t), n = group < ROWS_MOST ? ROWS_MOST / group : 1;
    while (n > POSITIONS_LEAST && kern_attn_part_bytes(n * group, t->head_dim, e->ctx) > PART_BYTES)
        n /= 2;
    e->attn_positions = n < e->batch ? n : e->batch;
    e->slot_bytes = (kern_attn_part_bytes(group, t->head_dim, e->ctx) + 63) / 64 * 64;
    e->n_slots = e->max_workers > 1 ? SLOTS_PER_WORKER * e->max_workers : 0;
    e->max_attn = e->batch + (CLAIMS + SLOTS_PER_WORKER) * e->max_workers;
}

static uint32_t blocks_of(const struct kt_engine *e, uint32_t token)
{
    return e->step.pos[token] / KERN_KV_BLOCK + 1;
}

/* First token of the item that ends before token `end`: of the same sequence, at most `most`. */
static uint32_t item_start(const struct kt_engine *e, uint32_t end, uint32_t most)
{
    const struct eng_step *s = &e->step;
    uint32_t first = end - 1;
    while (first > 0 && end - first < most && s->item[first - 1] == s->item[end - 1])
        first--;
    return first;
}

/* The one position of an item as ranges of at most `size` blocks; n_slots is how many are taken. */
static void split(struct kt_engine *e, uint32_t token, uint64_t size, uint32_t *n_slots)
{
    struct eng_step *s = &e->step;
    uint32_t blocks = blocks_of(e, token), n = (uint32_t)((blocks + size - 1) / size);
    for (uint32_t h = 0; h < e->model->t.n_kv_heads; h++)
        atomic_store_explicit(&s->slot_left[*n_slots + h], n, memory_order_relaxed);
    for (uint32_t i = 0; i < n; i++)
        s->attn[s->n_attn++] = (struct eng_attn_item){
            .token = token,
            .n = 1,
            .block0 = (uint32_t)((uint64_t)blocks * i / n),
            .block1 = (uint32_t)((uint64_t)blocks * (i + 1) / n),
            .ranges = n,
            .slot = *n_slots,
        };
    *n_slots += e->model->t.n_kv_heads;
}

void eng_attn_plan(struct kt_engine *e)
{
    const struct mdl_traits *t = &e->model->t;
    struct eng_step *s = &e->step;
    uint64_t pairs = (uint64_t)s->n * t->n_kv_heads, claims = (uint64_t)CLAIMS * e->n_workers,
             share = pairs / claims, work = 0, keys = 0;
    uint32_t most = share < 1 ? 1 : share > e->attn_positions ? e->attn_positions : (uint32_t)share;
    uint32_t n_slots = 0;
    s->attn_macs = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        work += (uint64_t)blocks_of(e, i) * t->n_kv_heads;
        s->attn_macs += 2 * (uint64_t)(s->pos[i] + 1) * t->n_heads * t->head_dim * t->n_layers;
    }
    uint64_t size = work / claims < RANGE_LEAST ? RANGE_LEAST : work / claims;
    s->n_attn = 0;
    /* the last positions of a prompt see the most keys: hand them out first */
    for (uint32_t end = s->n, first; end > 0; end = first) {
        first = item_start(e, end, most);
        uint64_t blocks = blocks_of(e, end - 1);
        keys += s->pos[end - 1] + 1;
        if (end - first == 1 && blocks > 2 * size && n_slots + t->n_kv_heads <= e->n_slots &&
            blocks * SLOTS_PER_WORKER * e->n_workers > work &&
            s->n_attn + blocks / size + 1 + first < e->max_attn)
            split(e, first, size, &n_slots);
        else
            s->attn[s->n_attn++] = (struct eng_attn_item){
                .token = first, .n = end - first, .block1 = (uint32_t)blocks, .ranges = 1};
    }
    s->kv_read = keys * t->n_kv_heads * 2 * e->plane_bytes / KERN_KV_PAGE * t->n_layers;
}
