/* logprobs: both JSON shapes, from one log. */
#include "coordinator/logprobs.h"
#include "base/strbuf.h"
#include "tests/unit/coordinator/tiny_model.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>

static struct token_log log_of(void)
{
    struct token_log l = { .n_top = 2 };
    struct logprob_row row = { -1.5f, 2, (int32_t[]){ TINY_X, TINY_EURO_1 }, (float[]){ -0.25f, -INFINITY } };
    token_log_add(&l, TINY_HELLO, 0, NULL);
    token_log_add(&l, TINY_WORLD, 5, &row);
    return l;
}

static json_t *render(void (*fn)(const struct token_log *, const struct logprob_style *, struct strbuf *), bool as_ids)
{
    struct token_log l = log_of();
    struct logprob_style style = { tiny_model(), as_ids };
    struct strbuf out = STRBUF_INIT;
    json_error_t err;
    fn(&l, &style, &out);
    json_t *root = json_loads(out.s, JSON_REJECT_DUPLICATES, &err);
    cr_assert_not_null(root, "%s: %s", err.text, out.s);
    strbuf_fini(&out);
    token_log_fini(&l);
    return root;
}

static const char *string_at(const json_t *o, const char *key, size_t i)
{
    return json_string_value(json_array_get(json_object_get(o, key), i));
}

Test(logprobs, completions_have_four_parallel_arrays)
{
    json_t *root = render(logprobs_text_json, false);
    cr_assert_str_eq(string_at(root, "tokens", 1), " world");
    cr_assert(json_is_null(json_array_get(json_object_get(root, "token_logprobs"), 0)));
    cr_assert(json_is_null(json_array_get(json_object_get(root, "top_logprobs"), 0)));
    json_t *top = json_array_get(json_object_get(root, "top_logprobs"), 1);
    cr_assert_eq(json_object_size(top), 3); /* the token itself is added */
    cr_assert_eq(json_number_value(json_object_get(top, " world")), -1.5);
    cr_assert_eq(json_number_value(json_object_get(top, "\xEF\xBF\xBD\xEF\xBF\xBD")), -9999);
    cr_assert_eq(json_integer_value(json_array_get(json_object_get(root, "text_offset"), 1)), 5);
    json_decref(root);
}

Test(logprobs, tokens_can_be_ids)
{
    json_t *root = render(logprobs_text_json, true);
    cr_assert_str_eq(string_at(root, "tokens", 0), "token_id:1");
    cr_assert_not_null(json_object_get(json_array_get(json_object_get(root, "top_logprobs"), 1), "token_id:7"));
    json_decref(root);
}

Test(logprobs, chat_has_bytes_and_exactly_the_top)
{
    json_t *root = render(logprobs_chat_json, false);
    json_t *entry = json_array_get(json_object_get(root, "content"), 1);
    cr_assert_str_eq(json_string_value(json_object_get(entry, "token")), " world");
    cr_assert_eq(json_array_size(json_object_get(entry, "bytes")), 6);
    json_t *top = json_object_get(entry, "top_logprobs");
    cr_assert_eq(json_array_size(top), 2);
    cr_assert_eq(json_array_size(json_object_get(json_array_get(top, 1), "bytes")), 2);
    json_decref(root);
}

Test(logprobs, cut_keeps_the_prompt)
{
    struct token_log l = log_of();
    token_log_cut(&l, 5, 2);
    cr_assert_eq(l.n, 2);
    token_log_cut(&l, 5, 0);
    cr_assert_eq(l.n, 1);
    token_log_cut(&l, 0, 0);
    cr_assert_eq(l.n, 0);
    token_log_fini(&l);
}
