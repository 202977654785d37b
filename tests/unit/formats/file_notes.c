/* file_notes: whatever in a file makes answers worse is one sentence, and a file without shortcomings has none. */
#include "formats/file_notes.h"

#include "base/mem.h"
#include "base/strbuf.h"
#include "compute/dtype.h"
#include "formats/vocab_load.h"
#include "helpers/gguf_build.h"
#include "text/vocab.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name

static const char *const TOKENS[] = { "a", "b", "</s>" };
static const char *const MERGES[] = { "a b" };
static const int32_t TYPES[] = { 1, 1, 3 }, NO_CONTROL[] = { 1, 1, 1 };
static const uint8_t ZEROS[4096];

enum lack { NO_PRE = 1, NO_TYPES = 2, NO_END = 4, END_IS_TEXT = 8, NO_TEMPLATE = 16 };

static void start(struct gguf_build *b, unsigned lacks)
{
    gguf_build_init(b, 3);
    gguf_build_str(b, "general.architecture", "llama");
    gguf_build_str(b, KEY("model"), "gpt2");
    gguf_build_strs(b, KEY("tokens"), TOKENS, lacks & NO_END ? 2 : 3);
    gguf_build_strs(b, KEY("merges"), MERGES, 1);
    if (!(lacks & NO_PRE)) gguf_build_str(b, KEY("pre"), "smollm");
    if (!(lacks & NO_TYPES))
        gguf_build_i32s(b, KEY("token_type"), lacks & END_IS_TEXT ? NO_CONTROL : TYPES, lacks & NO_END ? 2 : 3);
    if (!(lacks & NO_END)) gguf_build_u32(b, KEY("eos_token_id"), 2);
    if (!(lacks & NO_TEMPLATE)) gguf_build_str(b, "tokenizer.chat_template", "{{ x }}");
}

static void add_matrix(struct gguf_build *b, const char *name, uint32_t type)
{
    gguf_build_tensor(b, name, type, 2, (uint64_t[]){ 256, 3 }, ZEROS, 3 * dtype_row_bytes(type, 256));
}

static void add_note(void *out, const char *note)
{
    strbuf_addf(out, "%s\n", note);
}

/* The notes of a file, each on a line. */
static void expect_notes(struct gguf_build *b, const char *want)
{
    struct gguf *g = NULL;
    struct vocab *v = NULL;
    struct error err = { 0 };
    struct strbuf notes = STRBUF_INIT;
    size_t n;
    uint8_t *file = gguf_build_finish(b, &n);
    cr_assert_eq(gguf_open_bytes(&g, bytes_of(file, n), &err), OK, "%s", err.text);
    cr_assert_eq(vocab_load_gguf(&v, g, &err), OK, "%s", err.text);
    file_notes(g, v, add_note, &notes);
    size_t n_lines = 0;
    for (const char *p = strbuf_cstr(&notes); *p; p++) n_lines += *p == '\n';
    cr_assert_eq(n_lines, want ? 1 : 0, "%s", strbuf_cstr(&notes));
    cr_assert(!want || strstr(strbuf_cstr(&notes), want), "%s", strbuf_cstr(&notes));
    strbuf_fini(&notes);
    vocab_destroy(v);
    gguf_close(g);
    mem_free(file);
}

