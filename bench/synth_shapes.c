/* synth_shapes.c - the sizes of real models. */
#include "bench/synth.h"

#include <string.h>

static const struct synth_shape SHAPES[] = {
    { .name = "smollm2-135m",
      .family = &synth_llama,
      .tied = true,
      .n_layers = 30,
      .d_model = 576,
      .d_ff = 1536,
      .n_heads = 9,
      .n_kv_heads = 3,
      .head_dim = 64,
      .n_vocab = 49152,
      .context_length = 8192,
      .norm_eps = 1e-5f,
      .rope_base = 100000.0f },
    { .name = "llama-1b",
      .family = &synth_llama,
      .tied = true,
      .n_layers = 16,
      .d_model = 2048,
      .d_ff = 8192,
      .n_heads = 32,
      .n_kv_heads = 8,
      .head_dim = 64,
      .n_vocab = 128256,
      .context_length = 131072,
      .norm_eps = 1e-5f,
      .rope_base = 500000.0f },
    { .name = "llama-8b",
      .family = &synth_llama,
      .n_layers = 32,
      .d_model = 4096,
      .d_ff = 14336,
      .n_heads = 32,
      .n_kv_heads = 8,
      .head_dim = 128,
      .n_vocab = 128256,
      .context_length = 131072,
      .norm_eps = 1e-5f,
      .rope_base = 500000.0f },
    { .name = "llama-70b",
      .family = &synth_llama,
      .n_layers = 80,
      .d_model = 8192,
      .d_ff = 28672,
      .n_heads = 64,
      .n_kv_heads = 8,
      .head_dim = 128,
      .n_vocab = 128256,
      .context_length = 131072,
      .norm_eps = 1e-5f,
      .rope_base = 500000.0f },
    /* config.json of Qwen/Qwen3-30B-A3B. */
    { .name = "qwen3-30b-a3b",
      .family = &synth_qwen3moe,
      .n_layers = 48,
      .d_model = 2048,
      .d_ff = 6144,
      .n_heads = 32,
      .n_kv_heads = 4,
      .head_dim = 128,
      .n_vocab = 151936,
      .context_length = 40960,
      .norm_eps = 1e-6f,
      .rope_base = 1000000.0f,
      .n_experts = 128,
      .n_used = 8,
      .ff_expert = 768 },
    /* config.json of Qwen/Qwen3.5-35B-A3B, which Qwen3.6 has as well; without its layer for drafts. */
    { .name = "qwen3.6-35b-a3b",
      .family = &synth_qwen35moe,
      .n_layers = 40,
      .d_model = 2048,
      .n_heads = 16,
      .n_kv_heads = 2,
      .head_dim = 256,
      .n_vocab = 248320,
      .context_length = 262144,
      .norm_eps = 1e-6f,
      .rope_base = 10000000.0f,
      .rope_dims = 64,
      .rope_sections = { 11, 11, 10, 0 },
      .n_experts = 256,
      .n_used = 8,
      .ff_expert = 512,
      .ff_shared = 512,
      .conv_kernel = 4,
      .ssm_inner = 4096,
      .ssm_state = 128,
      .ssm_heads = 32,
      .ssm_groups = 16,
      .full_interval = 4 },
    /* text_config of google/gemma-3-27b-it.  Only with its 62 layers is the scale of attention 1/sqrt(168). */
    { .name = "gemma-3-27b",
      .family = &synth_gemma3,
      .tied = true,
      .n_layers = 62,
      .d_model = 5376,
      .d_ff = 21504,
      .n_heads = 32,
      .n_kv_heads = 16,
      .head_dim = 128,
      .n_vocab = 262208,
      .context_length = 131072,
      .norm_eps = 1e-6f,
      .rope_base = 1000000.0f,
      .rope_base_swa = 10000.0f,
      .window = 1024,
      .scaling = "linear",
      .scaling_factor = 8.0f },
    /* config.json of openai/gpt-oss-20b. */
    { .name = "gpt-oss-20b",
      .family = &synth_gpt_oss,
      .experts = "MXFP4",
      .n_layers = 24,
      .d_model = 2880,
      .d_ff = 2880,
      .n_heads = 64,
      .n_kv_heads = 8,
      .head_dim = 64,
      .n_vocab = 201088,
      .context_length = 131072,
      .norm_eps = 1e-5f,
      .rope_base = 150000.0f,
      .window = 128,
      .scaling = "yarn",
      .scaling_factor = 32.0f,
      .original_context = 4096,
      .n_experts = 32,
      .n_used = 4,
      .ff_expert = 2880 },
    /* config.json of deepseek-ai/DeepSeek-V2-Lite; mscale_all_dim 0.707 is a tenth of that in the key. */
    { .name = "deepseek-v2-lite",
      .family = &synth_deepseek2,
      .n_layers = 27,
      .d_model = 2048,
      .d_ff = 10944,
      .n_heads = 16,
      .n_kv_heads = 1,
      .n_vocab = 102400,
      .context_length = 163840,
      .norm_eps = 1e-6f,
      .rope_base = 10000.0f,
      .rope_dims = 64,
      .scaling = "yarn",
      .scaling_factor = 40.0f,
      .yarn_log_multiplier = 0.0707f,
      .original_context = 4096,
      .n_experts = 64,
      .n_used = 6,
      .ff_expert = 1408,
      .ff_shared = 2816,
      .n_shared = 2,
      .n_dense = 1,
      .gating = 1,
      .expert_scale = 1.0f,
      .kv_lora = 512,
      .key_mla = 192,
      .value_mla = 128 },
    /* Of no model: three recurrent layers to one, and a state as large as 86 blocks (of Qwen3.6-35B-A3B it is 97). */
    { .name = "small-hybrid",
      .family = &synth_qwen35moe,
      .n_layers = 4,
      .d_model = 32,
      .n_heads = 2,
      .n_kv_heads = 1,
      .head_dim = 16,
      .n_vocab = SYNTH_MIN_VOCAB,
      .context_length = 32768,
      .norm_eps = 1e-6f,
      .rope_base = 10000.0f,
      .rope_dims = 8,
      .rope_sections = { 2, 1, 1, 0 },
      .n_experts = 2,
      .n_used = 1,
      .ff_expert = 32,
      .ff_shared = 32,
      .conv_kernel = 4,
      .ssm_inner = 512,
      .ssm_state = 32,
      .ssm_heads = 16,
      .ssm_groups = 4,
      .full_interval = 4 },
    /* Of no model: five layers with a window to one, as in gemma-3-27b. */
    { .name = "small-windows",
      .family = &synth_gemma3,
      .tied = true,
      .n_layers = 6,
      .d_model = 32,
      .d_ff = 32,
      .n_heads = 2,
      .n_kv_heads = 1,
      .head_dim = 16,
      .n_vocab = SYNTH_MIN_VOCAB,
      .context_length = 32768,
      .norm_eps = 1e-6f,
      .rope_base = 1000000.0f,
      .rope_base_swa = 10000.0f,
      .window = 1024,
      .scaling = "linear",
      .scaling_factor = 8.0f },
};

