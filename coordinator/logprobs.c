/* logprobs.c - the log of an answer's tokens and its JSON. */
#include "coordinator/logprobs.h"

#include "base/json_write.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "coordinator/served_model.h"

#include <math.h>
#include <string.h>

#define LOGPROB_FLOOR (-9999.0) /* JSON has no -inf; the value that OpenAI uses */

static void grow(struct token_log *l)
{
    if (l->n < l->cap) return;
    l->cap = l->cap ? l->cap * 2 : 16;
    l->entries = mem_resize(l->entries, l->cap, sizeof(*l->entries));
    if (!l->n_top) return;
    l->top_ids = mem_resize(l->top_ids, (size_t)l->cap * l->n_top, sizeof(*l->top_ids));
    l->top = mem_resize(l->top, (size_t)l->cap * l->n_top, sizeof(*l->top));
}

void token_log_add(struct token_log *l, int32_t id, uint32_t chars, const struct logprob_row *row)
{
    grow(l);
    l->entries[l->n++] = (struct token_log_entry){ .id = id, .chars = chars };
    if (row) token_log_set(l, l->n - 1, row);
}

void token_log_set(struct token_log *l, uint32_t i, const struct logprob_row *row)
{
    struct token_log_entry *e = &l->entries[i];
    e->known = true;
    e->logprob = row->logprob;
    e->n_top = row->n_top < l->n_top ? row->n_top : l->n_top;
    if (!e->n_top) return;
    memcpy(l->top_ids + (size_t)i * l->n_top, row->top_ids, e->n_top * sizeof(*l->top_ids));
    memcpy(l->top + (size_t)i * l->n_top, row->top, e->n_top * sizeof(*l->top));
}

void token_log_cut(struct token_log *l, uint32_t chars, uint32_t keep)
{
    while (l->n > keep && l->entries[l->n - 1].chars >= chars) l->n--;
}

void token_log_clear(struct token_log *l)
{
    l->n = 0;
}

void token_log_fini(struct token_log *l)
{
    mem_free(l->entries);
    mem_free(l->top_ids);
    mem_free(l->top);
    *l = (struct token_log){ .n_top = l->n_top };
}

static void put_logprob(float v, struct strbuf *out)
{
    strbuf_addf(out, "%.7g", isfinite(v) ? (double)v : LOGPROB_FLOOR);
}

/* The token as text: json_str replaces bytes which are no UTF-8 on their own. */
static void put_token(const struct logprob_style *s, int32_t id, struct strbuf *out)
{
    if (s->as_ids) {
        strbuf_addf(out, "\"token_id:%d\"", id);
        return;
    }
    struct strbuf bytes = STRBUF_INIT;
    served_model_token_bytes(s->model, id, &bytes);
    json_str(out, strbuf_cstr(&bytes), bytes.n);
    strbuf_fini(&bytes);
}

static void put_chat_token(const struct logprob_style *s, int32_t id, float logprob, struct strbuf *out)
{
    struct strbuf bytes = STRBUF_INIT;
    served_model_token_bytes(s->model, id, &bytes);
    strbuf_puts(out, "{\"token\":");
    put_token(s, id, out);
    strbuf_puts(out, ",\"logprob\":");
    put_logprob(logprob, out);
    strbuf_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < bytes.n; i++) strbuf_addf(out, "%s%u", i ? "," : "", (unsigned)(unsigned char)bytes.s[i]);
    strbuf_putc(out, ']');
    strbuf_fini(&bytes);
}

void logprobs_chat_json(const struct token_log *l, const struct logprob_style *s, struct strbuf *out)
{
    strbuf_puts(out, "{\"content\":[");
    for (uint32_t i = 0; i < l->n; i++) {
        const struct token_log_entry *e = &l->entries[i];
        if (i) strbuf_putc(out, ',');
        put_chat_token(s, e->id, e->logprob, out);
        strbuf_puts(out, ",\"top_logprobs\":[");
        for (uint32_t k = 0; k < e->n_top; k++) {
            size_t at = (size_t)i * l->n_top + k;
            if (k) strbuf_putc(out, ',');
            put_chat_token(s, l->top_ids[at], l->top[at], out);
            strbuf_putc(out, '}');
        }
        strbuf_puts(out, "]}");
    }
    strbuf_puts(out, "],\"refusal\":null}");
}

/* Whether the object text has a member whose written key is `key`; inside a longer key its quote would be escaped. */
static bool has_key(const struct strbuf *obj, const struct strbuf *key)
{
    const char *at = obj->s, *end = obj->s + obj->n;
    while ((at = memmem(at, (size_t)(end - at), key->s, key->n)) != NULL) {
        if (at[-1] != '\\') return true;
        at++;
    }
    return false;
}

/* One member of a top_logprobs object, unless its key is there: two ids may have the same text. */
static void put_member(struct strbuf *obj, struct strbuf *key, float logprob)
{
    strbuf_putc(key, ':');
    if (has_key(obj, key)) return;
    if (obj->n > 1) strbuf_putc(obj, ',');
    strbuf_add(obj, key->s, key->n);
    put_logprob(logprob, obj);
}

/* The alternatives, and the token itself where it is not among them. */
static void put_top(const struct token_log *l, uint32_t i, const struct logprob_style *s, struct strbuf *out)
{
    const struct token_log_entry *e = &l->entries[i];
    struct strbuf obj = STRBUF_INIT, key = STRBUF_INIT;
    strbuf_putc(&obj, '{');
    for (uint32_t k = 0; k < e->n_top; k++) {
        size_t at = (size_t)i * l->n_top + k;
        strbuf_reset(&key);
        put_token(s, l->top_ids[at], &key);
        put_member(&obj, &key, l->top[at]);
    }
    strbuf_reset(&key);
    put_token(s, e->id, &key);
    put_member(&obj, &key, e->logprob);
    strbuf_putc(&obj, '}');
    strbuf_add(out, obj.s, obj.n);
    strbuf_fini(&obj);
    strbuf_fini(&key);
}

void logprobs_text_json(const struct token_log *l, const struct logprob_style *s, struct strbuf *out)
{
    strbuf_puts(out, "{\"tokens\":[");
    for (uint32_t i = 0; i < l->n; i++) {
        if (i) strbuf_putc(out, ',');
        put_token(s, l->entries[i].id, out);
    }
    strbuf_puts(out, "],\"token_logprobs\":[");
    for (uint32_t i = 0; i < l->n; i++) {
        if (i) strbuf_putc(out, ',');
        if (l->entries[i].known)
            put_logprob(l->entries[i].logprob, out);
        else
            strbuf_puts(out, "null");
    }
    strbuf_puts(out, "],\"top_logprobs\":[");
    for (uint32_t i = 0; i < l->n; i++) {
        if (i) strbuf_putc(out, ',');
        if (l->entries[i].known)
            put_top(l, i, s, out);
        else
            strbuf_puts(out, "null");
    }
    strbuf_puts(out, "],\"text_offset\":[");
    for (uint32_t i = 0; i < l->n; i++) strbuf_addf(out, "%s%u", i ? "," : "", l->entries[i].chars);
    strbuf_puts(out, "]}");
}
