/* gguf_split.c - joins the parts of a split model into one directory of tensors.
 *
 * Each part is a GGUF file of its own.  The first has the model's metadata; the others repeat little of it beyond
 * split.no, split.count and split.tensors.count. */
#include "base/mem.h"
#include "formats/gguf_parse.h"

#include <stdio.h>
#include <stdlib.h>

#define SUFFIX_BYTES (sizeof("-00001-of-00002.gguf") - 1)

bool gguf_part_path(struct strbuf *out, const char *path, uint32_t no, uint32_t count)
{
    size_t n = strlen(path);
    char rest[32];
    strbuf_reset(out);
    snprintf(rest, sizeof(rest), "-of-%05u.gguf", count);
    if (n < SUFFIX_BYTES || strlen(rest) != SUFFIX_BYTES - 6) return false;
    const char *suffix = path + n - SUFFIX_BYTES;
    if (suffix[0] != '-' || strspn(suffix + 1, "0123456789") != 5 || strcmp(suffix + 6, rest) != 0) return false;
    strbuf_addf(out, "%.*s-%05u%s", (int)(n - SUFFIX_BYTES), path, no + 1, rest);
    return true;
}

/* Keys that each part has for itself. */
static bool is_of_part(struct bytes key)
{
    return (key.n > 6 && memcmp(key.p, "split.", 6) == 0) || bytes_eq(key, "general.alignment", 17);
}

static bool same_value(const struct gguf_kv *a, const struct gguf_kv *b)
{
    return a->type == b->type && bytes_eq(a->value, b->value.p, b->value.n);
}

/* What a part repeats of the model's metadata says the same. */
static enum status check_keys(const struct gguf *first, const struct gguf *part, struct error *err)
{
    for (size_t i = 0; i < part->n_kv; i++) {
        const struct gguf_kv *kv = &part->kvs[i], *want = gguf_find_key(first, kv->key);
        if (!want || is_of_part(kv->key) || same_value(kv, want)) continue;
        return error_set(err, ERR_MISMATCH, "metadata key '%s' differs from the first part's: parts of two models",
                         gguf_show(kv->key).s);
    }
    return OK;
}

static enum status check_part(const struct gguf *first, const struct gguf *part, uint32_t no, struct error *err)
{
    const struct gguf_split *want = &first->split, *have = &part->split;
    if (have->count == 1)
        return error_set(err, ERR_MISMATCH, "it is a whole model (no split.count above 1), expected part %u of %u",
                         no + 1, want->count);
    if (have->no != no || have->count != want->count)
        return error_set(err, ERR_MISMATCH, "its metadata says part %u of %u, expected part %u of %u", have->no + 1,
                         have->count, no + 1, want->count);
    if (have->n_tensors != want->n_tensors)
        return error_set(err, ERR_MISMATCH, "split.tensors.count is %llu, the first part's %llu: parts of two models",
                         (unsigned long long)have->n_tensors, (unsigned long long)want->n_tensors);
    return check_keys(first, part, err);
}

static int compare_name(const void *a, const void *b)
{
    const struct tensor_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Inside a part this was checked when it was parsed. */
static enum status check_distinct(const struct tensor_dir *dir, struct error *err)
{
    const struct tensor_entry **sorted = mem_array(dir->n, sizeof(*sorted));
    enum status st = OK;
    for (size_t i = 0; i < dir->n; i++) sorted[i] = &dir->entries[i];
    qsort(sorted, dir->n, sizeof(*sorted), compare_name);
    for (size_t i = 1; st == OK && i < dir->n; i++)
        if (compare_name(&sorted[i - 1], &sorted[i]) == 0)
            st = error_set(err, ERR_MISMATCH, "tensor '%s' occurs in part %u and in part %u",
                           gguf_show(bytes_of(sorted[i]->name, strlen(sorted[i]->name))).s, sorted[i - 1]->part + 1,
                           sorted[i]->part + 1);
    mem_free(sorted);
    return st;
}

/* The parts' tables behind the first's, with the part that each tensor lies in. */
static void join_tables(struct gguf *g)
{
    struct tensor_dir *dir = &g->dir;
    size_t n = 0;
    for (uint32_t i = 0; i < g->n_parts; i++) n += g->parts[i]->dir.n;
    dir->entries = mem_resize(dir->entries, n, sizeof(*dir->entries));
    for (uint32_t i = 1; i < g->n_parts; i++) {
        const struct tensor_dir *part = &g->parts[i]->dir;
        for (size_t k = 0; k < part->n; k++) {
            dir->entries[dir->n] = part->entries[k];
            dir->entries[dir->n++].part = i;
        }
    }
}

static void take_parts(struct gguf *g, struct gguf *const *rest, uint32_t n_rest)
{
    g->n_parts = 1 + n_rest;
    g->parts = mem_array(g->n_parts, sizeof(*g->parts));
    g->parts[0] = g;
    for (uint32_t i = 0; i < n_rest; i++) g->parts[1 + i] = rest[i];
    if (g->fd < 0) return;
    g->fds = mem_array(g->n_parts, sizeof(*g->fds));
    for (uint32_t i = 0; i < g->n_parts; i++) g->fds[i] = g->parts[i]->fd;
}

enum status gguf_join(struct gguf *first, struct gguf *const *rest, uint32_t n_rest, struct error *err)
{
    const struct gguf_split *split = &first->split;
    enum status st = OK;
    take_parts(first, rest, n_rest);
    if (split->no != 0 || split->count != first->n_parts)
        return error_set(err, ERR_MISMATCH, "part %u of %u of a model, given with %u more", split->no + 1, split->count,
                         n_rest);
    for (uint32_t i = 1; st == OK && i < first->n_parts; i++)
        if ((st = check_part(first, first->parts[i], i, err)) != OK)
            error_prefix(err, "part %u of %u", i + 1, split->count);
    if (st != OK || n_rest == 0) return st;
    join_tables(first);
    if (first->dir.n != split->n_tensors)
        return error_set(err, ERR_MISMATCH, "the %u parts have %zu tensors, split.tensors.count says %llu",
                         first->n_parts, first->dir.n, (unsigned long long)split->n_tensors);
    return check_distinct(&first->dir, err);
}
