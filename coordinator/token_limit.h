/* token_limit.h - how many tokens an answer may have, and who says so.  Pure. */
#ifndef COORDINATOR_TOKEN_LIMIT_H
#define COORDINATOR_TOKEN_LIMIT_H
#include <stdint.h>

enum token_limit_source {
    TOKEN_LIMIT_REQUEST, /* its max_tokens */
    TOKEN_LIMIT_DEFAULT, /* that of the endpoint or of the operator, as the request names none */
    TOKEN_LIMIT_CONTEXT, /* the model's context ends before either */
};

struct token_limit {
    uint32_t n; /* at least 1 */
    enum token_limit_source from;
};

/* `asked`: the request's max_tokens, below 0: none; `by_default`: without one, 0: to the end of the context; `room`:
 * what the context leaves behind the prompt, at least 1. */
struct token_limit token_limit_of(int64_t asked, uint32_t by_default, uint32_t room);
/* "request", "default" or "context". */
const char *token_limit_name(enum token_limit_source from);
#endif