Test(file_notes, name_what_the_vocabulary_lacks)
{
    static const struct {
        unsigned lacks;
        const char *note;
    } rows[] = {
        { 0, NULL },
        { NO_PRE, "tokenizer.ggml.pre is missing" },
        { NO_END, "no token ends an answer" },
        { END_IS_TEXT, "the end token 2 is no control token" },
        { NO_TEMPLATE, "tokenizer.chat_template is missing" },
        { NO_TYPES, "tokenizer.ggml.token_type is missing" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gguf_build b;
        start(&b, rows[i].lacks);
        expect_notes(&b, rows[i].note);
    }
}

Test(file_notes, name_rows_without_text)
{
    struct gguf_build b;
    start(&b, 0);
    gguf_build_tensor(&b, "token_embd.weight", DTYPE_F32, 2, (uint64_t[]){ 1, 5 }, ZEROS, 20);
    expect_notes(&b, "token_embd.weight has 5 rows for 3 tokens");
}

Test(file_notes, name_weights_of_few_bits)
{
    struct gguf_build b;
    start(&b, 0);
    for (int i = 0; i < 9; i++) add_matrix(&b, (char[]){ 'a', (char)('a' + i), '\0' }, DTYPE_Q8_0);
    add_matrix(&b, "b", DTYPE_Q3_K); /* one in ten does not count */
    expect_notes(&b, NULL);
    start(&b, 0);
    add_matrix(&b, "a", DTYPE_Q4_K);
    add_matrix(&b, "b", DTYPE_Q3_K);
    add_matrix(&b, "c", DTYPE_Q2_K);
    expect_notes(&b, "fewer than 4 bits a weight (down to Q2_K)");
    start(&b, 0);
    add_matrix(&b, "a", DTYPE_TQ2_0);
    expect_notes(&b, NULL);
}

Test(file_notes, name_layers_whose_types_are_far_apart)
{
    struct gguf_build b;
    start(&b, 0);
    add_matrix(&b, "token_embd.weight", DTYPE_F32);
    add_matrix(&b, "blk.0.ffn_down.weight", DTYPE_Q4_K);
    add_matrix(&b, "blk.1.ffn_down.weight", DTYPE_Q6_K);
    add_matrix(&b, "blk.1.ffn_up.weight", DTYPE_Q8_0);
    gguf_build_tensor(&b, "blk.0.attn_norm.weight", DTYPE_F32, 1, (uint64_t[]){ 4 }, ZEROS, 16);
    gguf_build_tensor(&b, "blk.1.attn_norm.weight", DTYPE_F16, 1, (uint64_t[]){ 4 }, ZEROS, 8);
    expect_notes(&b, NULL);
    start(&b, 0);
    add_matrix(&b, "token_embd.weight", DTYPE_F32);
    add_matrix(&b, "blk.0.ffn_down.weight", DTYPE_F16);
    add_matrix(&b, "blk.1.ffn_down.weight", DTYPE_Q4_K);
    expect_notes(&b, "ffn_down.weight is F16 in some layers and Q4_K in others");
}

Test(file_notes, name_a_window_that_cuts_the_context)
{
    struct gguf_build b;
    start(&b, 0);
    gguf_build_u32(&b, "llama.context_length", 4096);
    gguf_build_u32(&b, "llama.attention.sliding_window", 4096);
    expect_notes(&b, NULL);
    start(&b, 0);
    gguf_build_u32(&b, "llama.context_length", 4096);
    gguf_build_u32(&b, "llama.attention.sliding_window", 512);
    expect_notes(&b, "attention.sliding_window is 512");
}

/* Nine blocks of Q8_0 and more of a coarse type: a note from more than a tenth of the bytes on. */
Test(file_notes, say_how_many_of_the_weights_are_coarse)
{
    static const struct {
        uint32_t type;
        uint64_t rows; /* of 256, beside 100 rows of Q8_0, 272 bytes each */
        const char *note;
    } rows[] = {
        { DTYPE_Q2_K, 35, NULL }, /* 2940 of 30140 bytes */
        { DTYPE_Q2_K, 36, "10 of 100 bytes of weights are of types with fewer than 4 bits a weight (down to Q2_K)" },
        { DTYPE_Q3_K, 300, "54 of 100 bytes of weights are of types with fewer than 4 bits a weight (down to Q3_K)" },
        { DTYPE_IQ1_S, 300, "(down to IQ1_S)" },
        { DTYPE_TQ1_0, 300, NULL },
        { DTYPE_Q4_0, 300, NULL },
        { DTYPE_MXFP4, 300, NULL },
        { DTYPE_F64, 10, NULL },
    };
    static const uint8_t zeros[100 * 2048];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gguf_build b;
        start(&b, 0);
        gguf_build_tensor(&b, "a", DTYPE_Q8_0, 2, (uint64_t[]){ 256, 100 }, zeros, 27200);
        gguf_build_tensor(&b, "b", rows[i].type, 2, (uint64_t[]){ 256, rows[i].rows }, zeros,
                          rows[i].rows * dtype_row_bytes(rows[i].type, 256));
        expect_notes(&b, rows[i].note);
    }
}

Test(file_notes, compare_a_place_with_itself_in_other_layers_alone)
{
    static const char *const pairs[][2] = {
        { "blk.0.ffn_up.weight", "blk.1.ffn_down.weight" },   { "ffn_up.weight", "blk.1.ffn_up.weight" },
        { "blk.0.ffn_up.weight", "blk.ffn_up.weight" },       { "blk.0.ffn_up.weight", "blk.1" },
        { "v.blk.0.ffn_up.weight", "v.blk.1.ffn_up.weight" },
    };
    struct gguf_build b;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        start(&b, 0);
        add_matrix(&b, pairs[i][0], DTYPE_F32);
        add_matrix(&b, pairs[i][1], DTYPE_Q4_0);
        expect_notes(&b, NULL);
    }
    start(&b, 0); /* in any order, and between layers of all numbers */
    add_matrix(&b, "blk.117.ffn_up.weight", DTYPE_Q4_0);
    add_matrix(&b, "blk.3.ffn_up.weight", DTYPE_Q8_0);
    add_matrix(&b, "blk.20.ffn_up.weight", DTYPE_F32);
    expect_notes(&b, "ffn_up.weight is F32 in some layers and Q4_0 in others");
}

/* More places than are looked at: those that are, are. */
Test(file_notes, look_at_a_bounded_number_of_places)
{
    char name[32];
    for (int odd = 0; odd < 40; odd++) {
        struct gguf_build b;
        start(&b, 0);
        for (int i = 0; i < 40; i++) {
            snprintf(name, sizeof(name), "blk.0.w%d", i);
            add_matrix(&b, name, DTYPE_F16);
        }
        snprintf(name, sizeof(name), "blk.1.w%d", odd);
        add_matrix(&b, name, DTYPE_Q4_0);
        snprintf(name, sizeof(name), "w%d is F16 in some layers", odd);
        expect_notes(&b, odd < 32 ? name : NULL);
    }
}

Test(file_notes, a_window_of_another_family_or_of_no_context_says_nothing)
{
    static const struct {
        const char *context, *window;
        uint32_t n_context, n_window;
        const char *note;
    } rows[] = {
        { "llama.context_length", "llama.attention.sliding_window", 4096, 4095,
          "attention.sliding_window is 4095: sliding attention is not there, so contexts end at that length, not at "
          "4096" },
        { "llama.context_length", "llama.attention.sliding_window", 4096, 0, NULL },
        { "llama.context_length", "qwen2.attention.sliding_window", 4096, 512, NULL },
        { "qwen2.context_length", "llama.attention.sliding_window", 4096, 512, NULL },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gguf_build b;
        start(&b, 0);
        gguf_build_u32(&b, rows[i].context, rows[i].n_context);
        gguf_build_u32(&b, rows[i].window, rows[i].n_window);
        expect_notes(&b, rows[i].note);
    }
}
