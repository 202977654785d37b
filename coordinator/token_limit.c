/* token_limit.c - the smaller of what is asked for and what there is room for. */
#include "coordinator/token_limit.h"

struct token_limit token_limit_of(int64_t asked, uint32_t by_default, uint32_t room)
{
    const enum token_limit_source from = asked >= 0 ? TOKEN_LIMIT_REQUEST : TOKEN_LIMIT_DEFAULT;
    const int64_t want = asked >= 0 ? asked : by_default > 0 ? by_default : INT64_MAX;
    if (want > room) return (struct token_limit){ room, TOKEN_LIMIT_CONTEXT };
    return (struct token_limit){ want < 1 ? 1 : (uint32_t)want, from }; /* echo computes one even if none is shown */
}

const char *token_limit_name(enum token_limit_source from)
{
    static const char *const names[] = { "request", "default", "context" };
    return names[from];
}
