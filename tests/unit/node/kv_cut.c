/* kv_cut: ranges in frames: every cell once, none larger than it may be, and as few as that allows. */
#include "node/kv_cut.h"

#include "node/kv_told.h"

#include <criterion/criterion.h>
#include <string.h>

static struct cache_geometry geometry(uint32_t n_heads, uint32_t head_dim)
{
    struct cache_geometry g = { .n_layers = 0 };
    cache_geometry_set_uniform(&g, 5,
                               &(struct cache_group){ .kind = BATON__KV__CACHE_KIND__KV,
                                                      .codec = BATON__KV__CODEC__INT8,
                                                      .n_heads = n_heads,
                                                      .head_dim = head_dim,
                                                      .block_tokens = 64 });
    return g;
}

/* Walks all of `r`: frames, each cell once; the most layers and heads of one frame. */
static uint32_t walk(const struct cache_geometry *g, struct kv_wire_range r, uint64_t max_bytes, uint32_t *layers,
                     uint32_t *heads)
{
    static uint8_t seen[8][8][512];
    uint32_t n = 0;
    memset(seen, 0, sizeof(seen));
    *layers = *heads = 0;
    for (struct kv_cut_walk w = kv_cut_walk_of(&r); kv_cut_walk_has_next(&w); n++) {
        struct kv_wire_range f = kv_cut_walk_peek(&w, g, max_bytes);
        cr_assert(f.l0 < f.l1 && f.h0 < f.h1 && f.t0 < f.t1 && f.t1 - f.t0 <= 64 && f.group == r.group);
        cr_assert(f.l1 <= r.l1 && f.h1 <= r.h1 && f.t1 <= r.t1);
        for (uint32_t l = f.l0; l < f.l1; l++)
            for (uint32_t h = f.h0; h < f.h1; h++)
                for (uint32_t t = f.t0; t < f.t1; t++) cr_assert_eq(seen[l][h][t]++, 0, "twice: %u %u %u", l, h, t);
        if (f.l1 - f.l0 > *layers) *layers = f.l1 - f.l0;
        if (f.h1 - f.h0 > *heads) *heads = f.h1 - f.h0;
        uint64_t bytes = cache_group_head_bytes(&g->groups[0], f.t1 - f.t0) * (f.l1 - f.l0) * (f.h1 - f.h0);
        cr_assert(bytes <= max_bytes || (f.l1 - f.l0 == 1 && f.h1 - f.h0 == 1));
        kv_cut_walk_pass(&w, &f);
    }
    for (uint32_t l = r.l0; l < r.l1; l++)
        for (uint32_t h = r.h0; h < r.h1; h++)
            for (uint32_t t = r.t0; t < r.t1; t++) cr_assert_eq(seen[l][h][t], 1, "never: %u %u %u", l, h, t);
    return n;
}

