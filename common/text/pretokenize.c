/* pretokenize.c - cuts text into the pieces that byte-level BPE merges inside of, with PCRE2. */
#include "text/pretokenize.h"

#include "base/mem.h"
#include "base/strbuf.h"
#include "text/pretokenize_table.h"
#include "text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <assert.h>
#include <pcre2.h>
#include <string.h>

/* A pattern that walks one long run may need memory in proportion to it; these bounds stop one that
 * would not end, with an error, long before a caller gives up. */
#define MATCH_LIMIT     50000000
#define JIT_STACK_START (32 << 10)
#define JIT_STACK_MAX   (16 << 20)

enum level_kind {
    CUT_AT_MATCHES, /* matches and what lies between them */
    CUT_THREES,     /* inside of matches, which are runs of digits, before each three that end with the run */
    CUT_RUNS,       /* the same, and around each run */
};

struct level {
    enum level_kind kind;
    pcre2_code *code;
};

struct pretokenizer {
    const struct pretokenize_row *row;
    size_t n_levels;
    struct level levels[PRETOKENIZE_MAX_PATTERNS];
};

struct pretokenize_scratch {
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static enum status compile(struct pretokenizer *p, enum level_kind kind, const char *pattern, struct error *err)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);

    if (!re) {
        return error_set(err, ERR_INTERNAL, "pre-tokenizer pattern does not compile at %zu (PCRE2 %d)", (size_t)at,
                         code);
    }
    (void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE); /* without JIT the interpreter does the same */
    p->levels[p->n_levels++] = (struct level){ kind, re };
    return OK;
}

static enum status add_level(struct pretokenizer *p, const char *pattern, struct error *err)
{
    if (strcmp(pattern, PRETOKENIZE_THREES) == 0) return compile(p, CUT_THREES, "\\p{Nd}+", err);
    if (strcmp(pattern, PRETOKENIZE_THREES_OF_WORDS) == 0)
        return compile(p, CUT_RUNS, "\\p{Nd}++(?![\\p{L}\\p{M}\\p{N}\\p{Pc}])", err);
    return compile(p, CUT_AT_MATCHES, pattern, err);
}

static enum status refuse_name(const char *name, struct error *err)
{
    struct strbuf known = STRBUF_INIT;
    const struct pretokenize_row *row;

    for (size_t i = 0; (row = pretokenize_row_at(i)); i++) {
        strbuf_addf(&known, "%s%.*s", i ? ", " : "", (int)strcspn(row->names, " "), row->names);
    }
    error_set(err, ERR_UNSUPPORTED, "pre-tokenizer \"%.64s\" is not known; known are %s (and aliases)", name,
              strbuf_cstr(&known));
    strbuf_fini(&known);
    return ERR_UNSUPPORTED;
}

enum status pretokenize_create(struct pretokenizer **out, const char *name, struct error *err)
{
    const struct pretokenize_row *row = pretokenize_row_of(name);
    enum status st;

    if (!row) return refuse_name(name, err);
    struct pretokenizer *p = mem_zalloc(sizeof(*p));
    p->row = row;
    for (size_t i = 0; i < PRETOKENIZE_MAX_PATTERNS && row->patterns[i]; i++) {
        if ((st = add_level(p, row->patterns[i], err)) != OK) goto fail;
    }
    *out = p;
    return OK;
fail:
    pretokenize_destroy(p);
    return st;
}

void pretokenize_destroy(struct pretokenizer *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->n_levels; i++) pcre2_code_free(p->levels[i].code);
    mem_free(p);
}

enum status pretokenize_scratch_create(struct pretokenize_scratch **out)
{
    struct pretokenize_scratch *s = mem_zalloc(sizeof(*s));
    s->match = pcre2_match_data_create(1, NULL);
    s->context = pcre2_match_context_create(NULL);
    s->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_MAX, NULL);
    if (!s->match || !s->context || !s->stack) {
        pretokenize_scratch_destroy(s);
        return ERR_NO_MEMORY;
    }
    pcre2_jit_stack_assign(s->context, NULL, s->stack);
    pcre2_set_match_limit(s->context, MATCH_LIMIT);
    *out = s;
    return OK;
}

