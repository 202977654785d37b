/* request.h - one request in the cluster: identity, tokens, nodes, and its state machine.
 *
 *            dispatch.c place()   on Reserved       first report of          token 0 from
 *           (Reserve sent)      (Prefill sent)     the computing node      the prefill node
 *   QUEUED ------------> RESERVING -------> RESERVED ---------> PREFILLING ---------> HANDOFF
 *      ^                       ^                |                 |  |   (local        | PrefillDone, or
 *      |  recovery.c replay()  | its rebind()   |                 |  |    prefill)     | a later token from decode
 *      +-- from any state      +----------------+-----------------+  +-------------> DECODING
 *   DONE: dispatch_finish (ended by itself, or by a stop string)   CANCELLED: dispatch_cancel   FAILED: dispatch_fail
 *
 * An end is shown to the owner at once.  The record itself stays until every node that may hold something of it (struct
 * hold) has said that it does not any more, or is dead.  Epochs are raised in recovery.c only. */
#ifndef CLUSTER_REQUEST_H
#define CLUSTER_REQUEST_H
#include "coordinator/api_error.h"
#include "coordinator/cluster/registry.h"
#include "coordinator/logprobs.h"
#include "coordinator/token_limit.h"
#include "job/finish.h"
#include "job/sampling.h"

#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

struct request;
struct served_model;

enum request_state {
    REQUEST_QUEUED,     /* waits here for room */
    REQUEST_RESERVING,  /* the decode node was asked for blocks */
    REQUEST_RESERVED,   /* it has them; the computing node has the prompt */
    REQUEST_PREFILLING, /* the prompt is being computed */
    REQUEST_HANDOFF,    /* token 0 is out, KV is on its way */
    REQUEST_DECODING,
    REQUEST_DONE,
    REQUEST_CANCELLED,
    REQUEST_FAILED,
    REQUEST_STATE_COUNT
};

/* What the owner hears.  It may call dispatch_finish() and dispatch_cancel() from within. */
struct request_events {
    void (*token)(void *owner, int32_t id, const struct logprob_row *row /* NULL: not asked for */);
    void (*prompt_logprobs)(void *owner, uint32_t position, const struct logprob_row *row);
    /* The end, once: state, finish and error say how.  The owner forgets the request in this call. */
    void (*end)(void *owner, struct request *r);
};

struct request_spec { /* what an owner asks for: copied, but for the tokens, which are taken */
    const struct served_model *model;
    int32_t *tokens; /* [n_prompt], mem_free */
    uint32_t n_prompt;
    int32_t priority; /* lower is earlier */
    struct sampling_params sampling;
    enum token_limit_source limit_from;
    bool hidden;
    const char *cache_salt; /* "" = none */
    const char *tag;        /* names it in logs: the client's request id and the choice */
    const struct request_events *events;
    void *owner;
};

struct request_timing { /* microseconds of clock.h; 0 = has not happened */
    uint64_t created, dispatched, first_token, last_token, ended;
    uint32_t prefill_us; /* as its node measured */
    uint32_t handoff_us;
    uint64_t kv_bytes;       /* shipped, over all epochs */
    uint64_t kv_bytes_16bit; /* what the same KV is in 16 bits */
    uint32_t cached_tokens;
};

/* Nodes that had taken the request on and failed it, since the client last got REQUEST_STREAK_TOKENS more tokens: a
 * request that kills its nodes ends soon, a long one outlives any number of deaths. */
#define REQUEST_STREAK_TOKENS 64
struct request_failures {
    uint32_t n;
    uint32_t n_output; /* tokens that the client had at the last one */
    char nodes[256];   /* their names, for people */
};

struct early_token { /* came before the ones it follows: two nodes report over two connections */
    struct early_token *next;
    uint32_t output_idx;
    int32_t id;
    bool has_row;
    struct logprob_row row; /* points into this struct */
    int32_t top_ids[SAMPLING_MAX_LOGPROBS];
    float top[SAMPLING_MAX_LOGPROBS];
};

struct request {
    uint64_t id; /* counter of this coordinator */
    uint32_t epoch;
    enum request_state state;
    uint32_t *state_counts;    /* [REQUEST_STATE_COUNT], of the dispatcher */
    struct request *reap_next; /* over, and free to go */
    bool reaped;
    const struct served_model *model;
    char tag[80];    /* the client's request id and the choice, for logs */
    int32_t *tokens; /* prompt, then output */
    uint32_t n_tokens, n_prompt;
    int32_t priority; /* lower is earlier, here and on the nodes */
    struct sampling_params sampling;
    enum token_limit_source limit_from; /* who set max_tokens; for the log alone */
    bool hidden;      /* its one token is computed for the prompt's sake, and neither shown nor counted */
    char *cache_salt; /* "" = none */
    const struct request_events *events;
    void *owner; /* NULL after `end` */

