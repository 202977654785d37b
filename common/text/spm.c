/* spm.c - SentencePiece-style tokenizing: a heap of merges by score over a linked list of characters. */
#include "text/spm.h"

#include "base/mem.h"
#include "text/merge_queue.h"
#include "text/token_map.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "text/vocab.h"

#include <string.h>

#define END         UINT32_MAX
#define SPACE_MARK  "\xe2\x96\x81" /* U+2581 stands for a space */
#define SPACE_BYTES 3
#define KEEP_TEXT   (1u << 16) /* scratch of a longer text is given back */

struct symbol {
    uint32_t prev, next; /* END at the borders */
    uint32_t at, n;      /* bytes of the escaped text; n = 0: merged into the one before it */
};

struct spm {
    const struct vocab *vocab;
    struct token_map *map;
    int32_t byte_ids[256]; /* TOKEN_NONE where the vocabulary has none */
};

struct spm_scratch {
    const struct spm *spm;
    char *text; /* escaped */
    struct symbol *symbols;
    size_t cap; /* of both */
    struct merge_queue queue;
};

struct spm *spm_create(const struct vocab *v)
{
    struct spm *s = mem_zalloc(sizeof(*s));

    s->vocab = v;
    s->map = token_map_create(v);
    for (int i = 0; i < 256; i++) s->byte_ids[i] = TOKEN_NONE;
    for (uint32_t id = 0; id < v->n_tokens; id++) {
        int byte = vocab_token_byte(v, (int32_t)id);
        if (byte >= 0 && s->byte_ids[byte] == TOKEN_NONE) s->byte_ids[byte] = (int32_t)id;
    }
    return s;
}

static void release(struct spm_scratch *s)
{
    merge_queue_fini(&s->queue);
    mem_free(s->symbols);
    mem_free(s->text);
    s->symbols = NULL;
    s->text = NULL;
    s->cap = 0;
}

void spm_destroy(struct spm *s)
{
    if (!s) return;
    token_map_destroy(s->map);
    mem_free(s);
}

bool spm_has_all_bytes(const struct spm *s)
{
    for (int byte = 0; byte < 256; byte++)
        if (s->byte_ids[byte] == TOKEN_NONE) return false;
    return true;
}

struct spm_scratch *spm_scratch_create(const struct spm *spm)
{
    struct spm_scratch *s = mem_zalloc(sizeof(*s));

    s->spm = spm;
    return s;
}

void spm_scratch_destroy(struct spm_scratch *s)
{
    if (!s) return;
    release(s);
    mem_free(s);
}

static enum status reserve(struct spm_scratch *s, size_t n_text, size_t n_symbols)
{
    void *text = NULL, *symbols = NULL;
    enum status st;

    if ((st = merge_queue_reset(&s->queue, n_symbols)) != OK) return st;
    if (n_text <= s->cap) return OK;
    if ((st = mem_try_array(&text, 2 * n_text, 1)) != OK) return st;
    if ((st = mem_try_array(&symbols, 2 * n_text, sizeof(*s->symbols))) != OK) {
        mem_free(text);
        return st;
    }
    mem_free(s->text);
    mem_free(s->symbols);
    s->text = text;
    s->symbols = symbols;
    s->cap = 2 * n_text;
    return OK;
}

/* Escapes the text into s->text; returns its bytes. */
static size_t escape(struct spm_scratch *s, const char *text, size_t n, bool space_prefix)
{
    size_t used = 0;

    if (space_prefix) {
        memcpy(s->text, SPACE_MARK, SPACE_BYTES);
        used = SPACE_BYTES;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] != ' ') {
            s->text[used++] = text[i];
            continue;
        }
        memcpy(s->text + used, SPACE_MARK, SPACE_BYTES);
        used += SPACE_BYTES;
    }
    return used;
}

