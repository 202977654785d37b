/* config_ports.c - what the processes of a configuration bind, compared with each other.
 *
 * One host: all processes, where they start together or the control plane is on loopback; else each process by itself,
 * and those that bind the same address that is neither loopback nor a wildcard, as only one host has it. */
#include "base/host_port.h"
#include "config/config_internal.h"
#include "config/config_value.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MAX_BOUND (4 * CONFIG_MAX_ITEMS + 4 * CONFIG_MAX_NODES)

/* One address that is bound: `need` ports of lo..hi, or a path, for which lo is 0. */
struct bound {
    const char *address;
    char host[sizeof(((struct host_port *)0)->host)];
    uint32_t lo, hi, need;
    uint32_t process; /* 0: the coordinator */
    const void *field;
    char key[64];
};

struct ports {
    const struct config *cfg;
    const struct config_origins *origins;
    struct error *err;
    bool one_host;
    uint32_t n;
    struct bound list[MAX_BOUND];
};

static bool is_wildcard(const char *host)
{
    return strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

static bool same_address(const struct bound *a, const struct bound *b)
{
    const bool ipv6[] = { strchr(a->host, ':') != NULL, strchr(b->host, ':') != NULL };
    if (strcasecmp(a->host, b->host) == 0) return true;
    if (!is_wildcard(a->host) && !is_wildcard(b->host)) return false;
    /* 0.0.0.0 leaves IPv6 addresses alone; :: and * take all. */
    return !(strcmp(a->host, "0.0.0.0") == 0 && ipv6[1] && strcmp(b->host, "::") != 0) &&
           !(strcmp(b->host, "0.0.0.0") == 0 && ipv6[0] && strcmp(a->host, "::") != 0);
}

static bool on_one_host(const struct ports *p, const struct bound *a, const struct bound *b)
{
    if (p->one_host || a->process == b->process) return true;
    return !is_wildcard(a->host) && !is_wildcard(b->host) && !config_is_loopback(a->address);
}

static bool is_range(const struct bound *b)
{
    return b->hi - b->lo + 1 > b->need;
}

static const char *where(const struct ports *p, const struct bound *b)
{
    return config_origin_of(p->origins, b->field, b->key);
}

static const char *show_ports(const struct bound *b, char *buf, size_t cap)
{
    snprintf(buf, cap, b->lo == b->hi ? "port %u" : "ports %u-%u", b->lo, b->hi);
    return buf;
}

/* Equal ranges are shared, as each process takes what is free; in any other overlap one may take what is another's. */
static bool clash(const struct ports *p, const struct bound *a, const struct bound *b)
{
    if (!on_one_host(p, a, b)) return false;
    if (a->lo == 0 || b->lo == 0) return a->lo == b->lo && strcmp(a->address, b->address) == 0;
    if (!same_address(a, b) || a->hi < b->lo || b->hi < a->lo) return false;
    return !(is_range(a) && is_range(b) && a->lo == b->lo && a->hi == b->hi);
}

static enum status check_pair(const struct ports *p, const struct bound *b, const struct bound *other)
{
    char own[40], others[40];
    if (!clash(p, b, other)) return OK;
    if (b->lo == 0)
        return error_set(p->err, ERR_INVALID, "%s: %s is bound by %s already", where(p, b), b->address,
                         where(p, other));
    return error_set(p->err, ERR_INVALID, "%s: %s of %s%s overlap%s %s of %s (%s)", where(p, b),
                     show_ports(b, own, sizeof(own)), b->address, b->need > 1 ? ", one for each lane," : "",
                     b->lo == b->hi ? "s" : "", show_ports(other, others, sizeof(others)), where(p, other),
                     other->address);
}

/* A shared range has ports for all that take theirs from it. */
static enum status check_room(const struct ports *p, const struct bound *b)
{
    uint32_t need = 0;
    if (b->lo == 0 || !is_range(b)) return OK;
    for (uint32_t i = 0; i < p->n; i++) {
        const struct bound *other = &p->list[i];
        if (other->lo == b->lo && other->hi == b->hi && on_one_host(p, b, other) && same_address(b, other))
            need += other->need;
    }
    if (need <= b->hi - b->lo + 1) return OK;
    return error_set(p->err, ERR_INVALID, "%s: %s holds %u ports and those that share it need %u", where(p, b),
                     b->address, b->hi - b->lo + 1, need);
}

static enum status add(struct ports *p, const struct config_option *row, const char *prefix, uint32_t process,
                       char *const *field)
{
    struct bound b = { .address = *field, .need = 1, .process = process, .field = field };
    struct host_port hp;
    const bool lanes = row->scope == SCOPE_NODE && strcmp(row->key, "kv") == 0;
    if (**field == '\0') return OK;
    snprintf(b.key, sizeof(b.key), "%.40s.%.20s", prefix, row->key);
    if (host_port_split(*field, &hp)) {
        if (hp.hi == 0) return OK; /* any free port */
        b.lo = hp.lo;
        b.hi = hp.hi;
        snprintf(b.host, sizeof(b.host), "%s", strcasecmp(hp.host, "localhost") == 0 ? "127.0.0.1" : hp.host);
        if (lanes) b.need = p->cfg->kv.lanes;
        if (b.lo == b.hi) b.hi = b.lo + b.need - 1; /* lane i has port + i */
        if (b.hi > 65535)
            return error_set(p->err, ERR_INVALID, "%s: %s: the last of %u lanes would have port %u", where(p, &b),
                             *field, b.need, b.hi);
        if (b.hi - b.lo + 1 < b.need)
            return error_set(p->err, ERR_INVALID, "%s: %s holds %u ports and %u lanes need one each", where(p, &b),
                             *field, b.hi - b.lo + 1, b.need);
    }
    for (uint32_t i = 0; i < p->n; i++) {
        enum status st = check_pair(p, &b, &p->list[i]);
        if (st != OK) return st;
    }
    if (p->n < MAX_BOUND) p->list[p->n++] = b;
    return OK;
}

/* Adds all that `row` binds below `base`. */
static enum status add_row(struct ports *p, const struct config_option *row, const char *prefix, uint32_t process,
                           const void *base)
{
    const void *field = (const char *)base + row->offset;
    const struct config_list *list = field;
    enum status st = OK;
    if (!row->list) return add(p, row, prefix, process, field);
    for (uint32_t i = 0; i < list->n && st == OK; i++) st = add(p, row, prefix, process, &list->items[i]);
    return st;
}

/* The coordinator binds all addresses of its section.  A node without a file knows its control plane alone. */
static enum status add_coordinator(struct ports *p, bool control_only)
{
    enum status st = OK;
    for (uint32_t i = 0; i < config_table_rows && st == OK; i++) {
        const struct config_option *row = &config_table[i];
        if (row->scope != SCOPE_GLOBAL || !config_type_is_bound(row->type)) continue;
        if (control_only && strcmp(row->key, "control") != 0) continue;
        st = add_row(p, row, row->section, 0, p->cfg);
    }
    return st;
}

static enum status add_nodes(struct ports *p, const char *section, const struct config_node *nodes, uint32_t n,
                             uint32_t first_process, bool decode)
{
    char prefix[32];
    enum status st = OK;
    for (uint32_t k = 0; k < n; k++) {
        snprintf(prefix, sizeof(prefix), "%s[%u]", section, k);
        for (uint32_t i = 0; i < config_table_rows && st == OK; i++) {
            const struct config_option *row = &config_table[i];
            if (row->scope != SCOPE_NODE || !config_type_is_bound(row->type)) continue;
            if (!decode && config_is_decode_only(row)) continue;
            st = add_row(p, row, prefix, first_process + k, &nodes[k]);
        }
    }
    return st;
}

static bool all_on_loopback(const struct config_list *list)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (!config_is_loopback(list->items[i])) return false;
    return true;
}

enum status config_check_ports(const struct config *cfg, enum config_role role, bool has_file,
                               const struct config_origins *o, struct error *err)
{
    static struct ports p; /* too large for a stack; the configuration is read once, by one thread */
    const bool is_node = (ROLE_BIT(role) & ROLES_NODE) != 0;
    memset(&p, 0, sizeof(p));
    p.cfg = cfg;
    p.origins = o;
    p.err = err;
    p.one_host = role == CONFIG_UP || role == CONFIG_SERVE || all_on_loopback(&cfg->coordinator.control);
    enum status st = add_coordinator(&p, is_node && !has_file);
    if (st == OK) st = add_nodes(&p, "prefill", cfg->prefill, cfg->n_prefill, 1, false);
    if (st == OK) st = add_nodes(&p, "decode", cfg->decode, cfg->n_decode, 1 + cfg->n_prefill, true);
    for (uint32_t i = 0; i < p.n && st == OK; i++) st = check_room(&p, &p.list[i]);
    return st;
}
