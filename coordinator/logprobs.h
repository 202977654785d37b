/* logprobs.h - what is known of each token of an answer, and the two JSON shapes that show it.
 *
 * A log keeps, per token, where its text begins (in characters, as Python counts) and, where asked for, its logprob
 * and the most likely alternatives.  Alternatives lie in flat arrays, n_top per token. */
#ifndef COORDINATOR_LOGPROBS_H
#define COORDINATOR_LOGPROBS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct served_model;
struct strbuf;

struct logprob_row { /* of one token; borrows */
    float logprob;
    uint32_t n_top;
    const int32_t *top_ids; /* falling */
    const float *top;
};

struct token_log {  /* zero with n_top set is the empty log */
    uint32_t n_top; /* alternatives asked for */
    uint32_t n, cap;
    struct token_log_entry {
        int32_t id;
        uint32_t chars; /* where its text begins */
        float logprob;
        uint32_t n_top; /* alternatives that it has */
        bool known;     /* false: a prompt's first token has no logprob */
    } * entries;
    int32_t *top_ids; /* [cap][n_top] */
    float *top;
};

/* Copies `row` (NULL: not known).  More alternatives than the log's n_top are dropped. */
void token_log_add(struct token_log *l, int32_t id, uint32_t chars, const struct logprob_row *row);
/* Sets the row of entry i (< n): prompt logprobs come after the prompt's tokens are known. */
void token_log_set(struct token_log *l, uint32_t i, const struct logprob_row *row);
/* Drops entries at the end whose text begins at or behind `chars`; the first `keep` stay. */
void token_log_cut(struct token_log *l, uint32_t chars, uint32_t keep);
void token_log_clear(struct token_log *l); /* keeps memory */
void token_log_fini(struct token_log *l);

struct logprob_style {
    const struct served_model *model;
    bool as_ids; /* tokens read "token_id:N" */
};
/* Chat: {"content":[{token,logprob,bytes,top_logprobs}],"refusal":null}. */
void logprobs_chat_json(const struct token_log *l, const struct logprob_style *s, struct strbuf *out);
/* Completions: {"tokens","token_logprobs","top_logprobs","text_offset"}. */
void logprobs_text_json(const struct token_log *l, const struct logprob_style *s, struct strbuf *out);
#endif
