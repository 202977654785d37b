/* weights_bind.c - finds a family's tensors, checks them, and gives each its place in the arena. */
#include "base/mem.h"
#include "formats/gguf.h"
#include "model/weights_bind_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#define NAME_MAX_BYTES 80
#define GATHER_MAX     (16u << 20) /* of a tensor whose short runs are gathered in memory while it is loaded */

/* The tensor's whole name. */
static const char *full_name(const struct binder *b, char name[NAME_MAX_BYTES], const char *what)
{
    if (b->layer == NO_LAYER)
        snprintf(name, NAME_MAX_BYTES, "%s", what);
    else
        snprintf(name, NAME_MAX_BYTES, "blk.%u.%s", b->layer, what);
    return name;
}

uint32_t bind_d_model(const struct binder *b)
{
    return b->facts->info.d_model;
}

bool bind_has(const struct binder *b, const char *what)
{
    char name[NAME_MAX_BYTES];
    return tensor_dir_find(b->dir, full_name(b, name, what)) != NULL;
}

const struct tensor_entry *binder_find(struct binder *b, const char *what)
{
    char name[NAME_MAX_BYTES];
    const struct tensor_entry *t = tensor_dir_find(b->dir, full_name(b, name, what));
    if (t && !b->bound[t - b->dir->entries]) {
        b->bound[t - b->dir->entries] = true;
        b->n_bound++;
        b->facts->info.n_params += t->ne[0] * t->ne[1] * t->ne[2];
    }
    return t;
}

static enum status check_type(struct binder *b, const struct tensor_entry *t)
{
    const struct dtype_info *type = dtype_info(t->type);
    if (type->supported) return OK;
    return error_set(b->err, ERR_UNSUPPORTED, "tensor %s is of type %s (%u), not supported", t->name, type->name,
                     t->type);
}

static enum status check_shape(struct binder *b, const struct tensor_entry *t, uint64_t n_cols, uint64_t n_rows,
                               uint64_t n)
{
    if (t->ne[0] == n_cols && t->ne[1] == n_rows && t->ne[2] == n && t->ne[3] == 1) return OK;
    return error_set(b->err, ERR_MISMATCH, "tensor %s has shape [%llu, %llu, %llu, %llu], expected [%llu, %llu, %llu]",
                     t->name, (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], (unsigned long long)t->ne[2],
                     (unsigned long long)t->ne[3], (unsigned long long)n_cols, (unsigned long long)n_rows,
                     (unsigned long long)n);
}

static enum status check_bytes(struct binder *b, const struct tensor_entry *t)
{
    const struct dtype_info *type = dtype_info(t->type);
    uint64_t row = dtype_row_bytes(t->type, t->ne[0]), all;
    if (row == 0)
        return error_set(b->err, ERR_PARSE, "tensor %s: rows of %llu elements are not a multiple of %s's blocks of %u",
                         t->name, (unsigned long long)t->ne[0], type->name, type->block_elems);
    if (!size_mul(row, t->ne[1], &all) || !size_mul(all, t->ne[2], &all) || all != t->bytes)
        return error_set(b->err, ERR_PARSE, "tensor %s has %llu bytes, its shape says %llu x %llu x %llu", t->name,
                         (unsigned long long)t->bytes, (unsigned long long)row, (unsigned long long)t->ne[1],
                         (unsigned long long)t->ne[2]);
    if (t->ne[1] * t->ne[2] > UINT32_MAX)
        return error_set(b->err, ERR_TOO_LARGE, "tensor %s has %llu rows", t->name,
                         (unsigned long long)(t->ne[1] * t->ne[2]));
    return OK;
}

enum status binder_need_stack(struct binder *b, const char *what, uint64_t n_cols, uint64_t n_rows, uint64_t n,
                              const struct tensor_entry **out)
{
    char name[NAME_MAX_BYTES];
    const struct tensor_entry *t = binder_find(b, what);
    if (!t) return error_set(b->err, ERR_PARSE, "tensor %s is missing", full_name(b, name, what));
    enum status st = check_type(b, t);
    if (st == OK) st = check_shape(b, t, n_cols, n_rows, n);
    if (st == OK) st = check_bytes(b, t);
    if (st == OK) *out = t;
    return st;
}

enum status binder_need(struct binder *b, const char *what, uint64_t n_cols, uint64_t n_rows,
                        const struct tensor_entry **out)
{
    return binder_need_stack(b, what, n_cols, n_rows, 1, out);
}

