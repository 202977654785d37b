/* weights.c - what of a file belongs to the model as a whole, and the rows of its layers, bound in order of use. */
#include "model/weights.h"

#include "base/mem.h"
#include "base/token_id.h"
#include "formats/gguf.h"
#include "model/weights_bind_internal.h"

/* A backend with memory of its own has the embedding there, if it can read it: a step then reads no file. */
static enum status add_table(struct binder *b, const struct tensor_entry *t)
{
    const struct weight_item it = { .src = { weight_src_whole(t, (uint32_t)t->ne[1]) },
                                    .n_src = 1,
                                    .n_rows = (uint32_t)t->ne[1],
                                    .n_cols = (uint32_t)t->ne[0],
                                    .is_table = true,
                                    .dtype = (enum dtype)t->type,
                                    .table = &b->w->embed_table };
    const struct backend *be = b->w->backend;
    return be && !be->caps.host_memory && backend_embeds(be, t->type) ? binder_add(b, it) : OK;
}

/* The vocabulary's size is what the embedding has; metadata that disagrees is a broken file. */
static enum status bind_embedding(struct binder *b)
{
    struct model_info *info = &b->facts->info;
    const struct tensor_entry *t = tensor_dir_find(b->dir, "token_embd.weight");
    if (t && info->n_vocab == 0 && t->ne[1] >= 1 && t->ne[1] <= TOKEN_IDS_MAX) info->n_vocab = (uint32_t)t->ne[1];
    enum status st = binder_need(b, "token_embd.weight", info->d_model, info->n_vocab, &t);
    if (st != OK) return st;
    b->w->embed = t;
    b->elsewhere = b->place->stage > 0;
    return add_table(b, t);
}

/* Of the last stage, whose members share out the vocabulary. */
static enum status bind_head(struct binder *b)
{
    const struct model_info *info = &b->facts->info;
    const struct rank_place *p = b->place;
    const char *name = bind_has(b, "output.weight") ? "output.weight" : b->w->embed->name;
    const struct shard own = shard_rows(info->n_vocab, p->member, p->tp);
    const struct bind_part rows = bind_rows(name, info->n_vocab, own.begin, shard_n(own));
    b->elsewhere = p->stage + 1 < p->pp;
    enum status st = bind_vector(b, "output_norm.weight", info->d_model, 1, &b->w->final_norm);
    return st == OK ? bind_part(b, &rows, info->d_model, FINE, &b->w->head) : st;
}

/* Divisors of the frequencies: read at once, since no op takes them from the device. */
static enum status bind_divisors(struct binder *b, const char *name, float **out)
{
    const struct tensor_entry *t;
    const uint32_t n = b->facts->rope_facts[0].dims / 2;
    if (!bind_has(b, name)) return OK;
    if (n == 0)
        return error_set(b->err, ERR_UNSUPPORTED, "tensor %s: family %s has no positions to divide", name,
                         b->facts->family->name);
    enum status st = binder_need(b, name, n, 1, &t);
    if (st != OK) return st;
    float *f = mem_array(n, sizeof(*f));
    *out = f;
    dequantize_row(t->type, gguf_tensor_bytes(b->w->g, t).p, f, n);
    for (uint32_t i = 0; i < n; i++)
        if (!(f[i] > 0.0f && f[i] < 1e12f))
            return error_set(b->err, ERR_INVALID, "tensor %s: divisor %u is %g, it must be positive", name, i,
                             (double)f[i]);
    return OK;
}

static enum status bind_rope(struct binder *b)
{
    static const char *const NAMES[ROPE_GIVEN_COUNT] = { [ROPE_GIVEN_FREQS] = "rope_freqs.weight",
                                                         [ROPE_GIVEN_LONG] = "rope_factors_long.weight",
                                                         [ROPE_GIVEN_SHORT] = "rope_factors_short.weight" };
    enum status st = OK;
    for (int i = 0; st == OK && i < ROPE_GIVEN_COUNT; i++) st = bind_divisors(b, NAMES[i], &b->facts->rope_given[i]);
    if (st == OK && bind_has(b, NAMES[ROPE_GIVEN_LONG]) != bind_has(b, NAMES[ROPE_GIVEN_SHORT]))
        st = error_set(b->err, ERR_PARSE, "tensor %s is missing: %s is there",
                       NAMES[bind_has(b, NAMES[ROPE_GIVEN_LONG]) ? ROPE_GIVEN_SHORT : ROPE_GIVEN_LONG],
                       NAMES[bind_has(b, NAMES[ROPE_GIVEN_LONG]) ? ROPE_GIVEN_LONG : ROPE_GIVEN_SHORT]);
    return st;
}

const struct weight_item *weights_stack(const struct weights *w)
{
    for (uint32_t i = 0; i < w->n_items; i++)
        if (w->items[i].n_experts > 0) return &w->items[i];
    return NULL;
}

static enum status bind_norms(struct binder *b, struct norms *n)
{
    const uint32_t d = bind_d_model(b);
    enum status st = OK;
    if (n->before_name) st = bind_vector(b, n->before_name, d, 1, &n->before);
    if (st == OK && n->after_name) st = bind_vector(b, n->after_name, d, 1, &n->after);
    return st;
}

static enum status bind_block(struct binder *b, struct layer *l, const struct block *block, struct norms *norms)
{
    if (!block) return OK;
    enum status st = block->cut(l, b->place->member, b->place->tp, b->err);
    if (st == OK) st = bind_norms(b, norms);
    return st == OK ? block->bind(b, l) : st;
}

static enum status bind_all(struct binder *b)
{
    enum status st = bind_embedding(b);
    if (st == OK) st = bind_head(b);
    if (st == OK) st = bind_rope(b);
    for (uint32_t i = 0; i < b->facts->info.n_layers && st == OK; i++) {
        struct layer *l = &b->facts->layers[i];
        b->layer = i;
        b->elsewhere = i < b->place->layers.begin || i >= b->place->layers.end;
        st = bind_block(b, l, l->mixer, &l->mixer_norms);
        if (st == OK) st = bind_block(b, l, l->channel, &l->channel_norms);
    }
    return st == OK ? binder_refuse_unbound(b) : st;
}

enum status weights_bind(struct weights *w, struct model_facts *facts, const struct gguf *g, struct backend *backend,
                         const struct rank_place *place, struct error *err)
{
    const struct tensor_dir *dir = gguf_tensors(g);
    w->g = g;
    w->backend = backend;
    w->fingerprint = facts->info.fingerprint;
    struct binder b = { .w = w,
                        .facts = facts,
                        .dir = dir,
                        .err = err,
                        .place = place,
                        .layer = NO_LAYER,
                        .bound = mem_array(dir->n, sizeof(bool)) };
    enum status st = bind_all(&b);
    mem_free(b.bound);
    facts->info.weight_bytes = w->arena_bytes;
    for (uint32_t i = 0; i < w->n_items; i++) {
        const struct weight_item *it = &w->items[i];
        if (it->n_used == 0 || it->n_used == it->n_experts) continue;
        facts->info.expert_bytes += it->bytes;
        facts->info.used_bytes += it->expert_bytes * it->n_used;
    }
    return st;
}
