/* config_value.c - parses and checks the text of one option. */
#include "config/config_value.h"

#include "base/cpus.h"
#include "base/host_port.h"
#include "base/mem.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_IPC_PATH 100 /* a socket's path fits 107 bytes; lanes add a suffix */

/* Digits at the start of `text`; *rest points behind them.  false: none, or too large. */
static bool read_digits(const char *text, uint64_t *out, const char **rest)
{
    char *end;
    if (!isdigit((unsigned char)text[0])) return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    *rest = end;
    return errno == 0;
}

struct unit {
    const char *word;
    uint64_t factor;
};
static const struct unit size_units[] = {
    { "", 1 },  { "B", 1 }, { "KiB", 1ull << 10 }, { "MiB", 1ull << 20 }, { "GiB", 1ull << 30 }, { "TiB", 1ull << 40 },
    { NULL, 0 }
};
static const struct unit time_units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 }, { "h", 3600000 }, { NULL, 0 } };
static const struct unit no_units[] = { { "", 1 }, { NULL, 0 } };

static bool is_size(enum config_type type)
{
    return type == OPTION_SIZE || type == OPTION_SIZE_AUTO || type == OPTION_SIZE32;
}

static const struct unit *units_of(enum config_type type)
{
    if (type == OPTION_DURATION) return time_units;
    return is_size(type) ? size_units : no_units;
}

static bool is_auto(const struct config_option *row, const char *text)
{
    return row->type == OPTION_SIZE_AUTO && strcmp(text, "auto") == 0;
}

static bool read_number(const struct config_option *row, const char *text, uint64_t *out)
{
    const char *rest;
    if (is_auto(row, text)) {
        *out = 0;
        return true;
    }
    if (!read_digits(text, out, &rest)) return false;
    while (*rest == ' ') rest++;
    for (const struct unit *u = units_of(row->type); u->word; u++) {
        if (strcmp(rest, u->word) == 0) return !__builtin_mul_overflow(*out, u->factor, out);
    }
    /* "0" is the same in every unit. */
    return *out == 0 && *rest == '\0';
}

static bool in_range(const struct config_option *row, uint64_t v)
{
    return v >= row->min && v <= row->max && (row->step == 0 || v % row->step == 0);
}

static bool read_bool(const char *text, bool *out)
{
    static const char *const words[] = { "false", "no", "off", "0", "true", "yes", "on", "1" };
    for (int i = 0; i < 8; i++) {
        if (strcmp(text, words[i]) == 0) {
            *out = i >= 4;
            return true;
        }
    }
    return false;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t n = strcspn(text, "|");
    if (text[n]) return false; /* several of them */
    for (const char *p = choices; n > 0 && p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL) {
        if (strncmp(p, text, n) == 0 && (p[n] == '|' || p[n] == '\0')) return true;
    }
    return false;
}

static bool is_name_of(const char *name, const char *signs)
{
    size_t n = strlen(name);
    if (n < 1 || n > 63) return false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)name[i]) && !strchr(signs, name[i])) return false;
    }
    return true;
}

static bool is_name(const char *name)
{
    return is_name_of(name, "._-");
}

/* As hubs name models, "org/name": it has to be a path's end, so no part is empty. */
static bool is_model_name(const char *name)
{
    return is_name_of(name, "._-/") && name[0] != '/' && name[strlen(name) - 1] != '/' && !strstr(name, "//");
}

/* Whether an address is of the form that `range` allows: low-high, or one port. */
static bool is_address(const char *text, bool range)
{
    struct host_port hp;
    return host_port_split(text, &hp) && (range || hp.lo == hp.hi);
}

static bool is_tcp(const char *text, bool range)
{
    return strncmp(text, "tcp://", 6) == 0 && is_address(text, range);
}

static bool is_endpoint(const char *text)
{
    if (strncmp(text, "ipc://", 6) == 0) {
        size_t n = strlen(text + 6);
        return n > 0 && n <= MAX_IPC_PATH;
    }
    return is_tcp(text, false);
}

