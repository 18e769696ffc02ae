/* tok_bpe.c - see tok_bpe.h. A word becomes a linked list of byte tokens; a heap holds the merges
 * that are possible now, lowest rank first and leftmost among equals. An entry is stale when its
 * symbol's merge has another rank by now: it is dropped when it comes up, so a merge costs O(log n)
 * and a word O(n log n), also one of a million equal letters.
 *
 * Ids of a word are appended to the caller's list only; scratch grows and is kept. No function here
 * reads a file or knows a file's format.
 */
#include "model/tok_bpe.h"

#include <string.h>

#include "base/mem.h"
#include "model/uni.h"

#define NONE UINT32_MAX

static bool identity_byte(uint32_t b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255);
}

/* The byte that a character of the alphabet stands for, -1 for others. The 68 bytes that do not
 * stand for themselves follow from 256 on, in order: 0-32, 127-160, 173. */
static int byte_of_char(uint32_t cp)
{
    if (cp < 256)
        return identity_byte(cp) ? (int)cp : -1;
    uint32_t k = cp - 256;
    if (k <= 32)
        return (int)k;
    if (k <= 66)
        return (int)(k - 33 + 127);
    return k == 67 ? 173 : -1;
}

size_t bpe_unmap(const char *text, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        size_t k = uni_decode(text + i, len - i, &cp);
        int b = k > 0 ? byte_of_char(cp) : -1;
        if (b < 0)
            return SIZE_MAX;
        out[n++] = (char)b;
        i += k;
    }
    return n;
}

static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * 0x100000001b3u;
    return h ^ h >> 29;
}