static enum status refuse_matrix(struct binder *b, const struct weight_item *it, enum status st)
{
    const struct backend *be = b->w->backend;
    char rule[64] = "";
    if (it->n_cols % be->caps.col_quantum != 0)
        snprintf(rule, sizeof(rule), ": rows have to be a multiple of %u values", be->caps.col_quantum);
    return error_set(b->err, st, "tensor %s: backend %s has no matmul for %s [%u, %u]%s", it->src[0].t->name,
                     be->ops->name, dtype_info(it->dtype)->name, it->n_cols, it->n_rows, rule);
}

/* Gives an item its place; sizes come from a checked file, but their sum may still be too large. */
static enum status place(struct binder *b, struct weight_item *it)
{
    struct backend *be = b->w->backend;
    uint64_t bytes, end;
    it->offset = b->w->arena_bytes;
    if (it->is_vector) {
        bytes = (uint64_t)it->n_cols * sizeof(float);
    } else if (it->is_table) {
        bytes = it->src[0].t->bytes;
    } else {
        size_t packed = 0;
        enum status st = be->ops->weight_bytes(be, it->dtype, it->n_rows, it->n_cols, &packed);
        if (st != OK) return refuse_matrix(b, it, st);
        bytes = packed;
        if (it->n_experts > 0) {
            it->expert_bytes = expert_stride(packed);
            if (!size_mul(it->expert_bytes, it->n_experts, &bytes)) return refuse_matrix(b, it, ERR_TOO_LARGE);
        }
    }
    it->bytes = (size_t)bytes;
    if (!size_add(it->offset, bytes, &end) || end > (uint64_t)PTRDIFF_MAX - ARENA_ALIGN)
        return error_set(b->err, ERR_TOO_LARGE, "tensor %s: the weights do not fit an address space",
                         it->src[0].t->name);
    b->w->arena_bytes = (size_t)((end + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN);
    return OK;
}

enum status binder_add(struct binder *b, struct weight_item item)
{
    struct weights *w = b->w;
    if (!w->backend || b->elsewhere || item.n_rows == 0) return OK;
    enum status st = place(b, &item);
    if (st != OK) return st;
    if (w->n_items == w->cap_items) {
        w->cap_items = w->cap_items ? 2 * w->cap_items : 64;
        w->items = mem_resize(w->items, w->cap_items, sizeof(*w->items));
    }
    w->items[w->n_items++] = item;
    return OK;
}

enum status bind_vector(struct binder *b, const char *name, uint32_t n_cols, uint32_t n_rows, const float **out)
{
    const uint32_t n = n_cols * n_rows;
    struct weight_item it = {
        .n_src = 1, .n_rows = 1, .n_cols = n, .is_vector = true, .dtype = DTYPE_F32, .vector = out
    };
    const struct tensor_entry *t;
    enum status st = binder_need(b, name, n_cols, n_rows, &t);
    if (st != OK) return st;
    it.src[0] = weight_src_whole(t, n);
    return binder_add(b, it);
}

static struct weight_src src_of(const struct bind_part *p, const struct tensor_entry *t)
{
    return (struct weight_src){ t, p->row0, p->n_rows, p->run, p->stride };
}

enum status bind_turned_vector(struct binder *b, const struct bind_part parts[], uint32_t n, uint32_t n_cols,
                               const float **out)
{
    struct weight_item it = {
        .n_src = n, .n_rows = 1, .is_vector = true, .is_turned = true, .dtype = DTYPE_F32, .vector = out
    };
    assert(n <= STACK_MAX);
    for (uint32_t i = 0; i < n; i++) {
        const struct tensor_entry *t;
        enum status st = binder_need(b, parts[i].name, n_cols, parts[i].tensor_rows, &t);
        if (st != OK) return st;
        it.src[i] = src_of(&parts[i], t);
        it.n_cols += n_cols * parts[i].n_rows;
    }
    return binder_add(b, it);
}

enum status bind_vectors(struct binder *b, const struct bind_part parts[], uint32_t n, const float **out)
{
    struct weight_item it = { .n_src = n, .n_rows = 1, .is_vector = true, .dtype = DTYPE_F32, .vector = out };
    assert(n <= STACK_MAX);
    for (uint32_t i = 0; i < n; i++) {
        const struct bind_part *p = &parts[i];
        const struct tensor_entry *t;
        enum status st = binder_need(b, p->name, p->tensor_rows, 1, &t);
        if (st != OK) return st;
        if (p->n_rows != p->tensor_rows && dtype_info(t->type)->block_elems != 1)
            return error_set(b->err, ERR_UNSUPPORTED, "tensor %s: a part of a vector of type %s", t->name,
                             dtype_info(t->type)->name);
        it.src[i] = src_of(p, t);
        it.n_cols += p->n_rows;
    }
    if (it.n_cols == 0) return OK; /* this rank has none of them */
    return binder_add(b, it);
}

static enum dtype packed_type(const struct binder *b, const struct tensor_entry *t)
{
    return b->w->as_f32 ? DTYPE_F32 : (enum dtype)t->type;
}

static uint32_t row_quantum(const struct binder *b)
{
    return b->w->backend ? b->w->backend->caps.row_quantum : 1;
}

/* Runs too short to be packed by themselves. */
static bool is_short(const struct binder *b, const struct bind_part *p)
{
    return p->run != p->n_rows && p->run % row_quantum(b) != 0;
}

static enum status refuse_runs(struct binder *b, const struct bind_part *p, const struct tensor_entry *t)
{
    return error_set(b->err, ERR_UNSUPPORTED, "tensor %s: runs of %u rows, backend %s takes multiples of %u", t->name,
                     p->run, b->w->backend->ops->name, row_quantum(b));
}

enum status bind_part(struct binder *b, const struct bind_part *part, uint32_t n_cols, enum precision precision,
                      struct weight *out)
{
    const struct bind_part *p = part;
    struct weight_item it = {
        .n_src = 1, .n_rows = p->n_rows, .n_cols = n_cols, .precision = precision, .matrix = out
    };
    const struct tensor_entry *t;
    enum status st = binder_need(b, p->name, n_cols, p->tensor_rows, &t);
    if (st != OK) return st;
    it.is_gathered = is_short(b, p);
    if (it.is_gathered && t->bytes > GATHER_MAX) return refuse_runs(b, p, t);
    it.src[0] = src_of(p, t);
    it.dtype = packed_type(b, t);
    return binder_add(b, it);
}

enum status bind_matrix(struct binder *b, const char *name, uint32_t n_cols, uint32_t n_rows, enum precision precision,
                        struct weight *out)
{
    const struct bind_part whole = bind_whole(name, n_rows);
    return bind_part(b, &whole, n_cols, precision, out);
}

struct shard bind_back_rows(const struct binder *b)
{
    return shard_rows(bind_d_model(b), b->place->member, b->place->tp);
}

static struct bind_part own_rows(const struct binder *b, const char *name)
{
    const struct shard own = bind_back_rows(b);
    return bind_rows(name, bind_d_model(b), own.begin, shard_n(own));
}

enum status bind_back(struct binder *b, const char *name, uint32_t n_cols, enum precision precision, struct weight *out)
{
    const struct bind_part own = own_rows(b, name);
    return bind_part(b, &own, n_cols, precision, out);
}

enum status bind_back_bias(struct binder *b, const char *name, const float **out)
{
    const struct bind_part own = own_rows(b, name);
    return bind_vectors(b, &own, 1, out);
}

/* The rank's rows of each of its matrices. */
static struct weight_src rows_of_stack(const struct bind_stack *k, const struct tensor_entry *t)
{
    return (struct weight_src){ t, k->first * k->tensor_rows + k->row0, k->own * k->n_rows, k->n_rows, k->tensor_rows };
}

enum status bind_experts(struct binder *b, const struct bind_stack *stack, uint32_t n_cols, enum precision precision,
                         struct weight *out)
{
    const struct bind_stack *k = stack;
    struct weight_item it = { .n_src = 1,
                              .n_rows = k->n_rows,
                              .n_cols = n_cols,
                              .n_experts = k->own,
                              .n_used = k->used ? k->used : k->own,
                              .precision = precision,
                              .matrix = out };
    const struct tensor_entry *t;
    enum status st = binder_need_stack(b, k->name, n_cols, k->tensor_rows, k->n, &t);
    if (st != OK || k->n_rows == 0) return st;
    it.src[0] = rows_of_stack(k, t);
    it.dtype = packed_type(b, t);
    return binder_add(b, it);
}

enum status bind_vector_stack(struct binder *b, const struct bind_stack *stack, const float **out)
{
    const struct bind_stack *k = stack;
    struct weight_item it = {
        .n_src = 1, .n_rows = 1, .n_cols = k->own * k->n_rows, .is_vector = true, .dtype = DTYPE_F32, .vector = out
    };
    const struct tensor_entry *t;
    enum status st = binder_need(b, k->name, k->tensor_rows, k->n, &t);
    if (st != OK || k->n_rows == 0) return st;
    if (dtype_info(t->type)->block_elems != 1)
        return error_set(b->err, ERR_UNSUPPORTED, "tensor %s: vectors of type %s", t->name, dtype_info(t->type)->name);
    it.src[0] = rows_of_stack(k, t);
    if (k->n_rows == k->tensor_rows) it.src[0].run = it.src[0].stride = it.src[0].n_rows; /* one after the other */
    return binder_add(b, it);
}

enum status bind_runs_apart(struct binder *b, const struct bind_part *part, uint32_t n_cols, enum precision precision,
                            struct weight *out)
{
    const struct bind_part *p = part;
    struct weight_item it = { .n_src = 1,
                              .n_rows = p->run,
                              .n_cols = n_cols,
                              .n_experts = p->n_rows / p->run,
                              .precision = precision,
                              .matrix = out };
    const struct tensor_entry *t;
    enum status st = binder_need(b, p->name, n_cols, p->tensor_rows, &t);
    if (st != OK) return st;
    it.src[0] = src_of(p, t);
    it.dtype = packed_type(b, t);
    return binder_add(b, it);
}

enum status bind_turned_runs(struct binder *b, const struct bind_part *part, uint32_t n_cols, enum precision precision,
                             struct weight *out)
{
    const struct bind_part *p = part;
    struct weight_item it = { .n_src = 1,
                              .n_rows = n_cols,
                              .n_cols = p->run,
                              .n_experts = p->n_rows / p->run,
                              .is_turned = true,
                              .dtype = DTYPE_F32,
                              .precision = precision,
                              .matrix = out };
    const struct tensor_entry *t;
    enum status st = binder_need(b, p->name, n_cols, p->tensor_rows, &t);
    if (st != OK) return st;
    it.src[0] = src_of(p, t);
    return binder_add(b, it);
}

enum status bind_group(struct binder *b, const struct bind_part parts[], uint32_t n, uint32_t n_cols,
                       enum precision precision, struct weight_group *out)
{
    struct weight_item items[WEIGHT_GROUP_MAX] = { 0 };
    uint32_t n_items = 0;
    enum status st;
    assert(n <= WEIGHT_GROUP_MAX);
    for (uint32_t i = 0; i < n; i++) {
        const struct bind_part *p = &parts[i];
        const struct tensor_entry *t;
        if ((st = binder_need(b, p->name, n_cols, p->tensor_rows, &t)) != OK) return st;
        if (p->n_rows == 0) continue;
        if (is_short(b, p)) return refuse_runs(b, p, t);
        const enum dtype type = packed_type(b, t);
        if (n_items == 0 || items[n_items - 1].dtype != type || items[n_items - 1].n_rows % row_quantum(b) != 0) {
            out->col[n_items] = out->n_rows;
            items[n_items] = (struct weight_item){
                .n_cols = n_cols, .dtype = type, .precision = precision, .matrix = &out->w[n_items]
            };
            n_items++;
        }
        struct weight_item *it = &items[n_items - 1];
        it->src[it->n_src++] = src_of(p, t);
        it->n_rows += p->n_rows;
        out->n_rows += p->n_rows;
    }
    out->n = n_items;
    for (uint32_t i = 0; i < n_items; i++)
        if ((st = binder_add(b, items[i])) != OK) return st;
    return OK;
}

/* Whether a tensor is one of the layers that guess. */
static bool is_guessing(const struct binder *b, const char *name)
{
    uint32_t layer;
    if (sscanf(name, "blk.%" SCNu32 ".", &layer) != 1) return false;
    return layer >= b->facts->info.n_layers && layer - b->facts->info.n_layers < b->facts->n_guessing;
}

enum status binder_refuse_unbound(const struct binder *b)
{
    if (b->n_bound == b->dir->n) return OK;
    for (size_t i = 0; i < b->dir->n; i++)
        if (!b->bound[i] && !is_guessing(b, b->dir->entries[i].name))
            return error_set(b->err, ERR_UNSUPPORTED, "tensor %s is not one that family %s of %u layers has",
                             b->dir->entries[i].name, b->facts->family->name, b->facts->info.n_layers);
    return OK;
}