static bool is_http_address(const char *text, bool range)
{
    return strncmp(text, "tcp://", 6) != 0 && is_address(text, range);
}

static bool is_listen(const char *text)
{
    if (strncmp(text, "unix:", 5) != 0) return is_http_address(text, false);
    size_t n = strlen(text + 5);
    return n > 0 && n <= MAX_IPC_PATH;
}

static bool text_fits(const struct config_option *row, const char *text)
{
    struct cpu_list cpus;
    uint64_t number;
    if (text[0] == '\0' && row->fallback && row->fallback[0] == '\0') return true; /* not set, said aloud */
    switch (row->type) {
    case OPTION_CHOICE: return is_choice(row->choices, text);
    case OPTION_NAME: return is_name(text);
    case OPTION_MODEL_NAME: return is_model_name(text);
    case OPTION_PORT: return read_number(row, text, &number) && in_range(row, number);
    case OPTION_LISTEN: return is_listen(text);
    case OPTION_HTTP_RANGE: return is_http_address(text, true);
    case OPTION_ENDPOINT: return is_endpoint(text);
    case OPTION_TCP:
    case OPTION_TCP_RANGE: return is_tcp(text, row->type == OPTION_TCP_RANGE);
    case OPTION_CPUS: return cpu_list_parse(&cpus, text) == OK;
    default: return text[0] != '\0';
    }
}

static void put_number(char *buf, size_t cap, enum config_type type, uint64_t v)
{
    const struct unit *best = NULL;
    for (const struct unit *u = units_of(type); u->word; u++) {
        if (u->word[0] && v > 0 && v % u->factor == 0) best = u;
    }
    snprintf(buf, cap, "%" PRIu64 "%s", best ? v / best->factor : v, best ? best->word : "");
}

const char *config_value_allowed(const struct config_option *row, char *buf, size_t cap)
{
    char lo[32], hi[32];
    size_t n = 0;
    buf[0] = '\0';
    switch (row->type) {
    case OPTION_BOOL: snprintf(buf, cap, "true or false"); break;
    case OPTION_NAME: snprintf(buf, cap, "1 to 63 of A-Z a-z 0-9 . _ -"); break;
    case OPTION_MODEL_NAME: snprintf(buf, cap, "1 to 63 of A-Z a-z 0-9 . _ - and single / between them"); break;
    case OPTION_LISTEN: snprintf(buf, cap, "host:port, [v6]:port or unix:path"); break;
    case OPTION_ENDPOINT: snprintf(buf, cap, "tcp://host:port or ipc://path"); break;
    case OPTION_HTTP_RANGE: snprintf(buf, cap, "host:port or host:low-high"); break;
    case OPTION_TCP: snprintf(buf, cap, "tcp://host:port"); break;
    case OPTION_TCP_RANGE: snprintf(buf, cap, "tcp://host:port or tcp://host:low-high"); break;
    case OPTION_CPUS: snprintf(buf, cap, "a list of numbers such as 0-3,6"); break;
    case OPTION_STRING: snprintf(buf, cap, "%s", "text"); break;
    case OPTION_CHOICE:
        for (const char *p = row->choices; *p && n + 3 < cap; p++) {
            if (*p == '|') buf[n++] = ',';
            buf[n++] = *p == '|' ? ' ' : *p;
        }
        buf[n] = '\0';
        break;
    default:
        put_number(lo, sizeof(lo), row->type, row->min);
        put_number(hi, sizeof(hi), row->type, row->max);
        n = (size_t)snprintf(buf, cap, "%s%s..%s", row->type == OPTION_SIZE_AUTO ? "auto, or " : "", lo, hi);
        if (row->step && n < cap) snprintf(buf + n, cap - n, " in steps of %" PRIu64, row->step);
        break;
    }
    return buf;
}

static enum status refuse(const struct config_option *row, const char *text, struct error *err)
{
    char allowed[200];
    const char *unit = row->type == OPTION_DURATION ? " with ms, s, m or h"
                       : is_size(row->type)         ? " in bytes, KiB, MiB or GiB"
                                                    : "";
    return error_set(err, ERR_INVALID, "\"%.80s\" is not allowed; allowed: %s%s", text,
                     config_value_allowed(row, allowed, sizeof(allowed)), unit);
}

