/* coordinator.h - the process's parts in one place: models, dispatcher, HTTP server, calls under way.
 *
 * Everything runs on one libuv loop and its thread, but for the reading of bodies and the writing of large answers
 * (work.h). */
#ifndef COORDINATOR_COORDINATOR_H
#define COORDINATOR_COORDINATOR_H
#include "base/error.h"
#include "config/config.h"

#include <stdint.h>
#include <uv.h>

struct api_error;
struct ask;
struct call;
struct dispatch;
struct http_server;
struct meters;
struct served_model;
struct work;

struct coordinator {
    uv_loop_t *loop;
    const struct config *cfg; /* borrowed */
    uint64_t incarnation;
    struct served_model *models[CONFIG_MAX_MODELS];
    uint32_t n_models;
    struct meters *meters;
    struct dispatch *dispatch;
    struct http_server *http;
    struct call *calls; /* under way, newest first */
    uint32_t n_calls;
    struct work *work; /* threads for what grows with a body or an answer */
    struct ask *asks;  /* requests whose bodies are being read there */
    uint32_t n_asks;
    uint64_t last_call; /* counter for ids */
    uv_timer_t tick;
    uint64_t started, drain_began; /* clock_now_us */
    bool draining, stopped;
};

/* Loads the models, binds both sockets, starts to serve on `loop`.  The caller owns *out. */
enum status coordinator_create(struct coordinator **out, uv_loop_t *loop, const struct config *cfg,
                               struct error *err) MUST_CHECK;
/* Ready goes to 503, new work is refused; stops when the last call is answered, or at shutdown_timeout. */
void coordinator_drain(struct coordinator *co);
/* Ends what is left and closes every handle; the loop's run returns then. */
void coordinator_stop(struct coordinator *co);
void coordinator_destroy(struct coordinator *co); /* after the loop has run out; NULL is fine */

/* The model that a client means by `name` ("" = the first); ERR_NOT_FOUND fills `e`. */
enum status coordinator_find_model(const struct coordinator *co, const char *name, struct served_model **out,
                                   struct api_error *e) MUST_CHECK;
bool coordinator_is_ready(const struct coordinator *co);
#endif
