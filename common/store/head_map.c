/* head_map.c - joins what each rank holds into spans of heads. */
#include "store/head_map.h"

#include "base/mem.h"

/* One more head of a rank: it goes on a span, or begins one. */
static void add(struct head_map *m, uint32_t rank, uint32_t local, uint32_t head, bool owned)
{
    struct head_span *last = m->n > 0 ? &m->spans[m->n - 1] : NULL;
    if (last && last->rank == rank && last->owned == owned && last->head + last->n == head) {
        last->n++;
        return;
    }
    if ((m->n & (m->n - 1)) == 0) m->spans = mem_resize(m->spans, m->n ? 2 * (size_t)m->n : 1, sizeof(*m->spans));
    m->spans[m->n++] = (struct head_span){ rank, local, head, 1, owned };
}

static enum status add_rank(struct head_map *m, uint32_t rank, const struct held *held, bool *taken, struct error *err)
{
    const uint32_t n = held_n(held);
    if (held->n_heads != m->n_heads)
        return error_set(err, ERR_INVALID, "rank %u has a part of %u heads, others of %u", rank, held->n_heads,
                         m->n_heads);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t head = held_head(held, i);
        if (head >= m->n_heads)
            return error_set(err, ERR_INVALID, "rank %u has head %u, there are %u", rank, head, m->n_heads);
        add(m, rank, i, head, !taken[head]);
        taken[head] = true;
    }
    return OK;
}

enum status head_map_make(struct head_map *out, uint32_t rank0, uint32_t n_ranks, const struct held *const held[],
                          struct error *err)
{
    enum status st = OK;
    *out = (struct head_map){ .n_heads = held[0]->n_heads };
    bool *taken = mem_array(out->n_heads, sizeof(*taken));
    for (uint32_t r = 0; r < n_ranks && st == OK; r++) st = add_rank(out, rank0 + r, held[r], taken, err);
    for (uint32_t h = 0; h < out->n_heads && st == OK; h++)
        if (!taken[h]) st = error_set(err, ERR_INVALID, "no rank has head %u of %u", h, out->n_heads);
    mem_free(taken);
    return st;
}

void head_map_fini(struct head_map *m)
{
    mem_free(m->spans);
    *m = (struct head_map){ 0 };
}
