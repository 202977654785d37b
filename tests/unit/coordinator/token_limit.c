/* token_limit: the smallest of what the request, the default and the context allow, and whose it is. */
#include "coordinator/token_limit.h"

#include <criterion/criterion.h>

static void expect(int64_t asked, uint32_t by_default, uint32_t room, uint32_t n, enum token_limit_source from)
{
    const struct token_limit got = token_limit_of(asked, by_default, room);
    cr_assert(got.n == n && got.from == from, "%lld, %u, %u: %u from %s", (long long)asked, by_default, room, got.n,
              token_limit_name(got.from));
}

Test(token_limit, is_the_requests_where_it_fits)
{
    expect(5, 0, 100, 5, TOKEN_LIMIT_REQUEST);
    expect(100, 7, 100, 100, TOKEN_LIMIT_REQUEST);
    expect(0, 0, 100, 1, TOKEN_LIMIT_REQUEST);
}

Test(token_limit, is_the_default_without_one)
{
    expect(-1, 16, 100, 16, TOKEN_LIMIT_DEFAULT);
    expect(-1, 100, 100, 100, TOKEN_LIMIT_DEFAULT);
}

Test(token_limit, is_the_contexts_where_that_ends_first)
{
    expect(101, 0, 100, 100, TOKEN_LIMIT_CONTEXT);
    expect(INT32_MAX, 16, 100, 100, TOKEN_LIMIT_CONTEXT);
    expect(-1, 0, 100, 100, TOKEN_LIMIT_CONTEXT);
    expect(-1, 101, 100, 100, TOKEN_LIMIT_CONTEXT);
    expect(-1, 0, UINT32_MAX, UINT32_MAX, TOKEN_LIMIT_CONTEXT);
}
