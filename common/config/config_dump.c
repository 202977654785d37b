/* config_dump.c - a configuration as YAML, so that a launcher can hand it to its children whole. */
#include "base/json_write.h"
#include "config/config_table.h"

#include <string.h>

static void dump_value(const struct config_option *row, const void *base, struct strbuf *out)
{
    const void *field = (const char *)base + row->offset;
    const struct config_list *list = field;
    if (row->list) {
        for (uint32_t i = 0; i < list->n; i++) {
            strbuf_puts(out, i ? ", " : "[ ");
            json_cstr(out, list->items[i]);
        }
        strbuf_puts(out, " ]");
    } else if (config_type_is_text(row->type))
        json_cstr(out, *(char *const *)field); /* a JSON string is a YAML string */
    else if (row->type == OPTION_BOOL)
        strbuf_puts(out, *(const bool *)field ? "true" : "false");
    else if (row->type == OPTION_SIZE_AUTO && *(const uint64_t *)field == 0)
        strbuf_puts(out, "auto");
    else if (row->type == OPTION_SIZE || row->type == OPTION_SIZE_AUTO)
        strbuf_addf(out, "%llu", (unsigned long long)*(const uint64_t *)field);
    else
        strbuf_addf(out, "%u%s", *(const uint32_t *)field, row->type == OPTION_DURATION ? "ms" : "");
}

static bool is_unset(const struct config_option *row, const void *base)
{
    const void *field = (const char *)base + row->offset;
    if (row->list) return ((const struct config_list *)field)->n == 0;
    return config_type_is_text(row->type) && **(char *const *)field == '\0';
}

/* Where a row of that scope is written: its section, if a map of that name is to be opened for it; else NULL. */
static const char *map_of(const struct config_option *row)
{
    return row->scope == SCOPE_NODE ? row->section : NULL;
}

static bool is_dumped(const struct config_option *row, enum config_scope scope, const char *section, bool is_decode,
                      const void *base)
{
    if (row->scope != scope || (section && (!row->section || strcmp(row->section, section) != 0))) return false;
    return (is_decode || !config_is_decode_only(row)) && !is_unset(row, base);
}

/* "{ key: value, map: { key: value }, ... }" with the rows of one scope and section; those of a map stand together. */
static void dump_rows(enum config_scope scope, const char *section, bool is_decode, const void *base,
                      struct strbuf *out)
{
    const char *comma = "", *open = NULL;
    strbuf_puts(out, "{ ");
    for (uint32_t i = 0; i < config_table_rows; i++) {
        const struct config_option *row = &config_table[i];
        if (!is_dumped(row, scope, section, is_decode, base)) continue;
        const char *map = map_of(row);
        if (open && map != open && (!map || strcmp(map, open) != 0)) strbuf_puts(out, " }");
        strbuf_puts(out, comma);
        if (map && (!open || strcmp(map, open) != 0)) strbuf_addf(out, "%s: { ", map);
        strbuf_addf(out, "%s: ", row->key);
        dump_value(row, base, out);
        open = map;
        comma = ", ";
    }
    strbuf_puts(out, open ? " } }\n" : " }\n");
}

static void dump_nodes(const char *section, const struct config_node *nodes, uint32_t n, bool is_decode,
                       struct strbuf *out)
{
    if (n) strbuf_addf(out, "%s:\n", section);
    for (uint32_t i = 0; i < n; i++) {
        strbuf_puts(out, "  - ");
        dump_rows(SCOPE_NODE, NULL, is_decode, &nodes[i], out);
    }
}

void config_dump(const struct config *cfg, struct strbuf *out)
{
    static const char *const sections[] = { "coordinator", "kv", "security", "log" };
    if (cfg->n_models) strbuf_puts(out, "models:\n");
    for (uint32_t i = 0; i < cfg->n_models; i++) {
        strbuf_puts(out, "  - ");
        dump_rows(SCOPE_MODEL, NULL, true, &cfg->models[i], out);
    }
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        strbuf_addf(out, "%s: ", sections[i]);
        dump_rows(SCOPE_GLOBAL, sections[i], true, cfg, out);
    }
    dump_nodes("prefill", cfg->prefill, cfg->n_prefill, false, out);
    dump_nodes("decode", cfg->decode, cfg->n_decode, true, out);
}
