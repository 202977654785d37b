/* members.c - nodes join, keep in touch, and are declared dead; who may speak at all. */
#include "base/clock.h"
#include "base/log.h"
#include "coordinator/cluster/dispatch_internal.h"
#include "coordinator/served_model.h"
#include "wire/session.h"

#include <stdio.h>
#include <string.h>

/* By name; a node started by hand may call the same file something else. */
static const struct served_model *find_model(const struct dispatch *d, const Baton__Control__Register *hello)
{
    for (uint32_t i = 0; i < d->opt.n_models; i++)
        if (!strcmp(d->opt.models[i]->name, hello->model)) return d->opt.models[i];
    for (uint32_t i = 0; hello->geometry && i < d->opt.n_models; i++)
        if (d->opt.models[i]->fingerprint == hello->geometry->fingerprint) return d->opt.models[i];
    return NULL;
}

static void send_refused(struct dispatch *d, struct control_peer *p, uint64_t to, const struct error *err)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Refused refused = BATON__CONTROL__REFUSED__INIT;
    char text[ERROR_TEXT_MAX];
    snprintf(text, sizeof(text), "%s", err->text);
    refused.status = (uint32_t)err->status;
    refused.message = text;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_REFUSED;
    m.refused = &refused;
    enum status st = control_send(d->control, p, to, &m);
    if (st != OK) log_debug("refusal_unsent", "status=%s", status_text(st));
}

/* Its session ends first: whatever it says from now on, it has to introduce itself again. */
static void let_go(struct dispatch *d, struct node *n, const char *why)
{
    struct control_peer *p = n->peer;
    n->peer = NULL;
    control_forget(d->control, p);
    recovery_node_gone(d, n, why);
}

static void declare_dead(struct dispatch *d, struct node *n, const char *why)
{
    log_warn_limited("node_dead", "node=%s role=%s active=%u reason=%s", n->name, n->decode ? "decode" : "prefill",
                     n->n_active, log_quote(why));
    let_go(d, n, why);
    peers_changed(d, n);
}

static void goodbye(struct dispatch *d, struct node *n, const char *why)
{
    log_info_limited("node_left", "node=%s role=%s active=%u reason=%s", n->name, n->decode ? "decode" : "prefill",
                     n->n_active, log_quote(why));
    let_go(d, n, "it has said goodbye");
    peers_changed(d, n);
}

static void welcome(struct dispatch *d, struct node *n)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Welcome w = BATON__CONTROL__WELCOME__INIT;
    w.heartbeat_ms = d->opt.heartbeat_ms;
    w.dead_after_ms = d->opt.dead_after_ms;
    w.lease_ms = REGISTRY_LEASE_MS;
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_WELCOME;
    m.welcome = &w;
    if (orders_send(d, n, &m) != OK) log_warn_limited("welcome_unsent", "node=%s", n->name);
}

/* An older process of the same name makes room once its connection is gone or it has been silent for two heartbeats: it
 * was started again.  Until then the newcomer is a second node under a name that is taken. */
static enum status take_name(struct dispatch *d, const Baton__Control__Register *hello, struct error *err)
{
    struct node *older = registry_find_name(&d->registry, hello->node);
    if (!older) return OK;
    uint64_t silent_us = clock_now_us() - older->last_seen;
    control_probe(d->control, older->peer);
    if (!older->unreachable_since && silent_us < 2000ull * d->opt.heartbeat_ms)
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

static void join(struct dispatch *d, struct control_peer *p, const Baton__Control__ControlMessage *m)
{
    struct error err;
    if (m->incarnation == 0) return;
    struct node *n = registry_find(&d->registry, m->incarnation);
    if (n && n->peer == p) {
        welcome(d, n);
        n->peers_told = false; /* it may have forgotten */
        peers_tell(d);
        return;
    }
    /* the same process in a new session: it has dropped what it did in the old one */
    if (n) declare_dead(d, n, "it has begun a new session");
    if (try_join(d, m, &n, &err) != OK) {
        log_warn_limited("node_refused", "node=%s reason=%s", log_quote(m->hello->node), log_quote(err.text));
        send_refused(d, p, m->incarnation, &err);
        return;
    }
    n->peer = p;
    control_adopt(d->control, p, n);
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
    if (control_send_note(d->control, n->peer, n->incarnation, &m) != OK)
        log_debug("heartbeat_ack_unsent", "node=%s", n->name);
    dispatch_kick(d);
}

/* ---- what the control plane tells ---- */

static void on_message(void *ctx, struct control_peer *p, const Baton__Control__ControlMessage *m)
{
    struct dispatch *d = ctx;
    struct node *n = control_owner(p);
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_HELLO && m->hello) {
        join(d, p, m);
        return;
    }
    if (!n) {
        control_forget(d->control, p); /* it must introduce itself first */
        return;
    }
    if (m->incarnation != n->incarnation || m->to_incarnation != d->opt.incarnation) return;
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_HEARTBEAT && m->heartbeat)
        heartbeat(d, n, m->heartbeat);
    else if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_GOODBYE && m->goodbye)
        goodbye(d, n, m->goodbye->reason);
    else
        events_message(d, n, m);
}

