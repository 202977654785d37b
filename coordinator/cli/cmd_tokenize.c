/* cmd_tokenize.c - `baton tokenize`: a text or standard input to token ids, or back. */
#include "base/mem.h"
#include "base/strbuf.h"
#include "base/token_id.h"
#include "coordinator/cli/cli.h"
#include "formats/gguf.h"
#include "formats/vocab_load.h"
#include "text/detok.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tokenize_options {
    char *model;
    bool parse_special, add_special, decode;
};

#define AT(field) offsetof(struct tokenize_options, field)

static const struct config_option OPTIONS[] = {
    COMMAND_TEXT("model", "m", AT(model), "FILE.gguf", NULL, "a model, or a file with a vocabulary only"),
    COMMAND_SWITCH("parse-special", NULL, AT(parse_special), "\"<|im_start|>\" and the like become control tokens"),
    COMMAND_SWITCH("add-special", NULL, AT(add_special), "BOS and EOS where the vocabulary asks for them"),
    COMMAND_SWITCH("decode", NULL, AT(decode), "takes a JSON array of ids and prints the text"),
};
static const struct command COMMAND = { "baton tokenize", "[TEXT]",
                                        "Prints the token ids of TEXT, or of standard input, as a JSON array.\n",
                                        OPTIONS, sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

static enum status load_vocab(struct vocab **out, const char *path, struct error *err)
{
    struct gguf *g = NULL;
    enum status st;

    if ((st = gguf_open(&g, path, err)) != OK) return st;
    st = vocab_load_gguf(out, g, err);
    gguf_close(g);
    if (st != OK) error_prefix(err, "%s", path);
    return st;
}

/* `text`, or standard input without one. */
static enum status read_input(struct strbuf *in, const char *text, struct error *err)
{
    char buf[65536];
    size_t n;

    if (text) {
        strbuf_puts(in, text);
        return OK;
    }
    while ((n = fread(buf, 1, sizeof(buf), stdin)) > 0) strbuf_add(in, buf, n);
    if (ferror(stdin)) return error_set(err, ERR_IO, "standard input: %s", strerror(errno));
    if (in->overflowed) {
        return error_set(err, ERR_TOO_LARGE, "standard input has more than %zu bytes", STRBUF_MAX);
    }
    return OK;
}

static enum status encode(const struct vocab *v, const struct strbuf *in, struct encode_options opt, struct error *err)
{
    struct tokenizer *t = NULL;
    struct token_list ids = { 0 };
    enum status st = tokenizer_create(&t, v, err);

    if (st == OK) st = tokenizer_encode(t, strbuf_cstr(in), in->n, opt, &ids, err);
    if (st == OK) {
        putchar('[');
        for (size_t i = 0; i < ids.n; i++) printf("%s%d", i ? "," : "", ids.ids[i]);
        puts("]");
    }
    token_list_fini(&ids);
    tokenizer_destroy(t);
    return st;
}

static enum status check_id(const struct vocab *v, const json_t *item, size_t i, struct error *err)
{
    if (!json_is_integer(item)) return error_set(err, ERR_INVALID, "element %zu is not an integer", i);
    json_int_t id = json_integer_value(item);
    if (!token_id_ok(id, v->n_ids)) {
        return error_set(err, ERR_INVALID, "element %zu: token id %lld is not in 0..%u", i, (long long)id,
                         v->n_ids - 1);
    }
    return OK;
}

static enum status decode_ids(const struct vocab *v, const json_t *ids, struct error *err)
{
    struct detok d;
    struct strbuf out = STRBUF_INIT;
    size_t i;
    json_t *item;
    enum status st = OK;

    detok_init(&d, v, true);
    json_array_foreach(ids, i, item)
    {
        if ((st = check_id(v, item, i, err)) != OK) break;
        detok_add(&d, (int32_t)json_integer_value(item), &out);
    }
    detok_flush(&d, &out);
    if (st == OK && out.overflowed) {
        st = error_set(err, ERR_TOO_LARGE, "the text has more than %zu bytes", STRBUF_MAX);
    }
    if (st == OK) fwrite(strbuf_cstr(&out), 1, out.n, stdout);
    strbuf_fini(&out);
    return st;
}

static enum status decode(const struct vocab *v, const struct strbuf *in, struct error *err)
{
    json_error_t where;
    json_t *ids = json_loadb(strbuf_cstr(in), in->n, 0, &where);
    enum status st;

    if (!ids) {
        return error_set(err, ERR_PARSE, "the input is not JSON: line %d, column %d: %s", where.line, where.column,
                         where.text);
    }
    if (json_is_array(ids)) {
        st = decode_ids(v, ids, err);
    } else {
        st = error_set(err, ERR_INVALID, "the input is not a JSON array of token ids");
    }
    json_decref(ids);
    return st;
}

int cmd_tokenize(int argc, char **argv)
{
    struct tokenize_options o = { 0 };
    struct vocab *v = NULL;
    struct strbuf in = STRBUF_INIT;
    struct error err = { 0 };
    int n_texts, code = command_parse(&COMMAND, &o, argc, argv, &n_texts);

    if (code >= 0) return code;
    if (n_texts > 1) {
        fprintf(stderr, "%s: one text is taken, %d are given; put it in quotes\n", COMMAND.name, n_texts);
        command_free(&COMMAND, &o);
        return EXIT_USAGE;
    }
    const struct encode_options encoding = { .parse_special = o.parse_special, .add_special = o.add_special };
    enum status st = load_vocab(&v, o.model, &err);
    if (st == OK) st = read_input(&in, n_texts ? argv[1] : NULL, &err);
    if (st == OK) st = o.decode ? decode(v, &in, &err) : encode(v, &in, encoding, &err);
    if (st != OK) fprintf(stderr, "error: %s\n", err.text);
    strbuf_fini(&in);
    vocab_destroy(v);
    command_free(&COMMAND, &o);
    return st == OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
