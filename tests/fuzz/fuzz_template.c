/* fuzz_template.c - any template text, compiled and rendered over a conversation. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct template *t = NULL;
    struct error err;
    if (template_compile(&t, (const char *)data, size, &err) != OK) return 0;
    struct strbuf out;
    json_t *context = conversation();
    if (!context) abort();
    strbuf_init(&out, 1 << 20);
    if (template_render(t, context, 1752665696, &out, &err) == OK && out.overflowed) abort();
    strbuf_fini(&out);
    json_decref(context);
    template_destroy(t);
    return 0;
}
