/* vocab_load.c - fills text/vocab from a GGUF file's tokenizer.ggml.* metadata. */
#include "formats/vocab_load.h"

#include "base/mem.h"
#include "base/token_id.h"
#include "formats/gguf_parse.h"
#include "text/pretokenize_table.h"
#include "text/vocab.h"

#include <string.h>

#define KEY(name) "tokenizer.ggml." name

/* One block holds all texts, each with a NUL after it. */
struct text_store {
    char *next;
};

static const char *store_text(struct text_store *s, struct bytes b)
{
    char *at = s->next;
    if (b.n) memcpy(at, b.p, b.n);
    at[b.n] = '\0';
    s->next += b.n + 1;
    return at;
}

static enum status load_kind(struct vocab *v, const struct gguf *g, struct error *err)
{
    struct bytes model;
    enum status st;

    if (!gguf_find(g, KEY("model")))
        return error_set(err, ERR_PARSE, "the file holds no vocabulary (no " KEY("model") ")");
    if ((st = gguf_get_str(g, KEY("model"), &model, err)) != OK) return st;
    if (bytes_eq(model, "gpt2", 4)) {
        v->kind = VOCAB_BPE;
    } else if (bytes_eq(model, "gemma4", 6)) {
        v->kind = VOCAB_BPE_TEXT;
    } else if (bytes_eq(model, "llama", 5)) {
        v->kind = VOCAB_SPM;
    } else {
        return error_set(err, ERR_UNSUPPORTED, "tokenizer model '%s' is not supported, expected gpt2, llama or gemma4",
                         gguf_show(model).s);
    }
    return OK;
}

/* Finds an array of `n` elements (0: any number) of strings (or of numbers). NULL kv: no such key. */
static enum status find_array(const struct gguf *g, const char *key, bool strings, uint64_t n,
                              const struct gguf_kv **out, struct error *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);

    *out = kv;
    if (!kv) return OK;
    if (kv->type != GGUF_ARRAY || (kv->elem_type == GGUF_STRING) != strings || kv->elem_type == GGUF_ARRAY)
        return error_set(err, ERR_PARSE, "%s is not an array of %s", key, strings ? "strings" : "numbers");
    if (n && kv->n != n)
        return error_set(err, ERR_PARSE, "%s has %llu elements, expected one for each of %llu tokens", key,
                         (unsigned long long)kv->n, (unsigned long long)n);
    return OK;
}

static enum status require_array(const struct gguf *g, const char *key, bool strings, uint64_t n,
                                 const struct gguf_kv **out, struct error *err)
{
    enum status st = find_array(g, key, strings, n, out, err);
    if (st == OK && !*out) return error_set(err, ERR_PARSE, "the file has no %s", key);
    return st;
}

static enum status allocate(struct vocab *v, const struct gguf_kv *tokens, const struct gguf_kv *merges,
                            struct error *err)
{
    void *mem;
    /* Packed strings have an 8-byte length each, so the values' bytes are room enough for NULs. */
    size_t text_bytes = tokens->value.n + (merges ? merges->value.n : 0);
    enum status st = mem_try_array(&mem, text_bytes, 1);

    if (st == OK) {
        v->storage = mem;
        st = mem_try_array(&mem, (size_t)tokens->n, sizeof(*v->tokens));
    }
    if (st == OK) {
        v->tokens = mem;
        st = mem_try_array(&mem, merges ? (size_t)merges->n : 0, sizeof(*v->merges));
    }
    if (st != OK) return error_set(err, st, "no memory for %llu tokens", (unsigned long long)tokens->n);
    v->merges = mem;
    return OK;
}

static void load_texts(struct vocab *v, const struct gguf_kv *kv, struct text_store *store)
{
    struct gguf_str_iter it = { 0 };
    struct bytes text;

    while (gguf_array_next_str(kv, &it, &text)) {
        struct vocab_token *t = &v->tokens[v->n_tokens++];
        t->text = store_text(store, text);
        t->n = (uint32_t)text.n;
        t->type = TOKEN_NORMAL;
    }
}

