/* registry: who may join, what a node's words say of its load, and what the router is shown. */
#include "coordinator/cluster/registry.h"

#include "base/mem.h"
#include "coordinator/served_model.h"
#include "wire/cache_geometry.h"

#include <criterion/criterion.h>
#include <string.h>

static struct served_model model = {
    .name = (char *)"tiny", .idx = 3, .fingerprint = 7, .n_vocab = 8, .context_length = 1000
};
static struct registry g;
static struct cache_geometry_message gm;

/* A decode node that may join. */
static Baton__Control__Register hello_of(const char *name)
{
    static char *lanes[NODE_MAX_LANES + 1];
    static struct cache_geometry geometry = { .fingerprint = 7 };
    Baton__Control__Register h = BATON__CONTROL__REGISTER__INIT;
    cache_geometry_set_uniform(&geometry, 2,
                               &(struct cache_group){ .kind = BATON__KV__CACHE_KIND__KV,
                                                      .codec = BATON__KV__CODEC__INT8,
                                                      .n_heads = 1,
                                                      .head_dim = 16,
                                                      .block_tokens = 64 });
    cache_geometry_pack(&gm, &geometry);
    for (int i = 0; i <= NODE_MAX_LANES; i++) lanes[i] = (char *)"tcp://127.0.0.1:1";
    h.node = (char *)name;
    h.role = BATON__CONTROL__ROLE__DECODE;
    h.model = (char *)"tiny";
    h.geometry = &gm.msg;
    h.n_kv_endpoints = 2;
    h.kv_endpoints = lanes;
    h.max_seqs = 4;
    h.n_blocks = 10;
    h.n_vocab = 8;
    h.local_prefill = (char *)"auto";
    return h;
}

static struct node *join(Baton__Control__Register h, uint64_t incarnation)
{
    struct node *n;
    struct error err = { 0 };
    cr_assert_eq(registry_check(&g, &h, &model, &err), OK, "%s", err.text);
    cr_assert_eq(registry_join(&g, &h, incarnation, &model, 50, &n, &err), OK, "%s", err.text);
    return n;
}

static struct node *join_as(const char *name, bool decode, const char *local)
{
    Baton__Control__Register h = hello_of(name);
    if (!decode) h.role = BATON__CONTROL__ROLE__PREFILL;
    h.local_prefill = (char *)local;
    return join(h, 100 + g.n);
}

static void refused(Baton__Control__Register h, const struct served_model *m, enum status st, const char *want)
{
    struct node *n;
    struct error err = { 0 };
    cr_assert_eq(registry_check(&g, &h, m, &err), st, "%s", err.text);
    cr_assert_eq(registry_join(&g, &h, 1, m, 0, &n, &err), st, "%s", err.text);
    cr_assert_str_eq(err.text, want);
    cr_assert_eq(g.n, 0);
}

#define SPOILT(change, st, want)                                                                                       \
    do {                                                                                                               \
        Baton__Control__Register h = hello_of("d0");                                                                   \
        change;                                                                                                        \
        refused(h, &model, st, want);                                                                                  \
    } while (0)

