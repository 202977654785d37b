/* engine.h - sequences on one node: continuous batching, chunked prefill, sampling.  Free of roles and of the wire.
 *
 * The engine owns a thread, the model, the kv pool and all sequences.  Other threads post commands (never blocking)
 * and get events through one callback that runs on the engine's thread and must only enqueue.  A sequence is
 * named by the caller's 128-bit key plus epoch; a command for an unknown key is answered with ENGINE_GONE.
 *
 * A sequence's ways:
 *   prefill node:  submit(PREFILL_ONLY) -> chunks (ENGINE_KV) -> ENGINE_TOKEN 0 -> holds its blocks -> release()
 *   decode node:   submit(RESERVE) -> ENGINE_RESERVED (block ids) -> bytes are stored by others -> start_decode()
 *                  or start_prefill() (local prefill) -> ENGINE_TOKEN ... -> ENGINE_DONE
 *   alone:         submit(GENERATE) -> ENGINE_TOKEN ... -> ENGINE_DONE
 * Tokens that the prefix cache has are not computed again; ENGINE_KV tells of them, too.
 * Every way ends with exactly one ENGINE_DONE (finished, cancelled or failed), after which no block is held. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H
#include "base/error.h"
#include "compute/backend.h"
#include "engine/sampler.h"
#include "job/finish.h"
#include "kv/kv_pool.h"
#include "kv/state_pool.h"
#include "store/kv_tier.h"

#include <stdbool.h>
#include <stdint.h>

struct engine;
struct model;
struct kv_store;

struct seq_key { /* request id (incarnation, counter) */
    uint64_t hi, lo;
    uint32_t epoch;
};

/* Which tokens may follow tokens[n] (compute/pick.h's bitmap), or NULL: all; on the engine's thread, before each token
 * that is drawn.  It stays as it is until that token is told of. */
typedef const uint32_t *(*engine_mask_fn)(void *ctx, const int32_t *tokens, uint32_t n);

enum engine_mode { ENGINE_PREFILL_ONLY, ENGINE_RESERVE, ENGINE_GENERATE };

struct seq_request { /* copied by submit */
    struct seq_key key;
    enum engine_mode mode;
    const int32_t *tokens; /* prompt, then (after a replay) tokens already sent */
    uint32_t n_tokens;
    uint32_t n_prompt; /* original prompt; tokens[n_prompt..] count as output of this request */
    struct sampling_params sampling;
    const char *cache_salt; /* cached KV is shared among requests with the same one; NULL: none */
    int32_t priority;       /* lower is earlier: admitted and computed before, preempted after */
    uint32_t adapter;    /* weights on top of the model's, a part of what KV depends on; 0: none, the only one so far */
    bool wants_hidden;   /* ENGINE_HIDDEN for each token of the input */
    engine_mask_fn mask; /* NULL: all tokens may be drawn */
    void *mask_ctx;
};

enum engine_event_kind {
    ENGINE_RESERVED,
    ENGINE_KV,
    ENGINE_PROMPT_LOGPROBS,
    ENGINE_HIDDEN,
    ENGINE_TOKEN,
    ENGINE_PROGRESS,
    ENGINE_DONE,
    ENGINE_GONE
};

struct engine_event { /* valid during the callback */
    enum engine_event_kind kind;
    struct seq_key key;
    /* RESERVED, KV: the sequence's blocks; ids stay valid until DONE. n_blocks covers n_tokens plus growth. */
    const kv_block_id *blocks;
    uint32_t n_blocks;
    /* The same in windowed layers, from the block on that the prompt's end still looks back to; NULL: there are none.
     */
    const kv_block_id *window_blocks;
    /* KV: layers [layer0, layer1) of tokens [t0, t1) are final once `written` has passed, which is waited for on
     * another thread (mark_wait(), until DONE); in order, from the engine's thread or one that it waits for. PROGRESS:
     * prompt tokens [0, t1) are computed. */
    uint32_t layer0, layer1, t0, t1;
    struct mark written;
    /* Slot of the sequence's recurrent states.  RESERVED: what they are after the prompt is to be stored there.  KV:
     * they are final with it, as t1 is the prompt's end; STATE_SLOT_NONE before, or the model has none. */
    state_slot_id state;
    /* RESERVED: KV of the first so many tokens is in the blocks already, a multiple of 64.  PROGRESS: so many tokens
     * were found in the prefix cache when the sequence began: whole blocks, or all but the last token. */
    uint32_t cached_tokens;
    /* TOKEN: output index, id, logprobs if asked.  PROMPT_LOGPROBS: for prompt position output_idx (>= 1). */
    uint32_t output_idx;
    int32_t token;
    const struct token_logprobs *logprobs; /* NULL if not asked for */
    /* HIDDEN: states of tokens [t0, t1) after the last norm, [t1 - t0][d_model]. */
    const float *hidden;
    /* TOKEN (the last one) and DONE */
    enum finish_reason finish;
    /* DONE with FINISH_FAILED: why.  GONE: ERR_NOT_FOUND, or ERR_STALE: the key lives, but past what was asked. */
    enum status status;
    const char *message;
    uint64_t prefill_us, decode_us; /* DONE: time in steps that this sequence took part in */
};
typedef void (*engine_event_fn)(void *ctx, const struct engine_event *ev);

/* Guesses what follows tokens[n]: at most `max` ids to out[]; returns how many. */
typedef uint32_t (*engine_draft_fn)(void *ctx, const int32_t *tokens, uint32_t n, int32_t *out, uint32_t max);
#define ENGINE_MAX_DRAFTS 15 /* of one sequence in a step */

