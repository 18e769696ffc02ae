/* predict.c - what the plan expects of this engine's decode, so that it can be set against what is
 * observed: seconds of a step of one stream at a context of 1024 tokens, by the same functions as
 * kttune plan. Without a profile nothing is predicted: 0. A prediction that cannot be made is no
 * reason to refuse a model, so errors end here, in the log. Engine thread, once, at open.
 */
#include "engine.h"

#include "base/log.h"
#include "model/shape.h"
#include "plan/plan_model.h"

double eng_predict_decode(struct kt_engine *e, const kt_engine_opts *o)
{
    struct shape *s = NULL;
    struct plan_model *m = NULL;
    struct plan_model_opts po;
    kt_err err;
    double seconds = 0;
    if (e->profile == NULL || e->strict)
        return 0;
    plan_model_opts_init(&po);
    po.goal = "decode";
    po.ctx_tokens = e->ctx;
    po.kv_type = kern_kv_name(e->kv_type);
    kt_status st = shape_open(o->model_path, e->quant >= 0 ? o->quant : NULL,
                              e->quant_dense >= 0 ? o->quant_dense : NULL, &s, &err);
    if (st == KT_OK)
        st = plan_model(s, e->host, e->plan, e->profile, &po, &m, &err);
    if (st != KT_OK)
        log_info("decode speed is not predicted: %s", err.msg);
    else if (!m->decode.possible)
        log_info("decode speed is not predicted: %s", m->decode.why_not);
    else
        seconds = m->decode.seconds;
    if (seconds > 0)
        log_info("plan: a decode step of one stream takes %.3g ms (%.3g tokens/s) at %u tokens",
                 seconds * 1e3, 1 / seconds, m->decode.at_tokens);
    plan_model_free(m);
    shape_close(s);
    return seconds;
}
