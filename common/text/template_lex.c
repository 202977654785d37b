/* template_lex.c - cuts a template's source into text, tags and the tokens inside tags.
 *
 * Whitespace follows Jinja2 with trim_blocks and lstrip_blocks: a newline after a block tag or a comment
 * goes, and so do blanks before one that starts its line; `-` strips everything on its side, `+`
 * nothing.  One newline at the end of the source is dropped. */
#include "text/template_internal.h"

#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct lexer {
    struct str src; /* newlines are \n */
    size_t pos;
    int line;
    bool line_starting; /* the piece before ended with a newline, or there is none */
    struct tokens *out;
    struct arena *arena;
    struct error *err;
    enum status status;
    char open[TEMPLATE_PARSE_DEPTH]; /* brackets that wait for their other half */
    size_t n_open;
};

static bool fail(struct lexer *lx, enum status st, const char *what)
{
    lx->status = error_set(lx->err, st, "template line %d: %s", lx->line, what);
    return false;
}

static struct token *push(struct lexer *lx, enum token_kind kind)
{
    struct tokens *t = lx->out;
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 256;
        t->v = mem_resize(t->v, t->cap, sizeof(*t->v));
    }
    t->v[t->n] = (struct token){ .kind = kind, .line = lx->line };
    return &t->v[t->n++];
}

static char at(const struct lexer *lx, size_t i)
{
    return i < lx->src.n ? lx->src.p[i] : '\0';
}

static bool looking_at(const struct lexer *lx, size_t i, const char *what)
{
    size_t n = strlen(what);
    return i <= lx->src.n && lx->src.n - i >= n && memcmp(lx->src.p + i, what, n) == 0;
}

static void advance(struct lexer *lx, size_t to)
{
    for (size_t i = lx->pos; i < to; i++) lx->line += lx->src.p[i] == '\n';
    if (to > lx->pos) lx->line_starting = lx->src.p[to - 1] == '\n';
    lx->pos = to;
}

static size_t skip_space(const struct lexer *lx, size_t i)
{
    while (i < lx->src.n) {
        size_t next = i;
        if (!text_is_space(text_next(lx->src, &next))) break;
        i = next;
    }
    return i;
}

static bool is_sign(char c)
{
    return c == '-' || c == '+';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

/* The text up to `end`, before a tag whose opening has `sign`. */
static void push_text(struct lexer *lx, size_t end, char sign, bool is_output)
{
    struct str s = str_cut(lx->src, lx->pos, end - lx->pos);
    if (sign == '-') {
        s = text_strip(s, NULL, false, true);
    } else if (sign != '+' && !is_output) {
        size_t start = s.n;
        while (start > 0 && s.p[start - 1] != '\n') start--;
        struct str tail = str_cut(s, start, s.n - start);
        if ((start > 0 || lx->line_starting) && text_strip(tail, NULL, true, false).n == 0) s.n = start;
    }
    if (s.n) push(lx, T_TEXT)->s = s;
    advance(lx, end);
}

/* Behind the closing `mark` ("%}" or "#}") at i: where the text goes on. */
static size_t after_close(const struct lexer *lx, size_t i, char sign)
{
    i += 2;
    if (sign == '-') return skip_space(lx, i);
    return sign != '+' && at(lx, i) == '\n' ? i + 1 : i;
}

static bool lex_comment(struct lexer *lx)
{
    size_t start = lx->pos + 2;
    if (is_sign(at(lx, start))) start++;
    size_t end = start;
    while (!looking_at(lx, end, "#}"))
        if (++end >= lx->src.n) return fail(lx, ERR_PARSE, "a comment {# has no end #}");
    char sign = end > start && is_sign(at(lx, end - 1)) ? at(lx, end - 1) : '\0';
    advance(lx, after_close(lx, end, sign));
    return true;
}

/* Whether a {% raw %} or {% endraw %} tag stands at i; *end is behind it, *sign its closing sign. */
static bool is_raw_tag(const struct lexer *lx, size_t i, const char *word, size_t *end, char *sign)
{
    if (!looking_at(lx, i, "{%")) return false;
    i += 2;
    if (is_sign(at(lx, i))) i++;
    i = skip_space(lx, i);
    if (!looking_at(lx, i, word)) return false;
    i = skip_space(lx, i + strlen(word));
    *sign = is_sign(at(lx, i)) ? at(lx, i) : '\0';
    if (*sign) i++;
    if (!looking_at(lx, i, "%}")) return false;
    *end = i;
    return true;
}

static bool lex_raw(struct lexer *lx, size_t close, char sign)
{
    advance(lx, sign == '-' ? after_close(lx, close, '-') : close + 2);
    size_t i = lx->pos, end = 0;
    while (!is_raw_tag(lx, i, "endraw", &end, &sign))
        if (++i >= lx->src.n) return fail(lx, ERR_PARSE, "{% raw %} has no {% endraw %}");
    push_text(lx, i, at(lx, i + 2), false);
    advance(lx, after_close(lx, end, sign));
    return true;
}

static size_t digits_end(const struct lexer *lx, size_t i)
{
    while (is_digit(at(lx, i)) || (at(lx, i) == '_' && is_digit(at(lx, i + 1)))) i++;
    return i;
}

static bool is_float(const struct lexer *lx, size_t *end)
{
    size_t i = *end;
    bool yes = false;
    if (lx->pos > 0 && lx->src.p[lx->pos - 1] == '.') return false;
    if (at(lx, i) == '.' && is_digit(at(lx, i + 1))) {
        i = digits_end(lx, i + 1);
        yes = true;
    }
    if (at(lx, i) == 'e' || at(lx, i) == 'E') {
        size_t exp = i + 1;
        if (is_sign(at(lx, exp))) exp++;
        if (is_digit(at(lx, exp))) {
            i = digits_end(lx, exp);
            yes = true;
        }
    }
    *end = i;
    return yes;
}

static bool lex_number(struct lexer *lx)
{
    size_t end = digits_end(lx, lx->pos);
    char text[128];
    size_t n = 0;
    bool real = is_float(lx, &end);
    bool based = !real && at(lx, lx->pos) == '0' && strchr("xXoObB", at(lx, lx->pos + 1)) && at(lx, lx->pos + 1);
    if (based) {
        end = lx->pos + 2;
        while (is_word(at(lx, end))) end++;
    }
    for (size_t i = lx->pos; i < end && n < sizeof(text) - 1; i++)
        if (at(lx, i) != '_') text[n++] = at(lx, i);
    text[n] = '\0';
    struct token *t = push(lx, real ? T_FLOAT : T_INT);
    t->s = str_cut(lx->src, lx->pos, end - lx->pos);
    if (real) {
        t->f = strtod(text, NULL);
    } else {
        char kind = based ? (char)(text[1] | 0x20) : '\0', *stop;
        int base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
        errno = 0;
        t->i = strtoll(text + (based ? 2 : 0), &stop, base);
        if (errno == ERANGE) return fail(lx, ERR_UNSUPPORTED, "an integer beyond 64 bits");
        if (*stop || stop == text + 2 * based || (base == 10 && n > 1 && text[0] == '0' && t->i))
            return fail(lx, ERR_PARSE, "a number is malformed");
    }
    lx->pos = end;
    lx->line_starting = false;
    return true;
}

static bool put_code_point(struct lexer *lx, uint32_t c, char *dst, size_t *n)
{
    if (!utf8proc_codepoint_valid((utf8proc_int32_t)c))
        return fail(lx, ERR_PARSE, "an escape in a string names no Unicode character");
    *n += (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)dst + *n);
    return true;
}

