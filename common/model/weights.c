/* weights.c - binds the tensors of a file to the places that the forward reads. */
#include "model/weights.h"

#include "base/mem.h"
#include "base/token_id.h"
#include "formats/gguf.h"
#include "model/weights_plan.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define NAME_MAX_BYTES  64
#define ITEMS_PER_LAYER 12 /* norms, biases, q k v o gate up down */
#define ITEMS_GLOBAL    4  /* table, norm, head */

struct binder {
    struct weights *w;
    struct model_info *info;
    const struct arch *arch;
    const struct tensor_dir *dir;
    struct error *err;
    uint64_t n_bound;
    bool *bound; /* [dir->n] */
};

static const struct tensor_entry *find(struct binder *b, const char *name)
{
    const struct tensor_entry *t = tensor_dir_find(b->dir, name);
    if (t && !b->bound[t - b->dir->entries]) {
        b->bound[t - b->dir->entries] = true;
        b->n_bound++;
        b->info->n_params += t->ne[0] * t->ne[1];
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

static enum status check_shape(struct binder *b, const struct tensor_entry *t, uint64_t n_cols, uint64_t n_rows)
{
    if (t->ne[0] == n_cols && t->ne[1] == n_rows && t->ne[2] == 1 && t->ne[3] == 1) return OK;
    return error_set(b->err, ERR_MISMATCH, "tensor %s has shape [%llu, %llu, %llu, %llu], expected [%llu, %llu]",
                     t->name, (unsigned long long)t->ne[0], (unsigned long long)t->ne[1], (unsigned long long)t->ne[2],
                     (unsigned long long)t->ne[3], (unsigned long long)n_cols, (unsigned long long)n_rows);
}

static enum status check_bytes(struct binder *b, const struct tensor_entry *t)
{
    const struct dtype_info *type = dtype_info(t->type);
    uint64_t row = dtype_row_bytes(t->type, t->ne[0]), all;
    if (row == 0)
        return error_set(b->err, ERR_PARSE, "tensor %s: rows of %llu elements are not a multiple of %s's blocks of %u",
                         t->name, (unsigned long long)t->ne[0], type->name, type->block_elems);
    if (!size_mul(row, t->ne[1], &all) || all != t->bytes)
        return error_set(b->err, ERR_PARSE, "tensor %s has %llu bytes, its shape says %llu x %llu", t->name,
                         (unsigned long long)t->bytes, (unsigned long long)row, (unsigned long long)t->ne[1]);
    return OK;
}

/* The tensor `name` of exactly n_rows x n_cols (n_rows 1: a vector). */
static enum status need(struct binder *b, const char *name, uint64_t n_cols, uint64_t n_rows,
                        const struct tensor_entry **out)
{
    const struct tensor_entry *t = find(b, name);
    if (!t) return error_set(b->err, ERR_PARSE, "tensor %s is missing", name);
    enum status st = check_type(b, t);
    if (st == OK) st = check_shape(b, t, n_cols, n_rows);
    if (st == OK) st = check_bytes(b, t);
    if (st == OK) *out = t;
    return st;
}

static const char *layer_name(char name[NAME_MAX_BYTES], uint32_t layer, const char *what)
{
    snprintf(name, NAME_MAX_BYTES, "blk.%u.%s", layer, what);
    return name;
}

static enum status refuse_matrix(struct binder *b, const struct weight_item *it, enum status st)
{
    const struct backend *be = b->w->backend;
    char rule[64] = "";
    if (it->n_cols % be->caps.col_quantum != 0)
        snprintf(rule, sizeof(rule), ": rows have to be a multiple of %u values", be->caps.col_quantum);
    return error_set(b->err, st, "tensor %s: backend %s has no matmul for %s [%u, %u]%s", it->src[0]->name,
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
        bytes = it->src[0]->bytes;
    } else {
        size_t packed = 0;
        enum status st = be->ops->weight_bytes(be, it->dtype, it->n_rows, it->n_cols, &packed);
        if (st != OK) return refuse_matrix(b, it, st);
        bytes = packed;
    }
    it->bytes = (size_t)bytes;
    if (!size_add(it->offset, bytes, &end) || end > (uint64_t)PTRDIFF_MAX - ARENA_ALIGN)
        return error_set(b->err, ERR_TOO_LARGE, "tensor %s: the weights do not fit an address space", it->src[0]->name);
    b->w->arena_bytes = (size_t)((end + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN);
    return OK;
}

static enum status add_item(struct binder *b, struct weight_item item)
{
    struct weights *w = b->w;
    if (!w->backend) return OK;
    assert(w->n_items < w->cap_items);
    enum status st = place(b, &item);
    if (st == OK) w->items[w->n_items++] = item;
    return st;
}

static enum status add_vector(struct binder *b, const char *name, uint32_t n, const float **out)
{
    struct weight_item it = {
        .n_src = 1, .n_rows = 1, .n_cols = n, .is_vector = true, .dtype = DTYPE_F32, .vector = out
    };
    enum status st = need(b, name, n, 1, &it.src[0]);
    return st == OK ? add_item(b, it) : st;
}

static enum dtype packed_type(const struct binder *b, const struct tensor_entry *t)
{
    return b->w->as_f32 ? DTYPE_F32 : (enum dtype)t->type;
}

static enum status add_matrix(struct binder *b, const char *name, uint32_t n_cols, uint32_t n_rows,
                              enum precision precision, struct weight *out)
{
    struct weight_item it = { .n_src = 1, .n_rows = n_rows, .n_cols = n_cols, .precision = precision, .matrix = out };
    enum status st = need(b, name, n_cols, n_rows, &it.src[0]);
    if (st != OK) return st;
    it.dtype = packed_type(b, it.src[0]);
    return add_item(b, it);
}

/* Matrices over one input: neighbours of one type are packed as one, so that a step has fewer and
 * larger products.  An output row does not depend on its neighbours, so the numbers are the same. */
static enum status add_group(struct binder *b, uint32_t layer, const char *const names[], const uint32_t rows[],
                             uint32_t n, enum precision precision, struct weight_group *out)
{
    struct weight_item items[WEIGHT_GROUP_MAX] = { 0 };
    const uint32_t quantum = b->w->backend ? b->w->backend->caps.row_quantum : 1;
    uint32_t n_items = 0;
    char name[NAME_MAX_BYTES];
    enum status st;
    for (uint32_t i = 0; i < n; i++) {
        const struct tensor_entry *t;
        st = need(b, layer_name(name, layer, names[i]), b->info->d_model, rows[i], &t);
        if (st != OK) return st;
        const enum dtype type = packed_type(b, t);
        if (n_items == 0 || items[n_items - 1].dtype != type || items[n_items - 1].n_rows % quantum != 0) {
            out->col[n_items] = out->n_rows;
            items[n_items] = (struct weight_item){
                .n_cols = b->info->d_model, .dtype = type, .precision = precision, .matrix = &out->w[n_items]
            };
            n_items++;
        }
        struct weight_item *it = &items[n_items - 1];
        it->src[it->n_src++] = t;
        it->n_rows += rows[i];
        out->n_rows += rows[i];
    }
    out->n = n_items;
    for (uint32_t i = 0; i < n_items; i++)
        if ((st = add_item(b, items[i])) != OK) return st;
    return OK;
}

/* A backend with memory of its own has the embedding there: a step then reads no file. */
static enum status add_table(struct binder *b, const struct tensor_entry *t)
{
    const struct weight_item it = { .src = { t },
                                    .n_src = 1,
                                    .n_rows = (uint32_t)t->ne[1],
                                    .n_cols = (uint32_t)t->ne[0],
                                    .is_table = true,
                                    .dtype = (enum dtype)t->type,
                                    .table = &b->w->embed_table };
    return b->w->backend && !b->w->backend->caps.host_memory ? add_item(b, it) : OK;
}

/* q, k and v biases in one vector, as their outputs lie side by side. */
static enum status add_qkv_bias(struct binder *b, uint32_t layer, const uint32_t rows[3], const float **out)
{
    static const char *const NAMES[3] = { "attn_q.bias", "attn_k.bias", "attn_v.bias" };
    struct weight_item it = { .n_src = 3, .n_rows = 1, .is_vector = true, .dtype = DTYPE_F32, .vector = out };
    char name[NAME_MAX_BYTES];
    bool any = b->arch->qkv_bias;
    for (int i = 0; i < 3; i++) any = any || tensor_dir_find(b->dir, layer_name(name, layer, NAMES[i]));
    if (!any) return OK;
    for (int i = 0; i < 3; i++) {
        enum status st = need(b, layer_name(name, layer, NAMES[i]), rows[i], 1, &it.src[i]);
        if (st != OK) return st;
        it.n_cols += rows[i];
    }
    return add_item(b, it);
}

static enum status bind_attention(struct binder *b, uint32_t layer, struct layer_weights *lw)
{
    static const char *const KV[] = { "attn_k.weight", "attn_v.weight" };
    const struct model_info *info = b->info;
    uint32_t q = info->n_heads * info->head_dim, kv = info->n_kv_heads * info->head_dim;
    const uint32_t rows[] = { q, kv, kv };
    char name[NAME_MAX_BYTES];
    enum status st;
    if ((st = add_vector(b, layer_name(name, layer, "attn_norm.weight"), info->d_model, &lw->attn_norm)) != OK)
        return st;
    if ((st = add_matrix(b, layer_name(name, layer, "attn_q.weight"), info->d_model, q, COARSE, &lw->q)) != OK)
        return st;
    if ((st = add_group(b, layer, KV, rows + 1, 2, FINE, &lw->kv)) != OK) return st;
    if ((st = add_qkv_bias(b, layer, rows, &lw->qkv_bias)) != OK) return st;
    if ((st = add_matrix(b, layer_name(name, layer, "attn_output.weight"), q, info->d_model, COARSE, &lw->out)) != OK)
        return st;
    layer_name(name, layer, "attn_output.bias");
    if (!tensor_dir_find(b->dir, name)) return OK;
    return add_vector(b, name, info->d_model, &lw->out_bias);
}

static enum status bind_ffn(struct binder *b, uint32_t layer, struct layer_weights *lw)
{
    static const char *const GATE_UP[] = { "ffn_gate.weight", "ffn_up.weight" };
    const struct model_info *info = b->info;
    const uint32_t rows[] = { info->d_ff, info->d_ff };
    char name[NAME_MAX_BYTES];
    enum status st;
    if ((st = add_vector(b, layer_name(name, layer, "ffn_norm.weight"), info->d_model, &lw->ffn_norm)) != OK) return st;
    if ((st = add_group(b, layer, GATE_UP, rows, 2, COARSE, &lw->gate_up)) != OK) return st;
    return add_matrix(b, layer_name(name, layer, "ffn_down.weight"), info->d_ff, info->d_model, COARSE, &lw->down);
}

/* The vocabulary's size is what the embedding has; metadata that disagrees is a broken file. */
static enum status bind_embedding(struct binder *b)
{
    struct model_info *info = b->info;
    const struct tensor_entry *t = tensor_dir_find(b->dir, "token_embd.weight");
    if (t && info->n_vocab == 0 && t->ne[1] >= 1 && t->ne[1] <= TOKEN_IDS_MAX) info->n_vocab = (uint32_t)t->ne[1];
    enum status st = need(b, "token_embd.weight", info->d_model, info->n_vocab, &t);
    if (st != OK) return st;
    b->w->embed = t;
    if ((st = add_table(b, t)) != OK) return st;
    if ((st = add_vector(b, "output_norm.weight", info->d_model, &b->w->final_norm)) != OK) return st;
    const char *head = tensor_dir_find(b->dir, "output.weight") ? "output.weight" : t->name;
    return add_matrix(b, head, info->d_model, info->n_vocab, FINE, &b->w->head);
}

static enum status bind_rope_freqs(struct binder *b)
{
    const struct tensor_entry *t;
    uint32_t n = b->info->rope.dims / 2;
    if (!tensor_dir_find(b->dir, "rope_freqs.weight")) return OK;
    enum status st = need(b, "rope_freqs.weight", n, 1, &t);
    if (st != OK) return st;
    float *f = mem_array(n, sizeof(*f));
    dequantize_row(t->type, gguf_tensor_bytes(b->w->g, t).p, f, n);
    for (uint32_t i = 0; i < n; i++)
        if (!(f[i] > 0.0f && f[i] < 1e12f)) {
            st = error_set(b->err, ERR_INVALID, "tensor rope_freqs.weight: divisor %u is %g, it must be positive", i,
                           (double)f[i]);
            mem_free(f);
            return st;
        }
    b->w->freq_factors = f;
    return OK;
}

/* A tensor that nothing reads means a forward that is not this one: wrong tokens, not an error. */
static enum status refuse_unbound(const struct binder *b)
{
    if (b->n_bound == b->dir->n) return OK;
    for (size_t i = 0; i < b->dir->n; i++)
        if (!b->bound[i])
            return error_set(b->err, ERR_UNSUPPORTED, "tensor %s is not one that family %s of %u layers has",
                             b->dir->entries[i].name, b->arch->name, b->info->n_layers);
    return OK;
}

static enum status bind_all(struct binder *b)
{
    enum status st = bind_embedding(b);
    if (st == OK) st = bind_rope_freqs(b);
    for (uint32_t i = 0; i < b->info->n_layers && st == OK; i++) {
        st = bind_attention(b, i, &b->w->layers[i]);
        if (st == OK) st = bind_ffn(b, i, &b->w->layers[i]);
    }
    return st == OK ? refuse_unbound(b) : st;
}

enum status weights_bind(struct weights *w, struct model_info *info, const struct arch *arch, const struct gguf *g,
                         struct backend *backend, struct error *err)
{
    const struct tensor_dir *dir = gguf_tensors(g);
    w->g = g;
    w->backend = backend;
    w->fingerprint = info->fingerprint;
    w->layers = mem_array(info->n_layers, sizeof(*w->layers));
    w->cap_items = info->n_layers * ITEMS_PER_LAYER + ITEMS_GLOBAL;
    w->items = mem_array(w->cap_items, sizeof(*w->items));
    struct binder b = { w, info, arch, dir, err, 0, mem_array(dir->n, sizeof(bool)) };
    enum status st = bind_all(&b);
    mem_free(b.bound);
    info->weight_bytes = w->arena_bytes;
    return st;
}
