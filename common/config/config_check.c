/* config_check.c - checks that need the whole configuration: names, references, sockets, values that go together. */
#include "base/cpus.h"
#include "base/host_port.h"
#include "base/kv_block.h"
#include "config/config_internal.h"
#include "config/config_value.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct checker {
    const struct config *cfg;
    const struct config_origins *origins;
    const char *file;
    struct error *err;
};

bool config_is_loopback(const char *address)
{
    struct host_port hp;
    struct in_addr v4;
    struct in6_addr v6;
    if (strncmp(address, "ipc://", 6) == 0 || strncmp(address, "unix:", 5) == 0) return true;
    if (!host_port_split(address, &hp)) return false;
    if (strcasecmp(hp.host, "localhost") == 0) return true;
    if (inet_pton(AF_INET, hp.host, &v4) == 1) return ntohl(v4.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, hp.host, &v6) != 1) return false;
    return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

const struct config_model *config_model_find(const struct config *cfg, const char *name)
{
    if (name[0] == '\0') return cfg->n_models == 1 ? &cfg->models[0] : NULL;
    for (uint32_t i = 0; i < cfg->n_models; i++) {
        if (strcmp(cfg->models[i].name, name) == 0) return &cfg->models[i];
    }
    return NULL;
}

static enum status check_socket(const struct checker *c, char *const *address, const char *key)
{
    if (c->cfg->security.insecure || config_is_loopback(*address)) return OK;
    return error_set(c->err, ERR_DENIED,
                     "%s: %s is beyond loopback and nothing is encrypted yet; keep sockets on loopback "
                     "or set security.insecure: true",
                     config_origin_of(c->origins, address, key), *address);
}

/* Nodes may dial several coordinators; a coordinator has one control plane. */
static enum status check_control(const struct checker *c, enum config_role role)
{
    const struct config_list *list = &c->cfg->coordinator.control;
    enum status st = OK;
    if (list->n > 1 && !(ROLE_BIT(role) & ROLES_NODE))
        return error_set(c->err, ERR_INVALID,
                         "%s: %u control planes are named and a coordinator has one; say with --control "
                         "which is its own",
                         config_origin_of(c->origins, list, "coordinator.control"), list->n);
    for (uint32_t i = 0; i < list->n && st == OK; i++) st = check_socket(c, &list->items[i], "coordinator.control");
    return st;
}

static enum status check_http(const struct checker *c)
{
    const struct config_list *list = &c->cfg->coordinator.http;
    enum status st = OK;
    for (uint32_t i = 0; i < list->n && st == OK; i++) st = check_socket(c, &list->items[i], "coordinator.http");
    if (st == OK && c->cfg->coordinator.admin[0]) st = check_socket(c, &c->cfg->coordinator.admin, "coordinator.admin");
    return st;
}

static enum status check_models(const struct checker *c)
{
    const struct config *cfg = c->cfg;
    char key[64];
    if (cfg->n_models == 0) {
        return error_set(c->err, ERR_INVALID, "%s: no model; give models: in the file or --model FILE", c->file);
    }
    for (uint32_t i = 0; i < cfg->n_models; i++) {
        const struct config_model *m = &cfg->models[i];
        snprintf(key, sizeof(key), "%.40s: models[%u]", c->file, i);
        if (m->path[0] == '\0') return error_set(c->err, ERR_INVALID, "%s.path is missing", key);
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(cfg->models[k].name, m->name) != 0) continue;
            return error_set(c->err, ERR_INVALID, "%s: the name %s is taken by models[%u]",
                             config_origin_of(c->origins, &m->name, key), m->name, k);
        }
    }
    return OK;
}

static enum status check_node_model(const struct checker *c, const struct config_node *node, const char *key)
{
    const char *names[CONFIG_MAX_MODELS], *near;
    if (config_model_find(c->cfg, node->model)) return OK;
    if (node->model[0] == '\0') {
        return error_set(c->err, ERR_INVALID, "%s: %s needs model: there is more than one", c->file, key);
    }
    for (uint32_t i = 0; i < c->cfg->n_models; i++) names[i] = c->cfg->models[i].name;
    near = config_nearest(node->model, names, c->cfg->n_models);
    return error_set(c->err, ERR_INVALID, "%s: there is no model %s; %s %s%s",
                     config_origin_of(c->origins, &node->model, key), node->model,
                     near ? "did you mean" : "the first is", near ? near : names[0], near ? "?" : "");
}

