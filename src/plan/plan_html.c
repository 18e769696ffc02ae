/* plan_html.c - a plan of a model as one HTML page: memory per place and the terms of a step as
 * bars (inline SVG), the same numbers in tables under them. No script, nothing loaded from
 * elsewhere, readable in light and dark. Prints what the value holds; computes nothing but shares.
 * Pure.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "plan/plan_model.h"

#define WIDTH 860.0

static const char *const colors[] = {"#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee",
                                     "#aa3377", "#bbbbbb", "#ee8866", "#44bb99", "#99ddff"};
#define N_COLORS (sizeof colors / sizeof colors[0])

static void text(struct strbuf *b, const char *s)
{
    for (; *s != '\0'; s++)
        switch (*s) {
        case '<':
            sb_puts(b, "&lt;");
            break;
        case '>':
            sb_puts(b, "&gt;");
            break;
        case '&':
            sb_puts(b, "&amp;");
            break;
        case '"':
            sb_puts(b, "&quot;");
            break;
        default:
            sb_putc(b, *s);
        }
}

static void gigabytes(struct strbuf *b, double v)
{
    if (isfinite(v))
        sb_printf(b, "<td class=n>%.2f</td>", v / 1e9);
    else
        sb_puts(b, "<td class=n>?</td>");
}

/* One block of a bar; returns where the next begins. A title shows on hovering. */
static double block(struct strbuf *b, double x, double width, const char *color, const char *title,
                    double value, const char *unit)
{
    if (width <= 0)
        return x;
    sb_printf(b, "<rect x=\"%.2f\" y=\"0\" width=\"%.2f\" height=\"26\" fill=\"%s\"><title>", x,
              width, color);
    text(b, title);
    sb_printf(b, ": %.3f %s</title></rect>", value, unit);
    return x + width;
}

static void legend(struct strbuf *b, const char *color, const char *what)
{
    sb_printf(b, "<span class=key><i style=\"background:%s\"></i>", color);
    text(b, what);
    sb_puts(b, "</span> ");
}

static void memory(struct strbuf *b, const struct plan_model *m)
{
    static const char *const names[] = {"experts", "dense", "KV", "scratch", "system"};
    double most = 0;
    for (uint32_t i = 0; i < m->n_places; i++) {
        const struct plan_place *q = &m->places[i];
        double used = q->experts + q->dense + q->kv + q->scratch + q->system;
        most = fmax(most, isfinite(q->capacity) ? fmax(q->capacity, used) : used);
    }
    sb_puts(b, "<h2>Memory</h2><p>");
    for (int k = 0; k < 5; k++)
        legend(b, colors[k == 4 ? 6 : k], names[k]);
    sb_puts(b, "</p><table><tr><th>place</th><th></th><th>experts</th><th>dense</th><th>KV</th>"
               "<th>scratch</th><th>capacity, GB</th></tr>");
    for (uint32_t i = 0; i < m->n_places; i++) {
        const struct plan_place *q = &m->places[i];
        double part[5] = {q->experts, q->dense, q->kv, q->scratch, q->system}, x = 0;
        double scale = most > 0 ? 360 / most : 0;
        sb_printf(b, "<tr><td>%s</td><td><svg width=\"362\" height=\"26\">", q->name);
        for (int k = 0; k < 5; k++)
            x = block(b, x, part[k] * scale, colors[k == 4 ? 6 : k], names[k], part[k] / 1e9, "GB");
        if (isfinite(q->capacity))
            sb_printf(b, "<rect x=\"0.5\" y=\"0.5\" width=\"%.2f\" height=\"25\" class=frame />",
                      q->capacity * scale);
        sb_puts(b, "</svg></td>");
        for (int k = 0; k < 4; k++)
            gigabytes(b, part[k]);
        gigabytes(b, q->capacity);
        sb_puts(b, "</tr>");
    }
    sb_puts(b, "</table>");
}

