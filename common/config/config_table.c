/* config_table.c - the rows of the option table and the look-ups in it. */
#include "config/config_table.h"

#include "base/mem.h"
#include "config/config_value.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define KIB    (1ull << 10)
#define MIB    (1ull << 20)
#define GIB    (1ull << 30)
#define TIB    (1ull << 40)
#define SECOND 1000ull
#define HOUR   (3600 * SECOND)

#define AT_ARGS(field)  offsetof(struct config_args, field)
#define AT(field)       offsetof(struct config, field)
#define AT_MODEL(field) offsetof(struct config_model, field)
#define AT_NODE(field)  offsetof(struct config_node, field)
#define ROLE_DECODE     (ROLE_BIT(CONFIG_DECODE) | ROLE_BIT(CONFIG_SERVE))
#define ROLES_ENGINE    (ROLES_NODE | ROLE_BIT(CONFIG_SERVE))
#define ROLES_HTTP      (ROLE_BIT(CONFIG_COORDINATOR) | ROLE_BIT(CONFIG_SERVE))
#define ROLES_FILE      (ROLES_ALL & ~ROLE_BIT(CONFIG_SERVE))
#define ROLES_MODEL     (ROLES_ALL & ~ROLE_BIT(CONFIG_UP))

/* clang-format off */
const struct config_option config_table[] = {
    /* scope, section, key, flag, alias, roles, type, offset, min, max, step, choices, default, help, list */
    { SCOPE_ARGS, NULL, "config", "config", NULL, ROLES_FILE, OPTION_STRING, AT_ARGS(config), 0, 0, 0, NULL, "",
      "the cluster's YAML file" },
    { SCOPE_ARGS, NULL, "name", "name", NULL, ROLES_NODE, OPTION_NAME, AT_ARGS(name), 0, 0, 0, NULL, "",
      "which node of the file this is, or its name if there is no file" },
    { SCOPE_ARGS, NULL, "model", "model", "m", ROLES_MODEL, OPTION_STRING, AT_ARGS(model), 0, 0, 0, NULL, "",
      "GGUF file (of a split model its first part), or the name of a model of the file" },
    { SCOPE_ARGS, NULL, "model_name", "model-name", "alias", ROLES_MODEL, OPTION_MODEL_NAME, AT_ARGS(model_name), 0, 0,
      0, NULL, "", "name under which --model is served; without it, the file's" },
    { SCOPE_ARGS, NULL, "host", "host", NULL, ROLES_HTTP, OPTION_HOST, AT_ARGS(host), 0, 0, 0, NULL, "",
      "host part of --http" },
    { SCOPE_ARGS, NULL, "port", "port", NULL, ROLES_HTTP, OPTION_PORT, AT_ARGS(port), 0, 65535, 0, NULL, "",
      "port part of --http" },
    { SCOPE_ARGS, NULL, "check_config", "check-config", NULL, ROLES_ALL, OPTION_BOOL, AT_ARGS(check_only), 0, 0, 0,
      NULL, "false", "check the configuration, say so and end" },
    { SCOPE_ARGS, NULL, "help", "help", "h", ROLES_ALL, OPTION_BOOL, AT_ARGS(help), 0, 0, 0, NULL, "false",
      "print this text and end" },
    { SCOPE_ARGS, NULL, "weights_fd", "weights-fd", NULL, ROLES_NODE, OPTION_FD, AT_ARGS(weights_fd), 0, 1u << 20, 0,
      NULL, "", "descriptor of packed weights that a parent shares" },
    { SCOPE_ARGS, NULL, "ready_fd", "ready-fd", NULL, ROLES_ALL, OPTION_FD, AT_ARGS(ready_fd), 0, 1u << 20, 0, NULL,
      "", "descriptor to which one line goes when ready" },

    { SCOPE_MODEL, NULL, "name", NULL, NULL, 0, OPTION_MODEL_NAME, AT_MODEL(name), 0, 0, 0, NULL, "",
      "name in requests and in nodes' entries; without it, the file's" },
    { SCOPE_MODEL, NULL, "path", NULL, NULL, 0, OPTION_STRING, AT_MODEL(path), 0, 0, 0, NULL, "",
      "GGUF file (of a split model its first part), relative to the working directory" },

    { SCOPE_GLOBAL, "coordinator", "http", "http", NULL, ROLES_API, OPTION_LISTEN, AT(coordinator.http), 0, 0, 0, NULL,
      "127.0.0.1:8080", "addresses of the OpenAI API", CONFIG_MAX_ITEMS },
    { SCOPE_GLOBAL, "coordinator", "admin", "admin", NULL, ROLES_API & ~ROLE_BIT(CONFIG_SERVE), OPTION_LISTEN,
      AT(coordinator.admin), 0, 0, 0, NULL, "", "one more address for /live, /ready, /health and /metrics alone" },
    { SCOPE_GLOBAL, "coordinator", "control", "control", "coordinator", ROLES_FILE, OPTION_ENDPOINT,
      AT(coordinator.control), 0, 0, 0, NULL, "tcp://127.0.0.1:9090",
      "control plane: a coordinator binds it, nodes connect to it, and to all of several", CONFIG_MAX_ITEMS },
    { SCOPE_GLOBAL, "coordinator", "max_queue", "max-queue", NULL, ROLES_API, OPTION_U32, AT(coordinator.max_queue), 0,
      1000000, 0, NULL, "4096", "requests that may wait; past it 429" },
    { SCOPE_GLOBAL, "coordinator", "max_queue_bytes", "max-queue-bytes", NULL, ROLES_API, OPTION_SIZE,
      AT(coordinator.max_queue_bytes), MIB, TIB, 0, NULL, "256MiB", "bytes of requests that may wait; past it 429" },
    { SCOPE_GLOBAL, "coordinator", "max_body_bytes", "max-body-bytes", NULL, ROLES_API, OPTION_SIZE32,
      AT(coordinator.max_body_bytes), KIB, GIB, 0, NULL, "32MiB", "largest HTTP request body; past it 413" },
    { SCOPE_GLOBAL, "coordinator", "max_connections", "max-connections", NULL, ROLES_API, OPTION_U32,
      AT(coordinator.max_connections), 1, 100000, 0, NULL, "8192",
      "HTTP connections at once; past it 503, but for probes and metrics" },
    { SCOPE_GLOBAL, "coordinator", "max_connections_per_address", "max-connections-per-address", NULL, ROLES_API,
      OPTION_U32, AT(coordinator.max_connections_per_address), 0, 100000, 0, NULL, "0",
      "of those from one client's address; past it 429; 0: a quarter" },
    { SCOPE_GLOBAL, "coordinator", "trusted_proxies", "trusted-proxies", NULL, ROLES_API, OPTION_STRING,
      AT(coordinator.trusted_proxies), 0, 0, 0, NULL, "",
      "addresses and networks of proxies, whose word about a client's address counts", CONFIG_MAX_ITEMS },
    { SCOPE_GLOBAL, "coordinator", "workers", "workers", NULL, ROLES_API, OPTION_U32, AT(coordinator.workers), 1, 32, 0,
      NULL, "2", "threads that read large request bodies and write large answers" },
    { SCOPE_GLOBAL, "coordinator", "max_work", "max-work", NULL, ROLES_API, OPTION_U32, AT(coordinator.max_work), 1,
      1000000, 0, NULL, "4096", "request bodies that may be read or wait for it; past it 429" },
    { SCOPE_GLOBAL, "coordinator", "max_work_bytes", "max-work-bytes", NULL, ROLES_API, OPTION_SIZE,
      AT(coordinator.max_work_bytes), MIB, TIB, 0, NULL, "256MiB",
      "bytes of request bodies that may be read or wait for it; past it 429" },
    { SCOPE_GLOBAL, "coordinator", "request_timeout", "request-timeout", NULL, ROLES_API, OPTION_DURATION,
      AT(coordinator.request_timeout_ms), SECOND, 24 * HOUR, 0, NULL, "600s",
      "how long a request may wait and prefill; past it 504" },
    { SCOPE_GLOBAL, "coordinator", "progress_timeout", "progress-timeout", NULL, ROLES_API, OPTION_DURATION,
      AT(coordinator.progress_timeout_ms), 100, HOUR, 0, NULL, "10s",
      "without progress for this long, a request starts a new epoch" },
    { SCOPE_GLOBAL, "coordinator", "node_wait", "node-wait", NULL, ROLES_API, OPTION_DURATION,
      AT(coordinator.node_wait_ms), 0, HOUR, 0, NULL, "30s",
      "how long a request waits for a node to come, where none can serve it; past it 503" },
    { SCOPE_GLOBAL, "coordinator", "shutdown_timeout", "shutdown-timeout", NULL, ROLES_ALL, OPTION_DURATION,
      AT(coordinator.shutdown_timeout_ms), 0, HOUR, 0, NULL, "30s", "how long a drain lets requests finish" },
    { SCOPE_GLOBAL, "coordinator", "heartbeat", "heartbeat", NULL, ROLES_API, OPTION_DURATION,
      AT(coordinator.heartbeat_ms), 100, 60 * SECOND, 0, NULL, "1s", "how often nodes tell their load" },
    { SCOPE_GLOBAL, "coordinator", "link_bytes", "link-bytes", NULL, ROLES_ALL, OPTION_SIZE, AT(coordinator.link_bytes),
      64 * KIB, GIB, 0, NULL, "64MiB",
      "messages kept for a coordinator or node that does not acknowledge them; from half of it on, work for it waits" },
    { SCOPE_GLOBAL, "coordinator", "dead_after", "dead-after", NULL, ROLES_API, OPTION_DURATION,
      AT(coordinator.dead_after_ms), 2 * SECOND, 600 * SECOND, 0, NULL, "3s",
      "a node that is silent for so long is dead; one that disconnects is, within 0.2 s" },
    { SCOPE_GLOBAL, "coordinator", "max_attempts", "max-attempts", NULL, ROLES_API, OPTION_U32,
      AT(coordinator.max_attempts), 1, 100, 0, NULL, "3",
      "nodes in a row that may fail a request before it is given up" },
    { SCOPE_GLOBAL, "coordinator", "default_max_tokens", "default-max-tokens", NULL, ROLES_API, OPTION_U32,
      AT(coordinator.default_max_tokens), 0, 1u << 24, 0, NULL, "0",
      "longest chat answer where the request names no max_tokens; 0: to the end of the context" },
    { SCOPE_GLOBAL, "coordinator", "max_prompt_logprobs", "max-prompt-logprobs", NULL, ROLES_API, OPTION_U32,
      AT(coordinator.max_prompt_logprobs), 0, 1000, 0, NULL, "20", "widest top-n of logprobs that may be asked for" },
    { SCOPE_GLOBAL, "coordinator", "any_model", "any-model", NULL, ROLES_API, OPTION_BOOL, AT(coordinator.any_model),
      0, 0, 0, NULL, "false", "accept any model name in requests" },
    { SCOPE_GLOBAL, "coordinator", "content_specials", "content-specials", NULL, ROLES_API, OPTION_BOOL,
      AT(coordinator.content_specials), 0, 0, 0, NULL, "false",
      "let what messages say become control tokens, as the template's own text does" },
    { SCOPE_GLOBAL, "coordinator", "prefill_assistant", "prefill-assistant", NULL, ROLES_API, OPTION_BOOL,
      AT(coordinator.prefill_assistant), 0, 0, 0, NULL, "false",
      "answers continue a last message of the assistant, as with continue_final_message" },
    { SCOPE_GLOBAL, "coordinator", "strict_params", "strict-params", NULL, ROLES_API, OPTION_BOOL,
      AT(coordinator.strict_params), 0, 0, 0, NULL, "false", "refuse request fields that are otherwise ignored" },

    { SCOPE_GLOBAL, "kv", "codec", "kv-codec", NULL, ROLES_ALL, OPTION_CHOICE, AT(kv.codec), 0, 0, 0, "int8|f16",
      "int8", "form of KV in memory and on the wire; f16 is for comparison" },
    { SCOPE_GLOBAL, "kv", "lanes", "kv-lanes", NULL, ROLES_ALL, OPTION_U32, AT(kv.lanes), 1, 16, 0, NULL, "2",
      "connections from a prefill node to a decode node" },
    { SCOPE_GLOBAL, "kv", "frame_bytes", "kv-frame-bytes", NULL, ROLES_ALL, OPTION_SIZE32, AT(kv.frame_bytes),
      64 * KIB, 4 * MIB, 0, NULL, "1MiB", "largest payload of one data frame" },
    { SCOPE_GLOBAL, "kv", "credit_bytes", "kv-credit-bytes", NULL, ROLES_ALL, OPTION_SIZE, AT(kv.credit_bytes), MIB,
      16 * GIB, 0, NULL, "64MiB", "bytes that one transfer may have under way" },
    { SCOPE_GLOBAL, "kv", "swap_bytes", "kv-swap-bytes", NULL, ROLES_ALL, OPTION_SIZE, AT(kv.swap_bytes), 0,
      16 * TIB, 0, NULL, "256MiB",
      "at most so much host memory of a decode node for KV of preempted sequences; past it they are recomputed" },
    { SCOPE_GLOBAL, "kv", "snapshot_bytes", "kv-snapshot-bytes", NULL, ROLES_ALL, OPTION_SIZE, AT(kv.snapshot_bytes),
      0, 16 * TIB, 0, NULL, "512MiB",
      "memory of each node for snapshots of recurrent states, where prompts go on that begin alike; 0: none" },
    { SCOPE_GLOBAL, "kv", "rotate", "kv-rotate", NULL, ROLES_ALL, OPTION_CHOICE, AT(kv.rotate), 0, 0, 0, "auto|on|off",
      "auto", "Hadamard rotation of Q and K before quantization" },
    { SCOPE_GLOBAL, "kv", "prefix_cache", "prefix-cache", NULL, ROLES_ALL, OPTION_CHOICE, AT(kv.prefix_cache), 0, 0, 0,
      "on|off", "on", "keep KV blocks for later requests that begin with the same tokens" },
    { SCOPE_GLOBAL, "kv", "cache_secret", NULL, NULL, ROLES_ALL, OPTION_STRING, AT(kv.cache_secret), 0, 0, 0, NULL, "",
      "seeds the hashes of cached blocks; the same on all nodes" },
    { SCOPE_GLOBAL, "kv", "tier_bytes", "kv-tier-bytes", NULL, ROLES_ALL, OPTION_SIZE, AT(kv.tier_bytes), 0,
      16 * TIB, 0, NULL, "0", "host memory of each node for cached KV blocks that its pool has no room for; 0: none" },
    { SCOPE_GLOBAL, "kv", "tier_path", "kv-tier-path", NULL, ROLES_ALL, OPTION_STRING, AT(kv.tier_path), 0, 0, 0, NULL,
      "", "folder on a disk for what falls out of kv.tier_bytes; empty: none" },
    { SCOPE_GLOBAL, "kv", "tier_disk_bytes", "kv-tier-disk-bytes", NULL, ROLES_ALL, OPTION_SIZE,
      AT(kv.tier_disk_bytes), 0, 64 * TIB, 0, NULL, "0", "size of each node's file in kv.tier_path" },

    { SCOPE_NODE, NULL, "name", NULL, NULL, 0, OPTION_NAME, AT_NODE(name), 0, 0, 0, NULL, "",
      "name of the node, unique in the cluster; without it p0, p1, ... or d0, d1, ..." },
    { SCOPE_NODE, NULL, "model", NULL, NULL, 0, OPTION_MODEL_NAME, AT_NODE(model), 0, 0, 0, NULL, "",
      "name of its model; may be left out if there is one only" },
    { SCOPE_NODE, NULL, "threads", "threads", "t", ROLES_ENGINE, OPTION_U32, AT_NODE(threads), 0, 1024, 0, NULL, "0",
      "compute threads; serve: of all nodes together; 0: one for each core that may be used" },
    { SCOPE_NODE, NULL, "cpus", "cpus", NULL, ROLES_NODE, OPTION_CPUS, AT_NODE(cpus), 0, 0, 0, NULL, "",
      "processors that the node owns and pins its threads to, such as 0-3,6" },
    { SCOPE_NODE, "parallel", "tp", "tp", NULL, ROLES_NODE, OPTION_U32, AT_NODE(tp), 1, 64, 0, NULL, "1",
      "ranks of the node that share out the heads and rows of each layer" },
    { SCOPE_NODE, "parallel", "pp", "pp", NULL, ROLES_NODE, OPTION_U32, AT_NODE(pp), 1, 64, 0, NULL, "1",
      "runs of layers, one after the other, each with ranks of its own" },
    { SCOPE_NODE, NULL, "backend", "backend", NULL, ROLES_ENGINE, OPTION_CHOICE, AT_NODE(backend), 0, 0, 0,
      "auto|cpu|cuda", "auto", "what the node computes with; auto: an NVIDIA GPU where there is one, else the CPU" },
    { SCOPE_NODE, NULL, "devices", "devices", NULL, ROLES_ENGINE, OPTION_CPUS, AT_NODE(devices), 0, 0, 0, NULL, "0",
      "which GPU, by the number that `baton doctor` shows" },
    { SCOPE_NODE, NULL, "gpu_memory", "gpu-memory", NULL, ROLES_ENGINE, OPTION_SIZE_AUTO, AT_NODE(gpu_memory),
      64 * MIB, 16 * TIB, 0, NULL, "auto",
      "most that the node may take of the GPU's memory; auto: what is free, but for a reserve" },
    { SCOPE_NODE, NULL, "numerics", "numerics", NULL, ROLES_ENGINE, OPTION_CHOICE, AT_NODE(numerics), 0, 0, 0,
      "exact|fast", "fast", "on a GPU: the CPU's bits, or whatever is fastest; the CPU is always exact" },
    { SCOPE_NODE, NULL, "isa", "isa", NULL, ROLES_ENGINE, OPTION_CHOICE, AT_NODE(isa), 0, 0, 0,
      "auto|ref|avx2|vnni256|avxvnni|avx512|vnni|amx", "auto", "highest instruction set that kernels may use" },
    { SCOPE_NODE, NULL, "weights", "weights", NULL, ROLES_ENGINE, OPTION_CHOICE, AT_NODE(weights), 0, 0, 0,
      "auto|resident|stream", "auto", "weights in memory, or read from the file in each step; auto: whichever fits" },
    { SCOPE_NODE, NULL, "io", "io", NULL, ROLES_ENGINE, OPTION_CHOICE, AT_NODE(io), 0, 0, 0, "auto|uring|pread|mmap",
      "auto", "how weights are read; auto: the mapping if the file is cached, else io_uring, else threads" },
    { SCOPE_NODE, NULL, "kv", "kv", NULL, ROLE_BIT(CONFIG_DECODE), OPTION_TCP_RANGE, AT_NODE(kv), 0, 0, 0,
      NULL, "tcp://127.0.0.1:0",
      "where a decode node takes KV: the port and those behind it, one for each lane; free ones of a range; 0: any" },
    { SCOPE_NODE, NULL, "kv_advertise", "kv-advertise", NULL, ROLE_BIT(CONFIG_DECODE), OPTION_TCP,
      AT_NODE(kv_advertise), 0, 0, 0, NULL, "",
      "endpoint that senders are told, where it is not the bound one; port 0: the bound port" },
    { SCOPE_NODE, NULL, "admin", "admin", NULL, ROLES_NODE, OPTION_HTTP_RANGE, AT_NODE(admin), 0, 0, 0, NULL,
      "127.0.0.1:0", "address of /metrics, /live and /ready; of a range a free port; port 0: any" },
    { SCOPE_NODE, NULL, "max_seqs", "max-seqs", NULL, ROLES_ENGINE, OPTION_U32, AT_NODE(max_seqs), 1, 4096, 0, NULL,
      "32", "sequences at once" },
    { SCOPE_NODE, NULL, "kv_memory", "kv-memory", NULL, ROLES_ENGINE, OPTION_SIZE_AUTO, AT_NODE(kv_memory), MIB,
      16 * TIB, 0, NULL, "auto", "memory of the KV pool; auto: 512MiB, on a GPU what is left of its memory" },
    { SCOPE_NODE, NULL, "max_batch_tokens", "max-batch-tokens", NULL, ROLES_ENGINE, OPTION_U32,
      AT_NODE(max_batch_tokens), 64, 65536, 0, NULL, "512", "tokens in one step, prompts and answers together" },
    { SCOPE_NODE, NULL, "chunk_tokens", "chunk-tokens", NULL, ROLES_ENGINE, OPTION_U32, AT_NODE(chunk_tokens), 64,
      65536, 64, NULL, "256", "longest part of one prompt in one step" },
    { SCOPE_NODE, NULL, "max_gap", "max-gap", NULL, ROLE_DECODE, OPTION_DURATION, AT_NODE(max_gap_ms), 0, HOUR, 0, NULL,
      "200ms", "how long a prompt's chunk may keep running streams from their next token; 0: no bound" },
    { SCOPE_NODE, NULL, "max_context", "max-context", NULL, ROLES_ENGINE, OPTION_U32, AT_NODE(max_context), 0,
      1u << 24, 0, NULL, "0", "longest sequence; 0: what the model was made for" },
    { SCOPE_NODE, NULL, "local_prefill", "local-prefill", NULL, ROLE_DECODE, OPTION_CHOICE, AT_NODE(local_prefill), 0,
      0, 0, "auto|never|always", "auto", "whether a decode node reads prompts itself" },

    { SCOPE_GLOBAL, "security", "curve", "curve", NULL, ROLES_ALL, OPTION_CHOICE, AT(security.curve), 0, 0, 0,
      "off|on", "off", "CURVE keys on the control plane" },
    { SCOPE_GLOBAL, "security", "insecure", "insecure", NULL, ROLES_ALL, OPTION_BOOL, AT(security.insecure), 0, 0, 0,
      NULL, "false", "allow sockets beyond loopback in plain text" },
    { SCOPE_GLOBAL, "log", "level", "log-level", NULL, ROLES_ALL, OPTION_CHOICE, AT(log.level), 0, 0, 0,
      "error|warn|info|debug", "info", "least important lines that are logged" },
};
/* clang-format on */
const uint32_t config_table_rows = sizeof(config_table) / sizeof(config_table[0]);

