/* config_file.c - walks the YAML tree of a cluster file into the configuration. */
#include "base/mem.h"
#include "config/config_internal.h"
#include "config/yaml.h"

#include <stdio.h>
#include <string.h>

static const char *const sections[] = { "models", "coordinator", "kv", "prefill", "decode", "security", "log" };

struct file_reader {
    struct config *cfg;
    struct config_origins *origins;
    const char *path;
    struct error *err;
};

static enum status unknown_key(const struct file_reader *r, const struct ynode *node, const char *prefix,
                               const char *const *known, uint32_t n)
{
    struct error list = { .text = "" };
    const char *near = config_nearest(node->key, known, n);
    if (near) {
        return error_set(r->err, ERR_INVALID, "%s:%u: unknown key %s%.60s; did you mean %s?", r->path, node->line,
                         prefix, node->key, near);
    }
    size_t at = 0;
    for (uint32_t i = 0; i < n && at < sizeof(list.text) - 64; i++) {
        at += (size_t)snprintf(list.text + at, 64, "%s%s", i ? ", " : "", known[i]);
    }
    return error_set(r->err, ERR_INVALID, "%s:%u: unknown key %s%.60s; allowed: %s", r->path, node->line, prefix,
                     node->key, list.text);
}

/* "key: [ a, b ]": each item adds to what the ones before it gave. */
static enum status apply_items(const struct file_reader *r, const struct ynode *list, const struct config_option *row,
                               void *base, const char *where)
{
    char place[560];
    uint32_t i = 0;
    enum status st = OK;
    if (!list->first) return error_set(r->err, ERR_INVALID, "%s: a list of at least one value is expected here", where);
    for (const struct ynode *item = list->first; item && st == OK; item = item->next, i++) {
        snprintf(place, sizeof(place), "%s[%u]", where, i);
        if (item->kind != YNODE_SCALAR) return error_set(r->err, ERR_INVALID, "%s: one value is expected here", place);
        st = (i ? config_apply_more : config_apply)(r->origins, row, base, item->text, place, r->err);
    }
    return st;
}

static enum status apply_keys(const struct file_reader *r, const struct ynode *map, enum config_scope scope,
                              const char *section, const char *prefix, void *base);

/* Whether an entry of a node has a map of that name. */
static bool is_map_of_node(const char *key)
{
    for (uint32_t i = 0; i < config_table_rows; i++) {
        const struct config_option *row = &config_table[i];
        if (row->scope == SCOPE_NODE && row->section && strcmp(row->section, key) == 0) return true;
    }
    return false;
}

/* "parallel: { tp: 2 }" within a node's entry. */
static enum status apply_map(const struct file_reader *r, const struct ynode *node, const char *prefix, void *base)
{
    char inner[96];
    if (node->kind == YNODE_SCALAR && node->is_null) return OK;
    if (node->kind != YNODE_MAP)
        return error_set(r->err, ERR_INVALID, "%s:%u: %s%s: a map of keys is expected here", r->path, node->line,
                         prefix, node->key);
    snprintf(inner, sizeof(inner), "%s%s.", prefix, node->key);
    return apply_keys(r, node, SCOPE_NODE, node->key, inner, base);
}

/* One key of a section or entry: looks its row up and sets the field below `base`. */
static enum status apply_key(const struct file_reader *r, const struct ynode *node, enum config_scope scope,
                             const char *section, const char *prefix, void *base)
{
    const char *known[64];
    uint32_t n = 0;
    char where[512];
    if (scope == SCOPE_NODE && !section && is_map_of_node(node->key)) return apply_map(r, node, prefix, base);
    bool prefill = scope == SCOPE_NODE && strncmp(prefix, "prefill", 7) == 0;
    const struct config_option *row = config_table_key(scope, section, node->key);
    if (row && (!prefill || !config_is_decode_only(row))) {
        snprintf(where, sizeof(where), "%.300s:%u: %s%s", r->path, node->line, prefix, node->key);
        if (row->list && node->kind == YNODE_LIST) return apply_items(r, node, row, base, where);
        if (node->kind != YNODE_SCALAR) {
            return error_set(r->err, ERR_INVALID, "%s: one value is expected here", where);
        }
        if (node->is_null) return OK; /* "key:" without a value keeps the default */
        return config_apply(r->origins, row, base, node->text, where, r->err);
    }
    for (uint32_t i = 0; i < config_table_rows && n < 64; i++) {
        const struct config_option *other = &config_table[i];
        if (other->scope != scope || (prefill && config_is_decode_only(other))) continue;
        if (section && (!other->section || strcmp(other->section, section) != 0)) continue;
        const char *key = section || !other->section ? other->key : other->section;
        if (n == 0 || strcmp(known[n - 1], key) != 0) known[n++] = key; /* rows of a map stand together */
    }
    return unknown_key(r, node, prefix, known, n);
}

