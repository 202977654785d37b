/* detok.c - turns a stream of token ids into text without ever splitting a UTF-8 sequence. */
#include "text/detok.h"

#include "base/mem.h"
#include "text/utf8.h"
#include "text/vocab.h"

#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

void detok_init(struct detok *d, const struct vocab *v, bool show_special)
{
    *d = (struct detok){ .vocab = v,
                         .show_special = show_special,
                         .strip_space = v->kind == VOCAB_SPM && v->add_space_prefix };
}

void detok_flush(struct detok *d, struct strbuf *out)
{
    if (d->n_held > 0) strbuf_puts(out, REPLACEMENT);
    d->n_held = 0;
}

/* One U+FFFD stands for the longest start of a sequence that could have become valid, as in the
 * Unicode standard's recommendation and in Python's errors="replace". */
static void add_byte(struct detok *d, uint8_t b, struct strbuf *out)
{
    if (d->n_held > 0 && !utf8_can_follow(d->held, d->n_held, b)) detok_flush(d, out);
    if (d->n_held == 0 && b < 0x80) {
        strbuf_putc(out, (char)b);
        return;
    }
    if (d->n_held == 0 && (b < 0xc2 || b > 0xf4)) {
        strbuf_puts(out, REPLACEMENT);
        return;
    }
    d->held[d->n_held++] = b;
    if (d->n_held == utf8_len(d->held[0])) {
        strbuf_add(out, d->held, d->n_held);
        d->n_held = 0;
    }
}

static void add_bytes(struct detok *d, const uint8_t *p, size_t n, struct strbuf *out)
{
    size_t skip = n > 0 && d->strip_space && p[0] == ' ' ? 1 : 0;

    if (n > 0) d->strip_space = false;
    for (size_t i = skip; i < n; i++) add_byte(d, p[i], out);
}

void detok_add(struct detok *d, int32_t id, struct strbuf *out)
{
    uint8_t small[128], *large = NULL;

    if (!vocab_has_text(d->vocab, id)) return;
    enum token_type type = d->vocab->tokens[id].type;
    if (!d->show_special && (type == TOKEN_CONTROL || type == TOKEN_UNKNOWN)) return;

    size_t n = vocab_token_bytes(d->vocab, id, small, sizeof(small));
    if (n > sizeof(small)) {
        large = mem_alloc(n);
        n = vocab_token_bytes(d->vocab, id, large, n);
    }
    add_bytes(d, large ? large : small, n, out);
    mem_free(large);
}
