/* vocab_load: a file's tokenizer metadata becomes a vocabulary, or an error that names the key. */
#include "formats/vocab_load.h"

#include "base/mem.h"
#include "compute/dtype.h"
#include "formats/gguf.h"
#include "helpers/gguf_build.h"
#include "text/vocab.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY(name) "tokenizer.ggml." name

static const char *const TOKENS[] = { "<unk>", "<s>", "</s>", "a", "b", "ab", "<|endoftext|>", "<|im_end|>" };
enum { N_TOKENS = sizeof(TOKENS) / sizeof(TOKENS[0]) };
static const int32_t TYPES[N_TOKENS] = { 2, 3, 3, 1, 1, 0, 3, 3 };
static const float SCORES[N_TOKENS] = { 0, 0, 0, -1, -2, -3, 0, 0 };
static const char *const MERGES[] = { "a b", "  b", "ab a b" };

static void start(struct gguf_build *b, const char *model)
{
    gguf_build_init(b, 3);
    gguf_build_str(b, KEY("model"), model);
}

static void add_tables(struct gguf_build *b)
{
    gguf_build_strs(b, KEY("tokens"), TOKENS, N_TOKENS);
    gguf_build_i32s(b, KEY("token_type"), TYPES, N_TOKENS);
    gguf_build_f32s(b, KEY("scores"), SCORES, N_TOKENS);
    gguf_build_strs(b, KEY("merges"), MERGES, 3);
}

/* The file is freed before the vocabulary is used: it must hold copies. */
static enum status load(struct gguf_build *b, struct vocab **v, struct error *err)
{
    struct gguf *g;
    size_t n;
    uint8_t *file = gguf_build_finish(b, &n);
    cr_assert(gguf_open_bytes(&g, bytes_of(file, n), err) == OK, "%s", err->text);
    enum status st = vocab_load_gguf(v, g, err);
    gguf_close(g);
    mem_free(file);
    return st;
}

static struct vocab *load_ok(struct gguf_build *b)
{
    struct vocab *v = NULL;
    struct error err = { 0 };
    cr_assert(load(b, &v, &err) == OK, "%s", err.text);
    return v;
}

static void expect_refused(struct gguf_build *b, enum status want, const char *text)
{
    struct vocab *v = NULL;
    struct error err = { 0 };
    enum status st = load(b, &v, &err);
    cr_assert(st == want && v == NULL && strstr(err.text, text), "expected '%s', got %d '%s'", text, st, err.text);
}

Test(vocab_load, reads_a_bpe_vocabulary)
{
    struct gguf_build b;
    start(&b, "gpt2");
    gguf_build_str(&b, KEY("pre"), "smollm");
    add_tables(&b);
    gguf_build_u32(&b, KEY("bos_token_id"), 1);
    gguf_build_u32(&b, KEY("eos_token_id"), 2);
    gguf_build_bool(&b, KEY("add_eos_token"), true);
    gguf_build_str(&b, "tokenizer.chat_template", "{{ x }}");
    struct vocab *v = load_ok(&b);
    cr_assert(v->kind == VOCAB_BPE && v->n_tokens == N_TOKENS && v->n_merges == 3);
    cr_assert_str_eq(v->pre, "smollm");
    cr_assert_str_eq(v->chat_template, "{{ x }}");
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        cr_assert_str_eq(v->tokens[i].text, TOKENS[i]);
        cr_assert_eq(v->tokens[i].n, strlen(TOKENS[i]));
        cr_assert_eq(v->tokens[i].type, TYPES[i] ? TYPES[i] : TOKEN_NORMAL);
    }
    cr_assert(v->bos_id == 1 && v->eos_id == 2 && v->unk_id == TOKEN_NONE && v->pad_id == TOKEN_NONE);
    cr_assert_eq(v->eot_id, 7); /* <|im_end|> goes before <|endoftext|> */
    cr_assert(!v->add_bos && v->add_eos && !v->add_space_prefix);
    vocab_destroy(v);
}