/* Node i of all nodes, prefill first; `key` gets its place in the file. */
static const struct config_node *node_at(const struct config *cfg, uint32_t i, char *key, size_t cap)
{
    bool prefill = i < cfg->n_prefill;
    uint32_t idx = prefill ? i : i - cfg->n_prefill;
    snprintf(key, cap, "%s[%u]", prefill ? "prefill" : "decode", idx);
    return prefill ? &cfg->prefill[idx] : &cfg->decode[idx];
}

/* One GPU, and no ranks on it. */
static enum status check_gpu(const struct checker *c, const struct config_node *node, const char *key)
{
    struct cpu_list devices;
    if (cpu_list_parse(&devices, node->devices) == OK && devices.n > 1)
        return error_set(c->err, ERR_UNSUPPORTED, "%s: devices %s: a node computes on one GPU; name one",
                         config_origin_of(c->origins, &node->devices, key), node->devices);
    if (strcmp(node->backend, "cuda") == 0 && (node->tp > 1 || node->pp > 1))
        return error_set(c->err, ERR_UNSUPPORTED,
                         "%s: backend cuda with tp %u and pp %u: ranks compute on the CPU alone; both have to be 1",
                         config_origin_of(c->origins, &node->backend, key), node->tp, node->pp);
    return OK;
}

/* Sizes and ways that do not go together, whatever the model. */
static enum status check_engine(const struct checker *c, const struct config_node *node, const char *key)
{
    if (strcmp(node->weights, "stream") == 0 && strcmp(node->io, "mmap") == 0)
        return error_set(c->err, ERR_INVALID, "%s: weights are not streamed through a mapping; auto, uring or pread",
                         config_origin_of(c->origins, &node->io, key));
    /* a prompt goes on beside a full batch */
    if (node->max_batch_tokens < node->max_seqs + KV_BLOCK_TOKENS)
        return error_set(c->err, ERR_INVALID,
                         "%s: %u tokens a step are too few for max_seqs %u; %u let prompts go on beside them",
                         config_origin_of(c->origins, &node->max_batch_tokens, key), node->max_batch_tokens,
                         node->max_seqs, node->max_seqs + KV_BLOCK_TOKENS);
    return check_gpu(c, node, key);
}

static enum status check_tier(const struct checker *c)
{
    const struct config *cfg = c->cfg;
    const bool has_path = cfg->kv.tier_path[0] != '\0';
    if (has_path != (cfg->kv.tier_disk_bytes > 0))
        return error_set(c->err, ERR_INVALID, "%s: kv.tier_path and kv.tier_disk_bytes go together: set both or none",
                         config_origin_of(c->origins, &cfg->kv.tier_path, "kv.tier_path"));
    if ((has_path || cfg->kv.tier_bytes > 0) && strcmp(cfg->kv.prefix_cache, "off") == 0)
        return error_set(c->err, ERR_INVALID,
                         "%s: a tier keeps what the prefix cache knows, and kv.prefix_cache is off",
                         config_origin_of(c->origins, &cfg->kv.tier_bytes, "kv.tier_bytes"));
    return OK;
}

