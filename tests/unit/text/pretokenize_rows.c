/* pretokenize_rows: which names the table knows, and what is special about each. */
#include "text/pretokenize_table.h"

#include <criterion/criterion.h>
#include <string.h>

/* Whether `name` is a word of `list`. */
static bool is_in(const char *name, size_t n, const char *list)
{
    for (const char *p = list; *p; p += strspn(p, " ")) {
        size_t word = strcspn(p, " ");
        if (word == n && memcmp(p, name, n) == 0) return true;
        p += word;
    }
    return false;
}

Test(pretokenize_rows, say_what_their_tokenizers_do)
{
    static const char ignores[] =
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral lfm2 midm-2.0 jina-v5-nano tekken "
        "youtu minicpm5";
    static const char bos[] = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral lfm2 midm-2.0 jina-v5-nano tekken "
                              "chameleon gemma4";
    static const char text[] = "gemma4 sarvam-moe";
    size_t n_rows = 0, n_names = 0;
    for (const struct pretokenize_row *row; (row = pretokenize_row_at(n_rows)); n_rows++) {
        cr_assert_not_null(row->patterns[0]);
        for (const char *p = row->names; *p; p += strspn(p, " "), n_names++) {
            char name[64] = "";
            size_t n = strcspn(p, " ");
            memcpy(name, p, n);
            cr_assert_eq(pretokenize_row_of(name), row, "%s stands in one row", name);
            cr_assert_eq(row->ignores_merges, is_in(name, n, ignores), "%s", name);
            cr_assert_eq(row->adds_bos, is_in(name, n, bos), "%s", name);
            cr_assert_eq(row->is_text, is_in(name, n, text), "%s", name);
            name[n] = '!';
            cr_assert_neq(pretokenize_row_of(name), row, "%s", name);
            p += n;
        }
    }
    cr_assert(n_rows >= 30 && n_names >= 80, "%zu rows of %zu names", n_rows, n_names);
    cr_assert_eq(pretokenize_row_of(""), pretokenize_row_of("default"));
    cr_assert_eq(pretokenize_row_of(""), pretokenize_row_at(0));
    cr_assert_null(pretokenize_row_of("no such"));
    cr_assert_null(pretokenize_row_of("gpt-2 phi-2"));
}
