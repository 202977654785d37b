/* members.c - nodes join, keep in touch, and are declared dead; who may speak at all. */
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/dispatch_internal.h"
#include "coordinator/served_model.h"
#include "wire/codec.h"

#include <stdio.h>
#include <string.h>

#define NAME_HELD_MS (2 * REGISTRY_HEARTBEAT_MS)

/* By name; a node started by hand may call the same file something else. */
static const struct served_model *find_model(const struct dispatch *d, const Baton__Control__Register *hello)
{
    for (uint32_t i = 0; i < d->opt.n_models; i++)
        if (!strcmp(d->opt.models[i]->name, hello->model)) return d->opt.models[i];
    for (uint32_t i = 0; hello->geometry && i < d->opt.n_models; i++)
        if (d->opt.models[i]->fingerprint == hello->geometry->fingerprint) return d->opt.models[i];
    return NULL;
}

static void send_refused(struct dispatch *d, const uint8_t *routing, size_t n_routing, uint64_t to,
                         const struct error *err)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Refused refused = BATON__CONTROL__REFUSED__INIT;
    char text[ERROR_TEXT_MAX];
    snprintf(text, sizeof(text), "%s", err->text);
    refused.status = (uint32_t)err->status;
    refused.message = text;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_REFUSED;
    m.refused = &refused;
    enum status st = control_send(d->control, routing, n_routing, to, &m);
    if (st != OK) log_debug("refusal_unsent", "status=%s", status_text(st));
}

static void declare_dead(struct dispatch *d, struct node *n, const char *why)
{
    log_warn_limited("node_dead", "node=%s role=%s active=%u reason=%s", n->name, n->decode ? "decode" : "prefill",
                     n->n_active, log_quote(why));
    recovery_node_gone(d, n, why);
    peers_changed(d, n);
}

static void goodbye(struct dispatch *d, struct node *n, const char *why)
{
    log_info_limited("node_left", "node=%s role=%s active=%u reason=%s", n->name, n->decode ? "decode" : "prefill",
                     n->n_active, log_quote(why));
    recovery_node_gone(d, n, "it has said goodbye");
    peers_changed(d, n);
}

static void welcome(struct dispatch *d, struct node *n)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Welcome w = BATON__CONTROL__WELCOME__INIT;
    w.heartbeat_ms = REGISTRY_HEARTBEAT_MS;
    w.dead_after_ms = REGISTRY_DEAD_AFTER_MS;
    w.lease_ms = REGISTRY_LEASE_MS;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_WELCOME;
    m.welcome = &w;
    /* an unheard welcome is asked for again */
    if (jobs_send(d, n, &m) != OK) log_warn_limited("welcome_unsent", "node=%s", n->name);
}

/* An older process of the same name makes room once it has been silent for two heartbeats: it was started again.
 * Until then the newcomer is a second node under a name that is taken. */
static enum status take_name(struct dispatch *d, const Baton__Control__Register *hello, struct error *err)
{
    struct node *older = registry_find_name(&d->registry, hello->node);
    if (!older) return OK;
    uint64_t silent_us = clock_now_us() - older->last_seen;
    if (silent_us < NAME_HELD_MS * 1000ull)
        return error_set(err, ERR_UNAVAILABLE,
                         "a %s node named %s was heard %llu ms ago: give this one another name, or wait",
                         older->decode ? "decode" : "prefill", older->name, (unsigned long long)(silent_us / 1000));
    declare_dead(d, older, "it was started again");
    return OK;
}

/* The checks come first: who is refused must not push out a node that works. */
static enum status try_join(struct dispatch *d, const Baton__Control__ControlMessage *m, struct node **out,
                            struct error *err)
{
    const struct served_model *model = find_model(d, m->hello);
    enum status st = registry_check(&d->registry, m->hello, model, err);
    if (st == OK) st = take_name(d, m->hello, err);
    if (st == OK) st = registry_join(&d->registry, m->hello, m->incarnation, model, clock_now_us(), out, err);
    return st;
}

static void join(struct dispatch *d, const uint8_t *routing, size_t n_routing, const Baton__Control__ControlMessage *m)
{
    struct error err;
    if (m->incarnation == 0) return;
    struct node *n = registry_find(&d->registry, m->incarnation);
    if (n) {
        node_set_routing(n, routing, n_routing);
        node_heard(n, clock_now_us());
        welcome(d, n);
        n->peers_told = false; /* it may have forgotten */
        peers_tell(d);
        return;
    }
    if (try_join(d, m, &n, &err) != OK) {
        log_warn_limited("node_refused", "node=%s reason=%s", log_quote(m->hello->node), log_quote(err.text));
        send_refused(d, routing, n_routing, m->incarnation, &err);
        return;
    }
    node_set_routing(n, routing, n_routing);
    log_info_limited("node_joined", "node=%s role=%s model=%s max_seqs=%u blocks=%u version=%s", n->name,
                     n->decode ? "decode" : "prefill", n->model->name, n->max_seqs, n->n_blocks, log_quote(n->version));
    welcome(d, n);
    peers_changed(d, n);
    dispatch_kick(d);
}

static void heartbeat(struct dispatch *d, struct node *n, const Baton__Control__Heartbeat *h)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__HeartbeatAck ack = BATON__CONTROL__HEARTBEAT_ACK__INIT;
    node_heartbeat(n, h, clock_now_us());
    ack.lease_ms = REGISTRY_LEASE_MS;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT_ACK;
    m.heartbeat_ack = &ack;
    if (jobs_send(d, n, &m) != OK) log_debug("heartbeat_ack_unsent", "node=%s", n->name);
    dispatch_kick(d);
}

void members_message(struct dispatch *d, const uint8_t *routing, size_t n_routing,
                     const Baton__Control__ControlMessage *m)
{
    struct error err;
    if (m->version != PROTOCOL_VERSION) {
        error_set(&err, ERR_MISMATCH, "the node speaks version %u of the protocol, this coordinator version %d",
                  m->version, PROTOCOL_VERSION);
        send_refused(d, routing, n_routing, m->incarnation, &err);
        return;
    }
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_HELLO) {
        join(d, routing, n_routing, m);
        return;
    }
    struct node *n = registry_find(&d->registry, m->incarnation);
    if (!n) {
        /* declared dead, or of a time before this process: it must introduce itself again */
        if (m->body_case != BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT) return;
        error_set(&err, ERR_STALE, "this coordinator does not know the node: register again");
        send_refused(d, routing, n_routing, m->incarnation, &err);
        return;
    }
    if (m->to_incarnation != d->opt.incarnation) return; /* meant for an older process at this address */
    node_set_routing(n, routing, n_routing);
    node_heard(n, clock_now_us());
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT)
        heartbeat(d, n, m->heartbeat);
    else if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_GOODBYE)
        goodbye(d, n, m->goodbye->reason);
    else
        events_message(d, n, m);
}

void members_check(struct dispatch *d, uint64_t now)
{
    for (struct node *n = d->registry.nodes; n; n = n->next)
        if (n->alive && now > n->last_seen && now - n->last_seen > REGISTRY_DEAD_AFTER_MS * 1000ull)
            declare_dead(d, n, "no heartbeat");
}

void members_say_goodbye(struct dispatch *d)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Goodbye bye = BATON__CONTROL__GOODBYE__INIT;
    bye.reason = (char *)(uintptr_t) "the coordinator has stopped";
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_GOODBYE;
    m.goodbye = &bye;
    for (struct node *n = d->registry.nodes; n; n = n->next)
        if (n->alive && jobs_send(d, n, &m) != OK) log_debug("goodbye_unsent", "node=%s", n->name);
}
