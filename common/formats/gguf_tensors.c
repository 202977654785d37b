/* gguf_tensors.c - checks a GGUF file's tensor table: names, shapes, types, places in the file. */
#include "base/mem.h"
#include "compute/dtype.h"
#include "formats/gguf_parse.h"

#include <stdlib.h>

static enum status truncated(const struct reader *r, struct error *err)
{
    return error_set(err, ERR_PARSE, "the file ends inside the tensor table, at byte %zu", r->n);
}

/* The name's place in g->names is filled once all are known to be sound. */
static enum status read_name(struct reader *r, struct bytes *name, struct error *err)
{
    size_t at = r->pos;
    uint64_t n;

    if (!reader_u64(r, &n)) return truncated(r, err);
    if (n == 0 || n > GGUF_MAX_NAME)
        return error_set(err, ERR_PARSE, "tensor name at byte %zu has %llu bytes, expected 1 to %u", at,
                         (unsigned long long)n, GGUF_MAX_NAME);
    if (!reader_take(r, n, name)) return truncated(r, err);
    if (memchr(name->p, 0, name->n)) return error_set(err, ERR_PARSE, "tensor name at byte %zu holds a NUL byte", at);
    return OK;
}

static enum status read_shape(struct reader *r, struct tensor_entry *t, struct error *err)
{
    size_t at = r->pos;
    uint64_t count = 1;

    if (!reader_u32(r, &t->n_dims)) return truncated(r, err);
    if (t->n_dims < 1 || t->n_dims > TENSOR_MAX_DIMS)
        return error_set(err, ERR_PARSE, "%u dimensions at byte %zu, expected 1 to %d", t->n_dims, at, TENSOR_MAX_DIMS);
    for (uint32_t i = 0; i < TENSOR_MAX_DIMS; i++) t->ne[i] = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        at = r->pos;
        if (!reader_u64(r, &t->ne[i])) return truncated(r, err);
        if (t->ne[i] == 0) return error_set(err, ERR_PARSE, "dimension %u at byte %zu is 0", i, at);
        if (!size_mul(count, t->ne[i], &count) || count > INT64_MAX)
            return error_set(err, ERR_PARSE, "dimension %u at byte %zu is %llu: too many elements", i, at,
                             (unsigned long long)t->ne[i]);
    }
    return OK;
}

static enum status read_type(struct reader *r, struct tensor_entry *t, struct error *err)
{
    size_t at = r->pos;

    if (!reader_u32(r, &t->type)) return truncated(r, err);
    const struct dtype_info *info = dtype_info(t->type);
    if (info->block_elems == 0)
        return error_set(err, ERR_UNSUPPORTED, "type number %u at byte %zu is not known", t->type, at);
    if (t->ne[0] % info->block_elems != 0)
        return error_set(err, ERR_PARSE, "rows of %llu elements, expected a multiple of %s's block of %u",
                         (unsigned long long)t->ne[0], info->name, info->block_elems);
    uint64_t rows = t->ne[1] * t->ne[2] * t->ne[3]; /* read_shape checked the product */
    t->bytes = dtype_row_bytes(t->type, t->ne[0]);
    if (t->bytes == 0 || !size_mul(t->bytes, rows, &t->bytes))
        return error_set(err, ERR_PARSE, "its size in bytes does not fit into 64 bits");
    return OK;
}

/* Leaves t->offset relative to data_start, which is known only after the last entry. */
static enum status read_entry(struct gguf *g, struct reader *r, struct tensor_entry *t, struct bytes *name,
                              struct error *err)
{
    enum status st = read_name(r, name, err);
    if (st != OK) return st;
    if ((st = read_shape(r, t, err)) == OK) st = read_type(r, t, err);
    size_t at = r->pos;
    if (st == OK && !reader_u64(r, &t->offset)) st = truncated(r, err);
    if (st == OK && t->offset % g->alignment != 0)
        st = error_set(err, ERR_PARSE, "offset %llu at byte %zu, expected a multiple of %llu",
                       (unsigned long long)t->offset, at, (unsigned long long)g->alignment);
    if (st != OK) error_prefix(err, "tensor '%s'", gguf_show(*name).s);
    return st;
}

