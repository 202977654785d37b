/* node.h - the process of a prefill or decode node: loop, signals, registration, admin, drain.
 *
 * The role (prefill_node/, decode_node/) fills struct node_role; all its functions run on the loop's thread, but for
 * on_engine_thread.  Engine and KV threads only enqueue: node_post_*() copy their events into the loop's mailbox. */
#ifndef NODE_NODE_H
#define NODE_NODE_H
#include "base/metrics.h"
#include "config/config.h"
#include "node/jobs.h"
#include "node/kv_recv.h"
#include "node/kv_send.h"
#include "node/load_model.h"

struct node;

enum node_event_kind { NODE_ENGINE, NODE_KV_SEND, NODE_KV_RECV };
struct node_event { /* a copy that owns what it points to */
    enum node_event_kind kind;
    struct engine_event engine;
    struct kv_send_event send;
    struct kv_recv_event recv;
};

struct node_role {
    enum config_role config;
    Baton__Control__Role role;
    const char *program;
    /* After the engine runs.  *state is the role's. */
    enum status (*open)(struct node *n, void **state, struct error *err);
    void (*stop)(void *state);  /* joins the role's threads; events are still posted after this */
    void (*close)(void *state); /* frees; the engine is gone */
    void (*describe)(void *state, Baton__Control__Register *hello); /* fields of the role; kept for ever */
    void (*on_message)(void *state, struct link *from, const Baton__Control__ControlMessage *m);
    void (*on_event)(void *state, const struct node_event *ev);
    /* On the engine's thread, before the event goes to the loop; true: it is done with, the loop need not hear. */
    bool (*on_engine_thread)(void *state, const struct engine_event *ev);
    void (*on_coordinator_lost)(void *state, uint64_t incarnation);
    struct kv_metrics *(*kv_metrics)(void *state);
};

/* The whole life of the process; returns its exit code. */
int node_main(const struct node_role *role, int argc, char **argv);

/* What roles use. */
const struct config_run *node_config(const struct node *n);
const struct loaded_model *node_model(const struct node *n);
struct engine *node_engine(const struct node *n);
struct jobs *node_jobs(const struct node *n);
struct metrics *node_metrics(const struct node *n);
uint64_t node_incarnation(const struct node *n);
bool node_is_draining(const struct node *n);

/* From any thread. */
void node_post_kv_send(void *node, const struct kv_send_event *ev); /* a kv_send_fn */
void node_post_kv_recv(void *node, const struct kv_recv_event *ev); /* a kv_recv_fn */
#endif