static enum status load_types(struct vocab *v, const struct gguf *g, struct error *err)
{
    const struct gguf_kv *kv;
    enum status st = find_array(g, KEY("token_type"), false, v->n_tokens, &kv, err);

    if (st != OK || !kv) return st;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        int64_t type;
        if (!gguf_array_i64(kv, i, &type) || type < 0 || type > TOKEN_BYTE)
            return error_set(err, ERR_PARSE,
                             KEY("token_type") ": token %u has a type that is not an integer from 0 to %d", i,
                             TOKEN_BYTE);
        /* 0 is the format's "undefined", which writers use for plain tokens. */
        v->tokens[i].type = type ? (enum token_type)type : TOKEN_NORMAL;
    }
    return OK;
}

static enum status load_scores(struct vocab *v, const struct gguf *g, struct error *err)
{
    const struct gguf_kv *kv;
    enum status st;

    if (v->kind != VOCAB_SPM) return OK;
    if ((st = require_array(g, KEY("scores"), false, v->n_tokens, &kv, err)) != OK) return st;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        double score;
        if (!gguf_array_f64(kv, i, &score) || score != score)
            return error_set(err, ERR_PARSE, KEY("scores") ": token %u's score is not a number", i);
        v->tokens[i].score = (float)score;
    }
    return OK;
}

static enum status load_merges(struct vocab *v, const struct gguf_kv *kv, struct text_store *store, struct error *err)
{
    struct gguf_str_iter it = { 0 };
    struct bytes text;

    while (kv && gguf_array_next_str(kv, &it, &text)) {
        /* The left side may itself start with a space, so the search starts after byte 0. */
        const uint8_t *space = text.n > 2 ? memchr(text.p + 1, ' ', text.n - 2) : NULL;
        if (!space)
            return error_set(err, ERR_PARSE, KEY("merges") ": merge %u is not two texts with a space between them",
                             v->n_merges);
        struct vocab_merge *m = &v->merges[v->n_merges++];
        m->left = store_text(store, text);
        m->n_left = (uint32_t)(space - text.p);
        m->right = m->left + m->n_left + 1;
        m->n_right = (uint32_t)text.n - m->n_left - 1;
        ((char *)m->right)[-1] = '\0';
    }
    return OK;
}

/* Lengths are kept in 32 bits. */
static enum status check_lengths(const struct gguf_kv *kv, const char *key, uint32_t most, struct error *err)
{
    struct gguf_str_iter it = { 0 };
    struct bytes text;

    while (kv && gguf_array_next_str(kv, &it, &text))
        if (text.n > UINT32_MAX)
            return error_set(err, ERR_PARSE, "%s: element %zu is longer than 4 GiB", key, it.i - 1);
    if (kv && kv->n > most)
        return error_set(err, ERR_PARSE, "%s has %llu elements, expected at most %u", key, (unsigned long long)kv->n,
                         most);
    return OK;
}

/* A file of a vocabulary alone has no embedding. */
static enum status load_n_ids(struct vocab *v, const struct gguf *g, struct error *err)
{
    const struct tensor_entry *embd = tensor_dir_find(gguf_tensors(g), "token_embd.weight");

    v->n_ids = v->n_tokens;
    if (!embd) return OK;
    if (embd->ne[1] < v->n_tokens || embd->ne[1] > TOKEN_IDS_MAX)
        return error_set(err, ERR_PARSE, "token_embd.weight has %llu rows for %u tokens, expected %u to %u",
                         (unsigned long long)embd->ne[1], v->n_tokens, v->n_tokens, TOKEN_IDS_MAX);
    v->n_ids = (uint32_t)embd->ne[1];
    return OK;
}

static enum status load_tables(struct vocab *v, const struct gguf *g, struct error *err)
{
    const struct gguf_kv *tokens, *merges = NULL;
    struct text_store store;
    enum status st;

