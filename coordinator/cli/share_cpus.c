/* share_cpus.c - who of several nodes on one host computes where, and with how many threads. */
#include "coordinator/cli/share_cpus.h"

#include "base/log.h"

static const struct config_node *node_at(const struct config *cfg, uint32_t i)
{
    return i < cfg->n_decode ? &cfg->decode[i] : &cfg->prefill[i - cfg->n_decode];
}

static uint32_t host_threads(void)
{
    struct cpu_list allowed;
    cpu_list_allowed(&allowed);
    return cpus_default_threads("", &allowed);
}

void share_threads_of_host(struct config *cfg)
{
    uint32_t n = cfg->prefill[0].threads ? cfg->prefill[0].threads : host_threads();
    cfg->decode[0].threads = n > 1 ? n / 2 : 1;
    cfg->prefill[0].threads = n > 1 ? n - n / 2 : 1;
}

/* Threads that a node is sure to have; 0: it takes a part of what is left. */
static uint32_t own_threads(const struct config_node *node)
{
    struct cpu_list own;
    if (node->threads || cpu_list_parse(&own, node->cpus) != OK) return node->threads;
    return cpus_default_threads("", &own);
}

void share_threads(struct config *cfg)
{
    uint32_t n = cfg->n_decode + cfg->n_prefill, all = host_threads(), taken = 0, open = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t own = own_threads(node_at(cfg, i));
        taken += own;
        open += own == 0;
    }
    uint32_t left = all > taken ? all - taken : 0;
    for (uint32_t i = 0; i < n; i++) {
        struct config_node *node = i < cfg->n_decode ? &cfg->decode[i] : &cfg->prefill[i - cfg->n_decode];
        if (own_threads(node) > 0) continue;
        node->threads = left / open > 0 ? left / open : 1;
        left -= left < node->threads ? left : node->threads;
        open--;
    }
}

/* What the process may use without what nodes own, cores together. */
static void free_cpus(const struct config *cfg, struct cpu_list *out, uint16_t core_of[CPUS_MAX])
{
    struct cpu_list allowed, own;
    cpu_list_allowed(&allowed);
    for (uint32_t i = 0; i < cfg->n_decode + cfg->n_prefill; i++) {
        uint32_t kept = 0;
        if (cpu_list_parse(&own, node_at(cfg, i)->cpus) != OK) continue;
        for (uint32_t k = 0; k < allowed.n; k++)
            if (!cpu_list_has(&own, allowed.ids[k])) allowed.ids[kept++] = allowed.ids[k];
        allowed.n = kept;
    }
    *out = allowed;
    cpus_order_by_core("", out, core_of);
}

void share_cpus(const struct config *cfg, struct cpu_list sets[2 * CONFIG_MAX_NODES])
{
    static struct cpu_list parts[2 * CONFIG_MAX_NODES]; /* too large for the stack; one thread */
    uint32_t weights[2 * CONFIG_MAX_NODES], who[2 * CONFIG_MAX_NODES], n = 0;
    uint16_t core_of[CPUS_MAX];
    struct cpu_list left;
    for (uint32_t i = 0; i < cfg->n_decode + cfg->n_prefill; i++) {
        const struct config_node *node = node_at(cfg, i);
        sets[i].n = 0;
        if (node->cpus[0]) continue;
        who[n] = i;
        weights[n++] = node->threads;
    }
    free_cpus(cfg, &left, core_of);
    bool some_owned = n < cfg->n_decode + cfg->n_prefill;
    bool shared = cpus_share(&left, core_of, weights, n, parts);
    if (!shared && left.n == 0 && n > 0) log_warn("cpus", "reason=%s", log_quote("the nodes with cpus: own all"));
    for (uint32_t i = 0; i < n; i++) {
        if (shared)
            sets[who[i]] = parts[i];
        else if (some_owned)
            sets[who[i]] = left; /* not among each other, but away from those that own theirs */
    }
}
