/* model_steps.c - a step of a model is the same step on all of its ranks, at once. */
#include "model/model_internal.h"
#include "parallel/rank_team.h"

enum status model_each_rank(struct model *m, enum status (*fn)(void *ctx, uint32_t rank), void *ctx, uint32_t *who)
{
    if (m->team) return rank_team_run(m->team, fn, ctx, who);
    if (who) *who = 0;
    return fn(ctx, 0);
}

struct forward_call {
    struct model *m;
    const struct batch *batch;
    const struct kv_store *kv;
    model_layer_fn on_layer;
    void *ctx;
};

static enum status forward_on(void *ctx, uint32_t rank)
{
    const struct forward_call *c = ctx;
    return rank_forward(&c->m->ranks[rank], c->batch, kv_store_of(c->kv, rank), c->on_layer, c->ctx);
}

enum status model_forward(struct model *m, const struct batch *b, const struct kv_store *kv, model_layer_fn on_layer,
                          void *ctx)
{
    struct forward_call c = { m, b, kv, on_layer, ctx };
    m->is_whole = false;
    enum status st = model_each_rank(m, forward_on, &c, NULL);
    m->is_whole = st == OK;
    return st;
}

/* Also of ranks that a failure has stopped half way: what they have enqueued still uses blocks. */
enum status model_wait(struct model *m)
{
    enum status first = OK;
    for (uint32_t i = 0; i < m->n_ranks; i++) {
        enum status st = m->ranks[i].backend->ops->sync(m->ranks[i].backend, m->ranks[i].stream);
        if (first == OK) first = st;
    }
    return first;
}
