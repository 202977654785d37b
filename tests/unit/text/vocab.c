/* vocab: what bytes a token stands for, and which tokens end generation. */
#include "text/vocab.h"

#include "make_vocab.h"
#include "text/bytelevel.h"
#include "text/utf8.h"

static void expect_bytes(const struct vocab *v, int32_t id, const char *want)
{
    uint8_t buf[64];
    size_t n = vocab_token_bytes(v, id, buf, sizeof(buf));
    cr_assert_eq(n, strlen(want), "id %d: %zu bytes", id, n);
    cr_assert_eq(memcmp(buf, want, n), 0, "id %d", id);
}

Test(vocab, undoes_the_byte_level_alphabet)
{
    struct vocab *v =
        vocab_of("{\"kind\": \"gpt2\", \"tokens\": [\"\\u0120the\", \"\\u010a\", \"\\u00e6\\u0139\\u00a5\","
                 "\"\\u0120\\u65e5\", \"<|im_end|>\", \"\\u0120raw\", \"<0xE2>\"],"
                 " \"types\": [1, 1, 1, 1, 3, 4, 6]}");
    expect_bytes(v, 0, " the");
    expect_bytes(v, 1, "\n");
    expect_bytes(v, 2, "日");
    expect_bytes(v, 3, " 日"); /* not of the alphabet: stands for itself */
    expect_bytes(v, 4, "<|im_end|>");
    expect_bytes(v, 5, "Ġraw"); /* user-defined texts are raw */
    expect_bytes(v, 6, "\xe2");
    expect_bytes(v, -1, "");
    expect_bytes(v, 7, "");
    vocab_destroy(v);
}

Test(vocab, writes_spm_spaces_and_byte_tokens)
{
    struct vocab *v =
        vocab_of("{\"kind\": \"llama\", \"tokens\": [\"\\u2581the\\u2581\", \"<0x0A>\", \"<0x0A>\", \"<0xZZ>\"],"
                 " \"types\": [1, 6, 1, 6]}");
    expect_bytes(v, 0, " the ");
    expect_bytes(v, 1, "\n");
    expect_bytes(v, 2, "<0x0A>"); /* not of byte type */
    expect_bytes(v, 3, "<0xZZ>");
    cr_assert_eq(vocab_token_byte(v, 1), 10);
    cr_assert_eq(vocab_token_byte(v, 3), -1);
    vocab_destroy(v);
}

Test(vocab, says_the_full_length_when_the_buffer_is_short)
{
    struct vocab *v = vocab_of("{\"kind\": \"gpt2\", \"tokens\": [\"\\u0120relay\"]}");
    uint8_t buf[4] = "....";
    cr_assert_eq(vocab_token_bytes(v, 0, buf, 3), 6);
    cr_assert_eq(memcmp(buf, " re.", 4), 0);
    cr_assert_eq(vocab_token_bytes(v, 0, NULL, 0), 6);
    vocab_destroy(v);
}

Test(vocab, ends_at_eos_eot_and_control_tokens_that_end_a_turn)
{
    struct vocab *v =
        vocab_of("{\"kind\": \"gpt2\", \"tokens\": [\"a\", \"b\", \"<|im_end|>\", \"<|im_end|>\", \"<|im_start|>\"],"
                 " \"types\": [1, 1, 3, 1, 3], \"eos\": 0, \"eot\": 1}");
    cr_assert(vocab_is_end(v, 0) && vocab_is_end(v, 1) && vocab_is_end(v, 2));
    cr_assert(!vocab_is_end(v, 3), "the same text as a normal token ends nothing");
    cr_assert(!vocab_is_end(v, 4));
    cr_assert(!vocab_is_end(v, -1) && !vocab_is_end(v, 5));
    vocab_destroy(v);
    vocab_destroy(NULL);
}

Test(vocab, byte_level_alphabet_is_one_to_one)
{
    for (int byte = 0; byte < 256; byte++) {
        char c[2];
        uint32_t cp;
        size_t n = bytelevel_encode((uint8_t)byte, c);
        cr_assert_eq(utf8_next(c, n, &cp), n);
        cr_assert_eq(bytelevel_decode(cp), byte, "byte %d", byte);
        cr_assert(cp > 0x20 && cp != 0x7f);
    }
    cr_assert_eq(bytelevel_decode(' '), -1);
    cr_assert_eq(bytelevel_decode(0x144), -1);
    cr_assert_eq(bytelevel_decode(0x65e5), -1);
}

/* Each name, one byte less, one more, and one changed. */
Test(vocab, names_of_ends_are_whole)
{
    static const char *const ends[] = { "<|im_end|>", "<|endoftext|>", "<|eot_id|>",    "<|eom_id|>",
                                        "<|end|>",    "</s>",          "<end_of_turn>", "<eos>" };
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        char other[4][32];
        struct vocab_token tokens[4];
        struct vocab v = { .n_tokens = 4, .n_ids = 4, .tokens = tokens, .eos_id = TOKEN_NONE, .eot_id = TOKEN_NONE };
        for (int k = 0; k < 4; k++) snprintf(other[k], sizeof(other[k]), "%s%s", ends[i], k == 2 ? "x" : "");
        other[1][strlen(ends[i]) - 1] = '\0';
        other[3][1]++;
        for (int k = 0; k < 4; k++)
            tokens[k] = (struct vocab_token){ other[k], (uint32_t)strlen(other[k]), 0, TOKEN_CONTROL };
        for (int k = 0; k < 4; k++) cr_assert_eq(vocab_is_end(&v, k), k == 0, "%s", other[k]);
        v.end_is_inside = true; /* this one name is then a part of an answer */
        cr_assert_eq(vocab_is_end(&v, 0), strcmp(ends[i], "<|end|>") != 0, "%s", ends[i]);
    }
}

Test(vocab, byte_tokens_are_written_in_hexadecimal)
{
    static const struct {
        const char *text;
        int byte;
    } rows[] = {
        { "<0x00>", 0 },    { "<0x09>", 9 },  { "<0x0A>", 10 }, { "<0xaf>", 0xAF }, { "<0xFF>", 255 },
        { "<0xF9>", 0xF9 }, { "<0x0G>", -1 }, { "<0x0g>", -1 }, { "<0x:0>", -1 },   { "<0x/0>", -1 },
        { "<0x@0>", -1 },   { "<0x`0>", -1 }, { "<0x0>", -1 },  { "<0x000>", -1 },  { "<1x00>", -1 },
        { "<0x00]", -1 },   { "[0x00>", -1 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct vocab_token t = { (char *)rows[i].text, (uint32_t)strlen(rows[i].text), 0, TOKEN_BYTE };
        struct vocab v = { .n_tokens = 1, .n_ids = 1, .tokens = &t };
        cr_assert_eq(vocab_token_byte(&v, 0), rows[i].byte, "%s", rows[i].text);
    }
}