Test(kv_cut, frames_are_as_large_as_they_may_be)
{
    const struct cache_geometry g = geometry(4, 16);
    const uint64_t head = cache_group_head_bytes(&g.groups[0], 64);
    const struct kv_wire_range whole = { 1, 4, 0, 4, 64, 200, 0 }; /* 3 layers, 4 heads, 64 + 64 + 8 tokens */
    const struct {
        uint64_t max_bytes;
        uint32_t frames, layers, heads;
    } rows[] = {
        { 12 * head, 3, 3, 4 }, { 12 * head - 1, 5, 3, 4 }, /* the last block is small: it is one frame */
        { 8 * head, 5, 3, 4 },  { 8 * head - 1, 7, 3, 4 },  { 4 * head, 7, 3, 4 }, { 4 * head - 1, 13, 3, 4 },
        { 2 * head, 13, 3, 4 }, { 2 * head - 1, 25, 3, 4 }, { head, 26, 2, 4 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint32_t layers, heads, n = walk(&g, whole, rows[i].max_bytes, &layers, &heads);
        cr_assert(n == rows[i].frames && layers == rows[i].layers && heads == rows[i].heads, "%zu: %u frames, %u, %u",
                  i, n, layers, heads);
    }
    uint32_t layers, heads;
    cr_assert_eq(walk(&g, whole, 1, &layers, &heads), 3 * 3 * 4, "one head at least");
    cr_assert_eq(walk(&g, (struct kv_wire_range){ 0, 5, 1, 3, 0, 64, 0 }, 100 * head, &layers, &heads), 1);
    cr_assert_eq(walk(&g, (struct kv_wire_range){ 0, 5, 1, 3, 0, 65, 0 }, 100 * head, &layers, &heads), 2);
    cr_assert_eq(walk(&g, (struct kv_wire_range){ 2, 2, 0, 4, 0, 64, 0 }, 100 * head, &layers, &heads), 0);
    cr_assert_eq(walk(&g, (struct kv_wire_range){ 0, 5, 2, 2, 0, 64, 0 }, 100 * head, &layers, &heads), 0);
    cr_assert_eq(walk(&g, (struct kv_wire_range){ 0, 5, 0, 4, 64, 64, 0 }, 100 * head, &layers, &heads), 0);
}

Test(kv_cut, states_go_head_by_head_where_they_are_large)
{
    struct cache_geometry g = geometry(4, 16);
    g.groups[0] = (struct cache_group){ .kind = BATON__KV__CACHE_KIND__SNAPSHOT,
                                        .codec = BATON__KV__CODEC__F32,
                                        .n_layers = 5,
                                        .n_heads = 5,
                                        .head_dim = 100 };
    static const struct {
        uint64_t max_bytes;
        uint32_t frames, heads;
    } rows[] = { { 2000, 2, 5 }, { 1999, 4, 4 }, { 1200, 4, 3 }, { 1199, 6, 2 }, { 400, 10, 1 }, { 1, 10, 1 } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint32_t n = 0, most = 0, next = 0, layer = 1;
        for (struct kv_state_walk w = kv_state_walk_of(0, 1, 3); kv_state_walk_has_next(&w); n++) {
            struct kv_wire_state s = kv_state_walk_peek(&w, &g, rows[i].max_bytes);
            cr_assert(s.layer == layer && s.h0 == next && s.n_bytes == (s.h1 - s.h0) * 400 && s.group == 0);
            if (s.h1 - s.h0 > most) most = s.h1 - s.h0;
            next = s.h1 == 5 ? 0 : s.h1;
            layer += s.h1 == 5;
            kv_state_walk_pass(&w, &g, &s);
        }
        cr_assert(n == rows[i].frames && most == rows[i].heads && layer == 3, "%zu: %u, %u", i, n, most);
    }
}

Test(kv_cut, senders_are_known_by_who_told_of_them)
{
    struct kv_told *t = kv_told_create();
    uint64_t many[KV_TOLD_MAX + 1];
    for (uint32_t i = 0; i <= KV_TOLD_MAX; i++) many[i] = 1000 + i;
    kv_told_set(t, 1, (const uint64_t[]){ 11, 12 }, 2);
    kv_told_set(t, 2, (const uint64_t[]){ 12, 13 }, 2);
    cr_assert(kv_told_has(t, 11) && kv_told_has(t, 12) && kv_told_has(t, 13) && !kv_told_has(t, 14));
    kv_told_set(t, 1, (const uint64_t[]){ 14 }, 1);
    cr_assert(!kv_told_has(t, 11) && kv_told_has(t, 12) && kv_told_has(t, 13) && kv_told_has(t, 14));
    kv_told_set(t, 2, NULL, 0);
    cr_assert(!kv_told_has(t, 12) && kv_told_has(t, 14));
    kv_told_set(t, 2, many, KV_TOLD_MAX + 1);
    cr_assert(kv_told_has(t, 14) && kv_told_has(t, 1000) && kv_told_has(t, 1000 + KV_TOLD_MAX - 2));
    cr_assert_not(kv_told_has(t, 1000 + KV_TOLD_MAX - 1), "there is no room for more");
    kv_told_destroy(t);
    kv_told_destroy(NULL);
}