static uint32_t hash_pair(uint32_t a, uint32_t b)
{
    uint64_t h = ((uint64_t)a << 32 | b) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

/* Smallest power of two >= 2n, so that probing always meets an empty slot. n <= 2^28. */
static uint32_t table_size(uint32_t n)
{
    uint32_t size = 64;
    while (size < 2 * n)
        size *= 2;
    return size;
}

kt_status bpe_init(struct bpe *b, const char *arena, const uint32_t *offset, uint32_t n_vocab,
                   kt_err *err)
{
    uint32_t size = table_size(n_vocab);
    b->arena = arena;
    b->offset = offset;
    b->unk_id = -1;
    memset(b->byte_id, 0xff, sizeof b->byte_id);
    b->slot = mem_calloc(size, sizeof *b->slot);
    if (b->slot == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for a vocabulary of %u tokens", n_vocab);
    b->slot_mask = size - 1;
    return KT_OK;
}

/* Slot that holds the text or the empty slot where it belongs. */
static uint32_t *find_slot(const struct bpe *b, const char *bytes, size_t len)
{
    uint32_t i = (uint32_t)hash_bytes(bytes, len) & b->slot_mask;
    while (b->slot[i] != 0) {
        uint32_t id = b->slot[i] - 1;
        if (b->offset[id + 1] - b->offset[id] == len &&
            memcmp(b->arena + b->offset[id], bytes, len) == 0)
            break;
        i = (i + 1) & b->slot_mask;
    }
    return &b->slot[i];
}

bool bpe_add_token(struct bpe *b, uint32_t id)
{
    const char *s = b->arena + b->offset[id];
    size_t len = b->offset[id + 1] - b->offset[id];
    uint32_t *slot = find_slot(b, s, len);
    bool fresh = *slot == 0;
    if (fresh || *slot > id + 1)
        *slot = id + 1;
    if (len == 1)
        b->byte_id[(uint8_t)s[0]] = (int32_t)(*slot - 1);
    return fresh;
}

int64_t bpe_find(const struct bpe *b, const char *bytes, size_t len)
{
    return (int64_t)*find_slot(b, bytes, len) - 1;
}

kt_status bpe_merges_begin(struct bpe *b, uint32_t n_merges, kt_err *err)
{
    uint32_t size = table_size(n_merges);
    b->pair = mem_alloc((size_t)size * sizeof *b->pair);
    b->result = mem_calloc(n_merges, sizeof *b->result);
    b->byte_rank = mem_alloc((size_t)256 * 256 * sizeof *b->byte_rank);
    if (b->pair == NULL || b->result == NULL || b->byte_rank == NULL)
        KT_FAIL(err, KT_E_NOMEM, "no memory for %u merges", n_merges);
    memset(b->pair, 0xff, (size_t)size * sizeof *b->pair);
    memset(b->byte_rank, 0xff, (size_t)256 * 256 * sizeof *b->byte_rank);
    b->pair_mask = size - 1;
    b->n_merges = n_merges;
    return KT_OK;
}

static struct bpe_pair *find_pair(const struct bpe *b, uint32_t left, uint32_t right)
{
    uint32_t i = hash_pair(left, right) & b->pair_mask;
    while (b->pair[i].rank != NONE && (b->pair[i].left != left || b->pair[i].right != right))
        i = (i + 1) & b->pair_mask;
    return &b->pair[i];
}

bool bpe_add_merge(struct bpe *b, uint32_t rank, const char *bytes, size_t n_left, size_t n)
{
    int64_t l = bpe_find(b, bytes, n_left), r = bpe_find(b, bytes + n_left, n - n_left),
            id = bpe_find(b, bytes, n);
    if (l < 0 || r < 0 || id < 0)
        return false;
    b->result[rank] = (uint32_t)id;
    struct bpe_pair *p = find_pair(b, (uint32_t)l, (uint32_t)r);
    if (p->rank == NONE)
        *p = (struct bpe_pair){(uint32_t)l, (uint32_t)r, rank};
    return true;
}

kt_status bpe_finish(struct bpe *b, kt_err *err)
{
    if (b->pair == NULL)
        KT_TRY(bpe_merges_begin(b, 0, err));
    for (uint32_t x = 0; x < 256; x++)
        for (uint32_t y = 0; y < 256; y++)
            if (b->byte_id[x] >= 0 && b->byte_id[y] >= 0)
                b->byte_rank[x * 256 + y] =
                    find_pair(b, (uint32_t)b->byte_id[x], (uint32_t)b->byte_id[y])->rank;
    return KT_OK;
}

void bpe_free(struct bpe *b)
{
    mem_free(b->slot);
    mem_free(b->pair);
    mem_free(b->result);
    mem_free(b->byte_rank);
    memset(b, 0, sizeof *b);
}

void bpe_scratch_free(struct bpe_scratch *s)
{
    mem_free(s->cache);
    mem_free(s->sym);
    mem_free(s->heap);
    memset(s, 0, sizeof *s);
}

/* Room for a word of n bytes: every byte a symbol; the first pairs and two new pairs per merge are
 * at most 3n heap entries. */
static bool reserve(struct bpe_scratch *s, size_t n)
{
    if (n > s->sym_cap) {
        size_t cap = n + n / 4 + 64;
        struct bpe_sym *sym = mem_realloc(s->sym, cap * sizeof *sym);
        if (sym == NULL)
            return false;
        s->sym = sym;
        s->sym_cap = cap;
    }
    if (3 * n > s->heap_cap) {
        size_t cap = 3 * n + 64;
        uint64_t *heap = mem_realloc(s->heap, cap * sizeof *heap);
        if (heap == NULL)
            return false;
        s->heap = heap;
        s->heap_cap = cap;
    }
    return true;
}

static void heap_push(struct bpe_scratch *s, uint64_t key)
{
    size_t i = s->heap_len++;
    while (i > 0) {
        size_t up = (i - 1) / 2;
        if (s->heap[up] <= key)
            break;
        s->heap[i] = s->heap[up];
        i = up;
    }
    s->heap[i] = key;
}

static uint64_t heap_pop(struct bpe_scratch *s)
{
    uint64_t top = s->heap[0], key = s->heap[--s->heap_len];
    size_t n = s->heap_len, i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= n)
            break;
        if (c + 1 < n && s->heap[c + 1] < s->heap[c])
            c++;
        if (s->heap[c] >= key)
            break;
        s->heap[i] = s->heap[c];
        i = c;
    }
    s->heap[i] = key;
    return top;
}

static void set_rank(struct bpe_scratch *s, uint32_t pos, uint32_t rank)
{
    s->sym[pos].rank = rank;
    if (rank != NONE)
        heap_push(s, (uint64_t)rank << 32 | pos);
}

