/* token_map.c - from a token's text to its id, by open addressing. */
#include "text/token_map.h"

#include "base/mem.h"
#include "text/vocab.h"

#include <string.h>
#include <xxhash.h>

struct token_map {
    const struct vocab *vocab;
    int32_t *slots; /* TOKEN_NONE where free */
    size_t mask;
    size_t longest;
};

static bool is_plain(enum token_type type)
{
    return type != TOKEN_CONTROL && type != TOKEN_UNKNOWN && type != TOKEN_BYTE;
}

/* The slot that holds `text`, or the free one where it belongs. */
static size_t slot_of(const struct token_map *m, const char *text, size_t n)
{
    size_t i = XXH3_64bits(text, n) & m->mask;

    while (m->slots[i] != TOKEN_NONE) {
        const struct vocab_token *t = &m->vocab->tokens[m->slots[i]];
        if (t->n == n && memcmp(t->text, text, n) == 0) break;
        i = (i + 1) & m->mask;
    }
    return i;
}

struct token_map *token_map_create(const struct vocab *v)
{
    struct token_map *m = mem_zalloc(sizeof(*m));
    size_t n_slots = 16;

    while (n_slots < 2 * (size_t)v->n_tokens) n_slots *= 2;
    m->vocab = v;
    m->mask = n_slots - 1;
    m->slots = mem_array(n_slots, sizeof(*m->slots));
    for (size_t i = 0; i < n_slots; i++) m->slots[i] = TOKEN_NONE;

    for (uint32_t id = 0; id < v->n_tokens; id++) {
        const struct vocab_token *t = &v->tokens[id];
        if (!is_plain(t->type) || t->n == 0) continue;
        size_t slot = slot_of(m, t->text, t->n);
        if (m->slots[slot] == TOKEN_NONE) m->slots[slot] = (int32_t)id;
        if (t->n > m->longest) m->longest = t->n;
    }
    return m;
}

void token_map_destroy(struct token_map *m)
{
    if (!m) return;
    mem_free(m->slots);
    mem_free(m);
}

int32_t token_map_find(const struct token_map *m, const char *text, size_t n)
{
    return n > m->longest ? TOKEN_NONE : m->slots[slot_of(m, text, n)];
}

size_t token_map_longest(const struct token_map *m)
{
    return m->longest;
}
