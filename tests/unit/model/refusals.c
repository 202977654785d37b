/* Unit: what a family's metadata cannot mean is refused by key and value. */
#include "helpers/gguf_build.h"
#include "model/model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct key {
    const char *name;
    uint32_t value;
};

/* Each family's metadata, sound. */
static const struct key COMMON[] = { { "block_count", 4 },          { "context_length", 512 },
                                     { "embedding_length", 64 },    { "feed_forward_length", 96 },
                                     { "attention.head_count", 4 }, { "attention.head_count_kv", 2 },
                                     { "vocab_size", 160 } };
static const struct key EXPERTS[] = { { "expert_count", 8 }, { "expert_used_count", 2 } };
static const struct key GEMMA[] = { { "attention.sliding_window", 24 } };
static const struct key HYBRID[] = { { "ssm.state_size", 16 },
                                     { "ssm.group_count", 2 },
                                     { "ssm.time_step_rank", 4 },
                                     { "ssm.conv_kernel", 4 },
                                     { "ssm.inner_size", 64 } };
static const struct key MAMBA[] = { { "ssm.state_size", 16 },
                                    { "ssm.group_count", 2 },
                                    { "ssm.time_step_rank", 4 },
                                    { "ssm.conv_kernel", 4 },
                                    { "ssm.inner_size", 64 } };
static const struct key LATENT[] = { { "attention.kv_lora_rank", 32 },
                                     { "attention.key_length", 48 },
                                     { "attention.value_length", 32 },
                                     { "rope.dimension_count", 16 } };

static const struct sound {
    const char *family;
    const struct key *keys;
    uint32_t n;
} SOUND[] = {
    { "qwen3moe", EXPERTS, 2 }, { "gemma2", GEMMA, 1 },     { "gemma3", GEMMA, 1 },  { "qwen35", HYBRID, 5 },
    { "mamba2", MAMBA, 5 },     { "deepseek2", LATENT, 4 }, { "gpt-oss", GEMMA, 1 }, { "phi3", NULL, 0 },
};

/* A vocabulary-only file with these keys, of which one may be another, more or missing. */
static enum status read_with(const struct sound *s, const struct key *other, const char *missing, char text[512])
{
    struct gguf_build b;
    struct model_info info;
    struct error err = { 0 };
    char path[64], key[96];
    gguf_build_init(&b, 3);
    gguf_build_str(&b, "general.architecture", s->family);
    for (uint32_t i = 0; i < sizeof(COMMON) / sizeof(COMMON[0]) + s->n; i++) {
        const uint32_t n = sizeof(COMMON) / sizeof(COMMON[0]);
        const struct key *k = i < n ? &COMMON[i] : &s->keys[i - n];
        if ((other && strcmp(other->name, k->name) == 0) || (missing && strcmp(missing, k->name) == 0)) continue;
        snprintf(key, sizeof(key), "%s.%s", s->family, k->name);
        gguf_build_u32(&b, key, k->value);
    }
    snprintf(key, sizeof(key), "%s.%s", s->family, other ? other->name : "");
    if (other) gguf_build_u32(&b, key, other->value);
    snprintf(path, sizeof(path), "/tmp/baton-refusals-%d.gguf", (int)getpid());
    cr_assert(gguf_build_save(&b, path));
    enum status st = model_read_info(&info, path, &err);
    snprintf(text, 512, "%s", err.text);
    unlink(path);
    return st;
}

static const struct sound *sound_of(const char *family)
{
    for (size_t i = 0; i < sizeof(SOUND) / sizeof(SOUND[0]); i++)
        if (strcmp(SOUND[i].family, family) == 0) return &SOUND[i];
    return NULL;
}

Test(refusals, experts_in_every_layer_need_no_width_of_dense_ones)
{
    const struct key width = { "expert_feed_forward_length", 32 };
    char text[512];
    cr_assert_eq(read_with(&SOUND[0], &width, "feed_forward_length", text), OK, "%s", text);
    cr_assert_neq(read_with(&SOUND[0], NULL, "feed_forward_length", text), OK);
    cr_assert(strstr(text, "qwen3moe.feed_forward_length"), "%s", text);
}

Test(refusals, sound_metadata_is_read)
{
    char text[512];
    for (size_t i = 0; i < sizeof(SOUND) / sizeof(SOUND[0]); i++)
        cr_assert_eq(read_with(&SOUND[i], NULL, NULL, text), OK, "%s: %s", SOUND[i].family, text);
}

