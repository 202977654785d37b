/* Unit: what a family's metadata says becomes facts and rows. */
#include "unit/model/facts_rig.h"

#include <math.h>

Test(facts, what_a_file_does_not_say_is_the_usual)
{
    struct model_facts f;
    READ(&f, "llama", { 0 });
    cr_assert_float_eq(f.info.norm_eps, 1e-5f, 1e-12f);
    cr_assert(f.info.n_layers == 8 && f.info.context_length == 512 && f.info.d_model == 64 && f.info.d_ff == 96);
    cr_assert(f.info.n_heads == 4 && f.info.n_kv_heads == 2 && f.info.head_dim == 16 && f.info.n_vocab == 0);
    cr_assert_float_eq(f.info.attn_scale, 0.25f, 1e-9f);
    cr_assert(f.n_guessing == 0 && f.embed_scale == 1.0f && f.logit_cap == 0.0f && f.n_ropes == 1 && !f.info.latent);
    const struct rope_facts *r = &f.rope_facts[0];
    cr_assert(r->base == 10000.0f && r->dims == 16 && r->scaling == ROPE_LINEAR && r->factor == 1.0f && !r->neox);
    cr_assert(r->original_context == 512 && r->attn_factor == 1.0f && r->beta_fast == 32.0f && r->beta_slow == 1.0f);
    cr_assert(r->magnitude);
    for (uint32_t i = 0; i < 8; i++) {
        const struct layer *l = &f.layers[i];
        cr_assert(l->mixer == &mixer_attention && l->channel == &channel_glu && l->glu.d_ff == 96);
        cr_assert(l->attn.facts.causal && l->attn.facts.window == 0 && l->attn.facts.softcap == 0.0f);
        cr_assert(!l->attn.needs_bias && !l->attn.head_norms && !l->attn.gated && !l->attn.has_sinks);
        cr_assert(l->glu.kind == GLU_SILU && !l->glu.fused && l->attn.rope == 0);
    }
    model_facts_fini(&f);
}

Test(facts, scaling_is_of_the_kind_that_the_file_names)
{
    static const struct {
        const char *word;
        enum rope_scaling scaling;
    } rows[] = { { "none", ROPE_PLAIN },
                 { "linear", ROPE_LINEAR },
                 { "yarn", ROPE_YARN },
                 { "longrope", ROPE_LONG },
                 { "", ROPE_LINEAR } };
    struct model_facts f;
    for (size_t i = 0; i < COUNT(rows); i++) {
        READ(&f, "llama", W("rope.scaling.type", rows[i].word), F("rope.scaling.factor", 4));
        cr_assert(f.rope_facts[0].scaling == rows[i].scaling && f.rope_facts[0].factor == 4.0f, "%s", rows[i].word);
        model_facts_fini(&f);
    }
    READ(&f, "llama", F("rope.scale_linear", 3));
    cr_assert_eq(f.rope_facts[0].factor, 3.0f, "by its older name");
    model_facts_fini(&f);
    READ(&f, "llama", F("rope.scale_linear", 3), F("rope.scaling.factor", 2));
    cr_assert_eq(f.rope_facts[0].factor, 2.0f);
    model_facts_fini(&f);
    READ(&f, "llama", F("rope.scaling.factor", 0));
    cr_assert_eq(f.rope_facts[0].factor, 1.0f, "0 is none");
    model_facts_fini(&f);
}

Test(facts, a_window_that_is_not_supported_ends_the_context)
{
    static const struct {
        double window;
        uint32_t context;
    } rows[] = { { 0, 512 }, { 1, 1 }, { 511, 511 }, { 512, 512 }, { 4096, 512 } };
    static const char *const families[] = { "llama", "qwen2", "qwen3", "phi3" };
    struct model_facts f;
    for (size_t i = 0; i < COUNT(rows); i++)
        for (size_t k = 0; k < COUNT(families); k++) {
            READ(&f, families[k], U("attention.sliding_window", rows[i].window));
            cr_assert_eq(f.info.context_length, rows[i].context, "%s: %g", families[k], rows[i].window);
            model_facts_fini(&f);
        }
}

