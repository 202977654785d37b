/* fuzz_tokenizer.c - any bytes as text, for both kinds of vocabulary: valid UTF-8 comes back as it was. */
#include "base/mem.h"
#include "text/bytelevel.h"
#include "text/detok.h"
#include "text/spans.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "text/vocab.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define N_BYTES  256
#define N_EXTRA  6
#define N_TOKENS (N_BYTES + N_EXTRA)
#define N_MERGES 3

static struct vocab_token bpe_tokens[N_TOKENS], spm_tokens[N_TOKENS];
static struct vocab_merge merges[N_MERGES] = { { "a", "a", 1, 1 },
                                               { "aa", "aa", 2, 2 },
                                               { "Ġ", "a", 2, 1 } }; /* of bytes; of characters the first */
static char bpe_bytes[N_BYTES][2], spm_bytes[N_BYTES][8];

static struct vocab_token token_of(const char *text, enum token_type type, float score)
{
    return (struct vocab_token){ text, (uint32_t)strlen(text), score, type };
}

static void fill_vocabs(void)
{
    static const char *const bpe[N_EXTRA] = { "aa", "aaaa", "Ġa", "<|x|>", "[u]", "<unk>" };
    static const char *const spm[N_EXTRA] = { "aa", "▁", "▁a", "<|x|>", "[u]", "<unk>" };
    static const enum token_type types[N_EXTRA] = { TOKEN_NORMAL,  TOKEN_NORMAL,       TOKEN_NORMAL,
                                                    TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_UNKNOWN };

    for (int i = 0; i < N_BYTES; i++) {
        uint32_t len = (uint32_t)bytelevel_encode((uint8_t)i, bpe_bytes[i]);
        bpe_tokens[i] = (struct vocab_token){ bpe_bytes[i], len, 0, TOKEN_NORMAL };
        snprintf(spm_bytes[i], sizeof(spm_bytes[i]), "<0x%02X>", i);
        spm_tokens[i] = token_of(spm_bytes[i], TOKEN_BYTE, 0);
    }
    for (int i = 0; i < N_EXTRA; i++) {
        bpe_tokens[N_BYTES + i] = token_of(bpe[i], types[i], 0);
        spm_tokens[N_BYTES + i] = token_of(spm[i], types[i], -(float)i);
    }
}

/* What is encoded must be what is decoded; U+2581 is the one character that SPM cannot tell from a space. */
static void check_round_trip(const struct vocab *v, const struct token_list *ids, const char *text, size_t n)
{
    struct detok d;
    struct strbuf out = STRBUF_INIT;

    detok_init(&d, v, true);
    for (size_t i = 0; i < ids->n; i++) {
        assert(ids->ids[i] >= 0 && (uint32_t)ids->ids[i] < v->n_tokens);
        detok_add(&d, ids->ids[i], &out);
    }
    detok_flush(&d, &out);
    if (v->kind == VOCAB_BPE) assert(out.n == n && memcmp(strbuf_cstr(&out), text, n) == 0);
    assert(utf8_check(strbuf_cstr(&out), out.n) == out.n);
    strbuf_fini(&out);
}

/* No control token over a literal byte; bytes can be counted where each token gives its own. */
static void check_literal(const struct vocab *v, const struct token_list *ids, const struct spans *literal)
{
    size_t at = 0, span = 0;

    for (size_t i = 0; i < ids->n && v->kind == VOCAB_BPE; i++) {
        size_t end = at + vocab_token_bytes(v, ids->ids[i], NULL, 0);
        enum token_type type = v->tokens[ids->ids[i]].type;
        span = spans_seek(literal, span, at);
        if (type == TOKEN_CONTROL || type == TOKEN_UNKNOWN) assert(span == literal->n || literal->v[span].from >= end);
        at = end;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const pres[] = { "default",      "smollm",   "gpt-2",     "llama-bpe",      "qwen2",
                                        "tekken",       "gpt-4o",   "falcon",    "deepseek-coder", "deepseek-v3",
                                        "deepseek-llm", "tiny_aya", "kimi-k2",   "youtu",          "exaone-moe",
                                        "superbpe",     "jais-2",   "chameleon", "viking" };
    enum { N_PRES = sizeof(pres) / sizeof(pres[0]) };
    enum { GEMMA = N_PRES, SPM, N_VOCABS };
    static struct vocab vocabs[N_VOCABS];
    static struct tokenizer *tokenizers[N_VOCABS];

    if (!tokenizers[0]) {
        fill_vocabs();
        for (int i = 0; i < N_VOCABS; i++) {
            vocabs[i] = (struct vocab){ .kind = i < N_PRES   ? VOCAB_BPE
                                                : i == GEMMA ? VOCAB_BPE_TEXT
                                                             : VOCAB_SPM,
                                        .pre = (char *)(i < N_PRES ? pres[i] : "gemma4"),
                                        .n_tokens = N_TOKENS,
                                        .tokens = i < N_PRES ? bpe_tokens : spm_tokens,
                                        .n_merges = i < SPM ? N_MERGES : 0,
                                        .merges = merges,
                                        .bos_id = TOKEN_NONE,
                                        .eos_id = TOKEN_NONE,
                                        .unk_id = N_TOKENS - 1,
                                        .strip_after_special = i == SPM,
                                        .add_space_prefix = true };
            enum status st = tokenizer_create(&tokenizers[i], &vocabs[i], NULL);
            assert(st == OK);
        }
    }
    if (n < 1) return 0;
    int which = (data[0] >> 1) % N_VOCABS;
    const char *text = (const char *)data + 1;
    struct token_list ids = { 0 };
    struct spans literal = { 0 };
    /* every other stretch of a length that the first byte decides */
    for (size_t step = 1 + (data[0] >> 5), at = step; data[0] & 16 && at < n - 1; at += 2 * step)
        spans_add(&literal, at, at + step < n - 1 ? at + step : n - 1);
    struct encode_options opt = { .parse_special = data[0] & 1, .literal = &literal };
    enum status st = tokenizer_encode(tokenizers[which], text, n - 1, opt, &ids, NULL);
    assert(st == (utf8_check(text, n - 1) == n - 1 ? OK : ERR_PARSE));
    if (st == OK) check_round_trip(&vocabs[which], &ids, text, n - 1);
    if (st == OK) check_literal(&vocabs[which], &ids, &literal);
    spans_fini(&literal);
    token_list_fini(&ids);
    return 0;
}
