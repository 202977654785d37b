/* stress/text: one model's tokenizer and chat template in several threads at once give each the same. */
#include "base/mem.h"
#include "base/strbuf.h"
#include "text/chat.h"
#include "text/detok.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define THREADS 4
#define ROUNDS  60
#define BYTES   256

static const char source[] = "{% for m in messages %}{{ '<' + m.role + '>' + m.content | trim }}{% endfor %}";
static struct vocab vocab;
static struct tokenizer *tokenizer;
static struct chat *chat;
static json_t *messages[THREADS];

/* Every byte is a token, and so are a few pairs. */
static void make_vocab(enum vocab_kind kind)
{
    static char texts[BYTES][8];
    static struct vocab_token tokens[BYTES + 2];
    static struct vocab_merge merges[] = { { "a", "b", 1, 1 } };
    vocab = (struct vocab){ .kind = kind,
                            .tokens = tokens,
                            .n_tokens = BYTES + 2,
                            .bos_id = 0,
                            .eos_id = 1,
                            .eot_id = TOKEN_NONE,
                            .unk_id = TOKEN_NONE,
                            .pad_id = TOKEN_NONE };
    vocab.pre = (char *)"gpt-2";
    vocab.chat_template = (char *)source;
    for (int i = 0; i < BYTES; i++) {
        snprintf(texts[i], sizeof(texts[i]), kind == VOCAB_SPM ? "<0x%02X>" : i > 32 && i < 127 ? "%c" : "x%02x", i);
        tokens[i] = (struct vocab_token){ texts[i], (uint32_t)strlen(texts[i]), 0,
                                          kind == VOCAB_SPM ? TOKEN_BYTE : TOKEN_NORMAL };
    }
    tokens[BYTES] = (struct vocab_token){ "ab", 2, -1, TOKEN_NORMAL };
    tokens[BYTES + 1] = (struct vocab_token){ "<user>", 6, 0, TOKEN_CONTROL };
    vocab.merges = merges;
    vocab.n_merges = 1;
}

static int one_round(int who, struct token_list *ids)
{
    struct chat_prompt p = { 0 };
    struct encode_options opt = { .parse_special = true, .literal = &p.literal };
    struct error err;
    int rc = chat_render(chat, messages[who], &(struct chat_options){ 0 }, &p, &err) == OK ? 0 : 1;
    ids->n = 0;
    if (rc == 0) rc = tokenizer_encode(tokenizer, strbuf_cstr(&p.text), p.text.n, opt, ids, &err) == OK ? 0 : 1;
    if (rc) fprintf(stderr, "%s\n", err.text);
    chat_prompt_fini(&p);
    return rc;
}

static void *work(void *arg)
{
    int who = (int)(intptr_t)arg;
    struct token_list first = { 0 }, again = { 0 };
    intptr_t rc = one_round(who, &first);
    for (int i = 0; rc == 0 && i < ROUNDS; i++) {
        rc = one_round(who, &again);
        if (rc == 0 && (again.n != first.n || memcmp(again.ids, first.ids, first.n * sizeof(*first.ids)) != 0)) {
            fprintf(stderr, "thread %d: round %d gave other tokens\n", who, i);
            rc = 1;
        }
    }
    token_list_fini(&first);
    token_list_fini(&again);
    return (void *)rc; /* NOLINT: a number on its way through a pointer */
}

static int stress(enum vocab_kind kind)
{
    pthread_t threads[THREADS];
    struct error err;
    int rc = 0;
    make_vocab(kind);
    if (tokenizer_create(&tokenizer, &vocab, &err) != OK || chat_create(&chat, &vocab, &err) != OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (int t = 0; t < THREADS; t++) {
        struct strbuf content = STRBUF_INIT;
        for (int i = 0; i < 400; i++) strbuf_addf(&content, "ab %d<user>", i * (t + 1));
        messages[t] = json_pack("[{s:s, s:s}]", "role", "user", "content", strbuf_cstr(&content));
        strbuf_fini(&content);
    }
    for (int t = 0; t < THREADS; t++)
        if (pthread_create(&threads[t], NULL, work, (void *)(intptr_t)t) != 0) return 1;
    for (int t = 0; t < THREADS; t++) {
        void *got;
        pthread_join(threads[t], &got);
        rc |= got != NULL;
        json_decref(messages[t]);
    }
    chat_destroy(chat);
    tokenizer_destroy(tokenizer);
    return rc;
}

int main(void)
{
    json_object_seed(0);
    if (stress(VOCAB_BPE) || stress(VOCAB_SPM)) return 1;
    printf("%d threads, %d rounds\n", THREADS, ROUNDS);
    return 0;
}
