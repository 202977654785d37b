/* registry.c - joins, heartbeats and the snapshot for the router. */
#include "coordinator/cluster/registry.h"

#include "base/kv_block.h"
#include "base/mem.h"
#include "coordinator/served_model.h"

#include <stdio.h>
#include <string.h>

static void node_destroy(struct node *n)
{
    for (size_t i = 0; i < n->n_kv_endpoints; i++) mem_free(n->kv_endpoints[i]);
    mem_free(n->kv_endpoints);
    mem_free(n->name);
    mem_free(n->version);
    mem_free(n->admin);
    mem_free(n);
}

void registry_fini(struct registry *g)
{
    while (g->nodes) {
        struct node *n = g->nodes;
        g->nodes = n->next;
        node_destroy(n);
    }
    g->n = 0;
}

/* Names go into logs, labels and headers. */
static bool name_is_plain(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return n > 0 && n <= NODE_NAME_MAX && !name[n];
}

/* A node counts its sequences in blocks, also where they keep nothing but states. */
static uint32_t block_tokens_of(const struct cache_geometry *g)
{
    const uint32_t n = cache_geometry_block_tokens(g);
    return n ? n : KV_BLOCK_TOKENS;
}

static enum status check_fields(const Baton__Control__Register *h, struct cache_geometry *geometry, struct error *err)
{
    struct error why;
    if (!name_is_plain(h->node))
        return error_set(err, ERR_INVALID, "a node's name must have 1 to %d letters, digits, '.', '_' or '-'",
                         NODE_NAME_MAX);
    if (h->role != BATON__CONTROL__ROLE__PREFILL && h->role != BATON__CONTROL__ROLE__DECODE)
        return error_set(err, ERR_INVALID, "node %s has role %d; known are 1 (prefill) and 2 (decode)", h->node,
                         (int)h->role);
    if (cache_geometry_unpack(geometry, h->geometry, &why) != OK)
        return error_set(err, why.status, "node %s: %s", h->node, why.text);
    if (h->max_seqs == 0) return error_set(err, ERR_INVALID, "node %s takes no sequences", h->node);
    if (h->role == BATON__CONTROL__ROLE__DECODE &&
        (h->n_kv_endpoints == 0 || h->n_kv_endpoints > NODE_MAX_LANES || h->n_blocks == 0))
        return error_set(err, ERR_INVALID, "decode node %s names %zu kv lanes (1 to %d) and %u blocks", h->node,
                         h->n_kv_endpoints, NODE_MAX_LANES, h->n_blocks);
    return OK;
}

static enum status check_model(const struct registry *g, const Baton__Control__Register *h,
                               const struct cache_geometry *theirs, const struct served_model *model, struct error *err)
{
    if (!model) return error_set(err, ERR_NOT_FOUND, "this coordinator serves no model named \"%.64s\"", h->model);
    if (theirs->fingerprint != model->fingerprint)
        return error_set(
            err, ERR_MISMATCH, "model %s: node %s has a file with fingerprint %016llx, the coordinator's has %016llx",
            model->name, h->node, (unsigned long long)theirs->fingerprint, (unsigned long long)model->fingerprint);
    if (h->n_vocab != model->n_vocab)
        return error_set(err, ERR_MISMATCH, "model %s: node %s has %u tokens, the coordinator's file %u", model->name,
                         h->node, h->n_vocab, model->n_vocab);
    for (const struct node *n = g->nodes; n; n = n->next) {
        struct error why;
        if (!n->alive || n->model != model) continue;
        if (cache_geometry_check_same(theirs, &n->geometry, h->node, n->name, &why) == OK) continue;
        return error_set(err, why.status, "model %s: %s", model->name, why.text);
    }
    return OK;
}

static enum router_local local_of(const char *word)
{
    return !strcmp(word, "never")    ? ROUTER_LOCAL_NEVER
           : !strcmp(word, "always") ? ROUTER_LOCAL_ALWAYS
                                     : ROUTER_LOCAL_AUTO;
}

