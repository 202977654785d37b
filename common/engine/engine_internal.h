/* engine_internal.h - what the engine's thread owns; shared by engine.c (commands), engine_admit.c, engine_state.c,
 * engine_step.c, engine_sample.c and engine_emit.c. */
#ifndef ENGINE_ENGINE_INTERNAL_H
#define ENGINE_ENGINE_INTERNAL_H
#include "base/mailbox.h"
#include "engine/batch.h"
#include "engine/sched.h"
#include "engine/seq.h"
#include "model/model.h"
#include "store/state_store.h"

#include <pthread.h>
#include <stdatomic.h>

struct engine {
    struct engine_options opt; /* end_ids is the sampler's copy's business: NULL here */
    struct model *model;
    struct kv_store *kv;
    struct kv_pool *pool;
    struct windows *windows;            /* NULL: no layer is windowed */
    struct state_pool *states;          /* NULL: the model has no recurrent layers */
    uint32_t state_interval;            /* blocks between two snapshots; 0: none are taken */
    struct prefix_cache *prefix;        /* NULL: off */
    struct prefix_hash prefix_of_model; /* what all chains begin with */
    struct swap *swap;
    struct kv_tier *tier; /* NULL: off */
    struct seq *reading;  /* whose blocks the tier reads, one sequence after the other; NULL: nobody's */
    struct sampler *sampler;
    struct mailbox *box;
    struct seq_set seqs;
    struct step_batch batch;
    struct pick_row *asks; /* [MODEL_MAX_LOGIT_ROWS], like all three */
    struct picked *picked;
    float *hidden; /* [..][d_model] */

    /* Step scratch, [seqs.cap]. */
    struct seq **running;
    struct sched_seq *plan_in;
    struct sched_victim *victims;
    uint32_t *plan_rows;
    struct sched_cost cost;
    double step_work; /* of the prompts' rows in the batch */
    uint32_t n_vocab;

    pthread_t thread;
    bool stopping; /* engine thread */

    atomic_ullong paused[ENGINE_MAX_PAUSED]; /* key.hi; 0: free.  Written by one thread, read by the engine's */

    /* Sequences from submit to DONE, over which submit refuses.  Any thread counts up, the engine's counts down;
     * no other data depends on it. */
    atomic_uint n_live;
    /* Written by the engine's thread after each round, read by engine_load(); each by itself. */
    atomic_uint n_running, n_waiting, n_reserved;
    atomic_ullong n_known, n_known_in_windows, n_computed, n_computed_in_windows;
    atomic_ullong prefix_queries, prefix_hits;
    atomic_ullong prefill_tokens, decode_tokens, steps, step_us_max;
    atomic_ullong preemptions[PREEMPT_KIND_COUNT];
    atomic_uint swapped_blocks;
    _Atomic double prefill_tok_s, decode_tok_s;
};

/* Whether who asked for sequences of this key.hi does not take in what is said of them. */
bool engine_is_paused(const struct engine *e, uint64_t hi);
/* Gives waiting sequences their blocks in order of rank.  Returns whether anything can be done at once. */
bool engine_admit(struct engine *e);
/* A pool of blocks for windowed layers, and slots for the states of recurrent ones, if the model has any. */
enum status engine_open_windows(struct engine *e, struct error *err) MUST_CHECK;
enum status engine_open_states(struct engine *e, struct error *err) MUST_CHECK;
/* Blocks of windowed layers that a sequence of n_blocks holds at most, from its first chunk on or while it decodes. */
uint32_t engine_windows_of(const struct engine *e, uint32_t n_blocks, bool decoding);
/* All that a preempted sequence has of what it has computed. */
struct swap_things engine_swap_things(const struct seq *s);
/* Puts the state after a sequence's computed tokens, which are whole blocks, into its slot.  False: no snapshot of it
 * is there any more. */
bool engine_begin_state(struct engine *e, struct seq *s) MUST_CHECK;
/* Takes a snapshot of its state, if it has come to a place for one. */
enum status engine_keep_state(struct engine *e, struct seq *s) MUST_CHECK;
/* Keeps a copy of its state, if it has one, as guesses are about to be fed.  False: there is no slot for it. */
bool engine_save_state(struct engine *e, struct seq *s) MUST_CHECK;
/* Its state is that copy again: what came after is to be computed again.  Then seq_drop_saved(). */
void engine_undo_state(struct seq *s);
/* How far its next chunk may go: to the next snapshot, or its end. */
uint32_t engine_chunk_end(const struct engine *e, const struct seq *s);
/* A reservation computes its prompt here. */
void engine_begin_prefill(struct engine *e, struct seq *s);
/* One step over the running sequences. */
void engine_step(struct engine *e);
/* Logprobs of the prompt tokens that follow the rows of the batch's sequence i, in slices as wide as the head's buffer.
 */
enum status engine_send_prompt_logprobs(struct engine *e, uint32_t i) MUST_CHECK;
/* Hidden states of the input's rows of the batch's sequence i, in slices likewise. */
enum status engine_send_hidden(struct engine *e, uint32_t i) MUST_CHECK;
/* Sequences whose last known token was in the batch get their next one. */
enum status engine_sample(struct engine *e) MUST_CHECK;
/* The only way out: gives blocks back, sends DONE, forgets the sequence. */
void engine_finish(struct engine *e, struct seq *s, enum finish_reason finish, enum status st, const char *message);
/* Appends a token and says whether the sequence ends with it. */
enum finish_reason engine_append(struct engine *e, struct seq *s, int32_t token);
void engine_emit(struct engine *e, const struct engine_event *ev);
void engine_emit_reserved(struct engine *e, const struct seq *s);
/* Layers [layer0, layer1) of tokens [t0, t1) are final once `written` has passed. */
void engine_emit_kv(struct engine *e, const struct seq *s, uint32_t layer0, uint32_t layer1, uint32_t t0, uint32_t t1,
                    const struct mark *written);
/* Nobody waits for the tier's disk any more. */
void engine_stop_reading(struct engine *e);
#endif
