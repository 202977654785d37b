/* kv_links.c - a prefill node's links to decode nodes. */
#include "node/kv_links.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <utlist.h>

#define FIRST_PAUSE_MS  100 /* between a loss and the next try; doubles */
#define LAST_PAUSE_MS   5000
#define GREETING_MS     1500 /* a Hello that is not answered for so long is lost */
#define SILENCE_TICK_MS 200  /* between two looks at lanes with something unread */
#define LATE_US         (500 * 1000ull)

struct peer { /* a decode node that a coordinator has told of */
    char *node;
    char *endpoints[KV_LINK_MAX_LANES];
    uint32_t n_endpoints;
    uint32_t pause_ms;
    uint64_t due_us; /* not opened before */
};

struct kv_links_told {
    uint64_t coordinator;
    struct kv_links_told *prev, *next;
    uint32_t n;
    struct peer peers[];
};

struct kv_links {
    struct kv_links_options opt;
    struct kv_links_told *told;
    uint32_t n;
    struct kv_link *items[KV_LINKS_MAX];
};

struct kv_links *kv_links_create(const struct kv_links_options *opt)
{
    struct kv_links *ls = mem_zalloc(sizeof(*ls));
    ls->opt = *opt;
    return ls;
}

void kv_links_destroy(struct kv_links *ls)
{
    struct kv_links_told *t, *next;

    if (!ls) return;
    DL_FOREACH_SAFE(ls->told, t, next) kv_links_told_free(t);
    for (uint32_t i = 0; i < ls->n; i++) kv_link_close(ls->items[i]);
    mem_free(ls);
}

struct kv_links_told *kv_links_told_copy(uint64_t coordinator, const struct kv_links_peer *peers, uint32_t n)
{
    struct kv_links_told *t;

    if (n > KV_LINKS_MAX) n = KV_LINKS_MAX; /* the others' lanes are opened by their first request */
    t = mem_zalloc(sizeof(*t) + n * sizeof(struct peer));
    t->coordinator = coordinator;
    for (uint32_t i = 0; i < n; i++) {
        struct peer *p = &t->peers[t->n];
        if (peers[i].n_endpoints == 0 || peers[i].n_endpoints > KV_LINK_MAX_LANES) continue;
        p->node = mem_strdup(peers[i].node);
        p->n_endpoints = peers[i].n_endpoints;
        for (uint32_t j = 0; j < p->n_endpoints; j++) p->endpoints[j] = mem_strdup(peers[i].endpoints[j]);
        t->n++;
    }
    return t;
}

void kv_links_told_free(struct kv_links_told *t)
{
    if (!t) return;
    for (uint32_t i = 0; i < t->n; i++) {
        for (uint32_t j = 0; j < t->peers[i].n_endpoints; j++) mem_free(t->peers[i].endpoints[j]);
        mem_free(t->peers[i].node);
    }
    mem_free(t);
}

static struct kv_link *find(const struct kv_links *ls, const char *const *endpoints, uint32_t n)
{
    for (uint32_t i = 0; i < ls->n; i++)
        if (kv_link_state(ls->items[i]) != KV_LINK_LOST && kv_link_has_endpoints(ls->items[i], endpoints, n))
            return ls->items[i];
    return NULL;
}

static struct kv_link *link_of(const struct kv_links *ls, const struct peer *p)
{
    return find(ls, (const char *const *)p->endpoints, p->n_endpoints);
}

static void postpone(struct peer *p, uint64_t now)
{
    p->pause_ms = p->pause_ms ? 2 * p->pause_ms : FIRST_PAUSE_MS;
    if (p->pause_ms > LAST_PAUSE_MS) p->pause_ms = LAST_PAUSE_MS;
    p->due_us = now + p->pause_ms * 1000ull;
}

void kv_links_want(struct kv_links *ls, struct kv_links_told *t)
{
    struct kv_links_told *old, *next;

    DL_FOREACH_SAFE(ls->told, old, next)
    {
        if (old->coordinator != t->coordinator) continue;
        DL_DELETE(ls->told, old);
        kv_links_told_free(old);
    }
    DL_APPEND(ls->told, t);
}

static bool is_wanted(const struct kv_links *ls, const struct kv_link *l)
{
    const struct kv_links_told *t;

    DL_FOREACH(ls->told, t)
    for (uint32_t i = 0; i < t->n; i++)
        if (link_of(ls, &t->peers[i]) == l) return true;
    return false;
}

