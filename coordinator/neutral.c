/* neutral.c - whether a value asks for nothing, and how that is said. */
#include "coordinator/neutral.h"

#include <stdio.h>
#include <string.h>

static bool is_word(const char *words, const char *s)
{
    size_t n = s ? strlen(s) : 0;
    for (const char *at = words; at && n > 0 && *at; at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        if (len == n && !memcmp(at, s, n)) return true;
        at += len;
    }
    return false;
}

static bool is_number(unsigned values, double d)
{
    return (values & NEUTRAL_NUMBER) || ((values & NEUTRAL_ZERO) && d == 0) || ((values & NEUTRAL_ONE) && d == 1) ||
           ((values & NEUTRAL_MINUS_ONE) && d == -1);
}

static bool is_list(const struct neutral *n, const json_t *v)
{
    if (n->values & NEUTRAL_LIST) return true;
    if (json_array_size(v) == 0) return n->values & NEUTRAL_EMPTY;
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!is_word(n->words, json_string_value(json_array_get(v, i)))) return false;
    return true;
}

bool neutral_is(const struct neutral *n, const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL: return true;
    case JSON_FALSE: return n->values & NEUTRAL_FALSE;
    case JSON_TRUE: return n->values & NEUTRAL_TRUE;
    case JSON_INTEGER:
    case JSON_REAL: return is_number(n->values, json_number_value(v));
    case JSON_STRING:
        if (json_string_length(v) == 0) return n->values & NEUTRAL_EMPTY;
        return is_word(n->words, json_string_value(v));
    case JSON_ARRAY: return is_list(n, v);
    case JSON_OBJECT:
        if (json_object_size(v) == 0) return n->values & NEUTRAL_EMPTY;
        return is_word(n->words, json_string_value(json_object_get(v, "type")));
    }
    return false;
}

static void add(char *buf, size_t cap, const char *item, size_t n_item, const char *quote)
{
    size_t n = strlen(buf);
    snprintf(buf + n, cap - n, "%s%s%.*s%s", n ? ", " : "", quote, (int)n_item, item, quote);
}

const char *neutral_describe(const struct neutral *n, char *buf, size_t cap)
{
    static const struct {
        unsigned value;
        const char *said;
    } rows[] = {
        { NEUTRAL_FALSE, "false" }, { NEUTRAL_TRUE, "true" },    { NEUTRAL_ZERO, "0" },
        { NEUTRAL_ONE, "1" },       { NEUTRAL_MINUS_ONE, "-1" }, { NEUTRAL_NUMBER, "a number" },
        { NEUTRAL_LIST, "a list" }, { NEUTRAL_EMPTY, "empty" },
    };
    buf[0] = '\0';
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (n->values & rows[i].value) add(buf, cap, rows[i].said, strlen(rows[i].said), "");
    for (const char *at = n->words; at && *at; at += strspn(at, " ")) {
        size_t len = strcspn(at, " ");
        add(buf, cap, at, len, "\"");
        at += len;
    }
    return buf;
}