/* Symbols of the word's bytes, bytes without token left out or as unknown; returns how many. */
static uint32_t load_symbols(const struct bpe *b, struct bpe_scratch *s, const uint8_t *w, size_t n)
{
    uint32_t m = 0;
    bool after_unk = false;
    for (size_t i = 0; i < n; i++) {
        int32_t id = b->byte_id[w[i]];
        bool unk = id < 0;
        if (unk)
            id = after_unk && b->fuse_unk ? -1 : b->unk_id;
        after_unk = unk;
        if (id < 0)
            continue;
        s->sym[m] = (struct bpe_sym){(uint32_t)id, m - 1, m + 1, NONE};
        m++;
    }
    if (m > 0)
        s->sym[m - 1].next = NONE; /* the first symbol's prev is 0 - 1 == NONE already */
    return m;
}

static void merge_all(const struct bpe *b, struct bpe_scratch *s)
{
    while (s->heap_len > 0) {
        uint64_t top = heap_pop(s);
        uint32_t pos = (uint32_t)top, rank = (uint32_t)(top >> 32);
        struct bpe_sym *a = &s->sym[pos];
        if (a->rank != rank)
            continue;
        struct bpe_sym *c = &s->sym[a->next];
        a->id = b->result[rank];
        a->next = c->next;
        a->rank = NONE;
        c->rank = NONE; /* the swallowed symbol's own entry is stale from now on */
        if (a->next != NONE) {
            s->sym[a->next].prev = pos;
            set_rank(s, pos, find_pair(b, a->id, s->sym[a->next].id)->rank);
        }
        if (a->prev != NONE)
            set_rank(s, a->prev, find_pair(b, s->sym[a->prev].id, a->id)->rank);
    }
}

static kt_status encode_word(const struct bpe *b, struct bpe_scratch *s, const char *w, size_t n,
                             struct tok_ids *ids, kt_err *err)
{
    if (!reserve(s, n))
        KT_FAIL(err, KT_E_NOMEM, "no memory to tokenize a word of %zu bytes", n);
    const uint8_t *u = (const uint8_t *)w;
    uint32_t m = load_symbols(b, s, u, n);
    s->heap_len = 0;
    for (uint32_t i = 0; i + 1 < m; i++) /* without dropped bytes symbol i is byte i */
        set_rank(s, i,
                 m == n ? b->byte_rank[u[i] * 256u + u[i + 1]]
                        : find_pair(b, s->sym[i].id, s->sym[i + 1].id)->rank);
    merge_all(b, s);
    for (uint32_t i = 0; m > 0 && i != NONE; i = s->sym[i].next)
        KT_TRY(tok_ids_push(ids, (int32_t)s->sym[i].id, err));
    return KT_OK;
}

/* Where a word of the text may be remembered: a cache of 4096 words, made after 512 of them.
 * Without memory for it there is none. */
static struct bpe_cached *cache_slot(struct bpe_scratch *s, const char *w, size_t n)
{
    if (n > BPE_CACHE_WORD)
        return NULL;
    if (s->cache == NULL) {
        if (++s->words != 512)
            return NULL;
        s->cache = mem_calloc(4096, sizeof *s->cache);
        if (s->cache == NULL)
            return NULL;
    }
    return &s->cache[hash_bytes(w, n) & 4095];
}

kt_status bpe_encode(const struct bpe *b, struct bpe_scratch *s, const char *w, size_t n,
                     struct tok_ids *ids, kt_err *err)
{
    if (n == 0)
        return KT_OK;
    if (n > INT32_MAX)
        KT_FAIL(err, KT_E_INVALID, "a word of %zu bytes is too long (at most 2^31-1)", n);
    if (b->ignore_merges) {
        int64_t id = bpe_find(b, w, n);
        if (id >= 0)
            return tok_ids_push(ids, (int32_t)id, err);
    }
    struct bpe_cached *c = cache_slot(s, w, n);
    if (c != NULL && c->len == n && memcmp(c->word, w, n) == 0) {
        for (uint32_t i = 0; i < c->n; i++)
            KT_TRY(tok_ids_push(ids, c->id[i], err));
        return KT_OK;
    }
    size_t before = ids->n;
    KT_TRY(encode_word(b, s, w, n, ids, err));
    if (c != NULL && ids->n - before <= BPE_CACHE_IDS) {
        c->len = (uint8_t)n;
        c->n = (uint8_t)(ids->n - before);
        memcpy(c->word, w, n);
        if (c->n > 0)
            memcpy(c->id, ids->v + before, c->n * sizeof *c->id);
    }
    return KT_OK;
}