Test(vocab_load, reads_merges_of_characters)
{
    struct gguf_build b;
    for (int by_pre = 0; by_pre <= 1; by_pre++) {
        start(&b, by_pre ? "gpt2" : "gemma4");
        if (by_pre) gguf_build_str(&b, KEY("pre"), "sarvam-moe");
        add_tables(&b);
        gguf_build_u32(&b, KEY("bos_token_id"), 1);
        gguf_build_bool(&b, KEY("add_bos_token"), false);
        struct vocab *v = load_ok(&b);
        cr_assert(v->kind == VOCAB_BPE_TEXT && v->n_merges == 3 && !v->add_space_prefix);
        cr_assert_str_eq(v->pre, by_pre ? "sarvam-moe" : "gemma4");
        cr_assert_eq(v->add_bos, !by_pre, "gemma4 has it whatever the file says");
        vocab_destroy(v);
    }
}

Test(vocab_load, the_pre_tokenizer_says_whether_a_text_begins_with_bos)
{
    static const struct {
        const char *pre;
        bool bos;
    } rows[] = { { "pixtral", true }, { "tekken", true }, { "gpt-4o", false }, { "qwen35", false } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gguf_build b;
        start(&b, "gpt2");
        gguf_build_str(&b, KEY("pre"), rows[i].pre);
        add_tables(&b);
        gguf_build_u32(&b, KEY("bos_token_id"), 1);
        struct vocab *v = load_ok(&b);
        cr_assert_eq(v->add_bos, rows[i].bos, "%s", rows[i].pre);
        vocab_destroy(v);
    }
}

/* Where a vocabulary has <|return|> and <|call|>, <|end|> only ends a message inside of an answer. */
Test(vocab_load, the_end_of_a_message_is_no_end_of_an_answer)
{
    static const char *const tokens[] = { "a", "<|endoftext|>", "<|return|>", "<|end|>", "<|call|>" };
    static const int32_t types[] = { 1, 3, 3, 3, 3 };
    for (size_t n = 4; n <= 5; n++) {
        struct gguf_build b;
        start(&b, "gpt2");
        gguf_build_str(&b, KEY("pre"), "gpt-4o");
        gguf_build_strs(&b, KEY("tokens"), tokens, n);
        gguf_build_i32s(&b, KEY("token_type"), types, n);
        gguf_build_strs(&b, KEY("merges"), MERGES, 1);
        struct vocab *v = load_ok(&b);
        cr_assert_eq(vocab_is_end(v, 3), n == 4);
        cr_assert(vocab_is_end(v, 1) && vocab_is_end(v, 2) && !vocab_is_end(v, 0));
        cr_assert_eq(v->eot_id, n == 4 ? 3 : 1);
        vocab_destroy(v);
    }
}

Test(vocab_load, phi3_drops_white_space_behind_control_tokens)
{
    for (int phi = 0; phi <= 1; phi++) {
        struct gguf_build b;
        start(&b, "llama");
        gguf_build_str(&b, "general.architecture", phi ? "phi3" : "llama");
        add_tables(&b);
        struct vocab *v = load_ok(&b);
        cr_assert_eq(v->strip_after_special, phi == 1);
        vocab_destroy(v);
    }
}

Test(vocab_load, splits_merges_at_the_first_space_after_byte_0)
{
    static const char *const want[][2] = { { "a", "b" }, { " ", "b" }, { "ab", "a b" } };
    struct gguf_build b;
    start(&b, "gpt2");
    add_tables(&b);
    struct vocab *v = load_ok(&b);
    for (size_t i = 0; i < 3; i++) {
        cr_assert_str_eq(v->merges[i].left, want[i][0]);
        cr_assert_str_eq(v->merges[i].right, want[i][1]);
        cr_assert_eq(v->merges[i].n_left, strlen(want[i][0]));
        cr_assert_eq(v->merges[i].n_right, strlen(want[i][1]));
    }
    vocab_destroy(v);
}

