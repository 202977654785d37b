/* pretokenize_table.h - which patterns cut the text of a model, by the name in tokenizer.ggml.pre.
 *
 * A row is a family of tokenizers; a new name is a word in a row, a new way to cut is a row. */
#ifndef TEXT_PRETOKENIZE_TABLE_H
#define TEXT_PRETOKENIZE_TABLE_H
#include <stdbool.h>
#include <stddef.h>

#define PRETOKENIZE_MAX_PATTERNS 6

/* In place of a pattern: a run of digits is cut into threes from its end on, "1|234|567". */
#define PRETOKENIZE_THREES "threes"
/* The same, but only of runs that no letter, mark, digit or connector follows. */
#define PRETOKENIZE_THREES_OF_WORDS "threes of words"

struct pretokenize_row {
    const char *names; /* separated by spaces */
    const char *patterns[PRETOKENIZE_MAX_PATTERNS];
    bool ignores_merges; /* a piece that is a token as a whole is taken so, whatever the merges say */
    bool adds_bos;       /* a text begins with BOS where the file does not say */
    bool is_text;        /* merges join characters, a space being U+2581, and not bytes */
};

/* "" is "default"; NULL: not known. */
const struct pretokenize_row *pretokenize_row_of(const char *name);
/* The rows one after the other; NULL after the last. */
const struct pretokenize_row *pretokenize_row_at(size_t i);
#endif
