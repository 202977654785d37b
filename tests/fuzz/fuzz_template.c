/* fuzz_template.c - any template text, compiled and rendered over a conversation. */
#include "text/spans.h"
#include "text/template.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static json_t *conversation(void)
{
    return json_pack("{s:[{s:s,s:s},{s:s,s:s},{s:s,s:s}], s:b, s:s, s:s, s:n, s:i, s:f, s:[i,i,i], s:{s:i,s:{s:s}}}",
                     "messages", "role", "system", "content", " Be brief. ", "role", "user", "content",
                     "h\xc3\xa9llo <think>", "role", "assistant", "content", "", "add_generation_prompt", 1,
                     "bos_token", "<s>", "eos_token", "</s>", "tools", "n", 42, "f", 2.5, "l", 3, 1, 2, "d", "a", 1,
                     "b", "c", "x");
}

static void check_spans(const struct spans *s, size_t n)
{
    for (size_t i = 0; i < s->n; i++) {
        size_t least = i ? s->v[i - 1].to + 1 : 0; /* neighbours would be one */
        if (s->v[i].from < least || s->v[i].from >= s->v[i].to || s->v[i].to > n) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    struct template *t = NULL;
    struct error err;
    if (template_compile(&t, (const char *)data, size, &err) != OK) return 0;
    struct strbuf out;
    struct spans literal = { 0 };
    json_t *context = conversation();
    if (!context) abort();
    strbuf_init(&out, 1 << 20);
    struct template_input in = { .literal = context, .own = context, .now = 1752665696 };
    if (data[size - 1] & 1) in.own = NULL;
    if (template_render(t, &in, &out, &literal, &err) == OK && out.overflowed) abort();
    check_spans(&literal, out.n);
    spans_fini(&literal);
    strbuf_fini(&out);
    json_decref(context);
    template_destroy(t);
    return 0;
}
