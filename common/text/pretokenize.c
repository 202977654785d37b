/* pretokenize.c - cuts text into the pieces that byte-level BPE merges inside of, with PCRE2. */
#include "text/pretokenize.h"

#include "base/mem.h"
#include "base/strbuf.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <assert.h>
#include <pcre2.h>
#include <string.h>

#define MAX_PATTERNS 5

/* White space is Unicode's property, spelled out: PCRE2's \s would add U+180E to it. */
#define WS_SET                                                                                                         \
    "\\t-\\r\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}"                       \
    "\\x{3000}"
#define WS           "[" WS_SET "]"
#define SPACES       WS "+(?![^" WS_SET "])|" WS "+" /* a run's last space belongs to the word after it */
#define NEWLINES     WS "*[\\r\\n]+"
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD         "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SYMBOLS      " ?[^" WS_SET "\\p{L}\\p{N}]+"
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED_1      "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+"
#define CASED_2      "[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*"

#define GPT2               "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|" SYMBOLS "|" SPACES
#define CL100K(digits)     CONTRACTIONS "|" WORD "|" digits "|" SYMBOLS "[\\r\\n]*|" NEWLINES "|" SPACES
#define O200K_TAIL(digits) digits "|" SYMBOLS "[\\r\\n/]*|" NEWLINES "|" SPACES

struct family {
    const char *names; /* separated by spaces; tokenizer.ggml.pre */
    const char *patterns[MAX_PATTERNS];
    bool ignores_merges;
};

static const struct family families[] = {
    { "default", { "[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]" } },
    { "smollm starcoder refact command-r codeshell exaone minerva-7b", { "\\p{N}", GPT2 } },
    { "gpt-2 phi-2 mpt olmo jais jina-es jina-de jina-v2-es jina-v2-de gigachat exaone4 trillion", { GPT2 } },
    { "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral lfm2", { CL100K("\\p{N}{1,3}") }, true },
    { "dbrx smaug-bpe glm4 chatglm-bpe", { CL100K("\\p{N}{1,3}") } },
    { "qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan grok-2", { CL100K("\\p{N}") } },
    { "tekken", { CASED_1 "|" CASED_2 "|" O200K_TAIL("\\p{N}") }, true },
    { "gpt-4o llama4", { CASED_1 CONTRACTIONS "?|" CASED_2 CONTRACTIONS "?|" O200K_TAIL("\\p{N}{1,3}") } },
    { "falcon", { "[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]" } },
    { "deepseek-coder",
      { "[\\r\\n]", WS "?\\p{L}+", WS "?\\p{P}+", "[\\x{800}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]+", "\\p{N}" } },
    { "deepseek-v3 hunyuan-dense",
      { "\\p{N}{1,3}", "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+",
        "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
        " ?[\\p{P}\\p{S}]+[\\r\\n]*|" NEWLINES "|" SPACES } },
};

#define N_FAMILIES (sizeof(families) / sizeof(families[0]))

/* A pattern that walks one long run may need memory in proportion to it; these bounds stop one that
 * would not end, with an error, long before a caller gives up. */
#define MATCH_LIMIT     50000000
#define JIT_STACK_START (32 << 10)
#define JIT_STACK_MAX   (16 << 20)

struct pretokenizer {
    const struct family *family;
    size_t n_codes;
    pcre2_code *codes[MAX_PATTERNS];
};

struct pretokenize_scratch {
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static bool has_name(const char *names, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = names; *p; p += strspn(p, " ")) {
        size_t word = strcspn(p, " ");
        if (word == n && memcmp(p, name, n) == 0) return true;
        p += word;
    }
    return false;
}

static const struct family *family_of(const char *name)
{
    if (*name == '\0') return &families[0];
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (has_name(families[i].names, name)) return &families[i];
    }
    return NULL;
}

static enum status compile(struct pretokenizer *p, const char *pattern, struct error *err)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);

    if (!re) {
        return error_set(err, ERR_INTERNAL, "pre-tokenizer pattern does not compile at %zu (PCRE2 %d)", (size_t)at,
                         code);
    }
    (void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE); /* without JIT the interpreter does the same */
    p->codes[p->n_codes++] = re;
    return OK;
}

static enum status refuse_name(const char *name, struct error *err)
{
    struct strbuf known = STRBUF_INIT;

    for (size_t i = 0; i < N_FAMILIES; i++) {
        strbuf_addf(&known, "%s%.*s", i ? ", " : "", (int)strcspn(families[i].names, " "), families[i].names);
    }
    error_set(err, ERR_UNSUPPORTED, "pre-tokenizer \"%.64s\" is not known; known are %s (and aliases)", name,
              strbuf_cstr(&known));
    strbuf_fini(&known);
    return ERR_UNSUPPORTED;
}

enum status pretokenize_create(struct pretokenizer **out, const char *name, struct error *err)
{
    const struct family *family = family_of(name);
    enum status st;

    if (!family) return refuse_name(name, err);
    struct pretokenizer *p = mem_zalloc(sizeof(*p));
    p->family = family;
    for (size_t i = 0; i < MAX_PATTERNS && family->patterns[i]; i++) {
        if ((st = compile(p, family->patterns[i], err)) != OK) goto fail;
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
    for (size_t i = 0; i < p->n_codes; i++) pcre2_code_free(p->codes[i]);
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
    return p->family->ignores_merges;
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
    int rc = pcre2_match(s->p->codes[level], (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, s->scratch->match,
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

static enum status split_level(const struct split *s, size_t level, const char *text, size_t n)
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

static enum status split_from(const struct split *s, size_t level, const char *text, size_t n)
{
    return level == s->p->n_codes ? s->fn(s->arg, text, n) : split_level(s, level, text, n);
}

enum status pretokenize_split(const struct pretokenizer *p, struct pretokenize_scratch *scratch, const char *text,
                              size_t n, pretokenize_fn fn, void *arg, struct error *err)
{
    struct split s = { p, scratch, fn, arg, err };

    return split_from(&s, 0, text, n);
}
