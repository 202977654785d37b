/* make_vocab.h - builds vocabularies in memory for tests, from JSON.
 *
 * {"kind": "gpt2" | "llama" | "gemma4", "pre": "...", "tokens": ["..."], "types": [1, ...], "scores": [0.0, ...],
 *  "merges": ["a b"], "bos": 1, "eos": 2, "eot": -1, "unk": 0, "add_bos": false, "add_eos": false,
 *  "add_space_prefix": true, "strip_after_special": false}; all but kind and tokens may be left out. */
#ifndef TESTS_MAKE_VOCAB_H
#define TESTS_MAKE_VOCAB_H
#include "base/mem.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

static inline json_t *load_json(const char *path)
{
    json_error_t e;
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, &e);

    cr_assert_not_null(j, "%s: %s at line %d", path, e.text, e.line);
    return j;
}

static inline int32_t id_or(const json_t *j, const char *key, int32_t otherwise)
{
    const json_t *v = json_object_get(j, key);
    return v ? (int32_t)json_integer_value(v) : otherwise;
}

/* Copies a JSON string to *at and moves it on; the texts end where the last copy ends. */
static inline const char *keep(char **at, const json_t *s, uint32_t *n)
{
    char *text = *at;
    *n = (uint32_t)json_string_length(s);
    memcpy(text, json_string_value(s), *n);
    *at += *n;
    return text;
}

static inline size_t text_bytes(const json_t *strings)
{
    size_t n = 0, i;
    const json_t *s;
    json_array_foreach(strings, i, s) n += json_string_length(s);
    return n;
}

static inline struct vocab *vocab_from_json(const json_t *j)
{
    const json_t *tokens = json_object_get(j, "tokens"), *types = json_object_get(j, "types");
    const json_t *scores = json_object_get(j, "scores"), *merges = json_object_get(j, "merges");
    const char *pre = json_string_value(json_object_get(j, "pre"));
    struct vocab *v = mem_zalloc(sizeof(*v));
    char *at = v->storage = mem_alloc(text_bytes(tokens) + text_bytes(merges));

    const char *kind = json_string_value(json_object_get(j, "kind"));
    v->kind = strcmp(kind, "llama") == 0 ? VOCAB_SPM : strcmp(kind, "gemma4") == 0 ? VOCAB_BPE_TEXT : VOCAB_BPE;
    v->pre = mem_strdup(pre ? pre : "");
    v->n_tokens = (uint32_t)json_array_size(tokens);
    v->tokens = mem_array(v->n_tokens, sizeof(*v->tokens));
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        struct vocab_token *t = &v->tokens[i];
        t->text = keep(&at, json_array_get(tokens, i), &t->n);
        t->type = types ? (enum token_type)json_integer_value(json_array_get(types, i)) : TOKEN_NORMAL;
        t->score = scores ? (float)json_number_value(json_array_get(scores, i)) : 0.0f;
    }
    v->n_merges = (uint32_t)json_array_size(merges);
    v->merges = mem_array(v->n_merges, sizeof(*v->merges));
    for (uint32_t i = 0; i < v->n_merges; i++) {
        uint32_t n;
        const char *text = keep(&at, json_array_get(merges, i), &n);
        const char *space = memchr(text + 1, ' ', n - 1);
        v->merges[i].left = text;
        v->merges[i].n_left = (uint32_t)(space - text);
        v->merges[i].right = space + 1;
        v->merges[i].n_right = n - v->merges[i].n_left - 1;
    }
    v->bos_id = id_or(j, "bos", TOKEN_NONE);
    v->eos_id = id_or(j, "eos", TOKEN_NONE);
    v->eot_id = id_or(j, "eot", TOKEN_NONE);
    v->unk_id = id_or(j, "unk", TOKEN_NONE);
    v->pad_id = TOKEN_NONE;
    v->add_bos = json_is_true(json_object_get(j, "add_bos"));
    v->add_eos = json_is_true(json_object_get(j, "add_eos"));
    v->strip_after_special = json_is_true(json_object_get(j, "strip_after_special"));
    v->add_space_prefix = json_is_true(json_object_get(j, "add_space_prefix"));
    return v;
}

static inline struct vocab *vocab_of(const char *json)
{
    json_t *j = json_loads(json, 0, NULL);
    cr_assert_not_null(j, "test vocabulary is not JSON");
    struct vocab *v = vocab_from_json(j);
    json_decref(j);
    return v;
}

static inline struct tokenizer *tokenizer_of(const struct vocab *v)
{
    struct tokenizer *t = NULL;
    struct error err = { 0 };
    cr_assert_eq(tokenizer_create(&t, v, &err), OK, "%s", err.text);
    return t;
}

/* Encodes and compares with a JSON array of ids; says `what` on a miss. */
static inline void expect_ids(struct tokenizer *t, const char *text, size_t n, struct encode_options opt,
                              const json_t *ids, const char *what)
{
    struct token_list got = { 0 };
    struct error err = { 0 };

    cr_assert_eq(tokenizer_encode(t, text, n, opt, &got, &err), OK, "%s: %s", what, err.text);
    cr_assert_eq(got.n, json_array_size(ids), "%s: %zu ids, expected %zu, text \"%s\"", what, got.n,
                 json_array_size(ids), text);
    for (size_t i = 0; i < got.n; i++) {
        int want = (int)json_integer_value(json_array_get(ids, i));
        cr_assert_eq(got.ids[i], want, "%s: id %zu is %d, expected %d, text \"%s\"", what, i, got.ids[i], want, text);
    }
    token_list_fini(&got);
}

/* The same with a vocabulary of its own. */
static inline void expect_encoding(const char *vocab, const char *text, struct encode_options opt, const char *ids)
{
    struct vocab *v = vocab_of(vocab);
    struct tokenizer *t = tokenizer_of(v);
    json_t *want = json_loads(ids, 0, NULL);
    expect_ids(t, text, strlen(text), opt, want, text);
    json_decref(want);
    tokenizer_destroy(t);
    vocab_destroy(v);
}
#endif
