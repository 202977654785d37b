/* chat_open.h - a conversation whose last message stays open, so that a model goes on with it.
 *
 * No template has words for this: the last content is rendered with a mark behind it, and the prompt is cut at the
 * mark. So the prompt ends with exactly the content that was given, whatever the template writes behind a message. */
#ifndef TEXT_CHAT_OPEN_H
#define TEXT_CHAT_OPEN_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* A copy of `messages` (at least one, each with a string `content`) with the mark behind the last content; NULL: no
 * memory. */
json_t *chat_open_mark(const json_t *messages);
/* Where the mark's last occurrence begins in the n bytes of a rendered prompt; false: the template does not show it. */
bool chat_open_find(const char *text, size_t n, size_t *at);
#endif
