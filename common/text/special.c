/* special.c - finds tokens that are matched in the text before it is tokenized, in a byte trie. */
#include "text/special.h"

#include "base/mem.h"
#include "text/spans.h"
#include "text/vocab.h"

#include <string.h>

#define MAX_NODES (1u << 22) /* 64 MiB; real vocabularies need some ten thousand */
#define NO_NODE   0          /* the root is nobody's child or sibling */

struct node {
    uint32_t child, sibling;
    int32_t id; /* the token that ends here, or TOKEN_NONE */
    uint8_t byte;
};

struct special {
    const struct vocab *vocab;
    struct node *nodes; /* nodes[0] is the root */
    size_t n_nodes, cap;
    uint32_t first[256]; /* the root's children by byte: most text never leaves this table */
};

static uint32_t node_add(struct special *s, uint8_t byte)
{
    if (s->n_nodes == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->nodes = mem_resize(s->nodes, s->cap, sizeof(*s->nodes));
    }
    s->nodes[s->n_nodes] = (struct node){ NO_NODE, NO_NODE, TOKEN_NONE, byte };
    return (uint32_t)s->n_nodes++;
}

static uint32_t child_of(const struct special *s, uint32_t parent, uint8_t byte)
{
    uint32_t i = s->nodes[parent].child;

    while (i != NO_NODE && s->nodes[i].byte != byte) i = s->nodes[i].sibling;
    return i;
}

static void insert(struct special *s, const struct vocab_token *t, int32_t id)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < t->n; i++) {
        uint8_t byte = (uint8_t)t->text[i];
        uint32_t next = child_of(s, at, byte);
        if (next == NO_NODE) {
            next = node_add(s, byte);
            s->nodes[next].sibling = s->nodes[at].child;
            s->nodes[at].child = next;
            if (at == 0) s->first[byte] = next;
        }
        at = next;
    }
    if (at != 0 && s->nodes[at].id == TOKEN_NONE) s->nodes[at].id = id;
}

enum status special_create(struct special **out, const struct vocab *v, struct error *err)
{
    struct special *s = mem_zalloc(sizeof(*s));

    s->vocab = v;
    node_add(s, 0);
    for (uint32_t id = 0; id < v->n_tokens; id++) {
        const struct vocab_token *t = &v->tokens[id];
        bool matched = t->type == TOKEN_USER_DEFINED || t->type == TOKEN_CONTROL || t->type == TOKEN_UNKNOWN;
        if (!matched) continue;
        if (t->n > MAX_NODES - s->n_nodes) {
            special_destroy(s);
            return error_set(err, ERR_TOO_LARGE, "special tokens up to id %u have more than %u bytes of text", id,
                             MAX_NODES);
        }
        insert(s, t, (int32_t)id);
    }
    *out = s;
    return OK;
}

void special_destroy(struct special *s)
{
    if (!s) return;
    mem_free(s->nodes);
    mem_free(s);
}

/* Where a control token that begins at `pos` must end at the latest: at the next literal byte. */
static size_t control_end(struct special_scan *scan, size_t pos)
{
    if (!scan->control) return pos;
    if (!scan->literal) return scan->n;
    scan->at = spans_seek(scan->literal, scan->at, pos);
    if (scan->at == scan->literal->n) return scan->n;
    size_t from = scan->literal->v[scan->at].from;
    return from > pos ? from : pos;
}

/* The longest token that the text begins with at `pos`. */
static struct special_match match_at(const struct special *s, struct special_scan *scan, size_t pos)
{
    struct special_match best = { pos, 0, TOKEN_NONE };
    uint32_t at = s->first[(uint8_t)scan->text[pos]];
    size_t control = at != NO_NODE ? control_end(scan, pos) : pos;

    for (size_t i = pos + 1; at != NO_NODE; i++) {
        int32_t id = s->nodes[at].id;
        if (id != TOKEN_NONE && (i <= control || s->vocab->tokens[id].type == TOKEN_USER_DEFINED)) {
            best = (struct special_match){ pos, i - pos, id };
        }
        at = i < scan->n ? child_of(s, at, (uint8_t)scan->text[i]) : NO_NODE;
    }
    return best;
}

struct special_match special_find(const struct special *s, struct special_scan *scan, size_t from)
{
    for (size_t pos = from; pos < scan->n; pos++) {
        struct special_match m = match_at(s, scan, pos);
        if (m.id != TOKEN_NONE) return m;
    }
    return (struct special_match){ scan->n, 0, TOKEN_NONE };
}
