/* model.c - opening a model: which container a path means, one table of tensors for both, and its
 * lifetime. Numbers are read in traits_*.c, roles are found in weights.c. Immutable after mdl_open.
 */
#include "model/model.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/model_priv.h"

#define MAX_CONFIG ((uint64_t)16 << 20)

struct mdl_keep {
    struct mdl_keep *next;
};

void *mdl_keep(struct mdl *m, size_t bytes)
{
    struct mdl_keep *k = bytes <= SIZE_MAX - 16 ? mem_calloc(1, bytes + 16) : NULL;
    if (k == NULL)
        return NULL;
    k->next = m->priv->keep;
    m->priv->keep = k;
    return (char *)k + 16;
}

const char *mdl_keep_str(struct mdl *m, const char *s, size_t n)
{
    char *p = mdl_keep(m, n + 1);
    if (p != NULL)
        memcpy(p, s, n);
    return p;
}

static kt_status no_memory(const char *path, kt_err *err)
{
    KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", path);
}

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n > m && strcmp(s + n - m, suffix) == 0;
}

/* Length of the shard part "-00001-of-00003" at the end of a name without ".gguf", else 0. */
static size_t shard_part(const char *name, size_t n, uint32_t *no)
{
    static const char form[] = "-ddddd-of-ddddd";
    size_t m = sizeof form - 1;
    *no = 0;
    if (n <= m)
        return 0;
    for (size_t i = 0; i < m; i++) {
        char c = name[n - m + i];
        if (form[i] == 'd' && i > 0 && c >= '0' && c <= '9') {
            if (i < 6)
                *no = *no * 10 + (uint32_t)(c - '0');
        } else if (c != form[i] || form[i] == 'd') {
            return 0;
        }
    }
    return m;
}

