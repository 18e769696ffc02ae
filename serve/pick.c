/* pick.c - logit bias, bans and penalties in front of kt_sample.
 * The order is the API's: bias, then penalties (repetition over the last tokens of prompt and
 * output, presence and frequency over the output), then the filters and the draw, which the library
 * does. A request that uses none of them is sampled from the engine's row itself. Log probabilities
 * are always taken from the raw logits, elsewhere. Engine thread only; allocates at init only.
 */
#include "serve/pick.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"

kt_status picker_init(struct picker *p, const kt_tokenizer *tok, uint32_t vocab, kt_err *err)
{
    memset(p, 0, sizeof *p);
    p->vocab = vocab;
    for (uint32_t id = 0; id < vocab; id++)
        p->n_eos += kt_token_is_eos(tok, (int32_t)id);
    p->row = mem_aligned(64, (size_t)vocab * sizeof *p->row);
    p->count = mem_calloc(vocab, sizeof *p->count);
    p->scratch = mem_aligned(64, (size_t)vocab * 16);
    p->eos = mem_calloc(p->n_eos + 1, sizeof *p->eos);
    if (p->row == NULL || p->count == NULL || p->scratch == NULL || p->eos == NULL) {
        picker_free(p);
        KT_FAIL(err, KT_E_NOMEM, "no memory for sampling over %u tokens", vocab);
    }
    p->n_eos = 0;
    for (uint32_t id = 0; id < vocab; id++)
        if (kt_token_is_eos(tok, (int32_t)id))
            p->eos[p->n_eos++] = (int32_t)id;
    return KT_OK;
}

void picker_free(struct picker *p)
{
    mem_free(p->row);
    mem_free(p->count);
    mem_free(p->scratch);
    mem_free(p->eos);
    memset(p, 0, sizeof *p);
}

bool picker_needs_history(const struct kts_req *r)
{
    return r->presence_penalty != 0 || r->frequency_penalty != 0 ||
           (r->repetition_penalty != 1 && r->repeat_last_n != 0);
}

/* Token number k counted from the end, over output and prompt. */
static int32_t from_end(const struct pick_in *in, uint64_t k)
{
    return k < in->n_made ? in->made[in->n_made - 1 - k]
                          : in->prompt[in->n_prompt - 1 - (k - in->n_made)];
}

static void penalize_repetition(struct picker *p, const struct pick_in *in)
{
    const struct kts_req *r = in->req;
    uint64_t all = (uint64_t)in->n_prompt + in->n_made,
             n = r->repeat_last_n < 0 || (uint64_t)r->repeat_last_n > all
                     ? all
                     : (uint64_t)r->repeat_last_n;
    float by = (float)r->repetition_penalty;
    if (r->repetition_penalty == 1)
        return;
    for (uint64_t k = 0; k < n; k++) {
        int32_t id = from_end(in, k);
        if (p->count[id]++ == 0)
            p->row[id] = p->row[id] > 0 ? p->row[id] / by : p->row[id] * by;
    }
    for (uint64_t k = 0; k < n; k++)
        p->count[from_end(in, k)] = 0;
}

static void penalize_presence(struct picker *p, const struct pick_in *in)
{
    const struct kts_req *r = in->req;
    if (r->presence_penalty == 0 && r->frequency_penalty == 0)
        return;
    for (uint32_t k = 0; k < in->n_made; k++)
        p->count[in->made[k]]++;
    for (uint32_t k = 0; k < in->n_made; k++) {
        int32_t id = in->made[k];
        if (p->count[id] == 0)
            continue;
        p->row[id] -= (float)(r->presence_penalty + r->frequency_penalty * (double)p->count[id]);
        p->count[id] = 0;
    }
}

int32_t picker_pick(struct picker *p, const float *logits, const struct pick_in *in)
{
    const struct kts_req *r = in->req;
    bool ban_eos = r->ignore_eos || (int64_t)in->n_made < r->min_tokens;
    kt_sampling s = {.temperature = (float)r->temperature,
                     .top_k = (int32_t)r->top_k,
                     .top_p = (float)r->top_p,
                     .min_p = (float)r->min_p,
                     .seed = in->seed,
                     .choice = in->choice};
    if (r->n_bias > 0 || ban_eos || picker_needs_history(r)) {
        memcpy(p->row, logits, (size_t)p->vocab * sizeof *p->row);
        for (uint32_t i = 0; i < r->n_bias; i++)
            p->row[r->bias[i].id] += r->bias[i].bias;
        for (uint32_t i = 0; ban_eos && i < p->n_eos; i++)
            p->row[p->eos[i]] = -INFINITY;
        for (uint32_t i = 0; (int64_t)in->n_made < r->min_tokens && i < r->n_stop_ids; i++)
            p->row[r->stop_ids[i]] = -INFINITY;
        penalize_repetition(p, in);
        penalize_presence(p, in);
        logits = p->row;
    }
    return kt_sample(logits, p->vocab, &s, in->position, p->scratch);
}