Test(registry, a_hello_that_makes_no_sense_is_refused)
{
    static const char name_rule[] = "a node's name must have 1 to 64 letters, digits, '.', '_' or '-'";
    char longest[NODE_NAME_MAX + 2];
    memset(longest, 'n', sizeof(longest));
    longest[NODE_NAME_MAX + 1] = '\0';
    SPOILT(h.node = (char *)"", ERR_INVALID, name_rule);
    SPOILT(h.node = (char *)"a b", ERR_INVALID, name_rule);
    SPOILT(h.node = longest, ERR_INVALID, name_rule);
    SPOILT(h.role = 0, ERR_INVALID, "node d0 has role 0; known are 1 (prefill) and 2 (decode)");
    SPOILT(h.role = 3, ERR_INVALID, "node d0 has role 3; known are 1 (prefill) and 2 (decode)");
    SPOILT(h.max_seqs = 0, ERR_INVALID, "node d0 takes no sequences");
    SPOILT(h.n_kv_endpoints = 0, ERR_INVALID, "decode node d0 names 0 kv lanes (1 to 64) and 10 blocks");
    SPOILT(h.n_kv_endpoints = 65, ERR_INVALID, "decode node d0 names 65 kv lanes (1 to 64) and 10 blocks");
    SPOILT(h.n_blocks = 0, ERR_INVALID, "decode node d0 names 2 kv lanes (1 to 64) and 0 blocks");
    SPOILT(h.n_vocab = 9, ERR_MISMATCH, "model tiny: node d0 has 9 tokens, the coordinator's file 8");
    SPOILT(h.geometry = NULL, ERR_INVALID, "node d0: no geometry is named");
    refused(hello_of("d0"), NULL, ERR_NOT_FOUND, "this coordinator serves no model named \"tiny\"");
    struct served_model other = model;
    other.fingerprint = 8;
    refused(hello_of("d0"), &other, ERR_MISMATCH,
            "model tiny: node d0 has a file with fingerprint 0000000000000007, the coordinator's has 0000000000000008");
    longest[NODE_NAME_MAX] = '\0';
    Baton__Control__Register h = hello_of(longest);
    h.n_kv_endpoints = NODE_MAX_LANES;
    cr_assert_eq(join(h, 1)->n_kv_endpoints, NODE_MAX_LANES);
    h = hello_of("p0");
    h.role = BATON__CONTROL__ROLE__PREFILL; /* a prefill node needs no lanes and no blocks */
    h.n_kv_endpoints = h.n_blocks = 0;
    cr_assert_eq(join(h, 2)->n_kv_endpoints, 0);
    registry_fini(&g);
    cr_assert(g.n == 0 && !g.nodes);
}

Test(registry, a_node_is_found_while_it_lives_and_makes_room_when_it_is_dead)
{
    struct node *a = join(hello_of("a"), 1), *b = join(hello_of("b"), 2);
    cr_assert(registry_find(&g, 1) == a && registry_find_name(&g, "b") == b);
    cr_assert(a->last_seen == 50 && a->last_progress == 50 && a->load.blocks_total == 10 && a->load.blocks_free == 10);
    cr_assert(!registry_find(&g, 3) && !registry_find_name(&g, "c"));
    a->alive = false;
    cr_assert(!registry_find(&g, 1) && !registry_find_name(&g, "a"));
    struct node *again = join(hello_of("a"), 3); /* in place of the dead one */
    cr_assert(g.n == 2 && registry_find_name(&g, "a") == again);
    b->alive = false;
    for (uint32_t i = 2; i < REGISTRY_MAX_NODES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%u", i);
        join(hello_of(name), i + 10);
    }
    cr_assert_eq(g.n, REGISTRY_MAX_NODES);
    cr_assert(join(hello_of("last"), 9999) && g.n == REGISTRY_MAX_NODES, "the dead one goes");
    struct node *n;
    struct error err;
    Baton__Control__Register h = hello_of("more");
    cr_assert_eq(registry_join(&g, &h, 1, &model, 0, &n, &err), ERR_FULL);
    cr_assert_str_eq(err.text, "the coordinator holds 256 nodes already");
    registry_fini(&g);
}

static void beat(struct node *n, uint32_t running, uint32_t waiting, uint32_t reserved, uint32_t free_blocks,
                 uint32_t total)
{
    Baton__Control__Heartbeat h = BATON__CONTROL__HEARTBEAT__INIT;
    Baton__Control__Load l = BATON__CONTROL__LOAD__INIT;
    uint32_t states[2] = { 5, 6 };
    l.running = running;
    l.waiting = waiting;
    l.reserved = reserved;
    l.blocks_free = free_blocks;
    l.blocks_total = total;
    l.blocks_by_state = states;
    l.n_blocks_by_state = 2;
    h.load = &l;
    node_heartbeat(n, &h, 77);
}