static enum status add_item(const struct config_option *row, struct config_list *list, const char *text, size_t n,
                            struct error *err)
{
    char *item = mem_strndup(text, n);
    enum status st = OK;
    bool known = false;
    for (uint32_t i = 0; i < list->n; i++) known = known || strcmp(list->items[i], item) == 0;
    if (!text_fits(row, item))
        st = refuse(row, item, err);
    else if (!known && list->n == row->list)
        st = error_set(err, ERR_FULL, "more than %u values", row->list);
    if (st != OK || known)
        mem_free(item);
    else
        list->items[list->n++] = item;
    return st;
}

/* Adds what stands between commas; on failure the list is as it was. */
static enum status add_items(const struct config_option *row, struct config_list *list, const char *text,
                             struct error *err)
{
    const uint32_t n_before = list->n;
    enum status st = OK;
    if (text[0] == '\0' && row->fallback[0] == '\0') return OK; /* none, said aloud */
    for (const char *p = text; st == OK; p++) {
        size_t n = strcspn(p, ",");
        st = add_item(row, list, p, n, err);
        p += n;
        if (*p == '\0') break;
    }
    while (st != OK && list->n > n_before) mem_free(list->items[--list->n]);
    return st;
}

enum status config_value_add(const struct config_option *row, void *base, const char *text, struct error *err)
{
    assert(row->list > 0 && row->list <= CONFIG_MAX_ITEMS);
    return add_items(row, (struct config_list *)((char *)base + row->offset), text, err);
}

void config_value_clear(const struct config_option *row, void *base)
{
    void *field = (char *)base + row->offset;
    struct config_list *list = field;
    if (row->list) {
        while (list->n > 0) mem_free(list->items[--list->n]);
    } else if (config_type_is_text(row->type)) {
        mem_free(*(char **)field);
        *(char **)field = NULL;
    }
}

static enum status set_list(const struct config_option *row, void *base, const char *text, struct error *err)
{
    struct config_list fresh = { .n = 0 };
    enum status st = add_items(row, &fresh, text, err);
    if (st != OK) return st;
    config_value_clear(row, base);
    *(struct config_list *)((char *)base + row->offset) = fresh;
    return OK;
}

enum status config_value_set(const struct config_option *row, void *base, const char *text, struct error *err)
{
    void *field = (char *)base + row->offset;
    uint64_t number;
    bool truth;
    if (row->type == OPTION_BOOL) {
        if (!read_bool(text, &truth)) return refuse(row, text, err);
        *(bool *)field = truth;
        return OK;
    }
    if (row->list) return set_list(row, base, text, err);
    if (config_type_is_text(row->type)) {
        if (!text_fits(row, text)) return refuse(row, text, err);
        char *copy = mem_strdup(text);
        mem_free(*(char **)field);
        *(char **)field = copy;
        return OK;
    }
    if (!read_number(row, text, &number) || (!is_auto(row, text) && !in_range(row, number)))
        return refuse(row, text, err);
    if (row->type == OPTION_SIZE || row->type == OPTION_SIZE_AUTO) {
        *(uint64_t *)field = number;
    } else if (row->type == OPTION_FD) {
        *(int *)field = (int)number;
    } else {
        *(uint32_t *)field = (uint32_t)number;
    }
    return OK;
}

/* What a number or a switch says; false: texts say what they say. */
static bool read_any_number(const struct config_option *row, const char *text, uint64_t *out)
{
    bool truth = false;
    if (row->type != OPTION_BOOL) return !config_type_is_text(row->type) && read_number(row, text, out);
    if (!read_bool(text, &truth)) return false;
    *out = truth;
    return true;
}

bool config_value_same(const struct config_option *row, const char *a, const char *b)
{
    uint64_t x, y;
    if (read_any_number(row, a, &x) && read_any_number(row, b, &y)) return x == y;
    return strcmp(a, b) == 0;
}
