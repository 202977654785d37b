/* chat_open: a prompt is cut where the last message's content ends. */
#include "text/chat_open.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

Test(chat_open, cuts_behind_the_last_content)
{
    static const char *const contents[] = { "", "a", "The answer is ", "<|im_end|>", "i\n\n", "\xC3\xA9\xE2\x82\xAC" };
    for (size_t i = 0; i < sizeof(contents) / sizeof(contents[0]); i++) {
        json_t *messages = json_pack("[{s:s, s:s}, {s:s, s:s}]", "role", "user", "content", "hi", "role", "assistant",
                                     "content", contents[i]);
        json_t *open = chat_open_mark(messages);
        const char *marked = json_string_value(json_object_get(json_array_get(open, 1), "content"));
        char text[200], want[200];
        size_t at = 0;
        /* what a template may write around it, words of the content among them */
        snprintf(text, sizeof(text), "<|im_start|>assistant\n%s<|im_end|>\n%s", marked, contents[i]);
        snprintf(want, sizeof(want), "<|im_start|>assistant\n%s", contents[i]);
        cr_assert(chat_open_find(text, strlen(text), &at));
        cr_assert(at == strlen(want) && !memcmp(text, want, at), "%s", contents[i]);
        cr_assert_str_eq(json_string_value(json_object_get(json_array_get(messages, 1), "content")), contents[i]);
        cr_assert_eq(json_array_get(open, 0), json_array_get(messages, 0));
        json_decref(open);
        json_decref(messages);
    }
}

Test(chat_open, says_when_a_template_does_not_show_the_content)
{
    size_t at;
    cr_assert(!chat_open_find("<|im_start|>assistant\n", 22, &at));
    cr_assert(!chat_open_find("", 0, &at));
}