static void on_heard(void *ctx, struct control_peer *p)
{
    struct dispatch *d = ctx;
    struct node *n = control_owner(p);
    if (!n) return;
    bool caught_up = n->behind && !control_is_behind(p);
    if (n->doubted) recovery_undoubt(d, n);
    if (caught_up) {
        n->behind = false;
        dispatch_kick(d);
    }
    node_heard(n, clock_now_us());
}

/* Doubted at once; dead if it does not dial again soon. */
static void on_unreachable(void *ctx, struct control_peer *p)
{
    struct node *n = control_owner(p);
    if (!n || n->unreachable_since) return;
    n->unreachable_since = clock_now_us();
    recovery_doubt(ctx, n, "its connection is gone");
}

static void on_over(void *ctx, struct control_peer *p)
{
    struct node *n = control_owner(p);
    if (n) declare_dead(ctx, n, "its session has ended");
}

static void on_disconnected(void *ctx)
{
    struct dispatch *d = ctx;
    for (struct node *n = d->registry.nodes; n; n = n->next)
        if (n->alive) control_probe(d->control, n->peer);
}

const struct control_events members_events = { on_message, on_heard, on_unreachable, on_over, on_disconnected };

/* ---- time ---- */

static bool passed(uint64_t now, uint64_t since, uint64_t ms)
{
    return now > since && now - since > ms * 1000;
}

/* Silence alone does not end a node whose work nobody could take over: it keeps that work for its lease, and if it only
 * stood still the streams go on where they are. */
static void check_silence(struct dispatch *d, struct node *n, uint64_t now)
{
    uint64_t lease = d->opt.dead_after_ms > REGISTRY_LEASE_MS ? d->opt.dead_after_ms : REGISTRY_LEASE_MS;
    bool is_replaceable = registry_has_other(&d->registry, n);
    if (is_replaceable && !n->doubted && passed(now, n->last_seen, SESSION_SILENCE_MS)) recovery_silent(d, n);
    if (!passed(now, n->last_seen, d->opt.dead_after_ms)) return;
    if (is_replaceable || passed(now, n->last_seen, lease))
        declare_dead(d, n, "no heartbeat");
    else
        recovery_doubt(d, n, "no heartbeat, and no other node could go on with its work");
}

void members_check(struct dispatch *d, uint64_t now)
{
    for (struct node *n = d->registry.nodes; n; n = n->next) {
        if (!n->alive) continue;
        if (n->unreachable_since && passed(now, n->unreachable_since, REGISTRY_REDIAL_MS))
            declare_dead(d, n, "it has disconnected");
        else
            check_silence(d, n, now);
    }
}

void members_say_goodbye(struct dispatch *d)
{
    Baton__Control__ControlMessage m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Goodbye bye = BATON__CONTROL__GOODBYE__INIT;
    bye.reason = (char *)(uintptr_t) "the coordinator has stopped";
    m.body_case = BATON__CONTROL__CONTROL_MESSAGE__BODY_GOODBYE;
    m.goodbye = &bye;
    for (struct node *n = d->registry.nodes; n; n = n->next)
        if (n->alive && orders_send(d, n, &m) != OK) log_debug("goodbye_unsent", "node=%s", n->name);
}
