/* config.c - gathers flags, environment, file and defaults into one checked configuration. */
#include "config/config.h"

#include "base/host_port.h"
#include "base/mem.h"
#include "config/config_internal.h"
#include "config/config_value.h"
#include "config/flags.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_FLAGS 128

struct given {
    const struct config_option *row;
    const char *value; /* borrows from argv */
};

struct loader {
    struct config_run *run;
    enum config_role role;
    struct config_args args;
    struct config_origins origins;
    struct given flags[MAX_FLAGS];
    uint32_t n_flags;
    struct error *err;
};

static void origins_fini(struct config_origins *o)
{
    for (uint32_t i = 0; i < o->n; i++) mem_free(o->list[i].where);
    mem_free(o->list);
    *o = (struct config_origins){ 0 };
}

static void remember(struct config_origins *o, const void *field, const char *where)
{
    for (uint32_t i = 0; i < o->n; i++) {
        if (o->list[i].field != field) continue;
        mem_free(o->list[i].where);
        o->list[i].where = mem_strdup(where);
        return;
    }
    if (o->n == o->cap) {
        o->cap = o->cap ? 2 * o->cap : 64;
        o->list = mem_resize(o->list, o->cap, sizeof(*o->list));
    }
    o->list[o->n++] = (struct config_origin){ field, mem_strdup(where) };
}

static void remember_items(struct config_origins *o, const struct config_list *list, uint32_t from, const char *where)
{
    for (uint32_t i = from; i < list->n; i++) remember(o, &list->items[i], where);
}

const char *config_origin_of(const struct config_origins *o, const void *field, const char *otherwise)
{
    for (uint32_t i = 0; i < o->n; i++) {
        if (o->list[i].field == field) return o->list[i].where;
    }
    return otherwise;
}

enum status config_apply(struct config_origins *o, const struct config_option *row, void *base, const char *text,
                         const char *where, struct error *err)
{
    enum status st = config_value_set(row, base, text, err);
    if (st != OK) {
        error_prefix(err, "%s", where);
        return st;
    }
    remember(o, (char *)base + row->offset, where);
    if (row->list) remember_items(o, (struct config_list *)((char *)base + row->offset), 0, where);
    return OK;
}

enum status config_apply_more(struct config_origins *o, const struct config_option *row, void *base, const char *text,
                              const char *where, struct error *err)
{
    struct config_list *list = (struct config_list *)((char *)base + row->offset);
    const uint32_t n_before = list->n;
    enum status st = config_value_add(row, base, text, err);
    if (st != OK)
        error_prefix(err, "%s", where);
    else
        remember_items(o, list, n_before, where);
    return st;
}

char *config_list_join(const struct config_list *list)
{
    struct strbuf all = STRBUF_INIT;
    for (uint32_t i = 0; i < list->n; i++) strbuf_addf(&all, "%s%s", i ? "," : "", list->items[i]);
    char *text = mem_strdup(strbuf_cstr(&all));
    strbuf_fini(&all);
    return text;
}

enum status config_add_model(struct config *cfg, struct config_model **out)
{
    if (cfg->n_models == CONFIG_MAX_MODELS) return ERR_FULL;
    *out = &cfg->models[cfg->n_models++];
    config_table_defaults(SCOPE_MODEL, *out);
    return OK;
}

enum status config_add_node(struct config_node *list, uint32_t *n, struct config_node **out)
{
    if (*n == CONFIG_MAX_NODES) return ERR_FULL;
    *out = &list[(*n)++];
    config_table_defaults(SCOPE_NODE, *out);
    return OK;
}

void config_fini(struct config_run *run)
{
    struct config *cfg = &run->cfg;
    for (uint32_t i = 0; i < cfg->n_models; i++) config_table_free(SCOPE_MODEL, &cfg->models[i]);
    for (uint32_t i = 0; i < cfg->n_prefill; i++) config_table_free(SCOPE_NODE, &cfg->prefill[i]);
    for (uint32_t i = 0; i < cfg->n_decode; i++) config_table_free(SCOPE_NODE, &cfg->decode[i]);
    config_table_free(SCOPE_GLOBAL, cfg);
    cfg->n_models = cfg->n_prefill = cfg->n_decode = 0;
    run->self = NULL;
}