Test(registry, a_heartbeat_tells_what_others_have_there)
{
    static const struct {
        uint32_t used, active; /* this coordinator's */
        uint32_t running, waiting, reserved, free_blocks, total;
        uint32_t foreign_blocks, foreign_active;
    } rows[] = {
        { 0, 0, 0, 0, 0, 10, 10, 0, 0 }, { 0, 0, 1, 0, 1, 7, 10, 3, 2 },  { 2, 1, 1, 1, 1, 7, 10, 1, 2 },
        { 3, 3, 1, 1, 1, 7, 10, 0, 0 },  { 5, 4, 1, 1, 1, 7, 10, 0, 0 },  { 0, 0, 9, 9, 9, 12, 10, 0, 4 },
        { 0, 0, 4, 0, 0, 10, 10, 0, 4 }, { 0, 0, 5, 0, 0, 0, 10, 10, 4 },
    };
    struct node *n = join(hello_of("d0"), 1);
    n->doubted = true;
    n->unreachable_since = 5;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        n->n_blocks_used = rows[i].used;
        n->n_active = rows[i].active;
        beat(n, rows[i].running, rows[i].waiting, rows[i].reserved, rows[i].free_blocks, rows[i].total);
        cr_assert(n->foreign_blocks == rows[i].foreign_blocks && n->foreign_active == rows[i].foreign_active,
                  "%zu: %u %u", i, n->foreign_blocks, n->foreign_active);
    }
    cr_assert(n->last_seen == 77 && !n->doubted && !n->unreachable_since, "it is heard");
    cr_assert(n->load.by_state[0] == 5 && n->load.by_state[1] == 6 && n->load.by_state[2] == 0);
    Baton__Control__Heartbeat none = BATON__CONTROL__HEARTBEAT__INIT;
    none.draining = true;
    node_heartbeat(n, &none, 78);
    cr_assert(n->draining && n->load.running == 5 && n->last_seen == 78, "without a load the last one counts");
    registry_fini(&g);
}

Test(registry, the_router_sees_who_may_get_new_work)
{
    struct router_node out[REGISTRY_MAX_NODES];
    struct node *from[REGISTRY_MAX_NODES], *n = join_as("d0", true, "never");
    n->n_active = 1;
    n->foreign_active = 2;
    n->n_blocks_used = 3;
    n->foreign_blocks = 4;
    n->queued_tokens = 55;
    n->max_context = 100;
    n->retry_at = 20;
    cr_assert(registry_snapshot(&g, 20, out, from) == 1 && from[0] == n);
    cr_assert(out[0].decode && out[0].model_idx == 3 && out[0].n_active == 3 && out[0].max_seqs == 4);
    cr_assert(out[0].blocks_free == 3 && out[0].block_tokens == 64 && out[0].max_tokens == 100);
    cr_assert(out[0].queued_tokens == 55 && out[0].local_prefill == ROUTER_LOCAL_NEVER);
    registry_snapshot(&g, 19, out, from);
    cr_assert_eq(out[0].max_seqs, 0, "not before its time");
    n->behind = true;
    registry_snapshot(&g, 20, out, from);
    cr_assert_eq(out[0].max_seqs, 0, "it does not take in what is said");
    n->foreign_blocks = 7;
    registry_snapshot(&g, 20, out, from);
    cr_assert_eq(out[0].blocks_free, 0);
    n->foreign_blocks = 8; /* more than there are */
    registry_snapshot(&g, 20, out, from);
    cr_assert_eq(out[0].blocks_free, 0);
    bool *const bars[] = { &n->draining, &n->doubted };
    for (int i = 0; i < 2; i++) {
        *bars[i] = true;
        cr_assert_eq(registry_snapshot(&g, 20, out, from), 0);
        *bars[i] = false;
    }
    n->alive = false;
    cr_assert_eq(registry_snapshot(&g, 20, out, from), 0);
    registry_fini(&g);
}

