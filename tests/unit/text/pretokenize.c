/* pretokenize: every pre-tokenizer cuts as the models' own patterns do. */
#include "text/pretokenize.h"

#include "make_vocab.h"
#include "text/pretokenize_table.h"

struct pieces {
    size_t n[4096];
    size_t count;
    const char *at; /* where the next piece must begin */
};

static enum status keep_piece(void *arg, const char *piece, size_t n)
{
    struct pieces *p = arg;
    cr_assert_eq(piece, p->at, "pieces have a gap");
    cr_assert_gt(n, 0);
    p->at += n;
    if (p->count < 4096) p->n[p->count] = n;
    p->count++;
    return OK;
}

static void split(const char *name, const char *text, size_t n, struct pieces *out)
{
    struct pretokenize_scratch *scratch;
    struct pretokenizer *p = NULL;
    struct error err = { 0 };
    *out = (struct pieces){ .at = text };
    cr_assert_eq(pretokenize_create(&p, name, &err), OK, "%s", err.text);
    cr_assert_eq(pretokenize_scratch_create(&scratch), OK);
    cr_assert_eq(pretokenize_split(p, scratch, text, n, keep_piece, out, &err), OK, "%s: %s", name, err.text);
    pretokenize_scratch_destroy(scratch);
    cr_assert_eq(out->at, text + n, "pieces are not the whole text");
    pretokenize_destroy(p);
}

static void compare_all(const char *name, const json_t *texts, const json_t *want)
{
    size_t i;
    const json_t *text;
    json_array_foreach(texts, i, text)
    {
        struct pieces got;
        const json_t *lengths = json_array_get(want, i);
        const char *s = json_string_value(text);
        split(name, s, json_string_length(text), &got);
        cr_assert_eq(got.count, json_array_size(lengths), "%s: \"%s\" (%zu) has %zu pieces, expected %zu", name, s, i,
                     got.count, json_array_size(lengths));
        for (size_t k = 0; k < got.count; k++) {
            cr_assert_eq(got.n[k], (size_t)json_integer_value(json_array_get(lengths, k)),
                         "%s: \"%s\" (%zu), piece %zu has %zu bytes", name, s, i, k, got.n[k]);
        }
    }
}

Test(pretokenize, cuts_as_the_published_patterns_do)
{
    json_t *golden = load_json(TEST_DATA "/golden/tokens/splits.json");
    const char *name;
    json_t *want;
    json_object_foreach(json_object_get(golden, "pieces"), name, want)
    {
        compare_all(name, json_object_get(golden, "texts"), want);
    }
    json_decref(golden);
}

Test(pretokenize, refuses_an_unknown_name_with_the_name)
{
    struct pretokenizer *p = NULL;
    struct error err = { 0 };
    cr_assert_eq(pretokenize_create(&p, "smol", &err), ERR_UNSUPPORTED);
    cr_assert_not_null(strstr(err.text, "\"smol\""));
    cr_assert_null(p);
    cr_assert_eq(pretokenize_create(&p, "llama3 llama-v3", &err), ERR_UNSUPPORTED);
    pretokenize_destroy(NULL);
}

Test(pretokenize, knows_aliases_and_takes_no_name_for_default)
{
    struct pieces a, b;
    const char *text = "It's 12345 tokens!!";
    split("", text, strlen(text), &a);
    split("default", text, strlen(text), &b);
    cr_assert_eq(a.count, b.count);
    split("llama3", text, strlen(text), &a);
    split("llama-bpe", text, strlen(text), &b);
    cr_assert_eq(a.count, b.count);
}

/* Of two rows with one name the second would never be taken. */
Test(pretokenize, every_name_stands_in_one_row)
{
    const struct pretokenize_row *row;
    for (size_t k = 0; (row = pretokenize_row_at(k)); k++) {
        for (const char *p = row->names; *p; p += strspn(p, " ")) {
            char name[64];
            size_t n = strcspn(p, " ");
            snprintf(name, sizeof(name), "%.*s", (int)n, p);
            cr_assert_eq(pretokenize_row_of(name), row, "%s", name);
            p += n;
        }
    }
}

Test(pretokenize, digits_are_cut_into_threes_from_their_end)
{
    struct pieces got;
    split("superbpe", "a12345678b12", 12, &got);
    cr_assert(got.count == 6 && got.n[1] == 2 && got.n[2] == 3 && got.n[3] == 3 && got.n[4] == 1 && got.n[5] == 2);
    split("tiny_aya", " 1234 5678x", 11, &got);
    cr_assert(got.count == 7 && got.n[1] == 1 && got.n[2] == 3, "1|234");
    cr_assert(got.n[4] == 3 && got.n[5] == 1, "567|8: a letter follows");
}

static enum status refuse(void *arg, const char *piece, size_t n)
{
    return ++*(int *)arg == 2 ? ERR_FULL : OK;
}

Test(pretokenize, stops_when_the_caller_fails)
{
    struct pretokenize_scratch *scratch;
    struct pretokenizer *p = NULL;
    int calls = 0;
    cr_assert_eq(pretokenize_create(&p, "gpt-2", NULL), OK);
    cr_assert_eq(pretokenize_scratch_create(&scratch), OK);
    cr_assert_eq(pretokenize_split(p, scratch, "one two three", 13, refuse, &calls, NULL), ERR_FULL);
    pretokenize_scratch_destroy(scratch);
    cr_assert_eq(calls, 2);
    pretokenize_destroy(p);
}

Test(pretokenize, long_runs_end_for_every_pattern)
{
    static const char fills[] = "a \n1.\r'A";
    const struct pretokenize_row *row;
    size_t n = 1 << 20;
    char *text = mem_alloc(n), name[32];
    for (size_t k = 0; (row = pretokenize_row_at(k)); k++) {
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(row->names, " "), row->names);
        for (size_t f = 0; fills[f]; f++) {
            struct pieces got;
            memset(text, fills[f], n);
            text[n - 1] = fills[f] == ' ' ? 'x' : ' ';
            split(name, text, n, &got);
            cr_assert_gt(got.count, 0);
        }
    }
    mem_free(text);
}
