/* seq.h - one sequence on a node: its tokens, its blocks, and where it stands.
 *
 *   WAITING --admit--> RESERVED --start_prefill--> PREFILL --last chunk--> DECODE
 *      |                  '--------start_decode---------------------------^
 *      '-----admit-------------------------------> PREFILL --last chunk--> HELD (prefill-only)
 *   WAITING --admit--> FETCHING (its prefix is read from the tier's disk) --admit--> RESERVED or PREFILL
 *   FETCHING, RESERVED --compute--> WAITING (no snapshot of its state is there to go on from) --admit--> PREFILL
 *   PREFILL, DECODE --preempt--> WAITING --admit--> PREFILL (recomputes), or the state before (its KV was swapped out)
 *   every state --seq_set_state--> DONE
 *
 * seq_set_state() is the only writer of the state; it keeps the states of the sequence's blocks in step. */
#ifndef ENGINE_SEQ_H
#define ENGINE_SEQ_H
#include "engine/engine.h"
#include "kv/block_table.h"
#include "kv/prefix_cache.h"
#include "kv/state_pool.h"
#include "kv/window_table.h"
#include "store/swap.h"

enum seq_state {
    SEQ_WAITING,
    SEQ_FETCHING,
    SEQ_RESERVED,
    SEQ_PREFILL,
    SEQ_DECODE,
    SEQ_HELD,
    SEQ_DONE,
    SEQ_STATE_COUNT
};

struct prefix_chain {                 /* seq_prefix.c */
    struct prefix_cache *cache;       /* the engine's; NULL: off */
    struct prefix_hash root, *hashes; /* of the full blocks; owned, room for all */
    uint32_t n_hashes, n_published;
    struct prefix_hash tail; /* of what is submitted, from the end of the last full block before its last token on */
    bool has_tail;           /* hashed already */
};

#define SEQ_NO_BLOCK UINT32_MAX

struct seq {
    struct seq_key key;
    enum engine_mode mode;
    enum seq_state state;
    int32_t priority;                /* lower is earlier */
    struct sampling_params sampling; /* with biases of its own */
    int32_t *tokens;                 /* owned, room for n_prompt + max_tokens */
    uint32_t n_tokens;               /* known: prompt, then output */
    uint32_t n_prompt;
    uint32_t n_input;    /* as submitted: what a hand-off covers */
    uint32_t n_computed; /* tokens whose KV is in the blocks */
    uint32_t n_drafts;   /* of the known tokens, the last so many are guesses that the next step verifies */
    uint32_t n_prompt_logprobs_sent;
    bool wants_hidden;
    uint32_t n_hidden_sent;
    engine_mask_fn mask; /* or NULL */
    void *mask_ctx;
    bool paused;  /* takes no part in this round: engine_pause() */
    bool started; /* past its reservation: when it waits again, it waits to compute */
    struct block_table table;
    struct prefix_chain prefix;
    struct windows *windows;      /* the engine's; NULL: no layer is windowed */
    struct window_table window;   /* of its blocks there */
    uint32_t n_window_published;  /* blocks of it that are known */
    struct state_pool *states;    /* the engine's; NULL: the model has no recurrent layers */
    state_slot_id slot;           /* its live one, while it has blocks; STATE_SLOT_NONE */
    state_slot_id saved;          /* a copy of it from before the guesses of a step, or STATE_SLOT_NONE; */
    uint32_t n_saved;             /* what it has seen */
    struct seq_filling {          /* from the tier, seq_tier.c: */
        kv_block_id window_block; /* of its windows, behind those in the table; SEQ_NO_BLOCK: none */
        uint32_t n_pieces;        /* of it, or of the state */
        uint32_t state_blocks;    /* whose state is whole in the slot; 0: none's */
    } filling;
    bool skips_tier;         /* what is in the tier leads nowhere from which it could go on */
    bool looks_again;        /* what it found at first is of no use */
    uint32_t n_cached;       /* tokens whose KV was found when it was first admitted */
    struct swap_run swapped; /* preempted: KV of its n_computed tokens, in the engine's arena, */
    enum seq_state resume;   /* and the state it goes on in */
    uint64_t prefill_us, decode_us;
    struct seq *next_in_bucket;
};

/* A copy of what the request holds, in WAITING.  ERR_NO_MEMORY. */
enum status seq_create(struct seq **out, const struct seq_request *r) MUST_CHECK;
void seq_destroy(struct seq *s); /* its blocks must be back; NULL is fine */
void seq_set_state(struct seq *s, struct kv_pool *pool, enum seq_state to);

/* Forgets the last n known tokens, which are output, and their KV: blocks that neither hold what is left nor take its
 * next token are given back.  None of these tokens may be published. */
void seq_cut(struct seq *s, struct kv_pool *pool, uint32_t n);

/* Gives the copy of its state back, if there is one. */
void seq_drop_saved(struct seq *s);

/* Blocks it asks for when it is admitted. */
uint32_t seq_blocks_to_admit(const struct seq *s);
/* Where its windows begin now: at what it has computed, or what is received for it. */
uint32_t seq_window_first(const struct seq *s);
/* The most it can ever hold. */
uint32_t seq_blocks_max(const struct seq_request *r);
static inline uint32_t seq_n_output(const struct seq *s)
{
    return s->n_tokens - s->n_prompt;
}
/* Known for sure: what is published and told of. */
static inline uint32_t seq_n_verified(const struct seq *s)
{
    return s->n_tokens - s->n_drafts;
}
/* Others compute its prompt, as far as anybody knows. */
static inline bool seq_is_reservation(const struct seq *s)
{
    return s->mode == ENGINE_RESERVE && !s->started;
}
static inline bool seq_is_running(const struct seq *s)
{
    return s->state == SEQ_PREFILL || s->state == SEQ_DECODE;
}
/* In steps: whoever asked for it takes in what is said of it. */
static inline bool seq_can_run(const struct seq *s)
{
    return seq_is_running(s) && !s->paused;
}

/* All sequences of an engine: found by key, walked in order of rank: priority, then arrival.  Bounded. */
struct seq_set {
    struct seq **order; /* [n], first in rank first */
    uint32_t n, cap;
    struct seq **buckets;
    uint32_t n_buckets; /* a power of two */
};

void seq_set_init(struct seq_set *set, uint32_t cap);
void seq_set_fini(struct seq_set *set); /* must be empty */
/* ERR_FULL, or ERR_INVALID if the key is there. */
enum status seq_set_add(struct seq_set *set, struct seq *s) MUST_CHECK;
struct seq *seq_set_find(const struct seq_set *set, const struct seq_key *key);
void seq_set_remove(struct seq_set *set, struct seq *s);
/* Gives a sequence a new epoch under which it is found from now on. */
enum status seq_set_rekey(struct seq_set *set, struct seq *s, uint32_t epoch) MUST_CHECK;
#endif
