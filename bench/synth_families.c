/* synth_families.c - the tensors of each family's layers, by the names that GGUF files have. */
#include "bench/synth.h"

#define D(field) offsetof(struct synth_shape, field)
#define N(rows)  (sizeof(rows) / sizeof(rows[0]))

#define NORM(name, size)                                                                                               \
    {                                                                                                                  \
        name, EVERY_LAYER, SYNTH_FLOATS, { D(size) }, 1.0f, 1.0f                                                       \
    }
#define NORM_OF(which, name, size)                                                                                     \
    {                                                                                                                  \
        name, which, SYNTH_FLOATS, { D(size) }, 1.0f, 1.0f                                                             \
    }
#define BIAS(name, size)                                                                                               \
    {                                                                                                                  \
        name, EVERY_LAYER, SYNTH_FLOATS, { D(size) }, -0.05f, 0.05f                                                    \
    }
#define EXPERT_BIAS(name, size)                                                                                        \
    {                                                                                                                  \
        name, EVERY_LAYER, SYNTH_FLOATS, { D(size), D(n_experts) }, -0.05f, 0.05f                                      \
    }
#define MATRIX(name, in, out)                                                                                          \
    {                                                                                                                  \
        name, EVERY_LAYER, SYNTH_MATRIX, { D(in), D(out) }, 0.0f, 0.0f                                                 \
    }
#define MORE(name, in, out)                                                                                            \
    {                                                                                                                  \
        name, EVERY_LAYER, SYNTH_MORE, { D(in), D(out) }, 0.0f, 0.0f                                                   \
    }
#define MATRIX_OF(which, name, in, out)                                                                                \
    {                                                                                                                  \
        name, which, SYNTH_MATRIX, { D(in), D(out) }, 0.0f, 0.0f                                                       \
    }
#define MORE_OF(which, name, in, out)                                                                                  \
    {                                                                                                                  \
        name, which, SYNTH_MORE, { D(in), D(out) }, 0.0f, 0.0f                                                         \
    }
#define HEADS(name, in, out)                                                                                           \
    {                                                                                                                  \
        name, EVERY_LAYER, SYNTH_MATRIX, { D(in), D(out), D(n_heads) }, 0.0f, 0.0f                                     \
    }

#define ATTENTION                                                                                                      \
    MATRIX("attn_q.weight", d_model, q), MATRIX("attn_k.weight", d_model, kv), MORE("attn_v.weight", d_model, kv),     \
        MATRIX("attn_output.weight", q, d_model)
#define FFN                                                                                                            \
    MATRIX_OF(DENSE_LAYERS, "ffn_gate.weight", d_model, d_ff),                                                         \
        MATRIX_OF(DENSE_LAYERS, "ffn_up.weight", d_model, d_ff),                                                       \
        MORE_OF(DENSE_LAYERS, "ffn_down.weight", d_ff, d_model)
#define STACK(name, kind, in, out)                                                                                     \
    {                                                                                                                  \
        name, EXPERT_LAYERS, kind, { D(in), D(out), D(n_experts) }, 0.0f, 0.0f                                         \
    }
#define EXPERTS                                                                                                        \
    { "ffn_gate_inp.weight", EXPERT_LAYERS, SYNTH_ROUTER, { D(d_model), D(n_experts) }, 0.0f, 0.0f },                  \
        STACK("ffn_gate_exps.weight", SYNTH_EXPERT, d_model, ff_expert),                                               \
        STACK("ffn_up_exps.weight", SYNTH_EXPERT, d_model, ff_expert),                                                 \
        STACK("ffn_down_exps.weight", SYNTH_EXPERT_MORE, ff_expert, d_model)
#define SHARED_EXPERT                                                                                                  \
    MATRIX_OF(EXPERT_LAYERS, "ffn_gate_shexp.weight", d_model, ff_shared),                                             \
        MATRIX_OF(EXPERT_LAYERS, "ffn_up_shexp.weight", d_model, ff_shared),                                           \
        MORE_OF(EXPERT_LAYERS, "ffn_down_shexp.weight", ff_shared, d_model)

static const struct synth_tensor LLAMA[] = { NORM("attn_norm.weight", d_model), ATTENTION,
                                             NORM("ffn_norm.weight", d_model), FFN };
const struct synth_family synth_llama = { "llama", LLAMA, N(LLAMA) };

static const struct synth_tensor QWEN3MOE[] = {
    NORM("attn_norm.weight", d_model),    ATTENTION,
    NORM("attn_q_norm.weight", head_dim), NORM("attn_k_norm.weight", head_dim),
    NORM("ffn_norm.weight", d_model),     EXPERTS,
};
const struct synth_family synth_qwen3moe = { "qwen3moe", QWEN3MOE, N(QWEN3MOE) };