static void set_text(char **field, const char *text, size_t n)
{
    mem_free(*field);
    *field = mem_strndup(text, n);
}

/* "-00001-of-00003" at the end of n bytes. */
static bool ends_as_part(const char *s, size_t n)
{
    static const char FORM[] = "-#####-of-#####";
    const size_t len = sizeof(FORM) - 1;
    if (n <= len) return false;
    for (size_t i = 0; i < len; i++) {
        char c = s[n - len + i];
        if (FORM[i] == '#' ? !isdigit((unsigned char)c) : c != FORM[i]) return false;
    }
    return true;
}

/* "models/Tiny Model.Q4_1.gguf" gives "Tiny-Model.Q4_1", and so does "Tiny Model.Q4_1-00001-of-00003.gguf". */
static void name_from_path(char **name, const char *path)
{
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    size_t n = strlen(base);
    if (n > 5 && strcmp(base + n - 5, ".gguf") == 0) n -= 5;
    if (ends_as_part(base, n)) n -= sizeof("-00001-of-00003") - 1;
    set_text(name, base, n > 63 ? 63 : n);
    for (char *p = *name; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("._-", *p)) *p = '-';
    }
    if ((*name)[0] == '\0') set_text(name, "model", 5);
}

/* Gives names to models and nodes that have none. */
static void fill_names(struct config *cfg)
{
    char name[16];
    for (uint32_t i = 0; i < cfg->n_models; i++) {
        if (!cfg->models[i].name[0]) name_from_path(&cfg->models[i].name, cfg->models[i].path);
    }
    for (uint32_t i = 0; i < cfg->n_prefill; i++) {
        snprintf(name, sizeof(name), "p%u", i);
        if (!cfg->prefill[i].name[0]) set_text(&cfg->prefill[i].name, name, strlen(name));
    }
    for (uint32_t i = 0; i < cfg->n_decode; i++) {
        snprintf(name, sizeof(name), "d%u", i);
        if (!cfg->decode[i].name[0]) set_text(&cfg->decode[i].name, name, strlen(name));
    }
}

static enum status parse_argv(struct loader *l, int argc, char **argv)
{
    const struct config_option *config = config_table_key(SCOPE_ARGS, NULL, "config"), *row;
    struct flags f = { .rows = config_table,
                       .n_rows = config_table_rows,
                       .roles = ROLE_BIT(l->role),
                       .operand = l->role == CONFIG_UP ? config : NULL,
                       .argc = argc,
                       .argv = argv };
    const char *value;
    enum status st;
    while ((st = flags_next(&f, &row, &value, l->err)) == OK && value) {
        if (!row) return error_set(l->err, ERR_INVALID, "unexpected argument \"%.80s\"", value);
        if (l->n_flags == MAX_FLAGS) return error_set(l->err, ERR_INVALID, "more than %d options", MAX_FLAGS);
        l->flags[l->n_flags++] = (struct given){ row, value };
    }
    return st;
}

typedef enum status (*apply_fn)(struct config_origins *o, const struct config_option *row, void *base, const char *text,
                                const char *where, struct error *err);

/* Sets `row`, or adds to it, from a flag or variable wherever the role has such a field. */
static enum status apply_to_role(struct loader *l, apply_fn apply, const struct config_option *row, const char *text,
                                 const char *where)
{
    struct config *cfg = &l->run->cfg;
    enum status st;
    if (row->scope == SCOPE_ARGS) return apply(&l->origins, row, &l->args, text, where, l->err);
    if (row->scope == SCOPE_GLOBAL) return apply(&l->origins, row, cfg, text, where, l->err);
    if (l->role != CONFIG_SERVE) return apply(&l->origins, row, l->run->self, text, where, l->err);
    st = apply(&l->origins, row, &cfg->prefill[0], text, where, l->err);
    return st == OK ? apply(&l->origins, row, &cfg->decode[0], text, where, l->err) : st;
}

