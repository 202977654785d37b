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