Test(registry, the_longest_sequence_is_what_blocks_and_options_allow)
{
    static const struct {
        bool decode;
        uint32_t blocks, max_context, want;
    } rows[] = {
        { true, 10, 0, 640 },   { true, 16, 0, 1000 },  { true, 15, 0, 960 },  { true, 10, 640, 640 },
        { true, 10, 639, 639 }, { true, 10, 700, 640 }, { false, 1, 0, 1000 }, { false, 1, 500, 500 },
    };
    struct node *n = join(hello_of("d0"), 1);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        n->decode = rows[i].decode;
        n->n_blocks = rows[i].blocks;
        n->max_context = rows[i].max_context;
        cr_assert_eq(node_max_tokens(n), rows[i].want, "%zu: %u", i, node_max_tokens(n));
    }
    registry_fini(&g);
    cr_assert_eq(registry_context(&g, &model), 1000, "before the first node: the model's");
    struct node *a = join(hello_of("a"), 1), *b = join(hello_of("b"), 2), *p = join_as("p", false, "");
    a->max_context = 100;
    b->max_context = 200;
    p->max_context = 900;
    cr_assert_eq(registry_context(&g, &model), 200, "of decode nodes");
    b->alive = false;
    cr_assert_eq(registry_context(&g, &model), 100, "of those that live");
    a->alive = false;
    cr_assert_eq(registry_context(&g, &model), 200, "where none lives, of the last ones");
    struct served_model other = model;
    cr_assert_eq(registry_context(&g, &other), 1000);
    registry_fini(&g);
}

Test(registry, says_what_a_model_lacks_and_who_else_there_is)
{
    cr_assert_eq(registry_missing(&g, &model), ROUTER_NO_DECODE);
    struct node *p = join_as("p", false, "");
    cr_assert(registry_missing(&g, &model) == ROUTER_NO_DECODE && !registry_can_serve(&g, &model));
    cr_assert_not(registry_has_other(&g, p));
    struct node *d = join_as("d", true, "never");
    cr_assert(registry_missing(&g, &model) == ROUTER_PICKED && registry_can_serve(&g, &model) &&
              registry_can_serve(&g, NULL));
    cr_assert_not(registry_has_other(&g, p), "its decode node reads no prompts");
    d->local_prefill = ROUTER_LOCAL_AUTO;
    cr_assert(registry_has_other(&g, p) && !registry_has_other(&g, d));
    p->draining = true;
    cr_assert_eq(registry_missing(&g, &model), ROUTER_PICKED, "it reads prompts itself");
    d->local_prefill = ROUTER_LOCAL_NEVER;
    cr_assert_eq(registry_missing(&g, &model), ROUTER_NO_PREFILL);
    p->draining = false;
    p->alive = false;
    cr_assert_eq(registry_missing(&g, &model), ROUTER_NO_PREFILL);
    struct node *d1 = join_as("d1", true, "always");
    cr_assert_eq(d1->local_prefill, ROUTER_LOCAL_ALWAYS);
    cr_assert(registry_missing(&g, &model) == ROUTER_PICKED && registry_has_other(&g, d));
    bool *const bars[] = { &d1->doubted, &d1->draining };
    for (int i = 0; i < 2; i++) {
        *bars[i] = true;
        cr_assert_not(registry_has_other(&g, d));
        *bars[i] = false;
    }
    d->draining = d1->draining = true;
    cr_assert(registry_missing(&g, &model) == ROUTER_NO_DECODE && !registry_can_serve(&g, &model));
    d->draining = d1->draining = false;
    d->alive = d1->alive = false;
    cr_assert(registry_missing(&g, &model) == ROUTER_NO_DECODE && !registry_can_serve(&g, NULL));
    struct served_model other = model;
    d->alive = true;
    cr_assert(!registry_can_serve(&g, &other) && registry_missing(&g, &other) == ROUTER_NO_DECODE);
    registry_fini(&g);
}

Test(registry, blocks_of_a_sequence)
{
    static const uint32_t rows[][3] = {
        { 0, 64, 0 }, { 1, 64, 1 }, { 64, 64, 1 }, { 65, 64, 2 }, { UINT32_MAX, 64, 1 << 26 }
    };
    for (size_t i = 0; i < 5; i++) cr_assert_eq(router_blocks(rows[i][0], rows[i][1]), rows[i][2]);
}