static void prediction(struct strbuf *b, const char *title, const struct plan_prediction *q)
{
    double x = 0;
    size_t color = 0;
    sb_printf(b, "<h2>%s", title);
    if (!q->possible) {
        sb_puts(b, "</h2><p>Not predicted: ");
        text(b, q->why_not);
        sb_puts(b, "</p>");
        return;
    }
    sb_printf(b,
              ": %.2f tokens/s</h2><p>%u token%s a step, %.3f ms</p><svg width=\"%.0f\" "
              "height=\"26\">",
              q->tokens_per_second, q->tokens, q->tokens == 1 ? "" : "s", q->seconds * 1e3, WIDTH);
    for (uint32_t i = 0; i < q->n_terms; i++)
        if (!q->terms[i].inside)
            x = block(b, x, q->terms[i].seconds / q->seconds * WIDTH, colors[color++ % N_COLORS],
                      q->terms[i].what, q->terms[i].seconds * 1e3, "ms");
    sb_puts(b, "</svg><table><tr><th></th><th>part</th><th>GB</th><th>GB/s or Top/s</th>"
               "<th>us per layer</th><th>ms</th><th>share</th></tr>");
    color = 0;
    for (uint32_t i = 0; i < q->n_terms; i++) {
        const struct plan_term *t = &q->terms[i];
        sb_printf(b, "<tr><td>%s%s%s</td><td>", t->inside ? "" : "<i style=\"background:",
                  t->inside ? "" : colors[color % N_COLORS], t->inside ? "" : "\"></i>");
        color += !t->inside;
        text(b, t->what);
        sb_printf(b, "</td><td class=n>%.3f</td>", t->bytes / 1e9);
        if (t->by_ops)
            sb_printf(b, "<td class=n>%.2f Top/s</td>", t->ops / t->seconds / 1e12);
        else if (t->bytes > 0 && t->seconds > 0)
            sb_printf(b, "<td class=n>%.1f GB/s</td>", t->bytes / t->seconds / 1e9);
        else
            sb_puts(b, "<td></td>");
        if (t->count > 0)
            sb_printf(b, "<td class=n>%.1f</td>", t->seconds * 1e6 / t->count);
        else
            sb_puts(b, "<td></td>");
        sb_printf(b, "<td class=n>%.3f</td>", t->seconds * 1e3);
        if (t->inside)
            sb_puts(b, "<td>beside</td></tr>");
        else
            sb_printf(b, "<td class=n>%.1f %%</td></tr>", 100 * t->seconds / q->seconds);
    }
    sb_puts(b, "</table>");
}

static void rates(struct strbuf *b, const struct plan_model *m)
{
    sb_puts(
        b, "<h2>Rates</h2><table><tr><th></th><th>of</th><th>value</th><th>unit</th><th>origin</th>"
           "<th>from</th></tr>");
    for (int i = 0; i < COST_CONSTANTS; i++) {
        const struct cost_source *s = &m->sources[i];
        if (s->origin == COST_MISSING || s->value <= 0)
            continue;
        sb_printf(b, "<tr><td>%s</td><td>%s</td><td class=n>%.4g</td><td>%s</td><td>%s</td><td>",
                  s->symbol, s->what, s->value, s->unit, cost_origin_name(s->origin));
        text(b, s->from);
        sb_puts(b, "</td></tr>");
    }
    sb_puts(b, "</table>");
}

static void refusal(struct strbuf *b, const struct plan_model *m)
{
    sb_puts(b, "<h2 class=bad>Does not fit</h2><p>");
    text(b, m->refusal);
    sb_puts(b, "</p><ol>");
    for (uint32_t i = 0; i < m->n_remedies; i++) {
        sb_puts(b, "<li><b>");
        text(b, m->remedies[i].action);
        sb_puts(b, "</b> ");
        text(b, m->remedies[i].price);
        sb_puts(b, "</li>");
    }
    sb_puts(b, "</ol>");
}

void plan_model_html(const struct plan_model *m, const struct host *h, struct strbuf *b)
{
    const struct shape *s = m->shape;
    sb_puts(b, "<!doctype html><html lang=en><meta charset=utf-8><title>");
    text(b, s->name);
    sb_puts(b, "</title><style>:root{color-scheme:light dark}body{font:15px/1.45 system-ui,"
               "sans-serif;max-width:900px;margin:2em auto;padding:0 1em}table{border-collapse:"
               "collapse;margin:.6em 0}td,th{padding:.15em .7em;text-align:left;font-weight:normal}"
               "th{opacity:.65}td.n{text-align:right;font-variant-numeric:tabular-nums}"
               "i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}.key{margin-right:"
               "1em}.frame{fill:none;stroke:currentColor}.bad{color:#c33}</style><h1>");
    text(b, s->name);
    sb_puts(b, "</h1><p>");
    text(b, s->arch);
    sb_printf(b, ", %u layers, %u of %u experts in %u of them; experts in %s, the rest in %s; ",
              s->n_layers, s->top_k, s->n_experts, s->n_moe, s->expert_format, s->dense_format);
    sb_printf(b, "%.2f GB in all.<br>", (shape_expert_bytes(s) + shape_dense_bytes(s)) / 1e9);
    sb_printf(b, "%u cores in %u pool%s, %u threads%s.", h->n_cores, m->host_plan->n_pools,
              m->host_plan->n_pools == 1 ? "" : "s", m->host_plan->n_threads,
              m->datasheet ? "; rates from data sheets" : "");
    if (s->why_not[0] != '\0') {
        sb_puts(b, "<br>Not served by this version: ");
        text(b, s->why_not);
    }
    sb_puts(b, "</p>");
    memory(b, m);
    if (!m->fits) {
        refusal(b, m);
    } else {
        prediction(b, "Decode, one stream", &m->decode);
        if (m->o.parallel > 1)
            prediction(b, "Decode, all streams", &m->decode_all);
        prediction(b, "Prefill, one chunk", &m->prefill);
        rates(b, m);
        if (m->n_places > m->host_plan->n_pools)
            sb_printf(b,
                      "<p>Fast tier: %.1f %% of the experts, each as likely there as any other "
                      "(uniform f). This version serves from the CPU only.</p>",
                      100 * m->hit);
    }
    sb_puts(b, "</html>\n");
}