/* Reads up to `max` digits of `base` at *i. */
static size_t read_digits(struct str s, size_t *i, size_t max, int base, uint32_t *out)
{
    size_t n = 0;
    *out = 0;
    for (; n < max && *i < s.n; n++, (*i)++) {
        char c = (char)(s.p[*i] | 0x20);
        int d = is_digit(s.p[*i]) ? s.p[*i] - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
        if (d >= base) break;
        *out = *out * (uint32_t)base + (uint32_t)d;
    }
    return n;
}

/* One escape behind a backslash at s[*i]; writes to dst at *n at most the bytes it has in the source. */
static bool put_escape(struct lexer *lx, struct str s, size_t *i, char *dst, size_t *n)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = s.p[(*i)++];
    const char *known = c ? strchr(from, c) : NULL;
    uint32_t code;
    if (c == '\n') return true;
    if (known) {
        dst[(*n)++] = to[known - from];
        return true;
    }
    if (c >= '0' && c <= '7') {
        (*i)--;
        read_digits(s, i, 3, 8, &code);
        return put_code_point(lx, code, dst, n);
    }
    if (c == 'x' || c == 'u' || c == 'U') {
        size_t want = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        if (read_digits(s, i, want, 16, &code) != want)
            return fail(lx, ERR_PARSE, "an escape in a string is cut short");
        return put_code_point(lx, code, dst, n);
    }
    if (c == 'N') return fail(lx, ERR_UNSUPPORTED, "the escape \\N{...} is not supported");
    dst[(*n)++] = '\\';
    dst[(*n)++] = c;
    return true;
}

static bool lex_string(struct lexer *lx)
{
    char quote = at(lx, lx->pos);
    size_t end = lx->pos + 1;
    while (end < lx->src.n && at(lx, end) != quote) end += at(lx, end) == '\\' ? 2 : 1;
    if (end >= lx->src.n) return fail(lx, ERR_PARSE, "a string has no end");
    struct str s = str_cut(lx->src, lx->pos + 1, end - lx->pos - 1);
    char *text = template_alloc(lx->arena, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        if (s.p[i] != '\\')
            text[n++] = s.p[i++];
        else if (i++, !put_escape(lx, s, &i, text, &n))
            return false;
    }
    push(lx, T_STR)->s = (struct str){ text, n, STR_OWN };
    advance(lx, end + 1);
    return true;
}