/* Senders must be told an address that leads here. */
static enum status check_reachable(const struct checker *c, const struct config_node *node, const char *key)
{
    static const char *const wild[] = { "tcp://*:", "tcp://0.0.0.0:", "tcp://[::]:" };
    struct host_port told;
    if (host_port_split(node->kv_advertise, &told) && told.lo + c->cfg->kv.lanes - 1 > 65535 && told.lo > 0)
        return error_set(c->err, ERR_INVALID, "%s: %s: the last of %u lanes would have port %u",
                         config_origin_of(c->origins, &node->kv_advertise, key), node->kv_advertise, c->cfg->kv.lanes,
                         told.lo + c->cfg->kv.lanes - 1);
    if (node->kv_advertise[0]) return OK;
    for (size_t i = 0; i < sizeof(wild) / sizeof(wild[0]); i++)
        if (strncmp(node->kv, wild[i], strlen(wild[i])) == 0)
            return error_set(c->err, ERR_INVALID,
                             "%s: %s: name the address that prefill nodes reach, or give it as kv_advertise "
                             "(tcp://host:0: the bound port)",
                             config_origin_of(c->origins, &node->kv, key), node->kv);
    return OK;
}

static enum status check_node(const struct checker *c, uint32_t i)
{
    char key[64], other_key[64];
    const struct config_node *node = node_at(c->cfg, i, key, sizeof(key));
    enum status st = check_node_model(c, node, key);
    if (st != OK) return st;
    for (uint32_t k = 0; k < i; k++) {
        const struct config_node *other = node_at(c->cfg, k, other_key, sizeof(other_key));
        if (strcmp(other->name, node->name) != 0) continue;
        return error_set(c->err, ERR_INVALID, "%s: the name %s is taken by %s",
                         config_origin_of(c->origins, &node->name, key), node->name, other_key);
    }
    if ((st = check_engine(c, node, key)) != OK) return st;
    if ((st = check_socket(c, &node->admin, key)) != OK) return st;
    if (i < c->cfg->n_prefill) return OK;
    if ((st = check_socket(c, &node->kv, key)) != OK) return st;
    return check_reachable(c, node, key);
}

/* Nodes that start together on this host must not be pinned to the same processors. */
static enum status check_cpus(const struct checker *c, uint32_t i)
{
    char key[64], other_key[64];
    const struct config_node *node = node_at(c->cfg, i, key, sizeof(key));
    struct cpu_list own, other;
    if (cpu_list_parse(&own, node->cpus) != OK) return OK; /* not set */
    for (uint32_t k = 0; k < i; k++) {
        if (cpu_list_parse(&other, node_at(c->cfg, k, other_key, sizeof(other_key))->cpus) != OK) continue;
        for (uint32_t j = 0; j < own.n; j++)
            if (cpu_list_has(&other, own.ids[j]))
                return error_set(c->err, ERR_INVALID, "%s: cpus %s: processor %u belongs to %s already",
                                 config_origin_of(c->origins, &node->cpus, key), node->cpus, own.ids[j], other_key);
    }
    return OK;
}

enum status config_check(const struct config *cfg, enum config_role role, const char *file,
                         const struct config_origins *o, struct error *err)
{
    struct checker c = { .cfg = cfg, .origins = o, .file = file ? file : "flags", .err = err };
    enum status st;
    if (strcmp(cfg->security.curve, "on") == 0) {
        return error_set(err, ERR_UNSUPPORTED,
                         "%s: on comes later; keep sockets on loopback or set security.insecure: true",
                         config_origin_of(o, &cfg->security.curve, "security.curve"));
    }
    if (cfg->kv.credit_bytes < cfg->kv.frame_bytes) {
        return error_set(err, ERR_INVALID, "%s: one frame (kv.frame_bytes) must fit into kv.credit_bytes",
                         config_origin_of(o, &cfg->kv.credit_bytes, "kv.credit_bytes"));
    }
    if ((st = check_tier(&c)) != OK) return st;
    if ((st = check_models(&c)) != OK) return st;
    if ((st = check_http(&c)) != OK) return st;
    if ((st = check_control(&c, role)) != OK) return st;
    for (uint32_t i = 0; i < cfg->n_prefill + cfg->n_decode; i++) {
        if ((st = check_node(&c, i)) != OK) return st;
        if (role == CONFIG_UP && (st = check_cpus(&c, i)) != OK) return st;
    }
    if (role == CONFIG_UP && cfg->n_decode == 0) {
        return error_set(err, ERR_INVALID, "%s: decode: a cluster needs at least one decode node", c.file);
    }
    return config_check_ports(cfg, role, file != NULL, o, err);
}
