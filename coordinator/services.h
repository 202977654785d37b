/* services.h - what the API uses of the process: its models and options, the way into the cluster, workers, counters.
 *
 * The process fills it in and lives around it (coordinator.h); nothing here starts or ends anything.  One thread, the
 * loop's, but for the models, which never change. */
#ifndef COORDINATOR_SERVICES_H
#define COORDINATOR_SERVICES_H
#include "base/status.h"
#include "config/config.h"

#include <stdbool.h>
#include <stdint.h>

struct api_error;
struct ask;
struct call;
struct dispatch;
struct meters;
struct served_model;
struct work;

struct services {
    const struct config *cfg; /* borrowed */
    struct served_model *models[CONFIG_MAX_MODELS];
    uint32_t n_models;
    struct dispatch *dispatch;
    struct work *work; /* threads for what grows with a body or an answer */
    struct meters *meters;
    uint64_t incarnation, started; /* clock_now_us */
    bool draining;                 /* new work is refused */

    /* The API's own. */
    struct call *calls; /* under way, newest first */
    struct ask *asks;   /* requests whose bodies are being read on workers */
    uint32_t n_calls, n_asks;
    uint64_t last_call; /* counter for ids */
};

/* The model that a client means by `name` ("" = the first); ERR_NOT_FOUND fills `e`. */
enum status services_find_model(const struct services *sv, const char *name, struct served_model **out,
                                struct api_error *e) MUST_CHECK;
bool services_is_ready(const struct services *sv);
#endif