/* One symbol for each character; returns how many. */
static uint32_t fill_symbols(struct spm_scratch *s, size_t n)
{
    uint32_t count = 0;

    for (size_t at = 0; at < n; count++) {
        size_t len = utf8_len((uint8_t)s->text[at]);
        s->symbols[count] = (struct symbol){ count - 1, count + 1, (uint32_t)at, (uint32_t)len };
        at += len;
    }
    if (count > 0) s->symbols[count - 1].next = END;
    return count;
}

/* Floats as integers of the opposite order: the best score has the lowest key. */
static uint32_t score_key(float score)
{
    uint32_t bits;

    score += 0.0f; /* -0 equals 0 */
    memcpy(&bits, &score, sizeof(bits));
    return bits >> 31 ? bits : ~bits & 0x7fffffffu;
}

static void push_pair(struct spm_scratch *s, uint32_t left)
{
    uint32_t right = left == END ? END : s->symbols[left].next;

    if (right == END) return;
    const struct symbol *l = &s->symbols[left];
    uint32_t n = l->n + s->symbols[right].n;
    int32_t id = token_map_find(s->spm->map, s->text + l->at, n);
    if (id == TOKEN_NONE) return;
    uint64_t priority = score_key(s->spm->vocab->tokens[id].score);
    merge_queue_push(&s->queue, (struct merge){ priority << 32 | left, n, 0 });
}

static void do_merge(struct spm_scratch *s, const struct merge *m)
{
    uint32_t left = (uint32_t)m->key;
    struct symbol *l = &s->symbols[left];

    if (l->n == 0 || l->next == END) return;
    struct symbol *r = &s->symbols[l->next];
    if (l->n + r->n != m->a) return; /* a neighbour has grown since: the pair was found anew then */

    l->n += r->n;
    r->n = 0;
    l->next = r->next;
    if (l->next != END) s->symbols[l->next].prev = left;
    push_pair(s, l->prev);
    push_pair(s, left);
}

static void add_symbol(const struct spm_scratch *s, const struct symbol *sym, struct token_list *out)
{
    const char *p = s->text + sym->at;
    int32_t id = token_map_find(s->spm->map, p, sym->n);
    bool has_bytes = true;

    if (id != TOKEN_NONE) {
        token_list_add(out, id);
        return;
    }
    for (uint32_t i = 0; i < sym->n; i++) {
        if (s->spm->byte_ids[(uint8_t)p[i]] == TOKEN_NONE) has_bytes = false;
    }
    if (!has_bytes) {
        if (s->spm->vocab->unk_id != TOKEN_NONE) token_list_add(out, s->spm->vocab->unk_id);
        return;
    }
    for (uint32_t i = 0; i < sym->n; i++) token_list_add(out, s->spm->byte_ids[(uint8_t)p[i]]);
}

static bool stopped(const atomic_bool *stop)
{
    return stop && atomic_load_explicit(stop, memory_order_relaxed);
}

enum status spm_encode(struct spm_scratch *s, const char *text, size_t n, bool space_prefix, const atomic_bool *stop,
                       struct token_list *out)
{
    size_t n_spaces = space_prefix ? 1 : 0;
    enum status st;

    for (size_t i = 0; i < n; i++) n_spaces += text[i] == ' ';
    size_t n_escaped = n + n_spaces * SPACE_BYTES;
    if ((st = reserve(s, n_escaped, n + 1)) != OK) return st;

    uint32_t count = fill_symbols(s, escape(s, text, n, space_prefix));
    for (uint32_t i = 0; i + 1 < count; i++) push_pair(s, i);
    for (struct merge m; !stopped(stop) && merge_queue_pop(&s->queue, &m);) do_merge(s, &m);
    if (stopped(stop)) {
        if (s->cap > KEEP_TEXT) release(s);
        return ERR_CANCELLED;
    }
    for (uint32_t i = 0; i != END && count > 0; i = s->symbols[i].next) {
        add_symbol(s, &s->symbols[i], out);
    }
    if (s->cap > KEEP_TEXT) release(s);
    return OK;
}
