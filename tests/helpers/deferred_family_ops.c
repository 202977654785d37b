/* deferred_family_ops.c - the ops that only some families have, put into a stream with what they were called with. */
#include "helpers/deferred_internal.h"

static enum status run_head_norm(struct backend *cpu, const struct call *c)
{
    return cpu->ops->head_norm(cpu, NULL, c->dst, c->ld, c->n, c->n_heads, c->cols, c->a, c->eps);
}

static enum status deferred_head_norm(struct backend *b, struct stream *s, float *x, size_t ld, uint32_t n_rows,
                                      uint32_t n_heads, uint32_t head_dim, const float *w, float eps)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_head_norm,
                                            .dst = x,
                                            .ld = ld,
                                            .n = n_rows,
                                            .n_heads = n_heads,
                                            .cols = head_dim,
                                            .a = w,
                                            .eps = eps });
}

static enum status run_norm_add(struct backend *cpu, const struct call *c)
{
    return cpu->ops->norm_add(cpu, NULL, c->dst, c->a, c->ld, c->n, c->cols, c->b, c->eps);
}

static enum status deferred_norm_add(struct backend *b, struct stream *s, float *x, const float *y, size_t ld,
                                     uint32_t n, uint32_t k, const float *w, float eps)
{
    return deferred_enqueue(
        b, s, &(struct call){ .run = run_norm_add, .dst = x, .a = y, .ld = ld, .n = n, .cols = k, .b = w, .eps = eps });
}

static enum status run_scale(struct backend *cpu, const struct call *c)
{
    return cpu->ops->scale(cpu, NULL, c->dst, c->n_bytes, c->factor);
}

static enum status deferred_scale(struct backend *b, struct stream *s, float *x, size_t n, float factor)
{
    return deferred_enqueue(b, s, &(struct call){ .run = run_scale, .dst = x, .n_bytes = n, .factor = factor });
}

static enum status run_softcap(struct backend *cpu, const struct call *c)
{
    return cpu->ops->softcap(cpu, NULL, c->dst, c->n_bytes, c->factor);
}

static enum status deferred_softcap(struct backend *b, struct stream *s, float *x, size_t n, float cap)
{
    return deferred_enqueue(b, s, &(struct call){ .run = run_softcap, .dst = x, .n_bytes = n, .factor = cap });
}

static enum status run_gate_act(struct backend *cpu, const struct call *c)
{
    struct act out = c->act;
    return cpu->ops->gate_act(cpu, NULL, &out, c->a, c->ld);
}

static enum status deferred_gate_act(struct backend *b, struct stream *s, struct act *out, const float *gate, size_t ld)
{
    return deferred_enqueue(b, s, &(struct call){ .run = run_gate_act, .act = *out, .a = gate, .ld = ld });
}

static enum status run_route(struct backend *cpu, const struct call *c)
{
    struct route out = c->route;
    return cpu->ops->route(cpu, NULL, &out, c->a, c->ld, &c->route_facts);
}

static enum status deferred_route(struct backend *b, struct stream *s, struct route *out, const float *logits,
                                  size_t ld, const struct route_facts *facts)
{
    return deferred_enqueue(
        b, s, &(struct call){ .run = run_route, .route = *out, .a = logits, .ld = ld, .route_facts = *facts });
}

static enum status run_expert_matmul(struct backend *cpu, const struct call *c)
{
    return cpu->ops->expert_matmul(cpu, NULL, c->dst, c->ld, &c->weight, &c->act, &c->route, c->by_slot);
}

static enum status deferred_expert_matmul(struct backend *b, struct stream *s, float *y, size_t ld,
                                          const struct weight *w, const struct act *x, const struct route *route,
                                          bool x_by_slot)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_expert_matmul,
                                            .dst = y,
                                            .ld = ld,
                                            .weight = *w,
                                            .act = *x,
                                            .route = *route,
                                            .by_slot = x_by_slot });
}

static enum status run_expert_bias(struct backend *cpu, const struct call *c)
{
    return cpu->ops->expert_bias(cpu, NULL, c->dst, c->ld, c->a, c->cols, &c->route);
}

static enum status deferred_expert_bias(struct backend *b, struct stream *s, float *y, size_t ld, const float *bias,
                                        uint32_t cols, const struct route *route)
{
    return deferred_enqueue(
        b, s, &(struct call){ .run = run_expert_bias, .dst = y, .ld = ld, .a = bias, .cols = cols, .route = *route });
}

static enum status run_expert_sum(struct backend *cpu, const struct call *c)
{
    return cpu->ops->expert_sum(cpu, NULL, c->dst, c->ld, c->a, &c->route, c->cols);
}

static enum status deferred_expert_sum(struct backend *b, struct stream *s, float *x, size_t ld, const float *y,
                                       const struct route *route, uint32_t d)
{
    return deferred_enqueue(
        b, s, &(struct call){ .run = run_expert_sum, .dst = x, .ld = ld, .a = y, .cols = d, .route = *route });
}

void deferred_set_family_ops(struct backend_ops *ops)
{
    ops->head_norm = deferred_head_norm;
    ops->norm_add = deferred_norm_add;
    ops->scale = deferred_scale;
    ops->softcap = deferred_softcap;
    ops->gate_act = deferred_gate_act;
    ops->route = deferred_route;
    ops->expert_matmul = deferred_expert_matmul;
    ops->expert_bias = deferred_expert_bias;
    ops->expert_sum = deferred_expert_sum;
}
