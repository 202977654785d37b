/* cache_plan: memory is divided to the last block, and what does not fit is refused with what would do. */
#include "node/cache_plan.h"

#include <criterion/criterion.h>
#include <string.h>

#define MIB (1ull << 20)

/* Three recurrent layers to one, as in Qwen3.6-35B-A3B; a block takes what 60 of them ask for, and a bit. */
static struct cache_need hybrid(void)
{
    return (struct cache_need){ .kv_memory = 512 * MIB,
                                .snapshot_bytes = 100 * MIB,
                                .block_bytes = 52416,
                                .state_bytes = 3 * MIB,
                                .shared_bytes = 52480,
                                .slot_run = 60,
                                .max_seqs = 32,
                                .max_context = 32768 };
}

static struct cache_need states_alone(void)
{
    return (struct cache_need){
        .kv_memory = 512 * MIB, .snapshot_bytes = 100 * MIB, .state_bytes = 3 * MIB, .max_seqs = 32, .max_context = 4096
    };
}

Test(cache_plan, gives_a_model_of_attention_blocks_alone)
{
    const struct cache_need need = { 512 * MIB, 64, 1000, 0, 32, 8192 };
    struct cache_plan plan;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert(plan.n_blocks == 512 * MIB / 1000 && plan.n_slots == 0);
}

Test(cache_plan, gives_a_hybrid_one_memory_for_blocks_states_and_snapshots)
{
    struct cache_need need = hybrid();
    struct cache_plan plan;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert(plan.n_blocks == 612 * MIB / 52480 / 60 * 60 && plan.n_slots == 0 && plan.n_window_blocks == 0);
    cr_assert_eq(plan.n_snapshots, 33);
    cr_assert_eq(plan.n_blocks_each, plan.n_blocks - 60);
    need.snapshot_bytes = 0;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert(plan.n_blocks == 512 * MIB / 52480 / 60 * 60 && plan.n_snapshots == 0);
    need.max_seqs = 4096;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK, "no more than fits runs at once, whatever max_seqs is");
}

Test(cache_plan, gives_a_model_of_states_alone_slots_for_all_sequences_and_its_snapshots)
{
    struct cache_need need = states_alone();
    struct cache_plan plan;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_slots, 32 + 33);
    need.snapshot_bytes = 0;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_slots, 32);
    need.state_bytes = 1024;
    need.snapshot_bytes = 512 * MIB;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_slots, 32 + 8192, "no more of them, however small");
    need = states_alone();
    need.snapshot_bytes = 3 * MIB;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_slots, 33);
}

Test(cache_plan, gives_a_model_of_states_alone_ids_for_its_tokens)
{
    struct cache_need need = states_alone();
    struct cache_plan plan;
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
Test(cache_plan, gives_layers_with_a_window_and_the_others_one_memory)
{
    const size_t layer = 16 * 64 * 2 * 132;
    struct cache_need need = { .kv_memory = 2048 * MIB,
                               .snapshot_bytes = 64 * MIB,
                               .block_bytes = 62 * layer,
                               .window_bytes = 52 * layer,
                               .window_blocks = (1024 + 256) / 64 + 2,
                               .shared_bytes = 52 * layer / 5 + 52,
                               .window_run = 5,
                               .max_seqs = 32,
                               .max_context = 131072 };
    struct cache_plan plan;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_blocks, 2048 * MIB / need.shared_bytes / 5 * 5, "snapshots are of no use to it");
    cr_assert(plan.n_window_blocks == plan.n_blocks / 5 && plan.n_snapshots == 0 && plan.n_slots == 0);
    cr_assert_eq(plan.n_blocks_each, plan.n_blocks - 22 * 5);
    need.kv_memory = 110 * need.shared_bytes;
    struct error err = { OK, "" };
    cr_assert_eq(cache_plan(&plan, &need, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "; a sequence of one token takes "), "%s", err.text);
    need.kv_memory = 115 * need.shared_bytes;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_blocks_each, 5);
}

Test(cache_plan, gives_layers_that_all_have_a_window_the_memory_alone)
{
    const struct cache_need need = { .kv_memory = 512 * MIB,
                                     .block_bytes = 1000,
                                     .window_bytes = 1000,
                                     .window_blocks = 22,
                                     .max_seqs = 8192,
                                     .max_context = 131072 };
    struct cache_plan plan;
    cr_assert_eq(cache_plan(&plan, &need, NULL), OK);
    cr_assert_eq(plan.n_window_blocks, 512 * MIB / 1000);
    cr_assert_eq(plan.n_blocks, 1 << 20, "ids alone");
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
    need.kv_memory = 60 * 52480;
    need.snapshot_bytes = 0;
    expect_refused(&need, ERR_INVALID,
                   "kv_memory is 3148800 bytes; a sequence of one token takes 3201280 for its blocks, windows and "
                   "recurrent states");
    need = states_alone();
    need.kv_memory = 96 * MIB - 1;
    expect_refused(
        &need, ERR_INVALID,
        "kv_memory is 100663295 bytes; the recurrent states of 32 sequences (max_seqs) take 3145728 each, and "
        "a KV block 0: at least 100663296 are needed");
    need = (struct cache_need){ 999, 0, 1000, 0, 32, 8192 };
    expect_refused(&need, ERR_INVALID, "kv_memory of 999 bytes holds 0 blocks of 1000 bytes");
    need.state_bytes = SIZE_MAX / 2;
    expect_refused(&need, ERR_TOO_LARGE, "recurrent states of 32 sequences");
}
