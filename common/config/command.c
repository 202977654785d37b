/* command.c - a command line into the fields of a command's struct. */
#include "config/command.h"

#include "base/mem.h"
#include "config/config_value.h"
#include "config/flags.h"

#include <assert.h>
#include <string.h>

static char **text_field(const struct config_option *row, void *base)
{
    return (char **)((char *)base + row->offset);
}

static bool is_needed(const struct config_option *row)
{
    return !row->fallback && row->type != OPTION_BOOL;
}

static void print_row(const struct config_option *row)
{
    const bool is_free = row->type == OPTION_BOOL || row->type == OPTION_STRING;
    const bool has_default = row->fallback && row->fallback[0];
    char flag[64], allowed[200] = "";
    if (!is_free) config_value_allowed(row, allowed, sizeof(allowed));
    printf("  %-24s %s", flags_show(row, row->flag, flag, sizeof(flag)), row->help);
    if (!is_free || has_default)
        printf(" (%s%s%s%s)", allowed, !is_free && has_default ? ", " : "", has_default ? "default " : "",
               has_default ? row->fallback : "");
    putchar('\n');
}

static void print_help(const struct command *c)
{
    printf("usage: %s", c->name);
    for (uint32_t i = 0; i < c->n_options; i++)
        if (is_needed(&c->options[i])) printf(" --%s %s", c->options[i].flag, flags_word(&c->options[i]));
    printf(" [OPTION]...%s%s\n%s", c->operands ? " " : "", c->operands ? c->operands : "", c->about ? c->about : "");
    for (uint32_t i = 0; i < c->n_options; i++) print_row(&c->options[i]);
}

static void set_defaults(const struct command *c, void *base)
{
    for (uint32_t i = 0; i < c->n_options; i++) {
        const struct config_option *row = &c->options[i];
        if (!row->fallback || row->fallback[0] == '\0') continue;
        enum status st = config_value_set(row, base, row->fallback, NULL);
        assert(st == OK); /* a default that its own row refuses is a bug of the table */
    }
}

static enum status check_needed(const struct command *c, void *base, struct error *err)
{
    for (uint32_t i = 0; i < c->n_options; i++) {
        const struct config_option *row = &c->options[i];
        if (!is_needed(row) || *text_field(row, base)) continue;
        return error_set(err, ERR_INVALID, "--%s %s is needed; --help says more", row->flag, flags_word(row));
    }
    return OK;
}

static enum status take(const struct command *c, void *base, const struct config_option *row, const char *value,
                        char **argv, int *n_operands, struct error *err)
{
    if (row) {
        enum status st = config_value_set(row, base, value, err);
        if (st != OK) error_prefix(err, "--%s", row->flag);
        return st;
    }
    if (!c->operands) return error_set(err, ERR_INVALID, "unexpected argument \"%.80s\"", value);
    argv[++*n_operands] = (char *)(uintptr_t)value; /* one of argv, at or behind this place */
    return OK;
}

int command_parse(const struct command *c, void *base, int argc, char **argv, int *n_operands)
{
    struct flags f = { .rows = c->options, .n_rows = c->n_options, .argc = argc, .argv = argv };
    const struct config_option *row;
    const char *value;
    struct error err = { 0 };
    enum status st = OK;
    int n = 0;
    set_defaults(c, base);
    for (;;) {
        const char *next = f.at + 1 < argc ? argv[f.at + 1] : "";
        if (!f.only_operands && (strcmp(next, "-h") == 0 || strcmp(next, "--help") == 0)) {
            print_help(c);
            command_free(c, base);
            return 0;
        }
        if ((st = flags_next(&f, &row, &value, &err)) != OK || !value) break;
        if ((st = take(c, base, row, value, argv, &n, &err)) != OK) break;
    }
    if (st == OK) st = check_needed(c, base, &err);
    if (n_operands) *n_operands = n;
    if (st == OK) return -1;
    fprintf(stderr, "%s: %s\n", c->name, err.text);
    command_free(c, base);
    return EXIT_USAGE;
}

void command_free(const struct command *c, void *base)
{
    for (uint32_t i = 0; i < c->n_options; i++) {
        config_value_clear(&c->options[i], base);
    }
}
