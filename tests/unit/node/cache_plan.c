/* cache_plan: memory is divided to the last block, and what does not fit is refused with what would do. */
#include "node/cache_plan.h"

#include <criterion/criterion.h>
#include <string.h>

#define MIB (1ull << 20)

static struct cache_need hybrid(void)
{
    return (struct cache_need){ .kv_memory = 512 * MIB,
                                .snapshot_bytes = 100 * MIB,
                                .block_bytes = 665600,
                                .state_bytes = 3 * MIB,
                                .max_seqs = 32,
                                .max_context = 32768 };
}

Test(cache_plan, gives_a_model_of_attention_blocks_alone)
{
    const struct cache_need need = { 512 * MIB, 64, 1000, 0, 32, 8192 };
    struct cache_plan plan;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert(plan.n_blocks == 512 * MIB / 1000 && plan.n_slots == 0);
}

Test(cache_plan, gives_a_hybrid_slots_for_all_sequences_and_its_snapshots)
{
    struct cache_need need = hybrid();
    struct cache_plan plan;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_slots, 32 + 33);
    cr_assert_eq(plan.n_blocks, (512 - 96) * MIB / 665600);
    need.snapshot_bytes = 0;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_slots, 32);
    need.state_bytes = 1024;
    need.snapshot_bytes = 512 * MIB;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_slots, 32 + 8192, "no more of them, however small");
    need = hybrid();
    need.snapshot_bytes = 3 * MIB;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_slots, 33);
}

/* Three layers with states to one with KV, as Qwen3.6-35B-A3B has them: when sequences have filled the pool, at least
 * 90 % of it holds tokens and states, whatever their length. */
Test(cache_plan, a_hybrids_pool_is_used_when_it_is_full)
{
    static const uint32_t lengths[] = { 500, 2000, 8000, 32000 };
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct cache_need need = hybrid();
        struct cache_plan plan;
        const uint32_t per_seq = (lengths[i] + 63) / 64;
        need.state_bytes = 63 * MIB;
        need.max_seqs = 16;
        need.kv_memory = 16 * (need.state_bytes + per_seq * need.block_bytes);
        cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
        const uint32_t n_seqs = plan.n_blocks / per_seq < 16 ? plan.n_blocks / per_seq : 16;
        const double used = n_seqs * ((double)need.state_bytes + lengths[i] / 64.0 * (double)need.block_bytes);
        cr_assert_geq(used / (double)need.kv_memory, 0.9, "%u tokens: %.3f", lengths[i], used / (double)need.kv_memory);
    }
}

Test(cache_plan, gives_a_model_of_states_alone_ids_for_its_tokens)
{
    struct cache_need need = hybrid();
    struct cache_plan plan;
    need.block_bytes = 0;
    need.max_context = 4096;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_blocks, 2 * 65 * 32);
    need.max_context = 1 << 19;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_blocks, 2 * 8193 * 32);
    need.max_context = 1 << 24;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_blocks, 1 << 20);
}

/* As gemma-3-27b has them: 52 of 62 layers look back over 1024 tokens. */
static struct cache_need windowed(uint32_t max_context)
{
    const size_t layer = 16 * 64 * 2 * 132;
    return (struct cache_need){ .kv_memory = 2048 * MIB,
                                .block_bytes = 62 * layer,
                                .window_bytes = 52 * layer,
                                .window_blocks = (1024 + 256) / 64 + 2,
                                .max_seqs = 32,
                                .max_context = max_context };
}

Test(cache_plan, layers_with_a_window_get_the_blocks_that_long_sequences_leave_them)
{
    const struct cache_need need = windowed(131072), shorter = windowed(4096), small = windowed(1024);
    struct cache_plan plan;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert(plan.n_blocks / plan.n_window_blocks == 4 && plan.n_window_blocks > 22);
    const uint64_t used = (uint64_t)plan.n_window_blocks * need.window_bytes +
                          plan.n_blocks * (uint64_t)(need.block_bytes - need.window_bytes);
    cr_assert(used <= need.kv_memory && used > need.kv_memory - need.block_bytes);
    cr_assert_gt(plan.n_blocks, 2 * (need.kv_memory / need.block_bytes), "more tokens than without windows");
    cr_assert_eq(cache_plan(&plan, &shorter, NULL), OK);
    cr_assert(plan.n_blocks > plan.n_window_blocks && plan.n_blocks < 2 * plan.n_window_blocks);
    cr_assert_eq(cache_plan(&plan, &small, NULL), OK);
    cr_assert(plan.n_blocks == plan.n_window_blocks && plan.n_blocks == 2048 * MIB / need.block_bytes);
    struct cache_need tight = need;
    tight.kv_memory = 40 * MIB; /* two blocks: not a window's */
    cr_assert_eq(cache_plan(&plan, &tight, NULL), OK);
    cr_assert(plan.n_blocks >= 2 && plan.n_window_blocks == 2);
    struct cache_need all = need;
    all.window_bytes = all.block_bytes; /* every layer has one */
    cr_assert_eq(cache_plan(&plan, &all, NULL), OK);
    cr_assert(plan.n_window_blocks == 2048 * MIB / need.block_bytes && plan.n_blocks == 2 * 2049 * 32);
}

static void expect_refused(const struct cache_need *need, enum status st, const char *says)
{
    struct cache_plan plan;
    struct error err = { OK, "" };
    cr_assert_eq(cache_plan(&plan, need, &err), st);
    cr_assert(strstr(err.text, says), "%s", err.text);
}

Test(cache_plan, refuses_what_has_no_room_with_the_numbers)
{
    struct cache_need need = hybrid();
    need.snapshot_bytes = 3 * MIB - 1;
    expect_refused(&need, ERR_INVALID,
                   "kv.snapshot_bytes: 3145727 bytes hold no recurrent state of 3145728 bytes; at least those are "
                   "needed, or 0");
    need = hybrid();
    need.kv_memory = 96 * MIB + 665599;
    expect_refused(
        &need, ERR_INVALID,
        "kv_memory is 101328895 bytes; the recurrent states of 32 sequences (max_seqs) take 3145728 each, and "
        "a KV block 665600: at least 101328896 are needed");
    need.kv_memory++;
    struct cache_plan plan;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_blocks, 1);
    need = (struct cache_need){ 999, 0, 1000, 0, 32, 8192 };
    expect_refused(&need, ERR_INVALID, "kv_memory of 999 bytes holds 0 blocks of 1000 bytes");
    need.state_bytes = SIZE_MAX / 2;
    expect_refused(&need, ERR_TOO_LARGE, "recurrent states of 32 sequences");
}
