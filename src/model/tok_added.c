/* tok_added.c - see tok_added.h. The tree keeps children as sibling lists under a table of first
 * bytes: thousands of added tokens share few first bytes, and text without such a byte costs one
 * look-up per byte. No recursion, no allocation while matching.
 */
#include "model/tok_added.h"

#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "model/uni.h"

static uint32_t new_node(struct added_tree *t, uint8_t byte)
{
    if (t->n + 1 >= t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 256;
        struct added_node *p = mem_realloc(t->node, (size_t)cap * sizeof *p);
        if (p == NULL)
            return 0;
        t->node = p;
        t->cap = cap;
    }
    uint32_t i = ++t->n;
    t->node[i] = (struct added_node){.id = -1, .byte = byte};
    return i;
}

static uint32_t child_of(const struct added_tree *t, uint32_t node, uint8_t byte)
{
    uint32_t c = t->node[node].child;
    while (c != 0 && t->node[c].byte != byte)
        c = t->node[c].sibling;
    return c;
}

kt_status added_put(struct added_tree *t, const char *text, size_t len, int32_t id, uint8_t flags,
                    bool control, kt_err *err)
{
    if (len == 0 || len > ADDED_MAX_LEN)
        KT_FAIL(err, KT_E_FORMAT, "added token %d has %zu bytes (1 to %d are allowed)", id, len,
                ADDED_MAX_LEN);
    uint32_t node = 0;
    for (size_t i = 0; i < len; i++) {
        uint8_t b = (uint8_t)text[i];
        uint32_t next = i == 0 ? t->root[b] : child_of(t, node, b);
        if (next == 0) {
            next = new_node(t, b);
            if (next == 0)
                KT_FAIL(err, KT_E_NOMEM, "no memory for added tokens");
            if (i == 0) {
                t->root[b] = next;
            } else {
                t->node[next].sibling = t->node[node].child;
                t->node[node].child = next;
            }
        }
        node = next;
    }
    if (t->node[node].id < 0) {
        t->node[node].id = id;
        t->node[node].flags = flags;
        t->node[node].control = control;
    }
    return KT_OK;
}

void added_free(struct added *a)
{
    mem_free(a->raw.node);
    mem_free(a->normalized.node);
    memset(a, 0, sizeof *a);
}

static bool guarded(const struct tok_guard *g, size_t from, size_t to)
{
    size_t lo = 0, hi = g->n;
    while (lo < hi) { /* first range that ends after `from` */
        size_t mid = lo + (hi - lo) / 2;
        if (g->range[mid].to > from)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo < g->n && g->range[lo].from < to;
}

/* Letters, marks, numbers and connectors, as \w. */
static bool word_char(uint32_t cp)
{
    switch (utf8proc_category((int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return cp >= 0x24B6 && cp <= 0x24E9; /* circled letters: Other_Alphabetic */
    }
}

static bool touches_word(const char *s, size_t n, size_t from, size_t to)
{
    uint32_t cp = 0;
    if (from > 0) {
        uni_back(s, from, &cp);
        if (word_char(cp))
            return true;
    }
    return to < n && uni_decode(s + to, n - to, &cp) > 0 && word_char(cp);
}

static bool allowed(const struct added_node *x, const struct tok_guard *g, size_t from, size_t to)
{
    return !x->control || (g->control && !guarded(g, from, to));
}

static void strip(const char *s, size_t n, size_t at, uint8_t flags, struct added_match *m)
{
    uint32_t cp = 0;
    while ((flags & TOK_LSTRIP) && m->from > at) {
        size_t b = uni_back(s, m->from, &cp);
        if (!uni_space(cp) || b < at)
            break;
        m->from = b;
    }
    while ((flags & TOK_RSTRIP) && m->to < n) {
        size_t k = uni_decode(s + m->to, n - m->to, &cp);
        if (k == 0 || !uni_space(cp))
            break;
        m->to += k;
    }
}

bool added_next(const struct added_tree *t, const char *s, size_t n, const struct tok_guard *g,
                struct added_match *m)
{
    size_t at = m->to;
    if (t->n == 0)
        return false;
    for (size_t i = m->end; i < n; i++) {
        uint32_t node = t->root[(uint8_t)s[i]], best = 0;
        size_t end = 0;
        for (size_t k = i + 1; node != 0; node = k < n ? child_of(t, node, (uint8_t)s[k]) : 0, k++)
            if (t->node[node].id >= 0 && allowed(&t->node[node], g, i, k)) {
                best = node;
                end = k;
            }
        if (best == 0)
            continue;
        const struct added_node *x = &t->node[best];
        if ((x->flags & TOK_SINGLE_WORD) && touches_word(s, n, i, end)) {
            i = end - 1; /* the library skips the whole match, too */
            continue;
        }
        *m = (struct added_match){i, end, end, x->id};
        strip(s, n, at, x->flags, m);
        return true;
    }
    return false;
}
