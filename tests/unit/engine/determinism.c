/* determinism: a request's tokens and logprobs are the same bits whatever runs beside it and however it is computed. */
#include "unit/engine/engine_rig.h"

#include <stdio.h>

#define ROUNDS   25
#define SUBJECTS 4
#define CROWD    12 /* sequences at most, the subjects among them */

static uint64_t state;

/* Below n, from a generator whose seed is the round's. */
static uint32_t draw(uint32_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % n);
}

static struct seq_request request_of(uint32_t i, int32_t tokens[512])
{
    uint32_t n = i < SUBJECTS ? 30 + i * 110 : 1 + draw(300);
    struct seq_request q = { { 1, i, 1 }, ENGINE_GENERATE, tokens, n, n, params(60) };
    /* The crowd's prompts begin or end like the subjects': cached prefixes are found. */
    for (uint32_t k = 0; k < n; k++) tokens[k] = (int32_t)((k * 11 + i % SUBJECTS * 37 + k * k) % 160);
    q.sampling.n_logprobs = 4;
    if (i % 2) {
        q.sampling.temperature = 0.9f;
        q.sampling.top_p = 0.95f;
        q.sampling.seed = i;
    }
    if (i == 2) q.sampling.n_prompt_logprobs = 2;
    return q;
}

static struct rig_options options_of_round(uint32_t round)
{
    static const char *const LEVELS[] = { "ref", "avx2", "avx512", "vnni", "auto" };
    struct rig_options o = rig_defaults();
    o.max_seqs = 1 + draw(CROWD);
    o.chunk = 64 * (1 + draw(4));
    o.batch = o.max_seqs + 64 + draw(300);
    o.threads = 1 + draw(3);
    o.n_blocks = draw(3) ? 8 + draw(10) : 256;
    o.swap_blocks = draw(3) * draw(10);
    o.max_gap_us = draw(2);
    o.prefix_cache = draw(3) > 0;
    o.tier_blocks = draw(3) * 10;
    o.tier_disk_blocks = o.tier_blocks == 10 ? 9 + draw(40) : 0;
    o.isa = LEVELS[round % 5];
    if (round % 2) { /* of two layers and four heads */
        o.tp = 1 + round / 2 % 4;
        o.pp = 1 + round / 8 % 2;
    }
    return o;
}

static bool has_level(const char *isa)
{
    struct backend_limits lim = {
        .max_rows = 1, .max_context = 64, .max_cols = 64, .max_heads = 1, .max_head_dim = 64
    };
    struct backend *b;
    struct error err;
    if (backend_open(&b, "cpu", &(struct backend_options){ .n_threads = 1, .isa = isa, .limits = lim }, &err) != OK)
        return false;
    backend_close(b);
    return true;
}