Test(facts, of_the_plain_families_differ_in_little)
{
    static const struct {
        const char *family;
        bool neox, needs_bias, head_norms, fused;
    } rows[] = { { "llama", false, false, false, false },
                 { "qwen2", true, true, false, false },
                 { "qwen3", true, false, true, false },
                 { "qwen3moe", true, false, true, false },
                 { "phi3", true, false, false, true } };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct model_facts f;
        READ(&f, rows[i].family, { 0 });
        cr_assert_str_eq(f.info.arch, rows[i].family);
        cr_assert_eq(f.rope_facts[0].neox, rows[i].neox, "%s", rows[i].family);
        for (uint32_t l = 0; l < 8; l++) {
            cr_assert_eq(f.layers[l].attn.needs_bias, rows[i].needs_bias, "%s", rows[i].family);
            cr_assert_eq(f.layers[l].attn.head_norms, rows[i].head_norms, "%s", rows[i].family);
            if (f.layers[l].channel == &channel_glu) cr_assert_eq(f.layers[l].glu.fused, rows[i].fused);
        }
        model_facts_fini(&f);
    }
}

/* Which of 12 layers slide: period 0 is all, 1 none. */
Test(facts, all_but_every_nth_layer_slides)
{
    static const struct {
        const char *family;
        int period; /* -1: not said */
        const char *slides;
    } rows[] = { { "gemma2", -1, "101010101010" }, { "gemma3", -1, "111110111110" }, { "gpt-oss", -1, "101010101010" },
                 { "gemma3", 0, "111111111111" },  { "gemma3", 1, "000000000000" },  { "gemma3", 3, "110110110110" },
                 { "gemma3", 12, "111111111110" } };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct model_facts f;
        READ(&f, rows[i].family, U("block_count", 12),
             { rows[i].period < 0 ? NULL : "attention.sliding_window_pattern", U32, rows[i].period, NULL });
        for (uint32_t l = 0; l < 12; l++) {
            cr_assert_eq(f.layers[l].attn.facts.window, rows[i].slides[l] == '1' ? 24 : 0, "%s layer %u",
                         rows[i].family, l);
            const bool own_rope = strcmp(rows[i].family, "gemma3") == 0 && rows[i].slides[l] == '1';
            cr_assert_eq(f.layers[l].attn.rope, own_rope ? 1 : 0);
        }
        model_facts_fini(&f);
    }
}

Test(facts, of_gemma)
{
    struct model_facts f;
    READ(&f, "gemma2", { 0 });
    cr_assert(f.embed_scale == 8.0f && f.logit_cap == 30.0f && f.n_ropes == 1 && f.rope_facts[0].neox);
    for (uint32_t l = 0; l < 8; l++) {
        cr_assert(f.layers[l].attn.facts.softcap == 50.0f && f.layers[l].glu.kind == GLU_GELU);
        cr_assert_str_eq(f.layers[l].mixer_norms.after_name, "post_attention_norm.weight");
        cr_assert_str_eq(f.layers[l].channel_norms.after_name, "post_ffw_norm.weight");
        cr_assert_not(f.layers[l].attn.head_norms);
    }
    model_facts_fini(&f);
    READ(&f, "gemma3", W("rope.scaling.type", "linear"), F("rope.scaling.factor", 8), F("rope.freq_base", 1e6));
    cr_assert(f.logit_cap == 0.0f && f.n_ropes == 2 && f.layers[0].attn.head_norms);
    cr_assert(f.rope_facts[0].base == 1e6f && f.rope_facts[0].scaling == ROPE_LINEAR);
    cr_assert(f.rope_facts[1].base == 10000.0f && f.rope_facts[1].scaling == ROPE_PLAIN && f.rope_facts[1].neox);
    model_facts_fini(&f);
    /* The largest of each kind scale by their width. */
    static const struct {
        const char *family;
        double layers;
        float scale;
    } rows[] = {
        { "gemma2", 46, 16 }, { "gemma2", 45, 32 }, { "gemma2", 62, 32 }, { "gemma3", 62, 16 }, { "gemma3", 46, 32 }
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        READ(&f, rows[i].family, U("block_count", rows[i].layers), U("attention.key_length", 32));
        for (uint32_t l = 0; l < f.info.n_layers; l++)
            cr_assert_float_eq(f.layers[l].attn.facts.scale, 1.0f / sqrtf(rows[i].scale), 1e-7f, "row %zu", i);
        model_facts_fini(&f);
    }
}

