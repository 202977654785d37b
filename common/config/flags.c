/* flags.c - finds the row of each flag and its value. */
#include "config/flags.h"

#include "config/config_value.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MAX_NAMES 256

static bool counts(const struct flags *f, const struct config_option *row)
{
    return row->flag && (f->roles == 0 || (row->roles & f->roles) != 0);
}

static const struct config_option *find(const struct flags *f, const char *word)
{
    for (uint32_t i = 0; i < f->n_rows; i++) {
        const struct config_option *row = &f->rows[i];
        if (!counts(f, row)) continue;
        if (strcmp(row->flag, word) == 0 || (row->alias && strcmp(row->alias, word) == 0)) return row;
    }
    return NULL;
}

static enum status unknown(const struct flags *f, const char *arg, struct error *err)
{
    const char *known[MAX_NAMES];
    uint32_t n = 0;
    for (uint32_t i = 0; i < f->n_rows && n + 2 < MAX_NAMES; i++) {
        const struct config_option *row = &f->rows[i];
        if (!counts(f, row)) continue;
        known[n++] = row->flag;
        if (row->alias && row->alias[1]) known[n++] = row->alias;
    }
    char shown[64], bare[64];
    snprintf(shown, sizeof(shown), "%.*s", (int)strcspn(arg, "="), arg);
    snprintf(bare, sizeof(bare), "%s", shown + strspn(shown, "-"));
    const char *near = config_nearest(bare, known, n);
    if (near) return error_set(err, ERR_INVALID, "unknown option %s; did you mean --%s?", shown, near);
    return error_set(err, ERR_INVALID, "unknown option %s; --help lists all", shown);
}

/* Two values for one option: which of them is meant cannot be known. */
static enum status check_again(struct flags *f, const struct config_option *row, const char *value, struct error *err)
{
    assert(f->n_rows <= FLAGS_MAX_ROWS);
    const char **given = &f->given[row - f->rows];
    if (*given && !row->list && !config_value_same(row, *given, value))
        return error_set(err, ERR_INVALID, "--%s is given twice, as \"%.80s\" and as \"%.80s\"; give it once",
                         row->flag, *given, value);
    *given = value;
    return OK;
}

/* The next word, its row and its value. */
static enum status read_next(struct flags *f, const struct config_option **row, const char **value, struct error *err)
{
    char word[64];
    *row = NULL;
    *value = NULL;
    if (f->at + 1 >= f->argc) return OK;
    const char *arg = f->argv[++f->at];
    if (strcmp(arg, "--") == 0 && !f->only_operands) {
        f->only_operands = true;
        return read_next(f, row, value, err);
    }
    if (f->only_operands || arg[0] != '-' || arg[1] == '\0') {
        *value = arg;
        *row = f->operand;
        return OK;
    }
    const bool is_long = arg[1] == '-';
    const char *flag = arg + (is_long ? 2 : 1);
    const size_t n = strcspn(flag, "=");
    if (n >= sizeof(word) || is_long != (n != 1)) return unknown(f, arg, err);
    memcpy(word, flag, n);
    word[n] = '\0';
    if (!(*row = find(f, word))) return unknown(f, arg, err);
    if (flag[n] == '=')
        *value = flag + n + 1;
    else if ((*row)->type == OPTION_BOOL)
        *value = "true";
    else if (f->at + 1 < f->argc)
        *value = f->argv[++f->at];
    else
        return error_set(err, ERR_INVALID, "%.60s needs a value", arg);
    return OK;
}

enum status flags_next(struct flags *f, const struct config_option **row, const char **value, struct error *err)
{
    enum status st = read_next(f, row, value, err);
    return st == OK && *row ? check_again(f, *row, *value, err) : st;
}

const char *flags_word(const struct config_option *row)
{
    return row->word ? row->word : "VALUE";
}

const char *flags_show(const struct config_option *row, const char *flag, char *buf, size_t cap)
{
    const bool one_letter = row->alias && row->alias[1] == '\0', is_switch = row->type == OPTION_BOOL;
    snprintf(buf, cap, "%s%s%s--%s%s%s", one_letter ? "-" : "", one_letter ? row->alias : "", one_letter ? ", " : "",
             flag, is_switch ? "" : " ", is_switch ? "" : flags_word(row));
    return buf;
}