/* Whether a flag before flag `end` has begun the list of `row`. */
static bool was_given(const struct loader *l, const struct config_option *row, uint32_t end)
{
    for (uint32_t i = 0; i < end; i++)
        if (l->flags[i].row == row) return true;
    return false;
}

/* Applies variables, then flags, of the process itself (`args`) or of all the rest. */
static enum status apply_given(struct loader *l, bool args)
{
    char where[96];
    enum status st = OK;
    for (uint32_t i = 0; i < config_table_rows && st == OK; i++) {
        const struct config_option *row = &config_table[i];
        if ((row->scope == SCOPE_ARGS) != args || !(row->roles & ROLE_BIT(l->role))) continue;
        config_table_env(row, l->role, where, sizeof(where));
        const char *text = where[0] ? getenv(where) : NULL;
        if (text && text[0]) st = apply_to_role(l, config_apply, row, text, where);
    }
    for (uint32_t i = 0; i < l->n_flags && st == OK; i++) {
        const struct config_option *row = l->flags[i].row;
        if ((row->scope == SCOPE_ARGS) != args) continue;
        snprintf(where, sizeof(where), "--%s", row->flag);
        const apply_fn apply = row->list && was_given(l, row, i) ? config_apply_more : config_apply;
        st = apply_to_role(l, apply, row, l->flags[i].value, where);
    }
    return st;
}

static void list_names(const struct config_node *list, uint32_t n, char *buf, size_t cap)
{
    size_t at = 0;
    buf[0] = '\0';
    for (uint32_t i = 0; i < n && at + 80 < cap; i++) {
        at += (size_t)snprintf(buf + at, cap - at, "%s%s", i ? ", " : "", list[i].name);
    }
}

/* A node's own entry: by --name, or the only one, or a new one if there is no file. */
static enum status find_self(struct loader *l)
{
    struct config *cfg = &l->run->cfg;
    bool prefill = l->role == CONFIG_PREFILL;
    struct config_node *list = prefill ? cfg->prefill : cfg->decode;
    uint32_t *n = prefill ? &cfg->n_prefill : &cfg->n_decode;
    const char *word = prefill ? "prefill" : "decode", *name = l->args.name;
    char host[64] = "", text[96], names[300];
    if (l->args.config[0] == '\0') {
        enum status st = config_add_node(list, n, &l->run->self);
        gethostname(host, sizeof(host) - 1);
        snprintf(text, sizeof(text), "%s-%s", word, host[0] ? host : "node");
        name_from_path(&l->run->self->name, name[0] ? name : text);
        return st;
    }
    for (uint32_t i = 0; i < *n; i++) {
        bool mine = name[0] ? strcmp(list[i].name, name) == 0 : *n == 1;
        if (mine) l->run->self = &list[i];
    }
    if (l->run->self) return OK;
    list_names(list, *n, names, sizeof(names));
    if (*n == 0) return error_set(l->err, ERR_INVALID, "%s: there is no %s node", l->args.config, word);
    if (name[0] == '\0') {
        return error_set(l->err, ERR_INVALID, "%s: which %s node is this? give --name: %s", l->args.config, word,
                         names);
    }
    return error_set(l->err, ERR_INVALID, "%s: there is no %s node %s; there are %s", l->args.config, word, name,
                     names);
}

/* --model: the name of a model of the file, or a GGUF file that becomes the process's model. */
static enum status apply_model(struct loader *l)
{
    struct config *cfg = &l->run->cfg;
    struct config_node *self = l->run->self;
    const char *model = l->args.model;
    struct config_model *entry = NULL;
    if (model[0] == '\0') return OK;
    const struct config_model *known = config_model_find(cfg, model);
    if (!known) {
        if (!self) { /* the whole process serves this one instead of the file's */
            for (uint32_t i = 0; i < cfg->n_models; i++) config_table_free(SCOPE_MODEL, &cfg->models[i]);
            cfg->n_models = 0;
        }
        enum status st = config_add_model(cfg, &entry);
        if (st != OK) return error_set(l->err, st, "--model: more than %d models", CONFIG_MAX_MODELS);
        set_text(&entry->path, model, strlen(model));
        if (l->args.model_name[0]) {
            set_text(&entry->name, l->args.model_name, strlen(l->args.model_name));
        } else {
            name_from_path(&entry->name, model);
        }
        known = entry;
    }
    if (self) set_text(&self->model, known->name, strlen(known->name));
    return OK;
}

