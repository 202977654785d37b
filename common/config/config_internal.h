/* config_internal.h - what the steps of config_load() share: the file, the checks, where each value came from. */
#ifndef CONFIG_CONFIG_INTERNAL_H
#define CONFIG_CONFIG_INTERNAL_H
#include "config/config_table.h"

/* Remembers for each field that was set which line, flag or variable set it last. */
struct config_origins {
    struct config_origin {
        const void *field;
        char *where; /* "cluster.yaml:7: decode[0].kv", "--kv", "BATON_DECODE_KV" */
    } * list;
    uint32_t n, cap;
};

/* Sets the field of `row` below `base`; `where` names the source and heads the message on failure. */
enum status config_apply(struct config_origins *o, const struct config_option *row, void *base, const char *text,
                         const char *where, struct error *err) MUST_CHECK;
/* The same for a row that is a list, behind what it holds from the same source. */
enum status config_apply_more(struct config_origins *o, const struct config_option *row, void *base, const char *text,
                              const char *where, struct error *err) MUST_CHECK;
/* Where `field` was set, or `otherwise` if it has its default. */
const char *config_origin_of(const struct config_origins *o, const void *field, const char *otherwise);

/* Reads the YAML file at `path` into cfg, whose defaults are set. */
enum status config_file_apply(struct config *cfg, const char *path, struct config_origins *o,
                              struct error *err) MUST_CHECK;
/* A new entry with defaults; ERR_FULL past the bound. */
enum status config_add_model(struct config *cfg, struct config_model **out) MUST_CHECK;
enum status config_add_node(struct config_node *list, uint32_t *n, struct config_node **out) MUST_CHECK;
/* What no single value can show: names, references, sockets.  `file` heads messages about the whole;
 * NULL: there is none. */
enum status config_check(const struct config *cfg, enum config_role role, const char *file,
                         const struct config_origins *o, struct error *err) MUST_CHECK;
/* Two sockets of one host on one port, a range with too few ports, a port past the last.  `has_file`: cfg describes the
 * whole cluster. */
enum status config_check_ports(const struct config *cfg, enum config_role role, bool has_file,
                               const struct config_origins *o, struct error *err) MUST_CHECK;
#endif
