/* openai_body.c - a body to a JSON object, or to words that say what is wrong with it.
 *
 * What is valid JSON and cannot be taken all the same (a key twice, a number too large ...) is not called invalid JSON.
 */
#include "base/utf8.h"
#include "coordinator/api_error.h"
#include "coordinator/openai.h"

#include <stdio.h>
#include <string.h>

#define NEAR_BYTES 24 /* of the body, shown before the place of an error */

static enum status check_utf8(struct bytes body, struct api_error *e)
{
    for (size_t i = 0, len; i < body.n; i += len) {
        len = utf8_seq_len((const char *)body.p + i, body.n - i);
        if (len == 0)
            return api_error_set(e, ERR_PARSE, "invalid_json", NULL,
                                 "the body is not valid JSON: no valid UTF-8 at byte %zu", i);
    }
    return OK;
}

/* A value costs far more memory than its bytes do. */
static enum status check_values(struct bytes body, struct api_error *e)
{
    bool in_text = false;
    size_t n = 0;
    for (size_t i = 0; i < body.n; i++) {
        uint8_t c = body.p[i];
        if (in_text && c == '\\')
            i++;
        else if (c == '"')
            in_text = !in_text;
        else if (!in_text)
            n += c == ',' || c == ':' || c == '[' || c == '{';
    }
    if (n <= OPENAI_MAX_VALUES) return OK;
    api_error_http(e, 413, NULL, "the body has about %zu JSON values; at most %d are taken", n, OPENAI_MAX_VALUES);
    return ERR_TOO_LARGE;
}

/* Valid JSON that cannot be taken: what it has; NULL where it is not valid. */
static const char *limit_of(const json_error_t *err)
{
    switch (json_error_code(err)) {
    case json_error_duplicate_key: return "the same key twice in one object";
    case json_error_null_character:
    case json_error_null_byte_in_key: return "a string with \\u0000: the character NUL is not taken";
    case json_error_numeric_overflow:
        return "a number that is too large: integers have 64 bits, others a double's range";
    case json_error_stack_overflow: return "too many levels: at most 2048 may lie in each other";
    case json_error_invalid_syntax:
        /* a \u escape of one half of a pair, the only valid thing that is refused as syntax */
        return strncmp(err->text, "invalid Unicode", 15) ? NULL : "a string with half a surrogate pair";
    default: return NULL;
    }
}

static const char *fault_of(const json_error_t *err)
{
    switch (json_error_code(err)) {
    case json_error_premature_end_of_input: return "it ends too early";
    case json_error_end_of_input_expected: return "something follows after its end";
    default: return "this cannot be read";
    }
}

static enum status say(struct bytes body, const json_error_t *err, struct api_error *e)
{
    const char *limit = limit_of(err);
    size_t end = err->position > 0 && (size_t)err->position <= body.n ? (size_t)err->position : 0;
    size_t begin = end > NEAR_BYTES ? end - NEAR_BYTES : 0;
    const char *near = (const char *)body.p + begin;
    if (json_error_code(err) == json_error_out_of_memory)
        return api_error_set(e, ERR_NO_MEMORY, NULL, NULL, "out of memory");
    if (limit)
        return api_error_set(e, ERR_INVALID, NULL, NULL, "the body has %s (line %d, column %d)", limit, err->line,
                             err->column);
    return api_error_set(e, ERR_PARSE, "invalid_json", NULL,
                         "the body is not valid JSON: %s (line %d, column %d, after \"%.*s\")", fault_of(err),
                         err->line, err->column, (int)(end - begin), near);
}

/* Without the byte order mark that some editors put in front, and blanks. */
static struct bytes content_of(struct bytes body)
{
    static const char bom[] = "\xEF\xBB\xBF";
    if (body.n >= 3 && !memcmp(body.p, bom, 3)) body = bytes_of((const char *)body.p + 3, body.n - 3);
    size_t blanks = 0;
    while (blanks < body.n && strchr(" \t\r\n", ((const char *)body.p)[blanks]) && ((const char *)body.p)[blanks])
        blanks++;
    return blanks == body.n ? bytes_of(body.p, 0) : body;
}

struct body_reader { /* hands a body to the parser piece by piece, so that it can be stopped */
    struct bytes left;
    const atomic_bool *stop;
};

static bool is_stopped(const struct body_reader *r)
{
    return r->stop && atomic_load_explicit(r->stop, memory_order_relaxed);
}

static size_t read_piece(void *to, size_t max, void *ctx)
{
    struct body_reader *r = ctx;
    size_t n = r->left.n < max ? r->left.n : max;
    if (is_stopped(r)) return (size_t)-1;
    memcpy(to, r->left.p, n);
    r->left = bytes_of(r->left.p + n, r->left.n - n);
    return n;
}

enum status openai_load_object(json_t **out, struct bytes body, const atomic_bool *stop, struct api_error *e)
{
    json_error_t err;
    body = content_of(body);
    if (body.n == 0)
        return api_error_set(e, ERR_PARSE, "invalid_json", NULL, "the body is empty; a JSON object is expected");
    enum status st = check_utf8(body, e);
    if (st == OK) st = check_values(body, e);
    if (st != OK) return st;
    struct body_reader r = { body, stop };
    json_t *root = json_load_callback(read_piece, &r, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &err);
    if (!root && is_stopped(&r)) return api_error_set(e, ERR_CANCELLED, NULL, NULL, "the client went away");
    if (!root) return say(body, &err, e);
    if (!json_is_object(root)) {
        api_error_set(e, ERR_INVALID, NULL, NULL, "the body must be a JSON object, not %s", openai_kind(root));
        json_decref(root);
        return ERR_INVALID;
    }
    *out = root;
    return OK;
}
