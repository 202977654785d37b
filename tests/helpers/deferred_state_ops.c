/* deferred_state_ops.c - the ops of recurrent layers and of caches of latents, put into a stream with what they were
 * called with. */
#include "helpers/deferred_internal.h"

/* The CPU backend's view of the call's step. */
static const struct step *inner_step(const struct call *c)
{
    return &((const struct copy *)c->step.device)->inner;
}

static enum status run_latent_write(struct backend *cpu, const struct call *c)
{
    return cpu->ops->latent_write(cpu, NULL, c->a, c->ld, c->b, c->k_off, &c->kv, inner_step(c));
}

static enum status deferred_latent_write(struct backend *b, struct stream *s, const float *latent, size_t c_ld,
                                         const float *k_rope, size_t rope_ld, const struct kv_slices *kv,
                                         const struct step *step)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_latent_write,
                                            .a = latent,
                                            .ld = c_ld,
                                            .b = k_rope,
                                            .k_off = rope_ld,
                                            .kv = *kv,
                                            .step = *step });
}

static enum status run_attention_latent(struct backend *cpu, const struct call *c)
{
    struct act out = c->act;
    return cpu->ops->attention_latent(cpu, NULL, &out, c->a, c->ld, c->b, c->k_off, c->v_off, c->n_heads, &c->kv,
                                      c->factor, inner_step(c));
}

static enum status deferred_attention_latent(struct backend *b, struct stream *s, struct act *out, const float *q,
                                             size_t q_ld, const float *q_rope, size_t rope_ld, size_t rope_step,
                                             uint32_t n_heads, const struct kv_slices *kv, float scale,
                                             const struct step *step)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_attention_latent,
                                            .act = *out,
                                            .a = q,
                                            .ld = q_ld,
                                            .b = q_rope,
                                            .k_off = rope_ld,
                                            .v_off = rope_step,
                                            .n_heads = n_heads,
                                            .kv = *kv,
                                            .factor = scale,
                                            .step = *step });
}

static enum status run_conv_step(struct backend *cpu, const struct call *c)
{
    return cpu->ops->conv_step(cpu, NULL, c->dst, c->k_off, c->a, c->ld, &c->conv, &c->state, inner_step(c));
}

static enum status deferred_conv_step(struct backend *b, struct stream *s, float *out, size_t out_ld, const float *x,
                                      size_t ld, const struct conv_facts *facts, const struct state_slices *tail,
                                      const struct step *step)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_conv_step,
                                            .dst = out,
                                            .k_off = out_ld,
                                            .a = x,
                                            .ld = ld,
                                            .conv = *facts,
                                            .state = *tail,
                                            .step = *step });
}

static enum status run_delta_rule(struct backend *cpu, const struct call *c)
{
    return cpu->ops->delta_rule(cpu, NULL, c->dst, c->ld, &c->delta_in, &c->delta, &c->state, inner_step(c));
}

static enum status deferred_delta_rule(struct backend *b, struct stream *s, float *out, size_t out_ld,
                                       const struct delta_inputs *in, const struct delta_facts *facts,
                                       const struct state_slices *state, const struct step *step)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_delta_rule,
                                            .dst = out,
                                            .ld = out_ld,
                                            .delta_in = *in,
                                            .delta = *facts,
                                            .state = *state,
                                            .step = *step });
}

static enum status run_mamba2_scan(struct backend *cpu, const struct call *c)
{
    return cpu->ops->mamba2_scan(cpu, NULL, c->dst, c->ld, &c->mamba2_in, &c->mamba2, &c->state, inner_step(c));
}

static enum status deferred_mamba2_scan(struct backend *b, struct stream *s, float *out, size_t out_ld,
                                        const struct mamba2_inputs *in, const struct mamba2_facts *facts,
                                        const struct state_slices *state, const struct step *step)
{
    return deferred_enqueue(b, s,
                            &(struct call){ .run = run_mamba2_scan,
                                            .dst = out,
                                            .ld = out_ld,
                                            .mamba2_in = *in,
                                            .mamba2 = *facts,
                                            .state = *state,
                                            .step = *step });
}

static enum status run_norm_gate(struct backend *cpu, const struct call *c)
{
    struct act out = c->act;
    return cpu->ops->norm_gate(cpu, NULL, &out, c->a, c->ld, c->b, c->k_off, &c->gate);
}

static enum status deferred_norm_gate(struct backend *b, struct stream *s, struct act *out, const float *x, size_t ld,
                                      const float *gate, size_t gate_ld, const struct norm_gate_facts *facts)
{
    return deferred_enqueue(
        b, s,
        &(struct call){
            .run = run_norm_gate, .act = *out, .a = x, .ld = ld, .b = gate, .k_off = gate_ld, .gate = *facts });
}

static size_t deferred_state_slot_bytes(struct backend *b, const struct state_geometry *geom)
{
    return of(b)->cpu->ops->state_slot_bytes(of(b)->cpu, geom);
}

static enum status run_state_copy(struct backend *cpu, const struct call *c)
{
    return cpu->ops->state_copy(cpu, NULL, &c->state, c->first, c->n);
}

static enum status deferred_state_copy(struct backend *b, struct stream *s, const struct state_slices *state,
                                       uint32_t from, uint32_t to)
{
    return deferred_enqueue(b, s, &(struct call){ .run = run_state_copy, .state = *state, .first = from, .n = to });
}

static enum status deferred_state_pack(struct backend *b, struct stream *s, const struct state_slices *state,
                                       uint32_t slot, uint32_t h0, uint32_t h1, uint8_t *wire)
{
    enum status st = deferred_sync(b, s);
    return st == OK ? of(b)->cpu->ops->state_pack(of(b)->cpu, NULL, state, slot, h0, h1, wire) : st;
}

static enum status deferred_state_unpack(struct backend *b, struct stream *s, const struct state_slices *state,
                                         uint32_t slot, uint32_t h0, uint32_t h1, const uint8_t *wire)
{
    enum status st = deferred_sync(b, s);
    return st == OK ? of(b)->cpu->ops->state_unpack(of(b)->cpu, NULL, state, slot, h0, h1, wire) : st;
}

void deferred_set_state_ops(struct backend_ops *ops)
{
    ops->latent_write = deferred_latent_write;
    ops->attention_latent = deferred_attention_latent;
    ops->conv_step = deferred_conv_step;
    ops->delta_rule = deferred_delta_rule;
    ops->mamba2_scan = deferred_mamba2_scan;
    ops->norm_gate = deferred_norm_gate;
    ops->state_slot_bytes = deferred_state_slot_bytes;
    ops->state_copy = deferred_state_copy;
    ops->state_pack = deferred_state_pack;
    ops->state_unpack = deferred_state_unpack;
}