void pretokenize_scratch_destroy(struct pretokenize_scratch *s)
{
    if (!s) return;
    if (s->stack) pcre2_jit_stack_free(s->stack);
    if (s->context) pcre2_match_context_free(s->context);
    if (s->match) pcre2_match_data_free(s->match);
    mem_free(s);
}

bool pretokenize_ignores_merges(const struct pretokenizer *p)
{
    return p->row->ignores_merges;
}

struct split {
    const struct pretokenizer *p;
    struct pretokenize_scratch *scratch;
    pretokenize_fn fn;
    void *arg;
    struct error *err;
};

static enum status split_from(const struct split *s, size_t level, const char *text, size_t n);

/* One match of pattern `level` in text[from..n): *begin = *end = n if there is none. */
static enum status next_match(const struct split *s, size_t level, const char *text, size_t n, size_t from,
                              size_t *begin, size_t *end)
{
    int rc = pcre2_match(s->p->levels[level].code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, s->scratch->match,
                         s->scratch->context);

    *begin = *end = n;
    if (rc == PCRE2_ERROR_NOMATCH) return OK;
    if (rc < 0) {
        return error_set(s->err, ERR_TOO_LARGE,
                         "%zu bytes of text in one run are too much for the pre-tokenizer (PCRE2 %d)", n - from, rc);
    }
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(s->scratch->match);
    *begin = span[0];
    *end = span[1];
    assert(*end > *begin); /* no pattern of the table matches nothing */
    return OK;
}

static enum status cut_at_matches(const struct split *s, size_t level, const char *text, size_t n)
{
    size_t done = 0;
    enum status st;

    while (done < n) {
        size_t begin, end;
        if ((st = next_match(s, level, text, n, done, &begin, &end)) != OK) return st;
        if (begin > done && (st = split_from(s, level + 1, text + done, begin - done)) != OK) return st;
        if (end > begin && (st = split_from(s, level + 1, text + begin, end - begin)) != OK) return st;
        done = end;
    }
    return OK;
}

/* What lies in [*done, to) is a piece, if there is anything. */
static enum status cut(const struct split *s, size_t level, const char *text, size_t *done, size_t to)
{
    size_t from = *done;
    *done = to;
    return to > from ? split_from(s, level + 1, text + from, to - from) : OK;
}

static size_t count_characters(const char *text, size_t n)
{
    size_t count = 0;
    for (size_t at = 0; at < n; at += utf8_len((uint8_t)text[at])) count++;
    return count;
}

/* Patterns that look ahead to a run's end from each of its digits would take the square of its length. */
static enum status cut_threes(const struct split *s, size_t level, const char *text, size_t n)
{
    const bool around = s->p->levels[level].kind == CUT_RUNS;
    size_t done = 0, begin, end;
    enum status st;

    for (size_t from = 0; from < n; from = end) {
        if ((st = next_match(s, level, text, n, from, &begin, &end)) != OK) return st;
        if (around && (st = cut(s, level, text, &done, begin)) != OK) return st;
        size_t left = count_characters(text + begin, end - begin);
        for (size_t at = begin; at < end; at += utf8_len((uint8_t)text[at]), left--) {
            if (left % 3 == 0 && (st = cut(s, level, text, &done, at)) != OK) return st;
        }
        if (around && (st = cut(s, level, text, &done, end)) != OK) return st;
    }
    return cut(s, level, text, &done, n);
}

static enum status split_from(const struct split *s, size_t level, const char *text, size_t n)
{
    if (level == s->p->n_levels) return s->fn(s->arg, text, n);
    if (s->p->levels[level].kind == CUT_AT_MATCHES) return cut_at_matches(s, level, text, n);
    return cut_threes(s, level, text, n);
}

enum status pretokenize_split(const struct pretokenizer *p, struct pretokenize_scratch *scratch, const char *text,
                              size_t n, pretokenize_fn fn, void *arg, struct error *err)
{
    struct split s = { p, scratch, fn, arg, err };

    return split_from(&s, 0, text, n);
}
