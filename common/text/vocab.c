/* vocab.c - a model's tokens: end of generation, raw bytes of a token. */
#include "text/vocab.h"

#include "base/mem.h"
#include "base/token_id.h"
#include "text/bytelevel.h"
#include "text/utf8.h"

#include <string.h>

/* Control tokens that end a turn; files often name only one of them as eos. */
static const char *const end_names[] = {
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "</s>",
    "<end_of_turn>",
    "<eos>",
    "<end_of_utterance>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<turn|>",
    "[e~[",
    "<|tool_response>",
};

#define LOWER_ONE_EIGHTH_BLOCK "\xe2\x96\x81" /* U+2581, SPM's space */

void vocab_destroy(struct vocab *v)
{
    if (!v) return;
    mem_free(v->storage);
    mem_free(v->tokens);
    mem_free(v->merges);
    mem_free(v->pre);
    mem_free(v->chat_template);
    mem_free(v);
}

bool vocab_has_text(const struct vocab *v, int64_t id)
{
    return token_id_ok(id, v->n_tokens);
}

bool vocab_is_end(const struct vocab *v, int32_t id)
{
    if (id != TOKEN_NONE && (id == v->eos_id || id == v->eot_id)) return true;
    if (!vocab_has_text(v, id)) return false;

    const struct vocab_token *t = &v->tokens[id];
    if (t->type != TOKEN_CONTROL) return false;
    if (v->end_is_inside && t->n == 7 && memcmp(t->text, "<|end|>", 7) == 0) return false;
    for (size_t i = 0; i < sizeof(end_names) / sizeof(end_names[0]); i++) {
        if (strlen(end_names[i]) == t->n && memcmp(end_names[i], t->text, t->n) == 0) return true;
    }
    return false;
}

struct sink { /* counts all bytes, keeps those that fit */
    uint8_t *buf;
    size_t cap, n;
};

static void sink_add(struct sink *s, const void *p, size_t n)
{
    if (s->n < s->cap) memcpy(s->buf + s->n, p, n < s->cap - s->n ? n : s->cap - s->n);
    s->n += n;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int vocab_token_byte(const struct vocab *v, int32_t id)
{
    const struct vocab_token *t = &v->tokens[id];

    if (t->type != TOKEN_BYTE || t->n != 6 || memcmp(t->text, "<0x", 3) != 0 || t->text[5] != '>') {
        return -1;
    }
    int high = hex_digit(t->text[3]), low = hex_digit(t->text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static void add_spm(struct sink *s, const char *p, size_t n)
{
    const size_t mark = sizeof(LOWER_ONE_EIGHTH_BLOCK) - 1;

    for (size_t i = 0; i < n;) {
        bool space = n - i >= mark && memcmp(p + i, LOWER_ONE_EIGHTH_BLOCK, mark) == 0;
        sink_add(s, space ? " " : p + i, 1);
        i += space ? mark : 1;
    }
}

/* What is not of the alphabet stands for itself: some converters write such tokens unescaped. */
static void add_bytelevel(struct sink *s, const char *p, size_t n)
{
    bool is_utf8 = utf8_check(p, n) == n;

    for (size_t i = 0; i < n;) {
        uint32_t cp = 0;
        size_t len = is_utf8 ? utf8_next(p + i, n - i, &cp) : 1;
        int byte = is_utf8 ? bytelevel_decode(cp) : -1;
        if (byte >= 0) {
            sink_add(s, &(uint8_t){ (uint8_t)byte }, 1);
        } else {
            sink_add(s, p + i, len);
        }
        i += len;
    }
}

size_t vocab_token_bytes(const struct vocab *v, int32_t id, uint8_t *buf, size_t cap)
{
    struct sink s = { buf, cap, 0 };

    if (!vocab_has_text(v, id)) return 0;
    const struct vocab_token *t = &v->tokens[id];
    int byte = vocab_token_byte(v, id);
    if (byte >= 0) {
        sink_add(&s, &(uint8_t){ (uint8_t)byte }, 1);
    } else if (t->type != TOKEN_NORMAL && t->type != TOKEN_UNUSED) {
        sink_add(&s, t->text, t->n); /* these are matched, and so written, as raw text */
    } else if (v->kind != VOCAB_BPE) {
        add_spm(&s, t->text, t->n);
    } else {
        add_bytelevel(&s, t->text, t->n);
    }
    return s.n;
}
