/* tokenizer.c - the front door: text to token ids for every kind of vocabulary. */
#include "text/tokenizer.h"

#include "base/mem.h"
#include "text/bpe.h"
#include "text/special.h"
#include "text/spm.h"
#include "text/utf8.h"
#include "text/vocab.h"

#include <pthread.h>
#include <string.h>

#define UTF8_LONGEST   4                   /* bytes of a character */
#define MAX_TEXT_BYTES ((size_t)256 << 20) /* positions, also of escaped text, fit 32 bits */

struct scratch { /* of one call */
    struct scratch *next;
    struct bpe_scratch *bpe;
    struct spm_scratch *spm;
    const atomic_bool *stop;
};

struct tokenizer {
    const struct vocab *vocab;
    struct special *special;
    struct bpe *bpe; /* one of these, by the vocabulary's kind */
    struct spm *spm;
    size_t longest;
    pthread_mutex_t lock;
    struct scratch *idle; /* as many as calls have run at once */
};

/* The most bytes of text that one token takes up. */
static size_t longest_of(const struct tokenizer *t)
{
    size_t longest = UTF8_LONGEST; /* an unknown token stands for one character */
    for (uint32_t id = 0; id < t->vocab->n_tokens; id++) {
        size_t n = vocab_token_bytes(t->vocab, (int32_t)id, NULL, 0);
        if (n > longest) longest = n;
    }
    return longest;
}

enum status tokenizer_create(struct tokenizer **out, const struct vocab *v, struct error *err)
{
    struct tokenizer *t = mem_zalloc(sizeof(*t));
    enum status st;

    t->vocab = v;
    pthread_mutex_init(&t->lock, NULL);
    if ((st = special_create(&t->special, v, err)) != OK) goto fail;
    if (v->kind == VOCAB_SPM) {
        t->spm = spm_create(v);
    } else if ((st = bpe_create(&t->bpe, v, err)) != OK) {
        goto fail;
    }
    t->longest = longest_of(t);
    *out = t;
    return OK;
fail:
    tokenizer_destroy(t);
    return st;
}

static void scratch_destroy(struct scratch *s)
{
    bpe_scratch_destroy(s->bpe);
    spm_scratch_destroy(s->spm);
    mem_free(s);
}

static enum status scratch_take(struct tokenizer *t, struct scratch **out)
{
    enum status st = OK;
    pthread_mutex_lock(&t->lock);
    struct scratch *s = t->idle;
    if (s) t->idle = s->next;
    pthread_mutex_unlock(&t->lock);
    if (!s) {
        s = mem_zalloc(sizeof(*s));
        if (t->bpe) st = bpe_scratch_create(&s->bpe, t->bpe);
        if (t->spm) s->spm = spm_scratch_create(t->spm);
    }
    if (st == OK)
        *out = s;
    else
        scratch_destroy(s);
    return st;
}

static void scratch_give(struct tokenizer *t, struct scratch *s)
{
    pthread_mutex_lock(&t->lock);
    s->next = t->idle;
    t->idle = s;
    pthread_mutex_unlock(&t->lock);
}

void tokenizer_destroy(struct tokenizer *t)
{
    if (!t) return;
    while (t->idle) {
        struct scratch *s = t->idle;
        t->idle = s->next;
        scratch_destroy(s);
    }
    pthread_mutex_destroy(&t->lock);
    special_destroy(t->special);
    spm_destroy(t->spm);
    bpe_destroy(t->bpe);
    mem_free(t);
}

void token_list_add(struct token_list *l, int32_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->ids = mem_resize(l->ids, l->cap, sizeof(*l->ids));
    }
    l->ids[l->n++] = id;
}

void token_list_fini(struct token_list *l)
{
    mem_free(l->ids);
    *l = (struct token_list){ 0 };
}

size_t tokenizer_at_least(const struct tokenizer *t, const char *text, size_t n)
{
    /* without an unknown token and with bytes missing, some text becomes no token at all */
    if (t->spm && t->vocab->unk_id == TOKEN_NONE && !spm_has_all_bytes(t->spm)) return 0;
    return (t->bpe ? bpe_count_known(t->bpe, text, n) : n) / t->longest;
}

static enum status encode_plain(const struct tokenizer *t, struct scratch *s, const char *text, size_t n,
                                bool after_special, struct token_list *out, struct error *err)
{
    enum status st;

    if (n == 0) return OK;
    if (t->bpe) {
        st = bpe_encode(s->bpe, text, n, s->stop, out, err);
    } else {
        st = spm_encode(s->spm, text, n, after_special && t->vocab->add_space_prefix, s->stop, out);
    }
    if (st == ERR_NO_MEMORY) error_set(err, st, "no memory to tokenize %zu bytes", n);
    if (st == ERR_CANCELLED) error_set(err, st, "tokenizing was cancelled");
    return st;
}

/* As files of Phi-3 have it: <s>, <unk> and <|endoftext|> leave what follows them alone. */
static bool strips_after(const struct vocab *v, int32_t id)
{
    static const char *const LEAVE[] = { "<s>", "<unk>", "<|endoftext|>" };
    if (!v->strip_after_special || id == TOKEN_NONE) return false;
    const struct vocab_token *t = &v->tokens[id];
    for (size_t i = 0; i < sizeof(LEAVE) / sizeof(LEAVE[0]); i++)
        if (t->n == strlen(LEAVE[i]) && memcmp(t->text, LEAVE[i], t->n) == 0) return false;
    return true;
}

static size_t count_space(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && (text[i] == ' ' || (text[i] >= '\t' && text[i] <= '\r'))) i++;
    return i;
}

static enum status encode_all(const struct tokenizer *t, struct scratch *s, const char *text, size_t n,
                              const struct encode_options *opt, struct token_list *out, struct error *err)
{
    struct special_scan scan = { .text = text, .n = n, .control = opt->parse_special, .literal = opt->literal };
    bool after_special = true;
    enum status st;

    for (size_t pos = 0; pos < n;) {
        struct special_match m = special_find(t->special, &scan, pos);
        if ((st = encode_plain(t, s, text + pos, m.pos - pos, after_special, out, err)) != OK) return st;
        if (m.id != TOKEN_NONE) token_list_add(out, m.id);
        after_special = true;
        pos = m.pos + m.n;
        if (strips_after(t->vocab, m.id)) pos += count_space(text + pos, n - pos);
    }
    return OK;
}

enum status tokenizer_encode(struct tokenizer *t, const char *text, size_t n, struct encode_options opt,
                             struct token_list *out, struct error *err)
{
    const struct vocab *v = t->vocab;
    size_t n_before = out->n;
    struct scratch *s;
    enum status st;
    size_t bad;

    if (n > MAX_TEXT_BYTES) {
        return error_set(err, ERR_TOO_LARGE, "text of %zu bytes, at most %zu are tokenized", n, MAX_TEXT_BYTES);
    }
    if ((bad = utf8_check(text, n)) != n) {
        return error_set(err, ERR_PARSE, "text is not UTF-8: byte 0x%02x at offset %zu", (unsigned char)text[bad], bad);
    }
    if ((st = scratch_take(t, &s)) != OK) return error_set(err, st, "no memory to tokenize");
    s->stop = opt.stop;
    if (opt.add_special && v->add_bos && v->bos_id != TOKEN_NONE) token_list_add(out, v->bos_id);
    st = encode_all(t, s, text, n, &opt, out, err);
    scratch_give(t, s);
    if (st != OK) {
        out->n = n_before;
        return st;
    }
    if (opt.add_special && v->add_eos && v->eos_id != TOKEN_NONE) token_list_add(out, v->eos_id);
    return OK;
}
