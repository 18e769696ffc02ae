/* traits.c - rules that the numbers of a model obey wherever they came from, and rope frequencies
 * (models 2.3). Pure functions of the traits.
 */
#include <math.h>
#include <string.h>

#include "model/model_priv.h"

#define PI 3.14159265358979323846

static kt_status check_rope(const char *file, const struct mdl_traits *t, kt_err *err)
{
    const struct mdl_rope *r = &t->rope;
    if (r->dims < 2 || r->dims % 2 != 0 || r->dims > t->head_dim)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: rope turns %u of %u dimensions of a head, expected an even number from 2 to "
                "%u; the file is damaged",
                file, r->dims, t->head_dim, t->head_dim);
    if (!(r->base > 1 && isfinite(r->base)))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: the rope base is %g, it must be above 1; the file is damaged", file, r->base);
    if (!(r->attention_factor > 0 && isfinite(r->attention_factor)))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: the rope attention factor is %g, it must be above 0; the file is damaged",
                file, r->attention_factor);
    if (r->scaling == MDL_ROPE_NONE || r->scaling == MDL_ROPE_TABLE)
        return KT_OK;
    if (!(r->factor > 0 && isfinite(r->factor)))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: the rope scaling factor is %g, it must be above 0; the file is damaged", file,
                r->factor);
    if (r->scaling == MDL_ROPE_LINEAR)
        return KT_OK;
    if (!(r->original_ctx >= 1 && isfinite(r->original_ctx)))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: the original context length of the rope scaling is %g, it must be at least 1; "
                "the file is damaged",
                file, r->original_ctx);
    if (r->scaling == MDL_ROPE_YARN &&
        !(r->beta_fast > 0 && r->beta_slow > 0 && isfinite(r->beta_fast) && isfinite(r->beta_slow)))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: the yarn bounds are %g and %g, they must be above 0; the file is damaged",
                file, r->beta_fast, r->beta_slow);
    if (r->scaling == MDL_ROPE_LLAMA3 &&
        !(r->low_freq_factor > 0 && r->high_freq_factor >= r->low_freq_factor &&
          isfinite(r->high_freq_factor)))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: the llama3 frequency factors are %g and %g, they must rise and be above 0; "
                "the file is damaged",
                file, r->low_freq_factor, r->high_freq_factor);
    return KT_OK;
}

kt_status mdl_layers_check(const struct mdl *m, kt_err *err)
{
    if (m->n_tensors > 0 && m->t.n_layers > m->n_tensors)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: claims %u layers, but the model has only %u tensors; the file is damaged",
                mdl_traits_file(m), m->t.n_layers, m->n_tensors);
    return KT_OK;
}

kt_status mdl_traits_check(const struct mdl *m, kt_err *err)
{
    const struct mdl_traits *t = &m->t;
    const char *file = mdl_traits_file(m);
    if (t->n_kv_heads > t->n_heads || t->n_heads % t->n_kv_heads != 0)
        KT_FAIL(
            err, KT_E_FORMAT,
            "%s: %u attention heads cannot share %u key-value heads evenly; the file is damaged",
            file, t->n_heads, t->n_kv_heads);
    if ((uint64_t)t->n_heads * t->head_dim > 1u << 24)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: %u heads of %u dimensions: more than 2^24 in all is not supported", file,
                t->n_heads, t->head_dim);
    if (!(t->norm_eps > 0 && t->norm_eps < 1))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: the norm epsilon is %g, it must be between 0 and 1; the file is damaged", file,
                (double)t->norm_eps);
    if (t->n_experts > 0 && (t->top_k < 1 || t->top_k > t->n_experts))
        KT_FAIL(err, KT_E_FORMAT,
                "%s: %u of %u experts are used per token, expected 1 to %u; the file is damaged",
                file, t->top_k, t->n_experts, t->n_experts);
    if (t->n_moe_layers > 0 && t->expert_inter == 0)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: the width of the experts is missing or 0; the file is damaged", file);
    if (t->n_moe_layers < t->n_layers && t->dense_inter == 0)
        KT_FAIL(err, KT_E_FORMAT,
                "%s: the width of the dense layers is missing or 0; the file is damaged", file);
    return check_rope(file, t, err);
}

double mdl_yarn_mscale(double factor, double mscale)
{
    return factor > 1 ? 0.1 * mscale * log(factor) + 1 : 1;
}

/* Dimension whose wave turns n times over the original context. */
static double yarn_dim(const struct mdl_rope *r, double n)
{
    return r->dims * log(r->original_ctx / (2 * PI * n)) / (2 * log(r->base));
}

static void yarn_bounds(const struct mdl_rope *r, double *low, double *high)
{
    *low = yarn_dim(r, r->beta_fast);
    *high = yarn_dim(r, r->beta_slow);
    if (r->truncate) {
        *low = floor(*low);
        *high = ceil(*high);
    }
    if (*low < 0)
        *low = 0;
    if (*high > r->dims - 1)
        *high = r->dims - 1;
    if (*low == *high)
        *high += 0.001;
}

static double llama3(const struct mdl_rope *r, double f)
{
    double wave = 2 * PI / f;
    if (wave < r->original_ctx / r->high_freq_factor)
        return f;
    if (wave > r->original_ctx / r->low_freq_factor || r->low_freq_factor == r->high_freq_factor)
        return f / r->factor;
    double t =
        (r->original_ctx / wave - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return f * (t + (1 - t) / r->factor);
}

void mdl_rope_freqs(const struct mdl_rope *r, float *out)
{
    double low = 0, high = 1;
    if (r->scaling == MDL_ROPE_YARN)
        yarn_bounds(r, &low, &high);
    for (uint32_t i = 0; i < r->dims / 2; i++) {
        double f = pow(r->base, -2.0 * i / r->dims);
        switch (r->scaling) {
        case MDL_ROPE_NONE:
            break;
        case MDL_ROPE_LINEAR:
            f /= r->factor;
            break;
        case MDL_ROPE_YARN: {
            double ramp = fmin(fmax((i - low) / (high - low), 0), 1);
            f = f / r->factor * ramp + f * (1 - ramp);
            break;
        }
        case MDL_ROPE_LLAMA3:
            f = llama3(r, f);
            break;
        case MDL_ROPE_TABLE:
            f /= (double)r->divisors[i];
            break;
        }
        out[i] = (float)f;
    }
}
