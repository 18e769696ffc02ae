/* safetensors.c - the files of a checkpoint: one file, a directory with an index, or a directory
 * without; rules over all files. The header of one file is read in st_header.c. Index: every mapped
 * tensor is in its file, no tensor is in two files.
 */
#include "model/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "model/st_priv.h"

#define MAX_INDEX ((uint64_t)64 << 20)
#define MAX_FILES 65536u
#define INDEX_NAME "model.safetensors.index.json"
#define SUFFIX ".safetensors"

/* Sorted names of files in a directory. */
struct names {
    char **v;
    size_t n, cap;
};

static void names_free(struct names *l)
{
    for (size_t i = 0; i < l->n; i++)
        mem_free(l->v[i]);
    mem_free(l->v);
}

static kt_status names_add(struct names *l, const char *s, kt_err *err)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 16 : l->cap * 2;
        void *p = mem_realloc(l->v, cap * sizeof *l->v);
        if (p == NULL)
            KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", s);
        l->v = p;
        l->cap = cap;
    }
    l->v[l->n] = mem_strdup(s);
    if (l->v[l->n] == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", s);
    l->n++;
    return KT_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *join(const char *dir, const char *name)
{
    struct strbuf b = {0};
    sb_printf(&b, "%s/%s", dir, name);
    return sb_take(&b, NULL);
}

static kt_status add_file(struct st *s, const char *path, kt_err *err)
{
    if (s->n_files == s->cap_files) {
        uint32_t cap = s->cap_files == 0 ? 4 : s->cap_files * 2;
        void *p = cap <= MAX_FILES ? mem_realloc(s->file, cap * sizeof *s->file) : NULL;
        if (p == NULL)
            KT_FAIL(err, KT_E_NOMEM, "%s: out of memory for %u files", path, cap);
        s->file = p;
        s->cap_files = cap;
    }
    struct st_file *f = &s->file[s->n_files++];
    memset(f, 0, sizeof *f);
    KT_TRY(file_map(path, &f->map, err));
    return st_read_header(s, s->n_files - 1, err);
}

static int by_name(const void *a, const void *b)
{
    const struct mdl_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Build the sorted table; the same name twice is an error, in one file or in two. */
static kt_status finish(struct st *s, const char *path, kt_err *err)
{
    s->by_name = mem_calloc(s->n_t, sizeof *s->by_name);
    if (s->by_name == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory for %u tensors", path, s->n_t);
    for (uint32_t i = 0; i < s->n_t; i++)
        s->by_name[i] = &s->t[i];
    if (s->n_t > 1)
        qsort(s->by_name, s->n_t, sizeof *s->by_name, by_name);
    for (uint32_t i = 1; i < s->n_t; i++) {
        const struct mdl_tensor *a = s->by_name[i - 1], *b = s->by_name[i];
        if (strcmp(a->name, b->name) != 0)
            continue;
        if (strcmp(a->file, b->file) == 0)
            KT_FAIL(err, KT_E_FORMAT, "%s: tensor %.128s appears twice; the file is damaged",
                    a->file, a->name);
        KT_FAIL(
            err, KT_E_FORMAT,
            "%s: tensor %.128s is also in %s; remove the file that does not belong to the model",
            a->file, a->name, b->file);
    }
    return KT_OK;
}

static bool plain_name(const char *n)
{
    size_t len = strlen(n);
    return len > strlen(SUFFIX) && len < 256 && strchr(n, '/') == NULL && strstr(n, "..") == NULL &&
           n[0] != '.' && strcmp(n + len - strlen(SUFFIX), SUFFIX) == 0;
}

/* The distinct file names of an index. */
static kt_status index_files(const char *path, const json_t *map, struct names *files, kt_err *err)
{
    const char *key;
    json_t *v;
    struct names all = {0};
    kt_status st = KT_OK;
    json_object_foreach((json_t *)(uintptr_t)map, key, v)
    {
        const char *f = json_string_value(v);
        if (f == NULL || !plain_name(f))
            st = err_set(err, KT_E_FORMAT, 0, __func__,
                         "%s: tensor %.128s: its file must be a plain name ending in .safetensors, "
                         "found %.64s; the index is damaged",
                         path, key, f != NULL ? f : "no string");
        else
            st = names_add(&all, f, err);
        if (st != KT_OK)
            break;
    }
    if (st == KT_OK && all.n > 1)
        qsort(all.v, all.n, sizeof *all.v, by_text);
    for (size_t i = 0; st == KT_OK && i < all.n; i++)
        if (i == 0 || strcmp(all.v[i], all.v[i - 1]) != 0)
            st = names_add(files, all.v[i], err);
    names_free(&all);
    return st;
}

static kt_status check_index(const struct st *s, const char *path, const json_t *root, kt_err *err)
{
    const char *key;
    json_t *v, *map = json_object_get(root, "weight_map");
    uint64_t sum = 0;
    json_object_foreach(map, key, v)
    {
        const struct mdl_tensor *t = st_find(s, key);
        const char *base = t != NULL ? strrchr(t->file, '/') : NULL;
        if (t == NULL || base == NULL || strcmp(base + 1, json_string_value(v)) != 0)
            KT_FAIL(err, KT_E_FORMAT,
                    "%s: tensor %.128s is not in %.64s; a file is of another version of the model",
                    path, key, json_string_value(v));
    }
    for (uint32_t i = 0; i < s->n_t; i++) {
        sum += s->t[i].bytes;
        if (json_object_get(map, s->t[i].name) == NULL)
            log_warn("%s: tensor %s of %s is not in the index", path, s->t[i].name, s->t[i].file);
    }
    const json_t *total = json_object_get(json_object_get(root, "metadata"), "total_size");
    if (json_is_integer(total) && (uint64_t)json_integer_value(total) != sum)
        log_warn("%s: total_size is %lld, the tensors have %llu bytes", path,
                 (long long)json_integer_value(total), (unsigned long long)sum);
    return KT_OK;
}

static kt_status open_files(struct st *s, const char *dir, const struct names *files, kt_err *err)
{
    for (size_t i = 0; i < files->n; i++) {
        char *p = join(dir, files->v[i]);
        if (p == NULL)
            KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", dir);
        kt_status st = add_file(s, p, err);
        if (st == KT_E_NOT_FOUND)
            st =
                err_set(err, KT_E_NOT_FOUND, 0, __func__,
                        "%s: is missing, though the index names it; the download is incomplete", p);
        mem_free(p);
        KT_TRY(st);
    }
    return finish(s, dir, err);
}

static kt_status open_indexed(struct st *s, const char *dir, const char *index, kt_err *err)
{
    char *text;
    size_t n;
    json_error_t je;
    struct names files = {0};
    KT_TRY(file_read(index, MAX_INDEX, &text, &n, err));
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    mem_free(text);
    if (root == NULL)
        KT_FAIL(err, KT_E_FORMAT, "%s: line %d: %s; the index is damaged", index, je.line, je.text);
    const json_t *map = json_object_get(root, "weight_map");
    kt_status st = KT_OK;
    if (json_object_size(map) == 0)
        st = err_set(err, KT_E_FORMAT, 0, __func__,
                     "%s: key weight_map is missing or empty; the index is damaged", index);
    if (st == KT_OK)
        st = index_files(index, map, &files, err);
    if (st == KT_OK)
        st = open_files(s, dir, &files, err);
    if (st == KT_OK)
        st = check_index(s, index, root, err);
    names_free(&files);
    json_decref(root);
    return st;
}

/* Every *.safetensors of a directory, sorted; `model.safetensors` alone if it is there. */
static kt_status list_dir(const char *dir, struct names *files, kt_err *err)
{
    DIR *d = opendir(dir);
    kt_status st = KT_OK;
    bool single = false;
    if (d == NULL)
        KT_FAIL_OS(err, errno == ENOENT ? KT_E_NOT_FOUND : KT_E_IO, "%s: cannot open: %s", dir,
                   strerror(errno));
    for (struct dirent *e; st == KT_OK && (e = readdir(d)) != NULL;) {
        if (!plain_name(e->d_name))
            continue;
        single |= strcmp(e->d_name, "model.safetensors") == 0;
        st = names_add(files, e->d_name, err);
    }
    closedir(d);
    KT_TRY(st);
    if (single) {
        struct names one = {0};
        st = names_add(&one, "model.safetensors", err);
        names_free(files);
        *files = one;
    }
    if (files->n > 1)
        qsort(files->v, files->n, sizeof *files->v, by_text);
    return st;
}

bool st_dir_has_any(const char *dir)
{
    bool any = false;
    DIR *d = opendir(dir);
    if (d == NULL)
        return false;
    for (struct dirent *e; !any && (e = readdir(d)) != NULL;)
        any = plain_name(e->d_name) || strcmp(e->d_name, INDEX_NAME) == 0;
    closedir(d);
    return any;
}

static kt_status open_dir(struct st *s, const char *dir, kt_err *err)
{
    struct stat sb;
    struct names files = {0};
    char *index = join(dir, INDEX_NAME);
    if (index == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", dir);
    if (stat(index, &sb) == 0) {
        kt_status st = open_indexed(s, dir, index, err);
        mem_free(index);
        return st;
    }
    mem_free(index);
    kt_status st = list_dir(dir, &files, err);
    if (st == KT_OK && files.n == 0)
        st = err_set(err, KT_E_NOT_FOUND, 0, __func__,
                     "%s: has no *.safetensors file; give the directory of a checkpoint", dir);
    if (st == KT_OK)
        st = open_files(s, dir, &files, err);
    names_free(&files);
    return st;
}

static kt_status open_any(const char *path, bool is_dir, struct st **out, kt_err *err)
{
    *out = NULL;
    struct st *s = mem_calloc(1, sizeof *s);
    if (s == NULL)
        KT_FAIL(err, KT_E_NOMEM, "%s: out of memory", path);
    kt_status st;
    if (is_dir) {
        st = open_dir(s, path, err);
    } else {
        st = add_file(s, path, err);
        if (st == KT_OK)
            st = finish(s, path, err);
    }
    if (st != KT_OK) {
        st_close(s);
        return st;
    }
    *out = s;
    return KT_OK;
}

kt_status st_open_file(const char *path, struct st **out, kt_err *err)
{
    return open_any(path, false, out, err);
}

kt_status st_open_dir(const char *dir, struct st **out, kt_err *err)
{
    return open_any(dir, true, out, err);
}

void st_close(struct st *s)
{
    if (s == NULL)
        return;
    for (uint32_t i = 0; i < s->n_files; i++) {
        file_unmap(&s->file[i].map);
        mem_free(s->file[i].names);
    }
    mem_free(s->file);
    mem_free(s->t);
    mem_free(s->by_name);
    mem_free(s);
}

uint32_t st_file_count(const struct st *s)
{
    return s->n_files;
}

const struct file_map *st_map(const struct st *s, uint32_t i)
{
    return &s->file[i].map;
}

const struct mdl_tensor *st_tensors(const struct st *s, uint32_t *n)
{
    *n = s->n_t;
    return s->t;
}

const struct mdl_tensor *st_find(const struct st *s, const char *name)
{
    size_t lo = 0, hi = s->n_t;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(s->by_name[mid]->name, name);
        if (c == 0)
            return s->by_name[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}
