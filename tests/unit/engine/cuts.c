/* Recurrent families, cut at any token: what a prefill node computes and a decode node goes on with is the stream of
 * one engine, bit for bit, though both find prefixes and snapshots of shorter prompts. */
#include "store/state_store.h"
#include "unit/engine/engine_rig.h"

#define N_OUT   12
#define LONGEST 200 /* of a context of 256: three blocks and a part */

static void submit(struct rig *r, uint32_t i, enum engine_mode mode, uint32_t n)
{
    int32_t tokens[LONGEST];
    struct seq_request q = { .key = { 1, i, 1 }, .mode = mode, .tokens = tokens, .n_tokens = n, .n_prompt = n };
    for (int32_t k = 0; k < LONGEST; k++) tokens[k] = (k * 7 + k * k) % 160;
    q.sampling = params(N_OUT);
    q.sampling.temperature = 1.0f;
    q.sampling.n_logprobs = 0;
    q.sampling.ignore_eos = true;
    cr_assert_eq(engine_submit(r->engine, &q), OK);
}

/* As a hand-off does it: the blocks behind the hits, and the state. */
static void carry(struct rig *from, struct rig *to, uint32_t i)
{
    const struct kv_store *a = engine_kv(from->engine), *b = engine_kv(to->engine);
    const struct heard *f = &from->heard[i], *t = &to->heard[i];
    const size_t block = kv_store_block_bytes(a), state = kv_store_state_bytes(a);
    uint8_t *bytes = mem_alloc(block + state);
    for (uint32_t k = t->n_hits / 64; k < (f->kv_t1 + 63) / 64; k++) {
        cr_assert_eq(kv_store_read_block(a, f->blocks[k], bytes), OK);
        cr_assert_eq(kv_store_write_block(b, t->blocks[k], bytes), OK);
    }
    cr_assert_eq(kv_store_read_state(a, f->last_state, 0, state, bytes), OK);
    cr_assert_eq(kv_store_write_state(b, t->slot, 0, state, bytes), OK);
    mem_free(bytes);
}

static void expect_cut_like_uncut(struct rig *alone, struct rig *p, struct rig *d, uint32_t n)
{
    const struct seq_key key = { 1, n, 1 };
    submit(alone, n, ENGINE_GENERATE, n);
    submit(d, n, ENGINE_RESERVE, n);
    submit(p, n, ENGINE_PREFILL_ONLY, n);
    WAIT(d, d->heard[n].n_reserved == 1);
    WAIT(p, p->heard[n].n_out == 1);
    carry(p, d, n);
    cr_assert_eq(engine_release(p->engine, &key), OK);
    cr_assert_eq(engine_start_decode(d->engine, &key, p->heard[n].out[0]), OK);
    WAIT(d, d->heard[n].n_done == 1);
    WAIT(alone, alone->heard[n].n_done == 1);
    cr_assert_eq(p->heard[n].out[0], alone->heard[n].out[0], "cut at %u", n);
    cr_assert_eq(memcmp(d->heard[n].out, alone->heard[n].out + 1, (N_OUT - 1) * sizeof(int32_t)), 0, "cut at %u", n);
    cr_assert_eq(memcmp(d->heard[n].lp, alone->heard[n].lp + 1, (N_OUT - 1) * sizeof(float)), 0, "cut at %u", n);
}

Test(cuts, recurrent_families_cut_at_any_token_go_on_as_uncut)
{
    static const char *const files[] = { "qwen3next.q", "qwen35.f16", "qwen35.q",
                                         "qwen35moe.q", "mamba2.f16", "mamba2.q" };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        char path[256];
        uint32_t n_cached = 0;
        snprintf(path, sizeof(path), TEST_DATA "/golden/families/%s.gguf", files[i]);
        struct rig_options o = rig_defaults();
        o.path = path;
        o.context = 256;
        struct rig *alone = rig_of(o), *p, *d;
        o.prefix_cache = true;
        o.snapshots = 16;
        p = rig_of(o);
        d = rig_of(o);
        for (uint32_t n = 1; n < LONGEST; n++) {
            expect_cut_like_uncut(alone, p, d, n);
            n_cached += p->heard[n].cached;
        }
        cr_assert_gt(n_cached, 0);
        expect_idle(p);
        expect_idle(d);
        rig_free(alone);
        rig_free(p);
        rig_free(d);
    }
}
