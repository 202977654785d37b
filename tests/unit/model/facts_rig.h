/* facts_rig.h - metadata of each family, sound but for the keys that a test gives, read into facts. */
#ifndef UNIT_MODEL_FACTS_RIG_H
#define UNIT_MODEL_FACTS_RIG_H
#include "base/mem.h"
#include "formats/gguf.h"
#include "helpers/gguf_build.h"
#include "model/facts.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* A key without its family's name; a number, or a flag, or a word. */
struct key {
    const char *name;
    enum { U32, F32, BOOL, WORD } type;
    double number;
    const char *word;
};
#define U(name, v)                                                                                                     \
    {                                                                                                                  \
        name, U32, v, NULL                                                                                             \
    }
#define F(name, v)                                                                                                     \
    {                                                                                                                  \
        name, F32, v, NULL                                                                                             \
    }
#define B(name, v)                                                                                                     \
    {                                                                                                                  \
        name, BOOL, v, NULL                                                                                            \
    }
#define W(name, v)                                                                                                     \
    {                                                                                                                  \
        name, WORD, 0, v                                                                                               \
    }

static const struct key COMMON[] = { U("block_count", 8),          U("context_length", 512),
                                     U("embedding_length", 64),    U("feed_forward_length", 96),
                                     U("attention.head_count", 4), U("attention.head_count_kv", 2) };
static const struct key GEMMA[] = { U("attention.sliding_window", 24) };
static const struct key EXPERTS[] = { U("expert_count", 8), U("expert_used_count", 2) };
static const struct key SSM[] = { U("ssm.state_size", 16), U("ssm.group_count", 2), U("ssm.time_step_rank", 4),
                                  U("ssm.conv_kernel", 4), U("ssm.inner_size", 64) };
static const struct key LATENT[] = { U("attention.kv_lora_rank", 32), U("attention.key_length", 48),
                                     U("attention.value_length", 32), U("rope.dimension_count", 16) };

static const struct own {
    const char *family;
    const struct key *keys;
    size_t n;
} OWN[] = { { "gemma2", GEMMA, 1 },     { "gemma3", GEMMA, 1 },     { "gpt-oss", GEMMA, 1 },
            { "qwen3moe", EXPERTS, 2 }, { "qwen3next", SSM, 5 },    { "qwen35", SSM, 5 },
            { "mamba2", SSM, 5 },       { "deepseek2", LATENT, 4 }, { "qwen35moe", SSM, 5 } };

static void put(struct gguf_build *b, const char *family, const struct key *k)
{
    char name[96];
    snprintf(name, sizeof(name), "%s.%s", family, k->name);
    if (k->type == U32) gguf_build_u32(b, name, (uint32_t)k->number);
    if (k->type == F32) gguf_build_f32(b, name, (float)k->number);
    if (k->type == BOOL) gguf_build_bool(b, name, k->number != 0);
    if (k->type == WORD) gguf_build_str(b, name, k->word);
}

/* A family's sound keys, where these `n` take the place of those of the same name; the last may have none. */
static enum status read_with(struct model_facts *f, const char *family, const struct key *keys, size_t n,
                             struct error *err)
{
    struct gguf_build b;
    struct gguf *g = NULL;
    const struct own *own = NULL;
    size_t bytes;
    while (n > 0 && !keys[n - 1].name) n--;
    gguf_build_init(&b, 3);
    gguf_build_str(&b, "general.architecture", family);
    for (size_t i = 0; i < COUNT(OWN); i++)
        if (strcmp(OWN[i].family, family) == 0) own = &OWN[i];
    for (size_t i = 0; i < COUNT(COMMON) + (own ? own->n : 0); i++) {
        const struct key *k = i < COUNT(COMMON) ? &COMMON[i] : &own->keys[i - COUNT(COMMON)];
        bool other = false;
        for (size_t j = 0; j < n; j++) other = other || strcmp(keys[j].name, k->name) == 0;
        if (!other) put(&b, family, k);
    }
    for (size_t j = 0; j < n; j++) put(&b, family, &keys[j]);
    uint8_t *file = gguf_build_finish(&b, &bytes);
    cr_assert_eq(gguf_open_bytes(&g, bytes_of(file, bytes), err), OK, "%s", err->text);
    enum status st = model_facts_read(f, g, err);
    gguf_close(g);
    mem_free(file);
    return st;
}

#define READ(f, family, ...)                                                                                           \
    do {                                                                                                               \
        const struct key keys_[] = { __VA_ARGS__ };                                                                    \
        struct error err_ = { OK, "" };                                                                                \
        cr_assert_eq(read_with(f, family, keys_, COUNT(keys_), &err_), OK, "%s", err_.text);                           \
    } while (0)
#endif