/* The subjects somewhere in a crowd, in some order, with some priorities; some of the crowd leave early. */
static void run_crowd(struct rig *r, uint32_t n)
{
    uint32_t order[CROWD];
    for (uint32_t i = 0; i < n; i++) order[i] = i;
    for (uint32_t i = n - 1; i > 0; i--) {
        uint32_t k = draw(i + 1), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    for (uint32_t i = 0; i < n; i++) {
        int32_t tokens[512];
        struct seq_request q = request_of(order[i], tokens);
        q.priority = (int32_t)draw(3) - 1;
        cr_assert_eq(engine_submit(r->engine, &q), OK);
        if (draw(4) == 0) WAIT(r, r->heard[order[i]].n_out > 0 || r->heard[order[i]].n_done > 0);
    }
    for (uint32_t i = SUBJECTS; i < n; i++)
        if (draw(2)) cr_assert_eq(engine_cancel(r->engine, &(struct seq_key){ 1, i, 1 }), OK);
    for (uint32_t i = 0; i < n; i++) WAIT(r, r->heard[i].n_done == 1);
}

/* The subjects once more, heard under other keys: what they share with before lies in the pool, the tier, or nowhere.
 */
static void run_again(struct rig *r)
{
    for (uint32_t i = 0; i < SUBJECTS; i++) {
        int32_t tokens[512];
        struct seq_request q = request_of(i, tokens);
        q.key.lo = CROWD + i;
        cr_assert_eq(engine_submit(r->engine, &q), OK);
    }
    for (uint32_t i = 0; i < SUBJECTS; i++) WAIT(r, r->heard[CROWD + i].n_done == 1);
}

static void expect_same(const struct heard *want, const struct heard *got, uint32_t i, const char *how)
{
    cr_assert_eq(got->n_out, 60, "%s: sequence %u gave %u tokens", how, i, got->n_out);
    cr_assert_eq(memcmp(want->out, got->out, 60 * sizeof(*want->out)), 0, "%s: tokens of sequence %u", how, i);
    cr_assert_eq(memcmp(want->lp, got->lp, 60 * sizeof(*want->lp)), 0, "%s: logprobs of sequence %u", how, i);
    cr_assert_eq(memcmp(&want->prompt_lp_sum, &got->prompt_lp_sum, sizeof(double)), 0, "%s: prompt logprobs of %u", how,
                 i);
}

Test(determinism, nothing_that_runs_beside_a_request_or_under_it_changes_a_bit)
{
    struct heard want[SUBJECTS];
    struct engine_load load;
    uint64_t swaps = 0, recomputes = 0, hits = 0, from_tier = 0, from_disk = 0;
    for (uint32_t i = 0; i < SUBJECTS; i++) { /* alone, by the definition */
        struct rig_options o = rig_defaults();
        int32_t tokens[512];
        struct seq_request q = request_of(i, tokens);
        o.isa = "ref";
        struct rig *r = rig_of(o);
        cr_assert_eq(engine_submit(r->engine, &q), OK);
        WAIT(r, r->heard[i].n_done == 1);
        want[i] = r->heard[i];
        rig_free(r);
    }
    for (uint32_t round = 0; round < ROUNDS; round++) {
        state = round;
        char how[200];
        struct rig_options o = options_of_round(round);
        uint32_t n = SUBJECTS + draw(CROWD - SUBJECTS + 1);
        snprintf(how, sizeof(how),
                 "round %u: %u sequences, %u at once, batch %u, chunk %u, %u threads, %u+%u blocks, prefix cache %d, "
                 "tier of %u+%u, %s, %u x %u ranks",
                 round, n, o.max_seqs, o.batch, o.chunk, o.threads, o.n_blocks, o.swap_blocks, o.prefix_cache,
                 o.tier_blocks, o.tier_disk_blocks, o.isa, o.tp, o.pp);
        if (!has_level(o.isa)) continue;
        struct rig *r = rig_of(o);
        run_crowd(r, n);
        run_again(r);
        for (uint32_t i = 0; i < SUBJECTS; i++) expect_same(&want[i], &r->heard[i], i, how);
        for (uint32_t i = 0; i < SUBJECTS; i++) expect_same(&want[i], &r->heard[CROWD + i], i, how);
        expect_idle(r);
        engine_load(r->engine, &load);
        swaps += load.preemptions[PREEMPT_SWAP];
        recomputes += load.preemptions[PREEMPT_RECOMPUTE];
        hits += load.prefix_hits;
        from_tier += load.tier.hits[KV_TIER_RAM];
        from_disk += load.tier.hits[KV_TIER_DISK];
        rig_free(r);
    }
    cr_assert(swaps > 0 && recomputes > 0 && hits > 0, "%llu swaps, %llu recomputations, %llu cached tokens",
              (unsigned long long)swaps, (unsigned long long)recomputes, (unsigned long long)hits);
    cr_assert(from_tier > 0 && from_disk > 0, "%llu blocks from the tier in RAM, %llu from its disk",
              (unsigned long long)from_tier, (unsigned long long)from_disk);
}