struct engine_options {
    struct model *model;    /* taken: closed by engine_destroy */
    struct kv_store *kv;    /* taken; states in a memory of their own have max_seqs slots and those of snapshots */
    uint32_t max_snapshots; /* of states in the blocks' memory (struct kv_runs) */
    const int32_t *end_ids; /* tokens that end generation; copied */
    uint32_t n_end_ids;
    uint32_t max_seqs, max_batch_tokens, chunk_tokens, max_context;
    uint32_t kv_event_layers;     /* layers per ENGINE_KV event, 0 = all at once after the last layer of a chunk */
    uint32_t kv_event_min_tokens; /* prompts shorter than this get one KV event per chunk for all layers */
    uint32_t max_commands;        /* bound of the mailbox */
    bool prefix_cache;            /* full blocks stay findable after their sequence */
    const char *cache_secret;     /* seeds their hashes; copied, NULL: none */
    uint64_t max_gap_us;          /* prompts are cut so that running streams wait no longer for a token; 0 = no bound */
    uint64_t swap_bytes;          /* host memory for KV of preempted sequences; what does not fit is recomputed */
    uint64_t tier_bytes;          /* host memory for cached blocks that the pool has no room for; 0: none */
    const char *tier_path;        /* folder for what falls out of it; NULL or "": none */
    uint64_t tier_disk_bytes;     /* of a file there */
    const struct kv_tier_io *tier_io; /* NULL: the system's; tests make it fail */
    /* Asked for decoding sequences before each step, which verifies the guesses: what is drawn is the same, but several
     * tokens may come of one step.  Not for those with masks or penalties.  On the engine's thread; NULL: none. */
    engine_draft_fn draft;
    engine_event_fn on_event;
    void *ctx;
};

/* Starts the thread.  On failure model and kv stay with the caller. */
enum status engine_create(struct engine **out, const struct engine_options *opt, struct error *err) MUST_CHECK;
/* Cancels everything (DONE events run), joins the thread, closes model and kv. */
void engine_destroy(struct engine *e);

/* From any thread; ERR_FULL when the mailbox is full. Validation errors (ERR_INVALID, ERR_CONTEXT_LENGTH: n_tokens
 * + max_tokens beyond max_context is clipped by the coordinator, here refused) come back at once. */
enum status engine_submit(struct engine *e, const struct seq_request *r) MUST_CHECK;
/* RESERVE only: bytes begin to arrive.  Changes the state its blocks are counted in, nothing else. */
enum status engine_receiving(struct engine *e, const struct seq_key *key) MUST_CHECK;
/* RESERVE only: the prompt's KV is stored; continue after first_token, which is output index n_tokens - n_prompt. */
enum status engine_start_decode(struct engine *e, const struct seq_key *key, int32_t first_token) MUST_CHECK;
/* RESERVE only: compute the prompt here. */
enum status engine_start_prefill(struct engine *e, const struct seq_key *key) MUST_CHECK;
/* RESERVE only: same reservation, new epoch (key.epoch is the old one). Nothing of the old epoch is stored any more:
 * the caller has fenced its writers. Answered by ENGINE_RESERVED with the new key. */
enum status engine_rebind(struct engine *e, const struct seq_key *key, uint32_t new_epoch) MUST_CHECK;
/* RESERVE only: gives it up if it still waits for its blocks (ENGINE_DONE, ERR_NO_BLOCKS); otherwise nothing happens.
 */
enum status engine_withdraw(struct engine *e, const struct seq_key *key) MUST_CHECK;
/* PREFILL_ONLY after its token: give the blocks back (ENGINE_DONE, FINISH_STOP). */
enum status engine_release(struct engine *e, const struct seq_key *key) MUST_CHECK;
/* Any state; ENGINE_DONE with FINISH_CANCELLED, or GONE. */
enum status engine_cancel(struct engine *e, const struct seq_key *key) MUST_CHECK;

/* Who asked for sequences (their key.hi) does not take in what is said of them: none of them is admitted or computed
 * while it is paused, and each keeps what it has.  One thread only; takes effect before the step after the next one.
 * Past ENGINE_MAX_PAUSED at once nothing happens. */
#define ENGINE_MAX_PAUSED 32
void engine_pause(struct engine *e, uint64_t hi, bool pause);

enum preempt_kind { PREEMPT_SWAP, PREEMPT_RECOMPUTE, PREEMPT_KIND_COUNT };

struct engine_tokens { /* of admitted sequences, all and those within their windows */
    uint64_t all, in_windows;
};

struct engine_load { /* a snapshot from atomics */
    uint32_t n_running, n_waiting, n_reserved;
    uint32_t blocks[KV_STATE_COUNT];
    struct state_counts states;                    /* slots for recurrent states */
    struct engine_tokens known, computed;          /* whose KV has a place, and is there */
    uint64_t prefill_tokens, decode_tokens, steps; /* since start */
    uint64_t prefix_queries, prefix_hits;          /* tokens looked up in the prefix cache, and found */
    uint64_t preemptions[PREEMPT_KIND_COUNT];      /* sequences that lost their blocks */
    uint32_t swapped_blocks;                       /* in the swap arena */
    struct kv_tier_stats tier;
    double prefill_tok_s, decode_tok_s; /* EWMA of measured rates, 0 before the first */
    uint64_t step_us_max;               /* longest step since the last snapshot */
};
void engine_load(struct engine *e, struct engine_load *out);
struct kv_store *engine_kv(struct engine *e);
const struct model *engine_model(const struct engine *e);
#endif
