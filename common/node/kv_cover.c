/* kv_cover.c - a bit for each cell of each group, and how many are missing. */
#include "node/kv_cover.h"

#include "base/mem.h"

#include <assert.h>

struct group_cover {
    uint32_t n_heads, first, end; /* columns [first, end) are expected */
    uint8_t *claimed;             /* bit per (layer, head, column - first) */
    uint64_t n_missing;           /* cells whose bytes are not stored yet */
};

struct kv_cover {
    const struct cache_geometry *g;
    struct group_cover groups[CACHE_GROUPS_MAX];
};

static uint32_t units(uint64_t n, uint32_t unit)
{
    return (uint32_t)((n + unit - 1) / unit);
}

/* From the first token that still counts and is not there yet. */
static uint32_t first_token(const struct cache_group *c, uint32_t n_tokens, uint32_t hit_tokens)
{
    uint32_t first = cache_group_first_token(c, n_tokens);
    return first > hit_tokens ? first : hit_tokens;
}

enum status kv_cover_create(struct kv_cover **out, const struct cache_geometry *g, uint32_t n_tokens,
                            uint32_t hit_tokens)
{
    struct kv_cover *c = mem_zalloc(sizeof(*c));
    c->g = g;
    for (uint32_t i = 0; i < g->n_groups; i++) {
        const struct cache_group *from = &g->groups[i];
        struct group_cover *to = &c->groups[i];
        enum status st;
        void *claimed;
        to->n_heads = from->n_heads;
        if (cache_group_has_blocks(from)) {
            to->first = first_token(from, n_tokens, hit_tokens) / from->block_tokens;
            to->end = units(n_tokens, from->block_tokens);
        } else {
            to->end = units(cache_group_state_bytes(from), CACHE_STATE_UNIT);
        }
        to->n_missing = (uint64_t)from->n_layers * from->n_heads * (to->end - to->first);
        if ((st = mem_try_array(&claimed, to->n_missing / 8 + 1, 1)) != OK) {
            kv_cover_destroy(c);
            return st;
        }
        to->claimed = claimed;
    }
    *out = c;
    return OK;
}

void kv_cover_destroy(struct kv_cover *c)
{
    if (!c) return;
    for (uint32_t i = 0; i < c->g->n_groups; i++) mem_free(c->groups[i].claimed);
    mem_free(c);
}

struct kv_cells kv_cover_of_block(const struct kv_cover *c, const struct kv_wire_range *r)
{
    uint32_t block = c->g->groups[r->group].block_tokens;
    return (struct kv_cells){ r->group, r->l0, r->l1, r->h0, r->h1, r->t0 / block, units(r->t1, block) };
}

struct kv_cells kv_cover_of_state(const struct kv_cover *c, const struct kv_wire_state *s)
{
    /* several heads' states come whole: each head has all its columns */
    uint32_t per_head = s->n_bytes / (s->h1 - s->h0);
    uint32_t first = s->offset / CACHE_STATE_UNIT;
    assert(s->group < c->g->n_groups);
    return (struct kv_cells){
        s->group, s->layer, s->layer + 1, s->h0, s->h1, first, first + units(per_head, CACHE_STATE_UNIT)
    };
}

bool kv_cover_claim(struct kv_cover *c, const struct kv_cells *cells)
{
    struct group_cover *g = &c->groups[cells->group];
    uint64_t n_columns = g->end - g->first;

    if (cells->c0 < g->first || cells->c1 > g->end) return false;
    for (int take = 0; take < 2; take++)
        for (uint32_t l = cells->l0; l < cells->l1; l++)
            for (uint32_t h = cells->h0; h < cells->h1; h++) {
                uint64_t row = ((uint64_t)l * g->n_heads + h) * n_columns;
                for (uint64_t bit = row + (cells->c0 - g->first); bit < row + (cells->c1 - g->first); bit++) {
                    uint8_t mask = (uint8_t)(1U << bit % 8);
                    if (take)
                        g->claimed[bit / 8] |= mask;
                    else if (g->claimed[bit / 8] & mask)
                        return false;
                }
            }
    return true;
}

void kv_cover_store(struct kv_cover *c, const struct kv_cells *cells)
{
    uint64_t n = (uint64_t)(cells->l1 - cells->l0) * (cells->h1 - cells->h0) * (cells->c1 - cells->c0);
    assert(n <= c->groups[cells->group].n_missing);
    c->groups[cells->group].n_missing -= n;
}

uint32_t kv_cover_first_gap(const struct kv_cover *c, uint64_t *n_missing)
{
    uint32_t i = 0;
    while (i < c->g->n_groups && c->groups[i].n_missing == 0) i++;
    *n_missing = i < c->g->n_groups ? c->groups[i].n_missing : 0;
    return i;
}

bool kv_cover_is_whole(const struct kv_cover *c)
{
    uint64_t n;
    return kv_cover_first_gap(c, &n) == c->g->n_groups;
}

uint64_t kv_cover_expected_bytes(const struct cache_geometry *g, uint32_t n_tokens, uint32_t hit_tokens)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < g->n_groups; i++) {
        const struct cache_group *c = &g->groups[i];
        uint64_t rows = (uint64_t)c->n_layers * c->n_heads, n = cache_group_state_bytes(c);
        if (cache_group_has_blocks(c)) n = cache_group_head_bytes(c, n_tokens - first_token(c, n_tokens, hit_tokens));
        if (!size_mul(n, rows, &n) || !size_add(sum, n, &sum)) return UINT64_MAX;
    }
    return sum;
}