/* Forgets dead nodes of this name, and the oldest dead one where the table is full. */
static void make_room(struct registry *g, const char *name)
{
    struct node **at = &g->nodes;
    while (*at) {
        struct node *n = *at;
        bool last_resort = g->n >= REGISTRY_MAX_NODES;
        if (!n->alive && (last_resort || !strcmp(n->name, name))) {
            *at = n->next;
            g->n--;
            node_destroy(n);
        } else {
            at = &n->next;
        }
    }
}

enum status registry_check(const struct registry *g, const Baton__Control__Register *hello,
                           const struct served_model *model, struct error *err)
{
    struct cache_geometry geometry;
    enum status st = check_fields(hello, &geometry, err);
    return st == OK ? check_model(g, hello, &geometry, model, err) : st;
}

enum status registry_join(struct registry *g, const Baton__Control__Register *hello, uint64_t incarnation,
                          const struct served_model *model, uint64_t now, struct node **out, struct error *err)
{
    struct cache_geometry geometry;
    enum status st = check_fields(hello, &geometry, err);
    if (st == OK) st = check_model(g, hello, &geometry, model, err);
    if (st != OK) return st;
    make_room(g, hello->node);
    if (g->n >= REGISTRY_MAX_NODES)
        return error_set(err, ERR_FULL, "the coordinator holds %d nodes already", REGISTRY_MAX_NODES);
    struct node *n = mem_zalloc(sizeof(*n));
    n->name = mem_strdup(hello->node);
    n->version = mem_strndup(hello->version, strnlen(hello->version, 64));
    n->admin = mem_strndup(hello->admin, strnlen(hello->admin, 128));
    n->decode = hello->role == BATON__CONTROL__ROLE__DECODE;
    n->incarnation = incarnation;
    n->model = model;
    n->geometry = geometry;
    n->block_tokens = block_tokens_of(&geometry);
    n->n_kv_endpoints = n->decode ? hello->n_kv_endpoints : 0;
    n->kv_endpoints = mem_array(n->n_kv_endpoints, sizeof(char *));
    for (size_t i = 0; i < n->n_kv_endpoints; i++) n->kv_endpoints[i] = mem_strdup(hello->kv_endpoints[i]);
    n->max_seqs = hello->max_seqs;
    n->n_blocks = hello->n_blocks;
    n->max_context = hello->max_context;
    n->local_prefill = local_of(hello->local_prefill);
    n->load.blocks_free = n->load.blocks_total = hello->n_blocks;
    n->alive = true;
    n->last_seen = n->last_progress = now;
    n->next = g->nodes;
    g->nodes = n;
    g->n++;
    *out = n;
    return OK;
}

struct node *registry_find(struct registry *g, uint64_t incarnation)
{
    for (struct node *n = g->nodes; n; n = n->next)
        if (n->alive && n->incarnation == incarnation) return n;
    return NULL;
}

struct node *registry_find_name(struct registry *g, const char *name)
{
    for (struct node *n = g->nodes; n; n = n->next)
        if (n->alive && !strcmp(n->name, name)) return n;
    return NULL;
}

void node_heard(struct node *n, uint64_t now)
{
    n->last_seen = now;
    n->doubted = false;
    n->unreachable_since = 0;
}