    if ((st = require_array(g, KEY("tokens"), true, 0, &tokens, err)) != OK) return st;
    if (tokens->n == 0) return error_set(err, ERR_PARSE, KEY("tokens") " is empty");
    if (v->kind != VOCAB_SPM && (st = require_array(g, KEY("merges"), true, 0, &merges, err)) != OK) return st;
    if ((st = check_lengths(tokens, KEY("tokens"), TOKEN_IDS_MAX, err)) != OK) return st;
    if ((st = check_lengths(merges, KEY("merges"), INT32_MAX, err)) != OK) return st;
    if ((st = allocate(v, tokens, merges, err)) != OK) return st;
    store.next = v->storage;
    load_texts(v, tokens, &store);
    if ((st = load_n_ids(v, g, err)) != OK) return st;
    if ((st = load_types(v, g, err)) != OK) return st;
    if ((st = load_scores(v, g, err)) != OK) return st;
    return load_merges(v, merges, &store, err);
}

/* *id stays as it is if the file says nothing; all bits set is how some writers say "none". */
static enum status load_id(const struct vocab *v, const struct gguf *g, const char *key, int32_t *id, struct error *err)
{
    const struct gguf_kv *kv = gguf_find(g, key);
    uint32_t value;
    enum status st;

    if (!kv) return OK;
    if (kv->type == GGUF_I32 && bytes_eq(kv->value, "\xff\xff\xff\xff", 4)) {
        *id = TOKEN_NONE;
        return OK;
    }
    if ((st = gguf_get_u32(g, key, &value, err)) != OK) return st;
    if (value == UINT32_MAX) {
        *id = TOKEN_NONE;
        return OK;
    }
    if (!token_id_ok(value, v->n_ids))
        return error_set(err, ERR_PARSE, "%s is %u, but the vocabulary has %u tokens", key, value, v->n_ids);
    *id = (int32_t)value;
    return OK;
}

static bool has_token(const struct vocab *v, const char *text)
{
    size_t n = strlen(text);
    for (uint32_t i = 0; i < v->n_tokens; i++)
        if (v->tokens[i].n == n && memcmp(v->tokens[i].text, text, n) == 0) return true;
    return false;
}

static int32_t find_eot_by_name(const struct vocab *v)
{
    static const char *const names[] = { "<|im_end|>",    "<|eot_id|>", "<|end|>",
                                         "<end_of_turn>", "<turn|>",    "<|endoftext|>" };
    enum { N = sizeof(names) / sizeof(names[0]), END_NAME = 2 };
    size_t best = N;
    int32_t id = TOKEN_NONE;

    for (uint32_t i = 0; i < v->n_tokens; i++) {
        const struct vocab_token *t = &v->tokens[i];
        if (t->n == 0 || t->text[0] != '<') continue;
        for (size_t k = 0; k < best; k++) {
            if (t->n != strlen(names[k]) || memcmp(t->text, names[k], t->n) != 0) continue;
            if (v->end_is_inside && k == END_NAME) continue;
            best = k;
            id = (int32_t)i;
        }
    }
    return id;
}

static int32_t id_or_none(const struct vocab *v, int32_t id)
{
    return token_id_ok(id, v->n_ids) ? id : TOKEN_NONE;
}

static enum status load_specials(struct vocab *v, const struct gguf *g, struct error *err)
{
    enum status st;

    v->bos_id = v->eos_id = v->eot_id = v->unk_id = v->pad_id = TOKEN_NONE;
    v->end_is_inside = has_token(v, "<|return|>") && has_token(v, "<|call|>");
    if (v->kind == VOCAB_SPM) { /* SentencePiece's own numbers, which such files may leave out */
        v->unk_id = 0;
        v->bos_id = id_or_none(v, 1);
        v->eos_id = id_or_none(v, 2);
    }
    if ((st = load_id(v, g, KEY("bos_token_id"), &v->bos_id, err)) != OK) return st;
    if ((st = load_id(v, g, KEY("eos_token_id"), &v->eos_id, err)) != OK) return st;
    if ((st = load_id(v, g, KEY("eot_token_id"), &v->eot_id, err)) != OK) return st;
    if ((st = load_id(v, g, KEY("unknown_token_id"), &v->unk_id, err)) != OK) return st;
    if ((st = load_id(v, g, KEY("padding_token_id"), &v->pad_id, err)) != OK) return st;
    if (!gguf_find(g, KEY("eot_token_id"))) v->eot_id = find_eot_by_name(v);
    return OK;
}

