/* render.c - renders chats for tests/templates/compare.py: an object a line in, an object a line out.
 *
 * In: template, bos, eos, now, add_generation_prompt, messages.  Out: text and literal (pairs of byte offsets), or
 * status and error. */
#include "base/mem.h"
#include "text/chat.h"
#include "text/vocab.h"

#include <stdio.h>
#include <string.h>

static char *text_member(const json_t *in, const char *key)
{
    const char *s = json_string_value(json_object_get(in, key));
    return mem_strdup(s ? s : "");
}

static json_t *literal_pairs(const struct spans *s)
{
    json_t *pairs = json_array();
    for (size_t i = 0; i < s->n; i++)
        json_array_append_new(pairs, json_pack("[I, I]", (json_int_t)s->v[i].from, (json_int_t)s->v[i].to));
    return pairs;
}

static json_t *render(const json_t *in)
{
    char *texts[] = { text_member(in, "bos"), text_member(in, "eos"), text_member(in, "template") };
    struct vocab_token tokens[2] = { 0 };
    for (int i = 0; i < 2; i++) {
        tokens[i].text = texts[i];
        tokens[i].n = (uint32_t)strlen(texts[i]);
    }
    struct vocab v = { .tokens = tokens, .n_tokens = 2, .bos_id = 0, .eos_id = 1, .chat_template = texts[2] };
    struct chat_options opt = { .add_generation_prompt = json_is_true(json_object_get(in, "add_generation_prompt")),
                                .now = json_integer_value(json_object_get(in, "now")) };
    struct chat_prompt prompt = { 0 };
    struct error err = { 0 };
    struct chat *chat = NULL;
    enum status st = chat_create(&chat, &v, &err);
    if (st == OK) st = chat_render(chat, json_object_get(in, "messages"), &opt, &prompt, &err);
    json_t *out = st == OK ? json_pack("{s:s%, s:o}", "text", strbuf_cstr(&prompt.text), prompt.text.n, "literal",
                                       literal_pairs(&prompt.literal))
                           : json_pack("{s:s, s:s}", "status", status_text(st), "error", err.text);
    chat_prompt_fini(&prompt);
    chat_destroy(chat);
    for (int i = 0; i < 3; i++) mem_free(texts[i]);
    return out;
}

int main(void)
{
    for (;;) {
        json_error_t why;
        json_t *in = json_loadf(stdin, JSON_DISABLE_EOF_CHECK, &why);
        if (!in) return feof(stdin) ? 0 : 1;
        json_t *out = render(in);
        if (!out || json_dumpf(out, stdout, 0) != 0 || puts("") < 0 || fflush(stdout) != 0) return 1;
        json_decref(out);
        json_decref(in);
    }
}