void node_heartbeat(struct node *n, const Baton__Control__Heartbeat *h, uint64_t now)
{
    const Baton__Control__Load *l = h->load;
    node_heard(n, now);
    n->draining = h->draining != 0;
    if (!l) return;
    n->load.running = l->running;
    n->load.waiting = l->waiting;
    n->load.reserved = l->reserved;
    n->load.blocks_free = l->blocks_free;
    n->load.blocks_total = l->blocks_total;
    n->load.transfers = l->transfers;
    n->load.prefill_tok_s = l->prefill_tok_s;
    n->load.decode_tok_s = l->decode_tok_s;
    n->load.prefix_queries = l->prefix_queries;
    n->load.prefix_hits = l->prefix_hits;
    n->load.kv_bytes_sent = l->kv_bytes_sent;
    n->load.kv_bytes_received = l->kv_bytes_received;
    n->load.rss_bytes = l->rss_bytes;
    for (size_t i = 0; i < NODE_MAX_STATES; i++)
        n->load.by_state[i] = i < l->n_blocks_by_state ? l->blocks_by_state[i] : 0;
    uint32_t used = l->blocks_total > l->blocks_free ? l->blocks_total - l->blocks_free : 0;
    n->foreign_blocks = used > n->n_blocks_used ? used - n->n_blocks_used : 0;
    uint64_t seqs = (uint64_t)l->running + l->waiting + l->reserved;
    uint64_t foreign = seqs > n->n_active ? seqs - n->n_active : 0;
    n->foreign_active = foreign < n->max_seqs ? (uint32_t)foreign : n->max_seqs;
}

uint32_t node_max_tokens(const struct node *n)
{
    uint64_t pool = (uint64_t)n->n_blocks * n->block_tokens;
    uint32_t max = n->max_context ? n->max_context : n->model->context_length;
    return n->decode && pool < max ? (uint32_t)pool : max;
}

uint32_t registry_snapshot(const struct registry *g, uint64_t now, struct router_node *out, struct node **from)
{
    uint32_t count = 0;
    for (struct node *n = g->nodes; n; n = n->next) {
        if (!n->alive || n->draining || n->doubted) continue;
        uint64_t taken = (uint64_t)n->n_blocks_used + n->foreign_blocks;
        bool full = now < n->retry_at || n->behind;
        out[count] = (struct router_node){
            .decode = n->decode,
            .model_idx = n->model->idx,
            .n_active = n->n_active + n->foreign_active,
            .max_seqs = full ? 0 : n->max_seqs,
            .blocks_free = n->n_blocks > taken ? (uint32_t)(n->n_blocks - taken) : 0,
            .block_tokens = n->block_tokens,
            .max_tokens = node_max_tokens(n),
            .queued_tokens = n->queued_tokens,
            .local_prefill = n->local_prefill,
        };
        from[count++] = n;
    }
    return count;
}

static bool has_decode(const struct registry *g, const struct served_model *model)
{
    for (const struct node *n = g->nodes; n; n = n->next)
        if (n->alive && n->decode && n->model == model) return true;
    return false;
}

uint32_t registry_context(const struct registry *g, const struct served_model *model)
{
    uint32_t best = 0;
    bool any_alive = has_decode(g, model);
    for (const struct node *n = g->nodes; n; n = n->next) {
        if (n->model != model || !n->decode || (n->alive < any_alive)) continue;
        if (node_max_tokens(n) > best) best = node_max_tokens(n);
    }
    return best && best < model->context_length ? best : model->context_length;
}

bool registry_can_serve(const struct registry *g, const struct served_model *model)
{
    for (const struct node *n = g->nodes; n; n = n->next)
        if (n->alive && !n->draining && n->decode && (!model || n->model == model)) return true;
    return false;
}

bool registry_has_other(const struct registry *g, const struct node *n)
{
    for (const struct node *o = g->nodes; o; o = o->next) {
        if (o == n || !o->alive || o->doubted || o->draining || o->model != n->model) continue;
        if (o->decode == n->decode || (o->decode && o->local_prefill != ROUTER_LOCAL_NEVER)) return true;
    }
    return false;
}

enum router_verdict registry_missing(const struct registry *g, const struct served_model *model)
{
    enum router_verdict verdict = ROUTER_NO_DECODE;
    bool prefill = false;
    for (const struct node *n = g->nodes; n; n = n->next)
        prefill |= n->alive && !n->draining && !n->decode && n->model == model;
    for (const struct node *n = g->nodes; n; n = n->next) {
        if (!n->alive || n->draining || !n->decode || n->model != model) continue;
        if (prefill || n->local_prefill != ROUTER_LOCAL_NEVER) return ROUTER_PICKED;
        verdict = ROUTER_NO_PREFILL;
    }
    return verdict;
}