Test(refusals, name_the_key_and_what_is_allowed)
{
    static const struct {
        const char *family;
        struct key other;
        const char *says, *also;
    } CASES[] = {
        { "qwen3moe", { "expert_used_count", 9 }, "expert_used_count is 9", "8 experts" },
        { "qwen3moe", { "expert_used_count", 0 }, "expert_used_count is 0", "allowed is 1" },
        { "qwen3moe", { "expert_count", 1u << 20 }, "expert_count is 1048576", "allowed is 0 to" },
        { "qwen3moe", { "expert_group_count", 3 }, "8 experts", "3 groups" },
        { "qwen3moe", { "expert_group_count", 8 }, "8 experts in 8 groups", "at least 2" },
        { "qwen3moe", { "expert_group_used_count", 2 }, "2 groups of experts are used", "there are 1" },
        { "qwen3moe", { "expert_gating_func", 9 }, "expert_gating_func is 9", "allowed is 0 to 4" },
        { "qwen3moe", { "expert_feed_forward_length", UINT32_MAX }, "4294967295", "allowed is 1 to" },
        { "qwen3moe", { "expert_shared_count", 5000 }, "expert_shared_count is 5000", "allowed is 0 to" },
        { "gemma2", { "attention.sliding_window", 0 }, "sliding_window is 0", "allowed is 1 to" },
        { "gpt-oss", { "attention.sliding_window", 0 }, "sliding_window is 0", "allowed is 1 to" },
        { "gemma3", { "attention.head_count_kv", 3 }, "4 query heads", "3 kv heads" },
        { "qwen35", { "ssm.inner_size", 80 }, "ssm.inner_size is 80", "4 heads of 16 dimensions are 64" },
        { "qwen35", { "ssm.group_count", 3 }, "4 value heads", "3 key heads" },
        { "qwen35", { "ssm.conv_kernel", 1 }, "ssm.conv_kernel is 1", "allowed is 2 to" },
        { "qwen35", { "ssm.state_size", 1u << 30 }, "ssm.state_size is 1073741824", "allowed is 1 to" },
        { "qwen35", { "nextn_predict_layers", 4 }, "nextn_predict_layers is 4", "allowed is 0 to 3" },
        { "mamba2", { "ssm.time_step_rank", 5 }, "ssm.inner_size is 64", "5 heads" },
        { "mamba2", { "ssm.group_count", 3 }, "4 heads", "3 groups" },
        { "deepseek2", { "attention.key_length", 16 }, "key_length is 16", "allowed is 17 to" },
        { "deepseek2", { "attention.kv_lora_rank", 0 }, "kv_lora_rank is 0", "allowed is 1 to" },
    };
    char text[512];
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        cr_assert_neq(read_with(sound_of(CASES[i].family), &CASES[i].other, NULL, text), OK, "%s: %s = %u",
                      CASES[i].family, CASES[i].other.name, CASES[i].other.value);
        cr_expect(strstr(text, CASES[i].says) && strstr(text, CASES[i].also), "%s = %u: %s", CASES[i].other.name,
                  CASES[i].other.value, text);
    }
}

Test(refusals, name_the_key_that_is_missing)
{
    static const char *const CASES[][2] = {
        { "gemma2", "attention.sliding_window" }, { "gpt-oss", "attention.sliding_window" },
        { "qwen3moe", "expert_used_count" },      { "qwen35", "ssm.time_step_rank" },
        { "mamba2", "ssm.inner_size" },           { "deepseek2", "attention.kv_lora_rank" },
        { "phi3", "feed_forward_length" }
    };
    char text[512];
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        cr_assert_neq(read_with(sound_of(CASES[i][0]), NULL, CASES[i][1], text), OK);
        cr_expect(strstr(text, CASES[i][1]) && strstr(text, "is missing"), "%s", text);
    }
}

static void try_pattern(const int32_t *values, size_t n, const char *says)
{
    struct gguf_build b;
    struct model_info info;
    struct error err = { 0 };
    char path[64], key[96];
    gguf_build_init(&b, 3);
    gguf_build_str(&b, "general.architecture", "gemma3");
    for (uint32_t i = 0; i < sizeof(COMMON) / sizeof(COMMON[0]); i++) {
        snprintf(key, sizeof(key), "gemma3.%s", COMMON[i].name);
        gguf_build_u32(&b, key, COMMON[i].value);
    }
    gguf_build_u32(&b, "gemma3.attention.sliding_window", 24);
    gguf_build_i32s(&b, "gemma3.attention.sliding_window_pattern", values, n);
    snprintf(path, sizeof(path), "/tmp/baton-refusals-%d.gguf", (int)getpid());
    cr_assert(gguf_build_save(&b, path));
    enum status st = model_read_info(&info, path, &err);
    unlink(path);
    cr_assert_eq(st == OK, !says, "%s", err.text);
    if (says) cr_expect(strstr(err.text, says), "%s", err.text);
}

Test(refusals, a_list_has_a_value_for_each_layer)
{
    static const int32_t LIST[5] = { 1, 0, 1, 1, 0 }, BAD[4] = { 1, 0, 2, 1 };
    try_pattern(LIST, 4, NULL);
    try_pattern(LIST, 5, "has 5 values for 4 layers");
    try_pattern(LIST, 3, "has 3 values for 4 layers");
    try_pattern(BAD, 4, "is 2 for layer 2, allowed is 0 to 1");
}
