/* chat_open.c - sets the mark, and finds it again. */
#include "text/chat_open.h"

#include "base/strbuf.h"

#include <string.h>

/* Characters for private use: no filter or method of a template changes them. */
#define MARK "\xEE\xBF\x82\xEE\xBF\x91\xEE\xBF\xA7\xEE\xBF\x82"

json_t *chat_open_mark(const json_t *messages)
{
    size_t last = json_array_size(messages) - 1;
    json_t *out = json_copy((json_t *)messages), *message = json_copy(json_array_get(messages, last));
    const json_t *content = json_object_get(message, "content");
    struct strbuf text = STRBUF_INIT;
    strbuf_add(&text, json_string_value(content), json_string_length(content));
    strbuf_puts(&text, MARK);
    bool ok = out && message && !text.overflowed &&
              json_object_set_new(message, "content", json_stringn(text.s, text.n)) == 0 &&
              json_array_set(out, last, message) == 0;
    strbuf_fini(&text);
    json_decref(message);
    if (ok) return out;
    json_decref(out);
    return NULL;
}

bool chat_open_find(const char *text, size_t n, size_t *at)
{
    const size_t n_mark = strlen(MARK);
    bool found = false;
    for (const char *p = text; (p = memmem(p, n - (size_t)(p - text), MARK, n_mark)); p += n_mark) {
        *at = (size_t)(p - text);
        found = true;
    }
    return found;
}
