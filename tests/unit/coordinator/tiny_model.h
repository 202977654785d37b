/* tiny_model.h - a served model of a few tokens, built in memory: enough for streams, logprobs and dispatch. */
#ifndef TESTS_COORDINATOR_TINY_MODEL_H
#define TESTS_COORDINATOR_TINY_MODEL_H
#include "coordinator/served_model.h"
#include "text/vocab.h"

#include <string.h>

enum tiny_token {
    TINY_END,
    TINY_HELLO,
    TINY_WORLD,
    TINY_STOP_A,
    TINY_STOP_B,
    TINY_EURO_1,
    TINY_EURO_2,
    TINY_X,
    TINY_COUNT
};

/* Byte-level alphabet: the euro sign's bytes E2 82 AC are U+00E2, U+0124, U+00AC; a space is U+0120. */
static inline struct served_model *tiny_model(void)
{
    static struct vocab_token tokens[TINY_COUNT] = {
        [TINY_END] = { "<|end|>", 0, 0, TOKEN_CONTROL },
        [TINY_HELLO] = { "Hello", 0, 0, TOKEN_NORMAL },
        [TINY_WORLD] = { "\xC4\xA0world", 0, 0, TOKEN_NORMAL },
        [TINY_STOP_A] = { "ST", 0, 0, TOKEN_NORMAL },
        [TINY_STOP_B] = { "OP", 0, 0, TOKEN_NORMAL },
        [TINY_EURO_1] = { "\xC3\xA2\xC4\xA4", 0, 0, TOKEN_NORMAL },
        [TINY_EURO_2] = { "\xC2\xAC", 0, 0, TOKEN_NORMAL },
        [TINY_X] = { "x", 0, 0, TOKEN_NORMAL },
    };
    static struct vocab vocab = { .kind = VOCAB_BPE,
                                  .pre = (char *)"default",
                                  .n_tokens = TINY_COUNT,
                                  .tokens = tokens,
                                  .bos_id = TOKEN_NONE,
                                  .eos_id = TINY_END,
                                  .eot_id = TOKEN_NONE,
                                  .unk_id = TOKEN_NONE,
                                  .pad_id = TOKEN_NONE };
    static struct served_model model = {
        .name = (char *)"tiny", .fingerprint = 0xF00D, .n_vocab = TINY_COUNT, .context_length = 4096, .vocab = &vocab
    };
    for (int i = 0; i < TINY_COUNT; i++) tokens[i].n = (uint32_t)strlen(tokens[i].text);
    return &model;
}
#endif