Test(vocab_load, reads_an_spm_vocabulary_with_its_defaults)
{
    struct gguf_build b;
    start(&b, "llama");
    add_tables(&b);
    gguf_build_i32(&b, KEY("padding_token_id"), -1);
    struct vocab *v = load_ok(&b);
    cr_assert(v->kind == VOCAB_SPM && v->n_merges == 0 && v->tokens[4].score == -2.0f);
    cr_assert(v->unk_id == 0 && v->bos_id == 1 && v->eos_id == 2 && v->pad_id == TOKEN_NONE);
    cr_assert(v->add_bos && !v->add_eos && v->add_space_prefix);
    cr_assert_str_eq(v->pre, "");
    cr_assert_null(v->chat_template);
    vocab_destroy(v);
}

Test(vocab_load, llama3_starts_with_bos_unless_the_file_says_no)
{
    struct gguf_build b;
    for (int says_no = 0; says_no <= 1; says_no++) {
        start(&b, "gpt2");
        gguf_build_str(&b, KEY("pre"), "llama-bpe");
        add_tables(&b);
        gguf_build_u32(&b, KEY("bos_token_id"), 1);
        gguf_build_u32(&b, KEY("eot_token_id"), 6);
        if (says_no) gguf_build_bool(&b, KEY("add_bos_token"), false);
        struct vocab *v = load_ok(&b);
        cr_assert(v->add_bos == !says_no && v->eot_id == 6);
        vocab_destroy(v);
    }
}

Test(vocab_load, names_what_is_missing_or_unknown)
{
    struct gguf_build b;
    gguf_build_init(&b, 3);
    expect_refused(&b, ERR_PARSE, "holds no vocabulary");
    start(&b, "rwkv\n");
    expect_refused(&b, ERR_UNSUPPORTED, "tokenizer model 'rwkv?' is not supported");
    start(&b, "gpt2");
    expect_refused(&b, ERR_PARSE, "no tokenizer.ggml.tokens");
    start(&b, "gpt2");
    gguf_build_strs(&b, KEY("tokens"), TOKENS, 0);
    gguf_build_strs(&b, KEY("merges"), MERGES, 0);
    expect_refused(&b, ERR_PARSE, "tokens is empty");
    start(&b, "gpt2");
    gguf_build_strs(&b, KEY("tokens"), TOKENS, N_TOKENS);
    expect_refused(&b, ERR_PARSE, "no tokenizer.ggml.merges");
    start(&b, "llama");
    gguf_build_strs(&b, KEY("tokens"), TOKENS, N_TOKENS);
    expect_refused(&b, ERR_PARSE, "no tokenizer.ggml.scores");
}

Test(vocab_load, refuses_tables_that_do_not_fit)
{
    struct gguf_build b;
    start(&b, "llama");
    gguf_build_strs(&b, KEY("tokens"), TOKENS, N_TOKENS);
    gguf_build_f32s(&b, KEY("scores"), SCORES, N_TOKENS - 1);
    expect_refused(&b, ERR_PARSE, "scores has 7 elements");
    start(&b, "llama");
    gguf_build_strs(&b, KEY("tokens"), TOKENS, N_TOKENS);
    gguf_build_strs(&b, KEY("scores"), TOKENS, N_TOKENS);
    expect_refused(&b, ERR_PARSE, "scores is not an array of numbers");
    start(&b, "gpt2");
    gguf_build_i32s(&b, KEY("tokens"), TYPES, N_TOKENS);
    expect_refused(&b, ERR_PARSE, "tokens is not an array of strings");
    start(&b, "gpt2");
    gguf_build_strs(&b, KEY("tokens"), TOKENS, 2);
    gguf_build_i32s(&b, KEY("token_type"), (const int32_t[]){ 1, 7 }, 2);
    gguf_build_strs(&b, KEY("merges"), MERGES, 1);
    expect_refused(&b, ERR_PARSE, "token 1 has a type");
    static const char *const wrong[] = { "", "a", "ab", "a ", " a", "  " };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        start(&b, "gpt2");
        gguf_build_strs(&b, KEY("tokens"), TOKENS, N_TOKENS);
        gguf_build_strs(&b, KEY("merges"), &wrong[i], 1);
        expect_refused(&b, ERR_PARSE, "merge 0 is not two texts");
    }
}