/* BPE files start a text with BOS only if they say so, but for those whose pre-tokenizer takes it for granted. */
static bool pre_adds_bos(const char *pre)
{
    const struct pretokenize_row *row = pretokenize_row_of(pre);
    return row && row->adds_bos;
}

static bool pre_is_text(const char *pre)
{
    const struct pretokenize_row *row = pretokenize_row_of(pre);
    return row && row->is_text;
}

static enum status load_flag(const struct gguf *g, const char *key, bool *flag, struct error *err)
{
    return gguf_find(g, key) ? gguf_get_bool(g, key, flag, err) : OK;
}

static enum status load_flags(struct vocab *v, const struct gguf *g, struct error *err)
{
    enum status st;

    struct bytes arch;

    v->add_space_prefix = v->kind == VOCAB_SPM;
    v->strip_after_special =
        v->kind == VOCAB_SPM && gguf_get_str(g, "general.architecture", &arch, NULL) == OK && bytes_eq(arch, "phi3", 4);
    v->add_bos = v->bos_id != TOKEN_NONE && (v->kind == VOCAB_SPM || pre_adds_bos(v->pre));
    if ((st = load_flag(g, KEY("add_space_prefix"), &v->add_space_prefix, err)) != OK) return st;
    if ((st = load_flag(g, KEY("add_bos_token"), &v->add_bos, err)) != OK) return st;
    if ((st = load_flag(g, KEY("add_eos_token"), &v->add_eos, err)) != OK) return st;
    if (v->kind == VOCAB_BPE_TEXT && pre_adds_bos(v->pre))
        v->add_bos = v->bos_id != TOKEN_NONE; /* early files say no */
    if (v->add_bos && v->bos_id == TOKEN_NONE)
        return error_set(err, ERR_PARSE, KEY("add_bos_token") " is true, but there is no " KEY("bos_token_id"));
    if (v->add_eos && v->eos_id == TOKEN_NONE)
        return error_set(err, ERR_PARSE, KEY("add_eos_token") " is true, but there is no " KEY("eos_token_id"));
    return OK;
}

/* A copy of a string without NUL bytes; *out stays NULL if there is no such key. */
static enum status load_string(const struct gguf *g, const char *key, char **out, struct error *err)
{
    struct bytes b;
    void *mem;
    enum status st;

    if (!gguf_find(g, key)) return OK;
    if ((st = gguf_get_str(g, key, &b, err)) != OK) return st;
    if (b.n && memchr(b.p, 0, b.n)) return error_set(err, ERR_PARSE, "%s holds a NUL byte", key);
    if ((st = mem_try_array(&mem, b.n + 1, 1)) != OK) return error_set(err, st, "no memory for %s", key);
    if (b.n) memcpy(mem, b.p, b.n);
    *out = mem;
    return OK;
}

enum status vocab_load_gguf(struct vocab **out, const struct gguf *g, struct error *err)
{
    struct vocab *v = mem_zalloc(sizeof(*v));
    enum status st;

    if ((st = load_kind(v, g, err)) != OK) goto fail;
    if ((st = load_string(g, KEY("pre"), &v->pre, err)) != OK) goto fail;
    if (!v->pre) v->pre = mem_strdup(v->kind == VOCAB_BPE_TEXT ? "gemma4" : "");
    if (v->kind == VOCAB_BPE && pre_is_text(v->pre)) v->kind = VOCAB_BPE_TEXT;
    if ((st = load_string(g, "tokenizer.chat_template", &v->chat_template, err)) != OK) goto fail;
    if ((st = load_tables(v, g, err)) != OK) goto fail;
    if ((st = load_specials(v, g, err)) != OK) goto fail;
    if ((st = load_flags(v, g, err)) != OK) goto fail;
    *out = v;
    return OK;
fail:
    vocab_destroy(v);
    return st;
}