const struct synth_shape *synth_shape_find(const char *name)
{
    for (size_t i = 0; i < sizeof(SHAPES) / sizeof(SHAPES[0]); i++)
        if (strcmp(name, SHAPES[i].name) == 0) return &SHAPES[i];
    return NULL;
}

void synth_shape_derive(struct synth_shape *s)
{
    const bool is_plain = s->family == &synth_llama; /* whose heads are as wide as d_model over their number */
    if (s->kv_lora) {                                /* what is cached: the latent vector, and the part that turns */
        s->latent = s->kv_lora + s->rope_dims;
        s->key_length = s->latent;
        s->value_length = s->kv_lora;
        s->nope = s->key_mla - s->rope_dims;
        s->q = s->n_heads * s->key_mla;
        s->out_mla = s->n_heads * s->value_mla;
    } else {
        s->key_length = s->value_length = is_plain ? 0 : s->head_dim;
        s->q = s->n_heads * s->head_dim;
    }
    if (!s->rope_dims) s->rope_dims = s->head_dim;
    s->kv = s->n_kv_heads * s->head_dim;
    s->q_gated = 2 * s->q;
    s->conv_channels = s->ssm_inner + 2 * s->ssm_groups * s->ssm_state;
}

bool synth_layer_has(const struct synth_shape *s, uint32_t i, enum synth_layers which)
{
    const bool is_full = s->full_interval == 0 || (i + 1) % s->full_interval == 0;
    switch (which) {
    case EVERY_LAYER: return true;
    case DENSE_LAYERS: return s->n_experts == 0 || i < s->n_dense;
    case EXPERT_LAYERS: return s->n_experts > 0 && i >= s->n_dense;
    case FULL_LAYERS: return is_full;
    case RECURRENT_LAYERS: return !is_full;
    default: return false;
    }
}