Test(vocab_load, checks_special_ids)
{
    static const char *const keys[] = { KEY("bos_token_id"), KEY("eos_token_id"), KEY("eot_token_id"),
                                        KEY("unknown_token_id"), KEY("padding_token_id") };
    struct gguf_build b;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        start(&b, "gpt2");
        add_tables(&b);
        gguf_build_u32(&b, keys[i], N_TOKENS);
        expect_refused(&b, ERR_PARSE, keys[i]);
    }
    start(&b, "gpt2");
    add_tables(&b);
    gguf_build_bool(&b, KEY("add_bos_token"), true);
    expect_refused(&b, ERR_PARSE, "add_bos_token is true, but there is no");
    start(&b, "gpt2");
    add_tables(&b);
    gguf_build_raw(&b, "tokenizer.chat_template", GGUF_STRING, "\x03\0\0\0\0\0\0\0a\0b", 11);
    expect_refused(&b, ERR_PARSE, "chat_template holds a NUL byte");
}

static void start_with_rows(struct gguf_build *b, const float *rows, uint64_t n_rows)
{
    start(b, "gpt2");
    add_tables(b);
    gguf_build_tensor(b, "token_embd.weight", DTYPE_F32, 2, (uint64_t[]){ 1, n_rows }, rows, n_rows * sizeof(float));
}

Test(vocab_load, bounds_ids_by_the_rows_of_the_embedding)
{
    static const float rows[N_TOKENS + 3] = { 0 };
    struct gguf_build b;
    start_with_rows(&b, rows, N_TOKENS + 3);
    gguf_build_u32(&b, KEY("eos_token_id"), N_TOKENS + 2); /* the last one, without text */
    struct vocab *v = load_ok(&b);
    cr_assert(v->n_tokens == N_TOKENS && v->n_ids == N_TOKENS + 3);
    cr_assert(v->eos_id == N_TOKENS + 2 && vocab_is_end(v, N_TOKENS + 2) && !vocab_is_end(v, N_TOKENS + 1));
    cr_assert(vocab_has_text(v, N_TOKENS - 1) && !vocab_has_text(v, N_TOKENS) && !vocab_has_text(v, -1));
    cr_assert(!vocab_is_end(v, TOKEN_NONE) && !vocab_is_end(v, INT32_MAX));
    cr_assert_eq(vocab_token_bytes(v, N_TOKENS + 2, NULL, 0), 0);
    vocab_destroy(v);
    start_with_rows(&b, rows, N_TOKENS + 3);
    gguf_build_u32(&b, KEY("eos_token_id"), N_TOKENS + 3);
    expect_refused(&b, ERR_PARSE, "eos_token_id is 11, but the vocabulary has 11 tokens");
    start_with_rows(&b, rows, N_TOKENS - 1);
    expect_refused(&b, ERR_PARSE, "token_embd.weight has 7 rows for 8 tokens, expected 8 to 4194304");
    start(&b, "gpt2");
    add_tables(&b);
    v = load_ok(&b);
    cr_assert_eq(v->n_ids, N_TOKENS);
    vocab_destroy(v);
}

Test(vocab_load, reads_a_real_model)
{
    struct strbuf path = STRBUF_INIT;
    const char *dir = getenv("BATON_TEST_MODELS");
    struct gguf *g = NULL;
    struct vocab *v = NULL;
    struct error err;
    strbuf_addf(&path, "%s/SmolLM2-135M-Instruct.Q4_1.gguf", dir ? dir : "models");
    if (access(strbuf_cstr(&path), R_OK) != 0) {
        strbuf_fini(&path);
        cr_skip_test("no model file");
    }
    cr_assert(gguf_open(&g, strbuf_cstr(&path), &err) == OK, "%s", err.text);
    cr_assert(vocab_load_gguf(&v, g, &err) == OK, "%s", err.text);
    gguf_close(g);
    strbuf_fini(&path);
    cr_assert(v->n_tokens == 49152 && v->n_merges == 48900);
    cr_assert_str_eq(v->tokens[2].text, "<|im_end|>");
    cr_assert(v->bos_id == 1 && v->eos_id == 2 && v->eot_id == 2 && v->unk_id == 0 && v->pad_id == 2);
    cr_assert(!v->add_bos && !v->add_space_prefix && v->chat_template);
    vocab_destroy(v);
}
