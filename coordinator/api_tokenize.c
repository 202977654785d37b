/* api_tokenize.c - POST /tokenize and /detokenize, in the words of llama-server and of vLLM. */
#include "base/json_write.h"
#include "base/mem.h"
#include "base/mem_later.h"
#include "base/token_id.h"
#include "coordinator/api.h"
#include "coordinator/api_error.h"
#include "coordinator/ask.h"
#include "coordinator/openai_fields.h"
#include "coordinator/served_model.h"
#include "coordinator/services.h"
#include "text/detok.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

#include <string.h>

#define MAX_TEXT_BYTES ((size_t)4 << 20) /* of /tokenize: about two seconds of a worker */

/* The first of `names` that is there and not null. */
static const json_t *member(const json_t *root, const char *const *names, const char **found)
{
    for (; *names; names++) {
        const json_t *v = json_object_get(root, *names);
        if (!v || json_is_null(v)) continue;
        *found = *names;
        return v;
    }
    return NULL;
}

static enum status read_flag(const json_t *root, const char *const *names, bool fallback, bool *out,
                             struct api_error *e)
{
    const char *found = "";
    const json_t *v = member(root, names, &found);
    *out = fallback;
    if (!v) return OK;
    if (!json_is_boolean(v))
        return api_error_set(e, ERR_INVALID, NULL, found, "'%s' must be a boolean, not %s", found, openai_kind(v));
    *out = json_is_true(v);
    return OK;
}

/* What /tokenize and /detokenize read themselves. */
struct text_endpoint {
    enum api_endpoint id;
    const char *known[8]; /* ends with NULL */
};

static enum status check_members(const json_t *root, const struct text_endpoint *of, bool strict, struct api_error *e)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)root, key, v)
    {
        size_t i = 0;
        while (of->known[i] && strcmp(of->known[i], key) != 0) i++;
        enum status st = of->known[i] ? OK : fields_check_other(key, v, of->id, strict, e);
        if (st != OK) return st;
    }
    return OK;
}

struct text_ask { /* of either endpoint */
    struct ask ask;
    struct strbuf json; /* the answer */
};

static enum status load(const struct ask *ask, const struct text_endpoint *of, json_t **root,
                        struct served_model **model, struct api_error *e)
{
    enum status st = openai_load_object(root, ask_body(ask), &ask->item.stop, e);
    if (st != OK) return st;
    const json_t *name = json_object_get(*root, "model");
    if (name && !json_is_null(name) && !json_is_string(name))
        st = api_error_set(e, ERR_INVALID, NULL, "model", "'model' must be a string, not %s", openai_kind(name));
    if (st == OK) st = check_members(*root, of, ask->http.sv->cfg->coordinator.strict_params, e);
    if (st == OK) st = services_find_model(ask->http.sv, json_is_string(name) ? json_string_value(name) : "", model, e);
    if (st != OK) json_decref(*root);
    return st;
}

static enum status encode(const json_t *root, const struct served_model *m, const atomic_bool *stop,
                          struct token_list *ids, struct api_error *e)
{
    static const char *const text_names[] = { "content", "prompt", NULL };
    static const char *const special_names[] = { "add_special", "add_special_tokens", NULL };
    static const char *const parse_names[] = { "parse_special", NULL };
    const char *found = "content";
    const json_t *text = member(root, text_names, &found);
    struct encode_options opt = { .stop = stop };
    struct error err;
    enum status st;
    if (!json_is_string(text))
        return api_error_set(e, ERR_INVALID, NULL, found, "'content' (or 'prompt') must be a string, not %s",
                             text ? openai_kind(text) : "absent");
    if (json_string_length(text) > MAX_TEXT_BYTES) {
        api_error_http(e, 413, NULL, "'%s' has %zu bytes; at most %zu are tokenized here", found,
                       json_string_length(text), MAX_TEXT_BYTES);
        return ERR_TOO_LARGE;
    }
    /* each name brings the default of the server that it comes from */
    if ((st = read_flag(root, special_names, !strcmp(found, "prompt"), &opt.add_special, e)) != OK) return st;
    if ((st = read_flag(root, parse_names, true, &opt.parse_special, e)) != OK) return st;
    st = tokenizer_encode(m->tokenizer, json_string_value(text), json_string_length(text), opt, ids, &err);
    return st == OK ? OK : api_error_from(e, &err, found);
}

