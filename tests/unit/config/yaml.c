/* yaml: trees with lines; what is refused, and where. */
#include "config/yaml.h"

#include "base/strbuf.h"

#include <criterion/criterion.h>
#include <string.h>

static struct ynode *parse(const char *text)
{
    struct ynode *root = NULL;
    struct error err = { 0 };
    cr_assert(ytree_parse(&root, "f", bytes_of(text, strlen(text)), &err) == OK, "%s", err.text);
    return root;
}

static void expect_refused(const char *text, size_t n, const char *want)
{
    struct ynode *root = NULL;
    struct error err = { 0 };
    cr_assert(ytree_parse(&root, "f", bytes_of(text, n), &err) != OK, "%.40s: was accepted", text);
    cr_assert_null(root);
    cr_assert(strstr(err.text, want), "want \"%s\" in \"%s\"", want, err.text);
}

Test(yaml, nodes_know_key_line_and_kind)
{
    struct ynode *root = parse("a: 1\nb:\n  - x\n  - { c: 'null' }\nd:\n");
    struct ynode *b = root->first->next;
    cr_assert_eq(root->n_children, 3);
    cr_assert_str_eq(root->first->text, "1");
    cr_assert_eq(b->kind, YNODE_LIST);
    cr_assert_eq(b->first->next->line, 4);
    cr_assert_str_eq(b->first->next->first->key, "c");
    cr_assert(!b->first->next->first->is_null);
    cr_assert(root->last->is_null);
    ytree_destroy(root);
}

Test(yaml, nothing_is_an_empty_map)
{
    static const char *const texts[] = { "", "# only a comment\n", "---\n", "~\n" };
    for (int i = 0; i < 4; i++) {
        struct ynode *root = parse(texts[i]);
        cr_assert(root->kind == YNODE_MAP && root->n_children == 0);
        ytree_destroy(root);
    }
}

Test(yaml, refuses_what_hides_meaning)
{
#define REFUSED(text, want) expect_refused(text, sizeof(text) - 1, want)
    REFUSED("a: &x 1\nb: *x\n", "f:1: anchors and tags");
    REFUSED("b: *x\n", "f:1: aliases");
    REFUSED("a: 1\nb: !!str 1\n", "f:2: anchors and tags");
    REFUSED("a: 1\nc: 2\na: 3\n", "f:3: key a stands twice (first in line 1)");
    REFUSED("a: 1\n---\nb: 1\n", "f:2: more than one document");
    REFUSED("{ [a]: 1 }\n", "f:1: a key must be plain text");
    REFUSED("a: \"x\\0y\"\n", "f:1: a value holds a NUL");
    REFUSED("a: [1, 2\nb: 3\n", "f:2: ");
    REFUSED("a:\n\t- b\n", "f:2: ");
    REFUSED("\xff\xfe\x00", "f:1: ");
}

Test(yaml, everything_is_bounded)
{
    struct strbuf sb = STRBUF_INIT;
    for (int i = 0; i < 40; i++) strbuf_putc(&sb, '[');
    expect_refused(sb.s, sb.n, "f:1: nested too deep");
    strbuf_reset(&sb);
    strbuf_puts(&sb, "a: ");
    for (int i = 0; i < 5000; i++) strbuf_putc(&sb, 'x');
    expect_refused(sb.s, sb.n, "f:1: a value is longer than 4096 bytes");
    strbuf_reset(&sb);
    for (int i = 0; i < 30000; i++) strbuf_puts(&sb, "- 1\n");
    expect_refused(sb.s, sb.n, "f:20000: too many values");
    strbuf_reset(&sb);
    for (int i = 0; i < 1100; i++) strbuf_addf(&sb, "# %01000d\n", i);
    expect_refused(sb.s, sb.n, "f: larger than 1 MiB");
    strbuf_fini(&sb);
}

static void expect_taken(const struct strbuf *sb)
{
    struct ynode *root = NULL;
    struct error err = { 0 };
    cr_assert_eq(ytree_parse(&root, "f", bytes_of(sb->s, sb->n), &err), OK, "%s", err.text);
    ytree_destroy(root);
}

/* The most of each thing is taken, one more is not. */
Test(yaml, bounds_are_where_they_are_said_to_be)
{
    struct strbuf sb = STRBUF_INIT;
    for (int deep = YTREE_MAX_DEPTH; deep <= YTREE_MAX_DEPTH + 1; deep++) {
        strbuf_reset(&sb);
        for (int i = 0; i < deep; i++) strbuf_putc(&sb, '[');
        for (int i = 0; i < deep; i++) strbuf_putc(&sb, ']');
        if (deep == YTREE_MAX_DEPTH)
            expect_taken(&sb);
        else
            expect_refused(sb.s, sb.n, "f:1: nested too deep");
    }
    for (int n = YTREE_MAX_SCALAR_BYTES; n <= YTREE_MAX_SCALAR_BYTES + 1; n++) {
        strbuf_reset(&sb);
        strbuf_puts(&sb, "a: ");
        for (int i = 0; i < n; i++) strbuf_putc(&sb, 'x');
        if (n == YTREE_MAX_SCALAR_BYTES)
            expect_taken(&sb);
        else
            expect_refused(sb.s, sb.n, "f:1: a value is longer than 4096 bytes");
    }
    strbuf_reset(&sb);
    for (int i = 1; i < YTREE_MAX_NODES; i++) strbuf_puts(&sb, "- 1\n"); /* and the list itself */
    expect_taken(&sb);
    strbuf_puts(&sb, "- 1\n");
    expect_refused(sb.s, sb.n, "f:20000: too many values");
    strbuf_reset(&sb);
    for (uint32_t i = 0; i < YTREE_MAX_FILE_BYTES; i++) strbuf_putc(&sb, i % 100 ? '#' : '\n');
    expect_taken(&sb);
    strbuf_putc(&sb, '#');
    expect_refused(sb.s, sb.n, "f: larger than 1 MiB");
    strbuf_fini(&sb);
}

Test(yaml, nothing_is_said_in_four_ways_and_only_without_quotes)
{
    struct ynode *root = parse("a:\nb: ~\nc: null\nd: \"\"\ne: '~'\nf: \"null\"\ng: nul\nh: [ ~, x ]\n");
    static const bool is_null[] = { true, true, true, false, false, false, false };
    const struct ynode *c = root->first;
    for (int i = 0; i < 7; i++, c = c->next) cr_assert_eq(c->is_null, is_null[i], "%s", c->key);
    cr_assert(c->n_children == 2 && c->first->is_null && !c->last->is_null && c->first->key == NULL);
    cr_assert_null(c->next);
    ytree_destroy(root);
}
