/* config.h - the one table of options: flags, environment (BATON_*), YAML keys, defaults, --help.
 *
 * Precedence: flags, environment, file, default.  A list is taken whole from the first of them that names it.  An
 * unknown key or a bad value is refused with file, line, key and what is allowed.  All strings are owned by the config
 * and never NULL ("" = not set). */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H
#include "base/error.h"
#include "base/strbuf.h"

#include <stdint.h>
#include <stdio.h>

#define CONFIG_MAX_NODES  64
#define CONFIG_MAX_MODELS 16
#define CONFIG_MAX_ITEMS  16

#define CONFIG_HOST_KV_MEMORY ((uint64_t)512 << 20) /* kv_memory: auto of a node on the CPU */

struct config_list { /* of an option that takes several values */
    char *items[CONFIG_MAX_ITEMS];
    uint32_t n;
};

struct config_model {
    char *name;
    char *path; /* relative paths: relative to the working directory */
};

struct config_node {
    char *name;
    char *model;         /* name of a model; "" = the only one */
    uint32_t threads;    /* 0 = all cores that this process may use */
    char *cpus;          /* "0-3,6" or "" */
    uint32_t tp, pp;     /* ranks of the node: members that share out each layer, and stages of layers */
    char *backend;       /* auto, cpu, cuda */
    char *devices;       /* "0": which GPU */
    uint64_t gpu_memory; /* bytes of its memory that the node may take; 0 = auto */
    char *numerics;      /* exact, fast */
    char *isa;           /* auto, ref, avx2, vnni256, avxvnni, avx512, vnni, amx */
    char *weights;       /* auto, resident, stream */
    char *io;            /* auto, uring, pread, mmap */
    char *kv;            /* decode: where the KV plane binds, "tcp://127.0.0.1:0" */
    char *kv_advertise;  /* decode: the endpoint that senders are told, "" = the bound one; lane i adds i to its port */
    char *admin;         /* HTTP address of /metrics, /live, /ready; "127.0.0.1:0" = any free port */
    uint32_t max_seqs;   /* sequences at once */
    uint64_t kv_memory;  /* bytes of KV pool; 0 = auto */
    uint32_t max_batch_tokens; /* token budget of one step */
    uint32_t chunk_tokens;     /* longest part of one prompt in one step */
    uint32_t max_gap_ms;       /* decode: longest step beside running streams, 0 = no bound */
    uint32_t max_context;      /* 0 = the model's */
    char *local_prefill;       /* decode: auto, never, always */
};

struct config {
    struct config_model models[CONFIG_MAX_MODELS];
    uint32_t n_models;
    struct {
        struct config_list http;    /* "127.0.0.1:8080", "unix:/run/baton.sock"; all of them serve the same */
        char *admin;                /* one more for probes and metrics alone, "" = none */
        struct config_list control; /* "tcp://127.0.0.1:9090"; nodes connect to all, a coordinator binds its own */
        uint32_t max_queue;         /* requests waiting */
        uint64_t max_queue_bytes;
        uint32_t max_body_bytes; /* of one HTTP request */
        uint32_t max_connections;
        uint32_t max_connections_per_address; /* 0 = a quarter of those */
        struct config_list trusted_proxies;
        uint32_t workers;             /* threads that read large bodies and write large answers */
        uint32_t max_work;            /* bodies that may wait for them */
        uint64_t max_work_bytes;      /* all of those together */
        uint32_t request_timeout_ms;  /* deadline of one request while queued or in prefill */
        uint32_t progress_timeout_ms; /* no progress report for this long: new epoch */
        uint32_t node_wait_ms;        /* a request waits so long for a node that could serve it */
        uint32_t shutdown_timeout_ms;
        uint32_t heartbeat_ms;        /* of nodes */
        uint64_t link_bytes;          /* messages to one that does not acknowledge them */
        uint32_t dead_after_ms;       /* a node that is silent for so long is dead */
        uint32_t max_attempts;        /* nodes in a row that may fail a request */
        uint32_t default_max_tokens;  /* of a chat answer whose request names no limit, 0 = to the context's end */
        uint32_t max_prompt_logprobs; /* widest top-n that may be asked for */
        bool any_model;               /* accept any model name */
        bool content_specials;        /* chat: control tokens in the text of messages count */
        bool prefill_assistant;       /* a last message of the assistant is continued */
        bool strict_params;           /* refuse ignored request fields */
    } coordinator;
    struct {
        char *codec; /* int8, f16 */
        uint32_t lanes;
        uint32_t frame_bytes;    /* largest payload of one data frame, <= 4 MiB */
        uint64_t credit_bytes;   /* granted ahead to one transfer */
        uint64_t swap_bytes;     /* decode: host memory for KV of preempted sequences, 0 = none */
        uint64_t snapshot_bytes; /* for snapshots of recurrent states, 0 = none */
        char *rotate;            /* on, off, auto: Hadamard rotation of Q and K */
        char *prefix_cache;      /* on, off */
        char *cache_secret;      /* seeds the hashes of cached blocks */
        uint64_t tier_bytes;     /* host memory for cached blocks that the pool has no room for, 0 = none */
        char *tier_path;         /* folder for what falls out of that, "" = none */
        uint64_t tier_disk_bytes;
    } kv;
    struct config_node prefill[CONFIG_MAX_NODES], decode[CONFIG_MAX_NODES];
    uint32_t n_prefill, n_decode;
    struct {
        char *curve;   /* off (on comes later) */
        bool insecure; /* allows sockets beyond loopback without keys */
    } security;
    struct {
        char *level; /* error, warn, info, debug */
    } log;
};

enum config_role { CONFIG_COORDINATOR, CONFIG_PREFILL, CONFIG_DECODE, CONFIG_UP, CONFIG_SERVE };

struct config_run {
    struct config cfg;
    struct config_node *self; /* nodes: the entry that is this process's own; points into cfg */
    bool check_only;          /* --check-config: config was fine; say so and exit 0 */
    bool help;                /* --help was asked for and printed */
    int weights_fd;           /* --weights-fd: shared packed weights from the parent, -1 without */
    int ready_fd;             /* --ready-fd: write one line with bound addresses here when ready, -1 without */
};

/* Reads flags (argv[0] is the program's name), then BATON_* and the --config file.  Flags alone suffice for
 * every role (--coordinator, --model, --name ...).  Checks everything, sockets beyond loopback without
 * security.insecure too.  On failure err holds the sentence and the exit code is 2.  Caller frees. */
enum status config_load(struct config_run *out, enum config_role role, int argc, char **argv,
                        struct error *err) MUST_CHECK;
void config_fini(struct config_run *run);
/* Prints every key of `role` with flag, environment name, default and help. */
void config_help(FILE *f, enum config_role role, const char *program);
/* Writes all of `cfg` as a YAML file that config_load() reads back to the same values. */
void config_dump(const struct config *cfg, struct strbuf *out);
/* Whether host of "tcp://host:port" or "host:port" is a loopback address (or ipc://). */
bool config_is_loopback(const char *address);
/* All of a list with commas between.  Caller frees. */
char *config_list_join(const struct config_list *list);
/* The model entry with `name`, or the only one if name is ""; NULL if there is none. */
const struct config_model *config_model_find(const struct config *cfg, const char *name);
#endif
