/* config_help.c - prints the option table as --help. */
#include "config/config_internal.h"
#include "config/config_value.h"

#include <ctype.h>
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

static void print_row(FILE *f, const struct config_option *row, enum config_role role)
{
    char env[80], allowed[200], flag[64];
    const char *key_section = row->section               ? row->section
                              : row->scope != SCOPE_NODE ? NULL
                              : role == CONFIG_PREFILL   ? "prefill[]"
                              : role == CONFIG_DECODE    ? "decode[]"
                                                         : "node";
    bool one_letter = row->alias && row->alias[1] == '\0';
    snprintf(flag, sizeof(flag), "%s%s%s--%s%s", one_letter ? "-" : "", one_letter ? row->alias : "",
             one_letter ? ", " : "", shown_flag(row, role), row->type == OPTION_BOOL ? "" : " VALUE");
    fprintf(f, "  %-28s %s", flag, row->help);
    if (row->scope != SCOPE_ARGS || row->type == OPTION_NAME) {
        fprintf(f, "\n  %-28s %s", "", config_value_allowed(row, allowed, sizeof(allowed)));
        if (row->fallback[0]) fprintf(f, " (default %s)", row->fallback);
    }
    config_table_env(row, role, env, sizeof(env));
    if (env[0] || key_section) fprintf(f, "\n  %-28s ", "");
    if (key_section) fprintf(f, "%s.%s%s", key_section, row->key, env[0] ? ", " : "");
    fprintf(f, "%s\n", env);
}

void config_help(FILE *f, enum config_role role, const char *program)
{
    fprintf(f,
            "usage: %s %s\n\n"
            "Values come from flags, then the environment, then the file, then defaults.\n"
            "Each option: its flag, what it does, what is allowed, its key in the file, its variable.\n\n",
            program, role_lines[role]);
    for (uint32_t i = 0; i < config_table_rows; i++) {
        const struct config_option *row = &config_table[i];
        if (row->flag && (row->roles & ROLE_BIT(role))) print_row(f, row, role);
    }
}