Test(facts, of_experts)
{
    struct model_facts f;
    READ(&f, "qwen3moe", { 0 });
    for (uint32_t l = 0; l < 8; l++) {
        const struct moe *e = &f.layers[l].moe;
        cr_assert(f.layers[l].channel == &channel_moe && e->n_used == 2 && e->d_ff == 96 && e->d_ff_shared == 0);
        cr_assert(e->route.n_experts == 8 && e->route.n_groups == 1 && e->route.n_groups_used == 1);
        cr_assert(e->route.gate == ROUTE_SOFTMAX && e->route.norm && e->route.scale == 1.0f && !e->shared_gate);
        cr_assert_eq(e->kind, GLU_SILU);
    }
    model_facts_fini(&f);
    READ(&f, "qwen3moe", U("expert_feed_forward_length", 32), U("expert_shared_count", 3), U("expert_group_count", 4),
         U("expert_group_used_count", 2), U("expert_gating_func", 2), B("expert_weights_norm", 0),
         F("expert_weights_scale", 2.5), U("leading_dense_block_count", 3));
    for (uint32_t l = 0; l < 8; l++) {
        const struct moe *e = &f.layers[l].moe;
        cr_assert_eq(f.layers[l].channel, l < 3 ? &channel_glu : &channel_moe);
        if (l < 3) continue;
        cr_assert(e->d_ff == 32 && e->d_ff_shared == 96 && e->route.n_groups == 4 && e->route.n_groups_used == 2);
        cr_assert(e->route.gate == ROUTE_SIGMOID && !e->route.norm && e->route.scale == 2.5f);
    }
    model_facts_fini(&f);
    READ(&f, "qwen3moe", U("expert_shared_feed_forward_length", 7), F("expert_weights_scale", 0));
    cr_assert(f.layers[0].moe.d_ff_shared == 7 && f.layers[0].moe.route.scale == 1.0f);
    model_facts_fini(&f);
    READ(&f, "qwen3moe", U("expert_count", 0));
    cr_assert_eq(f.layers[0].channel, &channel_glu);
    model_facts_fini(&f);
    READ(&f, "gpt-oss", U("expert_count", 8), U("expert_used_count", 2));
    for (uint32_t l = 0; l < 8; l++) {
        cr_assert(f.layers[l].attn.has_sinks && f.layers[l].attn.needs_bias && f.rope_facts[0].neox);
        cr_assert_str_eq(f.layers[l].channel_norms.before_name, "post_attention_norm.weight");
        cr_assert(f.layers[l].moe.kind == GLU_OAI && f.layers[l].moe.route.gate == ROUTE_SOFTMAX_CHOSEN);
        cr_assert_not(f.layers[l].moe.route.norm);
    }
    model_facts_fini(&f);
}

Test(facts, of_hybrids)
{
    struct model_facts f;
    static const struct {
        const char *family;
        double interval; /* 0: not said */
        bool tiled;
    } rows[] = { { "qwen3next", 0, false },
                 { "qwen35", 0, true },
                 { "qwen35", 3, true },
                 { "qwen35moe", 8, true },
                 { "qwen35", 1, true } };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const uint32_t every = rows[i].interval ? (uint32_t)rows[i].interval : 4;
        READ(&f, rows[i].family, { rows[i].interval ? "full_attention_interval" : NULL, U32, rows[i].interval, NULL });
        for (uint32_t l = 0; l < 8; l++) {
            const struct layer *at = &f.layers[l];
            cr_assert_str_eq(at->channel_norms.before_name, "post_attention_norm.weight");
            cr_assert_eq(at->mixer, (l + 1) % every ? &mixer_delta : &mixer_attention, "%s layer %u", rows[i].family,
                         l);
            if (at->mixer == &mixer_attention) {
                cr_assert(at->attn.gated && at->attn.head_norms);
                continue;
            }
            cr_assert(at->delta.dim == 16 && at->delta.n_k_heads == 2 && at->delta.n_v_heads == 4 &&
                      at->delta.kernel == 4);
            cr_assert(at->delta.tiled == rows[i].tiled && at->delta.fused_gates == !rows[i].tiled);
        }
        model_facts_fini(&f);
    }
    READ(&f, "qwen35moe", U("expert_count", 8), U("expert_used_count", 2), U("expert_shared_count", 1));
    cr_assert(f.layers[0].moe.shared_gate && f.layers[0].moe.route.norm && f.rope_facts[0].neox);
    model_facts_fini(&f);
    READ(&f, "qwen35moe", U("expert_count", 8), U("expert_used_count", 2));
    cr_assert_not(f.layers[0].moe.shared_gate, "where no expert is shared");
    model_facts_fini(&f);
    READ(&f, "qwen35", U("nextn_predict_layers", 3));
    cr_assert(f.info.n_layers == 5 && f.n_guessing == 3);
    model_facts_fini(&f);
    READ(&f, "mamba2", { 0 });
    for (uint32_t l = 0; l < 8; l++) {
        const struct mamba2 *e = &f.layers[l].mamba2;
        cr_assert(f.layers[l].mixer == &mixer_mamba2 && !f.layers[l].channel && !f.layers[l].channel_norms.before_name);
        cr_assert(e->n_heads == 4 && e->head_dim == 16 && e->state == 16 && e->n_groups == 2 && e->kernel == 4);
    }
    model_facts_fini(&f);
}