/* A query and its gate lie side by side in attn_q.  Decays are -exp(A_log) of A in 1 to 16, steps softplus of
 * 0.001 to 0.1: what models begin their training with. */
static const struct synth_tensor QWEN35MOE[] = {
    NORM("attn_norm.weight", d_model),
    NORM("post_attention_norm.weight", d_model),
    MATRIX_OF(FULL_LAYERS, "attn_q.weight", d_model, q_gated),
    MATRIX_OF(FULL_LAYERS, "attn_k.weight", d_model, kv),
    MORE_OF(FULL_LAYERS, "attn_v.weight", d_model, kv),
    MATRIX_OF(FULL_LAYERS, "attn_output.weight", q, d_model),
    NORM_OF(FULL_LAYERS, "attn_q_norm.weight", head_dim),
    NORM_OF(FULL_LAYERS, "attn_k_norm.weight", head_dim),
    MATRIX_OF(RECURRENT_LAYERS, "attn_qkv.weight", d_model, conv_channels),
    MATRIX_OF(RECURRENT_LAYERS, "attn_gate.weight", d_model, ssm_inner),
    { "ssm_conv1d.weight", RECURRENT_LAYERS, SYNTH_FLOATS, { D(conv_kernel), D(conv_channels) }, -0.5f, 0.5f },
    { "ssm_dt.bias", RECURRENT_LAYERS, SYNTH_FLOATS, { D(ssm_heads) }, -6.9f, -2.3f },
    { "ssm_a", RECURRENT_LAYERS, SYNTH_FLOATS, { D(ssm_heads) }, -16.0f, -1.0f },
    MATRIX_OF(RECURRENT_LAYERS, "ssm_beta.weight", d_model, ssm_heads),
    MATRIX_OF(RECURRENT_LAYERS, "ssm_alpha.weight", d_model, ssm_heads),
    NORM_OF(RECURRENT_LAYERS, "ssm_norm.weight", ssm_state),
    MATRIX_OF(RECURRENT_LAYERS, "ssm_out.weight", ssm_inner, d_model),
    EXPERTS,
    { "ffn_gate_inp_shexp.weight", EXPERT_LAYERS, SYNTH_FLOATS, { D(d_model) }, -0.03f, 0.03f },
    SHARED_EXPERT,
};
const struct synth_family synth_qwen35moe = { "qwen35moe", QWEN35MOE, N(QWEN35MOE) };

static const struct synth_tensor GEMMA3[] = {
    NORM("attn_norm.weight", d_model),
    ATTENTION,
    NORM("attn_q_norm.weight", head_dim),
    NORM("attn_k_norm.weight", head_dim),
    NORM("post_attention_norm.weight", d_model),
    NORM("ffn_norm.weight", d_model),
    FFN,
    NORM("post_ffw_norm.weight", d_model),
};
const struct synth_family synth_gemma3 = { "gemma3", GEMMA3, N(GEMMA3) };

static const struct synth_tensor GPT_OSS[] = {
    NORM("attn_norm.weight", d_model),
    ATTENTION,
    BIAS("attn_q.bias", q),
    BIAS("attn_k.bias", kv),
    BIAS("attn_v.bias", kv),
    BIAS("attn_output.bias", d_model),
    { "attn_sinks.weight", EVERY_LAYER, SYNTH_FLOATS, { D(n_heads) }, -1.0f, 1.0f },
    NORM("post_attention_norm.weight", d_model),
    EXPERTS,
    BIAS("ffn_gate_inp.bias", n_experts),
    EXPERT_BIAS("ffn_gate_exps.bias", ff_expert),
    EXPERT_BIAS("ffn_up_exps.bias", ff_expert),
    EXPERT_BIAS("ffn_down_exps.bias", d_model),
};
const struct synth_family synth_gpt_oss = { "gpt-oss", GPT_OSS, N(GPT_OSS) };

static const struct synth_tensor DEEPSEEK2[] = {
    NORM("attn_norm.weight", d_model),
    MATRIX("attn_q.weight", d_model, q),
    MATRIX("attn_kv_a_mqa.weight", d_model, latent),
    NORM("attn_kv_a_norm.weight", kv_lora),
    HEADS("attn_k_b.weight", nope, kv_lora),
    HEADS("attn_v_b.weight", kv_lora, value_mla),
    MATRIX("attn_output.weight", out_mla, d_model),
    NORM("ffn_norm.weight", d_model),
    FFN,
    EXPERTS,
    SHARED_EXPERT,
};
const struct synth_family synth_deepseek2 = { "deepseek2", DEEPSEEK2, N(DEEPSEEK2) };