    struct node *prefill, *decode;                                        /* of this epoch; NULL: none */
    char prefill_name[NODE_NAME_MAX + 1], decode_name[NODE_NAME_MAX + 1]; /* the last ones, for people */
    struct hold *holds;                                                   /* of all epochs */
    bool local;                                                           /* the decode node computes the prompt */
    uint64_t reservation;
    uint32_t n_reserved_tokens; /* prompt and output that the reservation knows */
    bool wide;                  /* was short of blocks once: asks for its full length */
    struct request_failures failures;
    uint32_t refusals;          /* in a row, of nodes that were asked and gave a reason that waiting does not mend */
    uint64_t avoid, avoided_at; /* incarnation of the node that failed it last, and when */
    uint32_t n_prompt_rows;     /* prompt logprobs received; the next position is this + 1 */
    struct early_token *early;  /* tokens ahead of order, by index */
    enum finish_reason finish;
    bool finish_pending; /* the decode node is done; tokens or PrefillDone are on their way */
    uint32_t finish_n_output;
    struct api_error error; /* FAILED, CANCELLED */

    struct request_timing t;
    uint64_t state_since, progress; /* when the state began, when it last moved */
    uint64_t handoff_since;         /* when the prompt's job of this epoch was sent to the prefill node */
    uint64_t due_since;             /* the next token is waited for since then; 0: it comes from a node that lives */

    bool queued; /* queue.c */
    struct request *q_prev, *q_next;
    UT_hash_handle hh; /* by id, in the dispatcher */
};

/* A new request in QUEUED. */
struct request *request_create(const struct request_spec *spec, uint32_t *state_counts);
void request_destroy(struct request *r);

/* The only writer of `state`; an illegal move is a bug (assert).  Keeps the counters and time stamps. */
void request_set_state(struct request *r, enum request_state to);
/* Moves forward along the arrows up to `to`, through the states between; does nothing from there on. */
void request_advance(struct request *r, enum request_state to);
/* Something happened: the deadline of the state restarts. */
void request_touch(struct request *r);
const char *request_state_name(enum request_state s);

/* From `since` to `now`; 0 where `since` is younger, as when something happened in the same round of the loop. */
static inline uint64_t request_elapsed(uint64_t now, uint64_t since)
{
    return now > since ? now - since : 0;
}
static inline bool request_is_over(const struct request *r)
{
    return r->state >= REQUEST_DONE;
}
/* A prefill node has its prompt, or is to be told of it: what is due is due from that node. */
static inline bool request_is_at_prefill(const struct request *r)
{
    return r->state == REQUEST_RESERVED || r->state == REQUEST_PREFILLING || r->state == REQUEST_HANDOFF;
}
static inline uint32_t request_n_output(const struct request *r)
{
    return r->n_tokens - r->n_prompt;
}
/* A node that had taken the request on has failed, stalled or died; returns how many in a row that makes. */
uint32_t request_count_failure(struct request *r, const char *node);
struct request_tokens {
    uint32_t prompt, cached, output;
};
/* What the request counts as, so far: usage, metrics and log take it from here and nowhere else.  A prompt counts with
 * the first of its `n` answers, once its first token is there; a hidden token does not count. */
struct request_tokens request_count(const struct request *r);
/* What it costs to keep it waiting. */
static inline uint64_t request_bytes(const struct request *r)
{
    return sizeof(*r) + (uint64_t)r->n_prompt * sizeof(*r->tokens) +
           (uint64_t)r->sampling.n_bias * (sizeof(*r->sampling.bias_ids) + sizeof(*r->sampling.bias));
}
/* Appends an output token and keeps its time. */
void request_add_token(struct request *r, int32_t id);
/* Keeps a token that is ahead of its turn; a second of the same index is dropped (false). */
bool request_add_early(struct request *r, uint32_t output_idx, int32_t id, const struct logprob_row *row);
/* Hands the early token `output_idx` to the caller (mem_free), NULL if it is not there. */
struct early_token *request_take_early(struct request *r, uint32_t output_idx);
void request_drop_early(struct request *r);

struct hold { /* one node may have blocks, a job or a transfer of one epoch of the request */
    struct hold *next;
    struct node *node;
    uint32_t epoch;
    uint32_t blocks;        /* counted against the node */
    uint32_t queued_tokens; /* prompt tokens that the node still has before it, as far as is known */
    bool told;              /* the node has heard of it; otherwise there is nothing to cancel */
    bool cancelling;        /* Cancel is repeated until it is acknowledged */
    uint64_t cancel_sent;
    uint32_t n_cancels;
};
/* Opens a hold and counts it against the node; closing gives it back. */
struct hold *request_open_hold(struct request *r, struct node *n, uint32_t blocks, uint32_t queued_tokens);
struct hold *request_find_hold(const struct request *r, const struct node *n, uint32_t epoch);
void request_close_hold(struct request *r, struct hold *h);
/* The node has computed its prompt: nothing of it queues there any more. */
void hold_computed(struct hold *h);

struct request_limits {
    uint32_t request_timeout_ms; /* to the first token, or, after a node's loss, to the next one */
    uint32_t progress_timeout_ms;
    uint32_t node_wait_ms; /* for a node to come, where none is left that could serve it */
};
enum request_deadline { REQUEST_IN_TIME, REQUEST_STALLED, REQUEST_TIMED_OUT };
/* Whether a deadline has passed.  `node_progress`: when the computing node last moved anything, which counts while a
 * request only waits for its turn there. */
enum request_deadline request_check_deadline(const struct request *r, const struct request_limits *l, uint64_t now,
                                             uint64_t node_progress);
#endif