/* --host and --port replace their part of coordinator.http. */
static enum status apply_host_port(struct loader *l)
{
    const struct config_option *row = config_table_key(SCOPE_GLOBAL, "coordinator", "http");
    struct host_port old;
    char text[300];
    struct config_args *a = &l->args;
    if (!a->host[0] && !a->port[0]) return OK;
    const struct config_list *list = &l->run->cfg.coordinator.http;
    if (list->n > 1 || !host_port_split(list->items[0], &old))
        return error_set(l->err, ERR_INVALID,
                         "%s: --host and --port change one host:port, and coordinator.http is %s%s",
                         a->host[0] ? "--host" : "--port", list->items[0], list->n > 1 ? " and others" : "");
    const char *host = a->host[0] ? a->host : old.host;
    const bool v6 = strchr(host, ':') && host[0] != '[';
    char own[8];
    snprintf(own, sizeof(own), "%u", old.lo);
    snprintf(text, sizeof(text), "%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", a->port[0] ? a->port : own);
    return config_apply(&l->origins, row, &l->run->cfg, text, a->host[0] ? "--host" : "--port", l->err);
}

/* `serve`: one prefill and one decode node, and a control plane on any free port. */
static enum status make_serve_nodes(struct loader *l)
{
    struct config *cfg = &l->run->cfg;
    const struct config_option *control = config_table_key(SCOPE_GLOBAL, "coordinator", "control");
    struct config_node *node;
    enum status st = config_value_set(control, cfg, "tcp://127.0.0.1:0", l->err);
    if (st == OK) st = config_add_node(cfg->prefill, &cfg->n_prefill, &node);
    return st == OK ? config_add_node(cfg->decode, &cfg->n_decode, &node) : st;
}

static enum status gather(struct loader *l)
{
    const char *file = l->args.config;
    struct config *cfg = &l->run->cfg;
    bool is_node = (ROLE_BIT(l->role) & ROLES_NODE) != 0;
    enum status st = OK;
    if (l->role == CONFIG_UP && !file[0]) {
        return error_set(l->err, ERR_INVALID, "which cluster? give its YAML file");
    }
    if (file[0]) st = config_file_apply(cfg, file, &l->origins, l->err);
    if (st == OK && l->role == CONFIG_SERVE) st = make_serve_nodes(l);
    fill_names(cfg);
    if (st == OK && is_node) st = find_self(l);
    if (st == OK) st = apply_model(l);
    if (st == OK) st = apply_given(l, false);
    if (st == OK) st = apply_host_port(l);
    return st == OK ? config_check(cfg, l->role, file[0] ? file : NULL, &l->origins, l->err) : st;
}

enum status config_load(struct config_run *out, enum config_role role, int argc, char **argv, struct error *err)
{
    struct loader l = { .run = out, .role = role, .err = err };
    memset(out, 0, sizeof(*out));
    config_table_defaults(SCOPE_ARGS, &l.args);
    config_table_defaults(SCOPE_GLOBAL, &out->cfg);
    enum status st = parse_argv(&l, argc, argv);
    if (st == OK) st = apply_given(&l, true);
    out->help = st == OK && l.args.help;
    if (out->help) {
        config_help(stdout, role, argc > 0 ? argv[0] : "baton");
    } else if (st == OK) {
        st = gather(&l);
    }
    out->check_only = l.args.check_only;
    out->weights_fd = l.args.weights_fd;
    out->ready_fd = l.args.ready_fd;
    origins_fini(&l.origins);
    config_table_free(SCOPE_ARGS, &l.args);
    if (st != OK) config_fini(out);
    return st;
}