static bool same(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

const struct config_option *config_table_key(enum config_scope scope, const char *section, const char *key)
{
    for (uint32_t i = 0; i < config_table_rows; i++) {
        const struct config_option *row = &config_table[i];
        if (row->scope == scope && same(row->section, section) && same(row->key, key)) return row;
    }
    return NULL;
}

const char *config_table_env(const struct config_option *row, enum config_role role, char *buf, size_t cap)
{
    const char *section = row->section;
    buf[0] = '\0';
    /* A switch, a descriptor or a part of --http belongs to one command line. */
    bool is_text = row->type == OPTION_NAME || row->type == OPTION_MODEL_NAME || row->type == OPTION_STRING;
    if (row->scope == SCOPE_ARGS && !is_text) return buf;
    if (row->scope == SCOPE_NODE) {
        section = role == CONFIG_PREFILL ? "prefill" : role == CONFIG_DECODE ? "decode" : NULL;
    }
    snprintf(buf, cap, "BATON_%s%s%s", section ? section : "", section ? "_" : "", row->key);
    for (char *p = buf; *p; p++) *p = (char)toupper((unsigned char)*p);
    return buf;
}

bool config_is_decode_only(const struct config_option *row)
{
    return row->scope == SCOPE_NODE && row->flag && !(row->roles & ROLE_BIT(CONFIG_PREFILL));
}

bool config_type_is_text(enum config_type type)
{
    return type >= OPTION_CHOICE;
}

bool config_type_is_bound(enum config_type type)
{
    return type >= OPTION_LISTEN && type <= OPTION_TCP_RANGE && type != OPTION_TCP; /* kv_advertise is only told */
}

void config_table_defaults(enum config_scope scope, void *base)
{
    for (uint32_t i = 0; i < config_table_rows; i++) {
        const struct config_option *row = &config_table[i];
        if (row->scope != scope) continue;
        if (row->type == OPTION_FD) {
            *(int *)((char *)base + row->offset) = -1;
        } else if (row->fallback[0] == '\0' && !row->list) {
            *(char **)((char *)base + row->offset) = mem_strdup("");
        } else if (row->fallback[0] == '\0') {
            ((struct config_list *)((char *)base + row->offset))->n = 0;
        } else {
            enum status st = config_value_set(row, base, row->fallback, NULL);
            assert(st == OK); /* a default that its own row refuses is a bug of the table */
        }
    }
}

void config_table_free(enum config_scope scope, void *base)
{
    for (uint32_t i = 0; i < config_table_rows; i++) {
        const struct config_option *row = &config_table[i];
        if (row->scope != scope || !config_type_is_text(row->type)) continue;
        config_value_clear(row, base);
    }
}

/* Edits that make b of a: insert, delete or replace one letter; words past 40 letters count as far away. */
static uint32_t edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    uint32_t row[42];
    if (n > 40 || m > 40) return UINT32_MAX;
    for (size_t j = 0; j <= m; j++) row[j] = (uint32_t)j;
    for (size_t i = 1; i <= n; i++) {
        uint32_t diagonal = row[0];
        row[0] = (uint32_t)i;
        for (size_t j = 1; j <= m; j++) {
            uint32_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

const char *config_nearest(const char *word, const char *const *candidates, uint32_t n)
{
    const char *best = NULL;
    uint32_t best_distance = (uint32_t)strlen(word) / 3 + 2;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t d = edit_distance(word, candidates[i]);
        if (d < best_distance) {
            best_distance = d;
            best = candidates[i];
        }
    }
    return best;
}
