/* engine: whole requests on the CUDA backend have the tokens and logprobs of the CPU, whatever becomes of their KV. */
#include "unit/engine/engine_runs.h"

#define N 5

/* Long and short prompts, drawn and greedy, in a pool that is too small for all: some are swapped out. */
static void crowd(const char *backend, bool prefix_cache, struct heard *out)
{
    struct rig_options o = rig_defaults();
    o.backend = backend;
    o.isa = "ref";
    o.n_blocks = 8;
    o.swap_blocks = 8;
    o.max_seqs = 8;
    o.batch = 128;
    o.chunk = 64;
    o.prefix_cache = prefix_cache;
    struct rig *r = rig_of(o);
    for (uint32_t i = 0; i < N; i++) {
        struct sampling_params p = i % 2 ? drawn(12 + i) : params(12 + i);
        p.n_logprobs = 0;
        submit_with(r, i, ENGINE_GENERATE, prompt() + 3 * i, i % 2 ? 30 + i : 120 - 9 * i, &p, "");
    }
    for (uint32_t i = 0; i < N; i++) WAIT(r, r->heard[i].n_done == 1);
    expect_idle(r);
    memcpy(out, r->heard, N * sizeof(*out));
    rig_free(r);
}

Test(engine, preempted_and_swapped_streams_have_the_cpus_tokens)
{
    static struct heard want[N], got[N];
    crowd("cpu", false, want);
    crowd("cuda", false, got);
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(got[i].status, OK);
        expect_same_bits(&want[i], &got[i]);
    }
}

/* One after the other: the second and third take the first one's blocks. */
static void alike(const char *backend, struct heard *out)
{
    struct rig_options o = rig_defaults();
    o.backend = backend;
    o.isa = "ref";
    o.max_seqs = 8;
    o.batch = 128;
    o.chunk = 64;
    o.prefix_cache = true;
    struct rig *r = rig_of(o);
    for (uint32_t i = 0; i < 3; i++) {
        struct sampling_params p = drawn(6);
        run_with(r, i, prompt(), 140 + 10 * i, &p, "");
    }
    expect_idle(r);
    memcpy(out, r->heard, 3 * sizeof(*out));
    rig_free(r);
}

Test(engine, cached_prompts_have_the_cpus_tokens)
{
    static struct heard want[3], got[3];
    alike("cpu", want);
    alike("cuda", got);
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(got[i].cached, i ? 128 : 0, "request %u", i);
        expect_same_bits(&want[i], &got[i]);
    }
}