static enum status read_entries(struct gguf *g, struct reader *r, uint64_t n, struct bytes *names, struct error *err)
{
    for (; g->dir.n < n; g->dir.n++) {
        enum status st = read_entry(g, r, &g->dir.entries[g->dir.n], &names[g->dir.n], err);
        if (st != OK) return st;
    }
    return OK;
}

static enum status copy_names(struct gguf *g, const struct bytes *names, struct error *err)
{
    size_t total = 0;
    void *mem;
    enum status st;

    for (size_t i = 0; i < g->dir.n; i++) total += names[i].n + 1;
    if ((st = mem_try_array(&mem, total, 1)) != OK) return error_set(err, st, "no memory for the tensors' names");
    char *to = g->names = mem;
    for (size_t i = 0; i < g->dir.n; i++) {
        memcpy(to, names[i].p, names[i].n);
        g->dir.entries[i].name = to;
        to += names[i].n + 1;
    }
    return OK;
}

static enum status place_contents(struct gguf *g, size_t table_end, struct error *err)
{
    uint64_t start = (table_end + g->alignment - 1) & ~(g->alignment - 1);

    /* A file without tensors may end before the padding. */
    g->data_start = start < g->file.n ? start : g->file.n;
    for (size_t i = 0; i < g->dir.n; i++) {
        struct tensor_entry *t = &g->dir.entries[i];
        uint64_t end;
        if (!size_add(start, t->offset, &t->offset) || !size_add(t->offset, t->bytes, &end) || end > g->file.n)
            return error_set(err, ERR_PARSE,
                             "tensor '%s': %llu bytes from byte %llu on, but the file ends at byte %zu"
                             " (truncated?)",
                             gguf_show(bytes_of(t->name, strlen(t->name))).s, (unsigned long long)t->bytes,
                             (unsigned long long)t->offset, g->file.n);
    }
    return OK;
}

static int compare_name(const void *a, const void *b)
{
    const struct tensor_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int compare_offset(const void *a, const void *b)
{
    const struct tensor_entry *const *x = a, *const *y = b;
    return (*x)->offset < (*y)->offset ? -1 : (*x)->offset > (*y)->offset;
}

static enum status check_distinct(const struct gguf *g, const struct tensor_entry **sorted, struct error *err)
{
    size_t n = g->dir.n;

    for (size_t i = 0; i < n; i++) sorted[i] = &g->dir.entries[i];
    qsort(sorted, n, sizeof(*sorted), compare_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            return error_set(err, ERR_PARSE, "tensor '%s' occurs twice",
                             gguf_show(bytes_of(sorted[i]->name, strlen(sorted[i]->name))).s);
    qsort(sorted, n, sizeof(*sorted), compare_offset);
    for (size_t i = 1; i < n; i++)
        if (sorted[i - 1]->offset + sorted[i - 1]->bytes > sorted[i]->offset)
            return error_set(err, ERR_PARSE, "tensors '%s' and '%s' overlap at byte %llu",
                             gguf_show(bytes_of(sorted[i - 1]->name, strlen(sorted[i - 1]->name))).s,
                             gguf_show(bytes_of(sorted[i]->name, strlen(sorted[i]->name))).s,
                             (unsigned long long)sorted[i]->offset);
    return OK;
}

enum status gguf_parse_tensors(struct gguf *g, struct reader *r, uint64_t n, struct error *err)
{
    void *entries = NULL, *names = NULL, *sorted = NULL;
    enum status st;

    if ((st = mem_try_array(&entries, (size_t)n, sizeof(struct tensor_entry))) == OK) {
        g->dir.entries = entries;
        st = mem_try_array(&names, (size_t)n, sizeof(struct bytes));
    }
    if (st == OK) st = mem_try_array(&sorted, (size_t)n, sizeof(struct tensor_entry *));
    if (st != OK) {
        error_set(err, st, "no memory for %llu tensors", (unsigned long long)n);
    } else if ((st = read_entries(g, r, n, names, err)) == OK && (st = copy_names(g, names, err)) == OK &&
               (st = place_contents(g, r->pos, err)) == OK) {
        st = check_distinct(g, sorted, err);
    }
    mem_free(sorted);
    mem_free(names);
    return st;
}
