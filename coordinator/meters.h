/* meters.h - the coordinator's metrics by name, so that each is registered and spelled once. */
#ifndef COORDINATOR_METERS_H
#define COORDINATOR_METERS_H
#include <stdint.h>

struct metric;
struct metrics;

struct meters {
    struct metrics *all;
    struct metric *ttft, *itl, *e2e, *queue_time, *prefill_time, *decode_time;
    struct metric *prompt_tokens, *generation_tokens; /* histograms, per request */
    struct metric *prompt_tokens_total, *generation_tokens_total, *cached_tokens_total;
    struct metric *kv_bytes, *kv_seconds;
    struct metric *migrated, *cancelled, *disconnects, *tokens_dropped, *garbage;
};

struct meters *meters_create(void);
void meters_destroy(struct meters *m);
/* Counters with labels. */
void meters_request(struct meters *m, const char *model, const char *endpoint, int status);
void meters_rejected(struct meters *m, const char *reason);
void meters_ignored(struct meters *m, const char *names /* "user, store" */);
void meters_kv_failure(struct meters *m, const char *reason);
#endif