/* m->dir and m->name from the path of the directory or file. */
static kt_status set_names(struct mdl *m, const char *path, bool is_dir, kt_err *err)
{
    char real[PATH_MAX];
    uint32_t no;
    if (realpath(path, real) == NULL)
        KT_FAIL_OS(err, errno == ENOENT ? KT_E_NOT_FOUND : KT_E_IO, "%s: cannot open: %s", path,
                   strerror(errno));
    const char *base = strrchr(real, '/');
    base = base != NULL && base[1] != '\0' ? base + 1 : real;
    size_t n = strlen(base);
    if (!is_dir && has_suffix(base, ".gguf")) {
        n -= 5;
        n -= shard_part(base, n, &no);
    }
    m->name = mdl_keep_str(m, base, n);
    m->path = mdl_keep_str(m, path, strlen(path));
    if (is_dir)
        m->dir = m->path;
    else if (strrchr(path, '/') == NULL)
        m->dir = mdl_keep_str(m, ".", 1);
    else
        m->dir = mdl_keep_str(m, path,
                              strrchr(path, '/') == path ? 1 : (size_t)(strrchr(path, '/') - path));
    return m->name == NULL || m->path == NULL || m->dir == NULL ? no_memory(path, err) : KT_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct mdl_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static void sort_names(struct mdl *m)
{
    if (m->n_tensors > 1)
        qsort(m->priv->by_name, m->n_tensors, sizeof *m->priv->by_name, by_name);
}

static kt_status index_names(struct mdl *m, kt_err *err)
{
    struct mdl_priv *p = m->priv;
    p->by_name = mdl_keep(m, m->n_tensors * sizeof *p->by_name);
    if (p->by_name == NULL)
        return no_memory(m->path, err);
    for (uint32_t i = 0; i < m->n_tensors; i++)
        p->by_name[i] = &m->tensors[i];
    sort_names(m);
    return KT_OK;
}

uint32_t mdl_file_count(const struct mdl *m)
{
    if (m->priv->gguf != NULL)
        return gguf_shards(m->priv->gguf);
    return m->priv->st != NULL ? st_file_count(m->priv->st) : 0;
}

void mdl_file_at(const struct mdl *m, uint32_t i, struct mdl_file *out)
{
    const struct file_map *f =
        m->priv->gguf != NULL ? gguf_map(m->priv->gguf, i) : st_map(m->priv->st, i);
    *out = (struct mdl_file){f->path, f->data, f->bytes, f->device, f->inode, f->mtime_ns};
}

const struct mdl_tensor *mdl_tensor_by_name(const struct mdl *m, const char *name)
{
    size_t lo = 0, hi = m->n_tensors;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(m->priv->by_name[mid]->name, name);
        if (c == 0)
            return m->priv->by_name[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static kt_status use_gguf(struct mdl *m, const char *path, kt_err *err)
{
    uint64_t n;
    KT_TRY(gguf_open(path, &m->priv->gguf, err));
    m->is_gguf = true;
    m->gguf = m->priv->gguf;
    const struct gguf_tensor *t = gguf_tensors(m->gguf, &n);
    if (n > UINT32_MAX)
        KT_FAIL(err, KT_E_UNSUPPORTED, "%s: has %llu tensors, at most 2^32 - 1 are supported", path,
                (unsigned long long)n);
    m->n_tensors = (uint32_t)n;
    m->tensors = mdl_keep(m, (size_t)n * sizeof *m->tensors);
    if (m->tensors == NULL)
        return no_memory(path, err);
    for (uint32_t i = 0; i < n; i++) {
        struct mdl_tensor *d = &m->tensors[i];
        *d = (struct mdl_tensor){.file = gguf_path(m->gguf, t[i].shard),
                                 .type = t[i].type,
                                 .n_dims = t[i].n_dims,
                                 .data = t[i].data,
                                 .bytes = t[i].bytes};
        d->name = mdl_keep_str(m, t[i].name.s, (size_t)t[i].name.len);
        if (d->name == NULL)
            return no_memory(path, err);
        for (uint32_t k = 0; k < MDL_DIMS; k++)
            d->dims[k] = k < t[i].n_dims ? t[i].dims[t[i].n_dims - 1 - k] : 1;
    }
    return index_names(m, err);
}

static kt_status use_safetensors(struct mdl *m, const char *dir, kt_err *err)
{
    KT_TRY(st_open_dir(dir, &m->priv->st, err));
    const struct mdl_tensor *t = st_tensors(m->priv->st, &m->n_tensors);
    m->tensors = mdl_keep(m, m->n_tensors * sizeof *m->tensors);
    if (m->tensors == NULL)
        return no_memory(dir, err);
    if (m->n_tensors > 0)
        memcpy(m->tensors, t, m->n_tensors * sizeof *m->tensors);
    KT_TRY(index_names(m, err));
    if (mdl_join_scales(m, &m->priv->scales) == KT_E_NOMEM)
        return no_memory(dir, err);
    sort_names(m); /* a joined tensor has a new name */
    return KT_OK;
}

/* Text of dir/name, kept; *out = NULL when there is no such file. */
static kt_status read_kept(struct mdl *m, const char *name, const char **out, kt_err *err)
{
    struct strbuf b = {0};
    char *data;
    size_t n;
    sb_printf(&b, "%s/%s", m->dir, name);
    if (!sb_ok(&b)) {
        sb_free(&b);
        return no_memory(m->path, err);
    }
    kt_status st = file_read(b.data, MAX_CONFIG, &data, &n, err);
    sb_free(&b);
    *out = NULL;
    if (st == KT_E_NOT_FOUND)
        return KT_OK;
    KT_TRY(st);
    *out = mdl_keep_str(m, data, n);
    mem_free(data);
    return *out == NULL ? no_memory(m->path, err) : KT_OK;
}

/* The one GGUF model of a directory: single files and first parts count. *out: its path, kept; NULL
 * when there is none. */
static kt_status find_gguf(struct mdl *m, const char **out, kt_err *err)
{
    uint32_t found = 0, no;
    char first[NAME_MAX + 1] = "", second[NAME_MAX + 1] = "";
    DIR *d = opendir(m->dir);
    *out = NULL;
    if (d == NULL)
        KT_FAIL_OS(err, KT_E_IO, "%s: cannot open: %s", m->dir, strerror(errno));
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.' || !has_suffix(e->d_name, ".gguf"))
            continue;
        if (shard_part(e->d_name, strlen(e->d_name) - 5, &no) > 0 && no != 1)
            continue;
        snprintf(found == 0 ? first : second, sizeof first, "%s", e->d_name);
        found++;
    }
    closedir(d);
    if (found > 1)
        KT_FAIL(err, KT_E_INVALID,
                "%s: holds %u GGUF models (%s, %s ..); give the path of one file", m->dir, found,
                first, second);
    if (found == 0)
        return KT_OK;
    struct strbuf b = {0};
    sb_printf(&b, "%s/%s", m->dir, first);
    *out = sb_ok(&b) ? mdl_keep_str(m, b.data, b.len) : NULL;
    sb_free(&b);
    return *out == NULL ? no_memory(m->path, err) : KT_OK;
}

static kt_status open_dir(struct mdl *m, kt_err *err)
{
    const char *path, *tokenizer;
    KT_TRY(read_kept(m, "config.json", &m->config_json, err));
    if (st_dir_has_any(m->dir))
        return use_safetensors(m, m->dir, err);
    KT_TRY(find_gguf(m, &path, err));
    if (path != NULL) {
        m->config_json = NULL;
        return use_gguf(m, path, err);
    }
    KT_TRY(read_kept(m, "tokenizer.json", &tokenizer, err));
    if (m->config_json == NULL && tokenizer == NULL)
        KT_FAIL(err, KT_E_NOT_FOUND,
                "%s: has neither *.safetensors nor *.gguf files; give the directory of a "
                "checkpoint or a GGUF file",
                m->path);
    return index_names(m, err);
}

static kt_status open_container(struct mdl *m, const char *path, kt_err *err)
{
    struct stat sb;
    if (stat(path, &sb) != 0)
        KT_FAIL_OS(err, errno == ENOENT ? KT_E_NOT_FOUND : KT_E_IO, "%s: cannot open: %s", path,
                   strerror(errno));
    bool is_dir = S_ISDIR(sb.st_mode);
    KT_TRY(set_names(m, path, is_dir, err));
    if (is_dir)
        return open_dir(m, err);
    if (has_suffix(path, ".safetensors"))
        KT_FAIL(err, KT_E_INVALID,
                "%s: is one file of a checkpoint; give its directory, which also holds config.json",
                path);
    return use_gguf(m, path, err);
}

static kt_status open_with(kt_status (*how)(struct mdl *, const char *, kt_err *), const char *path,
                           struct mdl **out, kt_err *err)
{
    *out = NULL;
    struct mdl *m = mem_calloc(1, sizeof *m);
    if (m != NULL)
        m->priv = mem_calloc(1, sizeof *m->priv);
    kt_status st = m == NULL || m->priv == NULL ? no_memory(path, err) : how(m, path, err);
    if (st != KT_OK) {
        mdl_close(m);
        return st;
    }
    *out = m;
    return KT_OK;
}

kt_status mdl_open_files(const char *path, struct mdl **out, kt_err *err)
{
    return open_with(open_container, path, out, err);
}

static kt_status open_config(struct mdl *m, const char *path, kt_err *err)
{
    char *data;
    size_t n;
    KT_TRY(set_names(m, path, false, err));
    KT_TRY(file_read(path, MAX_CONFIG, &data, &n, err));
    m->config_json = mdl_keep_str(m, data, n);
    mem_free(data);
    if (m->config_json == NULL)
        return no_memory(path, err);
    KT_TRY(mdl_traits_hf(m, err));
    KT_TRY(mdl_traits_check(m, err));
    m->priv->layer = mdl_keep(m, m->t.n_layers * sizeof *m->priv->layer);
    return m->priv->layer == NULL ? no_memory(path, err) : index_names(m, err);
}

kt_status mdl_open_config(const char *path, struct mdl **out, kt_err *err)
{
    return open_with(open_config, path, out, err);
}

const char *mdl_traits_file(const struct mdl *m)
{
    return m->is_gguf ? gguf_path(m->gguf, 0) : m->dir;
}

static kt_status describe(struct mdl *m, kt_err *err)
{
    if (m->n_tensors == 0)
        KT_FAIL(err, KT_E_UNSUPPORTED,
                "%s: has no tensors, only a vocabulary or metadata; give a file or directory with "
                "weights",
                m->path);
    if (!m->is_gguf && m->config_json == NULL)
        KT_FAIL(err, KT_E_NOT_FOUND, "%s: has no config.json; download it with the weights",
                m->path);
    KT_TRY(m->is_gguf ? mdl_traits_gguf(m, err) : mdl_traits_hf(m, err));
    KT_TRY(mdl_traits_check(m, err));
    return mdl_map_weights(m, err);
}

kt_status mdl_open(const char *path, struct mdl **out, kt_err *err)
{
    KT_TRY(mdl_open_files(path, out, err));
    kt_status st = describe(*out, err);
    if (st != KT_OK) {
        mdl_close(*out);
        *out = NULL;
    }
    return st;
}

void mdl_close(struct mdl *m)
{
    if (m == NULL)
        return;
    if (m->priv != NULL) {
        gguf_close(m->priv->gguf);
        st_close(m->priv->st);
        for (struct mdl_keep *k = m->priv->keep, *next; k != NULL; k = next) {
            next = k->next;
            mem_free(k);
        }
        mem_free(m->priv);
    }
    mem_free(m);
}
