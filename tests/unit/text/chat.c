/* chat: messages become exactly the prompt that the model's own template makes of them. */
#include "text/chat.h"

#include "base/mem.h"
#include "text/vocab.h"
#include "text_files.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct vocab_token tokens[] = {
    { "<s>", 3, 0, TOKEN_CONTROL },
    { "</s>", 4, 0, TOKEN_CONTROL },
};

static struct vocab vocab_with(char *chat_template)
{
    return (struct vocab){ .tokens = tokens, .n_tokens = 2, .bos_id = 0, .eos_id = 1, .chat_template = chat_template };
}

static enum status render(struct vocab v, const json_t *messages, bool prompt, struct chat_prompt *out,
                          struct error *err)
{
    struct chat *c = NULL;
    struct chat_options opt = { .add_generation_prompt = prompt, .now = 1752665696 };
    enum status st = chat_create(&c, &v, err);
    if (st == OK) st = chat_render(c, messages, &opt, out, err);
    chat_destroy(c);
    return st;
}

static void expect_text(struct vocab v, const json_t *messages, bool prompt, const char *want)
{
    struct chat_prompt out = { 0 };
    struct error err = { OK, "" };
    cr_assert_eq(render(v, messages, prompt, &out, &err), OK, "%s", err.text);
    cr_assert_str_eq(strbuf_cstr(&out.text), want);
    chat_prompt_fini(&out);
}

Test(chat, renders_the_golden_prompts_of_smollm2)
{
    char *source = read_text(TEST_DATA "/golden/templates/smollm2.jinja");
    json_t *golden = json_load_file(TEST_DATA "/golden/smollm2.json", 0, NULL), *prompt;
    size_t i, n = 0;
    cr_assert(golden);
    json_array_foreach(golden, i, prompt)
    {
        const json_t *user = json_object_get(prompt, "user");
        if (!json_is_string(user)) continue;
        json_t *messages = json_pack("[{s:s, s:O}]", "role", "user", "content", user);
        expect_text(vocab_with(source), messages, true, json_string_value(json_object_get(prompt, "text")));
        json_decref(messages);
        n++;
    }
    cr_assert(n > 3, "only %zu golden chat prompts", n);
    json_decref(golden);
    mem_free(source);
}

Test(chat, gives_the_template_its_tokens_and_no_tools)
{
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi");
    char source[] = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ tools is none }}"
                    "{% if add_generation_prompt %}>{% endif %}";
    expect_text(vocab_with(source), messages, true, "<s>hi</s>True>");
    expect_text(vocab_with(source), messages, false, "<s>hi</s>True");
    struct vocab bare = vocab_with(source);
    bare.bos_id = bare.eos_id = TOKEN_NONE;
    expect_text(bare, messages, false, "hiTrue");
    bare.bos_id = 77; /* an id that the vocabulary does not have */
    expect_text(bare, messages, false, "hiTrue");
    json_decref(messages);
}

Test(chat, asks_a_template_in_the_way_that_shows_the_question)
{
    static const struct {
        const char *source, *text;
    } rows[] = {
        /* fails on tools that are none */
        { "{% for t in tools %}{{ t }}{% endfor %}{{ messages[0].content }}", "hi" },
        /* overlooks a content that is a text */
        { "{% for p in messages[0].content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}", "hi" },
        /* fails on one */
        { "{{ messages[0].content[0].text.upper() ~ messages[0].content[0].text }}", "HIhi" },
        { "{% for t in tools %}{{ t }}{% endfor %}{{ messages[0].content[0]['text'] }}", "hi" },
        /* shows the question in no way: as Hugging Face asks */
        { "{{ messages[0].content is string }}{{ tools is none }}", "TrueTrue" },
        { "{% if messages | length == 1 %}{{ raise_exception('two') }}{% endif %}{{ messages[0].content }}", "hi" },
    };
    json_t *messages =
        json_pack("[{s:s, s:s}, {s:s, s:s}]", "role", "user", "content", "hi", "role", "assistant", "content", "you");
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char *source = mem_strdup(rows[i].source);
        expect_text(vocab_with(source), messages, true, rows[i].text);
        mem_free(source);
    }
    json_decref(messages);
}

Test(chat, notes_a_template_that_shows_no_question)
{
    static const struct {
        const char *source, *note;
    } rows[] = {
        { "{{ messages[0].content }}", NULL },
        { "{{ messages[0].text }}", "what messages say is lost" },
        { "a\n{{ messages[0].content + 1 }}",
          "fails on a plain question: template line 2, {{ messages[0].content + 1" },
        { "{{ raise_exception('two turns, please') }}", NULL },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        char *source = mem_strdup(rows[i].source);
        struct vocab v = vocab_with(source);
        struct chat *c = NULL;
        struct error err = { OK, "" };
        cr_assert_eq(chat_create(&c, &v, &err), OK, "%s", err.text);
        const char *note = chat_note(c);
        cr_assert(rows[i].note ? note && strstr(note, rows[i].note) : !note, "%s: %s", source, note ? note : "none");
        chat_destroy(c);
        mem_free(source);
    }
}

Test(chat, says_when_the_model_has_no_template)
{
    struct chat_prompt out = { 0 };
    struct error err = { OK, "" };
    json_t *messages = json_array();
    cr_assert_eq(render(vocab_with(NULL), messages, true, &out, &err), ERR_UNSUPPORTED);
    cr_assert(strstr(err.text, "no chat template"), "%s", err.text);
    json_decref(messages);
    chat_prompt_fini(&out);
}

Test(chat, names_what_a_template_needs_beyond_the_subset)
{
    struct chat_prompt out = { 0 };
    struct error err = { OK, "" };
    json_t *messages = json_array();
    char source[] = "x\n{% include 'y' %}";
    cr_assert_eq(render(vocab_with(source), messages, true, &out, &err), ERR_UNSUPPORTED);
    cr_assert(strstr(err.text, "{% include %}") && strstr(err.text, "line 2"), "%s", err.text);
    json_decref(messages);
    chat_prompt_fini(&out);
}

Test(chat, hands_on_what_the_template_raises)
{
    struct chat_prompt out = { 0 };
    struct error err = { OK, "" };
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "system", "content", "hi");
    char source[] = "{{ raise_exception('System role not supported') }}";
    cr_assert_eq(render(vocab_with(source), messages, true, &out, &err), ERR_INVALID);
    cr_assert_str_eq(err.text, "System role not supported");
    cr_assert_eq(out.text.n, 0);
    json_decref(messages);
    chat_prompt_fini(&out);
}