Test(facts, of_latents)
{
    struct model_facts f;
    READ(&f, "deepseek2", { 0 });
    cr_assert(f.info.latent && f.info.head_dim == 32 && f.info.n_heads == 4 && f.info.n_kv_heads == 1);
    cr_assert(f.rope_facts[0].dims == 16 && !f.rope_facts[0].neox && f.rope_facts[0].magnitude);
    cr_assert_float_eq(f.info.attn_scale, 1.0f / sqrtf(48), 1e-7f);
    for (uint32_t l = 0; l < 8; l++) {
        const struct mla *a = &f.layers[l].mla;
        cr_assert(f.layers[l].mixer == &mixer_mla && a->n_heads == 4 && a->q_rank == 0 && a->kv_rank == 32);
        cr_assert(a->nope == 32 && a->rope == 16 && a->v_dim == 32 && a->scale == f.info.attn_scale);
    }
    model_facts_fini(&f);
    READ(&f, "deepseek2", U("attention.key_length_mla", 24), U("attention.value_length_mla", 20),
         U("attention.q_lora_rank", 12));
    cr_assert(f.layers[0].mla.nope == 8 && f.layers[0].mla.v_dim == 20 && f.layers[0].mla.q_rank == 12);
    model_facts_fini(&f);
    READ(&f, "deepseek2", W("rope.scaling.type", "yarn"), F("rope.scaling.factor", 40),
         F("rope.scaling.yarn_log_multiplier", 0.1));
    const double grown = 1 + 0.1 * log(40);
    cr_assert_float_eq(f.info.attn_scale, grown * grown / sqrt(48), 1e-6);
    cr_assert_not(f.rope_facts[0].magnitude);
    model_facts_fini(&f);
    READ(&f, "deepseek2", F("rope.scaling.factor", 40), F("rope.scaling.yarn_log_multiplier", 0.1));
    cr_assert_float_eq(f.info.attn_scale, 1.0f / sqrtf(48), 1e-7f, "of another kind of scaling");
    cr_assert(f.rope_facts[0].magnitude);
    model_facts_fini(&f);
    static const struct {
        double layers, vocab;
        enum route_gate gate;
    } rows[] = { { 47, 154880, ROUTE_SIGMOID }, { 48, 154880, ROUTE_SIGMOID }, { 46, 154880, ROUTE_SOFTMAX },
                 { 49, 154880, ROUTE_SOFTMAX }, { 47, 154879, ROUTE_SOFTMAX }, { 48, 154881, ROUTE_SOFTMAX } };
    for (size_t i = 0; i < COUNT(rows); i++) {
        READ(&f, "deepseek2", U("block_count", rows[i].layers), U("vocab_size", rows[i].vocab), U("expert_count", 8),
             U("expert_used_count", 2));
        cr_assert_eq(f.layers[0].moe.route.gate, rows[i].gate, "row %zu", i);
        cr_assert_not(f.layers[0].moe.route.norm);
        model_facts_fini(&f);
    }
}