static enum status tokenize(struct ask *ask)
{
    static const struct text_endpoint of = {
        API_TOKENIZE, { "model", "content", "prompt", "add_special", "add_special_tokens", "parse_special" }
    };
    struct strbuf *out = &((struct text_ask *)ask)->json;
    struct served_model *m;
    struct token_list ids = { 0 };
    json_t *root;
    enum status st = load(ask, &of, &root, &m, &ask->e);
    if (st != OK) return st;
    ask->model = m->name;
    st = encode(root, m, &ask->item.stop, &ids, &ask->e);
    json_decref(root);
    if (st == OK) {
        strbuf_puts(out, "{\"tokens\":[");
        for (size_t i = 0; i < ids.n; i++) strbuf_addf(out, "%s%d", i ? "," : "", ids.ids[i]);
        strbuf_addf(out, "],\"count\":%zu,\"max_model_len\":%u}", ids.n, ask->n_ctx[m->idx]);
    }
    token_list_fini(&ids);
    return st;
}

static enum status decode(const json_t *root, const struct served_model *m, struct strbuf *text, struct api_error *e)
{
    const json_t *tokens = json_object_get(root, "tokens");
    struct detok detok;
    int32_t *ids;
    size_t n;
    if (json_is_array(tokens) && json_array_size(tokens) == 0) return OK;
    enum status st = openai_read_ids(&ids, &n, tokens, "tokens", "tokens", e);
    if (st != OK) return st;
    detok_init(&detok, m->vocab, true);
    for (size_t i = 0; i < n && st == OK; i++) {
        if (token_id_ok(ids[i], m->n_vocab))
            detok_add(&detok, ids[i], text);
        else
            st = api_error_set(e, ERR_INVALID, NULL, "tokens", "'tokens[%zu]' is %d; the vocabulary has %u tokens", i,
                               ids[i], m->n_vocab);
    }
    detok_flush(&detok, text);
    mem_free(ids);
    return st;
}

static enum status detokenize(struct ask *ask)
{
    static const struct text_endpoint of = { API_DETOKENIZE, { "model", "tokens" } };
    struct strbuf text = STRBUF_INIT, *out = &((struct text_ask *)ask)->json;
    struct served_model *m;
    json_t *root;
    enum status st = load(ask, &of, &root, &m, &ask->e);
    if (st != OK) return st;
    ask->model = m->name;
    st = decode(root, m, &text, &ask->e);
    json_decref(root);
    if (st == OK) {
        strbuf_puts(out, "{\"content\":");
        json_str(out, strbuf_cstr(&text), text.n);
        strbuf_puts(out, ",\"prompt\":");
        json_str(out, strbuf_cstr(&text), text.n);
        strbuf_putc(out, '}');
    }
    strbuf_fini(&text);
    return st;
}

static void answer(struct ask *ask)
{
    struct strbuf *json = &((struct text_ask *)ask)->json;
    struct api_error e;
    if (json->overflowed) {
        api_error_set(&e, ERR_TOO_LARGE, NULL, NULL, "the answer is larger than %zu MiB", STRBUF_MAX >> 20);
        api_reply_error(&ask->http, ask->model, &e);
    } else {
        api_reply_json_take(&ask->http, 200, ask->model, json);
    }
}

static void fini(struct ask *ask)
{
    strbuf_fini_later(&((struct text_ask *)ask)->json); /* the client may have left */
}

void api_tokenize(const struct api_ask *http)
{
    static const struct ask_kind kind = { sizeof(struct text_ask), tokenize, answer, fini };
    ask_start(http, &kind, NULL, NULL);
}

void api_detokenize(const struct api_ask *http)
{
    static const struct ask_kind kind = { sizeof(struct text_ask), detokenize, answer, fini };
    ask_start(http, &kind, NULL, NULL);
}