static bool track_bracket(struct lexer *lx, char c)
{
    char closing = c == '(' ? ')' : c == '[' ? ']' : c == '{' ? '}' : '\0';
    if (closing) {
        if (lx->n_open == sizeof(lx->open)) return fail(lx, ERR_UNSUPPORTED, "brackets nested deeper than 64");
        lx->open[lx->n_open++] = closing;
    } else if (c == ')' || c == ']' || c == '}') {
        if (lx->n_open == 0 || lx->open[--lx->n_open] != c)
            return fail(lx, ERR_PARSE, "a closing bracket matches no open one");
    }
    return true;
}

static bool lex_operator(struct lexer *lx)
{
    static const char *const pairs[] = { "**", "//", "==", "!=", "<=", ">=" };
    char c = at(lx, lx->pos);
    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
        if (!looking_at(lx, lx->pos, pairs[i])) continue;
        push(lx, T_OP)->op = OP2(pairs[i][0], pairs[i][1]);
        advance(lx, lx->pos + 2);
        return true;
    }
    if (!c || !strchr("+-*/%~()[]{}<>=.:|,", c)) {
        if (c == '"' || c == '\'') return lex_string(lx);
        return fail(lx, ERR_PARSE, "an unexpected character inside a tag");
    }
    if (!track_bracket(lx, c)) return false;
    push(lx, T_OP)->op = c;
    advance(lx, lx->pos + 1);
    return true;
}

/* The end of the tag at lx->pos, if it is there. */
static bool lex_tag_end(struct lexer *lx, bool is_output)
{
    const char *mark = is_output ? "}}" : "%}";
    char sign = at(lx, lx->pos);
    if (sign != '-' && (is_output || sign != '+')) sign = '\0';
    size_t i = lx->pos + (sign ? 1 : 0);
    if (lx->n_open || !looking_at(lx, i, mark)) return false;
    push(lx, is_output ? T_VAR_END : T_BLOCK_END);
    if (is_output)
        advance(lx, sign == '-' ? skip_space(lx, i + 2) : i + 2);
    else
        advance(lx, after_close(lx, i, sign));
    return true;
}

static bool lex_tag(struct lexer *lx, bool is_output)
{
    size_t begin = lx->out->n, start = lx->pos;
    push(lx, is_output ? T_VAR_BEGIN : T_BLOCK_BEGIN);
    advance(lx, lx->pos + (is_sign(at(lx, lx->pos + 2)) ? 3 : 2));
    lx->n_open = 0;
    for (;;) {
        advance(lx, skip_space(lx, lx->pos));
        if (lx->pos >= lx->src.n) return fail(lx, ERR_PARSE, "a tag has no end");
        size_t close = lx->pos + 2 + (is_sign(at(lx, lx->pos)) ? 1 : 0);
        if (lex_tag_end(lx, is_output)) {
            lx->out->v[begin].s = str_cut(lx->src, start, close - start);
            return true;
        }
        char c = at(lx, lx->pos);
        if (is_digit(c)) {
            if (!lex_number(lx)) return false;
        } else if (is_word(c)) {
            size_t end = lx->pos;
            while (is_word(at(lx, end))) end++;
            push(lx, T_NAME)->s = str_cut(lx->src, lx->pos, end - lx->pos);
            advance(lx, end);
        } else if (!lex_operator(lx)) {
            return false;
        }
    }
}

static bool lex_piece(struct lexer *lx)
{
    size_t i = lx->pos, end = 0;
    while (i + 1 < lx->src.n && !(lx->src.p[i] == '{' && strchr("{%#", at(lx, i + 1)) && at(lx, i + 1))) i++;
    if (i + 1 >= lx->src.n) {
        push_text(lx, lx->src.n, '+', true);
        return true;
    }
    char mark = at(lx, i + 1), sign = '\0';
    bool is_raw = is_raw_tag(lx, i, "raw", &end, &sign) && sign != '+';
    push_text(lx, i, at(lx, i + 2), mark == '{');
    if (is_raw) return lex_raw(lx, end, sign);
    return mark == '#' ? lex_comment(lx) : lex_tag(lx, mark == '{');
}

/* A copy with \n for every kind of newline, and without the last one. */
static struct str normalize(struct arena *arena, struct str s)
{
    char *text = template_alloc(arena, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\r') {
            text[n++] = '\n';
            if (i + 1 < s.n && s.p[i + 1] == '\n') i++;
        } else {
            text[n++] = s.p[i];
        }
    }
    if (n && text[n - 1] == '\n') n--;
    return (struct str){ text, n, STR_OWN };
}

enum status template_lex(struct tokens *out, struct arena *arena, struct str source, struct error *err)
{
    struct lexer lx = { .line = 1, .line_starting = true, .out = out, .arena = arena, .err = err };
    for (size_t i = 0; i < source.n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n =
            utf8proc_iterate((const utf8proc_uint8_t *)source.p + i, (utf8proc_ssize_t)(source.n - i), &c);
        if (n <= 0) return error_set(err, ERR_PARSE, "template: byte %zu is not valid UTF-8", i);
        i += (size_t)n;
    }
    lx.src = normalize(arena, source);
    while (lx.pos < lx.src.n)
        if (!lex_piece(&lx)) return lx.status;
    push(&lx, T_EOF);
    return OK;
}