Test(facts, divisors_are_for_long_sessions_or_for_all)
{
    struct model_facts f;
    READ(&f, "phi3", W("rope.scaling.type", "longrope"), U("rope.scaling.original_context_length", 128));
    f.rope_given[ROPE_GIVEN_LONG] = mem_array(8, sizeof(float));
    f.rope_given[ROPE_GIVEN_SHORT] = mem_array(8, sizeof(float));
    for (int i = 0; i < 8; i++) f.rope_given[ROPE_GIVEN_LONG][i] = 4.0f, f.rope_given[ROPE_GIVEN_SHORT][i] = 2.0f;
    model_facts_plan_rope(&f, 129);
    cr_assert(f.info.rope_long && f.info.rope.freq_factors[7] == 4.0f);
    mem_free(f.rope_factors[0]);
    model_facts_plan_rope(&f, 128);
    cr_assert(!f.info.rope_long && f.info.rope.freq_factors[0] == 2.0f);
    model_facts_fini(&f);
    READ(&f, "gemma3", { 0 }); /* the second table has no divisors of the file */
    f.rope_given[ROPE_GIVEN_FREQS] = mem_array(8, sizeof(float));
    for (int i = 0; i < 8; i++) f.rope_given[ROPE_GIVEN_FREQS][i] = 3.0f;
    model_facts_plan_rope(&f, 512);
    cr_assert(f.rope[0].freq_factors[3] == 3.0f && !f.rope[1].freq_factors && !f.info.rope_long);
    model_facts_fini(&f);
}

/* One value for each layer, also of those that guess. */
Test(facts, of_each_layer)
{
    static const int32_t heads[] = { 4, 2, 4, 8, 4, 2, 4, 8 }, widths[] = { 10, 20, 30, 40, 50, 60, 7, 8 };
    for (int guessing = 0; guessing <= 2; guessing++) {
        struct gguf_build b;
        struct gguf *g = NULL;
        struct model_facts f;
        struct error err = { OK, "" };
        size_t bytes;
        gguf_build_init(&b, 3);
        gguf_build_str(&b, "general.architecture", "qwen3");
        for (size_t i = 0; i < 3; i++) put(&b, "qwen3", &COMMON[i]);
        if (guessing) gguf_build_u32(&b, "qwen3.nextn_predict_layers", (uint32_t)guessing);
        gguf_build_i32s(&b, "qwen3.attention.head_count", heads, 8);
        gguf_build_i32s(&b, "qwen3.feed_forward_length", widths, guessing == 1 ? 7 : 8);
        uint8_t *file = gguf_build_finish(&b, &bytes);
        cr_assert_eq(gguf_open_bytes(&g, bytes_of(file, bytes), &err), OK, "%s", err.text);
        cr_assert_eq(model_facts_read(&f, g, &err), OK, "%s", err.text);
        cr_assert(f.info.n_layers == 8u - (uint32_t)guessing && f.info.d_ff == 60 && f.info.n_heads == 4);
        for (uint32_t l = 0; l < f.info.n_layers; l++) {
            cr_assert_eq(f.layers[l].attn.n_heads, (uint32_t)heads[l]);
            cr_assert_eq(f.layers[l].attn.n_kv_heads, (uint32_t)heads[l], "no kv heads said: as many");
            cr_assert_eq(f.layers[l].glu.d_ff, (uint32_t)widths[l]);
            cr_assert_str_eq(f.layers[l].mixer_norms.before_name, "attn_norm.weight");
            cr_assert_str_eq(f.layers[l].channel_norms.before_name, "ffn_norm.weight");
        }
        model_facts_fini(&f);
        gguf_close(g);
        mem_free(file);
    }
}

Test(facts, a_family_that_is_not_there_is_refused_with_those_that_are)
{
    static const char *const families[] = { "llama",  "qwen2",     "qwen3",   "qwen3moe",  "gemma2",
                                            "gemma3", "phi3",      "gpt-oss", "deepseek2", "qwen3next",
                                            "qwen35", "qwen35moe", "mamba2" };
    struct model_facts f;
    struct error err = { OK, "" };
    cr_assert_eq(read_with(&f, "llama2", NULL, 0, &err), ERR_UNSUPPORTED);
    cr_assert(strstr(err.text, "general.architecture is \"llama2\", supported are: llama, qwen2, qwen3, "), "%s",
              err.text);
    for (size_t i = 0; i < COUNT(families); i++) {
        cr_assert(strstr(err.text, families[i]), "%s", families[i]);
        cr_assert_str_eq(family_find(bytes_of(families[i], strlen(families[i])))->name, families[i]);
    }
    model_facts_fini(&f);
}
