/* share_gpus.c - which of the nodes that start together compute on a GPU, and how much of its memory each may take. */
#include "coordinator/cli/share_gpus.h"

#include "base/cpus.h"
#include "base/log.h"
#include "compute/backend.h"
#include "config/config_table.h"

#include <string.h>

#define NODE_SPARE ((uint64_t)1 << 30) /* of each node's share: what the driver takes for a process, and a reserve */

/* The configuration has been checked: a list of one number. */
static uint32_t device_of(const struct config_node *node)
{
    struct cpu_list devices;
    return cpu_list_parse(&devices, node->devices) == OK ? devices.ids[0] : 0;
}

bool is_on_gpu(const struct config_node *node)
{
    struct error why;
    if (node->tp > 1 || node->pp > 1) return false;
    return strcmp(backend_choose(node->backend, device_of(node), &why), "cpu") != 0;
}

void serve_on_one_gpu(struct config *cfg)
{
    if (cfg->n_prefill == 0 || !is_on_gpu(&cfg->decode[0])) return;
    while (cfg->n_prefill > 0) config_table_free(SCOPE_NODE, &cfg->prefill[--cfg->n_prefill]);
    log_info("one_node", "reason=%s", log_quote("a GPU reads prompts and writes answers in one node"));
}

static struct config_node *node_at(struct config *cfg, uint32_t i)
{
    return i < cfg->n_decode ? &cfg->decode[i] : &cfg->prefill[i - cfg->n_decode];
}

/* Of the nodes on this GPU: how many share, and what the others have named. */
static uint32_t count_on(struct config *cfg, uint32_t device, uint64_t *named)
{
    uint32_t n = 0;
    *named = 0;
    for (uint32_t i = 0; i < cfg->n_decode + cfg->n_prefill; i++) {
        const struct config_node *node = node_at(cfg, i);
        if (!is_on_gpu(node) || device_of(node) != device) continue;
        *named += node->gpu_memory ? node->gpu_memory + NODE_SPARE : 0;
        n += node->gpu_memory == 0;
    }
    return n;
}

static void share_gpu(struct config *cfg, uint32_t device)
{
    uint64_t named;
    const uint64_t all = backend_device_bytes("cuda", device);
    const uint32_t n = count_on(cfg, device, &named);
    if (n == 0 || (n == 1 && named == 0)) return; /* a node by itself takes what is free */
    const uint64_t share = (all > named ? all - named : 0) / n;
    for (uint32_t i = 0; i < cfg->n_decode + cfg->n_prefill; i++) {
        struct config_node *node = node_at(cfg, i);
        if (node->gpu_memory == 0 && is_on_gpu(node) && device_of(node) == device)
            node->gpu_memory = share > 2 * NODE_SPARE ? share - NODE_SPARE : NODE_SPARE;
    }
}

void share_gpus(struct config *cfg)
{
    for (uint32_t i = 0; i < cfg->n_decode + cfg->n_prefill; i++) {
        const struct config_node *node = node_at(cfg, i);
        if (node->gpu_memory == 0 && is_on_gpu(node)) share_gpu(cfg, device_of(node));
    }
}
