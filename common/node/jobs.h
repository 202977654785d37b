/* jobs.h - the requests a node works on, and what it says about them to their coordinators.
 *
 * A job is one (request, epoch).  Loop thread only.  What a role keeps per job lies in the struct; the moves between
 * states are the role's (prefill_node/prefill.c, decode_node/decode.c). */
#ifndef NODE_JOBS_H
#define NODE_JOBS_H
#include "engine/engine.h"
#include "node/links.h"

#include <uthash.h>

#define JOBS_MAX        8192
#define JOBS_ASK_MAX_MS 1000 /* so long a reservation waits for its blocks; then it may be had elsewhere */

enum job_state {
    JOB_ASKED,   /* decode: the engine was asked for blocks */
    JOB_WAITING, /* decode: blocks are reserved, KV is to come (or a Rebind after a failure) */
    JOB_RUNNING, /* computes; prefill: until the hand-off has ended */
    JOB_ENDING,  /* cancelled or over: waits until the engine has let go */
};

enum job_want { JOB_WANT_NOTHING, JOB_WANT_CANCEL, JOB_WANT_RELEASE };

struct job {
    struct { /* no padding: hashed as bytes */
        uint64_t hi, lo;
    } id;
    struct seq_key key;
    uint32_t rebound_from; /* decode: a Rebind from this epoch is under way; 0: none */
    struct link *link;     /* whose request it is; its incarnation is key.hi */
    enum job_state state;
    uint32_t n_prompt, n_tokens;
    uint64_t reservation;
    bool local;        /* decode: computes the prompt itself */
    uint32_t n_output; /* tokens of this request so far, those before a replay included */
    uint64_t start_us, token_us;
    uint64_t kv_bytes, handoff_us;
    bool in_engine;           /* the engine has a sequence for it */
    bool in_sender;           /* prefill: kv_send has a transfer for it */
    bool is_sent;             /* prefill: the decode node has stored all */
    enum finish_reason ended; /* prefill: token 0 was the last one */
    enum job_want want;       /* engine command that is still to be given */
    bool silent;              /* its coordinator is gone or was told already */
    bool ack_due;             /* Cancel came: answer when the engine has let go */
    uint32_t ack_epoch;
    struct report *reports; /* tokens not sent yet */
    struct job *same, *next_with_reports;
    bool has_reports;
    UT_hash_handle hh; /* by id; further epochs hang on `same` */
};

struct jobs;
struct jobs *jobs_create(void);
void jobs_destroy(struct jobs *js);
uint32_t jobs_count(const struct jobs *js);
uint32_t jobs_active(const struct jobs *js); /* those that are not ending */
struct job *jobs_find(struct jobs *js, const struct seq_key *key);
/* The first job of a request in any epoch; the others by job->same. */
struct job *jobs_first(struct jobs *js, uint64_t hi, uint64_t lo);
/* NULL: JOBS_MAX are there. */
struct job *jobs_add(struct jobs *js, struct link *link, const struct seq_request *r);
void jobs_set_epoch(struct jobs *js, struct job *j, uint32_t epoch);
/* The job whose Rebind from this epoch is under way, or NULL.  Another one of the same request, asked for anew, is
 * none. */
struct job *jobs_find_rebound(struct jobs *js, const struct seq_key *old);
/* Reservations that have waited too long for their blocks are given back to be had elsewhere. */
void jobs_withdraw_late(struct jobs *js, struct engine *e);
/* Sends its reports and, if this was the last one asked for, its CancelAck; frees. */
void jobs_remove(struct jobs *js, struct job *j);
/* Gives the engine the command that a job wants; if its mailbox is full, jobs_retry() does. */
void job_command(struct job *j, struct engine *e, enum job_want want);
void jobs_retry(struct jobs *js, struct engine *e);
/* Calls end() for each job of the request that a Cancel names (its epoch and older ones, 0: all); CancelAck follows
 * when the last of them is removed, or at once. */
void jobs_cancel(struct jobs *js, struct link *l, const Baton__Control__Cancel *m,
                 void (*end)(void *ctx, struct job *j), void *ctx);
/* fn may remove the job it is given. */
void jobs_each(struct jobs *js, void (*fn)(void *ctx, struct job *j), void *ctx);

/* A Job message as the engine wants it; tokens are borrowed from the message.  Checked is all that needs no vocabulary
 * (wire/job.h), and that it comes from the coordinator with that incarnation (ERR_STALE). */
enum status job_request_of(struct seq_request *out, const Baton__Control__Job *m, enum engine_mode mode,
                           uint64_t incarnation, struct error *err) MUST_CHECK;

/* Tokens are gathered and sent by jobs_flush(): one message per job and round. */
void job_add_token(struct jobs *js, struct job *j, const struct engine_event *ev);
void job_add_prompt_logprobs(struct jobs *js, struct job *j, const struct engine_event *ev);
void jobs_flush(struct jobs *js);

/* Messages about a job; tokens that are gathered go first.  Nothing is sent for silent jobs. */
void job_send_reserved(struct job *j, uint64_t credit_bytes, uint32_t hit_tokens);
void job_send_progress(struct job *j, Baton__Control__Stage stage, uint32_t tokens, uint64_t bytes);
/* What an ENGINE_PROGRESS says. */
void job_send_computed(struct job *j, const struct engine_event *ev);
void job_send_prefill_done(struct jobs *js, struct job *j, uint64_t prefill_us, enum finish_reason ended);
void job_send_finished(struct jobs *js, struct job *j, const struct engine_event *done);
void job_send_failed(struct jobs *js, struct job *j, enum status st, const char *message, bool reservation_kept);
/* Messages about what is no job here. */
void link_send_failed(struct link *l, uint64_t lo, uint32_t epoch, enum status st, const char *message);
void link_send_cancel_ack(struct link *l, uint64_t lo, uint32_t epoch);
#endif