static void close_at(struct kv_links *ls, uint32_t i)
{
    kv_link_close(ls->items[i]);
    ls->items[i] = ls->items[--ls->n];
}

/* Closes one that nobody needs. */
static bool make_room(struct kv_links *ls)
{
    if (ls->n < KV_LINKS_MAX) return true;
    for (uint32_t i = 0; i < ls->n; i++) {
        if (ls->opt.in_use(ls->opt.ctx, ls->items[i]) || is_wanted(ls, ls->items[i])) continue;
        close_at(ls, i);
        return true;
    }
    return false;
}

enum status kv_links_attach(struct kv_links *ls, const struct kv_links_peer *peer, struct kv_link **out,
                            struct error *err)
{
    const struct kv_link_options opt = { ls->opt.node, ls->opt.incarnation, ls->opt.geometry,
                                         peer->node,   peer->endpoints,     peer->n_endpoints };
    enum status st;

    *out = find(ls, peer->endpoints, peer->n_endpoints);
    if (*out) return OK;
    if (!make_room(ls)) return error_set(err, ERR_FULL, "KV lanes to %d decode nodes are open", KV_LINKS_MAX);
    if ((st = kv_link_open(out, &opt, err)) != OK) return st;
    ls->items[ls->n++] = *out;
    return OK;
}

static void tend_peer(struct kv_links *ls, struct peer *p, uint64_t now)
{
    const struct kv_links_peer peer = { p->node, (const char *const *)p->endpoints, p->n_endpoints };
    struct kv_link *l = link_of(ls, p);
    struct error err;

    if (l && kv_link_state(l) == KV_LINK_READY) p->pause_ms = 0;
    if (l || now < p->due_us) return;
    postpone(p, now); /* until it is greeted; a try that fails later finds its pause here */
    if (kv_links_attach(ls, &peer, &l, &err) != OK)
        log_warn_limited("kv_link_unopened", "to=%s reason=%s", log_quote(p->node), log_quote(err.text));
}

static void drop_lost(struct kv_links *ls)
{
    for (uint32_t i = ls->n; i-- > 0;) {
        if (kv_link_state(ls->items[i]) != KV_LINK_LOST) continue;
        ls->opt.on_lost(ls->opt.ctx, ls->items[i]);
        close_at(ls, i);
    }
}

static void check_greeting(struct kv_link *l, uint64_t now)
{
    struct error err;

    if (kv_link_state(l) != KV_LINK_GREETING || now - kv_link_opened_us(l) <= GREETING_MS * 1000ull) return;
    error_set(&err, ERR_TIMEOUT, "its Hello was not answered for %d ms", GREETING_MS);
    kv_link_lose(l, &err);
}

void kv_links_tend(struct kv_links *ls, uint64_t late_us)
{
    uint64_t now = clock_now_us();
    struct kv_links_told *t;

    for (uint32_t i = 0; i < ls->n; i++) {
        check_greeting(ls->items[i], now);
        if (late_us > LATE_US) kv_link_forgive(ls->items[i], now);
        kv_link_check_silence(ls->items[i], now);
    }
    drop_lost(ls);
    DL_FOREACH(ls->told, t)
    for (uint32_t i = 0; i < t->n; i++) tend_peer(ls, &t->peers[i], now);
}

int kv_links_wait_ms(const struct kv_links *ls)
{
    uint64_t now = clock_now_us(), first = UINT64_MAX;
    const struct kv_links_told *t;

    DL_FOREACH(ls->told, t)
    for (uint32_t i = 0; i < t->n; i++)
        if (!link_of(ls, &t->peers[i]) && t->peers[i].due_us < first) first = t->peers[i].due_us;
    for (uint32_t i = 0; i < ls->n; i++) {
        uint64_t look = kv_link_opened_us(ls->items[i]) + GREETING_MS * 1000ull;
        if (kv_link_state(ls->items[i]) != KV_LINK_GREETING)
            look = kv_link_awaits(ls->items[i]) ? now + SILENCE_TICK_MS * 1000ull : UINT64_MAX;
        if (look < first) first = look;
    }
    if (first == UINT64_MAX) return -1;
    return first <= now ? 0 : (int)((first - now) / 1000) + 1;
}

uint32_t kv_links_count(const struct kv_links *ls)
{
    return ls->n;
}
struct kv_link *kv_links_at(struct kv_links *ls, uint32_t i)
{
    return ls->items[i];
}
uint32_t kv_links_ready(const struct kv_links *ls)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < ls->n; i++) n += kv_link_state(ls->items[i]) == KV_LINK_READY;
    return n;
}
