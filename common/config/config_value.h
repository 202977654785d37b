/* config_value.h - the text of one option to its typed value, with the sentence that says what is allowed. */
#ifndef CONFIG_CONFIG_VALUE_H
#define CONFIG_CONFIG_VALUE_H
#include "config/config_table.h"

/* Parses `text` for `row` into the field at `base + row->offset`; strings there are replaced and owned.  A list takes
 * all values between commas.
 * On failure the field is untouched and err holds what is wrong and what is allowed, without the key. */
enum status config_value_set(const struct config_option *row, void *base, const char *text,
                             struct error *err) MUST_CHECK;
/* Adds what `text` names to the list of `row`, but for what it holds already; otherwise as above. */
enum status config_value_add(const struct config_option *row, void *base, const char *text,
                             struct error *err) MUST_CHECK;
/* Frees the texts of `row` below `base`. */
void config_value_clear(const struct config_option *row, void *base);
/* Whether two texts give `row` the same value, such as 1s and 1000ms. */
bool config_value_same(const struct config_option *row, const char *a, const char *b);
/* Writes what `row` allows, such as "1..16" or "auto, never, always"; "" for free text. */
const char *config_value_allowed(const struct config_option *row, char *buf, size_t cap);
#endif
