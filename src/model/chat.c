/* chat.c - see chat.h. A template is compared token by token with the reference source of each
 * shape: both run through the same small lexer, which drops what Jinja would drop (white space
 * inside tags, and around them as trim_blocks, lstrip_blocks and the dashes say) and decodes
 * literals. Text that Jinja would print between tags, comments and unknown escapes never match.
 */
#include "model/chat.h"

#include <string.h>

#include "base/mem.h"

#define CAPTURE "\1" /* stands for any literal between the markers of a system message */
static const char chatml[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
static const char chatml_system[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'" CAPTURE "' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
static const char system_head[] = "<|im_start|>system\n", system_tail[] = "<|im_end|>\n";

enum lex_kind { LEX_END, LEX_OPEN, LEX_CLOSE, LEX_WORD, LEX_MARK, LEX_STRING, LEX_OTHER };

struct lexer {
    const char *p;
    char tag;          /* '%' or '{' inside a tag, 0 outside */
    char closed;       /* how the last tag was closed: 0 none yet, '-', '%', '}' */
    struct strbuf str; /* decoded literal */
    const char *word;
    size_t n_word;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n';
}

static bool is_word(char c)
{
    return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Text between tags [p, end), followed by a tag or (next NULL) the end of the source: would any of
 * it be printed? */
static bool prints(const struct lexer *x, const char *end, const char *next)
{
    const char *p = x->p;
    bool line_start = x->closed == 0;
    if (x->closed == '-')
        while (p < end && is_blank(*p))
            p++;
    else if (x->closed == '%' && p < end && *p == '\n') { /* trim_blocks */
        p++;
        line_start = true;
    }
    if (next != NULL && next[2] == '-') {
        while (end > p && is_blank(end[-1]))
            end--;
    } else if (next != NULL && next[1] == '%') { /* lstrip_blocks */
        const char *q = end;
        while (q > p && (q[-1] == ' ' || q[-1] == '\t'))
            q--;
        if ((q > p && q[-1] == '\n') || (q == p && line_start))
            end = q;
    } else if (next == NULL && end > p &&
               end[-1] == '\n') { /* one LF at the end of the source is dropped */
        end--;
    }
    return end > p;
}

static enum lex_kind lex_text(struct lexer *x)
{
    const char *next = x->p;
    while (*next != '\0' &&
           !(next[0] == '{' && (next[1] == '%' || next[1] == '{' || next[1] == '#')))
        next++;
    if (prints(x, next, *next != '\0' ? next : NULL))
        return LEX_OTHER;
    x->p = next;
    if (*next == '\0')
        return LEX_END;
    if (next[1] == '#' || next[2] == '+')
        return LEX_OTHER;
    x->tag = next[1];
    x->word = next;
    x->n_word = 2;
    x->p = next + (next[2] == '-' ? 3 : 2);
    return LEX_OPEN;
}

static enum lex_kind lex_string(struct lexer *x)
{
    char quote = *x->p++;
    sb_clear(&x->str);
    while (*x->p != quote) {
        char c = *x->p++;
        if (c == '\\') {
            const char *from = "nt\\'\"", *to = "\n\t\\'\"",
                       *at = *x->p != '\0' ? strchr(from, *x->p) : NULL;
            if (at == NULL)
                return LEX_OTHER;
            c = to[at - from];
            x->p++;
        } else if (c == '\0' || c == '\r') {
            return LEX_OTHER;
        }
        sb_putc(&x->str, c);
    }
    x->p++;
    return LEX_STRING;
}

static enum lex_kind lex(struct lexer *x)
{
    if (x->tag == 0)
        return lex_text(x);
    while (is_blank(*x->p))
        x->p++;
    const char *p = x->p;
    size_t dash = *p == '-' && (p[1] == '%' || p[1] == '}');
    if (p[dash] == (x->tag == '%' ? '%' : '}') && p[dash + 1] == '}') {
        x->closed = dash ? '-' : x->tag == '%' ? '%' : '}';
        x->tag = 0;
        x->word = p + dash;
        x->n_word = 2;
        x->p = p + dash + 2;
        return LEX_CLOSE;
    }
    if (*p == '\'' || *p == '"')
        return lex_string(x);
    x->word = p;
    x->n_word = 1;
    if (is_word(*p)) {
        while (is_word(p[x->n_word]))
            x->n_word++;
        x->p = p + x->n_word;
        return LEX_WORD;
    }
    if (*p == '\0' || strchr("[]+.!=", *p) == NULL)
        return LEX_OTHER;
    if ((*p == '!' || *p == '=') && p[1] == '=') /* one mark; "= =" is none */
        x->n_word = 2;
    x->p = p + x->n_word;
    return LEX_MARK;
}

/* The literal is head + text + tail with a text free of control markers? Then *text is it, copied.
 */
static kt_status capture(const struct strbuf *s, char **text, bool *ok, kt_err *err)
{
    size_t h = sizeof system_head - 1, t = sizeof system_tail - 1;
    const char *d = s->data != NULL ? s->data : "";
    *ok = false;
    if (s->len < h + t || memcmp(d, system_head, h) != 0 ||
        memcmp(d + s->len - t, system_tail, t) != 0)
        return KT_OK;
    char *copy = mem_strndup(d + h, s->len - h - t);
    if (copy == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the chat template");
    mem_free(*text);
    *text = copy;
    *ok = strstr(copy, "<|") == NULL;
    return KT_OK;
}

static kt_status same(const char *source, const char *reference, char **text, bool *equal,
                      kt_err *err)
{
    struct lexer a = {.p = source}, b = {.p = reference};
    kt_status st = KT_OK;
    enum lex_kind k = LEX_OTHER;
    *equal = true;
    while (st == KT_OK && *equal && k != LEX_END) {
        k = lex(&a);
        *equal = k == lex(&b) && k != LEX_OTHER;
        if (*equal && k == LEX_STRING) {
            const char *x = a.str.data != NULL ? a.str.data : "",
                       *y = b.str.data != NULL ? b.str.data : "";
            if (strcmp(y, CAPTURE) == 0)
                st = capture(&a.str, text, equal, err);
            else
                *equal = strcmp(x, y) == 0;
        } else if (*equal && k != LEX_END) {
            *equal = a.n_word == b.n_word && memcmp(a.word, b.word, a.n_word) == 0;
        }
    }
    if (st == KT_OK && (!sb_ok(&a.str) || !sb_ok(&b.str)))
        st = err_set(err, KT_E_NOMEM, 0, __func__, "no memory for the chat template");
    sb_free(&a.str);
    sb_free(&b.str);
    return st;
}

kt_status chat_set(struct chat *c, const char *source, const char *override, kt_err *err)
{
    if (override != NULL && strcmp(override, "chatml") != 0)
        KT_FAIL(err, KT_E_INVALID,
                "chat template override \"%.60s\" is unknown; the only one is \"chatml\"",
                override);
    if (source != NULL && (c->source = mem_strdup(source)) == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for the chat template");
    if (override != NULL) {
        c->shape = CHAT_CHATML;
        return KT_OK;
    }
    if (source == NULL)
        return KT_OK;
    bool equal = false;
    c->shape = CHAT_UNKNOWN;
    KT_TRY(same(source, chatml, &c->system, &equal, err));
    if (equal) {
        c->shape = CHAT_CHATML;
        return KT_OK;
    }
    KT_TRY(same(source, chatml_system, &c->system, &equal, err));
    if (equal)
        c->shape = CHAT_CHATML_SYSTEM;
    return KT_OK;
}

void chat_free(struct chat *c)
{
    mem_free(c->source);
    mem_free(c->system);
    memset(c, 0, sizeof *c);
}

bool chat_is_chatml(const struct chat *c)
{
    return c->shape == CHAT_CHATML || c->shape == CHAT_CHATML_SYSTEM;
}

kt_status chat_supported(const struct chat *c, kt_err *err)
{
    if (c->shape == CHAT_NONE)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "the model has no chat template; use completions, or --chat-template chatml if it "
                "was trained on ChatML");
    if (c->shape == CHAT_UNKNOWN)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "the model's chat template is none of the built-in shapes (plain ChatML, or ChatML "
                "with a default system message); "
                "use completions, or --chat-template chatml if it was trained on ChatML");
    return KT_OK;
}

static void add_input(struct strbuf *out, const char *s, struct tok_range *ranges, size_t *n)
{
    size_t from = out->len;
    sb_puts(out, s);
    if (ranges != NULL && out->len > from)
        ranges[(*n)++] = (struct tok_range){from, out->len};
}

kt_status chat_render(const struct chat *c, const kt_chat_message *m, size_t n,
                      bool add_generation_prompt, struct strbuf *out, struct tok_range *ranges,
                      size_t *n_ranges, kt_err *err)
{
    size_t used = 0;
    KT_TRY(chat_supported(c, err));
    for (size_t i = 0; i < n; i++) {
        if (m[i].role == NULL || m[i].content == NULL)
            KT_FAIL(err, KT_E_INVALID, "message %zu has no %s", i,
                    m[i].role == NULL ? "role" : "content");
        if (i == 0 && c->shape == CHAT_CHATML_SYSTEM && strcmp(m[0].role, "system") != 0) {
            sb_puts(out, system_head);
            sb_puts(out, c->system);
            sb_puts(out, system_tail);
        }
        sb_puts(out, "<|im_start|>");
        add_input(out, m[i].role, ranges, &used);
        sb_putc(out, '\n');
        add_input(out, m[i].content, ranges, &used);
        sb_puts(out, "<|im_end|>\n");
    }
    if (add_generation_prompt)
        sb_puts(out, "<|im_start|>assistant\n");
    if (n_ranges != NULL)
        *n_ranges = used;
    if (!sb_ok(out))
        KT_FAIL(err, KT_E_NOMEM, "no memory to write a prompt of %zu messages", n);
    return KT_OK;
}