static enum status apply_keys(const struct file_reader *r, const struct ynode *map, enum config_scope scope,
                              const char *section, const char *prefix, void *base)
{
    enum status st = OK;
    for (const struct ynode *c = map->first; c && st == OK; c = c->next) {
        st = apply_key(r, c, scope, section, prefix, base);
    }
    return st;
}

static enum status apply_entry(const struct file_reader *r, const struct ynode *list, const struct ynode *item,
                               uint32_t idx)
{
    char prefix[64];
    void *base = NULL;
    bool is_model = strcmp(list->key, "models") == 0;
    enum status st;
    if (item->kind != YNODE_MAP) {
        return error_set(r->err, ERR_INVALID, "%s:%u: %s[%u]: an entry is a map, such as { name: ... }", r->path,
                         item->line, list->key, idx);
    }
    if (is_model) {
        st = config_add_model(r->cfg, (struct config_model **)&base);
    } else if (strcmp(list->key, "prefill") == 0) {
        st = config_add_node(r->cfg->prefill, &r->cfg->n_prefill, (struct config_node **)&base);
    } else {
        st = config_add_node(r->cfg->decode, &r->cfg->n_decode, (struct config_node **)&base);
    }
    if (st != OK) {
        return error_set(r->err, st, "%s:%u: %s: more than %u entries", r->path, item->line, list->key, idx);
    }
    snprintf(prefix, sizeof(prefix), "%s[%u].", list->key, idx);
    return apply_keys(r, item, is_model ? SCOPE_MODEL : SCOPE_NODE, NULL, prefix, base);
}

static enum status apply_list(const struct file_reader *r, const struct ynode *list)
{
    uint32_t idx = 0;
    enum status st = OK;
    if (list->kind != YNODE_LIST) {
        return error_set(r->err, ERR_INVALID, "%s:%u: %s: a list of entries is expected here", r->path, list->line,
                         list->key);
    }
    for (const struct ynode *item = list->first; item && st == OK; item = item->next) {
        st = apply_entry(r, list, item, idx++);
    }
    return st;
}

static enum status apply_section(const struct file_reader *r, const struct ynode *node)
{
    char prefix[32];
    const uint32_t n = sizeof(sections) / sizeof(sections[0]);
    bool known = false;
    for (uint32_t i = 0; i < n; i++) known = known || strcmp(sections[i], node->key) == 0;
    if (!known) return unknown_key(r, node, "", sections, n);
    if (node->kind == YNODE_SCALAR && node->is_null) return OK;
    if (strcmp(node->key, "models") == 0 || strcmp(node->key, "prefill") == 0 || strcmp(node->key, "decode") == 0) {
        return apply_list(r, node);
    }
    if (node->kind != YNODE_MAP) {
        return error_set(r->err, ERR_INVALID, "%s:%u: %s: a map of keys is expected here", r->path, node->line,
                         node->key);
    }
    snprintf(prefix, sizeof(prefix), "%s.", node->key);
    return apply_keys(r, node, SCOPE_GLOBAL, node->key, prefix, r->cfg);
}

enum status config_file_apply(struct config *cfg, const char *path, struct config_origins *o, struct error *err)
{
    struct file_reader r = { .cfg = cfg, .origins = o, .path = path, .err = err };
    struct ynode *root;
    enum status st = ytree_load(&root, path, err);
    if (st != OK) return st;
    if (root->kind != YNODE_MAP) {
        st = error_set(err, ERR_INVALID, "%s:%u: a map of sections is expected here", path, root->line);
    }
    for (const struct ynode *c = root->first; c && st == OK; c = c->next) st = apply_section(&r, c);
    ytree_destroy(root);
    return st;
}
