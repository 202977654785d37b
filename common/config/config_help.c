/* config_help.c - prints the option table as --help. */
#include "config/config_internal.h"
#include "config/config_value.h"
#include "config/flags.h"

#include <string.h>

static const char *const role_lines[] = {
    [CONFIG_COORDINATOR] = "[--config CLUSTER.yaml] [OPTION]...",
    [CONFIG_PREFILL] = "[--config CLUSTER.yaml] [--name NAME] [OPTION]...",
    [CONFIG_DECODE] = "[--config CLUSTER.yaml] [--name NAME] [OPTION]...",
    [CONFIG_UP] = "CLUSTER.yaml [OPTION]...",
    [CONFIG_SERVE] = "-m FILE.gguf [OPTION]...",
};

/* Nodes know coordinator.control as --coordinator. */
static const char *shown_flag(const struct config_option *row, enum config_role role)
{
    bool is_node = (ROLE_BIT(role) & ROLES_NODE) != 0;
    return is_node && row->alias && strlen(row->alias) > 1 && row->scope == SCOPE_GLOBAL ? row->alias : row->flag;
}

/* What the value may be and what it is without being set. */
static void print_allowed(FILE *f, const struct config_option *row)
{
    char allowed[200];
    fprintf(f, "\n  %-28s %s", "", config_value_allowed(row, allowed, sizeof(allowed)));
    if (row->list) fprintf(f, "; up to %u: give it again, or commas between", row->list);
    if (row->fallback[0]) fprintf(f, " (default %s)", row->fallback);
}

/* The row's place in the file: "kv.lanes", "decode[].threads"; "" if it has none that `role` reads. */
static const char *key_of(const struct config_option *row, enum config_role role, char *buf, size_t cap)
{
    const char *section = row->section;
    if (row->scope == SCOPE_MODEL) section = "models[]";
    if (row->scope == SCOPE_NODE) {
        section = role == CONFIG_PREFILL                                ? "prefill[]"
                  : role == CONFIG_DECODE || config_is_decode_only(row) ? "decode[]"
                                                                        : "prefill[] and decode[]";
    }
    if (!section || role == CONFIG_SERVE)
        buf[0] = '\0';
    else if (row->scope == SCOPE_NODE && row->section)
        snprintf(buf, cap, "%s.%s.%s", section, row->section, row->key);
    else
        snprintf(buf, cap, "%s.%s", section, row->key);
    return buf;
}

static void print_flag(FILE *f, const struct config_option *row, enum config_role role)
{
    char env[80], key[80], flag[64];
    fprintf(f, "  %-28s %s", flags_show(row, shown_flag(row, role), flag, sizeof(flag)), row->help);
    if (row->scope != SCOPE_ARGS || row->type == OPTION_NAME || row->type == OPTION_MODEL_NAME) print_allowed(f, row);
    config_table_env(row, role, env, sizeof(env));
    key_of(row, role, key, sizeof(key));
    if (env[0] || key[0]) fprintf(f, "\n  %-28s %s%s%s", "", key, env[0] && key[0] ? ", " : "", env);
    fputc('\n', f);
}

static void print_file_key(FILE *f, const struct config_option *row, enum config_role role)
{
    char key[80];
    fprintf(f, "  %-28s %s", key_of(row, role, key, sizeof(key)), row->help);
    print_allowed(f, row);
    fputc('\n', f);
}

static bool has_flag(const struct config_option *row, enum config_role role)
{
    return row->flag && (row->roles & ROLE_BIT(role)) != 0;
}

void config_help(FILE *f, enum config_role role, const char *program)
{
    fprintf(f,
            "usage: %s %s\n\n"
            "Values come from flags, then the environment, then the file, then defaults.\n"
            "Each option: its flag, what it does, what is allowed, its key in the file, its variable.\n\n",
            program, role_lines[role]);
    for (uint32_t i = 0; i < config_table_rows; i++) {
        if (has_flag(&config_table[i], role)) print_flag(f, &config_table[i], role);
    }
    if (role == CONFIG_SERVE) return;
    fprintf(f, "\nKeys of the file that have no flag here:\n\n");
    for (uint32_t i = 0; i < config_table_rows; i++) {
        const struct config_option *row = &config_table[i];
        bool other_role = role == CONFIG_PREFILL && config_is_decode_only(row);
        if (row->scope != SCOPE_ARGS && !has_flag(row, role) && !other_role) print_file_key(f, row, role);
    }
}
