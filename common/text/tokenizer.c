/* tokenizer.c - the front door: text to token ids for every kind of vocabulary. */
#include "text/tokenizer.h"

#include "base/mem.h"
#include "text/bpe.h"
#include "text/special.h"
#include "text/spm.h"
#include "text/utf8.h"
#include "text/vocab.h"

#define MAX_TEXT_BYTES ((size_t)256 << 20) /* positions, also of escaped text, fit 32 bits */

struct tokenizer {
    const struct vocab *vocab;
    struct special *special;
    struct bpe *bpe; /* one of these, by the vocabulary's kind */
    struct spm *spm;
};

enum status tokenizer_create(struct tokenizer **out, const struct vocab *v, struct error *err)
{
    struct tokenizer *t = mem_zalloc(sizeof(*t));
    enum status st;

    t->vocab = v;
    if ((st = special_create(&t->special, v, err)) != OK) goto fail;
    if (v->kind == VOCAB_SPM) {
        t->spm = spm_create(v);
    } else if ((st = bpe_create(&t->bpe, v, err)) != OK) {
        goto fail;
    }
    *out = t;
    return OK;
fail:
    tokenizer_destroy(t);
    return st;
}

void tokenizer_destroy(struct tokenizer *t)
{
    if (!t) return;
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

static enum status encode_plain(struct tokenizer *t, const char *text, size_t n, bool after_special,
                                struct token_list *out, struct error *err)
{
    enum status st;

    if (n == 0) return OK;
    if (t->bpe) {
        st = bpe_encode(t->bpe, text, n, out, err);
    } else {
        st = spm_encode(t->spm, text, n, after_special && t->vocab->add_space_prefix, out);
    }
    if (st == ERR_NO_MEMORY) error_set(err, st, "no memory to tokenize %zu bytes", n);
    return st;
}

static enum status encode_all(struct tokenizer *t, const char *text, size_t n, bool control, struct token_list *out,
                              struct error *err)
{
    bool after_special = true;
    enum status st;

    for (size_t pos = 0; pos < n;) {
        struct special_match m = special_find(t->special, text, n, pos, control);
        if ((st = encode_plain(t, text + pos, m.pos - pos, after_special, out, err)) != OK) return st;
        if (m.id != TOKEN_NONE) token_list_add(out, m.id);
        after_special = true;
        pos = m.pos + m.n;
    }
    return OK;
}

enum status tokenizer_encode(struct tokenizer *t, const char *text, size_t n, struct encode_options opt,
                             struct token_list *out, struct error *err)
{
    const struct vocab *v = t->vocab;
    size_t n_before = out->n;
    size_t bad;

    if (n > MAX_TEXT_BYTES) {
        return error_set(err, ERR_TOO_LARGE, "text of %zu bytes, at most %zu are tokenized", n, MAX_TEXT_BYTES);
    }
    if ((bad = utf8_check(text, n)) != n) {
        return error_set(err, ERR_PARSE, "text is not UTF-8: byte 0x%02x at offset %zu", (unsigned char)text[bad], bad);
    }
    if (opt.add_special && v->add_bos && v->bos_id != TOKEN_NONE) token_list_add(out, v->bos_id);
    enum status st = encode_all(t, text, n, opt.parse_special, out, err);
    if (st != OK) {
        out->n = n_before;
        return st;
    }
    if (opt.add_special && v->add_eos && v->eos_id != TOKEN_NONE) token_list_add(out, v->eos_id);
    return OK;
}
