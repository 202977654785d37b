/* yaml.c - builds the tree from libyaml's events. */
#include "config/yaml.h"

#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

struct builder {
    const char *name;
    struct error *err;
    struct ynode *stack[YTREE_MAX_DEPTH]; /* open maps and lists */
    uint32_t depth;
    uint32_t n_nodes;
    char *key;     /* read, its value not yet */
    uint32_t line; /* of the event at hand */
    struct ynode *root;
    bool done;
};

static enum status refuse(struct builder *b, const char *what)
{
    return error_set(b->err, ERR_PARSE, "%s:%u: %s", b->name, b->line, what);
}

void ytree_destroy(struct ynode *node)
{
    if (!node) return;
    while (node->first) { /* as deep as YTREE_MAX_DEPTH at most */
        struct ynode *child = node->first;
        node->first = child->next;
        ytree_destroy(child);
    }
    mem_free(node->key);
    mem_free(node->text);
    mem_free(node);
}

/* A new node at its place in the tree; takes the key that waits. */
static enum status add_node(struct builder *b, enum ynode_kind kind, struct ynode **out)
{
    struct ynode *parent = b->depth ? b->stack[b->depth - 1] : NULL;
    if (++b->n_nodes > YTREE_MAX_NODES) return refuse(b, "too many values in one file");
    struct ynode *node = mem_zalloc(sizeof(*node));
    node->kind = kind;
    node->line = b->line;
    node->key = b->key;
    b->key = NULL;
    if (!parent) {
        b->root = node;
    } else {
        if (parent->last) {
            parent->last->next = node;
        } else {
            parent->first = node;
        }
        parent->last = node;
        parent->n_children++;
    }
    *out = node;
    return OK;
}

static bool expects_key(const struct builder *b)
{
    return b->depth > 0 && b->stack[b->depth - 1]->kind == YNODE_MAP && !b->key;
}

static enum status take_key(struct builder *b, const char *text)
{
    for (const struct ynode *c = b->stack[b->depth - 1]->first; c; c = c->next) {
        if (strcmp(c->key, text) == 0) {
            return error_set(b->err, ERR_PARSE, "%s:%u: key %s stands twice (first in line %u)", b->name, b->line, text,
                             c->line);
        }
    }
    b->key = mem_strdup(text);
    return OK;
}

static enum status on_scalar(struct builder *b, const yaml_event_t *e)
{
    const char *text = (const char *)e->data.scalar.value;
    size_t n = e->data.scalar.length;
    struct ynode *node;
    if (n > YTREE_MAX_SCALAR_BYTES) return refuse(b, "a value is longer than 4096 bytes");
    if (memchr(text, '\0', n)) return refuse(b, "a value holds a NUL character");
    if (expects_key(b)) return take_key(b, text);
    enum status st = add_node(b, YNODE_SCALAR, &node);
    if (st != OK) return st;
    bool plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    node->text = mem_strndup(text, n);
    node->is_null = plain && (n == 0 || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
    return OK;
}

static enum status open_node(struct builder *b, enum ynode_kind kind)
{
    struct ynode *node;
    if (expects_key(b)) return refuse(b, "a key must be plain text");
    if (b->depth == YTREE_MAX_DEPTH) return refuse(b, "nested too deep");
    enum status st = add_node(b, kind, &node);
    if (st == OK) b->stack[b->depth++] = node;
    return st;
}

static bool has_anchor_or_tag(const yaml_event_t *e)
{
    switch (e->type) {
    case YAML_SCALAR_EVENT: return e->data.scalar.anchor || e->data.scalar.tag;
    case YAML_SEQUENCE_START_EVENT: return e->data.sequence_start.anchor || e->data.sequence_start.tag;
    case YAML_MAPPING_START_EVENT: return e->data.mapping_start.anchor || e->data.mapping_start.tag;
    default: return false;
    }
}

static enum status on_event(struct builder *b, const yaml_event_t *e)
{
    b->line = (uint32_t)e->start_mark.line + 1;
    if (has_anchor_or_tag(e)) return refuse(b, "anchors and tags are not taken here");
    switch (e->type) {
    case YAML_ALIAS_EVENT: return refuse(b, "aliases are not taken here");
    case YAML_DOCUMENT_START_EVENT: return b->root ? refuse(b, "more than one document") : OK;
    case YAML_SCALAR_EVENT: return on_scalar(b, e);
    case YAML_SEQUENCE_START_EVENT: return open_node(b, YNODE_LIST);
    case YAML_MAPPING_START_EVENT: return open_node(b, YNODE_MAP);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT: b->depth--; return OK;
    case YAML_STREAM_END_EVENT: b->done = true; return OK;
    default: return OK;
    }
}

static enum status parser_failed(struct builder *b, const yaml_parser_t *p)
{
    b->line = (uint32_t)p->problem_mark.line + 1;
    return refuse(b, p->problem ? p->problem : "not YAML");
}

enum status ytree_parse(struct ynode **out, const char *name, struct bytes text, struct error *err)
{
    yaml_parser_t parser;
    struct builder b = { .name = name, .err = err };
    enum status st = OK;
    if (text.n > YTREE_MAX_FILE_BYTES) {
        return error_set(err, ERR_TOO_LARGE, "%s: larger than 1 MiB", name);
    }
    if (!yaml_parser_initialize(&parser)) return error_set(err, ERR_NO_MEMORY, "%s: out of memory", name);
    yaml_parser_set_input_string(&parser, text.p ? text.p : (const uint8_t *)"", text.n);
    while (st == OK && !b.done) {
        yaml_event_t e;
        if (!yaml_parser_parse(&parser, &e)) {
            st = parser_failed(&b, &parser);
            break;
        }
        st = on_event(&b, &e);
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&parser);
    if (st == OK && (!b.root || b.root->is_null)) {
        ytree_destroy(b.root);
        b.root = mem_zalloc(sizeof(*b.root));
        b.root->kind = YNODE_MAP;
        b.root->line = 1;
    }
    mem_free(b.key);
    if (st != OK) {
        ytree_destroy(b.root);
        return st;
    }
    *out = b.root;
    return OK;
}

enum status ytree_load(struct ynode **out, const char *path, struct error *err)
{
    FILE *f = fopen(path, "re");
    if (!f) return error_set(err, ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
    char *text = mem_alloc(YTREE_MAX_FILE_BYTES + 1);
    size_t n = fread(text, 1, YTREE_MAX_FILE_BYTES + 1, f);
    bool bad = ferror(f) != 0;
    fclose(f);
    enum status st =
        bad ? error_set(err, ERR_IO, "%s: cannot be read", path) : ytree_parse(out, path, bytes_of(text, n), err);
    mem_free(text);
    return st;
}
